//! IPv4 addresses of a link that are to be used: are they free, and does it stay so (RFC 5227)?

use std::{io, net::Ipv4Addr};

use l2::claim::Conflict;
use wire::ethernet::Mac;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as system;

/// The link, and the addresses on it that are wanted.
#[derive(Debug)]
pub struct Claimed(system::Claimed);

impl Claimed {
    /// Begins to ask for `addresses` by the interface with index `interface` and link-layer address
    /// `mac`. `seed` is random. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// The system's: `PermissionDenied` without CAP_NET_RAW.
    pub fn begin(
        interface: u32,
        mac: Mac,
        addresses: Vec<Ipv4Addr>,
        seed: u64,
    ) -> io::Result<Self> {
        system::Claimed::begin(interface, mac, addresses, seed).map(Self)
    }

    /// Waits until the addresses are known to be free, which takes up to seven seconds. `Some` as
    /// soon as somebody turns out to have one.
    ///
    /// # Errors
    /// The system's.
    pub async fn free(&mut self) -> io::Result<Option<Conflict>> {
        self.0.free().await
    }

    /// They are used from now on: the link is told so in [`Self::watch`].
    pub fn used(&mut self) {
        self.0.used();
    }

    /// Waits until somebody else uses one of them. Nothing is lost if it is dropped and called
    /// again.
    ///
    /// # Errors
    /// The system's.
    pub async fn watch(&mut self) -> io::Result<Conflict> {
        self.0.watch().await
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::{Conflict, Ipv4Addr, Mac, io};

    /// Nothing: no such system answers for addresses that it has not.
    #[derive(Debug)]
    pub(super) struct Claimed(core::convert::Infallible);

    #[expect(clippy::unused_async, reason = "as on a system that has it")]
    impl Claimed {
        pub(super) fn begin(_: u32, _: Mac, _: Vec<Ipv4Addr>, _: u64) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(super) async fn free(&mut self) -> io::Result<Option<Conflict>> {
            match self.0 {}
        }

        pub(super) fn used(&mut self) {
            match self.0 {}
        }

        pub(super) async fn watch(&mut self) -> io::Result<Conflict> {
            match self.0 {}
        }
    }
}
