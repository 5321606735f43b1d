//! The host's own addresses.

use std::net::{Ipv4Addr, Ipv6Addr};

use cli::Failure;
use host::netwatch::Snapshot;

use crate::{
    config::{Config, pool::PoolRange},
    pool_mode::PoolMode,
};

/// The host's IPv4 addresses: no client may reach them. One that is in the pool, too, came up later
/// ([`super::check::check_host`]), and is the host's all the same.
pub(super) fn own_ipv4(snapshot: &Snapshot) -> Vec<Ipv4Addr> {
    let all = snapshot.interfaces.iter().flat_map(|it| it.ipv4.iter());
    all.copied().collect()
}

/// Whether the address whose ports are shared is no longer this host's.
pub(super) fn shared_address_is_gone(config: &Config, snapshot: &Snapshot) -> bool {
    let shared = config.pool.first().map(PoolRange::first);
    let is_own = |address| own_ipv4(snapshot).contains(&address);
    config.pool_mode == PoolMode::HostPorts && !shared.is_some_and(is_own)
}

pub(super) fn has_ipv6(snapshot: &Snapshot, address: Ipv6Addr) -> bool {
    let all = snapshot.interfaces.iter().flat_map(|it| &it.addresses);
    all.into_iter().any(|it| it.address == address)
}

/// An address of the host to speak from when a packet cannot be translated.
pub(super) fn own_ipv6(snapshot: &Snapshot) -> Result<Ipv6Addr, Failure> {
    let all = snapshot.interfaces.iter();
    let usable = all.flat_map(|it| it.addresses.iter()).filter(|it| {
        !it.address.is_loopback()
            && !it.address.is_unicast_link_local()
            && !it.address.is_multicast()
    });
    // Rather not one that is about to go, or not checked yet.
    let best = usable.min_by_key(|it| !it.preferred);
    best.map(|it| it.address).ok_or_else(|| {
        Failure::error("this host has no IPv6 address but link-local ones")
            .hint("give the interface towards the IPv6 clients an address")
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::check::tests::{host, interface},
        *,
    };

    #[test]
    fn errors_come_from_an_address_that_stays() {
        let addresses = [
            ("fe80::1", true),
            ("2001:db8::1", false),
            ("2001:db8::2", true),
        ];
        let snapshot = host(vec![
            interface("lo", "127.0.0.1", &[("::1", true)]),
            interface("eth0", "192.0.2.1", &addresses),
        ]);
        assert_eq!(own_ipv6(&snapshot), Ok("2001:db8::2".parse().unwrap()));
        let tentative = host(vec![interface("eth0", "192.0.2.1", &addresses[..2])]);
        assert_eq!(own_ipv6(&tentative), Ok("2001:db8::1".parse().unwrap()));
        let none = host(vec![interface("eth0", "192.0.2.1", &addresses[..1])]);
        assert!(
            own_ipv6(&none)
                .unwrap_err()
                .to_string()
                .contains("what to do")
        );
    }
}
