//! Configuration files in TOML: strict, and helpful about what is wrong.

use std::{fmt, fs, ops::Range, path::Path, str::FromStr};

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
pub use toml::Spanned;

use crate::{Exit, Failure};

/// The text of a configuration file, kept so that what is wrong in it can be named with its place,
/// also when that shows only after it was read: see [`Spanned`].
#[derive(Clone, Debug)]
pub struct Document {
    name: String,
    text: String,
}

impl Document {
    /// The file at `path`.
    ///
    /// # Errors
    /// The system's.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path).map_err(|error| Failure::io(path.display(), &error))?;
        Ok(Self::new(&path.display().to_string(), text))
    }

    /// The text of a file called `name`.
    pub fn new(name: &str, text: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            text: text.into(),
        }
    }

    /// What the file says. Unknown keys are errors if `T` says `deny_unknown_fields`, as all of
    /// ours do.
    ///
    /// # Errors
    /// With file, line, column, the reason and, where it can be told, what was probably meant.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        toml::from_str(&self.text).map_err(|error| {
            let message = error.message().trim_end();
            let failure = match error.span() {
                Some(span) => self.wrong(span, message),
                None => self.wrong_somewhere(message),
            };
            match suggestion(message) {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        })
    }

    /// What a text in the file stands for. For values in lists: [`Parsed`] would name the place of
    /// the list.
    ///
    /// # Errors
    /// With the place of the text.
    pub fn value<T>(&self, text: &Spanned<String>) -> Result<Spanned<T>, Failure>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let (at, text) = (text.span(), text.get_ref());
        match text.parse() {
            Ok(value) => Ok(Spanned::new(at, value)),
            Err(error) => Err(self.wrong(at, format_args!("`{text}`: {error}"))),
        }
    }

    /// Something is wrong at a place of the file, in bytes from its start.
    pub fn wrong(&self, at: Range<usize>, what: impl fmt::Display) -> Failure {
        let (line, column) = line_and_column(&self.text, at.start);
        let name = &self.name;
        Failure::new(Exit::Usage, format_args!("{name}:{line}:{column}: {what}"))
    }

    /// Something is wrong with the file, or missing.
    pub fn wrong_somewhere(&self, what: impl fmt::Display) -> Failure {
        Failure::new(Exit::Usage, format_args!("{}: {what}", self.name))
    }
}

/// Reads a file at once: [`Document::read`] and [`Document::parse`].
///
/// # Errors
/// As they.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    Document::read(path)?.parse()
}

/// Both from 1, in characters.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let boundary = (0..=at.min(text.len())).rev().find_map(|at| text.get(..at));
    let before = boundary.unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}

/// What was probably meant, as far as the message tells.
fn suggestion(message: &str) -> Option<String> {
    if message.starts_with("invalid type: string") && message.ends_with("expected a sequence") {
        return Some("write a list: [\"...\"]".to_owned());
    }
    nearest(message).map(|meant| format!("did you mean `{meant}`?"))
}

/// For "unknown field `prefxi`, expected one of `prefix`, `pool`": the nearest of the expected.
fn nearest(message: &str) -> Option<&str> {
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
    T::Err: fmt::Display,
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
        let document = Document::new("plat.toml", text);
        document.parse::<Config>().unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place_and_a_suggestion() {
        let right = Document::new("plat.toml", "prefix = \"64:ff9b::\"");
        assert!(right.parse::<Config>().is_ok());
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
    fn a_list_that_was_forgotten_is_suggested() {
        let failure = failure("prefix = \"::\"\npool = \"192.0.2.1\"");
        assert!(
            failure.starts_with("error: plat.toml:2:8: invalid type"),
            "{failure}"
        );
        assert!(failure.ends_with("write a list: [\"...\"]"), "{failure}");
    }

    #[test]
    fn places_are_found_after_the_file_was_read() {
        #[derive(Debug, Deserialize)]
        struct Numbers {
            numbers: Vec<Spanned<u8>>,
        }
        let document = Document::new("plat.toml", "# é\nnumbers = [\n  1,\n  22]");
        let numbers: Numbers = document.parse().unwrap();
        let failure = document.wrong(numbers.numbers[1].span(), "too many");
        assert_eq!(failure.to_string(), "error: plat.toml:4:3: too many");
    }

    #[test]
    fn the_place_of_a_value_in_a_list_is_its_own() {
        #[derive(Debug, Deserialize)]
        struct List {
            list: Vec<Spanned<String>>,
        }
        let document = Document::new("plat.toml", "list = [\n  \"::\",\n  \"nonsense\"]");
        let List { list } = document.parse().unwrap();
        let right = document.value::<Ipv6Addr>(&list[0]).unwrap();
        assert_eq!(
            (*right.get_ref(), right.span()),
            (Ipv6Addr::UNSPECIFIED, 11..15)
        );
        let failure = document.value::<Ipv6Addr>(&list[1]).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "error: plat.toml:3:3: `nonsense`: invalid IPv6 address syntax"
        );
    }

    /// Whatever is in the file, cut anywhere and broken anywhere, it is an error and no panic.
    #[test]
    fn no_text_panics() {
        let whole = "# é\nprefix = \"64:ff9b::\" # ü\npool = [\"ä\", '''ö''']\n[t.\"ß\"]\n";
        let starts = whole.char_indices().map(|(at, _)| at).chain([whole.len()]);
        for at in starts {
            let (before, after) = whole.split_at(at);
            for between in [
                "", "\u{0}", "\u{feff}", "ф", "\"", "=", "[[", "\r", "\\u12", "1e9",
            ] {
                for text in [
                    format!("{before}{between}{after}"),
                    format!("{before}{between}"),
                ] {
                    let _ = Document::new("x", text).parse::<Config>();
                }
            }
        }
        // A place in the middle of a character, or behind the end.
        assert_eq!(line_and_column("é", 1), (1, 1));
        assert_eq!(line_and_column("é\n", 99), (2, 1));
    }

    #[test]
    fn a_missing_file_is_not_found() {
        let failure = read::<Config>(Path::new("/nonexistent/plat.toml")).unwrap_err();
        assert_eq!(failure.exit, Exit::NotFound);
    }
}
