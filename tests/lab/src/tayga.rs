//! Debian's tayga, a stateless translator in user space, as a peer: for tests at the other end of
//! ours, for benchmarks beside it.

use std::{fs, io, path::Path};

use crate::{
    namespace::Namespace,
    process::{Daemon, command},
};

/// What tayga is told.
#[derive(Clone, Debug)]
pub struct Tayga<'a> {
    /// Its interface.
    pub interface: &'a str,
    /// Its own addresses, for ICMP errors.
    pub own: (&'a str, &'a str),
    /// The NAT64 prefix.
    pub prefix: &'a str,
    /// Explicit mappings of IPv4 to IPv6 addresses.
    pub maps: &'a [(&'a str, &'a str)],
}

impl Tayga<'_> {
    fn config(&self) -> String {
        let Self {
            interface,
            own: (ipv4, ipv6),
            prefix,
            maps,
        } = self;
        let mut text = format!(
            "tun-device {interface}\nipv4-addr {ipv4}\nipv6-addr {ipv6}\nprefix {prefix}\n"
        );
        for (v4, v6) in *maps {
            text += &format!("map {v4} {v6}\n");
        }
        text
    }

    /// Makes the interface, sets it up, and starts tayga in a namespace. Its configuration is
    /// written to `directory`. Addresses and routes are the caller's.
    ///
    /// # Errors
    /// The system's.
    pub fn start(&self, namespace: &Namespace, directory: &Path) -> io::Result<Daemon> {
        let file = directory.join(format!("tayga-{}.conf", namespace.name()));
        fs::write(&file, self.config())?;
        namespace.must(&format!("tayga --mktun --config {}", file.display()));
        namespace.set(
            &format!("net/ipv6/conf/{}/addr_gen_mode", self.interface),
            "1",
        );
        namespace.link_up(self.interface);
        let mut tayga = command("tayga");
        tayga.args(["--nodetach", "--config"]).arg(file);
        Daemon::start(namespace, "tayga", tayga)
    }
}
