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
            Self::Deterministic {
                subscribers,
                spare,
                spare_size,
                spare_most,
            } => {
                let default = Deterministic::new(subscribers, spare);
                Blocks::Deterministic(Deterministic {
                    spare_size: spare_size.unwrap_or(default.spare_size),
                    spare_most: spare_most.unwrap_or(default.spare_most),
                    ..default
                })
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
            "spare_size": it.spare_size, "spare_most": it.spare_most,
        }),
    }
}
