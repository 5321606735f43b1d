//! `/etc/resolv.conf` (resolv.conf(5)), which knows no links.

use std::net::{IpAddr, Ipv6Addr};

use super::{Known, Link, add};

/// More are not read: the C library uses three.
const MAX_SERVERS: usize = 16;

/// A `nameserver` line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Server {
    address: IpAddr,
    /// The link it is on, by name or by index, as in `fe80::1%eth0`.
    scope: Option<String>,
}

/// The servers in `text` for a link: those with its scope are the link's own; those without a scope
/// are the host's, and count if the link is the one that packets leave by.
pub(super) fn servers_for(text: &str, link: &Link) -> Known {
    let mut known = Known::default();
    let index = link.index.to_string();
    for Server { address, scope } in parse(text) {
        match scope {
            Some(scope) if scope == link.name || scope == index => {
                add(&mut known.of_link, [address]);
            }
            None if link.is_default => add(&mut known.of_host, [address]),
            Some(_) | None => {}
        }
    }
    known
}

/// The `nameserver` lines; others, and those that cannot be read, are passed over.
fn parse(text: &str) -> Vec<Server> {
    text.lines()
        .filter_map(parse_line)
        .take(MAX_SERVERS)
        .collect()
}

fn parse_line(line: &str) -> Option<Server> {
    let mut words = line.split_ascii_whitespace();
    if words.next() != Some("nameserver") {
        return None;
    }
    let word = words.next()?;
    let Some((address, scope)) = word.split_once('%') else {
        let address = word.parse().ok()?;
        return Some(Server {
            address,
            scope: None,
        });
    };
    let address: Ipv6Addr = address.parse().ok()?;
    Some(Server {
        address: address.into(),
        scope: Some(scope.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(text: &str, is_default: bool) -> (Vec<String>, Vec<String>) {
        let link = Link {
            index: 3,
            name: "eth0".into(),
            is_default,
        };
        let known = servers_for(text, &link);
        let text = |list: Vec<IpAddr>| list.iter().map(ToString::to_string).collect();
        (text(known.of_link), text(known.of_host))
    }

    #[test]
    fn nameserver_lines_are_read_and_others_are_not() {
        let text = "# nameserver 192.0.2.1\n; nameserver 192.0.2.2\nsearch nameserver\n\
                    nameserver 2001:db8::53\n\tnameserver\t192.0.2.53  # mine\nnameservers 192.0.2.3\n\
                    nameserver\nnameserver none\nnameserver 2001:db8::53\noptions edns0\n";
        let (of_link, of_host) = known(text, true);
        assert!(of_link.is_empty());
        assert_eq!(of_host, ["2001:db8::53", "192.0.2.53"]);
        assert_eq!(known("", true).1.len(), 0);
    }

    /// RFC 8880 §7.1: a proxy on this host may ask anybody.
    #[test]
    fn disc_7050_3_01_this_host_is_not_asked() {
        let text = "nameserver 127.0.0.53\nnameserver ::1\nnameserver 0.0.0.0\nnameserver ::\n\
                    nameserver ::ffff:127.0.0.1\nnameserver 127.0.0.1\nnameserver ff02::1\n";
        assert_eq!(known(text, true), (vec![], vec![]));
    }

    /// What has no link is not everybody's.
    #[test]
    fn disc_7050_3_01_a_server_belongs_to_one_link() {
        let text = "nameserver fe80::1%eth0\nnameserver fe80::2%eth1\nnameserver fe80::3%3\n\
                    nameserver 192.0.2.1%eth0\nnameserver 2001:db8::53\nnameserver fe80::4";
        let (of_link, of_host) = known(text, false);
        assert_eq!(of_link, ["fe80::1", "fe80::3"]);
        assert!(of_host.is_empty());
        assert_eq!(known(text, true).1, ["2001:db8::53", "fe80::4"]);
    }

    #[test]
    fn there_is_a_limit() {
        let text: String = (1..100)
            .map(|n| format!("nameserver 192.0.2.{n}\n"))
            .collect();
        assert_eq!(known(&text, true).1.len(), MAX_SERVERS);
    }
}
