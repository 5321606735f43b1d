use super::*;
use core::time::Duration;
use proptest::prelude::*;
use std::collections::HashMap;
use wire::compose::{self, Pair, V4};

const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const SYN: u8 = tcp::SYN;
const ACK: u8 = tcp::ACK;

#[expect(clippy::disallowed_methods, reason = "virtual time needs an origin")]
fn now() -> Instant {
    Instant::now()
}

fn seconds(n: u16) -> Duration {
    Duration::from_secs(n.into())
}

fn prefix(n: u16) -> Pref64 {
    format!("2001:db8:{n:x}::/96").parse().unwrap()
}

fn udp(ports: (u16, u16)) -> Vec<u8> {
    let datagram = compose::udp(Pair::V4(HOST, PEER), ports.0, ports.1, b"payload");
    V4::new(HOST, PEER, protocol::UDP).carrying(&datagram)
}

fn tcp(ports: (u16, u16), flags: u8) -> Vec<u8> {
    let segment = compose::tcp(Pair::V4(HOST, PEER), ports, flags, &[], b"payload");
    V4::new(HOST, PEER, protocol::TCP).carrying(&segment)
}

fn echo(kind: u8, id: u16) -> Vec<u8> {
    let [i0, i1] = id.to_be_bytes();
    let message = compose::icmp4(kind, 0, [i0, i1, 0, 1], b"payload");
    V4::new(HOST, PEER, protocol::ICMP).carrying(&message)
}

/// Flows that began under prefix 1 and see prefix 2 come.
struct Changed {
    flows: Flows,
    at: Instant,
}

impl Changed {
    fn after(before: &[Vec<u8>]) -> Self {
        let at = now();
        let mut flows = Flows::new(prefix(1), &[], 7);
        for packet in before {
            assert_eq!(flows.prefix_of(packet, at), prefix(1));
        }
        flows.set_prefixes(prefix(2), &[prefix(1)]);
        Self { flows, at }
    }

    /// The number of the prefix that a packet goes by.
    fn goes_by(&mut self, packet: &[u8]) -> u16 {
        let prefix = self.flows.prefix_of(packet, self.at);
        prefix.address().segments()[2]
    }
}

#[test]
fn old_flows_stay_and_new_flows_move() {
    let mut changed = Changed::after(&[
        udp((40000, 53)),
        tcp((40000, 80), SYN),
        tcp((40000, 80), ACK),
        echo(8, 77),
    ]);
    for _ in 0..2 {
        assert_eq!(changed.goes_by(&udp((40000, 53))), 1);
        assert_eq!(changed.goes_by(&tcp((40000, 80), ACK)), 1);
        assert_eq!(changed.goes_by(&echo(8, 77)), 1);
        // Everything that tells flows apart.
        assert_eq!(changed.goes_by(&udp((40001, 53))), 2);
        assert_eq!(changed.goes_by(&udp((40000, 54))), 2);
        assert_eq!(changed.goes_by(&udp((40000, 80))), 2);
        assert_eq!(changed.goes_by(&tcp((40001, 80), ACK)), 2);
        assert_eq!(changed.goes_by(&echo(8, 78)), 2);
        let elsewhere = compose::udp(Pair::V4(HOST, HOST), 40000, 53, b"payload");
        let elsewhere = V4::new(HOST, HOST, protocol::UDP).carrying(&elsewhere);
        assert_eq!(changed.goes_by(&elsewhere), 2);
    }
}

/// The port is used again: the PLAT knows the old connection as closed.
#[test]
fn a_new_connection_between_the_same_ports_is_a_new_flow() {
    let mut changed = Changed::after(&[tcp((40000, 80), SYN), tcp((40000, 80), ACK)]);
    assert_eq!(changed.goes_by(&tcp((40000, 80), ACK)), 1);
    // The answer to a connection from outside opens nothing of ours.
    assert_eq!(changed.goes_by(&tcp((40000, 80), SYN | ACK)), 1);
    assert_eq!(changed.goes_by(&tcp((40000, 80), SYN)), 2);
    assert_eq!(changed.goes_by(&tcp((40000, 80), ACK)), 2);
}

#[test]
fn flows_go_when_their_prefix_goes() {
    let mut changed = Changed::after(&[udp((40000, 53))]);
    assert_eq!(changed.goes_by(&udp((40000, 53))), 1);
    changed.flows.set_prefixes(prefix(2), &[]);
    assert_eq!(changed.goes_by(&udp((40000, 53))), 2);
    // If it returns, it is another one: its PLAT may have started anew.
    changed.flows.set_prefixes(prefix(2), &[prefix(1)]);
    assert_eq!(changed.goes_by(&udp((40000, 53))), 2);
}

#[test]
fn a_flow_stays_although_the_preference_changes_to_and_fro() {
    let mut changed = Changed::after(&[udp((1, 1))]);
    assert_eq!(changed.goes_by(&udp((2, 2))), 2);
    changed.flows.set_prefixes(prefix(1), &[prefix(2)]);
    changed
        .flows
        .set_prefixes(prefix(3), &[prefix(1), prefix(2)]);
    assert_eq!(changed.goes_by(&udp((1, 1))), 1);
    assert_eq!(changed.goes_by(&udp((2, 2))), 2);
    assert_eq!(changed.goes_by(&udp((3, 3))), 3);
    // More than that are not kept.
    let older = [5, 6, 7, 1].map(prefix);
    changed.flows.set_prefixes(prefix(4), &older);
    assert_eq!(changed.goes_by(&udp((1, 1))), 4);
}

#[test]
fn a_flow_that_was_silent_for_long_is_a_new_one() {
    for (packet, lifetime) in [
        (udp((40000, 53)), OTHER_LIFETIME),
        (tcp((40000, 80), ACK), TCP_LIFETIME),
    ] {
        let mut changed = Changed::after(std::slice::from_ref(&packet));
        changed.at += seconds(lifetime);
        assert_eq!(changed.goes_by(&packet), 1);
        // Being seen kept it alive.
        changed.at += seconds(lifetime);
        assert_eq!(changed.goes_by(&packet), 1);
        changed.at += seconds(lifetime) + seconds(1);
        assert_eq!(changed.goes_by(&packet), 2);
        assert_eq!(changed.goes_by(&packet), 2);
    }
}

/// Only the first fragment shows the ports; the PLAT needs all of them by one prefix.
#[test]
fn the_fragments_of_a_datagram_stay_together() {
    let fragments = |port: u16, id: u16| {
        let datagram = compose::udp(Pair::V4(HOST, PEER), port, 53, &[7; 2000]);
        let (first, rest) = datagram.split_at(1480);
        let mut header = V4::new(HOST, PEER, protocol::UDP);
        (header.id, header.mf) = (id, true);
        let first = header.carrying(first);
        (header.offset, header.mf) = (185, false);
        (first, header.carrying(rest))
    };
    let mut changed = Changed::after(&[udp((40000, 53))]);
    // Alternating, and with an Identification that was used before.
    for (port, by) in [(40000, 1), (40001, 2), (40000, 1)] {
        let (first, rest) = fragments(port, 99);
        assert_eq!(changed.goes_by(&first), by);
        assert_eq!(changed.goes_by(&rest), by);
        assert_eq!(changed.goes_by(&rest), by);
    }
    // One that nobody announced belongs to nothing that is known.
    let (_, rest) = fragments(40000, 100);
    assert_eq!(changed.goes_by(&rest), 2);
    // In the time of one prefix they are noted, too.
    let (first, rest) = fragments(40000, 7);
    let mut changed = Changed::after(&[first]);
    assert_eq!(changed.goes_by(&rest), 1);
}

/// The PLAT looks for the flow in the quoted packet, among its own.
#[test]
fn an_error_goes_back_to_where_the_packet_came_from() {
    let error = |quoted: &[u8]| {
        let message = compose::icmp4(3, 3, [0; 4], quoted);
        V4::new(HOST, PEER, protocol::ICMP).carrying(&message)
    };
    let received = |ours: u16, theirs: u16| {
        let datagram = compose::udp(Pair::V4(PEER, HOST), theirs, ours, b"payload");
        V4::new(PEER, HOST, protocol::UDP).carrying(&datagram)
    };
    let mut changed = Changed::after(&[udp((40000, 53)), echo(8, 77)]);
    assert_eq!(changed.goes_by(&error(&received(40000, 53))), 1);
    assert_eq!(changed.goes_by(&error(&received(53, 40000))), 2);
    let message = compose::icmp4(0, 0, [0, 77, 0, 1], b"payload");
    let reply = V4::new(PEER, HOST, protocol::ICMP).carrying(&message);
    assert_eq!(changed.goes_by(&error(&reply)), 1);
    // It says nothing about the flow being alive, or existing.
    changed.at += seconds(OTHER_LIFETIME) + seconds(1);
    assert_eq!(changed.goes_by(&error(&received(40000, 53))), 2);
}

#[test]
fn protocols_without_ports_are_one_flow_per_peer() {
    let esp = V4::new(HOST, PEER, protocol::ESP).carrying(&[1, 2, 3, 4, 0, 0, 0, 1]);
    let other = V4::new(HOST, PEER, protocol::ESP).carrying(&[9; 8]);
    let mut changed = Changed::after(&[esp]);
    assert_eq!(changed.goes_by(&other), 1);
    assert_eq!(
        changed.goes_by(&V4::new(HOST, PEER, 47).carrying(&[9; 8])),
        2
    );
}

/// Ten thousand flows at once, as of a busy host: hardly any is forgotten.
#[test]
fn flows_do_not_push_each_other_out() {
    let packets: Vec<_> = (0..10_000).map(|n| udp((1024 + n, 53))).collect();
    let mut changed = Changed::after(&packets);
    let kept = packets.iter().filter(|it| changed.goes_by(it) == 1).count();
    assert!(kept > 9_900, "{kept}");
}

/// However many come: the table stays as large as it is, and those that are in use are in it.
#[test]
fn the_idlest_flow_gives_way() {
    let start = now();
    let later = start + seconds(1);
    let mut flows = Flows::new(prefix(1), &[], 7);
    let flood = |flows: &mut Flows, count: u16, port: u16, at| {
        for n in 0..count {
            let _ = flows.prefix_of(&udp((n, port)), at);
        }
    };
    let in_use = udp((40000, 53));
    let _ = flows.prefix_of(&in_use, start);
    for port in 0..3 {
        flood(&mut flows, u16::MAX, port, start);
        let _ = flows.prefix_of(&in_use, later);
    }
    flood(&mut flows, 10_000, 9, later);
    flows.set_prefixes(prefix(2), &[prefix(1)]);
    assert_eq!(flows.prefix_of(&in_use, later), prefix(1));
    assert_eq!(flows.sets.len() * WAYS, 65_536);
}

/// Otherwise a peer could choose which flows forget each other.
#[test]
fn the_place_of_a_flow_depends_on_the_key() {
    let place = |key| {
        let flow = Flow::between(protocol::UDP, PEER, (40000, 53));
        Flows::new(prefix(1), &[], key).place(&flow)
    };
    assert_eq!(place(1), place(1));
    let places: std::collections::HashSet<_> = (0..100).map(|key| place(key).0).collect();
    assert!(places.len() > 90, "{}", places.len());
}

#[test]
fn numbers_are_not_given_twice() {
    let mut flows = Flows::new(prefix(1), &[], 7);
    flows.last_number = u16::MAX - 1;
    flows.set_prefixes(prefix(2), &[prefix(1)]);
    // Over the end: not 0, which is nobody's, and not 1, which is taken.
    flows.set_prefixes(prefix(3), &[prefix(1), prefix(2)]);
    let numbers: Vec<_> = flows.live.iter().map(|it| it.number).collect();
    assert_eq!(numbers, [2, 1, u16::MAX]);
}

proptest! {
    /// Against a map without limits: whatever happens, a packet goes by a prefix that holds; by that
    /// of its flow as long as the flow is known, and by the preferred one otherwise.
    #[test]
    fn flows_are_as_a_map_would_have_them(
        steps in proptest::collection::vec(
            prop_oneof![
                8 => (0u16..6, any::<bool>()).prop_map(|(port, syn)| (0, port, u16::from(syn))),
                1 => (1u16..6, 1u16..6).prop_map(|(preferred, other)| (1, preferred, other)),
                1 => (0u16..400).prop_map(|time| (2, time, 0)),
            ],
            1..80,
        ),
        key in any::<u64>(),
    ) {
        let mut at = now();
        let mut flows = Flows::new(prefix(1), &[], key);
        let mut live = vec![1];
        let mut model: HashMap<u16, (u16, Instant)> = HashMap::new();
        for (what, one, other) in steps {
            match what {
                0 => {
                    let packet = match one % 2 {
                        0 => udp((one, 53)),
                        _ => tcp((one, 80), if other == 1 { SYN } else { ACK }),
                    };
                    let (lifetime, opens) = match one % 2 {
                        0 => (OTHER_LIFETIME, false),
                        _ => (TCP_LIFETIME, other == 1),
                    };
                    let known = model.get(&one).filter(|(by, seen)| {
                        !opens && live.contains(by) && at.duration_since(*seen) <= seconds(lifetime)
                    });
                    let expected = known.map_or(live[0], |(by, _)| *by);
                    model.insert(one, (expected, at));
                    prop_assert_eq!(flows.prefix_of(&packet, at), prefix(expected));
                }
                1 => {
                    // What goes is forgotten for good.
                    let retained: Vec<_> = live.iter().copied().filter(|it| *it != other).collect();
                    let mut now_live = vec![one];
                    now_live.extend(retained.iter().filter(|it| **it != one).take(MAX_RETAINED));
                    model.retain(|_, (by, _)| now_live.contains(by));
                    let retained: Vec<_> = retained.iter().map(|it| prefix(*it)).collect();
                    flows.set_prefixes(prefix(one), &retained);
                    live = now_live;
                }
                _ => at += seconds(one),
            }
        }
    }

    #[test]
    fn any_bytes_go_by_the_preferred_prefix_or_a_retained_one(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..80),
        shaped in any::<bool>(),
        protocol in prop::sample::select(vec![1u8, 6, 17, 47]),
    ) {
        if shaped && bytes.len() >= 20 {
            bytes[0] = 0x45;
            bytes[9] = protocol;
        }
        let mut flows = Flows::new(prefix(2), &[prefix(1)], 7);
        prop_assert_eq!(flows.prefix_of(&bytes, now()), prefix(2));
    }
}
