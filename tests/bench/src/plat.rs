//! `openclat-bench plat`: what a stateful NAT64 costs, beside the kernel's masquerade, native IPv6
//! and tayga with the kernel's masquerade behind it.
//!
//! ```text
//!          ┌── plat ─────────────────────┐
//!  client ─┼── IPv6 router ──────────────┼─ server
//!          ├── IPv4 router, masquerade ──┤
//!          └── tayga, masquerade ────────┘
//! ```
//!
//! Each contender has a host of its own in the middle, which is made the same way, with a network to
//! the client (`N` is its number: 2001:db8:N:1::/64, 10.N.1.0/24) and one to the server
//! (2001:db8:N:2::/64, 198.51.10N.0/24). So what the client speaks to decides who is measured.

use std::{
    cell::Cell,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use lab::{
    namespace::Namespace,
    process::{Daemon, command},
    scratch::Scratch,
    tayga::Tayga,
    topology::program,
    wiring::connect,
};

use crate::{
    connections::{self, Server, Sources},
    load::{Direction, Path, SECONDS},
    process::{Syscalls, cpu_time},
    row::{Contender, Rounds, Row, median, p99},
    tables,
};

const ROUNDS: usize = 3;

/// How long datagrams are counted, and connections made.
const SHORT: Duration = Duration::from_secs(1);

/// Of the contender with this number.
fn number(contender: Contender) -> u8 {
    match contender {
        Contender::Ours => 0,
        Contender::Native => 1,
        Contender::Masquerade => 2,
        Contender::Peer => 3,
    }
}

/// The prefix of a translator.
fn pref64(contender: Contender) -> String {
    format!("2001:db8:640{}::/96", number(contender))
}

/// The server's IPv4 address on the network of a contender.
fn server4(contender: Contender) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100 + number(contender), 10)
}

fn server6(contender: Contender) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, number(contender).into(), 2, 0, 0, 0, 10)
}

/// What the client calls the server.
fn target(contender: Contender) -> IpAddr {
    match contender {
        Contender::Native => server6(contender).into(),
        Contender::Masquerade => server4(contender).into(),
        Contender::Ours | Contender::Peer => {
            let [a, b, c, d] = server4(contender).octets();
            let prefix = 0x6400 + u16::from(number(contender));
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            Ipv6Addr::new(0x2001, 0xdb8, prefix, 0, 0, 0, high, low).into()
        }
    }
}

/// A client's address number so and so: a network each, so that nobody's share is used up.
fn subscriber(n: u8) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xc000, n.into(), 0, 0, 0, 1).into()
}

/// Addresses in one network, which tayga maps as a whole.
fn neighbour(n: u8) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xc003, 0, 0, 0, 0, n.into()).into()
}

fn private(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, n).into()
}

/// Takes a measurement of a name.
type Measure = Box<dyn Fn(&Bench, &str) -> io::Result<Vec<Row>>>;

/// Every measurement whose name contains `filter`; rows are handed over as soon as they are known.
///
/// # Errors
/// If something could not be measured.
pub(crate) fn run(filter: &str, mut row: impl FnMut(Row)) -> io::Result<()> {
    let wanted: Vec<_> = measurements()
        .into_iter()
        .filter(|(name, _)| name.contains(filter))
        .collect();
    if !wanted.is_empty() {
        let bench = Bench::new()?;
        for (name, measure) in wanted {
            measure(&bench, &name)?.into_iter().for_each(&mut row);
        }
    }
    if TABLES.contains(filter) || filter.starts_with(TABLES) {
        table_rows()?.into_iter().for_each(row);
    }
    Ok(())
}

const TABLES: &str = "tables";

/// What is measured on the network, in this order.
fn measurements() -> Vec<(String, Measure)> {
    let mut all: Vec<(String, Measure)> = Vec::new();
    for streams in [1, 4, 32] {
        for direction in Direction::BOTH {
            let measure: Measure = Box::new(move |bench, name| bench.tcp(name, direction, streams));
            all.push((format!("tcp x{streams} {}", direction.name()), measure));
        }
    }
    for payload in [64, 512, 1400] {
        for direction in Direction::BOTH {
            let measure: Measure = Box::new(move |bench, name| bench.udp(name, direction, payload));
            all.push((format!("udp {payload} {}", direction.name()), measure));
        }
    }
    all.push(("round trip".to_owned(), Box::new(Bench::round_trip)));
    all.push(("connections".to_owned(), Box::new(Bench::connections)));
    for direction in Direction::BOTH {
        let measure: Measure = Box::new(move |bench, name| bench.cost(name, direction));
        all.push((format!("cost udp 64 {}", direction.name()), measure));
    }
    all
}

/// Dropped in order: programs before the namespaces they run in.
struct Bench {
    plat: Daemon,
    tayga: Daemon,
    _iperf3: Daemon,
    client: Namespace,
    server: Namespace,
    _middles: Vec<Namespace>,
    directory: Scratch,
    /// How many connections the client has made already.
    connections: Cell<u64>,
}

impl Bench {
    fn new() -> io::Result<Self> {
        let directory = Scratch::new("bench-plat")?;
        let (client, server) = (Namespace::new("client")?, Namespace::new("server")?);
        for namespace in [&client, &server] {
            namespace.skip_dad();
        }
        many_addresses(&client);
        let ours = middle(&client, &server, Contender::Ours)?;
        let native = middle(&client, &server, Contender::Native)?;
        let masquerade = middle(&client, &server, Contender::Masquerade)?;
        let peer = middle(&client, &server, Contender::Peer)?;
        masquerade_behind(&masquerade);
        masquerade_behind(&peer);
        let tayga = start_tayga(&peer, directory.path())?;
        let plat = start_plat(&ours, directory.path())?;
        // The pool, and so that native answers find the client.
        let gateway = format!("198.51.10{}.1", number(Contender::Ours));
        server.add_route("203.0.113.0/26", &gateway, "s0");
        let gateway = format!("2001:db8:{}:2::1", number(Contender::Native));
        server.add_route("2001:db8:c000::/36", &gateway, "s1");
        server.add_route("2001:db8:1:1::/64", &gateway, "s1");
        let mut iperf3 = command("iperf3");
        iperf3.args(["-s", "--forceflush"]);
        let iperf3 = Daemon::start(&server, "iperf3", iperf3)?;
        iperf3.wait_for("listening", Duration::from_secs(5));
        Ok(Self {
            plat,
            tayga,
            _iperf3: iperf3,
            client,
            server,
            _middles: vec![ours, native, masquerade, peer],
            directory,
            connections: Cell::new(0),
        })
    }

    fn path(&self, contender: Contender) -> Path<'_> {
        Path {
            client: &self.client,
            server: &self.server,
            to: target(contender),
            known_as: match contender {
                Contender::Native => server6(contender).into(),
                Contender::Ours | Contender::Masquerade | Contender::Peer => {
                    server4(contender).into()
                }
            },
        }
    }

    /// The process of a translator; the kernel has none.
    fn pid(&self, contender: Contender) -> Option<u32> {
        match contender {
            Contender::Ours => Some(self.plat.pid()),
            Contender::Peer => Some(self.tayga.pid()),
            Contender::Native | Contender::Masquerade => None,
        }
    }

    fn cpu_time(&self, contender: Contender) -> io::Result<Option<Duration>> {
        self.pid(contender).map(cpu_time).transpose()
    }

    /// Throughput, and the CPU time of the translator's own process for a gigabit of it.
    fn tcp(&self, name: &str, direction: Direction, streams: u32) -> io::Result<Vec<Row>> {
        let (mut rates, mut cpu) = (Rounds::default(), Rounds::default());
        for _ in 0..ROUNDS {
            for contender in Contender::OF_PLAT {
                let before = self.cpu_time(contender)?;
                let rate = self.path(contender).tcp_streams(direction, streams)?;
                rates.push(contender, rate);
                if let Some((before, after)) = before.zip(self.cpu_time(contender)?) {
                    let used = after.saturating_sub(before).as_secs_f64();
                    cpu.push(contender, used / (rate * SECONDS as f64));
                }
            }
        }
        Ok(vec![
            rates.row(name, "Gbit/s").beside_masquerade(0.6, Some(10.0)),
            cpu.row(&format!("{name}, CPU"), "s/Gbit"),
        ])
    }

    fn udp(&self, name: &str, direction: Direction, payload: usize) -> io::Result<Vec<Row>> {
        let mut rates = Rounds::default();
        for _ in 0..ROUNDS {
            for contender in Contender::OF_PLAT {
                let rate = self.path(contender).udp(direction, payload, SHORT)?;
                rates.push(contender, rate / 1000.0);
            }
        }
        Ok(vec![rates.row(name, "kpps")])
    }

    fn round_trip(&self, name: &str) -> io::Result<Vec<Row>> {
        let (mut middle, mut slow) = (Rounds::default(), Rounds::default());
        for _ in 0..ROUNDS {
            for contender in Contender::OF_PLAT {
                let times = self.path(contender).round_trips()?;
                let figures = median(&times).zip(p99(&times));
                let none = || io::Error::other("no echo came back");
                let (half, most) = figures.ok_or_else(none)?;
                middle.push(contender, half);
                slow.push(contender, most);
            }
        }
        Ok(vec![
            middle.row(&format!("{name} p50"), "us"),
            slow.row(&format!("{name} p99"), "us"),
        ])
    }

    /// New connections. Those of native IPv6 show how many the load itself can make.
    fn connections(&self, name: &str) -> io::Result<Vec<Row>> {
        let mut rates = Rounds::default();
        for _ in 0..ROUNDS {
            for contender in Contender::OF_PLAT {
                let path = self.path(contender);
                let server = Server::start(&self.server, path.known_as)?;
                let sources = Sources {
                    address: match contender {
                        Contender::Ours | Contender::Native => subscriber,
                        Contender::Masquerade => private,
                        Contender::Peer => neighbour,
                    },
                    used: self.connections.get(),
                };
                let made = connections::rate(&self.client, sources, path.to, SHORT);
                server.stop(&self.server);
                let (rate, used) = made?;
                self.connections.set(used);
                rates.push(contender, rate / 1000.0);
            }
        }
        Ok(vec![rates.row(name, "k/s").beside_masquerade(0.7, None)])
    }

    /// What one small datagram costs the translator's own process under load.
    fn cost(&self, name: &str, direction: Direction) -> io::Result<Vec<Row>> {
        let (mut time, mut calls) = (Rounds::default(), Rounds::default());
        for _ in 0..ROUNDS {
            for contender in [Contender::Ours, Contender::Peer] {
                let Some(pid) = self.pid(contender) else {
                    continue;
                };
                let counter = Syscalls::count(pid, self.directory.path());
                let (start, before) = (Instant::now(), cpu_time(pid)?);
                let rate = self.path(contender).udp(direction, 64, SHORT)?;
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
}

/// Whole networks are this client's own.
fn many_addresses(client: &Namespace) {
    client.set("net/ipv6/ip_nonlocal_bind", "1");
    client.must("ip -6 route add local 2001:db8:c000::/36 dev lo");
    client.must("ip route add local 10.77.0.0/16 dev lo");
}

/// A router between client and server.
fn middle(client: &Namespace, server: &Namespace, contender: Contender) -> io::Result<Namespace> {
    let n = number(contender);
    let middle = Namespace::new(&format!("middle{n}"))?;
    middle.skip_dad();
    let (c, s) = (format!("c{n}"), format!("s{n}"));
    connect((client, &c), (&middle, "m0"));
    connect((server, &s), (&middle, "m1"));
    middle.forward();
    client.add_address(&c, &format!("2001:db8:{n}:1::2/64"));
    client.add_address(&c, &format!("10.{n}.1.2/24"));
    middle.add_address("m0", &format!("2001:db8:{n}:1::1/64"));
    middle.add_address("m0", &format!("10.{n}.1.1/24"));
    middle.add_address("m1", &format!("2001:db8:{n}:2::1/64"));
    middle.add_address("m1", &format!("198.51.10{n}.1/24"));
    server.add_address(&s, &format!("{}/64", server6(contender)));
    server.add_address(&s, &format!("{}/24", server4(contender)));
    middle.add_route("2001:db8:c000::/36", &format!("2001:db8:{n}:1::2"), "m0");
    middle.add_route("10.77.0.0/16", &format!("10.{n}.1.2"), "m0");
    let gateway = format!("2001:db8:{n}:1::1");
    match contender {
        Contender::Ours | Contender::Peer => {
            client.add_route(&pref64(contender), &gateway, &c);
        }
        Contender::Native => client.add_route(&format!("2001:db8:{n}:2::/64"), &gateway, &c),
        Contender::Masquerade => {
            client.add_route(&format!("198.51.10{n}.0/24"), &format!("10.{n}.1.1"), &c);
        }
    }
    Ok(middle)
}

/// The kernel masquerades what leaves for the server. A closed connection is forgotten sooner than
/// by default, lest the kernel's table, which all of them share, be full before the run is over.
fn masquerade_behind(middle: &Namespace) {
    middle.must("nft add table ip nat");
    middle.must("nft add chain ip nat post '{ type nat hook postrouting priority 100; }'");
    middle.must("nft add rule ip nat post oifname m1 masquerade");
    middle.set("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "10");
}

fn start_tayga(peer: &Namespace, directory: &std::path::Path) -> io::Result<Daemon> {
    let client = format!("2001:db8:{}:1::2", number(Contender::Peer));
    let tayga = Tayga {
        interface: "nat64",
        own: ("10.88.0.1", "2001:db8:3:3::1"),
        prefix: &pref64(Contender::Peer),
        maps: &[
            ("10.88.1.1", &client),
            ("10.99.0.0/16", "2001:db8:c003::/112"),
        ],
    };
    let daemon = tayga.start(peer, directory)?;
    peer.must("ip route add 10.88.0.0/16 dev nat64");
    peer.must("ip route add 10.99.0.0/16 dev nat64");
    peer.must(&format!(
        "ip -6 route add {} dev nat64",
        pref64(Contender::Peer)
    ));
    Ok(daemon)
}

fn start_plat(middle: &Namespace, directory: &std::path::Path) -> io::Result<Daemon> {
    let config = directory.join("plat.toml");
    let text = format!(
        "prefixes = [\"{}\"]\n\
         pool = [\"203.0.113.0/26\"]\n\
         clients = [\"::/0\"]\n\
         allow_destinations = [\"198.51.100.0/24\"]\n",
        pref64(Contender::Ours)
    );
    fs::write(&config, text)?;
    let mut plat = command(program("plat"));
    plat.args(["run", "--config"]).arg(config);
    plat.arg("--state-dir").arg(directory.join("plat"));
    let plat = Daemon::start(middle, "plat", plat)?;
    plat.wait_for("running", Duration::from_secs(5));
    Ok(plat)
}

/// Memory and lookups, without a network.
fn table_rows() -> io::Result<Vec<Row>> {
    let sizes = [
        ("1k", 1_000),
        ("10k", 10_000),
        ("100k", 100_000),
        ("1M", 1_000_000),
    ];
    let mut all = Vec::new();
    for (name, sessions) in sizes {
        let [mut bytes, mut packet, mut lookup, mut batched, mut new] =
            [(); 5].map(|()| Rounds::default());
        for _ in 0..ROUNDS {
            let figures = tables::measure(sessions)?;
            bytes.push(Contender::Ours, figures.bytes);
            packet.push(Contender::Ours, figures.packet);
            lookup.push(Contender::Ours, figures.lookup);
            batched.push(Contender::Ours, figures.batched);
            new.push(Contender::Ours, figures.new);
        }
        let title = |what| format!("{TABLES} {name}, {what}");
        let lookup = lookup.row(&title("lookup"), "ns");
        all.extend([
            bytes.row(&title("memory"), "B/session").at_most(120.0),
            packet.row(&title("packet"), "ns"),
            if sessions == 1_000_000 {
                lookup.at_most(200.0)
            } else {
                lookup
            },
            batched.row(&title("lookup in batches"), "ns"),
            new.row(&title("packet of a new session"), "ns"),
        ]);
    }
    Ok(all)
}
