//! The desired state of a host's network, as data.
//!
//! Whoever wants something of the host writes a [`Plan`]; `host::netcfg` makes the host so, keeps
//! a journal of what it changed, and takes it back. Nothing here knows how.
//!
//! ```
//! use plan::{Item, Plan, Prefix, Route, Via};
//!
//! let plan = Plan::new([Item::Route(Route {
//!     destination: Prefix::new("2001:db8::1".parse().unwrap(), 128),
//!     via: Via::Blackhole,
//!     metric: None,
//! })]);
//! assert_eq!(plan.items().len(), 1);
//! ```

#![forbid(unsafe_code)]

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

mod forwarding;
mod guard;
mod sharing;

pub use forwarding::Ipv6Before;
pub use guard::ForwardingGuard;
pub use sharing::{Masquerade, PortShare, Ports, ProxyNeighbour, ReservedPorts};

/// What the host should look like, in the order in which it is to be made so. Taken back in the
/// opposite order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    items: Vec<Item>,
}

impl Plan {
    /// A plan of `items`.
    #[must_use]
    pub fn new(items: impl IntoIterator<Item = Item>) -> Self {
        Self {
            items: items.into_iter().collect(),
        }
    }

    /// The plan that wants nothing.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Its items, in order.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.items
    }
}

/// One thing that should be so.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Item {
    /// Settings of a virtual interface of ours.
    Interface(Interface),
    /// An address on an interface.
    Address(Address),
    /// A route in the main table.
    Route(Route),
    /// A kernel setting.
    Setting(Setting),
    /// Addresses that nobody outside may see or reach.
    Concealment(Concealment),
    /// Ports that no local program is to get by itself.
    ReservedPorts(ReservedPorts),
    /// Ports of an address of the host's that are not the host's.
    PortShare(PortShare),
    /// An address that the host answers for on a link.
    ProxyNeighbour(ProxyNeighbour),
    /// Private addresses behind an address of the host's.
    Masquerade(Masquerade),
    /// Packets of others that stay unforwarded.
    ForwardingGuard(ForwardingGuard),
}

impl Item {
    /// Whether `other` is about the same thing, so that making it so replaces this.
    #[must_use]
    pub fn same_subject(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Interface(a), Self::Interface(b)) => a.name == b.name,
            (Self::Address(a), Self::Address(b)) => {
                (&a.interface, a.prefix) == (&b.interface, b.prefix)
            }
            (Self::Route(a), Self::Route(b)) => {
                (a.destination, a.metric) == (b.destination, b.metric)
            }
            (Self::Setting(a), Self::Setting(b)) => a.path == b.path,
            (Self::Concealment(a), Self::Concealment(b)) => a.name == b.name,
            (Self::ReservedPorts(a), Self::ReservedPorts(b)) => a == b,
            (Self::PortShare(a), Self::PortShare(b)) => a.name == b.name,
            (Self::ProxyNeighbour(a), Self::ProxyNeighbour(b)) => a == b,
            (Self::Masquerade(a), Self::Masquerade(b)) => a.name == b.name,
            (Self::ForwardingGuard(a), Self::ForwardingGuard(b)) => a.name == b.name,
            (
                Self::Interface(_)
                | Self::Address(_)
                | Self::Route(_)
                | Self::Setting(_)
                | Self::Concealment(_)
                | Self::ReservedPorts(_)
                | Self::PortShare(_)
                | Self::ProxyNeighbour(_)
                | Self::Masquerade(_)
                | Self::ForwardingGuard(_),
                _,
            ) => false,
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(it) => write!(f, "interface {} up with MTU {}", it.name, it.mtu),
            Self::Address(it) => write!(f, "address {} on {}", it.prefix, it.interface),
            Self::Route(it) => write!(f, "route to {} {}", it.destination, it.via),
            Self::Setting(it) => write!(f, "setting {} = {}", it.path, it.value),
            Self::Concealment(it) => {
                write!(f, "{} hidden from all but {}", it.addresses, it.interface)
            }
            Self::ReservedPorts(it) => write!(f, "ports {} given to no local program", it.ports),
            Self::PortShare(it) => {
                write!(
                    f,
                    "ports {} of {} for {}",
                    it.ports, it.address, it.interface
                )
            }
            Self::ProxyNeighbour(it) => {
                write!(f, "ARP for {} answered on {}", it.address, it.interface)
            }
            Self::Masquerade(it) => write!(f, "{} behind an address of this host", it.addresses),
            Self::ForwardingGuard(it) => it.fmt(f),
        }
    }
}

/// A virtual interface of ours: up, with no address that the kernel makes by itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Bytes per packet.
    pub mtu: u16,
}

/// An address on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Address {
    /// The interface's name.
    pub interface: String,
    /// The address and the length of its network.
    pub prefix: Prefix,
}

/// A route in the main table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub destination: Prefix,
    /// Which way.
    pub via: Via,
    /// Larger is worse; the system's default if not set.
    pub metric: Option<u32>,
}

/// Which way packets go.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// Out of an interface, without a gateway.
    Interface {
        /// Its name.
        name: String,
        /// The source address that the host's own packets get.
        source: Option<IpAddr>,
    },
    /// Nowhere: silently dropped.
    Blackhole,
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface { name, .. } => write!(f, "out of {name}"),
            Self::Blackhole => f.write_str("into a black hole"),
        }
    }
}

/// A kernel setting, as found under `/proc/sys`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Setting {
    /// `net/ipv6/conf/all/forwarding`.
    pub path: String,
    /// The value, without a line break.
    pub value: String,
}

/// Addresses that must stay inside the host: neither answered for by ARP nor reachable by IP on any
/// interface but one (RFC 7335).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Concealment {
    /// A name of its own, for the firewall table.
    pub name: String,
    /// The IPv4 addresses.
    pub addresses: Prefix,
    /// The interface on which they are used.
    pub interface: String,
}

/// An address and the length of its network part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Prefix {
    /// The address; bits behind the length may be set for an interface's address.
    pub address: IpAddr,
    /// In bits.
    pub length: u8,
}

impl Prefix {
    /// A prefix.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Self {
        Self { address, length }
    }

    /// A single address.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self::new(address, if address.is_ipv4() { 32 } else { 128 })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(metric: Option<u32>, via: Via) -> Item {
        Item::Route(Route {
            destination: Prefix::new("::".parse().unwrap(), 0),
            via,
            metric,
        })
    }

    #[test]
    fn a_changed_item_is_about_the_same_thing() {
        let tun = Via::Interface {
            name: "clat0".into(),
            source: None,
        };
        let one = route(Some(7), tun);
        assert!(one.same_subject(&route(Some(7), Via::Blackhole)));
        assert!(!one.same_subject(&route(Some(8), Via::Blackhole)));
        let interface = |mtu| {
            Item::Interface(Interface {
                name: "clat0".into(),
                mtu,
            })
        };
        assert!(interface(1472).same_subject(&interface(1252)));
        assert!(!interface(1472).same_subject(&one));
        let setting = |value: &str| {
            Item::Setting(Setting {
                path: "net/ipv6/conf/all/forwarding".into(),
                value: value.into(),
            })
        };
        assert!(setting("0").same_subject(&setting("1")));
        let hidden = |name: &str, interface: &str| {
            Item::Concealment(Concealment {
                name: name.into(),
                addresses: Prefix::new("192.0.0.0".parse().unwrap(), 29),
                interface: interface.into(),
            })
        };
        assert!(hidden("a", "clat0").same_subject(&hidden("a", "clat1")));
        assert!(!hidden("a", "clat0").same_subject(&hidden("b", "clat0")));
        // Two addresses on one interface are two things, and so is one address on two.
        let address = |interface: &str, address: &str| {
            Item::Address(Address {
                interface: interface.into(),
                prefix: Prefix::host(address.parse().unwrap()),
            })
        };
        let first = address("clat0", "192.0.0.1");
        assert!(first.same_subject(&first));
        assert!(!first.same_subject(&address("clat0", "192.0.0.3")));
        assert!(!first.same_subject(&address("clat1", "192.0.0.1")));
    }
}
