//! What a person decides about the CLAT: command line over configuration file over default.

use std::{
    net::{AddrParseError, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::{Args, ValueEnum};
use clat_core::{
    host_plan::{Identity, UplinkKind},
    mapping::Instance,
    probe, session,
};
use cli::{
    Exit, Failure,
    config::{Document, Parsed},
    text::is_interface_name,
};
use pref64::{Pref64, siit::NonGlobal};
use pref64_discovery::DnsPolicy;
use serde::Deserialize;

/// Where the journal is, unless told otherwise. Emptied by a restart of the machine.
pub(crate) const STATE_DIRECTORY: &str = "/run/openclat/clat";

/// The least that an IPv6 link carries.
const MIN_MTU: u16 = 1280;

/// The journal in a state directory.
pub(crate) fn journal(state_directory: &Path) -> PathBuf {
    state_directory.join("journal.jsonl")
}

const EXAMPLES: &str = "\
Examples:
  clat run                                 all by itself
  clat run --prefix 64:ff9b::/96           where the network announces no prefix
  clat run --interface eth0 --mode always  beside native IPv4, for a test

Runs as root, or as a user with CAP_NET_ADMIN and CAP_NET_RAW who may open /dev/net/tun.";

/// `clat run`, as it stands on the command line.
#[derive(Debug, Default, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Run {
    /// Use this IPv6 interface [default: the one with the IPv6 default route]
    #[arg(short, long, value_name = "NAME")]
    interface: Option<String>,

    /// Use this NAT64 prefix instead of asking the network
    #[arg(short, long, value_name = "PREFIX")]
    prefix: Option<Pref64>,

    /// When to run: only without native IPv4, or beside it too [default: auto]
    #[arg(short, long, value_enum)]
    mode: Option<Mode>,

    /// Whether to ask the link's resolvers for the prefix, when no router announces it
    /// [default: auto]
    #[arg(long, value_enum)]
    dns: Option<Dns>,

    /// Use this IPv6 address instead of choosing one on the link
    #[arg(long, value_name = "ADDRESS")]
    address: Option<OwnAddress>,

    /// Use this IPv6 address, of a prefix that is routed to this host (as by DHCPv6-PD)
    ///
    /// IPv6 forwarding is switched on while it runs.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "address")]
    routed: Option<OwnAddress>,

    /// Name of the virtual interface [default: clat0]
    #[arg(long, value_name = "NAME")]
    tun: Option<TunName>,

    /// Metric of the IPv4 default route; native routes have smaller ones [default: 100000]
    #[arg(long, value_name = "METRIC")]
    metric: Option<Metric>,

    /// Fragment packets that may be fragmented above this size in IPv6 [default: 1280]
    #[arg(long, value_name = "BYTES")]
    fragment_above: Option<FragmentAbove>,

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

/// Whether resolvers are asked (RFC 7050 §6).
#[derive(Clone, Copy, Debug, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Dns {
    /// While no router announces a prefix
    Auto,
    /// Never
    Off,
}

/// `clat.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    interface: Option<String>,
    prefix: Option<Parsed<Pref64>>,
    mode: Option<Mode>,
    dns: Option<Dns>,
    address: Option<Parsed<OwnAddress>>,
    routed: Option<Parsed<OwnAddress>>,
    tun: Option<Parsed<TunName>>,
    metric: Option<Metric>,
    fragment_above: Option<FragmentAbove>,
    probe_targets: Option<Vec<Parsed<ProbeTarget>>>,
    wkp_non_global: Option<WkpNonGlobal>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WkpNonGlobal {
    Drop,
    Translate,
}

/// The name of an interface of ours, which the kernel and the firewall take as it is.
#[derive(Clone, Debug)]
struct TunName(String);

impl FromStr for TunName {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if is_interface_name(name) {
            return Ok(Self(name.to_owned()));
        }
        Err("use up to 15 letters, digits, dots, dashes and underscores, like clat0")
    }
}

/// An address that a host may have and others can answer to.
#[derive(Clone, Copy, Debug)]
struct OwnAddress(Ipv6Addr);

impl FromStr for OwnAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address: Ipv6Addr = text
            .parse()
            .map_err(|error: AddrParseError| error.to_string())?;
        let unfit = address.is_unspecified()
            || address.is_loopback()
            || address.is_multicast()
            || address.is_unicast_link_local()
            || address.to_ipv4_mapped().is_some();
        if unfit {
            return Err("use a unicast address that others on the network can answer to".into());
        }
        Ok(Self(address))
    }
}

/// The metric of a route that every native one is better than.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "u32")]
struct Metric(u32);

impl Metric {
    /// NetworkManager gives up to 1000, and 20 000 more to a connection that it could not verify.
    const LEAST: u32 = 32_768;

    const DEFAULT: Self = Self(100_000);
}

impl TryFrom<u32> for Metric {
    type Error = &'static str;

    fn try_from(metric: u32) -> Result<Self, Self::Error> {
        if metric < Self::LEAST {
            return Err("native IPv4 must have the better metric: set it to 32768 or more");
        }
        Ok(Self(metric))
    }
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let metric: u32 = text
            .parse()
            .map_err(|error: std::num::ParseIntError| error.to_string())?;
        Self::try_from(metric).map_err(str::to_owned)
    }
}

/// Whom to ask whether anything behind the NAT64 answers.
#[derive(Clone, Copy, Debug)]
struct ProbeTarget(Ipv4Addr);

impl FromStr for ProbeTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address: Ipv4Addr = text
            .parse()
            .map_err(|error: AddrParseError| error.to_string())?;
        if !probe::is_possible_target(address) {
            return Err("use the address of a host in the IPv4 internet".into());
        }
        Ok(Self(address))
    }
}

/// See [`session::Config::fragment_above`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "u16")]
struct FragmentAbove(u16);

impl TryFrom<u16> for FragmentAbove {
    type Error = &'static str;

    fn try_from(bytes: u16) -> Result<Self, Self::Error> {
        if bytes < MIN_MTU {
            return Err("every IPv6 link carries 1280 bytes: set it to 1280 or more");
        }
        Ok(Self(bytes))
    }
}

impl FromStr for FragmentAbove {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes: u16 = text
            .parse()
            .map_err(|error: std::num::ParseIntError| error.to_string())?;
        Self::try_from(bytes).map_err(str::to_owned)
    }
}

/// What holds.
#[derive(Debug)]
pub(crate) struct Config {
    /// The IPv6 interface, if it was chosen.
    pub(crate) interface: Option<String>,
    /// The prefix, if it was chosen.
    pub(crate) prefix: Option<Pref64>,
    /// When resolvers are asked for it.
    pub(crate) dns: DnsPolicy,
    /// Whom to ask whether anything behind the NAT64 answers; nobody if there are none.
    pub(crate) probe_targets: Vec<Ipv4Addr>,
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
        self.settle_over(file)
    }

    fn settle_over(self, file: File) -> Result<Config, Failure> {
        let probe_targets = match &file.probe_targets {
            Some(targets) if targets.len() > probe::MAX_TARGETS => {
                return Err(too_many_targets(self.config.as_deref()));
            }
            Some(targets) => targets.iter().map(|it| it.0.0).collect(),
            None => probe::DEFAULT_TARGETS.to_vec(),
        };
        let address = self.address.or_else(|| file.address.map(|it| it.0));
        let routed = self.routed.or_else(|| file.routed.map(|it| it.0));
        if address.is_some() && routed.is_some() {
            return Err(both_addresses(self.config.as_deref()));
        }
        let identity = Identity {
            interface: self
                .tun
                .or_else(|| file.tun.map(|it| it.0))
                .map_or_else(|| "clat0".to_owned(), |it| it.0),
            metric: self.metric.or(file.metric).unwrap_or(Metric::DEFAULT).0,
            uplink: match routed {
                Some(_) => UplinkKind::Routed,
                None => UplinkKind::Link,
            },
        };
        let fragment_above = self.fragment_above.or(file.fragment_above);
        Ok(Config {
            interface: self.interface.or(file.interface),
            prefix: self.prefix.or_else(|| file.prefix.map(|it| it.0)),
            dns: match self.dns.or(file.dns) {
                Some(Dns::Off) => DnsPolicy::Off,
                Some(Dns::Auto) | None => DnsPolicy::Fallback,
            },
            probe_targets,
            session: session::Config {
                instance: Instance::FIRST,
                identity,
                mode: match self.mode.or(file.mode).unwrap_or(Mode::Auto) {
                    Mode::Auto => session::Mode::Auto,
                    Mode::Always => session::Mode::Always,
                },
                address: address.or(routed).map(|it| it.0),
                fragment_above: fragment_above.map_or(MIN_MTU, |it| it.0),
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

/// Whether the text of a file called `name` is a right configuration.
///
/// # Errors
/// What is wrong, with its place.
pub fn check(name: &str, text: &str) -> Result<(), Failure> {
    let file = Document::new(name, text).parse()?;
    let run = Run {
        config: Some(name.into()),
        ..Run::default()
    };
    run.settle_over(file).map(|_| ())
}

fn too_many_targets(file: Option<&Path>) -> Failure {
    Failure::new(
        Exit::Usage,
        format_args!("{}`probe_targets` are too many", place(file)),
    )
    .hint(format_args!("keep {} of them", probe::MAX_TARGETS))
}

fn place(file: Option<&Path>) -> String {
    file.map_or_else(String::new, |it| format!("{}: ", it.display()))
}

fn both_addresses(file: Option<&Path>) -> Failure {
    let place = place(file);
    Failure::new(
        Exit::Usage,
        format_args!("{place}both `address` and `routed` are set"),
    )
    .hint("keep the one that says where the address lies: on the link, or behind this host")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        run: Run,
    }

    pub(crate) fn settle(line: &str, file: Option<&str>) -> Result<Config, Failure> {
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
        let file = "metric = 70000\nmode = \"always\"\nprefix = \"64:ff9b::/96\"\n\
                    wkp_non_global = \"drop\"";
        let config = settle("--metric 80000", Some(file)).unwrap();
        assert_eq!(config.session.identity.metric, 80_000);
        assert_eq!(config.session.mode, session::Mode::Always);
        assert_eq!(config.prefix, Some(Pref64::WELL_KNOWN));
        assert_eq!(config.session.wkp_non_global, NonGlobal::Drop);
    }

    #[test]
    fn disc_7050_3_2_01_the_targets_of_the_probe() {
        let targets = |file| settle("", file).map(|it| it.probe_targets);
        assert_eq!(targets(None).unwrap(), probe::DEFAULT_TARGETS);
        assert!(targets(Some("probe_targets = []")).unwrap().is_empty());
        let one = targets(Some("probe_targets = [\"198.51.100.10\"]"));
        assert_eq!(one.unwrap(), [Ipv4Addr::new(198, 51, 100, 10)]);
        let four = format!("probe_targets = [{}]", "\"198.51.100.10\", ".repeat(4));
        let failure = targets(Some(&four)).unwrap_err().to_string();
        assert!(
            failure.contains("`probe_targets` are too many"),
            "{failure}"
        );
        assert!(failure.contains("keep 3"), "{failure}");
    }

    #[test]
    fn disc_7050_6_01_resolvers_are_asked_unless_switched_off() {
        let dns = |line, file| settle(line, file).unwrap().dns;
        assert_eq!(dns("", None), DnsPolicy::Fallback);
        assert_eq!(dns("--dns off", None), DnsPolicy::Off);
        assert_eq!(dns("", Some("dns = \"off\"")), DnsPolicy::Off);
        assert_eq!(
            dns("--dns auto", Some("dns = \"off\"")),
            DnsPolicy::Fallback
        );
    }

    #[test]
    fn what_is_wrong_in_a_file_is_said_with_its_place() {
        let failure = |file: &str| {
            let file = format!("metric = 70000\n{file}");
            settle("", Some(&file)).unwrap_err().to_string()
        };
        for (file, wanted) in [
            ("prefix = \"2001:db8::1/96\"", "did you mean"),
            ("prefx = \"64:ff9b::/96\"", "`prefix`"),
            ("fragment_above = 1000", "1280 or more"),
            ("fragment_above = \"1500\"", "invalid type"),
            ("tun = \"../../etc\"", "up to 15 letters"),
            ("address = \"fe80::1\"", "unicast address"),
            ("routed = \"2001:db8::g\"", "invalid IPv6 address"),
            ("mode = \"sometimes\"", "`auto` or `always`"),
            ("dns = \"on\"", "`auto` or `off`"),
            (
                "probe_targets = [\"192.0.0.170\"]",
                "host in the IPv4 internet",
            ),
            ("probe_targets = [\"x\"]", "invalid IPv4 address"),
            ("metric = 80000", "duplicate key"),
        ] {
            let said = failure(file);
            assert!(said.contains(".toml:2:"), "{said}");
            assert!(said.contains(wanted), "{said}");
        }
        let both = failure("address = \"2001:db8::1\"\nrouted = \"2001:db8::2\"");
        assert!(
            both.contains(".toml: both `address` and `routed`"),
            "{both}"
        );
    }

    #[test]
    fn what_is_wrong_on_the_command_line_is_said() {
        let said = |option: &str| {
            let error = Line::try_parse_from(["clat", option]).unwrap_err();
            error.to_string()
        };
        assert!(said("--fragment-above=1279").contains("1280 or more"));
        assert!(said("--fragment-above=x").contains("invalid digit"));
        assert!(said("--prefix=2001:db8::/95").contains("--prefix"));
        for name in ["../../etc", "..", "", "sixteen-letters-"] {
            let said = said(&format!("--tun={name}"));
            assert!(said.contains("--tun"), "{name}: {said}");
        }
        for address in ["::", "::1", "ff02::1", "fe80::1", "::ffff:192.0.2.1"] {
            let said = said(&format!("--address={address}"));
            assert!(said.contains("unicast address"), "{address}: {said}");
        }
    }
}
