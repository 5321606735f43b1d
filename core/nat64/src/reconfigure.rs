//! A new configuration while packets flow: what can stay, stays.
//!
//! A session lives on under the new configuration unless what it stands on is gone: its prefix, or
//! the address or port that its client was given (a dynamic one that is not given out any more, a
//! static one whose address left the pool). Such sessions end at once, so that nothing is sent from
//! an address that may be another's by now. Lifetimes that run keep running; the new ones hold from
//! the next packet on. Limits below what there is evict nothing.

use core::net::Ipv4Addr;

use crate::{
    bib::{BibId, Binding},
    blocks::{BlocksError, Plan},
    config::{Config, ConfigError},
    dispatch::Part,
    engine::Engine,
    filtering_and_updating::{Tables, new_pool},
    journal::{Change, Ending},
    pool::Pool,
    tuple::{Endpoint4, Protocol},
};

/// What a new configuration has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reconfigured {
    /// Sessions that could not go on.
    pub sessions_ended: usize,
    /// Bindings that ended, with their last session or without any.
    pub bindings_ended: usize,
    /// Stored SYNs to ports that are gone.
    pub syns_forgotten: usize,
}

/// Where the prefixes of the old configuration stand in the new one, by their number.
type Moved = Vec<Option<u8>>;

impl Engine {
    /// Goes on with `config`. All shards must be told.
    ///
    /// # Errors
    /// [`ConfigError`]; nothing has changed then.
    pub fn reconfigure(&mut self, config: Config) -> Result<Reconfigured, ConfigError> {
        config.check()?;
        if **self.part.dispatch.plan() != Plan::new(&config) {
            return Err(ConfigError::Blocks(BlocksError::Fixed));
        }
        let place = |old| config.prefixes.iter().position(|new| new == old);
        let moved: Moved = self
            .prefixes
            .iter()
            .map(|old| place(old).and_then(|at| u8::try_from(at).ok()))
            .collect();
        let done = self.tables.reconfigure(&config, &self.part, &moved);
        let pool = self.tables.pool();
        self.part
            .dispatch
            .forget_if(|outside| !pool.contains(outside.address));
        self.settle(config)?;
        Ok(done)
    }
}

impl Tables {
    fn reconfigure(&mut self, config: &Config, part: &Part, moved: &Moved) -> Reconfigured {
        let before = self.bib.len();
        if self.pool.is_of(&config.pool) && moved.iter().enumerate().all(stays) {
            // The usual case, and a million sessions would take a second to look through.
            self.set_policy(config, part);
            return Reconfigured::default();
        }
        let pool = new_pool(config, part, self.key);
        // If nothing is gone, nothing ends: a million sessions take long to look through.
        let grows = pool.covers(&self.pool);
        let sessions_ended = if grows && moved.iter().all(Option::is_some) {
            0
        } else {
            self.end_sessions(Ending::NotServed, |binding, session| {
                place(moved, session.prefix).is_none() || !(grows || is_served(binding, &pool))
            })
        };
        if !grows {
            self.end_static_bindings(|binding| !is_served(binding, &pool));
        }
        self.renumber(moved);
        self.replace_pool(pool);
        if !grows {
            let bound: Vec<_> = self.bib.iter().copied().collect();
            self.pair_anew(&bound);
        }
        let served = &self.pool;
        let syns_forgotten = self
            .syns
            .forget_if(|outside| !served.gives(Protocol::Tcp, outside));
        self.set_policy(config, part);
        Reconfigured {
            sessions_ended,
            bindings_ended: before - self.bib.len(),
            syns_forgotten,
        }
    }

    /// Those without sessions, which end only here.
    fn end_static_bindings(&mut self, gone: impl Fn(&Binding) -> bool) {
        let ending: Vec<_> = self
            .bib
            .ids()
            .filter(|(_, binding)| gone(binding))
            .map(|(id, _)| id)
            .collect();
        for id in ending {
            self.unbind(id);
        }
    }

    /// Prefixes are known by their number in the configuration.
    fn renumber(&mut self, moved: &Moved) {
        if moved.iter().enumerate().all(stays) {
            return;
        }
        let bindings: Vec<BibId> = self.bib.ids().map(|(id, _)| id).collect();
        for id in bindings {
            // Without a session under it, a prefix is only the guess of what comes next.
            let prefix = place(moved, self.bib.get(id).prefix).unwrap_or_default();
            let binding = self.bib.get_mut(id);
            binding.prefix = prefix;
            self.journal.record(Change::BindingChanged(*binding));
        }
        let sessions: Vec<_> = self.sessions.iter().map(|(id, _)| id).collect();
        for id in sessions {
            let prefix = place(moved, self.sessions.get(id).prefix).unwrap_or_default();
            self.sessions.set_prefix(id, prefix);
            self.record(id, Change::SessionChanged);
        }
    }

    /// What is bound is not free in the new pool either.
    fn replace_pool(&mut self, pool: Pool) {
        let mut old = core::mem::replace(&mut self.pool, pool);
        self.pool.adopt(&old);
        for block in old.blocks() {
            let end = Endpoint4 {
                address: block.address,
                id: block.ports.first(),
            };
            if self.pool.held_at(end).map(|it| it.block) != Some(block) {
                self.journal.record(Change::BlockGiven(block));
            }
        }
        if !self.pool.keep(&mut old) {
            for binding in self.bib.iter() {
                self.pool.reserve(binding.protocol, binding.outside);
            }
        }
        // Those that rest may be of an address that was gone in between.
        for (protocol, port) in self.hold_down.resting() {
            self.pool.reserve(protocol, port);
        }
    }
}

/// Whether a prefix keeps its number.
fn stays((at, to): (usize, &Option<u8>)) -> bool {
    to.is_some_and(|to| usize::from(to) == at)
}

fn place(moved: &Moved, prefix: u8) -> Option<u8> {
    moved.get(usize::from(prefix)).copied().flatten()
}

fn is_served(binding: &Binding, pool: &Pool) -> bool {
    if binding.is_static {
        pool.contains(binding.outside.address)
    } else {
        pool.gives(binding.protocol, binding.outside)
    }
}

/// The address that errors of our own come from.
pub(crate) fn own_ipv4(config: &Config) -> Result<Ipv4Addr, ConfigError> {
    let first = config.pool.first().map(|entry| entry.address);
    first.ok_or(ConfigError::NoPool)
}
