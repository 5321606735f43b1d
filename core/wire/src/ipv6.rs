//! IPv6 headers and the chain of extension headers (RFC 8200).

use core::net::Ipv6Addr;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    network_endian::{U16, U32},
};

use crate::{ipv4, protocol};

/// The fixed header.
pub const HEADER_LEN: usize = 40;

/// The Fragment Header.
pub const FRAGMENT_HEADER_LEN: usize = 8;

/// Every IPv6 link carries packets of this size (RFC 8200 §5).
pub const MIN_MTU: u16 = 1280;

/// The fixed header, as it lies in a packet.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    version_class_flow: U32,
    payload_len: U16,
    next_header: u8,
    hop_limit: u8,
    src: [u8; 16],
    dst: [u8; 16],
}

/// Why bytes are not an IPv6 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Fewer bytes than the header, or than the Payload Length says.
    Truncated,
    /// The version is not 6.
    Version,
    /// An extension header is longer than the packet.
    ExtensionTruncated,
}

/// A checked IPv6 packet: version 6 and a whole fixed header.
///
/// [`Self::new_checked`] also promises that all bytes of the Payload Length are there;
/// [`Self::new_embedded`] does not.
#[derive(Clone, Copy)]
pub struct Ipv6<'a> {
    raw: &'a Raw,
    bytes: &'a [u8],
}

impl<'a> Ipv6<'a> {
    /// A whole packet. Bytes behind its Payload Length (Ethernet padding) are ignored.
    ///
    /// # Errors
    /// [`Error`].
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, Error> {
        let packet = Self::new_embedded(bytes)?;
        if packet.bytes.len() < HEADER_LEN + usize::from(packet.payload_len()) {
            return Err(Error::Truncated);
        }
        Ok(packet)
    }

    /// A packet quoted in an ICMPv6 error: its header is whole, the rest may be cut off.
    ///
    /// # Errors
    /// [`Error`].
    pub fn new_embedded(bytes: &'a [u8]) -> Result<Self, Error> {
        let (raw, _) = Raw::ref_from_prefix(bytes).map_err(|_| Error::Truncated)?;
        if raw.version_class_flow.get() >> 28 != 6 {
            return Err(Error::Version);
        }
        let len = HEADER_LEN + usize::from(raw.payload_len.get());
        let bytes = bytes.get(..len).unwrap_or(bytes);
        Ok(Self { raw, bytes })
    }

    /// Traffic class: DSCP and ECN.
    #[must_use]
    pub fn traffic_class(&self) -> u8 {
        self.raw.version_class_flow.get().to_be_bytes()[0] << 4
            | self.raw.version_class_flow.get().to_be_bytes()[1] >> 4
    }

    /// The flow label, 20 bits.
    #[must_use]
    pub fn flow_label(&self) -> u32 {
        self.raw.version_class_flow.get() & 0x000f_ffff
    }

    /// The Payload Length field: everything behind the fixed header, in bytes.
    #[must_use]
    pub fn payload_len(&self) -> u16 {
        self.raw.payload_len.get()
    }

    /// What follows the fixed header ([`crate::protocol`]).
    #[must_use]
    pub fn next_header(&self) -> u8 {
        self.raw.next_header
    }

    /// The hop limit.
    #[must_use]
    pub fn hop_limit(&self) -> u8 {
        self.raw.hop_limit
    }

    /// The source address.
    #[must_use]
    pub fn src(&self) -> Ipv6Addr {
        self.raw.src.into()
    }

    /// The destination address.
    #[must_use]
    pub fn dst(&self) -> Ipv6Addr {
        self.raw.dst.into()
    }

    /// The payload bytes that are there, extension headers included.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER_LEN..]
    }

    /// The bytes of the packet that are there, from `offset` on; empty if it is past the end.
    #[must_use]
    pub fn from_offset(&self, offset: usize) -> &'a [u8] {
        self.bytes.get(offset..).unwrap_or_default()
    }

    /// Walks the extension headers that a translator skips (RFC 7915 §5.1): hop-by-hop options,
    /// destination options, routing, fragment.
    ///
    /// # Errors
    /// [`Error::ExtensionTruncated`] if the packet ends inside one of them.
    pub fn upper(&self) -> Result<Upper, Error> {
        walk(self.next_header(), self.bytes)
    }
}

impl core::fmt::Debug for Ipv6<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&crate::pretty::Summary::of(self.bytes), f)
    }
}

/// What lies behind the extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper {
    /// The first next-header value that is not an extension header which translation skips.
    pub protocol: u8,
    /// Where it starts, in bytes from the start of the IPv6 header.
    pub offset: usize,
    /// The Fragment Header, if there is one.
    pub fragment: Option<FragmentHeader>,
    /// Where the Segments Left byte of a routing header lies that still names hops.
    pub segments_left_at: Option<usize>,
    /// An extension header other than ESP follows the Fragment Header (RFC 7915 §5.1.1).
    pub extension_after_fragment: bool,
}

/// A Fragment Header (RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentHeader {
    /// Offset and M flag.
    pub fragment: ipv4::Fragment,
    /// Identification, 32 bits.
    pub id: u32,
}

impl FragmentHeader {
    /// The header's bytes, before a payload of `next_header`.
    #[must_use]
    pub fn to_bytes(&self, next_header: u8) -> [u8; FRAGMENT_HEADER_LEN] {
        let offset_more = self.fragment.offset << 3 | u16::from(self.fragment.more);
        let [o0, o1] = offset_more.to_be_bytes();
        let [i0, i1, i2, i3] = self.id.to_be_bytes();
        [next_header, 0, o0, o1, i0, i1, i2, i3]
    }

    fn parse(bytes: [u8; FRAGMENT_HEADER_LEN]) -> Self {
        let [_, _, o0, o1, i0, i1, i2, i3] = bytes;
        let offset_more = u16::from_be_bytes([o0, o1]);
        Self {
            fragment: ipv4::Fragment {
                offset: offset_more >> 3,
                more: offset_more & 1 != 0,
            },
            id: u32::from_be_bytes([i0, i1, i2, i3]),
        }
    }
}

fn walk(mut next: u8, packet: &[u8]) -> Result<Upper, Error> {
    let mut offset = HEADER_LEN;
    let mut fragment = None;
    let mut segments_left_at = None;
    let mut extension_after_fragment = false;
    loop {
        extension_after_fragment |= fragment.is_some() && is_extension(next);
        let later_fragment =
            fragment.is_some_and(|header: FragmentHeader| !header.fragment.is_first());
        if later_fragment || !is_skipped(next) {
            return Ok(Upper {
                protocol: next,
                offset,
                fragment,
                segments_left_at,
                extension_after_fragment,
            });
        }
        let header = packet
            .get(offset..)
            .and_then(|rest| rest.first_chunk::<8>())
            .ok_or(Error::ExtensionTruncated)?;
        let mut len = FRAGMENT_HEADER_LEN;
        if next == protocol::FRAGMENT {
            fragment = Some(FragmentHeader::parse(*header));
        } else {
            len = (usize::from(header[1]) + 1) * 8;
            if next == protocol::ROUTING && header[3] != 0 && segments_left_at.is_none() {
                segments_left_at = Some(offset + 3);
            }
        }
        next = header[0];
        offset += len;
        if offset > packet.len() {
            return Err(Error::ExtensionTruncated);
        }
    }
}

fn is_skipped(next_header: u8) -> bool {
    matches!(
        next_header,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::DESTINATION_OPTIONS
    )
}

/// IPv6 extension headers by the IANA registry, ESP left out (RFC 7915 §5.1.1 allows it).
fn is_extension(next_header: u8) -> bool {
    is_skipped(next_header)
        || matches!(
            next_header,
            protocol::AUTHENTICATION | protocol::MOBILITY | protocol::HIP | protocol::SHIM6
        )
}

/// What goes into a fixed header. The flow label is 0, as a translator sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Traffic class: DSCP and ECN.
    pub traffic_class: u8,
    /// Everything behind the fixed header, in bytes.
    pub payload_len: u16,
    /// What follows the fixed header.
    pub next_header: u8,
    /// The hop limit.
    pub hop_limit: u8,
    /// The source address.
    pub src: Ipv6Addr,
    /// The destination address.
    pub dst: Ipv6Addr,
}

impl Fields {
    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let raw = Raw {
            version_class_flow: (6 << 28 | u32::from(self.traffic_class) << 20).into(),
            payload_len: self.payload_len.into(),
            next_header: self.next_header,
            hop_limit: self.hop_limit,
            src: self.src.octets(),
            dst: self.dst.octets(),
        };
        zerocopy::transmute!(raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let fields = Fields {
            traffic_class: 0xb9,
            payload_len: payload.len() as u16,
            next_header,
            hop_limit: 63,
            src: "2001:db8::1".parse().unwrap(),
            dst: "2001:db8::2".parse().unwrap(),
        };
        [&fields.to_bytes()[..], payload].concat()
    }

    #[test]
    fn a_header_reads_as_it_was_written() {
        let mut bytes = packet(17, &[1; 8]);
        bytes.extend([0xa5; 6]);
        let packet = Ipv6::new_checked(&bytes).unwrap();
        assert_eq!(packet.traffic_class(), 0xb9);
        assert_eq!(packet.flow_label(), 0);
        assert_eq!(packet.payload(), [1; 8]);
        let etherparse = etherparse::Ipv6HeaderSlice::from_slice(&bytes).unwrap();
        assert_eq!(etherparse.traffic_class(), 0xb9);
        assert_eq!(etherparse.destination_addr(), packet.dst());
    }

    #[test]
    fn a_flow_label_is_20_bits() {
        let mut bytes = packet(17, &[1; 8]);
        bytes[..4].copy_from_slice(&0x6a5f_edcbu32.to_be_bytes());
        let packet = Ipv6::new_checked(&bytes).unwrap();
        assert_eq!(packet.flow_label(), 0xf_edcb);
        assert_eq!(packet.traffic_class(), 0xa5);
        let text = format!("{packet:?}");
        assert_eq!(
            text,
            "IPv6 2001:db8::1 > 2001:db8::2 UDP 257 > 257, 48 bytes"
        );
    }

    #[test]
    fn an_extension_header_may_be_all_there_is() {
        let bytes = packet(60, &[59, 0, 1, 4, 0, 0, 0, 0]);
        let upper = Ipv6::new_checked(&bytes).unwrap().upper().unwrap();
        assert_eq!((upper.protocol, upper.offset), (59, 48));
    }

    #[test]
    fn what_is_not_ipv6_is_refused() {
        let bytes = packet(17, &[1; 8]);
        assert_eq!(
            Ipv6::new_checked(&bytes[..47]).unwrap_err(),
            Error::Truncated
        );
        assert!(Ipv6::new_embedded(&bytes[..40]).is_ok());
        assert_eq!(
            Ipv6::new_embedded(&bytes[..39]).unwrap_err(),
            Error::Truncated
        );
        let mut four = bytes;
        four[0] = 0x45;
        assert_eq!(Ipv6::new_checked(&four).unwrap_err(), Error::Version);
    }

    #[test]
    fn skipped_extension_headers_are_walked() {
        let hop_by_hop = [43, 0, 1, 4, 0, 0, 0, 0];
        let routing = [60, 0, 4, 0, 0, 0, 0, 0];
        let destination = [[17, 1, 1, 4, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0]].concat();
        let bytes = packet(
            0,
            &[&hop_by_hop[..], &routing, &destination, &[9; 8]].concat(),
        );
        let upper = Ipv6::new_checked(&bytes).unwrap().upper().unwrap();
        assert_eq!((upper.protocol, upper.offset), (17, 40 + 32));
        assert_eq!(upper.segments_left_at, None);
        assert_eq!(upper.fragment, None);
    }

    #[test]
    fn segments_left_are_located() {
        let routing = [17, 0, 4, 1, 0, 0, 0, 0];
        let bytes = packet(43, &[&routing[..], &[9; 8]].concat());
        let upper = Ipv6::new_checked(&bytes).unwrap().upper().unwrap();
        assert_eq!(upper.segments_left_at, Some(43));
    }

    #[test]
    fn fragments_end_the_walk_unless_they_are_the_first() {
        let header = |next, offset, more| {
            FragmentHeader {
                fragment: ipv4::Fragment { offset, more },
                id: 0xcafe_beef,
            }
            .to_bytes(next)
        };
        let later = packet(44, &[&header(60, 185, true)[..], &[0xff; 8]].concat());
        let upper = Ipv6::new_checked(&later).unwrap().upper().unwrap();
        assert_eq!((upper.protocol, upper.offset), (60, 48));
        assert!(upper.extension_after_fragment);
        assert_eq!(upper.fragment.map(|f| f.id), Some(0xcafe_beef));

        let first = packet(44, &[&header(17, 0, true)[..], &[0; 8]].concat());
        let upper = Ipv6::new_checked(&first).unwrap().upper().unwrap();
        assert_eq!((upper.protocol, upper.offset), (17, 48));
        assert!(!upper.extension_after_fragment);

        let authenticated = packet(44, &[&header(51, 0, true)[..], &[0; 8]].concat());
        let upper = Ipv6::new_checked(&authenticated).unwrap().upper().unwrap();
        assert!(upper.extension_after_fragment);
        let encrypted = packet(44, &[&header(50, 0, true)[..], &[0; 8]].concat());
        let upper = Ipv6::new_checked(&encrypted).unwrap().upper().unwrap();
        assert!(!upper.extension_after_fragment);
    }

    #[test]
    fn a_chain_longer_than_the_packet_is_refused() {
        let bytes = packet(60, &[17, 1, 0, 0, 0, 0, 0, 0]);
        let packet = Ipv6::new_checked(&bytes).unwrap();
        assert_eq!(packet.upper(), Err(Error::ExtensionTruncated));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..120),
            next in prop::sample::select(vec![0u8, 43, 44, 60, 17, 58]),
        ) {
            let _ = Ipv6::new_checked(&bytes);
            let bytes = packet(next, &bytes);
            let packet = Ipv6::new_embedded(&bytes).unwrap();
            if let Ok(upper) = packet.upper() {
                prop_assert!(upper.offset <= bytes.len());
            }
            let _ = format!("{packet:?}");
        }
    }
}
