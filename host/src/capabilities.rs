//! Capabilities of the programs we start.
//!
//! Only root passes its capabilities on to a program that it starts. Whoever has CAP_NET_ADMIN for
//! another reason, such as capabilities of the program's file, must say so.

use std::io;

use tokio::process::Command;

const NET_ADMIN: u32 = 12;

/// `_LINUX_CAPABILITY_VERSION_3`: two words of 32 capabilities each.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    /// Zero is the calling thread.
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Words {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives the program CAP_NET_ADMIN, if this one has it. It gets what it gets by itself otherwise.
pub(crate) fn pass_on_net_admin(command: &mut Command) {
    // SAFETY: between fork and exec only system calls are made, on memory of the stack.
    unsafe {
        command.pre_exec(|| {
            let _ = raise_ambient(NET_ADMIN);
            Ok(())
        });
    }
}

/// Adds a capability to the calling thread's inheritable and ambient ones. Allowed to everybody who
/// has it.
fn raise_ambient(capability: u32) -> io::Result<()> {
    let mut header = Header {
        version: VERSION,
        pid: 0,
    };
    let mut words = [Words::default(); 2];
    // SAFETY: the kernel writes as many words as this version has, and the array holds them.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) })?;
    words[0].inheritable |= words[0].permitted & (1 << capability);
    // SAFETY: as above; the kernel only reads.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) })?;
    // SAFETY: `prctl` with these arguments touches no memory.
    check(unsafe {
        libc::syscall(
            libc::SYS_prctl,
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_RAISE,
            libc::c_ulong::from(capability),
            0 as libc::c_ulong,
            0 as libc::c_ulong,
        )
    })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
