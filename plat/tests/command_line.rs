//! The program as a whole, as far as it gets without touching the network: exit codes, and what it
//! says.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

fn plat(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plat"));
    command.args(arguments);
    command
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = plat(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// A configuration file of this text, named after its test.
fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    for arguments in [
        &["rnu"][..],
        &["run", "--config"],
        &["run", "--cfg", "x"],
        &[],
    ] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(
            stderr.contains("--help") || stderr.contains("Usage: plat"),
            "{stderr}"
        );
    }
}

#[test]
fn help_tells_how_to_begin() {
    let (code, stdout, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    assert!(
        stdout.contains("Exit codes:") && stdout.contains("cleanup"),
        "{stdout}"
    );
    let (code, stdout, _) = run(&["run", "--help"]);
    assert_eq!(code, Some(0));
    assert!(
        stdout.contains("pool = [") && stdout.contains("SIGUSR1"),
        "{stdout}"
    );
}

#[test]
fn a_missing_file_is_exit_code_10_and_a_wrong_one_2() {
    let (code, _, stderr) = run(&["run", "--config", "/nonexistent/plat.toml"]);
    assert_eq!(code, Some(10), "{stderr}");
    assert!(stderr.contains("what to do: "), "{stderr}");
    let wrong = file("wrong.toml", "pool = [\"203.0.113.1\"]\nprefixs = []\n");
    let wrong = wrong.to_str().unwrap();
    let (code, stdout, stderr) = run(&["run", "--config", wrong]);
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.contains("wrong.toml:2:1: "), "{stderr}");
    assert!(stderr.contains("did you mean `prefixes`?"), "{stderr}");
}

/// With nobody to read what is said, the exit code is still the right one.
#[test]
fn closed_pipes_change_nothing() {
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    let mut missing = plat(&["run", "--config", "/nonexistent/plat.toml"]);
    let status = missing.stderr(closed()).status().unwrap();
    assert_eq!(status.code(), Some(10));
    let state = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("no-journal");
    let mut cleanup = plat(&["cleanup", "--state-dir", state.to_str().unwrap()]);
    let status = cleanup.stdout(closed()).status().unwrap();
    assert_eq!(status.code(), Some(0));
}
