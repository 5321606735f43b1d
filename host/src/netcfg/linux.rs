//! Links, addresses and routes by rtnetlink, settings under `/proc/sys`, concealment by nftables.
//!
//! Somebody else's things are left alone, even where they are the same as ours: our routes carry a
//! protocol number of their own, an address that was there before is noted in the journal, and our
//! nftables tables have a name of their own.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use plan::{Address, Interface, Item, Ports, Prefix, ProxyNeighbour, Route, Setting, Via};
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressMessage},
        link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkMessage},
        neighbour::{
            NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
        },
        route::{RouteMessage, RouteProtocol, RouteScope, RouteType},
    },
};

use super::{
    Change, Made, System, SystemError, guard, nft,
    reserved::{self, PortSet},
    sharing,
};
use crate::{
    fault,
    netlink::{Netlink, as_address, as_link, as_neighbour, into_io, within},
};

/// Marks our routes. Not assigned to any other program in the kernel's or iproute2's list; the
/// number means nothing else.
const OUR_ROUTES: RouteProtocol = RouteProtocol::Other(164);

/// Marks our virtual interfaces, so that the guard of one program lets the packets of another pass.
/// Groups have numbers that whoever uses them chooses; nothing else looks at this one.
pub(super) const OUR_INTERFACES: u32 = 164_164;

/// Setting this one sets it on every interface too, whatever each had of its own.
const FORWARDING: &str = "net/ipv6/conf/all/forwarding";

/// No change takes this long, unless an answer is lost or a program hangs.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The host, by its kernel's interfaces.
#[derive(Clone)]
pub struct LinuxSystem {
    netlink: Netlink,
}

impl LinuxSystem {
    /// Opens a netlink socket. Must be called on a tokio runtime, in the network namespace to
    /// configure.
    ///
    /// # Errors
    /// The system's.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            netlink: Netlink::open()?,
        })
    }

    fn handle(&self) -> &Handle {
        self.netlink.handle()
    }

    async fn index_of(&self, name: &str) -> io::Result<u32> {
        let mut request = LinkMessage::default();
        (request.attributes).push(LinkAttribute::IfName(name.to_owned()));
        let request = RouteNetlinkMessage::GetLink(request);
        let found = self.netlink.get(request).await?;
        let index = found.iter().find_map(as_link).map(|it| it.header.index);
        index.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    async fn make_item(&self, item: &Item) -> io::Result<Made> {
        fault::refusal()?;
        match item {
            Item::Interface(interface) => self.configure(interface).await?,
            Item::Address(address) => self.add_address(address).await?,
            Item::Route(route) => self.add_route(route).await?,
            Item::Setting(setting) => return make_setting(setting),
            Item::Concealment(concealment) => return nft::conceal(concealment).await,
            Item::ReservedPorts(it) => reserve(it.ports)?,
            Item::PortShare(it) => return sharing::share(it).await,
            Item::ProxyNeighbour(it) => self.add_proxy(it).await?,
            Item::Masquerade(it) => return sharing::masquerade(it).await,
            Item::ForwardingGuard(it) => return guard::set_up(it).await,
        }
        Ok(Made::Yes)
    }

    async fn unmake_item(&self, change: &Change) -> io::Result<()> {
        match &change.item {
            // The interface is ours and goes with the descriptor that made it.
            Item::Interface(_) => Ok(()),
            // Somebody else's: it was there before.
            Item::Address(_) if change.before.is_some() => Ok(()),
            Item::Address(address) => gone_is_fine(self.delete_address(address).await),
            Item::Route(route) => gone_is_fine(self.delete_route(route).await),
            Item::Setting(setting) => restore(setting, change.before.as_deref()),
            Item::Concealment(concealment) => nft::reveal(concealment).await,
            Item::ReservedPorts(it) => unreserve(it.ports, change.before.as_deref()),
            Item::PortShare(it) => sharing::unshare(it).await,
            // Somebody else's: it was there before.
            Item::ProxyNeighbour(_) if change.before.is_some() => Ok(()),
            Item::ProxyNeighbour(it) => gone_is_fine(self.delete_proxy(it).await),
            Item::Masquerade(it) => sharing::unmasquerade(it).await,
            Item::ForwardingGuard(it) => guard::take_down(it).await,
        }
    }

    /// Up, with its MTU, and without the link-local address and router solicitations that the
    /// kernel would otherwise put on it.
    async fn configure(&self, interface: &Interface) -> io::Result<()> {
        let index = self.index_of(&interface.name).await?;
        let no_addresses = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let family = vec![AfSpecUnspec::Inet6(vec![no_addresses])];
        let set =
            |builder: LinkMessageBuilder<LinkUnspec>| self.handle().link().set(builder.build());
        let settings = || {
            LinkUnspec::new_with_index(index)
                .mtu(interface.mtu.into())
                .append_extra_attribute(LinkAttribute::Group(OUR_INTERFACES))
        };
        let without_addresses =
            settings().append_extra_attribute(LinkAttribute::AfSpecUnspec(family));
        match set(without_addresses).execute().await.map_err(into_io) {
            Ok(()) => {}
            // A host without IPv6 at all has nothing to switch off.
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                set(settings()).execute().await.map_err(into_io)?;
            }
            Err(error) => return Err(error),
        }
        fault::point("interface configured, not up");
        fault::refusal()?;
        let up = LinkUnspec::new_with_index(index).up();
        set(up).execute().await.map_err(into_io)
    }

    async fn add_address(&self, address: &Address) -> io::Result<()> {
        let index = self.index_of(&address.interface).await?;
        let Prefix { address, length } = address.prefix;
        let request = self.handle().address().add(index, address, length);
        exists_is_fine(request.execute().await.map_err(into_io))
    }

    async fn delete_address(&self, address: &Address) -> io::Result<()> {
        for message in self.find_address(address).await? {
            let request = self.handle().address().del(message);
            request.execute().await.map_err(into_io)?;
        }
        Ok(())
    }

    /// The kernel's entries for an address on an interface: one or none.
    async fn find_address(&self, address: &Address) -> io::Result<Vec<AddressMessage>> {
        let index = self.index_of(&address.interface).await?;
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let all = self.netlink.dump(request).await?;
        let found = all.iter().filter_map(as_address);
        let found = found.filter(|it| it.header.index == index && is_about(it, address.prefix));
        Ok(found.cloned().collect())
    }

    async fn add_proxy(&self, proxy: &ProxyNeighbour) -> io::Result<()> {
        let index = self.index_of(&proxy.interface).await?;
        let add = self.handle().neighbours().add(index, proxy.address.into());
        let add = add.state(NeighbourState::None).flags(NeighbourFlags::Proxy);
        exists_is_fine(add.execute().await.map_err(into_io))
    }

    async fn delete_proxy(&self, proxy: &ProxyNeighbour) -> io::Result<()> {
        let mut message = proxies();
        message.header.ifindex = self.index_of(&proxy.interface).await?;
        let address = NeighbourAddress::Inet(proxy.address);
        (message.attributes).push(NeighbourAttribute::Destination(address));
        let request = self.handle().neighbours().del(message);
        request.execute().await.map_err(into_io)
    }

    async fn has_proxy(&self, proxy: &ProxyNeighbour) -> io::Result<bool> {
        let index = self.index_of(&proxy.interface).await?;
        let all = self
            .netlink
            .dump(RouteNetlinkMessage::GetNeighbour(proxies()));
        let all = all.await?;
        let address = NeighbourAddress::Inet(proxy.address);
        let address = NeighbourAttribute::Destination(address);
        let is_it =
            |it: &NeighbourMessage| it.header.ifindex == index && it.attributes.contains(&address);
        Ok(all.iter().filter_map(as_neighbour).any(is_it))
    }

    async fn add_route(&self, route: &Route) -> io::Result<()> {
        let message = self.route_message(route).await?;
        let add = |message| self.handle().route().add(message).execute();
        let added = add(message.clone()).await.map_err(into_io);
        if !is(&added, libc::EEXIST) {
            return added;
        }
        // Ours is replaced. Somebody else's stays, and is still in the way then.
        gone_is_fine(self.delete_route(route).await)?;
        add(message).await.map_err(into_io)
    }

    async fn delete_route(&self, route: &Route) -> io::Result<()> {
        let message = self.route_message(route).await?;
        let request = self.handle().route().del(message);
        request.execute().await.map_err(into_io)
    }

    async fn route_message(&self, route: &Route) -> io::Result<RouteMessage> {
        let Prefix { address, length } = route.destination;
        let invalid = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
        let mut builder = RouteMessageBuilder::<IpAddr>::new()
            .protocol(OUR_ROUTES)
            .destination_prefix(address, length)
            .map_err(|error| invalid(&error))?;
        if let Some(metric) = route.metric {
            builder = builder.priority(metric);
        }
        match &route.via {
            Via::Blackhole => builder = builder.kind(RouteType::BlackHole),
            Via::Interface { name, source } => {
                builder = builder.output_interface(self.index_of(name).await?);
                if address.is_ipv4() {
                    builder = builder.scope(RouteScope::Link);
                }
                if let Some(source) = source {
                    builder = builder
                        .pref_source(*source)
                        .map_err(|error| invalid(&error))?;
                }
            }
        }
        Ok(builder.build())
    }
}

impl System for LinuxSystem {
    async fn before(&mut self, item: &Item) -> Option<String> {
        match item {
            Item::Setting(setting) if setting.path == FORWARDING => forwarding().ok(),
            Item::Setting(setting) => read_setting(&setting.path).ok(),
            Item::Address(address) => {
                let found = self.find_address(address).await.ok()?;
                (!found.is_empty()).then(|| address.prefix.to_string())
            }
            Item::ReservedPorts(_) => read_setting(reserved::SETTING).ok(),
            Item::ProxyNeighbour(it) => {
                let found = self.has_proxy(it).await.ok()?;
                found.then(|| it.address.to_string())
            }
            Item::Interface(_)
            | Item::Route(_)
            | Item::Concealment(_)
            | Item::PortShare(_)
            | Item::Masquerade(_)
            | Item::ForwardingGuard(_) => None,
        }
    }

    async fn make(&mut self, item: &Item) -> Result<Made, SystemError> {
        let made = within(TIMEOUT, self.make_item(item)).await;
        made.map_err(|source| SystemError {
            what: item.to_string(),
            source,
        })
    }

    async fn unmake(&mut self, change: &Change) -> Result<(), SystemError> {
        let unmade = within(TIMEOUT, self.unmake_item(change)).await;
        unmade.map_err(|source| SystemError {
            what: format!("taking back: {}", change.item),
            source,
        })
    }
}

impl std::fmt::Debug for LinuxSystem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinuxSystem").finish_non_exhaustive()
    }
}

/// The local address of an entry; on a point-to-point link the other attribute is the peer's.
fn is_about(message: &AddressMessage, prefix: Prefix) -> bool {
    let is_local = |attribute: &AddressAttribute| {
        if let AddressAttribute::Local(it) = attribute {
            return *it == prefix.address;
        }
        // IPv6 has the attribute only where there is a peer.
        let address = AddressAttribute::Address(prefix.address);
        prefix.address.is_ipv6() && *attribute == address
    };
    message.header.prefix_len == prefix.length && message.attributes.iter().any(is_local)
}

fn is<T>(result: &io::Result<T>, code: i32) -> bool {
    matches!(result, Err(error) if error.raw_os_error() == Some(code))
}

fn exists_is_fine(result: io::Result<()>) -> io::Result<()> {
    if is(&result, libc::EEXIST) {
        return Ok(());
    }
    result
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    const GONE: [i32; 4] = [libc::ESRCH, libc::ENODEV, libc::EADDRNOTAVAIL, libc::ENOENT];
    if GONE.iter().any(|code| is(&result, *code)) {
        return Ok(());
    }
    result
}

/// Of requests about IPv4 addresses that are answered for.
fn proxies() -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.flags = NeighbourFlags::Proxy;
    message
}

fn reserve(ports: Ports) -> io::Result<()> {
    let mut set = PortSet::parse(&read_setting(reserved::SETTING)?)?;
    set.insert(ports);
    fs::write(setting_file(reserved::SETTING), set.line())
}

fn unreserve(ports: Ports, before: Option<&str>) -> io::Result<()> {
    // What is not known is not taken back: it does little harm.
    let Some(before) = before else {
        return Ok(());
    };
    let mut set = PortSet::parse(&read_setting(reserved::SETTING)?)?;
    set.remove(ports, &PortSet::parse(before)?);
    fs::write(setting_file(reserved::SETTING), set.line())
}

fn setting_file(path: &str) -> PathBuf {
    Path::new("/proc/sys").join(path)
}

fn read_setting(path: &str) -> io::Result<String> {
    Ok(fs::read_to_string(setting_file(path))?.trim().to_owned())
}

fn write_setting(path: &str, value: &str) -> io::Result<()> {
    if read_setting(path).is_ok_and(|current| current == value) {
        return Ok(());
    }
    fs::write(setting_file(path), value)
}

/// An interface that has gone since it was looked for has no settings, and needs none.
fn make_setting(setting: &Setting) -> io::Result<Made> {
    match write_setting(&setting.path, &setting.value) {
        Ok(()) => Ok(Made::Yes),
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_of_nobody(&setting.path) => {
            Ok(Made::Without("the interface is gone".to_owned()))
        }
        Err(error) => Err(error),
    }
}

/// Whether it is one of an interface's, and there is no such interface.
fn is_of_nobody(path: &str) -> bool {
    let Some((of_interface, _)) = path.rsplit_once('/') else {
        return false;
    };
    let family = of_interface.rsplit_once('/').map(|(family, _)| family);
    let has_interfaces = family.is_some_and(|it| setting_file(it).is_dir());
    has_interfaces && !setting_file(of_interface).exists()
}

/// Back to what it was, unless somebody else has changed it since.
fn restore(setting: &Setting, before: Option<&str>) -> io::Result<()> {
    let Some(before) = before else {
        return Ok(());
    };
    let is_forwarding = setting.path == FORWARDING;
    match read_setting(&setting.path) {
        Ok(current) if current == setting.value => {}
        // Whoever restored it may have been killed before it came to the single interfaces.
        Ok(current) if is_forwarding && before.split(' ').next() == Some(&current) => {}
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    if is_forwarding {
        return restore_forwarding(before);
    }
    write_setting(&setting.path, before)
}

/// The switch for all interfaces, followed by the interfaces whose own differs: `0 eth1 wlan0`.
fn forwarding() -> io::Result<String> {
    let mut before = read_setting(FORWARDING)?;
    let all = before.clone();
    for name in every_interface()? {
        // An interface that has just gone differs from nothing.
        if read_setting(&forwarding_of(&name)).is_ok_and(|own| own != all) {
            before.push(' ');
            before.push_str(&name);
        }
    }
    Ok(before)
}

fn restore_forwarding(before: &str) -> io::Result<()> {
    let mut words = before.split(' ');
    let all = words.next().unwrap_or_default();
    write_setting(FORWARDING, all)?;
    let other = if all == "0" { "1" } else { "0" };
    for name in words {
        fault::point("forwarding of some interfaces restored");
        match write_setting(&forwarding_of(name), other) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Every interface with IPv6, and `all` and `default`, which stand beside them.
pub(super) fn every_interface() -> io::Result<Vec<String>> {
    let entries = fs::read_dir(setting_file("net/ipv6/conf"))?;
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Whether there is such a switch, and it is on.
pub(super) fn is_on(path: &str) -> bool {
    read_setting(path).is_ok_and(|it| it == "1")
}

fn forwarding_of(interface: &str) -> String {
    format!("net/ipv6/conf/{interface}/forwarding")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_elses_address_is_told_from_ours() {
        let address = |text: &str| text.parse().unwrap();
        let mut message = AddressMessage::default();
        message.header.prefix_len = 32;
        message.attributes = vec![
            AddressAttribute::Address(address("192.0.0.9")),
            AddressAttribute::Local(address("192.0.0.1")),
        ];
        let about = |text, length| is_about(&message, Prefix::new(address(text), length));
        assert!(about("192.0.0.1", 32));
        assert!(!about("192.0.0.1", 29));
        // The other end of a point-to-point link.
        assert!(!about("192.0.0.9", 32));
    }

    #[test]
    fn what_is_gone_needs_not_be_taken_back() {
        let failed = |code| gone_is_fine(Err(io::Error::from_raw_os_error(code)));
        assert!(failed(libc::ESRCH).is_ok());
        assert!(failed(libc::ENODEV).is_ok());
        assert!(failed(libc::EPERM).is_err());
        let exists = Err(io::Error::from_raw_os_error(libc::EEXIST));
        assert!(exists_is_fine(exists).is_ok());
    }

    /// Whoever pulls out a cable does not fail the plan; a setting that no kernel has does.
    #[test]
    fn a_setting_of_an_interface_that_is_gone_is_done_without() {
        let made = |path: &str| {
            let path = path.to_owned();
            let value = "2".to_owned();
            make_setting(&Setting { path, value })
        };
        let gone = made("net/ipv4/conf/openclat-none/forwarding");
        assert!(matches!(gone, Ok(Made::Without(_))), "{gone:?}");
        assert!(made("net/ipv4/conf/lo/no-such-setting").is_err());
        assert!(made("net/no-such-family/conf/lo/forwarding").is_err());
    }

    /// A value that is there already is not written: not even root may write into this.
    #[test]
    fn a_setting_that_is_so_already_is_left_alone() {
        let read_only = "kernel/ngroups_max";
        let current = read_setting(read_only).unwrap();
        write_setting(read_only, &current).unwrap();
        assert!(write_setting(read_only, "0").is_err());
    }

    /// Anybody may read settings; what somebody else has set meanwhile stays.
    #[test]
    fn a_setting_that_is_another_by_now_is_not_restored() {
        let path = "net/ipv6/conf/all/forwarding";
        let current = read_setting(path).unwrap();
        assert!(forwarding().unwrap().starts_with(&current));
        let setting = Setting {
            path: path.to_owned(),
            value: "neither".to_owned(),
        };
        restore(&setting, Some("1")).unwrap();
        assert_eq!(read_setting(path).unwrap(), current);
    }
}
