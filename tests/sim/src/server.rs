//! The server: it echoes whatever it is sent.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use wire::compose::{self, Pair};

use crate::{
    flow::{ECHO, ECHO_WITHOUT_CHECKSUM, TCP_ECHO},
    inspect::{ICMP, TCP, UDP},
    random::Random,
    stack::{Arrived, Datagram, Quote, Stack},
    tcp::{Connection, Segment},
};

/// The applications of the server.
#[derive(Debug, Default)]
pub(crate) struct Server {
    connections: BTreeMap<(Ipv4Addr, u16), Connection>,
}

impl Server {
    /// Answers a datagram.
    pub(crate) fn arrived(
        &mut self,
        arrived: &Arrived,
        stack: &Stack,
        random: &mut Random,
    ) -> Vec<Datagram> {
        match arrived.protocol {
            UDP => vec![Self::udp(arrived, stack.address)],
            ICMP => Self::echo(arrived),
            TCP => self.tcp(arrived, stack.address, random),
            other => panic!("protocol {other} arrived"),
        }
    }

    fn udp(arrived: &Arrived, own: Ipv4Addr) -> Datagram {
        let port = |at: usize| u16::from_be_bytes([arrived.payload[at], arrived.payload[at + 1]]);
        let (client, own_port) = (port(0), port(2));
        if ![ECHO, ECHO_WITHOUT_CHECKSUM].contains(&own_port) {
            // The quote needs an IP header. Ours, turned round, is the one that came.
            let header = compose::V4::new(arrived.from, own, UDP);
            let quote = header.claiming(&arrived.payload[..8], arrived.payload.len());
            let error = compose::icmp4(3, 3, [0; 4], &quote);
            return Datagram::new(arrived.from, ICMP, error);
        }
        let data = &arrived.payload[8..];
        let pair = Pair::V4(own, arrived.from);
        let mut answer = compose::udp(pair, own_port, client, data);
        if own_port == ECHO_WITHOUT_CHECKSUM {
            answer[6..8].fill(0);
        }
        Datagram {
            // The same for all of a flow, as a socket has it: only so they go in one.
            dont_fragment: client.is_multiple_of(2),
            ..Datagram::new(arrived.from, UDP, answer)
        }
    }

    fn echo(arrived: &Arrived) -> Vec<Datagram> {
        let (header, data) = arrived.payload.split_at(8);
        if header[..2] != [8, 0] {
            return Vec::new();
        }
        let rest = [header[4], header[5], header[6], header[7]];
        let reply = compose::icmp4(0, 0, rest, data);
        vec![Datagram::new(arrived.from, ICMP, reply)]
    }

    fn tcp(&mut self, arrived: &Arrived, own: Ipv4Addr, random: &mut Random) -> Vec<Datagram> {
        let bytes = &arrived.payload;
        let remote = (arrived.from, u16::from_be_bytes([bytes[0], bytes[1]]));
        let local = (own, u16::from_be_bytes([bytes[2], bytes[3]]));
        let segment = Segment::read(bytes);
        let start = random.next() as u32;
        if local.1 != TCP_ECHO {
            let mut nobody = Connection::accept(local, remote, start);
            return vec![Datagram::new(remote.0, TCP, nobody.reset())];
        }
        if segment.is_syn() {
            let connection = || Connection::accept(local, remote, start);
            self.connections.entry(remote).or_insert_with(connection);
        }
        if let Some(connection) = self.connections.get_mut(&remote) {
            connection.receive(segment);
        }
        Vec::new()
    }

    /// Takes an ICMP error.
    pub(crate) fn told(&mut self, error: (u8, u8), quote: &Quote) {
        let port = u16::from_be_bytes([quote.start[2], quote.start[3]]);
        if quote.protocol != TCP || error != (3, 4) {
            return;
        }
        if let Some(connection) = self.connections.get_mut(&(quote.to, port)) {
            connection.path_is_smaller();
        }
    }

    /// What connections have to say now.
    pub(crate) fn poll(&mut self, stack: &Stack, now: Duration) -> Vec<Datagram> {
        let mut datagrams = Vec::new();
        for (remote, connection) in &mut self.connections {
            let segments = connection.poll(stack.path_mtu(remote.0), now);
            datagrams.extend(segments.into_iter().map(|segment| Datagram {
                dont_fragment: true,
                ..Datagram::new(remote.0, TCP, segment)
            }));
        }
        datagrams
    }

    pub(crate) fn next(&self) -> Option<Duration> {
        let timeouts = self.connections.values();
        timeouts.filter_map(Connection::next_timeout).min()
    }
}
