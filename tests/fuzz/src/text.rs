//! Text that people and programs write: prefixes, mappings, configurations, the journal.

use cli::config::{Document, Parsed, Spanned};
use host::netcfg::Change;
use nat64::destinations::Network4;
use pref64::{
    Pref64,
    eam::{Eam, EamTable},
};
use serde::Deserialize;

/// What can be written, reads as the same.
fn reads_again<T>(text: &str)
where
    T: std::str::FromStr + std::fmt::Display + PartialEq + std::fmt::Debug,
    T::Err: std::fmt::Display,
{
    match text.parse::<T>() {
        Ok(value) => {
            let written = value.to_string();
            assert!(written.parse().is_ok_and(|it: T| it == value), "{written}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Prefixes and networks.
pub(crate) fn prefix(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    reads_again::<Pref64>(text);
    reads_again::<Network4>(text);
}

/// Explicit mappings, one per line: `192.0.2.0/24 = 2001:db8::/120`.
pub(crate) fn eam(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut mappings = Vec::new();
    for (v4, v6) in text.lines().filter_map(|line| line.split_once('=')) {
        match Eam::parse(v4, v6) {
            Ok(eam) => {
                let written = eam.to_string();
                let (v4, v6) = written.split_once('=').unwrap_or_default();
                assert_eq!(Eam::parse(v4, v6), Ok(eam));
                mappings.push(eam);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    let Ok(table) = EamTable::new(mappings) else {
        return;
    };
    for n in [0, 1, 0x7f00_0001, 0xc000_0201, u32::MAX] {
        if let Some(v6) = table.to_v6(n.into()) {
            assert!(table.to_v4(v6).is_some(), "{v6} leads nowhere");
        }
    }
    let _ = table.overlaps();
}

/// The kinds of values that our configuration files have.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    prefix: Option<Parsed<Pref64>>,
    #[serde(default)]
    networks: Vec<Spanned<String>>,
    metric: Option<u32>,
    mode: Option<Mode>,
    limits: Option<Limits>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    Auto,
    Always,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    bindings: Option<usize>,
}

/// A configuration file. Whatever is wrong has a place in it.
pub(crate) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let document = Document::new("x.toml", text);
    let file = match document.parse::<File>() {
        Ok(file) => file,
        Err(failure) => {
            assert!(failure.to_string().contains("x.toml"), "{failure}");
            return;
        }
    };
    for network in &file.networks {
        if let Err(failure) = document.value::<Network4>(network) {
            assert!(failure.to_string().contains("x.toml:"), "{failure}");
        }
    }
    let known = (file.metric, file.prefix.map(|it| it.0.to_string()));
    let limits = file.limits.and_then(|it| it.bindings);
    let _ = format!("{known:?} {limits:?} {:?}", file.mode);
}

/// `clat.toml`. Whatever is wrong is said of this file.
pub(crate) fn clat_toml(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Err(failure) = clat::config::check("x.toml", text)
    {
        assert!(failure.to_string().contains("x.toml"), "{failure}");
    }
}

/// `plat.toml`, and a file over it. Whatever is wrong has a place in one of them; what holds can be
/// written down, and means the same again.
pub(crate) fn plat_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (below, above) = text.split_once("\n---\n").unwrap_or((text, ""));
    let mut document = Document::new("x.toml", below);
    document.push("x.d/1.toml", above);
    let loaded = match plat::config::settled(document) {
        Ok(loaded) => loaded,
        Err(failure) => {
            assert!(failure.to_string().starts_with("error: x."), "{failure}");
            return;
        }
    };
    let mut written = String::new();
    for (setting, origin) in loaded.origins() {
        assert!(!origin.to_string().is_empty());
        if !setting.value.is_null() {
            let value = plat::config::settings::toml(&setting.value);
            written.push_str(&format!("{} = {value}\n", setting.key));
        }
    }
    let again = plat::config::settled(Document::new("again", written.clone()));
    let again = again.unwrap_or_else(|failure| panic!("{failure}\n{written}"));
    assert_eq!(
        again.config.settings(),
        loaded.config.settings(),
        "{written}"
    );
    let capacity = plat::config::capacity::Capacity::of(&loaded.config);
    assert!(capacity.bindings <= capacity.ports.iter().sum());
}

/// A change out of the journal of a crashed process.
pub(crate) fn journal(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        let Ok(change) = serde_json::from_slice::<Change>(line) else {
            continue;
        };
        let _ = change.item.to_string();
        let written = serde_json::to_vec(&change).unwrap_or_default();
        let again: Result<Change, _> = serde_json::from_slice(&written);
        assert!(again.is_ok_and(|it| it == change), "{change:?}");
    }
}
