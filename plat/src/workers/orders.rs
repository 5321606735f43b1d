//! Orders to the workers: closures that get the engine between two batches of packets.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use host::tun::Tun;
use nat64::Engine;
use tokio::sync::oneshot;

/// Orders that may wait for one worker. It carries them out within a batch of packets; more than
/// this waits only for one that does not.
const WAITING: usize = 64;

/// How long an answer is waited for. A worker that has not come to it by then is stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// Something to do with an engine.
pub(crate) type Order = Box<dyn FnOnce(&mut Engine, Instant) + Send>;

/// The way to one worker.
struct Line {
    /// Not a reason for the interface to stay when the worker is gone.
    tun: Weak<dyn Tun>,
    sender: SyncSender<Order>,
}

/// A way to one worker, and the end that the worker has.
pub(super) fn line(tun: &Arc<dyn Tun>) -> (OrderLine, Receiver<Order>) {
    let (sender, inbox) = sync_channel(WAITING);
    let tun = Arc::downgrade(tun);
    (OrderLine(Line { tun, sender }), inbox)
}

/// The way to one worker, for [`Orders::new`].
pub(super) struct OrderLine(Line);

/// Why an order was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// A worker has ended.
    Ended,
    /// A worker does not come to it.
    Stuck,
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ended => "a worker has ended",
            Self::Stuck => "a worker does not answer",
        })
    }
}

impl std::error::Error for Unanswered {}

/// The way to all workers. Its clones lead to the same ones.
#[derive(Clone)]
pub(crate) struct Orders(Arc<[Line]>);

impl Orders {
    pub(super) fn new(lines: Vec<OrderLine>) -> Self {
        Self(lines.into_iter().map(|line| line.0).collect())
    }

    /// How many workers there are.
    pub(crate) fn workers(&self) -> usize {
        self.0.len()
    }

    /// Has one worker do this with its engine. Nothing if there is none of that number.
    ///
    /// # Errors
    /// As [`Self::each`].
    pub(crate) async fn one<R: Send + 'static>(
        &self,
        worker: usize,
        order: impl FnOnce(&mut Engine, Instant) -> R + Send + 'static,
    ) -> Result<Option<R>, Unanswered> {
        let Some(line) = self.0.get(worker) else {
            return Ok(None);
        };
        let answered = line.ask(order)?;
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(answered) => answered.map(Some).map_err(|_| Unanswered::Ended),
            Err(_) => Err(Unanswered::Stuck),
        }
    }

    /// Has every worker do this with its engine, at the time that the worker gives with it, and
    /// returns the answers in the order of the shards. The workers do it at about the same time,
    /// but not at one instant.
    ///
    /// # Errors
    /// [`Unanswered`], at the latest after five seconds. Whoever could be told has done it by then or
    /// still does it when it comes to it, and after that what it is told next: so what takes it back
    /// is another order to all.
    pub(crate) async fn each<R: Send + 'static>(
        &self,
        order: impl Fn(&mut Engine, Instant) -> R + Send + Sync + 'static,
    ) -> Result<Vec<R>, Unanswered> {
        let order = Arc::new(order);
        // All are told before anything that one of them lacks ends it.
        let told: Vec<_> = self
            .0
            .iter()
            .map(|line| {
                let order = Arc::clone(&order);
                line.ask(move |engine, now| order(engine, now))
            })
            .collect();
        let all = async {
            let mut all = Vec::with_capacity(told.len());
            for answered in told {
                all.push(answered?.await.map_err(|_| Unanswered::Ended)?);
            }
            Ok(all)
        };
        let in_time = tokio::time::timeout(PATIENCE, all).await;
        in_time.unwrap_or(Err(Unanswered::Stuck))
    }
}

impl fmt::Debug for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "orders to {} workers", self.0.len())
    }
}

impl Line {
    /// Tells the worker; where its answer will be.
    fn ask<R: Send + 'static>(
        &self,
        order: impl FnOnce(&mut Engine, Instant) -> R + Send + 'static,
    ) -> Result<oneshot::Receiver<R>, Unanswered> {
        let (answer, answered) = oneshot::channel();
        self.send(Box::new(move |engine, now| {
            // Whoever asked may have lost patience.
            let _ = answer.send(order(engine, now));
        }))?;
        Ok(answered)
    }

    fn send(&self, order: Order) -> Result<(), Unanswered> {
        use std::sync::mpsc::TrySendError;

        self.sender.try_send(order).map_err(|error| match error {
            TrySendError::Full(_) => Unanswered::Stuck,
            TrySendError::Disconnected(_) => Unanswered::Ended,
        })?;
        if let Some(tun) = self.tun.upgrade() {
            tun.wake();
        }
        Ok(())
    }
}
