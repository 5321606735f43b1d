//! What a target reads from the bytes it is given: settings first, then packets.

use std::time::{Duration, Instant};

/// Bytes, read from the front. Behind the end everything is zero.
#[derive(Clone, Debug)]
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let taken = self.take(N);
        bytes[..taken.len()].copy_from_slice(taken);
        bytes
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// The next packet, and what comes with it.
    pub(crate) fn packet(&mut self) -> Option<Packet<'a>> {
        if self.is_empty() {
            return None;
        }
        let flags = self.byte();
        let len = u16::from_le_bytes(self.array());
        Some(Packet {
            flags,
            bytes: self.take(len.into()),
        })
    }
}

/// A packet of a conversation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) flags: u8,
    pub(crate) bytes: &'a [u8],
}

impl Packet<'_> {
    /// Which of two ways it goes.
    pub(crate) fn is_second_way(&self) -> bool {
        self.flags & 0x80 != 0
    }

    /// The time since the one before: most often none, at most three hours.
    pub(crate) fn pause(&self) -> Duration {
        const SECONDS: [u64; 8] = [0, 0, 0, 0, 1, 6, 300, 3 * 3600];
        Duration::from_secs(SECONDS[usize::from(self.flags & 7)])
    }

    /// As [`Input::packet`] reads it.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let len = (self.bytes.len() as u16).to_le_bytes();
        [&[self.flags], &len[..], self.bytes].concat()
    }
}

/// The origin of virtual time.
pub(crate) fn origin() -> Instant {
    Instant::now()
}
