//! CLAT and PLAT joined by impaired links, in virtual time, with hosts at both ends that check all
//! that reaches them.
//!
//! A run is decided by its seed alone: the links, what the hosts do, and what is lost on the way.
//! A run that fails says its seed; `OPENCLAT_SIM_SEED=… cargo test -p sim -- --nocapture` replays
//! it and shows every packet. `OPENCLAT_SIM_RUNS=…` makes more runs than usual.

#![expect(
    clippy::cast_possible_truncation,
    reason = "sizes of what is made here are known"
)]

mod flow;
pub mod inspect;
mod link;
mod random;
mod router;
mod server;
mod stack;
mod supersegment;
mod tcp;
mod world;

pub use world::{Summed, World};
