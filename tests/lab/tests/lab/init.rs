//! `plat init` with a person before it, and what becomes of what it writes.

use std::{fs, process::Command};

use lab::{
    process::{Ran, command},
    servers::HELLO,
    state::State,
    terminal::Terminal,
    topology::{Network, Options, program},
};
use pref64::Pref64;

use super::pool_modes::{PUBLIC, launch, mapped, network};

const QUESTION: &str = "[1] ";

fn init(network: &Network, arguments: &[&str]) -> Command {
    let mut plat = command(program("plat"));
    plat.arg("init").args(arguments).arg("--config");
    plat.arg(network.path("init.toml"));
    plat
}

fn typed_at(network: &Network, arguments: &[&str], answers: &[&str]) -> (Option<i32>, String) {
    let command = init(network, arguments);
    let mut terminal = Terminal::start(&network.plat, command).unwrap();
    for answer in answers {
        terminal.answer(QUESTION, answer);
    }
    terminal.end()
}

/// `plat config VERB` of what was written.
fn config(network: &Network, verb: &str) -> Ran {
    let file = network.path("init.toml");
    let line = format!(
        "{} config {verb} --config {}",
        program("plat").display(),
        file.display()
    );
    network.plat.sh(&line)
}

fn written(network: &Network) -> String {
    fs::read_to_string(network.path("init.toml")).unwrap()
}

/// Runs what was written, and fetches something from a server by its prefix.
fn runs(network: &Network, server: &str) {
    let before = State::of(&network.plat);
    let mut plat = launch(network, Some(&written(network)));
    plat.wait_for("running", std::time::Duration::from_secs(10));
    let line = format!("curl -6 -sS -m 5 'http://[{server}]/hello'");
    assert_eq!(network.host.must(&line), HELLO);
    assert!(plat.stop().success());
    State::of(&network.plat).assert_is(&before, "in the end");
}

/// Return is the answer in brackets.
#[test]
fn init_asks_for_the_internet_and_what_it_writes_runs() {
    let network = network("init-internet", &Options::default());
    let (code, screen) = typed_at(&network, &[], &["\n"]);
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.contains("What are clients to reach?"), "{screen}");
    assert!(screen.contains("plat config check"), "{screen}");
    let checked = config(&network, "check");
    assert!(checked.ok(), "{checked:?}");
    let text = written(&network);
    for line in [
        "prefixes = [\"64:ff9b::/96\"]",
        "clients = [\"2001:db8:1:1::/64\", \"2001:db8:1:2::/64\"]",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("allow_destinations"), "{text}");
    runs(&network, &mapped(PUBLIC).to_string());

    // Nothing that is there is written over, unless it is said.
    let (code, screen) = typed_at(&network, &[], &["2\n"]);
    assert!(code == Some(1) && screen.contains("--force"), "{screen}");
    assert_eq!(written(&network), text);
    let (code, screen) = typed_at(&network, &["--force"], &["2\n"]);
    assert_eq!(code, Some(0), "{screen}");
    assert_ne!(written(&network), text);
}

/// Whoever mistypes is asked again.
#[test]
fn init_asks_again_after_a_wrong_answer() {
    let network = network("init-private", &Options::default());
    let (code, screen) = typed_at(&network, &[], &["3\n", "yes\n", "\x7f12\x7f\x7f2\n"]);
    assert_eq!(code, Some(0), "{screen}");
    assert_eq!(
        screen.matches("What are clients to reach?").count(),
        3,
        "{screen}"
    );
    for wrong in ["`3`", "`yes`"] {
        assert!(screen.contains(wrong), "{wrong}: {screen}");
    }
    let checked = config(&network, "check");
    assert!(checked.ok(), "{checked:?}");
    let text = written(&network);
    assert!(
        text.contains("allow_destinations = [\"10.0.0.0/8\""),
        "{text}"
    );
    let prefix = text
        .lines()
        .find_map(|it| it.strip_prefix("prefixes = [\""));
    let prefix = prefix.and_then(|it| it.strip_suffix("\"]")).unwrap();
    assert!(prefix.starts_with("64:ff9b:1:"), "{text}");
    let server = prefix.parse::<Pref64>().unwrap();
    let server = server.embed("10.9.9.9".parse().unwrap());
    // A private server.
    network.server.add_address("lo", "10.9.9.9/32");
    network.isp.add_route("10.9.9.9/32", "198.51.100.10", "i1");
    (network.router).add_route(prefix, "2001:db8:1:2::2", "r1");
    runs(&network, &server.to_string());
}

/// Nobody answers: nothing is taken for granted, and nothing is written.
#[test]
fn init_without_an_answer_writes_nothing() {
    let network = network("init-none", &Options::default());
    // The end of input, as a terminal says it; and somebody who gives up.
    let (code, screen) = typed_at(&network, &[], &["\x04"]);
    assert_eq!(code, Some(2), "{screen}");
    assert!(screen.contains("say --for internet"), "{screen}");
    let (code, screen) = typed_at(&network, &[], &["no\n", "really\n", "not\n"]);
    assert_eq!(code, Some(2), "{screen}");
    // No terminal at all.
    let line = format!(
        "{} init --config {}",
        program("plat").display(),
        network.path("init.toml").display()
    );
    let unasked = network.plat.sh(&line);
    assert_eq!(unasked.code, Some(2), "{unasked:?}");
    assert!(unasked.stderr.contains("say --for internet"), "{unasked:?}");
    assert!(!network.path("init.toml").exists());
}
