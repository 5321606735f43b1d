//! Section 4 of RFC 7915, but for ICMP and fragments.

use super::*;
use crate::{
    config::{ServiceClass, UdpChecksumMissing},
    icmp_error::Message,
};
use wire::compose::tcp;

fn v6(packet: &[u8]) -> Ipv6<'_> {
    Ipv6::new_checked(packet).unwrap()
}

#[test]
fn xlat_1_4_01_too_big_is_answered_or_fragmented_never_lost() {
    // Every size around every limit, with and without DF, fresh and already a fragment.
    for len in 1200..1600 {
        for (df, mf) in [(false, false), (false, true), (true, false), (true, true)] {
            let len = if mf { len / 8 * 8 } else { len };
            let packet = udp4(&noise(len - 28), |header| {
                header.df = df;
                header.mf = mf;
            });
            let payload: usize = match to_v6(&packet) {
                Fate::Forwarded(packets) => packets
                    .iter()
                    .map(|packet| {
                        assert!(packet.len() <= 1500);
                        let upper = v6(packet).upper().unwrap();
                        packet.len() - upper.offset
                    })
                    .sum(),
                Fate::Replied(DropReason::TooBig, _) => {
                    assert!(df);
                    continue;
                }
                other => panic!("{len} {df} {mf}: {other:?}"),
            };
            assert_eq!(payload, packet.len() - 20);
        }
    }
}

#[test]
fn xlat_4_1_03_df_and_too_big_gives_fragmentation_needed() {
    for (len, mtu, wanted) in [
        (1480, 1500, None),
        (1481, 1500, Some(1480)),
        (1500, 1500, Some(1480)),
        (1260, 1280, None),
        (1261, 1280, Some(1260)),
    ] {
        let config = Config {
            ipv6_mtu: mtu,
            ..config()
        };
        let packet = udp4(&noise(len - 28), |header| header.df = true);
        let fate = to_v6_with(config, STATELESS, &packet);
        let Some(wanted) = wanted else {
            assert_eq!(fate.packet().len(), len + 20);
            continue;
        };
        let (reason, kind, code, rest, quote) = fate.reply();
        assert_eq!((reason, kind, code), (DropReason::TooBig, 3, 4));
        assert_eq!(u32::from_be_bytes(rest), wanted);
        assert_eq!(quote, packet[..548]);
    }
}

/// lowest-ipv6-mtu is not for packets with DF.
#[test]
fn xlat_4_1_03_the_lowest_mtu_does_not_limit_df_packets() {
    let packet = udp4(&noise(1400), |header| header.df = true);
    assert_eq!(to_v6(&packet).packet().len(), 1448);
}

#[test]
fn xlat_4_1_03_a_fragment_with_df_needs_room_for_its_fragment_header() {
    let fits = udp4(&noise(1472 - 28), |header| {
        header.df = true;
        header.mf = true;
    });
    assert_eq!(to_v6(&fits).packet().len(), 1500);
    let too_big = udp4(&noise(1480 - 28), |header| {
        header.df = true;
        header.mf = true;
    });
    let (_, kind, code, rest, _) = to_v6(&too_big).reply();
    assert_eq!((kind, code, u32::from_be_bytes(rest)), (3, 4, 1472));
}

#[test]
fn xlat_4_1_04_traffic_class_is_the_type_of_service() {
    for tos in 0..=255 {
        let packet = to_v6(&udp4(b"x", |header| header.tos = tos)).packet();
        assert_eq!(v6(&packet).traffic_class(), tos);
    }
    let config = Config {
        traffic_class: ServiceClass::Set(0),
        ..config()
    };
    let packet = udp4(b"x", |header| header.tos = 0xb9);
    let packet = to_v6_with(config, STATELESS, &packet).packet();
    assert_eq!(v6(&packet).traffic_class(), 0);
}

#[test]
fn xlat_4_1_05_header_fields() {
    let packet = udp4(&noise(77), |header| {
        header.options = vec![1; 8];
        header.ttl = 9;
    });
    let packet = to_v6(&packet).packet();
    let header = v6(&packet);
    assert_eq!(header.flow_label(), 0);
    assert_eq!(header.payload_len(), 85);
    assert_eq!(header.next_header(), 17);
    assert_eq!(header.hop_limit(), 8);
    assert_eq!((header.src(), header.dst()), (HOST6, PEER6));
    let fragment = udp4(&noise(80), |header| header.mf = true);
    let packet = to_v6(&fragment).packet();
    assert_eq!(v6(&packet).payload_len(), 96);
    assert_eq!(v6(&packet).next_header(), 44);
    assert_eq!(packet[40], 17);
}

#[test]
fn xlat_4_1_06_ttl_is_decremented_once_and_ends_with_time_exceeded() {
    let packet = to_v6(&udp4(b"x", |header| header.ttl = 2)).packet();
    assert_eq!(v6(&packet).hop_limit(), 1);
    for ttl in [0, 1] {
        let packet = udp4(b"x", |header| header.ttl = ttl);
        let (reason, kind, code, _, quote) = to_v6(&packet).reply();
        assert_eq!(reason, DropReason::HopLimitExceeded);
        assert_eq!((kind, code), (11, 0));
        assert_eq!(quote, packet);
    }
}

#[test]
fn xlat_4_1_07_illegal_sources_are_dropped_in_silence() {
    for src in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "224.0.0.1",
        "239.255.255.255",
        "255.255.255.255",
    ] {
        let packet = udp4(b"x", |header| {
            header.src = src.parse().unwrap();
            header.ttl = 1;
        });
        assert_eq!(to_v6(&packet), Fate::Dropped(DropReason::IllegalSource));
    }
}

/// But inside an ICMP error such an address is translated.
#[test]
fn xlat_4_1_07_illegal_addresses_inside_errors_are_translated() {
    let quoted = V4::new("224.0.0.9".parse().unwrap(), HOST4, 17)
        .carrying(&compose::udp(BACK4, 53, 40000, b"x"));
    let error = compose::icmp4(3, 3, [0; 4], &quoted);
    let packet = to_v6(&V4::new(HOST4, PEER4, 1).carrying(&error)).packet();
    let inner = Ipv6::new_embedded(&packet[48..]).unwrap();
    assert_eq!(
        inner.src(),
        "2001:db8:64::224.0.0.9".parse::<Ipv6Addr>().unwrap()
    );
}

#[test]
fn xlat_4_1_08_options_are_ignored_and_source_routes_refused() {
    let plain = to_v6(&udp4(b"hello464", |_| ())).packet();
    // Router alert, record route, timestamp, an expired source route: 40 bytes in all.
    let harmless = [
        &[148, 4, 0, 0][..],
        &[7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0],
        &[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[131, 7, 8, 10, 0, 0, 1],
        &[1, 1, 1, 1, 1, 0],
    ]
    .concat();
    assert_eq!(harmless.len(), 40);
    let packet = udp4(b"hello464", |header| header.options = harmless);
    assert_eq!(to_v6(&packet).packet(), plain);

    for kind in [131, 137] {
        let route = vec![1, kind, 7, 4, 10, 0, 0, 1];
        let packet = udp4(b"hello464", |header| header.options = route);
        let (reason, kind, code, _, _) = to_v6(&packet).reply();
        assert_eq!((reason, kind, code), (DropReason::SourceRoute, 3, 5));
    }
    let broken = udp4(b"x", |header| header.options = vec![7, 99, 0, 0]);
    assert_eq!(to_v6(&broken), Fate::Dropped(DropReason::MalformedIpv4));
}

#[test]
fn xlat_1_2_01_multicast_destinations_are_not_mapped() {
    for dst in ["224.0.0.1", "239.1.2.3", "255.255.255.255"] {
        let packet = udp4(b"x", |header| header.dst = dst.parse().unwrap());
        assert_eq!(to_v6(&packet), Fate::Dropped(DropReason::Multicast));
    }
}

#[test]
fn xlat_4_4_01_a_packet_without_mapping_is_answered_with_prohibited() {
    let packet = udp4(b"x", |header| header.dst = Ipv4Addr::new(192, 0, 0, 77));
    let (reason, kind, code, _, _) = to_v6(&packet).reply();
    assert_eq!(
        (reason, kind, code),
        (DropReason::NoDestinationMapping, 3, 13)
    );
    let packet = udp4(b"x", |header| header.dst = Ipv4Addr::new(10, 0, 0, 1));
    let (reason, kind, code, _, _) = to_v6(&packet).reply();
    assert_eq!(reason, DropReason::NonGlobalUnderWellKnownPrefix);
    assert_eq!((kind, code), (3, 13));
    let packet = udp4(b"x", |header| header.dst = Ipv4Addr::LOCALHOST);
    assert_eq!(to_v6(&packet), Fate::Dropped(DropReason::ExcludedAddress));
    let packet = udp4(b"x", |header| header.src = Ipv4Addr::new(192, 0, 0, 77));
    let Fate::Replied(DropReason::NoSourceMapping, reply) = to_v6(&packet) else {
        panic!("no reply");
    };
    assert_eq!(
        Ipv4::new_checked(&reply).unwrap().dst().octets(),
        [192, 0, 0, 77]
    );
}

#[test]
fn xlat_4_4_01_never_about_errors_later_fragments_or_the_unanswerable() {
    // TTL 1 would be answered for an ordinary packet.
    let dropped =
        |packet: &[u8]| matches!(to_v6(packet), Fate::Dropped(DropReason::HopLimitExceeded));
    let later = udp4(&noise(80), |header| {
        header.offset = 185;
        header.ttl = 1;
    });
    assert!(dropped(&later));
    let first = udp4(&noise(80), |header| {
        header.mf = true;
        header.ttl = 1;
    });
    assert!(matches!(to_v6(&first), Fate::Replied(..)));
    for kind in [3, 4, 5, 11, 12] {
        let mut header = V4::new(HOST4, PEER4, 1);
        header.ttl = 1;
        let error = header.carrying(&compose::icmp4(kind, 0, [0; 4], &udp4(b"x", |_| ())));
        assert!(dropped(&error), "type {kind}");
    }
    let mut header = V4::new(HOST4, PEER4, 1);
    header.ttl = 1;
    assert!(dropped(&header.carrying(&[])));
    let echo = header.carrying(&compose::icmp4(8, 0, [0; 4], b"ping"));
    assert!(matches!(to_v6(&echo), Fate::Replied(..)));
}

/// A stateful caller answers packets that were never judged here.
#[test]
fn xlat_4_4_01_a_caller_cannot_answer_the_unanswerable() {
    let answered = |src: &str, dst: &str| {
        let packet = udp4(b"x", |header| {
            (header.src, header.dst) = (src.parse().unwrap(), dst.parse().unwrap());
        });
        let message = Message::plain(3, 2);
        let mut buf = loaded(&packet);
        let verdict = V4ToV6::new(config(), 1).reply(&mut buf, "why", message, origin());
        matches!(verdict, Verdict::Reply("why"))
    };
    assert!(answered("192.0.0.1", "198.51.100.10"));
    for src in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
        assert!(!answered(src, "198.51.100.10"), "from {src}");
    }
    for dst in ["224.0.0.1", "255.255.255.255"] {
        assert!(!answered("192.0.0.1", dst), "to {dst}");
    }
}

#[test]
fn xlat_4_4_01_errors_can_be_switched_off_and_limited() {
    let packet = udp4(b"x", |header| header.ttl = 1);
    let off = Config {
        errors: ErrorPolicy::Off,
        ..config()
    };
    let dropped = Fate::Dropped(DropReason::HopLimitExceeded);
    assert_eq!(to_v6_with(off, STATELESS, &packet), dropped);

    let limited = Config {
        errors: ErrorPolicy::Limit {
            burst: 3,
            per_second: 1,
        },
        ..config()
    };
    let mut translator = V4ToV6::new(limited, 1);
    let now = origin();
    let replies = (0..10)
        .filter(|_| {
            let verdict = translator.translate(&mut loaded(&packet), &STATELESS, now);
            matches!(verdict, Verdict::Reply(_))
        })
        .count();
    assert_eq!(replies, 3);
}

#[test]
fn xlat_4_5_01_checksums_follow_the_addresses() {
    for len in 0..100 {
        let data = noise(len);
        let udp = to_v6(&udp4(&data, |header| header.df = true)).packet();
        assert_eq!(udp, udp6(&data, |header| header.hop_limit = 63));
        let segment = tcp(PAIR4, (40001, 443), 0x18, &[1; 12], &data);
        let packet = to_v6(&V4::new(HOST4, PEER4, 6).carrying(&segment)).packet();
        assert_eq!(
            packet[40..],
            tcp(PAIR6, (40001, 443), 0x18, &[1; 12], &data)
        );
    }
}

/// Every value that a checksum can take, 0 and 0xffff among them.
#[test]
fn xlat_4_5_01_a_udp_checksum_never_becomes_zero() {
    let mut translator = V4ToV6::new(config(), 1);
    let now = origin();
    let mut seen_ffff = 0;
    let mut buf = PacketBuf::new();
    for word in 0..=u16::MAX {
        let packet = udp4(&word.to_be_bytes(), |_| ());
        buf.set(&packet).unwrap();
        let verdict = translator.translate(&mut buf, &STATELESS, now);
        assert!(matches!(verdict, Verdict::Forward(_)));
        assert_eq!(transport_checksum_ok(buf.bytes()), Some(true));
        seen_ffff += usize::from(buf.bytes()[46..48] == [0xff, 0xff]);
    }
    assert!(seen_ffff > 0);
}

#[test]
fn xlat_4_5_02_a_missing_udp_checksum_is_computed_or_the_packet_dropped() {
    let mut packet = udp4(b"hello", |_| ());
    packet[26..28].fill(0);
    let computed = to_v6(&packet).packet();
    assert_eq!(computed, udp6(b"hello", |header| header.hop_limit = 63));
    let config = Config {
        udp_checksum_missing: UdpChecksumMissing::Drop,
        ..config()
    };
    assert_eq!(
        to_v6_with(config, STATELESS, &packet),
        Fate::Dropped(DropReason::UdpChecksumMissing)
    );
    // A datagram shorter than its packet is computed by its own length; a longer one is broken.
    let padded = [compose::udp(PAIR4, 40000, 53, b"hello"), vec![9; 3]].concat();
    let mut packet = V4::new(HOST4, PEER4, 17).carrying(&padded);
    packet[26..28].fill(0);
    let computed = to_v6(&packet).packet();
    assert_eq!(computed[40..53], udp6(b"hello", |_| ())[40..]);
    packet[25] = 200;
    let broken = V4::new(HOST4, PEER4, 17).carrying(&packet[20..]);
    assert_eq!(
        to_v6(&broken),
        Fate::Dropped(DropReason::TruncatedTransport)
    );
}

/// Also when the sum is one that the arithmetic would write as zero.
#[test]
fn xlat_4_5_02_a_computed_checksum_is_never_zero() {
    let mut translator = V4ToV6::new(config(), 1);
    let now = origin();
    let mut buf = PacketBuf::new();
    for word in 0..=u16::MAX {
        let mut packet = udp4(&word.to_be_bytes(), |_| ());
        packet[26..28].fill(0);
        buf.set(&packet).unwrap();
        let verdict = translator.translate(&mut buf, &STATELESS, now);
        assert!(matches!(verdict, Verdict::Forward(_)));
        assert_eq!(transport_checksum_ok(buf.bytes()), Some(true));
    }
}

#[test]
fn xlat_4_5_03_a_missing_udp_checksum_in_a_first_fragment_drops_it() {
    let mut datagram = compose::udp(PAIR4, 40000, 53, &noise(72));
    datagram[6..8].fill(0);
    let mut header = V4::new(HOST4, PEER4, 17);
    header.mf = true;
    assert_eq!(
        to_v6(&header.carrying(&datagram)),
        Fate::Dropped(DropReason::UdpChecksumMissingInFragment)
    );
}

#[test]
fn xlat_4_5_04_unknown_protocols_pass_with_a_new_header_only() {
    for number in [47, 50, 51, 132, 200, 255] {
        let payload = noise(60);
        let packet = to_v6(&V4::new(HOST4, PEER4, number).carrying(&payload)).packet();
        assert_eq!(v6(&packet).next_header(), number);
        assert_eq!(packet[40..], payload);
    }
    // UDP-Lite and DCCP cover the addresses like UDP does.
    for number in [33, 136] {
        let mut segment = noise(40);
        segment[6..8].fill(0);
        let sum4 = compose::checksum(&[&HOST4.octets(), &PEER4.octets(), &segment]);
        segment[6..8].copy_from_slice(&sum4.to_be_bytes());
        let packet = to_v6(&V4::new(HOST4, PEER4, number).carrying(&segment)).packet();
        let sum6 = compose::checksum(&[&HOST6.octets(), &PEER6.octets(), &packet[40..]]);
        assert_eq!(sum6, 0, "protocol {number}");
    }
}

#[test]
fn xlat_4_2_01_protocols_that_would_change_their_meaning_are_dropped() {
    for number in [0, 2, 43, 44, 58, 59, 60, 135, 139, 140] {
        let packet = V4::new(HOST4, PEER4, number).carrying(&[0; 64]);
        assert_eq!(
            to_v6(&packet),
            Fate::Dropped(DropReason::UntranslatableProtocol),
            "protocol {number}"
        );
    }
}

#[test]
fn ports_follow_the_mapping() {
    let mapping = TestMapping {
        rewrite: Rewrite::Ports { src: 1, dst: 2 },
        ..STATELESS
    };
    let packet = to_v6_with(config(), mapping, &udp4(b"data", |_| ())).packet();
    assert_eq!(packet[40..], compose::udp(PAIR6, 1, 2, b"data"));
    let mut without = udp4(b"data", |_| ());
    without[26..28].fill(0);
    let packet = to_v6_with(config(), mapping, &without).packet();
    assert_eq!(packet[40..], compose::udp(PAIR6, 1, 2, b"data"));
    let segment = V4::new(HOST4, PEER4, 6).carrying(&tcp(PAIR4, (9, 9), 2, &[], b""));
    let packet = to_v6_with(config(), mapping, &segment).packet();
    assert_eq!(packet[40..], tcp(PAIR6, (1, 2), 2, &[], b""));
}

#[test]
fn what_ends_too_early_is_dropped() {
    let short = V4::new(HOST4, PEER4, 17).carrying(&[0; 7]);
    assert_eq!(to_v6(&short), Fate::Dropped(DropReason::TruncatedTransport));
    let short = V4::new(HOST4, PEER4, 6).carrying(&[0; 19]);
    assert_eq!(to_v6(&short), Fate::Dropped(DropReason::TruncatedTransport));
    let short = V4::new(HOST4, PEER4, 1).carrying(&[8, 0, 0, 0, 0, 0, 0]);
    assert_eq!(to_v6(&short), Fate::Dropped(DropReason::TruncatedTransport));
    assert_eq!(to_v6(&[]), Fate::Dropped(DropReason::MalformedIpv4));
    let mut wrong = udp4(b"x", |_| ());
    wrong[10] ^= 1;
    assert_eq!(to_v6(&wrong), Fate::Dropped(DropReason::MalformedIpv4));
}

/// Ethernet pads short packets; the padding is not part of them.
#[test]
fn padding_behind_the_packet_is_left_behind() {
    let mut padded = udp4(b"x", |_| ());
    padded.extend([0xee; 17]);
    assert_eq!(
        to_v6(&padded).packet(),
        udp6(b"x", |header| header.hop_limit = 63)
    );
    let mut padded = back6(b"x", |_| ());
    padded.extend([0xee; 17]);
    let wanted = back4(b"x", |header| header.ttl = 63);
    assert_same_but_id(&to_v4(&padded).packet(), &wanted);
}

#[test]
fn xlat_4_01_packets_leave_in_the_order_they_came() {
    let mut translator = V4ToV6::new(config(), 1);
    let now = origin();
    let mut out = Vec::new();
    for n in 0u32..200 {
        // Small and large mixed, so that some are fragmented.
        let mut data = n.to_be_bytes().to_vec();
        data.resize(if n % 3 == 0 { 2000 } else { 20 }, 0);
        let mut buf = loaded(&udp4(&data, |header| header.id = n as u16));
        let verdict = translator.translate(&mut buf, &STATELESS, now);
        out.extend(fate(verdict, &mut buf).packets());
    }
    let numbers: Vec<u32> = out
        .iter()
        .filter_map(|packet| {
            let upper = v6(packet).upper().unwrap();
            let first = upper
                .fragment
                .is_none_or(|header| header.fragment.is_first());
            let at = upper.offset + 8;
            first.then(|| u32::from_be_bytes(*packet[at..].first_chunk().unwrap()))
        })
        .collect();
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());
}

/// UDP keeps zero for "no checksum"; to DCCP it is a checksum like any other.
#[test]
fn xlat_4_5_04_a_dccp_checksum_of_zero_follows_the_addresses() {
    let mut segment = noise(40);
    segment[6..8].fill(0);
    segment[38..40].fill(0);
    let sum = compose::checksum(&[&HOST4.octets(), &PEER4.octets(), &segment]);
    segment[38..40].copy_from_slice(&sum.to_be_bytes());
    let packet = to_v6(&V4::new(HOST4, PEER4, 33).carrying(&segment)).packet();
    let sum = compose::checksum(&[&HOST6.octets(), &PEER6.octets(), &packet[40..]]);
    assert_eq!(sum, 0);
}

/// What the link put behind the packet is not the sender's.
#[test]
fn padding_is_not_quoted() {
    let packet = udp4(b"x", |header| header.ttl = 1);
    let (.., quote) = to_v6(&[&packet[..], &[0xee; 17]].concat()).reply();
    assert_eq!(quote, packet);
    let packet = back6(b"x", |header| header.hop_limit = 1);
    let (.., quote) = to_v4(&[&packet[..], &[0xee; 17]].concat()).reply();
    assert_eq!(quote, packet);
}
