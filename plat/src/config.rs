//! `plat.toml`.

use std::{net::Ipv4Addr, path::Path, time::Duration};

use cli::{Exit, Failure, config::Parsed};
use nat64::{
    config::{Limits, PoolEntry, Timers, reassembly},
    destinations::Network4,
    pool::PortRange,
};
use pref64::{Pref64, siit::NonGlobal};
use serde::Deserialize;

/// The most addresses a pool may have: each costs 24 KiB.
const MAX_POOL: usize = 4096;

/// The file, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// The NAT64 prefixes that are served. The well-known prefix if there are none.
    #[serde(default)]
    prefixes: Vec<Parsed<Pref64>>,
    /// IPv4 networks that are routed to this host and used for nothing else.
    pool: Vec<Parsed<Network4>>,
    /// Private and other special networks that clients may reach nevertheless.
    #[serde(default)]
    allow_destinations: Vec<Parsed<Network4>>,
    /// Non-global IPv4 addresses under `64:ff9b::/96`.
    #[serde(default)]
    wkp_non_global: WkpNonGlobal,
    /// Name of the virtual interface.
    #[serde(default = "default_interface")]
    interface: String,
    /// Bytes per packet on the IPv6 and on the IPv4 side.
    #[serde(default = "default_mtu")]
    ipv6_mtu: u16,
    #[serde(default = "default_mtu")]
    ipv4_mtu: u16,
    /// Fragment packets that may be fragmented above this size in IPv6.
    #[serde(default = "default_fragment_above")]
    fragment_above: u16,
    #[serde(default)]
    timers: TimersFile,
    #[serde(default)]
    limits: LimitsFile,
}

fn default_interface() -> String {
    "plat0".to_owned()
}

fn default_mtu() -> u16 {
    1500
}

fn default_fragment_above() -> u16 {
    1280
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WkpNonGlobal {
    #[default]
    Drop,
    Translate,
}

/// In seconds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimersFile {
    udp: Option<u64>,
    icmp: Option<u64>,
    tcp_established: Option<u64>,
    tcp_transitory: Option<u64>,
    fragment: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsFile {
    bindings: Option<usize>,
    sessions: Option<usize>,
    fragmented_datagrams: Option<usize>,
    fragment_bytes: Option<usize>,
    fragmented_datagrams_per_source: Option<usize>,
}

/// What holds.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) prefixes: Vec<Pref64>,
    pub(crate) pool: Vec<Network4>,
    pub(crate) allow_destinations: Vec<Network4>,
    pub(crate) wkp_non_global: NonGlobal,
    pub(crate) interface: String,
    pub(crate) ipv6_mtu: u16,
    pub(crate) ipv4_mtu: u16,
    pub(crate) fragment_above: u16,
    pub(crate) timers: Timers,
    pub(crate) limits: Limits,
}

/// Reads the file.
///
/// # Errors
/// What is wrong, with its place.
pub(crate) fn read(path: &Path) -> Result<Config, Failure> {
    let file: File = cli::config::read(path)?;
    settle(file)
        .map_err(|what| Failure::new(Exit::Usage, format_args!("{}: {what}", path.display())))
}

fn settle(file: File) -> Result<Config, String> {
    let at_least = |name: &str, value: u16, least: u16| {
        if value >= least {
            return Ok(());
        }
        Err(format!("{name} is {value}; it must be at least {least}"))
    };
    at_least("ipv6_mtu", file.ipv6_mtu, 1280)?;
    at_least("ipv4_mtu", file.ipv4_mtu, 68)?;
    at_least("fragment_above", file.fragment_above, 1280)?;
    let prefixes: Vec<_> = file.prefixes.iter().map(|it| it.0).collect();
    let config = Config {
        prefixes: if prefixes.is_empty() {
            vec![Pref64::WELL_KNOWN]
        } else {
            prefixes
        },
        pool: file.pool.iter().map(|it| it.0).collect(),
        allow_destinations: file.allow_destinations.iter().map(|it| it.0).collect(),
        wkp_non_global: match file.wkp_non_global {
            WkpNonGlobal::Drop => NonGlobal::Drop,
            WkpNonGlobal::Translate => NonGlobal::Translate,
        },
        interface: file.interface,
        ipv6_mtu: file.ipv6_mtu,
        ipv4_mtu: file.ipv4_mtu,
        fragment_above: file.fragment_above,
        timers: timers(&file.timers),
        limits: limits(&file.limits),
    };
    let addresses = config.pool_addresses().count();
    if addresses > MAX_POOL {
        return Err(format!(
            "the pool has {addresses} addresses; {MAX_POOL} are possible"
        ));
    }
    Ok(config)
}

fn timers(file: &TimersFile) -> Timers {
    let default = Timers::default();
    let or = |seconds: Option<u64>, default| seconds.map_or(default, Duration::from_secs);
    Timers {
        udp: or(file.udp, default.udp),
        icmp: or(file.icmp, default.icmp),
        tcp_established: or(file.tcp_established, default.tcp_established),
        tcp_transitory: or(file.tcp_transitory, default.tcp_transitory),
        fragment: or(file.fragment, default.fragment),
    }
}

fn limits(file: &LimitsFile) -> Limits {
    let default = Limits::default();
    Limits {
        bindings: file.bindings.unwrap_or(default.bindings),
        sessions: file.sessions.unwrap_or(default.sessions),
        fragments: reassembly::Limits {
            datagrams: file
                .fragmented_datagrams
                .unwrap_or(default.fragments.datagrams),
            bytes: file.fragment_bytes.unwrap_or(default.fragments.bytes),
            datagrams_per_source: file
                .fragmented_datagrams_per_source
                .unwrap_or(default.fragments.datagrams_per_source),
        },
    }
}

impl Config {
    pub(crate) fn pool_addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.pool.iter().flat_map(Network4::addresses)
    }

    /// For the engine; what depends on the host comes as arguments.
    pub(crate) fn for_engine(
        &self,
        own_ipv6: std::net::Ipv6Addr,
        own_addresses: Vec<Ipv4Addr>,
    ) -> nat64::Config {
        let entry = |address| PoolEntry {
            address,
            ports: PortRange::ALL,
        };
        nat64::Config {
            prefixes: self.prefixes.clone(),
            pool: self.pool_addresses().map(entry).collect(),
            allow_destinations: self.allow_destinations.clone(),
            own_addresses,
            wkp_non_global: self.wkp_non_global,
            own_ipv6,
            ipv6_mtu: self.ipv6_mtu,
            ipv4_mtu: self.ipv4_mtu,
            lowest_ipv6_mtu: self.fragment_above,
            errors: nat64::config::ErrorPolicy::default(),
            timers: self.timers,
            limits: self.limits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(text: &str) -> Result<Config, String> {
        let file = cli::config::parse(text, "plat.toml").map_err(|it| it.to_string())?;
        settle(file)
    }

    #[test]
    fn a_pool_is_all_that_is_needed() {
        let config = settled("pool = [\"203.0.113.0/30\"]").unwrap();
        assert_eq!(config.prefixes, [Pref64::WELL_KNOWN]);
        assert_eq!(config.pool_addresses().count(), 4);
        let own_ipv6 = "2001:db8::1".parse().unwrap();
        assert_eq!(config.for_engine(own_ipv6, vec![]).check(), Ok(()));
    }

    #[test]
    fn addr_3_4_01_a_configured_prefix_replaces_the_well_known_one() {
        let text = "pool = [\"203.0.113.1\"]\nprefixes = [\"2001:db8:64::/96\"]";
        let config = settled(text).unwrap();
        assert_eq!(config.prefixes, ["2001:db8:64::/96".parse().unwrap()]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, part) in [
            ("", "missing field `pool`"),
            ("pool = [\"203.0.113.1/24\"]", "did you mean 203.0.113.0/24"),
            ("pool = [\"10.0.0.0/8\"]", "16777216 addresses"),
            ("pool = []\nprefixs = []", "`prefixes`"),
            ("pool = []\nipv6_mtu = 1000", "at least 1280"),
            ("pool = []\n[timers]\nudb = 5", "`udp`"),
        ] {
            let error = settled(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
