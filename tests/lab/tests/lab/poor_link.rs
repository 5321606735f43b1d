//! Every kind of traffic of `traffic` again, over a link that loses, repeats and reorders: things
//! take longer and are sent again, but what arrives is what was sent.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use lab::{
    impair::Impairment,
    pair::{Pair, Translator},
    servers::{ECHO_PORT, HELLO, echo_over_tcp, fetch, send_without_checksum},
    topology::{NO_CHECKSUM_PORT, Network, Options, SERVER},
};

use crate::{
    Running,
    traffic::{
        RawUdp, allow_fragments, comes_back, converse, expected, iperf3, pattern, pings_are_lost,
        set_option, udp_socket,
    },
};

/// How often something is sent before it is taken for lost: of datagrams in fifty fragments there
/// and back, one of three arrives.
const TRIES: usize = 25;
/// How long an answer is waited for.
const SOON: Duration = Duration::from_millis(120);

/// One of a hundred packets lost, one repeated, two overtaken by others, in each direction.
fn poor(pair: Pair, test: &str) -> Running {
    let options = Options {
        impairment: Some(Impairment {
            loss: 10,
            duplicate: 10,
            reorder: 20,
            delay: Duration::from_millis(1),
            seed: 7,
            ..Impairment::default()
        }),
        ..Options::default()
    };
    Running::with(pair, test, &options)
}

/// In bulk, in small pieces, many at once, and refused.
pub(crate) fn poor_link_tcp(pair: Pair) {
    let running = poor(pair, "poor-tcp");
    const LEN: u64 = 1_000_000;
    let host = &running.network.host;
    let response = host.run(|| fetch(SERVER.into(), &format!("/bytes/{LEN}")));
    assert_eq!(response.unwrap().sha256, expected(LEN));
    assert_eq!(
        host.run(|| echo_over_tcp(LEN)).unwrap(),
        (expected(LEN), LEN)
    );
    let said = host.must(&format!("curl -sS -m 15 http://{SERVER}/hello"));
    assert_eq!(said, HELLO);
    host.run(|| {
        converse(60, Duration::from_secs(15));
        let error = TcpStream::connect((SERVER, 9)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
    let hashes = host.run(|| {
        let get = |n: u64| fetch(SERVER.into(), &format!("/bytes/{}", 60_000 + n)).unwrap();
        let flows: Vec<_> = (0..32).map(|n| thread::spawn(move || get(n))).collect();
        let flows = flows.into_iter();
        flows
            .map(|it| it.join().unwrap().sha256)
            .collect::<Vec<_>>()
    });
    for (n, hash) in hashes.into_iter().enumerate() {
        assert_eq!(hash, expected(60_000 + n as u64));
    }
}

/// A datagram comes back, sooner or later, and unchanged.
fn arrives(socket: &UdpSocket, data: &[u8]) -> bool {
    socket.set_read_timeout(Some(SOON)).unwrap();
    (0..TRIES).any(|_| comes_back(socket, data))
}

/// Of every size, in fragments, with options, without checksums, segmented, and to nobody.
pub(crate) fn poor_link_udp(pair: Pair) {
    let running = poor(pair, "poor-udp");
    running.network.host.run(move || {
        let socket = udp_socket(ECHO_PORT);
        let small = (0..=1472).step_by(46);
        let large = [1473, 2000, 4000, 8192, 20_000, 40_000];
        let lost = small
            .chain(large)
            .filter(|len| !arrives(&socket, &pattern(*len)));
        // One datagram of 65 536 does not pass tayga, and never does.
        assert!(lost.count() <= usize::from(pair.has_tayga()));

        let options = [148, 4, 0, 0].repeat(10);
        let with_options = udp_socket(ECHO_PORT);
        set_option(&with_options, libc::IPPROTO_IP, libc::IP_OPTIONS, &options);
        assert!(arrives(&with_options, &pattern(1000)));
        without_checksum(pair);
        segmented();
        refused();
    });
}

/// As [`crate::traffic::udp_without_checksum`] says, tayga loses those that it would have to compute
/// one for.
fn without_checksum(pair: Pair) {
    for (port, from_server) in [(ECHO_PORT, false), (NO_CHECKSUM_PORT, true)] {
        for from_host in [false, true] {
            let lost = from_host && pair.clat == Translator::Tayga
                || from_server && pair.plat == Translator::Tayga;
            let socket = udp_socket(port);
            if from_host {
                send_without_checksum(&socket);
            }
            if lost {
                socket.set_read_timeout(Some(SOON)).unwrap();
                assert!((0..2).all(|_| !comes_back(&socket, &pattern(500))));
            } else {
                assert!(
                    arrives(&socket, &pattern(500)),
                    "{from_host}, {from_server}"
                );
            }
        }
    }
}

/// Each of the datagrams that are sent as one, in the end.
fn segmented() {
    const UDP_SEGMENT: i32 = 103;
    for size in [100u16, 1400] {
        let socket = udp_socket(ECHO_PORT);
        let value = i32::from(size).to_ne_bytes();
        set_option(&socket, libc::SOL_UDP, UDP_SEGMENT, &value);
        socket.set_read_timeout(Some(SOON)).unwrap();
        let data = pattern(usize::from(size) * 10 + 7);
        let sent: BTreeSet<_> = data.chunks(size.into()).map(Vec::from).collect();
        let mut received = BTreeSet::new();
        let mut buffer = [0; 2000];
        for _ in 0..TRIES {
            socket.send(&data).unwrap();
            while let Ok(len) = socket.recv(&mut buffer) {
                received.insert(buffer[..len].to_vec());
                if received == sent {
                    break;
                }
            }
            if received == sent {
                break;
            }
        }
        assert!(received == sent, "{} of {}", received.len(), sent.len());
    }
}

fn refused() {
    let socket = udp_socket(9);
    socket.set_read_timeout(Some(SOON)).unwrap();
    let told = (0..TRIES).any(|_| {
        // The error of the last one may come with the next.
        let sent = socket.send(b"anybody there?");
        let heard = sent.and_then(|_| socket.recv(&mut [0; 100]));
        matches!(heard, Err(error) if error.kind() == ErrorKind::ConnectionRefused)
    });
    assert!(told, "nobody says that nobody listens");
}

/// Echoes of every sort, permission to fragment, and a flow of datagrams.
pub(crate) fn poor_link_ping_and_iperf3(pair: Pair) {
    let running = poor(pair, "poor-ping");
    let host = &running.network.host;
    for (size, arguments) in [
        (0, ""),
        (1400, "-M dont"),
        (1400, "-M do"),
        (1444, "-M do"),
        (4000, "-M dont"),
    ] {
        let line = format!("ping -n -c 8 -i 0.1 -W 1 -s {size} {arguments} {SERVER}");
        let pinged = host.sh(&line).stdout;
        let lost = pinged.contains(" 100% packet loss");
        let expected = size > 1232 && pings_are_lost(pair, arguments);
        assert_eq!(lost, expected, "{line}: {pinged}");
        // Ping compares what comes back.
        assert!(!pinged.contains("wrong data"), "{line}: {pinged}");
    }
    permission_to_fragment(pair, &running.network);
    for arguments in ["-t 1", "-t 1 -R"] {
        iperf3(&running.network, arguments);
    }
    // On such a link iperf3 may lose its own report.
    let mut lost = (0..5).filter_map(|_| {
        let report = iperf3(&running.network, "-t 1 -u -b 5M -l 1000");
        report["end"]["sum"]["lost_percent"].as_f64()
    });
    assert!(lost.any(|percent| percent < 20.0));
}

fn permission_to_fragment(pair: Pair, network: &Network) {
    let Network { host, server, .. } = network;
    let at_server = server.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:5000").unwrap();
        allow_fragments(&socket);
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket
    });
    let by_tayga = [pair.plat, pair.clat].map(|it| it == Translator::Tayga);
    let at_host = host.run(|| {
        let socket = udp_socket(5000);
        allow_fragments(&socket);
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket
    });
    let (arrived, came_back) = (server.run(RawUdp::new), host.run(RawUdp::new));
    let mut buffer = [0; 2000];
    let done = (0..TRIES).any(|_| {
        at_host.send(&pattern(1200)).unwrap();
        let Ok((len, client)) = at_server.recv_from(&mut buffer) else {
            return false;
        };
        assert_eq!(buffer[..len], pattern(1200));
        at_server.send_to(&buffer[..len], client).unwrap();
        matches!(at_host.recv(&mut buffer), Ok(1200))
    });
    assert!(done && buffer[..1200] == pattern(1200));
    let forbidden = [arrived, came_back].map(|it| it.forbids_fragments());
    assert_eq!(forbidden, by_tayga);
}
