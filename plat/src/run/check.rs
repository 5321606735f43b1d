//! What is against a configuration on this host, and what may not be meant.

use std::net::Ipv4Addr;

use cli::{Exit, Failure};
use host::netwatch::{Interface, Snapshot};

use crate::{
    config::{self, Config},
    pool_mode::PoolMode,
};

/// What cannot work on this host, although the configuration is right by itself.
pub(super) fn check_host(config: &Config, snapshot: &Snapshot) -> Result<(), Failure> {
    if config.pool.is_empty() {
        let what = "no pool is configured";
        return Err(Failure::new(Exit::Usage, what).hint(config::SMALLEST));
    }
    let all = snapshot.interfaces.iter();
    for interface in all.filter(|it| it.name != config.interface) {
        check_mappings(config, interface)?;
        // The one mode where it is meant to be.
        if config.pool_mode != PoolMode::HostPorts {
            check_pool(config, interface)?;
        }
        check_prefixes(config, interface)?;
    }
    Ok(())
}

fn check_mappings(config: &Config, interface: &Interface) -> Result<(), Failure> {
    if let Some((eam, address)) = interface
        .ipv4
        .iter()
        .find_map(|it| Some((config.eam.find(*it)?, it)))
    {
        let name = &interface.name;
        let what = format_args!("[[eam]] {eam}: {address} is this host's own address on {name}");
        return Err(Failure::new(Exit::Usage, what).hint(
            "what comes to it would never reach plat: use addresses that are routed to this host \
             and used by nothing",
        ));
    }
    Ok(())
}

fn check_pool(config: &Config, interface: &Interface) -> Result<(), Failure> {
    let in_pool = |address: &&Ipv4Addr| config.pool.iter().any(|it| it.contains(**address));
    let Some(address) = interface.ipv4.iter().find(in_pool) else {
        return Ok(());
    };
    let name = &interface.name;
    let what = format_args!("the pool has {address}, which is this host's own address on {name}");
    Err(Failure::new(Exit::Usage, what).hint(
        "what comes to it would never reach plat: use addresses that are routed to this host and \
         used by nothing, or share its ports: pool_mode = \"host-ports\"",
    ))
}

fn check_prefixes(config: &Config, interface: &Interface) -> Result<(), Failure> {
    for own in interface.addresses.iter().map(|it| it.address) {
        if let Some(prefix) = config.prefixes.iter().find(|it| it.contains(own)) {
            let name = &interface.name;
            let what = format_args!("{prefix} contains this host's own address {own} on {name}");
            return Err(Failure::new(Exit::Usage, what).hint(
                "a NAT64 refuses packets from its own prefix: use one that no host has an address \
                 in, for example a /96 of its own",
            ));
        }
    }
    Ok(())
}

/// What is allowed, and may not be what was meant.
pub(super) fn warn_of(asked: &Config, config: &Config) {
    warn_of_overlaps(config);
    // Of clients that are left to the host more may come.
    for sentence in config::outside::sentences(asked) {
        tracing::warn!("{sentence}");
    }
}

/// Mappings inside of others: longest match decides, but the way back is not the way there
/// (RFC 7757 §5).
fn warn_of_overlaps(config: &Config) {
    const SHOWN: usize = 5;
    let overlaps = config.eam.overlaps();
    for (inner, outer) in overlaps.iter().take(SHOWN) {
        tracing::warn!("[[eam]] {inner} lies in {outer}: the longer prefix decides, each way");
    }
    if overlaps.len() > SHOWN {
        tracing::warn!("[[eam]] and {} more such pairs", overlaps.len() - SHOWN);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{super::addresses::own_ipv4, *};
    use crate::test_host;

    fn config(text: &str) -> Config {
        config::tests::settled(text).unwrap()
    }

    pub(in super::super) fn interface(name: &str, ipv4: &str, ipv6: &[(&str, bool)]) -> Interface {
        let networks: Vec<_> = ipv6.iter().map(|(address, _)| (*address, 64)).collect();
        let mut interface = test_host::interface(1, name, &networks, &[ipv4]);
        for (address, (_, preferred)) in interface.addresses.iter_mut().zip(ipv6) {
            address.preferred = *preferred;
        }
        interface
    }

    pub(in super::super) fn host(interfaces: Vec<Interface>) -> Snapshot {
        Snapshot {
            interfaces,
            ..Snapshot::default()
        }
    }

    /// Otherwise clients would reach the host itself through it, and nothing would come back.
    #[test]
    fn the_hosts_own_addresses_are_not_in_the_pool() {
        let config = config("pool = [\"203.0.113.0/28\"]");
        let fine = host(vec![interface("eth0", "192.0.2.1", &[])]);
        assert_eq!(check_host(&config, &fine), Ok(()));
        let mapped = "[[eam]]\nipv4 = \"192.0.2.0/24\"\nipv6 = \"2001:db8::/120\"\n";
        let mapped = self::config(&format!("pool = [\"203.0.113.0/28\"]\n{mapped}"));
        let failure = check_host(&mapped, &fine).unwrap_err().to_string();
        assert!(
            failure.contains("192.0.2.1 is this host's own"),
            "{failure}"
        );
        let wrong = host(vec![interface("eth0", "203.0.113.7", &[])]);
        let failure = check_host(&config, &wrong).unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage);
        let text = failure.to_string();
        assert!(
            text.contains("203.0.113.7") && text.contains("eth0"),
            "{text}"
        );
        // If it comes up later, it is refused to clients.
        assert_eq!(own_ipv4(&wrong), [Ipv4Addr::new(203, 0, 113, 7)]);
    }

    /// The loop guard would drop everything that such a host sends.
    #[test]
    fn a_prefix_does_not_contain_the_network_it_serves() {
        let config = config("pool = [\"203.0.113.0/28\"]\nprefixes = [\"2001:db8::/32\"]");
        let wrong = host(vec![interface(
            "eth0",
            "192.0.2.1",
            &[("2001:db8:1::1", true)],
        )]);
        let text = check_host(&config, &wrong).unwrap_err().to_string();
        assert!(text.contains("2001:db8:1::1 on eth0"), "{text}");
        let fine = host(vec![interface(
            "eth0",
            "192.0.2.1",
            &[("2001:db9::1", true)],
        )]);
        assert_eq!(check_host(&config, &fine), Ok(()));
    }
}
