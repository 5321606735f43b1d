//! The version of the protocol.

use core::fmt;

use serde::{Deserialize, Serialize};

/// A version of the protocol: two ends understand each other if their major versions are the same.
/// The minor version grows when something is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Grows with a change that old programs misunderstand.
    pub major: u16,
    /// Grows with what old programs can ignore.
    pub minor: u16,
}

impl Version {
    /// The one that this source speaks.
    pub const CURRENT: Self = Self { major: 1, minor: 0 };

    /// Whether an end that speaks `self` and one that speaks `other` understand each other.
    #[must_use]
    pub const fn understands(self, other: Self) -> bool {
        self.major == other.major
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_decides() {
        let version = |major, minor| Version { major, minor };
        assert!(version(1, 0).understands(version(1, 7)));
        assert!(!version(1, 0).understands(version(2, 0)));
        assert_eq!(Version::CURRENT.to_string(), "1.0");
    }
}
