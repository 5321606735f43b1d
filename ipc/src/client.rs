//! The client's end.

use std::{collections::VecDeque, time::Duration};

use control::{
    Version,
    envelope::{Hello, Request, ToClient},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use crate::{Connection, Error};

/// How long a service may take to greet or to answer.
const PATIENCE: Duration = Duration::from_secs(35);

/// Events that are kept while an answer is waited for.
const KEPT: usize = 1024;

/// A connection to a service.
#[derive(Debug)]
pub struct Client<S> {
    connection: Connection<S>,
    hello: Hello<Value>,
    last: u64,
    events: VecDeque<Value>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Greets the service at the other end of `stream`.
    ///
    /// # Errors
    /// [`Error::VersionMismatch`], [`Error::Timeout`], or what the service says.
    pub async fn greet(stream: S, mine: &Hello<Value>) -> Result<Self, Error> {
        let mut connection = Connection::of_client(stream);
        let greet = async {
            let hello: Option<Hello<Value>> = connection.receive().await?;
            let hello = hello.ok_or(Error::Closed)?;
            let theirs = hello.protocol;
            if !Version::CURRENT.understands(theirs) {
                return Err(Error::VersionMismatch { theirs });
            }
            // If the service has hung up, it has said why.
            let _ = connection.send(mine).await;
            Ok(hello)
        };
        let hello = timeout(PATIENCE, greet).await;
        Ok(Self {
            hello: hello.map_err(|_| Error::Timeout)??,
            connection,
            last: 0,
            events: VecDeque::new(),
        })
    }

    /// The service's greeting.
    pub fn hello(&self) -> &Hello<Value> {
        &self.hello
    }

    /// Asks for something and waits for the answer.
    ///
    /// # Errors
    /// [`Error::Problem`] if it was refused; otherwise the connection is of no use any more.
    pub async fn call<V, A>(&mut self, verb: V) -> Result<A, Error>
    where
        V: Serialize,
        A: DeserializeOwned,
    {
        self.last += 1;
        let wanted = self.last;
        // If the service has hung up, it has said why.
        let sent = self.connection.send(&Request { id: wanted, verb }).await;
        let answer = async {
            loop {
                let next = self.connection.receive().await;
                match next?.ok_or(Error::Closed)? {
                    ToClient::Answer { id, answer } if id == wanted => return Ok(answer),
                    ToClient::Refused { id, problem } if id == wanted => {
                        return Err(problem.into());
                    }
                    // The answer to a call that was given up.
                    ToClient::Answer { .. } | ToClient::Refused { .. } => {}
                    ToClient::Event { event } => {
                        if self.events.len() < KEPT {
                            self.events.push_back(event);
                        }
                    }
                    ToClient::Closing { problem } => return Err(problem.into()),
                }
            }
        };
        let answer: Result<Value, Error> = timeout(PATIENCE, answer)
            .await
            .map_err(|_| Error::Timeout)?;
        match answer {
            Ok(answer) => {
                let answer = serde_json::from_value(answer);
                answer.map_err(|it| Error::Malformed(it.to_string()))
            }
            Err(Error::Closed | Error::Io(_)) => Err(sent.err().unwrap_or(Error::Closed)),
            Err(other) => Err(other),
        }
    }

    /// Waits for the next event. May be given up and called again.
    ///
    /// # Errors
    /// Why no more will come.
    pub async fn event<E: DeserializeOwned>(&mut self) -> Result<E, Error> {
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => match self.connection.receive().await?.ok_or(Error::Closed)? {
                    ToClient::Event { event } => event,
                    ToClient::Closing { problem } => return Err(problem.into()),
                    ToClient::<Value, Value>::Answer { .. } | ToClient::Refused { .. } => continue,
                },
            };
            // One that a newer service added is not for us.
            if let Ok(event) = serde_json::from_value(event) {
                return Ok(event);
            }
        }
    }
}
