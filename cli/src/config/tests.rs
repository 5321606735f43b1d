//! Right and wrong files.

use super::*;
use std::net::Ipv6Addr;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only read by its Debug")]
struct Config {
    prefix: Parsed<Ipv6Addr>,
    pool: Option<Vec<String>>,
}

fn failure(text: &str) -> String {
    let document = Document::new("plat.toml", text);
    document.parse::<Config>().unwrap_err().to_string()
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_a_suggestion() {
    let right = Document::new("plat.toml", "prefix = \"64:ff9b::\"");
    assert!(right.parse::<Config>().is_ok());
    assert_eq!(
        failure("prefix = \"::\"\npoll = []\n"),
        "error: plat.toml:2:1: unknown field `poll`, expected `prefix` or `pool`\n  \
         what to do: did you mean `pool`?"
    );
    assert_eq!(
        failure("\n  prefix = \"nonsense\""),
        "error: plat.toml:2:12: `nonsense`: invalid IPv6 address syntax"
    );
    assert_eq!(
        failure("pool = []"),
        "error: plat.toml:1:1: missing field `prefix`"
    );
    assert!(!failure("prefix = \"::\"\nsomething-else-entirely = 1").contains("did you mean"));
    assert!(failure("prefix = ").starts_with("error: plat.toml:1:"));
}

#[test]
fn a_list_that_was_forgotten_is_suggested() {
    let failure = failure("prefix = \"::\"\npool = \"192.0.2.1\"");
    assert!(
        failure.starts_with("error: plat.toml:2:8: invalid type"),
        "{failure}"
    );
    assert!(failure.ends_with("write a list: [\"...\"]"), "{failure}");
}

#[test]
fn places_are_found_after_the_file_was_read() {
    #[derive(Debug, Deserialize)]
    struct Numbers {
        numbers: Vec<Spanned<u8>>,
    }
    let document = Document::new("plat.toml", "# é\nnumbers = [\n  1,\n  22]");
    let numbers: Numbers = document.parse().unwrap();
    let failure = document.wrong(numbers.numbers[1].span(), "too many");
    assert_eq!(failure.to_string(), "error: plat.toml:4:3: too many");
}

#[test]
fn the_place_of_a_value_in_a_list_is_its_own() {
    #[derive(Debug, Deserialize)]
    struct List {
        list: Vec<Spanned<String>>,
    }
    let document = Document::new("plat.toml", "list = [\n  \"::\",\n  \"nonsense\"]");
    let List { list } = document.parse().unwrap();
    let right = document.value::<Ipv6Addr>(&list[0]).unwrap();
    assert_eq!(
        (*right.get_ref(), right.span()),
        (Ipv6Addr::UNSPECIFIED, 11..15)
    );
    let failure = document.value::<Ipv6Addr>(&list[1]).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "error: plat.toml:3:3: `nonsense`: invalid IPv6 address syntax"
    );
}

/// Whatever is in the file, cut anywhere and broken anywhere, it is an error and no panic.
#[test]
fn no_text_panics() {
    let whole = "# é\nprefix = \"64:ff9b::\" # ü\npool = [\"ä\", '''ö''']\n[t.\"ß\"]\n";
    let starts = whole.char_indices().map(|(at, _)| at).chain([whole.len()]);
    for at in starts {
        let (before, after) = whole.split_at(at);
        for between in [
            "", "\u{0}", "\u{feff}", "ф", "\"", "=", "[[", "\r", "\\u12", "1e9",
        ] {
            for text in [
                format!("{before}{between}{after}"),
                format!("{before}{between}"),
            ] {
                let _ = Document::new("x", text).parse::<Config>();
            }
        }
    }
    // A place in the middle of a character, or behind the end.
    assert_eq!(line_and_column("é", 1), (1, 1));
    assert_eq!(line_and_column("é\n", 99), (2, 1));
}

#[test]
fn a_missing_file_is_not_found() {
    let failure = read::<Config>(Path::new("/nonexistent/plat.toml")).unwrap_err();
    assert_eq!(failure.exit, Exit::NotFound);
}

fn layered(files: &[(&str, &str)]) -> Document {
    let mut document = Document::empty("plat.toml");
    for (name, text) in files {
        document.push(name, *text);
    }
    document
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Layers {
    name: Option<String>,
    #[serde(default)]
    list: Vec<u8>,
    #[serde(default)]
    timers: Timers,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Timers {
    udp: Option<u8>,
    icmp: Option<u8>,
}

#[test]
fn later_files_win_key_by_key_and_lists_replace() {
    let document = layered(&[
        (
            "a",
            "name = \"a\"\nlist = [1, 2]\n[timers]\nudp = 1\nicmp = 1",
        ),
        ("b", "# nothing"),
        ("c", "list = [3]\ntimers.icmp = 3\n"),
    ]);
    let wanted = Layers {
        name: Some("a".to_owned()),
        list: vec![3],
        timers: Timers {
            udp: Some(1),
            icmp: Some(3),
        },
    };
    assert_eq!(document.parse::<Layers>().unwrap(), wanted);
    let origins = document.origins();
    let origins: Vec<_> = origins
        .iter()
        .map(|(key, at)| format!("{key} {at}"))
        .collect();
    let wanted = ["list c:1", "name a:1", "timers.icmp c:2", "timers.udp a:4"];
    assert_eq!(origins, wanted);
}

#[test]
fn what_is_wrong_is_named_in_the_right_file() {
    let failure = |c: &str| {
        let document = layered(&[("a", "name = \"a\"\n"), ("b", "\n\n"), ("c", c)]);
        document.parse::<Layers>().unwrap_err().to_string()
    };
    for (text, wanted) in [
        ("\nname = 1", "error: c:2:8: invalid type"),
        ("[timers]\nudb = 1", "error: c:2:1: unknown field `udb`"),
        ("timers = 1", "error: c:1:10: invalid type"),
        ("name = ", "error: c:1:8: "),
        ("list = [1,\n 300]", "error: c:2:2: "),
        ("name = \"a\"\nname = \"b\"", "error: c:2:1: duplicate key"),
    ] {
        let said = failure(text);
        assert!(said.starts_with(wanted), "{text}: {said}");
    }
    // Not where a later file is right.
    let document = layered(&[("a", "list = 1"), ("b", "list = []")]);
    assert!(document.parse::<Layers>().is_ok());
}

#[test]
fn no_file_is_an_empty_file() {
    let document = Document::empty("plat.toml");
    assert_eq!(document.parse::<Layers>().unwrap().name, None);
    assert!(document.origins().is_empty());
    let failure = document.parse::<Config>().unwrap_err().to_string();
    assert!(
        failure.starts_with("error: plat.toml: missing field"),
        "{failure}"
    );
}

#[test]
fn a_directory_beside_the_file_lies_over_it() {
    let directory = std::env::temp_dir().join(format!("openclat-layers-{}", std::process::id()));
    let over = directory.join("plat.d");
    fs::create_dir_all(&over).unwrap();
    let main = directory.join("plat.toml");
    for (path, text) in [
        (over.join("20-b.toml"), "name = \"b\""),
        (over.join("10-a.toml"), "name = \"a\"\nlist = [1]"),
        (over.join("30-c.toml~"), "name = \"an editor's copy\""),
    ] {
        fs::write(path, text).unwrap();
    }
    // Without the file itself, too.
    let document = Document::read_layers(&main).unwrap();
    let layers: Layers = document.parse().unwrap();
    assert_eq!(layers.name.as_deref(), Some("b"));
    fs::write(&main, "timers.udp = 1").unwrap();
    let document = Document::read_layers(&main).unwrap();
    let layers: Layers = document.parse().unwrap();
    assert_eq!((layers.list, layers.timers.udp), (vec![1], Some(1)));
    assert_eq!(document.files().count(), 3);
    fs::remove_dir_all(&directory).unwrap();
    let document = Document::read_layers(&main).unwrap();
    assert_eq!(document.files().count(), 0);
}
