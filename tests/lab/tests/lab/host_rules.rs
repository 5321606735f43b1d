//! The CLAT's manners on its host and on its link.

use std::{net::IpAddr, time::Duration};

use lab::{
    advertiser::claim_address,
    eventually,
    namespace::Namespace,
    process::{Daemon, command},
    servers::HELLO,
    topology::{LAN, Network, Options, SERVER, SERVER6},
    wiring::{connect, hold_tun},
};

use crate::Running;

const SOON: Duration = Duration::from_secs(5);

/// The CLAT's IPv6 address, as it says itself.
pub(crate) fn clat_address(clat: &Daemon) -> String {
    let output = clat.output();
    let line = output
        .lines()
        .rfind(|it| it.contains(" running: "))
        .unwrap();
    let (_, after) = line.split_once("192.0.0.1 is ").unwrap();
    after.split(' ').next().unwrap().to_owned()
}

/// With names, IPv6 is still IPv6: the CLAT is only for what has no other way.
#[test]
fn names_with_both_families_use_native_ipv6() {
    let running = Running::new("names");
    let network = &running.network;
    let mut dnsmasq = command("dnsmasq");
    dnsmasq.args([
        "--no-daemon",
        "--no-resolv",
        "--no-hosts",
        "--bind-interfaces",
        "--listen-address=2001:db8:1:1::1",
        "--user=root",
        "--conf-file=/dev/null",
        &format!("--host-record=dual.test,{SERVER},{SERVER6}"),
        &format!("--host-record=four.test,{SERVER}"),
    ]);
    let _dnsmasq = Daemon::start(&network.router, "dnsmasq", dnsmasq).unwrap();
    let resolv = network.path("resolv.conf");
    std::fs::write(&resolv, "nameserver 2001:db8:1:1::1\n").unwrap();
    let curl = |name: &str| {
        let script = format!(
            "mount --bind {} /etc/resolv.conf && curl -sS -m 5 http://{name}/address",
            resolv.display()
        );
        network
            .host
            .sh(&format!("unshare --mount sh -c '{script}'"))
    };
    assert!(eventually(SOON, || curl("dual.test").ok()));
    let seen = curl("dual.test");
    let seen: IpAddr = seen.stdout.trim().parse().unwrap();
    assert!(seen.is_ipv6(), "{seen}");
    let seen = curl("four.test").stdout;
    assert!(seen.starts_with("203.0.113."), "{seen}");
    // Native IPv6 is untouched, to the PREF64 router too.
    let hello = network
        .host
        .must(&format!("curl -sS -m 5 'http://[{SERVER6}]/hello'"));
    assert_eq!(hello, HELLO);
}

/// XLAT-4.6-01: a more specific native route is used, and packets on it are not translated.
#[test]
fn xlat_4_6_01_native_routes_come_first() {
    let running = Running::new("native-route");
    let network = &running.network;
    network.host.add_address("h0", "10.9.9.2/24");
    network.router.add_address("r0", "10.9.9.1/24");
    let pinged = network.host.must("ping -n -c 2 -i 0.2 -W 2 10.9.9.1");
    assert!(pinged.contains("ttl=64"), "{pinged}");
    // Everything else still goes through the CLAT.
    network.host.must(&format!("ping -n -c 1 -W 2 {SERVER}"));
}

#[test]
fn clat_c_02_native_ipv4_comes_and_goes() {
    let running = Running::new("native-comes");
    let network = &running.network;
    network.host.add_address("h0", "10.9.9.2/24");
    network.router.add_address("r0", "10.9.9.1/24");
    network.host.add_route("0.0.0.0/0", "10.9.9.1", "h0");
    running
        .clat
        .wait_for("resting: the network has native IPv4", SOON);
    assert!(eventually(SOON, || !network.host.has_interface("clat0")));
    running.clat.clear_output();
    network.host.must("ip route del default via 10.9.9.1");
    running.clat.wait_for(" running: ", SOON);
    network.host.must(&format!("ping -n -c 1 -W 2 {SERVER}"));
}

/// A VPN takes all of IPv4, and its server is reached by the CLAT: that does not give way to it.
#[test]
fn clat_c_02_a_vpn_over_the_clat_is_no_native_ipv4() {
    let running = Running::new("vpn");
    let host = &running.network.host;
    let _vpn = hold_tun(host, "tun9");
    host.must("ip link set tun9 up");
    host.must("ip addr add 10.8.0.2/24 dev tun9");
    host.must(&format!("ip route add {SERVER} dev clat0"));
    host.must("ip route add default via 10.8.0.1 dev tun9 metric 50");
    let route = host.must("ip route get 192.0.2.77");
    assert!(route.contains("dev tun9"), "{route}");
    for _ in 0..4 {
        host.must(&format!("ping -n -c 1 -W 2 {SERVER}"));
        std::thread::sleep(Duration::from_millis(250));
    }
    let said = running.clat.output();
    assert!(!said.contains("resting"), "{said}");
}

/// In mode `always` it runs beside native IPv4, and the native route is the better one.
#[test]
fn clat_c_02_beside_native_ipv4_the_native_route_wins() {
    let network = Network::new("native-beside", &Options::default());
    network.host.add_address("h0", "10.9.9.2/24");
    network.router.add_address("r0", "10.9.9.1/24");
    network.host.add_route("0.0.0.0/0", "10.9.9.1", "h0");
    let clat = network.launch_clat(&["--mode", "always"]);
    clat.wait_for(" running: ", SOON);
    let route = network.host.must(&format!("ip route get {SERVER}"));
    assert!(route.contains("dev h0"), "{route}");
    let routes = network.host.must("ip -4 route show default");
    assert!(
        routes.contains("dev clat0") && routes.contains("metric 100000"),
        "{routes}"
    );
}

/// Another host on the link learns nothing of 192.0.0.0/29 and reaches nothing in it.
#[test]
fn addr_7335_01_the_inside_stays_inside() {
    let running = Running::new("inside");
    let network = &running.network;
    network.router.add_address("r0", "192.0.0.6/29");
    let ran = network.router.sh("ping -n -c 2 -i 0.3 -W 1 192.0.0.1");
    assert!(!ran.ok(), "{ran:?}");
    let neighbours = network.router.must("ip -4 neigh show 192.0.0.1");
    assert!(!neighbours.contains("lladdr"), "{neighbours}");
    // Even with a neighbour entry that nobody had to tell.
    let mac = network.host.mac("h0");
    network
        .router
        .must(&format!("ip neigh replace 192.0.0.1 lladdr {mac} dev r0"));
    let ran = network.router.sh("ping -n -c 2 -i 0.3 -W 1 192.0.0.1");
    assert!(!ran.ok(), "{ran:?}");
    // Nor does it leave: not even when an application asks for it.
    network.host.add_address("h0", "10.9.9.2/24");
    network.router.add_address("r0", "10.9.9.1/24");
    let ran = network.host.sh("ping -n -c 1 -W 1 -I 192.0.0.1 10.9.9.1");
    assert!(!ran.ok(), "{ran:?}");
    // The host itself has it.
    network.host.must("ping -n -c 1 -W 1 192.0.0.1");
}

/// The router's neighbour table has the CLAT's address, and its questions are answered.
#[test]
fn clat_6_3_02_neighbours_are_answered() {
    let running = Running::new("neighbours");
    let network = &running.network;
    let address = clat_address(&running.clat);
    assert!(
        !network
            .host
            .addresses("h0")
            .contains(&address.parse().unwrap())
    );
    network.host.must(&format!("ping -n -c 1 -W 2 {SERVER}"));
    network.router.must("ip -6 neigh flush dev r0");
    network
        .host
        .must(&format!("ping -n -c 2 -i 0.2 -W 2 {SERVER}"));
    let mac = network.host.mac("h0");
    let entry = network.router.must(&format!("ip -6 neigh show {address}"));
    assert!(entry.contains(&mac), "{entry}");
}

/// Another host that wants the very address is told that it is taken.
#[test]
fn clat_6_3_02_the_address_is_defended() {
    let running = Running::new("defended");
    let network = &running.network;
    let address = clat_address(&running.clat);
    // The router plays the other host; its kernel checks the address for duplicates.
    network.router.check_dad("r0");
    network
        .router
        .must(&format!("ip -6 addr add {address}/64 dev r0"));
    let failed = || {
        network
            .router
            .must("ip -6 addr show dev r0")
            .contains("dadfailed")
    };
    assert!(
        eventually(SOON, failed),
        "{}",
        network.router.must("ip -6 addr show dev r0")
    );
    network
        .router
        .must(&format!("ip -6 addr del {address}/64 dev r0"));
    network.host.must(&format!("ping -n -c 1 -W 2 {SERVER}"));
}

/// An address that somebody else has is not taken.
#[test]
fn clat_6_3_02_a_taken_address_is_not_used() {
    let network = Network::new("taken", &Options::default());
    network.router.add_address("r0", "2001:db8:1:1::464/64");
    let clat = network.launch_clat(&["--address", "2001:db8:1:1::464"]);
    clat.wait_for("has our IPv6 address", SOON);
    clat.wait_for("next attempt in", SOON);
    assert!(!network.host.has_interface("clat0"));
}

/// A conflict while running leads to a new address.
#[test]
fn clat_6_3_02_a_lasting_conflict_leads_to_a_new_address() {
    let running = Running::new("conflict");
    let network = &running.network;
    let address = clat_address(&running.clat);
    // A host that claims the address without asking. Once may be a mistake; twice is a conflict.
    claim_address(&network.router, "r0", address.parse().unwrap());
    std::thread::sleep(Duration::from_millis(300));
    assert!(!running.clat.output().contains("has our IPv6 address"));
    network.host.must(&format!("ping -n -c 1 -W 2 {SERVER}"));
    claim_address(&network.router, "r0", address.parse().unwrap());
    running.clat.wait_for("has our IPv6 address", SOON);
    let new = || clat_address(&running.clat) != address;
    assert!(eventually(SOON, new), "{}", running.clat.output());
}

/// A router that forwards for a network: its kernel keeps silent about the CLAT's address.
#[test]
fn a_forwarding_host_does_not_answer_for_the_clat() {
    let running = Running::new("forwarding");
    let network = &running.network;
    network.host.set("net/ipv6/conf/h0/accept_ra", "2");
    network.host.set("net/ipv6/conf/all/forwarding", "1");
    let pinged = network
        .host
        .must(&format!("ping -n -c 5 -i 0.2 -W 2 {SERVER}"));
    assert!(pinged.contains(" 0% packet loss"), "{pinged}");
}

/// The IPv6 network is renumbered: a new address, the same interface and route.
#[test]
fn renumbering_is_followed() {
    let running = Running::new("renumbered");
    let network = &running.network;
    let before = clat_address(&running.clat);
    network.router.add_address("r0", "2001:db8:1:9::1/64");
    network
        .plat
        .add_route("2001:db8:1:9::/64", "2001:db8:1:2::1", "p0");
    network
        .advertiser
        .change(|it| it.prefixes = vec!["2001:db8:1:9::".parse().unwrap()]);
    let old = network.host.addresses("h0");
    let old = old
        .iter()
        .find(|it| matches!(it, IpAddr::V6(it) if it.segments()[..4] == LAN.segments()[..4]));
    let new = || network.host.addresses("h0").len() >= 3;
    assert!(eventually(SOON, new));
    network
        .host
        .remove_address("h0", &format!("{}/64", old.unwrap()));
    let moved = || {
        let now = clat_address(&running.clat);
        now != before && now.starts_with("2001:db8:1:9:")
    };
    assert!(eventually(SOON, moved), "{}", running.clat.output());
    assert!(eventually(SOON, || {
        network.host.sh(&format!("ping -n -c 1 -W 1 {SERVER}")).ok()
    }));
}

#[test]
fn the_link_goes_down_and_comes_back() {
    let running = Running::new("link-down");
    let network = &running.network;
    running.clat.clear_output();
    network.host.link_down("h0");
    running.clat.wait_for("waiting for an IPv6 network", SOON);
    assert!(eventually(SOON, || !network.host.has_interface("clat0")));
    network.host.link_up("h0");
    running.clat.wait_for(" running: ", Duration::from_secs(10));
    assert!(eventually(SOON, || {
        network.host.sh(&format!("ping -n -c 1 -W 1 {SERVER}")).ok()
    }));
}

/// CLAT-M-01: the MTU follows what the router advertises.
#[test]
fn clat_m_01_the_mtu_follows_the_router() {
    let running = Running::new("mtu");
    let network = &running.network;
    running.clat.wait_for("MTU 1472", SOON);
    network.advertiser.change(|it| it.mtu = Some(1400));
    running.clat.wait_for("MTU 1372", SOON);
    let mtu = || {
        network
            .host
            .must("ip -o link show clat0")
            .contains("mtu 1372")
    };
    assert!(eventually(SOON, mtu));
    network
        .host
        .must(&format!("ping -n -c 1 -W 2 -s 1344 -M do {SERVER}"));
}

/// It is used as a person wants it; but why nothing comes back is said.
#[test]
fn an_address_in_no_network_of_the_link_is_told_of() {
    let network = Network::new("foreign", &Options::default());
    network.await_address();
    for (address, is_foreign) in [("2001:db8:9:9::464", true), ("2001:db8:1:1::464", false)] {
        let mut clat = network.launch_clat(&["--address", address]);
        clat.wait_for(" running: ", SOON);
        let said = clat.output();
        let told = said.contains(&format!("{address} is in no network of h0"));
        assert_eq!(told, is_foreign, "{said}");
        clat.stop();
    }
}

/// A prefix that is routed to the host: the kernel forwards, the CLAT is a router's neighbour.
#[test]
fn a_routed_prefix_instead_of_an_address_on_the_link() {
    let network = Network::new("routed", &Options::default());
    let _plat = network.start_plat();
    assert!(eventually(SOON, || network.host.addresses("h0").len() >= 2));
    let addresses = network.host.addresses("h0");
    let link_local = addresses
        .iter()
        .find(|it| matches!(it, IpAddr::V6(it) if it.is_unicast_link_local()))
        .unwrap();
    network
        .router
        .add_route("2001:db8:1:f00::/64", &link_local.to_string(), "r0");
    network
        .plat
        .add_route("2001:db8:1:f00::/64", "2001:db8:1:2::1", "p0");
    let before = network.host.get("net/ipv6/conf/all/forwarding");
    let mut clat = network.launch_clat(&["--routed", "2001:db8:1:f00::464"]);
    clat.wait_for(" running: ", SOON);
    network
        .host
        .must(&format!("ping -n -c 2 -i 0.2 -W 2 {SERVER}"));
    let response = network
        .host
        .run(|| lab::servers::fetch(SERVER.into(), "/bytes/5000000"))
        .unwrap();
    assert_eq!(response.len, 5_000_000);
    // Routers are still listened to.
    assert_eq!(network.host.get("net/ipv6/conf/h0/accept_ra"), "2");
    assert!(
        network
            .host
            .must("ip -6 route show default")
            .contains("fe80::1")
    );
    clat.stop();
    assert_eq!(network.host.get("net/ipv6/conf/all/forwarding"), before);
    assert_eq!(network.host.get("net/ipv6/conf/h0/accept_ra"), "1");
}

/// The kernel's switch for forwarding is one for all interfaces: the others keep native IPv6, those
/// that come later get it, and nobody has a new router.
#[test]
fn a_routed_prefix_leaves_the_other_interfaces_alone() {
    let network = Network::new("routed-others", &Options::default());
    let _plat = network.start_plat();
    let host = &network.host;
    let neighbour = |name: &'static str, (ours, theirs), last: u16| {
        let other = Namespace::new(name).unwrap();
        connect((host, ours), (&other, theirs));
        other.forward();
        let router = format!("fe80::{last}");
        other.add_address(theirs, &format!("{router}/64"));
        let lan = format!("2001:db8:7:{last}::").parse().unwrap();
        let advertisement = lab::advertiser::Advertisement::new(router.parse().unwrap(), lan);
        let advertiser = lab::advertiser::Advertiser::start(&other, theirs, advertisement);
        let via = format!("via {router} dev {ours}");
        assert!(eventually(SOON, || has_route(&network, &via)), "{via}");
        (other, advertiser)
    };
    let (other, _advertiser) = neighbour("other", ("h1", "o0"), 2);
    let mut clat = network.launch_clat(&["--routed", "2001:db8:1:f00::464"]);
    clat.wait_for(" running: ", SOON);
    assert!(has_route(&network, "via fe80::2 dev h1"));
    let (_later, _advertiser) = neighbour("later", ("h2", "o0"), 3);
    assert_eq!(host.get("net/ipv6/conf/h2/accept_ra"), "2");
    // Who takes this host for a router is not served.
    other.add_address("o0", "2001:db8:7:2::1/64");
    let addresses = host.addresses("h1").into_iter();
    let link_local =
        addresses.filter(|it| matches!(it, IpAddr::V6(it) if it.is_unicast_link_local()));
    for router in link_local {
        other.add_route("2001:db8:1:1::/64", &router.to_string(), "o0");
    }
    let guard = || host.must("nft list table inet openclat_clat0_guard");
    // Not before its new address may be used.
    let guarded = eventually(SOON, || {
        let reached = other.sh("ping -n -c 1 -W 1 2001:db8:1:1::1").ok();
        assert!(!reached);
        !guard().contains("counter packets 0 ")
    });
    assert!(guarded, "{}", guard());
    clat.stop();
    for interface in ["h0", "h1", "h2"] {
        let accept_ra = format!("net/ipv6/conf/{interface}/accept_ra");
        assert_eq!(host.get(&accept_ra), "1", "{interface}");
    }
    let tables = host.must("nft list tables");
    assert!(!tables.contains("guard"), "{tables}");
}

fn has_route(network: &Network, via: &str) -> bool {
    let routes = network.host.must("ip -6 route show default");
    routes.contains(via)
}

/// Hosts without NAT64 beside it: the CLAT stays on the interface that has it.
#[test]
fn of_two_links_the_one_with_nat64_is_used() {
    let network = Network::new("two-links", &Options::default());
    let _plat = network.start_plat();
    let other = Namespace::new("other").unwrap();
    connect((&network.host, "h1"), (&other, "o0"));
    other.forward();
    other.add_address("o0", "fe80::2/64");
    let _advertiser = lab::advertiser::Advertiser::start(
        &other,
        "o0",
        lab::advertiser::Advertisement::new(
            "fe80::2".parse().unwrap(),
            "2001:db8:7:7::".parse().unwrap(),
        ),
    );
    let clat = network.start_clat();
    assert!(clat.output().contains("on h0"), "{}", clat.output());
    network.host.must(&format!("ping -n -c 1 -W 2 {SERVER}"));
}

/// ADDR-7335-01: of two CLATs on a host, whatever they are called and wherever they keep their
/// journal, one has the addresses.
#[test]
fn addr_7335_01_a_second_clat_rests() {
    let running = Running::new("second-clat");
    let network = &running.network;
    let state = network.path("other-state");
    let mut second = command(lab::topology::program("clat"));
    second.args(["run", "--tun", "clat9", "--mode", "always", "--state-dir"]);
    let second = Daemon::start(&network.host, "clat9", {
        second.arg(state);
        second
    });
    let second = second.unwrap();
    second.wait_for("resting: clat0 is another CLAT's", SOON);
    assert!(!network.host.has_interface("clat9"));
    network.host.must(&format!("ping -n -c 1 -W 2 {SERVER}"));
    // It takes over when the first one ends.
    drop(running.clat);
    second.wait_for(" running: ", Duration::from_secs(10));
}

/// Somebody deletes the virtual interface: it is made again at once.
#[test]
fn a_deleted_interface_comes_back() {
    let running = Running::new("deleted");
    let network = &running.network;
    running.clat.clear_output();
    network.host.must("ip link delete clat0");
    running.clat.wait_for("somebody deleted it", SOON);
    running.clat.wait_for(" running: ", SOON);
    assert!(eventually(SOON, || {
        network.host.sh(&format!("ping -n -c 1 -W 1 {SERVER}")).ok()
    }));
}
