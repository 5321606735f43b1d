//! Frames made by hand, and everything that comes back: another host on the link, of which the
//! kernel knows nothing.

use std::{
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use nix::sys::socket::{MsgFlags, recv, send};
use socket2::Socket;
use wire::ethernet::{Header, Mac};

use crate::{impair, namespace::Namespace};

/// A host that is nothing but a packet socket.
#[derive(Debug)]
pub struct Stranger(Socket);

impl Stranger {
    /// Plugs in at an interface.
    ///
    /// # Panics
    /// If the packet socket cannot be opened.
    #[must_use]
    pub fn at(namespace: &Namespace, interface: &str) -> Self {
        let interface = interface.to_owned();
        Self(namespace.run(move || impair::open(&interface).expect("a packet socket")))
    }

    /// Sends a frame.
    ///
    /// # Panics
    /// If the interface does not take it.
    pub fn send(&self, dst: Mac, src: Mac, ethertype: u16, payload: &[u8]) {
        let header = Header {
            dst,
            src,
            ethertype,
        };
        let mut frame = header.to_bytes().to_vec();
        frame.extend(payload);
        // No frame is shorter than this on a wire.
        frame.resize(frame.len().max(60), 0);
        send(self.0.as_raw_fd(), &frame, MsgFlags::empty()).expect("a frame is sent");
    }

    /// Every frame that comes within a time.
    #[must_use]
    pub fn hears(&self, within: Duration) -> Vec<Vec<u8>> {
        let end = Instant::now() + within;
        let mut frames = Vec::new();
        let mut buffer = vec![0; 70_000];
        while Instant::now() < end {
            // A read ends after a millisecond.
            if let Ok(len) = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                frames.push(buffer[..len].to_vec());
            }
        }
        frames
    }
}

/// A link-layer address like `02:00:00:00:00:01`.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn mac(text: &str) -> Mac {
    let bytes: Vec<_> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).expect("a byte"))
        .collect();
    Mac(bytes.try_into().expect("six bytes"))
}
