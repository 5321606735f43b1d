//! Two clients of one PLAT that know each other by the addresses of its pool, in shards of two
//! workers: each pair also in different ones.

use std::{
    io::{Read, Write},
    net::{Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use lab::{
    eventually,
    namespace::Namespace,
    process::Daemon,
    servers::ECHO_PORT,
    topology::{Network, Options, PREF64, SERVER_BY_PREFIX, program},
};
use pref64::Pref64;
use socket2::{Domain, Socket, Type};

const SOON: Duration = Duration::from_secs(5);
const WORKERS: u16 = 2;
/// Ports next to each other that are the same worker's.
const CHUNK: u16 = 16;
/// The first calls, and the second is called.
const CALLER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 0xca);
const CALLED: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 0xcd);

struct Lab {
    plat: Daemon,
    network: Network,
}

/// An address and port of the pool, and the worker that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outside {
    address: SocketAddrV4,
    worker: u16,
}

impl Outside {
    /// As another client writes it.
    fn by_prefix(self) -> SocketAddr {
        let prefix: Pref64 = PREF64.parse().unwrap();
        (prefix.embed(*self.address.ip()), self.address.port()).into()
    }
}

impl Lab {
    fn new(name: &str) -> Self {
        let network = Network::new(name, &Options::default());
        let plat = network.start_plat_with(&format!("workers = {WORKERS}\n"));
        for client in [CALLER, CALLED] {
            network.host.add_address("h0", &format!("{client}/64"));
        }
        network.await_address();
        let lab = Self { plat, network };
        let works = || udp(&lab.network.host, CALLER).is_some();
        assert!(eventually(SOON, works));
        lab
    }

    /// What a client's address and port are outside.
    fn outside(&self, protocol: &str, inside: SocketAddr) -> Option<Outside> {
        let line = format!(
            "{} bib list --json --protocol {protocol} --client {inside} --socket {}",
            program("plat").display(),
            self.network.path("plat-state/control.sock").display()
        );
        let listed = self.network.plat.must(&line);
        let row: serde_json::Value = serde_json::from_str(listed.lines().next()?).unwrap();
        let address: SocketAddrV4 = row["pool"].as_str()?.parse().unwrap();
        Some(Outside {
            address,
            worker: address.port() / CHUNK % WORKERS,
        })
    }

    fn ends_without_losses(&mut self) {
        let mut counters = self.plat.counters();
        // What the kernel itself says on a new interface.
        counters.drops.remove("not-in-prefix");
        assert!(counters.drops.is_empty(), "{counters:?}");
        assert!(self.plat.stop().success());
    }

    /// Sockets of both clients, outside with different workers and with the same.
    fn udp_pairs(&self) -> [[(UdpSocket, Outside); 2]; 2] {
        let host = &self.network.host;
        let called = udp(host, CALLED).unwrap();
        let is = self.outside("udp", called.local_addr().unwrap()).unwrap();
        let mut found = [None, None];
        for _ in 0..100 {
            let caller = udp(host, CALLER).unwrap();
            let its = self.outside("udp", caller.local_addr().unwrap()).unwrap();
            let at = usize::from(its.worker == is.worker);
            found[at].get_or_insert((caller, its));
            if found.iter().all(Option::is_some) {
                break;
            }
        }
        found.map(|caller| [caller.unwrap(), (called.try_clone().unwrap(), is)])
    }
}

/// A socket with a binding, which the server has answered to.
fn udp(host: &Namespace, client: Ipv6Addr) -> Option<UdpSocket> {
    host.run(move || {
        let socket = UdpSocket::bind((client, 0)).ok()?;
        let patience = Some(Duration::from_secs(2));
        socket.set_read_timeout(patience).ok()?;
        socket
            .send_to(b"hello", (SERVER_BY_PREFIX, ECHO_PORT))
            .ok()?;
        socket.recv_from(&mut [0; 8]).ok()?;
        Some(socket)
    })
}

/// What comes to a socket must be this, from there.
fn hears(socket: &UdpSocket, from: Outside, data: &[u8]) {
    let mut buffer = [0; 5000];
    let (len, heard) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(heard, from.by_prefix());
    assert!(buffer[..len] == *data, "{len} of {}", data.len());
}

/// Small ones, and ones that travel in fragments, there and back.
#[test]
fn plat_3_8_01_udp_clients_of_different_workers_reach_each_other() {
    let mut lab = Lab::new("hairpin-udp");
    for [(caller, calling), (called, is)] in lab.udp_pairs() {
        for len in [1, 1200, 4000] {
            let data = vec![len as u8; len];
            caller.send_to(&data, is.by_prefix()).unwrap();
            hears(&called, calling, &data);
            called.send_to(&data, calling.by_prefix()).unwrap();
            hears(&caller, is, &data);
        }
    }
    lab.ends_without_losses();
}

/// Whoever calls a port that nobody listens at any more is told so by the one who is called.
#[test]
fn plat_3_8_01_icmp_errors_find_their_way_between_different_workers() {
    let mut lab = Lab::new("hairpin-icmp");
    let pairs = lab.udp_pairs();
    // The binding outlives the socket.
    let callers = pairs.map(|[(caller, _), (called, is)]| {
        drop(called);
        (caller, is)
    });
    for (caller, is) in callers {
        caller.connect(is.by_prefix()).unwrap();
        caller.send(b"anybody there?").unwrap();
        let told = caller.recv(&mut [0; 64]).unwrap_err();
        assert_eq!(told.kind(), std::io::ErrorKind::ConnectionRefused, "{is:?}");
    }
    lab.ends_without_losses();
}

fn tcp(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

/// A client that listens at a port from which it has connected to somebody else before.
fn listen(host: &Namespace) -> (TcpListener, TcpStream) {
    host.run(|| {
        let out = tcp((CALLED, 0).into());
        let own = out.local_addr().unwrap();
        out.connect(&SocketAddr::from((SERVER_BY_PREFIX, ECHO_PORT)).into())
            .unwrap();
        let listener = tcp(own.as_socket().unwrap());
        listener.listen(4).unwrap();
        (listener.into(), out.into())
    })
}

#[test]
fn plat_3_8_01_tcp_clients_of_different_workers_reach_each_other() {
    let mut lab = Lab::new("hairpin-tcp");
    let host = &lab.network.host;
    let (listener, out) = listen(host);
    let is = lab.outside("tcp", out.local_addr().unwrap()).unwrap();
    let mut met = [0; 2];
    for _ in 0..100 {
        let to = is.by_prefix();
        let mut caller = host.run(move || {
            let socket = tcp((CALLER, 0).into());
            socket.connect_timeout(&to.into(), SOON).unwrap();
            TcpStream::from(socket)
        });
        let calling = lab.outside("tcp", caller.local_addr().unwrap()).unwrap();
        let (mut called, from) = listener.accept().unwrap();
        assert_eq!(from, calling.by_prefix());
        for stream in [&caller, &called] {
            stream.set_read_timeout(Some(SOON)).unwrap();
        }
        let (question, mut heard) = ([7; 3000], [0; 3000]);
        caller.write_all(&question).unwrap();
        called.read_exact(&mut heard).unwrap();
        assert_eq!(heard, question);
        called.write_all(&heard).unwrap();
        drop(called);
        let mut answer = Vec::new();
        caller.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, question);
        met[usize::from(calling.worker == is.worker)] += 1;
        if met.iter().all(|it| *it > 2) {
            break;
        }
    }
    assert!(met.iter().all(|it| *it > 2), "{met:?}");
    lab.ends_without_losses();
}

/// Nobody is reached by an address of the pool without a port that is given out.
#[test]
fn plat_3_8_01_a_port_that_nobody_has_leads_nowhere() {
    let mut lab = Lab::new("hairpin-nobody");
    let caller = udp(&lab.network.host, CALLER).unwrap();
    let is = lab.outside("udp", caller.local_addr().unwrap()).unwrap();
    for port in [2, 2 + CHUNK] {
        let nobody = Outside {
            address: SocketAddrV4::new(*is.address.ip(), port),
            ..is
        };
        caller.send_to(b"hello", nobody.by_prefix()).unwrap();
    }
    let dropped = || lab.plat.counters().dropped("no-binding") == 2;
    assert!(eventually(SOON, dropped), "{:?}", lab.plat.counters());
    assert!(lab.plat.stop().success());
}
