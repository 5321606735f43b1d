//! `plat.toml`.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    num::NonZeroU8,
    path::Path,
};

use cli::{Exit, Failure, config::Document};
use nat64::{
    blocks::Blocks,
    config::{Limits, PoolEntry, TcpPolicy, Timers},
    destinations::Network4,
    filtering::FilteringPolicy,
    network6::Network6,
    ports::PortRange,
    static_bib::StaticBinding,
};
use pref64::{Pref64, eam::EamTable, siit::NonGlobal};

use self::pool::PoolRange;
use crate::pool_mode::PoolMode;

mod bib;
pub(crate) mod blocks;
pub mod capacity;
pub mod command;
mod conflicts;
pub mod diff;
mod eam;
mod file;
mod import;
pub(crate) mod log;
mod networks;
pub(crate) mod outside;
mod own;
mod place;
mod policy;
pub mod pool;
mod quota;
mod schema;
pub mod settings;
mod settle;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod thresholds;

pub(crate) use self::conflicts::conflicts;

/// What holds.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) prefixes: Vec<Pref64>,
    /// Who may use it; left to the host if it is empty.
    pub(crate) clients: Vec<Network6>,
    /// Empty if it is left to the host.
    pub(crate) pool: Vec<PoolRange>,
    pub(crate) pool_mode: PoolMode,
    /// The ports to share with this host, if it is said which.
    pub(crate) host_ports: Option<PortRange>,
    /// Addresses of the uplink's link that this host answers for. Empty if it is left to the host.
    pub(crate) answered: Vec<Ipv4Addr>,
    /// The interface to the IPv4 internet, if it is known.
    pub(crate) uplink: Option<String>,
    pub(crate) eam: EamTable,
    pub(crate) bib: Vec<StaticBinding>,
    pub(crate) allow_destinations: Vec<Network4>,
    pub(crate) wkp_non_global: NonGlobal,
    pub(crate) interface: String,
    /// Whether a host that did not forward goes on not forwarding, but for clients.
    pub(crate) forward_guard: bool,
    pub(crate) ipv6_mtu: u16,
    pub(crate) ipv4_mtu: u16,
    pub(crate) fragment_above: u16,
    pub(crate) filtering: FilteringPolicy,
    pub(crate) tcp: TcpPolicy,
    pub(crate) timers: Timers,
    pub(crate) limits: Limits,
    /// How many workers; as many as the machine has processors for if it is left open.
    pub(crate) workers: Option<NonZeroU8>,
    pub(crate) quota: quota::QuotaConfig,
    pub(crate) blocks: Blocks,
    /// When people are told that something comes near to its limit.
    pub(crate) thresholds: thresholds::Thresholds,
    /// The event log, if there is one.
    pub(crate) log: Option<log::Log>,
    /// Where Prometheus comes, if it does.
    pub(crate) metrics: Option<std::net::SocketAddr>,
}

/// Reads the file and those of the directory beside it. Where nobody wrote one, everything is left to
/// the defaults, the pool to the host.
///
/// # Errors
/// What is wrong, with its place.
pub fn load(path: &Path) -> Result<Loaded, Failure> {
    settled(Document::read_layers(path)?)
}

/// Where the configuration is, unless told otherwise.
pub const DEFAULT_FILE: &str = "/etc/openclat/plat.toml";

/// [`load`], of a file that was named, or else of [`DEFAULT_FILE`].
///
/// # Errors
/// As [`load`]; that the one that was named does not exist.
pub fn find(named: Option<&Path>) -> Result<Loaded, Failure> {
    let Some(path) = named else {
        return load(Path::new(DEFAULT_FILE));
    };
    let document = Document::read_layers(path)?;
    if document.files().next().is_none() {
        let what = format_args!("{}: no such file", path.display());
        let hint = "write one, or leave out --config: then plat shares this host's own address";
        return Err(Failure::new(Exit::NotFound, what).hint(hint));
    }
    settled(document)
}

/// What some text means.
///
/// # Errors
/// What is wrong, with its place.
pub fn settled(document: Document) -> Result<Loaded, Failure> {
    Ok(Loaded {
        config: settle::settle(&document)?,
        document,
    })
}

/// A configuration with the files that it stands in.
#[derive(Debug)]
pub struct Loaded {
    /// What holds.
    pub config: Config,
    /// Where it comes from.
    pub document: Document,
}

/// What a beginner must know.
pub(crate) const SMALLEST: &str = "name the IPv4 addresses, like: pool = [\"192.0.2.16/28\"]";

impl Config {
    /// The addresses that clients get.
    pub fn pool_addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.pool.iter().flat_map(PoolRange::addresses)
    }

    /// The networks that must be routed here for them.
    pub(crate) fn pool_networks(&self) -> impl Iterator<Item = Network4> + '_ {
        self.pool.iter().flat_map(PoolRange::networks)
    }

    /// For the engine; what depends on the host comes as arguments.
    pub(crate) fn for_engine(
        &self,
        own_ipv6: Ipv6Addr,
        own_addresses: Vec<Ipv4Addr>,
    ) -> nat64::Config {
        let pool: Vec<_> = self.pool.iter().flat_map(entries).collect();
        let quotas = self.quota.settle(&pool, &self.limits);
        nat64::Config {
            prefixes: self.prefixes.clone(),
            clients: self.clients.clone(),
            pool,
            eam: self.eam.clone(),
            allow_destinations: self.allow_destinations.clone(),
            own_addresses,
            wkp_non_global: self.wkp_non_global,
            own_ipv6,
            ipv6_mtu: self.ipv6_mtu,
            ipv4_mtu: self.ipv4_mtu,
            lowest_ipv6_mtu: self.fragment_above,
            errors: nat64::config::ErrorPolicy::default(),
            filtering: self.filtering,
            tcp: self.tcp,
            timers: self.timers,
            limits: self.limits,
            quotas,
            blocks: self.blocks,
        }
    }
}

/// Of each address, for the engine.
fn entries(range: &PoolRange) -> impl Iterator<Item = PoolEntry> + use<> {
    let ports = range.ports.clone();
    range.addresses().map(move |address| PoolEntry {
        address,
        ports: ports.clone(),
    })
}
