//! What was changed on the host, one JSON line per event, so that it can be taken back after a
//! crash.
//!
//! The file lives where a restart of the machine empties it, as the changes do not survive one
//! either. It is locked by the process that writes it: two processes cannot configure the same
//! thing, and nobody cleans up after the living.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Seek, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::Change;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process has it.
    #[error("another instance is running: it holds {}", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
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
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(JournalError::InUse {
                    path: path.to_owned(),
                });
            }
            Err(fs::TryLockError::Error(source)) => return Err(io(source)),
        }
        let left = read(&file).map_err(io)?;
        let journal = Self {
            path: path.to_owned(),
            file,
            open: left.len(),
        };
        Ok((journal, left))
    }

    /// Notes a change that is about to be made.
    ///
    /// # Errors
    /// [`JournalError::Io`]; the change must not be made.
    pub fn record(&mut self, change: &Change) -> Result<(), JournalError> {
        self.write(&Line::Make(change.clone()))?;
        self.open += 1;
        Ok(())
    }

    /// Notes that a change was taken back. The journal of a host on which nothing is changed is
    /// empty.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn erase(&mut self, change: &Change) -> Result<(), JournalError> {
        self.open = self.open.saturating_sub(1);
        if self.open == 0 {
            return self.file.set_len(0).map_err(|error| self.io(error));
        }
        self.write(&Line::Unmade(change.clone()))
    }

    fn write(&mut self, line: &Line) -> Result<(), JournalError> {
        let mut text = serde_json::to_string(line).map_err(|error| self.io(error.into()))?;
        text.push('\n');
        // In one piece, so that a crash leaves whole lines. No need to sync: a machine that loses
        // power forgets the changes too.
        self.file
            .write_all(text.as_bytes())
            .map_err(|error| self.io(error))
    }

    fn io(&self, source: io::Error) -> JournalError {
        JournalError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

fn read(mut file: &File) -> io::Result<Vec<Change>> {
    file.rewind()?;
    let mut open: Vec<Change> = Vec::new();
    for line in BufReader::new(file).lines() {
        match serde_json::from_str(&line?) {
            Ok(Line::Make(change)) => open.push(change),
            Ok(Line::Unmade(change)) => {
                if let Some(at) = open.iter().rposition(|it| *it == change) {
                    open.remove(at);
                }
            }
            // A line that was not written to its end tells of a change that was not made.
            Err(error) => tracing::warn!("the journal has a line that cannot be read: {error}"),
        }
    }
    Ok(open)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plan::{Item, Setting};

    fn change(path: &str) -> Change {
        Change {
            item: Item::Setting(Setting {
                path: path.into(),
                value: "1".into(),
            }),
            before: Some("0".into()),
        }
    }

    fn directory(name: &str) -> PathBuf {
        let directory =
            std::env::temp_dir().join(format!("openclat-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        directory
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
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn only_one_process_has_it() {
        let directory = directory("lock");
        let path = directory.join("journal.jsonl");
        let (_journal, _) = Journal::open(&path).unwrap();
        let error = Journal::open(&path).unwrap_err();
        assert!(matches!(error, JournalError::InUse { .. }));
        assert!(error.to_string().starts_with("another instance is running"));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_torn_last_line_is_not_a_change() {
        let directory = directory("torn");
        let path = directory.join("journal.jsonl");
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.record(&change("a")).unwrap();
        drop(journal);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"make\":{\"item\":{\"set").unwrap();
        let (_, left) = Journal::open(&path).unwrap();
        assert_eq!(left, [change("a")]);
        fs::remove_dir_all(directory).unwrap();
    }
}
