//! The network changes under a CLAT that runs.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket},
    time::Duration,
};

use lab::{
    advertiser::{Advertisement, Advertiser},
    eventually,
    frames::{Stranger, mac},
    namespace::Namespace,
    servers::{ECHO, get},
    topology::{Network, Options, PREF64, SERVER},
    wiring::connect,
};

use crate::{Running, discovery::other_plat};

const SOON: Duration = Duration::from_secs(5);

/// A UDP server that answers with the address that it was asked from.
const WHO_PORT: u16 = 9;

fn serve_who(server: &Namespace) {
    let socket = server.run(|| UdpSocket::bind(("0.0.0.0", WHO_PORT)).unwrap());
    server.spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(from.ip().to_string().as_bytes(), from);
        }
    });
}

/// A UDP flow of the host.
struct UdpFlow(UdpSocket);

impl UdpFlow {
    fn open(host: &Namespace) -> Self {
        Self(host.run(|| {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
            socket.connect((SERVER, WHO_PORT)).unwrap();
            let timeout = Some(Duration::from_secs(1));
            socket.set_read_timeout(timeout).unwrap();
            socket
        }))
    }

    /// The address on the IPv4 internet that the flow has.
    fn seen_as(&self) -> io::Result<Ipv4Addr> {
        let mut buffer = [0; 100];
        self.0.send(b"who am I?")?;
        let len = self.0.recv(&mut buffer)?;
        let text = String::from_utf8_lossy(&buffer[..len]);
        text.parse().map_err(io::Error::other)
    }
}

/// A TCP connection of the host.
struct TcpFlow(TcpStream);

impl TcpFlow {
    fn open(host: &Namespace) -> Self {
        Self(host.run(|| {
            let stream = TcpStream::connect(ECHO).unwrap();
            let timeout = Some(Duration::from_secs(1));
            stream.set_read_timeout(timeout).unwrap();
            stream
        }))
    }

    /// Whether what is sent comes back.
    fn is_alive(&mut self) -> bool {
        let mut back = [0; 4];
        let echoed = self
            .0
            .write_all(b"echo")
            .and_then(|()| self.0.read_exact(&mut back));
        echoed.is_ok() && back == *b"echo"
    }
}

/// The address on the IPv4 internet that a new connection has.
fn new_connection_seen_as(host: &Namespace) -> Ipv4Addr {
    let text = host.run(|| {
        let (_, mut body) = get(IpAddr::V4(SERVER), "/address").unwrap();
        let mut text = String::new();
        body.read_to_string(&mut text).unwrap();
        text
    });
    text.trim().parse().unwrap()
}

/// Which PLAT an address of the pools belongs to.
fn is_of_second_plat(address: Ipv4Addr) -> bool {
    let [a, b, c, last] = address.octets();
    assert_eq!([a, b, c], [203, 0, 113]);
    last >= 16
}

/// Another prefix is announced, and the old one for a short time only. What was going on goes on.
#[test]
fn flows_stay_with_the_old_prefix_while_it_holds() {
    let running = Running::new("flows");
    let network = &running.network;
    let new = "2001:db8:65::/96";
    network.router.add_route(new, "2001:db8:1:2::2", "r1");
    let _second = other_plat(network, new);
    serve_who(&network.server);
    let (mut tcp, udp) = (TcpFlow::open(&network.host), UdpFlow::open(&network.host));
    assert!(tcp.is_alive());
    let seen = udp.seen_as().unwrap();
    assert!(!is_of_second_plat(seen), "{seen}");

    let announce = |old: Duration| {
        network.advertiser.change(|it| {
            it.pref64 = vec![
                (PREF64.parse().unwrap(), old),
                (new.parse().unwrap(), Duration::from_secs(1800)),
            ];
        });
    };
    announce(Duration::from_secs(304));
    let said = format!("prefix {new} (older flows by {PREF64})");
    running.clat.wait_for(&said, SOON);
    for _ in 0..5 {
        assert!(tcp.is_alive());
        assert_eq!(udp.seen_as().unwrap(), seen);
        let later = UdpFlow::open(&network.host).seen_as().unwrap();
        assert!(is_of_second_plat(later), "{later}");
        let later = new_connection_seen_as(&network.host);
        assert!(is_of_second_plat(later), "{later}");
    }
    let mut later = TcpFlow::open(&network.host);

    announce(Duration::ZERO);
    running.clat.wait_for(&format!("prefix {new}, MTU"), SOON);
    let seen = udp.seen_as().unwrap();
    assert!(is_of_second_plat(seen), "{seen}");
    assert!(!tcp.is_alive());
    assert!(later.is_alive());
    // The address stayed, and the interface with it.
    assert_eq!(running.clat.output().matches("claiming").count(), 1);
}

/// A network that is nearer to the prefix comes, and then a prefix that is nearer to it: better for
/// who starts, but not worth the connections of who runs.
#[test]
fn clat_c_01_the_address_stays_in_its_network() {
    let running = Running::new("two-networks");
    let network = &running.network;
    let new = "2001:db8:65::/96";
    network.router.add_route(new, "2001:db8:1:2::2", "r1");
    let _second = other_plat(network, new);
    let mut tcp = TcpFlow::open(&network.host);
    assert!(tcp.is_alive());
    network
        .advertiser
        .change(|it| it.prefixes.push("2001:db8:65:9::".parse().unwrap()));
    let has_address = || {
        let addresses = network.host.must("ip -6 addr show dev h0");
        addresses.contains("2001:db8:65:9:")
    };
    assert!(eventually(SOON, has_address));
    network.advertiser.change(|it| {
        it.pref64 = vec![
            (PREF64.parse().unwrap(), Duration::from_secs(304)),
            (new.parse().unwrap(), Duration::from_secs(1800)),
        ];
    });
    let said = format!("prefix {new} (older flows by {PREF64})");
    running.clat.wait_for(&said, SOON);
    assert!(tcp.is_alive());
    assert_eq!(running.clat.output().matches("claiming").count(), 1);
}

/// Nothing announces its end: the old prefix just is not repeated, and runs out.
#[test]
fn a_prefix_that_runs_out_is_left() {
    let running = Running::new("runs-out");
    let network = &running.network;
    let new = "2001:db8:65::/96";
    network.router.add_route(new, "2001:db8:1:2::2", "r1");
    let _second = other_plat(network, new);
    serve_who(&network.server);
    let old = |lifetime| vec![(PREF64.parse().unwrap(), Duration::from_secs(lifetime))];
    network.advertiser.change(|it| it.pref64 = old(8));
    std::thread::sleep(Duration::from_millis(200));
    let udp = UdpFlow::open(&network.host);
    let seen = udp.seen_as().unwrap();
    let announced = (new.parse().unwrap(), Duration::from_secs(1800));
    network.advertiser.change(|it| it.pref64 = vec![announced]);
    running.clat.wait_for("(older flows by", SOON);
    assert_eq!(udp.seen_as().unwrap(), seen);
    let expired = Duration::from_secs(10);
    running
        .clat
        .wait_for(&format!("prefix {new}, MTU"), expired);
    let moved = || udp.seen_as().is_ok_and(is_of_second_plat);
    assert!(eventually(SOON, moved));
}

fn ping(host: &Namespace) -> bool {
    host.sh(&format!("ping -n -c 1 -W 1 {SERVER}")).ok()
}

/// The router says nothing for as long as its last words hold, and longer.
#[test]
fn a_router_falls_silent_and_comes_back() {
    let running = Running::new("silent");
    let network = &running.network;
    network.advertiser.change(|it| {
        it.pref64 = vec![(PREF64.parse().unwrap(), Duration::from_secs(8))];
    });
    std::thread::sleep(Duration::from_millis(200));
    network.advertiser.change(|it| it.silent = true);
    assert!(ping(&network.host));
    running.clat.clear_output();
    let over = Duration::from_secs(10);
    running
        .clat
        .wait_for("no NAT64 prefix is known on h0", over);
    assert!(eventually(SOON, || !network.host.has_interface("clat0")));
    network.advertiser.change(|it| it.silent = false);
    running.clat.wait_for(" running: ", SOON);
    assert!(eventually(SOON, || ping(&network.host)));
}

/// Another router takes over, and the old one says so.
#[test]
fn another_default_router_takes_over() {
    let running = Running::new("other-router");
    let network = &running.network;
    network.router.add_address("r0", "fe80::2/64");
    serve_who(&network.server);
    let udp = UdpFlow::open(&network.host);
    let seen = udp.seen_as().unwrap();
    let by = |router: &str| {
        let routes = network.host.must("ip -6 route show default");
        routes.contains(&format!("via {router} "))
    };
    network.advertiser.change(|it| it.router_lifetime = 0);
    assert!(eventually(SOON, || !by("fe80::1")));
    // Nobody leads anywhere: a program is told or waits, but nothing ends.
    network.advertiser.change(|it| {
        it.source = "fe80::2".parse().unwrap();
        it.router_lifetime = 1800;
    });
    assert!(eventually(SOON, || by("fe80::2")));
    assert!(eventually(SOON, || udp
        .seen_as()
        .is_ok_and(|it| it == seen)));
    // By a flow of the same address and port: it is still the same CLAT.
    assert_eq!(running.clat.output().matches("claiming").count(), 1);
}

/// Another program adds a route to the NAT64 prefix by another neighbour, and takes it back: frames
/// follow.
#[test]
fn the_next_hop_follows_the_routes_of_others() {
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
    let running = Running::new("next-hop");
    let network = &running.network;
    let link = Stranger::at(&network.router, "r0");
    let goes_to = |wanted: [u8; 6]| {
        let _ = network.host.sh(&format!("ping -n -c 1 -W 1 {SERVER}"));
        let pref64 = PREF64.parse::<pref64::Pref64>().unwrap().address().octets();
        let heard = link.hears(Duration::from_millis(50));
        let mut ours = heard
            .iter()
            .filter(|it| it.get(38..50) == Some(&pref64[..12]));
        ours.next_back().is_some_and(|it| it[..6] == wanted)
    };
    let router = mac(&network.router.mac("r0")).0;
    assert!(goes_to(router));
    network
        .host
        .must("ip neigh replace fe80::77 lladdr 02:00:00:00:00:77 dev h0");
    let route = format!("{PREF64} via fe80::77 dev h0");
    network.host.must(&format!("ip -6 route add {route}"));
    assert!(eventually(SOON, || goes_to(OTHER)));
    network.host.must(&format!("ip -6 route del {route}"));
    assert!(eventually(SOON, || goes_to(router)));
    assert!(ping(&network.host));
}

/// The router's card is replaced: its neighbour entry is wrong, and nobody says so.
#[test]
fn a_neighbour_that_is_gone_is_looked_for() {
    let running = Running::new("neighbour-gone");
    let network = &running.network;
    assert!(ping(&network.host));
    // What it says about itself would be a help.
    network.advertiser.change(|it| it.silent = true);
    network
        .router
        .must("ip link set r0 address 02:00:00:00:00:55");
    assert!(!ping(&network.host));
    // While packets flow, the entry is used, suspected (5 s), asked for (3 s) and looked for.
    let found = || ping(&network.host);
    assert!(eventually(Duration::from_secs(30), found));
    let entry = network.host.must("ip -6 neigh show fe80::1");
    assert!(entry.contains("02:00:00:00:00:55"), "{entry}");
}

/// The host becomes a router while the CLAT runs. Its kernel forgets the default route and listens to
/// no router any more; we do.
#[test]
fn forwarding_is_switched_on_under_it() {
    let running = Running::new("forwarding-on");
    let network = &running.network;
    assert!(ping(&network.host));
    network.host.set("net/ipv6/conf/all/forwarding", "1");
    let routes = network.host.must("ip -6 route show default");
    assert_eq!(routes, "", "accept_ra is not 1 here");
    assert!(eventually(SOON, || ping(&network.host)));
    std::thread::sleep(Duration::from_secs(1));
    assert!(ping(&network.host));
    network.host.set("net/ipv6/conf/all/forwarding", "0");
    assert!(eventually(SOON, || ping(&network.host)));
}

/// By the link itself, not by what a router says.
#[test]
fn clat_m_01_the_mtu_follows_the_link() {
    let running = Running::new("link-mtu");
    let network = &running.network;
    let has_mtu = |mtu: u32| {
        let shown = network.host.must("ip -o link show clat0");
        shown.contains(&format!("mtu {mtu} "))
    };
    assert!(has_mtu(1472));
    network.host.set_mtu("h0", 1400);
    assert!(eventually(SOON, || has_mtu(1372)));
    // IPv6 has 1280 at least.
    network.host.set_mtu("h0", 1280);
    assert!(eventually(SOON, || has_mtu(1252)));
    network.host.set_mtu("h0", 1500);
    assert!(eventually(SOON, || has_mtu(1472)));
    assert!(ping(&network.host));
    assert_eq!(running.clat.output().matches("claiming").count(), 1);
}

/// A second IPv6-only link of the host: `h1`, with a router of its own.
struct SecondLink {
    advertiser: Advertiser,
    _router: Namespace,
}

impl SecondLink {
    /// Comes, and gives the host an address in 2001:db8:7:7::/64.
    fn connect(host: &Namespace, pref64: Option<&str>) -> Self {
        let router = Namespace::new("other").unwrap();
        connect((host, "h1"), (&router, "o0"));
        router.forward();
        router.add_address("o0", "fe80::2/64");
        let mut announced = Advertisement::new(
            "fe80::2".parse().unwrap(),
            "2001:db8:7:7::".parse().unwrap(),
        );
        if let Some(prefix) = pref64 {
            announced = announced.with_pref64(prefix);
        }
        let advertiser = Advertiser::start(&router, "o0", announced);
        let has_address = || {
            host.must("ip -6 addr show dev h1")
                .contains("2001:db8:7:7:")
        };
        assert!(eventually(SOON, has_address));
        Self {
            advertiser,
            _router: router,
        }
    }
}

/// A second IPv6-only link with a NAT64 comes. The first one stays in use; when it fails, the other
/// one takes its place under the same virtual interface.
#[test]
fn a_second_link_comes_and_takes_over() {
    let running = Running::new("second-link");
    let network = &running.network;
    let _second = SecondLink::connect(&network.host, Some(PREF64));
    std::thread::sleep(Duration::from_millis(500));
    assert!(ping(&network.host));
    assert!(!running.clat.output().contains("on h1"));
    let index = || network.host.must("ip -o link show clat0 | cut -d: -f1");
    let before = index();
    network.host.link_down("h0");
    running.clat.wait_for("on h1, prefix", SOON);
    assert_eq!(index(), before);
    // Back again, the first one is no better than the one in use.
    network.host.link_up("h0");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(running.clat.output().matches("claiming").count(), 2);
}

/// A link that is not in use moves to another network: what the one before announced is not used
/// when the link takes over.
#[test]
fn clat_c_03_a_link_not_in_use_moves_to_another_network() {
    let running = Running::new("link-moves");
    let network = &running.network;
    let second = SecondLink::connect(&network.host, Some("2001:db8:65::/96"));
    std::thread::sleep(Duration::from_millis(500));
    network.host.link_down("h1");
    second.advertiser.change(|it| {
        let new = "2001:db8:66::/96".parse().unwrap();
        it.pref64 = vec![(new, Duration::from_secs(1800))];
    });
    std::thread::sleep(Duration::from_millis(500));
    network.host.link_up("h1");
    let is_back = || {
        let shown = network.host.must("ip -6 addr show dev h1");
        shown.contains("2001:db8:7:7:")
    };
    assert!(eventually(SOON, is_back));
    std::thread::sleep(Duration::from_millis(500));
    network.host.link_down("h0");
    running
        .clat
        .wait_for("on h1, prefix 2001:db8:66::/96,", SOON);
    assert!(!running.clat.output().contains("prefix 2001:db8:65::/96,"));
}

/// The better link announces a prefix, but has no network for the host. It is not waited for.
#[test]
fn clat_c_03_a_link_without_a_network_is_passed_over() {
    let network = Network::new("no-network", &Options::default());
    network.await_address();
    network.advertiser.change(|it| it.prefixes.clear());
    network.host.must("ip -6 addr flush dev h0 scope global");
    let _second = SecondLink::connect(&network.host, Some("2001:db8:65::/96"));
    let clat = network.launch_clat(&[]);
    clat.wait_for("on h1, prefix 2001:db8:65::/96,", SOON);
}

/// Another program, or a person, takes away parts of it.
#[test]
fn what_others_take_away_is_made_again() {
    for take_away in [
        "ip -4 route flush dev clat0",
        "ip addr flush dev clat0",
        "ip link set clat0 down",
    ] {
        let running = Running::new("taken-away");
        let network = &running.network;
        assert!(ping(&network.host));
        network.host.must(take_away);
        running.clat.wait_for("making it again", SOON);
        let works = || ping(&network.host);
        assert!(eventually(SOON, works), "{take_away}");
    }
}
