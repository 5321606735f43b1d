//! The control socket of a PLAT that works: what people see and change, and who may.

use std::{
    io::{Read, Write},
    net::{Ipv6Addr, SocketAddrV6, TcpStream},
    os::unix::net::UnixStream,
    time::Duration,
};

use crate::flows::Udp;
use lab::{
    eventually,
    process::{Daemon, Ran},
    servers::ECHO_PORT,
    topology::{Network, Options, program},
};

const SOON: Duration = Duration::from_secs(10);

/// A server of the IPv4 internet as a client without a CLAT writes it.
fn echo_server() -> SocketAddrV6 {
    let address: Ipv6Addr = "2001:db8:64::198.51.100.10".parse().unwrap();
    SocketAddrV6::new(address, ECHO_PORT, 0, 0)
}

/// A network with a PLAT, and a client that has a connection through it.
struct Talking {
    plat: Daemon,
    network: Network,
    connection: TcpStream,
}

impl Talking {
    fn new(test: &str) -> Self {
        let network = Network::new(test, &Options::default());
        let plat = network.start_plat();
        // One, and no other: tests count sessions.
        let mut connection = None;
        eventually(SOON, || {
            connection = network.host.run(|| TcpStream::connect(echo_server())).ok();
            connection.is_some()
        });
        let Some(connection) = connection else {
            panic!("no connection through the PLAT")
        };
        connection
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        let talking = Self {
            plat,
            network,
            connection,
        };
        assert!(talking.echoes());
        talking
    }

    fn echoes(&self) -> bool {
        let mut answer = [0; 4];
        let mut connection = &self.connection;
        connection.write_all(b"ping").is_ok()
            && connection.read_exact(&mut answer).is_ok()
            && answer == *b"ping"
    }

    fn socket(&self) -> String {
        let socket = self.network.path("plat-state/control.sock");
        socket.to_str().unwrap().to_owned()
    }

    /// `plat ARGUMENTS` against the PLAT, as root.
    fn ask(&self, arguments: &str) -> Ran {
        self.ask_as("", arguments)
    }

    /// The same after a prefix like `setpriv ...`.
    fn ask_as(&self, before: &str, arguments: &str) -> Ran {
        let plat = program("plat");
        let line = format!(
            "{before} {} {arguments} --socket {}",
            plat.display(),
            self.socket()
        );
        self.network.plat.sh(&line)
    }
}

#[test]
fn a_session_is_seen_explained_and_flushed() {
    let mut talking = Talking::new("control-session");
    let remote = format!("198.51.100.10:{ECHO_PORT}");
    let listed = talking.ask(&format!("session list --protocol tcp --remote {remote}"));
    assert!(listed.ok(), "{listed:?}");
    let lines: Vec<_> = listed.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{listed:?}");
    assert!(
        lines[1].contains("established") && lines[1].contains(&remote),
        "{listed:?}"
    );
    let port = talking.connection.local_addr().unwrap().port();
    let displayed = talking.ask("session display --json --state established");
    assert!(
        displayed.stdout.contains(&format!("]:{port}\""))
            && displayed
                .stdout
                .contains("\"schema\":\"openclat-plat-session/1\""),
        "{displayed:?}"
    );
    let none = talking.ask("session list --client 2001:db8:ffff::/48");
    assert_eq!(none.stdout.lines().count(), 1, "{none:?}");

    let bib = talking.ask("bib list --protocol tcp");
    assert!(bib.stdout.contains("dynamic"), "{bib:?}");
    let pool = talking.ask("pool list");
    assert!(pool.stdout.contains("203.0.113.") && pool.ok(), "{pool:?}");
    let held = talking.ask("pool ports-of 2001:db8:1:1::/64");
    let columns: Vec<_> = held
        .stdout
        .lines()
        .last()
        .unwrap_or_default()
        .split(' ')
        .collect();
    assert!(held.ok() && columns.contains(&"binding"), "{held:?}");
    let pool = columns.iter().find(|it| it.starts_with("203.0.113."));
    let ports = talking.ask(&format!("session list --protocol tcp --remote {remote}"));
    let end = ports
        .stdout
        .split_whitespace()
        .find(|it| it.starts_with("203.0.113."));
    let (pool, end) = (pool.expect("an address"), end.expect("a session's port"));
    assert!(end.starts_with(pool), "{held:?} {ports:?}");
    let whose = talking.ask(&format!("pool client-of {end} --protocol tcp --json"));
    assert!(
        whose.stdout.contains(&format!("\"client_port\":{port},")) && whose.ok(),
        "{whose:?}"
    );
    let nobodys = talking.ask("pool client-of 192.0.2.99:80");
    assert!(
        nobodys.code == Some(10) && nobodys.stderr.contains("`plat pool list`"),
        "{nobodys:?}"
    );
    let top = talking.ask("top");
    assert!(top.stdout.contains("2001:db8:1:1::/64"), "{top:?}");
    let stats = talking.ask("stats --explain");
    assert!(
        stats.stdout.contains("Successful translations") && stats.stdout.contains("RFC 6146"),
        "{stats:?}"
    );
    let status = talking.ask("status");
    assert!(status.stdout.contains("current sessions: "), "{status:?}");
    assert!(status.stdout.contains("\nhealthy\n"), "{status:?}");

    // Everything only if it is said.
    assert_eq!(talking.ask("session flush").code, Some(2));
    assert!(talking.echoes());
    let flushed = talking.ask(&format!("session flush --remote {remote}"));
    assert!(flushed.stdout.starts_with("1 sessions"), "{flushed:?}");
    // Its next segment opens no connection.
    assert!(!talking.echoes());
    assert!(talking.plat.stop().success());
    assert!(!talking.network.path("plat-state/control.sock").exists());
    let gone = talking.ask("status");
    assert_eq!(gone.code, Some(8), "{gone:?}");
    assert!(gone.stderr.contains("systemctl start plat"), "{gone:?}");
}

#[test]
fn a_static_binding_is_made_and_removed() {
    let talking = Talking::new("control-bib");
    let binding = "tcp [2001:db8:1:1::99]:80 203.0.113.1:80";
    let made = talking.ask(&format!("bib add {binding}"));
    assert!(made.ok(), "{made:?}");
    let listed = talking.ask("bib list --client [2001:db8:1:1::99]:80");
    assert!(
        listed.stdout.contains("static") && listed.stdout.contains("203.0.113.1:80"),
        "{listed:?}"
    );
    let twice = talking.ask("bib add tcp [2001:db8:1:1::98]:80 203.0.113.1:80");
    assert_eq!(twice.code, Some(2), "{twice:?}");
    let foreign = talking.ask("bib add tcp [2001:db8:1:1::98]:80 192.0.2.77:80");
    assert!(foreign.stderr.contains("not in the pool"), "{foreign:?}");
    let removed = talking.ask("bib remove tcp 203.0.113.1:80");
    assert!(removed.ok(), "{removed:?}");
    let again = talking.ask("bib remove tcp 203.0.113.1:80");
    assert_eq!(again.code, Some(10), "{again:?}");
    assert!(talking.echoes());
}

/// By the kernel's word, not by a mode of the socket: everybody sees how it is, not everybody who
/// talks to whom, and not everybody changes it.
#[test]
fn another_user_may_see_how_it_is_and_change_nothing() {
    let talking = Talking::new("control-user");
    let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups --";
    let read = talking.ask_as(nobody, "status");
    assert!(read.ok() && read.stdout.contains("203.0.113."), "{read:?}");
    for change in [
        "session list",
        "bib list",
        "top",
        "session flush --all",
        "bib add tcp [2001:db8:1:1::99]:80 203.0.113.1:80",
        "bib remove tcp 203.0.113.1:80",
        "reload",
    ] {
        let refused = talking.ask_as(nobody, change);
        assert_eq!(refused.code, Some(5), "{change}: {refused:?}");
        assert!(refused.stderr.contains("sudo plat"), "{refused:?}");
    }
    assert!(talking.echoes());
}

/// A client that connects and never reads, others that send rubbish: nobody else notices.
#[test]
fn stuck_and_rude_clients_hold_up_nobody() {
    let talking = Talking::new("control-stuck");
    let connect = || UnixStream::connect(talking.socket()).unwrap();
    let _stuck: Vec<_> = (0..10).map(|_| connect()).collect();
    for rubbish in [
        &b"\xff\xff\xff\xff"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\x02{}",
    ] {
        connect().write_all(rubbish).unwrap();
    }
    // One that asks for the same long list again and again, and reads none of it.
    let mut greedy = connect();
    let message = |text: &str| {
        let mut bytes = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes
    };
    greedy
        .write_all(&message(r#"{"protocol":{"major":1,"minor":0}}"#))
        .unwrap();
    greedy.set_nonblocking(true).unwrap();
    let stats = message(r#"{"id":1,"verb":{"verb":"stats"}}"#);
    for _ in 0..10_000 {
        if greedy.write_all(&stats).is_err() {
            break;
        }
    }
    for _ in 0..5 {
        let healthy = talking.ask("health");
        assert!(healthy.ok(), "{healthy:?}");
        assert!(talking.echoes());
    }
}

#[test]
fn health_says_when_the_ipv4_side_is_down() {
    let talking = Talking::new("control-health");
    assert_eq!(talking.ask("health").code, Some(0));
    talking.network.plat.must("ip link set p1 down");
    let bad = eventually(SOON, || talking.ask("health --json").code == Some(1));
    assert!(bad, "{:?}", talking.ask("health"));
    let said = talking.ask("health");
    assert!(said.stdout.contains("FAILED ipv4-side"), "{said:?}");
    assert!(said.stdout.contains("default route is gone"), "{said:?}");
    talking.network.plat.must("ip link set p1 up");
    // The interface alone leads nowhere.
    let route = "ip route replace default via 192.0.2.2 dev p1";
    talking.network.plat.must(route);
    assert!(eventually(SOON, || talking.ask("health").ok()));
}

#[test]
fn sessions_are_followed_as_they_come() {
    let talking = Talking::new("control-follow");
    let mut command = lab::process::command(program("plat"));
    command.args(["session", "follow", "--socket", &talking.socket()]);
    let follow = Daemon::start(&talking.network.plat, "follow", command).unwrap();
    let seen = eventually(SOON, || {
        let connection = talking
            .network
            .host
            .run(|| TcpStream::connect(echo_server()));
        drop(connection);
        std::thread::sleep(Duration::from_millis(200));
        follow.output().contains("+ tcp")
    });
    assert!(seen, "{}", follow.output());
    assert!(talking.ask("session flush --all").ok());
    follow.wait_for("- tcp", SOON);
}

/// A capture has both sides of what passes, and of what does not the reason; other programs read it.
#[test]
fn packets_are_captured_with_what_became_of_them() {
    let talking = Talking::new("control-capture");
    let file = talking.network.path("capture.pcapng");
    let name = file.to_str().unwrap();
    let socket = talking.socket();
    let mut command = lab::process::command(program("plat"));
    command.args(["capture", "--file", name, "--socket", &socket]);
    command.args(["--client", "2001:db8:1:1::/64", "--snaplen", "200"]);
    let mut capture = Daemon::start(&talking.network.plat, "capture", command).unwrap();
    assert!(eventually(SOON, || file.exists()));
    let got = talking
        .network
        .host
        .sh("curl -s -6 -m 5 http://[2001:db8:64::198.51.100.10]/");
    assert!(got.ok(), "{got:?}");
    let host = &talking.network.host;
    let refused = host.sh("curl -s -6 -m 5 http://[2001:db8:64::10.0.0.1]/");
    assert!(!refused.ok(), "{refused:?}");
    // What plat has not handed over yet when the capture ends is not in it.
    let comment = "dropped, and its sender was told: destination-refused: ";
    let said = || String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
    assert!(eventually(SOON, || said().contains(comment)));
    assert!(capture.stop().success(), "{}", capture.output());
    assert!(
        capture.output().contains("packets captured, none lost"),
        "{}",
        capture.output()
    );

    let read = talking.network.plat.must(&format!("tcpdump -nr {name}"));
    for part in [
        "IP6 2001:db8:1:1:",
        "> 2001:db8:64::c633:640a.80: Flags [S]",
        "IP 203.0.113.",
        "> 198.51.100.10.80: Flags [S]",
        "IP 198.51.100.10.80 > 203.0.113.",
        "ICMP6, destination unreachable",
    ] {
        assert!(read.contains(part), "no {part} in {read}");
    }
    assert!(said().contains(" IPv4"), "{read}");

    // To a pipe, and for a user who may not.
    let piped = talking.network.plat.sh(&format!(
        "{} capture --duration 1 --socket {socket} | tcpdump -nr -",
        program("plat").display()
    ));
    assert!(piped.ok(), "{piped:?}");
    let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups --";
    let refused = talking.ask_as(nobody, "capture --count 1");
    assert_eq!(refused.code, Some(5), "{refused:?}");
    assert!(talking.echoes());
}

/// RFC 6888 REQ-8: what servers still send to the client that had a port reaches no other one.
#[test]
fn natb_6888_03_ports_rest_over_a_restart() {
    let network = Network::new("control-restart", &Options::default());
    let text = "prefixes = [\"2001:db8:64::/96\"]\nworkers = 1\n\
                allow_destinations = [\"198.51.100.0/24\"]\n\
                pool = [{ address = \"203.0.113.1\", udp = \"5000-5001\" }]\n\
                quota.address.bindings = 9\nquota.subscriber.bindings = 9\n";
    let flow = || {
        let mut client = None;
        // The first one may come before the host has a route.
        eventually(SOON, || {
            let new = || Udp::new(Ipv6Addr::UNSPECIFIED, echo_server().into());
            client = network.host.run(new);
            client.is_some()
        });
        client.expect("a socket")
    };
    let mut plat = network.start_plat_of_config(text);
    let first = flow();
    eventually(SOON, || first.echoes(1));
    assert!(plat.stop().success());
    drop(first);

    let plat = network.start_plat_of_config(text);
    let said = "1 ports and 0 blocks that clients had before rest for 120 s";
    assert!(plat.output().contains(said), "{}", plat.output());
    let (second, third) = (flow(), flow());
    eventually(SOON, || second.echoes(2));
    assert!(!third.echoes(3), "it has the port of the one before");
    let socket = network.path("plat-state/control.sock");
    let line = format!(
        "{} client refused --socket {}",
        program("plat").display(),
        socket.display()
    );
    let refused = network.plat.must(&line);
    assert!(refused.contains("-exhausted"), "{refused}");
    // Without a rest, nobody waits.
    drop(plat);
    let plat = network.start_plat_of_config(&format!("{text}timers.hold_down = 0\n"));
    assert!(!plat.output().contains("rest for"), "{}", plat.output());
    eventually(SOON, || second.echoes(4) && third.echoes(5));
}
