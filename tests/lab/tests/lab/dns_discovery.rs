//! The NAT64 prefix by `ipv4only.arpa` (RFC 7050): from bind9, and from resolvers that are wrong in
//! every way.

use std::{
    net::{IpAddr, Ipv6Addr},
    thread,
    time::{Duration, Instant},
};

use lab::{
    advertiser::{Advertisement, Advertiser},
    dns::{Reply, Resolver, start_named},
    eventually,
    process::{Daemon, Ran},
    topology::{Network, Options, PREF64, ROUTER, SERVER, program},
    wiring::connect,
};
use pref64::well_known_name::ADDRESSES;

const SOON: Duration = Duration::from_secs(6);

/// The resolver's address on the LAN.
const RESOLVER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 1);

/// A prefix that nothing is behind.
const OTHER: &str = "2001:db8:65::/96";

/// A network whose router announces `resolvers` and no NAT64 prefix.
fn network(test: &str, resolvers: &[Ipv6Addr]) -> Network {
    let options = Options {
        announce: false,
        ..Options::default()
    };
    let network = Network::new(test, &options);
    let resolvers = resolvers.to_vec();
    network.advertiser.change(|it| it.dns_servers = resolvers);
    network
}

/// The same, with a resolver of ours on the router.
fn resolved(test: &str, reply: Reply) -> (Network, Resolver) {
    let network = network(test, &[RESOLVER]);
    let resolver = Resolver::start(&network.router, "r0", RESOLVER, reply);
    (network, resolver)
}

fn announce(network: &Network, prefix: &str, lifetime: u64) {
    let announced = (prefix.parse().unwrap(), Duration::from_secs(lifetime));
    network.advertiser.change(|it| it.pref64 = vec![announced]);
}

fn pref64(network: &Network, arguments: &str) -> Ran {
    let program = program("pref64");
    let line = format!("{} {arguments}", program.display());
    network.host.sh(&line)
}

/// What `pref64` finds: the prefixes with their sources.
fn found(network: &Network, wait: u32) -> Vec<String> {
    let ran = pref64(network, &format!("--wait {wait}"));
    let words = |line: &str| {
        let mut words = line.split_whitespace();
        let (prefix, _interface, source) = (words.next(), words.next(), words.next());
        format!("{} {}", prefix.unwrap(), source.unwrap())
    };
    ran.stdout.lines().map(words).collect()
}

fn by_dns(prefix: &str) -> [String; 1] {
    [format!("{prefix} source=dns")]
}

fn ping(network: &Network) {
    network.host.must(&format!("ping -n -c 1 -W 2 {SERVER}"));
}

fn wait_until_running(clat: &Daemon, prefix: &str) {
    wait_for_running(clat, prefix, SOON);
}

fn wait_for_running(clat: &Daemon, prefix: &str, timeout: Duration) {
    let by_prefix = || {
        let output = clat.output();
        let last = output.lines().rfind(|line| line.contains(" running: "));
        last.is_some_and(|line| line.contains(&format!("prefix {prefix}")))
    };
    assert!(eventually(timeout, by_prefix), "{}", clat.output());
}

/// bind9 synthesises, and the router says nothing.
#[test]
fn disc_7050_3_01_dns_alone() {
    let network = network("dns-alone", &[RESOLVER]);
    let _named = start_named(&network, Some(PREF64));
    let ran = pref64(&network, "--wait 5");
    let start = format!("{PREF64} interface=h0 source=dns resolver={RESOLVER} lifetime=");
    assert!(ran.stdout.starts_with(&start), "{ran:?}");
    assert!(ran.stdout.ends_with(" preference=1\n"), "{ran:?}");
    assert_eq!(ran.stdout.lines().count(), 1, "{ran:?}");

    let ran = pref64(&network, "--json");
    let first: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(first["source"], "dns");
    assert_eq!(first["resolver"], RESOLVER.to_string());
    assert!(first["lifetime"].as_u64().unwrap() <= 21, "{first}");

    let _plat = network.start_plat();
    let clat = network.launch_clat(&[]);
    wait_until_running(&clat, PREF64);
    ping(&network);
}

/// bind9 without DNS64: the name has no AAAA records.
#[test]
fn disc_7050_3_04_a_resolver_that_does_not_synthesise() {
    let network = network("dns-none", &[RESOLVER]);
    let _named = start_named(&network, None);
    let ran = pref64(&network, "--wait 10");
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(
        ran.stderr
            .ends_with("announces no NAT64 prefix and its resolvers synthesise none.\n"),
        "{ran:?}"
    );
    let clat = network.launch_clat(&[]);
    clat.wait_for("the link's resolvers synthesise no NAT64 prefix", SOON);
    assert!(!network.host.has_interface("clat0"));
}

#[test]
fn disc_8781_5_1_02_a_router_is_preferred_to_a_resolver() {
    let (network, resolver) = resolved("dns-and-ra", Reply::synthesised(OTHER, 600));
    announce(&network, PREF64, 1800);
    let ran = pref64(&network, "");
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{ran:?}");
    assert!(lines[0].starts_with(&format!("{PREF64} interface=h0 source=ra ")));
    assert!(lines[0].ends_with(" preference=1"), "{ran:?}");
    assert!(lines[1].starts_with(&format!("{OTHER} interface=h0 source=dns ")));
    assert!(lines[1].ends_with(" preference=0"), "{ran:?}");
    // The CLAT does not even ask.
    let asked = resolver.asked().len();
    let _plat = network.start_plat();
    let clat = network.launch_clat(&[]);
    wait_until_running(&clat, PREF64);
    thread::sleep(Duration::from_secs(1));
    assert_eq!(resolver.asked().len(), asked);
}

/// And the way back, when the router takes its prefix back.
#[test]
fn disc_8781_5_1_02_a_late_advertisement_replaces_dns_at_once() {
    let (network, _resolver) = resolved("dns-late-ra", Reply::synthesised(OTHER, 600));
    let _plat = network.start_plat();
    let clat = network.launch_clat(&[]);
    wait_until_running(&clat, OTHER);
    let start = Instant::now();
    announce(&network, PREF64, 1800);
    wait_until_running(&clat, PREF64);
    assert!(start.elapsed() < Duration::from_secs(2));
    clat.wait_for(
        &format!(
            "using NAT64 prefix {PREF64} by router {ROUTER} instead of {OTHER} by DNS from {RESOLVER}"
        ),
        SOON,
    );
    ping(&network);
    announce(&network, PREF64, 0);
    wait_until_running(&clat, OTHER);
}

/// The router falls silent, and the resolvers say the same as it did: nothing changes for the host.
#[test]
fn disc_8781_5_1_02_dns_takes_over_from_a_silent_router() {
    let (network, _resolver) = resolved("dns-takes-over", Reply::synthesised(PREF64, 600));
    let _plat = network.start_plat();
    announce(&network, PREF64, 8);
    let clat = network.launch_clat(&[]);
    wait_until_running(&clat, PREF64);
    network.advertiser.change(|it| it.silent = true);
    let instead = format!("using NAT64 prefix {PREF64} by DNS from {RESOLVER} instead");
    clat.wait_for(&instead, Duration::from_secs(15));
    ping(&network);
    assert_eq!(clat.output().matches("claiming").count(), 1);
}

/// RFC 7050 §3: it is asked again before the answer is over, and the new answer holds.
#[test]
fn disc_7050_3_04_a_changed_answer_is_followed() {
    let (network, resolver) = resolved("dns-changed", Reply::synthesised(OTHER, 5));
    let _plat = network.start_plat();
    let clat = network.launch_clat(&[]);
    wait_until_running(&clat, OTHER);
    resolver.reply(Reply::synthesised(PREF64, 5));
    wait_for_running(&clat, PREF64, Duration::from_secs(12));
    ping(&network);
    // Withdrawn, and nothing is left.
    resolver.reply(Reply::Code(0, Some(60)));
    clat.wait_for(
        &format!("NAT64 prefix {PREF64} withdrawn by DNS"),
        Duration::from_secs(12),
    );
    assert!(eventually(SOON, || !network.host.has_interface("clat0")));
}

/// A resolver that is gone takes nothing with it before its answer is over.
#[test]
fn disc_7050_3_04_an_answer_holds_as_long_as_it_said() {
    let (network, resolver) = resolved("dns-expires", Reply::synthesised(PREF64, 20));
    let clat = network.launch_clat(&[]);
    wait_until_running(&clat, PREF64);
    let start = Instant::now();
    resolver.reply(Reply::Silence);
    clat.wait_for("none of the link's resolvers answers", 2 * SOON * 2);
    assert!(network.host.has_interface("clat0"));
    clat.wait_for("NAT64 prefix 2001:db8:64::/96 expired", 2 * SOON * 2);
    let lived = start.elapsed().as_secs();
    assert!((18..24).contains(&lived), "{lived}");
    assert!(eventually(SOON, || !network.host.has_interface("clat0")));
}

#[test]
fn disc_7050_3_04_lost_and_late_answers_are_waited_for() {
    let yes = Reply::synthesised(PREF64, 600);
    let (network, resolver) = resolved("dns-drops", yes.clone());
    resolver.reply_first(2, &Reply::Silence);
    let start = Instant::now();
    assert_eq!(found(&network, 8), by_dns(PREF64));
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(resolver.asked().len(), 3);
    // One that takes longer than the time after which it is asked again.
    resolver.reply(Reply::Late(Duration::from_millis(1500), Box::new(yes)));
    assert_eq!(found(&network, 8), by_dns(PREF64));

    resolver.reply(Reply::Silence);
    let ran = pref64(&network, "--wait 5");
    assert!(ran.stderr.contains("none of its resolvers answered"));
    assert_eq!(ran.code, Some(4), "{ran:?}");
    let clat = network.launch_clat(&[]);
    clat.wait_for("none of the link's resolvers answers", SOON);
    resolver.reply(Reply::synthesised(PREF64, 600));
    wait_until_running(&clat, PREF64);
}

#[test]
fn disc_7050_3_04_what_does_not_fit_comes_by_tcp() {
    let truncated = Reply::Truncated(Box::new(Reply::synthesised(PREF64, 600)));
    let (network, resolver) = resolved("dns-tcp", truncated);
    assert_eq!(found(&network, 5), by_dns(PREF64));
    let asked = resolver.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(!asked[0].by_tcp && asked[1].by_tcp, "{asked:?}");
    assert!(asked.iter().all(|it| it.is_ours && !it.checking_disabled));
    // Truncated again: that is none.
    resolver.reply(Reply::Truncated(Box::new(Reply::Silence)));
    assert!(found(&network, 4).is_empty());
}

/// Each negative answer is waited out; a failure is not an answer, and is retried.
#[test]
fn disc_7050_3_04_negative_answers_and_failures() {
    for (name, reply, quiet) in [
        ("nxdomain", Reply::Code(3, Some(12)), 12),
        ("nodata", Reply::Code(0, Some(12)), 12),
        ("servfail", Reply::Code(2, None), 2),
    ] {
        let (network, resolver) = resolved(name, reply);
        let clat = network.launch_clat(&[]);
        let asked = || resolver.asked().len();
        assert!(eventually(SOON, || asked() > 0));
        // The address that the host gets meanwhile is a reason to ask once more.
        thread::sleep(Duration::from_millis(1000));
        let (before, start) = (asked(), Instant::now());
        resolver.reply(Reply::synthesised(PREF64, 600));
        assert!(
            eventually(Duration::from_secs(quiet + 2), || asked() > before),
            "{name}"
        );
        let waited = start.elapsed().as_secs_f32() + 1.6;
        assert!(waited >= quiet as f32 - 0.5, "{name}: {waited}");
        wait_until_running(&clat, PREF64);
    }
}

#[test]
fn disc_7050_3_03_lies_are_not_believed() {
    let (network, resolver) = resolved("dns-lies", Reply::Silence);
    let addresses =
        |list: &[&str]| Reply::Addresses(list.iter().map(|it| it.parse().unwrap()).collect(), 600);
    let yes = || Box::new(Reply::synthesised(PREF64, 600));
    for lie in [
        addresses(&["2001:db8::1", "2001:db8::c000:ac"]),
        addresses(&["::ffff:192.0.0.170", "::ffff:192.0.0.171"]),
        // It contains .170 itself, and the sibling that would tell is missing.
        addresses(&["2001:db8:c000:aa::c000:aa"]),
        Reply::OtherQuestion(yes()),
        Reply::Bytes(vec![]),
        Reply::Bytes(vec![0x81, 0x80, 0, 1, 0, 9, 0, 0, 0, 0, 0xff]),
        Reply::Bytes(vec![0xc0; 500]),
    ] {
        resolver.reply(lie.clone());
        assert!(found(&network, 2).is_empty(), "{lie:?}");
    }
    resolver.reply(addresses(&[
        "2001:db8:c000:aa::c000:aa",
        "2001:db8:c000:aa::c000:ab",
    ]));
    assert_eq!(found(&network, 5), by_dns("2001:db8:c000:aa::/96"));
    // What has another identifier is not the answer; the answer comes next.
    resolver.reply(Reply::WrongIdFirst(yes()));
    assert_eq!(found(&network, 5), by_dns(PREF64));
}

/// RFC 7050 §3: all prefixes, in the order of the answer.
#[test]
fn disc_7050_3_03_several_prefixes_in_order() {
    let prefixes = ["2001:db8:66::/96", "64:ff9b::/96", "2001:db8:64::/96"];
    let prefix = |it: &&str| it.parse::<pref64::Pref64>().unwrap();
    let synthesised = prefixes.iter().map(prefix);
    let synthesised = synthesised.flat_map(|it| ADDRESSES.map(|address| it.embed(address)));
    let reply = Reply::Addresses(synthesised.collect(), 600);
    let (network, _resolver) = resolved("dns-several", reply);
    let wanted = prefixes.map(|it| format!("{it} source=dns"));
    assert_eq!(found(&network, 5), wanted);
}

/// A router that is its own resolver may announce its link-local address; only with its scope can
/// it be reached.
#[test]
fn disc_7050_3_01_a_link_local_resolver() {
    let network = network("dns-link-local", &[ROUTER]);
    let yes = Reply::synthesised(PREF64, 600);
    let truncated = Reply::Truncated(Box::new(yes));
    let resolver = Resolver::start(&network.router, "r0", ROUTER, truncated);
    assert_eq!(found(&network, 5), by_dns(PREF64));
    let asked = resolver.asked();
    let link_local = |ip: IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    assert!(asked.iter().all(|it| link_local(it.from.ip())), "{asked:?}");
    assert!(asked.iter().any(|it| it.by_tcp), "{asked:?}");
}

/// RFC 8880 §7.1: the link's resolver is asked by the link, wherever the routes lead.
#[test]
fn disc_7050_3_01_a_route_elsewhere_does_not_lead_the_question_away() {
    let (network, resolver) = resolved("dns-vpn", Reply::synthesised(PREF64, 600));
    connect((&network.host, "vpn0"), (&network.server, "vpn1"));
    network.host.add_address("vpn0", "2001:db8:dead::2/64");
    let route = format!("ip -6 route add {RESOLVER}/128 dev vpn0 metric 1");
    network.host.must(&route);
    let ran = pref64(&network, "--wait 5 --interface h0");
    assert!(ran.stdout.contains("source=dns"), "{ran:?}");
    assert_eq!(resolver.asked().len(), 1);
}

/// Each link's resolvers are asked by that link, and what they say is that link's.
#[test]
fn disc_7050_3_01_each_link_has_resolvers_of_its_own() {
    let (network, _first) = resolved("dns-two-links", Reply::Code(0, Some(600)));
    connect((&network.host, "h1"), (&network.isp, "j1"));
    let (router, resolver) = ("fe80::2", "2001:db8:2:1::1");
    network.isp.add_address("j1", &format!("{router}/64"));
    network.isp.add_address("j1", &format!("{resolver}/64"));
    let [router, lan, address] =
        [router, "2001:db8:2:1::", resolver].map(|it| it.parse::<Ipv6Addr>().unwrap());
    let mut advertisement = Advertisement::new(router, lan);
    advertisement.dns_servers = vec![address];
    let _second = Resolver::start(&network.isp, "j1", address, Reply::synthesised(OTHER, 600));
    let _advertiser = Advertiser::start(&network.isp, "j1", advertisement);
    let clat = network.launch_clat(&[]);
    wait_until_running(&clat, OTHER);
    let output = clat.output();
    assert!(
        output.contains(&format!("{OTHER} by DNS from {resolver}")),
        "{output}"
    );
    let running = output.lines().rfind(|line| line.contains(" running: "));
    assert!(
        running.is_some_and(|line| line.contains(" on h1,")),
        "{output}"
    );

    let ran = pref64(&network, "--wait 3");
    let start = format!("{OTHER} interface=h1 source=dns resolver={resolver} ");
    assert!(ran.stdout.starts_with(&start), "{ran:?}");
    assert_eq!(ran.stdout.lines().count(), 1, "{ran:?}");
}

/// What is in resolv.conf counts where nothing better is known, and this host is not asked.
#[test]
fn disc_7050_3_01_resolv_conf_is_the_last_resort() {
    let network = network("dns-resolv-conf", &[]);
    let lies = Resolver::start(
        &network.host,
        "lo",
        Ipv6Addr::LOCALHOST,
        Reply::synthesised(OTHER, 600),
    );
    let resolver = Resolver::start(
        &network.router,
        "r0",
        RESOLVER,
        Reply::synthesised(PREF64, 600),
    );
    let file = network.path("resolv.conf");
    std::fs::write(&file, format!("nameserver ::1\nnameserver {RESOLVER}\n")).unwrap();
    let with_file = || {
        let line = format!(
            "unshare --mount sh -c 'mount --bind {} /etc/resolv.conf && exec {} --wait 4'",
            file.display(),
            program("pref64").display()
        );
        network.host.sh(&line)
    };
    let has_route = || !network.host.must("ip -6 route show default").is_empty();
    assert!(eventually(SOON, has_route));
    let ran = with_file();
    assert!(ran.stdout.starts_with(PREF64), "{ran:?}");
    assert!(lies.asked().is_empty());
    // With one from the router, it is not used.
    network.router.add_address("r0", "2001:db8:1:1::53/64");
    let better = "2001:db8:1:1::53".parse().unwrap();
    let _better = Resolver::start(&network.router, "r0", better, Reply::Code(0, Some(60)));
    network
        .advertiser
        .change(|it| it.dns_servers = vec![better]);
    let asked = resolver.asked().len();
    let ran = with_file();
    assert!(
        ran.stderr.contains("its resolvers synthesise none"),
        "{ran:?}"
    );
    // It may have been, before the router was heard.
    assert!(resolver.asked().len() <= asked + 1);
}

#[test]
fn disc_7050_6_01_nobody_is_asked_when_it_is_switched_off_or_not_needed() {
    let (network, resolver) = resolved("dns-off", Reply::synthesised(PREF64, 600));
    let ran = pref64(&network, "--dns off --wait 1");
    assert!(
        ran.stderr.ends_with("announces no NAT64 prefix.\n"),
        "{ran:?}"
    );
    let quiet = |arguments: &[&str]| {
        let mut clat = network.launch_clat(arguments);
        thread::sleep(Duration::from_secs(2));
        assert_eq!(resolver.asked(), [], "{arguments:?}");
        clat.stop();
    };
    quiet(&["--dns", "off"]);
    let file = network.path("clat.toml");
    std::fs::write(&file, "dns = \"off\"\n").unwrap();
    quiet(&["--config", &file.display().to_string()]);
    quiet(&["--prefix", PREF64]);
}

/// The first resolver is dead; the second one answers.
#[test]
fn disc_7050_3_01_a_dead_resolver_is_passed_over() {
    let dead = "2001:db8:1:1::dead".parse().unwrap();
    let network = network("dns-dead", &[dead, RESOLVER]);
    let _resolver = Resolver::start(
        &network.router,
        "r0",
        RESOLVER,
        Reply::synthesised(PREF64, 600),
    );
    let start = Instant::now();
    assert_eq!(found(&network, 8), by_dns(PREF64));
    assert!(start.elapsed() < Duration::from_secs(6));
}
