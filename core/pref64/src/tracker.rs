//! [`Tracker`]: which NAT64 prefixes hold on each interface right now.
//!
//! Prefixes come from three sources, and only the best source that has any is used: what a person
//! configured, then router advertisements, then DNS (RFC 8781 §5.1, RFC 9872 §3.1). The others are
//! remembered, so that what is known of the next best takes over the moment the best one is gone, and
//! so that a late router advertisement replaces a DNS result. Each such move is a
//! [`Change::Preferred`]. For something to be known by DNS it must have been asked: that is due when
//! [`Tracker::needs_dns`] says so, before the last better prefix is over.
//!
//! ```text
//! ra(), dns(), manual() -> changes          usable() -> the prefixes to use, in order
//! next_expiry() -> when to call expire() -> changes
//! needs_dns() -> ask there          next_fading() -> when to look at that again
//! ```
//!
//! The order is the one in which the prefixes were learned, and a refresh does not change it: DNS
//! servers rotate their answers, and whoever uses the first prefix should not move with them. Only
//! prefixes that their source lets run out come after the others: a network that moves to another
//! prefix announces both for a while.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use crate::{Pref64, ra_option::Pref64Option};

/// The most advertised prefixes kept per interface. A network that announces more is broken or
/// hostile. What a person set and what DNS says is kept beside them.
pub const MAX_ENTRIES: usize = 32;

/// The most prefixes kept of one router, or of DNS, so that one cannot crowd out the others.
pub const MAX_PER_SOURCE: usize = 16;

/// A prefix fades with this part of its lifetime left.
const FADING: u32 = 4;

/// The longest time to live of DNS (RFC 2181 §8).
const MAX_TTL: Duration = Duration::from_secs(i32::MAX as u64);

/// An interface, by the index the system gave it.
pub type IfIndex = u32;

/// Where a prefix was learned, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A person or a policy set it.
    Manual,
    /// A router advertisement of this router.
    Ra {
        /// The router's link-local address.
        router: Ipv6Addr,
    },
    /// The answers for `ipv4only.arpa`.
    Dns {
        /// The resolver that gave them last.
        resolver: IpAddr,
    },
}

impl Source {
    fn rank(self) -> u8 {
        match self {
            Self::Manual => 0,
            Self::Ra { .. } => 1,
            Self::Dns { .. } => 2,
        }
    }

    /// Whether what `other` says replaces what this one said. Routers speak for themselves each;
    /// the resolvers of an interface are one voice.
    fn is_same_voice(self, other: Self) -> bool {
        self == other || matches!((self, other), (Self::Dns { .. }, Self::Dns { .. }))
    }
}

/// A prefix on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The prefix.
    pub prefix: Pref64,
    /// Where it was learned.
    pub source: Source,
    /// For how long it holds, as its source said last; without end for a manual one.
    pub lifetime: Option<Duration>,
    /// When it stops to hold, unless it is refreshed; never for a manual one.
    pub expires: Option<Instant>,
}

impl Entry {
    fn is_over(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    /// Whether its source lets it run out. Either it is announced for much less time than another
    /// one, `longest`; or most of its life is over and nobody has refreshed it: a lifetime is three
    /// times the interval of announcements or more (RFC 8781 §4.1).
    fn is_fading(&self, longest: Option<Duration>, now: Instant) -> bool {
        let brief = |lifetime: Duration| longest.is_some_and(|it| lifetime * FADING < it);
        self.lifetime.is_some_and(brief) || self.fades().is_some_and(|at| at <= now)
    }

    /// When most of its life is over.
    fn fades(&self) -> Option<Instant> {
        self.expires?.checked_sub(self.lifetime? / FADING)
    }
}

/// What a call changed, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A prefix is new.
    Added(Entry),
    /// A known prefix holds for longer (or shorter) now.
    Refreshed(Entry),
    /// Its source took it back: lifetime 0, or no longer in the set.
    Withdrawn(Entry),
    /// It was not refreshed in time.
    Expired(Entry),
    /// There are [`MAX_ENTRIES`] or [`MAX_PER_SOURCE`] already.
    Refused(Entry),
    /// Another kind of source is used from now on: a better one has come, or the best one is gone.
    Preferred {
        /// The first prefix of the one that is used now.
        entry: Entry,
        /// The first prefix of the one that was used before.
        instead_of: Entry,
    },
}

/// The prefixes of every interface.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    links: BTreeMap<IfIndex, Vec<Entry>>,
}

impl Tracker {
    /// A tracker that knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A router advertisement with PREF64 options arrived. Options it does not repeat keep their
    /// own lifetimes (RFC 8781 §5.1), and so do those of other routers.
    ///
    /// Whether it comes from a default router does not matter: the lifetime of the router is about
    /// the default route alone (RFC 4861 §6.3.4).
    pub fn ra(
        &mut self,
        link: IfIndex,
        router: Ipv6Addr,
        options: &[Pref64Option],
        now: Instant,
    ) -> Vec<Change> {
        let source = Source::Ra { router };
        self.change(link, |entries| {
            let mut changes = expire(entries, now);
            changes.extend(options.iter().filter_map(|option| {
                if option.lifetime.is_zero() {
                    return withdraw(entries, source, option.prefix);
                }
                let until = (option.lifetime, now + option.lifetime);
                Some(put(entries, option.prefix, source, until))
            }));
            changes
        })
    }

    /// The answers of `resolver` for `ipv4only.arpa` are `prefixes`, for `ttl`. Replaces earlier
    /// ones, whichever resolver they were of.
    pub fn dns(
        &mut self,
        link: IfIndex,
        resolver: IpAddr,
        prefixes: &[Pref64],
        ttl: Duration,
        now: Instant,
    ) -> Vec<Change> {
        let source = Source::Dns { resolver };
        self.change(link, |entries| {
            let mut changes = expire(entries, now);
            let gone = entries
                .extract_if(.., |it| {
                    it.source.is_same_voice(source) && !prefixes.contains(&it.prefix)
                })
                .map(Change::Withdrawn);
            changes.extend(gone);
            let ttl = ttl.min(MAX_TTL);
            let put = |prefix: &Pref64| put(entries, *prefix, source, (ttl, now + ttl));
            changes.extend(prefixes.iter().map(put));
            changes
        })
    }

    /// `ipv4only.arpa` is synthesised no longer.
    pub fn dns_withdrawn(&mut self, link: IfIndex) -> Vec<Change> {
        self.change(link, |entries| {
            let gone = entries.extract_if(.., |it| matches!(it.source, Source::Dns { .. }));
            gone.map(Change::Withdrawn).collect()
        })
    }

    /// A person or policy sets the prefixes of an interface, best first. Replaces earlier ones.
    pub fn manual(&mut self, link: IfIndex, prefixes: &[Pref64]) -> Vec<Change> {
        self.change(link, |entries| replace_manual(entries, prefixes))
    }

    /// The interface is gone, or is on another network: forget what was learned on it. What a
    /// person set stays.
    pub fn forget_learned(&mut self, link: IfIndex) -> Vec<Change> {
        self.change(link, |entries| {
            let learned = entries.extract_if(.., |entry| entry.source != Source::Manual);
            learned.map(Change::Withdrawn).collect()
        })
    }

    /// Removes what is over. Call it at [`Self::next_expiry`].
    pub fn expire(&mut self, now: Instant) -> Vec<(IfIndex, Change)> {
        let mut changes = Vec::new();
        for link in self.links().collect::<Vec<_>>() {
            let over = self.change(link, |entries| expire(entries, now));
            changes.extend(over.into_iter().map(|change| (link, change)));
        }
        changes
    }

    /// When [`Self::expire`] has something to do next.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        let entries = self.links.values().flatten();
        entries.filter_map(|entry| entry.expires).min()
    }

    /// Whether nothing better than DNS gives a prefix on an interface that is going to hold. Where
    /// the last one runs out, DNS may know the same one, and then nothing ends with it.
    #[must_use]
    pub fn needs_dns(&self, link: IfIndex, now: Instant) -> bool {
        let mut live = self.live(link, now);
        live.all(|it| matches!(it.source, Source::Dns { .. }) || it.is_fading(None, now))
    }

    /// When [`Self::needs_dns`] may become true by itself.
    #[must_use]
    pub fn next_fading(&self, now: Instant) -> Option<Instant> {
        let entries = self.links.values().flatten();
        let fades = entries.filter_map(Entry::fades);
        fades.filter(|at| *at > now).min()
    }

    /// The prefixes to use on an interface, best first, none twice: those of its best source.
    pub fn usable(&self, link: IfIndex, now: Instant) -> impl Iterator<Item = &Entry> {
        let best = self.live(link, now).map(|it| it.source.rank()).min();
        let live = self.live(link, now);
        let mut usable: Vec<_> = live.filter(|it| Some(it.source.rank()) == best).collect();
        // One router may let go what another keeps.
        let longest = usable.iter().filter_map(|it| it.lifetime).max();
        let firm = usable.iter().filter(|it| !it.is_fading(longest, now));
        let firm: Vec<_> = firm.map(|it| it.prefix).collect();
        usable.sort_by_key(|it| !firm.contains(&it.prefix));
        let mut seen = Vec::new();
        usable.retain(|it| {
            let is_new = !seen.contains(&it.prefix);
            seen.push(it.prefix);
            is_new
        });
        usable.into_iter()
    }

    /// What holds on an interface, whether or not it is of the best source, in the order it was
    /// learned.
    pub fn live(&self, link: IfIndex, now: Instant) -> impl Iterator<Item = &Entry> {
        let known = self.known(link).iter();
        known.filter(move |entry| !entry.is_over(now))
    }

    /// Everything known about an interface, used or not, in the order it was learned.
    #[must_use]
    pub fn known(&self, link: IfIndex) -> &[Entry] {
        self.links.get(&link).map(Vec::as_slice).unwrap_or_default()
    }

    /// The interfaces that have any entry.
    pub fn links(&self) -> impl Iterator<Item = IfIndex> + '_ {
        self.links.keys().copied()
    }

    /// Changes the entries of an interface, and notices when another kind of source is used then.
    fn change(
        &mut self,
        link: IfIndex,
        change: impl FnOnce(&mut Vec<Entry>) -> Vec<Change>,
    ) -> Vec<Change> {
        let entries = self.links.entry(link).or_default();
        let before = first_of_best(entries);
        let mut changes = change(entries);
        if let (Some(instead_of), Some(entry)) = (before, first_of_best(entries))
            && instead_of.source.rank() != entry.source.rank()
        {
            changes.push(Change::Preferred { entry, instead_of });
        }
        if entries.is_empty() {
            self.links.remove(&link);
        }
        changes
    }
}

fn first_of_best(entries: &[Entry]) -> Option<Entry> {
    entries.iter().min_by_key(|it| it.source.rank()).copied()
}

/// Puts the manual entries in the order of `prefixes`.
fn replace_manual(entries: &mut Vec<Entry>, prefixes: &[Pref64]) -> Vec<Change> {
    let source = Source::Manual;
    let before: Vec<_> = entries.extract_if(.., |it| it.source == source).collect();
    let gone = before.iter().filter(|it| !prefixes.contains(&it.prefix));
    let mut changes: Vec<_> = gone.copied().map(Change::Withdrawn).collect();
    for (at, prefix) in prefixes.iter().enumerate() {
        if prefixes[..at].contains(prefix) {
            continue;
        }
        let entry = Entry {
            prefix: *prefix,
            source,
            lifetime: None,
            expires: None,
        };
        entries.push(entry);
        changes.push(match before.contains(&entry) {
            true => Change::Refreshed(entry),
            false => Change::Added(entry),
        });
    }
    changes
}

/// Takes out what is over, so that it neither fills the table nor looks refreshed when its source
/// speaks again.
fn expire(entries: &mut Vec<Entry>, now: Instant) -> Vec<Change> {
    let over = entries.extract_if(.., |entry| entry.is_over(now));
    over.map(Change::Expired).collect()
}

/// Adds or refreshes a learned entry.
fn put(
    entries: &mut Vec<Entry>,
    prefix: Pref64,
    source: Source,
    (lifetime, expires): (Duration, Instant),
) -> Change {
    let entry = Entry {
        prefix,
        source,
        lifetime: Some(lifetime),
        expires: Some(expires),
    };
    let same = |known: &&mut Entry| known.prefix == prefix && known.source.is_same_voice(source);
    if let Some(known) = entries.iter_mut().find(same) {
        *known = entry;
        return Change::Refreshed(entry);
    }
    if !has_room_for(entries, source) {
        return Change::Refused(entry);
    }
    entries.push(entry);
    Change::Added(entry)
}

fn has_room_for(entries: &[Entry], source: Source) -> bool {
    let sources = || entries.iter().map(|entry| entry.source);
    let of_source = sources().filter(|it| it.is_same_voice(source)).count();
    let of_rank = sources().filter(|it| it.rank() == source.rank()).count();
    of_source < MAX_PER_SOURCE && of_rank < MAX_ENTRIES
}

fn withdraw(entries: &mut Vec<Entry>, source: Source, prefix: Pref64) -> Option<Change> {
    let at = entries
        .iter()
        .position(|entry| entry.source == source && entry.prefix == prefix)?;
    Some(Change::Withdrawn(entries.remove(at)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINK: IfIndex = 3;
    const ONE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const TWO: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
    const DNS: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x53));

    #[expect(clippy::disallowed_methods, reason = "virtual time needs an origin")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn prefix(n: u16) -> Pref64 {
        format!("2001:db8:{n:x}::/96").parse().unwrap()
    }

    fn option(n: u16, lifetime: u64) -> Pref64Option {
        Pref64Option {
            prefix: prefix(n),
            lifetime: seconds(lifetime),
        }
    }

    fn usable(tracker: &Tracker, now: Instant) -> Vec<Pref64> {
        tracker
            .usable(LINK, now)
            .map(|entry| entry.prefix)
            .collect()
    }

    #[test]
    fn disc_8781_4_1_01_lifetime_zero_refresh_and_expiry() {
        let start = origin();
        let mut tracker = Tracker::new();
        tracker.ra(LINK, ONE, &[option(1, 600), option(2, 600)], start);
        assert_eq!(usable(&tracker, start), [prefix(1), prefix(2)]);

        // Lifetime 0 ends it at once.
        let changes = tracker.ra(LINK, ONE, &[option(1, 0)], start);
        assert!(matches!(changes[..], [Change::Withdrawn(_)]));
        assert_eq!(usable(&tracker, start), [prefix(2)]);
        assert!(tracker.ra(LINK, ONE, &[option(1, 0)], start).is_empty());

        // A refresh replaces the timer, to a shorter life too.
        tracker.ra(LINK, ONE, &[option(2, 1800)], start + seconds(500));
        assert_eq!(tracker.next_expiry(), Some(start + seconds(2300)));
        tracker.ra(LINK, ONE, &[option(2, 80)], start + seconds(600));
        assert_eq!(tracker.next_expiry(), Some(start + seconds(680)));

        // Expiry removes it: from use at the very moment, from the table when asked.
        assert_eq!(usable(&tracker, start + seconds(679)), [prefix(2)]);
        assert!(usable(&tracker, start + seconds(680)).is_empty());
        assert!(tracker.expire(start + seconds(679)).is_empty());
        let changes = tracker.expire(start + seconds(680));
        assert!(matches!(changes[..], [(LINK, Change::Expired(_))]));
        assert_eq!(tracker.next_expiry(), None);
        assert_eq!(tracker.links().count(), 0);
    }

    #[test]
    fn disc_8781_5_1_01_several_prefixes_in_order_and_per_router() {
        let now = origin();
        let mut tracker = Tracker::new();
        tracker.ra(LINK, ONE, &[option(2, 600), option(1, 600)], now);
        tracker.ra(LINK, TWO, &[option(1, 600), option(3, 600)], now);
        tracker.ra(9, TWO, &[option(4, 600)], now);
        assert_eq!(usable(&tracker, now), [prefix(2), prefix(1), prefix(3)]);

        // One router cannot take back what only the other announces.
        assert!(tracker.ra(LINK, TWO, &[option(2, 0)], now).is_empty());
        assert_eq!(usable(&tracker, now), [prefix(2), prefix(1), prefix(3)]);
        // One router takes back a prefix that the other still announces.
        tracker.ra(LINK, ONE, &[option(1, 0)], now);
        assert_eq!(usable(&tracker, now), [prefix(2), prefix(1), prefix(3)]);
        tracker.ra(LINK, TWO, &[option(1, 0)], now);
        assert_eq!(usable(&tracker, now), [prefix(2), prefix(3)]);
        let other: Vec<_> = tracker.usable(9, now).map(|entry| entry.prefix).collect();
        assert_eq!(other, [prefix(4)]);
    }

    #[test]
    fn disc_8781_5_1_02_one_source_only_and_a_late_ra_replaces_dns() {
        let now = origin();
        let mut tracker = Tracker::new();
        tracker.dns(LINK, DNS, &[prefix(7)], seconds(60), now);
        assert_eq!(usable(&tracker, now), [prefix(7)]);
        tracker.ra(LINK, ONE, &[option(1, 600)], now);
        assert_eq!(usable(&tracker, now), [prefix(1)]);
        tracker.manual(LINK, &[prefix(9)]);
        assert_eq!(usable(&tracker, now), [prefix(9)]);

        // And back, as the better ones go.
        tracker.manual(LINK, &[]);
        assert_eq!(usable(&tracker, now), [prefix(1)]);
        tracker.ra(LINK, ONE, &[option(1, 0)], now);
        assert_eq!(usable(&tracker, now), [prefix(7)]);
        assert!(usable(&tracker, now + seconds(60)).is_empty());
    }

    /// Each move from one kind of source to another is told, for the log.
    #[test]
    fn disc_8781_5_1_02_that_an_ra_replaces_dns_is_told() {
        let start = origin();
        let mut tracker = Tracker::new();
        let moves = |changes: Vec<Change>| {
            let mut told = changes.into_iter().filter_map(|change| {
                let Change::Preferred { entry, instead_of } = change else {
                    return None;
                };
                Some((entry.prefix, instead_of.prefix))
            });
            (told.next(), told.next().is_none())
        };
        let none = (None, true);
        let resolved = tracker.dns(LINK, DNS, &[prefix(7)], seconds(900), start);
        assert_eq!(moves(resolved), none);
        let advertised = tracker.ra(LINK, ONE, &[option(1, 600), option(2, 600)], start);
        assert_eq!(moves(advertised), (Some((prefix(1), prefix(7))), true));
        // A second one, and more of what is not used, change nothing.
        let second = tracker.ra(LINK, TWO, &[option(3, 600)], start);
        assert_eq!(moves(second), none);
        let resolved = tracker.dns(LINK, DNS, &[prefix(8)], seconds(900), start);
        assert_eq!(moves(resolved), none);
        // Back, when the routers are silent for too long.
        let expired = tracker.expire(start + seconds(600));
        let expired = expired.into_iter().map(|(_, change)| change).collect();
        assert_eq!(moves(expired), (Some((prefix(8), prefix(1))), true));
        assert_eq!(moves(tracker.dns_withdrawn(LINK)), none);
    }

    #[test]
    fn disc_7050_3_04_what_is_synthesised_no_longer_is_withdrawn() {
        let now = origin();
        let mut tracker = Tracker::new();
        tracker.dns(LINK, DNS, &[prefix(1), prefix(2)], seconds(60), now);
        tracker.ra(LINK, ONE, &[option(3, 600)], now);
        let changes = tracker.dns_withdrawn(LINK);
        assert!(matches!(
            changes[..],
            [Change::Withdrawn(_), Change::Withdrawn(_)]
        ));
        assert_eq!(usable(&tracker, now), [prefix(3)]);
    }

    /// The resolvers of a link take turns; who answered last does not matter to who uses the prefix.
    #[test]
    fn disc_7050_3_04_another_resolver_refreshes_the_same_prefix() {
        let now = origin();
        let mut tracker = Tracker::new();
        let other: IpAddr = "2001:db8::53".parse().unwrap();
        tracker.dns(LINK, DNS, &[prefix(1), prefix(2)], seconds(60), now);
        let changes = tracker.dns(LINK, other, &[prefix(2), prefix(1)], seconds(60), now);
        assert!(matches!(
            changes[..],
            [Change::Refreshed(_), Change::Refreshed(_)]
        ));
        assert_eq!(usable(&tracker, now), [prefix(1), prefix(2)]);
        let source = Source::Dns { resolver: other };
        assert!(tracker.known(LINK).iter().all(|it| it.source == source));
    }

    #[test]
    fn a_new_dns_answer_replaces_the_old_one() {
        let now = origin();
        let mut tracker = Tracker::new();
        tracker.dns(LINK, DNS, &[prefix(1), prefix(2)], seconds(60), now);
        let changes = tracker.dns(LINK, DNS, &[prefix(2), prefix(3)], seconds(60), now);
        assert!(matches!(
            changes[..],
            [Change::Withdrawn(_), Change::Refreshed(_), Change::Added(_)]
        ));
        assert_eq!(usable(&tracker, now), [prefix(2), prefix(3)]);
    }

    /// RFC 2181 §8 allows 68 years; whatever a caller passes must not overflow a time.
    #[test]
    fn disc_8781_4_1_01_the_longest_lifetimes_do_not_overflow() {
        let now = origin();
        let mut tracker = Tracker::new();
        let option = Pref64Option {
            lifetime: crate::ra_option::MAX_LIFETIME,
            ..option(1, 0)
        };
        tracker.ra(LINK, ONE, &[option], now);
        assert_eq!(tracker.next_expiry(), Some(now + seconds(65528)));
        tracker.dns(9, DNS, &[prefix(1)], Duration::MAX, now);
        assert_eq!(tracker.usable(9, now + seconds(1 << 30)).count(), 1);
    }

    /// Time passes between two calls of `expire`.
    #[test]
    fn disc_8781_4_1_01_what_is_over_is_not_refreshed_but_new() {
        let start = origin();
        let mut tracker = Tracker::new();
        tracker.ra(LINK, ONE, &[option(1, 600), option(2, 6000)], start);
        let later = start + seconds(600);
        let changes = tracker.ra(LINK, ONE, &[option(1, 600)], later);
        assert!(
            matches!(changes[..], [Change::Expired(_), Change::Added(_)]),
            "{changes:?}"
        );
        // It has lost its place: prefix 2 was there all the time.
        assert_eq!(usable(&tracker, later), [prefix(2), prefix(1)]);
    }

    #[test]
    fn disc_8781_5_1_01_a_prefix_lives_as_long_as_any_router_announces_it() {
        let start = origin();
        let mut tracker = Tracker::new();
        tracker.ra(LINK, ONE, &[option(1, 80)], start);
        tracker.ra(LINK, TWO, &[option(1, 600)], start);
        let entry = |tracker: &Tracker, now| tracker.usable(LINK, now).next().copied();
        assert_eq!(
            entry(&tracker, start).unwrap().source,
            Source::Ra { router: ONE }
        );
        // The first one dies; nothing of its own refreshes it.
        let later = start + seconds(80);
        tracker.expire(later);
        assert_eq!(
            entry(&tracker, later).unwrap().source,
            Source::Ra { router: TWO }
        );
        assert!(usable(&tracker, start + seconds(600)).is_empty());
    }

    #[test]
    fn disc_8781_5_1_01_a_refresh_keeps_the_order() {
        let now = origin();
        let mut tracker = Tracker::new();
        tracker.ra(LINK, ONE, &[option(1, 600), option(2, 600)], now);
        tracker.ra(LINK, ONE, &[option(2, 600), option(1, 600)], now);
        assert_eq!(usable(&tracker, now), [prefix(1), prefix(2)]);
    }

    /// A network changes its prefix: both are announced, the old one for a short time.
    #[test]
    fn disc_8781_5_1_01_a_prefix_that_is_let_go_comes_last() {
        let start = origin();
        let mut tracker = Tracker::new();
        tracker.ra(LINK, ONE, &[option(1, 1800)], start);
        tracker.ra(LINK, ONE, &[option(1, 304), option(2, 1800)], start);
        assert_eq!(usable(&tracker, start), [prefix(2), prefix(1)]);
        // Announced for long again, it has its place again.
        tracker.ra(LINK, ONE, &[option(1, 1800)], start);
        assert_eq!(usable(&tracker, start), [prefix(1), prefix(2)]);
        // A quarter of the longest is not much less yet.
        tracker.ra(LINK, ONE, &[option(1, 448), option(2, 1792)], start);
        assert_eq!(usable(&tracker, start), [prefix(1), prefix(2)]);
        // A short life is no fault of the only one.
        tracker.ra(LINK, ONE, &[option(1, 16), option(2, 0)], start);
        assert_eq!(usable(&tracker, start), [prefix(1)]);
    }

    /// The router just stops to announce the old one.
    #[test]
    fn disc_8781_5_1_01_a_prefix_that_is_no_longer_refreshed_comes_last() {
        let start = origin();
        let mut tracker = Tracker::new();
        tracker.ra(LINK, ONE, &[option(1, 1800)], start);
        // Two intervals without a refresh may be lost packets.
        tracker.ra(LINK, ONE, &[option(2, 1800)], start + seconds(1200));
        let order = |at| usable(&tracker, start + seconds(at));
        assert_eq!(order(1349), [prefix(1), prefix(2)]);
        assert_eq!(order(1350), [prefix(2), prefix(1)]);
        assert_eq!(order(1800), [prefix(2)]);
        // Another router that keeps it keeps its place.
        tracker.ra(LINK, TWO, &[option(1, 1800)], start + seconds(1200));
        let order = usable(&tracker, start + seconds(1350));
        assert_eq!(order, [prefix(1), prefix(2)]);
    }

    #[test]
    fn disc_7050_3_03_a_rotated_answer_keeps_the_order() {
        let now = origin();
        let mut tracker = Tracker::new();
        tracker.dns(LINK, DNS, &[prefix(2), prefix(1)], seconds(60), now);
        assert_eq!(usable(&tracker, now), [prefix(2), prefix(1)]);
        tracker.dns(LINK, DNS, &[prefix(1), prefix(2)], seconds(60), now);
        assert_eq!(usable(&tracker, now), [prefix(2), prefix(1)]);
    }

    /// A person's order is a preference.
    #[test]
    fn manual_prefixes_are_used_in_the_order_they_were_set_last() {
        let now = origin();
        let mut tracker = Tracker::new();
        tracker.manual(LINK, &[prefix(1), prefix(2), prefix(1)]);
        assert_eq!(usable(&tracker, now), [prefix(1), prefix(2)]);
        assert_eq!(tracker.known(LINK).len(), 2);
        let changes = tracker.manual(LINK, &[prefix(2), prefix(1), prefix(3)]);
        assert!(matches!(
            changes[..],
            [Change::Refreshed(_), Change::Refreshed(_), Change::Added(_)]
        ));
        assert_eq!(usable(&tracker, now), [prefix(2), prefix(1), prefix(3)]);
        let changes = tracker.manual(LINK, &[prefix(3)]);
        assert!(matches!(
            changes[..],
            [
                Change::Withdrawn(_),
                Change::Withdrawn(_),
                Change::Refreshed(_)
            ]
        ));
    }

    /// Most networks have no NAT64, and their routers advertise all the time.
    #[test]
    fn advertisements_without_prefixes_leave_no_trace() {
        let now = origin();
        let traces = |call: &dyn Fn(&mut Tracker) -> Vec<Change>| {
            let mut tracker = Tracker::new();
            call(&mut tracker);
            tracker.links().count()
        };
        assert_eq!(traces(&|it| it.ra(LINK, ONE, &[], now)), 0);
        assert_eq!(traces(&|it| it.ra(LINK, ONE, &[option(1, 0)], now)), 0);
        assert_eq!(traces(&|it| it.dns(LINK, DNS, &[], seconds(60), now)), 0);
        assert_eq!(traces(&|it| it.manual(LINK, &[])), 0);
    }

    #[test]
    fn another_network_forgets_what_was_learned_but_not_what_was_set() {
        let now = origin();
        let mut tracker = Tracker::new();
        tracker.manual(LINK, &[prefix(9)]);
        tracker.ra(LINK, ONE, &[option(1, 600)], now);
        tracker.dns(LINK, DNS, &[prefix(2)], seconds(60), now);
        assert_eq!(tracker.forget_learned(LINK).len(), 2);
        assert_eq!(tracker.known(LINK).len(), 1);
        assert!(tracker.forget_learned(77).is_empty());
    }

    #[test]
    fn a_hostile_network_cannot_fill_the_memory() {
        let now = origin();
        let mut tracker = Tracker::new();
        for n in 0..100 {
            let router = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, n);
            tracker.ra(LINK, router, &[option(n, 600)], now);
        }
        assert_eq!(tracker.known(LINK).len(), MAX_ENTRIES);
        let refused = tracker.ra(LINK, ONE, &[option(500, 600)], now);
        assert!(matches!(refused[..], [Change::Refused(_)]));
        // What is known can still be refreshed and withdrawn.
        let router = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, 0);
        let refreshed = tracker.ra(LINK, router, &[option(0, 600)], now);
        assert!(matches!(refreshed[..], [Change::Refreshed(_)]));
        // A person is heard, and so is DNS, which takes over when the flood is over.
        tracker.manual(LINK, &[prefix(600)]);
        assert_eq!(usable(&tracker, now), [prefix(600)]);
        tracker.manual(LINK, &[]);
        tracker.dns(LINK, DNS, &[prefix(700)], seconds(900), now);
        let later = now + seconds(600);
        assert_eq!(usable(&tracker, later), [prefix(700)]);
        // Dead entries make room, whether or not anybody has called `expire`.
        tracker.ra(LINK, ONE, &[option(500, 600)], later);
        assert_eq!(usable(&tracker, later), [prefix(500)]);
    }

    #[test]
    fn one_router_cannot_crowd_out_the_others() {
        let now = origin();
        let mut tracker = Tracker::new();
        let flood: Vec<_> = (0..100).map(|n| option(n, 600)).collect();
        let changes = tracker.ra(LINK, ONE, &flood, now);
        let refused = changes
            .iter()
            .filter(|it| matches!(it, Change::Refused(_)))
            .count();
        assert_eq!(refused, 100 - MAX_PER_SOURCE);
        tracker.ra(LINK, TWO, &[option(500, 600)], now);
        assert!(usable(&tracker, now).contains(&prefix(500)));
        let many: Vec<_> = (0..100).map(prefix).collect();
        tracker.dns(LINK, DNS, &many, seconds(60), now);
        assert_eq!(tracker.known(LINK).len(), 2 * MAX_PER_SOURCE + 1);
    }

    proptest! {
        /// After any history, what is usable is live, of one source, and without repetition.
        #[test]
        fn usable_prefixes_are_live_and_of_one_source(
            steps in proptest::collection::vec((0u8..5, 0u16..4, 0u64..100, any::<bool>()), 0..60),
        ) {
            let mut now = origin();
            let mut tracker = Tracker::new();
            for (what, n, time, first) in steps {
                let router = if first { ONE } else { TWO };
                match what {
                    0 | 1 => drop(tracker.ra(LINK, router, &[option(n, time)], now)),
                    2 => drop(tracker.dns(LINK, DNS, &[prefix(n)], seconds(time), now)),
                    3 => drop(tracker.manual(LINK, &[prefix(n)][..usize::from(first)])),
                    _ => now += seconds(time),
                }
                if first {
                    tracker.expire(now);
                }
                let entries: Vec<_> = tracker.usable(LINK, now).collect();
                prop_assert!(entries.iter().all(|entry| !entry.is_over(now)));
                prop_assert!(entries.windows(2).all(|w| w[0].source.rank() == w[1].source.rank()));
                for (i, entry) in entries.iter().enumerate() {
                    prop_assert!(entries[..i].iter().all(|other| other.prefix != entry.prefix));
                }
                prop_assert!(tracker.known(LINK).len() <= MAX_ENTRIES + MAX_PER_SOURCE + 1);
                // Nobody is told to wait for something that has happened, and nothing is empty.
                if first {
                    prop_assert!(tracker.next_expiry().is_none_or(|at| at > now));
                    prop_assert_eq!(tracker.links().count(), usize::from(!tracker.known(LINK).is_empty()));
                }
            }
        }
    }
}
