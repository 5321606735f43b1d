//! What was changed on the host, one JSON line per event, so that it can be taken back after a
//! crash.
//!
//! The file lives where a restart of the machine empties it, as the changes do not survive one
//! either. It is locked by the process that writes it: two processes cannot configure the same
//! thing, and nobody cleans up after the living.
//!
//! It tells in which network namespace the changes were made. In another one nothing is taken back
//! by it: what is there is somebody else's. Changes of a namespace that cannot be there any more are
//! gone with it.
//!
//! A crash or a full disk may tear the last line; every other line that cannot be read was whole
//! once, and tells of a change that may still be there. So the former is cut off, and a copy of the
//! file is kept for the latter.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use plan::Item;
use serde::{Deserialize, Serialize};

use super::{
    Change,
    beside::Beside,
    place::{Place, Whereabouts},
};
use crate::fault;

const LOCK_ATTEMPTS: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process has it.
    #[error("another instance is running: it holds {}", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It tells of changes in another network namespace. Nothing was done.
    #[error(
        "{} tells of changes in another network namespace, {network}; this is {here}",
        path.display()
    )]
    Elsewhere {
        /// The file.
        path: PathBuf,
        /// The namespace, as `lsns` and `/proc/PID/ns/net` call it.
        network: String,
        /// That of this process.
        here: String,
    },
    /// The file cannot be read or written.
    #[error("cannot keep a journal in {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    /// The network that the following is about.
    In(Place),
    Make(Change),
    Unmade(Change),
}

/// The journal, locked.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Changes that were recorded and not erased.
    open: usize,
    /// Whether it is in the file where they were made.
    placed: bool,
}

impl Journal {
    /// Opens and locks the journal at `path`, and returns what a predecessor left in it, in the
    /// order in which it was made.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(path: &Path) -> Result<(Self, Vec<Change>), JournalError> {
        let io = |source| JournalError::Io {
            path: path.to_owned(),
            source,
        };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(io)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(io)?;
        match lock(&file) {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(JournalError::InUse {
                    path: path.to_owned(),
                });
            }
            Err(fs::TryLockError::Error(source)) => return Err(io(source)),
        }
        let mut contents = Contents::read(&file).map_err(io)?;
        contents.check_place(path)?;
        if let Some(error) = &contents.damaged {
            tracing::warn!("the journal has a line that cannot be read: {error}");
            set_aside(path).map_err(io)?;
        }
        file.set_len(contents.whole).map_err(io)?;
        if contents.unterminated {
            (&file).write_all(b"\n").map_err(io)?;
        }
        let journal = Self {
            path: path.to_owned(),
            file,
            open: contents.left.len(),
            placed: false,
        };
        Ok((journal, contents.left))
    }

    /// Notes a change that is about to be made.
    ///
    /// # Errors
    /// [`JournalError::Io`]; the change must not be made.
    pub fn record(&mut self, change: &Change) -> Result<(), JournalError> {
        if !self.placed
            && let Some(place) = Place::here()
        {
            self.write(&Line::In(place))?;
        }
        self.placed = true;
        self.write(&Line::Make(change.clone()))?;
        self.open += 1;
        fault::point("journal recorded");
        Ok(())
    }

    /// Notes that a change was taken back. The journal of a host on which nothing is changed is
    /// empty.
    ///
    /// # Errors
    /// [`JournalError::Io`]. The change counts as taken back all the same: taking it back again
    /// would do no harm, and emptying the file at the end takes no room on the disk.
    pub fn erase(&mut self, change: &Change) -> Result<(), JournalError> {
        self.open = self.open.saturating_sub(1);
        if self.open == 0 {
            self.file.set_len(0).map_err(|error| self.io(error))?;
            self.placed = false;
        } else {
            self.write(&Line::Unmade(change.clone()))?;
        }
        fault::point("journal erased");
        Ok(())
    }

    /// What other programs of ours have made of the same.
    pub(super) async fn beside(&self, item: &Item) -> Beside {
        Beside::about(item, &self.path).await
    }

    /// The same, of whatever there is.
    pub(super) async fn all_beside(&self) -> Beside {
        Beside::now(&self.path).await
    }

    /// Appends a line. No need to sync: a machine that loses power forgets the changes too.
    fn write(&mut self, line: &Line) -> Result<(), JournalError> {
        let mut text = serde_json::to_string(line).map_err(|error| self.io(error.into()))?;
        text.push('\n');
        let before = self.file.metadata().map_err(|error| self.io(error))?.len();
        self.file.write_all(text.as_bytes()).map_err(|error| {
            // Half a line would swallow the next one. If even this fails, the line is torn, and the
            // caller gives up.
            let _ = self.file.set_len(before);
            self.io(error)
        })
    }

    fn io(&self, source: io::Error) -> JournalError {
        JournalError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

/// Locks a file, with some patience: a predecessor that was killed while it started a program may
/// have left a child that holds the lock for a moment, until it is that program.
pub(super) fn lock(file: &File) -> Result<(), fs::TryLockError> {
    for _ in 1..LOCK_ATTEMPTS {
        if file.try_lock().is_ok() {
            return Ok(());
        }
        thread::sleep(LOCK_PAUSE);
    }
    file.try_lock()
}

/// What a predecessor left in the file.
pub(super) struct Contents {
    /// Changes that were not taken back.
    pub(super) left: Vec<Change>,
    /// Where the last of them were made.
    pub(super) place: Option<Place>,
    /// The length of the file without a torn last line.
    whole: u64,
    /// Only the line break of the last line is missing.
    unterminated: bool,
    /// Why lines cannot be read, besides a torn last one.
    damaged: Option<serde_json::Error>,
}

impl Contents {
    pub(super) fn read(mut file: &File) -> io::Result<Self> {
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        Ok(Self::parse(&bytes))
    }

    fn parse(bytes: &[u8]) -> Self {
        let mut contents = Self {
            left: Vec::new(),
            place: None,
            whole: bytes.len() as u64,
            unterminated: false,
            damaged: None,
        };
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let terminated = line.ends_with(b"\n");
            match serde_json::from_slice(line) {
                Ok(it) => {
                    contents.replay(it);
                    contents.unterminated = !terminated;
                }
                Err(error) if terminated => contents.damaged = Some(error),
                // A line that was not written to its end tells of a change that was not made.
                Err(_) => contents.whole -= line.len() as u64,
            }
        }
        contents
    }

    /// Forgets what is gone with its network, and refuses what is in another one.
    fn check_place(&mut self, path: &Path) -> Result<(), JournalError> {
        let Some((place, here)) = self.place.as_ref().zip(Place::here()) else {
            return Ok(());
        };
        if self.left.is_empty() {
            return Ok(());
        }
        match place.seen_from(&here) {
            Whereabouts::Here => {}
            Whereabouts::Gone => {
                let (count, network) = (self.left.len(), &place.network);
                tracing::info!("{count} changes of a crashed process are gone with {network}");
                self.left.clear();
                (self.whole, self.unterminated) = (0, false);
            }
            Whereabouts::Elsewhere => {
                return Err(JournalError::Elsewhere {
                    path: path.to_owned(),
                    network: place.network.clone(),
                    here: here.network,
                });
            }
        }
        Ok(())
    }

    fn replay(&mut self, line: Line) {
        match line {
            Line::In(place) => self.place = Some(place),
            Line::Make(change) => self.left.push(change),
            Line::Unmade(change) => {
                if let Some(at) = self.left.iter().rposition(|it| *it == change) {
                    self.left.remove(at);
                }
            }
        }
    }
}

/// Keeps a copy of a journal that cannot be read whole: what it tells of may need a person.
fn set_aside(path: &Path) -> io::Result<()> {
    let mut copy = OsString::from(path);
    copy.push(".damaged");
    fs::copy(path, &copy)?;
    let copy = Path::new(&copy).display();
    tracing::warn!("changes that it told of may be left on this host; see {copy}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use plan::Setting;

    fn change(path: &str) -> Change {
        Change {
            item: Item::Setting(Setting {
                path: path.into(),
                value: "1".into(),
            }),
            before: Some("0".into()),
        }
    }

    impl Journal {
        /// On a full disk, of which Linux has a device.
        pub(crate) fn full() -> Self {
            Self {
                path: "/dev/full".into(),
                file: OpenOptions::new().append(true).open("/dev/full").unwrap(),
                open: 0,
                placed: false,
            }
        }
    }

    /// Removed when dropped, also by a test that fails.
    struct Directory(PathBuf);

    impl Directory {
        fn join(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn directory(name: &str) -> Directory {
        let directory =
            std::env::temp_dir().join(format!("openclat-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        Directory(directory)
    }

    #[test]
    fn what_was_not_taken_back_is_found_by_the_successor() {
        let directory = directory("journal");
        let path = directory.join("deep/journal.jsonl");
        let (mut journal, left) = Journal::open(&path).unwrap();
        assert!(left.is_empty());
        for name in ["a", "b", "c"] {
            journal.record(&change(name)).unwrap();
        }
        journal.erase(&change("b")).unwrap();
        drop(journal);
        let (mut journal, left) = Journal::open(&path).unwrap();
        assert_eq!(left, [change("a"), change("c")]);
        journal.erase(&change("c")).unwrap();
        journal.erase(&change("a")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn only_one_process_has_it() {
        let directory = directory("lock");
        let path = directory.join("journal.jsonl");
        let (_journal, _) = Journal::open(&path).unwrap();
        let error = Journal::open(&path).unwrap_err();
        assert!(matches!(error, JournalError::InUse { .. }));
        assert!(error.to_string().starts_with("another instance is running"));
    }

    #[test]
    fn a_torn_last_line_is_not_a_change_and_swallows_no_other() {
        let directory = directory("torn");
        let path = directory.join("journal.jsonl");
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.record(&change("a")).unwrap();
        let whole = fs::read(&path).unwrap();
        journal.record(&change("b")).unwrap();
        let both = fs::read(&path).unwrap();
        drop(journal);
        for len in 0..=both.len() {
            fs::write(&path, &both[..len]).unwrap();
            let (mut journal, mut left) = Journal::open(&path).unwrap();
            let complete = usize::from(len + 1 >= whole.len()) + usize::from(len + 1 >= both.len());
            assert_eq!(left, [change("a"), change("b")][..complete], "cut to {len}");
            journal.record(&change("c")).unwrap();
            drop(journal);
            left.push(change("c"));
            let (_, found) = Journal::open(&path).unwrap();
            assert_eq!(found, left, "cut to {len}");
        }
        assert!(!directory.join("journal.jsonl.damaged").exists());
    }

    /// Neither garbage nor a line of another version keeps the others from being taken back.
    #[test]
    fn a_damaged_journal_is_kept_and_the_rest_of_it_is_used() {
        let directory = directory("damaged");
        let path = directory.join("journal.jsonl");
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.record(&change("a")).unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"\xff\xfe\0\n{\"make\":{\"item\":{\"moon\":1}}}\n\n")
            .unwrap();
        journal.record(&change("b")).unwrap();
        let bytes = fs::read(&path).unwrap();
        drop(journal);
        let (mut journal, left) = Journal::open(&path).unwrap();
        assert_eq!(left, [change("a"), change("b")]);
        journal.erase(&change("b")).unwrap();
        journal.erase(&change("a")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
        let copy = directory.join("journal.jsonl.damaged");
        assert_eq!(fs::read(copy).unwrap(), bytes);
    }

    #[test]
    fn no_byte_of_a_journal_can_make_it_panic() {
        let line = serde_json::to_vec(&Line::Make(change("a"))).unwrap();
        let mut file = [&line[..], b"\n", &line, b"\n"].concat();
        for at in 0..file.len() {
            for flip in [1, 0x20, 0x80, 0xff] {
                file[at] ^= flip;
                let contents = Contents::parse(&file);
                assert!(contents.left.len() <= 2);
                assert!(!contents.left.is_empty() || at == line.len());
                file[at] ^= flip;
            }
        }
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut journal = Journal::full();
        let error = journal.record(&change("a")).unwrap_err();
        assert!(error.to_string().contains("/dev/full"), "{error}");
    }
}
