//! Between whom a packet goes, as much as can be read of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use control::plat::{Ends, Protocol};
use pref64::prefix::Pref64;
use wire::{field::get_u16, ipv4::Ipv4, ipv6::Ipv6, protocol};

/// Where an ICMP error's quote begins.
const ICMP_HEADER: usize = 8;

/// Adds the ends of a packet, those of the packet that it quotes, and both with the IPv4 addresses
/// that stand in IPv6 addresses.
pub(super) fn read(packet: &[u8], prefixes: &[Pref64], all: &mut Vec<Ends>) {
    if let Some(quote) = add(packet, prefixes, all) {
        add(quote, prefixes, all);
    }
}

/// Adds the ends of a packet, and returns what it quotes.
fn add<'a>(packet: &'a [u8], prefixes: &[Pref64], all: &mut Vec<Ends>) -> Option<&'a [u8]> {
    if packet.first()? >> 4 == 6 {
        let packet = Ipv6::new_embedded(packet).ok()?;
        let (number, payload) = match packet.upper() {
            Ok(upper) if upper.fragment.is_none_or(|it| it.fragment.is_first()) => {
                (upper.protocol, packet.from_offset(upper.offset))
            }
            Ok(upper) => (upper.protocol, &[][..]),
            Err(_) => (packet.next_header(), &[][..]),
        };
        let upper = Upper::of(number, payload);
        let (src, dst) = (packet.src(), packet.dst());
        all.push(upper.between(src.into(), dst.into()));
        let embedded = |address: Ipv6Addr| prefixes.iter().find_map(|it| it.extract(address));
        let plain = |address: Ipv6Addr, found: Option<Ipv4Addr>| {
            found.map_or(IpAddr::V6(address), IpAddr::V4)
        };
        let both = (embedded(src), embedded(dst));
        if both != (None, None) {
            all.push(upper.between(plain(src, both.0), plain(dst, both.1)));
        }
        upper.quote
    } else {
        let packet = Ipv4::new_embedded(packet).ok()?;
        let payload = if packet.fragment().is_first() {
            packet.payload()
        } else {
            &[]
        };
        let upper = Upper::of(packet.protocol(), payload);
        all.push(upper.between(packet.src().into(), packet.dst().into()));
        upper.quote
    }
}

struct Upper<'a> {
    protocol: Option<Protocol>,
    ports: (u16, u16),
    quote: Option<&'a [u8]>,
}

impl<'a> Upper<'a> {
    fn of(number: u8, payload: &'a [u8]) -> Self {
        let word = |at| get_u16(payload, at).unwrap_or_default();
        let kind = payload.first().copied();
        let (protocol, ports, quotes) = match number {
            protocol::TCP => (Some(Protocol::Tcp), (word(0), word(2)), false),
            protocol::UDP => (Some(Protocol::Udp), (word(0), word(2)), false),
            // Echo: the identifier is that of whoever asks.
            protocol::ICMP if matches!(kind, Some(0 | 8)) => {
                (Some(Protocol::Icmp), (word(4), word(4)), false)
            }
            protocol::ICMPV6 if matches!(kind, Some(128 | 129)) => {
                (Some(Protocol::Icmp), (word(4), word(4)), false)
            }
            protocol::ICMP => {
                let quotes = matches!(kind, Some(3 | 4 | 5 | 11 | 12));
                (Some(Protocol::Icmp), (0, 0), quotes)
            }
            protocol::ICMPV6 => {
                let quotes = kind.is_some_and(|it| it < 128);
                (Some(Protocol::Icmp), (0, 0), quotes)
            }
            _ => (None, (0, 0), false),
        };
        let quote = payload.get(ICMP_HEADER..).filter(|_| quotes);
        Self {
            protocol,
            ports,
            quote,
        }
    }

    fn between(&self, src: IpAddr, dst: IpAddr) -> Ends {
        Ends {
            protocol: self.protocol,
            src: SocketAddr::new(src, self.ports.0),
            dst: SocketAddr::new(dst, self.ports.1),
        }
    }
}
