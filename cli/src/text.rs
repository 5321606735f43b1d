//! Times and amounts for people.

use std::time::Duration;

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
