//! Systems without backends: every part says that it is missing. A system gets a file of its own
//! when it gets its first backend.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU8,
    sync::Arc,
};

use l2::next_hop::Neighbour;
use plan::Item;
use tokio::net::{TcpStream, UdpSocket};
use wire::ethernet::Mac;

use super::{Host, ThisHost};
use crate::{
    Unsupported,
    dns::{Dns, Known, Link},
    netcfg::{Change, Made, System, SystemError},
    netwatch::{Network, Snapshot},
    probe::EchoSocket,
    ra::{Datagram, RouterAdvertisements},
    signals::HostSignals,
    tun::{OpenError, Tun},
    uplink::Uplink,
};

/// A backend that does not exist: nobody can have a value of it, so nothing here is ever called.
///
/// That is private. Otherwise the compiler would warn of code behind `ThisHost.network()?` that it
/// is unreachable, where a program is not written for any [`Host`].
#[derive(Clone, Debug)]
pub struct Absent(Infallible);

impl Host for ThisHost {
    type Signals = HostSignals;
    type System = Absent;
    type Network = Absent;
    type RouterAdvertisements = Absent;
    type Dns = Absent;
    type EchoSocket = Absent;

    fn signals(&self) -> io::Result<HostSignals> {
        HostSignals::open()
    }

    fn system(&self) -> io::Result<Absent> {
        Err(Unsupported::here("network settings").into())
    }

    fn network(&self) -> io::Result<Absent> {
        Err(Unsupported::here("the state of the network").into())
    }

    fn router_advertisements(&self) -> io::Result<Absent> {
        Err(Unsupported::here("router advertisements").into())
    }

    fn dns(&self) -> io::Result<Absent> {
        Err(Unsupported::here("DNS servers").into())
    }

    fn echo_socket(&self, _interface: &str, _address: Ipv4Addr) -> io::Result<Absent> {
        Err(Unsupported::here("echo requests").into())
    }

    fn tun(&self, _name: &str) -> Result<Arc<dyn Tun>, OpenError> {
        Err(Unsupported::here("virtual interfaces").into())
    }

    fn tun_queues(&self, _name: &str, _queues: NonZeroU8) -> Result<Vec<Arc<dyn Tun>>, OpenError> {
        Err(Unsupported::here("virtual interfaces").into())
    }

    fn uplink(
        &self,
        _interface: u32,
        _mac: Mac,
        _address: Ipv6Addr,
    ) -> io::Result<Arc<dyn Uplink>> {
        Err(Unsupported::here("IPv6 addresses beside the system's own").into())
    }
}

impl System for Absent {
    async fn before(&mut self, _item: &Item) -> Option<String> {
        match self.0 {}
    }

    async fn make(&mut self, _item: &Item) -> Result<Made, SystemError> {
        match self.0 {}
    }

    async fn unmake(&mut self, _change: &Change) -> Result<(), SystemError> {
        match self.0 {}
    }
}

impl Network for Absent {
    async fn changed(&mut self) -> io::Result<()> {
        match self.0 {}
    }

    async fn snapshot(&self) -> io::Result<Snapshot> {
        match self.0 {}
    }

    async fn gateways(&self, _interface: u32, _destination: Ipv6Addr) -> io::Result<Vec<Ipv6Addr>> {
        match self.0 {}
    }

    async fn neighbours(&self, _interface: u32) -> io::Result<Vec<Neighbour>> {
        match self.0 {}
    }

    async fn nudge(&self, _interface: u32, _router: Ipv6Addr) -> io::Result<()> {
        match self.0 {}
    }
}

impl RouterAdvertisements for Absent {
    async fn recv(&self) -> io::Result<Datagram> {
        match self.0 {}
    }

    fn solicit(&self, _interface: u32) -> io::Result<()> {
        match self.0 {}
    }
}

impl Dns for Absent {
    async fn resolvers(&self, _link: &Link) -> Known {
        match self.0 {}
    }

    fn udp_socket(&self, _interface: u32, _local: SocketAddr) -> io::Result<UdpSocket> {
        match self.0 {}
    }

    async fn connect_tcp(&self, _interface: u32, _server: SocketAddr) -> io::Result<TcpStream> {
        match self.0 {}
    }
}

impl EchoSocket for Absent {
    fn send(&self, _target: Ipv4Addr, _hop_limit: u8, _message: &[u8]) -> io::Result<()> {
        match self.0 {}
    }

    async fn recv(&self) -> io::Result<Vec<u8>> {
        match self.0 {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_says_that_it_is_missing() {
        let sentence = |error: io::Error| {
            assert!(Unsupported::of(&error).is_some(), "{error}");
            error.to_string()
        };
        let said = sentence(ThisHost.system().unwrap_err());
        assert!(said.starts_with("there is no backend for network settings on "));
        sentence(ThisHost.network().unwrap_err());
        sentence(ThisHost.router_advertisements().unwrap_err());
        sentence(ThisHost.dns().unwrap_err());
        let echo = ThisHost.echo_socket("clat0", Ipv4Addr::LOCALHOST);
        sentence(echo.unwrap_err());
        let uplink = ThisHost.uplink(1, Mac([0; 6]), Ipv6Addr::LOCALHOST);
        sentence(uplink.err().unwrap());
        let tun = ThisHost.tun("clat0").err().unwrap();
        assert!(matches!(tun, OpenError::Unsupported(_)));
    }
}
