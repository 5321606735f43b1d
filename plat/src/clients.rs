//! Who may use the NAT64 if nobody said so: the networks of this host's own side, as they are.
//!
//! That is what is on-link on the interfaces to clients and what is routed by them, and this host
//! itself. Not the interface to the IPv4 internet: who is behind it, is outside. Where it is the only
//! one with an IPv6 network, its on-link network it is.

use std::net::Ipv6Addr;

use host::netwatch::{Interface, Snapshot};
use nat64::network6::Network6;

use crate::config::Config;

/// Every packet of a client is compared with all of them. A host that routes more is no router of
/// clients, but one of the internet; then it is only what is on-link.
const MOST: usize = 256;

/// A network of clients.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Clients {
    /// The network.
    pub(crate) network: Network6,
    /// The interface that it is behind.
    pub(crate) interface: String,
}

/// Who may use it on this host, if the configuration does not say it. Nobody, if the host has no
/// IPv6 address to be reached by.
pub(crate) fn of_host(config: &Config, snapshot: &Snapshot) -> Vec<Network6> {
    let found = networks(config, snapshot).into_iter().map(|it| it.network);
    let all = others(config, snapshot).flat_map(|it| &it.addresses);
    let own = all.map(|it| Network6::around(it.address, 128));
    // What is left is not the same as what an empty list would mean.
    let nobody = Network6::around(Ipv6Addr::UNSPECIFIED, 128);
    let mut all = fewest(found.chain(own.filter(|it| is_of_clients(*it))));
    if all.is_empty() {
        all.push(nobody);
    }
    all
}

/// The networks, as few as cover all of them, in order.
pub(crate) fn networks(config: &Config, snapshot: &Snapshot) -> Vec<Clients> {
    let is_uplink = |it: &Interface| match &config.uplink {
        Some(name) => it.name == *name,
        None => snapshot.ipv4_default.contains(&it.index),
    };
    let (uplinks, inside): (Vec<_>, Vec<_>) =
        others(config, snapshot).partition(|it| is_uplink(it));
    let mut found: Vec<_> = inside.iter().flat_map(|it| on_link(it)).collect();
    let routed: Vec<_> = inside.iter().flat_map(|it| routed(it, snapshot)).collect();
    if found.len() + routed.len() <= MOST {
        found.extend(routed);
    }
    if found.is_empty() {
        found = uplinks.iter().flat_map(|it| on_link(it)).collect();
    }
    let all = fewest(found.iter().map(|it| it.network));
    found.sort_unstable();
    found.dedup_by_key(|it| it.network);
    found.retain(|it| all.contains(&it.network));
    found
}

/// The interfaces that clients may be behind: not a translator's, which have no IPv6 address.
fn others<'a>(config: &'a Config, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a Interface> {
    let all = snapshot.interfaces.iter();
    all.filter(|it| it.name != config.interface && it.name != "lo" && !it.addresses.is_empty())
}

fn on_link(interface: &Interface) -> impl Iterator<Item = Clients> {
    let networks = interface.addresses.iter();
    let networks = networks.map(|it| Network6::around(it.address, it.prefix_len));
    behind(interface, networks)
}

fn routed(interface: &Interface, snapshot: &Snapshot) -> impl Iterator<Item = Clients> {
    let routes = snapshot.ipv6_routes.iter();
    let routes = routes.filter(|it| it.interface == interface.index);
    behind(
        interface,
        routes.map(|it| Network6::around(it.network, it.prefix_len)),
    )
}

fn behind(
    interface: &Interface,
    networks: impl Iterator<Item = Network6>,
) -> impl Iterator<Item = Clients> {
    let networks = networks.filter(|it| is_of_clients(*it));
    networks.map(|network| Clients {
        network,
        interface: interface.name.clone(),
    })
}

/// Whether hosts with an address in it could send something to the NAT64.
fn is_of_clients(network: Network6) -> bool {
    let first = network.first();
    // That of the default route begins with the last of these.
    !first.is_unicast_link_local()
        && !first.is_multicast()
        && !first.is_loopback()
        && !first.is_unspecified()
}

/// Without those that lie in another, in order.
fn fewest(networks: impl Iterator<Item = Network6>) -> Vec<Network6> {
    let mut all: Vec<_> = networks.collect();
    all.sort_unstable_by_key(|it| (it.first(), it.prefix_len()));
    let mut fewest: Vec<Network6> = Vec::new();
    for network in all {
        // The larger one of two that begin alike comes first, and nothing overlaps by halves.
        if !fewest.last().is_some_and(|it| it.contains(network.first())) {
            fewest.push(network);
        }
    }
    fewest
}

/// Who may use it, for people.
pub(crate) fn text(asked: &Config, config: &Config) -> String {
    let networks: Vec<_> = config.clients.iter().map(ToString::to_string).collect();
    let networks = networks.join(", ");
    if asked.clients.is_empty() {
        return format!(
            "Clients are the networks of this host's own side: {networks}.\n\
             Others are refused, unless the configuration names them, like: clients = [\"::/0\"]\n"
        );
    }
    format!("Clients are: {networks}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::tests::settled, test_host};
    use host::netwatch::Route6;

    fn interface(index: u32, name: &str, ipv6: &[(&str, u8)]) -> Interface {
        test_host::interface(index, name, ipv6, &[])
    }

    fn route(network: &str, prefix_len: u8, interface: u32) -> Route6 {
        Route6 {
            network: network.parse().unwrap(),
            prefix_len,
            interface,
        }
    }

    /// A router with its WAN on `wan`.
    fn router() -> Snapshot {
        Snapshot {
            interfaces: vec![
                interface(1, "lo", &[("::1", 128)]),
                interface(2, "wan", &[("fe80::2", 64), ("2001:db8:ffff::7", 64)]),
                interface(3, "lan", &[("fe80::1", 64), ("2001:db8:1::1", 64)]),
                interface(4, "plat0", &[]),
                interface(5, "plat-b", &[]),
            ],
            ipv4_default: vec![2],
            ipv6_default: vec![2],
            ipv6_routes: vec![
                route("2001:db8:1::", 64, 3),
                route("fe80::", 64, 3),
                route("ff00::", 8, 3),
                route("2001:db8:2::", 48, 3),
                route("2001:db8:2:7::", 64, 3),
                route("2001:db8:eeee::", 48, 2),
                route("2001:db8:64::", 96, 4),
                route("2001:db8:65::", 96, 5),
            ],
            ..Snapshot::default()
        }
    }

    fn shown(text: &str, snapshot: &Snapshot) -> Vec<String> {
        let config = settled(text).unwrap();
        let clients = of_host(&config, snapshot);
        clients.iter().map(ToString::to_string).collect()
    }

    /// What is on-link and what is routed, but not what is outside; and this host itself.
    #[test]
    fn clients_are_the_networks_of_the_hosts_own_side() {
        let expected = ["2001:db8:1::/64", "2001:db8:2::/48", "2001:db8:ffff::7/128"];
        let pool = "pool = [\"203.0.113.1\"]\n";
        assert_eq!(shown(pool, &router()), expected);
        // It is said where the IPv4 internet is.
        let said = shown("uplink = \"lan\"\npool_mode = \"masquerade\"", &router());
        let outside = [
            "2001:db8:1::1/128",
            "2001:db8:eeee::/48",
            "2001:db8:ffff::/64",
        ];
        assert_eq!(said, outside);
        let config = settled(pool).unwrap();
        let of: Vec<_> = networks(&config, &router())
            .into_iter()
            .map(|it| it.interface)
            .collect();
        assert_eq!(of, ["lan", "lan"]);
    }

    #[test]
    fn a_host_with_one_interface_serves_its_link() {
        let mut one = router();
        one.interfaces.retain(|it| it.name != "lan");
        assert_eq!(shown("", &one), ["2001:db8:ffff::/64"]);
    }

    /// An empty list would mean everybody.
    #[test]
    fn without_any_network_it_is_nobody() {
        assert_eq!(shown("", &Snapshot::default()), ["::/128"]);
    }

    #[test]
    fn routes_of_the_internet_make_nobody_a_client() {
        let mut transit = router();
        let many = (0..300).map(|n| Route6 {
            network: Ipv6Addr::new(0x2600, n, 0, 0, 0, 0, 0, 0),
            prefix_len: 32,
            interface: 3,
        });
        transit.ipv6_routes.extend(many);
        assert_eq!(
            shown("", &transit),
            ["2001:db8:1::/64", "2001:db8:ffff::7/128"]
        );
    }

    /// As many routes as are still compared with, and one more.
    #[test]
    fn a_router_of_256_networks_is_one_of_clients() {
        let mut router = router();
        router.ipv6_routes.clear();
        // One is on-link.
        let many = (0..255u16).map(|n| Route6 {
            network: Ipv6Addr::new(0x2001, 0xdb8, 0x8000 | n << 1, 0, 0, 0, 0, 0),
            prefix_len: 48,
            interface: 3,
        });
        router.ipv6_routes.extend(many);
        let config = settled("").unwrap();
        assert_eq!(networks(&config, &router).len(), 256);
        router.ipv6_routes.push(route("2001:db8:7::", 48, 3));
        assert_eq!(networks(&config, &router).len(), 1);
    }

    /// What is routed by everybody, or has nobody behind it, is no network of clients; and what is
    /// on this host alone has no clients.
    #[test]
    fn networks_without_clients_are_none_of_clients() {
        let before = shown("", &router());
        let mut odd = router();
        odd.ipv6_routes.extend([
            route("::", 0, 3),
            route("::", 96, 3),
            route("::1", 128, 3),
            route("fe80::", 10, 3),
            route("ff02::", 16, 3),
        ]);
        odd.interfaces[0]
            .addresses
            .extend(interface(1, "lo", &[("2001:db8:aa::1", 64)]).addresses);
        odd.interfaces[3]
            .addresses
            .extend(interface(4, "plat0", &[("2001:db8:bb::1", 64)]).addresses);
        assert_eq!(shown("", &odd), before);
    }

    #[test]
    fn who_the_clients_are_is_said_with_how_to_change_it() {
        let pool = "pool = [\"203.0.113.1\"]\n";
        let asked = settled(pool).unwrap();
        let named = settled(&format!("{pool}clients = [\"2001:db8:5::/48\"]")).unwrap();
        let said = text(&named, &named);
        assert_eq!(said, "Clients are: 2001:db8:5::/48\n");
        let said = text(&asked, &named);
        assert!(said.contains("own side: 2001:db8:5::/48"), "{said}");
        assert!(said.contains("clients = [\"::/0\"]"), "{said}");
    }
}
