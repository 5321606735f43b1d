//! A whole system, by which programs come to its parts.
//!
//! [`ThisHost`] is the machine that the program runs on. Its parts are opened in one file per
//! system; where a backend does not exist yet, opening it fails with [`Unsupported`]. Everything
//! that a program does after that is the same on every system, and the same with the fake of the
//! tests.
//!
//! [`Unsupported`]: crate::Unsupported

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    num::NonZeroU8,
    sync::Arc,
};

use wire::ethernet::Mac;

use crate::{
    dns::Dns,
    netcfg::System,
    netwatch::Network,
    probe::EchoSocket,
    ra::RouterAdvertisements,
    signals::Signals,
    tun::{OpenError, Tun},
    uplink::Uplink,
};

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod unsupported;

/// A system: opens what a program uses of it. All of it must be called on a tokio runtime.
pub trait Host {
    /// What people tell a program while it runs.
    type Signals: Signals;
    /// What changes the network's settings.
    type System: System;
    /// What watches the network.
    type Network: Network;
    /// What hears routers.
    type RouterAdvertisements: RouterAdvertisements;
    /// What knows and reaches DNS servers.
    type Dns: Dns;
    /// What sends echo requests.
    type EchoSocket: EchoSocket;

    /// Listens to signals from now on, instead of being ended by them.
    ///
    /// # Errors
    /// The system's.
    fn signals(&self) -> io::Result<Self::Signals>;

    /// Opens what changes the network's settings.
    ///
    /// # Errors
    /// The system's.
    fn system(&self) -> io::Result<Self::System>;

    /// Starts to watch the network.
    ///
    /// # Errors
    /// The system's.
    fn network(&self) -> io::Result<Self::Network>;

    /// Starts to listen to routers.
    ///
    /// # Errors
    /// The system's: `PermissionDenied` if the program may not.
    fn router_advertisements(&self) -> io::Result<Self::RouterAdvertisements>;

    /// Opens the way to DNS servers.
    ///
    /// # Errors
    /// The system's.
    fn dns(&self) -> io::Result<Self::Dns>;

    /// Opens a way to send echo requests from `address` by the interface of this name.
    ///
    /// # Errors
    /// The system's: `PermissionDenied` if the program may not, another if there is no such
    /// interface or address.
    fn echo_socket(&self, interface: &str, address: Ipv4Addr) -> io::Result<Self::EchoSocket>;

    /// Creates the virtual interface `name`, down and without any address. It disappears with the
    /// value.
    ///
    /// # Errors
    /// [`OpenError`].
    fn tun(&self, name: &str) -> Result<Arc<dyn Tun>, OpenError>;

    /// Creates the virtual interface `name` with so many queues, down and without any address. It
    /// disappears with the last of the values.
    ///
    /// # Errors
    /// [`OpenError`].
    fn tun_queues(&self, name: &str, queues: NonZeroU8) -> Result<Vec<Arc<dyn Tun>>, OpenError>;

    /// Opens the link with index `interface` and link-layer address `mac` for packets from and to
    /// `address`, which the kernel does not have.
    ///
    /// # Errors
    /// The system's: `PermissionDenied` if the program may not, `NotFound` if the link is gone.
    fn uplink(&self, interface: u32, mac: Mac, address: Ipv6Addr) -> io::Result<Arc<dyn Uplink>>;
}

/// The machine that the program runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThisHost;
