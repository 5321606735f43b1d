//! What a CLAT wants of the host's network.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use plan::{Address, Concealment, Interface, Item, Plan, Prefix, Route, Via};

use crate::{engine::Settings, mapping::SERVICE_CONTINUITY};

/// Who the CLAT is on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name of its virtual interface.
    pub interface: String,
    /// The metric of its default route: larger than that of any native one.
    pub metric: u32,
}

/// While the address is being claimed: what keeps the kernel from answering for it.
///
/// A host that forwards would tell others "address unreachable" about an address that it does not
/// know; the black hole makes it silent.
#[must_use]
pub fn while_claiming(identity: &Identity, clat: Ipv6Addr) -> Plan {
    Plan::new(silent(identity, clat))
}

/// While the CLAT runs: the address of RFC 7335 on the virtual interface, and a default route
/// through it.
#[must_use]
pub fn while_running(identity: &Identity, settings: &Settings) -> Plan {
    let host = IpAddr::V4(settings.instance.host());
    let name = &identity.interface;
    let visible = [
        Item::Interface(Interface {
            name: name.clone(),
            mtu: settings.ipv4_mtu(),
        }),
        Item::Address(Address {
            interface: name.clone(),
            prefix: Prefix::host(host),
        }),
        Item::Route(Route {
            destination: Prefix::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            via: Via::Interface {
                name: name.clone(),
                source: Some(host),
            },
            metric: Some(identity.metric),
        }),
    ];
    Plan::new(silent(identity, settings.clat).into_iter().chain(visible))
}

fn silent(identity: &Identity, clat: Ipv6Addr) -> [Item; 2] {
    let (inside, length) = SERVICE_CONTINUITY;
    [
        Item::Concealment(Concealment {
            name: format!("openclat-{}", identity.interface),
            addresses: Prefix::new(inside.into(), length),
            interface: identity.interface.clone(),
        }),
        Item::Route(Route {
            destination: Prefix::host(clat.into()),
            via: Via::Blackhole,
            metric: None,
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::Instance;
    use pref64::siit::NonGlobal;

    #[test]
    fn clat_c_02_the_default_route_is_the_last_thing_and_the_worst_route() {
        let identity = Identity {
            interface: "clat0".into(),
            metric: 100_000,
        };
        let settings = Settings {
            instance: Instance::FIRST,
            clat: "2001:db8:1:2::464".parse().unwrap(),
            prefix: "2001:db8:64::/96".parse().unwrap(),
            ipv6_mtu: 1500,
            fragment_above: 1280,
            wkp_non_global: NonGlobal::Translate,
            errors: xlat::config::ErrorPolicy::default(),
        };
        let lines =
            |plan: Plan| -> Vec<String> { plan.items().iter().map(ToString::to_string).collect() };
        assert_eq!(
            lines(while_running(&identity, &settings)),
            [
                "192.0.0.0/29 hidden from all but clat0",
                "route to 2001:db8:1:2::464/128 into a black hole",
                "interface clat0 up with MTU 1472",
                "address 192.0.0.1/32 on clat0",
                "route to 0.0.0.0/0 out of clat0",
            ]
        );
        assert_eq!(lines(while_claiming(&identity, settings.clat)).len(), 2);
    }
}
