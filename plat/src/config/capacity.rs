//! What a configuration is good for: clients, sessions, memory.

mod blocks;
mod memory;
mod quota;
#[cfg(test)]
mod tests;
mod text;

use std::net::Ipv6Addr;

use nat64::dispatch::Dispatch;

use super::{Config, pool::PoolRange};

pub use self::{blocks::InBlocks, memory::Memory, quota::AtQuota};

/// What a configuration is good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Addresses that clients get.
    pub addresses: u64,
    /// Ports of TCP, of UDP and identifiers of ICMP queries, of all addresses together.
    pub ports: [u64; 3],
    /// The most bindings there can be: by the pool or by the limit.
    pub bindings: u64,
    /// The most sessions there can be.
    pub sessions: u64,
    /// Blocks of ports, if ports are given in blocks.
    pub blocks: Option<InBlocks>,
    /// Bits of an address that its subscriber is known by.
    pub prefix_len: u8,
    /// Subscribers with all that their quota gives them.
    pub subscribers: AtQuota,
    /// Addresses with all that their quota gives them.
    pub client_addresses: AtQuota,
    /// Workers that the pool has ports for or, with blocks of ports, blocks of each kind.
    pub workers: u8,
    /// Bytes that the tables take at most.
    pub memory: Memory,
}

impl Capacity {
    /// Of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let mut capacity = Self::default();
        let mut bits = 0;
        for range in &config.pool {
            let addresses = usable(range);
            let ports = &range.ports;
            capacity.addresses += addresses;
            let each = [&ports.tcp, &ports.udp, &ports.icmp].map(|it| it.len() as u64);
            for (all, each) in capacity.ports.iter_mut().zip(each) {
                *all += addresses * each;
            }
            bits += addresses * each.iter().sum::<u64>().div_ceil(8);
        }
        let limits = &config.limits;
        let all: u64 = capacity.ports.iter().sum();
        capacity.bindings = all.min(limits.bindings as u64);
        capacity.sessions = limits.sessions as u64;
        capacity.memory = Memory {
            stored_syns: limits.stored_syn_bytes as u64,
            fragments: limits.fragments.bytes as u64,
            ..Memory::of(bits, capacity.bindings, capacity.sessions)
        };
        // What the host adds does not matter here.
        let engine = config.for_engine(Ipv6Addr::LOCALHOST, Vec::new());
        let quotas = &engine.quotas;
        capacity.workers = Dispatch::most_shards(&engine).get();
        capacity.prefix_len = quotas.prefix_len;
        capacity.client_addresses = capacity.on_one_address(&config.pool, quotas.address);
        capacity.blocks = InBlocks::of(config);
        capacity.subscribers = capacity.in_blocks(quotas.subscriber);
        capacity
    }
}

fn usable(range: &PoolRange) -> u64 {
    range.addresses().map(|_| 1).sum()
}
