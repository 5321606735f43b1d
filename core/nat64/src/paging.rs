//! The tables in pages, so that whoever lists a million sessions never holds up a packet for long,
//! and the use of the pool.
//!
//! A page begins at a place in the table. Sessions do not move while they live: whoever goes on from
//! the place after the last one it was shown sees each session that was there all the time exactly
//! once.

use core::net::Ipv4Addr;
use std::time::{Duration, Instant};

use pref64::Pref64;

use crate::{
    bib::Binding,
    engine::Engine,
    session::{Session, Tick},
    tuple::Protocol,
    view::SessionView,
};

/// How much of one address of the pool is in use for one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// The address.
    pub address: Ipv4Addr,
    /// The protocol.
    pub protocol: Protocol,
    /// How many of its ports (identifiers, for ICMP) are taken, or held back after they were.
    pub used: usize,
    /// How many there are.
    pub ports: usize,
    /// The most that were taken at once since the start. Exact for one shard; the sum over several
    /// is never less than what they had together, and more if they had their most at different
    /// times.
    pub most_used: usize,
}

impl Engine {
    /// The sessions from a place in the table on, each with its place.
    pub fn sessions_from(
        &self,
        place: usize,
        now: Instant,
    ) -> impl Iterator<Item = (usize, SessionView)> {
        let now = self.tick(now);
        self.tables.sessions.from(place).map(move |(at, session)| {
            let binding = self.tables.bib.get(session.bib);
            let view = view(binding, session, self.prefix(session.prefix), now);
            (at, view)
        })
    }

    /// The bindings from a place in the table on, each with its place.
    pub fn bindings_from(&self, place: usize) -> impl Iterator<Item = (usize, &Binding)> {
        self.tables.bib.from(place)
    }

    /// Looks at `places` of the table from `place` on, and ends the sessions there that `wanted` is
    /// true for, and the dynamic bindings that have none then. How many sessions they were, and the
    /// place to go on from, unless that was the end.
    pub fn flush_from(
        &mut self,
        place: usize,
        places: usize,
        now: Instant,
        wanted: impl Fn(&SessionView) -> bool,
    ) -> (usize, Option<usize>) {
        let end = place.saturating_add(places);
        let mut all = self.sessions_from(place, now).peekable();
        let mut ending = Vec::new();
        while let Some((_, session)) = all.next_if(|(at, _)| *at < end) {
            if wanted(&session) {
                ending.push((session.protocol, session.outside, session.remote));
            }
        }
        let next = all.peek().map(|(at, _)| *at);
        drop(all);
        for (protocol, outside, remote) in &ending {
            self.tables.end_session(*protocol, *outside, *remote);
        }
        (ending.len(), next)
    }

    /// The use of every address of the pool, by protocol.
    pub fn pool_use(&self) -> impl Iterator<Item = PoolUse> {
        self.tables.pool().usage()
    }
}

fn view(binding: &Binding, session: &Session, prefix: Pref64, now: Tick) -> SessionView {
    SessionView {
        protocol: binding.protocol,
        inside: binding.inside,
        outside: binding.outside,
        remote: session.remote,
        prefix,
        state: session.state,
        expires_in: Duration::from_secs(session.expires.saturating_sub(now).into()),
    }
}
