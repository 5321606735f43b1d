//! What is told in numbers, and by which name (OBS-01).

use super::*;
use crate::{
    engine::WaitingBytes,
    stats::{DirectionStats, Stats},
};

/// What the threshold of memory is reckoned with: every stored SYN and every fragment, of both sides,
/// until it is over.
#[test]
fn obs_01_what_waits_is_counted_in_bytes() {
    let mut nat = Nat::new(config());
    assert_eq!(nat.engine.waiting_bytes(), WaitingBytes::default());
    let syn = tcp4((SERVER, 443), (POOL, 40_000), SYN);
    assert_eq!(nat.send(&syn), Fate::Forwarded(Vec::new()));
    let waiting = nat.engine.waiting_bytes();
    assert_eq!((waiting.stored_syns, waiting.fragments), (syn.len(), 0));
    let parts = in_fragments6(&udp6((CLIENT, 5000), (SERVER, 53), &[7; 3000]), 1);
    assert_eq!(nat.send(&parts[0]), Fate::Forwarded(Vec::new()));
    let of_clients = nat.engine.waiting_bytes().fragments;
    assert!(of_clients >= parts[0].len() - 48, "{of_clients}");
    let mut header = V4::new(SERVER, POOL, 17);
    (header.id, header.mf) = (7, true);
    nat.send(&header.carrying(&[0; 800]));
    assert!(nat.engine.waiting_bytes().fragments >= of_clients + 800);
    nat.wait(8);
    // The SYN's server is told.
    let sent = nat.engine.poll_transmit(&mut PacketBuf::new(), nat.now);
    assert_eq!(sent, Transmit::Send);
    assert_eq!(nat.engine.waiting_bytes(), WaitingBytes::default());
}

/// Each way the header is 20 bytes longer or shorter; what does not pass does not go out.
#[test]
fn obs_01_bytes_are_counted_in_and_out() {
    let mut nat = Nat::new(config());
    nat.send(&udp6((CLIENT, 5000), (SERVER, 53), &[7; 100]))
        .packet();
    nat.send(&udp4((SERVER, 53), (POOL, 5000), &[7; 100]))
        .packet();
    nat.send(&udp4((SERVER, 53), (POOL, 1), &[7; 100]));
    let stats = nat.engine.stats();
    let of = |it: &DirectionStats| (it.bytes_in.get(), it.bytes_out.get());
    assert_eq!(of(&stats.from_v6), (148, 128));
    assert_eq!(of(&stats.from_v4), (2 * 128, 148));
    // In fragments: as it was before it was divided.
    nat.send(&udp4((SERVER, 53), (POOL, 5000), &[7; 1400]));
    assert_eq!(of(&stats.from_v4), (2 * 128 + 1428, 148 + 1448));
    let sum = Stats::sum([&stats, &stats]);
    assert_eq!(of(&sum.from_v6), (296, 256));
}

/// A client with an address stays on it, and its ports run out; another one finds no address.
#[test]
fn obs_01_addresses_and_ports_run_out_by_two_names() {
    let mut config = config();
    config.pool[0].ports = PortRange::new(2000, 2001).unwrap().into();
    let mut nat = Nat::new(config);
    nat.udp((CLIENT, 2000), (SERVER, 53));
    nat.udp((CLIENT, 2001), (SERVER, 53));
    let mut refused = |client| nat.send(&udp6((client, 99), (SERVER, 53), b"x")).reply();
    let why = Why::State(DropReason::PortsExhausted);
    assert_eq!(refused(CLIENT), (why, 1, 3));
    let why = Why::State(DropReason::PoolExhausted);
    assert_eq!(refused(OTHER), (why, 1, 3));
}
