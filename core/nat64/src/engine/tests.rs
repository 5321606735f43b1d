//! The items of sections 7 and 8 of the checklist that hold so far, through the whole engine.

use std::collections::HashSet;

use super::*;
use crate::{
    config::{Limits, PoolEntry, Timers},
    ports::PortRange,
};
use proptest::prelude::*;
use wire::{
    compose::{self, Pair, V4, V6},
    offload::Offload,
    pieces::transport_checksum_ok,
    transport::{self, tcp},
};

mod amounts;
mod blocks;
mod connections;
mod errors;
mod fairness;
mod filtering;
mod fragments;
mod hairpin;
mod mapping;
mod mass;
mod no_state;
mod paging;
mod policy;
mod properties;
mod reconfigure;
mod reference;
mod settings;
mod shards;
mod share;
mod simultaneous_open;
mod small_pool;
mod stateless;
mod static_bindings;
mod views;

const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 0x10);
const OTHER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 0x11);
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 1);
const OWN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 0x64);
const SERVER: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);
const SERVER2: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);
const ROUTER4: Ipv4Addr = Ipv4Addr::new(8, 8, 0, 1);
const POOL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const POOL2: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

const ACK: u8 = tcp::ACK;
const SYN: u8 = tcp::SYN;
const FIN: u8 = tcp::FIN | tcp::ACK;
const RST: u8 = tcp::RST;

fn prefix() -> Pref64 {
    "2001:db8:64::/96".parse().unwrap()
}

fn config() -> Config {
    let mut config = Config::new(prefix(), &[POOL], OWN6);
    config.errors = xlat::config::ErrorPolicy::Send;
    // What is about it sets it.
    config.timers.hold_down = Duration::ZERO;
    config
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Forwarded(Vec<Vec<u8>>),
    Replied(Why, Vec<u8>),
    Dropped(Why),
}

impl Fate {
    fn of(verdict: Verdict<Why>, buf: &mut PacketBuf) -> Self {
        match verdict {
            Verdict::Forward(mut pieces) => {
                let mut packets = Vec::new();
                while pieces.next(buf) {
                    packets.push(buf.bytes().to_vec());
                }
                Self::Forwarded(packets)
            }
            Verdict::Reply(why) => Self::Replied(why, buf.bytes().to_vec()),
            Verdict::Drop(why) => Self::Dropped(why),
        }
    }

    fn packet(self) -> Vec<u8> {
        match self {
            Self::Forwarded(mut packets) if packets.len() == 1 => packets.remove(0),
            other => panic!("not forwarded: {other:?}"),
        }
    }

    fn into_packets(self) -> Vec<Vec<u8>> {
        match self {
            Self::Forwarded(packets) => packets,
            other => panic!("not forwarded: {other:?}"),
        }
    }

    /// Reason, type and code.
    fn reply(self) -> (Why, u8, u8) {
        let Self::Replied(why, packet) = self else {
            panic!("no reply: {self:?}");
        };
        assert_eq!(transport_checksum_ok(&packet), Some(true));
        let at = if packet[0] >> 4 == 4 { 20 } else { 40 };
        (why, packet[at], packet[at + 1])
    }
}

/// An engine with a clock.
struct Nat {
    engine: Engine,
    now: Instant,
}

impl Nat {
    fn new(config: Config) -> Self {
        #[expect(clippy::disallowed_methods, reason = "virtual time needs an origin")]
        let now = Instant::now();
        let engine = Engine::new(config, [7; 16], now).unwrap();
        Self { engine, now }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.end_what_is_over();
    }

    /// Of very much, one call ends only a part.
    fn end_what_is_over(&mut self) {
        loop {
            let before = self.engine.table_sizes();
            self.engine.handle_timeout(self.now);
            if self.engine.table_sizes() == before {
                return;
            }
        }
    }

    fn send(&mut self, packet: &[u8]) -> Fate {
        self.send_as(packet, Offload::default())
    }

    /// Sends a packet with what its virtio-net header says of it.
    fn send_as(&mut self, packet: &[u8], offload: Offload) -> Fate {
        let mut buf = PacketBuf::new();
        buf.set(packet).unwrap();
        buf.offload = offload;
        let verdict = if packet[0] >> 4 == 6 {
            self.engine.handle_v6(&mut buf, self.now)
        } else {
            self.engine.handle_v4(&mut buf, self.now)
        };
        Fate::of(verdict, &mut buf)
    }

    /// A UDP packet of a client; the source it leaves with.
    fn udp(&mut self, from: (Ipv6Addr, u16), to: (Ipv4Addr, u16)) -> (Ipv4Addr, u16) {
        let packet = self.send(&udp6(from, to, b"data")).packet();
        let header = Ipv4::new_checked(&packet).unwrap();
        assert_eq!(transport_checksum_ok(&packet), Some(true));
        let (src, dst) = transport::ports(header.payload()).unwrap();
        assert_eq!((header.dst(), dst), to);
        (header.src(), src)
    }

    /// Lets time pass without telling the engine, as when the machine sleeps.
    fn sleep(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn sessions(&self) -> usize {
        self.engine.table_sizes().1
    }

    fn bindings(&self) -> usize {
        self.engine.table_sizes().0
    }
}

fn udp6(from: (Ipv6Addr, u16), to: (Ipv4Addr, u16), data: &[u8]) -> Vec<u8> {
    let dst = prefix().embed(to.0);
    let datagram = compose::udp(Pair::V6(from.0, dst), from.1, to.1, data);
    V6::new(from.0, dst, 17).carrying(&datagram)
}

fn udp4(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), data: &[u8]) -> Vec<u8> {
    let datagram = compose::udp(Pair::V4(from.0, to.0), from.1, to.1, data);
    V4::new(from.0, to.0, 17).carrying(&datagram)
}

fn tcp6(from: (Ipv6Addr, u16), to: (Ipv4Addr, u16), flags: u8) -> Vec<u8> {
    let dst = prefix().embed(to.0);
    let segment = compose::tcp(Pair::V6(from.0, dst), (from.1, to.1), flags, &[], b"");
    V6::new(from.0, dst, 6).carrying(&segment)
}

fn tcp4(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), flags: u8) -> Vec<u8> {
    let segment = compose::tcp(Pair::V4(from.0, to.0), (from.1, to.1), flags, &[], b"");
    V4::new(from.0, to.0, 6).carrying(&segment)
}

fn echo6(from: Ipv6Addr, kind: u8, id: u16, to: Ipv4Addr) -> Vec<u8> {
    let dst = prefix().embed(to);
    let [a, b] = id.to_be_bytes();
    let message = compose::icmp6(from, dst, kind, 0, [a, b, 0, 1], b"ping");
    V6::new(from, dst, 58).carrying(&message)
}

fn echo4(from: Ipv4Addr, kind: u8, id: u16, to: Ipv4Addr) -> Vec<u8> {
    let [a, b] = id.to_be_bytes();
    let message = compose::icmp4(kind, 0, [a, b, 0, 1], b"ping");
    V4::new(from, to, 1).carrying(&message)
}

fn dropped(reason: DropReason) -> Fate {
    Fate::Dropped(Why::State(reason))
}

fn error6(from: Ipv6Addr, quoted: &[u8], kind: u8, code: u8, rest: [u8; 4]) -> Vec<u8> {
    let quoted = &quoted[..quoted.len().min(1232)];
    let dst = Ipv6Addr::from(*quoted[8..].first_chunk::<16>().unwrap());
    let message = compose::icmp6(from, dst, kind, code, rest, quoted);
    V6::new(from, dst, 58).carrying(&message)
}

fn error4(from: Ipv4Addr, quoted: &[u8], kind: u8, code: u8) -> Vec<u8> {
    let dst = Ipv4Addr::from(*quoted[12..].first_chunk::<4>().unwrap());
    V4::new(from, dst, 1).carrying(&compose::icmp4(kind, code, [0; 4], quoted))
}

fn in_fragments6(packet: &[u8], id: u32) -> Vec<Vec<u8>> {
    let header = Ipv6::new_checked(packet).unwrap();
    let (src, dst) = (header.src(), header.dst());
    let chunks: Vec<_> = packet[40..].chunks(1232).collect();
    let fragment = |(i, chunk): (usize, &&[u8])| {
        let more = i + 1 < chunks.len();
        let offset = (i * 1232 / 8) as u16;
        let payload = compose::fragment(header.next_header(), offset, more, id, chunk);
        V6::new(src, dst, 44).carrying(&payload)
    };
    chunks.iter().enumerate().map(fragment).collect()
}
