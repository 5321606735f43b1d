//! Jool's atomic configuration: JSON.

use std::{fmt, ops::RangeInclusive};

use cli::{Exit, Failure};
use nat64::{
    config::{Limits, Timers},
    destinations::Network4,
};
use pref64::{Pref64, eam::Eam};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use self::defaults::DEFAULTS;
use super::Import;

mod defaults;
#[cfg(test)]
mod tests;

/// The members of an object, in order, each as its text.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;

        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
                    members.push((key.to_ascii_lowercase(), value));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(All)
    }
}

struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    import: Import,
    prefixes: Vec<String>,
    pool: Vec<Addresses>,
}

/// An entry of `pool4`, with its protocols put together.
struct Addresses {
    prefix: String,
    /// For TCP, UDP and ICMP.
    ports: [Vec<String>; 3],
}

pub(super) fn read(name: &str, text: &str) -> Result<Import, Failure> {
    let mut reader = Reader {
        name,
        text,
        import: Import::default(),
        prefixes: Vec::new(),
        pool: Vec::new(),
    };
    let whole: Members<'_> = serde_json::from_str(text).map_err(|it| reader.broken(0, &it))?;
    for (key, value) in whole.0 {
        match key.as_str() {
            "global" => reader.globals(value)?,
            "pool4" => reader.each(value, Reader::pool4)?,
            "bib" => reader.each(value, Reader::bib)?,
            "eamt" => reader.each(value, Reader::eam)?,
            // Names of things that are nothing here.
            "instance" | "framework" | "comment" => {}
            _ => reader.refuse(value, &key, "plat has nothing like it"),
        }
    }
    Ok(reader.finish())
}

impl<'a> Reader<'a> {
    /// The line that a value begins in.
    fn line(&self, value: &RawValue) -> usize {
        let at = (value.get().as_ptr() as usize).checked_sub(self.text.as_ptr() as usize);
        let before = at.and_then(|at| self.text.get(..at)).unwrap_or_default();
        before.matches('\n').count() + 1
    }

    fn refuse(&mut self, value: &RawValue, what: &str, why: impl fmt::Display) {
        let line = self.line(value);
        self.import
            .refuse(line, format_args!("{what} {}", value.get()), why);
    }

    fn broken(&self, lines_before: usize, error: &serde_json::Error) -> Failure {
        let (name, line) = (self.name, lines_before + error.line());
        Failure::new(Exit::Usage, format_args!("{name}:{line}: {error}"))
    }

    fn parse<T: Deserialize<'a>>(&self, value: &'a RawValue) -> Result<T, Failure> {
        let before = self.line(value) - 1;
        serde_json::from_str(value.get()).map_err(|error| self.broken(before, &error))
    }

    fn each(
        &mut self,
        list: &'a RawValue,
        take: fn(&mut Self, &'a RawValue, &[(String, Value)]),
    ) -> Result<(), Failure> {
        for entry in self.parse::<Vec<&RawValue>>(list)? {
            let members: Members<'_> = self.parse(entry)?;
            let mut values = Vec::with_capacity(members.0.len());
            for (key, value) in members.0 {
                values.push((key, self.parse::<Value>(value)?));
            }
            take(self, entry, &values);
        }
        Ok(())
    }

    fn globals(&mut self, value: &'a RawValue) -> Result<(), Failure> {
        for (key, raw) in self.parse::<Members<'_>>(value)?.0 {
            let value: Value = self.parse(raw)?;
            if let Err(why) = self.global(&key, &value) {
                self.refuse(raw, &key, why);
            }
        }
        Ok(())
    }

    fn global(&mut self, key: &str, value: &Value) -> Result<(), String> {
        let least = Timers::default();
        let (established, transitory) = (least.tcp_established, least.tcp_transitory);
        let (established, transitory) = (established.as_secs(), transitory.as_secs());
        let most_syns = Limits::MOST as u64;
        match key {
            "pool6" => self.prefix(value),
            "tcp-est-timeout" => self.timer("tcp_established", value, established..=MONTH),
            "tcp-trans-timeout" => self.timer("tcp_transitory", value, transitory..=MONTH),
            "udp-timeout" => self.timer("udp", value, 120..=MONTH),
            "icmp-timeout" => self.timer("icmp", value, 60..=MONTH),
            "lowest-ipv6-mtu" => self.number("fragment_above", value, 1280..=65_535),
            "address-dependent-filtering" => self.filtering(value),
            "handle-rst-during-fin-rcv" => {
                let value = truth(value)?;
                self.push(format!("tcp.reset_after_fin = {value}"));
                Ok(())
            }
            "maximum-simultaneous-opens" => self.number("limits.stored_syns", value, 1..=most_syns),
            "comment" => Ok(()),
            _ => match DEFAULTS.iter().find(|(name, ..)| *name == key) {
                Some((_, same, why)) if !is(value, same) => Err((*why).to_owned()),
                Some(_) => Ok(()),
                None => Err("plat has nothing like it".to_owned()),
            },
        }
    }

    fn push(&mut self, line: String) {
        self.import.lines.push(line);
    }

    fn prefix(&mut self, value: &Value) -> Result<(), String> {
        if value.is_null() {
            return Ok(());
        }
        let prefix = text(value)?.parse::<Pref64>();
        let prefix = prefix.map_err(|it| it.to_string())?;
        self.prefixes.push(prefix.to_string());
        Ok(())
    }

    fn filtering(&mut self, value: &Value) -> Result<(), String> {
        let by = match truth(value)? {
            true => "address-dependent",
            false => "endpoint-independent",
        };
        for protocol in ["tcp", "udp", "icmp"] {
            self.push(format!("filtering.{protocol} = {by:?}"));
        }
        Ok(())
    }

    fn number(
        &mut self,
        key: &str,
        value: &Value,
        possible: RangeInclusive<u64>,
    ) -> Result<(), String> {
        match value.as_u64().filter(|it| possible.contains(it)) {
            Some(number) => {
                self.push(format!("{key} = {number}"));
                Ok(())
            }
            None => {
                let (least, most) = (possible.start(), possible.end());
                Err(format!("it must be from {least} to {most} here"))
            }
        }
    }

    fn timer(
        &mut self,
        key: &str,
        value: &Value,
        possible: RangeInclusive<u64>,
    ) -> Result<(), String> {
        let seconds = seconds(value).ok_or("this is no duration")?;
        if !possible.contains(&seconds) {
            let (least, most) = (possible.start(), possible.end());
            return Err(format!("it must be from {least} to {most} seconds here"));
        }
        self.import.timers.push(format!("{key} = {seconds}"));
        Ok(())
    }

    fn pool4(&mut self, raw: &'a RawValue, entry: &[(String, Value)]) {
        if let Err(why) = self.pool_entry(entry) {
            self.refuse(raw, "pool4", why);
        }
    }

    fn pool_entry(&mut self, entry: &[(String, Value)]) -> Result<(), String> {
        let mut prefix = None;
        let mut protocol = None;
        let mut ports = "1-65535".to_owned();
        for (key, value) in entry {
            match key.as_str() {
                "prefix" => {
                    let network = text(value)?.parse::<Network4>();
                    prefix = Some(network.map_err(|it| it.to_string())?.to_string());
                }
                "protocol" => protocol = Some(protocol_of(value)?),
                "port range" => ports = port_range(value)?,
                "mark" if is(value, "0") => {}
                "mark" => return Err("plat has no pools for marked packets".to_owned()),
                // How long to look for a free port: here it is found at once.
                "comment" | "max-iterations" => {}
                other => return Err(format!("plat knows no `{other}` here")),
            }
        }
        let prefix = prefix.ok_or("it has no prefix")?;
        let protocol = protocol.ok_or("it has no protocol")?;
        match self.pool.iter_mut().find(|it| it.prefix == prefix) {
            Some(addresses) => addresses.ports[protocol].push(ports),
            None => {
                let mut addresses = Addresses {
                    prefix,
                    ports: [const { Vec::new() }; 3],
                };
                addresses.ports[protocol].push(ports);
                self.pool.push(addresses);
            }
        }
        Ok(())
    }

    fn bib(&mut self, raw: &'a RawValue, entry: &[(String, Value)]) {
        let get = |key| entry.iter().find(|(it, _)| it == key).map(|(_, it)| it);
        let endpoint = |key| get(key).and_then(Value::as_str)?.rsplit_once('#');
        let protocol = get("protocol")
            .ok_or_else(String::new)
            .and_then(protocol_of);
        let ends = (endpoint("ipv6 address"), endpoint("ipv4 address"));
        let (Ok(protocol), (Some(v6), Some(v4))) = (protocol, ends) else {
            let why = "a binding has a protocol, an IPv6 address and an IPv4 address with #port";
            return self.refuse(raw, "bib", why);
        };
        let protocol = ["tcp", "udp", "icmp"][protocol];
        let (v6, v4) = (format!("[{}]:{}", v6.0, v6.1), format!("{}:{}", v4.0, v4.1));
        self.import.tables.push(format!(
            "[[bib]]\nprotocol = {protocol:?}\nipv6 = {v6:?}\nipv4 = {v4:?}\n"
        ));
    }

    fn eam(&mut self, raw: &'a RawValue, entry: &[(String, Value)]) {
        let get = |key| {
            let found = entry.iter().find(|(it, _)| it == key);
            found.and_then(|(_, it)| it.as_str()).unwrap_or_default()
        };
        let (v4, v6) = (get("ipv4 prefix"), get("ipv6 prefix"));
        match Eam::parse(v4, v6) {
            Ok(_) => {
                let table = format!("[[eam]]\nipv4 = {v4:?}\nipv6 = {v6:?}\n");
                self.import.tables.push(table);
            }
            Err(error) => self.refuse(raw, "eamt", error),
        }
    }

    fn finish(mut self) -> Import {
        self.import.list("prefixes", &self.prefixes);
        let mut pool = Vec::new();
        for Addresses { prefix, ports } in self.pool {
            let [tcp, udp, icmp] = ports.map(|ranges| match ranges.as_slice() {
                [] => "none".to_owned(),
                ranges => ranges.join(","),
            });
            // Jool gives out every address of a prefix, the first and the last too.
            pool.push(format!(
                "{{ cidr = {prefix:?}, tcp = {tcp:?}, udp = {udp:?}, icmp = {icmp:?} }}"
            ));
        }
        if !pool.is_empty() {
            let lines = pool.join(",\n    ");
            self.import.lines.push(format!("pool = [\n    {lines},\n]"));
        }
        self.import
    }
}

/// What plat's timers are at most.
const MONTH: u64 = 30 * 24 * 3600;

/// Whether it is what plat does anyway; numbers may be written as texts.
fn is(value: &Value, same: &str) -> bool {
    let same_value: Option<Value> = serde_json::from_str(same).ok();
    same_value.as_ref() == Some(value) || value.as_str() == Some(same)
}

fn truth(value: &Value) -> Result<bool, String> {
    let truth = value.as_bool();
    truth.ok_or_else(|| "this is neither true nor false".to_owned())
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| "this is no text".to_owned())
}

fn protocol_of(value: &Value) -> Result<usize, String> {
    match text(value)?.to_ascii_uppercase().as_str() {
        "TCP" => Ok(0),
        "UDP" => Ok(1),
        "ICMP" => Ok(2),
        _ => Err("this is no protocol".to_owned()),
    }
}

/// Jool's ranges may begin at 0, which is no port.
fn port_range(value: &Value) -> Result<String, String> {
    let written = text(value)?;
    let (first, last) = written.split_once('-').unwrap_or((written, written));
    let port = |it: &str| {
        it.trim()
            .parse::<u16>()
            .map_err(|_| "this is no range of ports")
    };
    let (first, last) = (port(first)?.max(1), port(last)?);
    if first > last {
        return Err("there is no port in this range".to_owned());
    }
    Ok(format!("{first}-{last}"))
}

/// `HH:MM:SS.mmm`, of which the front and the end may be missing; a number is seconds.
fn seconds(value: &Value) -> Option<u64> {
    if let Some(seconds) = value.as_u64() {
        return Some(seconds);
    }
    let whole = value.as_str()?.split('.').next()?;
    let mut seconds = 0u64;
    for part in whole.split(':') {
        seconds = seconds.checked_mul(60)?.checked_add(part.parse().ok()?)?;
    }
    Some(seconds)
}
