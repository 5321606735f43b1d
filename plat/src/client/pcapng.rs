//! Writes pcapng (draft-ietf-opsawg-pcapng): what Wireshark, tshark and tcpdump read.
//!
//! One section, an interface for each side of the NAT64, a packet block for each packet with its
//! direction and a comment, and at the end how many were lost.

use std::io::{self, Write};

use control::plat::Side;

/// Packets behind four bytes that tell their family (`LINKTYPE_NULL`). Without those (`LINKTYPE_RAW`)
/// libpcap takes two interfaces of one type for two types, and refuses the file.
const LINKTYPE_NULL: u16 = 0;

/// What the four bytes say, and their length.
const FAMILY_IPV4: u32 = 2;
const FAMILY_IPV6: u32 = 24;
const FAMILY: u32 = 4;

const SECTION: u32 = 0x0A0D_0D0A;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

/// Tells the order of bytes, which is little-endian here.
const MAGIC: u32 = 0x1A2B_3C4D;

/// Options, by the block that they are in.
const END: u16 = 0;
const COMMENT: u16 = 1;
const PACKET_FLAGS: u16 = 2;
const INTERFACE_NAME: u16 = 2;
const INTERFACE_DESCRIPTION: u16 = 3;
const SECTION_APPLICATION: u16 = 4;
const STATISTICS_DROPPED: u16 = 5;
const INTERFACE_RESOLUTION: u16 = 9;

/// Nanoseconds: ten to the power of minus nine.
const NANOSECONDS: u8 = 9;

const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// A packet to write.
pub(super) struct Packet<'a> {
    /// When, in nanoseconds since 1970.
    pub(super) at: u64,
    pub(super) side: Side,
    pub(super) outbound: bool,
    /// How long it was; `bytes` may be only its beginning.
    pub(super) len: u32,
    pub(super) bytes: &'a [u8],
    pub(super) comment: Option<&'a str>,
}

/// A file that is written.
#[derive(Debug)]
pub(super) struct Pcapng<W>(W);

impl<W: Write> Pcapng<W> {
    /// Begins, with two interfaces: those of `interface`'s two sides.
    ///
    /// # Errors
    /// The writer's.
    pub(super) fn begin(writer: W, interface: &str, snaplen: u32) -> io::Result<Self> {
        let mut this = Self(writer);
        let mut section = Block::of(SECTION);
        section.u32(MAGIC);
        // Version 1.0, and a length that nobody knows yet.
        section.u32(1);
        section.u64(u64::MAX);
        let application = concat!("plat ", env!("CARGO_PKG_VERSION"));
        section.option(SECTION_APPLICATION, application.as_bytes());
        this.write(section)?;
        for (name, what) in [
            ("IPv6", "the clients' side of the NAT64"),
            ("IPv4", "the servers' side of the NAT64"),
        ] {
            let mut block = Block::of(INTERFACE);
            block.u32(LINKTYPE_NULL.into());
            block.u32(snaplen.saturating_add(FAMILY));
            let name = format!("{interface} {name}");
            block.option(INTERFACE_NAME, name.as_bytes());
            block.option(INTERFACE_DESCRIPTION, what.as_bytes());
            block.option(INTERFACE_RESOLUTION, &[NANOSECONDS]);
            this.write(block)?;
        }
        this.flush()?;
        Ok(this)
    }

    /// Adds a packet.
    ///
    /// # Errors
    /// The writer's.
    pub(super) fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let mut block = Block::of(PACKET);
        block.u32(number(packet.side));
        block.time(packet.at);
        block.u32(length(packet.bytes.len()).saturating_add(FAMILY));
        block.u32(packet.len.saturating_add(FAMILY));
        block.u32(family(packet.side));
        block.padded(packet.bytes);
        let flags = if packet.outbound { OUTBOUND } else { INBOUND };
        block.option(PACKET_FLAGS, &flags.to_le_bytes());
        if let Some(comment) = packet.comment {
            block.option(COMMENT, comment.as_bytes());
        }
        self.write(block)
    }

    /// Says at the end how many packets were lost. Which side they were of is not known.
    ///
    /// # Errors
    /// The writer's.
    pub(super) fn end(mut self, at: u64, lost: u64) -> io::Result<()> {
        let mut block = Block::of(STATISTICS);
        block.u32(number(Side::V6));
        block.time(at);
        block.option(STATISTICS_DROPPED, &lost.to_le_bytes());
        self.write(block)?;
        self.flush()
    }

    /// Hands over what was written so far.
    ///
    /// # Errors
    /// The writer's.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }

    fn write(&mut self, block: Block) -> io::Result<()> {
        self.0.write_all(&block.finished())
    }
}

fn number(side: Side) -> u32 {
    match side {
        Side::V6 => 0,
        Side::V4 => 1,
    }
}

fn family(side: Side) -> u32 {
    match side {
        Side::V6 => FAMILY_IPV6,
        Side::V4 => FAMILY_IPV4,
    }
}

fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// A block: its type, its length, its body, its options, and its length again.
struct Block {
    bytes: Vec<u8>,
    has_options: bool,
}

impl Block {
    fn of(kind: u32) -> Self {
        let mut block = Self {
            bytes: Vec::new(),
            has_options: false,
        };
        block.u32(kind);
        // Its length, when that is known.
        block.u32(0);
        block
    }

    fn u32(&mut self, value: u32) {
        self.bytes.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes.extend(value.to_le_bytes());
    }

    fn time(&mut self, at: u64) {
        let [a, b, c, d, e, f, g, h] = at.to_le_bytes();
        // The higher half first.
        self.bytes.extend([e, f, g, h, a, b, c, d]);
    }

    /// Bytes, and as many zeroes as make it a multiple of four.
    fn padded(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let padding = bytes.len().next_multiple_of(4) - bytes.len();
        self.bytes.extend(&[0; 4][..padding]);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        let longest = usize::from(u16::MAX);
        let value = &value[..value.len().min(longest)];
        let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.bytes.extend(code.to_le_bytes());
        self.bytes.extend(len.to_le_bytes());
        self.padded(value);
        self.has_options = true;
    }

    fn finished(mut self) -> Vec<u8> {
        if self.has_options {
            self.bytes.extend(END.to_le_bytes());
            self.bytes.extend([0; 2]);
        }
        let len = length(self.bytes.len() + 4);
        self.bytes[4..8].copy_from_slice(&len.to_le_bytes());
        self.u32(len);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The blocks of a file: their types and bodies.
    fn blocks(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let word =
            |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let len = word(bytes, 4) as usize;
            assert_eq!(len % 4, 0);
            assert_eq!(word(bytes, len - 4) as usize, len);
            all.push((word(bytes, 0), bytes[8..len - 4].to_vec()));
            bytes = &bytes[len..];
        }
        all
    }

    #[test]
    fn a_file_has_both_sides_and_every_comment() {
        let mut file = Vec::new();
        let mut writer = Pcapng::begin(&mut file, "plat0", 64).unwrap();
        for (bytes, comment) in [(&b"\x60abcd"[..], Some("dropped: x")), (b"\x45abc", None)] {
            let packet = Packet {
                at: 0x0102_0304_0506_0708,
                side: if comment.is_some() {
                    Side::V6
                } else {
                    Side::V4
                },
                outbound: comment.is_none(),
                len: 1500,
                bytes,
                comment,
            };
            writer.packet(&packet).unwrap();
        }
        writer.end(5, 7).unwrap();
        let all = blocks(&file);
        let kinds: Vec<_> = all.iter().map(|it| it.0).collect();
        assert_eq!(
            kinds,
            [SECTION, INTERFACE, INTERFACE, PACKET, PACKET, STATISTICS]
        );
        assert_eq!(all[0].1[..8], [0x4D, 0x3C, 0x2B, 0x1A, 1, 0, 0, 0]);
        assert_eq!(all[2].1[..8], [0, 0, 0, 0, 68, 0, 0, 0]);
        assert!(all[2].1.windows(10).any(|it| it == b"plat0 IPv4"));
        let first = &all[3].1;
        let head = [0, 0x0102_0304, 0x0506_0708, 9, 1504, 24].map(u32::to_le_bytes);
        assert_eq!(first[..24], head.concat());
        assert_eq!(first[24..32], *b"\x60abcd\0\0\0");
        // Inbound; then the comment, padded; then the end.
        assert_eq!(first[32..40], [2, 0, 4, 0, 1, 0, 0, 0]);
        assert_eq!(first[40..], *b"\x01\0\x0a\0dropped: x\0\0\0\0\0\0");
        let second = &all[4].1;
        assert_eq!((second[0], second[32]), (1, 2), "the other side, outbound");
        assert_eq!(all[5].1[12..24], [5, 0, 8, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
    }
}
