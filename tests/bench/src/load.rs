//! Load: TCP by iperf3, small datagrams and round trips by sockets of our own.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use lab::namespace::Namespace;
use socket2::SockRef;

use crate::row::median;

/// How long one figure is measured.
pub(crate) const SECONDS: u64 = 2;

const WARM_UP: Duration = Duration::from_millis(300);

/// Payload of a small datagram.
const SMALL: usize = 64;

const UDP_PORT: u16 = 9000;

const HELLO: &[u8] = b"hello";

/// Which way the load goes, seen from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Out,
    In,
}

impl Direction {
    pub(crate) const BOTH: [Self; 2] = [Self::Out, Self::In];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
        }
    }
}

/// A client that speaks to a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'a> {
    /// Where the client runs.
    pub(crate) client: &'a Namespace,
    /// Where the server runs.
    pub(crate) server: &'a Namespace,
    /// The server's address to the client.
    pub(crate) to: IpAddr,
    /// The server's address to itself.
    pub(crate) known_as: IpAddr,
}

impl Path<'_> {
    /// TCP throughput of one connection in Gbit/s, as it arrives. One more second is left out at
    /// the start.
    pub(crate) fn tcp(&self, direction: Direction) -> io::Result<f64> {
        self.iperf3(direction, "-O 1")
    }

    /// TCP throughput of several connections together, their start included.
    pub(crate) fn tcp_streams(&self, direction: Direction, streams: u32) -> io::Result<f64> {
        self.iperf3(direction, &format!("-P {streams}"))
    }

    fn iperf3(&self, direction: Direction, more: &str) -> io::Result<f64> {
        let reverse = match direction {
            Direction::Out => "",
            Direction::In => "-R",
        };
        let line = format!("iperf3 -J -c {} -t {SECONDS} {more} {reverse}", self.to);
        let mut said = String::new();
        // The server may still be busy with the end of the test before.
        for _ in 0..20 {
            said = self.client.sh(&line).stdout;
            let report: serde_json::Value = serde_json::from_str(&said)?;
            if let Some(bits) = report["end"]["sum_received"]["bits_per_second"].as_f64() {
                return Ok(bits / 1e9);
            }
            thread::sleep(Duration::from_millis(200));
        }
        Err(io::Error::other(format!("no throughput in {said}")))
    }

    /// Small datagrams per second that arrive, of as many as can be sent.
    pub(crate) fn small_udp(&self, direction: Direction) -> io::Result<f64> {
        self.udp(direction, SMALL, Duration::from_secs(SECONDS))
    }

    /// Datagrams with so much payload per second that arrive, of as many as can be sent.
    pub(crate) fn udp(
        &self,
        direction: Direction,
        payload: usize,
        during: Duration,
    ) -> io::Result<f64> {
        let (client, server) = self.udp_pair()?;
        match direction {
            Direction::Out => flood(&client, &server, payload, during),
            Direction::In => flood(&server, &client, payload, during),
        }
    }

    /// The median time that a small datagram and its echo take, in microseconds.
    pub(crate) fn round_trip(&self) -> io::Result<f64> {
        let times = self.round_trips()?;
        median(&times).ok_or_else(|| io::Error::other("no echo came back"))
    }

    /// The times that small datagrams and their echoes take, in microseconds.
    pub(crate) fn round_trips(&self) -> io::Result<Vec<f64>> {
        let (client, server) = self.udp_pair()?;
        let stop = AtomicBool::new(false);
        let patience = Some(Duration::from_millis(100));
        client.set_read_timeout(patience)?;
        server.set_read_timeout(patience)?;
        let times = thread::scope(|scope| {
            scope.spawn(|| {
                let mut buffer = [0; SMALL];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(len) = server.recv(&mut buffer) {
                        let _ = server.send(&buffer[..len]);
                    }
                }
            });
            let times = echoes(&client, Duration::from_secs(1));
            stop.store(true, Ordering::Relaxed);
            times
        });
        Ok(times)
    }

    /// Two sockets connected to each other.
    ///
    /// The server's is bound to the address in question: from `[::]` it would answer from its
    /// native address, whatever it was spoken to as.
    fn udp_pair(&self) -> io::Result<(UdpSocket, UdpSocket)> {
        let any: IpAddr = match self.to {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let known_as = SocketAddr::from((self.known_as, UDP_PORT));
        let server = self.server.run(move || UdpSocket::bind(known_as))?;
        let client = self.client.run(move || UdpSocket::bind((any, 0)))?;
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            SockRef::from(socket).set_recv_buffer_size(4 << 20)?;
        }
        client.connect((self.to, UDP_PORT))?;
        client.send(HELLO)?;
        server.connect(hear_hello(&server)?)?;
        Ok((client, server))
    }
}

/// From where a greeting comes. The last datagrams of the flood before may still be on their way,
/// from another client.
fn hear_hello(server: &UdpSocket) -> io::Result<SocketAddr> {
    let mut buffer = [0; SMALL];
    loop {
        let (len, from) = server.recv_from(&mut buffer)?;
        if buffer[..len] == *HELLO {
            return Ok(from);
        }
    }
}

/// Sends and waits for the echo, again and again; microseconds.
fn echoes(client: &UdpSocket, during: Duration) -> Vec<f64> {
    let end = Instant::now() + during;
    let mut times = Vec::new();
    let mut number = 0u64;
    let mut buffer = [0; SMALL];
    while Instant::now() < end {
        number += 1;
        let mut data = [0; SMALL];
        data[..8].copy_from_slice(&number.to_be_bytes());
        let sent = Instant::now();
        let _ = client.send(&data);
        // A late echo of an earlier one is not this one's.
        while client.recv(&mut buffer).is_ok() {
            if buffer[..8] == data[..8] {
                times.push(sent.elapsed().as_secs_f64() * 1e6);
                break;
            }
        }
    }
    times
}

/// Sends as fast as possible for a while; how many arrive per second.
fn flood(
    sender: &UdpSocket,
    receiver: &UdpSocket,
    payload: usize,
    during: Duration,
) -> io::Result<f64> {
    receiver.set_read_timeout(Some(Duration::from_millis(200)))?;
    let stop = AtomicBool::new(false);
    let received = AtomicU64::new(0);
    let rate = thread::scope(|scope| {
        scope.spawn(|| {
            let data = vec![7; payload];
            while !stop.load(Ordering::Relaxed) {
                // A full queue is what this is about, not an error.
                let _ = sender.send(&data);
            }
        });
        scope.spawn(|| {
            let mut buffer = [0; 2000];
            while !stop.load(Ordering::Relaxed) {
                if receiver.recv(&mut buffer).is_ok() {
                    received.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        thread::sleep(WARM_UP);
        let (start, before) = (Instant::now(), received.load(Ordering::Relaxed));
        thread::sleep(during);
        let count = received.load(Ordering::Relaxed) - before;
        let rate = count as f64 / start.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        rate
    });
    Ok(rate)
}
