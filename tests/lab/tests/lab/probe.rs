//! Whether anything behind the NAT64 answers, as the CLAT finds out and says.

use std::{thread, time::Duration};

use lab::{
    process::Daemon,
    topology::{Network, Options, PREF64, SERVER},
};

/// A verdict takes three seconds.
const SOON: Duration = Duration::from_secs(8);

fn launch(network: &Network, targets: &str) -> Daemon {
    let file = network.path("clat.toml");
    std::fs::write(&file, format!("probe_targets = [{targets}]\n")).unwrap();
    let clat = network.launch_clat(&["--config", &file.display().to_string()]);
    clat.wait_for(" running: ", SOON);
    clat
}

fn server() -> String {
    format!("\"{SERVER}\"")
}

/// The routers before the NAT64 answer too, and are not counted: they show as 192.0.0.8.
#[test]
fn disc_7050_3_2_01_without_a_nat64_nothing_is_verified() {
    let network = Network::new("probe-none", &Options::default());
    let clat = launch(&network, &server());
    clat.wait_for(
        &format!("unverified: nothing behind {PREF64} answered within 3s; asked were {SERVER}"),
        SOON,
    );
    assert!(!clat.output().contains("reachable"), "{}", clat.output());
}

#[test]
fn disc_7050_3_2_01_an_answer_through_the_nat64_is_said_for_each_prefix() {
    let network = Network::new("probe", &Options::default());
    let _plat = network.start_plat();
    let clat = launch(&network, &server());
    clat.wait_for("reachable: ", SOON);
    let through = format!("answered through {PREF64}");
    assert!(clat.output().contains(&through), "{}", clat.output());
    assert!(!clat.output().contains("unverified"), "{}", clat.output());
    // Another prefix, with nothing behind it.
    let other = "2001:db8:65::/96";
    let announced = (other.parse().unwrap(), Duration::from_secs(1800));
    let gone = (PREF64.parse().unwrap(), Duration::ZERO);
    network
        .advertiser
        .change(|it| it.pref64 = vec![gone, announced]);
    clat.wait_for(&format!("unverified: nothing behind {other}"), SOON);
    assert_eq!(clat.output().matches("reachable: ").count(), 1);
}

/// The first target is not there; the routers on the way to it are.
#[test]
fn disc_7050_3_2_01_a_router_of_the_ipv4_internet_is_proof() {
    let network = Network::new("probe-router", &Options::default());
    let _plat = network.start_plat();
    let clat = launch(&network, "\"198.51.100.99\"");
    clat.wait_for("reachable: ", SOON);
    assert!(
        !clat.output().contains("198.51.100.99"),
        "{}",
        clat.output()
    );
}

#[test]
fn disc_7050_3_2_01_without_targets_nobody_is_asked() {
    let network = Network::new("probe-off", &Options::default());
    let clat = launch(&network, "");
    thread::sleep(Duration::from_secs(4));
    let output = clat.output();
    assert!(
        !output.contains("unverified") && !output.contains("reachable"),
        "{output}"
    );
}
