//! Bindings and sessions of UDP and ICMP queries, and the pool.

use super::*;

#[test]
fn plat_3_5_1_01_a_udp_packet_makes_a_session_and_refreshes_it() {
    let mut nat = Nat::new(config());
    let seen = nat.udp((CLIENT, 5000), (SERVER, 53));
    assert_eq!(seen, (POOL, 5000));
    assert_eq!((nat.bindings(), nat.sessions()), (1, 1));

    let answer = nat.send(&udp4((SERVER, 53), seen, b"answer")).packet();
    let wanted = compose::udp(
        Pair::V6(prefix().embed(SERVER), CLIENT),
        53,
        5000,
        b"answer",
    );
    assert_eq!(answer[40..], wanted);

    // 300 seconds after the last packet of either side, and not before.
    nat.wait(299);
    nat.udp((CLIENT, 5000), (SERVER, 53));
    nat.wait(299);
    assert!(matches!(
        nat.send(&udp4((SERVER, 53), seen, b"x")),
        Fate::Forwarded(_)
    ));
    nat.wait(299);
    assert_eq!(nat.sessions(), 1);
    nat.wait(2);
    assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
    assert_eq!(
        nat.send(&udp4((SERVER, 53), seen, b"late")),
        dropped(DropReason::NoBinding)
    );
}

#[test]
fn plat_3_5_1_02_without_filtering_any_server_may_answer() {
    let mut nat = Nat::new(config());
    let seen = nat.udp((CLIENT, 5000), (SERVER, 53));
    let packet = nat.send(&udp4((SERVER2, 999), seen, b"hi")).packet();
    let header = Ipv6::new_checked(&packet).unwrap();
    assert_eq!(
        (header.src(), header.dst()),
        (prefix().embed(SERVER2), CLIENT)
    );
    assert_eq!((nat.bindings(), nat.sessions()), (1, 2));
    assert_eq!(
        nat.send(&udp4((SERVER, 53), (POOL, 5001), b"x")),
        dropped(DropReason::NoBinding)
    );
}

#[test]
fn plat_5_2_01_the_mapping_does_not_depend_on_the_server() {
    let mut nat = Nat::new(config());
    let seen: HashSet<_> = [(SERVER, 53), (SERVER, 54), (SERVER2, 53)]
        .map(|server| nat.udp((CLIENT, 5000), server))
        .into();
    assert_eq!(seen.len(), 1);
    assert_eq!((nat.bindings(), nat.sessions()), (1, 3));
    assert_ne!(nat.udp((OTHER, 5000), (SERVER, 53)), (POOL, 5000));
}

#[test]
fn plat_3_1_01_a_binding_ends_with_its_last_session() {
    let mut nat = Nat::new(config());
    nat.udp((CLIENT, 5000), (SERVER, 53));
    nat.wait(100);
    nat.udp((CLIENT, 5000), (SERVER2, 53));
    nat.wait(202);
    assert_eq!((nat.bindings(), nat.sessions()), (1, 1));
    nat.wait(100);
    assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
    assert_eq!(nat.engine.free_ports(Protocol::Udp), 65_535);
}

#[test]
fn plat_3_5_1_1_01_a_client_keeps_its_pool_address() {
    let mut config = config();
    let ports = PortRange::new(2000, 2099).unwrap();
    config.pool = [POOL, POOL2]
        .map(|address| PoolEntry {
            address,
            ports: ports.into(),
        })
        .to_vec();
    let mut nat = Nat::new(config);
    for n in 0..10u16 {
        let client = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, n);
        let addresses: HashSet<_> = (0..8)
            .map(|port| nat.udp((client, 3000 + port), (SERVER, 53)).0)
            .collect();
        assert_eq!(addresses.len(), 1, "client {n}");
        nat.send(&tcp6((client, 9), (SERVER, 80), SYN)).packet();
    }
    let used: HashSet<_> = nat.engine.bindings().map(|it| it.outside.address).collect();
    assert_eq!(used.len(), 2, "clients spread over the pool");
}

#[test]
fn plat_3_5_1_1_01_a_full_pool_refuses_new_bindings_and_keeps_the_old() {
    let mut config = config();
    config.pool[0].ports = PortRange::new(2000, 2003).unwrap().into();
    let mut nat = Nat::new(config);
    let seen: Vec<_> = (0..4)
        .map(|port| nat.udp((CLIENT, 3000 + port), (SERVER, 53)))
        .collect();
    let (why, kind, code) = nat.send(&udp6((CLIENT, 4000), (SERVER, 53), b"x")).reply();
    assert_eq!(why, Why::State(DropReason::PortsExhausted));
    assert_eq!((kind, code), (1, 3));
    for seen in seen {
        assert!(matches!(
            nat.send(&udp4((SERVER, 53), seen, b"x")),
            Fate::Forwarded(_)
        ));
    }
    // Other protocols have their own ports.
    nat.send(&tcp6((CLIENT, 4000), (SERVER, 80), SYN)).packet();
}

#[test]
fn plat_5_3_01_bindings_and_sessions_are_limited() {
    let limited = |bindings, sessions| {
        let mut config = config();
        config.limits = Limits {
            bindings,
            sessions,
            ..Limits::default()
        };
        Nat::new(config)
    };
    let mut nat = limited(2, 10);
    nat.udp((CLIENT, 1), (SERVER, 53));
    nat.udp((CLIENT, 2), (SERVER, 53));
    let (why, kind, code) = nat.send(&udp6((CLIENT, 3), (SERVER, 53), b"x")).reply();
    assert_eq!(why, Why::State(DropReason::TooManyBindings));
    assert_eq!((kind, code), (1, 3));
    nat.udp((CLIENT, 2), (SERVER2, 53));

    let mut nat = limited(10, 2);
    let seen = nat.udp((CLIENT, 1), (SERVER, 53));
    nat.udp((CLIENT, 1), (SERVER, 54));
    let (why, kind, code) = nat.send(&udp6((CLIENT, 1), (SERVER, 55), b"x")).reply();
    assert_eq!(why, Why::State(DropReason::TooManySessions));
    assert_eq!((kind, code), (1, 3));
    // From outside nobody is told.
    assert_eq!(
        nat.send(&udp4((SERVER2, 9), seen, b"x")),
        dropped(DropReason::TooManySessions)
    );
    // And nothing is left behind by what was refused.
    assert_eq!((nat.bindings(), nat.sessions()), (1, 2));
}

#[test]
fn plat_3_5_3_01_echoes_share_identifiers() {
    let mut nat = Nat::new(config());
    let mut seen = HashSet::new();
    for client in [CLIENT, OTHER] {
        let packet = nat.send(&echo6(client, 128, 77, SERVER)).packet();
        assert_eq!(packet[20..22], [8, 0]);
        let id = u16::from_be_bytes([packet[24], packet[25]]);
        assert!(seen.insert(id));
        let answer = nat.send(&echo4(SERVER, 0, id, POOL)).packet();
        assert_eq!(transport_checksum_ok(&answer), Some(true));
        assert_eq!(answer[24..40], client.octets());
        assert_eq!((answer[40], &answer[44..46]), (129, &[0, 77][..]));
    }
    assert!(seen.contains(&77));
    // One session per server, whatever the identifier on the wire.
    assert_eq!((nat.bindings(), nat.sessions()), (2, 2));
    assert_eq!(
        nat.send(&echo4(SERVER, 8, 9, POOL)),
        dropped(DropReason::NoBinding)
    );
    nat.wait(59);
    assert_eq!(nat.sessions(), 2);
    nat.wait(3);
    assert_eq!(nat.sessions(), 0);
    let other = compose::icmp6(CLIENT, prefix().embed(SERVER), 135, 0, [0; 4], &[0; 16]);
    let packet = V6::new(CLIENT, prefix().embed(SERVER), 58).carrying(&other);
    let why = Why::Translation(xlat::DropReason::UntranslatableIcmp);
    assert_eq!(nat.send(&packet), Fate::Dropped(why));
    let other = compose::icmp4(13, 0, [0, 77, 0, 1], &[0; 12]);
    let packet = V4::new(SERVER, POOL, 1).carrying(&other);
    assert_eq!(nat.send(&packet), Fate::Dropped(why));
    assert_eq!((nat.bindings(), nat.sessions()), (0, 0), "only echoes");
}

/// A minute from the last query or answer, and from the first if none follows.
#[test]
fn plat_3_5_3_01_an_echo_session_lasts_a_minute() {
    let mut nat = Nat::new(config());
    let ends_after_a_minute = |nat: &mut Nat| {
        nat.wait(59);
        assert_eq!(nat.sessions(), 1);
        nat.wait(3);
        assert_eq!(nat.sessions(), 0);
    };
    nat.send(&echo6(CLIENT, 128, 77, SERVER)).packet();
    ends_after_a_minute(&mut nat);
    nat.send(&echo6(CLIENT, 128, 77, SERVER)).packet();
    nat.wait(50);
    nat.send(&echo6(CLIENT, 128, 77, SERVER)).packet();
    nat.wait(50);
    nat.send(&echo4(SERVER, 0, 77, POOL)).packet();
    ends_after_a_minute(&mut nat);
}

#[test]
fn plat_3_6_01_only_the_clients_end_is_translated_by_the_table() {
    let mut nat = Nat::new(config());
    // The server's address is a pool address: it is still algorithmic.
    let packet = nat.send(&udp6((CLIENT, 5000), (SERVER, 53), b"x")).packet();
    let header = Ipv4::new_checked(&packet).unwrap();
    assert_eq!((header.src(), header.dst()), (POOL, SERVER));
    nat.udp((OTHER, 6000), (SERVER, 53));
    let answer = nat.send(&udp6((OTHER, 6000), (POOL, 5000), b"x")).packet();
    let header = Ipv6::new_checked(&answer).unwrap();
    assert_eq!((header.src(), header.dst()), (prefix().embed(POOL), CLIENT));
}

/// RFC 4787 REQ-3: however many clients use the same port, each has its own outside.
#[test]
fn natb_4787_01_ports_are_not_overloaded() {
    let mut config = config();
    config.pool[0].ports = PortRange::new(2000, 2009).unwrap().into();
    let mut nat = Nat::new(config);
    let seen: HashSet<_> = (0..10)
        .map(|n| {
            let client = Ipv6Addr::new(0x2001, 0xdb8, n, 1, 0, 0, 0, 1);
            // Different servers would allow one port for all.
            nat.udp((client, 2000), (Ipv4Addr::new(8, 8, 8, n as u8), 53))
        })
        .collect();
    assert_eq!(seen.len(), 10);
    let another = udp6((OTHER, 2000), (SERVER, 53), b"x");
    let why = Why::State(DropReason::PoolExhausted);
    assert_eq!(nat.send(&another).reply(), (why, 1, 3));
}

/// RFC 4787 REQ-2, REQ-6, REQ-11: one address for all protocols, refreshed by what goes out, and
/// the same answer whatever happened before.
#[test]
fn natb_4787_01_mappings_are_paired_refreshed_and_deterministic() {
    let mut config = config();
    config.pool.push(PoolEntry {
        address: POOL2,
        ports: PortRange::ALL.into(),
    });
    let mut nat = Nat::new(config);
    for client in 0..20 {
        let client = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, client);
        let udp = nat.udp((client, 5000), (SERVER, 53));
        let tcp = nat.send(&tcp6((client, 6000), (SERVER, 80), SYN)).packet();
        let echo = nat.send(&echo6(client, 128, 7, SERVER)).packet();
        for packet in [tcp, echo] {
            assert_eq!(Ipv4::new_checked(&packet).unwrap().src(), udp.0);
        }
        for server in [SERVER2, SERVER] {
            assert_eq!(nat.udp((client, 5000), (server, 53)), udp);
        }
    }
    // Refreshed for longer than any lifetime by packets from inside alone.
    let seen = nat.udp((CLIENT, 5000), (SERVER, 53));
    for _ in 0..4 {
        nat.wait(290);
        assert_eq!(nat.udp((CLIENT, 5000), (SERVER, 53)), seen);
    }
    assert_eq!(nat.bindings(), 1);
}

/// RFC 6888 REQ-11: what is there stays there.
#[test]
fn natb_6888_02_nothing_is_evicted_for_something_new() {
    let mut config = config();
    config.limits.bindings = 3;
    config.limits.sessions = 4;
    let mut nat = Nat::new(config);
    let seen: Vec<_> = (1..4)
        .map(|port| nat.udp((CLIENT, port), (SERVER, 53)))
        .collect();
    for port in 4..100 {
        let packet = udp6((OTHER, port), (SERVER, 53), b"x");
        let why = Why::State(DropReason::TooManyBindings);
        assert_eq!(nat.send(&packet).reply(), (why, 1, 3));
    }
    // From outside, too, there is only what fits.
    for port in 0..100 {
        nat.send(&udp4((SERVER2, port), seen[0], b"x"));
    }
    assert_eq!((nat.bindings(), nat.sessions()), (3, 4));
    for seen in seen {
        nat.send(&udp4((SERVER, 53), seen, b"x")).packet();
    }
}

/// RFC 6888 REQ-7: any server reaches a client's port, by any protocol that opens it.
#[test]
fn natb_7857_01_mapping_and_filtering_are_endpoint_independent_by_default() {
    let mut nat = Nat::new(config());
    let seen = nat.udp((CLIENT, 5000), (SERVER, 53));
    nat.send(&udp4((SERVER2, 1), seen, b"x")).packet();
    nat.send(&tcp6((CLIENT, 5000), (SERVER, 80), SYN)).packet();
    nat.send(&tcp4((SERVER2, 1), seen, SYN)).packet();
    nat.send(&echo6(CLIENT, 128, 7, SERVER)).packet();
    nat.send(&echo4(SERVER2, 8, 7, POOL)).packet();
}

/// The machine slept, or the timer was late: what was over stays over.
#[test]
fn plat_3_5_1_01_what_was_over_is_not_brought_back_by_a_packet() {
    let mut nat = Nat::new(config());
    let seen = nat.udp((CLIENT, 5000), (SERVER, 53));
    nat.sleep(100_000);
    assert_eq!(
        nat.send(&udp4((SERVER, 53), seen, b"x")),
        dropped(DropReason::NoBinding)
    );
    assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
    // A clock that jumps back ends nothing and breaks nothing.
    nat.udp((CLIENT, 5000), (SERVER, 53));
    nat.now -= Duration::from_secs(50_000);
    nat.udp((CLIENT, 5000), (SERVER, 53));
    assert_eq!(nat.sessions(), 1);
}

fn two_prefixes() -> (Nat, Pref64) {
    let mut config = config();
    let new: Pref64 = "2001:db8:65::/96".parse().unwrap();
    config.prefixes.push(new);
    (Nat::new(config), new)
}

/// A network is renumbered, a CLAT finds another prefix: its ports stay, and it is answered under
/// the prefix it uses now.
#[test]
fn plat_3_6_01_a_client_is_answered_under_the_prefix_it_used_last() {
    let (mut nat, new) = two_prefixes();
    let seen = nat.udp((CLIENT, 5000), (SERVER, 53));
    let answered_from = |nat: &mut Nat, server| {
        let answer = nat.send(&udp4((server, 53), seen, b"x")).packet();
        Ipv6::new_checked(&answer).unwrap().src()
    };
    assert_eq!(answered_from(&mut nat, SERVER), prefix().embed(SERVER));
    let dst = new.embed(SERVER);
    let datagram = compose::udp(Pair::V6(CLIENT, dst), 5000, 53, b"x");
    nat.send(&V6::new(CLIENT, dst, 17).carrying(&datagram))
        .packet();
    assert_eq!(answered_from(&mut nat, SERVER), new.embed(SERVER));
    // So is whoever speaks first.
    assert_eq!(answered_from(&mut nat, SERVER2), new.embed(SERVER2));
    assert_eq!((nat.bindings(), nat.sessions()), (1, 2));
}

/// A new session of an old binding, too, says which prefix its client uses.
#[test]
fn plat_3_6_01_a_new_session_says_which_prefix_is_in_use() {
    let (mut nat, new) = two_prefixes();
    let seen = nat.udp((CLIENT, 5000), (SERVER, 53));
    let dst = new.embed(SERVER2);
    let datagram = compose::udp(Pair::V6(CLIENT, dst), 5000, 53, b"x");
    nat.send(&V6::new(CLIENT, dst, 17).carrying(&datagram))
        .packet();
    let third = Ipv4Addr::new(1, 1, 1, 1);
    let packet = nat.send(&udp4((third, 53), seen, b"x")).packet();
    assert_eq!(Ipv6::new_checked(&packet).unwrap().src(), new.embed(third));
}

/// RFC 6888 REQ-2: a client whose address is full does not get a second one, whatever is free.
#[test]
fn natb_4787_01_a_client_never_has_two_addresses() {
    let mut config = config();
    let ports = PortRange::new(2000, 2003).unwrap();
    config.pool = [POOL, POOL2]
        .map(|address| PoolEntry {
            address,
            ports: ports.into(),
        })
        .to_vec();
    let mut nat = Nat::new(config);
    let first = nat.udp((CLIENT, 3000), (SERVER, 53));
    for port in 3001..3004 {
        assert_eq!(nat.udp((CLIENT, port), (SERVER, 53)).0, first.0);
    }
    let packet = udp6((CLIENT, 3004), (SERVER, 53), b"x");
    let why = Why::State(DropReason::PortsExhausted);
    assert_eq!(nat.send(&packet).reply(), (why, 1, 3));
    assert_eq!(nat.engine.free_ports(Protocol::Udp), 4);
    // Another client gets what is left, and this one its choice once it has nothing any more.
    assert_ne!(nat.udp((OTHER, 3000), (SERVER, 53)).0, first.0);
    nat.wait(302);
    nat.udp((CLIENT, 3004), (SERVER, 53));
}
