//! [`Problem`]: why something was not done.

use core::fmt;

use serde::{Deserialize, Serialize};

/// Which kind of problem it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemCode {
    /// The peer may not do this.
    NotPermitted,
    /// What was asked for does not exist.
    NotFound,
    /// What was asked for makes no sense, or contradicts what is.
    Invalid,
    /// The two programs do not understand each other: another major version.
    VersionMismatch,
    /// There is no such verb, or not in this version.
    UnknownVerb,
    /// A message that cannot be read: too long, or no JSON.
    Malformed,
    /// All places are taken.
    TooManyConnections,
    /// The client did not read what it was sent.
    TooSlow,
    /// The service could not do it in time.
    Timeout,
    /// The service is ending.
    Stopping,
    /// The service failed.
    Failed,
    /// A kind that a newer program knows.
    #[serde(other)]
    Other,
}

/// Why something was not done, in a form for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The kind.
    pub code: ProblemCode,
    /// One sentence.
    pub summary: String,
    /// A command that helps, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

impl Problem {
    /// A problem without a command that helps.
    pub fn new(code: ProblemCode, summary: impl fmt::Display) -> Self {
        Self {
            code,
            summary: summary.to_string(),
            command: None,
        }
    }

    /// Names a command that helps.
    #[must_use]
    pub fn command(mut self, command: impl fmt::Display) -> Self {
        self.command = Some(command.to_string());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary)
    }
}

impl core::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_kind_of_problem_can_be_read() {
        let text = r#"{"code":"out-of-paper","summary":"No paper.","tray":2}"#;
        let problem: Problem = serde_json::from_str(text).unwrap();
        assert_eq!(problem, Problem::new(ProblemCode::Other, "No paper."));
    }

    #[test]
    fn codes_are_stable_names() {
        let problem = Problem::new(ProblemCode::NotPermitted, "No.").command("sudo x");
        let text = serde_json::to_string(&problem).unwrap();
        assert_eq!(
            text,
            r#"{"code":"not-permitted","summary":"No.","command":"sudo x"}"#
        );
    }
}
