//! Log lines that others can cause as many of as they like.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    time::{Duration, Instant},
};

/// In this time there are so many lines of a kind, and no more.
pub const PERIOD: Duration = Duration::from_secs(60);

/// Says so many lines of each kind `K` in a time, and with the next one how many were left out.
#[derive(Clone, Debug)]
pub struct Seldom<K> {
    period: Duration,
    burst: u32,
    kinds: HashMap<K, Said>,
}

#[derive(Clone, Debug)]
struct Said {
    since: Instant,
    lines: u32,
    left_out: u64,
}

/// What a line ends with: how many like it were left out before. Nothing, if none was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut(pub u64);

impl<K: Eq + Hash> Seldom<K> {
    /// `burst` lines of each kind in a [`PERIOD`], at least one. There should be few kinds: each is
    /// remembered.
    #[must_use]
    pub fn new(burst: u32) -> Self {
        Self {
            period: PERIOD,
            burst: burst.max(1),
            kinds: HashMap::new(),
        }
    }

    /// One line of each kind in another time than [`PERIOD`].
    #[must_use]
    pub fn every(period: Duration) -> Self {
        Self {
            period,
            ..Self::default()
        }
    }

    /// Whether to say a line of this kind, and what it ends with.
    pub fn say(&mut self, kind: K, now: Instant) -> Option<LeftOut> {
        let said = self.kinds.entry(kind).or_insert(Said {
            since: now,
            lines: 0,
            left_out: 0,
        });
        if now.saturating_duration_since(said.since) >= self.period {
            (said.since, said.lines) = (now, 0);
        }
        if said.lines >= self.burst {
            said.left_out += 1;
            return None;
        }
        said.lines += 1;
        Some(LeftOut(std::mem::take(&mut said.left_out)))
    }
}

impl<K: Eq + Hash> Default for Seldom<K> {
    /// One line.
    fn default() -> Self {
        Self::new(1)
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " (and {count} like it before that are not in the log)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_and_a_number() {
        let now = Instant::now();
        let mut seldom = Seldom::new(2);
        let said = |seldom: &mut Seldom<char>, kind, seconds| {
            let it = seldom.say(kind, now + Duration::from_secs(seconds));
            it.map(|it| it.0)
        };
        assert_eq!(said(&mut seldom, 'a', 0), Some(0));
        assert_eq!(said(&mut seldom, 'a', 1), Some(0));
        for _ in 0..7 {
            assert_eq!(said(&mut seldom, 'a', 59), None);
        }
        // Another kind is not in its way.
        assert_eq!(said(&mut seldom, 'b', 59), Some(0));
        assert_eq!(said(&mut seldom, 'a', 60), Some(7));
        assert_eq!(said(&mut seldom, 'a', 61), Some(0));
        assert_eq!(said(&mut seldom, 'a', 119), None);
        assert_eq!(LeftOut(0).to_string(), "");
        assert!(LeftOut(7).to_string().contains("and 7 like it"));
    }
}
