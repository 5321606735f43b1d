//! The engine's words in those of the control protocol.

use std::{
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    time::Instant,
};

use control::plat::{BibRow, Protocol, RefusedClient, SessionRow, StaticBinding};
use nat64::{
    Engine, RefusedSubscriber,
    bib::Binding,
    journal::SessionRecord,
    session::State,
    tcp::TcpState,
    tuple::{self, Endpoint4, Endpoint6},
    view::SessionView,
};
use wire::verdict::Reason;

pub(crate) fn protocol(protocol: tuple::Protocol) -> Protocol {
    match protocol {
        tuple::Protocol::Tcp => Protocol::Tcp,
        tuple::Protocol::Udp => Protocol::Udp,
        tuple::Protocol::Icmp => Protocol::Icmp,
    }
}

pub(crate) fn engine_protocol(protocol: Protocol) -> tuple::Protocol {
    match protocol {
        Protocol::Tcp => tuple::Protocol::Tcp,
        Protocol::Udp => tuple::Protocol::Udp,
        Protocol::Icmp => tuple::Protocol::Icmp,
    }
}

pub(super) fn end6(end: Endpoint6) -> SocketAddrV6 {
    SocketAddrV6::new(end.address, end.id, 0, 0)
}

pub(super) fn end4(end: Endpoint4) -> SocketAddrV4 {
    SocketAddrV4::new(end.address, end.id)
}

fn inside(end: SocketAddrV6) -> Endpoint6 {
    Endpoint6 {
        address: *end.ip(),
        id: end.port(),
    }
}

fn outside(end: SocketAddrV4) -> Endpoint4 {
    Endpoint4 {
        address: *end.ip(),
        id: end.port(),
    }
}

/// The names of RFC 6146 §3.5.2, in lower case.
fn state(state: State) -> &'static str {
    match state {
        State::Udp | State::Icmp => "open",
        State::Tcp(state) => match state {
            TcpState::V4Init => "v4-init",
            TcpState::V6Init => "v6-init",
            TcpState::Established => "established",
            TcpState::V4Fin => "v4-fin",
            TcpState::V6Fin => "v6-fin",
            TcpState::V4V6Fin => "v4-v6-fin",
            TcpState::Trans => "trans",
        },
    }
}

pub(super) fn session(view: &SessionView) -> SessionRow {
    SessionRow {
        protocol: protocol(view.protocol),
        client: end6(view.inside),
        pool: end4(view.outside),
        remote: end4(view.remote),
        prefix: view.prefix.to_string(),
        state: state(view.state).to_owned(),
        expires_in: view.expires_in.as_secs(),
    }
}

/// A session as the journal tells of it; its prefix is one of `prefixes`.
pub(super) fn record(record: &SessionRecord, prefixes: &[String], now: Instant) -> SessionRow {
    let prefix = prefixes.get(usize::from(record.prefix));
    SessionRow {
        protocol: protocol(record.state.protocol()),
        client: end6(record.inside),
        pool: end4(record.outside),
        remote: end4(record.remote),
        prefix: prefix.cloned().unwrap_or_default(),
        state: state(record.state).to_owned(),
        expires_in: record.expires.saturating_duration_since(now).as_secs(),
    }
}

pub(super) fn binding(binding: &Binding) -> BibRow {
    BibRow {
        protocol: protocol(binding.protocol),
        client: end6(binding.inside),
        pool: end4(binding.outside),
        sessions: binding.sessions,
        is_static: binding.is_static,
    }
}

pub(super) fn refused(it: &RefusedSubscriber, now: Instant) -> RefusedClient {
    let ago = |at| now.saturating_duration_since(at).as_secs();
    RefusedClient {
        client: it.subscriber.to_string(),
        packets: it.packets,
        first_ago: ago(it.first),
        last_ago: ago(it.last),
        reason: it.why.code().to_owned(),
        sentence: it.why.explain().to_owned(),
    }
}

pub(super) fn static_binding(binding: &StaticBinding) -> nat64::static_bib::StaticBinding {
    nat64::static_bib::StaticBinding {
        protocol: engine_protocol(binding.protocol),
        inside: inside(binding.client),
        outside: outside(binding.pool),
    }
}

/// Removes the binding that one of these ends belongs to. Whether there was one.
pub(super) fn remove(engine: &mut Engine, protocol: Protocol, end: SocketAddr) -> bool {
    let protocol = engine_protocol(protocol);
    match end {
        SocketAddr::V6(client) => engine.remove_binding(protocol, inside(client)),
        SocketAddr::V4(pool) => engine.remove_binding_of(protocol, outside(pool)),
    }
}
