//! ARP for IPv4 over Ethernet (RFC 826), as far as a host needs it that looks whether an address is
//! free (RFC 5227).

use core::net::Ipv4Addr;

use crate::ethernet::Mac;

/// The type of an ARP packet in an Ethernet header.
pub const ETHERTYPE: u16 = 0x0806;

/// Bytes of a packet for IPv4 over Ethernet.
pub const LEN: usize = 28;

/// Ethernet, IPv4, and the lengths of their addresses: how every such packet begins.
const PREFIX: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target's address?
    Request,
    /// The sender has its address.
    Reply,
}

/// A packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// What it is.
    pub operation: Operation,
    /// Who sends it.
    pub sender: Mac,
    /// Its IPv4 address; 0.0.0.0 in a probe.
    pub sender_address: Ipv4Addr,
    /// To whom, as far as that is known.
    pub target: Mac,
    /// Which address is asked about, or whom the answer is for.
    pub target_address: Ipv4Addr,
}

impl Arp {
    /// Asks whether anybody has `address`, without saying that the sender has one (RFC 5227 §2.1.1).
    #[must_use]
    pub fn probe(sender: Mac, address: Ipv4Addr) -> Self {
        Self {
            operation: Operation::Request,
            sender,
            sender_address: Ipv4Addr::UNSPECIFIED,
            target: Mac([0; 6]),
            target_address: address,
        }
    }

    /// Tells everybody that `sender` has `address` (RFC 5227 §2.3).
    #[must_use]
    pub fn announcement(sender: Mac, address: Ipv4Addr) -> Self {
        Self {
            sender_address: address,
            ..Self::probe(sender, address)
        }
    }

    /// Reads a packet. `None` if it is not one for IPv4 over Ethernet, or neither request nor reply.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let rest = packet.strip_prefix(&PREFIX)?;
        let (operation, rest) = rest.split_first_chunk()?;
        let (sender, rest) = rest.split_first_chunk()?;
        let (sender_address, rest) = rest.split_first_chunk::<4>()?;
        let (target, rest) = rest.split_first_chunk()?;
        let (target_address, _) = rest.split_first_chunk::<4>()?;
        Some(Self {
            operation: match u16::from_be_bytes(*operation) {
                1 => Operation::Request,
                2 => Operation::Reply,
                _ => return None,
            },
            sender: Mac(*sender),
            sender_address: Ipv4Addr::from(*sender_address),
            target: Mac(*target),
            target_address: Ipv4Addr::from(*target_address),
        })
    }

    /// As it goes behind the Ethernet header.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let operation: u8 = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        bytes[..6].copy_from_slice(&PREFIX);
        bytes[7] = operation;
        bytes[8..14].copy_from_slice(&self.sender.0);
        bytes[14..18].copy_from_slice(&self.sender_address.octets());
        bytes[18..24].copy_from_slice(&self.target.0);
        bytes[24..].copy_from_slice(&self.target_address.octets());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

    #[test]
    fn a_probe_names_no_sender_address_and_an_announcement_does() {
        let probe = Arp::probe(MAC, ADDRESS).to_bytes();
        let expected = [
            0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 192, 0, 2, 7,
        ];
        assert_eq!(probe, expected);
        let announcement = Arp::announcement(MAC, ADDRESS).to_bytes();
        assert_eq!(announcement[14..18], [192, 0, 2, 7]);
        assert_eq!(announcement[24..], [192, 0, 2, 7]);
    }

    #[test]
    fn what_is_written_is_read_and_no_bytes_make_it_panic() {
        for operation in [Operation::Request, Operation::Reply] {
            let arp = Arp {
                operation,
                target: Mac([9; 6]),
                ..Arp::announcement(MAC, ADDRESS)
            };
            let mut bytes = arp.to_bytes().to_vec();
            assert_eq!(Arp::parse(&bytes), Some(arp));
            for len in 0..LEN {
                assert_eq!(Arp::parse(&bytes[..len]), None);
            }
            // Ethernet frames are filled up.
            bytes.extend([0; 18]);
            assert_eq!(Arp::parse(&bytes), Some(arp));
            for at in 0..8 {
                let mut other = bytes.clone();
                other[at] ^= 0x80;
                assert_eq!(Arp::parse(&other), None, "{at}");
            }
        }
    }
}
