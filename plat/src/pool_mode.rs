//! Where the IPv4 addresses that clients get come from, on this host as it is.

use std::{fmt, io, net::Ipv4Addr};

use cli::{Exit, Failure};
use host::{
    netwatch::{Interface, Snapshot},
    sockets::InUse,
};
use nat64::{destinations::Network4, ports::PortRange};
use plan::Ports;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    clients,
    config::{Config, pool::PoolRange},
};

/// A private pool, if none is configured: of the addresses for IETF protocols (RFC 6890) some that
/// are assigned to none.
pub(crate) const PRIVATE_POOL: &str = "192.0.0.64/29";

/// Addresses of a host's own CLAT (RFC 7335). Nothing comes to them from outside.
const OF_CLAT: &str = "192.0.0.0/29";

/// Fewer ports than this of one address serve nobody well.
const LEAST_PORTS: usize = 1024;

/// Addresses that are answered for by ARP, one by one.
const MOST_ANSWERED: u64 = 4096;

/// How the addresses of the pool come to this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PoolMode {
    /// One is this host's own; some of its ports are shared with clients.
    HostPorts,
    /// They are routed to this host.
    Routed,
    /// They are spare addresses of the link to the IPv4 router; this host answers ARP for them.
    Arp,
    /// They are private, behind this host's own NAT.
    Masquerade,
}

impl fmt::Display for PoolMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HostPorts => "host-ports",
            Self::Routed => "routed",
            Self::Arp => "arp",
            Self::Masquerade => "masquerade",
        })
    }
}

/// What holds on this host: the configuration with what it leaves to the host. `in_use` tells which
/// ports local programs listen on.
///
/// # Errors
/// What the host lacks.
pub(crate) fn on_host(
    config: &Config,
    snapshot: &Snapshot,
    in_use: impl FnOnce(Ipv4Addr, Ports) -> io::Result<Vec<InUse>>,
) -> Result<Config, Failure> {
    let mut config = config.clone();
    match config.pool_mode {
        PoolMode::Routed => {}
        PoolMode::Masquerade => {
            config.uplink = Some(uplink(&config, snapshot)?.name.clone());
        }
        PoolMode::Arp => {
            config.uplink = Some(uplink(&config, snapshot)?.name.clone());
            config.answered = answered(&config, snapshot)?;
        }
        PoolMode::HostPorts => {
            let (interface, address) = host_address(&config, snapshot)?;
            let ports = free(&config, |ports| in_use(address, ports))?;
            config.uplink = Some(interface.name.clone());
            config.pool = vec![PoolRange::shared(address, ports)];
        }
    }
    if config.clients.is_empty() {
        config.clients = clients::of_host(&config, snapshot);
    }
    Ok(config)
}

/// Where IPv4 goes now, if that is another interface than the one that the mode has something arranged
/// on (ARP, forwarding).
pub(crate) fn uplink_elsewhere<'a>(
    asked: &Config,
    config: &Config,
    snapshot: &'a Snapshot,
) -> Option<&'a str> {
    match config.pool_mode {
        PoolMode::Routed | PoolMode::HostPorts => None,
        PoolMode::Arp | PoolMode::Masquerade => {
            // None at all may be the moment between two.
            let now = uplink(asked, snapshot).ok()?.name.as_str();
            (config.uplink.as_deref() != Some(now)).then_some(now)
        }
    }
}

/// The interface to the IPv4 internet.
fn uplink<'a>(config: &Config, snapshot: &'a Snapshot) -> Result<&'a Interface, Failure> {
    let missing = |what: &dyn fmt::Display| {
        Failure::error(what).hint(
            "wait until it is up, or name the interface to the IPv4 internet, like: \
             uplink = \"eth0\"",
        )
    };
    if let Some(name) = &config.uplink {
        let found = snapshot.by_name(name);
        return found.ok_or_else(|| missing(&format_args!("there is no interface {name}")));
    }
    let by_route = snapshot.ipv4_default.iter();
    let mut usable = by_route
        .filter_map(|index| snapshot.by_index(*index))
        .filter(|it| it.name != config.interface && usable_address(it).is_some());
    usable
        .next()
        .ok_or_else(|| missing(&"no interface has an IPv4 address and the IPv4 default route"))
}

/// The addresses that this host answers for on the link to the IPv4 router: those of the pool, and
/// those of hosts with a mapping that are of that link. Others must be routed here. None if it is
/// no mode for that.
///
/// # Errors
/// There is no such link, or there are too many addresses.
pub(crate) fn answered(config: &Config, snapshot: &Snapshot) -> Result<Vec<Ipv4Addr>, Failure> {
    if config.pool_mode != PoolMode::Arp {
        return Ok(Vec::new());
    }
    let uplink = uplink(config, snapshot)?;
    let networks = snapshot.ipv4_networks.iter();
    let networks: Vec<_> = networks.filter(|it| it.interface == uplink.index).collect();
    let is_of_link = |it: &Ipv4Addr| networks.iter().any(|network| network.has_host(*it));
    let mapped = config.eam.iter().flat_map(|eam| {
        let (first, length) = eam.ipv4();
        let count = 1u64.checked_shl(32 - u32::from(length)).unwrap_or(1);
        // A mapping that is larger than the pool can be is for more than a link.
        let count = count.min(MOST_ANSWERED);
        let first = first.to_bits();
        (0..count)
            .filter_map(move |it| u32::try_from(it).ok())
            .map(move |it| Ipv4Addr::from_bits(first.saturating_add(it)))
    });
    let mut all: Vec<_> = config
        .pool_addresses()
        .chain(mapped.filter(is_of_link))
        .collect();
    all.sort_unstable();
    all.dedup();
    if all.len() as u64 <= MOST_ANSWERED {
        return Ok(all);
    }
    let (count, name) = (all.len(), &uplink.name);
    let what = format_args!("{count} addresses of the link {name} would be answered for");
    Err(Failure::new(Exit::Usage, what).hint(format_args!(
        "{MOST_ANSWERED} are possible: have the rest routed to this host (pool_mode = \"routed\")"
    )))
}

/// An address that packets can come to from outside.
fn usable_address(interface: &Interface) -> Option<Ipv4Addr> {
    let of_clat: Option<Network4> = OF_CLAT.parse().ok();
    let usable = |it: &&Ipv4Addr| {
        !it.is_loopback() && !it.is_link_local() && !of_clat.is_some_and(|net| net.contains(**it))
    };
    interface.ipv4.iter().find(usable).copied()
}

/// The address of this host whose ports are shared, and the interface that has it.
fn host_address<'a>(
    config: &Config,
    snapshot: &'a Snapshot,
) -> Result<(&'a Interface, Ipv4Addr), Failure> {
    if let Some(address) = config.pool.first().map(PoolRange::first) {
        let mut all = snapshot.interfaces.iter();
        let has_it = |it: &&Interface| it.name != config.interface && it.ipv4.contains(&address);
        let interface = all.find(has_it).ok_or_else(|| {
            Failure::error(format_args!("this host does not have the address {address}"))
                .hint("leave `pool` out: then it is the address of the interface with the IPv4 default route")
        })?;
        return Ok((interface, address));
    }
    let interface = uplink(config, snapshot)?;
    let address = usable_address(interface).ok_or_else(|| {
        Failure::error(format_args!("{} has no IPv4 address", interface.name))
            .hint("wait until it has, or name another interface with `uplink`")
    })?;
    Ok((interface, address))
}

/// The ports to share: the most of them that no local program listens on. If it was said which, all
/// or none.
fn free(
    config: &Config,
    in_use: impl FnOnce(Ports) -> io::Result<Vec<InUse>>,
) -> Result<PortRange, Failure> {
    let of_pool = config.pool.first().and_then(|it| it.ports.as_range());
    let of_pool = of_pool.filter(|it| *it != PortRange::ALL);
    let said = config.host_ports.or(of_pool);
    let wanted = said.map_or(Ports::ABOVE_EPHEMERAL, |it| Ports {
        first: it.first(),
        last: it.last(),
    });
    let in_use = in_use(wanted);
    let in_use =
        in_use.map_err(|error| Failure::io("cannot see which ports are in use", &error))?;
    let free = longest_between(wanted, &in_use);
    let Some(taken) = in_use.first() else {
        return free.ok_or_else(|| Failure::error("there are no ports to share"));
    };
    let what = format!(
        "a program of this host listens on {} port {}, which is one of {wanted}",
        taken.protocol, taken.port
    );
    match (said, free.filter(|it| it.len() >= LEAST_PORTS)) {
        (None, Some(free)) => {
            tracing::warn!("{what}: only {free} are used");
            Ok(free)
        }
        (Some(_), Some(free)) => {
            Err(Failure::error(what).hint(format_args!("stop it, or use: host_ports = \"{free}\"")))
        }
        (_, None) => Err(Failure::error(what)
            .hint("stop it, or use ports that are free, like: host_ports = \"40000-50000\"")),
    }
}

/// The longest part of `wanted` without any that are in use, if there is one.
fn longest_between(wanted: Ports, in_use: &[InUse]) -> Option<PortRange> {
    let mut first = wanted.first;
    let mut parts = Vec::new();
    for port in in_use.iter().map(|it| it.port) {
        parts.extend(PortRange::new(first, port.saturating_sub(1)));
        // Nothing is left after the last port of all.
        first = port.saturating_add(1);
    }
    let last_is_free = in_use.last().is_none_or(|it| it.port < wanted.last);
    parts.extend(PortRange::new(first, wanted.last).filter(|_| last_is_free));
    // Of parts of the same length the last.
    parts.into_iter().max_by_key(PortRange::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::tests::settled, test_host};
    use host::netwatch::Ipv4Network;

    fn interface(index: u32, name: &str, ipv4: &[&str]) -> Interface {
        test_host::interface(index, name, &[], ipv4)
    }

    /// A router with its WAN on `ppp0`.
    fn router() -> Snapshot {
        Snapshot {
            interfaces: vec![
                interface(1, "lo", &["127.0.0.1"]),
                interface(2, "eth0", &["10.0.0.1"]),
                interface(3, "ppp0", &["169.254.7.7", "198.51.100.7"]),
                interface(4, "clat0", &["192.0.0.1"]),
            ],
            // A host may have a CLAT, too; its route is not the way out.
            ipv4_default: vec![4, 3],
            ..Snapshot::default()
        }
    }

    fn find(text: &str, snapshot: &Snapshot, in_use: &[u16]) -> Result<Config, String> {
        let config = settled(text).unwrap();
        let in_use = in_use.iter().map(|port| InUse {
            port: *port,
            protocol: "TCP",
        });
        let found = on_host(&config, snapshot, |_, _| Ok(in_use.collect()));
        found.map_err(|it| it.to_string())
    }

    fn ports(first: u16, last: u16) -> PortRange {
        PortRange::new(first, last).unwrap()
    }

    /// The address and the ports that are shared.
    fn shared(config: &Config) -> (Ipv4Addr, PortRange) {
        let pool = &config.pool[0];
        (pool.first(), pool.ports.as_range().unwrap())
    }

    #[test]
    fn without_a_pool_ports_of_the_uplinks_address_are_shared() {
        let placed = find("", &router(), &[]).unwrap();
        let expected = (Ipv4Addr::new(198, 51, 100, 7), ports(61_001, 65_535));
        assert_eq!(shared(&placed), expected);
        assert_eq!(placed.uplink.as_deref(), Some("ppp0"));
        let other = find("uplink = \"eth0\"", &router(), &[]).unwrap();
        assert_eq!(shared(&other).0, Ipv4Addr::new(10, 0, 0, 1));
        let error = find("uplink = \"eth7\"", &router(), &[]).unwrap_err();
        assert!(error.contains("no interface eth7"), "{error}");
        let error = find("", &Snapshot::default(), &[]).unwrap_err();
        assert!(error.contains("uplink = \"eth0\""), "{error}");
    }

    /// Only where something is arranged on it, and only one that was not asked for by name.
    #[test]
    fn another_uplink_is_noticed() {
        let elsewhere = |text: &str, default: &[u32]| {
            let config = find(text, &router(), &[]).unwrap();
            let later = Snapshot {
                ipv4_default: default.to_vec(),
                ..router()
            };
            uplink_elsewhere(&settled(text).unwrap(), &config, &later).map(str::to_owned)
        };
        let spare = "pool_mode = \"arp\"\npool = [\"198.51.100.8\"]";
        for text in [spare, "pool_mode = \"masquerade\""] {
            assert_eq!(elsewhere(text, &[4, 3]), None);
            assert_eq!(elsewhere(text, &[2]), Some("eth0".into()));
            assert_eq!(elsewhere(text, &[]), None);
            let named = format!("uplink = \"ppp0\"\n{text}");
            assert_eq!(elsewhere(&named, &[2]), None);
        }
        assert_eq!(elsewhere("", &[2]), None);
    }

    #[test]
    fn an_address_to_share_must_be_this_hosts() {
        let own = "pool_mode = \"host-ports\"\npool = [\"10.0.0.1\"]";
        let placed = find(own, &router(), &[]).unwrap();
        assert_eq!(placed.uplink.as_deref(), Some("eth0"));
        let foreign = "pool_mode = \"host-ports\"\npool = [\"10.0.0.2\"]";
        let error = find(foreign, &router(), &[]).unwrap_err();
        assert!(
            error.contains("does not have the address 10.0.0.2"),
            "{error}"
        );
    }

    /// By itself it takes what is free; what was asked for is refused with what to do.
    #[test]
    fn ports_of_local_programs_are_not_shared() {
        let placed = |in_use: &[u16]| shared(&find("", &router(), in_use).unwrap()).1;
        assert_eq!(placed(&[61_001]), ports(61_002, 65_535));
        assert_eq!(placed(&[62_000]), ports(62_001, 65_535));
        assert_eq!(placed(&[64_999, 65_535]), ports(61_001, 64_998));
        let error = find("host_ports = \"61001-62100\"", &router(), &[61_005]).unwrap_err();
        assert!(
            error.contains("TCP port 61005") && error.contains("host_ports = \"61006-62100\""),
            "{error}"
        );
        let error = find("host_ports = \"61001-61100\"", &router(), &[61_005]).unwrap_err();
        assert!(error.contains("ports that are free"), "{error}");
    }

    /// A host with a mapping has no MAC address that could answer.
    #[test]
    fn mapped_hosts_of_the_link_are_answered_for() {
        let mut snapshot = router();
        snapshot.ipv4_networks = vec![
            Ipv4Network {
                interface: 2,
                address: Ipv4Addr::new(10, 0, 0, 1),
                length: 8,
            },
            Ipv4Network {
                interface: 3,
                address: Ipv4Addr::new(198, 51, 100, 7),
                length: 24,
            },
        ];
        let text = "pool_mode = \"arp\"\npool = [\"198.51.100.9\"]\n";
        let eam = |v4: &str, v6: &str| format!("[[eam]]\nipv4 = \"{v4}\"\nipv6 = \"{v6}\"\n");
        let text = text.to_owned()
            + &eam("198.51.100.8", "2001:db8::8")
            + &eam("198.51.100.254/31", "2001:db8:1::/127")
            + &eam("198.51.101.1", "2001:db8::9")
            + &eam("10.0.0.9", "2001:db8::10");
        let config = find(&text, &snapshot, &[]).unwrap();
        let shown: Vec<_> = config.answered.iter().map(ToString::to_string).collect();
        // The broadcast address is nobody's.
        assert_eq!(shown, ["198.51.100.8", "198.51.100.9", "198.51.100.254"]);
        let routed = text.replace("\"arp\"", "\"routed\"");
        assert!(find(&routed, &snapshot, &[]).unwrap().answered.is_empty());
        snapshot.ipv4_networks[1].length = 8;
        let many = text + &eam("198.64.0.0/14", "2001:db8:2::/110");
        let error = find(&many, &snapshot, &[]).unwrap_err();
        assert!(error.contains("4096 are possible"), "{error}");
    }

    #[test]
    fn the_other_modes_take_the_pool_as_it_is() {
        let pool = "pool = [\"203.0.113.0/28\"]\n";
        let routed = find(pool, &Snapshot::default(), &[]).unwrap();
        assert_eq!((&routed.uplink, shared(&routed).1), (&None, PortRange::ALL));
        let arp = find(&format!("{pool}pool_mode = \"arp\""), &router(), &[]).unwrap();
        assert_eq!(arp.uplink.as_deref(), Some("ppp0"));
        let private = find("pool_mode = \"masquerade\"", &router(), &[]).unwrap();
        assert_eq!(private.pool, [PRIVATE_POOL.parse().unwrap()]);
    }
}
