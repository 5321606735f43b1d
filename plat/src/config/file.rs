//! The file, as it is written.

use std::fmt;

use cli::config::Spanned;
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::eam::EamFile;

/// The file, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// The NAT64 prefixes that are served. The well-known prefix if there are none.
    #[serde(default)]
    pub(super) prefixes: Vec<Spanned<String>>,
    /// IPv4 addresses that are routed to this host and used for nothing else.
    #[serde(default)]
    pub(super) pool: Vec<Spanned<PoolItem>>,
    /// Hosts with an IPv4 address of their own.
    #[serde(default)]
    pub(super) eam: Vec<EamFile>,
    /// Private and other special networks that clients may reach nevertheless.
    #[serde(default)]
    pub(super) allow_destinations: Vec<Spanned<String>>,
    /// Non-global IPv4 addresses under `64:ff9b::/96`.
    #[serde(default)]
    pub(super) wkp_non_global: WkpNonGlobal,
    /// Name of the virtual interface.
    pub(super) interface: Option<Spanned<String>>,
    /// Bytes per packet on the IPv6 and on the IPv4 side.
    pub(super) ipv6_mtu: Option<Spanned<u16>>,
    pub(super) ipv4_mtu: Option<Spanned<u16>>,
    /// Fragment packets that may be fragmented above this size in IPv6.
    pub(super) fragment_above: Option<Spanned<u16>>,
    #[serde(default)]
    pub(super) timers: TimersFile,
    #[serde(default)]
    pub(super) limits: LimitsFile,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum WkpNonGlobal {
    #[default]
    Drop,
    Translate,
}

/// In seconds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TimersFile {
    pub(super) udp: Option<Spanned<u64>>,
    pub(super) icmp: Option<Spanned<u64>>,
    pub(super) tcp_established: Option<Spanned<u64>>,
    pub(super) tcp_transitory: Option<Spanned<u64>>,
    pub(super) fragment: Option<Spanned<u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsFile {
    pub(super) bindings: Option<Spanned<usize>>,
    pub(super) sessions: Option<Spanned<usize>>,
    pub(super) fragmented_datagrams: Option<usize>,
    pub(super) fragment_bytes: Option<usize>,
    pub(super) fragmented_datagrams_per_source: Option<usize>,
}

/// An entry of the pool: `"203.0.113.0/28"`, or a table that says more.
#[derive(Debug)]
pub(super) enum PoolItem {
    Text(String),
    Table(Box<PoolTable>),
}

/// `[[pool]]`: addresses, and which of their ports and identifiers may be used.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolTable {
    /// One address.
    pub(super) address: Option<Spanned<String>>,
    /// A network.
    pub(super) cidr: Option<Spanned<String>>,
    /// From one address to another, both included.
    pub(super) range: Option<Spanned<String>>,
    /// Ports of TCP, both ends included.
    pub(super) tcp: Option<Spanned<String>>,
    /// Ports of UDP, both ends included.
    pub(super) udp: Option<Spanned<String>>,
    /// Identifiers of ICMP queries, both ends included.
    pub(super) icmp: Option<Spanned<String>>,
}

impl<'de> Deserialize<'de> for PoolItem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = PoolItem;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("addresses like \"192.0.2.0/24\", or a table [[pool]]")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PoolItem, E> {
                Ok(PoolItem::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PoolItem, A::Error> {
                let table = PoolTable::deserialize(MapAccessDeserializer::new(map))?;
                Ok(PoolItem::Table(Box::new(table)))
            }
        }

        deserializer.deserialize_any(Either)
    }
}
