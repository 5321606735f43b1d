//! Answers for people.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use cli::text::duration;
use control::plat::{
    Amounts, BibRow, ClientRow, Event, Health, HeldBy, HeldRow, PoolRow, RefusedClient, SessionRow,
    StatsRow, Status,
};

pub(super) fn status(status: &Status) -> String {
    let mut text = String::new();
    let uptime = duration(Duration::from_secs(status.uptime));
    let _ = writeln!(
        text,
        "plat {} ({}), up {uptime}, {} workers on {}",
        status.version, status.instance, status.workers, status.interface
    );
    let _ = writeln!(text, "prefixes: {}", status.prefixes.join(", "));
    let _ = writeln!(text, "pool: {}", status.pool.join(", "));
    let mut line = |name: &str, amounts: Amounts, limit: u64| {
        let Amounts { tcp, udp, icmp } = amounts;
        let total = amounts.total();
        let _ = writeln!(
            text,
            "{name}: {total} of {limit} (tcp {tcp}, udp {udp}, icmp {icmp})"
        );
    };
    line("current sessions", status.sessions, status.sessions_limit);
    line("current bindings", status.bindings, status.bindings_limit);
    if status.refused_clients > 0 {
        let _ = writeln!(
            text,
            "refused: clients of {} networks (`plat client refused`)",
            status.refused_clients
        );
    }
    for threshold in status.thresholds.iter().filter(|it| it.exceeded) {
        let _ = writeln!(
            text,
            "warning: {} of {} {} are in use (from {} % on, until under {} %)",
            threshold.value, threshold.limit, threshold.what, threshold.high, threshold.low
        );
    }
    text.push_str(&health(&status.health));
    text
}

pub(super) fn health(health: &Health) -> String {
    let mut text = String::new();
    let word = if health.healthy {
        "healthy"
    } else {
        "NOT HEALTHY"
    };
    let _ = writeln!(text, "{word}");
    for check in &health.checks {
        let word = if check.passed { "ok" } else { "FAILED" };
        let _ = writeln!(text, "  {word:<6} {}: {}", check.name, check.detail);
    }
    text
}

pub(super) fn session_head() -> String {
    format!(
        "{:<5} {:<45} {:<21} {:<21} {:<11} EXPIRES",
        "PROTO", "CLIENT", "POOL", "REMOTE", "STATE"
    )
}

pub(super) fn session(row: &SessionRow) -> String {
    format!(
        "{:<5} {:<45} {:<21} {:<21} {:<11} {}s",
        row.protocol,
        row.client.to_string(),
        row.pool.to_string(),
        row.remote.to_string(),
        row.state,
        row.expires_in
    )
}

pub(super) fn binding_head() -> String {
    format!(
        "{:<5} {:<45} {:<21} {:<8} KIND",
        "PROTO", "CLIENT", "POOL", "SESSIONS"
    )
}

pub(super) fn binding(row: &BibRow) -> String {
    format!(
        "{:<5} {:<45} {:<21} {:<8} {}",
        row.protocol,
        row.client.to_string(),
        row.pool.to_string(),
        row.sessions,
        if row.is_static { "static" } else { "dynamic" }
    )
}

pub(super) fn event(event: &Event) -> String {
    match event {
        Event::SessionCreated(row) => format!("+ {}", session(row)),
        Event::SessionDeleted(row) => format!("- {}", session(row)),
        Event::Captured { packets, .. } => format!("{} packets captured", packets.len()),
        Event::CaptureEnded { .. } => "the capture has ended".to_owned(),
        Event::Lost { count } => format!("! {count} changes were not told: there were too many"),
    }
}

pub(super) fn pool(rows: &[PoolRow]) -> String {
    let mut text = format!(
        "{:<15} {:<5} {:>7} {:>7} {:>4} {:>7}\n",
        "ADDRESS", "PROTO", "USED", "PORTS", "%", "HIGHEST"
    );
    for row in rows {
        let percent = (row.used * 100).checked_div(row.ports).unwrap_or_default();
        let highest = row
            .high_water
            .map_or_else(|| "-".to_owned(), |it| it.to_string());
        let _ = writeln!(
            text,
            "{:<15} {:<5} {:>7} {:>7} {percent:>4} {highest:>7}",
            row.address.to_string(),
            row.protocol,
            row.used,
            row.ports,
        );
    }
    text
}

/// Who has what of the pool. What is about single bindings has the client's port, too.
pub(super) fn held(rows: &[HeldRow], left_off: u64) -> String {
    let mut text = format!(
        "{:<45} {:<15} {:<11} {:<5} BY\n",
        "CLIENT", "POOL", "PORTS", "PROTO"
    );
    for row in rows {
        let client = match row.client_port {
            Some(port) => format!("[{}]:{port}", row.client),
            None => row.client.clone(),
        };
        let ports = match row.ports {
            None => "all".to_owned(),
            Some((first, last)) if first == last => first.to_string(),
            Some((first, last)) => format!("{first}-{last}"),
        };
        let protocol = row.protocol.map_or("all", control::plat::Protocol::name);
        let address = row.address.to_string();
        let _ = write!(
            text,
            "{client:<45} {address:<15} {ports:<11} {protocol:<5} "
        );
        let _ = match (row.by, row.bindings) {
            (HeldBy::Binding | HeldBy::Static, Some(count)) if row.client_port.is_none() => {
                writeln!(text, "{} (of {count} ports)", row.by)
            }
            (by, _) => writeln!(text, "{by}"),
        };
    }
    if left_off > 0 {
        let _ = writeln!(
            text,
            "and at least {left_off} more that are not shown: ask for less"
        );
    }
    text
}

/// Counters that are zero are only shown if all of them are explained.
pub(super) fn stats(rows: &[StatsRow], explain: bool) -> String {
    let mut text = String::new();
    for row in rows.iter().filter(|it| explain || it.value != Some(0.0)) {
        let value = row.value.map_or_else(|| "-".to_owned(), number);
        let _ = write!(text, "{value:>14}  {}", row.code);
        if explain {
            let _ = write!(text, "\n{:16}{}", "", row.sentence);
            if !row.clause.is_empty() {
                let _ = write!(text, " [{}]", row.clause);
            }
        }
        text.push('\n');
    }
    text
}

fn number(value: f64) -> String {
    let decimals = usize::from(value.fract() != 0.0) * 2;
    format!("{value:.decimals$}")
}

/// Those who were refused, and below what the reasons mean.
pub(super) fn refused(rows: &[RefusedClient]) -> String {
    let mut text = format!(
        "{:<24} {:>9} {:>10} {:>10} REASON\n",
        "CLIENT", "PACKETS", "FIRST", "LAST"
    );
    let ago = |seconds| format!("{} ago", duration(Duration::from_secs(seconds)));
    let mut reasons = BTreeMap::new();
    for row in rows {
        let _ = writeln!(
            text,
            "{:<24} {:>9} {:>10} {:>10} {}",
            row.client,
            row.packets,
            ago(row.first_ago),
            ago(row.last_ago),
            row.reason
        );
        reasons.insert(&row.reason, &row.sentence);
    }
    for (reason, sentence) in reasons {
        let _ = writeln!(text, "{reason}: {sentence}");
    }
    text
}

pub(super) fn clients(rows: &[ClientRow]) -> String {
    let mut text = format!("{:<24} {:>9} {:>9}\n", "CLIENT", "SESSIONS", "BINDINGS");
    for row in rows {
        let _ = writeln!(
            text,
            "{:<24} {:>9} {:>9}",
            row.client, row.sessions, row.bindings
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where nothing came, nothing succeeded and nothing failed.
    #[test]
    fn a_rate_of_nothing_is_a_dash() {
        let row = |code: &str, value| StatsRow {
            code: code.to_owned(),
            sentence: "It is so.".to_owned(),
            clause: String::new(),
            value,
        };
        let rows = [
            row("zero", Some(0.0)),
            row("count", Some(3.0)),
            row("rate", Some(99.5)),
            row("none", None),
        ];
        let short = stats(&rows, false);
        let expected = [("3", "count"), ("99.50", "rate"), ("-", "none")];
        let expected = expected.map(|(value, code)| format!("{value:>14}  {code}"));
        assert_eq!(short.lines().collect::<Vec<_>>(), expected);
        let zero = format!("{:>14}  zero\n", 0);
        assert!(stats(&rows, true).contains(&zero));
        let json = serde_json::to_value(&rows[3]).unwrap();
        assert!(json["value"].is_null());
    }
}
