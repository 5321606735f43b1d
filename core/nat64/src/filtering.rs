//! Which servers reach a client's port that is bound (RFC 6146 §3.5, RFC 4787 §5).

use core::net::Ipv4Addr;

use hashbrown::HashMap;
use xlat::key::Key;

use crate::{bib::BibId, tuple::Protocol};

/// Whom a bound port is open to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Filtering {
    /// Every server, while the client has a session with any. What peer-to-peer programs need, and
    /// what RFC 4787 REQ-8 and RFC 6888 REQ-7 recommend.
    #[default]
    EndpointIndependent,
    /// Servers with an address that the client has a session with, whatever their port.
    AddressDependent,
}

/// Filtering by protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilteringPolicy {
    /// Of TCP connections.
    pub tcp: Filtering,
    /// Of UDP.
    pub udp: Filtering,
    /// Of echo.
    pub icmp: Filtering,
    /// Whether a server is told by an ICMPv4 error that its UDP or echo packet reached nobody, which
    /// RFC 6146 leaves open. Default: no, it would tell a scanner which ports are bound.
    pub answer: bool,
}

impl FilteringPolicy {
    /// That of a protocol.
    #[must_use]
    pub fn of(&self, protocol: Protocol) -> Filtering {
        match protocol {
            Protocol::Tcp => self.tcp,
            Protocol::Udp => self.udp,
            Protocol::Icmp => self.icmp,
        }
    }
}

/// With which addresses bindings have sessions. Kept only for what is filtered by address.
#[derive(Debug)]
pub(crate) struct Peers {
    policy: FilteringPolicy,
    sessions: HashMap<(BibId, Ipv4Addr), u32, Key>,
}

impl Peers {
    pub(crate) fn new(policy: FilteringPolicy, key: Key) -> Self {
        Self {
            policy,
            sessions: HashMap::with_hasher(key),
        }
    }

    /// Whether they are kept for this policy.
    pub(crate) fn is_by(&self, policy: FilteringPolicy) -> bool {
        self.policy == policy
    }

    /// A session of this binding was made.
    pub(crate) fn opened(&mut self, protocol: Protocol, bib: BibId, remote: Ipv4Addr) {
        if self.policy.of(protocol) == Filtering::AddressDependent {
            *self.sessions.entry((bib, remote)).or_insert(0) += 1;
        }
    }

    /// One ended.
    pub(crate) fn closed(&mut self, protocol: Protocol, bib: BibId, remote: Ipv4Addr) {
        if self.policy.of(protocol) == Filtering::EndpointIndependent {
            return;
        }
        if let Some(count) = self.sessions.get_mut(&(bib, remote)) {
            *count -= 1;
            if *count == 0 {
                self.sessions.remove(&(bib, remote));
            }
        }
    }

    /// Whether a packet of `remote` that belongs to no session reaches the client.
    pub(crate) fn may_enter(&self, protocol: Protocol, bib: BibId, remote: Ipv4Addr) -> bool {
        match self.policy.of(protocol) {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => self.sessions.contains_key(&(bib, remote)),
        }
    }

    /// Whether a connection may be opened from outside.
    pub(crate) fn may_open_tcp(&self) -> bool {
        self.policy.tcp == Filtering::EndpointIndependent
    }
}
