//! One worker: both families come out of the virtual interface and go back into it.

use std::{
    io,
    sync::{Arc, atomic::Ordering, mpsc::Receiver},
    time::Duration,
};

use host::{
    clock::Clock,
    tun::{Received, Tun, send_pieces},
};
use nat64::Engine;
use wire::{packet::PacketBuf, pieces::Pieces, verdict::Verdict};

use super::{Shared, orders::Order};

/// Packets that are taken one after the other before anything else is looked after.
const BATCH: usize = 64;

pub(super) struct Run {
    engine: Engine,
    tun: Arc<dyn Tun>,
    shared: Arc<Shared>,
    orders: Receiver<Order>,
    clock: Clock,
    segment: bool,
}

impl Run {
    pub(super) fn new(
        engine: Engine,
        tun: Arc<dyn Tun>,
        shared: Arc<Shared>,
        orders: Receiver<Order>,
        clock: Clock,
    ) -> Self {
        Self {
            engine,
            tun,
            shared,
            orders,
            clock,
            segment: false,
        }
    }

    /// Moves packets until it is told to stop.
    ///
    /// # Errors
    /// The system's, when the interface can no longer be used.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut buf = PacketBuf::new();
        while !self.shared.stop.load(Ordering::Relaxed) {
            let timeout = self.engine.poll_timeout().map(|at| self.clock.until(at));
            self.batch(&mut buf, timeout)?;
            self.transmit(&mut buf);
            self.carry_out_orders();
        }
        Ok(())
    }

    /// Waits for a packet, and takes those that are there besides.
    fn batch(&mut self, buf: &mut PacketBuf, mut timeout: Option<Duration>) -> io::Result<()> {
        for _ in 0..BATCH {
            match self.tun.recv(buf, timeout)? {
                Received::Packet => self.handle(buf),
                Received::Unreadable(error) => {
                    tracing::debug!("a packet cannot be read: {error:?}");
                    self.shared.unreadable.add(1);
                }
                Received::Woken | Received::TimedOut => {
                    // A packet does this by itself.
                    self.engine.handle_timeout(self.clock.now());
                    break;
                }
            }
            timeout = Some(Duration::ZERO);
        }
        Ok(())
    }

    /// Sends what the engine has to send by itself.
    fn transmit(&mut self, buf: &mut PacketBuf) {
        let now = self.clock.now();
        while self.engine.poll_transmit(buf, now) {
            self.send(Pieces::whole(), buf);
        }
    }

    fn carry_out_orders(&mut self) {
        for order in self.orders.try_iter() {
            order(&mut self.engine, self.clock.now());
        }
    }

    fn handle(&mut self, buf: &mut PacketBuf) {
        let now = self.clock.now();
        let is_ipv6 = buf.bytes().first().is_some_and(|first| first >> 4 == 6);
        let verdict = if is_ipv6 {
            self.engine.handle_v6(buf, now)
        } else {
            self.engine.handle_v4(buf, now)
        };
        match verdict {
            Verdict::Forward(pieces) => self.send(pieces, buf),
            // Either family goes back the way it came.
            Verdict::Reply(_) => self.send(Pieces::whole(), buf),
            Verdict::Drop(_) => {}
        }
    }

    fn send(&mut self, pieces: Pieces, buf: &mut PacketBuf) {
        let tun = &self.tun;
        let shared = &self.shared;
        let lost = |error: &io::Error| {
            tracing::trace!("the host did not take a packet: {error}");
            shared.host_refused.add(1);
        };
        send_pieces(pieces, buf, &mut self.segment, |buf| tun.send(buf), lost);
    }
}
