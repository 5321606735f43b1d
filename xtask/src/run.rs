//! Runs other programs, and says which.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

use nix::unistd::Uid;

/// What went wrong, for people.
pub(crate) type Result<T = ()> = std::result::Result<T, String>;

/// The workspace.
pub(crate) fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(PathBuf::from).unwrap_or(manifest)
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Whether this process may do everything.
pub(crate) fn is_root() -> bool {
    Uid::effective().is_root()
}

/// A command of this workspace's cargo.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command
}

/// Runs a command to its end.
///
/// # Errors
/// If it cannot be started, or does not end well.
pub(crate) fn run(command: &mut Command) -> Result {
    eprintln!("$ {}", shown(command));
    let status = command
        .status()
        .map_err(|error| format!("{}: {error}", shown(command)))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{}: {status}", shown(command)))
    }
}

/// Runs a command to its end: what it prints to its standard output.
///
/// # Errors
/// If it cannot be started, or does not end well.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    eprintln!("$ {}", shown(command));
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("{}: {error}", shown(command)))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{}: {}", shown(command), output.status))
    }
}

/// Installs the package that `cargo SUBCOMMAND` comes in, if it is missing.
///
/// # Errors
/// If it cannot be installed.
pub(crate) fn install_tool(subcommand: &str, package: &str) -> Result {
    let version = cargo(&[subcommand, "--version"]).output();
    if version.is_ok_and(|it| it.status.success()) {
        return Ok(());
    }
    run(&mut cargo(&["install", package, "--locked", "--quiet"]))
}

/// Builds programs in release mode and returns the directory they are in.
///
/// # Errors
/// If they do not compile.
pub(crate) fn build(packages: &[&str]) -> Result<PathBuf> {
    let mut build = cargo(&["build", "--release", "--quiet", "--bins"]);
    for package in packages {
        build.args(["--package", package]);
    }
    run(&mut build)?;
    Ok(target().join("release"))
}

/// The packages with the programs that the lab starts.
pub(crate) const PROGRAMS: [&str; 3] = ["clat", "plat", "pref64-discovery"];

fn shown(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let arguments = command.get_args().map(|it| it.to_string_lossy());
    let words: Vec<_> = std::iter::once(name).chain(arguments).collect();
    words.join(" ")
}
