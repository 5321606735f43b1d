//! A new configuration while packets flow.

use std::{
    fs,
    net::{Ipv6Addr, SocketAddr},
    thread,
    time::Duration,
};

use lab::{
    eventually,
    process::{Daemon, Ran},
    servers::ECHO_PORT,
    topology::{Network, Options, PREF64, program},
};
use nix::sys::signal::Signal;

use super::flows::{Flow, Udp, connect};

const SOON: Duration = Duration::from_secs(10);
/// Long enough for what is lost to be missed.
const A_WHILE: Duration = Duration::from_millis(300);

const ONE: &str = "\"203.0.113.1\"";
const BOTH: &str = "\"203.0.113.1\", \"203.0.113.2\"";

fn echo_server() -> SocketAddr {
    let address: Ipv6Addr = "2001:db8:64::198.51.100.10".parse().unwrap();
    (address, ECHO_PORT).into()
}

fn config(pool: &str, more: &str) -> String {
    format!(
        "prefixes = [\"{PREF64}\"]\npool = [{pool}]\n\
         allow_destinations = [\"198.51.100.0/24\"]\n{more}\n"
    )
}

/// A PLAT with two addresses, and its clients.
struct Lab {
    plat: Daemon,
    network: Network,
}

impl Lab {
    fn new(test: &str) -> Self {
        let options = Options {
            capture: false,
            ..Options::default()
        };
        let network = Network::new(test, &options);
        let plat = network.start_plat_of_config(&config(BOTH, "workers = 2"));
        Self { plat, network }
    }

    /// `plat ARGUMENTS` against it.
    fn ask(&self, arguments: &str) -> Ran {
        let (plat, socket) = (
            program("plat"),
            self.network.path("plat-state/control.sock"),
        );
        let line = format!(
            "{} {arguments} --socket {}",
            plat.display(),
            socket.display()
        );
        self.network.plat.sh(&line)
    }

    fn write(&self, text: &str) {
        fs::write(self.network.path("plat.toml"), text).unwrap();
    }

    fn reload(&self, text: &str) -> Ran {
        self.write(text);
        self.ask("reload")
    }

    /// Where a client's sessions come from.
    fn pool_address(&self, client: Ipv6Addr) -> String {
        let listed = self.ask(&format!("bib list --client {client}"));
        let found = ["203.0.113.1:", "203.0.113.2:"].map(|it| listed.stdout.contains(it));
        match found {
            [true, false] => "203.0.113.1".to_owned(),
            [false, true] => "203.0.113.2".to_owned(),
            _ => panic!("{client}: {listed:?}"),
        }
    }

    /// A client for each address of the pool.
    fn clients(&self) -> [Ipv6Addr; 2] {
        let mut found = [None; 2];
        for n in 1..200 {
            let client = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0xc, n);
            let host = &self.network.host;
            host.must(&format!("ip address add {client}/64 dev h0 nodad"));
            let echoes =
                || host.run(move || Udp::new(client, echo_server()).is_some_and(|it| it.echoes(0)));
            assert!(eventually(SOON, echoes));
            let at = usize::from(self.pool_address(client) == "203.0.113.2");
            found[at].get_or_insert(client);
            if let [Some(one), Some(two)] = found {
                return [one, two];
            }
        }
        panic!("one address of the pool is never used");
    }
}

/// Under load, by command and by signal, with a file that is wrong among them: of what the
/// configuration still has, nothing is lost, and of what it has no more, everything ends.
#[test]
fn plat_r_01_a_reload_under_load_loses_nothing() {
    let mut lab = Lab::new("reload");
    let [stays, goes] = lab.clients();
    let host = &lab.network.host;
    let kept = [
        Flow::udp(host, stays, echo_server()),
        Flow::tcp(host, stays, echo_server()),
    ];
    let ending = [
        Flow::udp(host, goes, echo_server()),
        Flow::tcp(host, goes, echo_server()),
    ];
    thread::sleep(A_WHILE);
    for (round, more) in ["[timers]\nudp = 200", "clients = [\"2001:db8:1::/48\"]", ""]
        .into_iter()
        .enumerate()
    {
        let more = format!("workers = 2\n{more}");
        let added = lab.reload(&config(&format!("{BOTH}, \"203.0.113.3\""), &more));
        assert!(added.ok(), "{added:?}");
        assert!(added.stdout.contains("\"203.0.113.3\"]"), "{added:?}");
        assert!(added.stdout.contains(" 0 have ended"), "{added:?}");
        assert!(
            lab.network
                .plat
                .must("ip route")
                .contains("203.0.113.3 dev plat0")
        );
        thread::sleep(A_WHILE);

        let wrong = lab.reload(&config(ONE, "workers = 2\nipv6_mtu = 20"));
        assert_eq!(wrong.code, Some(2), "{wrong:?}");
        let place = format!("{}:5:", lab.network.path("plat.toml").display());
        assert!(wrong.stderr.contains(&place), "{wrong:?}");
        assert!(wrong.stderr.contains("at least 1280"), "{wrong:?}");
        let half = lab.reload(&config(ONE, "workers = 3"));
        assert!(
            half.stderr.contains("workers: 2 -> 3 takes a restart"),
            "{half:?}"
        );
        thread::sleep(A_WHILE);

        // By signal, which answers in the log.
        lab.write(&config(BOTH, &more));
        lab.plat.clear_output();
        lab.plat.signal(Signal::SIGHUP);
        let said = lab.plat.wait_for("have ended", SOON);
        assert!(said.contains(", 0 have ended"), "{round}: {said}");
        assert!(!lab.network.plat.must("ip route").contains("203.0.113.3"));
        thread::sleep(A_WHILE);
    }
    assert_eq!(lab.pool_address(goes), "203.0.113.2");
    let removed = lab.reload(&config(ONE, "workers = 2"));
    assert!(removed.ok(), "{removed:?}");
    assert!(!removed.stdout.contains(" 0 have ended"), "{removed:?}");
    thread::sleep(A_WHILE);
    assert!(!lab.network.plat.must("ip route").contains("203.0.113.2"));
    for fared in kept.map(Flow::stop) {
        assert!(fared.passed > 500 && fared.lost == 0, "{fared:?}");
    }
    let [udp, tcp] = ending.map(Flow::stop);
    // A datagram of the client makes a session with the other address; TCP knows what it lost.
    assert!(udp.passed > 500 && udp.lost <= 2, "{udp:?}");
    assert!(tcp.passed > 500 && tcp.lost > 0, "{tcp:?}");
    assert_eq!(lab.pool_address(goes), "203.0.113.1");
    assert!(lab.plat.stop().success());
}

/// Nobody said who may use it: those on the host's own side may, whoever comes by the interface to
/// the IPv4 internet may not, and that changes with the host's network.
#[test]
fn clients_are_the_hosts_own_side_unless_it_is_said() {
    let lab = Lab::new("reload-clients");
    let said = lab.plat.output();
    assert!(
        said.contains(
            "Clients are the networks of this host's own side: 2001:db8:1:1::/64, 2001:db8:1:2::/64"
        ),
        "{said}"
    );
    let lan = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0xc, 1);
    let foreign = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 1, 0, 0, 0, 1);
    for client in [lan, foreign] {
        let add = format!("ip address add {client}/64 dev h0 nodad");
        lab.network.host.must(&add);
    }
    let network = &lab.network;
    let passes = |client| {
        network
            .host
            .run(move || Udp::new(client, echo_server()).is_some_and(|it| it.echoes(1)))
    };
    assert!(eventually(SOON, || passes(lan)));
    assert!(!passes(foreign));
    let refused = lab.ask("stats");
    let count = refused
        .stdout
        .lines()
        .find(|it| it.contains("client-refused"));
    let count = count.and_then(|it| it.split_whitespace().find_map(|it| it.parse::<u64>().ok()));
    assert!(count >= Some(1), "{refused:?}");

    // The host becomes the way to that network; then it is not any more.
    network
        .router
        .must("ip -6 route add 2001:db8:bad:1::/64 dev r0");
    let route = "2001:db8:bad:1::/64 via 2001:db8:1:2::1 dev p0";
    network.plat.must(&format!("ip -6 route add {route}"));
    assert!(eventually(SOON, || passes(foreign)));
    network.plat.must(&format!("ip -6 route del {route}"));
    assert!(eventually(SOON, || !passes(foreign)));
    assert!(passes(lan));
    // Or everybody may.
    network.plat.must(&format!(
        "ip -6 route add {}",
        route.replace("db8:bad:1::/64", "db8:bad::/48")
    ));
    let open = lab.reload(&config(BOTH, "workers = 2\nclients = [\"::/0\"]"));
    assert!(
        open.stdout.contains("clients: [] -> [\"::/0\"]"),
        "{open:?}"
    );
    assert!(passes(foreign));
}

/// What a reload would do is seen before.
#[test]
fn the_files_are_compared_with_what_runs() {
    let lab = Lab::new("reload-diff");
    let file = lab.network.path("plat.toml");
    let diff = || lab.ask(&format!("config diff --config {}", file.display()));
    assert_eq!(diff().stdout, "no difference\n");
    lab.write(&config(ONE, "workers = 3\n[timers]\nudp = 200"));
    let said = diff().stdout;
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(
        lines[0].contains("-> [\"203.0.113.1\"] (takes a reload, which ends"),
        "{said}"
    );
    assert_eq!(lines[1], "workers: 2 -> 3 (takes a restart)");
    assert_eq!(lines[2], "timers.udp: 300 -> 200 (takes a reload)");
    assert!(
        lab.reload(&config(BOTH, "workers = 2\n[timers]\nudp = 200"))
            .ok()
    );
    assert_eq!(diff().stdout, "no difference\n");
}

/// Whoever locks himself out by a new configuration is let in again.
#[test]
fn what_nobody_confirms_is_taken_back() {
    let lab = Lab::new("reload-confirm");
    let [stays, _] = lab.clients();
    let works = || {
        lab.network
            .host
            .run(move || Udp::new(stays, echo_server()).unwrap().echoes(1))
    };
    assert!(works());
    let locked_out = config(BOTH, "workers = 2\nclients = [\"2001:db8:ffff::/48\"]");
    lab.write(&locked_out);
    let read = lab.ask("reload --confirm-within 3s");
    assert!(
        read.ok() && read.stdout.contains("plat reload --confirm"),
        "{read:?}"
    );
    assert!(!works());
    lab.plat.wait_for("nobody confirmed", SOON);
    assert!(works());
    let late = lab.ask("reload --confirm");
    assert_eq!(late.code, Some(10), "{late:?}");

    assert!(lab.ask("reload --confirm-within 3s").ok());
    lab.plat.clear_output();
    assert!(lab.ask("reload --confirm").ok());
    thread::sleep(Duration::from_secs(4));
    assert!(!lab.plat.output().contains("nobody confirmed"));
    assert!(!works());
}

/// Static bindings come and go with the file; one that a client has taken meanwhile is refused, and
/// nothing else of that file holds either.
#[test]
fn static_bindings_are_part_of_it() {
    let lab = Lab::new("reload-bib");
    let [stays, _] = lab.clients();
    let bib = |client: &str, pool: &str| {
        format!("workers = 2\n[[bib]]\nprotocol = \"tcp\"\nipv6 = \"{client}\"\nipv4 = \"{pool}\"")
    };
    let first = bib("[2001:db8:1:1::99]:80", "203.0.113.1:80");
    assert!(lab.reload(&config(BOTH, &first)).ok());
    let listed = |lab: &Lab| lab.ask("bib list --protocol tcp").stdout;
    assert!(listed(&lab).contains("203.0.113.1:80 "), "{}", listed(&lab));
    // To another server, in one step.
    let second = bib("[2001:db8:1:1::98]:80", "203.0.113.1:80");
    let moved = lab.reload(&config(BOTH, &second));
    assert!(moved.ok(), "{moved:?}");
    let now = listed(&lab);
    assert!(
        now.contains("[2001:db8:1:1::98]:80") && !now.contains("::99]"),
        "{now}"
    );

    let connection = lab.network.host.run(move || connect(stays, echo_server()));
    let client = connection.local_addr().unwrap();
    let taken = bib(&client.to_string(), "203.0.113.2:81");
    let refused = lab.reload(&config(ONE, &taken.replace("203.0.113.2", "203.0.113.1")));
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("is bound to"), "{refused:?}");
    let after = listed(&lab);
    assert!(after.contains("[2001:db8:1:1::98]:80"), "{after}");
    let pool = lab.ask("pool list").stdout;
    assert!(pool.contains("203.0.113.2"), "{pool}");
    let none = lab.reload(&config(BOTH, "workers = 2"));
    assert!(none.ok() && !listed(&lab).contains("static"), "{none:?}");
}
