//! What does not come from the workers: the configuration, and the host around.

use std::sync::{Arc, Mutex, PoisonError};

use control::plat::SettingRow;
use host::netwatch::{Interface, Snapshot};
use nat64::tuple::Protocol;

use crate::{
    config::{
        Config,
        capacity::{Capacity, Memory},
        settings::Setting,
        thresholds::Thresholds,
    },
    workers::Shared,
};

/// What the configuration says.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The name of this instance.
    pub(crate) instance: String,
    /// The configuration, as it was read.
    pub(crate) settings: Vec<SettingRow>,
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
    /// Bytes that the tables may take.
    pub(crate) memory: Memory,
    /// When people are told that something comes near to its limit.
    pub(crate) thresholds: Thresholds,
    /// What the workers count besides.
    pub(crate) shared: Arc<Shared>,
}

impl Facts {
    /// Of a configuration, as it was read and as it holds on this host.
    pub(crate) fn of(asked: &Config, config: &Config, instance: &str, shared: Arc<Shared>) -> Self {
        let row = |it: Setting| SettingRow {
            key: it.key.to_owned(),
            json: it.value.to_string(),
        };
        Self {
            settings: asked.settings().into_iter().map(row).collect(),
            instance: instance.to_owned(),
            prefixes: config.prefixes.iter().map(ToString::to_string).collect(),
            pool: config.pool_networks().map(|it| it.to_string()).collect(),
            interface: config.interface.clone(),
            sessions_limit: config.limits.sessions as u64,
            bindings_limit: config.limits.bindings as u64,
            memory: Capacity::of(config).memory,
            thresholds: config.thresholds,
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
    pub(super) fn replace(&self, asked: &Config, config: &Config) {
        let before = self.get();
        let shared = Arc::clone(&before.shared);
        self.set(Facts::of(asked, config, &before.instance, shared));
    }

    /// Others hold.
    pub(super) fn set(&self, facts: Facts) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(facts);
    }
}

/// The host around, as it was seen last.
#[derive(Debug, Default)]
pub(crate) struct Host(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// The interfaces by which IPv4 can go.
    usable: Vec<String>,
    /// The one by which it is to go, if it was said or decided.
    uplink: Option<String>,
    /// There was an IPv4 default route. Since then, there must be one: it goes with its interface,
    /// and another interface does not lead to the internet for that.
    had_default: bool,
}

impl Host {
    /// Takes note of the host's interfaces. `config` is as it holds on this host.
    pub(crate) fn note(&self, snapshot: &Snapshot, config: &Config) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.had_default |= !snapshot.ipv4_default.is_empty();
        let is_meant = |it: &Interface| match &config.uplink {
            Some(uplink) => it.name == *uplink,
            None => !seen.had_default || snapshot.ipv4_default.contains(&it.index),
        };
        let usable = snapshot.interfaces.iter().filter(|it| {
            it.running
                && it.name != config.interface
                && it.ipv4.iter().any(|it| !it.is_loopback())
                && is_meant(it)
        });
        seen.usable = usable.map(|it| it.name.clone()).collect();
        seen.uplink.clone_from(&config.uplink);
    }

    /// Whether there is a way to IPv4.
    pub(super) fn ipv4_side(&self) -> (bool, String) {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.usable.is_empty() {
            return (true, format!("{} is up", seen.usable.join(", ")));
        }
        let what = match &seen.uplink {
            Some(uplink) => format!("{uplink} is not up, or has no IPv4 address"),
            None if seen.had_default => {
                "the IPv4 default route is gone, or its interface is not up".to_owned()
            }
            None => "no interface that is up has an IPv4 address".to_owned(),
        };
        (false, what)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_host;

    fn interface(index: u32, name: &str, running: bool) -> Interface {
        Interface {
            running,
            ..test_host::interface(index, name, &[], &["192.0.2.1"])
        }
    }

    /// Another interface that is up does not stand in for the one that IPv4 goes by.
    #[test]
    fn the_ipv4_side_is_the_uplink() {
        let host = Host::default();
        let mut config = crate::config::tests::settled("pool = [\"203.0.113.0/28\"]").unwrap();
        let see = |config: &Config, first: bool, default: &[u32]| {
            let snapshot = Snapshot {
                interfaces: vec![interface(1, "eth0", first), interface(2, "eth1", true)],
                ipv4_default: default.to_vec(),
                ..Snapshot::default()
            };
            host.note(&snapshot, config);
            host.ipv4_side()
        };
        assert_eq!(see(&config, false, &[]), (true, "eth1 is up".to_owned()));
        assert_eq!(see(&config, true, &[1]), (true, "eth0 is up".to_owned()));
        let (up, why) = see(&config, false, &[]);
        assert!(!up && why.contains("default route is gone"), "{why}");
        config.uplink = Some("eth0".to_owned());
        assert_eq!(see(&config, true, &[]), (true, "eth0 is up".to_owned()));
        let (up, why) = see(&config, false, &[2]);
        assert!(!up && why.contains("eth0 is not up"), "{why}");
        config.interface = "eth1".to_owned();
        config.uplink = None;
        assert!(!see(&config, false, &[2]).0, "our own");
    }

    #[test]
    fn a_pool_without_a_port_for_one_protocol_is_said() {
        assert!(pool_check(&[[1, 0, 5], [0, 2, 0]]).0);
        let (passed, detail) = pool_check(&[[1, 0, 5], [0, 0, 0]]);
        assert_eq!((passed, detail.as_str()), (false, "no free port for UDP"));
    }
}
