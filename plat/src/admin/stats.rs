//! Everything that is counted, as rows.

use std::sync::Arc;

use control::plat::{Amounts, StatsRow, Threshold};
use nat64::{
    DropReason,
    stats::{DirectionStats, Stats},
    tuple::Protocol,
};
use wire::{
    counters::{Counter, ReasonCounters},
    verdict::Reason,
};

use super::{causes::Cause, rows};
use crate::workers::{Orders, Shared, Unanswered};

/// The counters of all workers. Reading them disturbs nobody.
#[derive(Debug)]
pub(crate) struct Counters {
    workers: Vec<Stats>,
    shared: Arc<Shared>,
}

/// A table of counters by protocol.
type ByProtocol = fn(&Stats) -> &[Arc<Counter>; 3];

impl Counters {
    pub(super) async fn of(orders: &Orders, shared: Arc<Shared>) -> Result<Self, Unanswered> {
        let workers = orders.each(|engine, _| engine.stats()).await?;
        Ok(Self { workers, shared })
    }

    pub(super) fn workers(&self) -> u64 {
        self.workers.len() as u64
    }

    /// Current sessions.
    pub(crate) fn sessions(&self) -> Amounts {
        self.current(
            |it| &it.tables.sessions_made,
            |it| &it.tables.sessions_ended,
        )
    }

    /// Current bindings.
    pub(crate) fn bindings(&self) -> Amounts {
        self.current(
            |it| &it.tables.bindings_made,
            |it| &it.tables.bindings_ended,
        )
    }

    fn current(&self, made: ByProtocol, ended: ByProtocol) -> Amounts {
        let mut amounts = Amounts::default();
        for protocol in Protocol::ALL {
            // Those that ended first: what is made in between is not missing.
            let ended = self.by_protocol(ended, protocol);
            let current = self.by_protocol(made, protocol).saturating_sub(ended);
            *amounts.of_mut(rows::protocol(protocol)) = current;
        }
        amounts
    }

    fn by_protocol(&self, which: ByProtocol, protocol: Protocol) -> u64 {
        let all = self.workers.iter().map(which);
        all.map(|it| it[protocol.index()].get()).sum()
    }

    /// All rows, in a fixed order.
    pub(crate) fn rows(&self) -> Vec<StatsRow> {
        let mut table = Table::default();
        self.traffic(&mut table);
        self.current_amounts(&mut table);
        for (name, people, which) in DIRECTIONS {
            let all: Vec<_> = self.workers.iter().map(which).collect();
            direction(&mut table, name, people, &all);
        }
        self.made(&mut table);
        table.add(
            "clients.refused",
            "Packets of clients that were refused: not in `clients`, over quota, or no room; `plat \
             client refused` lists whose.",
            self.refused(),
        );
        table.add(
            "host.refused",
            "Packets that the host did not take from us.",
            self.shared.host_refused.get(),
        );
        table.add(
            "host.unreadable",
            "Packets from the host whose virtio-net header cannot be understood.",
            self.shared.unreadable.get(),
        );
        let lost = self.workers.iter().map(|it| it.tables.changes_lost.get());
        table.add(
            "journal.lost",
            "Changes of the tables that a log or a follower was not told of, because there were \
             too many.",
            lost.sum(),
        );
        table.0
    }

    /// Both directions together, by the words of RFC 8512.
    fn traffic(&self, table: &mut Table) {
        let sum = |which: fn(&DirectionStats) -> u64| -> u64 {
            let both = |it: &Stats| which(&it.from_v6) + which(&it.from_v4);
            self.workers.iter().map(both).sum()
        };
        for (code, sentence, value) in [
            (
                "traffic.packets-in",
                "Packets that came in, from both sides (RFC 8512 §3).",
                sum(|it| it.packets_in.get()),
            ),
            (
                "traffic.bytes-in",
                "Their bytes (RFC 8512 §3).",
                sum(|it| it.bytes_in.get()),
            ),
            (
                "traffic.packets-out",
                "Packets that were translated and went out, to both sides (RFC 8512 §3).",
                sum(|it| it.passed.get()),
            ),
            (
                "traffic.bytes-out",
                "Their bytes, before one was divided into fragments (RFC 8512 §3).",
                sum(|it| it.bytes_out.get()),
            ),
            (
                "dropped.total",
                "Packets that did not pass, from both sides, whatever the reason (RFC 8512 §3).",
                sum(dropped),
            ),
        ] {
            table.add(code, sentence, value);
        }
        for cause in Cause::ALL {
            let all = self.workers.iter();
            let both = all.map(|it| cause.count(&it.from_v6) + cause.count(&it.from_v4));
            let code = format!("dropped.{}", cause.code());
            table.add(&code, cause.sentence(), both.sum());
        }
    }

    fn refused(&self) -> u64 {
        let refuses = |it: &DropReason| it.is_shortage() || *it == DropReason::ClientRefused;
        let reasons = DropReason::ALL.iter().copied().filter(refuses);
        let of_worker = |reason| {
            let all = self.workers.iter();
            all.map(move |it| it.from_v6.dropped_by_state.get(reason))
        };
        reasons.flat_map(of_worker).sum()
    }

    fn current_amounts(&self, table: &mut Table) {
        let (sessions, bindings) = (self.sessions(), self.bindings());
        table.add(
            "sessions",
            "Current sessions (RFC 6146 §3.2).",
            sessions.total(),
        );
        table.add(
            "bindings",
            "Current bindings: mappings, in all (RFC 6146 §3.1; RFC 8512 §3).",
            bindings.total(),
        );
        for protocol in control::plat::Protocol::ALL {
            let mut both = (sessions, bindings);
            table.add(
                &format!("sessions.{protocol}"),
                &format!("Current sessions of {protocol} (RFC 6146 §3.2)."),
                *both.0.of_mut(protocol),
            );
            table.add(
                &format!("bindings.{protocol}"),
                &format!("Current bindings, mappings of {protocol} (RFC 6146 §3.1; RFC 8512 §3)."),
                *both.1.of_mut(protocol),
            );
        }
    }

    fn made(&self, table: &mut Table) {
        for protocol in Protocol::ALL {
            let name = rows::protocol(protocol);
            let sessions = self.by_protocol(|it| &it.tables.sessions_made, protocol);
            let bindings = self.by_protocol(|it| &it.tables.bindings_made, protocol);
            table.add(
                &format!("sessions-made.{name}"),
                &format!("Sessions of {name} that were ever made (RFC 6146 §3.2)."),
                sessions,
            );
            table.add(
                &format!("bindings-made.{name}"),
                &format!("Bindings of {name} that were ever made (RFC 6146 §3.1)."),
                bindings,
            );
        }
    }
}

/// How near everything is to its limit, as rows.
pub(super) fn near(thresholds: &[Threshold]) -> Vec<StatsRow> {
    let mut table = Table::default();
    for it in thresholds {
        let Threshold {
            code, what, limit, ..
        } = it;
        table.add(
            &format!("use.{code}"),
            &format!("How many {what} are in use, of {limit} (RFC 8512 §3)."),
            it.value,
        );
        table.rate(
            &format!("use.{code}.percent"),
            &format!(
                "The same in percent: an alarm begins at {} and ends under {} (RFC 8512 §3; \
                 RFC 8158 §5).",
                it.high, it.low
            ),
            percent(it.value, *limit),
        );
        table.add(
            &format!("use.{code}.alarm"),
            "1 while there is that alarm (RFC 8158 §5).",
            it.exceeded.into(),
        );
    }
    table.0
}

/// A direction: its name in codes, its name for people, and where it is counted.
type Direction = (&'static str, &'static str, fn(&Stats) -> &DirectionStats);

const DIRECTIONS: [Direction; 2] = [
    ("from-v6", "from IPv6 to IPv4", |it| &it.from_v6),
    ("from-v4", "from IPv4 to IPv6", |it| &it.from_v4),
];

#[derive(Default)]
struct Table(Vec<StatsRow>);

impl Table {
    /// A row. The clause stands in parentheses at the end of the sentence.
    fn add(&mut self, code: &str, sentence: &str, value: u64) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "exact up to 2^53, and for people and graphs beyond"
        )]
        self.rate(code, sentence, Some(value as f64));
    }

    fn rate(&mut self, code: &str, sentence: &str, value: Option<f64>) {
        let (sentence, clause) = split(sentence);
        self.0.push(StatsRow {
            code: code.to_owned(),
            sentence,
            clause,
            value,
        });
    }
}

/// Takes the clause off the end of a sentence: `It is so (RFC 1 §2).`
fn split(sentence: &str) -> (String, String) {
    let end = sentence.strip_suffix(").");
    match end.and_then(|it| it.rsplit_once(" (RFC ")) {
        Some((before, clause)) => (format!("{before}."), format!("RFC {clause}")),
        None => (sentence.to_owned(), String::new()),
    }
}

fn direction(table: &mut Table, name: &str, people: &str, all: &[&DirectionStats]) {
    let sum = |which: fn(&DirectionStats) -> u64| all.iter().map(|it| which(it)).sum();
    for (code, sentence, which) in COUNTED {
        let sentence = sentence.replace("{people}", people);
        table.add(&format!("{name}.{code}"), &sentence, sum(which));
    }
    let (came, passed) = (sum(|it| it.packets_in.get()), sum(|it| it.passed.get()));
    table.rate(
        &format!("{name}.success-rate"),
        &format!("Success rate {people}: of a hundred packets that came in, so many passed."),
        percent(passed, came).map(|it| it.min(100.0)),
    );
    let states: Vec<_> = all.iter().map(|it| &it.dropped_by_state).collect();
    let translations: Vec<_> = all.iter().map(|it| &it.dropped_by_translation).collect();
    reasons(table, &format!("{name}.drop"), &states);
    reasons(table, &format!("{name}.not-translated"), &translations);
}

/// Something that is counted by direction: its code, what it is, and where it is counted.
type Counted = (&'static str, &'static str, fn(&DirectionStats) -> u64);

const COUNTED: [Counted; 7] = [
    (
        "packets",
        "Packets {people} that came in (RFC 8512).",
        |it| it.packets_in.get(),
    ),
    ("bytes", "Their bytes, {people} (RFC 8512).", |it| {
        it.bytes_in.get()
    }),
    (
        "passed",
        "Successful translations {people} (RFC 7915).",
        |it| it.passed.get(),
    ),
    (
        "bytes-out",
        "The bytes of what passed {people}, before it was divided into fragments (RFC 8512).",
        |it| it.bytes_out.get(),
    ),
    (
        "kept",
        "Packets {people} that were kept: fragments until the last one comes, and SYNs until their \
         client sends one. Those that waited in vain count as dropped, too (RFC 6146 §3.4, §3.5.2.2).",
        |it| it.kept.get(),
    ),
    (
        "dropped",
        "Packets {people} that did not pass, whatever the reason (RFC 8512).",
        dropped,
    ),
    (
        "errors-sent",
        "Senders {people} that were told with an ICMP error (RFC 7915 §4.4, §5.4).",
        |it| it.errors_sent.get(),
    ),
];

fn dropped(direction: &DirectionStats) -> u64 {
    direction.dropped_by_state.total() + direction.dropped_by_translation.total()
}

/// A part of something, if that is not nothing.
#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 * 100.0 / whole as f64)
}

fn reasons<R: Reason>(table: &mut Table, name: &str, all: &[&ReasonCounters<R>]) {
    for reason in R::ALL {
        let count = all.iter().map(|it| it.get(*reason)).sum();
        table.add(
            &format!("{name}.{}", reason.code()),
            reason.explain(),
            count,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clause_is_taken_off_a_sentence() {
        let (sentence, clause) = split("It is so (RFC 1 §2; RFC 3).");
        assert_eq!(
            (sentence.as_str(), clause.as_str()),
            ("It is so.", "RFC 1 §2; RFC 3")
        );
        assert_eq!(split("It is so (really).").1, "");
    }

    #[test]
    fn of_nothing_there_is_no_rate() {
        assert_eq!(percent(0, 0), None);
        assert_eq!((percent(0, 4), percent(3, 4)), (Some(0.0), Some(75.0)));
    }
}
