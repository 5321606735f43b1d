//! `plat` as its unit runs it: a user of its own, with the capabilities that the unit names and no
//! others, in every pool mode.

use std::{fs, time::Duration};

use lab::{
    process::{Daemon, command},
    servers::HELLO,
    state::State,
    topology::{Network, Options, program},
};

use super::pool_modes::{OWN, PUBLIC, mapped, network};

const UNITS: [&str; 2] = [
    include_str!("../../../../installers/linux/plat.service"),
    include_str!("../../../../installers/linux/plat@.service"),
];

/// Including the time to ask a link for addresses (RFC 5227).
const STARTED: Duration = Duration::from_secs(15);

/// The words of a setting of a unit.
fn setting<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    let line = unit
        .lines()
        .find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
    line.unwrap_or_default().split_whitespace().collect()
}

/// As `setpriv` writes what the unit names: `+net_admin,+net_raw`.
fn capabilities() -> String {
    let all = setting(UNITS[0], "AmbientCapabilities");
    assert!(!all.is_empty());
    let all = all
        .iter()
        .map(|it| format!("+{}", it.trim_start_matches("CAP_").to_lowercase()));
    all.collect::<Vec<_>>().join(",")
}

/// Starts `plat` as an ordinary user with these capabilities, which it cannot get more of.
fn launch(network: &Network, config: &str, capabilities: &str) -> Daemon {
    let directory = network.path("service");
    fs::create_dir_all(&directory).unwrap();
    for path in [&directory, &network.path("")] {
        network.plat.must(&format!("chmod 0777 {}", path.display()));
    }
    // The program must lie where the user can see it.
    let copy = directory.join("plat");
    if !copy.exists() {
        fs::copy(program("plat"), &copy).unwrap();
    }
    let file = directory.join("plat.toml");
    fs::write(&file, config).unwrap();
    let bounds = if capabilities.is_empty() {
        "-all".to_owned()
    } else {
        format!("-all,{capabilities}")
    };
    let script = format!(
        "mount -t tmpfs none /dev/net && mknod -m 0666 /dev/net/tun c 10 200 && \
         exec setpriv --reuid 65533 --regid 65533 --clear-groups --no-new-privs \
         --inh-caps={bounds} --ambient-caps={bounds} --bounding-set={bounds} \
         {} run --config {} --state-dir {}",
        copy.display(),
        file.display(),
        directory.join("state").display()
    );
    let mut unshare = command("unshare");
    unshare.args(["--mount", "sh", "-c", &script]);
    Daemon::start(&network.plat, "plat", unshare).unwrap()
}

/// Serves a client as that user, and takes everything back.
fn serves(network: &Network, config: &str) {
    let before = State::of(&network.plat);
    let log = network.path("service/events.jsonl");
    let config = format!("{config}\n[log]\nfile = \"{}\"\n", log.display());
    let mut plat = launch(network, &config, &capabilities());
    plat.wait_for("running", STARTED);
    let status = network
        .plat
        .must(&format!("cat /proc/{}/status", plat.pid()));
    assert!(status.contains("Uid:\t65533\t65533"), "{status}");
    let server = mapped(PUBLIC);
    let hello = network
        .host
        .must(&format!("curl -6 -sS -m 10 'http://[{server}]/hello'"));
    assert_eq!(hello, HELLO);
    network.host.must(&format!("ping -6 -n -c 1 -W 2 {server}"));
    // Another who is not root may ask it, and it answers to its own name.
    let ask = format!(
        "setpriv --reuid 65533 --regid 65533 --clear-groups {} health --socket {}",
        network.path("service/plat").display(),
        network.path("service/state/control.sock").display()
    );
    network.plat.must(&ask);
    let output = plat.output();
    assert!(!output.contains("WARN"), "{output}");
    assert!(plat.stop().success(), "{}", plat.output());
    assert!(!fs::read_to_string(log).unwrap().is_empty());
    State::of(&network.plat).assert_is(&before, "in the end");
}

#[test]
fn the_units_capabilities_are_enough_to_share_the_hosts_address() {
    let network = network("priv-ports", &Options::default());
    serves(
        &network,
        &format!("pool_mode = \"host-ports\"\npool = [\"{OWN}\"]"),
    );
}

#[test]
fn the_units_capabilities_are_enough_for_a_routed_pool() {
    let network = network("priv-routed", &Options::default());
    serves(&network, "pool = [\"203.0.113.0/28\"]");
}

#[test]
fn the_units_capabilities_are_enough_to_masquerade() {
    let network = network("priv-masq", &Options::default());
    serves(&network, "pool_mode = \"masquerade\"");
}

/// Asking a link for addresses takes a packet socket, and that CAP_NET_RAW: for nothing else.
#[test]
fn the_units_capabilities_are_enough_for_spare_addresses_of_a_link() {
    let network = network("priv-arp", &Options::default());
    for (namespace, interface, own) in [
        (&network.isp, "i0", "192.0.2.2"),
        (&network.plat, "p1", "192.0.2.1"),
    ] {
        namespace.must(&format!("ip addr add {own}/24 dev {interface}"));
        namespace.must(&format!("ip addr del {own}/30 dev {interface}"));
    }
    let plat = &network.plat;
    plat.must("ip route replace default via 192.0.2.2 dev p1");
    let config = "pool_mode = \"arp\"\npool = [\"192.0.2.16/30\"]";
    let mut without = launch(&network, config, "+net_admin");
    let code = without.wait(STARTED).code();
    assert_eq!(code, Some(5), "{}", without.output());
    assert!(
        without.output().contains("CAP_NET_RAW"),
        "{}",
        without.output()
    );
    serves(&network, config);
}

/// Both units are alike in this, and bound what they give.
#[test]
fn the_units_bound_what_they_give() {
    for unit in UNITS {
        let given = setting(unit, "AmbientCapabilities");
        assert_eq!(given, setting(UNITS[0], "AmbientCapabilities"));
        assert_eq!(given, setting(unit, "CapabilityBoundingSet"));
        let families = setting(unit, "RestrictAddressFamilies");
        for needed in ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_UNIX", "AF_PACKET"] {
            assert!(families.contains(&needed), "{needed}");
        }
        // Both would make /proc/sys read-only.
        assert_eq!(setting(unit, "ProtectKernelTunables"), Vec::<&str>::new());
        assert_eq!(setting(unit, "ProcSubset"), Vec::<&str>::new());
    }
}
