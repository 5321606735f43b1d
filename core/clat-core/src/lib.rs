//! The CLAT of 464XLAT (RFC 6877): what it makes of packets, and when it is on.
//!
//! * [`mapping`]: the host's IPv4 address is an explicit mapping to the CLAT's IPv6 address, every
//!   other address goes by the NAT64 prefix;
//! * [`engine`]: the two directions of the data path, with their counters;
//! * [`flows`]: which flow goes by which prefix, while there is more than one;
//! * [`address`]: which IPv6 address the CLAT takes (RFC 6724, checksum-neutral);
//! * [`session`]: the state machine of one interface, facts in, effects out;
//! * [`probe`]: does anything behind the NAT64 answer;
//! * [`host_plan`]: what it wants of the host's network.
//!
//! Pure: no clock, no socket. The shell around it is crate `clat`.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::cast_possible_truncation))]
#![cfg_attr(
    test,
    expect(
        clippy::wildcard_enum_match_arm,
        reason = "any other outcome fails the test"
    )
)]

pub mod address;
pub mod engine;
pub mod flows;
pub mod host_plan;
pub mod mapping;
pub mod probe;
pub mod session;

pub use engine::{Inbound, Outbound, Settings};
pub use session::{Effect, Facts, Session, State};
