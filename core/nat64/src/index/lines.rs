//! The lines of an index, in memory that is never moved.

use core::ops::Range;

use super::PLACE_BITS;
use crate::chunks::addresses;

/// Entries per line. The rest of its 64 bytes is a counter.
pub(super) const SLOTS: usize = 15;

/// Lines that are given out together.
pub(super) const BLOCK: usize = 8;

/// Lines that memory is asked for at a time: 16 MiB. Systems give it page by page as it is written
/// to.
const PER_CHUNK: usize = 1 << 18;

/// A word without an entry. No tag has all bits set.
pub(super) const EMPTY: u32 = u32::MAX;

/// One cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Line {
    /// Tag and place of each entry; and how many entries belong here or before, and are further on.
    pub(super) words: [u32; SLOTS + 1],
}

impl Line {
    const EMPTY: Self = {
        let mut words = [EMPTY; SLOTS + 1];
        words[SLOTS] = 0;
        Self { words }
    };

    /// The slots with this tag, as a bit each.
    pub(super) fn tagged(&self, tag: u32) -> u32 {
        let mut found = 0;
        for (at, word) in self.words.iter().enumerate() {
            found |= u32::from(word >> PLACE_BITS == tag) << at;
        }
        found & ((1 << SLOTS) - 1)
    }

    pub(super) fn passed(&self) -> u32 {
        self.words[SLOTS]
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = u32> {
        let words = self.words[..SLOTS].iter().copied();
        words.filter(|word| *word != EMPTY)
    }

    /// Whether there was such a word.
    pub(super) fn replace(&mut self, word: u32, by: u32) -> bool {
        let mut found = 0;
        for (at, it) in self.words.iter().enumerate() {
            found |= u32::from(*it == word) << at;
        }
        let at = found.trailing_zeros() as usize;
        if at < SLOTS {
            self.words[at] = by;
        }
        at < SLOTS
    }

    pub(super) fn clear(&mut self) {
        *self = Self::EMPTY;
    }
}

/// All lines of an index.
#[derive(Default)]
pub(super) struct Lines(Vec<Vec<Line>>);

impl Lines {
    /// The number of a new block of empty lines. Its lines are numbered from [`BLOCK`] times that.
    pub(super) fn add_block(&mut self) -> u32 {
        let has_room = |chunk: &Vec<_>| chunk.len() < PER_CHUNK;
        if !self.0.last().is_some_and(has_room) {
            self.0.push(Vec::with_capacity(PER_CHUNK));
        }
        let before = (self.0.len() - 1) * PER_CHUNK;
        let mut first = before;
        if let Some(last) = self.0.last_mut() {
            first += last.len();
            last.extend_from_slice(&[Line::EMPTY; BLOCK]);
        }
        u32::try_from(first / BLOCK).unwrap_or(u32::MAX)
    }

    /// The addresses of those that are in use, which stay where they are.
    pub(super) fn memory(&self) -> impl Iterator<Item = Range<usize>> {
        self.0.iter().map(|chunk| addresses(chunk))
    }

    /// Bytes of those that are in use.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|chunk| size_of_val(&chunk[..])).sum()
    }
}

impl core::ops::Index<usize> for Lines {
    type Output = Line;

    fn index(&self, line: usize) -> &Line {
        &self.0[line / PER_CHUNK][line % PER_CHUNK]
    }
}

impl core::ops::IndexMut<usize> for Lines {
    fn index_mut(&mut self, line: usize) -> &mut Line {
        &mut self.0[line / PER_CHUNK][line % PER_CHUNK]
    }
}
