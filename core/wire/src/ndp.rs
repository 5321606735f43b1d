//! Neighbor Discovery messages (RFC 4861): solicitations and advertisements of neighbours and
//! routers, checked as §6.1 and §7.1 ask, and written.
//!
//! The PREF64 option (RFC 8781) is handed out as bytes: crate `pref64` reads it.

use core::net::Ipv6Addr;

use crate::{
    checksum::pseudo_v6,
    ethernet::Mac,
    field::{get_u16, get_u32, set_u16},
    icmp::{self, v6},
    ipv6,
    packet::{NoRoom, PacketBuf},
    protocol,
};

/// All nodes on the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// All routers on the link.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// Every message travels one hop only, which its receiver proves by this hop limit.
pub const HOP_LIMIT: u8 = 255;

const OPTION_SOURCE_LINK_LAYER: u8 = 1;
const OPTION_TARGET_LINK_LAYER: u8 = 2;
const OPTION_PREFIX_INFORMATION: u8 = 3;
const OPTION_MTU: u8 = 5;
const OPTION_NONCE: u8 = 14;
const OPTION_RDNSS: u8 = 25;

/// The solicited-node multicast address of `address` (RFC 4291 §2.7.1).
#[must_use]
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    let last = u16::from_be_bytes([b, c]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), last)
}

/// Where a message came from: the parts of its IPv6 header that its checks need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
    /// Hop limit on arrival.
    pub hop_limit: u8,
}

/// Why a message is silently discarded (RFC 4861 §6.1, §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// Not of the expected type.
    Type,
    /// The hop limit is not 255: it may have crossed a router.
    HopLimit,
    /// The code is not 0.
    Code,
    /// The ICMPv6 checksum is wrong.
    Checksum,
    /// Too short for its type.
    Length,
    /// An option of length zero, or longer than the message.
    Option,
    /// The source address is not what the type asks for.
    Source,
    /// The destination address contradicts the message.
    Destination,
    /// The target address is a multicast address.
    Target,
}

impl core::fmt::Display for Invalid {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Type => "not of the expected type",
            Self::HopLimit => "hop limit is not 255",
            Self::Code => "code is not 0",
            Self::Checksum => "wrong checksum",
            Self::Length => "too short",
            Self::Option => "an option has length zero or is cut off",
            Self::Source => "source address not allowed",
            Self::Destination => "destination address contradicts the message",
            Self::Target => "target is a multicast address",
        })
    }
}

/// The checks every message shares; hands out its options.
fn check<'a>(
    envelope: &Envelope,
    message: &'a [u8],
    kind: u8,
    fixed: usize,
) -> Result<Options<'a>, Invalid> {
    let header = icmp::Icmp::parse(message).ok_or(Invalid::Length)?;
    if header.kind != kind {
        return Err(Invalid::Type);
    }
    if envelope.hop_limit != HOP_LIMIT {
        return Err(Invalid::HopLimit);
    }
    let len = u32::try_from(message.len()).map_err(|_| Invalid::Length)?;
    let (src, dst) = (envelope.src.octets(), envelope.dst.octets());
    let sum = pseudo_v6(src, dst, protocol::ICMPV6, len).bytes(message);
    if sum.checksum() != 0 {
        return Err(Invalid::Checksum);
    }
    if header.code != 0 {
        return Err(Invalid::Code);
    }
    let options = Options(message.get(fixed..).ok_or(Invalid::Length)?);
    if options.are_well_formed() {
        Ok(options)
    } else {
        Err(Invalid::Option)
    }
}

fn address_at(message: &[u8], at: usize) -> Option<Ipv6Addr> {
    message
        .get(at..)?
        .first_chunk::<16>()
        .map(|octets| Ipv6Addr::from(*octets))
}

/// The options of a message, none of length zero.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    /// Each option, from its type byte to its end.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let len = usize::from(*rest.get(1)?) * 8;
            let (option, after) = rest.split_at_checked(len).filter(|_| len != 0)?;
            rest = after;
            Some(option)
        })
    }

    fn are_well_formed(&self) -> bool {
        self.iter().map(<[u8]>::len).sum::<usize>() == self.0.len()
    }

    fn first(&self, kind: u8) -> Option<&'a [u8]> {
        self.iter().find(|option| option[0] == kind)
    }

    fn link_layer(&self, kind: u8) -> Option<Mac> {
        self.first(kind)?.get(2..)?.first_chunk().copied().map(Mac)
    }
}

/// Router Advertisement (RFC 4861 §4.2).
#[derive(Clone, Copy, Debug)]
pub struct RouterAdvertisement<'a> {
    message: &'a [u8],
    /// Its options.
    pub options: Options<'a>,
}

impl<'a> RouterAdvertisement<'a> {
    /// Checks a message by RFC 4861 §6.1.2.
    ///
    /// # Errors
    /// [`Invalid`]; the message must be ignored.
    pub fn new_checked(envelope: &Envelope, message: &'a [u8]) -> Result<Self, Invalid> {
        let options = check(envelope, message, v6::ROUTER_ADVERTISEMENT, 16)?;
        if !envelope.src.is_unicast_link_local() {
            return Err(Invalid::Source);
        }
        Ok(Self { message, options })
    }

    /// For how many seconds the sender is a default router; 0 if it is none.
    #[must_use]
    pub fn router_lifetime(&self) -> u16 {
        get_u16(self.message, 6).unwrap_or_default()
    }

    /// The sender's link-layer address, if it says so.
    #[must_use]
    pub fn source_link_layer(&self) -> Option<Mac> {
        self.options.link_layer(OPTION_SOURCE_LINK_LAYER)
    }

    /// The link's MTU, if it says so.
    #[must_use]
    pub fn mtu(&self) -> Option<u32> {
        let option = self.options.first(OPTION_MTU)?;
        get_u32(option, 4)
    }

    /// The prefixes it announces.
    pub fn prefixes(&self) -> impl Iterator<Item = PrefixInformation> + use<'a> {
        self.options.iter().filter_map(PrefixInformation::parse)
    }

    /// The recursive DNS servers it announces.
    pub fn dns_servers(&self) -> impl Iterator<Item = DnsServer> + use<'a> {
        self.options.iter().flat_map(DnsServer::parse_option)
    }
}

/// A recursive DNS server of a Recursive DNS Server option (RFC 8106 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsServer {
    /// Its address, global or link-local.
    pub address: Ipv6Addr,
    /// Seconds for which it may be used: 0 ends that at once, `u32::MAX` is for ever.
    pub lifetime: u32,
}

impl DnsServer {
    /// The servers of an option. None if it is another option, or one that must be ignored: with
    /// half an address in it (RFC 8106 §5.3.1), or without one.
    fn parse_option(option: &[u8]) -> impl Iterator<Item = Self> + use<'_> {
        let is_one = option.first() == Some(&OPTION_RDNSS);
        let lifetime = get_u32(option, 4).filter(|_| is_one);
        let addresses = option.get(8..).unwrap_or_default().as_chunks::<16>();
        let (whole, rest) = addresses;
        let servers = lifetime.filter(|_| rest.is_empty()).map(|lifetime| {
            whole.iter().map(move |octets| Self {
                address: Ipv6Addr::from(*octets),
                lifetime,
            })
        });
        servers.into_iter().flatten()
    }

    /// The bytes of an option that announces `servers` for `lifetime` seconds. Those beyond the
    /// 127th do not fit and are left out.
    #[must_use]
    pub fn option(servers: &[Ipv6Addr], lifetime: u32) -> Vec<u8> {
        let servers = &servers[..servers.len().min(127)];
        let units = u8::try_from(1 + 2 * servers.len()).unwrap_or(u8::MAX);
        let mut bytes = vec![OPTION_RDNSS, units, 0, 0];
        bytes.extend(lifetime.to_be_bytes());
        bytes.extend(servers.iter().flat_map(Ipv6Addr::octets));
        bytes
    }
}

/// Prefix Information option (RFC 4861 §4.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixInformation {
    /// The prefix; bits behind its length are as they came.
    pub prefix: Ipv6Addr,
    /// Its length in bits, 0 to 128.
    pub length: u8,
    /// Addresses in it are on the link.
    pub on_link: bool,
    /// Hosts may make addresses from it (RFC 4862).
    pub autonomous: bool,
    /// Seconds.
    pub valid_lifetime: u32,
    /// Seconds.
    pub preferred_lifetime: u32,
}

impl PrefixInformation {
    fn parse(option: &[u8]) -> Option<Self> {
        if option.len() != 32 || option[0] != OPTION_PREFIX_INFORMATION || option[2] > 128 {
            return None;
        }
        Some(Self {
            prefix: address_at(option, 16)?,
            length: option[2],
            on_link: option[3] & 0x80 != 0,
            autonomous: option[3] & 0x40 != 0,
            valid_lifetime: get_u32(option, 4)?,
            preferred_lifetime: get_u32(option, 8)?,
        })
    }

    /// The option's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..3].copy_from_slice(&[OPTION_PREFIX_INFORMATION, 4, self.length]);
        bytes[3] = u8::from(self.on_link) << 7 | u8::from(self.autonomous) << 6;
        bytes[4..8].copy_from_slice(&self.valid_lifetime.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.preferred_lifetime.to_be_bytes());
        bytes[16..].copy_from_slice(&self.prefix.octets());
        bytes
    }
}

/// Neighbor Solicitation (RFC 4861 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborSolicitation {
    /// Whose link-layer address is asked for.
    pub target: Ipv6Addr,
    /// The asker's link-layer address; absent in duplicate address detection.
    pub source_link_layer: Option<Mac>,
    /// Tells the sender its own message when the link loops it back (RFC 7527).
    pub nonce: Option<[u8; 6]>,
}

impl NeighborSolicitation {
    /// Checks a message by RFC 4861 §7.1.1.
    ///
    /// # Errors
    /// [`Invalid`]; the message must be ignored.
    pub fn new_checked(envelope: &Envelope, message: &[u8]) -> Result<Self, Invalid> {
        let options = check(envelope, message, v6::NEIGHBOR_SOLICITATION, 24)?;
        let target = address_at(message, 8).ok_or(Invalid::Length)?;
        if target.is_multicast() {
            return Err(Invalid::Target);
        }
        let source_link_layer = options.link_layer(OPTION_SOURCE_LINK_LAYER);
        if envelope.src.is_unspecified() {
            if envelope.dst != solicited_node(envelope.dst) {
                return Err(Invalid::Destination);
            }
            if source_link_layer.is_some() {
                return Err(Invalid::Source);
            }
        }
        let nonce = options
            .first(OPTION_NONCE)
            .and_then(|option| option.get(2..)?.first_chunk().copied());
        Ok(Self {
            target,
            source_link_layer,
            nonce,
        })
    }

    /// Writes it into `buf` as an IPv6 packet.
    ///
    /// # Errors
    /// [`NoRoom`] if the buffer is too small.
    pub fn write(&self, buf: &mut PacketBuf, src: Ipv6Addr, dst: Ipv6Addr) -> Result<(), NoRoom> {
        let mut options = OptionBytes::default();
        if let Some(mac) = self.source_link_layer {
            options.push(OPTION_SOURCE_LINK_LAYER, mac.0);
        }
        if let Some(nonce) = self.nonce {
            options.push(OPTION_NONCE, nonce);
        }
        let kind = v6::NEIGHBOR_SOLICITATION;
        let target = self.target.octets();
        write_message(buf, src, dst, kind, &[&[0; 4], &target, options.as_slice()])
    }
}

/// Neighbor Advertisement (RFC 4861 §4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborAdvertisement {
    /// Whose link-layer address is told.
    pub target: Ipv6Addr,
    /// The sender is a router.
    pub router: bool,
    /// It answers a solicitation.
    pub solicited: bool,
    /// It replaces what is in the receiver's cache.
    pub override_cache: bool,
    /// The target's link-layer address.
    pub target_link_layer: Option<Mac>,
}

impl NeighborAdvertisement {
    /// Checks a message by RFC 4861 §7.1.2.
    ///
    /// # Errors
    /// [`Invalid`]; the message must be ignored.
    pub fn new_checked(envelope: &Envelope, message: &[u8]) -> Result<Self, Invalid> {
        let options = check(envelope, message, v6::NEIGHBOR_ADVERTISEMENT, 24)?;
        let target = address_at(message, 8).ok_or(Invalid::Length)?;
        if target.is_multicast() {
            return Err(Invalid::Target);
        }
        let flags = message[4];
        let solicited = flags & 0x40 != 0;
        if solicited && envelope.dst.is_multicast() {
            return Err(Invalid::Destination);
        }
        Ok(Self {
            target,
            router: flags & 0x80 != 0,
            solicited,
            override_cache: flags & 0x20 != 0,
            target_link_layer: options.link_layer(OPTION_TARGET_LINK_LAYER),
        })
    }

    /// Writes it into `buf` as an IPv6 packet.
    ///
    /// # Errors
    /// [`NoRoom`] if the buffer is too small.
    pub fn write(&self, buf: &mut PacketBuf, src: Ipv6Addr, dst: Ipv6Addr) -> Result<(), NoRoom> {
        let mut options = OptionBytes::default();
        if let Some(mac) = self.target_link_layer {
            options.push(OPTION_TARGET_LINK_LAYER, mac.0);
        }
        let flags = u8::from(self.router) << 7
            | u8::from(self.solicited) << 6
            | u8::from(self.override_cache) << 5;
        let kind = v6::NEIGHBOR_ADVERTISEMENT;
        let target = self.target.octets();
        write_message(
            buf,
            src,
            dst,
            kind,
            &[&[flags, 0, 0, 0], &target, options.as_slice()],
        )
    }
}

/// The ICMPv6 message of a Router Solicitation (RFC 4861 §4.1), checksum left to the kernel.
#[must_use]
pub fn router_solicitation() -> [u8; 8] {
    [v6::ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0]
}

/// Up to two options of 8 bytes.
#[derive(Default)]
struct OptionBytes {
    bytes: [u8; 16],
    len: usize,
}

impl OptionBytes {
    fn push(&mut self, kind: u8, value: [u8; 6]) {
        let option = &mut self.bytes[self.len..self.len + 8];
        option[..2].copy_from_slice(&[kind, 1]);
        option[2..].copy_from_slice(&value);
        self.len += 8;
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Writes an ICMPv6 message of `parts` behind type, code and checksum.
fn write_message(
    buf: &mut PacketBuf,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    kind: u8,
    parts: &[&[u8]],
) -> Result<(), NoRoom> {
    let body: usize = parts.iter().map(|part| part.len()).sum();
    let payload_len = u16::try_from(4 + body).map_err(|_| NoRoom)?;
    let header = ipv6::Fields {
        traffic_class: 0,
        payload_len,
        next_header: protocol::ICMPV6,
        hop_limit: HOP_LIMIT,
        src,
        dst,
    };
    buf.set(&header.to_bytes())?;
    buf.append(4)?.copy_from_slice(&[kind, 0, 0, 0]);
    for part in parts {
        buf.append(part.len())?.copy_from_slice(part);
    }
    let message = &mut buf.bytes_mut()[ipv6::HEADER_LEN..];
    let pseudo = pseudo_v6(
        src.octets(),
        dst.octets(),
        protocol::ICMPV6,
        payload_len.into(),
    );
    let checksum = pseudo.bytes(message).checksum();
    set_u16(message, icmp::CHECKSUM_AT, checksum);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ipv6::Ipv6, pieces::transport_checksum_ok};
    use proptest::prelude::*;

    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const CLAT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0x246, 0xc1a7, 1, 0xa039);
    const MAC: Mac = Mac([2, 0, 0, 0, 4, 0x64]);

    fn envelope(buf: &PacketBuf) -> Envelope {
        let packet = Ipv6::new_checked(buf.bytes()).unwrap();
        Envelope {
            src: packet.src(),
            dst: packet.dst(),
            hop_limit: packet.hop_limit(),
        }
    }

    fn solicitation(nonce: Option<[u8; 6]>, mac: Option<Mac>, src: Ipv6Addr) -> PacketBuf {
        let mut buf = PacketBuf::for_packets_up_to(200);
        NeighborSolicitation {
            target: CLAT,
            source_link_layer: mac,
            nonce,
        }
        .write(&mut buf, src, solicited_node(CLAT))
        .unwrap();
        buf
    }

    #[test]
    fn the_solicited_node_address_has_the_last_24_bits() {
        assert_eq!(solicited_node(CLAT).to_string(), "ff02::1:ff01:a039");
    }

    #[test]
    fn solicitations_read_as_they_were_written() {
        let buf = solicitation(Some([1, 2, 3, 4, 5, 6]), None, Ipv6Addr::UNSPECIFIED);
        assert_eq!(transport_checksum_ok(buf.bytes()), Some(true));
        let read = NeighborSolicitation::new_checked(&envelope(&buf), &buf.bytes()[40..]);
        assert_eq!(
            read,
            Ok(NeighborSolicitation {
                target: CLAT,
                source_link_layer: None,
                nonce: Some([1, 2, 3, 4, 5, 6]),
            })
        );
    }

    /// Each line of RFC 4861 §7.1.1.
    #[test]
    fn invalid_solicitations_are_refused() {
        let buf = solicitation(None, Some(MAC), ROUTER);
        let message = &buf.bytes()[40..];
        let good = envelope(&buf);
        let read = |envelope: &Envelope, message: &[u8]| {
            NeighborSolicitation::new_checked(envelope, message).unwrap_err()
        };
        assert!(NeighborSolicitation::new_checked(&good, message).is_ok());
        let far = Envelope {
            hop_limit: 254,
            ..good
        };
        assert_eq!(read(&far, message), Invalid::HopLimit);
        let mut broken = message.to_vec();
        broken[30] ^= 1;
        assert_eq!(read(&good, &broken), Invalid::Checksum);
        assert_eq!(read(&good, &message[..7]), Invalid::Length);

        let unspecified = solicitation(None, Some(MAC), Ipv6Addr::UNSPECIFIED);
        let message = &unspecified.bytes()[40..];
        assert_eq!(read(&envelope(&unspecified), message), Invalid::Source);
    }

    /// RFC 4861 §7.1.1 and §7.1.2: nobody has a multicast address.
    #[test]
    fn multicast_targets_are_refused() {
        let mut buf = PacketBuf::for_packets_up_to(200);
        let solicitation = NeighborSolicitation {
            target: ALL_NODES,
            source_link_layer: None,
            nonce: None,
        };
        solicitation.write(&mut buf, ROUTER, CLAT).unwrap();
        let read = NeighborSolicitation::new_checked(&envelope(&buf), &buf.bytes()[40..]);
        assert_eq!(read, Err(Invalid::Target));
        let advertisement = NeighborAdvertisement {
            target: ALL_NODES,
            router: false,
            solicited: true,
            override_cache: true,
            target_link_layer: None,
        };
        advertisement.write(&mut buf, ROUTER, CLAT).unwrap();
        let read = NeighborAdvertisement::new_checked(&envelope(&buf), &buf.bytes()[40..]);
        assert_eq!(read, Err(Invalid::Target));
    }

    #[test]
    fn a_duplicate_address_probe_must_go_to_a_solicited_node_address() {
        let mut buf = PacketBuf::for_packets_up_to(200);
        let probe = NeighborSolicitation {
            target: CLAT,
            source_link_layer: None,
            nonce: None,
        };
        probe.write(&mut buf, Ipv6Addr::UNSPECIFIED, CLAT).unwrap();
        assert_eq!(
            NeighborSolicitation::new_checked(&envelope(&buf), &buf.bytes()[40..]),
            Err(Invalid::Destination)
        );
    }

    #[test]
    fn advertisements_read_as_they_were_written() {
        let mut buf = PacketBuf::for_packets_up_to(200);
        let advertisement = NeighborAdvertisement {
            target: CLAT,
            router: false,
            solicited: true,
            override_cache: true,
            target_link_layer: Some(MAC),
        };
        advertisement.write(&mut buf, CLAT, ROUTER).unwrap();
        let read = NeighborAdvertisement::new_checked(&envelope(&buf), &buf.bytes()[40..]);
        assert_eq!(read, Ok(advertisement));
        advertisement.write(&mut buf, CLAT, ALL_NODES).unwrap();
        let read = NeighborAdvertisement::new_checked(&envelope(&buf), &buf.bytes()[40..]);
        assert_eq!(read, Err(Invalid::Destination));
    }

    /// RFC 4861 §4.4: R, S and O are the first three bits.
    #[test]
    fn every_flag_has_its_bit() {
        for bits in 0..8u8 {
            let flag = |bit: u8| bits & bit != 0;
            let advertisement = NeighborAdvertisement {
                target: CLAT,
                router: flag(4),
                solicited: flag(2),
                override_cache: flag(1),
                target_link_layer: None,
            };
            let mut buf = PacketBuf::for_packets_up_to(200);
            advertisement.write(&mut buf, CLAT, ROUTER).unwrap();
            assert_eq!(buf.bytes()[44], bits << 5);
            let read = NeighborAdvertisement::new_checked(&envelope(&buf), &buf.bytes()[40..]);
            assert_eq!(read, Ok(advertisement));
            let everybody = Envelope {
                dst: ALL_NODES,
                ..envelope(&buf)
            };
            advertisement.write(&mut buf, CLAT, ALL_NODES).unwrap();
            let read = NeighborAdvertisement::new_checked(&everybody, &buf.bytes()[40..]);
            assert_eq!(read.is_err(), advertisement.solicited);
        }
    }

    /// RFC 4861 §4.6.2: L and A are the first two bits.
    #[test]
    fn prefix_information_is_32_bytes_of_its_type() {
        for bits in 0..4u8 {
            let option = PrefixInformation {
                prefix: CLAT,
                length: 128,
                on_link: bits & 2 != 0,
                autonomous: bits & 1 != 0,
                valid_lifetime: 1,
                preferred_lifetime: 2,
            };
            let bytes = option.to_bytes();
            assert_eq!(bytes[3], bits << 6);
            assert_eq!(PrefixInformation::parse(&bytes), Some(option));
            for (at, value) in [(0, 4), (2, 129)] {
                let mut broken = bytes;
                broken[at] = value;
                assert_eq!(PrefixInformation::parse(&broken), None);
            }
            let longer = [&bytes[..], &[0; 8]].concat();
            assert_eq!(PrefixInformation::parse(&longer), None);
            assert_eq!(PrefixInformation::parse(&bytes[..24]), None);
        }
    }

    #[test]
    fn a_router_solicitation_is_of_its_type_and_empty() {
        assert_eq!(router_solicitation(), [133, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_is_invalid_is_said() {
        assert_eq!(Invalid::HopLimit.to_string(), "hop limit is not 255");
        assert_eq!(Invalid::Checksum.to_string(), "wrong checksum");
    }

    #[test]
    fn a_multicast_target_is_refused() {
        let mut buf = PacketBuf::for_packets_up_to(200);
        let advertisement = NeighborAdvertisement {
            target: ALL_NODES,
            router: false,
            solicited: false,
            override_cache: true,
            target_link_layer: None,
        };
        advertisement.write(&mut buf, CLAT, ALL_NODES).unwrap();
        let read = NeighborAdvertisement::new_checked(&envelope(&buf), &buf.bytes()[40..]);
        assert_eq!(read, Err(Invalid::Target));
    }

    /// A Router Advertisement of `options`, as a packet.
    fn advertisement(src: Ipv6Addr, code: u8, options: &[u8]) -> PacketBuf {
        let mut buf = PacketBuf::for_packets_up_to(400);
        let fixed = [64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
        write_message(&mut buf, src, ALL_NODES, 134, &[&fixed, options]).unwrap();
        if code != 0 {
            let message = &mut buf.bytes_mut()[40..];
            message[1] = code;
            let checksum = get_u16(message, 2).unwrap();
            let delta = crate::checksum::Delta::NONE.word(134 << 8, 134 << 8 | u16::from(code));
            set_u16(message, 2, delta.apply(checksum));
        }
        buf
    }

    #[test]
    fn router_advertisements_are_read() {
        let prefix = PrefixInformation {
            prefix: "2001:db8:1:2::".parse().unwrap(),
            length: 64,
            on_link: true,
            autonomous: true,
            valid_lifetime: 86400,
            preferred_lifetime: 14400,
        };
        let mut options = vec![1, 1, 2, 0, 0, 0, 4, 0x64, 5, 1, 0, 0, 0, 0, 5, 0];
        options.extend(prefix.to_bytes());
        options.extend([38, 2, 7, 8, 0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0]);
        let buf = advertisement(ROUTER, 0, &options);
        let ra = RouterAdvertisement::new_checked(&envelope(&buf), &buf.bytes()[40..]).unwrap();
        assert_eq!(ra.router_lifetime(), 1800);
        assert_eq!(ra.source_link_layer(), Some(MAC));
        assert_eq!(ra.mtu(), Some(1280));
        assert_eq!(ra.prefixes().collect::<Vec<_>>(), [prefix]);
        assert_eq!(ra.options.iter().last().map(|option| option[0]), Some(38));
    }

    /// RFC 8106 §5.1: any number of addresses share a lifetime; several options add up.
    #[test]
    fn recursive_dns_servers_are_read() {
        let [one, two, three] = ["fe80::53", "2001:db8::53", "2001:db8::54"].map(address);
        let options = [
            DnsServer::option(&[one, two], 600),
            vec![1, 1, 2, 0, 0, 0, 4, 0x64],
            DnsServer::option(&[three], u32::MAX),
            // Withdrawn, and without an address at all.
            DnsServer::option(&[two], 0),
            DnsServer::option(&[], 600),
        ];
        let server = |address, lifetime| DnsServer { address, lifetime };
        assert_eq!(
            servers(&options.concat()),
            [
                server(one, 600),
                server(two, 600),
                server(three, u32::MAX),
                server(two, 0)
            ]
        );
    }

    /// RFC 8106 §5.3.1: the length is checked, and half an address spoils its option only.
    #[test]
    fn an_option_with_half_an_address_names_no_dns_server() {
        let good = DnsServer::option(&[address("2001:db8::53")], 600);
        let mut half = good.clone();
        half[1] += 1;
        half.extend([0; 8]);
        let mut other = good.clone();
        other[0] = 24;
        let read = servers(&[half, other, good].concat());
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].address, address("2001:db8::53"));
        let many = vec![address("2001:db8::53"); 200];
        assert_eq!(servers(&DnsServer::option(&many, 1)).len(), 127);
    }

    fn address(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn servers(options: &[u8]) -> Vec<DnsServer> {
        let mut message = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        message.extend(options);
        let len = u32::try_from(message.len()).unwrap();
        let sum = pseudo_v6(ROUTER.octets(), ALL_NODES.octets(), 58, len).bytes(&message);
        set_u16(&mut message, 2, sum.checksum());
        let envelope = Envelope {
            src: ROUTER,
            dst: ALL_NODES,
            hop_limit: HOP_LIMIT,
        };
        let ra = RouterAdvertisement::new_checked(&envelope, &message).unwrap();
        ra.dns_servers().collect()
    }

    #[test]
    fn disc_8781_4_02_router_advertisements_are_validated() {
        let error = |buf: &PacketBuf, hop_limit: u8| {
            let envelope = Envelope {
                hop_limit,
                ..envelope(buf)
            };
            RouterAdvertisement::new_checked(&envelope, &buf.bytes()[40..]).err()
        };
        assert_eq!(error(&advertisement(ROUTER, 0, &[]), 255), None);
        assert_eq!(
            error(&advertisement(ROUTER, 0, &[]), 64),
            Some(Invalid::HopLimit)
        );
        assert_eq!(
            error(&advertisement(CLAT, 0, &[]), 255),
            Some(Invalid::Source)
        );
        assert_eq!(
            error(&advertisement(ROUTER, 1, &[]), 255),
            Some(Invalid::Code)
        );
        let zero = advertisement(ROUTER, 0, &[38, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(error(&zero, 255), Some(Invalid::Option));
        let cut = advertisement(ROUTER, 0, &[38, 2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(error(&cut, 255), Some(Invalid::Option));
        let stub = advertisement(ROUTER, 0, &[38]);
        assert_eq!(error(&stub, 255), Some(Invalid::Option));
        let mut broken = advertisement(ROUTER, 0, &[]);
        broken.bytes_mut()[45] ^= 0xff;
        assert_eq!(error(&broken, 255), Some(Invalid::Checksum));
        let mut short = PacketBuf::for_packets_up_to(100);
        write_message(&mut short, ROUTER, ALL_NODES, 134, &[&[0; 8]]).unwrap();
        assert_eq!(error(&short, 255), Some(Invalid::Length));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            mut message in proptest::collection::vec(any::<u8>(), 0..120),
            kind in 133u8..138,
            src in any::<bool>(),
        ) {
            if message.len() >= 4 {
                message[..4].copy_from_slice(&[kind, 0, 0, 0]);
            }
            let src = if src { ROUTER } else { Ipv6Addr::UNSPECIFIED };
            let len = u32::try_from(message.len()).unwrap();
            let sum = pseudo_v6(src.octets(), ALL_NODES.octets(), 58, len).bytes(&message);
            set_u16(&mut message, 2, sum.checksum());
            let envelope = Envelope { src, dst: ALL_NODES, hop_limit: 255 };
            if let Ok(ra) = RouterAdvertisement::new_checked(&envelope, &message) {
                let _ = (ra.router_lifetime(), ra.source_link_layer(), ra.mtu());
                let _ = (ra.prefixes().count(), ra.dns_servers().count());
            }
            let _ = NeighborSolicitation::new_checked(&envelope, &message);
            let _ = NeighborAdvertisement::new_checked(&envelope, &message);
        }
    }
}
