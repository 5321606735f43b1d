//! Discovery of the prefix: RFC 8781 §4, RFC 7050 §3.

use std::{collections::BTreeMap, net::Ipv6Addr, time::Duration};

use pref64::{
    Pref64,
    ra_option::{Pref64Option, scaled},
    well_known_name::find_prefixes,
};

use crate::{Prefix, from_hex, vectors};

#[test]
fn disc_8781_4_1_02_lifetimes_are_scaled() {
    let wanted: BTreeMap<u32, u16> = vectors("scaled");
    for (seconds, units) in wanted {
        let lifetime = Duration::from_secs(seconds.into());
        assert_eq!(scaled(lifetime), units, "{seconds}");
    }
}

#[test]
fn disc_8781_4_01_options() {
    type Row = (Prefix, u64, String, (Prefix, u64));
    for (Prefix(prefix), lifetime, hex, (Prefix(read), seconds)) in vectors::<Vec<Row>>("pref64") {
        let bytes = from_hex(&hex);
        let option = Pref64Option {
            prefix,
            lifetime: Duration::from_secs(lifetime),
        };
        assert_eq!(option.to_bytes().as_slice(), bytes, "{prefix}");
        let parsed = Pref64Option::parse(&bytes).unwrap().unwrap();
        assert_eq!((parsed.prefix, parsed.lifetime.as_secs()), (read, seconds));
    }
}

#[test]
fn disc_7050_3_02_prefixes_in_answers() {
    for (answers, wanted) in vectors::<Vec<(Vec<Ipv6Addr>, Vec<Prefix>)>>("rfc7050") {
        let wanted: Vec<Pref64> = wanted.into_iter().map(|it| it.0).collect();
        assert_eq!(find_prefixes(&answers), wanted, "{answers:?}");
    }
}
