//! `[filtering]` and `[tcp]`.

use nat64::{
    config::{TcpPolicy, UnexpectedSyn},
    filtering::{Filtering, FilteringPolicy},
};
use schemars::JsonSchema;
use serde::Deserialize;

/// Which servers reach a port that a client uses.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FilteringFile {
    /// TCP connections.
    tcp: Option<FilteringName>,
    /// UDP.
    udp: Option<FilteringName>,
    /// Echo.
    icmp: Option<FilteringName>,
    /// Whether servers are told by ICMP that their packet reached nobody.
    answer: Option<bool>,
    /// Whether what servers send keeps a session alive; if not, only what its client sends does.
    inbound_refresh: Option<bool>,
}

/// Whom a port is open to.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum FilteringName {
    EndpointIndependent,
    AddressDependent,
}

/// What TCP connections are treated like.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TcpFile {
    /// What becomes of a SYN from outside that no client expects: it is kept for six seconds and
    /// then answered, or dropped.
    unexpected_syn: Option<SynName>,
    /// Whether a RST after a FIN ends a connection in four minutes instead of two hours.
    reset_after_fin: Option<bool>,
    /// Whether a client's SYN after both FINs begins a connection anew.
    reopen_after_fin: Option<bool>,
    /// Whether a RST or FIN counts only near the sequence numbers of its connection.
    check_sequence: Option<bool>,
    /// Whether a client whose connection was idle for two hours is asked whether it still has it.
    probe: Option<bool>,
}

/// What becomes of a SYN.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum SynName {
    Store,
    Drop,
}

impl FilteringFile {
    pub(super) fn policy(&self) -> FilteringPolicy {
        let default = FilteringPolicy::default();
        let of = |name: Option<FilteringName>, default| match name {
            None => default,
            Some(FilteringName::EndpointIndependent) => Filtering::EndpointIndependent,
            Some(FilteringName::AddressDependent) => Filtering::AddressDependent,
        };
        FilteringPolicy {
            tcp: of(self.tcp, default.tcp),
            udp: of(self.udp, default.udp),
            icmp: of(self.icmp, default.icmp),
            answer: self.answer.unwrap_or(default.answer),
            inbound_refresh: self.inbound_refresh.unwrap_or(default.inbound_refresh),
        }
    }
}

impl TcpFile {
    pub(super) fn policy(&self) -> TcpPolicy {
        let default = TcpPolicy::default();
        TcpPolicy {
            unexpected_syn: match self.unexpected_syn {
                None => default.unexpected_syn,
                Some(SynName::Store) => UnexpectedSyn::Store,
                Some(SynName::Drop) => UnexpectedSyn::Drop,
            },
            reset_after_fin: self.reset_after_fin.unwrap_or(default.reset_after_fin),
            reopen_after_fin: self.reopen_after_fin.unwrap_or(default.reopen_after_fin),
            check_sequence: self.check_sequence.unwrap_or(default.check_sequence),
            probe: self.probe.unwrap_or(default.probe),
        }
    }
}

/// As it is written in the file.
pub(super) fn name(filtering: Filtering) -> &'static str {
    match filtering {
        Filtering::EndpointIndependent => "endpoint-independent",
        Filtering::AddressDependent => "address-dependent",
    }
}

/// As it is written in the file.
pub(super) fn syn_name(unexpected: UnexpectedSyn) -> &'static str {
    match unexpected {
        UnexpectedSyn::Store => "store",
        UnexpectedSyn::Drop => "drop",
    }
}
