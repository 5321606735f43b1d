//! [`Row`]: one line of a result, and the arithmetic behind it.

use std::fmt;

use serde::Serialize;

/// Who is measured, in every round in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// IPv6 without translation, from the same host.
    Native,
    /// Our program.
    Ours,
    /// The kernel's masquerade of nftables, from IPv4 to IPv4; only beside the PLAT.
    Masquerade,
    /// Debian's tayga, in our place; in the PLAT's, with the kernel's masquerade behind it.
    Peer,
}

impl Contender {
    pub(crate) const OF_CLAT: [Self; 3] = [Self::Native, Self::Ours, Self::Peer];

    pub(crate) const OF_PLAT: [Self; 4] = [Self::Native, Self::Masquerade, Self::Ours, Self::Peer];
}

/// One line of the result. The figures are medians.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: f64,
    pub(crate) native: Option<f64>,
    /// Tayga's.
    pub(crate) peer: Option<f64>,
    /// Ours to native.
    pub(crate) ratio: Option<f64>,
    /// The ratio to reach; for what has no ratio, the most that `ours` may be.
    pub(crate) target: Option<f64>,
    /// The kernel's masquerade's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) masquerade: Option<f64>,
    /// Ours to the masquerade's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) masquerade_ratio: Option<f64>,
    /// The ratio to the masquerade to reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) masquerade_target: Option<f64>,
    /// Ours to the peer.
    pub(crate) peer_ratio: Option<f64>,
    /// The ratio to the peer to reach.
    pub(crate) peer_target: Option<f64>,
    /// The smallest and largest of our rounds.
    pub(crate) spread: [f64; 2],
}

/// What every contender reached in every round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds {
    native: Vec<f64>,
    masquerade: Vec<f64>,
    ours: Vec<f64>,
    peer: Vec<f64>,
}

impl Rounds {
    pub(crate) fn push(&mut self, contender: Contender, value: f64) {
        match contender {
            Contender::Native => self.native.push(value),
            Contender::Masquerade => self.masquerade.push(value),
            Contender::Ours => self.ours.push(value),
            Contender::Peer => self.peer.push(value),
        }
    }

    /// The medians of all, and their ratios.
    pub(crate) fn row(&self, name: &str, unit: &'static str) -> Row {
        let ours = median(&self.ours).unwrap_or_default();
        let to = |other: Option<f64>| other.filter(|it| *it > 0.0).map(|other| ours / other);
        let (native, peer) = (median(&self.native), median(&self.peer));
        let least = self.ours.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.ours.iter().copied().fold(0.0, f64::max);
        Row {
            name: name.to_owned(),
            unit,
            ours,
            native,
            peer,
            masquerade: median(&self.masquerade),
            masquerade_ratio: to(median(&self.masquerade)),
            ratio: to(native),
            peer_ratio: to(peer),
            spread: [least, most],
            ..Row::default()
        }
    }
}

impl Row {
    /// What is to be reached, of native and of the peer.
    pub(crate) fn with_targets(self, target: f64, peer_target: Option<f64>) -> Self {
        Self {
            target: Some(target),
            peer_target,
            ..self
        }
    }

    /// What is to be reached, of the kernel's masquerade and of the peer.
    pub(crate) fn beside_masquerade(self, target: f64, peer_target: Option<f64>) -> Self {
        Self {
            masquerade_target: Some(target),
            peer_target,
            ..self
        }
    }

    /// The most that ours may be.
    pub(crate) fn at_most(self, target: f64) -> Self {
        Self {
            target: Some(target),
            ..self
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), figure);
        write!(
            f,
            "{:<28} {:>8} {:<11} native {:>7}  tayga {:>7}",
            self.name,
            figure(self.ours),
            self.unit,
            show(self.native),
            show(self.peer),
        )?;
        match (self.ratio, self.target) {
            (Some(ratio), Some(target)) => write!(f, "  ratio {ratio:.2} (to reach {target})")?,
            (Some(ratio), None) => write!(f, "  ratio {ratio:.2}")?,
            (None, Some(target)) => write!(f, "  at most {target}")?,
            (None, None) => {}
        }
        if let Some(masquerade) = self.masquerade {
            write!(f, "  masquerade {:>7}", figure(masquerade))?;
        }
        if let Some(ratio) = self.masquerade_ratio {
            write!(f, " {ratio:.2}")?;
        }
        if let Some(target) = self.masquerade_target {
            write!(f, " (to reach {target})")?;
        }
        if let Some(ratio) = self.peer_ratio {
            write!(f, "  to tayga {ratio:.2}")?;
        }
        if let Some(target) = self.peer_target {
            write!(f, " (to reach {target})")?;
        }
        let [least, most] = self.spread;
        write!(f, "  rounds {} to {}", figure(least), figure(most))
    }
}

/// Three significant digits.
fn figure(value: f64) -> String {
    let digits = match value.abs() {
        it if it >= 100.0 => 0,
        it if it >= 10.0 => 1,
        it if it >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// The value that 99 of 100 do not exceed.
pub(crate) fn p99(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
        .get((sorted.len() * 99).div_ceil(100).checked_sub(1)?)
        .copied()
}

/// The middle one; of an even number, the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn one_of_a_hundred_exceeds_p99() {
        assert_eq!(p99(&[]), None);
        assert_eq!(p99(&[7.0]), Some(7.0));
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(p99(&values), Some(198.0));
    }

    #[test]
    fn a_row_is_compared_with_the_masquerade() {
        let mut rounds = Rounds::default();
        rounds.push(Contender::Masquerade, 10.0);
        rounds.push(Contender::Ours, 7.0);
        rounds.push(Contender::Peer, 0.5);
        let row = rounds
            .row("tcp", "Gbit/s")
            .beside_masquerade(0.6, Some(10.0));
        assert_eq!((row.masquerade_ratio, row.ratio), (Some(0.7), None));
        let shown = row.to_string();
        assert!(
            shown.contains("0.70 (to reach 0.6)  to tayga 14.00 (to reach 10)"),
            "{shown}"
        );
    }

    #[test]
    fn a_row_compares_medians() {
        let mut rounds = Rounds::default();
        for (native, ours, peer) in [(10.0, 6.0, 1.0), (12.0, 5.0, 1.0), (8.0, 7.0, 3.0)] {
            rounds.push(Contender::Native, native);
            rounds.push(Contender::Ours, ours);
            rounds.push(Contender::Peer, peer);
        }
        let row = rounds
            .row("tcp out", "Gbit/s")
            .with_targets(0.65, Some(8.0));
        assert_eq!(
            (row.ours, row.native, row.peer),
            (6.0, Some(10.0), Some(1.0))
        );
        assert_eq!((row.ratio, row.peer_ratio), (Some(0.6), Some(6.0)));
        assert_eq!(row.spread, [5.0, 7.0]);
        assert!(row.to_string().contains("ratio 0.60 (to reach 0.65)"));
    }

    #[test]
    fn what_was_not_measured_has_no_ratio() {
        let mut rounds = Rounds::default();
        rounds.push(Contender::Ours, 5.0);
        let row = rounds.row("x", "ns");
        assert_eq!((row.native, row.ratio, row.peer_ratio), (None, None, None));
    }
}
