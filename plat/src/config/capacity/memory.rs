//! Memory that the tables take.

use nat64::config::Limits;

/// Bytes of the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The table of free ports, which has a bit for each. It is always there.
    pub pool: u64,
    /// Bindings.
    pub bindings: u64,
    /// Sessions.
    pub sessions: u64,
    /// SYNs of servers that no client expects.
    pub stored_syns: u64,
    /// Fragments that wait for the rest of their datagram.
    pub fragments: u64,
}

impl Memory {
    /// Of so many bindings and sessions.
    #[must_use]
    pub fn of(pool: u64, bindings: u64, sessions: u64) -> Self {
        Self {
            pool,
            bindings: bindings * Limits::BYTES_PER_BINDING as u64,
            sessions: sessions * Limits::BYTES_PER_SESSION as u64,
            ..Self::default()
        }
    }

    /// All together.
    #[must_use]
    pub fn in_all(&self) -> u64 {
        let Self {
            pool,
            bindings,
            sessions,
            stored_syns,
            fragments,
        } = self;
        pool + bindings + sessions + stored_syns + fragments
    }
}
