use super::*;
use proptest::prelude::*;
use wire::ndp::HOP_LIMIT;

const CLAT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0x246, 0xc1a7, 1, 0xa039);
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const PEER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0xc633, 0x640a);
const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const ROUTER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
const STRANGER: Mac = Mac([2, 0, 0, 0, 0, 3]);
const NONCE: [u8; 6] = [1, 2, 3, 4, 5, 6];

#[expect(clippy::disallowed_methods, reason = "virtual time needs an origin")]
fn origin() -> Instant {
    Instant::now()
}

fn config() -> Config {
    Config {
        address: CLAT,
        mac: OUR_MAC,
        probes: 1,
        nonce: NONCE,
        delay: Duration::ZERO,
    }
}

fn buffer() -> PacketBuf {
    PacketBuf::for_packets_up_to(1500)
}

/// A link that has its address, and the time it got it.
fn assigned() -> (Link, Instant) {
    let mut now = origin();
    let mut link = Link::new(config(), now);
    let mut buf = buffer();
    while let Some(next) = link.poll_timeout(now) {
        now = next;
        let _ = link.handle_timeout(&mut buf, now);
    }
    assert_eq!(link.poll_event(), Some(Event::Assigned));
    (link, now)
}

fn envelope(buf: &PacketBuf) -> Envelope {
    let packet = Ipv6::new_checked(buf.bytes()).unwrap();
    Envelope {
        src: packet.src(),
        dst: packet.dst(),
        hop_limit: packet.hop_limit(),
    }
}

fn solicitation_in(buf: &PacketBuf) -> NeighborSolicitation {
    NeighborSolicitation::new_checked(&envelope(buf), &buf.bytes()[40..]).unwrap()
}

fn advertisement_in(buf: &PacketBuf) -> NeighborAdvertisement {
    NeighborAdvertisement::new_checked(&envelope(buf), &buf.bytes()[40..]).unwrap()
}

fn solicitation(
    src: Ipv6Addr,
    dst: Ipv6Addr,
    nonce: Option<[u8; 6]>,
    mac: Option<Mac>,
) -> PacketBuf {
    let mut buf = buffer();
    NeighborSolicitation {
        target: CLAT,
        source_link_layer: mac,
        nonce,
    }
    .write(&mut buf, src, dst)
    .unwrap();
    buf
}

fn claim(target_link_layer: Option<Mac>) -> PacketBuf {
    let mut buf = buffer();
    NeighborAdvertisement {
        target: CLAT,
        router: false,
        solicited: false,
        override_cache: true,
        target_link_layer,
    }
    .write(&mut buf, CLAT, ALL_NODES)
    .unwrap();
    buf
}

fn from(src: Mac) -> FrameAddresses {
    FrameAddresses {
        src,
        dst: Mac::of_multicast(solicited_node(CLAT)),
    }
}

fn to_us(src: Mac) -> FrameAddresses {
    FrameAddresses { src, dst: OUR_MAC }
}

/// RFC 4862 §5.4.2, RFC 7527, RFC 9131.
#[test]
fn clat_6_3_02_the_address_is_claimed_by_duplicate_address_detection() {
    let start = origin();
    let config = Config {
        delay: Duration::from_millis(300),
        ..config()
    };
    let mut link = Link::new(config, start);
    let mut buf = buffer();
    assert_eq!(link.usable(), Err(DropReason::AddressTentative));
    assert_eq!(link.handle_timeout(&mut buf, start), None);

    let now = link.poll_timeout(start).unwrap();
    assert_eq!(now, start + Duration::from_millis(300));
    let sent = link.handle_timeout(&mut buf, now).unwrap();
    assert_eq!(sent.to, Mac::of_multicast(solicited_node(CLAT)));
    assert_eq!(envelope(&buf).src, Ipv6Addr::UNSPECIFIED);
    assert_eq!(envelope(&buf).dst, solicited_node(CLAT));
    assert_eq!(envelope(&buf).hop_limit, HOP_LIMIT);
    let probe = solicitation_in(&buf);
    assert_eq!((probe.target, probe.nonce), (CLAT, Some(NONCE)));
    assert_eq!(link.poll_event(), None);

    let now = link.poll_timeout(now).unwrap();
    assert_eq!(now, start + Duration::from_millis(1300));
    let sent = link.handle_timeout(&mut buf, now).unwrap();
    assert_eq!(link.poll_event(), Some(Event::Assigned));
    assert_eq!(link.usable(), Ok(()));
    // The first-hop routers learn of the address before the first packet comes back.
    assert_eq!(sent.to, Mac::of_multicast(ALL_ROUTERS));
    assert_eq!(envelope(&buf).dst, ALL_ROUTERS);
    let announced = advertisement_in(&buf);
    assert!(!announced.override_cache && !announced.solicited && !announced.router);
    assert_eq!(announced.target_link_layer, Some(OUR_MAC));
}

/// RFC 9131 §6.1.2: three times, a second apart.
#[test]
fn clat_6_3_02_routers_are_told_of_the_new_address() {
    let start = origin();
    let mut link = Link::new(config(), start);
    let mut buf = buffer();
    let _ = link.handle_timeout(&mut buf, start);
    let mut times = Vec::new();
    let mut now = start;
    while let Some(next) = link.poll_timeout(now) {
        now = next;
        let sent = link.handle_timeout(&mut buf, now).unwrap();
        assert_eq!(sent.to, Mac::of_multicast(ALL_ROUTERS));
        assert_eq!(advertisement_in(&buf).target, CLAT);
        // Not earlier than it is due.
        assert_eq!(link.handle_timeout(&mut buf, now), None);
        times.push((now - start).as_secs());
    }
    assert_eq!(times, [1, 2, 3]);
    // A challenge in between neither stops nor repeats them.
    let mut link = Link::new(config(), start);
    let _ = link.handle_timeout(&mut buf, start);
    let now = start + PROBE_WAIT;
    let _ = link.handle_timeout(&mut buf, now);
    let _ = link.receive(from(STRANGER), &mut claim(Some(STRANGER)), now);
    assert_eq!(link.poll_timeout(now), Some(now + PROBE_WAIT));
    // An address that was given up is not announced.
    let _ = link.receive(from(STRANGER), &mut claim(Some(STRANGER)), now);
    assert_eq!(link.poll_timeout(now), None);
    assert_eq!(link.handle_timeout(&mut buf, now + PROBE_WAIT), None);
}

#[test]
fn clat_6_3_02_as_many_probes_as_configured() {
    let mut now = origin();
    let config = Config {
        probes: 3,
        ..config()
    };
    let mut link = Link::new(config, now);
    let mut buf = buffer();
    for _ in 0..3 {
        now = link.poll_timeout(now).unwrap();
        let _ = link.handle_timeout(&mut buf, now).unwrap();
        assert_eq!(solicitation_in(&buf).target, CLAT);
        assert_eq!(link.poll_event(), None);
    }
    now = link.poll_timeout(now).unwrap();
    let _ = link.handle_timeout(&mut buf, now).unwrap();
    assert_eq!(link.poll_event(), Some(Event::Assigned));
}

#[test]
fn clat_6_3_02_a_conflict_while_probing_gives_the_address_up() {
    let probe_of_another = solicitation(
        Ipv6Addr::UNSPECIFIED,
        solicited_node(CLAT),
        Some([9; 6]),
        None,
    );
    let plain_probe = solicitation(Ipv6Addr::UNSPECIFIED, solicited_node(CLAT), None, None);
    for mut conflict in [
        probe_of_another,
        plain_probe,
        claim(Some(STRANGER)),
        claim(None),
    ] {
        let now = origin();
        let mut link = Link::new(config(), now);
        let _ = link.handle_timeout(&mut buffer(), now);
        assert_eq!(
            link.receive(from(STRANGER), &mut conflict, now),
            Received::Nothing
        );
        assert_eq!(link.poll_event(), Some(Event::Duplicate(STRANGER)));
        assert_eq!(link.usable(), Err(DropReason::AddressDuplicate));
        assert_eq!(link.poll_timeout(now), None);
        let later = now + Duration::from_secs(5);
        assert_eq!(link.handle_timeout(&mut buffer(), later), None);
        // And never answered for.
        let mut question = solicitation(ROUTER, solicited_node(CLAT), None, Some(ROUTER_MAC));
        assert_eq!(
            link.receive(from(ROUTER_MAC), &mut question, later),
            Received::Drop(DropReason::AddressDuplicate)
        );
    }
}

/// RFC 7527: a link that loops our probe back must not look like a conflict.
#[test]
fn clat_6_3_02_our_own_probe_is_no_conflict() {
    let now = origin();
    let mut link = Link::new(config(), now);
    let mut probe = buffer();
    let _ = link.handle_timeout(&mut probe, now);
    assert_eq!(
        link.receive(from(STRANGER), &mut probe, now),
        Received::Nothing
    );
    let mut other = solicitation(Ipv6Addr::UNSPECIFIED, solicited_node(CLAT), None, None);
    assert_eq!(
        link.receive(from(OUR_MAC), &mut other, now),
        Received::Nothing
    );
    assert_eq!(link.poll_event(), None);
    assert_eq!(link.usable(), Err(DropReason::AddressTentative));

    // An access point that keeps multicast back may do so until the address is assigned. It is
    // not answered then.
    let (mut link, now) = assigned();
    let mut probe = solicitation(
        Ipv6Addr::UNSPECIFIED,
        solicited_node(CLAT),
        Some(NONCE),
        None,
    );
    assert_eq!(
        link.receive(from(STRANGER), &mut probe, now),
        Received::Nothing
    );
    assert_eq!(link.usable(), Ok(()));
}

/// RFC 4862 §5.4.3: questions about a tentative address are ignored.
#[test]
fn clat_6_3_02_nothing_is_answered_while_tentative() {
    let now = origin();
    let mut link = Link::new(config(), now);
    let mut question = solicitation(ROUTER, solicited_node(CLAT), None, Some(ROUTER_MAC));
    assert_eq!(
        link.receive(from(ROUTER_MAC), &mut question, now),
        Received::Nothing
    );
    assert_eq!(link.poll_event(), None);
    let mut packet = data(PEER, CLAT);
    assert_eq!(
        link.receive(to_us(ROUTER_MAC), &mut packet, now),
        Received::Drop(DropReason::AddressTentative)
    );
}

#[test]
fn clat_6_3_02_neighbours_get_an_answer() {
    let (mut link, now) = assigned();
    // Asked by multicast and by unicast, with and without the asker's link-layer address.
    for (dst, mac) in [
        (solicited_node(CLAT), Some(ROUTER_MAC)),
        (CLAT, Some(ROUTER_MAC)),
        (CLAT, None),
    ] {
        let mut buf = solicitation(ROUTER, dst, None, mac);
        let frame = if dst == CLAT {
            to_us(ROUTER_MAC)
        } else {
            from(ROUTER_MAC)
        };
        let received = link.receive(frame, &mut buf, now);
        assert_eq!(received, Received::Reply(Transmit { to: ROUTER_MAC }));
        assert_eq!((envelope(&buf).src, envelope(&buf).dst), (CLAT, ROUTER));
        let answer = advertisement_in(&buf);
        assert!(answer.solicited && answer.override_cache && !answer.router);
        assert_eq!(answer.target_link_layer, Some(OUR_MAC));
    }
}

/// An answer to a group, or by way of one, would reach everybody.
#[test]
fn clat_6_3_02_answers_go_to_one_neighbour() {
    let (mut link, now) = assigned();
    let mut buf = solicitation(ALL_NODES, solicited_node(CLAT), None, Some(ROUTER_MAC));
    assert_eq!(
        link.receive(from(ROUTER_MAC), &mut buf, now),
        Received::Drop(DropReason::InvalidNeighborDiscovery)
    );
    let group = Mac::of_multicast(ALL_NODES);
    let mut buf = solicitation(ROUTER, solicited_node(CLAT), None, Some(group));
    assert_eq!(
        link.receive(from(ROUTER_MAC), &mut buf, now),
        Received::Reply(Transmit { to: ROUTER_MAC })
    );
}

#[test]
fn clat_6_3_02_questions_about_other_addresses_are_not_ours() {
    let (mut link, now) = assigned();
    let other = Ipv6Addr::from_bits(CLAT.to_bits() ^ 1);
    let mut buf = buffer();
    NeighborSolicitation {
        target: other,
        source_link_layer: Some(ROUTER_MAC),
        nonce: None,
    }
    .write(&mut buf, ROUTER, solicited_node(CLAT))
    .unwrap();
    let not_for_us = Received::Drop(DropReason::NotForUs);
    assert_eq!(link.receive(from(ROUTER_MAC), &mut buf, now), not_for_us);
    NeighborAdvertisement {
        target: other,
        router: false,
        solicited: false,
        override_cache: true,
        target_link_layer: Some(STRANGER),
    }
    .write(&mut buf, other, ALL_NODES)
    .unwrap();
    assert_eq!(link.receive(from(STRANGER), &mut buf, now), not_for_us);
    assert_eq!(link.poll_event(), None);
}

#[test]
fn clat_6_3_02_another_hosts_probe_is_answered_to_all_nodes() {
    let (mut link, now) = assigned();
    let mut buf = solicitation(
        Ipv6Addr::UNSPECIFIED,
        solicited_node(CLAT),
        Some([9; 6]),
        None,
    );
    let received = link.receive(from(STRANGER), &mut buf, now);
    let to = Mac::of_multicast(ALL_NODES);
    assert_eq!(received, Received::Reply(Transmit { to }));
    assert_eq!((envelope(&buf).src, envelope(&buf).dst), (CLAT, ALL_NODES));
    let answer = advertisement_in(&buf);
    assert!(!answer.solicited && answer.override_cache);
    assert_eq!(link.poll_event(), None);
}

#[test]
fn clat_6_3_02_a_claim_is_defended_once_and_obeyed_when_repeated() {
    let (mut link, now) = assigned();
    let mut buf = claim(Some(STRANGER));
    let received = link.receive(from(STRANGER), &mut buf, now);
    assert!(matches!(received, Received::Reply(_)));
    assert_eq!(advertisement_in(&buf).target_link_layer, Some(OUR_MAC));
    assert_eq!(link.poll_event(), None);

    // Long after, it counts as the first again.
    let later = now + DEFEND_INTERVAL;
    let received = link.receive(from(STRANGER), &mut claim(Some(STRANGER)), later);
    assert!(matches!(received, Received::Reply(_)));

    let soon = later + DEFEND_INTERVAL - Duration::from_millis(1);
    let received = link.receive(from(STRANGER), &mut claim(Some(STRANGER)), soon);
    assert_eq!(received, Received::Nothing);
    assert_eq!(link.poll_event(), Some(Event::Duplicate(STRANGER)));

    // Our own advertisement, sent back by the link, is no claim.
    let (mut link, now) = assigned();
    let received = link.receive(from(STRANGER), &mut claim(Some(OUR_MAC)), now);
    assert_eq!(received, Received::Nothing);
}

fn data(src: Ipv6Addr, dst: Ipv6Addr) -> PacketBuf {
    let mut buf = buffer();
    let fields = wire::ipv6::Fields {
        traffic_class: 0,
        payload_len: 8,
        next_header: 17,
        hop_limit: 64,
        src,
        dst,
    };
    buf.set(&[&fields.to_bytes()[..], &[0; 8]].concat())
        .unwrap();
    buf
}

#[test]
fn packets_for_the_address_pass_and_others_do_not() {
    let (mut link, now) = assigned();
    let mut packet = data(PEER, CLAT);
    assert_eq!(
        link.receive(to_us(ROUTER_MAC), &mut packet, now),
        Received::Packet
    );
    let not_for_us = Received::Drop(DropReason::NotForUs);
    let mut other = data(PEER, PEER);
    assert_eq!(link.receive(to_us(ROUTER_MAC), &mut other, now), not_for_us);
    // Overheard: the interface is promiscuous.
    let mut overheard = data(PEER, CLAT);
    let frame = FrameAddresses {
        src: ROUTER_MAC,
        dst: STRANGER,
    };
    assert_eq!(link.receive(frame, &mut overheard, now), not_for_us);
    let mut question = solicitation(ROUTER, CLAT, None, Some(ROUTER_MAC));
    assert_eq!(link.receive(frame, &mut question, now), not_for_us);
    let mut noise = buffer();
    noise.set(&[0x60; 39]).unwrap();
    assert_eq!(
        link.receive(to_us(ROUTER_MAC), &mut noise, now),
        Received::Drop(DropReason::MalformedFrame)
    );
}

#[test]
fn neighbour_discovery_from_afar_is_refused() {
    let (mut link, now) = assigned();
    for mut buf in [
        solicitation(ROUTER, CLAT, None, Some(ROUTER_MAC)),
        claim(Some(STRANGER)),
    ] {
        buf.bytes_mut()[7] = 254;
        assert_eq!(
            link.receive(from(STRANGER), &mut buf, now),
            Received::Drop(DropReason::InvalidNeighborDiscovery)
        );
    }
    assert_eq!(link.poll_event(), None);
}

/// An ICMPv6 message of `kind` about `target`, with a correct checksum unless `spoil` says
/// otherwise, so that the checks behind the checksum are reached too.
fn message(kind: u8, header: Envelope, target: Ipv6Addr, body: &[u8], spoil: u8) -> PacketBuf {
    let mut icmp = vec![kind, u8::from(spoil == 1), 0, 0, 0x60, 0, 0, 0];
    icmp.extend(target.octets());
    icmp.extend(body);
    let (src, dst) = (header.src.octets(), header.dst.octets());
    let sum = wire::checksum::pseudo_v6(src, dst, 58, icmp.len() as u32).bytes(&icmp);
    icmp[2..4].copy_from_slice(&(sum.checksum() ^ u16::from(spoil == 2)).to_be_bytes());
    let fields = wire::ipv6::Fields {
        traffic_class: 0,
        payload_len: icmp.len() as u16,
        next_header: 58,
        hop_limit: header.hop_limit,
        src: header.src,
        dst: header.dst,
    };
    let mut buf = buffer();
    buf.set(&[&fields.to_bytes()[..], &icmp].concat()).unwrap();
    buf
}

fn any_address() -> impl Strategy<Value = Ipv6Addr> {
    prop_oneof![
        Just(CLAT),
        Just(ROUTER),
        Just(Ipv6Addr::UNSPECIFIED),
        Just(ALL_NODES),
        Just(solicited_node(CLAT)),
        any::<u128>().prop_map(Ipv6Addr::from_bits),
    ]
}

proptest! {
    #[test]
    fn no_bytes_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        right_header in any::<bool>(),
        kind in 133u8..138,
    ) {
        if right_header && bytes.len() > 48 {
            let len = bytes.len() as u16 - 40;
            bytes[0] = 0x60;
            bytes[4..6].copy_from_slice(&len.to_be_bytes());
            bytes[6..8].copy_from_slice(&[58, 255]);
            bytes[40] = kind;
        }
        let (mut link, now) = assigned();
        let mut buf = buffer();
        buf.set(&bytes).unwrap();
        let _ = link.receive(from(STRANGER), &mut buf, now);
    }

    /// Whatever neighbours say, only valid messages about our address have an effect: an answer
    /// is a valid advertisement of ours to whoever asked, and only a foreign claim or probe costs
    /// us the address.
    #[test]
    fn clat_6_3_02_only_valid_messages_have_an_effect(
        kind in 135u8..137,
        src in any_address(),
        dst in any_address(),
        target in any_address(),
        hop_limit in prop_oneof![4 => Just(255u8), 1 => any::<u8>()],
        body in proptest::collection::vec(any::<u8>(), 0..40),
        whole in any::<bool>(),
        spoil in 0u8..6,
        tentative in any::<bool>(),
    ) {
        let header = Envelope { src, dst, hop_limit };
        // Half of the time, options that are well-formed.
        let body = if whole {
            let mut options = vec![kind - 134, 1, 2, 0, 0, 0, 0, 7];
            options.extend([14, 1, 1, 1, 1, 1, 1, 1]);
            options
        } else {
            body
        };
        let mut buf = message(kind, header, target, &body, spoil);
        let (mut link, now) = if tentative {
            let now = origin();
            (Link::new(config(), now), now)
        } else {
            assigned()
        };
        let valid = NeighborSolicitation::new_checked(&header, &buf.bytes()[40..]).is_ok()
            || NeighborAdvertisement::new_checked(&header, &buf.bytes()[40..]).is_ok();
        let about_us = target == CLAT && valid && hop_limit == 255 && spoil != 1 && spoil != 2;
        match link.receive(from(STRANGER), &mut buf, now) {
            Received::Reply(transmit) => {
                prop_assert!(about_us && !tentative);
                let answer = advertisement_in(&buf);
                prop_assert_eq!((answer.target, envelope(&buf).src), (CLAT, CLAT));
                prop_assert!(answer.override_cache && !answer.router);
                prop_assert_eq!(answer.target_link_layer, Some(OUR_MAC));
                let to_everybody = envelope(&buf).dst == ALL_NODES;
                prop_assert_eq!(to_everybody, transmit.to.is_group());
                prop_assert_eq!(to_everybody, !answer.solicited);
            }
            Received::Packet => prop_assert!(false, "neighbour discovery is not for the host"),
            Received::Nothing | Received::Drop(_) => {}
        }
        if let Some(Event::Duplicate(by)) = link.poll_event() {
            prop_assert!(about_us && tentative);
            prop_assert!(kind == 136 || src.is_unspecified());
            prop_assert!(by != OUR_MAC);
        }
    }
}
