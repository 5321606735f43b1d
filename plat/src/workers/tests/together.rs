//! What several workers do with one packet.

use std::time::Duration;

use control::plat::{CaptureFilter, Side};
use tokio::sync::mpsc::Receiver;

use super::*;
use crate::workers::tap::{Capture, Captured};

struct Two {
    ports: Vec<Arc<FakeTun>>,
    shared: Arc<Shared>,
    workers: Workers,
}

impl Two {
    fn new() -> Self {
        let ports: Vec<_> = (0..2).map(|_| Arc::new(FakeTun::new())).collect();
        let clock = Clock::start();
        let queues: Vec<_> = ports.iter().map(|it| Arc::clone(it) as _).collect();
        let shared = Arc::new(Shared::default());
        let workers = Workers::start(shards(clock, 2), &queues, Arc::clone(&shared), clock);
        let workers = workers.unwrap();
        Self {
            ports,
            shared,
            workers,
        }
    }

    /// The next packet that leaves, and by which queue.
    fn left(&self) -> Option<(usize, Packet)> {
        let give_up = std::time::Instant::now() + SOON;
        while std::time::Instant::now() < give_up {
            for (at, port) in self.ports.iter().enumerate() {
                if let Some(packet) = port.to_host(Duration::from_micros(200)) {
                    return Some((at, packet));
                }
            }
        }
        None
    }

    async fn capture(&self, filter: CaptureFilter) -> Receiver<Captured> {
        let (capture, packets) = Capture::new(filter, 64);
        assert!(self.shared.tap.begin(&capture));
        self.settle().await;
        packets
    }

    /// Waits until both are between two batches, whatever they passed to each other.
    async fn settle(&self) {
        for _ in 0..3 {
            self.workers.orders().each(|_, _| ()).await.unwrap();
        }
    }
}

/// What was told, in the order of time: each worker tells for itself.
fn all(packets: &mut Receiver<Captured>) -> Vec<(Side, bool, Option<String>)> {
    let mut told: Vec<_> = std::iter::from_fn(|| packets.try_recv().ok()).collect();
    told.sort_by_key(|it| it.at);
    told.into_iter()
        .map(|it| (it.side, it.outbound, it.comment))
        .collect()
}

/// Many more packets than there are buffers, one after the other.
#[test]
fn buffers_come_back_from_the_other_worker() {
    let two = Two::new();
    let mut by_other = 0;
    for port in 5000..7500 {
        two.ports[0].from_host(datagram_from(port));
        let (at, _) = two.left().expect("a buffer for every packet");
        by_other += at;
    }
    assert!(by_other > 1000, "{by_other}");
    assert!(two.workers.stop().is_ok());
}

/// A packet as it arrived is told of once, by whoever handles it.
#[tokio::test]
async fn a_packet_that_is_passed_on_is_captured_once() {
    let two = Two::new();
    let mut packets = two.capture(CaptureFilter::default()).await;
    let mut passed_on = 0;
    for port in 5000..5020 {
        two.ports[0].from_host(datagram_from(port));
        passed_on += two.left().unwrap().0;
        two.settle().await;
        let story = [(Side::V6, false, None), (Side::V4, true, None)];
        assert_eq!(all(&mut packets), story);
    }
    assert!(passed_on > 4);
    assert!(two.workers.stop().is_ok());
}

/// Put together by one worker and sent by the other: its arrival is told of once, and whatever
/// becomes of it.
#[tokio::test]
async fn what_was_put_together_elsewhere_is_told_of_as_passed_on() {
    for (server, passes) in [
        ("2001:db8:64::808:808", true),
        ("2001:db8:64::a00:1", false),
    ] {
        let two = Two::new();
        let mut packets = two.capture(CaptureFilter::default()).await;
        let (src, dst) = ("2001:db8::1".parse().unwrap(), server.parse().unwrap());
        let mut elsewhere = 0;
        for id in 0..30u32 {
            let port = 5000 + u16::try_from(id).unwrap();
            let udp = compose::udp(Pair::V6(src, dst), port, 53, &[7; 40]);
            for (offset, more, part) in [(0, true, &udp[..24]), (3, false, &udp[24..])] {
                let part = compose::fragment(17, offset, more, id, part);
                let part = V6::new(src, dst, 44).carrying(&part);
                two.ports[0].from_host(Packet::whole(&part));
            }
            two.left().unwrap();
            two.settle().await;
            let told = all(&mut packets);
            let comments: Vec<_> = told.iter().map(|it| it.2.as_deref()).collect();
            assert!(comments[0].is_some_and(|it| it.starts_with("kept: ")));
            // A reply is of the side that it came from.
            let answer = if passes { Side::V4 } else { Side::V6 };
            let (last, before) = told.split_last().unwrap();
            assert_eq!(*last, (answer, true, None));
            assert!(before.iter().all(|it| (it.0, it.1) == (Side::V6, false)));
            if comments[1].is_some_and(|it| it.starts_with("passed on, ")) {
                elsewhere += 1;
                assert_eq!(told.len(), if passes { 3 } else { 4 }, "{told:?}");
            } else {
                assert_eq!(told.len(), 3, "{told:?}");
            }
            let refused = comments[told.len() - 2];
            let refused = refused.is_some_and(|it| it.starts_with("dropped, and its sender"));
            assert_eq!(refused, !passes, "{told:?}");
        }
        assert!(elsewhere > 4, "{elsewhere}");
        assert!(two.workers.stop().is_ok());
    }
}

/// An order for one worker is that one's.
#[tokio::test]
async fn one_worker_can_be_asked() {
    let two = Two::new();
    let orders = two.workers.orders();
    assert_eq!(orders.workers(), 2);
    let make = |engine: &mut Engine, now| {
        let mut buf = wire::packet::PacketBuf::new();
        buf.set(&datagram().bytes).unwrap();
        let _ = engine.handle_v6(&mut buf, now);
        engine.table_sizes()
    };
    assert_eq!(orders.one(1, make).await, Ok(Some((1, 1))));
    let sizes = orders.each(|engine, _| engine.table_sizes()).await;
    assert_eq!(sizes, Ok(vec![(0, 0), (1, 1)]));
    assert_eq!(orders.one(2, |_, _| ()).await, Ok(None));
    assert!(two.workers.stop().is_ok());
    let ended = orders.one(0, |_, _| ()).await;
    assert_eq!(ended, Err(Unanswered::Ended));
    assert_eq!(Unanswered::Ended.to_string(), "a worker has ended");
    assert_eq!(Unanswered::Stuck.to_string(), "a worker does not answer");
}

/// What a worker that is busy cannot take is lost with a name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_busy_worker_cannot_take_is_counted() {
    const PACKETS: u16 = 2000;
    let two = Two::new();
    let orders = two.workers.orders();
    let (free, held) = std::sync::mpsc::channel::<()>();
    let hold = tokio::spawn(async move { orders.one(1, move |_, _| held.recv().is_ok()).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    for port in 0..PACKETS {
        two.ports[0].from_host(datagram_from(5000 + port));
    }
    let first = &two.workers.shard_stats()[0];
    let give_up = std::time::Instant::now() + SOON;
    let accounted = || first.from_v6.passed.get() + first.from_v6.dropped_by_state.total();
    while accounted() + 256 < PACKETS.into() && std::time::Instant::now() < give_up {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let lost = first.from_v6.dropped_by_state.get(DropReason::RingFull);
    assert!(lost > 300, "{lost}");
    assert_eq!(accounted() + 256, u64::from(PACKETS));
    free.send(()).unwrap();
    assert_eq!(hold.await.unwrap(), Ok(Some(true)));
    // Those that had a place are not lost.
    while two.workers.stats().from_v6.passed.get() + lost < PACKETS.into() {
        assert!(std::time::Instant::now() < give_up);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(two.workers.stop().is_ok());
}

/// The SYN of a client to another one that nobody answers: the error of one worker is sent by the
/// other, whose client it is.
#[test]
fn plat_3_8_01_what_one_worker_says_to_a_client_of_the_other_gets_there() {
    use nat64::dispatch::Handled;

    const SYNS: u16 = 40;
    let clock = Clock::start();
    let long_ago = |seconds| {
        let ago = Duration::from_secs(seconds);
        clock.now().checked_sub(ago).unwrap()
    };
    let config = Config {
        errors: nat64::config::ErrorPolicy::Send,
        ..config()
    };
    let count = NonZeroU8::new(2).unwrap();
    let mut engines: Vec<_> = ShardId::all(count)
        .map(|it| Engine::for_shard(config.clone(), [7; 16], count, it, long_ago(100)).unwrap())
        .collect();
    let (src, dst) = (
        "2001:db8::1".parse().unwrap(),
        "2001:db8:64::cb00:7101".parse().unwrap(),
    );
    let mut buf = wire::packet::PacketBuf::new();
    for n in 0..SYNS {
        let syn = compose::tcp(
            Pair::V6(src, dst),
            (20_000 + n, 30_000 + 16 * n),
            2,
            &[],
            b"",
        );
        buf.set(&V6::new(src, dst, 6).carrying(&syn)).unwrap();
        let mut handled = engines[0].handle(&mut buf, long_ago(20));
        while let Handled::Elsewhere(passage) = handled {
            let there = &mut engines[passage.to.index()];
            handled = there.take_over(&mut buf, passage, long_ago(20));
        }
    }
    let ports: Vec<_> = (0..2).map(|_| Arc::new(FakeTun::new())).collect();
    let queues: Vec<_> = ports.iter().map(|it| Arc::clone(it) as _).collect();
    let workers = Workers::start(engines, &queues, Arc::default(), clock).unwrap();
    let mut told = HashSet::new();
    let give_up = std::time::Instant::now() + SOON;
    while told.len() < SYNS.into() && std::time::Instant::now() < give_up {
        for port in &ports {
            while let Some(error) = port.to_host(Duration::from_millis(1)) {
                let bytes = error.bytes;
                assert_eq!(bytes[40..42], [1, 4]);
                told.insert([bytes[88], bytes[89]]);
            }
        }
    }
    assert_eq!(told.len(), usize::from(SYNS));
    assert!(workers.stop().is_ok());
}
