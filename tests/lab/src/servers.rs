//! Servers of the IPv4 internet: web, and echoes over TCP and UDP.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    thread,
    time::Duration,
};

use sha2::{Digest, Sha256};

use crate::namespace::Namespace;

/// What a web server says at `/hello`.
pub const HELLO: &str = "hello from the other internet\n";

/// The port of the echo servers.
pub const ECHO_PORT: u16 = 7;

/// The TCP echo server.
pub const ECHO: (Ipv4Addr, u16) = (crate::topology::SERVER, ECHO_PORT);

/// Bytes without end that everybody can foretell, and of which no aligned eight are the same: what
/// `/bytes/N` consists of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pattern {
    position: u64,
}

impl Pattern {
    /// Eight bytes of it. Multiplication by an odd number and the shift can be undone, so that no
    /// two words are the same: a block in the place of another is seen.
    fn word(number: u64) -> [u8; 8] {
        let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 32).to_ne_bytes()
    }
}

impl Read for Pattern {
    /// Reads up to the end of a word that was begun, or any number of whole ones.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (number, begun) = (self.position / 8, (self.position % 8) as usize);
        let len = if begun == 0 && buffer.len() >= 8 {
            let (words, _) = buffer.as_chunks_mut();
            for (word, number) in words.iter_mut().zip(number..) {
                *word = Self::word(number);
            }
            words.len() * 8
        } else {
            let word = &Self::word(number)[begun..];
            let len = word.len().min(buffer.len());
            buffer[..len].copy_from_slice(&word[..len]);
            len
        };
        self.position += len as u64;
        Ok(len)
    }
}

/// The SHA-256 of what `from` gives, and how much it was.
///
/// # Errors
/// Those of `from`.
pub fn sha256(mut from: impl Read) -> io::Result<(String, u64)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    loop {
        match from.read(&mut buffer)? {
            0 => break,
            len => {
                hash.update(&buffer[..len]);
                total += len as u64;
            }
        }
    }
    let hex = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok((hex, total))
}

/// Starts a web server on port 80 of every address of a namespace.
///
/// It knows `/hello`, `/bytes/N` (N bytes of [`Pattern`]) and `/address` (who asks).
///
/// # Panics
/// If the port is taken.
pub fn serve_web(namespace: &Namespace) {
    for any in ["0.0.0.0:80", "[::]:80"] {
        // The IPv6 socket must leave IPv4 to the other.
        let listener = namespace.run(move || listen(any).expect("port 80"));
        namespace.spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || drop(answer(stream)));
            }
        });
    }
}

fn listen(address: &str) -> io::Result<TcpListener> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    Ok(socket.into())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let peer = stream.peer_addr()?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
    }
    let path = request.split_whitespace().nth(1).unwrap_or("/");
    let (body, len): (Box<dyn Read>, u64) = if path == "/hello" {
        (Box::new(HELLO.as_bytes()), HELLO.len() as u64)
    } else if path == "/address" {
        let text = format!("{}\n", peer.ip());
        let len = text.len() as u64;
        (Box::new(io::Cursor::new(text)), len)
    } else if let Some(count) = path.strip_prefix("/bytes/").and_then(|it| it.parse().ok()) {
        (Box::new(Pattern::default().take(count)), count)
    } else {
        return write!(
            stream,
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n"
    )?;
    let mut body = BufReader::with_capacity(256 << 10, body);
    io::copy(&mut body, &mut stream)?;
    Ok(())
}

/// Starts a TCP server that sends back what it receives.
///
/// # Panics
/// If the port is taken.
pub fn serve_tcp_echo(namespace: &Namespace) {
    let listener = namespace.run(|| listen("0.0.0.0:7").expect("port 7"));
    namespace.spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut from = stream.try_clone()?;
                let mut to = stream;
                io::copy(&mut from, &mut to)
            });
        }
    });
}

/// How a UDP server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpAnswer {
    /// With the datagram it received.
    Echo,
    /// With the datagram it received, without a checksum.
    WithoutChecksum,
}

/// Starts a UDP server.
///
/// # Panics
/// If the port is taken.
pub fn serve_udp(namespace: &Namespace, port: u16, answer: UdpAnswer) {
    let socket = namespace.run(move || {
        let socket = UdpSocket::bind(("0.0.0.0", port)).expect("a port");
        if answer == UdpAnswer::WithoutChecksum {
            send_without_checksum(&socket);
        }
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20);
        socket
    });
    namespace.spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..len], from);
        }
    });
}

/// From now on, datagrams leave without a checksum (RFC 768).
pub fn send_without_checksum(socket: &UdpSocket) {
    let on = 1i32;
    // SAFETY: `on` is valid for reads of its own size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NO_CHECK,
            std::ptr::from_ref(&on).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "SO_NO_CHECK");
}

/// The answer of a web server.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body's SHA-256.
    pub sha256: String,
    /// The body's length.
    pub len: u64,
}

/// Fetches `path` from a web server, in the current namespace.
///
/// # Errors
/// The system's.
pub fn fetch(server: IpAddr, path: &str) -> io::Result<Response> {
    let (status, body) = get(server, path)?;
    let (sha256, len) = sha256(body)?;
    Ok(Response {
        status,
        sha256,
        len,
    })
}

/// Asks a web server for `path`, in the current namespace: the status code, and the body to read.
///
/// # Errors
/// The system's.
pub fn get(server: IpAddr, path: &str) -> io::Result<(u16, impl Read)> {
    let address = SocketAddr::new(server, 80);
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n"
    )?;
    let mut reader = BufReader::with_capacity(256 << 10, stream);
    let mut status = String::new();
    reader.read_line(&mut status)?;
    let status = status
        .split_whitespace()
        .nth(1)
        .and_then(|it| it.parse().ok());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
    }
    Ok((status.unwrap_or(0), reader))
}

/// Sends `len` bytes of [`Pattern`] to the TCP echo server, in the current namespace: the SHA-256 of
/// what comes back, and how much it is.
///
/// # Errors
/// The system's.
pub fn echo_over_tcp(len: u64) -> io::Result<(String, u64)> {
    let mut up = TcpStream::connect(ECHO)?;
    let down = up.try_clone()?;
    down.set_read_timeout(Some(Duration::from_secs(20)))?;
    let reader = thread::spawn(move || sha256(down));
    io::copy(&mut Pattern::default().take(len), &mut up)?;
    up.shutdown(std::net::Shutdown::Write)?;
    reader
        .join()
        .map_err(|_| io::Error::other("the reader panicked"))?
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_pattern_is_the_same_however_it_is_read() {
        let mut whole = vec![0; 1000];
        Pattern::default().read_exact(&mut whole).unwrap();
        for len in 1..50 {
            let mut pieces = Pattern::default();
            for expected in whole.chunks(len) {
                let mut piece = vec![0; expected.len()];
                pieces.read_exact(&mut piece).unwrap();
                assert_eq!(piece, expected);
            }
        }
    }

    #[test]
    fn no_word_of_the_pattern_repeats() {
        let words: HashSet<_> = (0..100_000).map(Pattern::word).collect();
        assert_eq!(words.len(), 100_000);
    }
}
