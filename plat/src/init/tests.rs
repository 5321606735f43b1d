//! What is written for which machine and which answers.

use clap::Parser;

use super::*;
use crate::test_host;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    init: Init,
}

fn machine() -> Snapshot {
    let interface = |index, name, ipv6: &[_]| test_host::interface(index, name, ipv6, &[]);
    let lan = [
        ("fe80::1", 64),
        ("2001:db8:1::1", 64),
        ("2001:db8:1::2", 64),
        ("fd00:1::1", 48),
    ];
    Snapshot {
        interfaces: vec![
            interface(1, "lo", &[("::1", 128)]),
            interface(2, "wan", &[("2001:db8:ffff::7", 64)]),
            interface(3, "lan", &lan),
        ],
        ipv4_default: vec![2],
        ipv6_default: vec![2],
        ..Snapshot::default()
    }
}

fn written(line: &str) -> Result<String, Failure> {
    let line = format!("init {line}");
    let init = Line::try_parse_from(line.split_whitespace()).unwrap().init;
    let serves = init.serves.unwrap();
    let answers = answers(&init, serves, &machine(), [1, 2, 3, 4, 5])?;
    let text = text::file(&answers);
    settled(Document::new("x", text.clone())).unwrap();
    Ok(text)
}

#[test]
fn for_the_internet_it_is_the_well_known_prefix_and_nothing_private() {
    let text = written("--for internet").unwrap();
    assert!(text.contains("\nprefixes = [\"64:ff9b::/96\"]\n"), "{text}");
    assert!(text.contains("\n#pool = ["), "{text}");
    assert!(!text.contains("allow_destinations"), "{text}");
    // Not the network that this host is itself a client of.
    let networks = "#   2001:db8:1::/64 on lan\n#   fd00:1::/48 on lan\n\
                    clients = [\"2001:db8:1::/64\", \"fd00:1::/48\"]\n";
    assert!(text.ends_with(networks), "{text}");
    let refused = written("--for internet --allow 10.0.0.0/8").unwrap_err();
    assert!(refused.to_string().contains("--for private"), "{refused}");
}

#[test]
fn for_private_networks_it_is_a_prefix_for_local_use_and_says_what_is_opened() {
    let text = written("--for private --pool 203.0.113.0/28 --pool 198.51.100.1").unwrap();
    let prefix = "\nprefixes = [\"64:ff9b:1:102:3:405::/96\"]\n";
    assert!(text.contains(prefix), "{text}");
    let pool = "\npool = [\"203.0.113.0/28\", \"198.51.100.1\"]\n";
    assert!(text.contains(pool), "{text}");
    let all = "\nallow_destinations = [\"10.0.0.0/8\", \"172.16.0.0/12\", \"192.168.0.0/16\"]\n";
    assert!(text.contains(all) && text.contains("firewalls"), "{text}");
    let text = written("--for private --prefix 2001:db8:64::/96 --allow 10.1.0.0/16").unwrap();
    assert!(text.contains("prefixes = [\"2001:db8:64::/96\"]"), "{text}");
    let one = "allow_destinations = [\"10.1.0.0/16\"]";
    assert!(text.contains(one), "{text}");
    let refused = written("--for private --prefix 64:ff9b::/96").unwrap_err();
    assert!(
        refused.to_string().contains("private addresses"),
        "{refused}"
    );
}

#[test]
fn a_file_that_is_there_is_only_replaced_if_that_is_said() {
    let directory = std::env::temp_dir().join(format!("openclat-init-{}", std::process::id()));
    let path = directory.join("new/plat.toml");
    write(&path, "a", false).unwrap();
    let refused = write(&path, "b", false).unwrap_err().to_string();
    assert!(refused.contains("--force"), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a");
    write(&path, "c", true).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "c");
    std::fs::remove_dir_all(&directory).unwrap();
}
