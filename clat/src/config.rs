//! What a person decides about the CLAT: command line over configuration file over default.

use std::{
    net::Ipv6Addr,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use clat_core::{
    host_plan::{Identity, UplinkKind},
    mapping::Instance,
    session,
};
use cli::{Exit, Failure, config::Parsed};
use pref64::{Pref64, siit::NonGlobal};
use serde::Deserialize;

/// Where the journal is, unless told otherwise. Emptied by a restart of the machine.
pub(crate) const STATE_DIRECTORY: &str = "/run/openclat/clat";

/// Worse than every metric that network managers give to native routes.
const DEFAULT_METRIC: u32 = 100_000;

/// The journal in a state directory.
pub(crate) fn journal(state_directory: &Path) -> PathBuf {
    state_directory.join("journal.jsonl")
}

/// `clat run`, as it stands on the command line.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Use this IPv6 interface [default: the one with the IPv6 default route]
    #[arg(short, long, value_name = "NAME")]
    interface: Option<String>,

    /// Use this NAT64 prefix instead of asking the network
    #[arg(short, long, value_name = "PREFIX")]
    prefix: Option<Pref64>,

    /// When to run: beside native IPv4 too, or only without it
    #[arg(short, long, value_enum)]
    mode: Option<Mode>,

    /// Use this IPv6 address instead of choosing one on the link
    #[arg(long, value_name = "ADDRESS")]
    address: Option<Ipv6Addr>,

    /// Use this IPv6 address, of a prefix that is routed to this host; forwarding is switched on
    #[arg(long, value_name = "ADDRESS", conflicts_with = "address")]
    routed: Option<Ipv6Addr>,

    /// Name of the virtual interface [default: clat0]
    #[arg(long, value_name = "NAME")]
    tun: Option<String>,

    /// Metric of the IPv4 default route [default: 100000]
    #[arg(long, value_name = "METRIC")]
    metric: Option<u32>,

    /// Fragment packets that may be fragmented above this size in IPv6 [default: 1280]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(1280..))]
    fragment_above: Option<u16>,

    /// Configuration file; its settings give way to those on the command line
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where to keep the journal
    #[arg(long, value_name = "DIRECTORY", default_value = STATE_DIRECTORY)]
    state_dir: PathBuf,
}

/// When the CLAT runs.
#[derive(Clone, Copy, Debug, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// Only without native IPv4
    Auto,
    /// Beside native IPv4 too, which stays the better route
    Always,
}

/// `clat.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    interface: Option<String>,
    prefix: Option<Parsed<Pref64>>,
    mode: Option<Mode>,
    address: Option<Parsed<Ipv6Addr>>,
    routed: Option<Parsed<Ipv6Addr>>,
    tun: Option<String>,
    metric: Option<u32>,
    fragment_above: Option<u16>,
    wkp_non_global: Option<WkpNonGlobal>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WkpNonGlobal {
    Drop,
    Translate,
}

/// What holds.
#[derive(Debug)]
pub(crate) struct Config {
    /// The IPv6 interface, if it was chosen.
    pub(crate) interface: Option<String>,
    /// The prefix, if it was chosen.
    pub(crate) prefix: Option<Pref64>,
    /// For the state machine.
    pub(crate) session: session::Config,
    /// Where the journal is.
    pub(crate) journal: PathBuf,
}

impl Run {
    /// Reads the configuration file, if there is one, and settles what holds.
    ///
    /// # Errors
    /// What is wrong, with its place.
    pub(crate) fn settle(self) -> Result<Config, Failure> {
        let file = match &self.config {
            Some(path) => cli::config::read(path)?,
            None => File::default(),
        };
        let uplink = |routed| match routed {
            true => UplinkKind::Routed,
            false => UplinkKind::Link,
        };
        let address = self.address.or_else(|| file.address.map(|it| it.0));
        let routed = self.routed.or_else(|| file.routed.map(|it| it.0));
        if address.is_some() && routed.is_some() {
            return Err(Failure::new(
                Exit::Usage,
                "both `address` and `routed` are set",
            )
            .hint("keep the one that says where the address lies: on the link, or behind this host"));
        }
        let name = self.tun.or(file.tun).unwrap_or_else(|| "clat0".to_owned());
        check_name(&name)?;
        Ok(Config {
            interface: self.interface.or(file.interface),
            prefix: self.prefix.or_else(|| file.prefix.map(|it| it.0)),
            session: session::Config {
                instance: Instance::FIRST,
                identity: Identity {
                    interface: name,
                    metric: self.metric.or(file.metric).unwrap_or(DEFAULT_METRIC),
                    uplink: uplink(routed.is_some()),
                },
                mode: match self.mode.or(file.mode).unwrap_or(Mode::Auto) {
                    Mode::Auto => session::Mode::Auto,
                    Mode::Always => session::Mode::Always,
                },
                address: address.or(routed),
                fragment_above: fragment_above(self.fragment_above.or(file.fragment_above))?,
                wkp_non_global: match file.wkp_non_global {
                    Some(WkpNonGlobal::Drop) => NonGlobal::Drop,
                    Some(WkpNonGlobal::Translate) | None => NonGlobal::Translate,
                },
                errors: session::ErrorPolicy::default(),
            },
            journal: journal(&self.state_dir),
        })
    }
}

fn fragment_above(bytes: Option<u16>) -> Result<u16, Failure> {
    match bytes {
        None => Ok(1280),
        Some(bytes) if bytes >= 1280 => Ok(bytes),
        Some(bytes) => Err(
            Failure::new(Exit::Usage, format_args!("fragment_above is {bytes}"))
                .hint("every IPv6 link carries 1280 bytes: set it to 1280 or more"),
        ),
    }
}

/// An interface name that the kernel and the firewall take as it is.
fn check_name(name: &str) -> Result<(), Failure> {
    let ordinary = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !name.is_empty() && name.len() < 16 && name.chars().all(ordinary) {
        return Ok(());
    }
    Err(
        Failure::new(Exit::Usage, format_args!("`{name}` is no interface name"))
            .hint("use up to 15 letters, digits, dots, dashes and underscores"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: Run,
    }

    fn settle(line: &str, file: Option<&str>) -> Result<Config, Failure> {
        let mut line: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        line.insert(0, "clat".to_owned());
        let path = std::env::temp_dir().join(format!(
            "openclat-{}-{:?}.toml",
            std::process::id(),
            std::thread::current().id()
        ));
        if let Some(file) = file {
            std::fs::write(&path, file).unwrap();
            line.push(format!("--config={}", path.display()));
        }
        let settled = Line::try_parse_from(line).unwrap().run.settle();
        let _ = std::fs::remove_file(path);
        settled
    }

    #[test]
    fn the_command_line_wins_over_the_file_and_the_file_over_the_default() {
        let config = settle("", None).unwrap();
        assert_eq!(config.session.identity.metric, 100_000);
        assert_eq!(config.session.mode, session::Mode::Auto);
        let file = "metric = 7\nmode = \"always\"\nprefix = \"64:ff9b::/96\"\n\
                    wkp_non_global = \"drop\"";
        let config = settle("--metric 8", Some(file)).unwrap();
        assert_eq!(config.session.identity.metric, 8);
        assert_eq!(config.session.mode, session::Mode::Always);
        assert_eq!(config.prefix, Some(Pref64::WELL_KNOWN));
        assert_eq!(config.session.wkp_non_global, NonGlobal::Drop);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let failure = |line, file| settle(line, file).unwrap_err().to_string();
        assert!(failure("", Some("prefix = \"2001:db8::1/96\"")).contains("did you mean"));
        assert!(failure("", Some("prefx = \"64:ff9b::/96\"")).contains("`prefix`"));
        assert!(failure("", Some("fragment_above = 1000")).contains("1280"));
        assert!(failure("--tun ../../etc", None).contains("no interface name"));
        let both = "address = \"2001:db8::1\"\nrouted = \"2001:db8::2\"";
        assert!(failure("", Some(both)).contains("both `address` and `routed`"));
        assert!(Line::try_parse_from(["clat", "--fragment-above=1279"]).is_err());
        assert!(Line::try_parse_from(["clat", "--prefix=2001:db8::/95"]).is_err());
    }
}
