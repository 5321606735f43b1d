//! Which translators stand at the two ends of the IPv6 network: ours, or tayga at one of them.
//!
//! ```text
//!  host ───── router ───── plat
//!
//!  tayga as PLAT   stateless: the CLAT's address 2001:db8:1:1::464 is mapped to 203.0.113.1
//!  tayga as CLAT   on the host's routing: 192.0.0.1 is mapped to 2001:db8:1:f00::464, which the
//!                  router routes to the host
//! ```

use std::{fmt, path::Path, time::Duration};

use crate::{
    namespace::Namespace,
    process::Daemon,
    tayga::Tayga,
    topology::{Network, PREF64},
};

/// The CLAT's address where the PLAT must know it beforehand.
const CLAT: &str = "2001:db8:1:1::464";
/// The CLAT's address where it is routed to the host.
pub const ROUTED_CLAT: &str = "2001:db8:1:f00::464";

/// Tayga's interface on the host.
const TAYGA_CLAT: &str = "clat";
/// Tayga's interface on the PLAT's machine.
const TAYGA_PLAT: &str = "nat64";

/// A translator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translator {
    /// `clat` or `plat`.
    Ours,
    /// Debian's tayga.
    Tayga,
}

/// The translators at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// On the host.
    pub clat: Translator,
    /// Before the IPv4 internet.
    pub plat: Translator,
}

impl Pair {
    /// Both are ours.
    pub const OURS: Self = Self {
        clat: Translator::Ours,
        plat: Translator::Ours,
    };
    /// Our CLAT, tayga at the far end.
    pub const TAYGA_PLAT: Self = Self {
        plat: Translator::Tayga,
        ..Self::OURS
    };
    /// Tayga on the host, our PLAT.
    pub const TAYGA_CLAT: Self = Self {
        clat: Translator::Tayga,
        ..Self::OURS
    };

    /// The virtual interfaces of the CLAT and of the PLAT.
    #[must_use]
    pub fn interfaces(self) -> (&'static str, &'static str) {
        let clat = match self.clat {
            Translator::Ours => "clat0",
            Translator::Tayga => TAYGA_CLAT,
        };
        let plat = match self.plat {
            Translator::Ours => "plat0",
            Translator::Tayga => TAYGA_PLAT,
        };
        (clat, plat)
    }

    /// Whether one end is tayga.
    #[must_use]
    pub fn has_tayga(self) -> bool {
        [self.clat, self.plat].contains(&Translator::Tayga)
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.clat, self.plat) {
            (Translator::Ours, Translator::Ours) => f.write_str("ours"),
            (Translator::Ours, Translator::Tayga) => f.write_str("tayga-plat"),
            (Translator::Tayga, Translator::Ours) => f.write_str("tayga-clat"),
            (Translator::Tayga, Translator::Tayga) => f.write_str("tayga"),
        }
    }
}

impl Network {
    /// Starts the PLAT of a pair, and waits until it runs.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_plat_of(&self, pair: Pair) -> Daemon {
        match pair.plat {
            Translator::Ours => {
                let plat = self.start_plat();
                if pair.clat == Translator::Tayga {
                    self.route_to_host();
                }
                plat
            }
            Translator::Tayga => tayga_as_plat(&self.plat, &self.path("")),
        }
    }

    /// Starts the CLAT of a pair, and waits until it runs.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_clat_of(&self, pair: Pair) -> Daemon {
        let clat = match pair {
            Pair::OURS => self.launch_clat(&[]),
            Pair {
                clat: Translator::Ours,
                ..
            } => self.launch_clat(&["--address", CLAT]),
            Pair {
                clat: Translator::Tayga,
                ..
            } => return tayga_as_clat(&self.host, &self.path("")),
        };
        clat.wait_for(" running: ", Duration::from_secs(10));
        clat
    }

    /// The way back to a host whose CLAT has a routed address.
    pub fn route_to_host(&self) {
        self.host.add_address("h0", "fe80::2/64");
        self.router
            .add_route("2001:db8:1:f00::/64", "fe80::2", "r0");
        self.plat
            .add_route("2001:db8:1:f00::/64", "2001:db8:1:2::1", "p0");
    }
}

fn tayga_as_plat(plat: &Namespace, directory: &Path) -> Daemon {
    let tayga = Tayga {
        interface: TAYGA_PLAT,
        own: ("203.0.113.14", "2001:db8:1:2::64"),
        prefix: PREF64,
        maps: &[("203.0.113.1", CLAT)],
    };
    let daemon = tayga.start(plat, directory).expect("tayga starts");
    plat.forward();
    for route in [
        &format!("-6 route add {PREF64}"),
        "-6 route add 2001:db8:1:2::64/128",
        "route add 203.0.113.0/28",
    ] {
        plat.must(&format!("ip {route} dev {TAYGA_PLAT}"));
    }
    daemon
}

fn tayga_as_clat(host: &Namespace, directory: &Path) -> Daemon {
    // A host that forwards loses the route that it was advertised, and takes no other.
    host.forward();
    host.add_route("::/0", "fe80::1", "h0");
    let tayga = Tayga {
        interface: TAYGA_CLAT,
        own: ("192.0.0.2", "2001:db8:1:f00::2"),
        prefix: PREF64,
        maps: &[("192.0.0.1", ROUTED_CLAT)],
    };
    let daemon = tayga.start(host, directory).expect("tayga starts");
    host.add_address(TAYGA_CLAT, "192.0.0.1/32");
    // The interface stays larger: its MTU is what tayga takes for that of the IPv6 side.
    for route in [
        "route add default src 192.0.0.1 mtu 1472",
        &format!("-6 route add {ROUTED_CLAT}/128"),
    ] {
        host.must(&format!("ip {route} dev {TAYGA_CLAT}"));
    }
    daemon
}
