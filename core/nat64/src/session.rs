//! The session table (RFC 6146 §3.2) and its timers.
//!
//! A packet only writes the new expiry into its session. The session stays in the slot of the timer
//! wheel where it is; when that slot comes up, a session that is not over moves to where it belongs
//! by then. Only an expiry that comes *nearer* moves a session at once.
//!
//! A packet of a session that is there costs two cache lines: one of the index for its direction,
//! and the session. So a session has all that translation needs, copies of its binding's ends too,
//! and fills one line.

use core::{hint::black_box, ops::Range};

use xlat::key::Key;

use crate::{
    bib::BibId,
    bits::Bits,
    chunks::Chunks,
    filtering::Peer,
    index::Index,
    reason::DropReason,
    sequence::Sequence,
    tcp::{Side, TcpState},
    tuple::{Endpoint4, Endpoint6, Protocol},
};

/// Seconds since the engine was made.
pub(crate) type Tick = u32;

/// Slots of the wheel, one second each. A lifetime beyond them is looked at again on the way.
const SLOTS: u32 = 8192;

const NONE: u32 = u32::MAX;

/// Sessions that are looked up at a time.
const TOGETHER: usize = 64;

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

/// Who began a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// The client.
    Inside,
    /// The server, and the client has not answered.
    Outside,
    /// The server, and the client has answered.
    OutsideAnswered,
}

impl Begun {
    fn by(side: Side) -> Self {
        match side {
            Side::V6 => Self::Inside,
            Side::V4 => Self::Outside,
        }
    }

    /// Whether the client has a part in it.
    pub(crate) fn is_clients(self) -> bool {
        match self {
            Self::Inside | Self::OutsideAnswered => true,
            Self::Outside => false,
        }
    }

    fn is_servers(self) -> bool {
        match self {
            Self::Inside => false,
            Self::Outside | Self::OutsideAnswered => true,
        }
    }
}

/// A session: the packets between one binding and one server.
///
/// With one byte more it would take two lines.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Session {
    pub(crate) bib: BibId,
    /// X',x: the client.
    pub(crate) inside: Endpoint6,
    /// T,t: its address and port from the pool.
    pub(crate) outside: Endpoint4,
    /// Z,z: the server. For ICMP queries z is 0.
    pub(crate) remote: Endpoint4,
    /// Which of the configured prefixes the client saw the server under last.
    pub(crate) prefix: u8,
    pub(crate) state: State,
    pub(crate) begun: Begun,
    /// How far a TCP connection has come.
    pub(crate) sequence: Sequence,
    /// When it is over.
    pub(crate) expires: Tick,
    /// When its slot comes up: never after `expires`.
    due: Tick,
    previous: u32,
    next: u32,
}

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
    sessions: Chunks<Session>,
    by_inside: Index,
    by_outside: Index,
    limit: usize,
    /// How many of them servers began.
    begun_outside: usize,
    /// The first session of every slot.
    wheel: Box<[u32]>,
    /// The slots with any session.
    occupied: Bits,
    /// Everything due before this has been looked at.
    now: Tick,
}

impl Sessions {
    /// An empty table for at most `limit` sessions, and for [`Index::MOST`].
    pub(crate) fn new(key: Key, limit: usize) -> Self {
        Self {
            key,
            sessions: Chunks::new(),
            by_inside: Index::new(),
            by_outside: Index::new(),
            limit,
            begun_outside: 0,
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

    /// Whether there is room for a session that a side begins. Those that servers begin may take
    /// half: otherwise strangers who find open ports could keep every client from its own.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn check_room(&self, side: Side) -> Result<(), DropReason> {
        let limit = self.limit.min(Index::MOST);
        if self.sessions.len() >= limit {
            return Err(DropReason::TooManySessions);
        }
        match side {
            Side::V4 if self.begun_outside >= limit.div_ceil(2) => {
                Err(DropReason::TooManyFromOutside)
            }
            Side::V4 | Side::V6 => Ok(()),
        }
    }

    pub(crate) fn get(&self, id: SessionId) -> &Session {
        &self.sessions[id.0]
    }

    /// The sessions from a place in the table on, each with its place.
    pub(crate) fn from(&self, place: usize) -> impl Iterator<Item = (usize, &Session)> {
        let all = self.sessions.from(place);
        all.map(|(at, session)| (at as usize, session))
    }

    /// Every session, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        let all = self.sessions.from(0);
        all.map(|(at, session)| (SessionId(at), session))
    }

    /// The session of X',x and Z,z.
    pub(crate) fn of_inside(
        &self,
        protocol: Protocol,
        inside: Endpoint6,
        remote: Endpoint4,
    ) -> Option<SessionId> {
        let hash = self.key.hash(&[&inside_key(protocol, inside, remote)]);
        let same = |id| self.sessions[id].is_of_inside(protocol, inside, remote);
        self.by_inside.find(hash, same).map(SessionId)
    }

    /// The session of T,t and Z,z.
    pub(crate) fn of_outside(
        &self,
        protocol: Protocol,
        outside: Endpoint4,
        remote: Endpoint4,
    ) -> Option<SessionId> {
        let hash = self.key.hash(&[&outside_key(protocol, outside, remote)]);
        let same = |id| self.sessions[id].is_of_outside(protocol, outside, remote);
        self.by_outside.find(hash, same).map(SessionId)
    }

    /// How many of these have a session.
    ///
    /// Each step is done for many of them before the next one, and within a step none needs what
    /// another one reads. So a processor, which goes on with what it has while it waits for memory,
    /// waits for many lines of the index at once, and then for many sessions. The steps that wait do
    /// nothing else: the less there is between two reads, the more of them it has before it stops.
    pub(crate) fn count_of(&self, ends: &[(Protocol, Endpoint6, Endpoint4)]) -> usize {
        let counts = ends.chunks(TOGETHER).map(|ends| match ends {
            [(protocol, inside, remote)] => {
                let remote = session_end(*protocol, *remote);
                usize::from(self.of_inside(*protocol, *inside, remote).is_some())
            }
            _ => self.count_together(ends),
        });
        counts.sum()
    }

    /// The same of at most [`TOGETHER`].
    fn count_together(&self, ends: &[(Protocol, Endpoint6, Endpoint4)]) -> usize {
        if self.sessions.len() == 0 {
            return 0;
        }
        let (mut hashes, mut homes) = ([0; TOGETHER], [0; TOGETHER]);
        for (hash, (protocol, inside, remote)) in hashes.iter_mut().zip(ends) {
            let remote = session_end(*protocol, *remote);
            *hash = self.key.hash(&[&inside_key(*protocol, *inside, remote)]);
        }
        let hashes = &hashes[..ends.len()];
        for (home, hash) in homes.iter_mut().zip(hashes) {
            *home = self.by_inside.home(*hash);
        }
        let homes = homes[..ends.len()].iter();
        black_box(homes.fold(0, |all, line| all ^ self.by_inside.touch(*line)));
        let mut guesses = [NONE; TOGETHER];
        for (guess, hash) in guesses.iter_mut().zip(hashes) {
            *guess = self.by_inside.guess(*hash).unwrap_or(NONE);
        }
        let touched = guesses.iter().filter_map(|id| self.sessions.get(*id));
        black_box(touched.fold(0, |all, session| all ^ session.expires));
        let known = ends.iter().zip(guesses);
        let known = known.filter(|((protocol, inside, remote), guess)| {
            let remote = session_end(*protocol, *remote);
            let guessed = self.sessions.get(*guess);
            guessed.is_some_and(|it| {
                it.is_of_inside(*protocol, *inside, remote)
                    || self.of_inside(*protocol, *inside, remote).is_some()
            })
        });
        known.count()
    }

    /// Adds a session of a binding with these ends. There must be none between the same ends, and
    /// the table must not be full.
    pub(crate) fn insert(
        &mut self,
        bib: BibId,
        (inside, outside): (Endpoint6, Endpoint4),
        remote: Endpoint4,
        prefix: u8,
        (side, state): (Side, State),
        expires: Tick,
    ) -> SessionId {
        let session = Session {
            bib,
            inside,
            outside,
            remote,
            prefix,
            state,
            begun: Begun::by(side),
            sequence: Sequence::default(),
            expires,
            due: 0,
            previous: NONE,
            next: NONE,
        };
        self.begun_outside += usize::from(session.begun.is_servers());
        let id = self.sessions.insert(session);
        let Self { key, sessions, .. } = self;
        let of_inside = key.hash(&[&session.inside_key()]);
        let of_outside = key.hash(&[&session.outside_key()]);
        self.by_inside.insert(
            of_inside,
            id,
            |id| sessions[id].inside_key(),
            |bytes| key.hash(&[bytes]),
        );
        self.by_outside.insert(
            of_outside,
            id,
            |id| sessions[id].outside_key(),
            |bytes| key.hash(&[bytes]),
        );
        self.link(id);
        SessionId(id)
    }

    /// Removes a session, which must be there.
    pub(crate) fn remove(&mut self, id: SessionId) -> Session {
        self.unlink(id.0);
        let session = self.sessions[id.0];
        let of_inside = self.key.hash(&[&session.inside_key()]);
        self.by_inside.remove(of_inside, id.0);
        let of_outside = self.key.hash(&[&session.outside_key()]);
        self.by_outside.remove(of_outside, id.0);
        self.sessions.remove(id.0);
        self.begun_outside -= usize::from(session.begun.is_servers());
        session
    }

    /// The addresses of the sessions and their indexes, which stay where they are.
    pub(crate) fn memory(&self) -> impl Iterator<Item = Range<usize>> {
        let indexes = self.by_inside.memory().chain(self.by_outside.memory());
        self.sessions.memory().chain(indexes)
    }

    /// Bytes of the sessions and their indexes.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        let entries = self.len() * Chunks::<Session>::BYTES_EACH;
        entries + self.by_inside.bytes() + self.by_outside.bytes()
    }

    pub(crate) fn set_state(&mut self, id: SessionId, state: State) {
        self.sessions[id.0].state = state;
    }

    /// The client has answered a session that the server began.
    pub(crate) fn set_answered(&mut self, id: SessionId) {
        self.sessions[id.0].begun = Begun::OutsideAnswered;
    }

    pub(crate) fn sequence_mut(&mut self, id: SessionId) -> &mut Sequence {
        &mut self.sessions[id.0].sequence
    }

    pub(crate) fn set_prefix(&mut self, id: SessionId, prefix: u8) {
        self.sessions[id.0].prefix = prefix;
    }

    pub(crate) fn set_expiry(&mut self, id: SessionId, expires: Tick) {
        let session = &mut self.sessions[id.0];
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
            if self.sessions[first].expires <= now {
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
        let expires = self.sessions[id].expires;
        let due = expires.clamp(self.now, self.now + SLOTS - 1);
        let slot = slot(due);
        let next = self.wheel[slot];
        let session = &mut self.sessions[id];
        session.due = due;
        session.previous = NONE;
        session.next = next;
        self.wheel[slot] = id;
        self.occupied.insert(slot);
        if next != NONE {
            self.sessions[next].previous = id;
        }
    }

    fn unlink(&mut self, id: u32) {
        let Session {
            previous,
            next,
            due,
            ..
        } = self.sessions[id];
        if previous == NONE {
            self.wheel[slot(due)] = next;
            if next == NONE {
                self.occupied.remove(slot(due));
            }
        } else {
            self.sessions[previous].next = next;
        }
        if next != NONE {
            self.sessions[next].previous = previous;
        }
    }
}

const fn slot(tick: Tick) -> usize {
    (tick % SLOTS) as usize
}

/// The server's end of a session: for ICMP queries without identifier, which is the client's own.
pub(crate) fn session_end(protocol: Protocol, remote: Endpoint4) -> Endpoint4 {
    match protocol {
        Protocol::Icmp => Endpoint4 { id: 0, ..remote },
        Protocol::Tcp | Protocol::Udp => remote,
    }
}

impl Session {
    /// As filtering sees it.
    pub(crate) fn peer(&self) -> Peer {
        Peer {
            protocol: self.state.protocol(),
            bib: self.bib,
            remote: self.remote.address,
            is_clients: self.begun.is_clients(),
        }
    }

    /// Whether a packet of the client was its first answer. A connection is answered by a SYN: a RST
    /// only says that nobody listens.
    pub(crate) fn is_answered_now(&self) -> bool {
        self.begun == Begun::Outside && self.state != State::Tcp(TcpState::V4Init)
    }

    fn is_of_inside(&self, protocol: Protocol, inside: Endpoint6, remote: Endpoint4) -> bool {
        self.inside == inside && self.remote == remote && self.state.protocol() == protocol
    }

    fn is_of_outside(&self, protocol: Protocol, outside: Endpoint4, remote: Endpoint4) -> bool {
        self.outside == outside && self.remote == remote && self.state.protocol() == protocol
    }

    fn inside_key(&self) -> [u8; 25] {
        inside_key(self.state.protocol(), self.inside, self.remote)
    }

    fn outside_key(&self) -> [u8; 13] {
        outside_key(self.state.protocol(), self.outside, self.remote)
    }
}

/// What a session is known by to its client's packets. Written as it is read by the hash: in eights.
fn inside_key(protocol: Protocol, inside: Endpoint6, remote: Endpoint4) -> [u8; 25] {
    let ids = u64::from(inside.id) << 16 | u64::from(remote.id);
    let rest = ids << 32 | u64::from(remote.address.to_bits());
    let mut bytes = [0; 25];
    bytes[..16].copy_from_slice(&inside.address.octets());
    bytes[16..24].copy_from_slice(&rest.to_ne_bytes());
    bytes[24] = protocol.number();
    bytes
}

/// What it is known by to its server's.
fn outside_key(protocol: Protocol, outside: Endpoint4, remote: Endpoint4) -> [u8; 13] {
    let ids = u64::from(outside.id) << 16 | u64::from(remote.id);
    let first = ids << 32 | u64::from(remote.address.to_bits());
    let mut bytes = [0; 13];
    bytes[..8].copy_from_slice(&first.to_ne_bytes());
    bytes[8..12].copy_from_slice(&outside.address.octets());
    bytes[12] = protocol.number();
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
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

    fn inside() -> Endpoint6 {
        Endpoint6 {
            address: Ipv6Addr::LOCALHOST,
            id: 1,
        }
    }

    fn bib() -> BibId {
        Bib::new(Key::new([3; 16]), 10).insert(Protocol::Udp, inside(), remote(1), 0)
    }

    fn insert(sessions: &mut Sessions, id: u16, expires: Tick) -> SessionId {
        let ends = (inside(), remote(1));
        sessions.insert(bib(), ends, remote(id), 0, (Side::V6, State::Udp), expires)
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
        for (id, expires) in [(1, 300), (2, 60), (3, 7200), (4, 20_000)] {
            insert(&mut sessions, id, expires);
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
        let one = insert(&mut sessions, 1, 300);
        let two = insert(&mut sessions, 2, 7200);
        sessions.set_expiry(one, 500);
        sessions.set_expiry(two, 240);
        assert_eq!(expired(&mut sessions, 240), [2]);
        assert!(expired(&mut sessions, 499).is_empty());
        assert_eq!(expired(&mut sessions, 500), [1]);
    }

    #[test]
    fn a_long_pause_ends_everything_that_is_over() {
        let mut sessions = sessions();
        for id in 1..50 {
            insert(&mut sessions, id, u32::from(id) * 999);
        }
        assert_eq!(expired(&mut sessions, 1_000_000).len(), 49);
        insert(&mut sessions, 1, 1_000_300);
        assert!(expired(&mut sessions, 1_000_299).is_empty());
        assert_eq!(expired(&mut sessions, 1_000_300), [1]);
    }

    /// After a long pause a session is looked at once, not once for every turn of the wheel that
    /// was missed.
    #[test]
    fn plat_5_3_01_a_long_pause_costs_one_turn() {
        let mut sessions = sessions();
        let pause = 100 * SLOTS;
        for id in 1..50 {
            let one = insert(&mut sessions, id, 300 * u32::from(id));
            sessions.set_expiry(one, pause + u32::from(id));
        }
        let looked_at = core::iter::from_fn(|| sessions.next_at(pause));
        let looked_at: Vec<_> = looked_at.take(1000).collect();
        assert!(looked_at.iter().all(|it| matches!(it, Due::Later(_))));
        assert_eq!(looked_at.len(), 49);
        assert_eq!(expired(&mut sessions, pause + 49).len(), 49);
    }

    /// As many as are found one by one: more than are looked up at a time, unknown ones among them,
    /// and those that differ in one end.
    #[test]
    fn many_are_looked_up_at_once() {
        let mut sessions = sessions();
        for id in 1..200 {
            insert(&mut sessions, id, 300);
        }
        let elsewhere = Endpoint6 { id: 2, ..inside() };
        let end = |n: u16| match n % 5 {
            0 => (Protocol::Udp, elsewhere, remote(n)),
            1 => (Protocol::Tcp, inside(), remote(n)),
            _ => (Protocol::Udp, inside(), remote(n)),
        };
        for count in [0, 1, 2, 63, 64, 65, 250] {
            let ends: Vec<_> = (1..=count).map(end).collect();
            let known = |(protocol, inside, remote): &(_, _, _)| {
                sessions.of_inside(*protocol, *inside, *remote).is_some()
            };
            let one_by_one = ends.iter().filter(|it| known(it)).count();
            assert_eq!(sessions.count_of(&ends), one_by_one);
            assert_eq!(
                one_by_one,
                (1..=count).filter(|n| n % 5 > 1 && *n < 200).count()
            );
        }
    }

    /// All of it at any size, indexes included, and not only before they grow: what the limits are
    /// reckoned with.
    #[test]
    fn plat_5_3_01_a_session_with_its_binding_takes_at_most_120_bytes() {
        let key = Key::new([5; 16]);
        let (mut bib, mut sessions) = (Bib::new(key, 1 << 20), Sessions::new(key, 1 << 20));
        for n in 1..150_000u32 {
            let [_, _, high, low] = n.to_be_bytes();
            let id = u16::from_be_bytes([high, low]);
            let address = Ipv6Addr::from(u128::from(n >> 16));
            let inside = Endpoint6 { address, id };
            let address = Ipv4Addr::from(n >> 16);
            let outside = Endpoint4 { address, id };
            let binding = bib.insert(Protocol::Udp, inside, outside, 0);
            let begun = (Side::V6, State::Udp);
            sessions.insert(binding, (inside, outside), remote(53), 0, begun, 300);
            let each = (bib.bytes() + sessions.bytes()) as f64 / f64::from(n);
            let documented = Limits::BYTES_PER_BINDING + Limits::BYTES_PER_SESSION;
            assert_eq!(documented, 120);
            assert!(
                each <= documented as f64 || n < 1000,
                "{n} sessions: {each}"
            );
        }
    }

    proptest! {
        /// Against a map: nothing is lost, nothing ends early or late.
        #[test]
        fn equals_a_map(
            steps in proptest::collection::vec((0u8..5, 1u16..20, 1u32..20_000), 1..300),
        ) {
            let mut sessions = sessions();
                let mut model: HashMap<u16, Tick> = HashMap::new();
            let mut now = 0;
            for (what, id, time) in steps {
                let known = sessions.of_outside(Protocol::Udp, remote(1), remote(id));
                prop_assert_eq!(known.is_some(), model.contains_key(&id));
                match (what, known) {
                    (0 | 1, None) => {
                        insert(&mut sessions, id, now + time);
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
