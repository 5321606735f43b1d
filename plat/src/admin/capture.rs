//! Packets for those who capture them.

use std::{sync::Arc, time::Duration};

use control::{
    Problem, ProblemCode,
    plat::{Answer, CaptureWanted, CapturedPacket, Event, to_hex},
};
use ipc::Subscriber;
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, sleep_until},
};

use super::Admin;
use crate::workers::{
    Shared,
    tap::{Capture, Captured},
};

/// The longest packet there is, with a super-segment's headers.
const LONGEST: u32 = 1 << 16;

/// Bytes of packets in one message, about: their digits are twice as many.
const AT_ONCE: usize = 128 << 10;

/// Messages to the client that it has not read. With more, packets wait, and then are lost.
const UNREAD: usize = 4;

/// For how long nobody is asked how long it is to be: until the client is gone.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

impl Admin {
    /// Sends the packets that are wanted to `subscriber` as events, until that is gone or has all.
    pub(super) fn capture(
        &self,
        wanted: CaptureWanted,
        subscriber: &Subscriber,
    ) -> Result<Answer, Problem> {
        let CaptureWanted {
            filter,
            snaplen,
            count,
            seconds,
        } = wanted;
        if snaplen == 0 || count == Some(0) || seconds == Some(0) {
            let what = "of nothing, nothing can be captured";
            return Err(Problem::new(ProblemCode::Invalid, what));
        }
        let snaplen = usize::try_from(snaplen.min(LONGEST)).unwrap_or(usize::MAX);
        let facts = self.facts.get();
        let (capture, packets) = Capture::new(filter, snaplen);
        let shared = Arc::clone(&facts.shared);
        if !shared.tap.begin(&capture) {
            let what = "somebody captures already, and only one can";
            return Err(Problem::new(ProblemCode::TooManyConnections, what));
        }
        subscriber.subscribe();
        let seconds = seconds.map(|it| Duration::from_secs(it.into()));
        let stream = Stream {
            capture,
            packets,
            subscriber: subscriber.clone(),
            left: count.unwrap_or(u64::MAX),
            end: Instant::now() + seconds.unwrap_or(FOREVER),
            _tapped: Tapped(shared),
        };
        tokio::spawn(stream.run());
        Ok(Answer::Capturing {
            interface: facts.interface.clone(),
        })
    }
}

/// The tap is closed when nobody wants anything of it any more.
struct Tapped(Arc<Shared>);

impl Drop for Tapped {
    fn drop(&mut self) {
        self.0.tap.end();
    }
}

struct Stream {
    capture: Arc<Capture>,
    packets: Receiver<Captured>,
    subscriber: Subscriber,
    /// Packets that are still wanted.
    left: u64,
    end: Instant,
    _tapped: Tapped,
}

impl Stream {
    async fn run(mut self) {
        while self.left > 0 {
            let first = tokio::select! {
                Some(packet) = self.packets.recv() => packet,
                () = sleep_until(self.end) => break,
                () = self.subscriber.gone() => return,
            };
            if !self.send(first).await {
                return;
            }
        }
        // What was captured before the end is not thrown away with it.
        while self.left > 0
            && let Ok(first) = self.packets.try_recv()
        {
            if !self.send(first).await {
                return;
            }
        }
        let lost = self.capture.lost();
        self.tell(&Event::CaptureEnded { lost }).await;
    }

    /// Sends a packet, with those that are there besides.
    async fn send(&mut self, first: Captured) -> bool {
        let (mut packets, mut bytes) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(packet) = next {
            self.capture.taken(&packet);
            bytes += packet.bytes.len();
            packets.push(row(packet));
            self.left = self.left.saturating_sub(1);
            let more = self.left > 0 && bytes < AT_ONCE && packets.len() < AT_ONCE / 128;
            next = more.then(|| self.packets.try_recv().ok()).flatten();
        }
        let lost = self.capture.lost();
        self.tell(&Event::Captured { packets, lost }).await
    }

    async fn tell(&self, event: &Event) -> bool {
        match serde_json::to_value(event) {
            Ok(event) => self.subscriber.send(event, UNREAD).await,
            Err(_) => false,
        }
    }
}

fn row(packet: Captured) -> CapturedPacket {
    CapturedPacket {
        at: packet.at,
        side: packet.side,
        outbound: packet.outbound,
        len: u32::try_from(packet.len).unwrap_or(u32::MAX),
        bytes: to_hex(&packet.bytes),
        comment: packet.comment,
    }
}
