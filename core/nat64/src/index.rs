//! [`Index`]: from a keyed hash to the place of an entry, as a rule by one cache line.
//!
//! A line has room for 15 entries: the place of each, and eight bits of its hash, by which
//! nearly all others are passed over without a look at them. An entry whose line is full goes into
//! the next one with room, and the lines on its way count it, so that a search knows where to end.
//!
//! The lines are in pages that grow each on its own and then split in two; a directory says which
//! page is for which part of the hashes (extendible hashing). So nothing is ever done to all
//! entries at once. The parts are of unequal size, lest all pages split at the same time: the
//! memory that is not used is a small part not only on average, but at every size.

use core::ops::Range;

use lines::{EMPTY, Lines, SLOTS};
use page::Page;

mod lines;
mod page;

/// Bits of a place; those of a word that are left have part of the hash.
const PLACE_BITS: u32 = 24;
const PLACE: u32 = (1 << PLACE_BITS) - 1;

/// The most parts that hashes are divided into, as a power of two. So many take 4 MiB.
const MAX_DEPTH: u32 = 20;

/// Places of entries, by their hash. The hash must be keyed, and good in all of its bits.
pub(crate) struct Index {
    /// For each part of the hashes, all of the same size as seen from here, the number of its page.
    directory: Vec<u32>,
    pages: Vec<Page>,
    lines: Lines,
    /// Entries whose page can neither grow nor split. With a good hash there are none.
    rest: Vec<(u64, u32)>,
    len: usize,
}

impl Index {
    /// The most entries that it can have: their places are below this.
    pub(crate) const MOST: usize = PLACE as usize;

    pub(crate) fn new() -> Self {
        Self {
            directory: vec![0],
            pages: vec![Page::default()],
            lines: Lines::default(),
            rest: Vec::new(),
            len: 0,
        }
    }

    /// The entry of this hash that is the `same`.
    pub(crate) fn find(&self, hash: u64, mut same: impl FnMut(u32) -> bool) -> Option<u32> {
        let page = &self.pages[self.page(hash)];
        for line in page.way(hash) {
            let line = &self.lines[line];
            let mut found = line.tagged(tag(hash));
            while found != 0 {
                let place = line.words[found.trailing_zeros() as usize] & PLACE;
                if same(place) {
                    return Some(place);
                }
                found &= found - 1;
            }
            if line.passed() == 0 {
                break;
            }
        }
        let mut rest = self.rest.iter().filter(|(other, _)| *other == hash);
        rest.find(|(_, place)| same(*place))
            .map(|(_, place)| *place)
    }

    /// The line that [`Self::find`] would look at first.
    pub(crate) fn home(&self, hash: u64) -> usize {
        self.pages[self.page(hash)].home(hash)
    }

    /// Reads a word of a line, only for it to be in the processor's cache.
    pub(crate) fn touch(&self, line: usize) -> u32 {
        self.lines[line].passed()
    }

    /// The entry that [`Self::find`] would look at first. It reads the index and no entry.
    pub(crate) fn guess(&self, hash: u64) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// Adds the entry in `place`, which must be below [`Self::MOST`].
    ///
    /// What is in the index already may have to be hashed again: `key_of` copies the key of the
    /// entry in a place, `hash_of` makes the hash of it.
    pub(crate) fn insert<K>(
        &mut self,
        hash: u64,
        place: u32,
        key_of: impl Fn(u32) -> K,
        hash_of: impl Fn(&K) -> u64,
    ) {
        self.add(hash, place, &key_of, &hash_of);
        self.len += 1;
    }

    /// Removes the entry in `place`, which must be there with this hash.
    pub(crate) fn remove(&mut self, hash: u64, place: u32) {
        self.len -= 1;
        if let Some(at) = self.rest.iter().position(|it| *it == (hash, place)) {
            self.rest.swap_remove(at);
            return;
        }
        let at = self.page(hash);
        let page = self.pages[at];
        for line in page.way(hash) {
            let line = &mut self.lines[line];
            if line.replace(word(hash, place), EMPTY) {
                self.pages[at].len -= 1;
                return;
            }
            line.words[SLOTS] -= 1;
        }
    }

    fn add<K>(
        &mut self,
        hash: u64,
        place: u32,
        key_of: &impl Fn(u32) -> K,
        hash_of: &impl Fn(&K) -> u64,
    ) {
        while self.pages[self.page(hash)].is_full() {
            if !self.make_room(hash, key_of, hash_of) {
                self.rest.push((hash, place));
                return;
            }
        }
        let at = self.page(hash);
        let page = self.pages[at];
        for line in page.way(hash) {
            let line = &mut self.lines[line];
            if line.replace(EMPTY, word(hash, place)) {
                self.pages[at].len += 1;
                return;
            }
            line.words[SLOTS] += 1;
        }
    }

    /// Adds to the page of a hash, or splits it. Whether it could be done.
    fn make_room<K>(
        &mut self,
        hash: u64,
        key_of: &impl Fn(u32) -> K,
        hash_of: &impl Fn(&K) -> u64,
    ) -> bool {
        let at = self.page(hash);
        if self.pages[at].is_large() && self.pages[at].depth() == MAX_DEPTH {
            return false;
        }
        // First all keys: so the entries, which lie anywhere in memory, are waited for together.
        let places = self.empty(at).into_iter();
        let entries: Vec<_> = places.map(|it| (it, key_of(it))).collect();
        if self.pages[at].is_large() {
            self.split(at, hash);
        } else {
            self.pages[at].add_block(&mut self.lines);
        }
        for (place, key) in entries {
            self.add(hash_of(&key), place, key_of, hash_of);
        }
        true
    }

    /// Takes the entries out of a page.
    fn empty(&mut self, at: usize) -> Vec<u32> {
        let page = &mut self.pages[at];
        let mut places = Vec::with_capacity(page.len.into());
        for line in page.lines() {
            places.extend(self.lines[line].entries().map(|word| word & PLACE));
            self.lines[line].clear();
        }
        page.len = 0;
        places
    }

    /// Makes two empty pages of the one of a hash, which is empty.
    fn split(&mut self, at: usize, hash: u64) {
        if self.pages[at].depth() == self.depth() {
            let parts = self.directory.iter().flat_map(|page| [*page; 2]);
            self.directory = parts.collect();
        }
        let second = self.pages[at].split(&mut self.lines);
        let depth = second.depth();
        let number = u32::try_from(self.pages.len()).unwrap_or(u32::MAX);
        self.pages.push(second);
        // The second half of the parts that were the page's.
        let width = 1 << (self.depth() - depth);
        let first = (part(hash, depth) | 1) * width;
        self.directory[first..first + width].fill(number);
    }

    fn page(&self, hash: u64) -> usize {
        self.directory[part(hash, self.depth())] as usize
    }

    /// There are two to the power of this parts.
    fn depth(&self) -> u32 {
        self.directory.len().trailing_zeros()
    }

    /// The addresses of its lines, which stay where they are.
    pub(crate) fn memory(&self) -> impl Iterator<Item = Range<usize>> {
        self.lines.memory()
    }

    /// Bytes of all that is in use.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.lines.bytes() + size_of_val(&self.directory[..]) + size_of_val(&self.pages[..])
    }
}

/// The part that a hash belongs to, among two to the power of `depth`.
///
/// Of the numbers from 0 to 1 that hashes are, u goes to u (2 + u) / 3. So at 0 parts get twice as
/// many hashes as at 1, and split when there are half as many entries: at any time, some do.
fn part(hash: u64, depth: u32) -> usize {
    const BITS: u32 = 30;
    let u = hash >> (u64::BITS - BITS);
    let skewed = u * ((2 << BITS) + u) / 3;
    usize::try_from(skewed >> (2 * BITS - depth)).unwrap_or(0)
}

/// Eight bits that choose neither the part nor the line.
fn tag(hash: u64) -> u32 {
    (low(hash) >> PLACE_BITS).min(0xfe)
}

fn word(hash: u64, place: u32) -> u32 {
    tag(hash) << PLACE_BITS | place & PLACE
}

#[expect(clippy::cast_possible_truncation, reason = "half of a hash")]
const fn low(hash: u64) -> u32 {
    hash as u32
}

impl core::fmt::Debug for Index {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Index({})", self.len)
    }
}

#[cfg(test)]
mod tests;
