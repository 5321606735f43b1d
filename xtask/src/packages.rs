//! Debian packages that a command needs.

use std::{env, process::Command};

use crate::run::{Result, is_root, run};

/// A program, and the package that it comes in.
pub(crate) type Needed = (&'static str, &'static str);

/// What a person would use on a host.
pub(crate) const USER_TOOLS: [Needed; 3] = [
    ("curl", "curl"),
    ("ping", "iputils-ping"),
    ("traceroute", "traceroute"),
];

/// What the benchmarks run besides.
pub(crate) const BENCH_TOOLS: [Needed; 2] = [("perf", "linux-perf"), ("tayga", "tayga")];

/// What hides the CLAT's inner addresses from the link.
pub(crate) const FIREWALL: Needed = ("nft", "nftables");

/// What the lab tests run besides ([`USER_TOOLS`] and [`FIREWALL`]).
pub(crate) const LAB_TOOLS: [Needed; 9] = [
    ("dnsmasq", "dnsmasq-base"),
    ("ethtool", "ethtool"),
    ("ip", "iproute2"),
    ("iperf3", "iperf3"),
    ("named", "bind9"),
    ("sysctl", "procps"),
    ("systemctl", "systemd"),
    ("tayga", "tayga"),
    ("tcpdump", "tcpdump"),
];

/// Installs what is missing.
///
/// # Errors
/// If something is missing and cannot be installed, with what to do about it.
pub(crate) fn install(needed: &[Needed]) -> Result {
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(program, _)| !is_there(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    install_packages(&missing)
}

/// Installs packages that are missing.
///
/// # Errors
/// If they cannot be installed, with what to do about it.
pub(crate) fn install_packages(missing: &[&str]) -> Result {
    let line = format!("apt-get install {}", missing.join(" "));
    if !is_root() {
        return Err(format!(
            "some packages are missing\n  what to do: sudo {line}"
        ));
    }
    if !is_there("apt-get") {
        return Err(format!(
            "some packages are missing, and this is not Debian\n  \
             what to do: install what `{line}` would install there"
        ));
    }
    update()?;
    run(apt_get()
        .args(["install", "-qq", "-y", "--no-install-recommends"])
        .args(missing))
}

/// Reads anew what packages there are.
///
/// # Errors
/// If that cannot be read.
pub(crate) fn update() -> Result {
    run(apt_get().args(["update", "-qq"]))
}

/// The package manager, which asks nothing.
pub(crate) fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Whether a program can be found, where root's programs are too.
pub(crate) fn is_there(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    places
        .map(|place| place.join(program))
        .any(|it| it.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found() {
        assert!(is_there("sh"));
        assert!(!is_there("a-program-that-nobody-has"));
        assert_eq!(install(&[("sh", "dash")]), Ok(()));
    }
}
