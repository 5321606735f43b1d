//! [`Why`]: every way in which a packet does not pass the NAT64.

use wire::drop_reasons;

drop_reasons! {
    /// Why the state of the NAT64 lets a packet not pass.
    pub enum DropReason {
        LoopGuard = "loop-guard":
            "An IPv6 packet whose source lies in a NAT64 prefix: it has been through a NAT64 already (RFC 6146 §3.5, §5.4).",
        NotInPrefix = "not-in-prefix":
            "An IPv6 packet whose destination lies in none of our prefixes (RFC 6146 §3.5).",
        NotInPool = "not-in-pool":
            "An IPv4 packet whose destination is not an address of the pool (RFC 6146 §3.5).",
        ForgedSource = "forged-source":
            "An IPv4 packet from outside whose source is an address of the pool or of a host in `[[eam]]`: nobody there has it (RFC 2827).",
        DestinationRefused = "destination-refused":
            "The IPv4 destination is special (private, loopback, link-local, documentation, the NAT64's own) and not among `allow_destinations`.",
        NonGlobalUnderWellKnownPrefix = "non-global-under-wkp":
            "A non-global IPv4 address under 64:ff9b::/96, which RFC 6052 §3.1 forbids; use a prefix of your own, or `wkp_non_global = \"translate\"`.",
        UnsupportedProtocol = "unsupported-protocol":
            "A protocol without ports that a NAT64 could share: only TCP, UDP and ICMP pass; its sender was told (RFC 6146 §3.4).",
        Truncated = "truncated":
            "The packet ends inside its TCP, UDP or ICMP header.",
        NoBinding = "no-binding":
            "An IPv4 packet to an address and port that no client uses (RFC 6146 §3.5).",
        Filtered = "filtered":
            "An IPv4 packet from a server that its client has no session with, dropped by address-dependent filtering (RFC 6146 §3.5.1); or, with `filtering.inbound_refresh = false`, to a client that has no session of its own there any more (RFC 4787 REQ-6).",
        TooManySyns = "too-many-syns":
            "A SYN of a server that no client expects, while as many are stored as the configuration allows, or an eighth of them from this server's address (RFC 6146 §5.3).",
        SynRepeated = "syn-repeated":
            "A SYN of a server that no client expects, and that is stored already (RFC 6146 §3.5.2.2).",
        SynUnanswered = "syn-unanswered":
            "A SYN of a server was stored, and its client sent none in time; its sender was told (RFC 6146 §3.5.2.2).",
        EchoToPool = "echo-to-pool":
            "An echo of a client to an address of the pool: nothing in it says which of the clients there is meant (RFC 6146 §3.8).",
        NoSession = "no-session":
            "An ICMP error about a packet that belongs to no session (RFC 6146 §3.5; RFC 5508 REQ-4, REQ-5).",
        UnreadableError = "unreadable-error":
            "An ICMP error whose quoted packet cannot be read, or quotes another error (RFC 6146 §3.4).",
        NotSyn = "not-syn":
            "A TCP packet that belongs to no connection and does not open one (RFC 6146 §3.5.2.2).",
        PoolExhausted = "pool-exhausted":
            "No address of the pool has a free port for a client that has none of them yet; it was told with ICMPv6 1/3 (RFC 6146 §3.5.1.1).",
        PortsExhausted = "ports-exhausted":
            "The client's address of the pool has no free port, and a client stays on one address; it was told with ICMPv6 1/3 (RFC 6146 §3.5.1.1; RFC 6888 REQ-2).",
        TooManyBindings = "too-many-bindings":
            "The configured number of bindings is reached; none is evicted for a new one (RFC 6888 REQ-11).",
        RingFull = "ring-full":
            "The packet was read by one worker and belongs to another, which had too many of such packets waiting already: the machine is overloaded.",
        TooManySessions = "too-many-sessions":
            "The configured number of sessions is reached; none is evicted for a new one (RFC 6888 REQ-11).",
        TooManyFromOutside = "too-many-from-outside":
            "Half of the configured number of sessions are ones that servers began; the other half is for clients (RFC 6146 §5.3).",
        ClientRefused = "client-refused":
            "The client lies in none of the networks of `clients`; if it was its packet, it was told with ICMPv6 1/1.",
        AddressBindings = "address-bindings":
            "The client's address has as many bindings of this protocol as `quota.address` allows; none is evicted for a new one (RFC 6888 REQ-3, REQ-11).",
        AddressSessions = "address-sessions":
            "The client's address has as many sessions as `quota.address` allows; for those that servers begin, half as many (RFC 6888 REQ-4).",
        AddressRate = "address-rate":
            "The client's address has begun as many sessions in this second as `quota.address` allows (RFC 6888 REQ-4).",
        SubscriberBindings = "subscriber-bindings":
            "The client's network, a /64, has as many bindings of this protocol as `quota.subscriber` allows; none is evicted for a new one (RFC 6888 REQ-3, REQ-11).",
        SubscriberBlocks = "subscriber-blocks":
            "The client's network has as many blocks of ports as `blocks` allows, and all of their ports are in use (RFC 6888 REQ-3, RFC 7422).",
        SubscriberSessions = "subscriber-sessions":
            "The client's network, a /64, has as many sessions as `quota.subscriber` allows; for those that servers begin, half as many (RFC 6888 REQ-4).",
        SubscriberRate = "subscriber-rate":
            "The client's network, a /64, has begun as many sessions in this second as `quota.subscriber` allows (RFC 6888 REQ-4).",
    }
}

impl DropReason {
    /// Whether there was no room for what the packet wanted, although it may have it by itself.
    #[must_use]
    pub fn is_shortage(self) -> bool {
        matches!(
            self,
            Self::PoolExhausted
                | Self::PortsExhausted
                | Self::TooManyBindings
                | Self::TooManySessions
                | Self::TooManyFromOutside
        ) || self.is_quota()
    }

    /// Whether a client has all that its quota gives it.
    #[must_use]
    pub fn is_quota(self) -> bool {
        matches!(
            self,
            Self::AddressBindings
                | Self::AddressSessions
                | Self::AddressRate
                | Self::SubscriberBindings
                | Self::SubscriberBlocks
                | Self::SubscriberSessions
                | Self::SubscriberRate
        )
    }
}

/// Why a packet did not pass: because of the NAT64's state, or of translation itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// See [`DropReason`].
    State(DropReason),
    /// See [`xlat::DropReason`].
    Translation(xlat::DropReason),
}

impl From<DropReason> for Why {
    fn from(reason: DropReason) -> Self {
        Self::State(reason)
    }
}

impl From<xlat::DropReason> for Why {
    fn from(reason: xlat::DropReason) -> Self {
        Self::Translation(reason)
    }
}
