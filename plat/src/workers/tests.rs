use super::*;
use std::{collections::HashSet, num::NonZeroU8, time::Duration};

use host::fake::{FakeTun, Packet};
use nat64::{Config, DropReason, dispatch::ShardId};
use wire::compose::{self, Pair, V6};

mod alone;
mod together;

const SOON: Duration = Duration::from_secs(5);

fn config() -> Config {
    Config::new(
        "2001:db8:64::/96".parse().unwrap(),
        &["203.0.113.1".parse().unwrap()],
        "2001:db8::64".parse().unwrap(),
    )
}

fn shards(clock: Clock, count: u8) -> Vec<Engine> {
    let count = NonZeroU8::new(count).unwrap();
    let now = clock.now();
    ShardId::all(count)
        .map(|shard| Engine::for_shard(config(), [7; 16], count, shard, now).unwrap())
        .collect()
}

fn datagram() -> Packet {
    datagram_from(5000)
}

fn datagram_from(port: u16) -> Packet {
    let (src, dst) = (
        "2001:db8::1".parse().unwrap(),
        "2001:db8:64::808:808".parse().unwrap(),
    );
    let udp = compose::udp(Pair::V6(src, dst), port, 53, b"question");
    Packet::whole(&V6::new(src, dst, 17).carrying(&udp))
}

fn started(port: &Arc<FakeTun>) -> Workers {
    started_on(std::slice::from_ref(port))
}

fn started_on(ports: &[Arc<FakeTun>]) -> Workers {
    let clock = Clock::start();
    let queues: Vec<_> = ports.iter().map(|it| Arc::clone(it) as _).collect();
    let shards = shards(clock, u8::try_from(ports.len()).unwrap());
    Workers::start(shards, &queues, Arc::default(), clock).unwrap()
}

/// Also while packets come without a pause: nothing else wakes it then.
#[tokio::test]
async fn an_order_is_carried_out_between_packets() {
    let port = Arc::new(FakeTun::new());
    let workers = started(&port);
    let orders = workers.orders();
    assert_eq!(
        orders.each(|engine, _| engine.table_sizes()).await,
        Ok(vec![(0, 0)])
    );
    for _ in 0..1000 {
        port.from_host(datagram());
    }
    let one = || port.to_host(SOON).unwrap();
    assert_eq!(one().bytes[0] >> 4, 4);
    let forbid =
        |engine: &mut Engine, _| engine.set_own_addresses(vec!["8.8.8.8".parse().unwrap()]);
    assert_eq!(orders.each(forbid).await, Ok(vec![()]));
    // The engine that packets meet is the one that was told.
    while port.to_host(Duration::from_millis(200)).is_some() {}
    port.from_host(datagram());
    assert_eq!(one().bytes[0] >> 4, 6, "no error was sent");
    let refused = |engine: &mut Engine, _| {
        let stats = engine.stats();
        let refused = DropReason::DestinationRefused;
        stats.from_v6.dropped_by_state.get(refused)
    };
    assert!(orders.each(refused).await.unwrap()[0] >= 1);
    assert!(workers.stop().is_ok());
    let ended = orders.each(|_, _| ()).await;
    assert_eq!(ended, Err(Unanswered::Ended));
}

/// However many orders are given, packets get most of the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_do_not_hold_up_packets() {
    const PACKETS: u64 = 50_000;
    const LONG: Duration = Duration::from_millis(4);
    let port = Arc::new(FakeTun::new());
    for _ in 0..PACKETS {
        port.from_host(datagram());
    }
    let workers = started(&port);
    let began = Arc::new(std::sync::Mutex::new(Vec::new()));
    let asked: Vec<_> = (0..8)
        .map(|_| {
            let (orders, began) = (workers.orders(), Arc::clone(&began));
            tokio::spawn(async move {
                let order = move |engine: &mut Engine, _| {
                    let came = engine.stats().from_v6.packets_in.get();
                    began
                        .lock()
                        .unwrap()
                        .push((std::time::Instant::now(), came));
                    thread::sleep(LONG);
                };
                orders.each(order).await.unwrap();
            })
        })
        .collect();
    for asked in asked {
        asked.await.unwrap();
    }
    let began = began.lock().unwrap();
    let mut checked = 0;
    for pair in began.windows(2) {
        if pair[1].1 < PACKETS {
            assert!(pair[1].0 - pair[0].0 >= LONG * 4, "{began:?}");
            assert!(pair[1].1 > pair[0].1, "{began:?}");
            checked += 1;
        }
    }
    assert!(checked > 2, "too few packets for the test: {began:?}");
    assert!(workers.stop().is_ok());
}

/// Whoever asks is told when a worker has ended, and does not keep the interface.
#[tokio::test]
async fn a_failed_interface_ends_the_worker_and_what_it_was_asked() {
    let port = Arc::new(FakeTun::new());
    let workers = started(&port);
    let orders = workers.orders();
    assert!(!workers.has_ended());
    port.fail(io::ErrorKind::NotFound);
    while !workers.has_ended() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let ended = orders.each(|_, _| ()).await;
    assert_eq!(ended, Err(Unanswered::Ended));
    let error = workers.stop().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert_eq!(Arc::strong_count(&port), 1);
}

/// A worker that does not come to its orders is given up, not waited for for ever.
#[tokio::test(start_paused = true)]
async fn a_stuck_worker_is_not_waited_for_for_ever() {
    let tun = Arc::new(FakeTun::new()) as Arc<dyn Tun>;
    let (line, inbox) = orders::line(&tun);
    let orders = Orders::new(vec![line]);
    let asked = tokio::time::Instant::now();
    let stuck = orders.each(|_, _| ()).await;
    assert_eq!(stuck, Err(Unanswered::Stuck));
    let stuck = orders.one(0, |_, _| ()).await;
    assert_eq!(stuck, Err(Unanswered::Stuck));
    assert_eq!(asked.elapsed().as_secs(), 10);
    // Nor when so many orders wait that there is no room for another.
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let orders = orders.clone();
            tokio::spawn(async move { orders.each(|_, _| ()).await })
        })
        .collect();
    for stuck in waiting {
        assert_eq!(stuck.await.unwrap(), Err(Unanswered::Stuck));
    }
    assert_eq!(asked.elapsed().as_secs(), 15);
    assert_eq!(inbox.try_iter().count(), 64);
    drop(inbox);
    let ended = orders.each(|_, _| ()).await;
    assert_eq!(ended, Err(Unanswered::Ended));
}

/// What is taken back later must not be missing anywhere: one that cannot be told keeps it from none.
#[tokio::test(start_paused = true)]
async fn all_are_told_but_who_cannot_be() {
    let tun = Arc::new(FakeTun::new()) as Arc<dyn Tun>;
    let (lines, inboxes): (Vec<_>, Vec<_>) = (0..3).map(|_| orders::line(&tun)).unzip();
    let orders = Orders::new(lines);
    for _ in 0..100 {
        let stuck = orders.one(0, |_, _| ()).await;
        assert_eq!(stuck, Err(Unanswered::Stuck));
    }
    assert_eq!(orders.each(|_, _| ()).await, Err(Unanswered::Stuck));
    let told = inboxes.iter().map(|it| it.try_iter().count());
    assert_eq!(told.collect::<Vec<_>>(), [64, 1, 1]);
}

/// Whichever queue the kernel chooses, there and back: every packet gets through, and all answers
/// find their client.
#[test]
fn packets_find_their_shard_from_any_queue() {
    const FLOWS: u16 = 300;
    let ports: Vec<_> = (0..3).map(|_| Arc::new(FakeTun::new())).collect();
    let workers = started_on(&ports);
    let collect = |wanted: usize| {
        let mut all = Vec::new();
        let give_up = std::time::Instant::now() + SOON;
        while all.len() < wanted && std::time::Instant::now() < give_up {
            for port in &ports {
                all.extend(std::iter::from_fn(|| {
                    port.to_host(Duration::from_millis(1))
                }));
            }
        }
        all
    };
    for flow in 0..FLOWS {
        let queue = usize::from(flow) % ports.len();
        ports[queue].from_host(datagram_from(10_000 + flow));
        // A queue at a time takes so many; the rings are not what is tested here.
        if flow % 50 == 49 {
            thread::sleep(Duration::from_millis(20));
        }
    }
    let sent = collect(FLOWS.into());
    assert_eq!(sent.len(), usize::from(FLOWS));
    let mut outsides = HashSet::new();
    for (n, packet) in sent.iter().enumerate() {
        let bytes = &packet.bytes;
        let source = [bytes[20], bytes[21]];
        assert!(outsides.insert(source));
        let (server, pool) = ("8.8.8.8".parse().unwrap(), "203.0.113.1".parse().unwrap());
        let udp = compose::udp(
            Pair::V4(server, pool),
            53,
            u16::from_be_bytes(source),
            b"answer",
        );
        let answer = compose::V4::new(server, pool, 17).carrying(&udp);
        ports[(n + 1) % ports.len()].from_host(Packet::whole(&answer));
        if n % 50 == 49 {
            thread::sleep(Duration::from_millis(20));
        }
    }
    let answers = collect(FLOWS.into());
    let clients: HashSet<_> = answers.iter().map(|it| it.bytes[42..44].to_vec()).collect();
    assert_eq!(clients.len(), usize::from(FLOWS));
    let each: Vec<_> = workers.shard_stats();
    assert!(
        each.iter().all(|it| it.from_v6.passed.get() > 50),
        "one does all"
    );
    let sum = workers.stats();
    assert_eq!(sum.from_v6.packets_in.get(), u64::from(FLOWS));
    assert_eq!(sum.from_v4.passed.get(), u64::from(FLOWS));
    assert!(workers.stop().is_ok());
}

/// Workers that sleep have a pulse, one that is stuck has none.
#[tokio::test]
async fn only_a_stuck_worker_has_no_pulse() {
    let ports: Vec<_> = (0..2).map(|_| Arc::new(FakeTun::new())).collect();
    let workers = started_on(&ports);
    // With something that is over in five minutes, too.
    for port in &ports {
        for client in 5000..5010 {
            port.from_host(datagram_from(client));
        }
    }
    let mut pulse = workers.pulse();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(pulse.missing(), [0; 0]);
    let (free, stuck) = std::sync::mpsc::channel::<()>();
    let stuck = std::sync::Mutex::new(stuck);
    // The first that comes to it holds the lock; the other one cannot have it.
    let orders = workers.orders();
    let asked = tokio::spawn(async move {
        let wait = move |_: &mut Engine, _| stuck.try_lock().is_ok_and(|it| it.recv().is_ok());
        orders.each(wait).await
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    pulse.missing();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(pulse.missing().len(), 1);
    free.send(()).unwrap();
    assert!(asked.await.unwrap().is_ok());
    assert!(workers.stop().is_ok());
}

/// What cannot be passed on is lost with a name, not waited with.
#[test]
fn a_full_ring_loses_packets_and_counts_them() {
    let ports: Vec<_> = (0..2).map(|_| Arc::new(FakeTun::new())).collect();
    let queues: Vec<_> = ports
        .iter()
        .map(|it| Arc::clone(it) as Arc<dyn Tun>)
        .collect();
    let peers = Arc::new(Peers::new(&queues));
    let clock = Clock::start();
    let mut engines = shards(clock, 2);
    let mut buf = wire::packet::PacketBuf::new();
    let (mut passed, mut lost) = (0, 0);
    // Nobody takes them out.
    for port in 1..5000 {
        buf.set(&datagram_from(port).bytes).unwrap();
        let handled = engines[0].handle(&mut buf, clock.now());
        let nat64::dispatch::Handled::Elsewhere(passage) = handled else {
            continue;
        };
        if peers.pass_on(&mut buf, passage) {
            passed += 1;
        } else {
            assert_eq!(buf.bytes(), datagram_from(port).bytes, "it is still here");
            engines[0].give_up(&buf, passage);
            lost += 1;
        }
    }
    assert_eq!(passed, 256);
    assert!(lost > 1000);
    let stats = engines[0].stats();
    let counted = stats.from_v6.dropped_by_state.get(DropReason::RingFull);
    assert_eq!(counted, lost);
    // And none is lost of what was passed on.
    let seat = Seat::all(&peers).nth(1).unwrap();
    assert!(!seat.lie_down());
    let mut taken = 0;
    while let Some((mut buf, passage)) = seat.next() {
        let _ = engines[1].take_over(&mut buf, passage, clock.now());
        peers.put_back(buf);
        taken += 1;
    }
    assert_eq!(taken, 256);
    assert!(seat.lie_down());
    assert_eq!(engines[1].stats().from_v6.passed.get(), 256);
    // No buffer was lost with those that were refused: there are as many again.
    let again = (5000..8000).filter(|port| {
        buf.set(&datagram_from(*port).bytes).unwrap();
        let handled = engines[0].handle(&mut buf, clock.now());
        let passage = match handled {
            nat64::dispatch::Handled::Elsewhere(passage) => passage,
            nat64::dispatch::Handled::Here(_) => return false,
        };
        peers.pass_on(&mut buf, passage)
    });
    assert_eq!(again.count(), 256);
    // And as many for the way back.
    let back = (5000..8000).filter(|port| {
        buf.set(&datagram_from(*port).bytes).unwrap();
        let handled = engines[1].handle(&mut buf, clock.now());
        let passage = match handled {
            nat64::dispatch::Handled::Elsewhere(passage) => passage,
            nat64::dispatch::Handled::Here(_) => return false,
        };
        peers.pass_on(&mut buf, passage)
    });
    assert_eq!(back.count(), 256);
}

#[test]
fn as_many_workers_as_there_are_processors_and_ports_for() {
    let n = |n| NonZeroU8::new(n).unwrap();
    assert_eq!(how_many(Some(n(4)), n(200)), n(4));
    assert_eq!(how_many(Some(n(4)), n(2)), n(2));
    assert_eq!(how_many(None, n(1)), n(1));
    let processors = thread::available_parallelism().unwrap().get();
    assert_eq!(usize::from(how_many(None, n(200)).get()), processors.min(8));
}

/// A sleeping worker is woken by the first packet that is passed on to it, and not by the next ones:
/// it is awake, and a wake costs a system call.
#[test]
fn a_sleeping_worker_is_woken_once() {
    let ports: Vec<_> = (0..2).map(|_| Arc::new(FakeTun::new())).collect();
    let queues: Vec<_> = ports
        .iter()
        .map(|it| Arc::clone(it) as Arc<dyn Tun>)
        .collect();
    let peers = Arc::new(Peers::new(&queues));
    let seat = Seat::all(&peers).nth(1).unwrap();
    let clock = Clock::start();
    let mut engine = shards(clock, 2).remove(0);
    let mut buf = wire::packet::PacketBuf::new();
    let mut ports_tried = 1..5000;
    let mut pass_one_on = || loop {
        let port = ports_tried.next().unwrap();
        buf.set(&datagram_from(port).bytes).unwrap();
        let handled = engine.handle(&mut buf, clock.now());
        if let nat64::dispatch::Handled::Elsewhere(passage) = handled {
            assert!(peers.pass_on(&mut buf, passage));
            break;
        }
    };
    let was_woken = || {
        let received = queues[1].recv(&mut wire::packet::PacketBuf::new(), Some(Duration::ZERO));
        matches!(received, Ok(host::tun::Received::Woken))
    };
    pass_one_on();
    assert!(!was_woken(), "it was awake");
    assert!(!seat.lie_down(), "something was there");
    pass_one_on();
    assert!(!was_woken(), "it was awake still");
    assert!(seat.next().is_some() && seat.next().is_some());
    assert!(seat.lie_down());
    pass_one_on();
    assert!(was_woken());
    pass_one_on();
    assert!(!was_woken(), "it was woken already");
}
