//! Random numbers for ports.

use xlat::key::Key;

/// Numbers that cannot be guessed without the key (RFC 6056 §3.3.1).
#[derive(Clone, Debug)]
pub(crate) struct Random {
    key: Key,
    counter: u64,
}

impl Random {
    pub(crate) fn new(key: Key) -> Self {
        Self { key, counter: 0 }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.counter += 1;
        self.key.hash(&[b"random", &self.counter.to_ne_bytes()])
    }
}
