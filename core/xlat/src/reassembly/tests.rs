use super::*;
use proptest::prelude::*;
use wire::compose::{self, Pair, V4, V6};

const A4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const B4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 0x10);
const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0xc633, 0x640a);

#[expect(clippy::disallowed_methods, reason = "virtual time needs an origin")]
fn origin() -> Instant {
    Instant::now()
}

const LIFETIME: Duration = Duration::from_secs(5);

fn fragments(limits: Limits) -> Reassembly {
    Reassembly::new(Key::new([9; 16]), LIFETIME, limits)
}

fn noise(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 % 251) as u8).collect()
}

/// The fragments of a datagram, each of `chunk` bytes.
fn split(v6: bool, id: u32, payload: &[u8], chunk: usize) -> Vec<Vec<u8>> {
    let count = payload.len().div_ceil(chunk);
    payload
        .chunks(chunk)
        .enumerate()
        .map(|(i, part)| fragment(v6, id, i * chunk, i + 1 < count, part))
        .collect()
}

fn fragment(v6: bool, id: u32, offset: usize, more: bool, part: &[u8]) -> Vec<u8> {
    let offset = (offset / 8) as u16;
    if v6 {
        let payload = compose::fragment(17, offset, more, id, part);
        return V6::new(A6, B6, 44).carrying(&payload);
    }
    let mut header = V4::new(A4, B4, 17);
    (header.id, header.offset, header.mf) = (id as u16, offset, more);
    header.carrying(part)
}

fn take(
    fragments: &mut Reassembly,
    packet: &[u8],
    now: Instant,
) -> Result<Option<Vec<u8>>, DropReason> {
    let mut buf = PacketBuf::new();
    buf.set(packet).unwrap();
    match fragments.take(&mut buf, now)? {
        Outcome::Whole => Ok(Some(buf.bytes().to_vec())),
        Outcome::Kept => Ok(None),
    }
}

fn whole(v6: bool, id: u32, payload: &[u8]) -> Vec<u8> {
    if v6 {
        let payload = compose::fragment(17, 0, false, id, payload);
        return V6::new(A6, B6, 44).carrying(&payload);
    }
    let mut header = V4::new(A4, B4, 17);
    header.id = id as u16;
    header.carrying(payload)
}

#[test]
fn plat_3_4_02_fragments_in_any_order_become_the_datagram() {
    let payload = compose::udp(Pair::V4(A4, B4), 1, 2, &noise(8000));
    for v6 in [false, true] {
        for rotation in 0..7 {
            let mut fragments = fragments(Limits::default());
            let mut parts = split(v6, 77, &payload, 1232);
            parts.rotate_left(rotation);
            if rotation % 2 == 1 {
                parts.reverse();
            }
            let now = origin();
            let (last, first) = parts.split_last().unwrap();
            for part in first {
                assert_eq!(take(&mut fragments, part, now), Ok(None));
            }
            assert!(fragments.bytes() > 0);
            let joined = take(&mut fragments, last, now).unwrap().unwrap();
            assert_eq!(joined, whole(v6, 77, &payload));
            assert_eq!((fragments.bytes(), fragments.datagrams()), (0, 0));
        }
    }
}

#[test]
fn what_is_no_fragment_passes_untouched() {
    let mut fragments = fragments(Limits::default());
    for packet in [
        V4::new(A4, B4, 17).carrying(&noise(100)),
        V6::new(A6, B6, 17).carrying(&noise(100)),
        whole(true, 5, &noise(100)),
    ] {
        let mut buf = PacketBuf::new();
        buf.set(&packet).unwrap();
        let outcome = fragments.take(&mut buf, origin());
        assert_eq!(outcome, Ok(Outcome::Whole));
        assert!(!buf.offload.reassembled);
        assert_eq!(buf.bytes(), packet);
    }
}

/// RFC 8200 §4.5, RFC 791: what the fragments say differently is taken from the first.
#[test]
fn the_header_is_that_of_the_first_fragment() {
    for order in [[0, 1], [1, 0]] {
        let mut fragments = fragments(Limits::default());
        let mut parts = split(true, 1, &noise(2000), 1232);
        (parts[0][7], parts[1][7]) = (33, 44);
        let [first, second] = order.map(|at| &parts[at]);
        assert_eq!(take(&mut fragments, first, origin()), Ok(None));
        let joined = take(&mut fragments, second, origin()).unwrap().unwrap();
        assert_eq!(joined[7], 33);
    }
}

/// A datagram may follow another one with the same identification; it has its own time.
#[test]
fn plat_3_4_02_a_deadline_is_that_of_one_datagram() {
    let mut fragments = fragments(Limits::default());
    let start = origin();
    let parts = split(true, 1, &noise(2000), 1232);
    for part in &parts {
        take(&mut fragments, part, start).unwrap();
    }
    let later = start + LIFETIME - Duration::from_secs(1);
    assert_eq!(take(&mut fragments, &parts[0], later), Ok(None));
    fragments.expire(start + LIFETIME, |_, _| panic!("given up too early"));
    let again = take(&mut fragments, &parts[1], start + LIFETIME);
    assert!(again.unwrap().is_some());
}

#[test]
fn plat_5_3_01_new_limits_hold_for_what_comes() {
    let mut fragments = fragments(Limits::default());
    let now = origin();
    let start = |id| fragment(true, id, 0, true, &noise(8));
    assert_eq!(take(&mut fragments, &start(1), now), Ok(None));
    let limits = Limits {
        datagrams: 2,
        ..Limits::default()
    };
    fragments.set_limits(2 * LIFETIME, limits);
    assert_eq!(take(&mut fragments, &start(2), now), Ok(None));
    assert_eq!(fragments.datagrams(), 2);
    // What was there keeps its time.
    fragments.expire(now + LIFETIME, |_, _| ());
    assert_eq!(fragments.datagrams(), 1);
    for id in 3..9 {
        assert_eq!(take(&mut fragments, &start(id), now), Ok(None));
        assert_eq!(fragments.datagrams(), 2);
    }
    fragments.expire(now + 2 * LIFETIME, |_, _| ());
    assert_eq!(fragments.datagrams(), 0);
}

/// Translation must know, to choose sizes that every link takes.
#[test]
fn what_was_put_together_is_marked() {
    let mut fragments = fragments(Limits::default());
    let mut buf = PacketBuf::new();
    for part in split(true, 1, &noise(2000), 1232) {
        buf.set(&part).unwrap();
        let _ = fragments.take(&mut buf, origin()).unwrap();
    }
    assert!(buf.offload.reassembled);
}

#[test]
fn datagrams_are_kept_apart() {
    let mut fragments = fragments(Limits::default());
    let now = origin();
    let (one, other) = (noise(2000), vec![9; 2000]);
    let first = split(true, 1, &one, 1232);
    let second = split(true, 2, &other, 1232);
    assert_eq!(take(&mut fragments, &first[0], now), Ok(None));
    assert_eq!(take(&mut fragments, &second[1], now), Ok(None));
    assert_eq!(
        take(&mut fragments, &second[0], now),
        Ok(Some(whole(true, 2, &other)))
    );
    assert_eq!(
        take(&mut fragments, &first[1], now),
        Ok(Some(whole(true, 1, &one)))
    );
}

#[test]
fn plat_3_4_02_incomplete_datagrams_are_given_up_in_time() {
    let mut fragments = fragments(Limits::default());
    let now = origin();
    let parts = split(false, 1, &noise(2000), 1232);
    assert_eq!(take(&mut fragments, &parts[0], now), Ok(None));
    assert_eq!(fragments.next_expiry(), Some(now + LIFETIME));
    let mut given_up = Vec::new();
    fragments.expire(
        now + LIFETIME - Duration::from_millis(1),
        |family, reason| {
            given_up.push((family, reason));
        },
    );
    assert!(given_up.is_empty());
    fragments.expire(now + LIFETIME, |family, reason| {
        given_up.push((family, reason));
    });
    assert_eq!(given_up, [(Family::V4, DropReason::FragmentTimeout)]);
    assert_eq!((fragments.bytes(), fragments.datagrams()), (0, 0));
    // The rest starts a datagram of its own, and a completed one is not given up later.
    assert_eq!(take(&mut fragments, &parts[1], now + LIFETIME), Ok(None));
    let whole = take(&mut fragments, &parts[0], now + LIFETIME);
    assert!(matches!(whole, Ok(Some(_))));
    fragments.expire(now + 10 * LIFETIME, |family, reason| {
        given_up.push((family, reason));
    });
    assert_eq!(given_up.len(), 1);
}

/// RFC 5722: nothing of a datagram passes whose fragments overlap.
#[test]
fn plat_3_4_03_overlapping_fragments_discard_the_datagram() {
    let payload = noise(2464);
    for v6 in [false, true] {
        let parts = split(v6, 1, &payload, 1232);
        for overlap in [
            fragment(v6, 1, 1224, true, &payload[1224..1240]),
            fragment(v6, 1, 8, true, &payload[8..16]),
            fragment(v6, 1, 0, true, &[1; 1232]),
            fragment(v6, 1, 1216, true, &[1; 24]),
        ] {
            let mut fragments = fragments(Limits::default());
            let now = origin();
            assert_eq!(take(&mut fragments, &parts[0], now), Ok(None));
            let refused = Err(DropReason::FragmentOverlap);
            assert_eq!(take(&mut fragments, &overlap, now), refused);
            assert_eq!(take(&mut fragments, &parts[1], now), refused);
            assert_eq!(fragments.bytes(), 0);
        }
    }
}

#[test]
fn plat_3_4_03_two_ends_or_data_behind_the_end_are_overlaps() {
    let payload = noise(2464);
    let parts = split(true, 1, &payload, 1232);
    let now = origin();
    for (first, second) in [
        (parts[1].clone(), fragment(true, 1, 4000, true, &noise(8))),
        (parts[1].clone(), fragment(true, 1, 4000, false, &noise(8))),
        (fragment(true, 1, 4000, true, &noise(8)), parts[1].clone()),
    ] {
        let mut fragments = fragments(Limits::default());
        assert_eq!(take(&mut fragments, &first, now), Ok(None));
        assert_eq!(
            take(&mut fragments, &second, now),
            Err(DropReason::FragmentOverlap)
        );
    }
}

#[test]
fn an_exact_repetition_changes_nothing() {
    let payload = noise(2000);
    let parts = split(true, 1, &payload, 1232);
    let mut fragments = fragments(Limits::default());
    let now = origin();
    assert_eq!(take(&mut fragments, &parts[0], now), Ok(None));
    let bytes = fragments.bytes();
    assert_eq!(take(&mut fragments, &parts[0], now), Ok(None));
    assert_eq!(fragments.bytes(), bytes);
    assert_eq!(
        take(&mut fragments, &parts[1], now),
        Ok(Some(whole(true, 1, &payload)))
    );
}

#[test]
fn plat_3_4_03_impossible_fragments_are_refused() {
    let mut fragments = fragments(Limits::default());
    let now = origin();
    for packet in [
        fragment(true, 1, 0, true, &noise(1001)),
        fragment(true, 1, 65_528, false, &noise(16)),
        fragment(true, 1, 8, false, &[]),
        fragment(false, 1, 0, true, &noise(1001)),
    ] {
        assert_eq!(
            take(&mut fragments, &packet, now),
            Err(DropReason::FragmentMalformed)
        );
    }
    assert_eq!(fragments.datagrams(), 0);
    let last_byte = fragment(true, 2, 65_528, false, &noise(7));
    assert_eq!(take(&mut fragments, &last_byte, now), Ok(None));
    // Room for the payload, but not for the header it would need.
    for v6 in [false, true] {
        let parts = split(v6, 1, &noise(65_530), 1232);
        let (last, before) = parts.split_last().unwrap();
        for part in before {
            assert_eq!(take(&mut fragments, part, now), Ok(None));
        }
        let refused = Err(DropReason::FragmentMalformed);
        assert_eq!(take(&mut fragments, last, now), refused);
    }
}

/// Sources that send first fragments: their /64 and host, by the last byte of each.
fn first(network: u8, host: u8, id: u32, len: usize) -> Vec<u8> {
    let mut packet = fragment(true, id, 0, true, &noise(len));
    (packet[15], packet[23]) = (network, host);
    packet
}

/// The second and last fragment of such a datagram.
fn rest(network: u8, host: u8, id: u32, at: usize) -> Vec<u8> {
    let mut packet = fragment(true, id, at, false, &noise(8));
    (packet[15], packet[23]) = (network, host);
    packet
}

#[test]
fn plat_5_3_01_fragments_are_limited_in_every_way() {
    let now = origin();
    let mut fragments = fragments(Limits {
        datagrams: 10,
        datagrams_per_source: 4,
        bytes: 11 * (800 + 24),
    });
    // An address has half of what its /64 has.
    for id in 0..9 {
        assert_eq!(take(&mut fragments, &first(1, 1, id, 800), now), Ok(None));
        assert_eq!(fragments.datagrams(), 2.min(1 + id as usize));
    }
    for host in 2..9 {
        assert_eq!(take(&mut fragments, &first(1, host, 1, 800), now), Ok(None));
        assert_eq!(fragments.datagrams(), 4.min(1 + usize::from(host)));
    }
    for network in 2..99 {
        let start = first(network, 1, 1, 800);
        assert_eq!(take(&mut fragments, &start, now), Ok(None));
        assert!(fragments.datagrams() <= 10);
    }
    assert_eq!((fragments.datagrams(), fragments.bytes()), (10, 8240));
    // An IPv4 address has all of a source's.
    for id in 0..9 {
        let start = fragment(false, id, 0, true, &noise(8));
        assert_eq!(take(&mut fragments, &start, now), Ok(None));
    }
    let of_v4 = fragments.waiting.len(Whose::V4(A4));
    assert_eq!((of_v4, fragments.datagrams()), (4, 10));
    fragments.expire(now + LIFETIME, |_, _| ());
    assert_eq!((fragments.datagrams(), fragments.bytes()), (0, 0));
}

/// Bytes, too, are those of whoever waits longest, but a datagram makes no room for itself.
#[test]
fn plat_5_3_01_who_waits_longest_makes_room() {
    let now = origin();
    let mut fragments = fragments(Limits {
        bytes: 3 * (800 + 24),
        ..Limits::default()
    });
    let refused = Err(DropReason::FragmentMemory);
    for network in 1..=3 {
        let start = first(network, 1, 1, 800);
        assert_eq!(take(&mut fragments, &start, now), Ok(None));
    }
    assert_eq!(take(&mut fragments, &rest(1, 1, 1, 800), now), refused);
    let fourth = first(4, 1, 1, 800);
    assert_eq!(take(&mut fragments, &fourth, now), Ok(None));
    assert_eq!((fragments.datagrams(), fragments.bytes()), (3, 2472));
    // The second has gone for the end of the fourth, and the third is there.
    let whole = take(&mut fragments, &rest(4, 1, 1, 800), now);
    assert!(whole.unwrap().is_some());
    let whole = take(&mut fragments, &rest(3, 1, 1, 800), now);
    assert!(whole.unwrap().is_some());
    assert_eq!(fragments.datagrams(), 0);
    // What can never fit drives out nobody.
    assert_eq!(take(&mut fragments, &first(1, 1, 1, 800), now), Ok(None));
    assert_eq!(take(&mut fragments, &first(2, 1, 1, 2480), now), refused);
    assert_eq!(fragments.datagrams(), 1);
    let mut told = Vec::new();
    fragments.expire(now, |family, reason| told.push((family, reason)));
    assert_eq!(told, [(Family::V6, DropReason::FragmentDisplaced); 2]);
    fragments.expire(now, |_, _| panic!("told twice"));
}

/// Whoever sends first fragments only, or names another as their source, keeps no datagram away
/// whose fragments come together.
#[test]
fn plat_5_3_01_a_flood_of_fragments_stops_nobody() {
    let now = origin();
    let mut fragments = fragments(Limits::default());
    for id in 0..2000u16 {
        // A neighbour, the server's own address, and everybody.
        let neighbour = first(1, 2, id.into(), 800);
        let forged = fragment(false, id.into(), 0, true, &noise(800));
        let [network, _] = id.to_be_bytes();
        for packet in [neighbour, forged, first(network, 3, id.into(), 800)] {
            assert_eq!(take(&mut fragments, &packet, now), Ok(None));
        }
        if id % 100 == 0 {
            assert_eq!(take(&mut fragments, &first(1, 1, 7, 800), now), Ok(None));
            let whole = take(&mut fragments, &rest(1, 1, 7, 800), now);
            assert!(whole.unwrap().is_some());
            for (at, part) in split(false, 60_000, &noise(2000), 1232).iter().enumerate() {
                let done = take(&mut fragments, part, now).unwrap();
                assert_eq!(done.is_some(), at == 1);
            }
        }
    }
}

/// RFC 3168 §5.3.
#[test]
fn congestion_on_any_fragment_is_congestion_on_the_datagram() {
    let payload = noise(2000);
    for marked in [0, 1] {
        let mut fragments = fragments(Limits::default());
        let mut parts = split(true, 1, &payload, 1232);
        for (i, part) in parts.iter_mut().enumerate() {
            part[1] |= if i == marked { 0x30 } else { 0x20 };
        }
        let now = origin();
        take(&mut fragments, &parts[0], now).unwrap();
        let joined = take(&mut fragments, &parts[1], now).unwrap().unwrap();
        assert_eq!(Ipv6::new_checked(&joined).unwrap().traffic_class() & CE, CE);
    }
}

/// Ethernet pads short frames, and the last fragment is often short.
#[test]
fn padding_behind_a_fragment_is_no_part_of_the_datagram() {
    let payload = noise(1232 + 8);
    for v6 in [false, true] {
        let mut fragments = fragments(Limits::default());
        let parts = split(v6, 1, &payload, 1232);
        let now = origin();
        assert_eq!(take(&mut fragments, &parts[0], now), Ok(None));
        let padded = [&parts[1][..], &[0; 18]].concat();
        let joined = take(&mut fragments, &padded, now);
        assert_eq!(joined, Ok(Some(whole(v6, 1, &payload))));
    }
}

/// A whole packet has neither the routing header nor the options of its fragments.
#[test]
fn fragments_of_what_must_be_refused_are_refused() {
    let mut fragments = fragments(Limits::default());
    let now = origin();
    let mut options = V4::new(A4, B4, 1);
    (options.mf, options.options) = (true, vec![131, 7, 4, 10, 0, 0, 1, 0]);
    let source_route = options.carrying(&noise(8));
    options.options = vec![131, 99, 0, 0];
    let broken = options.carrying(&noise(8));
    let fragment = compose::fragment(58, 0, true, 1, &noise(8));
    let routing = [&[44, 0, 4, 1, 0, 0, 0, 0][..], &fragment].concat();
    let routing = V6::new(A6, B6, 43).carrying(&routing);
    let behind = compose::fragment(60, 0, true, 1, &[58, 0, 1, 4, 0, 0, 0, 0]);
    let behind = V6::new(A6, B6, 44).carrying(&behind);
    for (packet, reason) in [
        (source_route, DropReason::SourceRoute),
        (broken, DropReason::MalformedIpv4),
        (routing, DropReason::RoutingHeader),
        (behind, DropReason::ExtensionAfterFragment),
    ] {
        assert_eq!(take(&mut fragments, &packet, now), Err(reason));
    }
    assert_eq!(fragments.datagrams(), 0);
}

#[test]
fn a_datagram_longer_than_its_buffer_has_no_room() {
    let mut fragments = fragments(Limits::default());
    let parts = split(false, 1, &noise(4000), 1232);
    let (last, before) = parts.split_last().unwrap();
    for part in before {
        assert_eq!(take(&mut fragments, part, origin()), Ok(None));
    }
    let mut small = PacketBuf::for_packets_up_to(1500);
    small.set(last).unwrap();
    let refused = Err(DropReason::NoRoom);
    assert_eq!(fragments.take(&mut small, origin()), refused);
}

/// Datagrams that were completed cost nothing, however many come within one lifetime.
#[test]
fn plat_5_3_01_completed_datagrams_leave_nothing_behind() {
    let limits = Limits {
        datagrams: 10,
        ..Limits::default()
    };
    let mut fragments = fragments(limits);
    let now = origin();
    let waiting = fragment(true, 5000, 0, true, &noise(8));
    assert_eq!(take(&mut fragments, &waiting, now), Ok(None));
    for id in 0..1000 {
        for part in split(true, id, &noise(16), 8) {
            take(&mut fragments, &part, now).unwrap();
        }
        assert_eq!(fragments.datagrams(), 1);
    }
    // The one that still waits was not forgotten.
    let mut given_up = 0;
    fragments.expire(now + LIFETIME, |_, _| given_up += 1);
    assert_eq!((given_up, fragments.datagrams()), (1, 0));
}

proptest! {
    #[test]
    fn no_bytes_panic_and_memory_is_accounted_for(
        packets in proptest::collection::vec(
            (any::<bool>(), 0u32..3, 0usize..300, any::<bool>(), 0usize..300, 0u64..3),
            0..80,
        ),
    ) {
        let limits = Limits {
            datagrams: 5,
            datagrams_per_source: 3,
            bytes: 2000,
        };
        let mut fragments = fragments(limits);
        let mut now = origin();
        for (v6, id, offset, more, len, pause) in packets {
            now += Duration::from_secs(pause);
            fragments.expire(now, |_, _| ());
            let packet = fragment(v6, id, offset * 8, more, &noise(len));
            let _ = take(&mut fragments, &packet, now);
            prop_assert!(fragments.bytes() <= 2000);
            prop_assert!(fragments.datagrams() <= 5);
            let held: usize = fragments.waiting.all().map(Datagram::cost).sum();
            prop_assert_eq!(fragments.bytes(), held);
        }
        fragments.expire(now + LIFETIME, |_, _| ());
        prop_assert_eq!((fragments.bytes(), fragments.datagrams()), (0, 0));
    }
}
