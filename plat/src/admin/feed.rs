//! What becomes of the tables, for those who listen.
//!
//! The workers keep changes only while somebody listens, and never wait for anybody: what does not
//! fit is lost and counted. The changes are fetched as an order, every few milliseconds.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use control::{
    Problem, ProblemCode,
    plat::{Event, Filter},
};
use ipc::Subscriber;
use nat64::{Engine, journal::Change};
use tokio::sync::Notify;

use super::{facts::CurrentFacts, rows};
use crate::workers::Orders;

/// How often the changes are fetched.
const OFTEN: Duration = Duration::from_millis(50);

/// Changes that one worker keeps until they are fetched: 5 MiB.
const KEPT: usize = 1 << 16;

/// Clients that follow, at most.
const FOLLOWERS: usize = 16;

/// Something that is told of every change.
pub(crate) trait Listener: Send {
    /// Whether it wants to be told of more.
    fn is_there(&self) -> bool;

    /// What changed. Must not wait.
    fn told(&mut self, change: &Change, now: Instant);
}

/// The source.
pub(super) struct Feed {
    orders: Orders,
    listeners: Mutex<Vec<Box<dyn Listener>>>,
    added: Notify,
}

impl Feed {
    pub(super) fn new(orders: Orders) -> Self {
        Self {
            orders,
            listeners: Mutex::default(),
            added: Notify::new(),
        }
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<Box<dyn Listener>>> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a client that follows sessions.
    pub(super) async fn add(&self, follower: Follower) -> Result<(), Problem> {
        if self.listeners().len() >= FOLLOWERS {
            let what = "others follow already, as many as may";
            return Err(Problem::new(ProblemCode::TooManyConnections, what));
        }
        follower.subscriber.subscribe();
        self.listen(Box::new(follower)).await;
        Ok(())
    }

    /// Adds somebody who is told of every change from now on.
    pub(super) async fn listen(&self, listener: Box<dyn Listener>) {
        let began = self.orders.each(|engine, _| begin(engine)).await;
        if let Err(error) = began {
            tracing::warn!("changes cannot be followed: {error}");
        }
        self.listeners().push(listener);
        self.added.notify_one();
    }

    /// Another listens in the place of one that `leaves`. What changes is told to one of them: until
    /// now to the old one.
    pub(super) async fn exchange(&self, leaves: impl FnOnce(), new: Option<Box<dyn Listener>>) {
        if new.is_some()
            && let Err(error) = self.orders.each(|engine, _| begin(engine)).await
        {
            tracing::warn!("changes cannot be followed: {error}");
        }
        self.fetch().await;
        let mut listeners = self.listeners();
        leaves();
        listeners.retain(|it| it.is_there());
        listeners.extend(new);
        self.added.notify_one();
    }

    /// Tells those who listen. Never returns.
    pub(super) async fn run(&self) {
        loop {
            if self.listeners().is_empty() {
                let _ = self
                    .orders
                    .each(|engine, _| engine.keep_changes(None))
                    .await;
                // Somebody may have come meanwhile.
                if self.listeners().is_empty() {
                    self.added.notified().await;
                }
                let _ = self.orders.each(|engine, _| begin(engine)).await;
            }
            tokio::time::sleep(OFTEN).await;
            self.fetch().await;
        }
    }

    /// Tells what changed since it was fetched last.
    pub(super) async fn fetch(&self) {
        let fetched = self.orders.each(|engine, now| {
            let mut changes = Vec::new();
            engine.drain_changes(|change| changes.push(change));
            (changes, now)
        });
        // Workers that have ended are said elsewhere.
        for (changes, now) in fetched.await.unwrap_or_default() {
            self.tell(&changes, now);
        }
    }

    fn tell(&self, changes: &[Change], now: Instant) {
        let mut listeners = self.listeners();
        listeners.retain(|it| it.is_there());
        for listener in listeners.iter_mut() {
            changes.iter().for_each(|it| listener.told(it, now));
        }
    }
}

/// Begins to keep changes, unless that is so already.
fn begin(engine: &mut Engine) {
    engine.keep_changes(Some(KEPT));
}

/// A client that follows sessions.
pub(super) struct Follower {
    /// Which.
    pub(super) filter: Filter,
    /// The names of the prefixes.
    pub(super) facts: CurrentFacts,
    /// The client.
    pub(super) subscriber: Subscriber,
    /// It did not take an event: it is too slow, or gone.
    pub(super) has_missed: bool,
}

impl Follower {
    fn event(&self, change: &Change, now: Instant) -> Option<Event> {
        let row = |record| {
            let row = rows::record(record, &self.facts.get().prefixes, now);
            self.filter.wants_session(&row).then_some(row)
        };
        match change {
            Change::SessionMade(record) => row(record).map(Event::SessionCreated),
            Change::SessionEnded(record, _) => row(record).map(Event::SessionDeleted),
            Change::Lost(count) => Some(Event::Lost { count: *count }),
            Change::BindingMade(_)
            | Change::BindingChanged(_)
            | Change::BindingEnded(_)
            | Change::SessionChanged(_)
            | Change::BlockTaken(_)
            | Change::BlockGiven(_)
            | Change::Refused(_) => None,
        }
    }
}

impl Listener for Follower {
    fn is_there(&self) -> bool {
        !self.has_missed && self.subscriber.is_there()
    }

    fn told(&mut self, change: &Change, now: Instant) {
        if self.has_missed {
            return;
        }
        if let Some(event) = self.event(change, now) {
            let told = serde_json::to_value(event).is_ok_and(|it| self.subscriber.push(it));
            self.has_missed = !told;
        }
    }
}
