use super::*;
use std::time::Duration;

use host::fake::{FakeTun, Packet};
use nat64::{Config, DropReason};
use wire::compose::{self, Pair, V6};

const SOON: Duration = Duration::from_secs(5);

fn engine(clock: Clock) -> Engine {
    let config = Config::new(
        "2001:db8:64::/96".parse().unwrap(),
        &["203.0.113.1".parse().unwrap()],
        "2001:db8::64".parse().unwrap(),
    );
    Engine::new(config, [7; 16], clock.now()).unwrap()
}

fn datagram() -> Packet {
    let (src, dst) = (
        "2001:db8::1".parse().unwrap(),
        "2001:db8:64::808:808".parse().unwrap(),
    );
    let udp = compose::udp(Pair::V6(src, dst), 5000, 53, b"question");
    Packet::whole(&V6::new(src, dst, 17).carrying(&udp))
}

fn started(port: &Arc<FakeTun>) -> Workers {
    let clock = Clock::start();
    let tun = Arc::clone(port) as Arc<dyn Tun>;
    Workers::start(engine(clock), tun, Arc::default(), clock).unwrap()
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
    let stuck = orders.each(|_, _| ()).await;
    assert_eq!(stuck, Err(Unanswered::Stuck));
    drop(inbox);
    let ended = orders.each(|_, _| ()).await;
    assert_eq!(ended, Err(Unanswered::Ended));
}
