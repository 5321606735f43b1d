//! The whole way from a client in memory to an engine, and back.

use std::{net::Ipv6Addr, num::NonZeroU8, sync::Arc};

use ::control::{
    envelope::Hello,
    plat::{Answer, Filter, Health, Page, PoolRow, StaticBinding, StatsRow, TopBy, Verb, Wanted},
};
use host::{
    clock::Clock,
    fake::{FakeTun, Packet},
    tun::Tun,
};
use ipc::{Client, Limits, Peer, transport::memory};
use nat64::{
    dispatch::{Dispatch, ShardId},
    tuple::{Endpoint6, Protocol as Transport},
};
use serde_json::Value;
use tokio::io::DuplexStream;
use wire::compose::{self, Pair, V6};

use super::{service::looked_up, *};
use crate::{
    config::{capacity::Memory, thresholds::Thresholds},
    workers::{Shared, Workers},
};

mod serving;
mod whose;

const SOON: std::time::Duration = std::time::Duration::from_secs(5);

const KEY: [u8; 16] = [7; 16];

struct Fixture {
    /// The first queue.
    tun: Arc<FakeTun>,
    /// A queue for each worker.
    queues: Vec<Arc<FakeTun>>,
    dispatch: Dispatch,
    workers: Option<Workers>,
    admin: Arc<Admin>,
    address: memory::MemoryAddress,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Fixture {
    fn config() -> nat64::Config {
        nat64::Config::new(
            "2001:db8:64::/96".parse().unwrap(),
            &["203.0.113.1".parse().unwrap()],
            "2001:db8::64".parse().unwrap(),
        )
    }

    async fn new() -> Self {
        Self::of(Self::config(), 1).await
    }

    /// Of a configuration, with so many workers.
    async fn of(config: nat64::Config, workers: u8) -> Self {
        let shards = NonZeroU8::new(workers).unwrap();
        let dispatch = Dispatch::new(&config, KEY, shards);
        let clock = Clock::start();
        let engine =
            |shard| Engine::for_shard(config.clone(), KEY, shards, shard, clock.now()).unwrap();
        let engines = ShardId::all(shards).map(engine).collect();
        let queues: Vec<_> = (0..workers).map(|_| Arc::new(FakeTun::new())).collect();
        let ports: Vec<_> = queues
            .iter()
            .map(|it| Arc::clone(it) as Arc<dyn Tun>)
            .collect();
        let tun = Arc::clone(&queues[0]);
        let shared = Arc::new(Shared::default());
        let workers = Workers::start(engines, &ports, Arc::clone(&shared), clock).unwrap();
        let facts = Facts {
            instance: "test".to_owned(),
            settings: Vec::new(),
            prefixes: vec!["2001:db8:64::/96".to_owned()],
            pool: vec!["203.0.113.1/32".to_owned()],
            interface: "plat0".to_owned(),
            sessions_limit: 1000,
            bindings_limit: 1000,
            memory: Memory::of(100, 1000, 1000),
            thresholds: Thresholds::default(),
            shared,
        };
        let (reload, _) = mpsc::channel(1);
        let admin = Admin::new(workers.orders(), facts, Arc::default(), reload).await;
        let admin = Arc::new(admin.unwrap());
        let (listener, address) = memory::listen(1 << 20);
        let served = tokio::spawn(ipc::serve(listener, Arc::clone(&admin), Limits::default()));
        let fed = Arc::clone(&admin);
        let fed = tokio::spawn(async move { fed.follow().await });
        Self {
            tun,
            queues,
            dispatch,
            workers: Some(workers),
            admin,
            address,
            tasks: vec![served, fed],
        }
    }

    /// Sends a datagram from a client's port, which makes a session.
    fn flow(&self, port: u16) {
        self.flow_of("2001:db8::1", port);
    }

    /// The same of any client. What leaves by it.
    fn flow_of(&self, client: &str, port: u16) -> Vec<u8> {
        let src: Ipv6Addr = client.parse().unwrap();
        let dst = "2001:db8:64::808:808".parse().unwrap();
        let udp = compose::udp(Pair::V6(src, dst), port, 53, b"question");
        let packet = V6::new(src, dst, 17).carrying(&udp);
        let (address, id) = (src, port);
        let inside = Endpoint6 { address, id };
        let shard = self.dispatch.of_inside(Transport::Udp, inside);
        let queue = &self.queues[shard.index()];
        queue.from_host(Packet::whole(&packet));
        queue.to_host(SOON).unwrap().bytes
    }

    async fn client(&self, peer: Peer) -> Client<DuplexStream> {
        let stream = self.address.connect(peer).await.unwrap();
        Client::greet(stream, &Hello::new("test", "0"))
            .await
            .unwrap()
    }

    async fn root(&self) -> Client<DuplexStream> {
        self.client(Peer::of(0, 0)).await
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
        if let Some(workers) = self.workers.take() {
            let _ = workers.stop();
        }
    }
}

fn list(from: Cursor, limit: usize) -> Verb {
    Verb::SessionList(Wanted {
        from,
        limit: Some(limit),
        ..Wanted::default()
    })
}

use ::control::plat::Cursor;

fn sessions(answer: Answer) -> Page<::control::plat::SessionRow> {
    let Answer::Sessions(page) = answer else {
        panic!("{answer:?}")
    };
    page
}

#[tokio::test]
async fn a_long_list_comes_in_pages_that_show_each_session_once() {
    let fixture = Fixture::new().await;
    (5000..5025).for_each(|port| fixture.flow(port));
    let mut client = fixture.root().await;
    let (mut from, mut ports) = (Some(Cursor::default()), Vec::new());
    while let Some(cursor) = from {
        let page = sessions(client.call(list(cursor, 4)).await.unwrap());
        assert!(page.rows.len() <= 4);
        ports.extend(page.rows.iter().map(|it| it.client.port()));
        from = page.next;
    }
    ports.sort_unstable();
    assert_eq!(ports, (5000..5025).collect::<Vec<_>>());
    // Places that there are not are no error, and no panic.
    for (shard, at) in [(0, u64::MAX), (7, 0), (u32::MAX, 3)] {
        let page = sessions(client.call(list(Cursor { shard, at }, 4)).await.unwrap());
        assert_eq!((page.rows.len(), page.next), (0, None));
    }
}

#[tokio::test]
async fn who_may_change_something_is_decided_by_who_it_is() {
    let fixture = Fixture::new().await;
    fixture.flow(5000);
    let everything = || Verb::SessionFlush {
        filter: Filter::default(),
    };
    let stranger = Peer::of(4242, 4242).with_groups(&["users"]);
    let mut stranger = fixture.client(stranger).await;
    let refused = stranger.call::<_, Answer>(everything()).await.unwrap_err();
    let ipc::Error::Problem(problem) = refused else {
        panic!("{refused}")
    };
    assert_eq!(problem.code, ProblemCode::NotPermitted);
    assert_eq!(problem.command.as_deref(), Some("sudo plat session flush"));
    let page = list(Cursor::default(), 9);
    let follow = Verb::SessionFollow {
        filter: Filter::default(),
    };
    let bindings = Verb::BibList(Wanted::default());
    let top = Verb::Top {
        by: TopBy::Sessions,
        limit: None,
    };
    for private in [page.clone(), follow, bindings, top] {
        let refused = stranger.call::<_, Answer>(private).await.unwrap_err();
        assert!(
            matches!(&refused, ipc::Error::Problem(it) if it.code == ProblemCode::NotPermitted),
            "{refused}"
        );
    }
    for open in [Verb::Status, Verb::Stats, Verb::PoolList, Verb::Health] {
        let _: Answer = stranger.call(open).await.unwrap();
    }
    let member = Peer::of(4242, 4242).with_groups(&["users", GROUP]);
    let mut member = fixture.client(member).await;
    let page = sessions(member.call(page).await.unwrap());
    assert_eq!(page.rows.len(), 1);
    let done: Answer = member.call(everything()).await.unwrap();
    assert!(
        matches!(done, Answer::Done { count: Some(1), .. }),
        "{done:?}"
    );
}

#[tokio::test]
async fn verbs_that_there_are_not_are_refused_and_nothing_else() {
    let fixture = Fixture::new().await;
    let mut client = fixture.root().await;
    for verb in [
        serde_json::json!({"verb": "dance"}),
        serde_json::json!({}),
        serde_json::json!([1, 2]),
        serde_json::json!({"verb": "bib-remove", "protocol": "tcp", "end": "x"}),
    ] {
        let refused = client.call::<_, Answer>(verb).await.unwrap_err();
        assert!(
            matches!(&refused, ipc::Error::Problem(it) if it.code == ProblemCode::UnknownVerb),
            "{refused}"
        );
    }
    let status: Answer = client.call(Verb::Status).await.unwrap();
    assert!(matches!(status, Answer::Status(_)));
}

/// Current sessions, successful translations and the success rate go by these words.
#[tokio::test]
async fn obs_01_counters_are_rows_with_a_sentence() {
    let fixture = Fixture::new().await;
    let rate = |rows: &[StatsRow]| {
        let row = rows.iter().find(|it| it.code == "from-v6.success-rate");
        row.unwrap().value
    };
    assert_eq!(rate(&fixture.admin.counters.rows()), None);
    (5000..5003).for_each(|port| fixture.flow(port));
    // One that does not pass: to a private address.
    let (src, dst) = (
        "2001:db8::1".parse().unwrap(),
        "2001:db8:64::a00:1".parse().unwrap(),
    );
    let udp = compose::udp(Pair::V6(src, dst), 1, 53, b"question");
    fixture
        .tun
        .from_host(Packet::whole(&V6::new(src, dst, 17).carrying(&udp)));
    assert!(fixture.tun.to_host(SOON).is_some());
    let rows = fixture.admin.stats().await;
    let row = |code: &str| rows.iter().find(|it| it.code == code).unwrap();
    let value = |code: &str| row(code).value.unwrap();
    let question = f64::from(40 + 8 + 8);
    assert_eq!(value("traffic.packets-in"), 4.0);
    assert_eq!(value("traffic.bytes-in"), 4.0 * question);
    assert_eq!(value("traffic.packets-out"), 3.0);
    assert_eq!(value("traffic.bytes-out"), 3.0 * (question - 20.0));
    assert_eq!(value("from-v6.bytes-out"), 3.0 * (question - 20.0));
    assert_eq!((value("dropped.total"), value("dropped.other")), (1.0, 1.0));
    for cause in causes::Cause::ALL {
        assert!(row(&format!("dropped.{}", cause.code())).clause == "RFC 8512 §3");
    }
    assert_eq!(value("use.pool-udp"), 3.0);
    assert_eq!(value("use.sessions.percent"), 0.3);
    assert_eq!(value("use.memory.alarm"), 0.0);
    let marks = &row("use.memory.percent").sentence;
    assert!(marks.contains("begins at 80 and ends under 70"), "{marks}");
    assert_eq!(value("sessions.udp"), 3.0);
    assert_eq!(value("from-v6.packets"), 4.0);
    assert_eq!(value("from-v6.passed"), 3.0);
    assert_eq!(value("from-v6.dropped"), 1.0);
    assert_eq!(value("from-v6.success-rate"), 75.0);
    assert_eq!(value("from-v6.drop.destination-refused"), 1.0);
    assert!(row("sessions.udp").sentence.starts_with("Current sessions"));
    assert!(
        row("from-v6.passed")
            .sentence
            .starts_with("Successful translations")
    );
    assert!(
        row("from-v6.success-rate")
            .sentence
            .starts_with("Success rate")
    );
    assert_eq!(row("from-v6.drop.no-binding").clause, "RFC 6146 §3.5");
    // Every code once, every row with a sentence.
    let codes: std::collections::BTreeSet<_> = rows.iter().map(|it| &it.code).collect();
    assert_eq!(codes.len(), rows.len());
    assert!(rows.iter().all(|it| it.sentence.ends_with('.')));
}

/// A mark is raised where ports are taken: nobody looked while they were.
#[tokio::test]
async fn the_use_of_the_pool_and_its_marks() {
    for workers in [1, 3] {
        let mut config = Fixture::config();
        config.timers.hold_down = std::time::Duration::ZERO;
        let fixture = Fixture::of(config, workers).await;
        let mut client = fixture.root().await;
        for ports in [5000..5020, 6000..6003] {
            ports.for_each(|port| fixture.flow(port));
            let filter = Filter::default();
            let _: Answer = client.call(Verb::SessionFlush { filter }).await.unwrap();
        }
        let Answer::Pool { rows } = client.call(Verb::PoolList).await.unwrap() else {
            panic!("no pool")
        };
        let row = |protocol| rows.iter().find(|it| it.protocol == protocol).unwrap();
        let udp = row(Protocol::Udp);
        assert_eq!((udp.used, udp.ports, udp.high_water), (0, 65_535, Some(20)));
        assert_eq!(row(Protocol::Tcp).high_water, Some(0));
    }
}

/// Whose they are, how often, and why; and the sum where counters are.
#[tokio::test]
async fn obs_01_refused_clients_are_listed_by_network() {
    let fixture = Fixture::new().await;
    fixture.flow(5000);
    let mut client = fixture.root().await;
    let refused = async |client: &mut Client<DuplexStream>| {
        let answer = client.call(Verb::ClientRefused).await.unwrap();
        let Answer::Refused { rows } = answer else {
            panic!("{answer:?}")
        };
        rows
    };
    assert_eq!(refused(&mut client).await, []);
    let mut config = Fixture::config();
    config.clients = vec!["2001:db8:1::/48".parse().unwrap()];
    let order = move |engine: &mut Engine, _| engine.reconfigure(config.clone()).is_ok();
    assert_eq!(fixture.admin.each(order).await.unwrap(), [true]);
    // Each is told with an ICMP error.
    fixture.flow(5001);
    fixture.flow(5002);
    let rows = refused(&mut client).await;
    let row = rows.first().unwrap();
    assert_eq!((rows.len(), row.packets), (1, 2));
    assert_eq!(row.client, "2001:db8::/64");
    assert_eq!(row.reason, "client-refused");
    assert!(row.first_ago >= row.last_ago && row.sentence.contains("`clients`"));
    let Answer::Status(status) = client.call(Verb::Status).await.unwrap() else {
        panic!("no status")
    };
    assert_eq!(status.refused_clients, 1);
    let rows = fixture.admin.counters.rows();
    let counted = rows.iter().find(|it| it.code == "clients.refused").unwrap();
    assert_eq!(counted.value, Some(2.0));
}

#[tokio::test]
async fn those_who_follow_are_told() {
    use ::control::plat::Event;

    let fixture = Fixture::new().await;
    let mut client = fixture.root().await;
    let filter = Filter {
        client: "[2001:db8::1]:5001".parse().ok(),
        ..Filter::default()
    };
    let _: Answer = client.call(Verb::SessionFollow { filter }).await.unwrap();
    (5000..5003).for_each(|port| fixture.flow(port));
    let event: Event = client.event().await.unwrap();
    let Event::SessionCreated(row) = event else {
        panic!("{event:?}")
    };
    assert_eq!(
        (row.client.port(), row.prefix.as_str()),
        (5001, "2001:db8:64::/96")
    );
    let mut other = fixture.root().await;
    let filter = Filter::default();
    let _: Answer = other.call(Verb::SessionFlush { filter }).await.unwrap();
    let event: Event = client.event().await.unwrap();
    assert!(matches!(event, Event::SessionDeleted(_)), "{event:?}");
}

#[tokio::test]
async fn health_sees_workers_that_have_ended() {
    let mut fixture = Fixture::new().await;
    let check = |health: &Health, name: &str| {
        let found = health.checks.iter().find(|it| it.name == name);
        found.unwrap().passed
    };
    let health = fixture.admin.health().await;
    assert!(check(&health, "workers") && check(&health, "pool"));
    // Nothing was seen of the host.
    assert!(!check(&health, "ipv4-side") && !health.healthy);
    fixture.workers.take().unwrap().stop().unwrap();
    let health = fixture.admin.health().await;
    assert!(!check(&health, "workers") && !check(&health, "pool"));
}

/// As Prometheus asks, and as the documents name them.
#[tokio::test]
async fn metrics_are_served_and_documented() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let fixture = Fixture::new().await;
    fixture.flow(5000);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(metrics::serve(Arc::clone(&fixture.admin), listener));
    let ask = async |line: &str| {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("{line}\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = ask("GET /metrics HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    for line in [
        "openclat_plat_sessions{protocol=\"udp\",instance=\"test\"} 1\n",
        "openclat_plat_translated_packets_total{direction=\"from-v6\",instance=\"test\"} 1\n",
        "openclat_plat_healthy{check=\"workers\",instance=\"test\"} 1\n",
        "openclat_plat_translated_bytes_total{direction=\"from-v6\",instance=\"test\"} 36\n",
        "openclat_plat_dropped_by_cause_packets_total{cause=\"fragments\",instance=\"test\"} 0\n",
        "openclat_plat_limited_in_use{of=\"pool-udp\",instance=\"test\"} 1\n",
        "openclat_plat_limit{of=\"sessions\",instance=\"test\"} 1000\n",
        "openclat_plat_threshold_percent{of=\"memory\",mark=\"low\",instance=\"test\"} 70\n",
        "openclat_plat_alarm{of=\"memory\",instance=\"test\"} 0\n",
    ] {
        assert!(answer.contains(line), "no {line} in {answer}");
    }
    metrics::tests::check_documents(&answer);
    assert!(ask("GET / HTTP/1.1").await.starts_with("HTTP/1.1 404 "));
    served.abort();
}

/// Who may see what clients send, how it ends, and that another may capture afterwards.
#[tokio::test]
async fn packets_are_captured_for_those_who_may() {
    use ::control::plat::{CaptureWanted, Event, Side};

    let fixture = Fixture::new().await;
    let verb = |count| {
        Verb::Capture(CaptureWanted {
            filter: ::control::plat::CaptureFilter::default(),
            snaplen: 48,
            count: Some(count),
            seconds: None,
        })
    };
    let stranger = Peer::of(4242, 4242).with_groups(&["users"]);
    let mut stranger = fixture.client(stranger).await;
    let refused = stranger.call::<_, Answer>(verb(1)).await.unwrap_err();
    assert!(
        matches!(&refused, ipc::Error::Problem(it) if it.code == ProblemCode::NotPermitted),
        "{refused}"
    );
    for _ in 0..2 {
        let mut client = fixture.root().await;
        let answer: Answer = client.call(verb(3)).await.unwrap();
        assert!(matches!(answer, Answer::Capturing { .. }), "{answer:?}");
        let mut other = fixture.root().await;
        assert!(other.call::<_, Answer>(verb(1)).await.is_err());
        // The worker looks before each batch.
        fixture.admin.each(|_, _| ()).await.unwrap();
        (5000..5002).for_each(|port| fixture.flow(port));
        let (mut packets, mut lost) = (Vec::new(), None);
        while lost.is_none() {
            match client.event().await.unwrap() {
                Event::Captured { packets: more, .. } => packets.extend(more),
                Event::CaptureEnded { lost: count } => lost = Some(count),
                Event::SessionCreated(_) | Event::SessionDeleted(_) | Event::Lost { .. } => {}
            }
        }
        let sides: Vec<_> = packets.iter().map(|it| (it.side, it.outbound)).collect();
        assert_eq!(lost, Some(0));
        assert_eq!(
            sides,
            [(Side::V6, false), (Side::V4, true), (Side::V6, false)]
        );
        assert!(packets.iter().all(|it| it.bytes.len() <= 96 && it.len > 28));
    }
    // A client that goes away leaves nothing behind.
    let mut client = fixture.root().await;
    let _: Answer = client.call(verb(1000)).await.unwrap();
    drop(client);
    let mut next = fixture.root().await;
    while next.call::<_, Answer>(verb(1)).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// The service manager restarts what hangs only if it is not told that all is well meanwhile.
#[tokio::test]
async fn workers_that_do_nothing_are_not_healthy() {
    let fixture = Fixture::new().await;
    let workers = |health: Health| health.checks.into_iter().find(|it| it.name == "workers");
    fixture.admin.look(vec![0]).await;
    let check = workers(fixture.admin.health().await).unwrap();
    assert!(
        !check.passed && check.detail.contains("do nothing: 0"),
        "{check:?}"
    );
    fixture.admin.look(Vec::new()).await;
    assert!(workers(fixture.admin.health().await).unwrap().passed);
}

/// Once in each direction: in the log, by the number of RFC 8158, and in the status.
#[tokio::test]
async fn obs_01_a_threshold_that_is_crossed_is_an_event_and_a_line() {
    let file = std::env::temp_dir().join(format!("plat-near-{}", std::process::id()));
    let config = crate::config::log::Log {
        file: file.clone(),
        max_bytes: 1 << 20,
        keep: 1,
        destinations: false,
    };
    let fixture = Fixture::new().await;
    let admin = &fixture.admin;
    let log = EventLog::open(&config, nat64::blocks::Blocks::None, "lab").unwrap();
    admin.log_to(Some(log)).await;
    let mut facts = (*admin.facts.get()).clone();
    (facts.sessions_limit, facts.bindings_limit) = (10, 5);
    admin.facts.set(facts);
    let mut client = fixture.root().await;
    let mut near = async || {
        admin.look(Vec::new()).await;
        let Answer::Status(status) = client.call(Verb::Status).await.unwrap() else {
            panic!("no status")
        };
        let near = status.thresholds.into_iter().filter(|it| it.exceeded);
        near.map(|it| it.code).collect::<Vec<_>>()
    };
    assert_eq!(near().await, [""; 0]);
    (5000..5004).for_each(|port| fixture.flow(port));
    assert_eq!(near().await, ["bindings"]);
    assert_eq!(near().await, ["bindings"]);
    (5004..5008).for_each(|port| fixture.flow(port));
    assert_eq!(near().await, ["sessions", "bindings"]);
    admin.flush(Filter::default()).await.unwrap();
    assert_eq!(near().await, [""; 0]);
    admin.end().await;
    let written = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let lines = written
        .lines()
        .map(|it| serde_json::from_str::<Value>(it).unwrap());
    let told: Vec<_> = lines
        .filter(|it| it["event"] == 18)
        .map(|it| {
            let of = |key| it[key].as_u64();
            assert_eq!(
                (of("high_percent"), of("low_percent")),
                (Some(80), Some(70))
            );
            (
                it["code"].as_str().unwrap().to_owned(),
                of("threshold"),
                it["exceeded"].as_bool(),
            )
        })
        .collect();
    let event = |code: &str, number, exceeded| (code.to_owned(), number, Some(exceeded));
    assert_eq!(
        told,
        [
            event("bindings", Some(3), true),
            event("sessions", None, true),
            event("sessions", None, false),
            event("bindings", None, false),
        ]
    );
}

/// Said once for each address and protocol, until it has a port again.
#[tokio::test]
async fn log_8158_01_an_address_without_ports_is_an_event() {
    let file = std::env::temp_dir().join(format!("plat-full-{}", std::process::id()));
    let config = crate::config::log::Log {
        file: file.clone(),
        max_bytes: 1 << 20,
        keep: 1,
        destinations: false,
    };
    let mut fixture = Fixture::new().await;
    let log = EventLog::open(&config, nat64::blocks::Blocks::None, "lab").unwrap();
    // Only the test has it.
    fixture.tasks.drain(..).for_each(|it| it.abort());
    tokio::task::yield_now().await;
    let admin = &fixture.admin;
    admin.log_to(Some(log)).await;
    let row = |address: &str, used| PoolRow {
        address: address.parse().unwrap(),
        protocol: Protocol::Udp,
        used,
        ports: 10,
        high_water: None,
    };
    let rows = |used| [row("203.0.113.1", used), row("203.0.113.2", 3)];
    for used in [9, 10, 10, 9, 10] {
        admin.tell_of_full_addresses(&rows(used));
    }
    admin.end().await;
    let written = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let full: Vec<_> = written
        .lines()
        .filter(|it| it.contains("\"event\":12"))
        .collect();
    assert_eq!(full.len(), 2, "{written}");
    assert!(
        full[0].contains("203.0.113.1") && full[0].contains("\"udp\""),
        "{written}"
    );
}

/// A database of groups that does not answer keeps nobody else waiting.
#[tokio::test]
async fn a_look_up_of_groups_holds_up_nobody() {
    let (answer, answered) = std::sync::mpsc::channel();
    let patience = SOON;
    let question = move || answered.recv_timeout(patience).is_ok();
    let others = async {
        // Whatever runs on this thread has begun by then.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        // Too late, if nobody waits for it any more.
        let _ = answer.send(());
    };
    // Where the one who asks would hold the thread, the others did not come to answer it.
    let (found, ()) = tokio::join!(looked_up(question), others);
    assert!(found);
    assert!(!looked_up(|| panic!("no database")).await);
}

/// Has the first worker do nothing until what is returned is sent to.
async fn held_up(fixture: &Fixture) -> std::sync::mpsc::Sender<()> {
    let (release, held) = std::sync::mpsc::channel();
    let orders = fixture.admin.orders.clone();
    tokio::spawn(async move { orders.one(0, move |_, _| held.recv()).await });
    tokio::task::yield_now().await;
    release
}

async fn bindings(fixture: &Fixture) -> usize {
    let bindings = fixture.admin.each(|engine, _| engine.table_sizes().0).await;
    bindings.unwrap().into_iter().sum()
}

fn web() -> StaticBinding {
    StaticBinding {
        protocol: Protocol::Tcp,
        client: "[2001:db8::9]:8080".parse().unwrap(),
        pool: "203.0.113.1:80".parse().unwrap(),
    }
}

/// A binding that not every worker has taken is taken back by all, also by one that is late.
#[tokio::test]
async fn a_static_binding_is_made_by_all_workers_or_by_none() {
    let fixture = Fixture::of(Fixture::config(), 2).await;
    let release = held_up(&fixture).await;
    tokio::time::pause();
    let problem = fixture.admin.make(rows::static_binding(&web())).await;
    assert_eq!(problem.unwrap_err().code, ProblemCode::Failed);
    tokio::time::resume();
    release.send(()).unwrap();
    assert_eq!(bindings(&fixture).await, 0);
}

/// To add what is there changes nothing, and so there is nothing to take back.
#[tokio::test]
async fn a_static_binding_that_is_there_stays_there() {
    let fixture = Fixture::of(Fixture::config(), 2).await;
    let Answer::Done { count, .. } = fixture.admin.add(web()).await.unwrap() else {
        panic!("not done");
    };
    assert_eq!(count, Some(1));
    let Answer::Done { count, .. } = fixture.admin.add(web()).await.unwrap() else {
        panic!("not done");
    };
    assert_eq!(count, Some(0));
    let release = held_up(&fixture).await;
    tokio::time::pause();
    let problem = fixture.admin.add(web()).await.unwrap_err();
    assert_eq!(problem.code, ProblemCode::Failed);
    tokio::time::resume();
    release.send(()).unwrap();
    assert_eq!(bindings(&fixture).await, 1);
}
