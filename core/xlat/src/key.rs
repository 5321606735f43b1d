//! The keyed hash of the tables. Tuples are chosen by whoever sends packets, so the key must not be
//! known to them.

use core::hash::Hasher;

use siphasher::sip::SipHasher13;

/// A random key.
#[derive(Clone, Copy)]
pub struct Key([u8; 16]);

impl Key {
    /// A key of random bytes.
    #[must_use]
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The hash of the concatenation of `parts`.
    #[inline]
    #[must_use]
    pub fn hash(&self, parts: &[&[u8]]) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        // The same hash, in fewer steps.
        if let [whole] = parts {
            return hasher.hash(whole);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use core::hash::BuildHasher;

    #[test]
    fn the_hash_is_of_the_key_and_all_parts() {
        let bytes: [u8; 16] = core::array::from_fn(|i| i as u8);
        let key = Key::new(bytes);
        let whole = key.hash(&[&bytes[..8]]);
        assert_eq!(key.hash(&[&bytes[..3], &[], &bytes[3..8]]), whole);
        assert_ne!(key.hash(&[&bytes[..7]]), whole);
        assert_ne!(Key::new([0; 16]).hash(&[&bytes[..8]]), whole);
        let mut hasher = key.build_hasher();
        hasher.write(&bytes[..8]);
        assert_eq!(hasher.finish(), whole);
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?}", Key::new([7; 16])), "Key(..)");
    }
}
