//! Concealment by nftables: a table of our own for ARP and one for IP.
//!
//! The kernel answers ARP for every address it has, on every interface, and delivers packets to it
//! from everywhere. These tables drop ARP about the concealed addresses, packets to them, and
//! packets from them, on all interfaces but the virtual one and loopback.
//!
//! Whatever has the tables' name is ours: a transaction replaces it as a whole.

use std::{io, process::Stdio};

use plan::Concealment;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command};

use super::Made;
use crate::{capabilities, fault};

/// Where the program may be when it is not on the path of an ordinary user.
const PROGRAMS: [&str; 2] = ["nft", "/usr/sbin/nft"];

/// The rest can do without: a kernel or a container without nftables still translates.
pub(crate) async fn conceal(concealment: &Concealment) -> io::Result<Made> {
    Ok(match run(Script::Json(&ruleset(concealment))).await? {
        Outcome::Done => Made::Yes,
        Outcome::Refused(why) => Made::Without(why),
        Outcome::NoProgram => {
            Made::Without("the program nft is missing (package nftables)".to_owned())
        }
    })
}

pub(crate) async fn reveal(concealment: &Concealment) -> io::Result<()> {
    match run(Script::Json(&removal(concealment))).await? {
        Outcome::Refused(why) => Err(io::Error::other(why)),
        // Without the program there is nothing that it made.
        Outcome::Done | Outcome::NoProgram => Ok(()),
    }
}

/// An identifier of nft's.
pub(super) fn table_name(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    name.chars().map(safe).collect()
}

fn ruleset(concealment: &Concealment) -> Value {
    let name = table_name(&concealment.name);
    let inside = [concealment.interface.as_str(), "lo"];
    let network = json!({"prefix": {
        "addr": concealment.addresses.address,
        "len": concealment.addresses.length,
    }});
    let is_outside = |key: &str| {
        let left = json!({"meta": {"key": key}});
        json!({"match": {"op": "!=", "left": left, "right": {"set": inside}}})
    };
    let is_concealed = |protocol: &str, field: &str| {
        let left = json!({"payload": {"protocol": protocol, "field": field}});
        json!({"match": {"op": "==", "left": left, "right": network}})
    };
    let drop = json!({"drop": null});
    let rule = |family: &str, chain: &str, key: &str, protocol: &str, field: &str| {
        let expr = [is_outside(key), is_concealed(protocol, field), drop.clone()];
        let rule = json!({"family": family, "table": name, "chain": chain, "expr": expr});
        json!({"add": {"rule": rule}})
    };
    let chain = |family: &str, chain: &str, hook: &str| {
        json!({"add": {"chain": {
            "family": family, "table": name, "name": chain,
            "type": "filter", "hook": hook, "prio": 0, "policy": "accept",
        }}})
    };
    let mut commands = without_tables(&name);
    commands.extend([
        table("add", "arp", &name),
        chain("arp", "input", "input"),
        chain("arp", "output", "output"),
        rule("arp", "input", "iifname", "arp", "daddr ip"),
        rule("arp", "output", "oifname", "arp", "saddr ip"),
        table("add", "inet", &name),
        chain("inet", "input", "input"),
        chain("inet", "output", "postrouting"),
        rule("inet", "input", "iifname", "ip", "daddr"),
        rule("inet", "output", "oifname", "ip", "saddr"),
    ]);
    json!({"nftables": commands})
}

fn removal(concealment: &Concealment) -> Value {
    json!({"nftables": without_tables(&table_name(&concealment.name))})
}

/// Adding a table before deleting it makes the deletion succeed where there is none.
fn without_tables(name: &str) -> Vec<Value> {
    let families = ["arp", "inet"].into_iter();
    families
        .flat_map(|family| ["add", "delete"].map(|action| table(action, family, name)))
        .collect()
}

fn table(action: &str, family: &str, name: &str) -> Value {
    json!({action: {"table": {"family": family, "name": name}}})
}

/// What nft is to do, in one of its languages.
#[derive(Clone, Copy, Debug)]
pub(super) enum Script<'a> {
    Json(&'a Value),
    /// Old versions cannot express everything in JSON, such as the type of a set by an expression.
    Text(&'a str),
}

/// How a run of nft ended. It makes all of its changes or none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Refused(String),
    NoProgram,
}

pub(super) async fn run(script: Script<'_>) -> io::Result<Outcome> {
    for program in PROGRAMS {
        match run_program(program, script).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            ended => return ended,
        }
    }
    Ok(Outcome::NoProgram)
}

/// Deletes a table, named with its family, if there is one.
pub(super) async fn remove(table: &str) -> io::Result<()> {
    // Adding a table before deleting it makes the deletion succeed where there is none.
    let text = format!("table {table}\ndelete table {table}\n");
    match run(Script::Text(&text)).await? {
        Outcome::Refused(why) => Err(io::Error::other(why)),
        // Without the program there is nothing that it made.
        Outcome::Done | Outcome::NoProgram => Ok(()),
    }
}

/// Should this process be killed, a program that it has started must not go on: it would make the
/// change after somebody else has cleaned up.
fn die_with_us(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: between fork and exec only system calls are made; they touch no memory.
    unsafe {
        command.pre_exec(move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // It may have died before.
            match u32::try_from(libc::getppid()) {
                Ok(now) if now == parent => Ok(()),
                _ => Err(io::ErrorKind::BrokenPipe.into()),
            }
        });
    }
}

async fn run_program(program: &str, script: Script<'_>) -> io::Result<Outcome> {
    let (arguments, text) = match script {
        Script::Json(value) => (&["-j", "-f", "-"][..], value.to_string()),
        Script::Text(text) => (&["-f", "-"][..], text.to_owned()),
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    capabilities::pass_on_net_admin(&mut command);
    die_with_us(&mut command);
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends before it has read everything says why on its standard error.
        let _ = stdin.write_all(text.as_bytes()).await;
    }
    fault::point("nft started");
    let output = child.wait_with_output().await?;
    if output.status.success() {
        return Ok(Outcome::Done);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Ok(Outcome::Refused(format!("{program}: {}", said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plan::Prefix;

    fn concealment() -> Concealment {
        Concealment {
            name: "openclat-clat0".into(),
            addresses: Prefix::new("192.0.0.0".parse().unwrap(), 29),
            interface: "clat0".into(),
        }
    }

    /// Otherwise a leftover of a lost journal would have its rules twice.
    #[test]
    fn the_tables_are_replaced_not_added_to() {
        let commands = |value: Value| value["nftables"].as_array().unwrap().clone();
        let (all, removal) = (
            commands(ruleset(&concealment())),
            commands(removal(&concealment())),
        );
        assert_eq!(all[..removal.len()], removal);
        assert_eq!(all.len(), removal.len() + 10);
    }

    #[tokio::test]
    async fn what_nft_says_is_passed_on() {
        let commands = ruleset(&concealment());
        // These programs stand in for it: one takes anything, one reads nothing and fails.
        let commands = Script::Json(&commands);
        let done = run_program("true", commands).await;
        assert_eq!(done.unwrap(), Outcome::Done);
        let refused = run_program("false", commands).await;
        assert_eq!(refused.unwrap(), Outcome::Refused("false: ".to_owned()));
        let missing = run_program("/nonexistent/nft", commands).await;
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn table_names_are_identifiers() {
        let concealment = concealment();
        assert_eq!(table_name(&concealment.name), "openclat_clat0");
        let text = ruleset(&concealment).to_string();
        assert!(text.contains(r#""right":{"set":["clat0","lo"]}"#));
    }
}
