//! Addresses with prefixes and ports, as people write them in filters.

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Which addresses (and ports) are meant: `2001:db8::/32`, `[2001:db8::1]:443`, `198.51.100.1`,
/// `198.51.100.0/24`, `198.51.100.1:443`. Without a length one address is meant, without a port
/// every port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    address: IpAddr,
    length: u8,
    port: Option<u16>,
}

/// Why a text is no [`Match`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchError {
    /// Neither an address, a prefix, nor an address with a port.
    Unreadable,
    /// The length is longer than an address.
    TooLong,
    /// Bits behind the length are set.
    HostBits,
}

impl fmt::Display for MatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => {
                "not an address, a prefix like 2001:db8::/32, or an address with a port like \
                 192.0.2.1:80 or [2001:db8::1]:80"
            }
            Self::TooLong => "the prefix is longer than an address",
            Self::HostBits => "bits behind the prefix length are set",
        })
    }
}

impl core::error::Error for MatchError {}

impl Match {
    /// One address, with every port.
    #[must_use]
    pub fn address(address: IpAddr) -> Self {
        Self {
            length: width(address),
            address,
            port: None,
        }
    }

    /// Whether IPv6 addresses are meant.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.address.is_ipv6()
    }

    /// The IPv6 network and the length of its prefix, if one is meant, with every port.
    #[must_use]
    pub fn ipv6_network(&self) -> Option<(Ipv6Addr, u8)> {
        match self.address {
            IpAddr::V6(address) if self.port.is_none() => Some((address, self.length)),
            IpAddr::V6(_) | IpAddr::V4(_) => None,
        }
    }

    /// Whether an address and port are meant.
    #[must_use]
    pub fn contains(&self, end: SocketAddr) -> bool {
        self.port.is_none_or(|it| it == end.port())
            && self.address.is_ipv4() == end.ip().is_ipv4()
            && masked(end.ip(), self.length) == bits(self.address)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The bits of an address, left-aligned.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn masked(address: IpAddr, length: u8) -> u128 {
    let host = u128::MAX.checked_shr(length.into()).unwrap_or(0);
    bits(address) & !host
}

impl FromStr for Match {
    type Err = MatchError;

    fn from_str(text: &str) -> Result<Self, MatchError> {
        if let Ok(end) = text.parse::<SocketAddr>() {
            return Ok(Self {
                port: Some(end.port()),
                ..Self::address(end.ip())
            });
        }
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| MatchError::Unreadable)?;
        let length = match length {
            Some(text) => text.parse().map_err(|_| MatchError::Unreadable)?,
            None => width(address),
        };
        if length > width(address) {
            return Err(MatchError::TooLong);
        }
        if masked(address, length) != bits(address) {
            return Err(MatchError::HostBits);
        }
        Ok(Self {
            address,
            length,
            port: None,
        })
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.address, port).fmt(f),
            None => write!(f, "{}/{}", self.address, self.length),
        }
    }
}

impl Serialize for Match {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Match {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// The /64 that an address lies in, as people write it.
#[must_use]
pub fn subscriber(address: Ipv6Addr) -> String {
    let prefix = Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX));
    format!("{prefix}/64")
}

/// An IPv4 address and port.
#[must_use]
pub fn end4(address: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(address, port)
}

/// An IPv6 address and port.
#[must_use]
pub fn end6(address: Ipv6Addr, port: u16) -> SocketAddrV6 {
    SocketAddrV6::new(address, port, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(filter: &str, end: &str) -> bool {
        let filter: Match = filter.parse().unwrap();
        filter.contains(end.parse().unwrap())
    }

    #[test]
    fn prefixes_addresses_and_ports() {
        assert!(matches("2001:db8::/32", "[2001:db8:ffff::1]:80"));
        assert!(!matches("2001:db8::/32", "[2001:db9::1]:80"));
        assert!(matches("2001:db8::1", "[2001:db8::1]:80"));
        assert!(!matches("2001:db8::1", "[2001:db8::2]:80"));
        assert!(matches("[2001:db8::1]:80", "[2001:db8::1]:80"));
        assert!(!matches("[2001:db8::1]:80", "[2001:db8::1]:81"));
        assert!(matches("198.51.100.0/24", "198.51.100.255:1"));
        assert!(!matches("198.51.100.0/24", "198.51.101.0:1"));
        assert!(matches("0.0.0.0/0", "198.51.101.0:1") && matches("::/0", "[::1]:1"));
        // The families have nothing in common.
        assert!(!matches("::/0", "0.0.0.0:1") && !matches("0.0.0.0/0", "[::]:1"));
    }

    #[test]
    fn a_network_has_no_port() {
        let network = |text: &str| text.parse::<Match>().unwrap().ipv6_network();
        let address = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        assert_eq!(network("2001:db8::/32"), Some((address("2001:db8::"), 32)));
        assert_eq!(network("2001:db8::1"), Some((address("2001:db8::1"), 128)));
        assert_eq!(
            (network("[2001:db8::1]:80"), network("192.0.2.0/24")),
            (None, None)
        );
    }

    #[test]
    fn what_means_nothing_is_refused() {
        let error = |text: &str| text.parse::<Match>().unwrap_err();
        assert_eq!(error("192.0.2.1/33"), MatchError::TooLong);
        assert_eq!(error("192.0.2.1/24"), MatchError::HostBits);
        for text in [
            "",
            "x",
            "192.0.2.1/",
            "192.0.2.1/x",
            "2001:db8::1:80:",
            "/8",
            "1.2.3.4:99999",
        ] {
            assert_eq!(error(text), MatchError::Unreadable, "{text}");
        }
    }

    #[test]
    fn the_subscriber_is_the_64() {
        let address = "2001:db8:1:2:3:4:5:6".parse().unwrap();
        assert_eq!(subscriber(address), "2001:db8:1:2::/64");
    }

    proptest! {
        #[test]
        fn a_match_survives_json(text in "[0-9a-f:.\\[\\]/]{0,24}") {
            if let Ok(filter) = text.parse::<Match>() {
                let json = serde_json::to_string(&filter).unwrap();
                prop_assert_eq!(serde_json::from_str::<Match>(&json).unwrap(), filter);
            }
        }
    }
}
