//! The routers that advertise themselves as default routers.

use std::{
    collections::BTreeMap,
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use pref64::tracker::IfIndex;
use wire::{ethernet::Mac, ndp::RouterAdvertisement};

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

/// The default routers of every interface, the most recently heard first.
#[derive(Debug, Default)]
pub(crate) struct Routers(BTreeMap<IfIndex, Vec<Router>>);

impl Routers {
    /// An advertisement of `address` was heard. One of lifetime 0 says that it is no default router
    /// (any more), and nothing about prefixes (RFC 4861 §4.2).
    pub(crate) fn hear(
        &mut self,
        interface: IfIndex,
        address: Ipv6Addr,
        advertisement: &RouterAdvertisement<'_>,
        now: Instant,
    ) {
        let routers = self.0.entry(interface).or_default();
        routers.retain(|router| router.address != address && router.expires > now);
        let lifetime = advertisement.router_lifetime();
        if lifetime != 0 {
            routers.truncate(MAX_ROUTERS - 1);
            let router = Router {
                address,
                mac: advertisement.source_link_layer(),
                expires: now + Duration::from_secs(lifetime.into()),
            };
            routers.insert(0, router);
        }
        self.0.retain(|_, routers| !routers.is_empty());
    }

    /// Those of an interface that still are default routers.
    pub(crate) fn live(&self, interface: IfIndex, now: Instant) -> Vec<Router> {
        let known = self.0.get(&interface).into_iter().flatten();
        known
            .filter(|router| router.expires > now)
            .copied()
            .collect()
    }

    /// The interface is on another network.
    pub(crate) fn forget(&mut self, interface: IfIndex) {
        self.0.remove(&interface);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{advertisement, router};

    const LINK: IfIndex = 3;

    fn hear(routers: &mut Routers, from: u16, lifetime: u16, now: Instant) {
        let (envelope, message) = advertisement(router(from), lifetime, &[]);
        let advertisement = RouterAdvertisement::new_checked(&envelope, &message).unwrap();
        routers.hear(LINK, router(from), &advertisement, now);
    }

    fn live(routers: &Routers, now: Instant) -> Vec<Ipv6Addr> {
        let live = routers.live(LINK, now);
        live.iter().map(|router| router.address).collect()
    }

    #[test]
    fn the_last_heard_comes_first_and_none_stays_too_long() {
        let start = Instant::now();
        let mut routers = Routers::default();
        hear(&mut routers, 1, 1800, start);
        hear(&mut routers, 2, 60, start);
        assert_eq!(live(&routers, start), [router(2), router(1)]);
        hear(&mut routers, 1, 1800, start);
        assert_eq!(live(&routers, start), [router(1), router(2)]);
        let later = start + Duration::from_secs(60);
        assert_eq!(live(&routers, later), [router(1)]);
        // Lifetime 0 ends it at once.
        hear(&mut routers, 1, 0, start);
        assert_eq!(live(&routers, start), [router(2)]);
        hear(&mut routers, 2, 0, start);
        assert!(routers.0.is_empty());
        hear(&mut routers, 3, 60, start);
        routers.forget(LINK);
        assert!(live(&routers, start).is_empty());
    }

    #[test]
    fn a_hostile_network_cannot_fill_the_memory() {
        let now = Instant::now();
        let mut routers = Routers::default();
        for n in 0..100 {
            hear(&mut routers, n, 1800, now);
        }
        assert_eq!(live(&routers, now).len(), MAX_ROUTERS);
        assert_eq!(live(&routers, now)[0], router(99));
    }
}
