//! [`Network6`]: which IPv6 addresses are meant, of clients and of subscribers.

use core::{fmt, net::Ipv6Addr, str::FromStr};

/// An IPv6 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network6 {
    address: u128,
    len: u8,
}

/// Why text is not a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network6Error {
    /// Not `address/length`.
    Syntax,
    /// Bits behind the length are set; the network that was probably meant.
    HostBits(Network6),
}

impl fmt::Display for Network6Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax => f.write_str("not an IPv6 network; write it like 2001:db8:1::/48"),
            Self::HostBits(meant) => {
                write!(f, "has bits set behind its length; did you mean {meant}?")
            }
        }
    }
}

impl core::error::Error for Network6Error {}

impl Network6 {
    /// The network of `len` bits, at most 128, that `address` lies in.
    #[must_use]
    pub const fn around(address: Ipv6Addr, len: u8) -> Self {
        let len = if len > 128 { 128 } else { len };
        Self {
            address: address.to_bits() & mask(len),
            len,
        }
    }

    /// Whether `address` lies in it.
    #[must_use]
    pub const fn contains(&self, address: Ipv6Addr) -> bool {
        address.to_bits() & mask(self.len) == self.address
    }

    /// Whether there is an address in both: then one of them lies in the other.
    #[must_use]
    pub const fn meets(&self, other: Self) -> bool {
        self.contains(other.first()) || other.contains(self.first())
    }

    /// Its first address.
    #[must_use]
    pub const fn first(&self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.address)
    }

    /// The length of its prefix in bits.
    #[must_use]
    pub const fn prefix_len(&self) -> u8 {
        self.len
    }
}

const fn mask(len: u8) -> u128 {
    match u128::MAX.checked_shl(128 - len as u32) {
        Some(mask) => mask,
        None => 0,
    }
}

impl FromStr for Network6 {
    type Err = Network6Error;

    fn from_str(text: &str) -> Result<Self, Network6Error> {
        let (address, len) = match text.trim().split_once('/') {
            Some((address, len)) => (address, len.parse().map_err(|_| Network6Error::Syntax)?),
            None => (text.trim(), 128u8),
        };
        let address: Ipv6Addr = address.parse().map_err(|_| Network6Error::Syntax)?;
        if len > 128 {
            return Err(Network6Error::Syntax);
        }
        let network = Self::around(address, len);
        if network.first() == address {
            Ok(network)
        } else {
            Err(Network6Error::HostBits(network))
        }
    }
}

impl fmt::Display for Network6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first(), self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_and_written() {
        for text in ["2001:db8:1::/48", "::/0", "2001:db8::1/128"] {
            assert_eq!(text.parse::<Network6>().unwrap().to_string(), text);
        }
        let one: Network6 = "2001:db8::1".parse().unwrap();
        assert_eq!(one.to_string(), "2001:db8::1/128");
        let error = "2001:db8::1/64".parse::<Network6>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "has bits set behind its length; did you mean 2001:db8::/64?"
        );
        for wrong in ["", "2001:db8::/129", "2001:db8::/", "192.0.2.0/24", "x/64"] {
            assert_eq!(
                wrong.parse::<Network6>(),
                Err(Network6Error::Syntax),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_network_contains_what_shares_its_bits() {
        let network: Network6 = "2001:db8:1:2::/63".parse().unwrap();
        let contains = |text: &str| network.contains(text.parse().unwrap());
        assert!(contains("2001:db8:1:2::") && contains("2001:db8:1:3:ffff:ffff:ffff:ffff"));
        assert!(!contains("2001:db8:1:1:ffff::") && !contains("2001:db8:1:4::"));
        let everything: Network6 = "::/0".parse().unwrap();
        assert!(everything.contains("ffff::".parse().unwrap()));
    }
}
