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
