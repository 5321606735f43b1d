//! Probes to clients whose connection was idle for two hours (RFC 6146 §3.5.2.2).
//!
//! A client that still has the connection answers with an acknowledgment, which brings the session
//! back to life on its way to the server (RFC 1122 §4.2.3.6). One that has none resets it.

use std::collections::VecDeque;

use wire::{
    checksum::pseudo_v6,
    field::set_u16,
    ipv6,
    offload::Offload,
    packet::{NoRoom, PacketBuf},
    protocol,
    transport::{DST_PORT_AT, SRC_PORT_AT, tcp},
};

use crate::{filtering_and_updating::Flow, tuple::Endpoint6};

/// The most that wait to be sent: connections that fell silent in the same second.
const MOST: usize = 1024;

/// Routers away from the client there may be.
const HOP_LIMIT: u8 = 64;

/// Clients that are to be asked.
#[derive(Debug, Default)]
pub(crate) struct Probes(VecDeque<Flow>);

impl Probes {
    /// Whether there was room for another one.
    pub(crate) fn add(&mut self, flow: Flow) -> bool {
        let room = self.0.len() < MOST;
        if room {
            self.0.push_back(flow);
        }
        room
    }

    pub(crate) fn next(&mut self) -> Option<Flow> {
        self.0.pop_front()
    }
}

/// Writes a probe from `server` to `client` into `buf`: ACK only, no data, both numbers zero.
pub(crate) fn write(
    buf: &mut PacketBuf,
    server: Endpoint6,
    client: Endpoint6,
) -> Result<(), NoRoom> {
    let mut segment = [0; tcp::HEADER_LEN];
    set_u16(&mut segment, SRC_PORT_AT, server.id);
    set_u16(&mut segment, DST_PORT_AT, client.id);
    segment[12] = 5 << 4;
    segment[tcp::FLAGS_AT] = tcp::ACK;
    let (src, dst) = (server.address, client.address);
    let len = u16::try_from(segment.len()).map_err(|_| NoRoom)?;
    let pseudo = pseudo_v6(src.octets(), dst.octets(), protocol::TCP, len.into());
    let checksum = pseudo.bytes(&segment).checksum();
    set_u16(&mut segment, tcp::CHECKSUM_AT, checksum);
    let header = ipv6::Fields {
        traffic_class: 0,
        payload_len: len,
        next_header: protocol::TCP,
        hop_limit: HOP_LIMIT,
        src,
        dst,
    };
    buf.set(&segment)?;
    buf.replace_front(0, &header.to_bytes())?;
    buf.offload = Offload::default();
    Ok(())
}
