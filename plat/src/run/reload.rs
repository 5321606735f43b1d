//! A new configuration while packets flow, or the old one if anything is against it.
//!
//! What can be refused is asked for first, and what ends something comes last: the host is made what
//! both configurations need, every worker says whether it can have the static bindings, all of them
//! take the new configuration, and only then the host forgets what the old one needed. Whoever
//! refuses on the way, everything goes back to the old one.

use std::time::{Duration, Instant};

use ::control::{Problem, ProblemCode};
use cli::{Exit, Failure};
use host::{
    netcfg::System,
    netwatch::{Network, Snapshot},
    signals::Signals,
};
use nat64::{Engine, dispatch::Dispatch, static_bib::StaticBinding};
use plan::Plan;
use tokio::time;

use super::{
    Surroundings,
    check::{check_host, warn_of},
    netcfg_failure, read,
};
use crate::{
    admin::{Control, Reload, ReloadOrder},
    clients,
    config::{
        Config,
        diff::{Change, Takes, diff},
    },
    host_plan,
    pool_mode::{PoolMode, answered},
    workers::Unanswered,
};

/// A configuration that is to go again unless somebody confirms it.
#[derive(Debug)]
pub(super) struct Unconfirmed {
    /// The one to go back to.
    before: Config,
    until: time::Instant,
}

/// Waits until it is too late to confirm. For ever if there is nothing to confirm.
pub(super) async fn too_late(unconfirmed: Option<&Unconfirmed>) {
    match unconfirmed {
        Some(it) => time::sleep_until(it.until).await,
        None => std::future::pending().await,
    }
}

/// Which way it goes to another configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Whatever is against it refuses it.
    Forth,
    /// To one that held before. Log and metrics are no reason to stay with one that nobody wants.
    Back,
}

/// How the workers are to change.
#[derive(Clone, Debug)]
struct Step {
    engine: nat64::Config,
    /// Static bindings that end.
    gone: Vec<StaticBinding>,
    /// Static bindings that come.
    new: Vec<StaticBinding>,
}

impl Step {
    fn new(engine: nat64::Config, before: &Config, after: &Config) -> Self {
        let only = |one: &Config, other: &Config| {
            let all = one.bib.iter();
            let missing = all.filter(|it| !other.bib.contains(it)).copied();
            missing.collect()
        };
        Self {
            engine,
            gone: only(before, after),
            new: only(after, before),
        }
    }

    /// Does it, as far as it goes.
    fn take(&self, engine: &mut Engine) -> Result<Taken, String> {
        let (_, before) = engine.table_sizes();
        for binding in &self.gone {
            engine.remove_static(*binding);
        }
        let done = engine.reconfigure(self.engine.clone());
        done.map_err(|error| error.to_string())?;
        for binding in &self.new {
            let added = engine.add_static(*binding);
            added.map_err(|error| refused(binding, &error))?;
        }
        let (_, survived) = engine.table_sizes();
        Ok(Taken {
            survived,
            ended: before.saturating_sub(survived),
        })
    }

    /// The way back, from wherever it stopped.
    fn take_back(&self, engine: &mut Engine, before: &nat64::Config) {
        for binding in &self.new {
            engine.cancel_static(*binding);
        }
        // It was possible before, and so were these.
        let _ = engine.reconfigure(before.clone());
        for binding in &self.gone {
            let _ = engine.add_static(*binding);
        }
    }
}

fn refused(binding: &StaticBinding, error: &impl std::fmt::Display) -> String {
    let (inside, outside) = (binding.inside, binding.outside);
    format!("[[bib]] {inside:?} {outside:?}: {error}")
}

/// What became of the sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    survived: usize,
    ended: usize,
}

impl Taken {
    fn sum(all: Vec<Self>) -> Self {
        let all = all.into_iter();
        all.fold(Self::default(), |sum, it| Self {
            survived: sum.survived + it.survived,
            ended: sum.ended + it.ended,
        })
    }
}

impl<W: Network, S: System> Surroundings<W, S> {
    /// What was asked for at the control socket.
    pub(super) async fn carry_out(
        &mut self,
        order: ReloadOrder,
        control: &mut Control,
        signals: &mut impl Signals,
    ) {
        let done = match order.what {
            Reload::Read { confirm_within } => self.reload(confirm_within, control, signals).await,
            Reload::Confirm => self.confirm(),
        };
        let _ = order.answer.send(done.map_err(|failure| problem(&failure)));
    }

    /// Reads the configuration again. Returns what that changed, for people.
    ///
    /// # Errors
    /// Why everything stays as it was.
    pub(super) async fn reload(
        &mut self,
        confirm_within: Option<u32>,
        control: &mut Control,
        signals: &mut impl Signals,
    ) -> Result<String, Failure> {
        let done = self.read_again(confirm_within, control, signals).await;
        match &done {
            Ok(text) => tracing::info!("configuration read again: {text}"),
            Err(failure) => tracing::warn!("the configuration stays as it is: {failure}"),
        }
        done
    }

    async fn read_again(
        &mut self,
        confirm_within: Option<u32>,
        control: &mut Control,
        signals: &mut impl Signals,
    ) -> Result<String, Failure> {
        if confirm_within == Some(0) {
            let what = "in no time nobody can confirm";
            return Err(Failure::new(Exit::Usage, what).hint("--confirm-within 30s"));
        }
        let before = self.asked.clone();
        let changed = self
            .change_to(self.source.read()?, Way::Forth, control, signals)
            .await?;
        let is_other = changed.is_some();
        let mut text = match changed {
            Some(text) => text,
            None => self.same_again(control).await?,
        };
        let waiting = self.unconfirmed.take();
        if let Some(seconds) = confirm_within.filter(|_| is_other || waiting.is_some()) {
            // What nobody confirmed is not what to go back to.
            let before = waiting.map_or(before, |it| it.before);
            let until = time::Instant::now() + Duration::from_secs(seconds.into());
            self.unconfirmed = Some(Unconfirmed { before, until });
            text += &format!(
                "\nback to what was before in {seconds} seconds, unless: plat reload --confirm"
            );
        } else if waiting.is_some() {
            text += "\nwhat waited to be confirmed is confirmed by that";
        }
        Ok(text)
    }

    /// It is the same configuration. What could not be opened for it may be had by now.
    async fn same_again(&self, control: &mut Control) -> Result<String, Failure> {
        let mut lines = vec!["nothing is different"];
        lines.extend(control.try_again(&self.asked, &self.config).await?);
        Ok(lines.join("\n"))
    }

    fn confirm(&mut self) -> Result<String, Failure> {
        match self.unconfirmed.take() {
            Some(_) => {
                tracing::info!("the configuration is confirmed");
                Ok("confirmed".to_owned())
            }
            None => Err(
                Failure::new(Exit::NotFound, "nothing waits to be confirmed")
                    .hint("plat reload --confirm-within 30s"),
            ),
        }
    }

    /// Nobody confirmed: back to what was before.
    pub(super) async fn go_back(&mut self, control: &mut Control, signals: &mut impl Signals) {
        let Some(Unconfirmed { before, .. }) = self.unconfirmed.take() else {
            return;
        };
        match self.change_to(before, Way::Back, control, signals).await {
            Ok(text) => tracing::warn!(
                "nobody confirmed: back to the configuration before; the files say otherwise\n{}",
                text.unwrap_or_default()
            ),
            Err(failure) => {
                tracing::error!("nobody confirmed, and there is no way back: {failure}");
            }
        }
    }

    /// Goes on with another configuration, as a whole. Returns what is different, if anything is.
    async fn change_to(
        &mut self,
        asked: Config,
        way: Way,
        control: &mut Control,
        signals: &mut impl Signals,
    ) -> Result<Option<String>, Failure> {
        let changes = diff(&self.asked, &asked);
        if changes.is_empty() {
            return Ok(None);
        }
        check_restart(&changes)?;
        let snapshot = read(&self.watch).await?;
        let config = self.placed(&asked, &snapshot)?;
        check_host(&config, &snapshot)?;
        let step = Step::new(
            config.for_engine(self.speaks_from, self.own.clone()),
            &self.asked,
            &asked,
        );
        self.check_step(&step)?;
        let spare = self.claim(&config, &snapshot, signals).await?;
        let outlets = match way {
            Way::Forth => control.open(&self.asked, &asked).await?,
            Way::Back => control.open_again(&self.asked, &asked).await,
        };

        let new = host_plan::plan(&config, &self.forwarding);
        let taken = match self.take(&new, step).await {
            Ok(taken) => taken,
            Err(failure) => {
                control.stay(outlets).await;
                return Err(failure);
            }
        };
        self.asked = asked;
        self.config = config;
        if let Some(spare) = spare {
            self.spare = spare;
            self.spare.used();
        }
        warn_of(&self.asked, &self.config);
        self.apply_or_warn(&new).await;
        control.now_by(&self.asked, &self.config, outlets).await;
        Ok(Some(text(&changes, taken)))
    }

    /// Makes the host what both need, and has the workers take a step. What is refused leaves all of it
    /// as it was.
    async fn take(&mut self, new: &Plan, step: Step) -> Result<Taken, Failure> {
        let old = host_plan::plan(&self.config, &self.forwarding);
        let taken = match self.netcfg.apply(&both(new, &old)).await {
            Ok(()) => self.tell_workers(step).await,
            Err(error) => Err(netcfg_failure(&error)),
        };
        if taken.is_err() {
            self.apply_or_warn(&old).await;
        }
        taken
    }

    /// As it holds on this host. What is left to the host stays as it was found.
    fn placed(&self, asked: &Config, snapshot: &Snapshot) -> Result<Config, Failure> {
        let mut config = asked.clone();
        config.uplink.clone_from(&self.config.uplink);
        if config.pool_mode == PoolMode::HostPorts {
            config.pool.clone_from(&self.config.pool);
        }
        if config.clients.is_empty() {
            config.clients = clients::of_host(&config, snapshot);
        }
        config.answered = answered(&config, snapshot)?;
        Ok(config)
    }

    /// What every worker would refuse.
    fn check_step(&self, step: &Step) -> Result<(), Failure> {
        let wrong = |what: &dyn std::fmt::Display| Failure::new(Exit::Usage, what);
        step.engine.check().map_err(|error| wrong(&error))?;
        let most = Dispatch::most_shards(&step.engine).get();
        let workers = self.orders.as_ref().map_or(0, |it| it.workers());
        if usize::from(most) < workers {
            let what = format_args!("the pool has too few ports for {workers} workers");
            return Err(wrong(&what).hint("restart plat, which makes as many as it can"));
        }
        let in_pool = |it: &&StaticBinding| {
            let mut pool = step.engine.pool.iter();
            !pool.any(|entry| entry.address == it.outside.address)
        };
        match step.new.iter().find(in_pool) {
            Some(it) => Err(wrong(&refused(it, &"the IPv4 address is not in the pool"))),
            None => Ok(()),
        }
    }

    /// All workers take a step, or none.
    async fn tell_workers(&self, mut step: Step) -> Result<Taken, Failure> {
        let Some(orders) = &self.orders else {
            return Ok(Taken::default());
        };
        // What `bib add` made before does not come now, and does not go if this is refused.
        let wanted = step.new.clone();
        let known = orders.each(move |engine, _| {
            let known = |it: &StaticBinding| engine.has_static(*it);
            wanted.iter().copied().filter(known).collect::<Vec<_>>()
        });
        let known = known.await.map_err(|it| unanswered(&it))?.concat();
        step.new.retain(|it| !known.contains(it));
        let (gone, new) = (step.gone.clone(), step.new.clone());
        let asked = orders.each(move |engine, _| {
            let against = |it: &StaticBinding| {
                let obstacle = engine.static_obstacle(*it, &gone)?;
                Some(refused(it, &obstacle))
            };
            new.iter().find_map(against)
        });
        let against = asked.await.map_err(|it| unanswered(&it))?;
        if let Some(refusal) = against.into_iter().flatten().next() {
            return Err(Failure::new(Exit::Usage, refusal));
        }
        let taken = step.clone();
        let taken = orders.each(move |engine, _| taken.take(engine)).await;
        let failure = match taken {
            Ok(all) => match all.into_iter().collect() {
                Ok(all) => return Ok(Taken::sum(all)),
                Err(refusal) => Failure::new(Exit::Usage, refusal as String),
            },
            Err(error) => unanswered(&error),
        };
        let before = self.config.for_engine(self.speaks_from, self.own.clone());
        let order = move |engine: &mut Engine, _: Instant| step.take_back(engine, &before);
        if let Err(error) = orders.each(order).await {
            tracing::error!("the workers do not go back to the old configuration: {error}");
        }
        Err(failure)
    }

    async fn apply_or_warn(&mut self, plan: &Plan) {
        if let Err(error) = self.netcfg.apply(plan).await {
            // The next look tries it again.
            tracing::warn!("{error}");
        }
    }
}

fn unanswered(error: &Unanswered) -> Failure {
    Failure::error(error).hint("plat health")
}

/// Nothing is done by halves: what takes a restart keeps the rest from being done, too.
fn check_restart(changes: &[Change]) -> Result<(), Failure> {
    let restart: Vec<_> = changes
        .iter()
        .filter(|it| it.takes == Takes::Restart)
        .map(Change::difference)
        .collect();
    if restart.is_empty() {
        return Ok(());
    }
    let what = format_args!("nothing is changed: {} takes a restart", restart.join("; "));
    Err(Failure::new(Exit::Usage, what).hint("systemctl restart plat, which ends all sessions"))
}

/// What both need. Where they differ in one thing, it is as the new one wants it.
fn both(new: &Plan, old: &Plan) -> Plan {
    let replaced = |it: &&plan::Item| new.items().iter().any(|new| new.same_subject(it));
    let kept = old.items().iter().filter(|it| !replaced(it));
    Plan::new(new.items().iter().chain(kept).cloned())
}

fn text(changes: &[Change], taken: Taken) -> String {
    let Taken { survived, ended } = taken;
    let mut lines: Vec<_> = changes.iter().map(Change::difference).collect();
    lines.push(format!("{survived} sessions survive, {ended} have ended"));
    lines.join("\n")
}

/// A failure, for whoever asked.
fn problem(failure: &Failure) -> Problem {
    let code = match failure.exit() {
        Exit::NotFound => ProblemCode::NotFound,
        Exit::NotRunning => ProblemCode::Stopping,
        Exit::Usage => ProblemCode::Invalid,
        Exit::Ok | Exit::Error | Exit::Timeout | Exit::NoNat64 | Exit::Permission => {
            ProblemCode::Failed
        }
    };
    let text = failure.to_string();
    Problem::new(code, text.strip_prefix("error: ").unwrap_or(&text))
}

#[cfg(test)]
mod tests;
