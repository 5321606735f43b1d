//! [`Pref64`]: an IPv6 prefix that stands for the IPv4 internet (RFC 6052).

use core::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// The six lengths a prefix can have (RFC 6052 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Length {
    /// /32
    L32,
    /// /40
    L40,
    /// /48
    L48,
    /// /56
    L56,
    /// /64
    L64,
    /// /96
    L96,
}

impl Length {
    /// All of them, shortest first.
    pub const ALL: [Self; 6] = [
        Self::L32,
        Self::L40,
        Self::L48,
        Self::L56,
        Self::L64,
        Self::L96,
    ];

    /// The length in bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::L32 => 32,
            Self::L40 => 40,
            Self::L48 => 48,
            Self::L56 => 56,
            Self::L64 => 64,
            Self::L96 => 96,
        }
    }

    /// The length of `bits` bits, if it is one of the six.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|length| length.bits() == bits)
    }

    /// Where the four octets of the IPv4 address lie in the IPv6 address. Octet 8 is skipped:
    /// bits 64 to 71 are zero (RFC 6052 §2.2, figure 1).
    #[must_use]
    pub const fn octets(self) -> [usize; 4] {
        match self {
            Self::L32 => [4, 5, 6, 7],
            Self::L40 => [5, 6, 7, 9],
            Self::L48 => [6, 7, 9, 10],
            Self::L56 => [7, 9, 10, 11],
            Self::L64 => [9, 10, 11, 12],
            Self::L96 => [12, 13, 14, 15],
        }
    }

    const fn mask(self) -> u128 {
        u128::MAX << (128 - self.bits())
    }
}

/// Why something is not a NAT64 prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not `address/length`.
    Syntax,
    /// Not one of the six lengths.
    Length(u8),
    /// Bits behind the length are set; the prefix that was probably meant.
    HostBits(Pref64),
    /// Bits 64 to 71 are not zero (RFC 6052 §2.2).
    Octet8,
    /// In `::ffff:0:0/96`, multicast, link-local or loopback: no network uses it as a prefix.
    Unusable,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax => f.write_str("not an IPv6 prefix; write it like 64:ff9b::/96"),
            Self::Length(bits) => write!(
                f,
                "/{bits} is not a NAT64 prefix length; it is 32, 40, 48, 56, 64 or 96 (RFC 6052)"
            ),
            Self::HostBits(meant) => {
                write!(f, "has bits set behind its length; did you mean {meant}?")
            }
            Self::Octet8 => {
                f.write_str("bits 64 to 71 of a NAT64 prefix must be zero (RFC 6052 section 2.2)")
            }
            Self::Unusable => f.write_str("lies in a range that no network uses as a prefix"),
        }
    }
}

impl core::error::Error for Error {}

/// A NAT64 prefix: one of six lengths, no bits behind it, octet 8 zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pref64 {
    bits: u128,
    length: Length,
}

impl Pref64 {
    /// `64:ff9b::/96` (RFC 6052 §2.1).
    pub const WELL_KNOWN: Self = Self {
        bits: 0x0064_ff9b << 96,
        length: Length::L96,
    };

    /// Checks a prefix that a person wrote.
    ///
    /// # Errors
    /// [`Error`]; never [`Error::Syntax`].
    pub fn new(address: Ipv6Addr, bits: u8) -> Result<Self, Error> {
        let length = Length::from_bits(bits).ok_or(Error::Length(bits))?;
        let prefix = Self::masked(address, length)?;
        if prefix.address() == address {
            Ok(prefix)
        } else {
            Err(Error::HostBits(prefix))
        }
    }

    /// The first bits of `address`, whatever follows them.
    ///
    /// # Errors
    /// [`Error::Octet8`] or [`Error::Unusable`].
    pub fn masked(address: Ipv6Addr, length: Length) -> Result<Self, Error> {
        let bits = address.to_bits() & length.mask();
        let address = Ipv6Addr::from_bits(bits);
        if address.octets()[8] != 0 {
            return Err(Error::Octet8);
        }
        let unusable = address.is_multicast()
            || address.is_unicast_link_local()
            || address.to_bits() >> 32 == 0xffff
            || address.is_unspecified();
        if unusable {
            return Err(Error::Unusable);
        }
        Ok(Self { bits, length })
    }

    /// The prefix as an address; all bits behind it are zero.
    #[must_use]
    pub fn address(&self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.bits)
    }

    /// The length.
    #[must_use]
    pub fn length(&self) -> Length {
        self.length
    }

    /// Whether this is `64:ff9b::/96`.
    #[must_use]
    pub fn is_well_known(&self) -> bool {
        *self == Self::WELL_KNOWN
    }

    /// Whether this lies in `64:ff9b:1::/48`, which is for use inside one network (RFC 8215).
    #[must_use]
    pub fn is_local_use(&self) -> bool {
        self.bits >> 80 == 0x0064_ff9b_0001
    }

    /// Whether `address` lies in the prefix.
    #[must_use]
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        address.to_bits() & self.length.mask() == self.bits
    }

    /// Writes an IPv4 address into the prefix (RFC 6052 §2.3); the suffix is zero.
    #[must_use]
    pub fn embed(&self, address: Ipv4Addr) -> Ipv6Addr {
        if self.length == Length::L96 {
            return Ipv6Addr::from_bits(self.bits | u128::from(address.to_bits()));
        }
        let mut octets = self.bits.to_be_bytes();
        for (at, octet) in self.length.octets().into_iter().zip(address.octets()) {
            octets[at] = octet;
        }
        octets.into()
    }

    /// Reads the IPv4 address out of an address in the prefix; suffix and octet 8 are ignored
    /// (RFC 6052 §2.2, §2.3). `None` for an address outside.
    #[must_use]
    pub fn extract(&self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        self.contains(address).then(|| {
            let octets = address.octets();
            Ipv4Addr::from(self.length.octets().map(|at| octets[at]))
        })
    }

    /// The one's complement sum of the prefix's 16-bit words, modulo 0xffff.
    #[must_use]
    pub fn word_sum(&self) -> u16 {
        let sum: u32 = self.address().segments().into_iter().map(u32::from).sum();
        u16::try_from(sum % 0xffff).unwrap_or_default()
    }

    /// Whether writing an address into the prefix leaves a checksum over it as it was
    /// (RFC 6052 §4.1): only a /96 can be.
    #[must_use]
    pub fn is_checksum_neutral(&self) -> bool {
        self.length == Length::L96 && self.word_sum() == 0
    }

    /// An address in the prefix the way people read it: with dotted IPv4 at its end under a /96
    /// (RFC 6052 §2.4), as ordinary IPv6 otherwise.
    #[must_use]
    pub fn display(&self, address: Ipv6Addr) -> Dotted {
        Dotted {
            address,
            dotted: self.length == Length::L96 && self.contains(address),
        }
    }
}

impl FromStr for Pref64 {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (address, bits) = text.trim().split_once('/').ok_or(Error::Syntax)?;
        let address = address.parse().map_err(|_| Error::Syntax)?;
        let bits = parse_length(bits).ok_or(Error::Syntax)?;
        Self::new(address, bits)
    }
}

/// The length behind the slash of a prefix. Digits only: the standard library takes a `+` too.
pub(crate) fn parse_length(text: &str) -> Option<u8> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

impl fmt::Display for Pref64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.length.bits())
    }
}

impl fmt::Debug for Pref64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Displays an address, with its last 32 bits dotted if they are an IPv4 address.
#[derive(Clone, Copy, Debug)]
pub struct Dotted {
    address: Ipv6Addr,
    dotted: bool,
}

impl fmt::Display for Dotted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.dotted {
            return fmt::Display::fmt(&self.address, f);
        }
        // Writing the last two groups as one non-zero group keeps "::" where it belongs.
        let [a, b, c, d, e, g, _, _] = self.address.segments();
        let head = Ipv6Addr::new(a, b, c, d, e, g, 1, 1).to_string();
        let head = head.strip_suffix("1:1").unwrap_or(&head);
        let [.., w, x, y, z] = self.address.octets();
        write!(f, "{head}{w}.{x}.{y}.{z}")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Any usable prefix out of global unicast space.
    pub(crate) fn any_prefix() -> impl Strategy<Value = Pref64> {
        let lengths = prop::sample::select(Length::ALL.to_vec());
        (any::<u128>(), lengths).prop_map(|(bits, length)| {
            let bits = (bits >> 3 | 1 << 125) & !(0xff << 56);
            Pref64::masked(Ipv6Addr::from_bits(bits), length).unwrap()
        })
    }

    fn prefix(text: &str) -> Pref64 {
        text.parse().unwrap()
    }

    #[test]
    fn addr_2_2_01_only_the_six_lengths() {
        for bits in 0..=128u8 {
            let parsed: Result<Pref64, _> = format!("2001:db8::/{bits}").parse();
            if [32, 40, 48, 56, 64, 96].contains(&bits) {
                assert_eq!(parsed.unwrap().length().bits(), bits);
            } else {
                assert_eq!(parsed, Err(Error::Length(bits)));
            }
        }
        let syntax = |text: &str| text.parse::<Pref64>() == Err(Error::Syntax);
        assert!(syntax("2001:db8::"));
        assert!(syntax("2001:db8::/x"));
        assert!(syntax("192.0.2.0/32"));
        assert!(syntax("2001:db8::/300"));
        assert!(syntax("2001:db8::/+96"));
        assert!(syntax("2001:db8::/96/96"));
        assert!(syntax("/96"));
    }

    #[test]
    fn addr_2_2_02_octet_8_is_skipped_and_must_be_zero() {
        for (length, octets) in [
            (32, [4, 5, 6, 7]),
            (40, [5, 6, 7, 9]),
            (48, [6, 7, 9, 10]),
            (56, [7, 9, 10, 11]),
            (64, [9, 10, 11, 12]),
            (96, [12, 13, 14, 15]),
        ] {
            let prefix = prefix(&format!("2001:db8::/{length}"));
            let embedded = prefix.embed(Ipv4Addr::new(201, 202, 203, 204)).octets();
            assert_eq!(octets.map(|at: usize| embedded[at]), [201, 202, 203, 204]);
            assert_eq!(embedded[8], 0);
        }
        assert_eq!(
            "2001:db8:0:0:100::/96".parse::<Pref64>(),
            Err(Error::Octet8)
        );
        assert!("2001:db8:0:0:1::/96".parse::<Pref64>().is_ok());
    }

    #[test]
    fn addr_2_2_03_suffix_and_octet_8_are_written_zero_and_ignored_on_input() {
        let wanted = Some(Ipv4Addr::new(192, 0, 2, 33));
        for (prefix_text, address) in [
            ("2001:db8::/32", "2001:db8:c000:221:0:dead:beef:1"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21:ffff:ffff:ffff"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:ff21::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:21ab:cdef"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:aac0:2:21ab:cdef"),
        ] {
            let prefix = prefix(prefix_text);
            assert_eq!(prefix.extract(address.parse().unwrap()), wanted);
            let [.., a, b, c] = prefix.embed(Ipv4Addr::BROADCAST).octets();
            assert_eq!([a, b, c], [0, 0, 0]);
        }
    }

    #[test]
    fn addr_2_4_01_a_96_is_printed_dotted_and_both_forms_are_read() {
        let well_known = Pref64::WELL_KNOWN;
        let address = well_known.embed(Ipv4Addr::new(192, 0, 2, 33));
        assert_eq!(
            well_known.display(address).to_string(),
            "64:ff9b::192.0.2.33"
        );
        assert_eq!(
            "64:ff9b::192.0.2.33".parse::<Ipv6Addr>().unwrap(),
            "64:ff9b::c000:221".parse::<Ipv6Addr>().unwrap()
        );
        for text in ["64:ff9b::/96", "64:ff9b::0.0.0.0/96", " 64:ff9b::/96\n"] {
            assert_eq!(text.parse(), Ok(well_known), "{text}");
        }
        assert_eq!(format!("{well_known:?}"), "64:ff9b::/96");
        let zero = well_known.embed(Ipv4Addr::UNSPECIFIED);
        assert_eq!(well_known.display(zero).to_string(), "64:ff9b::0.0.0.0");
        let full = prefix("2001:db8:1:2:3:4::/96");
        assert_eq!(
            full.display(full.embed(Ipv4Addr::LOCALHOST)).to_string(),
            "2001:db8:1:2:3:4:127.0.0.1"
        );
        let short = prefix("2001:db8::/32");
        assert_eq!(
            short.display(short.embed(Ipv4Addr::LOCALHOST)).to_string(),
            "2001:db8:7f00:1::"
        );
    }

    #[test]
    fn bits_behind_the_length_name_what_was_meant() {
        let error = "2001:db8:64::1/96".parse::<Pref64>().unwrap_err();
        assert_eq!(error, Error::HostBits(prefix("2001:db8:64::/96")));
        assert_eq!(
            error.to_string(),
            "has bits set behind its length; did you mean 2001:db8:64::/96?"
        );
    }

    #[test]
    fn ranges_that_cannot_be_prefixes_are_refused() {
        for text in ["::ffff:0:0/96", "ff00::/32", "fe80::/64", "::/96"] {
            assert_eq!(text.parse::<Pref64>(), Err(Error::Unusable), "{text}");
        }
    }

    /// RFC 8215 §6 and the checklist's own list.
    #[test]
    fn addr_4_1_01_checksum_neutral_prefixes() {
        for (text, neutral) in [
            ("64:ff9b::/96", true),
            ("64:ff9b:1:fffe::/96", true),
            ("64:ff9b:1:fffd:1::/96", true),
            ("64:ff9b:1:fffc:2::/96", true),
            ("64:ff9b:1:abcd:0:5431::/96", true),
            ("64:ff9b:1::/96", false),
            ("2001:db8:64::/96", false),
        ] {
            assert_eq!(prefix(text).is_checksum_neutral(), neutral, "{text}");
        }
    }

    #[test]
    fn local_use_prefixes_are_known() {
        assert!(prefix("64:ff9b:1::/96").is_local_use());
        assert!(prefix("64:ff9b:1:fffe::/96").is_local_use());
        assert!(!prefix("64:ff9b::/96").is_local_use());
        assert!(!prefix("64:ff9b:2::/96").is_local_use());
    }

    proptest! {
        #[test]
        fn what_was_embedded_is_extracted(
            prefix in any_prefix(),
            address in any::<u32>(),
        ) {
            let address = Ipv4Addr::from_bits(address);
            let embedded = prefix.embed(address);
            prop_assert!(prefix.contains(embedded));
            prop_assert_eq!(prefix.extract(embedded), Some(address));
            prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
            prop_assert_eq!(prefix.display(embedded).to_string().parse(), Ok(embedded));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Pref64>();
        }

        /// Of text that looks right, exactly the prefixes of RFC 6052 §2.2 are accepted.
        #[test]
        fn addr_2_2_01_what_is_accepted_is_a_prefix(
            bits in any::<u128>(),
            length in any::<u8>(),
            masked in prop::bool::weighted(0.9),
            octet_8 in prop::bool::weighted(0.1),
        ) {
            let allowed_length = Length::from_bits(length);
            let bits = match allowed_length {
                Some(length) if masked => bits & length.mask(),
                _ => bits,
            };
            let bits = if octet_8 { bits } else { bits & !(0xff << 56) };
            let address = Ipv6Addr::from_bits(bits);
            match format!("{address}/{length}").parse::<Pref64>() {
                Ok(prefix) => {
                    prop_assert!(allowed_length.is_some());
                    prop_assert_eq!(prefix.address(), address);
                    prop_assert_eq!(bits & !prefix.length().mask(), 0);
                    prop_assert_eq!(address.octets()[8], 0);
                    prop_assert!(!address.is_multicast() && !address.is_unicast_link_local());
                }
                Err(error) => prop_assert!(error != Error::Syntax),
            }
        }
    }
}
