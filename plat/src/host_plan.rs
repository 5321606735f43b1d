//! What the PLAT wants of the host's network: both families routed into its virtual interface and
//! out of it again.

use std::collections::BTreeSet;

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
        .pool
        .iter()
        .map(|network| Prefix::new(network.first().into(), network.prefix_len()));
    items.extend(prefixes.chain(pool).map(|destination| {
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
