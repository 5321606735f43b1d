//! What passes at all, and what is refused with which answer.

use super::*;

#[test]
fn plat_3_01_a_nat64_needs_a_prefix_and_a_pool() {
    let refused = |change: fn(&mut Config)| {
        let mut config = config();
        change(&mut config);
        config.check().unwrap_err()
    };
    assert_eq!(refused(|it| it.prefixes.clear()), ConfigError::NoPrefix);
    assert_eq!(refused(|it| it.pool.clear()), ConfigError::NoPool);
    assert_eq!(
        refused(|it| it.pool.push(it.pool[0].clone())),
        ConfigError::PoolTwice(POOL)
    );
    assert!(matches!(
        refused(|it| it.prefixes.push("2001:db8::/32".parse().unwrap())),
        ConfigError::OverlappingPrefixes(..)
    ));
}

#[test]
fn plat_3_5_1_01_timers_have_least_values() {
    let shorter: [fn(&mut Timers); 5] = [
        |it| it.udp = Duration::from_secs(119),
        |it| it.icmp = Duration::from_secs(59),
        |it| it.tcp_established = Duration::from_secs(7199),
        |it| it.tcp_transitory = Duration::from_secs(239),
        |it| it.fragment = Duration::from_millis(1999),
    ];
    for change in shorter {
        let mut config = config();
        change(&mut config.timers);
        assert!(matches!(config.check(), Err(ConfigError::Timer { .. })));
    }
    let mut config = config();
    config.timers.udp = Duration::from_secs(120);
    assert_eq!(config.check(), Ok(()));
}

#[test]
fn plat_3_5_01_the_loop_guard() {
    let mut nat = Nat::new(config());
    let looping = prefix().embed(SERVER2);
    assert_eq!(
        nat.send(&udp6((looping, 1), (SERVER, 53), b"x")),
        dropped(DropReason::LoopGuard)
    );
    let mut expiring = udp6((looping, 1), (SERVER, 53), b"x");
    expiring[7] = 1;
    assert_eq!(nat.send(&expiring), dropped(DropReason::LoopGuard));
    assert_eq!(nat.sessions(), 0);
}

#[test]
fn plat_3_5_01_only_the_prefix_and_the_pool_are_ours() {
    let mut nat = Nat::new(config());
    let datagram = compose::udp(Pair::V6(CLIENT, OTHER), 1, 2, b"x");
    let packet = V6::new(CLIENT, OTHER, 17).carrying(&datagram);
    assert_eq!(nat.send(&packet), dropped(DropReason::NotInPrefix));
    // Neither is an error to somebody else, whatever it quotes.
    nat.udp((CLIENT, 5000), (SERVER, 53));
    let answer = nat.send(&udp4((SERVER, 53), (POOL, 5000), b"x")).packet();
    let message = compose::icmp6(CLIENT, OTHER, 1, 4, [0; 4], &answer);
    let packet = V6::new(CLIENT, OTHER, 58).carrying(&message);
    assert_eq!(nat.send(&packet), dropped(DropReason::NotInPrefix));
    assert_eq!(
        nat.send(&udp4((SERVER, 53), (POOL2, 5000), b"x")),
        dropped(DropReason::NotInPool)
    );
}

#[test]
fn special_destinations_are_refused_unless_allowed() {
    let mut config = config();
    config.allow_destinations = vec!["198.51.100.0/24".parse().unwrap()];
    config.own_addresses = vec![SERVER2];
    let mut nat = Nat::new(config);
    nat.udp((CLIENT, 1), (Ipv4Addr::new(198, 51, 100, 10), 53));
    for refused in [
        [10, 0, 0, 1],
        [127, 0, 0, 1],
        [169, 254, 169, 254],
        [9, 9, 9, 9],
    ] {
        let packet = udp6((CLIENT, 2), (refused.into(), 53), b"x");
        let (why, kind, code) = nat.send(&packet).reply();
        assert_eq!(why, Why::State(DropReason::DestinationRefused));
        assert_eq!((kind, code), (1, 1));
    }
    assert_eq!(nat.bindings(), 1);
}

#[test]
fn addr_3_1_01_the_plat_drops_non_global_addresses_under_the_well_known_prefix() {
    let private = Ipv4Addr::new(10, 0, 0, 1);
    let well_known = Pref64::WELL_KNOWN;
    let mut config = Config::new(well_known, &[POOL], OWN6);
    config.allow_destinations = vec!["10.0.0.0/8".parse().unwrap()];
    let to = |address| {
        let dst = well_known.embed(address);
        let datagram = compose::udp(Pair::V6(CLIENT, dst), 5000, 53, b"x");
        V6::new(CLIENT, dst, 17).carrying(&datagram)
    };
    let mut nat = Nat::new(config.clone());
    let (why, kind, code) = nat.send(&to(private)).reply();
    assert_eq!(why, Why::State(DropReason::NonGlobalUnderWellKnownPrefix));
    assert_eq!((kind, code), (1, 1));
    // From outside neither, although the pool's own address is non-global too.
    nat.send(&to(SERVER)).packet();
    assert_eq!(
        nat.send(&udp4((private, 53), (POOL, 5000), b"x")),
        dropped(DropReason::NonGlobalUnderWellKnownPrefix)
    );
    config.wkp_non_global = NonGlobal::Translate;
    let mut nat = Nat::new(config);
    nat.send(&to(private)).packet();
    nat.send(&udp4((private, 53), (POOL, 5000), b"x")).packet();
}

#[test]
fn plat_3_4_04_other_protocols_are_refused_by_name() {
    let mut nat = Nat::new(config());
    let packet = V6::new(CLIENT, prefix().embed(SERVER), 132).carrying(&[0; 20]);
    let (why, kind, code) = nat.send(&packet).reply();
    assert_eq!(why, Why::State(DropReason::UnsupportedProtocol));
    assert_eq!((kind, code), (1, 4));
    let packet = V4::new(SERVER, POOL, 47).carrying(&[0; 20]);
    let (why, kind, code) = nat.send(&packet).reply();
    assert_eq!(why, Why::State(DropReason::UnsupportedProtocol));
    assert_eq!((kind, code), (3, 2));
}

/// What cannot pass makes no state.
#[test]
fn packets_that_cannot_pass_make_no_state() {
    let mut nat = Nat::new(config());
    let mut expiring = udp6((CLIENT, 1), (SERVER, 53), b"x");
    expiring[7] = 1;
    let (why, kind, code) = nat.send(&expiring).reply();
    assert_eq!(why, Why::Translation(xlat::DropReason::HopLimitExceeded));
    assert_eq!((kind, code), (3, 0));
    let truncated = Fate::Dropped(Why::Translation(xlat::DropReason::TruncatedTransport));
    for (protocol, payload) in [(17, &[0; 7][..]), (6, &[0; 19])] {
        let packet = V6::new(CLIENT, prefix().embed(SERVER), protocol).carrying(payload);
        assert_eq!(nat.send(&packet), truncated);
    }
    assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
}

#[test]
fn plat_3_01_addresses_that_nobody_answers_are_not_in_the_pool() {
    for unusable in [
        "0.0.0.1",
        "127.0.0.1",
        "169.254.1.1",
        "224.0.0.1",
        "255.255.255.255",
    ] {
        let address = unusable.parse().unwrap();
        let config = Config::new(prefix(), &[POOL, address], OWN6);
        assert_eq!(config.check(), Err(ConfigError::PoolUnusable(address)));
    }
    // Private ones may stand behind another NAT.
    let private = Config::new(prefix(), &[Ipv4Addr::new(10, 0, 0, 1)], OWN6);
    assert_eq!(private.check(), Ok(()));
}

#[test]
fn plat_3_01_a_nat64_has_at_most_16_prefixes() {
    let mut config = config();
    let numbered = |n: u16| Pref64::new(Ipv6Addr::new(0x2001, 0xdb8, n, 0, 0, 0, 0, 0), 96);
    config.prefixes = (0..16).map(|n| numbered(n).unwrap()).collect();
    assert_eq!(config.check(), Ok(()));
    config.prefixes.push(numbered(16).unwrap());
    assert_eq!(config.check(), Err(ConfigError::TooManyPrefixes));
}

/// Times beyond any calendar would overflow the clock.
#[test]
fn plat_3_5_1_01_timers_have_greatest_values() {
    let longer: [fn(&mut Timers); 3] = [
        |it| it.udp = Duration::MAX,
        |it| it.tcp_established = Duration::from_secs(u64::MAX),
        |it| it.fragment = Duration::from_secs(121),
    ];
    for change in longer {
        let mut config = config();
        change(&mut config.timers);
        assert!(matches!(config.check(), Err(ConfigError::Timer { .. })));
    }
}

#[test]
fn plat_5_3_01_limits_are_limited() {
    for (bindings, sessions, name) in [
        (0, 1, "bindings"),
        (1, 0, "sessions"),
        (1, 1 << 32, "sessions"),
    ] {
        let mut config = config();
        config.limits = Limits {
            bindings,
            sessions,
            ..config.limits
        };
        let Err(ConfigError::Limit { name: wrong, .. }) = config.check() else {
            panic!("{bindings} {sessions}");
        };
        assert_eq!(wrong, name);
    }
}

#[test]
fn plat_3_5_01_the_loop_guard_knows_every_prefix() {
    let mut config = config();
    config.prefixes.push("2001:db8:65::/64".parse().unwrap());
    let mut nat = Nat::new(config);
    // Wherever in a prefix, and whatever follows the IPv4 address.
    for looping in [
        "2001:db8:64::1",
        "2001:db8:65:0:8:808:800::",
        "2001:db8:65:0:ffff::ffff",
    ] {
        let packet = udp6((looping.parse().unwrap(), 1), (SERVER, 53), b"x");
        assert_eq!(
            nat.send(&packet),
            dropped(DropReason::LoopGuard),
            "{looping}"
        );
    }
    // An ICMPv6 error of a router with such an address is no exception.
    let quoted = V6::new(prefix().embed(SERVER), CLIENT, 17).carrying(&[0; 8]);
    let from = prefix().embed(ROUTER4);
    let error = error6(from, &quoted, 1, 4, [0; 4]);
    assert_eq!(nat.send(&error), dropped(DropReason::LoopGuard));
    nat.udp((CLIENT, 1), (SERVER, 53));
}

/// Nobody is told what is behind a pool address without a binding.
#[test]
fn plat_3_5_1_02_packets_without_a_binding_are_dropped_in_silence() {
    let mut nat = Nat::new(config());
    // The same port of another protocol does not count.
    nat.udp((CLIENT, 5000), (SERVER, 53));
    for packet in [
        udp4((SERVER, 53), (POOL, 5001), b"x"),
        tcp4((SERVER, 53), (POOL, 5000), SYN | ACK),
        tcp4((SERVER, 53), (POOL, 5000), ACK),
        echo4(SERVER, 8, 5000, POOL),
        echo4(SERVER, 0, 5000, POOL),
    ] {
        assert_eq!(nat.send(&packet), dropped(DropReason::NoBinding));
    }
    assert_eq!((nat.bindings(), nat.sessions()), (1, 1));
}

/// RFC 4443 section 2.4 f, RFC 1812 section 4.3.2.8: both ways.
#[test]
fn xlat_5_4_01_errors_are_limited_in_rate() {
    let mut config = config();
    config.errors = xlat::config::ErrorPolicy::Limit {
        burst: 3,
        per_second: 2,
    };
    let mut nat = Nat::new(config);
    let from6 = V6::new(CLIENT, prefix().embed(SERVER), 132).carrying(&[0; 20]);
    let from4 = V4::new(SERVER, POOL, 132).carrying(&[0; 20]);
    for packet in [from6, from4] {
        let answers = |nat: &mut Nat| {
            let fates = (0..10).map(|_| nat.send(&packet));
            fates
                .filter(|fate| matches!(fate, Fate::Replied(..)))
                .count()
        };
        assert_eq!(answers(&mut nat), 3);
        nat.wait(1);
        assert_eq!(answers(&mut nat), 2);
    }
}
