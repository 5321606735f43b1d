//! What holds when a file says this: checks and defaults.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    num::NonZeroU8,
    time::Duration,
};

use cli::{
    Failure,
    config::{Document, Spanned},
    text::is_interface_name,
};
use nat64::{
    config::{ConfigError, Limits, PoolEntry, Timers, reassembly},
    ports::{PortRange, PortSet, Ports},
};
use pref64::Pref64;

use crate::pool_mode::{PRIVATE_POOL, PoolMode};

use super::{
    Config, SMALLEST, bib, eam,
    file::{File, LimitsFile, TimersFile},
    networks::{Networks, values},
    place::place,
    pool::PoolRange,
    quota,
};

/// The most addresses a pool may have: with all ports each costs 24 KiB.
const MAX_POOL: u64 = 4096;

/// What holds.
///
/// # Errors
/// What is wrong, with its place.
pub(super) fn settle(document: &Document) -> Result<Config, Failure> {
    let file: File = document.parse()?;
    let networks = Networks::read(document, &file)?;
    check_pool_size(document, &networks.pool)?;
    let (pool_mode, pool) = pool(document, &file, &networks)?;
    if pool_mode == PoolMode::HostPorts {
        check_shared(document, &networks.pool)?;
    }
    let mut prefixes = values(&networks.prefixes);
    if prefixes.is_empty() {
        prefixes.push(Pref64::WELL_KNOWN);
    }
    let uplink = file.uplink.as_ref();
    let uplink = uplink.map(|it| interface(document, it)).transpose()?;
    let at_least = |name, value, default, least| at_least(document, name, value, default, least);
    let config = Config {
        bib: bib::bindings(document, &file.bib, &pool, &prefixes)?,
        prefixes,
        clients: values(&networks.clients),
        pool,
        pool_mode,
        host_ports: host_ports(document, &file, pool_mode)?,
        uplink,
        answered: Vec::new(),
        eam: eam::table(document, &file.eam)?,
        allow_destinations: values(&networks.allow_destinations),
        wkp_non_global: file.wkp_non_global.into(),
        interface: match &file.interface {
            Some(name) => interface(document, name)?,
            None => "plat0".to_owned(),
        },
        forward_guard: file.forward_guard,
        ipv6_mtu: at_least("ipv6_mtu", &file.ipv6_mtu, 1500, 1280)?,
        ipv4_mtu: at_least("ipv4_mtu", &file.ipv4_mtu, 1500, 68)?,
        fragment_above: at_least("fragment_above", &file.fragment_above, 1280, 1280)?,
        filtering: file.filtering.policy(),
        tcp: file.tcp.policy(),
        timers: timers(&file.timers),
        limits: limits(&file.limits),
        workers: workers(document, file.workers.as_ref())?,
        blocks: file.blocks.blocks(),
        quota: quota::read(document, &file.quota, values(&networks.quota_exempt))?,
        thresholds: file.thresholds.settle(document)?,
        log: file.log.settle(document)?,
        metrics: file.metrics.settle(document)?,
    };
    let checked = check_engine(&config);
    checked.map_err(|error| place(document, &file, &networks, &error))?;
    Ok(config)
}

/// What the engine says of it, as far as that does not depend on the host.
fn check_engine(config: &Config) -> Result<(), ConfigError> {
    let mut engine = config.for_engine(Ipv6Addr::LOCALHOST, Vec::new());
    if engine.pool.is_empty() {
        // Left open: it depends on the host, too.
        engine.pool = vec![PoolEntry {
            address: Ipv4Addr::new(240, 0, 0, 1),
            ports: Ports::all(),
        }];
    }
    engine.check()
}

fn at_least(
    document: &Document,
    name: &str,
    value: &Option<Spanned<u16>>,
    default: u16,
    least: u16,
) -> Result<u16, Failure> {
    let Some(value) = value else {
        return Ok(default);
    };
    let (at, value) = (value.span(), *value.get_ref());
    if value >= least {
        return Ok(value);
    }
    let what = format_args!("{name} is {value}; it must be at least {least}");
    Err(document.wrong(at, what))
}

/// How the pool comes to this host, and the configured addresses.
fn pool(
    document: &Document,
    file: &File,
    networks: &Networks,
) -> Result<(PoolMode, Vec<PoolRange>), Failure> {
    let pool = values(&networks.pool);
    let Some(mode) = &file.pool_mode else {
        // What was named is routed here; otherwise there is nothing but this host's own.
        let mode = match pool.is_empty() {
            true => PoolMode::HostPorts,
            false => PoolMode::Routed,
        };
        return Ok((mode, pool));
    };
    let addresses: u64 = pool.iter().map(PoolRange::size).sum();
    let wrong = |what: &str| document.wrong(mode.span(), what);
    match mode.get_ref() {
        PoolMode::Routed | PoolMode::Arp if pool.is_empty() => {
            Err(wrong("there is no pool").hint(SMALLEST))
        }
        PoolMode::HostPorts if addresses > 1 => Err(wrong(
            "`host-ports` shares one address of this host",
        )
        .hint(
            "name one of its addresses in `pool`, or none for the one towards the IPv4 internet",
        )),
        PoolMode::Masquerade if pool.is_empty() => {
            let private = document.value(&Spanned::new(mode.span(), PRIVATE_POOL.to_owned()))?;
            Ok((PoolMode::Masquerade, vec![private.into_inner()]))
        }
        mode @ (PoolMode::Routed | PoolMode::Arp | PoolMode::HostPorts | PoolMode::Masquerade) => {
            Ok((*mode, pool))
        }
    }
}

/// The ports to share, like `61001-65535`.
fn host_ports(
    document: &Document,
    file: &File,
    mode: PoolMode,
) -> Result<Option<PortRange>, Failure> {
    let Some(text) = &file.host_ports else {
        return Ok(None);
    };
    if mode != PoolMode::HostPorts {
        let what = format_args!("host_ports means nothing with pool_mode {mode}");
        let hint = "leave it out, or leave `pool` out";
        return Err(document.wrong(text.span(), what).hint(hint));
    }
    let ports = document.value::<PortSet>(text)?;
    match ports.get_ref().ranges() {
        [range] => Ok(Some(*range)),
        _ => Err(document.wrong(text.span(), ONE_RANGE)),
    }
}

/// Before anything counts the addresses one by one: there may be four thousand million.
fn check_pool_size(document: &Document, pool: &[Spanned<PoolRange>]) -> Result<(), Failure> {
    let mut addresses = 0;
    for network in pool {
        addresses += network.get_ref().size();
        if addresses > MAX_POOL {
            let what = format_args!("the pool has {addresses} addresses; {MAX_POOL} are possible");
            return Err(document.wrong(network.span(), what));
        }
    }
    Ok(())
}

const ONE_RANGE: &str = "a shared address has one range of ports, the same for each protocol";

/// The host's side of a shared address knows one range for all three.
fn check_shared(document: &Document, pool: &[Spanned<PoolRange>]) -> Result<(), Failure> {
    for range in pool {
        if range.get_ref().ports.as_range().is_none() {
            let hint = "name it by `host_ports`, and leave `tcp`, `udp` and `icmp` out";
            return Err(document.wrong(range.span(), ONE_RANGE).hint(hint));
        }
    }
    Ok(())
}

/// A name that the kernel takes, and that means one interface in every place it stands in.
fn interface(document: &Document, name: &Spanned<String>) -> Result<String, Failure> {
    let (at, name) = (name.span(), name.get_ref());
    if is_interface_name(name) {
        return Ok(name.clone());
    }
    let what = format_args!("`{name}` cannot be the name of an interface");
    let hint = "use at most 15 letters, digits and -_. like plat0";
    Err(document.wrong(at, what).hint(hint))
}

fn workers(document: &Document, count: Option<&Spanned<u8>>) -> Result<Option<NonZeroU8>, Failure> {
    /// More were never measured.
    const MOST: u8 = 64;

    let Some(count) = count else {
        return Ok(None);
    };
    match NonZeroU8::new(*count.get_ref()).filter(|count| count.get() <= MOST) {
        Some(count) => Ok(Some(count)),
        None => {
            let what = format_args!("workers must be from 1 to {MOST}");
            Err(document.wrong(count.span(), what))
        }
    }
}

fn timers(file: &TimersFile) -> Timers {
    let default = Timers::default();
    let or = |seconds: &Option<Spanned<u64>>, default| {
        let seconds = seconds.as_ref().map(|it| *it.get_ref());
        seconds.map_or(default, Duration::from_secs)
    };
    Timers {
        udp: or(&file.udp, default.udp),
        icmp: or(&file.icmp, default.icmp),
        tcp_established: or(&file.tcp_established, default.tcp_established),
        tcp_transitory: or(&file.tcp_transitory, default.tcp_transitory),
        tcp_incoming_syn: or(&file.tcp_incoming_syn, default.tcp_incoming_syn),
        fragment: or(&file.fragment, default.fragment),
        hold_down: or(&file.hold_down, default.hold_down),
    }
}

fn limits(file: &LimitsFile) -> Limits {
    let default = Limits::default();
    let fragments = default.fragments;
    let or = |limit: &Option<Spanned<usize>>, default| {
        let limit = limit.as_ref().map(|it| *it.get_ref());
        limit.unwrap_or(default)
    };
    Limits {
        bindings: or(&file.bindings, default.bindings),
        sessions: or(&file.sessions, default.sessions),
        stored_syns: or(&file.stored_syns, default.stored_syns),
        stored_syn_bytes: or(&file.stored_syn_bytes, default.stored_syn_bytes),
        fragments: reassembly::Limits {
            datagrams: file.fragmented_datagrams.unwrap_or(fragments.datagrams),
            bytes: file.fragment_bytes.unwrap_or(fragments.bytes),
            datagrams_per_source: file
                .fragmented_datagrams_per_source
                .unwrap_or(fragments.datagrams_per_source),
        },
    }
}
