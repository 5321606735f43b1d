//! Which ports of an IPv4 address local programs have for themselves.

use std::{io, net::Ipv4Addr};

use plan::Ports;

/// A port that a local program receives on, from anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InUse {
    /// The port.
    pub port: u16,
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
}

/// The ports among `ports` on which a program of this host listens at `address` or at any address,
/// in order. Connections are not among them, and programs of other network namespaces neither.
/// Nothing on systems where plat shares no address.
///
/// # Errors
/// The system's.
pub fn in_use(address: Ipv4Addr, ports: Ports) -> io::Result<Vec<InUse>> {
    let mut all = system::sockets(address)?;
    all.retain(|it| ports.contains(it.port));
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

#[cfg(target_os = "linux")]
mod system {
    use std::{
        fs, io,
        net::{IpAddr, Ipv4Addr, Ipv6Addr},
    };

    use super::InUse;

    /// The states of sockets that have no other end: `TCP_LISTEN`, and what UDP calls
    /// `TCP_CLOSE`.
    const LISTEN: &str = "0A";
    const UNCONNECTED: &str = "07";

    pub(super) fn sockets(address: Ipv4Addr) -> io::Result<Vec<InUse>> {
        let mut all = Vec::new();
        for (file, protocol, state) in [
            ("tcp", "TCP", LISTEN),
            ("tcp6", "TCP", LISTEN),
            ("udp", "UDP", UNCONNECTED),
            ("udp6", "UDP", UNCONNECTED),
        ] {
            match fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
                Ok(text) => all.extend(
                    text.lines()
                        .filter_map(|line| of_line(line, state, address))
                        .map(|port| InUse { port, protocol }),
                ),
                // A kernel without IPv6.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// The port of a line like `0: 0100007F:1F90 00000000:0000 0A …`, if it receives what comes to
    /// `address`.
    fn of_line(line: &str, state: &str, address: Ipv4Addr) -> Option<u16> {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (local, _, its_state) = (words.next()?, words.next()?, words.next()?);
        let (at, port) = local.split_once(':')?;
        let at = parse(at)?;
        let receives = at.is_unspecified() || at == IpAddr::V4(address);
        let port = u16::from_str_radix(port, 16).ok()?;
        (its_state == state && receives).then_some(port)
    }

    /// Words of 32 bits, each as this machine stores it.
    fn parse(text: &str) -> Option<IpAddr> {
        let word = |at: usize| {
            let digits = text.get(8 * at..8 * at + 8)?;
            Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
        };
        if text.len() == 8 {
            return Some(IpAddr::V4(Ipv4Addr::from(word(0)?)));
        }
        let mut bytes = [0; 16];
        for (at, four) in bytes.chunks_exact_mut(4).enumerate() {
            four.copy_from_slice(&word(at)?);
        }
        Some(Ipv6Addr::from(bytes).to_canonical())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// Lines of a little-endian machine.
        #[cfg(target_endian = "little")]
        #[test]
        fn lines_of_the_kernel_are_read() {
            let address = Ipv4Addr::new(192, 0, 2, 1);
            let port = |local: &str, state| {
                let line = format!("   0: {local} 00000000:0000 {state} 00000000:00000000");
                of_line(&line, LISTEN, address)
            };
            assert_eq!(port("010200C0:F230", "0A"), Some(62_000));
            assert_eq!(port("00000000:F230", "0A"), Some(62_000));
            assert_eq!(
                port("00000000000000000000000000000000:F230", "0A"),
                Some(62_000)
            );
            let mapped = "0000000000000000FFFF0000010200C0:F230";
            assert_eq!(port(mapped, "0A"), Some(62_000));
            // Loopback, a connection, and no line at all.
            assert_eq!(port("0100007F:F230", "0A"), None);
            assert_eq!(port("010200C0:F230", "01"), None);
            assert_eq!(port("local_address", "st"), None);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::{io, net::Ipv4Addr};

    use super::InUse;

    pub(super) fn sockets(_: Ipv4Addr) -> io::Result<Vec<InUse>> {
        Ok(Vec::new())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    /// Those of this test itself.
    #[test]
    fn programs_that_listen_are_found() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let found = |port| {
            let only = Ports {
                first: port,
                last: port,
            };
            in_use(Ipv4Addr::LOCALHOST, only).unwrap()
        };
        let tcp = tcp.local_addr().unwrap().port();
        let udp = udp.local_addr().unwrap().port();
        let is = |port, protocol| found(port).contains(&InUse { port, protocol });
        assert!(is(tcp, "TCP") && is(udp, "UDP"));
    }
}
