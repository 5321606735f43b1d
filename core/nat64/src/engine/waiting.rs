//! What waits in memory besides bindings and sessions.

use xlat::reassembly::Reassembly;

use super::Engine;

/// Bytes that wait for something, besides the tables of bindings and sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitingBytes {
    /// SYNs of servers that no client expects, of [`crate::config::Limits::stored_syn_bytes`].
    pub stored_syns: usize,
    /// Fragments, of [`crate::config::Limits::fragments`].
    pub fragments: usize,
}

impl Engine {
    /// What waits now.
    #[must_use]
    pub fn waiting_bytes(&self) -> WaitingBytes {
        let (_, stored_syns) = self.tables.syns.len();
        let fragments = [&self.fragments_v6, &self.fragments_v4].map(Reassembly::bytes);
        WaitingBytes {
            stored_syns,
            fragments: fragments.iter().sum(),
        }
    }
}
