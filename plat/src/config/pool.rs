//! The entries of the pool: an address, a network or a range, with ports for each protocol.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use cli::{
    Failure,
    config::{Document, Spanned},
};
use nat64::{
    destinations::{Network4, NetworkError},
    ports::{PortRange, PortSet, Ports},
};

use super::file::{PoolItem, PoolTable};

/// Addresses of the pool that stand next to each other, and what may be used of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolRange {
    first: Ipv4Addr,
    last: Ipv4Addr,
    /// Written as a network. Then addresses that look like its own or a broadcast are left out:
    /// there are hosts and firewalls that refuse them.
    network: bool,
    /// Its ports and identifiers.
    pub ports: Ports,
}

/// Why text is no entry of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeError {
    /// Neither an address, nor a network, nor a range.
    Syntax,
    /// A network with bits behind its length.
    Network(NetworkError),
    /// The last address is before the first.
    Backwards,
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax => f.write_str(
                "not an IPv4 address, network or range; write it like 192.0.2.1, 192.0.2.0/24 or \
                 192.0.2.10-192.0.2.20",
            ),
            Self::Network(error) => error.fmt(f),
            Self::Backwards => f.write_str("the last address of the range is before the first"),
        }
    }
}

impl std::error::Error for RangeError {}

impl FromStr for PoolRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let ports = Ports::all();
        if let Some((first, last)) = text.split_once('-') {
            let address = |it: &str| it.trim().parse().map_err(|_| RangeError::Syntax);
            let (first, last) = (address(first)?, address(last)?);
            if last < first {
                return Err(RangeError::Backwards);
            }
            return Ok(Self {
                first,
                last,
                network: false,
                ports,
            });
        }
        match text.parse::<Network4>() {
            Ok(network) => Ok(Self::of(network)),
            Err(NetworkError::Syntax) => Err(RangeError::Syntax),
            Err(error @ NetworkError::HostBits(_)) => Err(RangeError::Network(error)),
        }
    }
}

impl fmt::Display for PoolRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks = self.networks();
        match networks.as_slice() {
            [one] if one.prefix_len() == 32 => self.first.fmt(f),
            [one] if self.network => one.fmt(f),
            _ => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl PoolRange {
    /// A network, with all ports.
    #[must_use]
    pub fn of(network: Network4) -> Self {
        let first = network.first();
        let size = u32::try_from(network.size() - 1).unwrap_or(u32::MAX);
        Self {
            first,
            last: Ipv4Addr::from_bits(first.to_bits().saturating_add(size)),
            // Nobody writes a network of one or two addresses to have none of them.
            network: network.prefix_len() <= 30,
            ports: Ports::all(),
        }
    }

    /// A single address, of which only some ports may be used.
    #[must_use]
    pub fn shared(address: Ipv4Addr, ports: PortRange) -> Self {
        Self {
            first: address,
            last: address,
            network: false,
            ports: ports.into(),
        }
    }

    /// Its first address.
    #[must_use]
    pub fn first(&self) -> Ipv4Addr {
        self.first
    }

    /// The last address.
    #[must_use]
    pub fn last(&self) -> Ipv4Addr {
        self.last
    }

    /// How many addresses lie in it, those that are left out among them.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::from(self.last.to_bits() - self.first.to_bits()) + 1
    }

    /// Whether `address` lies in it.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// The networks that must be routed here for it.
    #[must_use]
    pub fn networks(&self) -> Vec<Network4> {
        Network4::covering(self.first, self.last)
    }

    /// The addresses that clients get.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let chosen = !self.network;
        let all = (self.first.to_bits()..=self.last.to_bits()).map(Ipv4Addr::from_bits);
        all.filter(move |address| chosen || !matches!(address.octets()[3], 0 | 255))
    }

    /// What is written, understood.
    pub(super) fn read(
        document: &Document,
        item: &Spanned<PoolItem>,
    ) -> Result<Spanned<Self>, Failure> {
        match item.get_ref() {
            PoolItem::Text(text) => document.value(&Spanned::new(item.span(), text.clone())),
            PoolItem::Table(table) => Self::from_table(document, item, table),
        }
    }

    fn from_table(
        document: &Document,
        item: &Spanned<PoolItem>,
        table: &PoolTable,
    ) -> Result<Spanned<Self>, Failure> {
        let named: Vec<_> = [&table.address, &table.cidr, &table.range]
            .into_iter()
            .flatten()
            .collect();
        let [text] = named.as_slice() else {
            let what = format_args!(
                "a [[pool]] has one of `address`, `cidr` and `range`; this one has {}",
                named.len()
            );
            let hint = "write another [[pool]] for other addresses";
            return Err(document.wrong(item.span(), what).hint(hint));
        };
        let mut range = document.value::<Self>(text)?.into_inner();
        let wrong_key = |key, like| {
            let what = format_args!("`{}` is not {like}", text.get_ref());
            let hint = format_args!("write it as `{key} = \"{}\"`", text.get_ref());
            Err(document.wrong(text.span(), what).hint(hint))
        };
        let right = if text.get_ref().contains('-') {
            ("range", table.range.is_some())
        } else if range.size() > 1 {
            ("cidr", table.cidr.is_some())
        } else {
            ("address", true)
        };
        if !right.1 {
            return wrong_key(right.0, "what this key is for");
        }
        for (ports, written) in [
            (&mut range.ports.tcp, &table.tcp),
            (&mut range.ports.udp, &table.udp),
            (&mut range.ports.icmp, &table.icmp),
        ] {
            if let Some(written) = written {
                *ports = document.value::<PortSet>(written)?.into_inner();
            }
        }
        Ok(Spanned::new(text.span(), range))
    }
}
