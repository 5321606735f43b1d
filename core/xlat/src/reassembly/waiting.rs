//! [`Waiting`]: the incomplete datagrams, and which of them waits longest: of all, of a network, of
//! an address.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use hashbrown::{HashMap, hash_map::Entry};

use super::{Datagram, DatagramKey};
use crate::key::Key;

/// Whose datagrams stand in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    /// Those of an IPv4 address.
    V4(Ipv4Addr),
    /// Those of an IPv6 address.
    V6(Ipv6Addr),
    /// Those of a /64.
    Network([u8; 8]),
    /// All.
    Everybody,
}

/// How many lines a datagram stands in at most.
const LINES: usize = 3;

impl DatagramKey {
    /// The lines that a datagram stands in, from the narrowest on. Each has the same place for all
    /// of them that stand in it.
    pub(super) fn lines(&self) -> [Option<Whose>; LINES] {
        let (address, network) = match self {
            Self::V4 { src, .. } => (Whose::V4(*src), None),
            Self::V6 { src, .. } => {
                let [a, b, c, d, e, f, g, h, ..] = src.octets();
                let network = Whose::Network([a, b, c, d, e, f, g, h]);
                (Whose::V6(*src), Some(network))
            }
        };
        [Some(address), network, Some(Whose::Everybody)]
    }
}

/// Datagrams in the order of their arrival.
#[derive(Clone, Copy, Debug)]
struct Line {
    oldest: DatagramKey,
    newest: DatagramKey,
    len: usize,
}

/// Who stands before and behind a datagram in a line.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    older: Option<DatagramKey>,
    newer: Option<DatagramKey>,
}

#[derive(Debug)]
struct Waiter {
    datagram: Datagram,
    deadline: Instant,
    places: [Place; LINES],
}

/// The datagrams that wait for fragments. To find the oldest of a line, to join and to leave it costs
/// the same however long it is: whoever sends fragments chooses how long.
#[derive(Debug)]
pub(super) struct Waiting {
    datagrams: HashMap<DatagramKey, Waiter, Key>,
    lines: HashMap<Whose, Line, Key>,
}

impl Waiting {
    pub(super) fn new(key: Key) -> Self {
        Self {
            datagrams: HashMap::with_hasher(key),
            lines: HashMap::with_hasher(key),
        }
    }

    /// How many stand in a line.
    pub(super) fn len(&self, whose: Whose) -> usize {
        self.lines.get(&whose).map_or(0, |line| line.len)
    }

    /// The one that has waited longest.
    pub(super) fn oldest(&self, whose: Whose) -> Option<DatagramKey> {
        self.lines.get(&whose).map(|line| line.oldest)
    }

    /// When the one that has waited longest of all runs out of time.
    pub(super) fn next_deadline(&self) -> Option<(DatagramKey, Instant)> {
        let oldest = self.oldest(Whose::Everybody)?;
        Some((oldest, self.datagrams.get(&oldest)?.deadline))
    }

    pub(super) fn contains(&self, key: &DatagramKey) -> bool {
        self.datagrams.contains_key(key)
    }

    pub(super) fn get(&self, key: &DatagramKey) -> Option<&Datagram> {
        self.datagrams.get(key).map(|it| &it.datagram)
    }

    pub(super) fn get_mut(&mut self, key: &DatagramKey) -> Option<&mut Datagram> {
        self.datagrams.get_mut(key).map(|it| &mut it.datagram)
    }

    /// A new datagram joins its lines, unless it is there.
    pub(super) fn join(&mut self, key: DatagramKey, deadline: Instant) {
        if self.contains(&key) {
            return;
        }
        let mut places = [Place::default(); LINES];
        for (at, whose) in key.lines().into_iter().enumerate() {
            if let Some(whose) = whose {
                places[at].older = self.append(at, whose, key);
            }
        }
        let waiter = Waiter {
            datagram: Datagram::default(),
            deadline,
            places,
        };
        self.datagrams.insert(key, waiter);
    }

    /// Adds to the end of a line. Returns whom it stands behind.
    fn append(&mut self, at: usize, whose: Whose, key: DatagramKey) -> Option<DatagramKey> {
        let before = match self.lines.entry(whose) {
            Entry::Vacant(line) => {
                line.insert(Line {
                    oldest: key,
                    newest: key,
                    len: 1,
                });
                return None;
            }
            Entry::Occupied(mut line) => {
                let line = line.get_mut();
                line.len += 1;
                core::mem::replace(&mut line.newest, key)
            }
        };
        self.place(at, &before, |place| place.newer = Some(key));
        Some(before)
    }

    /// A datagram leaves all lines.
    pub(super) fn leave(&mut self, key: &DatagramKey) -> Option<Datagram> {
        let Waiter {
            datagram, places, ..
        } = self.datagrams.remove(key)?;
        for (at, whose) in key.lines().into_iter().enumerate() {
            if let Some(whose) = whose {
                self.close_up(at, whose, places[at]);
            }
        }
        Some(datagram)
    }

    /// Closes the gap that `left` is in a line.
    fn close_up(&mut self, at: usize, whose: Whose, left: Place) {
        let Place { older, newer } = left;
        if let Some(older) = older {
            self.place(at, &older, |place| place.newer = newer);
        }
        if let Some(newer) = newer {
            self.place(at, &newer, |place| place.older = older);
        }
        if older.is_none() && newer.is_none() {
            self.lines.remove(&whose);
            return;
        }
        if let Some(line) = self.lines.get_mut(&whose) {
            line.len -= 1;
            line.oldest = if older.is_none() { newer } else { None }.unwrap_or(line.oldest);
            line.newest = if newer.is_none() { older } else { None }.unwrap_or(line.newest);
        }
    }

    fn place(&mut self, at: usize, key: &DatagramKey, change: impl FnOnce(&mut Place)) {
        if let Some(waiter) = self.datagrams.get_mut(key) {
            change(&mut waiter.places[at]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(v6: bool, network: u16, host: u16, id: u16) -> DatagramKey {
        if v6 {
            let src = Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host);
            let (dst, id) = (Ipv6Addr::LOCALHOST, id.into());
            return DatagramKey::V6 { src, dst, id };
        }
        DatagramKey::V4 {
            src: Ipv4Addr::new(192, 0, network as u8, host as u8),
            dst: Ipv4Addr::LOCALHOST,
            protocol: 17,
            id,
        }
    }

    impl Waiting {
        /// Every datagram.
        pub(in crate::reassembly) fn all(&self) -> impl Iterator<Item = &Datagram> {
            self.datagrams.values().map(|it| &it.datagram)
        }
    }

    /// A line from its oldest on, and back from its newest.
    fn walk(waiting: &Waiting, whose: Whose) -> Vec<DatagramKey> {
        let Some(line) = waiting.lines.get(&whose) else {
            return Vec::new();
        };
        let place = |key: &DatagramKey| {
            let at = key.lines().iter().position(|it| *it == Some(whose));
            waiting.datagrams[key].places[at.unwrap()]
        };
        let next = |key: &DatagramKey| place(key).newer;
        let there: Vec<_> = std::iter::successors(Some(line.oldest), next).collect();
        let next = |key: &DatagramKey| place(key).older;
        let mut back: Vec<_> = std::iter::successors(Some(line.newest), next).collect();
        back.reverse();
        assert_eq!((&there, there.len()), (&back, line.len));
        there
    }

    proptest! {
        /// Against a list that is searched.
        #[test]
        fn plat_5_3_01_lines_equal_a_list(
            steps in proptest::collection::vec(
                (any::<bool>(), any::<bool>(), 0u16..2, 0u16..2, 0u16..3), 0..120,
            ),
        ) {
            #[expect(clippy::disallowed_methods, reason = "virtual time needs an origin")]
            let now = Instant::now();
            let mut waiting = Waiting::new(Key::new([3; 16]));
            let mut model: Vec<DatagramKey> = Vec::new();
            for (joins, v6, network, host, id) in steps {
                let key = key(v6, network, host, id);
                if joins {
                    waiting.join(key, now);
                    if !model.contains(&key) {
                        model.push(key);
                    }
                } else {
                    prop_assert_eq!(waiting.leave(&key).is_some(), model.contains(&key));
                    model.retain(|it| *it != key);
                }
                for whose in key.lines().into_iter().flatten() {
                    let mut of = model.clone();
                    of.retain(|it| it.lines().contains(&Some(whose)));
                    prop_assert_eq!(waiting.oldest(whose), of.first().copied());
                    prop_assert_eq!(waiting.len(whose), of.len());
                    prop_assert_eq!(walk(&waiting, whose), of);
                }
            }
            for key in model {
                waiting.leave(&key);
            }
            prop_assert!(waiting.lines.is_empty() && waiting.datagrams.is_empty());
        }
    }
}
