//! The control socket: what people and programs may ask a running `plat`.
//!
//! Everybody on the host may read how it is; who talks to whom and what they send, and what changes
//! something, is for root, the service's own user and the members of [`GROUP`]. Who asks is the
//! kernel's word. What is asked of the tables goes to the workers
//! as orders, a page at a time, so that no list holds up packets.

mod capture;
mod causes;
mod control;
mod facts;
mod feed;
mod known;
mod lists;
mod log;
mod metrics;
pub(crate) mod rows;
mod stats;
#[cfg(test)]
mod tests;
mod thresholds;
mod whose;

use std::{
    net::Ipv4Addr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use ::control::{
    Problem, ProblemCode,
    envelope::Hello,
    plat::{
        Answer, Check, Filter, Health, PoolRow, Protocol, StaticBinding, StatsRow, Status, Verb,
    },
};
use cli::Exit;
use ipc::{Limits, Peer, Service, Subscriber, transport};
use nat64::{Engine, static_bib::StaticError};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::{
    config::Config,
    workers::{Orders, Unanswered},
};

pub(crate) use self::control::Control;
use facts::CurrentFacts;
pub(crate) use facts::{Facts, Host};
use feed::{Feed, Follower};
pub(crate) use log::EventLog;
use stats::Counters;
use thresholds::{InUse, thresholds};

/// The group whose members may change something, and see who talks to whom.
pub(crate) const GROUP: &str = "openclat";

/// The user that the service runs as, if it is not root.
pub(crate) const SERVICE_USER: &str = "openclat-plat";

/// The socket's name in the state directory.
pub(crate) const SOCKET: &str = "control.sock";

/// Something that only the main loop can do.
#[derive(Debug)]
pub(crate) struct ReloadOrder {
    /// What exactly.
    pub(crate) what: Reload,
    /// Where the answer goes: one sentence.
    pub(crate) answer: oneshot::Sender<Result<String, Problem>>,
}

/// What is to become of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reload {
    /// Read it again; go back by itself unless it is confirmed in so many seconds.
    Read {
        /// In seconds.
        confirm_within: Option<u32>,
    },
    /// Keep what was read last.
    Confirm,
}

/// What is served at the control socket.
pub(crate) struct Admin {
    orders: Orders,
    facts: CurrentFacts,
    host: Arc<Host>,
    counters: Counters,
    feed: Feed,
    started: Instant,
    reload: mpsc::Sender<ReloadOrder>,
    log: Mutex<Option<EventLog>>,
    /// Workers that did nothing between the last two looks.
    missing: Mutex<Vec<usize>>,
    /// Addresses of the pool without a free port when it was looked last.
    full: Mutex<Vec<(Ipv4Addr, Protocol)>>,
    /// What was above its threshold when it was looked last.
    exceeded: Mutex<Vec<String>>,
}

impl Admin {
    /// For these workers.
    ///
    /// # Errors
    /// If they do not answer.
    pub(crate) async fn new(
        orders: Orders,
        facts: Facts,
        host: Arc<Host>,
        reload: mpsc::Sender<ReloadOrder>,
    ) -> Result<Self, Unanswered> {
        Ok(Self {
            counters: Counters::of(&orders, Arc::clone(&facts.shared)).await?,
            feed: Feed::new(orders.clone()),
            started: Instant::now(),
            orders,
            facts: CurrentFacts::new(facts),
            host,
            reload,
            log: Mutex::default(),
            missing: Mutex::default(),
            full: Mutex::default(),
            exceeded: Mutex::default(),
        })
    }

    /// Another configuration holds from now on.
    fn now_by(&self, asked: &Config, config: &Config) {
        self.facts.replace(asked, config);
    }

    /// The log, if there is one.
    fn log(&self) -> Option<EventLog> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.clone()
    }

    /// Writes what becomes of the tables into a log, or into none, from now on. Returns the one that
    /// was written before.
    pub(crate) async fn log_to(&self, log: Option<EventLog>) -> Option<EventLog> {
        let before = self.log();
        let leaves = || {
            before.iter().for_each(EventLog::leave);
            self.log
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone_from(&log);
        };
        let new = log.clone().map(|it| Box::new(it) as _);
        self.feed.exchange(leaves, new).await;
        before
    }

    /// Says in the log what changed last, and that it ends.
    pub(crate) async fn end(&self) {
        if let Some(log) = self.log() {
            self.feed.fetch().await;
            log.end();
        }
    }

    /// Looks how much is in use: for thresholds, and for the service manager, which is told that
    /// every worker lives. Best done every few seconds.
    ///
    /// `missing` are the workers that did nothing since the last look.
    pub(crate) async fn look(&self, missing: Vec<usize>) {
        let stuck = stuck(&missing);
        *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = missing;
        let in_use = match stuck {
            Some(why) => Err(why),
            None => self.in_use().await.map_err(|problem| problem.to_string()),
        };
        match in_use {
            Ok(in_use) => {
                self.tell_of_full_addresses(&in_use.pool);
                self.tell_thresholds(&in_use);
                let (sessions, bindings) = (in_use.sessions, in_use.bindings);
                let mut status = format!("{sessions} sessions, {bindings} bindings");
                let near = self.exceeded().join(", ");
                if !near.is_empty() {
                    status += &format!("; near the limit: {near}");
                }
                host::service::notify(&format!("WATCHDOG=1\nSTATUS={status}"));
            }
            Err(why) => {
                tracing::warn!("{why}");
                host::service::notify(&format!("STATUS={why}"));
            }
        }
    }

    /// Tells of addresses of the pool that have no port left since the last look.
    fn tell_of_full_addresses(&self, rows: &[PoolRow]) {
        let mut known = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        let full = rows.iter().filter(|it| it.ports > 0 && it.used >= it.ports);
        let now: Vec<_> = full.map(|it| (it.address, it.protocol)).collect();
        let log = self.log();
        for (address, protocol) in now.iter().filter(|it| !known.contains(it)) {
            tracing::warn!("{address} has no {protocol} port left");
            if let Some(log) = &log {
                log.ports_exhausted(*address, *protocol);
            }
        }
        *known = now;
    }

    /// Tells of thresholds that were passed since the last look, in either direction.
    fn tell_thresholds(&self, in_use: &InUse) {
        let mut known = self.exceeded.lock().unwrap_or_else(PoisonError::into_inner);
        let log = self.log();
        for now in thresholds(&self.facts.get(), in_use, &known) {
            let before = known.contains(&now.code);
            if before == now.exceeded {
                continue;
            }
            if now.exceeded {
                tracing::warn!("{} of {} {} are in use", now.value, now.limit, now.what);
                known.push(now.code.clone());
            } else {
                tracing::info!("{} of {} {} are in use", now.value, now.limit, now.what);
                known.retain(|it| *it != now.code);
            }
            if let Some(log) = &log {
                log.threshold(&now);
            }
        }
    }

    /// The codes of what is above its threshold, as it was looked last.
    fn exceeded(&self) -> Vec<String> {
        let exceeded = self.exceeded.lock();
        exceeded.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads what becomes of the tables, for those who follow it. Never returns.
    pub(crate) async fn follow(&self) {
        self.feed.run().await;
    }

    /// Does what is asked.
    async fn carry_out(&self, verb: Verb, subscriber: &Subscriber) -> Result<Answer, Problem> {
        match verb {
            Verb::Status => Ok(Answer::Status(Box::new(self.status().await?))),
            Verb::SessionList(wanted) => self.sessions(wanted).await.map(Answer::Sessions),
            Verb::SessionFollow { filter } => {
                let follower = Follower {
                    filter,
                    facts: self.facts.clone(),
                    subscriber: subscriber.clone(),
                    has_missed: false,
                };
                self.feed.add(follower).await?;
                Ok(done(None, "following"))
            }
            Verb::SessionFlush { filter } => self.flush(filter).await,
            Verb::BibList(wanted) => self.bindings(wanted).await.map(Answer::Bindings),
            Verb::BibAdd(binding) => self.add(binding).await,
            Verb::BibRemove { protocol, end } => self.remove(protocol, end).await,
            Verb::PoolList => Ok(Answer::Pool {
                rows: self.pool().await?,
            }),
            Verb::PoolClientOf {
                address,
                port,
                protocol,
            } => self.client_of(address, port, protocol).await,
            Verb::PoolPortsOf { client } => self.ports_of(client).await,
            Verb::Stats => Ok(Answer::Stats {
                rows: self.stats().await,
            }),
            Verb::Top { by, limit } => self.top(by, limit).await,
            Verb::Capture(wanted) => self.capture(wanted, subscriber),
            Verb::ClientRefused => Ok(Answer::Refused {
                rows: self.refused().await?,
            }),
            Verb::Health => Ok(Answer::Health(self.health().await)),
            Verb::Config => Ok(Answer::Config {
                settings: self.facts.get().settings.clone(),
            }),
            Verb::Reload { confirm_within } => self.reload(Reload::Read { confirm_within }).await,
            Verb::ReloadConfirm => self.reload(Reload::Confirm).await,
        }
    }

    /// Everything that is counted. How near it is to its limits, the workers tell: if they do nothing,
    /// it is left out.
    async fn stats(&self) -> Vec<StatsRow> {
        let mut rows = self.counters.rows();
        if self.stuck().is_none()
            && let Ok(in_use) = self.in_use().await
        {
            let thresholds = thresholds(&self.facts.get(), &in_use, &self.exceeded());
            rows.extend(stats::near(&thresholds));
        }
        rows
    }

    /// What there is to say of workers that did nothing between the last two looks.
    fn stuck(&self) -> Option<String> {
        stuck(&self.missing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn status(&self) -> Result<Status, Problem> {
        let health = self.health().await;
        let facts = self.facts.get();
        let in_use = self.in_use().await?;
        let thresholds = thresholds(&facts, &in_use, &self.exceeded());
        Ok(Status {
            instance: facts.instance.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: self.started.elapsed().as_secs(),
            prefixes: facts.prefixes.clone(),
            pool: facts.pool.clone(),
            interface: facts.interface.clone(),
            workers: self.counters.workers(),
            sessions: self.counters.sessions(),
            bindings: self.counters.bindings(),
            sessions_limit: facts.sessions_limit,
            bindings_limit: facts.bindings_limit,
            refused_clients: self.refused().await?.len() as u64,
            thresholds,
            health,
        })
    }

    /// Whether it works. Never fails: that workers do not answer is what it is there to say.
    async fn health(&self) -> Health {
        let free = |engine: &mut Engine, _: Instant| {
            nat64::tuple::Protocol::ALL.map(|it| engine.free_ports(it))
        };
        let free = match self.stuck() {
            // It is known already, and waiting for them would take long.
            Some(why) => Err(why),
            None => self.orders.each(free).await.map_err(|it| it.to_string()),
        };
        let workers = match &free {
            Ok(all) => (true, format!("{} answer", all.len())),
            Err(error) => (false, error.clone()),
        };
        let pool = match free {
            Ok(all) => facts::pool_check(&all),
            Err(_) => (false, "not known: the workers do not answer".to_owned()),
        };
        let check = |name: &str, (passed, detail)| Check {
            name: name.to_owned(),
            passed,
            detail,
        };
        Health::of(vec![
            check("workers", workers),
            check("ipv4-side", self.host.ipv4_side()),
            check("pool", pool),
        ])
    }

    async fn flush(&self, filter: Filter) -> Result<Answer, Problem> {
        let filter = Arc::new(filter);
        let mut ended = 0;
        for worker in 0..self.counters.workers() {
            let mut from = Some(0);
            while let Some(place) = from {
                let filter = Arc::clone(&filter);
                let order = move |engine: &mut Engine, now| {
                    engine.flush_from(place, lists::LOOKED_AT, now, |view| {
                        filter.wants_session(&rows::session(view))
                    })
                };
                let worker = usize::try_from(worker).unwrap_or(usize::MAX);
                let part = self.orders.one(worker, order).await.map_err(unanswered)?;
                let (here, next) = part.unwrap_or_default();
                ended += u64::try_from(here).unwrap_or(u64::MAX);
                from = next;
            }
        }
        Ok(done(Some(ended), "sessions ended"))
    }

    async fn add(&self, binding: StaticBinding) -> Result<Answer, Problem> {
        let wanted = rows::static_binding(&binding);
        let made = self.each(move |engine, _| engine.add_static(wanted));
        let made: Result<Vec<()>, StaticError> = made.await?.into_iter().collect();
        let Err(error) = made else {
            return Ok(done(Some(1), "binding made"));
        };
        // Those that did not refuse.
        self.each(move |engine, _| engine.cancel_static(wanted))
            .await?;
        Err(Problem::new(ProblemCode::Invalid, error).command("plat bib list"))
    }

    async fn remove(
        &self,
        protocol: Protocol,
        end: std::net::SocketAddr,
    ) -> Result<Answer, Problem> {
        let order = move |engine: &mut Engine, _: Instant| rows::remove(engine, protocol, end);
        let removed = self.each(order).await?.into_iter().any(|it| it);
        if removed {
            return Ok(done(Some(1), "binding removed"));
        }
        let summary = format_args!("there is no {protocol} binding of {end}");
        Err(Problem::new(ProblemCode::NotFound, summary).command("plat bib list"))
    }

    async fn reload(&self, what: Reload) -> Result<Answer, Problem> {
        let gone = || Problem::new(ProblemCode::Stopping, "plat is stopping");
        let (answer, answered) = oneshot::channel();
        let order = ReloadOrder { what, answer };
        self.reload.send(order).await.map_err(|_| gone())?;
        let text = answered.await.map_err(|_| gone())??;
        Ok(done(None, text))
    }

    async fn each<R: Send + 'static>(
        &self,
        order: impl Fn(&mut Engine, Instant) -> R + Send + Sync + 'static,
    ) -> Result<Vec<R>, Problem> {
        self.orders.each(order).await.map_err(unanswered)
    }
}

/// What there is to say of workers that do nothing.
fn stuck(missing: &[usize]) -> Option<String> {
    let names: Vec<_> = missing.iter().map(ToString::to_string).collect();
    (!names.is_empty()).then(|| format!("workers do nothing: {}", names.join(", ")))
}

fn unanswered(error: Unanswered) -> Problem {
    Problem::new(ProblemCode::Failed, error).command("plat health")
}

fn done(count: Option<u64>, text: impl Into<String>) -> Answer {
    Answer::Done {
        count,
        text: text.into(),
    }
}

/// Whether `peer` may change something, and see who talks to whom.
async fn is_trusted(peer: &Peer) -> bool {
    if peer.is_root() || peer.is_own_user() {
        return true;
    }
    let peer = peer.clone();
    looked_up(move || peer.is_in(GROUP)).await
}

/// What a question to the system's database of users says. That may be far away: whoever asks for
/// nothing of it does not wait with the one who does.
async fn looked_up(question: impl FnOnce() -> bool + Send + 'static) -> bool {
    let asked = tokio::task::spawn_blocking(question);
    asked.await.unwrap_or(false)
}

impl Service for Admin {
    fn hello(&self) -> Hello<Value> {
        Hello::new("plat", env!("CARGO_PKG_VERSION"))
            .with(serde_json::json!({ "instance": self.facts.get().instance }))
    }

    async fn call(
        &self,
        peer: &Peer,
        verb: Value,
        subscriber: &Subscriber,
    ) -> Result<Value, Problem> {
        let verb: Verb = serde_json::from_value(verb)
            .map_err(|it| Problem::new(ProblemCode::UnknownVerb, it).command("plat --version"))?;
        let command = verb.command();
        if verb.is_restricted() && !is_trusted(peer).await {
            let summary = format_args!(
                "`{command}` is for root and members of the group {GROUP}; user {} is neither",
                peer.uid
            );
            let problem = Problem::new(ProblemCode::NotPermitted, summary);
            return Err(problem.command(format_args!("sudo {command}")));
        }
        // A list is asked for page by page.
        if verb.is_restricted() && !matches!(verb, Verb::SessionList(_) | Verb::BibList(_)) {
            tracing::info!("user {}: {command}", peer.uid);
        }
        let answer = self.carry_out(verb, subscriber).await?;
        serde_json::to_value(answer).map_err(|it| Problem::new(ProblemCode::Failed, it))
    }
}

/// Serves at `path` until it is dropped. The NAT64 does its work without it if it must.
pub(crate) async fn serve(admin: Arc<Admin>, path: &Path) {
    let listener = match transport::listen(path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!("no control socket: {error}");
            return std::future::pending().await;
        }
    };
    ipc::serve(listener, admin, Limits::default()).await;
}

/// The exit code that belongs to a problem.
pub(crate) fn exit_of(problem: &Problem) -> Exit {
    match problem.code {
        ProblemCode::NotPermitted => Exit::Permission,
        ProblemCode::NotFound => Exit::NotFound,
        ProblemCode::Invalid => Exit::Usage,
        ProblemCode::Timeout => Exit::Timeout,
        ProblemCode::Stopping => Exit::NotRunning,
        ProblemCode::VersionMismatch
        | ProblemCode::UnknownVerb
        | ProblemCode::Malformed
        | ProblemCode::TooManyConnections
        | ProblemCode::TooSlow
        | ProblemCode::Failed
        | ProblemCode::Other => Exit::Error,
    }
}
