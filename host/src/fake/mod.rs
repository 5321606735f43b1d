//! Doubles of the system, for tests without one.
//!
//! [`FakeTun`] and [`FakeUplink`] are ports in memory. [`FakeHost`] is a whole host: what is changed
//! on it shows when it is looked at, and what a test changes is noticed.
//!
//! A test is the world on the other side: it puts packets in and takes out what was sent, moves
//! cables and says what routers say.

mod machine;
mod ports;

pub use machine::{
    FakeDns, FakeEchoSocket, FakeHost, FakeNetwork, FakeRouters, FakeSignals, FakeSystem, Opened,
    World,
};
pub use ports::{FakeTun, FakeUplink, Packet, Refusal};
