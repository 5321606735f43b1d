//! [`Config`]: the knobs of a NAT64.

use core::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use pref64::{
    Pref64,
    eam::{Eam, EamTable},
    siit::NonGlobal,
    special::Special,
};
pub use xlat::{config::ErrorPolicy, reassembly};

use crate::{
    blocks::{self, Blocks, BlocksError},
    destinations::Network4,
    filtering::FilteringPolicy,
    index::Index,
    network6::Network6,
    ports::Ports,
    subscriber::{Quota, Quotas},
};

/// Everything a NAT64 must know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The prefixes it serves; at least one (RFC 6146 §3).
    pub prefixes: Vec<Pref64>,
    /// The networks whose hosts may use it; everybody if there are none.
    pub clients: Vec<Network6>,
    /// The IPv4 addresses that clients share; at least one.
    pub pool: Vec<PoolEntry>,
    /// Hosts with an IPv4 address of their own, which need no state (RFC 7757). None of the
    /// addresses lies in the pool or in a prefix.
    pub eam: EamTable,
    /// Special-purpose destinations that are allowed nevertheless.
    pub allow_destinations: Vec<Network4>,
    /// Destinations that are never allowed: the NAT64's own addresses.
    pub own_addresses: Vec<Ipv4Addr>,
    /// Non-global IPv4 addresses under the well-known prefix. Default: drop.
    pub wkp_non_global: NonGlobal,
    /// The source of ICMPv6 errors, and of translated ones whose own source cannot be written in
    /// IPv6.
    pub own_ipv6: Ipv6Addr,
    /// Bytes the next IPv6 link takes.
    pub ipv6_mtu: u16,
    /// Bytes the next IPv4 link takes.
    pub ipv4_mtu: u16,
    /// See [`xlat::Config::lowest_ipv6_mtu`].
    pub lowest_ipv6_mtu: u16,
    /// ICMP errors for packets that are dropped.
    pub errors: ErrorPolicy,
    /// Which servers reach a client's port.
    pub filtering: FilteringPolicy,
    /// What TCP connections are treated like.
    pub tcp: TcpPolicy,
    /// How long things live.
    pub timers: Timers,
    /// How much of everything there may be.
    pub limits: Limits,
    /// How much of it one client may have.
    pub quotas: Quotas,
    /// Whether ports are given in blocks. Default: one by one.
    pub blocks: Blocks,
}

/// An address of the pool, and which of its ports may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolEntry {
    /// The address.
    pub address: Ipv4Addr,
    /// Its ports and ICMP identifiers.
    pub ports: Ports,
}

/// What becomes of a SYN from outside that no client expects (RFC 6146 §3.5.2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnexpectedSyn {
    /// It is kept for [`Timers::tcp_incoming_syn`]: its client may be about to open the same
    /// connection (RFC 5382 REQ-4). Only then its sender is told. What that can cost is limited by
    /// [`Limits::stored_syns`] and by the limit of ICMP errors.
    #[default]
    Store,
    /// It is dropped, and nobody told.
    Drop,
}

/// What TCP connections are treated like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpPolicy {
    /// SYNs that no client expects. Default: stored.
    pub unexpected_syn: UnexpectedSyn,
    /// Whether a RST after a FIN ends a connection in four minutes, where the text of RFC 6146
    /// would leave two hours. Default: yes.
    pub reset_after_fin: bool,
    /// Whether a client's SYN after both sides' FIN begins a connection anew, where the text of RFC
    /// 6146 lets the old one end under it. Default: yes.
    pub reopen_after_fin: bool,
    /// Whether a RST or FIN counts only near the sequence numbers of its connection. Default: yes.
    pub check_sequence: bool,
    /// Whether a client whose connection was idle for [`Timers::tcp_established`] is asked whether
    /// it still has it (RFC 6146 §3.5.2.2). Default: yes.
    pub probe: bool,
}

impl Default for TcpPolicy {
    fn default() -> Self {
        Self {
            unexpected_syn: UnexpectedSyn::Store,
            reset_after_fin: true,
            reopen_after_fin: true,
            check_sequence: true,
            probe: true,
        }
    }
}

/// How long things live without a packet (RFC 6146 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// A UDP session. Default 300 s, at least 120 s.
    pub udp: Duration,
    /// An ICMP query session. Default and least 60 s.
    pub icmp: Duration,
    /// An established TCP connection. Default and least 7200 s.
    pub tcp_established: Duration,
    /// A TCP connection that is being opened or closed. Default and least 240 s.
    pub tcp_transitory: Duration,
    /// A SYN from outside that no client expects. Default and least 6 s.
    pub tcp_incoming_syn: Duration,
    /// A datagram of which fragments are missing. Default 5 s, at least 2 s.
    pub fragment: Duration,
    /// A UDP port or ICMP identifier that was given up, before another client gets it (RFC 6888
    /// REQ-8). Default 120 s; 0 turns it off.
    pub hold_down: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            udp: Duration::from_secs(300),
            icmp: Duration::from_secs(60),
            tcp_established: Duration::from_secs(7200),
            tcp_transitory: Duration::from_secs(240),
            tcp_incoming_syn: Duration::from_secs(6),
            fragment: Duration::from_secs(5),
            hold_down: Duration::from_secs(120),
        }
    }
}

impl Timers {
    /// The least values that RFC 6146 §4 allows.
    const LEAST: Self = Self {
        udp: Duration::from_secs(120),
        icmp: Duration::from_secs(60),
        tcp_established: Duration::from_secs(7200),
        tcp_transitory: Duration::from_secs(240),
        tcp_incoming_syn: Duration::from_secs(6),
        fragment: Duration::from_secs(2),
        hold_down: Duration::ZERO,
    };

    /// The most that makes sense: a session that is idle for a month is over, and fragments wait
    /// no longer than those of any host (RFC 1122 §3.3.2).
    const MOST: Self = {
        let month = Duration::from_secs(30 * 24 * 3600);
        Self {
            udp: month,
            icmp: month,
            tcp_established: month,
            tcp_transitory: month,
            tcp_incoming_syn: Duration::from_secs(120),
            fragment: Duration::from_secs(120),
            hold_down: Duration::from_secs(3600),
        }
    };

    /// Every timer with its name in the configuration.
    fn named(&self) -> [(&'static str, Duration); 7] {
        [
            ("udp", self.udp),
            ("icmp", self.icmp),
            ("tcp_established", self.tcp_established),
            ("tcp_transitory", self.tcp_transitory),
            ("tcp_incoming_syn", self.tcp_incoming_syn),
            ("fragment", self.fragment),
            ("hold_down", self.hold_down),
        ]
    }

    fn check(&self) -> Result<(), ConfigError> {
        let bounds = Self::LEAST.named().into_iter().zip(Self::MOST.named());
        for ((name, value), ((_, least), (_, most))) in self.named().into_iter().zip(bounds) {
            if !(least..=most).contains(&value) {
                return Err(ConfigError::Timer { name, least, most });
            }
        }
        Ok(())
    }
}

/// How much of everything there may be. Memory grows up to these and no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bindings, of about [`Self::BYTES_PER_BINDING`] each. Default 1 000 000.
    pub bindings: usize,
    /// Sessions, of about [`Self::BYTES_PER_SESSION`] each; servers may begin half of them. Default
    /// 1 000 000.
    pub sessions: usize,
    /// SYNs from outside that no client expects. Default 1000.
    pub stored_syns: usize,
    /// Their bytes; one has about 60. Default 128 KiB.
    pub stored_syn_bytes: usize,
    /// Fragments that wait for the rest of their datagram. Each side has half of it.
    pub fragments: reassembly::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bindings: 1_000_000,
            sessions: 1_000_000,
            stored_syns: 1000,
            stored_syn_bytes: 128 * 1024,
            fragments: reassembly::Limits::default(),
        }
    }
}

impl Limits {
    /// The most entries a table can have: a place in an index has 24 bits.
    pub const MOST: usize = Index::MOST;

    /// What a binding takes at most, with its place in both indexes and the growth of the tables.
    pub const BYTES_PER_BINDING: usize = 45;

    /// What a session takes at most.
    pub const BYTES_PER_SESSION: usize = 75;

    fn check(&self) -> Result<(), ConfigError> {
        let tables = [
            ("bindings", self.bindings),
            ("sessions", self.sessions),
            ("stored_syns", self.stored_syns),
            ("stored_syn_bytes", self.stored_syn_bytes),
        ];
        let most = Self::MOST;
        match tables.into_iter().find(|(_, n)| !(1..=most).contains(n)) {
            Some((name, _)) => Err(ConfigError::Limit { name, most }),
            None => Ok(()),
        }
    }
}

/// Why a configuration makes no NAT64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// There is no prefix.
    NoPrefix,
    /// There are more prefixes than [`MAX_PREFIXES`].
    TooManyPrefixes,
    /// One prefix lies in another.
    OverlappingPrefixes(Pref64, Pref64),
    /// There is no pool address.
    NoPool,
    /// An address stands twice in the pool.
    PoolTwice(Ipv4Addr),
    /// An address of the pool has no port.
    PoolWithoutPorts(Ipv4Addr),
    /// An address of the pool is one that no packet can come from.
    PoolUnusable(Ipv4Addr),
    /// A mapping covers an address of the pool: what comes to it would mean two things.
    EamInPool(Eam, Ipv4Addr),
    /// A mapping's IPv6 prefix and a NAT64 prefix lie in one another.
    EamInPrefix(Eam, Pref64),
    /// A mapping covers IPv4 addresses that no packet can come from.
    EamUnusable(Eam),
    /// A timer is shorter than the standard allows, or longer than makes sense.
    Timer {
        /// The timer's name in the configuration.
        name: &'static str,
        /// The least value.
        least: Duration,
        /// The greatest value.
        most: Duration,
    },
    /// A subscriber is no network: its prefix has no bit, or more than an address.
    SubscriberPrefix,
    /// A quota of nothing.
    EmptyQuota,
    /// A burst of new sessions takes longer than a minute to come back.
    Burst,
    /// There are no such blocks of ports.
    Blocks(BlocksError),
    /// A limit is zero or more than a table can hold.
    Limit {
        /// The limit's name in the configuration.
        name: &'static str,
        /// The greatest value.
        most: usize,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPrefix => f.write_str("there is no NAT64 prefix"),
            Self::TooManyPrefixes => {
                write!(f, "there are more than {MAX_PREFIXES} NAT64 prefixes")
            }
            Self::OverlappingPrefixes(inner, outer) => {
                write!(
                    f,
                    "{inner} lies in {outer}: an address would mean two things"
                )
            }
            Self::NoPool => f.write_str("the pool has no address"),
            Self::PoolTwice(address) => write!(f, "{address} stands twice in the pool"),
            Self::PoolWithoutPorts(address) => write!(f, "{address} in the pool has no port"),
            Self::PoolUnusable(address) => write!(
                f,
                "{address} cannot be in the pool: no router passes on packets from it"
            ),
            Self::EamInPool(eam, address) => write!(
                f,
                "{eam}: {address} is in the pool; an address is either shared or one host's own"
            ),
            Self::EamInPrefix(eam, prefix) => write!(
                f,
                "{eam}: the IPv6 addresses overlap with the NAT64 prefix {prefix}, which stands for \
                 IPv4 addresses already"
            ),
            Self::EamUnusable(eam) => write!(
                f,
                "{eam}: no router passes on packets from these IPv4 addresses"
            ),
            Self::Timer { name, least, most } => write!(
                f,
                "{name} must be from {} (RFC 6146 section 4) to {} seconds",
                least.as_secs(),
                most.as_secs()
            ),
            Self::SubscriberPrefix => f.write_str("a subscriber's prefix has from 1 to 128 bits"),
            Self::EmptyQuota => {
                f.write_str("a quota is at least 1; use `clients` to refuse clients")
            }
            Self::Burst => write!(
                f,
                "a quota's burst is at most {} times its new_per_second",
                Quota::LONGEST_BURST
            ),
            Self::Blocks(error) => error.fmt(f),
            Self::Limit { name, most } => write!(f, "{name} must be from 1 to {most}"),
        }
    }
}

impl core::error::Error for ConfigError {}

/// The most prefixes a NAT64 can serve: each packet is compared with all of them.
pub const MAX_PREFIXES: usize = 16;

impl Config {
    /// A NAT64 for `prefix` and the whole of every address in `pool`, with the defaults, for
    /// everybody and without quotas: [`Quotas::of_capacity`] has sensible ones.
    #[must_use]
    pub fn new(prefix: Pref64, pool: &[Ipv4Addr], own_ipv6: Ipv6Addr) -> Self {
        Self {
            prefixes: vec![prefix],
            clients: Vec::new(),
            pool: pool
                .iter()
                .map(|address| PoolEntry {
                    address: *address,
                    ports: Ports::all(),
                })
                .collect(),
            eam: EamTable::default(),
            allow_destinations: Vec::new(),
            own_addresses: Vec::new(),
            wkp_non_global: NonGlobal::Drop,
            own_ipv6,
            ipv6_mtu: 1500,
            ipv4_mtu: 1500,
            lowest_ipv6_mtu: wire::ipv6::MIN_MTU,
            errors: ErrorPolicy::default(),
            filtering: FilteringPolicy::default(),
            tcp: TcpPolicy::default(),
            timers: Timers::default(),
            limits: Limits::default(),
            quotas: Quotas::unlimited(),
            blocks: Blocks::None,
        }
    }

    /// Whether a NAT64 can be made of this.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_prefixes()?;
        self.check_pool()?;
        self.check_eam()?;
        self.limits.check()?;
        self.check_quotas()?;
        blocks::check(self)?;
        self.timers.check()
    }

    fn check_prefixes(&self) -> Result<(), ConfigError> {
        if self.prefixes.is_empty() {
            return Err(ConfigError::NoPrefix);
        }
        if self.prefixes.len() > MAX_PREFIXES {
            return Err(ConfigError::TooManyPrefixes);
        }
        for (i, one) in self.prefixes.iter().enumerate() {
            for other in &self.prefixes[i + 1..] {
                if one.contains(other.address()) {
                    return Err(ConfigError::OverlappingPrefixes(*other, *one));
                }
                if other.contains(one.address()) {
                    return Err(ConfigError::OverlappingPrefixes(*one, *other));
                }
            }
        }
        Ok(())
    }

    fn check_quotas(&self) -> Result<(), ConfigError> {
        let Quotas {
            subscriber,
            address,
            prefix_len,
            ..
        } = &self.quotas;
        if !(1..=128).contains(prefix_len) {
            return Err(ConfigError::SubscriberPrefix);
        }
        let mut all = [*subscriber, *address].into_iter();
        let empty =
            |it: &Quota| [it.bindings, it.sessions, it.new_per_second, it.burst].contains(&0);
        if all.clone().any(|it| empty(&it)) {
            return Err(ConfigError::EmptyQuota);
        }
        match all.all(|it| it.is_burst_short()) {
            true => Ok(()),
            false => Err(ConfigError::Burst),
        }
    }

    fn check_eam(&self) -> Result<(), ConfigError> {
        let is_usable = |eam: &Eam| can_be_source(eam.ipv4().0) && can_be_source(eam.last_ipv4());
        for eam in self.eam.iter() {
            let in_prefix = |prefix: &&Pref64| {
                prefix.contains(eam.ipv6().0) || eam.covers_ipv6(prefix.address())
            };
            if let Some(prefix) = self.prefixes.iter().find(in_prefix) {
                return Err(ConfigError::EamInPrefix(*eam, *prefix));
            }
            if !is_usable(eam) {
                return Err(ConfigError::EamUnusable(*eam));
            }
        }
        let mut pool = self.pool.iter().map(|it| it.address);
        let mapped = pool.find_map(|address| Some((self.eam.find(address)?, address)));
        match mapped {
            Some((eam, address)) => Err(ConfigError::EamInPool(*eam, address)),
            None => Ok(()),
        }
    }

    fn check_pool(&self) -> Result<(), ConfigError> {
        if self.pool.is_empty() {
            return Err(ConfigError::NoPool);
        }
        let mut addresses: Vec<_> = self.pool.iter().map(|it| it.address).collect();
        if let Some(address) = addresses.iter().find(|it| !can_be_source(**it)) {
            return Err(ConfigError::PoolUnusable(*address));
        }
        if let Some(entry) = self.pool.iter().find(|it| it.ports.is_empty()) {
            return Err(ConfigError::PoolWithoutPorts(entry.address));
        }
        addresses.sort_unstable();
        match addresses.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(ConfigError::PoolTwice(pair[0])),
            None => Ok(()),
        }
    }
}

/// Whether routers pass on packets from `address` (RFC 1812 §5.3.7, RFC 3927 §2.7).
fn can_be_source(address: Ipv4Addr) -> bool {
    match Special::of(address) {
        Some(
            Special::ThisNetwork
            | Special::Loopback
            | Special::LinkLocal
            | Special::Multicast
            | Special::Broadcast,
        ) => false,
        None
        | Some(
            Special::Private
            | Special::SharedAddressSpace
            | Special::ProtocolAssignments
            | Special::Documentation
            | Special::Benchmarking
            | Special::Reserved,
        ) => true,
    }
}
