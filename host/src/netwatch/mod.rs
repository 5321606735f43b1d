//! What the host's network is right now, and when it changes.
//!
//! Changes are only a reason to look again: whoever is told reads a new [`Snapshot`]. So nothing is
//! missed when the system drops notifications because there are too many.

use std::{
    future::Future,
    io,
    net::{Ipv4Addr, Ipv6Addr},
};

use l2::next_hop::Neighbour;
use wire::ethernet::Mac;

#[cfg(target_os = "linux")]
pub(crate) mod linux;

/// What a system tells of its network.
///
/// * Linux: rtnetlink's dumps and groups.
/// * macOS: `getifaddrs` and the tables of `sysctl`, and the routing socket for changes.
/// * Windows: the tables of IP Helper (`GetIpForwardTable2`, `GetIpNetTable2`) and its
///   notifications; a nudge is `ResolveIpNetEntry2`.
pub trait Network {
    /// Waits until anything may have changed since the last call, however much it was.
    ///
    /// # Errors
    /// When the system's notifications have ended.
    fn changed(&mut self) -> impl Future<Output = io::Result<()>>;

    /// The network as it is.
    ///
    /// # Errors
    /// The system's.
    fn snapshot(&self) -> impl Future<Output = io::Result<Snapshot>>;

    /// The routers that the system would send packets for `destination` through on an interface,
    /// best first. Empty if it has no route, or one without a router.
    ///
    /// # Errors
    /// The system's, but for having no route.
    fn gateways(
        &self,
        interface: u32,
        destination: Ipv6Addr,
    ) -> impl Future<Output = io::Result<Vec<Ipv6Addr>>>;

    /// The IPv6 neighbours of an interface, with the link-layer addresses that may be used.
    ///
    /// # Errors
    /// The system's.
    fn neighbours(&self, interface: u32) -> impl Future<Output = io::Result<Vec<Neighbour>>>;

    /// Has the system use the neighbour entry of a router, as if it had sent a packet itself:
    /// resolve it if it is unknown, probe it if it is stale.
    ///
    /// # Errors
    /// The system's.
    fn nudge(&self, interface: u32, router: Ipv6Addr) -> impl Future<Output = io::Result<()>>;
}

/// The interfaces of the host, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// All of them.
    pub interfaces: Vec<Interface>,
    /// The interfaces that have an IPv4 default route, by index.
    pub ipv4_default: Vec<u32>,
    /// The interfaces that have an IPv6 default route, by index, best first.
    pub ipv6_default: Vec<u32>,
    /// The IPv4 networks that its interfaces are on.
    pub ipv4_networks: Vec<Ipv4Network>,
    /// The IPv6 routes out of interfaces, but for default routes.
    pub ipv6_routes: Vec<Route6>,
}

/// An IPv4 network that an interface is on, by an address of its own in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Network {
    /// The interface's index.
    pub interface: u32,
    /// Its address.
    pub address: Ipv4Addr,
    /// Bits that all addresses of the network have in common: at most 31.
    pub length: u8,
}

impl Ipv4Network {
    /// Whether a host may have this address on the link: not the network's own, nor its broadcast
    /// address.
    #[must_use]
    pub fn has_host(&self, address: Ipv4Addr) -> bool {
        let host = u32::MAX.checked_shr(self.length.into()).unwrap_or(0);
        let (own, other) = (self.address.to_bits(), address.to_bits());
        let of_all = [0, host].contains(&(other & host)) && host > 1;
        (own ^ other) & !host == 0 && !of_all
    }
}

impl Snapshot {
    /// The interface with this name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|it| it.name == name)
    }

    /// The interface with this index.
    #[must_use]
    pub fn by_index(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|it| it.index == index)
    }
}

/// A network that is routed out of an interface, with or without a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route6 {
    /// Its first address.
    pub network: Ipv6Addr,
    /// The length of its prefix.
    pub prefix_len: u8,
    /// The interface's index.
    pub interface: u32,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Up, and with a carrier.
    pub running: bool,
    /// Its link-layer address, if it is Ethernet.
    pub mac: Option<Mac>,
    /// Bytes per IPv6 packet: the smaller of the link's and the router's.
    pub ipv6_mtu: u32,
    /// Its IPv6 addresses.
    pub addresses: Vec<Address>,
    /// Its IPv4 addresses.
    pub ipv4: Vec<Ipv4Addr>,
}

/// An IPv6 address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: Ipv6Addr,
    /// The length of its network.
    pub prefix_len: u8,
    /// Neither deprecated nor tentative nor a duplicate.
    pub preferred: bool,
}
