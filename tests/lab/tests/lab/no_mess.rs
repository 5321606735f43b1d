//! A process that is killed, wherever it stands, leaves nothing that `cleanup` does not take back,
//! and breaks nothing until then.

use std::{
    fs::{self, Permissions},
    net::Ipv6Addr,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use lab::{
    eventually,
    namespace::Namespace,
    process::{Daemon, command},
    state::State,
    topology::{Network, SERVER, SERVER6, program, program_with_fault_points},
    wiring::hold_tun,
};
use nix::sys::signal::Signal;

use crate::lifecycle::settled;

const SOON: Duration = Duration::from_secs(5);
const STARTED: Duration = Duration::from_secs(15);

/// The router that the PLAT's machine is next to.
const ROUTER_OF_PLAT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, 1);

/// More points than this no program has: it must have forgotten to count.
const MANY: u32 = 200;

/// A program of ours on a host of the lab.
struct Victim<'a> {
    network: &'a Network,
    host: &'a Namespace,
    name: &'static str,
    /// What `run` is given.
    arguments: Vec<String>,
    state_directory: String,
    /// What it says when it has done everything.
    running: &'static str,
    /// Somebody whom the host reaches by IPv6 without it.
    native: Ipv6Addr,
}

impl<'a> Victim<'a> {
    fn clat(network: &'a Network, arguments: &[&str]) -> Self {
        Self {
            network,
            host: &network.host,
            name: "clat",
            arguments: arguments.iter().map(|it| (*it).to_owned()).collect(),
            state_directory: network.path("victim").display().to_string(),
            running: " running: ",
            native: SERVER6,
        }
    }

    fn plat(network: &'a Network) -> Self {
        let config = network.write_plat_config("");
        Self {
            network,
            host: &network.plat,
            name: "plat",
            arguments: vec!["--config".to_owned(), config.display().to_string()],
            state_directory: network.path("victim").display().to_string(),
            running: "running",
            native: ROUTER_OF_PLAT,
        }
    }

    /// With another configuration. The packets of the lab's server need not get through.
    fn plat_with(network: &'a Network, config: &str) -> Self {
        let file = network.path("victim.toml");
        fs::write(&file, config).unwrap();
        Self {
            arguments: vec!["--config".to_owned(), file.display().to_string()],
            ..Self::plat(network)
        }
    }

    fn command(&self, subcommand: &str, fault_point: Option<u32>) -> Command {
        let mut command = match fault_point {
            Some(_) => command(program_with_fault_points(self.name)),
            None => command(program(self.name)),
        };
        command.arg(subcommand);
        if subcommand == "run" {
            command.args(&self.arguments);
        }
        command.args(["--state-dir", &self.state_directory]);
        if let Some(fault_point) = fault_point {
            command.env("OPENCLAT_FAULT_POINT", fault_point.to_string());
        }
        command
    }

    /// Runs it, and ends it when it is running, unless it dies at `fault_point` before. The point
    /// that it died at.
    fn run_until(&self, fault_point: u32) -> Option<String> {
        let command = self.command("run", Some(fault_point));
        let mut daemon = Daemon::start(self.host, self.name, command).unwrap();
        let is_over = || daemon.output().contains(self.running) || daemon.output().contains(DIED);
        assert!(eventually(STARTED, is_over), "{}", daemon.output());
        daemon.signal(Signal::SIGTERM);
        daemon.wait(SOON);
        died_at(&daemon)
    }

    /// Cleans up, unless it dies at `fault_point` before.
    fn clean_up(&self, fault_point: Option<u32>) -> Option<String> {
        let command = self.command("cleanup", fault_point);
        let mut daemon = Daemon::start(self.host, self.name, command).unwrap();
        let status = daemon.wait(SOON);
        let died = died_at(&daemon);
        assert!(status.success() || died.is_some(), "{}", daemon.output());
        died
    }

    /// Kills it at every point that it comes to, from its start to its end.
    fn die_everywhere(&self) {
        let before = State::of(self.host);
        let mut points = Vec::new();
        while let Some(point) = self.run_until(points.len() as u32 + 1) {
            self.assert_native_ipv6(&point);
            self.clean_up(None);
            State::of(self.host).assert_is(&before, &format!("killed at {point}"));
            points.push(point);
            assert!((points.len() as u32) < MANY);
        }
        State::of(self.host).assert_is(&before, "in the end");
        // Everything there is to kill it at.
        assert!(points.len() > 10, "{points:?}");
    }

    fn assert_native_ipv6(&self, when: &str) {
        let line = format!("ping -n -6 -c 1 -W 2 {}", self.native);
        let pinged = self.host.sh(&line);
        assert!(pinged.ok(), "{when}: {pinged:?}");
    }

    /// Kills what cleans up after it at every point.
    fn die_again_while_cleaning_up(&self) {
        let before = State::of(self.host);
        for fault_point in 1..MANY {
            let mut daemon =
                Daemon::start(self.host, self.name, self.command("run", None)).unwrap();
            daemon.wait_for(self.running, STARTED);
            daemon.signal(Signal::SIGKILL);
            daemon.wait(SOON);
            let died = self.clean_up(Some(fault_point));
            let when = format!("killed at {died:?} while cleaning up");
            self.assert_native_ipv6(&when);
            if died.is_some() {
                self.clean_up(None);
            }
            State::of(self.host).assert_is(&before, &when);
            if died.is_none() {
                assert!(fault_point > 3);
                return;
            }
        }
        panic!("no end");
    }
}

/// What a program says before it kills itself.
const DIED: &str = "fault point ";

fn died_at(daemon: &Daemon) -> Option<String> {
    // The last words may still be on their way.
    eventually(Duration::from_millis(200), || {
        daemon.output().contains(DIED)
    });
    let output = daemon.output();
    let line = output.lines().find(|line| line.starts_with(DIED))?;
    Some(line[DIED.len()..].to_owned())
}

/// Sends pings over native IPv6 until it is asked how many were lost.
struct Pings(Daemon);

impl Pings {
    fn start(victim: &Victim<'_>) -> Self {
        let mut ping = command("ping");
        ping.args(["-n", "-6", "-q", "-i", "0.1", "-W", "1"]);
        ping.arg(victim.native.to_string());
        Self(Daemon::start(victim.host, "ping", ping).unwrap())
    }

    fn assert_none_lost(mut self) {
        self.0.signal(Signal::SIGINT);
        self.0.wait(SOON);
        self.0.wait_for(" 0% packet loss", SOON);
    }
}

#[test]
fn clat_killed_at_any_point_is_cleaned_up_after() {
    let network = settled("fault-points");
    let _plat = network.start_plat();
    let victim = Victim::clat(&network, &[]);
    let pings = Pings::start(&victim);
    victim.die_everywhere();
    pings.assert_none_lost();
    // And nothing keeps the next one from working.
    let _clat = network.start_clat();
    network.host.must(&format!("ping -n -c 1 -W 2 {SERVER}"));
}

/// It changes settings of the kernel, too.
#[test]
fn clat_with_a_routed_prefix_killed_at_any_point_is_cleaned_up_after() {
    let network = settled("fault-points-routed");
    // An interface of its own mind, which has to be so again. The kernel forgets its routers at
    // this; they say again that they are there.
    network.host.set("net/ipv6/conf/lo/forwarding", "1");
    network.advertiser.change(|_| {});
    let has_router = || network.host.must("ip -6 route").contains("default");
    assert!(eventually(SOON, has_router));
    let victim = Victim::clat(&network, &["--routed", "2001:db8:1:f00::464"]);
    let pings = Pings::start(&victim);
    victim.die_everywhere();
    pings.assert_none_lost();
}

#[test]
fn a_cleanup_killed_at_any_point_is_finished_by_the_next_one() {
    let network = settled("fault-points-cleanup");
    Victim::clat(&network, &[]).die_again_while_cleaning_up();
}

#[test]
fn plat_killed_at_any_point_is_cleaned_up_after() {
    let network = settled("fault-points-plat");
    let victim = Victim::plat(&network);
    let pings = Pings::start(&victim);
    victim.die_everywhere();
    victim.die_again_while_cleaning_up();
    pings.assert_none_lost();
    let _plat = victim.network.start_plat();
}

/// The ports of a host's own address, with some that were reserved before.
#[test]
fn plat_with_shared_ports_killed_at_any_point_is_cleaned_up_after() {
    let network = settled("fault-points-ports");
    let reserved = "net/ipv4/ip_local_reserved_ports";
    network.plat.set(reserved, "8080,62000-62010");
    let victim = Victim::plat_with(&network, "pool_mode = \"host-ports\"\n");
    let pings = Pings::start(&victim);
    victim.die_everywhere();
    victim.die_again_while_cleaning_up();
    pings.assert_none_lost();
    refuse_everything(&victim, 8);
}

#[test]
fn plat_with_spare_addresses_killed_at_any_point_is_cleaned_up_after() {
    let network = settled("fault-points-arp");
    // One that somebody else answers for already.
    network.plat.must("ip neigh add proxy 192.0.2.3 dev p1");
    let victim = Victim::plat_with(
        &network,
        "pool_mode = \"arp\"\npool = [\"192.0.2.3-192.0.2.4\"]\n",
    );
    // Each start takes some seconds: the addresses are asked for.
    victim.die_everywhere();
}

#[test]
fn plat_with_a_private_pool_killed_at_any_point_is_cleaned_up_after() {
    let network = settled("fault-points-nat");
    let victim = Victim::plat_with(&network, "pool_mode = \"masquerade\"\n");
    victim.die_everywhere();
    victim.die_again_while_cleaning_up();
    refuse_everything(&victim, 8);
}

/// Two are started in the same moment: one works, and the other says why it does not.
#[test]
fn of_two_that_start_at_once_one_refuses() {
    let network = settled("at-once");
    let _plat = network.start_plat();
    let victim = Victim::clat(&network, &[]);
    for _ in 0..3 {
        let before = State::of(&network.host);
        let mut both = [(); 2].map(|()| {
            let command = victim.command("run", None);
            Daemon::start(&network.host, "clat", command).unwrap()
        });
        let refused = |it: &Daemon| it.output().contains("another instance is running");
        assert!(eventually(SOON, || both.iter().any(refused)));
        both.sort_by_key(refused);
        let [one, other] = &mut both;
        assert_eq!(other.wait(SOON).code(), Some(1));
        let said = other.output();
        assert!(said.contains("what to do: stop that instance"), "{said}");
        one.wait_for(victim.running, STARTED);
        network.host.must(&format!("ping -n -c 1 -W 2 {SERVER}"));
        one.stop();
        State::of(&network.host).assert_is(&before, "in the end");
    }
}

/// Runs `clat run` by a shell line with `{clat}` in it, which must fail: its exit code and what it
/// says. The host must be as before.
fn must_fail(network: &Network, line: &str) -> (Option<i32>, String) {
    let before = State::of(&network.host);
    let clat = format!(
        "{} run --state-dir {}",
        copy_for_everybody(network).display(),
        network.path("failing").display()
    );
    let mut shell = command("sh");
    shell.args(["-c", &line.replace("{clat}", &clat)]);
    let mut daemon = Daemon::start(&network.host, "clat", shell).unwrap();
    let code = daemon.wait(Duration::from_secs(40)).code();
    std::thread::sleep(Duration::from_millis(100));
    let said = daemon.output();
    State::of(&network.host).assert_is(&before, &said);
    (code, said)
}

/// The program where a user without rights can start it, and a state directory for that user.
fn copy_for_everybody(network: &Network) -> PathBuf {
    let directory = network.path("failing");
    fs::create_dir_all(&directory).unwrap();
    for path in [&directory, &network.path("")] {
        fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    }
    let copy = directory.join("clat");
    fs::copy(program("clat"), &copy).unwrap();
    copy
}

#[test]
fn without_dev_net_tun_it_says_what_to_do() {
    let network = settled("no-tun");
    let line = "exec unshare --mount sh -c 'mount -t tmpfs none /dev/net && exec {clat}'";
    let (code, said) = must_fail(&network, line);
    assert_eq!(code, Some(10), "{said}");
    assert!(said.contains("this system has no /dev/net/tun"), "{said}");
    assert!(
        said.contains("what to do: load the kernel module"),
        "{said}"
    );
}

#[test]
fn a_virtual_interface_of_another_program_is_left_to_it() {
    let network = settled("tun-busy");
    let _held = hold_tun(&network.host, "clat0");
    let (code, said) = must_fail(&network, "exec {clat}");
    assert_eq!(code, Some(1), "{said}");
    let sentence = "the interface clat0 is in use by another program";
    assert!(said.contains(sentence), "{said}");
    assert!(said.contains("what to do: stop that program"), "{said}");
    assert!(network.host.has_interface("clat0"));
}

/// The system refuses one thing after another, each time after having allowed what came before.
#[test]
fn without_permission_halfway_everything_is_undone() {
    let network = settled("eperm-clat");
    refuse_everything(&Victim::clat(&network, &[]), 7);
    refuse_everything(
        &Victim::clat(&network, &["--routed", "2001:db8:1:f00::464"]),
        8,
    );
}

#[test]
fn plat_without_permission_halfway_everything_is_undone() {
    let network = settled("eperm-plat");
    refuse_everything(&Victim::plat(&network), 7);
}

/// At least `least` things are refused.
fn refuse_everything(victim: &Victim<'_>, least: u32) {
    let before = State::of(victim.host);
    for number in 1..MANY {
        let mut command = victim.command("run", Some(0));
        command.env("OPENCLAT_FAULT_REFUSAL", number.to_string());
        let mut daemon = Daemon::start(victim.host, victim.name, command).unwrap();
        let is_refused = || daemon.output().contains("fault refusal ");
        let is_running = || daemon.output().contains(victim.running);
        assert!(eventually(STARTED, || is_refused() || is_running()));
        if is_running() {
            assert!(daemon.stop().success());
            assert!(number > least, "{number}");
            return;
        }
        assert_eq!(daemon.wait(SOON).code(), Some(5), "{}", daemon.output());
        daemon.wait_for("what to do: ", SOON);
        daemon.wait_for("CAP_NET_ADMIN", SOON);
        let when = format!("after refusal {number}");
        State::of(victim.host).assert_is(&before, &when);
        let journal = PathBuf::from(&victim.state_directory).join("journal.jsonl");
        assert_eq!(fs::read_to_string(journal).unwrap(), "", "{when}");
    }
    panic!("no end");
}

/// A program that it needs never ends.
#[test]
fn a_program_that_hangs_does_not_hang_it() {
    let network = settled("nft-hangs");
    let fake = network.path("nft");
    fs::write(&fake, "#!/bin/sh\nexec sleep 98765\n").unwrap();
    fs::set_permissions(&fake, Permissions::from_mode(0o755)).unwrap();
    let line = format!("PATH={}:$PATH exec {{clat}}", network.path("").display());
    let (code, said) = must_fail(&network, &line);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("192.0.0.0/29 hidden"), "{said}");
    let sleeping = network.host.sh("pgrep -fx 'sleep 98765'");
    assert_eq!(sleeping.stdout, "");
}

/// Without a firewall it works all the same, and says what it lacks.
#[test]
fn a_firewall_that_refuses_is_done_without() {
    let network = settled("nft-refuses");
    let _plat = network.start_plat();
    let before = State::of(&network.host);
    let fake = network.path("nft");
    fs::write(&fake, "#!/bin/sh\necho no tables here >&2; exit 1\n").unwrap();
    fs::set_permissions(&fake, Permissions::from_mode(0o755)).unwrap();
    let mut clat = network.clat_command("run", &[]);
    let path = std::env::var("PATH").unwrap();
    clat.env("PATH", format!("{}:{path}", network.path("").display()));
    let mut clat = Daemon::start(&network.host, "clat", clat).unwrap();
    clat.wait_for(" running: ", STARTED);
    let said = clat.output();
    assert!(said.contains("not possible here"), "{said}");
    assert!(said.contains("no tables here"), "{said}");
    network.host.must(&format!("ping -n -c 1 -W 2 {SERVER}"));
    assert!(clat.stop().success());
    State::of(&network.host).assert_is(&before, "in the end");
}
