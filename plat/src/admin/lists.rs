//! Lists, in pages.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv6Addr,
    time::Instant,
};

use control::{
    Problem,
    network::subscriber,
    plat::{
        Answer, BibRow, ClientRow, Cursor, MAX_PAGE, Page, PoolRow, RefusedClient, SessionRow,
        TopBy, Wanted,
    },
};
use nat64::{Engine, RefusedSubscriber, bib::Binding, network6::Network6};

use super::{Admin, rows};

/// Places of a table that are looked at before packets get their turn again.
pub(super) const LOOKED_AT: usize = 2_000;

/// A part of one worker's table.
struct Part<T> {
    rows: Vec<T>,
    /// Where to go on, unless it was the last part.
    next: Option<u64>,
}

impl Admin {
    /// A page of the sessions.
    pub(super) async fn sessions(&self, wanted: Wanted) -> Result<Page<SessionRow>, Problem> {
        let filter = wanted.filter;
        self.page(
            wanted.from,
            wanted.limit,
            move |engine, now, place, limit| {
                let all = engine.sessions_from(place, now);
                part(all, limit, |view| {
                    Some(rows::session(view)).filter(|row| filter.wants_session(row))
                })
            },
        )
        .await
    }

    /// A page of the bindings.
    pub(super) async fn bindings(&self, wanted: Wanted) -> Result<Page<BibRow>, Problem> {
        let filter = wanted.filter;
        self.page(wanted.from, wanted.limit, move |engine, _, place, limit| {
            part(engine.bindings_from(place), limit, |binding| {
                let row = rows::binding(binding);
                filter
                    .wants_binding(row.protocol, row.client, row.pool)
                    .then_some(row)
            })
        })
        .await
    }

    /// A page from one worker. The last page of a worker leads to the first of the next.
    async fn page<T: Send + 'static>(
        &self,
        from: Cursor,
        limit: Option<usize>,
        part: impl Fn(&Engine, Instant, usize, usize) -> Part<T> + Send + Sync + 'static,
    ) -> Result<Page<T>, Problem> {
        let place = usize::try_from(from.at).unwrap_or(usize::MAX);
        let limit = limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE);
        let only = move |engine: &mut Engine, now| part(engine, now, place, limit);
        let shards = self.counters.workers();
        let Some(part) = self
            .orders
            .one(usize::try_from(from.shard).unwrap_or(usize::MAX), only)
            .await
            .map_err(super::unanswered)?
        else {
            return Ok(Page {
                rows: Vec::new(),
                next: None,
            });
        };
        let following = Cursor {
            shard: from.shard.saturating_add(1),
            at: 0,
        };
        let next = match part.next {
            Some(at) => Some(Cursor { at, ..from }),
            None => (u64::from(following.shard) < shards).then_some(following),
        };
        Ok(Page {
            rows: part.rows,
            next,
        })
    }

    /// Goes through the bindings of all workers in parts, and takes what is `wanted` of them.
    pub(super) async fn each_binding<T: Send + 'static>(
        &self,
        wanted: impl Fn(&Binding) -> Option<T> + Clone + Send + Sync + 'static,
        mut take: impl FnMut(T),
    ) -> Result<(), Problem> {
        let mut from = Some(Cursor::default());
        while let Some(cursor) = from {
            let wanted = wanted.clone();
            let look = move |engine: &Engine, _, place, _| {
                part(engine.bindings_from(place), LOOKED_AT, |it| wanted(it))
            };
            let page = self.page(cursor, Some(MAX_PAGE), look).await?;
            page.rows.into_iter().for_each(&mut take);
            from = page.next;
        }
        Ok(())
    }

    /// The use of the pool, all workers together. High-water marks are added up, which is an upper
    /// bound: no worker knows when the others had their most.
    pub(super) async fn pool(&self) -> Result<Vec<PoolRow>, Problem> {
        let order = |engine: &mut Engine, _: Instant| engine.pool_use().collect::<Vec<_>>();
        let mut all: Vec<PoolRow> = Vec::new();
        let mut at = HashMap::new();
        for part in self.each(order).await?.into_iter().flatten() {
            let protocol = rows::protocol(part.protocol);
            let key = (part.address, protocol.name());
            let index = *at.entry(key).or_insert_with(|| {
                all.push(PoolRow {
                    address: part.address,
                    protocol,
                    used: 0,
                    ports: 0,
                    high_water: Some(0),
                });
                all.len() - 1
            });
            let row = &mut all[index];
            row.used += part.used as u64;
            row.ports += part.ports as u64;
            row.high_water = row.high_water.map(|it| it + part.most_used as u64);
        }
        Ok(all)
    }

    /// The clients that were refused something, those refused most first. A worker remembers a few
    /// hundred.
    pub(super) async fn refused(&self) -> Result<Vec<RefusedClient>, Problem> {
        let order = |engine: &mut Engine, now: Instant| (engine.refused(), now);
        let mut all: BTreeMap<Network6, RefusedSubscriber> = BTreeMap::new();
        let mut latest = None;
        for (part, now) in self.each(order).await? {
            latest = latest.max(Some(now));
            for one in part {
                let entry = all.entry(one.subscriber);
                entry.and_modify(|it| *it = both(it, &one)).or_insert(one);
            }
        }
        let mut rows: Vec<_> = latest
            .into_iter()
            .flat_map(|now| all.values().map(move |it| rows::refused(it, now)))
            .collect();
        rows.sort_by_key(|it| std::cmp::Reverse(it.packets));
        Ok(rows)
    }

    /// The clients with the most, by /64. Goes through the tables in parts.
    pub(super) async fn top(&self, by: TopBy, limit: Option<usize>) -> Result<Answer, Problem> {
        let mut clients: HashMap<Ipv6Addr, (u64, u64)> = HashMap::new();
        let whose = |it: &Binding| Some((it.inside.address, it.sessions));
        self.each_binding(whose, |(address, sessions)| {
            let network = address.to_bits() & !u128::from(u64::MAX);
            let client = clients.entry(Ipv6Addr::from_bits(network)).or_default();
            client.0 += u64::from(sessions);
            client.1 += 1;
        })
        .await?;
        let rows = clients
            .into_iter()
            .map(|(address, (sessions, bindings))| ClientRow {
                client: subscriber(address),
                sessions,
                bindings,
            });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by(|a, b| {
            let key = |it: &ClientRow| match by {
                TopBy::Sessions => (it.sessions, it.bindings),
                TopBy::Bindings => (it.bindings, it.sessions),
            };
            key(b).cmp(&key(a)).then_with(|| a.client.cmp(&b.client))
        });
        rows.truncate(limit.unwrap_or(20).min(MAX_PAGE));
        Ok(Answer::Clients { rows })
    }
}

/// What two workers remember of one subscriber.
fn both(a: &RefusedSubscriber, b: &RefusedSubscriber) -> RefusedSubscriber {
    let later = if b.last > a.last { b } else { a };
    RefusedSubscriber {
        packets: a.packets.saturating_add(b.packets),
        first: a.first.min(b.first),
        ..*later
    }
}

/// The rows of a table that are wanted, as many as fit; and where to go on.
fn part<'a, V: 'a, T>(
    all: impl Iterator<Item = (usize, V)> + 'a,
    limit: usize,
    wanted: impl Fn(&V) -> Option<T>,
) -> Part<T> {
    let mut rows = Vec::new();
    for (looked_at, (place, item)) in all.enumerate() {
        if rows.len() >= limit || looked_at >= LOOKED_AT {
            return Part {
                rows,
                next: Some(place as u64),
            };
        }
        rows.extend(wanted(&item));
    }
    Part { rows, next: None }
}
