//! Packets of servers that no client expects (RFC 6146 §3.5).

use std::time::Instant;

use wire::{icmp::v4, ipv4::Ipv4, packet::PacketBuf, pieces::Pieces, verdict::Verdict};
use xlat::icmp_error::Message;

use super::Engine;
use crate::{
    config::UnexpectedSyn,
    incoming_tuple::{self, Incoming, Refused},
    reason::{DropReason, Why},
    sequence::Header,
    tcp::Segment,
    tuple::{Endpoint4, Protocol, Tuple},
};

impl Engine {
    /// What becomes of an IPv4 packet that was refused.
    pub(super) fn refuse_v4(
        &mut self,
        buf: &mut PacketBuf,
        refused: Refused,
        now: Instant,
    ) -> Verdict<Why> {
        let Refused { why, mut answer } = refused;
        if let Why::State(reason @ (DropReason::NoBinding | DropReason::Filtered)) = why {
            let Some((tuple, segment)) = data(buf) else {
                return Verdict::Drop(why);
            };
            if let Some(header) = segment
                && self.is_to_be_stored(&tuple, &header)
            {
                let tick = self.tick(now);
                let bytes = (header, buf.bytes());
                return match self.tables.store_syn(tuple.dst, tuple.src, bytes, tick) {
                    Ok(()) => Verdict::Forward(Pieces::none()),
                    Err(reason) => Verdict::Drop(reason.into()),
                };
            }
            answer = self.answer(tuple.protocol, reason);
        }
        match answer {
            Some(message) => self.v4_to_v6.reply(buf, why, message, now),
            None => Verdict::Drop(why),
        }
    }

    /// Only what opens a connection. A SYN with ACK answers one that was never sent from here: the
    /// echo of a flood under our address.
    fn is_to_be_stored(&self, tuple: &Tuple<Endpoint4>, header: &Header) -> bool {
        header.segment == Segment::Syn
            && header.ack.is_none()
            && self.unexpected_syn == UnexpectedSyn::Store
            && self.tables.pool().gives(Protocol::Tcp, tuple.dst)
    }

    /// What RFC 6146 §3.5.1 and §3.5.3 allow to say.
    fn answer(&self, protocol: Protocol, reason: DropReason) -> Option<Message> {
        if !self.answer_unexpected {
            return None;
        }
        let code = match (protocol, reason) {
            (Protocol::Tcp, _) => return None,
            (_, DropReason::Filtered) => v4::PROHIBITED,
            (Protocol::Udp, _) => v4::PORT_UNREACHABLE,
            (Protocol::Icmp, _) => v4::HOST_UNREACHABLE,
        };
        Some(Message::plain(v4::UNREACHABLE, code))
    }
}

fn data(buf: &PacketBuf) -> Option<(Tuple<Endpoint4>, Option<Header>)> {
    let packet = Ipv4::new_embedded(buf.bytes()).ok()?;
    match incoming_tuple::of_v4(&packet).ok()? {
        Incoming::Data(tuple, segment) => Some((tuple, segment)),
        Incoming::Error(_) => None,
    }
}
