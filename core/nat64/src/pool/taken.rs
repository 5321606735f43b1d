//! The blocks of a pool that subscribers have (RFC 6888 §4).

use std::{collections::VecDeque, sync::Arc};

use hashbrown::HashMap;
use xlat::key::Key;

use crate::{bits::Bits, blocks::Plan, network6::Network6, ports::Ports, session::Tick};

/// A block: the place of its address in the pool, and its number there.
pub(super) type BlockId = (usize, u16);

/// A block that is not free.
#[derive(Clone, Copy, Debug)]
struct Taken {
    /// `None` if there is nothing in it but static bindings.
    owner: Option<Network6>,
    /// Its ports that are taken, of all protocols.
    used: u32,
    /// When it is given back, if it rests.
    due: Option<Tick>,
}

/// The blocks of a shard.
#[derive(Debug)]
pub(super) struct TakenBlocks {
    pub(super) plan: Arc<Plan>,
    taken: HashMap<BlockId, Taken, Key>,
    of_subscriber: HashMap<Network6, Vec<BlockId>, Key>,
    /// By address, then by number.
    free: Vec<Bits>,
    /// Addresses with a free block.
    room: Bits,
    /// In the order in which they are due. One that is in use again, or rests anew, is passed over.
    resting: VecDeque<(Tick, BlockId)>,
    rest: Tick,
    now: Tick,
}

impl TakenBlocks {
    /// None is taken. `addresses` have these ports; a block is given out if it is `owned` by this
    /// shard. It rests for so long before another has it.
    pub(super) fn new<'a>(
        plan: Arc<Plan>,
        addresses: impl Iterator<Item = &'a Ports>,
        owned: impl Fn(u16) -> bool,
        key: Key,
        rest: Tick,
    ) -> Self {
        let free: Vec<_> = addresses
            .map(|ports| {
                let mut free = Bits::new(plan.count().into());
                for number in plan.numbered()..plan.count() {
                    let here = plan.range(number).is_some_and(|it| owned(it.first()));
                    if here && crate::blocks::has_block(&plan, ports, number) {
                        free.insert(number.into());
                    }
                }
                free
            })
            .collect();
        let mut room = Bits::new(free.len());
        for (at, free) in free.iter().enumerate() {
            if free.first_in(0..plan.count().into()).is_some() {
                room.insert(at);
            }
        }
        Self {
            plan,
            taken: HashMap::with_hasher(key),
            of_subscriber: HashMap::with_hasher(key),
            free,
            room,
            resting: VecDeque::new(),
            rest,
            now: 0,
        }
    }

    /// Time goes on from that of another pool.
    pub(super) fn go_on_from(&mut self, other: &Self) {
        self.now = other.now;
    }

    /// From now on blocks rest for so long, those that rest already not longer than that.
    pub(super) fn set_rest(&mut self, rest: Tick) {
        let latest = self.now.saturating_add(rest);
        for (due, block) in &mut self.resting {
            let taken = self.taken.get_mut(block);
            if let Some(taken) = taken.filter(|it| it.due == Some(*due)) {
                taken.due = Some(latest.min(*due));
            }
            *due = latest.min(*due);
        }
        self.rest = rest;
    }

    /// The blocks that a subscriber has, those that rest among them.
    pub(super) fn of(&self, subscriber: &Network6) -> &[BlockId] {
        let of = self.of_subscriber.get(subscriber);
        of.map(Vec::as_slice).unwrap_or_default()
    }

    /// Who has a block.
    pub(super) fn owner(&self, block: BlockId) -> Option<Network6> {
        self.taken.get(&block)?.owner
    }

    /// All that somebody has.
    pub(super) fn owned(&self) -> impl Iterator<Item = (BlockId, Network6)> {
        let all = self.taken.iter();
        all.filter_map(|(block, it)| Some((*block, it.owner?)))
    }

    /// A free block for a subscriber, on the address `at` or on the first one from `start` on.
    pub(super) fn take(
        &mut self,
        subscriber: Network6,
        at: Option<usize>,
        start: usize,
        random: usize,
    ) -> Option<BlockId> {
        let at = at.or_else(|| self.room.first_from(start, 0..self.free.len()))?;
        let count = usize::from(self.plan.count());
        let number = self.free[at].first_from(random % count.max(1), 0..count)?;
        let block = (at, u16::try_from(number).ok()?);
        self.own(block, subscriber);
        // Until a port of it is taken, it is as good as given up.
        self.idle(block);
        Some(block)
    }

    fn own(&mut self, block: BlockId, subscriber: Network6) {
        self.free[block.0].remove(block.1.into());
        if self.free[block.0]
            .first_in(0..self.plan.count().into())
            .is_none()
        {
            self.room.remove(block.0);
        }
        let taken = self.taken.entry(block).or_insert(Taken {
            owner: None,
            used: 0,
            due: None,
        });
        if taken.owner.is_none() {
            taken.owner = Some(subscriber);
            self.of_subscriber
                .entry(subscriber)
                .or_default()
                .push(block);
        }
    }

    /// A block is a subscriber's, as it was in another pool, unless it is nobody's to have or somebody
    /// else's. Whether it is.
    pub(super) fn adopt(&mut self, block: BlockId, subscriber: Network6) -> bool {
        let count = usize::from(self.plan.count());
        let place = usize::from(block.1);
        let free = self.free.get(block.0).filter(|_| place < count);
        if free.is_some_and(|it| it.contains(place)) || self.taken.contains_key(&block) {
            self.own(block, subscriber);
            self.idle(block);
        }
        self.owner(block) == Some(subscriber)
    }

    /// A port of a block was taken.
    pub(super) fn used(&mut self, block: BlockId) {
        if let Some(taken) = self.taken.get_mut(&block) {
            taken.used += 1;
            taken.due = None;
        } else if self.free[block.0].contains(block.1.into()) {
            // By a static binding. The rest of the block is nobody's while it is there.
            self.free[block.0].remove(block.1.into());
            if self.free[block.0]
                .first_in(0..self.plan.count().into())
                .is_none()
            {
                self.room.remove(block.0);
            }
            let (owner, used, due) = (None, 1, None);
            self.taken.insert(block, Taken { owner, used, due });
        }
    }

    /// A port of a block was given up.
    pub(super) fn unused(&mut self, block: BlockId) {
        let Some(taken) = self.taken.get_mut(&block) else {
            return;
        };
        taken.used = taken.used.saturating_sub(1);
        if taken.used > 0 {
            return;
        }
        if taken.owner.is_some() {
            self.idle(block);
        } else {
            self.free_up(block);
        }
    }

    /// An owned block begins to rest, if nothing of it is used.
    fn idle(&mut self, block: BlockId) {
        let due = self.now.saturating_add(self.rest);
        if let Some(taken) = self.taken.get_mut(&block).filter(|it| it.used == 0) {
            taken.due = Some(due);
            self.resting.push_back((due, block));
        }
    }

    /// When the next one has rested.
    pub(super) fn next_due(&self) -> Option<Tick> {
        self.resting.front().map(|(due, _)| *due)
    }

    /// A block that has rested long enough at `now`, with whose it was, until there is none left.
    pub(super) fn next_given(&mut self, now: Tick) -> Option<(BlockId, Network6)> {
        self.now = now;
        loop {
            let (due, block) = *self.resting.front()?;
            if due > now {
                return None;
            }
            self.resting.pop_front();
            let rested = self.taken.get(&block).filter(|it| it.due == Some(due));
            let Some(owner) = rested.and_then(|it| it.owner) else {
                continue;
            };
            self.free_up(block);
            return Some((block, owner));
        }
    }

    fn free_up(&mut self, block: BlockId) {
        let owner = self.taken.remove(&block).and_then(|it| it.owner);
        if let Some(owner) = owner
            && let Some(all) = self.of_subscriber.get_mut(&owner)
        {
            all.retain(|it| *it != block);
            if all.is_empty() {
                self.of_subscriber.remove(&owner);
            }
        }
        self.free[block.0].insert(block.1.into());
        self.room.insert(block.0);
    }
}
