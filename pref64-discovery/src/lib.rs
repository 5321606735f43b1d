//! Discovery of the NAT64 prefix: [`Discovery`] listens to the network and keeps a
//! [`pref64::tracker::Tracker`] true.
//!
//! Sources so far are router advertisements (RFC 8781) and what a person set. `ipv4only.arpa`
//! (RFC 7050) comes with the resolver.

#![forbid(unsafe_code)]

use std::{
    io,
    time::{Duration, Instant},
};

use host::{
    Host,
    clock::Clock,
    ra::{Datagram, RouterAdvertisements},
};
use pref64::{
    Pref64,
    ra_option::Pref64Option,
    tracker::{Change, IfIndex, Tracker},
};
use wire::ndp::RouterAdvertisement;

mod routers;
mod solicitations;

pub use routers::Router;
pub use solicitations::{SOLICITATION_INTERVAL, SOLICITATIONS};

use routers::Routers;
use solicitations::Solicitations;

/// Follows the NAT64 prefixes of all interfaces, by what `R` hears.
#[derive(Debug)]
pub struct Discovery<R> {
    routers: R,
    clock: Clock,
    known: Known,
}

/// What was learned, and what is still asked. Has no socket and no clock.
#[derive(Debug, Default)]
struct Known {
    tracker: Tracker,
    routers: Routers,
    solicitations: Solicitations,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A router advertisement arrived on an interface; the prefixes there may have changed.
    Advertised {
        /// The interface.
        interface: IfIndex,
        /// What changed.
        changes: Vec<Change>,
    },
    /// Time passed.
    Expired(Vec<(IfIndex, Change)>),
}

impl<R: RouterAdvertisements> Discovery<R> {
    /// Starts to listen. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// The system's: `PermissionDenied` without CAP_NET_RAW.
    pub fn open(host: &impl Host<RouterAdvertisements = R>, clock: Clock) -> io::Result<Self> {
        Ok(Self {
            routers: host.router_advertisements()?,
            clock,
            known: Known::default(),
        })
    }

    /// Asks the routers of an interface to advertise themselves, up to three times.
    pub fn solicit(&mut self, interface: IfIndex) {
        self.known.solicitations.start(interface, self.clock.now());
    }

    /// Uses `prefixes` on an interface, whatever the network says. None ends that.
    pub fn set_manual(&mut self, interface: IfIndex, prefixes: &[Pref64]) -> Vec<Change> {
        self.known.tracker.manual(interface, prefixes)
    }

    /// Forgets what was learned on an interface, which is on another network now.
    pub fn forget(&mut self, interface: IfIndex) -> Vec<Change> {
        self.known.routers.forget(interface);
        self.known.solicitations.stop(interface);
        self.known.tracker.forget_learned(interface)
    }

    /// What is known.
    #[must_use]
    pub fn tracker(&self) -> &Tracker {
        &self.known.tracker
    }

    /// The prefixes to use on an interface, best first.
    #[must_use]
    pub fn prefixes(&self, interface: IfIndex) -> Vec<Pref64> {
        let usable = self.known.tracker.usable(interface, self.clock.now());
        usable.map(|entry| entry.prefix).collect()
    }

    /// Every prefix that holds on an interface, used for new flows or not.
    #[must_use]
    pub fn live(&self, interface: IfIndex) -> Vec<Pref64> {
        let live = self.known.tracker.live(interface, self.clock.now());
        live.map(|entry| entry.prefix).collect()
    }

    /// The default routers of an interface, the most recently heard first.
    #[must_use]
    pub fn routers(&self, interface: IfIndex) -> Vec<Router> {
        self.known.routers.live(interface, self.clock.now())
    }

    /// Waits until something happens.
    ///
    /// # Errors
    /// The system's, when the socket can no longer be used.
    pub async fn next(&mut self) -> io::Result<Event> {
        loop {
            let now = self.clock.now();
            self.send_solicitations(now);
            let expired = self.known.tracker.expire(now);
            if !expired.is_empty() {
                return Ok(Event::Expired(expired));
            }
            let timeout = self.known.next_timeout().map(|at| self.clock.until(at));
            let datagram = tokio::select! {
                datagram = self.routers.recv() => datagram?,
                () = sleep(timeout) => continue,
            };
            if let Some(event) = self.known.hear(&datagram, self.clock.now()) {
                return Ok(event);
            }
        }
    }

    fn send_solicitations(&mut self, now: Instant) {
        for interface in self.known.solicitations.take_due(now) {
            if let Err(error) = self.routers.solicit(interface) {
                tracing::debug!("no router solicitation on interface {interface}: {error}");
            }
        }
    }
}

impl Known {
    fn next_timeout(&self) -> Option<Instant> {
        [self.tracker.next_expiry(), self.solicitations.next()]
            .into_iter()
            .flatten()
            .min()
    }

    fn hear(&mut self, datagram: &Datagram, now: Instant) -> Option<Event> {
        let Datagram {
            interface,
            envelope,
            message,
        } = datagram;
        let advertisement = match RouterAdvertisement::new_checked(envelope, message) {
            Ok(advertisement) => advertisement,
            Err(invalid) => {
                tracing::warn!(
                    "ignored a router advertisement on interface {interface}: {invalid}"
                );
                return None;
            }
        };
        // Others are still asked: they may be default routers, and know the prefix.
        if advertisement.router_lifetime() != 0 {
            self.solicitations.stop(*interface);
        }
        self.routers
            .hear(*interface, envelope.src, &advertisement, now);
        let options = read_options(*interface, &advertisement);
        let changes = self.tracker.ra(*interface, envelope.src, &options, now);
        Some(Event::Advertised {
            interface: *interface,
            changes,
        })
    }
}

async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// The PREF64 options of an advertisement; those that must be ignored are logged.
fn read_options(interface: IfIndex, advertisement: &RouterAdvertisement<'_>) -> Vec<Pref64Option> {
    let options = advertisement.options.iter().filter_map(Pref64Option::parse);
    options
        .filter_map(|option| {
            option
                .inspect_err(|ignored| {
                    tracing::warn!("ignored a PREF64 option on interface {interface}: {ignored}");
                })
                .ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv6Addr;
    use wire::{
        checksum::pseudo_v6,
        ndp::{ALL_NODES, Envelope, HOP_LIMIT},
    };

    /// A router's link-local address.
    pub(crate) fn router(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, n)
    }

    /// A router advertisement with a correct checksum.
    pub(crate) fn advertisement(
        from: Ipv6Addr,
        router_lifetime: u16,
        options: &[u8],
    ) -> (Envelope, Vec<u8>) {
        let mut message = vec![134, 0, 0, 0, 64, 0];
        message.extend(router_lifetime.to_be_bytes());
        message.extend([0; 8]);
        message.extend(options);
        let envelope = Envelope {
            src: from,
            dst: ALL_NODES,
            hop_limit: HOP_LIMIT,
        };
        (envelope, with_checksum(&envelope, message))
    }

    fn with_checksum(envelope: &Envelope, mut message: Vec<u8>) -> Vec<u8> {
        if message.len() >= 4 {
            message[2..4].fill(0);
            let len = message.len() as u32;
            let (src, dst) = (envelope.src.octets(), envelope.dst.octets());
            let sum = pseudo_v6(src, dst, 58, len).bytes(&message).checksum();
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        message
    }

    fn options_in(envelope: &Envelope, message: &[u8]) -> Vec<Pref64Option> {
        let advertisement = RouterAdvertisement::new_checked(envelope, message);
        advertisement.map_or_else(|_| Vec::new(), |it| read_options(3, &it))
    }

    fn option(prefix: &str, seconds: u64) -> [u8; 16] {
        let option = Pref64Option {
            prefix: prefix.parse().unwrap(),
            lifetime: Duration::from_secs(seconds),
        };
        option.to_bytes()
    }

    /// RFC 8781 §4: an option that must be ignored does not spoil those around it.
    #[test]
    fn disc_8781_4_01_a_bad_option_is_passed_over() {
        let mut bad_code = option("2001:db8:1::/96", 600);
        bad_code[3] |= 7;
        let mut bad_octet = option("2001:db8:2::/96", 600);
        bad_octet[12] = 1;
        let unknown = [200, 1, 0, 0, 0, 0, 0, 0];
        let short = [38, 1, 0, 0, 0, 0, 0, 0];
        let options = [
            &bad_code[..],
            &option("2001:db8:3::/96", 600),
            &unknown,
            &short,
            &bad_octet,
            &option("64:ff9b::/96", 0),
        ];
        let (envelope, message) = advertisement(router(1), 1800, &options.concat());
        let read = options_in(&envelope, &message);
        let prefixes: Vec<_> = read.iter().map(|it| it.prefix.to_string()).collect();
        assert_eq!(prefixes, ["2001:db8:3::/96", "64:ff9b::/96"]);
        assert!(read[1].lifetime.is_zero());
    }

    /// RFC 4861 §6.1.2: an option of length zero spoils all.
    #[test]
    fn disc_8781_4_02_an_invalid_advertisement_says_nothing() {
        let good = option("64:ff9b::/96", 600);
        let (envelope, message) = advertisement(router(1), 1800, &good);
        assert_eq!(options_in(&envelope, &message).len(), 1);
        let far = Envelope {
            hop_limit: 254,
            ..envelope
        };
        assert!(options_in(&far, &message).is_empty());
        let global = "2001:db8::1".parse().unwrap();
        let (envelope, message) = advertisement(global, 1800, &good);
        assert!(options_in(&envelope, &message).is_empty());
        let zero = [&good[..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
        let (envelope, message) = advertisement(router(1), 1800, &zero);
        assert!(options_in(&envelope, &message).is_empty());
    }

    fn hear(known: &mut Known, lifetime: u16, options: &[u8], now: Instant) -> Option<Event> {
        let (envelope, message) = advertisement(router(1), lifetime, options);
        let datagram = Datagram {
            interface: 3,
            envelope,
            message,
        };
        known.hear(&datagram, now)
    }

    /// The router's own lifetime is about the default route alone, and only a default router ends
    /// the solicitations (RFC 4861 §6.3.7).
    #[test]
    fn disc_8781_5_1_01_a_router_of_lifetime_zero_still_announces_prefixes() {
        let now = Instant::now();
        let mut known = Known::default();
        known.solicitations.start(3, now);
        let prefix = option("64:ff9b::/96", 600);
        let event = hear(&mut known, 0, &prefix, now);
        let Some(Event::Advertised { interface, changes }) = event else {
            panic!("not heard");
        };
        assert_eq!((interface, changes.len()), (3, 1));
        assert!(known.routers.live(3, now).is_empty());
        assert_eq!(known.next_timeout(), Some(now));
        // A default router that stops being one does not take its prefixes with it.
        hear(&mut known, 1800, &prefix, now);
        assert_eq!(known.routers.live(3, now).len(), 1);
        let expiry = now + Duration::from_secs(600);
        assert_eq!(known.next_timeout(), Some(expiry));
        hear(&mut known, 0, &[], now);
        assert_eq!(known.tracker.usable(3, now).count(), 1);
        assert!(known.routers.live(3, now).is_empty());
    }

    #[test]
    fn disc_8781_4_02_an_invalid_advertisement_has_no_effect() {
        let now = Instant::now();
        let mut known = Known::default();
        known.solicitations.start(3, now);
        let (envelope, mut message) = advertisement(router(1), 1800, &option("64:ff9b::/96", 600));
        message[20] ^= 1;
        let datagram = Datagram {
            interface: 3,
            envelope,
            message,
        };
        assert_eq!(known.hear(&datagram, now), None);
        assert!(known.tracker.known(3).is_empty());
        assert!(known.routers.live(3, now).is_empty());
        assert_eq!(known.next_timeout(), Some(now));
    }

    proptest! {
        /// Whatever arrives: nothing panics, and what is learned is a prefix of RFC 6052 from a
        /// link-local router.
        #[test]
        fn disc_8781_4_01_whatever_arrives_only_prefixes_are_learned(
            mut message in proptest::collection::vec(any::<u8>(), 0..200),
            shaped in any::<bool>(),
            link_local in prop::bool::weighted(0.8),
            hop_limit in prop_oneof![4 => Just(255u8), 1 => any::<u8>()],
        ) {
            let src = if link_local { router(1) } else { "2001:db8::1".parse().unwrap() };
            let envelope = Envelope { src, dst: ALL_NODES, hop_limit };
            if shaped && message.len() >= 32 {
                // A header, then PREF64 options of any content.
                message.truncate(message.len() / 16 * 16);
                message[..2].copy_from_slice(&[134, 0]);
                for option in message[16..].chunks_mut(16) {
                    option[..2].copy_from_slice(&[38, 2]);
                }
            }
            let message = with_checksum(&envelope, message);
            let now = Instant::now();
            let learned = options_in(&envelope, &message);
            let mut tracker = Tracker::new();
            tracker.ra(3, src, &learned, now);
            for entry in tracker.known(3) {
                prop_assert!(link_local && hop_limit == 255);
                let prefix = entry.prefix;
                prop_assert_eq!(Pref64::new(prefix.address(), prefix.length().bits()), Ok(prefix));
                prop_assert!(entry.expires.is_some_and(|at| at > now));
            }
        }
    }
}
