//! Who may use the NAT64, and how much of it.

use super::shards::{Shards, in_fragments4, source4};
use super::*;
use crate::{
    static_bib::StaticBinding,
    subscriber::{Quota, Quotas},
};

/// Of another subscriber than [`CLIENT`] and [`OTHER`].
const STRANGER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 1, 0, 0, 0, 0x10);

fn quotas(subscriber: Quota, address: Quota) -> Config {
    let mut config = config();
    config.quotas = Quotas {
        subscriber,
        address,
        ..Quotas::unlimited()
    };
    config
}

fn bindings(bindings: usize) -> Quota {
    Quota {
        bindings,
        ..Quota::UNLIMITED
    }
}

#[test]
fn only_the_networks_of_the_access_list_are_served() {
    let mut config = config();
    config.clients = vec!["2001:db8:1::/48".parse().unwrap()];
    let mut nat = Nat::new(config);
    nat.udp((CLIENT, 5000), (SERVER, 53));
    let packet = udp6((STRANGER, 5000), (SERVER, 53), &[0; 2000]);
    let refused = (Why::State(DropReason::ClientRefused), 1, 1);
    assert_eq!(nat.send(&packet).reply(), refused);
    // A fragment takes no memory, and an echo no identifier.
    assert_eq!(nat.send(&in_fragments6(&packet, 1)[0]).reply(), refused);
    assert_eq!(nat.engine.fragments_v6.datagrams(), 0);
    assert_eq!(nat.send(&echo6(STRANGER, 128, 1, SERVER)).reply(), refused);
    assert_eq!((nat.bindings(), nat.sessions()), (1, 1));
    let [known] = nat.engine.refused()[..] else {
        panic!("{:?}", nat.engine.refused());
    };
    let network = "2001:db8:2:1::/64".parse().unwrap();
    let expected = (network, 3, DropReason::ClientRefused);
    assert_eq!((known.subscriber, known.packets, known.why), expected);
}

/// Otherwise paths with a smaller MTU would be black holes.
#[test]
fn routers_outside_the_access_list_may_tell_of_errors() {
    let mut config = config();
    config.clients = vec!["2001:db8:1::/48".parse().unwrap()];
    let mut nat = Nat::new(config);
    nat.udp((CLIENT, 5000), (SERVER, 53));
    let answer = nat.send(&udp4((SERVER, 53), (POOL, 5000), b"x")).packet();
    let message = compose::icmp6(STRANGER, prefix().embed(SERVER), 1, 4, [0; 4], &answer);
    let packet = V6::new(STRANGER, prefix().embed(SERVER), 58).carrying(&message);
    nat.send(&packet).packet();
    // A part of one is none, whatever its first byte looks like: it would wait for the rest.
    let part = compose::fragment(58, 0, true, 9, &message[..48]);
    let part = V6::new(STRANGER, prefix().embed(SERVER), 44).carrying(&part);
    assert_eq!(nat.send(&part), dropped(DropReason::ClientRefused));
    assert_eq!(nat.engine.fragments_v6.datagrams(), 0);
}

#[test]
fn natb_6888_01_bindings_of_an_address_and_of_a_subscriber_are_limited() {
    let mut nat = Nat::new(quotas(bindings(3), bindings(2)));
    nat.udp((CLIENT, 1), (SERVER, 53));
    nat.udp((CLIENT, 2), (SERVER, 53));
    let third = nat.send(&udp6((CLIENT, 3), (SERVER, 53), b"x")).reply();
    assert_eq!(third, (Why::State(DropReason::AddressBindings), 1, 3));
    // Its neighbour has a quota of its own, within that of both.
    nat.udp((OTHER, 1), (SERVER, 53));
    let second = nat.send(&udp6((OTHER, 2), (SERVER, 53), b"x")).reply();
    assert_eq!(second, (Why::State(DropReason::SubscriberBindings), 1, 3));
    nat.udp((STRANGER, 1), (SERVER, 53));
    // Each protocol has its own, and what there is may be used on.
    nat.send(&echo6(CLIENT, 128, 1, SERVER)).packet();
    nat.send(&tcp6((CLIENT, 1), (SERVER, 53), SYN)).packet();
    nat.udp((CLIENT, 1), (SERVER2, 53));
    // What ends is given back.
    nat.wait(302);
    nat.udp((CLIENT, 3), (SERVER, 53));
}

#[test]
fn natb_6888_01_sessions_are_limited() {
    let five = Quota {
        sessions: 5,
        ..Quota::UNLIMITED
    };
    let mut nat = Nat::new(quotas(Quota::UNLIMITED, five));
    let seen = nat.udp((CLIENT, 1), (SERVER, 1));
    for port in 2..4 {
        nat.send(&udp4((SERVER, port), seen, b"x")).packet();
    }
    // Half of it is all that servers may begin.
    let fourth = nat.send(&udp4((SERVER, 4), seen, b"x"));
    assert_eq!(fourth, dropped(DropReason::AddressSessions));
    nat.udp((CLIENT, 1), (SERVER, 5));
    nat.udp((CLIENT, 1), (SERVER, 6));
    let sixth = nat.send(&udp6((CLIENT, 1), (SERVER, 7), b"x")).reply();
    assert_eq!(sixth, (Why::State(DropReason::AddressSessions), 1, 3));
    // Those that are live go on.
    nat.send(&udp4((SERVER, 3), seen, b"x")).packet();
    nat.udp((CLIENT, 1), (SERVER, 6));
}

/// By the time of packets, to a part of a second: a second that begins gives nothing by itself.
#[test]
fn natb_6888_01_new_sessions_are_limited_by_a_bucket() {
    let ten = Quota {
        new_per_second: 10,
        burst: 3,
        ..Quota::UNLIMITED
    };
    let mut nat = Nat::new(quotas(Quota::UNLIMITED, ten));
    let mut port = 0;
    let mut begun = |nat: &mut Nat, after: u64| {
        nat.now += Duration::from_millis(after);
        let begin = |_: &u16| {
            port += 1;
            match nat.send(&udp6((CLIENT, port), (SERVER, 53), b"x")) {
                Fate::Forwarded(_) => true,
                fate => {
                    assert_eq!(fate.reply(), (Why::State(DropReason::AddressRate), 1, 3));
                    false
                }
            }
        };
        (0..5).filter(begin).count()
    };
    assert_eq!(begun(&mut nat, 950), 3);
    assert_eq!(begun(&mut nat, 99), 0);
    assert_eq!(begun(&mut nat, 1), 1);
    assert_eq!(begun(&mut nat, 250), 2);
    assert_eq!(begun(&mut nat, 10_000), 3);
    // Packets of sessions that there are cost nothing.
    nat.udp((CLIENT, 1), (SERVER, 53));
    nat.udp((STRANGER, 1), (SERVER, 53));
    let mut config = quotas(ten, ten);
    config.quotas.subscriber.burst = 601;
    assert_eq!(config.check(), Err(ConfigError::Burst));
    config.quotas.subscriber.burst = 600;
    assert_eq!(config.check(), Ok(()));
    config.quotas.address.burst = 0;
    assert_eq!(config.check(), Err(ConfigError::EmptyQuota));
}

/// RFC 6888 REQ-11: of a flood, everything above the quota is refused; nothing of anybody is lost.
#[test]
fn natb_6888_02_a_greedy_client_hurts_nobody_and_is_known() {
    let mut config = config();
    config.limits.sessions = 400;
    let ports = PortRange::new(2000, 2399).unwrap();
    config.pool = vec![PoolEntry {
        address: POOL,
        ports: ports.into(),
    }];
    config.quotas = Quotas::of_capacity(ports.len(), config.limits.sessions);
    let mut nat = Nat::new(config);
    let before = nat.udp((STRANGER, 7), (SERVER, 53));
    let mut refused = 0;
    for port in 1..1000 {
        let fate = nat.send(&udp6((CLIENT, port), (SERVER, 53), b"x"));
        refused += u64::from(matches!(fate, Fate::Replied(..)));
    }
    assert_eq!(refused, 999 - 50, "an eighth of the sessions");
    assert_eq!(nat.udp((STRANGER, 7), (SERVER, 53)), before);
    for port in 10..40 {
        nat.udp((STRANGER, port), (SERVER, 53));
    }
    nat.wait(5);
    nat.send(&udp6((OTHER, 1), (SERVER, 53), b"x")).packet();
    let [known] = nat.engine.refused()[..] else {
        panic!("{:?}", nat.engine.refused());
    };
    assert_eq!(known.subscriber.to_string(), "2001:db8:1:1::/64");
    assert_eq!(known.packets, refused);
    assert_eq!(known.why, DropReason::AddressSessions);
    assert_eq!(known.first, known.last);
    let counted = &nat.engine.stats().from_v6.dropped_by_state;
    assert_eq!(counted.get(DropReason::AddressSessions), refused);
}

/// However many clients have open ports, and whatever ends or is configured anew meanwhile.
#[test]
fn plat_5_3_01_servers_begin_at_most_half_of_all_sessions() {
    let mut config = config();
    config.limits.sessions = 20;
    let mut nat = Nat::new(config.clone());
    let client = |n: u16| Ipv6Addr::new(0x2001, 0xdb8, 1, n, 0, 0, 0, 1);
    let mut next = 0;
    let mut begin = |nat: &mut Nat| {
        let mut begun = 0;
        loop {
            next += 1;
            let to = (POOL, 2000 + next % 4);
            match nat.send(&udp4((SERVER2, next), to, b"x")) {
                Fate::Forwarded(_) => begun += 1,
                fate => {
                    let full = [DropReason::TooManyFromOutside, DropReason::TooManySessions];
                    return (
                        begun,
                        full.into_iter().find(|it| fate == dropped(*it)).unwrap(),
                    );
                }
            }
        }
    };
    let open = |nat: &mut Nat| {
        for n in 0..4 {
            nat.udp((client(n), 2000 + n), (SERVER, 53));
        }
    };
    open(&mut nat);
    assert_eq!(begin(&mut nat), (10, DropReason::TooManyFromOutside));
    // The clients have what is left of all.
    for port in 1..=6 {
        nat.udp((client(9), port), (SERVER, 53));
    }
    let packet = udp6((client(9), 7), (SERVER, 53), b"x");
    nat.send(&packet).reply();
    assert_eq!(begin(&mut nat), (0, DropReason::TooManySessions));
    for (sessions, more) in [(11, 0), (30, 5)] {
        config.limits.sessions = sessions;
        nat.engine.reconfigure(config.clone()).unwrap();
        assert_eq!(begin(&mut nat).0, more);
    }
    // What has ended, or is ended, leaves room for as many.
    nat.wait(200);
    open(&mut nat);
    nat.wait(102);
    assert_eq!(nat.sessions(), 4);
    assert_eq!(begin(&mut nat).0, 15);
    nat.engine.flush(&crate::view::Filter::default());
    open(&mut nat);
    assert_eq!(begin(&mut nat).0, 15);
}

#[test]
fn natb_6888_01_networks_on_the_pass_through_list_have_no_quota() {
    let mut config = quotas(bindings(1), bindings(1));
    config.quotas.exempt = vec!["2001:db8:2::/48".parse().unwrap()];
    let mut nat = Nat::new(config);
    for port in 1..5 {
        nat.udp((STRANGER, port), (SERVER, 53));
    }
    nat.udp((CLIENT, 1), (SERVER, 53));
    nat.send(&udp6((CLIENT, 2), (SERVER, 53), b"x")).reply();
}

/// A flood of fragments from one side leaves the memory of the other alone.
#[test]
fn plat_5_3_01_fragments_of_the_two_sides_do_not_share_memory() {
    let mut config = config();
    config.limits.fragments.datagrams = 8;
    let mut nat = Nat::new(config);
    let seen = nat.udp((CLIENT, 5000), (SERVER, 53));
    let packet = udp6((CLIENT, 5000), (SERVER, 53), &[0; 2000]);
    let answer = in_fragments4(&udp4((SERVER, 53), seen, &[0; 2000]), 7);
    assert_eq!(nat.send(&answer[0]), Fate::Forwarded(vec![]));
    for id in 0..100 {
        let fate = nat.send(&in_fragments6(&packet, id)[0]);
        assert_eq!(fate, Fate::Forwarded(vec![]));
    }
    assert_eq!(nat.engine.fragments_v6.datagrams(), 4);
    assert!(!nat.send(&answer[1]).into_packets().is_empty());
}

/// One host that sends first fragments only, or whoever does so under the address of a server, keeps
/// no datagram of the host's neighbours and no answer of that server away.
#[test]
fn plat_5_3_01_a_flood_of_fragments_stops_neither_neighbours_nor_a_server() {
    for count in [1, 8] {
        let mut shards = Shards::new(&config(), count);
        let passes = |shards: &mut Shards, parts: Vec<Vec<u8>>| {
            let fates = parts.iter().map(|it| shards.send(it));
            !fates.last().unwrap().into_packets().is_empty()
        };
        let question =
            |client, id| in_fragments6(&udp6((client, 5000), (SERVER, 53), &[7; 2000]), id);
        let first = shards.send(&udp6((CLIENT, 5000), (SERVER, 53), b"x"));
        let seen = source4(&first.packet());
        let answer = |id| in_fragments4(&udp4((SERVER, 53), seen, &[7; 2000]), id);
        for id in 0..200 {
            assert_eq!(
                shards.send(&question(OTHER, id)[0]),
                Fate::Forwarded(vec![])
            );
            let id = u16::try_from(id).unwrap();
            assert_eq!(shards.send(&answer(id)[0]), Fate::Forwarded(vec![]));
        }
        for id in 1000..1100 {
            assert!(passes(&mut shards, question(CLIENT, id.into())));
            assert!(passes(&mut shards, answer(id)));
        }
        // Each that made room is told of, as one that no others came for.
        for engine in &mut shards.engines {
            engine.handle_timeout(shards.now);
        }
        let stats = shards.engines.iter().map(Engine::stats).collect::<Vec<_>>();
        let stats = Stats::sum(&stats);
        let (held6, held4) = shards.engines.iter().fold((0, 0), |sum, it| {
            let (v6, v4) = (&it.fragments_v6, &it.fragments_v4);
            (sum.0 + v6.datagrams() as u64, sum.1 + v4.datagrams() as u64)
        });
        let gone = |side: &crate::stats::DirectionStats| side.dropped_by_translation.total();
        assert_eq!(
            (gone(&stats.from_v6), gone(&stats.from_v4)),
            (200 - held6, 200 - held4)
        );
        assert!(held6 <= 32 && held4 <= 64);
    }
}

/// Whoever sleeps until then finds the ports free, all of them and not one second's part.
#[test]
fn natb_6888_03_the_caller_is_told_when_ports_have_rested() {
    let mut config = config();
    config.timers.hold_down = Duration::from_secs(120);
    let mut nat = Nat::new(config);
    let free = nat.engine.free_ports(Protocol::Udp);
    for n in 0..600 {
        nat.udp((CLIENT, 2000 + n), (SERVER, 53));
    }
    nat.wait(302);
    assert_eq!(
        (nat.bindings(), nat.engine.free_ports(Protocol::Udp)),
        (0, free - 600)
    );
    let mut calls = 0;
    while let Some(due) = nat.engine.poll_timeout() {
        nat.now = nat.now.max(due);
        nat.engine.handle_timeout(nat.now);
        calls += 1;
        assert!(calls < 10);
    }
    assert_eq!(nat.engine.free_ports(Protocol::Udp), free);
}

#[test]
fn natb_6888_03_udp_ports_and_identifiers_rest_before_another_gets_them() {
    let mut config = config();
    config.timers.hold_down = Duration::from_secs(120);
    config.pool[0].ports = PortRange::new(2000, 2000).unwrap().into();
    let mut nat = Nat::new(config);
    nat.udp((CLIENT, 2000), (SERVER, 53));
    nat.send(&tcp6((CLIENT, 2000), (SERVER, 80), SYN)).packet();
    nat.wait(302);
    // TCP ports do not rest: the connection was seen to end.
    nat.send(&tcp6((OTHER, 2000), (SERVER, 80), SYN)).packet();
    let refused = (Why::State(DropReason::PortsExhausted), 1, 3);
    for pause in [0, 60, 58] {
        nat.wait(pause);
        let packet = udp6((OTHER, 2000), (SERVER, 53), b"x");
        assert_eq!(nat.send(&packet).reply(), refused);
    }
    nat.wait(3);
    nat.udp((OTHER, 2000), (SERVER, 53));
}

/// A config of one UDP port, the client that had it gone.
fn resting() -> (Config, Nat) {
    let mut config = config();
    config.timers.hold_down = Duration::from_secs(120);
    config.pool[0].ports = PortRange::new(2000, 2000).unwrap().into();
    let mut nat = Nat::new(config.clone());
    nat.udp((CLIENT, 2000), (SERVER, 53));
    nat.wait(302);
    assert_eq!(nat.bindings(), 0);
    (config, nat)
}

#[test]
fn natb_6888_03_ports_rest_on_under_a_new_configuration() {
    let (config, mut nat) = resting();
    nat.engine.reconfigure(config).unwrap();
    let refused = (Why::State(DropReason::PoolExhausted), 1, 3);
    let packet = udp6((OTHER, 2000), (SERVER, 53), b"x");
    assert_eq!(nat.send(&packet).reply(), refused);
    nat.wait(121);
    nat.send(&packet).packet();
}

/// A NAT64 that begins where another one ended, with what that one left.
fn restarted(config: &Config, old: &Nat) -> Nat {
    let remains = old.engine.remains();
    let mut new = Nat::new(config.clone());
    new.engine.let_rest(&remains);
    new
}

#[test]
fn natb_6888_03_ports_that_were_in_use_before_a_restart_rest() {
    let (config, mut old) = resting();
    let refused = (Why::State(DropReason::PoolExhausted), 1, 3);
    let packet = udp6((OTHER, 2000), (SERVER, 53), b"x");
    for in_use in [true, false] {
        if in_use {
            old = Nat::new(config.clone());
            old.udp((CLIENT, 2000), (SERVER, 53));
            old.send(&tcp6((CLIENT, 2000), (SERVER, 80), SYN)).packet();
        } else {
            // It rested already.
            old = resting().1;
        }
        let mut nat = restarted(&config, &old);
        assert_eq!(nat.send(&packet).reply(), refused);
        nat.wait(119);
        assert_eq!(nat.send(&packet).reply(), refused);
        // As always, not those of TCP, nor what nobody had.
        nat.send(&tcp6((OTHER, 2000), (SERVER, 80), SYN)).packet();
        nat.send(&echo6(OTHER, 128, 2000, SERVER)).packet();
        nat.wait(2);
        nat.send(&packet).packet();
    }
    // What was said by a person is said again.
    let mut nat = Nat::new(config.clone());
    let id = 2000;
    let binding = StaticBinding {
        protocol: Protocol::Udp,
        inside: Endpoint6 {
            address: CLIENT,
            id,
        },
        outside: Endpoint4 { address: POOL, id },
    };
    nat.engine.add_static(binding).unwrap();
    assert!(nat.engine.remains().is_empty());
    let mut nat = restarted(&config, &old);
    nat.engine.add_static(binding).unwrap();
    // Without a rest nothing is kept back.
    let mut none = config;
    none.timers.hold_down = Duration::ZERO;
    restarted(&none, &old).send(&packet).packet();
    // Nor in a pool that has other ports.
    none.timers.hold_down = Duration::from_secs(120);
    none.pool[0].ports = PortRange::new(3000, 3000).unwrap().into();
    restarted(&none, &old).send(&packet).packet();
}

/// RFC 6888 REQ-8 B: what is assigned by a person needs no rest.
#[test]
fn natb_6888_03_a_static_binding_gets_a_port_that_rests() {
    let (mut config, mut nat) = resting();
    let id = 2000;
    let binding = StaticBinding {
        protocol: Protocol::Udp,
        inside: Endpoint6 { address: OTHER, id },
        outside: Endpoint4 { address: POOL, id },
    };
    nat.engine.add_static(binding).unwrap();
    nat.wait(130);
    let packet = udp6((CLIENT, 2000), (SERVER, 53), b"x");
    nat.send(&packet).reply();
    // Nor is it given to others if it was none of the pool's in between.
    assert!(nat.engine.remove_binding(Protocol::Udp, binding.inside));
    let all = config.pool[0].ports.clone();
    config.pool[0].ports = PortRange::new(3000, 3000).unwrap().into();
    nat.engine.reconfigure(config.clone()).unwrap();
    nat.engine.add_static(binding).unwrap();
    config.pool[0].ports = all;
    nat.engine.reconfigure(config).unwrap();
    nat.wait(130);
    nat.send(&packet).reply();
    nat.udp((OTHER, 2000), (SERVER, 53));
}

/// A client that is no client any more is not reached either; when it is one again, its sessions
/// are still there. Nothing refreshes them meanwhile.
#[test]
fn plat_5_3_01_who_is_no_client_any_more_is_not_reached() {
    let mut nat = Nat::new(config());
    let outside = nat.udp((CLIENT, 5000), (SERVER, 53));
    let sent = udp4(outside, (SERVER, 53), b"data");
    let answer = udp4((SERVER, 53), outside, b"answer");
    let error = error4(ROUTER4, &sent, 3, 3);
    nat.send(&answer).packet();
    nat.send(&error).packet();
    let mut without = config();
    without.clients = vec!["2001:db8:2::/48".parse().unwrap()];
    nat.engine.reconfigure(without).unwrap();
    nat.wait(200);
    for packet in [&answer, &error, &udp4((SERVER2, 53), outside, b"x")] {
        assert_eq!(nat.send(packet), dropped(DropReason::ClientRefused));
    }
    assert_eq!(nat.sessions(), 1);
    nat.engine.reconfigure(config()).unwrap();
    nat.send(&answer).packet();
    let mut without = config();
    without.clients = vec!["2001:db8:2::/48".parse().unwrap()];
    nat.engine.reconfigure(without).unwrap();
    nat.wait(150);
    assert_eq!(nat.send(&answer), dropped(DropReason::ClientRefused));
    nat.wait(151);
    assert_eq!(nat.sessions(), 0);
}
