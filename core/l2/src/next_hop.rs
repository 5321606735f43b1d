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

/// A router that advertised itself as a default router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Router {
    /// Its address.
    pub address: Ipv6Addr,
    /// The link-layer address that it told.
    pub mac: Option<Mac>,
    /// It announces the NAT64 prefix, and the host has no route of its own to that.
    pub announces: bool,
}

/// What the kernel's neighbour table says about a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: Ipv6Addr,
    /// Its link-layer address, if it is known and not known to be wrong.
    pub mac: Option<Mac>,
    /// It was looked for and did not answer.
    pub failed: bool,
}

/// Chooses the next hop: of the routers that announce the prefix, the kernel's, or else any, unless
/// it has failed (CLAT-C-03: what comes from one upstream belongs together); without one, the
/// kernel's; without that, any.
///
/// `routes` are the gateways of the kernel's routes to the prefix, best first. It may have none
/// although there are `routers`: a host that forwards (`forwarding=1`) ignores their advertisements.
/// Between equals the lowest address is taken, so that it does not change with who spoke last.
#[must_use]
pub fn choose(
    routes: &[Ipv6Addr],
    routers: &[Router],
    neighbours: &[Neighbour],
) -> Option<NextHop> {
    let entry = |router| neighbours.iter().find(|it| it.address == router);
    let has_failed = |router| entry(router).is_some_and(|it| it.failed);
    let by_kernel = routes.first().copied();
    let announcing = routers
        .iter()
        .filter(|it| it.announces && !has_failed(it.address))
        .map(|it| it.address)
        .min_by_key(|it| (Some(*it) != by_kernel, *it));
    let all = routers.iter().map(|it| it.address);
    let any = || all.min_by_key(|it| (has_failed(*it), *it));
    let router = announcing.or(by_kernel).or_else(any)?;
    let known = entry(router).and_then(|it| it.mac);
    // What the router itself said serves until the kernel has resolved it, or failed to.
    let told = || routers.iter().find(|it| it.address == router)?.mac;
    let mac = match has_failed(router) {
        true => None,
        false => known.or_else(told),
    };
    Some(NextHop { router, mac })
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
        Neighbour {
            address,
            mac,
            failed: false,
        }
    }

    fn failed(address: Ipv6Addr) -> Neighbour {
        Neighbour {
            failed: true,
            ..neighbour(address, None)
        }
    }

    fn router(address: Ipv6Addr, mac: Option<Mac>) -> Router {
        Router {
            address,
            mac,
            announces: false,
        }
    }

    fn announcing(address: Ipv6Addr) -> Router {
        Router {
            announces: true,
            ..router(address, Some(ADVERTISED))
        }
    }

    #[test]
    fn the_kernels_route_and_neighbour_table_come_first() {
        let chosen = choose(
            &[ONE, TWO],
            &[router(TWO, Some(ADVERTISED))],
            &[neighbour(TWO, None), neighbour(ONE, Some(MAC))],
        );
        let wanted = NextHop {
            router: ONE,
            mac: Some(MAC),
        };
        assert_eq!(chosen, Some(wanted));
    }

    #[test]
    fn clat_c_03_the_router_that_announces_the_prefix_comes_before_the_kernels() {
        let chosen = |routers: &[Router], neighbours: &[Neighbour]| {
            choose(&[ONE], routers, neighbours).unwrap().router
        };
        let routers = [router(ONE, Some(MAC)), announcing(TWO)];
        assert_eq!(chosen(&routers, &[]), TWO);
        assert_eq!(chosen(&routers, &[neighbour(TWO, None)]), TWO);
        // Of two that do, the kernel's.
        assert_eq!(chosen(&[announcing(TWO), announcing(ONE)], &[]), ONE);
        // It has failed, or is no default router any more.
        assert_eq!(chosen(&routers, &[failed(TWO)]), ONE);
        assert_eq!(chosen(&routers[..1], &[]), ONE);
    }

    #[test]
    fn what_a_router_said_of_itself_serves_until_it_is_resolved() {
        let routers = [router(ONE, Some(ADVERTISED))];
        for neighbours in [vec![], vec![neighbour(ONE, None)]] {
            let chosen = choose(&[ONE], &routers, &neighbours).unwrap();
            assert_eq!(chosen.mac, Some(ADVERTISED));
        }
        assert_eq!(choose(&[ONE], &[], &[]).unwrap().mac, None);
        // Frames to who does not answer there go nowhere: it must be looked for.
        for routes in [&[ONE][..], &[]] {
            let chosen = choose(routes, &routers, &[failed(ONE)]).unwrap();
            assert_eq!((chosen.router, chosen.mac), (ONE, None));
        }
    }

    #[test]
    fn without_a_route_the_advertising_routers_serve() {
        let mut routers = [router(TWO, Some(ADVERTISED)), router(ONE, None)];
        for _ in 0..2 {
            let chosen = choose(&[], &routers, &[]).unwrap();
            assert_eq!((chosen.router, chosen.mac), (ONE, None));
            let chosen = choose(&[], &routers, &[failed(ONE)]).unwrap();
            assert_eq!((chosen.router, chosen.mac), (TWO, Some(ADVERTISED)));
            // Whoever spoke last.
            routers.reverse();
        }
        let neighbours = [failed(ONE), neighbour(TWO, Some(MAC))];
        assert_eq!(choose(&[], &routers, &neighbours).unwrap().mac, Some(MAC));
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
