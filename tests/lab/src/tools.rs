//! Small tools of our own, for hosts without ping and traceroute.

use std::{
    io,
    mem::MaybeUninit,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};
use wire::{
    checksum::Sum,
    icmp::{HEADER_LEN, Icmp, v4},
    ipv4::Ipv4,
    transport,
};

const TIMEOUT: Duration = Duration::from_secs(1);

/// Who answered, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The address of whoever answered.
    pub from: Ipv4Addr,
    /// The time it took.
    pub after: Duration,
    /// Whether it was the one who was asked.
    pub is_target: bool,
}

fn raw_icmp() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))
}

/// Waits for an ICMP packet that `wanted` recognises.
fn wait_for(
    socket: &Socket,
    sent: Instant,
    wanted: impl Fn(&Ipv4<'_>, &Icmp) -> Option<bool>,
) -> io::Result<Option<Answer>> {
    loop {
        let left = TIMEOUT.saturating_sub(sent.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        let mut buffer = [MaybeUninit::uninit(); 2000];
        let len = match socket.recv(&mut buffer) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        // SAFETY: the kernel has written the first `len` bytes.
        let bytes: Vec<u8> = buffer[..len]
            .iter()
            .map(|it| unsafe { it.assume_init() })
            .collect();
        let Ok(packet) = Ipv4::new_embedded(&bytes) else {
            continue;
        };
        let Some(header) = Icmp::parse(packet.payload()) else {
            continue;
        };
        if let Some(is_target) = wanted(&packet, &header) {
            return Ok(Some(Answer {
                from: packet.src(),
                after: sent.elapsed(),
                is_target,
            }));
        }
    }
}

/// Sends an echo request and waits for the reply, in the current namespace.
///
/// # Errors
/// The system's.
pub fn ping(target: Ipv4Addr, sequence: u16) -> io::Result<Option<Answer>> {
    let socket = raw_icmp()?;
    let id = std::process::id() as u16;
    let [i0, i1] = id.to_be_bytes();
    let [s0, s1] = sequence.to_be_bytes();
    let mut header = Icmp {
        kind: v4::ECHO_REQUEST,
        code: 0,
        checksum: 0,
        rest: [i0, i1, s0, s1],
    };
    let data = b"openclat";
    header.checksum = Sum::of(&header.to_bytes()).bytes(data).checksum();
    let sent = Instant::now();
    let to = SocketAddrV4::new(target, 0);
    socket.send_to(&[&header.to_bytes()[..], data].concat(), &to.into())?;
    wait_for(&socket, sent, |packet, header| {
        let ours = header.kind == v4::ECHO_REPLY && header.rest == [i0, i1, s0, s1];
        (ours && packet.src() == target).then_some(true)
    })
}

/// Sends a datagram that lives for `ttl` hops, and waits to hear where it ended, in the current
/// namespace.
///
/// # Errors
/// The system's.
pub fn trace(target: Ipv4Addr, ttl: u8) -> io::Result<Option<Answer>> {
    let listener = raw_icmp()?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_ttl(ttl.into())?;
    let port = 33_434 + u16::from(ttl);
    let sent = Instant::now();
    socket.send_to(b"openclat", SocketAddr::from((target, port)))?;
    let own_port = socket.local_addr()?.port();
    wait_for(&listener, sent, |packet, header| {
        let quote = packet.payload().get(HEADER_LEN..)?;
        let quoted = Ipv4::new_embedded(quote).ok()?;
        if transport::ports(quoted.payload())? != (own_port, port) {
            return None;
        }
        match header.kind {
            v4::TIME_EXCEEDED => Some(false),
            v4::UNREACHABLE => Some(packet.src() == target),
            _ => None,
        }
    })
}
