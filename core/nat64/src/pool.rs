//! [`Pool`]: the IPv4 addresses and ports that clients share, and which of them are free.

use core::net::Ipv4Addr;
use std::sync::Arc;

use xlat::key::Key;

use crate::{
    bits::Bits,
    blocks::{Plan, PortBlock},
    config::PoolEntry,
    network6::Network6,
    paging::PoolUse,
    ports::PortSet,
    random::Random,
    reason::DropReason,
    session::Tick,
    tuple::{Endpoint4, Endpoint6, Protocol},
    whose::HeldBlock,
};

use self::{
    free_ports::{Class, FreePorts, Layout, reduce},
    taken::{BlockId, TakenBlocks},
};

mod free_ports;
mod taken;

#[derive(Debug)]
struct PoolAddress {
    entry: PoolEntry,
    ports: [FreePorts; 3],
}

/// What became of a port that a static binding wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reserved {
    /// It is taken now.
    Taken,
    /// The address is the pool's, but no client is given this port.
    NotGivenOut,
    /// It is not free.
    Busy,
    /// The address is not the pool's.
    NotInPool,
}

/// The addresses that have a free port of each class, so that finding one costs the same in a full
/// pool as in an empty one.
type Room = [Bits; Class::COUNT];

/// A layout for each set of ports that there is.
#[derive(Default)]
struct Layouts(Vec<(PortSet, Arc<Layout>)>);

impl Layouts {
    fn of(&mut self, set: &PortSet, owned: impl Fn(u16) -> bool) -> Arc<Layout> {
        if let Some((_, known)) = self.0.iter().find(|(of, _)| of == set) {
            return Arc::clone(known);
        }
        let layout = Arc::new(Layout::new(set, owned));
        self.0.push((set.clone(), Arc::clone(&layout)));
        layout
    }
}

/// The pool.
#[derive(Debug)]
pub struct Pool {
    /// Sorted by address.
    addresses: Vec<PoolAddress>,
    /// By protocol.
    room: [Room; 3],
    /// If ports are given in blocks.
    blocks: Option<TakenBlocks>,
}

impl Pool {
    /// A pool of `entries`, everything free.
    #[cfg(test)]
    pub(crate) fn new(entries: &[PoolEntry]) -> Self {
        Self::of_ports(entries, |_| true)
    }

    /// The part of the pool of `entries` that a shard may give out: the ports that are `owned` by
    /// it, of every address.
    pub(crate) fn of_ports(entries: &[PoolEntry], owned: impl Fn(u16) -> bool) -> Self {
        let mut layouts = Layouts::default();
        let mut addresses: Vec<_> = entries
            .iter()
            .map(|entry| PoolAddress {
                entry: entry.clone(),
                ports: Protocol::ALL
                    .map(|protocol| FreePorts::new(layouts.of(entry.ports.of(protocol), &owned))),
            })
            .collect();
        addresses.sort_by_key(|it| it.entry.address);
        let room = Protocol::ALL.map(|protocol| {
            Class::ALL.map(|class| {
                let mut room = Bits::new(addresses.len());
                for (at, address) in addresses.iter().enumerate() {
                    if address.ports[protocol.index()].has_any(class) {
                        room.insert(at);
                    }
                }
                room
            })
        });
        Self {
            addresses,
            room,
            blocks: None,
        }
    }

    /// The same pool, its ports given in blocks if the plan says so. Those that are given up rest
    /// for so long.
    pub(crate) fn in_blocks(
        mut self,
        plan: &Arc<Plan>,
        owned: impl Fn(u16) -> bool,
        key: Key,
        rest: Tick,
    ) -> Self {
        let ports = self.addresses.iter().map(|it| &it.entry.ports);
        let blocks = TakenBlocks::new(Arc::clone(plan), ports, owned, key, rest);
        self.blocks = plan.is_on().then_some(blocks);
        self
    }

    /// Whether ports are given in blocks.
    pub(crate) fn has_blocks(&self) -> bool {
        self.blocks.is_some()
    }

    /// From now on blocks that are given up rest for so long.
    pub(crate) fn set_rest(&mut self, rest: Tick) {
        if let Some(blocks) = &mut self.blocks {
            blocks.set_rest(rest);
        }
    }

    /// When a block that rests is given back.
    pub(crate) fn next_due(&self) -> Option<Tick> {
        self.blocks.as_ref()?.next_due()
    }

    /// A block that nobody has any more at `now`, until there is none left.
    pub(crate) fn next_given(&mut self, now: Tick) -> Option<PortBlock> {
        let (block, owner) = self.blocks.as_mut()?.next_given(now)?;
        self.port_block(block, owner)
    }

    /// The blocks that subscribers have, besides those that follow from their numbers.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = PortBlock> {
        let all = self.blocks.iter().flat_map(TakenBlocks::owned);
        all.filter_map(|(block, owner)| self.port_block(block, owner))
    }

    /// The blocks that are somebody's in another pool are theirs in this one, as far as it has them.
    /// So is the most that was in use of the same address.
    pub(crate) fn adopt(&mut self, other: &Self) {
        for old in &other.addresses {
            if let Some(at) = self.position(old.entry.address) {
                let ports = self.addresses[at].ports.iter_mut().zip(&old.ports);
                ports.for_each(|(new, old)| new.remember(old));
            }
        }
        if let (Some(new), Some(old)) = (&mut self.blocks, &other.blocks) {
            new.go_on_from(old);
        }
        for block in other.blocks() {
            self.give(block);
        }
    }

    /// Whether it gives every port that `other` gives.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        other.addresses.iter().all(|old| {
            let at = self.position(old.entry.address);
            at.is_some_and(|at| self.addresses[at].entry.ports.cover(&old.entry.ports))
        })
    }

    /// Goes on with what is taken of the addresses that are the same in `other`, which has what this
    /// one had for it. Whether these are all that `other` has. Not with blocks, which count it.
    pub(crate) fn keep(&mut self, other: &mut Self) -> bool {
        if self.has_blocks() {
            return false;
        }
        let mut all = true;
        for old in &mut other.addresses {
            let at = self.position(old.entry.address);
            match at.filter(|at| self.addresses[*at].entry == old.entry) {
                Some(at) => {
                    core::mem::swap(&mut self.addresses[at].ports, &mut old.ports);
                    self.look_for_room(at);
                }
                None => all = false,
            }
        }
        all
    }

    fn look_for_room(&mut self, at: usize) {
        for protocol in Protocol::ALL {
            let index = protocol.index();
            for class in Class::ALL {
                let room = &mut self.room[index][class.index()];
                match self.addresses[at].ports[index].has_any(class) {
                    true => room.insert(at),
                    false => room.remove(at),
                }
            }
        }
    }

    /// A block is its subscriber's, if it is one that can be given and that nobody has. Whether it is
    /// its subscriber's then.
    pub(crate) fn give(&mut self, block: PortBlock) -> bool {
        let at = self.position(block.address);
        let (Some(at), Some(blocks)) = (at, &mut self.blocks) else {
            return false;
        };
        let number = blocks.plan.number(block.ports.first());
        let same = number.filter(|it| blocks.plan.range(*it) == Some(block.ports));
        same.is_some_and(|number| blocks.adopt((at, number), block.subscriber))
    }

    /// Who may have a port: the subscriber whose block it is in, and why it is.
    pub(crate) fn held_at(&self, outside: Endpoint4) -> Option<HeldBlock> {
        let blocks = self.blocks.as_ref()?;
        let numbered = blocks.plan.block_at(outside);
        let given = || {
            let at = self.position(outside.address)?;
            let block = (at, blocks.plan.number(outside.id)?);
            self.port_block(block, blocks.owner(block)?)
        };
        Some(HeldBlock {
            block: numbered.or_else(given)?,
            by_number: numbered.is_some(),
        })
    }

    fn port_block(&self, block: BlockId, subscriber: Network6) -> Option<PortBlock> {
        Some(PortBlock {
            subscriber,
            address: self.addresses.get(block.0)?.entry.address,
            ports: self.blocks.as_ref()?.plan.range(block.1)?,
        })
    }

    /// As [`Self::allocate`], in the blocks of the client's subscriber. It gets a new one, which
    /// comes with the port, if those it has are full.
    pub(crate) fn allocate_in_blocks(
        &mut self,
        protocol: Protocol,
        wanted: Endpoint6,
        paired: Option<Ipv4Addr>,
        hash: u64,
        random: &mut Random,
    ) -> Result<(Endpoint4, Option<PortBlock>), DropReason> {
        let blocks = self.blocks.as_ref().ok_or(DropReason::PoolExhausted)?;
        let subscriber = blocks.plan.subscriber(wanted.address);
        let given = blocks.of(&subscriber);
        let full = match given.len() < usize::from(blocks.plan.most_given()) {
            true => DropReason::PoolExhausted,
            false => DropReason::SubscriberBlocks,
        };
        let (dice, number) = (random.next(), random.next());
        let home = blocks.plan.home(wanted.address);
        let home = home.and_then(|(address, it)| Some((self.position(address)?, it)));
        // What is given must be written down: its own first, as long as there is any.
        let own = self.find_in(home.into_iter(), protocol, wanted.id, dice);
        let found = own.or_else(|| self.find_in(given.iter().copied(), protocol, wanted.id, dice));
        if let Some((at, id)) = found {
            return Ok((self.take(at, protocol, id), None));
        }
        let is_numbered = blocks.plan.numbered() > 0;
        if full == DropReason::SubscriberBlocks || (is_numbered && home.is_none()) {
            return Err(DropReason::SubscriberBlocks);
        }
        // All blocks of a subscriber are on one address (RFC 6888 REQ-2).
        let first = home.or_else(|| given.first().copied()).map(|it| it.0);
        let at = first.or_else(|| self.position(paired?));
        let full = at.map_or(full, |_| DropReason::PortsExhausted);
        let start = reduce(hash, self.addresses.len());
        let blocks = self.blocks.as_mut().ok_or(full)?;
        let new = blocks.take(subscriber, at, start, reduce(number, usize::from(u16::MAX)));
        let new = new.ok_or(full)?;
        let found = self.find_in([new].into_iter(), protocol, wanted.id, dice);
        let (at, id) = found.ok_or(full)?;
        Ok((
            self.take(at, protocol, id),
            self.port_block(new, subscriber),
        ))
    }

    /// The port itself that is wanted, or else one that may stand for it, in any of the blocks.
    fn find_in(
        &self,
        blocks: impl Iterator<Item = BlockId> + Clone,
        protocol: Protocol,
        wanted: u16,
        random: u64,
    ) -> Option<(usize, u16)> {
        let plan = &self.blocks.as_ref()?.plan;
        let all = blocks.filter_map(|(at, number)| Some((at, plan.range(number)?)));
        let is_free = |at| self.ports(at, protocol).is_free(wanted);
        let own = all
            .clone()
            .find(|(at, it)| it.contains(wanted) && is_free(*at));
        if let Some((at, _)) = own {
            return Some((at, wanted));
        }
        Class::substitutes(protocol, wanted, random).find_map(|class| {
            let find = |(at, range)| {
                let id = self.ports(at, protocol).find_in(range, class, random)?;
                Some((at, id))
            };
            all.clone().find_map(find)
        })
    }

    /// Whether it was made of these entries, in whatever order.
    pub(crate) fn is_of(&self, entries: &[PoolEntry]) -> bool {
        let known = |entry: &PoolEntry| {
            let at = self.position(entry.address);
            at.is_some_and(|at| self.addresses[at].entry == *entry)
        };
        entries.len() == self.addresses.len() && entries.iter().all(known)
    }

    /// Whether `address` is one of the pool's.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.position(address).is_some()
    }

    /// Whether clients are given this port.
    #[must_use]
    pub fn gives(&self, protocol: Protocol, endpoint: Endpoint4) -> bool {
        let at = self.position(endpoint.address);
        at.is_some_and(|at| {
            self.addresses[at]
                .entry
                .ports
                .of(protocol)
                .contains(endpoint.id)
        })
    }

    /// How many ports of `protocol` are free, over all addresses.
    #[must_use]
    pub fn free(&self, protocol: Protocol) -> usize {
        let ports = self.addresses.iter().map(|it| &it.ports[protocol.index()]);
        ports.map(FreePorts::count).sum()
    }

    /// The use of every address, by protocol.
    pub(crate) fn usage(&self) -> impl Iterator<Item = PoolUse> {
        self.addresses.iter().flat_map(|it| {
            Protocol::ALL.map(|protocol| {
                let ports = &it.ports[protocol.index()];
                PoolUse {
                    address: it.entry.address,
                    protocol,
                    used: ports.len() - ports.count(),
                    ports: ports.len(),
                    most_used: ports.most_taken(),
                }
            })
        })
    }

    fn position(&self, address: Ipv4Addr) -> Option<usize> {
        self.addresses
            .binary_search_by_key(&address, |it| it.entry.address)
            .ok()
    }

    /// Takes a port for a client that uses `wanted` itself: on the address it already has bindings
    /// on (`paired`), even when that is full (RFC 6888 REQ-2), or else on the one its `hash` leads
    /// to.
    ///
    /// The port is the client's own if that is free, or else one of [`Class::substitutes`] that
    /// cannot be foretold (RFC 7857 §9).
    pub(crate) fn allocate(
        &mut self,
        protocol: Protocol,
        wanted: u16,
        paired: Option<Ipv4Addr>,
        hash: u64,
        random: &mut Random,
    ) -> Option<Endpoint4> {
        let paired = match paired {
            Some(address) => Some(self.position(address)?),
            None => None,
        };
        let own = paired.or_else(|| self.address_with(protocol, Class::of(wanted), hash));
        if let Some(at) = own.filter(|at| self.ports(*at, protocol).is_free(wanted)) {
            return Some(self.take(at, protocol, wanted));
        }
        let random = random.next();
        let (at, id) = Class::substitutes(protocol, wanted, random).find_map(|class| {
            let at = paired.or_else(|| self.address_with(protocol, class, hash))?;
            Some((at, self.ports(at, protocol).find(class, random)?))
        })?;
        Some(self.take(at, protocol, id))
    }

    /// The first address from the one that `hash` leads to on with a free port of `class`.
    fn address_with(&self, protocol: Protocol, class: Class, hash: u64) -> Option<usize> {
        let all = 0..self.addresses.len();
        let start = reduce(hash, all.len());
        self.room[protocol.index()][class.index()].first_from(start, all)
    }

    fn ports(&self, at: usize, protocol: Protocol) -> &FreePorts {
        &self.addresses[at].ports[protocol.index()]
    }

    fn take(&mut self, at: usize, protocol: Protocol, id: u16) -> Endpoint4 {
        let address = &mut self.addresses[at];
        let ports = &mut address.ports[protocol.index()];
        ports.take(id);
        if let Some(blocks) = &mut self.blocks
            && let Some(number) = blocks
                .plan
                .number(id)
                .filter(|it| *it < blocks.plan.count())
        {
            blocks.used((at, number));
        }
        let class = Class::of(id);
        if !ports.has_any(class) {
            self.room[protocol.index()][class.index()].remove(at);
        }
        Endpoint4 {
            address: address.entry.address,
            id,
        }
    }

    /// Takes `endpoint` itself, for a static binding.
    pub(crate) fn reserve(&mut self, protocol: Protocol, endpoint: Endpoint4) -> Reserved {
        let Some(at) = self.position(endpoint.address) else {
            return Reserved::NotInPool;
        };
        let ports = self.ports(at, protocol);
        if !ports.has(endpoint.id) {
            return Reserved::NotGivenOut;
        }
        if !ports.is_free(endpoint.id) {
            return Reserved::Busy;
        }
        self.take(at, protocol, endpoint.id);
        Reserved::Taken
    }

    /// Gives a port back. One that is none of the pool's does not become one.
    pub(crate) fn release(&mut self, protocol: Protocol, endpoint: Endpoint4) {
        let Some(at) = self.position(endpoint.address) else {
            return;
        };
        if self.addresses[at].ports[protocol.index()].release(endpoint.id) {
            if let Some(blocks) = &mut self.blocks
                && let Some(number) = blocks.plan.number(endpoint.id)
            {
                blocks.unused((at, number));
            }
            self.room[protocol.index()][Class::of(endpoint.id).index()].insert(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{PortRange, Ports};
    use proptest::prelude::*;
    use std::collections::HashSet;
    use xlat::key::Key;

    const A: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    const B: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

    fn random() -> Random {
        Random::new(Key::new([7; 16]), 0)
    }

    fn pool(first: u16, last: u16) -> Pool {
        let ports = PortRange::new(first, last).unwrap().into();
        Pool::new(&[PoolEntry { address: A, ports }])
    }

    #[test]
    fn plat_3_5_1_1_01_the_clients_own_port_if_it_is_free() {
        let mut pool = pool(1, 65535);
        let mut random = random();
        let mut take = |wanted| pool.allocate(Protocol::Udp, wanted, None, 0, &mut random);
        assert_eq!(take(5000).unwrap().id, 5000);
        assert_ne!(take(5000).unwrap().id, 5000);
    }

    #[test]
    fn plat_3_5_1_1_01_range_and_parity_are_kept() {
        for wanted in [5000, 5001, 80, 81] {
            let mut pool = pool(1, 65535);
            let mut random = random();
            for _ in 0..200 {
                let id = pool
                    .allocate(Protocol::Udp, wanted, None, 0, &mut random)
                    .unwrap()
                    .id;
                assert_eq!(id < 1024, wanted < 1024);
                assert_eq!(id % 2, wanted % 2);
            }
        }
    }

    /// Parity and range give way before the request, but high ports never become low ones.
    #[test]
    fn plat_3_5_1_1_01_preferences_give_way() {
        let mut pool = pool(1000, 1030);
        let mut random = random();
        let mut take = |wanted| pool.allocate(Protocol::Udp, wanted, None, 0, &mut random);
        let high: HashSet<_> = (0..7).map(|_| take(2000).unwrap().id).collect();
        assert_eq!(high, (1024..=1030).collect());
        assert_eq!(take(2000), None);
        let low: HashSet<_> = (0..24).map(|_| take(80).unwrap().id).collect();
        assert_eq!(low, (1000..1024).collect());
        assert_eq!(take(80), None);
    }

    #[test]
    fn plat_3_5_1_1_01_a_changed_port_cannot_be_foretold() {
        let mut pool = pool(1, 65535);
        let mut random = random();
        let ports: Vec<_> = (0..100)
            .map(|_| {
                let port = pool.allocate(Protocol::Tcp, 5000, None, 0, &mut random);
                port.unwrap().id
            })
            .collect();
        let distances: HashSet<_> = ports.windows(2).map(|w| w[1].wrapping_sub(w[0])).collect();
        assert!(distances.len() > 90, "{distances:?}");
    }

    #[test]
    fn a_client_stays_on_its_address_and_others_spread() {
        let ports = Ports::from(PortRange::new(2000, 2003).unwrap());
        let entry = |address| PoolEntry {
            address,
            ports: ports.clone(),
        };
        let mut pool = Pool::new(&[entry(B), entry(A)]);
        let mut random = random();
        let mut take = |paired, hash| pool.allocate(Protocol::Tcp, 2000, paired, hash, &mut random);
        for _ in 0..4 {
            assert_eq!(take(Some(A), 1).unwrap().address, A);
        }
        assert_eq!(take(Some(A), 1), None);
        // A new client goes where there is room.
        for hash in 0..4 {
            assert_eq!(take(None, hash).unwrap().address, B);
        }
        assert_eq!(take(None, 0), None);
    }

    #[test]
    fn protocols_do_not_share_ports_and_released_ones_come_back() {
        let mut pool = pool(7, 7);
        let mut random = random();
        for protocol in Protocol::ALL {
            let taken = pool.allocate(protocol, 7, None, 0, &mut random).unwrap();
            assert_eq!(pool.allocate(protocol, 7, None, 0, &mut random), None);
            pool.release(protocol, taken);
            pool.release(protocol, taken);
            assert_eq!(pool.free(protocol), 1);
            assert!(pool.allocate(protocol, 7, None, 0, &mut random).is_some());
        }
        let strange = Endpoint4 { address: B, id: 7 };
        pool.release(Protocol::Tcp, strange);
        assert!(!pool.contains(B));
    }

    /// However short it was, and also when the pool is replaced.
    #[test]
    fn the_most_that_was_in_use_is_remembered() {
        let mut old = pool(2000, 2009);
        let mut random = random();
        let mut most = |pool: &mut Pool, take: u16| {
            let taken = |_| {
                pool.allocate(Protocol::Udp, 2000, None, 0, &mut random)
                    .unwrap()
            };
            let taken: Vec<_> = (0..take).map(taken).collect();
            for port in taken {
                pool.release(Protocol::Udp, port);
            }
            let used = pool.usage().find(|it| it.protocol == Protocol::Udp);
            let used = used.unwrap();
            (used.used, used.most_used)
        };
        assert_eq!(most(&mut old, 0), (0, 0));
        assert_eq!(most(&mut old, 4), (0, 4));
        assert_eq!(most(&mut old, 2), (0, 4));
        let strange = Endpoint4 { address: B, id: 7 };
        old.release(Protocol::Udp, strange);
        let replaced = |old: &Pool, last| {
            let mut new = pool(2000, last);
            new.adopt(old);
            new
        };
        let mut wider = replaced(&old, 2020);
        assert_eq!(most(&mut wider, 3), (0, 4));
        assert_eq!(most(&mut wider, 6), (0, 6));
        // No more than there are.
        assert_eq!(most(&mut replaced(&old, 2002), 1), (0, 3));
        let tcp = old.usage().find(|it| it.protocol == Protocol::Tcp);
        assert_eq!(tcp.unwrap().most_used, 0);
    }

    #[test]
    fn each_protocol_has_its_own_ranges() {
        let ports = Ports {
            tcp: "2000-2001,3000".parse().unwrap(),
            udp: "1000".parse().unwrap(),
            icmp: "none".parse().unwrap(),
        };
        let mut pool = Pool::new(&[PoolEntry { address: A, ports }]);
        let mut random = random();
        let mut take = |protocol| {
            let got = core::iter::from_fn(|| pool.allocate(protocol, 9, None, 0, &mut random));
            let mut ids: Vec<_> = got.map(|it| it.id).collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(take(Protocol::Tcp), [2000, 2001, 3000]);
        assert_eq!(take(Protocol::Udp), [1000]);
        assert_eq!(take(Protocol::Icmp), [0; 0]);
        let at = |id| Endpoint4 { address: A, id };
        assert!(pool.gives(Protocol::Tcp, at(3000)) && !pool.gives(Protocol::Udp, at(3000)));
        let used: Vec<_> = pool.usage().map(|it| (it.used, it.ports)).collect();
        assert_eq!(used, [(3, 3), (1, 1), (0, 0)]);
    }

    proptest! {
        /// Everything in the range is given out once, and nothing else ever.
        #[test]
        fn every_port_is_given_out_exactly_once(
            first in 1u16..3000,
            len in 1u16..600,
            wanted in proptest::collection::vec(any::<u16>(), 700),
        ) {
            let last = first + len - 1;
            let mut pool = pool(first, last);
            let mut random = random();
            let mut seen = HashSet::new();
            for wanted in wanted {
                if let Some(got) = pool.allocate(Protocol::Icmp, wanted, None, 0, &mut random) {
                    prop_assert!((first..=last).contains(&got.id));
                    prop_assert!(seen.insert(got.id));
                }
            }
            prop_assert_eq!(seen.len(), usize::from(len).min(700));
            prop_assert_eq!(pool.free(Protocol::Icmp), usize::from(len) - seen.len());
        }

        /// Whatever is free and allowed is found, on whichever address it is left, and no high
        /// port ever becomes a low one.
        #[test]
        fn plat_3_5_1_1_01_a_port_is_found_whenever_there_is_one(
            ranges in proptest::collection::vec((1000u16..1040, 1u16..6), 1..80),
            steps in proptest::collection::vec(
                (any::<bool>(), 1000u16..1060, any::<u64>(), any::<prop::sample::Index>()),
                0..400,
            ),
        ) {
            let entries: Vec<_> = (1u32..)
                .zip(&ranges)
                .map(|(n, (first, len))| PoolEntry {
                    address: Ipv4Addr::from_bits(0x0a00_0000 + n),
                    ports: PortRange::new(*first, first + len - 1).unwrap().into(),
                })
                .collect();
            let mut pool = Pool::new(&entries);
            let mut random = random();
            let mut free: HashSet<_> = entries
                .iter()
                .flat_map(|it| it.ports.udp.iter().map(|id| (it.address, id)))
                .collect();
            let mut taken = Vec::new();
            for (take, wanted, hash, at) in steps {
                if take {
                    let got = pool.allocate(Protocol::Udp, wanted, None, hash, &mut random);
                    let allowed = |id: u16| wanted < 1024 || id >= 1024;
                    let best = |id: u16| (id < 1024) == (wanted < 1024) && id % 2 == wanted % 2;
                    match got {
                        Some(got) => {
                            prop_assert!(allowed(got.id));
                            prop_assert!(best(got.id) || !free.iter().any(|(_, id)| best(*id)));
                            prop_assert!(free.remove(&(got.address, got.id)));
                            taken.push(got);
                        }
                        None => prop_assert!(!free.iter().any(|(_, id)| allowed(*id))),
                    }
                } else if !taken.is_empty() {
                    let endpoint = taken.swap_remove(at.index(taken.len()));
                    pool.release(Protocol::Udp, endpoint);
                    free.insert((endpoint.address, endpoint.id));
                }
                prop_assert_eq!(pool.free(Protocol::Udp), free.len());
            }
        }
    }
}
