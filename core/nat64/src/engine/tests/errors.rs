//! ICMP errors, both ways.

use super::*;

/// PLAT-3.6-02: the client sees the router that complains.
#[test]
fn plat_3_6_02_errors_reach_the_client_from_the_router_they_come_from() {
    let mut nat = Nat::new(config());
    let sent = nat
        .send(&udp6((CLIENT, 5000), (SERVER, 33434), b"trace"))
        .packet();
    for (from, kind, code) in [(ROUTER4, 11, 0), (SERVER, 3, 3)] {
        let packet = nat.send(&error4(from, &sent, kind, code)).packet();
        assert_eq!(transport_checksum_ok(&packet), Some(true));
        let header = Ipv6::new_checked(&packet).unwrap();
        assert_eq!((header.src(), header.dst()), (prefix().embed(from), CLIENT));
        // The quote is the client's own packet again, but for what routers changed.
        let mut original = udp6((CLIENT, 5000), (SERVER, 33434), b"trace");
        original[7] = 63;
        assert_eq!(packet[48..], original);
    }
}

#[test]
fn plat_3_6_02_under_the_well_known_prefix_a_private_router_speaks_as_the_plat() {
    let mut config = Config::new(Pref64::WELL_KNOWN, &[POOL], OWN6);
    config.errors = xlat::config::ErrorPolicy::Send;
    let mut nat = Nat::new(config);
    let dst = Pref64::WELL_KNOWN.embed(SERVER);
    let datagram = compose::udp(Pair::V6(CLIENT, dst), 5000, 53, b"x");
    let sent = nat
        .send(&V6::new(CLIENT, dst, 17).carrying(&datagram))
        .packet();
    for (router, wanted) in [
        (Ipv4Addr::new(10, 0, 0, 1), OWN6),
        (ROUTER4, Pref64::WELL_KNOWN.embed(ROUTER4)),
    ] {
        let packet = nat.send(&error4(router, &sent, 3, 4)).packet();
        assert_eq!(Ipv6::new_checked(&packet).unwrap().src(), wanted);
        assert_eq!(packet[40], 2, "path MTU discovery survives");
    }
}

/// RFC 5508 REQ-5: to the server, everything behind the NAT64 is the pool address.
#[test]
fn plat_3_6_02_errors_reach_the_server_from_the_pool() {
    let mut nat = Nat::new(config());
    let seen = nat.udp((CLIENT, 5000), (SERVER, 53));
    let answer = nat.send(&udp4((SERVER, 53), seen, b"answer")).packet();
    for from in [CLIENT, ROUTER6] {
        let packet = nat.send(&error6(from, &answer, 1, 4, [0; 4])).packet();
        assert_eq!(transport_checksum_ok(&packet), Some(true));
        let header = Ipv4::new_checked(&packet).unwrap();
        assert_eq!((header.src(), header.dst()), (POOL, SERVER));
        let inner = Ipv4::new_embedded(&packet[28..]).unwrap();
        assert_eq!((inner.src(), inner.dst()), (SERVER, POOL));
        assert_eq!(transport::ports(inner.payload()), Some((53, 5000)));
    }
}

#[test]
fn plat_3_4_01_errors_make_refresh_and_end_nothing() {
    let mut nat = Nat::new(config());
    let (client, server, outside) = ((CLIENT, 40_000), (SERVER, 443), (POOL, 40_000));
    let syn = nat.send(&tcp6(client, server, SYN)).packet();
    let answer = nat.send(&tcp4(server, outside, SYN | ACK)).packet();
    let data = nat.udp((CLIENT, 5000), (SERVER, 53));
    // Errors of every kind, late enough that a refresh would show.
    nat.wait(250);
    for (kind, code) in [(3, 1), (3, 3), (3, 13), (11, 0)] {
        nat.send(&error4(ROUTER4, &syn, kind, code)).packet();
    }
    for (kind, code) in [(1, 0), (1, 4), (3, 0)] {
        nat.send(&error6(ROUTER6, &answer, kind, code, [0; 4]))
            .packet();
    }
    assert_eq!(nat.sessions(), 2);
    nat.wait(52);
    assert_eq!(nat.sessions(), 1, "UDP ended in its time");
    nat.wait(7199 - 302);
    assert_eq!(nat.sessions(), 1, "TCP was not ended");

    // Nothing is made: errors about packets that nobody sent.
    let nobody = udp4((POOL, 9), (SERVER, 9), b"x");
    assert_eq!(
        nat.send(&error4(ROUTER4, &nobody, 3, 3)),
        dropped(DropReason::NoSession)
    );
    let late = udp4(data, (SERVER, 53), b"x");
    assert_eq!(
        nat.send(&error4(ROUTER4, &late, 3, 3)),
        dropped(DropReason::NoSession)
    );
    let nobody = V6::new(prefix().embed(SERVER), CLIENT, 17).carrying(&[0; 8]);
    let packet = V6::new(ROUTER6, prefix().embed(SERVER), 58).carrying(&compose::icmp6(
        ROUTER6,
        prefix().embed(SERVER),
        1,
        4,
        [0; 4],
        &nobody,
    ));
    assert_eq!(nat.send(&packet), dropped(DropReason::NoSession));
}

#[test]
fn plat_3_4_01_unreadable_errors_are_dropped_in_silence() {
    let mut nat = Nat::new(config());
    let sent = nat.send(&udp6((CLIENT, 5000), (SERVER, 53), b"x")).packet();
    let unreadable = dropped(DropReason::UnreadableError);
    let about_error = error4(SERVER, &sent, 3, 3);
    let quoting_error = V4::new(POOL, SERVER, 1).carrying(&about_error[20..]);
    let mut later = V4::new(POOL, SERVER, 17);
    later.offset = 100;
    for quoted in [
        sent[..22].to_vec(),
        sent[..19].to_vec(),
        quoting_error,
        later.carrying(&[0; 16]),
        V4::new(POOL, SERVER, 47).carrying(&[0; 16]),
    ] {
        let message = compose::icmp4(3, 3, [0; 4], &quoted);
        let packet = V4::new(ROUTER4, POOL, 1).carrying(&message);
        assert_eq!(nat.send(&packet), unreadable);
    }
    let dst = prefix().embed(SERVER);
    for quoted in [
        vec![0x60; 39],
        V6::new(dst, CLIENT, 17).carrying(&[0; 3]),
        V6::new(dst, CLIENT, 58).carrying(&[1, 4, 0, 0, 0, 0, 0, 0]),
        V6::new(dst, CLIENT, 44).carrying(&compose::fragment(17, 9, true, 1, &[0; 8])),
    ] {
        let message = compose::icmp6(CLIENT, dst, 1, 4, [0; 4], &quoted);
        let packet = V6::new(CLIENT, dst, 58).carrying(&message);
        assert_eq!(nat.send(&packet), unreadable);
    }
}

/// RFC 5508 REQ-3: wrong checksums of the error and of the quoted header are refused, options of
/// that header skipped, and the quoted transport checksum is nobody's business.
#[test]
fn natb_5508_01_which_checksums_of_errors_count() {
    let mut nat = Nat::new(config());
    let sent = nat.send(&udp6((CLIENT, 5000), (SERVER, 53), b"x")).packet();
    let answer = nat.send(&udp4((SERVER, 53), (POOL, 5000), b"x")).packet();

    let mut wrong = error4(ROUTER4, &sent, 3, 1);
    wrong[22] ^= 1;
    let why = Why::Translation(xlat::DropReason::IcmpChecksum);
    assert_eq!(nat.send(&wrong), Fate::Dropped(why));
    let mut wrong = error6(ROUTER6, &answer, 1, 0, [0; 4]);
    wrong[42] ^= 1;
    assert_eq!(nat.send(&wrong), Fate::Dropped(why));

    let mut quoted = sent.clone();
    quoted[8] -= 1;
    let wrong = error4(ROUTER4, &quoted, 3, 1);
    assert_eq!(nat.send(&wrong), dropped(DropReason::UnreadableError));

    let mut quoted = sent.clone();
    quoted[26] ^= 1;
    nat.send(&error4(ROUTER4, &quoted, 3, 1)).packet();

    let mut with_options = V4::new(POOL, SERVER, 17);
    with_options.options = vec![1; 8];
    let quoted = with_options.carrying(&sent[20..]);
    let packet = nat.send(&error4(ROUTER4, &quoted, 3, 1)).packet();
    let inner = Ipv6::new_embedded(&packet[48..]).unwrap();
    assert_eq!(transport::ports(inner.payload()), Some((5000, 53)));
}

/// RFC 5508 REQ-4, REQ-5: without a session both ways in silence.
#[test]
fn natb_5508_01_errors_about_nothing_are_dropped_in_silence() {
    let mut nat = Nat::new(config());
    nat.udp((CLIENT, 5000), (SERVER, 53));
    // A binding alone is not enough: nothing was ever sent there.
    let elsewhere = udp4((POOL, 5000), (SERVER2, 53), b"x");
    let packet = error4(ROUTER4, &elsewhere, 3, 3);
    assert_eq!(nat.send(&packet), dropped(DropReason::NoSession));
    let dst = prefix().embed(SERVER2);
    let datagram = compose::udp(Pair::V6(dst, CLIENT), 53, 5000, b"x");
    let elsewhere = V6::new(dst, CLIENT, 17).carrying(&datagram);
    let packet = error6(ROUTER6, &elsewhere, 1, 4, [0; 4]);
    assert_eq!(nat.send(&packet), dropped(DropReason::NoSession));
}

/// PLAT-3.4-01, for echoes: the identifier in the quote is the client's again.
#[test]
fn plat_3_4_01_an_error_about_an_echo_finds_its_client() {
    let mut nat = Nat::new(config());
    nat.send(&echo6(OTHER, 128, 77, SERVER)).packet();
    let sent = nat.send(&echo6(CLIENT, 128, 77, SERVER)).packet();
    assert_ne!(sent[24..26], [0, 77]);
    let packet = nat.send(&error4(ROUTER4, &sent, 11, 0)).packet();
    assert_eq!(transport_checksum_ok(&packet), Some(true));
    let inner = Ipv6::new_embedded(&packet[48..]).unwrap();
    assert_eq!((inner.src(), inner.dst()), (CLIENT, prefix().embed(SERVER)));
    assert_eq!(
        (inner.payload()[0], &inner.payload()[4..6]),
        (128, &[0, 77][..])
    );
}
