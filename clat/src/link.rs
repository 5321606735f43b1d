//! Which link the CLAT is on, and what is true of it: all that is read from a [`Snapshot`].

use std::net::{Ipv4Addr, Ipv6Addr};

use clat_core::{address::HostAddress, mapping::is_service_continuity, session::Link};
use host::netwatch::{Interface, Route6, Snapshot};
use wire::ethernet::Mac;

/// A link, as it may be in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Part of its identity: frames are sent from it and neighbours are told it. None if it is not
    /// Ethernet.
    pub(crate) mac: Option<Mac>,
}

impl Chosen {
    fn of(interface: &Interface) -> Self {
        Self {
            index: interface.index,
            name: interface.name.clone(),
            mac: interface.mac,
        }
    }
}

/// What decides between links.
pub(crate) struct Preference<'a> {
    /// The only one to use, if a person said so.
    pub(crate) configured: Option<&'a str>,
    /// The virtual interface, which is never a link.
    pub(crate) own: &'a str,
    /// The one in use.
    pub(crate) current: Option<u32>,
    /// The address lies on the link, which must be Ethernet then. A routed one may come by any link.
    pub(crate) ethernet: bool,
}

impl Preference<'_> {
    fn allows(&self, interface: &Interface) -> bool {
        let fits = interface.mac.is_some() || !self.ethernet;
        fits && interface.running && interface.name != self.own
    }
}

/// What is there for the CLAT on a link, from little to much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Offer {
    /// No NAT64 prefix is known.
    Nothing,
    /// One is, but the host has no address there to go with it.
    Prefix,
    /// All that it needs.
    Enough,
}

/// The configured link; else the one in use while it has enough; else the best that has; else the
/// same of those that have a prefix; else the best.
pub(crate) fn choose(
    snapshot: &Snapshot,
    preference: &Preference<'_>,
    offer: impl Fn(&Interface) -> Offer,
) -> Option<Chosen> {
    let usable = |it: &&Interface| preference.allows(it);
    if let Some(name) = preference.configured {
        let interface = snapshot.by_name(name).filter(usable);
        return interface.map(Chosen::of);
    }
    let by_index = |index: u32| snapshot.by_index(index).filter(usable);
    let by_route = || (snapshot.ipv6_default.iter()).filter_map(|index| by_index(*index));
    // A link without a route and without a link-layer address may be the loopback interface.
    let ethernet = |it: &&Interface| it.mac.is_some() && preference.allows(it);
    let all = || snapshot.interfaces.iter().filter(ethernet);
    let best = |least: Offer| {
        let enough = |it: &&Interface| offer(it) >= least;
        let current = preference.current.and_then(by_index);
        current
            .filter(enough)
            .or_else(|| by_route().find(enough))
            .or_else(|| all().find(enough))
    };
    let chosen = best(Offer::Enough)
        .or_else(|| best(Offer::Prefix))
        .or_else(|| by_route().next())
        .or_else(|| all().next());
    chosen.map(Chosen::of)
}

/// All links that are up.
pub(crate) fn running(snapshot: &Snapshot) -> Vec<Chosen> {
    let running = snapshot.interfaces.iter().filter(|it| it.running);
    running.map(Chosen::of).collect()
}

/// The links whose routers or resolvers may know a prefix: the one in use, and those that others can answer on.
pub(crate) fn candidates(snapshot: &Snapshot, preference: &Preference<'_>) -> Vec<u32> {
    let links = snapshot.interfaces.iter();
    let configured = |it: &&Interface| preference.configured.is_none_or(|name| it.name == name);
    let may = links.filter(|it| preference.allows(it)).filter(configured);
    may.filter(|it| Some(it.index) == preference.current || has_global_address(it))
        .map(|it| it.index)
        .collect()
}

fn has_global_address(interface: &Interface) -> bool {
    let mut addresses = interface.addresses.iter();
    addresses.any(|it| {
        let is_local = it.address.is_loopback() || it.address.is_unicast_link_local();
        it.preferred && !is_local
    })
}

/// Why the link that a person wants cannot be used, if that is so.
pub(crate) fn obstacle(snapshot: &Snapshot, preference: &Preference<'_>) -> Option<String> {
    let name = preference.configured?;
    let Some(interface) = snapshot.by_name(name) else {
        return Some(format!("there is no interface {name}"));
    };
    if preference.allows(interface) {
        return None;
    }
    Some(if name == preference.own {
        format!("{name} is the CLAT's own interface")
    } else if interface.running {
        format!("{name} is not Ethernet: there, the CLAT needs a routed address (--routed)")
    } else {
        format!("{name} is down or has no carrier")
    })
}

/// A link as the session sees it.
pub(crate) fn describe(interface: &Interface) -> Link {
    Link {
        index: interface.index,
        name: interface.name.clone(),
        // Where there is none, nobody asks for it.
        mac: interface.mac.unwrap_or(Mac([0; 6])),
        mtu: u16::try_from(interface.ipv6_mtu).unwrap_or(u16::MAX),
    }
}

/// The host's addresses on a link as the session sees them.
pub(crate) fn addresses(interface: &Interface) -> Vec<HostAddress> {
    let addresses = interface.addresses.iter();
    addresses
        .map(|it| HostAddress {
            address: it.address,
            prefix_len: it.prefix_len,
            preferred: it.preferred,
        })
        .collect()
}

/// Whether the host's network has IPv4 without us. The kernel keeps the route of an interface whose
/// cable was pulled out; that one leads nowhere.
///
/// An interface without a link-layer address is a tunnel as a rule, and no network: if the CLAT gave
/// way to a VPN whose server is reached through it, both would be gone. It counts where it is the
/// CLAT's own `link` (a modem, with a routed address).
pub(crate) fn has_native_ipv4(snapshot: &Snapshot, own: &str, link: Option<u32>) -> bool {
    let is_network = |it: &Interface| it.mac.is_some() || Some(it.index) == link;
    let mut routes = snapshot.ipv4_default.iter();
    routes.any(|index| {
        let interface = snapshot.by_index(*index);
        interface.is_some_and(|it| it.running && it.name != own && is_network(it))
    })
}

/// Whether a route that is no default route leads to `destination` out of a link.
pub(crate) fn has_own_route(snapshot: &Snapshot, link: u32, destination: Ipv6Addr) -> bool {
    let of_link = |it: &&Route6| it.interface == link;
    let mut routes = snapshot.ipv6_routes.iter().filter(of_link);
    routes.any(|it| {
        let differ = it.network.to_bits() ^ destination.to_bits();
        differ.leading_zeros() >= u32::from(it.prefix_len)
    })
}

/// Another interface with an address of 192.0.0.0/29: another CLAT's. Of two that start at once, the
/// one whose interface came first stays.
pub(crate) fn other_clat(snapshot: &Snapshot, own: &str) -> Option<String> {
    let ours = snapshot.by_name(own).map_or(u32::MAX, |it| it.index);
    let others = snapshot.interfaces.iter().filter(|it| it.name != own);
    let mut first = others.filter(|it| it.index < ours);
    let clat = first.find(|it| it.ipv4.iter().copied().any(is_service_continuity))?;
    Some(clat.name.clone())
}

/// Whether programs can use the virtual interface: somebody may have set it down, or deleted its
/// address or route.
pub(crate) fn is_in_place(snapshot: &Snapshot, own: &str, address: Ipv4Addr) -> bool {
    snapshot.by_name(own).is_some_and(|it| {
        it.running && it.ipv4.contains(&address) && snapshot.ipv4_default.contains(&it.index)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);

    fn interface(index: u32, name: &str) -> Interface {
        Interface {
            index,
            name: name.to_owned(),
            running: true,
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            ipv6_mtu: 1500,
            addresses: Vec::new(),
            ipv4: Vec::new(),
        }
    }

    fn snapshot() -> Snapshot {
        let mut loopback = interface(1, "lo");
        loopback.mac = None;
        Snapshot {
            interfaces: vec![
                loopback,
                interface(2, "br0"),
                interface(3, "eth0"),
                interface(4, "wlan0"),
            ],
            ipv4_default: Vec::new(),
            ipv6_default: vec![4, 3],
            ..Snapshot::default()
        }
    }

    fn chosen(snapshot: &Snapshot, preference: &Preference<'_>, prefixes: &[u32]) -> String {
        let offer = |it: &Interface| match prefixes.contains(&it.index) {
            true => Offer::Enough,
            false => Offer::Nothing,
        };
        let chosen = choose(snapshot, preference, offer);
        chosen.map_or_else(String::new, |it| it.name)
    }

    #[test]
    fn the_best_link_with_a_prefix() {
        let mut snapshot = snapshot();
        let preference = Preference {
            configured: None,
            own: "clat0",
            current: None,
            ethernet: true,
        };
        assert_eq!(chosen(&snapshot, &preference, &[]), "wlan0");
        assert_eq!(chosen(&snapshot, &preference, &[3]), "eth0");
        assert_eq!(chosen(&snapshot, &preference, &[2]), "br0");
        snapshot.ipv6_default.clear();
        assert_eq!(chosen(&snapshot, &preference, &[]), "br0");
        snapshot.interfaces.truncate(1);
        assert_eq!(chosen(&snapshot, &preference, &[1]), "");
    }

    #[test]
    fn the_link_in_use_stays_while_it_has_a_prefix() {
        let mut snapshot = snapshot();
        let preference = Preference {
            configured: None,
            own: "clat0",
            current: Some(3),
            ethernet: true,
        };
        assert_eq!(chosen(&snapshot, &preference, &[3, 4]), "eth0");
        assert_eq!(chosen(&snapshot, &preference, &[4]), "wlan0");
        snapshot.interfaces[2].running = false;
        assert_eq!(chosen(&snapshot, &preference, &[3]), "wlan0");
    }

    /// Whatever else the one in use or the one of the best route may have.
    #[test]
    fn clat_c_03_a_prefix_alone_is_not_enough() {
        let mut snapshot = snapshot();
        let chosen = |snapshot: &Snapshot, current, enough: u32| {
            let preference = Preference {
                configured: None,
                own: "clat0",
                current,
                ethernet: true,
            };
            let offer = |it: &Interface| match it.index {
                index if index == enough => Offer::Enough,
                4 => Offer::Prefix,
                _ => Offer::Nothing,
            };
            choose(snapshot, &preference, offer).unwrap().name
        };
        for current in [None, Some(4), Some(3)] {
            assert_eq!(chosen(&snapshot, current, 3), "eth0");
            assert_eq!(chosen(&snapshot, current, 2), "br0");
            assert_eq!(chosen(&snapshot, current, 0), "wlan0");
        }
        snapshot.ipv6_default = vec![3];
        assert_eq!(chosen(&snapshot, None, 0), "wlan0");
    }

    #[test]
    fn a_configured_link_or_none() {
        let snapshot = snapshot();
        let preference = |name| Preference {
            configured: Some(name),
            own: "clat0",
            current: Some(3),
            ethernet: true,
        };
        assert_eq!(chosen(&snapshot, &preference("br0"), &[3]), "br0");
        assert_eq!(chosen(&snapshot, &preference("eth9"), &[3]), "");
        assert_eq!(chosen(&snapshot, &preference("lo"), &[3]), "");
    }

    #[test]
    fn a_routed_address_may_come_by_any_link_that_leads_somewhere() {
        let mut snapshot = snapshot();
        let mut modem = interface(6, "wwan0");
        modem.mac = None;
        snapshot.interfaces.insert(0, modem);
        snapshot.ipv6_default = vec![6];
        let preference = |ethernet, configured| Preference {
            configured,
            own: "clat0",
            current: None,
            ethernet,
        };
        assert_eq!(chosen(&snapshot, &preference(false, None), &[]), "wwan0");
        assert_eq!(chosen(&snapshot, &preference(true, None), &[]), "br0");
        let wanted = preference(false, Some("wwan0"));
        assert_eq!(chosen(&snapshot, &wanted, &[]), "wwan0");
        snapshot.ipv6_default.clear();
        assert_eq!(chosen(&snapshot, &preference(false, None), &[1, 6]), "br0");
    }

    #[test]
    fn disc_7050_3_01_resolvers_are_asked_on_links_with_addresses() {
        let mut snapshot = snapshot();
        let address = |text: &str| host::netwatch::Address {
            address: text.parse().unwrap(),
            prefix_len: 64,
            preferred: true,
        };
        snapshot.interfaces[0].addresses = vec![address("::1")];
        snapshot.interfaces[1].addresses = vec![address("fe80::1")];
        snapshot.interfaces[2].addresses = vec![address("fe80::1"), address("2001:db8::1")];
        let mut preference = Preference {
            configured: None,
            own: "clat0",
            current: Some(4),
            ethernet: false,
        };
        assert_eq!(candidates(&snapshot, &preference), [3, 4]);
        preference.configured = Some("eth0");
        assert_eq!(candidates(&snapshot, &preference), [3]);
        preference.own = "eth0";
        assert!(candidates(&snapshot, &preference).is_empty());
        // One that is only just being checked is no address yet.
        preference = Preference {
            configured: None,
            own: "clat0",
            current: None,
            ethernet: true,
        };
        snapshot.interfaces[2].addresses[1].preferred = false;
        assert!(candidates(&snapshot, &preference).is_empty());
    }

    #[test]
    fn why_the_configured_link_is_not_used() {
        let mut snapshot = snapshot();
        snapshot.interfaces[3].running = false;
        let obstacle = |name| {
            let preference = Preference {
                configured: Some(name),
                own: "br0",
                current: None,
                ethernet: true,
            };
            obstacle(&snapshot, &preference).unwrap_or_default()
        };
        assert_eq!(obstacle("eth0"), "");
        assert_eq!(obstacle("eth9"), "there is no interface eth9");
        assert_eq!(obstacle("wlan0"), "wlan0 is down or has no carrier");
        assert!(obstacle("lo").contains("--routed"));
        assert!(obstacle("br0").contains("own"));
    }

    #[test]
    fn another_link_layer_address_is_another_link() {
        let mut snapshot = snapshot();
        let preference = Preference {
            configured: Some("eth0"),
            own: "clat0",
            current: Some(3),
            ethernet: true,
        };
        let choose = |snapshot: &Snapshot| choose(snapshot, &preference, |_| Offer::Enough);
        let before = choose(&snapshot);
        assert_eq!(choose(&snapshot), before);
        snapshot.interfaces[2].mac = Some(Mac([2, 0, 0, 0, 0, 9]));
        assert_ne!(choose(&snapshot), before);
    }

    #[test]
    fn a_route_that_leads_nowhere_is_no_native_ipv4() {
        let mut snapshot = snapshot();
        snapshot.interfaces.push(interface(5, "clat0"));
        snapshot.ipv4_default = vec![5];
        assert!(!has_native_ipv4(&snapshot, "clat0", Some(4)));
        snapshot.ipv4_default = vec![5, 3];
        assert!(has_native_ipv4(&snapshot, "clat0", Some(4)));
        snapshot.interfaces[2].running = false;
        assert!(!has_native_ipv4(&snapshot, "clat0", Some(4)));
    }

    #[test]
    fn clat_c_02_a_tunnel_is_no_native_ipv4_unless_the_clat_is_on_it() {
        let mut snapshot = snapshot();
        let mut tunnel = interface(6, "tun0");
        tunnel.mac = None;
        snapshot.interfaces.push(tunnel);
        snapshot.ipv4_default = vec![6];
        assert!(!has_native_ipv4(&snapshot, "clat0", None));
        assert!(!has_native_ipv4(&snapshot, "clat0", Some(3)));
        assert!(has_native_ipv4(&snapshot, "clat0", Some(6)));
        // Beside a network with IPv4 it changes nothing.
        snapshot.ipv4_default = vec![6, 4];
        assert!(has_native_ipv4(&snapshot, "clat0", Some(3)));
    }

    #[test]
    fn a_route_to_the_prefix_is_one_out_of_the_link() {
        let mut snapshot = snapshot();
        let route = |interface, network: &str, prefix_len| Route6 {
            network: network.parse().unwrap(),
            prefix_len,
            interface,
        };
        let destination = "2001:db8:64::c000:aa".parse().unwrap();
        snapshot.ipv6_routes = vec![
            route(3, "2001:db8:1:1::", 64),
            route(4, "2001:db8:64::", 96),
        ];
        assert!(!has_own_route(&snapshot, 3, destination));
        assert!(has_own_route(&snapshot, 4, destination));
        snapshot.ipv6_routes = vec![route(3, "2000::", 3)];
        assert!(has_own_route(&snapshot, 3, destination));
    }

    #[test]
    fn addr_7335_01_of_two_clats_the_first_stays() {
        let mut snapshot = snapshot();
        assert_eq!(other_clat(&snapshot, "clat0"), None);
        let mut other = interface(6, "clat9");
        other.ipv4 = vec![HOST];
        snapshot.interfaces.push(other);
        assert_eq!(other_clat(&snapshot, "clat0"), Some("clat9".to_owned()));
        assert_eq!(other_clat(&snapshot, "clat9"), None);
        snapshot.interfaces.push(interface(5, "clat0"));
        assert_eq!(other_clat(&snapshot, "clat0"), None);
    }

    #[test]
    fn what_somebody_took_away_is_missed() {
        let mut snapshot = snapshot();
        let mut own = interface(5, "clat0");
        own.ipv4 = vec![HOST];
        snapshot.interfaces.push(own);
        snapshot.ipv4_default = vec![5];
        assert!(is_in_place(&snapshot, "clat0", HOST));
        let missing = |change: fn(&mut Snapshot)| {
            let mut snapshot = snapshot.clone();
            change(&mut snapshot);
            !is_in_place(&snapshot, "clat0", HOST)
        };
        assert!(missing(|it| it.ipv4_default.clear()));
        assert!(missing(|it| it.interfaces[4].ipv4.clear()));
        assert!(missing(|it| it.interfaces[4].running = false));
        assert!(missing(|it| it.interfaces.truncate(4)));
    }
}
