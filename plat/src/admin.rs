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
mod look;
mod metrics;
pub(crate) mod rows;
mod service;
mod serving;
mod stats;
mod status;
#[cfg(test)]
mod tests;
mod thresholds;
mod verbs;
mod whose;

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use ::control::{Problem, ProblemCode, plat::Protocol};
use cli::Exit;
use nat64::Engine;
use tokio::sync::{mpsc, oneshot};

use crate::{
    config::Config,
    workers::{Orders, Unanswered},
};

pub(crate) use self::control::Control;
use facts::CurrentFacts;
pub(crate) use facts::{Facts, Host};
use feed::Feed;
pub(crate) use log::EventLog;
use stats::Counters;

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

    /// Reads what becomes of the tables, for those who follow it. Never returns.
    pub(crate) async fn follow(&self) {
        self.feed.run().await;
    }

    async fn each<R: Send + 'static>(
        &self,
        order: impl Fn(&mut Engine, Instant) -> R + Send + Sync + 'static,
    ) -> Result<Vec<R>, Problem> {
        self.orders.each(order).await.map_err(unanswered)
    }
}

fn unanswered(error: Unanswered) -> Problem {
    Problem::new(ProblemCode::Failed, error).command("plat health")
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
