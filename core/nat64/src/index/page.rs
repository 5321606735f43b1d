//! Pages of an index.

use super::{
    PLACE,
    lines::{BLOCK, Lines, SLOTS},
    low,
};

/// Blocks of a page that is split when they are full.
const MOST_BLOCKS: usize = 5;

/// Blocks of each of the two pages that become of it. So pages grow by a third, a quarter, a fifth.
const HALF: usize = MOST_BLOCKS.div_ceil(2);

/// Entries per block, on average, of a page that is full: of 16 slots one is free.
const FULL: usize = BLOCK * SLOTS * 15 / 16;

/// The lines for one part of the hashes.
#[derive(Clone, Copy, Default)]
pub(super) struct Page {
    /// The blocks that its lines are in: the first so many of these.
    blocks: [u32; MOST_BLOCKS],
    count: u8,
    /// Two to the power of this parts as large as its own are all hashes.
    depth: u8,
    pub(super) len: u16,
}

impl Page {
    pub(super) fn is_full(&self) -> bool {
        usize::from(self.len) >= usize::from(self.count) * FULL
    }

    /// Whether it can only be split.
    pub(super) fn is_large(&self) -> bool {
        usize::from(self.count) == MOST_BLOCKS
    }

    pub(super) fn depth(&self) -> u32 {
        self.depth.into()
    }

    /// Adds lines to a page that is empty and not large.
    pub(super) fn add_block(&mut self, lines: &mut Lines) {
        self.blocks[usize::from(self.count)] = lines.add_block();
        self.count += 1;
    }

    /// Gives lines of a page that is empty and large to another one.
    pub(super) fn split(&mut self, lines: &mut Lines) -> Self {
        self.depth += 1;
        let mut other = Self {
            depth: self.depth,
            ..Self::default()
        };
        for block in &self.blocks[HALF..] {
            other.blocks[usize::from(other.count)] = *block;
            other.count += 1;
        }
        while usize::from(other.count) < HALF {
            other.add_block(lines);
        }
        self.count = other.count;
        other
    }

    /// The lines in which an entry of this hash may be, in the order in which they are tried.
    pub(super) fn way(&self, hash: u64) -> impl Iterator<Item = usize> {
        let home = self.place_of(hash);
        let all = home..usize::from(self.count) * BLOCK;
        all.chain(0..home).map(|at| self.line(at))
    }

    /// The first of them. The page must have lines.
    pub(super) fn home(&self, hash: u64) -> usize {
        self.line(self.place_of(hash))
    }

    /// Where in the page it is.
    fn place_of(&self, hash: u64) -> usize {
        let count = usize::from(self.count) * BLOCK;
        ((low(hash) & PLACE) as usize * count) >> PLACE.count_ones()
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = usize> {
        let count = usize::from(self.count) * BLOCK;
        (0..count).map(|at| self.line(at))
    }

    fn line(&self, at: usize) -> usize {
        self.blocks[at / BLOCK] as usize * BLOCK + at % BLOCK
    }
}
