//! Where in the file the reason of an error stands.

use std::ops::Range;

use cli::{
    Failure,
    config::{Document, Spanned},
};
use nat64::{config::ConfigError, subscriber::Quota};

use super::{
    eam,
    file::{File, LimitsFile, QuotaFile, TimersFile},
    networks::Networks,
};

/// Where in the file the reason of an error stands.
pub(super) fn place(
    document: &Document,
    file: &File,
    networks: &Networks,
    error: &ConfigError,
) -> Failure {
    let at = match error {
        ConfigError::NoPrefix | ConfigError::NoPool => None,
        ConfigError::TooManyPrefixes => networks.prefixes.last().map(Spanned::span),
        ConfigError::OverlappingPrefixes(inner, _) => {
            last_place(&networks.prefixes, |it| it == inner)
        }
        ConfigError::PoolTwice(address)
        | ConfigError::PoolWithoutPorts(address)
        | ConfigError::PoolUnusable(address) => {
            last_place(&networks.pool, |it| it.contains(*address))
        }
        ConfigError::EamInPool(eam, _)
        | ConfigError::EamInPrefix(eam, _)
        | ConfigError::EamUnusable(eam) => eam::place(&file.eam, eam),
        ConfigError::Timer { name, .. } => file.timers.place(name),
        ConfigError::SubscriberPrefix => file.quota.prefix_len.as_ref().map(Spanned::span),
        ConfigError::Burst => file.quota.burst_place(),
        ConfigError::EmptyQuota | ConfigError::Blocks(_) => None,
        ConfigError::Limit { name, .. } => file.limits.place(name),
    };
    match at {
        Some(at) => document.wrong(at, error),
        None => document.wrong_somewhere(error),
    }
}

fn last_place<T>(list: &[Spanned<T>], is: impl Fn(&T) -> bool) -> Option<Range<usize>> {
    let found = list.iter().rev().find(|it| is(it.get_ref()));
    found.map(Spanned::span)
}

impl QuotaFile {
    /// That of a burst which is too long.
    fn burst_place(&self) -> Option<Range<usize>> {
        let all = [&self.subscriber, &self.address].into_iter();
        let mut long = all.filter_map(|it| {
            let burst = it.burst.as_ref()?;
            let most = it.new_per_second.saturating_mul(Quota::LONGEST_BURST);
            (*burst.get_ref() > most).then(|| burst.span())
        });
        long.next()
    }
}

impl TimersFile {
    fn place(&self, name: &str) -> Option<Range<usize>> {
        let timer = match name {
            "udp" => &self.udp,
            "icmp" => &self.icmp,
            "tcp_established" => &self.tcp_established,
            "tcp_transitory" => &self.tcp_transitory,
            "tcp_incoming_syn" => &self.tcp_incoming_syn,
            "hold_down" => &self.hold_down,
            _ => &self.fragment,
        };
        timer.as_ref().map(Spanned::span)
    }
}

impl LimitsFile {
    fn place(&self, name: &str) -> Option<Range<usize>> {
        let limit = match name {
            "bindings" => &self.bindings,
            "stored_syns" => &self.stored_syns,
            "stored_syn_bytes" => &self.stored_syn_bytes,
            _ => &self.sessions,
        };
        limit.as_ref().map(Spanned::span)
    }
}
