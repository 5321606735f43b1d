//! Stateful NAT64 (RFC 6146): IPv6 clients share the IPv4 addresses of a pool.
//!
//! The files follow the steps of RFC 6146 §3:
//!
//! 1. `incoming_tuple` (§3.4): what the packet is, its fragments put together
//!    ([`xlat::reassembly`]);
//! 2. `filtering_and_updating` (§3.5): its binding ([`bib`]) and session ([`session`]), by
//!    protocol; the TCP state machine is [`tcp`], the free ports are the [`pool`]'s;
//! 3. `outgoing_tuple` (§3.6): the mapping that translation is given;
//! 4. [`engine`] (§3.7): all of it in order, around the translator of crate `xlat`.
//!
//! Beside them, `stateless`: hosts with an explicit mapping (RFC 7757), whose packets need none of
//! this.
//!
//! An [`Engine`] is all of the NAT64, or one of several shards that share its work and no table;
//! [`dispatch`] says which shard a packet belongs to.
//!
//! Sans-IO: packets and times go in, verdicts come out; [`Engine::poll_timeout`] says when
//! [`Engine::handle_timeout`] wants to be called. In the comments X',x is the client, T,t its
//! address and port from the pool, Z,z the server, Y' the server's address under the NAT64 prefix.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::cast_possible_truncation))]
#![cfg_attr(
    test,
    expect(
        clippy::wildcard_enum_match_arm,
        reason = "any other outcome fails the test"
    )
)]

pub mod bib;
mod bits;
pub mod blocks;
mod bucket;
mod chunks;
pub mod config;
pub mod destinations;
pub mod dispatch;
pub mod engine;
pub mod filtering;
mod filtering_and_updating;
mod hold_down;
mod incoming_tuple;
mod index;
pub mod journal;
mod keepalive;
pub mod network6;
mod outgoing_tuple;
pub mod paging;
pub mod pool;
pub mod ports;
mod random;
pub mod reason;
pub mod reconfigure;
mod refused;
pub mod restart;
mod sequence;
pub mod session;
mod stateless;
pub mod static_bib;
pub mod stats;
mod stored_syns;
pub mod subscriber;
pub mod tcp;
pub mod tuple;
pub mod view;
pub mod whose;

pub use config::Config;
pub use engine::{Engine, RefusedSubscriber, Transmit};
pub use reason::{DropReason, Why};
