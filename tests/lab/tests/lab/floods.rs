//! Floods from both sides: memory stays under its cap, every packet that ends has a reason, and
//! what was established stays.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use lab::{
    eventually,
    flood::{Cable, Noise},
    process::Daemon,
    servers::ECHO_PORT,
    topology::{Network, Options, SERVER, SERVER_BY_PREFIX},
};
use wire::compose::{self, Pair, V4, V6};

/// Small enough for a flood to reach them.
const LIMITS: &str = "[limits]\nbindings = 5000\nsessions = 5000\n\
                      fragmented_datagrams = 500\nfragment_bytes = 1000000\n";

/// What the tables above, the fragments, buffers that were never used before and a loaded allocator
/// may take.
const ROOM: u64 = 4 << 20;

/// What a flood may take when everything is full already: nothing but noise. Were one table without
/// a limit, it would be three times as much, with as few packets as get through on a slow machine.
const NOISE: u64 = 384 << 10;

/// How many packets from each side. Of those of 1200 bytes there are 60 MB.
const COUNT: u64 = 50_000;

/// How many fill every table.
const FILL: u64 = 30_000;

/// A network with a PLAT, and a client that has a connection and a binding.
struct Flooded {
    tcp: TcpStream,
    udp: UdpSocket,
    plat: Daemon,
    network: Network,
}

impl Flooded {
    fn new(name: &str) -> Self {
        // A capture of all this would take more than the flood.
        let options = Options {
            capture: false,
            ..Options::default()
        };
        let network = Network::new(name, &options);
        // The attackers' networks.
        network.add_lost_clients("2001:db8:1:8000::/49");
        let plat = network.start_plat_with(LIMITS);
        network.await_address();
        let (tcp, udp) = network.host.run(|| {
            let echo = SocketAddr::from((SERVER_BY_PREFIX, ECHO_PORT));
            let tcp = TcpStream::connect(echo).unwrap();
            tcp.set_nodelay(true).unwrap();
            tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let udp = UdpSocket::bind("[::]:0").unwrap();
            udp.connect(echo).unwrap();
            (tcp, udp)
        });
        let flooded = Self {
            tcp,
            udp,
            plat,
            network,
        };
        flooded.assert_alive();
        flooded
    }

    /// Both flows go on as if nothing had been.
    fn assert_alive(&self) {
        let mut answer = [0; 5];
        (&self.tcp).write_all(b"still").unwrap();
        (&self.tcp).read_exact(&mut answer).unwrap();
        assert_eq!(answer, *b"still");
        // A datagram may meet a full queue; not every one of them.
        let timeout = Some(Duration::from_millis(300));
        self.udp.set_read_timeout(timeout).unwrap();
        let echoed = (0..10).any(|_| {
            self.udp.send(b"there").is_ok()
                && matches!(self.udp.recv(&mut answer), Ok(5) if answer == *b"there")
        });
        assert!(echoed, "the binding is gone");
    }

    /// Floods the PLAT from the LAN and from the IPv4 internet at once, while the flows go on.
    fn flood(
        &self,
        count: u64,
        from_v6: impl FnMut(u64, &mut Vec<u8>) + Send + 'static,
        from_v4: impl FnMut(u64, &mut Vec<u8>) + Send + 'static,
    ) {
        let Network {
            router, plat, isp, ..
        } = &self.network;
        let inside = Cable::new((router, "r1"), (plat, "p0"));
        let outside = Cable::new((isp, "i0"), (plat, "p1"));
        let floods = [
            router.spawn(move || inside.flood(count, from_v6)),
            isp.spawn(move || outside.flood(count, from_v4)),
        ];
        while !floods.iter().all(|it| it.is_finished()) {
            self.assert_alive();
        }
        for flood in floods {
            assert!(flood.join().unwrap() > count / 2);
        }
        self.assert_alive();
    }

    /// Sees that the flood was counted by what became of it, and took no more than it may.
    fn assert_bounded(&self, (before, room): (u64, u64), expected: &[&str]) {
        let is_counted = || {
            let counters = self.plat.counters();
            let dropped: u64 = counters.drops.values().sum();
            let all = counters.directions.values();
            let missing: u64 = all.map(|it| it.came - it.passed).sum();
            // Fragments pass when they come, and are dropped as a datagram when they are given up.
            missing <= dropped
        };
        assert!(eventually(Duration::from_secs(5), is_counted));
        let counters = self.plat.counters();
        let many = |code: &&&str| counters.dropped(code) > 1000;
        let found = expected.iter().filter(many).count();
        assert!(found > 0, "none of {expected:?}: {counters:?}");
        let after = self.plat.memory();
        assert!(after < before + room, "from {before} to {after} bytes");
    }
}

/// A source somewhere in the attackers' networks.
fn attacker6(noise: &mut Noise) -> Ipv6Addr {
    let [a, b, ..] = noise.draw().to_be_bytes();
    let network = u16::from_be_bytes([a | 0x80, b]);
    let rest = noise.draw();
    let base = Ipv6Addr::new(0x2001, 0xdb8, 1, network, 0, 0, 0, 0);
    Ipv6Addr::from_bits(base.to_bits() | u128::from(rest))
}

fn attacker4(noise: &mut Noise) -> Ipv4Addr {
    let [.., a, b] = noise.draw().to_be_bytes();
    Ipv4Addr::new(9, 9, a, b)
}

/// An address of the pool; one of them is the client's.
fn pool(noise: &mut Noise) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, 1 + (noise.draw() % 14) as u8)
}

fn port(noise: &mut Noise) -> u16 {
    (noise.draw() as u16).max(1024)
}

/// SYNs of clients that never were.
fn syns6(seed: u64) -> impl FnMut(u64, &mut Vec<u8>) + Send + 'static {
    let mut noise = Noise(seed);
    move |_, packet| {
        let (src, dst) = (attacker6(&mut noise), SERVER_BY_PREFIX);
        let ports = (port(&mut noise), port(&mut noise));
        let syn = compose::tcp(Pair::V6(src, dst), ports, 2, &[], b"");
        *packet = V6::new(src, dst, 6).carrying(&syn);
    }
}

/// SYNs to ports of the pool that nobody has.
fn syns4(seed: u64) -> impl FnMut(u64, &mut Vec<u8>) + Send + 'static {
    let mut noise = Noise(seed);
    move |_, packet| {
        let (src, dst) = (attacker4(&mut noise), pool(&mut noise));
        let ports = (port(&mut noise), port(&mut noise));
        let syn = compose::tcp(Pair::V4(src, dst), ports, 2, &[], b"");
        *packet = V4::new(src, dst, 6).carrying(&syn);
    }
}

#[test]
fn plat_5_3_01_a_syn_flood_from_both_sides() {
    let flooded = Flooded::new("flood-syn");
    let before = flooded.plat.memory();
    let full = ["too-many-bindings", "too-many-sessions", "address-bindings"];
    flooded.flood(FILL, syns6(1), syns4(2));
    flooded.assert_bounded((before, ROOM), &full);
    // From here on there is no room for anything, and so no more is taken.
    let before = flooded.plat.memory();
    flooded.flood(COUNT, syns6(7), syns4(8));
    flooded.assert_bounded((before, NOISE), &full);
    let counters = flooded.plat.counters();
    assert!(counters.dropped("too-many-syns") > 1000, "{counters:?}");
}

#[test]
fn plat_5_3_01_a_fragment_flood_from_both_sides() {
    let flooded = Flooded::new("flood-fragments");
    let before = flooded.plat.memory();
    let (mut noise6, mut noise4) = (Noise(3), Noise(4));
    let part = compose::udp(
        Pair::V6(SERVER_BY_PREFIX, SERVER_BY_PREFIX),
        4000,
        53,
        &[7; 1192],
    );
    let same_part = part.clone();
    flooded.flood(
        COUNT,
        move |_, packet| {
            let (src, dst) = (attacker6(&mut noise6), SERVER_BY_PREFIX);
            let id = noise6.draw() as u32;
            let fragment = compose::fragment(17, 0, true, id, &part);
            *packet = V6::new(src, dst, 44).carrying(&fragment);
        },
        move |_, packet| {
            let (src, dst) = (attacker4(&mut noise4), pool(&mut noise4));
            let first = V4 {
                id: noise4.draw() as u16,
                mf: true,
                ..V4::new(src, dst, 17)
            };
            *packet = first.carrying(&same_part);
        },
    );
    flooded.assert_bounded((before, ROOM), &["fragment-displaced"]);
}

/// Errors about nobody's packets, and among them those about the very flows that are to live.
#[test]
fn plat_3_4_01_a_flood_of_forged_icmp_errors_from_both_sides() {
    let flooded = Flooded::new("flood-icmp");
    let before = flooded.plat.memory();
    let (SocketAddr::V6(client), SocketAddr::V6(udp)) = (
        flooded.tcp.local_addr().unwrap(),
        flooded.udp.local_addr().unwrap(),
    ) else {
        panic!("IPv6 sockets");
    };
    let (mut noise6, mut noise4) = (Noise(5), Noise(6));
    flooded.flood(
        COUNT,
        move |number, packet| {
            let from = attacker6(&mut noise6);
            let (to, own) = match number % 50 {
                0 => (*client.ip(), client.port()),
                1 => (*udp.ip(), udp.port()),
                _ => (attacker6(&mut noise6), port(&mut noise6)),
            };
            let (protocol, quoted) = if number % 2 == 0 {
                let pair = Pair::V6(SERVER_BY_PREFIX, to);
                (6, compose::tcp(pair, (ECHO_PORT, own), 16, &[], b""))
            } else {
                let pair = Pair::V6(SERVER_BY_PREFIX, to);
                (17, compose::udp(pair, ECHO_PORT, own, b"x"))
            };
            let quote = V6::new(SERVER_BY_PREFIX, to, protocol).carrying(&quoted);
            let code = (number % 5) as u8;
            let error = compose::icmp6(from, SERVER_BY_PREFIX, 1, code, [0; 4], &quote);
            *packet = V6::new(from, SERVER_BY_PREFIX, 58).carrying(&error);
        },
        move |number, packet| {
            let (from, to) = (attacker4(&mut noise4), pool(&mut noise4));
            // The client's port is kept in the pool if it can be: some of these are its own.
            let own = match number % 4 {
                0 => client.port(),
                1 => udp.port(),
                _ => port(&mut noise4),
            };
            let pair = Pair::V4(to, SERVER);
            let (protocol, quoted) = if number % 4 == 0 {
                (6, compose::tcp(pair, (own, ECHO_PORT), 16, &[], b""))
            } else {
                (17, compose::udp(pair, own, ECHO_PORT, b"x"))
            };
            let quote = V4::new(to, SERVER, protocol).carrying(&quoted);
            let (kind, code) = [(3, 1), (3, 4), (11, 0), (3, 13), (12, 0)][number as usize % 5];
            let error = compose::icmp4(kind, code, [0, 0, 0, 68], &quote);
            *packet = V4::new(from, to, 1).carrying(&error);
        },
    );
    flooded.assert_bounded((before, ROOM), &["no-session"]);
    flooded.plat.clear_output();
    flooded.plat.signal(nix::sys::signal::Signal::SIGUSR1);
    // One connection, one binding for datagrams, and no more.
    let soon = Duration::from_secs(3);
    flooded.plat.wait_for("TCP: 1 sessions (1 made)", soon);
    flooded.plat.wait_for("UDP: 1 sessions (1 made)", soon);
}
