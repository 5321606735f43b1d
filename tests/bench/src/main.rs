//! `openclat-bench WHAT [--json]`: measures our programs beside native IPv6 and a peer.
//!
//! All contenders take turns in one run, and the figures are medians of these interleaved rounds: on
//! a shared machine a single figure says nothing.

use std::{env, io, process::ExitCode};

mod clat;
mod load;
mod process;
mod row;

use row::Row;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (what, json) = match &arguments[..] {
        [what] => (what.as_str(), false),
        [what, flag] if flag == "--json" => (what.as_str(), true),
        _ => ("", false),
    };
    let print = |row: Row| print(&row, json);
    let result = match what {
        "clat" => clat::Bench::new().and_then(|bench| bench.run(print)),
        _ => {
            eprintln!("usage: openclat-bench clat [--json]");
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
