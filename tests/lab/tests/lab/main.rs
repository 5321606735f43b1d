//! Lab tests: real programs over real TUN devices and the kernel's own routing.
//!
//! They need root and the programs' release builds; `cargo xtask lab` sees to both.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails the test")]

mod discovery;
mod host_rules;
mod lifecycle;
mod path;
mod traffic;

use lab::{
    process::Daemon,
    topology::{Network, Options},
};

/// A network with CLAT and PLAT running. Programs are dropped before the network.
struct Running {
    clat: Daemon,
    plat: Daemon,
    network: Network,
}

impl Running {
    fn new(test: &str) -> Self {
        Self::with(test, &Options::default())
    }

    fn with(test: &str, options: &Options) -> Self {
        let network = Network::new(test, options);
        let plat = network.start_plat();
        let clat = network.start_clat();
        Self {
            clat,
            plat,
            network,
        }
    }
}
