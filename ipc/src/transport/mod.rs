//! Where the bytes go.

pub mod memory;
#[cfg(unix)]
mod unix;
#[cfg(not(unix))]
mod unsupported;

use std::{future::Future, io};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::Peer;

#[cfg(unix)]
pub use unix::{Listener, Stream, connect, listen};
#[cfg(unix)]
pub(crate) use unix::{is_member, own_uid};
#[cfg(not(unix))]
pub use unsupported::{Listener, Stream, connect, listen};
#[cfg(not(unix))]
pub(crate) use unsupported::{is_member, own_uid};

/// Where clients come in.
pub trait Accept: Send {
    /// What carries the bytes.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Waits for the next client. May be given up and called again.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;
}
