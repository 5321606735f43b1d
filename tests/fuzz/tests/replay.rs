//! Every target takes its seeds, its committed corpus and mutations of both.

#![expect(
    clippy::unwrap_used,
    reason = "a corpus that cannot be read fails the test"
)]

use std::{fs, panic, path::Path, thread};

use fuzz::{TARGETS, Target};

/// Mutations per target, of its files in turn.
const MUTATIONS: usize = 500;

/// A file of a corpus, with its name.
type Input = (String, Vec<u8>);

fn corpus(target: &Target) -> Vec<Input> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name);
    let mut files: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|file| (file.display().to_string(), fs::read(&file).unwrap()))
        .collect()
}

fn seeds(target: &Target) -> Vec<Input> {
    let seeds = (target.seeds)().into_iter().enumerate();
    seeds
        .map(|(n, seed)| (format!("seed {n} of {}", target.name), seed))
        .collect()
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// One to four small changes.
fn mutated(original: &[u8], random: &mut Random) -> Vec<u8> {
    const TELLING: [u8; 6] = [0, 1, 0x7f, 0x80, 0xff, 0x20];
    let mut bytes = original.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.next() as u8),
            2 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            3 if !bytes.is_empty() => bytes[at] = TELLING[random.below(TELLING.len())],
            _ if !bytes.is_empty() => {
                bytes.remove(at);
            }
            _ => {}
        }
    }
    bytes
}

/// Runs a target, and keeps the input in a file if it fails.
fn try_out(target: &Target, name: &str, data: &[u8]) {
    let run = target.run;
    if panic::catch_unwind(|| run(data)).is_err() {
        let file = std::env::temp_dir().join(format!("fuzz-{}", target.name));
        fs::write(&file, data).unwrap();
        panic!(
            "{}: {name} fails; it is kept in {}",
            target.name,
            file.display()
        );
    }
}

fn replay(target: &Target) {
    let inputs = [seeds(target), corpus(target)].concat();
    for (name, data) in &inputs {
        try_out(target, name, data);
    }
    let mut random = Random(inputs.len() as u64);
    for (n, (name, data)) in inputs.iter().cycle().take(MUTATIONS).enumerate() {
        let data = mutated(data, &mut random);
        try_out(target, &format!("mutation {n}, of {name},"), &data);
    }
}

#[test]
fn targets_take_everything() {
    thread::scope(|scope| {
        let threads = TARGETS
            .each_ref()
            .map(|it| (it.name, scope.spawn(|| replay(it))));
        for (name, thread) in threads {
            assert!(thread.join().is_ok(), "{name}");
        }
    });
}

#[test]
fn libfuzzer_knows_every_target() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("libfuzzer/Cargo.toml");
    let manifest = fs::read_to_string(manifest).unwrap();
    for target in TARGETS {
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)));
    }
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
}
