//! Packets that somebody wants to look at.

use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::rows::Protocol;
use crate::network::Match;

/// Which packets are meant. What is absent does not matter.
///
/// A packet is looked at together with what became of it: an IPv6 packet and the IPv4 packets that
/// it left as are captured together, or neither. An ICMP error is also looked at as the packet that
/// it quotes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureFilter {
    /// The protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The client's address and port, on the IPv6 side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Match>,
    /// The server's address and port; it may be written as clients see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Match>,
    /// A port (or identifier) of anybody's, on either side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Only packets that did not pass.
    #[serde(default)]
    pub dropped: bool,
}

/// Two ends of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The protocol, if it is one that has bindings.
    pub protocol: Option<Protocol>,
    /// Where it comes from. The port is 0 if there is none.
    pub src: SocketAddr,
    /// Where it goes.
    pub dst: SocketAddr,
}

impl CaptureFilter {
    /// Whether a packet that arrived cannot be meant, whatever becomes of it.
    #[must_use]
    pub fn excludes(&self, arrived: &[Ends]) -> bool {
        !(self.fits_protocol(arrived) && fits(self.remote, arrived))
    }

    /// Whether packets are meant that belong together. `dropped` is whether they did not pass.
    #[must_use]
    pub fn wants(&self, all: &[Ends], dropped: bool) -> bool {
        let has_port = |port| {
            let mut ports = all.iter().flat_map(|it| [it.src.port(), it.dst.port()]);
            ports.any(|it| it == port)
        };
        self.fits_protocol(all)
            && fits(self.client, all)
            && fits(self.remote, all)
            && self.port.is_none_or(has_port)
            && (dropped || !self.dropped)
    }

    fn fits_protocol(&self, all: &[Ends]) -> bool {
        let has = |wanted| all.iter().any(|it| it.protocol == Some(wanted));
        self.protocol.is_none_or(has)
    }
}

fn fits(wanted: Option<Match>, all: &[Ends]) -> bool {
    let has = |wanted: Match| {
        let mut ends = all.iter().flat_map(|it| [it.src, it.dst]);
        ends.any(|it| wanted.contains(it))
    };
    wanted.is_none_or(has)
}

/// What somebody wants to capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureWanted {
    /// Which packets.
    #[serde(default)]
    pub filter: CaptureFilter,
    /// Bytes of each packet, at most.
    pub snaplen: u32,
    /// It ends after so many packets.
    #[serde(default)]
    pub count: Option<u64>,
    /// It ends after so many seconds.
    #[serde(default)]
    pub seconds: Option<u32>,
}

/// A side of the NAT64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The clients'.
    V6,
    /// The servers'.
    V4,
}

/// A packet, as much of it as was wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedPacket {
    /// When, in nanoseconds since 1970-01-01 UTC.
    pub at: u64,
    /// On which side.
    pub side: Side,
    /// Whether it left; otherwise it arrived.
    pub outbound: bool,
    /// How long it was.
    pub len: u32,
    /// Its first bytes, in hexadecimal digits.
    pub bytes: String,
    /// What became of it, unless it simply passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    let digit = |it: u8| char::from_digit(it.into(), 16).unwrap_or_default();
    let pairs = bytes.iter().flat_map(|it| [digit(it >> 4), digit(it & 15)]);
    pairs.collect()
}

/// The bytes that hexadecimal digits stand for; nothing if they are none.
#[must_use]
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |it: &u8| char::from(*it).to_digit(16);
    let byte = |pair: &[u8]| {
        let [high, low] = pair else {
            return None;
        };
        u8::try_from(digit(high)? << 4 | digit(low)?).ok()
    };
    text.as_bytes().chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ends(protocol: Protocol, src: &str, dst: &str) -> Ends {
        Ends {
            protocol: Some(protocol),
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
        }
    }

    /// A datagram of a client, as it came, with its server's address read out, and as it left.
    fn passed() -> [Ends; 3] {
        [
            ends(Protocol::Udp, "[2001:db8::1]:5000", "[64:ff9b::808:808]:53"),
            ends(Protocol::Udp, "[2001:db8::1]:5000", "8.8.8.8:53"),
            ends(Protocol::Udp, "203.0.113.1:6000", "8.8.8.8:53"),
        ]
    }

    fn filter(change: impl Fn(&mut CaptureFilter)) -> CaptureFilter {
        let mut filter = CaptureFilter::default();
        change(&mut filter);
        filter
    }

    #[test]
    fn every_part_of_a_filter_counts() {
        let wants = |change: fn(&mut CaptureFilter)| filter(change).wants(&passed(), false);
        assert!(wants(|_| {}));
        assert!(wants(|it| it.protocol = Some(Protocol::Udp)));
        assert!(!wants(|it| it.protocol = Some(Protocol::Tcp)));
        assert!(wants(|it| it.client = "2001:db8::/64".parse().ok()));
        assert!(!wants(|it| it.client = "2001:db8:1::/64".parse().ok()));
        assert!(wants(|it| it.remote = "8.8.8.8:53".parse().ok()));
        assert!(!wants(|it| it.remote = "8.8.8.8:54".parse().ok()));
        assert!(wants(|it| it.port = Some(6000)));
        assert!(!wants(|it| it.port = Some(6001)));
        assert!(!wants(|it| it.dropped = true));
        assert!(filter(|it| it.dropped = true).wants(&passed(), true));
    }

    /// Only what no outcome could make meant.
    #[test]
    fn what_can_still_be_meant_is_not_excluded() {
        let excludes =
            |change: fn(&mut CaptureFilter), arrived: &[Ends]| filter(change).excludes(arrived);
        let from_client = &passed()[..2];
        assert!(excludes(
            |it| it.remote = "8.8.4.4".parse().ok(),
            from_client
        ));
        assert!(excludes(
            |it| it.protocol = Some(Protocol::Icmp),
            from_client
        ));
        assert!(!excludes(|it| it.port = Some(6000), from_client));
        assert!(!excludes(|it| it.dropped = true, from_client));
        // It may be turned around, to that client.
        assert!(!excludes(
            |it| it.client = "2001:db8::2".parse().ok(),
            from_client
        ));
        // Whose an answer is shows only when it leaves.
        let answer = [ends(Protocol::Udp, "8.8.8.8:53", "203.0.113.1:6000")];
        assert!(!excludes(
            |it| it.client = "2001:db8::2".parse().ok(),
            &answer
        ));
        assert!(excludes(|it| it.remote = "8.8.4.4".parse().ok(), &answer));
    }

    #[test]
    fn only_digits_are_bytes() {
        assert_eq!(to_hex(&[0, 0x1f, 0xff]), "001fff");
        assert_eq!(from_hex("001fFF"), Some(vec![0, 0x1f, 0xff]));
        for text in ["0", "0g", "+1", "0x", "äb"] {
            assert_eq!(from_hex(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn bytes_survive(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(from_hex(&to_hex(&bytes)), Some(bytes));
        }
    }
}
