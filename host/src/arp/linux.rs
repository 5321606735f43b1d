//! A packet socket for ARP on one interface.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd, OwnedFd},
    time::Instant,
};

use l2::claim::{Claim, Conflict};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};
use wire::{
    arp::{self, Arp},
    ethernet::Mac,
};

use crate::readable;

const BROADCAST: Mac = Mac([0xff; 6]);

#[derive(Debug)]
pub(super) struct Claimed {
    socket: AsyncFd<OwnedFd>,
    interface: i32,
    claim: Claim,
}

impl Claimed {
    pub(super) fn begin(
        interface: u32,
        mac: Mac,
        addresses: Vec<Ipv4Addr>,
        seed: u64,
    ) -> io::Result<Self> {
        let interface = i32::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput)?;
        // Nothing arrives from other interfaces before it is bound to one.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        let socket = OwnedFd::from(socket);
        let here = link_address(interface, None);
        // SAFETY: `here` is valid for reads of the length that is passed.
        let bound = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                std::ptr::from_ref(&here).cast(),
                LINK_ADDRESS_LEN,
            )
        };
        if bound != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: an `OwnedFd` keeps its descriptor for life, and closes it when dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Self {
            socket: socket.map_err(|error| error.into_parts().1)?,
            interface,
            claim: Claim::new(mac, addresses, seed, Instant::now()),
        })
    }

    pub(super) async fn free(&mut self) -> io::Result<Option<Conflict>> {
        while !self.claim.is_free() {
            if let Some(conflict) = self.step().await? {
                return Ok(Some(conflict));
            }
        }
        Ok(None)
    }

    pub(super) fn used(&mut self) {
        self.claim.used(Instant::now());
    }

    pub(super) async fn watch(&mut self) -> io::Result<Conflict> {
        loop {
            if let Some(conflict) = self.step().await? {
                return Ok(conflict);
            }
        }
    }

    /// Until the next packet or the next thing to do.
    async fn step(&mut self) -> io::Result<Option<Conflict>> {
        let due = self.claim.poll_timeout();
        let time = async {
            match due {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = time => {
                for packet in self.claim.handle_timeout(Instant::now()) {
                    self.send(&packet)?;
                }
                Ok(None)
            }
            heard = self.recv() => Ok(heard?.and_then(|arp| self.claim.heard(&arp))),
        }
    }

    fn send(&self, packet: &Arp) -> io::Result<()> {
        let to = link_address(self.interface, Some(BROADCAST));
        let bytes = packet.to_bytes();
        // SAFETY: both are valid for reads of the lengths that are passed.
        let sent = unsafe {
            libc::sendto(
                self.socket.get_ref().as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                0,
                std::ptr::from_ref(&to).cast(),
                LINK_ADDRESS_LEN,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    async fn recv(&self) -> io::Result<Option<Arp>> {
        readable::receive(&self.socket, receive).await
    }
}

fn receive(socket: &OwnedFd) -> io::Result<Option<Arp>> {
    let mut buffer = [0u8; 64];
    // SAFETY: `buffer` is valid for writes of its length.
    let len = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
        )
    };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    Ok(buffer.get(..len).and_then(Arp::parse))
}

const LINK_ADDRESS_LEN: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;

/// ARP on an interface, and to whom.
fn link_address(interface: i32, to: Option<Mac>) -> libc::sockaddr_ll {
    // SAFETY: an all-zero sockaddr_ll is a valid value of that plain C struct.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = arp::ETHERTYPE.to_be();
    address.sll_ifindex = interface;
    if let Some(Mac(mac)) = to {
        address.sll_halen = 6;
        address.sll_addr[..6].copy_from_slice(&mac);
    }
    address
}
