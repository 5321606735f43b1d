//! Addresses: RFC 6052 §2.2 and §2.3, RFC 7757 §3, and the checksum-neutral address of a CLAT.

use std::net::{Ipv4Addr, Ipv6Addr};

use clat_core::{address::neutral_address, mapping::Instance};
use pref64::eam::{Eam, EamTable};

use crate::{Prefix, from_hex, vectors};

#[test]
fn addr_2_2_02_embedding() {
    type Row = (Prefix, Ipv4Addr, Ipv6Addr, String);
    for (Prefix(prefix), v4, v6, octets) in vectors::<Vec<Row>>("embed") {
        assert_eq!(prefix.embed(v4), v6, "{v4} in {prefix}");
        assert_eq!(prefix.embed(v4).octets().as_slice(), from_hex(&octets));
        assert_eq!(prefix.extract(v6), Some(v4), "{v6} in {prefix}");
    }
}

#[test]
fn addr_4_1_01_the_checksum_neutral_address() {
    let wanted: Ipv6Addr = vectors("neutral_clat");
    let address = neutral_address(
        "2001:db8:1:2::".parse().unwrap(),
        Instance::FIRST,
        "2001:db8:64::/96".parse().unwrap(),
        0x0246_c1a7_0001_0000,
    );
    assert_eq!(address, Some(wanted));
}

/// The mappings are those of the file; the addresses are those of RFC 7757 §3.3 and of section 11.2
/// of the checklist.
#[test]
fn eam_3_3_01_explicit_mappings() {
    let pairs: Vec<(String, String)> = vectors("eamt");
    let mappings = pairs.iter().map(|(v4, v6)| Eam::parse(v4, v6).unwrap());
    let table = EamTable::new(mappings.collect()).unwrap();
    for (v4, v6) in [
        ("192.0.2.1", "2001:db8:aaaa::"),
        ("192.0.2.2", "2001:db8:bbbb::b"),
        ("192.0.2.19", "2001:db8:cccc::3"),
        ("192.0.2.152", "2001:db8:dddd:0:6000::"),
        ("192.0.2.195", "2001:db8:eeee:9:8000::"),
        ("192.0.2.225", "64:ff9b::1"),
    ] {
        let (v4, v6) = (v4.parse().unwrap(), v6.parse().unwrap());
        assert_eq!(table.to_v6(v4), Some(v6), "{v4}");
        assert_eq!(table.to_v4(v6), Some(v4), "{v6}");
    }
}
