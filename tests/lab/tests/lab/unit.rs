//! `plat@.service` as it is shipped, under a systemd that is the first process of its machine.

use std::{thread, time::Duration};

use lab::{
    eventually,
    servers::HELLO,
    state::State,
    systemd::Machine,
    topology::{Network, Options, PREF64, SERVER, SERVER_BY_PREFIX},
};

const UNIT: &str = include_str!("../../../../installers/linux/plat@.service");
const NAME: &str = "plat@lab.service";
const SOON: Duration = Duration::from_secs(20);
/// What a test can wait for, instead of half a minute. It is fed every five seconds.
const WATCHDOG: &str = "[Service]\nWatchdogSec=12\nStandardOutput=append:/run/said\n\
                        StandardError=append:/run/said\n";

fn network(name: &str) -> Network {
    let options = Options {
        capture: false,
        ..Options::default()
    };
    let network = Network::new(name, &options);
    network.await_address();
    network
}

fn boot(network: &Network) -> Machine<'_> {
    let config = format!(
        "prefixes = [\"{PREF64}\"]\npool = [\"203.0.113.0/28\"]\n\
         allow_destinations = [\"198.51.100.0/24\"]\n\
         [log]\nfile = \"/var/log/openclat/lab.log\"\n"
    );
    Machine::boot(
        &network.plat,
        &[
            ("systemd/system/plat@.service", UNIT),
            ("systemd/system/plat@.service.d/lab.conf", WATCHDOG),
            ("openclat/plat@lab.toml", &config),
        ],
    )
}

/// Returns when it has said that it is ready.
fn start(machine: &Machine<'_>) {
    let started = machine.sh(&format!("systemctl start {NAME}"));
    let told = "systemctl status --no-pager -n 0 plat@lab.service; cat /run/said";
    assert!(started.ok(), "{started:?}\n{:?}", machine.sh(told));
}

/// A client without a CLAT.
fn serves(network: &Network) -> bool {
    let line = format!("curl -6 -sS -m 2 'http://[{SERVER_BY_PREFIX}]/hello'");
    network.host.sh(&line).stdout == HELLO
}

fn is_active(machine: &Machine<'_>) -> bool {
    machine.property(NAME, "ActiveState") == "active"
}

/// Its own user, no more than the unit gives, its directories, and nothing left.
#[test]
fn the_unit_runs_under_systemd() {
    let network = network("unit");
    let machine = boot(&network);
    let before = State::of(&network.plat);
    start(&machine);
    assert!(serves(&network), "{}", machine.must("cat /run/said"));
    assert!(is_active(&machine));
    let pid = machine.property(NAME, "MainPID");
    let status = machine.must(&format!("cat /proc/{pid}/status"));
    let line = |name: &str| {
        let line = status.lines().find_map(|it| it.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    assert_eq!(line("Uid:"), "65533\t65533\t65533\t65533");
    assert_eq!(line("NoNewPrivs:"), "1");
    assert_eq!(line("Seccomp:"), "2");
    // CAP_NET_ADMIN is 12, CAP_NET_RAW is 13.
    for set in ["CapEff:", "CapPrm:", "CapBnd:", "CapAmb:"] {
        assert_eq!(line(set), "0000000000003000", "{set}");
    }
    let text = machine.property(NAME, "StatusText");
    assert!(!text.is_empty());

    let health = "setpriv --reuid 65533 --regid 65533 --clear-groups plat health --instance lab";
    assert!(machine.must(health).contains("healthy"));
    let places = machine.must("stat -c '%U %a %n' /run/openclat/plat@lab /var/log/openclat");
    let expected =
        "openclat-plat 755 /run/openclat/plat@lab\nopenclat-plat 750 /var/log/openclat\n";
    assert_eq!(places, expected);
    let log = machine.must("cat /var/log/openclat/lab.log");
    assert!(
        log.contains("\"started\"") && log.contains("NAT64 BIB create"),
        "{log}"
    );
    assert!(!log.contains(&SERVER.to_string()), "{log}");
    // What it may not see.
    let hidden = format!("nsenter -t {pid} --mount sh -c 'echo x > /etc/x || echo refused'");
    assert_eq!(machine.must(&hidden), "refused\n");

    let edit = "echo '[timers]\nudp = 200' >> '/etc/openclat/plat@lab.toml'";
    let _ = machine.must(edit);
    let _ = machine.must(&format!("systemctl reload {NAME}"));
    let said = machine.must("cat /run/said");
    assert!(said.contains("timers.udp: 300 -> 200"), "{said}");
    assert!(serves(&network));

    let _ = machine.must(&format!("systemctl stop {NAME}"));
    assert_eq!(machine.property(NAME, "Result"), "success");
    assert_eq!(machine.property(NAME, "NRestarts"), "0");
    assert!(!serves(&network));
    State::of(&network.plat).assert_is(&before, "in the end");
    let log = machine.must("cat /var/log/openclat/lab.log");
    assert!(log.contains("\"stopped\""), "{log}");
}

/// One that is killed is cleaned up after, and comes again; so does one that stands still.
#[test]
fn systemd_cleans_up_after_it_and_starts_it_again() {
    let network = network("unit-killed");
    let machine = boot(&network);
    let before = State::of(&network.plat);
    start(&machine);
    assert!(serves(&network));
    let restarts = |count: &str| {
        let again = || machine.property(NAME, "NRestarts") == count && is_active(&machine);
        assert!(
            eventually(SOON, again),
            "{count}: {}",
            machine.must("cat /run/said")
        );
        assert!(serves(&network), "{}", machine.must("cat /run/said"));
    };
    let _ = machine.must(&format!("systemctl kill -s KILL --kill-who=main {NAME}"));
    restarts("1");
    let said = machine.must("cat /run/said");
    assert!(said.contains("taken back: "), "{said}");

    // As long as it is fed, the watchdog does nothing.
    let pid = machine.property(NAME, "MainPID");
    thread::sleep(Duration::from_secs(14));
    assert_eq!(machine.property(NAME, "MainPID"), pid);
    let _ = machine.must(&format!("kill -STOP {pid}"));
    restarts("2");
    assert_ne!(machine.property(NAME, "MainPID"), pid);

    // Killed for good.
    let _ = machine.must("mkdir -p /run/systemd/system/plat@.service.d");
    let _ =
        machine.must("echo '[Service]\nRestart=no' > /run/systemd/system/plat@.service.d/no.conf");
    let _ = machine.must("systemctl daemon-reload");
    let _ = machine.must(&format!("systemctl kill -s KILL --kill-who=main {NAME}"));
    let is_over = || machine.property(NAME, "ActiveState") == "failed";
    assert!(eventually(SOON, is_over));
    State::of(&network.plat).assert_is(&before, "in the end");
}

/// By its own tools: nothing in it that it does not know, and little that the program may do.
#[test]
fn the_unit_is_as_systemd_wants_it() {
    let network = network("unit-verify");
    let machine = boot(&network);
    let _ = machine.must(&format!(
        "systemd-analyze verify /etc/systemd/system/{NAME}"
    ));
    let shown = machine.must(&format!("systemd-analyze security --no-pager {NAME}"));
    let overall = shown
        .lines()
        .find(|it| it.contains("Overall exposure level"));
    let level = overall.and_then(|it| it.split_whitespace().find_map(|it| it.parse::<f32>().ok()));
    assert!(level.is_some_and(|it| it < 3.5), "{shown}");
}
