//! [`FakeHost`]: a host in memory.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU8,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use l2::next_hop::Neighbour;
use plan::{Item, Route, Via};
use tokio::{
    net::{TcpStream, UdpSocket},
    sync::{mpsc, watch},
};
use wire::{ethernet::Mac, packet::PacketBuf};

use super::{FakeTun, FakeUplink};
use crate::{
    Host,
    dns::{Dns, Known, Link},
    netcfg::{Change, Made, System, SystemError},
    netwatch::{Interface, Network, Snapshot},
    probe::EchoSocket,
    ra::{Datagram, RouterAdvertisements},
    signals::{Signals, Told},
    tun::{OpenError, Received, SendError, Tun},
    uplink::Uplink,
};

/// The index of the first virtual interface. It has no meaning to anybody.
const FIRST_TUN: u32 = 100;

/// A host in memory. Its clones are the same host: one for the program, one for the test.
#[derive(Clone, Debug)]
pub struct FakeHost(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    world: World,
    /// What is said of the changes that were made and taken back.
    log: Vec<String>,
    /// The system refuses one of the changes to come, and how many it makes before.
    refusal: Option<(usize, io::ErrorKind)>,
    tun_refusal: Option<OpenError>,
    uplink_refusal: Option<io::ErrorKind>,
    tuns: u32,
    tuns_open: Vec<Weak<FakeTun>>,
    uplink: Option<Opened>,
    advertisements: Option<mpsc::UnboundedSender<Datagram>>,
    signals: Option<mpsc::UnboundedSender<Told>>,
}

/// What is true of the host and around it.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The interfaces and default routes.
    pub snapshot: Snapshot,
    /// The routers that the host's routes lead to, best first.
    pub gateways: Vec<Ipv6Addr>,
    /// The host's neighbours.
    pub neighbours: Vec<Neighbour>,
    /// The DNS servers that the system knows, on any link.
    pub resolvers: Known,
    /// The changes that are in force, in the order in which they were made.
    pub made: Vec<Item>,
    /// The interfaces on which routers were asked to advertise themselves.
    pub solicited: Vec<u32>,
    /// The hosts that echo requests were sent to.
    pub asked: Vec<Ipv4Addr>,
    /// The routers whose neighbour entry was to be used.
    pub nudged: Vec<Ipv6Addr>,
}

/// A link that was opened, for whom.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Where its packets are.
    pub port: Arc<FakeUplink>,
    /// The interface.
    pub interface: u32,
    /// Its link-layer address.
    pub mac: Mac,
    /// The address that packets are to and from.
    pub address: Ipv6Addr,
}

impl FakeHost {
    /// A host without any interface.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "as the ports")]
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        }))
    }

    /// Somebody else changes something, and the program is told.
    pub fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.lock().world);
        self.0.changed.send_replace(());
    }

    /// What is true now.
    #[must_use]
    pub fn world(&self) -> World {
        self.lock().world.clone()
    }

    /// The changes since the last call: `+ item` for one that was made, `- item` for one that was
    /// taken back.
    #[must_use]
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().log)
    }

    /// The system makes `count` changes from now on, and refuses the next one.
    pub fn refuse_after(&self, count: usize, kind: io::ErrorKind) {
        self.lock().refusal = Some((count, kind));
    }

    /// The next virtual interface is not created.
    pub fn refuse_tun(&self, why: OpenError) {
        self.lock().tun_refusal = Some(why);
    }

    /// The next link is not opened.
    pub fn refuse_uplink(&self, kind: io::ErrorKind) {
        self.lock().uplink_refusal = Some(kind);
    }

    /// The virtual interface, while the program has one.
    #[must_use]
    pub fn tun_port(&self) -> Option<Arc<FakeTun>> {
        self.tun_ports().into_iter().next()
    }

    /// The queues of the virtual interface, while the program has one.
    #[must_use]
    pub fn tun_ports(&self) -> Vec<Arc<FakeTun>> {
        self.lock()
            .tuns_open
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// The link that was opened last.
    #[must_use]
    pub fn uplink_port(&self) -> Option<Opened> {
        self.lock().uplink.clone()
    }

    /// A router advertises itself. Nobody hears it if nobody listens.
    pub fn advertise(&self, advertisement: Datagram) {
        if let Some(listener) = &self.lock().advertisements {
            let _ = listener.send(advertisement);
        }
    }

    /// The program is told something. Nobody hears it if nobody listens.
    pub fn signal(&self, told: Told) {
        if let Some(listener) = &self.lock().signals {
            let _ = listener.send(told);
        }
    }

    /// A thread that panicked is what a test may be about.
    fn lock(&self) -> MutexGuard<'_, State> {
        let state = &self.0.state;
        state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host for FakeHost {
    type Signals = FakeSignals;
    type System = FakeSystem;
    type Network = FakeNetwork;
    type RouterAdvertisements = FakeRouters;
    type Dns = FakeDns;
    type EchoSocket = FakeEchoSocket;

    fn signals(&self) -> io::Result<FakeSignals> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.lock().signals = Some(sender);
        Ok(FakeSignals(receiver))
    }

    fn system(&self) -> io::Result<FakeSystem> {
        Ok(FakeSystem(self.clone()))
    }

    fn network(&self) -> io::Result<FakeNetwork> {
        Ok(FakeNetwork {
            host: self.clone(),
            changed: self.0.changed.subscribe(),
        })
    }

    fn router_advertisements(&self) -> io::Result<FakeRouters> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.lock().advertisements = Some(sender);
        Ok(FakeRouters {
            host: self.clone(),
            heard: tokio::sync::Mutex::new(receiver),
        })
    }

    fn dns(&self) -> io::Result<FakeDns> {
        Ok(FakeDns(self.clone()))
    }

    fn echo_socket(&self, interface: &str, address: Ipv4Addr) -> io::Result<FakeEchoSocket> {
        let state = self.lock();
        let interface = state.world.snapshot.by_name(interface);
        if !interface.is_some_and(|it| it.ipv4.contains(&address)) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        Ok(FakeEchoSocket(self.clone()))
    }

    fn tun(&self, name: &str) -> Result<Arc<dyn Tun>, OpenError> {
        let mut queues = self.tun_queues(name, NonZeroU8::MIN)?;
        Ok(queues.remove(0))
    }

    fn tun_queues(&self, name: &str, queues: NonZeroU8) -> Result<Vec<Arc<dyn Tun>>, OpenError> {
        let ports: Vec<_> = (0..queues.get())
            .map(|_| Arc::new(FakeTun::new()))
            .collect();
        let mut state = self.lock();
        if let Some(why) = state.tun_refusal.take() {
            return Err(why);
        }
        let index = FIRST_TUN + state.tuns;
        state.tuns += 1;
        state.tuns_open = ports.iter().map(Arc::downgrade).collect();
        drop(state);
        let interface = Interface {
            index,
            name: name.to_owned(),
            running: false,
            mac: None,
            ipv6_mtu: 1500,
            addresses: Vec::new(),
            ipv4: Vec::new(),
        };
        self.change(|world| world.snapshot.interfaces.push(interface));
        let presence = Arc::new(Presence {
            index,
            host: self.clone(),
        });
        let queue = |port| VirtualInterface {
            name: name.to_owned(),
            port,
            _presence: Arc::clone(&presence),
        };
        Ok(ports
            .into_iter()
            .map(|port| Arc::new(queue(port)) as _)
            .collect())
    }

    fn uplink(&self, interface: u32, mac: Mac, address: Ipv6Addr) -> io::Result<Arc<dyn Uplink>> {
        let mut state = self.lock();
        if let Some(kind) = state.uplink_refusal.take() {
            return Err(kind.into());
        }
        let port = Arc::new(FakeUplink::new());
        state.uplink = Some(Opened {
            port: Arc::clone(&port),
            interface,
            mac,
            address,
        });
        Ok(port)
    }
}

/// A port that is an interface of the host, or one of its queues.
struct VirtualInterface {
    name: String,
    port: Arc<FakeTun>,
    _presence: Arc<Presence>,
}

/// An interface of the host, for as long as somebody has any queue of it.
struct Presence {
    index: u32,
    host: FakeHost,
}

impl Tun for VirtualInterface {
    fn name(&self) -> &str {
        &self.name
    }

    fn recv(&self, buf: &mut PacketBuf, timeout: Option<Duration>) -> io::Result<Received> {
        self.port.recv(buf, timeout)
    }

    fn send(&self, buf: &mut PacketBuf) -> Result<(), SendError> {
        self.port.send(buf)
    }

    fn wake(&self) {
        self.port.wake();
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.host.change(|world| {
            let Snapshot {
                interfaces,
                ipv4_default,
                ipv6_default,
                ipv4_networks,
                ipv6_routes,
            } = &mut world.snapshot;
            ipv6_routes.retain(|it| it.interface != self.index);
            interfaces.retain(|it| it.index != self.index);
            ipv4_default.retain(|it| *it != self.index);
            ipv6_default.retain(|it| *it != self.index);
            ipv4_networks.retain(|it| it.interface != self.index);
        });
    }
}

/// Signals, from a test.
#[derive(Debug)]
pub struct FakeSignals(mpsc::UnboundedReceiver<Told>);

impl Signals for FakeSignals {
    async fn next(&mut self) -> Told {
        match self.0.recv().await {
            Some(told) => told,
            None => std::future::pending().await,
        }
    }
}

/// Changes of a [`FakeHost`].
#[derive(Clone, Debug)]
pub struct FakeSystem(FakeHost);

impl System for FakeSystem {
    async fn before(&mut self, item: &Item) -> Option<String> {
        matches!(item, Item::Setting(_)).then(|| "0".to_owned())
    }

    async fn make(&mut self, item: &Item) -> Result<Made, SystemError> {
        let refused = |kind: io::ErrorKind| SystemError {
            what: item.to_string(),
            source: kind.into(),
        };
        self.0.lock().count_change().map_err(refused)?;
        let mut made = Ok(());
        self.0.change(|world| made = world.make(item));
        made.map_err(refused)?;
        self.0.lock().log.push(format!("+ {item}"));
        Ok(Made::Yes)
    }

    async fn unmake(&mut self, change: &Change) -> Result<(), SystemError> {
        let item = &change.item;
        self.0.change(|world| world.unmake(item));
        self.0.lock().log.push(format!("- {item}"));
        Ok(())
    }
}

impl State {
    fn count_change(&mut self) -> Result<(), io::ErrorKind> {
        match &mut self.refusal {
            Some((0, kind)) => {
                let kind = *kind;
                self.refusal = None;
                return Err(kind);
            }
            Some((before, _)) => *before -= 1,
            None => {}
        }
        Ok(())
    }
}

impl World {
    /// Where a change is about an interface, that shows.
    fn make(&mut self, item: &Item) -> Result<(), io::ErrorKind> {
        match item {
            Item::Interface(it) => self.interface(&it.name)?.running = true,
            Item::Address(it) => {
                let interface = self.interface(&it.interface)?;
                if let IpAddr::V4(address) = it.prefix.address {
                    interface.ipv4.retain(|it| *it != address);
                    interface.ipv4.push(address);
                }
            }
            Item::Route(route) => {
                if let Some(name) = ipv4_default(route) {
                    let index = self.interface(name)?.index;
                    self.snapshot.ipv4_default.retain(|it| *it != index);
                    self.snapshot.ipv4_default.push(index);
                }
            }
            Item::Setting(_)
            | Item::Concealment(_)
            | Item::ReservedPorts(_)
            | Item::PortShare(_)
            | Item::ProxyNeighbour(_)
            | Item::Masquerade(_)
            | Item::ForwardingGuard(_) => {}
        }
        self.made.retain(|it| !it.same_subject(item));
        self.made.push(item.clone());
        Ok(())
    }

    /// What is about an interface that is gone is gone with it.
    fn unmake(&mut self, item: &Item) {
        self.made.retain(|it| !it.same_subject(item));
        match item {
            Item::Address(it) => {
                if let Ok(interface) = self.interface(&it.interface) {
                    interface.ipv4.retain(|own| *own != it.prefix.address);
                }
            }
            Item::Route(route) => {
                if let Some(Ok(it)) = ipv4_default(route).map(|name| self.interface(name)) {
                    let index = it.index;
                    self.snapshot.ipv4_default.retain(|it| *it != index);
                }
            }
            Item::Interface(_)
            | Item::Setting(_)
            | Item::Concealment(_)
            | Item::ReservedPorts(_)
            | Item::PortShare(_)
            | Item::ProxyNeighbour(_)
            | Item::Masquerade(_)
            | Item::ForwardingGuard(_) => {}
        }
    }

    fn interface(&mut self, name: &str) -> Result<&mut Interface, io::ErrorKind> {
        let mut all = self.snapshot.interfaces.iter_mut();
        all.find(|it| it.name == name)
            .ok_or(io::ErrorKind::NotFound)
    }
}

/// The interface of an IPv4 default route.
fn ipv4_default(route: &Route) -> Option<&str> {
    let Via::Interface { name, .. } = &route.via else {
        return None;
    };
    let destination = route.destination;
    (destination.length == 0 && destination.address.is_ipv4()).then_some(name)
}

/// What a [`FakeHost`] tells of its network.
#[derive(Debug)]
pub struct FakeNetwork {
    host: FakeHost,
    changed: watch::Receiver<()>,
}

impl Network for FakeNetwork {
    async fn changed(&mut self) -> io::Result<()> {
        let changed = self.changed.changed().await;
        changed.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    async fn snapshot(&self) -> io::Result<Snapshot> {
        Ok(self.host.lock().world.snapshot.clone())
    }

    async fn gateways(&self, _interface: u32, _destination: Ipv6Addr) -> io::Result<Vec<Ipv6Addr>> {
        Ok(self.host.lock().world.gateways.clone())
    }

    async fn neighbours(&self, _interface: u32) -> io::Result<Vec<Neighbour>> {
        Ok(self.host.lock().world.neighbours.clone())
    }

    async fn nudge(&self, _interface: u32, router: Ipv6Addr) -> io::Result<()> {
        self.host.lock().world.nudged.push(router);
        Ok(())
    }
}

/// The routers around a [`FakeHost`].
#[derive(Debug)]
pub struct FakeRouters {
    host: FakeHost,
    heard: tokio::sync::Mutex<mpsc::UnboundedReceiver<Datagram>>,
}

impl RouterAdvertisements for FakeRouters {
    async fn recv(&self) -> io::Result<Datagram> {
        let heard = self.heard.lock().await.recv().await;
        heard.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    fn solicit(&self, interface: u32) -> io::Result<()> {
        self.host.lock().world.solicited.push(interface);
        Ok(())
    }
}

/// DNS servers that are known to a [`FakeHost`], and that cannot be reached: sockets are the
/// system's, and there is none.
#[derive(Clone, Debug)]
pub struct FakeDns(FakeHost);

impl Dns for FakeDns {
    async fn resolvers(&self, _link: &Link) -> Known {
        self.0.lock().world.resolvers.clone()
    }

    fn udp_socket(&self, _interface: u32, _local: SocketAddr) -> io::Result<UdpSocket> {
        Err(io::ErrorKind::NetworkUnreachable.into())
    }

    async fn connect_tcp(&self, _interface: u32, _server: SocketAddr) -> io::Result<TcpStream> {
        Err(io::ErrorKind::NetworkUnreachable.into())
    }
}

/// Echo requests of a [`FakeHost`], which nobody answers.
#[derive(Debug)]
pub struct FakeEchoSocket(FakeHost);

impl EchoSocket for FakeEchoSocket {
    fn send(&self, target: Ipv4Addr, _hop_limit: u8, _message: &[u8]) -> io::Result<()> {
        self.0.lock().world.asked.push(target);
        Ok(())
    }

    async fn recv(&self) -> io::Result<Vec<u8>> {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plan::{Address, Prefix};

    fn changes() -> [Item; 3] {
        let address = "192.0.0.1".parse().unwrap();
        [
            Item::Interface(plan::Interface {
                name: "clat0".into(),
                mtu: 1472,
            }),
            Item::Address(Address {
                interface: "clat0".into(),
                prefix: Prefix::host(address),
            }),
            Item::Route(Route {
                destination: Prefix::new("0.0.0.0".parse().unwrap(), 0),
                via: Via::Interface {
                    name: "clat0".into(),
                    source: Some(address),
                },
                metric: None,
            }),
        ]
    }

    #[tokio::test]
    async fn what_is_changed_shows_and_is_gone_with_its_interface() {
        let host = FakeHost::new();
        let (mut system, mut network) = (host.system().unwrap(), host.network().unwrap());
        let [interface, address, route] = changes();
        let refused = system.make(&interface).await.unwrap_err();
        assert_eq!(refused.source.kind(), io::ErrorKind::NotFound);
        let tun = host.tun("clat0").unwrap();
        for item in [&interface, &address, &route] {
            assert!(matches!(system.make(item).await, Ok(Made::Yes)));
        }
        network.changed().await.unwrap();
        let snapshot = network.snapshot().await.unwrap();
        let own = snapshot.by_name("clat0").unwrap();
        assert!(own.running && own.ipv4.len() == 1);
        assert_eq!(snapshot.ipv4_default, [own.index]);
        let echo = |last| host.echo_socket("clat0", Ipv4Addr::new(192, 0, 0, last));
        echo(1).unwrap().send(Ipv4Addr::LOCALHOST, 1, &[]).unwrap();
        assert_eq!(host.world().asked, [Ipv4Addr::LOCALHOST]);
        assert!(echo(3).is_err());
        let change = Change {
            item: route,
            before: None,
        };
        system.unmake(&change).await.unwrap();
        assert!(host.world().snapshot.ipv4_default.is_empty());
        assert_eq!(host.world().made.len(), 2);
        drop(tun);
        assert!(host.world().snapshot.interfaces.is_empty());
        assert!(host.tun_port().is_none());
        system.unmake(&change).await.unwrap();
        assert_eq!(host.take_log().len(), 5);
    }

    #[tokio::test]
    async fn the_change_that_is_to_be_refused_is_and_no_other() {
        let host = FakeHost::new();
        let mut system = host.system().unwrap();
        let _tun = host.tun("clat0").unwrap();
        host.refuse_after(1, io::ErrorKind::PermissionDenied);
        let [interface, address, _] = changes();
        assert!(system.make(&interface).await.is_ok());
        let refused = system.make(&address).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "address 192.0.0.1/32 on clat0: permission denied"
        );
        assert!(system.make(&address).await.is_ok());
    }

    #[tokio::test]
    async fn a_host_hears_what_it_listens_to() {
        let host = FakeHost::new();
        host.signal(Told::Report);
        let mut signals = host.signals().unwrap();
        host.signal(Told::End);
        assert_eq!(signals.next().await, Told::End);
        let routers = host.router_advertisements().unwrap();
        routers.solicit(3).unwrap();
        assert_eq!(host.world().solicited, [3]);
        let envelope = wire::ndp::Envelope {
            src: Ipv6Addr::LOCALHOST,
            dst: Ipv6Addr::LOCALHOST,
            hop_limit: 255,
        };
        host.advertise(Datagram {
            interface: 3,
            envelope,
            message: vec![134],
        });
        assert_eq!(routers.recv().await.unwrap().message, [134]);
        host.change(|world| world.resolvers.of_link = vec![Ipv6Addr::LOCALHOST.into()]);
        let dns = host.dns().unwrap();
        let link = Link {
            index: 3,
            name: "eth0".into(),
            is_default: true,
        };
        assert_eq!(dns.resolvers(&link).await.of_link.len(), 1);
        assert!(
            dns.udp_socket(3, (Ipv6Addr::UNSPECIFIED, 0).into())
                .is_err()
        );
        host.refuse_uplink(io::ErrorKind::NotFound);
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        assert!(host.uplink(3, mac, Ipv6Addr::LOCALHOST).is_err());
        assert!(host.uplink(3, mac, Ipv6Addr::LOCALHOST).is_ok());
        let opened = host.uplink_port().unwrap();
        assert_eq!((opened.interface, opened.mac), (3, mac));
    }
}
