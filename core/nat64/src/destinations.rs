//! Which IPv4 destinations clients may reach.
//!
//! A NAT64 sends packets from its own place in the network. Without a rule, a client could reach
//! through it what it cannot reach itself: services on the NAT64's loopback, its link, a cloud's
//! metadata address, the private network behind it. So special-purpose addresses are refused unless
//! the configuration names them.

use core::{fmt, net::Ipv4Addr, str::FromStr};

use pref64::special::Special;

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network4 {
    address: u32,
    len: u8,
}

/// Why text is not a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// Not `address/length`.
    Syntax,
    /// Bits behind the length are set; the network that was probably meant.
    HostBits(Network4),
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax => f.write_str("not an IPv4 network; write it like 192.0.2.0/24"),
            Self::HostBits(meant) => {
                write!(f, "has bits set behind its length; did you mean {meant}?")
            }
        }
    }
}

impl core::error::Error for NetworkError {}

impl Network4 {
    /// The network of one address.
    #[must_use]
    pub fn host(address: Ipv4Addr) -> Self {
        Self {
            address: address.to_bits(),
            len: 32,
        }
    }

    /// Whether `address` lies in it.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.len) == self.address
    }

    /// Its first address.
    #[must_use]
    pub fn first(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address)
    }

    /// The length of its prefix in bits.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.len
    }

    /// How many addresses lie in it.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::from(!mask(self.len)) + 1
    }

    /// The fewest networks that have exactly the addresses from `first` to `last`, in order.
    #[must_use]
    pub fn covering(first: Ipv4Addr, last: Ipv4Addr) -> Vec<Self> {
        let (mut next, last) = (u64::from(first.to_bits()), u64::from(last.to_bits()));
        let mut networks = Vec::new();
        while next <= last {
            // As large as its first address allows, and as the rest does.
            let aligned = next.trailing_zeros().min(32);
            let bits = aligned.min((last - next + 1).ilog2());
            if let (Ok(address), Ok(len)) = (u32::try_from(next), u8::try_from(32 - bits)) {
                networks.push(Self { address, len });
            }
            next += 1 << bits;
        }
        networks
    }

    /// Every address in it, in order.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let last = self.address | !mask(self.len);
        (self.address..=last).map(Ipv4Addr::from_bits)
    }
}

const fn mask(len: u8) -> u32 {
    match u32::MAX.checked_shl(32 - len as u32) {
        Some(mask) => mask,
        None => 0,
    }
}

impl FromStr for Network4 {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, len) = match text.trim().split_once('/') {
            Some((address, len)) => (address, len.parse().map_err(|_| NetworkError::Syntax)?),
            None => (text.trim(), 32u8),
        };
        let address: Ipv4Addr = address.parse().map_err(|_| NetworkError::Syntax)?;
        if len > 32 {
            return Err(NetworkError::Syntax);
        }
        let network = Self {
            address: address.to_bits() & mask(len),
            len,
        };
        if network.first() == address {
            Ok(network)
        } else {
            Err(NetworkError::HostBits(network))
        }
    }
}

impl fmt::Display for Network4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first(), self.len)
    }
}

/// The rule.
#[derive(Clone, Debug)]
pub(crate) struct Destinations {
    pub(crate) allowed: Vec<Network4>,
    pub(crate) own: Vec<Ipv4Addr>,
}

impl Destinations {
    /// Whether clients may reach `address`.
    pub(crate) fn allows(&self, address: Ipv4Addr) -> bool {
        if self.own.contains(&address) {
            return false;
        }
        match Special::of(address) {
            None => true,
            // Never a destination for a packet that is routed.
            Some(
                Special::ThisNetwork | Special::Loopback | Special::Multicast | Special::Broadcast,
            ) => false,
            Some(
                Special::Private
                | Special::SharedAddressSpace
                | Special::LinkLocal
                | Special::ProtocolAssignments
                | Special::Documentation
                | Special::Benchmarking
                | Special::Reserved,
            ) => self.allowed.iter().any(|network| network.contains(address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destinations(allowed: &[&str]) -> Destinations {
        Destinations {
            allowed: allowed.iter().map(|text| text.parse().unwrap()).collect(),
            own: vec![Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(9, 9, 9, 9)],
        }
    }

    #[test]
    fn special_destinations_are_refused_unless_allowed() {
        let strict = destinations(&[]);
        let open = destinations(&["198.51.100.0/24", "10.0.0.0/8", "0.0.0.0/0"]);
        for (address, by_default, when_open) in [
            ("8.8.8.8", true, true),
            ("192.0.0.9", true, true),
            ("198.51.100.10", false, true),
            ("10.1.2.3", false, true),
            ("169.254.169.254", false, true),
            ("240.0.0.1", false, true),
            ("127.0.0.1", false, false),
            ("0.0.0.0", false, false),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
            ("203.0.113.1", false, false),
            ("9.9.9.9", false, false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(strict.allows(address), by_default, "{address}");
            assert_eq!(open.allows(address), when_open, "{address}");
        }
        let some = destinations(&["198.51.100.0/25"]);
        assert!(some.allows(Ipv4Addr::new(198, 51, 100, 127)));
        assert!(!some.allows(Ipv4Addr::new(198, 51, 100, 128)));
    }

    #[test]
    fn a_range_is_a_few_networks() {
        for (first, last, wanted) in [
            ("1.2.3.4", "1.2.3.4", "1.2.3.4/32"),
            ("0.0.0.0", "255.255.255.255", "0.0.0.0/0"),
            ("1.2.3.0", "1.2.3.255", "1.2.3.0/24"),
            (
                "198.51.100.10",
                "198.51.100.20",
                "198.51.100.10/31 198.51.100.12/30 198.51.100.16/30 198.51.100.20/32",
            ),
            ("255.255.255.254", "255.255.255.255", "255.255.255.254/31"),
            ("1.2.3.5", "1.2.3.4", ""),
        ] {
            let networks = Network4::covering(first.parse().unwrap(), last.parse().unwrap());
            let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
            assert_eq!(networks.join(" "), wanted);
        }
    }

    #[test]
    fn networks_are_read_and_written() {
        let network: Network4 = "198.51.100.0/30".parse().unwrap();
        assert_eq!(network.to_string(), "198.51.100.0/30");
        assert_eq!((network.addresses().count(), network.size()), (4, 4));
        let everything: Network4 = "0.0.0.0/0".parse().unwrap();
        assert_eq!(everything.size(), 1 << 32);
        assert_eq!("1.2.3.4".parse::<Network4>().unwrap().prefix_len(), 32);
        assert_eq!(
            "0.0.0.0/0".parse::<Network4>().unwrap().to_string(),
            "0.0.0.0/0"
        );
        let error = "198.51.100.1/24".parse::<Network4>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "has bits set behind its length; did you mean 198.51.100.0/24?"
        );
        for wrong in ["", "1.2.3/8", "1.2.3.4/33", "1.2.3.4/", "::/0"] {
            assert_eq!(
                wrong.parse::<Network4>(),
                Err(NetworkError::Syntax),
                "{wrong}"
            );
        }
    }
}
