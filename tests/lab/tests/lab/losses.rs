//! No packet is lost without a word. Retransmissions hide losses from what tests send, but not from
//! who counts: the kernel before our programs, the programs themselves, and each after the other.

use std::{
    net::{Ipv6Addr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use lab::{
    counters::{Counters, Device},
    pair::Translator,
    topology::SERVER,
};
use nix::sys::signal::Signal;

use crate::{Running, host_rules::clat_address};

/// What is on its way arrives within this time.
const SETTLED: Duration = Duration::from_secs(5);

/// The kernel looks for routers on the PLAT's interface, as on any other.
const NOT_IN_PREFIX: &str = "not-in-prefix";

/// Tayga 0.9.2 sends a UDP checksum of zero where 0xffff is meant, of one datagram in 65 536.
const TAYGAS_ZERO: &str = "udp-checksum-zero-in-ipv6";

impl Running {
    /// Sees that nothing was lost, but for the reasons in `explained`.
    pub(crate) fn assert_nothing_lost(&self, explained: &[&str]) {
        let deadline = Instant::now() + SETTLED;
        loop {
            let report = Report::of(self);
            let losses = report.losses();
            if losses.is_empty() {
                return report.assert_explained(explained);
            }
            assert!(Instant::now() < deadline, "{}", losses.join("\n"));
            thread::sleep(Duration::from_millis(200));
        }
    }
}

/// What everybody has counted. Of tayga nothing is known.
struct Report {
    clat: Option<(Counters, Device)>,
    plat: Option<(Counters, Device)>,
    /// The cable from the router to the PLAT's machine, which carries little else.
    cable: Device,
}

impl Report {
    fn of(running: &Running) -> Self {
        let (clat0, plat0) = running.pair.interfaces();
        let Running {
            clat,
            plat,
            network,
            pair,
        } = running;
        let clat =
            (pair.clat == Translator::Ours).then(|| (clat.counters(), network.host.device(clat0)));
        let plat =
            (pair.plat == Translator::Ours).then(|| (plat.counters(), network.plat.device(plat0)));
        let cable = network.plat.device("p0");
        Self { clat, plat, cable }
    }

    /// What is missing, in words.
    fn losses(&self) -> Vec<String> {
        let mut losses = Vec::new();
        if let Some(clat) = &self.clat {
            losses.extend(uncounted("clat", clat, &["out"]));
        }
        if let Some(plat) = &self.plat {
            losses.extend(uncounted("plat", plat, &["from IPv6", "from IPv4"]));
        }
        losses.extend(self.lost_between());
        losses
    }

    /// What one has passed and the other not received. More may arrive than was passed: a packet can
    /// leave in pieces.
    fn lost_between(&self) -> Vec<String> {
        let (Some((clat, _)), Some((plat, plat0))) = (&self.clat, &self.plat) else {
            return Vec::new();
        };
        let (out, back) = (
            clat.direction("out").passed,
            plat.direction("from IPv4").passed,
        );
        let at_plat = plat.direction("from IPv6").came - plat.dropped(NOT_IN_PREFIX);
        let ways = [
            (out, self.cable.received, "on the cable to plat"),
            // Its queue is that of both families.
            (out, at_plat + plat0.overflowed, "at plat"),
            (back, clat.direction("in").came, "at clat"),
        ];
        ways.into_iter()
            .filter(|(passed, came, _)| passed > came)
            .map(|(passed, came, place)| format!("of {passed} packets, {came} were seen {place}"))
            .collect()
    }

    /// Sees that nothing was dropped for another reason.
    fn assert_explained(&self, explained: &[&str]) {
        let beside_tayga = self.clat.is_none() || self.plat.is_none();
        for (name, program) in [("clat", &self.clat), ("plat", &self.plat)] {
            let drops = program.iter().flat_map(|(counters, _)| &counters.drops);
            for (code, count) in drops {
                let code = code.as_str();
                let is_explained = code == NOT_IN_PREFIX
                    || (code == TAYGAS_ZERO && beside_tayga)
                    || explained.contains(&code);
                assert!(is_explained, "{name} has dropped {count} packets: {code}");
            }
        }
    }
}

/// What a program has read from its interface, but not counted.
fn uncounted(
    name: &str,
    (counters, device): &(Counters, Device),
    directions: &[&str],
) -> Option<String> {
    let came = directions.iter().map(|it| counters.direction(it).came);
    let counted = came.sum::<u64>() + counters.dropped("unreadable");
    let read = device.sent;
    (counted != read).then(|| format!("{name} has read {read} packets, and counted {counted}"))
}

/// Frames that come while nobody takes them are lost in the kernel's queue, and counted.
#[test]
fn frames_that_come_too_fast_are_counted() {
    const FLOOD: usize = 100_000;
    let running = Running::new("overflow");
    let network = &running.network;
    network.host.must(&format!("ping -n -c 1 -W 2 {SERVER}"));
    let address: Ipv6Addr = clat_address(&running.clat).parse().unwrap();
    running.clat.signal(Signal::SIGSTOP);
    network.router.run(move || {
        let socket = UdpSocket::bind("[::]:0").unwrap();
        for _ in 0..FLOOD {
            let _ = socket.send_to(&[7; 64], (address, 9));
        }
    });
    running.clat.signal(Signal::SIGCONT);
    let counters = running.clat.counters();
    let lost = counters.dropped("queue-overflow");
    assert!(lost > 0, "{counters:?}");
    network.host.must(&format!("ping -n -c 1 -W 2 {SERVER}"));
}
