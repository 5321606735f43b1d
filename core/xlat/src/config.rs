//! [`Config`]: the knobs of RFC 7915.

use core::net::{Ipv4Addr, Ipv6Addr};

/// The source of ICMPv4 errors that came from an IPv6 router without an IPv4 address
/// (draft-ietf-v6ops-icmpext-xlat-v6only-source).
pub const DUMMY_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// How a translator behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes the next IPv6 link takes. At least 1280.
    pub ipv6_mtu: u16,
    /// Bytes the next IPv4 link takes. At least 68.
    pub ipv4_mtu: u16,
    /// The size up to which an IPv4 packet that may be fragmented becomes one IPv6 packet
    /// (RFC 7915 §4.1: `lowest-ipv6-mtu`). Default 1280, the size every IPv6 link takes; raise it
    /// where all links are known to take more.
    pub lowest_ipv6_mtu: u16,
    /// The traffic class of IPv6 packets. Default: the type of service.
    pub traffic_class: ServiceClass,
    /// The type of service of IPv4 packets. Default: the traffic class.
    pub tos: ServiceClass,
    /// UDP over IPv4 without checksum. Default: compute it.
    pub udp_checksum_missing: UdpChecksumMissing,
    /// The translator's own address for ICMPv4 errors.
    pub own_ipv4: Ipv4Addr,
    /// The translator's own address for ICMPv6 errors.
    pub own_ipv6: Ipv6Addr,
    /// The source of ICMPv6 errors from routers whose address has no mapping. Default:
    /// [`DUMMY_ADDRESS`].
    pub untranslatable_source: Ipv4Addr,
    /// ICMP errors for packets that are dropped.
    pub errors: ErrorPolicy,
}

impl Config {
    /// The defaults of RFC 7915, for links of 1500 bytes.
    #[must_use]
    pub fn new(own_ipv4: Ipv4Addr, own_ipv6: Ipv6Addr) -> Self {
        Self {
            ipv6_mtu: 1500,
            ipv4_mtu: 1500,
            lowest_ipv6_mtu: wire::ipv6::MIN_MTU,
            traffic_class: ServiceClass::Copy,
            tos: ServiceClass::Copy,
            udp_checksum_missing: UdpChecksumMissing::Compute,
            own_ipv4,
            own_ipv6,
            untranslatable_source: DUMMY_ADDRESS,
            errors: ErrorPolicy::default(),
        }
    }
}

/// What becomes of DSCP and ECN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceClass {
    /// All 8 bits are copied.
    Copy,
    /// Always this value (RFC 7915 §4.1, §5.1).
    Set(u8),
}

impl ServiceClass {
    pub(crate) fn of(self, original: u8) -> u8 {
        match self {
            Self::Copy => original,
            Self::Set(value) => value,
        }
    }
}

/// What becomes of an unfragmented UDP datagram without checksum (RFC 7915 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpChecksumMissing {
    /// It gets one.
    Compute,
    /// It is dropped.
    Drop,
}

/// Whether senders are told of dropped packets (RFC 7915 §4.4, §5.4; RFC 4443 §2.4 f).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorPolicy {
    /// Always.
    Send,
    /// At most `burst` at once and `per_second` in the long run: so many that tell a size, and so
    /// many others.
    Limit {
        /// Errors that may be sent without a pause.
        burst: u32,
        /// Errors per second in the long run.
        per_second: u32,
    },
    /// Never. Path MTU discovery and traceroute stop working.
    Off,
}

impl Default for ErrorPolicy {
    fn default() -> Self {
        Self::Limit {
            burst: 100,
            per_second: 100,
        }
    }
}
