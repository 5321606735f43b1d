//! What `clat` and `plat` count, as they print it on SIGUSR1, and what the kernel counts at their
//! interfaces: whether a packet was lost, and whether anybody says so.

use std::{collections::BTreeMap, fs, time::Duration};

use nix::sys::signal::Signal;

use crate::{eventually, namespace::Namespace, process::Daemon};

const SOON: Duration = Duration::from_secs(3);

/// The word before each report.
const REPORT: &str = "so far";

/// What came from one side, and what was passed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Direction {
    /// Packets that came.
    pub came: u64,
    /// Packets that were translated, or are kept until others come.
    pub passed: u64,
}

/// What a program of ours has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By the name that the report gives it: `out` and `in`, `from IPv6` and `from IPv4`.
    pub directions: BTreeMap<String, Direction>,
    /// Why packets ended here, by the code of the reason, and how many.
    pub drops: BTreeMap<String, u64>,
}

impl Counters {
    /// What was counted under a name; nothing if there is none.
    #[must_use]
    pub fn direction(&self, name: &str) -> Direction {
        self.directions.get(name).copied().unwrap_or_default()
    }

    /// How many packets ended for this reason.
    #[must_use]
    pub fn dropped(&self, code: &str) -> u64 {
        self.drops.get(code).copied().unwrap_or_default()
    }

    fn parse(report: &[String]) -> Self {
        let mut counters = Self::default();
        for line in report {
            counters.take(line);
        }
        counters
    }

    fn take(&mut self, line: &str) {
        let line = line.trim();
        if let Some((count, code)) = reason(line) {
            *self.drops.entry(code).or_default() += count;
        } else if let Some((name, direction)) = direction(line) {
            self.directions.insert(name, direction);
        }
        for (code, words) in [
            ("refused-by-host", " packets refused by the host"),
            ("unreadable", " unreadable"),
        ] {
            if let Some(count) = number_before(line, words).filter(|it| *it != 0) {
                self.drops.insert(code.to_owned(), count);
            }
        }
    }
}

/// A line like `3 too-big: The packet does not fit.`
fn reason(line: &str) -> Option<(u64, String)> {
    let (before, _) = line.split_once(": ")?;
    let (count, code) = before.split_once(' ')?;
    Some((count.parse().ok()?, code.to_owned()))
}

/// A line like `out: 7 packets, 980 bytes, 6 translated, 1 dropped, 1 errors sent`.
fn direction(line: &str) -> Option<(String, Direction)> {
    let (name, rest) = line.split_once(": ")?;
    let passed = number_before(rest, " translated").or_else(|| number_before(rest, " passed"))?;
    let direction = Direction {
        came: number_before(rest, " packets,")?,
        passed: passed + number_before(rest, " kept").unwrap_or_default(),
    };
    Some((name.to_owned(), direction))
}

fn number_before(line: &str, words: &str) -> Option<u64> {
    let (before, _) = line.split_once(words)?;
    before.rsplit(' ').next()?.parse().ok()
}

impl Daemon {
    /// What this program, one of ours, has counted.
    ///
    /// # Panics
    /// If it does not say so.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let before = self.output().lines().count();
        self.signal(Signal::SIGUSR1);
        let report = || {
            let output = self.output();
            let lines = output.lines().skip(before);
            let from = lines.skip_while(|it| !it.contains(REPORT)).skip(1);
            from.map(str::to_owned).collect::<Vec<_>>()
        };
        // It comes at once, line by line: it is whole when no more comes.
        let mut last = Vec::new();
        let is_whole = eventually(SOON, || {
            let earlier = std::mem::replace(&mut last, report());
            !last.is_empty() && last == earlier
        });
        assert!(is_whole, "no report:\n{}", self.output());
        Counters::parse(&last)
    }
}

/// What the kernel has counted at an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Packets that came in.
    pub received: u64,
    /// Packets that went out: at a TUN device, those that the program has read.
    pub sent: u64,
    /// Packets that should have gone out, but the queue was full: the program was too slow.
    pub overflowed: u64,
}

impl Namespace {
    /// What was counted at an interface.
    ///
    /// # Panics
    /// If there is none of that name.
    #[must_use]
    pub fn device(&self, interface: &str) -> Device {
        let table = self.run(|| fs::read_to_string("/proc/thread-self/net/dev").expect("a table"));
        let start = format!("{interface}:");
        let line = table.lines().find_map(|it| it.trim().strip_prefix(&start));
        let line = line.unwrap_or_else(|| panic!("no {interface} in:\n{table}"));
        let columns: Vec<u64> = line
            .split_whitespace()
            .map(|it| it.parse().unwrap_or(0))
            .collect();
        // Eight columns of what is received, then of what is sent: bytes, packets, errors, drops.
        Device {
            received: columns[1],
            sent: columns[9],
            overflowed: columns[11],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read() {
        let clat = "out: 7 packets, 980 bytes, 5 translated, 2 dropped, 1 errors sent\n  \
                    1 too-big: It is 3 bytes too long: sorry.\n  1 multicast: No.\n\
                    from IPv6: 4 packets, 9 bytes, 1 passed, 2 kept, 1 dropped, 0 errors sent\n\
                    in: 4 packets, 9 bytes, 4 translated, 0 dropped, 0 errors sent\n\
                    link: 1 answers to neighbours, 3 packets refused by the host, 0 unreadable\n  \
                    2 multicast: No.\n 12:00 INFO TCP: 1 sessions (1 made)\n";
        let counters = Counters::parse(&clat.lines().map(str::to_owned).collect::<Vec<_>>());
        let names: Vec<_> = counters.directions.keys().collect();
        assert_eq!(names, ["from IPv6", "in", "out"]);
        let with_kept = counters.direction("from IPv6");
        assert_eq!(with_kept, Direction { came: 4, passed: 3 });
        assert_eq!(counters.direction("out"), Direction { came: 7, passed: 5 });
        assert_eq!(counters.drops.len(), 3);
        let dropped = ["too-big", "multicast", "refused-by-host", "unreadable"];
        assert_eq!(dropped.map(|it| counters.dropped(it)), [1, 3, 3, 0]);
    }
}
