//! IP/ICMP translation, both directions (RFC 7915).
//!
//! [`V4ToV6`] and [`V6ToV4`] turn the packet in a [`wire::packet::PacketBuf`] into one of the other
//! family, in place. They know no prefix and no table: what addresses and ports become is asked of
//! a [`Mapping`], which the CLAT fills from its prefix and the PLAT from a session.
//!
//! A packet is read and judged completely before its first byte changes, so that a refused one can
//! be quoted in the ICMP error to its sender:
//!
//! ```text
//! translate() = read and judge ──┬─ rewrite ───────────────> Verdict::Forward(pieces)
//!                                └─ refuse ─┬─ ICMP error ─> Verdict::Reply(reason)
//!                                           └─ silence ────> Verdict::Drop(reason)
//! ```
//!
//! Super-segments pass as super-segments: their virtio-net metadata is translated with them, and
//! every decision about size is made for one segment.
//!
//! Pure: no clock (`now` is an argument), no allocation after construction, no `unsafe`.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::cast_possible_truncation))]
#![cfg_attr(
    test,
    expect(
        clippy::wildcard_enum_match_arm,
        reason = "any other outcome fails the test"
    )
)]

pub mod config;
pub mod extension;
pub mod icmp_error;
mod icmp_quote;
pub mod icmp_types;
mod icmp_v4_to_v6;
mod icmp_v6_to_v4;
pub mod identification;
pub mod key;
pub mod mapping;
pub mod mtu;
pub mod rate_limit;
pub mod reason;
pub mod reassembly;
mod transport;
mod v4_to_v6;
mod v6_to_v4;

pub use config::Config;
pub use mapping::{Mapping, Refusal, Rewrite};
pub use reason::DropReason;
pub use v4_to_v6::V4ToV6;
pub use v6_to_v4::V6ToV4;

#[cfg(test)]
mod tests;
