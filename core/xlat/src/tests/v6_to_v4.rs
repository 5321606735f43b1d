//! Section 5 of RFC 7915, but for ICMP and fragments.

use super::*;
use crate::{config::ServiceClass, icmp_error::Message};
use wire::compose::tcp;

fn v4(packet: &[u8]) -> Ipv4<'_> {
    Ipv4::new_checked(packet).unwrap()
}

/// Extension headers of a kind, each pointing at the next, before a UDP datagram.
fn with_extensions(kinds: &[u8], data: &[u8]) -> Vec<u8> {
    let mut payload = compose::udp(BACK6, 53, 40000, data);
    let mut next = 17;
    for kind in kinds.iter().rev() {
        let header = match kind {
            // Two blocks of destination options.
            60 => [&[next, 1, 1, 12][..], &[0; 12]].concat(),
            43 => vec![next, 0, 4, 0, 0, 0, 0, 0],
            _ => vec![next, 0, 1, 4, 0, 0, 0, 0],
        };
        payload.splice(0..0, header);
        next = *kind;
    }
    V6::new(PEER6, HOST6, next).carrying(&payload)
}

#[test]
fn xlat_5_1_01_header_fields() {
    let packet = back6(&noise(77), |header| {
        header.class = 0xb9;
        header.flow = 0xabcde;
        header.hop_limit = 9;
    });
    let packet = to_v4(&packet).packet();
    let header = v4(&packet);
    assert_eq!(header.header_len(), 20);
    assert_eq!(header.tos(), 0xb9);
    assert_eq!(header.total_len(), 105);
    assert_eq!(header.ttl(), 8);
    assert_eq!(header.protocol(), 17);
    assert_eq!((header.src(), header.dst()), (PEER4, HOST4));
    let config = Config {
        tos: ServiceClass::Set(0x20),
        ..config()
    };
    let packet = to_v4_with(
        config,
        STATELESS,
        &back6(b"x", |header| header.class = 0xff),
    );
    assert_eq!(v4(&packet.packet()).tos(), 0x20);
}

#[test]
fn xlat_5_1_02_dont_fragment_above_1260_bytes() {
    for (len, wanted) in [
        (28, false),
        (1259, false),
        (1260, false),
        (1261, true),
        (1480, true),
        (1500, true),
    ] {
        let packet = to_v4(&back6(&noise(len - 28), |_| ())).packet();
        let header = v4(&packet);
        assert_eq!(usize::from(header.total_len()), len);
        assert_eq!(header.dont_fragment(), wanted, "{len}");
        assert!(!header.fragment().is_fragment());
    }
    // It is the translated length that counts, without what was skipped.
    let data = noise(1260 - 28);
    let packet = to_v4(&with_extensions(&[0, 60], &data)).packet();
    assert!(!v4(&packet).dont_fragment());
}

#[test]
fn xlat_5_1_03_identifications_do_not_repeat() {
    let mut translator = V6ToV4::new(config(), 1);
    let now = origin();
    let mut ids = std::collections::HashSet::new();
    for _ in 0..1000 {
        let mut buf = loaded(&back6(b"x", |_| ()));
        let verdict = translator.translate(&mut buf, &STATELESS, now);
        let packet = fate(verdict, &mut buf).packet();
        assert!(ids.insert(v4(&packet).id()));
    }
}

#[test]
fn xlat_5_1_04_extension_headers_are_skipped() {
    let plain = to_v4(&back6(b"hello", |_| ())).packet();
    for kinds in [
        &[0][..],
        &[60],
        &[43],
        &[0, 60, 43, 60],
        &[60, 60, 60, 60, 60, 60],
    ] {
        let packet = to_v4(&with_extensions(kinds, b"hello")).packet();
        assert_same_but_id(&packet, &plain);
    }
    let cut = V6::new(PEER6, HOST6, 60).carrying(&[17, 9, 0, 0, 0, 0, 0, 0]);
    assert_eq!(to_v4(&cut), Fate::Dropped(DropReason::MalformedIpv6));
}

#[test]
fn xlat_5_1_05_a_routing_header_with_segments_left_is_refused() {
    let mut packet = with_extensions(&[0, 43], b"hello");
    packet[51] = 1;
    let (reason, kind, code, rest, quote) = to_v4(&packet).reply();
    assert_eq!((reason, kind, code), (DropReason::RoutingHeader, 4, 0));
    assert_eq!(u32::from_be_bytes(rest), 51);
    assert_eq!(quote, packet);
}

#[test]
fn xlat_5_1_06_illegal_sources_are_dropped_in_silence() {
    for src in ["::", "::1", "ff02::1", "::ffff:192.0.2.1"] {
        let packet = back6(b"x", |header| {
            header.src = src.parse().unwrap();
            header.hop_limit = 1;
        });
        assert_eq!(to_v4(&packet), Fate::Dropped(DropReason::IllegalSource));
    }
    let packet = back6(b"x", |header| header.dst = "ff02::1".parse().unwrap());
    assert_eq!(to_v4(&packet), Fate::Dropped(DropReason::Multicast));
}

#[test]
fn hop_limit_is_decremented_once_and_ends_with_time_exceeded() {
    for hop_limit in [0, 1] {
        let packet = back6(b"x", |header| header.hop_limit = hop_limit);
        let (reason, kind, code, _, quote) = to_v4(&packet).reply();
        assert_eq!(reason, DropReason::HopLimitExceeded);
        assert_eq!((kind, code), (3, 0));
        assert_eq!(quote, packet);
    }
}

#[test]
fn xlat_5_1_1_03_small_packets_are_fragmented_and_larger_ones_answered() {
    let config = || Config {
        ipv4_mtu: 600,
        ..config()
    };
    let data = noise(1280 - 48);
    let packets = to_v4_with(config(), STATELESS, &back6(&data, |_| ())).packets();
    assert_eq!(packets.len(), 3);
    let mut joined = Vec::new();
    for packet in &packets {
        let header = v4(packet);
        assert!(packet.len() <= 600 && !header.dont_fragment());
        assert_eq!(usize::from(header.fragment().offset) * 8, joined.len());
        assert_eq!(header.id(), v4(&packets[0]).id());
        joined.extend_from_slice(header.payload());
    }
    assert_eq!(joined, compose::udp(BACK4, 53, 40000, &data));

    let packet = back6(&noise(1281 - 48), |_| ());
    let (reason, kind, code, rest, _) = to_v4_with(config(), STATELESS, &packet).reply();
    assert_eq!((reason, kind, code), (DropReason::TooBig, 2, 0));
    assert_eq!(u32::from_be_bytes(rest), 1280);

    // The size that fits is told, with room for the Fragment Header of a fragment.
    let wide = || Config {
        ipv4_mtu: 1400,
        ..self::config()
    };
    let (_, _, _, rest, quote) =
        to_v4_with(wide(), STATELESS, &back6(&noise(1500), |_| ())).reply();
    assert_eq!(u32::from_be_bytes(rest), 1420);
    assert_eq!(quote.len(), 1280 - 48);
    let datagram = compose::udp(BACK6, 53, 40000, &noise(1432));
    let fragment =
        V6::new(PEER6, HOST6, 44).carrying(&compose::fragment(17, 0, true, 1, &datagram));
    let (_, _, _, rest, _) = to_v4_with(wide(), STATELESS, &fragment).reply();
    assert_eq!(u32::from_be_bytes(rest), 1428);
}

#[test]
fn xlat_5_4_01_dropped_packets_are_answered_with_prohibited() {
    let far = "2001:db8:ffff::1".parse().unwrap();
    let packet = back6(b"x", |header| header.dst = far);
    let (reason, kind, code, _, _) = to_v4(&packet).reply();
    assert_eq!(
        (reason, kind, code),
        (DropReason::NoDestinationMapping, 1, 1)
    );
    let packet = back6(b"x", |header| {
        header.dst = "2001:db8:64::10.0.0.1".parse().unwrap();
    });
    let (reason, kind, code, _, _) = to_v4(&packet).reply();
    assert_eq!(reason, DropReason::NonGlobalUnderWellKnownPrefix);
    assert_eq!((kind, code), (1, 1));
    let packet = back6(b"x", |header| header.src = far);
    assert!(matches!(
        to_v4(&packet),
        Fate::Replied(DropReason::NoSourceMapping, _)
    ));
    let packet = back6(b"x", |header| {
        header.dst = "2001:db8:64::127.0.0.1".parse().unwrap();
    });
    assert_eq!(to_v4(&packet), Fate::Dropped(DropReason::ExcludedAddress));
    // Not for ICMPv6 packets.
    let echo = compose::icmp6(far, HOST6, 128, 0, [0; 4], b"ping");
    let packet = V6::new(far, HOST6, 58).carrying(&echo);
    assert_eq!(to_v4(&packet), Fate::Dropped(DropReason::NoSourceMapping));
}

#[test]
fn xlat_5_4_01_errors_are_limited_and_never_about_errors() {
    let limited = Config {
        errors: ErrorPolicy::Limit {
            burst: 10,
            per_second: 10,
        },
        ..config()
    };
    let packet = back6(b"x", |header| header.hop_limit = 1);
    let mut translator = V6ToV4::new(limited, 1);
    let now = origin();
    let replies = (0..50)
        .filter(|_| {
            let verdict = translator.translate(&mut loaded(&packet), &STATELESS, now);
            matches!(verdict, Verdict::Reply(_))
        })
        .count();
    assert_eq!(replies, 10);

    for (kind, answered) in [
        (1, false),
        (2, false),
        (4, false),
        (100, false),
        (137, false),
        (128, true),
    ] {
        let message = compose::icmp6(PEER6, HOST6, kind, 0, [0; 4], &[0; 48]);
        let mut header = V6::new(PEER6, HOST6, 58);
        header.hop_limit = 1;
        let fate = to_v4(&header.carrying(&message));
        assert_eq!(matches!(fate, Fate::Replied(..)), answered, "type {kind}");
        // An echo may be answered, but not from behind a fragment.
        header.next = 44;
        let later = header.carrying(&compose::fragment(58, 100, false, 1, &message));
        assert!(matches!(to_v4(&later), Fate::Dropped(_)));
    }
}

/// A stateful caller answers packets that were never judged here.
#[test]
fn xlat_5_4_01_a_caller_cannot_answer_the_unanswerable() {
    let answered = |src: &str, dst: &str| {
        let packet = back6(b"x", |header| {
            (header.src, header.dst) = (src.parse().unwrap(), dst.parse().unwrap());
        });
        let message = Message::plain(1, 4);
        let mut buf = loaded(&packet);
        let verdict = V6ToV4::new(config(), 1).reply(&mut buf, "why", message, origin());
        matches!(verdict, Verdict::Reply("why"))
    };
    assert!(answered("2001:db8::1", "2001:db8::2"));
    for src in ["::", "::1", "ff02::1"] {
        assert!(!answered(src, "2001:db8::2"), "from {src}");
    }
    assert!(!answered("2001:db8::1", "ff02::1"));
}

#[test]
fn xlat_5_5_01_checksums_follow_the_addresses() {
    for len in 0..100 {
        let data = noise(len);
        let udp = to_v4(&back6(&data, |_| ())).packet();
        assert_same_but_id(&udp, &back4(&data, |header| header.ttl = 63));
        let segment = tcp(BACK6, (443, 40001), 0x18, &[1; 12], &data);
        let packet = to_v4(&V6::new(PEER6, HOST6, 6).carrying(&segment)).packet();
        assert_eq!(
            packet[20..],
            tcp(BACK4, (443, 40001), 0x18, &[1; 12], &data)
        );
    }
}

#[test]
fn xlat_5_5_01_a_udp_checksum_never_becomes_zero() {
    let mut translator = V6ToV4::new(config(), 1);
    let now = origin();
    let mut seen_ffff = 0;
    let mut buf = PacketBuf::new();
    for word in 0..=u16::MAX {
        buf.set(&back6(&word.to_be_bytes(), |_| ())).unwrap();
        let verdict = translator.translate(&mut buf, &STATELESS, now);
        assert!(matches!(verdict, Verdict::Forward(_)));
        assert_ne!(buf.bytes()[26..28], [0, 0]);
        assert_eq!(transport_checksum_ok(buf.bytes()), Some(true));
        seen_ffff += usize::from(buf.bytes()[26..28] == [0xff, 0xff]);
    }
    assert!(seen_ffff > 0);
}

#[test]
fn xlat_5_5_01_udp_without_checksum_is_dropped() {
    let mut packet = back6(b"x", |_| ());
    packet[46..48].fill(0);
    assert_eq!(
        to_v4(&packet),
        Fate::Dropped(DropReason::UdpChecksumZeroInIpv6)
    );
}

#[test]
fn unknown_protocols_pass_and_those_that_change_their_meaning_do_not() {
    for number in [47, 50, 51, 132, 255] {
        let payload = noise(60);
        let packet = to_v4(&V6::new(PEER6, HOST6, number).carrying(&payload)).packet();
        assert_eq!(v4(&packet).protocol(), number);
        assert_eq!(packet[20..], payload);
    }
    for number in [1, 2, 59, 135, 139, 140] {
        let packet = V6::new(PEER6, HOST6, number).carrying(&noise(60));
        assert_eq!(
            to_v4(&packet),
            Fate::Dropped(DropReason::UntranslatableProtocol),
            "next header {number}"
        );
    }
}

#[test]
fn ports_follow_the_mapping() {
    let mapping = TestMapping {
        rewrite: Rewrite::Ports { src: 1, dst: 2 },
        ..STATELESS
    };
    let packet = to_v4_with(config(), mapping, &back6(b"data", |_| ())).packet();
    assert_eq!(packet[20..], compose::udp(BACK4, 1, 2, b"data"));
}

#[test]
fn what_ends_too_early_is_dropped() {
    for (next, len) in [(17, 7), (6, 19), (58, 7)] {
        let packet = V6::new(PEER6, HOST6, next).carrying(&vec![0x80; len]);
        assert_eq!(
            to_v4(&packet),
            Fate::Dropped(DropReason::TruncatedTransport)
        );
    }
    assert_eq!(to_v4(&[]), Fate::Dropped(DropReason::MalformedIpv6));
}

#[test]
fn a_packet_too_long_for_ipv4_is_dropped() {
    let packet = V6::new(PEER6, HOST6, 47).carrying(&noise(65_516));
    assert_eq!(to_v4(&packet), Fate::Dropped(DropReason::TooLongForIpv4));
    let jumbo = Config {
        ipv4_mtu: u16::MAX,
        ..config()
    };
    let packet = V6::new(PEER6, HOST6, 47).carrying(&noise(65_515));
    let packet = to_v4_with(jumbo, STATELESS, &packet).packet();
    assert_eq!(v4(&packet).total_len(), u16::MAX);
}

#[test]
fn xlat_4_01_packets_leave_in_the_order_they_came() {
    let mut translator = V6ToV4::new(config(), 1);
    let now = origin();
    for n in 0u32..200 {
        let mut buf = loaded(&back6(&n.to_be_bytes(), |_| ()));
        let verdict = translator.translate(&mut buf, &STATELESS, now);
        assert_eq!(fate(verdict, &mut buf).packet()[28..], n.to_be_bytes());
    }
}
