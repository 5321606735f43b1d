//! The ways into an engine: alone, or as one of several shards.

use std::time::Instant;

use wire::{packet::PacketBuf, verdict::Verdict};

use super::Engine;
use crate::{
    dispatch::{Handled, Passage, Stage},
    reason::{DropReason, Why},
    stats::DirectionStats,
    tcp::Side,
};

impl Engine {
    /// Takes an IPv6 packet. Forwarded is an IPv4 packet, a reply is IPv6. For an engine that is
    /// the only shard.
    pub fn handle_v6(&mut self, buf: &mut PacketBuf, now: Instant) -> Verdict<Why> {
        self.handle_alone(buf, now)
    }

    /// Takes an IPv4 packet. Forwarded is an IPv6 packet, a reply is IPv4. For an engine that is
    /// the only shard.
    pub fn handle_v4(&mut self, buf: &mut PacketBuf, now: Instant) -> Verdict<Why> {
        self.handle_alone(buf, now)
    }

    fn handle_alone(&mut self, buf: &mut PacketBuf, now: Instant) -> Verdict<Why> {
        self.handle_timeout(now);
        match self.resume(buf, Stage::Arrived, now) {
            Handled::Here(verdict) => verdict,
            Handled::Elsewhere(passage) => Verdict::Drop(self.give_up(buf, passage)),
        }
    }

    /// Takes a packet of either family, whichever shard it belongs to. The caller has called
    /// [`Self::handle_timeout`] for `now`: once is enough for many packets.
    pub fn handle(&mut self, buf: &mut PacketBuf, now: Instant) -> Handled {
        let stage = Stage::Arrived;
        match self.part.elsewhere(buf.bytes()) {
            Some(to) => Handled::Elsewhere(Passage { to, stage }),
            None => self.resume(buf, stage, now),
        }
    }

    /// Takes a packet that another shard passed on to this one. The caller has called
    /// [`Self::handle_timeout`] for `now`.
    pub fn take_over(&mut self, buf: &mut PacketBuf, passage: Passage, now: Instant) -> Handled {
        self.resume(buf, passage.stage, now)
    }

    /// Counts a packet that could not be passed on, because the other shard is busy, as dropped.
    /// Returns the reason.
    pub fn give_up(&self, buf: &PacketBuf, passage: Passage) -> Why {
        let why = DropReason::RingFull.into();
        let direction = self.direction(is_ipv6(buf), passage.stage);
        if passage.stage == Stage::Arrived {
            direction.came(buf);
        }
        if !matches!(passage.stage, Stage::OwnError(_)) {
            direction.went(&Verdict::Drop(why), buf);
        }
        why
    }

    fn resume(&mut self, buf: &mut PacketBuf, stage: Stage, now: Instant) -> Handled {
        let is_ipv6 = is_ipv6(buf);
        if stage == Stage::Arrived {
            self.direction(is_ipv6, stage).came(buf);
        }
        let result = match (stage, is_ipv6) {
            (Stage::Arrived, true) => self.client_packet(buf, now),
            (Stage::Whole, true) => self.whole_client_packet(buf, now),
            (Stage::Whole, false) => Ok(self.whole_server_packet(buf, now)),
            (Stage::Hairpin, _) => self.enter_from_here(buf, now),
            (Stage::Arrived | Stage::OwnError(_), _) => self.server_packet(buf, stage, now),
        };
        match result {
            Ok(verdict) => {
                let direction = self.direction(is_ipv6, stage);
                if !matches!(stage, Stage::OwnError(_)) {
                    direction.went(&verdict, buf);
                } else if matches!(verdict, Verdict::Forward(_)) {
                    direction.errors_sent.add(1);
                }
                Handled::Here(verdict)
            }
            Err(passage) => Handled::Elsewhere(passage),
        }
    }

    /// What counts a packet: the side that it came from.
    fn direction(&self, is_ipv6: bool, stage: Stage) -> &DirectionStats {
        match stage {
            Stage::Arrived | Stage::Whole if is_ipv6 => &self.stats.from_v6,
            Stage::Arrived | Stage::Whole => &self.stats.from_v4,
            Stage::Hairpin | Stage::OwnError(Side::V6) => &self.stats.from_v6,
            Stage::OwnError(Side::V4) => &self.stats.from_v4,
        }
    }

    /// Whose a datagram is shows when it is whole.
    pub(super) fn check_owner(&self, buf: &PacketBuf) -> Result<(), Passage> {
        if !buf.offload.reassembled {
            return Ok(());
        }
        match self.part.elsewhere(buf.bytes()) {
            None => Ok(()),
            Some(to) => Err(Passage {
                to,
                stage: Stage::Whole,
            }),
        }
    }
}

fn is_ipv6(buf: &PacketBuf) -> bool {
    buf.bytes().first().is_some_and(|first| first >> 4 == 6)
}
