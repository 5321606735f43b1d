//! A raw ICMP socket.

use std::{
    io,
    mem::MaybeUninit,
    net::{Ipv4Addr, SocketAddrV4},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};
use wire::icmp::v4;

use super::EchoSocket;
use crate::{readable, sockopt};

/// The longest packet that is read whole. What answers an echo request of ours is shorter.
const MAX_PACKET: usize = 1500;

/// A raw ICMP socket of one interface.
#[derive(Debug)]
pub struct RawIcmp {
    socket: AsyncFd<Socket>,
}

impl RawIcmp {
    /// Opens the socket. Must be called on a tokio runtime.
    pub(crate) fn open(interface: &str, address: Ipv4Addr) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        socket.set_nonblocking(true)?;
        only_answers(&socket)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.bind(&SocketAddrV4::new(address, 0).into())?;
        // SAFETY: a `Socket` owns its descriptor, keeps the same one for life, and closes it when
        // dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Self {
            socket: socket.map_err(|error| error.into_parts().1)?,
        })
    }
}

impl EchoSocket for RawIcmp {
    fn send(&self, target: Ipv4Addr, hop_limit: u8, message: &[u8]) -> io::Result<()> {
        let socket = self.socket.get_ref();
        socket.set_ttl_v4(hop_limit.into())?;
        socket.send_to(message, &SocketAddrV4::new(target, 0).into())?;
        Ok(())
    }

    async fn recv(&self) -> io::Result<Vec<u8>> {
        readable::receive(&self.socket, receive).await
    }
}

fn receive(socket: &Socket) -> io::Result<Vec<u8>> {
    let mut buffer = [MaybeUninit::uninit(); MAX_PACKET];
    let len = socket.recv(&mut buffer)?;
    let read = buffer.iter().take(len);
    // SAFETY: the kernel has written the first `len` bytes.
    Ok(read.map(|it| unsafe { it.assume_init() }).collect())
}

/// Everything but answers to echo requests is filtered out by the kernel (raw(7)).
fn only_answers(socket: &Socket) -> io::Result<()> {
    const SOL_RAW: i32 = 255;
    const ICMP_FILTER: i32 = 1;
    // A set bit blocks the type.
    let filter = !(1u32 << v4::ECHO_REPLY | 1 << v4::TIME_EXCEEDED);
    sockopt::set(socket, SOL_RAW, ICMP_FILTER, &filter)
}
