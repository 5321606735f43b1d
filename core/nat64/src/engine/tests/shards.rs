//! Several shards are one NAT64.

use std::num::{NonZeroU8, NonZeroU16};

use super::*;
use crate::{
    blocks::{Blocks, Deterministic, Dynamic},
    dispatch::{Handled, ShardId},
    restart::Remains,
    static_bib::{StaticBinding, StaticError},
    subscriber::Quotas,
};

fn some(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).unwrap()
}

/// Shards, between which packets are passed on as workers do.
pub(super) struct Shards {
    pub(super) engines: Vec<Engine>,
    pub(super) now: Instant,
    /// Where the next packet arrives. The kernel knows nothing of shards.
    queue: usize,
    /// How many passed from one to another.
    passed_on: usize,
}

impl Shards {
    pub(super) fn new(config: &Config, count: u8) -> Self {
        #[expect(clippy::disallowed_methods, reason = "virtual time needs an origin")]
        let now = Instant::now();
        let count = NonZeroU8::new(count).unwrap();
        let engine = |shard| Engine::for_shard(config.clone(), [7; 16], count, shard, now).unwrap();
        Self {
            engines: ShardId::all(count).map(engine).collect(),
            now,
            queue: 0,
            passed_on: 0,
        }
    }

    pub(super) fn send(&mut self, packet: &[u8]) -> Fate {
        let mut buf = PacketBuf::new();
        buf.set(packet).unwrap();
        let count = self.engines.len();
        self.queue = (self.queue + 1) % count;
        let mut handled = self.engines[self.queue].handle(&mut buf, self.now);
        let mut passages = 0;
        loop {
            match handled {
                Handled::Here(verdict) => return Fate::of(verdict, &mut buf),
                Handled::Elsewhere(passage) => {
                    passages += 1;
                    assert!(passages <= 4, "goes around in circles");
                    self.passed_on += 1;
                    let there = &mut self.engines[passage.to.index()];
                    handled = there.take_over(&mut buf, passage, self.now);
                }
            }
        }
    }

    /// Sends fragments, of which all but the last are kept.
    pub(super) fn send_all(&mut self, fragments: &[Vec<u8>]) -> Fate {
        let (last, others) = fragments.split_last().unwrap();
        for fragment in others {
            assert_eq!(self.send(fragment), Fate::Forwarded(Vec::new()));
        }
        self.send(last)
    }

    /// In and out over all shards.
    pub(super) fn accounts(&self) -> (u64, u64) {
        let (mut came, mut went) = (0, 0);
        for engine in &self.engines {
            let stats = engine.stats();
            for side in [&stats.from_v6, &stats.from_v4] {
                came += side.packets_in.get();
                went += side.passed.get()
                    + side.kept.get()
                    + side.dropped_by_state.total()
                    + side.dropped_by_translation.total();
            }
        }
        (came, went)
    }

    fn free_ports(&self, protocol: Protocol) -> usize {
        let free = self
            .engines
            .iter()
            .map(|engine| engine.free_ports(protocol));
        free.sum()
    }
}

pub(super) fn in_fragments4(packet: &[u8], id: u16) -> Vec<Vec<u8>> {
    let header = Ipv4::new_checked(packet).unwrap();
    let chunks: Vec<_> = header.payload().chunks(1480).collect();
    let fragment = |(i, chunk): (usize, &&[u8])| {
        let mut header = V4::new(header.src(), header.dst(), header.protocol());
        header.id = id;
        header.mf = i + 1 < chunks.len();
        header.offset = (i * 1480 / 8) as u16;
        header.carrying(chunk)
    };
    chunks.iter().enumerate().map(fragment).collect()
}

pub(super) fn source4(packet: &[u8]) -> (Ipv4Addr, u16) {
    let header = Ipv4::new_checked(packet).unwrap();
    assert_eq!(transport_checksum_ok(packet), Some(true));
    let payload = header.payload();
    let id = if header.protocol() == 1 {
        u16::from_be_bytes([payload[4], payload[5]])
    } else {
        transport::ports(payload).unwrap().0
    };
    (header.src(), id)
}

fn destination6(packet: &[u8]) -> Ipv6Addr {
    Ipv6::new_checked(packet).unwrap().dst()
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Udp,
    UdpInFragments,
    Tcp,
    Echo,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever queue a packet comes by: the shard that made a binding gets the answers, whole or
    /// in fragments, and the ICMP errors from both sides; no two clients have the same outside, and
    /// a client is on one address in all shards.
    #[test]
    fn the_shard_that_made_a_binding_gets_the_answers(
        count in 1u8..6,
        queue in any::<usize>(),
        blocks in prop::sample::select(vec![
            Blocks::None,
            Blocks::Dynamic(Dynamic { size: some(512), most: some(8) }),
            Blocks::Deterministic(Deterministic::new(some(14), 2)),
        ]),
        flows in proptest::collection::vec(
            (
                prop::sample::select(vec![Kind::Udp, Kind::UdpInFragments, Kind::Tcp, Kind::Echo]),
                0u16..6,
                1u16..65535,
            ),
            1..60,
        ),
    ) {
        let config = Config {
            errors: xlat::config::ErrorPolicy::Send,
            // With blocks, some hosts share a subscriber's ports and others do not.
            clients: vec!["2001:db8:1:1::/124".parse().unwrap()],
            blocks,
            quotas: Quotas { prefix_len: 127, ..Quotas::unlimited() },
            ..Config::new(prefix(), &[POOL, POOL2], OWN6)
        };
        let mut shards = Shards::new(&config, count);
        shards.queue = queue % usize::from(count);
        let mut outsides: HashSet<(u8, Ipv4Addr, u16)> = HashSet::new();
        let mut insides = HashSet::new();
        let mut addresses = std::collections::HashMap::new();
        for (n, (kind, host, port)) in flows.into_iter().enumerate() {
            let client = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, host);
            let inside = (client, port);
            let server = (SERVER, 53);
            let id = n as u32;
            let sent = match kind {
                Kind::Udp => shards.send(&udp6(inside, server, b"question")),
                Kind::UdpInFragments => {
                    let mut parts = in_fragments6(&udp6(inside, server, &[9; 3000]), id);
                    parts.reverse();
                    shards.send_all(&parts)
                }
                Kind::Tcp => shards.send(&tcp6(inside, server, SYN)),
                Kind::Echo => shards.send(&echo6(client, 128, port, SERVER)),
            };
            let Fate::Forwarded(sent) = sent else {
                panic!("not forwarded: {sent:?}");
            };
            // One too long for the link leaves in fragments, of which the first shows the ports.
            let outside = if matches!(kind, Kind::UdpInFragments) {
                let header = Ipv4::new_checked(&sent[0]).unwrap();
                (header.src(), transport::ports(header.payload()).unwrap().0)
            } else {
                source4(&sent[0])
            };
            let number = sent[0][9];
            if insides.insert((number, inside)) {
                prop_assert!(outsides.insert((number, outside.0, outside.1)), "{:?}", outside);
            }
            if blocks != Blocks::None {
                let mut owners = shards.engines.iter().filter_map(|it| {
                    it.block_at(Endpoint4 { address: outside.0, id: outside.1 })
                });
                prop_assert!(owners.all(|it| it.block.subscriber.contains(client)));
            }
            let address = *addresses.entry(client).or_insert(outside.0);
            prop_assert_eq!(address, outside.0);

            let answer = match kind {
                Kind::Udp => udp4(server, outside, b"answer"),
                Kind::UdpInFragments => udp4(server, outside, &[8; 1000]),
                Kind::Tcp => tcp4(server, outside, SYN | ACK),
                Kind::Echo => echo4(SERVER, 0, outside.1, outside.0),
            };
            let answered = shards.send(&answer).packet();
            prop_assert_eq!(destination6(&answered), client);
            if matches!(kind, Kind::UdpInFragments) {
                let whole = udp4(server, outside, &[8; 3000]);
                let parts = in_fragments4(&whole, id as u16);
                let Fate::Forwarded(parts) = shards.send_all(&parts) else {
                    panic!("fragments of an answer were lost");
                };
                prop_assert_eq!(destination6(&parts[0]), client);
            }

            // A router on either side complains about what it saw.
            let told = shards.send(&error4(ROUTER4, &sent[0], 11, 0)).packet();
            prop_assert_eq!(destination6(&told), client);
            let told = shards.send(&error6(ROUTER6, &answered, 1, 4, [0; 4])).packet();
            prop_assert_eq!(Ipv4::new_checked(&told).unwrap().dst(), SERVER);
        }
        let (came, went) = shards.accounts();
        prop_assert_eq!(came, went);
        prop_assert_eq!(shards.passed_on == 0, count == 1);
    }

    /// Every port of the pool is one shard's, and every shard has both parities and ranges.
    #[test]
    fn ports_are_dealt_out_once(count in 1u8..=16, first in 1u16..60000, len in 1u16..5000) {
        let mut config = config();
        config.pool[0].ports = PortRange::new(first, first + len - 1).unwrap().into();
        let shards = Shards::new(&config, count);
        for protocol in Protocol::ALL {
            prop_assert_eq!(shards.free_ports(protocol), usize::from(len));
            let free = shards.engines.iter().map(|it| it.free_ports(protocol));
            let (least, most) = free.fold((usize::MAX, 0), |(a, b), n| (a.min(n), b.max(n)));
            prop_assert!(most - least <= 32);
        }
    }
}

/// Whoever breaks the agreement is found: here the port of the answer is another shard's.
#[test]
fn an_answer_to_a_port_of_another_shard_finds_nothing() {
    let mut shards = Shards::new(&config(), 4);
    let sent = shards
        .send(&udp6((CLIENT, 5000), (SERVER, 53), b"x"))
        .packet();
    let (address, port) = source4(&sent);
    let wrong = (address, port.wrapping_add(16));
    let fate = shards.send(&udp4((SERVER, 53), wrong, b"x"));
    assert_eq!(fate, dropped(DropReason::NoBinding));
}

/// A subscriber's spare blocks are in its shard and on its address, whichever of its hosts needs
/// them (RFC 6888 REQ-2).
#[test]
fn log_7422_01_spare_blocks_are_where_their_subscriber_is() {
    let config = Config {
        clients: vec!["2001:db8:1:1::/124".parse().unwrap()],
        // 16 ports by number, and up to four times as many.
        blocks: Blocks::Deterministic(Deterministic::new(some(3000), 1000)),
        quotas: Quotas {
            prefix_len: 127,
            ..Quotas::unlimited()
        },
        errors: xlat::config::ErrorPolicy::Send,
        ..Config::new(prefix(), &[POOL, POOL2], OWN6)
    };
    let mut shards = Shards::new(&config, 4);
    let mut outsides = HashSet::new();
    for subscriber in 0..8 {
        let host = |n| Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 2 * subscriber + n);
        let mut addresses = HashSet::new();
        for n in 1..=80 {
            let client = (host(u16::from(n > 16)), n);
            let sent = shards.send(&udp6(client, (SERVER, 53), b"x")).packet();
            let outside = source4(&sent);
            assert!(outsides.insert(outside), "{outside:?}");
            addresses.insert(outside.0);
            let answer = shards.send(&udp4((SERVER, 53), outside, b"y")).packet();
            assert_eq!(destination6(&answer), client.0);
        }
        assert_eq!(addresses.len(), 1);
        let fate = shards.send(&udp6((host(0), 99), (SERVER, 53), b"x"));
        let refused = (Why::State(DropReason::SubscriberBlocks), 1, 3);
        assert_eq!(fate.reply(), refused);
    }
}

/// Whoever had a port: with other shards than before, each has rest what is its own now.
#[test]
fn natb_6888_03_what_shards_leave_rests_in_others() {
    let mut config = config();
    config.timers.hold_down = Duration::from_secs(120);
    let mut old = Shards::new(&config, 3);
    let mut had = HashSet::new();
    for port in 1000..1100 {
        let sent = old.send(&udp6((CLIENT, port), (SERVER, 53), b"x")).packet();
        had.insert(source4(&sent));
    }
    let remains: Vec<_> = old.engines.iter().map(Engine::remains).collect();
    let ports = |it: &Remains| -> usize { it.ports.iter().map(|it| it.ports.len()).sum() };
    assert_eq!(remains.iter().map(ports).sum::<usize>(), 100);
    let mut new = Shards::new(&config, 2);
    for engine in &mut new.engines {
        remains.iter().for_each(|it| engine.let_rest(it));
    }
    assert_eq!(new.free_ports(Protocol::Udp), usize::from(u16::MAX) - 100);
    for port in 1000..1100 {
        let sent = new.send(&udp6((OTHER, port), (SERVER, 53), b"x")).packet();
        assert!(!had.contains(&source4(&sent)));
    }
}

/// With the same key and as many shards, also when there is no other block left.
#[test]
fn natb_6888_03_subscribers_of_several_shards_have_their_blocks_after_a_restart() {
    let mut config = config();
    config.timers.hold_down = Duration::from_secs(120);
    let (size, most) = (some(1000), some(1));
    config.blocks = Blocks::Dynamic(Dynamic { size, most });
    let mut old = Shards::new(&config, 4);
    let is_served = |shards: &mut Shards, n: &u16| {
        let client = Ipv6Addr::new(0x2001, 0xdb8, 7, *n, 0, 0, 0, 1);
        let fate = shards.send(&udp6((client, 5000), (SERVER, 53), b"x"));
        matches!(fate, Fate::Forwarded(_))
    };
    let served: Vec<_> = (0..400).filter(|n| is_served(&mut old, n)).collect();
    assert_eq!(served.len(), 64);
    let remains: Vec<_> = old.engines.iter().map(Engine::remains).collect();
    let mut new = Shards::new(&config, 4);
    for engine in &mut new.engines {
        remains.iter().for_each(|it| engine.let_rest(it));
    }
    assert!(!is_served(&mut new, &1000), "every block is somebody's");
    assert!(served.iter().all(|n| is_served(&mut new, n)));
}

/// What belongs to a busy shard is lost with a name, and counted once.
#[test]
fn a_packet_that_cannot_be_passed_on_is_counted() {
    let mut shards = Shards::new(&config(), 4);
    let mut lost = 0;
    for port in 1000..1100 {
        let mut buf = PacketBuf::new();
        buf.set(&udp6((CLIENT, port), (SERVER, 53), b"x")).unwrap();
        let engine = &mut shards.engines[0];
        if let Handled::Elsewhere(passage) = engine.handle(&mut buf, shards.now) {
            assert!(passage.is_untouched());
            assert_eq!(engine.give_up(&buf, passage), DropReason::RingFull.into());
            lost += 1;
        }
    }
    // In fragments: put together here, and lost as a whole.
    for port in 1000..1100 {
        let parts = in_fragments6(&udp6((CLIENT, port), (SERVER, 53), &[1; 2000]), port.into());
        for part in parts {
            let mut buf = PacketBuf::new();
            buf.set(&part).unwrap();
            let engine = &mut shards.engines[0];
            if let Handled::Elsewhere(passage) = engine.handle(&mut buf, shards.now) {
                assert_eq!(passage.is_untouched(), !buf.offload.reassembled);
                engine.give_up(&buf, passage);
                lost += 1;
            }
        }
    }
    assert!(lost > 50, "{lost}");
    let stats = shards.engines[0].stats();
    let counted = stats.from_v6.dropped_by_state.get(DropReason::RingFull);
    assert_eq!(counted, lost);
    let (came, went) = shards.accounts();
    assert_eq!((came, went), (300, 300));
}

/// A static binding is in the shard of its port, wherever its client would belong; a client that
/// has another binding somewhere keeps that.
#[test]
fn plat_3_1_01_static_bindings_in_shards() {
    let mut shards = Shards::new(&config(), 4);
    let add = |shards: &mut Shards, binding: StaticBinding| {
        let all = shards.engines.iter_mut().map(|it| it.add_static(binding));
        let all: Result<Vec<()>, StaticError> = all.collect::<Vec<_>>().into_iter().collect();
        if all.is_err() {
            for engine in &mut shards.engines {
                engine.cancel_static(binding);
            }
        }
        all.map(|_| ())
    };
    let binding = |client: u16, port: u16| StaticBinding {
        protocol: Protocol::Udp,
        inside: Endpoint6 {
            address: CLIENT,
            id: client,
        },
        outside: Endpoint4 {
            address: POOL,
            id: port,
        },
    };
    for n in 0..40 {
        assert_eq!(add(&mut shards, binding(100 + n, 2000 + 16 * n)), Ok(()));
    }
    for n in 0..40 {
        let (inside, outside) = ((CLIENT, 100 + n), (POOL, 2000 + 16 * n));
        let packet = shards.send(&udp4((SERVER, 53), outside, b"x")).packet();
        assert_eq!(destination6(&packet), CLIENT);
        let packet = shards.send(&udp6(inside, (SERVER, 53), b"x")).packet();
        assert_eq!(source4(&packet), outside);
        // It has one already.
        for port in [6000, 6016, 6032, 6048] {
            assert!(add(&mut shards, binding(100 + n, port)).is_err());
        }
        let packet = shards.send(&udp6(inside, (SERVER, 54), b"x")).packet();
        assert_eq!(source4(&packet), outside);
    }
    let bindings =
        |shards: &Shards| -> usize { shards.engines.iter().map(|it| it.table_sizes().0).sum() };
    assert_eq!(bindings(&shards), 40);
    for n in 0..40 {
        let StaticBinding {
            inside, outside, ..
        } = binding(100 + n, 2000 + 16 * n);
        // By either end.
        let remove = |it: &mut Engine| match n % 2 {
            0 => it.remove_binding(Protocol::Udp, inside),
            _ => it.remove_binding_of(Protocol::Udp, outside),
        };
        let removed = shards
            .engines
            .iter_mut()
            .filter_map(|it| remove(it).then_some(()))
            .count();
        assert_eq!(removed, 1);
    }
    assert_eq!(bindings(&shards), 0);
    let free = shards.free_ports(Protocol::Udp);
    assert_eq!(free, usize::from(u16::MAX));
    shards
        .send(&udp6((CLIENT, 100), (SERVER, 53), b"x"))
        .packet();
}

/// Two clients whose bindings are in whichever shards meet in both directions.
#[test]
fn plat_3_8_01_clients_of_different_shards_meet() {
    let mut shards = Shards::new(&config(), 4);
    let mut bound = Vec::new();
    for n in 0..6 {
        let client = (CLIENT, 5000 + n);
        let packet = shards.send(&udp6(client, (SERVER, 53), b"x")).packet();
        let port = transport::ports(&packet[20..]).unwrap().0;
        bound.push((client, (POOL, port)));
    }
    for (from, from_outside) in &bound {
        for (to, to_outside) in &bound {
            let packet = shards.send(&udp6(*from, *to_outside, b"x")).packet();
            assert_eq!(transport_checksum_ok(&packet), Some(true));
            let header = Ipv6::new_checked(&packet).unwrap();
            assert_eq!((header.src(), header.dst()), (prefix().embed(POOL), to.0));
            let ports = transport::ports(header.from_offset(40)).unwrap();
            assert_eq!(ports, (from_outside.1, to.1));
        }
    }
    let (came, went) = shards.accounts();
    assert_eq!(came, went);
}

/// The SYN of a client to another one that is not there: told by whichever shard kept it.
#[test]
fn plat_3_8_01_an_unanswered_syn_is_told_to_a_client_of_another_shard() {
    let mut shards = Shards::new(&config(), 4);
    let (mut told, mut elsewhere) = (0, 0);
    for port in 0..40 {
        let syn = tcp6((CLIENT, 20_000 + port), (POOL, 30_000 + 16 * port), SYN);
        assert_eq!(shards.send(&syn), Fate::Forwarded(Vec::new()));
    }
    shards.now += Duration::from_secs(8);
    let mut buf = PacketBuf::new();
    for shard in 0..4 {
        shards.engines[shard].handle_timeout(shards.now);
        loop {
            match shards.engines[shard].poll_transmit(&mut buf, shards.now) {
                Transmit::Nothing => break,
                Transmit::Send => {}
                Transmit::PassOn(passage) => {
                    assert_ne!(passage.to.index(), shard);
                    elsewhere += 1;
                    let there = &mut shards.engines[passage.to.index()];
                    let handled = there.take_over(&mut buf, passage, shards.now);
                    assert!(matches!(handled, Handled::Here(Verdict::Forward(_))));
                }
            }
            assert_eq!(destination6(buf.bytes()), CLIENT);
            assert_eq!(buf.bytes()[40..42], [1, 4]);
            told += 1;
        }
    }
    // As many as the limit of ICMP errors lets through.
    assert!(
        told > elsewhere && elsewhere > 4,
        "{told}, {elsewhere} elsewhere"
    );
    let (came, went) = shards.accounts();
    assert_eq!((came, went), (40, 80), "kept, and then dropped");
    // On the side on which it was dropped, wherever the client is.
    let stats: Vec<_> = shards.engines.iter().map(Engine::stats).collect();
    let sent: u64 = stats.iter().map(|it| it.from_v4.errors_sent.get()).sum();
    assert_eq!(sent, told);
    assert!(stats.iter().all(|it| it.from_v6.errors_sent.get() == 0));
}
