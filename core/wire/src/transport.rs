//! TCP and UDP headers (RFC 9293, RFC 768), as far as translation touches them.

use crate::field::{get_u16, get_u32};

/// Where the source port lies, in TCP as in UDP.
pub const SRC_PORT_AT: usize = 0;
/// Where the destination port lies, in TCP as in UDP.
pub const DST_PORT_AT: usize = 2;

/// TCP.
pub mod tcp {
    /// A header without options.
    pub const HEADER_LEN: usize = 20;
    /// The longest header.
    pub const MAX_HEADER_LEN: usize = 60;
    /// Where the sequence number lies.
    pub const SEQUENCE_AT: usize = 4;
    /// Where the acknowledgment number lies.
    pub const ACKNOWLEDGMENT_AT: usize = 8;
    /// Where the flags lie.
    pub const FLAGS_AT: usize = 13;
    /// Where the checksum lies.
    pub const CHECKSUM_AT: usize = 16;

    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment field is significant.
    pub const ACK: u8 = 0x10;
    /// Congestion window reduced.
    pub const CWR: u8 = 0x80;
}

/// UDP.
pub mod udp {
    /// The header.
    pub const HEADER_LEN: usize = 8;
    /// Where the length lies.
    pub const LENGTH_AT: usize = 4;
    /// Where the checksum lies.
    pub const CHECKSUM_AT: usize = 6;
}

/// SCTP (RFC 9260), whose checksum covers no addresses.
pub mod sctp {
    use crate::{crc32c::crc32c, field::set_u32};

    /// Where the checksum lies.
    pub const CHECKSUM_AT: usize = 8;

    /// Computes the checksum of `packet` and writes it (RFC 9260 appendix A); `None` if there is no
    /// place for it.
    pub fn write_checksum(packet: &mut [u8]) -> Option<()> {
        packet.get(CHECKSUM_AT..CHECKSUM_AT + 4)?;
        set_u32(packet, CHECKSUM_AT, 0);
        let checksum = crc32c(packet).swap_bytes();
        set_u32(packet, CHECKSUM_AT, checksum);
        Some(())
    }
}

/// A TCP segment whose header is whole, options included.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<'a> {
    bytes: &'a [u8],
    header_len: usize,
}

impl<'a> Tcp<'a> {
    /// Checks that the header is whole and its length field sane.
    #[must_use]
    pub fn new_checked(bytes: &'a [u8]) -> Option<Self> {
        let header_len = usize::from(*bytes.get(12)? >> 4) * 4;
        (header_len >= tcp::HEADER_LEN && header_len <= bytes.len())
            .then_some(Self { bytes, header_len })
    }

    /// Header and options, in bytes: 20 to 60.
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// The flags ([`tcp`]).
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.bytes[tcp::FLAGS_AT]
    }

    /// The sequence number.
    #[must_use]
    pub fn sequence(&self) -> u32 {
        get_u32(self.bytes, tcp::SEQUENCE_AT).unwrap_or_default()
    }

    /// The acknowledgment number; it means something if [`tcp::ACK`] is set.
    #[must_use]
    pub fn acknowledgment(&self) -> u32 {
        get_u32(self.bytes, tcp::ACKNOWLEDGMENT_AT).unwrap_or_default()
    }
}

/// Source and destination port of a TCP segment or UDP datagram, if they are there.
#[must_use]
pub fn ports(bytes: &[u8]) -> Option<(u16, u16)> {
    Some((get_u16(bytes, SRC_PORT_AT)?, get_u16(bytes, DST_PORT_AT)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_a_tcp_header(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let Some(tcp) = Tcp::new_checked(&bytes) else {
                let offset = bytes.get(12).map_or(0, |it| usize::from(it >> 4) * 4);
                prop_assert!(offset < tcp::HEADER_LEN || offset > bytes.len());
                return Ok(());
            };
            prop_assert!((tcp::HEADER_LEN..=tcp::MAX_HEADER_LEN).contains(&tcp.header_len()));
            prop_assert!(tcp.header_len() <= bytes.len());
            prop_assert_eq!(tcp.flags(), bytes[tcp::FLAGS_AT]);
            prop_assert_eq!(Some(tcp.sequence()), get_u32(&bytes, tcp::SEQUENCE_AT));
            prop_assert_eq!(Some(tcp.acknowledgment()), get_u32(&bytes, 8));
        }

        #[test]
        fn ports_are_the_first_four_bytes(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let read = ports(&bytes).map(|(src, dst)| [src.to_be_bytes(), dst.to_be_bytes()].concat());
            prop_assert_eq!(read.as_deref(), bytes.get(..4));
        }

        /// With its checksum in place, a packet of any bytes has the same checksum again.
        #[test]
        fn an_sctp_checksum_has_a_place_or_is_not_written(
            mut bytes in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let before = bytes.clone();
            if sctp::write_checksum(&mut bytes).is_none() {
                prop_assert!(bytes.len() < sctp::CHECKSUM_AT + 4);
                prop_assert_eq!(bytes, before);
                return Ok(());
            }
            let once = bytes.clone();
            sctp::write_checksum(&mut bytes);
            prop_assert_eq!(&bytes, &once);
            let place = sctp::CHECKSUM_AT..sctp::CHECKSUM_AT + 4;
            bytes[place.clone()].copy_from_slice(&before[place]);
            prop_assert_eq!(bytes, before);
        }
    }

    #[test]
    fn a_tcp_header_must_be_whole() {
        let mut segment = [0u8; 24];
        segment[12] = 6 << 4;
        segment[4..8].copy_from_slice(&[1, 2, 3, 4]);
        segment[13] = tcp::SYN;
        let tcp = Tcp::new_checked(&segment).unwrap();
        assert_eq!(tcp.header_len(), 24);
        assert_eq!(tcp.sequence(), 0x0102_0304);
        assert_eq!(tcp.flags(), tcp::SYN);
        assert!(Tcp::new_checked(&segment[..23]).is_none());
        segment[12] = 4 << 4;
        assert!(Tcp::new_checked(&segment).is_none());
        assert!(Tcp::new_checked(&[]).is_none());
    }
}
