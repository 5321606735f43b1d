//! Wrong and right files.

use std::{net::Ipv6Addr, path::Path};

use cli::{Exit, config::Document};
use nat64::{
    config::{TcpPolicy, UnexpectedSyn},
    filtering::{Filtering, FilteringPolicy},
};
use pref64::{Pref64, siit::NonGlobal};

use crate::pool_mode::PoolMode;

use super::{Config, find, settle::settle};

pub(crate) fn settled(text: &str) -> Result<Config, String> {
    settle(&Document::new("plat.toml", text)).map_err(|it| it.to_string())
}

#[test]
fn a_pool_is_all_that_is_needed() {
    let config = settled("pool = [\"203.0.113.4/30\"]").unwrap();
    assert_eq!(config.prefixes, [Pref64::WELL_KNOWN]);
    assert_eq!(config.pool_addresses().count(), 4);
    let own_ipv6 = "2001:db8::1".parse().unwrap();
    assert_eq!(config.for_engine(own_ipv6, vec![]).check(), Ok(()));
}

#[test]
fn addresses_that_look_like_a_network_are_only_used_if_chosen() {
    let last = |text| -> Vec<u8> {
        let config = settled(text).unwrap();
        config.pool_addresses().map(|it| it.octets()[3]).collect()
    };
    assert_eq!(last("pool = [\"203.0.113.0/30\"]"), [1, 2, 3]);
    assert_eq!(last("pool = [\"203.0.113.252/30\"]"), [252, 253, 254]);
    assert_eq!(last("pool = [\"203.0.113.0/31\"]"), [0, 1]);
    assert_eq!(last("pool = [\"203.0.113.255\"]"), [255]);
    assert_eq!(last("pool = [\"203.0.112.0/23\"]").len(), 508);
}

#[test]
fn addr_3_4_01_a_configured_prefix_replaces_the_well_known_one() {
    let text = "pool = [\"203.0.113.1\"]\nprefixes = [\"2001:db8:64::/96\"]";
    let config = settled(text).unwrap();
    assert_eq!(config.prefixes, ["2001:db8:64::/96".parse().unwrap()]);
}

#[test]
fn every_key_arrives_where_it_belongs() {
    let config = settled(
        "pool = [\"203.0.113.1\"]\ninterface = \"nat\"\nipv6_mtu = 1400\nipv4_mtu = 1390\n\
         fragment_above = 1300\nwkp_non_global = \"translate\"\n\
         allow_destinations = [\"10.0.0.0/8\"]\n\
         [timers]\nudp = 121\nicmp = 61\ntcp_established = 7201\ntcp_transitory = 241\n\
         fragment = 3\ntcp_incoming_syn = 7\n\
         [filtering]\ntcp = \"address-dependent\"\nicmp = \"address-dependent\"\nanswer = true\n\
         inbound_refresh = false\n\
         [tcp]\nunexpected_syn = \"drop\"\nreset_after_fin = false\ncheck_sequence = false\n\
         reopen_after_fin = false\n\
         probe = false\n\
         [limits]\nstored_syns = 16\nstored_syn_bytes = 17\n\
         bindings = 11\nsessions = 12\nfragmented_datagrams = 13\n\
         fragment_bytes = 14\nfragmented_datagrams_per_source = 15\n",
    )
    .unwrap();
    assert_eq!(config.interface, "nat");
    let engine = config.for_engine(Ipv6Addr::LOCALHOST, vec![]);
    assert_eq!((engine.ipv6_mtu, engine.ipv4_mtu), (1400, 1390));
    assert_eq!(engine.lowest_ipv6_mtu, 1300);
    assert_eq!(engine.wkp_non_global, NonGlobal::Translate);
    assert_eq!(engine.allow_destinations, ["10.0.0.0/8".parse().unwrap()]);
    let timers = engine.timers;
    let seconds = [
        timers.udp,
        timers.icmp,
        timers.tcp_established,
        timers.tcp_transitory,
    ];
    assert_eq!(seconds.map(|it| it.as_secs()), [121, 61, 7201, 241]);
    assert_eq!(timers.fragment.as_secs(), 3);
    let limits = engine.limits;
    assert_eq!((limits.bindings, limits.sessions), (11, 12));
    assert_eq!((limits.stored_syns, limits.stored_syn_bytes), (16, 17));
    assert_eq!(timers.tcp_incoming_syn.as_secs(), 7);
    let strict = Filtering::AddressDependent;
    let filtering = FilteringPolicy {
        tcp: strict,
        udp: Filtering::EndpointIndependent,
        icmp: strict,
        answer: true,
        inbound_refresh: false,
    };
    assert_eq!(engine.filtering, filtering);
    let tcp = TcpPolicy {
        unexpected_syn: UnexpectedSyn::Drop,
        reset_after_fin: false,
        reopen_after_fin: false,
        check_sequence: false,
        probe: false,
    };
    assert_eq!(engine.tcp, tcp);
    let fragments = limits.fragments;
    assert_eq!((fragments.datagrams, fragments.bytes), (13, 14));
    assert_eq!(fragments.datagrams_per_source, 15);
}

/// File, line, reason, and what to do where it is known.
#[test]
fn what_is_wrong_is_said() {
    const POOL: &str = "pool = [\"203.0.113.4/30\"]\n";
    for (text, parts) in [
        (
            "pool_mode = \"routed\"",
            vec!["plat.toml:1:13:", "there is no pool", "like: pool = ["],
        ),
        (
            "pool = []\npool_mode = \"arp\"",
            vec!["plat.toml:2:13:", "there is no pool"],
        ),
        (
            "pool_mode = \"routd\"",
            vec!["plat.toml:1:13:", "did you mean `routed`?"],
        ),
        (
            "pool = [\"192.0.2.0/30\"]\npool_mode = \"host-ports\"",
            vec!["plat.toml:2:13:", "shares one address"],
        ),
        (
            "pool = [\"192.0.2.0/30\"]\nhost_ports = \"1-2\"",
            vec!["plat.toml:2:14:", "means nothing with pool_mode routed"],
        ),
        (
            "#pool\nhost_ports = \"65535-61001\"",
            vec!["plat.toml:2:14:", "not a range of ports"],
        ),
        (
            "pool = [\"203.0.113.9-203.0.113.4\"]",
            vec![
                "plat.toml:1:9:",
                "the last address of the range is before the first",
            ],
        ),
        (
            "pool = [\"203.0.113\"]",
            vec!["plat.toml:1:9:", "not an IPv4 address, network or range"],
        ),
        ("pool = [1]", vec!["plat.toml:1:9:", "a table [[pool]]"]),
        (
            "[[pool]]\naddres = \"203.0.113.1\"",
            vec!["plat.toml:2:1:", "did you mean `address`?"],
        ),
        (
            "[[pool]]\naddress = \"203.0.113.1\"\n[[pool]]\n",
            vec!["plat.toml:3:1:", "this one has 0"],
        ),
        (
            "[[pool]]\naddress = \"203.0.113.1\"\nrange = \"203.0.113.2-203.0.113.9\"",
            vec!["plat.toml:1:1:", "this one has 2", "another [[pool]]"],
        ),
        (
            "[[pool]]\naddress = \"203.0.113.0/24\"",
            vec!["plat.toml:2:11:", "write it as `cidr = \"203.0.113.0/24\"`"],
        ),
        (
            "[[pool]]\naddress = \"203.0.113.1\"\ntcp = \"0-5\"",
            vec!["plat.toml:3:7:", "not a range of ports"],
        ),
        (
            "[[pool]]\naddress = \"203.0.113.1\"\nudp = \"5-4\"",
            vec!["plat.toml:3:7:", "not a range of ports"],
        ),
        (
            "[[pool]]\naddress = \"203.0.113.1\"\nicmp = \"1-65536\"",
            vec!["plat.toml:3:8:", "not a range of ports"],
        ),
        (
            "[[pool]]\naddress = \"203.0.113.1\"\n[[pool]]\nrange = \"203.0.113.1-203.0.113.2\"",
            vec!["plat.toml:4:9:", "203.0.113.1 stands twice"],
        ),
        (
            "pool = \"203.0.113.1\"",
            vec!["plat.toml:1:8:", "write a list"],
        ),
        (
            "pool = [\"203.0.113.1/24\"]",
            vec!["plat.toml:1:9:", "did you mean 203.0.113.0/24"],
        ),
        (
            "pool = [\"0.0.0.0/0\"]",
            vec!["plat.toml:1:9:", "4294967296 addresses"],
        ),
        (
            "pool = [\n\"10.0.0.0/20\",\n\"10.1.0.1\"]",
            vec!["plat.toml:3:1:", "4097 addresses; 4096 are possible"],
        ),
        (
            "pool = [\"203.0.113.4/30\",\n \"203.0.113.5\"]",
            vec!["plat.toml:2:2:", "203.0.113.5 stands twice"],
        ),
        (
            "pool = [\"127.0.0.1\"]",
            vec!["plat.toml:1:9:", "127.0.0.1 cannot be in the pool"],
        ),
        (
            "prefixs = []",
            vec!["plat.toml:1:1:", "`prefixs`", "did you mean `prefixes`?"],
        ),
        (
            "prefixes = [\"64:ff9b::/95\"]",
            vec!["plat.toml:1:13:", "/95 is not"],
        ),
        (
            "prefixes = [\"2001:db8:64::1/96\"]",
            vec!["plat.toml:1:13:", "did you mean 2001:db8:64::/96"],
        ),
        (
            "prefixes = [\"2001:db8::/32\",\n\"2001:db8:64::/96\"]",
            vec!["plat.toml:3:1:", "2001:db8:64::/96 lies in 2001:db8::/32"],
        ),
        ("ipv6_mtu = 1000", vec!["plat.toml:2:12:", "at least 1280"]),
        ("ipv4_mtu = 70000", vec!["plat.toml:2:12:", "70000"]),
        (
            "interface = \"../x\"",
            vec!["plat.toml:2:13:", "`../x`", "like plat0"],
        ),
        ("interface = \"plat%d\"", vec!["plat.toml:2:13:"]),
        ("interface = \"a-name-of-16-let\"", vec!["plat.toml:2:13:"]),
        ("interface = \"\"", vec!["plat.toml:2:13:"]),
        (
            "wkp_non_global = \"trnslate\"",
            vec!["plat.toml:2:18:", "did you mean `translate`?"],
        ),
        (
            "[timers]\nudb = 5",
            vec!["plat.toml:3:1:", "did you mean `udp`?"],
        ),
        (
            "[timers]\nudp = 5",
            vec!["plat.toml:3:7:", "udp must be from 120 "],
        ),
        (
            "[timers]\nfragment = 4000000000",
            vec!["plat.toml:3:12:", "to 120 seconds"],
        ),
        (
            "[limits]\nsessions = 0",
            vec!["plat.toml:3:12:", "sessions must be from 1 "],
        ),
        (
            "[limits]\nbindings = 16777216",
            vec!["plat.toml:3:12:", "bindings must be from 1 to 16777215"],
        ),
    ] {
        let text = if text.contains("pool") || text.is_empty() {
            text.to_owned()
        } else {
            // Keys before tables.
            let at = text.contains("prefix") && !text.contains('\n');
            if at {
                format!("{text}\n{POOL}")
            } else {
                format!("{POOL}{text}")
            }
        };
        let error = settled(&text).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{text}\n{error}");
        }
    }
}

#[test]
fn a_missing_file_is_explained() {
    let failure = find(Some(Path::new("/nonexistent/plat.toml"))).unwrap_err();
    assert_eq!(failure.exit(), Exit::NotFound);
    let text = failure.to_string();
    assert!(
        text.contains("/nonexistent/plat.toml") && text.contains("leave out --config"),
        "{text}"
    );
}

#[test]
fn a_pool_entry_is_an_address_a_network_or_a_range_with_its_ports() {
    let text = "[[pool]]\naddress = \"203.0.113.1\"\n\
                [[pool]]\ncidr = \"203.0.113.64/30\"\n\
                [[pool]]\nrange = \"198.51.100.254-198.51.101.1\"\n\
                tcp = \"1024-65535\"\nudp = \"1024-65535\"\nicmp = \"1024-65535\"\n";
    let config = settled(text).unwrap();
    let written: Vec<_> = config.pool.iter().map(ToString::to_string).collect();
    let wanted = [
        "203.0.113.1",
        "203.0.113.64/30",
        "198.51.100.254-198.51.101.1",
    ];
    assert_eq!(written, wanted);
    // Who writes a range wants all of it.
    assert_eq!(config.pool_addresses().count(), 1 + 4 + 4);
    let engine = config.for_engine(Ipv6Addr::LOCALHOST, vec![]);
    let last = engine.pool.last().unwrap();
    assert_eq!(last.ports.as_range().unwrap().to_string(), "1024-65535");
    let networks: Vec<_> = config.pool_networks().map(|it| it.to_string()).collect();
    let wanted = "203.0.113.1/32 203.0.113.64/30 198.51.100.254/31 198.51.101.0/31";
    assert_eq!(networks.join(" "), wanted);
}

#[test]
fn each_protocol_has_ranges_of_its_own() {
    let text = "[[pool]]\naddress = \"203.0.113.1\"\n\
                tcp = \"4096-8191, 1024-2047\"\nudp = \"none\"\n";
    let engine = settled(text)
        .unwrap()
        .for_engine(Ipv6Addr::LOCALHOST, vec![]);
    let ports = &engine.pool[0].ports;
    let written = [&ports.tcp, &ports.udp, &ports.icmp].map(ToString::to_string);
    assert_eq!(written, ["1024-2047,4096-8191", "none", "1-65535"]);
    // What is left to clients follows from what is scarce.
    assert_eq!(engine.quotas.address.bindings, 1024);
    let entry = "pool = [{address = \"203.0.113.1\", ";
    for (ports, wanted) in [
        (
            "tcp = \"none\", udp = \"none\", icmp = \"none\"}]",
            "203.0.113.1 in the pool has no port",
        ),
        ("tcp = \"1-2,x\"}]", "plat.toml:1:41: "),
        (
            "tcp = \"5-9\"}]\npool_mode = \"host-ports\"",
            "the same for each protocol",
        ),
    ] {
        let error = settled(&format!("{entry}{ports}")).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn natb_6888_01_a_burst_goes_with_a_rate() {
    let quotas = |text: &str| {
        let pool = "pool = [\"203.0.113.1\"]\n[quota.address]\n";
        let config = settled(&format!("{pool}{text}"))?;
        let engine = config.for_engine(Ipv6Addr::LOCALHOST, vec![]);
        let address = engine.quotas.address;
        Ok((address.new_per_second, address.burst))
    };
    assert_eq!(quotas(""), Ok((usize::MAX, usize::MAX)));
    assert_eq!(quotas("new_per_second = 7"), Ok((7, 7)));
    assert_eq!(quotas("new_per_second = 7\nburst = 50"), Ok((7, 50)));
    assert_eq!(quotas("burst = 0"), Ok((usize::MAX, usize::MAX)));
    let wrong = |text| -> String { quotas(text).unwrap_err() };
    let error = wrong("new_per_second = 7\nburst = 421");
    assert!(
        error.contains("plat.toml:4:9:") && error.contains("60 times"),
        "{error}"
    );
    let error = wrong("burst = 50");
    assert!(
        error.contains("plat.toml:3:9:") && error.contains("new_per_second"),
        "{error}"
    );
}

#[test]
fn log_7422_01_ports_in_blocks() {
    use nat64::blocks::{Blocks, Deterministic, Dynamic};

    let blocks = |text: &str| {
        let pool = "pool = [\"203.0.113.1\"]\nclients = [\"2001:db8::/61\"]\n";
        settled(&format!("{pool}{text}")).map(|it| it.blocks)
    };
    let n = |n| std::num::NonZeroU16::new(n).unwrap();
    assert_eq!(blocks(""), Ok(Blocks::None));
    let (size, most) = (n(512), n(4));
    assert_eq!(
        blocks("blocks = {mode = \"dynamic\", size = 512, most = 4}"),
        Ok(Blocks::Dynamic(Dynamic { size, most }))
    );
    let numbered = |more: &str| {
        blocks(&format!(
            "[blocks]\nmode = \"deterministic\"\nsubscribers = 14\n{more}"
        ))
    };
    let default = Deterministic::new(n(14), 0);
    assert_eq!(numbered(""), Ok(Blocks::Deterministic(default)));
    let (spare, spare_size, spare_most) = (2, n(100), 0);
    assert_eq!(
        numbered("spare = 2\nspare_size = 100\nspare_most = 0"),
        Ok(Blocks::Deterministic(Deterministic {
            spare,
            spare_size,
            spare_most,
            ..default
        }))
    );
    let error = numbered("spare = 2\nspare_size = 9000").unwrap_err();
    assert!(error.contains("from 16 to the 8064"), "{error}");
    for (wrong, said) in [
        ("[blocks]\nmode = \"none\"\nsize = 16", "size"),
        ("[blocks]\nmode = \"dynamic\"\nsize = 512", "most"),
        (
            "[blocks]\nmode = \"dynamic\"\nsize = 512\nmost = 1\nspare = 1",
            "spare",
        ),
        (
            "[blocks]\nmode = \"deterministic\"\nsubscribers = 7",
            "8 subscribers",
        ),
        ("[blocks]\nmode = \"other\"", "other"),
    ] {
        let error = blocks(wrong).unwrap_err();
        assert!(error.contains(said), "{wrong}: {error}");
    }
}

#[test]
fn without_a_pool_it_is_left_to_the_host() {
    let config = settled("").unwrap();
    assert!(config.pool.is_empty());
    assert_eq!(config.prefixes, [Pref64::WELL_KNOWN]);
    // What is wrong otherwise is still found.
    let error = settled("[timers]\nudp = 1").unwrap_err();
    assert!(error.contains("plat.toml:2:7:"), "{error}");
}

/// A pool that is named is routed here; without one there is only this host's own address.
#[test]
fn the_mode_follows_from_the_pool() {
    let mode = |text| settled(text).unwrap().pool_mode;
    assert_eq!(mode(""), PoolMode::HostPorts);
    assert_eq!(mode("pool = []"), PoolMode::HostPorts);
    assert_eq!(mode("pool = [\"203.0.113.0/28\"]"), PoolMode::Routed);
    let masquerade = settled("pool_mode = \"masquerade\"\nuplink = \"ppp0\"").unwrap();
    assert_eq!(masquerade.pool_mode, PoolMode::Masquerade);
    assert_eq!(masquerade.pool, ["192.0.0.64/29".parse().unwrap()]);
    assert_eq!(masquerade.uplink.as_deref(), Some("ppp0"));
}
