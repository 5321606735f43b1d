//! What the CLAT says about itself.

use std::{
    fmt::Write,
    mem::{Discriminant, discriminant},
    time::Instant,
};

use clat_core::{
    State,
    probe::{self, Verdict},
    session::{BACKOFF, Problem},
};
use cli::{
    Failure,
    seldom::{LeftOut, Seldom},
    text,
};
use pref64::{
    Pref64, dns_query,
    tracker::{Change, Entry, Source},
};
use pref64_discovery::Event;

use crate::{dataplane::Stats, reachability::Probed};

/// A failure in one line.
pub(crate) fn failure(failure: &Failure) -> String {
    let text = failure.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    text.replace("\n ", ";")
}

/// One line about a state.
pub(crate) fn state(state: &State, link: Option<&str>) -> String {
    let on = link.map_or_else(String::new, |name| format!(" on {name}"));
    match state {
        State::Offline => "waiting for an IPv6 network".to_owned(),
        State::NativeIpv4 => "resting: the network has native IPv4".to_owned(),
        State::OtherClat(interface) => format!(
            "resting: {interface} is another CLAT's, and a host can have one (192.0.0.0/29 is on it)"
        ),
        State::NoNat64 => format!("waiting: no NAT64 prefix is known{on}"),
        State::OwnPrefix(prefix) => format!(
            "waiting: this host is itself inside {prefix}{on}, which cannot be the NAT64 prefix then"
        ),
        State::NoAddress => format!("waiting for an IPv6 address in a /64{on}"),
        State::AddressInUse(address) => format!(
            "waiting: {address} is this host's own address{on}; the CLAT needs one to itself: \
             choose another --address, or none"
        ),
        State::Claiming(settings) => {
            format!("claiming {}{on} for {}", settings.clat, settings.prefix)
        }
        State::Running(settings) => format!(
            "running: {} is {}{on}, prefix {}{}, MTU {}",
            settings.instance.host(),
            settings.clat,
            settings.prefix,
            older_flows(&settings.retained),
            settings.ipv4_mtu()
        ),
        State::Backoff { problem, .. } => {
            format!(
                "{}; next attempt in {}",
                why(problem),
                text::duration(BACKOFF)
            )
        }
    }
}

fn older_flows(retained: &[Pref64]) -> String {
    let names: Vec<_> = retained.iter().map(Pref64::to_string).collect();
    if names.is_empty() {
        return String::new();
    }
    format!(" (older flows by {})", names.join(", "))
}

fn why(problem: &Problem) -> String {
    match problem {
        Problem::AddressConflicts { address, by } => {
            format!("{by} has every address that was tried, {address} the last")
        }
        Problem::Host(what) => what.clone(),
    }
}

/// What was counted, with a sentence for every kind of loss.
pub(crate) fn stats(stats: &Stats) -> String {
    let mut text = String::new();
    for (name, direction) in [("out", &stats.outbound), ("in", &stats.inbound)] {
        let _ = writeln!(
            text,
            "{name}: {} packets, {} bytes, {} translated, {} dropped, {} errors sent",
            direction.packets_in.get(),
            direction.bytes_in.get(),
            direction.translated.get(),
            direction.dropped.total(),
            direction.errors_sent.get()
        );
        let _ = write!(text, "{}", direction.dropped);
    }
    let link = &stats.link;
    let _ = writeln!(
        text,
        "link: {} answers to neighbours, {} packets refused by the host, {} unreadable",
        link.neighbour_answers.get(),
        link.host_refused.get(),
        link.unreadable.iter().map(|it| it.get()).sum::<u64>()
    );
    for dropped in &link.dropped {
        let _ = write!(text, "{dropped}");
    }
    text
}

/// As many changes of a kind are said in a minute: those of a link with several prefixes, and of a
/// move to another one. Whoever is on the link can cause more.
const CHANGES: u32 = 10;

/// What the discovery tells, in the log.
#[derive(Debug)]
pub(crate) struct Discoveries(Seldom<Kind>);

#[derive(Debug, PartialEq, Eq, Hash)]
enum Kind {
    Change(Discriminant<Change>),
    Resolvers(Discriminant<dns_query::State>),
}

impl Default for Discoveries {
    fn default() -> Self {
        Self(Seldom::new(CHANGES))
    }
}

impl Discoveries {
    /// Log lines about an event.
    pub(crate) fn log(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Advertised { changes, .. } => self.changes(changes.iter(), now),
            Event::Resolved { state, changes, .. } => {
                self.resolvers(*state, now);
                self.changes(changes.iter(), now);
            }
            Event::Expired(changes) => self.changes(changes.iter().map(|(_, it)| it), now),
        }
    }

    fn changes<'a>(&mut self, changes: impl Iterator<Item = &'a Change>, now: Instant) {
        for it in changes {
            if let Some(left_out) = self.0.say(Kind::Change(discriminant(it)), now) {
                change(it, left_out, now);
            }
        }
    }

    /// Said when it changes. That one synthesises is told with the prefix.
    fn resolvers(&mut self, state: dns_query::State, now: Instant) {
        let said = match state {
            dns_query::State::NotSynthesised => "the link's resolvers synthesise no NAT64 prefix",
            dns_query::State::Unanswered => "none of the link's resolvers answers",
            dns_query::State::NoResolver
            | dns_query::State::Asking
            | dns_query::State::Synthesised(_) => return,
        };
        if let Some(left_out) = self.0.say(Kind::Resolvers(discriminant(&state)), now) {
            tracing::info!("{said}{left_out}");
        }
    }
}

/// What a probe has shown.
pub(crate) fn probed(probed: &Probed) {
    let prefix = probed.prefix;
    match probed.verdict {
        Verdict::Reachable { by } => tracing::info!("reachable: {by} answered through {prefix}"),
        Verdict::Unverified => {
            let targets: Vec<_> = probed.targets.iter().map(ToString::to_string).collect();
            tracing::warn!(
                "unverified: nothing behind {prefix} answered within {}; asked were {}",
                text::duration(probe::TIMEOUT),
                targets.join(", ")
            );
        }
    }
}

fn change(it: &Change, left_out: LeftOut, now: Instant) {
    let from = |entry: &Entry| match entry.source {
        Source::Manual => "by configuration".to_owned(),
        Source::Ra { router } => format!("by router {router}"),
        Source::Dns { resolver } => format!("by DNS from {resolver}"),
    };
    let left = |entry: &Entry| match entry.expires {
        Some(at) => text::duration(at.saturating_duration_since(now)),
        None => "ever".to_owned(),
    };
    match it {
        Change::Added(it) => {
            let (from, left) = (from(it), left(it));
            tracing::info!("NAT64 prefix {} {from}, for {left}{left_out}", it.prefix);
        }
        Change::Refreshed(it) => {
            tracing::debug!("{} refreshed for {}{left_out}", it.prefix, left(it));
        }
        Change::Withdrawn(it) => {
            let from = from(it);
            tracing::info!("NAT64 prefix {} withdrawn {from}{left_out}", it.prefix);
        }
        Change::Expired(it) => tracing::info!("NAT64 prefix {} expired{left_out}", it.prefix),
        Change::Refused(it) => {
            let why = "there are too many";
            tracing::warn!("NAT64 prefix {} ignored: {why}{left_out}", it.prefix);
        }
        Change::Preferred { entry, instead_of } => tracing::info!(
            "using NAT64 prefix {} {} instead of {} {}{left_out}",
            entry.prefix,
            from(entry),
            instead_of.prefix,
            from(instead_of)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cli::{lines::logged, seldom::PERIOD};
    use host::clock::Clock;

    /// A router that announces and withdraws a prefix without end does not fill the disk.
    #[test]
    fn a_flood_of_changes_is_a_few_lines() {
        let now = Clock::start().now();
        let mut discoveries = Discoveries::default();
        let entry = Entry {
            prefix: "2001:db8:64::/96".parse().unwrap(),
            source: Source::Manual,
            lifetime: None,
            expires: None,
        };
        let event = |changes| Event::Advertised {
            interface: 3,
            changes,
        };
        let flood = |discoveries: &mut Discoveries, at| {
            for _ in 0..1000 {
                let (added, withdrawn) = (Change::Added(entry), Change::Withdrawn(entry));
                discoveries.log(&event(vec![added]), at);
                discoveries.log(&event(vec![withdrawn]), at);
            }
        };
        let first = logged(|| flood(&mut discoveries, now));
        assert_eq!(first, 2 * CHANGES);
        let next = logged(|| flood(&mut discoveries, now + PERIOD));
        assert_eq!(next, 2 * CHANGES);
    }

    #[test]
    fn a_failure_fits_into_a_line_of_the_log() {
        let it = Failure::error("no room").hint("make some");
        assert_eq!(failure(&it), "no room; what to do: make some");
    }
}
