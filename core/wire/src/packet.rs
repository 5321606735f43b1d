//! [`PacketBuf`]: one buffer per packet, from the read to the write.
//!
//! The packet lies in the middle of a fixed allocation. Translation grows it to the front (IPv6
//! headers are longer), ports put their link-layer and virtio-net headers before it, and nothing
//! behind the headers ever moves.
//!
//! ```text
//! storage: |<-------- HEADROOM -------->|<- MAX_PACKET + slack ->|
//!                        ^ grows        ^ a packet is received here
//! ```

use crate::offload::Offload;

/// Bytes before a received packet.
///
/// The worst case is an ICMPv4 error that leaves through a packet socket: 20 for the outer IPv6
/// header, 20 for the embedded one, 8 for its Fragment Header, 14 for Ethernet and 10 for the
/// virtio-net header. The rest keeps the packet's start on a cache line.
pub const HEADROOM: usize = 128;

/// The longest packet a buffer takes: an IPv6 header and the largest payload its length field names.
pub const MAX_PACKET: usize = 40 + 65_535;

/// Room behind the packet for the padding of RFC 4884 and what an embedded header grows by.
const TAILROOM: usize = 256;

/// There is no room for what should be put before or behind a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// A packet with headroom, and what its virtio-net header said about it.
pub struct PacketBuf {
    storage: Box<[u8]>,
    start: usize,
    end: usize,
    /// What is left to do for the packet: unfinished checksum, segmentation.
    pub offload: Offload,
}

impl PacketBuf {
    /// A buffer for packets of any size. The only allocation in a packet's life; reuse the buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::for_packets_up_to(MAX_PACKET)
    }

    /// A buffer for packets of up to `longest` bytes.
    #[must_use]
    pub fn for_packets_up_to(longest: usize) -> Self {
        Self {
            storage: vec![0; HEADROOM + longest + TAILROOM].into_boxed_slice(),
            start: HEADROOM,
            end: HEADROOM,
            offload: Offload::default(),
        }
    }

    /// The packet.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.end]
    }

    /// The packet, to change in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.end]
    }

    /// The packet's length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there is no packet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Copies `packet` in, without offload metadata.
    ///
    /// # Errors
    /// [`NoRoom`] if it is longer than the buffer was made for.
    pub fn set(&mut self, packet: &[u8]) -> Result<(), NoRoom> {
        let area = self.receive_area(0);
        let target = area.get_mut(..packet.len()).ok_or(NoRoom)?;
        target.copy_from_slice(packet);
        self.received(packet.len(), Offload::default());
        Ok(())
    }

    /// Where a port reads into: `prefix` bytes of its own headers (virtio-net, Ethernet), then the
    /// packet. `prefix` is at most [`HEADROOM`].
    pub fn receive_area(&mut self, prefix: usize) -> &mut [u8] {
        &mut self.storage[HEADROOM - prefix.min(HEADROOM)..]
    }

    /// Says that [`Self::receive_area`] now holds a packet of `len` bytes behind the prefix.
    pub fn received(&mut self, len: usize, offload: Offload) {
        self.start = HEADROOM;
        self.end = (HEADROOM + len).min(self.storage.len());
        self.offload = offload;
    }

    /// Makes the packet `count` bytes longer at the front and returns those bytes, with whatever
    /// they held.
    ///
    /// # Errors
    /// [`NoRoom`] if the headroom is used up; the packet is unchanged.
    pub fn prepend(&mut self, count: usize) -> Result<&mut [u8], NoRoom> {
        let start = self.start.checked_sub(count).ok_or(NoRoom)?;
        self.start = start;
        Ok(&mut self.storage[start..start + count])
    }

    /// Drops the first `count` bytes.
    pub fn advance(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Drops everything behind the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start + len);
    }

    /// Makes the packet `count` bytes longer at the back and returns those bytes, with whatever
    /// they held.
    ///
    /// # Errors
    /// [`NoRoom`] if the buffer is full; the packet is unchanged.
    pub fn append(&mut self, count: usize) -> Result<&mut [u8], NoRoom> {
        let old = self.end;
        let end = old.checked_add(count).ok_or(NoRoom)?;
        if end > self.storage.len() {
            return Err(NoRoom);
        }
        self.end = end;
        Ok(&mut self.storage[old..end])
    }

    /// Replaces the first `old` bytes by `new`, which may be shorter or longer. What follows stays
    /// where it is.
    ///
    /// # Errors
    /// [`NoRoom`] if the packet is shorter than `old` or the headroom is used up; the packet is
    /// unchanged.
    pub fn replace_front(&mut self, old: usize, new: &[u8]) -> Result<(), NoRoom> {
        if old > self.len() {
            return Err(NoRoom);
        }
        let body = self.start + old;
        let start = body.checked_sub(new.len()).ok_or(NoRoom)?;
        self.storage[start..body].copy_from_slice(new);
        self.start = start;
        Ok(())
    }

    /// The packet's place in the storage, for [`crate::pieces`].
    pub(crate) fn window(&self) -> (usize, usize) {
        (self.start, self.end)
    }

    /// Makes `header` and the storage bytes `body..end` the packet. The bytes before `body` are
    /// overwritten: they belong to a piece that has been sent.
    pub(crate) fn set_piece(&mut self, header: &[u8], body: usize, end: usize) {
        let start = body.saturating_sub(header.len());
        self.storage[start..body].copy_from_slice(&header[header.len() - (body - start)..]);
        self.start = start;
        self.end = end.min(self.storage.len()).max(body);
    }
}

impl Default for PacketBuf {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for PacketBuf {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PacketBuf")
            .field("packet", &crate::pretty::Summary::of(self.bytes()))
            .field("offload", &self.offload)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(bytes: &[u8]) -> PacketBuf {
        let mut buf = PacketBuf::for_packets_up_to(100);
        buf.set(bytes).unwrap();
        buf
    }

    #[test]
    fn headers_change_without_moving_the_body() {
        let mut buf = packet(b"0123456789");
        buf.replace_front(4, b"abcdefgh").unwrap();
        assert_eq!(buf.bytes(), b"abcdefgh456789");
        buf.replace_front(8, b"xy").unwrap();
        assert_eq!(buf.bytes(), b"xy456789");
        assert_eq!(buf.replace_front(9, b""), Err(NoRoom));
    }

    #[test]
    fn a_whole_packet_can_be_replaced() {
        let mut buf = packet(b"0123");
        buf.replace_front(4, b"ab").unwrap();
        assert_eq!(buf.bytes(), b"ab");
    }

    #[test]
    fn both_ends_can_be_cut_and_no_further() {
        let mut buf = packet(b"0123456789");
        buf.advance(2);
        buf.truncate(6);
        assert_eq!(buf.bytes(), b"234567");
        buf.truncate(7);
        assert_eq!(buf.bytes(), b"234567");
        assert!(!buf.is_empty());
        buf.advance(7);
        assert!(buf.is_empty() && buf.bytes().is_empty());
    }

    /// Ports read their own headers before the packet, and every packet fits behind them.
    #[test]
    fn a_packet_is_received_behind_its_prefix() {
        let mut buf = PacketBuf::new();
        let area = buf.receive_area(24);
        assert!(area.len() >= 24 + MAX_PACKET);
        assert_eq!(MAX_PACKET, 65_575);
        area[..28].copy_from_slice(&[[0xee; 24].as_slice(), b"abcd"].concat());
        buf.received(4, Offload::default());
        assert_eq!(buf.bytes(), b"abcd");
        assert_eq!(buf.prepend(24).unwrap(), [0xee; 24]);
        assert!(format!("{buf:?}").contains("no IP packet, 28 bytes"));
    }

    #[test]
    fn the_headroom_ends() {
        let mut buf = packet(b"0123");
        assert_eq!(buf.prepend(HEADROOM).map(|front| front.len()), Ok(HEADROOM));
        assert_eq!(buf.prepend(1), Err(NoRoom));
        assert_eq!(buf.len(), HEADROOM + 4);
    }

    #[test]
    fn a_packet_longer_than_the_buffer_is_refused() {
        let mut buf = PacketBuf::for_packets_up_to(100);
        assert_eq!(buf.set(&[0; 100 + TAILROOM + 1]), Err(NoRoom));
        assert!(buf.append(100 + TAILROOM).is_ok());
        assert_eq!(buf.append(1), Err(NoRoom));
    }
}
