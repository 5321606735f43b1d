//! `core/` is pure. Clippy sees calls (`core/clippy.toml`), but only those it was told of; here
//! whole modules of the standard library are out of bounds, and so is every crate from outside that
//! is not named in ARCHITECTURE.md.

use crate::{block, packages, sources};

/// What reaches out of a program: below `std::` or `core::`.
const FORBIDDEN: [&str; 13] = [
    "env",
    "fs",
    "io",
    "net::TcpListener",
    "net::TcpStream",
    "net::ToSocketAddrs",
    "net::UdpSocket",
    "os",
    "process",
    "thread",
    "time::SystemTime",
    // Their keys are random.
    "collections::HashMap",
    "collections::HashSet",
];

/// Clocks, however they were imported.
const CLOCKS: [&str; 3] = ["Instant::now", "SystemTime", ".elapsed()"];

/// The sources of `core/` without their tests and comments.
fn core_sources() -> Vec<(String, String)> {
    let all = sources("core").into_iter();
    let product = all.filter(|(path, _)| !path.ends_with("/tests.rs") && !path.contains("/tests/"));
    product.map(|(path, text)| (path, code(&text))).collect()
}

fn code(text: &str) -> String {
    let product = without_tests(text);
    let lines = product.lines();
    let code: Vec<_> = lines
        .filter(|it| !it.trim_start().starts_with("//"))
        .collect();
    code.join("\n")
}

/// Leaves out the modules under `#[cfg(test)]`, whether they stand here or elsewhere.
fn without_tests(text: &str) -> String {
    let Some((before, module)) = text.split_once("#[cfg(test)]\nmod ") else {
        return text.to_owned();
    };
    let is_elsewhere = module.lines().next().is_some_and(|it| it.ends_with(';'));
    let end = if is_elsewhere { "\n" } else { "\n}\n" };
    let after = module.split_once(end).map_or("", |(_, after)| after);
    format!("{before}{}", without_tests(after))
}

/// Every path of the standard library in `code`, groups of imports written out: `fs`, `io::Read`.
fn std_paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for root in ["std::", "core::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            // Neither `self_core::` nor `crate::core::`.
            if before.is_none_or(|it| !it.is_alphanumeric() && it != '_' && it != ':') {
                expand("", &code[at + root.len()..], &mut paths);
            }
        }
    }
    paths
}

/// Writes out the path at the beginning of `code`. What follows it is left.
fn expand<'a>(before: &str, code: &'a str, paths: &mut Vec<String>) -> &'a str {
    if let Some(mut rest) = code.strip_prefix('{') {
        loop {
            rest = rest.trim_start_matches(|it: char| it.is_whitespace() || it == ',');
            match rest.strip_prefix('}') {
                Some(after) => return after,
                None if rest.is_empty() => return rest,
                None => rest = expand(before, rest, paths),
            }
        }
    }
    let end = code.find(|it: char| !it.is_alphanumeric() && it != '_');
    let (name, rest) = code.split_at(end.unwrap_or(code.len()));
    let path = format!("{before}{name}");
    if let Some(inner) = rest.strip_prefix("::") {
        return expand(&format!("{path}::"), inner, paths);
    }
    paths.push(path);
    // `as x` and `*` are neither names nor the end of a group.
    rest.trim_start_matches(|it: char| !matches!(it, ',' | '}'))
}

fn is_forbidden(path: &str) -> bool {
    let path = path.trim_end_matches("self").trim_end_matches("::");
    FORBIDDEN.iter().any(|it| {
        path.strip_prefix(*it)
            .is_some_and(|it| it.is_empty() || it.starts_with("::"))
    })
}

#[test]
fn paths_are_found_however_they_are_written() {
    let code = "use std::{\n    fs::{self, File},\n    io as x,\n    net::{IpAddr, UdpSocket},\n};\n\
                use core::time::Duration;\nstd::thread::spawn(f); hyper_std::no(); std::os::x()";
    assert_eq!(
        std_paths(code),
        [
            "fs::self",
            "fs::File",
            "io",
            "net::IpAddr",
            "net::UdpSocket",
            "thread::spawn",
            "os::x",
            "time::Duration",
        ]
    );
    let forbidden = std_paths(code).into_iter().filter(|it| is_forbidden(it));
    assert_eq!(forbidden.count(), 6);
    assert!(!is_forbidden("iostream") && !is_forbidden("net::IpAddr"));
}

#[test]
fn only_tests_and_comments_are_left_out() {
    let text = "a();\n// b();\n#[cfg(test)]\nmod tests {\n    fn c() {\n    }\n}\nd();\n\
                #[cfg(test)]\nmod more;\ne();\n";
    assert_eq!(code(text), "a();\nd();\ne();");
}

#[test]
fn core_reaches_out_of_the_program_nowhere() {
    for (path, code) in core_sources() {
        let reached: Vec<_> = std_paths(&code)
            .into_iter()
            .filter(|it| is_forbidden(it))
            .collect();
        assert!(reached.is_empty(), "{path} uses {reached:?}");
        let clock = CLOCKS.iter().find(|it| code.contains(**it));
        assert!(clock.is_none(), "{path} reads a clock: {clock:?}");
    }
}

#[test]
fn core_uses_only_the_crates_from_outside_that_architecture_md_names() {
    let allowed = block("core-dependencies");
    let packages = packages();
    for package in packages
        .iter()
        .filter(|it| it.directory.starts_with("core/"))
    {
        let outside: Vec<_> = package
            .uses
            .iter()
            .filter(|name| !packages.iter().any(|it| it.name == **name))
            .collect();
        let name = &package.name;
        let may = allowed
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in ARCHITECTURE.md"));
        assert_eq!(outside, may.iter().collect::<Vec<_>>(), "{name}");
    }
}
