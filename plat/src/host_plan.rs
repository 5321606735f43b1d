//! What the PLAT wants of the host's network: both families routed into its virtual interface and
//! out of it again.

use std::{collections::BTreeSet, net::Ipv4Addr};

use host::netwatch::{Interface as Found, Snapshot};
use plan::{Interface, Item, Plan, Prefix, Route, Setting, Via};

use crate::config::Config;

/// The interfaces that the kernel is to forward on.
///
/// They come and go: a WAN that gets its address late, a cable that is plugged in. One that was
/// found stays until it is gone, whatever becomes of its addresses and routers: a router that was
/// silent for a while is to be heard when it speaks again.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Forwarding {
    /// Those that a router configures.
    by_router: BTreeSet<String>,
    /// Those with an IPv4 address.
    with_ipv4: BTreeSet<String>,
}

impl Forwarding {
    /// Learns of the interfaces on the host as it is.
    pub(crate) fn follow(&mut self, config: &Config, snapshot: &Snapshot) {
        let others = |it: &&Found| it.name != config.interface && it.name != "lo";
        let all: BTreeSet<_> = snapshot.interfaces.iter().map(|it| &it.name).collect();
        self.by_router.retain(|name| all.contains(name));
        self.with_ipv4.retain(|name| all.contains(name));
        for interface in snapshot.interfaces.iter().filter(others) {
            if snapshot.ipv6_default.contains(&interface.index) {
                self.by_router.insert(interface.name.clone());
            }
            if !interface.ipv4.is_empty() {
                self.with_ipv4.insert(interface.name.clone());
            }
        }
    }

    /// IPv4 on our interface and those that have IPv4 addresses, one by one, since the switch for
    /// all has side effects. IPv6 has only the switch for all; before it is thrown, interfaces that
    /// a router configures are told to go on listening to it.
    fn settings<'a>(&'a self, own: &'a str) -> impl Iterator<Item = Item> + 'a {
        let setting = |path: String, value: &str| {
            Item::Setting(Setting {
                path,
                value: value.to_owned(),
            })
        };
        let accept = self.by_router.iter();
        let accept = accept.map(move |it| setting(format!("net/ipv6/conf/{it}/accept_ra"), "2"));
        let all = setting("net/ipv6/conf/all/forwarding".to_owned(), "1");
        let ipv4 = self.with_ipv4.iter().map(String::as_str).chain([own]);
        let ipv4 = ipv4.map(move |it| setting(format!("net/ipv4/conf/{it}/forwarding"), "1"));
        accept.chain([all]).chain(ipv4)
    }
}

/// The plan for a host with these interfaces.
pub(crate) fn plan(config: &Config, forwarding: &Forwarding) -> Plan {
    let mut items = vec![Item::Interface(Interface {
        name: config.interface.clone(),
        mtu: config.ipv6_mtu.max(config.ipv4_mtu),
    })];
    items.extend(forwarding.settings(&config.interface));
    let prefixes = config
        .prefixes
        .iter()
        .map(|prefix| Prefix::new(prefix.address().into(), prefix.length().bits()));
    let pool = config
        .pool_networks()
        .map(|network| Prefix::new(network.first().into(), network.prefix_len()));
    let mapped = mapped_networks(config).into_iter();
    let mapped = mapped.map(|(first, len)| Prefix::new(first.into(), len));
    items.extend(prefixes.chain(pool).chain(mapped).map(|destination| {
        Item::Route(Route {
            destination,
            via: Via::Interface {
                name: config.interface.clone(),
                source: None,
            },
            metric: None,
        })
    }));
    Plan::new(items)
}

/// The IPv4 networks of the explicit mappings, as few as cover exactly them.
fn mapped_networks(config: &Config) -> Vec<(Ipv4Addr, u8)> {
    let mut networks: Vec<_> = config.eam.iter().map(|eam| eam.ipv4()).collect();
    networks.sort_unstable();
    let mut fewest: Vec<(Ipv4Addr, u8)> = Vec::new();
    for mut network in networks {
        if fewest.last().is_some_and(|it| contains(*it, network.0)) {
            continue;
        }
        while let Some(before) = fewest.last().copied()
            && let Some(both) = joined(before, network)
        {
            fewest.pop();
            network = both;
        }
        fewest.push(network);
    }
    fewest
}

fn contains((first, len): (Ipv4Addr, u8), address: Ipv4Addr) -> bool {
    let differ = first.to_bits() ^ address.to_bits();
    differ.checked_shr(32 - u32::from(len)).unwrap_or(0) == 0
}

/// The network that consists of two halves, in order.
fn joined(half: (Ipv4Addr, u8), other: (Ipv4Addr, u8)) -> Option<(Ipv4Addr, u8)> {
    let bit = 1u32.checked_shl(32 - u32::from(half.1))?;
    let are_halves = half.1 == other.1
        && half.0.to_bits() & bit == 0
        && other.0.to_bits() == half.0.to_bits() | bit;
    are_halves.then(|| (half.0, half.1 - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(index: u32, name: &str, ipv4: &[&str]) -> Found {
        Found {
            index,
            name: name.to_owned(),
            running: true,
            mac: None,
            ipv6_mtu: 1500,
            addresses: Vec::new(),
            ipv4: ipv4.iter().map(|it| it.parse().unwrap()).collect(),
        }
    }

    fn settings(forwarding: &Forwarding) -> Vec<String> {
        let items = forwarding.settings("plat0");
        items.map(|it| it.to_string()).collect()
    }

    /// Ten thousand hosts of one network are one route.
    #[test]
    fn mapped_hosts_are_routed_by_as_few_routes_as_can_be() {
        let mut text = "pool = [\"203.0.113.0/28\"]\n".to_owned();
        let mut add = |v4: &str, v6: &str| {
            text += &format!("[[eam]]\nipv4 = \"{v4}\"\nipv6 = \"{v6}\"\n");
        };
        for n in 0..256 {
            add(&format!("192.0.2.{n}"), &format!("2001:db8::{n:x}"));
        }
        add("198.51.100.0/25", "2001:db8:1::/121");
        add("198.51.100.7", "2001:db8:2::7");
        add("198.51.100.129", "2001:db8:2::8");
        add("198.51.100.130", "2001:db8:2::9");
        let config = crate::config::tests::settled(&text).unwrap();
        let networks = mapped_networks(&config);
        let shown: Vec<_> = networks
            .iter()
            .map(|(it, len)| format!("{it}/{len}"))
            .collect();
        let expected = [
            "192.0.2.0/24",
            "198.51.100.0/25",
            "198.51.100.129/32",
            "198.51.100.130/32",
        ];
        assert_eq!(shown, expected);
        let plan = plan(&config, &Forwarding::default());
        let routes = format!("{plan:?}");
        assert!(routes.contains("192.0.2.0"), "{routes}");
    }

    #[test]
    fn interfaces_that_come_are_forwarded_on_and_those_that_go_are_forgotten() {
        let config = crate::config::tests::settled("pool = [\"203.0.113.0/28\"]").unwrap();
        let mut forwarding = Forwarding::default();
        let lan = found(2, "eth0", &[]);
        let mut snapshot = Snapshot {
            interfaces: vec![
                found(1, "lo", &["127.0.0.1"]),
                lan,
                found(9, "plat0", &["192.0.2.9"]),
            ],
            ipv6_default: vec![2],
            ..Snapshot::default()
        };
        forwarding.follow(&config, &snapshot);
        let alone = [
            "setting net/ipv6/conf/eth0/accept_ra = 2",
            "setting net/ipv6/conf/all/forwarding = 1",
            "setting net/ipv4/conf/plat0/forwarding = 1",
        ];
        assert_eq!(settings(&forwarding), alone);

        // The WAN gets its address late, and the router of the LAN is silent for a while.
        snapshot.interfaces.push(found(3, "ppp0", &["192.0.2.1"]));
        snapshot.ipv6_default.clear();
        forwarding.follow(&config, &snapshot);
        let with_wan = [
            alone[0],
            alone[1],
            "setting net/ipv4/conf/ppp0/forwarding = 1",
            alone[2],
        ];
        assert_eq!(settings(&forwarding), with_wan);
        // It loses its address, which may come back; then it goes.
        snapshot.interfaces[3].ipv4.clear();
        forwarding.follow(&config, &snapshot);
        assert_eq!(settings(&forwarding), with_wan);
        snapshot.interfaces.pop();
        forwarding.follow(&config, &snapshot);
        assert_eq!(settings(&forwarding), alone);
    }
}
