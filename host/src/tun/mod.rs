//! The virtual interface that the host's IPv4 packets go through.

use std::{io, time::Duration};

use wire::{offload::OffloadError, packet::PacketBuf, pieces::Pieces};

use crate::Unsupported;

#[cfg(target_os = "linux")]
mod exclusive;
#[cfg(target_os = "linux")]
pub(crate) mod linux;

/// Why there is no virtual interface.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The program may not.
    #[error("no permission to create the virtual interface {name}: {source}")]
    Permission {
        /// Its name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The system has no TUN devices.
    #[error("this system has no /dev/net/tun: {source}")]
    NoDevice {
        /// What the system said.
        source: io::Error,
    },
    /// An interface of that name is in use.
    #[error("the interface {name} is in use by another program: {source}")]
    Busy {
        /// Its name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// An interface of another kind has that name, or another program's with several queues.
    #[error("the interface {name} is there already, and cannot be used as a TUN device: {source}")]
    NameTaken {
        /// The name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The system has no backend for them here.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// Something else.
    #[error("the virtual interface {name} could not be created: {source}")]
    Other {
        /// Its name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

impl OpenError {
    /// What kind of error it was to the system.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Permission { source, .. }
            | Self::NoDevice { source }
            | Self::Busy { source, .. }
            | Self::NameTaken { source, .. }
            | Self::Other { source, .. } => source.kind(),
            Self::Unsupported(_) => io::ErrorKind::Unsupported,
        }
    }

    /// What a person can do about it, if that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Permission { .. } => {
                Some("run as root, or with CAP_NET_ADMIN and a /dev/net/tun that the user may open")
            }
            Self::NoDevice { .. } => Some("load the kernel module: modprobe tun"),
            Self::Busy { .. } => Some("stop that program, or choose another interface name"),
            Self::NameTaken { .. } => {
                Some("stop the program that uses it, or choose another interface name")
            }
            Self::Unsupported(_) | Self::Other { .. } => None,
        }
    }
}

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

/// A virtual interface, or one of its queues. Shared by the threads of both directions.
///
/// * Linux: a TUN device with virtio-net headers, which become the buffer's metadata and back.
/// * macOS: utun has a protocol word of 4 bytes before each packet, which the headroom takes; the
///   system chooses the name ([`Self::name`]) and knows no offloads: the metadata stays empty.
/// * Windows: a wintun ring is copied to and from the buffer, without offloads; a wait is one for
///   the ring's event or the event of [`Self::wake`].
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
