//! systemd's socket for notifications.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// Sends `state` to where `$NOTIFY_SOCKET` points.
pub(super) fn notify(state: &str) -> io::Result<()> {
    match env::var_os("NOTIFY_SOCKET") {
        Some(name) => send(&name, state),
        None => Ok(()),
    }
}

fn send(name: &OsStr, state: &str) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read is no reason to stand still.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_sockets_are_told() {
        let name = format!("openclat-notify-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
        let path = env::temp_dir().join(&name);
        let sockets = [
            (
                format!("@{name}"),
                UnixDatagram::bind_addr(&abstract_address).unwrap(),
            ),
            (
                path.display().to_string(),
                UnixDatagram::bind(&path).unwrap(),
            ),
        ];
        for (address, socket) in &sockets {
            send(OsStr::new(address), "READY=1").unwrap();
            let mut buf = [0; 16];
            let len = socket.recv(&mut buf).unwrap();
            assert_eq!(&buf[..len], b"READY=1", "{address}");
        }
        std::fs::remove_file(path).unwrap();
        assert!(send(OsStr::new("@nobody-listens-here"), "x").is_err());
    }
}
