//! What the command lines of the programs share.
//!
//! Standard output is the answer, standard error is everything else. Exit codes mean the same in
//! every program ([`Exit`]). A [`Failure`] says what went wrong and what to do about it.
//! Configuration files are strict, and what is wrong in one is named with file, line and a
//! suggestion ([`config`]).

#![forbid(unsafe_code)]

use std::{
    fmt,
    io::{self, Write as _},
    process::ExitCode,
};

use serde::Serialize;
use tracing_subscriber::EnvFilter;

pub mod config;
#[cfg(feature = "lines")]
pub mod lines;
pub mod seldom;
pub mod text;

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked.
    Ok = 0,
    /// It did not.
    Error = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// It did not happen in time.
    Timeout = 3,
    /// The network has no NAT64.
    NoNat64 = 4,
    /// The user may not.
    Permission = 5,
    /// The service that would do it is not running.
    NotRunning = 8,
    /// What was asked for does not exist.
    NotFound = 10,
}

impl Exit {
    /// The exit code that belongs to a kind of error of the system.
    #[must_use]
    pub fn of(kind: io::ErrorKind) -> Self {
        if kind == io::ErrorKind::PermissionDenied {
            Self::Permission
        } else if kind == io::ErrorKind::NotFound {
            Self::NotFound
        } else {
            Self::Error
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a program did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    exit: Exit,
    what: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure that ends with `exit`.
    pub fn new(exit: Exit, what: impl fmt::Display) -> Self {
        Self {
            exit,
            what: what.to_string(),
            hint: None,
        }
    }

    /// A failure that is the program's or the system's fault.
    pub fn error(what: impl fmt::Display) -> Self {
        Self::new(Exit::Error, what)
    }

    /// What the system said, and the exit code that belongs to it.
    pub fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        Self::new(Exit::of(error.kind()), format_args!("{what}: {error}"))
    }

    /// What the system said to something, and what to do about it if that is known.
    pub fn system(kind: io::ErrorKind, what: impl fmt::Display, hint: Option<&str>) -> Self {
        Self {
            hint: hint.map(str::to_owned),
            ..Self::new(Exit::of(kind), what)
        }
    }

    /// What the program ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Says how to get the permission, if that is what is missing.
    #[must_use]
    pub fn permission_hint(self, hint: impl fmt::Display) -> Self {
        if self.exit == Exit::Permission {
            self.hint(hint)
        } else {
            self
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  what to do: {hint}"),
            None => Ok(()),
        }
    }
}

/// Runs a program on this thread, with the IO and the timers of tokio, and [`finish`]es.
#[must_use]
pub fn run(program: impl Future<Output = Result<Exit, Failure>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    finish(match runtime {
        Ok(runtime) => runtime.block_on(program),
        Err(error) => Err(Failure::io("cannot start", &error)),
    })
}

/// Ends a program: prints a failure, if that is what it ended with.
#[must_use]
pub fn finish(result: Result<Exit, Failure>) -> ExitCode {
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            // Nobody may be reading any more, and that must not hide the exit code.
            let _ = writeln!(io::stderr(), "{failure}");
            failure.exit.into()
        }
    }
}

/// Writes a part of the answer to standard output, with a line end. That nobody reads it any more
/// (`| head`) is no reason to fail, and for a service none to leave the host as it is.
pub fn say(answer: impl fmt::Display) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{answer}").and_then(|()| stdout.flush());
}

/// Sends log lines to standard error. `default` is a filter like `info`; the variable `OPENCLAT_LOG`
/// replaces it.
pub fn log_to_stderr(default: &str) {
    let filter =
        EnvFilter::try_from_env("OPENCLAT_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let colours = io::IsTerminal::is_terminal(&io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // They would go to the same closed pipe, by a macro that panics.
        .log_internal_errors(false)
        .with_ansi(colours)
        .with_target(false)
        .without_time()
        .init();
}

/// An answer as JSON: one line, with a `schema` that says what it is. Fields are only ever added to
/// a schema.
///
/// # Errors
/// None that a plain data type can cause.
pub fn json_line(schema: &str, answer: &impl Serialize) -> Result<String, Failure> {
    let mut value = serde_json::to_value(answer).map_err(Failure::error)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("schema".to_owned(), schema.into());
    }
    Ok(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_to_do() {
        let failure =
            Failure::new(Exit::Permission, "may not open a raw socket").hint("run it as root");
        assert_eq!(
            failure.to_string(),
            "error: may not open a raw socket\n  what to do: run it as root"
        );
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let denied = Failure::io("x", &denied).permission_hint("ask");
        assert_eq!(denied.exit, Exit::Permission);
        assert!(denied.to_string().ends_with("what to do: ask"));
        let missing = io::Error::from(io::ErrorKind::Unsupported);
        let missing = Failure::io("x", &missing).permission_hint("ask");
        assert_eq!(missing.to_string(), "error: x: unsupported");
    }

    #[test]
    fn json_answers_name_their_schema() {
        #[derive(Serialize)]
        struct Answer {
            prefixes: Vec<&'static str>,
        }
        let line = json_line(
            "openclat-x/1",
            &Answer {
                prefixes: vec!["a"],
            },
        )
        .unwrap();
        assert_eq!(line, r#"{"prefixes":["a"],"schema":"openclat-x/1"}"#);
    }
}
