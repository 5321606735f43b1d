//! Times and amounts for people.

use std::time::Duration;

/// Whether an interface of ours can have this name: the kernel takes it, it means one interface in
/// every place it stands in, and neither a path nor a firewall rule can be broken by it.
#[must_use]
pub fn is_interface_name(name: &str) -> bool {
    let usual = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let reserved = ["all", "default", "lo", ".", ".."].contains(&name);
    (1..=15).contains(&name.len()) && name.chars().all(usual) && !reserved
}

/// A duration as people say it: `29m 51s`, `2h 5m`, `45s`.
#[must_use]
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    match (hours, minutes, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, 0) => format!("{minutes}m"),
        (0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (hours, 0, _) => format!("{hours}h"),
        (hours, minutes, _) => format!("{hours}h {minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_mean_something_else_are_no_interface_names() {
        for name in ["clat0", "a", "wan.2", "0123456789abcde"] {
            assert!(is_interface_name(name), "{name}");
        }
        for name in [
            "",
            "lo",
            "all",
            "default",
            ".",
            "..",
            "../x",
            "a b",
            "plat%d",
            "0123456789abcdef",
        ] {
            assert!(!is_interface_name(name), "{name}");
        }
    }

    #[test]
    fn durations_have_at_most_two_parts() {
        for (seconds, wanted) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (1791, "29m 51s"),
            (3600, "1h"),
            (7530, "2h 5m"),
            (65528, "18h 12m"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), wanted);
        }
    }
}
