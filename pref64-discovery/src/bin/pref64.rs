//! `pref64`: what does this network say about NAT64?

#![forbid(unsafe_code)]

use std::{
    io::{self, Write},
    mem::discriminant,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
use cli::{Exit, Failure, text};
use host::{
    Host, ThisHost,
    clock::Clock,
    dns::Dns,
    netwatch::{Interface, Network, Snapshot},
    ra::RouterAdvertisements,
};
use pref64::{
    dns_query::State,
    tracker::{Entry, IfIndex, Source, Tracker},
};
use pref64_discovery::{Discovery, DnsPolicy};
use serde::Serialize;

/// Other routers may still answer this long after the first: they wait up to half a second
/// (RFC 4861 §6.2.6).
const LINGER: Duration = Duration::from_millis(600);

/// Says which NAT64 prefixes the network announces: one line per prefix.
///
/// Asks the routers on every interface and listens to what they answer (RFC 8781), and asks the
/// resolvers of the interface for ipv4only.arpa (RFC 7050). Changes nothing.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Arguments {
    /// Ask on this interface only
    #[arg(short, long, value_name = "NAME")]
    interface: Option<String>,

    /// How long to wait for an answer, in seconds, 1 to 3600
    #[arg(
        short,
        long,
        value_name = "SECONDS",
        default_value_t = 5,
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    wait: u64,

    /// Whether to ask resolvers
    #[arg(long, value_enum, default_value_t = DnsSwitch::Auto)]
    dns: DnsSwitch,

    /// Print one JSON object per prefix
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DnsSwitch {
    /// Those of each interface
    Auto,
    /// None: only routers are asked
    Off,
}

const AFTER_HELP: &str = "\
A line is `PREFIX interface=NAME source=ra router=ADDRESS lifetime=TIME preference=N`, or, of a
prefix that a resolver synthesises with, `source=dns resolver=ADDRESS`. The prefix of preference 1 is the one that a CLAT on that interface uses; one of preference 0 is
known and not used.

Exit codes: 0 there is a prefix, 1 something failed, 2 wrong command line, 4 the network has no
NAT64, 5 not permitted (it needs root or CAP_NET_RAW), 10 there is no such interface.

Examples:
  pref64                        what do my networks say?
  pref64 -i wlan0 --json        what does this one say, for a program
  pref64 | grep preference=1    the prefixes in use";

/// One line of the answer.
#[derive(Debug, Serialize)]
struct Found {
    prefix: String,
    interface: String,
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    router: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolver: Option<String>,
    /// Seconds until it is over, unless it is refreshed.
    #[serde(skip_serializing_if = "Option::is_none")]
    lifetime: Option<u64>,
    /// 1 is the prefix that a CLAT on this interface uses; 0 is known and not used.
    preference: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::log_to_stderr("warn,hickory_net=error");
    cli::run(run(&arguments))
}

async fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let clock = Clock::start();
    let policy = match arguments.dns {
        DnsSwitch::Auto => DnsPolicy::Always,
        DnsSwitch::Off => DnsPolicy::Off,
    };
    let mut discovery = Discovery::open(&ThisHost, clock, policy).map_err(|error| {
        Failure::io("cannot listen to router advertisements", &error)
            .permission_hint("run it as root, or give it CAP_NET_RAW")
    })?;
    let snapshot = snapshot().await?;
    let interfaces = interfaces(&snapshot, arguments.interface.as_deref())?;
    for interface in &interfaces {
        discovery.solicit(*interface);
    }
    discovery.observe(&snapshot, &interfaces);
    listen(&mut discovery, &interfaces, clock, arguments.wait).await?;
    let found = collect(discovery.tracker(), &snapshot, &interfaces, clock.now());
    if found.is_empty() {
        let routers = interfaces.iter().map(|it| discovery.routers(*it).len());
        let states: Vec<_> = (interfaces.iter())
            .filter_map(|it| discovery.dns(*it))
            .collect();
        eprintln!("{}", nothing_found(routers.sum(), &states, arguments));
        return Ok(Exit::NoNat64);
    }
    let lines: Result<Vec<_>, _> = found.iter().map(|it| line(it, arguments.json)).collect();
    print(&lines?)?;
    Ok(Exit::Ok)
}

/// Whoever reads may have read enough: `pref64 | head -1`.
fn print(lines: &[String]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = lines.iter().try_for_each(|line| writeln!(out, "{line}"));
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::io("cannot write the answer", &error))
        }
        _ => Ok(()),
    }
}

async fn snapshot() -> Result<Snapshot, Failure> {
    let read = async { ThisHost.network()?.snapshot().await };
    read.await
        .map_err(|error| Failure::io("cannot read the network interfaces", &error))
}

/// The interfaces to ask on.
fn interfaces(snapshot: &Snapshot, only: Option<&str>) -> Result<Vec<IfIndex>, Failure> {
    if let Some(name) = only {
        let interface = snapshot
            .by_name(name)
            .ok_or_else(|| no_such_interface(snapshot, name))?;
        if let Some(why) = why_silent(interface) {
            return Err(Failure::error(format_args!("{name} {why}"))
                .hint(format_args!("see `ip address show {name}`")));
        }
        return Ok(vec![interface.index]);
    }
    let links = snapshot.interfaces.iter();
    let usable: Vec<_> = links
        .filter(|it| it.mac.is_some() && why_silent(it).is_none())
        .map(|it| it.index)
        .collect();
    if usable.is_empty() {
        return Err(Failure::error("no interface is connected and has IPv6")
            .hint("connect to a network, or name an interface with --interface"));
    }
    Ok(usable)
}

fn no_such_interface(snapshot: &Snapshot, name: &str) -> Failure {
    let known: Vec<_> = snapshot.interfaces.iter().map(|it| &*it.name).collect();
    Failure::new(
        Exit::NotFound,
        format_args!("there is no interface `{name}`"),
    )
    .hint(format_args!("use one of: {}", known.join(", ")))
}

/// Why no router can be heard on an interface, whatever there is behind it.
fn why_silent(interface: &Interface) -> Option<&'static str> {
    let mut addresses = interface.addresses.iter();
    if !interface.running {
        return Some("is down");
    }
    if !addresses.any(|it| it.address.is_unicast_link_local()) {
        return Some("has no IPv6 address");
    }
    None
}

/// Until every interface has an answer with a prefix, and the other routers have had their chance;
/// or until the time is up.
async fn listen(
    discovery: &mut Discovery<impl RouterAdvertisements, impl Dns>,
    interfaces: &[IfIndex],
    clock: Clock,
    wait: u64,
) -> Result<(), Failure> {
    let mut end = clock.now() + Duration::from_secs(wait);
    let mut complete = false;
    loop {
        let tracker = discovery.tracker();
        if !complete && interfaces.iter().all(|it| !tracker.known(*it).is_empty()) {
            complete = true;
            end = end.min(clock.now() + LINGER);
        }
        match tokio::time::timeout(clock.until(end), discovery.next()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                return Err(Failure::io(
                    "cannot listen to router advertisements",
                    &error,
                ));
            }
            Err(_) => return Ok(()),
        }
    }
}

/// What is known on the interfaces, of each the best first.
fn collect(
    tracker: &Tracker,
    snapshot: &Snapshot,
    interfaces: &[IfIndex],
    now: Instant,
) -> Vec<Found> {
    let mut found = Vec::new();
    for interface in interfaces {
        let name = snapshot
            .by_index(*interface)
            .map_or_else(|| interface.to_string(), |it| it.name.clone());
        let live = tracker.known(*interface).iter();
        let live = live.filter(|entry| entry.expires.is_none_or(|at| at > now));
        let mut here: Vec<_> = live
            .map(|entry| {
                let preference = preference(tracker, *interface, entry, now);
                describe(entry, &name, preference, now)
            })
            .collect();
        here.sort_by_key(|found| match found.preference {
            0 => usize::MAX,
            preference => preference,
        });
        found.append(&mut here);
    }
    found
}

/// The place of a prefix among those in use, from 1; 0 if its source is not used. Routers that
/// announce the same prefix share its place.
fn preference(tracker: &Tracker, interface: IfIndex, entry: &Entry, now: Instant) -> usize {
    let mut usable = tracker.usable(interface, now);
    let place = usable.position(|it| {
        it.prefix == entry.prefix && discriminant(&it.source) == discriminant(&entry.source)
    });
    place.map_or(0, |at| at + 1)
}

fn describe(entry: &Entry, interface: &str, preference: usize, now: Instant) -> Found {
    let (source, router, resolver) = match entry.source {
        Source::Manual => ("manual", None, None),
        Source::Ra { router } => ("ra", Some(router.to_string()), None),
        Source::Dns { resolver } => ("dns", None, Some(resolver.to_string())),
    };
    Found {
        prefix: entry.prefix.to_string(),
        interface: interface.to_owned(),
        source,
        router,
        resolver,
        lifetime: entry
            .expires
            .map(|at| at.saturating_duration_since(now).as_secs()),
        preference,
    }
}

/// One greppable line.
fn line(found: &Found, json: bool) -> Result<String, Failure> {
    if json {
        return cli::json_line("openclat-pref64/1", found);
    }
    let said_by = match &found.resolver {
        Some(resolver) => format!("resolver={resolver}"),
        None => format!("router={}", found.router.as_deref().unwrap_or("-")),
    };
    let lifetime = match found.lifetime {
        Some(seconds) => text::duration(Duration::from_secs(seconds)).replace(' ', ""),
        None => "forever".to_owned(),
    };
    Ok(format!(
        "{} interface={} source={} {said_by} lifetime={lifetime} preference={}",
        found.prefix, found.interface, found.source, found.preference
    ))
}

fn nothing_found(routers: usize, resolvers: &[State], arguments: &Arguments) -> String {
    let place = match &arguments.interface {
        Some(name) => format!("on {name}"),
        None => "on any interface".to_owned(),
    };
    let announced = match routers {
        0 => format!("no router answered within {} s", arguments.wait),
        1 => "its router announces no NAT64 prefix".to_owned(),
        _ => "its routers announce no NAT64 prefix".to_owned(),
    };
    let synthesised = match arguments.dns {
        DnsSwitch::Auto => format!(" and {}", none_synthesised(resolvers)),
        DnsSwitch::Off => String::new(),
    };
    format!("This network has no NAT64 {place}: {announced}{synthesised}.")
}

/// Why DNS gives no prefix. What any resolver says counts for more than that another is silent.
fn none_synthesised(resolvers: &[State]) -> &'static str {
    if resolvers.contains(&State::NotSynthesised) {
        "its resolvers synthesise none"
    } else if resolvers.iter().all(|it| *it == State::NoResolver) {
        "no resolver of it is known"
    } else {
        "none of its resolvers answered"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, error::ErrorKind};
    use host::netwatch::Address;
    use pref64::{Pref64, ra_option::Pref64Option};
    use std::net::Ipv6Addr;
    use wire::ethernet::Mac;

    const ONE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const TWO: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

    fn interface(index: u32, name: &str) -> Interface {
        Interface {
            index,
            name: name.into(),
            running: true,
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            ipv6_mtu: 1500,
            addresses: vec![Address {
                address: ONE,
                prefix_len: 64,
                preferred: true,
            }],
            ipv4: vec![],
        }
    }

    fn snapshot() -> Snapshot {
        let down = Interface {
            running: false,
            ..interface(4, "eth1")
        };
        let without = Interface {
            addresses: vec![],
            ..interface(5, "eth2")
        };
        Snapshot {
            interfaces: vec![interface(3, "eth0"), down, without],
            ..Snapshot::default()
        }
    }

    fn option(prefix: &str, seconds: u64) -> Pref64Option {
        Pref64Option {
            prefix: prefix.parse().unwrap(),
            lifetime: Duration::from_secs(seconds),
        }
    }

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_sound_and_its_mistakes_are_usage_errors() {
        Arguments::command().debug_assert();
        assert_eq!(parse("pref64").unwrap().wait, 5);
        // The last one would overflow a time.
        for line in [
            "pref64 --wait 0",
            "pref64 --wait 3601",
            "pref64 --wait x",
            "pref64 --nonsense",
            "pref64 --dns maybe",
            "pref64 eth0",
            "pref64 --wait 18446744073709551615",
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        let help = parse("pref64 --help").unwrap_err();
        assert_eq!(help.kind(), ErrorKind::DisplayHelp);
        for said in ["Exit codes", "preference", "CAP_NET_RAW", "Examples"] {
            assert!(help.to_string().contains(said), "{said}");
        }
    }

    #[test]
    fn every_prefix_is_one_greppable_line() {
        let now = Instant::now();
        let mut tracker = Tracker::new();
        tracker.ra(3, ONE, &[option("2001:db8:64::/96", 1800)], now);
        tracker.ra(3, TWO, &[option("2001:db8:64::/96", 600)], now);
        tracker.ra(3, TWO, &[option("64:ff9b::/96", 8)], now);
        let ttl = Duration::from_secs(60);
        tracker.dns(3, TWO.into(), &[Pref64::WELL_KNOWN], ttl, now);
        let found = collect(&tracker, &snapshot(), &[3, 4], now);
        let lines: Vec<_> = found.iter().map(|it| line(it, false).unwrap()).collect();
        let head = "2001:db8:64::/96 interface=eth0 source=ra router=";
        assert_eq!(
            lines,
            [
                format!("{head}fe80::1 lifetime=30m preference=1"),
                format!("{head}fe80::2 lifetime=10m preference=1"),
                "64:ff9b::/96 interface=eth0 source=ra router=fe80::2 lifetime=8s preference=2"
                    .to_owned(),
                "64:ff9b::/96 interface=eth0 source=dns resolver=fe80::2 lifetime=1m preference=0"
                    .to_owned(),
            ]
        );
        // What is over is not said, although nobody has taken it out.
        let later = now + Duration::from_secs(8);
        assert_eq!(collect(&tracker, &snapshot(), &[3], later).len(), 3);
        tracker.manual(3, &[Pref64::WELL_KNOWN]);
        let found = collect(&tracker, &snapshot(), &[3], later);
        assert_eq!(
            line(&found[0], false).unwrap(),
            "64:ff9b::/96 interface=eth0 source=manual router=- lifetime=forever preference=1"
        );
    }

    #[test]
    fn json_has_a_schema_and_numbers() {
        let now = Instant::now();
        let mut tracker = Tracker::new();
        tracker.ra(3, ONE, &[option("64:ff9b::/96", 1800)], now);
        tracker.dns(
            3,
            TWO.into(),
            &[Pref64::WELL_KNOWN],
            Duration::from_secs(60),
            now,
        );
        let found = collect(&tracker, &snapshot(), &[3], now);
        assert_eq!(
            line(&found[1], true).unwrap(),
            "{\"interface\":\"eth0\",\"lifetime\":60,\"preference\":0,\
             \"prefix\":\"64:ff9b::/96\",\"resolver\":\"fe80::2\",\
             \"schema\":\"openclat-pref64/1\",\"source\":\"dns\"}"
        );
        assert_eq!(
            line(&found[0], true).unwrap(),
            "{\"interface\":\"eth0\",\"lifetime\":1800,\"preference\":1,\
             \"prefix\":\"64:ff9b::/96\",\"router\":\"fe80::1\",\
             \"schema\":\"openclat-pref64/1\",\"source\":\"ra\"}"
        );
    }

    #[test]
    fn where_no_router_can_be_heard_is_said_at_once() {
        let snapshot = snapshot();
        assert_eq!(interfaces(&snapshot, None), Ok(vec![3]));
        assert_eq!(interfaces(&snapshot, Some("eth0")), Ok(vec![3]));
        let failure = |only| interfaces(&snapshot, Some(only)).unwrap_err().to_string();
        assert!(failure("eth1").starts_with("error: eth1 is down\n"));
        assert!(failure("eth2").starts_with("error: eth2 has no IPv6 address\n"));
        assert_eq!(
            failure("nonexistent"),
            "error: there is no interface `nonexistent`\n  what to do: use one of: eth0, eth1, eth2"
        );
        let failure = interfaces(&Snapshot::default(), None).unwrap_err();
        assert!(failure.to_string().contains("no interface is connected"));
    }

    #[test]
    fn no_nat64_is_one_sentence() {
        let said =
            |routers, states: &[State], line| nothing_found(routers, states, &parse(line).unwrap());
        assert_eq!(
            said(0, &[], "pref64 --interface eth0 --wait 2 --dns off"),
            "This network has no NAT64 on eth0: no router answered within 2 s."
        );
        let silent = [State::Unanswered, State::NoResolver];
        assert_eq!(
            said(1, &silent, "pref64"),
            "This network has no NAT64 on any interface: its router announces no NAT64 prefix and \
             none of its resolvers answered."
        );
        let denied = [State::NoResolver, State::NotSynthesised, State::Unanswered];
        let said_denied = said(2, &denied, "pref64");
        assert!(said_denied.contains("its routers announce"));
        assert!(said_denied.ends_with("and its resolvers synthesise none."));
        assert!(said(1, &[], "pref64").ends_with("and no resolver of it is known."));
    }
}
