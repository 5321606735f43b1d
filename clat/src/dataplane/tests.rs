//! The threads, between a host and a network in memory.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use clat_core::mapping::Instance;
use host::{
    fake::{FakeTun, FakeUplink, Packet, Refusal},
    tun::{Received, SendError},
    uplink::{Burst, MAX_BURST, SMALL},
};
use l2::link::FrameAddresses;
use pref64::siit::NonGlobal;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use wire::{
    compose::{self, Pair, V4, V6},
    ethernet::Mac,
    ipv6::Ipv6,
    ndp::{
        ALL_NODES, ALL_ROUTERS, Envelope, NeighborAdvertisement, NeighborSolicitation,
        solicited_node,
    },
    offload::{Gso, GsoKind, Offload},
    packet::PacketBuf,
};

use super::{outbound::Waiting, shared::OUT, *};

const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const CLAT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0x246, 0xc1a7, 1, 0xa039);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0xc633, 0x640a);
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const ROUTER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
const OTHER_MAC: Mac = Mac([2, 0, 0, 0, 0, 3]);

/// Longer than anything that happens here takes.
const SOON: Duration = Duration::from_secs(5);

/// Long enough for something that must not happen.
const NEVER: Duration = Duration::from_millis(100);

const FROM_ROUTER: FrameAddresses = FrameAddresses {
    src: ROUTER_MAC,
    dst: OUR_MAC,
};

fn settings() -> Settings {
    Settings {
        instance: Instance::FIRST,
        clat: CLAT,
        prefix: "2001:db8:64::/96".parse().unwrap(),
        retained: Vec::new(),
        ipv6_mtu: 1500,
        fragment_above: 1280,
        wkp_non_global: NonGlobal::Translate,
        errors: clat_core::session::ErrorPolicy::Send,
    }
}

fn claim(probes: u8) -> link::Config {
    link::Config {
        address: CLAT,
        mac: OUR_MAC,
        probes,
        nonce: [1, 2, 3, 4, 5, 6],
        delay: Duration::ZERO,
    }
}

/// A CLAT between a host and a link.
struct World {
    tun: Arc<FakeTun>,
    uplink: Arc<FakeUplink>,
    dataplane: Option<Dataplane>,
    events: UnboundedReceiver<Event>,
    stats: Stats,
}

impl World {
    /// It has just begun to claim its address.
    fn claiming() -> Self {
        Self::start(Arc::new(FakeUplink::new()), 1)
    }

    fn start(uplink: Arc<FakeUplink>, probes: u8) -> Self {
        let tun = Arc::new(FakeTun::new());
        let engine = Engine::new(&settings(), (1, 2));
        let stats = engine.stats();
        let (sender, events) = unbounded_channel();
        let claim = claim(probes);
        let dataplane = Dataplane::start_on_link(
            engine,
            Arc::clone(&tun) as Arc<dyn Tun>,
            Arc::clone(&uplink) as Arc<dyn Uplink>,
            claim,
            settings(),
            (Clock::start(), sender),
        );
        Self {
            tun,
            uplink,
            dataplane: Some(dataplane.unwrap()),
            events,
            stats,
        }
    }

    /// It has its address, at once and without a probe, and knows its router.
    fn running() -> Self {
        let mut world = Self::start(Arc::new(FakeUplink::new()), 0);
        world.expect_assigned();
        world
    }

    fn expect_assigned(&mut self) {
        assert!(matches!(self.event(), Event::Assigned));
        let (to, announcement) = self.uplink.to_network(SOON).unwrap();
        assert_eq!(to, Mac::of_multicast(ALL_ROUTERS));
        assert_eq!(advertised(&announcement).target, CLAT);
        self.dataplane().set_next_hop(Some(NextHop {
            router: ROUTER,
            mac: Some(ROUTER_MAC),
        }));
    }

    fn dataplane(&self) -> &Dataplane {
        self.dataplane.as_ref().unwrap()
    }

    fn stop(&mut self) -> Option<Engine> {
        self.dataplane.take().unwrap().stop()
    }

    /// The next event but for nudges.
    fn event(&mut self) -> Event {
        loop {
            let event = self.next_event();
            if !matches!(event, Event::Nudge(_)) {
                return event;
            }
        }
    }

    fn next_event(&mut self) -> Event {
        let end = Instant::now() + SOON;
        loop {
            match self.events.try_recv() {
                Ok(event) => return event,
                Err(_) => assert!(Instant::now() < end, "nothing was told"),
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn expect_probe(&self) {
        let (to, probe) = self.uplink.to_network(SOON).unwrap();
        assert_eq!(to, Mac::of_multicast(solicited_node(CLAT)));
        let message = &probe.bytes[40..];
        let probe = NeighborSolicitation::new_checked(&envelope(&probe), message).unwrap();
        assert_eq!((probe.target, probe.source_link_layer), (CLAT, None));
    }

    fn dropped(&self, direction: usize, reason: DropReason) -> u64 {
        self.stats.link.dropped[direction].get(reason)
    }

    fn expect_drop(&self, direction: usize, reason: DropReason) {
        let end = Instant::now() + SOON;
        while self.dropped(direction, reason) == 0 {
            assert!(Instant::now() < end, "nothing was dropped: {reason}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn solicit(&self, src: Ipv6Addr, dst: Ipv6Addr, from: Mac) {
        let mut buf = PacketBuf::new();
        let solicitation = NeighborSolicitation {
            target: CLAT,
            source_link_layer: (!src.is_unspecified()).then_some(from),
            nonce: None,
        };
        solicitation.write(&mut buf, src, dst).unwrap();
        let dst = match dst {
            CLAT => OUR_MAC,
            group => Mac::of_multicast(group),
        };
        let frame = FrameAddresses { src: from, dst };
        self.uplink.from_network(frame, Packet::whole(buf.bytes()));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(dataplane) = self.dataplane.take() {
            dataplane.stop();
        }
    }
}

fn envelope(packet: &Packet) -> Envelope {
    let packet = Ipv6::new_checked(&packet.bytes).unwrap();
    Envelope {
        src: packet.src(),
        dst: packet.dst(),
        hop_limit: packet.hop_limit(),
    }
}

fn advertised(packet: &Packet) -> NeighborAdvertisement {
    NeighborAdvertisement::new_checked(&envelope(packet), &packet.bytes[40..]).unwrap()
}

fn query() -> Packet {
    let datagram = compose::udp(Pair::V4(HOST, SERVER), 40000, 53, b"query");
    Packet::whole(&V4::new(HOST, SERVER, 17).carrying(&datagram))
}

fn answer(dst: Ipv6Addr) -> Packet {
    let datagram = compose::udp(Pair::V6(SERVER6, dst), 53, 40000, b"answer");
    Packet::whole(&V6::new(SERVER6, dst, 17).carrying(&datagram))
}

#[test]
fn packets_go_both_ways_once_the_address_is_ours() {
    let mut world = World::claiming();
    world.expect_probe();
    world.expect_assigned();
    world.tun.from_host(query());
    let (to, sent) = world.uplink.to_network(SOON).unwrap();
    assert_eq!(to, ROUTER_MAC);
    let packet = Ipv6::new_checked(&sent.bytes).unwrap();
    assert_eq!((packet.src(), packet.dst()), (CLAT, SERVER6));
    let datagram = compose::udp(Pair::V6(CLAT, SERVER6), 40000, 53, b"query");
    assert_eq!(packet.payload(), datagram);

    world.uplink.from_network(FROM_ROUTER, answer(CLAT));
    let got = world.tun.to_host(SOON).unwrap();
    assert_eq!(got.bytes[12..16], SERVER.octets());
    assert_eq!(got.bytes[16..20], HOST.octets());
    assert!(got.bytes.ends_with(b"answer"));
}

#[test]
fn nothing_leaves_from_a_tentative_address() {
    let world = World::claiming();
    world.expect_probe();
    world.tun.from_host(query());
    world.expect_drop(OUT, DropReason::AddressTentative);
    world.uplink.from_network(FROM_ROUTER, answer(CLAT));
    world.expect_drop(IN, DropReason::AddressTentative);
    assert!(world.tun.to_host(Duration::ZERO).is_none());
    assert_eq!(world.stats.outbound.translated.get(), 1);
}

#[test]
fn clat_6_3_02_a_taken_address_is_given_up() {
    let mut world = World::claiming();
    world.expect_probe();
    world.solicit(Ipv6Addr::UNSPECIFIED, solicited_node(CLAT), OTHER_MAC);
    assert!(matches!(world.event(), Event::Duplicate(OTHER_MAC)));
    world.tun.from_host(query());
    world.expect_drop(OUT, DropReason::AddressDuplicate);
    // Nor is it defended or announced.
    world.solicit(ROUTER, CLAT, ROUTER_MAC);
    assert!(world.uplink.to_network(NEVER).is_none());
}

#[test]
fn clat_6_3_02_neighbours_are_answered() {
    let world = World::running();
    for dst in [solicited_node(CLAT), CLAT] {
        world.solicit(ROUTER, dst, ROUTER_MAC);
        let (to, sent) = world.uplink.to_network(SOON).unwrap();
        assert_eq!(to, ROUTER_MAC);
        let answer = advertised(&sent);
        assert_eq!((answer.target, answer.solicited), (CLAT, true));
        assert_eq!(answer.target_link_layer, Some(OUR_MAC));
    }
    // Somebody wants to have our address.
    world.solicit(Ipv6Addr::UNSPECIFIED, solicited_node(CLAT), OTHER_MAC);
    let (to, sent) = world.uplink.to_network(SOON).unwrap();
    assert_eq!(to, Mac::of_multicast(ALL_NODES));
    assert!(!advertised(&sent).solicited);
    assert_eq!(world.stats.link.neighbour_answers.get(), 3);
}

/// An interface that is down when the probe is to be sent, or a full queue.
#[test]
fn a_probe_that_was_not_sent_proves_nothing() {
    let uplink = Arc::new(FakeUplink::new());
    uplink.refuse(Refusal::Next(io::ErrorKind::NetworkDown));
    let mut world = World::start(uplink, 1);
    world.expect_drop(IN, DropReason::LinkFailed);
    let began = Instant::now();
    world.expect_probe();
    assert!(matches!(world.event(), Event::Assigned));
    assert!(began.elapsed() > link::PROBE_WAIT);
}

#[test]
fn the_next_hop_changes_between_two_packets() {
    let mut world = World::running();
    let send = |world: &World| {
        world.tun.from_host(query());
        world.uplink.to_network(SOON).unwrap().0
    };
    assert_eq!(send(&world), ROUTER_MAC);
    assert!(matches!(world.next_event(), Event::Nudge(ROUTER)));
    let other = |mac| {
        Some(NextHop {
            router: ROUTER,
            mac,
        })
    };
    world.dataplane().set_next_hop(other(Some(OTHER_MAC)));
    assert_eq!(send(&world), OTHER_MAC);
    // One nudge is enough for both.
    assert!(world.events.try_recv().is_err());

    world.dataplane().set_next_hop(other(None));
    world.tun.from_host(query());
    world.expect_drop(OUT, DropReason::NextHopUnresolved);
    world.dataplane().set_next_hop(None);
    world.tun.from_host(query());
    world.expect_drop(OUT, DropReason::NoNextHop);
    assert!(world.uplink.to_network(Duration::ZERO).is_none());
}

#[test]
fn new_settings_hold_from_the_next_packet_on() {
    let world = World::running();
    world.dataplane().configure(Settings {
        prefix: "64:ff9b::/96".parse().unwrap(),
        ..settings()
    });
    world.tun.from_host(query());
    let (_, sent) = world.uplink.to_network(SOON).unwrap();
    let packet = Ipv6::new_checked(&sent.bytes).unwrap();
    let wanted: Ipv6Addr = "64:ff9b::198.51.100.10".parse().unwrap();
    assert_eq!(packet.dst(), wanted);
}

#[test]
fn errors_go_back_where_the_packet_came_from() {
    let world = World::running();
    let datagram = compose::udp(Pair::V4(HOST, SERVER), 40000, 53, b"query");
    let mut header = V4::new(HOST, SERVER, 17);
    header.ttl = 1;
    world
        .tun
        .from_host(Packet::whole(&header.carrying(&datagram)));
    let error = world.tun.to_host(SOON).unwrap();
    assert_eq!((error.bytes[9], error.bytes[20]), (1, 11));

    // A stranger, who is not behind the prefix.
    let stranger: Ipv6Addr = "2001:db8:9::1".parse().unwrap();
    let datagram = compose::udp(Pair::V6(stranger, CLAT), 53, 40000, b"answer");
    let packet = Packet::whole(&V6::new(stranger, CLAT, 17).carrying(&datagram));
    world.uplink.from_network(FROM_ROUTER, packet);
    let (to, error) = world.uplink.to_network(SOON).unwrap();
    assert_eq!((to, envelope(&error).dst), (ROUTER_MAC, stranger));
}

#[test]
fn a_link_without_segmentation_gets_segments() {
    let world = World::running();
    world.uplink.refuse(Refusal::Segments);
    for _ in 0..2 {
        world.tun.from_host(super_segment());
        let sizes = [0; 3].map(|_| world.uplink.to_network(SOON).unwrap().1.bytes.len());
        assert_eq!(sizes, [1060, 1060, 560]);
    }
    assert_eq!(world.dropped(OUT, DropReason::LinkFailed), 0);
}

/// Three segments of a TCP connection in one.
fn super_segment() -> Packet {
    let segment = compose::tcp(Pair::V4(HOST, SERVER), (40000, 80), 0x10, &[], &[7; 2500]);
    Packet {
        bytes: V4::new(HOST, SERVER, 6).carrying(&segment),
        offload: Offload {
            gso: Some(Gso {
                kind: GsoKind::TcpV4 { ecn: false },
                size: 1000.try_into().unwrap(),
                header_len: 40,
            }),
            ..Offload::default()
        },
    }
}

fn datagram(payload: &[u8]) -> Packet {
    let datagram = compose::udp(Pair::V4(HOST, SERVER), 40000, 53, payload);
    Packet::whole(&V4::new(HOST, SERVER, 17).carrying(&datagram))
}

/// XLAT-4-01: what leaves in a burst does not overtake, and is not overtaken by, what leaves alone.
#[test]
fn xlat_4_01_packets_leave_in_the_order_they_came() {
    let world = World::running();
    let mut wanted = Vec::new();
    for round in 0..50usize {
        // More than a burst, then something large, sometimes right behind each other.
        for n in 0..(round * 7) % (2 * MAX_BURST) {
            let payload = vec![7; 1 + (round * 131 + n) % 1000];
            world.tun.from_host(datagram(&payload));
            wanted.push(48 + payload.len());
        }
        world.tun.from_host(super_segment());
        wanted.push(60 + 2500);
    }
    let came: Vec<_> = wanted
        .iter()
        .map(|_| world.uplink.to_network(SOON).unwrap().1.bytes.len())
        .collect();
    assert_eq!(came, wanted);
    assert!(world.uplink.to_network(Duration::ZERO).is_none());
}

/// What waits to leave for one router is not sent to the next.
#[test]
fn packets_that_wait_keep_their_next_hop() {
    let mut waiting = Waiting::new();
    for to in [ROUTER_MAC, ROUTER_MAC] {
        waiting.free().set(b"packet").unwrap();
        assert!(waiting.takes(to));
    }
    waiting.free().set(b"packet").unwrap();
    assert!(!waiting.takes(OTHER_MAC));
    waiting.free().set(&[0; SMALL + 1]).unwrap();
    assert!(!waiting.takes(ROUTER_MAC));
    let (packets, behind) = waiting.take();
    assert_eq!(packets.len(), 2);
    assert_eq!(behind.unwrap().len(), SMALL + 1);
    assert!(waiting.takes(OTHER_MAC));
    for _ in 1..MAX_BURST {
        assert!(!waiting.is_full());
        waiting.free().set(b"packet").unwrap();
        assert!(waiting.takes(OTHER_MAC));
    }
    assert!(waiting.is_full());
    assert_eq!(waiting.take().0.len(), MAX_BURST);
}

/// What the system lost before it came to us has a name too.
#[test]
fn what_came_too_fast_is_counted() {
    let mut world = World::running();
    world.uplink.overflow(3);
    world.dataplane().count_overflows();
    world.dataplane().count_overflows();
    assert_eq!(world.dropped(IN, DropReason::QueueOverflow), 3);
    world.uplink.overflow(2);
    world.stop();
    assert_eq!(world.dropped(IN, DropReason::QueueOverflow), 5);
}

#[test]
fn what_is_refused_is_counted() {
    let world = World::running();
    world
        .uplink
        .refuse(Refusal::Next(io::ErrorKind::WouldBlock));
    world.tun.from_host(query());
    world.expect_drop(OUT, DropReason::LinkFailed);
    world.tun.refuse(Refusal::Next(io::ErrorKind::WouldBlock));
    world.uplink.from_network(FROM_ROUTER, answer(CLAT));
    world.uplink.from_network(FROM_ROUTER, answer(CLAT));
    world.tun.to_host(SOON).unwrap();
    assert_eq!(world.stats.link.host_refused.get(), 1);
}

#[test]
fn the_engine_survives_a_restart_with_its_counters() {
    let mut world = World::running();
    world.tun.from_host(query());
    world.uplink.to_network(SOON).unwrap();
    let engine = world.stop().unwrap();
    assert_eq!(engine.stats().outbound.translated.get(), 1);
    assert_eq!(engine.outbound.stats().packets_in.get(), 1);
}

/// However the threads and the stop race.
#[test]
fn stop_ends_threads_that_have_not_begun_to_wait() {
    for _ in 0..100 {
        assert!(World::claiming().stop().is_some());
    }
}

#[test]
fn a_device_that_fails_is_told() {
    let mut world = World::running();
    world.tun.fail(io::ErrorKind::BrokenPipe);
    let Event::Failed(what) = world.event() else {
        panic!("another event");
    };
    assert_eq!(what, "the virtual interface: broken pipe");
    world.uplink.fail(io::ErrorKind::NotConnected);
    let Event::Failed(what) = world.event() else {
        panic!("another event");
    };
    assert_eq!(what, "the link: not connected");
    assert!(world.stop().is_some());
}

/// A port that panics stands for a bug in a thread.
struct Broken(FakeUplink);

impl Uplink for Broken {
    fn recv(&self, _: &mut Burst, _: Option<Duration>) -> io::Result<Received> {
        panic!("a test wants this");
    }

    fn send(&self, buf: &mut PacketBuf, to: Mac) -> Result<(), SendError> {
        self.0.send(buf, to)
    }

    fn wake(&self) {
        self.0.wake();
    }
}

#[test]
fn a_thread_that_panics_is_told_and_the_other_one_ends() {
    let tun = Arc::new(FakeTun::new());
    let (sender, mut events) = unbounded_channel();
    let dataplane = Dataplane::start_on_link(
        Engine::new(&settings(), (1, 2)),
        Arc::clone(&tun) as Arc<dyn Tun>,
        Arc::new(Broken(FakeUplink::new())),
        claim(1),
        settings(),
        (Clock::start(), sender),
    );
    let event = events.blocking_recv().unwrap();
    assert!(matches!(&event, Event::Failed(what) if what.contains("clat-in")));
    assert!(dataplane.unwrap().stop().is_none());
    // Nobody else has it any more.
    assert_eq!(Arc::strong_count(&tun), 1);
}

#[test]
fn a_routed_address_needs_no_link() {
    let tun = Arc::new(FakeTun::new());
    let (sender, mut events) = unbounded_channel();
    let dataplane = Dataplane::start_routed(
        Engine::new(&settings(), (1, 2)),
        Arc::clone(&tun) as Arc<dyn Tun>,
        settings(),
        (Clock::start(), sender),
    )
    .unwrap();
    assert!(matches!(events.blocking_recv(), Some(Event::Assigned)));
    tun.from_host(query());
    let sent = tun.to_host(SOON).unwrap();
    assert_eq!(envelope(&sent).dst, SERVER6);
    tun.from_host(answer(CLAT));
    let got = tun.to_host(SOON).unwrap();
    assert_eq!(got.bytes[16..20], HOST.octets());
    let engine = dataplane.stop().unwrap();
    assert_eq!(engine.stats().inbound.translated.get(), 1);
}
