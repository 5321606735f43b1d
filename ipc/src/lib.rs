//! How our programs talk to each other: messages of crate `control` as JSON, each behind its
//! length.
//!
//! * [`Connection`]: one message after the other, none longer than a limit;
//! * [`server`]: greets, answers, and pushes events to those who subscribed; a peer that is slow,
//!   silent or one too many is told so and cut off, and holds up nobody else;
//! * [`Client`]: greets, calls, and waits for events;
//! * [`transport`]: where the bytes go: a unix socket, or memory in tests;
//! * [`Peer`]: who is at the other end, by the kernel's word.
//!
//! There is no TCP: who may do what is decided by the kernel's word alone.

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    expect(
        clippy::wildcard_enum_match_arm,
        reason = "any other outcome fails the test"
    )
)]

mod client;
mod connection;
mod error;
mod peer;
pub mod server;
pub mod transport;

pub use client::Client;
pub use connection::{Connection, MAX_ANSWER, MAX_REQUEST};
pub use error::Error;
pub use peer::Peer;
pub use server::{Limits, Service, Subscriber, serve};
