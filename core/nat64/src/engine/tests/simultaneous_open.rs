//! PLAT-3.5.2-02, PLAT-3.5.2.2-01: SYNs that nobody expects, probes, and resets that nobody sent.

use super::*;
use crate::{config::UnexpectedSyn, filtering::Filtering, session::State, tcp::TcpState};

const HERE: (Ipv6Addr, u16) = (CLIENT, 40_000);
const THERE: (Ipv4Addr, u16) = (SERVER, 443);
const OUTSIDE: (Ipv4Addr, u16) = (POOL, 40_000);

fn kept() -> Fate {
    Fate::Forwarded(Vec::new())
}

impl Nat {
    fn transmitted(&mut self) -> Vec<Vec<u8>> {
        let mut buf = PacketBuf::new();
        let mut all = Vec::new();
        while self.engine.poll_transmit(&mut buf, self.now) == Transmit::Send {
            assert_eq!(transport_checksum_ok(buf.bytes()), Some(true));
            all.push(buf.bytes().to_vec());
        }
        all
    }

    fn states(&self) -> Vec<State> {
        self.engine.sessions(self.now).map(|it| it.state).collect()
    }
}

#[test]
fn plat_3_5_2_02_a_stored_syn_is_answered_after_six_seconds() {
    let mut nat = Nat::new(config());
    let syn = tcp4(THERE, OUTSIDE, SYN);
    assert_eq!(nat.send(&syn), kept());
    assert_eq!(nat.send(&syn), dropped(DropReason::SynRepeated));
    assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
    let due = nat.engine.poll_timeout().unwrap() - nat.now;
    assert!(due >= Duration::from_secs(6) && due <= Duration::from_secs(8));
    nat.wait(6);
    assert!(nat.transmitted().is_empty());
    nat.wait(1);
    let sent = nat.transmitted();
    let [error] = &sent[..] else {
        panic!("{sent:?}")
    };
    let packet = Ipv4::new_checked(error).unwrap();
    assert_eq!((packet.src(), packet.dst()), (POOL, SERVER));
    assert_eq!(packet.payload()[..2], [3, 3]);
    assert_eq!(packet.payload()[8..], syn);
    assert_eq!(nat.engine.poll_timeout(), None);
    let dropped = &nat.engine.stats().from_v4.dropped_by_state;
    assert_eq!(dropped.get(DropReason::SynUnanswered), 1);
}

#[test]
fn plat_3_5_2_02_the_clients_syn_drops_the_stored_one_and_establishes() {
    let mut nat = Nat::new(config());
    assert_eq!(nat.send(&tcp4(THERE, OUTSIDE, SYN)), kept());
    nat.wait(5);
    nat.send(&tcp6(HERE, THERE, SYN)).packet();
    assert_eq!(nat.states(), [State::Tcp(TcpState::Established)]);
    nat.wait(5);
    assert!(nat.transmitted().is_empty());
    nat.wait(7194);
    // Not one that was asked whether it is still there.
    assert_eq!(nat.states(), [State::Tcp(TcpState::Established)]);
    // Another server's SYN does not do that.
    let mut nat = Nat::new(config());
    assert_eq!(nat.send(&tcp4((SERVER2, 443), OUTSIDE, SYN)), kept());
    nat.send(&tcp6(HERE, THERE, SYN)).packet();
    assert_eq!(nat.states(), [State::Tcp(TcpState::V6Init)]);
    // Nor one that waited too long, whether or not its sender was told yet.
    let mut nat = Nat::new(config());
    assert_eq!(nat.send(&tcp4(THERE, OUTSIDE, SYN)), kept());
    nat.wait(7);
    nat.send(&tcp6(HERE, THERE, SYN)).packet();
    assert_eq!(nat.states(), [State::Tcp(TcpState::V6Init)]);
}

/// With filtering, a binding alone does not let a SYN in (checklist 7a, CLOSED).
#[test]
fn plat_3_5_2_02_filtered_syns_are_stored() {
    let mut config = config();
    config.filtering.tcp = Filtering::AddressDependent;
    let mut nat = Nat::new(config);
    nat.send(&tcp6(HERE, (SERVER2, 80), SYN)).packet();
    assert_eq!(nat.send(&tcp4(THERE, OUTSIDE, SYN)), kept());
    assert_eq!(nat.sessions(), 1);
    nat.send(&tcp6(HERE, THERE, SYN)).packet();
    assert!(nat.states().contains(&State::Tcp(TcpState::Established)));
    nat.send(&tcp4(THERE, OUTSIDE, SYN | ACK)).packet();
}

#[test]
fn plat_3_5_2_02_storing_can_be_switched_off() {
    let mut config = config();
    config.tcp.unexpected_syn = UnexpectedSyn::Drop;
    let mut nat = Nat::new(config);
    assert_eq!(
        nat.send(&tcp4(THERE, OUTSIDE, SYN)),
        dropped(DropReason::NoBinding)
    );
    nat.wait(8);
    assert!(nat.transmitted().is_empty());
}

/// What is no SYN of a connection to come is not stored.
#[test]
fn plat_3_5_2_02_only_syns_to_ports_of_clients_are_stored() {
    let mut config = config();
    config.pool[0].ports = PortRange::new(1024, u16::MAX).unwrap().into();
    let mut nat = Nat::new(config);
    for packet in [
        tcp4(THERE, OUTSIDE, SYN | ACK),
        tcp4(THERE, OUTSIDE, ACK),
        tcp4(THERE, (POOL, 22), SYN),
        udp4(THERE, OUTSIDE, b"x"),
    ] {
        assert_eq!(nat.send(&packet), dropped(DropReason::NoBinding));
    }
}

#[test]
fn plat_5_3_01_the_store_of_syns_is_limited() {
    let mut config = config();
    config.limits.stored_syns = 2;
    let mut nat = Nat::new(config.clone());
    let syn = |server| tcp4((Ipv4Addr::new(8, 8, 8, server), 443), OUTSIDE, SYN);
    assert_eq!([nat.send(&syn(1)), nat.send(&syn(2))], [kept(), kept()]);
    assert_eq!(nat.send(&syn(3)), dropped(DropReason::TooManySyns));
    nat.wait(7);
    assert_eq!(nat.transmitted().len(), 2);
    assert_eq!(nat.send(&syn(3)), kept());
    config.limits.stored_syns = 100;
    config.limits.stored_syn_bytes = 100;
    let mut nat = Nat::new(config);
    assert_eq!([nat.send(&syn(1)), nat.send(&syn(2))], [kept(), kept()]);
    assert_eq!(nat.send(&syn(3)), dropped(DropReason::TooManySyns));
}

/// Whoever sends under one address leaves room for all others.
#[test]
fn plat_5_3_01_one_source_fills_an_eighth_of_the_store_of_syns() {
    let mut config = config();
    config.limits.stored_syns = 80;
    let mut nat = Nat::new(config);
    for port in 1..=100 {
        let fate = nat.send(&tcp4((SERVER, port), OUTSIDE, SYN));
        let full = dropped(DropReason::TooManySyns);
        assert_eq!(fate, if port <= 10 { kept() } else { full });
    }
    assert_eq!(nat.send(&tcp4((SERVER2, 1), OUTSIDE, SYN)), kept());
    // What is answered is forgotten.
    nat.wait(7);
    assert_eq!(nat.transmitted().len(), 11);
    assert_eq!(nat.send(&tcp4((SERVER, 1), OUTSIDE, SYN)), kept());
}

/// A flood of SYNs has no more answers sent than any flood.
#[test]
fn plat_5_3_01_answers_to_stored_syns_count_as_errors() {
    let mut config = config();
    config.errors = xlat::config::ErrorPolicy::Limit {
        per_second: 10,
        burst: 10,
    };
    let mut nat = Nat::new(config);
    for port in 1..=100 {
        assert_eq!(nat.send(&tcp4((SERVER, port), OUTSIDE, SYN)), kept());
    }
    nat.wait(7);
    assert_eq!(nat.transmitted().len(), 10);
    let dropped = &nat.engine.stats().from_v4.dropped_by_state;
    assert_eq!(dropped.get(DropReason::SynUnanswered), 100);
}

fn established(config: Config) -> Nat {
    let mut nat = Nat::new(config);
    nat.send(&tcp6(HERE, THERE, SYN)).packet();
    nat.send(&tcp4(THERE, OUTSIDE, SYN | ACK)).packet();
    nat
}

#[test]
fn plat_3_5_2_2_01_a_silent_client_is_probed() {
    let mut nat = established(config());
    nat.wait(7199);
    assert!(nat.transmitted().is_empty());
    nat.wait(3);
    let sent = nat.transmitted();
    let [probe] = &sent[..] else {
        panic!("{sent:?}")
    };
    let packet = Ipv6::new_checked(probe).unwrap();
    assert_eq!(
        (packet.src(), packet.dst()),
        (prefix().embed(SERVER), CLIENT)
    );
    let wanted = [
        [1, 187],
        [156, 64],
        [0, 0],
        [0, 0],
        [0, 0],
        [0, 0],
        [0x50, ACK],
    ];
    assert_eq!(probe[40..54], wanted.concat());
    assert_eq!(probe.len(), 60);
    assert_eq!(nat.states(), [State::Tcp(TcpState::Trans)]);
    // Its answer brings the session back to life.
    nat.send(&tcp6(HERE, THERE, ACK)).packet();
    nat.wait(7199);
    assert_eq!(nat.states(), [State::Tcp(TcpState::Established)]);
    let mut config = config();
    config.tcp.probe = false;
    let mut nat = established(config);
    nat.wait(7202);
    assert!(nat.transmitted().is_empty());
}

/// A segment with the sequence number that is given.
fn at(packet: &[u8], seq: u32) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let start = if packet[0] >> 4 == 4 { 20 } else { 40 };
    packet[start + 4..start + 8].copy_from_slice(&seq.to_be_bytes());
    packet
}

#[test]
fn plat_3_5_2_2_01_a_reset_from_nowhere_changes_no_state_and_passes() {
    let far = at(&tcp4(THERE, OUTSIDE, RST), 0x4000_0000);
    let mut nat = established(config());
    nat.send(&far).packet();
    assert_eq!(nat.states(), [State::Tcp(TcpState::Established)]);
    assert_eq!(nat.engine.stats().tables.segments_doubted.get(), 1);
    nat.wait(100);
    let before = nat.engine.poll_timeout();
    nat.send(&far).packet();
    nat.send(&at(&tcp4(THERE, OUTSIDE, FIN), 0x4000_0000))
        .packet();
    assert_eq!(nat.engine.poll_timeout(), before, "it refreshes nothing");
    assert_eq!(nat.states(), [State::Tcp(TcpState::Established)]);
    nat.send(&tcp4(THERE, OUTSIDE, RST)).packet();
    assert_eq!(nat.states(), [State::Tcp(TcpState::Trans)]);
    let mut config = config();
    config.tcp.check_sequence = false;
    let mut nat = established(config);
    nat.send(&far).packet();
    assert_eq!(nat.states(), [State::Tcp(TcpState::Trans)]);
}

/// Of a server whose SYN was stored, it is known where its connection is.
#[test]
fn plat_3_5_2_2_01_a_reset_from_nowhere_after_a_simultaneous_open() {
    let mut nat = Nat::new(config());
    let syn = at(&tcp4(THERE, OUTSIDE, SYN), 0x1000_0000);
    assert_eq!(nat.send(&syn), kept());
    nat.send(&tcp6(HERE, THERE, SYN)).packet();
    let reset = |seq| at(&tcp4(THERE, OUTSIDE, RST), seq);
    nat.send(&reset(0x4000_0000)).packet();
    assert_eq!(nat.states(), [State::Tcp(TcpState::Established)]);
    assert_eq!(nat.engine.stats().tables.segments_doubted.get(), 1);
    nat.send(&reset(0x1000_0001)).packet();
    assert_eq!(nat.states(), [State::Tcp(TcpState::Trans)]);
}

#[test]
fn plat_3_5_2_03_the_letter_of_the_rfc_can_be_had() {
    let mut config = config();
    config.tcp.reset_after_fin = false;
    let mut nat = established(config);
    nat.send(&tcp6(HERE, THERE, FIN)).packet();
    nat.send(&tcp4(THERE, OUTSIDE, RST)).packet();
    nat.wait(7199);
    assert_eq!(nat.sessions(), 1);
}

/// Table 7a, rows CLOSED: what is there before, the packet, what becomes of it and what is there
/// then, with its lifetime in seconds (and the one that was running).
#[test]
fn plat_3_5_2_01_what_comes_to_a_closed_connection() {
    let mut rows = Vec::new();
    for (before, strict) in [("free", false), ("bound", false), ("bound+filter", true)] {
        for (side, flags, name) in [
            ("v6", SYN, "SYN"),
            ("v6", ACK, "other"),
            ("v6", RST, "RST"),
            ("v4", SYN, "SYN"),
            ("v4", SYN | ACK, "SYN+ACK"),
            ("v4", ACK, "other"),
            ("v4", FIN, "FIN"),
            ("v4", RST, "RST"),
        ] {
            let mut config = config();
            if strict {
                config.filtering.tcp = Filtering::AddressDependent;
            }
            let mut nat = Nat::new(config);
            if before != "free" {
                nat.send(&tcp6(HERE, (SERVER2, 80), SYN)).packet();
            }
            let packet = match side {
                "v6" => tcp6(HERE, THERE, flags),
                _ => tcp4(THERE, OUTSIDE, flags),
            };
            let fate = match nat.send(&packet) {
                Fate::Forwarded(packets) if packets.is_empty() => "stored",
                Fate::Forwarded(_) => "forwarded",
                _ => "dropped",
            };
            let made = nat.engine.sessions(nat.now);
            let made = made.filter(|it| it.remote.address == SERVER);
            let made: Vec<_> = made
                .map(|it| format!(" {:?} {}", it.state, it.expires_in.as_secs()))
                .collect();
            rows.push(format!("{before} {side} {name}: {fate}{}", made.concat()));
        }
    }
    assert_eq!(rows.join("\n"), include_str!("closed.txt").trim_end());
}
