//! A packet socket with virtio-net headers (`PACKET_VNET_HDR`).
//!
//! Order matters when it is opened: with protocol 0 it receives nothing, so that the filter is in
//! place before the first frame. It is bound to IPv6, not to all protocols: sockets for all of them
//! are served before the traffic control hooks. It never bypasses the queueing discipline, which
//! would drop super-segments silently on links without segmentation.

use std::{
    io,
    mem::size_of,
    net::Ipv6Addr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::Mutex,
    time::Duration,
};

use l2::{filter, link::FrameAddresses};
use nix::sys::socket::{MsgFlags, recv, send};
use socket2::{Domain, Protocol, Socket, Type};
use wire::{
    ethernet::{self, Header, Mac},
    ndp::solicited_node,
    offload::{Offload, OffloadError, VIRTIO_NET_HEADER},
    packet::PacketBuf,
};

use super::{Received, SendError, Uplink};
use crate::{
    sockopt,
    wait::{Waker, Woken, until_readable},
};

/// What lies before the IPv6 packet in a read or write.
const FRONT: usize = VIRTIO_NET_HEADER + ethernet::HEADER_LEN;

const LINK_HEADER: u16 = 14;

/// Room for a burst while the thread is not scheduled. Not an error if the system grants less.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A packet socket on one Ethernet interface.
pub struct PacketSocket {
    socket: OwnedFd,
    mac: Mac,
    interface: u32,
    /// Holds the membership of the address's solicited-node group, so that the interface and the
    /// switches hear of it.
    group: Mutex<Option<Socket>>,
    waker: Waker,
}

impl PacketSocket {
    /// Opens the interface with index `interface` and link-layer address `mac` for `address`.
    ///
    /// # Errors
    /// The system's: `PermissionDenied` without CAP_NET_RAW, `NotFound` if the interface is gone.
    pub fn open(interface: u32, mac: Mac, address: Ipv6Addr) -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        let socket = OwnedFd::from(socket);
        sockopt::set(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1i32)?;
        sockopt::set(
            &socket,
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            &1i32,
        )?;
        attach_filter(&socket, address)?;
        bind(&socket, interface)?;
        Ok(Self {
            socket,
            mac,
            interface,
            group: Mutex::new(Some(join(interface, address)?)),
            waker: Waker::new()?,
        })
    }
}

/// Joins the solicited-node group of `address` by an ordinary socket: the kernel then tells the
/// interface's filter and, by MLD, the switches.
fn join(interface: u32, address: Ipv6Addr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
    socket.join_multicast_v6(&solicited_node(address), interface)?;
    Ok(socket)
}

fn attach_filter(socket: &OwnedFd, address: Ipv6Addr) -> io::Result<()> {
    let mut program: Vec<libc::sock_filter> = filter::program(address)
        .into_iter()
        .map(|instruction| libc::sock_filter {
            code: instruction.code,
            jt: instruction.jump_true,
            jf: instruction.jump_false,
            k: instruction.k,
        })
        .collect();
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // The kernel copies the program during the call, in which it is alive.
    sockopt::set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

fn bind(socket: &OwnedFd, interface: u32) -> io::Result<()> {
    // SAFETY: an all-zero sockaddr_ll is a valid value of that plain C struct.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_IPV6 as u16).to_be();
    address.sll_ifindex = i32::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `address` is valid for reads of the length that is passed.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

impl Uplink for PacketSocket {
    fn recv(
        &self,
        buf: &mut PacketBuf,
        frame: &mut FrameAddresses,
        timeout: Option<Duration>,
    ) -> io::Result<Received> {
        loop {
            let area = buf.receive_area(FRONT);
            match recv(self.socket.as_raw_fd(), area, MsgFlags::empty()) {
                Ok(len) => {
                    let front = area.get(..FRONT.min(len)).unwrap_or_default();
                    return Ok(match read_front(front) {
                        Ok((offload, addresses)) => {
                            *frame = addresses;
                            buf.received(len - FRONT, offload);
                            Received::Packet
                        }
                        Err(error) => Received::Unreadable(error),
                    });
                }
                Err(nix::Error::EAGAIN) => {}
                Err(nix::Error::EINTR) => continue,
                // The interface is down for now; what follows will say if it is gone.
                Err(nix::Error::ENETDOWN) => {}
                Err(error) => return Err(error.into()),
            }
            match until_readable(self.socket.as_fd(), &self.waker, timeout)? {
                Woken::Readable => {}
                Woken::ByWaker => return Ok(Received::Woken),
                Woken::TimedOut => return Ok(Received::TimedOut),
            }
        }
    }

    fn send(&self, buf: &mut PacketBuf, to: Mac) -> Result<(), SendError> {
        let header = Header {
            dst: to,
            src: self.mac,
            ethertype: ethernet::IPV6,
        };
        let mut front = [0; FRONT];
        front[..VIRTIO_NET_HEADER].copy_from_slice(&buf.offload.encode(LINK_HEADER));
        front[VIRTIO_NET_HEADER..].copy_from_slice(&header.to_bytes());
        if buf.replace_front(0, &front).is_err() {
            return Err(SendError::Refused(io::ErrorKind::OutOfMemory.into()));
        }
        let sent = send(self.socket.as_raw_fd(), buf.bytes(), MsgFlags::empty());
        buf.advance(FRONT);
        match sent {
            Ok(_) => Ok(()),
            Err(nix::Error::EINVAL) if buf.offload.gso.is_some() => Err(SendError::NoSegmentation),
            Err(error) => Err(SendError::Refused(error.into())),
        }
    }

    fn set_address(&self, address: Ipv6Addr) -> io::Result<()> {
        let group = join(self.interface, address)?;
        // Replaces the old filter in one step.
        attach_filter(&self.socket, address)?;
        if let Ok(mut current) = self.group.lock() {
            *current = Some(group);
        }
        Ok(())
    }

    fn wake(&self) {
        self.waker.wake();
    }
}

fn read_front(front: &[u8]) -> Result<(Offload, FrameAddresses), OffloadError> {
    let offload = Offload::decode(front, LINK_HEADER)?;
    let header = front
        .get(VIRTIO_NET_HEADER..)
        .and_then(Header::parse)
        .ok_or(OffloadError::Truncated)?;
    Ok((
        offload,
        FrameAddresses {
            src: header.src,
            dst: header.dst,
        },
    ))
}

impl std::fmt::Debug for PacketSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PacketSocket")
            .field("interface", &self.interface)
            .field("mac", &self.mac)
            .finish_non_exhaustive()
    }
}
