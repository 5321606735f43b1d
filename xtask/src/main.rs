//! The project's own commands, as `cargo xtask COMMAND`.
//!
//! They set up what they need (Debian packages as root, programs built from this checkout), so that
//! a machine with Rust and git is enough.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod ci;
mod conformance;
mod cross;
mod demo;
mod fuzz;
mod lab;
mod packages;
mod run;

/// The project's own commands
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the main job: an IPv4-only program on an IPv6-only host reaches an IPv4-only server
    Demo(demo::Demo),
    /// Everything that must pass: format, lints, tests, documentation, conformance, other
    /// systems, lab, demo
    Ci(ci::Ci),
    /// Lint everything that ships for Windows and macOS
    Cross(cross::Cross),
    /// Run the lab tests: real programs in network namespaces. Needs root
    Lab(lab::Lab),
    /// Measure CLAT and PLAT beside native IPv6. Needs root
    Bench(bench::Bench),
    /// Feed every parser with what libFuzzer thinks of, for as long as one likes
    Fuzz(fuzz::Fuzz),
    /// List which test shows which rule of the RFCs; fail if a rule has none
    Conformance(conformance::Conformance),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo(demo) => demo.run(),
        Command::Ci(ci) => ci.run(),
        Command::Cross(cross) => cross.run(),
        Command::Lab(lab) => lab.run(),
        Command::Bench(bench) => bench.run(),
        Command::Fuzz(fuzz) => fuzz.run(),
        Command::Conformance(conformance) => conformance.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}
