//! What holds for any traffic.

use std::collections::HashMap;

use super::*;
use crate::{
    bib::Binding,
    journal::{Change, SessionRecord},
};

#[test]
fn everything_is_counted() {
    let mut nat = Nat::new(config());
    nat.udp((CLIENT, 5000), (SERVER, 53));
    nat.send(&udp4((SERVER, 53), (POOL, 1), b"x"));
    nat.send(&V4::new(SERVER, POOL, 47).carrying(&[0; 20]));
    let parts = in_fragments6(&udp6((CLIENT, 1), (SERVER, 53), &[0; 2000]), 1);
    nat.send(&parts[0]);
    nat.wait(400);
    let stats = nat.engine.stats();
    assert_eq!(stats.from_v6.packets_in.get(), 2);
    assert_eq!(
        (stats.from_v6.passed.get(), stats.from_v6.kept.get()),
        (1, 1)
    );
    let timed_out = xlat::DropReason::FragmentTimeout;
    let timeouts = stats.from_v6.dropped_by_translation.get(timed_out);
    assert_eq!(timeouts, 1);
    assert_eq!(stats.from_v4.packets_in.get(), 2);
    assert_eq!(stats.from_v4.dropped_by_state.total(), 2);
    assert_eq!(stats.from_v4.errors_sent.get(), 1);
    let udp = Protocol::Udp.index();
    assert_eq!(stats.tables.sessions_made[udp].get(), 1);
    assert_eq!(stats.tables.sessions_ended[udp].get(), 1);
    assert_eq!(stats.tables.bindings_ended[udp].get(), 1);
    assert_eq!(nat.engine.poll_timeout(), None);
}

/// A slow model of what an outside observer may rely on.
#[derive(Default)]
struct Model {
    /// What each client's port was last seen as.
    seen: HashMap<(Ipv6Addr, u16), (Ipv4Addr, u16)>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// After any history: bindings are bijective, every binding has a session, ports come from the
    /// pool and return to it, and what went in came out or was counted as dropped.
    #[test]
    fn invariants(
        steps in proptest::collection::vec(
            (0u8..8, 0u16..4, 0u16..4, 0u8..3, prop::sample::select(vec![SYN, ACK, FIN, RST]), 0u64..400),
            1..150,
        ),
    ) {
        let mut config = config();
        config.pool[0].ports = PortRange::new(2000, 2009).unwrap().into();
        config.limits.sessions = 20;
        let mut nat = Nat::new(config);
        let mut model = Model::default();
        let mut sent = 0;
        for (what, client, port, server, flags, pause) in steps {
            let from = (Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, client), 2000 + port);
            let to = (Ipv4Addr::new(8, 8, 8, server), 53);
            let pool = (POOL, 2000 + port);
            sent += u64::from(what < 7);
            let fate = match what {
                0 | 1 => nat.send(&udp6(from, to, b"x")),
                2 => nat.send(&tcp6(from, to, flags)),
                3 => nat.send(&echo6(from.0, 128, from.1, to.0)),
                4 => nat.send(&udp4(to, pool, b"x")),
                5 => nat.send(&tcp4(to, pool, flags)),
                6 => nat.send(&echo4(to.0, 0, pool.1, POOL)),
                _ => {
                    nat.wait(pause);
                    model.seen.retain(|_, _| false);
                    continue;
                }
            };
            if let (0 | 1, Fate::Forwarded(packets)) = (what, &fate) {
                let ports = transport::ports(&packets[0][20..]).unwrap();
                let seen = *model.seen.entry(from).or_insert((POOL, ports.0));
                prop_assert_eq!(seen, (POOL, ports.0), "the mapping changed");
            }
            if let Fate::Forwarded(packets) = &fate {
                for packet in packets {
                    prop_assert_eq!(transport_checksum_ok(packet), Some(true));
                }
            }
            let bindings: Vec<_> = nat.engine.bindings().copied().collect();
            let inside: HashSet<_> = bindings.iter().map(|it| (it.protocol, it.inside)).collect();
            let outside: HashSet<_> = bindings.iter().map(|it| (it.protocol, it.outside)).collect();
            prop_assert_eq!(inside.len(), bindings.len());
            prop_assert_eq!(outside.len(), bindings.len());
            prop_assert!(bindings.iter().all(|it| it.sessions > 0));
            prop_assert!(bindings.iter().all(|it| (2000..2010).contains(&it.outside.id)));
            let sessions: u32 = bindings.iter().map(|it| it.sessions).sum();
            prop_assert_eq!(sessions as usize, nat.sessions());
            prop_assert!(nat.sessions() <= 20);
            for protocol in Protocol::ALL {
                let used = bindings.iter().filter(|it| it.protocol == protocol).count();
                prop_assert_eq!(nat.engine.free_ports(protocol), 10 - used);
            }
        }
        let stats = nat.engine.stats();
        let mut accounted = 0;
        for direction in [&stats.from_v6, &stats.from_v4] {
            accounted += direction.passed.get()
                + direction.kept.get()
                + direction.dropped_by_state.total()
                + direction.dropped_by_translation.total();
        }
        prop_assert_eq!(accounted, sent);
        nat.wait(20_000);
        nat.wait(20_000);
        prop_assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
    }

    #[test]
    fn no_bytes_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        shape in 0u8..4,
        number in prop::sample::select(vec![1u8, 6, 17, 44, 58, 60]),
    ) {
        let len = bytes.len() as u16;
        if shape == 1 && bytes.len() >= 40 {
            bytes[0] = 0x60;
            bytes[4..6].copy_from_slice(&(len - 40).to_be_bytes());
            bytes[6..8].copy_from_slice(&[number, 64]);
            bytes[8..24].copy_from_slice(&CLIENT.octets());
            bytes[24..40].copy_from_slice(&prefix().embed(SERVER).octets());
        } else if shape == 2 && bytes.len() >= 20 {
            bytes[0] = 0x45;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            bytes[8..12].copy_from_slice(&[64, number, 0, 0]);
            bytes[12..16].copy_from_slice(&SERVER.octets());
            bytes[16..20].copy_from_slice(&POOL.octets());
            let sum = compose::checksum(&[&bytes[..20]]);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let mut nat = Nat::new(config());
        nat.udp((CLIENT, 5000), (SERVER, 53));
        if !bytes.is_empty() {
            nat.send(&bytes);
        }
    }
}

/// What an outside observer may rely on, by the text of RFC 6146 section 3.5.1 alone.
#[derive(Default)]
struct UdpModel {
    /// Seconds since the start.
    now: u64,
    /// By client and port: its outside, and when each server was last heard of or spoken to.
    bindings: HashMap<(Ipv6Addr, u16), Outside>,
}

struct Outside {
    seen: (Ipv4Addr, u16),
    peers: HashMap<(Ipv4Addr, u16), u64>,
}

impl UdpModel {
    fn pass(&mut self, seconds: u64) {
        self.now += seconds;
        for binding in self.bindings.values_mut() {
            binding.peers.retain(|_, last| self.now - *last <= 300);
        }
        self.bindings.retain(|_, binding| !binding.peers.is_empty());
    }

    fn sends(&mut self, client: (Ipv6Addr, u16), seen: (Ipv4Addr, u16), server: (Ipv4Addr, u16)) {
        let peers = HashMap::new();
        let binding = self
            .bindings
            .entry(client)
            .or_insert(Outside { seen, peers });
        assert_eq!(binding.seen, seen, "the mapping changed while it lived");
        binding.peers.insert(server, self.now);
    }

    /// Which client an outside belongs to.
    fn receives(
        &mut self,
        seen: (Ipv4Addr, u16),
        server: (Ipv4Addr, u16),
    ) -> Option<(Ipv6Addr, u16)> {
        let mut bindings = self.bindings.iter_mut();
        let (client, binding) = bindings.find(|(_, binding)| binding.seen == seen)?;
        binding.peers.insert(server, self.now);
        Some(*client)
    }

    fn sessions(&self) -> usize {
        self.bindings
            .values()
            .map(|binding| binding.peers.len())
            .sum()
    }
}

/// Packets of every kind that pass, or would with a little luck.
fn samples() -> Vec<Vec<u8>> {
    let (client, server, outside) = ((CLIENT, 5000), (SERVER, 53), (POOL, 5000));
    let mut nat = Nat::new(config());
    let sent = nat.send(&udp6(client, server, b"data")).packet();
    let answer = nat.send(&udp4(server, outside, b"answer")).packet();
    let mut samples = vec![
        udp6(client, server, b"data"),
        udp4(server, outside, b"answer"),
        tcp6(client, server, SYN),
        tcp4(server, outside, SYN | ACK),
        tcp6(client, server, FIN),
        tcp4(server, outside, RST),
        echo6(CLIENT, 128, 5000, SERVER),
        echo4(SERVER, 0, 5000, POOL),
        error4(ROUTER4, &sent, 3, 4),
        error4(ROUTER4, &sent, 11, 0),
        error6(ROUTER6, &answer, 2, 0, [0, 0, 5, 0]),
        error6(ROUTER6, &answer, 1, 4, [0; 4]),
    ];
    samples.extend(in_fragments6(&udp6(client, server, &[7; 2000]), 1));
    let mut fragment = V4::new(SERVER, POOL, 17);
    fragment.mf = true;
    samples.push(fragment.carrying(&answer[40..48]));
    samples
}

/// The header checksum of an IPv4 packet made right again, so that what was changed is looked at.
fn repair(packet: &mut [u8]) {
    if packet.len() < 20 || packet[0] >> 4 != 4 {
        return;
    }
    let header = packet.len().min(usize::from(packet[0] & 0xf) * 4).max(20);
    packet[10..12].fill(0);
    let sum = compose::checksum(&[&packet[..header]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn any_offload() -> impl Strategy<Value = Offload> {
    use core::num::NonZeroU16;
    use wire::offload::{ChecksumState, Gso, GsoKind};

    let checksum = prop_oneof![
        3 => Just(ChecksumState::Complete),
        1 => Just(ChecksumState::Verified),
        1 => (0u16..100, 0u16..40).prop_map(|(start, field)| ChecksumState::Partial { start, field }),
    ];
    let kind = prop::sample::select(vec![
        GsoKind::TcpV4 { ecn: false },
        GsoKind::TcpV6 { ecn: true },
        GsoKind::Udp,
    ]);
    let gso = (kind, 1u16..2000, 0u16..100).prop_map(|(kind, size, header_len)| Gso {
        kind,
        size: NonZeroU16::new(size).unwrap(),
        header_len,
    });
    let gso = prop_oneof![3 => Just(None), 1 => gso.prop_map(Some)];
    (checksum, gso).prop_map(|(checksum, gso)| Offload {
        checksum,
        gso,
        reassembled: false,
    })
}

/// What came in either went on or was counted as dropped.
fn assert_accounted(nat: &Nat) {
    let stats = nat.engine.stats();
    for direction in [&stats.from_v6, &stats.from_v4] {
        let given_up = xlat::DropReason::OF_DATAGRAMS;
        let given_up = given_up.map(|it| direction.dropped_by_translation.get(it));
        let dropped = direction.dropped_by_state.total() + direction.dropped_by_translation.total()
            - given_up.iter().sum::<u64>();
        let went_on = direction.passed.get() + direction.kept.get();
        assert_eq!(direction.packets_in.get(), went_on + dropped);
        assert!(direction.errors_sent.get() <= dropped);
    }
    let made = |counters: &[std::sync::Arc<wire::counters::Counter>; 3]| -> u64 {
        counters.iter().map(|counter| counter.get()).sum()
    };
    let tables = &stats.tables;
    let sessions = made(&tables.sessions_made) - made(&tables.sessions_ended);
    let bindings = made(&tables.bindings_made) - made(&tables.bindings_ended);
    assert_eq!(
        (bindings, sessions),
        (nat.bindings() as u64, nat.sessions() as u64)
    );
}

/// A copy of the tables that knows only what the journal tells.
#[derive(Default)]
pub(super) struct Copy {
    bindings: HashMap<(Protocol, Endpoint4), Binding>,
    sessions: HashMap<(Protocol, Endpoint4, Endpoint4), SessionRecord>,
    refused: u64,
    lost: u64,
}

impl Copy {
    fn key(session: &SessionRecord) -> (Protocol, Endpoint4, Endpoint4) {
        (session.state.protocol(), session.outside, session.remote)
    }

    fn binding(binding: &Binding) -> ((Protocol, Endpoint4), Binding) {
        // The number of sessions is the copy's own to count.
        let bare = Binding {
            sessions: 0,
            ..*binding
        };
        ((binding.protocol, binding.outside), bare)
    }

    fn follow(&mut self, change: Change) {
        match change {
            Change::BindingMade(binding) => {
                let (key, binding) = Self::binding(&binding);
                assert_eq!(self.bindings.insert(key, binding), None);
            }
            Change::BindingChanged(binding) => {
                let (key, binding) = Self::binding(&binding);
                assert!(self.bindings.insert(key, binding).is_some());
            }
            Change::BindingEnded(binding) => {
                let (key, binding) = Self::binding(&binding);
                assert_eq!(self.bindings.remove(&key), Some(binding));
                let mut left = self.sessions.keys();
                assert!(!left.any(|it| (it.0, it.1) == key));
            }
            Change::SessionMade(session) => {
                let (protocol, outside, remote) = Self::key(&session);
                assert!(self.bindings.contains_key(&(protocol, outside)));
                let known = self.sessions.insert((protocol, outside, remote), session);
                assert_eq!(known, None);
            }
            Change::SessionChanged(session) => {
                assert!(self.sessions.insert(Self::key(&session), session).is_some());
            }
            Change::SessionEnded(session, _) => {
                assert!(self.sessions.remove(&Self::key(&session)).is_some());
            }
            Change::BlockTaken(_) | Change::BlockGiven(_) => panic!("there are no blocks"),
            Change::Refused(refusal) => {
                assert!(refusal.why.is_shortage());
                assert!(refusal.inside.is_some() != refusal.outside.is_some());
                self.refused += 1;
            }
            Change::Lost(count) => self.lost += count,
        }
    }
}

/// What the tables hold is what the journal told.
pub(super) fn assert_copied(nat: &mut Nat, copy: &mut Copy) {
    nat.engine.drain_changes(|change| copy.follow(change));
    let bindings: HashMap<_, _> = nat.engine.bindings().map(Copy::binding).collect();
    assert_eq!(copy.bindings, bindings);
    let sessions: HashMap<_, _> = nat
        .engine
        .session_records()
        .map(|session| (Copy::key(&session), session))
        .collect();
    assert_eq!(copy.sessions.len(), sessions.len());
    for (key, told) in &copy.sessions {
        let mut known = sessions[key];
        assert!(told.expires <= known.expires, "{told:?} {known:?}");
        assert!(told.expires > nat.now, "{told:?} was to be over");
        known.expires = told.expires;
        assert_eq!(*told, known);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// UDP through the engine is UDP through the model.
    #[test]
    fn plat_3_5_1_01_udp_equals_a_slow_model(
        steps in proptest::collection::vec((0u8..5, 0u16..3, 0u16..3, 0u8..3, 0u64..8), 1..200),
    ) {
        let mut config = config();
        config.pool[0].ports = PortRange::new(2000, 2020).unwrap().into();
        let mut nat = Nat::new(config);
        let mut model = UdpModel::default();
        for (what, client, port, server, tens) in steps {
            let client = (Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, client), 2000 + port);
            let server = (Ipv4Addr::new(8, 8, 8, server), 53);
            match what {
                0 | 1 => {
                    let seen = nat.udp(client, server);
                    model.sends(client, seen, server);
                }
                2 | 3 => {
                    let outside = (POOL, 2000 + port * 7 % 21);
                    let fate = nat.send(&udp4(server, outside, b"x"));
                    match model.receives(outside, server) {
                        Some(client) => {
                            let packet = fate.packet();
                            let header = Ipv6::new_checked(&packet).unwrap();
                            prop_assert_eq!(header.dst(), client.0);
                            let ports = transport::ports(header.payload());
                            prop_assert_eq!(ports, Some((server.1, client.1)));
                        }
                        None => prop_assert_eq!(fate, dropped(DropReason::NoBinding)),
                    }
                }
                // Whole tens of seconds, since the engine's grain is one. Nobody tells it but the
                // next packet.
                _ => {
                    nat.sleep(tens * 50);
                    model.pass(tens * 50);
                    continue;
                }
            }
            prop_assert_eq!(nat.bindings(), model.bindings.len());
            prop_assert_eq!(nat.sessions(), model.sessions());
        }
    }

    /// Valid packets with a few bytes changed, cut or longer than they say, with whatever the
    /// virtio-net header may claim, in any order: no panic, and everything is accounted for.
    #[test]
    fn broken_packets_do_no_harm(
        steps in proptest::collection::vec(
            (
                any::<prop::sample::Index>(),
                proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
                prop_oneof![4 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)],
                any_offload(),
                0u64..100,
            ),
            1..40,
        ),
    ) {
        let samples = samples();
        let mut config = config();
        config.limits.sessions = 8;
        config.limits.fragments.datagrams = 3;
        let mut nat = Nat::new(config);
        for (sample, changes, cut, offload, pause) in steps {
            let mut packet = samples[sample.index(samples.len())].clone();
            for (at, byte) in changes {
                // Mostly in the headers.
                let at = at.index(packet.len().min(80));
                packet[at] = byte;
            }
            repair(&mut packet);
            if let Some(cut) = cut {
                packet.truncate(cut.index(packet.len()).max(1));
            }
            nat.sleep(pause);
            nat.send_as(&packet, offload);
            prop_assert!(nat.sessions() <= 8);
            assert_accounted(&nat);
        }
        nat.wait(20_000);
        nat.wait(20_000);
        prop_assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
    }

    /// Whoever follows the journal has the tables: both ends, states, prefixes, and of every
    /// session an expiry that is to come (HA-03).
    #[test]
    fn the_journal_tells_everything(
        steps in proptest::collection::vec(
            (0u8..9, 0u16..4, 0u16..4, 0u8..3, prop::sample::select(vec![SYN, ACK, FIN, RST]), 0u64..400),
            1..200,
        ),
    ) {
        let other = "2001:db8:65::/96".parse::<Pref64>().unwrap();
        let mut config = config();
        config.prefixes.push(other);
        config.pool[0].ports = PortRange::new(2000, 2009).unwrap().into();
        config.limits.sessions = 20;
        let mut nat = Nat::new(config);
        nat.engine.keep_changes(Some(1000));
        let mut copy = Copy::default();
        for (what, client, port, server, flags, pause) in steps {
            let from = (Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, client), 2000 + port);
            let to = (Ipv4Addr::new(8, 8, 8, server), 53);
            let pool = (POOL, 2000 + port);
            match what {
                0 => drop(nat.send(&udp6(from, to, b"x"))),
                1 | 2 => drop(nat.send(&tcp6(from, to, flags))),
                3 => drop(nat.send(&echo6(from.0, 128, from.1, to.0))),
                4 => drop(nat.send(&udp4(to, pool, b"x"))),
                5 => drop(nat.send(&tcp4(to, pool, flags))),
                6 => {
                    let dst = other.embed(to.0);
                    let datagram = compose::udp(Pair::V6(from.0, dst), from.1, to.1, b"x");
                    nat.send(&V6::new(from.0, dst, 17).carrying(&datagram));
                }
                7 => nat.wait(pause * 30),
                _ => nat.wait(pause),
            }
            assert_copied(&mut nat, &mut copy);
        }
        let stats = nat.engine.stats();
        let shortages: u64 = [&stats.from_v6, &stats.from_v4]
            .iter()
            .flat_map(|it| {
                let reasons = [
                    DropReason::PoolExhausted,
                    DropReason::PortsExhausted,
                    DropReason::TooManySessions,
                ];
                reasons.map(|reason| it.dropped_by_state.get(reason))
            })
            .sum();
        prop_assert_eq!(copy.refused, shortages);
        prop_assert_eq!(copy.lost, 0);
    }
}

/// A lifetime that becomes shorter is told, even if nothing else changes with it.
#[test]
fn an_earlier_end_is_told() {
    let mut nat = Nat::new(config());
    nat.engine.keep_changes(Some(100));
    let mut copy = Copy::default();
    let (client, server, outside) = ((CLIENT, 5000), (SERVER, 80), (POOL, 5000));
    nat.send(&tcp6(client, server, SYN)).packet();
    nat.send(&tcp4(server, outside, SYN | ACK)).packet();
    nat.send(&tcp4(server, outside, FIN)).packet();
    assert_copied(&mut nat, &mut copy);
    let end = |copy: &Copy| copy.sessions.values().next().unwrap().expires;
    let before = end(&copy);
    nat.send(&tcp4(server, outside, RST)).packet();
    assert_copied(&mut nat, &mut copy);
    assert!(end(&copy) < before);
}

/// Nothing is kept for nobody, nor more than was allowed; what is missing is said where it is.
#[test]
fn the_journal_is_bounded() {
    let told = |nat: &mut Nat| {
        let mut told = Vec::new();
        nat.engine.drain_changes(|change| told.push(change));
        told
    };
    let mut nat = Nat::new(config());
    nat.udp((CLIENT, 5000), (SERVER, 53));
    assert_eq!(told(&mut nat), []);
    nat.engine.keep_changes(Some(3));
    for port in 5001..5004 {
        nat.udp((CLIENT, port), (SERVER, 53));
    }
    let first = told(&mut nat);
    assert_eq!(first.len(), 4);
    assert_eq!(first[3], Change::Lost(3));
    assert_eq!(nat.engine.stats().tables.changes_lost.get(), 3);
    nat.udp((CLIENT, 6000), (SERVER, 53));
    assert!(matches!(
        told(&mut nat)[..],
        [Change::BindingMade(_), Change::SessionMade(_)]
    ));
    nat.udp((CLIENT, 6001), (SERVER, 53));
    nat.engine.keep_changes(None);
    assert_eq!(told(&mut nat), []);
    // Room that is added behind a gap is for what comes after it was told.
    nat.engine.keep_changes(Some(1));
    nat.udp((CLIENT, 6002), (SERVER, 53));
    nat.engine.keep_changes(Some(9));
    nat.udp((CLIENT, 6003), (SERVER, 53));
    assert!(matches!(
        told(&mut nat)[..],
        [Change::BindingMade(_), Change::Lost(3)]
    ));
}
