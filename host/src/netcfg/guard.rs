//! Forwarding for one interface only, by nftables.
//!
//! The kernel's switch for IPv6 is one for all interfaces, and that for IPv4 is about where packets
//! come from, not about where they go. A host that forwards for a translator would so become a
//! router for everybody. This table drops what it would not have forwarded before.

use std::io;

use plan::ForwardingGuard;

use super::{
    Made,
    linux::{OUR_INTERFACES, every_interface, is_on},
    nft::{Outcome, Script, remove, run, table_name},
};

/// The rest can do without: then others may be forwarded, too.
pub(super) async fn set_up(guard: &ForwardingGuard) -> io::Result<Made> {
    if let Some(name) = guard.ipv4.iter().find(|it| !can_be_quoted(it)) {
        return without(guard, format!("{name} is no name that a rule can have")).await;
    }
    match run(Script::Text(&ruleset(guard, &Host::read()))).await? {
        Outcome::Done => Ok(Made::Yes),
        Outcome::Refused(why) => without(guard, why).await,
        Outcome::NoProgram => {
            let why = "the program nft is missing (package nftables)".to_owned();
            without(guard, why).await
        }
    }
}

/// Also without the table that this one should have taken the place of, if there is one. What can
/// make no table refuses this as well.
async fn without(guard: &ForwardingGuard, why: String) -> io::Result<Made> {
    let _ = take_down(guard).await;
    Ok(Made::Without(why))
}

pub(super) async fn take_down(guard: &ForwardingGuard) -> io::Result<()> {
    remove(&table(guard)).await
}

fn table(guard: &ForwardingGuard) -> String {
    format!("inet {}_guard", table_name(&guard.name))
}

/// What of this host the rules depend on.
#[derive(Default)]
struct Host {
    /// Interfaces from which IPv6 is forwarded, whatever the switch for all says (Linux 6.17).
    forced: Vec<String>,
    /// Frames that pass a bridge come by the hook for forwarded packets. They were never routed.
    bridged: bool,
}

impl Host {
    fn read() -> Self {
        let forces = |name: &String| is_on(&format!("net/ipv6/conf/{name}/force_forwarding"));
        let all = every_interface().unwrap_or_default().into_iter();
        let of_bridges =
            ["iptables", "ip6tables"].map(|it| format!("net/bridge/bridge-nf-call-{it}"));
        Self {
            forced: all
                .filter(|it| !["all", "default"].contains(&it.as_str()))
                .filter(forces)
                .filter(|it| can_be_quoted(it))
                .collect(),
            bridged: of_bridges.iter().any(|it| is_on(it)),
        }
    }
}

/// Whether it means itself in nft's language between quotation marks.
fn can_be_quoted(name: &str) -> bool {
    !name.contains(['"', '*', '\\']) && !name.is_empty()
}

/// A set of names.
fn set(names: &[String]) -> String {
    let quoted: Vec<_> = names.iter().map(|it| format!("\"{it}\"")).collect();
    format!("{{ {} }}", quoted.join(", "))
}

fn ruleset(guard: &ForwardingGuard, host: &Host) -> String {
    let table = table(guard);
    let interface = &guard.interface;
    let mut rules = vec![
        format!("iifname \"{interface}\" accept"),
        format!("oifname \"{interface}\" accept"),
        // Those of other instances, and of a CLAT.
        format!("meta iifgroup {OUR_INTERFACES} accept"),
        format!("meta oifgroup {OUR_INTERFACES} accept"),
    ];
    if host.bridged {
        rules.push("meta iifkind \"bridge\" meta oifkind \"bridge\" accept".to_owned());
    }
    if !guard.ipv4.is_empty() {
        let from = set(&guard.ipv4);
        rules.push(format!("meta nfproto ipv4 iifname {from} counter drop"));
    }
    if guard.ipv6 {
        let from = match host.forced.is_empty() {
            true => String::new(),
            false => format!("iifname != {} ", set(&host.forced)),
        };
        rules.push(format!("meta nfproto ipv6 {from}counter drop"));
    }
    let rules: String = rules.iter().map(|it| format!("        {it}\n")).collect();
    format!(
        "table {table}\ndelete table {table}\ntable {table} {{
    chain forward {{
        type filter hook forward priority 0; policy accept;
{rules}    }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(ipv4: &[&str], ipv6: bool) -> ForwardingGuard {
        ForwardingGuard {
            name: "openclat-plat0".into(),
            interface: "plat0".into(),
            ipv4: ipv4.iter().map(|it| (*it).to_owned()).collect(),
            ipv6,
        }
    }

    fn drops(text: &str) -> Vec<&str> {
        let lines = text.lines().map(str::trim);
        lines.filter(|it| it.ends_with("drop")).collect()
    }

    #[test]
    fn only_what_was_not_forwarded_before_is_dropped() {
        let host = Host::default();
        let both = ruleset(&guard(&["eth0", "ppp0"], true), &host);
        let ipv4 = "meta nfproto ipv4 iifname { \"eth0\", \"ppp0\" } counter drop";
        let ipv6 = "meta nfproto ipv6 counter drop";
        assert_eq!(drops(&both), [ipv4, ipv6]);
        assert_eq!(drops(&ruleset(&guard(&[], true), &host)), [ipv6]);
        assert_eq!(
            drops(&ruleset(&guard(&["eth0", "ppp0"], false), &host)),
            [ipv4]
        );
        let forced = Host {
            forced: vec!["wg0".into()],
            bridged: true,
        };
        let text = ruleset(&guard(&[], true), &forced);
        let but = "meta nfproto ipv6 iifname != { \"wg0\" } counter drop";
        assert_eq!(drops(&text), [but]);
        assert!(text.contains("oifkind \"bridge\" accept"), "{text}");
        assert!(!both.contains("bridge"), "{both}");
    }

    /// Otherwise a leftover of a lost journal would have its rules twice.
    #[test]
    fn the_table_is_replaced_not_added_to() {
        let text = ruleset(&guard(&["eth0"], true), &Host::default());
        let mut lines = text.lines();
        let [add, delete, make] = [(); 3].map(|()| lines.next().unwrap());
        assert_eq!(delete, format!("delete {add}"));
        assert_eq!(make, format!("{add} {{"));
    }

    #[tokio::test]
    async fn a_name_that_would_mean_others_is_no_rule() {
        for name in ["eth*", "a\"b", ""] {
            let made = set_up(&guard(&["eth0", name], true)).await.unwrap();
            assert!(matches!(made, Made::Without(_)), "{name}");
        }
    }
}
