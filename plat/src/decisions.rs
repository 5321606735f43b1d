//! What was not said and is decided: for people, with the line that changes it.

use std::fmt::Write;

use crate::{
    config::{Config, DEFAULT_FILE},
    pool_mode::PoolMode,
};

/// What holds, a line each, and how it is changed. Nothing for a pool that the configuration names.
pub(crate) fn text(config: &Config) -> Option<String> {
    if config.pool_mode != PoolMode::HostPorts {
        return None;
    }
    let shared = config.pool.first()?;
    let (address, ports) = (shared.first(), &shared.ports.tcp);
    let uplink = config.uplink.as_deref().unwrap_or_default();
    let mut text = format!("plat decided, and lines of {DEFAULT_FILE} change it:\n");
    let mut line = |what: String, how: String| {
        let _ = writeln!(text, "    {what:<58}  {how}");
    };
    line(
        format!("IPv4 by {address} on {uplink}, this host's own address"),
        format!("uplink = \"{uplink}\""),
    );
    line(
        format!("ports and ICMP identifiers {ports} of it"),
        format!("host_ports = \"{ports}\""),
    );
    line(
        "or whole addresses that are routed to this host".to_owned(),
        "pool = [\"192.0.2.16/28\"]".to_owned(),
    );
    let prefixes: Vec<_> = config.prefixes.iter().map(ToString::to_string).collect();
    line(
        format!("the NAT64 prefix {}", prefixes.join(", ")),
        format!("prefixes = [\"{}\"]", prefixes.join("\", \"")),
    );
    line(
        match config.allow_destinations.len() {
            0 => "no private or other special IPv4 destinations".to_owned(),
            n => format!("{n} networks of special destinations"),
        },
        "allow_destinations = [\"10.0.0.0/8\"]".to_owned(),
    );
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::pool::PoolRange;
    use crate::config::tests::settled;
    use nat64::ports::PortRange;
    use std::net::Ipv4Addr;

    #[test]
    fn every_decision_says_how_it_is_changed() {
        let mut config = settled("uplink = \"ppp0\"").unwrap();
        let ports = PortRange::new(61_001, 65_535).unwrap();
        config.pool = vec![PoolRange::shared(Ipv4Addr::new(198, 51, 100, 7), ports)];
        let text = text(&config).unwrap();
        for part in [
            "198.51.100.7 on ppp0",
            "uplink = \"ppp0\"",
            "host_ports = \"61001-65535\"",
            "prefixes = [\"64:ff9b::/96\"]",
            "allow_destinations",
        ] {
            assert!(text.contains(part), "{text}");
        }
        // Each of these lines is one that the file may have.
        for line in text.lines().skip(1) {
            let how = line.rsplit_once("  ").unwrap().1;
            settled(how).unwrap_or_else(|error| panic!("{how}: {error}"));
        }
    }

    #[test]
    fn what_was_configured_was_not_decided() {
        let config = settled("pool = [\"203.0.113.0/28\"]").unwrap();
        assert_eq!(text(&config), None);
    }
}
