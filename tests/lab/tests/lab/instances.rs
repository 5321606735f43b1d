//! Several PLATs on one host, each by its name: what one does, and how it ends, is nothing to the
//! others.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use lab::{
    process::{Daemon, Ran, command},
    servers::ECHO_PORT,
    state::State,
    topology::{Network, Options, program},
};
use nix::sys::signal::Signal;

use super::{flows::Flow, told::scrape};

const STARTED: Duration = Duration::from_secs(15);
const SOON: Duration = Duration::from_secs(5);

/// The settings that both need.
const FORWARDING: [&str; 3] = [
    "net/ipv6/conf/all/forwarding",
    "net/ipv4/conf/p0/forwarding",
    "net/ipv4/conf/p1/forwarding",
];

/// The server by the prefix of an instance.
fn server(instance: &str) -> SocketAddr {
    let prefix = match instance {
        "a" => "2001:db8:64::198.51.100.10",
        _ => "2001:db8:65::198.51.100.10",
    };
    let address: Ipv6Addr = prefix.parse().unwrap();
    (address, ECHO_PORT).into()
}

/// A host with two instances, which have their files where a package puts them.
struct Host {
    network: Network,
    client: Ipv6Addr,
}

impl Host {
    fn new(test: &str) -> Self {
        let options = Options {
            capture: false,
            ..Options::default()
        };
        let network = Network::new(test, &options);
        (network.router).add_route("2001:db8:65::/96", "2001:db8:1:2::2", "r1");
        // IPv4 is forwarded where it is needed only: the inside has some, too.
        network.plat.add_address("p0", "10.9.1.1/24");
        network.await_address();
        let global = |it: IpAddr| match it {
            IpAddr::V6(it) => (it.segments()[0] == 0x2001).then_some(it),
            IpAddr::V4(_) => None,
        };
        let client = network.host.addresses("h0").into_iter().find_map(global);
        let host = Self {
            client: client.unwrap(),
            network,
        };
        for directory in ["etc/openclat", "run"] {
            fs::create_dir_all(host.network.path(directory)).unwrap();
        }
        host
    }

    fn configure(&self, instance: &str, text: &str) {
        let file = format!("etc/openclat/plat@{instance}.toml");
        fs::write(self.network.path(&file), text).unwrap();
    }

    /// Each with a prefix, a pool and a port for metrics of its own.
    fn configure_both(&self) {
        for (instance, prefix, pool, port) in [
            ("a", "2001:db8:64::/96", "203.0.113.0/29", 9464),
            ("b", "2001:db8:65::/96", "203.0.113.8/29", 9465),
        ] {
            let text = format!(
                "prefixes = [\"{prefix}\"]\npool = [\"{pool}\"]\n\
                 allow_destinations = [\"198.51.100.0/24\"]\n\
                 [metrics]\nlisten = \"127.0.0.1:{port}\"\n"
            );
            self.configure(instance, &text);
        }
    }

    /// `plat ARGUMENTS --instance INSTANCE` where this host's /etc and /run are.
    fn command(&self, arguments: &str, instance: &str) -> Command {
        let place = |it: &str| self.network.path(it).display().to_string();
        let script = format!(
            "mount --bind {} /etc && mount --bind {} /run && \
             exec {} {arguments} --instance {instance}",
            place("etc"),
            place("run"),
            program("plat").display()
        );
        let mut unshare = command("unshare");
        unshare.args(["--mount", "sh", "-c", &script]);
        unshare
    }

    fn launch(&self, instance: &str) -> Daemon {
        let command = self.command("run", instance);
        Daemon::start(&self.network.plat, instance, command).unwrap()
    }

    fn start(&self, instance: &str) -> Daemon {
        let plat = self.launch(instance);
        plat.wait_for("running", STARTED);
        plat
    }

    /// A command to its end.
    fn ask(&self, arguments: &str, instance: &str) -> Ran {
        let command = self.command(arguments, instance);
        let mut asked = Daemon::start(&self.network.plat, "plat", command).unwrap();
        let code = asked.wait(SOON).code();
        // What it has said is still on its way.
        lab::eventually(Duration::from_millis(300), || !asked.output().is_empty());
        Ran {
            stdout: asked.output(),
            stderr: String::new(),
            code,
        }
    }

    fn flows(&self, instance: &str) -> [Flow; 2] {
        let (host, to) = (&self.network.host, server(instance));
        [
            Flow::udp(host, self.client, to),
            Flow::tcp(host, self.client, to),
        ]
    }

    fn forwards(&self) -> [bool; 3] {
        FORWARDING.map(|it| self.network.plat.get(it) == "1")
    }

    fn has_guard(&self, instance: &str) -> bool {
        let table = format!("nft list table inet openclat_plat_{instance}_guard");
        let listed = self.network.plat.sh(&table);
        listed.ok() && listed.stdout.contains("nfproto ipv6 counter")
    }

    /// Kills one, as the system does that has no memory left, and cleans up after it.
    fn kill(&self, mut plat: Daemon, instance: &str) {
        plat.signal(Signal::SIGKILL);
        assert!(!plat.wait(SOON).success());
        let cleaned = self.ask("cleanup", instance);
        assert!(cleaned.ok(), "{cleaned:?}");
        assert!(cleaned.stdout.contains("taken back: "), "{cleaned:?}");
    }
}

fn none_lost(flows: [Flow; 2], whose: &str) {
    for flow in flows {
        assert!(flow.goes_on(), "{whose}");
        let fared = flow.stop();
        assert!(fared.lost == 0 && fared.passed > 20, "{whose}: {fared:?}");
    }
}

/// Whoever goes, in peace or not, the other has its forwarding, its guard and every packet; the last
/// one leaves the host as the first one found it.
#[test]
fn one_instance_goes_and_the_other_does_not_notice() {
    let host = Host::new("instances");
    host.configure_both();
    let before = State::of(&host.network.plat);
    let mut a = host.start("a");
    let b = host.start("b");
    assert_eq!(host.forwards(), [true; 3]);
    for (instance, pool, port) in [("a", "203.0.113.0/29", 9464), ("b", "203.0.113.8/29", 9465)] {
        assert!(host.has_guard(instance), "{instance}");
        let metrics = scrape(&host.network.plat, port);
        assert_eq!(metrics.values("instance"), [instance.to_owned()].into());
        let status = host.ask("status", instance);
        assert!(status.ok() && status.stdout.contains(pool), "{status:?}");
    }

    let (of_a, of_b) = (host.flows("a"), host.flows("b"));
    for flow in of_a.iter().chain(&of_b) {
        assert!(flow.goes_on());
    }
    none_lost(of_a, "both run");
    assert!(a.stop().success(), "{}", a.output());
    assert_eq!(host.forwards(), [true; 3], "a has gone");
    assert!(host.has_guard("b") && !host.has_guard("a"));
    none_lost(of_b, "a has gone");

    // It comes again, and it is the other that dies.
    let mut a = host.start("a");
    let of_a = host.flows("a");
    host.kill(b, "b");
    assert_eq!(host.forwards(), [true; 3], "b was killed");
    assert!(host.has_guard("a") && !host.has_guard("b"));
    none_lost(of_a, "b was killed");
    assert!(a.stop().success(), "{}", a.output());
    State::of(&host.network.plat).assert_is(&before, "in the end");
}

/// Nobody cleans up after the one that was killed until the other has gone, too.
#[test]
fn one_instance_is_killed_and_the_other_ends_before_the_cleanup() {
    let host = Host::new("instances-late");
    host.configure_both();
    let before = State::of(&host.network.plat);
    let (mut a, mut b) = (host.start("a"), host.start("b"));
    a.signal(Signal::SIGKILL);
    assert!(!a.wait(SOON).success());
    let of_b = host.flows("b");
    none_lost(of_b, "a was killed");
    assert!(b.stop().success(), "{}", b.output());
    assert_eq!(host.forwards(), [false; 3]);
    let cleaned = host.ask("cleanup", "a");
    assert!(cleaned.ok(), "{cleaned:?}");
    State::of(&host.network.plat).assert_is(&before, "in the end");
}

/// In whatever order they look at the host and change it, neither takes what the other has made for
/// how it was.
#[test]
fn two_instances_that_start_and_end_at_once_leave_nothing() {
    let host = Host::new("instances-once");
    host.configure_both();
    let before = State::of(&host.network.plat);
    for round in 0..5 {
        let mut both = ["a", "b"].map(|it| host.launch(it));
        for plat in &both {
            plat.wait_for("running", STARTED);
        }
        assert!(host.has_guard("a") && host.has_guard("b"), "{round}");
        for plat in &both {
            plat.signal(Signal::SIGTERM);
        }
        for plat in &mut both {
            assert!(plat.wait(SOON).success(), "{}", plat.output());
        }
        let when = format!("after round {round}");
        State::of(&host.network.plat).assert_is(&before, &when);
    }
}

/// The ports of the host's own address in two halves.
#[test]
fn two_instances_share_the_hosts_own_address() {
    let host = Host::new("instances-ports");
    for (instance, prefix, ports) in [
        ("a", "2001:db8:64::/96", "61001-63000"),
        ("b", "2001:db8:65::/96", "63001-65535"),
    ] {
        let text = format!(
            "prefixes = [\"{prefix}\"]\npool_mode = \"host-ports\"\nhost_ports = \"{ports}\"\n\
             allow_destinations = [\"198.51.100.0/24\"]\n"
        );
        host.configure(instance, &text);
    }
    let before = State::of(&host.network.plat);
    let mut a = host.start("a");
    let mut b = host.start("b");
    let flows = [host.flows("a"), host.flows("b")];
    for (instance, halves) in [("a", 61_001..=63_000), ("b", 63_001..=65_535)] {
        let listed = host.ask("bib list", instance);
        let lines: Vec<_> = listed.stdout.lines().skip(1).collect();
        assert!(lines.len() >= 2, "{listed:?}");
        for line in lines {
            let pool = line.split_whitespace().nth(2).unwrap();
            let port = pool.strip_prefix("192.0.2.1:").unwrap().parse().unwrap();
            assert!(halves.contains(&port), "{instance}: {line}");
        }
    }
    let [of_a, of_b] = flows;
    none_lost(of_a, "both run");
    assert!(a.stop().success(), "{}", a.output());
    none_lost(of_b, "a has gone");
    assert!(b.stop().success(), "{}", b.output());
    State::of(&host.network.plat).assert_is(&before, "in the end");
}
