//! Ports that the kernel gives to no program that does not ask for one of them:
//! `net.ipv4.ip_local_reserved_ports`.
//!
//! The setting is one list for everybody. Ours are added to it, and taken out again without those
//! that were there before, whatever else has changed meanwhile.

use std::{fmt::Write, io};

use plan::Ports;

/// The list, under `/proc/sys`. A new network namespace has one of its own.
pub(super) const SETTING: &str = "net/ipv4/ip_local_reserved_ports";

/// A set of ports.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct PortSet([u64; Self::WORDS]);

impl PortSet {
    const WORDS: usize = 65_536 / 64;

    /// As the kernel writes it: `1-5,8080`.
    ///
    /// # Errors
    /// When it is not written so.
    pub(super) fn parse(text: &str) -> io::Result<Self> {
        let mut set = Self([0; Self::WORDS]);
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| {
                let unreadable = |_| io::Error::other(format!("cannot be read: {part}"));
                text.parse::<u16>().map_err(unreadable)
            };
            set.insert(Ports {
                first: number(first)?,
                last: number(last)?,
            });
        }
        Ok(set)
    }

    pub(super) fn insert(&mut self, ports: Ports) {
        for port in ports.first..=ports.last {
            self.0[usize::from(port / 64)] |= 1 << (port % 64);
        }
    }

    /// Takes `ports` out, but not those that are in `spared`.
    pub(super) fn remove(&mut self, ports: Ports, spared: &Self) {
        for port in (ports.first..=ports.last).filter(|port| !spared.contains(*port)) {
            self.0[usize::from(port / 64)] &= !(1 << (port % 64));
        }
    }

    fn contains(&self, port: u16) -> bool {
        self.0[usize::from(port / 64)] >> (port % 64) & 1 == 1
    }

    /// For the kernel. Never nothing at all, since writing nothing changes nothing.
    pub(super) fn line(&self) -> String {
        let mut text = String::new();
        let mut first = None;
        for port in 0..=u16::MAX {
            let last = port == u16::MAX || !self.contains(port + 1);
            if !self.contains(port) {
                continue;
            }
            let from = *first.get_or_insert(port);
            if last {
                first = None;
                let comma = if text.is_empty() { "" } else { "," };
                let _ = write!(text, "{comma}{from}");
                if from != port {
                    let _ = write!(text, "-{port}");
                }
            }
        }
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Ports = Ports::ABOVE_EPHEMERAL;

    fn with_ours(text: &str) -> PortSet {
        let mut set = PortSet::parse(text).unwrap();
        set.insert(OURS);
        set
    }

    #[test]
    fn lists_are_read_and_written_as_the_kernel_does() {
        for text in [
            "\n",
            "8080\n",
            "1-5,8080,65535\n",
            "0-65535\n",
            "0,65534-65535\n",
        ] {
            assert_eq!(PortSet::parse(text).unwrap().line(), text);
        }
        assert!(PortSet::parse("1-").is_err() && PortSet::parse("65536").is_err());
        assert_eq!(with_ours("8080,61000").line(), "8080,61000-65535\n");
    }

    #[test]
    fn only_what_was_added_is_taken_out() {
        let before = PortSet::parse("8080,62000-62010").unwrap();
        let mut set = with_ours("8080,62000-62010");
        // Somebody else adds one meanwhile.
        set.insert(Ports {
            first: 9090,
            last: 9090,
        });
        set.remove(OURS, &before);
        assert_eq!(set.line(), "8080,9090,62000-62010\n");
    }
}
