//! What can be asked of `plat`, and what it answers.

pub mod capture;
pub mod rows;
pub mod verbs;

pub use capture::{CaptureFilter, CaptureWanted, CapturedPacket, Ends, Side, from_hex, to_hex};
pub use rows::*;
pub use verbs::*;
