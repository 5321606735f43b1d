//! Addresses of this host that mean something else by the configuration.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use host::netwatch::Snapshot;
use pref64::{Pref64, eam::Eam};

use super::{Config, pool::PoolRange};
use crate::pool_mode::PoolMode;

/// An address of this host, and what it lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) address: IpAddr,
    pub(super) interface: String,
    pub(super) lies_in: LiesIn,
}

/// Where an address of this host should not lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LiesIn {
    /// The address whose ports are shared, which is meant.
    Shared(PoolRange),
    /// An entry of the pool.
    Pool(PoolRange),
    /// A prefix that is served.
    Prefix(Pref64),
    /// The IPv4 addresses of a mapping.
    Mapped(Eam),
    /// The IPv6 addresses of a mapping.
    Mapping(Eam),
}

impl Own {
    /// Whether it keeps plat from working.
    pub(super) fn is_wrong(&self) -> bool {
        match self.lies_in {
            LiesIn::Shared(_) | LiesIn::Mapping(_) => false,
            LiesIn::Pool(_) | LiesIn::Prefix(_) | LiesIn::Mapped(_) => true,
        }
    }
}

impl fmt::Display for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, interface) = (self.address, &self.interface);
        match &self.lies_in {
            LiesIn::Shared(range) => write!(
                f,
                "{address}, this host's own address on {interface}, is shared: ports and ICMP \
                 identifiers {} are the clients', unless a program of this host has one of them \
                 open; all else stays this host's",
                range.ports.tcp
            ),
            LiesIn::Pool(range) => write!(
                f,
                "{address}, this host's own address on {interface}, lies in {range} of the pool: \
                 what comes to it is this host's and would never reach plat, so `plat run` refuses \
                 to start"
            ),
            LiesIn::Mapped(eam) => write!(
                f,
                "{address}, this host's own address on {interface}, lies in [[eam]] {eam}: what comes \
                 to it is this host's and would never reach plat, so `plat run` refuses to start"
            ),
            LiesIn::Mapping(eam) => write!(
                f,
                "{address}, this host's own address on {interface}, lies in [[eam]] {eam}: what this \
                 host sends from it through plat gets the mapped IPv4 address, not one of the pool"
            ),
            LiesIn::Prefix(prefix) => write!(
                f,
                "{address}, this host's own address on {interface}, lies in {prefix}: a NAT64 drops \
                 packets that come from its own prefix, so nothing behind {interface} could use \
                 it; `plat run` refuses to start"
            ),
        }
    }
}

/// All of them. Those of plat's own interface are not meant.
pub(super) fn find(config: &Config, snapshot: &Snapshot) -> Vec<Own> {
    let mut found = Vec::new();
    let others = snapshot.interfaces.iter();
    for interface in others.filter(|it| it.name != config.interface) {
        let mut add = |address, lies_in: Option<LiesIn>| {
            found.extend(lies_in.map(|lies_in| Own {
                address,
                interface: interface.name.clone(),
                lies_in,
            }));
        };
        for address in &interface.ipv4 {
            add((*address).into(), in_pool(config, *address));
            let mapped = config.eam.find(*address).copied();
            add((*address).into(), mapped.map(LiesIn::Mapped));
        }
        for address in interface.addresses.iter().map(|it| it.address) {
            add(address.into(), in_prefix(config, address));
            let mapping = config.eam.iter().find(|it| it.covers_ipv6(address));
            add(address.into(), mapping.copied().map(LiesIn::Mapping));
        }
    }
    found
}

fn in_pool(config: &Config, address: Ipv4Addr) -> Option<LiesIn> {
    let range = config.pool.iter().find(|it| it.contains(address));
    let lies_in = match config.pool_mode {
        PoolMode::HostPorts => LiesIn::Shared,
        PoolMode::Routed | PoolMode::Arp | PoolMode::Masquerade => LiesIn::Pool,
    };
    range.cloned().map(lies_in)
}

fn in_prefix(config: &Config, address: Ipv6Addr) -> Option<LiesIn> {
    let prefix = config.prefixes.iter().find(|it| it.contains(address));
    prefix.copied().map(LiesIn::Prefix)
}

#[cfg(test)]
mod tests {
    use super::{super::tests::settled, *};
    use crate::test_host;

    #[test]
    fn own_addresses_in_the_pool_and_in_a_prefix_are_named() {
        let interface =
            |name| test_host::interface(1, name, &[("2001:db8:64::1", 64)], &["203.0.113.7"]);
        let snapshot = Snapshot {
            interfaces: vec![interface("eth0"), interface("plat0")],
            ..Snapshot::default()
        };
        let config = |text| settled(text).unwrap();
        let both = config("pool = [\"203.0.113.0/28\"]\nprefixes = [\"2001:db8:64::/96\"]");
        let found: Vec<_> = find(&both, &snapshot).iter().map(Own::to_string).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].starts_with(
                "203.0.113.7, this host's own address on eth0, lies in 203.0.113.0/28"
            )
        );
        assert!(found[1].contains("2001:db8:64::1") && found[1].contains("2001:db8:64::/96"));
        let mapped = config(
            "pool = [\"198.51.100.1\"]\n[[eam]]\nipv4 = \"203.0.113.0/29\"\n\
             ipv6 = \"2001:db8:64::/125\"",
        );
        let found = find(&mapped, &snapshot);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].is_wrong() && !found[1].is_wrong(), "{found:?}");
        assert!(
            found[0]
                .to_string()
                .contains("lies in [[eam]] 203.0.113.0/29")
        );
        let neither = config("pool = [\"198.51.100.0/28\"]");
        assert_eq!(find(&neither, &snapshot), []);
        let shared = config("pool_mode = \"host-ports\"\npool = [\"203.0.113.7\"]");
        let found = find(&shared, &snapshot);
        assert!(found[0].to_string().contains("is shared"), "{found:?}");
        assert!(!found[0].is_wrong());
    }
}
