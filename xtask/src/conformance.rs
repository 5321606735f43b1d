//! `cargo xtask conformance`: the rules of `docs/conformance.md`, and the tests that carry their
//! names.
//!
//! A test is named after the rule it shows: `XLAT-4.1-03` by `fn xlat_4_1_03_…`. A rule without a
//! test has a line in `docs/rfc.md` that says why not yet: `| XLAT-4.1-03 | with what | why |`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use clap::Args;

use crate::run::{Result, root};

const CHECKLIST: &str = "docs/conformance.md";
const PLANNED: &str = "docs/rfc.md";

/// Arguments of the list.
#[derive(Debug, Args)]
pub(crate) struct Conformance {
    /// Only rules whose identifier starts with this, in capitals or not
    filter: Option<String>,
}

impl Conformance {
    /// Every rule.
    pub(crate) fn all() -> Self {
        Self { filter: None }
    }

    /// Prints the list.
    ///
    /// # Errors
    /// If a rule has neither a test nor a reason, something names a rule that there is not, or the
    /// filter leaves none.
    pub(crate) fn run(&self) -> Result {
        let read = |path: &str| {
            fs::read_to_string(root().join(path)).map_err(|error| format!("{path}: {error}"))
        };
        let list = List {
            rules: rules(&read(CHECKLIST)?),
            planned: planned(&read(PLANNED)?),
            tests: find_tests(&root())?,
        };
        let filter = self.filter.as_deref().unwrap_or_default().to_uppercase();
        if !list.rules.iter().any(|it| it.starts_with(&filter)) {
            return Err(format!("no rule in {CHECKLIST} starts with {filter}"));
        }
        print(&list.shown(&filter))?;
        let complaints = list.complaints();
        if complaints.is_empty() {
            Ok(())
        } else {
            Err(complaints.join("\n       "))
        }
    }
}

/// Prints to standard output. Whoever reads may have seen enough before the end.
fn print(text: &str) -> Result {
    let mut output = io::stdout().lock();
    match output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("standard output: {error}"))
        }
        _ => Ok(()),
    }
}

/// A test function and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Test {
    name: String,
    place: String,
}

struct List {
    /// Identifiers, in the order of the checklist.
    rules: Vec<String>,
    /// With what a rule is planned, and why not now.
    planned: BTreeMap<String, String>,
    tests: Vec<Test>,
}

impl List {
    fn tests_of(&self, rule: &str) -> impl Iterator<Item = &Test> {
        let start = format!("{}_", function_prefix(rule));
        self.tests
            .iter()
            .filter(move |it| it.name.starts_with(&start))
    }

    fn shown(&self, filter: &str) -> String {
        let mut text = String::new();
        let (mut tested, mut without) = (0, 0);
        for rule in self.rules.iter().filter(|it| it.starts_with(filter)) {
            let tests: Vec<_> = self.tests_of(rule).collect();
            if !tests.is_empty() {
                tested += 1;
            } else if let Some(why) = self.planned.get(rule) {
                without += 1;
                let _ = writeln!(text, "{rule:<18} no test: {why}");
            } else {
                let _ = writeln!(text, "{rule:<18} NOTHING");
            }
            for test in tests {
                let _ = writeln!(text, "{rule:<18} {} ({})", test.name, test.place);
            }
        }
        let _ = writeln!(text, "{tested} rules tested, {without} without a test");
        text
    }

    fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for rule in &self.rules {
            match (self.tests_of(rule).count(), self.planned.contains_key(rule)) {
                (0, false) => complaints.push(format!(
                    "{rule} has no test that runs, and {PLANNED} does not say why"
                )),
                (1.., true) => {
                    complaints.push(format!("{rule} has a test, but {PLANNED} calls it planned"));
                }
                (0, true) | (1.., false) => {}
            }
        }
        let known: BTreeSet<_> = self.rules.iter().collect();
        for rule in self.planned.keys().filter(|it| !known.contains(it)) {
            complaints.push(format!(
                "{PLANNED} names {rule}, which is not in {CHECKLIST}"
            ));
        }
        let families: BTreeSet<_> = self.rules.iter().map(|it| family(it)).collect();
        for test in &self.tests {
            let named_after_a_rule = self.rules.iter().any(|rule| {
                test.name
                    .starts_with(&format!("{}_", function_prefix(rule)))
            });
            if !named_after_a_rule && looks_like_a_rule(&test.name, &families) {
                let Test { name, place } = test;
                complaints.push(format!(
                    "{name} ({place}) is named after a rule that is not in {CHECKLIST}"
                ));
            }
        }
        complaints
    }
}

/// `XLAT-4.1-03` as the beginning of a function's name.
fn function_prefix(rule: &str) -> String {
    rule.to_lowercase().replace(['-', '.'], "_")
}

/// `xlat` of `XLAT-4.1-03`.
fn family(rule: &str) -> String {
    rule.split('-').next().unwrap_or_default().to_lowercase()
}

/// A name like `xlat_4_01_…`: a family, then at least two numbers.
fn looks_like_a_rule(name: &str, families: &BTreeSet<String>) -> bool {
    let mut parts = name.split('_');
    let is_family = parts.next().is_some_and(|it| families.contains(it));
    let numbers = parts.take_while(|it| it.parse::<u16>().is_ok());
    is_family && numbers.count() >= 2
}

/// The identifiers in a checklist: items like `- XLAT-4.1-03 M  Text`.
fn rules(checklist: &str) -> Vec<String> {
    let items = checklist.lines().filter_map(|line| line.strip_prefix("- "));
    let words = items.filter_map(|item| item.split_whitespace().next());
    words
        .filter(|word| is_rule(word))
        .map(str::to_owned)
        .collect()
}

fn is_rule(word: &str) -> bool {
    let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || "-.".contains(c);
    let number = word.rsplit('-').next().unwrap_or_default();
    word.contains('-')
        && word.chars().all(allowed)
        && word.starts_with(|c: char| c.is_ascii_uppercase())
        && !number.is_empty()
        && number.chars().all(|c| c.is_ascii_digit())
}

/// The rows `| RULE | with what | why |` of the section that is about them.
fn planned(document: &str) -> BTreeMap<String, String> {
    let (_, section) = document.split_once("\n## Planned\n").unwrap_or_default();
    let rows = section.lines().filter_map(|line| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        let rule = cells.next().filter(|it| is_rule(it))?;
        let rest: Vec<_> = cells.filter(|it| !it.is_empty()).collect();
        Some((rule.to_owned(), rest.join(": ")))
    });
    rows.collect()
}

/// Every test function below `root`.
fn find_tests(root: &Path) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for file in rust_files(root)? {
        let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
        let path = file.strip_prefix(root).unwrap_or(&file);
        tests.extend(tests_in(&text).into_iter().map(|(line, name)| Test {
            name,
            place: format!("{}:{line}", path.display()),
        }));
    }
    Ok(tests)
}

fn rust_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| format!("{}: {error}", directory.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                files.extend(rust_files(&path)?);
            }
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The functions under `#[test]` or `#[tokio::test]`, with their lines. Those in strings and macros
/// of other crates do not count, nor those that are ignored; those in `proptest!` do.
fn tests_in(text: &str) -> Vec<(usize, String)> {
    let mut tests = Vec::new();
    let (mut is_test, mut is_ignored) = (false, false);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line == "#[test]" || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if line.starts_with("#[ignore") {
            is_ignored = true;
        } else if let Some(rest) = function(line) {
            let name = rest.split(['(', '<']).next().unwrap_or_default();
            if is_test && !is_ignored {
                tests.push((index + 1, name.trim().to_owned()));
            }
            (is_test, is_ignored) = (false, false);
        } else if !line.starts_with("#[") && !line.starts_with("//") && line.ends_with('}') {
            (is_test, is_ignored) = (false, false);
        }
    }
    tests
}

/// What follows `fn` in a line that begins a function.
fn function(line: &str) -> Option<&str> {
    let line = line.strip_prefix("async ").unwrap_or(line);
    line.strip_prefix("fn ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(tests: &[&str], planned_rows: &str) -> List {
        let test = |name: &&str| Test {
            name: (*name).to_owned(),
            place: "x.rs:1".to_owned(),
        };
        List {
            rules: rules("- XLAT-4-01 S  Order\n- XLAT-4.1-01 M  Size\n- not a rule\n"),
            planned: planned(&format!("\n## Planned\n{planned_rows}")),
            tests: tests.iter().map(test).collect(),
        }
    }

    #[test]
    fn rules_are_found_in_the_checklist() {
        let text =
            "# 1\n- XLAT-4.1-01 M  x\n- CLAT-C-01 (C)  y\n- HA-01 I  z\n- A word - 1\n-  D\n";
        assert_eq!(rules(text), ["XLAT-4.1-01", "CLAT-C-01", "HA-01"]);
    }

    #[test]
    fn tests_are_found_in_sources() {
        let text = "#[test]\n#[expect(x, reason = \"y\")]\nfn xlat_4_01_a() {\n}\nfn helper() {}\n\
                    #[test]\n// Why.\nfn b(x in 0..3) {\n";
        assert_eq!(tests_in(text), [(3, "xlat_4_01_a".into()), (8, "b".into())]);
    }

    #[test]
    fn tests_that_wait_are_found_too() {
        let text = "#[tokio::test]\nasync fn a() {\n}\n\n#[tokio::test(start_paused = true)]\n\
                    async fn b() {\n}\nasync fn helper() {}\n";
        assert_eq!(tests_in(text), [(2, "a".into()), (6, "b".into())]);
    }

    #[test]
    fn a_test_that_is_ignored_does_not_count() {
        let text = "#[test]\n#[ignore]\nfn a() {\n}\n\n#[ignore = \"slow\"]\n#[test]\nfn b() {\n}\n\n\
                    #[test]\nfn c() {\n}\n";
        assert_eq!(tests_in(text), [(12, "c".into())]);
    }

    #[test]
    fn one_rule_is_not_taken_for_another() {
        let list = list(&["xlat_4_1_01_a", "xlat_4_01_b"], "");
        let names = |rule| {
            list.tests_of(rule)
                .map(|it| it.name.as_str())
                .collect::<Vec<_>>()
        };
        assert_eq!(names("XLAT-4-01"), ["xlat_4_01_b"]);
        assert_eq!(names("XLAT-4.1-01"), ["xlat_4_1_01_a"]);
        assert!(list.complaints().is_empty());
    }

    #[test]
    fn a_rule_needs_a_test_or_a_reason_and_not_both() {
        let row = "| XLAT-4-01 | later | no time |\n";
        assert_eq!(list(&["xlat_4_1_01_a"], "").complaints().len(), 1);
        assert_eq!(list(&["xlat_4_1_01_a"], row).complaints().len(), 0);
        assert_eq!(
            list(&["xlat_4_1_01_a", "xlat_4_01_b"], row)
                .complaints()
                .len(),
            1
        );
        assert!(
            list(&[], row)
                .shown("XLAT-4-")
                .contains("no test: later: no time")
        );
    }

    #[test]
    fn names_of_rules_that_do_not_exist_are_found() {
        let both = ["xlat_4_1_01_a", "xlat_4_01_b"];
        let with = |more| list(&[&both[..], &[more]].concat(), "").complaints().len();
        assert_eq!(with("xlat_4_1_99_c"), 1);
        assert_eq!(with("xlat_4_is_fine"), 0);
        assert_eq!(list(&both, "| XLAT-9-01 | later | |").complaints().len(), 1);
    }
}
