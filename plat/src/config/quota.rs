//! `[quota]`: how much one client may have.

use nat64::{
    config::{Limits, PoolEntry},
    network6::Network6,
    subscriber::{Quota, Quotas},
};

use super::file::{OneQuotaFile, QuotaFile};

/// As configured: what is 0 follows from the pool and the limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QuotaConfig {
    pub(crate) prefix_len: u8,
    pub(crate) exempt: Vec<Network6>,
    pub(crate) subscriber: Quota,
    pub(crate) address: Quota,
}

pub(super) fn read(file: &QuotaFile, exempt: Vec<Network6>) -> QuotaConfig {
    let one = |file: OneQuotaFile| Quota {
        bindings: file.bindings,
        sessions: file.sessions,
        new_per_second: file.new_per_second,
    };
    QuotaConfig {
        prefix_len: file.prefix_len.as_ref().map_or(64, |it| *it.get_ref()),
        exempt,
        subscriber: one(file.subscriber),
        address: one(file.address),
    }
}

impl QuotaConfig {
    /// For a NAT64 with this pool and these limits.
    pub(crate) fn settle(&self, pool: &[PoolEntry], limits: &Limits) -> Quotas {
        let ports: usize = pool.iter().map(|entry| entry.ports.len()).sum();
        let defaults = Quotas::of_capacity(ports.min(limits.bindings), limits.sessions);
        Quotas {
            prefix_len: self.prefix_len,
            exempt: self.exempt.clone(),
            subscriber: with_defaults(self.subscriber, defaults.subscriber),
            address: with_defaults(self.address, defaults.address),
        }
    }
}

fn with_defaults(wanted: Quota, default: Quota) -> Quota {
    let or = |wanted, default| if wanted == 0 { default } else { wanted };
    Quota {
        bindings: or(wanted.bindings, default.bindings),
        sessions: or(wanted.sessions, default.sessions),
        new_per_second: or(wanted.new_per_second, default.new_per_second),
    }
}
