//! A new configuration with other spare addresses of the link: those of the pool, and those of hosts
//! with an address of their own.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use lab::{
    eventually,
    namespace::Namespace,
    process::Ran,
    servers::ECHO_PORT,
    state::State,
    topology::{Network, Options, program},
};
use nix::sys::signal::Signal;

use super::{
    flows::{Flow, Udp},
    pool_modes::{ASKED, PUBLIC, launch, mapped, network, widen_uplink},
};

fn echo_server() -> SocketAddr {
    (mapped(PUBLIC), ECHO_PORT).into()
}

/// Hosts whose last byte is the same in both families.
fn config(pool: &str, mapped_hosts: &[u8]) -> String {
    let eam = mapped_hosts.iter().map(|it| {
        format!(
            "[[eam]]\nipv4 = \"192.0.2.{it}\"\nipv6 = \"{}\"\n",
            host(*it)
        )
    });
    let eam: String = eam.collect();
    format!("pool_mode = \"arp\"\npool = [{pool}]\nworkers = 2\n{eam}")
}

fn host(last: u8) -> Ipv6Addr {
    format!("2001:db8:1:1::{last}").parse().unwrap()
}

fn ask(network: &Network, arguments: &str) -> Ran {
    let line = format!(
        "{} {arguments} --socket {}",
        program("plat").display(),
        network.path("plat-state/control.sock").display()
    );
    network.plat.sh(&line)
}

/// The last bytes of the addresses that are answered for by ARP, and of those that have a route.
fn arranged(network: &Network) -> (Vec<u8>, Vec<String>) {
    let proxies = network.plat.must("ip neigh show proxy dev p1");
    let addresses = proxies.lines().map(|it| it.split(' ').next().unwrap());
    let mut last: Vec<_> = addresses
        .map(|it| it.parse::<Ipv4Addr>().unwrap().octets()[3])
        .collect();
    last.sort_unstable();
    let routes = network.plat.must("ip -4 route show dev plat0");
    let routes = routes.lines().map(|it| it.split(' ').next().unwrap());
    let mut routes: Vec<_> = routes.map(str::to_owned).collect();
    routes.sort();
    (last, routes)
}

/// Whether somebody on the link says that the address is his.
fn is_answered_for(isp: &Namespace, last: u8) -> bool {
    // Only of this one: packets of others may wait for an answer.
    let _ = isp.sh(&format!("ip neigh del 192.0.2.{last} dev i0"));
    let _ = isp.sh(&format!("ping -n -c 1 -W 2 192.0.2.{last}"));
    let entry = isp.must(&format!("ip neigh show 192.0.2.{last} dev i0"));
    entry.contains("lladdr")
}

/// Two clients, that of one address of the pool and that of another.
fn clients(network: &Network, addresses: [&str; 2]) -> [Ipv6Addr; 2] {
    let mut found = [None; 2];
    for n in 1..200 {
        let client = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0xc, n);
        let host = &network.host;
        host.must(&format!(
            "ip address add {client}/64 dev h0 nodad preferred_lft 0"
        ));
        let echoes =
            || host.run(move || Udp::new(client, echo_server()).is_some_and(|it| it.echoes(0)));
        assert!(eventually(ASKED, echoes));
        let bib = ask(network, &format!("bib list --client {client}")).stdout;
        if let Some(at) = addresses
            .iter()
            .position(|it| bib.contains(&format!(" {it}:")))
        {
            found[at].get_or_insert(client);
        }
        if let [Some(one), Some(other)] = found {
            return [one, other];
        }
    }
    panic!("one address of the pool is never used");
}

/// A signal that comes while the link is asked for addresses is carried out afterwards: at the start,
/// and while another one is.
#[test]
fn plat_r_01_a_signal_while_spare_addresses_are_asked_for_is_not_lost() {
    let network = network("reload-while", &Options::default());
    widen_uplink(&network);
    let of = |pool: &str, udp: u32| format!("{}timers.udp = {udp}\n", config(pool, &[]));
    let write = |text: &str| fs::write(network.path("modes.toml"), text).unwrap();
    let mut plat = launch(&network, Some(&of("\"192.0.2.16\"", 300)));
    plat.wait_for("asking whether", ASKED);
    write(&of("\"192.0.2.16\"", 301));
    plat.signal(Signal::SIGHUP);
    plat.signal(Signal::SIGUSR1);
    plat.wait_for("configuration read again: timers.udp: 300 -> 301", ASKED);
    plat.wait_for("so far", ASKED);

    plat.clear_output();
    write(&of("\"192.0.2.17\"", 301));
    plat.signal(Signal::SIGHUP);
    plat.wait_for("asking whether", ASKED);
    write(&of("\"192.0.2.17\"", 302));
    plat.signal(Signal::SIGHUP);
    plat.wait_for("configuration read again: timers.udp: 301 -> 302", ASKED);
    assert_eq!(arranged(&network).0, [17]);
    assert!(plat.stop().success());
}

/// What both have goes on without a packet lost; what only the old one has is gone, and what only
/// the new one has is there.
#[test]
fn plat_r_01_other_spare_addresses_and_mappings_come_with_a_reload() {
    let network = network("reload-arp", &Options::default());
    widen_uplink(&network);
    for last in [40, 41, 42] {
        let address = host(last);
        (network.host).must(&format!("ip addr add {address}/64 dev h0 preferred_lft 0"));
    }
    let before = State::of(&network.plat);
    let first = config("\"192.0.2.16-192.0.2.17\"", &[40, 41]);
    let mut plat = launch(&network, Some(&first));
    plat.wait_for("running", ASKED);
    let routes = ["192.0.2.16/31", "192.0.2.40/31"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(arranged(&network), (vec![16, 17, 40, 41], routes));
    for last in [16, 17, 40, 41] {
        assert!(is_answered_for(&network.isp, last), "{last}");
    }
    let [stays, goes] = clients(&network, ["192.0.2.16", "192.0.2.17"]);
    let lab_host = &network.host;
    let kept = [
        Flow::udp(lab_host, stays, echo_server()),
        Flow::tcp(lab_host, stays, echo_server()),
        Flow::udp(lab_host, host(40), echo_server()),
        Flow::tcp(lab_host, host(40), echo_server()),
    ];
    let ending = [
        Flow::tcp(lab_host, goes, echo_server()),
        Flow::tcp(lab_host, host(41), echo_server()),
    ];
    assert!(kept.iter().chain(&ending).all(Flow::goes_on));

    // Somebody has one of the new ones: nothing is changed.
    let second = config("\"192.0.2.16\", \"192.0.2.19\"", &[40, 42]);
    let file = network.path("modes.toml");
    fs::write(&file, &second).unwrap();
    network.isp.add_address("i0", "192.0.2.42/32");
    let as_before = arranged(&network);
    let refused = ask(&network, "reload");
    assert!(
        !refused.ok() && refused.stderr.contains("192.0.2.42 is in use by"),
        "{refused:?}"
    );
    assert_eq!(arranged(&network), as_before);
    network.isp.remove_address("i0", "192.0.2.42/32");
    assert!(ending.iter().all(Flow::goes_on));

    let read = ask(&network, "reload");
    assert!(read.ok(), "{read:?}");
    let routes = ["192.0.2.16", "192.0.2.19", "192.0.2.40", "192.0.2.42"];
    let routes = routes.map(str::to_owned).to_vec();
    assert_eq!(arranged(&network), (vec![16, 19, 40, 42], routes));
    for (last, answered) in [(17, false), (19, true), (41, false), (42, true)] {
        assert_eq!(is_answered_for(&network.isp, last), answered, "{last}");
    }
    let pinged =
        |last: u8| (network.server).sh(&format!("ping -n -c 2 -i 0.2 -W 2 192.0.2.{last}"));
    assert!(pinged(40).ok() && pinged(42).ok());
    assert!(!pinged(41).ok());
    assert!(kept.iter().all(Flow::goes_on));
    for flow in kept {
        let fared = flow.stop();
        assert!(fared.lost == 0 && fared.passed > 60, "{fared:?}");
    }
    for flow in ending {
        let fared = flow.stop();
        assert!(fared.lost > 0, "{fared:?}");
    }
    // Whoever lost an address gets another one.
    let goes_on = lab_host.run(move || {
        (0..5).any(|it| Udp::new(goes, echo_server()).is_some_and(|udp| udp.echoes(it)))
    });
    assert!(goes_on);
    assert!(plat.stop().success());
    State::of(&network.plat).assert_is(&before, "in the end");
}
