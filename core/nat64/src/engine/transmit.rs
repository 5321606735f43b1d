//! Packets that the engine sends by itself.

use std::time::Instant;

use wire::{icmp::v4, packet::PacketBuf, verdict::Verdict};
use xlat::icmp_error::Message;

use super::Engine;
use crate::{
    dispatch::{Passage, Stage},
    keepalive,
    reason::{DropReason, Why},
    stateless::Way,
    tcp::Side,
    tuple::Endpoint6,
};

/// Something that an engine sends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Transmit {
    /// Nothing is left.
    Nothing,
    /// The packet in the buffer is to be sent.
    Send,
    /// The packet in the buffer is to be passed on to another shard ([`Engine::take_over`]).
    PassOn(Passage),
}

impl Engine {
    /// The next packet that is to be sent although none came, in `buf`: a probe to a client, or an
    /// ICMP error about a SYN that nobody answered. To be called after a batch of packets and after
    /// [`Self::handle_timeout`], until there is [`Transmit::Nothing`].
    pub fn poll_transmit(&mut self, buf: &mut PacketBuf, now: Instant) -> Transmit {
        if self.next_probe(buf) {
            return Transmit::Send;
        }
        self.next_unanswered_syn(buf, now)
    }

    fn next_probe(&mut self, buf: &mut PacketBuf) -> bool {
        while let Some(flow) = self.tables.probes.next() {
            let server = Endpoint6 {
                address: self.prefix(flow.prefix).embed(flow.remote.address),
                id: flow.remote.id,
            };
            if keepalive::write(buf, server, flow.inside).is_ok() {
                self.tables.stats.probes_sent.add(1);
                return true;
            }
        }
        false
    }

    /// Nobody is there (RFC 6146 §3.5.2.2).
    fn next_unanswered_syn(&mut self, buf: &mut PacketBuf, now: Instant) -> Transmit {
        let tick = self.tick(now);
        while self.tables.syns.next_unanswered(tick, buf) {
            let why = Why::State(DropReason::SynUnanswered);
            let message = Message::plain(v4::UNREACHABLE, v4::PORT_UNREACHABLE);
            let transmit = match self.v4_to_v6.reply(buf, why, message, now) {
                Verdict::Reply(_) => self.unanswered(buf, now),
                Verdict::Forward(_) | Verdict::Drop(_) => Transmit::Nothing,
            };
            // What is passed on is counted as sent where it is.
            let verdict = match transmit {
                Transmit::Send => Verdict::Reply(why),
                Transmit::Nothing | Transmit::PassOn(_) => Verdict::Drop(why),
            };
            self.stats.from_v4.went(&verdict, buf);
            match transmit {
                Transmit::Nothing => {}
                Transmit::Send | Transmit::PassOn(_) => return transmit,
            }
        }
        Transmit::Nothing
    }

    /// Where the error in `buf` goes. It may be about a SYN of a client to another one, or of a
    /// host with a mapping: the kernel does not bring it back where the address is its own, too.
    fn unanswered(&mut self, buf: &mut PacketBuf, now: Instant) -> Transmit {
        // The SYN was kept, and is dropped, as one that came from outside.
        let stage = Stage::OwnError(Side::V4);
        let verdict = if self.is_to_mapped_host(buf) {
            self.enter_mapped_host(buf, Way::TurnedAround, now)
        } else if !self.is_to_client(buf) {
            return Transmit::Send;
        } else if let Some(to) = self.part.elsewhere(buf.bytes()) {
            return Transmit::PassOn(Passage { to, stage });
        } else {
            match self.server_packet(buf, stage, now) {
                Ok(verdict) => verdict,
                Err(passage) => return Transmit::PassOn(passage),
            }
        };
        match verdict {
            Verdict::Forward(_) => Transmit::Send,
            Verdict::Reply(_) | Verdict::Drop(_) => Transmit::Nothing,
        }
    }
}
