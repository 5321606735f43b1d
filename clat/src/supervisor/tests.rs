//! The whole program on a host in memory: from the first router advertisement until everything is
//! taken back.

use std::{fs, io, net::Ipv4Addr, path::PathBuf, thread};

use clat_core::mapping::Instance;
use host::{
    Unsupported,
    fake::{FakeHost, Opened, Packet, World},
    netwatch::Address,
    ra::Datagram,
    tun::OpenError,
};
use l2::{link::FrameAddresses, next_hop::Neighbour};
use pref64::ra_option::Pref64Option;
use wire::{
    compose::{self, Pair, V4, V6},
    ethernet::Mac,
    ipv4::Ipv4,
    ipv6::Ipv6,
    ndp::{ALL_NODES, Envelope, HOP_LIMIT, solicited_node},
};

use super::*;
use crate::config::tests::settle;

/// Longer than anything that happens here takes, on a machine with much else to do.
const SOON: Duration = Duration::from_secs(20);

const LINK: u32 = 2;
const OTHER_LINK: u32 = 3;
const PREFIX: &str = "2001:db8:64::/96";
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0xc633, 0x640a);
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const ROUTER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// What the CLAT changes while it runs, in order.
const CHANGES: usize = 5;

/// An interface with a link-local address and this one.
fn ethernet(index: u32, name: &str, global: &str) -> Interface {
    let address = |address: &str| Address {
        address: address.parse().unwrap(),
        prefix_len: 64,
        preferred: true,
    };
    Interface {
        index,
        name: name.into(),
        running: true,
        mac: Some(OUR_MAC),
        ipv6_mtu: 1500,
        addresses: vec![address("fe80::2"), address(global)],
        ipv4: Vec::new(),
    }
}

/// A host on an IPv6-only network.
fn host() -> FakeHost {
    let host = FakeHost::new();
    host.change(|world| {
        let eth0 = ethernet(LINK, "eth0", "2001:db8:1:2::10");
        world.snapshot.interfaces.push(eth0);
        world.snapshot.ipv6_default = vec![LINK];
        world.gateways = vec![ROUTER];
        world.neighbours = vec![Neighbour {
            address: ROUTER,
            mac: Some(ROUTER_MAC),
            failed: false,
        }];
    });
    host
}

/// A host, a program on it, and what surrounds both.
struct Scene {
    host: FakeHost,
    state: PathBuf,
}

impl Scene {
    fn new(name: &str) -> Self {
        let process = std::process::id();
        let state = std::env::temp_dir().join(format!("openclat-{process}-supervisor-{name}"));
        let _ = fs::remove_dir_all(&state);
        Self {
            host: host(),
            state,
        }
    }

    /// Runs the program until it ends by itself, or `script` has come to its end and tells it to.
    fn play(&self, script: impl AsyncFnOnce(&Self)) -> Result<Exit, Failure> {
        let line = format!("--state-dir={}", self.state.display());
        let config = settle(&line, None).unwrap();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().build().unwrap().block_on(async {
            let program = run(&self.host, config);
            tokio::pin!(program);
            tokio::select! {
                ended = &mut program => return ended,
                () = script(self) => {}
            }
            self.host.signal(Told::End);
            program.await
        })
    }

    async fn until(&self, what: &str, mut holds: impl FnMut(&World) -> bool) {
        self.find(what, |scene| holds(&scene.host.world()).then_some(()))
            .await;
    }

    async fn find<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let end = Instant::now() + SOON;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < end, "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn advertise(&self, lifetime: Duration) {
        self.advertise_on(LINK, PREFIX, lifetime);
    }

    fn advertise_on(&self, interface: u32, prefix: &str, lifetime: Duration) {
        let option = Pref64Option {
            prefix: prefix.parse().unwrap(),
            lifetime,
        };
        // No reachable and no retransmission time, but the option.
        let body = [&[0; 8][..], &option.to_bytes()].concat();
        let envelope = Envelope {
            src: ROUTER,
            dst: ALL_NODES,
            hop_limit: HOP_LIMIT,
        };
        let [high, low] = 1800u16.to_be_bytes();
        let rest = [64, 0, high, low];
        self.host.advertise(Datagram {
            interface,
            envelope,
            message: compose::icmp6(ROUTER, ALL_NODES, 134, 0, rest, &body),
        });
    }

    /// A router announces a prefix, and the CLAT comes up with it.
    async fn start(&self) {
        self.until("routers are asked", |it| it.solicited.contains(&LINK))
            .await;
        self.advertise(Duration::from_secs(600));
        self.until("it runs", |it| it.made.len() == CHANGES).await;
    }

    async fn sent(&self, uplink: &Opened) -> (Mac, Packet) {
        let port = &uplink.port;
        self.find("a packet leaves", |_| port.to_network(Duration::ZERO))
            .await
    }

    /// The program has left nothing behind.
    fn expect_untouched(&self) {
        let (now, before) = (self.host.world(), host().world());
        assert_eq!(now.made, []);
        assert_eq!(now.snapshot, before.snapshot);
        assert!(self.host.tun_port().is_none());
        assert_eq!(self.journal(), "");
    }

    fn journal(&self) -> String {
        fs::read_to_string(self.state.join("journal.jsonl")).unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.state);
    }
}

fn query() -> Packet {
    let inside = Instance::FIRST.host();
    let datagram = compose::udp(Pair::V4(inside, SERVER), 40000, 53, b"query");
    Packet::whole(&V4::new(inside, SERVER, 17).carrying(&datagram))
}

fn answer(clat: Ipv6Addr) -> Packet {
    let datagram = compose::udp(Pair::V6(SERVER6, clat), 53, 40000, b"answer");
    Packet::whole(&V6::new(SERVER6, clat, 17).carrying(&datagram))
}

#[test]
fn from_the_first_advertisement_until_everything_is_taken_back() {
    let scene = Scene::new("whole");
    let ended = scene.play(async |scene| {
        scene.start().await;
        let uplink = scene.host.uplink_port().unwrap();
        let clat = uplink.address;
        assert_eq!((uplink.interface, uplink.mac), (LINK, OUR_MAC));
        // While it was claimed, and then while it runs.
        let changes = [
            "+ 192.0.0.0/29 hidden from all but clat0".to_owned(),
            format!("+ route to {clat}/128 into a black hole"),
            "+ interface clat0 up with MTU 1472".to_owned(),
            "+ address 192.0.0.1/32 on clat0".to_owned(),
            "+ route to 0.0.0.0/0 out of clat0".to_owned(),
        ];
        assert_eq!(scene.host.take_log(), changes);
        let journal = scene.journal();
        let (place, changes) = journal.split_once('\n').unwrap();
        assert!(place.starts_with("{\"in\":"), "{place}");
        assert_eq!(changes.lines().count(), CHANGES);
        assert!(changes.lines().all(|line| line.starts_with("{\"make\":")));

        let group = Mac::of_multicast(solicited_node(clat));
        assert_eq!(scene.sent(&uplink).await.0, group);
        expect_traffic(scene, &uplink).await;
        // Whether anything behind the NAT64 answers is asked in its turn.
        scene.until("a probe", |it| !it.asked.is_empty()).await;
    });
    assert_eq!(ended, Ok(Exit::Ok));
    let log = scene.host.take_log();
    assert_eq!(log[0], "- route to 0.0.0.0/0 out of clat0");
    assert_eq!(log.len(), CHANGES);
    scene.expect_untouched();
}

/// A query passes to the network, and its answer to the host.
async fn expect_traffic(scene: &Scene, uplink: &Opened) {
    let tun = scene.host.tun_port().unwrap();
    tun.from_host(query());
    let sent = loop {
        let (to, packet) = scene.sent(uplink).await;
        // Neighbours are told of the address.
        if to == ROUTER_MAC {
            break packet;
        }
    };
    let packet = Ipv6::new_checked(&sent.bytes).unwrap();
    assert_eq!((packet.src(), packet.dst()), (uplink.address, SERVER6));
    assert!(packet.payload().ends_with(b"query"));

    let frame = FrameAddresses {
        src: ROUTER_MAC,
        dst: OUR_MAC,
    };
    uplink.port.from_network(frame, answer(uplink.address));
    let got = scene
        .find("the answer", |_| tun.to_host(Duration::ZERO))
        .await;
    let packet = Ipv4::new_checked(&got.bytes).unwrap();
    assert_eq!(packet.src(), SERVER);
    assert_eq!(packet.dst(), Instance::FIRST.host());
    assert!(packet.payload().ends_with(b"answer"));
}

#[test]
fn a_prefix_that_is_withdrawn_takes_everything_with_it_and_brings_it_back() {
    let scene = Scene::new("withdrawn");
    let ended = scene.play(async |scene| {
        scene.start().await;
        scene.advertise(Duration::ZERO);
        scene
            .until("it is taken back", |it| it.made.is_empty())
            .await;
        let gone = |scene: &Scene| scene.host.tun_port().is_none().then_some(());
        scene.find("the interface goes", gone).await;
        scene.expect_untouched();
        scene.advertise(Duration::from_secs(600));
        scene.until("it runs", |it| it.made.len() == CHANGES).await;
    });
    assert_eq!(ended, Ok(Exit::Ok));
    scene.expect_untouched();
}

#[test]
fn what_somebody_takes_away_is_made_again() {
    let scene = Scene::new("again");
    let ended = scene.play(async |scene| {
        scene.start().await;
        scene
            .host
            .change(|world| world.snapshot.ipv4_default.clear());
        scene
            .until("the route is back", |it| {
                !it.snapshot.ipv4_default.is_empty()
            })
            .await;
    });
    assert_eq!(ended, Ok(Exit::Ok));
    let log = scene.host.take_log();
    let made = |it: &&String| *it == "+ route to 0.0.0.0/0 out of clat0";
    assert_eq!(log.iter().filter(made).count(), 2, "{log:?}");
    scene.expect_untouched();
}

/// At whichever change the system refuses the program, nothing of the others stays.
#[test]
fn a_refused_change_undoes_those_before_it() {
    thread::scope(|threads| {
        for before in 0..CHANGES {
            threads.spawn(move || expect_undone(before));
        }
    });
}

fn expect_undone(before: usize) {
    let scene = Scene::new(&format!("refused-{before}"));
    scene
        .host
        .refuse_after(before, io::ErrorKind::PermissionDenied);
    let ended = scene.play(async |scene| {
        scene.start().await;
        panic!("it runs although change {before} was refused");
    });
    let failure = ended.unwrap_err();
    assert_eq!(failure.exit(), Exit::Permission, "{before}: {failure}");
    assert!(failure.to_string().contains("CAP_NET_ADMIN"), "{failure}");
    let log = scene.host.take_log();
    let count = |sign: &str| log.iter().filter(|it| it.starts_with(sign)).count();
    assert_eq!(count("+"), before, "{log:?}");
    assert!(count("-") >= before, "{log:?}");
    scene.expect_untouched();
}

#[test]
fn without_a_virtual_interface_it_says_why_and_ends() {
    let ends_with = |why: OpenError| {
        let scene = Scene::new("no-tun");
        scene.host.refuse_tun(why);
        let ended = scene.play(async |scene| {
            scene.start().await;
            panic!("it runs without an interface");
        });
        scene.expect_untouched();
        let failure = ended.unwrap_err();
        (failure.exit(), failure.to_string())
    };
    let (exit, said) = ends_with(OpenError::Permission {
        name: "clat0".into(),
        source: io::ErrorKind::PermissionDenied.into(),
    });
    assert_eq!(exit, Exit::Permission);
    assert!(said.contains("what to do: run as root"), "{said}");
    // What a system without that backend says.
    let missing = Unsupported {
        what: "virtual interfaces",
        system: "Windows",
    };
    let (exit, said) = ends_with(missing.into());
    assert_eq!(exit, Exit::Error);
    assert_eq!(
        said,
        "error: there is no backend for virtual interfaces on Windows yet; there is one on Linux"
    );
}

#[test]
fn without_its_link_it_says_why_and_ends() {
    let scene = Scene::new("no-uplink");
    scene.host.refuse_uplink(io::ErrorKind::PermissionDenied);
    let ended = scene.play(async |scene| {
        scene.start().await;
        panic!("it runs without a link");
    });
    let failure = ended.unwrap_err();
    assert_eq!(failure.exit(), Exit::Permission);
    let said = failure.to_string();
    assert!(
        said.starts_with("error: cannot send and receive on eth0: "),
        "{said}"
    );
    scene.expect_untouched();
}

/// A link that is not in use moves to another network, and is used later: what it heard before does
/// not hold there.
#[test]
fn clat_c_03_a_link_not_in_use_forgets_the_network_it_leaves() {
    let down_and_up: &[fn(&mut Interface)] = &[|it| it.running = false, |it| it.running = true];
    let replaced: &[fn(&mut Interface)] = &[|it| it.mac = Some(ROUTER_MAC)];
    for changes in [down_and_up, replaced] {
        let scene = Scene::new("moves");
        let ended = scene.play(async |scene| {
            scene.start().await;
            scene.host.change(|world| {
                let eth1 = ethernet(OTHER_LINK, "eth1", "2001:db8:1:3::10");
                world.snapshot.interfaces.insert(1, eth1);
            });
            scene.until("its routers are asked", asked(1)).await;
            scene.advertise_on(OTHER_LINK, "2001:db8:65::/96", Duration::from_secs(600));
            for change in changes {
                // As long as a look may take.
                tokio::time::sleep(4 * SETTLE).await;
                (scene.host).change(|it| change(&mut it.snapshot.interfaces[1]));
            }
            scene.until("its routers are asked again", asked(2)).await;
            scene.advertise_on(OTHER_LINK, "2001:db8:66::/96", Duration::from_secs(600));
            tokio::time::sleep(4 * SETTLE).await;
            scene.host.change(|world| {
                world.snapshot.interfaces[0].running = false;
            });
            let uplink = scene.find("the other link is used", |scene| {
                scene
                    .host
                    .uplink_port()
                    .filter(|it| it.interface == OTHER_LINK)
            });
            let uplink = uplink.await;
            // What the host sends while an address is claimed is lost.
            let leaves = scene.find("a query leaves", |scene| {
                scene.host.tun_port()?.from_host(query());
                let mut sent = std::iter::from_fn(|| uplink.port.to_network(Duration::ZERO));
                sent.find(|(to, _)| *to == ROUTER_MAC)
            });
            let (_, packet) = leaves.await;
            let packet = Ipv6::new_checked(&packet.bytes).unwrap();
            let wanted: Pref64 = "2001:db8:66::/96".parse().unwrap();
            assert_eq!(packet.dst(), wanted.embed(SERVER));
        });
        assert_eq!(ended, Ok(Exit::Ok));
    }
}

/// The routers of the other link were asked so many times.
fn asked(times: usize) -> impl FnMut(&World) -> bool {
    move |world| {
        let of_link = world.solicited.iter().filter(|it| **it == OTHER_LINK);
        of_link.count() >= times
    }
}

/// The kernel prefers another router, which knows nothing of the prefix.
#[test]
fn clat_c_03_packets_go_to_the_router_that_announces_the_prefix() {
    let scene = Scene::new("two-routers");
    let other: Ipv6Addr = "fe80::9".parse().unwrap();
    scene.host.change(|world| {
        world.gateways = vec![other];
        world.neighbours.push(Neighbour {
            address: other,
            mac: Some(Mac([2, 0, 0, 0, 0, 9])),
            failed: false,
        });
    });
    let ended = scene.play(async |scene| {
        scene.start().await;
        expect_traffic(scene, &scene.host.uplink_port().unwrap()).await;
    });
    assert_eq!(ended, Ok(Exit::Ok));
}
