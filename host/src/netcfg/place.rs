//! Where changes were made: a state directory may be seen by several network namespaces, and outlive
//! them.

use std::fs;

use serde::{Deserialize, Serialize};

/// A network whose settings a process sees: a network namespace, of one start of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// What tools call it: `net:[4026531840]`. Another one may be called so when it is gone.
    pub(super) network: String,
    /// The kernel's number of it, which no other one has before the machine is started anew. Not
    /// before Linux 5.14.
    cookie: Option<u64>,
    /// This start of the machine.
    boot: Option<String>,
}

/// Where something is, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// In the network that this process sees.
    Here,
    /// Nowhere any more.
    Gone,
    /// In another network. Nobody can tell whether that is still there: a descriptor may hold it
    /// that is on its way in a socket, or in a process that cannot be seen from here.
    Elsewhere,
}

impl Place {
    /// The network that this thread sees; `None` where there is but one.
    pub(super) fn here() -> Option<Self> {
        let network = fs::read_link("/proc/thread-self/ns/net").ok()?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
        Some(Self {
            network: network.to_string_lossy().into_owned(),
            cookie: cookie(),
            boot: boot.ok().map(|it| it.trim().to_owned()),
        })
    }

    /// Where it is for a process that sees `here`.
    pub(super) fn seen_from(&self, here: &Self) -> Whereabouts {
        if differ(self.boot.as_ref(), here.boot.as_ref()) {
            return Whereabouts::Gone;
        }
        match self.network == here.network {
            // The name has been given to this one.
            true if differ(self.cookie, here.cookie) => Whereabouts::Gone,
            true => Whereabouts::Here,
            false => Whereabouts::Elsewhere,
        }
    }
}

fn differ<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
    a.zip(b).is_some_and(|(a, b)| a != b)
}

#[cfg(target_os = "linux")]
fn cookie() -> Option<u64> {
    let socket = std::os::unix::net::UnixDatagram::unbound().ok()?;
    crate::sockopt::get(&socket, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE).ok()
}

#[cfg(not(target_os = "linux"))]
fn cookie() -> Option<u64> {
    None
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_there_any_more_is_gone() {
        let here = Place::here().unwrap();
        assert!(here.boot.as_ref().is_some_and(|it| it.len() == 36));
        let seen = |it: &Place| it.seen_from(&here);
        assert_eq!(seen(&here), Whereabouts::Here);
        let other = Place {
            network: "net:[1]".to_owned(),
            cookie: Some(1 << 60),
            ..here.clone()
        };
        assert_eq!(seen(&other), Whereabouts::Elsewhere);
        let before = Place {
            boot: Some("another".to_owned()),
            ..here.clone()
        };
        assert_eq!(seen(&before), Whereabouts::Gone);
        // Deleted, and the next one got its number.
        let reused = Place {
            cookie: here.cookie.map(|it| it + 1),
            ..here.clone()
        };
        assert_eq!(seen(&reused), Whereabouts::Gone);
        // An old kernel gives no cookie.
        let old = Place {
            cookie: None,
            ..here.clone()
        };
        assert_eq!(seen(&old), Whereabouts::Here);
    }
}
