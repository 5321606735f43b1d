//! For people and for programs.

use std::fmt;

use serde_json::{Value, json};

use super::{Capacity, Memory};

impl Capacity {
    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let [tcp, udp, icmp] = self.ports;
        let Memory {
            pool,
            bindings,
            sessions,
            stored_syns,
            fragments,
        } = self.memory;
        json!({
            "addresses": self.addresses,
            "ports": {"tcp": tcp, "udp": udp, "icmp": icmp},
            "bindings": self.bindings,
            "sessions": self.sessions,
            "workers": self.workers,
            "blocks": self.blocks.map(|it| it.json()),
            "at_full_quota": {
                "subscriber": self.subscribers.json(),
                "address": self.client_addresses.json(),
            },
            "memory_bytes": {
                "pool": pool, "bindings": bindings, "sessions": sessions,
                "stored_syns": stored_syns, "fragments": fragments,
                "in_all": self.memory.in_all(),
            },
        })
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            addresses,
            ports: [tcp, udp, icmp],
            bindings,
            sessions,
            memory,
            ..
        } = self;
        if *addresses == 0 {
            writeln!(f, "pool: left to the host")?;
        } else {
            writeln!(
                f,
                "pool: {addresses} addresses, {tcp} TCP ports, {udp} UDP ports, {icmp} ICMP \
                 identifiers"
            )?;
            writeln!(f, "bindings: at most {bindings}")?;
            if let Some(blocks) = &self.blocks {
                writeln!(f, "blocks of ports: {blocks}")?;
            }
            let of = match self.blocks {
                Some(_) => "a block of each kind",
                None => "ports",
            };
            writeln!(
                f,
                "workers: at most {}, so that each has {of}",
                self.workers
            )?;
            let len = self.prefix_len;
            writeln!(
                f,
                "subscribers (/{len}) at full quota at once: {}",
                self.subscribers
            )?;
            writeln!(
                f,
                "addresses at full quota at once: {}",
                self.client_addresses
            )?;
        }
        writeln!(f, "sessions: at most {sessions}")?;
        write!(
            f,
            "memory: at most {} (pool {}, bindings {}, sessions {}, stored SYNs {}, fragments {})",
            mebibytes(memory.in_all()),
            mebibytes(memory.pool),
            mebibytes(memory.bindings),
            mebibytes(memory.sessions),
            mebibytes(memory.stored_syns),
            mebibytes(memory.fragments)
        )
    }
}

/// Rounded up, so that nothing is taken for free.
fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}
