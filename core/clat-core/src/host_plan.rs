//! What a CLAT wants of the host's network.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use plan::{
    Address, Concealment, ForwardingGuard, Interface, Ipv6Before, Item, Plan, Prefix, Route, Via,
};

use crate::{engine::Settings, mapping::SERVICE_CONTINUITY};

/// Who the CLAT is on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name of its virtual interface.
    pub interface: String,
    /// The metric of its default route: larger than that of any native one.
    pub metric: u32,
    /// How its IPv6 packets come to it.
    pub uplink: UplinkKind,
}

/// How the CLAT's IPv6 packets come to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UplinkKind {
    /// Its address is on the link, and it answers for it itself.
    Link,
    /// Its address is in a prefix that is routed to this host (DHCPv6-PD): the kernel forwards
    /// packets between the link and the virtual interface.
    Routed,
}

/// While the address is being claimed: what keeps the kernel from answering for it.
///
/// A host that forwards would tell others "address unreachable" about an address that it does not
/// know; the black hole makes it silent.
#[must_use]
pub fn while_claiming(identity: &Identity, clat: Ipv6Addr) -> Plan {
    let mut items = vec![concealment(identity)];
    if identity.uplink == UplinkKind::Link {
        items.push(black_hole(clat));
    }
    Plan::new(items)
}

/// While the CLAT runs: the address of RFC 7335 on the virtual interface, and a default route
/// through it. `before` is how the host was, which matters where it is made to forward.
#[must_use]
pub fn while_running(identity: &Identity, settings: &Settings, before: &Ipv6Before) -> Plan {
    let host = IpAddr::V4(settings.instance.host());
    let name = &identity.interface;
    let mut items = vec![concealment(identity)];
    if identity.uplink == UplinkKind::Link {
        items.push(black_hole(settings.clat));
    }
    items.push(Item::Interface(Interface {
        name: name.clone(),
        mtu: settings.ipv4_mtu(),
    }));
    if identity.uplink == UplinkKind::Routed {
        items.extend(forwarding(identity, settings.clat, before));
    }
    items.push(Item::Address(Address {
        interface: name.clone(),
        prefix: Prefix::host(host),
    }));
    items.push(Item::Route(Route {
        destination: Prefix::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        via: Via::Interface {
            name: name.clone(),
            source: Some(host),
        },
        metric: Some(identity.metric),
    }));
    Plan::new(items)
}

fn concealment(identity: &Identity) -> Item {
    let (inside, length) = SERVICE_CONTINUITY;
    Item::Concealment(Concealment {
        name: table(identity),
        addresses: Prefix::new(inside.into(), length),
        interface: identity.interface.clone(),
    })
}

fn black_hole(clat: Ipv6Addr) -> Item {
    Item::Route(Route {
        destination: Prefix::host(clat.into()),
        via: Via::Blackhole,
        metric: None,
    })
}

/// The kernel forwards between the link and the virtual interface, and for nobody else if it did
/// not before. It goes on hearing router advertisements where it heard them, on any interface.
fn forwarding(identity: &Identity, clat: Ipv6Addr, before: &Ipv6Before) -> Vec<Item> {
    let interface = &identity.interface;
    let guard = ForwardingGuard {
        name: table(identity),
        interface: interface.clone(),
        ipv4: Vec::new(),
        ipv6: true,
    };
    let guard = before.was_off.then_some(Item::ForwardingGuard(guard));
    let mut items: Vec<_> = guard.into_iter().chain(before.switch_on()).collect();
    items.push(Item::Route(Route {
        destination: Prefix::host(clat.into()),
        via: Via::Interface {
            name: interface.clone(),
            source: None,
        },
        metric: None,
    }));
    items
}

/// The name of its firewall tables.
fn table(identity: &Identity) -> String {
    format!("openclat-{}", identity.interface)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::Instance;
    use pref64::siit::NonGlobal;

    fn identity(uplink: UplinkKind) -> Identity {
        Identity {
            interface: "clat0".into(),
            metric: 100_000,
            uplink,
        }
    }

    fn settings() -> Settings {
        Settings {
            instance: Instance::FIRST,
            clat: "2001:db8:1:2::464".parse().unwrap(),
            prefix: "2001:db8:64::/96".parse().unwrap(),
            retained: Vec::new(),
            ipv6_mtu: 1500,
            fragment_above: 1280,
            wkp_non_global: NonGlobal::Translate,
            errors: xlat::config::ErrorPolicy::default(),
        }
    }

    /// Nothing on a real link may see or reach the addresses, from before the first of them is
    /// there.
    #[test]
    fn addr_7335_01_the_inside_is_hidden_first() {
        let hidden = Item::Concealment(Concealment {
            name: "openclat-clat0".into(),
            addresses: Prefix::new(Ipv4Addr::new(192, 0, 0, 0).into(), 29),
            interface: "clat0".into(),
        });
        for uplink in [UplinkKind::Link, UplinkKind::Routed] {
            let identity = identity(uplink);
            let claiming = while_claiming(&identity, settings().clat);
            let running = while_running(&identity, &settings(), &Ipv6Before::default());
            for plan in [claiming, running] {
                assert_eq!(plan.items()[0], hidden);
            }
        }
    }

    /// Each CLAT of a host has its own address, interface and route.
    #[test]
    fn another_instance_has_its_own_address_and_route() {
        let identity = Identity {
            interface: "clat1".into(),
            ..identity(UplinkKind::Link)
        };
        let settings = Settings {
            instance: Instance::new(1).unwrap(),
            ..settings()
        };
        let plan = while_running(&identity, &settings, &Ipv6Before::default());
        let host = IpAddr::V4(Ipv4Addr::new(192, 0, 0, 3));
        assert!(plan.items().contains(&Item::Address(Address {
            interface: "clat1".into(),
            prefix: Prefix::host(host),
        })));
        let via = Via::Interface {
            name: "clat1".into(),
            source: Some(host),
        };
        assert!(
            plan.items()
                .iter()
                .any(|it| matches!(it, Item::Route(route) if route.via == via))
        );
    }

    #[test]
    fn clat_c_02_the_default_route_is_the_last_thing_and_the_worst_route() {
        let mut identity = identity(UplinkKind::Link);
        let settings = settings();
        let before = Ipv6Before {
            was_off: true,
            listening: ["eth0", "eth1"].map(str::to_owned).into(),
        };
        let plan = while_running(&identity, &settings, &before);
        let Some(Item::Route(route)) = plan.items().last() else {
            panic!("no route");
        };
        assert_eq!(route.metric, Some(100_000));
        assert_eq!(
            route.destination,
            Prefix::new(Ipv4Addr::UNSPECIFIED.into(), 0)
        );
        let lines =
            |plan: Plan| -> Vec<String> { plan.items().iter().map(ToString::to_string).collect() };
        assert_eq!(
            lines(while_running(&identity, &settings, &before)),
            [
                "192.0.0.0/29 hidden from all but clat0",
                "route to 2001:db8:1:2::464/128 into a black hole",
                "interface clat0 up with MTU 1472",
                "address 192.0.0.1/32 on clat0",
                "route to 0.0.0.0/0 out of clat0",
            ]
        );
        assert_eq!(lines(while_claiming(&identity, settings.clat)).len(), 2);

        // A routed prefix needs no black hole, but a kernel that forwards, for nobody else, and
        // still hears routers.
        identity.uplink = UplinkKind::Routed;
        assert_eq!(
            lines(while_running(&identity, &settings, &before)),
            [
                "192.0.0.0/29 hidden from all but clat0",
                "interface clat0 up with MTU 1472",
                "IPv6 forwarded to and from clat0 only",
                "setting net/ipv6/conf/eth0/accept_ra = 2",
                "setting net/ipv6/conf/eth1/accept_ra = 2",
                "setting net/ipv6/conf/all/forwarding = 1",
                "route to 2001:db8:1:2::464/128 out of clat0",
                "address 192.0.0.1/32 on clat0",
                "route to 0.0.0.0/0 out of clat0",
            ]
        );
        assert_eq!(lines(while_claiming(&identity, settings.clat)).len(), 1);
        // A router stays one, and hears nobody.
        let router = lines(while_running(&identity, &settings, &Ipv6Before::default()));
        assert_eq!(router[2], "setting net/ipv6/conf/all/forwarding = 1");
    }
}
