//! What another host on the link gets to see of the CLAT: answers about its IPv6 address, byte by
//! byte, and nothing of its IPv4 addresses.

use std::{
    net::{Ipv4Addr, Ipv6Addr, UdpSocket},
    time::Duration,
};

use lab::frames::{Stranger, mac};
use wire::{
    compose::{self, Pair, V4, V6},
    ethernet::{IPV6, Mac},
    ndp::{ALL_NODES, ALL_ROUTERS, solicited_node},
};

use crate::{Running, host_rules::clat_address};

/// The other host.
const STRANGER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x99);
const STRANGER_MAC: Mac = Mac([2, 0, 0, 0, 0, 0x99]);
/// One that it speaks for.
const TOLD_MAC: Mac = Mac([2, 0, 0, 0, 0, 0x98]);

/// Long enough for an answer, and for one too many.
const A_MOMENT: Duration = Duration::from_millis(400);

/// A CLAT, and a stranger on its link.
struct Scene {
    running: Running,
    stranger: Stranger,
    clat: Ipv6Addr,
    host_mac: Mac,
}

/// A question, right unless something is changed.
struct Question {
    to_mac: Mac,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    target: Ipv6Addr,
    options: Vec<u8>,
    hop_limit: u8,
    checksum_is_wrong: bool,
}

impl Scene {
    fn new(test: &str) -> Self {
        let running = Running::new(test);
        let clat = clat_address(&running.clat).parse().unwrap();
        Self {
            stranger: Stranger::at(&running.network.router, "r0"),
            host_mac: mac(&running.network.host.mac("h0")),
            running,
            clat,
        }
    }

    /// An ordinary one, to the solicited-node group (RFC 4861 §7.2.2).
    fn question(&self) -> Question {
        let group = solicited_node(self.clat);
        Question {
            to_mac: Mac::of_multicast(group),
            src: STRANGER,
            dst: group,
            target: self.clat,
            options: [&[1, 1][..], &TOLD_MAC.0].concat(),
            hop_limit: 255,
            checksum_is_wrong: false,
        }
    }

    /// Asks, and returns the frames about the CLAT's address that come back: its answers, and what
    /// anybody else says from it.
    fn ask(&self, question: &Question) -> Vec<Vec<u8>> {
        let _ = self.stranger.hears(Duration::from_millis(5));
        let data = [&question.target.octets()[..], &question.options].concat();
        let mut message = compose::icmp6(question.src, question.dst, 135, 0, [0; 4], &data);
        if question.checksum_is_wrong {
            message[2] ^= 0x55;
        }
        let mut header = V6::new(question.src, question.dst, 58);
        header.hop_limit = question.hop_limit;
        let packet = header.carrying(&message);
        self.stranger
            .send(question.to_mac, STRANGER_MAC, IPV6, &packet);
        let mut frames = self.stranger.hears(A_MOMENT);
        frames.retain(|frame| frame[12..14] == IPV6.to_be_bytes() && self.is_about_clat(frame));
        frames
    }

    /// Not what it tells all routers for a few seconds after its start, without being asked.
    fn is_about_clat(&self, frame: &[u8]) -> bool {
        let clat = self.clat.octets();
        let is_about_it = frame[22..38] == clat || frame.get(62..78) == Some(&clat);
        is_about_it && frame[38..54] != ALL_ROUTERS.octets()
    }

    /// The one frame that must come back, checked field by field (RFC 4861 §4.4 and §7.2.4).
    fn assert_answered(&self, frames: &[Vec<u8>], to_mac: Mac, to: Ipv6Addr, flags: u8) {
        let [frame] = frames else {
            panic!("{} frames: {frames:02x?}", frames.len());
        };
        assert_eq!(frame[..6], to_mac.0, "Ethernet destination");
        assert_eq!(frame[6..12], self.host_mac.0, "Ethernet source");
        let packet = &frame[14..];
        assert_eq!(packet[4..6], [0, 32], "payload length");
        assert_eq!(packet[6..8], [58, 255], "next header, hop limit");
        assert_eq!(packet[8..24], self.clat.octets(), "source");
        assert_eq!(packet[24..40], to.octets(), "destination");
        let message = &packet[40..72];
        assert_eq!(message[..2], [136, 0], "type, code");
        assert_eq!(message[4..8], [flags, 0, 0, 0], "flags");
        assert_eq!(message[8..24], self.clat.octets(), "target");
        let option = [&[2, 1][..], &self.host_mac.0].concat();
        assert_eq!(message[24..], option, "target link-layer address");
        let pseudo_header = [&packet[8..40], &[0, 0, 0, 32, 0, 0, 0, 58]].concat();
        assert_eq!(compose::checksum(&[&pseudo_header, message]), 0);
    }
}

const SOLICITED_AND_OVERRIDE: u8 = 0x60;
const OVERRIDE: u8 = 0x20;

#[test]
fn clat_6_3_02_a_question_to_the_group_is_answered() {
    let scene = Scene::new("ns-multicast");
    let frames = scene.ask(&scene.question());
    scene.assert_answered(&frames, TOLD_MAC, STRANGER, SOLICITED_AND_OVERRIDE);
    // A question to the group must say where to answer to. Where it does not, the frame does.
    let question = Question {
        options: Vec::new(),
        ..scene.question()
    };
    let frames = scene.ask(&question);
    scene.assert_answered(&frames, STRANGER_MAC, STRANGER, SOLICITED_AND_OVERRIDE);
}

/// As routers ask for an entry that has become stale.
#[test]
fn clat_6_3_02_a_question_to_the_address_is_answered() {
    let scene = Scene::new("ns-unicast");
    for options in [Vec::new(), [&[1, 1][..], &STRANGER_MAC.0].concat()] {
        let question = Question {
            to_mac: scene.host_mac,
            dst: scene.clat,
            options,
            ..scene.question()
        };
        let frames = scene.ask(&question);
        scene.assert_answered(&frames, STRANGER_MAC, STRANGER, SOLICITED_AND_OVERRIDE);
    }
}

/// Another host wants the address and checks whether it is free (RFC 4862 §5.4.3): everybody is told
/// that it is not.
#[test]
fn clat_6_3_02_a_probe_of_another_host_is_answered_to_all() {
    let scene = Scene::new("ns-probe");
    let nonce = vec![14, 1, 9, 8, 7, 6, 5, 4];
    for options in [Vec::new(), nonce] {
        let question = Question {
            src: Ipv6Addr::UNSPECIFIED,
            options,
            ..scene.question()
        };
        let frames = scene.ask(&question);
        let all = Mac::of_multicast(ALL_NODES);
        assert_eq!(all.0, [0x33, 0x33, 0, 0, 0, 1]);
        scene.assert_answered(&frames, all, ALL_NODES, OVERRIDE);
    }
    assert!(!scene.running.clat.output().contains("has our IPv6 address"));
}

/// RFC 4861 §7.1.1: what is not a valid question gets no answer; nor does one about another address.
#[test]
fn clat_6_3_02_an_invalid_question_is_not_answered() {
    let scene = Scene::new("ns-invalid");
    let questions = [
        (
            "from afar",
            Question {
                hop_limit: 254,
                ..scene.question()
            },
        ),
        (
            "checksum",
            Question {
                checksum_is_wrong: true,
                ..scene.question()
            },
        ),
        (
            "probe with an address",
            Question {
                src: Ipv6Addr::UNSPECIFIED,
                ..scene.question()
            },
        ),
        (
            "probe to the address itself",
            Question {
                src: Ipv6Addr::UNSPECIFIED,
                dst: scene.clat,
                to_mac: scene.host_mac,
                options: Vec::new(),
                ..scene.question()
            },
        ),
        (
            "option of length zero",
            Question {
                options: vec![1, 0, 0, 0, 0, 0, 0, 0],
                ..scene.question()
            },
        ),
        (
            "target is a group",
            Question {
                target: ALL_NODES,
                ..scene.question()
            },
        ),
        (
            "another target",
            Question {
                target: (scene.clat.to_bits() ^ 1 << 40).into(),
                ..scene.question()
            },
        ),
    ];
    for (what, question) in questions {
        let frames = scene.ask(&question);
        assert!(frames.is_empty(), "{what}: {frames:02x?}");
    }
    // It is not that nothing is answered any more.
    assert_eq!(scene.ask(&scene.question()).len(), 1);
}

const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const BROADCAST: Mac = Mac([0xff; 6]);
/// The stranger's IPv4 address, and the host's on the same network.
const STRANGER4: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 99);
const HOST4: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 2);

fn arp_request(target: Ipv4Addr) -> Vec<u8> {
    let mut request = vec![0, 1, 8, 0, 6, 4, 0, 1];
    request.extend(STRANGER_MAC.0);
    request.extend(STRANGER4.octets());
    request.extend([0; 6]);
    request.extend(target.octets());
    request
}

/// The IPv4 addresses that a frame is from: by ARP or by IP.
fn speaks_for(frame: &[u8]) -> Option<Ipv4Addr> {
    let at = match u16::from_be_bytes([frame[12], frame[13]]) {
        ARP => 28,
        IPV4 => 26,
        _ => return None,
    };
    let bytes: [u8; 4] = frame.get(at..at + 4)?.try_into().ok()?;
    Some(bytes.into())
}

/// ADDR-7335-01: a second host on the link reaches nothing of 192.0.0.0/29, by ARP or by IP.
#[test]
fn addr_7335_01_a_second_host_reaches_nothing_inside() {
    const PORT: u16 = 5555;
    let scene = Scene::new("second-host");
    let (network, stranger) = (&scene.running.network, &scene.stranger);
    network.host.add_address("h0", &format!("{HOST4}/24"));
    // Nothing is silent for want of the stranger's address.
    let neighbour = format!("ip neigh replace {STRANGER4} lladdr 02:00:00:00:00:99 dev h0");
    network.host.must(&neighbour);
    let socket = network.host.run(|| {
        let socket = UdpSocket::bind(("0.0.0.0", PORT)).unwrap();
        socket.set_read_timeout(Some(A_MOMENT)).unwrap();
        socket
    });
    let try_everything = |target: Ipv4Addr| {
        for to in [BROADCAST, scene.host_mac] {
            stranger.send(to, STRANGER_MAC, ARP, &arp_request(target));
        }
        // A neighbour of it on its own network, as it would seem.
        for src in [STRANGER4, Ipv4Addr::new(192, 0, 0, 6)] {
            let echo = compose::icmp4(8, 0, [0, 9, 0, 1], b"anybody?");
            let syn = compose::tcp(Pair::V4(src, target), (40000, 80), 2, &[], &[]);
            let udp = compose::udp(Pair::V4(src, target), 40000, PORT, b"anybody?");
            for (protocol, payload) in [(1, echo), (6, syn), (17, udp)] {
                let packet = V4::new(src, target, protocol).carrying(&payload);
                stranger.send(scene.host_mac, STRANGER_MAC, IPV4, &packet);
            }
        }
    };
    let mut buffer = [0; 100];
    for last in 0..8 {
        let target = Ipv4Addr::new(192, 0, 0, last);
        try_everything(target);
        let heard = stranger.hears(A_MOMENT);
        let mut inside = heard.iter().filter_map(|frame| speaks_for(frame));
        let leaked = inside.find(|it| it.octets()[..3] == [192, 0, 0]);
        assert_eq!(leaked, None, "asked for {target}");
        assert!(socket.recv_from(&mut buffer).is_err(), "{target}");
    }
    // With an address of the link, each of the ways works.
    try_everything(HOST4);
    let heard = stranger.hears(A_MOMENT);
    let answers = |ethertype: u16| {
        let answers = heard.iter().filter(|frame| {
            frame[12..14] == ethertype.to_be_bytes() && speaks_for(frame) == Some(HOST4)
        });
        answers.count()
    };
    assert_eq!(answers(ARP), 2);
    assert!(answers(IPV4) >= 2, "{heard:02x?}");
    assert!(socket.recv_from(&mut buffer).is_ok());
}
