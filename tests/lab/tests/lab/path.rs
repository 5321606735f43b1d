//! The path in between: hops, their errors, and how much fits.

use std::{io::Read, net::Ipv4Addr};

use lab::{
    pair::{Pair, Translator},
    servers::{Pattern, echo_over_tcp, fetch, sha256},
    tools,
    topology::{ISP, Options, SERVER},
};

use crate::Running;

/// Who answers on the way to the server, hop by hop.
fn hops_of(pair: Pair) -> &'static [&'static str] {
    match pair.clat {
        // CLAT, router, plat three times (its kernel on both sides and the translator between),
        // isp, server.
        Translator::Ours => &[
            "192.0.0.2",
            "192.0.0.8",
            "192.0.0.8",
            "192.0.0.8",
            "192.0.2.1",
            "192.0.2.2",
            "198.51.100.10",
        ],
        // The host's kernel is one more. From addresses that have no IPv4 address, tayga passes
        // nothing on.
        Translator::Tayga => &[
            "192.0.0.2",
            "*",
            "*",
            "*",
            "*",
            "192.0.2.1",
            "192.0.2.2",
            "198.51.100.10",
        ],
    }
}

fn hops(traceroute: &str) -> Vec<String> {
    traceroute
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned))
        .collect()
}

pub(crate) fn traceroute_shows_every_hop(pair: Pair) {
    let running = Running::of(pair, "traceroute");
    let expected = hops_of(pair);
    for method in ["-U", "-I"] {
        let command = format!("traceroute {method} -n -q 1 -w 1 -N 1 {SERVER}");
        let shown = running.network.host.must(&command);
        assert_eq!(hops(&shown), expected, "{method}: {shown}");
    }
    // Our own tool, as the demo uses it where there is no other, sees the same.
    let traced: Vec<_> = (1..)
        .take(expected.len())
        .map(|ttl| {
            let answer = running.network.host.run(move || tools::trace(SERVER, ttl));
            let answer = answer.unwrap();
            answer.map_or_else(|| "*".to_owned(), |it| it.from.to_string())
        })
        .collect();
    assert_eq!(traced, expected);
    let answer = running.network.host.run(|| tools::ping(SERVER, 1)).unwrap();
    assert!(answer.is_some_and(|it| it.is_target));
}

/// A host learns of the narrow link by Packet Too Big, which comes to it as Fragmentation Needed.
pub(crate) fn a_1280_byte_link_in_the_middle(pair: Pair) {
    let options = Options {
        middle_mtu: 1280,
        ..Options::default()
    };
    let running = Running::with(pair, "narrow", &options);
    let host = &running.network.host;
    // Told at the first full-size packet...
    let pinged = host.sh(&format!("ping -n -c 2 -i 0.3 -W 2 -s 1300 -M do {SERVER}"));
    assert!(
        pinged.stdout.contains("mtu = 1260") || pinged.stderr.contains("mtu=1260"),
        "{pinged:?}"
    );
    // ...and remembered: what is told fits exactly.
    let pinged = host.must(&format!("ping -n -c 2 -i 0.3 -W 2 -s 1232 -M do {SERVER}"));
    assert!(pinged.contains(" 0% packet loss"), "{pinged}");

    // TCP has no black hole in either direction.
    const LEN: u64 = 5_000_000;
    let response = host
        .run(|| fetch(SERVER.into(), &format!("/bytes/{LEN}")))
        .unwrap();
    let expected = sha256(Pattern::default().take(LEN)).unwrap().0;
    assert_eq!((response.len, response.sha256), (LEN, expected));
    let echoed = host.run(|| echo_over_tcp(LEN)).unwrap();
    assert_eq!(
        echoed,
        (sha256(Pattern::default().take(LEN)).unwrap().0, LEN)
    );
}

/// The same where the narrow link lies on the IPv4 side.
pub(crate) fn a_narrow_link_in_the_ipv4_internet(pair: Pair) {
    let running = Running::of(pair, "narrow4");
    running.network.isp.set_mtu("i1", 1000);
    running.network.server.set_mtu("s0", 1000);
    let host = &running.network.host;
    let pinged = host.sh(&format!("ping -n -c 2 -i 0.3 -W 2 -s 1300 -M do {SERVER}"));
    // 1000 there would be 1020 here, but no IPv6 path is told less than 1280.
    let said = format!("{}{}", pinged.stdout, pinged.stderr);
    assert!(
        said.contains("mtu = 1260") || said.contains("mtu=1260"),
        "{said}"
    );
    const LEN: u64 = 1_000_000;
    let response = host
        .run(|| fetch(SERVER.into(), &format!("/bytes/{LEN}")))
        .unwrap();
    let expected = sha256(Pattern::default().take(LEN)).unwrap().0;
    assert_eq!((response.len, response.sha256), (LEN, expected));
}

pub(crate) fn ttl_expiry_names_the_router(pair: Pair) {
    let running = Running::of(pair, "ttl");
    let translator = Ipv4Addr::new(192, 0, 0, 2);
    // The last but one is the router before the server.
    for (ttl, from) in [(1, translator), (hops_of(pair).len() - 1, ISP)] {
        let command = format!("ping -n -c 1 -W 2 -t {ttl} {SERVER}");
        let shown = running.network.host.sh(&command).stdout;
        assert!(shown.contains(&format!("From {from}")), "{shown}");
        assert!(shown.contains("Time to live exceeded"), "{shown}");
    }
}

/// What the routers say about a destination that is not there.
pub(crate) fn unreachable_destinations_are_told(pair: Pair) {
    let running = Running::of(pair, "unreachable");
    let nobody = Ipv4Addr::new(198, 51, 100, 99);
    let shown = running
        .network
        .host
        .sh(&format!("ping -n -c 2 -i 0.5 -W 5 {nobody}"))
        .stdout;
    assert!(shown.contains("Destination Host Unreachable"), "{shown}");
    // Special addresses are refused by the PLAT, and said so.
    let shown = running.network.host.sh("ping -n -c 1 -W 2 10.0.0.1").stdout;
    let told = shown.contains("Dest Unreachable") || shown.contains("Prohibited");
    match pair {
        Pair::OURS => assert!(told, "{shown}"),
        // Tayga refuses nothing: it is the router behind it that knows no way.
        Pair {
            plat: Translator::Tayga,
            ..
        } => {
            assert!(shown.contains(&format!("From {ISP}")), "{shown}");
            assert!(shown.contains("Destination Host Unreachable"), "{shown}");
        }
        // Our PLAT says so, but its address has no IPv4 address, which ends it at tayga.
        Pair {
            clat: Translator::Tayga,
            ..
        } => {
            assert!(!shown.contains("From"), "{shown}");
            assert!(shown.contains("100% packet loss"), "{shown}");
        }
    }
}
