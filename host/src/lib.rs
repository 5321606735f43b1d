//! The operating system, behind small traits: everything that is not the same on every system.
//!
//! * [`tun`]: the virtual IPv4 interface;
//! * [`uplink`]: IPv6 packets of an address that the kernel does not have;
//! * [`netcfg`]: makes the host's network as a [`plan::Plan`] wants it, with a journal;
//! * [`netwatch`]: what the network is right now, and when it changes;
//! * [`ra`]: router advertisements, as they arrive;
//! * [`clock`]: a clock that keeps going while the machine sleeps.
//!
//! The traits are [`tun::Tun`], [`uplink::Uplink`], [`netcfg::System`], [`netwatch::Network`] and
//! [`ra::RouterAdvertisements`]. With the feature `fake` there are ports in memory for tests.
//!
//! `unsafe` and `cfg(target_os)` live here and nowhere else. What one system needs is in the file
//! named after it.

#[cfg(target_os = "linux")]
mod capabilities;
pub mod clock;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod netcfg;
#[cfg(target_os = "linux")]
mod netlink;
pub mod netwatch;
pub mod ra;
#[cfg(target_os = "linux")]
mod sockopt;
pub mod tun;
pub mod uplink;
#[cfg(target_os = "linux")]
pub mod wait;
