//! Who has what of the pool: answers for whoever must say where something came from.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use control::{
    Problem, ProblemCode,
    network::Match,
    plat::{Answer, HeldBy, HeldRow, MAX_PAGE, Protocol},
};
use nat64::{
    Engine,
    bib::Binding,
    network6::Network6,
    tuple::{self, Endpoint4},
    whose::HeldBlock,
};

use super::{Admin, rows};

/// What one worker has of an address of the pool or of a client, besides bindings.
#[derive(Debug, Default)]
struct Found {
    /// Whether the address is the pool's; a client's never is.
    is_pool: bool,
    mapping: Option<(Ipv6Addr, Ipv4Addr)>,
    blocks: Vec<HeldBlock>,
    /// Those of the port, if one was asked for.
    bindings: Vec<Binding>,
}

impl Found {
    /// On `address`, or on one port of it.
    fn at(
        engine: &Engine,
        address: Ipv4Addr,
        port: Option<u16>,
        protocol: Option<tuple::Protocol>,
    ) -> Self {
        let mut found = Self {
            is_pool: engine.is_pool_address(address),
            mapping: engine.mapped_host(address).map(|host| (host, address)),
            ..Self::default()
        };
        let Some(id) = port else {
            found.blocks = engine.blocks_on(address, MAX_PAGE + 1);
            return found;
        };
        let outside = Endpoint4 { address, id };
        found.blocks = engine.block_at(outside).into_iter().collect();
        let wanted = tuple::Protocol::ALL.into_iter();
        let wanted = wanted.filter(|it| protocol.is_none_or(|only| only == *it));
        let bindings = wanted.filter_map(|it| engine.binding_at(it, outside));
        found.bindings = bindings.collect();
        found
    }

    /// Of the clients in `network`.
    fn of(engine: &Engine, network: Network6) -> Self {
        let host = network.first();
        let mapped = engine.mapped_address(host);
        Self {
            mapping: mapped
                .filter(|_| network.prefix_len() == 128)
                .map(|it| (host, it)),
            blocks: engine.blocks_in(network, MAX_PAGE + 1),
            ..Self::default()
        }
    }
}

/// What is known of all workers.
#[derive(Debug, Default)]
struct Held {
    rows: Vec<HeldRow>,
    left_off: u64,
}

impl Held {
    /// Every worker knows the mappings, and whose a port is by number.
    fn of(found: &[Found]) -> Self {
        let mapping = found.iter().find_map(|it| it.mapping).map(mapping_row);
        let mut blocks: Vec<_> = found.iter().flat_map(|it| &it.blocks).collect();
        blocks.sort_by_key(|it| (it.block.address, it.block.ports));
        blocks.dedup();
        let bindings = found.iter().flat_map(|it| &it.bindings).map(binding_row);
        let blocks = blocks.into_iter().map(block_row);
        let mut held = Self::default();
        // Who uses it comes before whose it would be: a static binding may be in anybody's block.
        mapping
            .into_iter()
            .chain(bindings)
            .chain(blocks)
            .for_each(|row| held.add(row, 1));
        held
    }

    fn add(&mut self, row: HeldRow, counts: u64) {
        if self.rows.len() < MAX_PAGE {
            self.rows.push(row);
        } else {
            self.left_off += counts;
        }
    }

    fn answer(self, nobody: impl FnOnce() -> Problem) -> Result<Answer, Problem> {
        let Self { rows, left_off } = self;
        match rows.is_empty() {
            true => Err(nobody()),
            false => Ok(Answer::Held { rows, left_off }),
        }
    }
}

/// What bindings are added up by.
type Sort = (Ipv6Addr, Ipv4Addr, usize, bool);

/// Bindings of one sort.
#[derive(Clone, Copy, Debug)]
struct Sum {
    count: u64,
    least: u16,
    greatest: u16,
}

impl Admin {
    /// Who has an address of the pool, or one of its ports.
    pub(super) async fn client_of(
        &self,
        address: Ipv4Addr,
        port: Option<u16>,
        protocol: Option<Protocol>,
    ) -> Result<Answer, Problem> {
        let only = protocol.map(rows::engine_protocol);
        let order = move |engine: &mut Engine, _: Instant| Found::at(engine, address, port, only);
        let found = self.each(order).await?;
        let is_mapped = found.iter().any(|it| it.mapping.is_some());
        if !is_mapped && !found.iter().any(|it| it.is_pool) {
            let what = format_args!("{address} is not in the pool, and no host's own");
            return Err(Problem::new(ProblemCode::NotFound, what).command("plat pool list"));
        }
        let mut held = Held::of(&found);
        if port.is_none() && !is_mapped {
            let wanted = move |it: &Binding| {
                it.outside.address == address && only.is_none_or(|only| only == it.protocol)
            };
            self.add_bindings(wanted, &mut held).await?;
        }
        held.answer(|| {
            let what = match port {
                Some(port) => format!("nobody has {address}:{port} now"),
                None => format!("nobody has a port of {address} now"),
            };
            Problem::new(ProblemCode::NotFound, what).command("plat pool list")
        })
    }

    /// The addresses, blocks and bindings of a client, or of all clients in a network.
    pub(super) async fn ports_of(&self, client: Match) -> Result<Answer, Problem> {
        let Some((address, len)) = client.ipv6_network() else {
            let what = format_args!("{client} is no client: name an IPv6 address or prefix");
            let problem = Problem::new(ProblemCode::Invalid, what);
            return Err(problem.command("plat pool client-of ADDRESS:PORT"));
        };
        let network = Network6::around(address, len);
        let order = move |engine: &mut Engine, _: Instant| Found::of(engine, network);
        let mut held = Held::of(&self.each(order).await?);
        let wanted = move |it: &Binding| network.contains(it.inside.address);
        self.add_bindings(wanted, &mut held).await?;
        held.answer(|| {
            let what = format_args!("{client} has no address and no port of the pool now");
            Problem::new(ProblemCode::NotFound, what).command("plat top")
        })
    }

    /// The bindings that are wanted, added up by client, address, protocol and kind.
    async fn add_bindings(
        &self,
        wanted: impl Fn(&Binding) -> bool + Clone + Send + Sync + 'static,
        held: &mut Held,
    ) -> Result<(), Problem> {
        let mut sums: BTreeMap<Sort, Sum> = BTreeMap::new();
        let mut left_off = 0;
        let of = move |it: &Binding| wanted(it).then_some(*it);
        self.each_binding(of, |it| {
            let (inside, outside) = (it.inside.address, it.outside.address);
            let sort = (inside, outside, it.protocol.index(), it.is_static);
            // What is not shown is not kept either, however many clients there are.
            if sums.len() >= MAX_PAGE && !sums.contains_key(&sort) {
                left_off += 1;
                return;
            }
            let id = it.outside.id;
            let sum = sums.entry(sort).or_insert(Sum {
                count: 0,
                least: id,
                greatest: id,
            });
            sum.count += 1;
            sum.least = sum.least.min(id);
            sum.greatest = sum.greatest.max(id);
        })
        .await?;
        for (sort, sum) in sums {
            held.add(sum_row(sort, sum), sum.count);
        }
        held.left_off += left_off;
        Ok(())
    }
}

fn mapping_row((host, address): (Ipv6Addr, Ipv4Addr)) -> HeldRow {
    HeldRow {
        client: host.to_string(),
        client_port: None,
        address,
        ports: None,
        protocol: None,
        by: HeldBy::Mapping,
        bindings: None,
    }
}

fn block_row(held: &HeldBlock) -> HeldRow {
    let block = held.block;
    HeldRow {
        client: block.subscriber.to_string(),
        client_port: None,
        address: block.address,
        ports: Some((block.ports.first(), block.ports.last())),
        protocol: None,
        by: match held.by_number {
            true => HeldBy::Number,
            false => HeldBy::Block,
        },
        bindings: None,
    }
}

fn binding_row(binding: &Binding) -> HeldRow {
    let id = binding.outside.id;
    HeldRow {
        client: binding.inside.address.to_string(),
        client_port: Some(binding.inside.id),
        address: binding.outside.address,
        ports: Some((id, id)),
        protocol: Some(rows::protocol(binding.protocol)),
        by: kind(binding.is_static),
        bindings: Some(1),
    }
}

fn sum_row((client, address, protocol, is_static): Sort, sum: Sum) -> HeldRow {
    HeldRow {
        client: client.to_string(),
        client_port: None,
        address,
        ports: Some((sum.least, sum.greatest)),
        protocol: Some(rows::protocol(tuple::Protocol::ALL[protocol])),
        by: kind(is_static),
        bindings: Some(sum.count),
    }
}

fn kind(is_static: bool) -> HeldBy {
    if is_static {
        HeldBy::Static
    } else {
        HeldBy::Binding
    }
}
