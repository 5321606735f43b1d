//! Programs in namespaces: their output is kept, and they end with the test.

use std::{
    ffi::OsStr,
    io::{self, BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{eventually, namespace::Namespace};

/// A command that dies with the thread that starts it, should this process be killed.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A program that runs in the background.
pub struct Daemon {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    /// Starts `command` in a namespace. What it prints is kept.
    ///
    /// # Errors
    /// The system's.
    pub fn start(namespace: &Namespace, name: &str, mut command: Command) -> io::Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = namespace.start(command)?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        if let Some(stdout) = child.stdout.take() {
            collect(stdout, Arc::clone(&lines));
        }
        if let Some(stderr) = child.stderr.take() {
            collect(stderr, Arc::clone(&lines));
        }
        Ok(Self {
            name: name.to_owned(),
            child,
            lines,
        })
    }

    /// Everything it has printed.
    #[must_use]
    pub fn output(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(|it| it.into_inner());
        lines.join("\n")
    }

    /// Forgets what it has printed.
    pub fn clear_output(&self) {
        self.lines
            .lock()
            .unwrap_or_else(|it| it.into_inner())
            .clear();
    }

    /// Waits until it has printed `text`: the first line with it.
    ///
    /// # Panics
    /// If it does not within `timeout`.
    pub fn wait_for(&self, text: &str, timeout: Duration) -> String {
        let mut found = None;
        eventually(timeout, || {
            let output = self.output();
            found = output
                .lines()
                .find(|it| it.contains(text))
                .map(str::to_owned);
            found.is_some()
        });
        let (name, output) = (&self.name, self.output());
        found.unwrap_or_else(|| panic!("{name} did not say `{text}`:\n{output}"))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap_or(0);
        if pid > 0 {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How much memory it has in use, in bytes.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("a running process");
        let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|it| it.split_whitespace().next()?.parse::<u64>().ok());
        kilobytes.expect("a size in kB") * 1024
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end (SIGTERM) and waits for it.
    ///
    /// # Panics
    /// If it does not end within five seconds.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait(Duration::from_secs(5))
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// If it does not within `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> ExitStatus {
        let mut status = None;
        eventually(timeout, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        status.unwrap_or_else(|| panic!("{} did not end:\n{}", self.name, self.output()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("---- {} ----\n{}", self.name, self.output());
        }
    }
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Daemon").field(&self.name).finish()
    }
}

fn collect(from: impl Read + Send + 'static, into: Arc<Mutex<Vec<String>>>) {
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            into.lock().unwrap_or_else(|it| it.into_inner()).push(line);
        }
    });
}

/// What a program printed, and how it ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
}

impl Ran {
    /// Whether it ended with exit code 0.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Namespace {
    /// Runs a shell command line in the namespace to its end.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn sh(&self, line: &str) -> Ran {
        let mut command = command("sh");
        command
            .args(["-c", line])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = self.start(command).expect("sh starts");
        child.wait_with_output().expect("sh ends").into()
    }

    /// Runs a shell command line that must succeed; its standard output.
    ///
    /// # Panics
    /// If it does not.
    pub fn must(&self, line: &str) -> String {
        let ran = self.sh(line);
        assert!(ran.ok(), "in {}: `{line}` failed: {ran:?}", self.name());
        ran.stdout
    }
}
