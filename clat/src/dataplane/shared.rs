//! What the threads and the supervisor share.

use std::{
    io,
    net::Ipv6Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use clat_core::Settings;
use host::{
    clock::Clock,
    tun::{Tun, send_pieces},
};
use l2::{DropReason, NextHop};
use tokio::sync::mpsc::UnboundedSender;
use wire::{
    counters::{Counter, ReasonCounters},
    ethernet::Mac,
    packet::PacketBuf,
    pieces::Pieces,
};

use super::{Engine, Ports};

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

pub(super) const OUT: usize = 0;
pub(super) const IN: usize = 1;

/// What the supervisor changes while the threads run.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: ArcSwap<Settings>,
    pub(super) next_hop: ArcSwapOption<NextHop>,
    pub(super) address: AddressState,
    stop: AtomicBool,
    pub(super) stats: Arc<LinkStats>,
    pub(super) clock: Clock,
    events: UnboundedSender<Event>,
}

/// Whether packets may leave from the address: the inbound thread knows, the outbound thread asks.
#[derive(Debug, Default)]
pub(super) struct AddressState(AtomicU8);

impl AddressState {
    const TENTATIVE: u8 = 0;
    const USABLE: u8 = 1;
    const DUPLICATE: u8 = 2;

    pub(super) fn set(&self, usable: Result<(), DropReason>) {
        let state = match usable {
            Ok(()) => Self::USABLE,
            Err(DropReason::AddressDuplicate) => Self::DUPLICATE,
            Err(_) => Self::TENTATIVE,
        };
        self.0.store(state, Ordering::Relaxed);
    }

    pub(super) fn usable(&self) -> Result<(), DropReason> {
        match self.0.load(Ordering::Relaxed) {
            Self::USABLE => Ok(()),
            Self::DUPLICATE => Err(DropReason::AddressDuplicate),
            _ => Err(DropReason::AddressTentative),
        }
    }
}

impl Shared {
    pub(super) fn new(
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

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Has the threads end soon.
    pub(super) fn stop(&self, ports: &Ports) {
        self.stop.store(true, Ordering::Release);
        ports.tun.wake();
        if let Some(uplink) = &ports.uplink {
            uplink.wake();
        }
    }

    /// Counts a translated packet that the link did not take.
    pub(super) fn lost_at_link(&self, error: &io::Error) {
        tracing::trace!("the link did not take a packet: {error}");
        self.stats.dropped[OUT].count(DropReason::LinkFailed);
    }

    /// The supervisor may be gone already; then nobody needs to know.
    pub(super) fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

/// Gives the host a packet, in as many pieces as it has.
pub(super) fn send_to_host(
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

/// The settings as a thread follows them.
pub(super) struct Followed<'a> {
    latest: arc_swap::Cache<&'a ArcSwap<Settings>, Arc<Settings>>,
    current: Arc<Settings>,
}

impl<'a> Followed<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        let mut latest = arc_swap::Cache::new(&shared.settings);
        let current = Arc::clone(latest.load());
        Self { latest, current }
    }

    /// Those that are in use.
    pub(super) fn current(&self) -> &Settings {
        &self.current
    }

    /// Those to use from now on, if they have changed.
    pub(super) fn changed(&mut self) -> Option<&Settings> {
        let latest = self.latest.load();
        if Arc::ptr_eq(latest, &self.current) {
            return None;
        }
        self.current = Arc::clone(latest);
        Some(&self.current)
    }
}
