//! PLAT-R-01, and every other change of the configuration while packets flow.

use super::*;
use crate::{filtering::Filtering, reconfigure::Reconfigured, static_bib::StaticBinding};

fn other_prefix() -> Pref64 {
    "2001:db8:65::/96".parse().unwrap()
}

fn two_addresses() -> Config {
    let mut config = config();
    config.pool.push(PoolEntry {
        address: POOL2,
        ports: PortRange::ALL.into(),
    });
    config
}

/// A client on each address of the pool.
fn clients(nat: &mut Nat) -> (Ipv6Addr, Ipv6Addr) {
    let mut on = [None, None];
    let mut client = CLIENT;
    while on.contains(&None) {
        let (address, _) = nat.udp((client, 5000), (SERVER, 53));
        on[usize::from(address == POOL2)].get_or_insert(client);
        client = (u128::from(client) + 1).into();
    }
    nat.engine.flush(&crate::view::Filter::default());
    let found = (on[0].unwrap(), on[1].unwrap());
    nat.udp((found.0, 5000), (SERVER, 53));
    nat.udp((found.1, 5000), (SERVER, 53));
    found
}

#[test]
fn plat_r_01_sessions_of_a_pool_address_that_is_gone_end_at_once() {
    let mut nat = Nat::new(two_addresses());
    let (stays, goes) = clients(&mut nat);
    let ended = nat.engine.reconfigure(config()).unwrap();
    let wanted = Reconfigured {
        sessions_ended: 1,
        bindings_ended: 1,
        syns_forgotten: 0,
    };
    assert_eq!(ended, wanted);
    assert_eq!(
        nat.send(&udp4((SERVER, 53), (POOL2, 5000), b"x")),
        dropped(DropReason::NotInPool)
    );
    nat.send(&udp4((SERVER, 53), (POOL, 5000), b"x")).packet();
    // The client that lost its address gets another, and no port that is taken.
    let (address, port) = nat.udp((goes, 5000), (SERVER, 53));
    assert_eq!(address, POOL);
    assert_ne!(port, 5000);
    assert_eq!(nat.udp((stays, 5000), (SERVER, 53)), (POOL, 5000));
    assert_eq!(nat.engine.free_ports(Protocol::Udp), 65_535 - 2);
}

#[test]
fn plat_r_01_ports_that_are_gone() {
    let mut nat = Nat::new(config());
    nat.udp((CLIENT, 5000), (SERVER, 53));
    nat.udp((CLIENT, 6000), (SERVER, 53));
    assert_eq!(
        nat.send(&tcp4((SERVER, 1), (POOL, 4000), SYN)),
        Fate::Forwarded(Vec::new())
    );
    let mut config = config();
    config.pool[0].ports = PortRange::new(6000, 7000).unwrap().into();
    let ended = nat.engine.reconfigure(config).unwrap();
    let wanted = Reconfigured {
        sessions_ended: 1,
        bindings_ended: 1,
        syns_forgotten: 1,
    };
    assert_eq!(ended, wanted);
    assert_eq!(nat.udp((CLIENT, 6000), (SERVER, 53)), (POOL, 6000));
    assert_eq!(nat.engine.free_ports(Protocol::Udp), 1000);
    nat.wait(8);
    let mut buf = PacketBuf::new();
    assert_eq!(
        nat.engine.poll_transmit(&mut buf, nat.now),
        Transmit::Nothing
    );
}

#[test]
fn plat_r_01_static_bindings_stay_with_their_address() {
    let mut nat = Nat::new(two_addresses());
    for (address, id) in [(POOL, 80), (POOL2, 81)] {
        let binding = StaticBinding {
            protocol: Protocol::Tcp,
            inside: Endpoint6 {
                address: CLIENT,
                id,
            },
            outside: Endpoint4 { address, id },
        };
        nat.engine.add_static(binding).unwrap();
    }
    let mut new = config();
    new.pool[0].ports = PortRange::new(6000, 7000).unwrap().into();
    let ended = nat.engine.reconfigure(new).unwrap();
    assert_eq!((ended.sessions_ended, ended.bindings_ended), (0, 1));
    nat.send(&tcp4((SERVER, 1), (POOL, 80), SYN)).packet();
    // What its client opens goes on from the address that is left.
    let (address, _) = nat.udp((CLIENT, 9), (SERVER, 53));
    assert_eq!(address, POOL);
}

#[test]
fn plat_r_01_prefixes_move_and_go() {
    let mut config = config();
    config.prefixes = vec![prefix(), other_prefix()];
    let mut nat = Nat::new(config.clone());
    let under = |prefix: Pref64, port: u16| {
        let dst = prefix.embed(SERVER);
        let datagram = compose::udp(Pair::V6(CLIENT, dst), port, 53, b"x");
        V6::new(CLIENT, dst, 17).carrying(&datagram)
    };
    nat.send(&under(prefix(), 1000)).packet();
    nat.send(&under(other_prefix(), 1001)).packet();
    config.prefixes = vec![other_prefix()];
    let ended = nat.engine.reconfigure(config).unwrap();
    assert_eq!((ended.sessions_ended, ended.bindings_ended), (1, 1));
    let packet = nat.send(&udp4((SERVER, 53), (POOL, 1001), b"x")).packet();
    let header = Ipv6::new_checked(&packet).unwrap();
    assert_eq!(header.src(), other_prefix().embed(SERVER));
    assert_eq!(
        nat.send(&under(prefix(), 1000)),
        dropped(DropReason::NotInPrefix)
    );
}

/// A question that waits to be sent is about a prefix by its number: it is not sent under another.
#[test]
fn plat_r_01_no_probe_is_sent_under_the_prefix_of_another_configuration() {
    for after in [vec![other_prefix()], vec![other_prefix(), prefix()]] {
        let mut config = config();
        config.prefixes = vec![prefix(), other_prefix()];
        let mut nat = Nat::new(config.clone());
        nat.send(&tcp6((CLIENT, 40_000), (SERVER, 443), SYN))
            .packet();
        let answer = tcp4((SERVER, 443), (POOL, 40_000), SYN | ACK);
        nat.send(&answer).packet();
        nat.wait(7202);
        config.prefixes = after;
        nat.engine.reconfigure(config).unwrap();
        let mut buf = PacketBuf::new();
        let sent = nat.engine.poll_transmit(&mut buf, nat.now);
        assert_eq!(sent, Transmit::Nothing);
    }
}

/// A client stays on its address while it has anything there, and no longer.
#[test]
fn plat_r_01_clients_are_paired_with_an_address_as_long_as_they_use_it() {
    let mut nat = Nat::new(two_addresses());
    let (one, other) = clients(&mut nat);
    let mut nat = Nat::new(config());
    for client in [one, other] {
        nat.udp((client, 5000), (SERVER, 53));
        nat.udp((client, 5001), (SERVER, 53));
    }
    nat.engine.reconfigure(two_addresses()).unwrap();
    nat.wait(200);
    // One of its two bindings is enough.
    nat.udp((other, 5001), (SERVER, 53));
    nat.wait(102);
    assert_eq!(nat.bindings(), 1);
    assert_eq!(nat.udp((other, 5002), (SERVER, 53)).0, POOL);
    nat.wait(302);
    assert_eq!(nat.bindings(), 0);
    assert_eq!(nat.udp((other, 5000), (SERVER, 53)).0, POOL2);
    assert_eq!(nat.udp((one, 5000), (SERVER, 53)).0, POOL);
    // What it has on the address that is left counts, where the other one is gone.
    let binding = StaticBinding {
        protocol: Protocol::Tcp,
        inside: Endpoint6 {
            address: other,
            id: 80,
        },
        outside: Endpoint4 {
            address: POOL,
            id: 80,
        },
    };
    nat.engine.add_static(binding).unwrap();
    nat.engine.reconfigure(config()).unwrap();
    nat.engine.reconfigure(two_addresses()).unwrap();
    assert_eq!(nat.udp((other, 5000), (SERVER, 53)).0, POOL);
}

#[test]
fn a_new_configuration_ends_nothing_that_it_still_serves() {
    let mut nat = Nat::new(config());
    nat.udp((CLIENT, 5000), (SERVER, 53));
    nat.send(&tcp6((CLIENT, 5000), (SERVER, 80), SYN)).packet();
    let mut new = two_addresses();
    new.limits.sessions = 1;
    new.timers.udp = Duration::from_secs(120);
    new.filtering.udp = Filtering::AddressDependent;
    new.ipv6_mtu = 1280;
    let ended = nat.engine.reconfigure(new).unwrap();
    assert_eq!(ended, Reconfigured::default());
    // Policy holds for what there is, too.
    assert_eq!(
        nat.send(&udp4((SERVER2, 53), (POOL, 5000), b"x")),
        dropped(DropReason::Filtered)
    );
    let (why, ..) = nat.send(&udp6((OTHER, 1), (SERVER, 53), b"x")).reply();
    assert_eq!(why, Why::State(DropReason::TooManySessions));
    nat.send(&udp4((SERVER, 53), (POOL, 5000), b"x")).packet();
    nat.wait(122);
    assert_eq!(nat.sessions(), 1, "the new lifetime");
}

#[test]
fn a_wrong_configuration_changes_nothing() {
    let mut nat = Nat::new(config());
    nat.udp((CLIENT, 5000), (SERVER, 53));
    let mut wrong = config();
    wrong.pool.clear();
    assert_eq!(nat.engine.reconfigure(wrong), Err(ConfigError::NoPool));
    nat.send(&udp4((SERVER, 53), (POOL, 5000), b"x")).packet();
}

#[test]
fn plat_r_01_new_limits_of_fragments_hold_at_once() {
    let mut nat = Nat::new(config());
    let part = |n: u8| {
        let packet = udp6((CLIENT, 5000), (SERVER, 53), &[0; 2000]);
        in_fragments6(&packet, n.into()).remove(0)
    };
    let mut wait = |config: Config, n| {
        nat.engine.reconfigure(config).unwrap();
        assert_eq!(nat.send(&part(n)), Fate::Forwarded(Vec::new()));
        nat.engine.fragments_v6.datagrams()
    };
    assert_eq!(wait(config(), 1), 1);
    let mut fewer = config();
    fewer.limits.fragments.datagrams = 2;
    assert_eq!(wait(fewer, 2), 1);
    assert_eq!(wait(config(), 3), 2);
}

/// What is taken, by address.
fn taken(nat: &Nat) -> Vec<(Ipv4Addr, usize)> {
    let udp = nat.engine.pool_use();
    let udp = udp.filter(|it| it.protocol == Protocol::Udp);
    udp.map(|it| (it.address, it.used)).collect()
}

/// A pool that has all that it had ends nothing, and knows what is taken of it and what rests.
#[test]
fn plat_r_01_a_pool_that_grows_knows_what_is_taken() {
    let mut config = config();
    config.timers.hold_down = Duration::from_secs(120);
    config.pool[0].ports = PortRange::new(2000, 2009).unwrap().into();
    let mut nat = Nat::new(config.clone());
    nat.udp((CLIENT, 2003), (SERVER, 53));
    nat.wait(200);
    nat.udp((CLIENT, 2004), (SERVER, 53));
    nat.wait(120);
    assert_eq!((nat.bindings(), taken(&nat)), (1, vec![(POOL, 2)]));
    config.pool.insert(
        0,
        PoolEntry {
            address: POOL2,
            ports: PortRange::new(2000, 2001).unwrap().into(),
        },
    );
    let ended = nat.engine.reconfigure(config.clone()).unwrap();
    assert_eq!(ended, Reconfigured::default());
    assert_eq!(taken(&nat), [(POOL, 2), (POOL2, 0)]);
    // The client is still on its address, and its port there; what rests is nobody's.
    assert_eq!(nat.udp((CLIENT, 2004), (SERVER, 53)), (POOL, 2004));
    let (address, port) = nat.udp((CLIENT, 2003), (SERVER, 53));
    assert!(address == POOL && port != 2003);
    // With more ports of the same address as well, and with another prefix.
    config.pool[1].ports = PortRange::new(1990, 2009).unwrap().into();
    config.prefixes.push(other_prefix());
    nat.engine.reconfigure(config.clone()).unwrap();
    assert_eq!(taken(&nat), [(POOL, 3), (POOL2, 0)]);
    config.prefixes.remove(0);
    let ended = nat.engine.reconfigure(config).unwrap();
    assert_eq!((ended.sessions_ended, nat.bindings()), (2, 0));
    assert_eq!(taken(&nat), [(POOL, 3), (POOL2, 0)], "they rest");
    nat.wait(121);
    assert_eq!(taken(&nat), [(POOL, 0), (POOL2, 0)]);
}

/// What servers still send to an address that was gone for a moment reaches nobody else.
#[test]
fn natb_6888_03_ports_of_an_address_that_comes_back_rest_on() {
    let mut both = config();
    both.timers.hold_down = Duration::from_secs(120);
    both.pool.push(PoolEntry {
        address: POOL2,
        ..both.pool[0].clone()
    });
    let mut one = both.clone();
    one.pool.truncate(1);
    let mut nat = Nat::new(both.clone());
    for n in 0..40 {
        let client = Ipv6Addr::new(0x2001, 0xdb8, 1, n, 0, 0, 0, 1);
        nat.udp((client, 5000 + 2 * n), (SERVER, 53));
    }
    let before = taken(&nat);
    assert!(before[1].1 > 5, "both have some");
    nat.engine.reconfigure(one.clone()).unwrap();
    nat.wait(60);
    nat.engine.reconfigure(both.clone()).unwrap();
    assert_eq!(taken(&nat), before);
    // And not for longer than any.
    nat.wait(61);
    assert_eq!(taken(&nat), [before[0], (POOL2, 0)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever pool follows, often with the same entries: what is taken is what is bound, and all the rest can be given.
    #[test]
    fn plat_r_01_a_pool_is_replaced_exactly(
        pools in proptest::collection::vec(
            proptest::collection::btree_map(1u8..5, (2000u16..2002, 0u16..3), 1..4),
            2..6,
        ),
        flows in proptest::collection::vec((0u16..12, 1998u16..2008), 0..40),
    ) {
        let of = |pool: &std::collections::BTreeMap<u8, (u16, u16)>| {
            let entry = |(n, (first, more)): (&u8, &(u16, u16))| PoolEntry {
                address: Ipv4Addr::new(203, 0, 113, *n),
                ports: PortRange::new(*first, first + more).unwrap().into(),
            };
            Config { pool: pool.iter().map(entry).collect(), ..config() }
        };
        let client = |n: u16| Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 1, n);
        let mut nat = Nat::new(of(&pools[0]));
        let mut flows = flows.into_iter();
        for pool in &pools[1..] {
            for (n, port) in flows.by_ref().take(8) {
                nat.send(&udp6((client(n), port), (SERVER, 53), b"x"));
            }
            let bound: HashSet<_> = nat.engine.bindings().map(|it| it.outside).collect();
            nat.engine.reconfigure(of(pool)).unwrap();
            let served = bound.into_iter().filter(|it| {
                let address = it.address.octets()[3];
                let range = pool.get(&address);
                range.is_some_and(|(first, more)| (*first..=first + more).contains(&it.id))
            });
            prop_assert_eq!(nat.bindings(), served.count());
            for (address, used) in taken(&nat) {
                let on = nat.engine.bindings().filter(|it| it.outside.address == address);
                prop_assert_eq!(used, on.count());
            }
        }
        // Whoever comes finds what is left, on whichever address it is.
        let free = nat.engine.free_ports(Protocol::Udp);
        for n in 0..free {
            let client = client(100 + u16::try_from(n).unwrap());
            nat.send(&udp6((client, 5000), (SERVER, 53), b"x")).packet();
        }
        let more = nat.send(&udp6((client(99), 5000), (SERVER, 53), b"x"));
        prop_assert_eq!(more.reply().0, Why::State(DropReason::PoolExhausted));
        let outsides: HashSet<_> = nat.engine.bindings().map(|it| it.outside).collect();
        prop_assert_eq!(outsides.len(), nat.bindings());
    }
}
