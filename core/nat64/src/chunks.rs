//! [`Chunks`]: entries that stay where they are while their number grows.

use core::ops::Range;

/// Entries per chunk. Of the last chunk, what was never used is not in memory: systems give out
/// pages as they are written to.
const PER_CHUNK: usize = if cfg!(test) { 1 << 8 } else { 1 << 18 };

/// The end of the list of free places.
const NONE: u32 = u32::MAX;

/// Entries by their place. Nothing is moved, or copied, to make room.
pub(crate) struct Chunks<T> {
    chunks: Vec<Vec<Slot<T>>>,
    /// The place that was left last.
    free: u32,
    len: usize,
}

enum Slot<T> {
    Taken(T),
    Free {
        /// The place that was left before.
        next: u32,
    },
}

impl<T> Chunks<T> {
    /// Bytes of an entry.
    #[cfg(test)]
    pub(crate) const BYTES_EACH: usize = size_of::<Slot<T>>();

    pub(crate) fn new() -> Self {
        Self {
            chunks: Vec::new(),
            free: NONE,
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The entry in a place; nothing if there is none.
    pub(crate) fn get(&self, place: u32) -> Option<&T> {
        let (chunk, at) = split(place);
        match self.chunks.get(chunk)?.get(at)? {
            Slot::Taken(entry) => Some(entry),
            Slot::Free { .. } => None,
        }
    }

    pub(crate) fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        let (chunk, at) = split(place);
        match self.chunks.get_mut(chunk)?.get_mut(at)? {
            Slot::Taken(entry) => Some(entry),
            Slot::Free { .. } => None,
        }
    }

    /// Adds an entry; its place.
    pub(crate) fn insert(&mut self, entry: T) -> u32 {
        self.len += 1;
        let place = self.free;
        let (chunk, at) = split(place);
        if let Some(slot) = self.chunks.get_mut(chunk).and_then(|it| it.get_mut(at)) {
            if let Slot::Free { next } = slot {
                self.free = *next;
            }
            *slot = Slot::Taken(entry);
            return place;
        }
        self.push(entry)
    }

    fn push(&mut self, entry: T) -> u32 {
        let has_room = |chunk: &Vec<_>| chunk.len() < PER_CHUNK;
        if !self.chunks.last().is_some_and(has_room) {
            self.chunks.push(Vec::with_capacity(PER_CHUNK));
        }
        let before = (self.chunks.len() - 1) * PER_CHUNK;
        let Some(last) = self.chunks.last_mut() else {
            return NONE;
        };
        last.push(Slot::Taken(entry));
        u32::try_from(before + last.len() - 1).unwrap_or(NONE)
    }

    /// Takes out the entry in a place.
    pub(crate) fn remove(&mut self, place: u32) -> Option<T> {
        let (chunk, at) = split(place);
        let slot = self.chunks.get_mut(chunk)?.get_mut(at)?;
        let next = self.free;
        match core::mem::replace(slot, Slot::Free { next }) {
            Slot::Taken(entry) => {
                self.free = place;
                self.len -= 1;
                Some(entry)
            }
            free @ Slot::Free { .. } => {
                *slot = free;
                None
            }
        }
    }

    /// The addresses of the memory that is in use, which stays where it is.
    pub(crate) fn memory(&self) -> impl Iterator<Item = Range<usize>> {
        self.chunks.iter().map(|chunk| addresses(chunk))
    }

    /// The entries from a place on, in order, each with its place.
    pub(crate) fn from(&self, place: usize) -> impl Iterator<Item = (u32, &T)> {
        let (first, at) = (place / PER_CHUNK, place % PER_CHUNK);
        let chunks = self.chunks.iter().enumerate().skip(first);
        let slots = chunks.flat_map(move |(chunk, slots)| {
            let skipped = if chunk == first { at } else { 0 };
            let slots = slots.iter().enumerate().skip(skipped);
            slots.map(move |(at, slot)| (chunk * PER_CHUNK + at, slot))
        });
        slots.filter_map(|(place, slot)| match slot {
            Slot::Taken(entry) => Some((u32::try_from(place).ok()?, entry)),
            Slot::Free { .. } => None,
        })
    }
}

impl<T> core::ops::Index<u32> for Chunks<T> {
    type Output = T;

    /// # Panics
    /// If there is nothing in this place.
    fn index(&self, place: u32) -> &T {
        match self.get(place) {
            Some(entry) => entry,
            None => nothing_in(place),
        }
    }
}

impl<T> core::ops::IndexMut<u32> for Chunks<T> {
    fn index_mut(&mut self, place: u32) -> &mut T {
        match self.get_mut(place) {
            Some(entry) => entry,
            None => nothing_in(place),
        }
    }
}

/// Where entries are.
pub(crate) fn addresses<T>(entries: &[T]) -> Range<usize> {
    let Range { start, end } = entries.as_ptr_range();
    start.addr()..end.addr()
}

#[cold]
fn nothing_in(place: u32) -> ! {
    unreachable!("nothing in place {place}")
}

const fn split(place: u32) -> (usize, usize) {
    let place = place as usize;
    (place / PER_CHUNK, place % PER_CHUNK)
}

impl<T> core::fmt::Debug for Chunks<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Chunks({})", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Against a map; so many at once that several chunks are used.
        #[test]
        fn equals_a_map(
            steps in proptest::collection::vec((any::<bool>(), 1usize..500), 1..12),
            from in any::<prop::sample::Index>(),
        ) {
            let mut chunks = Chunks::new();
            let mut model = BTreeMap::new();
            for (round, (insert, count)) in steps.into_iter().enumerate() {
                if insert {
                    for n in 0..count {
                        let place = chunks.insert((round, n));
                        prop_assert_eq!(model.insert(place, (round, n)), None);
                    }
                } else {
                    let gone: Vec<_> = model.keys().copied().step_by(1 + count % 7).collect();
                    for place in gone {
                        prop_assert_eq!(chunks.remove(place), model.remove(&place));
                        prop_assert_eq!(chunks.remove(place), None);
                    }
                }
                prop_assert_eq!(chunks.len(), model.len());
            }
            let from = from.index(1500);
            let wanted = model.range(u32::try_from(from).unwrap()..);
            prop_assert!(chunks.from(from).eq(wanted.map(|(place, it)| (*place, it))));
            for (place, entry) in &model {
                prop_assert_eq!(chunks.get(*place), Some(entry));
            }
            prop_assert_eq!(chunks.get(u32::MAX), None);
        }
    }
}
