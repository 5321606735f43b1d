//! Everything that crosses a process boundary, as data: what a service and its command line (or,
//! later, its window) say to each other.
//!
//! * [`version`]: which protocol that is, and whether two ends understand each other;
//! * [`envelope`]: greetings, requests, answers and events, whatever they carry;
//! * [`problem`]: why something was not done, and what to do about it;
//! * [`network`]: addresses, prefixes and ports as people write them, and filters made of them;
//! * [`plat`]: the verbs of `plat` and the rows it answers with.
//!
//! Everything is written as JSON by `ipc`. Fields are only ever added, and those that the other
//! end does not know are ignored; a change that breaks this raises the major version.

#![forbid(unsafe_code)]

pub mod envelope;
pub mod network;
pub mod plat;
pub mod problem;
pub mod version;

pub use problem::{Problem, ProblemCode};
pub use version::Version;
