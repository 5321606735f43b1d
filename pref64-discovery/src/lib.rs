//! Discovery of the NAT64 prefix: [`Discovery`] listens to the network and keeps a
//! [`pref64::tracker::Tracker`] true.
//!
//! Its sources are what a person set, router advertisements (RFC 8781), and `ipv4only.arpa`, asked
//! of the resolvers of each link (RFC 7050).

#![forbid(unsafe_code)]

use std::{
    io,
    mem::{Discriminant, discriminant},
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use cli::seldom::Seldom;
use host::{
    Host,
    clock::Clock,
    dns::{Dns, Known as KnownResolvers},
    netwatch::Snapshot,
    ra::{Datagram, RouterAdvertisements},
};
use pref64::{
    Pref64,
    dns_query::{self, Outcome, Verdict},
    ra_option::{self, Pref64Option},
    tracker::{Change, IfIndex, Source, Tracker},
};
use tokio::task::JoinSet;
use wire::ndp::{self, RouterAdvertisement};

mod query;
mod questions;
mod rdnss;
mod routers;
mod solicitations;

pub use questions::DnsPolicy;
pub use routers::Router;
pub use solicitations::{SOLICITATION_INTERVAL, SOLICITATIONS};

use questions::{Number, Questions, Step};
use rdnss::AnnouncedServers;
use routers::Routers;
use solicitations::Solicitations;

/// Follows the NAT64 prefixes of all interfaces, by what `R` hears and whom `D` reaches.
#[derive(Debug)]
pub struct Discovery<R, D> {
    routers: R,
    clock: Clock,
    dns: D,
    /// Searches and questions. Each ends within ten seconds, and all of them with this.
    tasks: JoinSet<Done>,
    known: Known,
}

/// What was learned, and what is still asked. Has no socket and no clock.
#[derive(Debug, Default)]
struct Known {
    policy: DnsPolicy,
    tracker: Tracker,
    routers: Routers,
    servers: AnnouncedServers,
    solicitations: Solicitations,
    questions: Questions,
    said: Seldom<Ignored>,
}

/// What is ignored, and said so. Anybody on the link can send as much of it as they like.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Ignored {
    Advertisement(Discriminant<ndp::Invalid>),
    Option(Discriminant<ra_option::Ignored>),
}

/// The end of a [`Step`].
#[derive(Debug)]
enum Done {
    Found(IfIndex, Number, KnownResolvers),
    Asked((IfIndex, IpAddr, Number), Outcome),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A router advertisement arrived on an interface; the prefixes there may have changed.
    Advertised {
        /// The interface.
        interface: IfIndex,
        /// What changed.
        changes: Vec<Change>,
    },
    /// A resolver was asked on an interface, and what is known there by DNS may have changed.
    Resolved {
        /// The interface.
        interface: IfIndex,
        /// What is known now.
        state: dns_query::State,
        /// What changed.
        changes: Vec<Change>,
    },
    /// Time passed.
    Expired(Vec<(IfIndex, Change)>),
}

impl<R: RouterAdvertisements, D: Dns> Discovery<R, D> {
    /// Starts to listen. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// The system's: `PermissionDenied` without CAP_NET_RAW.
    pub fn open(
        host: &impl Host<RouterAdvertisements = R, Dns = D>,
        clock: Clock,
        policy: DnsPolicy,
    ) -> io::Result<Self> {
        Ok(Self {
            routers: host.router_advertisements()?,
            clock,
            dns: host.dns()?,
            tasks: JoinSet::new(),
            known: Known {
                policy,
                ..Known::default()
            },
        })
    }

    /// Asks the routers of an interface to advertise themselves, up to three times.
    pub fn solicit(&mut self, interface: IfIndex) {
        self.known.solicitations.start(interface, self.clock.now());
    }

    /// The network as it is now, and the interfaces whose resolvers are to be asked: from the first
    /// call that names one on, and anew when a later call shows that its network may be another.
    pub fn observe(&mut self, snapshot: &Snapshot, interfaces: &[IfIndex]) {
        let (policy, now) = (self.known.policy, self.clock.now());
        let questions = &mut self.known.questions;
        questions.retain(interfaces);
        for interface in interfaces {
            if let Some(it) = snapshot.by_index(*interface) {
                let is_default = snapshot.ipv6_default.first() == Some(interface);
                questions.observe(it, is_default, policy, now);
            }
        }
    }

    /// Uses `prefixes` on an interface, whatever the network says. None ends that.
    pub fn set_manual(&mut self, interface: IfIndex, prefixes: &[Pref64]) -> Vec<Change> {
        self.known.tracker.manual(interface, prefixes)
    }

    /// Forgets what was learned on an interface, which is on another network now.
    pub fn forget(&mut self, interface: IfIndex) -> Vec<Change> {
        self.known.routers.forget(interface);
        self.known.servers.forget(interface);
        self.known.questions.forget(interface);
        self.known.solicitations.stop(interface);
        self.known.tracker.forget_learned(interface)
    }

    /// What is known.
    #[must_use]
    pub fn tracker(&self) -> &Tracker {
        &self.known.tracker
    }

    /// The prefixes to use on an interface, best first.
    #[must_use]
    pub fn prefixes(&self, interface: IfIndex) -> Vec<Pref64> {
        let usable = self.known.tracker.usable(interface, self.clock.now());
        usable.map(|entry| entry.prefix).collect()
    }

    /// Every prefix that holds on an interface, used for new flows or not.
    #[must_use]
    pub fn live(&self, interface: IfIndex) -> Vec<Pref64> {
        let live = self.known.tracker.live(interface, self.clock.now());
        live.map(|entry| entry.prefix).collect()
    }

    /// The default routers of an interface, the most recently heard first.
    #[must_use]
    pub fn routers(&self, interface: IfIndex) -> Vec<Router> {
        self.known.routers.live(interface, self.clock.now())
    }

    /// The routers that announce `prefix` on an interface, default routers or not.
    #[must_use]
    pub fn announcers(&self, interface: IfIndex, prefix: Pref64) -> Vec<Ipv6Addr> {
        let live = self.known.tracker.live(interface, self.clock.now());
        let of_prefix = live.filter(|it| it.prefix == prefix);
        of_prefix
            .filter_map(|it| match it.source {
                Source::Ra { router } => Some(router),
                Source::Manual | Source::Dns { .. } => None,
            })
            .collect()
    }

    /// What is known by DNS on an interface; `None` if nobody is to be asked there.
    #[must_use]
    pub fn dns(&self, interface: IfIndex) -> Option<dns_query::State> {
        self.known.questions.state(interface)
    }

    /// Waits until something happens. May be dropped while it waits, and called again.
    ///
    /// # Errors
    /// The system's, when the socket can no longer be used.
    pub async fn next(&mut self) -> io::Result<Event> {
        loop {
            let now = self.clock.now();
            self.send_solicitations(now);
            let expired = self.known.tracker.expire(now);
            if !expired.is_empty() {
                return Ok(Event::Expired(expired));
            }
            self.take_steps(now);
            let timeout = self.known.next_timeout(now);
            let timeout = timeout.map(|at| self.clock.until(at));
            let event = tokio::select! {
                datagram = self.routers.recv() => self.known.hear(&datagram?, self.clock.now()),
                // A task that was ended tells nothing.
                Some(done) = self.tasks.join_next() => {
                    done.ok().and_then(|done| self.known.done(done, self.clock.now()))
                }
                () = sleep(timeout) => None,
            };
            if let Some(event) = event {
                return Ok(event);
            }
        }
    }

    fn send_solicitations(&mut self, now: Instant) {
        for interface in self.known.solicitations.take_due(now) {
            if let Err(error) = self.routers.solicit(interface) {
                tracing::debug!("no router solicitation on interface {interface}: {error}");
            }
        }
    }

    fn take_steps(&mut self, now: Instant) {
        for step in self.known.steps(now) {
            match step {
                Step::Find(link, number) => {
                    let dns = self.dns.clone();
                    self.tasks.spawn(async move {
                        Done::Found(link.index, number, dns.resolvers(&link).await)
                    });
                }
                Step::Ask(interface, resolver, number) => {
                    let server = query::socket_address(interface, resolver, query::PORT);
                    let dns = self.dns.clone();
                    self.tasks.spawn(async move {
                        let outcome = query::ask(dns, interface, server).await;
                        Done::Asked((interface, resolver, number), outcome)
                    });
                }
            }
        }
    }
}

impl Known {
    fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let questions = self.questions.next_timeout(self.dns_is_wanted(now));
        let (expiry, solicitations) = (self.tracker.next_expiry(), self.solicitations.next());
        let fading = self.tracker.next_fading(now);
        [expiry, fading, solicitations, questions]
            .into_iter()
            .flatten()
            .min()
    }

    fn steps(&mut self, now: Instant) -> Vec<Step> {
        let wanted = dns_is_wanted(self.policy, &self.tracker, now);
        let announced = |interface| self.servers.live(interface, now).collect();
        self.questions.steps(wanted, announced, now)
    }

    fn dns_is_wanted(&self, now: Instant) -> impl Fn(IfIndex) -> bool {
        dns_is_wanted(self.policy, &self.tracker, now)
    }

    fn done(&mut self, done: Done, now: Instant) -> Option<Event> {
        match done {
            Done::Found(interface, number, known) => {
                self.questions.found(interface, number, known);
                None
            }
            Done::Asked(asked, outcome) => self.answered(asked, &outcome, now),
        }
    }

    fn answered(
        &mut self,
        asked: (IfIndex, IpAddr, Number),
        outcome: &Outcome,
        now: Instant,
    ) -> Option<Event> {
        let (interface, resolver, _) = asked;
        let before = self.questions.state(interface);
        let changes = match self.questions.answered(asked, outcome, now) {
            Verdict::Unchanged => Vec::new(),
            Verdict::Prefixes { prefixes, lifetime } => self
                .tracker
                .dns(interface, resolver, &prefixes, lifetime, now),
            Verdict::Withdrawn => self.tracker.dns_withdrawn(interface),
        };
        let state = self.questions.state(interface)?;
        let is_news = before != Some(state) || !changes.is_empty();
        is_news.then_some(Event::Resolved {
            interface,
            state,
            changes,
        })
    }

    fn hear(&mut self, datagram: &Datagram, now: Instant) -> Option<Event> {
        let Datagram {
            interface,
            envelope,
            message,
        } = datagram;
        let advertisement = match RouterAdvertisement::new_checked(envelope, message) {
            Ok(advertisement) => advertisement,
            Err(invalid) => {
                let kind = Ignored::Advertisement(discriminant(&invalid));
                if let Some(left_out) = self.said.say(kind, now) {
                    tracing::warn!(
                        "ignored a router advertisement on interface {interface}: {invalid}{left_out}"
                    );
                }
                return None;
            }
        };
        // Others are still asked: they may be default routers, and know the prefix.
        if advertisement.router_lifetime() != 0 {
            self.solicitations.stop(*interface);
        }
        self.routers
            .hear(*interface, envelope.src, &advertisement, now);
        self.servers.hear(*interface, &advertisement, now);
        let options = self.read_options(*interface, &advertisement, now);
        let changes = self.tracker.ra(*interface, envelope.src, &options, now);
        Some(Event::Advertised {
            interface: *interface,
            changes,
        })
    }

    /// The PREF64 options of an advertisement; those that must be ignored are logged.
    fn read_options(
        &mut self,
        interface: IfIndex,
        advertisement: &RouterAdvertisement<'_>,
        now: Instant,
    ) -> Vec<Pref64Option> {
        let options = advertisement.options.iter().filter_map(Pref64Option::parse);
        let mut log = |ignored: &ra_option::Ignored| {
            let kind = Ignored::Option(discriminant(ignored));
            if let Some(left_out) = self.said.say(kind, now) {
                tracing::warn!(
                    "ignored a PREF64 option on interface {interface}: {ignored}{left_out}"
                );
            }
        };
        options
            .filter_map(|option| option.inspect_err(&mut log).ok())
            .collect()
    }
}

/// Where DNS is to be asked: with [`DnsPolicy::Fallback`], where nothing better gives a prefix that
/// is going to hold.
fn dns_is_wanted(policy: DnsPolicy, tracker: &Tracker, now: Instant) -> impl Fn(IfIndex) -> bool {
    move |interface| match policy {
        DnsPolicy::Off => false,
        DnsPolicy::Always => true,
        DnsPolicy::Fallback => tracker.needs_dns(interface, now),
    }
}

async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cli::lines::logged;
    use proptest::prelude::*;
    use wire::{
        checksum::pseudo_v6,
        ndp::{ALL_NODES, Envelope, HOP_LIMIT},
    };

    /// A router's link-local address.
    pub(crate) fn router(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, n)
    }

    /// A router advertisement with a correct checksum.
    pub(crate) fn advertisement(
        from: Ipv6Addr,
        router_lifetime: u16,
        options: &[u8],
    ) -> (Envelope, Vec<u8>) {
        let mut message = vec![134, 0, 0, 0, 64, 0];
        message.extend(router_lifetime.to_be_bytes());
        message.extend([0; 8]);
        message.extend(options);
        let envelope = Envelope {
            src: from,
            dst: ALL_NODES,
            hop_limit: HOP_LIMIT,
        };
        (envelope, with_checksum(&envelope, message))
    }

    fn with_checksum(envelope: &Envelope, mut message: Vec<u8>) -> Vec<u8> {
        if message.len() >= 4 {
            message[2..4].fill(0);
            let len = message.len() as u32;
            let (src, dst) = (envelope.src.octets(), envelope.dst.octets());
            let sum = pseudo_v6(src, dst, 58, len).bytes(&message).checksum();
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        message
    }

    fn options_in(envelope: &Envelope, message: &[u8]) -> Vec<Pref64Option> {
        let advertisement = RouterAdvertisement::new_checked(envelope, message);
        advertisement.map_or_else(
            |_| Vec::new(),
            |it| Known::default().read_options(3, &it, Clock::start().now()),
        )
    }

    fn option(prefix: &str, seconds: u64) -> [u8; 16] {
        let option = Pref64Option {
            prefix: prefix.parse().unwrap(),
            lifetime: Duration::from_secs(seconds),
        };
        option.to_bytes()
    }

    /// Whoever is on the link can send as much as they like.
    #[test]
    fn a_flood_of_what_is_ignored_is_a_few_lines() {
        let now = Clock::start().now();
        let mut known = Known::default();
        let mut bad_code = option("2001:db8:1::/96", 600);
        bad_code[3] |= 7;
        let (envelope, message) = advertisement(router(1), 1800, &[bad_code; 50].concat());
        let with_options = Datagram {
            interface: 3,
            envelope,
            message,
        };
        let mut forged = with_options.clone();
        forged.envelope.hop_limit = 254;
        let flood = |known: &mut Known, at| {
            for _ in 0..100 {
                known.hear(&with_options, at);
                known.hear(&forged, at);
            }
        };
        assert_eq!(logged(|| flood(&mut known, now)), 2);
        assert_eq!(logged(|| flood(&mut known, now)), 0);
        let later = now + cli::seldom::PERIOD;
        assert_eq!(logged(|| flood(&mut known, later)), 2);
    }

    /// RFC 8781 §4: an option that must be ignored does not spoil those around it.
    #[test]
    fn disc_8781_4_01_a_bad_option_is_passed_over() {
        let mut bad_code = option("2001:db8:1::/96", 600);
        bad_code[3] |= 7;
        let mut bad_octet = option("2001:db8:2::/96", 600);
        bad_octet[12] = 1;
        let unknown = [200, 1, 0, 0, 0, 0, 0, 0];
        let short = [38, 1, 0, 0, 0, 0, 0, 0];
        let options = [
            &bad_code[..],
            &option("2001:db8:3::/96", 600),
            &unknown,
            &short,
            &bad_octet,
            &option("64:ff9b::/96", 0),
        ];
        let (envelope, message) = advertisement(router(1), 1800, &options.concat());
        let read = options_in(&envelope, &message);
        let prefixes: Vec<_> = read.iter().map(|it| it.prefix.to_string()).collect();
        assert_eq!(prefixes, ["2001:db8:3::/96", "64:ff9b::/96"]);
        assert!(read[1].lifetime.is_zero());
    }

    /// RFC 4861 §6.1.2: an option of length zero spoils all.
    #[test]
    fn disc_8781_4_02_an_invalid_advertisement_says_nothing() {
        let good = option("64:ff9b::/96", 600);
        let (envelope, message) = advertisement(router(1), 1800, &good);
        assert_eq!(options_in(&envelope, &message).len(), 1);
        let far = Envelope {
            hop_limit: 254,
            ..envelope
        };
        assert!(options_in(&far, &message).is_empty());
        let global = "2001:db8::1".parse().unwrap();
        let (envelope, message) = advertisement(global, 1800, &good);
        assert!(options_in(&envelope, &message).is_empty());
        let zero = [&good[..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
        let (envelope, message) = advertisement(router(1), 1800, &zero);
        assert!(options_in(&envelope, &message).is_empty());
    }

    fn hear(known: &mut Known, lifetime: u16, options: &[u8], now: Instant) -> Option<Event> {
        let (envelope, message) = advertisement(router(1), lifetime, options);
        let datagram = Datagram {
            interface: 3,
            envelope,
            message,
        };
        known.hear(&datagram, now)
    }

    /// The router's own lifetime is about the default route alone, and only a default router ends
    /// the solicitations (RFC 4861 §6.3.7).
    #[test]
    fn disc_8781_5_1_01_a_router_of_lifetime_zero_still_announces_prefixes() {
        let now = Instant::now();
        let mut known = Known::default();
        known.solicitations.start(3, now);
        let prefix = option("64:ff9b::/96", 600);
        let event = hear(&mut known, 0, &prefix, now);
        let Some(Event::Advertised { interface, changes }) = event else {
            panic!("not heard");
        };
        assert_eq!((interface, changes.len()), (3, 1));
        assert!(known.routers.live(3, now).is_empty());
        assert_eq!(known.next_timeout(now), Some(now));
        // A default router that stops being one does not take its prefixes with it.
        hear(&mut known, 1800, &prefix, now);
        assert_eq!(known.routers.live(3, now).len(), 1);
        let expiry = now + Duration::from_secs(600);
        assert_eq!(known.tracker.next_expiry(), Some(expiry));
        hear(&mut known, 0, &[], now);
        assert_eq!(known.tracker.usable(3, now).count(), 1);
        assert!(known.routers.live(3, now).is_empty());
    }

    #[test]
    fn disc_8781_4_02_an_invalid_advertisement_has_no_effect() {
        let now = Instant::now();
        let mut known = Known::default();
        known.solicitations.start(3, now);
        let (envelope, mut message) = advertisement(router(1), 1800, &option("64:ff9b::/96", 600));
        message[20] ^= 1;
        let datagram = Datagram {
            interface: 3,
            envelope,
            message,
        };
        assert_eq!(known.hear(&datagram, now), None);
        assert!(known.tracker.known(3).is_empty());
        assert!(known.routers.live(3, now).is_empty());
        assert_eq!(known.next_timeout(now), Some(now));
    }

    fn interface(networks: &[&str]) -> Snapshot {
        let address = |network: &&str| host::netwatch::Address {
            address: network.parse().unwrap(),
            prefix_len: 64,
            preferred: true,
        };
        let interface = host::netwatch::Interface {
            index: 3,
            name: "eth0".into(),
            running: true,
            mac: None,
            ipv6_mtu: 1500,
            addresses: networks.iter().map(address).collect(),
            ipv4: Vec::new(),
        };
        Snapshot {
            interfaces: vec![interface],
            ..Snapshot::default()
        }
    }

    /// Knows one interface, whose router announces a resolver.
    fn known(policy: DnsPolicy, now: Instant) -> Known {
        let mut known = Known {
            policy,
            ..Known::default()
        };
        let snapshot = interface(&["2001:db8::1"]);
        let interface = &snapshot.interfaces[0];
        known.questions.observe(interface, true, policy, now);
        let servers = ndp::DnsServer::option(&[router(53)], 600);
        hear(&mut known, 1800, &servers, now);
        known
    }

    /// Whoever is asked now.
    fn asked(known: &mut Known, now: Instant) -> Option<(IfIndex, IpAddr, Number)> {
        let steps = known.steps(now);
        steps.into_iter().find_map(|step| match step {
            Step::Ask(interface, resolver, number) => Some((interface, resolver, number)),
            Step::Find(..) => None,
        })
    }

    fn answer(prefix: &str, ttl: u64) -> Outcome {
        let prefix: Pref64 = prefix.parse().unwrap();
        Outcome::Addresses {
            addresses: pref64::well_known_name::ADDRESSES
                .map(|it| prefix.embed(it))
                .into(),
            ttl: Duration::from_secs(ttl),
        }
    }

    fn first(known: &Known, now: Instant) -> Option<String> {
        let mut usable = known.tracker.usable(3, now);
        usable.next().map(|it| it.prefix.to_string())
    }

    /// RFC 9872 §3.1: DNS is asked for want of something better, and a late advertisement
    /// replaces what it said, at once.
    #[test]
    fn disc_8781_5_1_02_dns_is_asked_until_a_router_announces_a_prefix() {
        let start = Instant::now();
        let mut known = known(DnsPolicy::Fallback, start);
        assert_eq!(asked(&mut known, start), None);
        let now = start + Duration::from_secs(1);
        let question = asked(&mut known, now).unwrap();
        assert_eq!(question.1, IpAddr::from(router(53)));
        let event = known.answered(question, &answer("64:ff9b::/96", 60), now);
        let Some(Event::Resolved { state, changes, .. }) = event else {
            panic!("{event:?}");
        };
        assert_eq!(state, dns_query::State::Synthesised(question.1));
        assert!(matches!(changes[..], [Change::Added(_)]));
        assert_eq!(first(&known, now), Some("64:ff9b::/96".into()));

        let event = hear(&mut known, 1800, &option("2001:db8:64::/96", 600), now);
        let Some(Event::Advertised { changes, .. }) = event else {
            panic!("{event:?}");
        };
        assert!(matches!(
            changes[..],
            [Change::Added(_), Change::Preferred { .. }]
        ));
        assert_eq!(first(&known, now), Some("2001:db8:64::/96".into()));
        // Nobody is asked meanwhile, not even when the answer is over; but then at once.
        let later = now + Duration::from_secs(400);
        known.tracker.expire(later);
        assert_eq!(asked(&mut known, later), None);
        assert!(known.next_timeout(later).unwrap() > later);
        hear(&mut known, 1800, &option("2001:db8:64::/96", 0), later);
        assert!(asked(&mut known, later).is_some());
    }

    /// No connection has to end with the router, if DNS says the same.
    #[test]
    fn disc_8781_5_1_02_dns_is_asked_before_the_routers_prefix_is_over() {
        let start = Instant::now();
        let mut known = known(DnsPolicy::Fallback, start);
        let at = |seconds| start + Duration::from_secs(seconds);
        hear(&mut known, 1800, &option("64:ff9b::/96", 400), start);
        assert_eq!(asked(&mut known, at(299)), None);
        assert_eq!(known.next_timeout(at(299)), Some(at(300)));
        let question = asked(&mut known, at(300)).unwrap();
        known.answered(question, &answer("64:ff9b::/96", 600), at(300));
        // It goes on as the resolver's.
        known.tracker.expire(at(400));
        assert_eq!(first(&known, at(400)), Some("64:ff9b::/96".into()));
        // Had the router spoken again, nobody would be asked.
        hear(&mut known, 1800, &option("64:ff9b::/96", 400), at(400));
        assert_eq!(asked(&mut known, at(450)), None);
    }

    #[test]
    fn disc_8781_5_1_02_all_sources_are_asked_if_wanted() {
        let now = Instant::now();
        let mut known = known(DnsPolicy::Always, now);
        hear(&mut known, 1800, &option("2001:db8:64::/96", 600), now);
        let question = asked(&mut known, now).unwrap();
        known.answered(question, &answer("64:ff9b::/96", 60), now);
        assert_eq!(first(&known, now), Some("2001:db8:64::/96".into()));
        assert_eq!(known.tracker.known(3).len(), 2);
    }

    #[test]
    fn disc_7050_6_01_no_resolver_is_asked_when_it_is_switched_off() {
        let now = Instant::now();
        let mut known = known(DnsPolicy::Off, now);
        let later = now + Duration::from_secs(60);
        assert!(known.steps(later).is_empty());
        assert_eq!(known.questions.state(3), None);
    }

    #[test]
    fn disc_7050_3_04_a_prefix_that_is_not_synthesised_any_more_is_gone() {
        let start = Instant::now();
        let mut known = known(DnsPolicy::Always, start);
        let question = asked(&mut known, start).unwrap();
        known.answered(question, &answer("64:ff9b::/96", 60), start);
        let now = start + Duration::from_secs(50);
        let question = asked(&mut known, now).unwrap();
        let event = known.answered(question, &answer("2001:db8:64::/96", 60), now);
        let Some(Event::Resolved { changes, .. }) = event else {
            panic!("{event:?}");
        };
        assert!(matches!(
            changes[..],
            [Change::Withdrawn(_), Change::Added(_)]
        ));
        let now = now + Duration::from_secs(50);
        let question = asked(&mut known, now).unwrap();
        let none = Outcome::Negative { ttl: None };
        known.answered(question, &none, now);
        assert_eq!(first(&known, now), None);
    }

    proptest! {
        /// Whatever arrives: nothing panics, and what is learned is a prefix of RFC 6052 from a
        /// link-local router.
        #[test]
        fn disc_8781_4_01_whatever_arrives_only_prefixes_are_learned(
            mut message in proptest::collection::vec(any::<u8>(), 0..200),
            shaped in any::<bool>(),
            link_local in prop::bool::weighted(0.8),
            hop_limit in prop_oneof![4 => Just(255u8), 1 => any::<u8>()],
        ) {
            let src = if link_local { router(1) } else { "2001:db8::1".parse().unwrap() };
            let envelope = Envelope { src, dst: ALL_NODES, hop_limit };
            if shaped && message.len() >= 32 {
                // A header, then PREF64 options of any content.
                message.truncate(message.len() / 16 * 16);
                message[..2].copy_from_slice(&[134, 0]);
                for option in message[16..].chunks_mut(16) {
                    option[..2].copy_from_slice(&[38, 2]);
                }
            }
            let message = with_checksum(&envelope, message);
            let now = Instant::now();
            let learned = options_in(&envelope, &message);
            let mut tracker = Tracker::new();
            tracker.ra(3, src, &learned, now);
            for entry in tracker.known(3) {
                prop_assert!(link_local && hop_limit == 255);
                let prefix = entry.prefix;
                prop_assert_eq!(Pref64::new(prefix.address(), prefix.length().bits()), Ok(prefix));
                prop_assert!(entry.expires.is_some_and(|at| at > now));
            }
        }
    }
}
