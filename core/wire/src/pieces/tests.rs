use core::num::NonZeroU16;

use proptest::prelude::*;

use super::*;
use crate::offload::Gso;

/// An unfragmented packet with a right transport checksum, built by etherparse.
fn udp_v6(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    etherparse::PacketBuilder::ipv6([1; 16], [2; 16], 64)
        .udp(40000, 53)
        .write(&mut bytes, payload)
        .unwrap();
    bytes
}

fn udp_v4(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    etherparse::PacketBuilder::ipv4([192, 0, 0, 1], [198, 51, 100, 1], 64)
        .udp(40000, 53)
        .write(&mut bytes, payload)
        .unwrap();
    bytes
}

fn tcp(v6: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let write = |builder: etherparse::PacketBuilderStep<etherparse::IpHeaders>,
                 bytes: &mut Vec<u8>| {
        builder
            .tcp(40000, 443, 0xffff_f000, 1000)
            .ack(7)
            .psh()
            .fin()
            .cwr()
            .options(&[etherparse::TcpOptionElement::Timestamp(1, 2)])
            .unwrap()
            .write(bytes, payload)
            .unwrap();
    };
    if v6 {
        write(
            etherparse::PacketBuilder::ipv6([1; 16], [2; 16], 64),
            &mut bytes,
        );
    } else {
        write(
            etherparse::PacketBuilder::ipv4([192, 0, 0, 1], [198, 51, 100, 1], 64),
            &mut bytes,
        );
    }
    bytes
}

fn loaded(packet: &[u8]) -> PacketBuf {
    let mut buf = PacketBuf::new();
    buf.receive_area(crate::packet::HEADROOM).fill(0xa5);
    buf.set(packet).unwrap();
    buf
}

fn collect(buf: &mut PacketBuf, mut pieces: Pieces) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while pieces.next(buf) {
        all.push(buf.bytes().to_vec());
        // A port puts its own headers before the piece; the next one must not mind.
        buf.prepend(24).unwrap().fill(0xee);
    }
    all
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

fn super_segment(packet: &[u8], kind: GsoKind, size: u16) -> PacketBuf {
    let mut buf = loaded(packet);
    buf.offload.gso = Some(Gso {
        kind,
        size: NonZeroU16::new(size).unwrap(),
        header_len: 0,
    });
    buf
}

/// Puts fragments together again, the slow way.
fn reassemble_v6(fragments: &[Vec<u8>]) -> (u32, Vec<u8>) {
    let mut payload = Vec::new();
    let mut id = None;
    for (i, fragment) in fragments.iter().enumerate() {
        let packet = Ipv6::new_checked(fragment).unwrap();
        assert_eq!(usize::from(packet.payload_len()) + 40, fragment.len());
        let upper = packet.upper().unwrap();
        let header = upper.fragment.unwrap();
        assert_eq!(usize::from(header.fragment.offset) * 8, payload.len());
        assert_eq!(header.fragment.more, i + 1 < fragments.len());
        assert_eq!(*id.get_or_insert(header.id), header.id);
        payload.extend_from_slice(packet.from_offset(upper.offset));
    }
    (id.unwrap(), payload)
}

#[test]
fn a_whole_packet_is_one_piece() {
    let mut buf = loaded(b"hello");
    assert_eq!(collect(&mut buf, Pieces::whole()), [b"hello"]);
    assert!(Pieces::whole().is_whole() && !Pieces::none().is_whole());
    assert!(collect(&mut buf, Pieces::none()).is_empty());
}

/// A super-segment that ends inside its UDP header has no segments.
#[test]
fn a_truncated_super_segment_is_refused() {
    let whole = udp_v4(&payload(8));
    for len in 0..28 {
        let buf = super_segment(&whole[..len], GsoKind::Udp, 1);
        assert_eq!(Pieces::segments(&buf).err(), Some(Unsplittable), "{len}");
    }
    assert!(Pieces::segments(&super_segment(&whole, GsoKind::Udp, 1)).is_ok());
}

/// The oracle of other tests, itself checked: built by etherparse, then broken bit by bit.
#[test]
fn a_transport_checksum_is_right_or_wrong_or_unknown() {
    let icmp_v4 = {
        let mut bytes = Vec::new();
        etherparse::PacketBuilder::ipv4([192, 0, 0, 1], [198, 51, 100, 1], 64)
            .icmpv4_echo_request(7, 1)
            .write(&mut bytes, &payload(40))
            .unwrap();
        bytes
    };
    let icmp_v6 = {
        let mut bytes = Vec::new();
        etherparse::PacketBuilder::ipv6([1; 16], [2; 16], 64)
            .icmpv6_echo_request(7, 1)
            .write(&mut bytes, &payload(40))
            .unwrap();
        bytes
    };
    let all = [
        (udp_v4(&payload(40)), 20),
        (udp_v6(&payload(40)), 40),
        (tcp(false, &payload(40)), 20),
        (tcp(true, &payload(40)), 40),
        (icmp_v4, 20),
        (icmp_v6, 40),
    ];
    for (packet, header) in all {
        assert_eq!(transport_checksum_ok(&packet), Some(true));
        for at in header..packet.len() {
            let mut broken = packet.clone();
            broken[at] ^= 0x10;
            assert_eq!(transport_checksum_ok(&broken), Some(false), "{at}");
        }
        // Of another protocol nothing is known.
        let mut other = packet.clone();
        other[if header == 20 { 9 } else { 6 }] = 132;
        assert_eq!(transport_checksum_ok(&other), None);
    }
    let mut without = udp_v4(&payload(40));
    without[26..28].fill(0);
    assert_eq!(transport_checksum_ok(&without), None);
}

/// Where TCP has its urgent pointer and UDP data, SCTP has its checksum: only SCTP's is a CRC.
#[test]
fn only_sctp_has_a_crc() {
    for (number, start) in [(protocol::UDP, 20), (protocol::SCTP, 28)] {
        let mut packet = udp_v4(&payload(60));
        packet[9] = number;
        let mut buf = loaded(&packet);
        buf.offload.checksum = ChecksumState::Partial { start, field: 8 };
        complete_checksum(&mut buf).unwrap();
        let mut wanted = packet.clone();
        let at = usize::from(start) + 8;
        wanted[at..at + 2].copy_from_slice(
            &never_zero(Sum::of(&packet[usize::from(start)..]).checksum()).to_be_bytes(),
        );
        assert_eq!(buf.bytes(), wanted);
    }
}

/// Vector 11.4: 1500 bytes at an MTU of 1280 become 1280 and 296 bytes, offsets 0 and 154.
#[test]
fn fragments_of_the_1500_byte_vector() {
    let packet = udp_v6(&payload(1472));
    let mut buf = loaded(&packet);
    let pieces = Pieces::fragments(&buf, 1280, 0x4242).unwrap();
    let fragments = collect(&mut buf, pieces);
    let lengths: Vec<_> = fragments.iter().map(Vec::len).collect();
    assert_eq!(lengths, [1280, 296]);
    let (id, payload) = reassemble_v6(&fragments);
    assert_eq!(id, 0x4242);
    assert_eq!(payload, packet[40..]);
    assert_eq!(fragments[1][40..44], [17, 0, 154 >> 5, (154 << 3) as u8]);
}

#[test]
fn a_fragment_is_divided_further_and_keeps_its_place() {
    let header = FragmentHeader {
        fragment: ipv4::Fragment {
            offset: 100,
            more: true,
        },
        id: 7,
    };
    let mut packet = udp_v6(&payload(1000 - 8));
    packet[6] = protocol::FRAGMENT;
    packet.splice(40..40, header.to_bytes(17));
    set_u16(&mut packet, 4, 1008);
    let mut buf = loaded(&packet);
    let pieces = Pieces::fragments(&buf, 600, 99).unwrap();
    let fragments = collect(&mut buf, pieces);
    let headers: Vec<_> = fragments
        .iter()
        .map(|bytes| Ipv6::new_checked(bytes).unwrap().upper().unwrap())
        .map(|upper| upper.fragment.unwrap())
        .map(|header| (header.id, header.fragment.offset, header.fragment.more))
        .collect();
    assert_eq!(headers, [(7, 100, true), (7, 169, true)]);
}

#[test]
fn ipv4_fragments_have_right_headers() {
    let packet = udp_v4(&payload(3000));
    let mut buf = loaded(&packet);
    let pieces = Pieces::fragments(&buf, 1500, 0).unwrap();
    let fragments = collect(&mut buf, pieces);
    let mut joined = Vec::new();
    for fragment in &fragments {
        let ipv4 = Ipv4::new_checked(fragment).unwrap();
        assert!(fragment.len() <= 1500);
        assert_eq!(usize::from(ipv4.fragment().offset) * 8, joined.len());
        joined.extend_from_slice(ipv4.payload());
    }
    assert_eq!(joined, packet[20..]);
    assert_eq!(fragments.len(), 3);
}

#[test]
fn an_mtu_without_room_for_payload_is_refused() {
    let buf = loaded(&udp_v6(&payload(1472)));
    assert_eq!(Pieces::fragments(&buf, 55, 0).err(), Some(Unsplittable));
    assert_eq!(Pieces::segments(&buf).err(), Some(Unsplittable));
}

/// Every segment has the headers a sender would have written: sequence, flags, id, checksums.
#[test]
fn tcp_segments_are_what_the_sender_would_have_sent() {
    for v6 in [false, true] {
        let packet = tcp(v6, &payload(3500));
        let kind = if v6 {
            GsoKind::TcpV6 { ecn: true }
        } else {
            GsoKind::TcpV4 { ecn: true }
        };
        let mut buf = super_segment(&packet, kind, 1400);
        let pieces = Pieces::segments(&buf).unwrap();
        let segments = collect(&mut buf, pieces);
        assert_eq!(segments.len(), 3);
        let mut data = Vec::new();
        for (i, segment) in segments.iter().enumerate() {
            assert_eq!(transport_checksum_ok(segment), Some(true));
            let sliced = etherparse::SlicedPacket::from_ip(segment).unwrap();
            let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport else {
                panic!("no TCP in segment {i}");
            };
            assert_eq!(
                tcp.sequence_number(),
                0xffff_f000u32.wrapping_add(1400 * i as u32)
            );
            assert_eq!((tcp.cwr(), tcp.psh(), tcp.fin()), (i == 0, i == 2, i == 2));
            assert!(tcp.ack());
            data.extend_from_slice(tcp.payload());
            if !v6 {
                let ipv4 = Ipv4::new_checked(segment).unwrap();
                assert_eq!(ipv4.id(), i as u16);
            }
        }
        assert_eq!(data, payload(3500));
    }
}

#[test]
fn udp_segments_keep_their_size() {
    for packet in [udp_v6(&payload(2500)), udp_v4(&payload(2500))] {
        let mut buf = super_segment(&packet, GsoKind::Udp, 1000);
        let pieces = Pieces::segments(&buf).unwrap();
        let segments = collect(&mut buf, pieces);
        let mut data = Vec::new();
        for segment in &segments {
            assert_eq!(transport_checksum_ok(segment), Some(true));
            let sliced = etherparse::SlicedPacket::from_ip(segment).unwrap();
            let Some(etherparse::TransportSlice::Udp(udp)) = sliced.transport else {
                panic!("no UDP");
            };
            data.push(udp.payload().to_vec());
        }
        assert_eq!(
            data.iter().map(Vec::len).collect::<Vec<_>>(),
            [1000, 1000, 500]
        );
        assert_eq!(data.concat(), payload(2500));
    }
}

#[test]
fn segments_over_the_limit_are_fragmented_each_with_its_own_id() {
    let packet = udp_v6(&payload(3200));
    let mut buf = super_segment(&packet, GsoKind::Udp, 1400);
    let pieces = Pieces::fragmented_segments(&buf, 1280, 50).unwrap();
    let pieces = collect(&mut buf, pieces);
    let lengths: Vec<_> = pieces.iter().map(Vec::len).collect();
    assert_eq!(lengths, [1280, 224, 1280, 224, 448]);
    let (first, payload_0) = reassemble_v6(&pieces[..2]);
    let (second, payload_1) = reassemble_v6(&pieces[2..4]);
    assert_eq!((first, second), (50, 51));
    assert_eq!(payload_0[8..], payload(3200)[..1400]);
    assert_eq!(payload_1[8..], payload(3200)[1400..2800]);
    assert_eq!(transport_checksum_ok(&pieces[4]), Some(true));

    let mut buf = super_segment(&packet, GsoKind::Udp, 1400);
    let pieces = Pieces::fragmented_segments(&buf, 1280, 0xffff).unwrap();
    let pieces = collect(&mut buf, pieces);
    let ids = [&pieces[..2], &pieces[2..4]].map(|it| reassemble_v6(it).0);
    assert_eq!(ids, [0xffff, 0], "like IPv4 would count");
}

#[test]
fn a_partial_checksum_is_completed() {
    let packet = udp_v6(&payload(77));
    let mut partial = packet.clone();
    let pseudo = pseudo_v6([1; 16], [2; 16], protocol::UDP, 85).fold();
    set_u16(&mut partial, 46, pseudo);
    let mut buf = loaded(&partial);
    buf.offload.checksum = ChecksumState::Partial {
        start: 40,
        field: 6,
    };
    complete_checksum(&mut buf).unwrap();
    assert_eq!(buf.bytes(), packet);
    assert_eq!(buf.offload, Offload::default());
    buf.offload.checksum = ChecksumState::Partial {
        start: 200,
        field: 6,
    };
    assert_eq!(complete_checksum(&mut buf), Err(Unsplittable));
    buf.offload.checksum = ChecksumState::Partial {
        start: 40,
        field: 200,
    };
    assert_eq!(complete_checksum(&mut buf), Err(Unsplittable));
}

/// A fragment that reaches past the longest datagram: its pieces would have offsets that wrap round
/// to the front, over what is there.
#[test]
fn a_fragment_past_the_longest_datagram_is_not_divided() {
    let fragment = ipv4::Fragment {
        offset: 8100,
        more: false,
    };
    let header = FragmentHeader { fragment, id: 7 };
    let mut packet = udp_v6(&payload(1000 - 8));
    packet[6] = protocol::FRAGMENT;
    packet.splice(40..40, header.to_bytes(17));
    set_u16(&mut packet, 4, 1008);
    let mut buf = loaded(&packet);
    assert_eq!(Pieces::fragments(&buf, 600, 9).err(), Some(Unsplittable));
    set_u16(&mut packet, 42, 8066 << 3);
    buf.set(&packet).unwrap();
    let pieces = Pieces::fragments(&buf, 600, 9).unwrap();
    assert_eq!(collect(&mut buf, pieces).len(), 2);
}

/// Before the first piece, not by losing every one of them.
#[test]
fn segments_that_cannot_be_fragmented_are_refused() {
    let buf = super_segment(&udp_v6(&payload(3000)), GsoKind::Udp, 1400);
    let refused = Pieces::fragmented_segments(&buf, 55, 0);
    assert_eq!(refused.err(), Some(Unsplittable));
}

#[test]
fn a_begun_checksum_completes_to_what_it_was() {
    for packet in [
        udp_v4(&payload(77)),
        udp_v6(&payload(77)),
        tcp(false, &payload(5)),
        tcp(true, &payload(5)),
    ] {
        let mut buf = loaded(&packet);
        begin_checksum(&mut buf).unwrap();
        assert_ne!(buf.bytes(), packet);
        assert!(matches!(
            buf.offload.checksum,
            ChecksumState::Partial { .. }
        ));
        complete_checksum(&mut buf).unwrap();
        assert_eq!(buf.bytes(), packet);
    }
    let mut other = udp_v4(&[]);
    other[9] = 47;
    assert_eq!(begin_checksum(&mut loaded(&other)), Err(Unsplittable));
}

/// The kernel hands SCTP packets over with their CRC32c still to be computed, and marks them like
/// those of the Internet checksum.
#[test]
fn an_sctp_checksum_is_a_crc32c() {
    let mut packet = udp_v6(&payload(32));
    packet[6] = protocol::SCTP;
    // 40 bytes of SCTP that are zero with their checksum.
    packet[40..].fill(0);
    let mut buf = loaded(&packet);
    buf.bytes_mut()[48..52].copy_from_slice(&[1, 2, 3, 4]);
    buf.offload.checksum = ChecksumState::Partial {
        start: 40,
        field: 8,
    };
    complete_checksum(&mut buf).unwrap();
    assert_eq!(buf.offload.checksum, ChecksumState::Complete);
    let checksum = crate::crc32c::crc32c(&[0; 40]).to_le_bytes();
    packet[48..52].copy_from_slice(&checksum);
    assert_eq!(buf.bytes(), packet);

    buf.set(&packet[..50]).unwrap();
    buf.offload.checksum = ChecksumState::Partial {
        start: 40,
        field: 8,
    };
    assert_eq!(complete_checksum(&mut buf), Err(Unsplittable));
}

proptest! {
    #[test]
    fn no_bytes_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
        version in prop::sample::select(vec![0x45u8, 0x60, 0x4f]),
        protocol in prop::sample::select(vec![6u8, 17, 44]),
        size in 1u16..100,
        mtu in 0u16..400,
        kind in prop::sample::select(vec![GsoKind::Udp, GsoKind::TcpV4 { ecn: false }]),
    ) {
        if let Some(first) = bytes.first_mut() {
            *first = version;
        }
        if let Some(next) = bytes.get_mut(if version == 0x60 { 6 } else { 9 }) {
            *next = protocol;
        }
        let _ = transport_checksum_ok(&bytes);
        let mut buf = super_segment(&bytes, kind, size);
        for pieces in [
            Pieces::fragments(&buf, mtu, 1),
            Pieces::segments(&buf),
            Pieces::fragmented_segments(&buf, mtu, 1),
        ].into_iter().flatten() {
            // At most a segment per byte, and 16 fragments of the longest headers.
            prop_assert!(collect(&mut buf, pieces).len() <= 300 * 16);
            buf.set(&bytes).unwrap();
        }
        buf.offload.checksum = ChecksumState::Partial { start: size, field: mtu };
        let _ = complete_checksum(&mut buf);
    }

    #[test]
    fn fragments_join_to_the_packet(len in 1usize..6000, mtu in 56u16..1500) {
        let packet = udp_v6(&payload(len));
        let mut buf = loaded(&packet);
        let pieces = Pieces::fragments(&buf, mtu, 9).unwrap();
        let fragments = collect(&mut buf, pieces);
        prop_assert!(fragments.iter().all(|f| f.len() <= usize::from(mtu)));
        let (_, joined) = reassemble_v6(&fragments);
        prop_assert_eq!(&joined[..], &packet[40..]);
    }
}
