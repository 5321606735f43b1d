//! The event log: who had which address and port of the pool when, and what there was not enough
//! of, by the names and numbers of RFC 8158, one JSON object per line.
//!
//! Where clients went to is not written down (RFC 6888 REQ-12) unless `[log] destinations` says so;
//! then sessions are written instead of bindings, never both (RFC 8158 §4). A file that is full is
//! renamed, and the oldest is removed. The thread that writes is given lines by a queue of bounded
//! length, in which nothing ever waits for it: what does not fit is lost, counted, and said.

mod rotation;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::Ipv4Addr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ::control::plat::{BibRow, Protocol, SessionRow, Threshold};
use cli::seldom::{LeftOut, Seldom};
use nat64::{
    bib::Binding,
    blocks::{Blocks, PortBlock},
    journal::{Change, Refusal, SessionRecord},
};
use serde_json::{Map, Value};
use wire::verdict::Reason;

use self::rotation::{Rotating, Rotation};
use super::{feed::Listener, rows};
use crate::config::log::Log as Config;

/// The number of events that RFC 8158 has none for.
const OWN: u8 = 0;

/// Lines that wait for the thread that writes.
const WAITING: usize = 1 << 14;

/// Of those, lines about what there was before the log. The rest is for what happens meanwhile.
const WAITING_KNOWN: usize = WAITING / 4;

/// What there is not enough of is written down once in this time, per kind.
const SELDOM: Duration = Duration::from_secs(1);

/// How long the end waits until everything is written.
const LAST: Duration = Duration::from_secs(2);

/// What the thread that writes is given.
#[derive(Debug)]
enum Line {
    Text(String),
    /// What there was before the log. So many of them wait at most: [`WAITING_KNOWN`].
    Known(String),
    /// Says that so many were lost.
    Lost(String, u64),
    /// Answered when everything before it is written.
    Sync(SyncSender<()>),
}

/// The names of RFC 8158.
const MADE_BINDING: &str = "NAT64 BIB create";
const MADE_SESSION: &str = "NAT64 session create";
const TAKEN_BLOCK: &str = "Port block allocation";

/// Something that was there before the log.
#[derive(Debug)]
pub(super) enum Known {
    Binding(BibRow),
    Session(SessionRow),
    Block(PortBlock),
}

/// What tells whose a port was. Only one of them is written (RFC 8158 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logged {
    Bindings,
    /// With the servers they go to.
    Sessions,
    /// Whose a block is says it for all its ports.
    Blocks,
}

impl Logged {
    fn of(config: &Config, blocks: Blocks) -> Self {
        match blocks {
            _ if config.destinations => Self::Sessions,
            Blocks::None => Self::Bindings,
            Blocks::Dynamic(_) | Blocks::Deterministic(_) => Self::Blocks,
        }
    }
}

/// Events that are not in the log.
#[derive(Debug, Default)]
struct Losses {
    /// Not said yet.
    untold: AtomicU64,
    in_all: AtomicU64,
}

impl Losses {
    fn add(&self, count: u64) {
        self.untold.fetch_add(count, Ordering::Relaxed);
        self.in_all.fetch_add(count, Ordering::Relaxed);
    }

    /// That so many were lost was to be said, and was lost as well.
    fn not_told(&self, count: u64) {
        self.untold.fetch_add(count, Ordering::Relaxed);
    }
}

/// The log.
#[derive(Clone, Debug)]
pub(crate) struct EventLog {
    lines: SyncSender<Line>,
    file: Arc<Path>,
    rotation: Arc<Rotation>,
    /// Whether it is told of changes no more.
    left: Arc<AtomicBool>,
    losses: Arc<Losses>,
    /// How many [`Line::Known`] wait.
    known: Arc<AtomicUsize>,
    what: Logged,
    instance: String,
    /// When each kind of exhaustion was written last, and how often it was not since.
    exhaustions: Seldom<(u8, u8)>,
}

impl EventLog {
    /// Opens the file, and begins the thread that writes. Nothing is written yet.
    ///
    /// # Errors
    /// The system's, if the file cannot be opened or there are no more threads.
    pub(crate) fn open(config: &Config, blocks: Blocks, instance: &str) -> io::Result<Self> {
        let rotation = Arc::new(Rotation::of(config));
        let writer = Rotating::open(&config.file, Arc::clone(&rotation))?;
        let (lines, queue) = sync_channel(WAITING);
        let thread = thread::Builder::new().name("plat-log".to_owned());
        let log = Self::to(lines, Logged::of(config, blocks), instance);
        let (losses, known) = (Arc::clone(&log.losses), Arc::clone(&log.known));
        thread.spawn(move || write_all(&queue, writer, &losses, &known))?;
        Ok(Self {
            file: config.file.as_path().into(),
            rotation,
            ..log
        })
    }

    /// The same file, for a listener by another configuration of it that takes the place of this one.
    pub(crate) fn turned_to(&self, config: &Config, blocks: Blocks) -> Self {
        Self {
            what: Logged::of(config, blocks),
            left: Arc::default(),
            ..self.clone()
        }
    }

    /// When the file is full, and how many old ones there are, from the next line on.
    pub(crate) fn rotate_by(&self, config: &Config) {
        self.rotation.set(config);
    }

    /// Whether it is written into this file.
    pub(crate) fn is_in(&self, file: &Path) -> bool {
        *self.file == *file
    }

    /// Whether both are written into one file.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.is_in(&other.file)
    }

    /// Whether what is in the other one is not in this file.
    pub(super) fn tells_other_than(&self, other: &Self) -> bool {
        !self.is_same(other) || self.what != other.what
    }

    /// Says that `plat` begins, without any binding.
    pub(crate) fn started(&self) {
        self.write(self.event(OWN, "started"));
    }

    /// Says that it was opened while there were so many bindings and sessions.
    pub(crate) fn opened(&self, bindings: u64, sessions: u64) {
        let mut event = self.event(OWN, "opened");
        event.insert("bindings".to_owned(), bindings.into());
        event.insert("sessions".to_owned(), sessions.into());
        self.write(event);
    }

    /// It is told of changes no more.
    pub(crate) fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// Says that nothing more is written, although bindings go on. Does not wait.
    pub(crate) fn closed(&self) {
        self.write(self.event(OWN, "closed"));
    }

    /// Says that `plat` ends, which every binding does with it, and waits until that is written: for
    /// two seconds at most.
    pub(crate) fn end(&self) {
        self.write(self.event(OWN, "stopped"));
        let (done, written) = sync_channel(1);
        // A thread that stands still has a full queue.
        if self.lines.try_send(Line::Sync(done)).is_ok() {
            let _ = written.recv_timeout(LAST);
        }
    }

    fn to(lines: SyncSender<Line>, what: Logged, instance: &str) -> Self {
        Self {
            lines,
            file: Path::new("").into(),
            rotation: Arc::new(Rotation::never()),
            left: Arc::default(),
            losses: Arc::default(),
            known: Arc::default(),
            what,
            instance: instance.to_owned(),
            exhaustions: Seldom::every(SELDOM),
        }
    }

    /// How many events were lost so far.
    pub(crate) fn lost(&self) -> u64 {
        self.losses.in_all.load(Ordering::Relaxed)
    }

    /// An address of the pool has no port left for a protocol; others of the pool may have
    /// (RFC 8158).
    pub(crate) fn ports_exhausted(&self, address: Ipv4Addr, protocol: Protocol) {
        let mut event = self.event(12, "NAT ports exhausted");
        event.insert("pool".to_owned(), address.to_string().into());
        event.insert("protocol".to_owned(), protocol.name().into());
        self.write(event);
    }

    /// Something came near to its limit, or is no longer near.
    pub(crate) fn threshold(&self, threshold: &Threshold) {
        let mut event = self.event(18, "Threshold Reached");
        if let Some(number) = threshold_event(threshold) {
            event.insert("threshold".to_owned(), number.into());
        }
        event.insert("code".to_owned(), threshold.code.clone().into());
        event.insert("what".to_owned(), threshold.what.clone().into());
        event.insert("value".to_owned(), threshold.value.into());
        event.insert("limit".to_owned(), threshold.limit.into());
        event.insert("high_percent".to_owned(), threshold.high.into());
        event.insert("low_percent".to_owned(), threshold.low.into());
        event.insert("exceeded".to_owned(), threshold.exceeded.into());
        self.write(event);
    }

    fn event(&self, id: u8, name: &str) -> Map<String, Value> {
        let mut event = Map::new();
        event.insert("time".to_owned(), timestamp(SystemTime::now()).into());
        event.insert("instance".to_owned(), self.instance.clone().into());
        event.insert("event".to_owned(), id.into());
        event.insert("name".to_owned(), name.into());
        event
    }

    fn write(&self, event: Map<String, Value>) {
        let lost = self.losses.untold.swap(0, Ordering::Relaxed);
        if lost > 0 && !self.queue(self.lost_line(lost)) {
            self.losses.not_told(lost);
        }
        if !self.queue(Line::Text(Value::Object(event).to_string())) {
            self.losses.add(1);
        }
    }

    fn lost_line(&self, count: u64) -> Line {
        let mut event = self.event(OWN, "lost");
        event.insert("count".to_owned(), count.into());
        Line::Lost(Value::Object(event).to_string(), count)
    }

    fn queue(&self, line: Line) -> bool {
        self.lines.try_send(line).is_ok()
    }

    fn binding(&self, id: u8, name: &str, binding: &Binding) {
        // A static binding may be in anybody's block.
        if self.what != Logged::Bindings && !(self.what == Logged::Blocks && binding.is_static) {
            return;
        }
        self.write(self.binding_event(id, name, &rows::binding(binding)));
    }

    fn binding_event(&self, id: u8, name: &str, row: &BibRow) -> Map<String, Value> {
        let mut event = self.event(id, name);
        client(&mut event, row.protocol, row.client, row.pool);
        event.insert("static".to_owned(), row.is_static.into());
        event
    }

    fn session(&self, id: u8, name: &str, record: &SessionRecord) {
        if self.what != Logged::Sessions {
            return;
        }
        let protocol = rows::protocol(record.state.protocol());
        let (inside, pool) = (rows::end6(record.inside), rows::end4(record.outside));
        let mut event = self.event(id, name);
        client(&mut event, protocol, inside, pool);
        remote(&mut event, rows::end4(record.remote));
        self.write(event);
    }

    fn block_event(&self, id: u8, name: &str, block: &PortBlock) -> Map<String, Value> {
        let mut event = self.event(id, name);
        event.insert("subscriber".to_owned(), block.subscriber.to_string().into());
        event.insert("pool".to_owned(), block.address.to_string().into());
        event.insert("port_first".to_owned(), block.ports.first().into());
        event.insert("port_last".to_owned(), block.ports.last().into());
        event
    }

    /// What is written down.
    pub(super) fn what(&self) -> Logged {
        self.what
    }

    /// Whether it is still told of changes.
    pub(super) fn is_told(&self) -> bool {
        !self.left.load(Ordering::Relaxed)
    }

    /// Tells of what there was before the log was opened. False if there is no room just now: what
    /// happens meanwhile is not to be lost for it.
    pub(super) fn tell_known(&self, known: &Known) -> bool {
        if self.known.fetch_add(1, Ordering::Relaxed) < WAITING_KNOWN
            && self.queue(Line::Known(self.known_line(known)))
        {
            return true;
        }
        self.known.fetch_sub(1, Ordering::Relaxed);
        false
    }

    fn known_line(&self, known: &Known) -> String {
        let mut event = match known {
            Known::Binding(row) => self.binding_event(10, MADE_BINDING, row),
            Known::Session(row) => {
                let mut event = self.event(6, MADE_SESSION);
                client(&mut event, row.protocol, row.client, row.pool);
                remote(&mut event, row.remote);
                event
            }
            Known::Block(block) => self.block_event(16, TAKEN_BLOCK, block),
        };
        event.insert("before".to_owned(), true.into());
        Value::Object(event).to_string()
    }

    /// Says that all of it is told: so many.
    pub(super) fn known(&self, count: u64) {
        let mut event = self.event(OWN, "known");
        event.insert("count".to_owned(), count.into());
        self.write(event);
    }

    /// What says whose a port is, where nothing else does: at the start, and once a day, so that it
    /// is in every log that is kept (RFC 7422 §4).
    pub(crate) fn parameters(&self, config: &nat64::Config) {
        let texts = |all: &mut dyn Iterator<Item = String>| Value::from_iter(all);
        let mut event = self.event(0, "parameters");
        let blocks = crate::config::blocks::value(config.blocks);
        event.insert("blocks".to_owned(), blocks);
        event.insert("prefix_len".to_owned(), config.quotas.prefix_len.into());
        let clients = texts(&mut config.clients.iter().map(ToString::to_string));
        event.insert("clients".to_owned(), clients);
        let pool = texts(&mut config.pool.iter().map(|it| it.address.to_string()));
        event.insert("pool".to_owned(), pool);
        self.write(event);
    }

    fn refused(&mut self, refusal: &Refusal, now: Instant) {
        let Some((id, quota)) = exhaustion(refusal.why.code()) else {
            return;
        };
        let Some(LeftOut(suppressed)) = self.exhaustions.say((id, quota), now) else {
            return;
        };
        let name = match id {
            3 => "NAT Addresses exhausted",
            12 => "NAT ports exhausted",
            _ => "Quota Exceeded",
        };
        let mut event = self.event(id, name);
        let protocol = rows::protocol(refusal.protocol);
        event.insert("protocol".to_owned(), protocol.name().into());
        event.insert("reason".to_owned(), refusal.why.code().into());
        event.insert("suppressed".to_owned(), suppressed.into());
        if quota > 0 {
            event.insert("quota".to_owned(), quota.into());
        }
        if let Some(inside) = refusal.inside {
            event.insert("client".to_owned(), inside.address.to_string().into());
            event.insert("client_port".to_owned(), inside.id.into());
        }
        self.write(event);
    }
}

/// The event and, of a quota, which (RFC 8158 §5), by the code of a drop reason.
fn exhaustion(code: &str) -> Option<(u8, u8)> {
    match code {
        "pool-exhausted" => Some((3, 0)),
        "ports-exhausted" => Some((12, 0)),
        "too-many-sessions" | "too-many-from-outside" => Some((13, 1)),
        "too-many-bindings" => Some((13, 2)),
        _ if code.starts_with("subscriber-") || code.starts_with("address-") => Some((13, 3)),
        _ => None,
    }
}

/// The number of a threshold event (RFC 8158 §5), where there is one for it.
fn threshold_event(threshold: &Threshold) -> Option<u8> {
    match (threshold.code.as_str(), threshold.exceeded) {
        ("pool-tcp" | "pool-udp" | "pool-icmp", true) => Some(1),
        ("pool-tcp" | "pool-udp" | "pool-icmp", false) => Some(2),
        ("bindings", true) => Some(3),
        _ => None,
    }
}

fn client(
    event: &mut Map<String, Value>,
    protocol: Protocol,
    client: std::net::SocketAddrV6,
    pool: std::net::SocketAddrV4,
) {
    event.insert("protocol".to_owned(), protocol.name().into());
    event.insert("client".to_owned(), client.ip().to_string().into());
    event.insert("client_port".to_owned(), client.port().into());
    event.insert("pool".to_owned(), pool.ip().to_string().into());
    event.insert("pool_port".to_owned(), pool.port().into());
}

fn remote(event: &mut Map<String, Value>, remote: std::net::SocketAddrV4) {
    event.insert("remote".to_owned(), remote.ip().to_string().into());
    event.insert("remote_port".to_owned(), remote.port().into());
}

impl Listener for EventLog {
    fn is_there(&self) -> bool {
        self.is_told()
    }

    fn told(&mut self, change: &Change, now: Instant) {
        match change {
            Change::BindingMade(binding) => self.binding(10, MADE_BINDING, binding),
            Change::BindingEnded(binding) => self.binding(11, "NAT64 BIB delete", binding),
            Change::SessionMade(record) => self.session(6, MADE_SESSION, record),
            Change::SessionEnded(record, _) => self.session(7, "NAT64 session delete", record),
            Change::Refused(refusal) => self.refused(refusal, now),
            Change::Lost(count) => self.losses.add(*count),
            Change::BlockTaken(block) => self.write(self.block_event(16, TAKEN_BLOCK, block)),
            Change::BlockGiven(block) => {
                self.write(self.block_event(17, "Port block deallocation", block));
            }
            Change::BindingChanged(_) | Change::SessionChanged(_) => {}
        }
    }
}

/// A time as RFC 3339 writes it, in UTC.
fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// The date so many days after 1970-01-01. Years are counted from March, so that the leap day is
/// the last of one.
fn date(days: u64) -> (u64, u64, u64) {
    // Days from 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

fn write_all(queue: &Receiver<Line>, mut writer: Rotating, losses: &Losses, known: &AtomicUsize) {
    let mut failing = false;
    for line in queue {
        if matches!(line, Line::Known(_)) {
            known.fetch_sub(1, Ordering::Relaxed);
        }
        let written = match &line {
            Line::Text(text) | Line::Known(text) | Line::Lost(text, _) => writer.write(text),
            Line::Sync(done) => {
                let _ = done.send(());
                continue;
            }
        };
        if let Err(error) = &written {
            match line {
                Line::Text(_) | Line::Known(_) => losses.add(1),
                Line::Lost(_, count) => losses.not_told(count),
                Line::Sync(_) => {}
            }
            // Once, not for each line.
            if !failing {
                tracing::warn!("the event log: {error}");
            }
        }
        failing = written.is_err();
    }
}
