//! PLAT-3.8-01: two clients that speak to each other by their pool addresses.

use super::*;
use crate::{filtering::Filtering, tcp::TcpState};

const ONE: (Ipv6Addr, u16) = (CLIENT, 5000);
const TWO: (Ipv6Addr, u16) = (OTHER, 6000);
const OUTSIDE_ONE: (Ipv4Addr, u16) = (POOL, 5000);
const OUTSIDE_TWO: (Ipv4Addr, u16) = (POOL, 6000);

/// Source and destination, with their ports.
fn ends(packet: &[u8]) -> ((Ipv6Addr, u16), (Ipv6Addr, u16)) {
    assert_eq!(transport_checksum_ok(packet), Some(true));
    let header = Ipv6::new_checked(packet).unwrap();
    let (src, dst) = transport::ports(header.from_offset(40)).unwrap();
    ((header.src(), src), (header.dst(), dst))
}

fn seen(outside: (Ipv4Addr, u16)) -> (Ipv6Addr, u16) {
    (prefix().embed(outside.0), outside.1)
}

#[test]
fn plat_3_8_01_udp_both_ways() {
    let mut nat = Nat::new(config());
    nat.udp(TWO, (SERVER, 53));
    let packet = nat.send(&udp6(ONE, OUTSIDE_TWO, b"hello")).packet();
    // PLAT-3.6-01: the peer sees the pool address and port of the sender.
    assert_eq!(ends(&packet), (seen(OUTSIDE_ONE), TWO));
    assert_eq!(&packet[48..], b"hello");
    let packet = nat.send(&udp6(TWO, OUTSIDE_ONE, b"hi")).packet();
    assert_eq!(ends(&packet), (seen(OUTSIDE_TWO), ONE));
    assert_eq!((nat.bindings(), nat.sessions()), (2, 3));
    let stats = nat.engine.stats();
    assert_eq!(stats.from_v6.passed.get(), 3);
    assert_eq!(stats.from_v6.turned_around.get(), 2);
    assert_eq!(stats.from_v4.packets_in.get(), 0);
}

#[test]
fn plat_3_8_01_a_client_to_itself() {
    let mut nat = Nat::new(config());
    nat.udp(ONE, (SERVER, 53));
    let packet = nat.send(&udp6(ONE, OUTSIDE_ONE, b"me")).packet();
    assert_eq!(ends(&packet), (seen(OUTSIDE_ONE), ONE));
    assert_eq!((nat.bindings(), nat.sessions()), (1, 2));
}

#[test]
fn plat_3_8_01_a_tcp_connection() {
    let mut nat = Nat::new(config());
    nat.send(&tcp6(TWO, (SERVER, 80), SYN)).packet();
    let packet = nat.send(&tcp6(ONE, OUTSIDE_TWO, SYN)).packet();
    assert_eq!(ends(&packet), (seen(OUTSIDE_ONE), TWO));
    let packet = nat.send(&tcp6(TWO, OUTSIDE_ONE, SYN | ACK)).packet();
    assert_eq!(ends(&packet), (seen(OUTSIDE_TWO), ONE));
    nat.send(&tcp6(ONE, OUTSIDE_TWO, ACK)).packet();
    let established = nat.engine.sessions(nat.now);
    let established =
        established.filter(|it| it.state == crate::session::State::Tcp(TcpState::Established));
    assert_eq!(established.count(), 2);
}

/// Neither expected the other: the first SYN waits for the second (RFC 5382 REQ-4).
#[test]
fn plat_3_8_01_a_simultaneous_open() {
    let mut nat = Nat::new(config());
    let first = nat.send(&tcp6(ONE, OUTSIDE_TWO, SYN));
    assert_eq!(first, Fate::Forwarded(Vec::new()));
    let packet = nat.send(&tcp6(TWO, OUTSIDE_ONE, SYN)).packet();
    assert_eq!(ends(&packet), (seen(OUTSIDE_TWO), ONE));
    assert_eq!(nat.sessions(), 2);
}

/// Nobody is there, and the client is told in its own family.
#[test]
fn plat_3_8_01_an_unanswered_syn_is_told_to_the_client() {
    let mut nat = Nat::new(config());
    let syn = tcp6(ONE, OUTSIDE_TWO, SYN);
    assert_eq!(nat.send(&syn), Fate::Forwarded(Vec::new()));
    nat.wait(7);
    let mut buf = PacketBuf::new();
    assert_eq!(nat.engine.poll_transmit(&mut buf, nat.now), Transmit::Send);
    let error = Ipv6::new_checked(buf.bytes()).unwrap();
    assert_eq!(error.dst(), CLIENT);
    assert_eq!(buf.bytes()[40..42], [1, 4]);
    let quoted = &buf.bytes()[48..];
    assert_eq!(
        (&quoted[8..40], &quoted[40..44]),
        (&syn[8..40], &syn[40..44])
    );
    assert_eq!(
        nat.engine.poll_transmit(&mut buf, nat.now),
        Transmit::Nothing
    );
}

/// What the second client says about a packet of the first reaches the first.
#[test]
fn plat_3_8_01_icmp_errors() {
    let mut nat = Nat::new(config());
    nat.udp(TWO, (SERVER, 53));
    let sent = udp6(ONE, OUTSIDE_TWO, b"hello");
    let arrived = nat.send(&sent).packet();
    let error = error6(OTHER, &arrived, 1, 4, [0; 4]);
    let packet = nat.send(&error).packet();
    assert_eq!(transport_checksum_ok(&packet), Some(true));
    let header = Ipv6::new_checked(&packet).unwrap();
    assert_eq!((header.src(), header.dst()), (prefix().embed(POOL), CLIENT));
    assert_eq!(packet[40..42], [1, 4]);
    let quoted = &packet[48..];
    assert_eq!(quoted[8..40], sent[8..40]);
    assert_eq!(quoted[40..44], sent[40..44]);
    assert_eq!(nat.sessions(), 3, "made by nobody's error");
}

/// The second translation takes a hop, too; whose hops run out on the way is told in IPv6.
#[test]
fn plat_3_8_01_errors_of_our_own_reach_the_client() {
    let mut nat = Nat::new(config());
    nat.udp(TWO, (SERVER, 53));
    let mut packet = udp6(ONE, OUTSIDE_TWO, b"hello");
    packet[7] = 2;
    let Fate::Replied(_, error) = nat.send(&packet) else {
        panic!("no answer");
    };
    let header = Ipv6::new_checked(&error).unwrap();
    assert_eq!(header.dst(), CLIENT);
    assert_eq!(error[40..42], [3, 0]);
    assert_eq!(nat.engine.stats().from_v6.errors_sent.get(), 1);
}

#[test]
fn plat_3_8_01_echo_to_the_pool_means_nobody() {
    let mut nat = Nat::new(config());
    nat.send(&echo6(OTHER, 128, 7, SERVER)).packet();
    assert_eq!(
        nat.send(&echo6(CLIENT, 128, 7, POOL)),
        dropped(DropReason::EchoToPool)
    );
    assert_eq!(nat.sessions(), 1);
}

#[test]
fn plat_3_8_01_filtering_holds_between_clients() {
    let mut config = config();
    config.filtering.udp = Filtering::AddressDependent;
    config.pool.push(PoolEntry {
        address: POOL2,
        ports: PortRange::ALL.into(),
    });
    let mut nat = Nat::new(config);
    let (one, mut two) = (ONE, TWO);
    // Two clients on two addresses.
    let mut outside = [nat.udp(one, (SERVER, 53)), nat.udp(two, (SERVER, 53))];
    while outside[0].0 == outside[1].0 {
        two.0 = (u128::from(two.0) + 1).into();
        outside[1] = nat.udp(two, (SERVER, 53));
    }
    assert_eq!(
        nat.send(&udp6(one, outside[1], b"x")),
        dropped(DropReason::Filtered)
    );
    let packet = nat.send(&udp6(two, outside[0], b"x")).packet();
    assert_eq!(ends(&packet), (seen(outside[1]), one));
    nat.send(&udp6(one, outside[1], b"x")).packet();
}

/// No link lies between two translations here: what fits the IPv6 link fits.
#[test]
fn plat_3_8_01_large_packets_pass_whole() {
    let mut config = config();
    config.ipv4_mtu = 1300;
    let mut nat = Nat::new(config);
    nat.udp(TWO, (SERVER, 53));
    let packet = nat.send(&udp6(ONE, OUTSIDE_TWO, &[7; 1452])).packet();
    assert_eq!(
        (packet.len(), ends(&packet)),
        (1500, (seen(OUTSIDE_ONE), TWO))
    );
    let fragments = in_fragments6(&udp6(ONE, OUTSIDE_TWO, &[7; 3000]), 5);
    let fates: Vec<_> = fragments.iter().map(|it| nat.send(it)).collect();
    let Some(Fate::Forwarded(pieces)) = fates.last() else {
        panic!("{fates:?}");
    };
    assert!(pieces.len() > 1 && pieces.iter().all(|it| it.len() <= 1280));
}
