//! The service's end: [`serve`].

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use control::{
    Problem, ProblemCode, Version,
    envelope::{Hello, Request, ToClient},
};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    task::{Id, JoinSet},
    time::timeout,
};

use crate::{Connection, Error, Peer, transport::Accept};

/// What a service does with what it is asked.
pub trait Service: Send + Sync + 'static {
    /// The service's greeting.
    fn hello(&self) -> Hello<Value>;

    /// Does what `peer` asks, if it may. Events go to `subscriber`, for as long as the connection
    /// lasts.
    fn call(
        &self,
        peer: &Peer,
        verb: Value,
        subscriber: &Subscriber,
    ) -> impl Future<Output = Result<Value, Problem>> + Send;
}

/// How much clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one user. Root has no such limit, and may have
    /// [`Self::ROOT_RESERVE`] more than `connections`.
    pub per_user: usize,
    /// Events that a client has not read yet.
    pub events: usize,
    /// How long a client may take to greet, or to read a message.
    pub patience: Duration,
    /// How long a client that subscribed to nothing may say nothing.
    pub idle: Duration,
    /// How long a call may take.
    pub call: Duration,
}

impl Limits {
    /// Connections that only root can have, so that nobody can lock root out.
    pub const ROOT_RESERVE: usize = 8;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            per_user: 16,
            events: 1024,
            patience: Duration::from_secs(5),
            idle: Duration::from_secs(300),
            call: Duration::from_secs(30),
        }
    }
}

/// Where a client's events go.
#[derive(Clone, Debug)]
pub struct Subscriber {
    events: mpsc::Sender<Value>,
    overflowed: Arc<AtomicBool>,
    subscribed: Arc<AtomicBool>,
}

impl Subscriber {
    /// Says that events will come, so that the client may be silent for as long as it likes.
    pub fn subscribe(&self) {
        self.subscribed.store(true, Ordering::Relaxed);
    }

    /// Whether the client is still connected.
    #[must_use]
    pub fn is_there(&self) -> bool {
        !self.events.is_closed()
    }

    /// Waits until the client is gone.
    pub async fn gone(&self) {
        self.events.closed().await;
    }

    /// Queues an event once fewer than `unread` others wait for the client, so that a slow one
    /// slows down its source instead of losing its connection. Whether it can still arrive.
    pub async fn send(&self, event: Value, unread: usize) -> bool {
        let all = self.events.max_capacity();
        let free = all.saturating_sub(unread.saturating_sub(1)).max(1);
        match self.events.reserve_many(free).await {
            Ok(mut places) => {
                if let Some(place) = places.next() {
                    place.send(event);
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Queues an event; never waits. If the client has left too many unread, its connection ends.
    /// Whether any event can still arrive.
    pub fn push(&self, event: Value) -> bool {
        match self.events.try_send(event) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.overflowed.store(true, Ordering::Relaxed);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

/// Serves clients until it is dropped, which ends all connections.
pub async fn serve(mut listener: impl Accept, service: Arc<impl Service>, limits: Limits) {
    let mut tasks = JoinSet::new();
    let mut users: BTreeMap<Id, u32> = BTreeMap::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let refusal = refusal(&peer, &users, &limits);
                    let uid = peer.uid;
                    let service = Arc::clone(&service);
                    let task = tasks.spawn(converse(stream, peer, service, limits, refusal));
                    users.insert(task.id(), uid);
                }
                Err(error) => {
                    tracing::warn!("the control socket: {error}");
                    // No more file descriptors, for example.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(ended) = tasks.join_next_with_id() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(error) => {
                        tracing::error!("a control connection: {error}");
                        error.id()
                    }
                };
                users.remove(&id);
            }
        }
    }
}

/// Why there is no place for `peer`.
fn refusal(peer: &Peer, users: &BTreeMap<Id, u32>, limits: &Limits) -> Option<Problem> {
    let summary = if peer.is_root() {
        let all = limits.connections + Limits::ROOT_RESERVE;
        (users.len() >= all).then(|| "all connections are taken".to_owned())
    } else {
        let own = users.values().filter(|it| **it == peer.uid).count();
        let of_user = || format!("user {} has {own} connections already", peer.uid);
        if users.len() >= limits.connections {
            Some("all connections are taken".to_owned())
        } else {
            (own >= limits.per_user).then(of_user)
        }
    };
    summary.map(|it| Problem::new(ProblemCode::TooManyConnections, it))
}

/// Why a conversation ends.
enum End {
    /// The client hung up, or cannot be reached.
    Gone,
    /// The service ends it.
    Because(Problem),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        match error {
            Error::Malformed(_) | Error::TooLong => {
                Self::Because(Problem::new(ProblemCode::Malformed, error))
            }
            Error::Problem(problem) => Self::Because(problem),
            Error::VersionMismatch { .. } => {
                Self::Because(Problem::new(ProblemCode::VersionMismatch, error))
            }
            Error::NotRunning(_)
            | Error::Io(_)
            | Error::Closed
            | Error::Timeout
            | Error::Impostor { .. }
            | Error::InUse(_)
            | Error::UnsafeDirectory(_)
            | Error::Unsupported => Self::Gone,
        }
    }
}

async fn converse<S>(
    stream: S,
    peer: Peer,
    service: Arc<impl Service>,
    limits: Limits,
    refusal: Option<Problem>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let mut talk = Talk {
        connection: Connection::of_service(stream),
        limits,
    };
    let end = match talk.greet(&*service, refusal).await {
        Ok(()) => talk.serve(&peer, &*service).await,
        Err(end) => end,
    };
    match end {
        End::Gone => {}
        End::Because(problem) => {
            tracing::debug!("a control connection of user {} ends: {problem}", peer.uid);
            let _ = talk.send(&ToClient::Closing { problem }).await;
        }
    }
}

struct Talk<S> {
    connection: Connection<S>,
    limits: Limits,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Talk<S> {
    /// Sends, and gives up on a client that does not read.
    async fn send(&mut self, message: &ToClient<Value, Value>) -> Result<(), End> {
        let sent = timeout(self.limits.patience, self.connection.send(message)).await;
        match sent {
            Ok(sent) => sent.map_err(End::from),
            Err(_) => {
                tracing::debug!("a control connection ends: the client does not read");
                Err(End::Gone)
            }
        }
    }

    async fn greet(&mut self, service: &impl Service, refusal: Option<Problem>) -> Result<(), End> {
        let hello = timeout(self.limits.patience, self.connection.send(&service.hello())).await;
        hello.unwrap_or(Err(Error::Timeout))?;
        if let Some(problem) = refusal {
            return Err(End::Because(problem));
        }
        let theirs = timeout(
            self.limits.patience,
            self.connection.receive::<Hello<Value>>(),
        );
        let theirs = theirs.await.map_err(|_| {
            End::Because(Problem::new(ProblemCode::Timeout, "no greeting in time"))
        })??;
        let theirs = theirs.ok_or(End::Gone)?.protocol;
        if Version::CURRENT.understands(theirs) {
            Ok(())
        } else {
            Err(Error::VersionMismatch { theirs }.into())
        }
    }

    async fn serve(&mut self, peer: &Peer, service: &impl Service) -> End {
        let (sender, mut events) = mpsc::channel(self.limits.events.max(1));
        let subscriber = Subscriber {
            events: sender,
            overflowed: Arc::default(),
            subscribed: Arc::default(),
        };
        loop {
            let may_idle = subscriber.subscribed.load(Ordering::Relaxed);
            let step = tokio::select! {
                request = self.connection.receive::<Request<Value>>() => match request {
                    Ok(Some(request)) => self.answer(request, peer, service, &subscriber).await,
                    Ok(None) => Err(End::Gone),
                    Err(error) => Err(error.into()),
                },
                // The subscriber is ours, so the queue never ends.
                Some(event) = events.recv() => self.send(&ToClient::Event { event }).await,
                () = tokio::time::sleep(self.limits.idle), if !may_idle => Err(End::Because(
                    Problem::new(ProblemCode::Timeout, "nothing was asked for a long time"),
                )),
            };
            if let Err(end) = step {
                return end;
            }
            if subscriber.overflowed.load(Ordering::Relaxed) {
                let limit = self.limits.events;
                let what = format_args!("{limit} events were not read in time");
                return End::Because(Problem::new(ProblemCode::TooSlow, what));
            }
        }
    }

    async fn answer(
        &mut self,
        request: Request<Value>,
        peer: &Peer,
        service: &impl Service,
        subscriber: &Subscriber,
    ) -> Result<(), End> {
        let Request { id, verb } = request;
        let called = timeout(self.limits.call, service.call(peer, verb, subscriber)).await;
        let answer = match called {
            Ok(Ok(answer)) => ToClient::Answer { id, answer },
            Ok(Err(problem)) => ToClient::Refused { id, problem },
            Err(_) => ToClient::Refused {
                id,
                problem: Problem::new(ProblemCode::Timeout, "it took too long"),
            },
        };
        self.send(&answer).await
    }
}

#[cfg(test)]
mod tests;
