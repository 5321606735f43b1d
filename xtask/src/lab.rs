//! `cargo xtask lab`.

use clap::Args;

use crate::{
    packages::{FIREWALL, LAB_TOOLS, USER_TOOLS, install},
    run::{PROGRAMS, Result, build, cargo, is_root, run},
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
    /// If a test fails, or the lab cannot be set up.
    pub(crate) fn run(&self) -> Result {
        require_root("lab")?;
        let programs = build(&PROGRAMS)?;
        let mut test = cargo(&["test", "--package", "lab", "--"]);
        test.args(["--test-threads", THREADS]).args(&self.filter);
        if self.nocapture {
            test.arg("--nocapture");
        }
        run(test.env("OPENCLAT_BIN", programs))
    }
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
