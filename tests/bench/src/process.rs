//! What a process costs while it is under load: CPU time from /proc, system calls from perf.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, SysconfVar, sysconf},
};

/// The CPU time that a process has used so far.
pub(crate) fn cpu_time(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything, so what counts starts behind the last one.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |at: usize| fields.get(at).and_then(|it| it.parse::<u64>().ok());
    let (user, system) = (ticks(11), ticks(12));
    let total = user.zip(system).map(|(user, system)| user + system);
    let total = total.ok_or_else(|| io::Error::other("unreadable /proc/PID/stat"))?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100) as f64;
    Ok(Duration::from_secs_f64(total as f64 / per_second))
}

/// Counts the system calls of a process.
pub(crate) struct Syscalls {
    perf: Child,
    output: PathBuf,
}

impl Syscalls {
    /// Starts to count; `None` where perf or its tracepoints are not to be had.
    pub(crate) fn count(pid: u32, directory: &Path) -> Option<Self> {
        let output = directory.join(format!("perf-{pid}"));
        let perf = Command::new("perf")
            .args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-o"])
            .arg(&output)
            .args(["-p", &pid.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Some(Self { perf, output })
    }

    /// How many there were.
    pub(crate) fn stop(mut self) -> Option<f64> {
        let pid = Pid::from_raw(i32::try_from(self.perf.id()).ok()?);
        kill(pid, Signal::SIGINT).ok()?;
        self.perf.wait().ok()?;
        let text = fs::read_to_string(&self.output).ok()?;
        let line = text.lines().find(|it| it.contains("raw_syscalls"))?;
        line.split(',').next()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_grows_with_work() {
        let before = cpu_time(std::process::id()).unwrap();
        let mut x = 1u64;
        for n in 0..100_000_000u64 {
            x = std::hint::black_box(x.wrapping_mul(31).wrapping_add(n));
        }
        assert!(cpu_time(std::process::id()).unwrap() > before);
        assert!(cpu_time(u32::MAX).is_err());
    }
}
