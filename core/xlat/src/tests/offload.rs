//! Partial checksums and super-segments: the virtio-net header is translated with its packet.

use core::num::NonZeroU16;

use super::*;
use crate::config::UdpChecksumMissing;
use wire::{
    compose::tcp,
    offload::{ChecksumState, Gso, GsoKind, Offload},
    pieces::{Pieces, complete_checksum},
};

fn gso(kind: GsoKind, size: u16) -> Option<Gso> {
    Some(Gso {
        kind,
        size: NonZeroU16::new(size).unwrap(),
        header_len: 0,
    })
}

const fn partial(start: u16, field: u16) -> ChecksumState {
    ChecksumState::Partial { start, field }
}

/// What the kernel hands over for `packet`: its checksum field holds the pseudo-header's sum.
fn unfinished(packet: &[u8], start: u16, field: u16) -> PacketBuf {
    let mut buf = loaded(packet);
    let at = usize::from(start + field);
    let pseudo = match packet[0] >> 4 {
        4 => compose::checksum(&[
            &packet[12..20],
            &[0, packet[9]],
            &(packet.len() as u16 - start).to_be_bytes(),
        ]),
        _ => compose::checksum(&[
            &packet[8..40],
            &[0, packet[6]],
            &(packet.len() as u16 - start).to_be_bytes(),
        ]),
    };
    buf.bytes_mut()[at..at + 2].copy_from_slice(&(!pseudo).to_be_bytes());
    buf.offload.checksum = partial(start, field);
    buf
}

fn forward46(buf: &mut PacketBuf, config: Config) -> Pieces {
    match V4ToV6::new(config, 1).translate(buf, &STATELESS, origin()) {
        Verdict::Forward(pieces) => pieces,
        other => panic!("{other:?}"),
    }
}

fn forward64(buf: &mut PacketBuf, config: Config) -> Pieces {
    match V6ToV4::new(config, 1).translate(buf, &STATELESS, origin()) {
        Verdict::Forward(pieces) => pieces,
        other => panic!("{other:?}"),
    }
}

fn collect(buf: &mut PacketBuf, mut pieces: Pieces) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while pieces.next(buf) {
        assert_eq!(buf.offload.gso, None);
        complete_checksum(buf).unwrap();
        assert!(transport_checksum_ok(buf.bytes()).unwrap_or(true));
        all.push(buf.bytes().to_vec());
    }
    all
}

/// For every value that the finished checksum can take.
#[test]
fn xlat_4_5_01_a_partial_checksum_stays_partial_and_ends_right() {
    for word in (0..=u16::MAX).step_by(17) {
        let packet = udp4(&word.to_be_bytes(), |_| ());
        let mut buf = unfinished(&packet, 20, 6);
        let mut pieces = forward46(&mut buf, config());
        assert!(pieces.next(&mut buf));
        assert_eq!(buf.offload.checksum, partial(40, 6));
        complete_checksum(&mut buf).unwrap();
        assert_eq!(
            buf.bytes(),
            udp6(&word.to_be_bytes(), |header| header.hop_limit = 63)
        );

        let packet = back6(&word.to_be_bytes(), |_| ());
        let mut buf = unfinished(&packet, 40, 6);
        let mut pieces = forward64(&mut buf, config());
        assert!(pieces.next(&mut buf));
        assert_eq!(buf.offload.checksum, partial(20, 6));
        complete_checksum(&mut buf).unwrap();
        assert_same_but_id(
            buf.bytes(),
            &back4(&word.to_be_bytes(), |header| header.ttl = 63),
        );
    }
}

/// A partial field of zero is a sum, not "no checksum".
#[test]
fn a_partial_udp_checksum_of_zero_is_not_a_missing_one() {
    let mut buf = unfinished(&udp4(b"data", |_| ()), 20, 6);
    buf.bytes_mut()[26..28].fill(0);
    let mut pieces = forward46(&mut buf, config());
    assert!(pieces.next(&mut buf));
    assert_eq!(buf.offload.checksum, partial(40, 6));
}

#[test]
fn a_verified_checksum_stays_verified() {
    let mut buf = loaded(&back6(b"data", |_| ()));
    buf.offload.checksum = ChecksumState::Verified;
    let mut pieces = forward64(&mut buf, config());
    assert!(pieces.next(&mut buf));
    assert_eq!(buf.offload.checksum, ChecksumState::Verified);
}

#[test]
fn a_tcp_super_segment_passes_whole_from_4_to_6() {
    let data = noise(60_000);
    let mut header = V4::new(HOST4, PEER4, 6);
    header.df = true;
    let packet = header.carrying(&tcp(PAIR4, (40001, 443), 0x18, &[1; 12], &data));
    let mut buf = unfinished(&packet, 20, 16);
    buf.offload.gso = gso(GsoKind::TcpV4 { ecn: true }, 1420);
    let mut pieces = forward46(&mut buf, config());
    assert!(pieces.next(&mut buf));
    let offload = buf.offload;
    assert_eq!(offload.checksum, partial(40, 16));
    let kind = GsoKind::TcpV6 { ecn: true };
    let wanted = Gso {
        header_len: 72,
        ..gso(kind, 1420).unwrap()
    };
    assert_eq!(offload.gso, Some(wanted));
    assert!(!pieces.next(&mut buf));

    // The segments that the kernel will make of it are right.
    let mut pieces = Pieces::segments(&buf).unwrap();
    let mut joined = Vec::new();
    while pieces.next(&mut buf) {
        assert_eq!(transport_checksum_ok(buf.bytes()), Some(true));
        assert!(buf.len() <= 1500);
        joined.extend_from_slice(&buf.bytes()[72..]);
    }
    assert_eq!(joined, data);
}

#[test]
fn a_tcp_super_segment_passes_whole_from_6_to_4() {
    let data = noise(60_000);
    let segment = tcp(BACK6, (443, 40001), 0x18, &[1; 12], &data);
    let packet = V6::new(PEER6, HOST6, 6).carrying(&segment);
    let mut buf = unfinished(&packet, 40, 16);
    buf.offload.gso = gso(GsoKind::TcpV6 { ecn: false }, 1428);
    let mut pieces = forward64(&mut buf, config());
    assert!(pieces.next(&mut buf));
    assert_eq!(buf.offload.checksum, partial(20, 16));
    let wanted = Gso {
        header_len: 52,
        ..gso(GsoKind::TcpV4 { ecn: false }, 1428).unwrap()
    };
    assert_eq!(buf.offload.gso, Some(wanted));
    // DF by the size of a segment, 1480 bytes.
    assert!(Ipv4::new_checked(buf.bytes()).unwrap().dont_fragment());
    let mut pieces = Pieces::segments(&buf).unwrap();
    let mut ids = std::collections::HashSet::new();
    while pieces.next(&mut buf) {
        assert_eq!(transport_checksum_ok(buf.bytes()), Some(true));
        assert!(ids.insert(Ipv4::new_checked(buf.bytes()).unwrap().id()));
    }
    assert_eq!(ids.len(), 43);
}

/// The size of one segment decides about DF, and the next packet's Identification starts behind
/// those that the segments will use.
#[test]
fn xlat_5_1_02_dont_fragment_is_decided_by_the_segment() {
    let mut translator = V6ToV4::new(config(), 1);
    let mut translate = |size: u16| {
        let packet = back6(&noise(10_000), |_| ());
        let mut buf = unfinished(&packet, 40, 6);
        buf.offload.gso = gso(GsoKind::Udp, size);
        let verdict = translator.translate(&mut buf, &STATELESS, origin());
        assert!(matches!(verdict, Verdict::Forward(_)));
        let header = Ipv4::new_checked(buf.bytes()).unwrap();
        (header.dont_fragment(), header.id())
    };
    let (df, first) = translate(1232);
    assert!(!df);
    let (df, second) = translate(1233);
    assert!(df);
    assert_eq!(second, first.wrapping_add(9));
}

/// The segments of a super-segment use up as many Identifications as there are of them.
#[test]
fn xlat_5_1_03_no_packet_gets_an_identification_of_a_segment() {
    let mut translator = V6ToV4::new(config(), 1);
    let mut ids = std::collections::HashSet::new();
    for _ in 0..10 {
        let mut buf = unfinished(&back6(&noise(3000), |_| ()), 40, 6);
        buf.offload.gso = gso(GsoKind::Udp, 1000);
        let verdict = translator.translate(&mut buf, &STATELESS, origin());
        assert!(matches!(verdict, Verdict::Forward(_)));
        let mut segments = Pieces::segments(&buf).unwrap();
        while segments.next(&mut buf) {
            assert!(ids.insert(Ipv4::new_checked(buf.bytes()).unwrap().id()));
        }
    }
    assert_eq!(ids.len(), 30);
}

/// UDP's segment size is the application's, and a datagram that fits no link without DF is
/// fragmented after it was separated from the others.
#[test]
fn udp_super_segments_keep_their_size_or_are_segmented_and_fragmented() {
    let data = noise(5000);
    let packet = udp4(&data, |header| header.id = 70);
    let mut buf = unfinished(&packet, 20, 6);
    buf.offload.gso = gso(GsoKind::Udp, 1200);
    let mut pieces = forward46(&mut buf, config());
    assert!(pieces.next(&mut buf));
    assert_eq!(buf.offload.gso.map(|gso| gso.size.get()), Some(1200));
    assert_eq!(buf.offload.gso.map(|gso| gso.header_len), Some(48));

    let mut buf = unfinished(&packet, 20, 6);
    buf.offload.gso = gso(GsoKind::Udp, 1400);
    let pieces = forward46(&mut buf, config());
    let lengths: Vec<_> = collect(&mut buf, pieces).iter().map(Vec::len).collect();
    assert_eq!(lengths, [1280, 224, 1280, 224, 1280, 224, 848]);
}

#[test]
fn udp_super_segments_without_checksum_get_one() {
    let mut packet = udp4(&noise(3000), |_| ());
    packet[26..28].fill(0);
    let mut buf = loaded(&packet);
    buf.offload.gso = gso(GsoKind::Udp, 1000);
    let mut pieces = forward46(&mut buf, config());
    assert!(pieces.next(&mut buf));
    assert_eq!(buf.offload.checksum, partial(40, 6));
    let mut pieces = Pieces::segments(&buf).unwrap();
    while pieces.next(&mut buf) {
        assert_eq!(transport_checksum_ok(buf.bytes()), Some(true));
    }
}

/// The knobs about missing checksums are for super-segments too.
#[test]
fn xlat_4_5_02_super_segments_without_checksum_can_be_dropped() {
    let udp = Offload {
        gso: gso(GsoKind::Udp, 1000),
        ..Offload::default()
    };
    let strict = Config {
        udp_checksum_missing: UdpChecksumMissing::Drop,
        ..config()
    };
    let mut packet = udp4(&noise(3000), |_| ());
    packet[26..28].fill(0);
    let mut buf = loaded(&packet);
    buf.offload = udp;
    let verdict = V4ToV6::new(strict, 1).translate(&mut buf, &STATELESS, origin());
    let dropped = DropReason::UdpChecksumMissing;
    assert_eq!(fate(verdict, &mut buf), Fate::Dropped(dropped));

    let mut packet = back6(&noise(3000), |_| ());
    packet[46..48].fill(0);
    let mut buf = loaded(&packet);
    buf.offload = udp;
    let verdict = V6ToV4::new(config(), 1).translate(&mut buf, &STATELESS, origin());
    let dropped = DropReason::UdpChecksumZeroInIpv6;
    assert_eq!(fate(verdict, &mut buf), Fate::Dropped(dropped));
}

#[test]
fn xlat_4_1_03_segments_with_df_that_do_not_fit_are_answered() {
    let mut header = V4::new(HOST4, PEER4, 6);
    header.df = true;
    let packet = header.carrying(&tcp(PAIR4, (40001, 443), 0x18, &[], &noise(9000)));
    for (size, fits) in [(1440, true), (1441, false)] {
        let mut buf = unfinished(&packet, 20, 16);
        buf.offload.gso = gso(GsoKind::TcpV4 { ecn: false }, size);
        let verdict = V4ToV6::new(config(), 1).translate(&mut buf, &STATELESS, origin());
        match verdict {
            Verdict::Forward(_) => assert!(fits),
            Verdict::Reply(DropReason::TooBig) => {
                assert!(!fits);
                assert_eq!(buf.bytes()[20..22], [3, 4]);
                assert_eq!(buf.bytes()[26..28], 1480u16.to_be_bytes());
                assert_eq!(buf.offload, Offload::default());
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What a stateful caller asks before it makes state: of a super-segment it is the size of a segment.
#[test]
fn xlat_4_1_03_oversize_says_of_segments_what_will_become_of_them() {
    let data = noise(9000);
    let mut header = V4::new(HOST4, PEER4, 6);
    header.df = true;
    let tcp4 = header.carrying(&tcp(PAIR4, (40001, 443), 0x18, &[1; 12], &data));
    let udp4 = udp4(&data, |header| header.df = true);
    for (packet, at, kind, fits) in [
        (&tcp4, 16, GsoKind::TcpV4 { ecn: false }, 1428),
        (&udp4, 6, GsoKind::Udp, 1452),
    ] {
        for (size, fits) in [(fits, true), (fits + 1, false)] {
            let mut buf = unfinished(packet, 20, at);
            buf.offload.gso = gso(kind, size);
            let mut to_v6 = V4ToV6::new(config(), 1);
            let why = to_v6.oversize(&buf).map(|(why, _)| why);
            assert_eq!(why, (!fits).then_some(DropReason::TooBig));
            let verdict = to_v6.translate(&mut buf, &STATELESS, origin());
            assert_eq!(matches!(verdict, Verdict::Forward(_)), fits);
        }
    }

    let narrow = || Config {
        ipv4_mtu: 1400,
        ..config()
    };
    let segment = tcp(BACK6, (443, 40001), 0x18, &[1; 12], &data);
    let tcp6 = V6::new(PEER6, HOST6, 6).carrying(&segment);
    let udp6 = back6(&data, |_| ());
    for (packet, at, kind, fits) in [
        (&tcp6, 16, GsoKind::TcpV6 { ecn: false }, 1348),
        (&udp6, 6, GsoKind::Udp, 1372),
    ] {
        for (size, fits) in [(fits, true), (fits + 1, false)] {
            let mut buf = unfinished(packet, 40, at);
            buf.offload.gso = gso(kind, size);
            let mut to_v4 = V6ToV4::new(narrow(), 1);
            let why = to_v4.oversize(&buf).map(|(why, _)| why);
            assert_eq!(why, (!fits).then_some(DropReason::TooBig));
            let verdict = to_v4.translate(&mut buf, &STATELESS, origin());
            assert_eq!(matches!(verdict, Verdict::Forward(_)), fits);
        }
    }
}

#[test]
fn xlat_4_1_03_oversize_says_of_packets_what_will_become_of_them() {
    for (len, fits) in [(1452, true), (1453, false)] {
        let packet = udp4(&noise(len), |header| header.df = true);
        let mut to_v6 = V4ToV6::new(config(), 1);
        let mut buf = loaded(&packet);
        assert_eq!(to_v6.oversize(&buf).is_none(), fits);
        let verdict = to_v6.translate(&mut buf, &STATELESS, origin());
        assert_eq!(matches!(verdict, Verdict::Forward(_)), fits);
    }
    for (len, fits) in [(1372, true), (1373, false)] {
        let narrow = Config {
            ipv4_mtu: 1400,
            ..config()
        };
        let mut to_v4 = V6ToV4::new(narrow, 1);
        let mut buf = loaded(&back6(&noise(len), |_| ()));
        assert_eq!(to_v4.oversize(&buf).is_none(), fits);
        let verdict = to_v4.translate(&mut buf, &STATELESS, origin());
        assert_eq!(matches!(verdict, Verdict::Forward(_)), fits);
    }
}

#[test]
fn segments_that_fit_ipv6_but_not_ipv4_are_fragmented_or_answered() {
    let narrow = || Config {
        ipv4_mtu: 1000,
        ..config()
    };
    let packet = back6(&noise(5000), |_| ());
    let mut buf = unfinished(&packet, 40, 6);
    buf.offload.gso = gso(GsoKind::Udp, 1200);
    let pieces = forward64(&mut buf, narrow());
    let packets = collect(&mut buf, pieces);
    assert_eq!(packets.len(), 9);
    assert!(packets.iter().all(|packet| packet.len() <= 1000));

    let mut buf = unfinished(&packet, 40, 6);
    buf.offload.gso = gso(GsoKind::Udp, 1300);
    let verdict = V6ToV4::new(narrow(), 1).translate(&mut buf, &STATELESS, origin());
    assert!(matches!(verdict, Verdict::Reply(DropReason::TooBig)));
}

/// Fragments cannot be finished by the kernel.
#[test]
fn a_partial_checksum_is_finished_before_fragmentation() {
    let data = noise(1472);
    let mut buf = unfinished(&udp4(&data, |_| ()), 20, 6);
    let pieces = forward46(&mut buf, config());
    let packets = collect(&mut buf, pieces);
    assert_eq!(packets.len(), 2);
    let joined: Vec<u8> = packets
        .iter()
        .flat_map(|packet| packet[48..].to_vec())
        .collect();
    assert_eq!(joined, compose::udp(PAIR6, 40000, 53, &data));
}

/// A partial checksum at another place than the transport header's (a tunnel's inner packet) is
/// finished, since its pseudo-header is not ours to change.
#[test]
fn a_partial_checksum_inside_a_tunnel_is_finished() {
    let inner = udp4(b"inner", |_| ());
    let packet = V4::new(HOST4, PEER4, 4).carrying(&inner);
    let mut buf = loaded(&packet);
    let pseudo = compose::checksum(&[&inner[12..20], &[0, 17], &[0, 13]]);
    buf.bytes_mut()[46..48].copy_from_slice(&(!pseudo).to_be_bytes());
    buf.offload.checksum = partial(40, 6);
    let mut pieces = forward46(&mut buf, config());
    assert!(pieces.next(&mut buf));
    assert_eq!(buf.offload, Offload::default());
    assert_eq!(buf.bytes()[40..], inner);
}

#[test]
fn metadata_that_contradicts_the_packet_is_refused() {
    let refused = |packet: &[u8], offload: Offload| {
        let mut buf = loaded(packet);
        buf.offload = offload;
        let verdict = match packet[0] >> 4 {
            4 => V4ToV6::new(config(), 1).translate(&mut buf, &STATELESS, origin()),
            _ => V6ToV4::new(config(), 1).translate(&mut buf, &STATELESS, origin()),
        };
        matches!(verdict, Verdict::Drop(DropReason::BadOffload))
    };
    let with_gso = |kind| Offload {
        gso: gso(kind, 100),
        ..Offload::default()
    };
    let udp = udp4(&noise(500), |_| ());
    let segment = V4::new(HOST4, PEER4, 6).carrying(&tcp(PAIR4, (1, 2), 0, &[], &noise(500)));
    assert!(!refused(&udp, with_gso(GsoKind::Udp)));
    assert!(!refused(&segment, with_gso(GsoKind::TcpV4 { ecn: false })));
    assert!(refused(&udp, with_gso(GsoKind::TcpV4 { ecn: false })));
    assert!(refused(&segment, with_gso(GsoKind::Udp)));
    assert!(refused(&segment, with_gso(GsoKind::TcpV6 { ecn: false })));
    let segment6 = V6::new(PEER6, HOST6, 6).carrying(&tcp(BACK6, (1, 2), 0, &[], &noise(500)));
    assert!(!refused(&segment6, with_gso(GsoKind::TcpV6 { ecn: false })));
    assert!(refused(&segment6, with_gso(GsoKind::TcpV4 { ecn: false })));
    let fragment = udp4(&noise(500), |header| header.mf = true);
    assert!(refused(&fragment, with_gso(GsoKind::Udp)));
    let far = Offload {
        checksum: partial(600, 6),
        ..Offload::default()
    };
    assert!(refused(&udp, far));
    // A TCP header that claims more than there is.
    let mut short = tcp(PAIR4, (1, 2), 0, &[], b"");
    short[12] = 0xf0;
    let mut buf = loaded(&V4::new(HOST4, PEER4, 6).carrying(&short));
    buf.offload = with_gso(GsoKind::TcpV4 { ecn: false });
    let verdict = V4ToV6::new(config(), 1).translate(&mut buf, &STATELESS, origin());
    assert!(matches!(
        verdict,
        Verdict::Drop(DropReason::TruncatedTransport)
    ));
}

/// A network card may hand over a super-segment whose checksum it verified. The kernel takes one
/// back only with a checksum that is still to be finished.
#[test]
fn a_super_segment_leaves_with_a_partial_checksum_however_it_came() {
    let data = noise(5000);
    let segment4 = V4::new(HOST4, PEER4, 6).carrying(&tcp(PAIR4, (1, 2), 0x18, &[], &data));
    let segment6 = V6::new(PEER6, HOST6, 6).carrying(&tcp(BACK6, (2, 1), 0x18, &[], &data));
    for checksum in [ChecksumState::Complete, ChecksumState::Verified] {
        let mut buf = loaded(&segment4);
        buf.offload.checksum = checksum;
        buf.offload.gso = gso(GsoKind::TcpV4 { ecn: false }, 1000);
        let mut pieces = forward46(&mut buf, config());
        assert!(pieces.next(&mut buf));
        let wanted = V6::new(HOST6, PEER6, 6).carrying(&tcp(PAIR6, (1, 2), 0x18, &[], &data));
        assert_eq!(
            buf.bytes()[56..58],
            unfinished(&wanted, 40, 16).bytes()[56..58]
        );
        assert_eq!(buf.offload.checksum, partial(40, 16));

        let mut buf = loaded(&segment6);
        buf.offload.checksum = checksum;
        buf.offload.gso = gso(GsoKind::TcpV6 { ecn: false }, 1000);
        let mut pieces = forward64(&mut buf, config());
        assert!(pieces.next(&mut buf));
        let wanted = V4::new(PEER4, HOST4, 6).carrying(&tcp(BACK4, (2, 1), 0x18, &[], &data));
        assert_eq!(
            buf.bytes()[36..38],
            unfinished(&wanted, 20, 16).bytes()[36..38]
        );
        assert_eq!(buf.offload.checksum, partial(20, 16));
    }
}

/// Where UDP has its checksum, TCP has a part of its sequence number, which may be zero.
#[test]
fn a_sequence_number_of_zero_is_no_missing_checksum() {
    let mut segment = tcp(PAIR4, (1, 2), 0x18, &[], &noise(5000));
    segment[4..8].fill(0);
    let mut buf = loaded(&V4::new(HOST4, PEER4, 6).carrying(&segment));
    buf.offload.checksum = ChecksumState::Verified;
    buf.offload.gso = gso(GsoKind::TcpV4 { ecn: false }, 1000);
    let mut pieces = forward46(&mut buf, config());
    assert!(pieces.next(&mut buf));
    assert_eq!(buf.offload.checksum, partial(40, 16));
}

/// An unfinished checksum does not make a header of what ends inside it.
#[test]
fn an_unfinished_checksum_of_a_truncated_header_is_no_help() {
    let segment = tcp(PAIR4, (1, 2), 0x18, &[], b"");
    for len in [18, 19] {
        let packet = V4::new(HOST4, PEER4, 6).carrying(&segment[..len]);
        let mut buf = unfinished(&packet, 20, 16);
        let verdict = V4ToV6::new(config(), 1).translate(&mut buf, &STATELESS, origin());
        assert!(matches!(
            verdict,
            Verdict::Drop(DropReason::TruncatedTransport)
        ));
    }
}

/// Its segments' checksums are at the transport header or nowhere.
#[test]
fn a_super_segment_with_a_partial_checksum_elsewhere_is_refused() {
    let packet = udp4(&noise(500), |_| ());
    for checksum in [partial(28, 6), partial(20, 16)] {
        let mut buf = loaded(&packet);
        buf.offload.gso = gso(GsoKind::Udp, 100);
        buf.offload.checksum = checksum;
        let verdict = V4ToV6::new(config(), 1).translate(&mut buf, &STATELESS, origin());
        assert!(matches!(verdict, Verdict::Drop(DropReason::BadOffload)));
    }
}

#[test]
fn xlat_4_5_04_an_unfinished_sctp_checksum_is_finished() {
    let mut packet = V4::new(HOST4, PEER4, 132).carrying(&noise(40));
    packet[28..32].fill(0);
    let crc = wire::crc32c::crc32c(&packet[20..]).to_le_bytes();
    let mut buf = loaded(&packet);
    buf.offload.checksum = partial(20, 8);
    let mut pieces = forward46(&mut buf, config());
    assert!(pieces.next(&mut buf));
    assert_eq!(buf.offload, Offload::default());
    assert_eq!(buf.bytes()[48..52], crc);
}

/// Found by fuzzing: a checksum finished there made another length of the IPv4 header than the one
/// that had been judged.
#[test]
fn an_unfinished_checksum_is_never_that_of_the_ip_header() {
    let [v4, v6] = [udp4(&noise(50), |_| ()), udp6(&noise(50), |_| ())];
    let refused = |verdict| matches!(verdict, Verdict::Drop(DropReason::BadOffload));
    for start in 0..40 {
        for field in [0, 1, 6] {
            let mut buf = loaded(&v4);
            buf.offload.checksum = partial(start, field);
            let verdict = V4ToV6::new(config(), 1).translate(&mut buf, &STATELESS, origin());
            assert!(start >= 20 || refused(verdict), "{start}");
            let mut buf = loaded(&v6);
            buf.offload.checksum = partial(start, field);
            let verdict = V6ToV4::new(config(), 1).translate(&mut buf, &STATELESS, origin());
            assert!(refused(verdict), "{start}");
        }
    }
}
