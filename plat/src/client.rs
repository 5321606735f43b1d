//! The commands that talk to a running `plat`.

mod arguments;
mod ask;
mod capture;
mod pcapng;
mod show;
mod walk;

use std::{collections::BTreeMap, path::Path, time::Duration};

use cli::{Exit, Failure};
use control::plat::{Answer, Event, Filter, Health, SettingRow, Verb};
use serde::Serialize;
use serde_json::Value;

use crate::admin::Reload;
use arguments::{BibVerb, ClientVerb, PoolEnd, PoolVerb, SessionVerb, Shown, TopArguments, Which};
pub(crate) use arguments::{Command, Service};
use ask::Asking;

/// Carries out a command.
///
/// # Errors
/// What keeps it from being done.
pub(crate) async fn run(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Status(shown) => status(&shown).await,
        Command::Health(shown) => health(&shown).await,
        Command::Session(verb) => session(verb).await,
        Command::Bib(verb) => bib(verb).await,
        Command::Pool(verb) => pool_verb(verb).await,
        Command::Client(ClientVerb::Refused(shown)) => refused(&shown).await,
        Command::Stats { explain, shown } => stats(explain, &shown).await,
        Command::Top(arguments) => top(&arguments).await,
        Command::Capture(arguments) => capture::run(&arguments).await,
        Command::Reload {
            confirm,
            confirm_within,
            service,
        } => {
            let what = if confirm {
                Reload::Confirm
            } else {
                Reload::Read { confirm_within }
            };
            reload(what, &service).await
        }
    }
}

/// The configuration by which a plat runs.
///
/// # Errors
/// What keeps it from being told.
pub(crate) async fn settings(socket: &Path) -> Result<BTreeMap<String, Value>, Failure> {
    let mut service = Asking::connect_to(socket).await?;
    let Answer::Config { settings } = service.ask(Verb::Config).await? else {
        return Err(odd());
    };
    let value = |it: SettingRow| Ok((it.key, serde_json::from_str(&it.json).map_err(|_| odd())?));
    settings.into_iter().map(value).collect()
}

/// Prints one answer.
fn say(
    schema: &str,
    json: bool,
    answer: &impl Serialize,
    people: impl FnOnce() -> String,
) -> Result<(), Failure> {
    let text = if json {
        cli::json_line(schema, answer)?
    } else {
        people()
    };
    cli::say(text.trim_end());
    Ok(())
}

/// An answer of another kind than what was asked for.
fn odd() -> Failure {
    Failure::error("plat answered something else than it was asked")
}

async fn status(shown: &Shown) -> Result<Exit, Failure> {
    let mut service = Asking::connect(&shown.service).await?;
    let Answer::Status(status) = service.ask(Verb::Status).await? else {
        return Err(odd());
    };
    say("openclat-plat-status/1", shown.json, &status, || {
        show::status(&status)
    })?;
    Ok(Exit::Ok)
}

async fn health(shown: &Shown) -> Result<Exit, Failure> {
    let mut service = Asking::connect(&shown.service).await?;
    let Answer::Health(health) = service.ask(Verb::Health).await? else {
        return Err(odd());
    };
    say("openclat-plat-health/1", shown.json, &health, || {
        show::health(&health)
    })?;
    Ok(exit_of(&health))
}

fn exit_of(health: &Health) -> Exit {
    if health.healthy {
        Exit::Ok
    } else {
        Exit::Error
    }
}

async fn session(verb: SessionVerb) -> Result<Exit, Failure> {
    match verb {
        SessionVerb::List { which, list } => walk::sessions(&list, which.filter()).await,
        SessionVerb::Follow { which, shown } => follow(which.filter(), &shown).await,
        SessionVerb::Flush { which, all, shown } => flush(&which, all, &shown).await,
    }
}

async fn flush(which: &Which, all: bool, shown: &Shown) -> Result<Exit, Failure> {
    let filter = which.filter();
    if filter.is_everything() && !all {
        return Err(Failure::new(Exit::Usage, "this would end every session")
            .hint("say which, like --client 2001:db8::1, or --all"));
    }
    change(Verb::SessionFlush { filter }, shown).await
}

/// Asks for a change, and prints what was done.
async fn change(verb: Verb, shown: &Shown) -> Result<Exit, Failure> {
    let mut service = Asking::connect(&shown.service).await?;
    let answer = service.ask(verb).await?;
    let Answer::Done { count, text } = &answer else {
        return Err(odd());
    };
    say(
        "openclat-plat-done/1",
        shown.json,
        &answer,
        || match count {
            Some(count) => format!("{count} {text}"),
            None => text.clone(),
        },
    )?;
    Ok(Exit::Ok)
}

/// Prints what becomes of sessions until Ctrl-C, or until the service ends.
async fn follow(filter: Filter, shown: &Shown) -> Result<Exit, Failure> {
    let mut service = Asking::connect(&shown.service).await?;
    service.ask(Verb::SessionFollow { filter }).await?;
    loop {
        let event: Event = service.event().await?;
        let text = if shown.json {
            cli::json_line("openclat-plat-event/1", &event)?
        } else {
            show::event(&event)
        };
        if !walk::print(&text) {
            return Ok(Exit::Ok);
        }
    }
}

async fn bib(verb: BibVerb) -> Result<Exit, Failure> {
    match verb {
        BibVerb::List { which, list } => walk::bindings(&list, which.filter()).await,
        BibVerb::Add { binding, shown } => change(Verb::BibAdd(binding.into()), &shown).await,
        BibVerb::Remove {
            protocol,
            end,
            shown,
        } => change(Verb::BibRemove { protocol, end }, &shown).await,
    }
}

async fn pool_verb(verb: PoolVerb) -> Result<Exit, Failure> {
    match verb {
        PoolVerb::List(shown) => pool(&shown).await,
        PoolVerb::ClientOf {
            end: PoolEnd { address, port },
            protocol,
            shown,
        } => {
            let verb = Verb::PoolClientOf {
                address,
                port,
                protocol,
            };
            held(verb, &shown).await
        }
        PoolVerb::PortsOf { client, shown } => held(Verb::PoolPortsOf { client }, &shown).await,
    }
}

/// Prints who has something of the pool.
async fn held(verb: Verb, shown: &Shown) -> Result<Exit, Failure> {
    let mut service = Asking::connect(&shown.service).await?;
    let answer = service.ask(verb).await?;
    let Answer::Held { rows, left_off } = &answer else {
        return Err(odd());
    };
    say("openclat-plat-held/1", shown.json, &answer, || {
        show::held(rows, *left_off)
    })?;
    Ok(Exit::Ok)
}

async fn pool(shown: &Shown) -> Result<Exit, Failure> {
    let mut service = Asking::connect(&shown.service).await?;
    let answer = service.ask(Verb::PoolList).await?;
    let Answer::Pool { rows } = &answer else {
        return Err(odd());
    };
    say("openclat-plat-pool/1", shown.json, &answer, || {
        show::pool(rows)
    })?;
    Ok(Exit::Ok)
}

async fn refused(shown: &Shown) -> Result<Exit, Failure> {
    let mut service = Asking::connect(&shown.service).await?;
    let answer = service.ask(Verb::ClientRefused).await?;
    let Answer::Refused { rows } = &answer else {
        return Err(odd());
    };
    say("openclat-plat-refused/1", shown.json, &answer, || {
        show::refused(rows)
    })?;
    Ok(Exit::Ok)
}

async fn stats(explain: bool, shown: &Shown) -> Result<Exit, Failure> {
    let mut service = Asking::connect(&shown.service).await?;
    let answer = service.ask(Verb::Stats).await?;
    let Answer::Stats { rows } = &answer else {
        return Err(odd());
    };
    say("openclat-plat-stats/1", shown.json, &answer, || {
        show::stats(rows, explain)
    })?;
    Ok(Exit::Ok)
}

async fn top(arguments: &TopArguments) -> Result<Exit, Failure> {
    let shown = &arguments.shown;
    let mut service = Asking::connect(&shown.service).await?;
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
    let once = arguments.once || shown.json || !terminal;
    loop {
        let verb = Verb::Top {
            by: arguments.by,
            limit: Some(arguments.limit),
        };
        let answer = service.ask(verb).await?;
        let Answer::Clients { rows } = &answer else {
            return Err(odd());
        };
        if !once {
            // To the top left corner, and everything below is gone.
            cli::say("\x1b[H\x1b[2J");
        }
        say("openclat-plat-top/1", shown.json, &answer, || {
            show::clients(rows)
        })?;
        if once {
            return Ok(Exit::Ok);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

async fn reload(what: Reload, service: &Service) -> Result<Exit, Failure> {
    let verb = match what {
        Reload::Read { confirm_within } => Verb::Reload { confirm_within },
        Reload::Confirm => Verb::ReloadConfirm,
    };
    let shown = Shown {
        json: false,
        service: service.clone(),
    };
    change(verb, &shown).await
}
