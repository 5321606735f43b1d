//! Fragmented datagrams, put together before they are translated. Only then are their ports known
//! for every fragment, their ICMP and missing UDP checksums computable, and their fragments safe
//! from overlapping each other (RFC 5722). A NAT64 does it with all (RFC 6146 §3.4), a CLAT with
//! ICMP, which cannot be translated in pieces (RFC 7915 §1.2).
//!
//! Memory is bounded by bytes, by datagrams, and by datagrams per source (a /64 for IPv6). When it
//! is used up, new fragments are dropped and old ones kept.

use core::{
    net::{Ipv4Addr, Ipv6Addr},
    ops::Range,
    time::Duration,
};
use std::{collections::VecDeque, time::Instant};

use hashbrown::HashMap;
use wire::{
    ipv4::{self, Ipv4, SourceRoute},
    ipv6::{self, FragmentHeader, Ipv6},
    offload::Offload,
    packet::PacketBuf,
    protocol,
};

use crate::{key::Key, reason::DropReason};

/// Pieces one datagram may come in: 65 535 bytes over links of 576 bytes are 118.
const MAX_PIECES: usize = 256;

/// ECN "congestion experienced".
const CE: u8 = 0b11;

/// What the fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum DatagramKey {
    V4 {
        src: Ipv4Addr,
        dst: Ipv4Addr,
        protocol: u8,
        id: u16,
    },
    V6 {
        src: Ipv6Addr,
        dst: Ipv6Addr,
        id: u32,
    },
}

/// Whose memory a datagram is counted against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    V4(Ipv4Addr),
    V6([u8; 8]),
}

/// The family of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl DatagramKey {
    fn family(&self) -> Family {
        match self {
            Self::V4 { .. } => Family::V4,
            Self::V6 { .. } => Family::V6,
        }
    }

    fn source(&self) -> Source {
        match self {
            Self::V4 { src, .. } => Source::V4(*src),
            Self::V6 { src, .. } => {
                let [a, b, c, d, e, f, g, h, ..] = src.octets();
                Source::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// A part of a datagram that has arrived.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Its place in the datagram, in bytes.
    offset: usize,
    len: usize,
    /// Its place in [`Datagram::data`].
    at: usize,
}

/// What the header of the whole datagram needs.
#[derive(Clone, Copy, Debug)]
struct Head {
    class: u8,
    hop_limit: u8,
    protocol: u8,
}

#[derive(Debug, Default)]
struct Datagram {
    /// The bytes of the pieces, in the order of their arrival.
    data: Vec<u8>,
    /// Sorted by offset.
    pieces: Vec<Piece>,
    /// Of the first fragment.
    head: Option<Head>,
    congestion: bool,
    /// Known once the last fragment is there.
    total: Option<usize>,
    /// Fragments overlapped: nothing of it will pass.
    poisoned: bool,
    serial: u64,
}

impl Datagram {
    fn is_complete(&self) -> bool {
        let mut end = 0;
        for piece in &self.pieces {
            if piece.offset != end {
                return false;
            }
            end += piece.len;
        }
        self.head.is_some() && self.total == Some(end)
    }

    /// Bytes of memory it takes for what has arrived. Tiny fragments cost more than they carry.
    fn cost(&self) -> usize {
        self.data.len() + self.pieces.len() * size_of::<Piece>()
    }

    fn poison(&mut self) {
        self.poisoned = true;
        self.data = Vec::new();
        self.pieces = Vec::new();
    }
}

/// One fragment as it arrives.
struct Arrival {
    key: DatagramKey,
    head: Head,
    offset: usize,
    more: bool,
    /// Where its payload lies in the packet. The link may have padded the packet behind it.
    payload: Range<usize>,
}

/// How much may be kept. Memory grows up to this and no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Datagrams being put together. Default 1024.
    pub datagrams: usize,
    /// Bytes of fragments that wait for the rest, and 24 more for each. Default 16 MiB.
    pub bytes: usize,
    /// Datagrams being put together for one source: an IPv4 address or an IPv6 /64. Default 64.
    pub datagrams_per_source: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            datagrams: 1024,
            bytes: 16 << 20,
            datagrams_per_source: 64,
        }
    }
}

/// The fragments that wait for others.
#[derive(Debug)]
pub struct Reassembly {
    datagrams: HashMap<DatagramKey, Datagram, Key>,
    per_source: HashMap<Source, usize, Key>,
    /// In the order of their arrival, which is that of their deadlines.
    deadlines: VecDeque<(Instant, DatagramKey, u64)>,
    lifetime: Duration,
    limits: Limits,
    bytes: usize,
    serial: u64,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// The buffer holds a whole packet: it was none of a fragment, or the last one missing.
    Whole,
    /// It was kept until the rest comes.
    Kept,
}

impl Reassembly {
    /// Keeps nothing yet.
    #[must_use]
    pub fn new(key: Key, lifetime: Duration, limits: Limits) -> Self {
        Self {
            datagrams: HashMap::with_hasher(key),
            per_source: HashMap::with_hasher(key),
            deadlines: VecDeque::new(),
            lifetime,
            limits,
            bytes: 0,
            serial: 0,
        }
    }

    /// Other limits and another lifetime, from the next fragment on. What is kept stays.
    pub fn set_limits(&mut self, lifetime: Duration, limits: Limits) {
        self.lifetime = lifetime;
        self.limits = limits;
    }

    /// Bytes that are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Datagrams that are being put together.
    #[must_use]
    pub fn datagrams(&self) -> usize {
        self.datagrams.len()
    }

    /// When the oldest datagram runs out of time.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.deadlines.front().map(|(deadline, ..)| *deadline)
    }

    /// Gives up datagrams that have run out of time, and tells of each.
    pub fn expire(&mut self, now: Instant, mut given_up: impl FnMut(Family)) {
        while let Some((deadline, key, serial)) = self.deadlines.front().copied() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_front();
            let known = self.datagrams.get(&key);
            if known.is_some_and(|datagram| datagram.serial == serial) {
                given_up(key.family());
                self.forget(&key);
            }
        }
    }

    /// Takes a packet of either family. If it is the last fragment that was missing, `buf` holds
    /// the whole packet afterwards.
    ///
    /// # Errors
    /// One of the reasons about fragments.
    pub fn take(&mut self, buf: &mut PacketBuf, now: Instant) -> Result<Outcome, DropReason> {
        let Some(arrival) = arrival(buf.bytes())? else {
            return Ok(Outcome::Whole);
        };
        let payload = buf.bytes().get(arrival.payload.clone());
        let payload = payload.unwrap_or_default();
        self.add(&arrival, payload, now)?;
        if !self
            .datagrams
            .get(&arrival.key)
            .is_some_and(Datagram::is_complete)
        {
            return Ok(Outcome::Kept);
        }
        match self.forget(&arrival.key) {
            Some(datagram) => write(buf, &arrival.key, &datagram).map(|()| Outcome::Whole),
            None => Ok(Outcome::Kept),
        }
    }

    fn add(&mut self, arrival: &Arrival, payload: &[u8], now: Instant) -> Result<(), DropReason> {
        check_place(arrival, payload.len())?;
        self.make_room(arrival, payload.len(), now)?;
        let Some(datagram) = self.datagrams.get_mut(&arrival.key) else {
            return Err(DropReason::FragmentMemory);
        };
        if datagram.poisoned {
            return Err(DropReason::FragmentOverlap);
        }
        let before = datagram.cost();
        let result = place(datagram, arrival, payload);
        if result.is_err() {
            datagram.poison();
        }
        self.bytes = self.bytes - before + datagram.cost();
        result
    }

    /// Makes sure that there is an entry for the datagram and memory for the fragment.
    fn make_room(&mut self, arrival: &Arrival, len: usize, now: Instant) -> Result<(), DropReason> {
        if self.bytes + len + size_of::<Piece>() > self.limits.bytes {
            return Err(DropReason::FragmentMemory);
        }
        if self.datagrams.contains_key(&arrival.key) {
            return Ok(());
        }
        let source = arrival.key.source();
        let of_source = self.per_source.get(&source).copied().unwrap_or_default();
        if self.datagrams.len() >= self.limits.datagrams
            || of_source >= self.limits.datagrams_per_source
        {
            return Err(DropReason::FragmentMemory);
        }
        self.serial += 1;
        let datagram = Datagram {
            serial: self.serial,
            ..Datagram::default()
        };
        self.datagrams.insert(arrival.key, datagram);
        *self.per_source.entry(source).or_default() += 1;
        self.set_deadline(arrival.key, now + self.lifetime);
        Ok(())
    }

    /// Completed datagrams leave their deadlines behind. Before those outnumber what the limits
    /// allow to be waiting, they are cleared away: once for many datagrams.
    fn set_deadline(&mut self, key: DatagramKey, deadline: Instant) {
        if self.deadlines.len() >= 2 * self.limits.datagrams {
            let datagrams = &self.datagrams;
            self.deadlines.retain(|(_, key, serial)| {
                let known = datagrams.get(key);
                known.is_some_and(|datagram| datagram.serial == *serial)
            });
        }
        self.deadlines.push_back((deadline, key, self.serial));
    }

    fn forget(&mut self, key: &DatagramKey) -> Option<Datagram> {
        let datagram = self.datagrams.remove(key)?;
        self.bytes -= datagram.cost();
        let source = key.source();
        if let Some(count) = self.per_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.per_source.remove(&source);
            }
        }
        Some(datagram)
    }
}

/// Reads a fragment; `None` if the packet is whole. An atomic fragment is whole.
fn arrival(bytes: &[u8]) -> Result<Option<Arrival>, DropReason> {
    if let Ok(packet) = Ipv4::new_checked(bytes) {
        let fragment = packet.fragment();
        if !fragment.is_fragment() {
            return Ok(None);
        }
        match ipv4::source_route(packet.options()) {
            Ok(SourceRoute::None | SourceRoute::Expired) => {}
            Ok(SourceRoute::Unexpired) => return Err(DropReason::SourceRoute),
            Err(_) => return Err(DropReason::MalformedIpv4),
        }
        return Ok(Some(Arrival {
            key: DatagramKey::V4 {
                src: packet.src(),
                dst: packet.dst(),
                protocol: packet.protocol(),
                id: packet.id(),
            },
            head: Head {
                class: packet.tos(),
                hop_limit: packet.ttl(),
                protocol: packet.protocol(),
            },
            offset: usize::from(fragment.offset) * 8,
            more: fragment.more,
            payload: packet.header_len()..packet.total_len().into(),
        }));
    }
    let packet = Ipv6::new_checked(bytes).map_err(|_| DropReason::FragmentMalformed)?;
    let upper = packet.upper().map_err(|_| DropReason::FragmentMalformed)?;
    let Some(header) = upper.fragment.filter(|it| it.fragment.is_fragment()) else {
        return Ok(None);
    };
    // The whole packet would no longer show what it must be refused for.
    if upper.segments_left_at.is_some() {
        return Err(DropReason::RoutingHeader);
    }
    if upper.extension_after_fragment {
        return Err(DropReason::ExtensionAfterFragment);
    }
    Ok(Some(Arrival {
        key: DatagramKey::V6 {
            src: packet.src(),
            dst: packet.dst(),
            id: header.id,
        },
        head: Head {
            class: packet.traffic_class(),
            hop_limit: packet.hop_limit(),
            protocol: upper.protocol,
        },
        offset: usize::from(header.fragment.offset) * 8,
        more: header.fragment.more,
        payload: upper.offset..ipv6::HEADER_LEN + usize::from(packet.payload_len()),
    }))
}

/// Only the last fragment may end anywhere, none may be empty, and nothing may lie beyond the
/// longest datagram (RFC 8200 §4.5).
fn check_place(arrival: &Arrival, len: usize) -> Result<(), DropReason> {
    let uneven = arrival.more && !len.is_multiple_of(8);
    let too_long = arrival.offset + len > usize::from(u16::MAX);
    if uneven || too_long || len == 0 {
        return Err(DropReason::FragmentMalformed);
    }
    Ok(())
}

/// Puts a fragment into its place, if that is free. An exact repetition changes nothing.
fn place(datagram: &mut Datagram, arrival: &Arrival, payload: &[u8]) -> Result<(), DropReason> {
    let (start, end) = (arrival.offset, arrival.offset + payload.len());
    let at = datagram
        .pieces
        .partition_point(|piece| piece.offset < start);
    if let Some(same) = datagram.pieces.get(at)
        && same.offset == start
        && datagram.data.get(same.at..same.at + same.len) == Some(payload)
    {
        return Ok(());
    }
    let before_overlaps = at > 0 && {
        let before = datagram.pieces[at - 1];
        before.offset + before.len > start
    };
    let after_overlaps = datagram
        .pieces
        .get(at)
        .is_some_and(|after| after.offset < end);
    if before_overlaps || after_overlaps || datagram.pieces.len() >= MAX_PIECES {
        return Err(DropReason::FragmentOverlap);
    }
    // Two ends, or something behind the end, are an overlap in disguise.
    let last_end = datagram
        .pieces
        .last()
        .map_or(0, |last| last.offset + last.len);
    let contradicts = match (datagram.total, arrival.more) {
        (Some(total), true) => end > total,
        (Some(_), false) => true,
        (None, true) => false,
        (None, false) => last_end > end,
    };
    if contradicts {
        return Err(DropReason::FragmentOverlap);
    }
    if !arrival.more {
        datagram.total = Some(end);
    }
    if start == 0 {
        datagram.head = Some(arrival.head);
    }
    datagram.congestion |= arrival.head.class & CE == CE;
    let piece = Piece {
        offset: start,
        len: payload.len(),
        at: datagram.data.len(),
    };
    datagram.data.extend_from_slice(payload);
    datagram.pieces.insert(at, piece);
    Ok(())
}

/// Writes the whole datagram into `buf`. An IPv6 one keeps an atomic Fragment Header, so that its
/// Identification survives translation (RFC 7915 §5.1.1).
fn write(buf: &mut PacketBuf, key: &DatagramKey, datagram: &Datagram) -> Result<(), DropReason> {
    let Some(head) = datagram.head else {
        return Err(DropReason::FragmentMalformed);
    };
    let mut front = [0; ipv6::HEADER_LEN + ipv6::FRAGMENT_HEADER_LEN];
    let len = datagram.total.unwrap_or_default();
    let front_len = write_header(&mut front, key, head, datagram.congestion, len)?;
    let area = buf.receive_area(0);
    let whole = area.get_mut(..front_len + len).ok_or(DropReason::NoRoom)?;
    whole[..front_len].copy_from_slice(&front[..front_len]);
    for piece in &datagram.pieces {
        let from = &datagram.data[piece.at..piece.at + piece.len];
        whole[front_len + piece.offset..][..piece.len].copy_from_slice(from);
    }
    let offload = Offload {
        reassembled: true,
        ..Offload::default()
    };
    buf.received(front_len + len, offload);
    Ok(())
}

fn write_header(
    front: &mut [u8],
    key: &DatagramKey,
    head: Head,
    congestion: bool,
    len: usize,
) -> Result<usize, DropReason> {
    let too_long = |_| DropReason::FragmentMalformed;
    let class = head.class | if congestion { CE } else { 0 };
    match key {
        DatagramKey::V4 { src, dst, id, .. } => {
            let header = ipv4::Fields {
                tos: class,
                total_len: u16::try_from(len + ipv4::HEADER_LEN).map_err(too_long)?,
                id: *id,
                dont_fragment: false,
                fragment: ipv4::Fragment::default(),
                ttl: head.hop_limit,
                protocol: head.protocol,
                src: *src,
                dst: *dst,
            };
            front[..ipv4::HEADER_LEN].copy_from_slice(&header.to_bytes());
            Ok(ipv4::HEADER_LEN)
        }
        DatagramKey::V6 { src, dst, id } => {
            let payload_len = len + ipv6::FRAGMENT_HEADER_LEN;
            let header = ipv6::Fields {
                traffic_class: class,
                payload_len: u16::try_from(payload_len).map_err(too_long)?,
                next_header: protocol::FRAGMENT,
                hop_limit: head.hop_limit,
                src: *src,
                dst: *dst,
            };
            let atomic = FragmentHeader {
                fragment: ipv4::Fragment::default(),
                id: *id,
            };
            front[..ipv6::HEADER_LEN].copy_from_slice(&header.to_bytes());
            front[ipv6::HEADER_LEN..].copy_from_slice(&atomic.to_bytes(head.protocol));
            Ok(ipv6::HEADER_LEN + ipv6::FRAGMENT_HEADER_LEN)
        }
    }
}

#[cfg(test)]
mod tests;
