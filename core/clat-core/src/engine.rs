//! The data path of a CLAT: [`Outbound`] takes the host's IPv4 packets, [`Inbound`] the network's
//! IPv6 packets. Each belongs to one thread; their counters can be read from any.

use core::net::Ipv6Addr;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pref64::{Pref64, siit::NonGlobal};
use wire::{
    counters::{Counter, ReasonCounters},
    ipv4::Ipv4,
    ipv6::Ipv6,
    packet::PacketBuf,
    pieces::Pieces,
    protocol,
    verdict::Verdict,
};
use xlat::{
    Config, DropReason, V4ToV6, V6ToV4,
    config::ErrorPolicy,
    key::Key,
    reassembly::{Limits, Outcome, Reassembly},
};

use crate::{
    flows::Flows,
    mapping::{ClatMapping, Instance},
};

/// Room that the IPv4 MTU leaves for a longer header and a Fragment Header (CLAT-M-01).
const MTU_ROOM: u16 = 28;

/// How long the fragments of an ICMP message are waited for.
const FRAGMENT_LIFETIME: Duration = Duration::from_secs(5);

/// Only ICMP is put together, and that is rarely fragmented.
const FRAGMENT_LIMITS: Limits = Limits {
    datagrams: 64,
    bytes: 1 << 20,
    datagrams_per_source: 16,
};

/// Everything the engine must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The host's pair of IPv4 addresses.
    pub instance: Instance,
    /// The CLAT's IPv6 address.
    pub clat: Ipv6Addr,
    /// The prefix for new flows.
    pub prefix: Pref64,
    /// Prefixes for the flows that began under them, at most [`MAX_RETAINED`](crate::flows::MAX_RETAINED).
    pub retained: Vec<Pref64>,
    /// Bytes per packet on the IPv6 link.
    pub ipv6_mtu: u16,
    /// The size up to which a packet that may be fragmented leaves whole
    /// ([`Config::lowest_ipv6_mtu`]).
    pub fragment_above: u16,
    /// Non-global IPv4 addresses under the well-known prefix.
    pub wkp_non_global: NonGlobal,
    /// ICMP errors for packets that are dropped.
    pub errors: ErrorPolicy,
}

impl Settings {
    /// The MTU of the virtual interface: the IPv6 link's, less 28, never under 1252.
    #[must_use]
    pub fn ipv4_mtu(&self) -> u16 {
        ipv4_mtu(self.ipv6_mtu)
    }

    fn mapping(&self) -> ClatMapping {
        ClatMapping {
            host: self.instance.host(),
            clat: self.clat,
            prefix: self.prefix,
            retained: self.retained.clone(),
            wkp_non_global: self.wkp_non_global,
        }
    }

    fn config(&self) -> Config {
        Config {
            ipv6_mtu: self.ipv6_mtu.max(wire::ipv6::MIN_MTU),
            ipv4_mtu: self.ipv4_mtu(),
            lowest_ipv6_mtu: self.fragment_above,
            errors: self.errors,
            ..Config::new(self.instance.translator(), self.clat)
        }
    }
}

/// See [`Settings::ipv4_mtu`].
#[must_use]
pub fn ipv4_mtu(ipv6_mtu: u16) -> u16 {
    ipv6_mtu.max(wire::ipv6::MIN_MTU) - MTU_ROOM
}

/// What one direction counted.
#[derive(Debug, Default)]
pub struct DirectionStats {
    /// Packets that came in.
    pub packets_in: Counter,
    /// Their bytes.
    pub bytes_in: Counter,
    /// Packets that were translated, or kept until the rest of their message comes.
    pub translated: Counter,
    /// Packets that were dropped, whether or not their sender was told.
    pub dropped: ReasonCounters<DropReason>,
    /// Dropped packets whose sender was told.
    pub errors_sent: Counter,
}

impl DirectionStats {
    fn came(&self, buf: &PacketBuf) {
        self.packets_in.add(1);
        self.bytes_in.add(buf.len() as u64);
    }

    fn went(&self, verdict: &Verdict<DropReason>) {
        match verdict {
            Verdict::Forward(_) => self.translated.add(1),
            Verdict::Reply(reason) => {
                self.dropped.count(*reason);
                self.errors_sent.add(1);
            }
            Verdict::Drop(reason) => self.dropped.count(*reason),
        }
    }
}

/// Puts fragmented ICMP together, which cannot be translated in pieces. Everything else passes
/// untouched: fragments of other protocols are translated one by one.
#[derive(Debug)]
struct IcmpFragments(Reassembly);

impl IcmpFragments {
    fn new(key: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&key.to_ne_bytes());
        Self(Reassembly::new(
            Key::new(bytes),
            FRAGMENT_LIFETIME,
            FRAGMENT_LIMITS,
        ))
    }

    /// A verdict, if the packet in `buf` is not to be translated now. A fragment that could not
    /// pass as a whole packet has its `veto` at once, so that its sender hears of it.
    fn hold(
        &mut self,
        buf: &mut PacketBuf,
        now: Instant,
        stats: &DirectionStats,
        veto: impl FnOnce(&mut PacketBuf) -> Option<Verdict<DropReason>>,
    ) -> Option<Verdict<DropReason>> {
        if !is_icmp_fragment(buf.bytes()) {
            return None;
        }
        if let Some(verdict) = veto(buf) {
            return Some(verdict);
        }
        self.0.expire(now, |_, reason| stats.dropped.count(reason));
        match self.0.take(buf, now) {
            Ok(Outcome::Whole) => None,
            Ok(Outcome::Kept) => Some(Verdict::Forward(Pieces::none())),
            Err(reason) => Some(Verdict::Drop(reason)),
        }
    }
}

fn is_icmp_fragment(bytes: &[u8]) -> bool {
    if let Ok(packet) = Ipv4::new_embedded(bytes) {
        return packet.protocol() == protocol::ICMP && packet.fragment().is_fragment();
    }
    let Ok(packet) = Ipv6::new_embedded(bytes) else {
        return false;
    };
    // Cheap for everything that has no extension header.
    packet.next_header() != protocol::ICMPV6
        && packet.upper().is_ok_and(|upper| {
            let is_fragment = upper.fragment.is_some_and(|it| it.fragment.is_fragment());
            is_fragment && upper.protocol == protocol::ICMPV6
        })
}

/// From the host to the network.
#[derive(Debug)]
pub struct Outbound {
    translator: V4ToV6,
    /// With the prefix of the packet at hand.
    mapping: ClatMapping,
    flows: Flows,
    icmp_fragments: IcmpFragments,
    stats: Arc<DirectionStats>,
}

impl Outbound {
    /// An engine half with `settings`. `key` should be random.
    #[must_use]
    pub fn new(settings: &Settings, key: u64) -> Self {
        Self {
            translator: V4ToV6::new(settings.config(), key),
            mapping: settings.mapping(),
            flows: Flows::new(settings.prefix, &settings.retained, key),
            icmp_fragments: IcmpFragments::new(key),
            stats: Arc::default(),
        }
    }

    /// Changes the settings between two packets.
    pub fn configure(&mut self, settings: &Settings) {
        self.translator.set_config(settings.config());
        self.mapping = settings.mapping();
        self.flows.set_prefixes(settings.prefix, &settings.retained);
    }

    /// What was counted.
    #[must_use]
    pub fn stats(&self) -> Arc<DirectionStats> {
        Arc::clone(&self.stats)
    }

    /// Takes an IPv4 packet of the host. A reply goes back to the host.
    pub fn handle_host(&mut self, buf: &mut PacketBuf, now: Instant) -> Verdict<DropReason> {
        self.stats.came(buf);
        let (translator, stats) = (&mut self.translator, &self.stats);
        let veto = |buf: &mut PacketBuf| translator.veto(buf, now);
        let held = self.icmp_fragments.hold(buf, now, stats, veto);
        let verdict = held.unwrap_or_else(|| {
            self.mapping.prefix = self.flows.prefix_of(buf.bytes(), now);
            self.translator.translate(buf, &self.mapping, now)
        });
        self.stats.went(&verdict);
        verdict
    }
}

/// From the network to the host.
#[derive(Debug)]
pub struct Inbound {
    translator: V6ToV4,
    mapping: ClatMapping,
    icmp_fragments: IcmpFragments,
    stats: Arc<DirectionStats>,
}

impl Inbound {
    /// An engine half with `settings`. `key` should be random.
    #[must_use]
    pub fn new(settings: &Settings, key: u64) -> Self {
        Self {
            translator: V6ToV4::new(Self::config(settings), key),
            mapping: settings.mapping(),
            icmp_fragments: IcmpFragments::new(key),
            stats: Arc::default(),
        }
    }

    /// The next IPv4 hop is the host itself, which takes packets of any size.
    fn config(settings: &Settings) -> Config {
        Config {
            ipv4_mtu: u16::MAX,
            ..settings.config()
        }
    }

    /// Changes the settings between two packets.
    pub fn configure(&mut self, settings: &Settings) {
        self.translator.set_config(Self::config(settings));
        self.mapping = settings.mapping();
    }

    /// What was counted.
    #[must_use]
    pub fn stats(&self) -> Arc<DirectionStats> {
        Arc::clone(&self.stats)
    }

    /// Takes an IPv6 packet of the network. A reply goes back to the network.
    pub fn handle_net(&mut self, buf: &mut PacketBuf, now: Instant) -> Verdict<DropReason> {
        self.stats.came(buf);
        let (translator, stats) = (&mut self.translator, &self.stats);
        let veto = |buf: &mut PacketBuf| translator.veto(buf, now);
        let held = self.icmp_fragments.hold(buf, now, stats, veto);
        let verdict = held.unwrap_or_else(|| self.translator.translate(buf, &self.mapping, now));
        self.stats.went(&verdict);
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use wire::compose::{self, Pair, V4, V6};

    const HOST4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);
    const CLAT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, 0x464);
    const PEER4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
    const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0xc633, 0x640a);
    const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, 1);

    fn settings() -> Settings {
        Settings {
            instance: Instance::FIRST,
            clat: CLAT,
            prefix: "2001:db8:64::/96".parse().unwrap(),
            retained: Vec::new(),
            ipv6_mtu: 1500,
            fragment_above: 1280,
            wkp_non_global: NonGlobal::Translate,
            errors: ErrorPolicy::Send,
        }
    }

    #[expect(clippy::disallowed_methods, reason = "virtual time needs an origin")]
    fn now() -> Instant {
        Instant::now()
    }

    fn loaded(packet: &[u8]) -> PacketBuf {
        let mut buf = PacketBuf::new();
        buf.set(packet).unwrap();
        buf
    }

    fn outgoing(ttl: u8) -> Vec<u8> {
        let mut header = V4::new(HOST4, PEER4, 17);
        header.ttl = ttl;
        header.carrying(&compose::udp(Pair::V4(HOST4, PEER4), 40000, 53, b"q"))
    }

    #[test]
    fn clat_m_01_the_mtu_of_the_virtual_interface() {
        for (ipv6, ipv4) in [
            (1500, 1472),
            (1280, 1252),
            (9000, 8972),
            (1000, 1252),
            (0, 1252),
        ] {
            let settings = Settings {
                ipv6_mtu: ipv6,
                ..settings()
            };
            assert_eq!(settings.ipv4_mtu(), ipv4);
        }
    }

    #[test]
    fn clat_m_04_the_translator_is_the_first_hop() {
        let mut outbound = Outbound::new(&settings(), 1);
        let mut buf = loaded(&outgoing(1));
        let verdict = outbound.handle_host(&mut buf, now());
        assert!(matches!(
            verdict,
            Verdict::Reply(DropReason::HopLimitExceeded)
        ));
        let reply = Ipv4::new_checked(buf.bytes()).unwrap();
        assert_eq!(reply.src(), Ipv4Addr::new(192, 0, 0, 2));
        assert_eq!(reply.payload()[..2], [11, 0]);
        let stats = outbound.stats();
        assert_eq!(stats.errors_sent.get(), 1);
        assert_eq!(stats.dropped.get(DropReason::HopLimitExceeded), 1);
        assert_eq!(stats.translated.get(), 0);
    }

    /// The translator is no router for others: their packets get no further, and nobody hears of
    /// those that must not leave a host.
    #[test]
    fn clat_m_03_only_the_hosts_packets_and_only_to_the_network() {
        let mut outbound = Outbound::new(&settings(), 1);
        let mut verdict = |src: Ipv4Addr, dst: Ipv4Addr| {
            let datagram = compose::udp(Pair::V4(src, dst), 40000, 53, b"q");
            let mut buf = loaded(&V4::new(src, dst, 17).carrying(&datagram));
            outbound.handle_host(&mut buf, now())
        };
        assert!(matches!(verdict(HOST4, PEER4), Verdict::Forward(_)));
        let other = Ipv4Addr::new(192, 0, 0, 3);
        assert!(!matches!(verdict(other, PEER4), Verdict::Forward(_)));
        let other = Ipv4Addr::new(172, 17, 0, 2);
        assert!(!matches!(verdict(other, PEER4), Verdict::Forward(_)));
        for special in [
            [127, 0, 0, 1],
            [169, 254, 169, 254],
            [192, 0, 0, 2],
            [224, 0, 0, 251],
            [255, 255, 255, 255],
        ] {
            let verdict = verdict(HOST4, special.into());
            assert!(matches!(verdict, Verdict::Drop(_)), "{special:?}");
        }
    }

    /// CLAT-M-02: strangers are not translated, but routers on the way are.
    #[test]
    fn clat_m_02_only_errors_come_from_outside_the_prefix() {
        let mut inbound = Inbound::new(&settings(), 1);
        let datagram = compose::udp(Pair::V6(ROUTER6, CLAT), 53, 40000, b"a");
        let mut buf = loaded(&V6::new(ROUTER6, CLAT, 17).carrying(&datagram));
        let verdict = inbound.handle_net(&mut buf, now());
        assert!(matches!(
            verdict,
            Verdict::Reply(DropReason::NoSourceMapping)
        ));

        let sent = compose::udp(Pair::V6(CLAT, PEER6), 40000, 53, b"q");
        let about_ours = V6::new(CLAT, PEER6, 17).carrying(&sent);
        let about_others = V6::new(CLAT, ROUTER6, 17).carrying(&sent);
        for (quote, passes) in [(about_ours, true), (about_others, false)] {
            let error = compose::icmp6(ROUTER6, CLAT, 3, 0, [0; 4], &quote);
            let mut buf = loaded(&V6::new(ROUTER6, CLAT, 58).carrying(&error));
            let verdict = inbound.handle_net(&mut buf, now());
            assert_eq!(matches!(verdict, Verdict::Forward(_)), passes);
            if passes {
                let packet = Ipv4::new_checked(buf.bytes()).unwrap();
                assert_eq!(packet.src(), xlat::config::DUMMY_ADDRESS);
            }
        }
    }

    /// A full-size IPv6 packet is larger than the virtual interface's MTU when it arrives. That
    /// MTU is for sending.
    #[test]
    fn packets_of_any_size_reach_the_host() {
        let mut inbound = Inbound::new(&settings(), 1);
        let datagram = compose::udp(Pair::V6(PEER6, CLAT), 53, 40000, &[7; 1452]);
        let mut buf = loaded(&V6::new(PEER6, CLAT, 17).carrying(&datagram));
        let verdict = inbound.handle_net(&mut buf, now());
        assert!(matches!(verdict, Verdict::Forward(_)));
        assert_eq!(buf.len(), 1480);
    }

    #[test]
    fn a_new_prefix_is_used_from_the_next_packet_on() {
        let mut outbound = Outbound::new(&settings(), 1);
        let changed = Settings {
            prefix: "64:ff9b::/96".parse().unwrap(),
            ..settings()
        };
        for (settings, wanted) in [
            (settings(), "2001:db8:64::198.51.100.10"),
            (changed, "64:ff9b::198.51.100.10"),
        ] {
            outbound.configure(&settings);
            let mut buf = loaded(&outgoing(64));
            let verdict = outbound.handle_host(&mut buf, now());
            assert!(matches!(verdict, Verdict::Forward(_)));
            let packet = Ipv6::new_checked(buf.bytes()).unwrap();
            assert_eq!(packet.dst(), wanted.parse::<Ipv6Addr>().unwrap());
        }
        assert_eq!(outbound.stats().translated.get(), 2);
    }

    /// While the old prefix holds, its flows are translated both ways with it.
    #[test]
    fn a_flow_stays_with_the_prefix_it_began_under() {
        let mut outbound = Outbound::new(&settings(), 1);
        let mut destination = |settings: &Settings, port: u16| {
            outbound.configure(settings);
            let datagram = compose::udp(Pair::V4(HOST4, PEER4), port, 53, b"payload");
            let mut buf = loaded(&V4::new(HOST4, PEER4, 17).carrying(&datagram));
            let verdict = outbound.handle_host(&mut buf, now());
            assert!(matches!(verdict, Verdict::Forward(_)));
            Ipv6::new_checked(buf.bytes()).unwrap().dst()
        };
        let changed = Settings {
            prefix: Pref64::WELL_KNOWN,
            retained: vec![settings().prefix],
            ..settings()
        };
        let over = Settings {
            retained: vec![],
            ..changed.clone()
        };
        let new6 = Pref64::WELL_KNOWN.embed(PEER4);
        assert_eq!(destination(&settings(), 40000), PEER6);
        assert_eq!(destination(&changed, 40000), PEER6);
        assert_eq!(destination(&changed, 40001), new6);
        assert_eq!(destination(&over, 40000), new6);

        let mut inbound = Inbound::new(&settings(), 1);
        let mut arrives = |settings: &Settings, from: Ipv6Addr| {
            inbound.configure(settings);
            let datagram = compose::udp(Pair::V6(from, CLAT), 53, 40000, b"payload");
            let mut buf = loaded(&V6::new(from, CLAT, 17).carrying(&datagram));
            matches!(inbound.handle_net(&mut buf, now()), Verdict::Forward(_))
        };
        assert!(!arrives(&settings(), new6));
        assert!(arrives(&changed, new6));
        assert!(arrives(&changed, PEER6));
        assert!(!arrives(&over, PEER6));
    }

    /// XLAT-1.2-01 leaves fragmented ICMP untranslated; a CLAT puts it together first.
    #[test]
    fn xlat_1_2_01_fragmented_icmp_is_put_together() {
        let data: Vec<u8> = (0..3000u32).map(|n| n as u8).collect();
        let echo = compose::icmp4(8, 0, [0x46, 0x40, 0, 1], &data);
        let mut outbound = Outbound::new(&settings(), 1);
        let mut sent = Vec::new();
        for (i, chunk) in echo.chunks(1448).enumerate() {
            let mut header = V4::new(HOST4, PEER4, 1);
            (header.offset, header.mf) = ((i * 1448 / 8) as u16, (i + 1) * 1448 < echo.len());
            let mut buf = loaded(&header.carrying(chunk));
            let Verdict::Forward(mut pieces) = outbound.handle_host(&mut buf, now()) else {
                panic!("not forwarded");
            };
            while pieces.next(&mut buf) {
                sent.push(buf.bytes().to_vec());
            }
        }
        let joined: Vec<u8> = sent.iter().flat_map(|it| it[48..].to_vec()).collect();
        let wanted = compose::icmp6(CLAT, PEER6, 128, 0, [0x46, 0x40, 0, 1], &data);
        assert_eq!(joined, wanted);

        // The answer in fragments too, the last one first.
        let answer = compose::icmp6(PEER6, CLAT, 129, 0, [0x46, 0x40, 0, 1], &data);
        let mut inbound = Inbound::new(&settings(), 1);
        let chunks: Vec<_> = answer.chunks(1232).enumerate().collect();
        let mut received = Vec::new();
        for (i, chunk) in chunks.iter().rev() {
            let more = i + 1 < chunks.len();
            let payload = compose::fragment(58, (i * 1232 / 8) as u16, more, 9, chunk);
            let mut buf = loaded(&V6::new(PEER6, CLAT, 44).carrying(&payload));
            let Verdict::Forward(mut pieces) = inbound.handle_net(&mut buf, now()) else {
                panic!("not forwarded");
            };
            while pieces.next(&mut buf) {
                received.push(buf.bytes().to_vec());
            }
        }
        assert_eq!(received.len(), 1);
        let wanted = compose::icmp4(0, 0, [0x46, 0x40, 0, 1], &data);
        assert_eq!(received[0][20..], wanted);
        assert_eq!(inbound.stats().dropped.total(), 0);
    }

    /// A large traceroute by ICMP is told of its first hop, not left to time out.
    #[test]
    fn xlat_4_1_06_fragments_of_icmp_run_out_of_hops_too() {
        let echo = compose::icmp4(8, 0, [0x46, 0x40, 0, 1], &[7; 1600]);
        let mut header = V4::new(HOST4, PEER4, 1);
        (header.ttl, header.mf) = (1, true);
        let mut buf = loaded(&header.carrying(&echo[..1448]));
        let mut outbound = Outbound::new(&settings(), 1);
        let verdict = outbound.handle_host(&mut buf, now());
        let told = matches!(verdict, Verdict::Reply(DropReason::HopLimitExceeded));
        assert!(told, "{verdict:?}");
    }
}
