//! What must hold of every packet that leaves, whatever came in.

use sim::inspect::{self, Seen};
use wire::{
    offload::{ChecksumState, Offload},
    packet::PacketBuf,
    pieces::Pieces,
    verdict::Verdict,
};

/// Pieces that are looked at. A super-segment of one-byte segments has tens of thousands.
const LOOKED_AT: usize = 64;

/// The longest ICMP errors (RFC 1812 §4.3.2.3, RFC 4443 §2.4 c).
const LONGEST_ERROR: [(u8, usize); 2] = [(4, 576), (6, 1280)];

/// A packet before it is handed over.
pub(crate) struct Before {
    /// Nothing is wrong with it, and nothing is left to do for it.
    is_right: bool,
}

impl Before {
    pub(crate) fn of(buf: &PacketBuf) -> Self {
        let is_right = buf.offload == Offload::default()
            && Seen::read(buf.bytes()).is_ok_and(|it| it.transport_is_right() == Some(true));
        Self { is_right }
    }

    /// Checks what has become of the packet. Nothing may be longer than `mtu`.
    pub(crate) fn check<R>(&self, buf: &mut PacketBuf, verdict: Verdict<R>, mtu: usize) {
        match verdict {
            Verdict::Forward(pieces) => self.check_pieces(buf, pieces, mtu),
            Verdict::Reply(_) => check_error(buf.bytes()),
            Verdict::Drop(_) => {}
        }
    }

    fn check_pieces(&self, buf: &mut PacketBuf, mut pieces: Pieces, mtu: usize) {
        for _ in 0..LOOKED_AT {
            if !pieces.next(buf) {
                break;
            }
            let packet = buf.bytes();
            let seen = Seen::read(packet).unwrap_or_else(|why| panic!("{why}: {packet:02x?}"));
            if buf.offload.gso.is_none() {
                assert!(packet.len() <= mtu, "{} bytes > {mtu}", packet.len());
            }
            if let ChecksumState::Partial { start, field } = buf.offload.checksum {
                let end = usize::from(start) + usize::from(field) + 2;
                assert!(end <= packet.len(), "a checksum behind the packet");
            } else if self.is_right {
                assert_ne!(seen.transport_is_right(), Some(false), "{packet:02x?}");
            }
        }
    }
}

/// Checks a packet that is sent as it is, checksums and all.
pub(crate) fn check_whole(packet: &[u8]) {
    inspect::right(packet).unwrap_or_else(|why| panic!("{why}: {packet:02x?}"));
}

fn check_error(packet: &[u8]) {
    check_whole(packet);
    let longest = LONGEST_ERROR
        .into_iter()
        .find(|(version, _)| *version == packet[0] >> 4);
    assert!(longest.is_some_and(|(_, longest)| packet.len() <= longest));
}
