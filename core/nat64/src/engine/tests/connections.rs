//! TCP connections through the whole engine; the state machine itself is tested in [`crate::tcp`].

use super::*;

/// A TCP connection from SYN to FIN, with the lifetimes of RFC 6146 §4.
#[test]
fn plat_3_5_2_01_a_connection_from_syn_to_fin() {
    let mut nat = Nat::new(config());
    let (client, server) = ((CLIENT, 40_000), (SERVER, 443));
    let outside = (POOL, 40_000);
    assert_eq!(
        nat.send(&tcp6(client, server, ACK)),
        dropped(DropReason::NotSyn)
    );
    // Half open: four minutes.
    nat.send(&tcp6(client, server, SYN)).packet();
    nat.wait(239);
    assert_eq!(nat.sessions(), 1);
    nat.wait(3);
    assert_eq!(nat.sessions(), 0);

    // Established: two hours of silence, then four minutes more.
    nat.send(&tcp6(client, server, SYN)).packet();
    nat.send(&tcp4(server, outside, SYN | ACK)).packet();
    nat.send(&tcp6(client, server, ACK)).packet();
    nat.wait(7199);
    nat.send(&tcp6(client, server, ACK)).packet();
    nat.wait(7203);
    assert_eq!(nat.sessions(), 1);
    nat.send(&tcp4(server, outside, ACK)).packet();
    nat.wait(7199);
    assert_eq!(nat.sessions(), 1, "data ended the last four minutes");

    // Silence for two hours and four minutes is the end.
    let mut silent = Nat::new(config());
    silent.send(&tcp6(client, server, SYN)).packet();
    silent.send(&tcp4(server, outside, SYN | ACK)).packet();
    silent.wait(7202);
    assert_eq!(silent.sessions(), 1);
    silent.wait(239);
    assert_eq!(silent.sessions(), 1);
    silent.wait(3);
    assert_eq!(silent.sessions(), 0);

    // Closed by both sides: four minutes, whatever follows.
    nat.send(&tcp6(client, server, FIN)).packet();
    nat.send(&tcp4(server, outside, FIN)).packet();
    nat.wait(200);
    nat.send(&tcp6(client, server, ACK)).packet();
    nat.wait(43);
    assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
}

#[test]
fn plat_3_5_2_01_a_reset_ends_a_connection_in_four_minutes_unless_data_follow() {
    let mut nat = Nat::new(config());
    let (client, server, outside) = ((CLIENT, 40_000), (SERVER, 443), (POOL, 40_000));
    let open = |nat: &mut Nat| {
        nat.send(&tcp6(client, server, SYN)).packet();
        nat.send(&tcp4(server, outside, SYN | ACK)).packet();
    };
    open(&mut nat);
    nat.send(&tcp4(server, outside, RST)).packet();
    nat.wait(200);
    nat.send(&tcp6(client, server, ACK)).packet();
    nat.wait(300);
    assert_eq!(nat.sessions(), 1);
    nat.send(&tcp4(server, outside, RST)).packet();
    nat.wait(243);
    assert_eq!(nat.sessions(), 0);
}

/// PLAT-3.5.2-03: the text of the RFC would leave a reset connection two hours after a FIN.
#[test]
fn plat_3_5_2_03_a_reset_after_a_fin_shortens_the_wait() {
    let mut nat = Nat::new(config());
    let (client, server, outside) = ((CLIENT, 40_000), (SERVER, 443), (POOL, 40_000));
    nat.send(&tcp6(client, server, SYN)).packet();
    nat.send(&tcp4(server, outside, SYN | ACK)).packet();
    nat.send(&tcp6(client, server, FIN)).packet();
    nat.send(&tcp4(server, outside, RST)).packet();
    nat.wait(243);
    assert_eq!(nat.sessions(), 0);
}

/// With a binding, packets of unknown connections pass and leave no state.
#[test]
fn plat_3_5_2_01_other_packets_pass_with_a_binding_and_leave_no_state() {
    let mut nat = Nat::new(config());
    nat.send(&tcp6((CLIENT, 40_000), (SERVER, 443), SYN))
        .packet();
    nat.send(&tcp6((CLIENT, 40_000), (SERVER2, 443), ACK))
        .packet();
    nat.send(&tcp4((SERVER2, 443), (POOL, 40_000), ACK))
        .packet();
    assert_eq!(nat.sessions(), 1);
    // A SYN from outside opens a session, since there is no filtering.
    nat.send(&tcp4((SERVER2, 443), (POOL, 40_000), SYN))
        .packet();
    assert_eq!(nat.sessions(), 2);
    nat.send(&tcp6((CLIENT, 40_000), (SERVER2, 443), SYN | ACK))
        .packet();
    nat.wait(300);
    assert_eq!(nat.sessions(), 1, "the one that both sides opened");
}

/// RFC 6146 section 3.5.2.2, CLOSED: a SYN from outside to a binding opens a connection for four
/// minutes, which only the client's SYN makes a real one.
#[test]
fn plat_3_5_2_01_a_syn_from_outside_waits_for_the_client() {
    let mut nat = Nat::new(config());
    let (server, outside) = ((SERVER2, 443), (POOL, 40_000));
    let open = |nat: &mut Nat| {
        nat.send(&tcp6((CLIENT, 40_000), (SERVER, 443), SYN))
            .packet();
        nat.send(&tcp4((SERVER, 443), outside, SYN | ACK)).packet();
        nat.send(&tcp4(server, outside, SYN)).packet();
        assert_eq!(nat.sessions(), 2);
    };
    open(&mut nat);
    // Nothing but the client's SYN counts.
    nat.wait(200);
    nat.send(&tcp4(server, outside, SYN)).packet();
    nat.send(&tcp4(server, outside, RST)).packet();
    nat.send(&tcp6((CLIENT, 40_000), server, ACK)).packet();
    nat.wait(43);
    assert_eq!(nat.sessions(), 1);
    open(&mut nat);
    nat.send(&tcp6((CLIENT, 40_000), server, SYN | ACK))
        .packet();
    nat.wait(7199);
    assert_eq!(nat.sessions(), 2);
}

/// RFC 7857 section 2.2, NATB-7857-01: four minutes from the reset on, whoever repeats it.
#[test]
fn natb_7857_01_repeated_resets_do_not_refresh() {
    let mut nat = Nat::new(config());
    let (client, server, outside) = ((CLIENT, 40_000), (SERVER, 443), (POOL, 40_000));
    nat.send(&tcp6(client, server, SYN)).packet();
    nat.send(&tcp4(server, outside, SYN | ACK)).packet();
    nat.send(&tcp4(server, outside, RST)).packet();
    nat.wait(200);
    assert_eq!(nat.sessions(), 1);
    nat.send(&tcp6(client, server, RST)).packet();
    nat.send(&tcp4(server, outside, RST)).packet();
    nat.wait(43);
    assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
}

/// The other table of timers: half-closed connections live on while there are data.
#[test]
fn plat_3_5_2_01_a_half_closed_connection_lives_on() {
    let mut nat = Nat::new(config());
    let (client, server, outside) = ((CLIENT, 40_000), (SERVER, 443), (POOL, 40_000));
    nat.send(&tcp6(client, server, SYN)).packet();
    nat.send(&tcp4(server, outside, SYN | ACK)).packet();
    nat.send(&tcp6(client, server, FIN)).packet();
    nat.wait(7000);
    nat.send(&tcp4(server, outside, ACK)).packet();
    nat.wait(7199);
    assert_eq!(nat.sessions(), 1);
    // It ends without another four minutes.
    nat.wait(2);
    assert_eq!(nat.sessions(), 0);
}

/// A super-segment is one packet of one connection, and leaves as one.
#[test]
fn super_segments_pass_as_they_are() {
    use core::num::NonZeroU16;
    use wire::offload::{ChecksumState, Gso, GsoKind};

    let mut nat = Nat::new(config());
    let (client, server) = ((CLIENT, 40_000), (SERVER, 443));
    nat.send(&tcp6(client, server, SYN)).packet();
    let dst = prefix().embed(SERVER);
    let segment = compose::tcp(Pair::V6(CLIENT, dst), (40_000, 443), ACK, &[], &[5; 30_000]);
    let packet = V6::new(CLIENT, dst, 6).carrying(&segment);
    let mut buf = PacketBuf::new();
    buf.set(&packet).unwrap();
    buf.offload = Offload {
        checksum: ChecksumState::Partial {
            start: 40,
            field: 16,
        },
        gso: Some(Gso {
            kind: GsoKind::TcpV6 { ecn: false },
            size: NonZeroU16::new(1220).unwrap(),
            header_len: 60,
        }),
        reassembled: false,
    };
    let Verdict::Forward(mut pieces) = nat.engine.handle_v6(&mut buf, nat.now) else {
        panic!("not forwarded");
    };
    assert!(pieces.next(&mut buf));
    let gso = buf.offload.gso.unwrap();
    assert_eq!(gso.kind, GsoKind::TcpV4 { ecn: false });
    assert_eq!((gso.size.get(), gso.header_len), (1220, 40));
    assert_eq!(buf.len(), 20 + 20 + 30_000);
    let header = Ipv4::new_checked(buf.bytes()).unwrap();
    assert_eq!((header.src(), header.dst()), (POOL, SERVER));
    assert!(!pieces.next(&mut buf));
    assert_eq!((nat.bindings(), nat.sessions()), (1, 1));
}

/// A client may use a port again four minutes after it was closed, and sooner: its connection is not
/// cut off when the lifetime of the old one is over, unless the letter of the RFC is wanted.
#[test]
fn plat_3_5_2_01_a_connection_that_is_opened_again_lives() {
    let (client, server, outside) = ((CLIENT, 40_000), (SERVER, 443), (POOL, 40_000));
    for reopen in [true, false] {
        let mut config = config();
        config.tcp.reopen_after_fin = reopen;
        let mut nat = Nat::new(config);
        nat.send(&tcp6(client, server, SYN)).packet();
        nat.send(&tcp4(server, outside, SYN | ACK)).packet();
        nat.send(&tcp4(server, outside, FIN)).packet();
        nat.send(&tcp6(client, server, FIN)).packet();
        nat.wait(100);
        nat.send(&tcp6(client, server, SYN)).packet();
        nat.send(&tcp4(server, outside, SYN | ACK)).packet();
        nat.wait(250);
        assert_eq!(nat.sessions(), usize::from(reopen));
        let fate = nat.send(&tcp6(client, server, ACK));
        assert_eq!(fate == dropped(DropReason::NotSyn), !reopen);
    }
}

/// What is no SYN of the client leaves a closed connection to its end.
#[test]
fn plat_3_5_2_01_a_closed_connection_ends_whatever_the_server_sends() {
    let mut nat = Nat::new(config());
    let (client, server, outside) = ((CLIENT, 40_000), (SERVER, 443), (POOL, 40_000));
    nat.send(&tcp6(client, server, SYN)).packet();
    nat.send(&tcp4(server, outside, SYN | ACK)).packet();
    nat.send(&tcp6(client, server, FIN)).packet();
    nat.send(&tcp4(server, outside, FIN)).packet();
    for _ in 0..5 {
        nat.wait(45);
        nat.send(&tcp4(server, outside, SYN)).packet();
    }
    nat.wait(20);
    assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
}
