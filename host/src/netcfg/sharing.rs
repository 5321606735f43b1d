//! IPv4 addresses for a translator, by nftables: a part of the ports of the host's address, or
//! private addresses behind it.
//!
//! Sharing an address takes no state. The kernel delivers what comes to an address of its own
//! before it looks at any other routing table, so a packet for the translator must not have that
//! address while it is routed. It gets a stand-in ([`PortShare::stand_in`]), which has a route to the
//! virtual interface, in prerouting, and its own address again in postrouting; the same happens to
//! what comes out of the interface, whose source would otherwise be refused as forged. The
//! stand-in has the checksum of the address, so that of an ICMP error of the kernel's that quotes
//! it stays right, too.
//!
//! The host's own: whatever has a socket, whoever bound it to a port of ours; answers to its own
//! echo requests, which have no socket that the kernel could look up, unless the translator has sent
//! a request with that identifier to the same host since; and whatever comes from loopback.

use std::{fmt::Write, io};

use plan::{Masquerade, PortShare};

use super::{
    Made,
    nft::{Outcome, Script, remove, run, table_name},
};

/// What a kernel can do for the chain that looks at arriving packets, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Means {
    /// The rule that has fragments put together before they are looked at: only then does every
    /// one of them have ports.
    reassemble: Reassemble,
    /// Packets can be compared with the sockets of the host.
    sockets: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reassemble {
    /// By an expression that needs whole packets, in a rule that matches none.
    Tproxy,
    /// By connection tracking, which then tracks everything that the host does.
    Tracking,
}

impl Means {
    const ALL: [Self; 3] = [
        Self {
            reassemble: Reassemble::Tproxy,
            sockets: true,
        },
        Self {
            reassemble: Reassemble::Tracking,
            sockets: true,
        },
        Self {
            reassemble: Reassemble::Tracking,
            sockets: false,
        },
    ];
}

pub(super) async fn share(share: &PortShare) -> io::Result<Made> {
    let mut refused = String::new();
    for means in Means::ALL {
        match run(Script::Text(&port_share(share, means))).await? {
            Outcome::Done => {
                if !means.sockets {
                    tracing::warn!(
                        "this kernel lacks nft_socket: a local program that binds one of the ports \
                         {} gets no packets",
                        share.ports
                    );
                }
                tracing::debug!("{share:?} by {means:?}");
                return Ok(Made::Yes);
            }
            Outcome::Refused(why) => refused = why,
            Outcome::NoProgram => return Err(no_program()),
        }
    }
    Err(io::Error::other(refused))
}

pub(super) async fn unshare(share: &PortShare) -> io::Result<()> {
    remove(&format!("ip {}", ports_table(share))).await
}

pub(super) async fn masquerade(item: &Masquerade) -> io::Result<Made> {
    match run(Script::Text(&nat(item))).await? {
        Outcome::Done => Ok(Made::Yes),
        Outcome::Refused(why) => Err(io::Error::other(why)),
        Outcome::NoProgram => Err(no_program()),
    }
}

pub(super) async fn unmasquerade(item: &Masquerade) -> io::Result<()> {
    remove(&format!("ip {}", nat_table(item))).await
}

fn no_program() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        "the program nft is missing (package nftables)",
    )
}

fn ports_table(share: &PortShare) -> String {
    format!("{}_ports", table_name(&share.name))
}

fn nat_table(item: &Masquerade) -> String {
    format!("{}_nat", table_name(&item.name))
}

/// Adding a table before deleting it makes the deletion succeed where there is none.
fn without(table: &str) -> String {
    format!("table ip {table}\ndelete table ip {table}\n")
}

/// ICMP messages that quote a packet.
const ERRORS: &str = "icmp type { destination-unreachable, time-exceeded, parameter-problem }";

/// The rules of a shared address. Where an error quotes a packet, `@th` counts bits from the ICMP
/// header; the quoted packet begins at 64, and has no options: we send none.
fn port_share(share: &PortShare, means: Means) -> String {
    let table = ports_table(share);
    let PortShare {
        address,
        ports,
        interface,
        ..
    } = share;
    let stand_in = share.stand_in();
    let (quoted_from, quoted_to) = ("@th,160,32", "@th,192,32");
    let (number, stand_in_number) = (address.to_bits(), stand_in.to_bits());
    let sockets = if means.sockets {
        "socket transparent { 0, 1 } accept"
    } else {
        ""
    };
    let reassemble = match means.reassemble {
        Reassemble::Tproxy => "meta l4proto tcp ip daddr 0.0.0.0 tproxy to :9",
        Reassemble::Tracking => "ip daddr 0.0.0.0 ct state invalid accept",
    };
    let mut text = without(&table);
    let _ = write!(
        text,
        "table ip {table} {{
    set pings {{
        typeof @nh,128,32 . @th,32,16
        size 65536
        flags dynamic,timeout
        timeout 1m
    }}
    chain divert {{
        ip daddr set {stand_in} notrack accept
    }}
    chain error {{
        @th,64,8 != 0x45 return
        {quoted_from} != {number} return
        @th,136,8 6 @th,224,16 {ports} goto divert
        @th,136,8 17 @th,224,16 {ports} goto divert
        @th,136,8 1 @th,224,8 8 @th,256,16 {ports} goto ping_error
    }}
    chain ping_error {{
        {quoted_to} . @th,256,16 @pings accept
        goto divert
    }}
    chain sent {{
        icmp type echo-request icmp id {ports} delete @pings {{ @nh,128,32 . @th,32,16 }}
    }}
    chain arrive {{
        type filter hook prerouting priority -350; policy accept;
        iifname \"{interface}\" ip saddr {address} jump sent
        iifname \"{interface}\" ip saddr {address} ip saddr set {stand_in} notrack accept
        iifname {{ \"{interface}\", \"lo\" }} accept
        ip saddr {stand_in} drop
        ip daddr {stand_in} drop
        ip daddr != {address} accept
        {sockets}
        tcp dport {ports} goto divert
        udp dport {ports} goto divert
        icmp type echo-reply icmp id {ports} @nh,96,32 . @th,32,16 @pings accept
        icmp type echo-reply icmp id {ports} goto divert
        {ERRORS} goto error
        {reassemble}
    }}
    chain send {{
        type filter hook output priority -350; policy accept;
        icmp type echo-request icmp id {ports} update @pings {{ @nh,128,32 . @th,32,16 }}
    }}
    chain leave {{
        type filter hook postrouting priority 350; policy accept;
        ip saddr {stand_in} ip saddr set {address}
        ip daddr {stand_in} ip daddr set {address}
        {ERRORS} {quoted_from} {stand_in_number} {quoted_from} set {number}
        {ERRORS} {quoted_to} {stand_in_number} {quoted_to} set {number}
    }}
}}
"
    );
    text
}

fn nat(item: &Masquerade) -> String {
    let table = nat_table(item);
    let Masquerade {
        addresses,
        interface,
        ..
    } = item;
    format!(
        "{}table ip {table} {{
    chain leave {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {addresses} oifname != \"{interface}\" masquerade
    }}
}}
",
        without(&table)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use plan::{Ports, Prefix};

    fn share() -> PortShare {
        PortShare {
            name: "openclat-plat0".into(),
            address: "192.0.2.1".parse().unwrap(),
            ports: Ports::ABOVE_EPHEMERAL,
            interface: "plat0".into(),
        }
    }

    /// Otherwise a leftover of a lost journal would have its rules twice.
    #[test]
    fn a_table_is_replaced_not_added_to() {
        let masquerade = Masquerade {
            name: "openclat-plat0".into(),
            addresses: Prefix::new("192.0.0.64".parse().unwrap(), 29),
            interface: "plat0".into(),
        };
        for text in [port_share(&share(), Means::ALL[0]), nat(&masquerade)] {
            let mut lines = text.lines();
            let [add, delete, make] = [(); 3].map(|()| lines.next().unwrap());
            assert_eq!(delete, format!("delete {add}"));
            assert_eq!(make, format!("{add} {{"));
        }
    }

    /// The rule that has fragments put together matches no packet, whatever comes.
    #[test]
    fn every_kernel_puts_fragments_together() {
        for means in Means::ALL {
            let text = port_share(&share(), means);
            let rule = text.lines().find(|it| it.contains("0.0.0.0"));
            let rule = rule.unwrap_or_default();
            assert_eq!(rule.contains("tproxy"), means == Means::ALL[0], "{rule}");
            assert_eq!(text.contains("socket transparent"), means.sockets);
        }
    }
}
