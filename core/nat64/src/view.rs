//! What people and programs see of the tables, and how they end sessions.
//!
//! All of it walks the whole table, so it is for the control plane and not for packets.

use core::net::Ipv6Addr;
use std::time::{Duration, Instant};

use pref64::Pref64;

use crate::{
    bib::Binding,
    destinations::Network4,
    engine::Engine,
    filtering_and_updating::Tables,
    journal::Ending,
    network6::Network6,
    session::{Session, State},
    tuple::{Endpoint4, Endpoint6, Protocol},
};

/// A session, as it is at one moment (RFC 6146 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// The protocol.
    pub protocol: Protocol,
    /// X',x: the client.
    pub inside: Endpoint6,
    /// T,t: its address and port from the pool.
    pub outside: Endpoint4,
    /// Z,z: the server. For ICMP queries z is 0.
    pub remote: Endpoint4,
    /// The prefix under which the client sees the server.
    pub prefix: Pref64,
    /// What it is about.
    pub state: State,
    /// How long it stays if no packet comes.
    pub expires_in: Duration,
}

/// Which sessions are meant: those to which everything that is given applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this protocol.
    pub protocol: Option<Protocol>,
    /// Of clients in this network: an address and the length of its prefix, at most 128.
    pub client: Option<(Ipv6Addr, u8)>,
    /// Of this port or identifier of the client.
    pub client_port: Option<u16>,
    /// On these addresses of the pool.
    pub pool: Option<Network4>,
    /// On this port of the pool.
    pub pool_port: Option<u16>,
    /// With servers in this network.
    pub server: Option<Network4>,
    /// With this port of a server.
    pub server_port: Option<u16>,
}

impl Filter {
    /// Whether a session of `binding` with `remote` is meant.
    #[must_use]
    pub fn matches(&self, binding: &Binding, remote: Endpoint4) -> bool {
        fn is<T: PartialEq>(wanted: Option<T>, value: T) -> bool {
            wanted.is_none_or(|wanted| wanted == value)
        }
        let (inside, outside) = (binding.inside, binding.outside);
        is(self.protocol, binding.protocol)
            && is(self.client_port, inside.id)
            && is(self.pool_port, outside.id)
            && is(self.server_port, remote.id)
            && self.pool.is_none_or(|it| it.contains(outside.address))
            && self.server.is_none_or(|it| it.contains(remote.address))
            && self.client.is_none_or(|(network, len)| {
                Network6::around(network, len).contains(inside.address)
            })
    }
}

impl Engine {
    /// The sessions there are at `now`, in no order.
    pub fn sessions(&self, now: Instant) -> impl Iterator<Item = SessionView> {
        self.sessions_from(0, now).map(|(_, session)| session)
    }

    /// Ends the sessions that `filter` means, and the dynamic bindings that have none then. How
    /// many sessions they were.
    pub fn flush(&mut self, filter: &Filter) -> usize {
        self.tables
            .end_sessions(Ending::Flushed, |binding, session| {
                filter.matches(binding, session.remote)
            })
    }
}

impl Tables {
    /// Ends the sessions that `over` is true for; how many they were.
    pub(crate) fn end_sessions(
        &mut self,
        why: Ending,
        over: impl Fn(&Binding, &Session) -> bool,
    ) -> usize {
        let all = self.sessions.iter();
        let ending: Vec<_> = all
            .filter(|(_, session)| over(self.bib.get(session.bib), session))
            .map(|(id, _)| id)
            .collect();
        for id in &ending {
            self.close(*id, why);
        }
        ending.len()
    }
}
