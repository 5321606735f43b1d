//! The PREF64 option of router advertisements (RFC 8781 §4).

use core::{net::Ipv6Addr, time::Duration};

use crate::{Length, Pref64, prefix::Error};

/// The option's type.
pub const TYPE: u8 = 38;

/// The longest lifetime the option can say: 13 bits of 8 seconds.
pub const MAX_LIFETIME: Duration = Duration::from_secs(8191 * 8);

/// A PREF64 option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pref64Option {
    /// The prefix.
    pub prefix: Pref64,
    /// For how long it holds; zero withdraws it.
    pub lifetime: Duration,
}

/// Why an option is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// Its length field is not 2.
    Length,
    /// Its prefix length code is 6 or 7.
    UnknownPlc(u8),
    /// Bits 64 to 71 are not zero.
    Octet8,
    /// The prefix is multicast, link-local or IPv4-mapped.
    Unusable,
}

impl core::fmt::Display for Ignored {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Length => f.write_str("its length is not 2"),
            Self::UnknownPlc(plc) => write!(f, "its prefix length code {plc} has no meaning"),
            Self::Octet8 => f.write_str("bits 64 to 71 of its prefix are not zero"),
            Self::Unusable => f.write_str("its prefix is one that no network uses"),
        }
    }
}

impl Pref64Option {
    /// Reads an option, from its type byte to its end. Bits behind the prefix length are dropped.
    ///
    /// `None` if it is another option.
    ///
    /// # Errors
    /// [`Ignored`] if it must be ignored.
    pub fn parse(option: &[u8]) -> Option<Result<Self, Ignored>> {
        let (&kind, &length) = (option.first()?, option.get(1)?);
        (kind == TYPE).then(|| match option.first_chunk::<16>() {
            Some(bytes) if length == 2 && option.len() == 16 => Self::from_bytes(bytes),
            _ => Err(Ignored::Length),
        })
    }

    fn from_bytes(bytes: &[u8; 16]) -> Result<Self, Ignored> {
        let scaled_plc = u16::from_be_bytes([bytes[2], bytes[3]]);
        let plc = bytes[3] & 7;
        let length = length_of(plc).ok_or(Ignored::UnknownPlc(plc))?;
        let mut octets = [0; 16];
        octets[..12].copy_from_slice(&bytes[4..]);
        let prefix =
            Pref64::masked(Ipv6Addr::from(octets), length).map_err(|error| match error {
                Error::Octet8 => Ignored::Octet8,
                Error::Syntax | Error::Length(_) | Error::HostBits(_) | Error::Unusable => {
                    Ignored::Unusable
                }
            })?;
        Ok(Self {
            prefix,
            lifetime: Duration::from_secs(u64::from(scaled_plc >> 3) * 8),
        })
    }

    /// The option's bytes; the lifetime is rounded up to what the option can say.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&[TYPE, 2]);
        let scaled_plc = scaled(self.lifetime) << 3 | u16::from(plc_of(self.prefix.length()));
        bytes[2..4].copy_from_slice(&scaled_plc.to_be_bytes());
        bytes[4..].copy_from_slice(&self.prefix.address().octets()[..12]);
        bytes
    }
}

/// A lifetime in units of 8 seconds, rounded up, at most 8191 (RFC 8781 §4.1).
#[must_use]
pub fn scaled(lifetime: Duration) -> u16 {
    let begun = u64::from(lifetime.subsec_nanos() != 0);
    let seconds = lifetime.as_secs().saturating_add(begun);
    u16::try_from(seconds.div_ceil(8).min(8191)).unwrap_or(8191)
}

fn length_of(plc: u8) -> Option<Length> {
    match plc {
        0 => Some(Length::L96),
        1 => Some(Length::L64),
        2 => Some(Length::L56),
        3 => Some(Length::L48),
        4 => Some(Length::L40),
        5 => Some(Length::L32),
        _ => None,
    }
}

fn plc_of(length: Length) -> u8 {
    match length {
        Length::L96 => 0,
        Length::L64 => 1,
        Length::L56 => 2,
        Length::L48 => 3,
        Length::L40 => 4,
        Length::L32 => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prefix::tests::any_prefix;
    use proptest::prelude::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect()
    }

    /// The log says why.
    #[test]
    fn disc_8781_4_01_what_is_ignored_has_a_reason() {
        for (why, part) in [
            (Ignored::Length, "length is not 2"),
            (Ignored::UnknownPlc(6), "code 6"),
            (Ignored::Octet8, "bits 64 to 71"),
            (Ignored::Unusable, "no network uses"),
        ] {
            assert!(why.to_string().contains(part), "{why}");
        }
    }

    #[test]
    fn disc_8781_4_01_malformed_options_are_ignored() {
        let parse = |hex: &str| Pref64Option::parse(&bytes(hex)).unwrap();
        assert_eq!(parse("2601070800000000"), Err(Ignored::Length));
        assert_eq!(
            parse(
                "2603070800 64ff9b0000000000000000 0000000000000000"
                    .replace(' ', "")
                    .as_str()
            ),
            Err(Ignored::Length)
        );
        assert_eq!(
            parse("2602070e0064ff9b0000000000000000"),
            Err(Ignored::UnknownPlc(6))
        );
        assert_eq!(
            parse("2602070f0064ff9b0000000000000000"),
            Err(Ignored::UnknownPlc(7))
        );
        assert_eq!(
            parse("260207080064ff9b0000000001000000"),
            Err(Ignored::Octet8)
        );
        // Byte 8 lies behind a /64, so it is masked and not an error.
        assert!(parse("2602070920010db80122034401000000").is_ok());
        assert_eq!(
            parse(
                "26020708ff02000000000000 00000000"
                    .replace(' ', "")
                    .as_str()
            ),
            Err(Ignored::Unusable)
        );
        assert_eq!(Pref64Option::parse(&[3, 4]), None);
        assert_eq!(Pref64Option::parse(&[38]), None);
    }

    #[test]
    fn disc_8781_4_01_the_lifetime_is_scaled_by_8() {
        let option = Pref64Option::parse(&bytes("2602002920010db80122034400000000"));
        let option = option.unwrap().unwrap();
        assert_eq!(option.lifetime, Duration::from_secs(40));
        assert_eq!(option.prefix.to_string(), "2001:db8:122:344::/64");
    }

    /// RFC 8781 §4.1: what a router writes for the lifetime it was told.
    #[test]
    fn disc_8781_4_1_02_lifetimes_are_rounded_up_and_capped() {
        for (seconds, wanted) in [
            (0, 0),
            (1, 1),
            (7, 1),
            (8, 1),
            (9, 2),
            (1800, 225),
            (1801, 226),
            (65521, 8191),
            (65528, 8191),
            (65529, 8191),
            (u64::MAX, 8191),
        ] {
            assert_eq!(scaled(Duration::from_secs(seconds)), wanted, "{seconds}");
        }
        assert_eq!(scaled(Duration::from_nanos(1)), 1);
        assert_eq!(scaled(Duration::from_millis(8001)), 2);
        assert_eq!(scaled(Duration::MAX), 8191);
    }

    /// Section 11.6 of the checklist, both ways.
    #[test]
    fn disc_8781_4_01_the_six_lengths_are_read_and_written() {
        for (hex, prefix, seconds) in [
            ("260207080064ff9b0000000000000000", "64:ff9b::/96", 1800),
            (
                "2602025920010db80122034400000000",
                "2001:db8:122:344::/64",
                600,
            ),
            (
                "2602fffa20010db80122030000000000",
                "2001:db8:122:300::/56",
                65528,
            ),
            ("2602000b20010db80122000000000000", "2001:db8:122::/48", 8),
            (
                "2602071420010db80100000000000000",
                "2001:db8:100::/40",
                1808,
            ),
            ("2602000520010db80000000000000000", "2001:db8::/32", 0),
        ] {
            let option = Pref64Option {
                prefix: prefix.parse().unwrap(),
                lifetime: Duration::from_secs(seconds),
            };
            assert_eq!(Pref64Option::parse(&bytes(hex)), Some(Ok(option)));
            assert_eq!(option.to_bytes().as_slice(), bytes(hex));
        }
    }

    #[test]
    fn disc_8781_4_01_bits_behind_the_prefix_are_masked() {
        let option = Pref64Option::parse(&bytes("2602070d20010db8ffffffffffffffff"));
        let option = option.unwrap().unwrap();
        assert_eq!(option.prefix.to_string(), "2001:db8::/32");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(option in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Pref64Option::parse(&option);
        }

        /// Of options that look right, exactly those of RFC 8781 §4 are accepted.
        #[test]
        fn disc_8781_4_01_what_is_accepted_is_a_prefix(
            mut option in any::<[u8; 16]>(),
            length in prop_oneof![9 => Just(2u8), 1 => any::<u8>()],
            octet_8 in prop::bool::weighted(0.1),
        ) {
            option[..2].copy_from_slice(&[TYPE, length]);
            if !octet_8 {
                option[12] = 0;
            }
            let parsed = Pref64Option::parse(&option).unwrap();
            if let Ok(parsed) = parsed {
                prop_assert_eq!(length, 2);
                prop_assert!(option[3] & 7 <= 5);
                prop_assert!(parsed.lifetime <= MAX_LIFETIME);
                let prefix = parsed.prefix;
                prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
                // What it says is what was in the bytes, and nothing behind its length.
                let mut address = [0; 16];
                address[..12].copy_from_slice(&option[4..]);
                prop_assert!(prefix.contains(address.into()));
            }
        }

        #[test]
        fn options_read_as_they_were_written(
            prefix in any_prefix(),
            scaled in 0u16..8192,
        ) {
            let option = Pref64Option {
                prefix,
                lifetime: Duration::from_secs(u64::from(scaled) * 8),
            };
            prop_assert_eq!(Pref64Option::parse(&option.to_bytes()), Some(Ok(option)));
        }
    }
}
