//! Step 2: find or make the binding and the session of a packet (RFC 6146 §3.5).
//!
//! Mapping is endpoint-independent. So is filtering, unless configured otherwise ([`filtering`]
//! says by what).
//!
//! [`filtering`]: crate::filtering

use core::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use xlat::key::Key;

use crate::{
    bib::{Bib, BibId, Binding},
    config::{Config, TcpPolicy, Timers},
    dispatch::Part,
    filtering::Peers,
    hold_down::HoldDown,
    journal::{Change, Ending, Journal, Refusal, SessionRecord},
    keepalive::Probes,
    pool::Pool,
    random::Random,
    reason::DropReason,
    sequence::Header,
    session::{Due, Session, SessionId, Sessions, State, Tick, session_end},
    stats::TableStats,
    stored_syns::{self, StoredSyns},
    subscriber::{Quotas, Subscribers, Wish},
    tcp::{Lifetime, Segment, Side, TcpState},
    tuple::{Endpoint4, Endpoint6, Protocol},
};

/// Sessions that are ended, and ports that are freed, before packets get their turn again: about a
/// millisecond. A batch of packets makes fewer, so that nothing piles up.
const AT_ONCE: usize = 256;

/// The ends of a session, as translation needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) protocol: Protocol,
    /// X',x.
    pub(crate) inside: Endpoint6,
    /// T,t.
    pub(crate) outside: Endpoint4,
    /// Z,z.
    pub(crate) remote: Endpoint4,
    /// Which of the configured prefixes the client sees the server under.
    pub(crate) prefix: u8,
}

/// By what a server reaches a client.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entry {
    /// A session.
    Session(SessionId),
    /// A binding that is open to it, without a session with this end of a server.
    Binding(BibId, Endpoint4),
}

/// The one address of the pool that a client has (RFC 4787 REQ-2).
#[derive(Clone, Copy, Debug)]
struct Client {
    address: Ipv4Addr,
    bindings: u32,
}

/// All state about clients.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) key: Key,
    pub(crate) random: Random,
    pub(crate) bib: Bib,
    pub(crate) sessions: Sessions,
    pub(crate) pool: Pool,
    clients: HashMap<Ipv6Addr, Client, Key>,
    peers: Peers,
    pub(crate) syns: StoredSyns,
    /// Clients to ask whether they still have a connection.
    pub(crate) probes: Probes,
    tcp: TcpPolicy,
    pub(crate) subscribers: Subscribers,
    pub(crate) hold_down: HoldDown,
    timers: Lifetimes,
    epoch: Instant,
    pub(crate) journal: Journal,
    pub(crate) stats: TableStats,
}

/// [`Timers`] in ticks.
#[derive(Clone, Copy, Debug)]
struct Lifetimes {
    udp: Tick,
    icmp: Tick,
    established: Tick,
    transitory: Tick,
    incoming_syn: Tick,
}

impl Lifetimes {
    fn new(timers: &Timers) -> Self {
        // Rounded up, and one more: the tick that is running does not count.
        let ticks = |time: Duration| {
            let part = u64::from(time.subsec_nanos() != 0);
            let seconds = time.as_secs().saturating_add(part);
            Tick::try_from(seconds)
                .unwrap_or(Tick::MAX / 2)
                .saturating_add(1)
        };
        Self {
            udp: ticks(timers.udp),
            icmp: ticks(timers.icmp),
            established: ticks(timers.tcp_established),
            transitory: ticks(timers.tcp_transitory),
            incoming_syn: ticks(timers.tcp_incoming_syn),
        }
    }
}

/// How long a port rests, in ticks: the one that is running does not count.
fn rest(timers: &Timers) -> Tick {
    let seconds = timers.hold_down.as_secs();
    let running = u64::from(seconds > 0);
    Tick::try_from(seconds + running).unwrap_or(Tick::MAX / 2)
}

/// A shard's part of the pool.
pub(crate) fn new_pool(config: &Config, part: &Part, key: Key) -> Pool {
    let owned = |port| part.owns(port);
    let plan = part.dispatch.plan();
    Pool::of_ports(&config.pool, owned).in_blocks(plan, owned, key, rest(&config.timers))
}

/// What a shard grants. With blocks, all of a subscriber is in one shard.
fn quotas(config: &Config, part: &Part) -> Quotas {
    let whole = part.dispatch.plan().is_on();
    let quotas = config.quotas.clone();
    quotas.part(|n| if whole { n } else { part.of(n) })
}

impl Tables {
    /// Empty tables for a shard, of which tick 0 is at `epoch`.
    pub(crate) fn new(config: &Config, part: &Part, key: Key, epoch: Instant) -> Self {
        let stats = TableStats::default();
        Self {
            random: Random::new(key, part.shard.number()),
            bib: Bib::new(key, part.of(config.limits.bindings)),
            sessions: Sessions::new(key, part.of(config.limits.sessions)),
            pool: new_pool(config, part, key),
            clients: HashMap::with_hasher(key),
            peers: Peers::new(config.filtering, key),
            syns: StoredSyns::new(key, stored_syns::Capacity::new(&config.limits, part)),
            probes: Probes::default(),
            tcp: config.tcp,
            hold_down: HoldDown::new(rest(&config.timers)),
            subscribers: Subscribers::new(quotas(config, part), key),
            timers: Lifetimes::new(&config.timers),
            epoch,
            journal: Journal::new(std::sync::Arc::clone(&stats.changes_lost)),
            stats,
            key,
        }
    }

    /// Policy, lifetimes and limits for what comes from now on.
    pub(crate) fn set_policy(&mut self, config: &Config, part: &Part) {
        self.bib.set_limit(part.of(config.limits.bindings));
        self.sessions.set_limit(part.of(config.limits.sessions));
        self.subscribers.set_quotas(quotas(config, part));
        self.pool.set_rest(rest(&config.timers));
        self.hold_down.set_rest(rest(&config.timers));
        self.syns.capacity = stored_syns::Capacity::new(&config.limits, part);
        self.tcp = config.tcp;
        self.timers = Lifetimes::new(&config.timers);
        // They name prefixes by their old numbers.
        self.probes = Probes::default();
        if self.peers.is_by(config.filtering) {
            return;
        }
        self.peers = Peers::new(config.filtering, self.key);
        for (_, session) in self.sessions.iter() {
            self.peers.opened(&session.peer());
        }
    }

    /// The bindings of every client are `bound`; its address of the pool is one of theirs.
    pub(crate) fn pair_anew(&mut self, bound: &[Binding]) {
        let pool = &self.pool;
        self.clients.retain(|_, it| pool.contains(it.address));
        for client in self.clients.values_mut() {
            client.bindings = 0;
        }
        for binding in bound {
            let client = self.clients.entry(binding.inside.address);
            client
                .or_insert(Client {
                    address: binding.outside.address,
                    bindings: 0,
                })
                .bindings += 1;
        }
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn bindings(&self) -> impl Iterator<Item = &Binding> {
        self.bib.iter()
    }

    /// What changes in them.
    pub(crate) fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// A packet was refused: if for want of room, that is told.
    pub(crate) fn refused(&mut self, refusal: Refusal, now: Tick) {
        if refusal.why.is_shortage() {
            if let Some(inside) = refusal.inside {
                self.subscribers.refuse(inside.address, refusal.why, now);
            }
            self.journal.record(Change::Refused(refusal));
        }
    }

    pub(crate) fn len(&self) -> (usize, usize) {
        (self.bib.len(), self.sessions.len())
    }

    /// A packet of a client: from `inside` to `remote`, which it sees under prefix number `prefix`.
    pub(crate) fn outbound(
        &mut self,
        protocol: Protocol,
        inside: Endpoint6,
        remote: Endpoint4,
        prefix: u8,
        segment: Option<Header>,
        now: Tick,
    ) -> Result<Flow, DropReason> {
        let remote = session_end(protocol, remote);
        if let Some(id) = self.sessions.of_inside(protocol, inside, remote)
            && self.goes_on(id, now)
        {
            self.show_under(id, prefix);
            self.update(id, Side::V6, segment, now);
            return Ok(self.flow(id));
        }
        let known = self.bib.of_inside(protocol, inside);
        if protocol == Protocol::Tcp && !opens(segment) {
            // No connection, but perhaps a binding: then it passes and leaves no state.
            let bib = known.ok_or(DropReason::NotSyn)?;
            return Ok(self.stateless_flow(bib, remote, prefix));
        }
        let wish = Wish {
            protocol,
            inside: inside.address,
            side: Side::V6,
            binding: known.is_none(),
        };
        self.subscribers.check(&wish)?;
        self.sessions.check_room(Side::V6)?;
        let bib = match known {
            Some(bib) => {
                self.set_binding_prefix(bib, prefix);
                bib
            }
            None => self.bind(protocol, inside, prefix)?,
        };
        // A server's SYN may have come before the client's (RFC 6146 §3.5.2.2).
        let outside = self.bib.get(bib).outside;
        let met = (protocol == Protocol::Tcp)
            .then(|| self.syns.take(outside, remote, now))
            .flatten();
        let state = match protocol {
            Protocol::Udp => State::Udp,
            Protocol::Icmp => State::Icmp,
            Protocol::Tcp if met.is_some() => State::Tcp(TcpState::Established),
            Protocol::Tcp => State::Tcp(TcpState::V6Init),
        };
        let id = self.open(bib, remote, prefix, state, (Side::V6, segment), now);
        if let Some(syn) = met {
            self.stats.syns_met.add(1);
            self.sessions.sequence_mut(id).follow(Side::V4, &syn);
        }
        Ok(self.flow(id))
    }

    /// Keeps a server's SYN that [`Self::inbound`] refused, for a while.
    ///
    /// # Errors
    /// There is no room, or it is kept already.
    pub(crate) fn store_syn(
        &mut self,
        outside: Endpoint4,
        remote: Endpoint4,
        packet: (Header, &[u8]),
        now: Tick,
    ) -> Result<(), DropReason> {
        let expires = now + self.timers.incoming_syn;
        self.syns.store(outside, remote, packet, expires)?;
        self.stats.syns_stored.add(1);
        Ok(())
    }

    /// By what a packet of a server, from `remote` to `outside`, reaches a client. The client sees a
    /// new server under the prefix it made its binding with, if the server's address is `writable`
    /// under that. A client that is not `admitted` any more gets nothing.
    ///
    /// Nothing is made or refreshed yet, and whoever may not enter learns nothing.
    pub(crate) fn entry(
        &mut self,
        protocol: Protocol,
        outside: Endpoint4,
        remote: Endpoint4,
        (admitted, writable): (impl Fn(Ipv6Addr) -> bool, impl Fn(u8) -> bool),
        segment: Option<Header>,
        now: Tick,
    ) -> Result<Entry, DropReason> {
        let remote = session_end(protocol, remote);
        if let Some(id) = self.sessions.of_outside(protocol, outside, remote) {
            if !admitted(self.sessions.get(id).inside.address) {
                return Err(DropReason::ClientRefused);
            }
            if self.goes_on(id, now) {
                return Ok(Entry::Session(id));
            }
        }
        let bib = self
            .bib
            .of_outside(protocol, outside)
            .ok_or(DropReason::NoBinding)?;
        let binding = self.bib.get(bib);
        if !admitted(binding.inside.address) {
            return Err(DropReason::ClientRefused);
        }
        if !writable(binding.prefix) {
            return Err(DropReason::NonGlobalUnderWellKnownPrefix);
        }
        let is_let_in = self
            .peers
            .may_enter((bib, binding), remote.address, opens(segment));
        if !is_let_in {
            return Err(DropReason::Filtered);
        }
        Ok(Entry::Binding(bib, remote))
    }

    /// A packet of a server enters. That of a session refreshes it, others may begin one.
    pub(crate) fn inbound(
        &mut self,
        entry: Entry,
        segment: Option<Header>,
        now: Tick,
    ) -> Result<Flow, DropReason> {
        let (bib, remote) = match entry {
            Entry::Session(id) => {
                self.update(id, Side::V4, segment, now);
                return Ok(self.flow(id));
            }
            Entry::Binding(bib, remote) => (bib, remote),
        };
        let Binding {
            protocol,
            inside,
            prefix,
            ..
        } = *self.bib.get(bib);
        if protocol == Protocol::Tcp && !opens(segment) {
            return Ok(self.stateless_flow(bib, remote, prefix));
        }
        let wish = Wish {
            protocol,
            inside: inside.address,
            side: Side::V4,
            binding: false,
        };
        self.subscribers.check(&wish)?;
        self.sessions.check_room(Side::V4)?;
        let state = match protocol {
            Protocol::Udp => State::Udp,
            Protocol::Icmp => State::Icmp,
            Protocol::Tcp => State::Tcp(TcpState::V4Init),
        };
        let id = self.open(bib, remote, prefix, state, (Side::V4, segment), now);
        Ok(self.flow(id))
    }

    /// The session that a client's packet belongs to, for an ICMP error: looked up, and neither
    /// made nor refreshed (RFC 5508 REQ-6).
    pub(crate) fn peek_inside(
        &self,
        protocol: Protocol,
        inside: Endpoint6,
        remote: Endpoint4,
    ) -> Option<Flow> {
        let remote = session_end(protocol, remote);
        let id = self.sessions.of_inside(protocol, inside, remote)?;
        Some(self.flow(id))
    }

    /// See [`crate::Engine::look_up`].
    pub(crate) fn look_up(&self, ends: &[(Protocol, Endpoint6, Endpoint4)]) -> usize {
        self.sessions.count_of(ends)
    }

    /// Whether a client has this port.
    pub(crate) fn is_bound(&self, protocol: Protocol, outside: Endpoint4) -> bool {
        self.bib.of_outside(protocol, outside).is_some()
    }

    /// The session that a translated packet belongs to, for an ICMP error.
    pub(crate) fn peek_outside(
        &self,
        protocol: Protocol,
        outside: Endpoint4,
        remote: Endpoint4,
    ) -> Option<Flow> {
        let remote = session_end(protocol, remote);
        let id = self.sessions.of_outside(protocol, outside, remote)?;
        Some(self.flow(id))
    }

    /// Ends what is over at `now`, or, of very much, a part: packets need not wait for the rest,
    /// which the next calls end. Until then a session that is over is none ([`Self::goes_on`]).
    pub(crate) fn expire(&mut self, now: Tick) {
        for _ in 0..AT_ONCE {
            let Some((protocol, port)) = self.hold_down.next_rested(now) else {
                break;
            };
            // It may have left the pool, got a static binding, and come back.
            if !self.is_bound(protocol, port) {
                self.pool.release(protocol, port);
            }
        }
        for _ in 0..AT_ONCE {
            let Some(block) = self.pool.next_given(now) else {
                break;
            };
            self.journal.record(Change::BlockGiven(block));
        }
        for _ in 0..AT_ONCE {
            match self.sessions.next_at(now) {
                None => break,
                Some(Due::Over(id)) => {
                    self.over(id, now);
                }
                Some(Due::Later(id)) => self.record(id, Change::SessionChanged),
            }
        }
    }

    /// A session's lifetime ran out. Whether it goes on with another one.
    fn over(&mut self, id: SessionId, now: Tick) -> bool {
        let after = match self.sessions.get(id).state {
            State::Tcp(state) => state.after_expiry(),
            State::Udp | State::Icmp => None,
        };
        match after {
            Some(state) => {
                self.sessions.set_state(id, State::Tcp(state));
                self.sessions.set_expiry(id, now + self.timers.transitory);
                self.record(id, Change::SessionChanged);
                self.probe(id);
            }
            None => self.close(id, Ending::Expired),
        }
        after.is_some()
    }

    /// Whether a session is there any more. One that is over ends now, and its binding may end with
    /// it: while much is over at once, nobody brings it back to life.
    fn goes_on(&mut self, id: SessionId, now: Tick) -> bool {
        self.sessions.get(id).expires > now || self.over(id, now)
    }

    /// Ends the session between these, if there is one.
    pub(crate) fn end_session(
        &mut self,
        protocol: Protocol,
        outside: Endpoint4,
        remote: Endpoint4,
    ) {
        if let Some(id) = self.sessions.of_outside(protocol, outside, remote) {
            self.close(id, Ending::Flushed);
        }
    }

    /// When something is over, or something has to be sent.
    pub(crate) fn next_due(&self) -> Option<Tick> {
        let due = [
            self.sessions.next_due(),
            self.syns.next_expiry(),
            self.pool.next_due(),
            self.hold_down.next_due(),
        ];
        due.into_iter().flatten().min()
    }

    /// The client of a connection that was idle too long is asked whether it still has it.
    fn probe(&mut self, id: SessionId) {
        if self.tcp.probe && !self.probes.add(self.flow(id)) {
            self.stats.probes_lost.add(1);
        }
    }

    fn bind(
        &mut self,
        protocol: Protocol,
        inside: Endpoint6,
        prefix: u8,
    ) -> Result<BibId, DropReason> {
        if self.bib.is_full() {
            return Err(DropReason::TooManyBindings);
        }
        let client = self.clients.get(&inside.address);
        let paired = client.map(|client| client.address);
        let hash = self.key.hash(&[&inside.address.octets()]);
        let random = &mut self.random;
        let outside = if self.pool.has_blocks() {
            let taken = self
                .pool
                .allocate_in_blocks(protocol, inside, paired, hash, random);
            let (outside, block) = taken?;
            if let Some(block) = block {
                self.journal.record(Change::BlockTaken(block));
            }
            outside
        } else {
            let taken = self
                .pool
                .allocate(protocol, inside.id, paired, hash, random);
            // A client with an address stays on it.
            taken.ok_or(match paired {
                Some(_) => DropReason::PortsExhausted,
                None => DropReason::PoolExhausted,
            })?
        };
        Ok(self.bound(protocol, inside, outside, prefix, false))
    }

    /// Adds a binding whose port was taken from the pool.
    pub(crate) fn bound(
        &mut self,
        protocol: Protocol,
        inside: Endpoint6,
        outside: Endpoint4,
        prefix: u8,
        is_static: bool,
    ) -> BibId {
        let client = self.clients.entry(inside.address).or_insert(Client {
            address: outside.address,
            bindings: 0,
        });
        client.bindings += 1;
        self.subscribers.bound(protocol, inside.address);
        self.stats.bindings_made[protocol.index()].add(1);
        let bib = self.bib.insert(protocol, inside, outside, prefix);
        let binding = self.bib.get_mut(bib);
        binding.is_static = is_static;
        self.journal.record(Change::BindingMade(*binding));
        bib
    }

    pub(crate) fn unbind(&mut self, bib: BibId) {
        let binding = self.bib.remove(bib);
        // With blocks it is the block that rests.
        let rests =
            !self.pool.has_blocks() && self.hold_down.keep(binding.protocol, binding.outside);
        if !rests {
            self.pool.release(binding.protocol, binding.outside);
        }
        let address = binding.inside.address;
        self.subscribers.unbound(binding.protocol, address);
        if let Some(client) = self.clients.get_mut(&binding.inside.address) {
            client.bindings -= 1;
            if client.bindings == 0 {
                self.clients.remove(&binding.inside.address);
            }
        }
        self.stats.bindings_ended[binding.protocol.index()].add(1);
        self.journal.record(Change::BindingEnded(binding));
    }

    /// Adds a session that a packet from `side` begins.
    fn open(
        &mut self,
        bib: BibId,
        remote: Endpoint4,
        prefix: u8,
        state: State,
        (side, segment): (Side, Option<Header>),
        now: Tick,
    ) -> SessionId {
        let lifetime = match state {
            State::Udp => self.timers.udp,
            State::Icmp => self.timers.icmp,
            State::Tcp(TcpState::Established) => self.timers.established,
            State::Tcp(_) => self.timers.transitory,
        };
        let binding = self.bib.get(bib);
        let ends = (binding.inside, binding.outside);
        let id = self
            .sessions
            .insert(bib, ends, remote, prefix, (side, state), now + lifetime);
        if let Some(header) = segment {
            self.sessions.sequence_mut(id).follow(side, &header);
        }
        let binding = self.bib.get_mut(bib);
        binding.sessions += 1;
        self.subscribers.opened(binding.inside.address, side);
        let protocol = state.protocol();
        self.peers.opened(&self.sessions.get(id).peer());
        self.stats.sessions_made[protocol.index()].add(1);
        self.record(id, Change::SessionMade);
        id
    }

    pub(crate) fn close(&mut self, id: SessionId, why: Ending) {
        self.record(id, |session| Change::SessionEnded(session, why));
        let session = self.sessions.remove(id);
        let protocol = session.state.protocol();
        self.peers.closed(&session.peer());
        self.stats.sessions_ended[protocol.index()].add(1);
        let binding = self.bib.get_mut(session.bib);
        binding.sessions -= 1;
        self.subscribers.closed(binding.inside.address);
        if binding.sessions == 0 && !binding.is_static {
            self.unbind(session.bib);
        }
    }

    /// A client that moves to another prefix (its network is renumbered, its CLAT found another)
    /// keeps its ports, and must be answered under the prefix it uses now.
    fn show_under(&mut self, id: SessionId, prefix: u8) {
        let session = self.sessions.get(id);
        if session.prefix != prefix {
            let bib = session.bib;
            self.set_binding_prefix(bib, prefix);
            self.sessions.set_prefix(id, prefix);
            self.record(id, Change::SessionChanged);
        }
    }

    /// The prefix that servers which nobody asked are shown under.
    fn set_binding_prefix(&mut self, bib: BibId, prefix: u8) {
        let binding = self.bib.get_mut(bib);
        if binding.prefix != prefix {
            binding.prefix = prefix;
            self.journal.record(Change::BindingChanged(*binding));
        }
    }

    fn update(&mut self, id: SessionId, side: Side, segment: Option<Header>, now: Tick) {
        let session = self.sessions.get(id);
        let (state, expires) = (session.state, session.expires);
        self.apply(id, state, side, segment, now);
        let session = self.sessions.get(id);
        if side == Side::V6 && session.is_answered_now() {
            self.peers.answered(&session.peer());
            self.sessions.set_answered(id);
        }
        let session = self.sessions.get(id);
        // A later expiry alone is told when the wheel comes to the old one.
        if session.state != state || session.expires < expires {
            self.record(id, Change::SessionChanged);
        }
    }

    fn apply(
        &mut self,
        id: SessionId,
        state: State,
        side: Side,
        segment: Option<Header>,
        now: Tick,
    ) {
        let lifetime = match state {
            State::Udp => self.timers.udp,
            State::Icmp => self.timers.icmp,
            State::Tcp(state) => {
                let Some(segment) = self.believed(id, state, side, segment) else {
                    return;
                };
                let (next, lifetime) = state.after(side, segment);
                // Otherwise it would be idle for as long anew, and asked about again.
                if state == TcpState::Trans && !self.peers.refreshes(side) {
                    return;
                }
                if next != state {
                    self.sessions.set_state(id, State::Tcp(next));
                }
                match lifetime {
                    Lifetime::Keep => return,
                    Lifetime::Established => self.timers.established,
                    Lifetime::Transitory => self.timers.transitory,
                }
            }
        };
        let mut expires = now + lifetime;
        if !self.peers.refreshes(side) {
            expires = expires.min(self.sessions.get(id).expires);
        }
        self.sessions.set_expiry(id, expires);
    }

    /// Tells whoever listens what became of a session.
    pub(crate) fn record(&mut self, id: SessionId, change: impl FnOnce(SessionRecord) -> Change) {
        if !self.journal.is_on() {
            return;
        }
        let record = self.session_record(self.sessions.get(id));
        self.journal.record(change(record));
    }

    fn session_record(&self, session: &Session) -> SessionRecord {
        SessionRecord {
            inside: session.inside,
            outside: session.outside,
            remote: session.remote,
            prefix: session.prefix,
            state: session.state,
            expires: self.epoch + Duration::from_secs(session.expires.into()),
        }
    }

    /// The sessions there are, in no order.
    pub(crate) fn session_records(&self) -> impl Iterator<Item = SessionRecord> {
        self.sessions.iter().map(|(_, it)| self.session_record(it))
    }

    /// What a segment means to the state of its connection; nothing, if it is not believed.
    fn believed(
        &mut self,
        id: SessionId,
        state: TcpState,
        side: Side,
        header: Option<Header>,
    ) -> Option<Segment> {
        let header = header?;
        let sequence = self.sessions.sequence_mut(id);
        let ends = matches!(header.segment, Segment::Rst | Segment::Fin);
        if ends && self.tcp.check_sequence && !sequence.believes(side, &header) {
            self.stats.segments_doubted.add(1);
            return None;
        }
        sequence.follow(side, &header);
        let half_closed = matches!(state, TcpState::V4Fin | TcpState::V6Fin);
        if half_closed && header.segment == Segment::Rst && !self.tcp.reset_after_fin {
            return Some(Segment::Other);
        }
        let closed = state == TcpState::V4V6Fin;
        if closed && header.segment == Segment::Syn && !self.tcp.reopen_after_fin {
            return Some(Segment::Other);
        }
        Some(header.segment)
    }

    fn flow(&self, id: SessionId) -> Flow {
        let session = self.sessions.get(id);
        Flow {
            protocol: session.state.protocol(),
            inside: session.inside,
            outside: session.outside,
            remote: session.remote,
            prefix: session.prefix,
        }
    }

    fn stateless_flow(&self, bib: BibId, remote: Endpoint4, prefix: u8) -> Flow {
        let binding = self.bib.get(bib);
        Flow {
            protocol: binding.protocol,
            inside: binding.inside,
            outside: binding.outside,
            remote,
            prefix,
        }
    }
}

/// Whether a packet opens a TCP connection.
fn opens(segment: Option<Header>) -> bool {
    segment.is_some_and(|it| it.segment == Segment::Syn)
}
