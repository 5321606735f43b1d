//! Echo requests by the virtual interface, for the probe behind "reachable".

use std::{future::Future, io, net::Ipv4Addr};

#[cfg(target_os = "linux")]
pub(crate) mod linux;

/// Sends ICMP messages by one IPv4 interface with hop limits of its own, and receives what comes
/// back.
///
/// * Linux and macOS: a raw ICMP socket, bound to the interface.
/// * Windows: the same, by IP_UNICAST_IF.
pub trait EchoSocket: Send + Sync + 'static {
    /// Sends an ICMP message.
    ///
    /// # Errors
    /// The system's: there is no route, or the interface is gone.
    fn send(&self, target: Ipv4Addr, hop_limit: u8, message: &[u8]) -> io::Result<()>;

    /// The next ICMP packet that came in for us, with its IPv4 header. May be dropped while it
    /// waits.
    ///
    /// # Errors
    /// The system's, when there will be no more.
    fn recv(&self) -> impl Future<Output = io::Result<Vec<u8>>> + Send;
}
