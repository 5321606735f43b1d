//! Step 3: what translation is given (RFC 6146 §3.6).

use core::net::{Ipv4Addr, Ipv6Addr};

use pref64::Pref64;
use xlat::{Mapping, Refusal, Rewrite};

use crate::{filtering_and_updating::Flow, tuple::Protocol};

/// A mapping for a single packet: all answers are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outgoing<To> {
    src: To,
    dst: To,
    rewrite: Rewrite,
    /// Of the quoted packet of an ICMP error.
    inner: Option<(To, To, Rewrite)>,
}

impl<To: Copy> Outgoing<To> {
    /// Where the packet goes.
    pub(crate) fn dst(&self) -> To {
        self.dst
    }
}

impl<From, To: Copy> Mapping<From, To> for Outgoing<To> {
    fn source(&self, _: From) -> Result<To, Refusal> {
        Ok(self.src)
    }

    fn destination(&self, _: From) -> Result<To, Refusal> {
        Ok(self.dst)
    }

    fn inner_source(&self, _: From) -> Result<To, Refusal> {
        self.inner.map(|(src, ..)| src).ok_or(Refusal::NoMapping)
    }

    fn inner_destination(&self, _: From) -> Result<To, Refusal> {
        self.inner.map(|(_, dst, _)| dst).ok_or(Refusal::NoMapping)
    }

    fn rewrite(&self) -> Rewrite {
        self.rewrite
    }

    /// Clients share the addresses of the pool.
    fn keeps_identification(&self) -> bool {
        false
    }

    fn inner_rewrite(&self) -> Rewrite {
        self.inner.map_or(Rewrite::None, |(.., rewrite)| rewrite)
    }
}

/// Ports for TCP and UDP; for ICMP the client's side of the identifier decides.
fn rewrite(protocol: Protocol, src: u16, dst: u16, identifier: u16) -> Rewrite {
    match protocol {
        Protocol::Tcp | Protocol::Udp => Rewrite::Ports { src, dst },
        Protocol::Icmp => Rewrite::Identifier(identifier),
    }
}

/// The client's packet, T,t to Z,z.
pub(crate) fn to_server(flow: &Flow) -> Outgoing<Ipv4Addr> {
    let (outside, remote) = (flow.outside, flow.remote);
    Outgoing {
        src: outside.address,
        dst: remote.address,
        rewrite: rewrite(flow.protocol, outside.id, remote.id, outside.id),
        inner: None,
    }
}

/// The server's packet, Y',z to X',x.
pub(crate) fn to_client(flow: &Flow, prefix: Pref64) -> Outgoing<Ipv6Addr> {
    let (inside, remote) = (flow.inside, flow.remote);
    Outgoing {
        src: prefix.embed(remote.address),
        dst: inside.address,
        rewrite: rewrite(flow.protocol, remote.id, inside.id, inside.id),
        inner: None,
    }
}

/// An ICMPv6 error about a packet of the server, Z,z to T,t. It comes from the client or a router
/// near it, neither of which the server knows under another address than T (RFC 5508 REQ-5).
pub(crate) fn error_to_server(flow: &Flow) -> Outgoing<Ipv4Addr> {
    let (outside, remote) = (flow.outside, flow.remote);
    let inner = rewrite(flow.protocol, remote.id, outside.id, outside.id);
    Outgoing {
        src: outside.address,
        dst: remote.address,
        rewrite: Rewrite::None,
        inner: Some((remote.address, outside.address, inner)),
    }
}

/// An ICMPv4 error about a packet of the client, X',x to Y',z. `from` is the address of the router
/// it comes from, as the client may see it.
pub(crate) fn error_to_client(flow: &Flow, prefix: Pref64, from: Ipv6Addr) -> Outgoing<Ipv6Addr> {
    let (inside, remote) = (flow.inside, flow.remote);
    let inner = rewrite(flow.protocol, inside.id, remote.id, inside.id);
    Outgoing {
        src: from,
        dst: inside.address,
        rewrite: Rewrite::None,
        inner: Some((inside.address, prefix.embed(remote.address), inner)),
    }
}
