//! [`Probe`]: does anything behind the NAT64 answer?
//!
//! That packets are translated does not show that anybody answers. So echo requests with small hop
//! limits go out through the CLAT, toward up to [`MAX_TARGETS`] addresses of the IPv4 internet, one
//! after another and one hop further each, until somebody answers. An answer of a target, or a router of the IPv4 internet at which one of them ended, is
//! proof of the way there and back. It needs no server of our own and asks nothing of anybody that
//! `traceroute` would not.
//!
//! ```text
//! poll_transmit() -> echoes to send      handle(packet) -> Reachable
//! next_timeout() -> when to call again   handle_timeout() -> Unverified
//! ```

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use wire::{
    checksum::Sum,
    icmp::{self, Icmp, v4},
    ipv4::Ipv4,
    protocol,
};

/// The most targets of a probe.
pub const MAX_TARGETS: usize = 3;

/// The largest hop limit: the NAT64 and the first routers behind it are nearer.
pub const MAX_HOPS: u8 = 8;

/// From one target to the next.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// From one hop to the next. Routers limit how many errors they send to a host: all hops at once,
/// and a `traceroute` right after would miss some.
pub const HOP_INTERVAL: Duration = Duration::from_millis(100);

/// Without an answer by then, nothing is known (RFC 7050 §3.2 waits as long for its last one).
pub const TIMEOUT: Duration = Duration::from_secs(3);

/// Whom to ask if nobody says otherwise: root servers of the DNS that are everywhere by anycast
/// (K, L and M).
pub const DEFAULT_TARGETS: [Ipv4Addr; MAX_TARGETS] = [
    Ipv4Addr::new(193, 0, 14, 129),
    Ipv4Addr::new(199, 7, 83, 42),
    Ipv4Addr::new(202, 12, 27, 33),
];

/// The code of a Time Exceeded in transit, not in reassembly.
const IN_TRANSIT: u8 = 0;

/// What a probe has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Somebody in the IPv4 internet answered.
    Reachable {
        /// Who.
        by: Ipv4Addr,
    },
    /// Nobody did, in time.
    Unverified,
}

/// An echo request to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Where to.
    pub target: Ipv4Addr,
    /// How far, in hops.
    pub hop_limit: u8,
    /// The ICMP message.
    pub message: [u8; icmp::HEADER_LEN],
}

/// One probe, from its first packet to its verdict.
#[derive(Clone, Debug)]
pub struct Probe {
    targets: Vec<Ipv4Addr>,
    identifier: u16,
    start: Instant,
    /// How many echo requests were sent.
    sent: usize,
}

/// Whether an address may be asked: never those that stand for the network itself, which are no
/// hosts (RFC 7050 §3.2: the well-known addresses; RFC 7335: the CLAT's own).
#[must_use]
pub fn is_possible_target(address: Ipv4Addr) -> bool {
    let no_host = address.is_unspecified()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.octets()[0] >= 240;
    !no_host && !is_protocol_assignment(address)
}

/// `192.0.0.0/24`: the CLAT, the routers between it and the NAT64, which show as 192.0.0.8, and the
/// well-known addresses.
fn is_protocol_assignment(address: Ipv4Addr) -> bool {
    matches!(address.octets(), [192, 0, 0, _])
}

impl Probe {
    /// A probe of the first [`MAX_TARGETS`] of `targets` that can be asked. The `identifier` should
    /// be random: it tells the answers from others'.
    #[must_use]
    pub fn new(targets: &[Ipv4Addr], identifier: u16, now: Instant) -> Self {
        let possible = targets.iter().copied().filter(|it| is_possible_target(*it));
        Self {
            targets: possible.take(MAX_TARGETS).collect(),
            identifier,
            start: now,
            sent: 0,
        }
    }

    /// The next echo request, if it is time for it.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Echo> {
        let (index, hop_limit, time) = self.next()?;
        if now < time {
            return None;
        }
        self.sent += 1;
        Some(Echo {
            target: self.targets[index],
            hop_limit,
            message: self.message(index, hop_limit),
        })
    }

    /// When to call [`Self::poll_transmit`] and [`Self::handle_timeout`] next.
    #[must_use]
    pub fn next_timeout(&self) -> Instant {
        let next = self.next().map(|(.., time)| time);
        next.unwrap_or(self.start + TIMEOUT)
    }

    /// An ICMP packet has arrived, with its IPv4 header.
    #[must_use]
    pub fn handle(&self, packet: &[u8]) -> Option<Verdict> {
        let packet = Ipv4::new_checked(packet).ok()?;
        let by = packet.src();
        if packet.protocol() != protocol::ICMP || is_protocol_assignment(by) {
            return None;
        }
        let message = packet.payload();
        if Sum::of(message).checksum() != 0 {
            return None;
        }
        let header = Icmp::parse(message)?;
        let is_proof = match header.kind {
            v4::ECHO_REPLY => self.target_of(&header) == Some(by),
            v4::TIME_EXCEEDED if header.code == IN_TRANSIT => {
                self.is_of_ours(message.get(icmp::HEADER_LEN..)?)
            }
            _ => false,
        };
        is_proof.then_some(Verdict::Reachable { by })
    }

    /// The verdict, if it is time for it.
    #[must_use]
    pub fn handle_timeout(&self, now: Instant) -> Option<Verdict> {
        (now >= self.start + TIMEOUT).then_some(Verdict::Unverified)
    }

    /// The next echo request: the place of its target, its hop limit, and its time.
    fn next(&self) -> Option<(usize, u8, Instant)> {
        let hops = usize::from(MAX_HOPS);
        let (index, hop) = (self.sent / hops, self.sent % hops);
        let (target, hop) = (u8::try_from(index).ok()?, u8::try_from(hop).ok()?);
        let time = self.start + INTERVAL * u32::from(target) + HOP_INTERVAL * u32::from(hop);
        (index < self.targets.len()).then_some((index, hop + 1, time))
    }

    /// The sequence number says which target it is, and how far it went.
    fn message(&self, target: usize, hop_limit: u8) -> [u8; icmp::HEADER_LEN] {
        let [i0, i1] = self.identifier.to_be_bytes();
        let target = u8::try_from(target).unwrap_or(u8::MAX);
        let mut header = Icmp {
            kind: v4::ECHO_REQUEST,
            code: 0,
            checksum: 0,
            rest: [i0, i1, target, hop_limit],
        };
        header.checksum = Sum::of(&header.to_bytes()).checksum();
        header.to_bytes()
    }

    /// Whom we asked with the identifier and sequence number of this message.
    fn target_of(&self, echo: &Icmp) -> Option<Ipv4Addr> {
        let [.., target, hop_limit] = echo.rest;
        let hop = usize::from(hop_limit.checked_sub(1)?);
        let number = usize::from(target) * usize::from(MAX_HOPS) + hop;
        let was_sent = hop_limit <= MAX_HOPS && number < self.sent;
        let target = self.targets.get(usize::from(target)).copied();
        target.filter(|_| was_sent && echo.identifier() == self.identifier)
    }

    /// Whether a quoted packet is an echo request of ours.
    fn is_of_ours(&self, quoted: &[u8]) -> bool {
        let Ok(quoted) = Ipv4::new_embedded(quoted) else {
            return false;
        };
        let echo = Icmp::parse(quoted.payload());
        let echo = echo.filter(|it| it.kind == v4::ECHO_REQUEST);
        quoted.protocol() == protocol::ICMP
            && echo.is_some_and(|echo| self.target_of(&echo) == Some(quoted.dst()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wire::ipv4;

    const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);
    const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    const TARGETS: [Ipv4Addr; 2] = [
        Ipv4Addr::new(198, 51, 100, 1),
        Ipv4Addr::new(198, 51, 100, 2),
    ];

    #[expect(clippy::disallowed_methods, reason = "virtual time needs an origin")]
    fn origin() -> Instant {
        Instant::now()
    }

    /// Everything that is sent until `now`.
    fn sent(probe: &mut Probe, now: Instant) -> Vec<Echo> {
        std::iter::from_fn(|| probe.poll_transmit(now)).collect()
    }

    /// A probe that has asked its first target.
    fn probe() -> (Probe, Vec<Echo>, Instant) {
        let start = origin();
        let mut probe = Probe::new(&TARGETS, 0x1234, start);
        let echoes = sent(&mut probe, start + HOP_INTERVAL * 7);
        (probe, echoes, start)
    }

    fn packet(src: Ipv4Addr, dst: Ipv4Addr, message: &[u8]) -> Vec<u8> {
        let total_len = u16::try_from(ipv4::HEADER_LEN + message.len()).unwrap();
        let header = ipv4::Fields {
            tos: 0,
            total_len,
            id: 0,
            dont_fragment: true,
            fragment: ipv4::Fragment::default(),
            ttl: 60,
            protocol: protocol::ICMP,
            src,
            dst,
        };
        [&header.to_bytes()[..], message].concat()
    }

    fn with_checksum(mut message: Vec<u8>) -> Vec<u8> {
        message[2..4].fill(0);
        let checksum = Sum::of(&message).checksum();
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        message
    }

    fn reply(echo: &Echo, from: Ipv4Addr) -> Vec<u8> {
        let mut message = echo.message.to_vec();
        message[0] = v4::ECHO_REPLY;
        packet(from, OWN, &with_checksum(message))
    }

    fn error(kind: u8, code: u8, echo: &Echo, from: Ipv4Addr) -> Vec<u8> {
        let quoted = packet(OWN, echo.target, &echo.message);
        let message = [&[kind, code, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
        packet(from, OWN, &with_checksum(message))
    }

    #[test]
    fn disc_7050_3_2_01_each_target_a_second_apart_and_a_verdict_after_three() {
        let start = origin();
        let mut probe = Probe::new(&TARGETS, 0x1234, start);
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut all = Vec::new();
        while probe.next_timeout() < at(3000) {
            let time = probe.next_timeout();
            assert_eq!(probe.poll_transmit(time - Duration::from_millis(1)), None);
            let echo = probe.poll_transmit(time).unwrap();
            all.push(((time - start).as_millis(), echo));
            assert_eq!(probe.handle_timeout(time), None);
        }
        let seen: Vec<_> = all
            .iter()
            .map(|(time, it)| (*time, it.target, it.hop_limit))
            .collect();
        let hops =
            |start, target| (0..8).map(move |n| (start + u128::from(n) * 100, target, n + 1));
        let wanted: Vec<_> = hops(0, TARGETS[0]).chain(hops(1000, TARGETS[1])).collect();
        assert_eq!(seen, wanted);
        for (at, (_, echo)) in all.iter().enumerate() {
            assert_eq!(Sum::of(&echo.message).checksum(), 0);
            assert!(all[..at].iter().all(|(_, it)| it.message != echo.message));
        }
        assert_eq!(probe.poll_transmit(at(2999)), None);
        assert_eq!(probe.handle_timeout(at(2999)), None);
        assert_eq!(probe.handle_timeout(at(3000)), Some(Verdict::Unverified));
    }

    #[test]
    fn disc_7050_3_2_01_an_answer_from_behind_the_nat64_is_proof() {
        let (probe, echoes, _) = probe();
        for echo in &echoes {
            let by = TARGETS[0];
            assert_eq!(
                probe.handle(&reply(echo, by)),
                Some(Verdict::Reachable { by })
            );
            let expired = error(v4::TIME_EXCEEDED, IN_TRANSIT, echo, ROUTER);
            let by = ROUTER;
            assert_eq!(probe.handle(&expired), Some(Verdict::Reachable { by }));
        }
    }

    /// The CLAT itself answers, and so do the IPv6 routers before the NAT64.
    #[test]
    fn disc_7050_3_2_01_an_answer_from_before_the_nat64_is_none() {
        let (probe, echoes, _) = probe();
        for last in [1, 2, 8, 170] {
            let from = Ipv4Addr::new(192, 0, 0, last);
            let expired = error(v4::TIME_EXCEEDED, IN_TRANSIT, &echoes[0], from);
            assert_eq!(probe.handle(&expired), None, "{from}");
        }
    }

    /// An error may come from the NAT64's own machine, with nothing behind it.
    #[test]
    fn disc_7050_3_2_01_other_messages_are_no_proof() {
        let (probe, echoes, start) = probe();
        let echo = &echoes[3];
        let unreachable = error(v4::UNREACHABLE, 0, echo, ROUTER);
        assert_eq!(probe.handle(&unreachable), None);
        let reassembly = error(v4::TIME_EXCEEDED, 1, echo, ROUTER);
        assert_eq!(probe.handle(&reassembly), None);
        // Another's answer, and one for what was not asked.
        assert_eq!(probe.handle(&reply(echo, ROUTER)), None);
        let others = sent(&mut Probe::new(&TARGETS, 0x4321, start), start);
        assert_eq!(probe.handle(&reply(&others[0], TARGETS[0])), None);
        let expired = error(v4::TIME_EXCEEDED, IN_TRANSIT, &others[0], ROUTER);
        assert_eq!(probe.handle(&expired), None);
        let mut more = probe.clone();
        let later = sent(&mut more, start + INTERVAL);
        assert_eq!(probe.handle(&reply(&later[0], TARGETS[1])), None);
        assert!(more.handle(&reply(&later[0], TARGETS[1])).is_some());
        // A quoted reply is none of ours; neither is one to elsewhere.
        let mut quoted = *echo;
        quoted.message[0] = v4::ECHO_REPLY;
        let expired = error(v4::TIME_EXCEEDED, IN_TRANSIT, &quoted, ROUTER);
        assert_eq!(probe.handle(&expired), None);
        let elsewhere = Echo {
            target: TARGETS[1],
            ..*echo
        };
        let expired = error(v4::TIME_EXCEEDED, IN_TRANSIT, &elsewhere, ROUTER);
        assert_eq!(probe.handle(&expired), None);
        let mut broken = reply(echo, TARGETS[0]);
        broken[27] ^= 1;
        assert_eq!(probe.handle(&broken), None);
    }

    #[test]
    fn disc_7050_3_2_01_the_well_known_addresses_are_never_asked() {
        for no in [
            "192.0.0.170",
            "192.0.0.171",
            "192.0.0.1",
            "192.0.0.8",
            "0.0.0.0",
            "127.0.0.1",
            "169.254.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
        ] {
            assert!(!is_possible_target(no.parse().unwrap()), "{no}");
        }
        assert!(DEFAULT_TARGETS.into_iter().all(is_possible_target));
        let now = origin();
        let mut targets = pref64::well_known_name::ADDRESSES.to_vec();
        targets.extend(TARGETS);
        targets.extend(DEFAULT_TARGETS);
        let mut probe = Probe::new(&targets, 1, now);
        let echoes = sent(&mut probe, now + TIMEOUT);
        assert_eq!(echoes.len(), MAX_TARGETS * usize::from(MAX_HOPS));
        assert_eq!(echoes[0].target, TARGETS[0]);
        assert_eq!(echoes[23].target, DEFAULT_TARGETS[0]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let (probe, ..) = probe();
            prop_assert_eq!(probe.handle(&bytes), None);
            if let Ok(len) = u16::try_from(bytes.len()) && len >= 28 {
                bytes[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0, 0, 9, 1, 0, 0]);
                bytes[2..4].copy_from_slice(&len.to_be_bytes());
                bytes[20] = if bytes[21] & 1 == 0 { 0 } else { 11 };
                let message = with_checksum(bytes[20..].to_vec());
                bytes[20..].copy_from_slice(&message);
                let checksum = Sum::of(&bytes[..20]).checksum();
                bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
                let _ = probe.handle(&bytes);
            }
        }
    }
}
