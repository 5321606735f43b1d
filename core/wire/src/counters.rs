//! Counters that one thread writes and any thread reads.

use core::{
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::verdict::Reason;

/// A count that only grows. One thread adds to it; adding costs no locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only ever called by one thread at a time.
    pub fn add(&self, n: u64) {
        let value = self.0.load(Ordering::Relaxed).wrapping_add(n);
        self.0.store(value, Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A counter for every reason of one kind.
#[derive(Debug)]
pub struct ReasonCounters<R> {
    counters: Box<[Counter]>,
    reason: PhantomData<fn(R)>,
}

impl<R: Reason> ReasonCounters<R> {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            counters: R::ALL.iter().map(|_| Counter::default()).collect(),
            reason: PhantomData,
        }
    }

    /// Counts one more.
    pub fn count(&self, reason: R) {
        self.add(reason, 1);
    }

    /// Counts `count` more.
    pub fn add(&self, reason: R, count: u64) {
        if let Some(counter) = self.counters.get(reason.index()) {
            counter.add(count);
        }
    }

    /// How often `reason` was counted.
    #[must_use]
    pub fn get(&self, reason: R) -> u64 {
        self.counters.get(reason.index()).map_or(0, Counter::get)
    }

    /// The reasons that were counted at all.
    pub fn nonzero(&self) -> impl Iterator<Item = (R, u64)> + '_ {
        R::ALL
            .iter()
            .map(|reason| (*reason, self.get(*reason)))
            .filter(|(_, count)| *count != 0)
    }

    /// The sum over all reasons.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counters.iter().map(Counter::get).sum()
    }
}

/// One line for every reason that was counted: how often, its code, its sentence.
impl<R: Reason> core::fmt::Display for ReasonCounters<R> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (reason, count) in self.nonzero() {
            writeln!(f, "  {count} {}: {}", reason.code(), reason.explain())?;
        }
        Ok(())
    }
}

impl<R: Reason> Default for ReasonCounters<R> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::drop_reasons! {
        enum Why {
            Old = "old": "It is old.",
            New = "new": "It is new.",
        }
    }

    #[test]
    fn every_reason_has_its_counter() {
        let counters = ReasonCounters::new();
        counters.count(Why::New);
        counters.add(Why::New, 1);
        assert_eq!((counters.get(Why::Old), counters.get(Why::New)), (0, 2));
        assert_eq!(counters.nonzero().collect::<Vec<_>>(), [(Why::New, 2)]);
        assert_eq!(counters.total(), 2);
        assert_eq!(counters.to_string(), "  2 new: It is new.\n");
    }
}
