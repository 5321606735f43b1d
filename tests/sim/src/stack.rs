//! An IPv4 host: puts datagrams on the wire and takes them off it, learns path MTUs, and checks all
//! that arrives.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use wire::compose::V4;

use crate::{
    inspect::{self, ICMP, Place, Seen, UDP},
    router::in_fragments,
};

/// How long fragments are waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A datagram to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    pub(crate) to: Ipv4Addr,
    pub(crate) protocol: u8,
    /// From the transport header on.
    pub(crate) payload: Vec<u8>,
    pub(crate) ttl: u8,
    /// Never in fragments, if it fits what the path is known to take.
    pub(crate) dont_fragment: bool,
    pub(crate) options: Vec<u8>,
}

impl Datagram {
    pub(crate) fn new(to: Ipv4Addr, protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            to,
            protocol,
            payload,
            ttl: 64,
            dont_fragment: false,
            options: Vec::new(),
        }
    }
}

/// What arrived, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) from: Ipv4Addr,
    pub(crate) protocol: u8,
    pub(crate) payload: Vec<u8>,
}

impl Arrived {
    pub(crate) fn is_icmp_error(&self) -> bool {
        self.protocol == ICMP && matches!(self.payload.first(), Some(3 | 11 | 12))
    }
}

/// What an ICMP error quotes: the beginning of what we sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quote {
    pub(crate) to: Ipv4Addr,
    pub(crate) protocol: u8,
    /// The transport header's first bytes.
    pub(crate) start: [u8; 8],
}

impl Quote {
    pub(crate) fn port(&self) -> u16 {
        u16::from_be_bytes([self.start[0], self.start[1]])
    }
}

#[derive(Debug, Default)]
struct Partial {
    since: Duration,
    parts: BTreeMap<usize, Vec<u8>>,
    total: Option<usize>,
}

impl Partial {
    fn put(&mut self, place: Place, bytes: &[u8]) {
        if !place.more {
            self.total = Some(place.offset + bytes.len());
        }
        self.parts.insert(place.offset, bytes.to_vec());
    }

    /// The whole, if nothing is missing. Parts may overlap: they were cut in several places.
    fn whole(&self) -> Option<Vec<u8>> {
        let total = self.total?;
        let mut whole = Vec::new();
        for (offset, bytes) in &self.parts {
            let known = whole.len().checked_sub(*offset)?;
            whole.extend(bytes.get(known..).unwrap_or_default());
        }
        (whole.len() == total).then_some(whole)
    }
}

/// A host's IPv4.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) address: Ipv4Addr,
    mtu: usize,
    paths: HashMap<Ipv4Addr, usize>,
    next_id: u16,
    partial: HashMap<(Ipv4Addr, u8, u32), Partial>,
    /// What was sent, and with which checksums: several datagrams may be of one length.
    sent: HashMap<(Ipv4Addr, u8, [u8; 8]), BTreeSet<Option<u16>>>,
}

impl Stack {
    pub(crate) fn new(address: Ipv4Addr, mtu: usize, first_id: u16) -> Self {
        Self {
            address,
            mtu,
            paths: HashMap::new(),
            next_id: first_id,
            partial: HashMap::new(),
            sent: HashMap::new(),
        }
    }

    /// Bytes that the path to `to` takes, as far as is known.
    pub(crate) fn path_mtu(&self, to: Ipv4Addr) -> usize {
        self.paths.get(&to).copied().unwrap_or(self.mtu)
    }

    /// The packets that a datagram makes.
    pub(crate) fn send(&mut self, datagram: &Datagram) -> Vec<Vec<u8>> {
        self.next_id = self.next_id.wrapping_add(1);
        let mtu = self.path_mtu(datagram.to);
        let len = 20 + datagram.options.len() + datagram.payload.len();
        let mut header = V4::new(self.address, datagram.to, datagram.protocol);
        header.id = self.next_id;
        header.ttl = datagram.ttl;
        header.options.clone_from(&datagram.options);
        header.df = datagram.dont_fragment && len <= mtu;
        let start = start_of(datagram.protocol, &datagram.payload);
        let checksum = checksum_of(datagram.protocol, &datagram.payload);
        let key = (datagram.to, datagram.protocol, start);
        self.sent.entry(key).or_default().insert(checksum);
        in_fragments(&header.carrying(&datagram.payload), mtu)
    }

    /// Takes a packet off the wire; the datagram, if that completes one.
    ///
    /// # Panics
    /// If there is anything wrong with the packet.
    pub(crate) fn receive(&mut self, packet: &[u8], now: Duration) -> Option<Arrived> {
        let seen = inspect::right(packet).unwrap_or_else(|why| panic!("{why}: {packet:02x?}"));
        let IpAddr::V4(from) = seen.src else {
            panic!("an IPv6 packet for an IPv4 host");
        };
        assert_eq!(IpAddr::V4(self.address), seen.dst, "not for us");
        let payload = match seen.fragment {
            None => seen.payload.to_vec(),
            Some(place) => self.put_together(from, &seen, place, now)?,
        };
        let whole = Seen {
            fragment: None,
            payload: &payload,
            ..seen
        };
        assert_ne!(
            whole.transport_is_right(),
            Some(false),
            "wrong after reassembly"
        );
        Some(Arrived {
            from,
            protocol: seen.protocol,
            payload,
        })
    }

    fn put_together(
        &mut self,
        from: Ipv4Addr,
        seen: &Seen<'_>,
        place: Place,
        now: Duration,
    ) -> Option<Vec<u8>> {
        self.partial.retain(|_, it| it.since + PATIENCE > now);
        let key = (from, seen.protocol, place.id);
        let partial = self.partial.entry(key).or_insert_with(|| Partial {
            since: now,
            ..Partial::default()
        });
        partial.put(place, seen.payload);
        let whole = partial.whole()?;
        self.partial.remove(&key);
        Some(whole)
    }

    /// Reads an ICMP error, and learns the path MTU from it. `None` about a later fragment.
    ///
    /// # Panics
    /// If it quotes what we never sent.
    pub(crate) fn read_error(&mut self, error: &Arrived) -> Option<Quote> {
        let (header, quote) = error.payload.split_at(8);
        let header_len = usize::from(quote[0] & 15) * 4;
        assert_eq!(
            wire::compose::checksum(&[&quote[..header_len]]),
            0,
            "quoted header: {quote:02x?}"
        );
        let address =
            |at: usize| Ipv4Addr::from([quote[at], quote[at + 1], quote[at + 2], quote[at + 3]]);
        assert_eq!(
            address(12),
            self.address,
            "about somebody else: {quote:02x?}"
        );
        let place = u16::from_be_bytes([quote[6], quote[7]]) & 0x3fff;
        if place & 0x1fff != 0 {
            return None;
        }
        let start = &quote[header_len..];
        let checksum = checksum_of(quote[9], start);
        let quote = Quote {
            to: address(16),
            protocol: quote[9],
            start: start_of(quote[9], start),
        };
        let key = (quote.to, quote.protocol, quote.start);
        let sent = self.sent.get(&key);
        let sent = sent.unwrap_or_else(|| panic!("never sent: {key:?}"));
        // Of a fragment of ICMP nobody on the way knows how long the whole is, which is a part of
        // ICMPv6's checksum.
        if !sent.contains(&None) && (quote.protocol != ICMP || place == 0) {
            let is_ours = sent.contains(&checksum);
            assert!(
                is_ours,
                "checksum of the quoted {key:?}: {checksum:?}, not {sent:?}"
            );
        }
        if let [3, 4, _, _, _, _, hi, lo] = *header {
            let mtu = usize::from(u16::from_be_bytes([hi, lo]));
            let known = self.path_mtu(quote.to);
            assert!(mtu >= 68, "a path MTU of {mtu}");
            self.paths.insert(quote.to, known.min(mtu));
        }
        Some(quote)
    }
}

/// What identifies a datagram: ports and length of UDP, ports and sequence number of TCP, the header
/// of an echo but for its checksum.
fn start_of(protocol: u8, payload: &[u8]) -> [u8; 8] {
    let mut start = [0; 8];
    let len = if protocol == UDP { 6 } else { 8 }.min(payload.len());
    start[..len].copy_from_slice(&payload[..len]);
    if protocol == ICMP {
        start[2..4].fill(0);
    }
    start
}

/// The checksum among the first eight bytes, if there is one. UDP without one may get it on the way.
fn checksum_of(protocol: u8, payload: &[u8]) -> Option<u16> {
    let at = match protocol {
        ICMP => 2,
        UDP => 6,
        _ => return None,
    };
    let checksum = u16::from_be_bytes([payload[at], payload[at + 1]]);
    (checksum != 0 || protocol == ICMP).then_some(checksum)
}
