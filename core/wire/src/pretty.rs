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
        assert_eq!(format!("{:?}", Summary::of(&[0])), "no IP packet, 1 bytes");
    }

    #[test]
    fn protocols_have_names_and_the_rest_numbers() {
        for (number, rest, wanted) in [
            (1, "0800", "ICMP 8/0"),
            (58, "8000", "ICMPv6 128/0"),
            (6, "00500051", "TCP 80 > 81"),
            (17, "0050", "UDP"),
            (44, "", "fragment"),
            (50, "", "ESP"),
            (47, "", "protocol 47"),
        ] {
            let header = ipv4::Fields {
                tos: 0,
                total_len: 28,
                id: 0,
                dont_fragment: false,
                fragment: ipv4::Fragment::default(),
                ttl: 1,
                protocol: number,
                src: [192, 0, 2, 1].into(),
                dst: [192, 0, 2, 2].into(),
            };
            let hex: String = header
                .to_bytes()
                .iter()
                .map(|it| format!("{it:02x}"))
                .collect();
            let padded = match number {
                1 | 58 => format!("{hex}{rest}000000000000"),
                _ => format!("{hex}{rest}"),
            };
            let text = summary(&padded);
            assert_eq!(
                text,
                format!("IPv4 192.0.2.1 > 192.0.2.2 {wanted}, 28 bytes")
            );
        }
    }
}
