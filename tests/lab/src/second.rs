//! More of what the network has one of: a second host, behind the same router, and a second PLAT.
//!
//! ```text
//!  host    h0 ─────┐                 ┌───── plat   203.0.113.0/28
//!                router              │
//!  second  h0 ─────┘ └── second PLAT ┴───── isp    203.0.113.32/28
//!
//!  second host  2001:db8:1:3::/64 by router advertisement
//!  second PLAT  p0 2001:db8:1:4::2   p1 192.0.2.5; NAT64 prefix 2001:db8:65::/96
//! ```

use std::{fs, net::Ipv6Addr, time::Duration};

use crate::{
    advertiser::{Advertisement, Advertiser},
    namespace::Namespace,
    process::{Daemon, command},
    topology::{Network, ROUTER, program},
    wiring::connect,
};

/// The LAN of the second host.
const LAN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 3, 0, 0, 0, 0);

/// The prefix of the second PLAT.
pub const SECOND_PREF64: &str = "2001:db8:65::/96";

/// A second host with a CLAT.
#[derive(Debug)]
pub struct SecondHost {
    _clat: Daemon,
    _advertiser: Advertiser,
    /// Where it lives.
    pub host: Namespace,
}

/// A second PLAT.
#[derive(Debug)]
pub struct SecondPlat {
    _plat: Daemon,
    _machine: Namespace,
}

impl SecondHost {
    /// Connects it to the router, which announces `pref64` to it, and starts its CLAT.
    ///
    /// # Panics
    /// If it cannot be built.
    #[must_use]
    pub fn start(network: &Network, pref64: &str) -> Self {
        let host = Namespace::new("second").expect("a namespace");
        host.skip_dad();
        let router = &network.router;
        connect((&host, "h0"), (router, "r2"));
        router.add_address("r2", "fe80::1/64");
        router.add_address("r2", "2001:db8:1:3::1/64");
        network
            .plat
            .add_route("2001:db8:1:3::/64", "2001:db8:1:2::1", "p0");
        let advertisement = Advertisement::new(ROUTER, LAN).with_pref64(pref64);
        let advertiser = Advertiser::start(router, "r2", advertisement);
        let quiet = network.path("second.toml");
        fs::write(&quiet, "probe_targets = []\n").expect("the configuration can be written");
        let mut clat = command(program("clat"));
        clat.args(["run", "--config"]).arg(quiet);
        clat.arg("--state-dir").arg(network.path("second-clat"));
        let clat = Daemon::start(&host, "second clat", clat).expect("clat starts");
        clat.wait_for(" running: ", Duration::from_secs(10));
        Self {
            _clat: clat,
            _advertiser: advertiser,
            host,
        }
    }
}

impl SecondPlat {
    /// Connects it to router and isp, and starts it, with more lines in its configuration.
    ///
    /// # Panics
    /// If it cannot be built.
    #[must_use]
    pub fn start(network: &Network, more: &str) -> Self {
        let machine = Namespace::new("second plat").expect("a namespace");
        machine.skip_dad();
        let (router, isp) = (&network.router, &network.isp);
        connect((router, "r3"), (&machine, "p0"));
        connect((&machine, "p1"), (isp, "i3"));
        router.add_address("r3", "2001:db8:1:4::1/64");
        machine.add_address("p0", "2001:db8:1:4::2/64");
        machine.add_address("p1", "192.0.2.5/30");
        isp.add_address("i3", "192.0.2.6/30");
        router.add_route(SECOND_PREF64, "2001:db8:1:4::2", "r3");
        machine.add_route("2001:db8:1::/48", "2001:db8:1:4::1", "p0");
        machine.add_route("0.0.0.0/0", "192.0.2.6", "p1");
        isp.add_route("203.0.113.32/28", "192.0.2.5", "i3");
        let config = network.path("second-plat.toml");
        let text = format!(
            "prefixes = [\"{SECOND_PREF64}\"]\npool = [\"203.0.113.32/28\"]\n\
             allow_destinations = [\"198.51.100.0/24\", \"203.0.113.0/28\"]\n{more}\n"
        );
        fs::write(&config, text).expect("the configuration can be written");
        let mut plat = command(program("plat"));
        plat.args(["run", "--config"]).arg(config);
        plat.arg("--state-dir").arg(network.path("second-plat"));
        let plat = Daemon::start(&machine, "second plat", plat).expect("plat starts");
        plat.wait_for("running", Duration::from_secs(5));
        Self {
            _plat: plat,
            _machine: machine,
        }
    }
}
