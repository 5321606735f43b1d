//! Which servers reach a client's port that is bound (RFC 6146 §3.5, RFC 4787 §5).

use core::net::Ipv4Addr;

use hashbrown::HashMap;
use xlat::key::Key;

use crate::{
    bib::{BibId, Binding},
    tcp::Side,
    tuple::Protocol,
};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Whether what servers send keeps a session alive, as RFC 6146 §3.5 has it. Default: yes.
    ///
    /// If not (RFC 4787 REQ-6), only a client prolongs its sessions: what a server sends lengthens
    /// no lifetime, and begins nothing with a dynamic binding once its client has no session there
    /// that it began or answered. So nobody outside keeps a port of a client that has gone.
    pub inbound_refresh: bool,
}

impl Default for FilteringPolicy {
    fn default() -> Self {
        Self {
            tcp: Filtering::default(),
            udp: Filtering::default(),
            icmp: Filtering::default(),
            answer: false,
            inbound_refresh: true,
        }
    }
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

/// A session, as filtering sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) protocol: Protocol,
    pub(crate) bib: BibId,
    pub(crate) remote: Ipv4Addr,
    /// Whether the client began or answered it.
    pub(crate) is_clients: bool,
}

/// With whom bindings have sessions: an address, or, where that makes no difference, anybody.
type Whom = (BibId, Option<Ipv4Addr>);

/// How many sessions bindings have, with whom. Kept only where packets are let in by it.
#[derive(Debug)]
pub(crate) struct Peers {
    policy: FilteringPolicy,
    sessions: HashMap<Whom, u32, Key>,
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
        let answer = self.policy.answer;
        self.policy == FilteringPolicy { answer, ..policy }
    }

    /// Whether what a side sends keeps a session alive.
    pub(crate) fn refreshes(&self, side: Side) -> bool {
        side == Side::V6 || self.policy.inbound_refresh
    }

    /// Under what the sessions are counted that let this one in; none, if it needs none.
    fn whom(&self, protocol: Protocol, bib: BibId, remote: Ipv4Addr) -> Option<Whom> {
        match self.policy.of(protocol) {
            Filtering::AddressDependent => Some((bib, Some(remote))),
            Filtering::EndpointIndependent if self.policy.inbound_refresh => None,
            Filtering::EndpointIndependent => Some((bib, None)),
        }
    }

    /// Where this session counts. What a server began alone does not let in more of it, unless
    /// servers may keep a binding alive.
    fn counted(&self, peer: &Peer) -> Option<Whom> {
        let counts = peer.is_clients || self.policy.inbound_refresh;
        let whom = self.whom(peer.protocol, peer.bib, peer.remote);
        whom.filter(|_| counts)
    }

    /// A session was made.
    pub(crate) fn opened(&mut self, peer: &Peer) {
        if let Some(whom) = self.counted(peer) {
            *self.sessions.entry(whom).or_insert(0) += 1;
        }
    }

    /// A client answered a session that counted as its server's.
    pub(crate) fn answered(&mut self, before: &Peer) {
        self.closed(before);
        self.opened(&Peer {
            is_clients: true,
            ..*before
        });
    }

    /// One ended.
    pub(crate) fn closed(&mut self, peer: &Peer) {
        let Some(whom) = self.counted(peer) else {
            return;
        };
        if let Some(count) = self.sessions.get_mut(&whom) {
            *count -= 1;
            if *count == 0 {
                self.sessions.remove(&whom);
            }
        }
    }

    /// Whether a packet of `remote` that belongs to no session reaches the client; one that opens a
    /// TCP connection needs more. Without filtering, a static binding is always open.
    pub(crate) fn may_enter(
        &self,
        (bib, binding): (BibId, &Binding),
        remote: Ipv4Addr,
        opens_tcp: bool,
    ) -> bool {
        let protocol = binding.protocol;
        match self.policy.of(protocol) {
            Filtering::EndpointIndependent if binding.is_static => return true,
            Filtering::AddressDependent if opens_tcp => return false,
            Filtering::EndpointIndependent | Filtering::AddressDependent => {}
        }
        let whom = self.whom(protocol, bib, remote);
        whom.is_none_or(|whom| self.sessions.contains_key(&whom))
    }
}
