//! [`Mapping`]: what the translator is given instead of prefixes and tables.

/// What the addresses of one packet become in the other family.
///
/// A stateless mapping looks at the address it is asked for. A stateful one is made for a single
/// packet and knows its answers already.
///
/// `From` and `To` are [`core::net::Ipv4Addr`] and [`core::net::Ipv6Addr`], either way round.
pub trait Mapping<From, To> {
    /// The packet's source.
    ///
    /// # Errors
    /// [`Refusal`]. An ICMPv6 error whose source has no mapping still passes, under
    /// [`crate::Config::untranslatable_source`].
    fn source(&self, address: From) -> Result<To, Refusal>;

    /// The packet's destination.
    ///
    /// # Errors
    /// [`Refusal`].
    fn destination(&self, address: From) -> Result<To, Refusal>;

    /// The source of the packet that an ICMP error quotes.
    ///
    /// # Errors
    /// [`Refusal`].
    fn inner_source(&self, address: From) -> Result<To, Refusal>;

    /// The destination of the packet that an ICMP error quotes.
    ///
    /// # Errors
    /// [`Refusal`].
    fn inner_destination(&self, address: From) -> Result<To, Refusal>;

    /// New ports or a new identifier for the packet.
    fn rewrite(&self) -> Rewrite {
        Rewrite::None
    }

    /// Whether a whole packet that was in fragments keeps the Identification that its sender chose
    /// (RFC 7915 §5.1.1). It cannot where several senders become one: two of them may have chosen the
    /// same (RFC 6864 §5.3.1).
    fn keeps_identification(&self) -> bool {
        true
    }

    /// New ports or a new identifier for the packet that an ICMP error quotes.
    fn inner_rewrite(&self) -> Rewrite {
        Rewrite::None
    }
}

/// What a stateful mapping changes besides addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// Nothing.
    None,
    /// Both ports of TCP or UDP.
    Ports {
        /// The new source port.
        src: u16,
        /// The new destination port.
        dst: u16,
    },
    /// The identifier of an echo.
    Identifier(u16),
}

/// Why an address has no counterpart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing covers it.
    NoMapping,
    /// A non-global address under the well-known prefix (RFC 6052 §3.1).
    NonGlobal,
    /// Never translated here, and not worth an ICMP error.
    Excluded,
}
