//! Another interface that IPv4 goes by.

use std::time::{Duration, Instant};

use cli::{Exit, Failure};
use host::{
    netcfg::System,
    netwatch::{Network, Snapshot},
    signals::Signals,
};

use super::Surroundings;
use crate::{
    config::Config,
    pool_mode::{PoolMode, answered, uplink_elsewhere},
    spare::Spare,
};

/// When an uplink that could not be used is tried again.
const AGAIN: Duration = Duration::from_secs(60);

impl<W: Network, S: System> Surroundings<W, S> {
    /// Goes on by the interface that IPv4 goes by now, where something is arranged on the one before.
    /// What is there is taken back when the host is arranged the next time. An interface that cannot
    /// be used is said, and tried again a minute later.
    pub(super) async fn follow_uplink(&mut self, snapshot: &Snapshot, signals: &mut impl Signals) {
        let Some(now) = uplink_elsewhere(&self.asked, &self.config, snapshot) else {
            self.refused_uplink = None;
            return;
        };
        let refused = self.refused_uplink.as_ref();
        if refused.is_some_and(|(name, at)| name == now && at.elapsed() < AGAIN) {
            return;
        }
        let mode = self.config.pool_mode;
        match self.move_to(now, snapshot, signals).await {
            Ok(()) => tracing::info!("IPv4 goes by {now} now: {mode} is arranged there"),
            Err(failure) => {
                let before = self.config.uplink.as_deref().unwrap_or("no interface");
                tracing::warn!("IPv4 goes by {now} now, {mode} stays on {before}: {failure}");
                self.refused_uplink = Some((now.to_owned(), Instant::now()));
            }
        }
    }

    async fn move_to(
        &mut self,
        uplink: &str,
        snapshot: &Snapshot,
        signals: &mut impl Signals,
    ) -> Result<(), Failure> {
        let mut config = self.config.clone();
        config.uplink = Some(uplink.to_owned());
        config.answered = answered(&config, snapshot)?;
        if let Some(spare) = self.claim(&config, snapshot, signals).await? {
            self.spare = spare;
            self.spare.used();
        }
        self.config = config;
        Ok(())
    }

    /// Asks the link for spare addresses, if there are others now, or it is another link.
    pub(super) async fn claim(
        &mut self,
        config: &Config,
        snapshot: &Snapshot,
        signals: &mut impl Signals,
    ) -> Result<Option<Spare>, Failure> {
        let same = config.answered == self.config.answered && config.uplink == self.config.uplink;
        if config.pool_mode != PoolMode::Arp || same {
            return Ok(None);
        }
        let claim = Spare::claim(config, snapshot, signals, &mut self.meanwhile);
        let spare = claim.await?;
        // The signal is not told twice.
        self.is_stopping = spare.is_none();
        match spare {
            Some(spare) => Ok(Some(spare)),
            None => Err(Failure::new(Exit::NotRunning, "plat is stopping")),
        }
    }
}
