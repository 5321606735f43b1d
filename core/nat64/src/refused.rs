//! [`RefusedList`]: who was refused something, within bounds.

use hashbrown::HashMap;
use xlat::key::Key;

use crate::{network6::Network6, reason::DropReason, session::Tick};

/// A subscriber that was refused something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) packets: u64,
    pub(crate) first: Tick,
    pub(crate) last: Tick,
    /// Why, the last time.
    pub(crate) why: DropReason,
}

/// Refused subscribers that are remembered.
const REMEMBERED: usize = 256;

/// The refused. When there are as many as are remembered, the one that was refused longest ago makes
/// room for another, but only for one in a second: whoever invents sources neither pushes out all
/// that was known nor has us search the list for each packet. The counters count everything.
#[derive(Debug)]
pub(crate) struct RefusedList {
    known: HashMap<Network6, Refused, Key>,
    /// When somebody made room last.
    forgot: Option<Tick>,
}

impl RefusedList {
    pub(crate) fn new(key: Key) -> Self {
        Self {
            known: HashMap::with_hasher(key),
            forgot: None,
        }
    }

    pub(crate) fn note(&mut self, network: Network6, why: DropReason, now: Tick) {
        if let Some(known) = self.known.get_mut(&network) {
            known.packets = known.packets.saturating_add(1);
            known.last = now;
            known.why = why;
            return;
        }
        if self.known.len() >= REMEMBERED && !self.make_room(now) {
            return;
        }
        let refused = Refused {
            packets: 1,
            first: now,
            last: now,
            why,
        };
        self.known.insert(network, refused);
    }

    fn make_room(&mut self, now: Tick) -> bool {
        if self.forgot == Some(now) {
            return false;
        }
        self.forgot = Some(now);
        let oldest = self.known.iter().min_by_key(|(_, it)| it.last);
        let oldest = oldest.map(|(network, _)| *network);
        oldest.is_some_and(|it| self.known.remove(&it).is_some())
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Network6, Refused)> {
        self.known.iter().map(|(network, it)| (*network, *it))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(n: u16) -> Network6 {
        Network6::around([0x2001, 0xdb8, 0, n, 0, 0, 0, 1].into(), 64)
    }

    #[test]
    fn natb_6888_02_the_refused_are_remembered_within_bounds() {
        let mut all = RefusedList::new(Key::new([1; 16]));
        for n in 0..300 {
            all.note(network(n), DropReason::SubscriberBindings, n.into());
        }
        all.note(network(299), DropReason::AddressRate, 400);
        let mut known: Vec<_> = all.iter().collect();
        known.sort_by_key(|(network, _)| *network);
        assert_eq!(known.len(), REMEMBERED);
        assert_eq!(known[0].0, network(44));
        let last = Refused {
            packets: 2,
            first: 299,
            last: 400,
            why: DropReason::AddressRate,
        };
        assert_eq!(known[255].1, last);
    }

    /// Sources that somebody invents do not push out those that are known.
    #[test]
    fn natb_6888_02_one_newcomer_a_second_when_the_list_is_full() {
        let mut all = RefusedList::new(Key::new([1; 16]));
        for n in 0..1000 {
            all.note(network(n), DropReason::ClientRefused, 7);
        }
        let of_first = |all: &RefusedList| all.iter().filter(|it| it.0 < network(256)).count();
        assert_eq!((of_first(&all), all.iter().count()), (255, 256));
        all.note(network(2000), DropReason::ClientRefused, 8);
        assert!(all.iter().any(|it| it.0 == network(2000)));
    }
}
