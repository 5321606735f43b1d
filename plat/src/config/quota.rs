//! `[quota]`: how much one client may have.

use cli::{Failure, config::Document};
use nat64::{
    config::{Limits, PoolEntry},
    network6::Network6,
    subscriber::{Quota, Quotas},
    tuple::Protocol,
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

/// As it is written.
///
/// # Errors
/// A burst without a rate.
pub(super) fn read(
    document: &Document,
    file: &QuotaFile,
    exempt: Vec<Network6>,
) -> Result<QuotaConfig, Failure> {
    let one = |file: &OneQuotaFile| {
        let burst = file.burst.as_ref().filter(|it| *it.get_ref() > 0);
        if let Some(burst) = burst.filter(|_| file.new_per_second == 0) {
            let what = "burst means nothing without new_per_second";
            return Err(document
                .wrong(burst.span(), what)
                .hint("new_per_second = 100"));
        }
        Ok(Quota {
            bindings: file.bindings,
            sessions: file.sessions,
            new_per_second: file.new_per_second,
            burst: burst.map_or(0, |it| *it.get_ref()),
        })
    };
    Ok(QuotaConfig {
        prefix_len: file.prefix_len.as_ref().map_or(64, |it| *it.get_ref()),
        exempt,
        subscriber: one(&file.subscriber)?,
        address: one(&file.address)?,
    })
}

impl QuotaConfig {
    /// For a NAT64 with this pool and these limits.
    pub(crate) fn settle(&self, pool: &[PoolEntry], limits: &Limits) -> Quotas {
        let defaults = Quotas::of_capacity(scarcest(pool).min(limits.bindings), limits.sessions);
        Quotas {
            prefix_len: self.prefix_len,
            exempt: self.exempt.clone(),
            subscriber: with_defaults(self.subscriber, defaults.subscriber),
            address: with_defaults(self.address, defaults.address),
        }
    }
}

/// How many ports there are of TCP or of UDP, of which there are fewer; a protocol that is not
/// served at all does not count.
fn scarcest(pool: &[PoolEntry]) -> usize {
    let of = |protocol| pool.iter().map(|it| it.ports.of(protocol).len()).sum();
    let of_both: [usize; 2] = [of(Protocol::Tcp), of(Protocol::Udp)];
    let served = of_both.into_iter().filter(|ports| *ports > 0);
    served.min().unwrap_or_else(|| of(Protocol::Icmp))
}

fn with_defaults(wanted: Quota, default: Quota) -> Quota {
    let or = |wanted, default| if wanted == 0 { default } else { wanted };
    let new_per_second = or(wanted.new_per_second, default.new_per_second);
    Quota {
        bindings: or(wanted.bindings, default.bindings),
        sessions: or(wanted.sessions, default.sessions),
        new_per_second,
        burst: or(wanted.burst, new_per_second),
    }
}
