//! The PLAT's manners on its host.

use std::time::Duration;

use lab::{
    eventually,
    topology::{Network, Options},
    wiring::connect,
};

const SOON: Duration = Duration::from_secs(5);

/// A WAN that gets its address late is forwarded on as those that were there; when the PLAT ends,
/// it is as it was.
#[test]
fn interfaces_that_come_later_are_forwarded_on() {
    let network = Network::new("plat-late", &Options::default());
    let mut plat = network.start_plat();
    connect((&network.plat, "p2"), (&network.isp, "i2"));
    let setting = "net/ipv4/conf/p2/forwarding";
    assert_eq!(network.plat.get(setting), "0");
    network.plat.add_address("p2", "192.0.2.5/30");
    assert!(eventually(SOON, || network.plat.get(setting) == "1"));
    assert!(plat.stop().success());
    assert_eq!(network.plat.get(setting), "0");
}
