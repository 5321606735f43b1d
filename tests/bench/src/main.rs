//! `openclat-bench clat`: what translation costs beside native IPv6 from the same host.
//!
//! ```text
//!  host ─────────── server
//!       one cable, default offloads
//! ```
//!
//! The server has the address 2001:db8:1:1::1 and, as if a NAT64 stood before it, the NAT64 prefix's
//! address of 198.51.100.10. Native traffic goes to the first, the CLAT's to the second, so that
//! all that differs is the CLAT. Rounds are interleaved; the figures are medians.

use std::{
    env, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use lab::{
    advertiser::{Advertisement, Advertiser},
    namespace::Namespace,
    process::{Daemon, command},
    topology::program,
    wiring::connect,
};
use serde::Serialize;

const NATIVE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 1);
const TRANSLATED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// As which the server answers for [`TRANSLATED`].
const TRANSLATED_AS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0xc633, 0x640a);
const UDP_PORT: u16 = 9000;
const ROUNDS: usize = 5;
const SECONDS: u64 = 2;
const WARM_UP: Duration = Duration::from_millis(300);
/// Payload of a small datagram.
const SMALL: usize = 64;

/// One line of the result.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    ours: f64,
    native: f64,
    /// Nobody else was measured yet.
    peer: Option<f64>,
    unit: &'static str,
    ratio: f64,
    /// The ratio to reach.
    target: f64,
    /// Smallest and largest of our rounds, as ratios to the median of native.
    spread: [f64; 2],
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let json = arguments.iter().any(|it| it == "--json");
    if arguments.first().map(String::as_str) != Some("clat") {
        eprintln!("usage: openclat-bench clat [--json]");
        return ExitCode::from(2);
    }
    let result = Bench::new().and_then(|bench| bench.run(|row| print(&row, json)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            eprintln!("error: the benchmark makes network namespaces; run it as root ({error})");
            ExitCode::from(5)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print(row: &Row, json: bool) {
    if json {
        println!("{}", serde_json::to_string(row).unwrap_or_default());
        return;
    }
    println!(
        "{:<14} {:>8.2} {:<6}  native {:>8.2}  ratio {:.2} (to reach: {}), rounds {:.2} to {:.2}",
        row.name,
        row.ours,
        row.unit,
        row.native,
        row.ratio,
        row.target,
        row.spread[0],
        row.spread[1]
    );
}

/// Dropped in order: programs before the namespaces they run in.
struct Bench {
    _clat: Daemon,
    _iperf3: Daemon,
    _advertiser: Advertiser,
    host: Namespace,
    server: Arc<Namespace>,
}

impl Bench {
    fn new() -> io::Result<Self> {
        let (host, server) = (Namespace::new("host")?, Namespace::new("server")?);
        host.skip_dad();
        server.skip_dad();
        connect((&host, "h0"), (&server, "s0"));
        server.forward();
        server.add_address("s0", "fe80::1/64");
        server.add_address("s0", &format!("{NATIVE}/64"));
        server.add_address("lo", &format!("{TRANSLATED_AS}/128"));
        let advertisement = Advertisement::new(
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 0),
        );
        let advertisement = advertisement.with_pref64("2001:db8:64::/96");
        let advertiser = Advertiser::start(&server, "s0", advertisement);
        let mut iperf3 = command("iperf3");
        iperf3.args(["-s", "--forceflush"]);
        let iperf3 = Daemon::start(&server, "iperf3", iperf3)?;
        iperf3.wait_for("listening", Duration::from_secs(5));
        let mut clat = command(program("clat"));
        let state = format!("/tmp/openclat-bench-{}", std::process::id());
        clat.args(["run", "--state-dir", &state]);
        let clat = Daemon::start(&host, "clat", clat)?;
        clat.wait_for(" running: ", Duration::from_secs(10));
        Ok(Self {
            _clat: clat,
            _iperf3: iperf3,
            _advertiser: advertiser,
            host,
            server: Arc::new(server),
        })
    }

    /// Every row, handed over as soon as it is known.
    fn run(&self, mut row: impl FnMut(Row)) -> io::Result<()> {
        let udp_out = |to| self.small_udp(to, Direction::Out);
        let udp_in = |to| self.small_udp(to, Direction::In);
        row(compare("tcp out", "Gbit/s", 0.65, |to| {
            self.iperf3(to, "")
        })?);
        row(compare("tcp in", "Gbit/s", 0.65, |to| {
            self.iperf3(to, "-R")
        })?);
        row(compare("small udp out", "kpps", 0.5, udp_out)?);
        row(compare("small udp in", "kpps", 0.5, udp_in)?);
        Ok(())
    }

    /// Throughput in Gbit/s.
    fn iperf3(&self, to: IpAddr, arguments: &str) -> io::Result<f64> {
        let line = format!("iperf3 -J -c {to} -t {SECONDS} -O 1 {arguments}");
        let report: serde_json::Value = serde_json::from_str(&self.host.must(&line))?;
        let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
        let bits = bits.ok_or_else(|| io::Error::other(format!("no throughput in {report}")))?;
        Ok(bits / 1e9)
    }

    /// Thousands of small datagrams per second that arrive, of as many as can be sent.
    fn small_udp(&self, to: IpAddr, direction: Direction) -> io::Result<f64> {
        let (client, server) = self.udp_pair(to)?;
        match direction {
            Direction::Out => flood(&client, &server),
            Direction::In => flood(&server, &client),
        }
    }

    /// Two sockets connected to each other, on the host and on the server.
    ///
    /// The server's is bound to the address in question: from `[::]` it would answer from its
    /// native address, whatever it was spoken to as.
    fn udp_pair(&self, to: IpAddr) -> io::Result<(UdpSocket, UdpSocket)> {
        let (any, seen_as): (IpAddr, Ipv6Addr) = match to {
            IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), TRANSLATED_AS),
            IpAddr::V6(to) => (Ipv6Addr::UNSPECIFIED.into(), to),
        };
        let server = self
            .server
            .run(move || UdpSocket::bind((seen_as, UDP_PORT)))?;
        server.set_read_timeout(Some(Duration::from_secs(2)))?;
        let client = self.host.run(move || UdpSocket::bind((any, 0)))?;
        client.connect((to, UDP_PORT))?;
        client.send(b"hello")?;
        let (_, from) = server.recv_from(&mut [0; 16])?;
        server.connect(from)?;
        Ok((client, server))
    }
}

/// Which way the datagrams of a measurement go, seen from the host.
#[derive(Debug, Clone, Copy)]
enum Direction {
    Out,
    In,
}

/// Sends as fast as possible for a while; thousands per second that arrive.
fn flood(sender: &UdpSocket, receiver: &UdpSocket) -> io::Result<f64> {
    receiver.set_read_timeout(Some(Duration::from_millis(200)))?;
    let stop = AtomicBool::new(false);
    let received = thread::scope(|scope| {
        scope.spawn(|| {
            let data = [7; SMALL];
            while !stop.load(Ordering::Relaxed) {
                // A full queue is what this is about, not an error.
                let _ = sender.send(&data);
            }
        });
        count(receiver, WARM_UP);
        let received = count(receiver, Duration::from_secs(SECONDS));
        stop.store(true, Ordering::Relaxed);
        received
    });
    Ok(f64::from(received) / SECONDS as f64 / 1000.0)
}

/// How many datagrams arrive within a time.
fn count(receiver: &UdpSocket, during: Duration) -> u32 {
    let end = Instant::now() + during;
    let mut received = 0;
    while Instant::now() < end {
        received += u32::from(receiver.recv(&mut [0; 2000]).is_ok());
    }
    received
}

/// Interleaved rounds of ours and native.
fn compare(
    name: &str,
    unit: &'static str,
    target: f64,
    measure: impl Fn(IpAddr) -> io::Result<f64>,
) -> io::Result<Row> {
    let (mut ours, mut native) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        native.push(measure(NATIVE.into())?);
        ours.push(measure(TRANSLATED.into())?);
    }
    let median_native = median(&mut native);
    let median_ours = median(&mut ours);
    let ratio = |value: f64| value / median_native.max(f64::MIN_POSITIVE);
    Ok(Row {
        name: name.to_owned(),
        ours: median_ours,
        native: median_native,
        peer: None,
        unit,
        ratio: ratio(median_ours),
        target,
        spread: [
            ratio(ours.first().copied().unwrap_or_default()),
            ratio(ours.last().copied().unwrap_or_default()),
        ],
    })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
