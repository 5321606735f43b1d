//! The host around the PLAT.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use host::{
    netcfg::{self, NetCfg, System},
    netwatch::{Network, Snapshot},
};
use plan::Plan;

use super::{addresses::own_ipv4, reload::Unconfirmed};
use crate::{
    admin::{self, Control, Facts},
    clients,
    config::Config,
    decisions,
    forwarding::Forwarding,
    host_plan,
    instance::Source,
    lan, remains,
    spare::{Meanwhile, Spare},
    workers::{Orders, Shared, Workers},
};

/// The host around the PLAT, which changes while it runs.
pub(super) struct Surroundings<W, S> {
    /// Where its configuration is.
    pub(super) source: Source,
    /// As it was configured.
    pub(super) asked: Config,
    /// What is to go again unless it is confirmed.
    pub(super) unconfirmed: Option<Unconfirmed>,
    /// As it holds on this host.
    pub(super) config: Config,
    /// The source of errors to clients.
    pub(super) speaks_from: Ipv6Addr,
    pub(super) watch: W,
    pub(super) netcfg: NetCfg<S>,
    pub(super) forwarding: Forwarding,
    /// The host's own IPv4 addresses, as the workers know them.
    pub(super) own: Vec<Ipv4Addr>,
    /// The way to the workers, once they run.
    pub(super) orders: Option<Orders>,
    /// What the control socket tells of the host.
    pub(super) host: Arc<admin::Host>,
    /// Addresses of the link that are used.
    pub(super) spare: Spare,
    /// The other uplink that could not be used, and when.
    pub(super) refused_uplink: Option<(String, Instant)>,
    /// The signal to end came while something else was waited for.
    pub(super) is_stopping: bool,
    /// Others did.
    pub(super) meanwhile: Meanwhile,
    /// Where it is written down what must rest after the end.
    pub(super) resting: PathBuf,
    /// The key of the workers.
    pub(super) key: [u8; 16],
}

impl<W: Network, S: System> Surroundings<W, S> {
    /// The workers run: says what they do, and opens the control socket.
    pub(super) async fn began(
        &mut self,
        workers: &Workers,
        snapshot: &Snapshot,
        shared: &Arc<Shared>,
        journal: &Path,
    ) -> Control {
        let config = &self.config;
        if let Some(decided) = decisions::text(config) {
            cli::say(decided);
        }
        cli::say(clients::text(&self.asked, config));
        cli::say(lan::instructions(config));
        self.orders = Some(workers.orders());
        self.spare.used();
        self.host.note(snapshot, config);
        let facts = self.facts(shared);
        Control::start(workers, facts, config, &self.host, journal).await
    }

    fn facts(&self, shared: &Arc<Shared>) -> Facts {
        let instance = self.source.instance();
        Facts::of(&self.asked, &self.config, &instance, Arc::clone(shared))
    }

    /// Makes the host, as it is, what the PLAT needs.
    pub(super) async fn arrange(&mut self, snapshot: &Snapshot) -> Result<(), netcfg::Error> {
        self.host.note(snapshot, &self.config);
        self.tell_own_addresses(own_ipv4(snapshot)).await;
        self.follow_addresses(snapshot).await;
        if self.forwarding.forget_replaced(snapshot) {
            self.apply().await?;
        }
        let forwarding = &mut self.forwarding;
        let follow = forwarding.follow(&self.config, snapshot, &mut self.netcfg);
        follow.await;
        self.apply().await
    }

    async fn apply(&mut self) -> Result<(), netcfg::Error> {
        let plan = host_plan::plan(&self.config, &self.forwarding);
        self.netcfg.apply(&plan).await
    }

    /// Takes back what was made of the host.
    pub(super) async fn undo(&mut self) -> Result<(), netcfg::Error> {
        self.netcfg.apply(&Plan::nothing()).await
    }

    /// Writes down what must rest after the end.
    pub(super) async fn leave_remains(&self, orders: &Orders) {
        let hold_down = self.config.timers.hold_down;
        remains::leave(&self.resting, orders, self.key, hold_down).await;
    }
}
