//! tayga.conf: one directive in a line.

use std::str::FromStr;

use cli::text::is_interface_name;
use nat64::destinations::Network4;
use pref64::{Pref64, eam::Eam};

use super::Import;

pub(super) fn read(text: &str) -> Import {
    let mut import = Import::default();
    let mut lists = Lists::default();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        if let Some(directive) = words.next() {
            let arguments: Vec<_> = words.collect();
            take(&mut import, &mut lists, at + 1, directive, &arguments);
        }
    }
    import.list("prefixes", &lists.prefixes);
    import.list("pool", &lists.pool);
    import
}

#[derive(Default)]
struct Lists {
    prefixes: Vec<String>,
    pool: Vec<String>,
}

fn take(import: &mut Import, lists: &mut Lists, line: usize, directive: &str, arguments: &[&str]) {
    let taken = match (directive, arguments) {
        ("tun-device", [name]) if is_interface_name(name) => {
            import.set("interface", name);
            Ok(())
        }
        ("prefix", [prefix]) => checked::<Pref64>(prefix).map(|it| lists.prefixes.push(it)),
        ("dynamic-pool", [network]) => checked::<Network4>(network).map(|network| {
            import.notes.push(format!(
                "Line {line}: dynamic-pool {network}: there every client had one of these \
                 addresses for itself, here they share them by ports; [[eam]] is an address of \
                 one's own."
            ));
            lists.pool.push(network);
        }),
        ("map", [v4, v6]) => Eam::parse(v4, v6)
            .map_err(|error| error.to_string())
            .map(|_| {
                let table = format!("[[eam]]\nipv4 = {v4:?}\nipv6 = {v6:?}\n");
                import.tables.push(table);
            }),
        ("wkpf-strict", ["no" | "off" | "false" | "0"]) => {
            import.set("wkp_non_global", "translate");
            Ok(())
        }
        ("wkpf-strict", ["yes" | "on" | "true" | "1"])
        | ("udp-cksum-mode", ["calc"])
        | ("strict-frag-hdr", _) => Ok(()),
        _ => Err(why_not(directive).to_owned()),
    };
    if let Err(why) = taken {
        let whole = format!("{directive} {}", arguments.join(" "));
        import.refuse(line, whole.trim_end(), why);
    }
}

/// Why there is nothing here for a directive.
fn why_not(directive: &str) -> &'static str {
    match directive {
        "udp-cksum-mode" => {
            "plat always calculates the checksum of UDP where it is missing (RFC 6146 section 3.4)"
        }
        "ipv4-addr" | "ipv6-addr" => {
            "plat needs no address of its own: it sends errors from this host's"
        }
        "data-dir" => "clients get no address of their own, so there is nothing to remember",
        "log" => "plat logs to standard error; see OPENCLAT_LOG",
        "offlink-mtu" | "workers" => "plat finds the right value by itself",
        "tun-device" | "prefix" | "dynamic-pool" | "map" | "wkpf-strict" => {
            "this is not how tayga.conf has it"
        }
        _ => "plat knows no such directive",
    }
}

/// The text as we write it, if it is one of these.
fn checked<T: FromStr + ToString>(text: &str) -> Result<String, String>
where
    T::Err: ToString,
{
    let parsed = text.parse::<T>();
    parsed.map(|it| it.to_string()).map_err(|it| it.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::{From, import};

    const USUAL: &str = "\
# A router of a small office
tun-device nat64
ipv4-addr 192.168.255.1
prefix 2001:db8:1:ffff::/96   # ours
dynamic-pool 192.168.255.0/24
data-dir /var/spool/tayga
map 192.168.5.42 2001:db8:1:4444::1
map 192.168.6.0/24 2001:db8:1:5555::/120
wkpf-strict no
udp-cksum-mode fwd
frobnicate yes
map 192.168.5.43
";

    #[test]
    fn a_usual_file_is_taken_over_and_the_rest_refused_by_line() {
        let import = import(From::Tayga, "tayga.conf", USUAL).unwrap();
        let text = import.toml("tayga.conf");
        for wanted in [
            "\ninterface = \"nat64\"\n",
            "\nprefixes = [\"2001:db8:1:ffff::/96\"]\n",
            "\npool = [\"192.168.255.0/24\"]\n",
            "\n# Line 5: dynamic-pool 192.168.255.0/24: there every client had one",
            "\nwkp_non_global = \"translate\"\n",
            "[[eam]]\nipv4 = \"192.168.5.42\"\nipv6 = \"2001:db8:1:4444::1\"\n",
            "ipv4 = \"192.168.6.0/24\"",
        ] {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
        let refused: Vec<_> = import.refused.iter().map(ToString::to_string).collect();
        let starts = [
            "line 3: ipv4-addr 192.168.255.1: plat needs no address",
            "line 6: data-dir /var/spool/tayga: clients get no address",
            "line 10: udp-cksum-mode fwd: plat always calculates",
            "line 11: frobnicate yes: plat knows no such",
            "line 12: map 192.168.5.43: this is not how",
        ];
        assert_eq!(refused.len(), starts.len(), "{refused:?}");
        for (refused, start) in refused.iter().zip(starts) {
            assert!(refused.starts_with(start), "{refused}");
        }
    }

    #[test]
    fn what_is_no_configuration_in_the_end_is_said() {
        let twice = "prefix 2001:db8::/32\nprefix 2001:db8:64::/96\n";
        let error = import(From::Tayga, "x", twice).unwrap_err().to_string();
        assert!(
            error.contains("the result:") && error.contains("lies in"),
            "{error}"
        );
    }
}
