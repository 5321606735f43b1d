//! `[[bib]]`: static bindings (RFC 6146 §3.1).

use std::{
    collections::HashSet,
    net::{SocketAddrV4, SocketAddrV6},
};

use cli::{
    Failure,
    config::{Document, Spanned},
};
use nat64::{
    static_bib::StaticBinding,
    tuple::{Endpoint4, Endpoint6, Protocol},
};
use pref64::Pref64;
use schemars::JsonSchema;
use serde::Deserialize;

use super::pool::PoolRange;

/// A server behind the NAT64, and where it is reached.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BibFile {
    /// Of which protocol.
    protocol: ProtocolFile,
    /// The server's address and port (or identifier), like `[2001:db8::1]:80`.
    #[schemars(with = "String")]
    ipv6: Spanned<String>,
    /// The pool address and port that it is reached by, like `198.51.100.1:80`.
    #[schemars(with = "String")]
    ipv4: Spanned<String>,
}

/// A protocol with bindings.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ProtocolFile {
    Tcp,
    Udp,
    Icmp,
}

/// The bindings of the file.
///
/// # Errors
/// What is wrong, with its place.
pub(super) fn bindings(
    document: &Document,
    file: &[BibFile],
    pool: &[PoolRange],
    prefixes: &[Pref64],
) -> Result<Vec<StaticBinding>, Failure> {
    let mut bindings = Vec::with_capacity(file.len());
    let (mut inside, mut outside) = (HashSet::new(), HashSet::new());
    for entry in file {
        let binding = entry.read(document)?;
        let (v4, v6) = (binding.outside.address, binding.inside.address);
        if !pool.is_empty() && !pool.iter().any(|it| it.contains(v4)) {
            let what = format_args!("{v4} is not in the pool");
            let hint = "add the address to `pool`";
            return Err(document.wrong(entry.ipv4.span(), what).hint(hint));
        }
        if let Some(prefix) = prefixes.iter().find(|it| it.contains(v6)) {
            let what = format_args!("{v6} lies in the NAT64 prefix {prefix}: it is no client");
            return Err(document.wrong(entry.ipv6.span(), what));
        }
        let twice = |end: &dyn std::fmt::Debug| format!("{end:?} is bound twice");
        if !inside.insert((binding.protocol, binding.inside)) {
            return Err(document.wrong(entry.ipv6.span(), twice(&binding.inside)));
        }
        if !outside.insert((binding.protocol, binding.outside)) {
            return Err(document.wrong(entry.ipv4.span(), twice(&binding.outside)));
        }
        bindings.push(binding);
    }
    Ok(bindings)
}

impl BibFile {
    fn read(&self, document: &Document) -> Result<StaticBinding, Failure> {
        let wrong = |text: &Spanned<String>, like| {
            let what = format_args!("`{}` is not an address with a port", text.get_ref());
            let hint = format_args!("write it like {like}, with a port from 1 to 65535");
            document.wrong(text.span(), what).hint(hint)
        };
        let v6: Option<SocketAddrV6> = self.ipv6.get_ref().parse().ok();
        let v6 = v6.filter(|it| it.port() > 0);
        let v6 = v6.ok_or_else(|| wrong(&self.ipv6, "[2001:db8::1]:80"))?;
        let v4: Option<SocketAddrV4> = self.ipv4.get_ref().parse().ok();
        let v4 = v4.filter(|it| it.port() > 0);
        let v4 = v4.ok_or_else(|| wrong(&self.ipv4, "198.51.100.1:80"))?;
        Ok(StaticBinding {
            protocol: match self.protocol {
                ProtocolFile::Tcp => Protocol::Tcp,
                ProtocolFile::Udp => Protocol::Udp,
                ProtocolFile::Icmp => Protocol::Icmp,
            },
            inside: Endpoint6 {
                address: *v6.ip(),
                id: v6.port(),
            },
            outside: Endpoint4 {
                address: *v4.ip(),
                id: v4.port(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::settled;

    fn bib(protocol: &str, v6: &str, v4: &str) -> String {
        format!("[[bib]]\nprotocol = \"{protocol}\"\nipv6 = \"{v6}\"\nipv4 = \"{v4}\"\n")
    }

    #[test]
    fn static_bindings_are_read_and_what_is_wrong_is_said() {
        const POOL: &str = "pool = [\"203.0.113.4\"]\n";
        let right = bib("tcp", "[2001:db8::1]:80", "203.0.113.4:80");
        let other = bib("udp", "[2001:db8::1]:80", "203.0.113.4:80");
        let config = settled(&format!("{POOL}{right}{other}")).unwrap();
        assert_eq!(config.bib.len(), 2);
        assert_eq!(config.bib[0].inside.id, 80);
        for (text, parts) in [
            (
                bib("tcp", "2001:db8::1", "203.0.113.4:80"),
                ["plat.toml:4:8:", "[2001:db8::1]:80"],
            ),
            (
                bib("tcp", "[2001:db8::1]:80", "203.0.113.4:0"),
                ["plat.toml:5:8:", "from 1 to 65535"],
            ),
            (
                bib("tcp", "[2001:db8::1]:80", "203.0.113.5:80"),
                ["plat.toml:5:8:", "not in the pool"],
            ),
            (
                bib("tcp", "[64:ff9b::1]:80", "203.0.113.4:80"),
                ["plat.toml:4:8:", "no client"],
            ),
            (
                bib("tpc", "[2001:db8::1]:80", "203.0.113.4:80"),
                ["plat.toml:3:12:", "did you mean `tcp`?"],
            ),
            (
                right.clone() + &bib("tcp", "[2001:db8::2]:80", "203.0.113.4:80"),
                ["plat.toml:9:8:", "203.0.113.4:80 is bound twice"],
            ),
            (
                right.clone() + &bib("tcp", "[2001:db8::1]:80", "203.0.113.4:81"),
                ["plat.toml:8:8:", "bound twice"],
            ),
        ] {
            let error = settled(&format!("{POOL}{text}")).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{text}\n{error}");
            }
        }
    }
}
