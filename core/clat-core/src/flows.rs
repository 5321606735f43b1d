//! [`Flows`]: which NAT64 prefix each flow of the host goes by.
//!
//! A NAT64 keeps state for every flow, so a connection that moves to another prefix is lost as a
//! rule. When a network changes its prefix it announces both for a while (RFC 8781 §5.1): flows
//! that began under the old one stay there for as long as it holds, new ones take the new one.
//!
//! Which flows there are cannot be asked of anybody, so they are noted as they pass, always: by the
//! time the prefix changes it is too late. The notes are a table of fixed size, a few bytes per
//! flow, one cache line per packet. It is a hint and no more: a flow that was forgotten or taken
//! for another goes by the wrong one of two prefixes that both work, and nothing worse.

use core::net::Ipv4Addr;
use std::time::Instant;

use pref64::Pref64;
use wire::{
    icmp::{self, Icmp, v4},
    ipv4::Ipv4,
    protocol,
    transport::{self, tcp},
};

/// How many prefixes are kept for flows that began under them, beside the one for new flows.
pub const MAX_RETAINED: usize = 3;

/// Sets of the table; a power of two.
const SETS: usize = 1 << 14;

/// Flows whose hash chooses the same set. More than one, or a second flow in a set would push the
/// first one to another prefix. A set is half of a cache line.
const WAYS: usize = 4;

/// An idle TCP connection is known to a NAT64 for as long (RFC 5382 §5), in seconds.
const TCP_LIFETIME: u16 = 2 * 3600 + 4 * 60;

/// Any other flow (RFC 4787 §4.3: at least two minutes, five by default), in seconds.
const OTHER_LIFETIME: u16 = 5 * 60;

/// The fragments of a datagram follow each other at once. In seconds.
const DATAGRAM_LIFETIME: u16 = 15;

/// The flows of a host, and the prefixes they go by.
pub struct Flows {
    key: [u64; 2],
    sets: Box<[[Entry; WAYS]]>,
    /// The first one is for new flows.
    live: Vec<Numbered>,
    last_number: u16,
    /// Where the seconds of the entries are counted from.
    origin: Option<Instant>,
}

/// A prefix, and the number by which entries refer to it. A prefix that returns gets another number,
/// so that entries from before are not taken for its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbered {
    number: u16,
    prefix: Pref64,
}

/// A flow in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    /// The part of the hash that did not choose the set.
    fingerprint: u32,
    /// When it was seen last, modulo 18 hours.
    seen: u16,
    /// The number of its prefix; 0 if there is no flow here.
    prefix: u16,
}

impl Entry {
    fn age(self, seconds: u16) -> u16 {
        seconds.wrapping_sub(self.seen)
    }

    fn is_of(self, fingerprint: u32) -> bool {
        self.prefix != 0 && self.fingerprint == fingerprint
    }
}

impl Flows {
    /// No flows yet; new ones go by `preferred`. `key` should be random.
    #[must_use]
    pub fn new(preferred: Pref64, retained: &[Pref64], key: u64) -> Self {
        let mut flows = Self {
            // Any odd constant makes two keys of one.
            key: [key, key.rotate_left(32).wrapping_mul(0x9e37_79b9_7f4a_7c15)],
            sets: vec![[Entry::default(); WAYS]; SETS].into_boxed_slice(),
            live: Vec::with_capacity(1 + MAX_RETAINED),
            last_number: 0,
            origin: None,
        };
        flows.set_prefixes(preferred, retained);
        flows
    }

    /// New flows go by `preferred` from now on; those that are known and went by one of `retained`
    /// stay there. Everything else goes by `preferred`, too.
    pub fn set_prefixes(&mut self, preferred: Pref64, retained: &[Pref64]) {
        let before = std::mem::take(&mut self.live);
        let others = retained.iter().copied().filter(|it| *it != preferred);
        for prefix in [preferred].into_iter().chain(others.take(MAX_RETAINED)) {
            let known = before.iter().find(|it| it.prefix == prefix);
            let numbered = match known {
                Some(known) => *known,
                None => self.number(prefix, &before),
            };
            self.live.push(numbered);
        }
    }

    /// The next number that no live prefix has.
    fn number(&mut self, prefix: Pref64, before: &[Numbered]) -> Numbered {
        loop {
            self.last_number = self.last_number.wrapping_add(1);
            let number = self.last_number;
            let mut taken = before.iter().chain(&self.live);
            if number != 0 && !taken.any(|it| it.number == number) {
                return Numbered { number, prefix };
            }
        }
    }

    /// The prefix that the host's packet in `bytes` goes by. Notes its flow.
    #[must_use]
    pub fn prefix_of(&mut self, bytes: &[u8], now: Instant) -> Pref64 {
        let preferred = self.live[0];
        let seconds = self.seconds(now);
        let number = match Seen::in_packet(bytes) {
            None => return preferred.prefix,
            Some(Seen::Quoted(flow)) => self.find(&flow, seconds),
            Some(Seen::Rest(datagram)) => self.find(&datagram, seconds),
            Some(Seen::Whole(flow)) => self.note(&flow, seconds, None),
            Some(Seen::First(flow, datagram)) => {
                let number = self.note(&flow, seconds, None);
                self.note(&datagram, seconds, Some(number))
            }
        };
        let mut live = self.live.iter();
        live.find(|it| it.number == number)
            .map_or(preferred.prefix, |it| it.prefix)
    }

    /// Modulo 18 hours, like the entries.
    #[expect(clippy::cast_possible_truncation, reason = "that is the modulo")]
    fn seconds(&mut self, now: Instant) -> u16 {
        let origin = *self.origin.get_or_insert(now);
        now.saturating_duration_since(origin).as_secs() as u16
    }

    /// Where a flow is or would be: its set, and its fingerprint.
    #[expect(clippy::cast_possible_truncation, reason = "two parts of a hash")]
    fn place(&self, flow: &Flow) -> (usize, u32) {
        let hash = flow.hash(self.key);
        (hash as usize % SETS, (hash >> 32) as u32)
    }

    /// The number of a flow's prefix; that for new flows if it is not known.
    fn find(&self, flow: &Flow, seconds: u16) -> u16 {
        let (set, fingerprint) = self.place(flow);
        let entry = self.sets[set].iter().find(|it| it.is_of(fingerprint));
        self.number_of(entry, flow, seconds)
    }

    fn number_of(&self, entry: Option<&Entry>, flow: &Flow, seconds: u16) -> u16 {
        let preferred = self.live[0].number;
        let Some(entry) = entry.filter(|it| it.age(seconds) <= flow.lifetime) else {
            return preferred;
        };
        let is_live = self.live.iter().any(|it| it.number == entry.prefix);
        if is_live { entry.prefix } else { preferred }
    }

    /// Notes that a flow was seen. Returns the number of its prefix: the one given, or its own.
    fn note(&mut self, flow: &Flow, seconds: u16, given: Option<u16>) -> u16 {
        let (set, fingerprint) = self.place(flow);
        let known = self.sets[set].iter().position(|it| it.is_of(fingerprint));
        let number = given.unwrap_or_else(|| match known {
            // While there is one prefix, there is nothing to look up.
            _ if self.live.len() == 1 || flow.opens => self.live[0].number,
            at => self.number_of(at.map(|at| &self.sets[set][at]), flow, seconds),
        });
        let at = known.unwrap_or_else(|| idlest(&self.sets[set], seconds));
        self.sets[set][at] = Entry {
            fingerprint,
            seen: seconds,
            prefix: number,
        };
        number
    }
}

/// The place of the entry that a new flow replaces.
fn idlest(set: &[Entry; WAYS], seconds: u16) -> usize {
    let idle = |at: &usize| (set[*at].prefix == 0, set[*at].age(seconds));
    (0..WAYS).max_by_key(idle).unwrap_or(0)
}

impl core::fmt::Debug for Flows {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Flows")
            .field("live", &self.live)
            .finish_non_exhaustive()
    }
}

/// What tells a flow of the host from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    peer: Ipv4Addr,
    /// Ours and the peer's, or an identifier.
    ports: (u16, u16),
    protocol: u8,
    /// Not a flow, but one datagram in fragments, with its Identification in `ports`.
    is_datagram: bool,
    /// For how long it is remembered, in seconds.
    lifetime: u16,
    /// Whatever was before, this is the beginning of another one.
    opens: bool,
}

impl Flow {
    fn between(protocol: u8, peer: Ipv4Addr, ports: (u16, u16)) -> Self {
        Self {
            peer,
            ports,
            protocol,
            is_datagram: false,
            lifetime: match protocol {
                protocol::TCP => TCP_LIFETIME,
                _ => OTHER_LIFETIME,
            },
            opens: false,
        }
    }

    fn datagram(packet: &Ipv4<'_>) -> Self {
        Self {
            is_datagram: true,
            lifetime: DATAGRAM_LIFETIME,
            ..Self::between(packet.protocol(), packet.dst(), (packet.id(), 0))
        }
    }

    /// Multiply and fold. The key keeps peers from choosing which flows share a set.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves of a product"
    )]
    fn hash(&self, key: [u64; 2]) -> u64 {
        let (ours, theirs) = self.ports;
        let ends = u64::from(self.peer.to_bits()) << 32 | u64::from(ours) << 16 | u64::from(theirs);
        let kind = u64::from(self.protocol) << 1 | u64::from(self.is_datagram);
        let fold = |a: u64, b: u64| {
            let product = u128::from(a) * u128::from(b);
            product as u64 ^ (product >> 64) as u64
        };
        let first = fold(ends ^ key[0], 0xe703_7ed1_a0b4_28db ^ key[1]);
        fold(first ^ kind, 0x8ebc_6af0_9c88_c6e3 ^ key[1])
    }
}

/// What a packet says about flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// A packet of this flow.
    Whole(Flow),
    /// The first fragment of this datagram, of this flow.
    First(Flow, Flow),
    /// A later fragment of this datagram, which does not show its flow.
    Rest(Flow),
    /// An error about a packet that came in on this flow.
    Quoted(Flow),
}

impl Seen {
    fn in_packet(bytes: &[u8]) -> Option<Self> {
        let packet = Ipv4::new_embedded(bytes).ok()?;
        if !packet.fragment().is_first() {
            return Some(Self::Rest(Flow::datagram(&packet)));
        }
        if packet.protocol() == protocol::ICMP {
            return Self::in_icmp(&packet);
        }
        let mut flow = Flow::between(packet.protocol(), packet.dst(), ports(&packet)?);
        flow.opens = opens_connection(&packet);
        if packet.fragment().is_fragment() {
            return Some(Self::First(flow, Flow::datagram(&packet)));
        }
        Some(Self::Whole(flow))
    }

    fn in_icmp(packet: &Ipv4<'_>) -> Option<Self> {
        let header = Icmp::parse(packet.payload())?;
        match header.kind {
            v4::ECHO_REQUEST | v4::ECHO_REPLY => {
                let ports = (header.identifier(), 0);
                Some(Self::Whole(Flow::between(
                    protocol::ICMP,
                    packet.dst(),
                    ports,
                )))
            }
            _ => Self::in_quote(packet.payload().get(icmp::HEADER_LEN..)?),
        }
    }

    /// The quoted packet came from the peer.
    fn in_quote(bytes: &[u8]) -> Option<Self> {
        let quoted = Ipv4::new_embedded(bytes).ok()?;
        if !quoted.fragment().is_first() {
            return None;
        }
        let ports = match quoted.protocol() {
            protocol::ICMP => (Icmp::parse(quoted.payload())?.identifier(), 0),
            _ => {
                let (theirs, ours) = ports(&quoted)?;
                (ours, theirs)
            }
        };
        let flow = Flow::between(quoted.protocol(), quoted.src(), ports);
        Some(Self::Quoted(flow))
    }
}

/// The ports of a packet whose transport header is there; none for a protocol without ports, such
/// as ESP, all of whose packets to a peer are one flow.
fn ports(packet: &Ipv4<'_>) -> Option<(u16, u16)> {
    match packet.protocol() {
        protocol::TCP | protocol::UDP | protocol::DCCP | protocol::SCTP | protocol::UDP_LITE => {
            transport::ports(packet.payload())
        }
        _ => Some((0, 0)),
    }
}

fn opens_connection(packet: &Ipv4<'_>) -> bool {
    let flags = packet.payload().get(tcp::FLAGS_AT).copied().unwrap_or(0);
    packet.protocol() == protocol::TCP && flags & (tcp::SYN | tcp::ACK) == tcp::SYN
}

#[cfg(test)]
mod tests;
