//! The CLAT's IPv6 address on a link whose kernel does not know it.
//!
//! The kernel neither claims nor defends the address, so this does: [`Link`] performs duplicate
//! address detection (RFC 4862 §5.4, RFC 7527), answers neighbours (RFC 4861 §7.2), tells routers
//! of the new address (RFC 9131), and gives way when somebody else turns out to have it.
//! [`filter`] is the packet filter in front of it, and [`next_hop`] chooses the router that
//! packets go to.
//!
//! [`claim`] does the same for IPv4 addresses that the kernel answers for (RFC 5227).
//!
//! Sans-IO: frames and times go in, packets and events come out.
//!
//! ```text
//!             receive(frame, now) ─> Packet  (for the translator)
//!                                 ─> Reply   (send what is in the buffer)
//!                                 ─> Nothing | Drop(reason)
//! poll_timeout() ─> when to call handle_timeout(now) ─> a packet to send
//! poll_event()   ─> Assigned | Duplicate
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::cast_possible_truncation))]

pub mod claim;
pub mod filter;
pub mod link;
pub mod next_hop;
pub mod reason;

pub use link::{Event, Link, Received, Transmit};
pub use next_hop::NextHop;
pub use reason::DropReason;
