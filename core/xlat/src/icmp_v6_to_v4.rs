//! ICMPv6 to ICMPv4 (RFC 7915 §5.2, §5.3).

use core::net::{Ipv4Addr, Ipv6Addr};

use wire::{
    checksum::{Delta, Sum, pseudo_v6},
    icmp::{self, Icmp},
    ipv4::{self, Fragment},
    ipv6::{Ipv6, Upper},
    packet::PacketBuf,
    protocol,
};

use crate::{
    Config,
    extension::{Layout, Units, divide},
    icmp_error::MAX_V4,
    icmp_quote::{Place, Sizes, quoted_echo, rebuild, translate_echo, write_checksum},
    icmp_types::{Becomes, Field, pointer_v6_to_v4, v6_to_v4},
    mapping::Refusal,
    mtu,
    reason::DropReason,
    transport,
    v6_to_v4::{DONT_FRAGMENT_ABOVE, Map, icmp_header, low_16},
};

/// What to do with an ICMPv6 message.
pub(crate) enum IcmpJob {
    /// An echo becomes one of this type.
    Echo(u8),
    /// An error is laid out anew.
    Error(ErrorJob),
}

/// What to do with an ICMPv6 error.
pub(crate) struct ErrorJob {
    kind: u8,
    code: u8,
    /// Bytes 4 to 7, but for the length of an extension structure.
    rest: [u8; 4],
    place: Place,
    sizes: Sizes,
    layout: Layout,
    inner: InnerJob,
}

/// What to do with the packet that an ICMPv6 error quotes.
struct InnerJob {
    fields: ipv4::Fields,
    /// How checksums in it follow the addresses.
    addresses: Delta,
    /// The new type of a quoted echo.
    echo: Option<u8>,
}

/// The packet that carries the message, as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Original {
    /// Where the ICMPv6 header starts.
    pub(crate) message_at: usize,
    pub(crate) src: Ipv6Addr,
    pub(crate) dst: Ipv6Addr,
}

/// Reads an unfragmented ICMPv6 message and decides what becomes of it.
pub(crate) fn judge(
    packet: &Ipv6<'_>,
    upper: &Upper,
    mapping: Map<'_>,
    config: &Config,
) -> Result<IcmpJob, DropReason> {
    let header = icmp_header(packet, upper)?;
    match v6_to_v4(header.kind, header.code) {
        Becomes::Nothing => Err(DropReason::UntranslatableIcmp),
        Becomes::Echo(kind) => Ok(IcmpJob::Echo(kind)),
        Becomes::Error { kind, code, field } => {
            let message = packet.from_offset(upper.offset);
            check_checksum(packet, message)?;
            let quote = Quote::read(upper.offset, &header, message)?;
            let rest = translate_field(field, &header, &quote.upper, config)?;
            let inner = judge_inner(&quote, mapping)?;
            let sizes = Sizes {
                inner_header: ipv4::HEADER_LEN,
                // Where ICMPv6 has a structure, ICMPv4 has room for one (RFC 4884 §4).
                units: Some(Units::Words32),
                room: MAX_V4 - ipv4::HEADER_LEN - icmp::HEADER_LEN,
            };
            Ok(IcmpJob::Error(ErrorJob {
                kind,
                code,
                rest,
                layout: quote.place.lay_out(&sizes),
                place: quote.place,
                sizes,
                inner,
            }))
        }
    }
}

fn check_checksum(packet: &Ipv6<'_>, message: &[u8]) -> Result<(), DropReason> {
    let sum = pseudo_header(packet.src(), packet.dst(), message.len()).bytes(message);
    if sum.checksum() == 0 {
        Ok(())
    } else {
        Err(DropReason::IcmpChecksum)
    }
}

fn pseudo_header(src: Ipv6Addr, dst: Ipv6Addr, len: usize) -> Sum {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    pseudo_v6(src.octets(), dst.octets(), protocol::ICMPV6, len)
}

struct Quote<'a> {
    packet: Ipv6<'a>,
    upper: Upper,
    place: Place,
}

impl<'a> Quote<'a> {
    /// Reads the packet that `message` quotes; it starts `outer` bytes into its packet.
    fn read(outer: usize, header: &Icmp, message: &'a [u8]) -> Result<Self, DropReason> {
        let data = &message[icmp::HEADER_LEN..];
        // Only these types have a length; in others the byte is part of an MTU or a pointer.
        let length = match header.kind {
            icmp::v6::UNREACHABLE | icmp::v6::TIME_EXCEEDED => header.rest[Units::Words64.place()],
            _ => 0,
        };
        let parts = divide(length, Units::Words64, data.len());
        let packet =
            Ipv6::new_embedded(&data[..parts.quote]).map_err(|_| DropReason::MalformedQuote)?;
        let upper = packet.upper().map_err(|_| DropReason::MalformedQuote)?;
        let data_at = outer + icmp::HEADER_LEN;
        let payload_at = data_at + upper.offset;
        let payload = packet.from_offset(upper.offset);
        let place = Place {
            inner_payload: payload_at..payload_at + payload.len(),
            extension: parts
                .extension
                .map(|range| range.start + data_at..range.end + data_at),
        };
        Ok(Self {
            packet,
            upper,
            place,
        })
    }
}

/// Bytes 4 to 7 of the new message.
fn translate_field(
    field: Field,
    header: &Icmp,
    quoted: &Upper,
    config: &Config,
) -> Result<[u8; 4], DropReason> {
    let said = u32::from_be_bytes(header.rest);
    Ok(match field {
        Field::Unused => [0; 4],
        Field::FixedPointer(pointer) => [pointer, 0, 0, 0],
        Field::Pointer => {
            let pointer = pointer_v6_to_v4(said).ok_or(DropReason::UntranslatablePointer)?;
            [pointer, 0, 0, 0]
        }
        Field::Mtu => {
            let growth = match quoted.fragment {
                Some(_) => mtu::GROWTH_FRAGMENT,
                None => mtu::GROWTH,
            };
            let mtu = mtu::fragmentation_needed(said, growth, config.ipv4_mtu, config.ipv6_mtu);
            let [high, low] = mtu.to_be_bytes();
            [0, 0, high, low]
        }
    })
}

fn judge_inner(quote: &Quote<'_>, mapping: Map<'_>) -> Result<InnerJob, DropReason> {
    let (quoted, upper) = (&quote.packet, &quote.upper);
    if upper.extension_after_fragment || upper.segments_left_at.is_some() {
        // Such a packet is not translated, so it cannot have come from here.
        return Err(DropReason::MalformedQuote);
    }
    let src = inner_address(mapping.inner_source(quoted.src()))?;
    let dst = inner_address(mapping.inner_destination(quoted.dst()))?;
    let place = upper
        .fragment
        .map(|header| header.fragment)
        .unwrap_or_default();
    let is_icmp = upper.protocol == protocol::ICMPV6;
    if !is_icmp && transport::changes_meaning(upper.protocol) {
        return Err(DropReason::UntranslatableProtocol);
    }
    let payload = quoted.from_offset(upper.offset);
    let echo = match payload {
        _ if !is_icmp || !place.is_first() => None,
        [kind, code, ..] => Some(quoted_echo(v6_to_v4(*kind, *code))?),
        _ => return Err(DropReason::MalformedQuote),
    };
    // The length comes from the header, not from the bytes that are there.
    let skipped = upper.offset - wire::ipv6::HEADER_LEN;
    let payload_len = usize::from(quoted.payload_len()).saturating_sub(skipped);
    let (old, new) = if is_icmp {
        (
            pseudo_header(quoted.src(), quoted.dst(), payload_len),
            Sum::ZERO,
        )
    } else {
        (
            transport::v6_sum(quoted.src(), quoted.dst()),
            transport::v4_sum(src, dst),
        )
    };
    Ok(InnerJob {
        fields: inner_fields(quoted, upper, place, payload_len, (src, dst)),
        addresses: Delta::NONE.replace(old, new),
        echo,
    })
}

fn inner_fields(
    quoted: &Ipv6<'_>,
    upper: &Upper,
    fragment: Fragment,
    payload_len: usize,
    (src, dst): (Ipv4Addr, Ipv4Addr),
) -> ipv4::Fields {
    let total_len = payload_len + ipv4::HEADER_LEN;
    ipv4::Fields {
        tos: quoted.traffic_class(),
        total_len: u16::try_from(total_len).unwrap_or(u16::MAX),
        id: upper.fragment.map_or(0, |header| low_16(header.id)),
        dont_fragment: upper.fragment.is_none() && total_len > DONT_FRAGMENT_ABOVE,
        fragment,
        ttl: quoted.hop_limit(),
        protocol: match upper.protocol {
            protocol::ICMPV6 => protocol::ICMP,
            other => other,
        },
        src,
        dst,
    }
}

fn inner_address(mapped: Result<Ipv4Addr, Refusal>) -> Result<Ipv4Addr, DropReason> {
    mapped.map_err(|_| DropReason::NoQuoteMapping)
}

impl InnerJob {
    /// Translates what there is of the quoted packet's transport header.
    fn rewrite_payload(&self, payload: &mut [u8], mapping: Map<'_>) {
        let rewrite = mapping.inner_rewrite();
        match self.echo {
            Some(kind) => translate_echo(payload, kind, rewrite, self.addresses),
            None if self.fields.fragment.is_first() => transport::rewrite(
                payload,
                self.fields.protocol,
                self.addresses,
                rewrite,
                transport::Field::Complete,
            ),
            None => {}
        }
    }
}

/// Rewrites the message as decided, and writes the headers before it.
pub(crate) fn perform(
    buf: &mut PacketBuf,
    job: &IcmpJob,
    outer: &ipv4::Fields,
    original: &Original,
    mapping: Map<'_>,
) -> Result<(), DropReason> {
    match job {
        IcmpJob::Echo(kind) => perform_echo(buf, *kind, outer, original, mapping),
        IcmpJob::Error(job) => perform_error(buf, job, outer, mapping),
    }
}

fn perform_echo(
    buf: &mut PacketBuf,
    kind: u8,
    outer: &ipv4::Fields,
    original: &Original,
    mapping: Map<'_>,
) -> Result<(), DropReason> {
    let at = original.message_at;
    let message = &mut buf.bytes_mut()[at..];
    let pseudo = pseudo_header(original.src, original.dst, message.len());
    let delta = Delta::NONE.replace(pseudo, Sum::ZERO);
    translate_echo(message, kind, mapping.rewrite(), delta);
    let outer = with_length(outer, buf.len() - at)?;
    buf.replace_front(at, &outer.to_bytes())
        .map_err(|_| DropReason::NoRoom)?;
    buf.offload = wire::offload::Offload::default();
    Ok(())
}

fn perform_error(
    buf: &mut PacketBuf,
    job: &ErrorJob,
    outer: &ipv4::Fields,
    mapping: Map<'_>,
) -> Result<(), DropReason> {
    const INNER_AT: usize = ipv4::HEADER_LEN + icmp::HEADER_LEN;
    let payload = &mut buf.bytes_mut()[job.place.inner_payload.clone()];
    job.inner.rewrite_payload(payload, mapping);

    let mut front = [0; INNER_AT + ipv4::HEADER_LEN];
    front[INNER_AT..].copy_from_slice(&job.inner.fields.to_bytes());
    let mut header = Icmp {
        kind: job.kind,
        code: job.code,
        checksum: 0,
        rest: job.rest,
    };
    if job.layout.length != 0 {
        header.rest[Units::Words32.place()] = job.layout.length;
    }
    front[ipv4::HEADER_LEN..INNER_AT].copy_from_slice(&header.to_bytes());
    rebuild(buf, &job.place, job.layout, job.sizes.inner_header, &front)
        .map_err(|_| DropReason::NoRoom)?;

    // As every packet that is not above 1260 bytes; the one that came may have been longer.
    let outer = ipv4::Fields {
        dont_fragment: false,
        ..with_length(outer, buf.len() - ipv4::HEADER_LEN)?
    };
    let (network, message) = buf.bytes_mut().split_at_mut(ipv4::HEADER_LEN);
    network.copy_from_slice(&outer.to_bytes());
    write_checksum(message, Sum::ZERO);
    Ok(())
}

/// The outer header of a message of `message_len` bytes.
fn with_length(outer: &ipv4::Fields, message_len: usize) -> Result<ipv4::Fields, DropReason> {
    let total_len = message_len + ipv4::HEADER_LEN;
    Ok(ipv4::Fields {
        total_len: u16::try_from(total_len).map_err(|_| DropReason::TooLongForIpv4)?,
        ..*outer
    })
}
