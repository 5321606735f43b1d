//! Receiving from a socket on tokio's runtime.

use std::{io, os::fd::AsRawFd};

use tokio::io::unix::AsyncFd;

/// Waits until `receive` gets something from `socket`, which does not block.
///
/// # Errors
/// Those of `receive` but for an interruption.
pub(crate) async fn receive<S: AsRawFd, T>(
    socket: &AsyncFd<S>,
    receive: impl Fn(&S) -> io::Result<T>,
) -> io::Result<T> {
    loop {
        let mut guard = socket.readable().await?;
        match guard.try_io(|socket| receive(socket.get_ref())) {
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(received) => return received,
            Err(_would_block) => {}
        }
    }
}
