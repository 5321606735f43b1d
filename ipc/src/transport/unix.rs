//! Unix sockets.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::stat::{Mode, umask},
    unistd::{Gid, Group, Uid, User, geteuid},
};
use tokio::net::{UnixListener, UnixStream};

use super::Accept;
use crate::{Error, Peer};

/// What carries the bytes.
pub type Stream = UnixStream;

/// A socket that clients connect to. Removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    inner: UnixListener,
    path: PathBuf,
    /// Held for as long as the socket is ours: on the directory, so that nothing is left over.
    _lock: Flock<File>,
}

/// Listens at a path in a directory that is this program's own. Everybody may connect: what they
/// may do is decided by who they are. The socket of a program that is gone is replaced.
///
/// # Errors
/// [`Error::InUse`], [`Error::UnsafeDirectory`], or the system's.
pub fn listen(path: &Path) -> Result<Listener, Error> {
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    let lock = own_directory(directory, path)?;
    remove_dead(path)?;
    Ok(Listener {
        inner: bind(path)?,
        path: path.to_owned(),
        _lock: lock,
    })
}

/// Makes the directory if there is none, and sees to it that nobody else can change it.
fn own_directory(directory: &Path, path: &Path) -> Result<Flock<File>, Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)?;
    let file = File::open(directory)?;
    let metadata = file.metadata()?;
    let owner = Uid::from_raw(metadata.uid());
    let others_write = metadata.mode() & 0o022 != 0;
    if others_write || !(owner.is_root() || owner == geteuid()) {
        return Err(Error::UnsafeDirectory(directory.to_owned()));
    }
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == nix::Error::EWOULDBLOCK {
            Error::InUse(path.to_owned())
        } else {
            Error::Io(errno.into())
        }
    })
}

/// Removes a socket that nobody listens at. Everything else stays.
fn remove_dead(path: &Path) -> Result<(), Error> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::InUse(path.to_owned()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(Error::from)
        }
        _ => Err(Error::InUse(path.to_owned())),
    }
}

/// Binds so that the socket has mode 0666 from the beginning: there is no moment in which it has
/// another one.
fn bind(path: &Path) -> io::Result<UnixListener> {
    // The mask is the whole process's.
    static MASK: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MASK.lock().unwrap_or_else(PoisonError::into_inner);
    let before = umask(Mode::from_bits_truncate(0o111));
    let bound = UnixListener::bind(path);
    umask(before);
    bound
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The directory is still locked: it is ours.
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!("{}: {error}", self.path.display());
        }
    }
}

impl Accept for Listener {
    type Stream = UnixStream;

    async fn accept(&mut self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = self.inner.accept().await?;
        let peer = peer(&stream)?;
        Ok((stream, peer))
    }
}

fn peer(stream: &UnixStream) -> io::Result<Peer> {
    let credentials = stream.peer_cred()?;
    Ok(Peer::of(credentials.uid(), credentials.gid()))
}

/// Connects to a service that runs as root, as `service_user`, or as this program's own user.
///
/// # Errors
/// [`Error::NotRunning`], [`Error::Impostor`], or the system's.
pub async fn connect(path: &Path, service_user: &str) -> Result<UnixStream, Error> {
    let stream = UnixStream::connect(path).await.map_err(|error| {
        let nobody = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
        if nobody.contains(&error.kind()) {
            Error::NotRunning(path.to_owned())
        } else {
            Error::Io(error)
        }
    })?;
    let peer = peer(&stream)?;
    let is_service = || {
        let user = User::from_name(service_user).ok().flatten();
        user.is_some_and(|it| it.uid.as_raw() == peer.uid)
    };
    if peer.is_root() || peer.is_own_user() || is_service() {
        return Ok(stream);
    }
    Err(Error::Impostor {
        path: path.to_owned(),
        uid: peer.uid,
    })
}

#[expect(clippy::unnecessary_wraps, reason = "other systems have none")]
pub(crate) fn own_uid() -> Option<u32> {
    Some(geteuid().as_raw())
}

pub(crate) fn is_member(uid: u32, gid: u32, group: &str) -> bool {
    let Some(group) = Group::from_name(group).ok().flatten() else {
        return false;
    };
    if group.gid.as_raw() == gid {
        return true;
    }
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.is_some_and(|it| has_group(it, Gid::from_raw(gid), &group))
}

#[cfg(not(target_vendor = "apple"))]
fn has_group(user: User, primary: Gid, group: &Group) -> bool {
    let name = std::ffi::CString::new(user.name).ok();
    let groups = name.and_then(|it| nix::unistd::getgrouplist(&it, primary).ok());
    groups.is_some_and(|it| it.contains(&group.gid))
}

/// The crate asks Apple's systems for no user's groups; a group's members are the same question.
#[cfg(target_vendor = "apple")]
#[expect(clippy::needless_pass_by_value, reason = "as on other systems")]
fn has_group(user: User, _primary: Gid, group: &Group) -> bool {
    group.mem.contains(&user.name)
}

#[cfg(test)]
mod tests;
