//! What the control plane sees and ends.

use super::*;
use crate::{session::State, tcp::TcpState, view::Filter};

fn filled() -> Nat {
    let mut nat = Nat::new(config());
    nat.udp((CLIENT, 5000), (SERVER, 53));
    nat.udp((CLIENT, 5000), (SERVER2, 53));
    nat.udp((OTHER, 6000), (SERVER, 443));
    nat.send(&tcp6((CLIENT, 7000), (SERVER, 443), SYN)).packet();
    nat.send(&echo6(CLIENT, 128, 9, SERVER)).packet();
    nat
}

#[test]
fn sessions_are_seen_as_they_are() {
    let mut nat = filled();
    nat.wait(10);
    let views: Vec<_> = nat.engine.sessions(nat.now).collect();
    assert_eq!(views.len(), 5);
    let tcp: Vec<_> = views
        .iter()
        .filter(|it| it.protocol == Protocol::Tcp)
        .collect();
    let [tcp] = tcp[..] else { panic!("{views:?}") };
    assert_eq!((tcp.inside.address, tcp.inside.id), (CLIENT, 7000));
    assert_eq!((tcp.outside.address, tcp.outside.id), (POOL, 7000));
    assert_eq!((tcp.remote.address, tcp.remote.id), (SERVER, 443));
    assert_eq!(tcp.prefix, prefix());
    assert_eq!(tcp.state, State::Tcp(TcpState::V6Init));
    // 240 s and the second that was running.
    assert_eq!(tcp.expires_in, Duration::from_secs(231));
}

#[test]
fn a_flush_ends_what_its_filter_means() {
    let all = Filter::default();
    let network = |text: &str| Some(text.parse().unwrap());
    let cases = [
        (all, 5),
        (
            Filter {
                protocol: Some(Protocol::Udp),
                ..all
            },
            3,
        ),
        (
            Filter {
                client: Some((CLIENT, 128)),
                ..all
            },
            4,
        ),
        (
            Filter {
                client: Some((CLIENT, 64)),
                ..all
            },
            5,
        ),
        (
            Filter {
                client: Some((SERVER.to_ipv6_mapped(), 64)),
                ..all
            },
            0,
        ),
        (
            Filter {
                client: Some((SERVER.to_ipv6_mapped(), 0)),
                ..all
            },
            5,
        ),
        (
            Filter {
                client_port: Some(5000),
                ..all
            },
            2,
        ),
        (
            Filter {
                pool: network("203.0.113.0/24"),
                ..all
            },
            5,
        ),
        (
            Filter {
                pool: network("203.0.114.0/24"),
                ..all
            },
            0,
        ),
        (
            Filter {
                pool_port: Some(6000),
                ..all
            },
            1,
        ),
        (
            Filter {
                server: network("9.9.9.9/32"),
                ..all
            },
            1,
        ),
        (
            Filter {
                server_port: Some(443),
                ..all
            },
            2,
        ),
        (
            Filter {
                server_port: Some(443),
                protocol: Some(Protocol::Tcp),
                ..all
            },
            1,
        ),
    ];
    for (filter, ends) in cases {
        let mut nat = filled();
        assert_eq!(nat.engine.flush(&filter), ends, "{filter:?}");
        assert_eq!(nat.sessions(), 5 - ends, "{filter:?}");
        let used = nat
            .engine
            .sessions(nat.now)
            .map(|it| (it.protocol, it.inside));
        assert_eq!(nat.bindings(), used.collect::<HashSet<_>>().len());
        let free: usize = Protocol::ALL
            .map(|it| nat.engine.free_ports(it))
            .iter()
            .sum();
        assert_eq!(free + nat.bindings(), 3 * 65_535);
    }
}
