//! `plat.toml`.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
};

use cli::{Exit, Failure, config::Document};
use nat64::{
    config::{Limits, PoolEntry, Timers},
    destinations::Network4,
    pool::PortRange,
};
use pref64::{Pref64, eam::EamTable, siit::NonGlobal};

mod eam;
mod file;
mod networks;
mod place;
mod settle;
#[cfg(test)]
pub(crate) mod tests;

/// What holds.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) prefixes: Vec<Pref64>,
    pub(crate) pool: Vec<Network4>,
    pub(crate) eam: EamTable,
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
    settle::settle(&document)
}

/// What a beginner must know.
const SMALLEST: &str = "it needs the IPv4 addresses that are routed to this host, like: \
     pool = [\"192.0.2.16/28\"]";

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
            eam: self.eam.clone(),
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
