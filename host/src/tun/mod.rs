//! The virtual interface that the host's IPv4 packets go through.

use std::{io, time::Duration};

use wire::{offload::OffloadError, packet::PacketBuf, pieces::Pieces};

#[cfg(target_os = "linux")]
pub mod linux;

/// What a wait for a packet ended with.
#[derive(Debug)]
#[must_use]
pub enum Received {
    /// A packet is in the buffer.
    Packet,
    /// A packet came whose metadata cannot be understood; it is lost.
    Unreadable(OffloadError),
    /// [`Tun::wake`] or [`crate::uplink::Uplink::wake`] was called.
    Woken,
    /// The time is up.
    TimedOut,
}

/// Why a packet was not sent.
#[derive(Debug)]
pub enum SendError {
    /// The system takes no super-segments (EINVAL): send its segments, now and from now on.
    NoSegmentation,
    /// The system did not take this packet: its queue is full, the interface down, the packet too
    /// long for it.
    Refused(io::Error),
}

/// A virtual interface. Shared by the threads of both directions.
pub trait Tun: Send + Sync {
    /// Its name, as the system gave it.
    fn name(&self) -> &str;

    /// Waits for a packet that the host sends. With a timeout of zero it only looks.
    ///
    /// # Errors
    /// The system's, when the interface can no longer be used.
    fn recv(&self, buf: &mut PacketBuf, timeout: Option<Duration>) -> io::Result<Received>;

    /// Gives the host a packet. The headroom of `buf` is used; the packet in it stays as it is.
    ///
    /// # Errors
    /// [`SendError`].
    fn send(&self, buf: &mut PacketBuf) -> Result<(), SendError>;

    /// Ends the wait of [`Self::recv`] in another thread.
    fn wake(&self);
}

/// Sends every piece of a translated packet by `send`, and tells `lost` of each that was refused.
/// Once the system has refused a super-segment, `segment` is set and all are divided here.
pub fn send_pieces(
    mut pieces: Pieces,
    buf: &mut PacketBuf,
    segment: &mut bool,
    mut send: impl FnMut(&mut PacketBuf) -> Result<(), SendError>,
    mut lost: impl FnMut(&io::Error),
) {
    while pieces.next(buf) {
        if !*segment || buf.offload.gso.is_none() {
            match send(buf) {
                Ok(()) => continue,
                Err(SendError::NoSegmentation) => {
                    tracing::warn!("the system takes no super-segments: they are divided here");
                    *segment = true;
                }
                Err(SendError::Refused(error)) => {
                    lost(&error);
                    continue;
                }
            }
        }
        let Ok(mut segments) = Pieces::segments(buf) else {
            lost(&io::ErrorKind::InvalidData.into());
            continue;
        };
        while segments.next(buf) {
            if let Err(SendError::Refused(error)) = send(buf) {
                lost(&error);
            }
        }
    }
}
