//! What is asked, and what changes something.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use ::control::{
    Problem, ProblemCode,
    plat::{Answer, Filter, Protocol, StaticBinding, Verb},
};
use ipc::Subscriber;
use nat64::{Engine, static_bib::StaticError};
use tokio::sync::oneshot;

use super::{Admin, Reload, ReloadOrder, feed::Follower, lists, rows, unanswered};

impl Admin {
    /// Does what is asked.
    pub(super) async fn carry_out(
        &self,
        verb: Verb,
        subscriber: &Subscriber,
    ) -> Result<Answer, Problem> {
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

    pub(super) async fn flush(&self, filter: Filter) -> Result<Answer, Problem> {
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

    pub(super) async fn add(&self, binding: StaticBinding) -> Result<Answer, Problem> {
        let wanted = rows::static_binding(&binding);
        // What is there already must not be taken back.
        let known = self
            .each(move |engine, _| engine.has_static(wanted))
            .await?;
        if known.contains(&true) {
            return Ok(done(Some(0), "that binding is there already"));
        }
        self.make(wanted).await?;
        Ok(done(Some(1), "binding made"))
    }

    /// All workers make a static binding, or none.
    pub(super) async fn make(
        &self,
        wanted: nat64::static_bib::StaticBinding,
    ) -> Result<(), Problem> {
        let made = self.each(move |engine, _| engine.add_static(wanted)).await;
        let made = made.and_then(|made| {
            let made: Result<(), StaticError> = made.into_iter().collect();
            made.map_err(|it| Problem::new(ProblemCode::Invalid, it).command("plat bib list"))
        });
        if made.is_err() {
            // Those that did not refuse, or have not come to it yet, and then come to this.
            let _ = self
                .each(move |engine, _| engine.cancel_static(wanted))
                .await;
        }
        made
    }

    async fn remove(&self, protocol: Protocol, end: SocketAddr) -> Result<Answer, Problem> {
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
}

fn done(count: Option<u64>, text: impl Into<String>) -> Answer {
    Answer::Done {
        count,
        text: text.into(),
    }
}
