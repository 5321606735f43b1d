//! Which DNS servers a link has, and sockets to ask them by that link.
//!
//! What router advertisements say is not here: whoever listens to them ([`crate::ra`]) knows it
//! first hand. Nothing is ever changed.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
};

use tokio::net::{TcpStream, UdpSocket};

#[cfg(target_os = "linux")]
mod bus;
#[cfg(target_os = "linux")]
pub(crate) mod linux;
#[cfg(any(target_os = "linux", test))]
mod resolv_conf;

/// A link, by the names that the system's services know it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The host's IPv6 default route leads through it.
    pub is_default: bool,
}

/// The DNS servers that the system knows, in its order, none twice, none of them this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Those that were learned on the link.
    pub of_link: Vec<IpAddr>,
    /// Those of the host, learned nobody knows where. They are the link's only if nothing better is
    /// known (RFC 8880 §7.1), and only if it is the link that packets leave by: empty otherwise.
    pub of_host: Vec<IpAddr>,
}

/// What a system knows of DNS servers, and sockets to ask them.
///
/// * Linux: systemd-resolved and NetworkManager by D-Bus, `/etc/resolv.conf`; SO_BINDTOIFINDEX.
/// * macOS: the scoped resolvers of SystemConfiguration; IP_BOUND_IF and IPV6_BOUND_IF.
/// * Windows: GetAdaptersAddresses; IP_UNICAST_IF and IPV6_UNICAST_IF.
pub trait Dns: Clone + Send + Sync + Unpin + 'static {
    /// The servers of a link. Services that do not run, or do not answer, know none.
    fn resolvers(&self, link: &Link) -> impl Future<Output = Known> + Send;

    /// A UDP socket at `local` whose datagrams leave and arrive by one interface only, whatever the
    /// routes say. That the interface is gone may be told only when something is sent.
    ///
    /// # Errors
    /// The system's: the port is taken.
    fn udp_socket(&self, interface: u32, local: SocketAddr) -> io::Result<UdpSocket>;

    /// A TCP connection to `server` by one interface only.
    ///
    /// # Errors
    /// The system's.
    fn connect_tcp(
        &self,
        interface: u32,
        server: SocketAddr,
    ) -> impl Future<Output = io::Result<TcpStream>> + Send;
}

#[cfg(any(target_os = "linux", test))]
/// Whether a server may be asked: one on this host is a proxy for we do not know whom.
fn is_elsewhere(address: &IpAddr) -> bool {
    let address = address.to_canonical();
    !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
}

#[cfg(any(target_os = "linux", test))]
/// Adds what is not there yet.
fn add(known: &mut Vec<IpAddr>, more: impl IntoIterator<Item = IpAddr>) {
    for address in more {
        if is_elsewhere(&address) && !known.contains(&address) {
            known.push(address);
        }
    }
}
