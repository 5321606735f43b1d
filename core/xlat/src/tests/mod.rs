//! The rules of RFC 7915, one test per item of the conformance checklist.

mod fragments;
mod icmp;
mod offload;
mod properties;
mod settings;
mod v4_to_v6;
mod v6_to_v4;

use core::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use wire::{
    compose::{self, Pair, V4, V6},
    ipv4::Ipv4,
    ipv6::Ipv6,
    packet::{HEADROOM, PacketBuf},
    pieces::transport_checksum_ok,
    verdict::Verdict,
};

use crate::{Config, DropReason, Mapping, Refusal, Rewrite, V4ToV6, V6ToV4, config::ErrorPolicy};

/// The CLAT's pair of addresses, the peer, and an IPv6 router without an IPv4 address: as in
/// section 11 of the checklist.
pub(crate) const HOST4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);
pub(crate) const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, 0x464);
pub(crate) const PEER4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
pub(crate) const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0xc633, 0x640a);
pub(crate) const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, 1);
pub(crate) const OWN4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 2);
pub(crate) const OWN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, 0xfe);

pub(crate) const PAIR4: Pair = Pair::V4(HOST4, PEER4);
pub(crate) const PAIR6: Pair = Pair::V6(HOST6, PEER6);
/// The way back.
pub(crate) const BACK4: Pair = Pair::V4(PEER4, HOST4);
pub(crate) const BACK6: Pair = Pair::V6(PEER6, HOST6);

#[expect(clippy::disallowed_methods, reason = "virtual time needs an origin")]
pub(crate) fn origin() -> Instant {
    Instant::now()
}

/// HOST4 = HOST6, and 2001:db8:64::/96 for the rest; ports as told.
#[derive(Clone, Copy)]
pub(crate) struct TestMapping {
    pub(crate) rewrite: Rewrite,
    pub(crate) inner_rewrite: Rewrite,
}

pub(crate) const STATELESS: TestMapping = TestMapping {
    rewrite: Rewrite::None,
    inner_rewrite: Rewrite::None,
};

impl TestMapping {
    fn to_v6(address: Ipv4Addr) -> Result<Ipv6Addr, Refusal> {
        match address.octets() {
            _ if address == HOST4 => Ok(HOST6),
            [127, ..] => Err(Refusal::Excluded),
            [10, ..] => Err(Refusal::NonGlobal),
            [192, 0, 0, _] => Err(Refusal::NoMapping),
            _ => Ok(Ipv6Addr::from_bits(
                0x2001_0db8_0064 << 80 | u128::from(address.to_bits()),
            )),
        }
    }

    fn to_v4(address: Ipv6Addr) -> Result<Ipv4Addr, Refusal> {
        if address == HOST6 {
            return Ok(HOST4);
        }
        if address.to_bits() >> 32 != 0x2001_0db8_0064 << 48 {
            return Err(Refusal::NoMapping);
        }
        let [.., a, b, c, d] = address.octets();
        match a {
            10 => Err(Refusal::NonGlobal),
            127 => Err(Refusal::Excluded),
            _ => Ok(Ipv4Addr::new(a, b, c, d)),
        }
    }
}

macro_rules! test_mapping {
    ($from:ty, $to:ty, $map:ident) => {
        impl Mapping<$from, $to> for TestMapping {
            fn source(&self, address: $from) -> Result<$to, Refusal> {
                Self::$map(address)
            }

            fn destination(&self, address: $from) -> Result<$to, Refusal> {
                Self::$map(address)
            }

            fn inner_source(&self, address: $from) -> Result<$to, Refusal> {
                Self::$map(address)
            }

            fn inner_destination(&self, address: $from) -> Result<$to, Refusal> {
                Self::$map(address)
            }

            fn rewrite(&self) -> Rewrite {
                self.rewrite
            }

            fn inner_rewrite(&self) -> Rewrite {
                self.inner_rewrite
            }
        }
    };
}

test_mapping!(Ipv4Addr, Ipv6Addr, to_v6);
test_mapping!(Ipv6Addr, Ipv4Addr, to_v4);

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Forwarded(Vec<Vec<u8>>),
    Replied(DropReason, Vec<u8>),
    Dropped(DropReason),
}

impl Fate {
    /// The one packet that was forwarded.
    pub(crate) fn packet(self) -> Vec<u8> {
        let mut packets = self.packets();
        assert_eq!(packets.len(), 1, "one packet expected");
        packets.remove(0)
    }

    pub(crate) fn packets(self) -> Vec<Vec<u8>> {
        match self {
            Self::Forwarded(packets) => packets,
            other => panic!("not forwarded: {other:?}"),
        }
    }

    /// Type, code, bytes 4 to 7 and quote of the error that was sent back.
    pub(crate) fn reply(self) -> (DropReason, u8, u8, [u8; 4], Vec<u8>) {
        let Self::Replied(reason, packet) = self else {
            panic!("no reply: {self:?}");
        };
        assert_eq!(transport_checksum_ok(&packet), Some(true));
        let message = match Ipv4::new_checked(&packet) {
            Ok(outer) => {
                assert_eq!((outer.src(), outer.dst()), (OWN4, HOST4));
                outer.payload().to_vec()
            }
            Err(_) => {
                let outer = Ipv6::new_checked(&packet).unwrap();
                assert_eq!((outer.src(), outer.dst()), (OWN6, PEER6));
                outer.payload().to_vec()
            }
        };
        let rest = *message[4..].first_chunk().unwrap();
        (reason, message[0], message[1], rest, message[8..].to_vec())
    }
}

pub(crate) fn config() -> Config {
    Config {
        errors: ErrorPolicy::Send,
        ..Config::new(OWN4, OWN6)
    }
}

/// A packet in a buffer that was full of noise.
pub(crate) fn loaded(packet: &[u8]) -> PacketBuf {
    let mut buf = PacketBuf::new();
    buf.receive_area(HEADROOM).fill(0xa5);
    buf.set(packet).unwrap();
    buf
}

fn fate(verdict: Verdict<DropReason>, buf: &mut PacketBuf) -> Fate {
    match verdict {
        Verdict::Forward(mut pieces) => {
            let mut packets = Vec::new();
            while pieces.next(buf) {
                packets.push(buf.bytes().to_vec());
            }
            Fate::Forwarded(packets)
        }
        Verdict::Reply(reason) => Fate::Replied(reason, buf.bytes().to_vec()),
        Verdict::Drop(reason) => Fate::Dropped(reason),
    }
}

pub(crate) fn to_v6(packet: &[u8]) -> Fate {
    to_v6_with(config(), STATELESS, packet)
}

pub(crate) fn to_v6_with(config: Config, mapping: TestMapping, packet: &[u8]) -> Fate {
    let mut buf = loaded(packet);
    let verdict = V4ToV6::new(config, 1).translate(&mut buf, &mapping, origin());
    fate(verdict, &mut buf)
}

pub(crate) fn to_v4(packet: &[u8]) -> Fate {
    to_v4_with(config(), STATELESS, packet)
}

pub(crate) fn to_v4_with(config: Config, mapping: TestMapping, packet: &[u8]) -> Fate {
    let mut buf = loaded(packet);
    let verdict = V6ToV4::new(config, 1).translate(&mut buf, &mapping, origin());
    fate(verdict, &mut buf)
}

/// A UDP packet from the host to the peer over IPv4, changed by `f`.
pub(crate) fn udp4(data: &[u8], f: impl FnOnce(&mut V4)) -> Vec<u8> {
    let mut header = V4::new(HOST4, PEER4, 17);
    f(&mut header);
    header.carrying(&compose::udp(PAIR4, 40000, 53, data))
}

/// The same over IPv6.
pub(crate) fn udp6(data: &[u8], f: impl FnOnce(&mut V6)) -> Vec<u8> {
    let mut header = V6::new(HOST6, PEER6, 17);
    f(&mut header);
    header.carrying(&compose::udp(PAIR6, 40000, 53, data))
}

/// A UDP packet from the peer to the host over IPv6, changed by `f`.
pub(crate) fn back6(data: &[u8], f: impl FnOnce(&mut V6)) -> Vec<u8> {
    let mut header = V6::new(PEER6, HOST6, 17);
    f(&mut header);
    header.carrying(&compose::udp(BACK6, 53, 40000, data))
}

/// The same over IPv4.
pub(crate) fn back4(data: &[u8], f: impl FnOnce(&mut V4)) -> Vec<u8> {
    let mut header = V4::new(PEER4, HOST4, 17);
    f(&mut header);
    header.carrying(&compose::udp(BACK4, 53, 40000, data))
}

pub(crate) fn noise(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 % 251) as u8).collect()
}

/// Compares IPv4 packets but for their Identification, which a generator chooses.
pub(crate) fn assert_same_but_id(one: &[u8], other: &[u8]) {
    let masked = |packet: &[u8]| {
        let mut packet = packet.to_vec();
        assert!(Ipv4::new_checked(&packet).is_ok());
        packet[4..6].fill(0);
        packet[10..12].fill(0);
        packet
    };
    assert_eq!(masked(one), masked(other));
}
