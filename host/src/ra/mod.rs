//! Router advertisements as they arrive, and solicitations for them.
//!
//! A raw ICMPv6 socket sees them whoever else handles them: the kernel, NetworkManager or
//! systemd-networkd.

use std::{future::Future, io, net::Ipv6Addr};

use wire::ndp::Envelope;

#[cfg(target_os = "linux")]
pub(crate) mod linux;

/// Where router advertisements come from.
///
/// * Linux and macOS: a raw ICMPv6 socket with an ICMP6_FILTER.
/// * Windows: the same socket, where the system's own filter lets advertisements through to it;
///   else WinDivert, which only listens then.
pub trait RouterAdvertisements {
    /// The next advertisement, of any interface.
    ///
    /// # Errors
    /// The system's, when there will be no more.
    fn recv(&self) -> impl Future<Output = io::Result<Datagram>>;

    /// Asks the routers on an interface to advertise themselves (RFC 4861 §6.3.7).
    ///
    /// # Errors
    /// The system's: the interface is down, or has no link-local address yet.
    fn solicit(&self, interface: u32) -> io::Result<()>;
}

/// An ICMPv6 message of type Router Advertisement, unchecked.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// The index of the interface it arrived on.
    pub interface: u32,
    /// Source, destination and hop limit.
    pub envelope: Envelope,
    /// The ICMPv6 message.
    pub message: Vec<u8>,
}

/// Where solicitations go.
pub const SOLICIT_TO: Ipv6Addr = wire::ndp::ALL_ROUTERS;
