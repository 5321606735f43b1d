//! Fragmented datagrams, both ways.

use super::*;

#[test]
fn plat_3_4_02_fragments_are_translated_together_and_fragmented_again() {
    let data = vec![7; 8000];
    let mut nat = Nat::new(config());
    let mut parts = in_fragments6(&udp6((CLIENT, 5000), (SERVER, 53), &data), 0xcafe_beef);
    parts.reverse();
    let (last, before) = parts.split_last().unwrap();
    for part in before {
        assert_eq!(nat.send(part), Fate::Forwarded(vec![]));
    }
    let Fate::Forwarded(packets) = nat.send(last) else {
        panic!("not forwarded");
    };
    let mut joined = Vec::new();
    for packet in &packets {
        let header = Ipv4::new_checked(packet).unwrap();
        assert!(packet.len() <= 1500 && !header.dont_fragment());
        assert_eq!(usize::from(header.fragment().offset) * 8, joined.len());
        joined.extend_from_slice(header.payload());
    }
    assert_eq!(
        joined,
        compose::udp(Pair::V4(POOL, SERVER), 5000, 53, &data)
    );

    // And back: large echoes, whose checksums need the whole message.
    let mut echo = V4::new(SERVER, POOL, 17);
    echo.id = 77;
    let datagram = compose::udp(Pair::V4(SERVER, POOL), 53, 5000, &data);
    let chunks: Vec<_> = datagram.chunks(1480).collect();
    let mut fates = Vec::new();
    for (i, chunk) in chunks.iter().enumerate() {
        (echo.offset, echo.mf) = ((i * 1480 / 8) as u16, i + 1 < chunks.len());
        fates.push(nat.send(&echo.carrying(chunk)));
    }
    let Some(Fate::Forwarded(packets)) = fates.pop() else {
        panic!("not forwarded");
    };
    assert!(packets.len() > 5 && packets.iter().all(|packet| packet.len() <= 1280));
}

/// RFC 6864 section 5.3.1: what two clients send to a server from one address must not be taken for
/// parts of the same datagram, though they chose the same identification (atomic fragments too).
#[test]
fn xlat_5_1_03_clients_that_share_an_address_do_not_choose_identifications() {
    let mut nat = Nat::new(config());
    let mut seen = HashSet::new();
    for (len, count) in [(3000, 3), (2000, 2), (100, 1)] {
        for client in [CLIENT, OTHER] {
            let parts = in_fragments6(&udp6((client, 5000), (SERVER, 53), &vec![7; len]), 0xbeef);
            let fates = parts.iter().map(|it| nat.send(it));
            let Some(Fate::Forwarded(packets)) = fates.last() else {
                panic!("not forwarded");
            };
            let headers = packets.iter().map(|it| Ipv4::new_checked(it).unwrap());
            let ids: HashSet<_> = headers.clone().map(|it| it.id()).collect();
            assert_eq!((packets.len(), ids.len()), (count, 1));
            assert!(headers.clone().all(|it| !it.dont_fragment()));
            assert!(seen.is_disjoint(&ids));
            seen.extend(ids);
        }
    }
}

/// RFC 6146 §3.4: a missing checksum is computed, if need be over the whole of its fragments.
#[test]
fn plat_3_4_06_a_missing_udp_checksum_is_computed() {
    let mut nat = Nat::new(config());
    let seen = nat.udp((CLIENT, 5000), (SERVER, 53));
    for len in [10, 3000] {
        let data = vec![9; len];
        let mut datagram = compose::udp(Pair::V4(SERVER, seen.0), 53, seen.1, &data);
        datagram[6..8].fill(0);
        let chunks: Vec<_> = datagram.chunks(1480).collect();
        let mut header = V4::new(SERVER, seen.0, 17);
        header.id = len as u16;
        let mut last = None;
        for (i, chunk) in chunks.iter().enumerate() {
            (header.offset, header.mf) = ((i * 1480 / 8) as u16, i + 1 < chunks.len());
            last = Some(nat.send(&header.carrying(chunk)));
        }
        let Some(Fate::Forwarded(packets)) = last else {
            panic!("not forwarded");
        };
        let front = if packets.len() > 1 { 48 } else { 40 };
        let joined: Vec<u8> = packets.iter().flat_map(|it| it[front..].to_vec()).collect();
        let wanted = compose::udp(Pair::V6(prefix().embed(SERVER), CLIENT), 53, 5000, &data);
        assert_eq!(joined, wanted);
    }
}

#[test]
fn plat_3_4_02_fragments_wait_for_a_time_and_within_a_limit() {
    let mut config = config();
    config.timers.fragment = Duration::from_secs(2);
    config.limits.fragments.datagrams = 6;
    let mut nat = Nat::new(config);
    let packet = udp6((CLIENT, 5000), (SERVER, 53), &[7; 2000]);
    for id in 0..5 {
        let fate = nat.send(&in_fragments6(&packet, id)[0]);
        assert_eq!(fate, Fate::Forwarded(vec![]));
    }
    assert_eq!(nat.engine.fragments_v6.datagrams(), 3);
    // Whole packets are not affected, and no state was made for what waits.
    assert_eq!(nat.sessions(), 0);
    nat.udp((OTHER, 1), (SERVER, 53));
    // In time the rest is welcome, too late it is not; nobody has to call for that.
    nat.sleep(1);
    let fate = nat.send(&in_fragments6(&packet, 2)[1]);
    assert!(matches!(fate, Fate::Forwarded(packets) if !packets.is_empty()));
    nat.sleep(1);
    let fate = nat.send(&in_fragments6(&packet, 3)[1]);
    assert_eq!(fate, Fate::Forwarded(vec![]), "a first fragment of its own");
    let why = &nat.engine.stats().from_v6.dropped_by_translation;
    // Two made room for others, two ran out of time.
    assert_eq!(why.get(xlat::DropReason::FragmentDisplaced), 2);
    assert_eq!(why.get(xlat::DropReason::FragmentTimeout), 2);
}

/// RFC 5722: the whole datagram goes, both ways, and makes no state.
#[test]
fn plat_3_4_03_overlapping_fragments_discard_the_datagram() {
    let mut nat = Nat::new(config());
    let overlap = Fate::Dropped(Why::Translation(xlat::DropReason::FragmentOverlap));
    let dst = prefix().embed(SERVER);
    let datagram = compose::udp(Pair::V6(CLIENT, dst), 5000, 53, &[7; 40]);
    let part = |offset: u16, more, bytes: &[u8]| {
        V6::new(CLIENT, dst, 44).carrying(&compose::fragment(17, offset, more, 9, bytes))
    };
    assert_eq!(
        nat.send(&part(0, true, &datagram[..24])),
        Fate::Forwarded(vec![])
    );
    // A second port over the first, as a tiny fragment would (RFC 1858).
    assert_eq!(nat.send(&part(2, true, &datagram[16..32])), overlap);
    assert_eq!(nat.send(&part(3, false, &datagram[24..])), overlap);

    let seen = nat.udp((CLIENT, 5000), (SERVER, 53));
    let mut header = V4::new(SERVER, seen.0, 17);
    let datagram = compose::udp(Pair::V4(SERVER, seen.0), 53, seen.1, &[7; 40]);
    header.mf = true;
    assert_eq!(
        nat.send(&header.carrying(&datagram[..24])),
        Fate::Forwarded(vec![])
    );
    (header.offset, header.mf) = (2, false);
    assert_eq!(nat.send(&header.carrying(&datagram[16..])), overlap);
    (header.offset, header.mf) = (3, false);
    assert_eq!(nat.send(&header.carrying(&datagram[24..])), overlap);
    assert_eq!((nat.bindings(), nat.sessions()), (1, 1));
}

/// RFC 1858: ports cut in two are put together before anybody looks at them.
#[test]
fn plat_3_4_03_tiny_fragments_hide_nothing() {
    let mut nat = Nat::new(config());
    let dst = prefix().embed(SERVER);
    let segment = compose::tcp(Pair::V6(CLIENT, dst), (40_000, 443), SYN, &[], b"");
    let part = |offset: u16, more, bytes: &[u8]| {
        V6::new(CLIENT, dst, 44).carrying(&compose::fragment(6, offset, more, 9, bytes))
    };
    // The flags are in the second fragment.
    assert_eq!(
        nat.send(&part(0, true, &segment[..8])),
        Fate::Forwarded(vec![])
    );
    assert_eq!(nat.sessions(), 0);
    let packet = nat.send(&part(1, false, &segment[8..])).packet();
    assert_eq!(transport_checksum_ok(&packet), Some(true));
    assert_eq!((nat.bindings(), nat.sessions()), (1, 1));
}

/// RFC 6146 section 3.4: a datagram that cannot be kept is discarded in silence.
#[test]
fn plat_3_4_06_without_memory_fragments_are_dropped_in_silence() {
    let mut config = config();
    config.limits.fragments.bytes = 1000;
    let mut nat = Nat::new(config);
    let seen = nat.udp((CLIENT, 5000), (SERVER, 53));
    let mut datagram = compose::udp(Pair::V4(SERVER, seen.0), 53, seen.1, &[9; 3000]);
    datagram[6..8].fill(0);
    let mut header = V4::new(SERVER, seen.0, 17);
    header.mf = true;
    let why = Why::Translation(xlat::DropReason::FragmentMemory);
    assert_eq!(
        nat.send(&header.carrying(&datagram[..1480])),
        Fate::Dropped(why)
    );
}
