//! The service manager: told when a service is ready, how it is, and that it lives.

#[cfg(target_os = "linux")]
mod linux;

/// Tells the service manager something in the words of `sd_notify(3)`, like `READY=1`. Without one
/// that listens, and on systems where there is none, nothing happens.
pub fn notify(state: &str) {
    #[cfg(target_os = "linux")]
    if let Err(error) = linux::notify(state) {
        tracing::debug!("the service manager: {error}");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = state;
}
