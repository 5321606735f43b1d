//! [`Lookup`]: whom on a link to ask for `ipv4only.arpa`, when, and what follows from the answer
//! (RFC 7050 §3).
//!
//! ```text
//! set_resolvers(), restart()      poll() -> whom to ask now
//! finished(outcome) -> Verdict    next_timeout() -> when to call poll() again
//! ```
//!
//! Resolvers are asked one after the other, in rounds. A round ends with the first one that
//! synthesises, or when there is nobody left to ask. Until when a resolver is left alone depends on
//! what it said last:
//!
//! | it said | it is asked again |
//! |---|---|
//! | addresses with a prefix in them | [`REFRESH_BEFORE`] their time to live ends |
//! | NXDOMAIN, NODATA | when that has lived its time (RFC 2308) |
//! | addresses without a prefix | when they have lived their time: nothing is guessed |
//! | nothing, or that it failed | after a wait that doubles, from [`FIRST_RETRY`] to [`LAST_RETRY`] |
//!
//! A change of the network makes all that void ([`Lookup::restart`]). How often a datagram is
//! repeated before "nothing" is the business of whoever sends it.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use crate::{Pref64, well_known_name::find_prefixes};

/// The most resolvers of a link that are asked. Networks announce two or three.
pub const MAX_RESOLVERS: usize = 8;

/// The most addresses of an answer that are looked at.
pub const MAX_ADDRESSES: usize = 64;

/// How long before the end of the time to live it is asked again (RFC 7050 §3).
pub const REFRESH_BEFORE: Duration = Duration::from_secs(10);

/// A prefix holds at least this long, whatever its time to live: one of zero would otherwise be
/// over before it can be used, and have the resolver asked without pause.
pub const MIN_LIFETIME: Duration = Duration::from_secs(20);

/// No prefix is believed for longer without asking: RFC 8767 §4 gives a cache a week at most.
pub const MAX_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// A "no" holds at least this long.
pub const MIN_NEGATIVE: Duration = Duration::from_secs(10);

/// A "no" holds at most this long: one to three hours "make sensible a default" (RFC 2308 §5).
pub const MAX_NEGATIVE: Duration = Duration::from_secs(3 * 3600);

/// A "no" without a time to live, which must not be cached (RFC 2308 §5), is not repeated at once.
pub const UNSAID_NEGATIVE: Duration = Duration::from_secs(60);

/// The wait after the first failure of a resolver.
pub const FIRST_RETRY: Duration = Duration::from_secs(2);

/// The longest wait between failures of a resolver: as long as failures may be cached at most
/// (RFC 9520 §3.2).
pub const LAST_RETRY: Duration = Duration::from_secs(300);

/// A resolver that was silent so often in a row does not keep up a prefix whose resolver is gone.
const GIVEN_UP: u32 = 3;

/// What came of asking a resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has AAAA records for the name.
    Addresses {
        /// Their addresses, in order.
        addresses: Vec<Ipv6Addr>,
        /// The shortest time to live among them.
        ttl: Duration,
    },
    /// The name does not exist (NXDOMAIN), or has no AAAA records (NODATA).
    Negative {
        /// For how long that holds (RFC 2308 §5), if it said so.
        ttl: Option<Duration>,
    },
    /// No answer came, or one that says nothing about the name: SERVFAIL, REFUSED, nonsense.
    Failed,
}

/// What follows for the prefixes of the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: what was known still holds for its time.
    Unchanged,
    /// These are the prefixes now, best first.
    Prefixes {
        /// Never empty.
        prefixes: Vec<Pref64>,
        /// How long they hold, from now.
        lifetime: Duration,
    },
    /// The resolver that had given the prefixes says that there are none, and no other gives any;
    /// or it is not there to be asked any more, and those that are say so.
    Withdrawn,
}

/// What is known, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is nobody to ask.
    NoResolver,
    /// Not all have said something yet.
    Asking,
    /// A resolver synthesises.
    Synthesised(IpAddr),
    /// A resolver has answered, and none synthesises.
    NotSynthesised,
    /// No resolver has given an answer.
    Unanswered,
}

/// The questions on one link.
#[derive(Clone, Debug)]
pub struct Lookup {
    resolvers: Vec<Resolver>,
    /// Nobody is asked sooner.
    next_round: Instant,
    asking: Option<IpAddr>,
    giver: Giver,
}

/// Who gave the prefixes that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Giver {
    /// None are.
    Nobody,
    /// Only what this one says takes them back.
    Resolver(IpAddr),
    /// It is gone, or the network may be another one: any other may take them back.
    Gone,
}

/// A resolver, and what it said last.
#[derive(Clone, Debug)]
struct Resolver {
    address: IpAddr,
    said: Said,
    /// It is left alone until then.
    until: Instant,
    /// Asked in this round already.
    asked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    NotAsked,
    Yes,
    No,
    /// Nothing, so many times in a row.
    Nothing(u32),
}

impl Lookup {
    /// A lookup without resolvers, that asks nobody before `start`.
    #[must_use]
    pub fn new(start: Instant) -> Self {
        Self {
            resolvers: Vec::new(),
            next_round: start,
            asking: None,
            giver: Giver::Nobody,
        }
    }

    /// The resolvers of the link, best first. What is known of those that stay is kept; beyond
    /// [`MAX_RESOLVERS`] they are left out.
    pub fn set_resolvers(&mut self, addresses: &[IpAddr], now: Instant) {
        let mut resolvers: Vec<Resolver> = Vec::new();
        for address in addresses {
            if resolvers.len() == MAX_RESOLVERS {
                break;
            }
            if resolvers.iter().any(|it| it.address == *address) {
                continue;
            }
            let known = self.resolvers.iter().find(|it| it.address == *address);
            resolvers.push(known.cloned().unwrap_or(Resolver {
                address: *address,
                said: Said::NotAsked,
                until: now,
                asked: false,
            }));
        }
        self.resolvers = resolvers;
        if let Giver::Resolver(giver) = self.giver
            && !self.resolvers.iter().any(|it| it.address == giver)
        {
            // Somebody has to confirm what it said.
            self.giver = Giver::Gone;
            self.next_round = self.next_round.min(now);
        }
    }

    /// The network is another one, or may be: what its resolvers said does not count any more.
    /// They are asked again at `start`. An answer that is still waited for is not waited for.
    pub fn restart(&mut self, start: Instant) {
        for resolver in &mut self.resolvers {
            resolver.said = Said::NotAsked;
            resolver.until = start;
        }
        self.end_round();
        self.asking = None;
        if self.giver != Giver::Nobody {
            self.giver = Giver::Gone;
        }
        self.next_round = start;
    }

    /// Whom to ask now, if anybody. Then call [`Self::finished`], or [`Self::restart`].
    pub fn poll(&mut self, now: Instant) -> Option<IpAddr> {
        if self.asking.is_some() || now < self.next_round {
            return None;
        }
        if self.due(now).is_none() {
            self.end_round();
        }
        let due = self.due(now)?;
        self.resolvers[due].asked = true;
        self.asking = Some(self.resolvers[due].address);
        self.asking
    }

    /// When [`Self::poll`] has something to say; `None` while an answer is waited for, or if there
    /// is nobody to ask.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.asking.is_some() {
            return None;
        }
        let first = self.resolvers.iter().map(|it| it.until).min()?;
        Some(first.max(self.next_round))
    }

    /// What came of asking `resolver`. Whatever comes from another one than [`Self::poll`] named
    /// last is ignored.
    pub fn finished(&mut self, resolver: IpAddr, outcome: &Outcome, now: Instant) -> Verdict {
        if self.asking != Some(resolver) {
            return Verdict::Unchanged;
        }
        self.asking = None;
        let Some(at) = self.resolvers.iter().position(|it| it.address == resolver) else {
            return Verdict::Unchanged;
        };
        if let Outcome::Addresses { addresses, ttl } = outcome {
            let looked_at = &addresses[..addresses.len().min(MAX_ADDRESSES)];
            let prefixes = find_prefixes(looked_at);
            if !prefixes.is_empty() {
                return self.synthesised(at, prefixes, *ttl, now);
            }
        }
        let (said, wait) = self.resolvers[at].without_prefix(outcome);
        self.resolvers[at].said = said;
        self.resolvers[at].until = now + wait;
        if self.due(now).is_some() {
            return Verdict::Unchanged;
        }
        self.end_round();
        // Only now: another one might have given the same prefixes.
        if !self.is_taken_back() {
            return Verdict::Unchanged;
        }
        self.giver = Giver::Nobody;
        Verdict::Withdrawn
    }

    fn is_taken_back(&self) -> bool {
        let denies = |it: &Resolver| it.said == Said::No;
        let mut resolvers = self.resolvers.iter();
        match self.giver {
            Giver::Nobody => false,
            Giver::Resolver(giver) => resolvers.any(|it| it.address == giver && denies(it)),
            // One of those that are silent might give the same prefixes, but not for ever.
            Giver::Gone => {
                resolvers.clone().any(denies) && resolvers.all(|it| denies(it) || it.is_given_up())
            }
        }
    }

    /// What is known.
    #[must_use]
    pub fn state(&self) -> State {
        let said = |wanted| self.resolvers.iter().find(|it| it.said == wanted);
        if self.resolvers.is_empty() {
            State::NoResolver
        } else if let Some(resolver) = said(Said::Yes) {
            State::Synthesised(resolver.address)
        } else if said(Said::NotAsked).is_some() {
            State::Asking
        } else if said(Said::No).is_some() {
            State::NotSynthesised
        } else {
            State::Unanswered
        }
    }

    fn synthesised(
        &mut self,
        at: usize,
        prefixes: Vec<Pref64>,
        ttl: Duration,
        now: Instant,
    ) -> Verdict {
        let lifetime = ttl.clamp(MIN_LIFETIME, MAX_LIFETIME);
        let refresh = now + (lifetime - REFRESH_BEFORE);
        let resolver = &mut self.resolvers[at];
        resolver.said = Said::Yes;
        resolver.until = refresh;
        self.giver = Giver::Resolver(resolver.address);
        self.next_round = refresh;
        self.end_round();
        Verdict::Prefixes { prefixes, lifetime }
    }

    /// The next one in this round. Each is asked once in it, so that those at the front that never
    /// answer do not keep the others from being asked.
    fn due(&self, now: Instant) -> Option<usize> {
        let mut resolvers = self.resolvers.iter();
        resolvers.position(|it| it.until <= now && !it.asked)
    }

    fn end_round(&mut self) {
        for resolver in &mut self.resolvers {
            resolver.asked = false;
        }
    }
}

impl Resolver {
    /// Nobody waits any longer for what it may say.
    fn is_given_up(&self) -> bool {
        match self.said {
            Said::Nothing(times) => times >= GIVEN_UP,
            Said::NotAsked | Said::Yes | Said::No => false,
        }
    }

    /// What counts as said, and for how long, after an outcome that gives no prefix.
    fn without_prefix(&self, outcome: &Outcome) -> (Said, Duration) {
        let negative = match outcome {
            Outcome::Addresses { ttl, .. } => *ttl,
            Outcome::Negative { ttl } => ttl.unwrap_or(UNSAID_NEGATIVE),
            Outcome::Failed => {
                let before = match self.said {
                    Said::Nothing(times) => times,
                    Said::NotAsked | Said::Yes | Said::No => 0,
                };
                let wait = FIRST_RETRY.saturating_mul(1 << before.min(16));
                return (
                    Said::Nothing(before.saturating_add(1)),
                    wait.min(LAST_RETRY),
                );
            }
        };
        (Said::No, negative.clamp(MIN_NEGATIVE, MAX_NEGATIVE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[expect(clippy::disallowed_methods, reason = "virtual time needs an origin")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn resolver(n: u16) -> IpAddr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x53, n).into()
    }

    fn yes(ttl: u64) -> Outcome {
        Outcome::Addresses {
            addresses: vec![
                "64:ff9b::c000:aa".parse().unwrap(),
                "64:ff9b::c000:ab".parse().unwrap(),
            ],
            ttl: seconds(ttl),
        }
    }

    fn no(ttl: u64) -> Outcome {
        Outcome::Negative {
            ttl: Some(seconds(ttl)),
        }
    }

    fn well_known(lifetime: Duration) -> Verdict {
        Verdict::Prefixes {
            prefixes: vec![Pref64::WELL_KNOWN],
            lifetime,
        }
    }

    /// A lookup with so many resolvers, all of them due.
    fn lookup(resolvers: u16, now: Instant) -> Lookup {
        let mut lookup = Lookup::new(now);
        let addresses: Vec<_> = (1..=resolvers).map(resolver).collect();
        lookup.set_resolvers(&addresses, now);
        lookup
    }

    /// Asks whoever is due, who must be resolver `n`.
    fn ask(lookup: &mut Lookup, n: u16, outcome: &Outcome, now: Instant) -> Verdict {
        assert_eq!(lookup.poll(now), Some(resolver(n)));
        lookup.finished(resolver(n), outcome, now)
    }

    /// Seconds from `start` until somebody is asked again.
    fn wait(lookup: &mut Lookup, start: Instant) -> u64 {
        let at = lookup.next_timeout().unwrap();
        assert_eq!(lookup.poll(at - Duration::from_millis(1)), None);
        assert!(lookup.clone().poll(at).is_some());
        (at - start).as_secs()
    }

    /// RFC 7050 §3: the question is repeated 10 seconds before the answer is over, and the answer
    /// holds for its time.
    #[test]
    fn disc_7050_3_04_it_is_asked_again_ten_seconds_before_the_end() {
        for (ttl, lifetime, again) in [
            (600, 600, 590),
            (30, 30, 20),
            (20, 20, 10),
            (5, 20, 10),
            (0, 20, 10),
            (u64::from(u32::MAX), 604_800, 604_790),
        ] {
            let now = origin();
            let mut lookup = lookup(1, now);
            let verdict = ask(&mut lookup, 1, &yes(ttl), now);
            assert_eq!(verdict, well_known(seconds(lifetime)), "{ttl}");
            assert_eq!(wait(&mut lookup, now), again, "{ttl}");
            assert_eq!(lookup.state(), State::Synthesised(resolver(1)));
        }
    }

    /// RFC 7050 §3: after a negative answer, its time to live is waited out.
    #[test]
    fn disc_7050_3_04_a_negative_answer_is_waited_out() {
        for (ttl, again) in [
            (Some(120), 120),
            (Some(10_800), 10_800),
            (Some(86_400), 10_800),
            (Some(0), 10),
            (None, 60),
        ] {
            let now = origin();
            let mut lookup = lookup(1, now);
            let outcome = Outcome::Negative {
                ttl: ttl.map(seconds),
            };
            assert_eq!(ask(&mut lookup, 1, &outcome, now), Verdict::Unchanged);
            assert_eq!(lookup.state(), State::NotSynthesised);
            assert_eq!(wait(&mut lookup, now), again, "{ttl:?}");
        }
    }

    /// Nor is it shortened by what other resolvers say, or by their coming and going.
    #[test]
    fn disc_7050_3_04_a_negative_answer_is_waited_out_whatever_others_do() {
        let start = origin();
        let mut lookup = lookup(2, start);
        ask(&mut lookup, 1, &no(600), start);
        ask(&mut lookup, 2, &yes(30), start);
        let refresh = start + seconds(20);
        ask(&mut lookup, 2, &yes(30), refresh);
        lookup.set_resolvers(&[resolver(3), resolver(1)], refresh);
        ask(&mut lookup, 3, &Outcome::Failed, refresh);
        let mut now = refresh;
        while now < start + seconds(599) {
            assert_ne!(lookup.poll(now), Some(resolver(1)));
            lookup.finished(resolver(3), &Outcome::Failed, now);
            now += seconds(1);
        }
        assert_eq!(lookup.poll(start + seconds(600)), Some(resolver(1)));
    }

    /// RFC 7050 §3: no hit is a failure, and nothing is guessed.
    #[test]
    fn disc_7050_3_03_addresses_without_a_prefix_are_a_no() {
        let now = origin();
        let mut lookup = lookup(2, now);
        let lies = |addresses: &[&str]| Outcome::Addresses {
            addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
            ttl: seconds(300),
        };
        let mapped = lies(&["::ffff:192.0.0.170", "::ffff:192.0.0.171"]);
        assert_eq!(ask(&mut lookup, 1, &mapped, now), Verdict::Unchanged);
        let doubtful = lies(&["2001:db8:c000:aa::c000:aa"]);
        assert_eq!(ask(&mut lookup, 2, &doubtful, now), Verdict::Unchanged);
        assert_eq!(lookup.state(), State::NotSynthesised);
        assert_eq!(wait(&mut lookup, now), 300);
    }

    #[test]
    fn disc_7050_3_04_failures_are_retried_ever_more_rarely() {
        let start = origin();
        let mut lookup = lookup(1, start);
        let (mut now, mut waits) = (start, Vec::new());
        for _ in 0..10 {
            ask(&mut lookup, 1, &Outcome::Failed, now);
            waits.push(wait(&mut lookup, now));
            now = lookup.next_timeout().unwrap();
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(lookup.state(), State::Unanswered);
        // An answer, and the next failure is a first one again.
        ask(&mut lookup, 1, &no(10), now);
        now += seconds(10);
        ask(&mut lookup, 1, &Outcome::Failed, now);
        assert_eq!(wait(&mut lookup, now), 2);
    }

    #[test]
    fn disc_7050_3_01_resolvers_are_asked_in_order_until_one_synthesises() {
        let now = origin();
        let mut lookup = lookup(4, now);
        assert_eq!(lookup.state(), State::Asking);
        ask(&mut lookup, 1, &Outcome::Failed, now);
        ask(&mut lookup, 2, &no(600), now);
        assert_eq!(
            ask(&mut lookup, 3, &yes(600), now),
            well_known(seconds(600))
        );
        // The fourth is not needed, and the first is not tried again meanwhile.
        assert_eq!(wait(&mut lookup, now), 590);
        // Then in the same order: the first may be the better one.
        let refresh = now + seconds(590);
        ask(&mut lookup, 1, &Outcome::Failed, refresh);
        assert_eq!(lookup.poll(refresh), Some(resolver(3)));
    }

    /// Each takes seconds to fail; the first is due again before the last was asked.
    #[test]
    fn disc_7050_3_01_dead_resolvers_do_not_keep_others_from_being_asked() {
        let mut now = origin();
        let mut lookup = lookup(3, now);
        for n in [1, 2] {
            assert_eq!(lookup.poll(now), Some(resolver(n)));
            now += seconds(4);
            lookup.finished(resolver(n), &Outcome::Failed, now);
        }
        assert_eq!(ask(&mut lookup, 3, &yes(60), now), well_known(seconds(60)));
    }

    #[test]
    fn disc_7050_3_04_a_failure_keeps_what_is_known_and_a_no_takes_it_back() {
        let start = origin();
        let mut lookup = lookup(2, start);
        ask(&mut lookup, 1, &yes(60), start);
        let mut now = start + seconds(50);
        // Neither a loss nor the "no" of another one.
        assert_eq!(
            ask(&mut lookup, 1, &Outcome::Failed, now),
            Verdict::Unchanged
        );
        assert_eq!(ask(&mut lookup, 2, &no(600), now), Verdict::Unchanged);
        now += FIRST_RETRY;
        assert_eq!(ask(&mut lookup, 1, &no(600), now), Verdict::Withdrawn);
        assert_eq!(lookup.state(), State::NotSynthesised);
        // Told once.
        now += seconds(600);
        ask(&mut lookup, 1, &no(600), now);
        assert_eq!(ask(&mut lookup, 2, &no(600), now), Verdict::Unchanged);
    }

    /// Nobody is left who could take it back himself. A time to live may be a week.
    #[test]
    fn disc_7050_3_04_what_a_resolver_gave_that_is_gone_others_take_back() {
        let start = origin();
        for silent in [false, true] {
            let mut lookup = lookup(1, start);
            ask(&mut lookup, 1, &yes(86_400), start);
            let others: &[u16] = if silent { &[2, 3] } else { &[2] };
            let others: Vec<_> = others.iter().map(|n| resolver(*n)).collect();
            lookup.set_resolvers(&others, start);
            let mut verdict = ask(&mut lookup, 2, &no(600), start);
            let mut now = start;
            for _ in 0..if silent { GIVEN_UP } else { 0 } {
                assert_eq!(verdict, Verdict::Unchanged);
                now = now.max(lookup.next_timeout().unwrap());
                verdict = ask(&mut lookup, 3, &Outcome::Failed, now);
            }
            assert_eq!(verdict, Verdict::Withdrawn);
        }
    }

    /// Who had said no before is not asked sooner for that.
    #[test]
    fn disc_7050_3_04_whoever_is_left_takes_it_back_in_his_time() {
        let start = origin();
        let mut lookup = lookup(2, start);
        ask(&mut lookup, 1, &no(3600), start);
        ask(&mut lookup, 2, &yes(86_400), start);
        lookup.set_resolvers(&[resolver(1)], start);
        assert_eq!(wait(&mut lookup, start), 3600);
        let later = start + seconds(3600);
        assert_eq!(ask(&mut lookup, 1, &no(3600), later), Verdict::Withdrawn);
        // Nothing is known that could be taken back again.
        let later = later + seconds(3600);
        assert_eq!(ask(&mut lookup, 1, &no(3600), later), Verdict::Unchanged);
    }

    #[test]
    fn disc_7050_3_04_after_a_change_of_the_network_any_may_take_it_back() {
        let start = origin();
        let mut lookup = lookup(2, start);
        ask(&mut lookup, 1, &yes(86_400), start);
        lookup.restart(start);
        let mut verdict = Verdict::Unchanged;
        let mut now = start;
        for asked in 0..GIVEN_UP {
            assert_eq!(verdict, Verdict::Unchanged);
            verdict = ask(&mut lookup, 1, &Outcome::Failed, now);
            if asked == 0 {
                verdict = ask(&mut lookup, 2, &no(600), now);
            }
            now = lookup.next_timeout().unwrap();
        }
        assert_eq!(verdict, Verdict::Withdrawn);
    }

    /// The prefixes may come from another resolver in the same round; then they never go.
    #[test]
    fn disc_7050_3_04_another_resolver_may_take_over() {
        let start = origin();
        let mut lookup = lookup(2, start);
        ask(&mut lookup, 1, &yes(60), start);
        let now = start + seconds(50);
        assert_eq!(ask(&mut lookup, 1, &no(600), now), Verdict::Unchanged);
        assert_eq!(ask(&mut lookup, 2, &yes(60), now), well_known(seconds(60)));
        assert_eq!(lookup.state(), State::Synthesised(resolver(2)));
    }

    /// Our own rule: what another network's resolvers said is void, and what they still say too.
    #[test]
    fn disc_7050_3_04_a_change_of_the_network_starts_over() {
        let start = origin();
        let mut lookup = lookup(2, start);
        ask(&mut lookup, 1, &no(600), start);
        assert_eq!(lookup.poll(start), Some(resolver(2)));
        let change = start + seconds(3);
        lookup.restart(change + seconds(1));
        assert_eq!(lookup.state(), State::Asking);
        assert_eq!(
            lookup.finished(resolver(2), &yes(60), change),
            Verdict::Unchanged
        );
        assert_eq!(wait(&mut lookup, change), 1);
        ask(&mut lookup, 1, &yes(60), change + seconds(1));
    }

    #[test]
    fn disc_7050_3_01_new_resolvers_are_asked_when_they_come() {
        let start = origin();
        let mut lookup = Lookup::new(start + seconds(1));
        assert_eq!(lookup.state(), State::NoResolver);
        assert_eq!(lookup.next_timeout(), None);
        lookup.set_resolvers(&[resolver(1)], start);
        assert_eq!(wait(&mut lookup, start), 1);
        let mut now = start + seconds(1);
        ask(&mut lookup, 1, &no(600), now);
        now += seconds(5);
        lookup.set_resolvers(&[resolver(2), resolver(1), resolver(2)], now);
        ask(&mut lookup, 2, &yes(600), now);
        // One more does not matter while there is an answer; that who gave it is gone does.
        now += seconds(5);
        lookup.set_resolvers(&[resolver(3), resolver(2), resolver(1)], now);
        assert_eq!(lookup.poll(now), None);
        lookup.set_resolvers(&[resolver(3), resolver(1)], now);
        ask(&mut lookup, 3, &yes(600), now);
        // Whoever went while asked is not heard.
        now = lookup.next_timeout().unwrap();
        assert_eq!(lookup.poll(now), Some(resolver(3)));
        lookup.set_resolvers(&[], now);
        assert_eq!(
            lookup.finished(resolver(3), &yes(600), now),
            Verdict::Unchanged
        );
        assert_eq!(lookup.next_timeout(), None);
    }

    #[test]
    fn disc_7050_3_01_there_are_limits() {
        let now = origin();
        let mut lookup = lookup(100, now);
        let mut asked = 0;
        while let Some(resolver) = lookup.poll(now) {
            asked += 1;
            lookup.finished(resolver, &Outcome::Failed, now);
        }
        assert_eq!(asked, MAX_RESOLVERS);
        // Of an endless answer, the start is read.
        let mut addresses = vec![Ipv6Addr::LOCALHOST; MAX_ADDRESSES];
        addresses.push("64:ff9b::c000:aa".parse().unwrap());
        let ttl = seconds(60);
        let late = Outcome::Addresses { addresses, ttl };
        lookup.restart(now);
        assert_eq!(ask(&mut lookup, 1, &late, now), Verdict::Unchanged);
    }

    proptest! {
        /// After any history: one question at a time, never before its time, and it never stops
        /// while there is somebody to ask.
        #[test]
        fn disc_7050_3_04_any_history_goes_on_and_asks_nobody_too_early(
            steps in proptest::collection::vec((0u8..8, 1u16..12, 0u64..700), 0..80),
        ) {
            let mut now = origin();
            let mut lookup = lookup(3, now);
            let mut denied: Vec<(IpAddr, Instant)> = Vec::new();
            for (what, n, time) in steps {
                let asked = lookup.poll(now);
                if let Some(asked) = asked {
                    prop_assert!(!denied.iter().any(|(it, until)| *it == asked && now < *until));
                    prop_assert_eq!(lookup.poll(now), None);
                    prop_assert_eq!(lookup.next_timeout(), None);
                }
                let who = asked.unwrap_or_else(|| resolver(n));
                match what {
                    0 => drop(lookup.finished(who, &yes(time), now)),
                    1 | 2 => {
                        let waiting = lookup.next_timeout().is_none();
                        lookup.finished(who, &no(time), now);
                        if asked.is_some() && waiting {
                            denied.push((who, now + seconds(time)));
                        }
                    }
                    3 | 4 => drop(lookup.finished(who, &Outcome::Failed, now)),
                    5 => {
                        denied.clear();
                        lookup.restart(now + seconds(time % 3));
                    }
                    6 => {
                        let addresses: Vec<_> = (0..n).map(resolver).take(MAX_RESOLVERS).collect();
                        denied.retain(|(it, _)| addresses.contains(it));
                        lookup.set_resolvers(&addresses, now);
                    }
                    _ => now += seconds(time),
                }
            }
            lookup.restart(now);
            lookup.set_resolvers(&[resolver(1)], now);
            for _ in 0..20 {
                let at = lookup.next_timeout();
                prop_assert!(at.is_some_and(|at| at <= now + LAST_RETRY));
                now = now.max(at.unwrap());
                prop_assert_eq!(lookup.poll(now), Some(resolver(1)));
                lookup.finished(resolver(1), &Outcome::Failed, now);
            }
        }
    }
}
