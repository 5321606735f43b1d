//! What a configuration is good for: clients, sessions, memory.

use std::{fmt, net::Ipv6Addr};

use nat64::config::Limits;
use serde_json::{Value, json};

use super::{Config, pool::PoolRange};

/// What a configuration is good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Addresses that clients get.
    pub addresses: u64,
    /// Ports of TCP, of all addresses together.
    pub tcp: u64,
    /// Ports of UDP.
    pub udp: u64,
    /// Identifiers of ICMP queries.
    pub icmp: u64,
    /// The most bindings there can be: by the pool or by the limit.
    pub bindings: u64,
    /// The most sessions there can be.
    pub sessions: u64,
    /// Clients that may have all their quota gives them, at the same time.
    pub clients: u64,
    /// Bytes that the tables take at most: pool, bindings, sessions, stored SYNs, fragments.
    pub memory: [u64; 5],
}

impl Capacity {
    /// Of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let mut capacity = Self::default();
        for range in &config.pool {
            let addresses = usable(range);
            let ports = &range.ports;
            capacity.addresses += addresses;
            let [tcp, udp, icmp] = [&ports.tcp, &ports.udp, &ports.icmp].map(|it| it.len() as u64);
            capacity.tcp += addresses * tcp;
            capacity.udp += addresses * udp;
            capacity.icmp += addresses * icmp;
            // The table of free ports has a bit for each.
            capacity.memory[0] += addresses * (tcp + udp + icmp).div_ceil(8);
        }
        let limits = &config.limits;
        let all = capacity.tcp + capacity.udp + capacity.icmp;
        capacity.bindings = all.min(limits.bindings as u64);
        capacity.sessions = limits.sessions as u64;
        capacity.memory = [
            capacity.memory[0],
            capacity.bindings * Limits::BYTES_PER_BINDING as u64,
            capacity.sessions * Limits::BYTES_PER_SESSION as u64,
            limits.stored_syn_bytes as u64,
            limits.fragments.bytes as u64,
        ];
        capacity.clients = capacity.at_quota(config);
        capacity
    }

    /// A subscriber's quota of bindings is of each protocol; that of sessions is of all of them.
    fn at_quota(&self, config: &Config) -> u64 {
        // What the host adds does not matter to quotas.
        let quotas = config.for_engine(Ipv6Addr::LOCALHOST, Vec::new()).quotas;
        let quota = quotas.subscriber;
        let fewest_ports = self.tcp.min(self.udp).min(self.icmp);
        let by_ports = fewest_ports / (quota.bindings as u64).max(1);
        let by_bindings = self.bindings / (quota.bindings as u64).max(1);
        let by_sessions = self.sessions / (quota.sessions as u64).max(1);
        by_ports.min(by_bindings).min(by_sessions)
    }

    /// Bytes that all tables take at most.
    #[must_use]
    pub fn memory_in_all(&self) -> u64 {
        self.memory.iter().sum()
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let [pool, bindings, sessions, syns, fragments] = self.memory;
        json!({
            "addresses": self.addresses,
            "ports": {"tcp": self.tcp, "udp": self.udp, "icmp": self.icmp},
            "bindings": self.bindings,
            "sessions": self.sessions,
            "clients_at_quota": self.clients,
            "memory_bytes": {
                "pool": pool, "bindings": bindings, "sessions": sessions,
                "stored_syns": syns, "fragments": fragments,
                "in_all": self.memory_in_all(),
            },
        })
    }
}

fn usable(range: &PoolRange) -> u64 {
    range.addresses().map(|_| 1).sum()
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            addresses,
            tcp,
            udp,
            icmp,
            bindings,
            sessions,
            clients,
            memory,
        } = self;
        let [pool, of_bindings, of_sessions, syns, fragments] = memory.map(mebibytes);
        let all = mebibytes(self.memory_in_all());
        if *addresses == 0 {
            writeln!(f, "pool: left to the host")?;
        } else {
            writeln!(
                f,
                "pool: {addresses} addresses, {tcp} TCP ports, {udp} UDP ports, {icmp} ICMP \
                 identifiers"
            )?;
            writeln!(f, "bindings: at most {bindings}")?;
            writeln!(f, "clients: {clients} with all that their quota gives them")?;
        }
        writeln!(f, "sessions: at most {sessions}")?;
        write!(
            f,
            "memory: at most {all} (pool {pool}, bindings {of_bindings}, sessions {of_sessions}, \
             stored SYNs {syns}, fragments {fragments})"
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

    #[test]
    fn a_pool_holds_as_much_as_its_ports() {
        let text = "pool = [\"203.0.113.0/30\", {range = \"198.51.100.1-198.51.100.2\", \
                    tcp = \"1024-2047\", udp = \"1024-2047\", icmp = \"1024-2047\"}]\n\
                    [limits]\nbindings = 1000\nsessions = 2000\nfragment_bytes = 1048576";
        let capacity = Capacity::of(&settled(text).unwrap());
        // The first of the network is left out.
        assert_eq!(capacity.addresses, 3 + 2);
        assert_eq!(capacity.tcp, 3 * 65_535 + 2 * 1024);
        assert_eq!(capacity.icmp, capacity.tcp);
        assert_eq!(
            capacity.memory,
            [3 * 24_576 + 2 * 384, 45_000, 150_000, 128 * 1024, 1 << 20]
        );
        assert!(capacity.to_string().contains("bindings: at most 1000\n"));
        // By bindings, by sessions.
        let quota = "quota.subscriber.bindings = 30\nquota.subscriber.sessions = 50\n";
        let limited = |more: &str| {
            let text = format!("{quota}pool = [\"203.0.113.1\"]\n{more}");
            Capacity::of(&settled(&text).unwrap()).clients
        };
        assert_eq!(limited("limits.bindings = 1000"), 33);
        assert_eq!(limited("limits.sessions = 1000"), 20);
        assert_eq!(limited(""), 65_535 / 30);
        let small = "pool = [{address = \"203.0.113.1\", tcp = \"7\", udp = \"7\", icmp = \"7\"}]";
        assert_eq!(Capacity::of(&settled(small).unwrap()).bindings, 3);
        let open = Capacity::of(&settled("").unwrap());
        assert!(open.to_string().starts_with("pool: left to the host\n"));
    }
}
