//! ICMP in both directions (RFC 7915 §4.2, §4.3, §5.2, §5.3; RFC 4884; RFC 6791).

use super::*;
use wire::compose::{icmp4, icmp6, tcp};

/// An ICMPv4 error from the host about a packet that the peer sent to it.
fn error4(kind: u8, code: u8, rest: [u8; 4], data: &[u8]) -> Vec<u8> {
    V4::new(HOST4, PEER4, 1).carrying(&icmp4(kind, code, rest, data))
}

/// An ICMPv6 error from `src` about a packet that the host sent to the peer.
fn error6(src: Ipv6Addr, kind: u8, code: u8, rest: [u8; 4], data: &[u8]) -> Vec<u8> {
    V6::new(src, HOST6, 58).carrying(&icmp6(src, HOST6, kind, code, rest, data))
}

fn quoted4() -> Vec<u8> {
    back4(b"hello464", |header| {
        (header.ttl, header.tos, header.df, header.id) = (7, 0x2e, true, 99);
    })
}

fn quoted6() -> Vec<u8> {
    udp6(b"hello464", |header| {
        (header.hop_limit, header.class, header.flow) = (7, 0x2e, 0x12345);
    })
}

/// The ICMPv6 message of a packet, its checksum verified.
fn message6(packet: &[u8]) -> Vec<u8> {
    let header = Ipv6::new_checked(packet).unwrap();
    assert_eq!(header.next_header(), 58);
    assert_eq!(usize::from(header.payload_len()) + 40, packet.len());
    assert_eq!(transport_checksum_ok(packet), Some(true));
    header.payload().to_vec()
}

fn message4(packet: &[u8]) -> Vec<u8> {
    let header = Ipv4::new_checked(packet).unwrap();
    assert_eq!(header.protocol(), 1);
    assert_eq!(usize::from(header.total_len()), packet.len());
    assert_eq!(transport_checksum_ok(packet), Some(true));
    header.payload().to_vec()
}

#[test]
fn xlat_4_2_01_echoes_gain_a_pseudo_header() {
    for (kind, wanted) in [(8, 128), (0, 129)] {
        let echo = icmp4(kind, 0, [0x46, 0x40, 0, 1], b"abcdefgh");
        let packet = to_v6(&V4::new(HOST4, PEER4, 1).carrying(&echo)).packet();
        let wanted = icmp6(HOST6, PEER6, wanted, 0, [0x46, 0x40, 0, 1], b"abcdefgh");
        assert_eq!(packet[40..], wanted);
    }
}

#[test]
fn xlat_5_2_01_echoes_lose_the_pseudo_header() {
    for (kind, wanted) in [(128, 8), (129, 0)] {
        let echo = icmp6(PEER6, HOST6, kind, 0, [0x46, 0x40, 0, 1], b"abcdefgh");
        let packet = to_v4(&V6::new(PEER6, HOST6, 58).carrying(&echo)).packet();
        assert_eq!(
            packet[20..],
            icmp4(wanted, 0, [0x46, 0x40, 0, 1], b"abcdefgh")
        );
    }
}

#[test]
fn the_identifier_of_an_echo_follows_the_mapping() {
    let mapping = TestMapping {
        rewrite: Rewrite::Identifier(0x1234),
        ..STATELESS
    };
    let echo = icmp4(8, 0, [0x46, 0x40, 0, 1], b"abc");
    let packet = V4::new(HOST4, PEER4, 1).carrying(&echo);
    let packet = to_v6_with(config(), mapping, &packet).packet();
    let wanted = icmp6(HOST6, PEER6, 128, 0, [0x12, 0x34, 0, 1], b"abc");
    assert_eq!(packet[40..], wanted);
    let echo = icmp6(PEER6, HOST6, 129, 0, [0x46, 0x40, 0, 1], b"abc");
    let packet = V6::new(PEER6, HOST6, 58).carrying(&echo);
    let packet = to_v4_with(config(), mapping, &packet).packet();
    assert_eq!(packet[20..], icmp4(0, 0, [0x12, 0x34, 0, 1], b"abc"));
}

#[test]
fn xlat_4_2_01_every_error_type_and_code_passes_or_is_dropped() {
    for kind in 0..=255 {
        for code in 0..=20 {
            let fate = to_v6(&error4(kind, code, [0; 4], &quoted4()));
            match (kind, code) {
                (0 | 8, 0) => assert!(message6(&fate.packet())[0] >= 128),
                (3, 0..=13 | 15) | (11, 0 | 1) | (12, 0 | 2) => {
                    let message = message6(&fate.packet());
                    assert!((1..=4).contains(&message[0]));
                }
                _ => assert_eq!(fate, Fate::Dropped(DropReason::UntranslatableIcmp)),
            }
        }
    }
}

#[test]
fn xlat_5_2_01_every_error_type_and_code_passes_or_is_dropped() {
    for kind in 0..=255 {
        for code in 0..=20 {
            let fate = to_v4(&error6(PEER6, kind, code, [0; 4], &quoted6()));
            match (kind, code) {
                (128 | 129, 0) => assert!([0, 8].contains(&message4(&fate.packet())[0])),
                (1, 0..=4) | (2, 0) | (3, 0 | 1) | (4, 0 | 1) => {
                    let message = message4(&fate.packet());
                    assert!([3, 11, 12].contains(&message[0]));
                }
                _ => assert_eq!(fate, Fate::Dropped(DropReason::UntranslatableIcmp)),
            }
        }
    }
}

#[test]
fn xlat_4_2_01_pointers() {
    for pointer in 0..=255u8 {
        let wanted = match pointer {
            0 => Some(0),
            1 => Some(1),
            2 | 3 => Some(4),
            8 => Some(7),
            9 => Some(6),
            12..=15 => Some(8),
            16..=19 => Some(24),
            _ => None,
        };
        let fate = to_v6(&error4(12, 0, [pointer, 0, 0, 0], &quoted4()));
        match wanted {
            Some(wanted) => {
                let message = message6(&fate.packet());
                assert_eq!(message[..2], [4, 0]);
                assert_eq!(message[4..8], u32::to_be_bytes(wanted));
            }
            None => assert_eq!(fate, Fate::Dropped(DropReason::UntranslatablePointer)),
        }
    }
    let message = message6(&to_v6(&error4(3, 2, [0; 4], &quoted4())).packet());
    assert_eq!(message[..8], [4, 1, message[2], message[3], 0, 0, 0, 6]);
}

#[test]
fn xlat_5_2_01_pointers() {
    for pointer in (0..=60u32).chain([255, 256, u32::MAX]) {
        let wanted = match pointer {
            0 => Some(0),
            1 => Some(1),
            4 | 5 => Some(2),
            6 => Some(9),
            7 => Some(8),
            8..=23 => Some(12),
            24..=39 => Some(16),
            _ => None,
        };
        let fate = to_v4(&error6(PEER6, 4, 0, pointer.to_be_bytes(), &quoted6()));
        match wanted {
            Some(wanted) => {
                let message = message4(&fate.packet());
                assert_eq!(message[..2], [12, 0]);
                assert_eq!(message[4..8], [wanted, 0, 0, 0]);
            }
            None => assert_eq!(fate, Fate::Dropped(DropReason::UntranslatablePointer)),
        }
    }
}

#[test]
fn xlat_4_2_02_fragmentation_needed_becomes_packet_too_big() {
    for (mtu, wanted) in [(1400u16, 1420u32), (576, 1280), (1500, 1500), (0, 1280)] {
        let [high, low] = mtu.to_be_bytes();
        let message = message6(&to_v6(&error4(3, 4, [0, 0, high, low], &quoted4())).packet());
        assert_eq!(message[..2], [2, 0]);
        assert_eq!(message[4..8], wanted.to_be_bytes());
    }
    // Which of the two links is the narrower one matters, and by how much.
    for (ipv6_mtu, ipv4_mtu, wanted) in [(9000, 1500, 1520u32), (1500, 9000, 1500)] {
        let config = Config {
            ipv6_mtu,
            ipv4_mtu,
            ..config()
        };
        let error = error4(3, 4, [0, 0, 0x20, 0], &quoted4());
        let message = message6(&to_v6_with(config, STATELESS, &error).packet());
        assert_eq!(message[4..8], wanted.to_be_bytes());
    }
}

#[test]
fn xlat_5_2_02_packet_too_big_becomes_fragmentation_needed() {
    let translated = |mtu: u32, quoted: &[u8]| -> u16 {
        let message = message4(&to_v4(&error6(ROUTER6, 2, 0, mtu.to_be_bytes(), quoted)).packet());
        assert_eq!(message[..6], [3, 4, message[2], message[3], 0, 0]);
        u16::from_be_bytes([message[6], message[7]])
    };
    assert_eq!(translated(1400, &quoted6()), 1380);
    assert_eq!(translated(1280, &quoted6()), 1260);
    assert_eq!(translated(9000, &quoted6()), 1480);
    assert_eq!(translated(0, &quoted6()), 1260);
    // A packet that had a Fragment Header must leave room for it.
    let datagram = compose::udp(PAIR6, 40000, 53, &noise(72));
    let payload = compose::fragment(17, 0, true, 1, &datagram);
    let fragment = V6::new(HOST6, PEER6, 44).carrying(&payload);
    assert_eq!(translated(1400, &fragment), 1372);
    assert_eq!(translated(1280, &fragment), 1252);
    for (ipv6_mtu, ipv4_mtu, wanted) in [(9000, 1500, 1500u16), (1500, 9000, 1480)] {
        let config = Config {
            ipv6_mtu,
            ipv4_mtu,
            ..config()
        };
        let error = error6(ROUTER6, 2, 0, 9000u32.to_be_bytes(), &quoted6());
        let message = message4(&to_v4_with(config, STATELESS, &error).packet());
        assert_eq!(message[6..8], wanted.to_be_bytes());
    }
}

/// The header of the quoted packet is translated like an outer one, but for the hop limit.
#[test]
fn xlat_4_3_01_the_quoted_header_is_translated() {
    let packet = to_v6(&error4(3, 3, [0; 4], &quoted4())).packet();
    let message = message6(&packet);
    let wanted = back6(b"hello464", |header| {
        (header.hop_limit, header.class) = (7, 0x2e);
    });
    assert_eq!(message[..2], [1, 4]);
    assert_eq!(message[8..], wanted);
}

#[test]
fn xlat_5_3_01_the_quoted_header_is_translated() {
    let packet = to_v4(&error6(PEER6, 1, 4, [0; 4], &quoted6())).packet();
    let message = message4(&packet);
    let wanted = udp4(b"hello464", |header| {
        (header.ttl, header.tos) = (7, 0x2e);
    });
    assert_eq!(message[..2], [3, 3]);
    assert_eq!(message[8..], wanted);
    // DF as for an outer packet: by the length the header says, not by the bytes there are.
    let long = V6::new(HOST6, PEER6, 17).claiming(&noise(8), 1400);
    let message = message4(&to_v4(&error6(PEER6, 1, 4, [0; 4], &long)).packet());
    let inner = Ipv4::new_embedded(&message[8..]).unwrap();
    assert_eq!(inner.total_len(), 1420);
    assert!(inner.dont_fragment());
    let limit = V6::new(HOST6, PEER6, 17).claiming(&noise(8), 1240);
    let message = message4(&to_v4(&error6(PEER6, 1, 4, [0; 4], &limit)).packet());
    let inner = Ipv4::new_embedded(&message[8..]).unwrap();
    assert_eq!(inner.total_len(), 1260);
    assert!(!inner.dont_fragment());
}

/// Routers quote as little as a header and 8 bytes; what is not there is not touched.
#[test]
fn xlat_4_3_01_quotes_may_end_anywhere() {
    let segment = tcp(BACK4, (443, 40001), 0x18, &[1; 12], &noise(1000));
    let whole = V4::new(PEER4, HOST4, 6).carrying(&segment);
    let translated = tcp(BACK6, (443, 40001), 0x18, &[1; 12], &noise(1000));
    for kept in 0..100 {
        let quote = &whole[..20 + kept];
        let message = message6(&to_v6(&error4(11, 0, [0; 4], quote)).packet());
        let inner = Ipv6::new_embedded(&message[8..]).unwrap();
        assert_eq!(usize::from(inner.payload_len()), segment.len());
        let payload = inner.payload();
        assert_eq!(payload.len(), kept);
        let same = if kept < 18 { &segment } else { &translated };
        assert_eq!(payload, &same[..kept], "{kept}");
    }
}

#[test]
fn xlat_5_3_01_quotes_may_end_anywhere() {
    let segment = tcp(PAIR6, (40001, 443), 0x18, &[1; 12], &noise(1000));
    let whole = V6::new(HOST6, PEER6, 6).carrying(&segment);
    let translated = tcp(PAIR4, (40001, 443), 0x18, &[1; 12], &noise(1000));
    for kept in 0..100 {
        let quote = &whole[..40 + kept];
        let message = message4(&to_v4(&error6(ROUTER6, 3, 0, [0; 4], quote)).packet());
        let inner = Ipv4::new_embedded(&message[8..]).unwrap();
        assert_eq!(usize::from(inner.payload_len()), segment.len());
        let same = if kept < 18 { &segment } else { &translated };
        assert_eq!(inner.payload(), &same[..kept], "{kept}");
    }
}

#[test]
fn xlat_4_3_01_ports_and_identifiers_in_quotes_follow_the_mapping() {
    let mapping = TestMapping {
        inner_rewrite: Rewrite::Ports { src: 1, dst: 2 },
        ..STATELESS
    };
    let packet = to_v6_with(config(), mapping, &error4(3, 3, [0; 4], &quoted4())).packet();
    assert_eq!(
        message6(&packet)[48..],
        compose::udp(BACK6, 1, 2, b"hello464")
    );
    let packet = error6(PEER6, 1, 4, [0; 4], &quoted6());
    let packet = to_v4_with(config(), mapping, &packet).packet();
    assert_eq!(
        message4(&packet)[28..],
        compose::udp(PAIR4, 1, 2, b"hello464")
    );

    let mapping = TestMapping {
        inner_rewrite: Rewrite::Identifier(77),
        ..STATELESS
    };
    let echo = icmp4(0, 0, [0x46, 0x40, 0, 1], b"abc");
    let quoted = V4::new(PEER4, HOST4, 1).carrying(&echo);
    let packet = to_v6_with(config(), mapping, &error4(11, 0, [0; 4], &quoted)).packet();
    let wanted = icmp6(PEER6, HOST6, 129, 0, [0, 77, 0, 1], b"abc");
    assert_eq!(message6(&packet)[48..], wanted);
    let echo = icmp6(HOST6, PEER6, 128, 0, [0x46, 0x40, 0, 1], b"abc");
    let quoted = V6::new(HOST6, PEER6, 58).carrying(&echo);
    let packet = error6(ROUTER6, 3, 0, [0; 4], &quoted);
    let packet = to_v4_with(config(), mapping, &packet).packet();
    assert_eq!(message4(&packet)[28..], icmp4(8, 0, [0, 77, 0, 1], b"abc"));
}

/// No checksum in a quoted IPv4 datagram stays no checksum.
#[test]
fn xlat_4_3_01_a_quoted_datagram_without_checksum() {
    let mut quoted = back4(b"hello464", |_| ());
    quoted[26..28].fill(0);
    let message = message6(&to_v6(&error4(3, 3, [0; 4], &quoted)).packet());
    assert_eq!(message[54..56], [0, 0]);
}

#[test]
fn xlat_4_3_01_an_error_about_an_error_is_dropped() {
    let inner = V4::new(PEER4, HOST4, 1).carrying(&icmp4(3, 3, [0; 4], &quoted4()));
    let fate = to_v6(&error4(11, 0, [0; 4], &inner));
    assert_eq!(fate, Fate::Dropped(DropReason::QuotedError));
    let inner = V6::new(HOST6, PEER6, 58).carrying(&icmp6(HOST6, PEER6, 1, 4, [0; 4], &quoted6()));
    let fate = to_v4(&error6(PEER6, 3, 0, [0; 4], &inner));
    assert_eq!(fate, Fate::Dropped(DropReason::QuotedError));
    // Neither is anything passed that no translator can have sent.
    let inner = V4::new(PEER4, HOST4, 1).carrying(&icmp4(13, 0, [0; 4], b"time"));
    let fate = to_v6(&error4(11, 0, [0; 4], &inner));
    assert_eq!(fate, Fate::Dropped(DropReason::UntranslatableIcmp));
    let inner = V4::new(PEER4, HOST4, 44).carrying(&[0; 16]);
    let fate = to_v6(&error4(11, 0, [0; 4], &inner));
    assert_eq!(fate, Fate::Dropped(DropReason::UntranslatableProtocol));
    let inner = V6::new(HOST6, PEER6, 59).carrying(&[0; 16]);
    let fate = to_v4(&error6(PEER6, 3, 0, [0; 4], &inner));
    assert_eq!(fate, Fate::Dropped(DropReason::UntranslatableProtocol));
}

#[test]
fn xlat_4_3_01_quotes_that_cannot_be_read_or_are_not_ours() {
    for quote in [&[][..], &[0x45; 19], &quoted6()] {
        let fate = to_v6(&error4(3, 3, [0; 4], quote));
        assert_eq!(fate, Fate::Dropped(DropReason::MalformedQuote));
    }
    for quote in [&[][..], &[0x60; 39], &quoted4()] {
        let fate = to_v4(&error6(PEER6, 1, 4, [0; 4], quote));
        assert_eq!(fate, Fate::Dropped(DropReason::MalformedQuote));
    }
    let echo_without_type = V4::new(PEER4, HOST4, 1).claiming(&[], 8);
    let fate = to_v6(&error4(3, 3, [0; 4], &echo_without_type));
    assert_eq!(fate, Fate::Dropped(DropReason::MalformedQuote));
    let strangers = V4::new(Ipv4Addr::new(192, 0, 0, 77), HOST4, 17).carrying(&[0; 8]);
    let fate = to_v6(&error4(3, 3, [0; 4], &strangers));
    assert_eq!(fate, Fate::Dropped(DropReason::NoQuoteMapping));
    let strangers = V6::new(HOST6, ROUTER6, 17).carrying(&[0; 8]);
    let fate = to_v4(&error6(ROUTER6, 1, 4, [0; 4], &strangers));
    assert_eq!(fate, Fate::Dropped(DropReason::NoQuoteMapping));
    // A packet that is never translated cannot have caused an error.
    let mut routed = vec![17, 0, 4, 1, 0, 0, 0, 0];
    routed.extend([0; 8]);
    let quote = V6::new(HOST6, PEER6, 43).carrying(&routed);
    let fate = to_v4(&error6(ROUTER6, 3, 0, [0; 4], &quote));
    assert_eq!(fate, Fate::Dropped(DropReason::MalformedQuote));
}

/// Without options and extension headers, which have no counterpart.
#[test]
fn xlat_4_3_01_options_and_extension_headers_in_quotes_are_skipped() {
    let quoted = back4(b"hello464", |header| header.options = vec![1; 12]);
    let message = message6(&to_v6(&error4(3, 3, [0; 4], &quoted)).packet());
    assert_eq!(message[8..], back6(b"hello464", |_| ()));

    let mut payload = vec![17, 0, 1, 4, 0, 0, 0, 0];
    payload.extend(compose::udp(PAIR6, 40000, 53, b"hello464"));
    let quoted = V6::new(HOST6, PEER6, 60).carrying(&payload);
    let message = message4(&to_v4(&error6(PEER6, 1, 4, [0; 4], &quoted)).packet());
    assert_eq!(message[8..], udp4(b"hello464", |_| ()));
}

#[test]
fn xlat_4_3_01_fragments_in_quotes_keep_their_place() {
    for offset in [0, 185] {
        let mut header = V4::new(PEER4, HOST4, 17);
        (header.mf, header.offset, header.id) = (true, offset, 0xbeef);
        let datagram = compose::udp(BACK4, 53, 40000, &noise(72));
        let message =
            message6(&to_v6(&error4(11, 1, [0; 4], &header.carrying(&datagram))).packet());
        let payload = match offset {
            0 => compose::udp(BACK6, 53, 40000, &noise(72)),
            _ => datagram,
        };
        let payload = compose::fragment(17, offset, true, 0xbeef, &payload);
        assert_eq!(message[8..], V6::new(PEER6, HOST6, 44).carrying(&payload));
    }
    for offset in [0, 185] {
        let datagram = compose::udp(PAIR6, 40000, 53, &noise(72));
        let payload = compose::fragment(17, offset, true, 0xcafe_beef, &datagram);
        let quoted = V6::new(HOST6, PEER6, 44).carrying(&payload);
        let message = message4(&to_v4(&error6(ROUTER6, 3, 1, [0; 4], &quoted)).packet());
        let mut header = V4::new(HOST4, PEER4, 17);
        (header.mf, header.offset, header.id) = (true, offset, 0xbeef);
        let payload = match offset {
            0 => compose::udp(PAIR4, 40000, 53, &noise(72)),
            _ => datagram,
        };
        assert_eq!(message[8..], header.carrying(&payload));
    }
}

/// A wrong checksum must not be made to look right.
#[test]
fn errors_with_a_wrong_checksum_are_dropped() {
    let mut packet = error4(3, 3, [0; 4], &quoted4());
    packet[22] ^= 1;
    assert_eq!(to_v6(&packet), Fate::Dropped(DropReason::IcmpChecksum));
    let mut packet = error6(PEER6, 1, 4, [0; 4], &quoted6());
    packet[42] ^= 1;
    assert_eq!(to_v4(&packet), Fate::Dropped(DropReason::IcmpChecksum));
    // An echo keeps its wrong checksum wrong.
    let mut echo = V4::new(HOST4, PEER4, 1).carrying(&icmp4(8, 0, [0; 4], b"ping"));
    echo[30] ^= 1;
    let packet = to_v6(&echo).packet();
    assert_eq!(transport_checksum_ok(&packet), Some(false));
}

#[test]
fn xlat_4_3_01_errors_stay_under_1280_bytes() {
    let quoted = back4(&noise(1400), |_| ());
    let packet = to_v6(&error4(3, 3, [0; 4], &quoted)).packet();
    assert_eq!(packet.len(), 1280);
    let inner = Ipv6::new_embedded(&message6(&packet)[8..])
        .unwrap()
        .payload_len();
    assert_eq!(usize::from(inner), 1408);
}

#[test]
fn xlat_5_2_03_errors_stay_under_576_bytes() {
    for quoted in [1100, 1300] {
        let quoted = udp6(&noise(quoted), |_| ());
        let packet = to_v4(&error6(ROUTER6, 1, 4, [0; 4], &quoted)).packet();
        assert_eq!(packet.len(), 576);
        assert!(!Ipv4::new_checked(&packet).unwrap().dont_fragment());
        message4(&packet);
    }
}

/// An echo keeps the DF that its length, or its Fragment Header, gave it.
#[test]
fn xlat_5_1_02_an_echo_has_df_above_1260_bytes() {
    let dont_fragment = |packet: Vec<u8>| {
        let header = Ipv4::new_checked(&packet).unwrap();
        (header.total_len(), header.dont_fragment())
    };
    for (data, wanted) in [(1232, (1260, false)), (1233, (1261, true))] {
        let echo = icmp6(PEER6, HOST6, 128, 0, [0; 4], &noise(data));
        let packet = to_v4(&V6::new(PEER6, HOST6, 58).carrying(&echo)).packet();
        assert_eq!(dont_fragment(packet), wanted);
    }
    let echo = icmp6(PEER6, HOST6, 128, 0, [0; 4], &noise(1300));
    let atomic = V6::new(PEER6, HOST6, 44).carrying(&compose::fragment(58, 0, false, 7, &echo));
    assert_eq!(dont_fragment(to_v4(&atomic).packet()), (1328, false));
}

/// An extension structure with one object: a version, a checksum, an MPLS label.
fn structure() -> Vec<u8> {
    let object = [0, 8, 1, 1, 0xab, 0xcd, 0xef, 0x01];
    let header = [0x20, 0, 0, 0];
    let sum = compose::checksum(&[&header, &object]).to_be_bytes();
    [&[0x20, 0][..], &sum, &object].concat()
}

#[test]
fn xlat_4_2_03_extension_structures_move_to_64_bit_words() {
    for quoted_len in [128, 132, 136, 528] {
        let quoted = back4(&noise(1000), |_| ());
        let data = [&quoted[..quoted_len], &structure()].concat();
        let length = (quoted_len / 4) as u8;
        for (kind, code) in [(3, 3), (11, 0)] {
            let packet = to_v6(&error4(kind, code, [0, length, 0, 0], &data)).packet();
            let message = message6(&packet);
            let padded = (quoted_len + 20).next_multiple_of(8).max(128);
            assert_eq!(usize::from(message[4]) * 8, padded);
            assert_eq!(message[5..8], [0, 0, 0]);
            let quote = &message[8..8 + padded];
            let translated = back6(&noise(1000), |_| ());
            assert_eq!(quote[..quoted_len + 20], translated[..quoted_len + 20]);
            assert!(quote[quoted_len + 20..].iter().all(|byte| *byte == 0));
            assert_eq!(message[8 + padded..], structure());
        }
    }
}

#[test]
fn xlat_5_2_03_extension_structures_move_to_32_bit_words() {
    for quoted_len in [128, 144, 152, 512] {
        let quoted = udp6(&noise(1000), |_| ());
        let data = [&quoted[..quoted_len], &structure()].concat();
        let length = (quoted_len / 8) as u8;
        for (kind, code) in [(1, 4), (3, 0)] {
            let packet = to_v4(&error6(ROUTER6, kind, code, [length, 0, 0, 0], &data)).packet();
            let message = message4(&packet);
            let padded = (quoted_len - 20).next_multiple_of(4).max(128);
            assert_eq!(usize::from(message[5]) * 4, padded);
            assert_eq!((message[4], message[6], message[7]), (0, 0, 0));
            let translated = udp4(&noise(1000), |_| ());
            assert_eq!(
                message[8..8 + quoted_len - 20],
                translated[..quoted_len - 20]
            );
            assert!(
                message[8 + quoted_len - 20..8 + padded]
                    .iter()
                    .all(|byte| *byte == 0)
            );
            assert_eq!(message[8 + padded..], structure());
        }
    }
}

/// The padding of a short quoted packet is not part of it.
#[test]
fn xlat_4_2_03_a_short_quote_is_padded_anew() {
    let mut data = back4(b"hello464", |_| ());
    data.resize(128, 0);
    data.extend(structure());
    let message = message6(&to_v6(&error4(3, 3, [0, 32, 0, 0], &data)).packet());
    assert_eq!(message[4], 16);
    assert_eq!(message[8..64], back6(b"hello464", |_| ()));
    assert_eq!(message[64..136], [0; 72]);
    assert_eq!(message[136..], structure());

    let mut data = udp6(b"hello464", |_| ());
    data.resize(128, 0);
    data.extend(structure());
    let message = message4(&to_v4(&error6(ROUTER6, 1, 4, [16, 0, 0, 0], &data)).packet());
    assert_eq!(message[5], 32);
    assert_eq!(message[8..44], udp4(b"hello464", |_| ()));
    assert_eq!(message[44..136], [0; 92]);
    assert_eq!(message[136..], structure());
}

/// Packet Too Big and Parameter Problem have no place for one.
#[test]
fn xlat_4_2_03_types_without_room_for_a_structure_lose_it() {
    let quoted = back4(&noise(1000), |_| ());
    let data = [&quoted[..128], &structure()].concat();
    for (kind, code, rest) in [
        (3, 4, [0, 32, 5, 0]),
        (3, 2, [0, 32, 0, 0]),
        (12, 0, [8, 32, 0, 0]),
    ] {
        let message = message6(&to_v6(&error4(kind, code, rest, &data)).packet());
        assert_eq!(message.len(), 8 + 148);
        assert_eq!(message[8..], back6(&noise(1000), |_| ())[..148]);
    }
    // And in the other direction there is none to lose: the length byte is part of the MTU.
    let quoted = udp6(&noise(200), |_| ());
    let rest = (16u32 << 24 | 1400).to_be_bytes();
    let message = message4(&to_v4(&error6(ROUTER6, 2, 0, rest, &quoted)).packet());
    assert_eq!(message.len(), 8 + 228);
    assert_eq!(message[5], 0);
}

#[test]
fn xlat_4_2_03_a_structure_makes_the_quote_shorter_not_the_packet_longer() {
    let quoted = back4(&noise(1400), |_| ());
    let data = [&quoted[..1020], &[0x20; 300]].concat();
    let packet = to_v6(&error4(3, 3, [0, 255, 0, 0], &data)).packet();
    assert!(packet.len() <= 1280);
    let message = message6(&packet);
    let padded = usize::from(message[4]) * 8;
    assert_eq!(padded, (1232 - 300) / 8 * 8);
    assert_eq!(message[8 + padded..], [0x20; 300]);
}

#[test]
fn xlat_6791_01_errors_from_routers_without_ipv4_address() {
    let packet = to_v4(&error6(ROUTER6, 3, 0, [0; 4], &quoted6())).packet();
    let header = Ipv4::new_checked(&packet).unwrap();
    assert_eq!(header.src(), crate::config::DUMMY_ADDRESS);
    assert_eq!(header.dst(), HOST4);
    let pool = Config {
        untranslatable_source: Ipv4Addr::new(203, 0, 113, 1),
        ..config()
    };
    let error = error6(ROUTER6, 2, 0, [0, 0, 5, 0x78], &quoted6());
    let packet = to_v4_with(pool, STATELESS, &error).packet();
    assert_eq!(
        Ipv4::new_checked(&packet).unwrap().src().octets(),
        [203, 0, 113, 1]
    );
    // Not for sources that have a mapping, and not for echoes.
    let packet = to_v4(&error6(PEER6, 1, 4, [0; 4], &quoted6())).packet();
    assert_eq!(Ipv4::new_checked(&packet).unwrap().src(), PEER4);
    let echo = icmp6(ROUTER6, HOST6, 129, 0, [0; 4], b"pong");
    let fate = to_v4(&V6::new(ROUTER6, HOST6, 58).carrying(&echo));
    assert_eq!(fate, Fate::Dropped(DropReason::NoSourceMapping));
}

/// An error is cut to what fits, so it is never too big itself: nobody may be told about its loss.
#[test]
fn xlat_4_2_03_errors_over_the_mtu_are_cut_and_pass() {
    let mut header = V4::new(HOST4, PEER4, 1);
    header.df = true;
    let quoted = back4(&noise(1444), |_| ());
    let error = header.carrying(&icmp4(11, 0, [0; 4], &quoted));
    assert_eq!(error.len(), 1500);
    let packet = to_v6(&error).packet();
    assert_eq!(packet.len(), 1280);
    message6(&packet);
}

#[test]
fn xlat_5_2_03_errors_over_the_mtu_are_cut_and_pass() {
    let quoted = udp6(&noise(1460), |_| ());
    let error = error6(ROUTER6, 3, 0, [0; 4], &quoted);
    let narrow = |ipv4_mtu| Config {
        ipv4_mtu,
        ..config()
    };
    let packet = to_v4_with(narrow(600), STATELESS, &error).packet();
    assert_eq!(packet.len(), 576);
    message4(&packet);
    let packets = to_v4_with(narrow(300), STATELESS, &error).packets();
    assert_eq!(packets.len(), 2);
}
