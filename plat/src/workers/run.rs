//! One worker: both families come out of its queue of the virtual interface and go back into it.

use std::{
    io,
    sync::{Arc, atomic::Ordering, mpsc::Receiver},
    time::{Duration, Instant},
};

use host::{
    clock::Clock,
    tun::{Received, Tun, send_pieces},
};
use nat64::{
    Engine, Transmit,
    dispatch::{Handled, Passage},
};
use wire::{packet::PacketBuf, pieces::Pieces, verdict::Verdict};

use super::{Shared, orders::Order, ring::Seat, tap::Watch};

/// Packets that are taken one after the other before anything else is looked after.
const BATCH: usize = 64;

/// An idle worker shows that it is alive this often.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// So many times as long as orders take, packets get before the next order.
const PACKETS_TO_ORDERS: u32 = 3;

pub(super) struct Run {
    engine: Engine,
    tun: Arc<dyn Tun>,
    shared: Arc<Shared>,
    seat: Seat,
    orders: Receiver<Order>,
    clock: Clock,
    /// When the next order is carried out at the earliest, while there are packets.
    next_order: Instant,
    segment: bool,
    watch: Watch,
}

impl Run {
    pub(super) fn new(
        engine: Engine,
        tun: Arc<dyn Tun>,
        shared: Arc<Shared>,
        seat: Seat,
        orders: Receiver<Order>,
        clock: Clock,
    ) -> Self {
        Self {
            engine,
            tun,
            shared,
            seat,
            orders,
            clock,
            next_order: clock.now(),
            segment: false,
            watch: Watch::default(),
        }
    }

    /// Moves packets until it is told to stop.
    ///
    /// # Errors
    /// The system's, when the interface can no longer be used.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut buf = PacketBuf::new();
        let mut idle = true;
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.seat.beat();
            let received = self.wait(&mut buf, idle)?;
            // One time is enough for a batch: it lasts milliseconds, and lifetimes are in seconds.
            let now = self.clock.now();
            self.engine.handle_timeout(now);
            self.watch.look(&self.shared.tap, self.engine.prefixes());
            let own = self.batch(&mut buf, received, now)?;
            let passed_on = self.passed_on(now);
            self.transmit(&mut buf, now);
            let busy = own || passed_on;
            let ordered = self.carry_out_order(busy, now);
            idle = !busy && !ordered;
        }
        Ok(())
    }

    /// The next packet of the own queue. Waits for it only if there is nothing else to do.
    fn wait(&self, buf: &mut PacketBuf, idle: bool) -> io::Result<Received> {
        if !idle || !self.seat.lie_down() {
            return self.tun.recv(buf, Some(Duration::ZERO));
        }
        let due = self.engine.poll_timeout();
        let timeout = due.map_or(LONGEST_WAIT, |at| self.clock.until(at).min(LONGEST_WAIT));
        let received = self.tun.recv(buf, Some(timeout));
        self.seat.get_up();
        received
    }

    /// Takes the packet that was received, and those that are there besides. Whether there was any.
    fn batch(
        &mut self,
        buf: &mut PacketBuf,
        mut received: Received,
        now: Instant,
    ) -> io::Result<bool> {
        for taken in 0..BATCH {
            match received {
                Received::Packet => {
                    self.watch.arrives(buf);
                    let handled = self.engine.handle(buf, now);
                    self.finish(handled, buf);
                }
                Received::Unreadable(error) => {
                    tracing::debug!("a packet cannot be read: {error:?}");
                    self.shared.unreadable.one();
                }
                Received::Woken | Received::TimedOut => return Ok(taken > 0),
            }
            if taken + 1 < BATCH {
                received = self.tun.recv(buf, Some(Duration::ZERO))?;
            } else {
                break;
            }
        }
        Ok(true)
    }

    /// Sends what the engine has to send by itself.
    fn transmit(&mut self, buf: &mut PacketBuf, now: Instant) {
        loop {
            match self.engine.poll_transmit(buf, now) {
                Transmit::Nothing => return,
                Transmit::Send => self.send(Pieces::whole(), buf),
                Transmit::PassOn(passage) => self.pass_on(buf, passage),
            }
            self.watch.over();
        }
    }

    /// Takes what other workers passed on. Whether there was any.
    fn passed_on(&mut self, now: Instant) -> bool {
        for taken in 0..BATCH {
            let Some((mut buf, passage)) = self.seat.next() else {
                return taken > 0;
            };
            if passage.is_untouched() {
                self.watch.arrives(&buf);
            } else {
                self.watch.goes_on(&buf);
            }
            let handled = self.engine.take_over(&mut buf, passage, now);
            self.finish(handled, &mut buf);
            self.seat.peers.put_back(buf);
        }
        true
    }

    /// Carries out one order, if there is any, and if it is time for it: while there are packets,
    /// orders get a quarter of the time, however many are given. Whether there was one.
    fn carry_out_order(&mut self, busy: bool, now: Instant) -> bool {
        let began = self.clock.now();
        if busy && began < self.next_order {
            return false;
        }
        let Ok(order) = self.orders.try_recv() else {
            return false;
        };
        order(&mut self.engine, now);
        let ended = self.clock.now();
        let took = ended.saturating_duration_since(began);
        self.next_order = ended + took * PACKETS_TO_ORDERS;
        true
    }

    fn finish(&mut self, handled: Handled, buf: &mut PacketBuf) {
        match handled {
            Handled::Here(Verdict::Forward(pieces)) => self.send(pieces, buf),
            // Either family goes back the way it came.
            Handled::Here(Verdict::Reply(why)) => {
                self.watch.replies(why);
                self.send(Pieces::whole(), buf);
            }
            Handled::Here(Verdict::Drop(why)) => self.watch.drops(why),
            Handled::Elsewhere(passage) => self.pass_on(buf, passage),
        }
        self.watch.over();
    }

    fn pass_on(&mut self, buf: &mut PacketBuf, passage: Passage) {
        if self.seat.peers.pass_on(buf, passage) {
            self.watch.goes_elsewhere(passage);
        } else {
            let why = self.engine.give_up(buf, passage);
            self.watch.drops(why);
        }
    }

    fn send(&mut self, pieces: Pieces, buf: &mut PacketBuf) {
        let Self {
            tun,
            shared,
            watch,
            segment,
            ..
        } = self;
        let send = |buf: &mut PacketBuf| {
            watch.leaves(buf);
            let sent = tun.send(buf);
            watch.sent(&sent);
            sent
        };
        let lost = |error: &io::Error| {
            tracing::trace!("the host did not take a packet: {error}");
            shared.host_refused.one();
        };
        send_pieces(pieces, buf, segment, send, lost);
    }
}
