//! [`Blocks`]: ports in blocks, each of which belongs to one subscriber, so that a log needs a line
//! per block and not per binding (RFC 6888 §4, RFC 7422).
//!
//! Ports 0 to 1023 are in none. The others of an address are cut into blocks of equal size, which
//! hold for TCP, UDP and ICMP alike.

use core::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    num::NonZeroU16,
};

use crate::{
    config::{Config, ConfigError},
    network6::Network6,
    ports::{PortRange, Ports},
    tuple::{Endpoint4, Protocol},
};

/// The first port that is in a block.
pub const FIRST: u16 = 1024;

/// The ports of an address that are in blocks.
const ALL: u16 = u16::MAX - FIRST + 1;

/// The fewest ports that a block has.
const LEAST: u16 = 16;

/// How ports are given to subscribers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Blocks {
    /// One by one.
    #[default]
    None,
    /// In blocks, as they are needed.
    Dynamic(Dynamic),
    /// Every subscriber has the block that its number leads to (RFC 7422 §2).
    Deterministic(Deterministic),
}

/// Blocks that are given when they are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dynamic {
    /// Ports of a block.
    pub size: NonZeroU16,
    /// Blocks that a subscriber may have.
    pub most: NonZeroU16,
}

/// Blocks by the subscriber's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deterministic {
    /// C: how many subscribers share an address.
    pub subscribers: NonZeroU16,
    /// D: the ports of as many more blocks of each address, and those that are left over, are given
    /// to whoever needs more than its own. 0: there are none.
    pub spare: u16,
    /// How many ports one is given of these at a time.
    pub spare_size: NonZeroU16,
    /// How often: so many spare blocks a subscriber may have. 0: none, and all of them stay unused.
    pub spare_most: u16,
}

/// A subscriber's ports of an address, of each protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortBlock {
    /// The subscriber.
    pub subscriber: Network6,
    /// The pool's address.
    pub address: Ipv4Addr,
    /// Its ports and identifiers.
    pub ports: PortRange,
}

/// Why there are no such blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlocksError {
    /// A block is smaller than 16 ports or larger than what there is.
    Size,
    /// This address of the pool has no whole block, or not all that its subscribers need.
    NoBlock(Ipv4Addr),
    /// Subscribers have no numbers: `clients` is empty.
    Uncounted,
    /// A client network is smaller than a subscriber, or lies in another one.
    Clients(Network6),
    /// A spare block is smaller than 16 ports or larger than what is spare of an address.
    SpareSize {
        /// The ports that are spare.
        spare: u16,
    },
    /// There are more subscribers than blocks.
    TooMany {
        /// The subscribers of all client networks.
        subscribers: u128,
        /// The blocks of all addresses.
        blocks: u128,
    },
    /// What says whose a port is cannot be changed while there are bindings.
    Fixed,
}

impl fmt::Display for BlocksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size => write!(f, "a block of ports has from {LEAST} to {ALL}"),
            Self::SpareSize { spare } => write!(
                f,
                "a spare block of ports has from {LEAST} to the {spare} that an address has for them"
            ),
            Self::NoBlock(address) => write!(
                f,
                "{address} in the pool lacks ports of its blocks, which begin at {FIRST} and are \
                 the same for TCP, UDP and ICMP"
            ),
            Self::Uncounted => f.write_str(
                "deterministic blocks need `clients`: a subscriber's number is its place in them",
            ),
            Self::Clients(network) => write!(
                f,
                "{network}: with deterministic blocks, a network of `clients` is a whole number of \
                 subscribers and lies in no other"
            ),
            Self::TooMany {
                subscribers,
                blocks,
            } => write!(
                f,
                "there are {subscribers} subscribers in `clients` and {blocks} blocks of ports"
            ),
            Self::Fixed => f.write_str(
                "blocks of ports, and what they are numbered by, change only with a restart",
            ),
        }
    }
}

impl Deterministic {
    /// C and D. A subscriber is given up to four spare blocks of 256 ports, or as many as its own
    /// has if that has fewer.
    #[must_use]
    pub fn new(subscribers: NonZeroU16, spare: u16) -> Self {
        const SIZE: NonZeroU16 = NonZeroU16::new(256).unwrap();

        let mut blocks = Self {
            subscribers,
            spare,
            spare_size: SIZE,
            spare_most: 4,
        };
        let own = NonZeroU16::new(blocks.size());
        blocks.spare_size = own.map_or(SIZE, |own| own.min(SIZE));
        blocks
    }

    /// floor((65536 - R) / (C + D)), where R is 1024 (RFC 7422 §2, §2.2).
    #[must_use]
    pub fn size(&self) -> u16 {
        let parts = u32::from(self.subscribers.get()) + u32::from(self.spare);
        u16::try_from(u32::from(ALL) / parts.max(1)).unwrap_or_default()
    }

    /// The ports of an address that follow from nobody's number, D parts and what is left over.
    #[must_use]
    pub fn spare_ports(&self) -> u16 {
        ALL.saturating_sub(self.size().saturating_mul(self.subscribers.get()))
    }

    /// How many blocks they make that are given: none unless D and what one may have say so.
    #[must_use]
    pub fn spare_blocks(&self) -> u16 {
        match (self.spare, self.spare_most) {
            (0, _) | (_, 0) => 0,
            _ => self.spare_ports() / self.spare_size,
        }
    }
}

/// Which ports are whose, as far as the configuration says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) blocks: Blocks,
    /// Bits of an address that its subscriber is known by.
    prefix_len: u8,
    /// What subscribers are numbered by, and the addresses they are numbered to; empty unless they
    /// are.
    clients: Vec<Network6>,
    addresses: Vec<Ipv4Addr>,
}

impl Plan {
    pub(crate) fn new(config: &Config) -> Self {
        let numbered = matches!(config.blocks, Blocks::Deterministic(_));
        let (clients, addresses) = if numbered {
            let addresses = config.pool.iter().map(|it| it.address);
            (config.clients.clone(), addresses.collect())
        } else {
            (Vec::new(), Vec::new())
        };
        Self {
            blocks: config.blocks,
            prefix_len: match config.blocks {
                Blocks::None => 0,
                Blocks::Dynamic(_) | Blocks::Deterministic(_) => config.quotas.prefix_len,
            },
            clients,
            addresses,
        }
    }

    /// Whether there are blocks.
    pub(crate) fn is_on(&self) -> bool {
        self.blocks != Blocks::None
    }

    pub(crate) fn subscriber(&self, client: Ipv6Addr) -> Network6 {
        Network6::around(client, self.prefix_len)
    }

    /// How many blocks an address has that are somebody's or can be. Those by number come first.
    pub(crate) fn count(&self) -> u16 {
        match self.blocks {
            Blocks::None => 0,
            Blocks::Dynamic(it) => ALL / it.size,
            Blocks::Deterministic(it) => it.subscribers.get().saturating_add(it.spare_blocks()),
        }
    }

    /// How many of these follow from subscribers' numbers.
    pub(crate) fn numbered(&self) -> u16 {
        match self.blocks {
            Blocks::None | Blocks::Dynamic(_) => 0,
            Blocks::Deterministic(it) => it.subscribers.get(),
        }
    }

    /// How many blocks a subscriber may be given as it needs them.
    pub(crate) fn most_given(&self) -> u16 {
        match self.blocks {
            Blocks::None => 0,
            Blocks::Dynamic(it) => it.most.get(),
            Blocks::Deterministic(it) => it.spare_most.min(it.spare_blocks()),
        }
    }

    /// Blocks of one size that follow each other: how many, of how many ports, and from which port
    /// on. What is behind the last of them counts on, and is nobody's.
    fn rows(&self) -> [(u16, u16, u16); 2] {
        match self.blocks {
            Blocks::None => [(0, 0, FIRST); 2],
            Blocks::Dynamic(it) => [(0, 0, FIRST), (self.count(), it.size.get(), FIRST)],
            Blocks::Deterministic(it) => {
                let (count, size) = (it.subscribers.get(), it.size());
                let spare = FIRST.saturating_add(count.saturating_mul(size));
                let rest = (it.spare_blocks(), it.spare_size.get(), spare);
                [(count, size, FIRST), rest]
            }
        }
    }

    /// The number of the block that a port is in, of one that is nobody's as well.
    pub(crate) fn number(&self, port: u16) -> Option<u16> {
        let [(count, size, first), (_, more, behind)] = self.rows();
        let numbered = port.checked_sub(first)?.checked_div(size);
        match numbered.filter(|it| *it < count) {
            Some(number) => Some(number),
            None => Some(count + port.checked_sub(behind)?.checked_div(more)?),
        }
    }

    /// The ports of a block.
    pub(crate) fn range(&self, number: u16) -> Option<PortRange> {
        let [(count, size, first), (_, more, behind)] = self.rows();
        let (number, size, first) = match number.checked_sub(count) {
            None => (number, size, first),
            Some(number) => (number, more, behind),
        };
        let first = first.checked_add(number.checked_mul(size)?)?;
        PortRange::new(first, first.checked_add(size.checked_sub(1)?)?)
    }

    /// The block that the subscriber's number leads to: the address and its number there.
    pub(crate) fn home(&self, client: Ipv6Addr) -> Option<(Ipv4Addr, u16)> {
        let Blocks::Deterministic(it) = self.blocks else {
            return None;
        };
        let (mut before, bits) = (0, u32::from(128 - self.prefix_len));
        let number = self.clients.iter().find_map(|network| {
            let first = before;
            before += 1u128 << (self.prefix_len - network.prefix_len());
            let at = shift(client.to_bits(), bits) - shift(network.first().to_bits(), bits);
            network.contains(client).then(|| first + at)
        })?;
        let share = u128::from(it.subscribers.get());
        let address = self.addresses.get(usize::try_from(number / share).ok()?)?;
        Some((*address, u16::try_from(number % share).ok()?))
    }

    /// The block that a client has by its number.
    pub(crate) fn block_of(&self, client: Ipv6Addr) -> Option<PortBlock> {
        let (address, number) = self.home(client)?;
        Some(PortBlock {
            subscriber: self.subscriber(client),
            address,
            ports: self.range(number)?,
        })
    }

    /// The blocks that subscribers in `network`, or the one that `network` is in, have by their
    /// numbers.
    pub(crate) fn blocks_in(&self, network: Network6) -> impl Iterator<Item = PortBlock> {
        let meeting = self.clients.iter().filter(move |it| it.meets(network));
        let subscribers = meeting.flat_map(move |of| {
            let narrower = core::cmp::max_by_key(*of, network, Network6::prefix_len);
            let bits = self.prefix_len.saturating_sub(narrower.prefix_len());
            let first = self.subscriber(narrower.first()).first().to_bits();
            let below = u32::from(128 - self.prefix_len);
            (0..1u128 << bits.min(127)).map(move |at| {
                let more = at.checked_shl(below).unwrap_or_default();
                Ipv6Addr::from_bits(first.wrapping_add(more))
            })
        });
        subscribers.filter_map(|it| self.block_of(it))
    }

    /// The block that a port is in by its number, whoever uses it.
    pub(crate) fn block_at(&self, outside: Endpoint4) -> Option<PortBlock> {
        let Blocks::Deterministic(it) = self.blocks else {
            return None;
        };
        let at = self
            .addresses
            .iter()
            .position(|of| *of == outside.address)?;
        let number = self.number(outside.id).filter(|it| *it < self.numbered())?;
        let share = u128::from(it.subscribers.get());
        let mut number = at as u128 * share + u128::from(number);
        let bits = u32::from(128 - self.prefix_len);
        self.clients.iter().find_map(|network| {
            let size = 1u128 << (self.prefix_len - network.prefix_len());
            if number >= size {
                number -= size;
                return None;
            }
            let first = network.first().to_bits() + number.checked_shl(bits).unwrap_or_default();
            self.block_of(Ipv6Addr::from_bits(first))
        })
    }
}

fn shift(address: u128, bits: u32) -> u128 {
    address.checked_shr(bits).unwrap_or_default()
}

/// Whether a configuration's blocks can be.
pub(crate) fn check(config: &Config) -> Result<(), ConfigError> {
    let plan = Plan::new(config);
    let size = match config.blocks {
        Blocks::None => return Ok(()),
        Blocks::Dynamic(it) => it.size.get(),
        Blocks::Deterministic(it) => it.size(),
    };
    if !(LEAST..=ALL).contains(&size) {
        return Err(ConfigError::Blocks(BlocksError::Size));
    }
    if let Blocks::Deterministic(it) = config.blocks {
        let sizes = LEAST..=it.spare_ports();
        if it.spare > 0 && it.spare_most > 0 && !sizes.contains(&it.spare_size.get()) {
            let spare = it.spare_ports();
            return Err(ConfigError::Blocks(BlocksError::SpareSize { spare }));
        }
    }
    let numbered = plan.numbered() > 0;
    let lacks = |ports: &Ports| {
        let has = |number| has_block(&plan, ports, number);
        if numbered {
            !(0..plan.numbered()).all(has)
        } else {
            !(0..plan.count()).any(has)
        }
    };
    if let Some(entry) = config.pool.iter().find(|it| lacks(&it.ports)) {
        return Err(ConfigError::Blocks(BlocksError::NoBlock(entry.address)));
    }
    if numbered {
        check_numbers(config, &plan).map_err(ConfigError::Blocks)?;
    }
    Ok(())
}

/// How many whole blocks an address with these ports has: by number, and to be given.
#[must_use]
pub fn whole(blocks: Blocks, ports: &Ports) -> (u16, u16) {
    let plan = Plan {
        blocks,
        prefix_len: 0,
        clients: Vec::new(),
        addresses: Vec::new(),
    };
    let count = |numbers: core::ops::Range<u16>| {
        let all = numbers.filter(|it| has_block(&plan, ports, *it)).count();
        u16::try_from(all).unwrap_or(u16::MAX)
    };
    let numbered = plan.numbered();
    (count(0..numbered), count(numbered..plan.count()))
}

/// Whether all of a block can be given out.
pub(crate) fn has_block(plan: &Plan, ports: &Ports, number: u16) -> bool {
    let range = plan.range(number);
    range.is_some_and(|it| Protocol::ALL.iter().all(|of| ports.of(*of).covers(&it)))
}

fn check_numbers(config: &Config, plan: &Plan) -> Result<(), BlocksError> {
    if config.clients.is_empty() {
        return Err(BlocksError::Uncounted);
    }
    let mut subscribers = 0u128;
    for (at, network) in config.clients.iter().enumerate() {
        let mut others = config.clients.iter().enumerate();
        let overlap = others.any(|(of, it)| of != at && it.contains(network.first()));
        let bits = plan.prefix_len.checked_sub(network.prefix_len());
        // More than 2^64 subscribers have no numbers, and no blocks.
        let Some(bits) = bits.filter(|bits| !overlap && *bits < 64) else {
            return Err(BlocksError::Clients(*network));
        };
        subscribers += 1 << bits;
    }
    let blocks = config.pool.len() as u128 * u128::from(plan.numbered());
    if subscribers > blocks {
        return Err(BlocksError::TooMany {
            subscribers,
            blocks,
        });
    }
    Ok(())
}
