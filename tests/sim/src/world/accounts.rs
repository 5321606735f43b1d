//! What must hold after every step.

use std::collections::HashSet;

use clat_core::engine::DirectionStats;
use wire::counters::ReasonCounters;

use super::{MOST_BINDINGS, MOST_SESSIONS, POOL, PORTS, World};

impl World {
    pub(super) fn check_accounts(&self) {
        for client in &self.clients {
            check_clat(&client.outbound.stats());
            check_clat(&client.inbound.stats());
        }
        let stats = self.plat.stats();
        for direction in [&stats.from_v6, &stats.from_v4] {
            let dropped = direction.dropped_by_state.total()
                + direction.dropped_by_translation.total()
                - given_up(&direction.dropped_by_translation);
            let went_on = direction.passed.get() + direction.kept.get();
            assert_eq!(direction.packets_in.get(), went_on + dropped);
        }
    }

    pub(super) fn check_tables(&self) {
        let (bindings, sessions) = self.plat.table_sizes();
        assert!(bindings <= MOST_BINDINGS && sessions <= MOST_SESSIONS);
        let (mut inside, mut outside, mut used) = (HashSet::new(), HashSet::new(), 0);
        for binding in self.plat.bindings() {
            let id = binding.outside.id;
            assert_eq!(binding.outside.address, POOL);
            assert!(
                (PORTS.0..=PORTS.1).contains(&id),
                "port {id} is not in the pool"
            );
            assert!(
                inside.insert((binding.protocol, binding.inside)),
                "{binding:?}"
            );
            assert!(
                outside.insert((binding.protocol, binding.outside)),
                "{binding:?}"
            );
            used += binding.sessions as usize;
        }
        assert_eq!((inside.len(), used), (bindings, sessions));
    }
}

pub(super) fn check_clat(stats: &DirectionStats) {
    let dropped = stats.dropped.total() - given_up(&stats.dropped);
    assert_eq!(stats.packets_in.get(), stats.translated.get() + dropped);
}

/// Datagrams whose fragments were counted when they came.
fn given_up(dropped: &ReasonCounters<xlat::DropReason>) -> u64 {
    xlat::DropReason::OF_DATAGRAMS
        .map(|it| dropped.get(it))
        .iter()
        .sum()
}
