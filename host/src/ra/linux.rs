//! The raw ICMPv6 socket of Linux.

use std::{
    io::{self, IoSliceMut},
    net::{Ipv6Addr, SocketAddrV6},
    os::fd::AsRawFd,
};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};
use wire::{icmp::v6, ndp};

use super::{Datagram, RouterAdvertisements, SOLICIT_TO};
use crate::sockopt;

/// The longest advertisement that is read whole: more than any link carries.
const MAX_MESSAGE: usize = 9000;

/// Receives the router advertisements of every interface.
#[derive(Debug)]
pub struct RaSocket {
    socket: AsyncFd<Socket>,
}

impl RaSocket {
    /// Opens the socket. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// The system's: `PermissionDenied` without CAP_NET_RAW.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.set_nonblocking(true)?;
        only_advertisements(&socket)?;
        set_int(&socket, libc::IPV6_RECVPKTINFO, 1)?;
        set_int(&socket, libc::IPV6_RECVHOPLIMIT, 1)?;
        socket.set_multicast_hops_v6(ndp::HOP_LIMIT.into())?;
        socket.set_multicast_loop_v6(false)?;
        // SAFETY: a `Socket` owns its descriptor, keeps the same one for life, and closes it when
        // dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Self {
            socket: socket.map_err(|error| error.into_parts().1)?,
        })
    }
}

impl RouterAdvertisements for RaSocket {
    async fn recv(&self) -> io::Result<Datagram> {
        loop {
            let mut guard = self.socket.readable().await?;
            match guard.try_io(|socket| receive(socket.get_ref())) {
                Ok(Ok(Some(datagram))) => return Ok(datagram),
                Ok(Ok(None)) | Err(_) => {}
                Ok(Err(error)) if is_transient(&error) => {
                    tracing::debug!("a router advertisement may be lost: {error}");
                }
                Ok(Err(error)) => return Err(error),
            }
        }
    }

    fn solicit(&self, interface: u32) -> io::Result<()> {
        let to = SocketAddrV6::new(SOLICIT_TO, 0, 0, interface);
        let socket = self.socket.get_ref();
        // The kernel writes the checksum.
        socket.send_to(&ndp::router_solicitation(), &to.into())?;
        Ok(())
    }
}

/// Errors of one message, or of an interface: the socket goes on.
fn is_transient(error: &io::Error) -> bool {
    const TRANSIENT: [i32; 7] = [
        libc::EINTR,
        libc::ENOBUFS,
        libc::ENOMEM,
        libc::ENETDOWN,
        libc::ENETUNREACH,
        libc::EHOSTUNREACH,
        libc::EHOSTDOWN,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| TRANSIENT.contains(&code))
}

fn receive(socket: &Socket) -> io::Result<Option<Datagram>> {
    let mut message = vec![0; MAX_MESSAGE];
    let mut control = nix::cmsg_space!(libc::in6_pktinfo, i32);
    let mut parts = [IoSliceMut::new(&mut message)];
    let received = recvmsg::<SockaddrIn6>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::empty(),
    )?;
    let len = received.bytes;
    let Some(src) = received.address.map(|address| address.ip()) else {
        return Ok(None);
    };
    let (mut info, mut hop_limit) = (None, None);
    for part in received.cmsgs()? {
        if let ControlMessageOwned::Ipv6PacketInfo(it) = part {
            info = Some(it);
        } else if let ControlMessageOwned::Ipv6HopLimit(it) = part {
            hop_limit = u8::try_from(it).ok();
        }
    }
    let (Some(info), Some(hop_limit)) = (info, hop_limit) else {
        return Ok(None);
    };
    message.truncate(len);
    Ok(Some(Datagram {
        interface: info.ipi6_ifindex,
        envelope: ndp::Envelope {
            src,
            dst: Ipv6Addr::from(info.ipi6_addr.s6_addr),
            hop_limit,
        },
        message,
    }))
}

fn set_int(socket: &Socket, name: i32, value: i32) -> io::Result<()> {
    sockopt::set(socket, libc::IPPROTO_IPV6, name, &value)
}

/// Everything but router advertisements is filtered out by the kernel (RFC 3542 §3.2).
fn only_advertisements(socket: &Socket) -> io::Result<()> {
    const ICMP6_FILTER: i32 = 1;
    // A set bit blocks the type.
    let mut filter = [u32::MAX; 8];
    filter[usize::from(v6::ROUTER_ADVERTISEMENT / 32)] &= !(1 << (v6::ROUTER_ADVERTISEMENT % 32));
    sockopt::set(socket, libc::IPPROTO_ICMPV6, ICMP6_FILTER, &filter)
}
