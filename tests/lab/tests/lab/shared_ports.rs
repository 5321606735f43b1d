//! A shared address beside what hosts have: small links, strict reverse path filters, firewalls with
//! connection tracking, kernels and firewall programs that lack something.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    time::Duration,
};

use lab::{
    process::{Daemon, command},
    servers::serve_web,
    state::State,
    topology::{Network, Options, offloads_off},
};

use crate::pool_modes::{
    OWN, PUBLIC, STARTED, echo_over_tcp, everything_works, host_is_itself, mapped, network, plat,
    plat_command,
};

/// The MTU that a client has learnt for the way to the server.
fn learnt_mtu(network: &Network) -> Option<u32> {
    let server = mapped(PUBLIC);
    let route = network.host.must(&format!("ip -6 route get {server}"));
    let (_, mtu) = route.split_once(" mtu ")?;
    mtu.split_whitespace().next()?.parse().ok()
}

fn both_ways(network: &Network) {
    // Nothing is divided by the kernel on the way: packets are as large as the client thinks.
    for (namespace, interface) in [(&network.host, "h0"), (&network.server, "s0")] {
        offloads_off(namespace, interface);
    }
    const LEN: u64 = 3_000_000;
    let server = mapped(PUBLIC);
    let echoed = network.host.run(move || echo_over_tcp(server, LEN));
    let line = format!("curl -6 -sS -m 20 'http://[{server}]/bytes/{LEN}' | sha256sum");
    assert!(network.host.must(&line).starts_with(&echoed));
}

/// An error of an IPv4 router about a packet from a shared port is the client's.
#[test]
fn a_small_link_on_the_ipv4_internet_is_found_out() {
    let network = network("small-far", &Options::default());
    // Of that direction only: veth loses what is larger than its other end.
    let route = format!("ip route change {PUBLIC}/32 via 198.51.100.10 dev i1 mtu lock 1300");
    network.isp.must(&route);
    let _plat = plat(&network, None);
    both_ways(&network);
    assert_eq!(learnt_mtu(&network), Some(1320));
}

/// The kernel of the PLAT's host itself tells of its small uplink: it quotes the stand-in, to which
/// it answers.
#[test]
fn a_small_uplink_is_found_out() {
    let network = network("small-uplink", &Options::default());
    for (namespace, interface) in [(&network.plat, "p1"), (&network.isp, "i0")] {
        namespace.set_mtu(interface, 1300);
    }
    let _plat = plat(&network, None);
    both_ways(&network);
    assert_eq!(learnt_mtu(&network), Some(1320));
}

/// A server learns of a small link on the IPv6 side, from an address that is shared.
#[test]
fn a_small_link_of_the_clients_is_found_out() {
    let options = Options {
        middle_mtu: 1300,
        ..Options::default()
    };
    let network = network("small-near", &options);
    let _plat = plat(&network, None);
    both_ways(&network);
    // 1300 less what the header is longer.
    let route = network.server.must(&format!("ip route get {OWN}"));
    assert!(route.contains("mtu 1280"), "{route}");
}

/// The stand-in has a route to where it comes from.
#[test]
fn a_strict_reverse_path_filter_is_content() {
    let network = network("rp-filter", &Options::default());
    for interface in ["all", "default", "p0", "p1"] {
        let setting = format!("net/ipv4/conf/{interface}/rp_filter");
        network.plat.set(&setting, "1");
    }
    serve_web(&network.plat);
    let _plat = plat(&network, None);
    assert_eq!(network.plat.get("net/ipv4/conf/plat0/rp_filter"), "1");
    everything_works(&network, &OWN.to_string());
    host_is_itself(&network);
}

/// A host that lets in what it asked for, and little more. What it forwards is up to it.
const FIREWALL: &str = "table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        iif lo accept
        meta l4proto { icmp, ipv6-icmp } accept
        tcp dport { 80, 4321 } accept
    }
    chain forward { type filter hook forward priority filter; policy accept; ct state invalid drop; }
    chain output { type filter hook output priority filter; policy accept; ct state invalid drop; }
}
";

#[test]
fn a_firewall_with_connection_tracking_is_content() {
    let network = network("firewall", &Options::default());
    let rules = network.path("firewall.nft");
    fs::write(&rules, FIREWALL).unwrap();
    network.plat.must(&format!("nft -f {}", rules.display()));
    serve_web(&network.plat);
    let before = State::of(&network.plat);
    let mut plat = plat(&network, None);
    everything_works(&network, &OWN.to_string());
    host_is_itself(&network);
    assert!(plat.stop().success());
    // Counters of connections aside.
    let after = State::of(&network.plat);
    assert!(!after.mentions("openclat"));
    assert_eq!(before.difference(&after), "");
}

/// Starts the PLAT with an nft that refuses what contains one of `refused`, and everything in JSON,
/// as one that was built without it.
fn with_poor_nft(network: &Network, refused: &str) -> Daemon {
    let directory = network.path("poor");
    fs::create_dir_all(&directory).unwrap();
    let script = format!(
        "#!/bin/sh\n\
         case \"$1\" in -j) echo no JSON >&2; exit 1;; esac\n\
         text=$(cat)\n\
         if echo \"$text\" | grep -Eq '{refused}'; then echo not supported >&2; exit 1; fi\n\
         echo \"$text\" | /usr/sbin/nft \"$@\"\n"
    );
    let nft = directory.join("nft");
    fs::write(&nft, script).unwrap();
    fs::set_permissions(&nft, Permissions::from_mode(0o755)).unwrap();
    let mut command = plat_command(network, None);
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", directory.display()));
    let plat = Daemon::start(&network.plat, "plat", command).unwrap();
    plat.wait_for("running", STARTED);
    plat
}

/// Connection tracking puts fragments together then.
#[test]
fn without_nft_tproxy_everything_works() {
    let network = network("no-tproxy", &Options::default());
    serve_web(&network.plat);
    let before = State::of(&network.plat);
    let mut plat = with_poor_nft(&network, "tproxy");
    assert!(!plat.output().contains("nft_socket"), "{}", plat.output());
    everything_works(&network, &OWN.to_string());
    host_is_itself(&network);
    assert!(plat.stop().success());
    State::of(&network.plat).assert_is(&before, "in the end");
}

/// Local programs that bind a shared port lose it then, which is said.
#[test]
fn without_nft_socket_clients_are_served_and_it_is_said() {
    let network = network("no-socket", &Options::default());
    serve_web(&network.plat);
    let mut plat = with_poor_nft(&network, "tproxy|socket transparent");
    plat.wait_for("this kernel lacks nft_socket", STARTED);
    everything_works(&network, &OWN.to_string());
    host_is_itself(&network);
    assert!(plat.stop().success());
}

/// A kernel that can do none of it is told of, and nothing is left.
#[test]
fn without_nftables_there_is_nothing_to_share() {
    let network = network("no-nft", &Options::default());
    let before = State::of(&network.plat);
    let mut command = plat_command(&network, None);
    let directory = network.path("poor");
    fs::create_dir_all(&directory).unwrap();
    let nft = directory.join("nft");
    fs::write(&nft, "#!/bin/sh\necho no tables here >&2; exit 1\n").unwrap();
    fs::set_permissions(&nft, Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", directory.display()));
    let mut plat = Daemon::start(&network.plat, "plat", command).unwrap();
    assert_eq!(plat.wait(STARTED).code(), Some(1));
    plat.wait_for("no tables here", STARTED);
    State::of(&network.plat).assert_is(&before, "in the end");
}

/// How long iperf3 sends, and how long it may take.
const SENDING: &str = "timeout 20 iperf3 -6 -t 2 -p 5201 -i 0 -J";

#[test]
fn iperf3_measures_through_a_shared_address() {
    let network = network("iperf3", &Options::default());
    let _plat = plat(&network, None);
    let mut server = command("iperf3");
    server.args([
        "-s",
        "-B",
        &PUBLIC.to_string(),
        "-p",
        "5201",
        "--forceflush",
    ]);
    let server = Daemon::start(&network.server, "iperf3", server).unwrap();
    server.wait_for("Server listening", STARTED);
    let to = mapped(PUBLIC);
    for how in ["", "-R", "-P 8", "-u -b 20M", "-u -b 20M -R"] {
        let said = network.host.must(&format!("{SENDING} -c {to} {how}"));
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let sum = match how.starts_with("-u") {
            true => &said["end"]["sum"],
            false => &said["end"]["sum_received"],
        };
        let bits = sum["bits_per_second"].as_f64().unwrap();
        assert!(bits > 1e7, "{how}: {said}");
        if how.starts_with("-u") {
            assert!(sum["lost_percent"].as_f64().unwrap() < 5.0, "{how}: {sum}");
        }
    }
}

const ZONE: &str = "$TTL 60
@ IN SOA localhost. root.localhost. 1 3600 600 86400 60
@ IN NS localhost.
small IN A 192.0.2.77
large IN TXT ( 
";

/// A name server of the IPv4 internet is asked by UDP, by TCP and with an answer in fragments.
#[test]
fn dig_asks_through_a_shared_address() {
    let network = network("dig", &Options::default());
    let directory = network.path("named-v4");
    fs::create_dir_all(&directory).unwrap();
    let strings = format!("\"{}\"\n", "x".repeat(200)).repeat(15);
    fs::write(directory.join("zone.db"), format!("{ZONE}{strings})\n")).unwrap();
    let path = directory.display();
    let config = format!(
        "options {{ directory \"{path}\"; pid-file none; session-keyfile \"{path}/key\"; \
         listen-on {{ any; }}; listen-on-v6 {{ none; }}; recursion no; max-udp-size 4096; \
         edns-udp-size 4096; minimal-responses yes; }};\n\
         controls {{ }};\nzone \"lab.test\" {{ type primary; file \"zone.db\"; }};\n"
    );
    let file = directory.join("named.conf");
    fs::write(&file, config).unwrap();
    let mut named = command("/usr/sbin/named");
    named.args(["-g", "-n", "1", "-c"]).arg(file);
    let named = Daemon::start(&network.server, "named", named).unwrap();
    named.wait_for("running", Duration::from_secs(20));
    let _plat = plat(&network, None);
    let dig = format!("dig -6 +tries=1 +time=3 @{}", mapped(PUBLIC));
    for how in ["", "+tcp"] {
        let said = network.host.must(&format!("{dig} {how} small.lab.test A"));
        assert!(said.contains("192.0.2.77"), "{how}: {said}");
    }
    let line = format!("{dig} +notcp +ignore +bufsize=4096 large.lab.test TXT");
    let said = network.host.must(&line);
    assert!(said.contains("NOERROR") && !said.contains(" tc"), "{said}");
    assert_eq!(said.matches(&"x".repeat(200)).count(), 15, "{said}");
}
