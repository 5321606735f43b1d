//! Packet captures that are kept when a test fails.

use std::{fs, path::PathBuf, process::Stdio, thread, time::Duration};

use crate::{
    namespace::Namespace,
    process::{Daemon, command},
};

/// Captures everything in a namespace until dropped. The file stays if the test panics.
#[derive(Debug)]
pub struct Capture {
    daemon: Option<Daemon>,
    path: PathBuf,
}

impl Capture {
    /// Starts to capture, if tcpdump is there.
    #[must_use]
    pub fn start(namespace: &Namespace, test: &str) -> Self {
        let directory = std::env::temp_dir().join("openclat-captures");
        let _ = fs::create_dir_all(&directory);
        let path = directory.join(format!("{test}-{}.pcap", namespace.name()));
        let mut tcpdump = command("tcpdump");
        tcpdump
            .args([
                "-i",
                "any",
                "-n",
                "-U",
                "--immediate-mode",
                "-s",
                "256",
                "-c",
                "20000",
                "-w",
            ])
            .arg(&path)
            .stderr(Stdio::null());
        let daemon = Daemon::start(namespace, "tcpdump", tcpdump).ok();
        Self { daemon, path }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.daemon = None;
            let _ = fs::remove_file(&self.path);
            return;
        }
        // The last packets are still on their way to the file.
        thread::sleep(Duration::from_millis(300));
        eprintln!("capture kept: {}", self.path.display());
    }
}
