//! Several workers are one PLAT.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use lab::{
    process::{Daemon, command},
    servers::ECHO_PORT,
    topology::{Network, Options, SERVER_BY_PREFIX, program},
};

const SOON: Duration = Duration::from_secs(5);

fn network(name: &str) -> (Network, Daemon) {
    let network = Network::new(name, &Options::default());
    let plat = network.start_plat_with("workers = 2");
    network.await_address();
    (network, plat)
}

/// How often each worker has slept: once for every batch that it was woken for.
fn sleeps(plat: &Daemon) -> Vec<u64> {
    let tasks = fs::read_dir(format!("/proc/{}/task", plat.pid())).unwrap();
    let status = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap());
    let of_workers = status.filter(|it| it.starts_with("Name:\tplat-"));
    of_workers
        .map(|status| {
            let line = status
                .lines()
                .find_map(|it| it.strip_prefix("voluntary_ctxt_switches:"));
            line.unwrap().trim().parse().unwrap()
        })
        .collect()
}

/// A datagram there and back. Not every one of them may be lost.
fn echoes(socket: &UdpSocket, len: usize) -> bool {
    let (data, mut answer) = (vec![7; len], [0; 8192]);
    (0..5).any(|_| {
        socket.send(&data).is_ok() && matches!(socket.recv(&mut answer), Ok(back) if back == len)
    })
}

/// Hundreds of flows of every kind through two workers, whichever queues the kernel chooses: none
/// is lost, both workers have a part in it, and what went in is accounted for.
#[test]
fn many_flows_through_two_workers() {
    let (network, mut plat) = network("workers");
    let link = network.plat.must("ip -d link show plat0");
    assert!(link.contains("numqueues 2"), "{link}");
    let before = sleeps(&plat);
    assert_eq!(before.len(), 2);
    network.host.run(|| {
        let echo = SocketAddr::from((SERVER_BY_PREFIX, ECHO_PORT));
        let sockets: Vec<_> = (0..200)
            .map(|_| {
                let socket = UdpSocket::bind("[::]:0").unwrap();
                socket.connect(echo).unwrap();
                socket
                    .set_read_timeout(Some(Duration::from_millis(500)))
                    .unwrap();
                socket
            })
            .collect();
        // Small ones, and ones that travel in fragments both ways.
        for len in [20, 4000] {
            let lost: Vec<_> = sockets.iter().filter(|it| !echoes(it, len)).collect();
            assert!(lost.is_empty(), "{len} bytes: {lost:?}");
        }
        let mut streams: Vec<_> = (0..50).map(|_| TcpStream::connect(echo).unwrap()).collect();
        for stream in &mut streams {
            stream
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            stream.write_all(b"through").unwrap();
        }
        for stream in &mut streams {
            let mut answer = [0; 7];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, *b"through");
        }
    });
    // Each has another identifier.
    for _ in 0..10 {
        network
            .host
            .must(&format!("ping -6 -c 1 -W 2 {SERVER_BY_PREFIX}"));
    }
    let after = sleeps(&plat);
    let worked = before.iter().zip(&after).filter(|(a, b)| **b > **a + 50);
    assert_eq!(worked.count(), 2, "{before:?} {after:?}");
    let counters = plat.counters();
    assert_eq!(counters.dropped("ring-full"), 0);
    let dropped: u64 = counters.drops.values().sum();
    let missing: u64 = counters
        .directions
        .values()
        .map(|it| it.came - it.passed)
        .sum();
    assert_eq!(missing, dropped, "{counters:?}");
    assert!(plat.stop().success());
    assert!(!network.plat.has_interface("plat0"));
}

/// A second program would be given queues of the interface, and take half of the packets away.
#[test]
fn the_interface_is_not_shared_with_a_second_plat() {
    let (network, mut plat) = network("workers-twice");
    let mut second = command(program("plat"));
    second
        .args(["run", "--config"])
        .arg(network.path("plat.toml"));
    second.arg("--state-dir").arg(network.path("second-state"));
    let mut second = Daemon::start(&network.plat, "second", second).unwrap();
    assert_eq!(second.wait(SOON).code(), Some(1));
    let said = second.output();
    assert!(said.contains("the interface plat0 is"), "{said}");
    assert!(
        said.contains("what to do: stop the program that uses it"),
        "{said}"
    );
    let link = network.plat.must("ip -d link show plat0");
    assert!(link.contains("numqueues 2"), "{link}");
    assert!(plat.stop().success());
}

/// A killed PLAT leaves no queue behind that its successor could not have.
#[test]
fn after_a_crash_the_interface_is_there_again() {
    let (network, mut plat) = network("workers-crash");
    plat.signal(nix::sys::signal::Signal::SIGKILL);
    assert!(!plat.wait(SOON).success());
    let mut plat = network.start_plat_with("workers = 2");
    network
        .host
        .must(&format!("ping -6 -c 2 -W 2 {SERVER_BY_PREFIX}"));
    assert_eq!(sleeps(&plat).len(), 2);
    assert!(plat.stop().success());
}
