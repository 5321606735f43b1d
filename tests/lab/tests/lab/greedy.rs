//! One client opens more flows than there is room for: the others do not notice, because it gets no
//! more than its share.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use lab::{
    namespace::Namespace,
    topology::{Network, Options, SERVER_BY_PREFIX, SERVER6},
};

use super::flows::{listen_silently, open_flows};

/// Who cannot have enough: the only host of its network.
const GREEDY: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0x8000, 0, 0, 0, 1);
const FLOWS: u64 = 200_000;
/// Half of what it wants.
const LIMITS: &str = "[limits]\nbindings = 100000\nsessions = 100000\n";
/// What 99 of 100 connects may take longer by chance: the whole of one takes about as much.
const SLACK: Duration = Duration::from_micros(500);
/// How often a connection is opened in one measurement.
const CONNECTS: usize = 300;

/// How long it takes to connect: 99 of 100 times, no longer.
fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

fn connect_to(server: IpAddr) -> Duration {
    let start = Instant::now();
    let address = SocketAddr::new(server, 80);
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(8));
    stream.unwrap_or_else(|error| panic!("{server}: {error}"));
    start.elapsed()
}

/// Connections through the PLAT, and in between as many that do not need it: what the machine is
/// doing besides is the same for both.
fn measure(host: &Namespace) -> (Duration, Duration) {
    let (through, past) = host.run(|| {
        let connects = (0..CONNECTS).map(|_| {
            let through = connect_to(SERVER_BY_PREFIX.into());
            (through, connect_to(SERVER6.into()))
        });
        connects.unzip::<_, _, Vec<_>, Vec<_>>()
    });
    (p99(through), p99(past))
}

#[test]
fn one_client_with_200_000_flows_hurts_no_other() {
    let options = Options {
        capture: false,
        ..Options::default()
    };
    let network = Network::new("greedy", &options);
    network.add_lost_clients("2001:db8:1:8000::/64");
    let plat = network.start_plat_with(LIMITS);
    let _silent = listen_silently(&network);
    network.await_address();
    let host = &network.host;

    let (before, before_past) = measure(host);
    // Others connect all the while.
    let done = Arc::new(AtomicBool::new(false));
    let is_done = Arc::clone(&done);
    let others = host.spawn(move || {
        let mut connected = 0u32;
        while !is_done.load(Ordering::Relaxed) {
            connect_to(SERVER_BY_PREFIX.into());
            connected += 1;
            thread::sleep(Duration::from_millis(5));
        }
        connected
    });
    open_flows(&network, GREEDY, FLOWS, 4);
    done.store(true, Ordering::Relaxed);
    assert!(others.join().unwrap() > 20);
    let (after, after_past) = measure(host);

    // Every flow came to the PLAT, and has a session or was refused by name.
    let counters = plat.counters();
    let from_v6 = counters.direction("from IPv6");
    let dropped: u64 = counters.drops.values().sum();
    let overflowed = network.plat.device("plat0").overflowed;
    assert!(from_v6.came + overflowed > FLOWS, "{counters:?}");
    assert!(
        overflowed < FLOWS / 100,
        "{overflowed} lost before the PLAT"
    );
    assert!(from_v6.came - from_v6.passed <= dropped, "{counters:?}");
    let refused = counters.dropped("address-sessions") + counters.dropped("address-bindings");
    assert!(refused > FLOWS / 2, "{counters:?}");
    // Whatever else the machine did for a moment: three times in a row it is the PLAT.
    let mut seen = vec![(after, after_past)];
    let hurts = |(after, past): (Duration, Duration)| {
        let slower = past.as_secs_f64() / before_past.as_secs_f64();
        after > before.mul_f64(2.0 * slower.max(1.0)) + SLACK
    };
    while seen.iter().all(|it| hurts(*it)) && seen.len() < 3 {
        seen.push(measure(host));
    }
    assert!(
        !seen.iter().all(|it| hurts(*it)),
        "connects took {before:?} and {before_past:?} past the PLAT, then {seen:?}"
    );
}
