//! How the PLAT maps and filters, as a STUN server sees it (RFC 5780), and what follows from that:
//! two clients that nobody outside may speak to first can speak to each other.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use lab::{
    namespace::Namespace,
    second::{SECOND_PREF64, SecondHost, SecondPlat},
    stun::{self, Behaviour, Change, Client, PORTS, Write},
    topology::{Network, Options, PREF64, SERVER},
};
use pref64::Pref64;

const SECOND_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 11);
const ADDRESS_DEPENDENT: &str = "[filtering]\nudp = \"address-dependent\"\n";
const STUN: SocketAddrV4 = SocketAddrV4::new(SERVER, PORTS[0]);

/// The other end of the internet may be the other PLAT's pool.
fn start_plat(network: &Network, more: &str) -> lab::process::Daemon {
    let config = network.write_plat_config(more);
    let text = std::fs::read_to_string(&config).unwrap();
    let open = "allow_destinations = [\"198.51.100.0/24\", \"203.0.113.32/28\"]";
    let text = text.replace("allow_destinations = [\"198.51.100.0/24\"]", open);
    network.start_plat_of_config(&text)
}

fn network(name: &str) -> Network {
    let network = Network::new(name, &Options::default());
    network.server.add_address("s0", "198.51.100.11/24");
    stun::serve(&network.server, [SERVER, SECOND_ADDRESS]);
    network
}

fn as_itself(address: Ipv4Addr) -> IpAddr {
    address.into()
}

fn by_prefix(address: Ipv4Addr) -> IpAddr {
    let prefix: Pref64 = PREF64.parse().unwrap();
    prefix.embed(address).into()
}

/// Mapping and filtering, as a client of `host` finds them.
fn behaviour(host: &Namespace, write: Write) -> (Behaviour, Behaviour) {
    host.run(move || {
        let mapping = Client::new(write).unwrap().mapping(STUN).unwrap();
        let filtering = Client::new(write).unwrap().filtering(STUN).unwrap();
        (mapping, filtering)
    })
}

/// From behind the CLAT, and from a host that writes addresses by the prefix itself.
#[test]
fn test_5780_01_mapping_and_filtering_are_endpoint_independent() {
    let network = network("stun");
    let _plat = start_plat(&network, "");
    let _clat = network.start_clat();
    for write in [as_itself, by_prefix] {
        let found = behaviour(&network.host, write);
        let independent = Behaviour::EndpointIndependent;
        assert_eq!(found, (independent, independent));
    }
}

/// Filtering is as configured, and the mapping no other for it.
#[test]
fn test_5780_01_filtering_is_address_dependent_if_configured() {
    let network = network("stun-filtering");
    let _plat = start_plat(&network, ADDRESS_DEPENDENT);
    let _clat = network.start_clat();
    for write in [as_itself, by_prefix] {
        let found = behaviour(&network.host, write);
        let expected = (Behaviour::EndpointIndependent, Behaviour::AddressDependent);
        assert_eq!(found, expected);
    }
}

/// One mapping, whoever is asked: what a program that speaks to several peers lives by.
#[test]
fn test_5780_01_a_socket_behind_the_clat_has_one_mapping() {
    let network = network("stun-one");
    let _plat = start_plat(&network, "");
    let _clat = network.start_clat();
    let seen = network.host.run(|| {
        let mut client = Client::new(as_itself).unwrap();
        let servers = [SERVER, SECOND_ADDRESS].map(|ip| PORTS.map(|p| SocketAddrV4::new(ip, p)));
        servers.map(|it| {
            it.map(|server| {
                let answer = client.ask(server, Change::default()).unwrap().unwrap();
                assert_eq!(answer.heard_from, server.into());
                answer.mapped
            })
        })
    });
    let seen = seen.as_flattened();
    assert_eq!(seen[0].ip().octets()[..3], [203, 0, 113]);
    assert!(seen.iter().all(|it| *it == seen[0]), "{seen:?}");
}

/// Each asks who it is, and tells the other, as by a friend; then both speak at once.
fn punch_a_hole(one: &Namespace, other: &Namespace) {
    let client = || {
        let mut client = Client::new(as_itself).unwrap();
        let answer = client.ask(STUN, Change::default()).unwrap().unwrap();
        (client, answer.mapped)
    };
    let ((first, first_seen), (second, second_seen)) = (one.run(client), other.run(client));
    assert_ne!(first_seen, second_seen);
    let within = Duration::from_secs(10);
    let speak = move |client: Client, peer| {
        move || stun::punch(client.socket(), client.write(peer), within).unwrap()
    };
    let first = one.spawn(speak(first, second_seen));
    let second = other.spawn(speak(second, first_seen));
    assert!(
        first.join().unwrap(),
        "{first_seen} did not hear {second_seen}"
    );
    assert!(
        second.join().unwrap(),
        "{second_seen} did not hear {first_seen}"
    );
}

#[test]
fn plat_3_8_01_two_clats_behind_one_plat_punch_a_hole() {
    for filtering in ["", ADDRESS_DEPENDENT] {
        let network = network("punch-one");
        let _plat = start_plat(&network, filtering);
        let _clat = network.start_clat();
        let second = SecondHost::start(&network, PREF64);
        punch_a_hole(&network.host, &second.host);
    }
}

/// Each PLAT lets in only whom its client has spoken to.
#[test]
fn plat_5_2_01_two_clats_behind_two_plats_punch_a_hole() {
    let network = network("punch-two");
    let _plat = start_plat(&network, ADDRESS_DEPENDENT);
    let _clat = network.start_clat();
    let _second_plat = SecondPlat::start(&network, ADDRESS_DEPENDENT);
    let second = SecondHost::start(&network, SECOND_PREF64);
    punch_a_hole(&network.host, &second.host);
}
