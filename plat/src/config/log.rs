//! `[log]` and `[metrics]`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use cli::{
    Failure,
    config::{Document, Spanned},
};
use schemars::JsonSchema;
use serde::Deserialize;

/// Old ones that are kept at most.
pub(crate) const MOST_KEPT: u32 = 1000;

/// The event log: which client had which address and port when (RFC 8158). Off without a file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogFile {
    /// Where it is written to, a JSON object per line.
    #[schemars(with = "Option<String>")]
    file: Option<Spanned<String>>,
    /// Bytes after which it is renamed. Default 67108864 (64 MiB), at least 4096.
    #[schemars(with = "Option<u64>")]
    max_bytes: Option<Spanned<u64>>,
    /// How many old ones are kept, at most 1000; older ones are removed. Default 8.
    keep: Option<u32>,
    /// Write down where clients go to, too. Default: no (RFC 6888 REQ-12).
    #[serde(default)]
    destinations: bool,
}

/// Metrics for Prometheus. Off without an address.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricsFile {
    /// A loopback address and port, such as 127.0.0.1:9464.
    #[schemars(with = "Option<String>")]
    listen: Option<Spanned<String>>,
}

/// The event log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Log {
    /// Where it is written to.
    pub(crate) file: PathBuf,
    /// Bytes after which it is renamed.
    pub(crate) max_bytes: u64,
    /// How many old ones are kept.
    pub(crate) keep: u32,
    /// Whether sessions are written down, with where they go to, instead of bindings.
    pub(crate) destinations: bool,
}

impl LogFile {
    pub(super) fn settle(&self, document: &Document) -> Result<Option<Log>, Failure> {
        let Some(file) = &self.file else {
            return Ok(None);
        };
        if !Path::new(file.get_ref()).is_absolute() {
            let what = "the event log needs a path from the root, like /var/log/openclat/plat.log";
            return Err(document.wrong(file.span(), what));
        }
        let max_bytes = match &self.max_bytes {
            Some(max) if *max.get_ref() < 4096 => {
                return Err(document.wrong(max.span(), "max_bytes must be at least 4096"));
            }
            Some(max) => *max.get_ref(),
            None => 64 << 20,
        };
        Ok(Some(Log {
            file: file.get_ref().into(),
            max_bytes,
            keep: self.keep.unwrap_or(8).min(MOST_KEPT),
            destinations: self.destinations,
        }))
    }
}

impl MetricsFile {
    pub(super) fn settle(&self, document: &Document) -> Result<Option<SocketAddr>, Failure> {
        let Some(listen) = &self.listen else {
            return Ok(None);
        };
        let address: SocketAddr = document.value::<SocketAddr>(listen)?.into_inner();
        if !address.ip().is_loopback() {
            let what = format_args!("{address} can be reached from other hosts");
            let hint = "use a loopback address, and a proxy that asks who it is";
            return Err(document.wrong(listen.span(), what).hint(hint));
        }
        Ok(Some(address))
    }
}
