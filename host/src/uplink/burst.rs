//! [`Burst`]: small frames that are received with one system call.

use l2::link::FrameAddresses;
use wire::{ethernet::Mac, offload::OffloadError, packet::PacketBuf};

/// The most packets that are received or sent with one system call.
pub const MAX_BURST: usize = 64;

/// The longest packet in bytes that is worth being sent in a burst. For longer ones the system call
/// is cheap beside the copy, and a buffer that is used again at once is still in the cache.
pub const SMALL: usize = 2048;

/// A received frame.
#[derive(Debug)]
pub struct Slot {
    /// The IPv6 packet.
    pub buf: PacketBuf,
    /// From whom to whom.
    pub frame: FrameAddresses,
    /// Whether its metadata could be understood; the packet is lost if not.
    pub readable: Result<(), OffloadError>,
}

impl Slot {
    fn new() -> Self {
        Self {
            buf: PacketBuf::new(),
            frame: FrameAddresses {
                src: Mac([0; 6]),
                dst: Mac([0; 6]),
            },
            readable: Ok(()),
        }
    }
}

/// Buffers for frames that come together, and how many are expected.
///
/// Every buffer takes a frame of any size, for nobody knows what comes next; memory that was never
/// written to costs nothing. As many are expected as came last time and as many again: while large
/// frames come, or few, the same few buffers are used, which stay in the cache.
#[derive(Debug)]
pub struct Burst {
    slots: Box<[Slot]>,
    expected: usize,
    filled: usize,
}

impl Burst {
    /// Room for [`MAX_BURST`] frames.
    #[must_use]
    pub fn new() -> Self {
        Self {
            slots: (0..MAX_BURST).map(|_| Slot::new()).collect(),
            expected: 1,
            filled: 0,
        }
    }

    /// A buffer for other uses between two bursts.
    pub fn spare(&mut self) -> &mut PacketBuf {
        &mut self.slots[0].buf
    }

    /// The frames that came.
    pub fn received(&mut self) -> &mut [Slot] {
        &mut self.slots[..self.filled]
    }

    /// Where a port receives into.
    pub fn expected(&mut self) -> &mut [Slot] {
        &mut self.slots[..self.expected]
    }

    /// Says that the first `count` of [`Self::expected`] were filled.
    pub fn fill(&mut self, count: usize) {
        self.filled = count.min(self.expected);
        let large = self.received().iter().any(|it| it.buf.len() > SMALL);
        self.expected = if large {
            1
        } else {
            (self.filled * 2).clamp(1, MAX_BURST)
        };
    }
}

impl Default for Burst {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn come(burst: &mut Burst, sizes: &[usize]) {
        for (slot, size) in burst.expected().iter_mut().zip(sizes) {
            slot.buf.set(&vec![0; *size]).unwrap();
        }
        burst.fill(sizes.len());
    }

    #[test]
    fn a_burst_grows_with_what_comes_and_large_frames_come_alone() {
        let mut burst = Burst::new();
        for wanted in [1, 2, 4, 8, 16, 32, 64, 64] {
            assert_eq!(burst.expected().len(), wanted);
            come(&mut burst, &vec![100; wanted]);
            assert_eq!(burst.received().len(), wanted);
        }
        come(&mut burst, &[100; 3]);
        assert_eq!(burst.expected().len(), 6);
        come(&mut burst, &[100, SMALL + 1, 100]);
        assert_eq!(burst.received().len(), 3);
        assert_eq!(burst.expected().len(), 1);
        come(&mut burst, &[]);
        assert_eq!((burst.received().len(), burst.expected().len()), (0, 1));
    }
}
