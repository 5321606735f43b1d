//! How IPv4 addresses come to a translator: a part of the ports of the host's own address, spare
//! addresses of a link, or private ones behind the host's NAT.

use std::{fmt, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::Prefix;

/// Ports, or identifiers of ICMP queries. At least one, and never port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl Ports {
    /// What a translator takes unless told otherwise: what lies above the ports that Linux gives to
    /// local programs by itself (32768-60999).
    pub const ABOVE_EPHEMERAL: Self = Self {
        first: 61_001,
        last: u16::MAX,
    };

    /// Whether `port` is one of them.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Ports of an address of the host's that are not the host's: TCP and UDP packets to them, answers
/// to echo requests with an identifier among them, and ICMP errors about packets from them go into
/// an interface of ours, and packets from them come out of it.
///
/// What belongs to a socket of this host, or answers an echo request of this host, stays with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortShare {
    /// A name of its own, for the firewall table.
    pub name: String,
    /// The host's address.
    pub address: Ipv4Addr,
    /// Which ports and identifiers.
    pub ports: Ports,
    /// The interface that they are for.
    pub interface: String,
}

impl PortShare {
    /// Of these 16 bits is an address that stands for another one. 240.0.0.0/4 is reserved: no host
    /// has such an address, and no route leads to one.
    const STAND_INS: u16 = 0xf000;

    /// The address that stands for [`Self::address`] between the host's prerouting and postrouting,
    /// so that the host's own routing table can tell the two apart. It needs a route to the
    /// interface. It is on no wire.
    ///
    /// Its 16-bit words have the same sum as those of the address: no checksum changes where one
    /// takes the place of the other, not even those of ICMP errors that quote it (RFC 1624). Two
    /// that share different ports of one address have different ones, unless the ports of one of
    /// them are fewer than 32.
    #[must_use]
    pub fn stand_in(&self) -> Ipv4Addr {
        let [a, b, c, d] = self.address.octets();
        let words = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
        let mut high = Self::STAND_INS | self.ports.first >> 5;
        if words[0] == high {
            high ^= 0x0800;
        }
        // One's complement: modulo 2^16 - 1.
        let modulus = u32::from(u16::MAX);
        let sum = u32::from(words[0]) + u32::from(words[1]);
        let low = (sum + modulus - u32::from(high)) % modulus;
        Ipv4Addr::from_bits(u32::from(high) << 16 | low)
    }
}

/// Ports that the system gives to no program that does not ask for one of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReservedPorts {
    /// The ports.
    pub ports: Ports,
}

/// An address that the host answers ARP for, although it has it not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProxyNeighbour {
    /// The interface's name.
    pub interface: String,
    /// The address.
    pub address: Ipv4Addr,
}

/// Private addresses that leave the host only as an address of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Masquerade {
    /// A name of its own, for the firewall table.
    pub name: String,
    /// The private addresses.
    pub addresses: Prefix,
    /// The interface on which they are used.
    pub interface: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(address: Ipv4Addr) -> u16 {
        let [a, b, c, d] = address.octets();
        let sum = u32::from(u16::from_be_bytes([a, b])) + u32::from(u16::from_be_bytes([c, d]));
        let folded = (sum & 0xffff) + (sum >> 16);
        // Both zeros are the same number.
        u16::try_from(folded).unwrap() % u16::MAX
    }

    fn share(address: Ipv4Addr, first: u16) -> PortShare {
        PortShare {
            name: "openclat-plat0".into(),
            address,
            ports: Ports {
                first,
                last: u16::MAX,
            },
            interface: "plat0".into(),
        }
    }

    #[test]
    fn a_stand_in_is_another_address_with_the_same_checksum() {
        let step = 0x0001_0003_usize;
        let addresses = (0..=u32::MAX).step_by(step).map(Ipv4Addr::from_bits);
        let special = ["192.0.2.1", "240.0.0.1", "247.114.0.0", "255.255.255.254"];
        let special = special.map(|it| it.parse().unwrap());
        for address in addresses.chain(special) {
            for first in [1, 61_001, u16::MAX] {
                let other = share(address, first).stand_in();
                assert_ne!(address, other);
                assert_eq!(sum(address), sum(other), "{address} {other}");
                assert!(other.octets()[0] >= 240, "{address} {other}");
            }
        }
    }

    #[test]
    fn two_that_share_an_address_have_a_stand_in_each() {
        let own = Ipv4Addr::new(192, 0, 2, 1);
        let firsts = (1024..=u16::MAX).step_by(32);
        let mut all: Vec<_> = firsts.map(|it| share(own, it).stand_in()).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
