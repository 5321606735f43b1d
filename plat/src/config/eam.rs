//! `[[eam]]`: hosts with an IPv4 address of their own (RFC 7757).

use std::ops::Range;

use cli::{
    Failure,
    config::{Document, Spanned},
};
use pref64::eam::{Eam, EamTable, Error};
use schemars::JsonSchema;
use serde::Deserialize;

/// One mapping, as it is written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EamFile {
    /// An IPv4 address or prefix.
    #[schemars(with = "String")]
    ipv4: Spanned<String>,
    /// The IPv6 address or prefix that it becomes.
    #[schemars(with = "String")]
    ipv6: Spanned<String>,
}

/// The table of the file.
///
/// # Errors
/// What is wrong, with its place.
pub(super) fn table(document: &Document, file: &[EamFile]) -> Result<EamTable, Failure> {
    let mut mappings = Vec::with_capacity(file.len());
    for entry in file {
        let (v4, v6) = (entry.ipv4.get_ref(), entry.ipv6.get_ref());
        let parsed = Eam::parse(v4, v6);
        mappings.push(parsed.map_err(|error| document.wrong(at(entry, &error), error))?);
    }
    EamTable::new(mappings.clone()).map_err(|error| {
        let place = match &error {
            // In the file it is the later one that is too much.
            Error::Duplicate(one, other) => {
                mappings.iter().rposition(|it| it == one || it == other)
            }
            Error::Syntax(_) | Error::HostBits(_) | Error::SuffixTooLong(_) => None,
        };
        match place.and_then(|at| file.get(at)) {
            Some(entry) => document.wrong(entry.ipv4.span(), error),
            None => document.wrong_somewhere(error),
        }
    })
}

/// Where in an entry its error stands.
fn at(entry: &EamFile, error: &Error) -> Range<usize> {
    match error {
        Error::Syntax(text) | Error::HostBits(text) if text == entry.ipv6.get_ref() => {
            entry.ipv6.span()
        }
        Error::Syntax(_) | Error::HostBits(_) | Error::SuffixTooLong(_) | Error::Duplicate(..) => {
            entry.ipv4.span()
        }
    }
}

/// Where in the file a mapping stands.
pub(super) fn place(file: &[EamFile], eam: &Eam) -> Option<Range<usize>> {
    let is = |entry: &&EamFile| {
        Eam::parse(entry.ipv4.get_ref(), entry.ipv6.get_ref()).as_ref() == Ok(eam)
    };
    file.iter().find(is).map(|entry| entry.ipv4.span())
}

#[cfg(test)]
mod tests {
    use super::super::tests::settled;

    const POOL: &str = "pool = [\"203.0.113.4/30\"]\n";

    fn eam(v4: &str, v6: &str) -> String {
        format!("[[eam]]\nipv4 = \"{v4}\"\nipv6 = \"{v6}\"\n")
    }

    #[test]
    fn eam_3_2_01_addresses_and_prefixes_are_read() {
        let one = eam("198.51.100.7", "2001:db8::7");
        let many = eam("198.51.101.0/24", "2001:db8:1::/120");
        let config = settled(&format!("{POOL}{one}{many}")).unwrap();
        let engine = config.for_engine(std::net::Ipv6Addr::LOCALHOST, vec![]);
        assert_eq!(engine.eam.len(), 2);
        let host = engine.eam.to_v6("198.51.101.9".parse().unwrap());
        assert_eq!(host, Some("2001:db8:1::9".parse().unwrap()));
    }

    /// File, line, column, and what to do.
    #[test]
    fn eam_5_01_what_is_wrong_is_said() {
        let twice = eam("198.51.100.7", "2001:db8::7") + &eam("198.51.100.7", "2001:db8::8");
        for (text, parts) in [
            (
                eam("198.51.100.7/33", "2001:db8::7"),
                ["plat.toml:3:8:", "write 192.0.2.1 or"],
            ),
            (
                eam("198.51.100.7", "2001:db8::7/64"),
                ["plat.toml:4:8:", "bits set behind its length"],
            ),
            (
                eam("198.51.100.0/24", "2001:db8::/124"),
                ["plat.toml:3:8:", "lengthen the first"],
            ),
            (twice, ["plat.toml:6:8:", "a prefix in common"]),
            (
                eam("203.0.113.0/24", "2001:db8::/120"),
                ["plat.toml:3:8:", "203.0.113.4 is in the pool"],
            ),
            (
                eam("198.51.100.7", "64:ff9b::7"),
                [
                    "plat.toml:3:8:",
                    "overlap with the NAT64 prefix 64:ff9b::/96",
                ],
            ),
            (
                eam("127.0.0.1", "2001:db8::7"),
                ["plat.toml:3:8:", "no router passes on"],
            ),
            (
                "[[eam]]\nipv4 = \"198.51.100.7\"\nipv5 = \"x\"\n".to_owned(),
                ["plat.toml:4:1:", "did you mean"],
            ),
        ] {
            let error = settled(&format!("{POOL}{text}")).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{text}\n{error}");
            }
        }
    }

    /// Not a quadratic step anywhere: it would take minutes.
    #[test]
    fn eam_5_01_ten_thousand_mappings_are_read_at_once() {
        let entries = (0..10_000).map(|n| {
            let v4 = std::net::Ipv4Addr::from_bits(0x0b00_0000 + n);
            eam(&v4.to_string(), &format!("2001:db8::{n:x}"))
        });
        let text: String = entries.collect();
        let config = settled(&format!("{POOL}{text}")).unwrap();
        assert_eq!(config.eam.len(), 10_000);
        assert!(config.eam.overlaps().is_empty());
    }
}
