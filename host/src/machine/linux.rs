//! Linux: rtnetlink, nftables, TUN devices, packet sockets and a raw ICMPv6 socket.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    num::NonZeroU8,
    sync::Arc,
};

use wire::ethernet::Mac;

use super::{Host, ThisHost};
use crate::{
    dns::linux::LinuxDns,
    netcfg::linux::LinuxSystem,
    netwatch::linux::NetWatch,
    probe::linux::RawIcmp,
    ra::linux::RaSocket,
    signals::HostSignals,
    tun::{OpenError, Tun, linux::LinuxTun},
    uplink::{Uplink, linux::PacketSocket},
};

impl Host for ThisHost {
    type Signals = HostSignals;
    type System = LinuxSystem;
    type Network = NetWatch;
    type RouterAdvertisements = RaSocket;
    type Dns = LinuxDns;
    type EchoSocket = RawIcmp;

    fn signals(&self) -> io::Result<HostSignals> {
        HostSignals::open()
    }

    fn system(&self) -> io::Result<LinuxSystem> {
        LinuxSystem::open()
    }

    fn network(&self) -> io::Result<NetWatch> {
        NetWatch::open()
    }

    fn router_advertisements(&self) -> io::Result<RaSocket> {
        RaSocket::open()
    }

    fn dns(&self) -> io::Result<LinuxDns> {
        Ok(LinuxDns::default())
    }

    fn echo_socket(&self, interface: &str, address: Ipv4Addr) -> io::Result<RawIcmp> {
        RawIcmp::open(interface, address)
    }

    fn tun(&self, name: &str) -> Result<Arc<dyn Tun>, OpenError> {
        Ok(Arc::new(LinuxTun::open(name)?))
    }

    fn tun_queues(&self, name: &str, queues: NonZeroU8) -> Result<Vec<Arc<dyn Tun>>, OpenError> {
        let all = LinuxTun::open_queues(name, queues)?;
        Ok(all.into_iter().map(|it| Arc::new(it) as _).collect())
    }

    fn uplink(&self, interface: u32, mac: Mac, address: Ipv6Addr) -> io::Result<Arc<dyn Uplink>> {
        Ok(Arc::new(PacketSocket::open(interface, mac, address)?))
    }
}
