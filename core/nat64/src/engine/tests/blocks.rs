//! Ports in blocks, through the whole engine (LOG-7422-01).

use std::num::NonZeroU16;

use super::*;
use crate::{
    blocks::{Blocks, BlocksError, Deterministic, Dynamic, PortBlock, whole},
    dispatch::Dispatch,
    ports::{PortSet, Ports},
    view::Filter,
    whose::HeldBlock,
};

/// Of another subscriber than [`CLIENT`] and [`OTHER`].
const STRANGER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, 0x10);

fn some(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).unwrap()
}

/// Three blocks of 16 ports on one address; a subscriber may have two.
fn dynamic() -> Config {
    let mut config = config();
    config.blocks = Blocks::Dynamic(Dynamic {
        size: some(16),
        most: some(2),
    });
    config.pool[0].ports = PortRange::new(1024, 1024 + 3 * 16 + 5).unwrap().into();
    config.timers.hold_down = Duration::from_secs(120);
    config
}

/// What became of blocks since the last time: whether it was taken, and which.
fn changes(nat: &mut Nat) -> Vec<(bool, PortBlock)> {
    let mut blocks = Vec::new();
    nat.engine.drain_changes(|change| match change {
        Change::BlockTaken(block) => blocks.push((true, block)),
        Change::BlockGiven(block) => blocks.push((false, block)),
        _ => {}
    });
    blocks
}

fn blocks_of(nat: &Nat, client: Ipv6Addr) -> Vec<PortBlock> {
    let held = nat.engine.blocks_in(Network6::around(client, 128), 100);
    held.iter().map(|it| it.block).collect()
}

#[test]
fn log_7422_01_a_subscriber_gets_blocks_as_it_needs_them() {
    let mut nat = Nat::new(dynamic());
    nat.engine.keep_changes(Some(1000));
    let (address, first) = nat.udp((CLIENT, 5000), (SERVER, 53));
    let [(true, block)] = changes(&mut nat)[..] else {
        panic!("a block is told of");
    };
    assert_eq!(block.subscriber.to_string(), "2001:db8:1:1::/64");
    assert_eq!((block.address, block.ports.len()), (address, 16));
    assert!(block.ports.contains(first));
    // Its other hosts and protocols are served from it, too.
    nat.send(&tcp6((OTHER, 1), (SERVER, 80), SYN)).packet();
    let ports: HashSet<_> = (1..16)
        .map(|port| nat.udp((OTHER, port), (SERVER, 53)).1)
        .collect();
    assert!(ports.iter().all(|it| block.ports.contains(*it)));
    assert_eq!(ports.len(), 15);
    assert_eq!(changes(&mut nat), []);
    // One more block, and no third.
    for port in 100..116 {
        let (_, port) = nat.udp((CLIENT, port), (SERVER, 53));
        assert!(!block.ports.contains(port));
    }
    assert_eq!(changes(&mut nat).len(), 1);
    assert_eq!(blocks_of(&nat, OTHER).len(), 2);
    let fate = nat.send(&udp6((OTHER, 99), (SERVER, 53), b"x"));
    assert_eq!(
        fate.reply(),
        (Why::State(DropReason::SubscriberBlocks), 1, 3)
    );
    // What the subscriber may have, it may not find: the third is a stranger's.
    let (_, port) = nat.udp((STRANGER, 1), (SERVER, 53));
    let at = nat.engine.block_at(Endpoint4 { address, id: port });
    assert!(at.unwrap().block.subscriber.contains(STRANGER));
}

/// A subscriber that may have one more block finds none on its address, another one finds none at all.
#[test]
fn obs_01_blocks_run_out_by_two_names() {
    let mut config = dynamic();
    config.pool[0].ports = PortRange::new(1024, 1024 + 2 * 16).unwrap().into();
    let mut nat = Nat::new(config);
    nat.udp((STRANGER, 1), (SERVER, 53));
    for port in 0..16 {
        nat.udp((CLIENT, 5000 + port), (SERVER, 53));
    }
    let third = Ipv6Addr::new(0x2001, 0xdb8, 1, 3, 0, 0, 0, 1);
    let mut refused = |client| nat.send(&udp6((client, 99), (SERVER, 53), b"x")).reply().0;
    assert_eq!(refused(OTHER), Why::State(DropReason::PortsExhausted));
    assert_eq!(refused(third), Why::State(DropReason::PoolExhausted));
}

#[test]
fn log_7422_01_an_empty_block_is_given_back_when_it_has_rested() {
    let mut nat = Nat::new(dynamic());
    nat.engine.keep_changes(Some(1000));
    nat.udp((CLIENT, 5000), (SERVER, 53));
    let taken = changes(&mut nat);
    nat.wait(302);
    assert_eq!((nat.bindings(), changes(&mut nat)), (0, vec![]));
    // It is still the subscriber's, and used again.
    nat.udp((OTHER, 5000), (SERVER, 53));
    nat.wait(200);
    assert_eq!(changes(&mut nat), []);
    // Another pool that has it, too, changes nothing of that.
    let mut wider = dynamic();
    wider.timers.hold_down = Duration::from_secs(60);
    wider.pool[0].ports = PortRange::new(1024, 1024 + 4 * 16).unwrap().into();
    nat.engine.reconfigure(wider).unwrap();
    assert_eq!(changes(&mut nat), []);
    nat.wait(102);
    assert_eq!((nat.bindings(), changes(&mut nat)), (0, vec![]));
    // It rests on in another pool.
    nat.engine.reconfigure(dynamic()).unwrap();
    nat.wait(10);
    assert_eq!(changes(&mut nat), []);
    nat.wait(122);
    assert_eq!(changes(&mut nat), [(false, taken[0].1)]);
    assert_eq!(blocks_of(&nat, CLIENT), []);
}

/// A block is the same subscriber's after a restart, until it has rested.
#[test]
fn natb_6888_03_blocks_rest_over_a_restart() {
    let mut old = Nat::new(dynamic());
    let (_, id) = old.udp((CLIENT, 5000), (SERVER, 53));
    let [held] = old.engine.blocks_in("::/0".parse().unwrap(), 9)[..] else {
        panic!("one block")
    };
    let remains = old.engine.remains();
    assert_eq!(
        (remains.ports.len(), &remains.blocks[..]),
        (0, &[held.block][..])
    );
    // Of a plan that has no such block, nothing is anybody's.
    let mut other = dynamic();
    other.blocks = Blocks::Dynamic(Dynamic {
        size: some(17),
        most: some(2),
    });
    let mut nat = Nat::new(other);
    nat.engine.let_rest(&remains);
    assert_eq!(blocks_of(&nat, CLIENT), []);
    let mut nat = Nat::new(dynamic());
    nat.engine.keep_changes(Some(1000));
    nat.engine.let_rest(&remains);
    assert_eq!(changes(&mut nat), [(true, held.block)]);
    // Two of the three are left to a stranger, and its host gets the same port again.
    for port in 1..=32 {
        let (_, id) = nat.udp((STRANGER, port), (SERVER, 53));
        assert!(!held.block.ports.contains(id));
    }
    assert_eq!(changes(&mut nat).len(), 2);
    let (_, again) = nat.udp((OTHER, id), (SERVER, 53));
    assert_eq!((again, changes(&mut nat)), (id, vec![]));
    nat.wait(302);
    nat.wait(122);
    assert!(changes(&mut nat).contains(&(false, held.block)));
    // Unused, it is given back as well.
    let mut nat = Nat::new(dynamic());
    nat.engine.let_rest(&remains);
    nat.engine.keep_changes(Some(1000));
    nat.wait(119);
    assert_eq!(changes(&mut nat), []);
    nat.wait(3);
    assert_eq!(changes(&mut nat), [(false, held.block)]);
}

/// The example of RFC 7422 §2.2: C = 14, D = 2.
fn deterministic() -> Config {
    let mut config = Config::new(prefix(), &[POOL2, POOL], OWN6);
    config.errors = xlat::config::ErrorPolicy::Send;
    config.clients = vec![
        "2001:db8:1::/60".parse().unwrap(),
        "2001:db8:2::/64".parse().unwrap(),
    ];
    config.blocks = Blocks::Deterministic(Deterministic::new(some(14), 2));
    config
}

#[test]
fn log_7422_01_a_block_follows_from_the_subscribers_number_and_the_other_way() {
    let mut nat = Nat::new(deterministic());
    for (subscriber, address, ports) in [
        ("2001:db8:1::", POOL2, "1024-5055"),
        ("2001:db8:1:d::", POOL2, "53440-57471"),
        ("2001:db8:1:e::", POOL, "1024-5055"),
        ("2001:db8:2::", POOL, "9088-13119"),
    ] {
        let client: Ipv6Addr = subscriber.parse().unwrap();
        let [block] = blocks_of(&nat, client)[..] else {
            panic!("one block each");
        };
        assert_eq!(block.subscriber.first(), client);
        assert_eq!(
            (block.address, block.ports.to_string()),
            (address, ports.to_owned())
        );
        for id in [block.ports.first(), block.ports.last()] {
            let found = nat.engine.block_at(Endpoint4 { address, id });
            assert_eq!(
                found.map(|it| (it.block, it.by_number)),
                Some((block, true))
            );
        }
        // And that is where its packets come from, at random.
        nat.engine.keep_changes(Some(1000));
        let taken: Vec<_> = (1..50)
            .map(|port| nat.udp((client, port), (SERVER, 53)))
            .collect();
        assert!(
            taken
                .iter()
                .all(|it| it.0 == address && block.ports.contains(it.1))
        );
        let steps: HashSet<_> = taken
            .windows(2)
            .map(|it| it[1].1.wrapping_sub(it[0].1))
            .collect();
        assert!(steps.len() > 40, "{steps:?}");
        assert_eq!(changes(&mut nat), []);
    }
    let nobodys = |id| nat.engine.block_at(Endpoint4 { address: POOL2, id });
    assert_eq!((nobodys(1023), nobodys(57_472)), (None, None));
    assert_eq!(blocks_of(&nat, STRANGER).len(), 1);
}

/// RFC 7422 §2, steps 2 to 4: C = 2 of 21 504 ports each on one address, and behind them as many in
/// blocks of 16, of which a subscriber may have two.
fn overflowing() -> Config {
    let mut config = Config::new(prefix(), &[POOL], OWN6);
    config.errors = xlat::config::ErrorPolicy::Send;
    config.clients = vec!["2001:db8:1::/63".parse().unwrap()];
    config.blocks = Blocks::Deterministic(Deterministic {
        spare_size: some(16),
        spare_most: 2,
        ..Deterministic::new(some(2), 1)
    });
    // Little of each is served.
    let own = "1024-22527,22528-44031";
    let ports: PortSet = format!("{own},44032-44079").parse().unwrap();
    config.pool[0].ports = Ports {
        udp: ports.clone(),
        tcp: ports.clone(),
        icmp: ports,
    };
    config.timers.hold_down = Duration::from_secs(120);
    config
}

#[test]
fn log_7422_01_who_needs_more_than_its_block_is_given_spare_ones() {
    let mut nat = Nat::new(overflowing());
    nat.engine.keep_changes(Some(1_000_000));
    let (one, other): (Ipv6Addr, Ipv6Addr) = (
        "2001:db8:1::1".parse().unwrap(),
        "2001:db8:1:1::1".parse().unwrap(),
    );
    // All of its own, whatever port the client uses itself, before anything that must be logged.
    for port in 1..=21_504 {
        let wanted = if port == 7 { 44_035 } else { port };
        let (_, id) = nat.udp((one, wanted), (SERVER, 53));
        assert!((1024..=22_527).contains(&id), "{id}");
    }
    assert_eq!(changes(&mut nat), []);
    // Another protocol has room.
    nat.send(&tcp6((one, 1), (SERVER, 80), SYN)).packet();
    assert_eq!(changes(&mut nat), []);
    // Also when it has a spare one by now, in which the client's own port would be free.
    let (_, spare) = nat.udp((one, 49_000), (SERVER, 53));
    let free = if spare % 2 == 0 { spare + 1 } else { spare - 1 };
    nat.engine.flush(&Filter {
        client_port: Some(100),
        ..Filter::default()
    });
    let (_, id) = nat.udp((one, free), (SERVER, 53));
    assert!((1024..=22_527).contains(&id), "{id}");
    nat.engine.flush(&Filter {
        client_port: Some(49_000),
        ..Filter::default()
    });
    let more: Vec<_> = (50_000..50_032)
        .map(|port| nat.udp((one, port), (SERVER, 53)).1)
        .collect();
    let taken = changes(&mut nat);
    assert!(more.iter().all(|it| (44_032..44_080).contains(it)));
    let [(true, first), (true, second)] = taken[..] else {
        panic!("{taken:?}");
    };
    for (block, ports) in [(first, &more[..16]), (second, &more[16..])] {
        assert_eq!(block.subscriber.to_string(), "2001:db8:1::/64");
        assert_eq!((block.address, block.ports.len()), (POOL, 16));
        assert!(ports.iter().all(|it| block.ports.contains(*it)));
        let held = nat.engine.block_at(Endpoint4 {
            address: POOL,
            id: ports[0],
        });
        assert_eq!(
            held,
            Some(HeldBlock {
                block,
                by_number: false
            })
        );
    }
    assert_eq!(
        nat.engine
            .blocks_in("2001:db8:1::/64".parse().unwrap(), 9)
            .len(),
        3
    );
    // No third, although there is one: that is for its neighbour.
    let refused = nat.send(&udp6((one, 60_000), (SERVER, 53), b"x")).reply();
    assert_eq!(refused, (Why::State(DropReason::SubscriberBlocks), 1, 3));
    for port in 1..=21_504 + 16 {
        nat.udp((other, port), (SERVER, 53));
    }
    let neighbours = changes(&mut nat);
    assert!(matches!(neighbours[..], [(true, block)] if block.subscriber.contains(other)));
    // What it may have is not there any more.
    let refused = nat.send(&udp6((other, 60_000), (SERVER, 53), b"x")).reply();
    assert_eq!(refused, (Why::State(DropReason::PortsExhausted), 1, 3));
    // Given back when they have rested, and told.
    nat.wait(302);
    assert_eq!((nat.bindings(), changes(&mut nat)), (0, vec![]));
    nat.wait(122);
    let mut given = changes(&mut nat);
    given.sort_by_key(|it| it.1.ports);
    let mut all = [taken, neighbours].concat();
    all.sort_by_key(|it| it.1.ports);
    let all: Vec<_> = all.into_iter().map(|it| (false, it.1)).collect();
    assert_eq!(given, all);
    assert_eq!(
        nat.engine.block_at(Endpoint4 {
            address: POOL,
            id: more[0]
        }),
        None
    );
}

/// With several shards, each has spare blocks for the subscribers that are its own.
#[test]
fn log_7422_01_every_shard_has_spare_blocks() {
    let config = overflowing();
    // Three spare blocks of each address are served, but two subscribers.
    assert_eq!(Dispatch::most_shards(&config).get(), 2);
    let all = whole(deterministic().blocks, &Ports::all());
    assert_eq!(all, (14, 8064 / 256));
    let (numbered, given) = whole(config.blocks, &config.pool[0].ports);
    assert_eq!((numbered, given), (2, 3));
    // D = 0, or none for anybody: nothing is given, also not of what is left over.
    for (subscribers, spare, spare_most) in [(1000, 0, 4), (14, 2, 0)] {
        let mut config = deterministic();
        let blocks = Deterministic::new(some(subscribers), spare);
        config.blocks = Blocks::Deterministic(Deterministic {
            spare_most,
            ..blocks
        });
        let mut nat = Nat::new(config);
        let client = "2001:db8:1::1".parse().unwrap();
        for n in 0..blocks.size() {
            nat.udp((client, n + 1), (SERVER, 53));
        }
        let refused = nat
            .send(&udp6((client, 60_000), (SERVER, 53), b"x"))
            .reply();
        assert_eq!(refused, (Why::State(DropReason::SubscriberBlocks), 1, 3));
    }
}

#[test]
fn log_7422_01_what_makes_no_blocks_is_refused() {
    let refused = |change: &dyn Fn(&mut Config)| {
        let mut config = deterministic();
        change(&mut config);
        match config.check() {
            Err(ConfigError::Blocks(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    let few = PortRange::new(2000, 3000).unwrap();
    assert_eq!(refused(&|it| it.clients.clear()), BlocksError::Uncounted);
    let small = "2001:db8:3::/65".parse().unwrap();
    let error = refused(&|it| it.clients.push(small));
    assert_eq!(error, BlocksError::Clients(small));
    let twice = "2001:db8:1:8::/64".parse().unwrap();
    let error = refused(&|it| it.clients.push(twice));
    assert_eq!(error, BlocksError::Clients(twice));
    let error = refused(&|it| it.quotas.prefix_len = 68);
    let (subscribers, blocks) = (17 * 16, 28);
    assert_eq!(
        error,
        BlocksError::TooMany {
            subscribers,
            blocks
        }
    );
    let error = refused(&|it| it.pool[0].ports = few.into());
    assert_eq!(error, BlocksError::NoBlock(POOL2));
    let size = |size| {
        Blocks::Dynamic(Dynamic {
            size: some(size),
            most: some(1),
        })
    };
    assert_eq!(refused(&|it| it.blocks = size(15)), BlocksError::Size);
    for spare_size in [15, 8065] {
        let error = refused(&|it| {
            it.blocks = Blocks::Deterministic(Deterministic {
                spare_size: some(spare_size),
                ..Deterministic::new(some(14), 2)
            });
        });
        assert_eq!(error, BlocksError::SpareSize { spare: 8064 });
    }
    let error = refused(&|it| {
        it.blocks = size(1024);
        it.pool[1].ports = few.into();
    });
    assert_eq!(error, BlocksError::NoBlock(POOL));
    // Without blocks, nothing of that is fixed.
    let mut config = config();
    let mut nat = Nat::new(config.clone());
    config.quotas.prefix_len = 56;
    nat.engine.reconfigure(config).unwrap();
    // What ports are known by does not change under those who have them.
    let mut nat = Nat::new(deterministic());
    let mut other = deterministic();
    other.clients.reverse();
    let error = nat.engine.reconfigure(other).unwrap_err();
    assert_eq!(error, ConfigError::Blocks(BlocksError::Fixed));
}

/// A network has those of all its subscribers, and one in a subscriber has that one's.
#[test]
fn log_7422_01_the_blocks_of_a_network_and_of_an_address() {
    let nat = Nat::new(deterministic());
    let network = |text: &str, most| {
        let held = nat.engine.blocks_in(text.parse().unwrap(), most);
        assert!(held.iter().all(|it| it.by_number));
        let held = held.iter().map(|it| it.block.subscriber.to_string());
        held.collect::<Vec<_>>()
    };
    assert_eq!(network("2001:db8:1:3::7/128", 9), ["2001:db8:1:3::/64"]);
    assert_eq!(network("2001:db8:1:3::/64", 9), ["2001:db8:1:3::/64"]);
    let four = network("2001:db8:1:4::/62", 9);
    assert_eq!((four.len(), four[3].as_str()), (4, "2001:db8:1:7::/64"));
    assert_eq!(network("2001:db8::/32", 99).len(), 17);
    assert_eq!(network("2001:db8::/32", 5).len(), 5);
    assert_eq!(network("2001:db8:3::/48", 9), [""; 0]);
    let on = |address, most| nat.engine.blocks_on(address, most);
    // 16 + 1 subscribers, 14 on each address.
    assert_eq!((on(POOL2, 99).len(), on(POOL, 99).len()), (14, 3));
    assert_eq!((on(POOL2, 5).len(), on(SERVER, 99).len()), (5, 0));
    assert!(on(POOL, 99).iter().all(|it| it.block.address == POOL));
}

#[test]
fn log_7422_01_the_binding_of_a_port() {
    let mut nat = Nat::new(deterministic());
    let client = "2001:db8:1:d::9".parse().unwrap();
    let (address, id) = nat.udp((client, 700), (SERVER, 53));
    let outside = Endpoint4 { address, id };
    let binding = nat.engine.binding_at(Protocol::Udp, outside).unwrap();
    assert_eq!((binding.inside.address, binding.inside.id), (client, 700));
    assert_eq!(nat.engine.binding_at(Protocol::Tcp, outside), None);
}

/// How long a block rests is what was set last, and the caller is told when it is over.
#[test]
fn log_7422_01_how_long_a_block_rests_can_be_set_anew() {
    let mut nat = Nat::new(dynamic());
    nat.engine.keep_changes(Some(1000));
    let mut shorter = dynamic();
    shorter.timers.hold_down = Duration::from_secs(10);
    nat.engine.reconfigure(shorter).unwrap();
    nat.udp((CLIENT, 5000), (SERVER, 53));
    changes(&mut nat);
    nat.wait(301);
    assert_eq!((nat.bindings(), changes(&mut nat)), (0, vec![]));
    let due = nat.engine.poll_timeout().unwrap() - nat.now;
    assert!(due <= Duration::from_secs(12), "{due:?}");
    nat.wait(12);
    assert!(matches!(changes(&mut nat)[..], [(false, _)]));
    assert_eq!(nat.engine.poll_timeout(), None);
}

/// A block that rests already rests no longer than is said now, as a port.
#[test]
fn log_7422_01_a_block_that_rests_does_not_rest_longer_than_is_said_now() {
    let mut longer = dynamic();
    longer.timers.hold_down = Duration::from_secs(3600);
    let mut nat = Nat::new(longer);
    nat.engine.keep_changes(Some(1000));
    let [one, other, third] =
        [1, 2, 3].map(|n| Ipv6Addr::new(0x2001, 0xdb8, 1, 0x100 + n, 0, 0, 0, 1));
    for client in [one, other, third] {
        nat.udp((client, 5000), (SERVER, 53));
    }
    // All of them rest, and one is in use again.
    nat.wait(301);
    nat.udp((third, 5000), (SERVER, 53));
    changes(&mut nat);
    let mut shorter = dynamic();
    shorter.timers.hold_down = Duration::from_secs(10);
    nat.engine.reconfigure(shorter).unwrap();
    assert_eq!(changes(&mut nat), []);
    nat.wait(12);
    let given = changes(&mut nat);
    let mut whose: Vec<_> = given.iter().map(|it| it.1.subscriber.first()).collect();
    whose.sort();
    let network = |it: Ipv6Addr| Ipv6Addr::from_bits(it.to_bits() >> 64 << 64);
    assert_eq!(whose, [network(one), network(other)]);
    assert!(given.iter().all(|it| !it.0));
    nat.wait(200);
    assert_eq!(changes(&mut nat), []);
}

/// Whoever logs blocks is told of those that are not served any more.
#[test]
fn log_7422_01_a_block_of_an_address_that_is_gone_is_given_back() {
    let mut two = dynamic();
    two.pool.push(PoolEntry {
        address: POOL2,
        ..two.pool[0].clone()
    });
    let mut nat = Nat::new(two);
    nat.engine.keep_changes(Some(1000));
    let networks = (0..4).map(|n| Ipv6Addr::new(0x2001, 0xdb8, 1, 0x100 + n, 0, 0, 0, 1));
    for client in networks {
        nat.udp((client, 5000), (SERVER, 53));
    }
    let taken = changes(&mut nat);
    let mut gone: Vec<_> = taken
        .into_iter()
        .filter(|it| it.1.address == POOL2)
        .collect();
    assert!(!gone.is_empty() && gone.len() < 4, "both have some");
    nat.engine.reconfigure(dynamic()).unwrap();
    gone.iter_mut().for_each(|it| it.0 = false);
    assert_eq!(changes(&mut nat), gone);
}
