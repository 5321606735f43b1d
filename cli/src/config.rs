//! Configuration files in TOML: strict, and helpful about what is wrong.

use std::{collections::BTreeMap, fmt, fs, io, iter, ops::Range, path::Path, str::FromStr};

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
pub use toml::Spanned;

use crate::{Exit, Failure};

mod layers;
#[cfg(test)]
mod tests;

/// The text of one or several configuration files, kept so that what is wrong in it can be named
/// with its place, also when that shows only after it was read: see [`Spanned`].
///
/// Of several files, later ones win, key by key; a list replaces the list before it. Places count
/// through all texts, one behind the other.
#[derive(Clone, Debug)]
pub struct Document {
    /// What something that stands in no file is missing from.
    name: String,
    parts: Vec<Part>,
}

/// One file.
#[derive(Clone, Debug)]
struct Part {
    name: String,
    text: String,
    /// Where its text begins among those of all.
    start: usize,
}

/// A line of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The name of the file.
    pub file: String,
    /// From 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Where a value that holds comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file says so.
    File(Place),
    /// The command line does; the name of the option, like `--interface`.
    Flag(&'static str),
    /// Nobody does.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(place) => place.fmt(f),
            Self::Flag(name) => f.write_str(name),
            Self::Default => f.write_str("default"),
        }
    }
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

    /// The file at `path`, if there is one, and over it the files `*.toml` in the directory that has
    /// the same name but for its end `.d`, sorted by name: `plat.toml` and `plat.d/`.
    ///
    /// # Errors
    /// The system's, but for files that do not exist.
    pub fn read_layers(path: &Path) -> Result<Self, Failure> {
        let mut document = Self::empty(&path.display().to_string());
        for file in iter::once(path.to_owned()).chain(layers::beside(path)?) {
            match fs::read_to_string(&file) {
                Ok(text) => document.push(&file.display().to_string(), text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Failure::io(file.display(), &error)),
            }
        }
        Ok(document)
    }

    /// The text of a file called `name`.
    pub fn new(name: &str, text: impl Into<String>) -> Self {
        let mut document = Self::empty(name);
        document.push(name, text);
        document
    }

    /// The text of no file; `name` is that of the one that could be written.
    #[must_use]
    pub fn empty(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            parts: Vec::new(),
        }
    }

    /// One more file, which wins over those before it.
    pub fn push(&mut self, name: &str, text: impl Into<String>) {
        // One byte between them: the end of one file is not the start of the next.
        let start = self
            .parts
            .last()
            .map_or(0, |it| it.start + it.text.len() + 1);
        self.parts.push(Part {
            name: name.to_owned(),
            text: text.into(),
            start,
        });
    }

    /// The names of the files, in the order in which they were read.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(|it| it.name.as_str())
    }

    /// What the files say together. Unknown keys are errors if `T` says `deny_unknown_fields`, as
    /// all of ours do.
    ///
    /// # Errors
    /// With file, line, column, the reason and, where it can be told, what was probably meant.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let table = layers::merged(&self.parts);
        let table = table.map_err(|broken| self.failure(&broken.message, broken.at))?;
        T::deserialize(toml::Deserializer::from(table))
            .map_err(|error| self.failure(error.message(), error.span()))
    }

    /// Every key that a file sets, such as `timers.udp`, with the place of the value that wins.
    /// Of a list, that of the whole. Empty if a file cannot be read.
    #[must_use]
    pub fn origins(&self) -> BTreeMap<String, Place> {
        let mut origins = BTreeMap::new();
        if let Ok(table) = layers::merged(&self.parts) {
            layers::leaves(table.get_ref(), "", &mut |key, at| {
                if let Some((part, line, _)) = self.find(at) {
                    let file = part.name.clone();
                    origins.insert(key, Place { file, line });
                }
            });
        }
        origins
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

    /// Something is wrong at a place of the files, in bytes from the start of the first.
    pub fn wrong(&self, at: Range<usize>, what: impl fmt::Display) -> Failure {
        let Some((part, line, column)) = self.find(at.start) else {
            return self.wrong_somewhere(what);
        };
        let name = &part.name;
        Failure::new(Exit::Usage, format_args!("{name}:{line}:{column}: {what}"))
    }

    /// Something is wrong with the files, or missing.
    pub fn wrong_somewhere(&self, what: impl fmt::Display) -> Failure {
        Failure::new(Exit::Usage, format_args!("{}: {what}", self.name))
    }

    /// The file that a place lies in, its line and column.
    fn find(&self, at: usize) -> Option<(&Part, usize, usize)> {
        let part = self.parts.iter().rev().find(|it| it.start <= at)?;
        let (line, column) = line_and_column(&part.text, at - part.start);
        Some((part, line, column))
    }

    fn failure(&self, message: &str, at: Option<Range<usize>>) -> Failure {
        let message = message.trim_end();
        let failure = match at {
            Some(at) => self.wrong(at, message),
            None => self.wrong_somewhere(message),
        };
        match suggestion(message) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
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
