//! `plat config import`: what the configuration of another NAT64 says, as a `plat.toml`.

use std::{fmt, fmt::Write as _};

use cli::{Failure, config::Document};

use super::settled;

mod jool;
mod tayga;

/// What came of a file.
#[derive(Debug, Default)]
pub(super) struct Import {
    /// What is taken over and means something else here.
    notes: Vec<String>,
    /// Keys before the tables.
    lines: Vec<String>,
    timers: Vec<String>,
    /// `[[bib]]` and `[[eam]]`.
    tables: Vec<String>,
    /// What could not be taken over.
    pub(super) refused: Vec<Refused>,
}

/// Something that could not be taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// Of the file, from 1.
    line: usize,
    what: String,
    why: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: {}", self.line, self.what, self.why)
    }
}

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum From {
    /// Jool's JSON (an atomic configuration, for `jool file handle`)
    Jool,
    /// tayga.conf
    Tayga,
}

/// Reads the file `name`.
///
/// # Errors
/// What makes it no such file, or its contents no configuration.
pub(super) fn import(from: From, name: &str, text: &str) -> Result<Import, Failure> {
    let import = match from {
        From::Jool => jool::read(name, text)?,
        From::Tayga => tayga::read(text),
    };
    settled(Document::new("the result", import.toml(name)))?;
    Ok(import)
}

impl Import {
    fn refuse(&mut self, line: usize, what: impl fmt::Display, why: impl fmt::Display) {
        self.refused.push(Refused {
            line,
            what: what.to_string(),
            why: why.to_string(),
        });
    }

    /// A key whose value is one text.
    fn set(&mut self, key: &str, value: &str) {
        self.lines.push(format!("{key} = {value:?}"));
    }

    /// A key whose value is a list of texts.
    fn list(&mut self, key: &str, values: &[String]) {
        if !values.is_empty() {
            self.lines.push(format!("{key} = {values:?}"));
        }
    }

    /// As a file.
    pub(super) fn toml(&self, name: &str) -> String {
        let mut text = format!("# Made from {name} by `plat config import`.\n");
        for refused in &self.refused {
            // It may hold anything, a line end too.
            let refused = refused.to_string().replace(char::is_control, " ");
            let _ = writeln!(text, "# Not taken over: {refused}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "# {note}");
        }
        for line in &self.lines {
            let _ = writeln!(text, "{line}");
        }
        if !self.timers.is_empty() {
            text.push_str("\n[timers]\n");
        }
        for line in &self.timers {
            let _ = writeln!(text, "{line}");
        }
        for table in &self.tables {
            let _ = write!(text, "\n{table}");
        }
        text
    }
}
