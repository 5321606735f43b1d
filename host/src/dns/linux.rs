//! The services of a Linux system, and sockets of one link.

use std::{
    fs::File,
    future::Future,
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use zbus::Connection;

use super::{Dns, Known, Link, add, bus, resolv_conf};
use crate::sockopt;

/// A service that does not answer within that is not waited for.
const TIMEOUT: Duration = Duration::from_secs(2);

/// More of a file is not read.
const MAX_FILE: u64 = 64 << 10;

/// systemd-resolved, NetworkManager, and `/etc/resolv.conf`, in this order.
#[derive(Clone, Debug)]
pub struct LinuxDns {
    file: PathBuf,
}

impl Default for LinuxDns {
    fn default() -> Self {
        Self {
            file: PathBuf::from("/etc/resolv.conf"),
        }
    }
}

impl LinuxDns {
    /// The file, as far as it can be read.
    fn read_file(&self) -> String {
        let mut bytes = Vec::new();
        let read = File::open(&self.file).and_then(|it| it.take(MAX_FILE).read_to_end(&mut bytes));
        if let Err(error) = read {
            tracing::debug!("{}: {error}", self.file.display());
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Dns for LinuxDns {
    async fn resolvers(&self, link: &Link) -> Known {
        let mut known = Known::default();
        if let Some(bus) = answer("the system bus", Connection::system()).await {
            add(&mut known.of_link, by_bus(&bus, link).await);
        }
        let in_file = resolv_conf::servers_for(&self.read_file(), link);
        add(&mut known.of_link, in_file.of_link);
        add(&mut known.of_host, in_file.of_host);
        known
    }

    fn udp_socket(&self, interface: u32, local: SocketAddr) -> io::Result<UdpSocket> {
        let domain = Domain::for_address(local);
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        bind_to(&socket, interface)?;
        socket.bind(&local.into())?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket.into())
    }

    async fn connect_tcp(&self, interface: u32, server: SocketAddr) -> io::Result<TcpStream> {
        let domain = Domain::for_address(server);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        bind_to(&socket, interface)?;
        socket.set_nonblocking(true)?;
        let socket = TcpSocket::from_std_stream(socket.into());
        socket.connect(server).await
    }
}

async fn by_bus(bus: &Connection, link: &Link) -> Vec<IpAddr> {
    let (resolved, network_manager) = tokio::join!(
        answer("systemd-resolved", bus::resolved(bus, link)),
        answer("NetworkManager", bus::network_manager(bus, link)),
    );
    let mut servers = resolved.unwrap_or_default();
    servers.extend(network_manager.unwrap_or_default());
    servers
}

/// What a service answers, if it does. Most hosts lack one or the other.
async fn answer<T>(who: &str, what: impl Future<Output = zbus::Result<T>>) -> Option<T> {
    match tokio::time::timeout(TIMEOUT, what).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            tracing::debug!("{who}: {error}");
            None
        }
        Err(_) => {
            tracing::debug!("{who} did not answer within {} s", TIMEOUT.as_secs());
            None
        }
    }
}

fn bind_to(socket: &Socket, interface: u32) -> io::Result<()> {
    let index = i32::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput)?;
    sockopt::set(socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, &index)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Index of the loopback interface of every Linux system.
    const LOOPBACK: u32 = 1;

    #[tokio::test]
    async fn disc_7050_3_01_sockets_keep_to_their_interface() {
        let dns = LinuxDns::default();
        let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let (one, other) = (
            dns.udp_socket(LOOPBACK, local).unwrap(),
            dns.udp_socket(LOOPBACK, local).unwrap(),
        );
        let to = other.local_addr().unwrap();
        assert_eq!(one.send_to(b"question", to).await.unwrap(), 8);
        let mut buffer = [0; 16];
        let (len, from) = other.recv_from(&mut buffer).await.unwrap();
        assert_eq!((len, from), (8, one.local_addr().unwrap()));

        let listener = tokio::net::TcpListener::bind(local).await.unwrap();
        let server = listener.local_addr().unwrap();
        assert!(dns.connect_tcp(LOOPBACK, server).await.is_ok());
        // There is none of this index, and nothing goes anywhere else.
        let nowhere = i32::MAX.unsigned_abs();
        let any: SocketAddr = "0.0.0.0:0".parse().unwrap();
        let lost = dns.udp_socket(nowhere, any).unwrap();
        assert!(lost.send_to(b"question", to).await.is_err());
        assert!(dns.connect_tcp(nowhere, server).await.is_err());
        assert!(dns.udp_socket(u32::MAX, local).is_err());
    }

    #[tokio::test]
    async fn disc_7050_3_01_without_services_and_without_a_file_nobody_is_known() {
        let dns = LinuxDns {
            file: PathBuf::from("/nonexistent/resolv.conf"),
        };
        assert_eq!(dns.read_file(), "");
        let error = std::future::ready(Err::<(), _>(zbus::Error::InvalidReply));
        assert_eq!(answer("nobody", error).await, None);
    }
}
