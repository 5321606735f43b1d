//! Hosts with an explicit mapping, beside the stateful clients.

use super::*;
use pref64::eam::{Eam, EamTable};

/// Two hosts with a mapping of their own, and a network of them.
const HOST4: Ipv4Addr = Ipv4Addr::new(192, 88, 1, 7);
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xaaaa, 0, 0, 0, 0, 7);
const HOST4_B: Ipv4Addr = Ipv4Addr::new(192, 88, 1, 8);
const HOST6_B: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xaaaa, 0, 0, 0, 0, 8);

fn mapped() -> Config {
    let mappings = [
        ("192.88.1.7", "2001:db8:aaaa::7"),
        ("192.88.1.8", "2001:db8:aaaa::8"),
        ("192.88.2.0/24", "2001:db8:bbbb::/120"),
    ];
    let mappings = mappings.map(|(v4, v6)| Eam::parse(v4, v6).unwrap());
    Config {
        eam: EamTable::new(mappings.into()).unwrap(),
        ..config()
    }
}

fn addresses4(packet: &[u8]) -> (Ipv4Addr, Ipv4Addr) {
    assert_eq!(transport_checksum_ok(packet), Some(true));
    let header = Ipv4::new_checked(packet).unwrap();
    (header.src(), header.dst())
}

fn addresses6(packet: &[u8]) -> (Ipv6Addr, Ipv6Addr) {
    assert_eq!(transport_checksum_ok(packet), Some(true));
    let header = Ipv6::new_checked(packet).unwrap();
    (header.src(), header.dst())
}

/// UDP between IPv6 addresses.
fn datagram6(from: Ipv6Addr, to: Ipv6Addr, data: &[u8]) -> Vec<u8> {
    let datagram = compose::udp(Pair::V6(from, to), 5000, 53, data);
    V6::new(from, to, 17).carrying(&datagram)
}

/// Neither a binding nor a port that is not the host's own, and every protocol.
#[test]
fn eam_3_3_01_a_mapped_host_needs_no_state() {
    let mut nat = Nat::new(mapped());
    let out = nat
        .send(&udp6((HOST6, 5000), (SERVER, 53), b"question"))
        .packet();
    assert_eq!(addresses4(&out), (HOST4, SERVER));
    assert_eq!(transport::ports(&out[20..]), Some((5000, 53)));
    let back = nat
        .send(&udp4((SERVER, 53), (HOST4, 5000), b"answer"))
        .packet();
    assert_eq!(addresses6(&back), (prefix().embed(SERVER), HOST6));
    assert_eq!(transport::ports(&back[40..]), Some((53, 5000)));
    // Unasked, and what no NAT64 passes: a SYN from outside, ESP, an echo in a network of hosts.
    let syn = nat.send(&tcp4((SERVER, 999), (HOST4, 80), SYN)).packet();
    assert_eq!(addresses6(&syn), (prefix().embed(SERVER), HOST6));
    let esp = nat
        .send(&V4::new(SERVER, HOST4, 50).carrying(&[7; 40]))
        .packet();
    assert_eq!((esp[6], &esp[40..]), (50, &[7; 40][..]));
    let host: Ipv4Addr = "192.88.2.9".parse().unwrap();
    let echo = nat.send(&echo4(SERVER, 8, 77, host)).packet();
    let host: Ipv6Addr = "2001:db8:bbbb::9".parse().unwrap();
    assert_eq!(addresses6(&echo), (prefix().embed(SERVER), host));
    let reply = nat.send(&echo6(host, 129, 77, SERVER)).packet();
    assert_eq!(addresses4(&reply), ("192.88.2.9".parse().unwrap(), SERVER));
    assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
    let stats = nat.engine.stats();
    let counted = [&stats.from_v6, &stats.from_v4].map(|it| it.stateless.get());
    assert_eq!(counted, [2, 4]);
    // Clients beside it have state, as ever.
    assert_eq!(nat.udp((CLIENT, 5000), (SERVER, 53)), (POOL, 5000));
    assert_eq!((nat.bindings(), nat.sessions()), (1, 1));
}

/// The destination, too, may have a mapping, if its sender has one (RFC 7757 §3.3: each address by
/// itself). The client of an ordinary network has none, and the address is not in a prefix.
#[test]
fn eam_3_3_01_each_address_is_looked_up_by_itself() {
    let mut nat = Nat::new(mapped());
    let out = nat.send(&datagram6(HOST6, HOST6_B, b"x")).packet();
    assert_eq!(addresses4(&out), (HOST4, HOST4_B));
    let stranger = nat.send(&datagram6(CLIENT, HOST6_B, b"x"));
    assert_eq!(stranger, dropped(DropReason::NotInPrefix));
    let outside = nat.send(&datagram6(HOST6, OTHER, b"x"));
    assert_eq!(outside, dropped(DropReason::NotInPrefix));
}

/// Addresses of ours come back here before they are outside: from there they are forged, and would
/// reach a host as if another one in here had sent them. Errors may come from routers with a mapping.
#[test]
fn plat_3_5_01_what_says_from_outside_that_it_comes_from_inside_is_forged() {
    let mut nat = Nat::new(mapped());
    nat.udp((CLIENT, 5000), (SERVER, 53));
    let sent = nat.send(&udp6((HOST6, 5000), (SERVER, 53), b"x")).packet();
    for source in [POOL, HOST4, HOST4_B] {
        for inside in [(POOL, 5000), (HOST4, 5000)] {
            let forged = udp4((source, 53), inside, b"x");
            assert_eq!(nat.send(&forged), dropped(DropReason::ForgedSource));
            let echo = compose::icmp4(8, 0, [0, 1, 0, 1], b"x");
            let echo = V4::new(source, inside.0, 1).carrying(&echo);
            assert_eq!(nat.send(&echo), dropped(DropReason::ForgedSource));
        }
        nat.send(&error4(source, &sent, 3, 4)).packet();
    }
}

/// Errors about a host's packets, from a router or a server, with everything in them.
#[test]
fn eam_3_3_01_icmpv4_errors_reach_a_mapped_host() {
    let mut nat = Nat::new(mapped());
    let original = udp6((HOST6, 5000), (SERVER, 33_434), b"trace");
    let sent = nat.send(&original).packet();
    for (from, kind, code) in [(ROUTER4, 11, 0), (SERVER, 3, 3), (HOST4_B, 11, 0)] {
        let packet = nat.send(&error4(from, &sent, kind, code)).packet();
        // A router may have a mapping itself.
        let from = if from == HOST4_B {
            HOST6_B
        } else {
            prefix().embed(from)
        };
        assert_eq!(addresses6(&packet), (from, HOST6));
        let mut quoted = original.clone();
        quoted[7] = 63;
        assert_eq!(packet[48..], quoted);
    }
}

#[test]
fn eam_3_3_01_a_router_that_cannot_be_written_speaks_as_the_plat() {
    let config = Config {
        prefixes: vec![Pref64::WELL_KNOWN],
        ..mapped()
    };
    let mut nat = Nat::new(config);
    let dst = Pref64::WELL_KNOWN.embed(SERVER);
    let sent = nat.send(&datagram6(HOST6, dst, b"x")).packet();
    let packet = nat
        .send(&error4(Ipv4Addr::new(10, 0, 0, 1), &sent, 3, 4))
        .packet();
    assert_eq!(addresses6(&packet), (OWN6, HOST6));
    // But a private server is none that can be written.
    let private = nat.send(&udp4((Ipv4Addr::new(10, 0, 0, 1), 53), (HOST4, 5000), b"x"));
    let why = xlat::DropReason::NonGlobalUnderWellKnownPrefix;
    assert_eq!(private.reply().0, Why::Translation(why));
}

/// An error about a packet to the host, by the host or a router before it, which has no IPv4
/// address and speaks as the PLAT.
#[test]
fn eam_3_3_01_icmpv6_errors_about_a_mapped_host_reach_the_server() {
    let mut nat = Nat::new(mapped());
    let to_host = nat
        .send(&udp4((SERVER, 53), (HOST4, 33_434), b"trace"))
        .packet();
    for (from, seen, kind, code) in [(HOST6, HOST4, 1, 4), (ROUTER6, POOL, 3, 0)] {
        let packet = nat
            .send(&error6(from, &to_host, kind, code, [0; 4]))
            .packet();
        assert_eq!(addresses4(&packet), (seen, SERVER));
        let inner = Ipv4::new_embedded(&packet[28..]).unwrap();
        assert_eq!((inner.src(), inner.dst()), (SERVER, HOST4));
    }
}

/// A mapped router's error about a client's packet is the client's.
#[test]
fn eam_3_3_01_an_error_belongs_to_whom_it_is_about() {
    let mut nat = Nat::new(mapped());
    let seen = nat.udp((CLIENT, 5000), (SERVER, 53));
    let answer = nat.send(&udp4((SERVER, 53), seen, b"answer")).packet();
    let packet = nat.send(&error6(HOST6, &answer, 1, 0, [0; 4])).packet();
    assert_eq!(addresses4(&packet), (POOL, SERVER));
    let stats = nat.engine.stats();
    assert_eq!(stats.from_v6.stateless.get(), 0);
}

/// RFC 7757 §4.2.2, and the errors on such a way.
#[test]
fn eam_4_2_01_mapped_hosts_reach_each_other_by_the_prefix() {
    let mut nat = Nat::new(mapped());
    let to = prefix().embed(HOST4_B);
    let arrived = nat.send(&datagram6(HOST6, to, b"hello")).packet();
    assert_eq!(addresses6(&arrived), (prefix().embed(HOST4), HOST6_B));
    assert_eq!(arrived[48..], *b"hello");
    let stats = nat.engine.stats();
    assert_eq!(stats.from_v6.turned_around.get(), 1);
    // The receiver's error, and a router's.
    for (from, seen) in [(HOST6_B, HOST4_B), (ROUTER6, POOL)] {
        let error = nat.send(&error6(from, &arrived, 1, 4, [0; 4])).packet();
        assert_eq!(addresses6(&error), (prefix().embed(seen), HOST6));
        let inner = Ipv6::new_embedded(&error[48..]).unwrap();
        assert_eq!((inner.src(), inner.dst()), (HOST6, to));
    }
}

/// A client reaches a mapped host, and the host the client, through the pool.
#[test]
fn eam_4_2_01_clients_reach_mapped_hosts() {
    let mut nat = Nat::new(mapped());
    let request = udp6((CLIENT, 5000), (HOST4, 53), b"question");
    let arrived = nat.send(&request).packet();
    assert_eq!(addresses6(&arrived), (prefix().embed(POOL), HOST6));
    assert_eq!((nat.bindings(), nat.sessions()), (1, 1));
    // The answer comes to the pool, and is turned around there; in parts it is put together.
    for data in [vec![7; 6], vec![7; 3000]] {
        let answer = udp6((HOST6, 53), (POOL, 5000), &data);
        let parts = in_fragments6(&answer, 99);
        let sent = if data.len() == 6 { vec![answer] } else { parts };
        let arrived: Vec<_> = sent
            .iter()
            .flat_map(|it| nat.send(it).into_packets())
            .collect();
        let mut payload = Vec::new();
        for packet in &arrived {
            let header = Ipv6::new_checked(packet).unwrap();
            assert_eq!(
                (header.src(), header.dst()),
                (prefix().embed(HOST4), CLIENT)
            );
            let at = if arrived.len() == 1 { 40 } else { 48 };
            payload.extend_from_slice(&packet[at..]);
        }
        let ends = Pair::V6(prefix().embed(HOST4), CLIENT);
        assert_eq!(payload, compose::udp(ends, 53, 5000, &data));
    }
    // To a port that no client has, nothing comes; the host is told as anybody.
    let nobody = nat.send(&udp6((HOST6, 53), (POOL, 5001), b"?"));
    assert!(
        matches!(nobody, Fate::Dropped(_) | Fate::Replied(..)),
        "{nobody:?}"
    );
    // The client's error about it reaches the host.
    let answer = nat.send(&udp6((HOST6, 53), (POOL, 5000), b"late")).packet();
    let error = nat.send(&error6(CLIENT, &answer, 1, 4, [0; 4])).packet();
    assert_eq!(addresses6(&error), (prefix().embed(POOL), HOST6));
}

/// What is told to somebody whose packet was turned around comes in his family.
#[test]
fn eam_4_2_01_the_hop_limit_may_end_on_the_way_around() {
    for sender in [HOST6, CLIENT] {
        let mut nat = Nat::new(mapped());
        let to = prefix().embed(HOST4_B);
        let datagram = compose::udp(Pair::V6(sender, to), 5000, 53, b"x");
        let mut packet = V6::new(sender, to, 17).carrying(&datagram);
        packet[7] = 2;
        let Fate::Replied(why, error) = nat.send(&packet) else {
            panic!("no reply");
        };
        assert_eq!(why, Why::Translation(xlat::DropReason::HopLimitExceeded));
        assert_eq!(addresses6(&error), (prefix().embed(POOL), sender));
        assert_eq!((error[40], error[41]), (3, 0));
        let inner = Ipv6::new_embedded(&error[48..]).unwrap();
        assert_eq!((inner.src(), inner.dst()), (sender, to));
    }
}

/// Fragments pass one by one, but for ICMP; what was put together is fragmented again.
#[test]
fn eam_3_3_01_fragments_of_mapped_hosts() {
    let mut nat = Nat::new(mapped());
    let data = vec![7; 3000];
    let fragments = in_fragments6(&udp6((HOST6, 5000), (SERVER, 53), &data), 99);
    for fragment in &fragments {
        let packet = nat.send(fragment).packet();
        let header = Ipv4::new_checked(&packet).unwrap();
        assert_eq!((header.src(), header.id()), (HOST4, 99));
    }
    let dst = prefix().embed(SERVER);
    let echo = compose::icmp6(HOST6, dst, 128, 0, [0, 7, 0, 1], &data);
    let fragments = in_fragments6(&V6::new(HOST6, dst, 58).carrying(&echo), 5);
    let mut fates = fragments.iter().map(|it| nat.send(it));
    let kept = fates.by_ref().take(fragments.len() - 1);
    assert!(kept.map(Fate::into_packets).all(|it| it.is_empty()));
    let pieces = fates.next().unwrap().into_packets();
    assert_eq!(pieces.len(), 3);
    let id = |it: &Vec<u8>| Ipv4::new_checked(it).unwrap().id();
    assert!(pieces.iter().all(|it| id(it) == 5), "it is the host's own");
    let echo: Vec<u8> = pieces.iter().flat_map(|it| it[20..].to_vec()).collect();
    assert_eq!(compose::checksum(&[&echo]), 0);

    let message = compose::icmp4(8, 0, [0, 7, 0, 1], &data);
    let first = V4 {
        mf: true,
        ..V4::new(SERVER, HOST4, 1)
    };
    let second = V4 {
        offset: 1480 / 8,
        ..V4::new(SERVER, HOST4, 1)
    };
    let kept = nat.send(&first.carrying(&message[..1480])).into_packets();
    assert_eq!(kept.len(), 0);
    let pieces = nat.send(&second.carrying(&message[1480..])).into_packets();
    assert_eq!(pieces.len(), 3);
    assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
}

/// A client's fragments are put together for its port, and fragmented again for the host.
#[test]
fn eam_4_2_01_large_datagrams_are_turned_around() {
    let data = vec![7; 3000];
    for (sender, sent) in [(CLIENT, POOL), (HOST6, HOST4)] {
        let mut nat = Nat::new(mapped());
        let to = prefix().embed(HOST4_B);
        let whole = udp6((sender, 5000), (HOST4_B, 53), &data);
        let fates: Vec<_> = in_fragments6(&whole, 99)
            .iter()
            .flat_map(|it| nat.send(it).into_packets())
            .collect();
        let mut datagram = Vec::new();
        for packet in &fates {
            let header = Ipv6::new_checked(packet).unwrap();
            assert_eq!(
                (header.src(), header.dst()),
                (prefix().embed(sent), HOST6_B)
            );
            assert!(packet.len() <= 1280, "{}", packet.len());
            datagram.extend_from_slice(&packet[48..]);
        }
        assert_eq!(datagram[8..], data, "{to}");
        let from = prefix().embed(sent);
        let expected = compose::udp(Pair::V6(from, HOST6_B), 5000, 53, &data);
        assert_eq!(datagram, expected);
    }
}

/// A mapping makes nobody a way into the PLAT's own networks; but what the table itself names is
/// meant.
#[test]
fn mapped_hosts_are_refused_special_destinations() {
    let private = Eam::parse("10.1.1.1", "2001:db8:aaaa::a").unwrap();
    let host = Eam::single(HOST4, HOST6);
    let mut config = Config {
        eam: EamTable::new(vec![host, private]).unwrap(),
        ..config()
    };
    config.own_addresses = vec![SERVER2];
    let mut nat = Nat::new(config);
    for refused in ["10.0.0.1", "127.0.0.1", "169.254.169.254", "9.9.9.9"] {
        for sender in [HOST6, CLIENT] {
            let packet = udp6((sender, 5000), (refused.parse().unwrap(), 53), b"x");
            let told = (Why::State(DropReason::DestinationRefused), 1, 1);
            assert_eq!(nat.send(&packet).reply(), told, "{refused}");
        }
    }
    for sender in [HOST6, CLIENT] {
        let packet = udp6((sender, 5000), (Ipv4Addr::new(10, 1, 1, 1), 53), b"x");
        let arrived = nat.send(&packet).packet();
        assert_eq!(
            addresses6(&arrived).1,
            "2001:db8:aaaa::a".parse::<Ipv6Addr>().unwrap()
        );
    }
}

/// The table says who may: a mapped host need not be among the clients, and is no client by it.
#[test]
fn mapped_hosts_are_admitted_by_the_table() {
    let mut nat = Nat::new(Config {
        clients: vec!["2001:db8:1:1::/64".parse().unwrap()],
        ..mapped()
    });
    let out = nat.send(&udp6((HOST6, 5000), (SERVER, 53), b"x")).packet();
    assert_eq!(addresses4(&out), (HOST4, SERVER));
    let stranger: Ipv6Addr = "2001:db8:aaaa::99".parse().unwrap();
    let refused = nat.send(&udp6((stranger, 5000), (SERVER, 53), b"x"));
    assert_eq!(refused.reply().0, Why::State(DropReason::ClientRefused));
    assert_eq!(nat.udp((CLIENT, 5000), (SERVER, 53)), (POOL, 5000));
}

/// The loop guard holds for everybody.
#[test]
fn plat_3_5_01_a_mapping_is_no_way_past_the_loop_guard() {
    let mut nat = Nat::new(mapped());
    let src = prefix().embed(HOST4);
    let looped = nat.send(&datagram6(src, prefix().embed(SERVER), b"x"));
    assert_eq!(looped, dropped(DropReason::LoopGuard));
    // What nobody has is in nobody's pool.
    let unknown = udp4((SERVER, 53), (Ipv4Addr::new(192, 88, 1, 9), 5000), b"x");
    assert_eq!(nat.send(&unknown), dropped(DropReason::NotInPool));
}

/// An address means one thing.
#[test]
fn eam_5_01_mappings_that_contradict_pool_or_prefix_are_refused() {
    let table = |v4, v6| EamTable::new(vec![Eam::parse(v4, v6).unwrap()]).unwrap();
    let refused = |v4, v6| {
        let config = Config {
            eam: table(v4, v6),
            ..config()
        };
        config.check().unwrap_err().to_string()
    };
    let text = refused("203.0.113.0/28", "2001:db8:aaaa::/124");
    assert!(text.contains("203.0.113.1 is in the pool"), "{text}");
    for inside in ["2001:db8:64::7", "2001:db8::/32"] {
        let text = refused("192.88.1.7", inside);
        assert!(text.contains("prefix 2001:db8:64::/96"), "{text}");
    }
    for unusable in ["127.0.0.1", "224.0.0.1", "255.255.255.255"] {
        let text = refused(unusable, "2001:db8:aaaa::7");
        assert!(text.contains("no router passes on"), "{text}");
    }
    assert_eq!(mapped().check(), Ok(()));
}

/// Nobody answers the SYN of a mapped host to a port of the pool: it is told in IPv6, at once.
#[test]
fn eam_4_2_01_a_mapped_host_is_told_of_an_unanswered_syn() {
    let mut nat = Nat::new(mapped());
    let syn = tcp6((HOST6, 5000), (POOL, 40_000), SYN);
    assert_eq!(nat.send(&syn), Fate::Forwarded(Vec::new()));
    nat.wait(7);
    let mut buf = PacketBuf::new();
    assert_eq!(nat.engine.poll_transmit(&mut buf, nat.now), Transmit::Send);
    assert_eq!(addresses6(buf.bytes()), (prefix().embed(POOL), HOST6));
    assert_eq!(buf.bytes()[40..42], [1, 4]);
    assert_eq!(buf.bytes()[56..88], syn[8..40]);
    assert_eq!(
        nat.engine.poll_transmit(&mut buf, nat.now),
        Transmit::Nothing
    );
}
