//! The lab itself: its instruments do what they say.

use std::{
    fs,
    time::{Duration, Instant},
};

use lab::{
    eventually,
    impair::Impairment,
    namespace::Namespace,
    pair::Pair,
    process::{Daemon, command},
    scratch::Scratch,
    servers::fetch,
    topology::{Network, Options, SERVER, SERVER6},
};
use nix::sys::signal::Signal;

use crate::Running;

const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_signal_to_the_demo_leaves_no_directory() {
    let namespace = Namespace::new("demo").unwrap();
    let temporary = Scratch::new("demo-signal").unwrap();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut demo = command(env!("CARGO_BIN_EXE_openclat-demo"));
        demo.env("TMPDIR", temporary.path());
        let mut demo = Daemon::start(&namespace, "demo", demo).unwrap();
        demo.wait_for("clat run   ", Duration::from_secs(10));
        let left = || fs::read_dir(temporary.path()).unwrap().count();
        assert!(eventually(SOON, || left() == 1));
        demo.signal(signal);
        assert_eq!(demo.wait(SOON).code(), Some(128 + signal as i32));
        assert_eq!(left(), 0);
    }
}

/// How long a download over native IPv6 takes on a link that carries `rate` bytes per second.
fn download_at(rate: u64, len: u64) -> Duration {
    let options = Options {
        impairment: Some(Impairment {
            rate,
            ..Impairment::default()
        }),
        ..Options::default()
    };
    let network = Network::new("rate", &options);
    let get = |len: u64| {
        let path = format!("/bytes/{len}");
        network.host.run(move || fetch(SERVER6.into(), &path))
    };
    assert!(eventually(SOON, || get(1).is_ok()));
    let start = Instant::now();
    assert_eq!(get(len).unwrap().len, len);
    start.elapsed()
}

#[test]
fn a_link_carries_what_its_rate_allows() {
    const LEN: u64 = 2_000_000;
    let (slow, fast) = (download_at(1_000_000, LEN), download_at(4_000_000, LEN));
    let (slow, fast) = (slow.as_secs_f64(), fast.as_secs_f64());
    // Not more, whatever the machine is doing; nor much less.
    assert!(slow > 1.9 && fast > 0.45, "{slow} s and {fast} s");
    let ratio = slow / fast;
    assert!((1.5..6.0).contains(&ratio), "{slow} s and {fast} s");
}

/// As on a real host, whose addresses are tentative when the programs start.
#[test]
fn with_addresses_that_the_kernel_checks_it_works_too() {
    let options = Options {
        kernel_dad: true,
        ..Options::default()
    };
    let running = Running::with(Pair::OURS, "kernel-dad", &options);
    let host = &running.network.host;
    assert_eq!(host.get("net/ipv6/conf/h0/accept_dad"), "1");
    host.must(&format!("ping -n -c 2 -i 0.2 -W 2 {SERVER}"));
    host.must(&format!("ping -n -6 -c 1 -W 2 {SERVER6}"));
    running.assert_nothing_lost(&[]);
}
