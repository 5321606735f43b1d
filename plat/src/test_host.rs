//! Hosts for tests, as `netwatch` would show them.

use host::netwatch::{Address, Interface};

/// An interface that is up, with IPv6 addresses and their networks' lengths, and IPv4 addresses.
pub(crate) fn interface(index: u32, name: &str, ipv6: &[(&str, u8)], ipv4: &[&str]) -> Interface {
    let address = |(address, prefix_len): &(&str, u8)| Address {
        address: address.parse().unwrap(),
        prefix_len: *prefix_len,
        preferred: true,
    };
    Interface {
        index,
        name: name.to_owned(),
        running: true,
        mac: None,
        ipv6_mtu: 1500,
        addresses: ipv6.iter().map(address).collect(),
        ipv4: ipv4.iter().map(|it| it.parse().unwrap()).collect(),
    }
}
