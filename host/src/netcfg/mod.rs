//! Makes the host's network as a [`Plan`] wants it, and takes it back.
//!
//! * [`NetCfg::apply`] compares the plan with what it made before and changes only the difference:
//!   what is no longer wanted is taken back first, last made first.
//! * Every change is written to a [`journal`] *before* it is made, with what is needed to take it
//!   back. A successor of a crashed process finds it there and cleans up; so does
//!   [`NetCfg::cleanup`].

use std::{future::Future, io, path::Path};

use plan::{Item, Plan};
use serde::{Deserialize, Serialize};

pub mod journal;
#[cfg(target_os = "linux")]
pub mod linux;
#[cfg(target_os = "linux")]
mod nft;

use journal::{Journal, JournalError};

/// A change that was made, or is about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What was wanted.
    pub item: Item,
    /// What was there before, where that matters for taking it back: the value of a setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// What the system said to a change.
#[derive(Debug)]
pub enum Made {
    /// It is so now.
    Yes,
    /// The system lacks what it takes, but the rest can do without. The reason, for the log.
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
pub trait System {
    /// What is there now, for [`Change::before`].
    fn before(&mut self, item: &Item) -> impl Future<Output = Option<String>>;

    /// Makes it so. Succeeds if it is so already and that is our own doing.
    fn make(&mut self, item: &Item) -> impl Future<Output = Result<Made, SystemError>>;

    /// Takes it back. Succeeds if there is nothing to take back.
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
            Self::Journal(JournalError::InUse { .. }) => io::ErrorKind::ResourceBusy,
        }
    }

    /// What a person can do about it, if that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::System(_) if self.kind() == io::ErrorKind::PermissionDenied => {
                Some("run it as root, or give it CAP_NET_ADMIN")
            }
            Self::System(_) => None,
            Self::Journal(JournalError::InUse { .. }) => Some("stop that instance first"),
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
    made: Vec<Change>,
}

impl<S: System> NetCfg<S> {
    /// Takes over the journal at `path`, and takes back what a crashed predecessor left.
    ///
    /// # Errors
    /// [`JournalError::InUse`] if another process has it.
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
    /// [`JournalError::InUse`] if the process is not dead.
    pub async fn cleanup(mut system: S, path: &Path) -> Result<Vec<Change>, Error> {
        let (mut journal, left) = Journal::open(path)?;
        take_back(&mut system, &mut journal, left.clone()).await?;
        Ok(left)
    }

    /// Makes the host as `plan` wants it.
    ///
    /// # Errors
    /// [`Error`]. Applying [`Plan::nothing`] afterwards takes back what was made.
    pub async fn apply(&mut self, plan: &Plan) -> Result<(), Error> {
        let unwanted = |change: &Change| {
            let wanted = |item: &Item| item.same_subject(&change.item);
            !plan.items().iter().any(wanted)
        };
        for at in (0..self.made.len()).rev() {
            if unwanted(&self.made[at]) {
                self.unmake(at).await?;
            }
        }
        for item in plan.items() {
            self.make(item).await?;
        }
        Ok(())
    }

    async fn make(&mut self, item: &Item) -> Result<(), Error> {
        let same = |change: &Change| change.item.same_subject(item);
        if let Some(at) = self.made.iter().position(same) {
            if self.made[at].item == *item {
                return Ok(());
            }
            // Settings of an interface replace each other; everything else goes before it comes.
            if !matches!(item, Item::Interface(_)) {
                self.unmake(at).await?;
            } else {
                self.made[at].item = item.clone();
                tracing::debug!("{item}");
                self.system.make(item).await?;
                return Ok(());
            }
        }
        let change = Change {
            item: item.clone(),
            before: self.system.before(item).await,
        };
        self.journal.record(&change)?;
        self.made.push(change);
        tracing::debug!("{item}");
        match self.system.make(item).await? {
            Made::Yes => {}
            Made::Without(reason) => tracing::warn!("{item}: not possible here: {reason}"),
        }
        Ok(())
    }

    async fn unmake(&mut self, at: usize) -> Result<(), Error> {
        let change = &self.made[at];
        tracing::debug!("no longer: {}", change.item);
        self.system.unmake(change).await?;
        self.journal.erase(change)?;
        self.made.remove(at);
        Ok(())
    }
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
        match system.unmake(change).await {
            Ok(()) => journal.erase(change)?,
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
