//! Makes the host's network as a [`Plan`] wants it, and takes it back.
//!
//! * [`NetCfg::apply`] compares the plan with what it made before and changes only the difference:
//!   what is no longer wanted is taken back first, last made first.
//! * Every change is written to a [`journal`] *before* it is made, with what is needed to take it
//!   back. A successor of a crashed process finds it there and cleans up; so does
//!   [`NetCfg::cleanup`].
//! * A setting that several programs of ours want is restored by the last of them.

use std::{collections::BTreeMap, future::Future, io, path::Path};

use plan::{Item, Plan, Setting};
use serde::{Deserialize, Serialize};

mod beside;
#[cfg(target_os = "linux")]
mod guard;
pub mod journal;
#[cfg(target_os = "linux")]
pub(crate) mod linux;
#[cfg(target_os = "linux")]
mod nft;
mod place;
#[cfg(target_os = "linux")]
mod reserved;
#[cfg(target_os = "linux")]
mod sharing;

use crate::Host;
use crate::fault;
use beside::Beside;
use journal::{Journal, JournalError};

/// A change that was made, or is about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What was wanted.
    pub item: Item,
    /// What was there before, where that matters for taking it back: the value of a setting, or an
    /// address or a neighbour that somebody else has put there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// What the system said to a change.
#[derive(Debug)]
pub enum Made {
    /// It is so now.
    Yes,
    /// Nothing was changed: the system lacks what it takes, but the rest can do without. The
    /// reason, for the log.
    Without(String),
}

/// Why the system did not make a change.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct SystemError {
    /// The change, for people.
    pub what: String,
    /// What the system said.
    pub source: io::Error,
}

/// The part of a system that makes changes.
///
/// * Linux: rtnetlink, `/proc/sys`, nftables.
/// * macOS: the routing socket and interface ioctls; a black hole is a route with RTF_BLACKHOLE,
///   and concealment a pf anchor.
/// * Windows: IP Helper for addresses and routes, a WFP filter for concealment. It has no black
///   holes and needs none, as it has the CLAT's address itself: [`Made::Without`].
pub trait System {
    /// What is there now, for [`Change::before`].
    fn before(&mut self, item: &Item) -> impl Future<Output = Option<String>>;

    /// Makes it so. Succeeds if it is so already and that is our own doing. Where somebody else's
    /// is in the way it fails, and leaves that alone.
    fn make(&mut self, item: &Item) -> impl Future<Output = Result<Made, SystemError>>;

    /// Takes it back, if it is our own doing. Succeeds if there is nothing to take back.
    fn unmake(&mut self, change: &Change) -> impl Future<Output = Result<(), SystemError>>;
}

/// Why a plan was not applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused a change. What was made before it stays, until the next plan.
    #[error(transparent)]
    System(#[from] SystemError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Error {
    /// What kind of error it was to the system.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::System(SystemError { source, .. })
            | Self::Journal(JournalError::Io { source, .. }) => source.kind(),
            Self::Journal(JournalError::InUse { .. } | JournalError::Elsewhere { .. }) => {
                io::ErrorKind::ResourceBusy
            }
        }
    }

    /// What a person can do about it, if that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        let denied = self.kind() == io::ErrorKind::PermissionDenied;
        match self {
            Self::System(_) if denied => Some("run it as root, or give it CAP_NET_ADMIN"),
            Self::System(_) if self.kind() == io::ErrorKind::AlreadyExists => Some(
                "somebody else has made the same on this host, and it stays: remove it, or \
                 choose another address or metric",
            ),
            Self::System(_) => None,
            Self::Journal(JournalError::InUse { .. }) => Some("stop that instance first"),
            Self::Journal(JournalError::Elsewhere { .. }) => Some(
                "run cleanup there (`lsns -t net` shows who is in it; `nsenter -t PID -n` or `ip \
                 netns exec` goes there), or use another --state-dir here; if that namespace is \
                 gone, its changes are gone with it: remove the file",
            ),
            Self::Journal(JournalError::Io { .. }) if denied => {
                Some("run it as root, or choose a directory of your own with --state-dir")
            }
            Self::Journal(JournalError::Io { .. }) => {
                Some("choose a directory that may be written with --state-dir")
            }
        }
    }
}

/// What was made on this host, by this process.
#[derive(Debug)]
pub struct NetCfg<S> {
    system: S,
    journal: Journal,
    made: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    change: Change,
    progress: Progress,
}

/// How far a change has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// It is in the journal; the system may have made it, or a part of it.
    Begun,
    /// It is so.
    Made,
    /// The system cannot, and the rest does without. Not in the journal.
    Without,
}

impl<S: System> NetCfg<S> {
    /// Takes over the journal at `path`, and takes back what a crashed predecessor left.
    ///
    /// # Errors
    /// [`JournalError::InUse`] if another process has it, [`JournalError::Elsewhere`] if that was in
    /// another network namespace.
    pub async fn open(mut system: S, path: &Path) -> Result<Self, Error> {
        let (mut journal, left) = Journal::open(path)?;
        take_back(&mut system, &mut journal, left).await?;
        Ok(Self {
            system,
            journal,
            made: Vec::new(),
        })
    }

    /// Takes back what a crashed process left, as the journal at `path` tells. Returns what that
    /// was.
    ///
    /// # Errors
    /// [`JournalError::InUse`] if the process is not dead, [`JournalError::Elsewhere`] if it was in
    /// another network namespace.
    pub async fn cleanup(mut system: S, path: &Path) -> Result<Vec<Change>, Error> {
        let (mut journal, left) = Journal::open(path)?;
        take_back(&mut system, &mut journal, left.clone()).await?;
        Ok(left)
    }

    /// Makes the host as `plan` wants it.
    ///
    /// # Errors
    /// [`Error`]. What can be taken back is, whatever else fails; nothing new is made then. Applying
    /// the plan again tries again what failed, and [`Plan::nothing`] takes back what was made.
    pub async fn apply(&mut self, plan: &Plan) -> Result<(), Error> {
        self.unmake_all_but(plan).await?;
        for item in plan.items() {
            self.make(item).await?;
        }
        Ok(())
    }

    /// Kernel settings as they were before a program of ours changed them, by their paths. Those that
    /// there are not are left out. Other programs of ours are looked for once.
    pub async fn originals(
        &mut self,
        paths: impl IntoIterator<Item = String>,
    ) -> BTreeMap<String, String> {
        let beside = self.journal.all_beside().await;
        let mut originals = BTreeMap::new();
        for path in paths {
            if let Some(value) = self.original(&path, &beside).await {
                originals.insert(path, value);
            }
        }
        originals
    }

    async fn original(&mut self, path: &str, beside: &Beside) -> Option<String> {
        let setting = Item::Setting(Setting {
            path: path.to_owned(),
            value: String::new(),
        });
        let mut changed = self.made.iter().map(|it| &it.change);
        match changed.find(|it| it.item.same_subject(&setting)) {
            Some(change) => change.before.clone(),
            None => before(&mut self.system, beside, &setting).await,
        }
    }

    /// Makes again everything that was made and that somebody else may have taken away: another
    /// program, or the kernel, which deletes the routes of an interface that is set down.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn make_again(&mut self) -> Result<(), Error> {
        for entry in &mut self.made {
            if entry.progress != Progress::Without {
                entry.progress = Progress::Begun;
            }
        }
        for at in 0..self.made.len() {
            self.finish(at).await?;
        }
        Ok(())
    }

    async fn unmake_all_but(&mut self, plan: &Plan) -> Result<(), Error> {
        let wanted =
            |entry: &Entry| (plan.items().iter()).any(|it| it.same_subject(&entry.change.item));
        let mut failed = None;
        for at in (0..self.made.len()).rev() {
            if !wanted(&self.made[at])
                && let Err(error) = self.unmake(at).await
            {
                tracing::warn!("{error}");
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn make(&mut self, item: &Item) -> Result<(), Error> {
        let same = |entry: &Entry| entry.change.item.same_subject(item);
        let at = match self.made.iter().position(same) {
            Some(at) if self.made[at].change.item == *item => at,
            // Everything else goes before it comes.
            Some(at) if replaces(item) => self.replace(at, item)?,
            Some(at) => {
                self.unmake(at).await?;
                self.begin(item).await?
            }
            None => self.begin(item).await?,
        };
        self.finish(at).await
    }

    /// Records a change.
    async fn begin(&mut self, item: &Item) -> Result<usize, Error> {
        let beside = self.journal.beside(item).await;
        let change = Change {
            item: item.clone(),
            before: before(&mut self.system, &beside, item).await,
        };
        self.journal.record(&change)?;
        self.made.push(Entry {
            change,
            progress: Progress::Begun,
        });
        Ok(self.made.len() - 1)
    }

    /// Records a change that takes the place of an earlier one, and is taken back as that would be.
    fn replace(&mut self, at: usize, item: &Item) -> Result<usize, Error> {
        let change = Change {
            item: item.clone(),
            before: self.made[at].change.before.clone(),
        };
        self.journal.record(&change)?;
        self.journal.erase(&self.made[at].change)?;
        self.made[at] = Entry {
            change,
            progress: Progress::Begun,
        };
        Ok(at)
    }

    /// Makes a change that is recorded and not made yet.
    async fn finish(&mut self, at: usize) -> Result<(), Error> {
        let Entry { change, progress } = &mut self.made[at];
        if *progress != Progress::Begun {
            return Ok(());
        }
        tracing::debug!("{}", change.item);
        let made = self.system.make(&change.item).await?;
        fault::point("change made");
        match made {
            Made::Yes => *progress = Progress::Made,
            Made::Without(reason) => {
                tracing::warn!("{}: not possible here: {reason}", change.item);
                *progress = Progress::Without;
                self.journal.erase(change)?;
            }
        }
        Ok(())
    }

    async fn unmake(&mut self, at: usize) -> Result<(), Error> {
        let Entry { change, progress } = &self.made[at];
        if *progress != Progress::Without {
            tracing::debug!("no longer: {}", change.item);
            let beside = self.journal.beside(&change.item).await;
            if !beside.needs(&change.item) {
                self.system.unmake(change).await?;
            }
            fault::point("change taken back");
            let change = self.made.remove(at).change;
            self.journal.erase(&change)?;
        } else {
            self.made.remove(at);
        }
        Ok(())
    }
}

/// What was there before the first program of ours came.
async fn before<S: System>(system: &mut S, beside: &Beside, item: &Item) -> Option<String> {
    let now = system.before(item).await;
    beside.original(item, now.as_deref()).or(now)
}

/// Whether making an item takes the place of what was made of it before, at once: settings of an
/// interface, and a table that must not be missing for a moment.
fn replaces(item: &Item) -> bool {
    matches!(item, Item::Interface(_) | Item::ForwardingGuard(_))
}

/// Takes back what a crashed process left on a host, as the journal at `path` tells. Returns what
/// that was: nothing if there is no journal.
///
/// # Errors
/// [`JournalError::InUse`] if the process is not dead.
pub async fn clean_up(host: &impl Host, path: &Path) -> Result<Vec<Change>, Error> {
    let system_error = |what: String| move |source| SystemError { what, source };
    // A directory that may not be read is not one without a journal.
    let exists = path.try_exists();
    if !exists.map_err(system_error(format!("cannot look for {}", path.display())))? {
        return Ok(Vec::new());
    }
    let system = host.system();
    let system = system.map_err(system_error(
        "cannot change the network's settings".to_owned(),
    ))?;
    NetCfg::cleanup(system, path).await
}

/// Takes back changes, last made first. One that cannot be taken back does not keep the others from
/// it; it stays in the journal.
async fn take_back<S: System>(
    system: &mut S,
    journal: &mut Journal,
    left: Vec<Change>,
) -> Result<(), Error> {
    let mut failed = None;
    for change in left.iter().rev() {
        tracing::info!("cleaning up after a crash: {}", change.item);
        let beside = journal.beside(&change.item).await;
        let taken_back = match beside.needs(&change.item) {
            true => Ok(()),
            false => system.unmake(change).await.map_err(Error::from),
        };
        fault::point("change of a predecessor taken back");
        if let Err(error) = taken_back.and_then(|()| Ok(journal.erase(change)?)) {
            tracing::warn!("{error}");
            failed.get_or_insert(error);
        }
    }
    failed.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests;
