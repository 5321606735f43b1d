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
    session::{Session, State, Tick},
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
            && self
                .client
                .is_none_or(|(network, len)| lies_in(inside.address, network, len))
    }
}

/// Whether the first `len` bits of both are the same.
fn lies_in(address: Ipv6Addr, network: Ipv6Addr, len: u8) -> bool {
    let shift = 128 - u32::from(len.min(128));
    let differ = address.to_bits() ^ network.to_bits();
    differ.checked_shr(shift).unwrap_or(0) == 0
}

impl Engine {
    /// The sessions there are at `now`, in no order.
    pub fn sessions(&self, now: Instant) -> impl Iterator<Item = SessionView> {
        let now = self.tick(now);
        self.tables
            .sessions()
            .map(move |(binding, session)| SessionView {
                protocol: binding.protocol,
                inside: binding.inside,
                outside: binding.outside,
                remote: session.remote,
                prefix: self.prefix(session.prefix),
                state: session.state,
                expires_in: ahead(session.expires, now),
            })
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

pub(crate) fn ahead(expires: Tick, now: Tick) -> Duration {
    Duration::from_secs(expires.saturating_sub(now).into())
}

impl Tables {
    pub(crate) fn sessions(&self) -> impl Iterator<Item = (&Binding, &Session)> {
        let all = self.sessions.iter();
        all.map(|(_, session)| (self.bib.get(session.bib), session))
    }

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
