//! How near the tables, the pool and the memory are to their limits.

use std::time::Instant;

use control::{
    Problem,
    plat::{PoolRow, Protocol, Threshold},
};
use nat64::{Engine, engine::WaitingBytes};

use super::{Admin, facts::Facts};
use crate::config::{capacity::Memory, thresholds::Marks};

/// How much there is of everything that has a threshold.
#[derive(Debug)]
pub(super) struct InUse {
    /// Current sessions.
    pub(super) sessions: u64,
    /// Current bindings.
    pub(super) bindings: u64,
    /// The use of the pool.
    pub(super) pool: Vec<PoolRow>,
    /// Bytes of the tables.
    pub(super) memory: Memory,
}

impl Admin {
    /// Looks how much there is.
    ///
    /// # Errors
    /// The workers do not answer.
    pub(super) async fn in_use(&self) -> Result<InUse, Problem> {
        let pool = self.pool().await?;
        let waiting = self.each(|engine: &mut Engine, _: Instant| engine.waiting_bytes());
        let waiting = waiting.await?;
        let (sessions, bindings) = (self.counters.sessions(), self.counters.bindings());
        let (sessions, bindings) = (sessions.total(), bindings.total());
        let facts = self.facts.get();
        Ok(InUse {
            memory: memory(&facts.memory, bindings, sessions, &waiting),
            sessions,
            bindings,
            pool,
        })
    }
}

/// Bytes of the tables, reckoned as their limit is: what an entry takes at most, for those there are.
/// The room of those that were is kept for those to come, and not counted.
fn memory(limit: &Memory, bindings: u64, sessions: u64, waiting: &[WaitingBytes]) -> Memory {
    let sum = |which: fn(&WaitingBytes) -> usize| waiting.iter().map(|it| which(it) as u64).sum();
    Memory {
        stored_syns: sum(|it| it.stored_syns),
        fragments: sum(|it| it.fragments),
        ..Memory::of(limit.pool, bindings, sessions)
    }
}

/// How near everything is to its limit. `before` are the codes of those that were near.
pub(super) fn thresholds(facts: &Facts, in_use: &InUse, before: &[String]) -> Vec<Threshold> {
    let of = |code: &str, what: &str, marks: Marks, value: u64, limit: u64| Threshold {
        code: code.to_owned(),
        what: what.to_owned(),
        value,
        limit,
        high: marks.high(),
        low: marks.low(),
        exceeded: marks.is_near(before.iter().any(|it| it == code), value, limit),
    };
    let marks = &facts.thresholds;
    let (sessions, bindings) = (facts.sessions_limit, facts.bindings_limit);
    let (memory, most) = (in_use.memory.in_all(), facts.memory.in_all());
    let mut all = vec![
        of(
            "sessions",
            "sessions",
            marks.sessions,
            in_use.sessions,
            sessions,
        ),
        of(
            "bindings",
            "bindings",
            marks.bindings,
            in_use.bindings,
            bindings,
        ),
        of("memory", "bytes of the tables", marks.memory, memory, most),
    ];
    for (protocol, code, what) in [
        (Protocol::Tcp, "pool-tcp", "TCP ports of the pool"),
        (Protocol::Udp, "pool-udp", "UDP ports of the pool"),
        (Protocol::Icmp, "pool-icmp", "ICMP identifiers of the pool"),
    ] {
        let rows = in_use.pool.iter().filter(|it| it.protocol == protocol);
        let (used, ports) = rows.fold((0, 0), |(used, ports), it| {
            (used + it.used, ports + it.ports)
        });
        // One that has none any more is over, which is still to be told.
        if ports > 0 || before.iter().any(|it| it == code) {
            all.push(of(code, what, marks.pool, used, ports));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::tests::settled, workers::Shared};
    use std::sync::Arc;

    fn facts(text: &str) -> Facts {
        let config = settled(text).unwrap();
        Facts::of(&config, &config, "test", Arc::new(Shared::default()))
    }

    fn row(protocol: Protocol, used: u64) -> PoolRow {
        PoolRow {
            address: "203.0.113.1".parse().unwrap(),
            protocol,
            used,
            ports: 100,
            high_water: None,
        }
    }

    fn in_use() -> InUse {
        InUse {
            sessions: 0,
            bindings: 0,
            pool: Protocol::ALL.map(|it| row(it, 0)).to_vec(),
            memory: Memory::default(),
        }
    }

    /// Those that are exceeded.
    fn exceeded(facts: &Facts, in_use: &InUse, before: &[&str]) -> Vec<String> {
        let before: Vec<_> = before.iter().map(|it| (*it).to_owned()).collect();
        let all = thresholds(facts, in_use, &before).into_iter();
        all.filter(|it| it.exceeded).map(|it| it.code).collect()
    }

    /// Each by its own marks.
    #[test]
    fn obs_01_everything_has_its_own_marks() {
        let text = "pool = [\"203.0.113.1\"]\nlimits.sessions = 1000\nlimits.bindings = 1000\n\
                    [thresholds]\npool = { low = 10, high = 20 }\nsessions = { low = 30, high = 40 }\n\
                    bindings = { low = 50, high = 60 }\nmemory = { low = 1, high = 2 }";
        let facts = facts(text);
        let mut now = in_use();
        assert_eq!(exceeded(&facts, &now, &[]), [""; 0]);
        now.pool[1].used = 20;
        assert_eq!(exceeded(&facts, &now, &[]), ["pool-udp"]);
        now.pool[1].used = 10;
        assert_eq!(exceeded(&facts, &now, &[]), [""; 0]);
        assert_eq!(exceeded(&facts, &now, &["pool-udp"]), ["pool-udp"]);
        now = in_use();
        (now.sessions, now.bindings) = (400, 599);
        assert_eq!(exceeded(&facts, &now, &[]), ["sessions"]);
        now.bindings = 600;
        assert_eq!(exceeded(&facts, &now, &[]), ["sessions", "bindings"]);
        now = in_use();
        now.memory.fragments = facts.memory.in_all() / 50;
        assert_eq!(exceeded(&facts, &now, &[]), [""; 0]);
        now.memory.fragments += 1;
        assert_eq!(exceeded(&facts, &now, &[]), ["memory"]);
        let shown = thresholds(&facts, &now, &[]);
        let memory = shown.iter().find(|it| it.code == "memory").unwrap();
        assert_eq!((memory.low, memory.high), (1, 2));
        assert_eq!(memory.limit, facts.memory.in_all());
    }

    /// Otherwise nobody would be told that it is over: a reload may take all ports of a protocol away.
    #[test]
    fn obs_01_what_is_not_there_any_more_is_not_near() {
        let facts = facts("pool = [\"203.0.113.1\"]");
        let gone = |before: &[&str]| {
            let mut now = in_use();
            now.pool[2].ports = 0;
            let before: Vec<_> = before.iter().map(|it| (*it).to_owned()).collect();
            let all = thresholds(&facts, &now, &before).into_iter();
            all.map(|it| (it.code, it.exceeded))
                .find(|it| it.0 == "pool-icmp")
        };
        assert_eq!(gone(&["pool-icmp"]), Some(("pool-icmp".to_owned(), false)));
        assert_eq!(gone(&[]), None);
    }

    /// Full tables take what `config check` says, and no table is forgotten.
    #[test]
    fn obs_01_memory_in_use_is_reckoned_as_its_limit() {
        let limit = facts("pool = [\"203.0.113.1\"]\nlimits.sessions = 1000").memory;
        let waiting = |stored_syns, fragments| WaitingBytes {
            stored_syns,
            fragments,
        };
        let empty = memory(&limit, 0, 0, &[waiting(0, 0), waiting(0, 0)]);
        assert_eq!(empty.in_all(), limit.pool);
        let (bindings, sessions) = (limit.bindings / 45, limit.sessions / 75);
        let half = waiting(64 * 1024, 8 << 20);
        assert_eq!(memory(&limit, bindings, sessions, &[half, half]), limit);
    }
}
