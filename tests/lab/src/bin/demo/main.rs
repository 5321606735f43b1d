//! `openclat-demo`: an IPv4-only program on an IPv6-only host reaches an IPv4-only server, through
//! our CLAT and our PLAT, in a network in a box.
//!
//! Needs root for nothing but network namespaces: without it, a user namespace does.

use std::{
    env,
    fs::{self, OpenOptions},
    io,
    net::IpAddr,
    panic,
    process::ExitCode,
    time::Duration,
};

use lab::{
    process::Daemon,
    servers::HELLO,
    topology::{Network, Options, PREF64, SERVER, SERVER6, program},
};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{Gid, Uid},
};
use tools::{Said, Tools};
use transcript::{Address, Node, Step, Transcript};

mod tools;
mod transcript;

const DOWNLOAD: u64 = 100_000_000;

/// What was said already, or is being said.
const SOON: Duration = Duration::from_secs(2);

const DRAWING: &str = "
   host ──────────── router ──────────── plat ──────────── isp ──────────── server
     │   IPv6-only     │       IPv6        │     IPv4       │     IPv4        │
   clat run          says in its         plat run           192.0.2.2       198.51.100.10
   an IPv4-only      RAs: NAT64 is       NAT64, pool
   program           2001:db8:64::/96    203.0.113.0/28";

fn main() -> ExitCode {
    let json = match env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--json" => true,
        _ => {
            eprintln!("usage: openclat-demo [--json]");
            return ExitCode::from(2);
        }
    };
    if let Err(why) = require_programs() {
        eprintln!("error: {why}");
        return ExitCode::FAILURE;
    }
    let tools = match prepare() {
        Ok(tools) => tools,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::from(5);
        }
    };
    panic::set_hook(Box::new(|what| {
        let text = what.payload();
        let text = text
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| text.downcast_ref::<&str>().copied());
        eprintln!("error: {}", text.unwrap_or("the demo failed"));
    }));
    let mut transcript = Transcript::new(json);
    let result = Demo::run(&mut transcript, tools);
    transcript.finish(&result);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Sees that the programs are there.
///
/// # Errors
/// What to do about it, if not.
fn require_programs() -> Result<(), String> {
    let mut programs = ["clat", "plat", "pref64"].map(program).into_iter();
    match programs.find(|it| !it.is_file()) {
        None => Ok(()),
        Some(missing) => Err(format!(
            "the programs are not built: there is no {}.\n  what to do: cargo xtask demo",
            missing.display()
        )),
    }
}

/// Sees that network namespaces and TUN devices can be made. Must be called before there is a
/// second thread.
///
/// # Errors
/// What to do about it, if not.
fn prepare() -> Result<Tools, String> {
    let as_root = "run it as root: sudo env \"PATH=$PATH\" cargo xtask demo";
    let is_root = Uid::effective().is_root();
    if !is_root {
        become_root_of_a_user_namespace().map_err(|error| {
            format!("this system gives its users no namespaces ({error}).\n  what to do: {as_root}")
        })?;
    }
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    tun.map_err(|error| {
        if error.kind() == io::ErrorKind::PermissionDenied {
            format!("/dev/net/tun may not be opened ({error}).\n  what to do: {as_root}")
        } else {
            format!("there are no TUN devices ({error}).\n  what to do: modprobe tun")
        }
    })?;
    Ok(if is_root { Tools::find() } else { Tools::Own })
}

fn become_root_of_a_user_namespace() -> io::Result<()> {
    let (user, group) = (Uid::effective(), Gid::effective());
    unshare(CloneFlags::CLONE_NEWUSER)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

/// The programs, and the network they run in: dropped in this order.
struct Demo {
    clat: Daemon,
    plat: Daemon,
    network: Network,
    tools: Tools,
}

impl Demo {
    fn run(transcript: &mut Transcript, tools: Tools) -> Result<(), String> {
        let mut demo = Self::start(transcript, tools)?;
        demo.show_addresses(transcript);
        let passed = demo.use_it(transcript).and_then(|()| demo.end(transcript));
        passed.map_err(|why| {
            format!(
                "{why}\n---- clat ----\n{}\n---- plat ----\n{}",
                demo.clat.output(),
                demo.plat.output()
            )
        })
    }

    /// The network, what it says, and the programs.
    fn start(transcript: &mut Transcript, tools: Tools) -> Result<Self, String> {
        transcript.report.tools = tools.name();
        transcript.chapter("The network, in namespaces of this machine");
        transcript.text(DRAWING);
        transcript.report.network = nodes();
        if tools == Tools::Own {
            transcript.text(
                "\n   curl, ping and traceroute are not used: \"(own)\" marks tools of this demo",
            );
        }
        let options = Options {
            capture: false,
            ..Options::default()
        };
        let network = Network::try_new("demo", &options)
            .map_err(|error| format!("the network could not be built: {error}"))?;

        transcript.chapter("Before: no IPv4");
        let before = tools.get(&network.host, SERVER.into(), "/hello");
        step(
            transcript,
            "without a CLAT there is no way to IPv4",
            Said {
                ok: !before.ok,
                ..before
            },
        )?;

        transcript.chapter("What the network says");
        discover(transcript, &network)?;

        transcript.chapter("PLAT and CLAT");
        let mut plat = network.start_plat();
        let command = format!("plat run   # prefix {PREF64}, pool 203.0.113.0/28");
        let said = started(&command, &mut plat, "running");
        step(transcript, "plat starts", said)?;
        let mut clat = network.start_clat();
        let said = started("clat run", &mut clat, " running: ");
        step(transcript, "clat starts", said)?;
        Ok(Self {
            clat,
            plat,
            network,
            tools,
        })
    }

    fn show_addresses(&self, transcript: &mut Transcript) {
        transcript.chapter("The host's addresses");
        for interface in ["h0", "clat0"] {
            for address in self.network.host.addresses(interface) {
                transcript.text(&format!("  {interface:<6} {address}"));
                let address = address.to_string();
                transcript
                    .report
                    .addresses
                    .push(Address { interface, address });
            }
        }
    }

    /// The main job.
    fn use_it(&self, transcript: &mut Transcript) -> Result<(), String> {
        let (host, tools) = (&self.network.host, self.tools);
        transcript.chapter("With the CLAT: an IPv4-only program reaches an IPv4-only server");
        let page = tools.get(host, SERVER.into(), "/hello");
        let ok = page.ok && page.output == HELLO.trim_end();
        step(transcript, "an IPv4 literal works", Said { ok, ..page })?;
        let who = tools.get(host, SERVER.into(), "/address");
        let from_pool = who.output.starts_with("203.0.113.");
        step(
            transcript,
            "the server sees an address of the PLAT's pool",
            Said {
                ok: who.ok && from_pool,
                ..who
            },
        )?;
        step(transcript, "ping works", tools.ping(host, SERVER))?;
        let (said, hops) = tools.traceroute(host, SERVER);
        transcript.report.hops = hops;
        step(transcript, "traceroute shows every hop", said)?;

        transcript.chapter("100 MB, unharmed");
        let (said, download) = tools.download(host, SERVER, DOWNLOAD);
        transcript.report.download = download;
        step(transcript, "what arrives is what was sent", said)?;

        transcript.chapter("Native IPv6 is as it was");
        step(
            transcript,
            "native IPv6 works beside it",
            tools.get(host, IpAddr::V6(SERVER6), "/hello"),
        )
    }

    /// Ends the programs, and sees that nothing is left.
    fn end(&mut self, transcript: &mut Transcript) -> Result<(), String> {
        transcript.chapter("After: nothing is left");
        let ended = self.clat.stop().success();
        let last = self.clat.wait_for("everything is taken back", SOON);
        let last = last.trim().to_owned();
        let gone = !self.network.host.has_interface("clat0");
        step(
            transcript,
            "clat takes everything back",
            Said {
                command: "kill -TERM $(pidof clat)".to_owned(),
                output: last,
                ok: ended && gone,
            },
        )?;
        let after = self.tools.get(&self.network.host, SERVER.into(), "/hello");
        step(
            transcript,
            "IPv4 is gone again",
            Said {
                ok: !after.ok,
                ..after
            },
        )?;
        if !self.plat.stop().success() {
            return Err("plat did not end well".to_owned());
        }
        transcript.text("\nIt works. The namespaces end with this program.");
        Ok(())
    }
}

fn nodes() -> Vec<Node> {
    let node = |name, what| Node { name, what };
    vec![
        node("host", "IPv6-only, runs clat and an IPv4-only program"),
        node(
            "router",
            "announces 2001:db8:1:1::/64 and the NAT64 prefix 2001:db8:64::/96",
        ),
        node("plat", "runs plat: NAT64 with the pool 203.0.113.0/28"),
        node("isp", "a router of the IPv4 internet, 192.0.2.2"),
        node("server", "IPv4-only web server, 198.51.100.10"),
    ]
}

fn step(transcript: &mut Transcript, title: &'static str, said: Said) -> Result<(), String> {
    let Said {
        command,
        output,
        ok,
    } = said;
    transcript.step(Step {
        title,
        command,
        output,
        ok,
    })
}

/// Runs `pref64` on the host.
fn discover(transcript: &mut Transcript, network: &Network) -> Result<(), String> {
    let pref64 = |arguments: &str| {
        network
            .host
            .sh(&format!("{} {arguments}", program("pref64").display()))
    };
    let ran = pref64("--json");
    let lines = ran.stdout.lines().map(serde_json::from_str);
    transcript.report.discovered = lines
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    let ran = pref64("");
    let ok = ran.ok() && ran.stdout.starts_with(PREF64);
    let output = format!("{}{}", ran.stdout, ran.stderr);
    step(
        transcript,
        "the NAT64 prefix is discovered",
        Said {
            command: "pref64".to_owned(),
            output,
            ok,
        },
    )
}

/// A program that says that it runs, and does.
fn started(command: &str, daemon: &mut Daemon, line: &str) -> Said {
    Said {
        command: command.to_owned(),
        output: daemon.wait_for(line, SOON).trim().to_owned(),
        ok: daemon.is_running(),
    }
}
