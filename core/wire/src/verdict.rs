//! What becomes of a packet: [`Verdict`], with a named and counted reason for every loss.

use crate::pieces::Pieces;

/// The fate of one packet, decided by a translator or an engine over it.
#[derive(Debug)]
#[must_use]
#[expect(
    clippy::large_enum_variant,
    reason = "a verdict lives on the stack for one packet; a box would allocate"
)]
pub enum Verdict<R> {
    /// Send it on: load the pieces into the buffer one after the other and send each.
    Forward(Pieces),
    /// It cannot pass, for the reason given; the buffer now holds an ICMP error for its sender.
    Reply(R),
    /// It ends here, for the reason given.
    Drop(R),
}

impl<R> Verdict<R> {
    /// The same verdict with another kind of reason.
    pub fn map_reason<S>(self, f: impl FnOnce(R) -> S) -> Verdict<S> {
        match self {
            Self::Forward(pieces) => Verdict::Forward(pieces),
            Self::Reply(reason) => Verdict::Reply(f(reason)),
            Self::Drop(reason) => Verdict::Drop(f(reason)),
        }
    }
}

/// Why a packet did not pass. Implemented by [`drop_reasons!`](crate::drop_reasons) only.
pub trait Reason: Copy + core::fmt::Debug + Eq + 'static {
    /// Every reason, in the order of [`Self::index`].
    const ALL: &'static [Self];

    /// Its place in [`Self::ALL`], for arrays of counters.
    fn index(self) -> usize;

    /// A stable name for logs, metrics and other processes: `kebab-case`.
    fn code(self) -> &'static str;

    /// One sentence for people, with the clause it follows from.
    fn explain(self) -> &'static str;
}

/// Declares an enum of reasons for dropping a packet: `Variant = "code": "sentence (clause)"`.
#[macro_export]
macro_rules! drop_reasons {
    (
        $(#[$attr:meta])*
        $vis:vis enum $name:ident {
            $($variant:ident = $code:literal : $explain:literal,)+
        }
    ) => {
        $(#[$attr])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $vis enum $name {
            $(#[doc = $explain] $variant,)+
        }

        impl $crate::verdict::Reason for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn index(self) -> usize {
                self as usize
            }

            fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            fn explain(self) -> &'static str {
                match self { $(Self::$variant => $explain,)+ }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str($crate::verdict::Reason::code(*self))
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::Reason;

    drop_reasons! {
        enum Why {
            Old = "old": "It is old (RFC 0 §1).",
            New = "new": "It is new (RFC 0 §2).",
        }
    }

    #[test]
    fn reasons_know_their_place_and_name() {
        assert_eq!(Why::ALL, [Why::Old, Why::New]);
        assert_eq!(Why::New.index(), 1);
        assert_eq!(Why::New.code(), "new");
        assert_eq!(Why::Old.to_string(), "old");
        assert_eq!(Why::Old.explain(), "It is old (RFC 0 §1).");
    }
}
