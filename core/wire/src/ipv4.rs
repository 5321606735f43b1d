//! IPv4 headers (RFC 791).

use core::net::Ipv4Addr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, network_endian::U16};

use crate::checksum::Sum;

/// A header without options.
pub const HEADER_LEN: usize = 20;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// The fixed part of a header, as it lies in a packet.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    version_ihl: u8,
    tos: u8,
    total_len: U16,
    id: U16,
    flags_offset: U16,
    ttl: u8,
    protocol: u8,
    checksum: U16,
    src: [u8; 4],
    dst: [u8; 4],
}

/// Why bytes are not an IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Fewer bytes than the header, or than the Total Length says.
    Truncated,
    /// The version is not 4.
    Version,
    /// IHL under 5, or a Total Length shorter than the header.
    HeaderLength,
    /// The header checksum is wrong.
    Checksum,
}

/// A checked IPv4 packet: version 4, a whole header with its options, lengths that agree.
///
/// [`Self::new_checked`] also promises that all bytes of the Total Length are there and that the
/// header checksum is right; [`Self::new_embedded`] does not.
#[derive(Clone, Copy)]
pub struct Ipv4<'a> {
    raw: &'a Raw,
    bytes: &'a [u8],
}

/// A packet's place in a fragmented datagram. Offsets are in units of 8 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Of the payload's first byte, in units of 8 bytes: 0 to 8191.
    pub offset: u16,
    /// Whether more fragments follow.
    pub more: bool,
}

impl Fragment {
    /// Whether the packet is part of a larger datagram.
    #[must_use]
    pub fn is_fragment(self) -> bool {
        self.more || self.offset != 0
    }

    /// Whether the transport header is (or may be) in this packet.
    #[must_use]
    pub fn is_first(self) -> bool {
        self.offset == 0
    }

    /// Whether a payload of `len` bytes ends within the longest datagram there is. One that does not
    /// must be discarded (RFC 8200 §4.5), and has no offsets to be divided into.
    #[must_use]
    pub fn holds(self, len: usize) -> bool {
        usize::from(self.offset) * 8 + len <= usize::from(u16::MAX)
    }
}

impl<'a> Ipv4<'a> {
    /// A whole packet. Bytes behind its Total Length (Ethernet padding) are ignored.
    ///
    /// # Errors
    /// [`Error`].
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, Error> {
        let packet = Self::new_embedded(bytes)?;
        if bytes.len() < usize::from(packet.total_len()) {
            return Err(Error::Truncated);
        }
        if Sum::of(&bytes[..packet.header_len()]).checksum() != 0 {
            return Err(Error::Checksum);
        }
        Ok(packet)
    }

    /// A packet quoted in an ICMP error: its header is whole, the rest may be cut off, and nobody
    /// promises a right header checksum.
    ///
    /// # Errors
    /// [`Error`], never [`Error::Checksum`].
    pub fn new_embedded(bytes: &'a [u8]) -> Result<Self, Error> {
        let (raw, _) = Raw::ref_from_prefix(bytes).map_err(|_| Error::Truncated)?;
        if raw.version_ihl >> 4 != 4 {
            return Err(Error::Version);
        }
        let header_len = usize::from(raw.version_ihl & 0x0f) * 4;
        let total_len = usize::from(raw.total_len.get());
        if header_len < HEADER_LEN || total_len < header_len {
            return Err(Error::HeaderLength);
        }
        if bytes.len() < header_len {
            return Err(Error::Truncated);
        }
        let bytes = bytes.get(..total_len).unwrap_or(bytes);
        Ok(Self { raw, bytes })
    }

    /// Header and options, in bytes: 20 to 60.
    #[must_use]
    pub fn header_len(&self) -> usize {
        usize::from(self.raw.version_ihl & 0x0f) * 4
    }

    /// The Total Length field, in bytes.
    #[must_use]
    pub fn total_len(&self) -> u16 {
        self.raw.total_len.get()
    }

    /// Total Length without the header, in bytes, whether or not all of it is there.
    #[must_use]
    pub fn payload_len(&self) -> u16 {
        self.total_len() - u16::from(self.raw.version_ihl & 0x0f) * 4
    }

    /// Type of service: DSCP and ECN.
    #[must_use]
    pub fn tos(&self) -> u8 {
        self.raw.tos
    }

    /// The Identification field.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.raw.id.get()
    }

    /// Don't Fragment.
    #[must_use]
    pub fn dont_fragment(&self) -> bool {
        self.raw.flags_offset.get() & DONT_FRAGMENT != 0
    }

    /// More Fragments and the fragment offset.
    #[must_use]
    pub fn fragment(&self) -> Fragment {
        let flags_offset = self.raw.flags_offset.get();
        Fragment {
            offset: flags_offset & OFFSET_MASK,
            more: flags_offset & MORE_FRAGMENTS != 0,
        }
    }

    /// Time to live.
    #[must_use]
    pub fn ttl(&self) -> u8 {
        self.raw.ttl
    }

    /// The payload's protocol ([`crate::protocol`]).
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.raw.protocol
    }

    /// The source address.
    #[must_use]
    pub fn src(&self) -> Ipv4Addr {
        self.raw.src.into()
    }

    /// The destination address.
    #[must_use]
    pub fn dst(&self) -> Ipv4Addr {
        self.raw.dst.into()
    }

    /// The options, unparsed.
    #[must_use]
    pub fn options(&self) -> &'a [u8] {
        &self.bytes[HEADER_LEN..self.header_len()]
    }

    /// The payload bytes that are there.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header_len()..]
    }

    /// Whether the header checksum is right.
    #[must_use]
    pub fn checksum_ok(&self) -> bool {
        Sum::of(&self.bytes[..self.header_len()]).checksum() == 0
    }
}

impl core::fmt::Debug for Ipv4<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&crate::pretty::Summary::of(self.bytes), f)
    }
}

/// What goes into a header without options; the header checksum is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Type of service: DSCP and ECN.
    pub tos: u8,
    /// Header and payload, in bytes.
    pub total_len: u16,
    /// Identification.
    pub id: u16,
    /// Don't Fragment.
    pub dont_fragment: bool,
    /// More Fragments and the fragment offset.
    pub fragment: Fragment,
    /// Time to live.
    pub ttl: u8,
    /// The payload's protocol.
    pub protocol: u8,
    /// The source address.
    pub src: Ipv4Addr,
    /// The destination address.
    pub dst: Ipv4Addr,
}

impl Fields {
    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut flags_offset = self.fragment.offset & OFFSET_MASK;
        if self.dont_fragment {
            flags_offset |= DONT_FRAGMENT;
        }
        if self.fragment.more {
            flags_offset |= MORE_FRAGMENTS;
        }
        let mut raw = Raw {
            version_ihl: 0x45,
            tos: self.tos,
            total_len: self.total_len.into(),
            id: self.id.into(),
            flags_offset: flags_offset.into(),
            ttl: self.ttl,
            protocol: self.protocol,
            checksum: 0.into(),
            src: self.src.octets(),
            dst: self.dst.octets(),
        };
        raw.checksum = Sum::of(raw.as_bytes()).checksum().into();
        zerocopy::transmute!(raw)
    }
}

/// One IPv4 option, as far as a translator looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceRoute {
    /// No loose or strict source route.
    None,
    /// One whose pointer is behind its list: every hop was visited.
    Expired,
    /// One that still names hops.
    Unexpired,
}

/// Looks for a loose or strict source route (RFC 791 §3.1) among `options`.
///
/// # Errors
/// [`Error::HeaderLength`] if an option is cut off, so that what follows cannot be known.
pub fn source_route(options: &[u8]) -> Result<SourceRoute, Error> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE: u8 = 131;
    const STRICT: u8 = 137;

    let mut found = SourceRoute::None;
    let mut rest = options;
    while let [kind, after @ ..] = rest {
        if *kind == END {
            break;
        }
        if *kind == NO_OPERATION {
            rest = after;
            continue;
        }
        let Some(&[_, len]) = rest.first_chunk::<2>() else {
            return Err(Error::HeaderLength);
        };
        let Some(option) = rest.get(..usize::from(len)).filter(|_| len >= 2) else {
            return Err(Error::HeaderLength);
        };
        if matches!(*kind, LOOSE | STRICT) {
            // The pointer counts from 1; the route is done when it is past the end.
            let pointer = option.get(2).copied().ok_or(Error::HeaderLength)?;
            if pointer <= len {
                return Ok(SourceRoute::Unexpired);
            }
            found = SourceRoute::Expired;
        }
        rest = &rest[usize::from(len)..];
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields() -> Fields {
        Fields {
            tos: 0xb8,
            total_len: 28,
            id: 0x1234,
            dont_fragment: false,
            fragment: Fragment {
                offset: 185,
                more: true,
            },
            ttl: 64,
            protocol: 17,
            src: Ipv4Addr::new(192, 0, 0, 1),
            dst: Ipv4Addr::new(198, 51, 100, 10),
        }
    }

    #[test]
    fn a_header_reads_as_it_was_written() {
        let mut bytes = [0xa5; 30];
        bytes[..20].copy_from_slice(&fields().to_bytes());
        let packet = Ipv4::new_checked(&bytes).unwrap();
        assert_eq!(packet.header_len(), 20);
        assert_eq!(packet.total_len(), 28);
        assert_eq!(packet.payload(), [0xa5; 8]);
        assert_eq!(packet.fragment(), fields().fragment);
        assert_eq!(packet.src(), fields().src);
        assert_eq!(packet.dst(), fields().dst);
        assert!(!packet.dont_fragment());
        let etherparse = etherparse::Ipv4HeaderSlice::from_slice(&bytes).unwrap();
        assert_eq!(etherparse.identification(), 0x1234);
        assert_eq!(
            etherparse.header_checksum(),
            etherparse.to_header().calc_header_checksum()
        );
    }

    #[test]
    fn flags_are_written_apart() {
        for (dont_fragment, more) in [(false, true), (true, false), (true, true)] {
            let fields = Fields {
                dont_fragment,
                fragment: Fragment { offset: 7, more },
                ..fields()
            };
            let bytes = fields.to_bytes();
            let packet = Ipv4::new_embedded(&bytes).unwrap();
            assert_eq!(packet.dont_fragment(), dont_fragment);
            assert_eq!(packet.fragment(), fields.fragment);
        }
    }

    #[test]
    fn a_header_may_be_all_there_is() {
        let options = [1; 40];
        let mut bytes = [&fields().to_bytes()[..], &options].concat();
        (bytes[0], bytes[3]) = (0x4f, 60);
        let packet = Ipv4::new_embedded(&bytes).unwrap();
        assert_eq!(
            (packet.options(), packet.payload()),
            (&options[..], &[][..])
        );
        assert_eq!(
            Ipv4::new_embedded(&bytes[..59]).unwrap_err(),
            Error::Truncated
        );
        let text = format!("{packet:?}");
        assert_eq!(
            text,
            "IPv4 192.0.0.1 > 198.51.100.10 UDP fragment 1480+, 60 bytes"
        );
    }

    #[test]
    fn what_is_not_ipv4_is_refused() {
        let mut bytes = [0xa5; 28];
        bytes[..20].copy_from_slice(&fields().to_bytes());
        assert!(Ipv4::new_checked(&bytes).is_ok());
        let refused = |at: usize, value: u8| {
            let mut broken = bytes;
            broken[at] = value;
            Ipv4::new_checked(&broken).unwrap_err()
        };
        assert_eq!(refused(0, 0x65), Error::Version);
        assert_eq!(refused(0, 0x44), Error::HeaderLength);
        assert_eq!(refused(0, 0x48), Error::HeaderLength);
        assert_eq!(refused(3, 19), Error::HeaderLength);
        assert_eq!(refused(3, 29), Error::Truncated);
        assert_eq!(refused(10, 0), Error::Checksum);
        assert_eq!(
            Ipv4::new_checked(&bytes[..19]).unwrap_err(),
            Error::Truncated
        );
    }

    #[test]
    fn source_routes_are_found_between_other_options() {
        let timestamp = [68, 4, 5, 0];
        let unexpired = [131, 7, 4, 10, 0, 0, 1];
        let expired = [137, 7, 8, 10, 0, 0, 1];
        let case = |parts: &[&[u8]]| source_route(&parts.concat());
        assert_eq!(case(&[&timestamp, &[1, 0]]), Ok(SourceRoute::None));
        assert_eq!(case(&[&[1], &unexpired]), Ok(SourceRoute::Unexpired));
        assert_eq!(
            case(&[&timestamp, &expired, &[0]]),
            Ok(SourceRoute::Expired)
        );
        assert_eq!(case(&[&[0], &unexpired]), Ok(SourceRoute::None));
        assert_eq!(case(&[&expired, &unexpired]), Ok(SourceRoute::Unexpired));
        assert_eq!(case(&[&[68, 0]]), Err(Error::HeaderLength));
        assert_eq!(case(&[&[68, 5, 0]]), Err(Error::HeaderLength));
        assert_eq!(case(&[&[131]]), Err(Error::HeaderLength));
        assert_eq!(case(&[&[131, 2]]), Err(Error::HeaderLength));
    }

    proptest! {
        /// Against another reader of headers: every field, whatever the others are.
        #[test]
        fn every_field_reads_as_for_others(
            mut bytes in proptest::collection::vec(any::<u8>(), 60..80),
            words in 5u8..=15,
            right in any::<bool>(),
        ) {
            bytes[0] = 0x40 | words;
            // The other one forgets the reserved flag.
            bytes[6] &= 0x7f;
            let len = usize::from(words) * 4;
            let total_len = u16::try_from(bytes.len()).unwrap();
            bytes[2..4].copy_from_slice(&total_len.to_be_bytes());
            if right {
                bytes[10..12].fill(0);
                let checksum = Sum::of(&bytes[..len]).checksum();
                bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
            }
            let other = etherparse::Ipv4HeaderSlice::from_slice(&bytes).unwrap();
            let packet = Ipv4::new_embedded(&bytes).unwrap();
            prop_assert_eq!(packet.tos(), other.dcp().value() << 2 | other.ecn().value());
            prop_assert_eq!(packet.id(), other.identification());
            prop_assert_eq!(packet.dont_fragment(), other.dont_fragment());
            prop_assert_eq!(packet.fragment().more, other.more_fragments());
            prop_assert_eq!(packet.fragment().offset, other.fragments_offset().value());
            prop_assert_eq!(packet.ttl(), other.ttl());
            prop_assert_eq!(packet.protocol(), other.protocol().0);
            prop_assert_eq!(packet.options(), other.options());
            prop_assert_eq!(packet.src(), other.source_addr());
            prop_assert_eq!(packet.dst(), other.destination_addr());
            let sum = other.to_header().calc_header_checksum();
            // Both zeros are the same number.
            let same = packet.checksum_ok() == (other.header_checksum() == sum);
            prop_assert!(same || other.header_checksum() == u16::MAX);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(packet) = Ipv4::new_embedded(&bytes) {
                prop_assert!(packet.header_len() + packet.payload().len() <= bytes.len());
                let _ = source_route(packet.options());
                let _ = format!("{packet:?}");
            }
            let _ = Ipv4::new_checked(&bytes);
            let _ = source_route(&bytes);
        }
    }
}
