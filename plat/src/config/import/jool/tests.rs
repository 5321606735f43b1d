//! Files as Jool has them.

use super::super::{From, import};

const USUAL: &str = r#"{
  "comment": "two networks",
  "instance": "default",
  "framework": "netfilter",
  "global": {
    "pool6": "64:ff9b::/96",
    "manually-enabled": true,
    "address-dependent-filtering": true,
    "tcp-est-timeout": "2:30:00",
    "tcp-trans-timeout": "0:04:00.000",
    "udp-timeout": "0:01:00",
    "icmp-timeout": 61,
    "lowest-ipv6-mtu": 1500,
    "f-args": "11",
    "frobnicate": 1
  },
  "pool4": [
    { "protocol": "TCP", "prefix": "198.51.100.1/32", "port range": "1024-65535" },
    { "protocol": "UDP", "prefix": "198.51.100.1/32", "port range": "1024-65535" },
    { "protocol": "ICMP", "prefix": "198.51.100.1/32", "port range": "1024-65535" },
    { "protocol": "TCP", "prefix": "198.51.100.2/32", "port range": "80" },
    { "protocol": "TCP", "prefix": "198.51.100.2/32", "port range": "1024-2047" },
    { "mark": 7, "protocol": "TCP", "prefix": "198.51.100.3/32" }
  ],
  "bib": [
    { "protocol": "TCP",
      "ipv6 address": "2001:db8::1#80", "ipv4 address": "198.51.100.1#8080" },
    { "protocol": "SCTP", "ipv6 address": "2001:db8::1#80", "ipv4 address": "198.51.100.1#80" }
  ]
}"#;

#[test]
fn a_usual_file_is_taken_over_and_the_rest_refused_by_line() {
    let import = import(From::Jool, "nat64.json", USUAL).unwrap();
    let text = import.toml("nat64.json");
    for wanted in [
        "\nprefixes = [\"64:ff9b::/96\"]\n",
        "{ cidr = \"198.51.100.1/32\", tcp = \"1024-65535\", udp = \"1024-65535\"",
        "{ cidr = \"198.51.100.2/32\", tcp = \"80-80,1024-2047\", udp = \"none\", icmp = \"none\" }",
        "\ntcp_established = 9000\ntcp_transitory = 240\nicmp = 61\n",
        "\nfragment_above = 1500\n",
        "\nfiltering.udp = \"address-dependent\"\n",
        "[[bib]]\nprotocol = \"tcp\"\nipv6 = \"[2001:db8::1]:80\"\nipv4 = \"198.51.100.1:8080\"",
    ] {
        assert!(text.contains(wanted), "{wanted}\n{text}");
    }
    let mut refused: Vec<_> = import.refused.iter().map(ToString::to_string).collect();
    refused.sort_by_key(|it| {
        it["line ".len()..]
            .split(':')
            .next()
            .unwrap()
            .parse::<u32>()
            .unwrap()
    });
    let starts = [
        "line 11: udp-timeout \"0:01:00\": it must be from 120 ",
        "line 15: frobnicate 1: plat has nothing like it",
        "line 23: pool4 { \"mark\": 7,",
        "line 28: bib { \"protocol\": \"SCTP\"",
    ];
    assert_eq!(refused.len(), starts.len(), "{refused:#?}");
    for (refused, start) in refused.iter().zip(starts) {
        assert!(refused.starts_with(start), "{refused}");
    }
}

#[test]
fn the_table_of_a_siit_becomes_mappings() {
    let text = r#"{"framework": "netfilter", "eamt": [
        {"ipv6 prefix": "2001:db8::/120", "ipv4 prefix": "192.0.2.0/24"},
        {"ipv6 prefix": "2001:db8::/128", "ipv4 prefix": "192.0.2.0/33"}]}"#;
    let import = import(From::Jool, "siit.json", text).unwrap();
    assert!(
        import
            .toml("x")
            .contains("[[eam]]\nipv4 = \"192.0.2.0/24\"")
    );
    let refused = import.refused[0].to_string();
    assert!(refused.starts_with("line 3: eamt"), "{refused}");
}

#[test]
fn what_is_no_json_is_said_with_its_line() {
    for (text, wanted) in [
        ("{\n\n\"pool4\": [}", "x:3:"),
        ("{\n\"global\":\n7}", "x:3:"),
        ("[]", "x:1:"),
        ("", "x:1:"),
    ] {
        let error = import(From::Jool, "x", text).unwrap_err().to_string();
        assert!(error.contains(wanted), "{text}: {error}");
    }
}

proptest::proptest! {
    /// Whatever the files hold, and however they are broken, it is an answer and no panic.
    #[test]
    fn no_file_panics(at in 0..USUAL.len(), with in ".{0,3}", any in ".*", line in "[a-z0-9 :./-]{0,40}") {
        let broken = format!("{}{with}{}", &USUAL[..at], &USUAL[at..]);
        let cut = &USUAL[..at];
        for text in [broken.as_str(), cut, any.as_str(), line.as_str()] {
            for from in [From::Jool, From::Tayga] {
                let _ = import(from, "x", text);
            }
            let _ = super::super::super::settled(cli::config::Document::new("x", text));
        }
    }
}
