//! [`PortRange`], [`PortSet`], [`Ports`]: which ports of an address are meant.

use core::{fmt, str::FromStr};
use std::sync::Arc;

use crate::tuple::Protocol;

/// Ports (or identifiers) that follow each other, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// All but port 0.
    pub const ALL: Self = Self {
        first: 1,
        last: u16::MAX,
    };

    /// The ports from `first` to `last`. `None` if there is none, or port 0 among them.
    #[must_use]
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first > 0 && first <= last {
            Some(Self { first, last })
        } else {
            None
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    /// Whether `port` is one of them.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// The first.
    #[must_use]
    pub fn first(&self) -> u16 {
        self.first
    }

    /// The last.
    #[must_use]
    pub fn last(&self) -> u16 {
        self.last
    }

    /// Never: a range has at least one port.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The ports that are in both.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last))
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Any ports (or identifiers), port 0 never among them. There may be none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortSet {
    /// In order, with a port between any two. Shared, as many addresses have the same.
    ranges: Arc<[PortRange]>,
}

impl PortSet {
    /// All but port 0.
    #[must_use]
    pub fn all() -> Self {
        PortRange::ALL.into()
    }

    /// No port.
    #[must_use]
    pub fn none() -> Self {
        [].into_iter().collect()
    }

    /// Its ranges, in order; between two of them is at least one port that it does not have.
    #[must_use]
    pub fn ranges(&self) -> &[PortRange] {
        &self.ranges
    }

    /// How many ports it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ranges.iter().map(PortRange::len).sum()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether `port` is one of them.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        let at = self.ranges.partition_point(|it| it.last < port);
        self.ranges.get(at).is_some_and(|it| it.contains(port))
    }

    /// Whether all ports of `range` are among them.
    #[must_use]
    pub fn covers(&self, range: &PortRange) -> bool {
        let mut all = self.ranges.iter();
        all.any(|it| it.contains(range.first) && it.contains(range.last))
    }

    /// Whether there is a port in both.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        let mut all = self.ranges.iter();
        all.any(|one| other.ranges.iter().any(|it| one.meet(it).is_some()))
    }

    /// The ports, in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.ranges.iter().flat_map(|it| it.first..=it.last)
    }
}

impl From<PortRange> for PortSet {
    fn from(range: PortRange) -> Self {
        Self {
            ranges: [range].into(),
        }
    }
}

impl FromIterator<PortRange> for PortSet {
    /// The ranges may overlap, and come in any order.
    fn from_iter<I: IntoIterator<Item = PortRange>>(ranges: I) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().collect();
        ranges.sort_unstable();
        ranges.dedup_by(|next, before| {
            let joined = u32::from(next.first) <= u32::from(before.last) + 1;
            if joined {
                before.last = before.last.max(next.last);
            }
            joined
        });
        Self {
            ranges: ranges.into(),
        }
    }
}

/// How a set without ports is written.
const NONE: &str = "none";

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str(NONE);
        }
        for (at, range) in self.ranges.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{range}")?;
        }
        Ok(())
    }
}

/// Text that is no set of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSetError;

impl fmt::Display for PortSetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not a range of ports; write it like 1024-65535 or 1024-2047,4096-8191, from 1 to \
             65535, or none",
        )
    }
}

impl core::error::Error for PortSetError {}

impl FromStr for PortSet {
    type Err = PortSetError;

    fn from_str(text: &str) -> Result<Self, PortSetError> {
        if text.trim() == NONE {
            return Ok(Self::none());
        }
        let port = |it: &str| it.trim().parse::<u16>().map_err(|_| PortSetError);
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            PortRange::new(port(first)?, port(last)?).ok_or(PortSetError)
        };
        text.split(',').map(range).collect()
    }
}

/// Which ports of an address are meant, by protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ports {
    /// Ports of TCP.
    pub tcp: PortSet,
    /// Ports of UDP.
    pub udp: PortSet,
    /// Identifiers of ICMP queries.
    pub icmp: PortSet,
}

impl Ports {
    /// All of them.
    #[must_use]
    pub fn all() -> Self {
        PortRange::ALL.into()
    }

    /// Those of a protocol.
    #[must_use]
    pub fn of(&self, protocol: Protocol) -> &PortSet {
        match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
            Protocol::Icmp => &self.icmp,
        }
    }

    /// Whether all of `other` are among them, of each protocol.
    #[must_use]
    pub fn cover(&self, other: &Self) -> bool {
        Protocol::ALL.iter().all(|it| {
            let mut ranges = other.of(*it).ranges().iter();
            ranges.all(|range| self.of(*it).covers(range))
        })
    }

    /// Whether there is none of any protocol.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        Protocol::ALL.iter().all(|it| self.of(*it).is_empty())
    }

    /// The range that they are for each protocol, if that is so.
    #[must_use]
    pub fn as_range(&self) -> Option<PortRange> {
        match self.tcp.ranges() {
            [range] if self.udp == self.tcp && self.icmp == self.tcp => Some(*range),
            _ => None,
        }
    }

    /// The most of any protocol.
    #[must_use]
    pub fn most(&self) -> usize {
        let all = Protocol::ALL.iter().map(|it| self.of(*it).len());
        all.max().unwrap_or_default()
    }
}

impl From<PortRange> for Ports {
    /// The same for each protocol.
    fn from(range: PortRange) -> Self {
        let set = PortSet::from(range);
        Self {
            tcp: set.clone(),
            udp: set.clone(),
            icmp: set,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn ranges_without_ports_are_none() {
        assert_eq!(PortRange::new(0, 5), None);
        assert_eq!(PortRange::new(6, 5), None);
        assert_eq!(PortRange::new(5, 5).map(|range| range.len()), Some(1));
    }

    #[test]
    fn sets_are_read_and_written() {
        let set = |text: &str| text.parse::<PortSet>().map(|it| it.to_string());
        let of = |text: &str| set(text).unwrap();
        assert_eq!(of("1024-65535"), "1024-65535");
        assert_eq!(of("4000-5000, 7 ,5001-6000"), "7-7,4000-6000");
        assert_eq!(of("none"), "none");
        for wrong in ["", "0-5", "6-5", "1-65536", "1,", "none,5", "a"] {
            assert_eq!(set(wrong), Err(PortSetError), "{wrong}");
        }
    }

    #[test]
    fn a_range_for_all_is_known_as_one() {
        let range = PortRange::new(5, 9).unwrap();
        let mut ports = Ports::from(range);
        assert_eq!(ports.as_range(), Some(range));
        ports.udp = "5-8".parse().unwrap();
        assert_eq!(ports.as_range(), None);
        let two: PortSet = "5,7".parse().unwrap();
        assert_eq!(two.len(), 2);
    }

    proptest! {
        /// Against sets of single ports.
        #[test]
        fn equals_a_set_of_ports(
            one in proptest::collection::vec((1u16..60, 0u16..9), 0..6),
            other in proptest::collection::vec((1u16..60, 0u16..9), 0..6),
            first in 1u16..70,
            len in 0u16..9,
        ) {
            let range = |(first, len): &(u16, u16)| PortRange::new(*first, first + len).unwrap();
            let slow = |all: &[(u16, u16)]| -> BTreeSet<u16> {
                all.iter().flat_map(|(first, len)| *first..=first + len).collect()
            };
            let (a, b): (PortSet, PortSet) = (one.iter().map(range).collect(), other.iter().map(range).collect());
            let (slow_a, slow_b) = (slow(&one), slow(&other));
            prop_assert_eq!(a.iter().collect::<Vec<_>>(), slow_a.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(a.len(), slow_a.len());
            prop_assert_eq!(a.meets(&b), !slow_a.is_disjoint(&slow_b));
            for port in 0..80 {
                prop_assert_eq!(a.contains(port), slow_a.contains(&port));
            }
            let part = PortRange::new(first, first + len).unwrap();
            prop_assert_eq!(a.covers(&part), (first..=first + len).all(|it| slow_a.contains(&it)));
            let again = a.to_string().parse::<PortSet>();
            prop_assert_eq!(again, Ok(a.clone()));
            prop_assert_eq!(slow_a == slow_b, a == b);
        }
    }
}
