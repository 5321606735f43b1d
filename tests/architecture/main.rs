//! The rules of ARCHITECTURE.md, checked against the sources: which crate may use which, where
//! `unsafe` and `cfg(target_os)` may stand, and that the lints are on everywhere.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a source that cannot be read fails the test"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

mod purity;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

fn read(path: &str) -> String {
    let file = root().join(path);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Our crates, as cargo sees them: name, directory in the workspace, and what they use outside
/// tests, of ours and of others.
struct Package {
    name: String,
    directory: String,
    uses: BTreeSet<String>,
}

fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|it| Package {
            name: text(&it["name"]),
            directory: directory(&text(&it["manifest_path"])),
            uses: uses(it),
        })
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn directory(manifest: &str) -> String {
    let directory = Path::new(manifest)
        .parent()
        .unwrap()
        .canonicalize()
        .unwrap();
    directory
        .strip_prefix(root())
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

/// Dependencies for building; those of tests do not shape the programs.
fn uses(package: &Value) -> BTreeSet<String> {
    let dependencies = package["dependencies"].as_array().unwrap();
    let built = dependencies.iter().filter(|it| it["kind"] != "dev");
    built.map(|it| text(&it["name"])).collect()
}

/// A block of ARCHITECTURE.md whose lines are `crate -> what, it, uses`.
fn block(name: &str) -> BTreeMap<String, BTreeSet<String>> {
    let document = read("ARCHITECTURE.md");
    let start = format!("```{name}\n");
    let (_, after) = document.split_once(&start).expect("a block of that name");
    let (block, _) = after.split_once("```").expect("its end");
    block
        .lines()
        .map(|line| {
            let (from, to) = line.split_once("->").unwrap_or_else(|| panic!("`{line}`"));
            let to = to.split(',').map(str::trim).filter(|it| !it.is_empty());
            (from.trim().to_owned(), to.map(str::to_owned).collect())
        })
        .collect()
}

/// Tests and xtask may use anything, and nothing may use them.
fn is_scaffolding(directory: &str) -> bool {
    directory == "xtask" || directory.starts_with("tests/")
}

#[test]
fn crates_use_each_other_only_as_architecture_md_says() {
    let allowed = block("edges");
    let packages = packages();
    let ours: BTreeSet<_> = packages.iter().map(|it| it.name.clone()).collect();
    let scaffolding: BTreeSet<_> = packages
        .iter()
        .filter(|it| is_scaffolding(&it.directory))
        .map(|it| it.name.clone())
        .collect();
    for package in packages.iter().filter(|it| !is_scaffolding(&it.directory)) {
        let name = &package.name;
        let may = allowed
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in ARCHITECTURE.md"));
        let uses: BTreeSet<_> = package.uses.intersection(&ours).cloned().collect();
        let forbidden: Vec<_> = uses.difference(may).collect();
        assert!(forbidden.is_empty(), "{name} may not use {forbidden:?}");
        let upside_down: Vec<_> = package.uses.intersection(&scaffolding).collect();
        assert!(upside_down.is_empty(), "{name} uses {upside_down:?}");
    }
}

#[test]
fn every_crate_follows_the_lints_of_the_workspace() {
    for package in packages() {
        let manifest = read(&format!("{}/Cargo.toml", package.directory));
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{} has lints of its own",
            package.name
        );
    }
}

/// The nearest clippy.toml counts alone: that of core/ must repeat what stands at the top.
#[test]
fn the_settings_of_core_repeat_those_at_the_top() {
    let core = read("core/clippy.toml");
    for line in read("clippy.toml").lines() {
        assert!(core.contains(line), "core/clippy.toml lacks `{line}`");
    }
    for banned in [
        "Instant::now",
        "SystemTime::now",
        "thread::spawn",
        "fs::File",
        "UdpSocket",
        "env::args",
        "io::stdin",
        "process::id",
    ] {
        assert!(core.contains(banned), "core/clippy.toml allows {banned}");
    }
}

/// Rust sources below a directory of the workspace, with their text.
fn sources(directory: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(directory)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let inner = format!("{directory}/{name}");
        if path.is_dir() && name != "target" {
            found.extend(sources(&inner));
        } else if name.ends_with(".rs") {
            found.push((inner.clone(), read(&inner)));
        }
    }
    found
}

fn product_sources() -> Vec<(String, String)> {
    let packages = packages();
    let products = packages.iter().filter(|it| !is_scaffolding(&it.directory));
    products.flat_map(|it| sources(&it.directory)).collect()
}

/// The file that every target of a package starts from: library, programs.
fn roots_of(package: &Package) -> Vec<(String, String)> {
    let src = format!("{}/src", package.directory);
    let is_root = |path: &str| {
        let inner = path.strip_prefix(&src).unwrap_or_default();
        inner == "/lib.rs" || inner == "/main.rs" || inner.starts_with("/bin/")
    };
    let all = sources(&src).into_iter();
    all.filter(|(path, _)| is_root(path)).collect()
}

#[test]
fn unsafe_code_stands_in_host_only() {
    let packages = packages();
    let others = packages
        .iter()
        .filter(|it| !is_scaffolding(&it.directory) && it.directory != "host");
    for (path, text) in others.flat_map(roots_of) {
        let forbids = text.contains("#![forbid(unsafe_code)]");
        assert!(forbids, "{path} does not forbid unsafe code");
    }
}

#[test]
fn only_host_knows_which_system_it_runs_on() {
    for (path, text) in product_sources() {
        let knows = [
            "cfg(target_os",
            "cfg(unix",
            "cfg(windows",
            "cfg(not(",
            "::linux",
            "::unix",
            "::windows",
        ]
        .iter()
        .any(|it| text.contains(it));
        assert!(
            !knows || path.starts_with("host/") || path.starts_with("ipc/src/transport/"),
            "{path} asks for the system"
        );
    }
}

/// Each reason for a loss has a name of its own, so that a counter says which it was.
#[test]
fn codes_of_drop_reasons_are_unique_in_their_enum() {
    for (path, text) in product_sources()
        .into_iter()
        .filter(|(path, _)| path.ends_with("reason.rs"))
    {
        let codes: Vec<_> = text
            .lines()
            .filter_map(|line| line.split_once(" = \"")?.1.strip_suffix("\":"))
            .collect();
        let distinct: BTreeSet<_> = codes.iter().collect();
        assert!(!codes.is_empty(), "{path} declares no reasons");
        assert_eq!(codes.len(), distinct.len(), "{path}");
    }
}

/// The names between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The variants of `enum name` at the top of a source.
fn variants<'a>(source: &'a str, name: &str) -> Vec<&'a str> {
    let (_, after) = source
        .split_once(&format!("pub enum {name} {{\n"))
        .expect("the enum");
    let (body, _) = after.split_once("\n}").expect("its end");
    let lines = body.lines().filter_map(|it| it.strip_prefix("    "));
    lines
        .filter(|it| it.starts_with(char::is_uppercase))
        .filter_map(|it| it.split(|it: char| !it.is_alphanumeric()).next())
        .collect()
}

#[test]
fn the_states_of_a_session_are_those_of_architecture_md() {
    let document = read("ARCHITECTURE.md");
    let (_, after) = document.split_once("\nStates: ").expect("a list of states");
    let (list, _) = after.split_once('.').expect("its end");
    let source = read("core/clat-core/src/session.rs");
    assert_eq!(quoted(list), variants(&source, "State"));
}

/// A link in our documents leads somewhere.
#[test]
fn documents_point_at_files_that_exist() {
    let mut documents = vec!["README.md", "ARCHITECTURE.md", "CHANGELOG.md"]
        .into_iter()
        .map(PathBuf::from)
        .collect::<Vec<_>>();
    for directory in ["docs", "docs/decisions"] {
        let entries = fs::read_dir(root().join(directory)).unwrap();
        let paths = entries.map(|it| it.unwrap().path());
        documents.extend(paths.filter(|it| it.extension().is_some_and(|it| it == "md")));
    }
    for document in documents {
        let path = root().join(&document);
        let text = fs::read_to_string(&path).unwrap();
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|it| it.split(')').next())
        {
            if target.starts_with("http") || target.starts_with('#') {
                continue;
            }
            let file = target.split('#').next().unwrap();
            let exists = path.parent().unwrap().join(file).exists();
            assert!(exists, "{} points at {target}", document.display());
        }
    }
}
