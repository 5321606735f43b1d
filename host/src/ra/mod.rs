//! Router advertisements as they arrive, and solicitations for them.
//!
//! A raw ICMPv6 socket sees them whoever else handles them: the kernel, NetworkManager or
//! systemd-networkd.

use std::net::Ipv6Addr;

use wire::ndp::Envelope;

#[cfg(target_os = "linux")]
pub mod linux;

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
