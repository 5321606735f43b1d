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
    time::Duration,
};

use l2::{filter, link::FrameAddresses};
use nix::sys::socket::{MsgFlags, send};
use socket2::{Domain, Protocol, Socket, Type};
use wire::{
    ethernet::{self, Header, Mac},
    ndp::solicited_node,
    offload::{Offload, OffloadError, VIRTIO_NET_HEADER},
    packet::PacketBuf,
};

use super::{Burst, MAX_BURST, Received, SendError, Slot, Uplink, gro, mmsg};
use crate::{
    fault, sockopt,
    wait::{Waker, Woken, until_readable},
};

/// What lies before the IPv6 packet in a read or write.
const FRONT: usize = VIRTIO_NET_HEADER + ethernet::HEADER_LEN;

const LINK_HEADER: u16 = 14;

/// Room for a burst: of frames that came while the thread was not scheduled, and of super-segments
/// that wait for the interface. The default holds three of those.
const BUFFER: i32 = 4 << 20;

/// `BPF_LD | BPF_B | BPF_ABS`, `BPF_JMP | BPF_JEQ | BPF_K`, `BPF_RET | BPF_K`.
const LOAD_BYTE: u16 = 0x30;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// A packet socket on one Ethernet interface.
pub(crate) struct PacketSocket {
    socket: OwnedFd,
    mac: Mac,
    interface: u32,
    /// Holds the membership of the address's solicited-node group, so that the interface and the
    /// switches hear of it.
    _group: Socket,
    waker: Waker,
}

impl PacketSocket {
    /// Opens the interface with index `interface` and link-layer address `mac` for `address`.
    ///
    /// # Errors
    /// The system's: `PermissionDenied` without CAP_NET_RAW, `NotFound` if the interface is gone.
    pub(crate) fn open(interface: u32, mac: Mac, address: Ipv6Addr) -> io::Result<Self> {
        fault::refusal()?;
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        let socket = OwnedFd::from(socket);
        // The system's limit does not hold for an administrator; otherwise it grants what it grants.
        for name in [libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE] {
            let _ = sockopt::set(&socket, libc::SOL_SOCKET, name, &BUFFER);
        }
        sockopt::set(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1i32)?;
        sockopt::set(
            &socket,
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            &1i32,
        )?;
        attach_filter(&socket, address)?;
        bind(&socket, interface)?;
        gro::warn_if_off(interface);
        Ok(Self {
            socket,
            mac,
            interface,
            _group: join(interface, address)?,
            waker: Waker::new()?,
        })
    }
}

impl PacketSocket {
    /// Receives what is there.
    fn look(&self, burst: &mut Burst) -> io::Result<()> {
        let mut lengths = [0; MAX_BURST];
        let slots = burst.expected().iter_mut();
        let areas = slots.map(|slot| slot.buf.receive_area(FRONT));
        let count = mmsg::receive(self.socket.as_fd(), areas, |at, len| lengths[at] = len)?;
        for (slot, len) in burst.expected().iter_mut().zip(&lengths[..count]) {
            read_frame(slot, *len);
        }
        burst.fill(count);
        Ok(())
    }

    /// Puts the virtio-net and the Ethernet header before a packet.
    fn prepend(&self, buf: &mut PacketBuf, to: Mac) -> io::Result<()> {
        let header = Header {
            dst: to,
            src: self.mac,
            ethertype: ethernet::IPV6,
        };
        let mut front = [0; FRONT];
        front[..VIRTIO_NET_HEADER].copy_from_slice(&buf.offload.encode(LINK_HEADER));
        front[VIRTIO_NET_HEADER..].copy_from_slice(&header.to_bytes());
        buf.replace_front(0, &front)
            .map_err(|_| io::ErrorKind::OutOfMemory.into())
    }
}

/// Makes a packet of what was received into the area before it.
fn read_frame(slot: &mut Slot, len: usize) {
    let area = slot.buf.receive_area(FRONT);
    let front = area.get(..FRONT.min(len)).unwrap_or_default();
    slot.readable = read_front(front).map(|(offload, frame)| {
        slot.frame = frame;
        slot.buf.received(len - FRONT, offload);
    });
}

/// Joins the solicited-node group of `address` by an ordinary socket: the kernel then tells the
/// interface's filter and, by MLD, the switches.
fn join(interface: u32, address: Ipv6Addr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
    socket.join_multicast_v6(&solicited_node(address), interface)?;
    Ok(socket)
}

fn attach_filter(socket: &OwnedFd, address: Ipv6Addr) -> io::Result<()> {
    let mut program = program(address);
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_mut_ptr(),
    };
    // The kernel copies the program during the call, in which it is alive.
    sockopt::set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// The link's filter, behind a check that the kernel takes the frame for ours.
///
/// Without it we would hear frames of a VLAN that this host is not in: their tag is gone when they
/// come here, and only the kernel's verdict is left of it. The same holds for everything that a
/// promiscuous interface hears.
fn program(address: Ipv6Addr) -> Vec<libc::sock_filter> {
    let instruction = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let packet_type = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE).cast_unsigned();
    let other_host = u32::from(libc::PACKET_OTHERHOST);
    let mut program = vec![
        instruction(LOAD_BYTE, 0, 0, packet_type),
        instruction(JUMP_IF_EQUAL, 0, 1, other_host),
        instruction(RETURN, 0, 0, 0),
    ];
    let rest = filter::program(address).into_iter();
    program.extend(rest.map(|it| instruction(it.code, it.jump_true, it.jump_false, it.k)));
    program
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
    fn recv(&self, burst: &mut Burst, timeout: Option<Duration>) -> io::Result<Received> {
        loop {
            match self.look(burst) {
                Ok(()) => return Ok(Received::Packet),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => continue,
                    // The interface is down for now; what follows will say if it is gone.
                    Some(libc::EAGAIN | libc::ENETDOWN) => {}
                    _ => return Err(error),
                },
            }
            if timeout == Some(Duration::ZERO) {
                return Ok(Received::TimedOut);
            }
            match until_readable(self.socket.as_fd(), &self.waker, timeout)? {
                Woken::Readable => {}
                Woken::ByWaker => return Ok(Received::Woken),
                Woken::TimedOut => return Ok(Received::TimedOut),
            }
        }
    }

    fn send(&self, buf: &mut PacketBuf, to: Mac) -> Result<(), SendError> {
        self.prepend(buf, to).map_err(SendError::Refused)?;
        let sent = send(self.socket.as_raw_fd(), buf.bytes(), MsgFlags::empty());
        buf.advance(FRONT);
        match sent {
            Ok(_) => Ok(()),
            Err(nix::Error::EINVAL) if buf.offload.gso.is_some() => Err(SendError::NoSegmentation),
            Err(error) => Err(SendError::Refused(error.into())),
        }
    }

    fn send_burst(&self, packets: &mut [PacketBuf], to: Mac, lost: &mut dyn FnMut(&io::Error)) {
        for packet in packets.iter_mut() {
            if let Err(error) = self.prepend(packet, to) {
                // Empty, so that the socket refuses it too.
                packet.truncate(0);
                tracing::debug!("a packet has no room for its headers: {error}");
            }
        }
        let mut rest = &packets[..];
        while !rest.is_empty() {
            let frames = rest.iter().map(PacketBuf::bytes);
            let sent = mmsg::send(self.socket.as_fd(), frames).unwrap_or_else(|error| {
                lost(&error);
                1
            });
            rest = rest.get(sent.max(1)..).unwrap_or_default();
        }
    }

    fn overflows(&self) -> u64 {
        // The kernel counts from zero again after each look.
        let statistics: io::Result<libc::tpacket_stats> =
            sockopt::get(&self.socket, libc::SOL_PACKET, libc::PACKET_STATISTICS);
        statistics.map_or(0, |it| it.tp_drops.into())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_is_cut_short_is_not_read() {
        let mut front = [0; FRONT];
        let header = Header {
            dst: Mac([2, 0, 0, 0, 0, 1]),
            src: Mac([2, 0, 0, 0, 0, 2]),
            ethertype: ethernet::IPV6,
        };
        front[VIRTIO_NET_HEADER..].copy_from_slice(&header.to_bytes());
        let (_, addresses) = read_front(&front).unwrap();
        assert_eq!((addresses.src, addresses.dst), (header.src, header.dst));
        for len in 0..FRONT {
            assert_eq!(read_front(&front[..len]), Err(OffloadError::Truncated));
        }
    }

    #[test]
    fn frames_for_others_are_rejected_before_anything_else() {
        let address = "2001:db8::464".parse().unwrap();
        let program = program(address);
        let check: Vec<_> = program[..3]
            .iter()
            .map(|it| (it.code, it.jt, it.jf, it.k))
            .collect();
        assert_eq!(
            check,
            [(0x30, 0, 0, 0xffff_f004), (0x15, 0, 1, 3), (0x06, 0, 0, 0)]
        );
        assert_eq!(program.len(), 3 + filter::program(address).len());
    }
}
