//! ICMP: types, codes and pointers (RFC 7915 §4.2, §5.2), and the lengths of RFC 4884.

use xlat::{
    extension::{Units, lay_out},
    icmp_types::{self, Becomes},
};

use crate::vectors;

/// What a pointer that the list does not reach becomes: nothing.
fn at(wanted: &[Option<u8>], pointer: usize) -> Option<u8> {
    wanted.get(pointer).copied().flatten()
}

#[test]
fn xlat_4_2_01_pointers() {
    let wanted: Vec<Option<u8>> = vectors("pointer46");
    for pointer in 0..=u8::MAX {
        let became = icmp_types::pointer_v4_to_v6(pointer);
        assert_eq!(became, at(&wanted, pointer.into()), "{pointer}");
    }
}

#[test]
fn xlat_5_2_01_pointers() {
    let wanted: Vec<Option<u8>> = vectors("pointer64");
    for pointer in 0..=u16::MAX {
        let became = icmp_types::pointer_v6_to_v4(pointer.into());
        assert_eq!(became, at(&wanted, pointer.into()), "{pointer}");
    }
}

/// Every type and code: what a list does not mention is dropped.
fn check_types(list: &str, translate: fn(u8, u8) -> Becomes) {
    let wanted: Vec<((u8, u8), (u8, u8))> = vectors(list);
    for kind in 0..=u8::MAX {
        for code in 0..=u8::MAX {
            let entry = wanted.iter().find(|it| it.0 == (kind, code));
            let became = match translate(kind, code) {
                Becomes::Echo(kind) => Some((kind, 0)),
                Becomes::Error { kind, code, .. } => Some((kind, code)),
                Becomes::Nothing => None,
            };
            assert_eq!(became, entry.map(|it| it.1), "{list}: {kind}/{code}");
        }
    }
}

#[test]
fn xlat_4_2_01_types_and_codes() {
    check_types("icmp46", icmp_types::v4_to_v6);
}

#[test]
fn xlat_5_2_01_types_and_codes() {
    check_types("icmp64", icmp_types::v6_to_v4);
}

/// More room than any ICMP error has, so that only the units limit the quote.
const ROOM: usize = 60_000;

/// Any extension structure: its length does not matter where there is room.
const STRUCTURE: usize = 8;

#[test]
fn xlat_4_2_03_length_of_the_quote() {
    for (quote, (padded, length)) in vectors::<Vec<(usize, (usize, u8))>>("rfc4884_46") {
        let layout = lay_out(quote + 20, STRUCTURE, Units::Words64, ROOM);
        assert_eq!((layout.padded, layout.length), (padded, length), "{quote}");
    }
}

#[test]
fn xlat_5_2_03_length_of_the_quote() {
    for (quote, (padded, words)) in vectors::<Vec<(usize, (usize, u16))>>("rfc4884_64") {
        let layout = lay_out(quote - 20, STRUCTURE, Units::Words32, ROOM);
        // The arithmetic of the file knows no octet; ours cuts the quote to what one can count.
        let wanted = match u8::try_from(words) {
            Ok(length) => (padded, length),
            Err(_) => (255 * 4, 255),
        };
        assert_eq!((layout.padded, layout.length), wanted, "{quote}");
    }
}
