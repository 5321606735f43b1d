//! The operating system, behind small traits: everything that is not the same on every system.
//!
//! * [`tun`]: the virtual IPv4 interface;
//! * [`uplink`]: IPv6 packets of an address that the kernel does not have;
//! * [`netcfg`]: makes the host's network as a [`plan::Plan`] wants it, with a journal;
//! * [`netwatch`]: what the network is right now, and when it changes;
//! * [`ra`]: router advertisements, as they arrive;
//! * [`clock`]: a clock that keeps going while the machine sleeps.
//!
//! `unsafe` and `cfg(target_os)` live here and nowhere else. What one system needs is in the file
//! named after it.

pub mod clock;
pub mod netcfg;
pub mod netwatch;
pub mod ra;
#[cfg(target_os = "linux")]
mod sockopt;
pub mod tun;
pub mod uplink;
#[cfg(target_os = "linux")]
pub mod wait;
