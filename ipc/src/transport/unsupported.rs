//! Systems without a backend yet.

use std::{io, path::Path};

use tokio::io::DuplexStream;

use super::Accept;
use crate::{Error, Peer};

/// What would carry the bytes.
pub type Stream = DuplexStream;

/// There is none of these.
#[derive(Debug)]
pub enum Listener {}

impl Accept for Listener {
    type Stream = Stream;

    async fn accept(&mut self) -> io::Result<(Stream, Peer)> {
        match *self {}
    }
}

/// Fails.
///
/// # Errors
/// Always.
pub fn listen(_path: &Path) -> Result<Listener, Error> {
    Err(Error::Unsupported)
}

/// Fails.
///
/// # Errors
/// Always.
pub async fn connect(_path: &Path, _service_user: &str) -> Result<Stream, Error> {
    std::future::ready(Err(Error::Unsupported)).await
}

pub(crate) fn own_uid() -> Option<u32> {
    None
}

pub(crate) fn is_member(_uid: u32, _gid: u32, _group: &str) -> bool {
    false
}
