//! Whether an interface puts received segments together (generic receive offload).
//!
//! Everything that is received then comes in super-segments, which cost as much as one packet to
//! translate. Without it, downloads through the CLAT are several times slower.

use std::{
    collections::BTreeSet,
    io,
    os::fd::AsRawFd,
    sync::{Mutex, PoisonError},
};

use nix::net::if_::if_indextoname;
use socket2::{Domain, Socket, Type};

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GGRO: u32 = 0x2b;

/// The interfaces of which it was said that they have it off.
static SAID: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Says so, once, if an interface has it switched off. What cannot be found out is no reason to
/// worry.
pub(super) fn warn_if_off(interface: u32) {
    let Ok(name) = if_indextoname(interface) else {
        return;
    };
    let name = name.to_string_lossy();
    match is_on(&name) {
        Ok(true) => {}
        Ok(false) if was_said(interface) => {}
        Ok(false) => tracing::warn!(
            "generic receive offload is off on {name}, which makes downloads slow: \
             switch it on with `ethtool -K {name} gro on`"
        ),
        Err(error) => tracing::debug!("{name} does not tell its offloads: {error}"),
    }
}

/// Whether it was said of this interface before; from now on, it was.
fn was_said(interface: u32) -> bool {
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    !said.insert(interface)
}

fn is_on(name: &str) -> io::Result<bool> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
    let mut value = Value {
        command: ETHTOOL_GGRO,
        data: 0,
    };
    // SAFETY: an all-zero ifreq is a valid value of that plain C struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the kernel reads `request` and, for this command, reads and writes one `Value` where
    // it points to; both are alive.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(value.data != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loopback interface always has it, and anybody may ask.
    #[test]
    fn interfaces_tell() {
        assert!(is_on("lo").unwrap());
        assert!(is_on("no-such-interf").is_err());
        assert!(is_on("a-name-that-is-much-too-long").is_err());
    }

    /// An address is claimed again whenever the network changes; the link is the same.
    #[test]
    fn it_is_said_once_of_a_link() {
        let said = [u32::MAX, u32::MAX - 1, u32::MAX, u32::MAX].map(was_said);
        assert_eq!(said, [false, false, true, true]);
    }
}
