//! Links, addresses and routes by rtnetlink, settings under `/proc/sys`, concealment by nftables.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use futures_util::TryStreamExt;
use plan::{Address, Interface, Item, Prefix, Route, Setting, Via};
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder,
    packet_route::{
        link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute},
        route::{RouteMessage, RouteScope, RouteType},
    },
};

use super::{Change, Error, Made, NetCfg, System, SystemError, nft};

/// Takes back what a crashed process left on this host, as the journal at `path` tells. Returns
/// what that was: nothing if there is no journal.
///
/// # Errors
/// [`JournalError::InUse`](super::journal::JournalError) if the process is not dead.
pub async fn clean_up(path: &Path) -> Result<Vec<Change>, Error> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let system = LinuxSystem::open().map_err(|source| SystemError {
        what: "cannot reach the kernel".to_owned(),
        source,
    })?;
    NetCfg::cleanup(system, path).await
}

/// The host, by its kernel's interfaces.
#[derive(Clone)]
pub struct LinuxSystem {
    netlink: Handle,
}

impl LinuxSystem {
    /// Opens a netlink socket. Must be called on a tokio runtime, in the network namespace to
    /// configure.
    ///
    /// # Errors
    /// The system's.
    pub fn open() -> io::Result<Self> {
        let (connection, netlink, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { netlink })
    }

    async fn index_of(&self, name: &str) -> io::Result<u32> {
        let mut links = self
            .netlink
            .link()
            .get()
            .match_name(name.to_owned())
            .execute();
        match links.try_next().await.map_err(into_io)? {
            Some(link) => Ok(link.header.index),
            None => Err(io::Error::from_raw_os_error(libc::ENODEV)),
        }
    }

    async fn make_item(&self, item: &Item) -> io::Result<Made> {
        match item {
            Item::Interface(interface) => self.configure(interface).await?,
            Item::Address(address) => self.add_address(address).await?,
            Item::Route(route) => self.add_route(route).await?,
            Item::Setting(setting) => write_setting(setting, &setting.value)?,
            Item::Concealment(concealment) => return nft::conceal(concealment).await,
        }
        Ok(Made::Yes)
    }

    async fn unmake_item(&self, change: &Change) -> io::Result<()> {
        match &change.item {
            // The interface is ours and goes with the descriptor that made it.
            Item::Interface(_) => Ok(()),
            Item::Address(address) => gone_is_fine(self.delete_address(address).await),
            Item::Route(route) => gone_is_fine(self.delete_route(route).await),
            Item::Setting(setting) => restore(setting, change.before.as_deref()),
            Item::Concealment(concealment) => nft::reveal(concealment).await.map(drop),
        }
    }

    /// Up, with its MTU, and without the link-local address and router solicitations that the
    /// kernel would otherwise put on it.
    async fn configure(&self, interface: &Interface) -> io::Result<()> {
        let index = self.index_of(&interface.name).await?;
        let no_addresses = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let family = vec![AfSpecUnspec::Inet6(vec![no_addresses])];
        let set =
            |builder: LinkMessageBuilder<LinkUnspec>| self.netlink.link().set(builder.build());
        let builder = LinkUnspec::new_with_index(index)
            .mtu(interface.mtu.into())
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(family));
        match set(builder).execute().await.map_err(into_io) {
            Ok(()) => {}
            // A host without IPv6 at all has nothing to switch off.
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                let builder = LinkUnspec::new_with_index(index).mtu(interface.mtu.into());
                set(builder).execute().await.map_err(into_io)?;
            }
            Err(error) => return Err(error),
        }
        let up = LinkUnspec::new_with_index(index).up();
        set(up).execute().await.map_err(into_io)
    }

    async fn add_address(&self, address: &Address) -> io::Result<()> {
        let index = self.index_of(&address.interface).await?;
        let Prefix { address, length } = address.prefix;
        let request = self.netlink.address().add(index, address, length);
        exists_is_fine(request.execute().await.map_err(into_io))
    }

    async fn delete_address(&self, address: &Address) -> io::Result<()> {
        let index = self.index_of(&address.interface).await?;
        let mut known = self
            .netlink
            .address()
            .get()
            .set_link_index_filter(index)
            .set_address_filter(address.prefix.address)
            .execute();
        while let Some(message) = known.try_next().await.map_err(into_io)? {
            let request = self.netlink.address().del(message);
            request.execute().await.map_err(into_io)?;
        }
        Ok(())
    }

    async fn add_route(&self, route: &Route) -> io::Result<()> {
        let message = self.route_message(route).await?;
        let request = self.netlink.route().add(message);
        request.execute().await.map_err(into_io)
    }

    async fn delete_route(&self, route: &Route) -> io::Result<()> {
        let message = self.route_message(route).await?;
        let request = self.netlink.route().del(message);
        request.execute().await.map_err(into_io)
    }

    async fn route_message(&self, route: &Route) -> io::Result<RouteMessage> {
        let Prefix { address, length } = route.destination;
        let invalid = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
        let mut builder = RouteMessageBuilder::<IpAddr>::new()
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
            Item::Setting(setting) => read_setting(setting).ok(),
            Item::Interface(_) | Item::Address(_) | Item::Route(_) | Item::Concealment(_) => None,
        }
    }

    async fn make(&mut self, item: &Item) -> Result<Made, SystemError> {
        self.make_item(item).await.map_err(|source| SystemError {
            what: item.to_string(),
            source,
        })
    }

    async fn unmake(&mut self, change: &Change) -> Result<(), SystemError> {
        self.unmake_item(change)
            .await
            .map_err(|source| SystemError {
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

pub(crate) fn into_io(error: rtnetlink::Error) -> io::Error {
    if let rtnetlink::Error::NetlinkError(message) = &error {
        return message.to_io();
    }
    io::Error::other(error.to_string())
}

fn exists_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    const GONE: [i32; 4] = [libc::ESRCH, libc::ENODEV, libc::EADDRNOTAVAIL, libc::ENOENT];
    match result {
        Err(error) if error.raw_os_error().is_some_and(|it| GONE.contains(&it)) => Ok(()),
        other => other,
    }
}

fn setting_file(setting: &Setting) -> PathBuf {
    Path::new("/proc/sys").join(&setting.path)
}

fn read_setting(setting: &Setting) -> io::Result<String> {
    Ok(fs::read_to_string(setting_file(setting))?.trim().to_owned())
}

fn write_setting(setting: &Setting, value: &str) -> io::Result<()> {
    if read_setting(setting).is_ok_and(|current| current == value) {
        return Ok(());
    }
    fs::write(setting_file(setting), value)
}

/// Back to what it was, unless somebody else has changed it since.
fn restore(setting: &Setting, before: Option<&str>) -> io::Result<()> {
    let Some(before) = before else {
        return Ok(());
    };
    match read_setting(setting) {
        Ok(current) if current == setting.value => write_setting(setting, before),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
