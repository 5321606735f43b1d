use std::{
    os::unix::{fs::PermissionsExt, net::UnixListener as Raw},
    sync::atomic::{AtomicU32, Ordering},
};

use super::*;

/// A directory of this test's own, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("openclat-ipc-{}-{n}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn socket(&self) -> PathBuf {
        self.0.join("inner/control.sock")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn everybody_may_connect_and_is_known() {
    let scratch = Scratch::new();
    let path = scratch.socket();
    runtime().block_on(async {
        let mut listener = listen(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o666);
        let directory = path.parent().unwrap();
        let mode = fs::metadata(directory).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        let (connected, accepted) = tokio::join!(connect(&path, "nobody"), listener.accept());
        assert!(connected.is_ok());
        let (_, peer) = accepted.unwrap();
        assert!(peer.is_own_user());
        assert!(!peer.is_in("no-such-group-as-this"));
        drop(listener);
        assert!(!path.exists());
        // Nothing else was left either.
        assert_eq!(fs::read_dir(directory).unwrap().count(), 0);
    });
}

#[test]
fn a_group_is_looked_up() {
    let group = Group::from_gid(nix::unistd::getegid()).unwrap().unwrap();
    let own = Peer::of(geteuid().as_raw(), group.gid.as_raw());
    assert!(own.is_in(&group.name));
    let stranger = Peer::of(4_000_000_000, 4_000_000_000);
    assert!(!stranger.is_in(&group.name));
}

#[test]
fn the_socket_of_a_dead_program_is_replaced_and_a_live_one_is_not() {
    let scratch = Scratch::new();
    let path = scratch.socket();
    runtime().block_on(async {
        let nobody = connect(&path, "nobody").await.unwrap_err();
        assert!(matches!(nobody, Error::NotRunning(_)), "{nobody}");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Closing does not remove it: as after a crash.
        drop(Raw::bind(&path).unwrap());
        assert!(path.exists());
        let nobody = connect(&path, "nobody").await.unwrap_err();
        assert!(matches!(nobody, Error::NotRunning(_)), "{nobody}");
        let ours = listen(&path).unwrap();
        let second = listen(&path).unwrap_err();
        assert!(matches!(second, Error::InUse(_)), "{second}");
        drop(ours);
        // A live one that knows nothing of locks.
        let foreign = Raw::bind(&path).unwrap();
        let refused = listen(&path).unwrap_err();
        assert!(matches!(refused, Error::InUse(_)), "{refused}");
        drop(foreign);
        assert!(listen(&path).is_ok());
    });
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let scratch = Scratch::new();
    let path = scratch.socket();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "somebody's").unwrap();
    let refused = listen(&path).unwrap_err();
    assert!(matches!(refused, Error::InUse(_)), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), b"somebody's");
}

#[test]
fn a_directory_that_others_can_change_is_refused() {
    let scratch = Scratch::new();
    let path = scratch.socket();
    let directory = path.parent().unwrap();
    fs::create_dir_all(directory).unwrap();
    for mode in [0o777, 0o775, 0o1777] {
        fs::set_permissions(directory, PermissionsExt::from_mode(mode)).unwrap();
        let refused = listen(&path).unwrap_err();
        assert!(matches!(refused, Error::UnsafeDirectory(_)), "{refused}");
    }
}
