//! The Identification of IPv4 packets made here (RFC 7915 §5.1; RFC 6864 §5.3.1).

use core::{net::Ipv4Addr, num::NonZeroU8};

/// Counters, by a keyed hash of source, destination and protocol: packets of one such triple never
/// get the same value again before all others of its share were given out, 65 536 if it has all.
#[derive(Clone)]
pub struct Identification {
    key: u64,
    /// How many values have been given out, reduced by the width of the share.
    counters: Box<[u16]>,
    share: Share,
}

/// The part of the 65 536 values that one of several translators may give out, who write the same
/// addresses and do not know of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which part, from 0 on, below `of`.
    pub number: u8,
    /// How many parts there are.
    pub of: NonZeroU8,
}

impl Share {
    /// All values.
    pub const WHOLE: Self = Self {
        number: 0,
        of: NonZeroU8::MIN,
    };

    /// How many values it has.
    fn width(self) -> u32 {
        (1 << 16) / u32::from(self.of.get())
    }

    /// Its first value.
    fn first(self) -> u32 {
        u32::from(self.number % self.of) * self.width()
    }
}

const COUNTERS: usize = 1 << 12;

impl Identification {
    /// Counters for the hash `key`, which should be random: an outsider who knows the state of a
    /// counter can count the packets of others.
    #[must_use]
    pub fn new(key: u64) -> Self {
        let counters = (0..COUNTERS as u64).map(|n| {
            let [.., a, b] = mix(n ^ key).to_be_bytes();
            u16::from_be_bytes([a, b])
        });
        Self {
            key,
            counters: counters.collect(),
            share: Share::WHOLE,
        }
    }

    /// The same, of which only the values of `share` are given out.
    #[must_use]
    pub fn only(self, share: Share) -> Self {
        Self { share, ..self }
    }

    /// The first of `count` values in a row. More than the share has run over into others.
    pub fn next(&mut self, src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, count: u16) -> u16 {
        let pair = u64::from(src.to_bits()) << 32 | u64::from(dst.to_bits());
        let hash = mix(mix(pair ^ self.key) ^ u64::from(protocol));
        let at = usize::try_from(hash % COUNTERS as u64).unwrap_or_default();
        let counter = &mut self.counters[at];
        let (width, count) = (self.share.width(), u32::from(count.max(1)));
        let next = u32::from(*counter) % width;
        // After the last of all values comes the first; what is in a row stays in a share.
        let leaves = self.share != Share::WHOLE && next + count > width;
        let at = if leaves { 0 } else { next };
        let [.., a, b] = (at + count).to_be_bytes();
        *counter = u16::from_be_bytes([a, b]);
        let [.., a, b] = (self.share.first() + at).to_be_bytes();
        u16::from_be_bytes([a, b])
    }
}

impl core::fmt::Debug for Identification {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Identification").finish_non_exhaustive()
    }
}

/// The finaliser of splitmix64.
const fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const A: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    const B: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);

    #[test]
    fn xlat_5_1_03_values_of_one_triple_do_not_repeat() {
        let mut ids = Identification::new(42);
        let values: HashSet<_> = (0..65_536).map(|_| ids.next(A, B, 17, 1)).collect();
        assert_eq!(values.len(), 65_536);
    }

    #[test]
    fn xlat_5_1_03_segments_get_values_in_a_row() {
        let mut ids = Identification::new(42);
        let first = ids.next(A, B, 17, 10);
        assert_eq!(ids.next(A, B, 17, 1), first.wrapping_add(10));
    }

    /// RFC 6864 §5.3.1, of packets that several translators give the same addresses.
    #[test]
    fn xlat_5_1_03_shares_have_no_value_in_common() {
        for of in [1, 2, 3, 8, 255].map(|it| NonZeroU8::new(it).unwrap()) {
            let mut values = HashSet::new();
            let each = 65_536 / usize::from(of.get());
            for number in 0..of.get() {
                let mut ids = Identification::new(42).only(Share { number, of });
                let before = values.len();
                // Those in a row lie in it, too.
                let first = ids.next(A, B, 17, 100);
                values.extend((0..100).map(|it| first.wrapping_add(it)));
                values.extend((0..each - 100).map(|_| ids.next(A, B, 17, 1)));
                assert!(values.len() - before >= each - 100, "{number} of {of}");
                // All that it has, at last, and nothing else.
                values.extend((0..each).map(|_| ids.next(A, B, 17, 1)));
                assert_eq!(values.len() - before, each, "{number} of {of}");
            }
        }
    }

    /// How many counters packets of `triples` use.
    fn used(key: u64, triples: impl Iterator<Item = (Ipv4Addr, Ipv4Addr, u8)>) -> usize {
        let mut ids = Identification::new(key);
        ids.counters.fill(0);
        for (src, dst, protocol) in triples {
            ids.next(src, dst, protocol, 1);
        }
        ids.counters.iter().filter(|it| **it != 0).count()
    }

    /// 256 triples in 4096 counters: some meet by chance, but not half of them.
    #[test]
    fn every_part_of_a_triple_matters_whatever_the_key() {
        let host = |last| Ipv4Addr::new(10, 0, 0, last);
        for key in [0, 0x5555_aaaa_0f0f_f0f0, u64::MAX] {
            assert!(used(key, (0..=255).map(|it| (A, B, it))) > 200);
            assert!(used(key, (0..=255).map(|it| (host(it), B, 17))) > 200);
            assert!(used(key, (0..=255).map(|it| (A, host(it), 17))) > 200);
        }
    }

    #[test]
    fn the_counter_depends_on_the_key() {
        let counter = |key| {
            let mut ids = Identification::new(key);
            ids.counters.fill(0);
            ids.next(A, B, 17, 1);
            ids.counters.iter().position(|it| *it != 0)
        };
        let counters: HashSet<_> = (0..64).map(counter).collect();
        assert!(counters.len() > 50);
    }

    /// What the reference of splitmix64 gives for the seeds 0 and 1234567.
    #[test]
    fn the_mixer_is_splitmix64s() {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        assert_eq!(mix(STEP), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(STEP + 1_234_567), 6_457_827_717_110_365_317);
    }

    #[test]
    fn counters_are_not_printed() {
        let text = format!("{:?}", Identification::new(1));
        assert_eq!(text, "Identification { .. }");
    }

    #[test]
    fn triples_count_apart() {
        let mut ids = Identification::new(42);
        let udp = ids.next(A, B, 17, 1);
        let starts: HashSet<_> = [(B, A, 17), (A, B, 6), (A, A, 17)]
            .map(|(src, dst, protocol)| ids.next(src, dst, protocol, 1))
            .into();
        assert!(starts.len() == 3 && !starts.contains(&udp));
        assert_eq!(ids.next(A, B, 17, 1), udp.wrapping_add(1));
    }
}
