//! One line about a packet, for traces, captures and failing tests.

use core::fmt;

use crate::{
    icmp::Icmp,
    ipv4::{self, Ipv4},
    ipv6::Ipv6,
    protocol, transport,
};

/// Displays a packet as `IPv4 192.0.0.1 > 198.51.100.10 UDP 40000 > 53, 36 bytes`.
#[derive(Clone, Copy)]
pub struct Summary<'a>(&'a [u8]);

impl<'a> Summary<'a> {
    /// A summary of the IP packet in `bytes`, or of whatever else they are.
    #[must_use]
    pub fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Ok(packet) = Ipv4::new_embedded(self.0) {
            write!(f, "IPv4 {} > {} ", packet.src(), packet.dst())?;
            let fragment = packet.fragment();
            payload(f, packet.protocol(), fragment, packet.payload())?;
            return write!(f, ", {} bytes", packet.total_len());
        }
        if let Ok(packet) = Ipv6::new_embedded(self.0) {
            write!(f, "IPv6 {} > {} ", packet.src(), packet.dst())?;
            match packet.upper() {
                Ok(upper) => {
                    let fragment = upper.fragment.map(|header| header.fragment);
                    let bytes = packet.from_offset(upper.offset);
                    payload(f, upper.protocol, fragment.unwrap_or_default(), bytes)?;
                }
                Err(_) => f.write_str("with a cut-off extension header")?,
            }
            return write!(f, ", {} bytes", 40 + u32::from(packet.payload_len()));
        }
        write!(f, "no IP packet, {} bytes", self.0.len())
    }
}

fn payload(
    f: &mut fmt::Formatter<'_>,
    number: u8,
    fragment: ipv4::Fragment,
    bytes: &[u8],
) -> fmt::Result {
    match protocol::name(number) {
        Some(name) => f.write_str(name)?,
        None => write!(f, "protocol {number}")?,
    }
    if fragment.is_fragment() {
        let more = if fragment.more { "+" } else { "" };
        write!(f, " fragment {}{more}", u32::from(fragment.offset) * 8)?;
    }
    if !fragment.is_first() {
        return Ok(());
    }
    match number {
        protocol::TCP | protocol::UDP => match transport::ports(bytes) {
            Some((src, dst)) => write!(f, " {src} > {dst}"),
            None => Ok(()),
        },
        protocol::ICMP | protocol::ICMPV6 => match Icmp::parse(bytes) {
            Some(icmp) => write!(f, " {}/{}", icmp.kind, icmp.code),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(hex: &str) -> String {
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        Summary::of(&bytes).to_string()
    }

    #[test]
    fn packets_read_like_a_sentence() {
        assert_eq!(
            summary("45b800241234000040117d9ec0000001c633640a9c4000350010fede68656c6c6f343634"),
            "IPv4 192.0.0.1 > 198.51.100.10 UDP 40000 > 53, 36 bytes"
        );
        assert_eq!(
            summary(
                "6000000000182c3c20010db80064000000000000c633640a20010db8000100020000000000000464\
                 110005c8cafebeef000102030405060708090a0b0c0d0e0f"
            ),
            "IPv6 2001:db8:64::c633:640a > 2001:db8:1:2::464 UDP fragment 1480, 64 bytes"
        );
        assert_eq!(summary("00"), "no IP packet, 1 bytes");
    }
}
