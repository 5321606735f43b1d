//! Packets from the IPv4 internet that say that they come from inside: from an address of the pool,
//! or from a host with a mapping.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use lab::{
    eventually,
    flood::Cable,
    process::Daemon,
    topology::{Network, Options, SERVER, SERVER_BY_PREFIX},
};
use wire::compose::{self, Pair, V4};

const SOON: Duration = Duration::from_secs(5);
/// Two hosts with an IPv4 address of their own.
const HOSTS: [(Ipv4Addr, Ipv6Addr); 2] = [
    (
        Ipv4Addr::new(203, 0, 113, 17),
        Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 0x17),
    ),
    (
        Ipv4Addr::new(203, 0, 113, 18),
        Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 0x18),
    ),
];
/// One without.
const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 0xc1);
const PORT: u16 = 5000;

struct Lab {
    plat: Daemon,
    network: Network,
    /// A client's socket, and what it is outside.
    client: (UdpSocket, SocketAddrV4),
    /// The first host with a mapping.
    host: UdpSocket,
}

impl Lab {
    fn new(name: &str) -> Self {
        let network = Network::new(name, &Options::default());
        network.isp.add_route("203.0.113.16/28", "192.0.2.1", "i0");
        let eam = HOSTS.map(|(v4, v6)| format!("[[eam]]\nipv4 = \"{v4}\"\nipv6 = \"{v6}\"\n"));
        let plat = network.start_plat_with(&eam.concat());
        network.await_address();
        for address in [CLIENT, HOSTS[0].1, HOSTS[1].1] {
            network.host.add_address("h0", &format!("{address}/64"));
        }
        let mut client = None;
        let answered = || {
            client = open(&network);
            client.is_some()
        };
        assert!(eventually(SOON, answered));
        let (_, own) = HOSTS[0];
        let host = network
            .host
            .run(move || UdpSocket::bind((own, PORT)).unwrap());
        Self {
            plat,
            client: client.unwrap(),
            host,
            network,
        }
    }

    /// Strict or none, as `net.ipv4.conf.*.rp_filter`.
    fn filter(&self, value: &str) {
        for interface in ["all", "p1", "plat0"] {
            let path = format!("net/ipv4/conf/{interface}/rp_filter");
            self.network.plat.set(&path, value);
        }
    }

    /// From the internet to a client and to a host with a mapping: whom they see it come from.
    fn forge(&self, src: Ipv4Addr) -> [Option<SocketAddr>; 2] {
        let (client, outside) = &self.client;
        let (own, _) = HOSTS[0];
        [
            self.send(src, *outside, client),
            self.send(src, SocketAddrV4::new(own, PORT), &self.host),
        ]
    }

    fn send(&self, src: Ipv4Addr, to: SocketAddrV4, heard: &UdpSocket) -> Option<SocketAddr> {
        static SENT: AtomicU32 = AtomicU32::new(0);
        let number = SENT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let Network { isp, plat, .. } = &self.network;
        let cable = Cable::new((isp, "i0"), (plat, "p1"));
        let datagram = compose::udp(Pair::V4(src, *to.ip()), 9, to.port(), &number);
        let packet = V4::new(src, *to.ip(), 17).carrying(&datagram);
        isp.run(move || cable.flood(1, |_, bytes| bytes.clone_from(&packet)));
        heard
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        // One before it may have been late.
        let mut data = [0; 64];
        loop {
            let (len, from) = heard.recv_from(&mut data).ok()?;
            if data[..len] == number {
                return Some(from);
            }
        }
    }
}

/// A flow to the server that tells what it looks like from there.
fn open(network: &Network) -> Option<(UdpSocket, SocketAddrV4)> {
    let server = network
        .server
        .run(|| UdpSocket::bind((SERVER, PORT)).unwrap());
    server
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let socket = network.host.run(|| {
        let socket = UdpSocket::bind((CLIENT, 0)).unwrap();
        let _ = socket.send_to(b"hello", (SERVER_BY_PREFIX, PORT));
        socket
    });
    let (_, from) = server.recv_from(&mut [0; 64]).ok()?;
    match from {
        SocketAddr::V4(from) => Some((socket, from)),
        SocketAddr::V6(_) => None,
    }
}

/// Addresses of the pool and of hosts with a mapping, also those of whom they are sent to.
fn inside(lab: &Lab) -> [Ipv4Addr; 4] {
    let unused = Ipv4Addr::new(203, 0, 113, 14);
    [unused, *lab.client.1.ip(), HOSTS[0].0, HOSTS[1].0]
}

/// `rp_filter = 1`: the kernel knows by its routes that such packets cannot come from there.
#[test]
fn a_strict_reverse_path_filter_stops_forged_sources() {
    let mut lab = Lab::new("forged-strict");
    lab.filter("1");
    let outside = Ipv4Addr::new(198, 51, 100, 99);
    // The first may be too late, while neighbours are asked for.
    let arrive = || lab.forge(outside).iter().all(Option::is_some);
    assert!((0..5).any(|_| arrive()));
    let before = lab.plat.counters().direction("from IPv4");
    for src in inside(&lab) {
        assert_eq!(lab.forge(src), [None, None], "{src}");
    }
    assert_eq!(lab.plat.counters().direction("from IPv4"), before);
    assert!(lab.plat.stop().success());
}

/// `rp_filter = 2`, which is what many systems have, or 0: the PLAT itself stops them.
#[test]
fn without_one_the_plat_stops_them() {
    let mut lab = Lab::new("forged-loose");
    for value in ["2", "0"] {
        lab.filter(value);
        let outside = Ipv4Addr::new(198, 51, 100, 99);
        let arrive = || lab.forge(outside).iter().all(Option::is_some);
        assert!((0..5).any(|_| arrive()));
        let before = lab.plat.counters().dropped("forged-source");
        for src in inside(&lab) {
            assert_eq!(lab.forge(src), [None, None], "{src}");
        }
        let dropped = lab.plat.counters().dropped("forged-source") - before;
        assert_eq!(dropped, 8, "rp_filter {value}");
    }
    assert!(lab.plat.stop().success());
}
