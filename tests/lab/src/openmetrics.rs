//! What a Prometheus server reads, read as strictly as its format is written (OpenMetrics 1.0).

use std::collections::{BTreeMap, BTreeSet};

/// The labels of a sample, by name.
pub type Labels = BTreeMap<String, String>;

/// One scrape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrape {
    /// Families and what they are: `counter` or `gauge`.
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<(String, Labels), u64>,
}

impl Scrape {
    /// Reads the text of a scrape.
    ///
    /// # Errors
    /// The first thing that is not as it must be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let body = text.strip_suffix("# EOF\n").ok_or("it does not end")?;
        let mut scrape = Self::default();
        let mut family = String::new();
        let mut over = BTreeSet::new();
        for line in body.lines() {
            let wrong = |why: &str| format!("{why}: {line}");
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').ok_or_else(|| wrong("no kind"))?;
                if !["counter", "gauge"].contains(&kind) {
                    return Err(wrong("no kind of ours"));
                }
                over.insert(std::mem::replace(&mut family, name.to_owned()));
                let again = scrape.kinds.insert(name.to_owned(), kind.to_owned());
                if again.is_some() || over.contains(name) {
                    return Err(wrong("a family is told of twice"));
                }
            } else if !line.starts_with("# HELP ") {
                let (name, labels, value) = sample(line).ok_or_else(|| wrong("no sample"))?;
                let kind = scrape.kinds.get(&family).map(String::as_str);
                let expected = match kind {
                    Some("counter") => format!("{family}_total"),
                    _ => family.clone(),
                };
                if kind.is_none() || name != expected {
                    return Err(wrong("it is of another family"));
                }
                if scrape.samples.insert((name, labels), value).is_some() {
                    return Err(wrong("it is there twice"));
                }
            }
        }
        Ok(scrape)
    }

    /// The sum of the samples of this name that have these labels, and maybe others.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let has = |all: &Labels| {
            let mut labels = labels.iter();
            labels.all(|(name, value)| all.get(*name).is_some_and(|it| it == value))
        };
        let all = self.samples.iter();
        all.filter(|((its, all), _)| its == name && has(all))
            .map(|(_, value)| value)
            .sum()
    }

    /// Every value of a label; a sample without it counts as one with nothing.
    #[must_use]
    pub fn values(&self, label: &str) -> BTreeSet<String> {
        let all = self.samples.keys();
        all.map(|(_, labels)| labels.get(label).cloned().unwrap_or_default())
            .collect()
    }

    /// Counters that this earlier scrape has more of, or that are missing now.
    #[must_use]
    pub fn shrunk_since(&self, earlier: &Self) -> Vec<String> {
        let counters = earlier.samples.iter();
        let counters = counters.filter(|((name, _), _)| name.ends_with("_total"));
        counters
            .filter(|(key, before)| self.samples.get(*key).is_none_or(|now| now < *before))
            .map(|((name, labels), _)| format!("{name} {labels:?}"))
            .collect()
    }
}

/// `name{label="value",...} 7`. No label of ours has anything in it that would be escaped.
fn sample(line: &str) -> Option<(String, Labels, u64)> {
    let (before, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let (name, labels) = match before.split_once('{') {
        None => (before, ""),
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
    };
    let is_name = |it: &str| {
        let usual = |c: char| c.is_ascii_alphanumeric() || c == '_';
        it.chars().all(usual) && it.starts_with(|c: char| !c.is_ascii_digit())
    };
    let mut all = Labels::new();
    for label in labels.split(',').filter(|it| !it.is_empty()) {
        let (name, value) = label.split_once('=')?;
        let value = value.strip_prefix('"')?.strip_suffix('"')?;
        let is_new = all.insert(name.to_owned(), value.to_owned()).is_none();
        if !is_name(name) || !is_new || value.contains(['"', '\\', '\n']) {
            return None;
        }
    }
    is_name(name).then(|| (name.to_owned(), all, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: &str = "# HELP a_b Things.\n# TYPE a_b gauge\na_b{x=\"1\",y=\"2\"} 3\n\
                         a_b{x=\"2\",y=\"2\"} 4\n# TYPE c counter\nc_total 5\n# EOF\n";

    #[test]
    fn a_scrape_is_read() {
        let scrape = Scrape::parse(RIGHT).unwrap();
        assert_eq!(scrape.sum("a_b", &[("y", "2")]), 7);
        assert_eq!(scrape.sum("a_b", &[("x", "2")]), 4);
        assert_eq!(scrape.sum("c_total", &[]), 5);
        let values = scrape.values("x").into_iter().collect::<Vec<_>>();
        assert_eq!(values, ["", "1", "2"]);
        let later = Scrape::parse(&RIGHT.replace("c_total 5", "c_total 4")).unwrap();
        assert_eq!(later.shrunk_since(&scrape).len(), 1);
        assert!(scrape.shrunk_since(&later).is_empty());
    }

    #[test]
    fn what_is_wrong_is_not_read() {
        for (from, to) in [
            ("# EOF\n", ""),
            ("c_total 5", "c 5"),
            ("c_total 5", "d_total 5"),
            ("c_total 5", "c_total 5x"),
            ("a_b{x=\"2\"", "a_b{x=\"1\""),
            ("a_b{x=\"2\"", "a_b{x=2"),
            ("a_b{x=\"2\"", "a_b{1x=\"2\""),
            ("# TYPE c counter", "# TYPE a_b counter"),
            ("# TYPE c counter", "# TYPE c thing"),
        ] {
            let text = RIGHT.replace(from, to);
            assert_ne!(text, RIGHT);
            assert!(Scrape::parse(&text).is_err(), "{text}");
        }
    }
}
