//! [`DropReason`]: why a frame went no further.

use wire::drop_reasons;

drop_reasons! {
    /// Why a frame or packet ended at the link.
    pub enum DropReason {
        NotForUs = "not-for-us":
            "Addressed to another host; the interface hears more than it should, or the filter was being replaced.",
        QueueOverflow = "queue-overflow":
            "Frames came faster than they could be translated, and the system's queue for them was full.",
        MalformedFrame = "malformed-frame":
            "Not a whole IPv6 packet.",
        InvalidNeighborDiscovery = "invalid-neighbor-discovery":
            "A Neighbor Discovery message that fails its checks (RFC 4861 §7.1).",
        AddressTentative = "address-tentative":
            "The CLAT's address is still being checked for duplicates (RFC 4862 §5.4).",
        AddressDuplicate = "address-duplicate":
            "Another host has the CLAT's address; a new one is being chosen (RFC 4862 §5.4.5).",
        NoNextHop = "no-next-hop":
            "No router is known for the NAT64 prefix on this interface.",
        NextHopUnresolved = "next-hop-unresolved":
            "The router's link-layer address is not known (yet).",
        LinkFailed = "link-failed":
            "The system refused to send the packet: the interface is down or its queue full.",
    }
}
