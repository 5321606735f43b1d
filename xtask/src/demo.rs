//! `cargo xtask demo`.

use std::process::Command;

use clap::Args;

use crate::{
    packages::{FIREWALL, USER_TOOLS, install},
    run::{PROGRAMS, Result, build, is_root, run},
};

/// Arguments of the demo.
#[derive(Debug, Default, Args)]
pub(crate) struct Demo {
    /// Print the transcript as JSON
    #[arg(long)]
    json: bool,
}

impl Demo {
    /// Builds what it takes and shows it.
    ///
    /// # Errors
    /// If something did not come as it should.
    pub(crate) fn run(&self) -> Result {
        if is_root() {
            let mut tools = USER_TOOLS.to_vec();
            tools.push(FIREWALL);
            if let Err(why) = install(&tools) {
                eprintln!("note: {why}\nnote: going on with small tools of our own");
            }
        }
        let programs = build(&[&PROGRAMS[..], &["lab"]].concat())?;
        let mut demo = Command::new(programs.join("openclat-demo"));
        demo.env("OPENCLAT_BIN", &programs);
        if self.json {
            demo.arg("--json");
        }
        run(&mut demo)
    }
}
