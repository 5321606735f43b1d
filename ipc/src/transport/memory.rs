//! Connections in memory, for tests.

use std::io;

use tokio::{io::DuplexStream, sync::mpsc};

use super::Accept;
use crate::Peer;

/// The end of the service.
#[derive(Debug)]
pub struct MemoryListener(mpsc::Receiver<(DuplexStream, Peer)>);

/// What clients connect to.
#[derive(Clone, Debug)]
pub struct MemoryAddress {
    sender: mpsc::Sender<(DuplexStream, Peer)>,
    buffer: usize,
}

/// A place to listen and the address of it. Each connection takes `buffer` bytes that were not read
/// yet.
#[must_use]
pub fn listen(buffer: usize) -> (MemoryListener, MemoryAddress) {
    let (sender, receiver) = mpsc::channel(64);
    (MemoryListener(receiver), MemoryAddress { sender, buffer })
}

impl MemoryAddress {
    /// Connects as `peer`.
    ///
    /// # Errors
    /// If nobody listens any more.
    pub async fn connect(&self, peer: Peer) -> io::Result<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(self.buffer);
        let sent = self.sender.send((theirs, peer)).await;
        sent.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(ours)
    }
}

impl Accept for MemoryListener {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, Peer)> {
        match self.0.recv().await {
            Some(connection) => Ok(connection),
            // Nobody can connect any more.
            None => std::future::pending().await,
        }
    }
}
