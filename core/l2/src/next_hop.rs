//! [`NextHop`]: the router that translated packets go to, and how its entry in the kernel's
//! neighbour table is kept alive.
//!
//! The kernel resolves and probes neighbours for its own traffic only. While all traffic is the
//! CLAT's, it sees none, and the router's entry goes stale and is never probed: a router that died
//! would go unnoticed. So whoever sends through a next hop asks [`Nudge`] now and then, and has the
//! kernel use the entry (`NTF_USE`) when told to.

use core::{net::Ipv6Addr, time::Duration};
use std::time::Instant;

use wire::ethernet::Mac;

/// At most one nudge in this time while packets flow.
pub const NUDGE_INTERVAL: Duration = Duration::from_secs(5);

/// At most one nudge in this time while the router's address is unresolved.
pub const RESOLVE_INTERVAL: Duration = Duration::from_secs(1);

/// A router on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// Its address: link-local as a rule.
    pub router: Ipv6Addr,
    /// Its link-layer address, once resolved.
    pub mac: Option<Mac>,
}

/// What the kernel's neighbour table says about a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: Ipv6Addr,
    /// Its link-layer address, if it is known and not known to be wrong.
    pub mac: Option<Mac>,
}

/// Chooses the next hop.
///
/// `routes` are the gateways of the kernel's routes to the prefix, best first; `routers` those who
/// advertised themselves as default routers to us, the most recent first. The second list serves
/// where the kernel has no route although there is a router: a host that forwards (`forwarding=1`)
/// ignores router advertisements.
#[must_use]
pub fn choose(
    routes: &[Ipv6Addr],
    routers: &[(Ipv6Addr, Option<Mac>)],
    neighbours: &[Neighbour],
) -> Option<NextHop> {
    let mac_of = |router: Ipv6Addr| {
        let entry = neighbours.iter().find(|entry| entry.address == router);
        entry.and_then(|entry| entry.mac)
    };
    if let Some(router) = routes.first().copied() {
        let mac = mac_of(router).or_else(|| advertised_mac(routers, router));
        return Some(NextHop { router, mac });
    }
    let (router, advertised) = routers.first().copied()?;
    Some(NextHop {
        router,
        mac: mac_of(router).or(advertised),
    })
}

/// What the router itself said, for the time until the kernel has resolved it.
fn advertised_mac(routers: &[(Ipv6Addr, Option<Mac>)], router: Ipv6Addr) -> Option<Mac> {
    let known = routers.iter().find(|(address, _)| *address == router);
    known.and_then(|(_, mac)| *mac)
}

/// Decides when the kernel should be asked to use a neighbour entry.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nudge {
    last: Option<Instant>,
}

impl Nudge {
    /// A packet goes (or would go) through the next hop: whether it is time for a nudge.
    pub fn due(&mut self, resolved: bool, now: Instant) -> bool {
        let interval = if resolved {
            NUDGE_INTERVAL
        } else {
            RESOLVE_INTERVAL
        };
        let due = self
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= interval);
        if due {
            self.last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const TWO: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const ADVERTISED: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn neighbour(address: Ipv6Addr, mac: Option<Mac>) -> Neighbour {
        Neighbour { address, mac }
    }

    #[test]
    fn the_kernels_route_and_neighbour_table_come_first() {
        let chosen = choose(
            &[ONE, TWO],
            &[(TWO, Some(ADVERTISED))],
            &[neighbour(TWO, None), neighbour(ONE, Some(MAC))],
        );
        let wanted = NextHop {
            router: ONE,
            mac: Some(MAC),
        };
        assert_eq!(chosen, Some(wanted));
    }

    #[test]
    fn what_a_router_said_of_itself_serves_until_it_is_resolved() {
        let routers = [(ONE, Some(ADVERTISED))];
        for neighbours in [vec![], vec![neighbour(ONE, None)]] {
            let chosen = choose(&[ONE], &routers, &neighbours).unwrap();
            assert_eq!(chosen.mac, Some(ADVERTISED));
        }
        assert_eq!(choose(&[ONE], &[], &[]).unwrap().mac, None);
    }

    #[test]
    fn without_a_route_the_advertising_routers_serve() {
        let routers = [(TWO, Some(ADVERTISED)), (ONE, None)];
        let chosen = choose(&[], &routers, &[]).unwrap();
        assert_eq!((chosen.router, chosen.mac), (TWO, Some(ADVERTISED)));
        let chosen = choose(&[], &routers, &[neighbour(TWO, Some(MAC))]).unwrap();
        assert_eq!(chosen.mac, Some(MAC));
        assert_eq!(choose(&[], &[], &[]), None);
    }

    #[test]
    fn nudges_come_at_most_every_five_seconds() {
        #[expect(clippy::disallowed_methods, reason = "virtual time needs an origin")]
        let start = Instant::now();
        let mut nudge = Nudge::default();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(nudge.due(true, at(0)));
        assert!(!nudge.due(true, at(4999)));
        assert!(nudge.due(true, at(5000)));
        assert!(!nudge.due(false, at(5999)));
        assert!(nudge.due(false, at(6000)));
    }
}
