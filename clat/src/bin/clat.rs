//! The program `clat`; all of it is in the library, so that tests and fuzzers reach its parts.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    clat::main()
}
