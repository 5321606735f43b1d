//! Ordinary input for every target: fuzzers start from it, and so do the mutations of the ordinary
//! test run.

use std::net::{Ipv4Addr, Ipv6Addr};

use wire::{
    compose::{self, Pair, V4, V6},
    ethernet::{Header, IPV6, Mac},
    ndp,
    offload::VIRTIO_NET_HEADER,
};

use crate::{
    input::Packet,
    neighbours::MAC,
    packets::{CLAT, HOST, POOL, SERVER, SERVER6},
};

const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const NO_OFFLOAD: [u8; VIRTIO_NET_HEADER] = [0; VIRTIO_NET_HEADER];
/// The bit of [`Packet::is_second_way`].
const SECOND_WAY: u8 = 0x80;

/// One of each kind of IPv4 packet.
fn v4_packets(src: Ipv4Addr, dst: Ipv4Addr) -> Vec<Vec<u8>> {
    let pair = Pair::V4(src, dst);
    let udp = compose::udp(pair, 1000, 53, &[1; 40]);
    let tcp = |flags, data: &[u8]| compose::tcp(pair, (1000, 80), flags, &[1, 1, 1, 0], data);
    let plain = |protocol| V4::new(src, dst, protocol);
    let mut without_checksum = udp.clone();
    without_checksum[6..8].fill(0);
    let (mut options, mut first, mut last) = (plain(17), plain(17), plain(17));
    options.options = vec![148, 4, 0, 0, 1, 1, 1, 0];
    (first.mf, first.id, last.offset, last.id) = (true, 7, 3, 7);
    let mut whole = plain(17);
    whole.df = true;
    let mut dying = plain(17);
    dying.ttl = 1;
    let quoted = V4::new(dst, src, 17).carrying(&compose::udp(Pair::V4(dst, src), 53, 1000, b"q"));
    let error = |kind, code, rest| compose::icmp4(kind, code, rest, &quoted);
    vec![
        plain(17).carrying(&udp),
        plain(17).carrying(&without_checksum),
        options.carrying(&udp),
        first.carrying(&udp[..24]),
        last.carrying(&udp[24..]),
        whole.carrying(&udp),
        dying.carrying(&udp),
        plain(17).carrying(&compose::udp(pair, 1000, 53, &[3; 1400])),
        plain(6).carrying(&tcp(2, b"")),
        plain(6).carrying(&tcp(0x18, b"hello")),
        plain(6).carrying(&tcp(0x11, b"")),
        plain(6).carrying(&tcp(4, b"")),
        plain(1).carrying(&compose::icmp4(8, 0, [0, 1, 0, 2], b"ping")),
        plain(1).carrying(&error(3, 4, [0, 0, 5, 0])),
        plain(1).carrying(&error(11, 0, [0; 4])),
        plain(1).carrying(&error(12, 0, [9, 0, 0, 0])),
        plain(47).carrying(&[5; 30]),
    ]
}

/// One of each kind of IPv6 packet.
fn v6_packets(src: Ipv6Addr, dst: Ipv6Addr) -> Vec<Vec<u8>> {
    let pair = Pair::V6(src, dst);
    let udp = compose::udp(pair, 1000, 53, &[1; 40]);
    let tcp = |flags, data: &[u8]| compose::tcp(pair, (1000, 80), flags, &[1, 1, 1, 0], data);
    let plain = |next| V6::new(src, dst, next);
    let part = |offset, more, data: &[u8]| {
        plain(44).carrying(&compose::fragment(17, offset, more, 7, data))
    };
    let mut dying = plain(17);
    dying.hop_limit = 1;
    let quoted = V6::new(dst, src, 17).carrying(&compose::udp(Pair::V6(dst, src), 53, 1000, b"q"));
    let icmp = |kind, code, rest, data: &[u8]| {
        plain(58).carrying(&compose::icmp6(src, dst, kind, code, rest, data))
    };
    let behind_options = [&[17, 0, 1, 4, 0, 0, 0, 0][..], &udp].concat();
    vec![
        plain(17).carrying(&udp),
        part(0, true, &udp[..24]),
        part(3, false, &udp[24..]),
        part(0, false, &udp),
        dying.carrying(&udp),
        plain(0).carrying(&behind_options),
        plain(17).carrying(&compose::udp(pair, 1000, 53, &[3; 1400])),
        plain(6).carrying(&tcp(2, b"")),
        plain(6).carrying(&tcp(0x18, b"hello")),
        plain(6).carrying(&tcp(0x11, b"")),
        plain(6).carrying(&tcp(4, b"")),
        icmp(128, 0, [0, 1, 0, 2], b"ping"),
        icmp(1, 4, [0; 4], &quoted),
        icmp(2, 0, [0, 0, 5, 0], &quoted),
        icmp(3, 0, [0; 4], &quoted),
        icmp(4, 1, [0, 0, 0, 6], &quoted),
        plain(47).carrying(&[5; 30]),
    ]
}

fn behind(header: &[u8], packet: &[u8]) -> Vec<u8> {
    [header, packet].concat()
}

fn record(flags: u8, bytes: &[u8]) -> Vec<u8> {
    Packet { flags, bytes }.to_bytes()
}

/// A conversation of all, and of each alone.
fn conversations(settings: &[u8], records: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let all = behind(settings, &records.concat());
    let alone = records.iter().map(|it| behind(settings, it));
    std::iter::once(all).chain(alone).collect()
}

/// A super-segment with an unfinished checksum, as a TUN device hands it over.
fn super_segment(ip_header: u8, gso_type: u8) -> [u8; VIRTIO_NET_HEADER] {
    let [h0, h1] = u16::from(ip_header + 20).to_ne_bytes();
    let [s0, s1] = 500u16.to_ne_bytes();
    let [c0, c1] = u16::from(ip_header).to_ne_bytes();
    let [o0, o1] = 16u16.to_ne_bytes();
    [1, gso_type, h0, h1, s0, s1, c0, c1, o0, o1]
}

fn with_offload(packets: Vec<Vec<u8>>, large: &[u8], gso: [u8; 10], flags: u8) -> Vec<Vec<u8>> {
    let ordinary = packets.iter().map(|it| behind(&NO_OFFLOAD, it));
    let all = ordinary.chain([behind(&gso, large)]);
    all.map(|it| record(flags, &it)).collect()
}

fn large_v4(src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
    let segment = compose::tcp(Pair::V4(src, dst), (1000, 80), 0x18, &[], &[9; 1800]);
    V4::new(src, dst, 6).carrying(&segment)
}

fn large_v6(src: Ipv6Addr, dst: Ipv6Addr) -> Vec<u8> {
    let segment = compose::tcp(Pair::V6(src, dst), (1000, 80), 0x18, &[], &[9; 1800]);
    V6::new(src, dst, 6).carrying(&segment)
}

pub(crate) fn clat_outbound() -> Vec<Vec<u8>> {
    let large = large_v4(HOST, SERVER);
    let records = with_offload(v4_packets(HOST, SERVER), &large, super_segment(20, 1), 0);
    conversations(&[0], &records)
}

pub(crate) fn clat_inbound() -> Vec<Vec<u8>> {
    let large = large_v6(SERVER6, CLAT);
    let mut gso = super_segment(40, 4);
    // A packet socket counts from the Ethernet header.
    (gso[2], gso[6]) = (gso[2] + 14, gso[6] + 14);
    let records = with_offload(v6_packets(SERVER6, CLAT), &large, gso, 0);
    conversations(&[0], &records)
}

pub(crate) fn nat64() -> Vec<Vec<u8>> {
    let out = large_v6(CLAT, SERVER6);
    let back = large_v4(SERVER, POOL);
    let mut records = with_offload(v6_packets(CLAT, SERVER6), &out, super_segment(40, 4), 0);
    let answers = v4_packets(SERVER, POOL);
    records.extend(with_offload(
        answers,
        &back,
        super_segment(20, 1),
        SECOND_WAY,
    ));
    conversations(&[0], &records)
}

pub(crate) fn v4_to_v6() -> Vec<Vec<u8>> {
    let settings = [&[0; 6], &NO_OFFLOAD[..]].concat();
    let packets = v4_packets(HOST, SERVER);
    packets.iter().map(|it| behind(&settings, it)).collect()
}

pub(crate) fn v6_to_v4() -> Vec<Vec<u8>> {
    let settings = [&[0; 6], &NO_OFFLOAD[..]].concat();
    // Both ends under the prefix.
    let host = Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0xc000, 1);
    let packets = v6_packets(host, SERVER6);
    packets.iter().map(|it| behind(&settings, it)).collect()
}

pub(crate) fn reassembly() -> Vec<Vec<u8>> {
    let packets = [v4_packets(HOST, SERVER), v6_packets(CLAT, SERVER6)].concat();
    let records: Vec<_> = packets.iter().map(|it| record(0, it)).collect();
    conversations(&[], &records)
}

pub(crate) fn views() -> Vec<Vec<u8>> {
    [v4_packets(HOST, SERVER), v6_packets(CLAT, SERVER6)].concat()
}

fn solicitation(src: Ipv6Addr, dst: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    let body = [&CLAT.octets()[..], options].concat();
    compose::icmp6(src, dst, 135, 0, [0; 4], &body)
}

fn advertisement(src: Ipv6Addr, dst: Ipv6Addr) -> Vec<u8> {
    let body = [&CLAT.octets()[..], &[2, 1, 2, 0, 0, 0, 0, 9]].concat();
    compose::icmp6(src, dst, 136, 0, [0x60, 0, 0, 0], &body)
}

fn router_advertisement() -> Vec<u8> {
    let prefix = ndp::PrefixInformation {
        prefix: Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 0),
        length: 64,
        on_link: true,
        autonomous: true,
        valid_lifetime: 3600,
        preferred_lifetime: 1800,
    };
    let body = [
        &[0; 8][..],
        &[1, 1, 2, 0, 0, 0, 0, 1],
        &[5, 1, 0, 0, 0, 0, 5, 0xdc],
        &prefix.to_bytes(),
        &[38, 2, 7, 8, 0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    compose::icmp6(ROUTER, ndp::ALL_NODES, 134, 0, [64, 0, 7, 8], &body)
}

/// Everything that is said on a link: source, destination, message.
fn said() -> [(Ipv6Addr, Ipv6Addr, Vec<u8>); 4] {
    let (nobody, group) = (Ipv6Addr::UNSPECIFIED, ndp::solicited_node(CLAT));
    let nonce = [14, 1, 9, 9, 9, 9, 9, 9];
    let source = [1, 1, 2, 0, 0, 0, 0, 1];
    [
        (ROUTER, group, solicitation(ROUTER, group, &source)),
        (nobody, group, solicitation(nobody, group, &nonce)),
        (ROUTER, CLAT, advertisement(ROUTER, CLAT)),
        (ROUTER, ndp::ALL_NODES, router_advertisement()),
    ]
}

pub(crate) fn ndp() -> Vec<Vec<u8>> {
    let messages = said().map(|(src, dst, message)| {
        let envelope = [&src.octets()[..], &dst.octets(), &[255]].concat();
        record(4, &behind(&envelope, &message))
    });
    conversations(&[], &messages)
}

pub(crate) fn link() -> Vec<Vec<u8>> {
    let frames = said().map(|(src, dst, message)| {
        let header = Header {
            dst: if dst == CLAT {
                MAC
            } else {
                Mac::of_multicast(dst)
            },
            src: Mac([2, 0, 0, 0, 0, 1 + src.octets()[15]]),
            ethertype: IPV6,
        };
        let mut packet = V6::new(src, dst, 58);
        packet.hop_limit = 255;
        record(5, &behind(&header.to_bytes(), &packet.carrying(&message)))
    });
    conversations(&[], &frames)
}

pub(crate) fn well_known_name() -> Vec<Vec<u8>> {
    let answers = [
        "2001:db8:122:c000:0:aa00::",
        "2001:db8:122:c000:0:ab00::",
        "2001:db8:c000:aa::c000:aa",
        "2001:db8:c000:aa::c000:ab",
        "64:ff9b::192.0.0.170",
        "::ffff:192.0.0.170",
    ];
    let octets = answers.map(|it| it.parse().map_or([0; 16], |it: Ipv6Addr| it.octets()));
    let mut seeds: Vec<_> = octets.chunks(2).map(<[_]>::concat).collect();
    seeds.push(octets.concat());
    seeds
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<Vec<u8>> {
    texts.map(|it| it.as_bytes().to_vec()).into()
}

pub(crate) fn prefix() -> Vec<Vec<u8>> {
    texts([
        "64:ff9b::/96",
        "2001:db8::/32",
        "2001:db8:100::/40",
        "2001:db8:122:344::1/96",
        "198.51.100.0/24",
        "0.0.0.0/0",
        "192.0.2.1",
    ])
}

pub(crate) fn eam() -> Vec<Vec<u8>> {
    texts([
        "192.0.2.128/26=2001:db8:dddd::/64\n192.0.2.192/29=2001:db8:eeee:8::/62",
        "0.0.0.0/0=64:ff9b::/96\n127.0.0.1=::1",
        "192.0.2.1/32=::/0",
    ])
}

pub(crate) fn config() -> Vec<Vec<u8>> {
    texts([
        "prefix = \"64:ff9b::/96\"\nmetric = 7\nmode = \"always\"\n",
        "networks = [\"198.51.100.0/24\", \"10.0.0.1/8\"]\n[limits]\nbindings = 9\n",
        "prefxi = 1",
        "# ünïcödé\nprefix = '''\n64:ff9b::/95'''",
        "metric = -1",
    ])
}

pub(crate) fn clat_toml() -> Vec<Vec<u8>> {
    texts([
        "interface = \"eth0\"\nprefix = \"64:ff9b::/96\"\nmode = \"always\"\ndns = \"off\"\n",
        "address = \"2001:db8::1\"\nmetric = 70000\nfragment_above = 1300\ntun = \"clat1\"\n",
        "routed = \"2001:db8::1\"\nprobe_targets = [\"198.51.100.1\"]\nwkp_non_global = \"drop\"",
        "address = \"fe80::1\"\nmetric = 1",
    ])
}

pub(crate) fn plat_toml() -> Vec<Vec<u8>> {
    texts([
        "pool = [\"203.0.113.0/28\", \"198.51.100.1-198.51.100.9\"]\nprefixes = [\"2001:db8:64::/96\"]\n",
        "[[pool]]\naddress = \"203.0.113.1\"\ntcp = \"1024-65535\"\nudp = \"1024-65535\"\n\
         icmp = \"1024-65535\"\n[timers]\nudp = 200\n\n---\ntimers.udp = 210\n",
        "pool = [\"203.0.113.1\"]\n[[bib]]\nprotocol = \"tcp\"\nipv6 = \"[2001:db8::1]:80\"\n\
         ipv4 = \"203.0.113.1:80\"\n[[eam]]\nipv4 = \"192.0.2.7\"\nipv6 = \"2001:db8::7\"\n",
        "host_ports = \"61001-65535\"\nuplink = \"eth0\"\nallow_destinations = [\"10.0.0.0/8\"]\n\
         [limits]\nbindings = 9\n[filtering]\ntcp = \"address-dependent\"\n[tcp]\nprobe = false\n",
        "pool_mode = \"masquerade\"\nwkp_non_global = \"translate\"\nipv4_mtu = 68\n",
        "prefixs = []\n---\n[timers]\nudp = 1",
    ])
}

pub(crate) fn journal() -> Vec<Vec<u8>> {
    texts([
        r#"{"item":{"route":{"destination":{"address":"::","length":0},"via":"blackhole","metric":7}}}"#,
        r#"{"item":{"route":{"destination":{"address":"0.0.0.0","length":0},"via":{"interface":{"name":"clat0","source":"192.0.0.1"}},"metric":null}}}"#,
        r#"{"item":{"setting":{"path":"net/ipv6/conf/all/forwarding","value":"1"}},"before":"0"}"#,
        r#"{"item":{"interface":{"name":"clat0","mtu":1472}}}"#,
        r#"{"item":{"concealment":{"name":"clat0","addresses":{"address":"192.0.0.0","length":29},"interface":"clat0"}}}"#,
    ])
}
