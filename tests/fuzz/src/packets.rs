//! Packets, both ways: the translators, the engines around them, and the fragments that they keep.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use clat_core::{
    engine::{Inbound, Outbound, Settings},
    mapping::Instance,
};
use nat64::{Config, Engine, Transmit, ports::PortRange};
use pref64::{Pref64, siit::NonGlobal};
use wire::{
    counters::ReasonCounters,
    offload::{Offload, VIRTIO_NET_HEADER},
    packet::PacketBuf,
};
use xlat::{
    Mapping, Refusal, Rewrite, V4ToV6, V6ToV4,
    config::ErrorPolicy,
    key::Key,
    reassembly::{Limits, Outcome, Reassembly},
};

use crate::{
    input::{Input, origin},
    outcome::{Before, check_whole},
};

/// The host behind the CLAT.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);
/// The CLAT's address.
pub(crate) const CLAT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 0x464);
/// A server.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// The pool.
pub(crate) const POOL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The server under the prefix.
pub(crate) const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0xc633, 0x640a);
const OWN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, 0x64);

pub(crate) fn prefix() -> Pref64 {
    let network = Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0, 0);
    Pref64::new(network, 96).unwrap_or(Pref64::WELL_KNOWN)
}

/// An MTU of a link, seldom a strange one.
fn mtu(choice: u8) -> u16 {
    const USUAL: [u16; 8] = [1500, 1280, 1492, 9000, 65_535, 1281, 1399, 68];
    USUAL[usize::from(choice & 7)]
}

/// Loads what a port would read: a virtio-net header and a packet, if they can be read at all.
fn load(buf: &mut PacketBuf, data: &[u8], link_header: u16) -> bool {
    let Ok(offload) = Offload::decode(data, link_header) else {
        return false;
    };
    let loaded = buf.set(&data[VIRTIO_NET_HEADER..]).is_ok();
    buf.offload = offload;
    loaded
}

fn settings(mtu_choice: u8) -> Settings {
    Settings {
        instance: Instance::FIRST,
        clat: CLAT,
        prefix: prefix(),
        retained: vec![Pref64::WELL_KNOWN],
        ipv6_mtu: mtu(mtu_choice),
        fragment_above: mtu(mtu_choice >> 3).max(1280),
        wkp_non_global: NonGlobal::Translate,
        errors: ErrorPolicy::Send,
    }
}

/// The host's packets, as the TUN device hands them over.
pub(crate) fn clat_outbound(data: &[u8]) {
    let mut input = Input::new(data);
    let settings = settings(input.byte());
    let mut engine = Outbound::new(&settings, 1);
    let mut buf = PacketBuf::new();
    let mut now = origin();
    while let Some(packet) = input.packet() {
        now += packet.pause();
        if load(&mut buf, packet.bytes, 0) {
            let before = Before::of(&buf);
            let verdict = engine.handle_host(&mut buf, now);
            before.check(&mut buf, verdict, settings.ipv6_mtu.max(1280).into());
        }
    }
    let stats = engine.stats();
    check_counters(
        stats.packets_in.get(),
        stats.translated.get(),
        stats.dropped.total() - given_up(&stats.dropped),
    );
}

/// The network's packets, as the packet socket hands them over.
pub(crate) fn clat_inbound(data: &[u8]) {
    let mut input = Input::new(data);
    let settings = settings(input.byte());
    let mut engine = Inbound::new(&settings, 1);
    let mut buf = PacketBuf::new();
    let mut now = origin();
    while let Some(packet) = input.packet() {
        now += packet.pause();
        if load(&mut buf, packet.bytes, 14) {
            let before = Before::of(&buf);
            let verdict = engine.handle_net(&mut buf, now);
            before.check(&mut buf, verdict, 65_535);
        }
    }
    let stats = engine.stats();
    check_counters(
        stats.packets_in.get(),
        stats.translated.get(),
        stats.dropped.total() - given_up(&stats.dropped),
    );
}

/// Datagrams whose fragments were counted when they came.
fn given_up(dropped: &ReasonCounters<xlat::DropReason>) -> u64 {
    xlat::DropReason::OF_DATAGRAMS
        .map(|it| dropped.get(it))
        .iter()
        .sum()
}

fn check_counters(came: u64, passed: u64, dropped: u64) {
    assert_eq!(came, passed + dropped, "a packet that nobody counted");
}

const MOST_BINDINGS: usize = 20;
const MOST_SESSIONS: usize = 30;
const FRAGMENTS: Limits = Limits {
    datagrams: 8,
    bytes: 100_000,
    datagrams_per_source: 4,
};

fn nat64_config(mtu_choice: u8) -> Config {
    let mut config = Config::new(prefix(), &[POOL], OWN6);
    config.allow_destinations = "198.51.100.0/24".parse().into_iter().collect();
    config.ipv6_mtu = mtu(mtu_choice).max(1280);
    config.ipv4_mtu = mtu(mtu_choice >> 3);
    config.lowest_ipv6_mtu = mtu(mtu_choice >> 6).max(1280);
    config.errors = ErrorPolicy::Send;
    config.limits.bindings = MOST_BINDINGS;
    config.limits.sessions = MOST_SESSIONS;
    config.limits.fragments = FRAGMENTS;
    if let Some(ports) = PortRange::new(1000, 1100) {
        config.pool[0].ports = ports.into();
    }
    config
}

/// Clients' and servers' packets, as the PLAT's TUN device hands them over.
pub(crate) fn nat64(data: &[u8]) {
    let mut input = Input::new(data);
    let config = nat64_config(input.byte());
    let (to_v6, to_v4) = (config.ipv6_mtu.into(), config.ipv4_mtu.into());
    let mut now = origin();
    let Ok(mut engine) = Engine::new(config, [7; 16], now) else {
        return;
    };
    let mut buf = PacketBuf::new();
    while let Some(packet) = input.packet() {
        now += packet.pause();
        if !load(&mut buf, packet.bytes, 0) {
            continue;
        }
        let before = Before::of(&buf);
        if packet.is_second_way() {
            let verdict = engine.handle_v4(&mut buf, now);
            before.check(&mut buf, verdict, to_v6);
        } else {
            let verdict = engine.handle_v6(&mut buf, now);
            before.check(&mut buf, verdict, to_v4);
        }
        check_own_packets(&mut engine, &mut buf, now);
        check_tables(&engine);
    }
    check_nat64_counters(&engine);
    // An established connection is over after two hours, and then only nearly.
    let last = now + Duration::from_secs(4 * 3600);
    while let Some(due) = engine.poll_timeout() {
        assert!(due < last, "something lives for ever");
        engine.handle_timeout(due);
        check_own_packets(&mut engine, &mut buf, due);
        let next = engine.poll_timeout();
        assert!(next.is_none_or(|next| next > due), "what is due stays due");
    }
    assert_eq!(engine.table_sizes(), (0, 0));
}

/// Probes, and answers to SYNs that nobody expected.
fn check_own_packets(engine: &mut Engine, buf: &mut PacketBuf, now: Instant) {
    loop {
        match engine.poll_transmit(buf, now) {
            Transmit::Nothing => return,
            Transmit::Send => check_whole(buf.bytes()),
            Transmit::PassOn(_) => panic!("there is no other shard"),
        }
    }
}

fn check_tables(engine: &Engine) {
    let (bindings, sessions) = engine.table_sizes();
    assert!(bindings <= MOST_BINDINGS && sessions <= MOST_SESSIONS);
    let listed: Vec<_> = engine.bindings().collect();
    assert_eq!(listed.len(), bindings);
    let used: u32 = listed.iter().map(|it| it.sessions).sum();
    assert_eq!(used as usize, sessions, "sessions without a binding");
    for (n, one) in listed.iter().enumerate() {
        assert!(one.outside.address == POOL && (1000..=1100).contains(&one.outside.id));
        let others = listed[n + 1..]
            .iter()
            .filter(|it| it.protocol == one.protocol);
        for other in others {
            assert!(other.inside != one.inside && other.outside != one.outside);
        }
    }
}

fn check_nat64_counters(engine: &Engine) {
    let stats = engine.stats();
    for direction in [&stats.from_v6, &stats.from_v4] {
        // Dropped after they were kept.
        let late = given_up(&direction.dropped_by_translation)
            + direction
                .dropped_by_state
                .get(nat64::DropReason::SynUnanswered);
        let dropped =
            direction.dropped_by_state.total() + direction.dropped_by_translation.total() - late;
        let went_on = direction.passed.get() + direction.kept.get();
        check_counters(direction.packets_in.get(), went_on, dropped);
    }
}

/// A mapping that knows an answer for almost everything.
struct Anything {
    prefix: Pref64,
    rewrite: Rewrite,
}

impl Anything {
    fn new(input: &mut Input<'_>) -> Self {
        let [kind, a, b, c, d] = input.array();
        let (src, dst) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        Self {
            prefix: prefix(),
            rewrite: match kind % 3 {
                0 => Rewrite::None,
                1 => Rewrite::Ports { src, dst },
                _ => Rewrite::Identifier(src),
            },
        }
    }

    fn to_v6(&self, address: Ipv4Addr) -> Result<Ipv6Addr, Refusal> {
        match address.octets()[0] {
            127 => Err(Refusal::Excluded),
            10 => Err(Refusal::NonGlobal),
            0 => Err(Refusal::NoMapping),
            _ => Ok(self.prefix.embed(address)),
        }
    }

    fn to_v4(&self, address: Ipv6Addr) -> Result<Ipv4Addr, Refusal> {
        self.prefix.extract(address).ok_or(Refusal::NoMapping)
    }
}

macro_rules! mapping {
    ($from:ty, $to:ty, $function:ident) => {
        impl Mapping<$from, $to> for Anything {
            fn source(&self, address: $from) -> Result<$to, Refusal> {
                self.$function(address)
            }
            fn destination(&self, address: $from) -> Result<$to, Refusal> {
                self.$function(address)
            }
            fn inner_source(&self, address: $from) -> Result<$to, Refusal> {
                self.$function(address)
            }
            fn inner_destination(&self, address: $from) -> Result<$to, Refusal> {
                self.$function(address)
            }
            fn rewrite(&self) -> Rewrite {
                self.rewrite
            }
            fn inner_rewrite(&self) -> Rewrite {
                self.rewrite
            }
        }
    };
}

mapping!(Ipv4Addr, Ipv6Addr, to_v6);
mapping!(Ipv6Addr, Ipv4Addr, to_v4);

fn translation(mtu_choice: u8) -> xlat::Config {
    xlat::Config {
        ipv6_mtu: mtu(mtu_choice).max(1280),
        ipv4_mtu: mtu(mtu_choice >> 3),
        lowest_ipv6_mtu: mtu(mtu_choice >> 6).max(1280),
        errors: ErrorPolicy::Send,
        ..xlat::Config::new(POOL, OWN6)
    }
}

/// One packet through the translator alone, under a mapping that changes ports too.
pub(crate) fn v4_to_v6(data: &[u8]) {
    let mut input = Input::new(data);
    let config = translation(input.byte());
    let mtu = config.ipv6_mtu.into();
    let mapping = Anything::new(&mut input);
    let mut buf = PacketBuf::new();
    if load(&mut buf, input.rest(), 0) {
        let before = Before::of(&buf);
        let verdict = V4ToV6::new(config, 1).translate(&mut buf, &mapping, origin());
        before.check(&mut buf, verdict, mtu);
    }
}

/// See [`v4_to_v6`].
pub(crate) fn v6_to_v4(data: &[u8]) {
    let mut input = Input::new(data);
    let config = translation(input.byte());
    let mtu = config.ipv4_mtu.into();
    let mapping = Anything::new(&mut input);
    let mut buf = PacketBuf::new();
    if load(&mut buf, input.rest(), 0) {
        let before = Before::of(&buf);
        let verdict = V6ToV4::new(config, 1).translate(&mut buf, &mapping, origin());
        before.check(&mut buf, verdict, mtu);
    }
}

/// Fragments of both families.
pub(crate) fn reassembly(data: &[u8]) {
    let mut input = Input::new(data);
    let mut now = origin();
    let mut kept = Reassembly::new(Key::new([7; 16]), Duration::from_secs(5), FRAGMENTS);
    let mut buf = PacketBuf::new();
    while let Some(packet) = input.packet() {
        now += packet.pause();
        kept.expire(now, |_, _| {});
        if buf.set(packet.bytes).is_err() {
            continue;
        }
        let is_checked = sim::inspect::Seen::read(packet.bytes).is_ok();
        if kept.take(&mut buf, now) == Ok(Outcome::Whole) && is_checked {
            let whole = sim::inspect::Seen::read(buf.bytes());
            assert!(whole.is_ok(), "{whole:?}: {:02x?}", buf.bytes());
        }
        assert!(kept.bytes() <= FRAGMENTS.bytes, "{} bytes", kept.bytes());
        assert!(kept.datagrams() <= FRAGMENTS.datagrams);
    }
    kept.expire(now + Duration::from_secs(5), |_, _| {});
    assert_eq!((kept.bytes(), kept.datagrams()), (0, 0));
    assert_eq!(kept.next_expiry(), None);
}
