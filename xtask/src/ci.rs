//! `cargo xtask ci`: everything that must pass before a change lands.

use std::time::Instant;

use clap::Args;

use crate::{
    conformance::Conformance,
    cross::Cross,
    demo::Demo,
    lab::{Lab, require_root},
    run::{Result, cargo, install_tool, run},
};

/// Arguments of the check.
#[derive(Debug, Args)]
pub(crate) struct Ci {
    /// Only what needs no root: no other systems, no lab, no demo
    #[arg(long)]
    without_root: bool,
}

type Step = (&'static str, fn() -> Result);

/// In the order of how fast they fail.
const STEPS: [Step; 6] = [
    ("format", format),
    ("lints", lints),
    ("tests", tests),
    ("documentation", documentation),
    ("dependencies", dependencies),
    ("conformance", || Conformance::all().run()),
];

/// Installs packages: the toolchain for other systems, and what the lab runs. The lab compiles the
/// programs in release mode, the demo uses them.
const STEPS_OF_ROOT: [Step; 3] = [
    ("other systems", || Cross::default().run()),
    ("lab", || Lab::all().run()),
    ("demo", || Demo::default().run()),
];

impl Ci {
    /// Runs every step, and says how long each took.
    ///
    /// # Errors
    /// The first one that failed.
    pub(crate) fn run(&self) -> Result {
        let mut steps = STEPS.to_vec();
        if !self.without_root {
            require_root("ci")?;
            steps.extend(STEPS_OF_ROOT);
        }
        let mut times = Vec::new();
        for (name, step) in steps {
            eprintln!("\n==== {name} ====");
            let start = Instant::now();
            step().map_err(|why| format!("{name}: {why}"))?;
            times.push(format!("{name} {} s", start.elapsed().as_secs()));
        }
        eprintln!("\nall passed: {}", times.join(", "));
        Ok(())
    }
}

fn format() -> Result {
    run(&mut cargo(&["fmt", "--all", "--check"]))
}

fn lints() -> Result {
    let clippy = ["clippy", "--workspace", "--all-targets", "--quiet"];
    run(cargo(&clippy).args(["--", "--deny", "warnings"]))?;
    // Code that the workspace is built without.
    let clippy = ["clippy", "--package", "host", "--quiet"];
    run(cargo(&clippy).args(["--features", "fault-points", "--", "--deny", "warnings"]))
}

fn tests() -> Result {
    run(&mut cargo(&["test"]))
}

fn documentation() -> Result {
    let doc = ["doc", "--workspace", "--no-deps", "--quiet"];
    run(cargo(&doc).env("RUSTDOCFLAGS", "--deny warnings"))
}

/// Licences, sources and banned crates. There is no advisory database to be reached from where
/// this project is built, so advisories are not checked.
fn dependencies() -> Result {
    install_tool("deny", "cargo-deny")?;
    run(&mut cargo(&[
        "deny", "check", "bans", "licenses", "sources",
    ]))
}
