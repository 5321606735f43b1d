//! `cargo xtask bench`.

use std::process::Command;

use clap::{Args, ValueEnum};

use crate::{
    lab::require_root,
    packages::{BENCH_TOOLS, FIREWALL, install},
    run::{PROGRAMS, Result, build, run},
};

/// Arguments of the benchmarks.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// What to measure
    what: What,
    /// Only measurements whose name contains this
    filter: Option<String>,
    /// Print one JSON object per row
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// The CLAT, beside native IPv6 from the same host
    Clat,
    /// The PLAT, beside the kernel's masquerade, native IPv6 and tayga; and its tables
    Plat,
}

impl Bench {
    /// Builds the programs and measures.
    ///
    /// # Errors
    /// If something could not be measured. A low figure is no error.
    pub(crate) fn run(&self) -> Result {
        require_root("bench")?;
        install(&[&BENCH_TOOLS[..], &[FIREWALL]].concat())?;
        let programs = build(&[&PROGRAMS[..], &["bench"]].concat())?;
        let mut bench = Command::new(programs.join("openclat-bench"));
        bench.env("OPENCLAT_BIN", &programs).arg(match self.what {
            What::Clat => "clat",
            What::Plat => "plat",
        });
        if self.json {
            bench.arg("--json");
        }
        bench.args(&self.filter);
        run(&mut bench)
    }
}
