//! What lies between the hosts: routers and the PLAT.

use std::net::IpAddr;

use super::{
    CLIENTS, Event, POOL, Place, ROUTER4, ROUTER6, Taken, World, clat_address, load, prefixes, take,
};
use crate::{
    inspect::Seen,
    link::Link,
    router::{Routed, route_v4, route_v6},
};

impl World {
    pub(super) fn at_router6(&mut self, packet: &[u8], is_noise: bool) {
        let Some((link, next)) = self.route_to_v6(packet) else {
            return;
        };
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

    pub(super) fn at_router4(&mut self, packet: &[u8], is_noise: bool) {
        let (link, next) = self.route_to_v4(packet);
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

    pub(super) fn at_plat(&mut self, from: Place, packet: &[u8], is_noise: bool) {
        let now = self.instant();
        load(&mut self.buf, packet);
        let to_v6 = (self.links.core, Place::Router6);
        let to_v4 = (self.links.outer, Place::Router4);
        let (verdict, on, back) = if from == Place::PlatFromV6 {
            (self.plat.handle_v6(&mut self.buf, now), to_v4, to_v6)
        } else {
            (self.plat.handle_v4(&mut self.buf, now), to_v6, to_v4)
        };
        let (packets, (link, to)) = match take(&mut self.buf, verdict) {
            Taken::On(packets) => (packets, on),
            Taken::Back(packet) => (vec![packet], back),
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
