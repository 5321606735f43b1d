//! Flows to an echo server that run until they are stopped, and how they fared.

use std::{
    io::{Read, Write},
    net::{Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use lab::{
    eventually,
    flood::Cable,
    namespace::Namespace,
    topology::{Network, SERVER_BY_PREFIX},
};
use wire::compose::{self, Pair, V6};

/// Ports of the server that take datagrams and say nothing.
const SILENT: [u16; 4] = [4001, 4002, 4003, 4004];
/// What the queue before the PLAT holds for sure.
const BURST: u64 = 200;

/// An answer that takes longer is lost. A busy machine is slow, too.
const PATIENCE: Duration = Duration::from_secs(2);

/// A socket to an echo server.
pub(crate) struct Udp(UdpSocket);

impl Udp {
    pub(crate) fn new(client: Ipv6Addr, server: SocketAddr) -> Option<Self> {
        let socket = UdpSocket::bind((client, 0)).ok()?;
        socket.connect(server).ok()?;
        Some(Self(socket))
    }

    /// Waits for a short while.
    pub(crate) fn echoes(&self, sequence: u64) -> bool {
        self.echoes_within(sequence, Duration::from_millis(500))
    }

    fn echoes_within(&self, sequence: u64, patience: Duration) -> bool {
        let start = Instant::now();
        if self.0.send(&sequence.to_be_bytes()).is_err() {
            return false;
        }
        // One that was given up may come all the same.
        while let Some(left) = patience.checked_sub(start.elapsed())
            && !left.is_zero()
        {
            let mut answer = [0; 8];
            let _ = self.0.set_read_timeout(Some(left));
            match self.0.recv(&mut answer) {
                Ok(8) if answer == sequence.to_be_bytes() => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        false
    }
}

/// How a flow fared.
#[derive(Debug)]
pub(crate) struct Fared {
    pub(crate) passed: u64,
    pub(crate) lost: u64,
}

/// Something that runs until it is stopped.
pub(crate) struct Flow {
    stop: Arc<AtomicBool>,
    /// What has come back so far.
    passed: Arc<AtomicU64>,
    thread: JoinHandle<Fared>,
}

impl Flow {
    fn start(
        host: &Namespace,
        flow: impl FnOnce(&AtomicBool, &Arc<AtomicU64>) -> Fared + Send + 'static,
    ) -> Self {
        let (stop, passed) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&passed));
        let thread = host.spawn(move || flow(&stopped, &counted));
        Self {
            stop,
            passed,
            thread,
        }
    }

    pub(crate) fn stop(self) -> Fared {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }

    /// Whether more comes back.
    pub(crate) fn goes_on(&self) -> bool {
        let before = self.passed.load(Ordering::Relaxed);
        eventually(Duration::from_secs(10), || {
            self.passed.load(Ordering::Relaxed) > before + 20
        })
    }

    /// Datagrams with sequence numbers, each of which must come back.
    pub(crate) fn udp(host: &Namespace, client: Ipv6Addr, server: SocketAddr) -> Self {
        Self::start(host, move |stop, passed| {
            let socket = Udp::new(client, server).unwrap();
            let (mut next, mut lost) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                match socket.echoes_within(next, PATIENCE) {
                    true => drop(passed.fetch_add(1, Ordering::Relaxed)),
                    false => lost += 1,
                }
                next += 1;
                thread::sleep(Duration::from_millis(1));
            }
            Fared {
                passed: next - lost,
                lost,
            }
        })
    }

    /// A transfer both ways at once, whose every byte is looked at. Lost is what ends it.
    pub(crate) fn tcp(host: &Namespace, client: Ipv6Addr, server: SocketAddr) -> Self {
        Self::start(host, move |stop, passed| {
            let stream = connect(client, server);
            let mut back = stream.try_clone().unwrap();
            let counted = Arc::clone(passed);
            let reader = thread::spawn(move || {
                let (mut next, mut buffer) = (0u64, [0; 8]);
                while back.read_exact(&mut buffer).is_ok() && buffer == next.to_be_bytes() {
                    next += 1;
                    counted.store(next, Ordering::Relaxed);
                }
                next
            });
            let (mut stream, mut next) = (stream, 0u64);
            let mut failed = false;
            while !failed && !stop.load(Ordering::Relaxed) {
                let chunk: Vec<u8> = (next..next + 1024).flat_map(u64::to_be_bytes).collect();
                failed = stream.write_all(&chunk).is_err();
                next += 1024;
                thread::sleep(Duration::from_millis(2));
            }
            let _ = stream.shutdown(Shutdown::Write);
            let passed = reader.join().unwrap();
            Fared {
                passed,
                lost: next - passed,
            }
        })
    }
}

/// A connection whose end is noticed.
pub(crate) fn connect(client: Ipv6Addr, server: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((client, 0)).into()).unwrap();
    socket.connect(&server.into()).unwrap();
    let stream = TcpStream::from(socket);
    // A connection that is dead is not waited for until TCP gives up.
    let patience = Some(Duration::from_secs(5));
    stream.set_read_timeout(patience).unwrap();
    stream.set_write_timeout(patience).unwrap();
    stream
}

/// The server takes what [`open_flows`] sends, while these are held.
pub(crate) fn listen_silently(network: &Network) -> [UdpSocket; 4] {
    let server = &network.server;
    server.run(|| SILENT.map(|port| UdpSocket::bind(("0.0.0.0", port)).unwrap()))
}

/// Opens flows of a client that nobody answers, a few from each port and at most 64 000 ports, as
/// fast as the PLAT takes them, so that none is lost before it.
pub(crate) fn open_flows(network: &Network, client: Ipv6Addr, how_many: u64, of_a_port: u64) {
    let Network { router, plat, .. } = network;
    let cable = Cable::new((router, "r1"), (plat, "p0"));
    let flow = move |number: u64| {
        let port = 1024 + (number / of_a_port) as u16;
        let to = SILENT[(number % of_a_port) as usize];
        let datagram = compose::udp(Pair::V6(client, SERVER_BY_PREFIX), port, to, b"more");
        V6::new(client, SERVER_BY_PREFIX, 17).carrying(&datagram)
    };
    for first in (0..how_many).step_by(BURST as usize) {
        let before = plat.device("plat0");
        let cable = cable.clone();
        let burst = BURST.min(how_many - first);
        router.run(move || cable.flood(burst, |n, packet| *packet = flow(first + n)));
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            let now = plat.device("plat0");
            if now.sent + now.overflowed >= before.sent + before.overflowed + burst {
                break;
            }
            thread::sleep(Duration::from_micros(200));
        }
    }
}
