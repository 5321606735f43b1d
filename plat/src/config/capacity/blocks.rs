//! Blocks of ports.

use std::fmt;

use nat64::blocks::{self, Blocks};
use serde_json::{Value, json};

use super::{super::Config, usable};

/// Blocks of ports, of all addresses together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InBlocks {
    /// Those that follow from subscribers' numbers.
    pub numbered: u64,
    /// Ports that each of these has, of each protocol.
    pub numbered_size: u64,
    /// Those that are given as they are needed.
    pub given: u64,
    /// Ports that each of these has, of each protocol.
    pub given_size: u64,
    /// How many of these a subscriber may have.
    pub given_most: u64,
}

impl InBlocks {
    pub(super) fn of(config: &Config) -> Option<Self> {
        let (numbered_size, given_size, given_most) = match config.blocks {
            Blocks::None => return None,
            Blocks::Dynamic(it) => (0, it.size.get(), it.most.get()),
            Blocks::Deterministic(it) => (it.size(), it.spare_size.get(), it.spare_most),
        };
        let mut all = Self {
            numbered_size: numbered_size.into(),
            given_size: given_size.into(),
            given_most: given_most.into(),
            ..Self::default()
        };
        for range in &config.pool {
            let (numbered, given) = blocks::whole(config.blocks, &range.ports);
            all.numbered += usable(range) * u64::from(numbered);
            all.given += usable(range) * u64::from(given);
        }
        Some(all)
    }

    /// The ports that a subscriber with a quota of `bindings` may have, and for how many
    /// subscribers there are blocks for so many.
    pub(super) fn at_quota(&self, bindings: u64) -> (u64, u64) {
        let most = self.given_most.min(self.given);
        let ports = bindings.min(self.numbered_size + most * self.given_size);
        let beyond = ports.saturating_sub(self.numbered_size);
        let blocks = beyond.div_ceil(self.given_size.max(1));
        let by_given = self.given.checked_div(blocks).unwrap_or(u64::MAX);
        match self.numbered {
            0 => (ports, by_given),
            numbered => (ports, by_given.min(numbered)),
        }
    }
}

impl InBlocks {
    pub(super) fn json(&self) -> Value {
        json!({
            "numbered": self.numbered,
            "numbered_size": self.numbered_size,
            "given": self.given,
            "given_size": self.given_size,
            "given_most": self.given_most,
        })
    }
}

impl fmt::Display for InBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            numbered,
            numbered_size,
            given,
            given_size,
            given_most,
        } = self;
        if *numbered > 0 {
            write!(f, "{numbered} of {numbered_size} ports by number")?;
        }
        if *given > 0 {
            let comma = if *numbered > 0 { ", " } else { "" };
            write!(
                f,
                "{comma}{given} of {given_size} to be given, at most {given_most} to one"
            )?;
        }
        Ok(())
    }
}
