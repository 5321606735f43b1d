//! What is different between two configurations, and what it takes to make it so.

use std::{collections::BTreeMap, fmt};

use serde_json::{Value, json};

use super::{
    Config,
    settings::{Setting, toml},
};
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
    of_settings(before.settings(), after, shares)
}

/// Everything that is different from the configuration of a running plat, whose values are `before`.
#[must_use]
pub fn diff_running(before: &BTreeMap<String, Value>, after: &Config) -> Vec<Change> {
    let mode = |it: PoolMode| Value::from(it.to_string());
    let shares = after.pool_mode == PoolMode::HostPorts
        || before.get("pool_mode") == Some(&mode(PoolMode::HostPorts));
    let running = after.settings().into_iter().map(|it| Setting {
        key: it.key,
        // One of another version may not know the key.
        value: before.get(it.key).cloned().unwrap_or_default(),
    });
    of_settings(running.collect(), after, shares)
}

fn of_settings(before: Vec<Setting>, after: &Config, shares: bool) -> Vec<Change> {
    let pairs = before.into_iter().zip(after.settings());
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

    /// As the engine and the program take it, see `run::reload` and `Engine::reconfigure`.
    #[test]
    fn what_is_begun_once_takes_a_restart() {
        let takes = |before: &str, after: &str| {
            let changes = diff(&settled(before).unwrap(), &settled(after).unwrap());
            let takes: Vec<_> = changes.iter().map(|it| it.takes).collect();
            takes
        };
        let pool = "pool = [\"203.0.113.1\"]\n";
        let changed = |line: &str| takes(pool, &format!("{pool}{line}"));
        for line in ["interface = \"nat\"", "workers = 2", "uplink = \"ppp0\""] {
            assert!(changed(line).contains(&Takes::Restart), "{line}");
        }
        for line in [
            "clients = [\"::/0\"]",
            "ipv6_mtu = 1400",
            "timers.udp = 200",
            "limits.sessions = 7",
            "quota.address.sessions = 7",
            "filtering.udp = \"address-dependent\"",
            "tcp.probe = false",
            "thresholds.pool.high = 90",
            "log.file = \"/x\"",
            "metrics.listen = \"[::1]:9\"",
        ] {
            let all = changed(line);
            let by_reload = all.iter().all(|it| *it == Takes::Reload);
            assert!(by_reload && !all.is_empty(), "{line}");
        }
        assert_eq!(takes(pool, "pool = [\"203.0.113.2\"]"), [Takes::Sessions]);
        // Its ports are in the host's firewall, one by one.
        let shared = "pool_mode = \"host-ports\"\n";
        assert_eq!(takes(shared, &format!("{shared}{pool}")), [Takes::Restart]);
    }

    #[test]
    fn only_what_is_different_is_told_with_what_it_takes() {
        let before = settled("pool = [\"203.0.113.1\"]\ninterface = \"nat\"").unwrap();
        assert_eq!(diff(&before, &before), []);
        let after = "pool = [\"203.0.113.2\"]\n[timers]\nudp = 200\n";
        let changes = diff(&before, &settled(after).unwrap());
        let running = before.settings().into_iter();
        let running = running.map(|it| (it.key.to_owned(), it.value)).collect();
        assert_eq!(diff_running(&running, &settled(after).unwrap()), changes);
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

    /// Each by its key, and by the same key whether the one before is a file or a running plat.
    #[test]
    fn what_a_change_takes_is_told_by_its_key() {
        let pool = "pool = [\"203.0.113.1\"]\n";
        let shared = "pool_mode = \"host-ports\"\n";
        let takes = |before: &str, after: &str, key: &str| {
            let (before, after) = (settled(before).unwrap(), settled(after).unwrap());
            let changes = diff(&before, &after);
            let running = before.settings().into_iter();
            let running = running.map(|it| (it.key.to_owned(), it.value)).collect();
            assert_eq!(diff_running(&running, &after), changes);
            let change = changes.into_iter().find(|it| it.key == key);
            change.map(|it| it.json()["takes"].as_str().unwrap().to_owned())
        };
        let of = |line: &str, key| takes(pool, &format!("{pool}{line}"), key).unwrap();
        let sessions = "reload_ends_sessions";
        assert_eq!(
            of("prefixes = [\"2001:db8:64::/96\"]", "prefixes"),
            sessions
        );
        let line = "allow_destinations = [\"10.0.0.0/8\"]";
        assert_eq!(of(line, "allow_destinations"), sessions);
        assert_eq!(of("ipv6_mtu = 1400", "ipv6_mtu"), "reload");
        assert_eq!(
            of(
                "blocks = {mode = \"dynamic\", size = 512, most = 4}",
                "blocks"
            ),
            "restart"
        );
        // To addresses of the host's own, and away from them.
        let to = format!("{shared}{pool}");
        let own = "pool = [\"203.0.113.2\"]";
        assert_eq!(takes(own, &to, "pool").unwrap(), "restart");
        assert_eq!(takes(&to, own, "pool").unwrap(), "restart");
        assert_eq!(takes(own, pool, "pool").unwrap(), sessions);
        assert_eq!(takes(pool, pool, "pool"), None);
        // A running one of another version may not know a key.
        let after = settled(pool).unwrap();
        let all = after
            .settings()
            .into_iter()
            .filter(|it| it.key != "ipv6_mtu");
        let older = all.map(|it| (it.key.to_owned(), it.value)).collect();
        let changes = diff_running(&older, &after);
        assert_eq!(changes.len(), 1);
        assert_eq!(
            (changes[0].key, &changes[0].before),
            ("ipv6_mtu", &Value::Null)
        );
    }
}
