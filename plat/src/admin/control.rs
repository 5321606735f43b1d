//! The control socket in the main loop, and what else is told to others: the event log and metrics.

use std::{net::Ipv6Addr, path::Path, sync::Arc, time::Duration};

use cli::Failure;
use nat64::blocks::Blocks;
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use super::{Admin, EventLog, Facts, Host, ReloadOrder, SOCKET, known, metrics, service};
use crate::{config::Config, workers::Workers};

/// The control socket, for as long as it lives.
pub(crate) struct Control {
    admin: Option<Arc<Admin>>,
    /// What only the main loop can do.
    pub(crate) reloads: mpsc::Receiver<ReloadOrder>,
    tasks: JoinSet<()>,
    /// Writes parameters into the log, if there is anything to write.
    parameters: Option<AbortHandle>,
    /// Serves metrics, if they are served.
    metrics: Option<AbortHandle>,
}

/// Where things are told to from now on: open already, so that nothing can be against it any more.
#[derive(Debug, Default)]
pub(crate) struct Outlets {
    log: Next<EventLog>,
    metrics: Next<TcpListener>,
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
            metrics: None,
        };
        if let Some(admin) = control.admin.clone() {
            control.start_log(&admin, config).await;
            let socket = journal.with_file_name(SOCKET);
            let served = Arc::clone(&admin);
            let serve = async move { service::serve(served, &socket).await };
            control.tasks.spawn(serve);
            let followed = Arc::clone(&admin);
            control.tasks.spawn(async move { followed.follow().await });
            match open_metrics(config).await {
                Ok(Some(listener)) => control.serve_metrics(&admin, listener),
                Ok(None) => {}
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

    fn serve_metrics(&mut self, admin: &Arc<Admin>, listener: TcpListener) {
        let asked = Arc::clone(admin);
        let served = metrics::serve(asked, listener);
        self.metrics = Some(self.tasks.spawn(served));
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

    /// Opens what another configuration tells things to.
    ///
    /// # Errors
    /// What cannot be opened; nothing has changed then.
    pub(crate) async fn open(&self, before: &Config, after: &Config) -> Result<Outlets, Failure> {
        let mut outlets = Outlets::default();
        let Some(admin) = &self.admin else {
            return Ok(outlets);
        };
        if before.log != after.log {
            outlets.log = open_log(admin, after)?.into();
        }
        if before.metrics != after.metrics {
            outlets.metrics = open_metrics(after).await?.into();
        }
        Ok(outlets)
    }

    /// Opens what a configuration that held before told things to, as far as it can be: what cannot
    /// is only said. The log goes on in the file that is written now, then; there are no metrics.
    pub(crate) async fn open_again(&self, now: &Config, before: &Config) -> Outlets {
        let mut outlets = Outlets::default();
        let Some(admin) = &self.admin else {
            return outlets;
        };
        if now.log != before.log {
            let log = open_log(admin, before).unwrap_or_else(|failure| {
                tracing::warn!("{failure}");
                let (log, wanted) = (admin.log()?, before.log.as_ref()?);
                Some(log.turned_to(wanted, before.blocks))
            });
            outlets.log = log.into();
        }
        if now.metrics != before.metrics {
            let metrics = open_metrics(before).await.unwrap_or_else(|failure| {
                tracing::warn!("{failure}");
                None
            });
            outlets.metrics = metrics.into();
        }
        outlets
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
        if let (Next::Nothing | Next::Other(_), Some(task)) = (&outlets.metrics, &self.metrics) {
            task.abort();
        }
        if let Next::Other(listener) = outlets.metrics {
            self.serve_metrics(&admin, listener);
        }
        // Those that have ended are nothing to keep.
        while self.tasks.try_join_next().is_some() {}
    }

    /// Ends it, while the workers still answer.
    pub(crate) async fn end(mut self) {
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

async fn open_metrics(config: &Config) -> Result<Option<TcpListener>, Failure> {
    let Some(address) = config.metrics else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure::io(format!("no metrics at {address}"), &error)
            .hint("metrics.listen: an address and port of this host that nobody listens at")
    });
    listener.map(Some)
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
