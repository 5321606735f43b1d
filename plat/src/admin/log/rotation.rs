//! The file of a log: renamed when it is full, and the oldest of those removed.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use host::regular;

use crate::config::log::{Log as Config, MOST_KEPT};

/// When a file is full, and how many old ones there are. The thread that writes looks it up.
#[derive(Debug)]
pub(super) struct Rotation {
    max_bytes: AtomicU64,
    keep: AtomicU32,
}

impl Rotation {
    /// Never.
    pub(super) fn never() -> Self {
        Self {
            max_bytes: AtomicU64::new(u64::MAX),
            keep: AtomicU32::default(),
        }
    }

    pub(super) fn of(config: &Config) -> Self {
        let rotation = Self {
            max_bytes: AtomicU64::default(),
            keep: AtomicU32::default(),
        };
        rotation.set(config);
        rotation
    }

    pub(super) fn set(&self, config: &Config) {
        self.max_bytes.store(config.max_bytes, Ordering::Relaxed);
        self.keep.store(config.keep, Ordering::Relaxed);
    }
}

/// A file that is renamed when it is full: `log`, `log.1` and so on; the oldest is removed.
#[derive(Debug)]
pub(super) struct Rotating {
    path: PathBuf,
    file: File,
    size: u64,
    /// A pipe stays where it is.
    is_pipe: bool,
    /// Whether there may be more old ones than are to be kept: another configuration may have kept
    /// more of them.
    may_have_more: bool,
    rotation: Arc<Rotation>,
}

impl Rotating {
    pub(super) fn open(path: &Path, rotation: Arc<Rotation>) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        Self::to(regular::append(path)?, path, rotation)
    }

    /// Goes on in a file that is open.
    pub(super) fn to(file: File, path: &Path, rotation: Arc<Rotation>) -> io::Result<Self> {
        Ok(Self {
            size: file.metadata()?.len(),
            is_pipe: regular::is_pipe(&file)?,
            path: path.to_owned(),
            file,
            may_have_more: true,
            rotation,
        })
    }

    pub(super) fn write(&mut self, line: &str) -> io::Result<()> {
        let line = format!("{line}\n");
        let len = line.len() as u64;
        // Not when it is opened: it may still turn out that it is not to be written.
        if self.may_have_more {
            self.remove_more();
        }
        let max = self.rotation.max_bytes.load(Ordering::Relaxed);
        if self.size > 0 && self.size + len > max && !self.is_pipe {
            self.rotate()?;
        }
        self.append(line.as_bytes())?;
        self.size += len;
        Ok(())
    }

    /// Appends a line, or nothing: half of one would spoil the next.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let mut written = 0;
        while written < line.len() {
            match self.file.write(&line[written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => written += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if written > 0 {
                        let len = self.file.metadata()?.len();
                        self.file.set_len(len.saturating_sub(written as u64))?;
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let keep = self.rotation.keep.load(Ordering::Relaxed);
        // After a rotation that failed halfway, nothing is to be moved again.
        if !self.path.try_exists()? {
            return self.begin();
        }
        for number in (0..keep).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if keep == 0 {
            fs::remove_file(&self.path)?;
        }
        self.remove_more();
        self.begin()
    }

    /// Removes old files beyond the number to be kept. Those that cannot be removed are said.
    fn remove_more(&mut self) {
        self.may_have_more = false;
        let keep = self.rotation.keep.load(Ordering::Relaxed);
        let mut removed = 0;
        for number in keep + 1..=MOST_KEPT {
            let path = self.numbered(number);
            match fs::remove_file(&path) {
                Ok(()) => removed += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!("{}: {error}", path.display()),
            }
        }
        if removed > 0 {
            let log = self.path.display();
            tracing::info!("{log}: {removed} old files are gone, more than log.keep = {keep}");
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        self.file = regular::append(&self.path)?;
        self.size = 0;
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        if number == 0 {
            return self.path.clone();
        }
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of one line each.
    fn config(path: &Path) -> Config {
        Config {
            file: path.to_owned(),
            max_bytes: 10,
            keep: 2,
            destinations: false,
        }
    }

    /// Whom a port belonged to is not to be known for longer than was said.
    #[test]
    fn fewer_files_are_kept_when_so_many_are_wanted() {
        let directory = std::env::temp_dir().join(format!("plat-fewer-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("events");
        let others = ["events.txt", "events.07", "events.1001", "event.9"];
        let old = (1..=9).map(|it| format!("events.{it}"));
        // One is missing, as after a rotation that failed halfway.
        let old = old.filter(|it| it != "events.6");
        for name in old.chain(others.map(str::to_owned)) {
            fs::write(directory.join(name), "old\n").unwrap();
        }
        // What cannot be removed is nothing to fail of.
        fs::create_dir(directory.join("events.10")).unwrap();
        let rotation = Arc::new(Rotation::of(&Config {
            keep: 7,
            ..config(&path)
        }));
        let mut file = Rotating::open(&path, Arc::clone(&rotation)).unwrap();
        let left = || {
            let numbers = 1..=9;
            numbers
                .filter(|it| directory.join(format!("events.{it}")).exists())
                .collect::<Vec<_>>()
        };
        // It is only opened: another may still be against it.
        assert_eq!(left(), [1, 2, 3, 4, 5, 7, 8, 9]);
        file.write("one-one").unwrap();
        assert_eq!(left(), [1, 2, 3, 4, 5, 7]);
        rotation.set(&config(&path));
        file.write("two-two").unwrap();
        assert_eq!(left(), [1, 2]);
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
        assert_eq!(
            (read("events.1"), read("events.2")),
            ("one-one\n".into(), "old\n".into())
        );
        // None at all.
        rotation.set(&Config {
            keep: 0,
            ..config(&path)
        });
        file.write("three-3").unwrap();
        assert_eq!((left(), read("events")), (Vec::new(), "three-3\n".into()));
        for name in others {
            assert_eq!(read(name), "old\n");
        }
        fs::remove_dir_all(directory).unwrap();
    }

    /// Otherwise a disk without room for a new file would cost the old ones.
    #[test]
    fn a_rotation_that_failed_halfway_is_not_begun_again() {
        let directory = std::env::temp_dir().join(format!("plat-half-{}", std::process::id()));
        let path = directory.join("events");
        let config = config(&path);
        let rotation = Arc::new(Rotation::of(&config));
        let mut file = Rotating::open(&path, rotation).unwrap();
        file.write("older").unwrap();
        file.write("newer").unwrap();
        // The new one could not be made.
        fs::rename(file.numbered(1), file.numbered(2)).unwrap();
        fs::rename(file.numbered(0), file.numbered(1)).unwrap();
        file.write("newest").unwrap();
        let said = [0, 1, 2].map(|it| fs::read_to_string(file.numbered(it)).unwrap());
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(said, ["newest\n", "newer\n", "older\n"]);
    }

    #[test]
    fn files_that_are_full_are_renamed_and_the_oldest_is_gone() {
        let directory = std::env::temp_dir().join(format!("plat-log-{}", std::process::id()));
        let path = directory.join("events");
        let config = config(&path);
        let rotation = Arc::new(Rotation::of(&config));
        let open = || Rotating::open(&path, Arc::clone(&rotation)).unwrap();
        let mut file = open();
        for line in ["one-one", "two-two", "three-3", "four-44"] {
            file.write(line).unwrap();
        }
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
        assert_eq!(read("events"), "four-44\n");
        assert_eq!(
            (read("events.1").as_str(), read("events.2").as_str()),
            ("three-3\n", "two-two\n")
        );
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 3);
        // It goes on where it was.
        let mut file = open();
        file.write("five-55").unwrap();
        assert_eq!(read("events.1"), "four-44\n");
        // Another configuration holds for the next line.
        rotation.set(&Config {
            max_bytes: 100,
            ..config
        });
        file.write("six-666").unwrap();
        assert_eq!(read("events"), "five-55\nsix-666\n");
        fs::remove_dir_all(directory).unwrap();
    }
}
