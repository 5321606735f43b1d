//! The DNS servers that routers announce (RFC 8106), with their lifetimes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use pref64::tracker::IfIndex;
use wire::ndp::{DnsServer, RouterAdvertisement};

/// Servers remembered per interface. RFC 8106 §5.3.1 finds three enough.
const MAX_SERVERS: usize = 8;

/// The servers of every interface, in the order in which they were learned.
#[derive(Debug, Default)]
pub(crate) struct AnnouncedServers(BTreeMap<IfIndex, Vec<Server>>);

#[derive(Clone, Copy, Debug)]
struct Server {
    address: Ipv6Addr,
    /// None is never.
    expires: Option<Instant>,
}

impl Server {
    fn is_live(&self, now: Instant) -> bool {
        self.expires.is_none_or(|at| at > now)
    }
}

impl AnnouncedServers {
    /// An advertisement was heard. A lifetime of zero ends one at once.
    pub(crate) fn hear(
        &mut self,
        interface: IfIndex,
        advertisement: &RouterAdvertisement<'_>,
        now: Instant,
    ) {
        let servers = self.0.entry(interface).or_default();
        servers.retain(|it| it.is_live(now));
        for announced in advertisement.dns_servers().filter(is_possible) {
            let known = servers
                .iter()
                .position(|it| it.address == announced.address);
            match (announced.lifetime, known) {
                (0, Some(at)) => drop(servers.remove(at)),
                (0, None) => {}
                (lifetime, Some(at)) => servers[at].expires = expiry(lifetime, now),
                (lifetime, None) if servers.len() < MAX_SERVERS => servers.push(Server {
                    address: announced.address,
                    expires: expiry(lifetime, now),
                }),
                (_, None) => {}
            }
        }
        self.0.retain(|_, servers| !servers.is_empty());
    }

    /// Those of an interface that may be used.
    pub(crate) fn live(&self, interface: IfIndex, now: Instant) -> impl Iterator<Item = IpAddr> {
        let known = self.0.get(&interface).into_iter().flatten();
        let live = known.filter(move |it| it.is_live(now));
        live.map(|it| it.address.into())
    }

    /// The interface is on another network.
    pub(crate) fn forget(&mut self, interface: IfIndex) {
        self.0.remove(&interface);
    }
}

fn expiry(lifetime: u32, now: Instant) -> Option<Instant> {
    (lifetime != u32::MAX).then(|| now + Duration::from_secs(lifetime.into()))
}

/// Nobody else is there than this host or everybody.
fn is_possible(server: &DnsServer) -> bool {
    let address = server.address;
    !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{advertisement, router};

    const LINK: IfIndex = 3;

    fn hear(servers: &mut AnnouncedServers, announced: &[&str], lifetime: u32, now: Instant) {
        let addresses: Vec<_> = announced.iter().map(|it| it.parse().unwrap()).collect();
        let option = DnsServer::option(&addresses, lifetime);
        let (envelope, message) = advertisement(router(1), 1800, &option);
        let advertisement = RouterAdvertisement::new_checked(&envelope, &message).unwrap();
        servers.hear(LINK, &advertisement, now);
    }

    fn live(servers: &AnnouncedServers, now: Instant) -> Vec<String> {
        let live = servers.live(LINK, now);
        live.map(|it| it.to_string()).collect()
    }

    #[test]
    fn disc_7050_3_01_announced_servers_live_as_long_as_announced() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut servers = AnnouncedServers::default();
        hear(&mut servers, &["fe80::53", "2001:db8::53"], 600, start);
        hear(&mut servers, &["2001:db8::54"], u32::MAX, start);
        let all = ["fe80::53", "2001:db8::53", "2001:db8::54"];
        assert_eq!(live(&servers, after(599)), all);
        // A refresh keeps the place; zero ends it.
        hear(&mut servers, &["2001:db8::53"], 1200, start);
        hear(&mut servers, &["fe80::53", "fe80::99"], 0, start);
        assert_eq!(live(&servers, start), ["2001:db8::53", "2001:db8::54"]);
        assert_eq!(live(&servers, after(1200)), ["2001:db8::54"]);
        assert_eq!(live(&servers, after(1 << 32)), ["2001:db8::54"]);
        servers.forget(LINK);
        assert!(live(&servers, start).is_empty());
    }

    #[test]
    fn a_hostile_network_cannot_fill_the_memory() {
        let start = Instant::now();
        let mut servers = AnnouncedServers::default();
        hear(&mut servers, &["::1", "::", "ff02::1"], 600, start);
        assert!(servers.0.is_empty());
        for n in 0..100 {
            hear(&mut servers, &[&format!("2001:db8::{n:x}")], 60, start);
        }
        assert_eq!(live(&servers, start).len(), MAX_SERVERS);
        // The dead make room.
        let later = start + Duration::from_secs(60);
        hear(&mut servers, &["2001:db8::53"], 60, later);
        assert_eq!(live(&servers, later), ["2001:db8::53"]);
    }
}
