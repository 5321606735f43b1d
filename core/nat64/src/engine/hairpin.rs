//! Packets from one client to another, by the other's pool address (RFC 6146 §3.8).
//!
//! Such a packet is translated to IPv4 as any other, with a binding and a session of its sender.
//! What comes of that enters from the IPv4 side: in the shard that owns the port it goes to, at
//! once. So the peer sees the sender's pool address and port (RFC 4787 REQ-9 a), and state, filtering
//! and errors are those of two clients that met outside.

use std::time::Instant;

use wire::{ipv4::Ipv4, packet::PacketBuf, verdict::Verdict};

use super::Engine;
use crate::{
    dispatch::{Passage, Stage},
    reason::Why,
    tcp::Side,
};

impl Engine {
    /// The IPv4 packet in the buffer came of a client's, and goes to a pool address.
    pub(super) fn hairpin(
        &mut self,
        buf: &mut PacketBuf,
        now: Instant,
    ) -> Result<Verdict<Why>, Passage> {
        match self.part.elsewhere(buf.bytes()) {
            Some(to) => Err(Passage {
                to,
                stage: Stage::Hairpin,
            }),
            None => self.enter_from_here(buf, now),
        }
    }

    /// A translated packet of a client, to a client of this shard.
    pub(super) fn enter_from_here(
        &mut self,
        buf: &mut PacketBuf,
        now: Instant,
    ) -> Result<Verdict<Why>, Passage> {
        let verdict = match self.v4_to_v6.veto(buf, now) {
            Some(verdict) => verdict.map_reason(Why::from),
            None => self.whole_server_packet(buf, now),
        };
        match verdict {
            Verdict::Reply(why) => self.tell_client(buf, why, now),
            Verdict::Forward(_) | Verdict::Drop(_) => Ok(verdict),
        }
    }

    /// The buffer holds an ICMPv4 error to an address that stands for a client.
    pub(super) fn tell_client(
        &mut self,
        buf: &mut PacketBuf,
        why: Why,
        now: Instant,
    ) -> Result<Verdict<Why>, Passage> {
        let stage = Stage::OwnError(Side::V6);
        if let Some(to) = self.part.elsewhere(buf.bytes()) {
            // The packet in error is lost in any case; the error is counted as sent where it is.
            self.stats.from_v6.went(&Verdict::Drop(why), buf);
            return Err(Passage { to, stage });
        }
        Ok(match self.server_packet(buf, stage, now)? {
            Verdict::Forward(_) => Verdict::Reply(why),
            Verdict::Reply(_) | Verdict::Drop(_) => Verdict::Drop(why),
        })
    }

    /// An error of ours about a packet that came from a client by a pool address goes there.
    pub(super) fn is_to_client(&self, buf: &PacketBuf) -> bool {
        let error = Ipv4::new_embedded(buf.bytes());
        error.is_ok_and(|it| self.tables.pool().contains(it.dst()))
    }
}
