//! A router's voice: router advertisements with whatever in them, right or wrong.

use std::{
    io,
    net::{Ipv6Addr, SocketAddrV6},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use pref64::{Pref64, ra_option::Pref64Option};
use socket2::{Domain, Protocol, Socket, Type};
use wire::{
    icmp::v6,
    ndp::{ALL_NODES, DnsServer, PrefixInformation},
};

use crate::namespace::Namespace;

/// What is advertised.
#[derive(Clone, Debug)]
pub struct Advertisement {
    /// Seconds for which this is a default router.
    pub router_lifetime: u16,
    /// Prefixes for addresses, each a /64.
    pub prefixes: Vec<Ipv6Addr>,
    /// NAT64 prefixes.
    pub pref64: Vec<(Pref64, Duration)>,
    /// DNS servers (RFC 8106), for 1800 seconds.
    pub dns_servers: Vec<Ipv6Addr>,
    /// The link's MTU, if any.
    pub mtu: Option<u32>,
    /// Options as they are, right or wrong.
    pub raw: Vec<Vec<u8>>,
    /// The hop limit of the packet. Anything but 255 is invalid.
    pub hop_limit: u8,
    /// The address to send from: link-local to be valid.
    pub source: Ipv6Addr,
    /// Whether anything is sent at all.
    pub silent: bool,
}

impl Advertisement {
    /// A router at `source` for a network, without NAT64.
    #[must_use]
    pub fn new(source: Ipv6Addr, network: Ipv6Addr) -> Self {
        Self {
            router_lifetime: 1800,
            prefixes: vec![network],
            pref64: Vec::new(),
            dns_servers: Vec::new(),
            mtu: None,
            raw: Vec::new(),
            hop_limit: 255,
            source,
            silent: false,
        }
    }

    /// The same, announcing a NAT64 prefix for half an hour.
    #[must_use]
    pub fn with_pref64(mut self, prefix: &str) -> Self {
        let prefix = prefix.parse().expect("a NAT64 prefix");
        self.pref64.push((prefix, Duration::from_secs(1800)));
        self
    }

    /// The ICMPv6 message. The kernel writes the checksum.
    fn message(&self, mac: [u8; 6]) -> Vec<u8> {
        let [l0, l1] = self.router_lifetime.to_be_bytes();
        let kind = v6::ROUTER_ADVERTISEMENT;
        let mut message = vec![kind, 0, 0, 0, 64, 0, l0, l1, 0, 0, 0, 0, 0, 0, 0, 0];
        message.extend([1, 1]);
        message.extend(mac);
        if let Some(mtu) = self.mtu {
            message.extend([5, 1, 0, 0]);
            message.extend(mtu.to_be_bytes());
        }
        for prefix in &self.prefixes {
            let information = PrefixInformation {
                prefix: *prefix,
                length: 64,
                on_link: true,
                autonomous: true,
                valid_lifetime: 86_400,
                preferred_lifetime: 14_400,
            };
            message.extend(information.to_bytes());
        }
        for (prefix, lifetime) in &self.pref64 {
            let option = Pref64Option {
                prefix: *prefix,
                lifetime: *lifetime,
            };
            message.extend(option.to_bytes());
        }
        if !self.dns_servers.is_empty() {
            message.extend(DnsServer::option(&self.dns_servers, 1800));
        }
        for raw in &self.raw {
            message.extend(raw);
        }
        message
    }
}

/// Advertises on an interface until dropped: at once, when solicited, when changed, and every few
/// seconds.
pub struct Advertiser {
    current: Arc<Mutex<(Advertisement, bool)>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

const INTERVAL: Duration = Duration::from_secs(4);

impl Advertiser {
    /// Starts to advertise on an interface of a namespace.
    ///
    /// # Panics
    /// If the socket cannot be opened.
    #[must_use]
    pub fn start(namespace: &Namespace, interface: &str, advertisement: Advertisement) -> Self {
        let current = Arc::new(Mutex::new((advertisement, true)));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&current), Arc::clone(&stop));
        let interface = interface.to_owned();
        let thread = namespace.spawn(move || {
            let port = Port::open(&interface).expect("a raw socket for advertisements");
            port.serve(&shared, &stopped);
        });
        Self {
            current,
            stop,
            thread: Some(thread),
        }
    }

    /// Changes what is advertised, and advertises it at once.
    pub fn change(&self, change: impl FnOnce(&mut Advertisement)) {
        let mut current = self.current.lock().unwrap_or_else(|it| it.into_inner());
        change(&mut current.0);
        current.1 = true;
    }
}

impl Drop for Advertiser {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Advertiser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Advertiser").finish_non_exhaustive()
    }
}

/// Claims an address on a link, as a host does that has it: a Neighbor Advertisement to all.
///
/// # Panics
/// If the socket cannot be used.
pub fn claim_address(namespace: &Namespace, interface: &str, address: Ipv6Addr) {
    let interface = interface.to_owned();
    let claim = move || -> io::Result<()> {
        let index = nix::net::if_::if_nametoindex(interface.as_str())?;
        let mut message = vec![v6::NEIGHBOR_ADVERTISEMENT, 0, 0, 0, 0x20, 0, 0, 0];
        message.extend(address.octets());
        message.extend([2, 1]);
        message.extend(mac_of(&interface)?);
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.set_multicast_hops_v6(wire::ndp::HOP_LIMIT.into())?;
        socket.set_multicast_loop_v6(false)?;
        let to = SocketAddrV6::new(ALL_NODES, 0, 0, index);
        socket.send_to(&message, &to.into())?;
        Ok(())
    };
    namespace.run(move || claim().expect("a raw socket"));
}

struct Port {
    interface: u32,
    mac: [u8; 6],
    listener: Socket,
}

impl Port {
    fn open(interface: &str) -> io::Result<Self> {
        let index = nix::net::if_::if_nametoindex(interface)?;
        let listener = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        let all_routers = wire::ndp::ALL_ROUTERS;
        listener.join_multicast_v6(&all_routers, index)?;
        listener.set_read_timeout(Some(Duration::from_millis(20)))?;
        Ok(Self {
            interface: index,
            mac: mac_of(interface)?,
            listener,
        })
    }

    fn serve(&self, current: &Mutex<(Advertisement, bool)>, stop: &AtomicBool) {
        let mut last: Option<Instant> = None;
        while !stop.load(Ordering::Relaxed) {
            let solicited = self.solicited();
            let advertisement = {
                let mut current = current.lock().unwrap_or_else(|it| it.into_inner());
                let due = last.is_none_or(|at| at.elapsed() >= INTERVAL);
                let wanted = std::mem::take(&mut current.1) || solicited || due;
                wanted.then(|| current.0.clone())
            };
            if let Some(advertisement) = advertisement.filter(|it| !it.silent) {
                // The interface may be down for now.
                let _ = self.advertise(&advertisement);
                last = Some(Instant::now());
            }
        }
    }

    /// Waits a moment for a solicitation.
    fn solicited(&self) -> bool {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 1500];
        match self.listener.recv(&mut buffer) {
            Ok(len) if len > 0 => {
                // SAFETY: the kernel has written `len` > 0 bytes.
                let kind = unsafe { buffer[0].assume_init() };
                kind == v6::ROUTER_SOLICITATION
            }
            Ok(_) => false,
            Err(_) => {
                thread::sleep(Duration::from_millis(1));
                false
            }
        }
    }

    fn advertise(&self, advertisement: &Advertisement) -> io::Result<()> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.set_multicast_hops_v6(advertisement.hop_limit.into())?;
        socket.set_multicast_loop_v6(false)?;
        let scope = if advertisement.source.is_unicast_link_local() {
            self.interface
        } else {
            0
        };
        let from = SocketAddrV6::new(advertisement.source, 0, 0, scope);
        socket.bind(&from.into())?;
        let to = SocketAddrV6::new(ALL_NODES, 0, 0, self.interface);
        socket.send_to(&advertisement.message(self.mac), &to.into())?;
        Ok(())
    }
}

/// The link-layer address of an interface of the current namespace.
///
/// # Errors
/// The system's.
pub fn mac_of(interface: &str) -> io::Result<[u8; 6]> {
    for address in nix::ifaddrs::getifaddrs()? {
        if address.interface_name != interface {
            continue;
        }
        let link = address.address.as_ref().and_then(|it| it.as_link_addr());
        if let Some(mac) = link.and_then(nix::sys::socket::LinkAddr::addr) {
            return Ok(mac);
        }
    }
    Err(io::ErrorKind::NotFound.into())
}
