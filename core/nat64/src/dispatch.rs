//! Several shards share the work of one NAT64, and no table: [`Dispatch`] tells which of them a
//! packet belongs to, from the packet alone.
//!
//! * A client's packet belongs to the shard that its address and port hash to. So all of a binding
//!   is made and kept in one shard. With blocks of ports ([`crate::blocks`]) it is the one that its
//!   subscriber hashes or is numbered to, and a block belongs to one shard.
//! * The ports of the pool are dealt out to the shards in chunks, so that a server's packet belongs
//!   to the shard that owns the port it goes to: the one that made the binding.
//! * An ICMP error belongs where the packet belongs that it quotes, seen from the other end.
//! * A fragment, which as a rule shows no ports, belongs to the shard that its addresses and
//!   identification hash to. When that has put the datagram together, it may belong to another one.
//!
//! Two directions of a flow agree because a shard gives out only ports that it owns.

use core::{
    net::Ipv6Addr,
    num::{NonZeroU8, NonZeroU32},
};
use std::sync::Arc;

use hashbrown::HashMap;
use wire::{ipv4::Ipv4, ipv6::Ipv6, verdict::Verdict};
use xlat::{identification::Share, key::Key};

use crate::{
    blocks::{Plan, has_block},
    config::{Config, ErrorPolicy},
    incoming_tuple::{self, Incoming},
    reason::Why,
    tcp::Side,
    tuple::{Endpoint4, Endpoint6, Protocol},
};

/// Ports that are next to each other and belong to the same shard. A multiple of 2, so that every
/// shard has ports of either parity.
const CHUNK: u16 = 16;

/// A shard that had fewer ports of a protocol would be exhausted long before the others.
const LEAST_PORTS: usize = 256;

/// The number of a shard, from 0 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(u8);

impl ShardId {
    /// The only shard of a NAT64 that has one, the first of another.
    pub const FIRST: Self = Self(0);

    /// Every one of so many shards, in order.
    pub fn all(shards: NonZeroU8) -> impl Iterator<Item = Self> {
        (0..shards.get()).map(Self)
    }

    pub(crate) const fn number(self) -> u8 {
        self.0
    }

    /// A place in an array.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a shard has of everything.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) shard: ShardId,
    pub(crate) dispatch: Dispatch,
}

impl Part {
    /// The share of one shard in what all of them may have: at least 1.
    pub(crate) fn of(&self, limit: usize) -> usize {
        limit.div_ceil(usize::from(self.dispatch.shards.get()))
    }

    /// The share of one shard in the errors that all of them may send: together as many as are
    /// allowed, but each at least one, where any is allowed.
    pub(crate) fn of_errors(&self, policy: ErrorPolicy) -> ErrorPolicy {
        let (number, shards) = (self.shard.number(), self.dispatch.shards);
        let share = |all: u32| {
            let one_more = u32::from(u32::from(number) < all % NonZeroU32::from(shards));
            (all / NonZeroU32::from(shards) + one_more).max(all.min(1))
        };
        match policy {
            ErrorPolicy::Limit { burst, per_second } => ErrorPolicy::Limit {
                burst: share(burst),
                per_second: share(per_second),
            },
            ErrorPolicy::Send | ErrorPolicy::Off => policy,
        }
    }

    /// The shard's part of the Identifications of IPv4 packets: all shards write the same addresses
    /// (RFC 6864 §5.3.1).
    pub(crate) fn identifications(&self) -> Share {
        Share {
            number: self.shard.number(),
            of: self.dispatch.shards,
        }
    }

    /// Whether a port is this shard's.
    pub(crate) fn owns(&self, port: u16) -> bool {
        self.dispatch.of_port(port) == self.shard
    }

    /// The shard that a packet belongs to, if that is another one.
    pub(crate) fn elsewhere(&self, packet: &[u8]) -> Option<ShardId> {
        if self.dispatch.shards == NonZeroU8::MIN {
            return None;
        }
        let owner = self.dispatch.owner(packet)?;
        (owner != self.shard).then_some(owner)
    }
}

/// A packet on its way from one shard to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Where to.
    pub to: ShardId,
    pub(crate) stage: Stage,
}

impl Passage {
    /// Whether nothing has been done with the packet yet: it is as it arrived.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.stage == Stage::Arrived
    }
}

/// What has been done with a packet already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing.
    Arrived,
    /// It was counted, admitted, and put together from its fragments.
    Whole,
    /// It is a client's packet to another client, translated to IPv4.
    Hairpin,
    /// It is an ICMPv4 error of our own about a packet from this side, which is accounted for; the
    /// error is not yet.
    OwnError(Side),
}

/// What became of a packet in one shard.
#[derive(Debug)]
#[must_use]
#[expect(
    clippy::large_enum_variant,
    reason = "as with a verdict: a box would allocate"
)]
pub enum Handled {
    /// All that is to be done.
    Here(Verdict<Why>),
    /// The packet, as it is in the buffer now, is to be passed on to another shard
    /// ([`crate::Engine::take_over`]).
    Elsewhere(Passage),
}

/// Which shard a packet belongs to. All shards have the same one.
#[derive(Clone, Debug)]
pub struct Dispatch {
    key: Key,
    shards: NonZeroU8,
    plan: Arc<Plan>,
    /// Static bindings whose client belongs to another shard than their port: here the port decides.
    assigned: HashMap<(Protocol, Endpoint6), Endpoint4, Key>,
}

impl Dispatch {
    /// Deals out to `shards`. `key` must be random, as that of the tables.
    #[must_use]
    pub fn new(config: &Config, key: [u8; 16], shards: NonZeroU8) -> Self {
        let key = Key::new(key);
        Self {
            key,
            shards,
            plan: Arc::new(Plan::new(config)),
            assigned: HashMap::with_hasher(key),
        }
    }

    pub(crate) fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> NonZeroU8 {
        self.shards
    }

    /// The most shards that leave each of them 256 ports of the pool or, with blocks of ports, a
    /// block of each kind.
    #[must_use]
    pub fn most_shards(config: &Config) -> NonZeroU8 {
        let ports: usize = config.pool.iter().map(|entry| entry.ports.most()).sum();
        let plan = Plan::new(config);
        if plan.is_on() {
            return most_with_blocks(config, &plan);
        }
        let most = u8::try_from(ports / LEAST_PORTS).unwrap_or(u8::MAX);
        NonZeroU8::new(most).unwrap_or(NonZeroU8::MIN)
    }

    /// The shard that a client's address and port belong to: the one that their binding is in.
    #[must_use]
    pub fn of_inside(&self, protocol: Protocol, inside: Endpoint6) -> ShardId {
        if !self.assigned.is_empty()
            && let Some(outside) = self.assigned.get(&(protocol, inside))
        {
            return self.of_port(outside.id);
        }
        self.by_hash(inside)
    }

    fn by_hash(&self, inside: Endpoint6) -> ShardId {
        if self.plan.is_on() {
            return self.by_subscriber(inside.address);
        }
        let id = inside.id.to_be_bytes();
        self.reduce(self.key.hash(&[b"client", &inside.address.octets(), &id]))
    }

    /// All that a subscriber has is in one shard: the one that its block by number is in.
    fn by_subscriber(&self, client: Ipv6Addr) -> ShardId {
        if let Some(first) = self.plan.block_of(client).map(|it| it.ports.first()) {
            return self.of_port(first);
        }
        let subscriber = self.plan.subscriber(client);
        self.reduce(self.key.hash(&[b"client", &subscriber.first().octets()]))
    }

    /// The shard that owns a port, or identifier, of any address of the pool.
    #[must_use]
    pub fn of_port(&self, port: u16) -> ShardId {
        let shards = u16::from(self.shards.get());
        let chunk = self.plan.number(port).unwrap_or(port / CHUNK);
        ShardId(u8::try_from(chunk % shards).unwrap_or_default())
    }

    /// A client's binding is to be in the shard that owns `outside`.
    pub(crate) fn assign(&mut self, protocol: Protocol, inside: Endpoint6, outside: Endpoint4) {
        if self.by_hash(inside) != self.of_port(outside.id) {
            self.assigned.insert((protocol, inside), outside);
        }
    }

    /// What [`Self::assign`] said of a client.
    pub(crate) fn assigned(&self, protocol: Protocol, inside: Endpoint6) -> Option<Endpoint4> {
        self.assigned.get(&(protocol, inside)).copied()
    }

    /// Takes back what [`Self::assign`] said of ports that are `gone`.
    pub(crate) fn forget_if(&mut self, gone: impl Fn(Endpoint4) -> bool) {
        self.assigned.retain(|_, outside| !gone(*outside));
    }

    /// Takes back what [`Self::assign`] said of one port.
    pub(crate) fn forget_of(&mut self, protocol: Protocol, outside: Endpoint4) {
        self.assigned
            .retain(|(of, _), known| (*of, *known) != (protocol, outside));
    }

    /// Takes back what [`Self::assign`] said.
    pub(crate) fn forget(&mut self, protocol: Protocol, inside: Endpoint6) {
        self.assigned.remove(&(protocol, inside));
    }

    /// The shard that a packet of either family belongs to. `None` if it is none that any shard
    /// could do something with: whoever has it may say so.
    #[must_use]
    pub fn owner(&self, packet: &[u8]) -> Option<ShardId> {
        if packet.first()? >> 4 == 6 {
            self.owner_v6(&Ipv6::new_checked(packet).ok()?)
        } else {
            self.owner_v4(&Ipv4::new_checked(packet).ok()?)
        }
    }

    fn owner_v6(&self, packet: &Ipv6<'_>) -> Option<ShardId> {
        let fragment = packet.upper().ok()?.fragment;
        if let Some(header) = fragment.filter(|it| it.fragment.is_fragment()) {
            let ends = [packet.src().octets(), packet.dst().octets()];
            return Some(self.of_datagram(&ends[0], &ends[1], &header.id.to_be_bytes()));
        }
        match incoming_tuple::of_v6(packet).ok()? {
            Incoming::Data(tuple, _) => Some(self.of_inside(tuple.protocol, tuple.src)),
            Incoming::Error(quoted) => Some(self.of_inside(quoted.protocol, quoted.dst)),
        }
    }

    fn owner_v4(&self, packet: &Ipv4<'_>) -> Option<ShardId> {
        if packet.fragment().is_fragment() {
            let ends = [packet.src().octets(), packet.dst().octets()];
            return Some(self.of_datagram(&ends[0], &ends[1], &packet.id().to_be_bytes()));
        }
        match incoming_tuple::of_v4(packet).ok()? {
            Incoming::Data(tuple, _) => Some(self.of_port(tuple.dst.id)),
            Incoming::Error(quoted) => Some(self.of_port(quoted.src.id)),
        }
    }

    fn of_datagram(&self, src: &[u8], dst: &[u8], id: &[u8]) -> ShardId {
        self.reduce(self.key.hash(&[b"fragment", src, dst, id]))
    }

    fn reduce(&self, hash: u64) -> ShardId {
        let shard = ((hash >> 32) * u64::from(self.shards.get())) >> 32;
        ShardId(u8::try_from(shard).unwrap_or_default())
    }
}

/// A shard has the blocks whose numbers leave its own number as a remainder. The pool may have the
/// ports of a few of them only.
fn most_with_blocks(config: &Config, plan: &Plan) -> NonZeroU8 {
    let is_there = |number: &u16| {
        let mut pool = config.pool.iter();
        pool.any(|it| has_block(plan, &it.ports, *number))
    };
    let numbers = (0..plan.count()).filter(is_there);
    let kinds: (Vec<_>, Vec<_>) = numbers.partition(|it| *it < plan.numbered());
    let leaves_none_out = |shards: &NonZeroU8| {
        let shards = u16::from(shards.get());
        let is_one_of = |shard, kind: &[u16]| kind.iter().any(|it| it % shards == shard);
        let has = |shard, kind: &[u16]| kind.is_empty() || is_one_of(shard, kind);
        (0..shards).all(|it| has(it, &kinds.0) && has(it, &kinds.1))
    };
    let mut all = (1..=u8::MAX).rev().filter_map(NonZeroU8::new);
    all.find(leaves_none_out).unwrap_or(NonZeroU8::MIN)
}
