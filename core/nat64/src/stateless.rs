//! The stateless mode: hosts with an explicit mapping (RFC 7915, RFC 7757).
//!
//! A packet to the IPv4 address of such a host, or from its IPv6 address, is translated by looking
//! at its addresses alone, and leaves no state. An ICMPv6 error belongs here if it is about a packet
//! *to* such a host, whoever it comes from. Everything else is stateful.

use core::net::{Ipv4Addr, Ipv6Addr};

use pref64::siit::{Place, Siit, Unmappable};
use wire::{
    icmp::{self, Icmp, v4, v6},
    ipv4::Ipv4,
    ipv6::{Ipv6, Upper},
    protocol,
};
use xlat::{Mapping, Refusal};

/// Who has an explicit mapping, and how the addresses of a packet of theirs are translated.
#[derive(Debug)]
pub(crate) struct Stateless {
    pub(crate) siit: Siit,
    /// See [`crate::Config::own_ipv6`].
    pub(crate) own_ipv6: Ipv6Addr,
}

/// Whether an IPv6 packet is translated without state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// A part of an ICMPv6 message: it is known, and can be translated, when the message is whole.
    WhenWhole,
}

impl Stateless {
    /// Whether there is any mapping.
    pub(crate) fn is_used(&self) -> bool {
        !self.siit.eamt.is_empty()
    }

    /// Whether an IPv4 address is that of a host with a mapping.
    pub(crate) fn has_v4(&self, address: Ipv4Addr) -> bool {
        self.siit.eamt.to_v6(address).is_some()
    }

    /// Whether an IPv6 address is that of a host with a mapping.
    pub(crate) fn has_v6(&self, address: Ipv6Addr) -> bool {
        self.siit.eamt.to_v4(address).is_some()
    }

    /// Whether the packet is translated without state.
    pub(crate) fn claims_v6(&self, bytes: &[u8]) -> Claim {
        if !self.is_used() {
            return Claim::No;
        }
        let Ok(packet) = Ipv6::new_embedded(bytes) else {
            return Claim::No;
        };
        let Ok(upper) = packet.upper() else {
            return Claim::No;
        };
        let claimed = if upper.protocol == protocol::ICMPV6 {
            if is_fragment(&upper) {
                return Claim::WhenWhole;
            }
            match quoted_v6(packet.from_offset(upper.offset)) {
                Some((_, to)) => self.has_v6(to),
                None => self.has_v6(packet.src()),
            }
        } else {
            self.has_v6(packet.src())
        };
        if claimed { Claim::Yes } else { Claim::No }
    }

    /// The mapping for a claimed IPv6 packet.
    pub(crate) fn to_v4(&self) -> ToV4<'_> {
        ToV4(&self.siit)
    }

    /// The mapping for an IPv4 packet to a host with an explicit mapping.
    pub(crate) fn to_v6(&self, bytes: &[u8], way: Way) -> ToV6<'_> {
        let source = match quoted_v4(bytes) {
            None => Source::Sender,
            Some((from, to)) if from == to => Source::Receiver,
            Some(_) => Source::Router,
        };
        ToV6 {
            stateless: self,
            way,
            source,
        }
    }
}

fn is_fragment(upper: &Upper) -> bool {
    upper.fragment.is_some_and(|it| it.fragment.is_fragment())
}

/// Whether an IPv4 packet is a part of an ICMP message, which is translated when it is whole.
pub(crate) fn is_icmp_fragment_v4(packet: &Ipv4<'_>) -> bool {
    packet.protocol() == protocol::ICMP && packet.fragment().is_fragment()
}

/// Source and destination of the packet that an ICMPv6 error quotes; `None` for any other message,
/// and for an error of which they cannot be read.
fn quoted_v6(message: &[u8]) -> Option<(Ipv6Addr, Ipv6Addr)> {
    let header = Icmp::parse(message)?;
    if !v6::is_error(header.kind) {
        return None;
    }
    let quote = Ipv6::new_embedded(message.get(icmp::HEADER_LEN..)?).ok()?;
    Some((quote.src(), quote.dst()))
}

/// Whom an ICMPv4 error comes from, and the destination of the packet that it quotes; `None` for any
/// other packet, and for an error of which they cannot be read.
fn quoted_v4(bytes: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let packet = Ipv4::new_embedded(bytes).ok()?;
    if packet.protocol() != protocol::ICMP || packet.fragment().is_fragment() {
        return None;
    }
    let header = Icmp::parse(packet.payload())?;
    if !v4::is_error(header.kind) {
        return None;
    }
    let quote = Ipv4::new_embedded(packet.payload().get(icmp::HEADER_LEN..)?).ok()?;
    Some((packet.src(), quote.dst()))
}

/// How an IPv4 packet came to the translator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the IPv4 network.
    FromOutside,
    /// It was an IPv6 packet a moment ago, and is turned around (RFC 7757 §4.2.2).
    TurnedAround,
}

fn refusal(why: Unmappable) -> Refusal {
    match why {
        Unmappable::NoMapping => Refusal::NoMapping,
        Unmappable::NonGlobal => Refusal::NonGlobal,
        Unmappable::Multicast => Refusal::Excluded,
    }
}

/// Every address of an IPv6 packet is mapped by itself (RFC 7757 §3.3).
pub(crate) struct ToV4<'a>(&'a Siit);

impl ToV4<'_> {
    fn map(&self, address: Ipv6Addr) -> Result<Ipv4Addr, Refusal> {
        self.0.to_v4(address).map_err(refusal)
    }
}

impl Mapping<Ipv6Addr, Ipv4Addr> for ToV4<'_> {
    fn source(&self, address: Ipv6Addr) -> Result<Ipv4Addr, Refusal> {
        self.map(address)
    }

    fn destination(&self, address: Ipv6Addr) -> Result<Ipv4Addr, Refusal> {
        self.map(address)
    }

    fn inner_source(&self, address: Ipv6Addr) -> Result<Ipv4Addr, Refusal> {
        self.map(address)
    }

    fn inner_destination(&self, address: Ipv6Addr) -> Result<Ipv4Addr, Refusal> {
        self.map(address)
    }
}

/// Whom an IPv4 packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// It is no ICMP error.
    Sender,
    /// An error from whom the packet in error was for.
    Receiver,
    /// An error from somebody on the way.
    Router,
}

/// The addresses of an IPv4 packet, with the hairpin rules.
pub(crate) struct ToV6<'a> {
    stateless: &'a Stateless,
    way: Way,
    source: Source,
}

impl ToV6<'_> {
    fn map(&self, address: Ipv4Addr, place: Place) -> Result<Ipv6Addr, Refusal> {
        let siit = &self.stateless.siit;
        let mapped = match self.way {
            Way::FromOutside => siit.to_v6(address, place),
            Way::TurnedAround => siit.to_v6_hairpinned(address, place),
        };
        mapped.map_err(refusal)
    }
}

impl Mapping<Ipv4Addr, Ipv6Addr> for ToV6<'_> {
    /// A router whose address cannot be written speaks as we do, so that path MTU discovery
    /// survives (PLAT-3.6-02).
    fn source(&self, address: Ipv4Addr) -> Result<Ipv6Addr, Refusal> {
        let place = match self.source {
            Source::Sender | Source::Receiver => Place::Source,
            Source::Router => Place::Router,
        };
        match self.map(address, place) {
            Err(Refusal::NonGlobal) if self.source != Source::Sender => Ok(self.stateless.own_ipv6),
            mapped => mapped,
        }
    }

    fn destination(&self, address: Ipv4Addr) -> Result<Ipv6Addr, Refusal> {
        self.map(address, Place::Destination)
    }

    fn inner_source(&self, address: Ipv4Addr) -> Result<Ipv6Addr, Refusal> {
        self.map(address, Place::InnerSource)
    }

    fn inner_destination(&self, address: Ipv4Addr) -> Result<Ipv6Addr, Refusal> {
        self.map(address, Place::InnerDestination)
    }
}
