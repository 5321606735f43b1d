//! The Internet checksum: one's complement sums (RFC 1071) and their incremental update (RFC 1624).
//!
//! A 16-bit field in a packet holds one of two things, and mixing them up is the classic bug:
//!
//! * a **complete** checksum, the inverted sum over pseudo-header and data ([`Sum::checksum`],
//!   [`Delta::apply`]);
//! * a **partial** one, the sum of the pseudo-header alone and *not* inverted, which the network
//!   card or the kernel finishes later (`VIRTIO_NET_HDR_F_NEEDS_CSUM`; [`Sum::fold`],
//!   [`Delta::apply_partial`]).

/// A one's complement sum of 16-bit big-endian words, folded only when it is read.
///
/// Sums of more than 2^47 bytes would overflow; no packet comes near.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// The sum of `bytes`; an odd last byte counts as the high half of a word (RFC 1071 §1).
    pub fn of(bytes: &[u8]) -> Self {
        Self::ZERO.bytes(bytes)
    }

    /// Adds `bytes`, which must start at an even offset of the covered data.
    pub fn bytes(self, bytes: &[u8]) -> Self {
        // Four bytes at a time: 2^16 = 1 modulo 0xffff, so wider words give the same folded sum.
        let (words, rest) = bytes.as_chunks::<4>();
        let mut sum = self.0;
        for word in words {
            sum += u64::from(u32::from_be_bytes(*word));
        }
        let (pairs, odd) = rest.as_chunks::<2>();
        for pair in pairs {
            sum += u64::from(u16::from_be_bytes(*pair));
        }
        if let [last] = odd {
            sum += u64::from(*last) << 8;
        }
        Self(sum)
    }

    /// Adds one 16-bit word.
    pub fn word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word))
    }

    /// Adds one 32-bit number.
    pub fn long(self, long: u32) -> Self {
        Self(self.0 + u64::from(long))
    }

    /// The folded sum, not inverted: what a partial checksum field holds.
    #[must_use]
    pub fn fold(self) -> u16 {
        fold(self.0)
    }

    /// The complete checksum: the inverted sum.
    ///
    /// UDP must pass it through [`never_zero`].
    #[must_use]
    pub fn checksum(self) -> u16 {
        !fold(self.0)
    }
}

/// The pseudo-header of an IPv4 upper-layer checksum (RFC 793 §3.1): addresses, protocol, length.
pub fn pseudo_v4(src: [u8; 4], dst: [u8; 4], protocol: u8, length: u16) -> Sum {
    Sum::of(&src)
        .bytes(&dst)
        .word(u16::from(protocol))
        .word(length)
}

/// The pseudo-header of an IPv6 upper-layer checksum (RFC 8200 §8.1): addresses, length, next header.
pub fn pseudo_v6(src: [u8; 16], dst: [u8; 16], next_header: u8, length: u32) -> Sum {
    Sum::of(&src)
        .bytes(&dst)
        .long(length)
        .word(u16::from(next_header))
}

/// A UDP checksum that computes to zero is sent as 0xffff, since zero means "none"
/// (RFC 768; RFC 8200 §8.1).
#[must_use]
pub const fn never_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// What a checksum changes by when some of the words it covers are replaced (RFC 1624 eqn. 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Delta(u64);

impl Delta {
    /// Nothing changed.
    pub const NONE: Self = Self(0);

    /// `old` is no longer covered, `new` is; both start at even offsets of the covered data.
    pub fn replace(self, old: Sum, new: Sum) -> Self {
        Self(self.0 + u64::from(!old.fold()) + u64::from(new.fold()))
    }

    /// One 16-bit word became another.
    pub fn word(self, old: u16, new: u16) -> Self {
        Self(self.0 + u64::from(!old) + u64::from(new))
    }

    /// A complete checksum after the change.
    ///
    /// UDP must pass it through [`never_zero`].
    #[must_use]
    pub fn apply(self, checksum: u16) -> u16 {
        !fold(u64::from(!checksum) + self.0)
    }

    /// A partial (not inverted) checksum after the change.
    #[must_use]
    pub fn apply_partial(self, partial: u16) -> u16 {
        fold(u64::from(partial) + self.0)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "two folds of a 64-bit sum leave at most 16 bits, as the loop condition says"
)]
const fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 §3, the worked example.
    #[test]
    fn sums_the_example_of_rfc_1071() {
        let sum = Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), 0xddf2);
        assert_eq!(sum.checksum(), !0xddf2);
    }

    #[test]
    fn an_odd_last_byte_is_the_high_half_of_a_word() {
        assert_eq!(Sum::of(&[0x12, 0x34, 0x56]).fold(), 0x1234 + 0x5600);
    }

    /// RFC 1624 §4, the example that eqn. 2 gets wrong.
    #[test]
    fn updates_the_example_of_rfc_1624() {
        assert_eq!(Delta::NONE.word(0x5555, 0x3285).apply(0xdd2f), 0x0000);
    }

    /// A plain loop over words, written apart from `Sum`.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// 0 and 0xffff are the same number in one's complement.
    fn same(a: u16, b: u16) -> bool {
        a == b || (a.is_multiple_of(0xffff) && b.is_multiple_of(0xffff))
    }

    proptest! {
        #[test]
        fn equals_the_slow_sum(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert!(same(Sum::of(&bytes).fold(), slow(&bytes)));
        }

        #[test]
        fn an_incremental_update_equals_a_recomputation(
            mut data in proptest::collection::vec(any::<u8>(), 64..65),
            new in any::<[u8; 16]>(),
            at in 0usize..24,
        ) {
            let at = at * 2;
            let before = Sum::of(&data);
            let old = Sum::of(&data[at..at + 16]);
            data[at..at + 16].copy_from_slice(&new);
            let after = Sum::of(&data);
            let delta = Delta::NONE.replace(old, Sum::of(&new));
            prop_assert!(same(delta.apply(before.checksum()), after.checksum()));
            prop_assert!(same(delta.apply_partial(before.fold()), after.fold()));
        }
    }
}
