//! Lab tests: real programs over real TUN devices and the kernel's own routing.
//!
//! They need root and the programs' release builds; `cargo xtask lab` sees to both.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails the test")]

mod change;
mod discovery;
mod dns_discovery;
mod floods;
mod flows;
mod forged;
mod greedy;
mod hairpin;
mod host_rules;
mod init;
mod instances;
mod instruments;
mod lifecycle;
mod losses;
mod matrix;
mod neighbours;
mod no_clat;
mod no_mess;
mod path;
mod plat_control;
mod plat_host;
mod pool_modes;
mod poor_link;
mod privileges;
mod probe;
mod reload;
mod reload_arp;
mod shared_ports;
mod stateless;
mod stun;
mod told;
mod traffic;
mod unit;
mod uplinks;
mod workers;

use lab::{
    pair::Pair,
    process::Daemon,
    topology::{Network, Options, offloads_off},
};

/// A network with CLAT and PLAT running. Programs are dropped before the network.
struct Running {
    clat: Daemon,
    plat: Daemon,
    network: Network,
    pair: Pair,
}

impl Running {
    fn new(test: &str) -> Self {
        Self::of(Pair::OURS, test)
    }

    fn of(pair: Pair, test: &str) -> Self {
        Self::with(pair, test, &Options::default())
    }

    fn with(pair: Pair, test: &str, options: &Options) -> Self {
        let network = Network::new(&format!("{test}-{pair}"), options);
        let plat = network.start_plat_of(pair);
        let clat = network.start_clat_of(pair);
        Self {
            clat,
            plat,
            network,
            pair,
        }
    }

    /// Offloads off at the translators' own interfaces too: what they read and write are packets as
    /// on a wire.
    fn translators_without_offloads(&self) {
        let (clat, plat) = self.pair.interfaces();
        offloads_off(&self.network.host, clat);
        offloads_off(&self.network.plat, plat);
    }
}
