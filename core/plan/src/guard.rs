//! A host that forwards for one interface of ours, and for nobody else.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a host that did not forward goes on not forwarding, although it has to for an interface of
/// ours: packets that neither come out of that interface nor go into it.
///
/// What the host forwarded before is not in it, and not touched.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ForwardingGuard {
    /// A name of its own, for the firewall table.
    pub name: String,
    /// The interface for which the host forwards.
    pub interface: String,
    /// The interfaces from which it would not forward IPv4.
    pub ipv4: Vec<String>,
    /// Whether it would not forward IPv6, from any interface.
    pub ipv6: bool,
}

impl fmt::Display for ForwardingGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ipv6 = self.ipv6.then(|| "IPv6".to_owned());
        let ipv4 = (!self.ipv4.is_empty()).then(|| format!("IPv4 from {}", self.ipv4.join(", ")));
        let all: Vec<_> = ipv6.into_iter().chain(ipv4).collect();
        let interface = &self.interface;
        write!(
            f,
            "{} forwarded to and from {interface} only",
            all.join(" and ")
        )
    }
}
