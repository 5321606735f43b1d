//! The tick count, which sleep and hibernation add to. It is as coarse as the system's timer (up to
//! 16 ms), which is fine enough for lifetimes and retransmissions.

use std::time::Duration;

use windows_sys::Win32::System::SystemInformation::GetTickCount64;

pub(super) fn since_boot() -> Duration {
    // SAFETY: takes nothing, and returns a number.
    Duration::from_millis(unsafe { GetTickCount64() })
}
