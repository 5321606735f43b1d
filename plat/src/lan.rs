//! What the LAN needs besides the NAT64, since `plat` does not announce or resolve anything yet.

use std::fmt::Write;

use crate::config::Config;

/// The lines for the router and the resolver, ready to be copied.
pub(crate) fn instructions(config: &Config) -> String {
    let mut text = String::new();
    let prefixes = list(config.prefixes.iter());
    let pool = list(config.pool.iter());
    let _ = writeln!(
        text,
        "plat serves {prefixes} with the IPv4 addresses {pool}."
    );
    let _ = writeln!(
        text,
        "\nThe LAN needs, besides routes to {prefixes} through this host:\n"
    );
    let _ = writeln!(
        text,
        "# its router announces the prefix (radvd 2.20 or later, radvd.conf)"
    );
    for prefix in &config.prefixes {
        let _ = writeln!(text, "nat64prefix {prefix} {{ AdvValidLifetime 1800; }};");
    }
    let _ = writeln!(text, "\n# its resolver synthesises AAAA records: one of");
    for prefix in &config.prefixes {
        let _ = writeln!(
            text,
            "dns64 {prefix} {{ clients {{ any; }}; }};    # BIND, named.conf"
        );
    }
    if let Some(prefix) = config.prefixes.first() {
        let _ = writeln!(
            text,
            "module-config: \"dns64 validator iterator\"    # Unbound, unbound.conf\n\
             dns64-prefix: {prefix}"
        );
    }
    text
}

fn list<T: ToString>(items: impl Iterator<Item = T>) -> String {
    let items: Vec<_> = items.map(|it| it.to_string()).collect();
    items.join(", ")
}
