//! Properties that hold for any packet, checked by code of its own.

use core::num::NonZeroU16;

use super::*;
use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice, checksum::Sum16BitWords};
use proptest::prelude::*;
use wire::{
    ipv4::Fragment,
    offload::{ChecksumState, Gso, GsoKind, Offload},
    pieces::Pieces,
};

/// A right packet says right lengths and checksums all the way down, by two accounts.
fn assert_right(packet: &[u8]) {
    assert_etherparse_agrees(packet);
    match packet[0] >> 4 {
        4 => assert_right_v4(packet),
        6 => assert_right_v6(packet),
        other => panic!("version {other}"),
    }
}

/// Lengths and checksums, read and summed by etherparse.
fn assert_etherparse_agrees(packet: &[u8]) {
    let mut sum = Sum16BitWords::new();
    let (addresses, number, payload) = if packet[0] >> 4 == 4 {
        let header = Ipv4HeaderSlice::from_slice(packet).expect("an IPv4 header");
        let checksum = header.to_header().calc_header_checksum();
        assert_eq!(header.header_checksum(), checksum);
        assert_eq!(usize::from(header.total_len()), packet.len());
        if header.is_fragmenting_payload() {
            return;
        }
        let payload = &packet[header.slice().len()..];
        let sum = sum
            .add_4bytes(header.source())
            .add_4bytes(header.destination());
        (sum, header.protocol(), payload)
    } else {
        let header = Ipv6HeaderSlice::from_slice(packet).expect("an IPv6 header");
        let payload = &packet[40..];
        assert_eq!(usize::from(header.payload_length()), payload.len());
        let sum = sum
            .add_16bytes(header.source())
            .add_16bytes(header.destination());
        (sum, header.next_header(), payload)
    };
    let covered = match number {
        IpNumber::ICMP => sum,
        IpNumber::TCP | IpNumber::UDP | IpNumber::IPV6_ICMP => {
            let len = (payload.len() as u16).to_be_bytes();
            addresses.add_2bytes([0, number.0]).add_2bytes(len)
        }
        _ => return,
    };
    assert_eq!(covered.add_slice(payload).ones_complement(), 0);
}

fn assert_right_v4(packet: &[u8]) {
    let header_len = usize::from(packet[0] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    assert_eq!(total, packet.len());
    assert_eq!(compose::checksum(&[&packet[..header_len]]), 0);
    let flags = u16::from_be_bytes([packet[6], packet[7]]);
    if flags & 0x3fff != 0 {
        return;
    }
    let payload = &packet[header_len..];
    let len = (payload.len() as u16).to_be_bytes();
    let pseudo = [&packet[12..20], &[0, packet[9]], &len].concat();
    assert_right_transport(packet[9], &pseudo, payload);
}

fn assert_right_v6(packet: &[u8]) {
    let payload_len = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
    assert_eq!(payload_len + 40, packet.len());
    assert_eq!(packet[1] & 0x0f, 0, "flow label");
    if packet[6] == 44 {
        return;
    }
    let payload = &packet[40..];
    let len = (payload.len() as u32).to_be_bytes();
    let pseudo = [&packet[8..40], &len, &[0, 0, 0, packet[6]]].concat();
    assert_right_transport(packet[6], &pseudo, payload);
}

fn assert_right_transport(number: u8, pseudo: &[u8], payload: &[u8]) {
    match number {
        1 => {
            assert_eq!(compose::checksum(&[payload]), 0);
            if [3, 11, 12].contains(&payload[0]) {
                assert!(payload.len() <= 556);
            }
        }
        58 => {
            assert_eq!(compose::checksum(&[pseudo, payload]), 0);
            if payload[0] < 128 {
                assert!(payload.len() <= 1240);
            }
        }
        17 => {
            assert_ne!(payload[6..8], [0, 0]);
            assert_eq!(compose::checksum(&[pseudo, payload]), 0);
        }
        6 => assert_eq!(compose::checksum(&[pseudo, payload]), 0),
        _ => {}
    }
}

/// Where a packet's payload starts in its datagram, whether more follows, and the payload of all:
/// fragments must follow each other without a gap.
fn joined(parts: impl Iterator<Item = (Fragment, Vec<u8>)>) -> (u16, bool, Vec<u8>) {
    let (mut first, mut last_more, mut payload) = (None, true, Vec::new());
    for (place, part) in parts {
        let first = *first.get_or_insert(place.offset);
        assert_eq!(usize::from(place.offset - first) * 8, payload.len());
        assert!(last_more, "more after the last fragment");
        last_more = place.more;
        payload.extend(part);
    }
    (first.expect("a packet"), last_more, payload)
}

fn joined_v4(packets: &[Vec<u8>]) -> (u16, bool, Vec<u8>) {
    joined(packets.iter().map(|packet| {
        let packet = Ipv4::new_checked(packet).unwrap();
        (packet.fragment(), packet.payload().to_vec())
    }))
}

fn joined_v6(packets: &[Vec<u8>]) -> (u16, bool, Vec<u8>) {
    joined(packets.iter().map(|packet| {
        let packet = Ipv6::new_checked(packet).unwrap();
        let upper = packet.upper().unwrap();
        let place = upper.fragment.map(|header| header.fragment);
        let payload = packet.from_offset(upper.offset).to_vec();
        (place.unwrap_or_default(), payload)
    }))
}

/// A transport payload for a pair of addresses of one family, the same for both families.
#[derive(Clone, Debug)]
enum Body {
    Udp(Vec<u8>),
    Tcp(Vec<u8>, Vec<u8>),
    Echo(bool, [u8; 4], Vec<u8>),
    Other(u8, Vec<u8>),
}

impl Body {
    fn v4(&self, pair: Pair) -> (u8, Vec<u8>) {
        match self {
            Self::Udp(data) => (17, compose::udp(pair, 1000, 2000, data)),
            Self::Tcp(options, data) => (6, compose::tcp(pair, (1000, 2000), 0x18, options, data)),
            Self::Echo(reply, rest, data) => {
                let kind = if *reply { 0 } else { 8 };
                (1, compose::icmp4(kind, 0, *rest, data))
            }
            Self::Other(number, data) => (*number, data.clone()),
        }
    }

    fn v6(&self, pair: Pair) -> (u8, Vec<u8>) {
        match (self, pair) {
            (Self::Echo(reply, rest, data), Pair::V6(src, dst)) => {
                let kind = if *reply { 129 } else { 128 };
                (58, compose::icmp6(src, dst, kind, 0, *rest, data))
            }
            _ => self.v4(pair),
        }
    }
}

fn body() -> impl Strategy<Value = Body> {
    let data = || proptest::collection::vec(any::<u8>(), 0..1400);
    let options = (0usize..=10).prop_map(|words| vec![1; words * 4]);
    let other = prop::sample::select(vec![4u8, 41, 47, 50, 51, 132, 253]);
    prop_oneof![
        data().prop_map(Body::Udp),
        (options, data()).prop_map(|(options, data)| Body::Tcp(options, data)),
        (any::<bool>(), any::<[u8; 4]>(), data())
            .prop_map(|(reply, rest, data)| Body::Echo(reply, rest, data)),
        (other, data()).prop_map(|(number, data)| Body::Other(number, data)),
    ]
}

fn wide() -> Config {
    Config {
        ipv6_mtu: 9000,
        ipv4_mtu: 9000,
        lowest_ipv6_mtu: 9000,
        ..config()
    }
}

fn offloads() -> impl Strategy<Value = Offload> {
    let kinds = prop::sample::select(vec![
        None,
        Some(GsoKind::Udp),
        Some(GsoKind::TcpV4 { ecn: false }),
        Some(GsoKind::TcpV6 { ecn: true }),
    ]);
    let checksum = prop_oneof![
        Just(ChecksumState::Complete),
        Just(ChecksumState::Verified),
        (0u16..80, 0u16..30).prop_map(|(start, field)| ChecksumState::Partial { start, field }),
        Just(ChecksumState::Partial {
            start: 20,
            field: 6
        }),
        Just(ChecksumState::Partial {
            start: 40,
            field: 16
        }),
    ];
    (kinds, 1u16..2000, checksum).prop_map(|(kind, size, checksum)| Offload {
        checksum,
        gso: kind.map(|kind| Gso {
            kind,
            size: NonZeroU16::new(size).unwrap(),
            header_len: size,
        }),
        reassembled: size % 7 == 0,
    })
}

type Translate<'a> = &'a mut dyn FnMut(&mut PacketBuf) -> Verdict<DropReason>;

fn assert_translates_like_its_segments(
    packet: &[u8],
    offload: Offload,
    translate: Translate<'_>,
) -> Result<(), TestCaseError> {
    let mut buf = loaded(packet);
    buf.offload = offload;
    let verdict = translate(&mut buf);
    let translated = match verdict {
        Verdict::Forward(pieces) => on_the_wire(&mut buf, pieces),
        _ => Vec::new(),
    };

    let mut buf = loaded(packet);
    buf.offload = offload;
    let mut one_by_one = Vec::new();
    let pieces = Pieces::segments(&buf).expect("a super-segment");
    for segment in on_the_wire(&mut buf, pieces) {
        let mut buf = loaded(&segment);
        match translate(&mut buf) {
            Verdict::Forward(pieces) => one_by_one.extend(on_the_wire(&mut buf, pieces)),
            // Of segments of two sizes, the last may pass where the others are refused.
            _ => {
                prop_assert!(translated.is_empty());
                return Ok(());
            }
        }
    }
    translated.iter().for_each(|packet| assert_right(packet));
    let all = |packets: Vec<_>| packets.into_iter().map(comparable).collect::<Vec<_>>();
    prop_assert_eq!(all(translated), all(one_by_one));
    Ok(())
}

/// What leaves the machine: whoever takes a super-segment divides it.
fn on_the_wire(buf: &mut PacketBuf, mut pieces: Pieces) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while pieces.next(buf) {
        if buf.offload.gso.is_none() {
            all.push(buf.bytes().to_vec());
            continue;
        }
        let mut segments = Pieces::segments(buf).expect("a super-segment");
        while segments.next(buf) {
            all.push(buf.bytes().to_vec());
        }
    }
    all
}

/// Without what the one IPv4 header of a super-segment cannot say of each of its segments: the
/// Identification, and a Don't Fragment that a short last one would not have got.
fn comparable(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        packet[4..6].fill(0);
        packet[6] &= !0x40;
        packet[10..12].fill(0);
    }
    packet
}

/// Lengthens a quote's life: what an error quotes may be cut anywhere, and claim anything.
fn cut(mut quote: Vec<u8>, kept: usize) -> Vec<u8> {
    quote.truncate(kept.max(28));
    quote
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// From IPv4 to IPv6 and back, all that differs is the TTL (two hops), the Identification
    /// (chosen anew), DF (by length) and the header checksum that covers them.
    #[test]
    fn xlat_4_and_back_gives_the_packet_again(
        body in body(),
        tos in any::<u8>(),
        df in any::<bool>(),
        id in any::<u16>(),
    ) {
        let (number, payload) = body.v4(PAIR4);
        let mut header = V4::new(HOST4, PEER4, number);
        (header.tos, header.df, header.id) = (tos, df, id);
        let there = to_v6_with(wide(), STATELESS, &header.carrying(&payload)).packet();
        assert_right(&there);
        let (number6, payload6) = body.v6(PAIR6);
        let wanted = V6 { class: tos, hop_limit: 63, ..V6::new(HOST6, PEER6, number6) };
        prop_assert_eq!(&there, &wanted.carrying(&payload6));

        let back = to_v4_with(wide(), STATELESS, &there).packet();
        assert_right(&back);
        (header.ttl, header.df) = (62, payload.len() + 20 > 1260);
        assert_same_but_id(&back, &header.carrying(&payload));
    }

    /// From IPv6 to IPv4 and back, all that differs is the hop limit and the flow label.
    #[test]
    fn xlat_5_and_back_gives_the_packet_again(
        body in body(),
        class in any::<u8>(),
        flow in 0u32..1 << 20,
    ) {
        let (number, payload) = body.v6(BACK6);
        let mut header = V6::new(PEER6, HOST6, number);
        (header.class, header.flow) = (class, flow);
        let there = to_v4_with(wide(), STATELESS, &header.carrying(&payload)).packet();
        assert_right(&there);
        let back = to_v6_with(wide(), STATELESS, &there).packet();
        assert_right(&back);
        (header.hop_limit, header.flow) = (62, 0);
        prop_assert_eq!(back, header.carrying(&payload));
    }

    /// An ICMP error keeps, through both translations, what can be kept of its quote.
    #[test]
    fn xlat_4_3_01_errors_and_back_give_the_error_again(
        body in body(),
        kind in prop::sample::select(vec![(3u8, 1u8), (3, 3), (3, 10), (11, 0), (11, 1)]),
        kept in 28usize..600,
        ttl in any::<u8>(),
    ) {
        let (number, payload) = body.v4(BACK4);
        let mut quoted = V4::new(PEER4, HOST4, number);
        quoted.ttl = ttl;
        quoted.df = payload.len() + 20 > 1260;
        let quote = cut(quoted.carrying(&payload), kept.min(548));
        let error = compose::icmp4(kind.0, kind.1, [0; 4], &quote);
        let packet = V4::new(HOST4, PEER4, 1).carrying(&error);
        let there = to_v6(&packet).packet();
        assert_right(&there);
        let back = to_v4(&there).packet();
        assert_right(&back);
        prop_assert_eq!(&back[28..], &quote[..]);
        prop_assert_eq!(&back[20..22], &[kind.0, kind.1]);
    }

    /// Whatever the size and the limits, what leaves is right and fits.
    #[test]
    fn xlat_4_what_leaves_is_right_and_fits(
        body in body(),
        df in any::<bool>(),
        mf in any::<bool>(),
        offset in prop_oneof![Just(0u16), 1u16..5000],
        options in 0usize..=10,
        ipv6_mtu in 1280u16..2000,
        lowest_ipv6_mtu in 1280u16..2000,
    ) {
        let (number, payload) = body.v4(PAIR4);
        let mut header = V4::new(HOST4, PEER4, number);
        (header.df, header.mf, header.offset) = (df, mf, offset);
        header.options = vec![1; options * 4];
        let config = Config { ipv6_mtu, lowest_ipv6_mtu, ..config() };
        let packet = header.carrying(&payload);
        match to_v6_with(config, STATELESS, &packet) {
            Fate::Forwarded(packets) => {
                let whole = to_v6_with(wide(), STATELESS, &packet).packet();
                prop_assert_eq!(joined_v6(&packets), joined_v6(&[whole]));
                for packet in packets {
                    assert_right(&packet);
                    prop_assert!(packet.len() <= usize::from(ipv6_mtu));
                    prop_assert!(df || packet.len() <= usize::from(lowest_ipv6_mtu));
                }
            }
            Fate::Replied(_, reply) => assert_right(&reply),
            Fate::Dropped(_) => {}
        }
    }

    #[test]
    fn xlat_5_what_leaves_is_right_and_fits(
        body in body(),
        fragment in prop::option::of((prop_oneof![Just(0u16), 1u16..5000], any::<bool>())),
        ipv4_mtu in 68u16..2000,
    ) {
        let (number, mut payload) = body.v6(BACK6);
        let mut next = number;
        if let Some((offset, more)) = fragment {
            payload = compose::fragment(next, offset, more, 7, &payload);
            next = 44;
        }
        let config = Config { ipv4_mtu, ..config() };
        let packet = V6::new(PEER6, HOST6, next).carrying(&payload);
        match to_v4_with(config, STATELESS, &packet) {
            Fate::Forwarded(packets) => {
                let whole = to_v4_with(wide(), STATELESS, &packet).packet();
                prop_assert_eq!(joined_v4(&packets), joined_v4(&[whole]));
                for packet in packets {
                    assert_right(&packet);
                    prop_assert!(packet.len() <= usize::from(ipv4_mtu));
                }
            }
            Fate::Replied(_, reply) => assert_right(&reply),
            Fate::Dropped(_) => {}
        }
    }

    /// A super-segment stands for its segments: translating it and then dividing it gives what
    /// dividing and then translating gives.
    #[test]
    fn super_segments_translate_like_their_segments(
        is_tcp in any::<bool>(),
        df in any::<bool>(),
        len in 1usize..8000,
        size in 1u16..1460,
        checksum in prop::sample::select(vec![ChecksumState::Complete, ChecksumState::Verified]),
        ipv6_mtu in 1280u16..1520,
        ipv4_mtu in 600u16..1520,
    ) {
        let config = || Config { ipv6_mtu, ipv4_mtu, ..config() };
        let body = if is_tcp {
            Body::Tcp(vec![1; 12], noise(len))
        } else {
            Body::Udp(noise(len))
        };
        let offload = |kind| Offload {
            checksum,
            gso: Some(Gso { kind, size: NonZeroU16::new(size).unwrap(), header_len: 0 }),
            reassembled: false,
        };
        let (number, payload) = body.v4(PAIR4);
        let mut header = V4::new(HOST4, PEER4, number);
        (header.df, header.id) = (df, 0xffff);
        let kind = if is_tcp { GsoKind::TcpV4 { ecn: false } } else { GsoKind::Udp };
        let packet = header.carrying(&payload);
        let mut translator = V4ToV6::new(config(), 1);
        let mut translate = |buf: &mut PacketBuf| translator.translate(buf, &STATELESS, origin());
        assert_translates_like_its_segments(&packet, offload(kind), &mut translate)?;

        let (number, payload) = body.v6(BACK6);
        let kind = if is_tcp { GsoKind::TcpV6 { ecn: false } } else { GsoKind::Udp };
        let packet = V6::new(PEER6, HOST6, number).carrying(&payload);
        let mut translator = V6ToV4::new(config(), 1);
        let mut translate = |buf: &mut PacketBuf| translator.translate(buf, &STATELESS, origin());
        assert_translates_like_its_segments(&packet, offload(kind), &mut translate)?;
    }

    #[test]
    fn no_bytes_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        valid_header in any::<bool>(),
        offload in offloads(),
        mtu in any::<u16>(),
    ) {
        if valid_header && bytes.len() >= 40 {
            // Past the first checks, as far as noise can get.
            let len = bytes.len() as u16;
            bytes[0] = 0x45 + bytes[0] % 3;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            bytes[8] = 64;
            bytes[10..12].fill(0);
            bytes[12..16].copy_from_slice(&HOST4.octets());
            bytes[16..20].copy_from_slice(&PEER4.octets());
            let header_len = usize::from(bytes[0] & 15) * 4;
            let sum = compose::checksum(&[&bytes[..header_len]]);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let config = Config { ipv6_mtu: mtu, ipv4_mtu: mtu, lowest_ipv6_mtu: mtu, ..config() };
        let mut buf = loaded(&bytes);
        buf.offload = offload;
        let verdict = V4ToV6::new(config.clone(), 1).translate(&mut buf, &STATELESS, origin());
        fate(verdict, &mut buf);

        if valid_header && bytes.len() >= 40 {
            let len = bytes.len() as u16 - 40;
            bytes[0] = 0x60;
            bytes[4..6].copy_from_slice(&len.to_be_bytes());
            bytes[6] = [6, 17, 58, 0, 43, 44, 60][usize::from(bytes[6]) % 7];
            bytes[7] = 64;
            bytes[8..24].copy_from_slice(&PEER6.octets());
            bytes[24..40].copy_from_slice(&HOST6.octets());
        }
        let mut buf = loaded(&bytes);
        buf.offload = offload;
        let verdict = V6ToV4::new(config, 1).translate(&mut buf, &STATELESS, origin());
        fate(verdict, &mut buf);
    }

    /// Noise behind a right ICMP header gets as far as the quote.
    #[test]
    fn no_quote_panics(
        quote in proptest::collection::vec(any::<u8>(), 0..300),
        version in prop::sample::select(vec![0x45u8, 0x4f, 0x60]),
        next in prop::sample::select(vec![1u8, 6, 17, 44, 58, 60]),
        rest in any::<[u8; 4]>(),
        ours in any::<bool>(),
    ) {
        let mut quote = quote;
        if quote.len() > 40 {
            quote[0] = version;
            quote[6] = next;
            quote[9] = next;
            if ours && version == 0x60 {
                quote[8..24].copy_from_slice(&HOST6.octets());
                quote[24..40].copy_from_slice(&PEER6.octets());
            } else if ours {
                quote[12..16].copy_from_slice(&PEER4.octets());
                quote[16..20].copy_from_slice(&HOST4.octets());
            }
        }
        for (kind, code) in [(3, 3), (3, 4), (11, 0), (12, 0)] {
            let error = compose::icmp4(kind, code, rest, &quote);
            if let Fate::Forwarded(packets) = to_v6(&V4::new(HOST4, PEER4, 1).carrying(&error)) {
                packets.iter().for_each(|packet| assert_right(packet));
            }
        }
        for (kind, code) in [(1, 4), (2, 0), (3, 0), (4, 0)] {
            let error = compose::icmp6(ROUTER6, HOST6, kind, code, rest, &quote);
            if let Fate::Forwarded(packets) = to_v4(&V6::new(ROUTER6, HOST6, 58).carrying(&error)) {
                packets.iter().for_each(|packet| assert_right(packet));
            }
        }
    }
}
