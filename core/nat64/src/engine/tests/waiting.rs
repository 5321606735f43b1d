//! What waits in memory.

use super::*;
use crate::engine::WaitingBytes;

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
