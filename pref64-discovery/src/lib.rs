//! Discovery of the NAT64 prefix: [`Discovery`] listens to the network and keeps a
//! [`pref64::tracker::Tracker`] true.
//!
//! Sources so far are router advertisements (RFC 8781) and what a person set. `ipv4only.arpa`
//! (RFC 7050) comes with the resolver.

use std::{
    collections::BTreeMap,
    io,
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use host::{
    clock::Clock,
    ra::{Datagram, linux::RaSocket},
};
use pref64::{
    Pref64,
    ra_option::Pref64Option,
    tracker::{Change, IfIndex, Tracker},
};
use wire::{ethernet::Mac, ndp::RouterAdvertisement};

/// Solicitations that are sent on an interface (RFC 4861 §10: MAX_RTR_SOLICITATIONS).
pub const SOLICITATIONS: u8 = 3;

/// Time between them (RTR_SOLICITATION_INTERVAL).
pub const SOLICITATION_INTERVAL: Duration = Duration::from_secs(4);

/// Routers remembered per interface.
const MAX_ROUTERS: usize = 16;

/// A router that advertised itself as a default router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Router {
    /// Its link-local address.
    pub address: Ipv6Addr,
    /// The link-layer address it told.
    pub mac: Option<Mac>,
    /// Until when it is a default router.
    pub expires: Instant,
}

/// Follows the NAT64 prefixes of all interfaces.
#[derive(Debug)]
pub struct Discovery {
    socket: RaSocket,
    clock: Clock,
    tracker: Tracker,
    routers: BTreeMap<IfIndex, Vec<Router>>,
    solicitations: BTreeMap<IfIndex, Solicitation>,
}

#[derive(Clone, Copy, Debug)]
struct Solicitation {
    left: u8,
    next: Instant,
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

impl Discovery {
    /// Starts to listen. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// The system's: `PermissionDenied` without CAP_NET_RAW.
    pub fn open(clock: Clock) -> io::Result<Self> {
        Ok(Self {
            socket: RaSocket::open()?,
            clock,
            tracker: Tracker::new(),
            routers: BTreeMap::new(),
            solicitations: BTreeMap::new(),
        })
    }

    /// Asks the routers of an interface to advertise themselves, up to three times.
    pub fn solicit(&mut self, interface: IfIndex) {
        let solicitation = Solicitation {
            left: SOLICITATIONS,
            next: self.clock.now(),
        };
        self.solicitations.insert(interface, solicitation);
    }

    /// Uses `prefixes` on an interface, whatever the network says. None ends that.
    pub fn set_manual(&mut self, interface: IfIndex, prefixes: &[Pref64]) -> Vec<Change> {
        self.tracker.manual(interface, prefixes)
    }

    /// Forgets what was learned on an interface, which is on another network now.
    pub fn forget(&mut self, interface: IfIndex) -> Vec<Change> {
        self.routers.remove(&interface);
        self.solicitations.remove(&interface);
        self.tracker.forget_learned(interface)
    }

    /// What is known.
    #[must_use]
    pub fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// The prefixes to use on an interface, best first.
    #[must_use]
    pub fn prefixes(&self, interface: IfIndex) -> Vec<Pref64> {
        let usable = self.tracker.usable(interface, self.clock.now());
        usable.map(|entry| entry.prefix).collect()
    }

    /// The default routers of an interface, the most recently heard first.
    #[must_use]
    pub fn routers(&self, interface: IfIndex) -> Vec<Router> {
        let now = self.clock.now();
        let known = self.routers.get(&interface).into_iter().flatten();
        known
            .filter(|router| router.expires > now)
            .copied()
            .collect()
    }

    /// Waits until something happens.
    ///
    /// # Errors
    /// The system's, when the socket can no longer be used.
    pub async fn next(&mut self) -> io::Result<Event> {
        loop {
            let now = self.clock.now();
            self.send_solicitations(now);
            let expired = self.tracker.expire(now);
            if !expired.is_empty() {
                return Ok(Event::Expired(expired));
            }
            let timeout = self.next_timeout().map(|at| self.clock.until(at));
            let datagram = tokio::select! {
                datagram = self.socket.recv() => datagram?,
                () = sleep(timeout) => continue,
            };
            if let Some(event) = self.advertised(&datagram) {
                return Ok(event);
            }
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        let solicitations = self.solicitations.values().map(|it| it.next).min();
        [self.tracker.next_expiry(), solicitations]
            .into_iter()
            .flatten()
            .min()
    }

    fn send_solicitations(&mut self, now: Instant) {
        for (interface, solicitation) in &mut self.solicitations {
            if solicitation.next > now {
                continue;
            }
            if let Err(error) = self.socket.solicit(*interface) {
                tracing::debug!("no router solicitation on interface {interface}: {error}");
            }
            solicitation.left = solicitation.left.saturating_sub(1);
            solicitation.next = now + SOLICITATION_INTERVAL;
        }
        self.solicitations
            .retain(|_, solicitation| solicitation.left > 0);
    }

    fn advertised(&mut self, datagram: &Datagram) -> Option<Event> {
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
        let now = self.clock.now();
        self.solicitations.remove(interface);
        self.remember_router(*interface, envelope.src, &advertisement, now);
        let options = read_options(*interface, &advertisement);
        let changes = self.tracker.ra(*interface, envelope.src, &options, now);
        Some(Event::Advertised {
            interface: *interface,
            changes,
        })
    }

    fn remember_router(
        &mut self,
        interface: IfIndex,
        address: Ipv6Addr,
        advertisement: &RouterAdvertisement<'_>,
        now: Instant,
    ) {
        let routers = self.routers.entry(interface).or_default();
        routers.retain(|router| router.address != address && router.expires > now);
        let lifetime = advertisement.router_lifetime();
        if lifetime == 0 {
            return;
        }
        routers.truncate(MAX_ROUTERS - 1);
        let router = Router {
            address,
            mac: advertisement.source_link_layer(),
            expires: now + Duration::from_secs(lifetime.into()),
        };
        routers.insert(0, router);
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
