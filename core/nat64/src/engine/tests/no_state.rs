//! A packet that does not pass neither makes nor refreshes state.

use super::*;

/// Nothing is made, and nothing that is there lives longer.
fn leaves_no_state(packet: &[u8], config: &Config) {
    let mut nat = Nat::new(config.clone());
    let fate = nat.send(packet);
    assert!(!matches!(fate, Fate::Forwarded(_)), "{fate:?}");
    assert_eq!((nat.bindings(), nat.sessions()), (0, 0), "made: {fate:?}");
    // With a session of the same ends.
    nat.udp((CLIENT, 5000), (SERVER, 53));
    nat.wait(200);
    let again = nat.send(packet);
    assert!(!matches!(again, Fate::Forwarded(_)), "{again:?}");
    assert_eq!((nat.bindings(), nat.sessions()), (1, 1), "{again:?}");
    nat.wait(102);
    assert_eq!(nat.sessions(), 0, "refreshed: {again:?}");
}

#[test]
fn plat_5_3_01_what_the_translator_refuses_of_clients_leaves_no_state() {
    let mut config = config();
    config.ipv4_mtu = 1300;
    let good = udp6((CLIENT, 5000), (SERVER, 53), b"data");
    let mut no_checksum = good.clone();
    no_checksum[46..48].fill(0);
    leaves_no_state(&no_checksum, &config);
    leaves_no_state(&udp6((CLIENT, 5000), (SERVER, 53), &[0; 1400]), &config);
    let dst = prefix().embed(SERVER);
    let mut last_hop = good;
    last_hop[7] = 1;
    leaves_no_state(&last_hop, &config);
    let cut = V6::new(CLIENT, dst, 17).carrying(&[0x13, 0x88, 0, 53, 0, 8]);
    leaves_no_state(&cut, &config);
}

/// Also when it shows only after its fragments are together.
#[test]
fn plat_5_3_01_reassembled_datagrams_without_checksum_leave_no_state() {
    let mut packet = udp6((CLIENT, 5000), (SERVER, 53), &[0; 2000]);
    packet[46..48].fill(0);
    let mut nat = Nat::new(config());
    let fates: Vec<_> = in_fragments6(&packet, 1)
        .iter()
        .map(|it| nat.send(it))
        .collect();
    let reason = xlat::DropReason::UdpChecksumZeroInIpv6;
    assert_eq!(fates.last(), Some(&Fate::Dropped(Why::Translation(reason))));
    assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
}

/// The same from outside, to a client that takes what comes.
#[test]
fn plat_5_3_01_reassembled_datagrams_of_servers_without_length_leave_no_state() {
    let mut nat = Nat::new(config());
    let outside = nat.udp((CLIENT, 5000), (SERVER, 53));
    let mut packet = udp4((SERVER2, 53), outside, &[0; 2000]);
    packet[24..28].fill(0);
    let part = |offset: u16, mf, chunk: &[u8]| {
        let header = V4 {
            id: 7,
            mf,
            offset,
            ..V4::new(SERVER2, outside.0, 17)
        };
        header.carrying(chunk)
    };
    nat.send(&part(0, true, &packet[20..1020]));
    let fate = nat.send(&part(125, false, &packet[1020..]));
    assert!(
        matches!(fate, Fate::Dropped(Why::Translation(_))),
        "{fate:?}"
    );
    assert_eq!((nat.bindings(), nat.sessions()), (1, 1));
}

#[test]
fn plat_5_3_01_what_the_translator_refuses_of_servers_leaves_no_state() {
    let config = config();
    let from = |server| udp4((server, 53), (POOL, 5000), b"data");
    let mut no_length = from(SERVER);
    no_length[24..28].fill(0);
    leaves_no_state(&no_length, &config);
    let mut large = udp4((SERVER, 53), (POOL, 5000), &[0; 1460]);
    large[6] |= 0x40;
    large[10..12].fill(0);
    let checksum = wire::checksum::Sum::of(&large[..20]).checksum();
    large[10..12].copy_from_slice(&checksum.to_be_bytes());
    leaves_no_state(&large, &config);
    let mut nat = Nat::new(config.clone());
    nat.udp((CLIENT, 5000), (SERVER, 53));
    let (_, kind, code) = nat.send(&large).reply();
    assert_eq!((kind, code), (3, 4));
    // From addresses that no packet can come from.
    for address in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
    ] {
        let packet = from(address.parse().unwrap());
        leaves_no_state(&packet, &config);
        let reason = xlat::DropReason::IllegalSource;
        assert_eq!(nat.send(&packet), Fate::Dropped(Why::Translation(reason)));
    }
}
