//! Configuration files in TOML: strict, and helpful about what is wrong.

use std::{fs, path::Path, str::FromStr};

use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use crate::{Exit, Failure};

/// Reads a file. Unknown keys are errors if `T` says `deny_unknown_fields`, as all of ours do.
///
/// # Errors
/// With file, line, column, the reason and, for a mistyped key, the one that was probably meant.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let text = fs::read_to_string(path).map_err(|error| Failure::io(path.display(), &error))?;
    parse(&text, &path.display().to_string())
}

/// Reads the text of a file called `name`.
///
/// # Errors
/// As [`read`].
pub fn parse<T: DeserializeOwned>(text: &str, name: &str) -> Result<T, Failure> {
    toml::from_str(text).map_err(|error| {
        let place = match error.span() {
            Some(span) => {
                let (line, column) = line_and_column(text, span.start);
                format!("{name}:{line}:{column}")
            }
            None => name.to_owned(),
        };
        let message = error.message().trim_end();
        let failure = Failure::new(Exit::Usage, format_args!("{place}: {message}"));
        match suggestion(message) {
            Some(meant) => failure.hint(format_args!("did you mean `{meant}`?")),
            None => failure,
        }
    })
}

fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}

/// For "unknown field `prefxi`, expected one of `prefix`, `pool`": the nearest of the expected.
fn suggestion(message: &str) -> Option<&str> {
    if !message.starts_with("unknown ") {
        return None;
    }
    let mut names = message.split('`').skip(1).step_by(2);
    let wrong = names.next()?;
    let distance = |name: &&str| strsim::damerau_levenshtein(wrong, name);
    let nearest = names.min_by_key(distance)?;
    (distance(&nearest) <= nearest.len() / 2).then_some(nearest)
}

/// A value that is written as text and has a type of its own, such as an address or a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed<T>(pub T);

impl<'de, T> Deserialize<'de> for Parsed<T>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = text
            .parse()
            .map_err(|error| serde::de::Error::custom(format_args!("`{text}`: {error}")))?;
        Ok(Self(parsed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read by its Debug")]
    struct Config {
        prefix: Parsed<Ipv6Addr>,
        pool: Option<Vec<String>>,
    }

    fn failure(text: &str) -> String {
        parse::<Config>(text, "plat.toml").unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place_and_a_suggestion() {
        assert!(parse::<Config>("prefix = \"64:ff9b::\"", "plat.toml").is_ok());
        assert_eq!(
            failure("prefix = \"::\"\npoll = []\n"),
            "error: plat.toml:2:1: unknown field `poll`, expected `prefix` or `pool`\n  \
             what to do: did you mean `pool`?"
        );
        assert_eq!(
            failure("\n  prefix = \"nonsense\""),
            "error: plat.toml:2:12: `nonsense`: invalid IPv6 address syntax"
        );
        assert_eq!(
            failure("pool = []"),
            "error: plat.toml:1:1: missing field `prefix`"
        );
        assert!(!failure("prefix = \"::\"\nsomething-else-entirely = 1").contains("did you mean"));
        assert!(failure("prefix = ").starts_with("error: plat.toml:1:"));
    }

    #[test]
    fn a_missing_file_is_not_found() {
        let failure = read::<Config>(Path::new("/nonexistent/plat.toml")).unwrap_err();
        assert_eq!(failure.exit, Exit::NotFound);
    }
}
