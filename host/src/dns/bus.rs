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

#[cfg(test)]
mod tests {
    use super::*;
    use zbus::{connection, fdo, interface};

    const LINK_PATH: &str = "/org/freedesktop/resolve1/link/_33";
    const DEVICE: &str = "/org/freedesktop/NetworkManager/Devices/3";
    const IP6: &str = "/org/freedesktop/NetworkManager/IP6Config/1";
    const IP4: &str = "/org/freedesktop/NetworkManager/IP4Config/1";

    fn path(text: &str) -> OwnedObjectPath {
        OwnedObjectPath::try_from(text).unwrap()
    }

    struct ResolvedManager;

    #[interface(name = "org.freedesktop.resolve1.Manager")]
    impl ResolvedManager {
        fn get_link(&self, index: i32) -> fdo::Result<OwnedObjectPath> {
            match index {
                3 => Ok(path(LINK_PATH)),
                _ => Err(fdo::Error::Failed(format!("Link {index} not known"))),
            }
        }
    }

    struct ResolvedLink;

    #[interface(name = "org.freedesktop.resolve1.Link")]
    impl ResolvedLink {
        #[zbus(property, name = "DNS")]
        fn dns(&self) -> Vec<(i32, Vec<u8>)> {
            let mut link_local = vec![0xfe, 0x80];
            link_local.resize(15, 0);
            link_local.push(0x53);
            // The last one is no address.
            vec![(10, link_local), (2, vec![192, 0, 2, 53]), (10, vec![1; 5])]
        }
    }

    struct Manager;

    #[interface(name = "org.freedesktop.NetworkManager")]
    impl Manager {
        fn get_device_by_ip_iface(&self, name: &str) -> fdo::Result<OwnedObjectPath> {
            match name {
                "eth0" => Ok(path(DEVICE)),
                _ => Err(fdo::Error::Failed("No device".into())),
            }
        }
    }

    struct Device {
        ip6: &'static str,
    }

    #[interface(name = "org.freedesktop.NetworkManager.Device")]
    impl Device {
        #[zbus(property)]
        fn ip6_config(&self) -> OwnedObjectPath {
            path(self.ip6)
        }

        #[zbus(property)]
        fn ip4_config(&self) -> OwnedObjectPath {
            path(IP4)
        }
    }

    struct Ip6Config;

    #[interface(name = "org.freedesktop.NetworkManager.IP6Config")]
    impl Ip6Config {
        #[zbus(property)]
        fn nameservers(&self) -> Vec<Vec<u8>> {
            vec![vec![0xfd; 16]]
        }
    }

    struct Ip4Config;

    #[interface(name = "org.freedesktop.NetworkManager.IP4Config")]
    impl Ip4Config {
        #[zbus(property)]
        fn nameserver_data(&self) -> Vec<HashMap<String, OwnedValue>> {
            let value = |text: &str| OwnedValue::from(zbus::zvariant::Str::from(text.to_owned()));
            let of = |key: &str, text| HashMap::from([(key.to_owned(), value(text))]);
            vec![
                of("address", "192.0.2.54"),
                of("name", "x"),
                of("address", "x"),
            ]
        }
    }

    /// The services at the other end of a connection without a bus between. The first is to be
    /// kept.
    async fn services(ip6: &'static str) -> (Connection, Connection) {
        let (here, there) = tokio::net::UnixStream::pair().unwrap();
        let guid = zbus::Guid::generate();
        let served = connection::Builder::unix_stream(there)
            .server(guid)
            .unwrap()
            .p2p()
            .serve_at("/org/freedesktop/resolve1", ResolvedManager)
            .unwrap()
            .serve_at(LINK_PATH, ResolvedLink)
            .unwrap()
            .serve_at("/org/freedesktop/NetworkManager", Manager)
            .unwrap()
            .serve_at(DEVICE, Device { ip6 })
            .unwrap()
            .serve_at(IP6, Ip6Config)
            .unwrap()
            .serve_at(IP4, Ip4Config)
            .unwrap();
        let client = connection::Builder::unix_stream(here).p2p();
        let (served, client) = tokio::join!(served.build(), client.build());
        (served.unwrap(), client.unwrap())
    }

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            is_default: true,
        }
    }

    fn texts(servers: &[IpAddr]) -> Vec<String> {
        servers.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn disc_7050_3_01_systemd_resolved_knows_the_servers_of_a_link() {
        let (_services, bus) = services(IP6).await;
        let servers = resolved(&bus, &link(3, "eth0")).await.unwrap();
        assert_eq!(texts(&servers), ["fe80::53", "192.0.2.53"]);
        assert!(resolved(&bus, &link(4, "eth1")).await.is_err());
    }

    #[tokio::test]
    async fn disc_7050_3_01_network_manager_knows_the_servers_of_a_link() {
        let (_services, bus) = services(IP6).await;
        let servers = network_manager(&bus, &link(3, "eth0")).await.unwrap();
        let ipv6 = "fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd";
        assert_eq!(texts(&servers), [ipv6, "192.0.2.54"]);
        assert!(network_manager(&bus, &link(4, "eth1")).await.is_err());
        // A device that has no IPv6 configuration.
        let (_services, bus) = services("/").await;
        let servers = network_manager(&bus, &link(3, "eth0")).await.unwrap();
        assert_eq!(texts(&servers), ["192.0.2.54"]);
    }
}
