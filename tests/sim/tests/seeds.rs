//! Runs with many seeds.

use std::{env, panic, str::FromStr, thread};

use sim::World;

/// Runs of the ordinary test run: some seconds.
const RUNS: u64 = 100;

fn variable<T: FromStr>(name: &str) -> Option<T> {
    let value = env::var(name).ok()?;
    let parsed = value.parse().ok();
    assert!(parsed.is_some(), "{name} is not a number: {value}");
    parsed
}

/// Runs a world, and says how to replay it if it fails.
fn try_out(seed: u64, is_shown: bool) -> sim::Summed {
    let run = panic::catch_unwind(|| World::new(seed, is_shown).run());
    run.unwrap_or_else(|why| {
        eprintln!(
            "\nseed {seed} fails; to see every packet of it:\n  \
             OPENCLAT_SIM_SEED={seed} cargo test -p sim -- --nocapture"
        );
        panic::resume_unwind(why)
    })
}

/// Runs of seeds from 0 on, on every processor; how many packets there were, and how many
/// super-segments came to a translator, of TCP and of UDP.
fn run_all(runs: u64) -> [u64; 3] {
    let add = |all: [u64; 3], it: [u64; 3]| [all[0] + it[0], all[1] + it[1], all[2] + it[2]];
    let threads = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let share = |first| {
        let seeds = (first..runs).step_by(threads as usize);
        let summed = seeds.map(|seed| try_out(seed, false));
        summed.fold([0; 3], |all, it| {
            let of_tcp = it.supersegments - it.supersegments_of_udp;
            add(all, [it.packets, of_tcp, it.supersegments_of_udp])
        })
    };
    thread::scope(|scope| {
        let start = |first| scope.spawn(move || share(first));
        let started: Vec<_> = (0..threads).map(start).collect();
        let joined = started.into_iter().map(|it| it.join());
        joined
            .map(|it| it.unwrap_or_else(|why| panic::resume_unwind(why)))
            .fold([0; 3], add)
    })
}

#[test]
fn whatever_the_network_does_content_is_intact() {
    if let Some(seed) = variable("OPENCLAT_SIM_SEED") {
        try_out(seed, true);
        return;
    }
    let runs = variable("OPENCLAT_SIM_RUNS").unwrap_or(RUNS);
    let [packets, of_tcp, of_udp] = run_all(runs);
    println!("{runs} runs, {packets} packets, super-segments: {of_tcp} of TCP, {of_udp} of UDP");
    assert!(of_tcp > runs * 2, "hardly any super-segments");
    assert!(of_udp > runs, "hardly any of UDP");
    assert!(packets > runs * 100, "hardly anything happened");
}

#[test]
fn a_seed_decides_everything() {
    let [one, again, other] = [3, 3, 4].map(|seed| try_out(seed, false));
    assert_eq!(one, again);
    assert_ne!(one.log, other.log);
}
