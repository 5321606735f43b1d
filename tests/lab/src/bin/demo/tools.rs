//! What the host's user does: with the system's tools, or with small ones of our own where the
//! system has none.

use std::{
    net::{IpAddr, Ipv4Addr},
    process::{Command, Stdio},
    time::Instant,
};

use lab::{
    namespace::Namespace,
    servers::{self, Pattern, sha256},
    tools::{ping, trace},
    topology::{ISP, SERVER},
};

use super::transcript::{Download, Hop};

/// Farther than any server of the lab.
const MAX_HOPS: u8 = 12;

/// With what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tools {
    /// curl, ping and traceroute.
    System,
    /// Those of this crate.
    Own,
}

/// What a tool said.
pub(crate) struct Said {
    pub(crate) command: String,
    pub(crate) output: String,
    pub(crate) ok: bool,
}

impl Tools {
    /// The system's, if all are there.
    pub(crate) fn find() -> Self {
        let all = ["curl", "ping", "traceroute", "sha256sum"];
        if all.into_iter().all(is_there) {
            Self::System
        } else {
            Self::Own
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Own => "own",
        }
    }

    /// Fetches a web page.
    pub(crate) fn get(self, host: &Namespace, server: IpAddr, path: &'static str) -> Said {
        let url = match server {
            IpAddr::V4(address) => format!("http://{address}{path}"),
            IpAddr::V6(address) => format!("'http://[{address}]{path}'"),
        };
        match self {
            Self::System => run(host, format!("curl -sS --max-time 10 {url}")),
            Self::Own => {
                let got = host.run(move || {
                    let (status, body) = servers::get(server, path)?;
                    let body = std::io::read_to_string(body)?;
                    Ok::<_, std::io::Error>((status, body))
                });
                let (output, ok) = match got {
                    Ok((status, body)) => (body, status == 200),
                    Err(error) => (error.to_string(), false),
                };
                said(format!("(own) get {url}"), output, ok)
            }
        }
    }

    /// Three echo requests.
    pub(crate) fn ping(self, host: &Namespace, target: Ipv4Addr) -> Said {
        if self == Self::System {
            return run(host, format!("ping -n -c 3 -i 0.3 -W 2 {target}"));
        }
        let answers = host.run(move || (1..=3).map(|it| ping(target, it)).collect::<Vec<_>>());
        let line = |answer: &std::io::Result<Option<lab::tools::Answer>>| match answer {
            Ok(Some(answer)) => format!(
                "answer from {} after {:.3} ms",
                answer.from,
                answer.after.as_secs_f64() * 1e3
            ),
            Ok(None) => "no answer".to_owned(),
            Err(error) => error.to_string(),
        };
        let output: Vec<String> = answers.iter().map(line).collect();
        let ok = answers.iter().all(|it| matches!(it, Ok(Some(_))));
        said(format!("(own) ping {target}"), output.join("\n"), ok)
    }

    /// Every hop on the way.
    pub(crate) fn traceroute(self, host: &Namespace, target: Ipv4Addr) -> (Said, Vec<Hop>) {
        let (said, hops) = match self {
            Self::System => {
                let line = format!("traceroute -n -q 1 -w 2 -m {MAX_HOPS} {target}");
                let said = run(host, line);
                let hops = said.output.lines().filter_map(parse_hop).collect();
                (said, hops)
            }
            Self::Own => {
                let hops: Vec<Hop> = host.run(move || own_traceroute(target));
                (
                    said(format!("(own) traceroute {target}"), String::new(), true),
                    hops,
                )
            }
        };
        let arrived = hops.last().and_then(|it| it.address.as_deref());
        let ok = said.ok && arrived == Some(target.to_string().as_str());
        // The hops are shown with names instead.
        let output = hops.iter().map(show_hop).collect::<Vec<_>>().join("\n");
        (Said { output, ok, ..said }, hops)
    }

    /// Downloads what the server makes up, and compares it with what it should be.
    pub(crate) fn download(
        self,
        host: &Namespace,
        server: Ipv4Addr,
        bytes: u64,
    ) -> (Said, Option<Download>) {
        let path = format!("/bytes/{bytes}");
        let start = Instant::now();
        let (command, got) = match self {
            Self::System => {
                let said = run(
                    host,
                    format!("curl -sS --max-time 50 http://{server}{path} | sha256sum"),
                );
                let sum = said.output.split_whitespace().next().unwrap_or_default();
                (said.command.clone(), Ok(sum.to_owned()))
            }
            Self::Own => {
                let command = format!("(own) get http://{server}{path} | (own) sha256sum");
                let fetched = host.run(move || servers::fetch(server.into(), &path));
                (command, fetched.map(|it| it.sha256))
            }
        };
        let seconds = start.elapsed().as_secs_f64();
        let expected = sha256(std::io::Read::take(Pattern::default(), bytes));
        match got.and_then(|sum| Ok((sum, expected?.0))) {
            Ok((sha256, expected)) => {
                let ok = sha256 == expected;
                let output = format!(
                    "received {sha256}\nsent     {expected}\n{} bytes in {seconds:.1} s, {:.0} Mbit/s",
                    bytes,
                    bytes as f64 * 8.0 / seconds / 1e6
                );
                let download = Download {
                    bytes,
                    sha256,
                    expected,
                    seconds,
                };
                (said(command, output, ok), Some(download))
            }
            Err(error) => (said(command, error.to_string(), false), None),
        }
    }
}

/// Whether a program is installed.
fn is_there(program: &str) -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("command -v {program}")]);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|it| it.success())
}

fn run(host: &Namespace, line: String) -> Said {
    let ran = host.sh(&line);
    let ok = ran.ok();
    let output = format!("{}{}", ran.stdout, ran.stderr);
    said(line, output.trim_end().to_owned(), ok)
}

fn said(command: String, output: String, ok: bool) -> Said {
    Said {
        command,
        output: output.trim_end().to_owned(),
        ok,
    }
}

fn own_traceroute(target: Ipv4Addr) -> Vec<Hop> {
    let mut hops = Vec::new();
    for ttl in 1..=MAX_HOPS {
        let answer = trace(target, ttl).ok().flatten();
        hops.push(hop(
            ttl,
            answer.map(|it| it.from.to_string()),
            answer.map(|it| it.after.as_secs_f64() * 1e3),
        ));
        if answer.is_some_and(|it| it.is_target) {
            break;
        }
    }
    hops
}

/// A line like ` 2  192.0.0.8  0.107 ms`, or ` 2  *`.
fn parse_hop(line: &str) -> Option<Hop> {
    let mut words = line.split_whitespace();
    let number = words.next()?.parse().ok()?;
    let address = words.next()?;
    let milliseconds = words.next().and_then(|it| it.parse().ok());
    let address = (address != "*").then(|| address.to_owned());
    Some(hop(number, address, milliseconds))
}

fn hop(hop: u8, address: Option<String>, milliseconds: Option<f64>) -> Hop {
    let who = address.as_deref().map_or("(no answer)", who);
    Hop {
        hop,
        address,
        milliseconds,
        who,
    }
}

fn show_hop(hop: &Hop) -> String {
    format!(
        "{:>2}  {:<15} {:>7.3} ms  {}",
        hop.hop,
        hop.address.as_deref().unwrap_or("*"),
        hop.milliseconds.unwrap_or_default(),
        hop.who
    )
}

/// Who has an address on the way to the server.
fn who(address: &str) -> &'static str {
    if address == SERVER.to_string() {
        "server"
    } else if address == ISP.to_string() {
        "isp, the router of the IPv4 internet"
    } else {
        match address {
            "192.0.0.2" => "the CLAT",
            "192.0.0.8" => "an IPv6 router, which has no IPv4 address to show",
            "192.0.2.1" => "plat",
            _ => "(unknown)",
        }
    }
}
