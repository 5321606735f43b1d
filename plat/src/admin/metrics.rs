//! Metrics for Prometheus, at a loopback address. What they are is in `docs/monitoring`.
//!
//! There is one thing to get, and no reason for more HTTP than that takes: one request per
//! connection, of bounded length, within bounded time, from a bounded number of clients.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use ::control::plat::{Health, PoolRow, StatsRow, Threshold};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use super::{Admin, thresholds::thresholds};

/// Connections at once.
const CONNECTIONS: usize = 8;

/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of a request.
const LONGEST: usize = 8 << 10;

/// Serves until it is dropped.
pub(super) async fn serve(admin: Arc<Admin>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let admin = Arc::clone(&admin);
                tokio::spawn(async move {
                    // Whoever is too slow, or gone, gets nothing.
                    let _ = timeout(PATIENCE, answer(stream, &admin)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!("metrics: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, admin: &Admin) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|it| it == b"\r\n\r\n") {
        if request.len() >= LONGEST || stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let line = request.split(|it| *it == b'\r').next().unwrap_or_default();
    let (status, body) = match line {
        b"GET /metrics HTTP/1.1" | b"GET /metrics HTTP/1.0" => ("200 OK", encode(admin).await),
        _ => ("404 Not Found", "only /metrics is here\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/openmetrics-text; version=1.0.0; \
         charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

async fn encode(admin: &Admin) -> String {
    let facts = admin.facts.get();
    let in_use = admin.in_use().await.ok();
    let seen = Seen {
        instance: facts.instance.clone(),
        rows: admin.counters.rows(),
        thresholds: in_use
            .as_ref()
            .map_or_else(Vec::new, |it| thresholds(&facts, it, &admin.exceeded())),
        pool: in_use.map(|it| it.pool).unwrap_or_default(),
        health: admin.health().await,
        limits: (facts.sessions_limit, facts.bindings_limit),
        log_lost: admin.log().map_or(0, |it| it.lost()),
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(seen));
    let mut body = String::new();
    match text::encode(&mut body, &registry) {
        Ok(()) => body,
        Err(error) => format!("# {error}\n"),
    }
}

/// What was seen at one moment.
#[derive(Debug)]
struct Seen {
    instance: String,
    rows: Vec<StatsRow>,
    pool: Vec<PoolRow>,
    thresholds: Vec<Threshold>,
    health: Health,
    limits: (u64, u64),
    log_lost: u64,
}

/// A metric: its name without the prefix, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    name: &'static str,
    help: &'static str,
    grows: bool,
}

const fn gauge(name: &'static str, help: &'static str) -> Name {
    Name {
        name,
        help,
        grows: false,
    }
}

/// Prometheus' text adds `_total` to what grows.
const fn counter(name: &'static str, help: &'static str) -> Name {
    Name {
        name,
        help,
        grows: true,
    }
}

const SESSIONS: Name = gauge("sessions", "Current sessions");
const BINDINGS: Name = gauge("bindings", "Current bindings");
const SESSIONS_LIMIT: Name = gauge("sessions_limit", "Sessions that there may be");
const BINDINGS_LIMIT: Name = gauge("bindings_limit", "Bindings that there may be");
const HEALTHY: Name = gauge("healthy", "Whether a check passes");
const POOL_PORTS: Name = gauge("pool_ports", "Ports that the pool has");
const POOL_USED: Name = gauge("pool_ports_used", "Ports of the pool in use");
const SESSIONS_MADE: Name = counter("sessions_made", "Sessions that were ever made");
const BINDINGS_MADE: Name = counter("bindings_made", "Bindings that were ever made");
const PACKETS: Name = counter("packets", "Packets that came in");
const BYTES: Name = counter("bytes", "Bytes that came in");
const TRANSLATED: Name = counter("translated_packets", "Successful translations");
const TRANSLATED_BYTES: Name = counter("translated_bytes", "Their bytes as they go out");
const DROPPED_BY_CAUSE: Name = counter(
    "dropped_by_cause_packets",
    "Packets that did not pass, by the causes of RFC 8512",
);
const USED: Name = gauge("limited_in_use", "How much is in use of what has a limit");
const LIMIT: Name = gauge("limit", "How much of it there may be");
const THRESHOLD: Name = gauge("threshold_percent", "Where its alarm begins and ends");
const ALARM: Name = gauge("alarm", "Whether it came near to its limit");
const KEPT: Name = counter("kept_packets", "Packets kept until others come");
const DROPPED: Name = counter("dropped_packets", "Packets that did not pass, by reason");
const ERRORS: Name = counter(
    "icmp_errors_sent",
    "Senders that were told with an ICMP error",
);
const CLIENTS_REFUSED: Name = counter(
    "refused_client_packets",
    "Packets of clients that were refused",
);
const HOST_REFUSED: Name = counter("host_refused_packets", "Packets that the host did not take");
const UNREADABLE: Name = counter("unreadable_packets", "Packets that could not be understood");
const JOURNAL_LOST: Name = counter("journal_lost_changes", "Changes of the tables not told");
const LOG_LOST: Name = counter("log_lost_events", "Events that the log has lost");

type Labels = Vec<(&'static str, String)>;

/// The metric that a row is, if it is one.
fn metric(code: &str) -> Option<(Name, Labels)> {
    if let Some(name) = match code {
        "clients.refused" => Some(CLIENTS_REFUSED),
        "host.refused" => Some(HOST_REFUSED),
        "host.unreadable" => Some(UNREADABLE),
        "journal.lost" => Some(JOURNAL_LOST),
        _ => None,
    } {
        return Some((name, Vec::new()));
    }
    let (first, rest) = code.split_once('.')?;
    if first == "dropped" {
        let is_sum = rest == "total";
        return (!is_sum).then(|| (DROPPED_BY_CAUSE, vec![("cause", rest.to_owned())]));
    }
    if let Some(name) = match first {
        "sessions" => Some(SESSIONS),
        "bindings" => Some(BINDINGS),
        "sessions-made" => Some(SESSIONS_MADE),
        "bindings-made" => Some(BINDINGS_MADE),
        _ => None,
    } {
        return Some((name, vec![("protocol", rest.to_owned())]));
    }
    // What is counted in both directions together would be counted twice.
    let direction = first.starts_with("from-");
    let direction = direction.then(|| ("direction", first.to_owned()))?;
    let name = match rest {
        "packets" => PACKETS,
        "bytes" => BYTES,
        "passed" => TRANSLATED,
        "bytes-out" => TRANSLATED_BYTES,
        "kept" => KEPT,
        "errors-sent" => ERRORS,
        _ => {
            let (kind, reason) = rest.split_once('.')?;
            let labels = [("kind", kind.to_owned()), ("reason", reason.to_owned())];
            return Some((DROPPED, [direction].into_iter().chain(labels).collect()));
        }
    };
    Some((name, vec![direction]))
}

impl Seen {
    fn metrics(&self) -> BTreeMap<Name, Vec<(Labels, u64)>> {
        let mut all: BTreeMap<Name, Vec<_>> = BTreeMap::new();
        let mut add = |name: Name, mut labels: Labels, value: u64| {
            labels.push(("instance", self.instance.clone()));
            all.entry(name).or_default().push((labels, value));
        };
        for row in &self.rows {
            if let (Some((name, labels)), Some(value)) = (metric(&row.code), row.value) {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "it was a count"
                )]
                add(name, labels, value as u64);
            }
        }
        for row in &self.pool {
            let labels = || {
                vec![
                    ("address", row.address.to_string()),
                    ("protocol", row.protocol.to_string()),
                ]
            };
            add(POOL_PORTS, labels(), row.ports);
            add(POOL_USED, labels(), row.used);
        }
        for it in &self.thresholds {
            let labels = || vec![("of", it.code.clone())];
            add(USED, labels(), it.value);
            add(LIMIT, labels(), it.limit);
            add(ALARM, labels(), it.exceeded.into());
            for (mark, percent) in [("high", it.high), ("low", it.low)] {
                let mark = ("mark", mark.to_owned());
                let labels = labels().into_iter().chain([mark]).collect();
                add(THRESHOLD, labels, percent.into());
            }
        }
        for check in &self.health.checks {
            let labels = vec![("check", check.name.clone())];
            add(HEALTHY, labels, check.passed.into());
        }
        add(SESSIONS_LIMIT, Vec::new(), self.limits.0);
        add(BINDINGS_LIMIT, Vec::new(), self.limits.1);
        add(LOG_LOST, Vec::new(), self.log_lost);
        all
    }
}

impl Collector for Seen {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, values) in self.metrics() {
            let mut full = String::new();
            write!(full, "openclat_plat_{}", name.name)?;
            let kind = if name.grows {
                MetricType::Counter
            } else {
                MetricType::Gauge
            };
            let mut metric = encoder.encode_descriptor(&full, name.help, None, kind)?;
            for (labels, value) in values {
                let one = metric.encode_family(&labels)?;
                if name.grows {
                    ConstCounter::new(value).encode(one)?;
                } else {
                    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(one)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Every name that begins with ours.
    fn names(text: &str) -> BTreeSet<&str> {
        let is_part = |it: char| it.is_ascii_lowercase() || it == '_';
        text.match_indices("openclat_plat_")
            .map(|(at, _)| &text[at..])
            .map(|it| &it[..it.find(|c| !is_part(c)).unwrap_or(it.len())])
            .collect()
    }

    /// A dashboard or a rule with a metric that there is not shows nothing, and says nothing.
    pub(in super::super) fn check_documents(exposed: &str) {
        let exposed = names(exposed);
        for (file, text) in [
            (
                "dashboard",
                include_str!("../../../docs/monitoring/plat-dashboard.json"),
            ),
            (
                "alerts",
                include_str!("../../../docs/monitoring/plat-alerts.yml"),
            ),
            (
                "metrics.md",
                include_str!("../../../docs/monitoring/metrics.md"),
            ),
        ] {
            let named = names(text);
            let unknown: Vec<_> = named.difference(&exposed).collect();
            assert!(
                unknown.is_empty() && !named.is_empty(),
                "{file}: {unknown:?}"
            );
        }
        let documented = names(include_str!("../../../docs/monitoring/metrics.md"));
        let samples: BTreeSet<_> = exposed
            .iter()
            .copied()
            .filter(|it| !exposed.contains(format!("{it}_total").as_str()))
            .collect();
        let missing: Vec<_> = samples.difference(&documented).collect();
        assert!(missing.is_empty(), "not documented: {missing:?}");
    }

    /// The counters of RFC 8512 and what has a limit, each way where there are two.
    #[test]
    fn obs_01_the_dashboard_shows_the_counters() {
        let text = include_str!("../../../docs/monitoring/plat-dashboard.json");
        let dashboard: serde_json::Value = serde_json::from_str(text).unwrap();
        let panels = dashboard["panels"].as_array().unwrap();
        let mut ids: Vec<_> = panels.iter().map(|it| it["id"].as_u64().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), panels.len());
        let mut places: Vec<_> = panels.iter().map(|it| it["gridPos"].to_string()).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), panels.len());
        let targets = panels
            .iter()
            .flat_map(|it| it["targets"].as_array().unwrap());
        let shown: Vec<_> = targets.map(|it| it["expr"].as_str().unwrap()).collect();
        for name in [
            SESSIONS,
            BINDINGS,
            SESSIONS_MADE,
            BINDINGS_MADE,
            PACKETS,
            BYTES,
            TRANSLATED,
            TRANSLATED_BYTES,
            KEPT,
            DROPPED,
            DROPPED_BY_CAUSE,
            ERRORS,
            USED,
            LIMIT,
            THRESHOLD,
            ALARM,
            POOL_PORTS,
            POOL_USED,
            HEALTHY,
        ] {
            let total = if name.grows { "_total" } else { "" };
            let full = format!("openclat_plat_{}{total}{{", name.name);
            assert!(shown.iter().any(|it| it.contains(&full)), "{full}");
        }
        let rate = |name: Name| {
            let full = format!("openclat_plat_{}_total", name.name);
            format!("sum by (direction) (rate({full}{{instance=~\"$instance\"}}[5m]))")
        };
        let success = format!("{} / {}", rate(TRANSLATED), rate(PACKETS));
        assert!(shown.contains(&success.as_str()), "{success}");
    }

    #[test]
    fn a_drop_keeps_its_reason() {
        let (name, labels) = metric("from-v6.drop.no-binding").unwrap();
        assert_eq!(name, DROPPED);
        assert_eq!(labels[0], ("direction", "from-v6".to_owned()));
        assert_eq!(labels[2], ("reason", "no-binding".to_owned()));
        let (name, labels) = metric("dropped.port-limit").unwrap();
        assert_eq!(
            (name, labels[0].1.as_str()),
            (DROPPED_BY_CAUSE, "port-limit")
        );
        // The sum would be counted twice.
        for sum in [
            "dropped.total",
            "traffic.packets-in",
            "traffic.bytes-out",
            "use.memory.percent",
        ] {
            assert_eq!(metric(sum), None);
        }
        assert_eq!(metric("from-v6.dropped"), None);
        assert_eq!(metric("sessions"), None);
    }
}
