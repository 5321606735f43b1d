//! ICMPv4 to ICMPv6 (RFC 7915 §4.2, §4.3).

use core::net::Ipv6Addr;

use wire::{
    checksum::{Delta, Sum, pseudo_v6},
    icmp::{self, Icmp},
    ipv4::Ipv4,
    ipv6::{self, FragmentHeader},
    packet::{NoRoom, PacketBuf},
    protocol,
};

use crate::{
    Config,
    extension::{Layout, Units, divide},
    icmp_error::MAX_V6,
    icmp_quote::{Place, Sizes, quoted_echo, rebuild, translate_echo, write_checksum},
    icmp_types::{Becomes, Field, pointer_v4_to_v6, v4_to_v6},
    mapping::Refusal,
    mtu,
    reason::DropReason,
    transport,
    v4_to_v6::Map,
};

/// What to do with an ICMP message.
pub(crate) enum IcmpJob {
    /// An echo becomes one of this type.
    Echo(u8),
    /// An error is laid out anew.
    Error(ErrorJob),
}

/// What to do with an ICMP error.
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

/// What to do with the packet that an ICMP error quotes.
struct InnerJob {
    fields: ipv6::Fields,
    fragment: Option<FragmentHeader>,
    /// How checksums in it follow the addresses.
    addresses: Delta,
    /// The new type of a quoted echo.
    echo: Option<u8>,
}

/// Reads an unfragmented ICMP message and decides what becomes of it.
pub(crate) fn judge(
    packet: &Ipv4<'_>,
    mapping: Map<'_>,
    config: &Config,
) -> Result<IcmpJob, DropReason> {
    let message = packet.payload();
    let header = Icmp::parse(message).ok_or(DropReason::TruncatedTransport)?;
    match v4_to_v6(header.kind, header.code) {
        Becomes::Nothing => Err(DropReason::UntranslatableIcmp),
        Becomes::Echo(kind) => Ok(IcmpJob::Echo(kind)),
        Becomes::Error { kind, code, field } => {
            if Sum::of(message).checksum() != 0 {
                return Err(DropReason::IcmpChecksum);
            }
            let units = carries_structure(kind).then_some(Units::Words64);
            let quote = Quote::read(packet.header_len(), &header, message)?;
            let rest = translate_field(field, &header, &quote.packet, config)?;
            let inner = judge_inner(&quote.packet, mapping)?;
            let sizes = Sizes {
                inner_header: inner.header_len(),
                units,
                room: MAX_V6 - ipv6::HEADER_LEN - icmp::HEADER_LEN,
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

/// ICMPv6 has room for an extension structure in these types only (RFC 4884 §4.4, §4.5).
fn carries_structure(kind: u8) -> bool {
    matches!(kind, icmp::v6::UNREACHABLE | icmp::v6::TIME_EXCEEDED)
}

struct Quote<'a> {
    packet: Ipv4<'a>,
    place: Place,
}

impl<'a> Quote<'a> {
    /// Reads the packet that `message` quotes; it starts `outer` bytes into its packet.
    fn read(outer: usize, header: &Icmp, message: &'a [u8]) -> Result<Self, DropReason> {
        let data = &message[icmp::HEADER_LEN..];
        let length = header.rest[Units::Words32.place()];
        let parts = divide(length, Units::Words32, data.len());
        let packet =
            Ipv4::new_embedded(&data[..parts.quote]).map_err(|_| DropReason::MalformedQuote)?;
        let data_at = outer + icmp::HEADER_LEN;
        let payload_at = data_at + packet.header_len();
        let place = Place {
            inner_payload: payload_at..payload_at + packet.payload().len(),
            extension: parts
                .extension
                .map(|range| range.start + data_at..range.end + data_at),
        };
        Ok(Self { packet, place })
    }
}

/// Bytes 4 to 7 of the new message.
fn translate_field(
    field: Field,
    header: &Icmp,
    quoted: &Ipv4<'_>,
    config: &Config,
) -> Result<[u8; 4], DropReason> {
    let [pointer, _, m0, m1] = header.rest;
    Ok(match field {
        Field::Unused => [0; 4],
        Field::FixedPointer(pointer) => u32::from(pointer).to_be_bytes(),
        Field::Pointer => {
            let pointer = pointer_v4_to_v6(pointer).ok_or(DropReason::UntranslatablePointer)?;
            u32::from(pointer).to_be_bytes()
        }
        Field::Mtu => {
            let said = u16::from_be_bytes([m0, m1]);
            let total_len = quoted.total_len();
            mtu::packet_too_big(said, total_len, config.ipv6_mtu, config.ipv4_mtu).to_be_bytes()
        }
    })
}

fn judge_inner(quoted: &Ipv4<'_>, mapping: Map<'_>) -> Result<InnerJob, DropReason> {
    let src = inner_address(mapping.inner_source(quoted.src()))?;
    let dst = inner_address(mapping.inner_destination(quoted.dst()))?;
    let fragment = quoted.fragment();
    let is_icmp = quoted.protocol() == protocol::ICMP;
    let next_header = if is_icmp {
        protocol::ICMPV6
    } else {
        quoted.protocol()
    };
    if !is_icmp && transport::changes_meaning(next_header) {
        return Err(DropReason::UntranslatableProtocol);
    }
    let echo = match quoted.payload() {
        _ if !is_icmp || !fragment.is_first() => None,
        [kind, code, ..] => Some(quoted_echo(v4_to_v6(*kind, *code))?),
        _ => return Err(DropReason::MalformedQuote),
    };
    // An echo gains a pseudo-header; the others exchange one for another.
    let (old, new) = if is_icmp {
        let (src, dst) = (src.octets(), dst.octets());
        let len = quoted.payload_len();
        (Sum::ZERO, pseudo_v6(src, dst, protocol::ICMPV6, len.into()))
    } else {
        (
            transport::v4_sum(quoted.src(), quoted.dst()),
            transport::v6_sum(src, dst),
        )
    };
    let fragment_header = fragment.is_fragment().then(|| FragmentHeader {
        fragment,
        id: quoted.id().into(),
    });
    let extra = if fragment_header.is_some() { 8 } else { 0 };
    Ok(InnerJob {
        fields: ipv6::Fields {
            traffic_class: quoted.tos(),
            payload_len: quoted.payload_len().saturating_add(extra),
            next_header,
            hop_limit: quoted.ttl(),
            src,
            dst,
        },
        fragment: fragment_header,
        addresses: Delta::NONE.replace(old, new),
        echo,
    })
}

fn inner_address(mapped: Result<Ipv6Addr, Refusal>) -> Result<Ipv6Addr, DropReason> {
    mapped.map_err(|_| DropReason::NoQuoteMapping)
}

impl InnerJob {
    fn header_len(&self) -> usize {
        match self.fragment {
            Some(_) => ipv6::HEADER_LEN + ipv6::FRAGMENT_HEADER_LEN,
            None => ipv6::HEADER_LEN,
        }
    }

    fn write_header(&self, to: &mut [u8]) {
        let mut fields = self.fields;
        if let Some(fragment) = self.fragment {
            to[ipv6::HEADER_LEN..].copy_from_slice(&fragment.to_bytes(fields.next_header));
            fields.next_header = protocol::FRAGMENT;
        }
        to[..ipv6::HEADER_LEN].copy_from_slice(&fields.to_bytes());
    }

    /// Translates what there is of the quoted packet's transport header.
    fn rewrite_payload(&self, payload: &mut [u8], mapping: Map<'_>) {
        let is_first = self
            .fragment
            .is_none_or(|header| header.fragment.is_first());
        let rewrite = mapping.inner_rewrite();
        match self.echo {
            Some(kind) => translate_echo(payload, kind, rewrite, self.addresses),
            None if is_first => transport::rewrite(
                payload,
                self.fields.next_header,
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
    outer: &ipv6::Fields,
    old_header: usize,
    mapping: Map<'_>,
) -> Result<(), NoRoom> {
    match job {
        IcmpJob::Echo(kind) => perform_echo(buf, *kind, outer, old_header, mapping),
        IcmpJob::Error(job) => perform_error(buf, job, outer, mapping),
    }
}

fn perform_echo(
    buf: &mut PacketBuf,
    kind: u8,
    outer: &ipv6::Fields,
    old_header: usize,
    mapping: Map<'_>,
) -> Result<(), NoRoom> {
    let message = &mut buf.bytes_mut()[old_header..];
    let payload_len = u16::try_from(message.len()).map_err(|_| NoRoom)?;
    let pseudo = pseudo_header(outer, payload_len);
    let delta = Delta::NONE.replace(Sum::ZERO, pseudo);
    translate_echo(message, kind, mapping.rewrite(), delta);
    let outer = ipv6::Fields {
        payload_len,
        ..*outer
    };
    buf.replace_front(old_header, &outer.to_bytes())
}

fn perform_error(
    buf: &mut PacketBuf,
    job: &ErrorJob,
    outer: &ipv6::Fields,
    mapping: Map<'_>,
) -> Result<(), NoRoom> {
    const INNER_AT: usize = ipv6::HEADER_LEN + icmp::HEADER_LEN;
    let payload = &mut buf.bytes_mut()[job.place.inner_payload.clone()];
    job.inner.rewrite_payload(payload, mapping);

    let mut front = [0; INNER_AT + ipv6::HEADER_LEN + ipv6::FRAGMENT_HEADER_LEN];
    let front = &mut front[..INNER_AT + job.sizes.inner_header];
    job.inner.write_header(&mut front[INNER_AT..]);
    let mut header = Icmp {
        kind: job.kind,
        code: job.code,
        checksum: 0,
        rest: job.rest,
    };
    if job.layout.length != 0 {
        header.rest[Units::Words64.place()] = job.layout.length;
    }
    front[ipv6::HEADER_LEN..INNER_AT].copy_from_slice(&header.to_bytes());
    rebuild(buf, &job.place, job.layout, job.sizes.inner_header, front)?;

    let payload_len = u16::try_from(buf.len() - ipv6::HEADER_LEN).map_err(|_| NoRoom)?;
    let outer = ipv6::Fields {
        payload_len,
        ..*outer
    };
    let (network, message) = buf.bytes_mut().split_at_mut(ipv6::HEADER_LEN);
    network.copy_from_slice(&outer.to_bytes());
    write_checksum(message, pseudo_header(&outer, payload_len));
    Ok(())
}

fn pseudo_header(outer: &ipv6::Fields, len: u16) -> Sum {
    let (src, dst) = (outer.src.octets(), outer.dst.octets());
    pseudo_v6(src, dst, protocol::ICMPV6, len.into())
}
