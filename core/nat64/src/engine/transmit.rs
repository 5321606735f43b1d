//! Packets that the engine sends by itself.

use std::time::Instant;

use wire::{icmp::v4, packet::PacketBuf, verdict::Verdict};
use xlat::icmp_error::Message;

use super::Engine;
use crate::{
    keepalive,
    reason::{DropReason, Why},
    tuple::Endpoint6,
};

impl Engine {
    /// The next packet that is to be sent although none came, in `buf`: a probe to a client, or an
    /// ICMPv4 error to a server. To be called after a batch of packets and after
    /// [`Self::handle_timeout`], until it is `false`.
    pub fn poll_transmit(&mut self, buf: &mut PacketBuf, now: Instant) -> bool {
        self.next_probe(buf) || self.next_unanswered_syn(buf, now)
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

    /// Whether the error in `buf` can be sent: it may be about a SYN of a client to another one.
    fn reaches_client(&mut self, buf: &mut PacketBuf, now: Instant) -> bool {
        // One for a client of another shard comes back by the kernel.
        if !self.is_to_client(buf) || self.part.elsewhere(buf.bytes()).is_some() {
            return true;
        }
        let why = Why::State(DropReason::SynUnanswered);
        matches!(self.tell_client(buf, why, now), Ok(Verdict::Reply(_)))
    }

    /// Nobody is there (RFC 6146 §3.5.2.2).
    fn next_unanswered_syn(&mut self, buf: &mut PacketBuf, now: Instant) -> bool {
        let tick = self.tick(now);
        while self.tables.syns.next_unanswered(tick, buf) {
            let why = Why::State(DropReason::SynUnanswered);
            let message = Message::plain(v4::UNREACHABLE, v4::PORT_UNREACHABLE);
            let verdict = self.v4_to_v6.reply(buf, why, message, now);
            self.stats.from_v4.went(&verdict);
            if matches!(verdict, Verdict::Reply(_)) && self.reaches_client(buf, now) {
                return true;
            }
        }
        false
    }
}
