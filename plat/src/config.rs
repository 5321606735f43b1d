//! `plat.toml`.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    ops::Range,
    path::Path,
    str::FromStr,
    time::Duration,
};

use cli::{
    Exit, Failure,
    config::{Document, Spanned},
    text::is_interface_name,
};
use nat64::{
    config::{ConfigError, Limits, PoolEntry, Timers, reassembly},
    destinations::Network4,
    pool::PortRange,
};
use pref64::{Pref64, siit::NonGlobal};
use serde::Deserialize;

/// The most addresses a pool may have: each costs 24 KiB.
const MAX_POOL: u64 = 4096;

/// The file, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// The NAT64 prefixes that are served. The well-known prefix if there are none.
    #[serde(default)]
    prefixes: Vec<Spanned<String>>,
    /// IPv4 networks that are routed to this host and used for nothing else.
    #[serde(default)]
    pool: Vec<Spanned<String>>,
    /// Private and other special networks that clients may reach nevertheless.
    #[serde(default)]
    allow_destinations: Vec<Spanned<String>>,
    /// Non-global IPv4 addresses under `64:ff9b::/96`.
    #[serde(default)]
    wkp_non_global: WkpNonGlobal,
    /// Name of the virtual interface.
    interface: Option<Spanned<String>>,
    /// Bytes per packet on the IPv6 and on the IPv4 side.
    ipv6_mtu: Option<Spanned<u16>>,
    ipv4_mtu: Option<Spanned<u16>>,
    /// Fragment packets that may be fragmented above this size in IPv6.
    fragment_above: Option<Spanned<u16>>,
    #[serde(default)]
    timers: TimersFile,
    #[serde(default)]
    limits: LimitsFile,
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
    udp: Option<Spanned<u64>>,
    icmp: Option<Spanned<u64>>,
    tcp_established: Option<Spanned<u64>>,
    tcp_transitory: Option<Spanned<u64>>,
    fragment: Option<Spanned<u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsFile {
    bindings: Option<Spanned<usize>>,
    sessions: Option<Spanned<usize>>,
    fragmented_datagrams: Option<usize>,
    fragment_bytes: Option<usize>,
    fragmented_datagrams_per_source: Option<usize>,
}

/// The networks of the file, each with its place.
struct Networks {
    prefixes: Vec<Spanned<Pref64>>,
    pool: Vec<Spanned<Network4>>,
    allow_destinations: Vec<Spanned<Network4>>,
}

impl Networks {
    fn read(document: &Document, file: &File) -> Result<Self, Failure> {
        fn all<T>(
            document: &Document,
            texts: &[Spanned<String>],
        ) -> Result<Vec<Spanned<T>>, Failure>
        where
            T: FromStr,
            T::Err: fmt::Display,
        {
            texts.iter().map(|text| document.value(text)).collect()
        }
        Ok(Self {
            prefixes: all(document, &file.prefixes)?,
            pool: all(document, &file.pool)?,
            allow_destinations: all(document, &file.allow_destinations)?,
        })
    }
}

fn values<T: Copy>(list: &[Spanned<T>]) -> Vec<T> {
    list.iter().map(|it| *it.get_ref()).collect()
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
    let document = Document::read(path).map_err(|failure| {
        if failure.exit() != Exit::NotFound {
            return failure;
        }
        failure.hint(format_args!(
            "write one, or name it with --config; {SMALLEST}"
        ))
    })?;
    settle(&document)
}

/// What a beginner must know.
const SMALLEST: &str = "it needs the IPv4 addresses that are routed to this host, like: \
     pool = [\"192.0.2.16/28\"]";

fn settle(document: &Document) -> Result<Config, Failure> {
    let file: File = document.parse()?;
    if file.pool.is_empty() {
        return Err(document.wrong_somewhere("there is no pool").hint(SMALLEST));
    }
    let networks = Networks::read(document, &file)?;
    check_pool_size(document, &networks.pool)?;
    let at_least = |name: &str, value: &Option<Spanned<u16>>, default: u16, least: u16| {
        let Some(value) = value else {
            return Ok(default);
        };
        let (at, value) = (value.span(), *value.get_ref());
        if value >= least {
            return Ok(value);
        }
        let what = format_args!("{name} is {value}; it must be at least {least}");
        Err(document.wrong(at, what))
    };
    let prefixes = values(&networks.prefixes);
    let config = Config {
        prefixes: if prefixes.is_empty() {
            vec![Pref64::WELL_KNOWN]
        } else {
            prefixes
        },
        pool: values(&networks.pool),
        allow_destinations: values(&networks.allow_destinations),
        wkp_non_global: match file.wkp_non_global {
            WkpNonGlobal::Drop => NonGlobal::Drop,
            WkpNonGlobal::Translate => NonGlobal::Translate,
        },
        interface: interface(document, file.interface.as_ref())?,
        ipv6_mtu: at_least("ipv6_mtu", &file.ipv6_mtu, 1500, 1280)?,
        ipv4_mtu: at_least("ipv4_mtu", &file.ipv4_mtu, 1500, 68)?,
        fragment_above: at_least("fragment_above", &file.fragment_above, 1280, 1280)?,
        timers: timers(&file.timers),
        limits: limits(&file.limits),
    };
    // What depends on the host is not checked by this.
    let checked = config.for_engine(Ipv6Addr::LOCALHOST, Vec::new()).check();
    checked.map_err(|error| place(document, &file, &networks, &error))?;
    Ok(config)
}

/// Before anything counts the addresses one by one: there may be four thousand million.
fn check_pool_size(document: &Document, pool: &[Spanned<Network4>]) -> Result<(), Failure> {
    let mut addresses = 0;
    for network in pool {
        addresses += network.get_ref().size();
        if addresses > MAX_POOL {
            let what = format_args!("the pool has {addresses} addresses; {MAX_POOL} are possible");
            return Err(document.wrong(network.span(), what));
        }
    }
    Ok(())
}

/// A name that the kernel takes, and that means one interface in every place it stands in.
fn interface(document: &Document, name: Option<&Spanned<String>>) -> Result<String, Failure> {
    let Some(name) = name else {
        return Ok("plat0".to_owned());
    };
    let (at, name) = (name.span(), name.get_ref());
    if is_interface_name(name) {
        return Ok(name.clone());
    }
    let what = format_args!("`{name}` cannot be the name of an interface");
    let hint = "use at most 15 letters, digits and -_. like plat0";
    Err(document.wrong(at, what).hint(hint))
}

/// Where in the file the reason of an error stands.
fn place(document: &Document, file: &File, networks: &Networks, error: &ConfigError) -> Failure {
    let at = match error {
        ConfigError::NoPrefix | ConfigError::NoPool => None,
        ConfigError::TooManyPrefixes => networks.prefixes.last().map(Spanned::span),
        ConfigError::OverlappingPrefixes(inner, _) => {
            last_place(&networks.prefixes, |it| it == inner)
        }
        ConfigError::PoolTwice(address) | ConfigError::PoolUnusable(address) => {
            last_place(&networks.pool, |it| it.contains(*address))
        }
        ConfigError::Timer { name, .. } => file.timers.place(name),
        ConfigError::Limit { name, .. } => file.limits.place(name),
    };
    match at {
        Some(at) => document.wrong(at, error),
        None => document.wrong_somewhere(error),
    }
}

fn last_place<T>(list: &[Spanned<T>], is: impl Fn(&T) -> bool) -> Option<Range<usize>> {
    let found = list.iter().rev().find(|it| is(it.get_ref()));
    found.map(Spanned::span)
}

impl TimersFile {
    fn place(&self, name: &str) -> Option<Range<usize>> {
        let timer = match name {
            "udp" => &self.udp,
            "icmp" => &self.icmp,
            "tcp_established" => &self.tcp_established,
            "tcp_transitory" => &self.tcp_transitory,
            _ => &self.fragment,
        };
        timer.as_ref().map(Spanned::span)
    }
}

impl LimitsFile {
    fn place(&self, name: &str) -> Option<Range<usize>> {
        let limit = match name {
            "bindings" => &self.bindings,
            _ => &self.sessions,
        };
        limit.as_ref().map(Spanned::span)
    }
}

fn timers(file: &TimersFile) -> Timers {
    let default = Timers::default();
    let or = |seconds: &Option<Spanned<u64>>, default| {
        let seconds = seconds.as_ref().map(|it| *it.get_ref());
        seconds.map_or(default, Duration::from_secs)
    };
    Timers {
        udp: or(&file.udp, default.udp),
        icmp: or(&file.icmp, default.icmp),
        tcp_established: or(&file.tcp_established, default.tcp_established),
        tcp_transitory: or(&file.tcp_transitory, default.tcp_transitory),
        fragment: or(&file.fragment, default.fragment),
    }
}

fn limits(file: &LimitsFile) -> Limits {
    let default = Limits::default();
    let fragments = default.fragments;
    let or = |limit: &Option<Spanned<usize>>, default| {
        let limit = limit.as_ref().map(|it| *it.get_ref());
        limit.unwrap_or(default)
    };
    Limits {
        bindings: or(&file.bindings, default.bindings),
        sessions: or(&file.sessions, default.sessions),
        fragments: reassembly::Limits {
            datagrams: file.fragmented_datagrams.unwrap_or(fragments.datagrams),
            bytes: file.fragment_bytes.unwrap_or(fragments.bytes),
            datagrams_per_source: file
                .fragmented_datagrams_per_source
                .unwrap_or(fragments.datagrams_per_source),
        },
    }
}

impl Config {
    /// The addresses that clients get. Those ending in 0 and 255 are left out where there are
    /// others: there are hosts and firewalls that take them for a network or a broadcast.
    pub(crate) fn pool_addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.pool.iter().flat_map(|network| {
            let chosen = network.prefix_len() > 30;
            let usual = move |address: &Ipv4Addr| chosen || !matches!(address.octets()[3], 0 | 255);
            network.addresses().filter(usual)
        })
    }

    /// For the engine; what depends on the host comes as arguments.
    pub(crate) fn for_engine(
        &self,
        own_ipv6: Ipv6Addr,
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
pub(crate) mod tests {
    use super::*;

    pub(crate) fn settled(text: &str) -> Result<Config, String> {
        settle(&Document::new("plat.toml", text)).map_err(|it| it.to_string())
    }

    #[test]
    fn a_pool_is_all_that_is_needed() {
        let config = settled("pool = [\"203.0.113.4/30\"]").unwrap();
        assert_eq!(config.prefixes, [Pref64::WELL_KNOWN]);
        assert_eq!(config.pool_addresses().count(), 4);
        let own_ipv6 = "2001:db8::1".parse().unwrap();
        assert_eq!(config.for_engine(own_ipv6, vec![]).check(), Ok(()));
    }

    #[test]
    fn addresses_that_look_like_a_network_are_only_used_if_chosen() {
        let last = |text| -> Vec<u8> {
            let config = settled(text).unwrap();
            config.pool_addresses().map(|it| it.octets()[3]).collect()
        };
        assert_eq!(last("pool = [\"203.0.113.0/30\"]"), [1, 2, 3]);
        assert_eq!(last("pool = [\"203.0.113.252/30\"]"), [252, 253, 254]);
        assert_eq!(last("pool = [\"203.0.113.0/31\"]"), [0, 1]);
        assert_eq!(last("pool = [\"203.0.113.255\"]"), [255]);
        assert_eq!(last("pool = [\"203.0.112.0/23\"]").len(), 508);
    }

    #[test]
    fn addr_3_4_01_a_configured_prefix_replaces_the_well_known_one() {
        let text = "pool = [\"203.0.113.1\"]\nprefixes = [\"2001:db8:64::/96\"]";
        let config = settled(text).unwrap();
        assert_eq!(config.prefixes, ["2001:db8:64::/96".parse().unwrap()]);
    }

    #[test]
    fn every_key_arrives_where_it_belongs() {
        let config = settled(
            "pool = [\"203.0.113.1\"]\ninterface = \"nat\"\nipv6_mtu = 1400\nipv4_mtu = 1390\n\
             fragment_above = 1300\nwkp_non_global = \"translate\"\n\
             allow_destinations = [\"10.0.0.0/8\"]\n\
             [timers]\nudp = 121\nicmp = 61\ntcp_established = 7201\ntcp_transitory = 241\n\
             fragment = 3\n\
             [limits]\nbindings = 11\nsessions = 12\nfragmented_datagrams = 13\n\
             fragment_bytes = 14\nfragmented_datagrams_per_source = 15\n",
        )
        .unwrap();
        assert_eq!(config.interface, "nat");
        let engine = config.for_engine(Ipv6Addr::LOCALHOST, vec![]);
        assert_eq!((engine.ipv6_mtu, engine.ipv4_mtu), (1400, 1390));
        assert_eq!(engine.lowest_ipv6_mtu, 1300);
        assert_eq!(engine.wkp_non_global, NonGlobal::Translate);
        assert_eq!(engine.allow_destinations, ["10.0.0.0/8".parse().unwrap()]);
        let timers = engine.timers;
        let seconds = [
            timers.udp,
            timers.icmp,
            timers.tcp_established,
            timers.tcp_transitory,
        ];
        assert_eq!(seconds.map(|it| it.as_secs()), [121, 61, 7201, 241]);
        assert_eq!(timers.fragment.as_secs(), 3);
        let limits = engine.limits;
        assert_eq!((limits.bindings, limits.sessions), (11, 12));
        let fragments = limits.fragments;
        assert_eq!((fragments.datagrams, fragments.bytes), (13, 14));
        assert_eq!(fragments.datagrams_per_source, 15);
    }

    /// File, line, reason, and what to do where it is known.
    #[test]
    fn what_is_wrong_is_said() {
        const POOL: &str = "pool = [\"203.0.113.4/30\"]\n";
        for (text, parts) in [
            ("", vec!["plat.toml: there is no pool", "like: pool = ["]),
            ("pool = []", vec!["there is no pool"]),
            (
                "pool = \"203.0.113.1\"",
                vec!["plat.toml:1:8:", "write a list"],
            ),
            (
                "pool = [\"203.0.113.1/24\"]",
                vec!["plat.toml:1:9:", "did you mean 203.0.113.0/24"],
            ),
            (
                "pool = [\"0.0.0.0/0\"]",
                vec!["plat.toml:1:9:", "4294967296 addresses"],
            ),
            (
                "pool = [\n\"10.0.0.0/20\",\n\"10.1.0.1\"]",
                vec!["plat.toml:3:1:", "4097 addresses; 4096 are possible"],
            ),
            (
                "pool = [\"203.0.113.4/30\",\n \"203.0.113.5\"]",
                vec!["plat.toml:2:2:", "203.0.113.5 stands twice"],
            ),
            (
                "pool = [\"127.0.0.1\"]",
                vec!["plat.toml:1:9:", "127.0.0.1 cannot be in the pool"],
            ),
            (
                "prefixs = []",
                vec!["plat.toml:1:1:", "`prefixs`", "did you mean `prefixes`?"],
            ),
            (
                "prefixes = [\"64:ff9b::/95\"]",
                vec!["plat.toml:1:13:", "/95 is not"],
            ),
            (
                "prefixes = [\"2001:db8:64::1/96\"]",
                vec!["plat.toml:1:13:", "did you mean 2001:db8:64::/96"],
            ),
            (
                "prefixes = [\"2001:db8::/32\",\n\"2001:db8:64::/96\"]",
                vec!["plat.toml:3:1:", "2001:db8:64::/96 lies in 2001:db8::/32"],
            ),
            ("ipv6_mtu = 1000", vec!["plat.toml:2:12:", "at least 1280"]),
            ("ipv4_mtu = 70000", vec!["plat.toml:2:12:", "70000"]),
            (
                "interface = \"../x\"",
                vec!["plat.toml:2:13:", "`../x`", "like plat0"],
            ),
            ("interface = \"plat%d\"", vec!["plat.toml:2:13:"]),
            ("interface = \"a-name-of-16-let\"", vec!["plat.toml:2:13:"]),
            ("interface = \"\"", vec!["plat.toml:2:13:"]),
            (
                "wkp_non_global = \"trnslate\"",
                vec!["plat.toml:2:18:", "did you mean `translate`?"],
            ),
            (
                "[timers]\nudb = 5",
                vec!["plat.toml:3:1:", "did you mean `udp`?"],
            ),
            (
                "[timers]\nudp = 5",
                vec!["plat.toml:3:7:", "udp must be from 120 "],
            ),
            (
                "[timers]\nfragment = 4000000000",
                vec!["plat.toml:3:12:", "to 120 seconds"],
            ),
            (
                "[limits]\nsessions = 0",
                vec!["plat.toml:3:12:", "sessions must be from 1 "],
            ),
        ] {
            let text = if text.contains("pool") || text.is_empty() {
                text.to_owned()
            } else {
                // Keys before tables.
                let at = text.contains("prefix") && !text.contains('\n');
                if at {
                    format!("{text}\n{POOL}")
                } else {
                    format!("{POOL}{text}")
                }
            };
            let error = settled(&text).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{text}\n{error}");
            }
        }
    }

    #[test]
    fn a_missing_file_is_explained() {
        let failure = read(Path::new("/nonexistent/plat.toml")).unwrap_err();
        assert_eq!(failure.exit(), Exit::NotFound);
        let text = failure.to_string();
        assert!(
            text.contains("/nonexistent/plat.toml") && text.contains("pool = ["),
            "{text}"
        );
    }
}
