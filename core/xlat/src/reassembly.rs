//! Fragmented datagrams, put together before they are translated. Only then are their ports known
//! for every fragment, their ICMP and missing UDP checksums computable, and their fragments safe
//! from overlapping each other (RFC 5722). A NAT64 does it with all (RFC 6146 §3.4), a CLAT with
//! ICMP, which cannot be translated in pieces (RFC 7915 §1.2).
//!
//! Memory is bounded by bytes, by datagrams, and by datagrams per source: an IPv4 address, an IPv6
//! /64, and in that an address by half of it. Whoever has used up what it may have makes room itself:
//! its datagram that has waited longest is given up for the new one. Fragments that belong together
//! come together, so who waits longest waits in vain most likely; and to drive out others' datagrams
//! between their first and their last fragment, a flood must fill all memory within that moment.
//! Were new fragments dropped instead, a few a second would keep it full.

use core::{
    net::{Ipv4Addr, Ipv6Addr},
    ops::Range,
    time::Duration,
};
use std::time::Instant;

use wire::{
    ipv4::{self, Ipv4, SourceRoute},
    ipv6::{self, FragmentHeader, Ipv6},
    offload::Offload,
    packet::PacketBuf,
    protocol,
};

use self::waiting::{Waiting, Whose};
use crate::{key::Key, reason::DropReason};

mod waiting;

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

/// The family of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    const ALL: [Self; 2] = [Self::V4, Self::V6];

    const fn index(self) -> usize {
        self as usize
    }
}

impl DatagramKey {
    fn family(&self) -> Family {
        match self {
            Self::V4 { .. } => Family::V4,
            Self::V6 { .. } => Family::V6,
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
    /// Datagrams being put together for one source: an IPv4 address or an IPv6 /64, of which each
    /// address has up to half. Default 64.
    pub datagrams_per_source: usize,
}

impl Limits {
    fn of(&self, whose: Whose) -> usize {
        match whose {
            Whose::Everybody => self.datagrams,
            Whose::V4(_) | Whose::Network(_) => self.datagrams_per_source,
            Whose::V6(_) => self.datagrams_per_source.div_ceil(2),
        }
    }
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
    waiting: Waiting,
    lifetime: Duration,
    limits: Limits,
    bytes: usize,
    /// Datagrams that have made room, by [`Family::index`], of whom nobody has been told yet.
    made_room: [usize; 2],
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
            waiting: Waiting::new(key),
            lifetime,
            limits,
            bytes: 0,
            made_room: [0; 2],
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
        self.waiting.len(Whose::Everybody)
    }

    /// When the oldest datagram runs out of time.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.waiting.next_deadline().map(|(_, deadline)| deadline)
    }

    /// Gives up datagrams that have run out of time ([`DropReason::FragmentTimeout`]), and tells of
    /// each, and of each that has made room for another since the last time
    /// ([`DropReason::FragmentDisplaced`]).
    pub fn expire(&mut self, now: Instant, mut given_up: impl FnMut(Family, DropReason)) {
        for family in Family::ALL {
            for _ in 0..core::mem::take(&mut self.made_room[family.index()]) {
                given_up(family, DropReason::FragmentDisplaced);
            }
        }
        while let Some((key, deadline)) = self.waiting.next_deadline()
            && deadline <= now
        {
            given_up(key.family(), DropReason::FragmentTimeout);
            self.forget(&key);
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
        let datagram = self.waiting.get(&arrival.key);
        if !datagram.is_some_and(Datagram::is_complete) {
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
        let Some(datagram) = self.waiting.get_mut(&arrival.key) else {
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
        let cost = len + size_of::<Piece>();
        if cost > self.limits.bytes {
            return Err(DropReason::FragmentMemory);
        }
        if !self.waiting.contains(&arrival.key) {
            for whose in arrival.key.lines().into_iter().flatten() {
                while self.waiting.len(whose) >= self.limits.of(whose) {
                    self.give_up_oldest(whose, &arrival.key)?;
                }
            }
        }
        while self.bytes + cost > self.limits.bytes {
            self.give_up_oldest(Whose::Everybody, &arrival.key)?;
        }
        self.waiting.join(arrival.key, now + self.lifetime);
        Ok(())
    }

    /// Makes room for a fragment of the datagram `of`, but not at the cost of that itself.
    fn give_up_oldest(&mut self, whose: Whose, of: &DatagramKey) -> Result<(), DropReason> {
        let oldest = self.waiting.oldest(whose).filter(|oldest| oldest != of);
        let oldest = oldest.ok_or(DropReason::FragmentMemory)?;
        self.made_room[oldest.family().index()] += 1;
        self.forget(&oldest);
        Ok(())
    }

    fn forget(&mut self, key: &DatagramKey) -> Option<Datagram> {
        let datagram = self.waiting.leave(key)?;
        self.bytes -= datagram.cost();
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
