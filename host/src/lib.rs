//! The operating system, behind small traits: everything that is not the same on every system.
//!
//! * [`tun`]: the virtual IPv4 interface;
//! * [`uplink`]: IPv6 packets of an address that the kernel does not have;
//! * [`netcfg`]: makes the host's network as a [`plan::Plan`] wants it, with a journal;
//! * [`netwatch`]: what the network is right now, and when it changes;
//! * [`ra`]: router advertisements, as they arrive;
//! * [`dns`]: which DNS servers a link has, and sockets to ask them by it;
//! * [`probe`]: echo requests by the virtual interface;
//! * [`arp`]: whether IPv4 addresses of a link are free;
//! * [`memory`]: huge pages for large tables;
//! * [`sockets`]: which ports local programs have for themselves;
//! * [`regular`]: files that are files, neither pipes nor devices;
//! * [`service`]: what the service manager is told;
//! * [`signals`]: what people tell a program while it runs;
//! * [`fault`]: points at which tests kill the process;
//! * [`clock`]: a clock that keeps going while the machine sleeps.
//!
//! Programs come to all of it by [`Host`], of which [`ThisHost`] is the machine they run on; the
//! parts are the traits [`tun::Tun`], [`uplink::Uplink`], [`netcfg::System`], [`netwatch::Network`],
//! [`ra::RouterAdvertisements`], [`dns::Dns`], [`probe::EchoSocket`] and [`signals::Signals`]. What a system has no backend
//! for fails to open, with [`Unsupported`]. With the feature `fake` there are doubles of them for
//! tests.
//!
//! `unsafe` and `cfg(target_os)` live here and nowhere else. What one system needs is in the file
//! named after it.

pub mod arp;
#[cfg(target_os = "linux")]
mod capabilities;
pub mod clock;
pub mod dns;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod fault;
mod machine;
pub mod memory;
pub mod netcfg;
#[cfg(target_os = "linux")]
mod netlink;
pub mod netwatch;
pub mod private;
pub mod probe;
pub mod ra;
#[cfg(target_os = "linux")]
mod readable;
pub mod regular;
pub mod service;
pub mod signals;
pub mod sockets;
#[cfg(target_os = "linux")]
mod sockopt;
pub mod tun;
mod unsupported;
pub mod uplink;
#[cfg(target_os = "linux")]
mod wait;

pub use machine::{Host, ThisHost};
pub use unsupported::Unsupported;
