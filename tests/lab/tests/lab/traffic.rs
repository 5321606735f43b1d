//! Every kind of traffic through CLAT and PLAT, content compared.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpStream, UdpSocket},
    os::fd::AsRawFd,
    thread,
    time::Duration,
};

use lab::{
    pair::{Pair, Translator},
    process::{Daemon, command},
    servers::{
        ECHO, ECHO_PORT, HELLO, Pattern, echo_over_tcp, fetch, send_without_checksum, sha256,
    },
    topology::{NO_CHECKSUM_PORT, Network, Options, SERVER},
};
use socket2::{Domain, Protocol, Socket, Type};
use wire::ipv4::Ipv4;

use crate::Running;

/// What `/bytes/N` should hash to.
pub(crate) fn expected(len: u64) -> String {
    sha256(Pattern::default().take(len)).unwrap().0
}

/// Downloads and uploads, and compares what arrives.
fn tcp_both_ways(pair: Pair, test: &str, options: &Options) {
    let running = Running::with(pair, test, options);
    if !options.offloads {
        running.translators_without_offloads();
    }
    const LEN: u64 = 20_000_000;
    let host = &running.network.host;
    let response = host
        .run(|| fetch(SERVER.into(), &format!("/bytes/{LEN}")))
        .unwrap();
    assert_eq!((response.status, response.len), (200, LEN));
    assert_eq!(response.sha256, expected(LEN));

    // Up and back: the server sends what it receives.
    let echoed = host.run(|| echo_over_tcp(LEN)).unwrap();
    assert_eq!(echoed, (expected(LEN), LEN));
    running.assert_nothing_lost(&[]);
}

pub(crate) fn tcp_both_ways_with_offloads(pair: Pair) {
    tcp_both_ways(pair, "tcp-offloads", &Options::default());
}

pub(crate) fn tcp_both_ways_without_offloads(pair: Pair) {
    let options = Options {
        offloads: false,
        ..Options::default()
    };
    tcp_both_ways(pair, "tcp-plain", &options);
}

pub(crate) fn curl_reaches_an_ipv4_literal(pair: Pair) {
    let running = Running::of(pair, "curl");
    let host = &running.network.host;
    assert_eq!(
        host.must(&format!("curl -sS -m 5 http://{SERVER}/hello")),
        HELLO
    );
    // To the server the client is one of the pool.
    let seen = host.must(&format!("curl -sS -m 5 http://{SERVER}/address"));
    assert!(seen.starts_with("203.0.113."), "{seen}");
    running.assert_nothing_lost(&[]);
}

pub(crate) fn udp_socket(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect((SERVER, port)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(3)))
        .unwrap();
    socket
}

pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Pattern::default().read_exact(&mut bytes).unwrap();
    bytes
}

/// The largest datagram that fits 1500 bytes of IPv6.
const FITS: usize = 1500 - 40 - 8;

/// A conversation with the UDP echo server, in which nothing is lost but by path MTU discovery: the
/// server sends with DF set until it is told, once, which size fits.
struct Echoes {
    socket: UdpSocket,
    lost: u32,
    /// Datagrams that may be lost for good. Tayga 0.9.2 sends a checksum of zero where 0xffff is
    /// meant, which is none in IPv6: one datagram of 65 536, and the same one each time.
    spare: u32,
}

impl Echoes {
    fn new(pair: Pair) -> Self {
        Self {
            socket: udp_socket(ECHO_PORT),
            lost: 0,
            spare: u32::from(pair.has_tayga()),
        }
    }

    /// Sends a datagram and expects it back.
    fn expect(&mut self, data: &[u8]) {
        while !comes_back(&self.socket, data) {
            self.lost += 1;
            let is_discovery = data.len() > FITS && self.lost == 1;
            if is_discovery {
                continue;
            }
            assert!(self.spare > 0, "no echo of {} bytes", data.len());
            self.spare -= 1;
            return;
        }
    }
}

/// Sends a datagram of [`pattern`]. Whether it comes back, within the socket's timeout and unchanged.
pub(crate) fn comes_back(socket: &UdpSocket, data: &[u8]) -> bool {
    let mut buffer = vec![0; 65_536];
    socket.send(data).unwrap();
    loop {
        match socket.recv(&mut buffer) {
            Ok(len) => {
                assert_eq!(buffer[..len], pattern(len));
                // Else it is an earlier one that was given up too soon.
                if len == data.len() {
                    return true;
                }
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error:?}");
                return false;
            }
        }
    }
}

pub(crate) fn set_option(socket: &UdpSocket, level: i32, name: i32, value: &[u8]) {
    let len = value.len() as libc::socklen_t;
    // SAFETY: `value` is valid for reads of the length that is passed.
    let set =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), len) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

pub(crate) fn udp_of_every_size(pair: Pair) {
    let running = Running::of(pair, "udp-sizes");
    running.network.host.run(move || {
        let mut echoes = Echoes::new(pair);
        for len in 0..=1472 {
            echoes.expect(&pattern(len));
        }
    });
    // What discovery takes.
    running.assert_nothing_lost(&["too-big"]);
}

/// Fragmented by the host, put together by the PLAT, and the same on the way back.
pub(crate) fn udp_of_8_kilobytes_is_fragmented_both_ways(pair: Pair) {
    let running = Running::of(pair, "udp-fragments");
    running.network.host.run(move || {
        let mut echoes = Echoes::new(pair);
        for len in [1473, 2000, 4000, 8192, 20_000, 65_000] {
            for _ in 0..5 {
                echoes.expect(&pattern(len));
            }
        }
    });
    running.assert_nothing_lost(&[]);
}

/// Without a checksum from the host, without one from the server, and from both. Tayga loses those
/// that it would have to compute one for.
pub(crate) fn udp_without_checksum(pair: Pair) {
    let running = Running::of(pair, "udp-zero");
    let passes = move |from_host: bool, from_server: bool| {
        let lost_on_the_way_out = from_host && pair.clat == Translator::Tayga;
        let lost_on_the_way_back = from_server && pair.plat == Translator::Tayga;
        !(lost_on_the_way_out || lost_on_the_way_back)
    };
    running.network.host.run(move || {
        for (port, from_server) in [(ECHO_PORT, false), (NO_CHECKSUM_PORT, true)] {
            for from_host in [false, true] {
                let socket = udp_socket(port);
                if from_host {
                    send_without_checksum(&socket);
                }
                expect_echoes(&socket, passes(from_host, from_server));
            }
        }
        // Fragmented on the way back: the PLAT computes it over the whole.
        let socket = udp_socket(NO_CHECKSUM_PORT);
        assert_eq!(comes_back(&socket, &pattern(8192)), passes(false, true));
    });
    running.assert_nothing_lost(&[]);
}

/// Sends datagrams of several sizes, of which all are to come back, or none.
fn expect_echoes(socket: &UdpSocket, all: bool) {
    let timeout = Duration::from_millis(if all { 3000 } else { 150 });
    socket.set_read_timeout(Some(timeout)).unwrap();
    for len in [0, 1, 8, 100, 1000, 1400] {
        assert_eq!(comes_back(socket, &pattern(len)), all, "{len} bytes");
    }
}

/// What is sent as one comes as many. In which order, nobody promises.
pub(crate) fn udp_with_segmentation_offload(pair: Pair) {
    const UDP_SEGMENT: i32 = 103;
    let running = Running::of(pair, "udp-gso");
    running.network.host.run(|| {
        for size in [100u16, 1000, 1400] {
            let socket = udp_socket(ECHO_PORT);
            let value = i32::from(size).to_ne_bytes();
            set_option(&socket, libc::SOL_UDP, UDP_SEGMENT, &value);
            let data = pattern(usize::from(size) * 10 + 7);
            socket.send(&data).unwrap();
            let mut expected: Vec<_> = data.chunks(size.into()).map(Vec::from).collect();
            let mut received: Vec<_> = expected.iter().map(|_| receive(&socket)).collect();
            expected.sort();
            received.sort();
            assert_eq!(received, expected);
        }
    });
    running.assert_nothing_lost(&[]);
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 2000];
    let len = socket.recv(&mut buffer).unwrap();
    buffer.truncate(len);
    buffer
}

pub(crate) fn ping_of_every_sort(pair: Pair) {
    let running = Running::of(pair, "ping");
    let host = &running.network.host;
    let pinged = host.must(&format!("ping -n -c 3 -i 0.2 -W 2 {SERVER}"));
    assert!(pinged.contains(" 0% packet loss"), "{pinged}");
    // Over the size that IPv6 takes for sure, with and without Don't Fragment, and fragmented.
    for (size, arguments) in [
        (0, ""),
        (1400, "-M dont"),
        (1400, "-M do"),
        (1444, "-M do"),
        (4000, "-M dont"),
    ] {
        let lost = size > 1232 && pings_are_lost(pair, arguments);
        let line = format!("ping -n -c 2 -i 0.2 -W 2 -s {size} {arguments} {SERVER}");
        let pinged = host.sh(&line);
        let expected = if lost {
            " 100% packet loss"
        } else {
            " 0% packet loss"
        };
        assert!(pinged.stdout.contains(expected), "{line}: {pinged:?}");
    }
    running.assert_nothing_lost(&[]);
}

/// An ICMP message cannot be translated in pieces. Tayga does, from IPv6, with wrong checksums. Our
/// CLAT makes pieces of a large request that allows it; our PLAT of every large answer, because
/// Linux answers without Don't Fragment.
pub(crate) fn pings_are_lost(pair: Pair, arguments: &str) -> bool {
    match pair {
        Pair::OURS => false,
        Pair::TAYGA_PLAT => arguments != "-M do",
        _ => true,
    }
}

/// Router alert over and over: 40 bytes that translation leaves out.
pub(crate) fn ipv4_options(pair: Pair) {
    let running = Running::of(pair, "options");
    running.network.host.run(move || {
        let mut echoes = Echoes::new(pair);
        let options = [148, 4, 0, 0].repeat(10);
        set_option(&echoes.socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &options);
        for len in [0, 1, 500, 1400] {
            echoes.expect(&pattern(len));
        }
    });
    running.assert_nothing_lost(&[]);
}

/// What may be fragmented at one end may be at the other, up to the size that IPv6 takes for sure.
/// Tayga forbids it whenever it writes IPv4.
pub(crate) fn permission_to_fragment(pair: Pair) {
    let running = Running::of(pair, "dont-fragment");
    let Network { host, server, .. } = &running.network;
    let at_server = server.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:5000").unwrap();
        allow_fragments(&socket);
        socket
    });
    for len in [1, 100, 1200] {
        let (arrived, came_back) = (server.run(RawUdp::new), host.run(RawUdp::new));
        let at_host = host.run(move || {
            let socket = udp_socket(5000);
            allow_fragments(&socket);
            socket.send(&pattern(len)).unwrap();
            socket
        });
        let mut buffer = vec![0; 2000];
        let (received, client) = at_server.recv_from(&mut buffer).unwrap();
        assert_eq!(buffer[..received], pattern(len));
        at_server.send_to(&buffer[..received], client).unwrap();
        assert_eq!(receive(&at_host), pattern(len));
        let forbidden = [arrived, came_back].map(|it| it.forbids_fragments());
        let by_tayga = [pair.plat, pair.clat].map(|it| it == Translator::Tayga);
        assert_eq!(forbidden, by_tayga, "{len} bytes");
    }
    running.assert_nothing_lost(&[]);
}

pub(crate) fn allow_fragments(socket: &UdpSocket) {
    let value = libc::IP_PMTUDISC_DONT.to_ne_bytes();
    set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &value);
}

/// Sees the IPv4 headers of datagrams that arrive from now on.
pub(crate) struct RawUdp(Socket);

impl RawUdp {
    pub(crate) fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        Self(socket)
    }

    /// Don't Fragment, of the first that has arrived.
    pub(crate) fn forbids_fragments(&self) -> bool {
        let mut buffer = [0; 2000];
        let len = (&self.0).read(&mut buffer).unwrap();
        let packet = Ipv4::new_embedded(&buffer[..len]).unwrap();
        packet.dont_fragment()
    }
}

pub(crate) fn port_unreachable_reaches_the_application(pair: Pair) {
    let running = Running::of(pair, "refused");
    running.network.host.run(|| {
        let socket = udp_socket(9);
        socket.send(b"anybody there?").unwrap();
        let mut buffer = [0; 100];
        let error = socket.recv(&mut buffer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let error = TcpStream::connect((SERVER, 9)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
    running.assert_nothing_lost(&[]);
}

pub(crate) fn thirty_two_flows_at_once(pair: Pair) {
    let running = Running::of(pair, "parallel");
    const LEN: u64 = 3_000_000;
    let responses = running.network.host.run(|| {
        let flows: Vec<_> = (0..32u64)
            .map(|n| {
                let len = LEN + n * 1013;
                let fetch = move || fetch(SERVER.into(), &format!("/bytes/{len}"));
                (len, thread::spawn(fetch))
            })
            .collect();
        flows
            .into_iter()
            .map(|(len, flow)| (len, flow.join().unwrap().unwrap()))
            .collect::<Vec<_>>()
    });
    for (len, response) in responses {
        assert_eq!((response.status, response.len), (200, len));
        assert_eq!(response.sha256, expected(len));
    }
    running.assert_nothing_lost(&[]);
}

/// Up, down, several at once, and UDP, of which nothing is sent again.
pub(crate) fn iperf3_both_ways(pair: Pair) {
    let running = Running::of(pair, "iperf");
    for arguments in ["-t 1", "-t 1 -R", "-t 1 -P 4"] {
        iperf3(&running.network, arguments);
    }
    // A machine that is busy with something else loses some before they come to a translator, but
    // not every time.
    let mut lost = (0..5).map(|_| {
        let report = iperf3(&running.network, "-t 1 -u -b 20M -l 1000");
        report["end"]["sum"]["lost_percent"].as_f64().unwrap()
    });
    assert!(lost.any(|percent| percent < 0.5));
    running.assert_nothing_lost(&[]);
}

pub(crate) fn iperf3(network: &Network, arguments: &str) -> serde_json::Value {
    let mut server = command("iperf3");
    server.args(["-s", "-1", "--forceflush"]);
    let daemon = Daemon::start(&network.server, "iperf3", server).unwrap();
    daemon.wait_for("listening", Duration::from_secs(3));
    let line = format!("iperf3 -c {SERVER} --json {arguments}");
    serde_json::from_str(&network.host.must(&line)).unwrap()
}

/// A slow, lossy, disorderly link: content is intact.
pub(crate) fn a_poor_link_only_makes_it_slower(pair: Pair) {
    let options = Options {
        impairment: Some(lab::impair::Impairment {
            loss: 10,
            duplicate: 10,
            reorder: 20,
            delay: Duration::from_millis(1),
            seed: 42,
            ..Default::default()
        }),
        ..Options::default()
    };
    let running = Running::with(pair, "poor-link", &options);
    const LEN: u64 = 3_000_000;
    let response = running
        .network
        .host
        .run(|| fetch(SERVER.into(), &format!("/bytes/{LEN}")))
        .unwrap();
    assert_eq!((response.status, response.len), (200, LEN));
    assert_eq!(response.sha256, expected(LEN));
    let echoed = running.network.host.run(|| echo_over_tcp(1_000_000));
    assert_eq!(echoed.unwrap(), (expected(1_000_000), 1_000_000));
    // Datagrams may be lost or come twice, but never changed. Fragments overtake each other.
    let received = running.network.host.run(|| {
        let socket = udp_socket(ECHO_PORT);
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let mut received = 0;
        let mut buffer = vec![0; 65_536];
        for n in 0..100usize {
            let data = pattern(1 + n * 80);
            socket.send(&data).unwrap();
            while let Ok(len) = socket.recv(&mut buffer) {
                assert_eq!(buffer[..len], pattern(len));
                received += 1;
                if len == data.len() {
                    break;
                }
            }
        }
        received
    });
    assert!(received > 60, "{received} of 100 datagrams");
}

/// The echo server talks back while it is still listening.
pub(crate) fn tcp_conversation(pair: Pair) {
    let running = Running::of(pair, "conversation");
    let host = &running.network.host;
    host.run(|| converse(200, Duration::from_secs(2)));
    running.assert_nothing_lost(&[]);
}

/// Says something to the echo server when it has answered what was said before, `times` times.
pub(crate) fn converse(times: u32, patience: Duration) {
    let mut stream = TcpStream::connect(ECHO).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    for n in 0..times {
        stream.write_all(&n.to_be_bytes()).unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(u32::from_be_bytes(answer), n);
    }
}
