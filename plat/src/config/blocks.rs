//! `[blocks]`: whether ports are given to subscribers in blocks.

use nat64::blocks::{Blocks, Deterministic, Dynamic};
use serde_json::{Value, json};

use super::file::BlocksFile;

impl BlocksFile {
    /// For the engine.
    pub(super) fn blocks(self) -> Blocks {
        match self {
            Self::None {} => Blocks::None,
            Self::Dynamic { size, most } => Blocks::Dynamic(Dynamic { size, most }),
            Self::Deterministic { subscribers, spare } => {
                Blocks::Deterministic(Deterministic { subscribers, spare })
            }
        }
    }
}

/// As it is written in the file.
pub(crate) fn value(blocks: Blocks) -> Value {
    match blocks {
        Blocks::None => json!({"mode": "none"}),
        Blocks::Dynamic(it) => json!({"mode": "dynamic", "size": it.size, "most": it.most}),
        Blocks::Deterministic(it) => json!({
            "mode": "deterministic", "subscribers": it.subscribers, "spare": it.spare,
        }),
    }
}
