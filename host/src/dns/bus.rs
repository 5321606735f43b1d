//! What systemd-resolved and NetworkManager know, by D-Bus. Neither is started for that.

use std::{collections::HashMap, net::IpAddr};

use zbus::{
    Connection, Proxy,
    proxy::{CacheProperties, MethodFlags},
    zvariant::{DynamicType, ObjectPath, OwnedObjectPath, OwnedValue, Type},
};

use super::Link;

const RESOLVED: &str = "org.freedesktop.resolve1";
const NETWORK_MANAGER: &str = "org.freedesktop.NetworkManager";

/// The servers of a link that systemd-resolved was told, by whoever manages the link.
pub(super) async fn resolved(bus: &Connection, link: &Link) -> zbus::Result<Vec<IpAddr>> {
    let Ok(index) = i32::try_from(link.index) else {
        return Ok(Vec::new());
    };
    let manager = proxy(
        bus,
        RESOLVED,
        "/org/freedesktop/resolve1",
        "org.freedesktop.resolve1.Manager",
    )
    .await?;
    let path: OwnedObjectPath = call(&manager, "GetLink", &index).await?;
    let link = proxy(bus, RESOLVED, &path, "org.freedesktop.resolve1.Link").await?;
    let servers: Vec<(i32, Vec<u8>)> = link.get_property("DNS").await?;
    Ok(servers
        .iter()
        .filter_map(|(_, octets)| address(octets))
        .collect())
}

/// The servers of a link that NetworkManager learned or was told, IPv6 first.
pub(super) async fn network_manager(bus: &Connection, link: &Link) -> zbus::Result<Vec<IpAddr>> {
    let manager = proxy(
        bus,
        NETWORK_MANAGER,
        "/org/freedesktop/NetworkManager",
        NETWORK_MANAGER,
    )
    .await?;
    let path: OwnedObjectPath = call(&manager, "GetDeviceByIpIface", &link.name).await?;
    let device = "org.freedesktop.NetworkManager.Device";
    let device = proxy(bus, NETWORK_MANAGER, &path, device).await?;
    let mut servers = Vec::new();
    if let Some(config) = config_of(&device, "Ip6Config", "IP6Config").await? {
        let of_ipv6: Vec<Vec<u8>> = config.get_property("Nameservers").await?;
        servers.extend(of_ipv6.iter().filter_map(|octets| address(octets)));
    }
    if let Some(config) = config_of(&device, "Ip4Config", "IP4Config").await? {
        let of_ipv4: Vec<HashMap<String, OwnedValue>> =
            config.get_property("NameserverData").await?;
        let texts = of_ipv4.iter().filter_map(|it| it.get("address"));
        let texts = texts.filter_map(|it| it.downcast_ref::<&str>().ok());
        servers.extend(texts.filter_map(|it| it.parse::<IpAddr>().ok()));
    }
    Ok(servers)
}

/// The configuration of a device that one of its properties names; it may have none.
async fn config_of<'a>(
    device: &Proxy<'a>,
    property: &str,
    interface: &str,
) -> zbus::Result<Option<Proxy<'a>>> {
    let path: OwnedObjectPath = device.get_property(property).await?;
    if path.as_str() == "/" {
        return Ok(None);
    }
    let interface = format!("{NETWORK_MANAGER}.{interface}");
    let bus = device.connection();
    proxy(bus, NETWORK_MANAGER, &path, &interface)
        .await
        .map(Some)
}

/// An object of a service. Asks nothing yet.
async fn proxy<'a>(
    bus: &Connection,
    service: &'static str,
    path: &str,
    interface: &str,
) -> zbus::Result<Proxy<'a>> {
    zbus::proxy::Builder::new(bus)
        .destination(service)?
        .path(ObjectPath::try_from(path)?.into_owned())?
        .interface(interface.to_owned())?
        .cache_properties(CacheProperties::No)
        .build()
        .await
}

/// Calls a method that answers, of a service that runs.
async fn call<R>(
    proxy: &Proxy<'_>,
    method: &str,
    argument: &(impl serde::Serialize + DynamicType),
) -> zbus::Result<R>
where
    R: for<'d> serde::Deserialize<'d> + Type,
{
    let answer = proxy
        .call_with_flags(method, MethodFlags::NoAutoStart.into(), argument)
        .await?;
    answer.ok_or(zbus::Error::InvalidReply)
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v6 = || <[u8; 16]>::try_from(octets).ok().map(IpAddr::from);
    <[u8; 4]>::try_from(octets)
        .ok()
        .map(IpAddr::from)
        .or_else(v6)
}
