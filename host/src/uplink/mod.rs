//! The link that the CLAT's IPv6 packets go through: packets from and to an address that the kernel
//! does not have.

use std::{io, time::Duration};

use wire::{ethernet::Mac, packet::PacketBuf};

pub use burst::{Burst, MAX_BURST, SMALL, Slot};

pub use crate::tun::{Received, SendError};

mod burst;
#[cfg(target_os = "linux")]
mod gro;
#[cfg(target_os = "linux")]
pub(crate) mod linux;
#[cfg(target_os = "linux")]
mod mmsg;

/// A link. Shared by the threads of both directions.
///
/// * Linux: a packet socket with virtio-net headers, behind the filter of [`l2::filter`].
/// * macOS: `/dev/bpf` takes the same filter (BIOCSETF), and whole frames in and out
///   (BIOCSHDRCMPLT), so [`l2::Link`] keeps the address there too.
/// * Windows: WinDivert gives and takes packets without frames. The system itself has the address,
///   claims it and answers for it, so the addresses of the frame stay as they were, `to` is not
///   used, and no neighbour discovery comes up.
pub trait Uplink: Send + Sync {
    /// Waits for frames that concern the address: packets for it, or neighbour discovery about it.
    /// On [`Received::Packet`], `burst` has as many as there were and it expected. With a timeout of
    /// zero it only looks.
    ///
    /// # Errors
    /// The system's, when the link can no longer be used.
    fn recv(&self, burst: &mut Burst, timeout: Option<Duration>) -> io::Result<Received>;

    /// Sends the IPv6 packet in `buf` to a link-layer address. The headroom of `buf` is used; the
    /// packet in it stays as it is.
    ///
    /// # Errors
    /// [`SendError`].
    fn send(&self, buf: &mut PacketBuf, to: Mac) -> Result<(), SendError>;

    /// Sends packets that are no super-segments, at most [`MAX_BURST`] in their order, to one
    /// link-layer address, and tells `lost` of each that was refused. What the buffers hold
    /// afterwards is of no use.
    fn send_burst(&self, packets: &mut [PacketBuf], to: Mac, lost: &mut dyn FnMut(&io::Error)) {
        for packet in packets {
            if let Err(SendError::Refused(error)) = self.send(packet, to) {
                lost(&error);
            }
        }
    }

    /// How many frames the system has lost since this was last asked, because nobody received them
    /// in time. Zero where the system does not tell.
    fn overflows(&self) -> u64 {
        0
    }

    /// Ends the wait of [`Self::recv`] in another thread.
    fn wake(&self);
}
