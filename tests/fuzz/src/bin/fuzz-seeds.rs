//! Writes the seeds of a target into a directory: `fuzz-seeds TARGET DIRECTORY`. Without arguments,
//! lists the targets.

use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let (Some(name), Some(directory)) = (arguments.next(), arguments.next()) else {
        for target in fuzz::TARGETS {
            println!("{}", target.name);
        }
        return Ok(());
    };
    let target = fuzz::TARGETS.iter().find(|it| it.name == name);
    let target = target.ok_or_else(|| io::Error::other(format!("no target {name}")))?;
    let directory = PathBuf::from(directory);
    fs::create_dir_all(&directory)?;
    for (n, seed) in (target.seeds)().iter().enumerate() {
        fs::write(directory.join(format!("seed-{n:02}")), seed)?;
    }
    Ok(())
}
