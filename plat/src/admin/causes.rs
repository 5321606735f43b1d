//! Dropped packets by the words of RFC 8512: which reason belongs to which cause.

use nat64::{DropReason, stats::DirectionStats};
use wire::{counters::ReasonCounters, verdict::Reason};

/// Why packets were dropped, as the model of NATs tells it apart (RFC 8512 §3, `traffic-statistics`).
/// Every reason belongs to one cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Fragments, for what they are.
    Fragments,
    /// A client's address has all that it may have.
    AddressLimit,
    /// A client could get no address of the pool.
    AddressShortage,
    /// There are as many mappings as there may be.
    PortLimit,
    /// A client's address of the pool has no port.
    PortShortage,
    /// A subscriber has all that it may have.
    SubscriberLimit,
    /// Anything else.
    Other,
}

impl Cause {
    pub(super) const ALL: [Self; 7] = [
        Self::Fragments,
        Self::AddressLimit,
        Self::AddressShortage,
        Self::PortLimit,
        Self::PortShortage,
        Self::SubscriberLimit,
        Self::Other,
    ];

    /// A stable name.
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::Fragments => "fragments",
            Self::AddressLimit => "address-limit",
            Self::AddressShortage => "address-shortage",
            Self::PortLimit => "port-limit",
            Self::PortShortage => "port-shortage",
            Self::SubscriberLimit => "subscriber-limit",
            Self::Other => "other",
        }
    }

    /// One sentence, with its clause.
    pub(super) const fn sentence(self) -> &'static str {
        match self {
            Self::Fragments => {
                "Dropped fragments, and fragmented datagrams that were not whole in time (RFC 8512 §3)."
            }
            Self::AddressLimit => {
                "Packets dropped for an address limit: a client's address has all that \
                 `quota.address` gives it (RFC 8512 §3)."
            }
            Self::AddressShortage => {
                "Packets dropped for an address shortage: no address of the pool has a port for a \
                 client that has none yet (RFC 8512 §3)."
            }
            Self::PortLimit => {
                "Packets dropped for a port limit: there are as many bindings or sessions as \
                 `limits` allows (RFC 8512 §3)."
            }
            Self::PortShortage => {
                "Packets dropped for a port shortage: the client's address of the pool has no port \
                 left (RFC 8512 §3)."
            }
            Self::SubscriberLimit => {
                "Packets dropped for a subscriber limit: a subscriber has all that \
                 `quota.subscriber` or `blocks` gives it (RFC 8512 §3)."
            }
            Self::Other => {
                "Packets dropped for any other reason: those of each direction tell which \
                 (RFC 8512 §3)."
            }
        }
    }

    /// How many packets (of fragments that wait in vain: datagrams) a direction dropped for it.
    pub(super) fn count(self, direction: &DirectionStats) -> u64 {
        let by_state = sum(&direction.dropped_by_state, |it| of_state(it) == self);
        let translation = &direction.dropped_by_translation;
        by_state + sum(translation, |it| of_translation(it) == self)
    }
}

fn sum<R: Reason>(counters: &ReasonCounters<R>, belongs: impl Fn(R) -> bool) -> u64 {
    let counted = counters.nonzero().filter(|(reason, _)| belongs(*reason));
    counted.map(|(_, count)| count).sum()
}

/// The cause of what the NAT64's state drops.
fn of_state(reason: DropReason) -> Cause {
    match reason {
        DropReason::PoolExhausted => Cause::AddressShortage,
        DropReason::PortsExhausted => Cause::PortShortage,
        DropReason::TooManyBindings
        | DropReason::TooManySessions
        | DropReason::TooManyFromOutside => Cause::PortLimit,
        DropReason::AddressBindings | DropReason::AddressSessions | DropReason::AddressRate => {
            Cause::AddressLimit
        }
        DropReason::SubscriberBindings
        | DropReason::SubscriberBlocks
        | DropReason::SubscriberSessions
        | DropReason::SubscriberRate => Cause::SubscriberLimit,
        DropReason::LoopGuard
        | DropReason::NotInPrefix
        | DropReason::NotInPool
        | DropReason::ForgedSource
        | DropReason::DestinationRefused
        | DropReason::NonGlobalUnderWellKnownPrefix
        | DropReason::UnsupportedProtocol
        | DropReason::Truncated
        | DropReason::NoBinding
        | DropReason::Filtered
        | DropReason::TooManySyns
        | DropReason::SynRepeated
        | DropReason::SynUnanswered
        | DropReason::EchoToPool
        | DropReason::NoSession
        | DropReason::UnreadableError
        | DropReason::NotSyn
        | DropReason::RingFull
        | DropReason::ClientRefused => Cause::Other,
    }
}

/// The cause of what cannot be translated.
fn of_translation(reason: xlat::DropReason) -> Cause {
    use xlat::DropReason as Why;

    match reason {
        Why::FragmentMalformed
        | Why::FragmentOverlap
        | Why::FragmentTimeout
        | Why::FragmentMemory
        | Why::FragmentDisplaced
        | Why::FragmentedIcmp
        | Why::UdpChecksumMissingInFragment
        | Why::ExtensionAfterFragment => Cause::Fragments,
        Why::MalformedIpv4
        | Why::MalformedIpv6
        | Why::IllegalSource
        | Why::Multicast
        | Why::SourceRoute
        | Why::RoutingHeader
        | Why::HopLimitExceeded
        | Why::TooBig
        | Why::TooLongForIpv4
        | Why::NoSourceMapping
        | Why::NoDestinationMapping
        | Why::NonGlobalUnderWellKnownPrefix
        | Why::ExcludedAddress
        | Why::TruncatedTransport
        | Why::UdpChecksumMissing
        | Why::UdpChecksumZeroInIpv6
        | Why::UntranslatableProtocol
        | Why::IcmpChecksum
        | Why::UntranslatableIcmp
        | Why::UntranslatablePointer
        | Why::MalformedQuote
        | Why::QuotedError
        | Why::NoQuoteMapping
        | Why::BadOffload
        | Why::NoRoom => Cause::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the codes that people see; all others are other reasons.
    const BELONGS: [(Cause, &[&str]); 6] = [
        (
            Cause::Fragments,
            &[
                "fragment-malformed",
                "fragment-overlap",
                "fragment-timeout",
                "fragment-memory",
                "fragment-displaced",
                "fragmented-icmp",
                "udp-checksum-missing-in-fragment",
                "extension-after-fragment",
            ],
        ),
        (
            Cause::AddressLimit,
            &["address-bindings", "address-sessions", "address-rate"],
        ),
        (Cause::AddressShortage, &["pool-exhausted"]),
        (
            Cause::PortLimit,
            &[
                "too-many-bindings",
                "too-many-sessions",
                "too-many-from-outside",
            ],
        ),
        (Cause::PortShortage, &["ports-exhausted"]),
        (
            Cause::SubscriberLimit,
            &[
                "subscriber-bindings",
                "subscriber-blocks",
                "subscriber-sessions",
                "subscriber-rate",
            ],
        ),
    ];

    fn expected(code: &str) -> Cause {
        let mut all = BELONGS.iter();
        all.find(|(_, codes)| codes.contains(&code))
            .map_or(Cause::Other, |(cause, _)| *cause)
    }

    #[test]
    fn obs_01_every_reason_belongs_to_its_cause() {
        for reason in DropReason::ALL {
            assert_eq!(of_state(*reason), expected(reason.code()), "{reason}");
        }
        for reason in xlat::DropReason::ALL {
            assert_eq!(of_translation(*reason), expected(reason.code()), "{reason}");
        }
        let known = |code: &&&str| {
            let mut state = DropReason::ALL.iter().map(|it| it.code());
            let mut translation = xlat::DropReason::ALL.iter().map(|it| it.code());
            state.any(|it| it == **code) || translation.any(|it| it == **code)
        };
        let codes = || BELONGS.iter().flat_map(|(_, codes)| codes.iter());
        assert_eq!(codes().filter(known).count(), codes().count());
        // What a quota refuses is not taken for anything else.
        for reason in DropReason::ALL.iter().filter(|it| it.is_quota()) {
            let cause = of_state(*reason);
            assert!(matches!(
                cause,
                Cause::AddressLimit | Cause::SubscriberLimit
            ));
        }
    }

    /// The causes are all that was dropped, and nothing twice.
    #[test]
    fn obs_01_the_causes_sum_up_to_all_drops() {
        let direction = DirectionStats::default();
        for (at, reason) in (1..).zip(DropReason::ALL) {
            direction.dropped_by_state.add(*reason, at);
        }
        for (at, reason) in (100..).zip(xlat::DropReason::ALL) {
            direction.dropped_by_translation.add(*reason, at);
        }
        let total = direction.dropped_by_state.total() + direction.dropped_by_translation.total();
        let counts = Cause::ALL.map(|it| it.count(&direction));
        assert_eq!(counts.iter().sum::<u64>(), total);
        let of = |reason: DropReason| direction.dropped_by_state.get(reason);
        let limit = [
            DropReason::TooManyBindings,
            DropReason::TooManySessions,
            DropReason::TooManyFromOutside,
        ];
        let limit: u64 = limit.into_iter().map(of).sum();
        assert_eq!(Cause::PortLimit.count(&direction), limit);
    }
}
