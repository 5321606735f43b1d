//! The network, and the time in it.
//!
//! ```text
//!  client ── CLAT ──┐
//!                   ├── router ─── PLAT ─── router ─── server
//!  client ── CLAT ──┘
//!    in the host   IPv6      IPv6      IPv4      IPv4          each a `Link`
//! ```
//!
//! Everything happens at a moment of virtual time, one thing after the other, by a queue. After each
//! step the engines' own accounts must be in order.

mod accounts;
mod build;
mod ends;
mod way;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use clat_core::engine::{Inbound, Outbound, Settings};
use nat64::Engine;
use pref64::Pref64;
use wire::{packet::PacketBuf, pretty::Summary, verdict::Verdict};

use crate::{
    flow::Flow, inspect::Seen, link::Link, random::Random, server::Server, stack::Stack,
    supersegment::Packet,
};

const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const POOL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const PORTS: (u16, u16) = (2000, 2199);
const ROUTER4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, 1);
const PLAT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, 2);
const NAMELESS: Ipv4Addr = xlat::config::DUMMY_ADDRESS;

/// Few enough to be reached when there is noise.
const MOST_BINDINGS: usize = 150;
const MOST_SESSIONS: usize = 200;

/// When flows start.
const OPENING: u64 = 20_000;
/// Longer than anything takes, on the worst network.
const END: Duration = Duration::from_secs(3600);
/// Longer than anything lives in the tables.
const FORGOTTEN: Duration = Duration::from_secs(4 * 3600);

const CLIENTS: usize = 2;

fn clat_address(client: usize) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, client as u16 + 1, 0x464)
}

/// The prefix at first, and the one that it may change to.
fn prefixes() -> [Pref64; 2] {
    [0x64, 0x65].map(|word| {
        let network = Ipv6Addr::new(0x2001, 0xdb8, word, 0, 0, 0, 0, 0);
        Pref64::new(network, 96).unwrap_or(Pref64::WELL_KNOWN)
    })
}

/// Somewhere that packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Clat(usize),
    Router6,
    PlatFromV6,
    PlatFromV4,
    Router4,
    Server,
}

#[derive(Clone, Debug)]
enum Event {
    Packet {
        at: Place,
        packet: Packet,
        /// Made by chance: nobody promised anything about it.
        is_noise: bool,
    },
    WakeClient(usize),
    /// The client's network has another prefix; the one before holds on.
    ChangePrefix(usize),
    WakeServer,
    WakePlat,
}

struct Client {
    settings: Settings,
    stack: Stack,
    flows: Vec<Box<dyn Flow>>,
    outbound: Outbound,
    inbound: Inbound,
}

/// The links.
#[derive(Clone, Copy, Debug)]
struct Links {
    access: [Link; CLIENTS],
    core: Link,
    outer: Link,
    last: Link,
}

impl Links {
    fn any(random: &mut Random, is_poor: bool) -> Self {
        let v6 = [1280, 1400, 1500];
        let v4 = [576, 1000, 1280, 1492, 1500];
        Self {
            access: [(); CLIENTS].map(|()| Link::any(random, &v6, is_poor)),
            core: Link::any(random, &v6, is_poor),
            outer: Link::any(random, &v4, is_poor),
            last: Link::any(random, &v4, is_poor),
        }
    }
}

/// See the module.
pub struct World {
    random: Random,
    origin: Instant,
    now: Duration,
    queue: BTreeMap<(Duration, u64), Event>,
    serial: u64,
    links: Links,
    clients: Vec<Client>,
    plat: Engine,
    /// When the PLAT is to be woken, so that it is not asked for twice.
    plat_wakes: Option<Duration>,
    server: Server,
    server_stack: Stack,
    is_perfect: bool,
    noise: u64,
    is_shown: bool,
    buf: PacketBuf,
    log: u64,
    packets: u64,
    supersegments: u64,
    supersegments_of_udp: u64,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("now", &self.now)
            .field("links", &self.links)
            .finish_non_exhaustive()
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summed {
    /// Packets that were handled somewhere.
    pub packets: u64,
    /// Super-segments that came to a translator.
    pub supersegments: u64,
    /// Those among them of UDP.
    pub supersegments_of_udp: u64,
    /// A hash of all of them, in order, with their times.
    pub log: u64,
}

impl World {
    /// A world that `seed` decides everything about. If `is_shown`, every packet is printed.
    ///
    /// # Panics
    /// If the PLAT does not take its configuration.
    #[must_use]
    pub fn new(seed: u64, is_shown: bool) -> Self {
        let mut random = Random::new(seed);
        let is_perfect = random.chance(300);
        let links = Links::any(&mut random, !is_perfect);
        // Noise fills tables, which refuses others.
        let noise = if is_perfect {
            0
        } else {
            random.pick(&[0, 0, 20])
        };
        let origin = Instant::now();
        let mut world = Self {
            clients: (0..CLIENTS)
                .map(|n| build::client(&mut random, n, &links))
                .collect(),
            plat: build::plat(&links, origin, &mut random),
            plat_wakes: None,
            server: Server::default(),
            server_stack: Stack::new(SERVER, links.last.mtu, random.next() as u16),
            buf: PacketBuf::new(),
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            serial: 0,
            log: 0,
            packets: 0,
            supersegments: 0,
            supersegments_of_udp: 0,
            random,
            origin,
            links,
            is_perfect,
            noise,
            is_shown,
        };
        for client in 0..CLIENTS {
            world.at(Duration::ZERO, Event::WakeClient(client));
            if world.random.chance(300) {
                let when = Duration::from_millis(world.random.below(OPENING));
                world.at(when, Event::ChangePrefix(client));
            }
        }
        world
    }

    /// Runs it to its end, and checks what came of it.
    ///
    /// # Panics
    /// If anything is wrong.
    pub fn run(mut self) -> Summed {
        while let Some(((at, _), event)) = self.queue.pop_first() {
            if at > END {
                break;
            }
            self.now = at;
            self.step(event);
            self.check_accounts();
        }
        for flow in self.clients.iter().flat_map(|it| &it.flows) {
            flow.check(self.is_perfect);
        }
        self.forget();
        Summed {
            packets: self.packets,
            supersegments: self.supersegments,
            supersegments_of_udp: self.supersegments_of_udp,
            log: self.log,
        }
    }

    /// With nobody left to talk, the PLAT ends everything.
    fn forget(&mut self) {
        while let Some(due) = self.plat.poll_timeout() {
            self.plat.handle_timeout(due);
            self.now = due.saturating_duration_since(self.origin);
            assert!(self.now < END + FORGOTTEN, "something lives for ever");
        }
        assert_eq!(self.plat.table_sizes(), (0, 0));
        self.check_accounts();
    }

    fn instant(&self) -> Instant {
        self.origin + self.now
    }

    fn at(&mut self, when: Duration, event: Event) {
        self.serial += 1;
        self.queue.insert((when.max(self.now), self.serial), event);
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::WakeClient(client) => self.poll_client(client),
            Event::ChangePrefix(client) => self.change_prefix(client),
            Event::WakeServer => self.poll_server(),
            Event::WakePlat => self.wake_plat(),
            Event::Packet {
                at,
                packet,
                is_noise,
            } => {
                self.note(at, &packet);
                self.packet(at, &packet, is_noise);
            }
        }
    }

    /// Keeps account of what happened, and shows it if that is wished.
    fn note(&mut self, at: Place, packet: &Packet) {
        let bytes = &packet.bytes;
        self.packets += 1;
        let translates = !matches!(at, Place::Router6 | Place::Router4 | Place::Server);
        if translates && packet.size.is_some() {
            self.supersegments += 1;
            self.supersegments_of_udp += u64::from(packet.is_udp());
        }
        let moment = self.now.as_nanos() as u64;
        self.log = bytes.iter().fold(self.log ^ moment, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        if self.is_shown {
            let seconds = self.now.as_secs_f64();
            println!("{seconds:12.6} {at:?}: {}", Summary::of(bytes));
        }
    }

    fn packet(&mut self, at: Place, packet: &Packet, is_noise: bool) {
        match at {
            Place::Clat(client) => self.enter_clat(client, packet, is_noise),
            Place::Router6 => self.at_router6(packet, is_noise),
            Place::PlatFromV6 | Place::PlatFromV4 => self.at_plat(at, packet, is_noise),
            Place::Router4 => self.at_router4(packet, is_noise),
            Place::Server if is_noise => {}
            Place::Server => self.at_server(packet),
        }
        if packet.size.is_none() {
            self.make_noise(&packet.bytes);
        }
    }

    /// Puts a packet on a link. A super-segment stays one where both ends are on the same machine,
    /// and is taken apart where there is a wire.
    fn transmit(&mut self, link: Link, to: Place, packet: impl Into<Packet>, is_noise: bool) {
        let packet = packet.into();
        let longest = packet.longest();
        assert!(longest <= link.mtu, "{longest} bytes for {link:?}");
        if packet.size.is_some() && self.random.chance(200) {
            for bytes in packet.split() {
                self.transmit(link, to, bytes, is_noise);
            }
            return;
        }
        for delay in link.arrivals(&mut self.random) {
            let event = Event::Packet {
                at: to,
                packet: packet.clone(),
                is_noise,
            };
            self.at(self.now + delay, event);
        }
    }

    /// Sometimes a changed copy of a packet comes in somewhere. Fragments are left alone: their
    /// changed copies would be put together with right ones, which nobody can tell.
    fn make_noise(&mut self, bytes: &[u8]) {
        if !self.random.chance(self.noise) {
            return;
        }
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.random.below(3) {
            let at = self.random.below(bytes.len() as u64) as usize;
            bytes[at] = self.random.next() as u8;
        }
        if may_be_fragment(&bytes) {
            return;
        }
        let places = [Place::Clat(0), Place::PlatFromV6, Place::PlatFromV4];
        let event = Event::Packet {
            at: self.random.pick(&places),
            packet: bytes.into(),
            is_noise: true,
        };
        self.at(self.now + Duration::from_millis(1), event);
    }
}

/// Whether somebody would put it together with others.
fn may_be_fragment(bytes: &[u8]) -> bool {
    Seen::read(bytes).map_or(true, |it| it.fragment.is_some())
}

fn load(buf: &mut PacketBuf, packet: &Packet) {
    let loaded = buf.set(&packet.bytes);
    assert_eq!(loaded, Ok(()), "{} bytes", packet.bytes.len());
    buf.offload = packet.offload();
}

/// What a translator made of a packet.
enum Taken {
    On(Vec<Packet>),
    Back(Vec<u8>),
}

fn take<R>(buf: &mut PacketBuf, verdict: Verdict<R>) -> Taken {
    match verdict {
        Verdict::Forward(mut pieces) => {
            let mut packets = Vec::new();
            while pieces.next(buf) {
                packets.push(Packet::left(buf.bytes().to_vec(), buf.offload));
            }
            Taken::On(packets)
        }
        Verdict::Reply(_) => Taken::Back(buf.bytes().to_vec()),
        Verdict::Drop(_) => Taken::On(Vec::new()),
    }
}
