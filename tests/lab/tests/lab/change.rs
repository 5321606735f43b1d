//! The network changes under a CLAT that runs.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket},
    time::Duration,
};

use lab::{
    eventually,
    namespace::Namespace,
    servers::{ECHO, get},
    topology::{PREF64, SERVER},
};

use crate::{Running, discovery::other_plat};

const SOON: Duration = Duration::from_secs(5);

/// A UDP server that answers with the address that it was asked from.
const WHO_PORT: u16 = 9;

fn serve_who(server: &Namespace) {
    let socket = server.run(|| UdpSocket::bind(("0.0.0.0", WHO_PORT)).unwrap());
    server.spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(from.ip().to_string().as_bytes(), from);
        }
    });
}

/// A UDP flow of the host.
struct UdpFlow(UdpSocket);

impl UdpFlow {
    fn open(host: &Namespace) -> Self {
        Self(host.run(|| {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
            socket.connect((SERVER, WHO_PORT)).unwrap();
            let timeout = Some(Duration::from_secs(1));
            socket.set_read_timeout(timeout).unwrap();
            socket
        }))
    }

    /// The address on the IPv4 internet that the flow has.
    fn seen_as(&self) -> io::Result<Ipv4Addr> {
        let mut buffer = [0; 100];
        self.0.send(b"who am I?")?;
        let len = self.0.recv(&mut buffer)?;
        let text = String::from_utf8_lossy(&buffer[..len]);
        text.parse().map_err(io::Error::other)
    }
}

/// A TCP connection of the host.
struct TcpFlow(TcpStream);

impl TcpFlow {
    fn open(host: &Namespace) -> Self {
        Self(host.run(|| {
            let stream = TcpStream::connect(ECHO).unwrap();
            let timeout = Some(Duration::from_secs(1));
            stream.set_read_timeout(timeout).unwrap();
            stream
        }))
    }

    /// Whether what is sent comes back.
    fn is_alive(&mut self) -> bool {
        let mut back = [0; 4];
        let echoed = self
            .0
            .write_all(b"echo")
            .and_then(|()| self.0.read_exact(&mut back));
        echoed.is_ok() && back == *b"echo"
    }
}

/// The address on the IPv4 internet that a new connection has.
fn new_connection_seen_as(host: &Namespace) -> Ipv4Addr {
    let text = host.run(|| {
        let (_, mut body) = get(IpAddr::V4(SERVER), "/address").unwrap();
        let mut text = String::new();
        body.read_to_string(&mut text).unwrap();
        text
    });
    text.trim().parse().unwrap()
}

/// Which PLAT an address of the pools belongs to.
fn is_of_second_plat(address: Ipv4Addr) -> bool {
    let [a, b, c, last] = address.octets();
    assert_eq!([a, b, c], [203, 0, 113]);
    last >= 16
}

/// Another prefix is announced, and the old one for a short time only. What was going on goes on.
#[test]
fn flows_stay_with_the_old_prefix_while_it_holds() {
    let running = Running::new("flows");
    let network = &running.network;
    let new = "2001:db8:65::/96";
    network.router.add_route(new, "2001:db8:1:2::2", "r1");
    let _second = other_plat(network, new);
    serve_who(&network.server);
    let (mut tcp, udp) = (TcpFlow::open(&network.host), UdpFlow::open(&network.host));
    assert!(tcp.is_alive());
    let seen = udp.seen_as().unwrap();
    assert!(!is_of_second_plat(seen), "{seen}");

    let announce = |old: Duration| {
        network.advertiser.change(|it| {
            it.pref64 = vec![
                (PREF64.parse().unwrap(), old),
                (new.parse().unwrap(), Duration::from_secs(1800)),
            ];
        });
    };
    announce(Duration::from_secs(304));
    let said = format!("prefix {new} (older flows by {PREF64})");
    running.clat.wait_for(&said, SOON);
    for _ in 0..5 {
        assert!(tcp.is_alive());
        assert_eq!(udp.seen_as().unwrap(), seen);
        let later = UdpFlow::open(&network.host).seen_as().unwrap();
        assert!(is_of_second_plat(later), "{later}");
        let later = new_connection_seen_as(&network.host);
        assert!(is_of_second_plat(later), "{later}");
    }
    let mut later = TcpFlow::open(&network.host);

    announce(Duration::ZERO);
    running.clat.wait_for(&format!("prefix {new}, MTU"), SOON);
    let seen = udp.seen_as().unwrap();
    assert!(is_of_second_plat(seen), "{seen}");
    assert!(!tcp.is_alive());
    assert!(later.is_alive());
    // The address stayed, and the interface with it.
    assert_eq!(running.clat.output().matches("claiming").count(), 1);
}

/// Nothing announces its end: the old prefix just is not repeated, and runs out.
#[test]
fn a_prefix_that_runs_out_is_left() {
    let running = Running::new("runs-out");
    let network = &running.network;
    let new = "2001:db8:65::/96";
    network.router.add_route(new, "2001:db8:1:2::2", "r1");
    let _second = other_plat(network, new);
    serve_who(&network.server);
    let old = |lifetime| vec![(PREF64.parse().unwrap(), Duration::from_secs(lifetime))];
    network.advertiser.change(|it| it.pref64 = old(8));
    std::thread::sleep(Duration::from_millis(200));
    let udp = UdpFlow::open(&network.host);
    let seen = udp.seen_as().unwrap();
    let announced = (new.parse().unwrap(), Duration::from_secs(1800));
    network.advertiser.change(|it| it.pref64 = vec![announced]);
    running.clat.wait_for("(older flows by", SOON);
    assert_eq!(udp.seen_as().unwrap(), seen);
    let expired = Duration::from_secs(10);
    running
        .clat
        .wait_for(&format!("prefix {new}, MTU"), expired);
    let moved = || udp.seen_as().is_ok_and(is_of_second_plat);
    assert!(eventually(SOON, moved));
}
