//! [`DropReason`]: every way in which a packet does not pass the translator.

use wire::drop_reasons;

drop_reasons! {
    /// Why a packet was not translated.
    pub enum DropReason {
        MalformedIpv4 = "malformed-ipv4":
            "The bytes are not an IPv4 packet: wrong version, lengths that disagree, a wrong header checksum or broken options (RFC 791; RFC 1812 §5.2.2).",
        MalformedIpv6 = "malformed-ipv6":
            "The bytes are not an IPv6 packet: wrong version, lengths that disagree, or an extension header that is cut off (RFC 8200).",
        IllegalSource = "illegal-source":
            "The source address is one that no packet can come from: unspecified, loopback, multicast, broadcast or IPv4-mapped (RFC 7915 §4.1, §5.1).",
        Multicast = "multicast":
            "The destination is a multicast or broadcast address, which translation does not map (RFC 7915 §1.2).",
        SourceRoute = "source-route":
            "An IPv4 source route still names hops; its sender was told with ICMP 3/5 (RFC 7915 §4.1).",
        RoutingHeader = "routing-header":
            "An IPv6 routing header still names hops; its sender was told with ICMPv6 4/0 (RFC 7915 §5.1).",
        HopLimitExceeded = "hop-limit-exceeded":
            "The hop limit ran out here; its sender was told with Time Exceeded (RFC 7915 §4.1, §5.1).",
        TooBig = "too-big":
            "The packet does not fit the next link and may not be fragmented; its sender was told the size that fits (RFC 7915 §4.1, §5.1.1).",
        TooLongForIpv4 = "too-long-for-ipv4":
            "The packet is longer than an IPv4 length field can say.",
        NoSourceMapping = "no-source-mapping":
            "The source address has no counterpart in the other family (RFC 7915 §6).",
        NoDestinationMapping = "no-destination-mapping":
            "The destination address has no counterpart in the other family (RFC 7915 §6).",
        NonGlobalUnderWellKnownPrefix = "non-global-under-wkp":
            "A private or otherwise non-global IPv4 address under 64:ff9b::/96, which RFC 6052 §3.1 forbids; use a prefix of your own, or `wkp_non_global = \"translate\"`.",
        ExcludedAddress = "excluded-address":
            "The address is never translated here: loopback, link-local, or the translator's own (RFC 7335).",
        FragmentedIcmp = "fragmented-icmp":
            "A fragmented ICMP message that was not put together first: its checksum covers bytes that are not in this packet (RFC 7915 §1.2).",
        TruncatedTransport = "truncated-transport":
            "The packet ends inside its TCP, UDP or ICMP header, or a length inside contradicts the packet.",
        UdpChecksumMissing = "udp-checksum-missing":
            "A UDP datagram without checksum, which IPv6 does not allow and the configuration says not to compute (RFC 7915 §4.5).",
        UdpChecksumMissingInFragment = "udp-checksum-missing-in-fragment":
            "The first fragment of a UDP datagram without checksum: it cannot be computed from a part (RFC 7915 §4.5).",
        UdpChecksumZeroInIpv6 = "udp-checksum-zero-in-ipv6":
            "A UDP datagram over IPv6 with checksum zero, which is not valid (RFC 8200 §8.1).",
        UntranslatableProtocol = "untranslatable-protocol":
            "A protocol number that means something else in the other family: IGMP, an IPv6 extension header, or the other family's ICMP (RFC 7915 §4.2, §5.2).",
        ExtensionAfterFragment = "extension-after-fragment":
            "An extension header follows the Fragment Header (RFC 7915 §5.1.1).",
        IcmpChecksum = "icmp-checksum":
            "An ICMP error with a wrong checksum: translating it would make it look right (RFC 5508 REQ-3).",
        UntranslatableIcmp = "untranslatable-icmp":
            "An ICMP type or code without a counterpart in the other family (RFC 7915 §4.2, §5.2).",
        UntranslatablePointer = "untranslatable-pointer":
            "A Parameter Problem that points at a header field without a counterpart (RFC 7915 §4.2, §5.2).",
        MalformedQuote = "malformed-quote":
            "An ICMP error whose quoted packet cannot be read (RFC 7915 §4.3, §5.3).",
        QuotedError = "quoted-error":
            "An ICMP error about an ICMP error (RFC 7915 §4.3, §5.3).",
        NoQuoteMapping = "no-quote-mapping":
            "An ICMP error about a packet that was not translated here (RFC 7915 §4.3, §5.3).",
        FragmentMalformed = "fragment-malformed":
            "A fragment with an impossible place or length (RFC 8200 §4.5).",
        FragmentOverlap = "fragment-overlap":
            "A fragment overlaps another; the whole datagram is discarded (RFC 5722).",
        FragmentTimeout = "fragment-timeout":
            "A datagram whose other fragments did not come in time (RFC 6146 §3.4).",
        FragmentMemory = "fragment-memory":
            "The configured memory for fragments is used up (RFC 6146 §3.4, §5.3).",
        FragmentDisplaced = "fragment-displaced":
            "A datagram whose other fragments had not come yet made room for a newer one (RFC 6146 §3.4, §5.3).",
        BadOffload = "bad-offload":
            "The virtio-net header contradicts the packet.",
        NoRoom = "no-room":
            "The packet does not fit its buffer.",
    }
}

impl DropReason {
    /// Those that count datagrams which are given up: their fragments were counted when they came.
    pub const OF_DATAGRAMS: [Self; 2] = [Self::FragmentTimeout, Self::FragmentDisplaced];
}
