//! `cargo xtask fuzz`.

use std::{fs, path::PathBuf};

use clap::Args;

use crate::run::{Result, cargo, install_tool, output, root, run, target};

/// Longer inputs are slow, and tell nothing that shorter ones do not.
const LONGEST: u32 = 8192;

/// Arguments of fuzzing.
#[derive(Debug, Args)]
pub(crate) struct Fuzz {
    /// Only this target [default: one after the other]
    target: Option<String>,
    /// How long each target runs
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u32,
    /// Afterwards, add to the committed corpus what reaches code that it does not
    #[arg(long)]
    keep: bool,
}

impl Fuzz {
    /// Runs targets under libFuzzer. What they find on the way stays below `target/fuzz`, and is
    /// where the next run starts from.
    ///
    /// # Errors
    /// If an input fails: it is in the file that libFuzzer names.
    pub(crate) fn run(&self) -> Result {
        install_tool("fuzz", "cargo-fuzz")?;
        let targets = output(&mut cargo(SEEDS))?;
        let chosen: Vec<_> = targets
            .lines()
            .filter(|name| self.target.as_deref().is_none_or(|it| it == *name))
            .collect();
        if chosen.is_empty() {
            let all = targets.lines().collect::<Vec<_>>().join(", ");
            return Err(format!(
                "there is no such target\n  what to do: use one of {all}"
            ));
        }
        for name in chosen {
            let work = Work::new(name)?;
            work.fuzz(self.seconds)?;
            if self.keep {
                work.keep()?;
            }
        }
        Ok(())
    }
}

/// Lists the targets; with a name and a directory, writes the seeds of that one.
const SEEDS: &[&str] = &["run", "--quiet", "--package", "fuzz", "--bin", "fuzz-seeds"];

/// The directories of a target.
struct Work<'a> {
    name: &'a str,
    found: PathBuf,
    seeds: PathBuf,
    committed: PathBuf,
}

impl<'a> Work<'a> {
    fn new(name: &'a str) -> Result<Self> {
        let base = target().join("fuzz").join(name);
        let work = Self {
            name,
            found: base.join("found"),
            seeds: base.join("seeds"),
            committed: root().join("tests/fuzz/corpus").join(name),
        };
        for directory in [&work.found, &work.committed] {
            fs::create_dir_all(directory)
                .map_err(|error| format!("{}: {error}", directory.display()))?;
        }
        run(cargo(SEEDS).arg(name).arg(&work.seeds))?;
        Ok(work)
    }

    /// No sanitizer: there is no unsafe code in what is fuzzed, and without one, stable Rust will do.
    fn cargo_fuzz(&self) -> std::process::Command {
        let mut command = cargo(&["fuzz", "run", "--sanitizer", "none", "--fuzz-dir"]);
        command.arg(root().join("tests/fuzz/libfuzzer"));
        command.arg("--target-dir").arg(target().join("fuzz/build"));
        command.arg(self.name);
        command
    }

    fn fuzz(&self, seconds: u32) -> Result {
        let mut command = self.cargo_fuzz();
        command.args([&self.found, &self.seeds, &self.committed]);
        command.arg("--").arg(format!("-max_total_time={seconds}"));
        command.arg(format!("-max_len={LONGEST}"));
        command.args(["-timeout=10", "-print_final_stats=1"]);
        let failures = self.found.with_file_name("");
        command.arg(format!("-artifact_prefix={}", failures.display()));
        run(&mut command)
    }

    fn keep(&self) -> Result {
        let mut command = self.cargo_fuzz();
        command.args([&self.committed, &self.found, &self.seeds]);
        run(command.args(["--", "-merge=1", "-max_len=2048"]))
    }
}
