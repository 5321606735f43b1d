//! Transport addresses and the tuples of RFC 6146 §2.

use core::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
};

/// The protocols that have bindings. Each has tables of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP queries: echo.
    Icmp,
}

impl Protocol {
    /// All of them, in the order of [`Self::index`].
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Icmp];

    /// A place in an array.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Tcp => 0,
            Self::Udp => 1,
            Self::Icmp => 2,
        }
    }

    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Tcp => wire::protocol::TCP,
            Self::Udp => wire::protocol::UDP,
            Self::Icmp => wire::protocol::ICMP,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Icmp => "ICMP",
        })
    }
}

/// An IPv6 address with a port, or with the identifier of an echo.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Endpoint6 {
    /// The address.
    pub address: Ipv6Addr,
    /// The port or identifier.
    pub id: u16,
}

/// An IPv4 address with a port, or with the identifier of an echo.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Endpoint4 {
    /// The address.
    pub address: Ipv4Addr,
    /// The port or identifier.
    pub id: u16,
}

impl fmt::Debug for Endpoint6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&SocketAddrV6::new(self.address, self.id, 0, 0), f)
    }
}

impl Endpoint6 {
    pub(crate) fn to_bytes(self) -> [u8; 18] {
        let mut bytes = [0; 18];
        bytes[..16].copy_from_slice(&self.address.octets());
        bytes[16..].copy_from_slice(&self.id.to_ne_bytes());
        bytes
    }
}

impl Endpoint4 {
    pub(crate) fn to_bytes(self) -> [u8; 6] {
        let [a, b, c, d] = self.address.octets();
        let [e, f] = self.id.to_ne_bytes();
        [a, b, c, d, e, f]
    }
}

impl fmt::Debug for Endpoint4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&SocketAddrV4::new(self.address, self.id), f)
    }
}

/// The 5-tuple of a packet (for ICMP queries a 3-tuple: both identifiers are the same).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<E> {
    /// The protocol.
    pub protocol: Protocol,
    /// Where it comes from.
    pub src: E,
    /// Where it goes to.
    pub dst: E,
}
