//! `cargo xtask lab`.

use std::path::PathBuf;

use clap::Args;

use crate::{
    packages::{FIREWALL, LAB_TOOLS, USER_TOOLS, install},
    run::{PROGRAMS, Result, build, cargo, is_root, output, run, target},
};

/// Tests that run at once. Most of their time they wait.
const THREADS: &str = "4";

/// Arguments of the lab.
#[derive(Debug, Args)]
pub(crate) struct Lab {
    /// Only tests whose name contains this
    filter: Option<String>,
    /// Show what the tests print
    #[arg(long)]
    nocapture: bool,
}

impl Lab {
    /// Every test.
    pub(crate) fn all() -> Self {
        Self {
            filter: None,
            nocapture: false,
        }
    }

    /// Builds the programs and runs the tests.
    ///
    /// # Errors
    /// If a test fails, there is none to run, or the lab cannot be set up.
    pub(crate) fn run(&self) -> Result {
        require_root("lab")?;
        if let Some(filter) = &self.filter {
            require_test(filter)?;
        }
        let programs = build(&PROGRAMS)?;
        let mortal = build_with_fault_points()?;
        let mut test = cargo(&["test", "--package", "lab", "--"]);
        test.args(["--test-threads", THREADS]).args(&self.filter);
        if self.nocapture {
            test.arg("--nocapture");
        }
        test.env("OPENCLAT_BIN", programs);
        run(test.env("OPENCLAT_FAULT_BIN", mortal))
    }
}

/// Builds the programs that kill themselves where a test wants it, in a directory of their own, so
/// that nobody takes them for the others.
fn build_with_fault_points() -> Result<PathBuf> {
    let mut build = cargo(&["build", "--quiet", "--bins", "--profile", "fault-points"]);
    build.args(["--package", "clat", "--features", "clat/fault-points"]);
    build.args(["--package", "plat", "--features", "plat/fault-points"]);
    run(&mut build)?;
    Ok(target().join("fault-points"))
}

/// A filter that leaves nothing would pass.
fn require_test(filter: &str) -> Result {
    let listed =
        output(cargo(&["test", "--quiet", "--package", "lab", "--", "--list"]).arg(filter))?;
    if listed.lines().any(|it| it.ends_with(": test")) {
        return Ok(());
    }
    Err(format!(
        "no test of the lab has `{filter}` in its name\n  \
         what to do: cargo test --package lab -- --list"
    ))
}

/// Sees to it that namespaces can be made, and to the programs that are run in them.
///
/// # Errors
/// Without root, with what to do about it.
pub(crate) fn require_root(command: &str) -> Result {
    if !is_root() {
        return Err(format!(
            "the lab makes network namespaces and TUN devices, which needs root\n  \
             what to do: sudo env \"PATH=$PATH\" cargo xtask {command}"
        ));
    }
    install(&[&USER_TOOLS[..], &LAB_TOOLS, &[FIREWALL]].concat())
}
