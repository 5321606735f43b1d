//! `plat config`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use cli::{Exit, Failure, json_line, say};
use host::{Host, netwatch::Network, sockets};
use serde_json::json;

use crate::{admin, client, instance::Instance, pool_mode::on_host};

use super::{
    Loaded,
    capacity::Capacity,
    diff::{diff, diff_running},
    find, import, outside, own, schema,
    settings::toml,
};

/// Look at the configuration, without changing anything
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Say whether the configuration is right, and what it is good for
    Check(Check),
    /// Every value that holds, with those that nobody wrote
    Show(Show),
    /// What another configuration changes, and what that takes
    Diff(Diff),
    /// Make a configuration of another NAT64's; what cannot be taken over is said
    Import(Import),
    /// The JSON schema of the configuration file
    Schema,
}

/// `plat config check`.
#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    file: File,
    /// Do not look at this host's addresses
    #[arg(long)]
    no_host: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// `plat config show`.
#[derive(Debug, Args)]
pub struct Show {
    #[command(flatten)]
    file: File,
    /// Where each value comes from
    #[arg(long)]
    origin: bool,
    /// For programs; always with origins
    #[arg(long)]
    json: bool,
}

/// `plat config diff`.
#[derive(Debug, Args)]
pub struct Diff {
    #[command(flatten)]
    file: File,
    /// The other configuration file. Without one, the running plat is compared with the files: what
    /// `plat reload` would change
    #[arg(value_name = "FILE")]
    other: Option<PathBuf>,
    /// The control socket of the running plat
    #[arg(long, value_name = "FILE", conflicts_with = "other")]
    socket: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// `plat config import`.
#[derive(Debug, Args)]
pub struct Import {
    /// Whose it is
    #[arg(value_enum)]
    from: import::From,
    /// Its file
    file: PathBuf,
}

#[derive(Debug, Args)]
struct File {
    /// Configuration file [default: /etc/openclat/plat.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    instance: Instance,
}

impl File {
    fn load(&self) -> Result<Loaded, Failure> {
        self.instance.load(self.config.as_deref())
    }
}

/// Does what was asked.
///
/// # Errors
/// What is wrong with the configuration, or cannot be read.
pub async fn run(host: &impl Host, verb: &Verb) -> Result<Exit, Failure> {
    match verb {
        Verb::Check(arguments) => check(host, arguments).await,
        Verb::Show(arguments) => show(arguments),
        Verb::Diff(arguments) => compare(arguments).await,
        Verb::Import(arguments) => take_over(arguments),
        Verb::Schema => {
            say(schema::text().trim_end());
            Ok(Exit::Ok)
        }
    }
}

async fn check(host: &impl Host, arguments: &Check) -> Result<Exit, Failure> {
    let loaded = arguments.file.load()?;
    let mut config = loaded.config.clone();
    let mut own = Vec::new();
    if !arguments.no_host {
        let cannot = |error| Failure::io("cannot read the network interfaces", &error);
        let snapshot = host.network().map_err(cannot)?.snapshot().await;
        let snapshot = snapshot.map_err(cannot)?;
        config = on_host(&config, &snapshot, sockets::in_use)?;
        own = own::find(&config, &snapshot);
    }
    let capacity = Capacity::of(&config);
    let wrong = own.iter().any(own::Own::is_wrong);
    let files: Vec<_> = loaded.document.files().collect();
    let own: Vec<_> = own.iter().map(ToString::to_string).collect();
    let file = &arguments.file;
    let conflicts = file.instance.conflicts(file.config.as_deref(), &loaded);
    let wrong = wrong || !conflicts.is_empty();
    let warnings = outside::sentences(&config);
    if arguments.json {
        let answer = json!({"files": files, "capacity": capacity.json(), "own_addresses": own,
            "conflicts": conflicts, "warnings": warnings});
        say(json_line("openclat-plat-config-check/1", &answer)?);
    } else {
        say(if files.is_empty() {
            "nothing is configured: everything is as by default".to_owned()
        } else {
            format!("right: {}", files.join(", "))
        });
        say(capacity);
        for sentence in own.iter().chain(&conflicts) {
            say(sentence);
        }
        for warning in &warnings {
            say(format_args!("warning: {warning}"));
        }
    }
    Ok(if wrong { Exit::Usage } else { Exit::Ok })
}

fn show(arguments: &Show) -> Result<Exit, Failure> {
    let origins = arguments.file.load()?.origins();
    if arguments.json {
        let setting = |(it, origin): &(super::settings::Setting, cli::config::Origin)| json!({"key": it.key, "value": it.value, "origin": origin.to_string()});
        let settings: Vec<_> = origins.iter().map(setting).collect();
        let answer = json!({"settings": settings});
        say(json_line("openclat-plat-config/1", &answer)?);
        return Ok(Exit::Ok);
    }
    for (setting, origin) in &origins {
        let line = format!("{} = {}", setting.key, toml(&setting.value));
        if arguments.origin {
            say(format_args!("{line}  # {origin}"));
        } else {
            say(line);
        }
    }
    Ok(Exit::Ok)
}

async fn compare(arguments: &Diff) -> Result<Exit, Failure> {
    let file = arguments.file.load()?.config;
    let changes = match &arguments.other {
        Some(other) => diff(&file, &named(other)?.config),
        None => {
            let usual = || {
                let state = arguments.file.instance.state_directory(None);
                state.join(admin::SOCKET)
            };
            let socket = arguments.socket.clone().unwrap_or_else(usual);
            diff_running(&client::settings(&socket).await?, &file)
        }
    };
    if arguments.json {
        let changes: Vec<_> = changes.iter().map(super::diff::Change::json).collect();
        let answer = json!({"changes": changes});
        say(json_line("openclat-plat-config-diff/1", &answer)?);
        return Ok(Exit::Ok);
    }
    if changes.is_empty() {
        say("no difference");
    }
    for change in &changes {
        say(change);
    }
    Ok(Exit::Ok)
}

fn take_over(arguments: &Import) -> Result<Exit, Failure> {
    let name = arguments.file.display().to_string();
    let text = std::fs::read_to_string(&arguments.file);
    let text = text.map_err(|error| Failure::io(&name, &error))?;
    let import = import::import(arguments.from, &name, &text)?;
    say(import.toml(&name).trim_end());
    for refused in &import.refused {
        tracing::warn!("{name}: {refused}");
    }
    Ok(if import.refused.is_empty() {
        Exit::Ok
    } else {
        Exit::Error
    })
}

fn named(path: &Path) -> Result<Loaded, Failure> {
    find(Some(path))
}
