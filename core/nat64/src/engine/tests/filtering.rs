//! Which servers reach a client, and what the others are told.

use super::*;
use crate::filtering::Filtering::AddressDependent;

fn strict() -> Config {
    let mut config = config();
    config.filtering.udp = AddressDependent;
    config.filtering.tcp = AddressDependent;
    config.filtering.icmp = AddressDependent;
    config
}

#[test]
fn plat_3_5_1_02_without_filtering_every_server_reaches_a_bound_port() {
    let mut nat = Nat::new(config());
    nat.udp((CLIENT, 5000), (SERVER, 53));
    nat.send(&udp4((SERVER2, 9), (POOL, 5000), b"x")).packet();
    assert_eq!(nat.sessions(), 2);
}

/// The same address with another port may enter, another address may not.
#[test]
fn plat_3_5_1_02_address_dependent_filtering() {
    let mut nat = Nat::new(strict());
    nat.udp((CLIENT, 5000), (SERVER, 53));
    let stranger = udp4((SERVER2, 53), (POOL, 5000), b"x");
    assert_eq!(nat.send(&stranger), dropped(DropReason::Filtered));
    assert_eq!(nat.sessions(), 1);
    nat.send(&udp4((SERVER, 99), (POOL, 5000), b"x")).packet();
    assert_eq!(nat.sessions(), 2);
    // Once the client has spoken to it, it may.
    nat.udp((CLIENT, 5000), (SERVER2, 1));
    nat.send(&stranger).packet();
    // It is not another client's business.
    nat.udp((OTHER, 6000), (SERVER, 53));
    let packet = udp4((SERVER2, 53), (POOL, 6000), b"x");
    assert_eq!(nat.send(&packet), dropped(DropReason::Filtered));
    // With the last session to its address it loses the right.
    nat.wait(200);
    nat.udp((CLIENT, 5000), (SERVER, 53));
    nat.wait(150);
    assert_eq!(nat.send(&stranger), dropped(DropReason::Filtered));
    assert_eq!((nat.bindings(), nat.sessions()), (1, 1));
}

/// RFC 7857: what is filtered keeps nothing alive.
#[test]
fn natb_7857_01_filtered_packets_do_not_refresh() {
    let mut nat = Nat::new(strict());
    nat.udp((CLIENT, 5000), (SERVER, 53));
    for _ in 0..4 {
        nat.wait(75);
        let packet = udp4((SERVER2, 53), (POOL, 5000), b"x");
        assert_eq!(nat.send(&packet), dropped(DropReason::Filtered));
    }
    nat.wait(2);
    assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
}

#[test]
fn plat_3_5_3_01_echo_is_filtered_by_address() {
    let mut nat = Nat::new(strict());
    nat.send(&echo6(CLIENT, 128, 7, SERVER)).packet();
    nat.send(&echo4(SERVER, 0, 7, POOL)).packet();
    assert_eq!(
        nat.send(&echo4(SERVER2, 8, 7, POOL)),
        dropped(DropReason::Filtered)
    );
}

/// Of connections without a session, only packets from a known address pass.
#[test]
fn plat_3_5_2_01_tcp_without_a_session_is_filtered() {
    let mut nat = Nat::new(strict());
    nat.send(&tcp6((CLIENT, 5000), (SERVER, 443), SYN)).packet();
    nat.send(&tcp4((SERVER, 444), (POOL, 5000), ACK)).packet();
    assert_eq!(
        nat.send(&tcp4((SERVER2, 443), (POOL, 5000), ACK)),
        dropped(DropReason::Filtered)
    );
    assert_eq!(nat.sessions(), 1);
}

#[test]
fn plat_3_5_1_02_the_answers_that_are_allowed() {
    let mut config = strict();
    config.filtering.answer = true;
    let mut nat = Nat::new(config);
    nat.udp((CLIENT, 5000), (SERVER, 53));
    nat.send(&echo6(CLIENT, 128, 7, SERVER)).packet();
    let mut answer = |packet: &[u8]| {
        let (why, kind, code) = nat.send(packet).reply();
        assert_eq!(kind, 3);
        (why, code)
    };
    let filtered = Why::State(DropReason::Filtered);
    let unbound = Why::State(DropReason::NoBinding);
    assert_eq!(
        answer(&udp4((SERVER2, 53), (POOL, 5000), b"x")),
        (filtered, 13)
    );
    assert_eq!(
        answer(&udp4((SERVER2, 53), (POOL, 5001), b"x")),
        (unbound, 3)
    );
    assert_eq!(answer(&echo4(SERVER2, 8, 7, POOL)), (filtered, 13));
    assert_eq!(answer(&echo4(SERVER2, 8, 8, POOL)), (unbound, 1));
    let packet = tcp4((SERVER2, 1), (POOL, 5001), ACK);
    assert_eq!(nat.send(&packet), dropped(DropReason::NoBinding));
}

/// Of a client that has gone, with the knob on or off: what an outsider sends every minute, whether
/// from the port that it was asked by, or always from another one.
fn outsider_keeps(config: Config, begin: &[Vec<u8>], send: impl Fn(u16) -> Vec<u8>) -> bool {
    let mut nat = Nat::new(config);
    for packet in begin {
        nat.send(packet).packet();
    }
    for port in 1..=150 {
        nat.send(&send(port));
        nat.wait(60);
    }
    nat.bindings() > 0
}

/// RFC 4787 REQ-6: neither sessions that are refreshed nor new ones keep a binding whose client has
/// gone, by any filtering and in any protocol.
#[test]
fn plat_5_3_01_without_inbound_refresh_only_the_client_keeps_a_binding() {
    const OUT: (Ipv4Addr, u16) = (POOL, 5000);
    let syn = tcp6((CLIENT, 5000), (SERVER, 443), SYN);
    let answer = tcp4((SERVER, 443), OUT, SYN | ACK);
    let asked = udp6((CLIENT, 5000), (SERVER, 53), b"x");
    let ping = [echo6(CLIENT, 128, 5000, SERVER)];
    for (base, inbound_refresh) in [
        (config(), true),
        (strict(), true),
        (config(), false),
        (strict(), false),
    ] {
        let keeps = |begin: &[Vec<u8>], send: &dyn Fn(u16) -> Vec<u8>| {
            let mut config = base.clone();
            config.filtering.inbound_refresh = inbound_refresh;
            outsider_keeps(config, begin, send)
        };
        let udp = [asked.clone()];
        let tcp = [syn.clone(), answer.clone()];
        let got = [
            keeps(&udp, &|_| udp4((SERVER, 53), OUT, b"x")),
            keeps(&udp, &|port| udp4((SERVER, port), OUT, b"x")),
            keeps(&ping, &|_| echo4(SERVER, 0, 5000, POOL)),
            keeps(&tcp, &|_| tcp4((SERVER, 443), OUT, ACK)),
        ];
        assert_eq!(got, [inbound_refresh; 4]);
        // By address, a SYN from outside is none that the client expects.
        let by_syns = inbound_refresh && base.filtering.tcp != AddressDependent;
        assert_eq!(
            keeps(&tcp, &|port| tcp4((SERVER2, port), OUT, SYN)),
            by_syns
        );
    }
}

fn no_refresh() -> Config {
    let mut config = config();
    config.filtering.inbound_refresh = false;
    config
}

/// Who is there has nothing from it but the duty to speak.
#[test]
fn plat_5_3_01_without_inbound_refresh_a_client_that_answers_is_reached() {
    let mut nat = Nat::new(no_refresh());
    nat.udp((CLIENT, 5000), (SERVER, 53));
    let peer = (SERVER2, 9);
    nat.send(&udp4(peer, (POOL, 5000), b"x")).packet();
    // From its answer on, the session is as good as one that the client began.
    nat.udp((CLIENT, 5000), peer);
    nat.wait(200);
    nat.send(&udp4(peer, (POOL, 5000), b"x")).packet();
    nat.udp((CLIENT, 5000), peer);
    nat.wait(200);
    assert_eq!((nat.bindings(), nat.sessions()), (1, 1));
    nat.send(&udp4((SERVER2, 10), (POOL, 5000), b"x")).packet();
    nat.wait(102);
    let stranger = udp4((SERVER2, 11), (POOL, 5000), b"x");
    assert_eq!(nat.send(&stranger), dropped(DropReason::Filtered));
    // A connection that the client opens from outside's lives as long as any.
    nat.send(&tcp6((CLIENT, 5000), (SERVER, 443), SYN)).packet();
    nat.send(&tcp4(peer, (POOL, 5000), SYN)).packet();
    nat.send(&tcp6((CLIENT, 5000), peer, SYN | ACK)).packet();
    nat.wait(7100);
    nat.send(&tcp4((SERVER2, 10), (POOL, 5000), SYN)).packet();
}

/// That nobody listens, said by the client's host, is no sign that its port is in use.
#[test]
fn plat_5_3_01_without_inbound_refresh_a_reset_does_not_answer() {
    let mut nat = Nat::new(no_refresh());
    nat.send(&tcp6((CLIENT, 5000), (SERVER, 443), SYN)).packet();
    for port in 1..=10 {
        let peer = (SERVER2, port);
        let _ = nat.send(&tcp4(peer, (POOL, 5000), SYN));
        let _ = nat.send(&tcp6((CLIENT, 5000), peer, RST | ACK));
        nat.wait(60);
    }
    assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
}

/// Static bindings are for servers behind the NAT64: they wait for strangers.
#[test]
fn plat_5_3_01_without_inbound_refresh_static_bindings_are_open() {
    let mut nat = Nat::new(no_refresh());
    let id = 5000;
    let binding = crate::static_bib::StaticBinding {
        protocol: Protocol::Udp,
        inside: Endpoint6 {
            address: CLIENT,
            id,
        },
        outside: Endpoint4 { address: POOL, id },
    };
    nat.engine.add_static(binding).unwrap();
    nat.send(&udp4((SERVER, 53), (POOL, id), b"x")).packet();
    nat.wait(299);
    assert_eq!(nat.sessions(), 1);
}

/// The knob holds for what is there as for what comes.
#[test]
fn plat_5_3_01_inbound_refresh_changes_with_the_configuration() {
    let mut nat = Nat::new(config());
    nat.udp((CLIENT, 5000), (SERVER, 53));
    nat.send(&udp4((SERVER2, 9), (POOL, 5000), b"x")).packet();
    nat.wait(200);
    nat.send(&udp4((SERVER2, 9), (POOL, 5000), b"x")).packet();
    nat.engine.reconfigure(no_refresh()).unwrap();
    nat.send(&udp4((SERVER2, 10), (POOL, 5000), b"x")).packet();
    nat.wait(102);
    // Its own session is over; those that servers began are not, and let nobody in.
    assert_eq!(nat.sessions(), 2);
    let stranger = udp4((SERVER2, 11), (POOL, 5000), b"x");
    assert_eq!(nat.send(&stranger), dropped(DropReason::Filtered));
    nat.engine.reconfigure(config()).unwrap();
    nat.send(&stranger).packet();
}

/// Otherwise a packet that is too big would tell a scanner which ports are bound (PLAT-3.5.1-02).
#[test]
fn plat_3_5_1_02_a_packet_that_is_too_big_passes_the_filter_first() {
    let big = |from: (Ipv4Addr, u16), port| {
        let mut header = V4::new(from.0, POOL, 17);
        header.df = true;
        let pair = Pair::V4(from.0, POOL);
        header.carrying(&compose::udp(pair, from.1, port, &[0; 1472]))
    };
    let mut config = strict();
    config.clients = vec!["2001:db8:1::/48".parse().unwrap()];
    let mut nat = Nat::new(config.clone());
    nat.udp((CLIENT, 5000), (SERVER, 53));
    let too_big = (Why::Translation(xlat::DropReason::TooBig), 3, 4);
    for port in [53, 54] {
        assert_eq!(nat.send(&big((SERVER, port), 5000)).reply(), too_big);
    }
    let stranger = nat.send(&big((SERVER2, 53), 5000));
    assert_eq!(stranger, dropped(DropReason::Filtered));
    let unbound = nat.send(&big((SERVER2, 53), 5001));
    assert_eq!(unbound, dropped(DropReason::NoBinding));
    assert_eq!(nat.sessions(), 1);
    config.clients = vec!["2001:db8:2::/48".parse().unwrap()];
    nat.engine.reconfigure(config).unwrap();
    let refused = nat.send(&big((SERVER, 53), 5000));
    assert_eq!(refused, dropped(DropReason::ClientRefused));
}
