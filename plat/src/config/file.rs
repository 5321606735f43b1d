//! The file, as it is written.

use cli::config::Spanned;
use serde::Deserialize;

use super::eam::EamFile;

/// The file, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// The NAT64 prefixes that are served. The well-known prefix if there are none.
    #[serde(default)]
    pub(super) prefixes: Vec<Spanned<String>>,
    /// IPv4 networks that are routed to this host and used for nothing else.
    #[serde(default)]
    pub(super) pool: Vec<Spanned<String>>,
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
