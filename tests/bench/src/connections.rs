//! Many short TCP connections: how many per second are opened and closed again.
//!
//! No client port is used twice: sources are addresses of a network that is routed to the client as
//! a whole, and every one gives all its ports in turn. The server closes first, so that what waits
//! for late segments (TIME-WAIT) stands at its end and holds no port of the client.

use std::{
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use lab::namespace::Namespace;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that are open at a time.
const CLIENTS: usize = 16;

/// Threads that accept.
const ACCEPTORS: usize = 4;

const PORT: u16 = 9100;

const FIRST_PORT: u64 = 2000;
const PORTS: u64 = 60_000;

/// After so long an answer is missing: a segment was lost, and repeated a second later.
const PATIENCE: Duration = Duration::from_secs(3);

/// A server that accepts connections to an address, and closes them.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    address: SocketAddr,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts it.
    pub(crate) fn start(namespace: &Namespace, address: IpAddr) -> io::Result<Self> {
        let address = SocketAddr::from((address, PORT));
        let stop = Arc::new(AtomicBool::new(false));
        let listener = namespace.run(move || listener(address))?;
        let listener = Arc::new(listener);
        let threads = (0..ACCEPTORS)
            .map(|_| {
                let (listener, stop) = (Arc::clone(&listener), Arc::clone(&stop));
                namespace.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        // Closed at once.
                        drop(listener.accept());
                    }
                })
            })
            .collect();
        Ok(Self {
            stop,
            address,
            threads,
        })
    }

    /// Ends it.
    pub(crate) fn stop(self, namespace: &Namespace) {
        self.stop.store(true, Ordering::Relaxed);
        let address = self.address;
        for thread in self.threads {
            while !thread.is_finished() {
                let _ = namespace.run(move || std::net::TcpStream::connect(address));
            }
            let _ = thread.join();
        }
    }
}

fn listener(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket)
}

/// Where connections come from: the source of connection number `n` out of `addresses`.
#[derive(Clone, Copy)]
pub(crate) struct Sources {
    /// The address number so and so.
    pub(crate) address: fn(u8) -> IpAddr,
    /// How many connections came from here before.
    pub(crate) used: u64,
}

/// Addresses in turn, then the next port of each.
fn source(address: fn(u8) -> IpAddr, n: u64) -> SocketAddr {
    let [.., low] = n.to_be_bytes();
    let port = FIRST_PORT + n / 256 % PORTS;
    SocketAddr::new(address(low), u16::try_from(port).unwrap_or(u16::MAX))
}

/// Opens connections from a namespace for a while, as many as it can: how many per second, and how
/// many there were.
///
/// # Errors
/// If none succeeds.
pub(crate) fn rate(
    client: &Namespace,
    sources: Sources,
    to: IpAddr,
    during: Duration,
) -> io::Result<(f64, u64)> {
    let next = Arc::new(AtomicU64::new(sources.used));
    let done = Arc::new(AtomicU64::new(0));
    let to = SocketAddr::from((to, PORT));
    let start = Instant::now();
    let threads: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (next, done) = (Arc::clone(&next), Arc::clone(&done));
            client.spawn(move || {
                let mut last = None;
                while start.elapsed() < during {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    match once(source(sources.address, number), to) {
                        Ok(()) => {
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => last = Some(error),
                    }
                }
                last
            })
        })
        .collect();
    thread::sleep(during);
    let rate = done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    let errors = threads
        .into_iter()
        .filter_map(|it| it.join().ok().flatten());
    let error = errors.last();
    match error {
        Some(error) if rate == 0.0 => Err(error),
        _ => Ok((rate, next.load(Ordering::Relaxed))),
    }
}

/// A connection that the server closes.
fn once(from: SocketAddr, to: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.bind(&from.into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    let read = (&socket).read(&mut [0])?;
    if read == 0 {
        Ok(())
    } else {
        Err(io::Error::other("the server speaks"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_source_comes_twice() {
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let all: HashSet<_> = (0..256 * 1000).map(|n| source(address, n)).collect();
        assert_eq!(all.len(), 256 * 1000);
    }
}
