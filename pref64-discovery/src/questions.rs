//! What is asked on every link, of whom, and when: [`Lookup`] for the questions, and besides the
//! search for the resolvers of the link. Has no socket and no clock.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use host::{
    dns::{Known, Link},
    netwatch::Interface,
};
use pref64::{
    dns_query::{Lookup, Outcome, State, Verdict},
    tracker::IfIndex,
};

/// Router advertisements have this start on the first question: what they say is preferred, and a
/// prefix that is replaced at once ends every connection that was made by it. Routers answer within
/// half a second (RFC 4861 §6.2.6).
const HEAD_START: Duration = Duration::from_millis(600);

/// The system's services are asked for resolvers again after that. They may learn of one (by
/// DHCPv6) without a trace in the kernel's tables.
const FIRST_SEARCH: Duration = Duration::from_secs(1);

/// The time between two searches doubles up to this.
const LAST_SEARCH: Duration = Duration::from_secs(60);

/// When there are questions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DnsPolicy {
    /// Never (RFC 7050 §6).
    Off,
    /// While nothing better than DNS gives a prefix (RFC 9872 §3.1).
    #[default]
    Fallback,
    /// Whatever else gives a prefix, and at once.
    Always,
}

/// Something to do, whose end is told to [`Questions::found`] or [`Questions::answered`] with the
/// same number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Find out which resolvers the system knows for a link.
    Find(Link, Number),
    /// Ask a resolver.
    Ask(IfIndex, IpAddr, Number),
}

/// Tells what came from before a restart from what came after.
pub(crate) type Number = u64;

/// The questions on every link.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    links: BTreeMap<IfIndex, Questioned>,
    last: Number,
}

#[derive(Debug)]
struct Questioned {
    link: Link,
    shape: Shape,
    number: Number,
    lookup: Lookup,
    known: Known,
    next_search: Instant,
    search_interval: Duration,
    is_searching: bool,
}

/// What makes a network another one, as far as its resolvers are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shape {
    running: bool,
    /// In which networks the host can send from, sorted.
    networks: Vec<(Ipv6Addr, u8)>,
}

impl Shape {
    fn of(interface: &Interface) -> Self {
        let addresses = interface.addresses.iter().filter(|it| it.preferred);
        let mut networks: Vec<_> = addresses
            .map(|it| (network(it.address, it.prefix_len), it.prefix_len))
            .collect();
        networks.sort_unstable();
        networks.dedup();
        Self {
            running: interface.running,
            networks,
        }
    }
}

fn network(address: Ipv6Addr, prefix_len: u8) -> Ipv6Addr {
    let host_bits = 128u32.saturating_sub(prefix_len.into());
    let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
    Ipv6Addr::from(address.to_bits() & mask)
}

impl Questions {
    /// How an interface is now. The first time, questions about it begin; later they begin anew if
    /// its network may be another one.
    pub(crate) fn observe(
        &mut self,
        interface: &Interface,
        is_default: bool,
        policy: DnsPolicy,
        now: Instant,
    ) {
        let shape = Shape::of(interface);
        let start = match policy {
            DnsPolicy::Off => return,
            DnsPolicy::Fallback => now + HEAD_START,
            DnsPolicy::Always => now,
        };
        let link = Link {
            index: interface.index,
            name: interface.name.clone(),
            is_default,
        };
        let before = self.links.remove(&link.index);
        self.last += 1;
        let questioned = match before {
            Some(mut before) if before.shape == shape && before.link == link => {
                before.link = link;
                before
            }
            Some(mut before) => {
                before.lookup.restart(start);
                Questioned {
                    // Until it is found again.
                    known: before.known,
                    ..Questioned::new((link, shape), self.last, before.lookup, now)
                }
            }
            None => Questioned::new((link, shape), self.last, Lookup::new(start), now),
        };
        self.links.insert(interface.index, questioned);
    }

    /// The interface is on another network, or is not used any more.
    pub(crate) fn forget(&mut self, interface: IfIndex) {
        self.links.remove(&interface);
    }

    /// Only these interfaces matter any more.
    pub(crate) fn retain(&mut self, interfaces: &[IfIndex]) {
        self.links.retain(|index, _| interfaces.contains(index));
    }

    /// What to do now, where questions are `wanted`. `announced` are the servers that routers
    /// announce on a link.
    pub(crate) fn steps(
        &mut self,
        wanted: impl Fn(IfIndex) -> bool,
        announced: impl Fn(IfIndex) -> Vec<IpAddr>,
        now: Instant,
    ) -> Vec<Step> {
        let links = self.links.values_mut();
        let running = links.filter(|it| it.shape.running && wanted(it.link.index));
        running
            .flat_map(|it| {
                let announced = announced(it.link.index);
                it.lookup
                    .set_resolvers(&in_order(announced, &it.known), now);
                [it.search(now), it.question(now)].into_iter().flatten()
            })
            .collect()
    }

    /// When [`Self::steps`] has something to do.
    pub(crate) fn next_timeout(&self, wanted: impl Fn(IfIndex) -> bool) -> Option<Instant> {
        let links = self.links.values();
        let running = links.filter(|it| it.shape.running && wanted(it.link.index));
        let times = running.flat_map(|it| {
            let search = (!it.is_searching).then_some(it.next_search);
            [search, it.lookup.next_timeout()]
        });
        times.flatten().min()
    }

    /// The resolvers that the system knows were found.
    pub(crate) fn found(&mut self, interface: IfIndex, number: Number, known: Known) {
        if let Some(link) = self.current(interface, number) {
            link.is_searching = false;
            link.known = known;
        }
    }

    /// A resolver was asked.
    pub(crate) fn answered(
        &mut self,
        (interface, resolver, number): (IfIndex, IpAddr, Number),
        outcome: &Outcome,
        now: Instant,
    ) -> Verdict {
        match self.current(interface, number) {
            Some(link) => link.lookup.finished(resolver, outcome, now),
            None => Verdict::Unchanged,
        }
    }

    /// What is known on an interface.
    pub(crate) fn state(&self, interface: IfIndex) -> Option<State> {
        self.links.get(&interface).map(|it| it.lookup.state())
    }

    fn current(&mut self, interface: IfIndex, number: Number) -> Option<&mut Questioned> {
        let link = self.links.get_mut(&interface);
        link.filter(|it| it.number == number)
    }
}

impl Questioned {
    fn new((link, shape): (Link, Shape), number: Number, lookup: Lookup, now: Instant) -> Self {
        Self {
            link,
            shape,
            number,
            lookup,
            known: Known::default(),
            next_search: now,
            search_interval: FIRST_SEARCH,
            is_searching: false,
        }
    }

    fn search(&mut self, now: Instant) -> Option<Step> {
        if self.is_searching || now < self.next_search {
            return None;
        }
        self.is_searching = true;
        self.next_search = now + self.search_interval;
        self.search_interval = (self.search_interval * 2).min(LAST_SEARCH);
        Some(Step::Find(self.link.clone(), self.number))
    }

    fn question(&mut self, now: Instant) -> Option<Step> {
        let resolver = self.lookup.poll(now)?;
        Some(Step::Ask(self.link.index, resolver, self.number))
    }
}

/// Routers first, then the link's managers, and what is known of the host alone only if nobody
/// knows better.
fn in_order(announced: Vec<IpAddr>, known: &Known) -> Vec<IpAddr> {
    let mut resolvers = announced;
    resolvers.extend(&known.of_link);
    if resolvers.is_empty() {
        resolvers.extend(&known.of_host);
    }
    resolvers
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::netwatch::Address;
    use wire::ethernet::Mac;

    const LINK: IfIndex = 3;

    fn interface(networks: &[&str]) -> Interface {
        let addresses = networks.iter().map(|network| Address {
            address: format!("{network}1").parse().unwrap(),
            prefix_len: 64,
            preferred: true,
        });
        Interface {
            index: LINK,
            name: "eth0".into(),
            running: true,
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            ipv6_mtu: 1500,
            addresses: addresses.collect(),
            ipv4: Vec::new(),
        }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn observe(questions: &mut Questions, networks: &[&str], now: Instant) {
        questions.observe(&interface(networks), true, DnsPolicy::Fallback, now);
    }

    fn steps(questions: &mut Questions, announced: &[&str], now: Instant) -> Vec<Step> {
        let announced: Vec<_> = announced.iter().map(|it| address(it)).collect();
        questions.steps(|_| true, |_| announced.clone(), now)
    }

    /// Whoever is asked in these steps.
    fn asked(steps: &[Step]) -> Option<(IpAddr, Number)> {
        steps.iter().find_map(|step| match step {
            Step::Ask(LINK, resolver, number) => Some((*resolver, *number)),
            Step::Ask(..) | Step::Find(..) => None,
        })
    }

    #[test]
    fn disc_7050_3_01_the_order_of_resolvers() {
        let known = |of_link: &[&str], of_host: &[&str]| Known {
            of_link: of_link.iter().map(|it| address(it)).collect(),
            of_host: of_host.iter().map(|it| address(it)).collect(),
        };
        let order = |announced: &[&str], known| {
            let announced = announced.iter().map(|it| address(it)).collect();
            let resolvers = in_order(announced, &known);
            let texts: Vec<_> = resolvers.iter().map(ToString::to_string).collect();
            texts.join(" ")
        };
        assert_eq!(
            order(&["fe80::1"], known(&["fe80::2"], &["fe80::3"])),
            "fe80::1 fe80::2"
        );
        assert_eq!(order(&[], known(&["fe80::2"], &["fe80::3"])), "fe80::2");
        assert_eq!(order(&["fe80::1"], known(&[], &["fe80::3"])), "fe80::1");
        assert_eq!(order(&[], known(&[], &["fe80::3"])), "fe80::3");
    }

    /// RFC 9872 §3.1.
    #[test]
    fn disc_8781_5_1_02_router_advertisements_have_a_head_start() {
        let start = Instant::now();
        let mut questions = Questions::default();
        observe(&mut questions, &["2001:db8::"], start);
        assert_eq!(asked(&steps(&mut questions, &["fe80::53"], start)), None);
        let now = start + HEAD_START;
        let resolver = asked(&steps(&mut questions, &["fe80::53"], now)).map(|it| it.0);
        assert_eq!(resolver, Some(address("fe80::53")));

        let mut questions = Questions::default();
        let interface = interface(&["2001:db8::"]);
        questions.observe(&interface, true, DnsPolicy::Always, start);
        assert!(asked(&steps(&mut questions, &["fe80::53"], start)).is_some());
    }

    #[test]
    fn disc_7050_6_01_switched_off_nothing_is_asked() {
        let now = Instant::now();
        let mut questions = Questions::default();
        questions.observe(&interface(&["2001:db8::"]), true, DnsPolicy::Off, now);
        let later = now + HEAD_START;
        assert!(steps(&mut questions, &["fe80::53"], later).is_empty());
        assert_eq!(questions.next_timeout(|_| true), None);
    }

    /// Our own rule. New addresses in the same networks are the same network.
    #[test]
    fn disc_7050_3_04_another_network_is_asked_anew() {
        let start = Instant::now();
        let mut questions = Questions::default();
        observe(&mut questions, &["2001:db8::"], start);
        let mut now = start + HEAD_START;
        let (resolver, number) = asked(&steps(&mut questions, &["fe80::53"], now)).unwrap();
        let no = Outcome::Negative { ttl: None };
        questions.answered((LINK, resolver, number), &no, now);
        assert_eq!(questions.state(LINK), Some(State::NotSynthesised));
        observe(&mut questions, &["2001:db8::", "2001:db8::"], now);
        assert_eq!(asked(&steps(&mut questions, &["fe80::53"], now)), None);

        observe(&mut questions, &["2001:db8::", "2001:db8:1::"], now);
        assert_eq!(questions.state(LINK), Some(State::Asking));
        now += HEAD_START;
        let (_, anew) = asked(&steps(&mut questions, &["fe80::53"], now)).unwrap();
        // What still comes from before is not heard.
        questions.answered((LINK, resolver, number), &no, now);
        assert_eq!(questions.state(LINK), Some(State::Asking));
        questions.answered((LINK, resolver, anew), &no, now);
        assert_eq!(questions.state(LINK), Some(State::NotSynthesised));
        questions.forget(LINK);
        assert_eq!(questions.state(LINK), None);
    }

    /// An address that is not usable yet makes the network no other one; that it becomes usable
    /// does, since the first question may have had no source address.
    #[test]
    fn disc_7050_3_04_a_first_usable_address_is_a_reason_to_ask() {
        let mut tentative = interface(&["2001:db8::"]);
        tentative.addresses[0].preferred = false;
        assert_eq!(Shape::of(&tentative), Shape::of(&interface(&[])));
        assert_ne!(
            Shape::of(&tentative),
            Shape::of(&interface(&["2001:db8::"]))
        );
        assert_eq!(
            network("2001:db8::1".parse().unwrap(), 0),
            Ipv6Addr::from(0)
        );
    }

    #[test]
    fn disc_7050_3_01_the_system_is_searched_ever_more_rarely() {
        let start = Instant::now();
        let mut questions = Questions::default();
        observe(&mut questions, &[], start);
        let (mut now, mut times) = (start, Vec::new());
        while times.len() < 8 {
            let found = steps(&mut questions, &[], now);
            let [Step::Find(link, number)] = &found[..] else {
                panic!("{found:?}");
            };
            assert_eq!(link.name, "eth0");
            times.push((now - start).as_secs());
            assert_eq!(questions.next_timeout(|_| true), None);
            questions.found(LINK, *number, Known::default());
            assert!(steps(&mut questions, &[], now).is_empty());
            now = questions.next_timeout(|_| true).unwrap();
        }
        assert_eq!(times, [0, 1, 3, 7, 15, 31, 63, 123]);
        let known = Known {
            of_link: vec![address("fe80::53")],
            of_host: Vec::new(),
        };
        let number = questions.links[&LINK].number;
        questions.found(LINK, number, known);
        assert!(asked(&steps(&mut questions, &[], now)).is_some());
    }

    #[test]
    fn disc_7050_3_01_nothing_is_asked_where_it_is_not_wanted() {
        let now = Instant::now() + HEAD_START;
        let mut questions = Questions::default();
        let mut down = interface(&["2001:db8::"]);
        down.running = false;
        questions.observe(&down, true, DnsPolicy::Always, now);
        assert!(steps(&mut questions, &["fe80::53"], now).is_empty());
        questions.observe(&interface(&["2001:db8::"]), true, DnsPolicy::Always, now);
        let unwanted = questions.steps(|_| false, |_| vec![address("fe80::53")], now);
        assert!(unwanted.is_empty());
        assert_eq!(questions.next_timeout(|_| false), None);
        assert_eq!(questions.next_timeout(|_| true), Some(now));
    }
}
