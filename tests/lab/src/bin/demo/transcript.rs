//! What the demo shows: to people while it happens, or as data at the end.

use std::io::{self, Write};

use lab::scratch::exit;
use serde::Serialize;

/// Everything that was shown.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) ok: bool,
    /// `system` or `own`.
    pub(crate) tools: &'static str,
    pub(crate) network: Vec<Node>,
    /// What `pref64 --json` printed.
    pub(crate) discovered: Vec<serde_json::Value>,
    /// The host's addresses while the CLAT runs.
    pub(crate) addresses: Vec<Address>,
    pub(crate) steps: Vec<Step>,
    pub(crate) hops: Vec<Hop>,
    pub(crate) download: Option<Download>,
}

/// A machine of the network.
#[derive(Debug, Serialize)]
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
}

#[derive(Debug, Serialize)]
pub(crate) struct Address {
    pub(crate) interface: &'static str,
    pub(crate) address: String,
}

/// Something that was done, and what came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) title: &'static str,
    pub(crate) command: String,
    pub(crate) output: String,
    /// It came as it should.
    pub(crate) ok: bool,
}

/// A line of the traceroute.
#[derive(Debug, Serialize)]
pub(crate) struct Hop {
    pub(crate) hop: u8,
    /// Nobody answered if `None`.
    pub(crate) address: Option<String>,
    pub(crate) milliseconds: Option<f64>,
    pub(crate) who: &'static str,
}

#[derive(Debug, Serialize)]
pub(crate) struct Download {
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    /// What the server sent.
    pub(crate) expected: String,
    pub(crate) seconds: f64,
}

/// Collects the report, and shows it.
pub(crate) struct Transcript {
    pub(crate) report: Report,
    json: bool,
}

impl Transcript {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            report: Report::default(),
            json,
        }
    }

    /// A heading.
    pub(crate) fn chapter(&self, title: &str) {
        self.text(&format!("\n{title}\n{}", "─".repeat(title.chars().count())));
    }

    /// Words for people only.
    pub(crate) fn text(&self, text: &str) {
        if !self.json {
            print(text);
        }
    }

    /// A step, which must have come as it should.
    ///
    /// # Errors
    /// Its title, if it did not.
    pub(crate) fn step(&mut self, step: Step) -> Result<(), String> {
        self.text(&format!("$ {}", step.command));
        for line in step.output.lines() {
            self.text(&format!("  {line}"));
        }
        let result = if step.ok {
            Ok(())
        } else {
            Err(format!("{}: this was not to be expected", step.title))
        };
        self.report.steps.push(step);
        result
    }

    /// The end: all is said, or why it is not.
    pub(crate) fn finish(mut self, result: &Result<(), String>) {
        self.report.ok = result.is_ok();
        if self.json {
            match cli_json(&self.report) {
                Ok(report) => print(&report),
                Err(error) => eprintln!("error: {error}"),
            }
        }
    }
}

/// Prints a line. When nobody reads any more, everything ends as if by SIGPIPE: quietly.
fn print(text: &str) {
    let mut output = io::stdout().lock();
    let Err(error) = writeln!(output, "{text}").and_then(|()| output.flush()) else {
        return;
    };
    if error.kind() == io::ErrorKind::BrokenPipe {
        exit(128 + libc::SIGPIPE);
    }
    eprintln!("error: standard output: {error}");
    exit(1);
}

fn cli_json(report: &Report) -> serde_json::Result<String> {
    let mut value = serde_json::to_value(report)?;
    value["schema"] = "openclat-demo/1".into();
    serde_json::to_string_pretty(&value)
}
