//! The data of an ICMP error: the packet in error, quoted, and perhaps an extension structure.
//! Both directions lay it out anew the same way once the headers are known.

use core::ops::Range;

use wire::{
    checksum::{Delta, Sum},
    field::{get_u16, set_u16},
    icmp,
    offload::Offload,
    packet::{NoRoom, PacketBuf},
};

use crate::{
    extension::{Layout, Units, lay_out},
    icmp_types::Becomes,
    mapping::Rewrite,
    reason::DropReason,
    transport::rewrite_identifier,
};

/// Where things lie in an ICMP error that is to be translated, in bytes from the packet's start.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The payload of the quoted packet, without padding.
    pub(crate) inner_payload: Range<usize>,
    /// The extension structure.
    pub(crate) extension: Option<Range<usize>>,
}

/// The sizes that translation gives the parts of an ICMP error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// The new header of the quoted packet, extension headers included.
    pub(crate) inner_header: usize,
    /// How the new family counts, if the new type can carry a structure at all.
    pub(crate) units: Option<Units>,
    /// Room for the quote and the structure.
    pub(crate) room: usize,
}

impl Place {
    /// How the quote is laid out in `sizes`.
    pub(crate) fn lay_out(&self, sizes: &Sizes) -> Layout {
        let quote = sizes.inner_header + self.inner_payload.len();
        let structure = self.extension.as_ref().map_or(0, Range::len);
        match sizes.units {
            Some(units) => lay_out(quote, structure, units, sizes.room),
            None => lay_out(quote, 0, Units::Words32, sizes.room),
        }
    }
}

/// Puts `front` (outer header, ICMP header, inner header) before the quoted payload, cuts or pads
/// the quote to `layout`, and moves the extension structure behind it.
pub(crate) fn rebuild(
    buf: &mut PacketBuf,
    place: &Place,
    layout: Layout,
    inner_header: usize,
    front: &[u8],
) -> Result<(), NoRoom> {
    let payload_at = place.inner_payload.start;
    let kept_end = payload_at + layout.quote - inner_header;
    let padded_end = payload_at + layout.padded - inner_header;
    let mut end = padded_end;
    if let (Some(structure), true) = (place.extension.clone(), layout.length != 0) {
        end += structure.len();
        buf.append(end.saturating_sub(buf.len()))?;
        buf.bytes_mut().copy_within(structure, padded_end);
    }
    buf.bytes_mut()
        .get_mut(kept_end..padded_end)
        .ok_or(NoRoom)?
        .fill(0);
    buf.truncate(end);
    buf.replace_front(payload_at, front)?;
    buf.offload = Offload::default();
    Ok(())
}

/// Translates an echo at the front of `message`: its type, its identifier, and its checksum, which
/// gains or loses a pseudo-header. Touches only what is there.
pub(crate) fn translate_echo(message: &mut [u8], kind: u8, rewrite: Rewrite, pseudo_header: Delta) {
    let Some(old) = message.first_mut() else {
        return;
    };
    let delta = pseudo_header.word(u16::from(*old) << 8, u16::from(kind) << 8);
    *old = kind;
    let delta = rewrite_identifier(message, rewrite, delta);
    if let Some(checksum) = get_u16(message, icmp::CHECKSUM_AT) {
        set_u16(message, icmp::CHECKSUM_AT, delta.apply(checksum));
    }
}

/// What becomes of the ICMP message that an error quotes: echoes are translated, and an error about
/// an error is not (RFC 1122 §3.2.2).
pub(crate) fn quoted_echo(becomes: Becomes) -> Result<u8, DropReason> {
    match becomes {
        Becomes::Echo(kind) => Ok(kind),
        Becomes::Error { .. } => Err(DropReason::QuotedError),
        Becomes::Nothing => Err(DropReason::UntranslatableIcmp),
    }
}

/// A checksum over a whole message, written into it.
pub(crate) fn write_checksum(message: &mut [u8], pseudo_header: Sum) {
    set_u16(message, icmp::CHECKSUM_AT, 0);
    let checksum = pseudo_header.bytes(message).checksum();
    set_u16(message, icmp::CHECKSUM_AT, checksum);
}
