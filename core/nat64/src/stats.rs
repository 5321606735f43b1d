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
    /// Packets that were translated, or kept until the rest of their datagram comes.
    pub passed: Counter,
    /// Those of them that were translated without state, by an explicit mapping.
    pub stateless: Counter,
    /// Packets that were turned around to another host behind this NAT64.
    pub turned_around: Counter,
    /// Packets dropped by state, whether or not their sender was told.
    pub dropped_by_state: ReasonCounters<DropReason>,
    /// Packets dropped by translation, whether or not their sender was told;
    /// [`xlat::DropReason::FragmentTimeout`] counts datagrams.
    pub dropped_by_translation: ReasonCounters<xlat::DropReason>,
    /// Dropped packets whose sender was told.
    pub errors_sent: Counter,
}

impl DirectionStats {
    pub(crate) fn came(&self, buf: &PacketBuf) {
        self.packets_in.add(1);
        self.bytes_in.add(buf.len() as u64);
    }

    pub(crate) fn went(&self, verdict: &Verdict<Why>) {
        match verdict {
            Verdict::Forward(_) => self.passed.add(1),
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
