//! What the PLAT says about itself.

use std::fmt::Write;

use nat64::{
    stats::{DirectionStats, Stats},
    tuple::Protocol,
};

/// What was counted, with a sentence for every kind of loss.
pub(crate) fn stats(stats: &Stats, host_refused: u64, unreadable: u64) -> String {
    let mut text = String::new();
    direction(&mut text, "from IPv6", &stats.from_v6);
    direction(&mut text, "from IPv4", &stats.from_v4);
    for protocol in Protocol::ALL {
        let at = protocol.index();
        let made = stats.tables.sessions_made[at].get();
        let bindings = stats.tables.bindings_made[at].get();
        let _ = writeln!(
            text,
            "{protocol}: {} sessions ({made} made), {} bindings ({bindings} made)",
            made - stats.tables.sessions_ended[at].get().min(made),
            bindings - stats.tables.bindings_ended[at].get().min(bindings),
        );
    }
    let _ = writeln!(
        text,
        "{host_refused} packets refused by the host, {unreadable} unreadable"
    );
    text
}

fn direction(text: &mut String, name: &str, stats: &DirectionStats) {
    let dropped = stats.dropped_by_state.total() + stats.dropped_by_translation.total();
    let _ = write!(
        text,
        "{name}: {} packets, {} bytes, {} passed, {} kept, {dropped} dropped, {} errors sent\n{}{}",
        stats.packets_in.get(),
        stats.bytes_in.get(),
        stats.passed.get(),
        stats.kept.get(),
        stats.errors_sent.get(),
        stats.dropped_by_state,
        stats.dropped_by_translation
    );
    let stateless = stats.stateless.get();
    if stateless != 0 {
        let around = stats.turned_around.get();
        let _ = writeln!(
            text,
            "  of them {stateless} without state, {around} turned around to another host here"
        );
    }
}
