//! Directories that are gone when this process is: at its end, after a panic, and when a signal
//! ends it. (After SIGKILL they stay.)

use std::{
    collections::BTreeSet,
    env, fs, future, io,
    path::{Path, PathBuf},
    process,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
};

/// Those there are.
static DIRECTORIES: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn directories() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    DIRECTORIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A directory that is removed when this is dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new directory among the system's temporary ones. `name` is for people.
    ///
    /// # Errors
    /// The system's.
    pub fn new(name: &str) -> io::Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        mind_signals()?;
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let unique = format!("openclat-{name}-{}-{number}", process::id());
        let path = env::temp_dir().join(unique);
        // Known first: a signal may come in between.
        directories().insert(path.clone());
        let scratch = Self(path);
        fs::create_dir_all(&scratch.0)?;
        Ok(scratch)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Lets it stay for people to look at.
    pub fn keep(self) {
        directories().remove(&self.0);
        std::mem::forget(self);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        directories().remove(&self.0);
    }
}

/// Ends this process at once, and leaves nothing.
pub fn exit(code: i32) -> ! {
    // Held until the end: nobody makes another.
    let directories = directories();
    for directory in &*directories {
        let _ = fs::remove_dir_all(directory);
    }
    process::exit(code)
}

/// From now on, a signal that ends this process removes the directories first.
fn mind_signals() -> io::Result<()> {
    static MINDED: OnceLock<Result<(), io::ErrorKind>> = OnceLock::new();
    let minded = MINDED.get_or_init(|| start_minder().map_err(|error| error.kind()));
    minded.map_err(io::Error::from)
}

fn start_minder() -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    for kind in [
        SignalKind::hangup(),
        SignalKind::interrupt(),
        SignalKind::terminate(),
    ] {
        let _inside = runtime.enter();
        runtime.spawn(end_by(signal(kind)?, kind));
    }
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || runtime.block_on(future::pending::<()>()))?;
    Ok(())
}

/// What a shell makes of a process that a signal has ended.
async fn end_by(mut signal: Signal, kind: SignalKind) {
    signal.recv().await;
    exit(128 + kind.as_raw_value());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_removed_unless_it_is_kept() {
        let scratch = Scratch::new("unit").unwrap();
        let path = scratch.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();
        drop(scratch);
        assert!(!path.exists());

        let scratch = Scratch::new("unit").unwrap();
        let path = scratch.path().to_owned();
        scratch.keep();
        assert!(path.exists() && !directories().contains(&path));
        fs::remove_dir_all(path).unwrap();
    }
}
