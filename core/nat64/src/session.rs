//! The session table (RFC 6146 §3.2) and its timers.
//!
//! A packet only writes the new expiry into its session. The session stays in the slot of the timer
//! wheel where it is; when that slot comes up, a session that is not over moves to where it belongs
//! by then. Only an expiry that comes *nearer* moves a session at once.

use hashbrown::HashTable;
use slab::Slab;
use xlat::key::Key;

use crate::{
    bib::BibId,
    bits::Bits,
    sequence::Sequence,
    tcp::TcpState,
    tuple::{Endpoint4, Protocol},
};

/// Seconds since the engine was made.
pub(crate) type Tick = u32;

/// Slots of the wheel, one second each. A lifetime beyond them is looked at again on the way.
const SLOTS: u32 = 8192;

const NONE: u32 = u32::MAX;

/// A session's place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SessionId(u32);

/// What a session is about, besides its two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// UDP has no states.
    Udp,
    /// Neither have ICMP queries.
    Icmp,
    /// TCP has.
    Tcp(TcpState),
}

impl State {
    /// The protocol of a session in this state.
    #[must_use]
    pub fn protocol(self) -> Protocol {
        match self {
            Self::Udp => Protocol::Udp,
            Self::Icmp => Protocol::Icmp,
            Self::Tcp(_) => Protocol::Tcp,
        }
    }
}

/// A session: the packets between one binding and one server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    pub(crate) bib: BibId,
    /// Z,z: the server. For ICMP queries z is 0.
    pub(crate) remote: Endpoint4,
    /// Which of the configured prefixes the client saw the server under last.
    pub(crate) prefix: u8,
    pub(crate) state: State,
    /// How far a TCP connection has come.
    pub(crate) sequence: Sequence,
    /// When it is over.
    pub(crate) expires: Tick,
    /// When its slot comes up: never after `expires`.
    due: Tick,
    previous: u32,
    next: u32,
}

/// What a session takes: itself in its slab, and its place in the index.
#[cfg(test)]
pub(crate) const BYTES_EACH: usize = size_of::<Option<Session>>() + size_of::<u32>() + 1;

/// What the wheel has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// A session is over. The caller removes it or gives it a new expiry.
    Over(SessionId),
    /// A session was refreshed since it was put here, and is put where it belongs now.
    Later(SessionId),
}

/// The table.
#[derive(Debug)]
pub(crate) struct Sessions {
    key: Key,
    sessions: Slab<Session>,
    index: HashTable<u32>,
    limit: usize,
    /// The first session of every slot.
    wheel: Box<[u32]>,
    /// The slots with any session.
    occupied: Bits,
    /// Everything due before this has been looked at.
    now: Tick,
}

impl Sessions {
    pub(crate) fn new(key: Key, limit: usize) -> Self {
        Self {
            key,
            sessions: Slab::new(),
            index: HashTable::new(),
            limit,
            wheel: vec![NONE; SLOTS as usize].into_boxed_slice(),
            occupied: Bits::new(SLOTS as usize),
            now: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    pub(crate) fn is_full(&self) -> bool {
        self.sessions.len() >= self.limit
    }

    pub(crate) fn get(&self, id: SessionId) -> &Session {
        &self.sessions[id.0 as usize]
    }

    /// Every session, in no order.
    /// The sessions from a place in the table on, each with its place.
    pub(crate) fn from(&self, place: usize) -> impl Iterator<Item = (usize, &Session)> {
        let places = place..self.sessions.capacity();
        places.filter_map(|at| Some((at, self.sessions.get(at)?)))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        let id = |at| SessionId(u32::try_from(at).unwrap_or(NONE));
        self.sessions
            .iter()
            .map(move |(at, session)| (id(at), session))
    }

    pub(crate) fn find(&self, bib: BibId, remote: Endpoint4) -> Option<SessionId> {
        let same = |id: &u32| {
            let session = &self.sessions[*id as usize];
            session.bib == bib && session.remote == remote
        };
        let hash = hash(&self.key, bib, remote);
        self.index.find(hash, same).map(|id| SessionId(*id))
    }

    /// Adds a session. There must be none of these two ends, and the table must not be full.
    pub(crate) fn insert(
        &mut self,
        bib: BibId,
        remote: Endpoint4,
        prefix: u8,
        state: State,
        expires: Tick,
    ) -> SessionId {
        let id = self.sessions.insert(Session {
            bib,
            remote,
            prefix,
            state,
            sequence: Sequence::default(),
            expires,
            due: 0,
            previous: NONE,
            next: NONE,
        });
        let id = u32::try_from(id).unwrap_or(NONE);
        let Self {
            key,
            sessions,
            index,
            ..
        } = self;
        index.insert_unique(hash(key, bib, remote), id, |id| {
            let session = &sessions[*id as usize];
            hash(key, session.bib, session.remote)
        });
        self.link(id);
        SessionId(id)
    }

    pub(crate) fn remove(&mut self, id: SessionId) -> Session {
        self.unlink(id.0);
        let session = self.sessions.remove(id.0 as usize);
        let hash = hash(&self.key, session.bib, session.remote);
        if let Ok(entry) = self.index.find_entry(hash, |it| *it == id.0) {
            entry.remove();
        }
        session
    }

    pub(crate) fn set_state(&mut self, id: SessionId, state: State) {
        self.sessions[id.0 as usize].state = state;
    }

    pub(crate) fn sequence_mut(&mut self, id: SessionId) -> &mut Sequence {
        &mut self.sessions[id.0 as usize].sequence
    }

    pub(crate) fn set_prefix(&mut self, id: SessionId, prefix: u8) {
        self.sessions[id.0 as usize].prefix = prefix;
    }

    pub(crate) fn set_expiry(&mut self, id: SessionId, expires: Tick) {
        let session = &mut self.sessions[id.0 as usize];
        session.expires = expires;
        if expires < session.due {
            self.unlink(id.0);
            self.link(id.0);
        }
    }

    /// The next session that the wheel comes to at `now`, until there is none left.
    pub(crate) fn next_at(&mut self, now: Tick) -> Option<Due> {
        // After a long pause one turn of the wheel sees every session.
        self.now = self.now.max(now.saturating_sub(SLOTS));
        if let Some(due) = self.next_due().filter(|due| *due <= now) {
            self.now = due;
            let first = self.wheel[slot(due)];
            if self.sessions[first as usize].expires <= now {
                return Some(Due::Over(SessionId(first)));
            }
            self.unlink(first);
            self.link(first);
            return Some(Due::Later(SessionId(first)));
        }
        self.now = self.now.max(now);
        None
    }

    /// When the next slot with any session in it comes up.
    pub(crate) fn next_due(&self) -> Option<Tick> {
        let start = slot(self.now);
        let found = self.occupied.first_from(start, 0..SLOTS as usize)?;
        let ahead = (found + SLOTS as usize - start) % SLOTS as usize;
        Some(self.now + Tick::try_from(ahead).unwrap_or(SLOTS))
    }

    /// Puts a session into the slot of its expiry, or into the last slot of this turn.
    fn link(&mut self, id: u32) {
        let expires = self.sessions[id as usize].expires;
        let due = expires.clamp(self.now, self.now + SLOTS - 1);
        let slot = slot(due);
        let next = self.wheel[slot];
        let session = &mut self.sessions[id as usize];
        session.due = due;
        session.previous = NONE;
        session.next = next;
        self.wheel[slot] = id;
        self.occupied.insert(slot);
        if next != NONE {
            self.sessions[next as usize].previous = id;
        }
    }

    fn unlink(&mut self, id: u32) {
        let Session {
            previous,
            next,
            due,
            ..
        } = self.sessions[id as usize];
        if previous == NONE {
            self.wheel[slot(due)] = next;
            if next == NONE {
                self.occupied.remove(slot(due));
            }
        } else {
            self.sessions[previous as usize].next = next;
        }
        if next != NONE {
            self.sessions[next as usize].previous = previous;
        }
    }
}

const fn slot(tick: Tick) -> usize {
    (tick % SLOTS) as usize
}

fn hash(key: &Key, bib: BibId, remote: Endpoint4) -> u64 {
    let mut bytes = [0; 10];
    bytes[..4].copy_from_slice(&bib.to_bytes());
    bytes[4..8].copy_from_slice(&remote.address.octets());
    bytes[8..].copy_from_slice(&remote.id.to_ne_bytes());
    key.hash(&[&bytes])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bib::Bib, tuple::Endpoint6};
    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn remote(id: u16) -> Endpoint4 {
        Endpoint4 {
            address: Ipv4Addr::new(198, 51, 100, 1),
            id,
        }
    }

    fn bib() -> BibId {
        let inside = Endpoint6 {
            address: Ipv6Addr::LOCALHOST,
            id: 1,
        };
        Bib::new(Key::new([3; 16]), 10).insert(Protocol::Udp, inside, remote(1), 0)
    }

    fn sessions() -> Sessions {
        Sessions::new(Key::new([5; 16]), 1000)
    }

    fn expired(sessions: &mut Sessions, now: Tick) -> Vec<u16> {
        let mut all = Vec::new();
        while let Some(due) = sessions.next_at(now) {
            if let Due::Over(id) = due {
                all.push(sessions.remove(id).remote.id);
            }
        }
        all.sort_unstable();
        all
    }

    #[test]
    fn sessions_end_when_they_are_over_and_not_before() {
        let mut sessions = sessions();
        let bib = bib();
        for (id, expires) in [(1, 300), (2, 60), (3, 7200), (4, 20_000)] {
            sessions.insert(bib, remote(id), 0, State::Udp, expires);
        }
        assert_eq!(sessions.next_due(), Some(60));
        assert!(expired(&mut sessions, 59).is_empty());
        assert_eq!(expired(&mut sessions, 60), [2]);
        assert_eq!(expired(&mut sessions, 7199), [1]);
        assert_eq!(expired(&mut sessions, 7200), [3]);
        assert!(expired(&mut sessions, 19_999).is_empty());
        assert_eq!(expired(&mut sessions, 20_000), [4]);
        assert_eq!(sessions.next_due(), None);
    }

    #[test]
    fn a_refreshed_session_lives_on_and_a_shortened_one_ends_early() {
        let mut sessions = sessions();
        let bib = bib();
        let one = sessions.insert(bib, remote(1), 0, State::Udp, 300);
        let two = sessions.insert(bib, remote(2), 0, State::Udp, 7200);
        sessions.set_expiry(one, 500);
        sessions.set_expiry(two, 240);
        assert_eq!(expired(&mut sessions, 240), [2]);
        assert!(expired(&mut sessions, 499).is_empty());
        assert_eq!(expired(&mut sessions, 500), [1]);
    }

    #[test]
    fn a_long_pause_ends_everything_that_is_over() {
        let mut sessions = sessions();
        let bib = bib();
        for id in 1..50 {
            sessions.insert(bib, remote(id), 0, State::Udp, u32::from(id) * 999);
        }
        assert_eq!(expired(&mut sessions, 1_000_000).len(), 49);
        sessions.insert(bib, remote(1), 0, State::Udp, 1_000_300);
        assert!(expired(&mut sessions, 1_000_299).is_empty());
        assert_eq!(expired(&mut sessions, 1_000_300), [1]);
    }

    proptest! {
        /// Against a map: nothing is lost, nothing ends early or late.
        #[test]
        fn equals_a_map(
            steps in proptest::collection::vec((0u8..5, 1u16..20, 1u32..20_000), 1..300),
        ) {
            let mut sessions = sessions();
            let bib = bib();
            let mut model: HashMap<u16, Tick> = HashMap::new();
            let mut now = 0;
            for (what, id, time) in steps {
                let known = sessions.find(bib, remote(id));
                prop_assert_eq!(known.is_some(), model.contains_key(&id));
                match (what, known) {
                    (0 | 1, None) => {
                        sessions.insert(bib, remote(id), 0, State::Udp, now + time);
                        model.insert(id, now + time);
                    }
                    (0 | 1, Some(known)) => {
                        sessions.set_expiry(known, now + time);
                        model.insert(id, now + time);
                    }
                    (2, Some(known)) => {
                        sessions.remove(known);
                        model.remove(&id);
                    }
                    _ => {
                        now += time / 3;
                        let mut over: Vec<_> = model
                            .extract_if(|_, expires| *expires <= now)
                            .map(|(id, _)| id)
                            .collect();
                        over.sort_unstable();
                        prop_assert_eq!(expired(&mut sessions, now), over);
                    }
                }
                prop_assert_eq!(sessions.len(), model.len());
                if let Some(due) = sessions.next_due() {
                    prop_assert!(model.values().all(|expires| due <= *expires));
                }
            }
        }
    }
}
