//! What a system cannot do here, as an error with a sentence.

use std::io;

/// This system has no backend for something yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no backend for {what} on {system} yet; there is one on Linux")]
pub struct Unsupported {
    /// What was asked for: `virtual interfaces`.
    pub what: &'static str,
    /// The system, as people call it.
    pub system: &'static str,
}

impl Unsupported {
    /// `what` is missing on the system that this program was built for.
    #[must_use]
    pub const fn here(what: &'static str) -> Self {
        Self {
            what,
            system: SYSTEM,
        }
    }

    /// What is missing, if that is why `error` came.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl From<Unsupported> for io::Error {
    fn from(missing: Unsupported) -> Self {
        Self::new(io::ErrorKind::Unsupported, missing)
    }
}

#[cfg(target_os = "linux")]
const SYSTEM: &str = "Linux";
#[cfg(target_os = "macos")]
const SYSTEM: &str = "macOS";
#[cfg(windows)]
const SYSTEM: &str = "Windows";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_a_sentence_and_stays_a_type() {
        let missing = Unsupported {
            what: "virtual interfaces",
            system: "Windows",
        };
        let error = io::Error::from(missing);
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert_eq!(
            error.to_string(),
            "there is no backend for virtual interfaces on Windows yet; there is one on Linux"
        );
        assert_eq!(Unsupported::of(&error), Some(missing));
        assert_eq!(Unsupported::of(&io::ErrorKind::Unsupported.into()), None);
    }
}
