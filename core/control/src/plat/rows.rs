//! What `plat` answers with. All times are in seconds.

use core::{
    fmt,
    net::{Ipv4Addr, SocketAddrV4, SocketAddrV6},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// The protocols that have bindings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP queries; a port is an identifier.
    Icmp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Icmp];

    /// As it is written in commands and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Protocol {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.into_iter();
        let named = all.find(|it| text.eq_ignore_ascii_case(it.name()));
        named.ok_or("`tcp`, `udp` or `icmp`")
    }
}

/// A session (RFC 6146 §3.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// The protocol.
    pub protocol: Protocol,
    /// The client, X',x.
    pub client: SocketAddrV6,
    /// Its address and port from the pool, T,t.
    pub pool: SocketAddrV4,
    /// The server, Z,z. For ICMP its port is 0.
    pub remote: SocketAddrV4,
    /// The NAT64 prefix that the client sees the server under.
    pub prefix: String,
    /// The state, like `established`; of UDP and ICMP it is `open`.
    pub state: String,
    /// When it ends unless a packet comes.
    pub expires_in: u64,
}

/// A binding (RFC 6146 §3.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BibRow {
    /// The protocol.
    pub protocol: Protocol,
    /// The client, X',x.
    pub client: SocketAddrV6,
    /// Its address and port from the pool, T,t.
    pub pool: SocketAddrV4,
    /// How many sessions use it.
    pub sessions: u32,
    /// Whether it stays without any.
    #[serde(default, rename = "static")]
    pub is_static: bool,
}

/// How much of one address of the pool is in use, for one protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRow {
    /// The address.
    pub address: Ipv4Addr,
    /// The protocol.
    pub protocol: Protocol,
    /// Ports (identifiers, for ICMP) in use.
    pub used: u64,
    /// Ports that there are.
    pub ports: u64,
    /// The most that were in use at once since the start. With several workers, the sum of what
    /// was the most for each of them: never less than the truth, and more if they had their most at
    /// different times.
    #[serde(default)]
    pub high_water: Option<u64>,
}

/// Why an address or port of the pool is a client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldBy {
    /// The address is the host's own, by an explicit mapping (RFC 7757).
    Mapping,
    /// The ports follow from the subscriber's number, whether it uses them or not (RFC 7422).
    Number,
    /// The ports are in a block that the subscriber was given as it needed it.
    Block,
    /// The client was bound to it by the configuration or by command.
    Static,
    /// The client has a binding on it, as long as it has sessions.
    Binding,
}

impl fmt::Display for HeldBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Mapping => "mapping",
            Self::Number => "number",
            Self::Block => "block",
            Self::Static => "static",
            Self::Binding => "binding",
        })
    }
}

/// Who has something of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRow {
    /// The client's address, or the network of the subscriber.
    pub client: String,
    /// Its own port, if this is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_port: Option<u16>,
    /// The address of the pool.
    pub address: Ipv4Addr,
    /// Its first and last port (identifier, for ICMP). Of bindings that were added up, the least
    /// and the greatest. Absent if all of the address is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<(u16, u16)>,
    /// The protocol; absent if it holds for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Why it is the client's.
    pub by: HeldBy,
    /// How many bindings this is about, if it is about bindings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bindings: Option<u64>,
}

/// One thing that is counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatsRow {
    /// A stable name, like `from-v6.drop.no-session`.
    pub code: String,
    /// What it is, in one sentence.
    pub sentence: String,
    /// The clause that it follows from, like `RFC 6146 §3.5`. Empty if there is none.
    #[serde(default)]
    pub clause: String,
    /// How often. A rate is in percent; of nothing there is none.
    pub value: Option<f64>,
}

/// A client with what it uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRow {
    /// Its /64.
    pub client: String,
    /// Its sessions.
    pub sessions: u64,
    /// Its bindings.
    pub bindings: u64,
}

/// A client that was refused something: because it is not in `clients`, or for want of room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedClient {
    /// Its /64, or the network that counts as one subscriber.
    pub client: String,
    /// How many of its packets.
    pub packets: u64,
    /// How long ago the first one was refused.
    pub first_ago: u64,
    /// How long ago the last one was refused.
    pub last_ago: u64,
    /// Why, the last time: a code, like `client-refused`.
    pub reason: String,
    /// The same in one sentence.
    #[serde(default)]
    pub sentence: String,
}

/// How near something is to its limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threshold {
    /// A stable name: `sessions`, `bindings`, `memory`, `pool-tcp`, `pool-udp` or `pool-icmp`.
    #[serde(default)]
    pub code: String,
    /// Of what, for people, like `sessions`.
    pub what: String,
    /// How much there is.
    pub value: u64,
    /// How much there may be.
    pub limit: u64,
    /// In percent of the limit, at which the alarm begins.
    pub high: u8,
    /// In percent of the limit, under which the alarm ends.
    #[serde(default)]
    pub low: u8,
    /// Whether there is an alarm.
    pub exceeded: bool,
}

/// How `plat` is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The name of this instance, `default` unless there are several.
    pub instance: String,
    /// Its version.
    pub version: String,
    /// For how long it has been running.
    pub uptime: u64,
    /// The NAT64 prefixes that it serves.
    pub prefixes: Vec<String>,
    /// The addresses that clients share.
    pub pool: Vec<String>,
    /// The virtual interface.
    pub interface: String,
    /// How many threads move packets.
    pub workers: u64,
    /// Current sessions by protocol.
    pub sessions: Amounts,
    /// Current bindings by protocol.
    pub bindings: Amounts,
    /// How many sessions there may be.
    pub sessions_limit: u64,
    /// How many bindings there may be.
    pub bindings_limit: u64,
    /// How many clients' networks were refused something.
    #[serde(default)]
    pub refused_clients: u64,
    /// How near everything with a threshold is to its limit.
    #[serde(default)]
    pub thresholds: Vec<Threshold>,
    /// Whether it works.
    pub health: Health,
}

/// An amount for every protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    /// TCP.
    pub tcp: u64,
    /// UDP.
    pub udp: u64,
    /// ICMP.
    pub icmp: u64,
}

impl Amounts {
    /// All together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.tcp + self.udp + self.icmp
    }

    /// Of one protocol, to be changed.
    pub fn of_mut(&mut self, protocol: Protocol) -> &mut u64 {
        match protocol {
            Protocol::Tcp => &mut self.tcp,
            Protocol::Udp => &mut self.udp,
            Protocol::Icmp => &mut self.icmp,
        }
    }
}

/// Whether `plat` works.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether every check passed.
    pub healthy: bool,
    /// The checks.
    pub checks: Vec<Check>,
}

impl Health {
    /// Of these checks.
    #[must_use]
    pub fn of(checks: Vec<Check>) -> Self {
        Self {
            healthy: checks.iter().all(|it| it.passed),
            checks,
        }
    }
}

/// One thing that must be so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// A stable name: `workers`, `ipv4-side`, `pool`.
    pub name: String,
    /// Whether it is so.
    pub passed: bool,
    /// One sentence.
    pub detail: String,
}
