//! rtnetlink for links, routes and neighbours; if-watch for addresses.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use if_watch::tokio::IfWatcher;
use l2::next_hop::Neighbour;
use rtnetlink::{
    MulticastGroup, RouteMessageBuilder,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressMessage},
        link::{AfSpecInet6, AfSpecUnspec, LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
        neighbour::{
            NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
        },
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType},
    },
};
use tokio::sync::watch;
use wire::ethernet::Mac;

use super::{Address, Interface, Ipv4Network, Network, Route6, Snapshot};
use crate::netlink::{Netlink, as_address, as_link, as_neighbour, as_route, into_io, within};

/// The smallest MTU of an IPv6 link.
const MIN_MTU: u32 = 1280;

/// A nudge that is not heard is repeated.
const NUDGE_TIMEOUT: Duration = Duration::from_secs(1);

/// Watches the network of the current namespace.
pub struct NetWatch {
    netlink: Netlink,
    changed: watch::Receiver<()>,
}

impl NetWatch {
    /// Starts to watch. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn open() -> io::Result<Self> {
        // If-watch tells of addresses that come and go. That one passed duplicate address detection
        // or became deprecated it does not tell.
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv6Ifinfo,
        ])?;
        tokio::spawn(connection);
        let addresses = IfWatcher::new()
            .inspect_err(|error| tracing::warn!("address changes are not watched: {error}"))
            .ok();
        let (tell, changed) = watch::channel(());
        // An overrun comes as a message like any other, and whoever is told reads everything anew.
        tokio::spawn(gather(messages.map(drop), addresses, tell));
        Ok(Self {
            netlink: Netlink::open()?,
            changed,
        })
    }

    async fn routes(&self, family: AddressFamily) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        self.netlink
            .dump(RouteNetlinkMessage::GetRoute(request))
            .await
    }
}

impl Network for NetWatch {
    async fn changed(&mut self) -> io::Result<()> {
        let changed = self.changed.changed().await;
        changed.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    async fn snapshot(&self) -> io::Result<Snapshot> {
        let links = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let links = self.netlink.dump(links).await?;
        let addresses = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let addresses = self.netlink.dump(addresses).await?;
        let ipv4 = self.routes(AddressFamily::Inet).await?;
        let ipv6 = self.routes(AddressFamily::Inet6).await?;
        let defaults = |routes: &[_]| {
            let routes = routes.iter().filter_map(as_route);
            in_order(routes.flat_map(default_route))
        };
        Ok(Snapshot {
            interfaces: interfaces(&links, &addresses),
            ipv4_default: defaults(&ipv4),
            ipv6_default: defaults(&ipv6),
            ipv6_routes: ipv6.iter().filter_map(as_route).flat_map(routes6).collect(),
            ipv4_networks: addresses
                .iter()
                .filter_map(as_address)
                .filter_map(ipv4_network)
                .collect(),
        })
    }

    async fn gateways(&self, interface: u32, destination: Ipv6Addr) -> io::Result<Vec<Ipv6Addr>> {
        let request = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(destination, 128)
            .output_interface(interface)
            .build();
        let request = RouteNetlinkMessage::GetRoute(request);
        match self.netlink.get(request).await {
            Ok(routes) => Ok(routes
                .iter()
                .filter_map(as_route)
                .filter_map(gateway)
                .collect()),
            Err(error) if is_unreachable(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn neighbours(&self, interface: u32) -> io::Result<Vec<Neighbour>> {
        let mut request = NeighbourMessage::default();
        request.header.family = AddressFamily::Inet6;
        let request = RouteNetlinkMessage::GetNeighbour(request);
        let all = self.netlink.dump(request).await?;
        let here = all.iter().filter_map(as_neighbour);
        let here = here.filter(|message| message.header.ifindex == interface);
        Ok(here.filter_map(neighbour).collect())
    }

    /// `NTF_USE`.
    async fn nudge(&self, interface: u32, router: Ipv6Addr) -> io::Result<()> {
        let request = self
            .netlink
            .handle()
            .neighbours()
            .add(interface, router.into())
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace();
        within(NUDGE_TIMEOUT, async {
            request.execute().await.map_err(into_io)
        })
        .await
    }
}

/// Turns notifications of any kind and number into "something changed". Ends with those of the
/// kernel, or when nobody listens.
async fn gather(
    mut messages: impl Stream<Item = ()> + Unpin,
    mut addresses: Option<IfWatcher>,
    tell: watch::Sender<()>,
) {
    loop {
        let address = async {
            match &mut addresses {
                Some(watcher) => watcher.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = messages.next() => if message.is_none() {
                return;
            },
            change = address => if !matches!(change, Some(Ok(_))) {
                // Not fatal: the other notifications go on.
                tracing::warn!("address changes are no longer watched");
                addresses = None;
            },
            () = tell.closed() => return,
        }
        tell.send_replace(());
    }
}

impl std::fmt::Debug for NetWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetWatch").finish_non_exhaustive()
    }
}

/// The system says so instead of naming a route. A route that forbids the destination or drops
/// packets for it is something else: an administrator's decision.
fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH)
    )
}

/// Interfaces by metric, each one once.
fn in_order(routes: impl Iterator<Item = (u32, u32)>) -> Vec<u32> {
    let mut found: Vec<(u32, u32)> = routes.collect();
    found.sort_unstable();
    let mut interfaces = Vec::new();
    for (_, interface) in found {
        if !interfaces.contains(&interface) {
            interfaces.push(interface);
        }
    }
    interfaces
}

fn interfaces(links: &[RouteNetlinkMessage], addresses: &[RouteNetlinkMessage]) -> Vec<Interface> {
    let links = links.iter().filter_map(as_link);
    let mut interfaces: Vec<_> = links.filter_map(interface).collect();
    for message in addresses.iter().filter_map(as_address) {
        let index = message.header.index;
        if let Some(owner) = interfaces.iter_mut().find(|it| it.index == index) {
            owner.addresses.extend(address(message));
            owner.ipv4.extend(ipv4_address(message));
        }
    }
    interfaces
}

fn interface(message: &LinkMessage) -> Option<Interface> {
    let (mut name, mut mac, mut mtu, mut ra_mtu) = (None, None, 0, None);
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(it) = attribute {
            name = Some(it.clone());
        } else if let LinkAttribute::Address(it) = attribute {
            mac = <[u8; 6]>::try_from(it.as_slice()).ok().map(Mac);
        } else if let LinkAttribute::Mtu(it) = attribute {
            mtu = *it;
        } else if let LinkAttribute::AfSpecUnspec(families) = attribute {
            ra_mtu = families.iter().find_map(router_mtu);
        }
    }
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let needed = LinkFlags::Up | LinkFlags::LowerUp;
    Some(Interface {
        index: message.header.index,
        name: name?,
        running: message.header.flags.contains(needed),
        mac: mac.filter(|_| ethernet),
        ipv6_mtu: ra_mtu.unwrap_or(mtu).min(mtu).max(MIN_MTU),
        addresses: Vec::new(),
        ipv4: Vec::new(),
    })
}

/// The MTU that IPv6 uses on a link: its own, or a smaller one that a router advertised.
fn router_mtu(family: &AfSpecUnspec) -> Option<u32> {
    let AfSpecUnspec::Inet6(attributes) = family else {
        return None;
    };
    attributes.iter().find_map(|attribute| {
        let AfSpecInet6::DevConf(settings) = attribute else {
            return None;
        };
        u32::try_from(settings.mtu6).ok()
    })
}

fn address(message: &AddressMessage) -> Option<Address> {
    let (mut address, mut flags) = (None, AddressFlags::empty());
    for attribute in &message.attributes {
        if let AddressAttribute::Address(IpAddr::V6(it)) = attribute {
            address = Some(*it);
        } else if let AddressAttribute::Flags(it) = attribute {
            flags = *it;
        }
    }
    let unusable = AddressFlags::Deprecated | AddressFlags::Tentative | AddressFlags::Dadfailed;
    Some(Address {
        address: address?,
        prefix_len: message.header.prefix_len,
        preferred: !flags.intersects(unusable),
    })
}

/// The interface's own address: on a point-to-point link `Address` is the other end's.
fn ipv4_address(message: &AddressMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|attribute| {
        let AddressAttribute::Local(IpAddr::V4(address)) = attribute else {
            return None;
        };
        Some(*address)
    })
}

/// The network that the address is in. There is none on a point-to-point link.
fn ipv4_network(message: &AddressMessage) -> Option<Ipv4Network> {
    let length = message.header.prefix_len;
    Some(Ipv4Network {
        interface: message.header.index,
        address: ipv4_address(message)?,
        length: Some(length).filter(|it| *it < 32)?,
    })
}

/// Metric and interfaces of a default route in the main table that leads anywhere.
fn default_route(message: &RouteMessage) -> Vec<(u32, u32)> {
    match message.header.destination_prefix_length {
        0 => interfaces_of(message),
        _ => Vec::new(),
    }
}

/// The network of a route that is not a default one, with each of its interfaces.
fn routes6(message: &RouteMessage) -> Vec<Route6> {
    let prefix_len = message.header.destination_prefix_length;
    let network = message.attributes.iter().find_map(|attribute| {
        let RouteAttribute::Destination(RouteAddress::Inet6(network)) = attribute else {
            return None;
        };
        Some(*network)
    });
    let Some(network) = network.filter(|_| prefix_len > 0) else {
        return Vec::new();
    };
    let route = |(_, interface)| Route6 {
        network,
        prefix_len,
        interface,
    };
    interfaces_of(message).into_iter().map(route).collect()
}

/// Metric and interfaces of a route in the main table that leads anywhere.
fn interfaces_of(message: &RouteMessage) -> Vec<(u32, u32)> {
    let header = &message.header;
    if header.kind != RouteType::Unicast || header.table != RouteHeader::RT_TABLE_MAIN {
        return Vec::new();
    }
    let mut metric = 0;
    let mut interfaces = Vec::new();
    for attribute in &message.attributes {
        if let RouteAttribute::Priority(it) = attribute {
            metric = *it;
        } else if let RouteAttribute::Oif(it) = attribute {
            interfaces.push(*it);
        } else if let RouteAttribute::MultiPath(hops) = attribute {
            interfaces.extend(hops.iter().map(|hop| hop.interface_index));
        }
    }
    interfaces.into_iter().map(|it| (metric, it)).collect()
}

fn gateway(message: &RouteMessage) -> Option<Ipv6Addr> {
    message.attributes.iter().find_map(|attribute| {
        let RouteAttribute::Gateway(RouteAddress::Inet6(gateway)) = attribute else {
            return None;
        };
        Some(*gateway)
    })
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    if message.header.family != AddressFamily::Inet6 {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        if let NeighbourAttribute::Destination(NeighbourAddress::Inet6(it)) = attribute {
            address = Some(*it);
        } else if let NeighbourAttribute::LinkLocalAddress(it) = attribute {
            mac = <[u8; 6]>::try_from(it.as_slice()).ok().map(Mac);
        }
    }
    let known = matches!(
        message.header.state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
    );
    Some(Neighbour {
        address: address?,
        mac: mac.filter(|_| known),
        failed: message.header.state == NeighbourState::Failed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::route::RouteNextHop;

    fn route(attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.header.kind = RouteType::Unicast;
        route.attributes = attributes;
        route
    }

    /// Works for everybody: reading takes no privilege.
    #[tokio::test]
    async fn every_host_has_a_loopback_interface() {
        let watch = NetWatch::open().unwrap();
        let snapshot = watch.snapshot().await.unwrap();
        let loopback = snapshot.by_name("lo").unwrap();
        assert_eq!(loopback.mac, None);
        assert_eq!(snapshot.by_index(loopback.index), Some(loopback));
        // Whoever has talked to itself by IPv6 has been its own neighbour since, without an address
        // that frames could be sent to.
        let neighbours = watch.neighbours(loopback.index).await.unwrap();
        let is_itself = |it: &Neighbour| it.mac.is_none();
        assert!(neighbours.iter().all(is_itself), "{neighbours:?}");
    }

    #[tokio::test]
    async fn many_notifications_are_few_changes() {
        let (messages, receiver) = tokio::sync::mpsc::unbounded_channel();
        let stream = futures_util::stream::unfold(receiver, |mut receiver| async {
            Some((receiver.recv().await?, receiver))
        });
        let (tell, changed) = watch::channel(());
        tokio::spawn(gather(Box::pin(stream), None, tell));
        let netlink = Netlink::open().unwrap();
        let mut watch = NetWatch { netlink, changed };
        for _ in 0..1000 {
            messages.send(()).unwrap();
        }
        drop(messages);
        let mut changes = 0;
        let ended = loop {
            match watch.changed().await {
                Ok(()) => changes += 1,
                Err(ended) => break ended,
            }
        };
        // A few: tokio interrupts a task that never waits.
        assert!((1..100).contains(&changes), "{changes}");
        assert_eq!(ended.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn default_routes_by_metric() {
        let hop = |index| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = index;
            hop
        };
        let mut blackhole = route(vec![RouteAttribute::Oif(9)]);
        blackhole.header.kind = RouteType::BlackHole;
        let mut narrow = route(vec![RouteAttribute::Oif(8)]);
        narrow.header.destination_prefix_length = 1;
        let routes = [
            route(vec![RouteAttribute::Priority(600), RouteAttribute::Oif(2)]),
            route(vec![RouteAttribute::MultiPath(vec![hop(5), hop(2)])]),
            route(vec![RouteAttribute::Oif(3), RouteAttribute::Priority(100)]),
            blackhole,
            narrow,
        ];
        assert_eq!(in_order(routes.iter().flat_map(default_route)), [2, 5, 3]);
    }

    #[test]
    fn routed_networks_with_every_interface_they_are_reached_by() {
        let network = "2001:db8:7::".parse().unwrap();
        let to = |more: Vec<RouteAttribute>, len| {
            let destination = RouteAttribute::Destination(RouteAddress::Inet6(network));
            let mut message = route([vec![destination], more].concat());
            message.header.destination_prefix_length = len;
            message
        };
        let hops = [3, 5].map(|index| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = index;
            hop
        });
        let found = routes6(&to(vec![RouteAttribute::MultiPath(hops.into())], 48));
        let expected = [3, 5].map(|interface| Route6 {
            network,
            prefix_len: 48,
            interface,
        });
        assert_eq!(found, expected);
        // A default route, one that leads nowhere, one of another table.
        assert_eq!(routes6(&to(vec![RouteAttribute::Oif(3)], 0)), []);
        let mut blackhole = to(vec![RouteAttribute::Oif(3)], 48);
        blackhole.header.kind = RouteType::BlackHole;
        assert_eq!(routes6(&blackhole), []);
        let mut local = to(vec![RouteAttribute::Oif(3)], 128);
        local.header.table = 255;
        assert_eq!(routes6(&local), []);
    }

    #[test]
    fn only_neighbours_that_may_be_used_have_a_link_layer_address() {
        let router: Ipv6Addr = "fe80::1".parse().unwrap();
        let entry = |state| {
            let mut message = NeighbourMessage::default();
            message.header.family = AddressFamily::Inet6;
            message.header.state = state;
            message.attributes = vec![
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(router)),
                NeighbourAttribute::LinkLocalAddress(vec![2, 0, 0, 0, 0, 1]),
            ];
            neighbour(&message).unwrap()
        };
        let mac = Some(Mac([2, 0, 0, 0, 0, 1]));
        assert_eq!(entry(NeighbourState::Stale).mac, mac);
        assert_eq!(entry(NeighbourState::Permanent).mac, mac);
        assert_eq!(entry(NeighbourState::Failed).mac, None);
        assert_eq!(entry(NeighbourState::Incomplete).mac, None);
        assert_eq!(entry(NeighbourState::Failed).address, router);
    }

    #[test]
    fn a_host_without_a_route_is_no_error() {
        let error = |code| io::Error::from_raw_os_error(code);
        assert!(is_unreachable(&error(libc::ENETUNREACH)));
        assert!(is_unreachable(&error(libc::EHOSTUNREACH)));
        assert!(!is_unreachable(&error(libc::EACCES)));
    }
}
