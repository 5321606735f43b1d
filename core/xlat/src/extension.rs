//! Extended ICMP errors (RFC 4884): a length says where the quoted packet ends and the extension
//! structure begins. The two families count that length in different units and keep it in
//! different bytes.

use core::ops::Range;

/// A quoted packet before an extension structure is padded to at least this many bytes.
pub const MIN_QUOTE: usize = 128;

/// How one family writes the length of the quoted packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// ICMPv4: 32-bit words in byte 5.
    Words32,
    /// ICMPv6: 64-bit words in byte 4.
    Words64,
}

impl Units {
    /// Bytes per unit.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Words32 => 4,
            Self::Words64 => 8,
        }
    }

    /// Where among bytes 4 to 7 of the ICMP header the length stands.
    #[must_use]
    pub const fn place(self) -> usize {
        match self {
            Self::Words32 => 1,
            Self::Words64 => 0,
        }
    }

    /// The most that fits the length, in bytes.
    const fn max(self) -> usize {
        255 * self.bytes()
    }
}

/// The two parts of the data behind the header of an ICMP error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// How many bytes quote the packet in error, padding included.
    pub quote: usize,
    /// Where the extension structure lies, from the start of the quote.
    pub extension: Option<Range<usize>>,
}

/// Divides `data_len` bytes behind an ICMP header whose length field says `length` units. A length
/// that cannot be (under 128 bytes, or past the end) comes from a sender who does not know
/// RFC 4884 and left noise in a field that used to be unused.
#[must_use]
pub fn divide(length: u8, units: Units, data_len: usize) -> Parts {
    let quote = usize::from(length) * units.bytes();
    if (MIN_QUOTE..data_len).contains(&quote) {
        Parts {
            quote,
            extension: Some(quote..data_len),
        }
    } else {
        Parts {
            quote: data_len,
            extension: None,
        }
    }
}

/// How the quote and the extension structure are laid out in a translated error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of the quoted packet that are kept, its new header included.
    pub quote: usize,
    /// The quote with its padding: where the extension structure starts. Equal to `quote` if there
    /// is none.
    pub padded: usize,
    /// The new length field, 0 if there is no extension structure.
    pub length: u8,
}

/// Fits a quote of `quote` bytes and an extension structure of `extension` bytes (0 for none) into
/// `room` bytes: the quote gives way first, down to 128 bytes; then the structure is left out.
#[must_use]
pub fn lay_out(quote: usize, extension: usize, units: Units, room: usize) -> Layout {
    let unit = units.bytes();
    let quote_room = room.saturating_sub(extension).min(units.max()) / unit * unit;
    if extension == 0 || quote_room < MIN_QUOTE {
        let quote = quote.min(room);
        return Layout {
            quote,
            padded: quote,
            length: 0,
        };
    }
    let padded = quote.next_multiple_of(unit).max(MIN_QUOTE).min(quote_room);
    Layout {
        quote: quote.min(padded),
        padded,
        length: u8::try_from(padded / unit).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn xlat_4_2_03_lengths_from_32_to_64_bit_words() {
        for (v4, wanted) in [
            (128, (152, 19)),
            (132, (152, 19)),
            (136, (160, 20)),
            (528, (552, 69)),
        ] {
            let layout = lay_out(v4 + 20, 8, Units::Words64, 1232);
            assert_eq!((layout.padded, layout.length), wanted, "{v4}");
            assert_eq!(layout.quote, v4 + 20);
        }
    }

    #[test]
    fn xlat_5_2_03_lengths_from_64_to_32_bit_words() {
        for (v6, wanted) in [(128, (128, 32)), (144, (128, 32)), (152, (132, 33))] {
            let layout = lay_out(v6 - 20, 8, Units::Words32, 548);
            assert_eq!((layout.padded, layout.length), wanted, "{v6}");
        }
        // Without the limit of 576 bytes a longer one would be possible: 1020 bytes at most.
        assert_eq!(lay_out(1180, 8, Units::Words32, 2000).length, 255);
    }

    #[test]
    fn noise_in_the_length_is_not_a_length() {
        let whole = |length, data| divide(length, Units::Words32, data).extension.is_none();
        assert!(whole(0, 500));
        assert!(whole(31, 500));
        assert!(!whole(32, 500));
        assert!(whole(32, 128));
        assert!(whole(255, 500));
        let parts = divide(16, Units::Words64, 140);
        assert_eq!((parts.quote, parts.extension), (128, Some(128..140)));
    }

    #[test]
    fn the_quote_gives_way_before_the_structure() {
        let layout = lay_out(1300, 12, Units::Words32, 128 + 12);
        assert_eq!((layout.quote, layout.padded, layout.length), (128, 128, 32));
        assert_eq!(lay_out(1300, 12, Units::Words32, 128 + 11).length, 0);
        let layout = lay_out(1300, 100, Units::Words64, 1232);
        assert_eq!(
            (layout.quote, layout.padded, layout.length),
            (1128, 1128, 141)
        );
        let layout = lay_out(1300, 1200, Units::Words64, 1232);
        assert_eq!(
            (layout.quote, layout.padded, layout.length),
            (1232, 1232, 0)
        );
    }

    proptest! {
        #[test]
        fn everything_fits(quote in 0usize..2000, extension in 0usize..2000, room in 128usize..2000) {
            for units in [Units::Words32, Units::Words64] {
                let layout = lay_out(quote, extension, units, room);
                prop_assert!(layout.quote <= quote && layout.quote <= layout.padded);
                let structure = if layout.length == 0 { 0 } else { extension };
                prop_assert!(layout.padded + structure <= room);
                if layout.length != 0 {
                    prop_assert_eq!(usize::from(layout.length) * units.bytes(), layout.padded);
                    prop_assert!(layout.padded >= MIN_QUOTE);
                }
            }
        }
    }
}
