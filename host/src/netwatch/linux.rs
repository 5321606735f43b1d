//! rtnetlink for links, routes and neighbours; if-watch for addresses.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::{Stream, StreamExt, TryStreamExt};
use if_watch::tokio::IfWatcher;
use l2::next_hop::Neighbour;
use rtnetlink::{
    Handle, IpVersion, MulticastGroup, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressFlags, AddressMessage},
        link::{AfSpecInet6, AfSpecUnspec, LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
        neighbour::{
            NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
        },
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType},
    },
};
use wire::ethernet::Mac;

use super::{Address, Interface, Snapshot};
use crate::netcfg::linux::into_io;

/// The smallest MTU of an IPv6 link.
const MIN_MTU: u32 = 1280;

/// Watches the network of the current namespace.
pub struct NetWatch {
    netlink: Handle,
    changes: std::pin::Pin<Box<dyn Stream<Item = ()> + Send>>,
    addresses: Option<IfWatcher>,
}

impl NetWatch {
    /// Starts to watch. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn open() -> io::Result<Self> {
        let (connection, netlink, messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv6Ifinfo,
        ])?;
        tokio::spawn(connection);
        let addresses = IfWatcher::new()
            .inspect_err(|error| tracing::warn!("address changes are not watched: {error}"))
            .ok();
        Ok(Self {
            netlink,
            changes: messages.map(drop).boxed(),
            addresses,
        })
    }

    /// Waits until anything may have changed.
    ///
    /// # Errors
    /// When the kernel's notifications have ended.
    pub async fn changed(&mut self) -> io::Result<()> {
        let addresses = async {
            match &mut self.addresses {
                Some(watcher) => watcher.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            change = self.changes.next() => match change {
                Some(()) => Ok(()),
                None => Err(io::ErrorKind::BrokenPipe.into()),
            },
            change = addresses => {
                // An error of the watcher is not fatal: the other notifications go on.
                if let None | Some(Err(_)) = change {
                    tracing::warn!("address changes are no longer watched");
                    self.addresses = None;
                }
                Ok(())
            }
        }
    }

    /// The network as it is.
    ///
    /// # Errors
    /// The system's.
    pub async fn snapshot(&self) -> io::Result<Snapshot> {
        let links: Vec<_> = self
            .netlink
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(into_io)?;
        let addresses: Vec<_> = self
            .netlink
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(into_io)?;
        let mut interfaces: Vec<_> = links.iter().filter_map(interface).collect();
        for message in &addresses {
            let index = message.header.index;
            let owner = interfaces.iter_mut().find(|it| it.index == index);
            let Some(owner) = owner else {
                continue;
            };
            owner.addresses.extend(address(message));
            owner.ipv4.extend(ipv4_address(message));
        }
        Ok(Snapshot {
            interfaces,
            ipv4_default: self.default_interfaces(IpVersion::V4).await?,
            ipv6_default: self.default_interfaces(IpVersion::V6).await?,
        })
    }

    async fn default_interfaces(&self, version: IpVersion) -> io::Result<Vec<u32>> {
        let message = match version {
            IpVersion::V4 => RouteMessageBuilder::<Ipv4Addr>::new().build(),
            IpVersion::V6 => RouteMessageBuilder::<Ipv6Addr>::new().build(),
        };
        let routes: Vec<RouteMessage> = self
            .netlink
            .route()
            .get(message)
            .execute()
            .try_collect()
            .await
            .map_err(into_io)?;
        let mut found: Vec<(u32, u32)> = routes.iter().flat_map(default_route).collect();
        found.sort_unstable();
        let mut interfaces: Vec<u32> = Vec::new();
        for (_, interface) in found {
            if !interfaces.contains(&interface) {
                interfaces.push(interface);
            }
        }
        Ok(interfaces)
    }

    /// The routers that the kernel would send packets for `destination` through on an interface.
    ///
    /// Empty if it has no route, or one without a router.
    ///
    /// # Errors
    /// The system's, but for having no route.
    pub async fn gateways(
        &self,
        interface: u32,
        destination: Ipv6Addr,
    ) -> io::Result<Vec<Ipv6Addr>> {
        let message = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(destination, 128)
            .output_interface(interface)
            .build();
        let routes: Result<Vec<RouteMessage>, _> = self
            .netlink
            .route()
            .get(message)
            .execute()
            .try_collect()
            .await;
        match routes.map_err(into_io) {
            Ok(routes) => Ok(routes.iter().filter_map(gateway).collect()),
            Err(error) if error.raw_os_error() == Some(libc::ENETUNREACH) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The IPv6 neighbours of an interface, with the link-layer addresses that may be used.
    ///
    /// # Errors
    /// The system's.
    pub async fn neighbours(&self, interface: u32) -> io::Result<Vec<Neighbour>> {
        let messages: Vec<NeighbourMessage> = self
            .netlink
            .neighbours()
            .get()
            .set_family(IpVersion::V6)
            .execute()
            .try_collect()
            .await
            .map_err(into_io)?;
        let here = messages
            .iter()
            .filter(|message| message.header.ifindex == interface);
        Ok(here.filter_map(neighbour).collect())
    }

    /// A handle for [`nudge`], which other tasks may keep.
    #[must_use]
    pub fn nudger(&self) -> Nudger {
        Nudger(self.netlink.clone())
    }
}

/// Has the kernel use neighbour entries.
#[derive(Clone)]
pub struct Nudger(Handle);

impl Nudger {
    /// Has the kernel use the entry of a router, as if it had sent a packet itself: resolve it if
    /// it is unknown, probe it if it is stale (`NTF_USE`).
    pub async fn nudge(&self, interface: u32, router: Ipv6Addr) {
        let request = self
            .0
            .neighbours()
            .add(interface, router.into())
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace();
        if let Err(error) = request.execute().await {
            tracing::debug!("the kernel does not use the entry of {router}: {error}");
        }
    }
}

impl std::fmt::Debug for Nudger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nudger").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for NetWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetWatch").finish_non_exhaustive()
    }
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

/// Metric and interfaces of a default route in the main table that leads anywhere.
fn default_route(message: &RouteMessage) -> Vec<(u32, u32)> {
    let header = &message.header;
    let leads_nowhere = header.kind != RouteType::Unicast;
    if header.destination_prefix_length != 0
        || header.table != RouteHeader::RT_TABLE_MAIN
        || leads_nowhere
    {
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
    })
}
