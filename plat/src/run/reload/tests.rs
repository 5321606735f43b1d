use super::*;
use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    pin::pin,
    sync::atomic::{AtomicU16, Ordering},
};

use ::control::{
    envelope::Hello,
    plat::{Answer, Verb, Wanted},
};
use host::{
    fake::{FakeHost, Packet, World},
    signals::Told,
};
use ipc::{Client, Error, transport};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use wire::{
    compose::{self, Pair, V6},
    ipv4::Ipv4,
};

use crate::{
    admin,
    config::tests::settled,
    forwarding::Forwarding,
    instance::{Instance, Source},
    test_host,
};

mod confirm;
mod outlets;

const SOON: Duration = Duration::from_secs(5);

/// A PLAT on a host in memory.
struct Running {
    host: FakeHost,
    directory: PathBuf,
}

impl Running {
    fn new(test: &str) -> Self {
        let host = FakeHost::new();
        let lan = test_host::interface(2, "eth0", &[("2001:db8::64", 64)], &["192.0.2.1"]);
        host.change(|world| world.snapshot.interfaces.push(lan));
        let name = format!("openclat-reload-{test}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        Self { host, directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn write(&self, text: &str) {
        fs::write(self.path("plat.toml"), text).unwrap();
    }

    /// Runs it while the script is played, for the only time.
    async fn with(&self, first: &str, script: impl Future<Output = ()>) {
        self.once(first, script).await;
        fs::remove_dir_all(&self.directory).unwrap();
    }

    /// Runs it while the script is played.
    async fn once(&self, first: &str, script: impl Future<Output = ()>) {
        assert_eq!(self.ran(first, script).await, Ok(Exit::Ok));
        assert_eq!(self.host.world().made, []);
    }

    /// What became of it while the script was played, to the end unless it failed.
    async fn ran(&self, first: &str, script: impl Future<Output = ()>) -> Result<Exit, Failure> {
        self.write(first);
        let source = Source::new(Instance::default(), Some(self.path("plat.toml")));
        let journal = self.path("journal.jsonl");
        let script = async {
            let deadline = Instant::now() + SOON;
            while !self.path(admin::SOCKET).exists() {
                assert!(Instant::now() < deadline, "no control socket");
                time::sleep(Duration::from_millis(5)).await;
            }
            script.await;
            self.host.signal(Told::End);
        };
        let mut run = pin!(super::super::run(&self.host, source, &journal));
        tokio::select! {
            ran = &mut run => {
                assert!(ran.is_err(), "it ended before the script did");
                ran
            }
            () = script => run.await,
        }
    }

    async fn ask(&self, verb: Verb) -> Result<Answer, Error> {
        let stream = transport::connect(&self.path(admin::SOCKET), "root").await;
        let hello = Hello::new("test", "0");
        let client = Client::greet(stream.unwrap(), &hello).await;
        client.unwrap().call(verb).await
    }

    async fn reload(&self, text: &str) -> Result<String, String> {
        self.write(text);
        let confirm_within = None;
        match self.ask(Verb::Reload { confirm_within }).await {
            Ok(Answer::Done { text, .. }) => Ok(text),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    fn made(&self) -> Vec<String> {
        let made = self.host.world().made;
        let mut lines: Vec<_> = made.iter().map(ToString::to_string).collect();
        lines.sort_unstable();
        lines
    }

    /// Where a datagram of the same client comes from.
    fn flow(&self) -> (Ipv4Addr, u16) {
        self.flow_from(5000)
    }

    /// Where a datagram from a port of the client comes from.
    fn flow_from(&self, port: u16) -> (Ipv4Addr, u16) {
        let (src, dst) = (
            "2001:db8::1".parse().unwrap(),
            "64:ff9b::808:808".parse().unwrap(),
        );
        let udp = compose::udp(Pair::V6(src, dst), port, 53, b"question");
        let tun = self.host.tun_port().unwrap();
        tun.from_host(Packet::whole(&V6::new(src, dst, 17).carrying(&udp)));
        let ports = self.host.tun_ports();
        let sent = (0..100).find_map(|_| {
            let wait = SOON / 200;
            ports.iter().find_map(|it| it.to_host(wait))
        });
        let sent = sent.expect("the datagram, translated").bytes;
        let packet = Ipv4::new_checked(&sent[..]).unwrap();
        let port = packet.payload();
        (packet.src(), u16::from_be_bytes([port[0], port[1]]))
    }
}

const BOTH: &str = "pool = [\"203.0.113.1\", \"203.0.113.2\"]\n";
const MORE: &str = "pool = [\"203.0.113.1\", \"203.0.113.2\", \"203.0.113.3\"]\n";

/// Whichever change it is that the host refuses.
#[tokio::test]
async fn plat_r_01_what_the_host_refuses_changes_nothing() {
    let running = Running::new("host");
    let script = async {
        let (before, flow) = (running.made(), running.flow());
        let mut refused = 0;
        let said = loop {
            let host = &running.host;
            host.refuse_after(refused, io::ErrorKind::PermissionDenied);
            match running.reload(&format!("{MORE}ipv6_mtu = 1600")).await {
                Ok(said) => break said,
                Err(said) => assert!(said.contains("permission denied"), "{said}"),
            }
            assert_eq!(running.made(), before, "change {refused}");
            assert_eq!(running.flow(), flow);
            refused += 1;
        };
        // The interface, and the route.
        assert_eq!(refused, 2);
        assert!(said.contains("1 sessions survive, 0 have ended"), "{said}");
        let route = "route to 203.0.113.3/32 out of plat0".to_owned();
        assert!(running.made().contains(&route));
        assert_eq!(running.flow(), flow);
        let Ok(Answer::Status(status)) = running.ask(Verb::Status).await else {
            panic!("no status");
        };
        assert!(status.pool.contains(&"203.0.113.3/32".to_owned()));
    };
    running.with(BOTH, script).await;
}

/// One worker has no place for its static binding; the other has made its own by then.
#[tokio::test]
async fn plat_r_01_what_one_worker_refuses_changes_none() {
    let running = Running::new("worker");
    let few = "workers = 2\n[limits]\nbindings = 2\n";
    let script = async {
        let (before, flow) = (running.made(), running.flow());
        let bib = |client: u16| {
            format!(
                "[[bib]]\nprotocol = \"tcp\"\nipv6 = \"[2001:db8::9]:{client}\"\n\
                 ipv4 = \"203.0.113.3:{client}\"\n"
            )
        };
        // Ports of either worker.
        let both = format!("{MORE}{few}{}{}", bib(80), bib(96));
        let refused = running.reload(&both).await.unwrap_err();
        assert!(
            refused.contains("the limit of bindings is reached"),
            "{refused}"
        );
        assert_eq!(running.made(), before);
        assert_eq!(running.flow(), flow);
        assert_eq!(running.static_ports().await, [0; 0]);
        let Ok(Answer::Pool { rows }) = running.ask(Verb::PoolList).await else {
            panic!("no pool");
        };
        let new = Ipv4Addr::new(203, 0, 113, 3);
        assert!(rows.iter().all(|it| it.address != new), "{rows:?}");
    };
    running.with(&format!("{BOTH}{few}"), script).await;
}

/// What somebody made by hand and has written into the file since stays when that is refused.
#[tokio::test]
async fn plat_r_01_a_refused_reload_leaves_bindings_that_were_added() {
    let running = Running::new("by-hand");
    let few = "workers = 2\n[limits]\nbindings = 2\n";
    let script = async {
        let bib = |client: u16| {
            format!(
                "[[bib]]\nprotocol = \"tcp\"\nipv6 = \"[2001:db8::9]:{client}\"\n\
                 ipv4 = \"203.0.113.1:{client}\"\n"
            )
        };
        let by_hand = control::plat::StaticBinding {
            protocol: control::plat::Protocol::Tcp,
            client: "[2001:db8::9]:80".parse().unwrap(),
            pool: "203.0.113.1:80".parse().unwrap(),
        };
        running.ask(Verb::BibAdd(by_hand)).await.unwrap();
        assert_eq!(running.static_ports().await, [80]);
        // The last has no place: its worker, whichever of the two it is, has one already.
        let all = format!("{BOTH}{few}{}{}{}", bib(80), bib(96), bib(112));
        let refused = running.reload(&all).await.unwrap_err();
        assert!(
            refused.contains("the limit of bindings is reached"),
            "{refused}"
        );
        assert_eq!(running.static_ports().await, [80]);
    };
    running.with(&format!("{BOTH}{few}"), script).await;
}

/// The events of a log, once a new one of this name and client's port is among them.
async fn events(file: &Path, name: &str, port: Option<u16>) -> Vec<Value> {
    let deadline = Instant::now() + SOON;
    loop {
        let text = fs::read_to_string(file).unwrap_or_default();
        let events: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
        // What happens while it is told what there was before may be told of as both.
        let is_it = |it: &Value| {
            let is_new = it["before"].is_null();
            is_new && it["name"] == name && port.is_none_or(|port| it["client_port"] == port)
        };
        match events {
            Ok(events) if events.iter().any(is_it) => return events,
            _ if Instant::now() > deadline => panic!("no {name} of {port:?} in {text}"),
            _ => time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// A port that nobody listens at, and no other test is given: not by this function, and not by the
/// system, which gives others than these to those that do not care.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Another process that runs these tests begins elsewhere.
    let first = u16::try_from(std::process::id() % 100).unwrap() * 100;
    loop {
        let port = 20_000 + first + NEXT.fetch_add(1, Ordering::Relaxed);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Otherwise a test would wait for ever for what went wrong.
#[tokio::test]
async fn a_plat_that_fails_ends_its_test() {
    let running = Running::new("fails");
    let ran = running.ran("pool = 7", std::future::pending());
    let ran = time::timeout(SOON, ran).await.expect("an end");
    fs::remove_dir_all(&running.directory).unwrap();
    assert_eq!(ran.unwrap_err().exit(), Exit::Usage);
}

/// Whether metrics are served there.
async fn has_metrics(port: u16) -> bool {
    has_metrics_at((Ipv4Addr::LOCALHOST, port).into()).await
}

async fn has_metrics_at(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else {
        return false;
    };
    let request = b"GET /metrics HTTP/1.1\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.contains("openclat_plat_sessions")
}

fn log_in(file: &Path, more: &str) -> String {
    format!("[log]\nfile = \"{}\"\n{more}", file.display())
}

fn metrics_at(port: u16) -> String {
    format!("[metrics]\nlisten = \"127.0.0.1:{port}\"\n")
}

/// What a log told of as known: the events' names and the clients' ports.
fn before(told: &[Value]) -> Vec<(String, u64)> {
    let known = told.iter().filter(|it| it["before"] == true);
    let row = |it: &Value| {
        (
            it["name"].as_str().unwrap().to_owned(),
            it["client_port"].as_u64().unwrap(),
        )
    };
    known.map(row).collect()
}

const BINDING: &str = "NAT64 BIB create";
const SESSION: &str = "NAT64 session create";

#[tokio::test]
async fn plat_r_01_log_and_metrics_begin_and_end_with_a_reload() {
    let running = Running::new("outlets");
    let (one, other) = (running.path("one.jsonl"), running.path("other.jsonl"));
    let port = free_port();
    let script = async {
        running.flow_from(5000);
        let both = format!("{BOTH}{}{}", log_in(&one, ""), metrics_at(port));
        running.reload(&both).await.unwrap();
        assert!(has_metrics(port).await);
        running.flow_from(5001);
        let told = events(&one, BINDING, Some(5001)).await;
        assert_eq!(
            (&told[0]["name"], &told[0]["bindings"]),
            (&"opened".into(), &1.into())
        );
        // What there was before is told of.
        let told = events(&one, "known", None).await;
        assert_eq!(before(&told), [(BINDING.into(), 5000)]);

        // The same file, and no metrics.
        let more = log_in(&one, "destinations = true");
        running.reload(&format!("{BOTH}{more}")).await.unwrap();
        assert!(!has_metrics(port).await);
        running.flow_from(5002);
        let told = events(&one, SESSION, Some(5002)).await;
        let is_new = |it: &&Value| it["before"].is_null() && it["event"] != 0;
        let new: Vec<_> = told.iter().filter(is_new).collect();
        assert_eq!(new.len(), 2, "{new:?}");
        // Before, sessions were not told of.
        let sessions = |told: &[Value]| {
            let mut all = before(told);
            all.retain(|(name, _)| name == SESSION);
            all.sort_unstable();
            all.into_iter().map(|(_, port)| port).collect::<Vec<_>>()
        };
        let deadline = Instant::now() + SOON;
        while !sessions(&events(&one, "known", None).await).starts_with(&[5000, 5001]) {
            assert!(Instant::now() < deadline);
            time::sleep(Duration::from_millis(5)).await;
        }

        let more = log_in(&other, "");
        running.reload(&format!("{BOTH}{more}")).await.unwrap();
        running.flow_from(5003);
        let told = events(&other, BINDING, Some(5003)).await;
        assert_eq!(told[0]["bindings"], 3);
        let told = events(&one, "closed", None).await;
        assert_eq!(told.last().unwrap()["name"], "closed");
        assert!(told.iter().all(|it| it["client_port"] != 5003), "{told:?}");

        running.reload(BOTH).await.unwrap();
        running.flow_from(5004);
        let told = events(&other, "closed", None).await;
        assert!(told.iter().all(|it| it["client_port"] != 5004), "{told:?}");
    };
    running.with(BOTH, script).await;
}

/// With blocks, whose a block is says it for all its ports.
#[tokio::test]
async fn log_8158_01_a_log_that_is_opened_tells_of_the_blocks_there_are() {
    let running = Running::new("known-blocks");
    let one = running.path("one.jsonl");
    let blocks = "blocks = { mode = \"dynamic\", size = 512, most = 4 }\n";
    let first = format!("{blocks}{BOTH}");
    let script = async {
        let (address, port) = running.flow();
        let text = format!("{first}{}", log_in(&one, ""));
        running.reload(&text).await.unwrap();
        let told = events(&one, "known", None).await;
        let known: Vec<_> = told.iter().filter(|it| it["before"] == true).collect();
        let [block] = known[..] else {
            panic!("{known:?}");
        };
        assert_eq!(block["event"], 16);
        assert_eq!(block["subscriber"], "2001:db8::/64");
        assert_eq!(block["pool"], address.to_string());
        let end = |key: &str| block[key].as_u64().unwrap();
        assert!((end("port_first")..=end("port_last")).contains(&port.into()));
        assert_eq!(told.last().unwrap()["count"], 1);
    };
    running.with(&first, script).await;
}

/// One of the two cannot be opened: everything stays, the other and the NAT64 too.
#[tokio::test]
async fn plat_r_01_what_cannot_be_opened_refuses_the_reload() {
    let running = Running::new("refused-outlets");
    let (one, other) = (running.path("one.jsonl"), running.path("other.jsonl"));
    let (port, free) = (free_port(), free_port());
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = busy.local_addr().unwrap().port();
    let first = format!("{BOTH}{}{}", log_in(&one, ""), metrics_at(port));
    let script = async {
        let no_file = running.path("plat.toml").join("events");
        for (wanted, why) in [
            (
                log_in(&other, "") + &metrics_at(taken),
                "no metrics at 127.0.0.1",
            ),
            (
                log_in(&one, "max_bytes = 4096\n") + &metrics_at(taken),
                "no metrics at 127.0.0.1",
            ),
            (log_in(&no_file, "") + &metrics_at(free), "no event log in"),
        ] {
            let text = format!("{MORE}timers.udp = 200\n{wanted}");
            let refused = running.reload(&text).await.unwrap_err();
            assert!(refused.contains(why), "{refused}");
            assert!(has_metrics(port).await && !has_metrics(free).await);
            let Ok(Answer::Config { settings }) = running.ask(Verb::Config).await else {
                panic!("no settings");
            };
            let udp = settings.iter().find(|it| it.key == "timers.udp").unwrap();
            assert_eq!(udp.json, "300");
        }
        let route = "route to 203.0.113.3/32 out of plat0".to_owned();
        assert!(!running.made().contains(&route));
        // More than would fit into the file that was refused.
        for port in 5001..5041 {
            running.flow_from(port);
        }
        events(&one, BINDING, Some(5040)).await;
        assert!(fs::metadata(&one).unwrap().len() > 4096);
        assert!(!running.path("one.jsonl.1").exists());
        assert!(fs::read_to_string(&other).unwrap_or_default().is_empty());
        let text = format!("{BOTH}{}", log_in(&one, "max_bytes = 4096\n"));
        running.reload(&text).await.unwrap();
        running.flow_from(5041);
        events(&one, BINDING, Some(5041)).await;
        assert!(running.path("one.jsonl.1").exists());
    };
    running.with(&first, script).await;
}

/// Otherwise subscribers would belong to other workers than their blocks.
#[tokio::test]
async fn natb_6888_03_workers_have_their_key_again_if_blocks_rest() {
    let running = Running::new("key");
    let file = running.path(crate::remains::FILE);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let text = format!(
        r#"{{"schema": "openclat-plat-resting/1", "ended": {}, "ports": [], "blocks": [
            {{"subscriber": "2001:db8:5::/64", "address": "203.0.113.1", "first": 1024,
              "last": 1535}}], "key": "0123456789abcdef0123456789abcdef"}}"#,
        now.unwrap().as_secs()
    );
    fs::write(&file, text).unwrap();
    let blocks = format!("{BOTH}blocks = {{mode = \"dynamic\", size = 512, most = 4}}\n");
    running.once(&blocks, async {}).await;
    let left = fs::read_to_string(&file).unwrap();
    fs::remove_dir_all(&running.directory).unwrap();
    // The block rests on.
    assert!(left.contains("2001:db8:5::/64"), "{left}");
    assert!(left.contains("0123456789abcdef0123456789abcdef"), "{left}");
}

#[tokio::test]
async fn obs_01_thresholds_change_with_a_reload() {
    let running = Running::new("thresholds");
    let script = async {
        running.flow();
        let near = async || {
            let Ok(Answer::Status(status)) = running.ask(Verb::Status).await else {
                panic!("no status");
            };
            let mut all = status.thresholds.into_iter();
            let sessions = all.find(|it| it.code == "sessions").unwrap();
            (sessions.low, sessions.high, sessions.exceeded)
        };
        assert_eq!(near().await, (70, 80, false));
        let text = "limits.sessions = 50\nthresholds.sessions = { low = 1, high = 2 }";
        running.reload(&format!("{BOTH}{text}")).await.unwrap();
        assert_eq!(near().await, (1, 2, true));
    };
    running.with(BOTH, script).await;
}

/// What was arranged on the old one is undone, and made on the new one. None at all may be the moment
/// between two.
#[tokio::test]
async fn another_uplink_is_followed() {
    let running = Running::new("uplink");
    let forwards = |name: &str| {
        let setting = format!("setting net/ipv4/conf/{name}/forwarding = 1");
        running.made().contains(&setting)
    };
    let default = |index: Option<u32>| {
        let change = |world: &mut World| world.snapshot.ipv4_default = index.into_iter().collect();
        running.host.change(change);
    };
    let other = test_host::interface(3, "ppp0", &[], &["198.51.100.1"]);
    running
        .host
        .change(|world| world.snapshot.interfaces.push(other));
    default(Some(2));
    let script = async {
        let flow = running.flow();
        assert!(
            forwards("eth0") && !forwards("ppp0"),
            "{:?}",
            running.made()
        );
        for (index, by, not_by) in [(3, "ppp0", "eth0"), (2, "eth0", "ppp0")] {
            default(None);
            time::sleep(Duration::from_millis(50)).await;
            assert!(forwards(not_by));
            default(Some(index));
            let deadline = Instant::now() + SOON;
            while !forwards(by) || forwards(not_by) {
                assert!(Instant::now() < deadline, "{:?}", running.made());
                time::sleep(Duration::from_millis(5)).await;
            }
        }
        assert_eq!(running.flow(), flow);
    };
    let config = "pool_mode = \"masquerade\"\nclients = [\"2001:db8::/64\"]\n";
    running.with(config, script).await;
}

fn plan(text: &str) -> Plan {
    let config = settled(text).unwrap();
    host_plan::plan(&config, &Forwarding::default())
}

/// An address is routed here before it is given out, and until it is not any more.
#[test]
fn between_two_configurations_the_host_has_what_both_need() {
    let old = plan("pool = [\"203.0.113.1\", \"203.0.113.2\"]");
    let new = plan("pool = [\"203.0.113.2\", \"203.0.113.3\"]\nipv6_mtu = 1600");
    let lines: Vec<_> = both(&new, &old)
        .items()
        .iter()
        .map(ToString::to_string)
        .collect();
    for address in 1..=3 {
        let route = format!("route to 203.0.113.{address}/32 out of plat0");
        assert_eq!(
            lines.iter().filter(|it| **it == route).count(),
            1,
            "{lines:?}"
        );
    }
    let interfaces: Vec<_> = lines
        .iter()
        .filter(|it| it.starts_with("interface"))
        .collect();
    assert_eq!(interfaces, ["interface plat0 up with MTU 1600"]);
}

#[test]
fn what_takes_a_restart_is_refused_with_all_the_rest() {
    let before = settled("pool = [\"203.0.113.1\"]").unwrap();
    let after = "pool = [\"203.0.113.2\"]\nworkers = 3\n[timers]\nudp = 200";
    let changes = diff(&before, &settled(after).unwrap());
    let failure = check_restart(&changes).unwrap_err();
    assert_eq!(failure.exit(), Exit::Usage);
    let text = failure.to_string();
    assert!(
        text.contains("workers: (left to the host) -> 3 takes a restart"),
        "{text}"
    );
    assert!(!text.contains("203.0.113.2"), "{text}");
    let after = "pool = [\"203.0.113.2\"]\n[timers]\nudp = 200";
    let changes = diff(&before, &settled(after).unwrap());
    assert_eq!(check_restart(&changes), Ok(()));
}
