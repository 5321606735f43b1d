//! `cargo xtask cross`: lints everything that ships for the systems that this machine does not run.

use std::{fs, path::Path};

use clap::{Args, ValueEnum};

use crate::run::{Result, root, run, target};

mod toolchain;

use toolchain::Toolchain;

/// Arguments of the check for other systems.
#[derive(Debug, Default, Args)]
pub(crate) struct Cross {
    /// Only for this system [default: all of them]
    #[arg(long, value_enum)]
    target: Vec<Target>,
}

/// A system that programs ship for, besides the one that this is developed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// Windows
    #[value(name = "x86_64-pc-windows-gnu")]
    Windows,
    /// macOS
    #[value(name = "aarch64-apple-darwin")]
    MacOs,
}

impl Target {
    fn triple(self) -> &'static str {
        match self {
            Self::Windows => "x86_64-pc-windows-gnu",
            Self::MacOs => "aarch64-apple-darwin",
        }
    }
}

impl Cross {
    /// Makes the toolchain, if it is missing, and lints with it.
    ///
    /// # Errors
    /// If the toolchain cannot be made, or something does not compile without a warning.
    pub(crate) fn run(&self) -> Result {
        let targets = match &self.target[..] {
            [] => Target::value_variants(),
            some => some,
        };
        let toolchain = Toolchain::ready()?;
        for target in targets {
            toolchain.add(*target)?;
        }
        // What the two compilers build for this machine, such as procedural macros, is kept apart.
        let directory = target().join("cross");
        toolchain.claim(&directory)?;
        for target in targets {
            lint(&toolchain, *target, &directory)?;
        }
        Ok(())
    }
}

/// Its tests, too: they must at least compile where they cannot be run.
fn lint(toolchain: &Toolchain, target: Target, directory: &Path) -> Result {
    let mut clippy = toolchain.clippy();
    clippy.args(["--quiet", "--locked", "--all-targets"]);
    clippy.args(["--target", target.triple()]);
    for package in shipped(&root())? {
        clippy.args(["--package", &package]);
    }
    clippy.arg("--target-dir").arg(directory);
    run(clippy.args(["--", "--deny", "warnings"]))
}

/// The crates of the workspace but for its scaffolding. That includes `plat`, which runs on Linux
/// only: it comes to the system by `host` as the others do, and so may compile everywhere.
fn shipped(workspace: &Path) -> Result<Vec<String>> {
    let members = manifest(workspace)?;
    let members = quoted_after(&members, "members = [");
    let products = members.filter(|it| *it != "xtask" && !it.starts_with("tests/"));
    products
        .map(|directory| {
            let manifest = manifest(&workspace.join(directory))?;
            let mut names = quoted_after(&manifest, "name = ");
            let name = names.next().map(str::to_owned);
            name.ok_or_else(|| format!("{directory}/Cargo.toml names no package"))
        })
        .collect()
}

fn manifest(directory: &Path) -> Result<String> {
    let file = directory.join("Cargo.toml");
    fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))
}

/// What stands in quotes between `start` and the next closing bracket, or the end.
fn quoted_after<'a>(manifest: &'a str, start: &str) -> impl Iterator<Item = &'a str> {
    let (_, list) = manifest.split_once(start).unwrap_or_default();
    let list = list.split(']').next().unwrap_or_default();
    list.split('"').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ships_is_linted_and_nothing_else() {
        let shipped = shipped(&root()).unwrap();
        let has = |name: &str| shipped.iter().any(|it| it == name);
        for name in [
            "wire",
            "clat-core",
            "cli",
            "host",
            "pref64-discovery",
            "clat",
            "plat",
        ] {
            assert!(has(name), "{name}");
        }
        assert!(!has("xtask") && !has("lab"), "{shipped:?}");
    }

    #[test]
    fn targets_are_named_as_rustc_names_them() {
        for target in Target::value_variants() {
            let name = target.to_possible_value();
            assert_eq!(name.unwrap().get_name(), target.triple());
        }
    }
}
