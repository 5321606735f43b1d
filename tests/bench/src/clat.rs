//! `openclat-bench clat`: what translation costs on the host, beside native IPv6 from the same host
//! and beside tayga in our place.
//!
//! ```text
//!  host ─────────── server ─────────── peer
//!  clat   h0    s0          s1    p0   tayga
//! ```
//!
//! The server has the address 2001:db8:1:1::1 and, as if a NAT64 stood before it, the NAT64 prefix's
//! address of 198.51.100.10. Native traffic goes from the host to the first, the CLAT's to the
//! second, so that all that differs is the CLAT. Tayga has a host of its own, which is made the
//! same way.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use lab::{
    advertiser::{Advertisement, Advertiser},
    namespace::Namespace,
    process::{Daemon, command},
    scratch::Scratch,
    tayga::Tayga,
    topology::program,
    wiring::connect,
};

use crate::{
    load::{Direction, Path, SECONDS},
    process::{Syscalls, cpu_time},
    row::{Contender, Rounds, Row},
};

const NATIVE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 1);
const TRANSLATED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// As which the server answers for [`TRANSLATED`].
const TRANSLATED_AS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0xc633, 0x640a);
const PREF64: &str = "2001:db8:64::/96";
/// Tayga's host, as the server sees it.
const PEER: &str = "2001:db8:1:3::464";

const ROUNDS: usize = 5;

/// Takes a measurement of a name.
type Measure = Box<dyn Fn(&Bench, &str) -> io::Result<Vec<Row>>>;

/// Dropped in order: programs before the namespaces they run in.
pub(crate) struct Bench {
    clat: Daemon,
    tayga: Daemon,
    _iperf3: Daemon,
    _advertiser: Advertiser,
    host: Namespace,
    server: Namespace,
    peer: Namespace,
    directory: Scratch,
}

impl Bench {
    /// Builds the network and starts the programs.
    pub(crate) fn new() -> io::Result<Self> {
        let directory = Scratch::new("bench")?;
        let [host, server, peer] = ["host", "server", "peer"].map(Namespace::new);
        let (host, server, peer) = (host?, server?, peer?);
        for namespace in [&host, &server, &peer] {
            namespace.skip_dad();
        }
        connect((&host, "h0"), (&server, "s0"));
        server.forward();
        server.add_address("s0", "fe80::1/64");
        server.add_address("s0", &format!("{NATIVE}/64"));
        server.add_address("lo", &format!("{TRANSLATED_AS}/128"));
        let tayga = start_tayga(&peer, &server, directory.path())?;
        let advertiser = advertise(&server);
        let mut iperf3 = command("iperf3");
        iperf3.args(["-s", "--forceflush"]);
        let iperf3 = Daemon::start(&server, "iperf3", iperf3)?;
        iperf3.wait_for("listening", Duration::from_secs(5));
        let mut clat = command(program("clat"));
        clat.args(["run", "--state-dir"])
            .arg(directory.path().join("clat"));
        let clat = Daemon::start(&host, "clat", clat)?;
        clat.wait_for(" running: ", Duration::from_secs(10));
        Ok(Self {
            clat,
            tayga,
            _iperf3: iperf3,
            _advertiser: advertiser,
            host,
            server,
            peer,
            directory,
        })
    }

    /// Every measurement whose name contains `filter`; rows are handed over as soon as they are
    /// known.
    pub(crate) fn run(&self, filter: &str, mut row: impl FnMut(Row)) -> io::Result<()> {
        for (name, measure) in Self::measurements() {
            if name.contains(filter) {
                measure(self, &name)?.into_iter().for_each(&mut row);
            }
        }
        Ok(())
    }

    /// What is measured, in this order: the last ones change the links for good.
    fn measurements() -> Vec<(String, Measure)> {
        let mut all: Vec<(String, Measure)> = Vec::new();
        for direction in Direction::BOTH {
            let measure: Measure = Box::new(move |bench, name| bench.tcp(name, direction));
            all.push((format!("tcp {}", direction.name()), measure));
        }
        for direction in Direction::BOTH {
            let measure: Measure = Box::new(move |bench, name| bench.small_udp(name, direction));
            all.push((format!("small udp {}", direction.name()), measure));
        }
        let measure: Measure = Box::new(Self::added_round_trip);
        all.push(("round trip added".to_owned(), measure));
        for direction in Direction::BOTH {
            let measure: Measure = Box::new(move |bench, name| bench.cpu_per_gbit(name, direction));
            all.push((format!("tcp {}, CPU", direction.name()), measure));
        }
        for direction in Direction::BOTH {
            let measure: Measure =
                Box::new(move |bench, name| bench.cost_per_packet(name, direction));
            all.push((format!("small udp {}, cost", direction.name()), measure));
        }
        for direction in Direction::BOTH {
            let measure: Measure =
                Box::new(move |bench, name| bench.tcp_in_single_packets(name, direction));
            all.push((format!("tcp {}, single packets", direction.name()), measure));
        }
        all
    }

    fn tcp(&self, name: &str, direction: Direction) -> io::Result<Vec<Row>> {
        let rounds = self.rounds(|path| path.tcp(direction))?;
        let row = rounds.row(name, "Gbit/s");
        Ok(vec![row.with_targets(0.65, Some(8.0))])
    }

    fn small_udp(&self, name: &str, direction: Direction) -> io::Result<Vec<Row>> {
        let rounds = self.rounds(|path| Ok(path.small_udp(direction)? / 1000.0))?;
        Ok(vec![rounds.row(name, "kpps").with_targets(0.5, Some(1.5))])
    }

    fn tcp_in_single_packets(&self, name: &str, direction: Direction) -> io::Result<Vec<Row>> {
        self.single_packets(direction);
        let rounds = self.rounds(|path| path.tcp(direction))?;
        Ok(vec![rounds.row(name, "Gbit/s").with_targets(0.9, None)])
    }

    fn path(&self, contender: Contender) -> Path<'_> {
        let (client, to, known_as): (_, IpAddr, _) = match contender {
            // Nobody masquerades here.
            Contender::Native | Contender::Masquerade => (&self.host, NATIVE.into(), NATIVE),
            Contender::Ours => (&self.host, TRANSLATED.into(), TRANSLATED_AS),
            Contender::Peer => (&self.peer, TRANSLATED.into(), TRANSLATED_AS),
        };
        Path {
            client,
            server: &self.server,
            to,
            known_as: known_as.into(),
        }
    }

    /// Interleaved rounds of all contenders.
    fn rounds(&self, measure: impl Fn(Path<'_>) -> io::Result<f64>) -> io::Result<Rounds> {
        let mut rounds = Rounds::default();
        for _ in 0..ROUNDS {
            for contender in Contender::OF_CLAT {
                rounds.push(contender, measure(self.path(contender))?);
            }
        }
        Ok(rounds)
    }

    /// How much longer an echo takes than without translation.
    fn added_round_trip(&self, name: &str) -> io::Result<Vec<Row>> {
        let mut rounds = Rounds::default();
        for _ in 0..ROUNDS {
            let native = self.path(Contender::Native).round_trip()?;
            for contender in [Contender::Ours, Contender::Peer] {
                let added = self.path(contender).round_trip()? - native;
                rounds.push(contender, added);
            }
        }
        let row = rounds.row(name, "us");
        Ok(vec![row.with_targets(60.0, None)])
    }

    fn pid(&self, contender: Contender) -> u32 {
        match contender {
            Contender::Peer => self.tayga.pid(),
            Contender::Ours | Contender::Native | Contender::Masquerade => self.clat.pid(),
        }
    }

    /// CPU time of the translator's own process for a gigabit of TCP.
    fn cpu_per_gbit(&self, name: &str, direction: Direction) -> io::Result<Vec<Row>> {
        // One more second is left out at the start, but not of the CPU time.
        let seconds = (SECONDS + 1) as f64;
        let mut rounds = Rounds::default();
        for _ in 0..ROUNDS {
            for contender in [Contender::Ours, Contender::Peer] {
                let pid = self.pid(contender);
                let before = cpu_time(pid)?;
                let gbits = self.path(contender).tcp(direction)? * seconds;
                let used = cpu_time(pid)?.saturating_sub(before);
                rounds.push(contender, used.as_secs_f64() / gbits);
            }
        }
        Ok(vec![rounds.row(name, "s/Gbit")])
    }

    /// What one small datagram costs the translator's own process under load.
    fn cost_per_packet(&self, name: &str, direction: Direction) -> io::Result<Vec<Row>> {
        let (mut time, mut calls) = (Rounds::default(), Rounds::default());
        for _ in 0..ROUNDS {
            for contender in [Contender::Ours, Contender::Peer] {
                let pid = self.pid(contender);
                let counter = Syscalls::count(pid, self.directory.path());
                let before = cpu_time(pid)?;
                let start = std::time::Instant::now();
                let rate = self.path(contender).small_udp(direction)?;
                let packets = rate * start.elapsed().as_secs_f64();
                let used = cpu_time(pid)?.saturating_sub(before);
                time.push(contender, used.as_secs_f64() * 1e9 / packets);
                if let Some(count) = counter.and_then(Syscalls::stop) {
                    calls.push(contender, count / packets);
                }
            }
        }
        Ok(vec![
            time.row(name, "ns/packet"),
            calls.row(name, "syscalls/packet"),
        ])
    }

    /// From now on, what goes in `direction` are single packets on the wire, which the receiver
    /// puts together (GRO).
    fn single_packets(&self, direction: Direction) {
        let ends = [(&self.host, "h0"), (&self.server, "s0")];
        let peer_ends = [(&self.peer, "p0"), (&self.server, "s1")];
        for [host, server] in [ends, peer_ends] {
            let (sender, receiver) = match direction {
                Direction::Out => (host, server),
                Direction::In => (server, host),
            };
            let (namespace, interface) = sender;
            namespace.must(&format!(
                "ethtool -K {interface} tso off gso off gro off tx-udp-segmentation off"
            ));
            let (namespace, interface) = receiver;
            namespace.must(&format!("ethtool -K {interface} gro on"));
        }
    }
}

fn start_tayga(
    peer: &Namespace,
    server: &Namespace,
    directory: &std::path::Path,
) -> io::Result<Daemon> {
    connect((peer, "p0"), (server, "s1"));
    server.add_address("s1", "fe80::1/64");
    peer.add_address("p0", "fe80::2/64");
    peer.forward();
    let tayga = Tayga {
        interface: "clat",
        own: ("192.0.0.2", "2001:db8:1:3::2"),
        prefix: PREF64,
        maps: &[("192.0.0.1", PEER)],
    };
    let daemon = tayga.start(peer, directory)?;
    peer.set_mtu("clat", 1472);
    peer.add_address("clat", "192.0.0.1/32");
    peer.must("ip route add default dev clat src 192.0.0.1");
    peer.must(&format!("ip -6 route add {PEER}/128 dev clat"));
    peer.add_route("::/0", "fe80::1", "p0");
    server.add_route("2001:db8:1:3::/64", "fe80::2", "s1");
    Ok(daemon)
}

fn advertise(server: &Namespace) -> Advertiser {
    let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let network = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 0);
    let advertisement = Advertisement::new(source, network).with_pref64(PREF64);
    Advertiser::start(server, "s0", advertisement)
}
