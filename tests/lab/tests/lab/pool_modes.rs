//! How the IPv4 addresses of the clients come to the PLAT's host: each way with ordinary programs,
//! beside the host's own traffic, and with nothing left behind.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    thread,
    time::Duration,
};

use lab::{
    eventually,
    process::{Daemon, command},
    servers::{ECHO_PORT, HELLO, Pattern, serve_web, sha256},
    state::State,
    topology::{Network, Options, offloads_off, program},
};

/// A public address of the server: the well-known prefix reaches no other.
pub(crate) const PUBLIC: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);
/// A public address of the IPv4 router before it.
const HOP: Ipv4Addr = Ipv4Addr::new(9, 9, 8, 1);
/// The address that the PLAT's host has.
pub(crate) const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The ports that are shared by default.
const SHARED: std::ops::RangeInclusive<u16> = 61_001..=65_535;

pub(crate) const STARTED: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(3);
/// Including the time to ask a link for addresses (RFC 5227).
pub(crate) const ASKED: Duration = Duration::from_secs(15);

/// An IPv4 address under the well-known prefix.
pub(crate) fn mapped(address: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = address.octets().map(u16::from);
    Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a << 8 | b, c << 8 | d)
}

/// A network whose router sends the well-known prefix to the PLAT's host, and whose server has a
/// public address.
pub(crate) fn network(name: &str, options: &Options) -> Network {
    let network = Network::new(name, options);
    network.server.add_address("lo", &format!("{PUBLIC}/32"));
    network.isp.add_route("9.9.9.9/32", "198.51.100.10", "i1");
    // Servers of UDP answer from it.
    (network.server).must(&format!(
        "ip route replace default via 198.51.100.1 src {PUBLIC}"
    ));
    // And so does the router before it.
    network.isp.add_address("lo", &format!("{HOP}/32"));
    network
        .isp
        .must(&format!("ip route change 192.0.2.0/30 dev i0 src {HOP}"));
    (network.router).add_route("64:ff9b::/96", "2001:db8:1:2::2", "r1");
    // Its IPv6 address comes with the first router advertisement.
    let has_address = || {
        let global = network.host.addresses("h0");
        let route = network.host.must("ip -6 route show default");
        global.iter().any(|it| it.to_string().starts_with("2001:")) && !route.is_empty()
    };
    assert!(eventually(STARTED, has_address));
    network
}

pub(crate) fn plat(network: &Network, config: Option<&str>) -> Daemon {
    let plat = launch(network, config);
    plat.wait_for("running", STARTED);
    plat
}

pub(crate) fn launch(network: &Network, config: Option<&str>) -> Daemon {
    Daemon::start(&network.plat, "plat", plat_command(network, config)).unwrap()
}

pub(crate) fn plat_command(network: &Network, config: Option<&str>) -> Command {
    let mut plat = command(program("plat"));
    plat.arg("run");
    if let Some(text) = config {
        let file = network.path("modes.toml");
        std::fs::write(&file, text).unwrap();
        plat.arg("--config").arg(file);
    }
    plat.arg("--state-dir").arg(network.path("plat-state"));
    plat
}

/// What a client without a CLAT does. `seen` are the addresses that the server may see it come
/// from, by their beginning.
pub(crate) fn everything_works(network: &Network, seen: &str) {
    let host = &network.host;
    let server = mapped(PUBLIC);
    let curl = |path: &str| host.must(&format!("curl -6 -sS -m 20 'http://[{server}]{path}'"));
    assert_eq!(curl("/hello"), HELLO);
    let address = curl("/address");
    assert!(address.starts_with(seen), "{address}");

    // Much of it, both ways, with super-segments.
    const LEN: u64 = 20_000_000;
    let line = format!("curl -6 -sS -m 20 'http://[{server}]/bytes/{LEN}' | sha256sum");
    let expected = sha256(Pattern::default().take(LEN)).unwrap().0;
    assert!(host.must(&line).starts_with(&expected));
    let echoed = host.run(move || echo_over_tcp(server, LEN));
    assert_eq!(echoed, expected);

    host.must(&format!("ping -6 -n -c 3 -i 0.2 -W 2 {server}"));
    // Larger than any link: fragments in both directions.
    for len in [1, 1400, 1460, 4000, 30_000] {
        let comes_back = || host.run(move || echo_over_udp(server, len));
        // The first large one may only have found out the path's MTU.
        assert!(comes_back() || comes_back(), "{len}");
    }
    host.must(&format!("ping -6 -n -c 2 -i 0.2 -W 2 -s 4000 {server}"));
    // Every hop of IPv4 is shown, and the end.
    let hop = mapped(HOP).to_string();
    for how in ["", "-I"] {
        let line = format!("traceroute -6 -n -w 2 -q 2 -m 8 {how} {server}");
        let hops = host.must(&line);
        assert!(hops.contains(&hop), "{how}: {hops}");
        assert!(
            hops.lines()
                .last()
                .unwrap_or_default()
                .contains(&server.to_string()),
            "{hops}"
        );
    }
}

/// Sends bytes to the echo server and returns the hash of what comes back.
pub(crate) fn echo_over_tcp(server: Ipv6Addr, len: u64) -> String {
    let mut up = TcpStream::connect((server, ECHO_PORT)).unwrap();
    let down = up.try_clone().unwrap();
    down.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let sender = thread::spawn(move || {
        std::io::copy(&mut Pattern::default().take(len), &mut up).unwrap();
        up.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let (hash, received) = sha256(down).unwrap();
    sender.join().unwrap();
    assert_eq!(received, len);
    hash
}

/// Whether a datagram of this length comes back as it was.
fn echo_over_udp(server: Ipv6Addr, len: usize) -> bool {
    let socket = UdpSocket::bind("[::]:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let mut sent = vec![0; len];
    Pattern::default().read_exact(&mut sent).unwrap();
    socket.send_to(&sent, (server, ECHO_PORT)).unwrap();
    let mut buffer = vec![0; 65_536];
    match socket.recv(&mut buffer) {
        Ok(received) => buffer[..received] == sent,
        Err(_) => false,
    }
}

/// The host's own traffic with the address that is shared.
pub(crate) fn host_is_itself(network: &Network) {
    let Network { plat, server, .. } = network;
    assert_eq!(
        plat.must(&format!("curl -sS -m 5 http://{PUBLIC}/hello")),
        HELLO
    );
    assert_eq!(
        server.must(&format!("curl -sS -m 5 http://{OWN}/hello")),
        HELLO
    );
    server.must(&format!("ping -n -c 1 -W 2 {OWN}"));
    // Also with an identifier that is shared: the answer is this host's.
    for identifier in [7, 61_001, 62_000, 65_535] {
        plat.must(&format!("ping -n -c 1 -W 2 -e {identifier} {PUBLIC}"));
        server.must(&format!("ping -n -c 1 -W 2 -e {identifier} {OWN}"));
    }
    // Errors come to it as well: about a closed port, and from routers on the way.
    let refused = plat.sh(&format!("curl -sS -m 5 http://{PUBLIC}:9/"));
    assert_eq!(refused.code, Some(7), "{refused:?}");
    let hops = plat.must(&format!("traceroute -n -w 2 -q 1 -m 4 {PUBLIC}"));
    assert!(hops.contains(&HOP.to_string()), "{hops}");
    // Also about an echo request with an identifier that is shared.
    let expired = plat.sh(&format!("ping -n -c 1 -W 2 -t 1 -e 62000 {PUBLIC}"));
    let said = &expired.stdout;
    assert!(said.contains("Time to live exceeded"), "{expired:?}");
    // A closed port of its own is closed, not silent.
    let refused = server.sh(&format!("curl -sS -m 5 http://{OWN}:4321/"));
    assert_eq!(refused.code, Some(7), "{refused:?}");
}

/// Two interfaces, no configuration: it finds out by itself, says so, and shares the host's
/// address, on which a local server is busy.
#[test]
fn without_a_configuration_the_hosts_address_is_shared() {
    let network = network("zero", &Options::default());
    serve_web(&network.plat);
    let before = State::of(&network.plat);
    let mut plat = plat(&network, None);
    let said = plat.output();
    for part in [
        "plat decided",
        "192.0.2.1 on p1",
        "host_ports = \"61001-65535\"",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let busy = Busy::start(&network);
    everything_works(&network, &OWN.to_string());
    host_is_itself(&network);
    everything_works(&network, &OWN.to_string());
    let port = source_port(&network);
    assert!(SHARED.contains(&port), "{port}");
    busy.stop();
    assert!(plat.stop().success());
    State::of(&network.plat).assert_is(&before, "in the end");
}

/// On wires without offloads the checksums are the packets' own.
#[test]
fn a_shared_address_without_offloads() {
    let options = Options {
        offloads: false,
        ..Options::default()
    };
    let network = network("zero-plain", &options);
    serve_web(&network.plat);
    let _plat = plat(&network, None);
    offloads_off(&network.plat, "plat0");
    everything_works(&network, &OWN.to_string());
    host_is_itself(&network);
}

/// The port that the server sees a client come from.
fn source_port(network: &Network) -> u16 {
    let listener = network
        .server
        .run(|| TcpListener::bind("0.0.0.0:99").unwrap());
    let server = mapped(PUBLIC);
    let client = network
        .host
        .run(move || TcpStream::connect((server, 99)).unwrap());
    let (_stream, peer) = listener.accept().unwrap();
    drop(client);
    assert_eq!(peer.ip(), OWN);
    peer.port()
}

/// Fetches from the host's own server without a pause, from outside.
struct Busy(Daemon);

impl Busy {
    fn start(network: &Network) -> Self {
        let mut shell = command("sh");
        let line = format!(
            "trap 'exit 0' TERM; n=0; while :; do \
             curl -sS -m 5 -o /dev/null http://{OWN}/bytes/300000 || echo failed; \
             n=$((n+1)); [ $((n % 10)) = 0 ] && echo fetched $n; done"
        );
        shell.args(["-c", &line]);
        Self(Daemon::start(&network.server, "busy", shell).unwrap())
    }

    fn stop(mut self) {
        self.0.wait_for("fetched", Duration::from_secs(10));
        let said = self.0.output();
        self.0.stop();
        assert!(!said.contains("failed"), "{said}");
    }
}

/// `bind()` is not stopped from taking a port of the range; then its packets are the host's, and
/// the range is not what local programs get by themselves.
#[test]
fn a_local_program_that_binds_a_shared_port_keeps_its_packets() {
    let network = network("bind", &Options::default());
    let reserved = "net/ipv4/ip_local_reserved_ports";
    network.plat.set(reserved, "8080,62000-62010");
    // As on hosts with many connections.
    network
        .plat
        .set("net/ipv4/ip_local_port_range", "60990 61100");
    let mut plat = plat(&network, None);
    assert_eq!(network.plat.get(reserved), "8080,61001-65535");
    for port in [61_001, 63_000, 65_535] {
        let listener = network
            .plat
            .run(move || TcpListener::bind((OWN, port)).unwrap());
        let client = network
            .server
            .run(move || connect_and_say((OWN, port).into()));
        let (mut stream, _) = listener.accept().unwrap();
        let mut heard = [0; 2];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard, *b"hi");
        drop(client);

        let socket = network
            .plat
            .run(move || UdpSocket::bind(("0.0.0.0", port)).unwrap());
        socket.set_read_timeout(Some(SOON)).unwrap();
        network.server.run(move || {
            let from = UdpSocket::bind("0.0.0.0:0").unwrap();
            from.send_to(b"hi", (OWN, port)).unwrap();
        });
        assert_eq!(socket.recv(&mut [0; 9]).unwrap(), 2);
    }
    // What asks for no port gets none of them: ten are left.
    let own: Vec<TcpStream> = (0..5)
        .map(|_| {
            network
                .plat
                .run(|| TcpStream::connect((PUBLIC, ECHO_PORT)).unwrap())
        })
        .collect();
    let ports: Vec<_> = own
        .iter()
        .map(|it| it.local_addr().unwrap().port())
        .collect();
    assert!(ports.iter().all(|port| !SHARED.contains(port)), "{ports:?}");
    assert!(plat.stop().success());
    assert_eq!(network.plat.get(reserved), "8080,62000-62010");
}

/// A client may get an identifier that the host has just used for the same server: the answers are
/// whose who asked last.
#[test]
fn the_host_and_a_client_ask_with_the_same_identifier() {
    let network = network("same-id", &Options::default());
    let config = "host_ports = \"61001-61001\"\nworkers = 1\n";
    let _plat = plat(&network, Some(config));
    let server = mapped(PUBLIC);
    for _ in 0..3 {
        network
            .plat
            .must(&format!("ping -n -c 1 -W 2 -e 61001 {PUBLIC}"));
        let line = format!("ping -6 -n -c 1 -W 2 -e 7 {server}");
        network.host.must(&line);
    }
}

fn connect_and_say(to: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect_timeout(&to, SOON).unwrap();
    stream.write_all(b"hi").unwrap();
    stream
}

/// A server that was there first: by itself it leaves that port out, and what was asked for it
/// refuses.
#[test]
fn a_port_with_a_server_is_not_shared() {
    let network = network("listening", &Options::default());
    let listener = network
        .plat
        .run(|| TcpListener::bind("0.0.0.0:61005").unwrap());
    let before = State::of(&network.plat);
    let mut plat = plat(&network, None);
    let said = plat.output();
    assert!(
        said.contains("TCP port 61005") && said.contains("61006-65535"),
        "{said}"
    );
    assert!(plat.stop().success());
    let mut refused = launch(&network, Some("host_ports = \"61001-65535\"\n"));
    assert_eq!(refused.wait(STARTED).code(), Some(1));
    refused.wait_for(
        "what to do: stop it, or use: host_ports = \"61006-65535\"",
        SOON,
    );
    State::of(&network.plat).assert_is(&before, "in the end");
    drop(listener);
}

/// Private addresses behind the host's own NAT.
#[test]
fn a_private_pool_is_masqueraded() {
    let network = network("masquerade", &Options::default());
    serve_web(&network.plat);
    let before = State::of(&network.plat);
    let mut plat = plat(&network, Some("pool_mode = \"masquerade\"\n"));
    everything_works(&network, &OWN.to_string());
    host_is_itself(&network);
    assert!(plat.stop().success());
    State::of(&network.plat).assert_is(&before, "in the end");
}

/// A larger link to the IPv4 router than the other tests have.
pub(crate) fn widen_uplink(network: &Network) {
    let Network { isp, plat, .. } = network;
    isp.add_address("i0", "192.0.2.2/24");
    isp.must("ip route replace 192.0.2.0/24 dev i0 src 9.9.8.1");
    isp.must("ip addr del 192.0.2.2/30 dev i0");
    plat.must("ip addr add 192.0.2.1/24 dev p1");
    plat.must("ip addr del 192.0.2.1/30 dev p1");
    plat.must("ip route replace default via 192.0.2.2 dev p1");
}

/// Spare addresses of the link to the IPv4 router, which has no route to them.
#[test]
fn spare_addresses_of_the_link_are_answered_for() {
    let network = network("arp", &Options::default());
    serve_web(&network.plat);
    widen_uplink(&network);
    let before = State::of(&network.plat);
    // Somebody has one of them.
    network.isp.add_address("i0", "192.0.2.17/32");
    // A host with an address of its own, which is one of that link as well.
    let mapped_host = "2001:db8:1:1::40";
    (network.host).must(&format!(
        "ip addr add {mapped_host}/64 dev h0 preferred_lft 0"
    ));
    let config = "pool_mode = \"arp\"\npool = [\"192.0.2.16/30\"]\n\
                  [[eam]]\nipv4 = \"192.0.2.40\"\nipv6 = \"2001:db8:1:1::40\"\n";
    let mut refused = launch(&network, Some(config));
    assert_eq!(refused.wait(ASKED).code(), Some(1));
    let mac = network.isp.mac("i0");
    refused.wait_for(&format!("192.0.2.17 is in use by {mac}"), SOON);
    State::of(&network.plat).assert_is(&before, "refused");
    network.isp.remove_address("i0", "192.0.2.17/32");

    let mut plat = launch(&network, Some(config));
    plat.wait_for("running", ASKED);
    // It says that they are used, and how long it takes until it answers is up to the kernel.
    let neighbours = || network.isp.must("ip neigh show dev i0");
    everything_works(&network, "192.0.2.1");
    (network.server).must("ping -n -c 2 -i 0.2 -W 2 192.0.2.40");
    assert!(neighbours().contains("192.0.2.1"), "{}", neighbours());
    host_is_itself(&network);
    // Somebody comes later.
    network.isp.add_address("i0", "192.0.2.18/32");
    network.isp.must("ip neigh flush dev i0");
    let _ = network.isp.sh("ping -n -c 1 -W 1 -I 192.0.2.18 192.0.2.1");
    plat.wait_for("192.0.2.18 is also used by", SOON);
    network.isp.remove_address("i0", "192.0.2.18/32");
    assert!(plat.stop().success());
    State::of(&network.plat).assert_is(&before, "in the end");
}

/// A WAN whose address changes: what went by the old one ends, and what comes goes by the new one.
#[test]
fn a_new_address_of_the_uplink_is_shared_at_once() {
    let network = network("renumbered", &Options::default());
    let mut plat = plat(&network, None);
    assert!(SHARED.contains(&source_port(&network)));
    network.plat.remove_address("p1", "192.0.2.1/30");
    network.isp.must("ip addr add 192.0.2.6/30 dev i0");
    network.plat.add_address("p1", "192.0.2.5/30");
    network
        .plat
        .must("ip route replace default via 192.0.2.6 dev p1");
    plat.wait_for("the address is 192.0.2.5 now", Duration::from_secs(10));
    let url = format!("http://[{}]/address", mapped(PUBLIC));
    let seen = || network.host.sh(&format!("curl -6 -sS -m 2 '{url}'")).stdout;
    assert!(
        eventually(STARTED, || seen().starts_with("192.0.2.5")),
        "{}",
        seen()
    );
    assert!(plat.stop().success());
    let left = State::of(&network.plat);
    assert!(!left.mentions("openclat") && !left.mentions("247.114."));
}

/// Nothing special is reached through the place of the PLAT's host in the network: each packet is
/// dropped for that reason, and the addresses of all its interfaces are closed.
#[test]
fn special_destinations_are_refused_by_default() {
    let network = network("special", &Options::default());
    network.plat.add_address("lo", "9.9.7.1/32");
    serve_web(&network.plat);
    let prefix = "prefixes = [\"2001:db8:64::/96\"]\n";
    let mut plat = plat(&network, Some(prefix));
    for destination in [
        "127.0.0.1",
        "169.254.169.254",
        "169.254.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "192.0.0.8",
        "192.0.2.2",
        "198.51.100.10",
        "203.0.113.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "0.0.0.0",
        // This host's own, on another interface.
        "9.9.7.1",
    ] {
        let before = plat.counters().dropped("destination-refused");
        let line = format!("ping -6 -n -c 1 -W 1 2001:db8:64::{destination}");
        let pinged = network.host.sh(&line);
        assert!(!pinged.ok(), "{destination}: {pinged:?}");
        let after = plat.counters().dropped("destination-refused");
        assert_eq!(after - before, 1, "{destination}: {}", plat.output());
    }
    // The shared one is one of the pool: what is no mapping of a client ends in the PLAT.
    for line in [
        "ping -6 -n -c 1 -W 1 2001:db8:64::192.0.2.1",
        "curl -6 -sS -m 1 'http://[2001:db8:64::192.0.2.1]/hello'",
    ] {
        assert!(!network.host.sh(line).ok(), "{line}");
    }
    let public = format!("ping -6 -n -c 1 -W 1 2001:db8:64::{PUBLIC}");
    network.host.must(&public);
    assert!(plat.stop().success());
}
