//! The items of section 7 of the checklist that hold so far, through the whole engine.

use std::collections::HashSet;

use super::*;
use crate::{
    config::{Limits, PoolEntry, Timers},
    pool::PortRange,
};
use proptest::prelude::*;
use wire::{
    compose::{self, Pair, V4, V6},
    pieces::transport_checksum_ok,
    transport::{self, tcp},
};

const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 0x10);
const OTHER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 0x11);
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 1);
const OWN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 0x64);
const SERVER: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);
const SERVER2: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);
const ROUTER4: Ipv4Addr = Ipv4Addr::new(8, 8, 0, 1);
const POOL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const POOL2: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

const ACK: u8 = tcp::ACK;
const SYN: u8 = tcp::SYN;
const FIN: u8 = tcp::FIN | tcp::ACK;
const RST: u8 = tcp::RST;

fn prefix() -> Pref64 {
    "2001:db8:64::/96".parse().unwrap()
}

fn config() -> Config {
    let mut config = Config::new(prefix(), &[POOL], OWN6);
    config.errors = xlat::config::ErrorPolicy::Send;
    config
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Forwarded(Vec<Vec<u8>>),
    Replied(Why, Vec<u8>),
    Dropped(Why),
}

impl Fate {
    fn packet(self) -> Vec<u8> {
        match self {
            Self::Forwarded(mut packets) if packets.len() == 1 => packets.remove(0),
            other => panic!("not forwarded: {other:?}"),
        }
    }

    /// Reason, type and code.
    fn reply(self) -> (Why, u8, u8) {
        let Self::Replied(why, packet) = self else {
            panic!("no reply: {self:?}");
        };
        assert_eq!(transport_checksum_ok(&packet), Some(true));
        let at = if packet[0] >> 4 == 4 { 20 } else { 40 };
        (why, packet[at], packet[at + 1])
    }
}

/// An engine with a clock.
struct Nat {
    engine: Engine,
    now: Instant,
}

impl Nat {
    fn new(config: Config) -> Self {
        #[expect(clippy::disallowed_methods, reason = "virtual time needs an origin")]
        let now = Instant::now();
        let engine = Engine::new(config, [7; 16], now).unwrap();
        Self { engine, now }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.engine.handle_timeout(self.now);
    }

    fn send(&mut self, packet: &[u8]) -> Fate {
        let mut buf = PacketBuf::new();
        buf.set(packet).unwrap();
        let verdict = if packet[0] >> 4 == 6 {
            self.engine.handle_v6(&mut buf, self.now)
        } else {
            self.engine.handle_v4(&mut buf, self.now)
        };
        match verdict {
            Verdict::Forward(mut pieces) => {
                let mut packets = Vec::new();
                while pieces.next(&mut buf) {
                    packets.push(buf.bytes().to_vec());
                }
                Fate::Forwarded(packets)
            }
            Verdict::Reply(why) => Fate::Replied(why, buf.bytes().to_vec()),
            Verdict::Drop(why) => Fate::Dropped(why),
        }
    }

    /// A UDP packet of a client; the source it leaves with.
    fn udp(&mut self, from: (Ipv6Addr, u16), to: (Ipv4Addr, u16)) -> (Ipv4Addr, u16) {
        let packet = self.send(&udp6(from, to, b"data")).packet();
        let header = Ipv4::new_checked(&packet).unwrap();
        assert_eq!(transport_checksum_ok(&packet), Some(true));
        let (src, dst) = transport::ports(header.payload()).unwrap();
        assert_eq!((header.dst(), dst), to);
        (header.src(), src)
    }

    fn sessions(&self) -> usize {
        self.engine.table_sizes().1
    }

    fn bindings(&self) -> usize {
        self.engine.table_sizes().0
    }
}

fn udp6(from: (Ipv6Addr, u16), to: (Ipv4Addr, u16), data: &[u8]) -> Vec<u8> {
    let dst = prefix().embed(to.0);
    let datagram = compose::udp(Pair::V6(from.0, dst), from.1, to.1, data);
    V6::new(from.0, dst, 17).carrying(&datagram)
}

fn udp4(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), data: &[u8]) -> Vec<u8> {
    let datagram = compose::udp(Pair::V4(from.0, to.0), from.1, to.1, data);
    V4::new(from.0, to.0, 17).carrying(&datagram)
}

fn tcp6(from: (Ipv6Addr, u16), to: (Ipv4Addr, u16), flags: u8) -> Vec<u8> {
    let dst = prefix().embed(to.0);
    let segment = compose::tcp(Pair::V6(from.0, dst), (from.1, to.1), flags, &[], b"");
    V6::new(from.0, dst, 6).carrying(&segment)
}

fn tcp4(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), flags: u8) -> Vec<u8> {
    let segment = compose::tcp(Pair::V4(from.0, to.0), (from.1, to.1), flags, &[], b"");
    V4::new(from.0, to.0, 6).carrying(&segment)
}

fn echo6(from: Ipv6Addr, kind: u8, id: u16, to: Ipv4Addr) -> Vec<u8> {
    let dst = prefix().embed(to);
    let [a, b] = id.to_be_bytes();
    let message = compose::icmp6(from, dst, kind, 0, [a, b, 0, 1], b"ping");
    V6::new(from, dst, 58).carrying(&message)
}

fn echo4(from: Ipv4Addr, kind: u8, id: u16, to: Ipv4Addr) -> Vec<u8> {
    let [a, b] = id.to_be_bytes();
    let message = compose::icmp4(kind, 0, [a, b, 0, 1], b"ping");
    V4::new(from, to, 1).carrying(&message)
}

fn dropped(reason: DropReason) -> Fate {
    Fate::Dropped(Why::State(reason))
}

#[test]
fn plat_3_01_a_nat64_needs_a_prefix_and_a_pool() {
    let refused = |change: fn(&mut Config)| {
        let mut config = config();
        change(&mut config);
        config.check().unwrap_err()
    };
    assert_eq!(refused(|it| it.prefixes.clear()), ConfigError::NoPrefix);
    assert_eq!(refused(|it| it.pool.clear()), ConfigError::NoPool);
    assert_eq!(
        refused(|it| it.pool.push(it.pool[0])),
        ConfigError::PoolTwice(POOL)
    );
    assert!(matches!(
        refused(|it| it.prefixes.push("2001:db8::/32".parse().unwrap())),
        ConfigError::OverlappingPrefixes(..)
    ));
}

#[test]
fn plat_3_5_1_01_timers_have_least_values() {
    let shorter: [fn(&mut Timers); 5] = [
        |it| it.udp = Duration::from_secs(119),
        |it| it.icmp = Duration::from_secs(59),
        |it| it.tcp_established = Duration::from_secs(7199),
        |it| it.tcp_transitory = Duration::from_secs(239),
        |it| it.fragment = Duration::from_millis(1999),
    ];
    for change in shorter {
        let mut config = config();
        change(&mut config.timers);
        assert!(matches!(
            config.check(),
            Err(ConfigError::TimerTooShort { .. })
        ));
    }
    let mut config = config();
    config.timers.udp = Duration::from_secs(120);
    assert_eq!(config.check(), Ok(()));
}

#[test]
fn plat_3_5_1_01_a_udp_packet_makes_a_session_and_refreshes_it() {
    let mut nat = Nat::new(config());
    let seen = nat.udp((CLIENT, 5000), (SERVER, 53));
    assert_eq!(seen, (POOL, 5000));
    assert_eq!((nat.bindings(), nat.sessions()), (1, 1));

    let answer = nat.send(&udp4((SERVER, 53), seen, b"answer")).packet();
    let wanted = compose::udp(
        Pair::V6(prefix().embed(SERVER), CLIENT),
        53,
        5000,
        b"answer",
    );
    assert_eq!(answer[40..], wanted);

    // 300 seconds after the last packet of either side, and not before.
    nat.wait(299);
    nat.udp((CLIENT, 5000), (SERVER, 53));
    nat.wait(299);
    assert!(matches!(
        nat.send(&udp4((SERVER, 53), seen, b"x")),
        Fate::Forwarded(_)
    ));
    nat.wait(299);
    assert_eq!(nat.sessions(), 1);
    nat.wait(2);
    assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
    assert_eq!(
        nat.send(&udp4((SERVER, 53), seen, b"late")),
        dropped(DropReason::NoBinding)
    );
}

#[test]
fn plat_3_5_1_02_without_filtering_any_server_may_answer() {
    let mut nat = Nat::new(config());
    let seen = nat.udp((CLIENT, 5000), (SERVER, 53));
    let packet = nat.send(&udp4((SERVER2, 999), seen, b"hi")).packet();
    let header = Ipv6::new_checked(&packet).unwrap();
    assert_eq!(
        (header.src(), header.dst()),
        (prefix().embed(SERVER2), CLIENT)
    );
    assert_eq!((nat.bindings(), nat.sessions()), (1, 2));
    assert_eq!(
        nat.send(&udp4((SERVER, 53), (POOL, 5001), b"x")),
        dropped(DropReason::NoBinding)
    );
}

#[test]
fn plat_5_2_01_the_mapping_does_not_depend_on_the_server() {
    let mut nat = Nat::new(config());
    let seen: HashSet<_> = [(SERVER, 53), (SERVER, 54), (SERVER2, 53)]
        .map(|server| nat.udp((CLIENT, 5000), server))
        .into();
    assert_eq!(seen.len(), 1);
    assert_eq!((nat.bindings(), nat.sessions()), (1, 3));
    assert_ne!(nat.udp((OTHER, 5000), (SERVER, 53)), (POOL, 5000));
}

#[test]
fn plat_3_1_01_a_binding_ends_with_its_last_session() {
    let mut nat = Nat::new(config());
    nat.udp((CLIENT, 5000), (SERVER, 53));
    nat.wait(100);
    nat.udp((CLIENT, 5000), (SERVER2, 53));
    nat.wait(202);
    assert_eq!((nat.bindings(), nat.sessions()), (1, 1));
    nat.wait(100);
    assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
    assert_eq!(nat.engine.free_ports(Protocol::Udp), 65_535);
}

#[test]
fn plat_3_5_1_1_01_a_client_keeps_its_pool_address() {
    let mut config = config();
    let ports = PortRange::new(2000, 2099).unwrap();
    config.pool = [POOL, POOL2]
        .map(|address| PoolEntry { address, ports })
        .to_vec();
    let mut nat = Nat::new(config);
    for n in 0..10u16 {
        let client = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, n);
        let addresses: HashSet<_> = (0..8)
            .map(|port| nat.udp((client, 3000 + port), (SERVER, 53)).0)
            .collect();
        assert_eq!(addresses.len(), 1, "client {n}");
        nat.send(&tcp6((client, 9), (SERVER, 80), SYN)).packet();
    }
    let used: HashSet<_> = nat.engine.bindings().map(|it| it.outside.address).collect();
    assert_eq!(used.len(), 2, "clients spread over the pool");
}

#[test]
fn plat_3_5_1_1_01_a_full_pool_refuses_new_bindings_and_keeps_the_old() {
    let mut config = config();
    config.pool[0].ports = PortRange::new(2000, 2003).unwrap();
    let mut nat = Nat::new(config);
    let seen: Vec<_> = (0..4)
        .map(|port| nat.udp((CLIENT, 3000 + port), (SERVER, 53)))
        .collect();
    let (why, kind, code) = nat.send(&udp6((CLIENT, 4000), (SERVER, 53), b"x")).reply();
    assert_eq!(why, Why::State(DropReason::PoolExhausted));
    assert_eq!((kind, code), (1, 3));
    for seen in seen {
        assert!(matches!(
            nat.send(&udp4((SERVER, 53), seen, b"x")),
            Fate::Forwarded(_)
        ));
    }
    // Other protocols have their own ports.
    nat.send(&tcp6((CLIENT, 4000), (SERVER, 80), SYN)).packet();
}

#[test]
fn plat_5_3_01_bindings_and_sessions_are_limited() {
    let limited = |bindings, sessions| {
        let mut config = config();
        config.limits = Limits {
            bindings,
            sessions,
            ..Limits::default()
        };
        Nat::new(config)
    };
    let mut nat = limited(2, 10);
    nat.udp((CLIENT, 1), (SERVER, 53));
    nat.udp((CLIENT, 2), (SERVER, 53));
    let (why, kind, code) = nat.send(&udp6((CLIENT, 3), (SERVER, 53), b"x")).reply();
    assert_eq!(why, Why::State(DropReason::TooManyBindings));
    assert_eq!((kind, code), (1, 3));
    nat.udp((CLIENT, 2), (SERVER2, 53));

    let mut nat = limited(10, 2);
    let seen = nat.udp((CLIENT, 1), (SERVER, 53));
    nat.udp((CLIENT, 1), (SERVER, 54));
    let (why, kind, code) = nat.send(&udp6((CLIENT, 1), (SERVER, 55), b"x")).reply();
    assert_eq!(why, Why::State(DropReason::TooManySessions));
    assert_eq!((kind, code), (1, 3));
    // From outside nobody is told.
    assert_eq!(
        nat.send(&udp4((SERVER2, 9), seen, b"x")),
        dropped(DropReason::TooManySessions)
    );
    // And nothing is left behind by what was refused.
    assert_eq!((nat.bindings(), nat.sessions()), (1, 2));
}

#[test]
fn plat_3_5_01_the_loop_guard() {
    let mut nat = Nat::new(config());
    let looping = prefix().embed(SERVER2);
    assert_eq!(
        nat.send(&udp6((looping, 1), (SERVER, 53), b"x")),
        dropped(DropReason::LoopGuard)
    );
    let mut expiring = udp6((looping, 1), (SERVER, 53), b"x");
    expiring[7] = 1;
    assert_eq!(nat.send(&expiring), dropped(DropReason::LoopGuard));
    assert_eq!(nat.sessions(), 0);
}

#[test]
fn plat_3_5_01_only_the_prefix_and_the_pool_are_ours() {
    let mut nat = Nat::new(config());
    let datagram = compose::udp(Pair::V6(CLIENT, OTHER), 1, 2, b"x");
    let packet = V6::new(CLIENT, OTHER, 17).carrying(&datagram);
    assert_eq!(nat.send(&packet), dropped(DropReason::NotInPrefix));
    assert_eq!(
        nat.send(&udp4((SERVER, 53), (POOL2, 5000), b"x")),
        dropped(DropReason::NotInPool)
    );
}

#[test]
fn special_destinations_are_refused_unless_allowed() {
    let mut config = config();
    config.allow_destinations = vec!["198.51.100.0/24".parse().unwrap()];
    config.own_addresses = vec![SERVER2];
    let mut nat = Nat::new(config);
    nat.udp((CLIENT, 1), (Ipv4Addr::new(198, 51, 100, 10), 53));
    for refused in [
        [10, 0, 0, 1],
        [127, 0, 0, 1],
        [169, 254, 169, 254],
        [9, 9, 9, 9],
    ] {
        let packet = udp6((CLIENT, 2), (refused.into(), 53), b"x");
        let (why, kind, code) = nat.send(&packet).reply();
        assert_eq!(why, Why::State(DropReason::DestinationRefused));
        assert_eq!((kind, code), (1, 1));
    }
    assert_eq!(nat.bindings(), 1);
}

#[test]
fn addr_3_1_01_the_plat_drops_non_global_addresses_under_the_well_known_prefix() {
    let private = Ipv4Addr::new(10, 0, 0, 1);
    let well_known = Pref64::WELL_KNOWN;
    let mut config = Config::new(well_known, &[POOL], OWN6);
    config.allow_destinations = vec!["10.0.0.0/8".parse().unwrap()];
    let to = |address| {
        let dst = well_known.embed(address);
        let datagram = compose::udp(Pair::V6(CLIENT, dst), 5000, 53, b"x");
        V6::new(CLIENT, dst, 17).carrying(&datagram)
    };
    let mut nat = Nat::new(config.clone());
    let (why, kind, code) = nat.send(&to(private)).reply();
    assert_eq!(why, Why::State(DropReason::NonGlobalUnderWellKnownPrefix));
    assert_eq!((kind, code), (1, 1));
    // From outside neither, although the pool's own address is non-global too.
    nat.send(&to(SERVER)).packet();
    assert_eq!(
        nat.send(&udp4((private, 53), (POOL, 5000), b"x")),
        dropped(DropReason::NonGlobalUnderWellKnownPrefix)
    );
    config.wkp_non_global = NonGlobal::Translate;
    let mut nat = Nat::new(config);
    nat.send(&to(private)).packet();
    nat.send(&udp4((private, 53), (POOL, 5000), b"x")).packet();
}

#[test]
fn plat_3_4_04_other_protocols_are_refused_by_name() {
    let mut nat = Nat::new(config());
    let packet = V6::new(CLIENT, prefix().embed(SERVER), 132).carrying(&[0; 20]);
    let (why, kind, code) = nat.send(&packet).reply();
    assert_eq!(why, Why::State(DropReason::UnsupportedProtocol));
    assert_eq!((kind, code), (1, 4));
    let packet = V4::new(SERVER, POOL, 47).carrying(&[0; 20]);
    let (why, kind, code) = nat.send(&packet).reply();
    assert_eq!(why, Why::State(DropReason::UnsupportedProtocol));
    assert_eq!((kind, code), (3, 2));
}

#[test]
fn plat_3_5_3_01_echoes_share_identifiers() {
    let mut nat = Nat::new(config());
    let mut seen = HashSet::new();
    for client in [CLIENT, OTHER] {
        let packet = nat.send(&echo6(client, 128, 77, SERVER)).packet();
        assert_eq!(packet[20..22], [8, 0]);
        let id = u16::from_be_bytes([packet[24], packet[25]]);
        assert!(seen.insert(id));
        let answer = nat.send(&echo4(SERVER, 0, id, POOL)).packet();
        assert_eq!(transport_checksum_ok(&answer), Some(true));
        assert_eq!(answer[24..40], client.octets());
        assert_eq!((answer[40], &answer[44..46]), (129, &[0, 77][..]));
    }
    assert!(seen.contains(&77));
    // One session per server, whatever the identifier on the wire.
    assert_eq!((nat.bindings(), nat.sessions()), (2, 2));
    assert_eq!(
        nat.send(&echo4(SERVER, 8, 9, POOL)),
        dropped(DropReason::NoBinding)
    );
    nat.wait(59);
    assert_eq!(nat.sessions(), 2);
    nat.wait(3);
    assert_eq!(nat.sessions(), 0);
    let other = compose::icmp6(CLIENT, prefix().embed(SERVER), 135, 0, [0; 4], &[0; 16]);
    let packet = V6::new(CLIENT, prefix().embed(SERVER), 58).carrying(&other);
    let why = Why::Translation(xlat::DropReason::UntranslatableIcmp);
    assert_eq!(nat.send(&packet), Fate::Dropped(why));
}

/// A TCP connection from SYN to FIN, with the lifetimes of RFC 6146 §4.
#[test]
fn plat_3_5_2_01_a_connection_from_syn_to_fin() {
    let mut nat = Nat::new(config());
    let (client, server) = ((CLIENT, 40_000), (SERVER, 443));
    let outside = (POOL, 40_000);
    assert_eq!(
        nat.send(&tcp6(client, server, ACK)),
        dropped(DropReason::NotSyn)
    );
    assert_eq!(
        nat.send(&tcp4(server, outside, SYN)),
        dropped(DropReason::NoBinding)
    );
    // Half open: four minutes.
    nat.send(&tcp6(client, server, SYN)).packet();
    nat.wait(239);
    assert_eq!(nat.sessions(), 1);
    nat.wait(3);
    assert_eq!(nat.sessions(), 0);

    // Established: two hours of silence, then four minutes more.
    nat.send(&tcp6(client, server, SYN)).packet();
    nat.send(&tcp4(server, outside, SYN | ACK)).packet();
    nat.send(&tcp6(client, server, ACK)).packet();
    nat.wait(7199);
    nat.send(&tcp6(client, server, ACK)).packet();
    nat.wait(7203);
    assert_eq!(nat.sessions(), 1);
    nat.send(&tcp4(server, outside, ACK)).packet();
    nat.wait(7199);
    assert_eq!(nat.sessions(), 1, "data ended the last four minutes");

    // Closed by both sides: four minutes, whatever follows.
    nat.send(&tcp6(client, server, FIN)).packet();
    nat.send(&tcp4(server, outside, FIN)).packet();
    nat.wait(200);
    nat.send(&tcp6(client, server, ACK)).packet();
    nat.wait(43);
    assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
}

#[test]
fn plat_3_5_2_01_a_reset_ends_a_connection_in_four_minutes_unless_data_follow() {
    let mut nat = Nat::new(config());
    let (client, server, outside) = ((CLIENT, 40_000), (SERVER, 443), (POOL, 40_000));
    let open = |nat: &mut Nat| {
        nat.send(&tcp6(client, server, SYN)).packet();
        nat.send(&tcp4(server, outside, SYN | ACK)).packet();
    };
    open(&mut nat);
    nat.send(&tcp4(server, outside, RST)).packet();
    nat.wait(200);
    nat.send(&tcp6(client, server, ACK)).packet();
    nat.wait(300);
    assert_eq!(nat.sessions(), 1);
    nat.send(&tcp4(server, outside, RST)).packet();
    nat.wait(243);
    assert_eq!(nat.sessions(), 0);
}

/// PLAT-3.5.2-03: the text of the RFC would leave a reset connection two hours after a FIN.
#[test]
fn plat_3_5_2_03_a_reset_after_a_fin_shortens_the_wait() {
    let mut nat = Nat::new(config());
    let (client, server, outside) = ((CLIENT, 40_000), (SERVER, 443), (POOL, 40_000));
    nat.send(&tcp6(client, server, SYN)).packet();
    nat.send(&tcp4(server, outside, SYN | ACK)).packet();
    nat.send(&tcp6(client, server, FIN)).packet();
    nat.send(&tcp4(server, outside, RST)).packet();
    nat.wait(243);
    assert_eq!(nat.sessions(), 0);
}

/// With a binding, packets of unknown connections pass and leave no state.
#[test]
fn plat_3_5_2_01_other_packets_pass_with_a_binding_and_leave_no_state() {
    let mut nat = Nat::new(config());
    nat.send(&tcp6((CLIENT, 40_000), (SERVER, 443), SYN))
        .packet();
    nat.send(&tcp6((CLIENT, 40_000), (SERVER2, 443), ACK))
        .packet();
    nat.send(&tcp4((SERVER2, 443), (POOL, 40_000), ACK))
        .packet();
    assert_eq!(nat.sessions(), 1);
    // A SYN from outside opens a session, since there is no filtering.
    nat.send(&tcp4((SERVER2, 443), (POOL, 40_000), SYN))
        .packet();
    assert_eq!(nat.sessions(), 2);
    nat.send(&tcp6((CLIENT, 40_000), (SERVER2, 443), SYN | ACK))
        .packet();
    nat.wait(300);
    assert_eq!(nat.sessions(), 1, "the one that both sides opened");
}

fn error6(from: Ipv6Addr, quoted: &[u8], kind: u8, code: u8, rest: [u8; 4]) -> Vec<u8> {
    let quoted = &quoted[..quoted.len().min(1232)];
    let dst = Ipv6Addr::from(*quoted[8..].first_chunk::<16>().unwrap());
    let message = compose::icmp6(from, dst, kind, code, rest, quoted);
    V6::new(from, dst, 58).carrying(&message)
}

fn error4(from: Ipv4Addr, quoted: &[u8], kind: u8, code: u8) -> Vec<u8> {
    let dst = Ipv4Addr::from(*quoted[12..].first_chunk::<4>().unwrap());
    V4::new(from, dst, 1).carrying(&compose::icmp4(kind, code, [0; 4], quoted))
}

/// PLAT-3.6-02: the client sees the router that complains.
#[test]
fn plat_3_6_02_errors_reach_the_client_from_the_router_they_come_from() {
    let mut nat = Nat::new(config());
    let sent = nat
        .send(&udp6((CLIENT, 5000), (SERVER, 33434), b"trace"))
        .packet();
    for (from, kind, code) in [(ROUTER4, 11, 0), (SERVER, 3, 3)] {
        let packet = nat.send(&error4(from, &sent, kind, code)).packet();
        assert_eq!(transport_checksum_ok(&packet), Some(true));
        let header = Ipv6::new_checked(&packet).unwrap();
        assert_eq!((header.src(), header.dst()), (prefix().embed(from), CLIENT));
        // The quote is the client's own packet again, but for what routers changed.
        let mut original = udp6((CLIENT, 5000), (SERVER, 33434), b"trace");
        original[7] = 63;
        assert_eq!(packet[48..], original);
    }
}

#[test]
fn plat_3_6_02_under_the_well_known_prefix_a_private_router_speaks_as_the_plat() {
    let mut config = Config::new(Pref64::WELL_KNOWN, &[POOL], OWN6);
    config.errors = xlat::config::ErrorPolicy::Send;
    let mut nat = Nat::new(config);
    let dst = Pref64::WELL_KNOWN.embed(SERVER);
    let datagram = compose::udp(Pair::V6(CLIENT, dst), 5000, 53, b"x");
    let sent = nat
        .send(&V6::new(CLIENT, dst, 17).carrying(&datagram))
        .packet();
    for (router, wanted) in [
        (Ipv4Addr::new(10, 0, 0, 1), OWN6),
        (ROUTER4, Pref64::WELL_KNOWN.embed(ROUTER4)),
    ] {
        let packet = nat.send(&error4(router, &sent, 3, 4)).packet();
        assert_eq!(Ipv6::new_checked(&packet).unwrap().src(), wanted);
        assert_eq!(packet[40], 2, "path MTU discovery survives");
    }
}

/// RFC 5508 REQ-5: to the server, everything behind the NAT64 is the pool address.
#[test]
fn plat_3_6_02_errors_reach_the_server_from_the_pool() {
    let mut nat = Nat::new(config());
    let seen = nat.udp((CLIENT, 5000), (SERVER, 53));
    let answer = nat.send(&udp4((SERVER, 53), seen, b"answer")).packet();
    for from in [CLIENT, ROUTER6] {
        let packet = nat.send(&error6(from, &answer, 1, 4, [0; 4])).packet();
        assert_eq!(transport_checksum_ok(&packet), Some(true));
        let header = Ipv4::new_checked(&packet).unwrap();
        assert_eq!((header.src(), header.dst()), (POOL, SERVER));
        let inner = Ipv4::new_embedded(&packet[28..]).unwrap();
        assert_eq!((inner.src(), inner.dst()), (SERVER, POOL));
        assert_eq!(transport::ports(inner.payload()), Some((53, 5000)));
    }
}

#[test]
fn plat_3_4_01_errors_make_refresh_and_end_nothing() {
    let mut nat = Nat::new(config());
    let (client, server, outside) = ((CLIENT, 40_000), (SERVER, 443), (POOL, 40_000));
    let syn = nat.send(&tcp6(client, server, SYN)).packet();
    let answer = nat.send(&tcp4(server, outside, SYN | ACK)).packet();
    let data = nat.udp((CLIENT, 5000), (SERVER, 53));
    // Errors of every kind, late enough that a refresh would show.
    nat.wait(250);
    for (kind, code) in [(3, 1), (3, 3), (3, 13), (11, 0)] {
        nat.send(&error4(ROUTER4, &syn, kind, code)).packet();
    }
    for (kind, code) in [(1, 0), (1, 4), (3, 0)] {
        nat.send(&error6(ROUTER6, &answer, kind, code, [0; 4]))
            .packet();
    }
    assert_eq!(nat.sessions(), 2);
    nat.wait(52);
    assert_eq!(nat.sessions(), 1, "UDP ended in its time");
    nat.wait(7199 - 302);
    assert_eq!(nat.sessions(), 1, "TCP was not ended");

    // Nothing is made: errors about packets that nobody sent.
    let nobody = udp4((POOL, 9), (SERVER, 9), b"x");
    assert_eq!(
        nat.send(&error4(ROUTER4, &nobody, 3, 3)),
        dropped(DropReason::NoSession)
    );
    let late = udp4(data, (SERVER, 53), b"x");
    assert_eq!(
        nat.send(&error4(ROUTER4, &late, 3, 3)),
        dropped(DropReason::NoSession)
    );
    let nobody = V6::new(prefix().embed(SERVER), CLIENT, 17).carrying(&[0; 8]);
    let packet = V6::new(ROUTER6, prefix().embed(SERVER), 58).carrying(&compose::icmp6(
        ROUTER6,
        prefix().embed(SERVER),
        1,
        4,
        [0; 4],
        &nobody,
    ));
    assert_eq!(nat.send(&packet), dropped(DropReason::NoSession));
}

#[test]
fn plat_3_4_01_unreadable_errors_are_dropped_in_silence() {
    let mut nat = Nat::new(config());
    let sent = nat.send(&udp6((CLIENT, 5000), (SERVER, 53), b"x")).packet();
    let unreadable = dropped(DropReason::UnreadableError);
    let about_error = error4(SERVER, &sent, 3, 3);
    let quoting_error = V4::new(POOL, SERVER, 1).carrying(&about_error[20..]);
    let mut later = V4::new(POOL, SERVER, 17);
    later.offset = 100;
    for quoted in [
        sent[..22].to_vec(),
        sent[..19].to_vec(),
        quoting_error,
        later.carrying(&[0; 16]),
        V4::new(POOL, SERVER, 47).carrying(&[0; 16]),
    ] {
        let message = compose::icmp4(3, 3, [0; 4], &quoted);
        let packet = V4::new(ROUTER4, POOL, 1).carrying(&message);
        assert_eq!(nat.send(&packet), unreadable);
    }
    let dst = prefix().embed(SERVER);
    for quoted in [
        vec![0x60; 39],
        V6::new(dst, CLIENT, 17).carrying(&[0; 3]),
        V6::new(dst, CLIENT, 58).carrying(&[1, 4, 0, 0, 0, 0, 0, 0]),
        V6::new(dst, CLIENT, 44).carrying(&compose::fragment(17, 9, true, 1, &[0; 8])),
    ] {
        let message = compose::icmp6(CLIENT, dst, 1, 4, [0; 4], &quoted);
        let packet = V6::new(CLIENT, dst, 58).carrying(&message);
        assert_eq!(nat.send(&packet), unreadable);
    }
}

#[test]
fn plat_3_6_01_only_the_clients_end_is_translated_by_the_table() {
    let mut nat = Nat::new(config());
    // The server's address is a pool address: it is still algorithmic.
    let packet = nat.send(&udp6((CLIENT, 5000), (SERVER, 53), b"x")).packet();
    let header = Ipv4::new_checked(&packet).unwrap();
    assert_eq!((header.src(), header.dst()), (POOL, SERVER));
    let answer = nat.send(&udp4((POOL, 6000), (POOL, 5000), b"x")).packet();
    let header = Ipv6::new_checked(&answer).unwrap();
    assert_eq!((header.src(), header.dst()), (prefix().embed(POOL), CLIENT));
}

/// What cannot pass makes no state.
#[test]
fn packets_that_cannot_pass_make_no_state() {
    let mut nat = Nat::new(config());
    let mut expiring = udp6((CLIENT, 1), (SERVER, 53), b"x");
    expiring[7] = 1;
    let (why, kind, code) = nat.send(&expiring).reply();
    assert_eq!(why, Why::Translation(xlat::DropReason::HopLimitExceeded));
    assert_eq!((kind, code), (3, 0));
    let truncated = V6::new(CLIENT, prefix().embed(SERVER), 17).carrying(&[0; 7]);
    assert_eq!(nat.send(&truncated), dropped(DropReason::Truncated));
    let truncated = V6::new(CLIENT, prefix().embed(SERVER), 6).carrying(&[0; 19]);
    assert_eq!(nat.send(&truncated), dropped(DropReason::Truncated));
    assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
}

fn in_fragments6(packet: &[u8], id: u32) -> Vec<Vec<u8>> {
    let header = Ipv6::new_checked(packet).unwrap();
    let (src, dst) = (header.src(), header.dst());
    let chunks: Vec<_> = packet[40..].chunks(1232).collect();
    let fragment = |(i, chunk): (usize, &&[u8])| {
        let more = i + 1 < chunks.len();
        let offset = (i * 1232 / 8) as u16;
        let payload = compose::fragment(header.next_header(), offset, more, id, chunk);
        V6::new(src, dst, 44).carrying(&payload)
    };
    chunks.iter().enumerate().map(fragment).collect()
}

#[test]
fn plat_3_4_02_fragments_are_translated_together_and_fragmented_again() {
    let data = vec![7; 8000];
    let mut nat = Nat::new(config());
    let mut parts = in_fragments6(&udp6((CLIENT, 5000), (SERVER, 53), &data), 0xcafe_beef);
    parts.reverse();
    let (last, before) = parts.split_last().unwrap();
    for part in before {
        assert_eq!(nat.send(part), Fate::Forwarded(vec![]));
    }
    let Fate::Forwarded(packets) = nat.send(last) else {
        panic!("not forwarded");
    };
    let mut joined = Vec::new();
    for packet in &packets {
        let header = Ipv4::new_checked(packet).unwrap();
        assert!(packet.len() <= 1500 && header.id() == 0xbeef && !header.dont_fragment());
        assert_eq!(usize::from(header.fragment().offset) * 8, joined.len());
        joined.extend_from_slice(header.payload());
    }
    assert_eq!(
        joined,
        compose::udp(Pair::V4(POOL, SERVER), 5000, 53, &data)
    );

    // And back: large echoes, whose checksums need the whole message.
    let mut echo = V4::new(SERVER, POOL, 17);
    echo.id = 77;
    let datagram = compose::udp(Pair::V4(SERVER, POOL), 53, 5000, &data);
    let chunks: Vec<_> = datagram.chunks(1480).collect();
    let mut fates = Vec::new();
    for (i, chunk) in chunks.iter().enumerate() {
        (echo.offset, echo.mf) = ((i * 1480 / 8) as u16, i + 1 < chunks.len());
        fates.push(nat.send(&echo.carrying(chunk)));
    }
    let Some(Fate::Forwarded(packets)) = fates.pop() else {
        panic!("not forwarded");
    };
    assert!(packets.len() > 5 && packets.iter().all(|packet| packet.len() <= 1280));
}

/// RFC 6146 §3.4: a missing checksum is computed, if need be over the whole of its fragments.
#[test]
fn plat_3_4_06_a_missing_udp_checksum_is_computed() {
    let mut nat = Nat::new(config());
    let seen = nat.udp((CLIENT, 5000), (SERVER, 53));
    for len in [10, 3000] {
        let data = vec![9; len];
        let mut datagram = compose::udp(Pair::V4(SERVER, seen.0), 53, seen.1, &data);
        datagram[6..8].fill(0);
        let chunks: Vec<_> = datagram.chunks(1480).collect();
        let mut header = V4::new(SERVER, seen.0, 17);
        header.id = len as u16;
        let mut last = None;
        for (i, chunk) in chunks.iter().enumerate() {
            (header.offset, header.mf) = ((i * 1480 / 8) as u16, i + 1 < chunks.len());
            last = Some(nat.send(&header.carrying(chunk)));
        }
        let Some(Fate::Forwarded(packets)) = last else {
            panic!("not forwarded");
        };
        let front = if packets.len() > 1 { 48 } else { 40 };
        let joined: Vec<u8> = packets.iter().flat_map(|it| it[front..].to_vec()).collect();
        let wanted = compose::udp(Pair::V6(prefix().embed(SERVER), CLIENT), 53, 5000, &data);
        assert_eq!(joined, wanted);
    }
}

#[test]
fn everything_is_counted() {
    let mut nat = Nat::new(config());
    nat.udp((CLIENT, 5000), (SERVER, 53));
    nat.send(&udp4((SERVER, 53), (POOL, 1), b"x"));
    nat.send(&V4::new(SERVER, POOL, 47).carrying(&[0; 20]));
    let parts = in_fragments6(&udp6((CLIENT, 1), (SERVER, 53), &[0; 2000]), 1);
    nat.send(&parts[0]);
    nat.wait(400);
    let stats = nat.engine.stats();
    assert_eq!(stats.from_v6.packets_in.get(), 2);
    assert_eq!(stats.from_v6.passed.get(), 2);
    let timed_out = xlat::DropReason::FragmentTimeout;
    let timeouts = stats.from_v6.dropped_by_translation.get(timed_out);
    assert_eq!(timeouts, 1);
    assert_eq!(stats.from_v4.packets_in.get(), 2);
    assert_eq!(stats.from_v4.dropped_by_state.total(), 2);
    assert_eq!(stats.from_v4.errors_sent.get(), 1);
    let udp = Protocol::Udp.index();
    assert_eq!(stats.tables.sessions_made[udp].get(), 1);
    assert_eq!(stats.tables.sessions_ended[udp].get(), 1);
    assert_eq!(stats.tables.bindings_ended[udp].get(), 1);
    assert_eq!(nat.engine.poll_timeout(), None);
}

/// A slow model of what an outside observer may rely on.
#[derive(Default)]
struct Model {
    /// What each client's port was last seen as.
    seen: std::collections::HashMap<(Ipv6Addr, u16), (Ipv4Addr, u16)>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// After any history: bindings are bijective, every binding has a session, ports come from the
    /// pool and return to it, and what went in came out or was counted as dropped.
    #[test]
    fn invariants(
        steps in proptest::collection::vec(
            (0u8..8, 0u16..4, 0u16..4, 0u8..3, prop::sample::select(vec![SYN, ACK, FIN, RST]), 0u64..400),
            1..150,
        ),
    ) {
        let mut config = config();
        config.pool[0].ports = PortRange::new(2000, 2009).unwrap();
        config.limits.sessions = 20;
        let mut nat = Nat::new(config);
        let mut model = Model::default();
        let mut sent = 0;
        for (what, client, port, server, flags, pause) in steps {
            let from = (Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, client), 2000 + port);
            let to = (Ipv4Addr::new(8, 8, 8, server), 53);
            let pool = (POOL, 2000 + port);
            sent += u64::from(what < 7);
            let fate = match what {
                0 | 1 => nat.send(&udp6(from, to, b"x")),
                2 => nat.send(&tcp6(from, to, flags)),
                3 => nat.send(&echo6(from.0, 128, from.1, to.0)),
                4 => nat.send(&udp4(to, pool, b"x")),
                5 => nat.send(&tcp4(to, pool, flags)),
                6 => nat.send(&echo4(to.0, 0, pool.1, POOL)),
                _ => {
                    nat.wait(pause);
                    model.seen.retain(|_, _| false);
                    continue;
                }
            };
            if let (0 | 1, Fate::Forwarded(packets)) = (what, &fate) {
                let ports = transport::ports(&packets[0][20..]).unwrap();
                let seen = *model.seen.entry(from).or_insert((POOL, ports.0));
                prop_assert_eq!(seen, (POOL, ports.0), "the mapping changed");
            }
            if let Fate::Forwarded(packets) = &fate {
                for packet in packets {
                    prop_assert_eq!(transport_checksum_ok(packet), Some(true));
                }
            }
            let bindings: Vec<_> = nat.engine.bindings().copied().collect();
            let inside: HashSet<_> = bindings.iter().map(|it| (it.protocol, it.inside)).collect();
            let outside: HashSet<_> = bindings.iter().map(|it| (it.protocol, it.outside)).collect();
            prop_assert_eq!(inside.len(), bindings.len());
            prop_assert_eq!(outside.len(), bindings.len());
            prop_assert!(bindings.iter().all(|it| it.sessions > 0));
            prop_assert!(bindings.iter().all(|it| (2000..2010).contains(&it.outside.id)));
            let sessions: u32 = bindings.iter().map(|it| it.sessions).sum();
            prop_assert_eq!(sessions as usize, nat.sessions());
            prop_assert!(nat.sessions() <= 20);
            for protocol in Protocol::ALL {
                let used = bindings.iter().filter(|it| it.protocol == protocol).count();
                prop_assert_eq!(nat.engine.free_ports(protocol), 10 - used);
            }
        }
        let stats = nat.engine.stats();
        let mut accounted = 0;
        for direction in [&stats.from_v6, &stats.from_v4] {
            accounted += direction.passed.get()
                + direction.dropped_by_state.total()
                + direction.dropped_by_translation.total();
        }
        prop_assert_eq!(accounted, sent);
        nat.wait(20_000);
        nat.wait(20_000);
        prop_assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
    }

    #[test]
    fn no_bytes_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        shape in 0u8..4,
        number in prop::sample::select(vec![1u8, 6, 17, 44, 58, 60]),
    ) {
        let len = bytes.len() as u16;
        if shape == 1 && bytes.len() >= 40 {
            bytes[0] = 0x60;
            bytes[4..6].copy_from_slice(&(len - 40).to_be_bytes());
            bytes[6..8].copy_from_slice(&[number, 64]);
            bytes[8..24].copy_from_slice(&CLIENT.octets());
            bytes[24..40].copy_from_slice(&prefix().embed(SERVER).octets());
        } else if shape == 2 && bytes.len() >= 20 {
            bytes[0] = 0x45;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            bytes[8..12].copy_from_slice(&[64, number, 0, 0]);
            bytes[12..16].copy_from_slice(&SERVER.octets());
            bytes[16..20].copy_from_slice(&POOL.octets());
            let sum = compose::checksum(&[&bytes[..20]]);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let mut nat = Nat::new(config());
        nat.udp((CLIENT, 5000), (SERVER, 53));
        if !bytes.is_empty() {
            nat.send(&bytes);
        }
    }
}
