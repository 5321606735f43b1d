//! Clients and PLAT, as chance will have them.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use clat_core::{
    engine::{Inbound, Outbound, Settings},
    mapping::Instance,
};
use nat64::{Config, Engine, ports::PortRange};
use pref64::siit::NonGlobal;
use xlat::{config::ErrorPolicy, reassembly::Limits};

use super::{
    Client, Links, MOST_BINDINGS, MOST_SESSIONS, NAMELESS, OPENING, PLAT6, POOL, PORTS, ROUTER4,
    SERVER, clat_address, prefixes,
};
use crate::{
    flow::{Flow, Ping, Tcp, Trace, Udp},
    random::Random,
    stack::Stack,
};

pub(super) fn client(random: &mut Random, number: usize, links: &Links) -> Client {
    let access = links.access[number].mtu as u16;
    // May be raised where all links are known to take it, which nobody could tell otherwise.
    let all_take = access.min(links.core.mtu as u16);
    let settings = Settings {
        instance: Instance::FIRST,
        clat: clat_address(number),
        prefix: prefixes()[0],
        retained: Vec::new(),
        ipv6_mtu: access,
        fragment_above: random.pick(&[1280, all_take]),
        wkp_non_global: NonGlobal::Translate,
        errors: ErrorPolicy::Send,
    };
    let host = Instance::FIRST.host();
    let mut flows = Vec::new();
    for n in 0..2 + random.below(5) {
        let start = Duration::from_millis(random.below(OPENING));
        let local = (host, 40_000 + n as u16);
        flows.push(any_flow(random, local, start));
    }
    let key = random.next();
    let mtu = settings.ipv4_mtu().into();
    Client {
        stack: Stack::new(host, mtu, random.next() as u16),
        flows,
        outbound: Outbound::new(&settings, key),
        inbound: Inbound::new(&settings, key),
        settings,
    }
}

pub(super) fn any_flow(
    random: &mut Random,
    local: (Ipv4Addr, u16),
    start: Duration,
) -> Box<dyn Flow> {
    match random.below(8) {
        0..3 => Box::new(Udp::new(random, local, SERVER, start)),
        3..5 => Box::new(Ping::new(random, local.1, SERVER, start)),
        5 => {
            let translator = Instance::FIRST.translator();
            // Neither the IPv6 router nor the PLAT has an IPv4 address that it could show.
            let hops = vec![translator, NAMELESS, NAMELESS, ROUTER4, SERVER];
            Box::new(Trace::new(local, hops, start))
        }
        _ => Box::new(Tcp::new(random, local, SERVER, start)),
    }
}

pub(super) fn plat(links: &Links, origin: Instant, random: &mut Random) -> Engine {
    let mut config = Config::new(prefixes()[0], &[POOL], PLAT6);
    config.prefixes = prefixes().into();
    config.allow_destinations = "198.51.100.0/24".parse().into_iter().collect();
    config.ipv6_mtu = links.core.mtu as u16;
    config.ipv4_mtu = links.outer.mtu as u16;
    config.errors = ErrorPolicy::Send;
    config.limits.bindings = MOST_BINDINGS;
    config.limits.sessions = MOST_SESSIONS;
    config.limits.fragments = Limits {
        datagrams: 64,
        bytes: 1 << 18,
        datagrams_per_source: 32,
    };
    if let Some(ports) = PortRange::new(PORTS.0, PORTS.1) {
        config.pool[0].ports = ports.into();
    }
    let key = [random.next().to_be_bytes(), random.next().to_be_bytes()].concat();
    let key = key.first_chunk().copied().unwrap_or_default();
    Engine::new(config, key, origin).unwrap_or_else(|error| panic!("{error}"))
}
