//! IPv6 to IPv4 (RFC 7915 §5).

use core::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use wire::{
    checksum::Delta,
    field::get_u16,
    icmp::{Icmp, v6},
    ipv4::{self, Fragment},
    ipv6::{self, FragmentHeader, Ipv6, Upper},
    offload::ChecksumState,
    packet::PacketBuf,
    pieces::{Pieces, complete_checksum},
    protocol,
    transport::udp,
    verdict::Verdict,
};

use crate::{
    Config,
    icmp_error::{self, Message},
    icmp_v6_to_v4::{self, IcmpJob, Original},
    identification::{Identification, Share},
    mapping::{Mapping, Refusal},
    mtu,
    rate_limit::ErrorLimit,
    reason::DropReason,
    transport::{self, Shape},
    v4_to_v6::{Refused, refused},
};

/// What a CLAT and a PLAT need of a mapping in this direction.
pub(crate) type Map<'a> = &'a dyn Mapping<Ipv6Addr, Ipv4Addr>;

/// The longest IPv4 packet that needs no Don't Fragment (RFC 7915 §5.1).
pub(crate) const DONT_FRAGMENT_ABOVE: usize = 1260;

/// The translator from IPv6 to IPv4.
#[derive(Debug)]
pub struct V6ToV4 {
    config: Config,
    errors: ErrorLimit,
    ids: Identification,
}

/// Everything that is decided about a packet before it changes.
struct Job {
    /// Where the upper layer starts: behind all headers that are skipped.
    old_header: usize,
    src: (Ipv6Addr, Ipv4Addr),
    dst: (Ipv6Addr, Ipv4Addr),
    tos: u8,
    ttl: u8,
    protocol: u8,
    fragment: Option<FragmentHeader>,
    shape: Shape,
    payload: Payload,
    /// The size to fragment to, if it must be.
    fragment_to: Option<u16>,
}

enum Payload {
    /// TCP, UDP, or anything else whose header stays as it is.
    Transport,
    /// ICMP.
    Icmp(IcmpJob),
    /// Not the first fragment: nothing in it is touched.
    LaterFragment,
}

impl Payload {
    fn is_icmp_error(&self) -> bool {
        matches!(self, Self::Icmp(IcmpJob::Error(_)))
    }
}

impl Job {
    /// The place in a fragmented datagram; an atomic fragment is no fragment (RFC 7915 §5.1.1).
    fn place(&self) -> Fragment {
        self.fragment
            .map(|header| header.fragment)
            .unwrap_or_default()
    }
}

impl V6ToV4 {
    /// A translator. `key` should be random ([`Identification::new`]).
    #[must_use]
    pub fn new(config: Config, key: u64) -> Self {
        Self {
            errors: ErrorLimit::new(config.errors),
            ids: Identification::new(key),
            config,
        }
    }

    /// The same, one of several translators that share addresses: it gives out only its `share` of
    /// the Identifications.
    #[must_use]
    pub fn with_identifications(mut self, share: Share) -> Self {
        self.ids = self.ids.only(share);
        self
    }

    /// The configuration in use.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Changes the configuration between two packets.
    pub fn set_config(&mut self, config: Config) {
        if config.errors != self.config.errors {
            self.errors = ErrorLimit::new(config.errors);
        }
        self.config = config;
    }

    /// Translates the IPv6 packet in `buf`, or says why not.
    pub fn translate(
        &mut self,
        buf: &mut PacketBuf,
        mapping: &dyn Mapping<Ipv6Addr, Ipv4Addr>,
        now: Instant,
    ) -> Verdict<DropReason> {
        let job = match self.judge(buf, mapping) {
            Ok(job) => job,
            Err(refused) => return self.refuse(buf, refused, now),
        };
        match self.perform(buf, &job, mapping) {
            Ok(pieces) => Verdict::Forward(pieces),
            Err(reason) => Verdict::Drop(reason),
        }
    }

    fn refuse(
        &mut self,
        buf: &mut PacketBuf,
        refused: Refused,
        now: Instant,
    ) -> Verdict<DropReason> {
        match refused.answer {
            Some(message) => self.reply(buf, refused.reason, message, now),
            None => Verdict::Drop(refused.reason),
        }
    }

    /// Answers the IPv6 packet in `buf` with `message`, from this translator's own address, unless
    /// policy, the rate limit or RFC 4443 §2.4 forbid it.
    pub fn reply<R>(
        &mut self,
        buf: &mut PacketBuf,
        reason: R,
        message: Message,
        now: Instant,
    ) -> Verdict<R> {
        let Ok(packet) = Ipv6::new_embedded(buf.bytes()) else {
            return Verdict::Drop(reason);
        };
        let (sender, len) = (
            packet.src(),
            ipv6::HEADER_LEN + usize::from(packet.payload_len()),
        );
        buf.truncate(len);
        if !icmp_error::may_answer_v6(buf.bytes()) || !self.errors.allow(&message, now) {
            return Verdict::Drop(reason);
        }
        match icmp_error::write_v6(buf, message, self.config.own_ipv6, sender) {
            Ok(()) => Verdict::Reply(reason),
            Err(_) => Verdict::Drop(reason),
        }
    }

    /// The verdict on a packet that cannot pass under any mapping: a stateful caller asks before it
    /// makes state for it. `None` for one that might pass; the buffer is then unchanged.
    pub fn veto(&mut self, buf: &mut PacketBuf, now: Instant) -> Option<Verdict<DropReason>> {
        let refused = self.may_pass(buf).err()?;
        Some(self.refuse(buf, refused, now))
    }

    fn may_pass(&self, buf: &PacketBuf) -> Result<(), Refused> {
        let (packet, upper) = admit(buf.bytes())?;
        let is_fragment = upper.fragment.is_some_and(|it| it.fragment.is_fragment());
        // What a fragment is part of shows when it is whole; ICMP is a matter of the mapping.
        if !is_fragment && upper.protocol != protocol::ICMPV6 {
            judge_transport(&packet, &upper, buf)?;
        }
        Ok(())
    }

    /// Why a packet that [`Self::veto`] let pass will be refused for its size, and what its sender
    /// should be told. ICMP errors are cut and never too long.
    #[must_use]
    pub fn oversize(&self, buf: &PacketBuf) -> Option<(DropReason, Option<Message>)> {
        let packet = Ipv6::new_embedded(buf.bytes()).ok()?;
        let upper = packet.upper().ok()?;
        let len = ipv6::HEADER_LEN + usize::from(packet.payload_len());
        let segment_len = transport::segment_len(buf, len, upper.offset, upper.protocol);
        let refused = self.judge_size(&packet, &upper, segment_len, buf.offload.reassembled);
        refused.err().map(|it| (it.reason, it.answer))
    }

    fn judge(&self, buf: &mut PacketBuf, mapping: Map<'_>) -> Result<Job, Refused> {
        let (packet, upper) = admit(buf.bytes())?;
        let place = upper
            .fragment
            .map(|header| header.fragment)
            .unwrap_or_default();
        let len = ipv6::HEADER_LEN + usize::from(packet.payload_len());

        buf.truncate(len);
        let is_fragment = place.is_fragment();
        let shape = transport::settle(buf, 6, upper.offset, upper.protocol, is_fragment)?;
        let packet = Ipv6::new_embedded(buf.bytes()).map_err(|_| DropReason::MalformedIpv6)?;
        let payload = self.judge_payload(&packet, &upper, place, buf, mapping)?;
        let src = self.map_source(mapping, &packet, &upper, &payload)?;
        let dst = mapping.destination(packet.dst()).map_err(|refusal| {
            unmapped(refusal, DropReason::NoDestinationMapping, upper.protocol)
        })?;
        let reassembled = buf.offload.reassembled;
        let fragment_to = if payload.is_icmp_error() {
            // It is cut to 576 bytes, for which a link may still be too narrow.
            Some(self.config.ipv4_mtu)
        } else {
            self.judge_size(&packet, &upper, shape.segment_len, reassembled)?
        };
        Ok(Job {
            old_header: upper.offset,
            src: (packet.src(), src),
            dst: (packet.dst(), dst),
            tos: self.config.tos.of(packet.traffic_class()),
            ttl: packet.hop_limit() - 1,
            protocol: match upper.protocol {
                protocol::ICMPV6 => protocol::ICMP,
                other => other,
            },
            fragment: upper.fragment,
            shape,
            payload,
            fragment_to,
        })
    }

    fn judge_payload(
        &self,
        packet: &Ipv6<'_>,
        upper: &Upper,
        place: Fragment,
        buf: &PacketBuf,
        mapping: Map<'_>,
    ) -> Result<Payload, Refused> {
        if upper.protocol == protocol::ICMPV6 {
            if place.is_fragment() {
                return Err(DropReason::FragmentedIcmp.into());
            }
            let job = icmp_v6_to_v4::judge(packet, upper, mapping, &self.config)?;
            return Ok(Payload::Icmp(job));
        }
        if transport::changes_meaning(upper.protocol) {
            return Err(DropReason::UntranslatableProtocol.into());
        }
        if !place.is_first() {
            return Ok(Payload::LaterFragment);
        }
        judge_transport(packet, upper, buf)?;
        Ok(Payload::Transport)
    }

    /// The source; that of an ICMPv6 error need not have a mapping (RFC 6791 §4).
    fn map_source(
        &self,
        mapping: Map<'_>,
        packet: &Ipv6<'_>,
        upper: &Upper,
        payload: &Payload,
    ) -> Result<Ipv4Addr, Refused> {
        match mapping.source(packet.src()) {
            Ok(address) => Ok(address),
            Err(_) if payload.is_icmp_error() => Ok(self.config.untranslatable_source),
            Err(refusal) => Err(unmapped(
                refusal,
                DropReason::NoSourceMapping,
                upper.protocol,
            )),
        }
    }

    /// Whether the packet fits (RFC 7915 §5.1.1): the size to fragment it to if it must be.
    fn judge_size(
        &self,
        packet: &Ipv6<'_>,
        upper: &Upper,
        segment_len: usize,
        reassembled: bool,
    ) -> Result<Option<u16>, Refused> {
        let link = self.config.ipv4_mtu;
        let total_len = usize::from(packet.payload_len()) + ipv6::HEADER_LEN - upper.offset;
        if total_len + ipv4::HEADER_LEN > usize::from(u16::MAX) {
            return Err(DropReason::TooLongForIpv4.into());
        }
        let len = segment_len.saturating_sub(upper.offset) + ipv4::HEADER_LEN;
        if len <= usize::from(link) {
            return Ok(None);
        }
        // A source that was already told 1280 cannot go lower, and one that fragments already did.
        if segment_len <= usize::from(ipv6::MIN_MTU) || reassembled {
            return Ok(Some(link));
        }
        let growth = match upper.fragment {
            Some(_) => mtu::GROWTH_FRAGMENT,
            None => mtu::GROWTH,
        };
        let fits = u32::from(link) + u32::from(growth);
        Err(refused(
            DropReason::TooBig,
            Message::packet_too_big(fits.max(ipv6::MIN_MTU.into())),
        ))
    }

    /// Rewrites the packet as decided.
    fn perform(
        &mut self,
        buf: &mut PacketBuf,
        job: &Job,
        mapping: Map<'_>,
    ) -> Result<Pieces, DropReason> {
        let fields = self.outer_fields(job, mapping.keeps_identification());
        match &job.payload {
            Payload::Icmp(icmp) => {
                let original = Original {
                    message_at: job.old_header,
                    src: job.src.0,
                    dst: job.dst.0,
                };
                icmp_v6_to_v4::perform(buf, icmp, &fields, &original, mapping)?;
            }
            Payload::Transport => {
                follow_addresses(buf, job, mapping);
                write_header(buf, job, fields)?;
            }
            Payload::LaterFragment => write_header(buf, job, fields)?,
        }
        split(buf, job)
    }

    /// The IPv4 header, but for its total length.
    fn outer_fields(&mut self, job: &Job, keeps_identification: bool) -> ipv4::Fields {
        let len = job.shape.segment_len - job.old_header + ipv4::HEADER_LEN;
        let id = match job.fragment {
            // Parts of a datagram must have the same.
            Some(header) if keeps_identification || header.fragment.is_fragment() => {
                low_16(header.id)
            }
            Some(_) | None => {
                let count = u16::try_from(job.shape.segments).unwrap_or(u16::MAX);
                self.ids.next(job.src.1, job.dst.1, job.protocol, count)
            }
        };
        let dont_fragment = job.fragment.is_none() && len > DONT_FRAGMENT_ABOVE;
        ipv4::Fields {
            tos: job.tos,
            total_len: 0,
            id,
            dont_fragment,
            fragment: job.place(),
            ttl: job.ttl,
            protocol: job.protocol,
            src: job.src.1,
            dst: job.dst.1,
        }
    }
}

/// The Identification of an IPv4 fragment made of an IPv6 one (RFC 7915 §5.1.1).
pub(crate) fn low_16(id: u32) -> u16 {
    let [.., a, b] = id.to_be_bytes();
    u16::from_be_bytes([a, b])
}

/// The first fragment, or the whole, of anything but ICMP.
fn judge_transport(packet: &Ipv6<'_>, upper: &Upper, buf: &PacketBuf) -> Result<(), DropReason> {
    let transport = packet.from_offset(upper.offset);
    if transport.len() < transport::header_needed(upper.protocol) {
        return Err(DropReason::TruncatedTransport);
    }
    let partial = matches!(buf.offload.checksum, ChecksumState::Partial { .. });
    let zero = upper.protocol == protocol::UDP
        && !partial
        && get_u16(transport, udp::CHECKSUM_AT) == Some(0);
    if zero {
        return Err(DropReason::UdpChecksumZeroInIpv6);
    }
    Ok(())
}

/// Whether the packet could pass under some mapping.
fn admit(bytes: &[u8]) -> Result<(Ipv6<'_>, Upper), Refused> {
    let packet = Ipv6::new_checked(bytes).map_err(|_| DropReason::MalformedIpv6)?;
    check_addresses(&packet)?;
    let upper = packet.upper().map_err(|_| DropReason::MalformedIpv6)?;
    check_extension_headers(&upper)?;
    check_place(&packet, &upper)?;
    check_hop_limit(&packet)?;
    Ok((packet, upper))
}

fn check_addresses(packet: &Ipv6<'_>) -> Result<(), DropReason> {
    let src = packet.src();
    let illegal = src.is_unspecified()
        || src.is_loopback()
        || src.is_multicast()
        || src.to_ipv4_mapped().is_some();
    if illegal {
        return Err(DropReason::IllegalSource);
    }
    if packet.dst().is_multicast() {
        return Err(DropReason::Multicast);
    }
    Ok(())
}

fn check_extension_headers(upper: &Upper) -> Result<(), Refused> {
    if let Some(at) = upper.segments_left_at {
        let pointer = u32::try_from(at).unwrap_or(u32::MAX);
        let message = Message {
            kind: v6::PARAMETER_PROBLEM,
            code: 0,
            rest: pointer.to_be_bytes(),
        };
        return Err(refused(DropReason::RoutingHeader, message));
    }
    if upper.extension_after_fragment {
        return Err(DropReason::ExtensionAfterFragment.into());
    }
    Ok(())
}

fn check_place(packet: &Ipv6<'_>, upper: &Upper) -> Result<(), DropReason> {
    let place = upper.fragment.map(|header| header.fragment);
    let payload = packet.from_offset(upper.offset).len();
    if place.unwrap_or_default().holds(payload) {
        Ok(())
    } else {
        Err(DropReason::FragmentMalformed)
    }
}

fn check_hop_limit(packet: &Ipv6<'_>) -> Result<(), Refused> {
    if packet.hop_limit() > 1 {
        return Ok(());
    }
    Err(refused(
        DropReason::HopLimitExceeded,
        Message::plain(v6::TIME_EXCEEDED, 0),
    ))
}

/// A packet without a mapping is answered with "prohibited", unless it is ICMPv6 itself
/// (RFC 7915 §5.4).
fn unmapped(refusal: Refusal, reason: DropReason, number: u8) -> Refused {
    let reason = match refusal {
        Refusal::NoMapping => reason,
        Refusal::NonGlobal => DropReason::NonGlobalUnderWellKnownPrefix,
        Refusal::Excluded => return DropReason::ExcludedAddress.into(),
    };
    if number == protocol::ICMPV6 {
        return reason.into();
    }
    refused(reason, Message::plain(v6::UNREACHABLE, v6::PROHIBITED))
}

fn follow_addresses(buf: &mut PacketBuf, job: &Job, mapping: Map<'_>) {
    let field = transport::field_of(&buf.offload);
    let addresses = Delta::NONE.replace(
        transport::v6_sum(job.src.0, job.dst.0),
        transport::v4_sum(job.src.1, job.dst.1),
    );
    let segment = &mut buf.bytes_mut()[job.old_header..];
    transport::rewrite(segment, job.protocol, addresses, mapping.rewrite(), field);
}

fn write_header(buf: &mut PacketBuf, job: &Job, fields: ipv4::Fields) -> Result<(), DropReason> {
    let total_len = buf.len() - job.old_header + ipv4::HEADER_LEN;
    let fields = ipv4::Fields {
        total_len: u16::try_from(total_len).map_err(|_| DropReason::TooLongForIpv4)?,
        ..fields
    };
    buf.replace_front(job.old_header, &fields.to_bytes())
        .map_err(|_| DropReason::NoRoom)?;
    buf.offload = transport::moved(buf.offload, &job.shape, job.old_header, ipv4::HEADER_LEN);
    Ok(())
}

fn split(buf: &mut PacketBuf, job: &Job) -> Result<Pieces, DropReason> {
    let Some(mtu) = job.fragment_to else {
        return Ok(Pieces::whole());
    };
    if buf.len() <= usize::from(mtu) {
        // An ICMP error that was cut to 576 bytes.
        return Ok(Pieces::whole());
    }
    if buf.offload.gso.is_some() {
        return Pieces::fragmented_segments(buf, mtu, 0).map_err(|_| DropReason::BadOffload);
    }
    complete_checksum(buf).map_err(|_| DropReason::BadOffload)?;
    Pieces::fragments(buf, mtu, 0).map_err(|_| DropReason::TooBig)
}

/// Reads the ICMPv6 header behind the extension headers.
pub(crate) fn icmp_header(packet: &Ipv6<'_>, upper: &Upper) -> Result<Icmp, DropReason> {
    Icmp::parse(packet.from_offset(upper.offset)).ok_or(DropReason::TruncatedTransport)
}
