use super::*;
use std::time::Duration;

use control::plat::Protocol;
use host::{
    clock::Clock,
    fake::{FakeTun, Packet, Refusal},
};
use nat64::{Config, Engine};
use wire::compose::{self, Pair, V4, V6};

use crate::workers::{Shared, Workers};

const SOON: Duration = Duration::from_secs(5);

struct Tapped {
    tun: Arc<FakeTun>,
    shared: Arc<Shared>,
    workers: Workers,
}

impl Tapped {
    fn new() -> Self {
        let tun = Arc::new(FakeTun::new());
        let clock = Clock::start();
        let engine = Engine::new(config(), [7; 16], clock.now()).unwrap();
        let shared = Arc::new(Shared::default());
        let queue = Arc::clone(&tun) as _;
        let workers = Workers::start(vec![engine], &[queue], Arc::clone(&shared), clock);
        Self {
            tun,
            shared,
            workers: workers.unwrap(),
        }
    }

    async fn capture(&self, filter: CaptureFilter) -> (Arc<Capture>, Receiver<Captured>) {
        let (capture, packets) = Capture::new(filter, 64);
        assert!(self.shared.tap.begin(&capture));
        self.settle().await;
        (capture, packets)
    }

    /// Waits until the worker is between two batches: it looks at the tap before the next.
    async fn settle(&self) {
        self.workers.orders().each(|_, _| ()).await.unwrap();
    }

    fn client_sends(&self, port: u16, server: &str, payload: &[u8]) {
        self.client_sends_to(prefix(), port, server, payload);
    }

    fn client_sends_to(&self, prefix: Pref64, port: u16, server: &str, payload: &[u8]) {
        let src = "2001:db8::1".parse().unwrap();
        let dst = prefix.embed(server.parse().unwrap());
        let udp = compose::udp(Pair::V6(src, dst), port, 53, payload);
        let packet = V6::new(src, dst, 17).carrying(&udp);
        self.tun.from_host(Packet::whole(&packet));
    }

    /// A datagram of a client, and what came of it.
    fn send(&self, port: u16, server: &str, payload: &[u8]) -> Vec<u8> {
        self.send_to(prefix(), port, server, payload)
    }

    fn send_to(&self, prefix: Pref64, port: u16, server: &str, payload: &[u8]) -> Vec<u8> {
        self.client_sends_to(prefix, port, server, payload);
        self.tun.to_host(SOON).unwrap().bytes
    }

    fn pass(&self, packet: &[u8]) -> Vec<u8> {
        self.tun.from_host(Packet::whole(packet));
        self.tun.to_host(SOON).unwrap().bytes
    }
}

fn config() -> Config {
    Config::new(
        prefix(),
        &["203.0.113.1".parse().unwrap()],
        "2001:db8::64".parse().unwrap(),
    )
}

fn prefix() -> Pref64 {
    "2001:db8:64::/96".parse().unwrap()
}

/// The next so many packets, and that there are no more.
async fn told(packets: &mut Receiver<Captured>, count: usize) -> Vec<Captured> {
    let mut all = Vec::new();
    while all.len() < count {
        let packet = tokio::time::timeout(SOON, packets.recv()).await;
        all.extend(packet.expect("another packet"));
    }
    assert!(packets.try_recv().is_err(), "no more than {count}");
    all
}

#[tokio::test]
async fn both_sides_are_captured_and_cut() {
    let tapped = Tapped::new();
    let (_, mut packets) = tapped.capture(CaptureFilter::default()).await;
    let out = tapped.send(5000, "8.8.8.8", &[7; 100]);
    let all = told(&mut packets, 2).await;
    let [came, left] = &all[..] else {
        panic!("{all:?}")
    };
    assert_eq!((came.side, came.outbound, came.len), (Side::V6, false, 148));
    assert_eq!((left.side, left.outbound, left.len), (Side::V4, true, 128));
    assert_eq!(left.bytes, out[..64]);
    assert_eq!((came.bytes.len(), &came.comment), (64, &None));
    assert!(left.at >= came.at && came.at > 1_600_000_000_000_000_000);
    // The way back.
    let (src, dst) = ("8.8.8.8".parse().unwrap(), "203.0.113.1".parse().unwrap());
    let port = u16::from_be_bytes([out[20], out[21]]);
    let udp = compose::udp(Pair::V4(src, dst), 53, port, b"answer");
    tapped.pass(&V4::new(src, dst, 17).carrying(&udp));
    let all = told(&mut packets, 2).await;
    let sides: Vec<_> = all.iter().map(|it| (it.side, it.outbound)).collect();
    assert_eq!(sides, [(Side::V4, false), (Side::V6, true)]);
}

#[tokio::test]
async fn what_does_not_pass_says_why() {
    let tapped = Tapped::new();
    let only = CaptureFilter {
        dropped: true,
        ..CaptureFilter::default()
    };
    let (_, mut packets) = tapped.capture(only).await;
    tapped.send(5000, "8.8.8.8", b"passes");
    tapped.send(5000, "10.0.0.1", b"is refused");
    let all = told(&mut packets, 2).await;
    let [came, error] = &all[..] else {
        panic!("{all:?}")
    };
    let comment = came.comment.as_deref().unwrap();
    assert!(
        comment.starts_with("dropped, and its sender was told: destination-refused: ")
            && comment.ends_with('.'),
        "{comment}"
    );
    assert_eq!((error.side, error.outbound), (Side::V6, true));
    // One that nobody is told of, and one that the host does not take.
    let (src, dst) = ("8.8.8.8".parse().unwrap(), "203.0.113.1".parse().unwrap());
    let udp = compose::udp(Pair::V4(src, dst), 53, 9, b"nobody asked");
    tapped
        .tun
        .from_host(Packet::whole(&V4::new(src, dst, 17).carrying(&udp)));
    let [stray] = &told(&mut packets, 1).await[..] else {
        panic!("a stray packet")
    };
    tapped.tun.refuse(Refusal::Next(std::io::ErrorKind::Other));
    tapped.client_sends(5000, "8.8.8.8", b"is lost");
    let all = told(&mut packets, 2).await;
    let comments = [stray, &all[0], &all[1]].map(|it| it.comment.as_deref());
    let [Some(stray), None, Some(lost)] = comments else {
        panic!("{comments:?}")
    };
    assert!(stray.starts_with("dropped"), "{stray}");
    assert!(lost.starts_with("lost: the host did not take it"), "{lost}");
}

#[tokio::test]
async fn only_what_is_meant_is_captured() {
    let tapped = Tapped::new();
    let filter = CaptureFilter {
        protocol: Some(Protocol::Udp),
        client: "[2001:db8::1]:5001".parse().ok(),
        remote: "8.8.8.8".parse().ok(),
        ..CaptureFilter::default()
    };
    let (_, mut packets) = tapped.capture(filter).await;
    tapped.send(5000, "8.8.8.8", b"another port");
    tapped.send(5001, "8.8.4.4", b"another server");
    let out = tapped.send(5001, "8.8.8.8", b"this one");
    told(&mut packets, 2).await;
    // A router tells of it.
    let (router, dst) = ("192.0.2.1".parse().unwrap(), "203.0.113.1".parse().unwrap());
    let error = compose::icmp4(3, 1, [0; 4], &out);
    tapped.pass(&V4::new(router, dst, 1).carrying(&error));
    // It quotes what was meant.
    told(&mut packets, 2).await;
}

/// Of a capture that goes on while the prefixes change, too.
#[tokio::test]
async fn a_server_is_read_out_of_the_prefixes_as_they_are_now() {
    let tapped = Tapped::new();
    let filter = CaptureFilter {
        remote: "8.8.8.8".parse().ok(),
        ..CaptureFilter::default()
    };
    let (_, mut packets) = tapped.capture(filter).await;
    let new: Pref64 = "2001:db8:65::/96".parse().unwrap();
    let orders = tapped.workers.orders();
    let reconfigured = orders.each(move |engine, _| {
        let mut config = config();
        config.prefixes.push(new);
        engine.reconfigure(config).is_ok()
    });
    assert_eq!(reconfigured.await.unwrap(), [true]);
    tapped.send_to(new, 5000, "8.8.8.8", b"under the new prefix");
    told(&mut packets, 2).await;
}

#[tokio::test]
async fn what_finds_no_place_is_lost_and_counted() {
    let (capture, mut packets) = Capture::new(CaptureFilter::default(), 1000);
    let mut buf = PacketBuf::new();
    buf.set(&[0x45; 1000]).unwrap();
    let fit = WAITING.min(WAITING_BYTES / 1000);
    for _ in 0..fit + 5 {
        capture.put(capture.packet(&buf, false));
    }
    assert_eq!(capture.lost(), 5);
    capture.taken(&packets.recv().await.unwrap());
    capture.put(capture.packet(&buf, false));
    assert_eq!(capture.lost(), 5);
    // Long packets are limited by their bytes, not by their number.
    let (capture, mut packets) = Capture::new(CaptureFilter::default(), 60_000);
    buf.set(&[0x45; 60_000]).unwrap();
    for _ in 0..WAITING {
        capture.put(capture.packet(&buf, false));
    }
    let fit = WAITING_BYTES as u64 / 60_000;
    assert_eq!(WAITING as u64 - capture.lost(), fit);
    // As many as are taken out find a place again, whatever was lost.
    for _ in 0..fit {
        capture.taken(&packets.recv().await.unwrap());
        capture.put(capture.packet(&buf, false));
    }
    assert_eq!(WAITING as u64 - capture.lost(), fit);
}

/// What the host does not take as one leaves in parts, and is told of as those.
#[tokio::test]
async fn a_super_segment_that_is_divided_is_captured_in_parts() {
    use std::num::NonZeroU16;
    use wire::offload::{Gso, GsoKind, Offload};

    let tapped = Tapped::new();
    let (src, dst) = (
        "2001:db8::1".parse().unwrap(),
        prefix().embed("8.8.8.8".parse().unwrap()),
    );
    let segment = |flags, payload: &[u8]| {
        let segment = compose::tcp(Pair::V6(src, dst), (5000, 80), flags, &[], payload);
        Packet::whole(&V6::new(src, dst, 6).carrying(&segment))
    };
    tapped.tun.from_host(segment(2, b""));
    assert!(tapped.tun.to_host(SOON).is_some());
    let (_, mut packets) = tapped.capture(CaptureFilter::default()).await;
    tapped.tun.refuse(Refusal::Segments);
    let mut large = segment(16, &[7; 2500]);
    large.offload = Offload {
        gso: Some(Gso {
            kind: GsoKind::TcpV6 { ecn: false },
            size: NonZeroU16::new(1000).unwrap(),
            header_len: 60,
        }),
        ..large.offload
    };
    tapped.tun.from_host(large);
    let all = told(&mut packets, 4).await;
    let lens: Vec<_> = all.iter().map(|it| (it.outbound, it.len)).collect();
    assert_eq!(
        lens,
        [(false, 2560), (true, 1040), (true, 1040), (true, 540)]
    );
}

#[tokio::test]
async fn one_looks_at_a_time_and_nobody_afterwards() {
    let tapped = Tapped::new();
    let (capture, mut packets) = tapped.capture(CaptureFilter::default()).await;
    assert!(!tapped.shared.tap.begin(&capture));
    tapped.shared.tap.end();
    tapped.settle().await;
    tapped.send(5000, "8.8.8.8", b"not looked at");
    tapped.settle().await;
    told(&mut packets, 0).await;
    assert!(tapped.shared.tap.begin(&capture));
}
