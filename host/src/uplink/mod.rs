//! The link that the CLAT's IPv6 packets go through: packets from and to an address that the kernel
//! does not have.

use std::{io, time::Duration};

use l2::link::FrameAddresses;
use wire::{ethernet::Mac, packet::PacketBuf};

pub use crate::tun::{Received, SendError};

#[cfg(target_os = "linux")]
mod gro;
#[cfg(target_os = "linux")]
pub mod linux;

/// A link. Shared by the threads of both directions.
pub trait Uplink: Send + Sync {
    /// Waits for a frame that concerns the address: a packet for it, or neighbour discovery about
    /// it. On [`Received::Packet`] the IPv6 packet is in `buf` and its frame in `frame`.
    ///
    /// # Errors
    /// The system's, when the link can no longer be used.
    fn recv(
        &self,
        buf: &mut PacketBuf,
        frame: &mut FrameAddresses,
        timeout: Option<Duration>,
    ) -> io::Result<Received>;

    /// Sends the IPv6 packet in `buf` to a link-layer address. The headroom of `buf` is used; the
    /// packet in it stays as it is.
    ///
    /// # Errors
    /// [`SendError`].
    fn send(&self, buf: &mut PacketBuf, to: Mac) -> Result<(), SendError>;

    /// Ends the wait of [`Self::recv`] in another thread.
    fn wake(&self);
}
