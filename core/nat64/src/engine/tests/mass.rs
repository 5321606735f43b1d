//! Much at once: nothing holds up packets for long.

use super::*;

const MANY: u16 = 2000;

fn many() -> Nat {
    let mut nat = Nat::new(config());
    for port in 0..MANY {
        nat.udp((CLIENT, 10_000 + port), (SERVER, 53));
    }
    nat
}

/// A thousand sessions that end in the same second, and the packets of that second.
#[test]
fn plat_5_3_01_what_ends_at_once_ends_bit_by_bit() {
    let mut nat = many();
    nat.sleep(301);
    nat.engine.handle_timeout(nat.now);
    let left = nat.sessions();
    assert!(left > 1500 && left < usize::from(MANY), "{left}");
    assert_eq!(nat.bindings(), left);
    // The caller is not told to wait.
    assert!(nat.engine.poll_timeout().is_some_and(|at| at <= nat.now));
    while nat.sessions() > 0 {
        let before = nat.sessions();
        nat.engine.handle_timeout(nat.now);
        assert!(nat.sessions() < before && nat.sessions() + 300 > before);
    }
    assert_eq!(nat.engine.free_ports(Protocol::Udp), 65_535);
}

/// What is over is over, also for whoever speaks before its turn has come.
#[test]
fn plat_5_3_01_nobody_is_brought_back_to_life_meanwhile() {
    let answer = |port| udp4((SERVER, 53), (POOL, 10_000 + port), b"late");
    for port in [0, MANY / 2, MANY - 1] {
        let mut nat = many();
        nat.sleep(301);
        assert_eq!(nat.send(&answer(port)), dropped(DropReason::NoBinding));
        assert!(nat.sessions() > 1500, "the test is about what is left");
        let made = |nat: &Nat| nat.engine.stats().tables.sessions_made[1].get();
        let before = made(&nat);
        nat.udp((CLIENT, 10_000 + port), (SERVER, 53));
        assert_eq!(made(&nat), before + 1);
        nat.send(&answer(port)).packet();
        nat.end_what_is_over();
        assert_eq!((nat.bindings(), nat.sessions()), (1, 1));
        nat.wait(300);
        assert_eq!((nat.bindings(), nat.sessions()), (1, 1));
        nat.wait(1);
        assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
    }
}

/// An established connection that was idle too long is not over: it is asked about.
#[test]
fn plat_3_5_2_2_01_idle_connections_are_asked_about_bit_by_bit() {
    let mut nat = Nat::new(config());
    for port in 0..MANY {
        nat.send(&tcp6((CLIENT, 10_000 + port), (SERVER, 443), SYN));
        nat.send(&tcp4((SERVER, 443), (POOL, 10_000 + port), SYN | ACK));
    }
    assert_eq!(nat.sessions(), usize::from(MANY));
    nat.sleep(7201);
    // One of those whose turn has not come.
    nat.send(&tcp4((SERVER, 443), (POOL, 10_000), ACK)).packet();
    for _ in 0..20 {
        nat.engine.handle_timeout(nat.now);
    }
    assert_eq!(nat.sessions(), usize::from(MANY));
    // Those that wait to be sent have a limit, too.
    let mut buf = PacketBuf::new();
    let mut sent = 0;
    while nat.engine.poll_transmit(&mut buf, nat.now) == Transmit::Send {
        sent += 1;
    }
    let lost = nat.engine.stats().tables.probes_lost.get();
    assert_eq!((sent, sent + lost), (1024, u64::from(MANY)));
    nat.sleep(241);
    nat.end_what_is_over();
    assert_eq!(nat.sessions(), 1);
}
