//! The file, as it is written.

use std::{fmt, num::NonZeroU16};

use cli::config::Spanned;
use pref64::siit::NonGlobal;
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{
    bib::BibFile,
    eam::EamFile,
    log::{LogFile, MetricsFile},
    policy::{FilteringFile, TcpFile},
    thresholds::ThresholdsFile,
};
use crate::pool_mode::PoolMode;

/// The file, as it is written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// The NAT64 prefixes that are served. The well-known prefix if there are none.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(super) prefixes: Vec<Spanned<String>>,
    /// Networks whose hosts may use it. Without any, those of this host's own side.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(super) clients: Vec<Spanned<String>>,
    /// IPv4 addresses that are routed to this host and used for nothing else.
    #[serde(default)]
    #[schemars(with = "Vec<PoolItem>")]
    pub(super) pool: Vec<Spanned<PoolItem>>,
    /// How the pool's addresses come to this host.
    #[schemars(with = "Option<PoolMode>")]
    pub(super) pool_mode: Option<Spanned<PoolMode>>,
    /// Which ports of this host's own address are shared: `61001-65535`.
    #[schemars(with = "Option<String>")]
    pub(super) host_ports: Option<Spanned<String>>,
    /// Name of the interface to the IPv4 internet.
    #[schemars(with = "Option<String>")]
    pub(super) uplink: Option<Spanned<String>>,
    /// Hosts with an IPv4 address of their own.
    #[serde(default)]
    pub(super) eam: Vec<EamFile>,
    /// Servers behind the NAT64, and where they are reached.
    #[serde(default)]
    pub(super) bib: Vec<BibFile>,
    /// Private and other special networks that clients may reach nevertheless.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(super) allow_destinations: Vec<Spanned<String>>,
    /// Non-global IPv4 addresses under `64:ff9b::/96`.
    #[serde(default)]
    pub(super) wkp_non_global: WkpNonGlobal,
    /// Name of the virtual interface.
    #[schemars(with = "Option<String>")]
    pub(super) interface: Option<Spanned<String>>,
    /// Whether a host that did not forward packets goes on so, but for those of clients. Default
    /// true.
    #[serde(default = "yes")]
    pub(super) forward_guard: bool,
    /// Bytes that a packet may have on the IPv6 side. Default 1500, at least 1280.
    #[schemars(with = "Option<u16>")]
    pub(super) ipv6_mtu: Option<Spanned<u16>>,
    /// Bytes that a packet may have on the IPv4 side. Default 1500, at least 68.
    #[schemars(with = "Option<u16>")]
    pub(super) ipv4_mtu: Option<Spanned<u16>>,
    /// Fragment packets that may be fragmented above this size in IPv6.
    #[schemars(with = "Option<u16>")]
    pub(super) fragment_above: Option<Spanned<u16>>,
    /// Threads that move packets, from 1 to 64; fewer if that would leave one fewer than 256 ports
    /// of the pool. Default: one for each processor, at most 8.
    #[schemars(with = "Option<u8>")]
    pub(super) workers: Option<Spanned<u8>>,
    #[serde(default)]
    pub(super) filtering: FilteringFile,
    #[serde(default)]
    pub(super) tcp: TcpFile,
    #[serde(default)]
    pub(super) timers: TimersFile,
    #[serde(default)]
    pub(super) limits: LimitsFile,
    #[serde(default)]
    pub(super) quota: QuotaFile,
    /// Whether ports are given to subscribers in blocks.
    #[serde(default)]
    pub(super) blocks: BlocksFile,
    #[serde(default)]
    pub(super) thresholds: ThresholdsFile,
    #[serde(default)]
    pub(super) log: LogFile,
    #[serde(default)]
    pub(super) metrics: MetricsFile,
}

fn yes() -> bool {
    true
}

/// What becomes of packets to private and other special IPv4 addresses under `64:ff9b::/96`.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum WkpNonGlobal {
    /// They are dropped (RFC 6052 §3.1).
    #[default]
    Drop,
    /// They are translated; which may be reached, `allow_destinations` says.
    Translate,
}

impl From<WkpNonGlobal> for NonGlobal {
    fn from(written: WkpNonGlobal) -> Self {
        match written {
            WkpNonGlobal::Drop => Self::Drop,
            WkpNonGlobal::Translate => Self::Translate,
        }
    }
}

/// How ports are given to subscribers.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(tag = "mode", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum BlocksFile {
    /// One by one.
    None {},
    /// In blocks, as they are needed.
    Dynamic {
        /// Ports of a block, at least 16.
        size: NonZeroU16,
        /// Blocks that a subscriber may have.
        most: NonZeroU16,
    },
    /// Each has the block that its number leads to: its place in `clients` (RFC 7422).
    Deterministic {
        /// Subscribers that share an address.
        subscribers: NonZeroU16,
        /// The ports of as many more blocks of each address are given to whoever needs more than its
        /// own. Default 0.
        #[serde(default)]
        spare: u16,
        /// Ports that one is given of these at a time, at least 16. Default 256, or as many as its
        /// own block has if that has fewer.
        spare_size: Option<NonZeroU16>,
        /// How often: so many spare blocks a subscriber may have. Default 4.
        spare_most: Option<u16>,
    },
}

impl Default for BlocksFile {
    fn default() -> Self {
        Self::None {}
    }
}

/// How long things live without a packet, in seconds.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TimersFile {
    /// A UDP session. Default 300, at least 120.
    #[schemars(with = "Option<u64>")]
    pub(super) udp: Option<Spanned<u64>>,
    /// An ICMP query session. Default and least 60.
    #[schemars(with = "Option<u64>")]
    pub(super) icmp: Option<Spanned<u64>>,
    /// An established TCP connection. Default and least 7200.
    #[schemars(with = "Option<u64>")]
    pub(super) tcp_established: Option<Spanned<u64>>,
    /// A TCP connection that is being opened or closed. Default and least 240.
    #[schemars(with = "Option<u64>")]
    pub(super) tcp_transitory: Option<Spanned<u64>>,
    /// A SYN from outside that no client expects. Default and least 6.
    #[schemars(with = "Option<u64>")]
    pub(super) tcp_incoming_syn: Option<Spanned<u64>>,
    /// A datagram of which fragments are missing. Default 5, at least 2.
    #[schemars(with = "Option<u64>")]
    pub(super) fragment: Option<Spanned<u64>>,
    /// A UDP port or identifier that was given up, before another client gets it. Default 120.
    #[schemars(with = "Option<u64>")]
    pub(super) hold_down: Option<Spanned<u64>>,
}

/// How much of everything there may be; memory grows up to these and no further.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsFile {
    /// Bindings, about 45 bytes each. Default 1000000.
    #[schemars(with = "Option<usize>")]
    pub(super) bindings: Option<Spanned<usize>>,
    /// Sessions, about 75 bytes each; servers may begin half of them. Default 1000000.
    #[schemars(with = "Option<usize>")]
    pub(super) sessions: Option<Spanned<usize>>,
    /// SYNs from outside that no client expects. Default 1000.
    #[schemars(with = "Option<usize>")]
    pub(super) stored_syns: Option<Spanned<usize>>,
    /// Bytes that these take. Default 131072 (128 KiB).
    #[schemars(with = "Option<usize>")]
    pub(super) stored_syn_bytes: Option<Spanned<usize>>,
    /// Datagrams of which fragments wait. Default 1024.
    pub(super) fragmented_datagrams: Option<usize>,
    /// Bytes that waiting fragments take. Default 16777216 (16 MiB).
    pub(super) fragment_bytes: Option<usize>,
    /// Datagrams of one sender that wait. Default 64.
    pub(super) fragmented_datagrams_per_source: Option<usize>,
}

/// How much one client may have.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QuotaFile {
    /// Bits of an address that its subscriber is known by. Default 64.
    #[schemars(with = "Option<u8>")]
    pub(super) prefix_len: Option<Spanned<u8>>,
    /// Networks without quotas.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(super) exempt: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) subscriber: OneQuotaFile,
    #[serde(default)]
    pub(super) address: OneQuotaFile,
}

/// How much a subscriber or an address may have. What is 0 is as by default.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OneQuotaFile {
    /// Bindings of each protocol. By default a share of the pool.
    #[serde(default)]
    pub(super) bindings: usize,
    /// Sessions. By default a share of the limit of sessions.
    #[serde(default)]
    pub(super) sessions: usize,
    /// Sessions that may be begun, per second in the long run. By default as many as come.
    #[serde(default)]
    pub(super) new_per_second: usize,
    /// Sessions that may be begun at once after a pause, at most 60 times `new_per_second`. By
    /// default as many as in a second.
    #[schemars(with = "Option<usize>")]
    pub(super) burst: Option<Spanned<usize>>,
}

/// An entry of the pool: `"203.0.113.0/28"`, or a table that says more.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub(super) enum PoolItem {
    /// An address, a network or a range, with all ports.
    Text(String),
    /// One with its ports.
    Table(Box<PoolTable>),
}

/// `[[pool]]`: addresses, and which of their ports and identifiers may be used.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolTable {
    /// One address.
    #[schemars(with = "Option<String>")]
    pub(super) address: Option<Spanned<String>>,
    /// A network.
    #[schemars(with = "Option<String>")]
    pub(super) cidr: Option<Spanned<String>>,
    /// From one address to another, both included.
    #[schemars(with = "Option<String>")]
    pub(super) range: Option<Spanned<String>>,
    /// Ports of TCP: ranges with both ends, separated by commas, or `none`.
    #[schemars(with = "Option<String>")]
    pub(super) tcp: Option<Spanned<String>>,
    /// Ports of UDP, as those of TCP.
    #[schemars(with = "Option<String>")]
    pub(super) udp: Option<Spanned<String>>,
    /// Identifiers of ICMP queries, as ports of TCP.
    #[schemars(with = "Option<String>")]
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
