//! The free ports of one address and protocol, and which of them may stand for which.

use core::{fmt, ops::Range};
use std::sync::Arc;

use crate::{
    bits::Bits,
    ports::{PortRange, PortSet},
    tuple::Protocol,
};

/// Ports under this are for well-known services (RFC 6146 §3.5.1.1).
pub(crate) const WELL_KNOWN: u16 = 1024;

/// Ports that may stand for each other: of the same parity, and of the same range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class {
    odd: bool,
    well_known: bool,
}

impl Class {
    pub(super) const COUNT: usize = 4;

    /// Every one, by its index.
    pub(super) const ALL: [Self; Self::COUNT] = [
        Self::new(false, false),
        Self::new(false, true),
        Self::new(true, false),
        Self::new(true, true),
    ];

    const fn new(odd: bool, well_known: bool) -> Self {
        Self { odd, well_known }
    }

    pub(super) const fn of(port: u16) -> Self {
        Self {
            odd: !port.is_multiple_of(2),
            well_known: port < WELL_KNOWN,
        }
    }

    pub(super) const fn index(self) -> usize {
        self.odd as usize * 2 + self.well_known as usize
    }

    const fn with_other_parity(self) -> Self {
        Self {
            odd: !self.odd,
            ..self
        }
    }

    const fn in_other_range(self) -> Self {
        Self {
            well_known: !self.well_known,
            ..self
        }
    }

    /// The classes that give a substitute for `wanted`, best first: the same range and, for UDP,
    /// the same parity (RFC 6146 §3.5.1.1, RFC 4787 REQ-3, REQ-4). Identifiers have neither. Parity
    /// and range give way before a client does, but none gets a well-known port that did not use
    /// one itself.
    pub(super) fn substitutes(
        protocol: Protocol,
        wanted: u16,
        random: u64,
    ) -> impl Iterator<Item = Self> {
        let [.., high, low] = random.to_be_bytes();
        let anything = Self::of(u16::from_be_bytes([high, low]));
        let own = Self::of(wanted);
        let best = match protocol {
            Protocol::Udp => own,
            Protocol::Tcp => Self {
                odd: anything.odd,
                ..own
            },
            Protocol::Icmp => anything,
        };
        let both_ranges = protocol == Protocol::Icmp || own.well_known;
        let in_range = [best, best.with_other_parity()];
        let in_other = in_range.map(Self::in_other_range);
        in_range
            .into_iter()
            .chain(in_other.into_iter().filter(move |_| both_ranges))
    }
}

/// Ports of a class at equal distances: every second one from `first` on.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: u16,
    len: u16,
    /// Where the first of them stands.
    place: u32,
}

impl Run {
    /// Its last port.
    const fn last(&self) -> u16 {
        self.first + 2 * (self.len - 1)
    }
}

/// Where each port of a set stands among the bits. Those of a class stand next to each other, in
/// order, so that any free one of it is found at once; and only ports of the set have a place, so
/// that a table of few ports is small. Addresses with the same ports share one.
#[derive(Debug)]
pub(super) struct Layout {
    /// By class, then by port.
    runs: Vec<Run>,
    /// The runs of each class, and their places.
    classes: [(Range<usize>, Range<usize>); Class::COUNT],
}

impl Layout {
    /// Of the ports of `set` that are `owned`.
    pub(super) fn new(set: &PortSet, owned: impl Fn(u16) -> bool) -> Self {
        let mut by_class: [Vec<Run>; Class::COUNT] = Default::default();
        for port in set.iter().filter(|port| owned(*port)) {
            let runs = &mut by_class[Class::of(port).index()];
            match runs.last_mut() {
                // Those at the border of the well-known ports are of other classes.
                Some(run) if u32::from(run.last()) + 2 == u32::from(port) => run.len += 1,
                Some(_) | None => runs.push(Run {
                    first: port,
                    len: 1,
                    place: 0,
                }),
            }
        }
        let (mut place, mut runs) = (0, Vec::new());
        let classes = by_class.map(|mut of_class| {
            let (first_run, first_place) = (runs.len(), place);
            for run in &mut of_class {
                run.place = place;
                place += u32::from(run.len);
            }
            runs.append(&mut of_class);
            (first_run..runs.len(), first_place as usize..place as usize)
        });
        runs.shrink_to_fit();
        Self { runs, classes }
    }

    fn len(&self) -> usize {
        self.classes[Class::COUNT - 1].1.end
    }

    fn runs_of(&self, class: Class) -> &[Run] {
        &self.runs[self.classes[class.index()].0.clone()]
    }

    fn places(&self, class: Class) -> Range<usize> {
        self.classes[class.index()].1.clone()
    }

    /// The places of the ports of `class` that lie in `range`.
    fn places_in(&self, class: Class, range: PortRange) -> Range<usize> {
        let end = u32::from(range.last()) + 1;
        self.from(class, range.first().into())..self.from(class, end)
    }

    /// The place of the first port of `class` from `port` on.
    fn from(&self, class: Class, port: u32) -> usize {
        let runs = self.runs_of(class);
        let at = runs.partition_point(|run| u32::from(run.last()) < port);
        match runs.get(at) {
            Some(run) => {
                let passed = port.saturating_sub(run.first.into()).div_ceil(2);
                (run.place + passed) as usize
            }
            None => self.places(class).end,
        }
    }

    fn place(&self, port: u16) -> Option<usize> {
        let runs = self.runs_of(Class::of(port));
        let run = runs.get(runs.partition_point(|run| run.last() < port))?;
        let passed = port.checked_sub(run.first)? / 2;
        Some((run.place + u32::from(passed)) as usize)
    }

    /// The opposite of [`Self::place`].
    fn port_at(&self, place: usize) -> Option<u16> {
        let behind = self.runs.partition_point(|run| run.place as usize <= place);
        let run = self.runs.get(behind.checked_sub(1)?)?;
        let passed = u16::try_from(place - run.place as usize).ok()?;
        (passed < run.len).then(|| run.first + 2 * passed)
    }
}

/// The free ports of one address and protocol.
pub(super) struct FreePorts {
    layout: Arc<Layout>,
    free: Bits,
    count: usize,
    /// The fewest that were free at once.
    fewest: usize,
}

impl FreePorts {
    /// All of them.
    pub(super) fn new(layout: Arc<Layout>) -> Self {
        let count = layout.len();
        let mut free = Bits::new(count);
        for place in 0..count {
            free.insert(place);
        }
        Self {
            layout,
            free,
            count,
            fewest: count,
        }
    }

    /// The most that were taken at once, since it was made and, as far as there are so many, in the
    /// `other` that [`Self::remember`] was given.
    pub(super) fn most_taken(&self) -> usize {
        self.len() - self.fewest
    }

    /// Goes on from what was taken in another one, which this one stands for from now on.
    pub(super) fn remember(&mut self, other: &Self) {
        let fewest = self.len().saturating_sub(other.most_taken());
        self.fewest = self.fewest.min(fewest);
    }

    /// How many are free.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// How many there are, free or not.
    pub(super) fn len(&self) -> usize {
        self.layout.len()
    }

    /// Whether `port` is one of them, free or not.
    pub(super) fn has(&self, port: u16) -> bool {
        self.layout.place(port).is_some()
    }

    pub(super) fn is_free(&self, port: u16) -> bool {
        let place = self.layout.place(port);
        place.is_some_and(|at| self.free.contains(at))
    }

    pub(super) fn has_any(&self, class: Class) -> bool {
        self.free.first_in(self.layout.places(class)).is_some()
    }

    /// Whether it was free.
    pub(super) fn take(&mut self, port: u16) -> bool {
        let place = self.layout.place(port);
        let Some(at) = place.filter(|at| self.free.contains(*at)) else {
            return false;
        };
        self.free.remove(at);
        self.count -= 1;
        self.fewest = self.fewest.min(self.count);
        true
    }

    /// Whether it is one of them and was taken.
    pub(super) fn release(&mut self, port: u16) -> bool {
        let place = self.layout.place(port);
        let Some(at) = place.filter(|at| !self.free.contains(*at)) else {
            return false;
        };
        self.free.insert(at);
        self.count += 1;
        true
    }

    /// A free port of `class`: the first one from a random one on (RFC 6056 §3.3.1).
    pub(super) fn find(&self, class: Class, random: u64) -> Option<u16> {
        self.find_at(self.layout.places(class), random)
    }

    /// The same, of those that lie in `range`.
    pub(super) fn find_in(&self, range: PortRange, class: Class, random: u64) -> Option<u16> {
        self.find_at(self.layout.places_in(class, range), random)
    }

    fn find_at(&self, places: Range<usize>, random: u64) -> Option<u16> {
        let start = places.start + reduce(random, places.len());
        self.layout.port_at(self.free.first_from(start, places)?)
    }
}

impl fmt::Debug for FreePorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} free", self.count)
    }
}

/// A random number under `limit`, of the upper half of `random`; the lower half is used otherwise.
pub(super) fn reduce(random: u64, limit: usize) -> usize {
    usize::try_from((random >> 32) % (limit as u64).max(1)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Every port of the set has a place of its own, next to those of its class; others have
        /// none, and none has more places than ports.
        #[test]
        fn ports_lie_in_their_classes(
            ranges in proptest::collection::vec((1u16..3000, 0u16..200), 0..5),
            (modulus, owned) in (1u16..5, 0u16..5),
            (first, len) in (1u16..3000, 0u16..300),
        ) {
            let set: PortSet = ranges
                .iter()
                .map(|(first, len)| PortRange::new(*first, first + len).unwrap())
                .collect();
            let owns = |port: u16| port / 16 % modulus == owned % modulus;
            let layout = Layout::new(&set, owns);
            let range = PortRange::new(first, first + len).unwrap();
            let mut seen = vec![false; layout.len()];
            for port in 0..4000 {
                let place = layout.place(port);
                prop_assert_eq!(place.is_some(), set.contains(port) && owns(port));
                let Some(place) = place else { continue };
                prop_assert!(!core::mem::replace(&mut seen[place], true));
                prop_assert_eq!(layout.port_at(place), Some(port));
                prop_assert!(layout.places(Class::of(port)).contains(&place));
                let in_range = layout.places_in(Class::of(port), range).contains(&place);
                prop_assert_eq!(in_range, range.contains(port));
            }
            prop_assert!(seen.into_iter().all(|it| it));
            prop_assert_eq!(layout.port_at(layout.len()), None);
        }
    }
}
