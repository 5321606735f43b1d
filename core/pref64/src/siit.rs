//! The stateless mapping of addresses: explicit mappings first, RFC 6052 for the rest
//! (RFC 7757 §3.3), with the hairpin rules of RFC 7757 §4.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    Pref64,
    eam::EamTable,
    special::{Special, is_global},
};

/// What to do with a non-global IPv4 address under the well-known prefix (RFC 6052 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonGlobal {
    /// Do not translate: the text of RFC 6052.
    Drop,
    /// Translate: draft-ietf-v6ops-nat64-wkp-1918.
    Translate,
}

/// How two hosts with explicit mappings reach each other through the translator (RFC 7757 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hairpin {
    /// Not at all. What a CLAT needs: its host's address is an explicit mapping *and* a source.
    Off,
    /// §4.2.1: IPv4 sources (and destinations inside ICMP errors) are never mapped explicitly.
    Simple,
    /// §4.2.2: a packet to an explicitly mapped host that was addressed by the prefix is turned
    /// around inside the translator; only then do the restrictions of the simple rule hold.
    Intrinsic,
}

/// Where in a packet an address stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Source of the packet.
    Source,
    /// Source of an ICMP error that is not the destination of the packet it quotes: a router on
    /// the way, which no hairpin rule is about.
    Router,
    /// Destination of the packet.
    Destination,
    /// Source of the packet quoted in an ICMP error.
    InnerSource,
    /// Destination of the packet quoted in an ICMP error.
    InnerDestination,
}

/// Why an address has no counterpart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmappable {
    /// No mapping covers it, and it is outside the prefix (or there is none).
    NoMapping,
    /// Non-global under the well-known prefix.
    NonGlobal,
    /// Multicast.
    Multicast,
}

/// A stateless mapping.
#[derive(Clone, Debug)]
pub struct Siit {
    /// Explicit mappings.
    pub eamt: EamTable,
    /// The prefixes for everything else. An IPv4 address is written with the first; none of them
    /// lies in another.
    pub prefixes: Vec<Pref64>,
    /// The hairpin rules.
    pub hairpin: Hairpin,
    /// Non-global addresses under the well-known prefix.
    pub wkp_non_global: NonGlobal,
}

impl Siit {
    /// The IPv6 address for an IPv4 address that stands at `place`.
    ///
    /// # Errors
    /// [`Unmappable`].
    pub fn to_v6(&self, address: Ipv4Addr, place: Place) -> Result<Ipv6Addr, Unmappable> {
        let restricted = self.hairpin == Hairpin::Simple
            && matches!(place, Place::Source | Place::InnerDestination);
        self.to_v6_unless(address, restricted)
    }

    /// Like [`Self::to_v6`], for a packet that [`Self::hairpins`].
    ///
    /// # Errors
    /// [`Unmappable`].
    pub fn to_v6_hairpinned(
        &self,
        address: Ipv4Addr,
        place: Place,
    ) -> Result<Ipv6Addr, Unmappable> {
        self.to_v6_unless(
            address,
            matches!(place, Place::Source | Place::InnerDestination),
        )
    }

    /// The IPv4 address for an IPv6 address.
    ///
    /// # Errors
    /// [`Unmappable`].
    pub fn to_v4(&self, address: Ipv6Addr) -> Result<Ipv4Addr, Unmappable> {
        if let Some(mapped) = self.eamt.to_v4(address) {
            return Ok(mapped);
        }
        let (prefix, mapped) = self.extract(address).ok_or(Unmappable::NoMapping)?;
        self.check(prefix, mapped)?;
        Ok(mapped)
    }

    /// The prefix that an address was written with, and the IPv4 address in it.
    fn extract(&self, address: Ipv6Addr) -> Option<(Pref64, Ipv4Addr)> {
        let mut prefixes = self.prefixes.iter();
        prefixes.find_map(|prefix| Some((*prefix, prefix.extract(address)?)))
    }

    /// Whether a packet translated to IPv4 must be turned around to IPv6 at once: its destination
    /// was written with the prefix, and stands for an explicitly mapped host (RFC 7757 §4.2.2). For
    /// an ICMP error, ask with the source of the packet that it quotes.
    ///
    /// A destination with an explicit mapping of its own is none: its sender had the choice, and
    /// the packet leaves as IPv4.
    #[must_use]
    pub fn hairpins(&self, destination: Ipv6Addr) -> bool {
        let by_prefix = self.extract(destination);
        self.hairpin == Hairpin::Intrinsic
            && self.eamt.to_v4(destination).is_none()
            && by_prefix.is_some_and(|(_, address)| self.eamt.to_v6(address).is_some())
    }

    fn to_v6_unless(&self, address: Ipv4Addr, restricted: bool) -> Result<Ipv6Addr, Unmappable> {
        if !restricted && let Some(mapped) = self.eamt.to_v6(address) {
            return Ok(mapped);
        }
        let prefix = *self.prefixes.first().ok_or(Unmappable::NoMapping)?;
        self.check(prefix, address)?;
        Ok(prefix.embed(address))
    }

    fn check(&self, prefix: Pref64, address: Ipv4Addr) -> Result<(), Unmappable> {
        if Special::of(address) == Some(Special::Multicast) {
            return Err(Unmappable::Multicast);
        }
        let restricted = prefix.is_well_known() && self.wkp_non_global == NonGlobal::Drop;
        if restricted && !is_global(address) {
            return Err(Unmappable::NonGlobal);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eam::Eam;

    const GLOBAL: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);
    const PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 50);

    fn siit(prefix: &str, wkp_non_global: NonGlobal, hairpin: Hairpin) -> Siit {
        let host = Eam::parse("192.0.2.1", "2001:db8:aaaa::1").unwrap();
        Siit {
            eamt: EamTable::new(vec![host]).unwrap(),
            prefixes: vec![prefix.parse().unwrap()],
            hairpin,
            wkp_non_global,
        }
    }

    #[test]
    fn addr_3_1_01_non_global_addresses_under_the_well_known_prefix() {
        let dropping = siit("64:ff9b::/96", NonGlobal::Drop, Hairpin::Off);
        let written = "64:ff9b::a00:132".parse().unwrap();
        assert_eq!(
            dropping.to_v6(PRIVATE, Place::Destination),
            Err(Unmappable::NonGlobal)
        );
        assert_eq!(dropping.to_v4(written), Err(Unmappable::NonGlobal));
        assert_eq!(
            dropping.to_v6(GLOBAL, Place::Destination),
            Ok("64:ff9b::808:808".parse().unwrap())
        );
        let translating = siit("64:ff9b::/96", NonGlobal::Translate, Hairpin::Off);
        assert_eq!(translating.to_v6(PRIVATE, Place::Destination), Ok(written));
        assert_eq!(translating.to_v4(written), Ok(PRIVATE));
    }

    #[test]
    fn addr_3_1_02_the_restriction_is_for_the_well_known_prefix_only() {
        for (prefix, written) in [
            ("2001:db8:64::/96", "2001:db8:64::a00:132"),
            ("64:ff9b:1::/96", "64:ff9b:1::a00:132"),
            ("64:ff9b:1::/48", "64:ff9b:1:a00:1:3200::"),
        ] {
            let siit = siit(prefix, NonGlobal::Drop, Hairpin::Off);
            let written = written.parse().unwrap();
            assert_eq!(siit.to_v6(PRIVATE, Place::Destination), Ok(written));
            assert_eq!(siit.to_v4(written), Ok(PRIVATE));
        }
    }

    #[test]
    fn addr_3_1_03_multicast_has_no_counterpart() {
        let siit = siit("2001:db8:64::/96", NonGlobal::Translate, Hairpin::Off);
        let group = Ipv4Addr::new(224, 0, 0, 1);
        assert_eq!(
            siit.to_v6(group, Place::Destination),
            Err(Unmappable::Multicast)
        );
        let written = siit.prefixes[0].embed(group);
        assert_eq!(siit.to_v4(written), Err(Unmappable::Multicast));
    }

    #[test]
    fn eam_3_3_01_each_address_is_mapped_by_itself_and_falls_back_to_rfc_6052() {
        let siit = siit("2001:db8:64::/96", NonGlobal::Drop, Hairpin::Off);
        let host = Ipv4Addr::new(192, 0, 2, 1);
        for place in [Place::Source, Place::InnerDestination] {
            assert_eq!(
                siit.to_v6(host, place),
                Ok("2001:db8:aaaa::1".parse().unwrap())
            );
            assert_eq!(
                siit.to_v6(GLOBAL, place),
                Ok("2001:db8:64::808:808".parse().unwrap())
            );
        }
        assert_eq!(
            siit.to_v4("2001:db8:bbbb::1".parse().unwrap()),
            Err(Unmappable::NoMapping)
        );
        let without = Siit {
            prefixes: Vec::new(),
            ..siit
        };
        assert_eq!(
            without.to_v6(GLOBAL, Place::Source),
            Err(Unmappable::NoMapping)
        );
    }

    #[test]
    fn eam_4_2_01_hairpin_rules() {
        let host = Ipv4Addr::new(192, 0, 2, 1);
        let by_mapping: Ipv6Addr = "2001:db8:aaaa::1".parse().unwrap();
        let by_prefix: Ipv6Addr = "2001:db8:64::c000:201".parse().unwrap();
        let (explicit, algorithmic) = (Ok(by_mapping), Ok(by_prefix));

        // Simple: sources and inner destinations look like the peer's view of the translator.
        let simple = siit("2001:db8:64::/96", NonGlobal::Drop, Hairpin::Simple);
        assert_eq!(simple.to_v6(host, Place::Source), algorithmic);
        assert_eq!(simple.to_v6(host, Place::InnerDestination), algorithmic);
        assert_eq!(simple.to_v6(host, Place::Destination), explicit);
        assert_eq!(simple.to_v6(host, Place::InnerSource), explicit);
        assert_eq!(simple.to_v6(host, Place::Router), explicit);
        assert!(!simple.hairpins(by_prefix));

        // Intrinsic: unrestricted, unless the packet is turned around.
        let intrinsic = siit("2001:db8:64::/96", NonGlobal::Drop, Hairpin::Intrinsic);
        assert_eq!(intrinsic.to_v6(host, Place::Source), explicit);
        assert!(intrinsic.hairpins(by_prefix));
        // Not the host's own address, which has no way around, and not other hosts.
        assert!(!intrinsic.hairpins(by_mapping));
        assert!(!intrinsic.hairpins(intrinsic.prefixes[0].embed(GLOBAL)));
        assert!(!intrinsic.hairpins("2001:db8:ffff::1".parse().unwrap()));
        let own = Eam::parse("198.51.100.1", &by_prefix.to_string()).unwrap();
        let host_mapping = Eam::parse("192.0.2.1", "2001:db8:aaaa::1").unwrap();
        let with_own = Siit {
            eamt: EamTable::new(vec![host_mapping, own]).unwrap(),
            ..intrinsic.clone()
        };
        assert!(!with_own.hairpins(by_prefix));
        assert_eq!(intrinsic.to_v6_hairpinned(host, Place::Source), algorithmic);
        assert_eq!(
            intrinsic.to_v6_hairpinned(host, Place::InnerDestination),
            algorithmic
        );
        for place in [Place::Destination, Place::InnerSource, Place::Router] {
            assert_eq!(intrinsic.to_v6_hairpinned(host, place), explicit);
        }

        // Off, as in a CLAT: its host is a source that must be mapped explicitly.
        let off = siit("2001:db8:64::/96", NonGlobal::Drop, Hairpin::Off);
        assert_eq!(off.to_v6(host, Place::Source), explicit);
        assert!(!off.hairpins(by_prefix));
    }
}
