//! [`Error`].

use std::{io, path::PathBuf};

use control::{Problem, Version};

/// Why a conversation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens.
    #[error("nothing listens at {}", .0.display())]
    NotRunning(PathBuf),
    /// The system's.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A message that cannot be read.
    #[error("a message that cannot be read: {0}")]
    Malformed(String),
    /// A message longer than allowed.
    #[error("a message that is too long")]
    TooLong,
    /// The other end speaks another protocol.
    #[error(
        "the other end speaks protocol {theirs}, this program {}",
        Version::CURRENT
    )]
    VersionMismatch {
        /// What it speaks.
        theirs: Version,
    },
    /// The request was refused, or the connection was.
    #[error("{0}")]
    Problem(#[from] Problem),
    /// The other end hung up.
    #[error("the other end hung up")]
    Closed,
    /// The other end said nothing for too long.
    #[error("no answer in time")]
    Timeout,
    /// The other end is neither the service's user nor root.
    #[error("the program that listens at {} is of user {uid}, who is neither the service nor root", path.display())]
    Impostor {
        /// Where it listens.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// Another instance listens there.
    #[error("another program listens at {}", .0.display())]
    InUse(PathBuf),
    /// Others could put a socket of theirs there.
    #[error("{} can be changed by others than the service", .0.display())]
    UnsafeDirectory(PathBuf),
    /// There is no such transport on this system.
    #[error("there are no control sockets on this system yet")]
    Unsupported,
}
