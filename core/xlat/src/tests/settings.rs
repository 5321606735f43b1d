//! What callers do with a translator besides translating: new settings, and asking beforehand.

use super::*;
use crate::config::UdpChecksumMissing;

fn expired4() -> Vec<u8> {
    udp4(b"hello464", |header| header.ttl = 1)
}

fn expired6() -> Vec<u8> {
    let mut header = V6::new(PEER6, HOST6, 17);
    header.hop_limit = 1;
    header.carrying(&compose::udp(BACK6, 53, 40000, b"hello464"))
}

/// A translator of each direction.
struct Both {
    to_v6: V4ToV6,
    to_v4: V6ToV4,
}

impl Both {
    /// Whether an expired packet of either family is answered.
    fn answer(&mut self, now: Instant) -> [bool; 2] {
        let of_v4 = (self.to_v6).translate(&mut loaded(&expired4()), &STATELESS, now);
        let of_v6 = (self.to_v4).translate(&mut loaded(&expired6()), &STATELESS, now);
        [of_v4, of_v6].map(|verdict| is_reply(&verdict))
    }

    fn set(&mut self, config: &Config) {
        self.to_v6.set_config(config.clone());
        self.to_v4.set_config(config.clone());
    }
}

/// New settings hold from the next packet on. The rate limit starts anew only if it is another one:
/// otherwise whoever can cause a change of settings could lift it.
#[test]
fn xlat_5_4_01_new_settings_do_not_refill_the_rate_limit() {
    let now = origin();
    let limited = |ipv4_mtu| Config {
        errors: ErrorPolicy::Limit {
            burst: 1,
            per_second: 1,
        },
        ipv4_mtu,
        ..config()
    };
    let mut both = Both {
        to_v6: V4ToV6::new(limited(1500), 1),
        to_v4: V6ToV4::new(limited(1500), 1),
    };
    assert_eq!(
        [both.answer(now), both.answer(now)],
        [[true; 2], [false; 2]]
    );
    both.set(&limited(1400));
    assert_eq!(both.to_v6.config().ipv4_mtu, 1400);
    assert_eq!(both.to_v4.config().ipv4_mtu, 1400);
    assert_eq!(both.answer(now), [false; 2]);
    both.set(&config());
    assert_eq!([both.answer(now), both.answer(now)], [[true; 2], [true; 2]]);
}

/// A stateful caller asks before it makes state: what is refused then is what would be refused
/// later, and what is not is not touched.
#[test]
fn a_veto_is_the_verdict_that_would_come_anyway() {
    let now = origin();
    let mut to_v6 = V4ToV6::new(config(), 1);
    let mut buf = loaded(&expired4());
    let verdict = to_v6.veto(&mut buf, now);
    assert_eq!(verdict.as_ref().map(is_reply), Some(true));
    let mut buf = loaded(&udp4(b"hello464", |_| ()));
    assert!(to_v6.veto(&mut buf, now).is_none());
    assert_eq!(buf.bytes(), udp4(b"hello464", |_| ()));

    let mut to_v4 = V6ToV4::new(config(), 1);
    let mut buf = loaded(&expired6());
    let verdict = to_v4.veto(&mut buf, now);
    assert_eq!(verdict.as_ref().map(is_reply), Some(true));
    let mut buf = loaded(&back6(b"hello464", |_| ()));
    assert!(to_v4.veto(&mut buf, now).is_none());
    assert_eq!(buf.bytes(), back6(b"hello464", |_| ()));
}

/// What a fragment is part of shows when it is whole, and an ICMP message is a matter of the mapping:
/// of neither can be said beforehand that it will not pass.
#[test]
fn a_veto_is_about_whole_packets_with_ports() {
    // Too short for TCP and ICMP; as a whole datagram without a checksum, as a part of one anything.
    let (short, unsummed) = ([0; 5], [0; 8]);
    let vetoed4 = |protocol: u8, mf: bool, payload: &[u8]| {
        let mut header = V4::new(HOST4, PEER4, protocol);
        header.mf = mf;
        let mut buf = loaded(&header.carrying(payload));
        let refusing = Config {
            udp_checksum_missing: UdpChecksumMissing::Drop,
            ..config()
        };
        let mut to_v6 = V4ToV6::new(refusing, 1);
        to_v6.veto(&mut buf, origin()).is_some()
    };
    assert!(vetoed4(6, false, &short));
    assert!(vetoed4(17, false, &unsummed));
    assert!(!vetoed4(17, true, &unsummed));
    assert!(!vetoed4(1, false, &short));

    let vetoed6 = |next: u8, payload: &[u8]| {
        let mut buf = loaded(&V6::new(PEER6, HOST6, next).carrying(payload));
        let mut to_v4 = V6ToV4::new(config(), 1);
        to_v4.veto(&mut buf, origin()).is_some()
    };
    let first_part = [&[17, 0, 0, 1, 0, 0, 0, 9], &unsummed[..]].concat();
    assert!(vetoed6(6, &short));
    assert!(vetoed6(17, &unsummed));
    assert!(!vetoed6(44, &first_part));
    assert!(!vetoed6(58, &short));
}

fn is_reply(verdict: &Verdict<DropReason>) -> bool {
    matches!(verdict, Verdict::Reply(DropReason::HopLimitExceeded))
}

/// Whoever provokes other errors does not keep senders from learning which size fits, nor the other
/// way round.
#[test]
fn xlat_5_4_01_errors_that_tell_a_size_are_limited_by_themselves() {
    let config = Config {
        errors: ErrorPolicy::Limit {
            burst: 10,
            per_second: 0,
        },
        ..config()
    };
    let now = origin();
    let (old4, old6) = (expired4(), expired6());
    let large4 = udp4(&noise(1500 - 28), |header| header.df = true);
    let large6 = back6(&noise(1500), |_| ());
    for (first, second) in [(0, 1), (1, 0)] {
        let mut to_v6 = V4ToV6::new(config.clone(), 1);
        let mut to_v4 = V6ToV4::new(config.clone(), 1);
        for at in [first, second] {
            let (packet4, packet6) = [(&old4, &old6), (&large4, &large6)][at];
            let mut told = (0, 0);
            for _ in 0..30 {
                let verdict = to_v6.translate(&mut loaded(packet4), &STATELESS, now);
                told.0 += u8::from(matches!(verdict, Verdict::Reply(_)));
                let verdict = to_v4.translate(&mut loaded(packet6), &STATELESS, now);
                told.1 += u8::from(matches!(verdict, Verdict::Reply(_)));
            }
            assert_eq!(told, (10, 10), "{at} after {first}");
        }
    }
}
