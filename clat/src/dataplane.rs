//! The threads that move packets: one per direction, each with its half of the engine.
//!
//! They share with the supervisor the settings and the next hop, which they read with every packet,
//! and tell it what happens by a channel. Nothing else connects them.

use std::{
    io,
    net::Ipv6Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use clat_core::{Inbound, Outbound, Settings, engine::DirectionStats};
use host::{
    clock::Clock,
    tun::{Received, SendError, Tun, send_pieces},
    uplink::{Burst, MAX_BURST, SMALL, Slot, Uplink},
};
use l2::{
    DropReason, Link, NextHop,
    link::{self, FrameAddresses},
    next_hop::Nudge,
};
use tokio::sync::mpsc::UnboundedSender;
use wire::{
    counters::{Counter, ReasonCounters},
    ethernet::Mac,
    offload::OffloadError,
    packet::PacketBuf,
    pieces::Pieces,
    verdict::Verdict,
};

/// What the threads tell the supervisor.
#[derive(Debug)]
pub(crate) enum Event {
    /// The address is ours.
    Assigned,
    /// Another host has the address.
    Duplicate(Mac),
    /// The kernel should use the router's neighbour entry.
    Nudge(Ipv6Addr),
    /// A device or socket can no longer be used, or a thread has ended for another reason.
    Failed(String),
}

/// How long a claim waits before it starts over, when a probe could not be sent.
const PROBE_AGAIN: Duration = Duration::from_secs(1);

/// What was counted, over all restarts of the threads.
#[derive(Debug, Default)]
pub(crate) struct LinkStats {
    /// Translated packets that did not leave, and frames that went no further.
    pub(crate) dropped: [ReasonCounters<DropReason>; 2],
    /// Packets whose virtio-net header could not be understood.
    pub(crate) unreadable: [Counter; 2],
    /// Packets that the host did not take.
    pub(crate) host_refused: Counter,
    /// Answers to neighbours.
    pub(crate) neighbour_answers: Counter,
}

const OUT: usize = 0;
const IN: usize = 1;

/// What the supervisor changes while the threads run.
#[derive(Debug)]
struct Shared {
    settings: ArcSwap<Settings>,
    next_hop: ArcSwapOption<NextHop>,
    address: AddressState,
    stop: AtomicBool,
    stats: Arc<LinkStats>,
    clock: Clock,
    events: UnboundedSender<Event>,
}

/// Whether packets may leave from the address: the inbound thread knows, the outbound thread asks.
#[derive(Debug, Default)]
struct AddressState(AtomicU8);

impl AddressState {
    const TENTATIVE: u8 = 0;
    const USABLE: u8 = 1;
    const DUPLICATE: u8 = 2;

    fn set(&self, usable: Result<(), DropReason>) {
        let state = match usable {
            Ok(()) => Self::USABLE,
            Err(DropReason::AddressDuplicate) => Self::DUPLICATE,
            Err(_) => Self::TENTATIVE,
        };
        self.0.store(state, Ordering::Relaxed);
    }

    fn usable(&self) -> Result<(), DropReason> {
        match self.0.load(Ordering::Relaxed) {
            Self::USABLE => Ok(()),
            Self::DUPLICATE => Err(DropReason::AddressDuplicate),
            _ => Err(DropReason::AddressTentative),
        }
    }
}

/// The engine, in its two halves. Lives on when the threads are restarted.
#[derive(Debug)]
pub(crate) struct Engine {
    outbound: Outbound,
    inbound: Inbound,
    stats: Arc<LinkStats>,
}

impl Engine {
    /// An engine with `settings`; the keys should be random.
    pub(crate) fn new(settings: &Settings, keys: (u64, u64)) -> Self {
        Self {
            outbound: Outbound::new(settings, keys.0),
            inbound: Inbound::new(settings, keys.1),
            stats: Arc::default(),
        }
    }

    /// What it counted: out, in, and at the link.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            outbound: self.outbound.stats(),
            inbound: self.inbound.stats(),
            link: Arc::clone(&self.stats),
        }
    }
}

/// What was counted.
#[derive(Clone, Debug)]
pub(crate) struct Stats {
    pub(crate) outbound: Arc<DirectionStats>,
    pub(crate) inbound: Arc<DirectionStats>,
    pub(crate) link: Arc<LinkStats>,
}

/// Running threads.
pub(crate) struct Dataplane {
    shared: Arc<Shared>,
    ports: Ports,
    threads: Threads,
}

/// What the threads wait for packets from.
#[derive(Clone)]
struct Ports {
    tun: Arc<dyn Tun>,
    uplink: Option<Arc<dyn Uplink>>,
}

enum Threads {
    Link {
        out: JoinHandle<Outbound>,
        r#in: JoinHandle<Inbound>,
    },
    Routed(JoinHandle<Engine>),
}

impl Dataplane {
    /// Starts with an address on a link, which is checked for duplicates first.
    ///
    /// # Errors
    /// The system's, when it has no more threads.
    pub(crate) fn start_on_link(
        engine: Engine,
        tun: Arc<dyn Tun>,
        uplink: Arc<dyn Uplink>,
        link: link::Config,
        settings: Settings,
        (clock, events): (Clock, UnboundedSender<Event>),
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(settings, &engine, clock, events));
        let ports = Ports {
            tun: Arc::clone(&tun),
            uplink: Some(Arc::clone(&uplink)),
        };
        let out = OutboundThread {
            engine: engine.outbound,
            tun: Arc::clone(&tun),
            uplink: Arc::clone(&uplink),
            shared: Arc::clone(&shared),
            nudge: Nudge::default(),
            segment: false,
            waiting: Waiting::new(),
        };
        let r#in = InboundThread {
            engine: engine.inbound,
            tun,
            uplink,
            shared: Arc::clone(&shared),
            link: Link::new(link, clock.now()),
            claim: link,
            segment: false,
        };
        Self::start_pair(out, r#in, shared, ports)
    }

    fn start_pair(
        out: OutboundThread,
        r#in: InboundThread,
        shared: Arc<Shared>,
        ports: Ports,
    ) -> io::Result<Self> {
        let out = spawn("clat-out", &shared, move || out.run())?;
        match spawn("clat-in", &shared, move || r#in.run()) {
            Ok(r#in) => Ok(Self {
                shared,
                ports,
                threads: Threads::Link { out, r#in },
            }),
            Err(error) => {
                // The other one must not run on, unseen.
                shared.stop(&ports);
                let _ = out.join();
                Err(error)
            }
        }
    }

    /// Starts with an address that is routed to this host: both families pass the virtual
    /// interface, and there is nothing to check.
    ///
    /// # Errors
    /// The system's, when it has no more threads.
    pub(crate) fn start_routed(
        engine: Engine,
        tun: Arc<dyn Tun>,
        settings: Settings,
        (clock, events): (Clock, UnboundedSender<Event>),
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(settings, &engine, clock, events));
        shared.address.set(Ok(()));
        shared.tell(Event::Assigned);
        let ports = Ports {
            tun: Arc::clone(&tun),
            uplink: None,
        };
        let thread = RoutedThread {
            engine,
            tun,
            shared: Arc::clone(&shared),
            segment: false,
        };
        let thread = spawn("clat", &shared, move || thread.run())?;
        Ok(Self {
            shared,
            ports,
            threads: Threads::Routed(thread),
        })
    }

    /// Uses `settings` from the next packet on. Their address must be the one it started with.
    pub(crate) fn configure(&self, settings: Settings) {
        self.shared.settings.store(Arc::new(settings));
    }

    /// Sends through `next_hop` from the next packet on.
    pub(crate) fn set_next_hop(&self, next_hop: Option<NextHop>) {
        self.shared.next_hop.store(next_hop.map(Arc::new));
    }

    /// Counts what the link has lost before it could be received.
    pub(crate) fn count_overflows(&self) {
        if let Some(uplink) = &self.ports.uplink {
            let lost = uplink.overflows();
            self.shared.stats.dropped[IN].add(DropReason::QueueOverflow, lost);
        }
    }

    /// Ends the threads. `None` if one of them has panicked and its half of the engine is lost.
    pub(crate) fn stop(self) -> Option<Engine> {
        self.shared.stop(&self.ports);
        self.count_overflows();
        match self.threads {
            Threads::Link { out, r#in } => {
                // Both, even if the first has panicked: nothing of them may go on.
                let (out, r#in) = (out.join(), r#in.join());
                Some(Engine {
                    outbound: out.ok()?,
                    inbound: r#in.ok()?,
                    stats: Arc::clone(&self.shared.stats),
                })
            }
            Threads::Routed(thread) => thread.join().ok(),
        }
    }
}

fn spawn<T: Send + 'static>(
    name: &'static str,
    shared: &Arc<Shared>,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let watch = PanicWatch {
        shared: Arc::clone(shared),
        name,
    };
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _watch = watch;
        run()
    })
}

/// Tells the supervisor of a thread that panics: nothing passes any more, and nobody would know.
struct PanicWatch {
    shared: Arc<Shared>,
    name: &'static str,
}

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if thread::panicking() {
            let name = self.name;
            self.shared.tell(Event::Failed(format!(
                "the thread {name} has failed; please report this"
            )));
        }
    }
}

impl Shared {
    fn new(
        settings: Settings,
        engine: &Engine,
        clock: Clock,
        events: UnboundedSender<Event>,
    ) -> Self {
        Self {
            settings: ArcSwap::from_pointee(settings),
            next_hop: ArcSwapOption::empty(),
            address: AddressState::default(),
            stop: AtomicBool::new(false),
            stats: Arc::clone(&engine.stats),
            clock,
            events,
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Has the threads end soon.
    fn stop(&self, ports: &Ports) {
        self.stop.store(true, Ordering::Release);
        ports.tun.wake();
        if let Some(uplink) = &ports.uplink {
            uplink.wake();
        }
    }

    /// Counts a translated packet that the link did not take.
    fn lost_at_link(&self, error: &io::Error) {
        tracing::trace!("the link did not take a packet: {error}");
        self.stats.dropped[OUT].count(DropReason::LinkFailed);
    }

    /// The supervisor may be gone already; then nobody needs to know.
    fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

/// Gives the host a packet, in as many pieces as it has.
fn send_to_host(
    tun: &dyn Tun,
    shared: &Shared,
    pieces: Pieces,
    buf: &mut PacketBuf,
    segment: &mut bool,
) {
    let lost = |error: &io::Error| {
        tracing::trace!("the host did not take a packet: {error}");
        shared.stats.host_refused.add(1);
    };
    send_pieces(pieces, buf, segment, |buf| tun.send(buf), lost);
}

/// From the host to the network.
struct OutboundThread {
    engine: Outbound,
    tun: Arc<dyn Tun>,
    uplink: Arc<dyn Uplink>,
    shared: Arc<Shared>,
    nudge: Nudge,
    segment: bool,
    waiting: Waiting,
}

/// Small packets that are translated, and leave with one system call as soon as the host has no
/// more. Behind them lies the buffer that the next packet is received into.
struct Waiting {
    bufs: Box<[PacketBuf]>,
    count: usize,
    to: Mac,
}

impl Waiting {
    fn new() -> Self {
        Self {
            bufs: (0..MAX_BURST).map(|_| PacketBuf::new()).collect(),
            count: 0,
            to: Mac([0; 6]),
        }
    }

    /// The buffer behind those that wait.
    fn free(&mut self) -> &mut PacketBuf {
        &mut self.bufs[self.count]
    }

    /// Lets the packet in the free buffer wait too, if it is small and goes where the others go.
    fn takes(&mut self, to: Mac) -> bool {
        let packet = &self.bufs[self.count];
        let is_small = packet.len() <= SMALL && packet.offload.gso.is_none();
        let takes = is_small && (self.count == 0 || self.to == to);
        if takes {
            self.count += 1;
            self.to = to;
        }
        takes
    }

    fn is_full(&self) -> bool {
        self.count == self.bufs.len()
    }

    /// Those that wait, which then wait no more, and the buffer behind them.
    fn take(&mut self) -> (&mut [PacketBuf], Option<&mut PacketBuf>) {
        let (waiting, behind) = self.bufs.split_at_mut(self.count);
        self.count = 0;
        (waiting, behind.first_mut())
    }
}

impl OutboundThread {
    fn run(mut self) -> Outbound {
        let shared = Arc::clone(&self.shared);
        let mut settings = arc_swap::Cache::new(&shared.settings);
        let mut current = Arc::clone(settings.load());
        self.engine.configure(&current);
        while !shared.stopped() {
            // While packets wait, only what is there already may join them.
            let patience = (self.waiting.count != 0).then_some(Duration::ZERO);
            match self.tun.recv(self.waiting.free(), patience) {
                Ok(Received::Packet) => {
                    if !Arc::ptr_eq(settings.load(), &current) {
                        current = Arc::clone(settings.load());
                        self.engine.configure(&current);
                    }
                    self.handle();
                }
                Ok(Received::Unreadable(error)) => {
                    tracing::debug!("a packet of the host cannot be read: {error:?}");
                    shared.stats.unreadable[OUT].add(1);
                }
                Ok(Received::Woken | Received::TimedOut) => self.flush(),
                Err(error) => {
                    shared.tell(Event::Failed(format!("the virtual interface: {error}")));
                    break;
                }
            }
        }
        self.flush();
        self.engine
    }

    /// Translates the packet in the free buffer.
    fn handle(&mut self) {
        let now = self.shared.clock.now();
        match self.engine.handle_host(self.waiting.free(), now) {
            Verdict::Forward(pieces) => match self.next_hop(now) {
                Ok(to) if pieces.is_whole() && self.waiting.takes(to) => {
                    if self.waiting.is_full() {
                        self.flush();
                    }
                }
                Ok(to) => self.send(pieces, to),
                Err(reason) => self.shared.stats.dropped[OUT].count(reason),
            },
            Verdict::Reply(_) => {
                let (pieces, buf) = (Pieces::whole(), self.waiting.free());
                send_to_host(&*self.tun, &self.shared, pieces, buf, &mut self.segment);
            }
            Verdict::Drop(_) => {}
        }
    }

    /// Where to send a packet.
    fn next_hop(&mut self, now: Instant) -> Result<Mac, DropReason> {
        self.shared.address.usable()?;
        let next_hop = self.shared.next_hop.load();
        let next_hop = next_hop.as_ref().ok_or(DropReason::NoNextHop)?;
        if self.nudge.due(next_hop.mac.is_some(), now) {
            self.shared.tell(Event::Nudge(next_hop.router));
        }
        next_hop.mac.ok_or(DropReason::NextHopUnresolved)
    }

    /// Sends what waits.
    fn flush(&mut self) {
        let to = self.waiting.to;
        let (waiting, _) = self.waiting.take();
        send_waiting(&*self.uplink, &self.shared, waiting, to);
    }

    /// Sends what waits, then the packet behind it.
    fn send(&mut self, pieces: Pieces, to: Mac) {
        let waiting_for = self.waiting.to;
        let (uplink, shared) = (&*self.uplink, &self.shared);
        let (waiting, Some(buf)) = self.waiting.take() else {
            return;
        };
        send_waiting(uplink, shared, waiting, waiting_for);
        let lost = |error: &io::Error| shared.lost_at_link(error);
        let send = |buf: &mut PacketBuf| uplink.send(buf, to);
        send_pieces(pieces, buf, &mut self.segment, send, lost);
    }
}

fn send_waiting(uplink: &dyn Uplink, shared: &Shared, waiting: &mut [PacketBuf], to: Mac) {
    match waiting {
        [] => {}
        // One packet alone goes the shorter way.
        [one] => {
            if let Err(SendError::Refused(error)) = uplink.send(one, to) {
                shared.lost_at_link(&error);
            }
        }
        several => uplink.send_burst(several, to, &mut |error| shared.lost_at_link(error)),
    }
}

/// From the network to the host, and everything that keeps the address.
struct InboundThread {
    engine: Inbound,
    tun: Arc<dyn Tun>,
    uplink: Arc<dyn Uplink>,
    shared: Arc<Shared>,
    link: Link,
    claim: link::Config,
    segment: bool,
}

impl InboundThread {
    fn run(mut self) -> Inbound {
        let mut burst = Burst::new();
        let shared = Arc::clone(&self.shared);
        let mut settings = arc_swap::Cache::new(&shared.settings);
        let mut current = Arc::clone(settings.load());
        self.engine.configure(&current);
        while !shared.stopped() {
            self.keep_address(burst.spare());
            let now = shared.clock.now();
            let timeout = self.link.poll_timeout(now).map(|at| shared.clock.until(at));
            match self.uplink.recv(&mut burst, timeout) {
                Ok(Received::Packet) => {
                    if !Arc::ptr_eq(settings.load(), &current) {
                        current = Arc::clone(settings.load());
                        self.engine.configure(&current);
                    }
                    for slot in burst.received() {
                        self.take(slot);
                    }
                }
                Ok(Received::Unreadable(error)) => self.unreadable(error),
                Ok(Received::Woken | Received::TimedOut) => {}
                Err(error) => {
                    shared.tell(Event::Failed(format!("the link: {error}")));
                    break;
                }
            }
        }
        self.engine
    }

    /// Sends what duplicate address detection has to send, and passes on what it found.
    fn keep_address(&mut self, buf: &mut PacketBuf) {
        let now = self.shared.clock.now();
        if let Some(transmit) = self.link.handle_timeout(buf, now)
            && let Err(error) = self.uplink.send(buf, transmit.to)
        {
            tracing::debug!("a neighbour discovery message was not sent: {error:?}");
            self.shared.stats.dropped[IN].count(DropReason::LinkFailed);
            self.claim_again(now);
        }
        if let Some(event) = self.link.poll_event() {
            self.shared.address.set(self.link.usable());
            self.shared.tell(match event {
                l2::Event::Assigned => Event::Assigned,
                l2::Event::Duplicate(by) => Event::Duplicate(by),
            });
        }
    }

    /// A probe that did not leave proves nothing. An announcement is only a courtesy.
    fn claim_again(&mut self, now: Instant) {
        if self.link.usable() == Err(DropReason::AddressTentative) {
            let claim = link::Config {
                delay: PROBE_AGAIN,
                ..self.claim
            };
            self.link = Link::new(claim, now);
        }
    }

    fn take(&mut self, slot: &mut Slot) {
        match slot.readable {
            Ok(()) => self.handle(slot.frame, &mut slot.buf),
            Err(error) => self.unreadable(error),
        }
    }

    fn unreadable(&self, error: OffloadError) {
        tracing::debug!("a frame cannot be read: {error:?}");
        self.shared.stats.unreadable[IN].add(1);
    }

    fn handle(&mut self, frame: FrameAddresses, buf: &mut PacketBuf) {
        let now = self.shared.clock.now();
        match self.link.receive(frame, buf, now) {
            l2::Received::Packet => self.translate(frame, buf, now),
            l2::Received::Reply(transmit) => {
                self.shared.stats.neighbour_answers.add(1);
                self.send_back(buf, transmit.to);
            }
            l2::Received::Nothing => {}
            l2::Received::Drop(reason) => self.shared.stats.dropped[IN].count(reason),
        }
    }

    fn translate(&mut self, frame: FrameAddresses, buf: &mut PacketBuf, now: Instant) {
        match self.engine.handle_net(buf, now) {
            Verdict::Forward(pieces) => {
                send_to_host(&*self.tun, &self.shared, pieces, buf, &mut self.segment);
            }
            // The router that the packet came through knows the way back.
            Verdict::Reply(_) => self.send_back(buf, frame.src),
            Verdict::Drop(_) => {}
        }
    }

    fn send_back(&self, buf: &mut PacketBuf, to: Mac) {
        if self.uplink.send(buf, to).is_err() {
            self.shared.stats.dropped[IN].count(DropReason::LinkFailed);
        }
    }
}

/// Both directions over the virtual interface: the kernel routes the IPv6 side.
struct RoutedThread {
    engine: Engine,
    tun: Arc<dyn Tun>,
    shared: Arc<Shared>,
    segment: bool,
}

impl RoutedThread {
    fn run(mut self) -> Engine {
        let mut buf = PacketBuf::new();
        let shared = Arc::clone(&self.shared);
        let mut settings = arc_swap::Cache::new(&shared.settings);
        let mut current = Arc::clone(settings.load());
        self.engine.outbound.configure(&current);
        self.engine.inbound.configure(&current);
        while !shared.stopped() {
            match self.tun.recv(&mut buf, None) {
                Ok(Received::Packet) => {
                    if !Arc::ptr_eq(settings.load(), &current) {
                        current = Arc::clone(settings.load());
                        self.engine.outbound.configure(&current);
                        self.engine.inbound.configure(&current);
                    }
                    self.handle(&mut buf);
                }
                Ok(Received::Unreadable(error)) => {
                    tracing::debug!("a packet cannot be read: {error:?}");
                    shared.stats.unreadable[OUT].add(1);
                }
                Ok(Received::Woken | Received::TimedOut) => {}
                Err(error) => {
                    shared.tell(Event::Failed(format!("the virtual interface: {error}")));
                    break;
                }
            }
        }
        self.engine
    }

    fn handle(&mut self, buf: &mut PacketBuf) {
        let now = self.shared.clock.now();
        let is_ipv6 = buf.bytes().first().is_some_and(|first| first >> 4 == 6);
        let verdict = if is_ipv6 {
            self.engine.inbound.handle_net(buf, now)
        } else {
            self.engine.outbound.handle_host(buf, now)
        };
        let pieces = match verdict {
            Verdict::Forward(pieces) => pieces,
            // Either family goes back the way it came.
            Verdict::Reply(_) => Pieces::whole(),
            Verdict::Drop(_) => return,
        };
        send_to_host(&*self.tun, &self.shared, pieces, buf, &mut self.segment);
    }
}

#[cfg(test)]
mod tests;
