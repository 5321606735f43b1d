//! The control socket in the main loop.

use std::{net::Ipv6Addr, path::Path, sync::Arc, time::Duration};

use nat64::blocks::Blocks;
use tokio::{sync::mpsc, task::JoinSet};

use super::{Admin, EventLog, Facts, Host, ReloadOrder, SOCKET, metrics};
use crate::{config::Config, workers::Workers};

/// The control socket, for as long as it lives.
pub(crate) struct Control {
    admin: Option<Arc<Admin>>,
    /// What only the main loop can do.
    pub(crate) reloads: mpsc::Receiver<ReloadOrder>,
    tasks: JoinSet<()>,
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
        let instance = facts.instance.clone();
        let admin = Admin::new(workers.orders(), facts, Arc::clone(host), sender).await;
        let admin = admin.inspect_err(|error| tracing::warn!("no control socket: {error}"));
        let mut admin = admin.ok();
        let mut tasks = JoinSet::new();
        if let (Some(admin), Some(log)) = (&mut admin, &config.log) {
            match EventLog::open(log, config.blocks, &instance) {
                Ok(log) => {
                    if let Blocks::Deterministic(_) = config.blocks {
                        tasks.spawn(every_day(log.clone(), config.clone()));
                    }
                    admin.log_to(log).await;
                }
                Err(error) => tracing::warn!("{}: {error}", log.file.display()),
            }
        }
        let admin = admin.map(Arc::new);
        if let Some(admin) = &admin {
            let socket = journal.with_file_name(SOCKET);
            let served = Arc::clone(admin);
            tasks.spawn(async move { super::serve(served, &socket).await });
            let followed = Arc::clone(admin);
            tasks.spawn(async move { followed.follow().await });
            if let Some(address) = config.metrics {
                let asked = Arc::clone(admin);
                tasks.spawn(async move { metrics::serve(asked, address).await });
            }
        }
        host::service::notify("READY=1");
        Self {
            admin,
            reloads,
            tasks,
        }
    }

    /// Another configuration holds from now on.
    pub(crate) fn now_by(&self, asked: &Config, config: &Config) {
        if let Some(admin) = &self.admin {
            admin.now_by(asked, config);
        }
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

/// Writes what deterministic blocks follow from, now and once a day.
async fn every_day(log: EventLog, config: Config) {
    const DAY: Duration = Duration::from_secs(24 * 3600);

    let config = config.for_engine(Ipv6Addr::LOCALHOST, Vec::new());
    loop {
        log.parameters(&config);
        tokio::time::sleep(DAY).await;
    }
}
