//! A client without a CLAT: it speaks IPv6, and writes the addresses of servers with the prefix.

use std::{
    io::{ErrorKind, Read},
    net::{Ipv6Addr, TcpStream, UdpSocket},
    time::Duration,
};

use lab::{
    counters::Counters,
    namespace::Namespace,
    process::Daemon,
    servers::{HELLO, Pattern, fetch, serve_web, sha256},
    topology::{Network, Options},
    wiring::connect,
};

/// A server behind more routers of the IPv4 internet, as a client writes it.
const FAR: &str = "2001:db8:64::198.51.100.130";

/// Everybody on the way to it: the router of the LAN, the PLAT's kernel, the PLAT itself, and then
/// the IPv4 routers, each by its own address, and the server.
const HOPS: [&str; 7] = [
    "2001:db8:1:1::1",
    "2001:db8:1:2::2",
    "2001:db8:1:2::2",
    "2001:db8:64::c000:201",
    "2001:db8:64::c000:202",
    "2001:db8:64::c000:20a",
    "2001:db8:64::c633:6482",
];

/// The network with a PLAT, two more IPv4 routers and a server behind them, and no CLAT.
struct Far {
    plat: Daemon,
    network: Network,
    core: Namespace,
    _server: Namespace,
}

impl Far {
    fn new(name: &str) -> Self {
        let network = Network::new(name, &Options::default());
        let [core, server] = ["core", "far"].map(|name| Namespace::new(name).unwrap());
        let isp = &network.isp;
        connect((isp, "i2"), (&core, "c0"));
        connect((&core, "c1"), (&server, "f0"));
        core.forward();
        isp.add_address("i2", "192.0.2.9/30");
        core.add_address("c0", "192.0.2.10/30");
        core.add_address("c1", "198.51.100.129/30");
        server.add_address("f0", "198.51.100.130/30");
        isp.add_route("198.51.100.128/30", "192.0.2.10", "i2");
        core.add_route("0.0.0.0/0", "192.0.2.9", "c0");
        server.add_route("0.0.0.0/0", "198.51.100.129", "f0");
        serve_web(&server);
        let plat = network.start_plat();
        network.await_address();
        Self {
            plat,
            network,
            core,
            _server: server,
        }
    }

    /// What the PLAT has counted when nothing should have been lost.
    fn assert_nothing_dropped(&self) -> Counters {
        let counters = self.plat.counters();
        let unexplained: Vec<_> = counters
            .drops
            .keys()
            .filter(|code| *code != "not-in-prefix")
            .collect();
        assert!(unexplained.is_empty(), "{counters:?}");
        counters
    }
}

#[test]
fn curl_and_ping_reach_a_server_by_the_prefix() {
    let far = Far::new("no-clat");
    let host = &far.network.host;
    let said = host.must(&format!("curl -6 -sS -m 5 http://[{FAR}]/hello"));
    assert_eq!(said, HELLO);
    let seen = host.must(&format!("curl -6 -sS -m 5 http://[{FAR}]/address"));
    assert!(seen.starts_with("203.0.113."), "{seen}");
    const LEN: u64 = 5_000_000;
    let server: Ipv6Addr = FAR.parse().unwrap();
    let response = host.run(move || fetch(server.into(), &format!("/bytes/{LEN}")));
    let expected = sha256(Pattern::default().take(LEN)).unwrap().0;
    assert_eq!(response.unwrap().sha256, expected);
    // Within every size, at the MTU, and in fragments.
    for size in [0, 56, 1200, 1452, 4000] {
        let line = format!("ping -6 -n -c 2 -i 0.2 -W 2 -s {size} {FAR}");
        let pinged = host.must(&line);
        assert!(pinged.contains(" 0% packet loss"), "{line}: {pinged}");
    }
    far.assert_nothing_dropped();
}

/// PLAT-3.6-02: the client sees where its packets end, hop by hop.
#[test]
fn plat_3_6_02_traceroute_shows_every_ipv4_hop_under_the_prefix() {
    let far = Far::new("no-clat-trace");
    for method in ["-U", "-I"] {
        let line = format!("traceroute -6 {method} -n -q 1 -w 2 -N 1 {FAR}");
        let shown = far.network.host.must(&line);
        let hops: Vec<_> = shown
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().nth(1))
            .collect();
        assert_eq!(hops, HOPS, "{method}: {shown}");
    }
}

/// What IPv4 routers and hosts say comes through as what it means in IPv6.
#[test]
fn plat_3_4_01_ipv4_errors_are_told_to_the_client() {
    let far = Far::new("no-clat-errors");
    let host = &far.network.host;
    let server: Ipv6Addr = FAR.parse().unwrap();
    let closed = host.run(move || TcpStream::connect((server, 9)).unwrap_err());
    assert_eq!(closed.kind(), ErrorKind::ConnectionRefused);
    let closed = host.run(move || {
        let socket = UdpSocket::bind("[::]:0").unwrap();
        socket.connect((server, 9)).unwrap();
        let timeout = Some(Duration::from_secs(3));
        socket.set_read_timeout(timeout).unwrap();
        socket.send(b"anybody there?").unwrap();
        socket.recv(&mut [0; 100]).unwrap_err()
    });
    assert_eq!(closed.kind(), ErrorKind::ConnectionRefused);
    let nobody = host.sh("ping -6 -n -c 2 -i 0.5 -W 5 2001:db8:64::198.51.100.99");
    let said = "From 2001:db8:64::c000:202 icmp_seq=1 Destination unreachable: No route";
    assert!(nobody.stdout.contains(said), "{nobody:?}");
    // A narrow link in the IPv4 internet: 1000 bytes there are 1020 here, and no less than 1280 is
    // ever said.
    far.network.isp.set_mtu("i2", 1000);
    far.core.set_mtu("c0", 1000);
    let narrow = host.sh(&format!("ping -6 -n -c 2 -i 0.3 -W 2 -s 1400 -M do {FAR}"));
    let told = format!("{}{}", narrow.stdout, narrow.stderr);
    assert!(
        told.contains("mtu=1280") || told.contains("mtu: 1280"),
        "{narrow:?}"
    );
    const LEN: u64 = 1_000_000;
    let response = host.run(move || fetch(server.into(), &format!("/bytes/{LEN}")));
    let expected = sha256(Pattern::default().take(LEN)).unwrap().0;
    assert_eq!(response.unwrap().sha256, expected);
}
