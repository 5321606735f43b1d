//! TUN devices with offloads (`IFF_VNET_HDR`): super-segments and unfinished checksums pass as they
//! are, described by a virtio-net header before every packet.

use std::{
    fs, io,
    num::NonZeroU8,
    os::fd::{AsRawFd, BorrowedFd},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tun_rs::{DeviceBuilder, SyncDevice};
use wire::{
    offload::{Offload, VIRTIO_NET_HEADER},
    packet::PacketBuf,
};

use super::{OpenError, Received, SendError, Tun, exclusive};
use crate::{
    fault,
    wait::{Waker, Woken, until_readable},
};

/// What TUN devices are made by.
pub(super) const DEVICE: &str = "/dev/net/tun";

/// A TUN device. It disappears with this value, and its addresses and routes with it.
pub(crate) struct LinuxTun {
    device: SyncDevice,
    name: String,
    waker: Waker,
    /// The last look found nothing: the next wait need not look first.
    drained: AtomicBool,
}

impl LinuxTun {
    /// Creates the interface `name`, down and without any address.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) fn open(name: &str) -> Result<Self, OpenError> {
        let open = || -> io::Result<Self> {
            // What is missing would be made on the way, and be left behind.
            fs::metadata(DEVICE)?;
            fault::refusal()?;
            Self::queue(device(name, false)?)
        };
        open().map_err(|source| why(name, source))
    }

    /// Creates the interface `name` with several queues, down and without any address. The system
    /// spreads packets over them, those of one flow into the same one as a rule.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) fn open_queues(name: &str, queues: NonZeroU8) -> Result<Vec<Self>, OpenError> {
        if queues == NonZeroU8::MIN {
            return Ok(vec![Self::open(name)?]);
        }
        let open = || -> io::Result<Vec<Self>> {
            fs::metadata(DEVICE)?;
            fault::refusal()?;
            let created = exclusive::create(name)?;
            let first = device(name, true)?;
            // Not one of those that are served.
            drop(created);
            let others = (1..queues.get()).map(|_| first.try_clone());
            let others: Vec<_> = others.collect::<io::Result<_>>()?;
            let all = std::iter::once(first).chain(others);
            all.map(Self::queue).collect()
        };
        open().map_err(|source| why(name, source))
    }

    fn queue(device: SyncDevice) -> io::Result<Self> {
        device.set_nonblocking(true)?;
        Ok(Self {
            name: device.name()?,
            device,
            waker: Waker::new()?,
            drained: AtomicBool::new(false),
        })
    }

    /// Reads a packet, if there is one.
    fn look(&self, buf: &mut PacketBuf) -> io::Result<Option<Received>> {
        let area = buf.receive_area(VIRTIO_NET_HEADER);
        let len = loop {
            match self.device.recv(area) {
                Ok(len) => break len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::EBADFD) => {
                    return Err(io::Error::new(
                        io::ErrorKind::NotFound,
                        "somebody deleted it",
                    ));
                }
                Err(error) => return Err(error),
            }
        };
        Ok(Some(
            match Offload::decode(&area[..len.min(area.len())], 0) {
                Ok(offload) => {
                    buf.received(len - VIRTIO_NET_HEADER, offload);
                    Received::Packet
                }
                Err(error) => Received::Unreadable(error),
            },
        ))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to `self.device`, which outlives the borrow.
        unsafe { BorrowedFd::borrow_raw(self.device.as_raw_fd()) }
    }
}

fn device(name: &str, several_queues: bool) -> io::Result<SyncDevice> {
    DeviceBuilder::new()
        .name(name)
        .offload(true)
        .multi_queue(several_queues)
        .enable(false)
        .build_sync()
}

/// What an error of the kernel means.
fn why(name: &str, source: io::Error) -> OpenError {
    let name = name.to_owned();
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => OpenError::Permission { name, source },
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => OpenError::NoDevice { source },
        Some(libc::EBUSY) => OpenError::Busy { name, source },
        Some(libc::EINVAL) => OpenError::NameTaken { name, source },
        _ => OpenError::Other { name, source },
    }
}

impl Tun for LinuxTun {
    fn name(&self) -> &str {
        &self.name
    }

    fn recv(&self, buf: &mut PacketBuf, timeout: Option<Duration>) -> io::Result<Received> {
        let only_look = timeout == Some(Duration::ZERO);
        let was_drained = self.drained.swap(false, Ordering::Relaxed);
        if (only_look || !was_drained)
            && let Some(received) = self.look(buf)?
        {
            return Ok(received);
        }
        if only_look {
            self.drained.store(true, Ordering::Relaxed);
            return Ok(Received::TimedOut);
        }
        loop {
            match until_readable(self.fd(), &self.waker, timeout)? {
                Woken::Readable => {}
                Woken::ByWaker => return Ok(Received::Woken),
                Woken::TimedOut => return Ok(Received::TimedOut),
            }
            if let Some(received) = self.look(buf)? {
                return Ok(received);
            }
        }
    }

    fn send(&self, buf: &mut PacketBuf) -> Result<(), SendError> {
        let header = buf.offload.encode(0);
        if buf.replace_front(0, &header).is_err() {
            return Err(SendError::Refused(io::ErrorKind::OutOfMemory.into()));
        }
        let sent = self.device.send(buf.bytes());
        buf.advance(VIRTIO_NET_HEADER);
        match sent {
            Ok(_) => Ok(()),
            Err(error)
                if buf.offload.gso.is_some() && error.raw_os_error() == Some(libc::EINVAL) =>
            {
                Err(SendError::NoSegmentation)
            }
            Err(error) => Err(SendError::Refused(error)),
        }
    }

    fn wake(&self) {
        self.waker.wake();
    }
}

impl std::fmt::Debug for LinuxTun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinuxTun")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
