//! `clat`: IPv4 for programs on a host whose network is IPv6-only (464XLAT, RFC 6877).

#![forbid(unsafe_code)]

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use cli::{Exit, Failure};
use host::{ThisHost, netcfg};

pub mod config;
mod dataplane;
mod link;
mod reachability;
mod report;
mod supervisor;
mod surroundings;

/// IPv4 for programs on a host whose network is IPv6-only.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run in the foreground until SIGTERM or Ctrl-C
    ///
    /// Finds the network's NAT64 prefix, takes an IPv6 address of its own on the link, and gives
    /// programs an IPv4 interface whose packets it translates. Takes everything back when it ends.
    /// SIGUSR1 prints what was counted so far.
    Run(config::Run),
    /// Take back what a crashed `clat run` left on the host
    ///
    /// Prints what that was. `clat run` does the same when it starts. Refuses while a `clat run` is
    /// alive.
    Cleanup(Cleanup),
}

#[derive(Debug, clap::Args)]
struct Cleanup {
    /// Where `clat run` kept its journal
    #[arg(long, value_name = "DIRECTORY", default_value = config::STATE_DIRECTORY)]
    state_dir: PathBuf,
}

/// Runs the program with the arguments of the command line.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::log_to_stderr("info,hickory_net=error");
    cli::run(async {
        match arguments.command {
            Command::Run(run) => supervisor::run(&ThisHost, run.settle()?).await,
            Command::Cleanup(cleanup) => clean_up(&cleanup).await,
        }
    })
}

async fn clean_up(arguments: &Cleanup) -> Result<Exit, Failure> {
    let left = netcfg::clean_up(&ThisHost, &config::journal(&arguments.state_dir)).await;
    let left = left.map_err(|error| supervisor::netcfg_failure(&error))?;
    let mut answer = String::new();
    for change in left.iter().rev() {
        let _ = writeln!(answer, "taken back: {}", change.item);
    }
    if left.is_empty() {
        answer.push_str("nothing to clean up\n");
    }
    // Whoever closes standard output does not want the answer.
    let _ = io::stdout().write_all(answer.as_bytes());
    Ok(Exit::Ok)
}
