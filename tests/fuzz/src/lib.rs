//! Fuzzing: each target is a function that takes any bytes and panics if something is wrong.
//!
//! `cargo test` replays the committed corpora and some hundred mutations of their files;
//! `cargo xtask fuzz` runs the same functions under libFuzzer for as long as one likes. It keeps an
//! input that fails: in the corpus, under a name that says what is wrong with it, `cargo test -p fuzz`
//! fails by it until that is mended.

#![expect(
    clippy::cast_possible_truncation,
    reason = "sizes of what is made here are known"
)]

mod input;
mod neighbours;
mod outcome;
mod packets;
mod seeds;
mod text;
mod views;

/// Something to be fed with bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Ordinary input, for fuzzers to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub const TARGETS: [Target; 16] = [
    target("clat_inbound", packets::clat_inbound, seeds::clat_inbound),
    target(
        "clat_outbound",
        packets::clat_outbound,
        seeds::clat_outbound,
    ),
    target("clat_toml", text::clat_toml, seeds::clat_toml),
    target("config", text::config, seeds::config),
    target("eam", text::eam, seeds::eam),
    target("journal", text::journal, seeds::journal),
    target("link", neighbours::link, seeds::link),
    target("nat64", packets::nat64, seeds::nat64),
    target("ndp", neighbours::ndp, seeds::ndp),
    target("plat_toml", text::plat_toml, seeds::plat_toml),
    target("prefix", text::prefix, seeds::prefix),
    target("reassembly", packets::reassembly, seeds::reassembly),
    target("v4_to_v6", packets::v4_to_v6, seeds::v4_to_v6),
    target("v6_to_v4", packets::v6_to_v4, seeds::v6_to_v4),
    target("views", views::views, seeds::views),
    target(
        "well_known_name",
        neighbours::well_known_name,
        seeds::well_known_name,
    ),
];

const fn target(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, run, seeds }
}

/// Feeds a target.
///
/// # Panics
/// If there is no such target, or something is wrong.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|it| it.name == name);
    let target = target.unwrap_or_else(|| panic!("no target {name}"));
    (target.run)(data);
}
