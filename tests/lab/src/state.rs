//! Everything that configures a host's network, for comparison: was anything left behind?

use std::collections::BTreeSet;

use serde_json::Value;

use crate::namespace::Namespace;

/// What `ip` and `nft` tell, each a list.
const LISTS: [&str; 11] = [
    "ip -j link show",
    "ip -j addr show",
    "ip -j maddr show",
    "ip -j -4 route show table all",
    "ip -j -6 route show table all",
    "ip -j -4 rule show",
    "ip -j -6 rule show",
    "ip -j neigh show nud permanent",
    "ip -j neigh show proxy",
    "ip -j -6 addrlabel show",
    "nft -j list ruleset",
];

/// Changes by itself: lifetimes, and numbers that the kernel gives out one after another.
const VOLATILE_KEYS: [&str; 5] = [
    "valid_life_time",
    "preferred_life_time",
    "expires",
    "handle",
    "metainfo",
];

/// Settings that are not settings: counters, sizes that follow the memory, random numbers. Beginnings
/// of names.
const VOLATILE_SETTINGS: [&str; 12] = [
    "fs.dentry-state",
    "fs.file-nr",
    "fs.inode-nr",
    "fs.inode-state",
    "fs.quota.",
    "kernel.ns_last_pid",
    "kernel.pty.nr",
    "kernel.random.",
    "kernel.threads-max",
    "net.netfilter.nf_conntrack_count",
    "sunrpc.",
    "vm.stat_refresh",
];

/// The state of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State(BTreeSet<String>);

impl State {
    /// The state of a namespace right now.
    ///
    /// # Panics
    /// If one of the programs that tell it fails.
    #[must_use]
    pub fn of(namespace: &Namespace) -> Self {
        let mut lines = BTreeSet::new();
        for command in LISTS {
            let said = namespace.must(command);
            let list = list_in(&said).expect("a list");
            lines.extend(
                list.into_iter()
                    .map(|it| format!("{command}: {}", lasting(it))),
            );
        }
        let settings = namespace.must("sysctl -a 2>/dev/null");
        let settings = settings.lines().filter(|line| !is_volatile(line));
        lines.extend(settings.map(|it| format!("sysctl: {it}")));
        Self(lines)
    }

    /// Whether anything in it contains `text`.
    #[must_use]
    pub fn mentions(&self, text: &str) -> bool {
        self.0.iter().any(|line| line.contains(text))
    }

    /// What `later` has and this has not, and the other way round: one line each. Empty if they are
    /// the same.
    #[must_use]
    pub fn difference(&self, later: &Self) -> String {
        let gone = self.0.difference(&later.0).map(|it| format!("- {it}\n"));
        let new = later.0.difference(&self.0).map(|it| format!("+ {it}\n"));
        gone.chain(new).collect()
    }

    /// Compares with an earlier state.
    ///
    /// # Panics
    /// If they differ, with what differs.
    pub fn assert_is(&self, before: &Self, when: &str) {
        let difference = before.difference(self);
        assert!(
            difference.is_empty(),
            "{when}, there is a difference:\n{difference}"
        );
    }
}

/// `ip` prints a list, or nothing; `nft` an object with a list in it.
fn list_in(said: &str) -> Option<Vec<Value>> {
    if said.trim().is_empty() {
        return Some(Vec::new());
    }
    match serde_json::from_str(said).ok()? {
        Value::Array(list) => Some(list),
        Value::Object(mut object) => object.get_mut("nftables")?.as_array().cloned(),
        _ => None,
    }
}

/// A value without what changes by itself.
fn lasting(value: Value) -> Value {
    match value {
        Value::Object(object) => object
            .into_iter()
            .filter(|(key, _)| !VOLATILE_KEYS.contains(&key.as_str()))
            .map(|(key, value)| (key, lasting(value)))
            .collect(),
        Value::Array(array) => array.into_iter().map(lasting).collect(),
        other => other,
    }
}

fn is_volatile(setting: &str) -> bool {
    VOLATILE_SETTINGS.iter().any(|it| setting.starts_with(it))
}
