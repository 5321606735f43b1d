//! `plat init`: a configuration for this machine.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    net::Ipv6Addr,
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use cli::{Exit, Failure, config::Document, say};
use host::{
    Host,
    netwatch::{Network as _, Snapshot},
};
use nat64::destinations::Network4;
use pref64::Pref64;

use crate::{
    clients::{self, Clients},
    config::{Config, pool::PoolRange, settled},
    instance::Instance,
};

mod text;

/// The private networks (RFC 1918).
const PRIVATE: [&str; 3] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];

/// How often a person may mistype.
const ATTEMPTS: u32 = 3;

/// `plat init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// What clients are to reach [default: asked for]
    #[arg(long = "for", value_enum, value_name = "WHAT")]
    serves: Option<Serves>,

    /// The NAT64 prefix [default: 64:ff9b::/96 for the internet, else a random /96 of
    /// 64:ff9b:1::/48]
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<Pref64>,

    /// Private networks that clients may reach, with --for private [default: all of RFC 1918]
    #[arg(long, value_name = "NETWORK")]
    allow: Vec<Network4>,

    /// Addresses that clients share [default: ports of this host's own address]
    #[arg(long, value_name = "ADDRESSES")]
    pool: Vec<PoolRange>,

    /// Where to write it [default: /etc/openclat/plat.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    instance: Instance,

    /// Replace a file that is there
    #[arg(long)]
    force: bool,

    /// Print it, write nothing
    #[arg(long)]
    dry_run: bool,
}

/// What clients are to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Serves {
    /// The IPv4 internet
    Internet,
    /// Private IPv4 networks, too
    Private,
}

/// What is written.
struct Answers {
    serves: Serves,
    prefix: Pref64,
    allow: Vec<Network4>,
    pool: Vec<PoolRange>,
    clients: Vec<Clients>,
}

/// Does what was asked.
///
/// # Errors
/// What is missing, what is there already, and the system's.
pub(crate) async fn run(host: &impl Host, init: Init) -> Result<Exit, Failure> {
    let cannot = |error| Failure::io("cannot read the network interfaces", &error);
    let snapshot = host.network().map_err(cannot)?.snapshot().await;
    let snapshot = snapshot.map_err(cannot)?;
    let serves = match init.serves {
        Some(serves) => serves,
        None => ask()?,
    };
    let mut random = [0; 5];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::error(format_args!("no randomness: {error}")))?;
    let answers = answers(&init, serves, &snapshot, random)?;
    let path = init.config.clone();
    let path = path.unwrap_or_else(|| init.instance.file());
    let text = text::file(&answers);
    // What does not pass is not written.
    let name = path.display().to_string();
    settled(Document::new(&name, text.clone()))?;
    if init.dry_run {
        say(text.trim_end());
        return Ok(Exit::Ok);
    }
    write(&path, &text, init.force)?;
    say(format_args!(
        "written: {name}\nlook at it, then: plat config check"
    ));
    Ok(Exit::Ok)
}

fn answers(
    init: &Init,
    serves: Serves,
    snapshot: &Snapshot,
    random: [u8; 5],
) -> Result<Answers, Failure> {
    let prefix = match (init.prefix, serves) {
        (Some(prefix), Serves::Private) if prefix.is_well_known() => {
            let what = "64:ff9b::/96 cannot stand for private addresses (RFC 6052 section 3.1)";
            return Err(Failure::new(Exit::Usage, what)
                .hint("leave --prefix out, or name a /96 of your own"));
        }
        (Some(prefix), Serves::Private | Serves::Internet) => prefix,
        (None, Serves::Internet) => Pref64::WELL_KNOWN,
        (None, Serves::Private) => local_prefix(random)?,
    };
    let allow = match serves {
        Serves::Internet if init.allow.is_empty() => Vec::new(),
        Serves::Internet => {
            let what = "--allow opens private networks, and --for internet does not serve them";
            return Err(Failure::new(Exit::Usage, what).hint("say --for private"));
        }
        Serves::Private if init.allow.is_empty() => {
            PRIVATE.iter().filter_map(|it| it.parse().ok()).collect()
        }
        Serves::Private => init.allow.clone(),
    };
    Ok(Answers {
        serves,
        prefix,
        allow,
        pool: init.pool.clone(),
        clients: clients::networks(&host_as_it_is()?, snapshot),
    })
}

/// A /96 of 64:ff9b:1::/48 (RFC 8215) that probably nobody else has. Bits 64 to 71 stay zero
/// (RFC 6052 §2.2).
fn local_prefix(random: [u8; 5]) -> Result<Pref64, Failure> {
    let [a, b, c, d, e] = random;
    let word = |high, low| u16::from_be_bytes([high, low]);
    let address = Ipv6Addr::new(0x64, 0xff9b, 1, word(a, b), word(0, c), word(d, e), 0, 0);
    Pref64::new(address, 96).map_err(Failure::error)
}

/// Nothing is said: everything is left to the host.
fn host_as_it_is() -> Result<Config, Failure> {
    Ok(settled(Document::empty("nothing"))?.config)
}

/// Asks the person at the terminal.
fn ask() -> Result<Serves, Failure> {
    let missing = || {
        Failure::new(Exit::Usage, "nobody said what clients are to reach")
            .hint("say --for internet, or --for private if private IPv4 networks are served too")
    };
    if !io::stdin().is_terminal() {
        return Err(missing());
    }
    for _ in 0..ATTEMPTS {
        let mut stderr = io::stderr();
        let _ = write!(
            stderr,
            "What are clients to reach?\n  1  the IPv4 internet\n  2  private IPv4 networks, too\n\
             [1] "
        );
        let _ = stderr.flush();
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line);
        if read.map_err(|error| Failure::io("standard input", &error))? == 0 {
            return Err(missing());
        }
        match line.trim() {
            "" | "1" => return Ok(Serves::Internet),
            "2" => return Ok(Serves::Private),
            other => drop(writeln!(stderr, "`{other}` is neither 1 nor 2.")),
        }
    }
    Err(missing())
}

fn write(path: &std::path::Path, text: &str, force: bool) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        let failure = Failure::io(path.display(), &error);
        if error.kind() == io::ErrorKind::AlreadyExists {
            return failure.hint("look at what --dry-run prints, or replace the file with --force");
        }
        failure.permission_hint("run it as root, or see what --dry-run prints")
    };
    if let Some(directory) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let written = options.open(path);
    let written = written.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(failed)
}

#[cfg(test)]
mod tests;
