//! What does not come from the workers: the configuration, and the host around.

use std::sync::{Arc, Mutex, PoisonError};

use control::plat::{PoolRow, Threshold};
use host::netwatch::Snapshot;
use nat64::tuple::Protocol;

use super::{rows, stats::Counters};
use crate::{config::Config, workers::Shared};

/// What the configuration says.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The name of this instance.
    pub(crate) instance: String,
    /// The prefixes, in the order of the configuration.
    pub(crate) prefixes: Vec<String>,
    /// The networks of the pool.
    pub(crate) pool: Vec<String>,
    /// The virtual interface.
    pub(crate) interface: String,
    /// How many sessions there may be.
    pub(crate) sessions_limit: u64,
    /// How many bindings there may be.
    pub(crate) bindings_limit: u64,
    /// What the workers count besides.
    pub(crate) shared: Arc<Shared>,
}

impl Facts {
    /// Of a configuration.
    pub(crate) fn of(config: &Config, instance: &str, shared: Arc<Shared>) -> Self {
        Self {
            instance: instance.to_owned(),
            prefixes: config.prefixes.iter().map(ToString::to_string).collect(),
            pool: config.pool_networks().map(|it| it.to_string()).collect(),
            interface: config.interface.clone(),
            sessions_limit: config.limits.sessions as u64,
            bindings_limit: config.limits.bindings as u64,
            shared,
        }
    }
}

/// The facts as they are: a reload replaces them. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct CurrentFacts(Arc<Mutex<Arc<Facts>>>);

impl CurrentFacts {
    pub(super) fn new(facts: Facts) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(facts))))
    }

    /// As they are now.
    pub(super) fn get(&self) -> Arc<Facts> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Another configuration holds.
    pub(super) fn replace(&self, config: &Config) {
        let before = self.get();
        let after = Facts::of(config, &before.instance, Arc::clone(&before.shared));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(after);
    }
}

/// The host around, as it was seen last.
#[derive(Debug, Default)]
pub(crate) struct Host(Mutex<Vec<String>>);

impl Host {
    /// Takes note of the host's interfaces.
    pub(crate) fn note(&self, snapshot: &Snapshot, own: &str) {
        let all = snapshot.interfaces.iter();
        let usable = all.filter(|it| {
            it.running && it.name != own && it.ipv4.iter().any(|it| !it.is_loopback())
        });
        let names = usable.map(|it| it.name.clone()).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// Whether there is a way to IPv4.
    pub(super) fn ipv4_side(&self) -> (bool, String) {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.is_empty() {
            return (
                false,
                "no interface that is up has an IPv4 address".to_owned(),
            );
        }
        (true, format!("{} is up", names.join(", ")))
    }
}

/// Whether every protocol has a free port. `free` is by worker and protocol.
pub(super) fn pool_check(free: &[[usize; 3]]) -> (bool, String) {
    let of = |protocol: Protocol| -> usize { free.iter().map(|it| it[protocol.index()]).sum() };
    let empty: Vec<_> = Protocol::ALL
        .into_iter()
        .filter(|it| of(*it) == 0)
        .collect();
    if empty.is_empty() {
        let least = Protocol::ALL.into_iter().map(of).min().unwrap_or_default();
        return (true, format!("at least {least} ports free per protocol"));
    }
    let names: Vec<_> = empty.iter().map(ToString::to_string).collect();
    (false, format!("no free port for {}", names.join(", ")))
}

/// At which part of a limit people are told, in percent.
const HIGH: u8 = 80;

/// Under which part of it they are told that it is over: what goes up and down around one value
/// would be told of again and again.
const LOW: u8 = 70;

/// Whether something is near its limit, which it was `before` or not.
fn is_near(before: bool, value: u64, limit: u64) -> bool {
    let percent = if before { LOW } else { HIGH };
    limit > 0 && u128::from(value) * 100 >= u128::from(limit) * u128::from(percent)
}

/// How near the tables and the pool are to their limits, of which some were exceeded `before`.
pub(super) fn thresholds(
    facts: &Facts,
    counters: &Counters,
    pool: &[PoolRow],
    before: &[String],
) -> Vec<Threshold> {
    let of = |what: &str, value: u64, limit: u64| Threshold {
        what: what.to_owned(),
        value,
        limit,
        high: HIGH,
        exceeded: is_near(before.iter().any(|it| it == what), value, limit),
    };
    let mut all = vec![
        of(
            "sessions",
            counters.sessions().total(),
            facts.sessions_limit,
        ),
        of(
            "bindings",
            counters.bindings().total(),
            facts.bindings_limit,
        ),
    ];
    for (protocol, what) in [
        (rows::protocol(Protocol::Tcp), "TCP ports of the pool"),
        (rows::protocol(Protocol::Udp), "UDP ports of the pool"),
        (
            rows::protocol(Protocol::Icmp),
            "ICMP identifiers of the pool",
        ),
    ] {
        let rows = pool.iter().filter(|it| it.protocol == protocol);
        let (used, ports) = rows.fold((0, 0), |(used, ports), it| {
            (used + it.used, ports + it.ports)
        });
        if ports > 0 {
            all.push(of(what, used, ports));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Told at 80 %, and that it is over under 70 %: in between nothing changes.
    #[test]
    fn obs_01_thresholds_have_two_ends() {
        let mut near = false;
        let mut told = Vec::new();
        for value in [79, 80, 75, 81, 70, 69, 79, 100] {
            near = is_near(near, value, 100);
            told.push(near);
        }
        assert_eq!(told, [false, true, true, true, true, false, false, true]);
        assert!(!is_near(true, 0, 0));
    }

    #[test]
    fn a_pool_without_a_port_for_one_protocol_is_said() {
        assert!(pool_check(&[[1, 0, 5], [0, 2, 0]]).0);
        let (passed, detail) = pool_check(&[[1, 0, 5], [0, 0, 0]]);
        assert_eq!((passed, detail.as_str()), (false, "no free port for UDP"));
    }
}
