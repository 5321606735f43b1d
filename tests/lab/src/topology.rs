//! The network that most tests and the demo stand on.
//!
//! ```text
//!  host ───── router ───── plat ───── isp ───── server
//!       IPv6-only    IPv6        IPv4      IPv4
//!
//!  host    h0   2001:db8:1:1::/64 by router advertisement; nothing else
//!  router  r0   2001:db8:1:1::1, fe80::1    r1  2001:db8:1:2::1    lo 2001:db8:80::80 (web, IPv6)
//!  plat    p0   2001:db8:1:2::2             p1  192.0.2.1
//!  isp     i0   192.0.2.2                   i1  198.51.100.1
//!  server  s0   198.51.100.10 (web, echo)
//!
//!  NAT64 prefix 2001:db8:64::/96, routed to plat; pool 203.0.113.0/28, routed to plat
//! ```

use std::{
    env, fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use crate::{
    advertiser::{Advertisement, Advertiser},
    capture::Capture,
    eventually,
    impair::{ImpairedLink, Impairment},
    namespace::Namespace,
    process::{Daemon, command},
    scratch::Scratch,
    servers::{ECHO_PORT, UdpAnswer, serve_tcp_echo, serve_udp, serve_web},
    wiring::connect,
};

/// The IPv4-only server.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// The server as a client without a CLAT writes it.
pub const SERVER_BY_PREFIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0xc633, 0x640a);
/// The IPv4 router before it.
pub const ISP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The router's link-local address on the LAN.
pub const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The LAN.
pub const LAN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 0);
/// A web server on the IPv6 internet.
pub const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x80, 0, 0, 0, 0, 0x80);
/// The NAT64 prefix.
pub const PREF64: &str = "2001:db8:64::/96";
/// The port of the UDP server that answers without checksums.
pub const NO_CHECKSUM_PORT: u16 = 8;

/// How the network is built.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes per packet between router and plat.
    pub middle_mtu: u32,
    /// The quality of the link between host and router; an ordinary cable if `None`.
    pub impairment: Option<Impairment>,
    /// The router announces the NAT64 prefix.
    pub announce: bool,
    /// The offloads of every interface stay on.
    pub offloads: bool,
    /// Captures are kept on failure.
    pub capture: bool,
    /// Addresses are checked for duplicates by the kernel, as on a real host.
    pub kernel_dad: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            middle_mtu: 1500,
            impairment: None,
            announce: true,
            offloads: true,
            capture: true,
            kernel_dad: false,
        }
    }
}

/// The network. Fields are dropped in order: programs before the namespaces they run in.
#[derive(Debug)]
pub struct Network {
    /// Names it in messages and files.
    pub name: String,
    /// What the router says.
    pub advertiser: Advertiser,
    _captures: Vec<Capture>,
    _impaired: Option<ImpairedLink>,
    _middlebox: Option<Namespace>,
    /// The host on the IPv6-only network.
    pub host: Namespace,
    /// Its router.
    pub router: Namespace,
    /// The machine of the PLAT.
    pub plat: Namespace,
    /// A router of the IPv4 internet.
    pub isp: Namespace,
    /// A server of the IPv4 internet.
    pub server: Namespace,
    directory: Scratch,
}

/// Where a program of ours was built: `$OPENCLAT_BIN`, or the release directory of this workspace.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let directory = env::var_os("OPENCLAT_BIN").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/release"),
        PathBuf::from,
    );
    directory.join(name)
}

/// Where a program that kills itself on demand was built: `$OPENCLAT_FAULT_BIN`, or the directory of
/// the profile `fault-points` in this workspace.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn program_with_fault_points(name: &str) -> PathBuf {
    let directory = env::var_os("OPENCLAT_FAULT_BIN").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/fault-points"),
        PathBuf::from,
    );
    let program = directory.join(name);
    assert!(
        program.exists(),
        "there is no {}: `cargo xtask lab` builds it",
        program.display()
    );
    program
}

impl Network {
    /// Builds the network. Neither PLAT nor CLAT runs yet.
    ///
    /// # Panics
    /// If it cannot be built: as a rule for want of root.
    #[must_use]
    pub fn new(name: &str, options: &Options) -> Self {
        Self::try_new(name, options).unwrap_or_else(|error| {
            panic!("the lab needs root, or a user namespace (see README): {error}")
        })
    }

    /// See [`Self::new`].
    ///
    /// # Errors
    /// The system's, when it gives no namespaces.
    pub fn try_new(name: &str, options: &Options) -> io::Result<Self> {
        let [host, router, plat, isp, server] =
            ["host", "router", "plat", "isp", "server"].map(Namespace::new);
        let (host, router, plat, isp, server) = (host?, router?, plat?, isp?, server?);
        if !options.kernel_dad {
            for namespace in [&host, &router, &plat, &isp, &server] {
                namespace.skip_dad();
            }
        }
        let (middlebox, impaired) = wire_lan(&host, &router, options)?;
        wire_inside(&router, &plat, options);
        wire_internet(&plat, &isp, &server);
        if !options.offloads {
            for (namespace, interfaces) in [
                (&host, &["h0"][..]),
                (&router, &["r0", "r1"]),
                (&plat, &["p0", "p1"]),
                (&isp, &["i0", "i1"]),
                (&server, &["s0"]),
            ] {
                for interface in interfaces {
                    offloads_off(namespace, interface);
                }
            }
        }
        serve_web(&server);
        serve_web(&router);
        serve_tcp_echo(&server);
        serve_udp(&server, ECHO_PORT, UdpAnswer::Echo);
        serve_udp(&server, NO_CHECKSUM_PORT, UdpAnswer::WithoutChecksum);
        let mut captures = Vec::new();
        if options.capture {
            captures = [&host, &plat].map(|it| Capture::start(it, name)).into();
        }
        let mut advertisement = Advertisement::new(ROUTER, LAN);
        if options.announce {
            advertisement = advertisement.with_pref64(PREF64);
        }
        Ok(Self {
            name: name.to_owned(),
            advertiser: Advertiser::start(&router, "r0", advertisement),
            _captures: captures,
            _impaired: impaired,
            _middlebox: middlebox,
            directory: Scratch::new(&format!("lab-{name}"))?,
            host,
            router,
            plat,
            isp,
            server,
        })
    }

    /// Waits until the host has a global IPv6 address: it comes with the first router advertisement.
    ///
    /// # Panics
    /// If it does not come.
    pub fn await_address(&self) {
        let is_global = |it: &IpAddr| matches!(it, IpAddr::V6(it) if it.segments()[0] == 0x2001);
        let has_address = || self.host.addresses("h0").iter().any(is_global);
        assert!(
            eventually(Duration::from_secs(5), has_address),
            "no address"
        );
    }

    /// Routes more networks of clients to the PLAT by the router, which has lost them: their packets
    /// are to be sent from there, and answers go nowhere.
    pub fn add_lost_clients(&self, networks: &str) {
        self.plat.add_route(networks, "2001:db8:1:2::1", "p0");
        self.router
            .must(&format!("ip -6 route add blackhole {networks}"));
    }

    /// A file of this network.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts the PLAT, and waits until it runs.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_plat(&self) -> Daemon {
        self.start_plat_with("")
    }

    /// Starts the PLAT with more lines in its configuration.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_plat_with(&self, more: &str) -> Daemon {
        let _written = self.write_plat_config(more);
        self.run_plat()
    }

    /// Starts the PLAT with a configuration of the test's own.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_plat_of_config(&self, text: &str) -> Daemon {
        fs::write(self.path("plat.toml"), text).expect("the configuration can be written");
        self.run_plat()
    }

    fn run_plat(&self) -> Daemon {
        let mut plat = command(program("plat"));
        plat.args(["run", "--config"]).arg(self.path("plat.toml"));
        plat.arg("--state-dir").arg(self.path("plat-state"));
        let plat = Daemon::start(&self.plat, "plat", plat).expect("plat starts");
        plat.wait_for("running", Duration::from_secs(5));
        plat
    }

    /// Writes the PLAT's configuration, with more lines in it.
    ///
    /// # Panics
    /// If it cannot be written.
    #[must_use]
    pub fn write_plat_config(&self, more: &str) -> PathBuf {
        let config = self.path("plat.toml");
        let text = format!(
            "prefixes = [\"{PREF64}\"]\n\
             pool = [\"203.0.113.0/28\"]\n\
             allow_destinations = [\"198.51.100.0/24\"]\n{more}\n"
        );
        fs::write(&config, text).expect("the configuration can be written");
        config
    }

    /// Starts the CLAT, and waits until it runs.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_clat(&self) -> Daemon {
        let clat = self.launch_clat(&[]);
        clat.wait_for(" running: ", Duration::from_secs(10));
        clat
    }

    /// Starts the CLAT with arguments, and does not wait. Unless they name a configuration, it sends
    /// no echo requests of its own: tests count packets, and what routers answer is limited.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn launch_clat(&self, arguments: &[&str]) -> Daemon {
        let daemon = Daemon::start(&self.host, "clat", self.clat_command("run", arguments));
        daemon.expect("clat starts")
    }

    /// The command line of a subcommand of `clat`.
    #[must_use]
    pub fn clat_command(&self, subcommand: &str, arguments: &[&str]) -> Command {
        let mut clat = command(program("clat"));
        clat.arg(subcommand).args(arguments);
        if subcommand == "run" && !arguments.contains(&"--config") {
            let quiet = self.path("quiet.toml");
            fs::write(&quiet, "probe_targets = []\n").expect("the configuration can be written");
            clat.arg("--config").arg(quiet);
        }
        clat.arg("--state-dir").arg(self.path("clat-state"));
        clat
    }
}

/// Host and router, and the impaired link between them if there is one.
fn wire_lan(
    host: &Namespace,
    router: &Namespace,
    options: &Options,
) -> io::Result<(Option<Namespace>, Option<ImpairedLink>)> {
    let (mut middlebox, mut impaired) = (None, None);
    match options.impairment {
        None => connect((host, "h0"), (router, "r0")),
        Some(impairment) => {
            let wire = Namespace::new("wire")?;
            connect((host, "h0"), (&wire, "x0"));
            connect((router, "r0"), (&wire, "x1"));
            for (namespace, interface) in
                [(host, "h0"), (router, "r0"), (&wire, "x0"), (&wire, "x1")]
            {
                offloads_off(namespace, interface);
            }
            for interface in ["x0", "x1"] {
                wire.set(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "1");
            }
            impaired = Some(ImpairedLink::start(&wire, "x0", "x1", impairment));
            middlebox = Some(wire);
        }
    }
    router.forward();
    router.add_address("r0", "fe80::1/64");
    router.add_address("r0", "2001:db8:1:1::1/64");
    router.add_address("lo", &format!("{SERVER6}/128"));
    Ok((middlebox, impaired))
}

/// Router and plat.
fn wire_inside(router: &Namespace, plat: &Namespace, options: &Options) {
    connect((router, "r1"), (plat, "p0"));
    router.set_mtu("r1", options.middle_mtu);
    plat.set_mtu("p0", options.middle_mtu);
    router.add_address("r1", "2001:db8:1:2::1/64");
    plat.add_address("p0", "2001:db8:1:2::2/64");
    router.add_route(PREF64, "2001:db8:1:2::2", "r1");
    plat.add_route("2001:db8:1:1::/64", "2001:db8:1:2::1", "p0");
}

/// The IPv4 internet.
fn wire_internet(plat: &Namespace, isp: &Namespace, server: &Namespace) {
    connect((plat, "p1"), (isp, "i0"));
    connect((isp, "i1"), (server, "s0"));
    isp.forward();
    plat.add_address("p1", "192.0.2.1/30");
    isp.add_address("i0", "192.0.2.2/30");
    isp.add_address("i1", "198.51.100.1/24");
    server.add_address("s0", "198.51.100.10/24");
    plat.add_route("0.0.0.0/0", "192.0.2.2", "p1");
    server.add_route("0.0.0.0/0", "198.51.100.1", "s0");
    isp.add_route("203.0.113.0/28", "192.0.2.1", "i0");
}

/// Frames as on a wire: no super-segments, complete checksums.
pub fn offloads_off(namespace: &Namespace, interface: &str) {
    let features = "tso off gso off gro off tx off rx off sg off tx-udp-segmentation off";
    namespace.must(&format!("ethtool -K {interface} {features}"));
    // A driver may say yes and not do it.
    let shown = namespace.must(&format!("ethtool -k {interface}"));
    for feature in ["tcp-segmentation-offload", "tx-checksumming"] {
        let off = format!("{feature}: off");
        assert!(shown.contains(&off), "{interface}: {shown}");
    }
}
