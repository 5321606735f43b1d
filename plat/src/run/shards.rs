//! The NAT64 itself, before anything moves through it.

use std::{num::NonZeroU8, path::Path, sync::Arc};

use cli::{Exit, Failure};
use host::{Host, clock::Clock, tun::Tun};
use nat64::{
    Engine,
    dispatch::{Dispatch, ShardId},
};

use crate::{config::Config, remains, workers::how_many};

/// The shards of the NAT64, one for each worker.
pub(super) struct Shards {
    pub(super) engines: Vec<Engine>,
    /// Of the virtual interface, one for each shard.
    pub(super) queues: Vec<Arc<dyn Tun>>,
    /// By which packets belong to them.
    pub(super) key: [u8; 16],
    /// Their time.
    pub(super) clock: Clock,
}

impl Shards {
    /// Makes them as `config` has it, with what was in use before resting, as the file `resting`
    /// tells; and the virtual interface.
    ///
    /// # Errors
    /// What cannot be configured, or opened.
    pub(super) fn open(
        host: &impl Host,
        config: &Config,
        engine: nat64::Config,
        resting: &Path,
        clock: Clock,
    ) -> Result<Self, Failure> {
        let before = remains::read(resting, config.timers.hold_down);
        // Subscribers find their blocks where they were.
        let key = before.key.map_or_else(random_key, Ok)?;
        let mut engines = engines(config.workers, engine, key, clock)?;
        let seed = random_key()?;
        for engine in &mut engines {
            // The key may be that of the run before.
            engine.draw_ports_anew(seed);
            engine.let_rest(&before.remains);
        }
        add_static(&mut engines, config)?;
        let queues = open_tun(host, &config.interface, engines.len())?;
        Ok(Self {
            engines,
            queues,
            key,
            clock,
        })
    }
}

fn random_key() -> Result<[u8; 16], Failure> {
    let mut key = [0; 16];
    let filled = getrandom::fill(&mut key);
    filled.map_err(|error| Failure::error(format_args!("no randomness: {error}")))?;
    Ok(key)
}

/// As many as are wanted, or as the pool has ports for.
fn engines(
    wanted: Option<NonZeroU8>,
    config: nat64::Config,
    key: [u8; 16],
    clock: Clock,
) -> Result<Vec<Engine>, Failure> {
    let count = how_many(wanted, Dispatch::most_shards(&config));
    if let Some(wanted) = wanted.filter(|wanted| *wanted > count) {
        tracing::warn!("{count} workers, not {wanted}: the pool has too few ports for more");
    }
    let now = clock.now();
    ShardId::all(count)
        .map(|shard| Engine::for_shard(config.clone(), key, count, shard, now))
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::new(Exit::Usage, error))
}

/// Every shard takes what is its own of them.
fn add_static(engines: &mut [Engine], config: &Config) -> Result<(), Failure> {
    for binding in &config.bib {
        for engine in &mut *engines {
            engine.add_static(*binding).map_err(|error| {
                let (inside, outside) = (binding.inside, binding.outside);
                let what = format_args!("[[bib]] {inside:?} {outside:?}: {error}");
                Failure::new(Exit::Usage, what)
            })?;
        }
    }
    Ok(())
}

fn open_tun(host: &impl Host, name: &str, shards: usize) -> Result<Vec<Arc<dyn Tun>>, Failure> {
    let queues = u8::try_from(shards).ok().and_then(NonZeroU8::new);
    host.tun_queues(name, queues.unwrap_or(NonZeroU8::MIN))
        .map_err(|it| Failure::system(it.kind(), &it, it.hint()))
}
