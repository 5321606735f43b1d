//! The virtio-net header: what is left to do for a packet that the kernel hands over (or takes)
//! unfinished: its checksum, and its division into segments.
//!
//! TUN devices and packet sockets both speak it, with one difference: on a TUN offsets count from
//! the IP header, on a packet socket from the Ethernet header. [`Offload`] always counts from the
//! IP header; `link_header` in [`Offload::decode`] and [`Offload::encode`] is the difference.

use core::num::NonZeroU16;

/// The length of `struct virtio_net_hdr` (the legacy one, without `num_buffers`).
pub const VIRTIO_NET_HEADER: usize = 10;

const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What is left to do for a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The state of the transport checksum.
    pub checksum: ChecksumState,
    /// Set on a super-segment: a packet that stands for several on the wire.
    pub gso: Option<Gso>,
    /// It was put together from fragments here, so that it may (and, where it is too long, must) be
    /// fragmented again. Not part of the virtio-net header.
    pub reassembled: bool,
}

/// The state of a packet's transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChecksumState {
    /// It is in the packet; nobody says whether it is right.
    #[default]
    Complete,
    /// It is in the packet and was verified on reception (`DATA_VALID`).
    Verified,
    /// The field holds the pseudo-header's sum, not inverted (`NEEDS_CSUM`).
    Partial {
        /// Where the covered data starts, in bytes from the IP header: the transport header.
        start: u16,
        /// Where the checksum field lies, in bytes from `start`.
        field: u16,
    },
}

/// Generic segmentation: the packet is one header and the payload of several segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// Which headers are repeated.
    pub kind: GsoKind,
    /// Payload bytes per segment, without headers. The last segment may be shorter.
    pub size: NonZeroU16,
    /// Bytes before the payload: IP header, extension headers and transport header.
    pub header_len: u16,
}

/// The kind of a super-segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4; `ecn` if the first segment carries CWR.
    TcpV4 {
        /// `VIRTIO_NET_HDR_GSO_ECN`.
        ecn: bool,
    },
    /// TCP over IPv6.
    TcpV6 {
        /// `VIRTIO_NET_HDR_GSO_ECN`.
        ecn: bool,
    },
    /// UDP datagrams of equal size (`UDP_SEGMENT`), over either family. The size is the
    /// application's and must never change.
    Udp,
}

/// Why a virtio-net header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffloadError {
    /// Fewer than [`VIRTIO_NET_HEADER`] bytes.
    Truncated,
    /// A kind of segmentation we did not ask for (UFO, tunnels).
    UnknownGso(u8),
    /// A super-segment with segments of zero bytes.
    ZeroGsoSize,
    /// The checksum lies in the link-layer header.
    ChecksumInLinkHeader,
}

impl Offload {
    /// Reads the header of a frame whose IP packet starts `link_header` bytes into it.
    ///
    /// # Errors
    /// [`OffloadError`]; the packet must be dropped, since it cannot be understood.
    pub fn decode(bytes: &[u8], link_header: u16) -> Result<Self, OffloadError> {
        let Some(&[flags, gso_type, h0, h1, s0, s1, cs0, cs1, co0, co1]) =
            bytes.first_chunk::<VIRTIO_NET_HEADER>()
        else {
            return Err(OffloadError::Truncated);
        };
        let header_len = u16::from_ne_bytes([h0, h1]);
        let size = u16::from_ne_bytes([s0, s1]);
        let start = u16::from_ne_bytes([cs0, cs1]);
        let checksum = if flags & F_NEEDS_CSUM != 0 {
            ChecksumState::Partial {
                start: start
                    .checked_sub(link_header)
                    .ok_or(OffloadError::ChecksumInLinkHeader)?,
                field: u16::from_ne_bytes([co0, co1]),
            }
        } else if flags & F_DATA_VALID != 0 {
            ChecksumState::Verified
        } else {
            ChecksumState::Complete
        };
        let gso = match GsoKind::decode(gso_type)? {
            None => None,
            Some(kind) => Some(Gso {
                kind,
                size: NonZeroU16::new(size).ok_or(OffloadError::ZeroGsoSize)?,
                header_len: header_len.saturating_sub(link_header),
            }),
        };
        Ok(Self {
            checksum,
            gso,
            reassembled: false,
        })
    }

    /// Writes the header of a frame whose IP packet starts `link_header` bytes into it.
    #[must_use]
    pub fn encode(&self, link_header: u16) -> [u8; VIRTIO_NET_HEADER] {
        let (flags, start, field) = match self.checksum {
            ChecksumState::Complete => (0, 0, 0),
            ChecksumState::Verified => (F_DATA_VALID, 0, 0),
            ChecksumState::Partial { start, field } => {
                (F_NEEDS_CSUM, start.saturating_add(link_header), field)
            }
        };
        let (gso_type, header_len, size) = match self.gso {
            None => (GSO_NONE, 0, 0),
            Some(gso) => (
                gso.kind.encode(),
                gso.header_len.saturating_add(link_header),
                gso.size.get(),
            ),
        };
        let [h0, h1] = header_len.to_ne_bytes();
        let [s0, s1] = size.to_ne_bytes();
        let [cs0, cs1] = start.to_ne_bytes();
        let [co0, co1] = field.to_ne_bytes();
        [flags, gso_type, h0, h1, s0, s1, cs0, cs1, co0, co1]
    }
}

impl GsoKind {
    fn decode(gso_type: u8) -> Result<Option<Self>, OffloadError> {
        let ecn = gso_type & GSO_ECN != 0;
        match gso_type & !GSO_ECN {
            GSO_NONE => Ok(None),
            GSO_TCPV4 => Ok(Some(Self::TcpV4 { ecn })),
            GSO_TCPV6 => Ok(Some(Self::TcpV6 { ecn })),
            GSO_UDP_L4 => Ok(Some(Self::Udp)),
            _ => Err(OffloadError::UnknownGso(gso_type)),
        }
    }

    fn encode(self) -> u8 {
        match self {
            Self::TcpV4 { ecn } => GSO_TCPV4 | if ecn { GSO_ECN } else { 0 },
            Self::TcpV6 { ecn } => GSO_TCPV6 | if ecn { GSO_ECN } else { 0 },
            Self::Udp => GSO_UDP_L4,
        }
    }

    /// The same kind of super-segment over the other family.
    #[must_use]
    pub fn other_family(self) -> Self {
        match self {
            Self::TcpV4 { ecn } => Self::TcpV6 { ecn },
            Self::TcpV6 { ecn } => Self::TcpV4 { ecn },
            Self::Udp => Self::Udp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Where the IP packet starts, on a TUN and on a packet socket.
    fn link_headers() -> impl Strategy<Value = u16> {
        prop_oneof![Just(0), Just(14)]
    }

    proptest! {
        /// Whatever can be read is written such that it reads the same.
        #[test]
        fn any_bytes_are_refused_or_understood(
            bytes in prop::collection::vec(any::<u8>(), 0..16),
            link_header in link_headers(),
        ) {
            match Offload::decode(&bytes, link_header) {
                Ok(offload) => {
                    let again = Offload::decode(&offload.encode(link_header), link_header);
                    prop_assert_eq!(again, Ok(offload));
                }
                Err(error) => {
                    let is_short = bytes.len() < VIRTIO_NET_HEADER;
                    prop_assert_eq!(is_short, error == OffloadError::Truncated);
                }
            }
        }
    }

    #[test]
    fn a_tun_counts_from_the_ip_header_and_a_packet_socket_from_ethernet() {
        let offload = Offload {
            checksum: ChecksumState::Partial {
                start: 40,
                field: 16,
            },
            gso: Some(Gso {
                kind: GsoKind::TcpV6 { ecn: true },
                size: NonZeroU16::new(1428).unwrap(),
                header_len: 72,
            }),
            reassembled: false,
        };
        assert_eq!(Offload::decode(&offload.encode(0), 0), Ok(offload));
        assert_eq!(Offload::decode(&offload.encode(14), 14), Ok(offload));
        assert_eq!(
            Offload::decode(&offload.encode(14), 0).map(|o| o.checksum),
            Ok(ChecksumState::Partial {
                start: 54,
                field: 16
            })
        );
    }

    /// The numbers of linux/virtio_net.h.
    #[test]
    fn every_kind_and_flag_has_its_number() {
        use ChecksumState::{Complete, Partial, Verified};
        let partial = Partial { start: 0, field: 0 };
        for (flags, wanted) in [(0, Complete), (1, partial), (2, Verified), (3, partial)] {
            let read = Offload::decode(&[flags, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0).unwrap();
            assert_eq!((read.checksum, read.gso), (wanted, None));
        }
        for (number, wanted) in [
            (1, GsoKind::TcpV4 { ecn: false }),
            (0x81, GsoKind::TcpV4 { ecn: true }),
            (4, GsoKind::TcpV6 { ecn: false }),
            (0x84, GsoKind::TcpV6 { ecn: true }),
            (5, GsoKind::Udp),
        ] {
            let [low, high] = 1400u16.to_ne_bytes();
            let read = Offload::decode(&[0, number, 0, 0, low, high, 0, 0, 0, 0], 0).unwrap();
            assert_eq!(read.gso.map(|gso| gso.kind), Some(wanted));
            assert_eq!(read.encode(0)[1], number);
            assert_eq!(wanted.other_family().other_family(), wanted);
        }
    }

    #[test]
    fn a_verified_checksum_stays_verified() {
        let offload = Offload {
            checksum: ChecksumState::Verified,
            ..Offload::default()
        };
        assert_eq!(Offload::decode(&offload.encode(14), 14), Ok(offload));
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        let header = |gso_type, size: u16| {
            let [low, high] = size.to_ne_bytes();
            [0, gso_type, 0, 0, low, high, 0, 0, 0, 0]
        };
        assert_eq!(Offload::decode(&[0; 9], 0), Err(OffloadError::Truncated));
        assert_eq!(
            Offload::decode(&header(3, 1400), 0),
            Err(OffloadError::UnknownGso(3))
        );
        assert_eq!(
            Offload::decode(&header(GSO_TCPV4, 0), 0),
            Err(OffloadError::ZeroGsoSize)
        );
        assert_eq!(
            Offload::decode(&[F_NEEDS_CSUM, 0, 0, 0, 0, 0, 0, 0, 16, 0], 14),
            Err(OffloadError::ChecksumInLinkHeader)
        );
    }
}
