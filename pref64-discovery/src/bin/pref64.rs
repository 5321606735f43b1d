//! `pref64`: what does this network say about NAT64?

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use cli::{Exit, Failure, text};
use host::{
    clock::Clock,
    netwatch::{Snapshot, linux::NetWatch},
};
use pref64::tracker::{Entry, IfIndex, Source};
use pref64_discovery::Discovery;
use serde::Serialize;

/// Says which NAT64 prefixes the network announces: one line per prefix.
///
/// Asks the routers on every interface and listens to what they answer. Ends with exit code 4 if
/// the network has no NAT64.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Ask on this interface only
    #[arg(short, long, value_name = "NAME")]
    interface: Option<String>,

    /// How long to wait for an answer, in seconds
    #[arg(short, long, value_name = "SECONDS", default_value_t = 5)]
    wait: u64,

    /// Print one JSON object per prefix
    #[arg(long)]
    json: bool,
}

/// One line of the answer.
#[derive(Debug, Serialize)]
struct Found {
    prefix: String,
    interface: String,
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    router: Option<String>,
    /// Seconds until it is over, unless it is refreshed.
    #[serde(skip_serializing_if = "Option::is_none")]
    lifetime: Option<u64>,
    /// 1 is the prefix that a CLAT on this interface uses; 0 is known and not used.
    preference: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::log_to_stderr("warn");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(&arguments)),
        Err(error) => Err(Failure::io("cannot start", &error)),
    };
    cli::finish(result)
}

async fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let clock = Clock::start();
    let mut discovery = Discovery::open(clock).map_err(|error| {
        Failure::io("cannot listen to router advertisements", &error)
            .hint("run it as root, or give it CAP_NET_RAW")
    })?;
    let snapshot = snapshot().await?;
    let interfaces = interfaces(&snapshot, arguments.interface.as_deref())?;
    for interface in &interfaces {
        discovery.solicit(*interface);
    }
    listen(&mut discovery, &interfaces, clock, arguments.wait).await?;
    let found = collect(&discovery, &snapshot, &interfaces, clock.now());
    if found.is_empty() {
        eprintln!("{}", nothing_found(&discovery, &interfaces, arguments));
        return Ok(Exit::NoNat64);
    }
    for found in &found {
        println!("{}", line(found, arguments.json)?);
    }
    Ok(Exit::Ok)
}

async fn snapshot() -> Result<Snapshot, Failure> {
    let read = async { NetWatch::open()?.snapshot().await };
    read.await
        .map_err(|error| Failure::io("cannot read the network interfaces", &error))
}

/// The interfaces to ask on.
fn interfaces(snapshot: &Snapshot, only: Option<&str>) -> Result<Vec<IfIndex>, Failure> {
    if let Some(name) = only {
        let interface = snapshot.by_name(name).ok_or_else(|| {
            Failure::new(Exit::NotFound, format_args!("there is no interface {name}"))
        })?;
        return Ok(vec![interface.index]);
    }
    let links = snapshot.interfaces.iter();
    Ok(links
        .filter(|it| it.running && it.mac.is_some())
        .map(|it| it.index)
        .collect())
}

/// Until every interface has an answer with a prefix, or the time is up.
async fn listen(
    discovery: &mut Discovery,
    interfaces: &[IfIndex],
    clock: Clock,
    wait: u64,
) -> Result<(), Failure> {
    let end = clock.now() + Duration::from_secs(wait);
    loop {
        let missing = interfaces
            .iter()
            .any(|interface| discovery.tracker().known(*interface).is_empty());
        if !missing {
            return Ok(());
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

fn collect(
    discovery: &Discovery,
    snapshot: &Snapshot,
    interfaces: &[IfIndex],
    now: Instant,
) -> Vec<Found> {
    let mut found = Vec::new();
    for interface in interfaces {
        let name = snapshot
            .by_index(*interface)
            .map_or_else(|| interface.to_string(), |it| it.name.clone());
        let tracker = discovery.tracker();
        let usable: Vec<&Entry> = tracker.usable(*interface, now).collect();
        for entry in tracker.known(*interface) {
            let rank = usable.iter().position(|it| *it == entry);
            found.push(describe(entry, &name, rank.map_or(0, |at| at + 1), now));
        }
    }
    found
}

fn describe(entry: &Entry, interface: &str, preference: usize, now: Instant) -> Found {
    let (source, router) = match entry.source {
        Source::Manual => ("manual", None),
        Source::Ra { router } => ("ra", Some(router.to_string())),
        Source::Dns => ("dns", None),
    };
    Found {
        prefix: entry.prefix.to_string(),
        interface: interface.to_owned(),
        source,
        router,
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
    let router = found.router.as_deref().unwrap_or("-");
    let lifetime = match found.lifetime {
        Some(seconds) => text::duration(Duration::from_secs(seconds)).replace(' ', ""),
        None => "forever".to_owned(),
    };
    Ok(format!(
        "{} interface={} source={} router={router} lifetime={lifetime} preference={}",
        found.prefix, found.interface, found.source, found.preference
    ))
}

fn nothing_found(discovery: &Discovery, interfaces: &[IfIndex], arguments: &Arguments) -> String {
    let place = match &arguments.interface {
        Some(name) => format!("on {name}"),
        None => "on any interface".to_owned(),
    };
    let routers = interfaces
        .iter()
        .map(|it| discovery.routers(*it).len())
        .sum();
    let why = match routers {
        0usize => format!("no router answered within {} s", arguments.wait),
        1 => "its router announces no NAT64 prefix".to_owned(),
        _ => "its routers announce no NAT64 prefix".to_owned(),
    };
    format!("This network has no NAT64 {place}: {why}.")
}
