//! The PLAT's manners on its host.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use lab::{
    advertiser::{Advertisement, Advertiser},
    eventually,
    namespace::Namespace,
    process::{Daemon, command},
    state::State,
    topology::{Network, Options, PREF64, ROUTER, SERVER, program},
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

/// A third network at the PLAT's host, with both families. Who routes into it through that host, and
/// back, uses it as a router.
///
/// ```text
///  router ── p0 ┐
///               ├ plat ── p2 10.9.0.1, 2001:db8:9::1 ── inside 10.9.0.2, 2001:db8:9::2
///  isp ───── p1 ┘
/// ```
struct Inside(Namespace);

impl Inside {
    fn of(network: &Network) -> Self {
        let inside = Namespace::new("inside").unwrap();
        inside.skip_dad();
        connect((&network.plat, "p2"), (&inside, "n0"));
        network.plat.add_address("p2", "10.9.0.1/24");
        network.plat.add_address("p2", "2001:db8:9::1/64");
        inside.add_address("n0", "10.9.0.2/24");
        inside.add_address("n0", "2001:db8:9::2/64");
        inside.add_route("0.0.0.0/0", "10.9.0.1", "n0");
        inside.add_route("::/0", "2001:db8:9::1", "n0");
        network.isp.add_route("10.9.0.0/24", "192.0.2.1", "i0");
        (network.router).add_route("2001:db8:9::/64", "2001:db8:1:2::2", "r1");
        Self(inside)
    }

    /// Whether IPv4 and IPv6 get through in both directions.
    fn is_reached(&self, network: &Network) -> [bool; 4] {
        let ping = |from: &Namespace, to: &str| from.sh(&format!("ping -n -c 1 -W 1 {to}")).ok();
        [
            ping(&network.isp, "10.9.0.2"),
            ping(&self.0, "192.0.2.2"),
            ping(&network.router, "2001:db8:9::2"),
            ping(&self.0, "2001:db8:1:2::1"),
        ]
    }
}

/// A client without a CLAT.
fn client_is_served(network: &Network) {
    let prefix = PREF64.trim_end_matches("/96");
    let url = format!("http://[{prefix}{SERVER}]/hello");
    let line = format!("curl -6 -sS -m 5 '{url}'");
    let served = || network.host.sh(&line).ok();
    assert!(eventually(SOON, served), "{:?}", network.host.sh(&line));
}

/// The host has to forward for its clients, and forwards for nobody else: as before.
#[test]
fn plat_makes_no_router_for_others_of_its_host() {
    let network = Network::new("plat-guard", &Options::default());
    let inside = Inside::of(&network);
    assert_eq!(inside.is_reached(&network), [false; 4]);
    let before = State::of(&network.plat);
    let mut plat = network.start_plat();
    client_is_served(&network);
    assert_eq!(inside.is_reached(&network), [false; 4]);
    // The kernel's switches are thrown: it is the guard that holds.
    let rules = network
        .plat
        .must("nft list table inet openclat_plat0_guard");
    let counted = |family: &str| {
        let line = rules.lines().find(|it| it.contains(family)).unwrap();
        !line.contains("packets 0")
    };
    assert!(
        counted("nfproto ipv4") && counted("nfproto ipv6"),
        "{rules}"
    );
    // One that comes later.
    connect((&network.plat, "p3"), (&network.isp, "i3"));
    network.plat.add_address("p3", "192.0.2.5/30");
    network.isp.add_address("i3", "192.0.2.6/30");
    let setting = "net/ipv4/conf/p3/forwarding";
    assert!(eventually(SOON, || network.plat.get(setting) == "1"));
    network
        .isp
        .must("ip route change 10.9.0.0/24 via 192.0.2.5 dev i3");
    assert_eq!(inside.is_reached(&network), [false; 4]);
    network.plat.must("ip link del p3");
    assert!(plat.stop().success());
    State::of(&network.plat).assert_is(&before, "in the end");
}

/// Without the guard it would be one, and so the tests above say something.
#[test]
fn without_the_guard_plats_host_is_a_router() {
    let network = Network::new("plat-no-guard", &Options::default());
    let inside = Inside::of(&network);
    let _plat = network.start_plat_with("forward_guard = false\n");
    client_is_served(&network);
    assert_eq!(inside.is_reached(&network), [true; 4]);
}

/// A router stays a router, and so does one that becomes one for IPv4 while the PLAT runs.
#[test]
fn a_host_that_forwarded_goes_on_forwarding() {
    let network = Network::new("plat-router", &Options::default());
    let inside = Inside::of(&network);
    network.plat.forward();
    {
        let _plat = network.start_plat();
        client_is_served(&network);
        assert_eq!(inside.is_reached(&network), [true; 4]);
        assert!(!State::of(&network.plat).mentions("guard"));
    }
    // IPv6 only; then IPv4 also, by somebody else.
    let off = ["conf/all", "conf/p0", "conf/p1", "conf/p2"];
    for it in off {
        network.plat.set(&format!("net/ipv4/{it}/forwarding"), "0");
    }
    let mut plat = network.start_plat();
    client_is_served(&network);
    assert_eq!(inside.is_reached(&network), [false, false, true, true]);
    network.plat.set("net/ipv4/ip_forward", "1");
    let all = || inside.is_reached(&network) == [true; 4];
    assert!(eventually(Duration::from_secs(15), all));
    client_is_served(&network);
    assert!(plat.stop().success());
}

/// A host may forward IPv6 from some interfaces without being a router (Linux 6.17).
#[test]
fn forced_forwarding_of_an_interface_is_not_guarded() {
    let network = Network::new("plat-forced", &Options::default());
    let inside = Inside::of(&network);
    for interface in ["p0", "p2"] {
        let path = format!("net/ipv6/conf/{interface}/force_forwarding");
        if !network.plat.sh(&format!("test -e /proc/sys/{path}")).ok() {
            // Older kernels have no such thing.
            return;
        }
        network.plat.set(&path, "1");
    }
    let expected = [false, false, true, true];
    assert_eq!(inside.is_reached(&network), expected);
    let _plat = network.start_plat();
    client_is_served(&network);
    assert_eq!(inside.is_reached(&network), expected);
}

/// Without nftables it works all the same, and says what it lacks.
#[test]
fn without_nftables_the_guard_is_missed_and_said() {
    let network = Network::new("plat-guard-nft", &Options::default());
    let before = State::of(&network.plat);
    let fake = network.path("nft");
    fs::write(&fake, "#!/bin/sh\necho no tables here >&2; exit 1\n").unwrap();
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
    // Only for setting up: what is refused leaves nothing.
    let mut plat = command(program("plat"));
    let config = network.write_plat_config("");
    plat.args(["run", "--config"]).arg(config);
    plat.arg("--state-dir").arg(network.path("plat-state"));
    let path = std::env::var("PATH").unwrap();
    plat.env("PATH", format!("{}:{path}", network.path("").display()));
    let mut plat = Daemon::start(&network.plat, "plat", plat).unwrap();
    plat.wait_for("running", SOON);
    let said = plat.output();
    assert!(
        said.contains("forwarded to and from plat0 only: not possible"),
        "{said}"
    );
    assert!(said.contains("no tables here"), "{said}");
    client_is_served(&network);
    assert!(plat.stop().success());
    State::of(&network.plat).assert_is(&before, "in the end");
}

/// A host that learns its default router from advertisements goes on learning, whether the router
/// speaks before the PLAT starts or after; one that listened to none still does not.
#[test]
fn router_advertisements_are_heard_as_before() {
    let network = Network::new("plat-ra", &Options::default());
    network.router.add_address("r1", "fe80::1/64");
    network.plat.set("net/ipv6/conf/p1/accept_ra", "0");
    let before = State::of(&network.plat);
    let has_default = || {
        let routes = network.plat.must("ip -6 route show default proto ra");
        routes.contains("via fe80::1 dev p0")
    };
    let mut plat = network.start_plat();
    let accepts = |interface: &str| {
        let path = format!("net/ipv6/conf/{interface}/accept_ra");
        network.plat.get(&path)
    };
    assert_eq!([accepts("p0"), accepts("p1")], ["2", "0"]);
    let lan = "2001:db8:1:2::".parse().unwrap();
    let mut advertisement = Advertisement::new(ROUTER, lan);
    // It advertises every four.
    advertisement.router_lifetime = 6;
    let advertiser = Advertiser::start(&network.router, "r1", advertisement);
    assert!(eventually(SOON, has_default));
    std::thread::sleep(Duration::from_secs(8));
    assert!(has_default(), "not refreshed");
    // And when it leaves, it is heard as well.
    advertiser.change(|it| {
        it.router_lifetime = 0;
        it.prefixes.clear();
    });
    assert!(eventually(SOON, || !has_default()));
    drop(advertiser);
    assert!(plat.stop().success());
    let after = State::of(&network.plat);
    for interface in ["p0", "p1"] {
        let setting = format!("net.ipv6.conf.{interface}.accept_ra =");
        assert!(!before.difference(&after).contains(&setting));
    }
}

/// It did not listen, as a router; its default route is its own.
#[test]
fn a_router_is_not_made_to_listen_to_others() {
    let network = Network::new("plat-ra-router", &Options::default());
    network.plat.forward();
    network.plat.add_route("::/0", "2001:db8:1:2::1", "p0");
    let _plat = network.start_plat();
    assert_eq!(network.plat.get("net/ipv6/conf/p0/accept_ra"), "1");
}
