//! Other programs of ours on this host, which may want the same setting as this one.
//!
//! Their journals lie beside this one's, each in a state directory of its own. They tell how a
//! setting was before the first of them changed it, and whether one that lives needs it: the last
//! one out restores it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use plan::Item;

use super::{
    Change,
    journal::{Contents, lock},
    place::{Place, Whereabouts},
};

/// The journals of the others, as they are while this is held: whoever of them makes or takes back
/// a setting waits for it.
#[derive(Debug, Default)]
pub(super) struct Beside {
    others: Vec<Other>,
    _turn: Option<File>,
}

#[derive(Debug)]
struct Other {
    lives: bool,
    changes: Vec<Change>,
}

impl Beside {
    /// Looks, if the item is something that several programs may want.
    pub(super) async fn about(item: &Item, own: &Path) -> Self {
        if !matches!(item, Item::Setting(_)) {
            return Self::default();
        }
        Self::now(own).await
    }

    /// Looks. Others of this process go on meanwhile: whoever has the turn is waited for.
    pub(super) async fn now(own: &Path) -> Self {
        // This thread's: the other one may have been in use before.
        let (own, here) = (own.to_owned(), Place::here());
        let look = move || Self::look(&own, here.as_ref());
        let looked = tokio::task::spawn_blocking(look);
        // Nobody to be found is nobody to be asked.
        looked
            .await
            .map_or_else(|_| Self::default(), Result::unwrap_or_default)
    }

    fn look(own: &Path, here: Option<&Place>) -> io::Result<Self> {
        let (Some(directory), Some(name)) = (own.parent(), own.file_name()) else {
            return Ok(Self::default());
        };
        let directory = directory.canonicalize()?;
        let Some(common) = directory.parent() else {
            return Ok(Self::default());
        };
        if is_writable_by_everybody(common)? {
            return Ok(Self::default());
        }
        let turn = File::open(common)?;
        // Somebody who never lets go must not keep this one from its work.
        let _ = lock(&turn);
        let mut others = Vec::new();
        for entry in fs::read_dir(common)? {
            let path = entry?.path();
            if path != directory && is_writable_by_everybody(&path).is_ok_and(|it| !it) {
                others.extend(Other::read(&path.join(name), here));
            }
        }
        Ok(Self {
            others,
            _turn: Some(turn),
        })
    }

    /// How the setting was before the first of them made it what it is now.
    pub(super) fn original(&self, item: &Item, now: Option<&str>) -> Option<String> {
        // Forwarding is followed by the interfaces that differ.
        let now = now?.split(' ').next();
        let is_it = |change: &&Change| {
            change.item.same_subject(item)
                && matches!(&change.item, Item::Setting(it) if now == Some(&it.value))
        };
        let all = self.others.iter().flat_map(|it| &it.changes);
        all.filter(is_it).find_map(|it| it.before.clone())
    }

    /// Whether one that lives wants it to be so.
    pub(super) fn needs(&self, item: &Item) -> bool {
        let living = self.others.iter().filter(|it| it.lives);
        living.flat_map(|it| &it.changes).any(|it| it.item == *item)
    }
}

impl Other {
    /// Nothing of one that cannot be read, or that changed the settings of another network
    /// namespace.
    fn read(path: &PathBuf, here: Option<&Place>) -> Option<Self> {
        // To open anything else may take as long as somebody likes.
        let is_file = fs::metadata(path).ok()?.is_file();
        let file = is_file.then(|| File::open(path).ok())??;
        let contents = Contents::read(&file).ok()?;
        let is_here = match (&contents.place, here) {
            (Some(place), Some(here)) => place.seen_from(here) == Whereabouts::Here,
            (place, here) => place.is_none() && here.is_none(),
        };
        if contents.left.is_empty() || !is_here {
            return None;
        }
        let lives = matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock));
        Some(Self {
            lives,
            changes: contents.left,
        })
    }
}

/// What anybody may put there is not believed.
#[cfg(unix)]
fn is_writable_by_everybody(directory: &Path) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::metadata(directory)?.permissions().mode() & 0o002 != 0)
}

/// Nobody knows.
#[cfg(not(unix))]
fn is_writable_by_everybody(_: &Path) -> io::Result<bool> {
    Ok(true)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        os::unix::fs::PermissionsExt,
        rc::Rc,
        time::Duration,
    };

    use plan::{Plan, Setting};

    use super::super::{Made, NetCfg, System, SystemError};
    use super::*;

    /// A kernel with one setting, which several programs see.
    #[derive(Clone)]
    struct Kernel(Rc<RefCell<String>>);

    impl System for Kernel {
        async fn before(&mut self, _: &Item) -> Option<String> {
            Some(self.0.borrow().clone())
        }

        async fn make(&mut self, item: &Item) -> Result<Made, SystemError> {
            if let Item::Setting(it) = item {
                (*self.0.borrow_mut()).clone_from(&it.value);
            }
            Ok(Made::Yes)
        }

        async fn unmake(&mut self, change: &Change) -> Result<(), SystemError> {
            let before = change.before.clone().unwrap_or_default();
            *self.0.borrow_mut() = before;
            Ok(())
        }
    }

    /// A kernel, and where the programs on it have their journals.
    struct Host {
        kernel: Kernel,
        directory: PathBuf,
    }

    impl Host {
        fn new(name: &str) -> Self {
            let name = format!("openclat-{}-{name}", std::process::id());
            let directory = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&directory);
            fs::create_dir_all(&directory).unwrap();
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
            Self {
                kernel: Kernel(Rc::new(RefCell::new("0".to_owned()))),
                directory,
            }
        }

        fn journal(&self, name: &str) -> PathBuf {
            self.directory.join(name).join("journal.jsonl")
        }

        async fn start(&self, name: &str) -> NetCfg<Kernel> {
            let opened = NetCfg::open(self.kernel.clone(), &self.journal(name)).await;
            let mut netcfg = opened.unwrap();
            netcfg.apply(&Plan::new([forwarding("1")])).await.unwrap();
            netcfg
        }

        fn is(&self) -> String {
            self.kernel.0.borrow().clone()
        }
    }

    impl Drop for Host {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }

    fn forwarding(value: &str) -> Item {
        Item::Setting(Setting {
            path: "net/x".into(),
            value: value.into(),
        })
    }

    async fn original(netcfg: &mut NetCfg<Kernel>) -> Option<String> {
        let path = "net/x".to_owned();
        netcfg.originals([path.clone()]).await.remove(&path)
    }

    async fn stop(mut netcfg: NetCfg<Kernel>) {
        netcfg.apply(&Plan::nothing()).await.unwrap();
    }

    #[tokio::test]
    async fn the_last_one_out_restores_whoever_came_first() {
        for first_goes_first in [true, false] {
            let host = Host::new(&format!("last-{first_goes_first}"));
            let mut one = host.start("one").await;
            let mut two = host.start("two").await;
            assert_eq!(original(&mut two).await.as_deref(), Some("0"));
            if !first_goes_first {
                std::mem::swap(&mut one, &mut two);
            }
            stop(one).await;
            assert_eq!(host.is(), "1");
            // And the next one still learns how it was.
            let mut three = host.start("three").await;
            assert_eq!(original(&mut three).await.as_deref(), Some("0"));
            stop(two).await;
            assert_eq!(host.is(), "1");
            stop(three).await;
            assert_eq!(host.is(), "0");
        }
    }

    /// The dead need nothing, but know how it was.
    #[tokio::test]
    async fn one_that_was_killed_is_cleaned_up_without_harm() {
        let host = Host::new("killed");
        drop(host.start("one").await);
        let two = host.start("two").await;
        let left = NetCfg::cleanup(host.kernel.clone(), &host.journal("one")).await;
        assert_eq!((left.unwrap().len(), host.is()), (1, "1".to_owned()));
        stop(two).await;
        assert_eq!(host.is(), "0");

        drop(host.start("one").await);
        stop(host.start("two").await).await;
        assert_eq!(host.is(), "0");
    }

    #[tokio::test]
    async fn what_somebody_else_has_set_since_is_how_it_was() {
        let host = Host::new("since");
        drop(host.start("one").await);
        *host.kernel.0.borrow_mut() = "7".to_owned();
        stop(host.start("two").await).await;
        assert_eq!(host.is(), "7");
    }

    /// The directory of all may be the system's own, like /run, in which some are everybody's.
    #[tokio::test]
    async fn what_anybody_may_put_beside_is_neither_believed_nor_waited_for() {
        let host = Host::new("beside");
        let one = host.start("one").await;
        let text = fs::read_to_string(host.journal("one")).unwrap();
        stop(one).await;
        let everybodys = host.directory.join("lock");
        fs::create_dir_all(&everybodys).unwrap();
        fs::set_permissions(&everybodys, fs::Permissions::from_mode(0o1777)).unwrap();
        let forged = text.replace("\"before\":\"0\"", "\"before\":\"9\"");
        assert_ne!(forged, text);
        fs::write(host.journal("lock"), forged).unwrap();
        *host.kernel.0.borrow_mut() = "1".to_owned();
        stop(host.start("two").await).await;
        assert_eq!(host.is(), "1");
        // Whoever opens it waits for somebody who writes.
        let pipe = host.journal("pipe");
        fs::create_dir_all(pipe.parent().unwrap()).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let (sender, done) = std::sync::mpsc::channel();
        let read = pipe.clone();
        std::thread::spawn(move || sender.send(Other::read(&read, None).is_none()));
        let waited = done.recv_timeout(Duration::from_secs(5));
        assert_eq!(waited, Ok(true));
    }

    /// What else there is to do in this process is done meanwhile.
    #[tokio::test]
    async fn whose_turn_it_is_is_waited_for_aside() {
        let host = Host::new("turn");
        drop(host.start("one").await);
        let turn = File::open(&host.directory).unwrap();
        turn.lock().unwrap();
        let passed_on = Cell::new(false);
        let others = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            passed_on.set(true);
            drop(turn);
        };
        let two = async {
            let two = host.start("two").await;
            assert!(passed_on.get());
            two
        };
        let ((), two) = tokio::join!(others, two);
        stop(two).await;
        assert_eq!(host.is(), "0");
    }

    /// Neither one in another network, nor what anybody may have put there.
    #[tokio::test]
    async fn strangers_are_not_asked() {
        let host = Host::new("strangers");
        let one = host.start("one").await;
        let path = host.journal("one");
        let text = fs::read_to_string(&path).unwrap();
        let network = Place::here().unwrap().network;
        assert!(text.contains(&network), "{text}");
        fs::write(&path, text.replace(&network, "net:[1]")).unwrap();
        let mut two = host.start("two").await;
        // As it was when that one came.
        assert_eq!(original(&mut two).await.as_deref(), Some("1"));
        stop(two).await;
        let elsewhere = host.start("two").await;
        fs::write(&path, &text).unwrap();
        let open = fs::Permissions::from_mode(0o1777);
        fs::set_permissions(&host.directory, open).unwrap();
        stop(one).await;
        assert_eq!(host.is(), "0");
        stop(elsewhere).await;
    }
}
