//! Socket options that the libraries do not know.

use std::{
    io,
    mem::size_of,
    os::fd::{AsFd, AsRawFd},
};

/// Sets an option whose value is a plain C type.
pub(crate) fn set<T: Copy>(socket: &impl AsFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: `value` is valid for reads of its own size for the duration of the call, in which the
    // kernel copies it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
