//! What is different between two configurations, and what it takes to make it so.

use std::fmt;

use serde_json::{Value, json};

use super::{Config, settings::toml};
use crate::pool_mode::PoolMode;

/// What it takes to make a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// A reload; no session ends by it.
    Reload,
    /// A reload; sessions end whose prefix, address or port is not there any more.
    Sessions,
    /// A restart of the service.
    Restart,
}

impl Takes {
    /// Of the setting with this key. `shares`: of the two configurations one shares an address of
    /// the host's own.
    fn of(key: &str, shares: bool) -> Self {
        match key {
            "interface" | "workers" | "blocks" | "pool_mode" | "host_ports" | "uplink" => {
                Self::Restart
            }
            // Until the host's firewall knows the new ports, it would answer for the old ones.
            "pool" if shares => Self::Restart,
            // Who writes and who listens is begun once.
            _ if key.starts_with("log.") || key.starts_with("metrics.") => Self::Restart,
            "prefixes" | "pool" | "eam" | "bib" | "allow_destinations" | "wkp_non_global" => {
                Self::Sessions
            }
            _ => Self::Reload,
        }
    }

    /// For programs.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Sessions => "reload_ends_sessions",
            Self::Restart => "restart",
        }
    }
}

impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reload => "a reload",
            Self::Sessions => "a reload, which ends the sessions that need what is gone",
            Self::Restart => "a restart",
        })
    }
}

/// A value that is different.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The key of the setting.
    pub key: &'static str,
    /// What it was.
    pub before: Value,
    /// What it is to be.
    pub after: Value,
    /// What it takes.
    pub takes: Takes,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (takes {})", self.difference(), self.takes)
    }
}

impl Change {
    /// For people, without what it takes.
    #[must_use]
    pub fn difference(&self) -> String {
        let (before, after) = (toml(&self.before), toml(&self.after));
        format!("{}: {before} -> {after}", self.key)
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "key": self.key,
            "before": self.before,
            "after": self.after,
            "takes": self.takes.code(),
        })
    }
}

/// Everything that is different, in the order of the settings.
#[must_use]
pub fn diff(before: &Config, after: &Config) -> Vec<Change> {
    let modes = [before.pool_mode, after.pool_mode];
    let shares = modes.contains(&PoolMode::HostPorts);
    let pairs = before.settings().into_iter().zip(after.settings());
    let different = pairs.filter(|(before, after)| before != after);
    let change = different.map(|(before, after)| Change {
        key: before.key,
        before: before.value,
        after: after.value,
        takes: Takes::of(before.key, shares),
    });
    change.collect()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::settled, *};

    #[test]
    fn only_what_is_different_is_told_with_what_it_takes() {
        let before = settled("pool = [\"203.0.113.1\"]\ninterface = \"nat\"").unwrap();
        assert_eq!(diff(&before, &before), []);
        let after = "pool = [\"203.0.113.2\"]\n[timers]\nudp = 200\n";
        let changes = diff(&before, &settled(after).unwrap());
        let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
        assert_eq!(
            changes,
            [
                "pool: [\"203.0.113.1\"] -> [\"203.0.113.2\"] (takes a reload, which ends the \
                 sessions that need what is gone)",
                "interface: \"nat\" -> \"plat0\" (takes a restart)",
                "timers.udp: 300 -> 200 (takes a reload)",
            ]
        );
    }
}
