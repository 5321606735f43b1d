//! What the LAN needs besides the NAT64, since `plat` does not announce or resolve anything yet.

use std::fmt::Write;

use pref64::{Pref64, siit::NonGlobal};

use crate::{config::Config, pool_mode::PoolMode};

/// How long the announced prefix holds without being announced again. In seconds, a multiple of 8
/// (RFC 8781 §4), and three times the default interval of radvd.
const LIFETIME: u32 = 1800;

const TO_THE_PREFIX: &str = "A route to the prefix must lead to this host.";

/// The lines for the router and the resolver, ready to be copied.
pub(crate) fn instructions(config: &Config) -> String {
    let prefixes = list(config.prefixes.iter());
    let pool = list(config.pool.iter());
    let ports = config.pool.first().map(|it| it.ports.tcp.to_string());
    let ports = ports.unwrap_or_default();
    let (with, routes) = match config.pool_mode {
        PoolMode::Routed => (
            format!("the IPv4 addresses {pool}"),
            "Routes to both must lead to this host.",
        ),
        PoolMode::HostPorts => (
            format!("ports {ports} of {pool}, an address of this host"),
            TO_THE_PREFIX,
        ),
        PoolMode::Arp => (
            format!("the IPv4 addresses {pool}, which this host answers ARP for"),
            TO_THE_PREFIX,
        ),
        PoolMode::Masquerade => (
            format!("the private IPv4 addresses {pool} behind its own"),
            TO_THE_PREFIX,
        ),
    };
    let mut text = format!(
        "plat serves {prefixes} with {with}.\n\
         {routes} The LAN also needs:\n\n\
         # The prefix in router advertisements, by radvd 2.20 or later. In radvd.conf, in the\n\
         # block of the LAN's interface:\n"
    );
    for prefix in &config.prefixes {
        let _ = writeln!(
            text,
            "    nat64prefix {prefix} {{ AdvValidLifetime {LIFETIME}; }};"
        );
    }
    text.push_str("\n# AAAA records for IPv4-only names (DNS64), by one of these.\n");
    // Hosts use one prefix at a time; the first is the one to move to.
    if let Some(prefix) = config.prefixes.first() {
        let mapped = mapped(config, *prefix);
        let _ = writeln!(
            text,
            "# BIND, in the options block of named.conf:\n\
             \x20   dns64 {prefix} {{ clients {{ any; }};{mapped} }};\n\
             # Unbound, in unbound.conf:\n\
             server:\n\
             \x20   module-config: \"dns64 validator iterator\"\n\
             \x20   dns64-prefix: {prefix}"
        );
    }
    text
}

/// BIND's list of the IPv4 addresses to make AAAA records for: under the well-known prefix not the
/// private ones, which would be refused here (RFC 6147 §5.1.4, RFC 6052 §3.1).
fn mapped(config: &Config, prefix: Pref64) -> &'static str {
    if prefix.is_well_known() && config.wkp_non_global == NonGlobal::Drop {
        " mapped { !10/8; !100.64/10; !172.16/12; !192.168/16; any; };"
    } else {
        ""
    }
}

fn list<T: ToString>(items: impl Iterator<Item = T>) -> String {
    let items: Vec<_> = items.map(|it| it.to_string()).collect();
    items.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::settled;

    #[test]
    fn the_lan_is_told_everything_it_needs() {
        let config = settled("pool = [\"203.0.113.0/28\", \"203.0.113.64\"]").unwrap();
        assert_eq!(
            instructions(&config),
            r#"plat serves 64:ff9b::/96 with the IPv4 addresses 203.0.113.0/28, 203.0.113.64.
Routes to both must lead to this host. The LAN also needs:

# The prefix in router advertisements, by radvd 2.20 or later. In radvd.conf, in the
# block of the LAN's interface:
    nat64prefix 64:ff9b::/96 { AdvValidLifetime 1800; };

# AAAA records for IPv4-only names (DNS64), by one of these.
# BIND, in the options block of named.conf:
    dns64 64:ff9b::/96 { clients { any; }; mapped { !10/8; !100.64/10; !172.16/12; !192.168/16; any; }; };
# Unbound, in unbound.conf:
server:
    module-config: "dns64 validator iterator"
    dns64-prefix: 64:ff9b::/96
"#
        );
    }

    #[test]
    fn under_a_prefix_of_ones_own_private_addresses_are_mapped_too() {
        let text = "pool = [\"203.0.113.1\"]\n\
                    prefixes = [\"2001:db8:64::/96\", \"2001:db8:65::/64\"]";
        let text = instructions(&settled(text).unwrap());
        assert!(
            text.contains("    dns64 2001:db8:64::/96 { clients { any; }; };\n"),
            "{text}"
        );
        assert!(
            text.contains("    nat64prefix 2001:db8:65::/64 {"),
            "{text}"
        );
        assert_eq!(text.matches("dns64-prefix:").count(), 1);
    }

    #[test]
    fn the_lifetime_can_be_announced() {
        assert!(LIFETIME.is_multiple_of(8) && LIFETIME <= 65_528);
    }
}
