//! A STUN server with two addresses and two ports, and the questions by which a client learns how
//! the NAT before it maps and filters (RFC 8489, RFC 5780). UDP over IPv4, without authentication.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use crate::namespace::Namespace;

/// The ports of the server.
pub const PORTS: [u16; 2] = [3478, 3479];

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const COOKIE: u32 = 0x2112_a442;
const CHANGE_REQUEST: u16 = 0x0003;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const RESPONSE_ORIGIN: u16 = 0x802b;
const OTHER_ADDRESS: u16 = 0x802c;
const IPV4: u8 = 1;

/// What the answer is to come from, other than what was asked (RFC 5780 §7.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The server's other address.
    pub address: bool,
    /// Its other port.
    pub port: bool,
}

impl Change {
    fn to_bits(self) -> u32 {
        u32::from(self.address) << 2 | u32::from(self.port) << 1
    }

    fn from_bits(bits: u32) -> Self {
        Self {
            address: bits & 4 != 0,
            port: bits & 2 != 0,
        }
    }
}

/// A message: its type, its transaction, its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    kind: u16,
    transaction: [u8; 12],
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Message {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (header, mut rest) = bytes.split_at_checked(20)?;
        let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        if header[4..8] != COOKIE.to_be_bytes() || usize::from(number(2)) != rest.len() {
            return None;
        }
        let mut attributes = Vec::new();
        while let Some((head, tail)) = rest.split_first_chunk::<4>() {
            let kind = u16::from_be_bytes([head[0], head[1]]);
            let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
            attributes.push((kind, tail.get(..len)?.to_vec()));
            rest = tail.get(len.next_multiple_of(4)..)?;
        }
        Some(Self {
            kind: number(0),
            transaction: *header[8..].first_chunk()?,
            attributes,
        })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, value) in &self.attributes {
            body.extend(kind.to_be_bytes());
            body.extend((value.len() as u16).to_be_bytes());
            body.extend(value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut bytes = self.kind.to_be_bytes().to_vec();
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(COOKIE.to_be_bytes());
        bytes.extend(self.transaction);
        bytes.extend(body);
        bytes
    }

    fn attribute(&self, kind: u16) -> Option<&[u8]> {
        let found = self.attributes.iter().find(|(it, _)| *it == kind);
        found.map(|(_, value)| value.as_slice())
    }

    fn address(&self, kind: u16) -> Option<SocketAddrV4> {
        let [_, IPV4, p0, p1, a, b, c, d] = *self.attribute(kind)? else {
            return None;
        };
        let (port, address) = (u16::from_be_bytes([p0, p1]), Ipv4Addr::new(a, b, c, d));
        Some(match kind {
            XOR_MAPPED_ADDRESS => unmask(SocketAddrV4::new(address, port)),
            _ => SocketAddrV4::new(address, port),
        })
    }
}

/// Address and port against the cookie, so that no gateway rewrites them on the way
/// (RFC 8489 §14.2). Its own inverse.
fn unmask(address: SocketAddrV4) -> SocketAddrV4 {
    SocketAddrV4::new(
        Ipv4Addr::from_bits(address.ip().to_bits() ^ COOKIE),
        address.port() ^ (COOKIE >> 16) as u16,
    )
}

fn address_bytes(address: SocketAddrV4) -> Vec<u8> {
    let mut bytes = vec![0, IPV4];
    bytes.extend(address.port().to_be_bytes());
    bytes.extend(address.ip().octets());
    bytes
}

/// Starts a server on two addresses of a namespace.
///
/// # Panics
/// If a port is taken.
pub fn serve(namespace: &Namespace, addresses: [Ipv4Addr; 2]) {
    let sockets = namespace.run(move || {
        addresses.map(|address| {
            PORTS.map(|port| UdpSocket::bind((address, port)).expect("a port for STUN"))
        })
    });
    for place in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let all = sockets.each_ref().map(|of_address| {
            of_address
                .each_ref()
                .map(|it| it.try_clone().expect("a socket"))
        });
        thread::spawn(move || answer_all(&all, addresses, place));
    }
}

fn answer_all(sockets: &[[UdpSocket; 2]; 2], addresses: [Ipv4Addr; 2], (a, p): (usize, usize)) {
    let mut buffer = [0; 1500];
    while let Ok((len, from)) = sockets[a][p].recv_from(&mut buffer) {
        let SocketAddr::V4(client) = from else {
            continue;
        };
        let Some(request) = Message::parse(&buffer[..len]) else {
            continue;
        };
        if request.kind != BINDING_REQUEST {
            continue;
        }
        let change = request.attribute(CHANGE_REQUEST);
        let change = change.and_then(|it| it.first_chunk()).copied();
        let change = Change::from_bits(u32::from_be_bytes(change.unwrap_or_default()));
        let (from_a, from_p) = (
            a ^ usize::from(change.address),
            p ^ usize::from(change.port),
        );
        let at = |a: usize, p: usize| address_bytes(SocketAddrV4::new(addresses[a], PORTS[p]));
        let answer = Message {
            kind: BINDING_SUCCESS,
            transaction: request.transaction,
            attributes: vec![
                (XOR_MAPPED_ADDRESS, address_bytes(unmask(client))),
                (RESPONSE_ORIGIN, at(from_a, from_p)),
                (OTHER_ADDRESS, at(a ^ 1, p ^ 1)),
            ],
        };
        let _ = sockets[from_a][from_p].send_to(&answer.to_bytes(), from);
    }
}

/// What a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it sees the client.
    pub mapped: SocketAddrV4,
    /// Its other address and port.
    pub other: SocketAddrV4,
    /// Where it answered from, as it says itself.
    pub origin: SocketAddrV4,
    /// Where the client heard the answer from.
    pub heard_from: SocketAddr,
}

/// How a NAT maps, or filters (RFC 4787 §4.1, §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Whoever is at the other end.
    EndpointIndependent,
    /// By the address at the other end.
    AddressDependent,
    /// By address and port at the other end.
    AddressAndPortDependent,
}

/// How an IPv4 address is written where a client is: as itself, or with a NAT64 prefix.
pub type Write = fn(Ipv4Addr) -> IpAddr;

/// A client of a server, by whose NAT everything from one socket goes.
#[derive(Debug)]
pub struct Client {
    socket: UdpSocket,
    write: Write,
    transactions: u64,
}

/// How long an answer is waited for, and how often a question is asked.
const WAIT: Duration = Duration::from_millis(400);
const TRIES: u32 = 4;

impl Client {
    /// A client with a port of its own, in the current namespace.
    ///
    /// # Errors
    /// The system's.
    pub fn new(write: Write) -> io::Result<Self> {
        let any = match write(Ipv4Addr::UNSPECIFIED) {
            IpAddr::V4(_) => "0.0.0.0:0",
            IpAddr::V6(_) => "[::]:0",
        };
        Ok(Self {
            socket: UdpSocket::bind(any)?,
            write,
            transactions: 0,
        })
    }

    /// The socket, whose mapping the answers are about.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// An address as it is written here.
    pub fn write(&self, address: SocketAddrV4) -> SocketAddr {
        SocketAddr::new((self.write)(*address.ip()), address.port())
    }

    /// Asks a server; `None` if no answer comes.
    ///
    /// # Errors
    /// The system's.
    pub fn ask(&mut self, server: SocketAddrV4, change: Change) -> io::Result<Option<Answer>> {
        self.transactions += 1;
        let mut transaction = [7; 12];
        transaction[..8].copy_from_slice(&self.transactions.to_be_bytes());
        let request = Message {
            kind: BINDING_REQUEST,
            transaction,
            attributes: vec![(CHANGE_REQUEST, change.to_bits().to_be_bytes().into())],
        };
        for _ in 0..TRIES {
            self.socket
                .send_to(&request.to_bytes(), self.write(server))?;
            let answer = self.wait_for(transaction)?;
            if answer.is_some() {
                return Ok(answer);
            }
        }
        Ok(None)
    }

    fn wait_for(&self, transaction: [u8; 12]) -> io::Result<Option<Answer>> {
        let end = Instant::now() + WAIT;
        let mut buffer = [0; 1500];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            let (len, heard_from) = match self.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            };
            let answer = Message::parse(&buffer[..len])
                .filter(|it| it.kind == BINDING_SUCCESS && it.transaction == transaction)
                .and_then(|it| {
                    Some(Answer {
                        mapped: it.address(XOR_MAPPED_ADDRESS)?,
                        other: it.address(OTHER_ADDRESS)?,
                        origin: it.address(RESPONSE_ORIGIN)?,
                        heard_from,
                    })
                });
            if answer.is_some() {
                return Ok(answer);
            }
        }
    }

    /// How the NAT maps (RFC 5780 §4.3): whether the server's other address, and its other port
    /// there, see the same client.
    ///
    /// # Errors
    /// The system's, or that the server does not answer.
    pub fn mapping(&mut self, server: SocketAddrV4) -> io::Result<Behaviour> {
        let first = self.must(server)?;
        let second = self.must(SocketAddrV4::new(*first.other.ip(), server.port()))?;
        if second.mapped == first.mapped {
            return Ok(Behaviour::EndpointIndependent);
        }
        let third = self.must(first.other)?;
        Ok(if third.mapped == second.mapped {
            Behaviour::AddressDependent
        } else {
            Behaviour::AddressAndPortDependent
        })
    }

    /// How the NAT filters (RFC 5780 §4.4): whether answers come in from where nothing was sent to.
    /// Ask with a fresh client.
    ///
    /// # Errors
    /// The system's, or that the server does not answer.
    pub fn filtering(&mut self, server: SocketAddrV4) -> io::Result<Behaviour> {
        self.must(server)?;
        let both = Change {
            address: true,
            port: true,
        };
        if self.ask(server, both)?.is_some() {
            return Ok(Behaviour::EndpointIndependent);
        }
        let port = Change {
            port: true,
            ..Change::default()
        };
        Ok(match self.ask(server, port)? {
            Some(_) => Behaviour::AddressDependent,
            None => Behaviour::AddressAndPortDependent,
        })
    }

    fn must(&mut self, server: SocketAddrV4) -> io::Result<Answer> {
        let answer = self.ask(server, Change::default())?;
        answer.ok_or_else(|| io::Error::other(format!("{server} does not answer")))
    }
}

/// Two clients, each behind a NAT, that know each other's mapped address, send to each other until
/// both have heard the other. Whether they did within a time.
///
/// # Errors
/// The system's.
pub fn punch(socket: &UdpSocket, peer: SocketAddr, within: Duration) -> io::Result<bool> {
    const HELLO: &[u8] = b"hello, and I have not heard you";
    const HEARD: &[u8] = b"hello, and I have heard you";
    let end = Instant::now() + within;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let mut says = HELLO;
    let mut buffer = [0; 100];
    while Instant::now() < end {
        socket.send_to(says, peer)?;
        let Ok((len, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        if from != peer || !(buffer[..len] == *HELLO || buffer[..len] == *HEARD) {
            continue;
        }
        says = HEARD;
        if buffer[..len] == *HEARD {
            // The peer may not have heard that it was heard.
            for _ in 0..3 {
                socket.send_to(HEARD, peer)?;
            }
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769 §2.2: the sample IPv4 response.
    #[test]
    fn a_sample_response_is_read() {
        let mut bytes = vec![0x01, 0x01, 0x00, 0x0c, 0x21, 0x12, 0xa4, 0x42];
        bytes.extend([
            0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae,
        ]);
        bytes.extend([
            0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43,
        ]);
        let message = Message::parse(&bytes).unwrap();
        let mapped = message.address(XOR_MAPPED_ADDRESS);
        assert_eq!(mapped, Some("192.0.2.1:32853".parse().unwrap()));
        assert_eq!(message.to_bytes(), bytes);
        assert_eq!(Message::parse(&bytes[..31]), None);
    }

    fn local(address: Ipv4Addr) -> IpAddr {
        address.into()
    }

    /// On one host there is no NAT, and nothing is filtered.
    #[test]
    fn without_a_nat_everything_is_endpoint_independent() {
        let Ok(namespace) = Namespace::new("stun") else {
            return;
        };
        serve(
            &namespace,
            [[127, 0, 0, 1], [127, 0, 0, 2]].map(Ipv4Addr::from),
        );
        let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORTS[0]);
        let (mapping, filtering, moved, own) = namespace.run(move || {
            let mut client = Client::new(local).unwrap();
            let change = Change {
                address: true,
                port: true,
            };
            let moved = client.ask(server, change).unwrap().unwrap();
            let mapping = client.mapping(server).unwrap();
            let filtering = Client::new(local).unwrap().filtering(server).unwrap();
            (
                mapping,
                filtering,
                moved,
                client.socket().local_addr().unwrap(),
            )
        });
        assert_eq!(mapping, Behaviour::EndpointIndependent);
        assert_eq!(filtering, Behaviour::EndpointIndependent);
        assert_eq!(moved.mapped.port(), own.port());
        let other = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 2), PORTS[1]);
        assert_eq!((moved.other, moved.origin), (other, other));
        assert_eq!(moved.heard_from, other.into());
    }
}
