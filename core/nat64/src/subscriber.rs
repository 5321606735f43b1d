//! `Subscribers`: what each of them has, and how much it may have (RFC 6888 REQ-3, REQ-4).
//!
//! A subscriber is a network of clients, a /64 unless configured otherwise: its hosts can take any
//! number of addresses in it. Within it, each address has a quota of its own, so that one host does
//! not take what its neighbours need. Whoever is over quota is refused; nobody's state is ended for
//! another's (RFC 6888 REQ-11).

use core::{net::Ipv6Addr, time::Duration};

use hashbrown::HashMap;
use xlat::key::Key;

use crate::{
    bucket::{Bucket, Rate},
    network6::Network6,
    reason::DropReason,
    refused::{Refused, RefusedList},
    session::Tick,
    tcp::Side,
    tuple::Protocol,
};

/// How much one may have at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Bindings, of each protocol: ports of the pool.
    pub bindings: usize,
    /// Sessions, of all protocols. Those that servers begin may take half of it.
    pub sessions: usize,
    /// Sessions that may be begun, per second in the long run. Bindings are made with a session, so
    /// it limits those as well.
    pub new_per_second: usize,
    /// Sessions that may be begun at once after a pause: from 1 to what comes back in
    /// [`Self::LONGEST_BURST`].
    pub burst: usize,
}

impl Quota {
    /// Everything.
    pub const UNLIMITED: Self = Self {
        bindings: usize::MAX,
        sessions: usize::MAX,
        new_per_second: usize::MAX,
        burst: usize::MAX,
    };

    /// Seconds in which a bucket is full again at the latest. Every session lives as long, and who
    /// has none is forgotten.
    pub const LONGEST_BURST: usize = 60;

    /// Whether the burst comes back in [`Self::LONGEST_BURST`].
    pub(crate) fn is_burst_short(&self) -> bool {
        self.burst <= self.new_per_second.saturating_mul(Self::LONGEST_BURST)
    }

    fn rate(&self) -> Rate {
        Rate {
            per_second: self.new_per_second,
            burst: self.burst,
        }
    }

    fn map(self, part: impl Fn(usize) -> usize) -> Self {
        Self {
            bindings: part(self.bindings),
            sessions: part(self.sessions),
            new_per_second: part(self.new_per_second),
            burst: part(self.burst),
        }
    }
}

/// The quotas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Bits of an address that its subscriber is known by: 64 unless each has more.
    pub prefix_len: u8,
    /// Of a subscriber.
    pub subscriber: Quota,
    /// Of an address.
    pub address: Quota,
    /// Networks without quotas.
    pub exempt: Vec<Network6>,
}

impl Quotas {
    /// No quotas.
    #[must_use]
    pub fn unlimited() -> Self {
        Self {
            prefix_len: 64,
            subscriber: Quota::UNLIMITED,
            address: Quota::UNLIMITED,
            exempt: Vec::new(),
        }
    }

    /// What leaves room for others in a NAT64 with so many `ports` of each protocol, that may have
    /// so many `sessions`: all but an eighth for a subscriber, and an eighth for an address; where an eighth is
    /// under 1024 ports, a quarter up to those 1024, which a browser with a full day can need.
    #[must_use]
    pub fn of_capacity(ports: usize, sessions: usize) -> Self {
        let least = (ports / 4).clamp(1, 1024);
        Self {
            subscriber: Quota {
                bindings: all_but_an_eighth(ports),
                sessions: all_but_an_eighth(sessions),
                ..Quota::UNLIMITED
            },
            address: Quota {
                bindings: (ports / 8).max(least),
                sessions: (sessions / 8).max(1),
                ..Quota::UNLIMITED
            },
            ..Self::unlimited()
        }
    }

    /// The part that one of several shards grants: the flows of a subscriber are spread evenly.
    pub(crate) fn part(self, part: impl Fn(usize) -> usize) -> Self {
        let share = |n| if n == usize::MAX { n } else { part(n) };
        Self {
            subscriber: self.subscriber.map(share),
            address: self.address.map(share),
            ..self
        }
    }

    fn is_exempt(&self, address: Ipv6Addr) -> bool {
        self.exempt.iter().any(|network| network.contains(address))
    }
}

fn all_but_an_eighth(all: usize) -> usize {
    (all - all.div_ceil(8)).max(1)
}

/// What one has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Account {
    bindings: [u32; 3],
    sessions: u32,
    /// Sessions that it may begin.
    begun: Bucket,
}

/// What a client wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) protocol: Protocol,
    pub(crate) inside: Ipv6Addr,
    /// Who begins the session.
    pub(crate) side: Side,
    /// Whether it needs a binding, besides.
    pub(crate) binding: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Bindings,
    Sessions,
    Rate,
}

impl Account {
    fn is_empty(&self) -> bool {
        self.sessions == 0 && self.bindings == [0; 3]
    }

    fn check(&self, quota: &Quota, wish: &Wish, now: Duration) -> Result<(), Over> {
        let at = |count: u32, limit: usize| count as usize >= limit;
        let sessions = match wish.side {
            Side::V6 => quota.sessions,
            // Otherwise anybody outside could use up what a client has for its own.
            Side::V4 => quota.sessions.div_ceil(2),
        };
        if wish.binding && at(self.bindings[wish.protocol.index()], quota.bindings) {
            Err(Over::Bindings)
        } else if at(self.sessions, sessions) {
            Err(Over::Sessions)
        } else if wish.side == Side::V6 && self.begun.is_empty(quota.rate(), now) {
            Err(Over::Rate)
        } else {
            Ok(())
        }
    }

    fn add(&mut self, other: &Self) {
        for (all, one) in self.bindings.iter_mut().zip(other.bindings) {
            *all += one;
        }
        self.sessions += other.sessions;
    }

    /// What a client begins is taken from its bucket.
    fn opened(&mut self, quota: &Quota, side: Side, now: Duration) {
        self.sessions += 1;
        if side == Side::V6 {
            self.begun.take(quota.rate(), now);
        }
    }
}

/// All of a shard's.
#[derive(Debug)]
pub(crate) struct Subscribers {
    quotas: Quotas,
    subscribers: HashMap<Network6, Account, Key>,
    addresses: HashMap<Ipv6Addr, Account, Key>,
    refused: RefusedList,
    /// The time since the start.
    now: Duration,
}

impl Subscribers {
    pub(crate) fn new(quotas: Quotas, key: Key) -> Self {
        Self {
            quotas,
            subscribers: HashMap::with_hasher(key),
            addresses: HashMap::with_hasher(key),
            refused: RefusedList::new(key),
            now: Duration::ZERO,
        }
    }

    /// It is so long after the start.
    pub(crate) fn set_now(&mut self, now: Duration) {
        self.now = now;
    }

    /// Goes on with other quotas. Whoever has more by now keeps it, and gets no more.
    pub(crate) fn set_quotas(&mut self, quotas: Quotas) {
        if self.quotas.prefix_len != quotas.prefix_len {
            let key = *self.subscribers.hasher();
            let old = core::mem::replace(&mut self.subscribers, HashMap::with_hasher(key));
            for (address, account) in &self.addresses {
                let network = Network6::around(*address, quotas.prefix_len);
                let subscriber = self.subscribers.entry(network).or_default();
                subscriber.add(account);
                let before = Network6::around(*address, self.quotas.prefix_len);
                if let Some(before) = old.get(&before) {
                    subscriber.begun = subscriber.begun.min(before.begun);
                }
            }
        }
        if self.quotas != quotas {
            let rate = quotas.subscriber.rate();
            for account in self.subscribers.values_mut() {
                account.begun.turn_to(rate, self.now);
            }
            let rate = quotas.address.rate();
            for account in self.addresses.values_mut() {
                account.begun.turn_to(rate, self.now);
            }
        }
        self.quotas = quotas;
    }

    fn subscriber(&self, address: Ipv6Addr) -> Network6 {
        Network6::around(address, self.quotas.prefix_len)
    }

    /// Whether the quotas allow it. Nothing is booked yet.
    pub(crate) fn check(&self, wish: &Wish) -> Result<(), DropReason> {
        if self.quotas.is_exempt(wish.inside) {
            return Ok(());
        }
        let none = Account::default();
        let address = self.addresses.get(&wish.inside).unwrap_or(&none);
        let of_address = address.check(&self.quotas.address, wish, self.now);
        of_address.map_err(|over| match over {
            Over::Bindings => DropReason::AddressBindings,
            Over::Sessions => DropReason::AddressSessions,
            Over::Rate => DropReason::AddressRate,
        })?;
        let network = self.subscriber(wish.inside);
        let subscriber = self.subscribers.get(&network).unwrap_or(&none);
        let of_subscriber = subscriber.check(&self.quotas.subscriber, wish, self.now);
        of_subscriber.map_err(|over| match over {
            Over::Bindings => DropReason::SubscriberBindings,
            Over::Sessions => DropReason::SubscriberSessions,
            Over::Rate => DropReason::SubscriberRate,
        })
    }

    fn change(&mut self, address: Ipv6Addr, change: impl Fn(&mut Account, &Quota)) {
        let network = self.subscriber(address);
        let of_address = self.addresses.entry(address).or_default();
        change(of_address, &self.quotas.address);
        if of_address.is_empty() {
            self.addresses.remove(&address);
        }
        let of_subscriber = self.subscribers.entry(network).or_default();
        change(of_subscriber, &self.quotas.subscriber);
        if of_subscriber.is_empty() {
            self.subscribers.remove(&network);
        }
    }

    /// A binding was made.
    pub(crate) fn bound(&mut self, protocol: Protocol, address: Ipv6Addr) {
        self.change(address, |it, _| it.bindings[protocol.index()] += 1);
    }

    /// A binding has ended.
    pub(crate) fn unbound(&mut self, protocol: Protocol, address: Ipv6Addr) {
        let at = protocol.index();
        self.change(address, |it, _| {
            it.bindings[at] = it.bindings[at].saturating_sub(1);
        });
    }

    /// A session was made, that one of the sides began.
    pub(crate) fn opened(&mut self, address: Ipv6Addr, side: Side) {
        let now = self.now;
        self.change(address, |it, quota| it.opened(quota, side, now));
    }

    /// A session has ended.
    pub(crate) fn closed(&mut self, address: Ipv6Addr) {
        self.change(address, |it, _| it.sessions = it.sessions.saturating_sub(1));
    }

    /// A client was refused something for want of room.
    pub(crate) fn refuse(&mut self, address: Ipv6Addr, why: DropReason, now: Tick) {
        let network = self.subscriber(address);
        self.refused.note(network, why, now);
    }

    /// Who was refused something, in no order.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (Network6, Refused)> {
        self.refused.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NO: Quota = Quota::UNLIMITED;

    fn address(network: u16, host: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host)
    }

    fn subscribers(subscriber: Quota, address: Quota) -> Subscribers {
        let quotas = Quotas {
            subscriber,
            address,
            ..Quotas::unlimited()
        };
        Subscribers::new(quotas, Key::new([1; 16]))
    }

    fn wish(inside: Ipv6Addr, side: Side) -> Wish {
        Wish {
            protocol: Protocol::Udp,
            inside,
            side,
            binding: side == Side::V6,
        }
    }

    #[test]
    fn natb_6888_01_sessions_per_second_are_limited() {
        let quota = Quota {
            new_per_second: 2,
            burst: 3,
            ..NO
        };
        let mut all = subscribers(NO, quota);
        let one = address(1, 1);
        // A burst after each pause, and then two a second, evenly.
        for (now, may_begin) in [(5_900, 3), (6_000, 0), (6_400, 1), (6_899, 0), (7_900, 3)] {
            all.set_now(Duration::from_millis(now));
            for _ in 0..may_begin {
                assert_eq!(all.check(&wish(one, Side::V6)), Ok(()));
                all.opened(one, Side::V6);
            }
            let refused = Err(DropReason::AddressRate);
            assert_eq!(all.check(&wish(one, Side::V6)), refused, "{now}");
            // What servers begin is none of the client's doing.
            assert_eq!(all.check(&wish(one, Side::V4)), Ok(()));
            all.opened(one, Side::V4);
            assert_eq!(all.check(&wish(address(1, 2), Side::V6)), Ok(()));
        }
        let quota = Quota { burst: 2, ..quota };
        let mut all = subscribers(quota, NO);
        all.opened(address(1, 1), Side::V6);
        all.opened(address(1, 2), Side::V6);
        let refused = Err(DropReason::SubscriberRate);
        assert_eq!(all.check(&wish(address(1, 3), Side::V6)), refused);
        assert_eq!(all.check(&wish(address(2, 1), Side::V6)), Ok(()));
        // Counted by another network, what was begun was begun.
        all.set_quotas(Quotas {
            prefix_len: 48,
            ..all.quotas.clone()
        });
        assert_eq!(all.check(&wish(address(2, 1), Side::V6)), refused);
    }

    /// However long they would have had to wait by the old ones.
    #[test]
    fn natb_6888_01_other_quotas_hold_for_those_who_wait_too() {
        let slow = Quota {
            new_per_second: 1,
            burst: 60,
            ..NO
        };
        let fast = Quota {
            new_per_second: 1000,
            burst: 10,
            ..NO
        };
        let one = address(1, 1);
        let used_up = |subscriber, address, exempt| {
            let mut all = subscribers(subscriber, address);
            all.quotas.exempt = exempt;
            all.set_now(Duration::from_secs(5));
            (0..1000).for_each(|_| all.opened(one, Side::V6));
            all
        };
        let begins = |all: &mut Subscribers, subscriber, address| {
            all.set_quotas(Quotas {
                subscriber,
                address,
                exempt: Vec::new(),
                ..all.quotas.clone()
            });
            all.set_now(all.now + Duration::from_millis(1));
            all.check(&wish(one, Side::V6))
        };
        for quota in [NO, fast] {
            let mut all = used_up(slow, NO, Vec::new());
            assert_eq!(begins(&mut all, quota, NO), Ok(()));
            let mut all = used_up(NO, slow, Vec::new());
            assert_eq!(begins(&mut all, NO, quota), Ok(()));
        }
        // Who was exempt has used up a burst, and no more.
        let mut all = used_up(slow, NO, vec![Network6::around(one, 64)]);
        let refused = Err(DropReason::SubscriberRate);
        assert_eq!(begins(&mut all, slow, NO), refused);
        all.set_now(all.now + Duration::from_secs(1));
        assert_eq!(all.check(&wish(one, Side::V6)), Ok(()));
    }

    /// A server cannot use up what a client needs for its own sessions.
    #[test]
    fn natb_6888_01_outsiders_get_half_of_the_sessions() {
        let mut all = subscribers(NO, Quota { sessions: 5, ..NO });
        let one = address(1, 1);
        let mut from_outside = 0;
        while all.check(&wish(one, Side::V4)).is_ok() {
            all.opened(one, Side::V4);
            from_outside += 1;
        }
        assert_eq!(from_outside, 3);
        all.opened(one, Side::V6);
        assert_eq!(all.check(&wish(one, Side::V6)), Ok(()));
        all.opened(one, Side::V6);
        let refused = Err(DropReason::AddressSessions);
        assert_eq!(all.check(&wish(one, Side::V6)), refused);
    }

    #[test]
    fn natb_6888_01_defaults_leave_room_for_others() {
        for ports in [1, 10, 4535, 65_535, 16_000_000] {
            let quotas = Quotas::of_capacity(ports, 1_000_000);
            let (address, all) = (quotas.address.bindings, quotas.subscriber.bindings);
            assert!(address > 0 && address <= all && all <= ports);
            // Others find something whatever a subscriber does, and a network that is alone has
            // nearly all.
            assert!(ports - all >= ports / 8 && (all > ports / 2 || ports == 1));
            assert!(ports - all > 0 || ports == 1);
        }
        assert_eq!(Quotas::of_capacity(4535, 9).address.bindings, 1024);
        assert_eq!(Quotas::of_capacity(65_535, 9).address.bindings, 8191);
        let two = Quotas::of_capacity(4000, 9).part(|n| n.div_ceil(2));
        assert_eq!(two.subscriber.bindings, 1750);
        assert_eq!(two.subscriber.new_per_second, usize::MAX);
    }

    proptest! {
        /// Against lists that are counted anew every time.
        #[test]
        fn natb_6888_01_equals_a_slow_model(
            (of_subscriber, of_address) in (1usize..8, 1usize..5),
            (sessions_of_subscriber, sessions_of_address) in (1usize..12, 1usize..8),
            steps in proptest::collection::vec(
                (0u8..4, 0usize..3, 1u16..3, 1u16..4, any::<prop::sample::Index>()), 1..200,
            ),
        ) {
            let quota = |bindings, sessions| Quota { bindings, sessions, ..NO };
            let mut all = subscribers(
                quota(of_subscriber, sessions_of_subscriber),
                quota(of_address, sessions_of_address),
            );
            let mut bindings: Vec<(Protocol, Ipv6Addr)> = Vec::new();
            let mut sessions: Vec<Ipv6Addr> = Vec::new();
            for (what, protocol, network, host, at) in steps {
                let protocol = Protocol::ALL[protocol];
                let inside = address(network, host);
                match what {
                    0 | 1 => {
                        let wish = Wish { protocol, inside, side: Side::V6, binding: what == 0 };
                        let near = |it: &Ipv6Addr| it.segments()[3] == network;
                        let bound = bindings.iter().filter(|it| it.0 == protocol);
                        let bound_near = bound.clone().filter(|it| near(&it.1)).count();
                        let bound_here = bound.filter(|it| it.1 == inside).count();
                        let open_near = sessions.iter().filter(|it| near(it)).count();
                        let open_here = sessions.iter().filter(|it| **it == inside).count();
                        let expected = if what == 0 && bound_here >= of_address {
                            Err(DropReason::AddressBindings)
                        } else if open_here >= sessions_of_address {
                            Err(DropReason::AddressSessions)
                        } else if what == 0 && bound_near >= of_subscriber {
                            Err(DropReason::SubscriberBindings)
                        } else if open_near >= sessions_of_subscriber {
                            Err(DropReason::SubscriberSessions)
                        } else {
                            Ok(())
                        };
                        prop_assert_eq!(all.check(&wish), expected);
                        if expected.is_ok() {
                            if what == 0 {
                                all.bound(protocol, inside);
                                bindings.push((protocol, inside));
                            }
                            all.opened(inside, Side::V6);
                            sessions.push(inside);
                        }
                    }
                    2 if !bindings.is_empty() => {
                        let (protocol, inside) = bindings.swap_remove(at.index(bindings.len()));
                        all.unbound(protocol, inside);
                    }
                    3 if !sessions.is_empty() => {
                        all.closed(sessions.swap_remove(at.index(sessions.len())));
                    }
                    _ => {}
                }
            }
            // Counted anew, it is the same.
            let before = all.subscribers.len();
            for prefix_len in [48, 64] {
                all.set_quotas(Quotas { prefix_len, ..Quotas::unlimited() });
                prop_assert!(prefix_len == 64 || all.subscribers.len() == before.min(1));
            }
            prop_assert_eq!(all.subscribers.len(), before);
            for (protocol, inside) in bindings {
                all.unbound(protocol, inside);
            }
            for inside in sessions {
                all.closed(inside);
            }
            // Nobody is remembered for nothing.
            prop_assert!(all.addresses.is_empty() && all.subscribers.is_empty());
        }
    }
}
