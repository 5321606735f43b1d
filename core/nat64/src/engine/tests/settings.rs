//! PLAT-R-01: whatever is set anew holds from the next packet on; and what one packet less or one
//! second more would change.

use super::properties::{Copy, assert_copied};
use super::*;
use crate::{
    config::UnexpectedSyn,
    journal::Change,
    stateless::is_icmp_fragment_v4,
    subscriber::{Quota, Quotas},
};
use pref64::eam::{Eam, EamTable};

/// A NAT64 that was another one a moment ago.
fn changed(change: impl Fn(&mut Config)) -> Nat {
    let mut nat = Nat::new(config());
    let mut config = config();
    change(&mut config);
    nat.engine.reconfigure(config).unwrap();
    nat
}

/// How many of ten clients' packets get through.
fn served(nat: &mut Nat) -> usize {
    let fates = (1..=10).map(|n| nat.send(&udp6((CLIENT, n), (SERVER, 53), b"x")));
    fates.filter(|it| matches!(it, Fate::Forwarded(_))).count()
}

#[test]
fn plat_r_01_new_limits_hold_at_once() {
    assert_eq!(served(&mut changed(|it| it.limits.bindings = 3)), 3);
    assert_eq!(served(&mut changed(|it| it.limits.sessions = 4)), 4);
    let quota = Quota {
        bindings: 5,
        ..Quota::UNLIMITED
    };
    assert_eq!(served(&mut changed(|it| it.quotas.address = quota)), 5);
    let mut nat = changed(|it| it.limits.stored_syns = 2);
    let server = |n| Ipv4Addr::new(8, 8, 8, n);
    let syns = (1..=5).map(|n| nat.send(&tcp4((server(n), 1), (POOL, 80), SYN)));
    assert_eq!(
        syns.filter(|it| matches!(it, Fate::Forwarded(_))).count(),
        2
    );
}

#[test]
fn plat_r_01_new_policies_hold_at_once() {
    let syn = tcp4((SERVER, 443), (POOL, 80), SYN);
    let mut nat = changed(|it| it.tcp.unexpected_syn = UnexpectedSyn::Drop);
    assert_eq!(nat.send(&syn), dropped(DropReason::NoBinding));
    let mut nat = changed(|it| it.filtering.answer = true);
    let (_, kind, code) = nat.send(&udp4((SERVER, 53), (POOL, 80), b"x")).reply();
    assert_eq!((kind, code), (3, 3));
    let mut nat = changed(|it| it.tcp.check_sequence = false);
    nat.send(&tcp6((CLIENT, 80), (SERVER, 443), SYN)).packet();
    nat.send(&tcp4((SERVER, 443), (POOL, 80), SYN | ACK))
        .packet();
    let mut far = tcp4((SERVER, 443), (POOL, 80), RST);
    far[24] = 0x40;
    nat.send(&far);
    assert_eq!(nat.engine.stats().tables.segments_doubted.get(), 0);
    // A mapping, and a network whose hosts are to be reached.
    let eam = Eam::parse("192.88.1.7", "2001:db8:aaaa::7").unwrap();
    let mut nat = changed(|it| it.eam = EamTable::new(vec![eam]).unwrap());
    nat.send(&udp4(
        (SERVER, 53),
        ("192.88.1.7".parse().unwrap(), 9),
        b"x",
    ))
    .packet();
    let mut nat = changed(|it| it.allow_destinations = vec!["10.0.0.0/8".parse().unwrap()]);
    nat.udp((CLIENT, 1), ("10.0.0.1".parse().unwrap(), 53));
    let mut nat = changed(|it| it.own_addresses = vec![SERVER]);
    let (why, ..) = nat.send(&udp6((CLIENT, 1), (SERVER, 53), b"x")).reply();
    assert_eq!(why, Why::State(DropReason::DestinationRefused));
}

#[test]
fn plat_r_01_new_timers_hold_at_once() {
    let mut nat = changed(|it| it.timers.fragment = Duration::from_secs(2));
    let packet = udp6((CLIENT, 5000), (SERVER, 53), &[0; 2000]);
    let parts = in_fragments6(&packet, 1);
    assert_eq!(nat.send(&parts[0]), Fate::Forwarded(vec![]));
    nat.wait(3);
    assert_eq!(nat.engine.fragments_v6.datagrams(), 0);
    // Ports rest for as long as is said now.
    let one_port = |it: &mut Config| {
        it.pool[0].ports = PortRange::new(2000, 2000).unwrap().into();
        it.timers.hold_down = Duration::from_secs(100);
    };
    let mut nat = Nat::new(config());
    let mut config = config();
    one_port(&mut config);
    config.timers.hold_down = Duration::from_secs(10);
    nat.engine.reconfigure(config.clone()).unwrap();
    one_port(&mut config);
    nat.engine.reconfigure(config).unwrap();
    nat.udp((CLIENT, 1), (SERVER, 53));
    nat.wait(301);
    assert_eq!(nat.bindings(), 0);
    // All of the time: the second that runs when it begins does not count.
    for pause in [0, 99, 1] {
        nat.wait(pause);
        let packet = udp6((OTHER, 1), (SERVER, 53), b"x");
        assert!(matches!(nat.send(&packet), Fate::Replied(..)), "{pause}");
    }
    nat.wait(1);
    nat.udp((OTHER, 1), (SERVER, 53));
}

/// Errors of our own come from the address, and packets have the size, that are set now.
#[test]
fn plat_r_01_new_addresses_and_sizes_hold_at_once() {
    let large = udp6((CLIENT, 1), (SERVER, 53), &[0; 1300]);
    let mut nat = changed(|it| it.ipv4_mtu = 1300);
    let (_, kind, _) = nat.send(&large).reply();
    assert_eq!(kind, 2);
    // Between clients, one that is large passes.
    nat.udp((OTHER, 9), (SERVER, 53));
    let packet = udp6((CLIENT, 1), (POOL, 9), &[0; 1300]);
    assert_eq!(nat.send(&packet).packet().len(), 1348);
    // And is not larger than the client's link by what was set before.
    let mut nat = changed(|it| (it.ipv4_mtu, it.ipv6_mtu) = (1400, 9000));
    nat.udp((OTHER, 9), (SERVER, 53));
    let packet = udp6((CLIENT, 1), (POOL, 9), &[0; 8000]);
    assert_eq!(nat.send(&packet).packet().len(), 8048);

    let well_known = Pref64::WELL_KNOWN;
    let own: Ipv6Addr = "2001:db8:1:1::99".parse().unwrap();
    let mut nat = Nat::new(Config::new(well_known, &[POOL], OWN6));
    let mut config = Config::new(well_known, &[POOL], own);
    nat.engine.reconfigure(config.clone()).unwrap();
    let dst = well_known.embed(SERVER);
    let datagram = compose::udp(Pair::V6(CLIENT, dst), 5000, 53, b"x");
    let sent = V6::new(CLIENT, dst, 17).carrying(&datagram);
    let sent = nat.send(&sent).packet();
    let router = "10.0.0.1".parse().unwrap();
    let from = |packet: Vec<u8>| Ipv6::new_checked(&packet).unwrap().src();
    assert_eq!(from(nat.send(&error4(router, &sent, 3, 1)).packet()), own);
    config.wkp_non_global = NonGlobal::Translate;
    nat.engine.reconfigure(config).unwrap();
    let told = nat.send(&error4(router, &sent, 3, 1)).packet();
    assert_eq!(from(told), well_known.embed(router));
}

/// Whoever keeps a copy of the tables follows a new configuration, too.
#[test]
fn plat_r_01_the_journal_tells_what_a_new_configuration_changes() {
    let other: Pref64 = "2001:db8:65::/96".parse().unwrap();
    let mut before = config();
    before.prefixes.push(other);
    let mut nat = Nat::new(before.clone());
    nat.engine.keep_changes(Some(1000));
    let mut copy = Copy::default();
    for (port, prefix) in [(1, prefix()), (2, other)] {
        let dst = prefix.embed(SERVER);
        let datagram = compose::udp(Pair::V6(CLIENT, dst), port, 53, b"x");
        nat.send(&V6::new(CLIENT, dst, 17).carrying(&datagram))
            .packet();
    }
    assert_copied(&mut nat, &mut copy);
    before.prefixes.reverse();
    nat.engine.reconfigure(before.clone()).unwrap();
    assert_copied(&mut nat, &mut copy);
    // Each is answered under the prefix that it knows.
    for (port, prefix) in [(1, prefix()), (2, other)] {
        let answer = nat.send(&udp4((SERVER, 53), (POOL, port), b"x")).packet();
        let from = Ipv6::new_checked(&answer).unwrap().src();
        assert_eq!(from, prefix.embed(SERVER));
    }
    before.prefixes.pop();
    nat.engine.reconfigure(before).unwrap();
    assert_copied(&mut nat, &mut copy);
    assert_eq!(nat.sessions(), 1);
}

/// A port that rests is not free in another pool either.
#[test]
fn natb_6888_03_ports_rest_on_in_another_pool() {
    let mut config = config();
    config.timers.hold_down = Duration::from_secs(120);
    config.pool[0].ports = PortRange::new(2000, 2000).unwrap().into();
    let mut nat = Nat::new(config.clone());
    nat.udp((CLIENT, 2000), (SERVER, 53));
    nat.wait(302);
    config.pool[0].ports = PortRange::new(2000, 2001).unwrap().into();
    nat.engine.reconfigure(config).unwrap();
    assert_eq!(nat.engine.free_ports(Protocol::Udp), 1);
    assert_eq!(nat.udp((OTHER, 2000), (SERVER, 53)).1, 2001);
}

/// A part of a second counts as one.
#[test]
fn plat_3_5_1_01_a_lifetime_is_never_cut_short() {
    let mut config = config();
    config.timers.udp = Duration::from_millis(120_001);
    let mut nat = Nat::new(config);
    nat.udp((CLIENT, 1), (SERVER, 53));
    nat.wait(121);
    assert_eq!(nat.sessions(), 1);
    nat.wait(1);
    assert_eq!(nat.sessions(), 0);
}

/// The client that speaks before its session had its turn to end begins a new one.
#[test]
fn plat_5_3_01_a_client_does_not_bring_back_what_is_over() {
    let mut nat = Nat::new(config());
    for port in 0..1000 {
        nat.udp((CLIENT, 10_000 + port), (SERVER, 53));
    }
    nat.sleep(301);
    for port in [0, 500, 999] {
        nat.udp((CLIENT, 10_000 + port), (SERVER, 53));
    }
    let made = nat.engine.stats().tables.sessions_made[1].get();
    assert_eq!(made, 1003);
}

/// What servers open is of no client's bindings, nor of those that it may begin in a second.
#[test]
fn natb_6888_01_what_servers_begin_is_none_of_the_clients_doing() {
    let quota = Quota {
        bindings: 1,
        new_per_second: 2,
        burst: 2,
        ..Quota::UNLIMITED
    };
    let mut config = config();
    config.quotas = Quotas {
        address: quota,
        ..Quotas::unlimited()
    };
    let mut nat = Nat::new(config);
    let seen = nat.udp((CLIENT, 1), (SERVER, 1));
    for port in 10..20 {
        nat.send(&udp4((SERVER, port), seen, b"x")).packet();
    }
    nat.udp((CLIENT, 1), (SERVER, 2));
    let packet = udp6((CLIENT, 1), (SERVER, 3), b"x");
    assert_eq!(
        nat.send(&packet).reply().0,
        Why::State(DropReason::AddressRate)
    );
    nat.wait(1);
    nat.send(&packet).packet();
}

/// The number of the first SYN is remembered: a reset from elsewhere is not believed right after it.
#[test]
fn plat_3_5_2_2_01_a_reset_as_if_from_the_client_is_doubted() {
    let mut nat = Nat::new(config());
    let (client, server) = ((CLIENT, 80), (SERVER, 443));
    nat.send(&tcp6(client, server, SYN)).packet();
    nat.send(&tcp4(server, (POOL, 80), SYN | ACK)).packet();
    let mut far = tcp6(client, server, RST);
    far[44] = 0x40;
    nat.send(&far);
    assert_eq!(nat.engine.stats().tables.segments_doubted.get(), 1);
    // One that the client did not answer yet, too.
    let mut far = tcp6((CLIENT, 81), server, RST);
    nat.send(&tcp4((SERVER2, 1), (POOL, 80), SYN)).packet();
    far[44] = 0x40;
    nat.send(&far);
    assert_eq!(nat.engine.stats().tables.segments_doubted.get(), 1);
}

/// Nobody is told of every packet, but of everything that changes.
#[test]
fn the_journal_tells_of_no_packet_that_only_refreshes() {
    let mut nat = Nat::new(config());
    nat.send(&tcp6((CLIENT, 80), (SERVER, 443), SYN)).packet();
    nat.send(&tcp4((SERVER, 443), (POOL, 80), SYN | ACK))
        .packet();
    // The lifetime that it was made with passes.
    nat.wait(300);
    nat.engine.keep_changes(Some(100));
    for _ in 0..10 {
        nat.send(&tcp6((CLIENT, 80), (SERVER, 443), ACK)).packet();
        nat.wait(100);
    }
    let told = |nat: &mut Nat| {
        let mut told = Vec::new();
        nat.engine.drain_changes(|it| told.push(it));
        told
    };
    assert_eq!(told(&mut nat), []);
    // Two idle hours: a later end than was known, and then that it is asked about.
    nat.wait(7000);
    told(&mut nat);
    nat.wait(203);
    let trans = crate::session::State::Tcp(crate::tcp::TcpState::Trans);
    let mut told = told(&mut nat);
    // The wheel tells of it once more.
    told.dedup();
    let [Change::SessionChanged(session)] = told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(session.state, trans);
    let stats = nat.engine.stats().tables;
    let mut buf = PacketBuf::new();
    assert_eq!(nat.engine.poll_transmit(&mut buf, nat.now), Transmit::Send);
    assert_eq!((stats.probes_sent.get(), stats.probes_lost.get()), (1, 0));
}

#[test]
fn plat_3_5_2_02_stored_syns_are_counted() {
    let mut nat = Nat::new(config());
    nat.send(&tcp4((SERVER, 443), (POOL, 80), SYN));
    nat.send(&tcp4((SERVER, 443), (POOL, 81), SYN));
    nat.send(&tcp6((CLIENT, 80), (SERVER, 443), SYN)).packet();
    let stats = nat.engine.stats().tables;
    assert_eq!((stats.syns_stored.get(), stats.syns_met.get()), (2, 1));
}

/// Only who has a port is told that a packet to it is too large.
#[test]
fn plat_3_5_1_02_a_large_packet_to_nobody_is_dropped_in_silence() {
    let mut nat = Nat::new(config());
    let mut header = V4::new(SERVER, POOL, 17);
    header.df = true;
    let datagram = compose::udp(Pair::V4(SERVER, POOL), 53, 5000, &[0; 1460]);
    let large = header.carrying(&datagram);
    assert_eq!(nat.send(&large), dropped(DropReason::NoBinding));
    nat.udp((CLIENT, 5000), (SERVER2, 53));
    let (_, kind, code) = nat.send(&large).reply();
    assert_eq!((kind, code), (3, 4));
}

/// Beside hosts with a mapping, others' large echoes have state as ever.
#[test]
fn eam_3_3_01_a_large_echo_of_a_client_is_none_of_a_mapped_host() {
    let eam = Eam::parse("192.88.1.7", "2001:db8:aaaa::7").unwrap();
    let mut nat = Nat::new(Config {
        eam: EamTable::new(vec![eam]).unwrap(),
        ..config()
    });
    let dst = prefix().embed(SERVER);
    for (from, sessions) in [("2001:db8:aaaa::7".parse().unwrap(), 0), (CLIENT, 1)] {
        let message = compose::icmp6(from, dst, 128, 0, [0, 9, 0, 1], &[5; 2000]);
        let echo = V6::new(from, dst, 58).carrying(&message);
        let mut parts = in_fragments6(&echo, 7);
        let last = parts.pop().unwrap();
        assert_eq!(nat.send(&parts[0]), Fate::Forwarded(vec![]));
        let out = nat.send(&last).into_packets();
        let header = Ipv4::new_checked(&out[0]).unwrap();
        assert!(is_icmp_fragment_v4(&header));
        assert_eq!(header.src() == POOL, sessions == 1);
        assert_eq!(nat.sessions(), sessions);
    }
}

/// Those that were refused most stand first; strangers to our prefixes are no subscribers.
#[test]
fn natb_6888_02_the_refused_are_listed_by_how_often() {
    let mut config = config();
    config.clients = vec!["2001:db8:ffff::/48".parse().unwrap()];
    let mut nat = Nat::new(config);
    for n in 1..=20u16 {
        let client = Ipv6Addr::new(0x2001, 0xdb8, 9, n * 7 % 23, 0, 0, 0, 1);
        for port in 0..n {
            nat.send(&udp6((client, 1 + port), (SERVER, 53), b"x"));
        }
    }
    let packets: Vec<_> = nat.engine.refused().iter().map(|it| it.packets).collect();
    assert_eq!(packets, (1..=20).rev().collect::<Vec<_>>());
    let datagram = compose::udp(Pair::V6(CLIENT, OTHER), 1, 2, b"x");
    let elsewhere = V6::new(CLIENT, OTHER, 17).carrying(&datagram);
    assert_eq!(nat.send(&elsewhere), dropped(DropReason::NotInPrefix));
    assert_eq!(nat.engine.refused().len(), 20);
}
