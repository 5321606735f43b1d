//! What the PLAT wants of the host's network: both families routed into its virtual interface and
//! out of it again.

use std::net::Ipv4Addr;

use nat64::destinations::Network4;
use plan::{
    Interface, Item, Masquerade, Plan, PortShare, Ports, Prefix, ProxyNeighbour, ReservedPorts,
    Route, Via,
};

use crate::{config::Config, forwarding::Forwarding, pool_mode::PoolMode};

/// The plan for a host with these interfaces.
pub(crate) fn plan(config: &Config, forwarding: &Forwarding) -> Plan {
    let mut items = vec![Item::Interface(Interface {
        name: config.interface.clone(),
        mtu: config.ipv6_mtu.max(config.ipv4_mtu),
    })];
    items.extend(forwarding.items(config, table(config)));
    let prefixes = config
        .prefixes
        .iter()
        .map(|prefix| Prefix::new(prefix.address().into(), prefix.length().bits()));
    let share = share(config);
    let pool = match &share {
        // The address itself has a route already: to this host.
        Some(share) => vec![Prefix::host(share.stand_in().into())],
        None => config.pool_networks().map(prefix).collect(),
    };
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
    if let Some(share) = share {
        items.push(Item::ReservedPorts(ReservedPorts { ports: share.ports }));
        items.push(Item::PortShare(share));
    }
    items.extend(neighbours(config));
    items.extend(masquerade(config));
    Plan::new(items)
}

fn prefix(network: Network4) -> Prefix {
    Prefix::new(network.first().into(), network.prefix_len())
}

/// A name that no other instance on this host has.
fn table(config: &Config) -> String {
    format!("openclat-{}", config.interface)
}

/// The ports that are shared with this host, if they are.
fn share(config: &Config) -> Option<PortShare> {
    let shared = config.pool.first()?;
    let ports = shared.ports.as_range()?;
    (config.pool_mode == PoolMode::HostPorts).then(|| PortShare {
        name: table(config),
        address: shared.first(),
        ports: Ports {
            first: ports.first(),
            last: ports.last(),
        },
        interface: config.interface.clone(),
    })
}

/// The addresses that this host answers for.
fn neighbours(config: &Config) -> impl Iterator<Item = Item> + '_ {
    let uplink = config.uplink.as_ref();
    let uplink = uplink.filter(|_| config.pool_mode == PoolMode::Arp);
    uplink.into_iter().flat_map(|interface| {
        config.answered.iter().map(|address| {
            Item::ProxyNeighbour(ProxyNeighbour {
                interface: interface.clone(),
                address: *address,
            })
        })
    })
}

fn masquerade(config: &Config) -> impl Iterator<Item = Item> + '_ {
    let is_wanted = |_: &Network4| config.pool_mode == PoolMode::Masquerade;
    let networks = config.pool_networks().filter(is_wanted).map(prefix);
    networks.map(|addresses| {
        Item::Masquerade(Masquerade {
            // One table for each.
            name: format!("{}-{addresses}", table(config)),
            addresses,
            interface: config.interface.clone(),
        })
    })
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
    use crate::pool_mode::on_host;
    use host::netwatch::{Interface as Found, Snapshot};

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

    /// The plan of a host with a WAN and a LAN that both have IPv4.
    fn planned(text: &str) -> Vec<String> {
        let config = crate::config::tests::settled(text).unwrap();
        let mut snapshot = Snapshot {
            interfaces: vec![
                found(1, "lo", &["127.0.0.1"]),
                found(2, "eth0", &["10.0.0.1"]),
                found(3, "ppp0", &["192.0.2.1"]),
            ],
            ipv4_default: vec![3],
            ..Snapshot::default()
        };
        snapshot.interfaces[2].running = true;
        let config = on_host(&config, &snapshot, |_, _| Ok(Vec::new())).unwrap();
        let mut forwarding = Forwarding::default();
        forwarding.update(&config, &snapshot, |_| None);
        let plan = plan(&config, &forwarding);
        plan.items().iter().map(ToString::to_string).collect()
    }

    /// The address stays the host's own: only its stand-in is routed to the NAT64.
    #[test]
    fn a_shared_address_has_no_route_and_only_its_uplink_forwards() {
        let plan = planned("");
        let share = "ports 61001-65535 of 192.0.2.1 for plat0";
        assert!(plan.iter().any(|it| it == share), "{plan:?}");
        assert!(plan.iter().any(|it| it.starts_with("route to 247.114.")));
        assert!(!plan.iter().any(|it| it.contains("route to 192.0.2.1")));
        let reserved = plan
            .iter()
            .position(|it| it.starts_with("ports 61001-65535 given"));
        let shared = plan.iter().position(|it| it == share);
        assert!(reserved.is_some() && reserved < shared, "{plan:?}");
        let forwards = |plan: &[String], name| {
            let setting = format!("setting net/ipv4/conf/{name}/forwarding = 1");
            plan.contains(&setting)
        };
        assert!(forwards(&plan, "ppp0") && forwards(&plan, "plat0"));
        assert!(!forwards(&plan, "eth0"));
        // A private network may be behind any interface.
        let private = planned("allow_destinations = [\"10.0.0.0/8\"]");
        assert!(forwards(&private, "eth0"));
    }

    #[test]
    fn spare_addresses_are_answered_for_and_private_ones_hidden() {
        let plan = planned("pool_mode = \"arp\"\npool = [\"192.0.2.8/31\"]");
        for line in [
            "ARP for 192.0.2.8 answered on ppp0",
            "ARP for 192.0.2.9 answered on ppp0",
            "route to 192.0.2.8/31 out of plat0",
        ] {
            assert!(plan.iter().any(|it| it == line), "{line}: {plan:?}");
        }
        let plan = planned("pool_mode = \"masquerade\"");
        for line in [
            "192.0.0.64/29 behind an address of this host",
            "route to 192.0.0.64/29 out of plat0",
        ] {
            assert!(plan.iter().any(|it| it == line), "{line}: {plan:?}");
        }
    }
}
