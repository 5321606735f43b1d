//! Big-endian numbers at fixed places of a header, for packets that may be cut off.

/// The 16-bit number at `at`, if it is there.
#[must_use]
pub fn get_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<2>())
        .map(|pair| u16::from_be_bytes(*pair))
}

/// The 32-bit number at `at`, if it is there.
#[must_use]
pub fn get_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<4>())
        .map(|quad| u32::from_be_bytes(*quad))
}

/// Writes a 16-bit number at `at`; does nothing if there is no place for it.
pub fn set_u16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(pair) = bytes
        .get_mut(at..)
        .and_then(|rest| rest.first_chunk_mut::<2>())
    {
        *pair = value.to_be_bytes();
    }
}

/// Writes a 32-bit number at `at`; does nothing if there is no place for it.
pub fn set_u32(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(quad) = bytes
        .get_mut(at..)
        .and_then(|rest| rest.first_chunk_mut::<4>())
    {
        *quad = value.to_be_bytes();
    }
}
