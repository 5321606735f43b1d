//! What a PLAT that works tells by itself: metrics, and the event log. And long lists, while it
//! works.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead, BufReader},
    net::Ipv6Addr,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use lab::{
    eventually,
    namespace::Namespace,
    openmetrics::Scrape,
    process::{Daemon, Ran, command},
    servers::ECHO_PORT,
    topology::{Network, Options, SERVER_BY_PREFIX, program},
};
use serde_json::Value;

use super::flows::{Flow, Udp, listen_silently, open_flows};

const SOON: Duration = Duration::from_secs(10);
const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 0xc1);
/// Who opens many flows: the only host of its network.
const BUSY: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0x8000, 0, 0, 0, 1);
/// Nothing of what is told may say where anybody went.
const DESTINATION: &str = "198.51.100";

fn echo_server() -> std::net::SocketAddr {
    (SERVER_BY_PREFIX, ECHO_PORT).into()
}

fn network(name: &str) -> Network {
    let options = Options {
        capture: false,
        ..Options::default()
    };
    let network = Network::new(name, &options);
    network.add_lost_clients("2001:db8:1:8000::/64");
    network.host.add_address("h0", &format!("{CLIENT}/64"));
    network.await_address();
    network
}

/// Waits until a client is served, by one flow of that client.
fn served(host: &Namespace) {
    let echoes = || host.run(|| Udp::new(CLIENT, echo_server()).is_some_and(|it| it.echoes(0)));
    assert!(eventually(SOON, echoes));
}

/// New flows of UDP, one after another, each with an answer.
fn echo(host: &Namespace, flows: u64) {
    host.run(move || {
        let all: Vec<_> = (0..flows)
            .map(|it| {
                let socket = Udp::new(CLIENT, echo_server()).unwrap();
                assert!((0..5).any(|_| socket.echoes(it)), "{it}");
                socket
            })
            .collect();
        // Held until here, so that each has a port of its own.
        drop(all);
    });
}

/// Scrapes the metrics, and sees that they are what Prometheus can read.
pub(crate) fn scrape(plat: &Namespace, port: u16) -> Scrape {
    let got = plat.must(&format!(
        "curl -sS -m 5 -w '%{{content_type}}' http://127.0.0.1:{port}/metrics"
    ));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = got.strip_suffix(kind);
    let text = text.unwrap_or_else(|| panic!("another type: {got}"));
    assert!(!text.contains(DESTINATION), "{text}");
    Scrape::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn metrics_grow_with_traffic() {
    let network = network("metrics");
    let mut plat = network.start_plat_with("[metrics]\nlisten = \"127.0.0.1:9464\"\n");
    served(&network.host);
    let before = scrape(&network.plat, 9464);
    assert_eq!(before.values("instance"), ["default".to_owned()].into());
    echo(&network.host, 50);
    let refused = format!("ping -6 -n -c 3 -i 0.2 -W 1 {}", "2001:db8:64::10.0.0.1");
    assert!(!network.host.sh(&refused).ok());
    let after = scrape(&network.plat, 9464);
    assert_eq!(after.shrunk_since(&before), [""; 0]);
    let grown = |name: &str, labels: &[(&str, &str)]| {
        let name = format!("openclat_plat_{name}");
        after.sum(&name, labels) - before.sum(&name, labels)
    };
    let udp = [("protocol", "udp")];
    assert_eq!(grown("sessions", &udp), 50);
    assert_eq!(grown("bindings", &udp), 50);
    assert_eq!(grown("sessions_made_total", &udp), 50);
    assert_eq!(grown("pool_ports_used", &udp), 50);
    for direction in ["from-v6", "from-v4"] {
        let labels = [("direction", direction)];
        let translated = grown("translated_packets_total", &labels);
        assert!((50..100).contains(&translated), "{direction}: {translated}");
        assert!(grown("packets_total", &labels) >= translated);
        // A header of 20 bytes or more, of UDP, and eight bytes.
        assert!(grown("bytes_total", &labels) >= 36 * translated);
    }
    let reason = [("direction", "from-v6"), ("reason", "destination-refused")];
    assert_eq!(grown("dropped_packets_total", &reason), 3);
    let healthy = after.sum("openclat_plat_healthy", &[("check", "workers")]);
    assert_eq!(healthy, 1, "{after:?}");
    // Nothing else is there, and not on other addresses.
    for wrong in ["127.0.0.1:9464/", "192.0.2.1:9464/metrics"] {
        let got = network.plat.sh(&format!("curl -sfS -m 2 http://{wrong}"));
        assert!(!got.ok(), "{wrong}: {got:?}");
    }
    assert!(plat.stop().success());
}

/// What stands in a log and in those that it was before.
fn events(file: &Path) -> Vec<Value> {
    let numbered = |number: u32| PathBuf::from(format!("{}.{number}", file.display()));
    let old = (1..1000).map(numbered).take_while(|it| it.exists());
    let mut files: Vec<_> = old.collect();
    files.reverse();
    files.push(file.to_owned());
    let mut events = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{text}");
        let parsed = text.lines().map(|line| {
            let parsed = serde_json::from_str(line);
            parsed.unwrap_or_else(|error| panic!("{}: {error}: {line}", file.display()))
        });
        events.extend(parsed);
    }
    events
}

fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|it| it["name"] == name).collect()
}

#[test]
fn the_event_log_is_rotated_by_its_size_and_says_no_destinations() {
    const FLOWS: u64 = 200;
    const FULL: u64 = 8192;
    let network = network("event-log");
    let file = network.path("events/plat.log");
    let all = format!("[log]\nfile = \"{}\"\nmax_bytes = {FULL}\n", file.display());
    let mut plat = network.start_plat_with(&format!("{all}keep = 500\n"));
    served(&network.host);
    echo(&network.host, FLOWS);
    assert!(plat.stop().success());
    let written = events(&file);
    assert_eq!(written[0]["name"], "started");
    assert_eq!(written.last().unwrap()["name"], "stopped");
    let made = named(&written, "NAT64 BIB create");
    let clients: BTreeSet<_> = made
        .iter()
        .map(|it| it["client_port"].to_string())
        .collect();
    let pool: BTreeSet<_> = made
        .iter()
        .map(|it| format!("{} {}", it["pool"], it["pool_port"]))
        .collect();
    // Every binding once, in whatever file; the first flow may have taken several.
    assert!(made.len() > FLOWS as usize, "{}", made.len());
    assert_eq!((clients.len(), pool.len()), (made.len(), made.len()));
    let times: Vec<_> = written.iter().map(|it| it["time"].to_string()).collect();
    assert!(times.is_sorted());
    let sizes = |keep: u32| {
        let numbered = (1..=keep).map(|it| PathBuf::from(format!("{}.{it}", file.display())));
        numbered
            .map_while(|it| Some(fs::metadata(it).ok()?.len()))
            .collect::<Vec<_>>()
    };
    let old = sizes(500);
    assert!(old.len() >= 3, "{old:?}");
    assert!(
        old.iter().all(|it| (FULL / 2..=FULL).contains(it)),
        "{old:?}"
    );
    assert!(!format!("{written:?}").contains(DESTINATION));
    assert!(named(&written, "NAT64 session create").is_empty());

    // The oldest are removed.
    fs::remove_dir_all(file.parent().unwrap()).unwrap();
    let mut plat = network.start_plat_with(&format!("{all}keep = 2\n"));
    served(&network.host);
    echo(&network.host, FLOWS);
    assert!(plat.stop().success());
    assert_eq!(sizes(500).len(), 2);
    let kept = events(&file);
    assert!(named(&kept, "started").is_empty());
    assert_eq!(kept.last().unwrap()["name"], "stopped");

    // Only who asks for them gets destinations, and then in place of bindings.
    fs::remove_dir_all(file.parent().unwrap()).unwrap();
    let mut plat = network.start_plat_with(&format!("{all}keep = 500\ndestinations = true\n"));
    served(&network.host);
    echo(&network.host, 10);
    assert!(plat.stop().success());
    let written = events(&file);
    let made = named(&written, "NAT64 session create");
    assert!(made.len() > 10, "{written:?}");
    for session in made {
        assert_eq!(session["remote"], "198.51.100.10");
        assert_eq!(session["remote_port"], ECHO_PORT);
    }
    assert!(named(&written, "NAT64 BIB create").is_empty());
}

const LOST: &str = "openclat_plat_log_lost_events_total";

/// A reader that is too slow costs lines, which are counted and said, and not one packet.
#[test]
fn a_log_that_cannot_keep_up_loses_lines_and_counts_them() {
    /// More than wait for the disk, and than a pipe holds.
    const FLOWS: u64 = 30_000;
    let network = network("log-stuck");
    let fifo = network.path("fifo");
    network.plat.must(&format!("mkfifo {}", fifo.display()));
    // Opened for both, it waits for no writer.
    let reader = File::options().read(true).write(true).open(&fifo).unwrap();
    let _silent = listen_silently(&network);
    let text = format!(
        "[log]\nfile = \"{}\"\n[metrics]\nlisten = \"127.0.0.1:9464\"\n",
        fifo.display()
    );
    let mut plat = network.start_plat_with(&text);
    served(&network.host);
    let flow = Flow::udp(&network.host, CLIENT, echo_server());
    assert_eq!(scrape(&network.plat, 9464).sum(LOST, &[]), 0);
    open_flows(&network, BUSY, FLOWS, 1);
    let lost = || scrape(&network.plat, 9464).sum(LOST, &[]);
    assert!(eventually(SOON, || lost() > 1000));
    assert!(flow.goes_on());

    // Whoever reads again hears how many it missed, and all that was kept.
    let lines = thread::spawn(move || {
        let (mut kept, mut missed) = (0, 0);
        for line in BufReader::new(reader).lines() {
            let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
            match event["name"].as_str().unwrap() {
                "NAT64 BIB create" => kept += 1,
                "lost" => missed += event["count"].as_u64().unwrap(),
                "stopped" => break,
                _ => {}
            }
        }
        (kept, missed)
    });
    assert!(eventually(SOON, || {
        // There is room for one that says it.
        echo(&network.host, 1);
        lines.is_finished() || lost() > 0
    }));
    let fared = flow.stop();
    assert!(fared.passed > 20 && fared.lost == 0, "{fared:?}");
    let after = scrape(&network.plat, 9464);
    let in_all = after.sum(LOST, &[]);
    let made = after.sum("openclat_plat_bindings_made_total", &[]);
    assert!(made >= FLOWS, "{made}");
    assert!(plat.stop().success(), "{}", plat.output());
    let (kept, missed) = lines.join().unwrap();
    assert_eq!(missed, in_all);
    assert_eq!(kept + missed, made);
}

/// Nobody reads at all: it ends all the same, and soon.
#[test]
fn a_log_that_stands_still_does_not_keep_it_from_ending() {
    let network = network("log-still");
    let fifo = network.path("fifo");
    network.plat.must(&format!("mkfifo {}", fifo.display()));
    let _reader = File::options().read(true).write(true).open(&fifo).unwrap();
    let _silent = listen_silently(&network);
    let mut plat = network.start_plat_with(&format!("[log]\nfile = \"{}\"\n", fifo.display()));
    served(&network.host);
    open_flows(&network, BUSY, 2_000, 1);
    echo(&network.host, 1);
    let start = Instant::now();
    assert!(plat.stop().success(), "{}", plat.output());
    assert!(start.elapsed() < Duration::from_secs(4));
    assert!(!network.plat.has_interface("plat0"));
}

/// A disk that is full: lines are lost, counted and said; when there is room again, the log goes
/// on with whole lines.
#[test]
fn a_full_disk_loses_lines_and_counts_them() {
    let network = network("log-full");
    let directory = network.path("small");
    fs::create_dir_all(&directory).unwrap();
    let (place, file) = (directory.display(), directory.join("plat.log"));
    let config = network.write_plat_config(&format!(
        "[log]\nfile = \"{}\"\n[metrics]\nlisten = \"127.0.0.1:9464\"\n",
        file.display()
    ));
    let script = format!(
        "mount -t tmpfs -o size=64k none {place} && exec {} run --config {} --state-dir {}",
        program("plat").display(),
        config.display(),
        network.path("plat-state").display()
    );
    let mut unshare = command("unshare");
    unshare.args(["--mount", "sh", "-c", &script]);
    let mut plat = Daemon::start(&network.plat, "plat", unshare).unwrap();
    plat.wait_for("running", SOON);
    // As the PLAT sees it.
    let seen = PathBuf::from(format!("/proc/{}/root{}", plat.pid(), file.display()));
    let _silent = listen_silently(&network);
    served(&network.host);
    let flow = Flow::udp(&network.host, CLIENT, echo_server());
    open_flows(&network, BUSY, 1_000, 1);
    let lost = || scrape(&network.plat, 9464).sum(LOST, &[]);
    assert!(eventually(SOON, || lost() > 100), "{}", plat.output());
    assert!(flow.goes_on());
    let warned = plat.output().matches("the event log: ").count();
    // Not for each line; a short one may have found room after the first long one that did not.
    assert!((1..10).contains(&warned), "{}", plat.output());

    // Somebody makes room.
    let full = fs::read_to_string(&seen).unwrap();
    File::options()
        .write(true)
        .open(&seen)
        .unwrap()
        .set_len(0)
        .unwrap();
    echo(&network.host, 5);
    let fared = flow.stop();
    assert!(fared.passed > 20 && fared.lost == 0, "{fared:?}");
    let said = || fs::read_to_string(&seen).unwrap();
    assert!(
        eventually(SOON, || named_in(&said(), "lost") > 0),
        "{}",
        said()
    );
    let after = scrape(&network.plat, 9464);
    let made = after.sum("openclat_plat_bindings_made_total", &[]);
    let lost = after.sum(LOST, &[]);
    let written = |text: &str| named_in(text, "NAT64 BIB create");
    let complete = || written(&full) + written(&said()) + lost as usize >= made as usize;
    assert!(eventually(SOON, complete), "{lost} of {made}: {}", said());
    assert!(plat.stop().success());
}

/// How many events of this name are in a text of which every line must be one.
fn named_in(text: &str, name: &str) -> usize {
    let events = text.lines().map(|line| {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    });
    events.filter(|it| it["name"] == name).count()
}

/// `plat ARGUMENTS` with what it took.
fn ask(network: &Network, arguments: &str) -> (Ran, Duration) {
    let line = format!(
        "{} {arguments} --socket {}",
        program("plat").display(),
        network.path("plat-state/control.sock").display()
    );
    let start = Instant::now();
    (network.plat.sh(&line), start.elapsed())
}

/// Every session is in the list, those that are made meanwhile do not disturb it, and nobody's packets
/// wait for it.
#[test]
fn a_hundred_thousand_sessions_are_listed_while_packets_flow() {
    const SESSIONS: u64 = 100_000;
    let network = network("long-list");
    let mut plat = network.start_plat_with("workers = 2\n");
    let _silent = listen_silently(&network);
    served(&network.host);
    open_flows(&network, BUSY, SESSIONS, 4);
    let before = plat.memory();
    let flows = [
        Flow::udp(&network.host, CLIENT, echo_server()),
        Flow::tcp(&network.host, CLIENT, echo_server()),
    ];
    assert!(flows.iter().all(Flow::goes_on));
    let (listed, took) = ask(&network, &format!("session list --json --client {BUSY}"));
    let grown = plat.memory().saturating_sub(before);
    assert!(flows.iter().all(Flow::goes_on));
    for flow in flows {
        let fared = flow.stop();
        assert!(fared.passed > 40 && fared.lost == 0, "{fared:?}");
    }
    assert!(listed.ok(), "{}", listed.stderr);
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        assert_eq!(row["schema"], "openclat-plat-session/1");
        format!("{} {}", row["client"], row["remote"])
    };
    let rows: BTreeSet<_> = listed.stdout.lines().map(row).collect();
    assert_eq!(listed.stdout.lines().count() as u64, SESSIONS);
    assert_eq!(rows.len() as u64, SESSIONS);
    eprintln!("{SESSIONS} sessions listed in {took:?}; the PLAT grew by {grown} bytes");
    // A page of it at a time, whatever the list is long.
    assert!(grown < 8 << 20, "{grown}");
    assert!(plat.stop().success());
}
