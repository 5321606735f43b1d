//! What the PLAT wants of the host's network: both families routed into its virtual interface and
//! out of it again.

use host::netwatch::Snapshot;
use plan::{Interface, Item, Plan, Prefix, Route, Setting, Via};

use crate::config::Config;

/// The plan on the host as it is.
pub(crate) fn plan(config: &Config, snapshot: &Snapshot) -> Plan {
    let mut items = vec![Item::Interface(Interface {
        name: config.interface.clone(),
        mtu: config.ipv6_mtu.max(config.ipv4_mtu),
    })];
    items.extend(forwarding(config, snapshot));
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

/// The kernel forwards. IPv4 on our interface and those that have IPv4 addresses, one by one, since
/// the switch for all has side effects. IPv6 has only the switch for all; before it is thrown,
/// interfaces that a router configures are told to go on listening to it.
fn forwarding(config: &Config, snapshot: &Snapshot) -> Vec<Item> {
    let setting = |path: String, value: &str| {
        Item::Setting(Setting {
            path,
            value: value.to_owned(),
        })
    };
    let others = || {
        let interfaces = snapshot.interfaces.iter();
        interfaces.filter(|it| it.name != config.interface && it.name != "lo")
    };
    let by_router = others().filter(|it| snapshot.ipv6_default.contains(&it.index));
    let mut items: Vec<_> = by_router
        .map(|it| setting(format!("net/ipv6/conf/{}/accept_ra", it.name), "2"))
        .collect();
    items.push(setting("net/ipv6/conf/all/forwarding".to_owned(), "1"));
    let ipv4 = others().filter(|it| !it.ipv4.is_empty());
    let ipv4 = ipv4
        .map(|it| it.name.as_str())
        .chain([config.interface.as_str()]);
    items.extend(ipv4.map(|name| setting(format!("net/ipv4/conf/{name}/forwarding"), "1")));
    items
}
