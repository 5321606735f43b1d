//! Vectors that were computed from the texts of the RFCs by a program that shares nothing with
//! ours (`vectors.json`, made by the checklist's `vectors.py`), run through the public interfaces of
//! the crates under `core/`.
//!
//! Every list of the file is named either in [`RUN`] or in [`LATER`], and every packet of it is run
//! by a test in [`packets`]: a vector that is added and not run fails here.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a vector that cannot be read fails its test"
)]

use std::{collections::BTreeSet, sync::LazyLock};

use pref64::Pref64;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

mod addresses;
mod discovery;
mod icmp;
mod packets;
mod sizes;

/// The lists that are run here.
const RUN: [&str; 17] = [
    "embed",
    "neutral_clat",
    "eamt",
    "packets",
    "pointer46",
    "pointer64",
    "icmp46",
    "icmp64",
    "mtu46",
    "mtu64",
    "df64",
    "frag_needed46",
    "rfc4884_46",
    "rfc4884_64",
    "scaled",
    "pref64",
    "rfc7050",
];

/// The lists that are about what is not built yet (DNS64, deterministic ports, VRRP), and the
/// number of checks that the generator made of itself.
const LATER: [&str; 4] = ["dns64_ttl", "rfc7422", "vrrp", "checks"];

static VECTORS: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("vectors.json")).expect("JSON"));

/// The list called `name`.
fn vectors<T: DeserializeOwned>(name: &str) -> T {
    assert!(RUN.contains(&name), "{name} is not said to be run");
    T::deserialize(&VECTORS[name]).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A NAT64 prefix as text.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Prefix(Pref64);

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let prefix = text.parse().map_err(|error| format!("{text}: {error}"))?;
        Ok(Self(prefix))
    }
}

fn from_hex(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    let pair = |it: &[u8]| u8::from_str_radix(str::from_utf8(it).unwrap(), 16).unwrap();
    digits.map(pair).collect()
}

#[test]
fn every_list_is_run_or_said_to_be_later_work() {
    let lists = VECTORS.as_object().unwrap().keys().map(String::as_str);
    let named = RUN.into_iter().chain(LATER);
    assert_eq!(
        lists.collect::<BTreeSet<_>>(),
        named.collect::<BTreeSet<_>>()
    );
}
