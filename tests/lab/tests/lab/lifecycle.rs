//! Start, end, crash: what is made is taken back.

use std::{fs, time::Duration};

use lab::{
    eventually,
    namespace::Namespace,
    process::{Daemon, command},
    state::State,
    topology::{Network, Options, SERVER, program},
};
use nix::sys::signal::Signal;

use crate::Running;

const SOON: Duration = Duration::from_secs(5);

/// A network whose host has settled, so that nothing changes by itself.
pub(crate) fn settled(test: &str) -> Network {
    let network = Network::new(test, &Options::default());
    let is_settled = || {
        let addresses = network.host.must("ip -6 addr show dev h0");
        addresses.matches("inet6").count() >= 2 && !addresses.contains("tentative")
    };
    assert!(eventually(SOON, is_settled));
    std::thread::sleep(Duration::from_millis(200));
    network
}

#[test]
fn sigterm_leaves_nothing() {
    let network = settled("sigterm");
    let _plat = network.start_plat();
    let before = State::of(&network.host);
    let mut clat = network.start_clat();
    assert_ne!(State::of(&network.host), before);
    network.host.must(&format!("ping -n -c 1 -W 2 {SERVER}"));
    assert!(clat.stop().success());
    assert!(clat.output().contains("everything is taken back"));
    State::of(&network.host).assert_is(&before, "in the end");
}

#[test]
fn plat_sigterm_leaves_nothing() {
    let network = settled("plat-sigterm");
    let before = State::of(&network.plat);
    let mut plat = network.start_plat();
    assert_ne!(State::of(&network.plat), before);
    assert!(plat.stop().success());
    State::of(&network.plat).assert_is(&before, "in the end");
}

#[test]
fn cleanup_after_a_crash() {
    let network = settled("crash");
    let _plat = network.start_plat();
    let before = State::of(&network.host);
    let mut clat = network.start_clat();

    // Not while it lives.
    let refused = start(&network, "cleanup");
    assert_ne!(refused.0, Some(0));
    assert!(
        refused.1.contains("another instance is running"),
        "{}",
        refused.1
    );

    clat.signal(Signal::SIGKILL);
    clat.wait(SOON);
    // Native IPv6 works on while the remains are there.
    network.host.must("ping -n -6 -c 1 -W 2 2001:db8:1:1::1");
    let left = State::of(&network.host);
    assert!(left.mentions("blackhole"));
    let cleaned = start(&network, "cleanup");
    assert_eq!(cleaned.0, Some(0), "{}", cleaned.1);
    assert!(cleaned.1.contains("taken back: "), "{}", cleaned.1);
    State::of(&network.host).assert_is(&before, "in the end");
    let again = start(&network, "cleanup");
    assert_eq!((again.0, again.1.trim()), (Some(0), "nothing to clean up"));
}

/// The same state directory is seen from every network namespace, and what is set there may be
/// somebody else's.
#[test]
fn nothing_is_taken_back_in_another_network_namespace() {
    let network = settled("elsewhere");
    let _plat = network.start_plat();
    let before = State::of(&network.host);
    let mut clat = network.launch_clat(&["--routed", "2001:db8:1:f00::464"]);
    clat.wait_for(" running: ", SOON);
    clat.signal(Signal::SIGKILL);
    clat.wait(SOON);
    // The router forwards, too, and by its own will.
    let forwards = "cat /proc/sys/net/ipv6/conf/all/forwarding";
    assert_eq!(network.router.must(forwards).trim(), "1");
    let (host, router) = (State::of(&network.host), State::of(&network.router));
    for subcommand in ["cleanup", "run"] {
        let (code, said) = start_in(&network.router, &network, subcommand);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("in another network namespace"), "{said}");
        assert!(said.contains("nsenter"), "{said}");
        State::of(&network.router).assert_is(&router, subcommand);
        State::of(&network.host).assert_is(&host, subcommand);
    }
    let cleaned = start(&network, "cleanup");
    assert_eq!(cleaned.0, Some(0), "{}", cleaned.1);
    State::of(&network.host).assert_is(&before, "in the end");
}

/// Runs a subcommand of clat to its end: exit code and everything it said.
fn start(network: &Network, subcommand: &str) -> (Option<i32>, String) {
    start_in(&network.host, network, subcommand)
}

fn start_in(host: &Namespace, network: &Network, subcommand: &str) -> (Option<i32>, String) {
    let command = network.clat_command(subcommand, &[]);
    let mut daemon = Daemon::start(host, "clat", command).unwrap();
    let code = daemon.wait(SOON).code();
    std::thread::sleep(Duration::from_millis(100));
    (code, daemon.output())
}

#[test]
fn a_successor_cleans_up_by_itself() {
    let network = settled("successor");
    let _plat = network.start_plat();
    let before = State::of(&network.host);
    let mut clat = network.start_clat();
    clat.signal(Signal::SIGKILL);
    clat.wait(SOON);
    let mut clat = network.start_clat();
    assert!(clat.output().contains("cleaning up after a crash"));
    network.host.must(&format!("ping -n -c 1 -W 2 {SERVER}"));
    clat.stop();
    State::of(&network.host).assert_is(&before, "in the end");
}

#[test]
fn a_second_instance_refuses() {
    let running = Running::new("twice");
    let (code, said) = start(&running.network, "run");
    assert_eq!(code, Some(1));
    assert!(said.contains("another instance is running"), "{said}");
    assert!(said.contains("what to do:"), "{said}");
    running
        .network
        .host
        .must(&format!("ping -n -c 1 -W 2 {SERVER}"));
}

#[test]
fn without_permission_it_says_what_to_do() {
    let network = Network::new("eperm", &Options::default());
    let program = program("clat");
    let line = format!(
        "setpriv --inh-caps=-all --bounding-set=-net_raw,-net_admin {} run --state-dir {}",
        program.display(),
        network.path("x").display()
    );
    let ran = network.host.sh(&line);
    assert_eq!(ran.code, Some(5), "{ran:?}");
    assert!(ran.stderr.contains("CAP_NET_RAW"), "{ran:?}");
}

/// An ordinary user with two capabilities, and a /dev/net/tun that users may open.
#[test]
fn a_user_with_capabilities_is_enough() {
    let network = Network::new("user", &Options::default());
    let _plat = network.start_plat();
    let directory = network.path("user");
    fs::create_dir_all(&directory).unwrap();
    for path in [&directory, &network.path("")] {
        network.host.must(&format!("chmod 0777 {}", path.display()));
    }
    // The program must lie where the user can see it.
    let copy = directory.join("clat");
    fs::copy(program("clat"), &copy).unwrap();
    let caps = "+net_admin,+net_raw";
    let script = format!(
        "mount -t tmpfs none /dev/net && mknod -m 0666 /dev/net/tun c 10 200 && \
         exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps={caps} \
         --ambient-caps={caps} --bounding-set=-all,{caps} {} run --state-dir {}",
        copy.display(),
        directory.join("state").display()
    );
    let mut command = command("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    let mut clat = Daemon::start(&network.host, "clat", command).unwrap();
    clat.wait_for(" running: ", Duration::from_secs(10));
    network.host.must(&format!("ping -n -c 1 -W 2 {SERVER}"));
    let uid = network
        .host
        .must(&format!("grep ^Uid /proc/{}/status", clat.pid()));
    assert!(uid.contains("65534"), "{uid}");
    assert!(clat.stop().success());
    assert!(!network.host.must("ip -6 route").contains("blackhole"));
}

#[test]
fn counters_are_printed_on_request() {
    let running = Running::new("counters");
    running
        .network
        .host
        .must(&format!("ping -n -c 3 -i 0.2 -W 2 {SERVER}"));
    let _ = running
        .network
        .host
        .sh(&format!("ping -n -c 1 -W 1 -t 1 {SERVER}"));
    for daemon in [&running.clat, &running.plat] {
        daemon.signal(Signal::SIGUSR1);
        daemon.wait_for("so far", SOON);
    }
    running.clat.wait_for("hop-limit-exceeded: ", SOON);
    // Ours, and what the CLAT sent to see whether the PLAT answers.
    let number = |daemon: &Daemon, before: &str| {
        let output = daemon.output();
        let (_, after) = output.split_once(before)?;
        after.split(' ').next()?.parse::<u32>().ok()
    };
    let counted = || number(&running.clat, "out: ") >= Some(4);
    assert!(eventually(SOON, counted), "{}", running.clat.output());
    let counted = || number(&running.plat, "ICMP: ") >= Some(1);
    assert!(eventually(SOON, counted), "{}", running.plat.output());
}
