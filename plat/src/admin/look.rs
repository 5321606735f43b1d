//! Every few seconds: how much is in use, and who is to be told of it.

use std::sync::PoisonError;

use ::control::plat::PoolRow;

use super::{
    Admin,
    thresholds::{InUse, thresholds},
};

impl Admin {
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
    pub(super) fn tell_of_full_addresses(&self, rows: &[PoolRow]) {
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
    pub(super) fn exceeded(&self) -> Vec<String> {
        let exceeded = self.exceeded.lock();
        exceeded.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What there is to say of workers that did nothing between the last two looks.
    pub(super) fn stuck(&self) -> Option<String> {
        stuck(&self.missing.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What there is to say of workers that do nothing.
fn stuck(missing: &[usize]) -> Option<String> {
    let names: Vec<_> = missing.iter().map(ToString::to_string).collect();
    (!names.is_empty()).then(|| format!("workers do nothing: {}", names.join(", ")))
}
