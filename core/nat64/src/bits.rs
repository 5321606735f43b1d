//! [`Bits`]: a set of small numbers in which the next member is found without a walk.

use core::ops::Range;

/// Members per word.
const WORD: usize = u64::BITS as usize;

/// A set of numbers under a limit, as a bit for each.
///
/// A second level has a bit for every word that is not empty. So finding a member costs the same
/// in a full, an empty and a sparse set: a look at two words, and at one of the second level for
/// every 4096 numbers that are passed over.
#[derive(Clone)]
pub(crate) struct Bits {
    words: Box<[u64]>,
    summary: Box<[u64]>,
}

impl Bits {
    /// An empty set of numbers under `limit`.
    pub(crate) fn new(limit: usize) -> Self {
        let words = limit.div_ceil(WORD);
        Self {
            words: vec![0; words].into(),
            summary: vec![0; words.div_ceil(WORD)].into(),
        }
    }

    pub(crate) fn contains(&self, n: usize) -> bool {
        self.words[n / WORD] >> (n % WORD) & 1 != 0
    }

    pub(crate) fn insert(&mut self, n: usize) {
        let word = n / WORD;
        self.words[word] |= 1 << (n % WORD);
        self.summary[word / WORD] |= 1 << (word % WORD);
    }

    pub(crate) fn remove(&mut self, n: usize) {
        let word = n / WORD;
        self.words[word] &= !(1 << (n % WORD));
        if self.words[word] == 0 {
            self.summary[word / WORD] &= !(1 << (word % WORD));
        }
    }

    /// The least member in `range`.
    pub(crate) fn first_in(&self, range: Range<usize>) -> Option<usize> {
        let at = range.start / WORD;
        let here = self.words.get(at)? & ahead(range.start);
        let (at, word) = if here != 0 {
            (at, here)
        } else {
            let at = self.first_word(at + 1)?;
            (at, self.words[at])
        };
        let found = at * WORD + word.trailing_zeros() as usize;
        (found < range.end).then_some(found)
    }

    /// The first member of `range` that comes after `start`, around its end.
    pub(crate) fn first_from(&self, start: usize, range: Range<usize>) -> Option<usize> {
        self.first_in(start..range.end)
            .or_else(|| self.first_in(range.start..start))
    }

    /// The first word from `from` on that is not empty.
    fn first_word(&self, from: usize) -> Option<usize> {
        let at = from / WORD;
        let here = self.summary.get(at)? & ahead(from);
        let (at, word) = if here != 0 {
            (at, here)
        } else {
            let behind = self.summary.iter().enumerate().skip(at + 1);
            behind
                .map(|(at, word)| (at, *word))
                .find(|(_, word)| *word != 0)?
        };
        Some(at * WORD + word.trailing_zeros() as usize)
    }
}

impl core::fmt::Debug for Bits {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let members: u32 = self.words.iter().map(|word| word.count_ones()).sum();
        write!(f, "Bits({members})")
    }
}

/// The bits of a word from that of `n` on.
const fn ahead(n: usize) -> u64 {
    u64::MAX << (n % WORD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Against an ordered set, over the limits of words and of words of the second level.
        #[test]
        fn equals_a_set(
            limit in 1usize..20_000,
            steps in proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..60),
            ends in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        ) {
            let mut bits = Bits::new(limit);
            let mut model = BTreeSet::new();
            for (insert, n) in steps {
                let n = n.index(limit);
                if insert {
                    bits.insert(n);
                    model.insert(n);
                } else {
                    bits.remove(n);
                    model.remove(&n);
                }
                prop_assert_eq!(bits.contains(n), insert);
            }
            let (a, b) = (ends.0.index(limit + 1), ends.1.index(limit + 1));
            let range = a.min(b)..a.max(b);
            let wanted = model.range(range.clone()).next().copied();
            prop_assert_eq!(bits.first_in(range), wanted);
            let (before, after) = (model.range(..a).next(), model.range(a..).next());
            prop_assert_eq!(bits.first_from(a, 0..limit), after.or(before).copied());
        }
    }
}
