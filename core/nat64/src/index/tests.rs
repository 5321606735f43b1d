use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

/// What a table does with its index: entries that are the same have the same hash.
#[derive(Default)]
struct Table {
    hashes: HashMap<u32, u64>,
    free: Vec<u32>,
}

impl Table {
    fn place(&mut self) -> u32 {
        let next = u32::try_from(self.hashes.len()).unwrap();
        self.free.pop().unwrap_or(next)
    }

    fn insert(&mut self, index: &mut Index, hash: u64) {
        let place = self.place();
        index.insert(hash, place, |place| self.hashes[&place], |hash| *hash);
        self.hashes.insert(place, hash);
    }

    fn remove(&mut self, index: &mut Index, place: u32) {
        index.remove(self.hashes[&place], place);
        self.hashes.remove(&place);
        self.free.push(place);
    }

    /// Every entry is found by its hash, and nothing by others.
    fn check(&self, index: &Index) {
        assert_eq!(index.len, self.hashes.len());
        for (place, hash) in &self.hashes {
            let found = index.find(*hash, |it| it == *place);
            assert_eq!(found, Some(*place), "of {}", index.len);
        }
        for n in 0..100 {
            let hash = mix(n ^ 0xdead_beef_0000);
            let same = |it: u32| self.hashes[&it] == hash;
            assert_eq!(index.find(hash, same), None);
        }
        let pages: usize = index.pages.iter().map(|it| usize::from(it.len)).sum();
        assert_eq!(pages + index.rest.len(), self.hashes.len());
    }
}

/// A good hash of a number.
fn mix(n: u64) -> u64 {
    let mut hash = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

type Step = (bool, usize, u64);

/// Against a map: adds so many entries, or removes some at random.
fn equals_a_map(steps: Vec<Step>, mask: u64) {
    let mut index = Index::new();
    let mut table = Table::default();
    for (insert, count, seed) in steps {
        if insert {
            for n in 0..count as u64 {
                table.insert(&mut index, mix(seed ^ n) & mask | !mask);
            }
        } else {
            let mut gone: Vec<_> = table.hashes.keys().copied().collect();
            gone.sort_unstable_by_key(|place| mix(seed ^ u64::from(*place)));
            for place in gone.into_iter().take(count) {
                table.remove(&mut index, place);
            }
        }
        table.check(&index);
    }
}

fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec((any::<bool>(), 1..count, any::<u64>()), 1..12)
}

proptest! {
    /// Through growth and splits.
    #[test]
    fn equals_a_map_while_it_grows(steps in steps(3000)) {
        equals_a_map(steps, u64::MAX);
    }

    /// With hashes that differ in few bits or none, so that lines overflow into each other, around
    /// the end too.
    #[test]
    fn equals_a_map_with_poor_hashes(
        mask in prop_oneof![Just(0), any::<u64>(), Just(0xff00_0000), Just(7 << 61)],
        steps in steps(60),
    ) {
        equals_a_map(steps, mask);
    }
}

/// Entries that are gone leave nothing behind: neither a word nor a count.
#[test]
fn an_index_that_is_emptied_is_as_new() {
    let mut index = Index::new();
    let mut table = Table::default();
    for n in 0..10_000 {
        table.insert(&mut index, mix(n));
    }
    for place in 0..10_000 {
        table.remove(&mut index, place);
    }
    let mut lines: Vec<_> = index.pages.iter().flat_map(Page::lines).collect();
    lines.sort_unstable();
    assert!(lines.len() > 10_000 / SLOTS);
    assert!(
        lines.iter().copied().eq(0..lines.len()),
        "each is of one page"
    );
    for line in lines {
        assert_eq!(index.lines[line].entries().count(), 0);
        assert_eq!(index.lines[line].passed(), 0);
    }
}

/// At any size: not only on average, and not only before it grows.
#[test]
fn memory_is_in_proportion() {
    let mut index = Index::new();
    for n in 0..300_000 {
        let place = u32::try_from(n).unwrap();
        index.insert(mix(n), place, |it| it, |it| mix((*it).into()));
        let each = index.bytes() as f64 / index.len as f64;
        assert!(n < 500 || each < 6.2, "{n}: {each}");
        assert!(n < 100_000 || each < 5.7, "{n}: {each}");
    }
}

#[test]
fn a_guess_reads_no_entry() {
    let mut index = Index::new();
    index.insert(mix(1), 5, |_| 0, |_| 0);
    assert_eq!(index.guess(mix(1)), Some(5));
    assert_eq!(index.guess(mix(2)), None);
}
