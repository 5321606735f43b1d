//! Every value that holds, under its key in the file.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use cli::config::{Origin, Place};
use nat64::ports::Ports;
use pref64::siit::NonGlobal;
use serde_json::{Map, Value};

use super::{Config, Loaded, policy, pool::PoolRange, thresholds::Thresholds};

/// A value that holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Its key, such as `timers.udp`.
    pub key: &'static str,
    /// As it would be written in the file.
    pub value: Value,
}

/// Some values with their keys.
type Group = Vec<(&'static str, Value)>;

impl Config {
    /// All values, those that nobody wrote among them.
    #[must_use]
    pub fn settings(&self) -> Vec<Setting> {
        let groups = [
            self.served(),
            self.interface_settings(),
            self.policies(),
            self.timers(),
            self.limits(),
            self.quotas(),
            self.marks(),
            self.reports(),
        ];
        let all = groups.into_iter().flatten();
        all.map(|(key, value)| Setting { key, value }).collect()
    }

    /// Who is served with what.
    fn served(&self) -> Group {
        let eam = self.eam.iter().map(|it| {
            let ((v4, v4_len), (v6, v6_len)) = (it.ipv4(), it.ipv6());
            let texts = [
                ("ipv4", format!("{v4}/{v4_len}")),
                ("ipv6", format!("{v6}/{v6_len}")),
            ];
            object(texts)
        });
        let bib = self.bib.iter().map(|it| {
            object([
                ("protocol", it.protocol.to_string().to_ascii_lowercase()),
                ("ipv6", format!("{:?}", it.inside)),
                ("ipv4", format!("{:?}", it.outside)),
            ])
        });
        let wkp_non_global = match self.wkp_non_global {
            NonGlobal::Drop => "drop",
            NonGlobal::Translate => "translate",
        };
        vec![
            ("prefixes", texts(self.prefixes.iter())),
            ("clients", texts(self.clients.iter())),
            ("pool", self.pool.iter().map(pool).collect()),
            ("pool_mode", self.pool_mode.to_string().into()),
            ("host_ports", optional(self.host_ports)),
            ("uplink", optional(self.uplink.as_ref())),
            ("eam", eam.collect()),
            ("bib", bib.collect()),
            ("allow_destinations", texts(self.allow_destinations.iter())),
            ("wkp_non_global", wkp_non_global.into()),
        ]
    }

    fn interface_settings(&self) -> Group {
        vec![
            ("interface", self.interface.clone().into()),
            ("forward_guard", self.forward_guard.into()),
            ("ipv6_mtu", self.ipv6_mtu.into()),
            ("ipv4_mtu", self.ipv4_mtu.into()),
            ("fragment_above", self.fragment_above.into()),
            ("workers", self.workers.map(u8::from).into()),
        ]
    }

    fn policies(&self) -> Group {
        let (filtering, tcp) = (&self.filtering, &self.tcp);
        let unexpected_syn = policy::syn_name(tcp.unexpected_syn);
        vec![
            ("filtering.tcp", policy::name(filtering.tcp).into()),
            ("filtering.udp", policy::name(filtering.udp).into()),
            ("filtering.icmp", policy::name(filtering.icmp).into()),
            ("filtering.answer", filtering.answer.into()),
            (
                "filtering.inbound_refresh",
                filtering.inbound_refresh.into(),
            ),
            ("tcp.unexpected_syn", unexpected_syn.into()),
            ("tcp.reset_after_fin", tcp.reset_after_fin.into()),
            ("tcp.reopen_after_fin", tcp.reopen_after_fin.into()),
            ("tcp.check_sequence", tcp.check_sequence.into()),
            ("tcp.probe", tcp.probe.into()),
        ]
    }

    fn timers(&self) -> Group {
        let timers = &self.timers;
        let seconds = |it: Duration| it.as_secs().into();
        vec![
            ("timers.udp", seconds(timers.udp)),
            ("timers.icmp", seconds(timers.icmp)),
            ("timers.tcp_established", seconds(timers.tcp_established)),
            ("timers.tcp_transitory", seconds(timers.tcp_transitory)),
            ("timers.tcp_incoming_syn", seconds(timers.tcp_incoming_syn)),
            ("timers.fragment", seconds(timers.fragment)),
            ("timers.hold_down", seconds(timers.hold_down)),
        ]
    }

    fn limits(&self) -> Group {
        let limits = &self.limits;
        let fragments = &limits.fragments;
        vec![
            ("limits.bindings", limits.bindings.into()),
            ("limits.sessions", limits.sessions.into()),
            ("limits.stored_syns", limits.stored_syns.into()),
            ("limits.stored_syn_bytes", limits.stored_syn_bytes.into()),
            ("limits.fragmented_datagrams", fragments.datagrams.into()),
            ("limits.fragment_bytes", fragments.bytes.into()),
            (
                "limits.fragmented_datagrams_per_source",
                fragments.datagrams_per_source.into(),
            ),
        ]
    }

    fn quotas(&self) -> Group {
        let quota = &self.quota;
        let (subscriber, address) = (&quota.subscriber, &quota.address);
        let rate = "quota.subscriber.new_per_second";
        vec![
            ("quota.prefix_len", quota.prefix_len.into()),
            ("quota.exempt", texts(quota.exempt.iter())),
            ("quota.subscriber.bindings", subscriber.bindings.into()),
            ("quota.subscriber.sessions", subscriber.sessions.into()),
            (rate, subscriber.new_per_second.into()),
            ("quota.subscriber.burst", subscriber.burst.into()),
            ("quota.address.bindings", address.bindings.into()),
            ("quota.address.sessions", address.sessions.into()),
            (
                "quota.address.new_per_second",
                address.new_per_second.into(),
            ),
            ("quota.address.burst", address.burst.into()),
            ("blocks", super::blocks::value(self.blocks)),
        ]
    }

    fn marks(&self) -> Group {
        let Thresholds {
            pool,
            sessions,
            bindings,
            memory,
        } = self.thresholds;
        vec![
            ("thresholds.pool.high", pool.high().into()),
            ("thresholds.pool.low", pool.low().into()),
            ("thresholds.sessions.high", sessions.high().into()),
            ("thresholds.sessions.low", sessions.low().into()),
            ("thresholds.bindings.high", bindings.high().into()),
            ("thresholds.bindings.low", bindings.low().into()),
            ("thresholds.memory.high", memory.high().into()),
            ("thresholds.memory.low", memory.low().into()),
        ]
    }

    /// What is told to others.
    fn reports(&self) -> Group {
        let log = self.log.as_ref();
        let destinations = log.is_some_and(|it| it.destinations);
        vec![
            ("log.file", optional(log.map(|it| it.file.display()))),
            ("log.max_bytes", log.map(|it| it.max_bytes).into()),
            ("log.keep", log.map(|it| it.keep).into()),
            ("log.destinations", destinations.into()),
            ("metrics.listen", optional(self.metrics)),
        ]
    }
}

fn texts<T: ToString>(items: impl Iterator<Item = T>) -> Value {
    items.map(|it| it.to_string()).collect()
}

/// Left to the host, if it is not set: that is no value.
fn optional(value: Option<impl ToString>) -> Value {
    value.map_or(Value::Null, |it| it.to_string().into())
}

fn object<const N: usize>(texts: [(&str, String); N]) -> Value {
    let texts = texts.into_iter();
    Value::Object(texts.map(|(k, v)| (k.to_owned(), v.into())).collect())
}

/// The short form where nothing is lost by it.
fn pool(range: &PoolRange) -> Value {
    let text = range.to_string();
    if range.ports == Ports::all() {
        return text.into();
    }
    let key = if text.contains('-') {
        "range"
    } else if text.contains('/') {
        "cidr"
    } else {
        "address"
    };
    let Ports { tcp, udp, icmp } = &range.ports;
    object([
        (key, text),
        ("tcp", tcp.to_string()),
        ("udp", udp.to_string()),
        ("icmp", icmp.to_string()),
    ])
}

impl Loaded {
    /// Every value with where it comes from.
    #[must_use]
    pub fn origins(&self) -> Vec<(Setting, Origin)> {
        let places = self.document.origins();
        let settings = self.config.settings().into_iter();
        let of = |it: Setting| {
            let origin = origin(&places, it.key);
            (it, origin)
        };
        settings.map(of).collect()
    }
}

fn origin(places: &BTreeMap<String, Place>, key: &str) -> Origin {
    let below = format!("{key}.");
    // What is one setting may be a table of several keys.
    let part = || places.iter().find(|(it, _)| it.starts_with(&below));
    let place = places.get(key).or_else(|| Some(part()?.1));
    place.map_or(Origin::Default, |place| Origin::File(place.clone()))
}

/// As TOML, on one line.
#[must_use]
pub fn toml(value: &Value) -> String {
    match value {
        Value::Object(map) => table(map),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(toml).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Null => "(left to the host)".to_owned(),
        // Numbers, truth values and the texts that we have are written the same in both.
        Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

fn table(map: &Map<String, Value>) -> String {
    let mut text = String::from("{");
    for (at, (key, value)) in map.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(text, "{comma} {key} = {}", toml(value));
    }
    text + " }"
}

#[cfg(test)]
mod tests {
    use super::{super::schema, *};
    use cli::config::Document;
    use std::fmt::Write;

    const EXAMPLE: &str = include_str!("../../../installers/linux/plat.toml");

    fn loaded(files: &[(&str, &str)]) -> Loaded {
        let mut document = Document::empty("plat.toml");
        for (name, text) in files {
            document.push(name, *text);
        }
        super::super::settled(document).unwrap()
    }

    fn settings(text: &str) -> Vec<Setting> {
        loaded(&[("plat.toml", text)]).config.settings()
    }

    /// Otherwise a key could be written that `show` and `diff` do not know.
    #[test]
    fn every_key_of_the_schema_is_a_setting() {
        let mut known: Vec<_> = settings("").iter().map(|it| it.key.to_owned()).collect();
        known.sort_unstable();
        let mut keys = schema::tests::keys();
        keys.sort_unstable();
        assert_eq!(known, keys);
    }

    /// The lines of the example that set something, all in comments.
    fn uncommented() -> String {
        let lines = EXAMPLE.lines().filter_map(|it| it.strip_prefix('#'));
        let set = lines.filter(|it| !it.is_empty() && !it.starts_with([' ', '#']));
        set.fold(String::new(), |text, line| text + line + "\n")
    }

    #[test]
    fn the_example_says_what_holds_without_it() {
        assert_eq!(settings(EXAMPLE), settings(""));
        let all = loaded(&[("plat.toml", &uncommented())]);
        for (shown, default) in all.config.settings().iter().zip(settings("")) {
            // What is left to the host has an example instead of a default.
            assert!(default.value.is_null() || *shown == default, "{shown:?}");
        }
        for (setting, origin) in all.origins() {
            // A list of tables cannot be written empty and then with tables.
            assert_ne!(
                origin,
                Origin::Default,
                "{} is not in the example",
                setting.key
            );
        }
    }

    #[test]
    fn every_value_knows_where_it_comes_from() {
        let loaded = loaded(&[
            (
                "plat.toml",
                "interface = \"nat\"\n[timers]\nudp = 200\nicmp = 90",
            ),
            ("plat.d/1.toml", "\n\ntimers.udp = 210"),
        ]);
        let origins = loaded.origins();
        let of = |key| {
            let (setting, origin) = origins.iter().find(|(it, _)| it.key == key).unwrap();
            format!("{} {origin}", toml(&setting.value))
        };
        assert_eq!(of("interface"), "\"nat\" plat.toml:1");
        assert_eq!(of("timers.udp"), "210 plat.d/1.toml:3");
        assert_eq!(of("timers.icmp"), "90 plat.toml:4");
        assert_eq!(of("timers.fragment"), "5 default");
    }

    /// What is shown can be written down and means the same.
    #[test]
    fn settings_are_toml() {
        let text = "pool = [\"203.0.113.0/28\", \"198.51.100.1\", \"198.51.100.10-198.51.100.20\", \
                    {address = \"198.51.100.99\", tcp = \"5-6\", udp = \"5-6\", icmp = \"5-6\"}]\n\
                    allow_destinations = [\"10.0.0.0/8\"]\n\
                    [[eam]]\nipv4 = \"192.0.2.7\"\nipv6 = \"2001:db8::7\"\n\
                    [[bib]]\nprotocol = \"icmp\"\nipv6 = \"[2001:db8::7]:9\"\n\
                    ipv4 = \"198.51.100.1:8\"";
        let first = settings(text);
        let mut written = String::new();
        for it in first.iter().filter(|it| !it.value.is_null()) {
            writeln!(written, "{} = {}", it.key, toml(&it.value)).unwrap();
        }
        assert_eq!(settings(&written), first);
    }
}
