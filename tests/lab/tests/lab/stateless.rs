//! The PLAT's stateless mode: hosts with an IPv4 address of their own (RFC 7757), with tayga in its
//! place, and with tayga at the other end.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use lab::{
    eventually,
    frames::{Stranger, mac},
    pair::{Pair, ROUTED_CLAT},
    process::Daemon,
    servers::{ECHO_PORT, HELLO, Pattern, fetch, serve_web, sha256},
    tayga::Tayga,
    topology::{Network, Options, PREF64, SERVER, SERVER_BY_PREFIX},
};
use wire::{
    compose::{self, V4, V6},
    ethernet,
    ipv4::Ipv4,
    ipv6::Ipv6,
};

/// The host, and the IPv4 address it has to itself.
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 0x77);
const HOST4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 17);
/// The network of such addresses, routed to the PLAT.
const MAPPED: &str = "203.0.113.16/28";

fn eam(ipv6: impl std::fmt::Display) -> String {
    format!("[[eam]]\nipv4 = \"{HOST4}\"\nipv6 = \"{ipv6}\"\n")
}

/// A network in which the mapped addresses are routed to the PLAT, and the host has its own.
fn network(name: &str) -> Network {
    let network = Network::new(name, &Options::default());
    network.isp.add_route(MAPPED, "192.0.2.1", "i0");
    network.host.add_address("h0", &format!("{HOST6}/64"));
    let host = &network.host;
    let has_router = || !host.must("ip -6 route show default").is_empty();
    assert!(eventually(Duration::from_secs(5), has_router));
    network
}

/// Tayga with the same mapping on the PLAT's machine.
fn start_tayga(network: &Network) -> Daemon {
    let tayga = Tayga {
        interface: "nat64",
        own: ("203.0.113.14", "2001:db8:1:2::64"),
        prefix: PREF64,
        maps: &[("203.0.113.17", "2001:db8:1:1::77")],
    };
    let plat = &network.plat;
    let daemon = tayga.start(plat, &network.path("")).unwrap();
    plat.forward();
    for route in [
        &format!("-6 route add {PREF64}"),
        &format!("route add {MAPPED}"),
    ] {
        plat.must(&format!("ip {route} dev nat64"));
    }
    daemon
}

/// Everything that one translator makes of the same packets, in both directions.
#[derive(Debug, PartialEq, Eq)]
struct Translated {
    to_ipv4: Vec<Vec<u8>>,
    to_ipv6: Vec<Vec<u8>>,
}

/// Sends the same packets from both ends and hears what arrives at the other.
fn exchange(network: &Network) -> Translated {
    // The kernels learn their neighbours first.
    let Network { host, server, .. } = network;
    host.must(&format!(
        "ping -6 -n -c 2 -i 0.2 -W 3 -I {HOST6} {SERVER_BY_PREFIX}"
    ));
    let at_host = Stranger::at(host, "h0");
    let at_server = Stranger::at(server, "s0");
    let (router, isp) = (network.router.mac("r0"), network.isp.mac("i1"));
    let own = |place: &lab::namespace::Namespace, interface| mac(&place.mac(interface));
    for packet in from_host() {
        at_host.send(mac(&router), own(host, "h0"), ethernet::IPV6, &packet);
    }
    for packet in from_server() {
        at_server.send(mac(&isp), own(server, "s0"), 0x0800, &packet);
    }
    let within = Duration::from_millis(700);
    Translated {
        to_ipv4: at_server
            .hears(within)
            .iter()
            .filter_map(|it| seen_v4(it))
            .collect(),
        to_ipv6: at_host
            .hears(within)
            .iter()
            .filter_map(|it| seen_v6(it))
            .collect(),
    }
}

/// TCP, UDP, echoes and their answers, ESP, fragments, and an ICMP error about each kind.
fn from_host() -> Vec<Vec<u8>> {
    let (src, dst) = (HOST6, SERVER_BY_PREFIX);
    let pair = compose::Pair::V6(src, dst);
    let carry = |next, payload: &[u8]| {
        let header = V6 {
            hop_limit: 60,
            ..V6::new(src, dst, next)
        };
        header.carrying(payload)
    };
    let back = V6 {
        hop_limit: 9,
        ..V6::new(dst, src, 17)
    };
    let answer = compose::udp(compose::Pair::V6(dst, src), 7, 4000, b"in error");
    let error =
        |kind, code, rest| compose::icmp6(src, dst, kind, code, rest, &back.carrying(&answer));
    let large = compose::udp(pair, 4001, 9, &[7; 2000]);
    vec![
        carry(17, &compose::udp(pair, 4000, 9, b"datagram")),
        carry(6, &compose::tcp(pair, (4000, 9), 0x12, &[], b"segment")),
        carry(
            58,
            &compose::icmp6(src, dst, 129, 0, [0, 1, 0, 2], b"reply"),
        ),
        carry(50, &[3; 100]),
        carry(44, &compose::fragment(17, 0, true, 0x1234, &large[..1200])),
        carry(
            44,
            &compose::fragment(17, 150, false, 0x1234, &large[1200..]),
        ),
        carry(58, &error(1, 4, [0; 4])),
        carry(58, &error(3, 0, [0; 4])),
        carry(58, &error(2, 0, [0, 0, 5, 100])),
    ]
}

fn from_server() -> Vec<Vec<u8>> {
    let (src, dst) = (SERVER, HOST4);
    let pair = compose::Pair::V4(src, dst);
    // Tayga adds a Fragment Header where Don't Fragment is not set, which is its known result.
    let header = |protocol| V4 {
        df: true,
        ttl: 60,
        ..V4::new(src, dst, protocol)
    };
    let back = V4 {
        df: true,
        ttl: 9,
        ..V4::new(dst, src, 17)
    };
    let answer = compose::udp(compose::Pair::V4(dst, src), 4000, 7, b"in error");
    let error = |kind, code, rest| compose::icmp4(kind, code, rest, &back.carrying(&answer));
    let large = compose::udp(pair, 4001, 9, &[7; 2000]);
    let first = V4 {
        df: false,
        mf: true,
        id: 0x1234,
        ..header(17)
    };
    let second = V4 {
        mf: false,
        offset: 150,
        ..first.clone()
    };
    vec![
        header(17).carrying(&compose::udp(pair, 4000, 9, b"datagram")),
        header(6).carrying(&compose::tcp(pair, (4000, 9), 0x12, &[], b"segment")),
        header(1).carrying(&compose::icmp4(0, 0, [0, 1, 0, 2], b"reply")),
        header(50).carrying(&[3; 100]),
        first.carrying(&large[..1200]),
        second.carrying(&large[1200..]),
        header(1).carrying(&error(3, 3, [0; 4])),
        header(1).carrying(&error(11, 0, [0; 4])),
        header(1).carrying(&error(3, 4, [0, 0, 5, 100])),
    ]
}

/// A packet of the host as it arrives at the server, without what a translator may choose: the
/// Identification of what was no fragment, and Don't Fragment, which tayga always sets.
fn seen_v4(frame: &[u8]) -> Option<Vec<u8>> {
    let header = Ipv4::new_embedded(frame.get(14..)?).ok()?;
    if frame[12..14] != [8, 0] || (header.src(), header.dst()) != (HOST4, SERVER) {
        return None;
    }
    let mut packet = frame[14..14 + usize::from(header.total_len())].to_vec();
    assert!(header.checksum_ok());
    packet[6] &= !0x40;
    packet[10..12].fill(0);
    if !header.fragment().is_fragment() {
        packet[4..6].fill(0);
    }
    if packet[9] == 1 && [3, 11].contains(&packet[20]) {
        // The same of the packet in error, which is under the checksum of the message.
        assert_eq!(compose::checksum(&[&packet[20..]]), 0);
        packet[22..24].fill(0);
        packet[32..34].fill(0);
        packet[34] &= !0x40;
        packet[38..40].fill(0);
    }
    is_ours(&packet, packet[9], 20).then_some(packet)
}

fn seen_v6(frame: &[u8]) -> Option<Vec<u8>> {
    let header = Ipv6::new_embedded(frame.get(14..)?).ok()?;
    if frame[12..14] != [0x86, 0xdd] || (header.src(), header.dst()) != (SERVER_BY_PREFIX, HOST6) {
        return None;
    }
    let packet = frame[14..14 + 40 + usize::from(header.payload_len())].to_vec();
    is_ours(&packet, packet[6], 40).then_some(packet)
}

/// Not what the kernels themselves answer: a reset, and unreachable about what we send.
fn is_ours(packet: &[u8], protocol: u8, at: usize) -> bool {
    let is_reset = protocol == 6 && packet[at + 13] & 4 != 0;
    let ours: [&[u8]; 3] = [b"datagram", &[7; 8], &[3; 8]];
    let quotes_ours = matches!(protocol, 1 | 58) && packet.windows(8).any(|it| ours.contains(&it));
    !is_reset && !quotes_ours
}

/// The same packets in both directions: ours makes of them what tayga does.
#[test]
fn eam_3_3_01_a_mapping_is_translated_as_by_tayga() {
    let network = network("eam-tayga");
    let mut tayga = start_tayga(&network);
    let by_tayga = exchange(&network);
    tayga.stop();
    drop(tayga);
    network.plat.must("ip link del nat64");
    let plat = network.start_plat_with(&eam(HOST6));
    let by_us = exchange(&network);
    assert_equal(by_us.to_ipv4, by_tayga.to_ipv4);
    assert_equal(by_us.to_ipv6, by_tayga.to_ipv6);
    drop(plat);
}

/// All nine, and each the same. Those of several flows may overtake each other: PLAT has a worker
/// for each queue.
fn assert_equal(mut ours: Vec<Vec<u8>>, mut taygas: Vec<Vec<u8>>) {
    ours.sort();
    taygas.sort();
    for (n, (our, tayga)) in ours.iter().zip(&taygas).enumerate() {
        let start = |packet: &[u8]| packet[..packet.len().min(120)].to_vec();
        assert!(our == tayga, "{n}:\n{:?}\n{:?}", start(our), start(tayga));
    }
    assert_eq!((ours.len(), taygas.len()), (9, 9));
}

/// Real programs, from the host to the server and, unasked, back.
#[test]
fn eam_3_3_01_a_host_with_a_mapping_is_a_server_of_the_ipv4_internet() {
    let network = network("eam-host");
    let plat = network.start_plat_with(&eam(HOST6));
    let Network { host, server, .. } = &network;
    let seen = host.must(&format!(
        "curl -6 -sS -m 5 --interface {HOST6} http://[{SERVER_BY_PREFIX}]/address"
    ));
    assert_eq!(seen.trim(), HOST4.to_string());
    serve_web(host);
    let said = server.must(&format!("curl -sS -m 5 http://{HOST4}/hello"));
    assert_eq!(said, HELLO);
    const LEN: u64 = 5_000_000;
    let response = server.run(|| fetch(HOST4.into(), &format!("/bytes/{LEN}")));
    let expected = sha256(Pattern::default().take(LEN)).unwrap().0;
    assert_eq!(response.unwrap().sha256, expected);
    for size in [56, 1400, 4000] {
        let line = format!("ping -n -c 2 -i 0.2 -W 2 -s {size} {HOST4}");
        let pinged = server.must(&line);
        assert!(pinged.contains(" 0% packet loss"), "{line}: {pinged}");
    }
    let refused = server.run(|| TcpStream::connect((HOST4, 9)).unwrap_err());
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let traced = server.must(&format!("traceroute -n -q 1 -w 2 -N 1 {HOST4}"));
    assert!(
        traced.lines().last().unwrap().contains(&HOST4.to_string()),
        "{traced}"
    );
    assert_no_state(&plat);
    // Beside it, a client without a mapping has a session as ever.
    let other = host
        .addresses("h0")
        .into_iter()
        .find(|it| matches!(it, IpAddr::V6(it) if *it != HOST6 && it.segments()[0] == 0x2001));
    let other = other.unwrap();
    let seen = host.must(&format!(
        "curl -6 -sS -m 5 --interface {other} http://[{SERVER_BY_PREFIX}]/address"
    ));
    assert!(
        seen.starts_with("203.0.113.") && seen.trim() != HOST4.to_string(),
        "{seen}"
    );
    // And reaches the host with one by the prefix (RFC 7757 section 4.2.2).
    let by_prefix = "2001:db8:64::203.0.113.17";
    let seen = host.must(&format!(
        "curl -6 -sS -m 5 --interface {other} http://[{by_prefix}]/address"
    ));
    assert!(seen.starts_with("2001:db8:64::cb00:71"), "{seen}");
}

fn assert_no_state(plat: &Daemon) {
    plat.clear_output();
    plat.signal(nix::sys::signal::Signal::SIGUSR1);
    plat.wait_for("TCP: 0 sessions (0 made)", Duration::from_secs(3));
    plat.wait_for("UDP: 0 sessions (0 made)", Duration::from_secs(3));
    plat.wait_for("without state", Duration::from_secs(3));
}

/// Tayga's map on the host, ours on the PLAT: two stateless translators, and no state anywhere.
#[test]
fn eam_3_3_01_a_tayga_map_needs_no_state() {
    let network = Network::new("eam-map", &Options::default());
    network.isp.add_route(MAPPED, "192.0.2.1", "i0");
    network.route_to_host();
    let plat = network.start_plat_with(&eam(ROUTED_CLAT));
    let _clat = network.start_clat_of(Pair::TAYGA_CLAT);
    let Network { host, server, .. } = &network;
    let seen = host.must(&format!("curl -sS -m 5 http://{SERVER}/address"));
    assert_eq!(seen.trim(), HOST4.to_string());
    host.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(3)))
            .unwrap();
        socket.connect((SERVER, ECHO_PORT)).unwrap();
        for len in [0, 1, 1000, 1400] {
            socket.send(&vec![7; len]).unwrap();
            let mut buffer = [0; 2000];
            assert_eq!(socket.recv(&mut buffer).unwrap(), len);
        }
    });
    // Unasked, to the host: tayga's interface has the address that its map names.
    let listener = host.run(|| TcpListener::bind("192.0.0.1:8080").unwrap());
    let said = host.spawn(move || {
        let (mut stream, from) = listener.accept().unwrap();
        stream.write_all(b"welcome").unwrap();
        from.ip()
    });
    let heard = server.run(|| {
        let mut stream = TcpStream::connect((HOST4, 8080)).unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).unwrap();
        heard
    });
    assert_eq!(heard, "welcome");
    assert_eq!(said.join().unwrap(), IpAddr::from(SERVER));
    let pinged = server.must(&format!("ping -n -c 2 -i 0.2 -W 2 {HOST4}"));
    assert!(pinged.contains(" 0% packet loss"), "{pinged}");
    assert_no_state(&plat);
}
