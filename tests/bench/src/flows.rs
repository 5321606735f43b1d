//! What the flow table of the CLAT costs a packet, by itself: no network, no translation.

use std::{io, net::Ipv4Addr, time::Instant};

use clat_core::flows::Flows;
use pref64::Pref64;
use wire::{
    compose::{self, Pair, V4},
    protocol,
};

use crate::{
    row::{Contender, Rounds, Row},
    tables::{Random, cpu_time, each},
};

const NAME: &str = "flow table";
const ROUNDS: usize = 5;
/// Packets of one figure.
const PACKETS: u32 = 1_000_000;
/// The table has room for 65 536.
const FLOWS: u32 = 50_000;

/// The rows, if the filter is a part of their name.
///
/// # Errors
/// If there is no clock.
pub(crate) fn run(filter: &str, mut row: impl FnMut(Row)) -> io::Result<()> {
    for (what, flows, retained) in [
        ("one flow", 1, false),
        ("fifty thousand flows", FLOWS, false),
        ("fifty thousand flows, two prefixes", FLOWS, true),
    ] {
        let name = format!("{NAME}, {what}");
        if !name.contains(filter) {
            continue;
        }
        let mut rounds = Rounds::default();
        for _ in 0..ROUNDS {
            rounds.push(Contender::Ours, measure(flows, retained)?);
        }
        row(rounds.row(&name, "ns/packet"));
    }
    Ok(())
}

/// Nanoseconds of a packet of any of so many flows that are known.
fn measure(flows: u32, retained: bool) -> io::Result<f64> {
    let old: Pref64 = "64:ff9b::/96".parse().map_err(io::Error::other)?;
    let new: Pref64 = "2001:db8:64::/96".parse().map_err(io::Error::other)?;
    let mut table = Flows::new(old, &[], 0x0123_4567_89ab_cdef);
    let now = Instant::now();
    let mut packet = packet();
    for n in 0..flows {
        of_flow(&mut packet, n);
        let _ = table.prefix_of(&packet, now);
    }
    if retained {
        table.set_prefixes(new, &[old]);
    }
    let mut random = Random(3);
    let mut by_old = 0u32;
    let start = cpu_time()?;
    for _ in 0..PACKETS {
        of_flow(&mut packet, random.below(flows));
        by_old += u32::from(table.prefix_of(&packet, now) == old);
    }
    let time = cpu_time()?.saturating_sub(start);
    // Some flows have pushed others out.
    if by_old < PACKETS / 2 {
        return Err(io::Error::other("the flows are not known"));
    }
    Ok(each(time, PACKETS))
}

fn packet() -> Vec<u8> {
    let (src, dst) = (Ipv4Addr::new(192, 0, 0, 1), Ipv4Addr::new(8, 8, 8, 8));
    let udp = compose::udp(Pair::V4(src, dst), 1, 53, &[7; 64]);
    V4::new(src, dst, protocol::UDP).carrying(&udp)
}

/// Makes it a packet of flow number `n`: that port of the host.
fn of_flow(packet: &mut [u8], n: u32) {
    let [.., high, low] = (n + 1024).to_be_bytes();
    packet[20..22].copy_from_slice(&[high, low]);
}
