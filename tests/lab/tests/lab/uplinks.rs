//! A PLAT's host with two ways to the IPv4 internet, when the default route moves from one to the other.

use std::time::Duration;

use lab::{
    eventually,
    process::Daemon,
    state::State,
    topology::{Network, Options},
    wiring::connect,
};

use crate::pool_modes::{PUBLIC, STARTED, mapped, network, plat, plat_command};

/// Including the time to ask a link for addresses (RFC 5227).
const ASKED: Duration = Duration::from_secs(15);

/// The first uplink, and its router.
const FIRST: (&str, &str) = ("p1", "192.0.2.2");
/// The second one. It leads to the same router.
const SECOND: (&str, &str) = ("p2", "192.0.4.2");

fn with_two_uplinks(name: &str) -> Network {
    let network = network(name, &Options::default());
    connect((&network.plat, "p2"), (&network.isp, "i2"));
    // No address that is about to be checked.
    network.plat.set("net/ipv6/conf/p2/disable_ipv6", "1");
    network.plat.add_address("p2", "192.0.4.1/30");
    network.isp.add_address("i2", "192.0.4.2/30");
    // As it will be when it has come back.
    go_by(&network, FIRST);
    network
}

fn go_by(network: &Network, (interface, router): (&str, &str)) {
    let line = format!("ip route replace default via {router} dev {interface}");
    network.plat.must(&line);
}

/// The address that the server sees a client come from.
fn seen(network: &Network) -> String {
    let url = format!("http://[{}]/address", mapped(PUBLIC));
    let ran = network.host.sh(&format!("curl -6 -sS -m 2 '{url}'"));
    ran.stdout
}

fn forwards(network: &Network, interface: &str) -> bool {
    let path = format!("net/ipv4/conf/{interface}/forwarding");
    network.plat.get(&path) == "1"
}

/// The interfaces on which addresses are answered for.
fn answers_on(network: &Network) -> Vec<String> {
    let shown = network.plat.must("ip neigh show proxy");
    let interface = |line: &str| line.split_whitespace().nth(2).map(str::to_owned);
    let mut all: Vec<_> = shown.lines().filter_map(interface).collect();
    all.dedup();
    all
}

#[test]
fn a_masqueraded_pool_goes_by_the_other_uplink() {
    let network = with_two_uplinks("two-masquerade");
    let before = State::of(&network.plat);
    let mut plat = plat(&network, Some("pool_mode = \"masquerade\"\n"));
    assert!(seen(&network).starts_with("192.0.2.1"));
    assert!(forwards(&network, "p1") && !forwards(&network, "p2"));
    for (uplink, address, other) in [(SECOND, "192.0.4.1", "p1"), (FIRST, "192.0.2.1", "p2")] {
        go_by(&network, uplink);
        plat.wait_for(&format!("IPv4 goes by {} now", uplink.0), STARTED);
        let is_seen = || seen(&network).starts_with(address);
        assert!(eventually(STARTED, is_seen), "{}", seen(&network));
        assert!(forwards(&network, uplink.0) && !forwards(&network, other));
    }
    assert!(plat.stop().success());
    State::of(&network.plat).assert_is(&before, "in the end");
}

#[test]
fn spare_addresses_are_answered_for_on_the_other_uplink() {
    let network = with_two_uplinks("two-arp");
    let leads_by = |interface: &str| {
        let line = format!("ip route replace 192.0.2.16/30 dev {interface}");
        network.isp.must(&line);
    };
    leads_by("i0");
    let before = State::of(&network.plat);
    let config = "pool_mode = \"arp\"\npool = [\"192.0.2.16/30\"]\n";
    let command = plat_command(&network, Some(config));
    let mut plat = Daemon::start(&network.plat, "plat", command).unwrap();
    plat.wait_for("running", ASKED);
    let is_served = || seen(&network).starts_with("192.0.2.1");
    assert!(eventually(STARTED, is_served), "{}", seen(&network));
    assert_eq!(answers_on(&network), ["p1"]);

    go_by(&network, SECOND);
    leads_by("i2");
    plat.wait_for("IPv4 goes by p2 now: arp is arranged there", ASKED);
    assert!(eventually(STARTED, || answers_on(&network) == ["p2"]));
    assert!(eventually(STARTED, is_served), "{}", seen(&network));
    assert!(forwards(&network, "p2") && !forwards(&network, "p1"));

    // Somebody has one of them on the first link by now: it stays, and says why.
    network.isp.add_address("i0", "192.0.2.17/32");
    go_by(&network, FIRST);
    plat.wait_for("arp stays on p2: ", ASKED);
    assert_eq!(answers_on(&network), ["p2"]);
    network.isp.remove_address("i0", "192.0.2.17/32");

    // A signal to end while it asks is not lost.
    go_by(&network, SECOND);
    std::thread::sleep(Duration::from_secs(6));
    plat.clear_output();
    go_by(&network, FIRST);
    plat.wait_for("asking whether", STARTED);
    assert!(plat.stop().success(), "{}", plat.output());
    State::of(&network.plat).assert_is(&before, "in the end");
}
