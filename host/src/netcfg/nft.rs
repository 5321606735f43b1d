//! Concealment by nftables: a table of our own for ARP and one for IP.
//!
//! The kernel answers ARP for every address it has, on every interface, and delivers packets to it
//! from everywhere. These tables drop ARP about the concealed addresses, packets to them, and
//! packets from them, on all interfaces but the virtual one and loopback.

use std::{io, process::Stdio};

use plan::Concealment;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command};

use super::Made;

/// Where the program may be when it is not on the path of an ordinary user.
const PROGRAMS: [&str; 2] = ["nft", "/usr/sbin/nft"];

pub(crate) async fn conceal(concealment: &Concealment) -> io::Result<Made> {
    run(&ruleset(concealment)).await
}

pub(crate) async fn reveal(concealment: &Concealment) -> io::Result<Made> {
    run(&removal(concealment)).await
}

fn table_name(concealment: &Concealment) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    concealment.name.chars().map(safe).collect()
}

fn ruleset(concealment: &Concealment) -> Value {
    let name = table_name(concealment);
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
    let add_table = |family: &str| json!({"add": {"table": {"family": family, "name": name}}});
    json!({"nftables": [
        add_table("arp"),
        chain("arp", "input", "input"),
        chain("arp", "output", "output"),
        rule("arp", "input", "iifname", "arp", "daddr ip"),
        rule("arp", "output", "oifname", "arp", "saddr ip"),
        add_table("inet"),
        chain("inet", "input", "input"),
        chain("inet", "output", "postrouting"),
        rule("inet", "input", "iifname", "ip", "daddr"),
        rule("inet", "output", "oifname", "ip", "saddr"),
    ]})
}

/// Adding a table before deleting it makes the deletion succeed where there is none.
fn removal(concealment: &Concealment) -> Value {
    let name = table_name(concealment);
    let of =
        |action: &str, family: &str| json!({action: {"table": {"family": family, "name": name}}});
    json!({"nftables": [
        of("add", "arp"), of("delete", "arp"),
        of("add", "inet"), of("delete", "inet"),
    ]})
}

async fn run(commands: &Value) -> io::Result<Made> {
    for program in PROGRAMS {
        let child = Command::new(program)
            .args(["-j", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(commands.to_string().as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        if output.status.success() {
            return Ok(Made::Yes);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("nft: {}", said.trim())));
    }
    Ok(Made::Without(
        "the program nft is missing (package nftables)".to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plan::Prefix;

    #[test]
    fn table_names_are_identifiers() {
        let concealment = Concealment {
            name: "openclat-clat0".into(),
            addresses: Prefix::new("192.0.0.0".parse().unwrap(), 29),
            interface: "clat0".into(),
        };
        assert_eq!(table_name(&concealment), "openclat_clat0");
        let text = ruleset(&concealment).to_string();
        assert!(text.contains(r#""right":{"set":["clat0","lo"]}"#));
    }
}
