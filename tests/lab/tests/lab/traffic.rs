//! Every kind of traffic through CLAT and PLAT, content compared.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpStream, UdpSocket},
    os::fd::AsRawFd,
    thread,
    time::Duration,
};

use lab::{
    process::{Daemon, command},
    servers::{ECHO, HELLO, Pattern, echo_over_tcp, fetch, send_without_checksum, sha256},
    topology::{NO_CHECKSUM_PORT, Options, SERVER},
};

use crate::Running;

/// What `/bytes/N` should hash to.
fn expected(len: u64) -> String {
    sha256(Pattern::default().take(len)).unwrap().0
}

/// Downloads and uploads, and compares what arrives.
fn tcp_both_ways(test: &str, options: &Options) {
    let running = Running::with(test, options);
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
}

#[test]
fn tcp_both_ways_with_offloads() {
    tcp_both_ways("tcp-offloads", &Options::default());
}

#[test]
fn tcp_both_ways_without_offloads() {
    let options = Options {
        offloads: false,
        ..Options::default()
    };
    tcp_both_ways("tcp-plain", &options);
}

#[test]
fn curl_reaches_an_ipv4_literal() {
    let running = Running::new("curl");
    let host = &running.network.host;
    assert_eq!(
        host.must(&format!("curl -sS -m 5 http://{SERVER}/hello")),
        HELLO
    );
    // To the server the client is one of the pool.
    let seen = host.must(&format!("curl -sS -m 5 http://{SERVER}/address"));
    assert!(seen.starts_with("203.0.113."), "{seen}");
}

fn udp_socket(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect((SERVER, port)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    socket
}

fn pattern(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Pattern::default().read_exact(&mut bytes).unwrap();
    bytes
}

/// Sends a datagram and expects it back. A first one may be lost to path MTU discovery: the server
/// sends with DF set until it is told the size that fits.
fn echo(socket: &UdpSocket, data: &[u8]) {
    let mut buffer = vec![0; 65_536];
    let answered = (0..2).any(|_| {
        socket.send(data).unwrap();
        match socket.recv(&mut buffer) {
            Ok(len) => {
                assert_eq!(&buffer[..len], data);
                true
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                false
            }
        }
    });
    assert!(answered, "no echo of {} bytes", data.len());
}

#[test]
fn udp_of_every_size() {
    let running = Running::new("udp-sizes");
    running.network.host.run(|| {
        let socket = udp_socket(7);
        for len in 0..=1472 {
            echo(&socket, &pattern(len));
        }
    });
}

/// Fragmented by the host, put together by the PLAT, and the same on the way back.
#[test]
fn udp_of_8_kilobytes_is_fragmented_both_ways() {
    let running = Running::new("udp-fragments");
    running.network.host.run(|| {
        let socket = udp_socket(7);
        for len in [1473, 2000, 4000, 8192, 20_000, 65_000] {
            for _ in 0..5 {
                echo(&socket, &pattern(len));
            }
        }
    });
}

/// Without a checksum from the host, without one from the server, and from both.
#[test]
fn udp_without_checksum() {
    let running = Running::new("udp-zero");
    running.network.host.run(|| {
        for port in [7, NO_CHECKSUM_PORT] {
            for without in [false, true] {
                let socket = udp_socket(port);
                if without {
                    send_without_checksum(&socket);
                }
                for len in [0, 1, 8, 100, 1000, 1400] {
                    echo(&socket, &pattern(len));
                }
            }
        }
        // Fragmented on the way back: the PLAT computes it over the whole.
        let socket = udp_socket(NO_CHECKSUM_PORT);
        echo(&socket, &pattern(8192));
    });
}

#[test]
fn udp_with_segmentation_offload() {
    const UDP_SEGMENT: i32 = 103;
    let running = Running::new("udp-gso");
    running.network.host.run(|| {
        for size in [100u16, 1000, 1400] {
            let socket = udp_socket(7);
            let value = i32::from(size);
            // SAFETY: `value` is valid for reads of its own size.
            let set = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_UDP,
                    UDP_SEGMENT,
                    std::ptr::from_ref(&value).cast(),
                    4,
                )
            };
            assert_eq!(set, 0);
            let data = pattern(usize::from(size) * 10 + 7);
            socket.send(&data).unwrap();
            let mut received = Vec::new();
            let mut buffer = [0; 2000];
            while received.len() < data.len() {
                let len = socket.recv(&mut buffer).unwrap();
                received.extend_from_slice(&buffer[..len]);
            }
            assert_eq!(received, data);
        }
    });
}

#[test]
fn ping_of_every_sort() {
    let running = Running::new("ping");
    let host = &running.network.host;
    let pinged = host.must(&format!("ping -n -c 3 -i 0.2 -W 2 {SERVER}"));
    assert!(pinged.contains(" 0% packet loss"), "{pinged}");
    // Over the size that IPv6 takes for sure, with and without Don't Fragment, and fragmented.
    for arguments in [
        "-s 1400 -M dont",
        "-s 1400 -M do",
        "-s 0",
        "-s 1444 -M do",
        "-s 4000 -M dont",
    ] {
        let pinged = host.must(&format!("ping -n -c 2 -i 0.2 -W 2 {arguments} {SERVER}"));
        assert!(pinged.contains(" 0% packet loss"), "{arguments}: {pinged}");
    }
}

/// Router alert over and over: 40 bytes that translation leaves out.
#[test]
fn ipv4_options() {
    let running = Running::new("options");
    running.network.host.run(|| {
        let socket = udp_socket(7);
        let options: Vec<u8> = [148, 4, 0, 0].repeat(10);
        // SAFETY: `options` is valid for reads of the length that is passed.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_IP,
                libc::IP_OPTIONS,
                options.as_ptr().cast(),
                40,
            )
        };
        assert_eq!(set, 0);
        for len in [0, 1, 500, 1400] {
            echo(&socket, &pattern(len));
        }
    });
}

#[test]
fn port_unreachable_reaches_the_application() {
    let running = Running::new("refused");
    running.network.host.run(|| {
        let socket = udp_socket(9);
        socket.send(b"anybody there?").unwrap();
        let mut buffer = [0; 100];
        let error = socket.recv(&mut buffer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let error = TcpStream::connect((SERVER, 9)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn thirty_two_flows_at_once() {
    let running = Running::new("parallel");
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
}

#[test]
fn iperf3_both_ways() {
    let running = Running::new("iperf");
    for arguments in ["-t 1", "-t 1 -R", "-t 1 -P 4", "-t 1 -u -b 50M -l 1000"] {
        let mut server = command("iperf3");
        server.args(["-s", "-1", "--forceflush"]);
        let daemon = Daemon::start(&running.network.server, "iperf3", server).unwrap();
        daemon.wait_for("listening", Duration::from_secs(3));
        running
            .network
            .host
            .must(&format!("iperf3 -c {SERVER} {arguments}"));
    }
}

/// A slow, lossy, disorderly link: content is intact.
#[test]
fn a_poor_link_only_makes_it_slower() {
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
    let running = Running::with("poor-link", &options);
    const LEN: u64 = 3_000_000;
    let response = running
        .network
        .host
        .run(|| fetch(SERVER.into(), &format!("/bytes/{LEN}")))
        .unwrap();
    assert_eq!((response.status, response.len), (200, LEN));
    assert_eq!(response.sha256, expected(LEN));
    // Datagrams may be lost or come twice, but never changed. Fragments overtake each other.
    let received = running.network.host.run(|| {
        let socket = udp_socket(7);
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
#[test]
fn tcp_conversation() {
    let running = Running::new("conversation");
    running.network.host.run(|| {
        let mut stream = TcpStream::connect(ECHO).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        for n in 0..200u32 {
            stream.write_all(&n.to_be_bytes()).unwrap();
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(u32::from_be_bytes(answer), n);
        }
    });
}
