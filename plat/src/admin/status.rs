//! How it is: the verbs that everybody on the host may ask for.

use std::time::Instant;

use ::control::{
    Problem,
    plat::{Check, Health, StatsRow, Status},
};
use nat64::Engine;

use super::{Admin, facts, stats, thresholds::thresholds};

impl Admin {
    /// Everything that is counted. How near it is to its limits, the workers tell: if they do nothing,
    /// it is left out.
    pub(super) async fn stats(&self) -> Vec<StatsRow> {
        let mut rows = self.counters.rows();
        if self.stuck().is_none()
            && let Ok(in_use) = self.in_use().await
        {
            let thresholds = thresholds(&self.facts.get(), &in_use, &self.exceeded());
            rows.extend(stats::near(&thresholds));
        }
        rows
    }

    pub(super) async fn status(&self) -> Result<Status, Problem> {
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
    pub(super) async fn health(&self) -> Health {
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
}
