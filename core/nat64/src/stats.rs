//! What a NAT64 counts.

use std::sync::Arc;

use wire::{
    counters::{Counter, ReasonCounters},
    packet::PacketBuf,
    verdict::Verdict,
};

use crate::reason::{DropReason, Why};

/// What one direction counted.
#[derive(Debug, Default)]
pub struct DirectionStats {
    /// Packets that came in.
    pub packets_in: Counter,
    /// Their bytes.
    pub bytes_in: Counter,
    /// Packets that were translated.
    pub passed: Counter,
    /// Their bytes as they leave. What leaves in pieces counts as it was before it was divided.
    pub bytes_out: Counter,
    /// Packets that were kept: fragments until their datagram is whole, whose last one then counts
    /// for it, and SYNs until their client sends one. Those that waited in vain are counted as
    /// dropped, besides, by [`xlat::DropReason::OF_DATAGRAMS`] and
    /// [`DropReason::SynUnanswered`]; without these, `packets_in` is `passed`, `kept` and all that
    /// were dropped.
    pub kept: Counter,
    /// Those of them that were translated without state, by an explicit mapping.
    pub stateless: Counter,
    /// Packets that were turned around to another host behind this NAT64.
    pub turned_around: Counter,
    /// Packets dropped by state, whether or not their sender was told.
    pub dropped_by_state: ReasonCounters<DropReason>,
    /// Packets dropped by translation, whether or not their sender was told;
    /// [`xlat::DropReason::OF_DATAGRAMS`] count datagrams.
    pub dropped_by_translation: ReasonCounters<xlat::DropReason>,
    /// Dropped packets whose sender was told.
    pub errors_sent: Counter,
}

impl DirectionStats {
    pub(crate) fn came(&self, buf: &PacketBuf) {
        self.packets_in.add(1);
        self.bytes_in.add(buf.len() as u64);
    }

    /// What became of the packet in `buf`.
    pub(crate) fn went(&self, verdict: &Verdict<Why>, buf: &PacketBuf) {
        match verdict {
            Verdict::Forward(pieces) if pieces.is_none() => self.kept.add(1),
            Verdict::Forward(_) => {
                self.passed.add(1);
                self.bytes_out.add(buf.len() as u64);
            }
            Verdict::Reply(why) => {
                self.dropped(*why);
                self.errors_sent.add(1);
            }
            Verdict::Drop(why) => self.dropped(*why),
        }
    }

    fn dropped(&self, why: Why) {
        match why {
            Why::State(reason) => self.dropped_by_state.count(reason),
            Why::Translation(reason) => self.dropped_by_translation.count(reason),
        }
    }
}

impl DirectionStats {
    fn add(&self, other: &Self) {
        let Self {
            packets_in,
            bytes_in,
            passed,
            bytes_out,
            kept,
            stateless,
            turned_around,
            dropped_by_state,
            dropped_by_translation,
            errors_sent,
        } = other;
        self.packets_in.add(packets_in.get());
        self.bytes_in.add(bytes_in.get());
        self.passed.add(passed.get());
        self.bytes_out.add(bytes_out.get());
        self.kept.add(kept.get());
        self.stateless.add(stateless.get());
        self.turned_around.add(turned_around.get());
        self.errors_sent.add(errors_sent.get());
        for (reason, count) in dropped_by_state.nonzero() {
            self.dropped_by_state.add(reason, count);
        }
        for (reason, count) in dropped_by_translation.nonzero() {
            self.dropped_by_translation.add(reason, count);
        }
    }
}

/// What the tables counted, by [`crate::tuple::Protocol::index`].
#[derive(Clone, Debug, Default)]
pub struct TableStats {
    /// Bindings that were made.
    pub bindings_made: [Arc<Counter>; 3],
    /// Bindings that ended with their last session.
    pub bindings_ended: [Arc<Counter>; 3],
    /// Sessions that were made.
    pub sessions_made: [Arc<Counter>; 3],
    /// Sessions that ended.
    pub sessions_ended: [Arc<Counter>; 3],
    /// SYNs of servers that were stored.
    pub syns_stored: Arc<Counter>,
    /// Of those, the ones whose client sent a SYN, too.
    pub syns_met: Arc<Counter>,
    /// RST and FIN of connections that are elsewhere; they passed and changed no state.
    pub segments_doubted: Arc<Counter>,
    /// Probes to clients whose connection was idle too long.
    pub probes_sent: Arc<Counter>,
    /// Those that were not sent because too many were due at once.
    pub probes_lost: Arc<Counter>,
    /// Changes that were lost because the journal was not drained in time.
    pub changes_lost: Arc<Counter>,
}

impl TableStats {
    fn add(&self, other: &Self) {
        let Self {
            bindings_made,
            bindings_ended,
            sessions_made,
            sessions_ended,
            syns_stored,
            syns_met,
            segments_doubted,
            probes_sent,
            probes_lost,
            changes_lost,
        } = other;
        self.syns_stored.add(syns_stored.get());
        self.syns_met.add(syns_met.get());
        self.segments_doubted.add(segments_doubted.get());
        self.probes_sent.add(probes_sent.get());
        self.probes_lost.add(probes_lost.get());
        self.changes_lost.add(changes_lost.get());
        for (sum, counters) in [
            (&self.bindings_made, bindings_made),
            (&self.bindings_ended, bindings_ended),
            (&self.sessions_made, sessions_made),
            (&self.sessions_ended, sessions_ended),
        ] {
            for (sum, counter) in sum.iter().zip(counters) {
                sum.add(counter.get());
            }
        }
    }
}

/// Everything a NAT64 counts, shared with whoever wants to read it.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// From clients.
    pub from_v6: Arc<DirectionStats>,
    /// From servers.
    pub from_v4: Arc<DirectionStats>,
    /// Bindings and sessions.
    pub tables: TableStats,
}

impl Stats {
    /// What all shards of a NAT64 counted together, as it is now.
    #[must_use]
    pub fn sum<'a>(shards: impl IntoIterator<Item = &'a Self>) -> Self {
        let sum = Self::default();
        for shard in shards {
            sum.from_v6.add(&shard.from_v6);
            sum.from_v4.add(&shard.from_v4);
            sum.tables.add(&shard.tables);
        }
        sum
    }
}
