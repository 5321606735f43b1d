use super::*;
use std::fs;

use nat64::{
    DropReason,
    session::State,
    tuple::{self, Endpoint4, Endpoint6},
};

const CLIENT: Endpoint6 = Endpoint6 {
    address: std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
    id: 5000,
};
const POOL: Endpoint4 = Endpoint4 {
    address: Ipv4Addr::new(203, 0, 113, 1),
    id: 6000,
};
const SERVER: Endpoint4 = Endpoint4 {
    address: Ipv4Addr::new(198, 51, 100, 10),
    id: 53,
};

fn binding() -> Binding {
    Binding {
        protocol: tuple::Protocol::Udp,
        inside: CLIENT,
        outside: POOL,
        prefix: 0,
        sessions: 1,
        is_static: false,
    }
}

fn session(now: Instant) -> SessionRecord {
    SessionRecord {
        inside: CLIENT,
        outside: POOL,
        remote: SERVER,
        prefix: 0,
        state: State::Udp,
        expires: now,
    }
}

fn refused(why: DropReason) -> Change {
    Change::Refused(Refusal {
        protocol: tuple::Protocol::Udp,
        inside: Some(CLIENT),
        outside: None,
        remote: SERVER,
        why,
    })
}

fn text(line: Line) -> String {
    match line {
        Line::Text(line) | Line::Known(line) | Line::Lost(line, _) => line,
        Line::Sync(_) => String::new(),
    }
}

/// What is written of these changes.
fn written(what: Logged, changes: &[Change], now: Instant) -> Vec<Value> {
    let (lines, queue) = sync_channel(100);
    let mut log = EventLog::to(lines, what, "lab");
    for change in changes {
        log.told(change, now);
    }
    let lines = queue.try_iter().map(text);
    lines.map(|it| serde_json::from_str(&it).unwrap()).collect()
}

#[test]
fn log_7422_01_blocks_are_written_instead_of_bindings() {
    let now = Instant::now();
    let block = PortBlock {
        subscriber: "2001:db8::/64".parse().unwrap(),
        address: POOL.address,
        ports: nat64::ports::PortRange::new(2048, 2559).unwrap(),
    };
    let mut fixed = binding();
    fixed.is_static = true;
    let changes = [
        Change::BlockTaken(block),
        Change::BindingMade(binding()),
        Change::SessionMade(session(now)),
        Change::BindingMade(fixed),
        Change::BlockGiven(block),
    ];
    let lines = written(Logged::Blocks, &changes, now);
    let ids: Vec<_> = lines
        .iter()
        .map(|it| it["event"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, [16, 10, 17]);
    assert_eq!(lines[0]["subscriber"], "2001:db8::/64");
    assert_eq!(lines[0]["pool"], "203.0.113.1");
    assert_eq!(
        (&lines[0]["port_first"], &lines[0]["port_last"]),
        (&2048.into(), &2559.into())
    );
}

/// RFC 7422 §4: from the parameters alone it can be computed whose a port was.
#[test]
fn log_7422_01_the_parameters_are_written() {
    let text = "pool = [\"203.0.113.2\", \"203.0.113.1\"]\nclients = [\"2001:db8::/60\"]\n\
                blocks = {mode = \"deterministic\", subscribers = 14, spare = 2}";
    let config = crate::config::tests::settled(text).unwrap();
    let config = config.for_engine(std::net::Ipv6Addr::LOCALHOST, Vec::new());
    let (lines, queue) = sync_channel(100);
    EventLog::to(lines, Logged::Blocks, "lab").parameters(&config);
    let line: Value = serde_json::from_str(&self::text(queue.recv().unwrap())).unwrap();
    assert_eq!(line["name"], "parameters");
    assert_eq!(line["blocks"]["subscribers"], 14);
    assert_eq!(line["blocks"]["spare"], 2);
    assert_eq!(line["prefix_len"], 64);
    assert_eq!(line["clients"][0], "2001:db8::/60");
    assert_eq!(line["pool"][1], "203.0.113.1");
}

#[test]
fn log_8158_01_bindings_are_written_and_no_destination() {
    let now = Instant::now();
    let changes = [
        Change::BindingMade(binding()),
        Change::SessionMade(session(now)),
        Change::BindingEnded(binding()),
    ];
    let events = written(Logged::Bindings, &changes, now);
    let ids: Vec<_> = events.iter().map(|it| it["event"].as_u64()).collect();
    assert_eq!(ids, [Some(10), Some(11)]);
    let event = &events[0];
    assert_eq!(event["client"], "2001:db8::1");
    assert_eq!(
        (&event["client_port"], &event["pool_port"]),
        (&5000.into(), &6000.into())
    );
    assert_eq!(
        (&event["pool"], &event["protocol"]),
        (&"203.0.113.1".into(), &"udp".into())
    );
    assert_eq!(event["instance"], "lab");
    assert!(
        !events
            .iter()
            .any(|it| it.to_string().contains("198.51.100"))
    );
    // Sessions instead of bindings, never both.
    let events = written(Logged::Sessions, &changes, now);
    assert_eq!(events.len(), 1);
    assert_eq!(
        (&events[0]["event"], &events[0]["remote"]),
        (&6.into(), &"198.51.100.10".into())
    );
}

#[test]
fn log_8158_01_exhaustion_is_written_seldom() {
    let now = Instant::now();
    let full = refused(DropReason::PoolExhausted);
    let bindings = refused(DropReason::TooManyBindings);
    let events = written(Logged::Bindings, &[full, full, full, bindings], now);
    let of = |n: usize| (events[n]["event"].as_u64(), events[n]["quota"].as_u64());
    assert_eq!(events.len(), 2);
    assert_eq!(exhaustion("subscriber-bindings"), Some((13, 3)));
    assert_eq!(exhaustion("address-rate"), Some((13, 3)));
    assert_eq!(exhaustion("ports-exhausted"), Some((12, 0)));
    assert_eq!(exhaustion("no-binding"), None);
    assert_eq!((of(0), of(1)), ((Some(3), None), (Some(13), Some(2))));
    let (lines, queue) = sync_channel(100);
    let mut log = EventLog::to(lines, Logged::Bindings, "lab");
    log.told(&full, now);
    log.told(&full, now);
    log.told(&full, now + SELDOM);
    assert!(
        queue
            .try_iter()
            .map(text)
            .last()
            .unwrap()
            .contains("\"suppressed\":1")
    );
}

/// What is said last is in the file when the program ends, and a thread that stands still does
/// not keep it from ending.
#[test]
fn the_end_is_written() {
    let file = std::env::temp_dir().join(format!("plat-end-{}", std::process::id()));
    let config = Config {
        file: file.clone(),
        max_bytes: 1 << 20,
        keep: 1,
        destinations: false,
    };
    let mut log = EventLog::open(&config, Blocks::None, "lab").unwrap();
    log.started();
    for _ in 0..1000 {
        log.told(&Change::BindingMade(binding()), Instant::now());
    }
    log.end();
    let written = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    assert_eq!(written.lines().count(), 1002);
    assert!(written.lines().next().unwrap().contains("\"started\""));
    assert!(written.lines().last().unwrap().contains("\"stopped\""));
    let (lines, _queue) = sync_channel(0);
    EventLog::to(lines, Logged::Bindings, "lab").end();
}

/// A thread that does not write holds up nobody.
#[test]
fn what_does_not_fit_is_lost_and_said() {
    let (lines, queue) = sync_channel(2);
    let mut log = EventLog::to(lines, Logged::Bindings, "lab");
    let now = Instant::now();
    for _ in 0..5 {
        log.told(&Change::BindingMade(binding()), now);
    }
    log.told(&Change::Lost(7), now);
    assert_eq!(log.lost(), 10);
    assert_eq!(queue.try_iter().count(), 2);
    log.told(&Change::BindingMade(binding()), now);
    let said = queue.try_iter().map(text).next().unwrap();
    assert!(
        said.contains("\"name\":\"lost\"") && said.contains("\"count\":10"),
        "{said}"
    );
}

/// A file that is never full.
fn endless(path: &str) -> Rotating {
    // No file, as the log would want it.
    let file = fs::OpenOptions::new().append(true).open(path).unwrap();
    Rotating::to(file, Path::new(path), Arc::new(Rotation::never())).unwrap()
}

/// What there was before waits, not what happens.
#[test]
fn log_8158_01_what_there_was_before_leaves_room_for_what_happens() {
    let (lines, queue) = sync_channel(WAITING);
    let mut log = EventLog::to(lines, Logged::Blocks, "lab");
    let block = PortBlock {
        subscriber: "2001:db8::/64".parse().unwrap(),
        address: POOL.address,
        ports: nat64::ports::PortRange::new(2048, 2559).unwrap(),
    };
    let fill = |log: &EventLog| {
        let told = (0..=WAITING).take_while(|_| log.tell_known(&Known::Block(block)));
        told.count()
    };
    assert_eq!(fill(&log), WAITING / 4);
    let now = Instant::now();
    // Another log in the same file has the same queue.
    let turned = EventLog {
        left: Arc::default(),
        ..log.clone()
    };
    assert_eq!(fill(&turned), 0);
    for _ in 0..WAITING - WAITING / 4 {
        log.told(&Change::BlockGiven(block), now);
    }
    assert_eq!(log.lost(), 0);
    // What is written makes room again.
    let (sender, left) = sync_channel(WAITING);
    queue.try_iter().for_each(|it| sender.send(it).unwrap());
    drop(sender);
    write_all(&left, endless("/dev/null"), &log.losses, &log.known);
    assert_eq!(fill(&log), WAITING / 4);
}

/// Linux has a device for it.
#[test]
fn what_the_disk_has_no_room_for_is_lost_and_said() {
    let (lines, queue) = sync_channel(9);
    let mut log = EventLog::to(lines, Logged::Bindings, "lab");
    let losses = Arc::clone(&log.losses);
    let lose = |queue: &Receiver<Line>| {
        let (sender, left) = sync_channel(9);
        queue.try_iter().for_each(|it| sender.send(it).unwrap());
        drop(sender);
        write_all(
            &left,
            endless("/dev/full"),
            &losses,
            &AtomicUsize::default(),
        );
    };
    let now = Instant::now();
    // From the second one on, there is one before it that says how many.
    for in_all in 1..=3 {
        log.told(&Change::BindingMade(binding()), now);
        lose(&queue);
        assert_eq!(log.lost(), in_all);
    }
    log.told(&Change::BindingMade(binding()), now);
    let said = queue.try_iter().map(text).next().unwrap();
    assert!(said.contains("\"count\":3"), "{said}");
}

#[test]
fn times_are_written_as_everybody_reads_them() {
    let at = |seconds: u64| timestamp(UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 5));
    assert_eq!(at(0), "1970-01-01T00:00:00.005Z");
    assert_eq!(at(951_782_400), "2000-02-29T00:00:00.005Z");
    assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59.005Z");
    assert_eq!(at(4_102_444_800), "2100-01-01T00:00:00.005Z");
}
