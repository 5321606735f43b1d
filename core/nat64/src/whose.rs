//! Whose an address and port of the pool is, and which ones a client has: for whoever must answer
//! for what came from them (RFC 7422 §2).
//!
//! What follows from a subscriber's number is answered without a table, so also for clients that are
//! silent. All else is as it is now; who had a port before, the event log tells.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    bib::Binding,
    blocks::PortBlock,
    engine::Engine,
    network6::Network6,
    tuple::{Endpoint4, Protocol},
};

/// A block that a subscriber has, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HeldBlock {
    /// The block.
    pub block: PortBlock,
    /// Whether it follows from the subscriber's number. Otherwise it was given one as it needed it.
    pub by_number: bool,
}

fn was_given(block: PortBlock) -> HeldBlock {
    HeldBlock {
        block,
        by_number: false,
    }
}

impl Engine {
    /// Whether `address` is one of the pool's.
    #[must_use]
    pub fn is_pool_address(&self, address: Ipv4Addr) -> bool {
        self.tables.pool().contains(address)
    }

    /// The block that a port is in, with the subscriber that has it, as far as this shard knows.
    #[must_use]
    pub fn block_at(&self, outside: Endpoint4) -> Option<HeldBlock> {
        self.tables.pool().held_at(outside)
    }

    /// The binding of T,t, if this shard has it.
    #[must_use]
    pub fn binding_at(&self, protocol: Protocol, outside: Endpoint4) -> Option<Binding> {
        let id = self.tables.bib.of_outside(protocol, outside)?;
        Some(*self.tables.bib.get(id))
    }

    /// The blocks that subscribers in `network`, or the one that `network` is in, have in this shard:
    /// at most so many, in no order. Every block is in one shard.
    pub fn blocks_in(&self, network: Network6, most: usize) -> Vec<HeldBlock> {
        let plan = self.part.dispatch.plan();
        let numbered = plan.blocks_in(network).map(|block| HeldBlock {
            block,
            by_number: true,
        });
        let numbered = numbered.filter(|it| self.part.owns(it.block.ports.first()));
        let given = self.given_blocks();
        let given = given.filter(|it| it.subscriber.meets(network));
        numbered.chain(given.map(was_given)).take(most).collect()
    }

    /// The blocks of an address of the pool that this shard has and that are somebody's: at most so
    /// many, in no order.
    pub fn blocks_on(&self, address: Ipv4Addr, most: usize) -> Vec<HeldBlock> {
        let plan = self.part.dispatch.plan();
        let starts = (0..plan.numbered()).filter_map(|number| Some(plan.range(number)?.first()));
        let starts = starts.filter(|id| self.part.owns(*id));
        let numbered = starts.filter_map(|id| {
            let block = plan.block_at(Endpoint4 { address, id })?;
            let by_number = true;
            Some(HeldBlock { block, by_number })
        });
        let given = self.given_blocks().filter(|it| it.address == address);
        numbered.chain(given.map(was_given)).take(most).collect()
    }

    /// The blocks that subscribers were given in this shard, besides those that follow from their
    /// numbers, in no order.
    pub fn given_blocks(&self) -> impl Iterator<Item = PortBlock> {
        self.tables.pool().blocks()
    }

    /// The host whose own an IPv4 address is, by an explicit mapping (RFC 7757).
    #[must_use]
    pub fn mapped_host(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        self.stateless.siit.eamt.to_v6(address)
    }

    /// The IPv4 address that is a host's own, by an explicit mapping (RFC 7757).
    #[must_use]
    pub fn mapped_address(&self, host: Ipv6Addr) -> Option<Ipv4Addr> {
        self.stateless.siit.eamt.to_v4(host)
    }
}
