//! `openclat-bench WHAT [--json] [FILTER]`: measures our programs beside native IPv6 and a peer.
//!
//! All contenders take turns in one run, and the figures are medians of these interleaved rounds: on
//! a shared machine a single figure says nothing.

use std::{env, io, process::ExitCode};

mod clat;
mod connections;
mod flows;
mod load;
mod plat;
mod process;
mod row;
mod tables;

use row::Row;

const USAGE: &str = "usage: openclat-bench clat|plat [--json] [FILTER]";

fn main() -> ExitCode {
    let (flags, words): (Vec<_>, Vec<_>) = env::args().skip(1).partition(|it| it.starts_with("--"));
    let json = flags == ["--json"];
    let (what, filter) = match &words[..] {
        [what] => (what.as_str(), ""),
        [what, filter] => (what.as_str(), filter.as_str()),
        _ => ("", ""),
    };
    let print = |row: Row| print(&row, json);
    let result = match what {
        "clat" if json || flags.is_empty() => flows::run(filter, print)
            .and_then(|()| clat::Bench::new())
            .and_then(|bench| bench.run(filter, print)),
        "plat" if json || flags.is_empty() => plat::run(filter, print),
        tables::COMMAND if flags.is_empty() => tables::answer(filter),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            eprintln!("error: the benchmark makes network namespaces; run it as root ({error})");
            ExitCode::from(5)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print(row: &Row, json: bool) {
    if json {
        println!("{}", serde_json::to_string(row).unwrap_or_default());
    } else {
        println!("{row}");
    }
}
