//! The TCP state machine (RFC 6146 §3.5.2).
//!
//! | state | IPv6 SYN | IPv4 SYN | IPv6 FIN | IPv4 FIN | RST | other | expiry |
//! |---|---|---|---|---|---|---|---|
//! | V6 INIT | =, TRANS | ESTABLISHED, EST | = | = | = | = | gone |
//! | V4 INIT | ESTABLISHED, EST | = | = | = | = | = | gone |
//! | ESTABLISHED | =, EST | =, EST | V6 FIN | V4 FIN | TRANS, TRANS | =, EST | TRANS, TRANS |
//! | V4 FIN | =, EST | =, EST | V4+V6 FIN, TRANS | =, EST | =, TRANS | =, EST | gone |
//! | V6 FIN | =, EST | =, EST | =, EST | V4+V6 FIN, TRANS | =, TRANS | =, EST | gone |
//! | V4+V6 FIN | V6 INIT, TRANS | = | = | = | = | = | gone |
//! | TRANS | EST, EST | EST, EST | EST, EST | EST, EST | = | EST, EST | gone |
//!
//! `=` keeps the state; a lifetime behind the comma is set, else it stays. A RST in a FIN state
//! shortens the lifetime, where the text of the RFC would leave two hours (PLAT-3.5.2-03). A client's
//! SYN after both FINs begins a connection anew, which would otherwise be cut off when the old one's
//! lifetime is over.

use wire::transport::tcp::{FIN, RST, SYN};

/// The state of a TCP session. CLOSED is the absence of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TcpState {
    /// The server sent a SYN.
    V4Init,
    /// The client sent a SYN.
    V6Init,
    /// Both sent a SYN.
    Established,
    /// The server sent a FIN.
    V4Fin,
    /// The client sent a FIN.
    V6Fin,
    /// Both sent a FIN.
    V4V6Fin,
    /// A RST was seen, or nothing for two hours: it ends soon unless data follow.
    Trans,
}

/// Which side a packet came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The client's.
    V6,
    /// The server's.
    V4,
}

/// What a segment means to the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// SYN, with or without ACK.
    Syn,
    /// FIN.
    Fin,
    /// RST.
    Rst,
    /// Anything else.
    Other,
}

impl Segment {
    /// By the flags of a TCP header. RST outweighs the others, SYN outweighs FIN.
    #[must_use]
    pub fn of(flags: u8) -> Self {
        if flags & RST != 0 {
            Self::Rst
        } else if flags & SYN != 0 {
            Self::Syn
        } else if flags & FIN != 0 {
            Self::Fin
        } else {
            Self::Other
        }
    }
}

/// What happens to a session's lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lifetime {
    /// It runs on.
    Keep,
    /// It starts again at TCP_EST.
    Established,
    /// It starts again at TCP_TRANS.
    Transitory,
}

impl TcpState {
    /// All states.
    pub const ALL: [Self; 7] = [
        Self::V4Init,
        Self::V6Init,
        Self::Established,
        Self::V4Fin,
        Self::V6Fin,
        Self::V4V6Fin,
        Self::Trans,
    ];

    /// The state and lifetime after a segment.
    #[must_use]
    pub fn after(self, side: Side, segment: Segment) -> (Self, Lifetime) {
        use Lifetime::{Established as Est, Keep, Transitory};
        match (self, side, segment) {
            (Self::V6Init, Side::V4, Segment::Syn) => (Self::Established, Est),
            (Self::V6Init, Side::V6, Segment::Syn) => (Self::V6Init, Transitory),
            (Self::V6Init, _, _) => (Self::V6Init, Keep),

            (Self::V4Init, Side::V6, Segment::Syn) => (Self::Established, Est),
            (Self::V4Init, _, _) => (Self::V4Init, Keep),

            (Self::Established, Side::V4, Segment::Fin) => (Self::V4Fin, Keep),
            (Self::Established, Side::V6, Segment::Fin) => (Self::V6Fin, Keep),
            (Self::Established, _, Segment::Rst) => (Self::Trans, Transitory),
            (Self::Established, _, _) => (Self::Established, Est),

            (Self::V4Fin, Side::V6, Segment::Fin) | (Self::V6Fin, Side::V4, Segment::Fin) => {
                (Self::V4V6Fin, Transitory)
            }
            (Self::V4Fin | Self::V6Fin, _, Segment::Rst) => (self, Transitory),
            (Self::V4Fin | Self::V6Fin, _, _) => (self, Est),

            (Self::V4V6Fin, Side::V6, Segment::Syn) => (Self::V6Init, Transitory),
            (Self::V4V6Fin, _, _) => (Self::V4V6Fin, Keep),

            (Self::Trans, _, Segment::Rst) => (Self::Trans, Keep),
            (Self::Trans, _, _) => (Self::Established, Est),
        }
    }

    /// The state after the lifetime ran out; `None` ends the session.
    #[must_use]
    pub fn after_expiry(self) -> Option<Self> {
        match self {
            Self::Established => Some(Self::Trans),
            Self::V4Init
            | Self::V6Init
            | Self::V4Fin
            | Self::V6Fin
            | Self::V4V6Fin
            | Self::Trans => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::transport::tcp::{ACK, PSH};

    /// Every state, side and segment: the table above, as a table.
    #[test]
    fn plat_3_5_2_01_the_whole_state_machine() {
        let mut rows = Vec::new();
        for state in TcpState::ALL {
            for side in [Side::V6, Side::V4] {
                for segment in [Segment::Syn, Segment::Fin, Segment::Rst, Segment::Other] {
                    let (next, lifetime) = state.after(side, segment);
                    rows.push(format!(
                        "{state:?} {side:?} {segment:?} > {next:?} {lifetime:?}"
                    ));
                }
            }
            rows.push(format!("{state:?} expiry > {:?}", state.after_expiry()));
        }
        assert_eq!(rows.join("\n"), include_str!("tcp/table.txt").trim_end());
    }

    #[test]
    fn segments_by_their_flags() {
        for (flags, wanted) in [
            (SYN, Segment::Syn),
            (SYN | ACK, Segment::Syn),
            (FIN | ACK, Segment::Fin),
            (RST, Segment::Rst),
            (RST | ACK | SYN | FIN, Segment::Rst),
            (SYN | FIN, Segment::Syn),
            (ACK | PSH, Segment::Other),
            (0, Segment::Other),
        ] {
            assert_eq!(Segment::of(flags), wanted);
        }
    }
}
