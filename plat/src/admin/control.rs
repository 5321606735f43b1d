//! The control socket in the main loop, and what else is told to others: the event log and metrics.

use std::{net::Ipv6Addr, path::Path, sync::Arc, time::Duration};

use cli::Failure;
use nat64::blocks::Blocks;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use super::{
    Admin, EventLog, Facts, Host, ReloadOrder, SOCKET, known, service,
    serving::{Place, Serving},
};
use crate::{config::Config, workers::Workers};

/// The control socket, for as long as it lives.
pub(crate) struct Control {
    admin: Option<Arc<Admin>>,
    /// What only the main loop can do.
    pub(crate) reloads: mpsc::Receiver<ReloadOrder>,
    tasks: JoinSet<()>,
    /// Writes parameters into the log, if there is anything to write.
    parameters: Option<AbortHandle>,
    metrics: Serving,
}

/// Where things are told to from now on: open already, so that nothing can be against it any more.
#[derive(Debug, Default)]
pub(crate) struct Outlets {
    log: Next<EventLog>,
    metrics: Next<Place>,
}

/// What comes in the place of something.
#[derive(Debug, Default)]
enum Next<T> {
    /// It stays.
    #[default]
    Same,
    /// Nothing.
    Nothing,
    /// Another one.
    Other(T),
}

impl Control {
    /// Opens it. The NAT64 does its work without it if it must.
    pub(crate) async fn start(
        workers: &Workers,
        facts: Facts,
        config: &Config,
        host: &Arc<Host>,
        journal: &Path,
    ) -> Self {
        let (sender, reloads) = mpsc::channel(4);
        let admin = Admin::new(workers.orders(), facts, Arc::clone(host), sender).await;
        let admin = admin.inspect_err(|error| tracing::warn!("no control socket: {error}"));
        let mut control = Self {
            admin: admin.ok().map(Arc::new),
            reloads,
            tasks: JoinSet::new(),
            parameters: None,
            metrics: Serving::default(),
        };
        if let Some(admin) = control.admin.clone() {
            control.start_log(&admin, config).await;
            let socket = journal.with_file_name(SOCKET);
            let served = Arc::clone(&admin);
            let serve = async move { service::serve(served, &socket).await };
            control.tasks.spawn(serve);
            let followed = Arc::clone(&admin);
            control.tasks.spawn(async move { followed.follow().await });
            match control.open_metrics(&admin, config).await {
                Ok(place) => control.metrics.go_on(&admin, place).await,
                Err(failure) => tracing::warn!("{failure}"),
            }
        }
        host::service::notify("READY=1");
        control
    }

    async fn start_log(&mut self, admin: &Admin, config: &Config) {
        match open_log(admin, config) {
            Ok(Some(log)) => {
                log.started();
                admin.log_to(Some(log)).await;
                self.tell_parameters(admin, config);
            }
            Ok(None) => {}
            Err(failure) => tracing::warn!("{failure}"),
        }
    }

    /// What deterministic blocks follow from, now and every day, unless nobody writes it down.
    fn tell_parameters(&mut self, admin: &Admin, config: &Config) {
        if let Some(task) = self.parameters.take() {
            task.abort();
        }
        if let (Some(log), Blocks::Deterministic(_)) = (admin.log(), config.blocks) {
            let task = self.tasks.spawn(every_day(log, config.clone()));
            self.parameters = Some(task);
        }
    }

    /// Opens what another configuration tells things to. What both tell things to and could not be
    /// opened is tried again, and only said if it still cannot be.
    ///
    /// # Errors
    /// What cannot be opened; nothing has changed then.
    pub(crate) async fn open(
        &mut self,
        before: &Config,
        after: &Config,
    ) -> Result<Outlets, Failure> {
        let mut outlets = Outlets::default();
        let Some(admin) = self.admin.clone() else {
            return Ok(outlets);
        };
        if before.log != after.log {
            outlets.log = open_log(&admin, after)?.into();
        } else if lacks_log(&admin, after) {
            outlets.log = Next::or_same(open_log(&admin, after));
        }
        if before.metrics != after.metrics {
            outlets.metrics = self.open_metrics(&admin, after).await?.into();
        } else if self.lacks_metrics(after) {
            outlets.metrics = Next::or_same(self.open_metrics(&admin, after).await);
        }
        Ok(outlets)
    }

    /// Opens what a configuration that held before told things to, as far as it can be: what cannot
    /// is only said. The log goes on in the file that is written now, then; there are no metrics.
    pub(crate) async fn open_again(&mut self, now: &Config, before: &Config) -> Outlets {
        let mut outlets = Outlets::default();
        let Some(admin) = self.admin.clone() else {
            return outlets;
        };
        if now.log != before.log || lacks_log(&admin, before) {
            let log = open_log(&admin, before).unwrap_or_else(|failure| {
                tracing::warn!("{failure}");
                let (log, wanted) = (admin.log()?, before.log.as_ref()?);
                Some(log.turned_to(wanted, before.blocks))
            });
            outlets.log = log.into();
        }
        if now.metrics != before.metrics || self.lacks_metrics(before) {
            let place = self.open_metrics(&admin, before).await;
            outlets.metrics = place
                .unwrap_or_else(|failure| {
                    tracing::warn!("{failure}");
                    None
                })
                .into();
        }
        outlets
    }

    /// Tries again what the configuration tells things to and could not be opened. Returns what could
    /// be, for people.
    ///
    /// # Errors
    /// What still cannot be opened; the rest is, all the same.
    pub(crate) async fn try_again(
        &mut self,
        asked: &Config,
        config: &Config,
    ) -> Result<Vec<&'static str>, Failure> {
        let Some(admin) = self.admin.clone() else {
            return Ok(Vec::new());
        };
        let (mut outlets, mut done, mut failed) = (Outlets::default(), Vec::new(), None);
        if lacks_log(&admin, config) {
            match open_log(&admin, config) {
                Ok(log) => {
                    outlets.log = log.into();
                    done.push("the event log is written now");
                }
                Err(failure) => failed = Some(failure),
            }
        }
        if self.lacks_metrics(config) {
            match self.open_metrics(&admin, config).await {
                Ok(place) => {
                    outlets.metrics = place.into();
                    done.push("metrics are served now");
                }
                Err(failure) => failed = failed.or(Some(failure)),
            }
        }
        if !done.is_empty() {
            self.now_by(asked, config, outlets).await;
        }
        failed.map_or(Ok(done), Err)
    }

    /// Nothing comes of another configuration: what was opened for it is closed.
    pub(crate) async fn stay(&mut self, outlets: Outlets) {
        if let (Some(admin), Next::Other(place)) = (&self.admin, outlets.metrics) {
            self.metrics.stay(admin, place).await;
        }
    }

    async fn open_metrics(
        &mut self,
        admin: &Arc<Admin>,
        config: &Config,
    ) -> Result<Option<Place>, Failure> {
        match config.metrics {
            Some(address) => self.metrics.open(admin, address).await.map(Some),
            None => Ok(None),
        }
    }

    /// Whether metrics are wanted, and not served there: the port could not be had.
    fn lacks_metrics(&self, config: &Config) -> bool {
        config.metrics.is_some_and(|it| !self.metrics.is_at(it))
    }

    /// Another configuration holds from now on, with what was opened for it.
    pub(crate) async fn now_by(&mut self, asked: &Config, config: &Config, outlets: Outlets) {
        let Some(admin) = self.admin.clone() else {
            return;
        };
        admin.now_by(asked, config);
        match outlets.log {
            Next::Same => {}
            Next::Nothing => exchange_log(&admin, None).await,
            Next::Other(log) => {
                config.log.iter().for_each(|it| log.rotate_by(it));
                let is_new = admin.log().is_none_or(|it| it.tells_other_than(&log));
                exchange_log(&admin, Some(log.clone())).await;
                if is_new {
                    self.tasks.spawn(known::tell(Arc::clone(&admin), log));
                }
            }
        }
        self.tell_parameters(&admin, config);
        match outlets.metrics {
            Next::Same => {}
            Next::Nothing => self.metrics.go_on(&admin, None).await,
            Next::Other(place) => self.metrics.go_on(&admin, Some(place)).await,
        }
        // Those that have ended are nothing to keep.
        while self.tasks.try_join_next().is_some() {}
    }

    /// Ends it, while the workers still answer.
    pub(crate) async fn end(mut self) {
        if let Some(admin) = &self.admin {
            self.metrics.go_on(admin, None).await;
        }
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        if let Some(admin) = &self.admin {
            admin.end().await;
        }
    }

    /// To be called every few seconds, with the workers that did nothing since.
    pub(crate) async fn look(&self, missing: Vec<usize>) {
        if let Some(admin) = &self.admin {
            admin.look(missing).await;
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        host::service::notify("STOPPING=1");
        self.tasks.abort_all();
    }
}

impl<T> From<Option<T>> for Next<T> {
    fn from(wanted: Option<T>) -> Self {
        wanted.map_or(Self::Nothing, Self::Other)
    }
}

impl<T> Next<T> {
    /// What was to be opened again. It stays away if it still cannot be, which is said.
    fn or_same(opened: Result<Option<T>, Failure>) -> Self {
        opened.map_or_else(
            |failure| {
                tracing::warn!("{failure}");
                Self::Same
            },
            Into::into,
        )
    }
}

/// Whether a log is wanted, and not written there: the file could not be opened.
fn lacks_log(admin: &Admin, config: &Config) -> bool {
    let is_there = |file| admin.log().is_some_and(|it| it.is_in(file));
    config.log.as_ref().is_some_and(|it| !is_there(&it.file))
}

/// The event log that a configuration wants. The file that is written already goes on.
fn open_log(admin: &Admin, config: &Config) -> Result<Option<EventLog>, Failure> {
    let Some(wanted) = &config.log else {
        return Ok(None);
    };
    if let Some(now) = admin.log().filter(|it| it.is_in(&wanted.file)) {
        return Ok(Some(now.turned_to(wanted, config.blocks)));
    }
    let instance = admin.facts.get().instance.clone();
    let log = EventLog::open(wanted, config.blocks, &instance);
    let log = log.map_err(|error| {
        let what = format!("no event log in {}", wanted.file.display());
        Failure::io(what, &error).hint("log.file: a file that plat may write")
    });
    log.map(Some)
}

/// Another log in the place of the one that is written, if there is one.
async fn exchange_log(admin: &Admin, log: Option<EventLog>) {
    let is_new =
        |one: &EventLog, other: Option<&EventLog>| !other.is_some_and(|it| it.is_same(one));
    let (sessions, bindings) = (admin.counters.sessions(), admin.counters.bindings());
    let before = admin.log();
    if let Some(log) = log.as_ref().filter(|it| is_new(it, before.as_ref())) {
        log.opened(bindings.total(), sessions.total());
    }
    let before = admin.log_to(log.clone()).await;
    if let Some(before) = before.filter(|it| is_new(it, log.as_ref())) {
        before.closed();
    }
}

/// Writes what deterministic blocks follow from, now and once a day.
async fn every_day(log: EventLog, config: Config) {
    const DAY: Duration = Duration::from_secs(24 * 3600);

    let config = config.for_engine(Ipv6Addr::LOCALHOST, Vec::new());
    loop {
        log.parameters(&config);
        tokio::time::sleep(DAY).await;
    }
}
