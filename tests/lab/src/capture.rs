//! Packet captures that are kept when a test fails.

use std::{io, process::Stdio, thread, time::Duration};

use crate::{
    namespace::Namespace,
    process::{Daemon, command},
    scratch::Scratch,
};

/// Captures what passes a namespace until dropped. If the test panics, the last of it stays: at
/// least 20 MB, in the two files that tcpdump fills in turn.
#[derive(Debug)]
pub struct Capture {
    /// tcpdump, and the directory that it writes to. It ends first.
    running: Option<(Daemon, Scratch)>,
}

impl Capture {
    /// Starts to capture, if tcpdump is there.
    #[must_use]
    pub fn start(namespace: &Namespace, test: &str) -> Self {
        Self {
            running: start(namespace, test).ok(),
        }
    }
}

fn start(namespace: &Namespace, test: &str) -> io::Result<(Daemon, Scratch)> {
    let directory = Scratch::new(&format!("capture-{test}-{}", namespace.name()))?;
    let mut tcpdump = command("tcpdump");
    tcpdump
        .args(["-i", "any", "-n", "-U", "--immediate-mode", "-s", "256"])
        // Another user could not make the second file in our directory.
        .args(["-C", "20", "-W", "2", "-Z", "root", "-w"])
        .arg(directory.path().join("packets.pcap"))
        .stderr(Stdio::null());
    Ok((Daemon::start(namespace, "tcpdump", tcpdump)?, directory))
}

impl Drop for Capture {
    fn drop(&mut self) {
        let Some((daemon, directory)) = self.running.take() else {
            return;
        };
        if thread::panicking() {
            // The last packets are still on their way to the file.
            thread::sleep(Duration::from_millis(300));
            eprintln!("capture kept: {}/", directory.path().display());
            directory.keep();
        }
        drop(daemon);
    }
}
