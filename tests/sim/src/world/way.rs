//! What lies between the hosts: routers and the PLAT.

use std::net::IpAddr;

use super::{
    CLIENTS, Event, POOL, Place, ROUTER4, ROUTER6, Taken, World, clat_address, load, prefixes, take,
};
use crate::{
    inspect::Seen,
    link::Link,
    router::{Routed, one_hop_on, route_v4, route_v6},
    supersegment::Packet,
};

impl World {
    pub(super) fn at_router6(&mut self, packet: &Packet, is_noise: bool) {
        let Some((link, next)) = self.route_to_v6(&packet.bytes) else {
            return;
        };
        if let Some(on) = passed_whole(packet, link, 7) {
            return self.transmit(link, next, on, is_noise);
        }
        for bytes in packet.split() {
            self.route_on_v6(&bytes, (link, next), is_noise);
        }
    }

    fn route_on_v6(&mut self, packet: &[u8], (link, next): (Link, Place), is_noise: bool) {
        match route_v6(ROUTER6, link.mtu, packet) {
            Routed::On(packets) => {
                for packet in packets {
                    self.transmit(link, next, packet, is_noise);
                }
            }
            Routed::Back(error) => {
                if let Some((link, back)) = self.route_to_v6(&error) {
                    self.transmit(link, back, error, is_noise);
                }
            }
            Routed::Lost => {}
        }
    }

    pub(super) fn route_to_v6(&self, packet: &[u8]) -> Option<(Link, Place)> {
        let Ok(Seen {
            dst: IpAddr::V6(dst),
            ..
        }) = Seen::read(packet)
        else {
            return None;
        };
        if prefixes().iter().any(|it| it.contains(dst)) {
            return Some((self.links.core, Place::PlatFromV6));
        }
        let client = (0..CLIENTS).find(|it| clat_address(*it) == dst)?;
        Some((self.links.access[client], Place::Clat(client)))
    }

    pub(super) fn at_router4(&mut self, packet: &Packet, is_noise: bool) {
        let (link, next) = self.route_to_v4(&packet.bytes);
        if let Some(on) = passed_whole(packet, link, 8) {
            return self.transmit(link, next, on, is_noise);
        }
        for bytes in packet.split() {
            self.route_on_v4(&bytes, (link, next), is_noise);
        }
    }

    fn route_on_v4(&mut self, packet: &[u8], (link, next): (Link, Place), is_noise: bool) {
        match route_v4(ROUTER4, link.mtu, packet) {
            Routed::On(packets) => {
                for packet in packets {
                    self.transmit(link, next, packet, is_noise);
                }
            }
            Routed::Back(error) => {
                let (link, back) = self.route_to_v4(&error);
                self.transmit(link, back, error, is_noise);
            }
            Routed::Lost => {}
        }
    }

    pub(super) fn route_to_v4(&self, packet: &[u8]) -> (Link, Place) {
        if packet[16..20] == POOL.octets() {
            (self.links.outer, Place::PlatFromV4)
        } else {
            (self.links.last, Place::Server)
        }
    }

    pub(super) fn at_plat(&mut self, from: Place, packet: &Packet, is_noise: bool) {
        let now = self.instant();
        load(&mut self.buf, packet);
        let to_v6 = (self.links.core, Place::Router6);
        let to_v4 = (self.links.outer, Place::Router4);
        // Both families come by one interface: noise of the other family comes as itself.
        let is_v6 = packet.bytes[0] >> 4 == 6;
        assert!(is_noise || is_v6 == (from == Place::PlatFromV6));
        let (verdict, on, back) = if is_v6 {
            (self.plat.handle_v6(&mut self.buf, now), to_v4, to_v6)
        } else {
            (self.plat.handle_v4(&mut self.buf, now), to_v6, to_v4)
        };
        let (packets, (link, to)) = match take(&mut self.buf, verdict) {
            Taken::On(packets) => (packets, on),
            Taken::Back(packet) => (vec![packet.into()], back),
        };
        for packet in packets {
            self.transmit(link, to, packet, is_noise);
        }
        self.ask_for_plat();
    }

    /// Something has happened in the PLAT.
    pub(super) fn ask_for_plat(&mut self) {
        self.check_tables();
        let Some(due) = self.plat.poll_timeout() else {
            return;
        };
        let due = due.saturating_duration_since(self.origin);
        if self.plat_wakes.is_none_or(|at| due < at) {
            self.plat_wakes = Some(due);
            self.at(due, Event::WakePlat);
        }
    }

    pub(super) fn wake_plat(&mut self) {
        let now = self.instant();
        self.plat.handle_timeout(now);
        let next = self.plat.poll_timeout();
        assert!(next.is_none_or(|it| it > now), "always something to do");
        self.plat_wakes = None;
        self.ask_for_plat();
    }
}

/// A super-segment after a router that passes it on as one: every segment fits, and lives. The hop
/// limit is at `at`.
fn passed_whole(packet: &Packet, link: Link, at: usize) -> Option<Packet> {
    let passes = packet.size.is_some() && packet.longest() <= link.mtu && packet.bytes[at] > 1;
    passes.then(|| {
        let mut on = packet.clone();
        if at == 8 {
            on.bytes = one_hop_on(&packet.bytes);
        } else {
            on.bytes[at] -= 1;
        }
        on
    })
}
