//! A process that is killed, wherever it stands, leaves nothing that `cleanup` does not take back,
//! and breaks nothing until then.

use std::{net::Ipv6Addr, process::Command, time::Duration};

use lab::{
    eventually,
    namespace::Namespace,
    process::{Daemon, command},
    state::State,
    topology::{Network, SERVER, SERVER6, program, program_with_fault_points},
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
