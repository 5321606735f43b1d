//! Random numbers for ports.

use xlat::key::Key;

/// Numbers that cannot be guessed without the key (RFC 6056 §3.3.1).
#[derive(Clone, Debug)]
pub(crate) struct Random {
    key: Key,
    shard: u8,
    counter: u64,
}

impl Random {
    /// The shards of a NAT64 have the same key, and each other numbers.
    pub(crate) fn new(key: Key, shard: u8) -> Self {
        Self {
            key,
            shard,
            counter: 0,
        }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.counter += 1;
        let counter = self.counter.to_ne_bytes();
        self.key.hash(&[b"random", &[self.shard], &counter])
    }
}
