//! What can be asked of `plat`, and what it answers.

pub mod rows;
pub mod verbs;

pub use rows::*;
pub use verbs::*;
