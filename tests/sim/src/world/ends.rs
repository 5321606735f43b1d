//! The hosts at both ends, and the CLATs in the clients.

use std::time::Duration;

use super::{Client, Event, Place, Taken, World, load, prefixes, take};
use crate::{
    inspect::ICMP,
    stack::{Arrived, Datagram},
    supersegment::{Packet, joined},
};

impl World {
    pub(super) fn poll_client(&mut self, number: usize) {
        let now = self.now;
        let client = &mut self.clients[number];
        let mut packets = Vec::new();
        for flow in &mut client.flows {
            for datagram in flow.poll(&client.stack, now) {
                packets.extend(client.stack.send(&datagram));
            }
        }
        for packet in self.as_sent(packets) {
            self.leave_client(number, &packet);
        }
        self.wake_client(number);
    }

    /// What a host's stack hands to its interface: now and then several segments in one.
    fn as_sent(&mut self, packets: Vec<Vec<u8>>) -> Vec<Packet> {
        if self.random.chance(700) {
            joined(packets)
        } else {
            packets.into_iter().map(Packet::from).collect()
        }
    }

    /// Flows that began under the old prefix go on under it.
    pub(super) fn change_prefix(&mut self, number: usize) {
        let [before, after] = prefixes();
        let client = &mut self.clients[number];
        client.settings.prefix = after;
        client.settings.retained = vec![before];
        client.outbound.configure(&client.settings);
        client.inbound.configure(&client.settings);
    }

    pub(super) fn wake_client(&mut self, number: usize) {
        let flows = &self.clients[number].flows;
        if let Some(next) = flows.iter().filter_map(|it| it.next()).min() {
            // Not at once again: a flow that has nothing to say now says so by this moment.
            let next = next.max(self.now + Duration::from_micros(1));
            let asked = self
                .queue
                .range(..(next, u64::MAX))
                .any(|(_, it)| matches!(it, Event::WakeClient(n) if *n == number));
            if !asked {
                self.at(next, Event::WakeClient(number));
            }
        }
    }

    /// A client's packet, through its CLAT.
    pub(super) fn leave_client(&mut self, number: usize, packet: &Packet) {
        self.note(Place::Clat(number), packet);
        let now = self.instant();
        let outbound = &mut self.clients[number].outbound;
        load(&mut self.buf, packet);
        let verdict = outbound.handle_host(&mut self.buf, now);
        match take(&mut self.buf, verdict) {
            Taken::On(packets) => {
                let link = self.links.access[number];
                for packet in packets {
                    self.transmit(link, Place::Router6, packet, false);
                }
            }
            Taken::Back(packet) => self.reach_client(number, &packet),
        }
    }

    /// A packet of the network, through a CLAT.
    pub(super) fn enter_clat(&mut self, number: usize, packet: &Packet, is_noise: bool) {
        let now = self.instant();
        let inbound = &mut self.clients[number].inbound;
        load(&mut self.buf, packet);
        let verdict = inbound.handle_net(&mut self.buf, now);
        match take(&mut self.buf, verdict) {
            Taken::On(_) if is_noise => {}
            Taken::On(packets) => {
                for bytes in packets.iter().flat_map(Packet::split) {
                    self.reach_client(number, &bytes);
                }
            }
            Taken::Back(packet) => {
                let link = self.links.access[number];
                self.transmit(link, Place::Router6, packet, is_noise);
            }
        }
    }

    pub(super) fn reach_client(&mut self, number: usize, packet: &[u8]) {
        let client = &mut self.clients[number];
        if let Some(arrived) = client.stack.receive(packet, self.now) {
            let taken = if arrived.is_icmp_error() {
                tell(client, &arrived)
            } else {
                client.flows.iter_mut().any(|it| it.arrived(&arrived))
            };
            assert!(taken, "nobody's: {arrived:?}");
            self.poll_client(number);
        }
    }

    pub(super) fn at_server(&mut self, packet: &Packet) {
        let mut answers = Vec::new();
        for bytes in packet.split() {
            answers.extend(self.server_hears(&bytes));
        }
        self.leave_server(&answers);
        self.poll_server();
    }

    fn server_hears(&mut self, packet: &[u8]) -> Vec<Datagram> {
        let Some(arrived) = self.server_stack.receive(packet, self.now) else {
            return Vec::new();
        };
        if arrived.is_icmp_error() {
            if let Some(quote) = self.server_stack.read_error(&arrived) {
                self.server
                    .told((arrived.payload[0], arrived.payload[1]), &quote);
            }
            return Vec::new();
        }
        self.server
            .arrived(&arrived, &self.server_stack, &mut self.random)
    }

    pub(super) fn poll_server(&mut self) {
        let datagrams = self.server.poll(&self.server_stack, self.now);
        self.leave_server(&datagrams);
        if let Some(next) = self.server.next() {
            let next = next.max(self.now + Duration::from_micros(1));
            let mut earlier = self.queue.range(..(next, u64::MAX));
            if !earlier.any(|(_, it)| matches!(it, Event::WakeServer)) {
                self.at(next, Event::WakeServer);
            }
        }
    }

    pub(super) fn leave_server(&mut self, datagrams: &[Datagram]) {
        let mut packets = Vec::new();
        for datagram in datagrams {
            packets.extend(self.server_stack.send(datagram));
        }
        for packet in self.as_sent(packets) {
            self.transmit(self.links.last, Place::Router4, packet, false);
        }
    }
}

/// An ICMP error, to the flow that it is about.
pub(super) fn tell(client: &mut Client, arrived: &Arrived) -> bool {
    assert_eq!(arrived.protocol, ICMP);
    let error = (arrived.payload[0], arrived.payload[1]);
    match client.stack.read_error(arrived) {
        Some(quote) => {
            let mut flows = client.flows.iter_mut();
            flows.any(|it| it.told(arrived.from, error, &quote))
        }
        None => true,
    }
}
