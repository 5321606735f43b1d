//! What two NAT64s on one host cannot both have.

use nat64::{ports::PortRange, tuple::Protocol};
use plan::Ports;

use super::{Config, pool::PoolRange};
use crate::pool_mode::PoolMode;

/// All of it, a sentence each.
pub(crate) fn conflicts(one: &Config, other: &Config) -> Vec<String> {
    let mut sentences = Vec::new();
    if one.interface == other.interface {
        sentences.push(format!("it has the interface {}", one.interface));
    }
    let overlap =
        |a: &pref64::Pref64, b: &pref64::Pref64| a.contains(b.address()) || b.contains(a.address());
    for prefix in &one.prefixes {
        if other.prefixes.iter().any(|it| overlap(prefix, it)) {
            sentences.push(format!("it serves {prefix}"));
        }
    }
    for range in &one.pool {
        if other.pool.iter().any(|it| both_have(range, it)) {
            sentences.push(format!("it gives out {range}"));
        }
    }
    if left_open(one) && left_open(other) && meet(shared(one), shared(other)) {
        let Ports { first, last } = shared(one);
        sentences.push(format!(
            "it shares ports {first}-{last} of this host's own address"
        ));
    }
    sentences
}

/// Whether an address stands in both, with a port that both give out.
fn both_have(one: &PoolRange, other: &PoolRange) -> bool {
    one.first() <= other.last()
        && other.first() <= one.last()
        && Protocol::ALL
            .iter()
            .any(|it| one.ports.of(*it).meets(other.ports.of(*it)))
}

fn left_open(config: &Config) -> bool {
    config.pool_mode == PoolMode::HostPorts && config.pool.is_empty()
}

fn shared(config: &Config) -> Ports {
    config.host_ports.map_or(Ports::ABOVE_EPHEMERAL, ports)
}

fn ports(range: PortRange) -> Ports {
    Ports {
        first: range.first(),
        last: range.last(),
    }
}

fn meet(one: Ports, other: Ports) -> bool {
    one.first <= other.last && other.first <= one.last
}

#[cfg(test)]
mod tests {
    use super::{super::tests::settled, *};

    #[test]
    fn only_what_both_have_is_in_conflict() {
        let said = |one: &str, other: &str| {
            let with = |text: &str, at: u8| {
                let text =
                    format!("interface = \"nat{at}\"\nprefixes = [\"2001:db8:{at}::/96\"]\n{text}");
                settled(&text).unwrap()
            };
            conflicts(&with(one, 1), &with(other, 2))
        };
        assert_eq!(
            said("pool = [\"203.0.113.1\"]", "pool = [\"203.0.113.2\"]"),
            [""; 0]
        );
        let entry = |ports: &str| {
            format!(
                "pool = [{{address = \"203.0.113.1\", tcp = \"{ports}\", udp = \"{ports}\", \
                 icmp = \"{ports}\"}}]"
            )
        };
        assert_eq!(said(&entry("1024-2047"), &entry("2048-4095")), [""; 0]);
        let twice = said(&entry("1024-2048"), &entry("2048-4095"));
        assert_eq!(twice, ["it gives out 203.0.113.1"]);
        // Nothing said: both would take the same ports.
        assert_eq!(said("", "").len(), 1);
        let halves = said(
            "host_ports = \"61001-63000\"",
            "host_ports = \"63001-65535\"",
        );
        assert_eq!(halves, [""; 0]);
        let same = settled("").unwrap();
        assert_eq!(conflicts(&same, &same).len(), 3);
    }
}
