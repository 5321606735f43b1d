//! Creating a TUN device of several queues that nobody else has.
//!
//! A second program that asks for such a device by the same name is given more queues of it, and
//! takes packets away from the first one without either noticing. So the name is taken first with
//! `IFF_TUN_EXCL`, which refuses one that exists.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::AsRawFd,
};

/// Takes `name` for a TUN device of several queues. It exists, and this is a queue of it, until the
/// value is dropped; by then it should have others.
///
/// # Errors
/// The system's: `EBUSY` if another program uses a device of this name, `EINVAL` if there is an
/// interface of this name.
pub(super) fn create(name: &str) -> io::Result<File> {
    let created = attach(name, libc::IFF_MULTI_QUEUE | libc::IFF_TUN_EXCL);
    match created {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            // It exists. Whether somebody uses it shows only to one who wants to, too.
            attach(name, 0)?;
            Err(io::Error::from_raw_os_error(libc::EINVAL))
        }
        created => created,
    }
}

fn attach(name: &str, flags: libc::c_int) -> io::Result<File> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open(super::linux::DEVICE)?;
    // SAFETY: all its fields may be zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    // The last byte stays 0.
    let (_, room) = request.ifr_name.split_last_mut().ok_or_else(invalid)?;
    if name.len() > room.len() {
        return Err(invalid());
    }
    for (to, from) in room.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | flags;
    // The flags are a set of 16 bits.
    request.ifr_ifru.ifru_flags = u16::try_from(flags).map_err(|_| invalid())?.cast_signed();
    // SAFETY: the descriptor is open, and the system reads and writes one `ifreq`.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(device)
}
