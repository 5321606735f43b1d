//! What a configuration is good for: clients, sessions, memory.

use std::{fmt, net::Ipv6Addr};

use nat64::{
    blocks::{self, Blocks},
    config::Limits,
    subscriber::Quota,
};
use serde_json::{Value, json};

use super::{Config, pool::PoolRange};

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
    /// Bytes that the tables take at most.
    pub memory: Memory,
}

/// How many clients of a kind may have all that their quota gives them, at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtQuota {
    /// How many bindings of each protocol one has then.
    pub bindings: u64,
    /// How many sessions one has then.
    pub sessions: u64,
    /// For how many there are ports of TCP, ports of UDP, and identifiers.
    pub by_ports: [u64; 3],
    /// For how many there are sessions.
    pub by_sessions: u64,
}

/// Blocks of ports, of all addresses together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InBlocks {
    /// Those that follow from subscribers' numbers.
    pub numbered: u64,
    /// Ports that each of these has, of each protocol.
    pub numbered_size: u64,
    /// Those that are given as they are needed.
    pub given: u64,
    /// Ports that each of these has, of each protocol.
    pub given_size: u64,
    /// How many of these a subscriber may have.
    pub given_most: u64,
}

impl InBlocks {
    fn of(config: &Config) -> Option<Self> {
        let (numbered_size, given_size, given_most) = match config.blocks {
            Blocks::None => return None,
            Blocks::Dynamic(it) => (0, it.size.get(), it.most.get()),
            Blocks::Deterministic(it) => (it.size(), it.spare_size.get(), it.spare_most),
        };
        let mut all = Self {
            numbered_size: numbered_size.into(),
            given_size: given_size.into(),
            given_most: given_most.into(),
            ..Self::default()
        };
        for range in &config.pool {
            let (numbered, given) = blocks::whole(config.blocks, &range.ports);
            all.numbered += usable(range) * u64::from(numbered);
            all.given += usable(range) * u64::from(given);
        }
        Some(all)
    }

    /// The ports that a subscriber with a quota of `bindings` may have, and for how many
    /// subscribers there are blocks for so many.
    fn at_quota(&self, bindings: u64) -> (u64, u64) {
        let most = self.given_most.min(self.given);
        let ports = bindings.min(self.numbered_size + most * self.given_size);
        let beyond = ports.saturating_sub(self.numbered_size);
        let blocks = beyond.div_ceil(self.given_size.max(1));
        let by_given = self.given.checked_div(blocks).unwrap_or(u64::MAX);
        match self.numbered {
            0 => (ports, by_given),
            numbered => (ports, by_given.min(numbered)),
        }
    }
}

impl fmt::Display for InBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            numbered,
            numbered_size,
            given,
            given_size,
            given_most,
        } = self;
        if *numbered > 0 {
            write!(f, "{numbered} of {numbered_size} ports by number")?;
        }
        if *given > 0 {
            let comma = if *numbered > 0 { ", " } else { "" };
            write!(
                f,
                "{comma}{given} of {given_size} to be given, at most {given_most} to one"
            )?;
        }
        Ok(())
    }
}

/// Bytes of the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The table of free ports, which has a bit for each. It is always there.
    pub pool: u64,
    /// Bindings.
    pub bindings: u64,
    /// Sessions.
    pub sessions: u64,
    /// SYNs of servers that no client expects.
    pub stored_syns: u64,
    /// Fragments that wait for the rest of their datagram.
    pub fragments: u64,
}

impl Memory {
    /// Of so many bindings and sessions.
    #[must_use]
    pub fn of(pool: u64, bindings: u64, sessions: u64) -> Self {
        Self {
            pool,
            bindings: bindings * Limits::BYTES_PER_BINDING as u64,
            sessions: sessions * Limits::BYTES_PER_SESSION as u64,
            ..Self::default()
        }
    }

    /// All together.
    #[must_use]
    pub fn in_all(&self) -> u64 {
        let Self {
            pool,
            bindings,
            sessions,
            stored_syns,
            fragments,
        } = self;
        pool + bindings + sessions + stored_syns + fragments
    }
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
        // What the host adds does not matter to quotas.
        let quotas = config.for_engine(Ipv6Addr::LOCALHOST, Vec::new()).quotas;
        capacity.prefix_len = quotas.prefix_len;
        capacity.client_addresses = capacity.on_one_address(&config.pool, quotas.address);
        capacity.blocks = InBlocks::of(config);
        capacity.subscribers = capacity.in_blocks(quotas.subscriber);
        capacity
    }

    /// A quota of bindings is of each protocol; that of sessions is of all of them.
    fn at_quota(&self, quota: Quota) -> AtQuota {
        let (bindings, sessions) = (quota.bindings as u64, quota.sessions as u64);
        let bound = self.ports.map(|it| it.min(self.bindings));
        AtQuota {
            bindings,
            sessions,
            by_ports: bound.map(|it| it / bindings.max(1)),
            by_sessions: self.sessions / sessions.max(1),
        }
    }

    /// As [`Self::at_quota`] of a client's address, which stays on one address of the pool (RFC 6888
    /// REQ-2): of that it has no more ports than there are, and what others leave is not enough.
    fn on_one_address(&self, pool: &[PoolRange], quota: Quota) -> AtQuota {
        let each = |range: &PoolRange| {
            let ports = &range.ports;
            [&ports.tcp, &ports.udp, &ports.icmp].map(|it| it.len() as u64)
        };
        let most = pool.iter().flat_map(each).max().unwrap_or_default();
        let bindings = quota
            .bindings
            .min(usize::try_from(most).unwrap_or(usize::MAX));
        let mut at_quota = self.at_quota(Quota { bindings, ..quota });
        for (at, count) in at_quota.by_ports.iter_mut().enumerate() {
            let clients = pool.iter().map(|range| {
                // Fewer ports than the quota serve one client, with all of them.
                let ports = each(range)[at];
                usable(range) * (ports / at_quota.bindings.max(1)).max(ports.min(1))
            });
            let by_limit = self.bindings / at_quota.bindings.max(1);
            *count = clients.sum::<u64>().min(by_limit);
        }
        at_quota
    }

    /// As [`Self::at_quota`]; with blocks of ports a subscriber has no more than its blocks.
    fn in_blocks(&self, quota: Quota) -> AtQuota {
        let Some(blocks) = self.blocks else {
            return self.at_quota(quota);
        };
        let (ports, subscribers) = blocks.at_quota(quota.bindings as u64);
        let bindings = usize::try_from(ports).unwrap_or(usize::MAX);
        let mut at_quota = self.at_quota(Quota { bindings, ..quota });
        for count in &mut at_quota.by_ports {
            *count = subscribers.min(*count);
        }
        at_quota
    }

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

impl InBlocks {
    fn json(&self) -> Value {
        json!({
            "numbered": self.numbered,
            "numbered_size": self.numbered_size,
            "given": self.given,
            "given_size": self.given_size,
            "given_most": self.given_most,
        })
    }
}

impl AtQuota {
    fn json(&self) -> Value {
        let [tcp, udp, icmp] = self.by_ports;
        json!({
            "bindings_each": self.bindings,
            "sessions_each": self.sessions,
            "by_ports": {"tcp": tcp, "udp": udp, "icmp": icmp},
            "by_sessions": self.by_sessions,
        })
    }
}

fn usable(range: &PoolRange) -> u64 {
    range.addresses().map(|_| 1).sum()
}

impl fmt::Display for AtQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [tcp, udp, icmp] = self.by_ports;
        write!(
            f,
            "{tcp} by TCP ports, {udp} by UDP ports, {icmp} by ICMP identifiers ({} of each), {} by \
             sessions ({})",
            self.bindings, self.by_sessions, self.sessions
        )
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

#[cfg(test)]
mod tests {
    use super::{super::tests::settled, *};

    fn capacity(text: &str) -> Capacity {
        Capacity::of(&settled(text).unwrap())
    }

    #[test]
    fn a_pool_holds_as_much_as_its_ports() {
        let text = "pool = [\"203.0.113.0/30\", {range = \"198.51.100.1-198.51.100.2\", \
                    tcp = \"1024-2047\", udp = \"1024-2047\", icmp = \"1024-2047\"}]\n\
                    [limits]\nbindings = 1000\nsessions = 2000\nfragment_bytes = 1048576";
        let whole = capacity(text);
        // The first of the network is left out.
        assert_eq!(whole.addresses, 3 + 2);
        assert_eq!(whole.ports, [3 * 65_535 + 2 * 1024; 3]);
        let memory = Memory {
            pool: 3 * 24_576 + 2 * 384,
            bindings: 45_000,
            sessions: 150_000,
            stored_syns: 128 * 1024,
            fragments: 1 << 20,
        };
        assert_eq!(whole.memory, memory);
        assert_eq!(memory.in_all(), 74_496 + 195_000 + 131_072 + 1_048_576);
        assert!(whole.to_string().contains("bindings: at most 1000\n"));
        let small = "pool = [{address = \"203.0.113.1\", tcp = \"7\", udp = \"7\", icmp = \"7\"}]";
        assert_eq!(capacity(small).bindings, 3);
        let open = capacity("").to_string();
        assert!(open.starts_with("pool: left to the host\n"), "{open}");
        assert!(!open.contains("quota"), "{open}");
    }

    /// What an operator compares with the number of clients.
    #[test]
    fn clients_at_full_quota_are_told_by_protocol() {
        let quota = "quota.subscriber.bindings = 30\nquota.subscriber.sessions = 50\n\
                     quota.address.bindings = 10\nquota.address.sessions = 20\n";
        let entry = "{address = \"203.0.113.1\", tcp = \"1-3000\", udp = \"1-600\", \
                     icmp = \"none\"}";
        let limited = |more: &str| capacity(&format!("{quota}pool = [{entry}]\n{more}"));
        let whole = limited("");
        assert_eq!(whole.subscribers.by_ports, [100, 20, 0]);
        assert_eq!(whole.client_addresses.by_ports, [300, 60, 0]);
        assert_eq!(whole.subscribers.by_sessions, 1_000_000 / 50);
        let said = whole.to_string();
        let line = "subscribers (/64) at full quota at once: 100 by TCP ports, 20 by UDP ports, 0 by \
                    ICMP identifiers (30 of each), 20000 by sessions (50)\n";
        assert!(said.contains(line), "{said}");
        assert!(
            said.contains("addresses at full quota at once: 300 by"),
            "{said}"
        );
        assert_eq!(
            whole.json()["at_full_quota"]["subscriber"]["by_ports"]["udp"],
            20
        );
        // All protocols share the limit of bindings.
        assert_eq!(
            limited("limits.bindings = 900").subscribers.by_ports,
            [30, 20, 0]
        );
        assert_eq!(
            limited("limits.sessions = 1000").subscribers.by_sessions,
            20
        );
    }

    /// A client's address stays on one of the pool's: what is left on two of them is not enough.
    #[test]
    fn natb_6888_01_an_address_has_no_more_than_one_of_the_pool() {
        let of = |bindings: u64| {
            let entry = |at: u8| {
                format!(
                    "{{address = \"203.0.113.{at}\", tcp = \"1-1000\", udp = \"1-1000\", icmp = \"none\"}}"
                )
            };
            let text = format!(
                "quota.address.bindings = {bindings}\npool = [{}, {}]",
                entry(1),
                entry(2)
            );
            let of_address = capacity(&text).client_addresses;
            (of_address.bindings, of_address.by_ports)
        };
        assert_eq!(of(300), (300, [6, 6, 0]));
        assert_eq!(of(400), (400, [4, 4, 0]));
        assert_eq!(of(1500), (1000, [2, 2, 0]));
    }

    /// A subscriber has no more ports than its blocks have.
    #[test]
    fn blocks_limit_who_is_at_full_quota() {
        let pool = "pool = [\"203.0.113.1\", \"203.0.113.2\"]\nlimits.bindings = 4000000\n";
        let dynamic = "blocks = { mode = \"dynamic\", size = 512, most = 4 }\n";
        let subscribers = capacity(&format!("{dynamic}{pool}")).subscribers;
        // 126 blocks of each address.
        assert_eq!(subscribers.bindings, 2048);
        assert_eq!(subscribers.by_ports, [2 * 126 / 4; 3]);
        let by_number = "blocks = { mode = \"deterministic\", subscribers = 14, spare = 2 }\n\
                         clients = [\"2001:db8::/60\"]\n";
        let whole = capacity(&format!("{by_number}{pool}"));
        // Their own, and four of the 31 spare ones of an address.
        assert_eq!(whole.subscribers.bindings, 4032 + 4 * 256);
        assert_eq!(whole.subscribers.by_ports, [2 * 31 / 4; 3]);
        let said = whole.to_string();
        let line = "blocks of ports: 28 of 4032 ports by number, 62 of 256 to be given, at most 4 to \
                    one\n";
        assert!(said.contains(line), "{said}");
        assert_eq!(whole.json()["blocks"]["given"], 62);
        // For less than that, fewer of them are needed, or none.
        for (bindings, at_once) in [(4033, 28), (4032 + 3 * 256, 20), (4032, 28), (100, 28)] {
            let text = format!("quota.subscriber.bindings = {bindings}\n{by_number}{pool}");
            let subscribers = capacity(&text).subscribers;
            assert_eq!(subscribers.bindings, bindings);
            assert_eq!(subscribers.by_ports, [at_once; 3], "{bindings}");
        }
        let unused = by_number.replace("spare = 2", "spare = 2, spare_most = 0");
        let subscribers = capacity(&format!("{unused}{pool}")).subscribers;
        assert_eq!(subscribers.bindings, 4032);
        assert_eq!(subscribers.by_ports, [28; 3]);
        // Only whole blocks count.
        let little = "pool = [{ address = \"203.0.113.1\", tcp = \"1024-2560\", \
                      udp = \"1024-65535\", icmp = \"1024-65535\" }]\n";
        let said = capacity(&format!("{dynamic}{little}")).to_string();
        assert!(
            said.contains("blocks of ports: 3 of 512 to be given"),
            "{said}"
        );
    }
}
