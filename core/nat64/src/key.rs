//! The keyed hash of the tables. Tuples are chosen by whoever sends packets, so the key must not be
//! known to them.

use core::hash::Hasher;

use siphasher::sip::SipHasher13;

/// A random key.
#[derive(Clone, Copy)]
pub(crate) struct Key([u8; 16]);

impl Key {
    pub(crate) fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(crate) fn hash(&self, parts: &[&[u8]]) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        for part in parts {
            hasher.write(part);
        }
        hasher.finish()
    }
}

impl core::hash::BuildHasher for Key {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_key(&self.0)
    }
}

impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Key(..)")
    }
}

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
