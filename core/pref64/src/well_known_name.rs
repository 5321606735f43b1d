//! NAT64 prefixes out of the AAAA answers for `ipv4only.arpa` (RFC 7050 §3).
//!
//! The rule of the text, "the value occurs once, else look for the other address", misreads a
//! prefix that itself contains a well-known address: of `2001:db8:c000:aa::/96` the .171 answer
//! holds `c000:aa` once and would yield a bogus `2001:db8::/32`. So an answer with more than one
//! reading counts only if the sibling answer, the same prefix with the other address, is there too.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::{Length, Pref64};

/// The addresses of the well-known name (RFC 7050 §2.2, RFC 8880).
pub const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];

/// The labels of the well-known name, `ipv4only.arpa.` (RFC 7050 §8.2).
pub const LABELS: [&str; 2] = ["ipv4only", "arpa"];

/// The prefixes in `answers`, in the order of the answers, none twice. Empty if there is none:
/// nothing is guessed.
#[must_use]
pub fn find_prefixes(answers: &[Ipv6Addr]) -> Vec<Pref64> {
    let mut found = Vec::new();
    for answer in answers {
        let readings: Vec<_> = readings(*answer).collect();
        let ambiguous = readings.len() > 1
            || ADDRESSES
                .iter()
                .any(|address| occurrences(*answer, *address) > 1);
        for (prefix, sibling) in readings {
            let counts = !ambiguous || answers.contains(&prefix.embed(sibling));
            if counts && !found.contains(&prefix) {
                found.push(prefix);
            }
        }
    }
    found
}

/// Every prefix that `answer` could mean, with the well-known address that it does *not* hold.
fn readings(answer: Ipv6Addr) -> impl Iterator<Item = (Pref64, Ipv4Addr)> {
    let [first, second] = ADDRESSES;
    [(first, second), (second, first)]
        .into_iter()
        .flat_map(move |(here, sibling)| {
            Length::ALL.into_iter().rev().filter_map(move |length| {
                let prefix = Pref64::masked(answer, length).ok()?;
                let octet_8_ok = answer.octets()[8] == 0;
                (octet_8_ok && prefix.extract(answer) == Some(here)).then_some((prefix, sibling))
            })
        })
}

/// How often the octets of `address` occur in a row in `answer`. An occurrence around octet 8 is a
/// reading of its own.
fn occurrences(answer: Ipv6Addr, address: Ipv4Addr) -> usize {
    let (octets, wanted) = (answer.octets(), address.octets());
    let windows = octets.windows(4);
    windows.filter(|window| **window == wanted).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prefix::tests::any_prefix;
    use proptest::prelude::*;

    fn find(answers: &[&str]) -> Vec<String> {
        let answers: Vec<_> = answers.iter().map(|text| text.parse().unwrap()).collect();
        let found = find_prefixes(&answers);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn disc_7050_3_02_every_length_is_found() {
        for length in Length::ALL {
            let prefix: Pref64 = format!("2001:db8::/{}", length.bits()).parse().unwrap();
            let answers = ADDRESSES.map(|address| prefix.embed(address));
            assert_eq!(find_prefixes(&answers), [prefix]);
            assert_eq!(find_prefixes(&answers[..1]), [prefix]);
            assert_eq!(find_prefixes(&answers[1..]), [prefix]);
        }
    }

    #[test]
    fn disc_7050_3_02_a_prefix_that_contains_a_well_known_address() {
        assert_eq!(
            find(&["2001:db8:c000:aa::c000:aa", "2001:db8:c000:aa::c000:ab"]),
            ["2001:db8:c000:aa::/96"]
        );
        // Without the sibling nothing can be told, and nothing is guessed.
        assert!(find(&["2001:db8:c000:aa::c000:aa"]).is_empty());
        assert!(find(&["2001:db8:c000:aa::c000:ab"]).is_empty());
    }

    #[test]
    fn disc_7050_3_03_all_prefixes_in_order_and_none_guessed() {
        assert_eq!(
            find(&[
                "2001:db8:42::c000:aa",
                "2001:db8:43::c000:aa",
                "64:ff9b::c000:aa"
            ]),
            ["2001:db8:42::/96", "2001:db8:43::/96", "64:ff9b::/96"]
        );
        assert!(find(&["2001:db8::1"]).is_empty());
        assert!(find(&["::ffff:192.0.0.170", "::ffff:192.0.0.171"]).is_empty());
        assert!(find(&[]).is_empty());
        // Once each, in the order in which they were first seen.
        assert_eq!(
            find(&[
                "64:ff9b::c000:ab",
                "2001:db8:42::c000:aa",
                "64:ff9b::c000:aa",
                "2001:db8:42::c000:ab"
            ]),
            ["64:ff9b::/96", "2001:db8:42::/96"]
        );
    }

    /// Only the six positions of RFC 6052 count, and octet 8 is part of each.
    #[test]
    fn disc_7050_3_02_other_positions_are_no_positions() {
        for answer in [
            "2001:db8:0:c000:aa::",
            "2001:db8::c000:aa:0:0",
            "2001:db8:c0::aa",
            "2001:db8:1:2:1c0:0:aa00:0",
            "2001:db8::100:0:c000:aa",
            "2001:db8::c000:ac",
            "2001:db8::192.0.0.169",
        ] {
            assert!(find(&[answer]).is_empty(), "{answer}");
        }
    }

    /// A second occurrence at a place that is none of the six makes an answer doubtful too.
    #[test]
    fn disc_7050_3_02_a_second_occurrence_anywhere_asks_for_the_sibling() {
        let doubtful = "2001:dc0:0:aa00::c000:aa";
        assert!(find(&[doubtful]).is_empty());
        assert_eq!(
            find(&[doubtful, "2001:dc0:0:aa00::c000:ab"]),
            ["2001:dc0:0:aa00::/96"]
        );
    }

    proptest! {
        #[test]
        fn an_unambiguous_prefix_is_found(prefix in any_prefix()) {
            let answers = ADDRESSES.map(|address| prefix.embed(address));
            prop_assert_eq!(find_prefixes(&answers), [prefix]);
        }

        /// Whatever a server answers: every prefix found is one of an answer's that holds a
        /// well-known address, none is found twice, and none is unusable.
        #[test]
        fn disc_7050_3_03_nothing_is_made_up(
            parts in proptest::collection::vec((any::<u128>(), 0usize..8, any::<bool>()), 0..8),
        ) {
            let answers: Vec<_> = parts.iter().map(|(bits, length, second)| {
                let mut octets = bits.to_be_bytes();
                if let Some(length) = Length::ALL.get(*length) {
                    octets[8] = 0;
                    let wanted = ADDRESSES[usize::from(*second)].octets();
                    for (at, octet) in length.octets().into_iter().zip(wanted) {
                        octets[at] = octet;
                    }
                }
                Ipv6Addr::from(octets)
            }).collect();
            let found = find_prefixes(&answers);
            for (at, prefix) in found.iter().enumerate() {
                prop_assert!(!found[..at].contains(prefix));
                let holds = |answer: &Ipv6Addr| {
                    prefix.extract(*answer).is_some_and(|it| ADDRESSES.contains(&it))
                };
                prop_assert!(answers.iter().any(holds));
                prop_assert_eq!(prefix.to_string().parse(), Ok(*prefix));
            }
        }
    }
}
