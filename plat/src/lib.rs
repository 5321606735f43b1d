//! `plat`: a stateful NAT64 (RFC 6146), so that IPv6-only hosts reach IPv4.

#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use cli::{Exit, Failure};
use host::{ThisHost, netcfg};

use self::instance::{Instance, Source};

mod admin;
mod client;
mod clients;
pub mod config;
mod decisions;
mod forwarding;
mod host_plan;
mod init;
mod instance;
mod lan;
mod pool_mode;
mod remains;
mod report;
mod run;
mod spare;
#[cfg(test)]
mod test_host;
mod workers;

/// What a program that starts this one wants to know.
const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   error; `plat health`: something does not work
  2   the command line or the configuration is wrong
  3   it took too long
  5   no permission
  8   plat is not running
  10  no such file, or nothing of that kind";

/// The least that has to be known to begin.
const EXAMPLE: &str = "\
Without a configuration it shares ports 61001-65535 of the address that this host has on the
interface with the IPv4 default route, and says what it decided and how to change that.

With addresses that are routed to this host and used by nothing, it is one line:
  pool = [\"192.0.2.16/28\"]
The prefix is then 64:ff9b::/96. With `prefixes = [\"2001:db8:64::/96\"]` it is one of your own, and
`allow_destinations = [\"10.0.0.0/8\"]` opens private networks, which are closed otherwise.";

/// A stateful NAT64: IPv6-only hosts reach IPv4 through it.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run in the foreground until SIGTERM or Ctrl-C
    ///
    /// Prints what the LAN needs besides it, and takes back every change to this host when it ends.
    /// SIGUSR1 prints what was counted so far; SIGHUP is `plat reload`.
    #[command(after_long_help = EXAMPLE)]
    Run(Run),
    /// Write a configuration for this machine
    Init(init::Init),
    /// Look at the configuration, without changing anything
    #[command(subcommand)]
    Config(config::command::Verb),
    /// Take back what a crashed `plat run` left on the host
    Cleanup(Cleanup),
    #[command(flatten)]
    Client(client::Command),
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Configuration file
    ///
    /// Files `*.toml` in the directory of the same name with `.d` lie over it, sorted by name.
    /// [default: /etc/openclat/plat.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    instance: Instance,

    /// Where to keep the journal [default: /run/openclat/plat]
    #[arg(long, value_name = "DIRECTORY")]
    state_dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Cleanup {
    #[command(flatten)]
    instance: Instance,

    /// Where `plat run` kept its journal [default: /run/openclat/plat]
    #[arg(long, value_name = "DIRECTORY")]
    state_dir: Option<PathBuf>,
}

/// Runs the program with the arguments of the command line.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::log_to_stderr("info");
    cli::run(async {
        match arguments.command {
            Command::Run(arguments) => {
                let state = arguments.state_dir.as_deref();
                let state = arguments.instance.state_directory(state);
                let source = Source::new(arguments.instance, arguments.config);
                run::run(&ThisHost, source, &run::journal(&state)).await
            }
            Command::Init(init) => init::run(&ThisHost, init).await,
            Command::Config(verb) => config::command::run(&ThisHost, &verb).await,
            Command::Cleanup(arguments) => clean_up(&arguments).await,
            Command::Client(command) => client::run(command).await,
        }
    })
}

async fn clean_up(arguments: &Cleanup) -> Result<Exit, Failure> {
    let state = arguments.state_dir.as_deref();
    let state = arguments.instance.state_directory(state);
    let left = netcfg::clean_up(&ThisHost, &run::journal(&state)).await;
    let left = left.map_err(|error| run::netcfg_failure(&error))?;
    if left.is_empty() {
        cli::say("nothing to clean up");
    }
    for change in left.iter().rev() {
        cli::say(format_args!("taken back: {}", change.item));
    }
    Ok(Exit::Ok)
}
