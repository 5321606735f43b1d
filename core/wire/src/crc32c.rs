//! CRC32c, the checksum of SCTP (RFC 9260 appendix A).

/// The polynomial 0x1edc6f41, its bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

const TABLE: [u32; 256] = table();

/// The CRC32c of `bytes`. On the wire its low byte comes first.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        TABLE[usize::from(low ^ byte)] ^ crc >> 8
    });
    !crc
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        table[n as usize] = remainder(n);
        n += 1;
    }
    table
}

/// What eight bits of `value` leave when they are divided by the polynomial.
const fn remainder(mut value: u32) -> u32 {
    let mut bit = 0;
    while bit < 8 {
        let is_odd = value & 1 != 0;
        value >>= 1;
        if is_odd {
            value ^= POLYNOMIAL;
        }
        bit += 1;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720 appendix B.4, and the check value that every catalogue of CRCs names.
    #[test]
    fn known_values() {
        assert_eq!(crc32c(&[0; 32]).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(crc32c(&[0xff; 32]).to_le_bytes(), [0x43, 0xab, 0xa8, 0x62]);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&rising).to_le_bytes(), [0x4e, 0x79, 0xdd, 0x46]);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
