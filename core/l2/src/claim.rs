//! Whether IPv4 addresses of a link are free, before they are used (RFC 5227 §2.1), telling the link
//! that they are used now (§2.3), and noticing when somebody else uses them all the same (§2.4).
//!
//! ```text
//!  new ── probes at t0, t1, t2 ── silence ──► Free ── used() ── announcements ──► Defending
//!             └────────────── heard(…) ──► somebody else has it
//! ```

use std::{net::Ipv4Addr, time::Duration, time::Instant};

use wire::{arp::Arp, ethernet::Mac};

/// The first probe comes up to so much later, so that hosts that start together do not speak
/// together. This and the rest: RFC 5227 §1.1.
const PROBE_WAIT: Duration = Duration::from_secs(1);
const PROBES: u8 = 3;
const PROBE_MIN: Duration = Duration::from_secs(1);
const PROBE_MAX: Duration = Duration::from_secs(2);
/// How long the last probe is waited for an answer.
const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
const ANNOUNCEMENTS: u8 = 2;
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many probes are still to be sent, the next at this time.
    Probing(u8, Instant),
    /// All were sent; the addresses are free if nobody speaks up until this time.
    Waiting(Instant),
    /// They are free.
    Free,
    /// They are used; so many announcements are still to be sent, the next at this time.
    Announcing(u8, Instant),
    /// Everybody knows.
    Defending,
}

/// Somebody else has one of the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Which one.
    pub address: Ipv4Addr,
    /// Who.
    pub by: Mac,
}

/// Addresses of one link that a host wants.
#[derive(Clone, Debug)]
pub struct Claim {
    mac: Mac,
    addresses: Vec<Ipv4Addr>,
    state: State,
    /// What makes the pauses differ from those of other hosts.
    seed: u64,
}

impl Claim {
    /// Begins to ask for `addresses`, from the interface with link-layer address `mac`. `seed` is
    /// random.
    #[must_use]
    pub fn new(mac: Mac, addresses: Vec<Ipv4Addr>, seed: u64, now: Instant) -> Self {
        let mut claim = Self {
            mac,
            addresses,
            state: State::Free,
            seed,
        };
        claim.state = State::Probing(PROBES, now + claim.up_to(PROBE_WAIT));
        claim
    }

    /// Whether they are all free: nobody has answered.
    #[must_use]
    pub fn is_free(&self) -> bool {
        match self.state {
            State::Probing(..) | State::Waiting(_) => false,
            State::Free | State::Announcing(..) | State::Defending => true,
        }
    }

    /// The addresses are used from now on.
    pub fn used(&mut self, now: Instant) {
        self.state = State::Announcing(ANNOUNCEMENTS, now);
    }

    /// When to call [`Self::handle_timeout`]. `None`: never.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Probing(_, at) | State::Waiting(at) | State::Announcing(_, at) => Some(at),
            State::Free | State::Defending => None,
        }
    }

    /// What time brings: packets to send to everybody, one for each address.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Arp> {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return Vec::new();
        }
        let mac = self.mac;
        match self.state {
            State::Probing(left, _) => {
                self.state = if left > 1 {
                    let pause = PROBE_MIN + self.up_to(PROBE_MAX - PROBE_MIN);
                    State::Probing(left - 1, now + pause)
                } else {
                    State::Waiting(now + ANNOUNCE_WAIT)
                };
                self.all(|address| Arp::probe(mac, address))
            }
            State::Announcing(left, _) => {
                self.state = if left > 1 {
                    State::Announcing(left - 1, now + ANNOUNCE_INTERVAL)
                } else {
                    State::Defending
                };
                self.all(|address| Arp::announcement(mac, address))
            }
            State::Waiting(_) => {
                self.state = State::Free;
                Vec::new()
            }
            State::Free | State::Defending => Vec::new(),
        }
    }

    /// What a packet of the link tells: somebody uses an address, or, while it is not ours yet,
    /// asks for it as we do.
    #[must_use]
    pub fn heard(&self, arp: &Arp) -> Option<Conflict> {
        let conflict = |address| Conflict {
            address,
            by: arp.sender,
        };
        if arp.sender == self.mac {
            return None;
        }
        if self.addresses.contains(&arp.sender_address) {
            return Some(conflict(arp.sender_address));
        }
        let is_probe = arp.sender_address.is_unspecified();
        let wanted = is_probe && !self.is_free() && self.addresses.contains(&arp.target_address);
        wanted.then(|| conflict(arp.target_address))
    }

    fn all(&self, packet: impl Fn(Ipv4Addr) -> Arp) -> Vec<Arp> {
        self.addresses.iter().map(|it| packet(*it)).collect()
    }

    /// A pause from zero to `most`, another one each time (xorshift).
    fn up_to(&mut self, most: Duration) -> Duration {
        self.seed |= 1;
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        most.mul_f64((self.seed >> 32) as f64 / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::arp::Operation;

    const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

    fn claim(seed: u64, now: Instant) -> Claim {
        Claim::new(OURS, vec![ADDRESS, Ipv4Addr::new(192, 0, 2, 8)], seed, now)
    }

    #[expect(clippy::disallowed_methods, reason = "a test's clock begins somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    /// The next packets, and when they are due.
    fn next(claim: &mut Claim) -> (Instant, Vec<Arp>) {
        let at = claim.poll_timeout().unwrap();
        assert!(
            claim
                .handle_timeout(at - Duration::from_nanos(1))
                .is_empty()
        );
        (at, claim.handle_timeout(at))
    }

    #[test]
    fn three_probes_and_silence_make_an_address_free() {
        let now = start();
        for seed in 0..200 {
            let mut claim = claim(seed, now);
            let (first, probes) = next(&mut claim);
            assert!(first - now <= PROBE_WAIT);
            assert_eq!(probes[0], Arp::probe(OURS, ADDRESS));
            assert_eq!(probes.len(), 2);
            let mut last = first;
            for _ in 1..PROBES {
                let (at, probes) = next(&mut claim);
                assert!((PROBE_MIN..=PROBE_MAX).contains(&(at - last)));
                assert_eq!(probes.len(), 2);
                last = at;
            }
            assert!(!claim.is_free());
            let (end, packets) = next(&mut claim);
            assert_eq!((end - last, packets), (ANNOUNCE_WAIT, vec![]));
            assert!(claim.is_free() && claim.poll_timeout().is_none());
        }
    }

    #[test]
    fn what_is_used_is_announced_twice() {
        let now = start();
        let mut claim = claim(1, now);
        claim.used(now);
        let (at, packets) = next(&mut claim);
        assert_eq!((at, packets[0]), (now, Arp::announcement(OURS, ADDRESS)));
        let (at, packets) = next(&mut claim);
        assert_eq!((at - now, packets.len()), (ANNOUNCE_INTERVAL, 2));
        assert_eq!(claim.poll_timeout(), None);
    }

    #[test]
    fn somebody_who_has_it_or_wants_it_too_is_a_conflict() {
        let now = start();
        let mut claim = claim(1, now);
        let conflict = Some(Conflict {
            address: ADDRESS,
            by: OTHER,
        });
        let reply = Arp {
            operation: Operation::Reply,
            ..Arp::announcement(OTHER, ADDRESS)
        };
        let probe = Arp::probe(OTHER, ADDRESS);
        for arp in [reply, Arp::announcement(OTHER, ADDRESS), probe] {
            assert_eq!(claim.heard(&arp), conflict);
        }
        // Our own echo, and who merely asks for whom it could send to.
        assert_eq!(claim.heard(&Arp::probe(OURS, ADDRESS)), None);
        let asks = Arp {
            sender_address: Ipv4Addr::new(192, 0, 2, 1),
            ..probe
        };
        assert_eq!(claim.heard(&asks), None);
        // Once it is used, a probe of somebody else is answered, and is no conflict.
        claim.used(now);
        assert_eq!(claim.heard(&probe), None);
        assert_eq!(claim.heard(&reply), conflict);
    }
}
