//! What each of several shards has of the whole: its part of every limit, numbers of its own, and
//! what is counted when a packet does not get from one to another.

use super::shards::{Shards, in_fragments4, source4};
use super::*;
use std::num::NonZeroU16;

use crate::{
    blocks::{Blocks, Dynamic},
    dispatch::{Dispatch, Handled},
    static_bib::{StaticBinding, StaticError},
    subscriber::{Quota, Quotas},
};

/// How many of so many packets, one for each number, are forwarded or kept.
fn taken(shards: &mut Shards, packet: impl Fn(u16) -> Vec<u8>) -> usize {
    let fates = (1..=120).map(|n| shards.send(&packet(n)));
    fates.filter(|it| matches!(it, Fate::Forwarded(_))).count()
}

/// Shards that had the whole of a limit each would take as often as much as there are of them.
#[test]
fn plat_5_3_01_limits_are_those_of_all_shards_together() {
    let mut limits = config().limits;
    limits.sessions = 8;
    let flow = |n| udp6((CLIENT, n), (SERVER, 53), b"x");
    let mut shards = Shards::new(&Config { limits, ..config() }, 4);
    assert_eq!(taken(&mut shards, flow), 8);
    limits = config().limits;
    limits.bindings = 8;
    let mut shards = Shards::new(&Config { limits, ..config() }, 4);
    assert_eq!(taken(&mut shards, flow), 8);
    let quotas = Quotas {
        address: Quota {
            sessions: 8,
            ..Quota::UNLIMITED
        },
        ..Quotas::unlimited()
    };
    let of_quotas = |blocks| Config {
        quotas: quotas.clone(),
        blocks,
        ..config()
    };
    let mut shards = Shards::new(&of_quotas(Blocks::None), 4);
    assert_eq!(taken(&mut shards, flow), 8);
    // With blocks of ports, all of a subscriber is in one shard, which grants it the whole.
    let blocks = Blocks::Dynamic(Dynamic {
        size: NonZeroU16::new(512).unwrap(),
        most: NonZeroU16::new(8).unwrap(),
    });
    let mut shards = Shards::new(&of_quotas(blocks), 4);
    assert_eq!(taken(&mut shards, flow), 8);
    limits = config().limits;
    limits.stored_syns = 8;
    let mut shards = Shards::new(&Config { limits, ..config() }, 4);
    let server = |n: u16| Ipv4Addr::from(0x0808_0000 + u32::from(n));
    let syn = |n| tcp4((server(n), 443), (POOL, 16 * n), SYN);
    assert_eq!(taken(&mut shards, syn), 8);
}

/// How many datagrams wait in all shards, on either side, after fragments of more than may.
fn waiting(shards: &mut Shards) -> (usize, usize) {
    let datagram = udp6((CLIENT, 5000), (SERVER, 53), &[0; 2000]);
    let whole = udp4((SERVER, 53), (POOL, 5000), &[0; 2000]);
    for n in 1..=400u16 {
        let parts = [
            in_fragments6(&datagram, n.into()).remove(0),
            in_fragments4(&whole, n).remove(0),
        ];
        for part in parts {
            assert_eq!(shards.send(&part), Fate::Forwarded(vec![]));
        }
    }
    let sides = |it: &Engine| (it.fragments_v6.datagrams(), it.fragments_v4.datagrams());
    let all = shards.engines.iter().map(sides);
    all.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1))
}

/// Half of them for either side, and of a source's no more than a source may have, of which an IPv6
/// address has half.
#[test]
fn plat_5_3_01_fragments_are_those_of_all_shards_together() {
    let mut limits = config().limits;
    limits.fragments.datagrams = 16;
    let mut shards = Shards::new(&Config { limits, ..config() }, 4);
    assert_eq!(waiting(&mut shards), (8, 8));
    limits = config().limits;
    limits.fragments.datagrams_per_source = 16;
    let mut shards = Shards::new(&Config { limits, ..config() }, 4);
    assert_eq!(waiting(&mut shards), (8, 16));
    // And so it stays with a new configuration.
    let mut sessions = Shards::new(&config(), 4);
    for engine in &mut sessions.engines {
        let mut limits = config().limits;
        limits.sessions = 8;
        engine.reconfigure(Config { limits, ..config() }).unwrap();
    }
    let flow = |n| udp6((CLIENT, n), (SERVER, 53), b"x");
    assert_eq!(taken(&mut sessions, flow), 8);
    for engine in &mut shards.engines {
        let mut limits = config().limits;
        limits.fragments.datagrams_per_source = 32;
        engine.reconfigure(Config { limits, ..config() }).unwrap();
    }
    assert_eq!(waiting(&mut shards), (16, 32));
}

/// Strangers that are refused, and who sends what is too long for the link, are told of it as often as
/// the whole NAT64 may tell, and one kind of error leaves the other alone.
#[test]
fn xlat_5_4_01_errors_are_those_of_all_shards_together() {
    let stranger = |n| {
        udp6(
            (Ipv6Addr::from(u128::from(CLIENT) + (1 << 64)), n),
            (SERVER, 53),
            b"x",
        )
    };
    let large = |n| udp6((CLIENT, n), (SERVER, 53), &[0; 1440]);
    let unasked = |n: u16| {
        let mut header = V4::new(SERVER, POOL, 17);
        header.ttl = 1;
        header.carrying(&compose::udp(Pair::V4(SERVER, POOL), 9, n, b"x"))
    };
    for (count, per_second) in [(1, 100), (3, 100), (8, 100), (8, 0)] {
        let config = Config {
            errors: xlat::config::ErrorPolicy::Limit {
                burst: 100,
                per_second,
            },
            clients: vec!["2001:db8:1:1::/64".parse().unwrap()],
            ipv4_mtu: 1400,
            ..config()
        };
        let mut shards = Shards::new(&config, count);
        for second in 0..3 {
            let expected = if second == 0 {
                100
            } else {
                per_second as usize
            };
            for packet in [&stranger as &dyn Fn(u16) -> Vec<u8>, &large, &unasked] {
                let fates = (1..2000).map(|n| shards.send(&packet(n)));
                let told = fates.filter(|it| matches!(it, Fate::Replied(..))).count();
                assert_eq!(told, expected, "{count} shards, second {second}");
            }
            // As it was, with a configuration that says the same.
            for engine in &mut shards.engines {
                engine.reconfigure(config.clone()).unwrap();
            }
            shards.now += Duration::from_secs(1);
        }
    }
}

/// RFC 6864 section 5.3.1: all shards write the address of the pool.
#[test]
fn xlat_5_1_03_shards_have_no_identification_in_common() {
    let mut shards = Shards::new(&config(), 4);
    let mut ids = HashSet::new();
    for n in 0..4000 {
        let packet = shards.send(&udp6((CLIENT, 5000 + n), (SERVER, 53), b"x"));
        assert!(ids.insert(Ipv4::new_checked(&packet.packet()).unwrap().id()));
    }
    // Nor have our own errors, which come from that address as well.
    ids.clear();
    let mut config = config();
    config.filtering.answer = true;
    let mut shards = Shards::new(&config, 4);
    for n in 0..1000 {
        let told = shards.send(&udp4((SERVER, 53), (POOL, 5000 + n), b"x"));
        let Fate::Replied(_, told) = told else {
            panic!("{told:?}");
        };
        assert!(ids.insert(Ipv4::new_checked(&told).unwrap().id()));
    }
}

/// Nor have datagrams that clients of several shards send to another client.
#[test]
fn xlat_5_1_03_shards_have_no_identification_in_common_towards_a_client() {
    let mut shards = Shards::new(&config(), 4);
    let opened = shards.send(&udp6((OTHER, 6000), (SERVER, 53), b"x"));
    let outside = source4(&opened.packet());
    let mut ids = HashSet::new();
    for n in 0..100 {
        let datagram = udp6((CLIENT, 5000 + n), outside, &[7; 3000]);
        let Fate::Forwarded(parts) = shards.send_all(&in_fragments6(&datagram, 9)) else {
            panic!("not turned around");
        };
        assert!(parts.len() > 1);
        assert!(ids.insert(parts[0][44..48].to_vec()), "{n}: {ids:?}");
    }
}

/// RFC 6056 section 3.3.1: whoever sees the ports that one shard gives out in turn does not know
/// those of another one.
#[test]
fn plat_3_5_1_1_01_every_shard_has_random_numbers_of_its_own() {
    let mut config = config();
    // As many chunks of ports for either shard.
    config.pool[0].ports = PortRange::new(1024, u16::MAX).unwrap().into();
    let mut shards = Shards::new(&config, 2);
    // The first client of a shard may get the port itself.
    let mut places = [Vec::new(), Vec::new()];
    for n in 1..=100 {
        let client = Ipv6Addr::from(u128::from(CLIENT) + n);
        let packet = shards.send(&udp6((client, 5000), (SERVER, 53), b"x"));
        let (_, port) = source4(&packet.packet());
        // Where a port stands among those of its shard, which has every second chunk of 16.
        let (chunk, at) = (port / 16, port % 16);
        places[usize::from(chunk % 2)].push(chunk / 2 * 16 + at);
    }
    let [one, other] = places;
    assert!(one.len() > 20 && other.len() > 20);
    for (ahead, behind) in [(&one, &other), (&other, &one)] {
        let run = &behind[1..6];
        assert!(!ahead.windows(5).any(|it| it == run), "{run:?}");
    }
}

/// Whoever saw the ports that a NAT64 gave out before a restart does not know those after it, though it
/// has the same key: so it is with blocks.
#[test]
fn plat_3_5_1_1_01_ports_are_others_after_a_restart_with_the_same_key() {
    let ports = |seed: Option<u8>| -> Vec<u16> {
        let mut shards = Shards::new(&config(), 2);
        for engine in &mut shards.engines {
            if let Some(seed) = seed {
                engine.draw_ports_anew([seed; 16]);
            }
        }
        let of = |n: u128| {
            let client = Ipv6Addr::from(u128::from(CLIENT) + n);
            let packet = shards.send(&udp6((client, 5000), (SERVER, 53), b"x"));
            source4(&packet.packet()).1
        };
        (1..=100).map(of).collect()
    };
    let same = |one: &[u16], other: &[u16]| one.iter().zip(other).filter(|it| it.0 == it.1).count();
    let (first, second) = (ports(Some(1)), ports(Some(2)));
    assert_eq!(same(&ports(None), &ports(None)), 100, "by the key alone");
    // The first of a shard may get the port itself.
    assert!(same(&first, &second) < 10 && same(&first, &ports(None)) < 10);
}

/// A client that had a static binding on an address that is gone may get another one.
#[test]
fn plat_r_01_all_shards_forget_the_static_bindings_of_an_address_that_is_gone() {
    let mut two = config();
    two.pool.push(PoolEntry {
        address: POOL2,
        ports: PortRange::ALL.into(),
    });
    let mut shards = Shards::new(&two, 4);
    let binding = |id, address, port| StaticBinding {
        protocol: Protocol::Udp,
        inside: Endpoint6 {
            address: CLIENT,
            id,
        },
        outside: Endpoint4 { address, id: port },
    };
    let add = |shards: &mut Shards, binding| -> Vec<Result<(), StaticError>> {
        let all = shards.engines.iter_mut();
        all.map(|it| it.add_static(binding)).collect()
    };
    for n in 0..20 {
        let on = |address| binding(100 + n, address, 2000 + 16 * n);
        assert_eq!(add(&mut shards, on(POOL2)), [Ok(()); 4]);
        let refused = add(&mut shards, on(POOL));
        assert!(refused.iter().any(Result::is_err), "it has one");
        shards
            .engines
            .iter_mut()
            .for_each(|it| it.cancel_static(on(POOL)));
    }
    for engine in &mut shards.engines {
        engine.reconfigure(config()).unwrap();
    }
    for n in 0..20 {
        // In another shard than before.
        let outside = 3008 + 16 * n;
        assert_eq!(
            add(&mut shards, binding(100 + n, POOL, outside)),
            [Ok(()); 4]
        );
        let packet = shards.send(&udp6((CLIENT, 100 + n), (SERVER, 53), b"x"));
        assert_eq!(source4(&packet.packet()), (POOL, outside));
    }
}

/// A packet between clients is lost on the way from the first one's shard to the second one's; an
/// error about a packet that was accounted for is not accounted for again.
#[test]
fn a_packet_between_clients_that_cannot_be_passed_on_is_counted_once() {
    let mut shards = Shards::new(&config(), 4);
    let bound: Vec<_> = (0..12)
        .map(|n| {
            let packet = shards.send(&udp6((CLIENT, 5000 + n), (SERVER, 53), b"x"));
            source4(&packet.packet())
        })
        .collect();
    let (mut lost, mut errors, mut told) = (0, 0, 0);
    for hop_limit in [64, 2] {
        for outside in &bound {
            for from in 0..12 {
                let mut packet = udp6((CLIENT, 5000 + from), *outside, b"x");
                packet[7] = hop_limit;
                let mut buf = PacketBuf::new();
                buf.set(&packet).unwrap();
                let mut at = 0;
                let mut handled = shards.engines[at].handle(&mut buf, shards.now);
                loop {
                    let passage = match handled {
                        Handled::Elsewhere(passage) => passage,
                        Handled::Here(verdict) => {
                            told += u64::from(matches!(verdict, Verdict::Reply(_)));
                            break;
                        }
                    };
                    let header = Ipv4::new_checked(buf.bytes());
                    let is_error = header.is_ok_and(|it| it.protocol() == 1);
                    // What is about an error gets as far as that.
                    if is_error || header.is_ok() && hop_limit == 64 {
                        let before = shards.accounts();
                        let why = shards.engines[at].give_up(&buf, passage);
                        assert_eq!(why, Why::State(DropReason::RingFull));
                        let (came, went) = shards.accounts();
                        assert_eq!((came, went), (before.0, before.1 + u64::from(!is_error)));
                        *(if is_error { &mut errors } else { &mut lost }) += 1;
                        break;
                    }
                    at = passage.to.index();
                    let there = &mut shards.engines[at];
                    handled = there.take_over(&mut buf, passage, shards.now);
                }
            }
        }
    }
    assert!(lost > 50 && errors > 4, "{lost} {errors}");
    let stats = shards.engines.iter().map(Engine::stats);
    let counted = stats.map(|it| it.from_v6.dropped_by_state.get(DropReason::RingFull));
    assert_eq!(counted.sum::<u64>(), lost);
    let (came, went) = shards.accounts();
    assert_eq!(came, went);
    assert_eq!(errors_sent(&shards), told);
    // Those that get there are counted, in whatever shard.
    for outside in &bound {
        for from in 0..12 {
            let mut packet = udp6((CLIENT, 5000 + from), *outside, b"x");
            packet[7] = 2;
            assert!(!matches!(shards.send(&packet), Fate::Dropped(_)));
        }
    }
    assert_eq!(errors_sent(&shards), told + 144);
}

/// How many errors all shards say that they have sent.
fn errors_sent(shards: &Shards) -> u64 {
    let stats = shards.engines.iter().map(Engine::stats);
    let sent = stats.map(|it| it.from_v6.errors_sent.get() + it.from_v4.errors_sent.get());
    sent.sum()
}

/// Whoever is taken back by its pool port, is taken back in every shard, and nobody else.
#[test]
fn plat_3_1_01_all_shards_forget_a_static_binding_that_is_removed_by_its_port() {
    let mut shards = Shards::new(&config(), 4);
    let binding = |protocol, id, port| StaticBinding {
        protocol,
        inside: Endpoint6 {
            address: CLIENT,
            id,
        },
        outside: Endpoint4 {
            address: POOL,
            id: port,
        },
    };
    let both = [Protocol::Udp, Protocol::Tcp];
    for n in 0..20 {
        for protocol in both {
            let wanted = binding(protocol, 100 + n, 2000 + 16 * n);
            for engine in &mut shards.engines {
                engine.add_static(wanted).unwrap();
            }
        }
    }
    for n in (0..20).step_by(2) {
        let wanted = binding(Protocol::Udp, 100 + n, 2000 + 16 * n);
        let removed = shards.engines.iter_mut();
        let removed = removed.filter_map(|it| {
            let removed = it.remove_binding_of(Protocol::Udp, wanted.outside);
            removed.then_some(())
        });
        assert_eq!(removed.count(), 1);
    }
    for n in 0..20 {
        for protocol in both {
            // To another shard than before.
            let wanted = binding(protocol, 100 + n, 3008 + 16 * n);
            let mut added = shards.engines.iter_mut();
            let added = added.all(|it| it.add_static(wanted).is_ok());
            let is_free = protocol == Protocol::Udp && n % 2 == 0;
            assert_eq!(added, is_free, "{wanted:?}");
        }
    }
}

/// How many shards make sense, and how many there are.
#[test]
fn shards_are_as_many_as_the_pool_has_room_for() {
    let with = |ports: u16, blocks: Option<u16>| {
        let mut config = config();
        config.pool[0].ports = PortRange::new(1024, 1023 + ports).unwrap().into();
        if let Some(size) = blocks {
            config.blocks = Blocks::Dynamic(Dynamic {
                size: NonZeroU16::new(size).unwrap(),
                most: NonZeroU16::MIN,
            });
        }
        config
    };
    let most = |ports, blocks| Dispatch::most_shards(&with(ports, blocks)).get();
    assert_eq!(
        (most(255, None), most(511, None), most(512, None)),
        (1, 1, 2)
    );
    assert_eq!((most(2048, None), most(64_000, None)), (8, 250));
    assert_eq!((most(2048, Some(512)), most(2048, Some(64))), (4, 32));
    // Not as many as there are blocks in all the ports that an address could have.
    let shards = Shards::new(&with(2048, Some(512)), 4);
    let has_ports = |it: &Engine| it.free_ports(Protocol::Udp) == 512;
    assert!(shards.engines.iter().all(has_ports));
    let counts = |it: &Engine| it.part.dispatch.shards().get() == 4;
    assert!(shards.engines.iter().all(counts));
}
