//! `[thresholds]`: at which part of a limit people are told (RFC 8158 §5, RFC 8512).

use cli::{
    Failure,
    config::{Document, Spanned},
};
use schemars::JsonSchema;
use serde::Deserialize;

/// When people are told that something comes near to its limit, in percent of the limit.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ThresholdsFile {
    /// Ports and identifiers of the pool, each protocol by itself.
    #[serde(default)]
    pool: MarksFile,
    /// Sessions, of `limits.sessions`.
    #[serde(default)]
    sessions: MarksFile,
    /// Bindings, of `limits.bindings`.
    #[serde(default)]
    bindings: MarksFile,
    /// Bytes of the tables, of what `plat config check` says that they take at most.
    #[serde(default)]
    memory: MarksFile,
}

/// Both ends, in percent.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MarksFile {
    /// From here on people are told. Default 80, at most 100.
    #[schemars(with = "Option<u8>")]
    high: Option<Spanned<u8>>,
    /// Under this it is over. Default 70, at least 1, and less than `high`.
    #[schemars(with = "Option<u8>")]
    low: Option<Spanned<u8>>,
}

/// Two parts of a limit, in percent: `1 <= low < high <= 100`. What goes up and down around a single
/// one would be told of again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    low: u8,
    high: u8,
}

impl Default for Marks {
    fn default() -> Self {
        Self { low: 70, high: 80 }
    }
}

impl Marks {
    /// `None` unless `1 <= low < high <= 100`.
    fn new(low: u8, high: u8) -> Option<Self> {
        (1 <= low && low < high && high <= 100).then_some(Self { low, high })
    }

    /// Under which part of the limit it is over.
    pub(crate) fn low(self) -> u8 {
        self.low
    }

    /// From which part of the limit on people are told.
    pub(crate) fn high(self) -> u8 {
        self.high
    }

    /// Whether `value` is near `limit`, after it was `before` or not.
    pub(crate) fn is_near(self, before: bool, value: u64, limit: u64) -> bool {
        let percent = if before { self.low } else { self.high };
        limit > 0 && u128::from(value) * 100 >= u128::from(limit) * u128::from(percent)
    }
}

/// When people are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Thresholds {
    /// Of the pool's ports of a protocol.
    pub(crate) pool: Marks,
    /// Of the limit of sessions.
    pub(crate) sessions: Marks,
    /// Of the limit of bindings.
    pub(crate) bindings: Marks,
    /// Of the bytes that the tables may take.
    pub(crate) memory: Marks,
}

impl ThresholdsFile {
    pub(super) fn settle(&self, document: &Document) -> Result<Thresholds, Failure> {
        Ok(Thresholds {
            pool: self.pool.settle(document, "pool")?,
            sessions: self.sessions.settle(document, "sessions")?,
            bindings: self.bindings.settle(document, "bindings")?,
            memory: self.memory.settle(document, "memory")?,
        })
    }
}

impl MarksFile {
    fn settle(&self, document: &Document, of: &str) -> Result<Marks, Failure> {
        let default = Marks::default();
        let written = self.high.as_ref().or(self.low.as_ref());
        let Some(written) = written else {
            return Ok(default);
        };
        let or =
            |it: &Option<Spanned<u8>>, default| it.as_ref().map_or(default, |it| *it.get_ref());
        let (low, high) = (or(&self.low, default.low), or(&self.high, default.high));
        Marks::new(low, high).ok_or_else(|| {
            let what = format_args!(
                "thresholds.{of} has low = {low} and high = {high}; they are percent, and low is \
                 less than high"
            );
            let hint = format_args!(
                "write both, from 1 to 100, like: {of} = {{ low = {}, high = {} }}",
                default.low, default.high
            );
            document.wrong(written.span(), what).hint(hint)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::settled, *};

    /// Told at the high mark, and that it is over under the low one: in between nothing changes.
    #[test]
    fn obs_01_thresholds_have_two_ends() {
        // Where there is no limit, nothing is near it.
        assert!(!Marks::default().is_near(false, 0, 0) && !Marks::default().is_near(true, 7, 0));
        let walk = |marks: Marks, values: &[u64]| {
            let mut near = false;
            let step = |value: &u64| {
                near = marks.is_near(near, *value, 100);
                near
            };
            values.iter().map(step).collect::<Vec<_>>()
        };
        let told = walk(Marks::default(), &[79, 80, 75, 81, 70, 69, 79, 100]);
        assert_eq!(told, [false, true, true, true, true, false, false, true]);
        let told = walk(Marks::new(10, 20).unwrap(), &[19, 20, 10, 9, 19]);
        assert_eq!(told, [false, true, true, false, false]);
        assert!(!Marks::default().is_near(true, 0, 0));
    }

    #[test]
    fn obs_01_marks_are_read_and_what_is_wrong_is_said() {
        let marks = |text: &str| settled(text).unwrap().thresholds;
        assert_eq!(marks(""), Thresholds::default());
        let text = "[thresholds]\npool = { high = 95 }\nsessions.low = 1\n\
                    memory = { low = 40, high = 100 }";
        let expected = Thresholds {
            pool: Marks { low: 70, high: 95 },
            sessions: Marks { low: 1, high: 80 },
            bindings: Marks::default(),
            memory: Marks { low: 40, high: 100 },
        };
        assert_eq!(marks(text), expected);
        for (text, parts) in [
            (
                "thresholds.pool = { high = 60, low = 60 }",
                [
                    "plat.toml:1:28:",
                    "thresholds.pool has low = 60 and high = 60",
                ],
            ),
            (
                "thresholds.memory.high = 70",
                ["plat.toml:1:26:", "like: memory = { low = 70, high = 80 }"],
            ),
            (
                "thresholds.sessions.high = 101",
                ["plat.toml:1:28:", "percent"],
            ),
            (
                "thresholds.sessions.low = 0",
                ["plat.toml:1:27:", "percent"],
            ),
            (
                "thresholds.session.low = 50",
                ["plat.toml:1:", "did you mean `sessions`?"],
            ),
        ] {
            let error = settled(text).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{text}\n{error}");
            }
        }
    }
}
