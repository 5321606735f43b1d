//! The engine against a slow model of RFC 6146 §3.5 that has lists where the engine has tables, and
//! the checklist's table 7a in its own words. Only which free port is chosen is not foretold.

use super::*;
use crate::{
    config::Limits, filtering::Filtering, session::State, static_bib::StaticBinding, tcp::TcpState,
    view::Filter,
};

const BINDINGS: usize = 7;
const SESSIONS: usize = 12;
/// Of which one source may have an eighth, so one.
const SYNS: usize = 2;

#[derive(Clone, Debug, PartialEq)]
struct Bound {
    protocol: Protocol,
    inside: Endpoint6,
    outside: Endpoint4,
    is_static: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Session {
    protocol: Protocol,
    outside: Endpoint4,
    remote: Endpoint4,
    state: State,
    begun_outside: bool,
    /// The client began or answered it.
    is_clients: bool,
    expires: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Pass,
    Kept,
    Drop,
}

#[derive(Debug)]
struct Model {
    now: u64,
    last_port: u16,
    strict: bool,
    refresh: bool,
    bound: Vec<Bound>,
    sessions: Vec<Session>,
    syns: Vec<(Endpoint4, Endpoint4, u64)>,
    unanswered: u64,
}

/// What a flag byte is to the table.
fn event(flags: u8) -> &'static str {
    match flags {
        flags if flags & RST != 0 => "RST",
        flags if flags & SYN != 0 => "SYN",
        flags if flags & tcp::FIN != 0 => "FIN",
        _ => "data",
    }
}

/// Table 7a: the next state, and the lifetime if it starts again.
fn table(state: TcpState, side: &str, event: &str) -> (TcpState, Option<u64>) {
    use TcpState::{Established, Trans, V4Fin, V4Init, V4V6Fin, V6Fin, V6Init};
    const EST: Option<u64> = Some(7201);
    const TRANS: Option<u64> = Some(241);
    match (state, side, event) {
        (V6Init, "v4", "SYN") | (V4Init, "v6", "SYN") => (Established, EST),
        (V6Init | V4V6Fin, "v6", "SYN") => (V6Init, TRANS),
        (V6Init | V4Init | V4V6Fin, ..) => (state, None),
        (Established, "v4", "FIN") => (V4Fin, None),
        (Established, "v6", "FIN") => (V6Fin, None),
        (V4Fin, "v6", "FIN") | (V6Fin, "v4", "FIN") => (V4V6Fin, TRANS),
        (Established, _, "RST") => (Trans, TRANS),
        (V4Fin | V6Fin, _, "RST") => (state, TRANS),
        (Trans, _, "RST") => (Trans, None),
        (Trans, ..) => (Established, EST),
        (Established | V4Fin | V6Fin, ..) => (state, EST),
    }
}

impl Model {
    fn wait(&mut self, seconds: u64) {
        self.now += seconds;
        let now = self.now;
        for session in self.sessions.iter_mut().filter(|it| it.expires <= now) {
            if session.state == State::Tcp(TcpState::Established) {
                session.state = State::Tcp(TcpState::Trans);
                session.expires = now + 241;
            }
        }
        self.sessions.retain(|it| it.expires > now);
        let before = self.syns.len();
        self.syns.retain(|it| it.2 > now);
        self.unanswered += (before - self.syns.len()) as u64;
        self.sweep();
    }

    /// Dynamic bindings die with their last session.
    fn sweep(&mut self) {
        let sessions = &self.sessions;
        let used = |it: &Bound| {
            let mut all = sessions.iter();
            all.any(|s| (s.protocol, s.outside) == (it.protocol, it.outside))
        };
        self.bound.retain(|it| it.is_static || used(it));
    }

    fn find(
        &mut self,
        protocol: Protocol,
        outside: Endpoint4,
        remote: Endpoint4,
    ) -> Option<&mut Session> {
        let same =
            |it: &&mut Session| (it.protocol, it.outside, it.remote) == (protocol, outside, remote);
        self.sessions.iter_mut().find(same)
    }

    /// A packet of a session that there is.
    fn follow(&mut self, at: (Protocol, Endpoint4, Endpoint4), side: &str, flags: u8) -> bool {
        let (now, prolongs) = (self.now, self.refresh || side == "v6");
        let Some(session) = self.find(at.0, at.1, at.2) else {
            return false;
        };
        let until = match session.state {
            State::Udp => now + 301,
            State::Icmp => now + 61,
            State::Tcp(TcpState::Trans) if !prolongs => session.expires,
            State::Tcp(state) => {
                let (next, lifetime) = table(state, side, event(flags));
                session.state = State::Tcp(next);
                lifetime.map_or(session.expires, |it| now + it)
            }
        };
        if prolongs || until < session.expires {
            session.expires = until;
        }
        session.is_clients |= side == "v6" && session.state != State::Tcp(TcpState::V4Init);
        true
    }

    fn open(
        &mut self,
        at: (Protocol, Endpoint4, Endpoint4),
        begun_outside: bool,
        state: State,
        lifetime: u64,
    ) {
        let (protocol, outside, remote) = at;
        self.sessions.push(Session {
            protocol,
            outside,
            remote,
            state,
            begun_outside,
            is_clients: !begun_outside,
            expires: self.now + lifetime,
        });
    }

    /// `chosen` is the port that the engine chose, should this need one.
    fn outbound(
        &mut self,
        (protocol, inside, remote, flags): (Protocol, Endpoint6, Endpoint4, u8),
        chosen: Option<Endpoint4>,
    ) -> Option<Endpoint4> {
        let known = self
            .bound
            .iter()
            .find(|it| (it.protocol, it.inside) == (protocol, inside));
        let known = known.map(|it| it.outside);
        if let Some(outside) = known
            && self.follow((protocol, outside, remote), "v6", flags)
        {
            return known;
        }
        let opens = event(flags) == "SYN";
        if protocol == Protocol::Tcp && !opens {
            return known;
        }
        if self.sessions.len() >= SESSIONS {
            return None;
        }
        let outside = match known {
            Some(outside) => outside,
            None => self.bind(protocol, inside, chosen)?,
        };
        let stored = self
            .syns
            .iter()
            .position(|it| (it.0, it.1) == (outside, remote));
        let (state, lifetime) = match protocol {
            Protocol::Udp => (State::Udp, 301),
            Protocol::Icmp => (State::Icmp, 61),
            Protocol::Tcp if stored.is_some() => {
                self.syns.remove(stored.unwrap());
                (State::Tcp(TcpState::Established), 7201)
            }
            Protocol::Tcp => (State::Tcp(TcpState::V6Init), 241),
        };
        self.open((protocol, outside, remote), false, state, lifetime);
        Some(outside)
    }

    fn bind(
        &mut self,
        protocol: Protocol,
        inside: Endpoint6,
        chosen: Option<Endpoint4>,
    ) -> Option<Endpoint4> {
        let mut used = self.bound.iter().filter(|it| it.protocol == protocol);
        let free = (2000..=self.last_port).any(|id| !used.clone().any(|it| it.outside.id == id));
        if self.bound.len() >= BINDINGS || !free {
            return None;
        }
        let outside = chosen.expect("a free port is found");
        assert!((2000..=self.last_port).contains(&outside.id));
        assert!(used.all(|it| it.outside != outside), "{outside:?} twice");
        self.bound.push(Bound {
            protocol,
            inside,
            outside,
            is_static: false,
        });
        Some(outside)
    }

    fn inbound(
        &mut self,
        (protocol, outside, remote, flags): (Protocol, Endpoint4, Endpoint4, u8),
    ) -> Outcome {
        if self.follow((protocol, outside, remote), "v4", flags) {
            return Outcome::Pass;
        }
        let mut bound = self.bound.iter();
        let bound = bound.find(|it| (it.protocol, it.outside) == (protocol, outside));
        let opens = protocol == Protocol::Tcp && event(flags) == "SYN";
        let peers = self.sessions.iter().filter(|it| {
            let counts = self.refresh || it.is_clients;
            counts && (it.protocol, it.outside) == (protocol, outside)
        });
        let is_peer = peers.clone().any(|it| it.remote.address == remote.address);
        let is_open = |it: &Bound| self.refresh || it.is_static || peers.count() > 0;
        let may_enter = bound.is_some_and(|it| match self.strict {
            true => is_peer && !opens,
            false => is_open(it),
        });
        if !may_enter {
            return if opens && flags & ACK == 0 {
                self.store(outside, remote)
            } else {
                Outcome::Drop
            };
        }
        if protocol == Protocol::Tcp && !opens {
            return Outcome::Pass;
        }
        let begun_outside = self.sessions.iter().filter(|it| it.begun_outside);
        if self.sessions.len() >= SESSIONS || begun_outside.count() >= SESSIONS / 2 {
            return Outcome::Drop;
        }
        let (state, lifetime) = match protocol {
            Protocol::Udp => (State::Udp, 301),
            Protocol::Icmp => (State::Icmp, 61),
            Protocol::Tcp => (State::Tcp(TcpState::V4Init), 241),
        };
        self.open((protocol, outside, remote), true, state, lifetime);
        Outcome::Pass
    }

    fn store(&mut self, outside: Endpoint4, remote: Endpoint4) -> Outcome {
        let known = self.syns.iter().any(|it| (it.0, it.1) == (outside, remote));
        let room = (2000..=self.last_port).contains(&outside.id) && self.syns.len() < SYNS;
        let mut of_source = self.syns.iter().map(|it| it.1.address);
        let room = room && of_source.all(|it| it != remote.address);
        if known || !room {
            return Outcome::Drop;
        }
        self.syns.push((outside, remote, self.now + 7));
        Outcome::Kept
    }
}

fn reference_config(last_port: u16, strict: bool, refresh: bool) -> Config {
    let mut config = config();
    config.pool[0].ports = PortRange::new(2000, last_port).unwrap().into();
    config.limits = Limits {
        bindings: BINDINGS,
        sessions: SESSIONS,
        stored_syns: SYNS,
        ..Limits::default()
    };
    config.filtering.inbound_refresh = refresh;
    if strict {
        config.filtering.udp = Filtering::AddressDependent;
        config.filtering.tcp = Filtering::AddressDependent;
        config.filtering.icmp = Filtering::AddressDependent;
    }
    config
}

fn outcome(fate: &Fate) -> Outcome {
    match fate {
        Fate::Forwarded(packets) if packets.is_empty() => Outcome::Kept,
        Fate::Forwarded(packets) => {
            assert!(
                packets
                    .iter()
                    .all(|it| transport_checksum_ok(it) == Some(true))
            );
            Outcome::Pass
        }
        Fate::Replied(..) | Fate::Dropped(_) => Outcome::Drop,
    }
}

/// What a step sends, in either family.
fn packet(
    from_client: bool,
    protocol: Protocol,
    client: Endpoint6,
    pool_port: u16,
    server: Endpoint4,
    flags: u8,
) -> Vec<u8> {
    let (inside, outside) = ((client.address, client.id), (POOL, pool_port));
    let remote = (server.address, server.id);
    match (from_client, protocol) {
        (true, Protocol::Udp) => udp6(inside, remote, b"x"),
        (true, Protocol::Tcp) => tcp6(inside, remote, flags),
        (true, Protocol::Icmp) => echo6(inside.0, 128, inside.1, remote.0),
        (false, Protocol::Udp) => udp4(remote, outside, b"x"),
        (false, Protocol::Tcp) => tcp4(remote, outside, flags),
        (false, Protocol::Icmp) => echo4(remote.0, 0, outside.1, outside.0),
    }
}

fn assert_same(nat: &Nat, model: &Model) -> Result<(), TestCaseError> {
    let bound: HashSet<_> = nat
        .engine
        .bindings()
        .map(|it| (it.protocol, it.inside, it.outside, it.is_static))
        .collect();
    let wanted: HashSet<_> = model
        .bound
        .iter()
        .map(|it| (it.protocol, it.inside, it.outside, it.is_static))
        .collect();
    prop_assert_eq!(bound.len(), nat.bindings());
    prop_assert_eq!(&bound, &wanted);
    let mut sessions: Vec<_> = nat
        .engine
        .sessions(nat.now)
        .map(|it| {
            let expires = model.now + it.expires_in.as_secs();
            format!("{:?} {:?} {:?} {expires}", it.outside, it.remote, it.state)
        })
        .collect();
    let mut wanted: Vec<_> = model
        .sessions
        .iter()
        .map(|it| {
            format!(
                "{:?} {:?} {:?} {}",
                it.outside, it.remote, it.state, it.expires
            )
        })
        .collect();
    sessions.sort_unstable();
    wanted.sort_unstable();
    prop_assert_eq!(sessions, wanted);
    for protocol in Protocol::ALL {
        let mut free = usize::from(model.last_port - 1999);
        free -= wanted_ports(model, protocol);
        prop_assert_eq!(nat.engine.free_ports(protocol), free);
    }
    Ok(())
}

/// Of the ports that are given out, those that are bound.
fn wanted_ports(model: &Model, protocol: Protocol) -> usize {
    let given = |it: &&Bound| it.protocol == protocol && it.outside.id <= model.last_port;
    model.bound.iter().filter(given).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn plat_3_5_01_the_engine_equals_a_slow_model(
        steps in proptest::collection::vec(
            (
                0u8..20,
                0usize..3,
                (0u16..3, 0u16..3),
                (0u8..3, 0u16..2),
                0u16..8,
                prop::sample::select(vec![SYN, SYN | ACK, ACK, FIN, RST]),
                prop::sample::select(vec![1u64, 5, 7, 60, 240, 301, 7300]),
            ),
            1..160,
        ),
        (mut strict, mut refresh) in any::<(bool, bool)>(),
    ) {
        let mut nat = Nat::new(reference_config(2009, strict, refresh));
        let mut model = Model {
            now: 0,
            last_port: 2009,
            strict,
            refresh,
            bound: Vec::new(),
            sessions: Vec::new(),
            syns: Vec::new(),
            unanswered: 0,
        };
        let mut sent = 0;
        for (what, protocol, (client, port), (server, server_port), pool_port, flags, pause) in steps {
            let protocol = Protocol::ALL[protocol];
            let inside = Endpoint6 {
                address: Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, client),
                id: 2000 + port,
            };
            let outside = Endpoint4 { address: POOL, id: 2000 + pool_port };
            let mut remote = Endpoint4 {
                address: Ipv4Addr::new(8, 8, 8, server),
                id: 53 + server_port,
            };
            // Some of the servers are other clients.
            let hairpin = what >= 6 && server == 0;
            if hairpin {
                remote = outside;
            }
            match what {
                0..=10 => {
                    let from_client = what % 2 == 0;
                    if hairpin && (!from_client || protocol == Protocol::Icmp) {
                        continue;
                    }
                    sent += 1;
                    let bytes = packet(from_client, protocol, inside, outside.id, remote, flags);
                    let got = outcome(&nat.send(&bytes));
                    if protocol == Protocol::Icmp {
                        remote.id = 0;
                    }
                    let wanted = if from_client {
                        let mut all = nat.engine.bindings();
                        let chosen = all.find(|it| (it.protocol, it.inside) == (protocol, inside));
                        let chosen = chosen.map(|it| it.outside);
                        match model.outbound((protocol, inside, remote, flags), chosen) {
                            Some(own) if hairpin => model.inbound((protocol, remote, own, flags)),
                            Some(_) => Outcome::Pass,
                            None => Outcome::Drop,
                        }
                    } else {
                        model.inbound((protocol, outside, remote, flags))
                    };
                    prop_assert_eq!(got, wanted);
                }
                11..=14 => {
                    nat.wait(pause);
                    model.wait(pause);
                    let mut buf = PacketBuf::new();
                    while nat.engine.poll_transmit(&mut buf, nat.now) == Transmit::Send {
                        prop_assert_eq!(transport_checksum_ok(buf.bytes()), Some(true));
                    }
                }
                15 => {
                    let filter = Filter { client: Some((inside.address, 128)), ..Filter::default() };
                    let mine: Vec<_> = model.bound.iter().filter(|it| it.inside.address == inside.address).collect();
                    let mut kept = model.sessions.clone();
                    kept.retain(|s| !mine.iter().any(|it| (it.protocol, it.outside) == (s.protocol, s.outside)));
                    prop_assert_eq!(nat.engine.flush(&filter), model.sessions.len() - kept.len());
                    model.sessions = kept;
                    model.sweep();
                }
                16 => {
                    let wanted = StaticBinding { protocol, inside, outside };
                    let known = model.bound.iter_mut().find(|it| (it.protocol, it.inside) == (protocol, inside));
                    let same = known.as_ref().is_some_and(|it| it.outside == outside);
                    let unknown = known.is_none();
                    if let Some(known) = known.filter(|_| same) {
                        known.is_static = true;
                    }
                    let taken = model.bound.iter().any(|it| (it.protocol, it.outside) == (protocol, outside));
                    let fresh = unknown && !taken && model.bound.len() < BINDINGS;
                    if fresh {
                        model.bound.push(Bound { protocol, inside, outside, is_static: true });
                    }
                    prop_assert_eq!(nat.engine.add_static(wanted).is_ok(), same || fresh);
                }
                17 => {
                    let known = model.bound.iter().position(|it| (it.protocol, it.inside) == (protocol, inside));
                    prop_assert_eq!(nat.engine.remove_binding(protocol, inside), known.is_some());
                    if let Some(known) = known {
                        let gone = model.bound.remove(known);
                        model.sessions.retain(|it| (it.protocol, it.outside) != (gone.protocol, gone.outside));
                    }
                }
                _ => {
                    strict ^= what == 18;
                    refresh ^= pause == 60;
                    (model.strict, model.refresh) = (strict, refresh);
                    model.last_port = if pause < 60 { 2003 } else { 2009 };
                    nat.engine.reconfigure(reference_config(model.last_port, strict, refresh)).unwrap();
                    let last = model.last_port;
                    let lost: Vec<_> = model.bound.iter().filter(|it| !it.is_static && it.outside.id > last).cloned().collect();
                    model.sessions.retain(|s| !lost.iter().any(|it| (it.protocol, it.outside) == (s.protocol, s.outside)));
                    model.syns.retain(|it| it.0.id <= last);
                    model.sweep();
                }
            }
            assert_same(&nat, &model)?;
            prop_assert!(nat.bindings() <= BINDINGS && nat.sessions() <= SESSIONS);
        }
        let stats = nat.engine.stats();
        let unanswered = stats.from_v4.dropped_by_state.get(DropReason::SynUnanswered);
        prop_assert_eq!(unanswered, model.unanswered);
        let sides = [&stats.from_v6, &stats.from_v4];
        let accounted = sides.map(|it| {
            let went_on = it.passed.get() + it.kept.get();
            went_on + it.dropped_by_state.total() + it.dropped_by_translation.total()
        });
        prop_assert_eq!(accounted.iter().sum::<u64>(), sent + unanswered);
    }
}
