//! One worker, and time.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use host::{
    fake::Refusal,
    tun::{Received, SendError},
};
use wire::{offload::OffloadError, packet::PacketBuf};

use super::*;

/// A worker whose engine is old enough for packets of a while ago.
fn started_long_ago(port: &Arc<FakeTun>) -> Workers {
    let clock = Clock::start();
    let began = clock.now().checked_sub(Duration::from_secs(1000)).unwrap();
    let engine = Engine::new(config(), [7; 16], began).unwrap();
    let queue = Arc::clone(port) as _;
    Workers::start(vec![engine], &[queue], Arc::default(), clock).unwrap()
}

/// Has the engine take a packet so many seconds ago.
async fn came(workers: &Workers, packet: Packet, seconds: u64) {
    let order = move |engine: &mut Engine, now: Instant| {
        let mut buf = PacketBuf::new();
        buf.set(&packet.bytes).unwrap();
        let then = now.checked_sub(Duration::from_secs(seconds)).unwrap();
        let _ = match packet.bytes[0] >> 4 {
            6 => engine.handle_v6(&mut buf, then),
            _ => engine.handle_v4(&mut buf, then),
        };
    };
    workers.orders().each(order).await.unwrap();
}

async fn sizes(workers: &Workers) -> (usize, usize) {
    let orders = workers.orders();
    let sizes = orders.each(|engine, _| engine.table_sizes()).await;
    sizes.unwrap()[0]
}

/// Nobody has to send anything for that.
#[tokio::test]
async fn plat_3_5_1_01_what_is_over_ends_by_itself() {
    let port = Arc::new(FakeTun::new());
    let workers = started_long_ago(&port);
    came(&workers, datagram(), 100).await;
    assert_eq!(sizes(&workers).await, (1, 1));
    came(&workers, datagram_from(6000), 400).await;
    let give_up = Instant::now() + SOON;
    while sizes(&workers).await != (1, 1) {
        assert!(Instant::now() < give_up, "it did not end");
    }
    assert!(workers.stop().is_ok());
}

/// A SYN that waited in vain is answered, although nothing comes after it.
#[tokio::test]
async fn plat_3_5_2_02_what_the_engine_sends_by_itself_leaves() {
    let port = Arc::new(FakeTun::new());
    let workers = started_long_ago(&port);
    let (server, pool) = ("8.8.8.8".parse().unwrap(), "203.0.113.1".parse().unwrap());
    let syn = compose::tcp(Pair::V4(server, pool), (443, 5000), 2, &[], b"");
    let syn = Packet::whole(&compose::V4::new(server, pool, 6).carrying(&syn));
    came(&workers, syn, 20).await;
    let error = port.to_host(SOON).unwrap().bytes;
    assert_eq!(
        (&error[16..20], &error[20..22]),
        (&[8, 8, 8, 8][..], &[3, 3][..])
    );
    assert!(workers.stop().is_ok());
}

#[tokio::test]
async fn an_idle_worker_sleeps_and_gets_up_to_end() {
    let port = Arc::new(FakeTun::new());
    let workers = started(&port);
    port.from_host(datagram());
    assert!(port.to_host(SOON).is_some());
    sizes(&workers).await;
    thread::sleep(Duration::from_millis(50));
    let beats = workers.peers.beats();
    let before = beats[0].load(Relaxed);
    thread::sleep(Duration::from_millis(250));
    let times = beats[0].load(Relaxed) - before;
    assert!(times <= 2, "it looked {times} times");
    let asked = Instant::now();
    assert!(workers.stop().is_ok());
    assert!(
        asked.elapsed() < Duration::from_millis(300),
        "it was not woken"
    );
}

/// One wake may stand for several orders.
#[tokio::test]
async fn orders_that_came_together_do_not_wait_for_a_packet() {
    let port = Arc::new(FakeTun::new());
    let workers = started(&port);
    let orders = workers.orders();
    let (free, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let first = {
        let orders = orders.clone();
        tokio::spawn(async move {
            let hold = move |_: &mut Engine, _| held.lock().unwrap().recv().is_ok();
            orders.each(hold).await
        })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    let others: Vec<_> = (0..5)
        .map(|_| {
            let orders = orders.clone();
            tokio::spawn(async move { orders.each(|_, _| ()).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let asked = Instant::now();
    free.send(()).unwrap();
    assert_eq!(first.await.unwrap(), Ok(vec![true]));
    for other in others {
        assert_eq!(other.await.unwrap(), Ok(vec![()]));
    }
    assert!(
        asked.elapsed() < Duration::from_millis(700),
        "{:?}",
        asked.elapsed()
    );
    assert!(workers.stop().is_ok());
}

/// A queue whose first packet cannot be read.
struct Garbled(FakeTun, AtomicBool);

impl Tun for Garbled {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn recv(&self, buf: &mut PacketBuf, timeout: Option<Duration>) -> io::Result<Received> {
        let received = self.0.recv(buf, timeout)?;
        let garbled = matches!(received, Received::Packet) && self.1.swap(false, Relaxed);
        Ok(match garbled {
            true => Received::Unreadable(OffloadError::Truncated),
            false => received,
        })
    }

    fn send(&self, buf: &mut PacketBuf) -> Result<(), SendError> {
        self.0.send(buf)
    }

    fn wake(&self) {
        self.0.wake();
    }
}

/// Each loss is counted, and the next packet passes.
#[tokio::test]
async fn what_the_host_garbles_or_refuses_is_counted() {
    let tun = Arc::new(Garbled(FakeTun::new(), AtomicBool::new(true)));
    let clock = Clock::start();
    let shared = Arc::new(Shared::default());
    let queue = Arc::clone(&tun) as _;
    let workers = Workers::start(shards(clock, 1), &[queue], Arc::clone(&shared), clock).unwrap();
    for port in 5000..5003 {
        tun.0.from_host(datagram_from(port));
    }
    for _ in 0..2 {
        assert!(tun.0.to_host(SOON).is_some());
    }
    assert_eq!((shared.unreadable.get(), shared.host_refused.get()), (1, 0));
    assert_eq!(workers.stats().from_v6.packets_in.get(), 2);
    tun.0.refuse(Refusal::Next(io::ErrorKind::OutOfMemory));
    for port in 5003..5005 {
        tun.0.from_host(datagram_from(port));
    }
    assert!(tun.0.to_host(SOON).is_some());
    assert_eq!((shared.unreadable.get(), shared.host_refused.get()), (1, 1));
    assert!(workers.stop().is_ok());
}
