//! What every message is wrapped in, whatever a program's verbs are.
//!
//! Both ends begin with a [`Hello`]. Then the client sends [`Request`]s and the service sends
//! [`ToClient`]s: one answer per request, in the order of the requests, and events in between.

use serde::{Deserialize, Serialize};

use crate::{problem::Problem, version::Version};

/// The first message, in both directions. `greeting` is the program's own: a service may tell its
/// state with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello<G> {
    /// The protocol. Readable in every version, so that two ends can tell that they do not
    /// understand each other.
    pub protocol: Version,
    /// The program that speaks, like `plat`.
    #[serde(default)]
    pub program: String,
    /// Its version, like `0.1.0`.
    #[serde(default)]
    pub program_version: String,
    /// What the program adds.
    #[serde(default)]
    pub greeting: Option<G>,
}

impl<G> Hello<G> {
    /// A greeting in the current protocol.
    pub fn new(program: impl Into<String>, program_version: impl Into<String>) -> Self {
        Self {
            protocol: Version::CURRENT,
            program: program.into(),
            program_version: program_version.into(),
            greeting: None,
        }
    }

    /// The same with something added by the program.
    #[must_use]
    pub fn with(mut self, greeting: G) -> Self {
        self.greeting = Some(greeting);
        self
    }
}

/// Something that a client wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request<V> {
    /// Chosen by the client; its answer carries it.
    pub id: u64,
    /// What it wants.
    pub verb: V,
}

/// What a service sends after its greeting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ToClient<A, E> {
    /// The answer to a request.
    Answer {
        /// The request's.
        id: u64,
        /// The answer.
        answer: A,
    },
    /// A request that was not fulfilled.
    Refused {
        /// The request's.
        id: u64,
        /// Why.
        problem: Problem,
    },
    /// Something happened that the client asked to be told of.
    Event {
        /// What.
        event: E,
    },
    /// The service ends the connection.
    Closing {
        /// Why.
        problem: Problem,
    },
}
