//! What must rest over a restart of `plat`, in a file (RFC 6888 REQ-8).
//!
//! It is written when `plat` ends in order, in the state directory, which a restart of the service
//! leaves and one of the machine empties. Nothing is written while `plat` runs: of one that is killed,
//! nothing rests. The file stays, so that a start that fails takes nothing away, and means nothing
//! any more when its time is over.

use std::{
    fs, io,
    net::Ipv4Addr,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use control::plat::Protocol;
use host::private;
use nat64::{
    Engine,
    blocks::PortBlock,
    ports::PortRange,
    restart::{Remains, RestingPorts},
};
use serde::{Deserialize, Serialize};

use crate::{admin::rows, workers::Orders};

/// Its name in the state directory.
pub(crate) const FILE: &str = "resting.json";

/// Another one would mean something else.
const SCHEMA: &str = "openclat-plat-resting/1";

#[derive(Debug, Serialize, Deserialize)]
struct Written {
    schema: String,
    /// When `plat` ended, in seconds since 1970.
    ended: u64,
    ports: Vec<PortsLine>,
    blocks: Vec<BlockLine>,
    /// Of the workers, in hexadecimal digits. Only with blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PortsLine {
    address: Ipv4Addr,
    protocol: Protocol,
    ports: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct BlockLine {
    subscriber: String,
    address: Ipv4Addr,
    first: u16,
    last: u16,
}

/// What a `plat` has left.
#[derive(Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// What must rest.
    pub(crate) remains: Remains,
    /// The key of its workers, if there are blocks: with another one, most subscribers would belong to
    /// other workers than their blocks do.
    pub(crate) key: Option<[u8; 16]>,
}

impl std::fmt::Debug for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key is nobody's to see.
        self.remains.fmt(f)
    }
}

/// What the `plat` before has left, if ports rest for so long and it ended less than that ago.
pub(crate) fn read(path: &Path, rest: Duration) -> Left {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Left::default(),
        Err(error) => return unreadable(path, &error),
    };
    let written: Written = match serde_json::from_str(&text) {
        Ok(written) => written,
        Err(error) => return unreadable(path, &error),
    };
    if written.schema != SCHEMA {
        return unreadable(path, &format_args!("{} is not known", written.schema));
    }
    // A clock that was set back makes it younger: then it rests too long and not too short.
    if now().saturating_sub(written.ended) >= rest.as_secs() {
        return Left::default();
    }
    let remains = Remains {
        ports: written.ports.iter().filter_map(ports).collect(),
        blocks: written.blocks.iter().filter_map(block).collect(),
    };
    let ports: usize = remains.ports.iter().map(|it| it.ports.len()).sum();
    tracing::info!(
        "{ports} ports and {} blocks that clients had before rest for {} s",
        remains.blocks.len(),
        rest.as_secs()
    );
    let key = written
        .key
        .as_deref()
        .filter(|_| !remains.blocks.is_empty());
    let key = key.and_then(|it| u128::from_str_radix(it, 16).ok());
    Left {
        remains,
        key: key.map(u128::to_be_bytes),
    }
}

/// Writes down what must rest, unless ports do not rest.
///
/// `key` is that of the workers.
pub(crate) async fn leave(path: &Path, orders: &Orders, key: [u8; 16], rest: Duration) {
    if rest.is_zero() {
        return;
    }
    let all = match orders.each(|engine: &mut Engine, _| engine.remains()).await {
        Ok(all) => all,
        Err(error) => {
            tracing::warn!("ports that are in use now will not rest: {error}");
            return;
        }
    };
    if let Err(error) = write(path, &all, key, now()) {
        tracing::warn!("{}: {error}", path.display());
    }
}

fn write(path: &Path, all: &[Remains], key: [u8; 16], ended: u64) -> io::Result<()> {
    if all.iter().all(Remains::is_empty) {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
    }
    let ports = all.iter().flat_map(|it| &it.ports).map(|it| PortsLine {
        address: it.address,
        protocol: rows::protocol(it.protocol),
        ports: it.ports.to_string(),
    });
    let blocks = all.iter().flat_map(|it| &it.blocks).map(|it| BlockLine {
        subscriber: it.subscriber.to_string(),
        address: it.address,
        first: it.ports.first(),
        last: it.ports.last(),
    });
    let has_blocks = all.iter().any(|it| !it.blocks.is_empty());
    let written = Written {
        schema: SCHEMA.to_owned(),
        ended,
        ports: ports.collect(),
        blocks: blocks.collect(),
        key: has_blocks.then(|| format!("{:032x}", u128::from_be_bytes(key))),
    };
    private::write(path, &serde_json::to_string(&written)?)
}

fn ports(line: &PortsLine) -> Option<RestingPorts> {
    Some(RestingPorts {
        address: line.address,
        protocol: rows::engine_protocol(line.protocol),
        ports: line.ports.parse().ok()?,
    })
}

fn block(line: &BlockLine) -> Option<PortBlock> {
    Some(PortBlock {
        subscriber: line.subscriber.parse().ok()?,
        address: line.address,
        ports: PortRange::new(line.first, line.last)?,
    })
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> Left {
    tracing::warn!("{}: {error}: no port rests", path.display());
    Left::default()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nat64::tuple;

    const REST: Duration = Duration::from_secs(120);
    const KEY: [u8; 16] = [7; 16];

    fn file(name: &str) -> std::path::PathBuf {
        let process = std::process::id();
        std::env::temp_dir().join(format!("plat-resting-{process}-{name}.json"))
    }

    fn remains() -> Remains {
        Remains {
            ports: vec![RestingPorts {
                address: Ipv4Addr::new(203, 0, 113, 1),
                protocol: tuple::Protocol::Udp,
                ports: "5000-5009,6000-6000".parse().unwrap(),
            }],
            blocks: vec![PortBlock {
                subscriber: "2001:db8:1::/64".parse().unwrap(),
                address: Ipv4Addr::new(203, 0, 113, 2),
                ports: PortRange::new(1024, 1535).unwrap(),
            }],
        }
    }

    fn left() -> Left {
        Left {
            remains: remains(),
            key: Some(KEY),
        }
    }

    /// A key that is used again is one that somebody has had longer to guess.
    #[test]
    fn without_blocks_there_is_no_key() {
        let path = file("key");
        let mut ports = remains();
        ports.blocks.clear();
        write(&path, &[ports.clone()], KEY, now()).unwrap();
        let (remains, key) = (ports, None);
        assert_eq!(read(&path, REST), Left { remains, key });
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn natb_6888_03_what_is_left_is_read_again() {
        let path = file("again");
        assert_eq!(read(&path, REST), Left::default());
        write(&path, &[remains(), Remains::default()], KEY, now()).unwrap();
        for _ in 0..2 {
            assert_eq!(read(&path, REST), left());
        }
        for _ in 0..2 {
            write(&path, &[Remains::default()], KEY, now()).unwrap();
            assert!(!path.exists(), "nothing needs no file");
        }
    }

    #[test]
    fn natb_6888_03_what_has_rested_meanwhile_does_not_rest_again() {
        let path = file("old");
        for (ago, rests) in [(0, true), (118, true), (120, false), (9_999, false)] {
            write(&path, &[remains()], KEY, now() - ago).unwrap();
            assert_eq!(!read(&path, REST).remains.is_empty(), rests, "{ago}");
        }
        // A clock that was set back; a rest that was switched off.
        write(&path, &[remains()], KEY, now() + 1000).unwrap();
        assert_eq!(read(&path, REST), left());
        write(&path, &[remains()], KEY, now()).unwrap();
        assert!(read(&path, Duration::ZERO).remains.is_empty());
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn of_a_file_that_means_nothing_nothing_rests() {
        let path = file("wrong");
        write(&path, &[remains()], KEY, now()).unwrap();
        let other = fs::read_to_string(&path)
            .unwrap()
            .replace("resting/1", "resting/2");
        for text in ["", "{}", "\u{0}", &other] {
            fs::write(&path, text).unwrap();
            assert!(read(&path, REST).remains.is_empty(), "{text}");
        }
        fs::remove_file(&path).unwrap();
    }
}
