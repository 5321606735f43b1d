//! What rests over a restart (RFC 6888 REQ-8).
//!
//! A NAT64 that starts anew knows nothing of the ports that clients had a moment ago, and what servers
//! still send to these would reach others. [`Engine::remains`] is what must rest then, as data;
//! [`Engine::let_rest`] has it rest in an engine that has just begun. What becomes of it between the
//! two is the caller's: a file, or another machine.

use core::net::Ipv4Addr;
use std::collections::BTreeMap;

use xlat::key::Key;

use crate::{
    blocks::PortBlock,
    engine::Engine,
    filtering_and_updating::Tables,
    journal::Change,
    pool::Reserved,
    ports::{PortRange, PortSet},
    random::Random,
    tuple::{Endpoint4, Protocol},
};

/// Ports of one address and protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestingPorts {
    /// The address.
    pub address: Ipv4Addr,
    /// The protocol.
    pub protocol: Protocol,
    /// The ports, or identifiers.
    pub ports: PortSet,
}

/// What must rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// UDP ports and ICMP identifiers that were clients', or rested already. TCP ports do not rest.
    /// With blocks of ports there are none: those are the same subscriber's afterwards.
    pub ports: Vec<RestingPorts>,
    /// Blocks that subscribers were given.
    pub blocks: Vec<PortBlock>,
}

impl Remains {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.blocks.is_empty()
    }
}

impl Engine {
    /// What of this shard must rest if it ends now. Walks all bindings.
    #[must_use]
    pub fn remains(&self) -> Remains {
        self.tables.remains()
    }

    /// Draws ports from now on by `seed`, which must be random. An engine that was given the key of one
    /// that has ended would give out the same ports in the same order as that did (RFC 7857 §9). All
    /// shards may be given the same.
    pub fn draw_ports_anew(&mut self, seed: [u8; 16]) {
        self.tables.random = Random::new(Key::new(seed), self.part.shard.number());
    }

    /// Has rest what `remains` of a NAT64 that has ended, as far as this shard gives it out, for the whole
    /// of [`crate::config::Timers::hold_down`] from now on: to be called before any packet. A block
    /// stays its subscriber's, who may use it at once if both belong to the same shard: that is so with
    /// the key and the number of shards of the NAT64 that has ended. All shards may be given all of it.
    pub fn let_rest(&mut self, remains: &Remains) {
        for resting in &remains.ports {
            for id in resting.ports.iter() {
                let address = resting.address;
                let port = Endpoint4 { address, id };
                self.tables.let_port_rest(resting.protocol, port);
            }
        }
        for block in &remains.blocks {
            self.tables.let_block_rest(*block);
        }
    }
}

impl Tables {
    fn remains(&self) -> Remains {
        let blocks = self.pool.blocks().collect();
        if self.pool.has_blocks() {
            let ports = Vec::new();
            return Remains { ports, blocks };
        }
        let bound = self.bindings().filter(|it| !it.is_static);
        let bound = bound.map(|it| (it.protocol, it.outside));
        let mut all: BTreeMap<(Ipv4Addr, usize), Vec<PortRange>> = BTreeMap::new();
        for (protocol, port) in bound.chain(self.hold_down.resting()) {
            if protocol != Protocol::Tcp
                && let Some(range) = PortRange::new(port.id, port.id)
            {
                let ports = all.entry((port.address, protocol.index())).or_default();
                ports.push(range);
            }
        }
        let resting = |((address, protocol), ports): ((Ipv4Addr, usize), Vec<PortRange>)| {
            let ports = ports.into_iter().collect();
            RestingPorts {
                address,
                protocol: Protocol::ALL[protocol],
                ports,
            }
        };
        let ports = all.into_iter().map(resting).collect();
        Remains { ports, blocks }
    }

    fn let_port_rest(&mut self, protocol: Protocol, port: Endpoint4) {
        let rests = !self.pool.has_blocks() && self.hold_down.has_rest(protocol);
        if rests && self.pool.reserve(protocol, port) == Reserved::Taken {
            self.hold_down.keep(protocol, port);
        }
    }

    fn let_block_rest(&mut self, block: PortBlock) {
        if self.pool.give(block) {
            self.journal.record(Change::BlockTaken(block));
        }
    }
}
