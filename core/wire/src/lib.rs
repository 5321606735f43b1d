//! Packets as bytes: typed views, checksums, offload metadata, fragments and segments.
//!
//! The one buffer a packet lives in is [`packet::PacketBuf`]; what becomes of it is a
//! [`verdict::Verdict`]; a packet that leaves as several is [`pieces::Pieces`]. Views such as
//! [`ipv4::Ipv4`] are parsed once and then infallible. No bytes make anything here panic.
//!
//! Pure: no clock, no socket, no allocation per packet.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::cast_possible_truncation))]

pub mod arp;
pub mod checksum;
#[cfg(feature = "compose")]
#[expect(
    clippy::cast_possible_truncation,
    reason = "for tests: lengths are small"
)]
pub mod compose;
pub mod counters;
pub mod crc32c;
pub mod ethernet;
pub mod field;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod ndp;
pub mod offload;
pub mod packet;
pub mod pieces;
pub mod pretty;
pub mod protocol;
pub mod transport;
pub mod verdict;
