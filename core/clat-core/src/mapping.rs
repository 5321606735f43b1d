//! [`ClatMapping`]: the addresses of a CLAT (RFC 6877 §6.3).

use core::net::{Ipv4Addr, Ipv6Addr};

use pref64::{Pref64, siit::NonGlobal, special::is_global};
use xlat::{Mapping, Refusal};

/// The addresses that are for the inside of one host (RFC 7335).
pub const SERVICE_CONTINUITY: (Ipv4Addr, u8) = (Ipv4Addr::new(192, 0, 0, 0), 29);

/// Which of the up to three CLATs of a host this is: each has a pair of addresses out of
/// 192.0.0.0/29 to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance(u8);

impl Instance {
    /// The first (and as a rule only) one.
    pub const FIRST: Self = Self(0);

    /// The instance number `n`, 0 to 2.
    #[must_use]
    pub fn new(n: u8) -> Option<Self> {
        (n < 3).then_some(Self(n))
    }

    /// The host's address: 192.0.0.1, .3 or .5.
    #[must_use]
    pub fn host(self) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 0, 2 * self.0 + 1)
    }

    /// The translator's own address, which shows in traceroutes: 192.0.0.2, .4 or .6.
    #[must_use]
    pub fn translator(self) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 0, 2 * self.0 + 2)
    }
}

/// The mapping of a CLAT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClatMapping {
    /// The host's IPv4 address.
    pub host: Ipv4Addr,
    /// The IPv6 address it has on the network.
    pub clat: Ipv6Addr,
    /// The prefix that packets are sent to.
    pub prefix: Pref64,
    /// Prefixes that packets still come from.
    pub retained: Vec<Pref64>,
    /// Non-global IPv4 addresses under the well-known prefix.
    pub wkp_non_global: NonGlobal,
}

impl ClatMapping {
    /// A peer's IPv6 address.
    fn peer_v6(&self, address: Ipv4Addr) -> Result<Ipv6Addr, Refusal> {
        if is_never_a_peer(address) {
            return Err(Refusal::Excluded);
        }
        self.check_global(self.prefix, address)?;
        Ok(self.prefix.embed(address))
    }

    /// A peer's IPv4 address.
    fn peer_v4(&self, address: Ipv6Addr) -> Result<Ipv4Addr, Refusal> {
        let prefix = self.prefix_around(address).ok_or(Refusal::NoMapping)?;
        let peer = prefix.extract(address).ok_or(Refusal::NoMapping)?;
        if is_never_a_peer(peer) {
            return Err(Refusal::Excluded);
        }
        self.check_global(prefix, peer)?;
        Ok(peer)
    }

    /// The prefix that an address lies in. Of two, one of which contains the other, the longer one
    /// is meant.
    fn prefix_around(&self, address: Ipv6Addr) -> Option<Pref64> {
        let all = [self.prefix]
            .into_iter()
            .chain(self.retained.iter().copied());
        all.filter(|prefix| prefix.contains(address))
            .max_by_key(|prefix| prefix.length())
    }

    fn check_global(&self, prefix: Pref64, address: Ipv4Addr) -> Result<(), Refusal> {
        let restricted = prefix.is_well_known() && self.wkp_non_global == NonGlobal::Drop;
        if restricted && !is_global(address) {
            return Err(Refusal::NonGlobal);
        }
        Ok(())
    }

    fn host_v6(&self, address: Ipv4Addr) -> Result<Ipv6Addr, Refusal> {
        if address == self.host {
            Ok(self.clat)
        } else {
            Err(Refusal::NoMapping)
        }
    }

    fn host_v4(&self, address: Ipv6Addr) -> Result<Ipv4Addr, Refusal> {
        if address == self.clat {
            Ok(self.host)
        } else {
            Err(Refusal::NoMapping)
        }
    }
}

/// Whether an address is for the inside of a host with a CLAT (RFC 7335).
#[must_use]
pub fn is_service_continuity(address: Ipv4Addr) -> bool {
    let (inside, len) = SERVICE_CONTINUITY;
    (address.to_bits() ^ inside.to_bits()) >> (32 - len) == 0
}

/// Addresses with which a packet neither goes to nor comes from the network: this host's inside,
/// this link, groups.
fn is_never_a_peer(address: Ipv4Addr) -> bool {
    is_service_continuity(address)
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.octets()[0] == 0
}

impl Mapping<Ipv4Addr, Ipv6Addr> for ClatMapping {
    fn source(&self, address: Ipv4Addr) -> Result<Ipv6Addr, Refusal> {
        self.host_v6(address)
    }

    fn destination(&self, address: Ipv4Addr) -> Result<Ipv6Addr, Refusal> {
        self.peer_v6(address)
    }

    fn inner_source(&self, address: Ipv4Addr) -> Result<Ipv6Addr, Refusal> {
        self.peer_v6(address)
    }

    fn inner_destination(&self, address: Ipv4Addr) -> Result<Ipv6Addr, Refusal> {
        self.host_v6(address)
    }
}

impl Mapping<Ipv6Addr, Ipv4Addr> for ClatMapping {
    fn source(&self, address: Ipv6Addr) -> Result<Ipv4Addr, Refusal> {
        self.peer_v4(address)
    }

    fn destination(&self, address: Ipv6Addr) -> Result<Ipv4Addr, Refusal> {
        self.host_v4(address)
    }

    fn inner_source(&self, address: Ipv6Addr) -> Result<Ipv4Addr, Refusal> {
        self.host_v4(address)
    }

    fn inner_destination(&self, address: Ipv6Addr) -> Result<Ipv4Addr, Refusal> {
        self.peer_v4(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, 0x464);

    fn mapping(prefix: &str, wkp_non_global: NonGlobal) -> ClatMapping {
        ClatMapping {
            host: Instance::FIRST.host(),
            clat: CLAT,
            prefix: prefix.parse().unwrap(),
            retained: Vec::new(),
            wkp_non_global,
        }
    }

    fn to_v6(mapping: &ClatMapping, address: &str) -> Result<Ipv6Addr, Refusal> {
        mapping.destination(address.parse::<Ipv4Addr>().unwrap())
    }

    fn to_v4(mapping: &ClatMapping, address: &str) -> Result<Ipv4Addr, Refusal> {
        mapping.source(address.parse::<Ipv6Addr>().unwrap())
    }

    #[test]
    fn addr_7335_01_every_instance_has_its_own_pair() {
        let pairs: Vec<_> = (0..4)
            .map_while(Instance::new)
            .map(|instance| {
                (
                    instance.host().octets()[3],
                    instance.translator().octets()[3],
                )
            })
            .collect();
        assert_eq!(pairs, [(1, 2), (3, 4), (5, 6)]);
    }

    /// 192.0.0.0/29 is never seen on the network, not even inside an IPv6 address.
    #[test]
    fn addr_7335_01_the_inside_is_never_a_peer() {
        let mapping = mapping("2001:db8:64::/96", NonGlobal::Translate);
        for last in 0..8 {
            let inside = format!("192.0.0.{last}");
            assert_eq!(to_v6(&mapping, &inside), Err(Refusal::Excluded));
            let outside = format!("2001:db8:64::192.0.0.{last}");
            assert_eq!(to_v4(&mapping, &outside), Err(Refusal::Excluded));
        }
        assert!(to_v6(&mapping, "192.0.0.8").is_ok());
    }

    #[test]
    fn clat_6_3_01_the_host_is_mapped_explicitly_and_peers_by_the_prefix() {
        let mapping = mapping("2001:db8:64::/96", NonGlobal::Translate);
        let host = Instance::FIRST.host();
        let peer4 = Ipv4Addr::new(198, 51, 100, 10);
        let peer6: Ipv6Addr = "2001:db8:64::198.51.100.10".parse().unwrap();
        assert_eq!(mapping.source(host), Ok(CLAT));
        assert_eq!(mapping.destination(peer4), Ok(peer6));
        assert_eq!(mapping.inner_source(peer4), Ok(peer6));
        assert_eq!(mapping.inner_destination(host), Ok(CLAT));
        assert_eq!(mapping.source(peer6), Ok(peer4));
        assert_eq!(mapping.destination(CLAT), Ok(host));
        assert_eq!(mapping.inner_source(CLAT), Ok(host));
        assert_eq!(mapping.inner_destination(peer6), Ok(peer4));
    }

    /// RFC 7757 appendix A.1: the simple hairpin rule would forbid what a CLAT lives by, the
    /// explicit mapping of a source. And there is nothing to turn around: the one mapped address
    /// is never a destination.
    #[test]
    fn eam_4_2_01_a_clat_has_no_hairpin_rules() {
        let mapping = mapping("2001:db8:64::/96", NonGlobal::Translate);
        let host = Instance::FIRST.host();
        assert_eq!(mapping.source(host), Ok(CLAT));
        assert_eq!(mapping.inner_destination(host), Ok(CLAT));
        assert_eq!(mapping.destination(host), Err(Refusal::Excluded));
        assert_eq!(mapping.inner_source(host), Err(Refusal::Excluded));
        let own = mapping.prefix.embed(host);
        assert_eq!(mapping.source(own), Err(Refusal::Excluded));
        assert_eq!(mapping.inner_destination(own), Err(Refusal::Excluded));
    }

    #[test]
    fn addr_3_1_02_the_restriction_is_for_the_well_known_prefix_only() {
        for prefix in ["64:ff9b:1::/48", "64:ff9b:1:fffe::/96", "2001:db8:64::/96"] {
            let mapping = mapping(prefix, NonGlobal::Drop);
            let private = Ipv4Addr::new(10, 0, 0, 1);
            let written = mapping.prefix.embed(private);
            assert_eq!(mapping.destination(private), Ok(written));
            assert_eq!(mapping.source(written), Ok(private));
        }
    }

    #[test]
    fn clat_m_02_sources_outside_the_prefix_are_not_mapped() {
        let mapping = mapping("2001:db8:64::/96", NonGlobal::Translate);
        assert_eq!(to_v4(&mapping, "2001:db8:65::1"), Err(Refusal::NoMapping));
        let stranger: Ipv6Addr = "2001:db8:1:2::1".parse().unwrap();
        assert_eq!(
            Mapping::<Ipv6Addr, Ipv4Addr>::destination(&mapping, stranger),
            Err(Refusal::NoMapping)
        );
    }

    /// What was sent by the old prefix is still answered from it.
    #[test]
    fn packets_come_from_every_prefix_that_holds() {
        let mut mapping = mapping("2001:db8:64::/96", NonGlobal::Drop);
        mapping.retained = vec![Pref64::WELL_KNOWN, "2001:db8::/32".parse().unwrap()];
        let peer = Ok(Ipv4Addr::new(198, 51, 100, 10));
        for prefix in ["2001:db8:64::", "64:ff9b::"] {
            let source = format!("{prefix}192.0.2.1");
            let expected = match prefix {
                "64:ff9b::" => Err(Refusal::NonGlobal),
                _ => Ok(Ipv4Addr::new(192, 0, 2, 1)),
            };
            assert_eq!(to_v4(&mapping, &source), expected, "{source}");
        }
        assert_eq!(
            to_v4(&mapping, "64:ff9b::8.8.8.8"),
            Ok(Ipv4Addr::new(8, 8, 8, 8))
        );
        // In both of two: 2001:db8::/32 would make 0.100.0.0 of it.
        assert_eq!(to_v4(&mapping, "2001:db8:64::198.51.100.10"), peer);
        assert_eq!(to_v4(&mapping, "2001:db8:c633:640a::"), peer);
        assert_eq!(to_v4(&mapping, "2001:db9::1"), Err(Refusal::NoMapping));
        // Nothing is sent there.
        assert_eq!(
            to_v6(&mapping, "8.8.8.8"),
            Ok("2001:db8:64::8.8.8.8".parse().unwrap())
        );
    }

    #[test]
    fn clat_m_03_only_the_clats_address_and_never_special_destinations() {
        let mapping = mapping("2001:db8:64::/96", NonGlobal::Translate);
        for other in ["10.0.0.1", "192.0.0.3", "172.17.0.2"] {
            let other: Ipv4Addr = other.parse().unwrap();
            assert_eq!(mapping.source(other), Err(Refusal::NoMapping));
        }
        for special in [
            "127.0.0.1",
            "127.255.255.255",
            "169.254.0.0",
            "169.254.169.254",
            "224.0.0.251",
            "239.255.255.250",
            "255.255.255.255",
            "0.0.0.0",
        ] {
            assert_eq!(
                to_v6(&mapping, special),
                Err(Refusal::Excluded),
                "{special}"
            );
            let written = format!("2001:db8:64::{special}");
            assert_eq!(to_v4(&mapping, &written), Err(Refusal::Excluded));
        }
    }

    #[test]
    fn addr_3_1_01_private_addresses_under_the_well_known_prefix() {
        let translating = mapping("64:ff9b::/96", NonGlobal::Translate);
        assert!(to_v6(&translating, "10.0.0.1").is_ok());
        assert!(to_v4(&translating, "64:ff9b::10.0.0.1").is_ok());
        let dropping = mapping("64:ff9b::/96", NonGlobal::Drop);
        assert_eq!(to_v6(&dropping, "10.0.0.1"), Err(Refusal::NonGlobal));
        assert_eq!(
            to_v4(&dropping, "64:ff9b::10.0.0.1"),
            Err(Refusal::NonGlobal)
        );
        assert!(to_v6(&dropping, "8.8.8.8").is_ok());
        let own = mapping("2001:db8:64::/96", NonGlobal::Drop);
        assert!(to_v6(&own, "10.0.0.1").is_ok());
    }
}
