//! The NAT64 prefix: announced, changed, withdrawn, and announced wrongly.

use std::{process::Command, time::Duration};

use lab::{
    advertiser::{Advertisement, Advertiser},
    eventually,
    process::{Daemon, Ran, command},
    topology::{LAN, Network, Options, PREF64, ROUTER, SERVER, program},
};

use crate::Running;

const SOON: Duration = Duration::from_secs(5);

fn quiet() -> Options {
    Options {
        announce: false,
        ..Options::default()
    }
}

fn pref64(network: &Network, arguments: &str) -> Ran {
    let program = program("pref64");
    network
        .host
        .sh(&format!("{} {arguments}", program.display()))
}

#[test]
fn pref64_prints_one_line_per_prefix() {
    let network = Network::new("pref64", &quiet());
    network.advertiser.change(|it| {
        it.pref64 = vec![
            (PREF64.parse().unwrap(), Duration::from_secs(1800)),
            ("64:ff9b::/96".parse().unwrap(), Duration::from_secs(600)),
        ];
    });
    let ran = pref64(&network, "");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{ran:?}");
    let start = format!("{PREF64} interface=h0 source=ra router={ROUTER} lifetime=");
    assert!(lines[0].starts_with(&start), "{}", lines[0]);
    assert!(lines[0].ends_with(" preference=1"), "{}", lines[0]);
    assert!(lines[1].starts_with("64:ff9b::/96 "), "{}", lines[1]);
    assert!(lines[1].ends_with(" preference=2"), "{}", lines[1]);

    let ran = pref64(&network, "--json --interface h0");
    let first: serde_json::Value =
        serde_json::from_str(ran.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(first["schema"], "openclat-pref64/1");
    assert_eq!(first["prefix"], PREF64);
    assert_eq!(first["preference"], 1);
    assert!(first["lifetime"].as_u64().unwrap() > 1790);
}

#[test]
fn pref64_says_when_there_is_no_nat64() {
    let network = Network::new("pref64-none", &quiet());
    let ran = pref64(&network, "--wait 2");
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert_eq!(ran.stdout, "");
    // What it says about resolvers depends on the machine's /etc/resolv.conf.
    let sentence =
        "This network has no NAT64 on any interface: its router announces no NAT64 prefix and no";
    assert!(ran.stderr.starts_with(sentence), "{ran:?}");
    assert!(ran.stderr.ends_with(".\n"), "{ran:?}");
    network.advertiser.change(|it| it.silent = true);
    let ran = pref64(&network, "--wait 1 --interface h0");
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(
        ran.stderr.contains("no router answered within 1 s"),
        "{ran:?}"
    );
    let ran = pref64(&network, "--interface nonexistent");
    assert_eq!(ran.code, Some(10), "{ran:?}");
}

#[test]
fn pref64_without_permission_says_what_to_do() {
    let network = Network::new("pref64-user", &quiet());
    // Where it was built, nobody may be able to see it.
    let copy = network.path("pref64");
    std::fs::copy(program("pref64"), &copy).unwrap();
    let as_nobody = format!(
        "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all {}",
        copy.display()
    );
    let ran = network.host.sh(&as_nobody);
    assert_eq!(ran.code, Some(5), "{ran:?}");
    assert!(ran.stderr.contains("CAP_NET_RAW"), "{ran:?}");
}

#[test]
fn a_prefix_that_comes_late_starts_the_clat() {
    let network = Network::new("late", &quiet());
    let _plat = network.start_plat();
    let clat = network.launch_clat(&[]);
    clat.wait_for("no NAT64 prefix is known on h0", SOON);
    assert!(!network.host.has_interface("clat0"));
    announce(&network.advertiser, PREF64);
    clat.wait_for(" running: ", SOON);
    network.host.must(&format!("ping -n -c 1 -W 2 {SERVER}"));
}

fn announce(advertiser: &Advertiser, prefix: &str) {
    let prefix = prefix.parse().unwrap();
    advertiser.change(|it| it.pref64 = vec![(prefix, Duration::from_secs(1800))]);
}

/// The old prefix is withdrawn and a new one announced in the same breath.
#[test]
fn a_changed_prefix_is_followed() {
    let running = Running::new("changed");
    let network = &running.network;
    let new = "2001:db8:65::/96";
    network.router.add_route(new, "2001:db8:1:2::2", "r1");
    let mut second = other_plat(network, new);
    network.advertiser.change(|it| {
        it.pref64 = vec![
            (PREF64.parse().unwrap(), Duration::ZERO),
            (new.parse().unwrap(), Duration::from_secs(1800)),
        ];
    });
    running
        .clat
        .wait_for(&format!("prefix {new}"), Duration::from_secs(5));
    network
        .host
        .must(&format!("ping -n -c 2 -i 0.2 -W 2 {SERVER}"));
    let response = network
        .host
        .run(|| lab::servers::fetch(SERVER.into(), "/bytes/100000"));
    assert_eq!(response.unwrap().len, 100_000);
    // The address stayed, and the interface with it.
    assert_eq!(running.clat.output().matches("claiming").count(), 1);
    assert!(second.is_running());
}

/// A second NAT64 on the plat machine, for another prefix and pool.
pub(crate) fn other_plat(network: &Network, prefix: &str) -> Daemon {
    let config = network.path("other.toml");
    let text = format!(
        "prefixes = [\"{prefix}\"]\npool = [\"203.0.113.16/28\"]\ninterface = \"plat1\"\n\
         allow_destinations = [\"198.51.100.0/24\"]\n"
    );
    std::fs::write(&config, text).unwrap();
    network.isp.add_route("203.0.113.16/28", "192.0.2.1", "i0");
    let mut plat: Command = command(program("plat"));
    plat.args(["run", "--config"]).arg(config);
    plat.arg("--state-dir").arg(network.path("other-state"));
    let daemon = Daemon::start(&network.plat, "plat1", plat).unwrap();
    daemon.wait_for("running", SOON);
    daemon
}

#[test]
fn a_withdrawn_prefix_ends_it_and_leaves_nothing() {
    let running = Running::new("withdrawn");
    let network = &running.network;
    network
        .advertiser
        .change(|it| it.pref64 = vec![(PREF64.parse().unwrap(), Duration::ZERO)]);
    running.clat.wait_for("withdrawn", SOON);
    assert!(eventually(SOON, || !network.host.has_interface("clat0")));
    // Applications are told at once instead of waiting.
    let ran = network.host.sh(&format!("ping -n -c 1 -W 2 {SERVER}"));
    assert!(ran.stderr.contains("Network is unreachable"), "{ran:?}");
    // And it comes back.
    announce(&network.advertiser, PREF64);
    assert!(eventually(SOON, || {
        network.host.sh(&format!("ping -n -c 1 -W 1 {SERVER}")).ok()
    }));
}

/// An advertisement with something wrong in it, and what is said about it.
fn invalid(test: &str, spoil: impl FnOnce(&mut Advertisement), complaint: &str) {
    let network = Network::new(test, &quiet());
    network.router.add_address("r0", "2001:db8:1:1::bad/64");
    let clat = network.launch_clat(&[]);
    clat.wait_for("no NAT64 prefix is known on h0", SOON);
    network.advertiser.change(|it| {
        it.pref64 = vec![(PREF64.parse().unwrap(), Duration::from_secs(1800))];
        spoil(it);
    });
    clat.wait_for(complaint, SOON);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!network.host.has_interface("clat0"));
    assert!(
        !clat.output().contains("NAT64 prefix 2001"),
        "{}",
        clat.output()
    );
}

#[test]
fn disc_8781_4_02_hop_limit_64_is_ignored() {
    invalid("hop-limit", |it| it.hop_limit = 64, "hop limit is not 255");
}

#[test]
fn disc_8781_4_02_a_source_that_is_not_link_local_is_ignored() {
    let source = "2001:db8:1:1::bad".parse().unwrap();
    invalid(
        "source",
        |it| it.source = source,
        "source address not allowed",
    );
}

#[test]
fn disc_8781_4_01_a_wrong_length_is_ignored() {
    let mut option = vec![38, 3, 7, 8];
    option.extend([0; 20]);
    let spoil = |it: &mut Advertisement| {
        it.pref64.clear();
        it.raw.push(option);
    };
    invalid("length", spoil, "its length is not 2");
}

#[test]
fn disc_8781_4_01_an_unknown_prefix_length_code_is_ignored() {
    let mut option = vec![38, 2, 7, 0x0e];
    option.extend([0x20, 1, 0xd, 0xb8, 0, 0x64, 0, 0, 0, 0, 0, 0]);
    let spoil = |it: &mut Advertisement| {
        it.pref64.clear();
        it.raw.push(option);
    };
    invalid("plc", spoil, "prefix length code 6 has no meaning");
}

#[test]
fn a_configured_prefix_needs_no_announcement() {
    let network = Network::new("manual", &quiet());
    let _plat = network.start_plat();
    let clat = network.launch_clat(&["--prefix", PREF64]);
    clat.wait_for(" running: ", SOON);
    network.host.must(&format!("ping -n -c 1 -W 2 {SERVER}"));
}

#[test]
fn every_prefix_length_works_end_to_end() {
    // The host's network must not be inside the prefix, nor the servers of the lab.
    for prefix in [
        "2a00:1234::/32",
        "2a00:1234:100::/40",
        "2a00:1234:122::/48",
        "2a00:1234:122:300::/56",
        "2a00:1234:122:344::/64",
    ] {
        let network = Network::new("lengths", &quiet());
        network.router.add_route(prefix, "2001:db8:1:2::2", "r1");
        let _plat = other_plat(&network, prefix);
        announce(&network.advertiser, prefix);
        let _clat = network.start_clat();
        network.host.must(&format!("ping -n -c 1 -W 2 {SERVER}"));
        let fetched = network
            .host
            .run(|| lab::servers::fetch(SERVER.into(), "/bytes/300000"));
        assert_eq!(fetched.unwrap().len, 300_000, "{prefix}");
    }
}

/// The router on the LAN is heard by its first words, although it speaks rarely.
#[test]
fn routers_are_asked_and_not_waited_for() {
    let network = Network::new("solicit", &quiet());
    network
        .advertiser
        .change(|it| it.pref64 = vec![(PREF64.parse().unwrap(), Duration::from_secs(1800))]);
    std::thread::sleep(Duration::from_millis(500));
    let start = std::time::Instant::now();
    let ran = pref64(&network, "");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(LAN.segments()[0], 0x2001);
}
