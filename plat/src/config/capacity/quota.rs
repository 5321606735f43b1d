//! Clients that have all that their quota gives them.

use std::fmt;

use nat64::subscriber::Quota;
use serde_json::{Value, json};

use super::{super::pool::PoolRange, Capacity, usable};

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

impl Capacity {
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
    pub(super) fn on_one_address(&self, pool: &[PoolRange], quota: Quota) -> AtQuota {
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
    pub(super) fn in_blocks(&self, quota: Quota) -> AtQuota {
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
}

impl AtQuota {
    pub(super) fn json(&self) -> Value {
        let [tcp, udp, icmp] = self.by_ports;
        json!({
            "bindings_each": self.bindings,
            "sessions_each": self.sessions,
            "by_ports": {"tcp": tcp, "udp": udp, "icmp": icmp},
            "by_sessions": self.by_sessions,
        })
    }
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
