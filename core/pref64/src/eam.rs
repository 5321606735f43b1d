//! Explicit address mappings (RFC 7757 §3): prefixes of both families that stand for each other.

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use crate::prefix::parse_length;

/// One mapping: an IPv4 prefix and the IPv6 prefix it becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eam {
    v4: u32,
    v4_len: u8,
    v6: u128,
    v6_len: u8,
}

/// Why a mapping or a table is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not `address` or `address/length` of the right family.
    Syntax(String),
    /// Bits behind the length are set.
    HostBits(String),
    /// The IPv4 suffix has more bits than the IPv6 suffix (RFC 7757 §3.2).
    SuffixTooLong(Eam),
    /// Two mappings have the same prefix (RFC 7757 §5).
    Duplicate(Eam, Eam),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(text) => write!(
                f,
                "`{text}` is not an address or prefix; write 192.0.2.1 or 192.0.2.0/28, \
                 2001:db8::1 or 2001:db8::/124"
            ),
            Self::HostBits(text) => write!(f, "`{text}` has bits set behind its length"),
            Self::SuffixTooLong(eam) => write!(
                f,
                "{eam}: the IPv4 prefix covers more addresses than the IPv6 prefix has room for; \
                 lengthen the first or shorten the second (RFC 7757 section 3.2)"
            ),
            Self::Duplicate(one, other) => {
                write!(
                    f,
                    "{one} and {other} have a prefix in common: keep one of them"
                )
            }
        }
    }
}

impl core::error::Error for Error {}

impl Eam {
    /// A mapping of one address.
    #[must_use]
    pub fn single(v4: Ipv4Addr, v6: Ipv6Addr) -> Self {
        Self {
            v4: v4.to_bits(),
            v4_len: 32,
            v6: v6.to_bits(),
            v6_len: 128,
        }
    }

    /// A mapping of prefixes as people write them; a missing length means one address.
    ///
    /// # Errors
    /// [`Error`], never [`Error::Duplicate`].
    pub fn parse(v4: &str, v6: &str) -> Result<Self, Error> {
        let (v4_address, v4_len) = split::<Ipv4Addr>(v4, 32)?;
        let (v6_address, v6_len) = split::<Ipv6Addr>(v6, 128)?;
        let eam = Self {
            v4: v4_address.to_bits(),
            v4_len,
            v6: v6_address.to_bits(),
            v6_len,
        };
        if eam.v4 & !mask32(v4_len) != 0 {
            return Err(Error::HostBits(v4.to_owned()));
        }
        if eam.v6 & !mask128(v6_len) != 0 {
            return Err(Error::HostBits(v6.to_owned()));
        }
        if 32 - v4_len > 128 - v6_len {
            return Err(Error::SuffixTooLong(eam));
        }
        Ok(eam)
    }

    /// How far the IPv4 suffix is shifted to the left in the IPv6 address: 128, one more than a
    /// shift can do, when a single IPv4 address stands for all of IPv6.
    fn shift(&self) -> u32 {
        u32::from(128 - self.v6_len) - u32::from(32 - self.v4_len)
    }

    /// Its IPv4 prefix: the first address and the length in bits.
    #[must_use]
    pub fn ipv4(&self) -> (Ipv4Addr, u8) {
        (Ipv4Addr::from_bits(self.v4), self.v4_len)
    }

    /// The last address of its IPv4 prefix.
    #[must_use]
    pub fn last_ipv4(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.v4 | !mask32(self.v4_len))
    }

    /// Its IPv6 prefix: the first address and the length in bits.
    #[must_use]
    pub fn ipv6(&self) -> (Ipv6Addr, u8) {
        (Ipv6Addr::from_bits(self.v6), self.v6_len)
    }

    /// Whether its IPv6 prefix covers an address.
    #[must_use]
    pub fn covers_ipv6(&self, address: Ipv6Addr) -> bool {
        address.to_bits() & mask128(self.v6_len) == self.v6
    }

    /// RFC 7757 §3.3.1.
    fn to_v6(self, address: u32) -> Ipv6Addr {
        let suffix = address & !mask32(self.v4_len);
        let suffix = u128::from(suffix).checked_shl(self.shift());
        Ipv6Addr::from_bits(self.v6 | suffix.unwrap_or_default())
    }

    /// RFC 7757 §3.3.2; low bits that the IPv4 suffix has no room for are dropped.
    fn to_v4(self, address: u128) -> Ipv4Addr {
        let suffix = (address & !mask128(self.v6_len)).checked_shr(self.shift());
        let suffix = u32::try_from(suffix.unwrap_or_default()).unwrap_or_default();
        Ipv4Addr::from_bits(self.v4 | suffix)
    }
}

impl fmt::Display for Eam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (v4, v6) = (Ipv4Addr::from_bits(self.v4), Ipv6Addr::from_bits(self.v6));
        write!(f, "{v4}/{} = {v6}/{}", self.v4_len, self.v6_len)
    }
}

fn split<A: FromStr + Into<IpAddr>>(text: &str, full: u8) -> Result<(A, u8), Error> {
    let syntax = || Error::Syntax(text.to_owned());
    let (address, len) = match text.trim().split_once('/') {
        Some((address, len)) => (address, parse_length(len).ok_or_else(syntax)?),
        None => (text.trim(), full),
    };
    if len > full {
        return Err(syntax());
    }
    Ok((address.parse().map_err(|_| syntax())?, len))
}

const fn mask32(len: u8) -> u32 {
    match u32::MAX.checked_shl(32 - len as u32) {
        Some(mask) => mask,
        None => 0,
    }
}

const fn mask128(len: u8) -> u128 {
    match u128::MAX.checked_shl(128 - len as u32) {
        Some(mask) => mask,
        None => 0,
    }
}

/// A prefix length, and where the mappings of this length stand.
type Run = (u8, core::ops::Range<usize>);

/// A table of mappings with longest-match lookup in both directions.
///
/// Lookups cost one binary search per prefix length in use.
#[derive(Clone, Debug, Default)]
pub struct EamTable {
    /// By IPv4 prefix: longest first, then by prefix.
    by_v4: Vec<Eam>,
    /// By IPv6 prefix: longest first, then by prefix.
    by_v6: Vec<Eam>,
    /// The runs of equal length in `by_v4` and `by_v6`.
    runs_v4: Vec<Run>,
    runs_v6: Vec<Run>,
}

impl EamTable {
    /// A table of `mappings`.
    ///
    /// # Errors
    /// [`Error::Duplicate`] if two have the same IPv4 or the same IPv6 prefix.
    pub fn new(mappings: Vec<Eam>) -> Result<Self, Error> {
        let mut by_v4 = mappings.clone();
        by_v4.sort_by_key(|eam| (core::cmp::Reverse(eam.v4_len), eam.v4));
        let mut by_v6 = mappings;
        by_v6.sort_by_key(|eam| (core::cmp::Reverse(eam.v6_len), eam.v6));
        for pair in by_v4.windows(2) {
            if (pair[0].v4, pair[0].v4_len) == (pair[1].v4, pair[1].v4_len) {
                return Err(Error::Duplicate(pair[0], pair[1]));
            }
        }
        for pair in by_v6.windows(2) {
            if (pair[0].v6, pair[0].v6_len) == (pair[1].v6, pair[1].v6_len) {
                return Err(Error::Duplicate(pair[0], pair[1]));
            }
        }
        Ok(Self {
            runs_v4: runs(&by_v4, |eam| eam.v4_len),
            runs_v6: runs(&by_v6, |eam| eam.v6_len),
            by_v4,
            by_v6,
        })
    }

    /// How many mappings there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_v4.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_v4.is_empty()
    }

    /// The mappings: those with the longest IPv4 prefix first, then by that prefix.
    pub fn iter(&self) -> impl Iterator<Item = &Eam> {
        self.by_v4.iter()
    }

    /// Pairs of mappings of which the first lies inside the second in one family. Longest match
    /// decides between them, but translation is then no longer symmetric: worth a warning
    /// (RFC 7757 §5).
    #[must_use]
    pub fn overlaps(&self) -> Vec<(Eam, Eam)> {
        let mut found = Vec::new();
        for inner in &self.by_v4 {
            let before = found.len();
            let shorter = self.runs_v4.iter().filter(|(len, _)| *len < inner.v4_len);
            let around = shorter.filter_map(|run| self.find_v4(run, inner.v4));
            found.extend(around.map(|outer| (*inner, *outer)));
            let shorter = self.runs_v6.iter().filter(|(len, _)| *len < inner.v6_len);
            for outer in shorter.filter_map(|run| self.find_v6(run, inner.v6)) {
                if !found[before..].contains(&(*inner, *outer)) {
                    found.push((*inner, *outer));
                }
            }
        }
        found
    }

    fn find_v4(&self, (len, range): &Run, address: u32) -> Option<&Eam> {
        let run = &self.by_v4[range.clone()];
        let at = run.binary_search_by_key(&(address & mask32(*len)), |eam| eam.v4);
        Some(&run[at.ok()?])
    }

    fn find_v6(&self, (len, range): &Run, address: u128) -> Option<&Eam> {
        let run = &self.by_v6[range.clone()];
        let at = run.binary_search_by_key(&(address & mask128(*len)), |eam| eam.v6);
        Some(&run[at.ok()?])
    }

    /// The longest matching mapping of an IPv4 address.
    #[must_use]
    pub fn find(&self, address: Ipv4Addr) -> Option<&Eam> {
        let mut runs = self.runs_v4.iter();
        runs.find_map(|run| self.find_v4(run, address.to_bits()))
    }

    /// What the longest matching mapping makes of an IPv4 address.
    #[must_use]
    pub fn to_v6(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        Some(self.find(address)?.to_v6(address.to_bits()))
    }

    /// What the longest matching mapping makes of an IPv6 address.
    #[must_use]
    pub fn to_v4(&self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let bits = address.to_bits();
        let mut matching = self.runs_v6.iter();
        let longest = matching.find_map(|run| self.find_v6(run, bits))?;
        Some(longest.to_v4(bits))
    }
}

fn runs(sorted: &[Eam], len: impl Fn(&Eam) -> u8) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut start = 0;
    for run in sorted.chunk_by(|a, b| len(a) == len(b)) {
        runs.push((len(&run[0]), start..start + run.len()));
        start += run.len();
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 7757 appendix B, figure 6.
    fn table() -> EamTable {
        EamTable::new(
            [
                ("192.0.2.1", "2001:db8:aaaa::"),
                ("192.0.2.2/32", "2001:db8:bbbb::b/128"),
                ("192.0.2.16/28", "2001:db8:cccc::/124"),
                ("192.0.2.128/26", "2001:db8:dddd::/64"),
                ("192.0.2.192/29", "2001:db8:eeee:8::/62"),
                ("192.0.2.224/31", "64:ff9b::/127"),
            ]
            .map(|(v4, v6)| Eam::parse(v4, v6).unwrap())
            .to_vec(),
        )
        .unwrap()
    }

    /// RFC 7757 appendix B, figure 7, both ways.
    #[test]
    fn eam_3_3_01_the_examples_of_appendix_b() {
        let table = table();
        for (v4, v6) in [
            ("192.0.2.1", "2001:db8:aaaa::"),
            ("192.0.2.2", "2001:db8:bbbb::b"),
            ("192.0.2.16", "2001:db8:cccc::"),
            ("192.0.2.24", "2001:db8:cccc::8"),
            ("192.0.2.31", "2001:db8:cccc::f"),
            ("192.0.2.128", "2001:db8:dddd::"),
            ("192.0.2.152", "2001:db8:dddd:0:6000::"),
            ("192.0.2.183", "2001:db8:dddd:0:dc00::"),
            ("192.0.2.191", "2001:db8:dddd:0:fc00::"),
            ("192.0.2.195", "2001:db8:eeee:9:8000::"),
            ("192.0.2.225", "64:ff9b::1"),
        ] {
            let (v4, v6) = (v4.parse().unwrap(), v6.parse().unwrap());
            assert_eq!(table.to_v6(v4), Some(v6));
            assert_eq!(table.to_v4(v6), Some(v4));
        }
        assert_eq!(table.to_v6("192.0.2.248".parse().unwrap()), None);
        assert_eq!(table.to_v4("64:ff9b::c000:2f8".parse().unwrap()), None);
    }

    #[test]
    fn a_table_shows_its_mappings() {
        let longest_first: Vec<_> = table()
            .iter()
            .map(|it| it.last_ipv4().octets()[3])
            .collect();
        assert_eq!(longest_first, [1, 2, 225, 199, 31, 191]);
        assert!(!table().is_empty());
        assert!(EamTable::default().is_empty());
    }

    #[test]
    fn eam_3_2_01_lengths_and_suffixes() {
        assert_eq!(
            Eam::parse("192.0.2.1", "2001:db8::1"),
            Eam::parse("192.0.2.1/32", "2001:db8::1/128")
        );
        // Extra low IPv6 bits are written zero and dropped on the way back.
        let wide =
            EamTable::new(vec![Eam::parse("192.0.2.0/24", "2001:db8::/64").unwrap()]).unwrap();
        let there = "2001:db8:0:0:7f00::".parse().unwrap();
        assert_eq!(wide.to_v6("192.0.2.127".parse().unwrap()), Some(there));
        let noisy = "2001:db8:0:0:7fff:ffff::1".parse().unwrap();
        assert_eq!(wide.to_v4(noisy), Some("192.0.2.127".parse().unwrap()));
        assert!(matches!(
            Eam::parse("192.0.2.0/24", "2001:db8::/121"),
            Err(Error::SuffixTooLong(_))
        ));
        assert!(Eam::parse("192.0.2.0/24", "2001:db8::/120").is_ok());
        for (v4, v6) in [
            ("192.0.2.1/24", "2001:db8::/64"),
            ("192.0.2.0/24", "2001:db8::1/64"),
        ] {
            assert!(matches!(Eam::parse(v4, v6), Err(Error::HostBits(_))));
        }
        for (v4, v6) in [
            ("x", "::"),
            ("1.2.3.4/33", "::"),
            ("1.2.3.4", "::/129"),
            ("1.2.3.0/+24", "2001:db8::/96"),
            ("1.2.3.0/24/24", "2001:db8::/96"),
            ("1.2.3.4/", "::"),
            ("::", "::"),
        ] {
            assert!(matches!(Eam::parse(v4, v6), Err(Error::Syntax(_))), "{v4}");
        }
    }

    /// The widest difference between the two suffixes, where no bit of the IPv6 one is used.
    #[test]
    fn eam_3_2_01_one_address_for_all_of_ipv6() {
        let table = EamTable::new(vec![Eam::parse("192.0.2.1", "::/0").unwrap()]).unwrap();
        let one = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(table.to_v6(one), Some(Ipv6Addr::UNSPECIFIED));
        assert_eq!(table.to_v4("2001:db8::1".parse().unwrap()), Some(one));
        let all = EamTable::new(vec![Eam::parse("0.0.0.0/0", "::/0").unwrap()]).unwrap();
        assert_eq!(all.to_v6(one), Some("c000:201::".parse().unwrap()));
        assert_eq!(all.to_v4("c000:201::1".parse().unwrap()), Some(one));
    }

    #[test]
    fn eam_3_3_01_the_longest_match_wins() {
        let table = EamTable::new(vec![
            Eam::parse("0.0.0.0/0", "2001:db8::/96").unwrap(),
            Eam::parse("192.0.2.0/24", "2001:db8:1::/120").unwrap(),
            Eam::parse("192.0.2.1", "2001:db8:2::").unwrap(),
        ])
        .unwrap();
        let map = |text: &str| table.to_v6(text.parse().unwrap()).unwrap().to_string();
        assert_eq!(map("192.0.2.1"), "2001:db8:2::");
        assert_eq!(map("192.0.2.2"), "2001:db8:1::2");
        assert_eq!(map("8.8.8.8"), "2001:db8::808:808");

        // In the other direction the IPv6 lengths decide, whatever the IPv4 lengths are.
        let table = EamTable::new(vec![
            Eam::parse("198.51.100.1", "2001:db8::/64").unwrap(),
            Eam::parse("203.0.113.0/24", "2001:db8::/120").unwrap(),
        ])
        .unwrap();
        let map = |text: &str| table.to_v4(text.parse().unwrap()).unwrap().to_string();
        assert_eq!(map("2001:db8::7"), "203.0.113.7");
        assert_eq!(map("2001:db8::7:0"), "198.51.100.1");
    }

    #[test]
    fn eam_5_01_identical_prefixes_are_refused_and_overlaps_named() {
        let one = Eam::parse("192.0.2.1", "2001:db8::1").unwrap();
        let same_v4 = Eam::parse("192.0.2.1", "2001:db8::2").unwrap();
        let same_v6 = Eam::parse("192.0.2.2", "2001:db8::1").unwrap();
        for other in [same_v4, same_v6] {
            let error = EamTable::new(vec![one, other]).unwrap_err();
            assert!(matches!(error, Error::Duplicate(..)));
        }
        let around = Eam::parse("192.0.2.0/24", "2001:db8:1::/120").unwrap();
        let around_v6 = Eam::parse("198.51.100.0/24", "2001:db8::/64").unwrap();
        let apart = Eam::parse("203.0.113.0/24", "2001:db8:9::/120").unwrap();
        let table = EamTable::new(vec![one, around, around_v6, apart]).unwrap();
        assert_eq!(table.overlaps(), [(one, around), (one, around_v6)]);
        assert!(
            EamTable::new(vec![one, apart])
                .unwrap()
                .overlaps()
                .is_empty()
        );
    }

    /// Every step is at most one search per mapping and length: what is quadratic would take
    /// minutes here, and be seen.
    #[test]
    fn eam_5_01_a_large_table_is_checked_fast() {
        let mapping = |n: u32| {
            let [a, b, c, d] = (0x0b00_0000 + n).to_be_bytes();
            Eam::single(
                Ipv4Addr::new(a, b, c, d),
                Ipv6Addr::from_bits((0x2001_0db8 << 96) + u128::from(n)),
            )
        };
        let mut mappings: Vec<_> = (0..300_000).map(mapping).collect();
        let around = Eam::parse("11.0.0.0/31", "2001:db9::/120").unwrap();
        mappings.push(around);
        let table = EamTable::new(mappings).unwrap();
        assert_eq!(table.len(), 300_001);
        let overlaps = table.overlaps();
        assert_eq!(overlaps, [(mapping(0), around), (mapping(1), around)]);
    }

    /// People read these; what is wrong and what to do must be in them.
    #[test]
    fn refusals_say_what_is_wrong() {
        let refused = |v4, v6| Eam::parse(v4, v6).unwrap_err().to_string();
        assert!(refused("nonsense", "::1").contains("`nonsense` is not an address"));
        assert!(refused("192.0.2.1/24", "::/96").contains("`192.0.2.1/24` has bits set"));
        let long = refused("192.0.2.0/24", "2001:db8::/124");
        assert!(
            long.starts_with("192.0.2.0/24 = 2001:db8::/124: "),
            "{long}"
        );
        let one = Eam::parse("192.0.2.1", "2001:db8::1").unwrap();
        let twice = EamTable::new(vec![one, one]).unwrap_err().to_string();
        assert!(twice.contains("keep one of them"), "{twice}");
    }

    proptest! {
        /// Against a linear search over randomly made tables.
        #[test]
        fn lookups_equal_a_linear_search(
            parts in proptest::collection::vec((any::<u32>(), 20u8..=32, any::<u8>()), 0..20),
            probe in any::<u32>(),
        ) {
            let mut mappings: Vec<Eam> = Vec::new();
            for (v4, v4_len, salt) in parts {
                let v4 = (0xc000_0000 | v4 & 0xfff) & mask32(v4_len);
                let v6_len = 128 - (32 - v4_len) - salt % 8;
                let v6 = (u128::from(salt) << 96 | u128::from(v4) << 60) & mask128(v6_len);
                let eam = Eam { v4, v4_len, v6, v6_len };
                let clash = mappings.iter().any(|e| {
                    (e.v4, e.v4_len) == (v4, v4_len) || (e.v6, e.v6_len) == (v6, v6_len)
                });
                if !clash {
                    mappings.push(eam);
                }
            }
            let table = EamTable::new(mappings.clone()).unwrap();
            let probe = 0xc000_0000 | probe & 0xfff;
            let wanted = mappings
                .iter()
                .filter(|eam| probe & mask32(eam.v4_len) == eam.v4)
                .max_by_key(|eam| eam.v4_len)
                .map(|eam| eam.to_v6(probe));
            prop_assert_eq!(table.to_v6(Ipv4Addr::from_bits(probe)), wanted);
            if let Some(v6) = wanted {
                let back = mappings
                    .iter()
                    .filter(|eam| eam.covers_ipv6(v6))
                    .max_by_key(|eam| eam.v6_len)
                    .map(|eam| eam.to_v4(v6.to_bits()));
                prop_assert_eq!(table.to_v4(v6), back);
            }
        }

        #[test]
        fn no_text_panics(v4 in "\\PC{0,30}", v6 in "\\PC{0,30}") {
            let _ = Eam::parse(&v4, &v6);
        }

        /// Of text that looks right, exactly what RFC 7757 §3.2 allows is accepted, and maps
        /// every address of the IPv4 prefix there and back.
        #[test]
        fn eam_3_2_01_what_is_accepted_maps_there_and_back(
            v4 in any::<u32>(),
            v4_len in 0u8..=40,
            v6 in any::<u128>(),
            v6_len in 0u8..=136,
            masked in prop::bool::weighted(0.9),
            probe in any::<u32>(),
        ) {
            let (mask4, mask6) = (mask32(v4_len.min(32)), mask128(v6_len.min(128)));
            let (v4, v6) = if masked { (v4 & mask4, v6 & mask6) } else { (v4, v6) };
            let (first, second) = (Ipv4Addr::from_bits(v4), Ipv6Addr::from_bits(v6));
            let parsed = Eam::parse(&format!("{first}/{v4_len}"), &format!("{second}/{v6_len}"));
            let lengths_fit = v4_len <= 32 && v6_len <= 128 && v4_len + 96 >= v6_len;
            let no_host_bits = v4 & !mask4 == 0 && v6 & !mask6 == 0;
            let allowed = lengths_fit && no_host_bits;
            prop_assert_eq!(parsed.is_ok(), allowed);
            if let Ok(eam) = parsed {
                let table = EamTable::new(vec![eam]).unwrap();
                let inside = Ipv4Addr::from_bits(v4 | probe & !mask32(v4_len));
                let mapped = table.to_v6(inside).unwrap();
                prop_assert!(eam.covers_ipv6(mapped));
                prop_assert_eq!(table.to_v4(mapped), Some(inside));
            }
        }
    }
}
