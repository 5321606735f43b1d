//! NAT64 prefixes and explicit address mappings.
//!
//! * [`prefix`]: the prefix itself, [`Pref64`], and how IPv4 addresses are written into it (RFC 6052);
//! * [`special`]: IPv4 addresses that are not ordinary destinations (RFC 6890);
//! * [`eam`] and [`siit`]: explicit address mappings and the stateless mapping made of both
//!   (RFC 7757);
//! * [`ra_option`]: the PREF64 option of router advertisements (RFC 8781);
//! * [`well_known_name`]: prefixes out of the answers for `ipv4only.arpa` (RFC 7050);
//! * [`dns_query`]: whom to ask for it, and when;
//! * [`tracker`]: which prefixes hold on an interface right now.
//!
//! Pure: no clock, no socket.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::cast_possible_truncation))]

pub mod dns_query;
pub mod eam;
pub mod prefix;
pub mod ra_option;
pub mod siit;
pub mod special;
pub mod tracker;
pub mod well_known_name;

pub use prefix::{Length, Pref64};
