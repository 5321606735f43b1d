//! Which resets and ends of a TCP connection are believed (RFC 6146 §5.2).
//!
//! Who is not on the path does not know the sequence numbers of a connection. Were its resets
//! believed, it could shorten the life of every connection through the NAT64 from two hours to four
//! minutes. So for each side the NAT64 remembers how far its sequence numbers have come, which
//! costs a session 10 bytes; a RST or FIN that lies further than [`WINDOW`] from there changes no
//! state. It is passed on: the endpoint knows better (RFC 5961 §3).
//!
//! The real window of a connection would need its scale, its acknowledgments and more memory. A
//! true reset that lies outside of this one (it overtook more than 64 KiB) leaves the session as
//! it is, for two idle hours at most.

use crate::tcp::{Segment, Side};

/// How far a sequence number may lie from the last one, either way.
pub(crate) const WINDOW: u32 = 1 << 16;

/// The most that is under way at once: the window of a fast and far connection.
const FLIGHT: u32 = 1 << 24;

/// What a NAT64 reads of a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) segment: Segment,
    pub(crate) seq: u32,
    /// How many numbers it uses: its bytes, and one for SYN and FIN each.
    pub(crate) len: u32,
    /// What it acknowledges.
    pub(crate) ack: Option<u32>,
}

/// The next sequence number of each side, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sequence {
    next: [Number; 2],
    known: [bool; 2],
}

/// A sequence number at any address in memory: a session has no byte for alignment.
#[derive(Clone, Copy, Debug, Default)]
struct Number([u8; 4]);

impl Number {
    fn get(self) -> u32 {
        u32::from_ne_bytes(self.0)
    }

    /// Forward only, and no further than a sender can be ahead.
    fn advance(&mut self, to: u32) {
        if to.wrapping_sub(self.get()) <= FLIGHT {
            *self = to.into();
        }
    }
}

impl From<u32> for Number {
    fn from(number: u32) -> Self {
        Self(number.to_ne_bytes())
    }
}

const fn index(side: Side) -> (usize, usize) {
    match side {
        Side::V6 => (0, 1),
        Side::V4 => (1, 0),
    }
}

impl Sequence {
    /// Whether a segment of `side` is where that side is.
    pub(crate) fn believes(&self, side: Side, header: &Header) -> bool {
        let (own, _) = index(side);
        !self.known[own] || is_near(header.seq, self.next[own].get())
    }

    /// Follows a segment of `side`.
    pub(crate) fn follow(&mut self, side: Side, header: &Header) {
        let (own, peer) = index(side);
        if !self.known[own] || self.begins_anew(side, header) {
            self.next[own] = header.seq.into();
            self.known[own] = true;
        }
        // What a stranger invents moves nothing.
        if !is_near(header.seq, self.next[own].get()) || header.segment == Segment::Rst {
            return;
        }
        self.next[own].advance(header.seq.wrapping_add(header.len));
        // What its peer has received, the peer has sent, even what was not seen here.
        if let Some(ack) = header.ack.filter(|_| self.known[peer]) {
            self.next[peer].advance(ack);
        }
    }

    /// A SYN has a number of its own choice: the client's, and one that answers the client's.
    fn begins_anew(&self, side: Side, header: &Header) -> bool {
        let answers = || {
            header
                .ack
                .is_some_and(|ack| is_near(ack, self.next[0].get()))
        };
        header.segment == Segment::Syn && (side == Side::V6 || answers())
    }
}

fn is_near(one: u32, other: u32) -> bool {
    let distance = one.wrapping_sub(other).min(other.wrapping_sub(one));
    distance <= WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(segment: Segment, seq: u32, len: u32, ack: Option<u32>) -> Header {
        Header {
            segment,
            seq,
            len,
            ack,
        }
    }

    fn opened() -> Sequence {
        let mut sequence = Sequence::default();
        let near_the_end = u32::MAX - 10;
        sequence.follow(Side::V6, &header(Segment::Syn, near_the_end, 1, None));
        let answer = header(Segment::Syn, 5_000_000, 1, Some(near_the_end + 1));
        sequence.follow(Side::V4, &answer);
        sequence
    }

    fn reset(seq: u32) -> Header {
        header(Segment::Rst, seq, 0, None)
    }

    #[test]
    fn plat_3_5_2_2_01_resets_are_believed_where_the_connection_is() {
        let mut sequence = opened();
        assert!(sequence.believes(Side::V4, &reset(5_000_001)));
        assert!(sequence.believes(Side::V4, &reset(5_000_001 + WINDOW)));
        assert!(!sequence.believes(Side::V4, &reset(5_000_002 + WINDOW)));
        assert!(sequence.believes(Side::V4, &reset(5_000_001 - WINDOW)));
        assert!(!sequence.believes(Side::V4, &reset(5_000_000 - WINDOW)));
        // Over the end of the numbers.
        sequence.follow(
            Side::V6,
            &header(Segment::Other, u32::MAX - 9, 60_000, None),
        );
        assert!(sequence.believes(Side::V6, &reset(59_990)));
        assert!(!sequence.believes(Side::V6, &reset(59_991 + WINDOW)));
    }

    /// Whatever a stranger sends first, its reset is not believed afterwards.
    #[test]
    fn plat_3_5_2_2_01_a_stranger_moves_nothing() {
        let far = 900_000_000;
        for invented in [
            header(Segment::Other, far, 1000, None),
            header(Segment::Syn, far, 1, None),
            header(Segment::Syn, far, 1, Some(far)),
            header(Segment::Fin, far, 1, Some(far)),
            reset(far),
        ] {
            let mut sequence = opened();
            sequence.follow(Side::V4, &invented);
            assert!(!sequence.believes(Side::V4, &reset(far)), "{invented:?}");
            assert!(sequence.believes(Side::V4, &reset(5_000_001)));
            let other = header(Segment::Other, far, 0, Some(far));
            sequence.follow(Side::V4, &other);
            assert!(!sequence.believes(Side::V6, &reset(far)));
        }
    }

    /// Nor does a reset that is believed: one after the other would lead anywhere.
    #[test]
    fn plat_3_5_2_2_01_a_reset_moves_nothing() {
        let mut sequence = opened();
        sequence.follow(Side::V4, &reset(5_000_001 + WINDOW));
        assert!(!sequence.believes(Side::V4, &reset(5_000_002 + WINDOW)));
    }

    /// What was lost before it came here is made up for by what the peer acknowledges.
    #[test]
    fn plat_3_5_2_2_01_acknowledgments_close_gaps() {
        let mut sequence = opened();
        let far = 5_000_001 + 10 * WINDOW;
        assert!(!sequence.believes(Side::V4, &reset(far)));
        let ack = header(Segment::Other, u32::MAX - 9, 0, Some(far));
        sequence.follow(Side::V6, &ack);
        assert!(sequence.believes(Side::V4, &reset(far)));
    }

    /// The client may use its port again at once.
    #[test]
    fn plat_3_5_2_2_01_a_new_connection_begins_anew() {
        let mut sequence = opened();
        sequence.follow(Side::V6, &header(Segment::Syn, 700_000_000, 1, None));
        let answer = header(Segment::Syn, 800_000_000, 1, Some(700_000_001));
        sequence.follow(Side::V4, &answer);
        assert!(sequence.believes(Side::V6, &reset(700_000_001)));
        assert!(sequence.believes(Side::V4, &reset(800_000_001)));
    }
}
