//! Step 1: which 5-tuple a packet has (RFC 6146 §3.4).

use wire::{
    icmp::{self, Icmp, v4, v6},
    ipv4::Ipv4,
    ipv6::Ipv6,
    protocol,
    transport::{self, Tcp, tcp, udp},
};
use xlat::icmp_error::Message;

use crate::{
    reason::{DropReason, Why},
    sequence,
    tcp::Segment,
    tuple::{Endpoint4, Endpoint6, Protocol, Tuple},
};

/// What a packet is to the NAT64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Incoming<E> {
    /// A packet of a session, with what it means to TCP.
    Data(Tuple<E>, Option<sequence::Header>),
    /// An ICMP error about a packet with this tuple, as quoted: from the receiver's point of view
    /// it went the other way.
    Error(Tuple<E>),
}

/// A packet that is none of these, and what its sender should be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) why: Why,
    pub(crate) answer: Option<Message>,
}

impl<W: Into<Why>> From<W> for Refused {
    fn from(why: W) -> Self {
        Self {
            why: why.into(),
            answer: None,
        }
    }
}

pub(crate) fn refused(why: impl Into<Why>, answer: Message) -> Refused {
    Refused {
        why: why.into(),
        answer: Some(answer),
    }
}

/// The transport part of a tuple.
enum Ids {
    Data(Protocol, u16, u16, Option<sequence::Header>),
    Error,
}

/// The tuple of a whole IPv6 packet.
pub(crate) fn of_v6(packet: &Ipv6<'_>) -> Result<Incoming<Endpoint6>, Refused> {
    let upper = packet.upper().map_err(|_| DropReason::Truncated)?;
    let payload = packet.from_offset(upper.offset);
    let ids = match upper.protocol {
        protocol::ICMPV6 => icmp_ids(payload, &V6)?,
        other => transport_ids(other, payload)?.ok_or_else(|| {
            // RFC 6146 §3.4 asks for this code, odd as it is.
            let message = Message::plain(v6::UNREACHABLE, v6::PORT_UNREACHABLE);
            refused(DropReason::UnsupportedProtocol, message)
        })?,
    };
    match ids {
        Ids::Data(protocol, src, dst, segment) => {
            let tuple = Tuple {
                protocol,
                src: Endpoint6 {
                    address: packet.src(),
                    id: src,
                },
                dst: Endpoint6 {
                    address: packet.dst(),
                    id: dst,
                },
            };
            Ok(Incoming::Data(tuple, segment))
        }
        Ids::Error => Ok(Incoming::Error(quoted_v6(payload)?)),
    }
}

/// The tuple of a whole IPv4 packet.
pub(crate) fn of_v4(packet: &Ipv4<'_>) -> Result<Incoming<Endpoint4>, Refused> {
    let payload = packet.payload();
    let ids = match packet.protocol() {
        protocol::ICMP => icmp_ids(payload, &V4)?,
        other => transport_ids(other, payload)?.ok_or_else(|| {
            let message = Message::plain(v4::UNREACHABLE, v4::PROTOCOL_UNREACHABLE);
            refused(DropReason::UnsupportedProtocol, message)
        })?,
    };
    match ids {
        Ids::Data(protocol, src, dst, segment) => {
            let tuple = Tuple {
                protocol,
                src: Endpoint4 {
                    address: packet.src(),
                    id: src,
                },
                dst: Endpoint4 {
                    address: packet.dst(),
                    id: dst,
                },
            };
            Ok(Incoming::Data(tuple, segment))
        }
        Ids::Error => Ok(Incoming::Error(quoted_v4(payload)?)),
    }
}

/// What the ICMP of a family calls things.
struct IcmpFamily {
    echoes: [u8; 2],
    is_error: fn(u8) -> bool,
}

const V4: IcmpFamily = IcmpFamily {
    echoes: [v4::ECHO_REQUEST, v4::ECHO_REPLY],
    is_error: v4::is_error,
};

const V6: IcmpFamily = IcmpFamily {
    echoes: [v6::ECHO_REQUEST, v6::ECHO_REPLY],
    is_error: v6::is_error,
};

fn icmp_ids(message: &[u8], family: &IcmpFamily) -> Result<Ids, Refused> {
    let header = Icmp::parse(message).ok_or(DropReason::Truncated)?;
    if family.echoes.contains(&header.kind) {
        let id = header.identifier();
        Ok(Ids::Data(Protocol::Icmp, id, id, None))
    } else if (family.is_error)(header.kind) {
        Ok(Ids::Error)
    } else {
        Err(xlat::DropReason::UntranslatableIcmp.into())
    }
}

/// `None` for a protocol that a NAT64 does not know.
fn transport_ids(number: u8, payload: &[u8]) -> Result<Option<Ids>, DropReason> {
    let (src, dst) = match number {
        protocol::TCP | protocol::UDP => transport::ports(payload).ok_or(DropReason::Truncated)?,
        _ => return Ok(None),
    };
    if number == protocol::TCP {
        let segment = Tcp::new_checked(payload).ok_or(DropReason::Truncated)?;
        let segment = tcp_header(&segment, payload.len());
        return Ok(Some(Ids::Data(Protocol::Tcp, src, dst, Some(segment))));
    }
    if payload.len() < udp::HEADER_LEN {
        return Err(DropReason::Truncated);
    }
    Ok(Some(Ids::Data(Protocol::Udp, src, dst, None)))
}

/// What the state of a connection depends on. `len` is that of header and data.
fn tcp_header(segment: &Tcp<'_>, len: usize) -> sequence::Header {
    let flags = segment.flags();
    let phantoms = (flags & tcp::SYN != 0) as usize + (flags & tcp::FIN != 0) as usize;
    let len = len.saturating_sub(segment.header_len()) + phantoms;
    sequence::Header {
        segment: Segment::of(flags),
        seq: segment.sequence(),
        len: u32::try_from(len).unwrap_or_default(),
        ack: (flags & tcp::ACK != 0).then(|| segment.acknowledgment()),
    }
}

/// The tuple of the packet that an ICMPv6 error quotes.
fn quoted_v6(message: &[u8]) -> Result<Tuple<Endpoint6>, DropReason> {
    let quote = message.get(icmp::HEADER_LEN..).unwrap_or_default();
    let packet = Ipv6::new_embedded(quote).map_err(|_| DropReason::UnreadableError)?;
    let upper = packet.upper().map_err(|_| DropReason::UnreadableError)?;
    if upper
        .fragment
        .is_some_and(|header| !header.fragment.is_first())
    {
        return Err(DropReason::UnreadableError);
    }
    let payload = packet.from_offset(upper.offset);
    let (protocol, src, dst) = quoted_ids(upper.protocol, protocol::ICMPV6, payload, &V6)?;
    Ok(Tuple {
        protocol,
        src: Endpoint6 {
            address: packet.src(),
            id: src,
        },
        dst: Endpoint6 {
            address: packet.dst(),
            id: dst,
        },
    })
}

/// The tuple of the packet that an ICMPv4 error quotes. Its header must be whole, as its checksum
/// tells (RFC 5508 REQ-3 b); a forger who guesses ports has to get that right too.
fn quoted_v4(message: &[u8]) -> Result<Tuple<Endpoint4>, DropReason> {
    let quote = message.get(icmp::HEADER_LEN..).unwrap_or_default();
    let packet = Ipv4::new_embedded(quote).map_err(|_| DropReason::UnreadableError)?;
    if !packet.checksum_ok() || !packet.fragment().is_first() {
        return Err(DropReason::UnreadableError);
    }
    let (protocol, src, dst) =
        quoted_ids(packet.protocol(), protocol::ICMP, packet.payload(), &V4)?;
    Ok(Tuple {
        protocol,
        src: Endpoint4 {
            address: packet.src(),
            id: src,
        },
        dst: Endpoint4 {
            address: packet.dst(),
            id: dst,
        },
    })
}

/// Protocol and ports, or identifier, of a quoted packet, of which 8 bytes are enough.
fn quoted_ids(
    number: u8,
    icmp_number: u8,
    payload: &[u8],
    family: &IcmpFamily,
) -> Result<(Protocol, u16, u16), DropReason> {
    let ports = || transport::ports(payload).ok_or(DropReason::UnreadableError);
    match number {
        protocol::TCP => ports().map(|(src, dst)| (Protocol::Tcp, src, dst)),
        protocol::UDP => ports().map(|(src, dst)| (Protocol::Udp, src, dst)),
        _ if number == icmp_number => {
            let header = Icmp::parse(payload).ok_or(DropReason::UnreadableError)?;
            if !family.echoes.contains(&header.kind) {
                return Err(DropReason::UnreadableError);
            }
            let id = header.identifier();
            Ok((Protocol::Icmp, id, id))
        }
        _ => Err(DropReason::UnreadableError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::compose::{self, Pair};

    /// SYN and FIN take a sequence number each, as every byte does (RFC 9293 section 3.4).
    #[test]
    fn plat_3_5_2_2_01_what_a_segment_takes_of_the_sequence_numbers() {
        let pair = Pair::V4([8, 8, 8, 8].into(), [203, 0, 113, 1].into());
        for (flags, options, data, len) in [
            (tcp::ACK, &[][..], &b""[..], 0),
            (tcp::SYN, &[], b"", 1),
            (tcp::SYN, &[2, 4, 5, 180], b"fast", 5),
            (tcp::FIN | tcp::ACK, &[], b"end", 4),
            (tcp::SYN | tcp::FIN, &[], b"", 2),
            (tcp::RST, &[], b"", 0),
        ] {
            let segment = compose::tcp(pair, (443, 5000), flags, options, data);
            let Ok(Some(Ids::Data(Protocol::Tcp, 443, 5000, Some(header)))) =
                transport_ids(protocol::TCP, &segment)
            else {
                panic!("no segment");
            };
            assert_eq!(header.len, len, "{flags:#x}");
            assert_eq!(header.ack.is_some(), flags & tcp::ACK != 0);
        }
        // Ports alone are no datagram.
        assert!(transport_ids(protocol::UDP, &[0; 7]).is_err());
        assert!(transport_ids(protocol::UDP, &[0; 8]).is_ok());
    }
}
