//! IPv4 to IPv6 (RFC 7915 §4).

use core::net::Ipv4Addr;
use std::{net::Ipv6Addr, time::Instant};

use wire::{
    checksum::{Delta, Sum, never_zero, pseudo_v6},
    field::{get_u16, set_u16},
    icmp::v4,
    ipv4::{self, Fragment, Ipv4, SourceRoute},
    ipv6::{self, FragmentHeader},
    offload::ChecksumState,
    packet::PacketBuf,
    pieces::{Pieces, complete_checksum},
    protocol,
    transport::udp,
    verdict::Verdict,
};

use crate::{
    Config,
    config::UdpChecksumMissing,
    icmp_error::{self, Message},
    icmp_v4_to_v6::{self, IcmpJob},
    identification::{Identification, Share},
    mapping::{Mapping, Refusal, Rewrite},
    mtu,
    rate_limit::ErrorLimit,
    reason::DropReason,
    transport::{self, Field, Shape},
};

/// What a CLAT and a PLAT need of a mapping in this direction.
pub(crate) type Map<'a> = &'a dyn Mapping<Ipv4Addr, Ipv6Addr>;

/// The translator from IPv4 to IPv6.
#[derive(Debug)]
pub struct V4ToV6 {
    config: Config,
    errors: ErrorLimit,
    error_ids: Identification,
}

/// A packet that does not pass, and what its sender should be told.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) reason: DropReason,
    pub(crate) answer: Option<Message>,
}

impl From<DropReason> for Refused {
    fn from(reason: DropReason) -> Self {
        Self {
            reason,
            answer: None,
        }
    }
}

pub(crate) fn refused(reason: DropReason, answer: Message) -> Refused {
    Refused {
        reason,
        answer: Some(answer),
    }
}

/// Everything that is decided about a packet before it changes.
struct Job {
    old_header: usize,
    src: (Ipv4Addr, Ipv6Addr),
    dst: (Ipv4Addr, Ipv6Addr),
    traffic_class: u8,
    hop_limit: u8,
    protocol: u8,
    fragment: Option<FragmentHeader>,
    /// The Fragment Header's Identification, should the packet be fragmented here.
    id: u16,
    shape: Shape,
    payload: Payload,
    /// The size to fragment to, if it must be.
    fragment_to: Option<u16>,
}

enum Payload {
    /// TCP, UDP, or anything else whose header stays as it is.
    Transport,
    /// UDP without a checksum that gets one.
    UdpWithoutChecksum,
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

impl V4ToV6 {
    /// A translator. `key` should be random ([`Identification::new`]).
    #[must_use]
    pub fn new(config: Config, key: u64) -> Self {
        Self {
            errors: ErrorLimit::new(config.errors),
            error_ids: Identification::new(key),
            config,
        }
    }

    /// The same, one of several translators that share their own address: its errors have only its
    /// `share` of the Identifications.
    #[must_use]
    pub fn with_identifications(mut self, share: Share) -> Self {
        self.error_ids = self.error_ids.only(share);
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

    /// Translates the IPv4 packet in `buf`, or says why not.
    pub fn translate(
        &mut self,
        buf: &mut PacketBuf,
        mapping: &dyn Mapping<Ipv4Addr, Ipv6Addr>,
        now: Instant,
    ) -> Verdict<DropReason> {
        let job = match self.judge(buf, mapping) {
            Ok(job) => job,
            Err(refused) => return self.refuse(buf, refused, now),
        };
        match perform(buf, &job, mapping) {
            Ok(pieces) => Verdict::Forward(pieces),
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// Answers the packet in `buf` with an ICMPv4 error, if policy and the rules of RFC 1812 allow
    /// it.
    pub(crate) fn refuse(
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

    /// Answers the IPv4 packet in `buf` with `message`, from this translator's own address, unless
    /// policy, the rate limit or RFC 1812 §4.3.2.7 forbid it.
    pub fn reply<R>(
        &mut self,
        buf: &mut PacketBuf,
        reason: R,
        message: Message,
        now: Instant,
    ) -> Verdict<R> {
        let Ok(packet) = Ipv4::new_embedded(buf.bytes()) else {
            return Verdict::Drop(reason);
        };
        let (sender, len) = (packet.src(), packet.total_len());
        buf.truncate(len.into());
        if !icmp_error::may_answer_v4(buf.bytes()) || !self.errors.allow(&message, now) {
            return Verdict::Drop(reason);
        }
        let own = self.config.own_ipv4;
        let id = self.error_ids.next(own, sender, protocol::ICMP, 1);
        match icmp_error::write_v4(buf, message, own, sender, id) {
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
        let packet = admit(buf.bytes())?;
        // What a fragment is part of shows when it is whole; ICMP is a matter of the mapping.
        if !packet.fragment().is_fragment() && packet.protocol() != protocol::ICMP {
            self.judge_transport(&packet, buf)?;
        }
        Ok(())
    }

    /// Why a packet that [`Self::veto`] let pass will be refused for its size, and what its sender
    /// should be told. ICMP errors are cut and never too long.
    #[must_use]
    pub fn oversize(&self, buf: &PacketBuf) -> Option<(DropReason, Option<Message>)> {
        let packet = Ipv4::new_embedded(buf.bytes()).ok()?;
        let (len, at) = (usize::from(packet.total_len()), packet.header_len());
        let segment_len = transport::segment_len(buf, len, at, packet.protocol());
        let refused = self.judge_size(&packet, segment_len, buf.offload.reassembled);
        refused.err().map(|it| (it.reason, it.answer))
    }

    fn judge(&self, buf: &mut PacketBuf, mapping: Map<'_>) -> Result<Job, Refused> {
        let packet = admit(buf.bytes())?;
        let (at, number, fragment) = (packet.header_len(), packet.protocol(), packet.fragment());
        let total_len = usize::from(packet.total_len());

        buf.truncate(total_len);
        let shape = transport::settle(buf, 4, at, number, fragment.is_fragment())?;
        let packet = Ipv4::new_embedded(buf.bytes()).map_err(|_| DropReason::MalformedIpv4)?;
        let payload = self.judge_payload(&packet, buf, mapping)?;
        let src = map_source(mapping, packet.src())?;
        let dst = map_destination(mapping, packet.dst())?;
        let fragment_to = if payload.is_icmp_error() {
            // It is cut to what every link takes.
            None
        } else {
            self.judge_size(&packet, shape.segment_len, buf.offload.reassembled)?
        };
        Ok(Job {
            old_header: at,
            src: (packet.src(), src),
            dst: (packet.dst(), dst),
            traffic_class: self.config.traffic_class.of(packet.tos()),
            hop_limit: packet.ttl() - 1,
            protocol: match number {
                protocol::ICMP => protocol::ICMPV6,
                other => other,
            },
            fragment: fragment.is_fragment().then(|| FragmentHeader {
                fragment,
                id: packet.id().into(),
            }),
            id: packet.id(),
            shape,
            payload,
            fragment_to,
        })
    }

    fn judge_payload(
        &self,
        packet: &Ipv4<'_>,
        buf: &PacketBuf,
        mapping: Map<'_>,
    ) -> Result<Payload, Refused> {
        let fragment = packet.fragment();
        let number = packet.protocol();
        if number == protocol::ICMP {
            if fragment.is_fragment() {
                return Err(DropReason::FragmentedIcmp.into());
            }
            let job = icmp_v4_to_v6::judge(packet, mapping, &self.config)?;
            return Ok(Payload::Icmp(job));
        }
        if transport::changes_meaning(number) {
            return Err(DropReason::UntranslatableProtocol.into());
        }
        if !fragment.is_first() {
            return Ok(Payload::LaterFragment);
        }
        self.judge_transport(packet, buf)
    }

    /// The first fragment, or the whole, of anything but ICMP.
    fn judge_transport(&self, packet: &Ipv4<'_>, buf: &PacketBuf) -> Result<Payload, Refused> {
        let (fragment, number) = (packet.fragment(), packet.protocol());
        let transport = packet.payload();
        if transport.len() < transport::header_needed(number) {
            return Err(DropReason::TruncatedTransport.into());
        }
        let partial = matches!(buf.offload.checksum, ChecksumState::Partial { .. });
        let missing =
            number == protocol::UDP && !partial && get_u16(transport, udp::CHECKSUM_AT) == Some(0);
        if !missing {
            return Ok(Payload::Transport);
        }
        self.judge_missing_checksum(transport, fragment, buf.offload.gso.is_some())
    }

    /// UDP without checksum (RFC 7915 §4.5).
    fn judge_missing_checksum(
        &self,
        datagram: &[u8],
        fragment: Fragment,
        is_super_segment: bool,
    ) -> Result<Payload, Refused> {
        if fragment.is_fragment() {
            return Err(DropReason::UdpChecksumMissingInFragment.into());
        }
        if self.config.udp_checksum_missing == UdpChecksumMissing::Drop {
            return Err(DropReason::UdpChecksumMissing.into());
        }
        let length = usize::from(get_u16(datagram, udp::LENGTH_AT).unwrap_or_default());
        let sane = (udp::HEADER_LEN..=datagram.len()).contains(&length);
        if !sane && !is_super_segment {
            return Err(DropReason::TruncatedTransport.into());
        }
        Ok(Payload::UdpWithoutChecksum)
    }

    /// Whether the packet fits (RFC 7915 §4.1): the size to fragment it to if it may be and must.
    ///
    /// One that came in fragments leaves in such that every IPv6 link takes. Its sender makes them
    /// as small as it is told to, which would be in vain if larger ones were made of them here.
    fn judge_size(
        &self,
        packet: &Ipv4<'_>,
        segment_len: usize,
        reassembled: bool,
    ) -> Result<Option<u16>, Refused> {
        let is_fragment = packet.fragment().is_fragment();
        let fragment_header = if is_fragment {
            ipv6::FRAGMENT_HEADER_LEN
        } else {
            0
        };
        let header_len = packet.header_len();
        let len = segment_len.saturating_sub(header_len) + ipv6::HEADER_LEN + fragment_header;
        let link = self.config.ipv6_mtu;
        if packet.dont_fragment() {
            if len <= usize::from(link) {
                return Ok(None);
            }
            let growth = if is_fragment {
                mtu::GROWTH_FRAGMENT
            } else {
                mtu::GROWTH
            };
            let fits = link.saturating_sub(growth);
            return Err(refused(
                DropReason::TooBig,
                Message::fragmentation_needed(fits),
            ));
        }
        let limit = if reassembled {
            ipv6::MIN_MTU
        } else {
            link.min(self.config.lowest_ipv6_mtu)
        };
        Ok((len > usize::from(limit)).then_some(limit))
    }
}

/// Whether the packet could pass under some mapping.
fn admit(bytes: &[u8]) -> Result<Ipv4<'_>, Refused> {
    let packet = Ipv4::new_checked(bytes).map_err(|_| DropReason::MalformedIpv4)?;
    check_addresses(&packet)?;
    if !packet.fragment().holds(packet.payload_len().into()) {
        return Err(DropReason::FragmentMalformed.into());
    }
    check_options(&packet)?;
    check_ttl(&packet)?;
    Ok(packet)
}

fn check_addresses(packet: &Ipv4<'_>) -> Result<(), DropReason> {
    if is_illegal_source(packet.src()) {
        return Err(DropReason::IllegalSource);
    }
    if is_broadcast_or_multicast(packet.dst()) {
        return Err(DropReason::Multicast);
    }
    Ok(())
}

/// `0/8`, `127/8`, multicast and broadcast (RFC 1812 §5.3.7).
pub(crate) fn is_illegal_source(address: Ipv4Addr) -> bool {
    address.octets()[0] == 0 || address.is_loopback() || is_broadcast_or_multicast(address)
}

pub(crate) fn is_broadcast_or_multicast(address: Ipv4Addr) -> bool {
    address.is_multicast() || address.is_broadcast()
}

fn check_options(packet: &Ipv4<'_>) -> Result<(), Refused> {
    let options = packet.options();
    if options.is_empty() {
        return Ok(());
    }
    match ipv4::source_route(options) {
        Ok(SourceRoute::None | SourceRoute::Expired) => Ok(()),
        Ok(SourceRoute::Unexpired) => Err(refused(
            DropReason::SourceRoute,
            Message::plain(v4::UNREACHABLE, v4::SOURCE_ROUTE_FAILED),
        )),
        Err(_) => Err(DropReason::MalformedIpv4.into()),
    }
}

fn check_ttl(packet: &Ipv4<'_>) -> Result<(), Refused> {
    if packet.ttl() > 1 {
        return Ok(());
    }
    Err(refused(
        DropReason::HopLimitExceeded,
        Message::plain(v4::TIME_EXCEEDED, 0),
    ))
}

fn map_source(mapping: Map<'_>, address: Ipv4Addr) -> Result<Ipv6Addr, Refused> {
    mapping
        .source(address)
        .map_err(|refusal| unmapped(refusal, DropReason::NoSourceMapping))
}

fn map_destination(mapping: Map<'_>, address: Ipv4Addr) -> Result<Ipv6Addr, Refused> {
    mapping
        .destination(address)
        .map_err(|refusal| unmapped(refusal, DropReason::NoDestinationMapping))
}

/// A packet without a mapping is answered with "prohibited" (RFC 7915 §4.4).
fn unmapped(refusal: Refusal, reason: DropReason) -> Refused {
    let reason = match refusal {
        Refusal::NoMapping => reason,
        Refusal::NonGlobal => DropReason::NonGlobalUnderWellKnownPrefix,
        Refusal::Excluded => return DropReason::ExcludedAddress.into(),
    };
    refused(reason, Message::plain(v4::UNREACHABLE, v4::PROHIBITED))
}

/// Rewrites the packet as decided.
fn perform(buf: &mut PacketBuf, job: &Job, mapping: Map<'_>) -> Result<Pieces, DropReason> {
    match &job.payload {
        Payload::Icmp(icmp) => {
            icmp_v4_to_v6::perform(buf, icmp, &outer_fields(job), job.old_header, mapping)
                .map_err(|_| DropReason::NoRoom)?;
        }
        Payload::Transport => {
            follow_addresses(buf, job, mapping.rewrite());
            write_headers(buf, job)?;
        }
        Payload::UdpWithoutChecksum => {
            compute_udp_checksum(buf, job, mapping.rewrite());
            write_headers(buf, job)?;
        }
        Payload::LaterFragment => write_headers(buf, job)?,
    }
    split(buf, job)
}

/// The IPv6 header, but for its payload length.
fn outer_fields(job: &Job) -> ipv6::Fields {
    ipv6::Fields {
        traffic_class: job.traffic_class,
        payload_len: 0,
        next_header: job.protocol,
        hop_limit: job.hop_limit,
        src: job.src.1,
        dst: job.dst.1,
    }
}

fn follow_addresses(buf: &mut PacketBuf, job: &Job, rewrite: Rewrite) {
    let field = transport::field_of(&buf.offload);
    let addresses = Delta::NONE.replace(
        transport::v4_sum(job.src.0, job.dst.0),
        transport::v6_sum(job.src.1, job.dst.1),
    );
    let segment = &mut buf.bytes_mut()[job.old_header..];
    transport::rewrite(segment, job.protocol, addresses, rewrite, field);
}

/// Gives a UDP datagram its checksum: in full, or, for a super-segment, as the pseudo-header's sum
/// that the kernel completes for every segment.
fn compute_udp_checksum(buf: &mut PacketBuf, job: &Job, rewrite: Rewrite) {
    let is_super_segment = buf.offload.gso.is_some();
    let datagram = &mut buf.bytes_mut()[job.old_header..];
    transport::rewrite(
        datagram,
        protocol::UDP,
        Delta::NONE,
        rewrite,
        Field::Complete,
    );
    let length = if is_super_segment {
        u16::try_from(datagram.len()).unwrap_or(u16::MAX)
    } else {
        get_u16(datagram, udp::LENGTH_AT).unwrap_or_default()
    };
    let (src, dst) = (job.src.1.octets(), job.dst.1.octets());
    let pseudo: Sum = pseudo_v6(src, dst, protocol::UDP, length.into());
    if is_super_segment {
        set_u16(datagram, udp::CHECKSUM_AT, pseudo.fold());
        buf.offload.checksum = ChecksumState::Partial { start: 0, field: 6 };
        return;
    }
    let covered = datagram.get(..usize::from(length)).unwrap_or_default();
    let checksum = never_zero(pseudo.bytes(covered).checksum());
    set_u16(datagram, udp::CHECKSUM_AT, checksum);
    buf.offload.checksum = ChecksumState::Complete;
}

fn write_headers(buf: &mut PacketBuf, job: &Job) -> Result<(), DropReason> {
    const FRONT: usize = ipv6::HEADER_LEN + ipv6::FRAGMENT_HEADER_LEN;
    let payload = buf.len() - job.old_header;
    let mut front = [0; FRONT];
    let mut fields = outer_fields(job);
    let mut len = ipv6::HEADER_LEN;
    if let Some(fragment) = job.fragment {
        front[len..].copy_from_slice(&fragment.to_bytes(fields.next_header));
        fields.next_header = protocol::FRAGMENT;
        len = FRONT;
    }
    let payload_len = payload + len - ipv6::HEADER_LEN;
    fields.payload_len = u16::try_from(payload_len).map_err(|_| DropReason::NoRoom)?;
    front[..ipv6::HEADER_LEN].copy_from_slice(&fields.to_bytes());
    buf.replace_front(job.old_header, &front[..len])
        .map_err(|_| DropReason::NoRoom)?;
    buf.offload = transport::moved(buf.offload, &job.shape, job.old_header, len);
    Ok(())
}

fn split(buf: &mut PacketBuf, job: &Job) -> Result<Pieces, DropReason> {
    let Some(mtu) = job.fragment_to else {
        return Ok(Pieces::whole());
    };
    if buf.offload.gso.is_some() {
        return Pieces::fragmented_segments(buf, mtu, job.id).map_err(|_| DropReason::BadOffload);
    }
    complete_checksum(buf).map_err(|_| DropReason::BadOffload)?;
    Pieces::fragments(buf, mtu, job.id.into()).map_err(|_| DropReason::TooBig)
}
