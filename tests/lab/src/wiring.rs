//! Cables, addresses and routes between namespaces. By netlink, so that no program is needed.

use std::{
    fs::{self, File},
    future::Future,
    io,
    net::IpAddr,
    os::fd::AsRawFd,
    path::Path,
};

use futures_util::TryStreamExt;
use rtnetlink::{
    Handle, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressFlags, AddressHeaderFlags},
        link::LinkAttribute,
    },
};

use crate::namespace::Namespace;

impl Namespace {
    /// Runs something that needs a netlink socket of this namespace.
    fn netlink<R, F, Fut>(&self, f: F) -> R
    where
        R: Send + 'static,
        F: FnOnce(Handle) -> Fut + Send + 'static,
        Fut: Future<Output = Result<R, rtnetlink::Error>>,
    {
        let name = self.name().to_owned();
        self.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection().expect("netlink");
                tokio::spawn(connection);
                f(handle)
                    .await
                    .unwrap_or_else(|error| panic!("in {name}: {error}"))
            })
        })
    }

    /// Sets an interface up.
    pub fn link_up(&self, interface: &str) {
        self.set_link(interface, |builder| builder.up());
    }

    /// Sets an interface down.
    pub fn link_down(&self, interface: &str) {
        self.set_link(interface, |builder| builder.down());
    }

    /// Sets the MTU of an interface.
    pub fn set_mtu(&self, interface: &str, mtu: u32) {
        self.set_link(interface, move |builder| builder.mtu(mtu));
    }

    fn set_link(
        &self,
        interface: &str,
        change: impl FnOnce(
            rtnetlink::LinkMessageBuilder<LinkUnspec>,
        ) -> rtnetlink::LinkMessageBuilder<LinkUnspec>
        + Send
        + 'static,
    ) {
        let interface = interface.to_owned();
        self.netlink(async move |handle| {
            let index = index_of(&handle, &interface).await?;
            let message = change(LinkUnspec::new_with_index(index)).build();
            handle.link().set(message).execute().await
        });
    }

    /// Gives an interface an address like `2001:db8::1/64`, at once: without duplicate address
    /// detection.
    pub fn add_address(&self, interface: &str, address: &str) {
        let (interface, (address, length)) = (interface.to_owned(), split(address));
        self.netlink(async move |handle| {
            let index = index_of(&handle, &interface).await?;
            let mut request = handle.address().add(index, address, length);
            if address.is_ipv6() {
                let message = request.message_mut();
                message.header.flags |= AddressHeaderFlags::Nodad;
                let flags = AddressAttribute::Flags(AddressFlags::Nodad);
                message.attributes.push(flags);
            }
            request.execute().await
        });
    }

    /// Takes an address from an interface.
    pub fn remove_address(&self, interface: &str, address: &str) {
        let (interface, (address, _)) = (interface.to_owned(), split(address));
        self.netlink(async move |handle| {
            let index = index_of(&handle, &interface).await?;
            let mut known = handle
                .address()
                .get()
                .set_link_index_filter(index)
                .set_address_filter(address)
                .execute();
            while let Some(message) = known.try_next().await? {
                handle.address().del(message).execute().await?;
            }
            Ok(())
        });
    }

    /// Routes `destination`, like `198.51.100.0/24` or `::/0`, through `gateway`.
    pub fn add_route(&self, destination: &str, gateway: &str, interface: &str) {
        let (destination, length) = split(destination);
        let gateway: IpAddr = gateway.parse().expect("a gateway address");
        let interface = interface.to_owned();
        self.netlink(async move |handle| {
            let index = index_of(&handle, &interface).await?;
            let message = RouteMessageBuilder::<IpAddr>::new()
                .destination_prefix(destination, length)
                .expect("a destination")
                .gateway(gateway)
                .expect("a gateway of the same family")
                .output_interface(index)
                .build();
            handle.route().add(message).execute().await
        });
    }

    /// Writes a setting under `/proc/sys`.
    pub fn set(&self, path: &str, value: &str) {
        let (path, value) = (path.to_owned(), value.to_owned());
        self.run(move || {
            let file = Path::new("/proc/sys").join(&path);
            fs::write(&file, value).unwrap_or_else(|error| panic!("{path}: {error}"));
        });
    }

    /// Reads a setting under `/proc/sys`.
    #[must_use]
    pub fn get(&self, path: &str) -> String {
        let path = path.to_owned();
        self.run(move || {
            let file = Path::new("/proc/sys").join(&path);
            fs::read_to_string(&file)
                .unwrap_or_else(|error| panic!("{path}: {error}"))
                .trim()
                .to_owned()
        })
    }

    /// Makes this host a router.
    pub fn forward(&self) {
        self.set("net/ipv4/ip_forward", "1");
        self.set("net/ipv6/conf/all/forwarding", "1");
    }

    /// Interfaces that come from now on use the addresses the kernel makes itself at once, without
    /// duplicate address detection. Saves two seconds per test.
    pub fn skip_dad(&self) {
        self.set("net/ipv6/conf/default/dad_transmits", "0");
        self.set("net/ipv6/conf/default/accept_dad", "0");
        self.set("net/ipv6/conf/default/router_solicitation_delay", "0");
    }

    /// An interface checks new addresses for duplicates again.
    pub fn check_dad(&self, interface: &str) {
        self.set(&format!("net/ipv6/conf/{interface}/dad_transmits"), "1");
        self.set(&format!("net/ipv6/conf/{interface}/accept_dad"), "1");
    }

    /// The addresses of an interface.
    #[must_use]
    pub fn addresses(&self, interface: &str) -> Vec<IpAddr> {
        let interface = interface.to_owned();
        self.netlink(async move |handle| {
            let index = index_of(&handle, &interface).await?;
            let request = handle.address().get().set_link_index_filter(index);
            let messages: Vec<_> = request.execute().try_collect().await?;
            let attributes = messages.into_iter().flat_map(|it| it.attributes);
            Ok(attributes
                .filter_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(address),
                    _ => None,
                })
                .collect())
        })
    }

    /// The link-layer address of an interface, like `02:00:00:00:00:01`.
    #[must_use]
    pub fn mac(&self, interface: &str) -> String {
        let interface = interface.to_owned();
        self.netlink(async move |handle| {
            let request = handle.link().get().match_name(interface);
            let found = request.execute().try_next().await?;
            let attributes = found.into_iter().flat_map(|it| it.attributes);
            let mut macs = attributes.filter_map(|attribute| match attribute {
                LinkAttribute::Address(bytes) => Some(bytes),
                _ => None,
            });
            let bytes = macs.next().ok_or(rtnetlink::Error::RequestFailed)?;
            let words: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            Ok(words.join(":"))
        })
    }

    /// Whether there is an interface of this name.
    #[must_use]
    pub fn has_interface(&self, interface: &str) -> bool {
        let path = format!("/proc/sys/net/ipv6/conf/{interface}");
        self.run(move || Path::new(&path).exists())
    }
}

/// Makes a TUN device as another program would, and holds it until the file is closed.
///
/// # Panics
/// If it cannot be made.
#[must_use]
pub fn hold_tun(namespace: &Namespace, interface: &str) -> File {
    let interface = interface.to_owned();
    namespace.run(move || {
        let mut device = File::options();
        let device = device.read(true).write(true).open("/dev/net/tun");
        let device = device.expect("/dev/net/tun");
        // SAFETY: an all-zero ifreq is a valid value of that plain C struct.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: the kernel reads and writes no more than the request.
        let made = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        assert_eq!(made, 0, "{}", io::Error::last_os_error());
        device
    })
}

/// A cable between two namespaces, with an interface at each end. Both ends are up.
pub fn connect((a, a_name): (&Namespace, &str), (b, b_name): (&Namespace, &str)) {
    let (one, other, fd) = (a_name.to_owned(), b_name.to_owned(), b.raw_fd());
    a.netlink(async move |handle| {
        let message = LinkVeth::new(&one, &other).build();
        handle.link().add(message).execute().await?;
        let index = index_of(&handle, &other).await?;
        let message = LinkUnspec::new_with_index(index).setns_by_fd(fd).build();
        handle.link().set(message).execute().await
    });
    a.link_up(a_name);
    b.link_up(b_name);
}

async fn index_of(handle: &Handle, interface: &str) -> Result<u32, rtnetlink::Error> {
    let request = handle.link().get().match_name(interface.to_owned());
    let found = request.execute().try_next().await?;
    found
        .map(|message| message.header.index)
        .ok_or(rtnetlink::Error::RequestFailed)
}

fn split(prefix: &str) -> (IpAddr, u8) {
    let (address, length) = prefix.split_once('/').expect("address/length");
    (
        address.parse().expect("an address"),
        length.parse().expect("a length"),
    )
}
