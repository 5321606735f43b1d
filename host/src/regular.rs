//! Files that lines are appended to: regular ones, and pipes that somebody reads. Devices and sockets
//! do something else with what is written.

use std::{
    fs::{self, File, FileType, OpenOptions},
    io,
    path::Path,
};

/// Opens a file to append to it, and makes it if it is not there. A pipe must have a reader: nobody is
/// waited for, whoever puts one there meanwhile. To write to it then may wait.
///
/// # Errors
/// The system's, or what is wrong with it: then nothing was written to it.
pub fn append(path: &Path) -> io::Result<File> {
    // To open some devices does something. It is looked at again when it is open.
    if let Ok(metadata) = fs::metadata(path) {
        check(metadata.file_type())?;
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    // Means nothing to regular files, and to pipes not to wait for a reader.
    #[cfg(target_os = "linux")]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        libc::O_NONBLOCK | libc::O_NOCTTY,
    );
    let file = options.open(path).map_err(without_reader)?;
    check(file.metadata()?.file_type())?;
    wait_for_room(&file)?;
    Ok(file)
}

/// Whether it is a pipe, which has no size and is not renamed.
///
/// # Errors
/// The system's.
pub fn is_pipe(file: &File) -> io::Result<bool> {
    Ok(is_fifo(file.metadata()?.file_type()))
}

#[cfg(unix)]
fn is_fifo(kind: FileType) -> bool {
    std::os::unix::fs::FileTypeExt::is_fifo(&kind)
}

#[cfg(not(unix))]
fn is_fifo(_: FileType) -> bool {
    false
}

#[cfg(target_os = "linux")]
fn without_reader(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(libc::ENXIO) {
        return io::Error::new(
            io::ErrorKind::NotConnected,
            "it is a pipe that nobody reads",
        );
    }
    error
}

#[cfg(not(target_os = "linux"))]
fn without_reader(error: io::Error) -> io::Error {
    error
}

/// A full pipe holds up whoever writes, and loses nothing.
#[cfg(target_os = "linux")]
fn wait_for_room(file: &File) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn wait_for_room(_: &File) -> io::Result<()> {
    Ok(())
}

fn check(kind: FileType) -> io::Result<()> {
    if kind.is_file() || is_fifo(kind) {
        return Ok(());
    }
    let what = format!("it is {}, not a file", name(kind));
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

fn name(kind: FileType) -> &'static str {
    if kind.is_dir() {
        return "a directory";
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
        if kind.is_socket() {
            return "a socket";
        }
    }
    "something else"
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use std::{
        io::Write,
        process::Command,
        sync::mpsc,
        thread,
        time::{Duration, Instant},
    };

    #[test]
    fn only_files_are_appended_to() {
        let directory = std::env::temp_dir().join(format!("regular-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let refused = |path: &Path| append(path).unwrap_err().to_string();
        assert_eq!(refused(&directory), "it is a directory, not a file");
        assert_eq!(
            refused(Path::new("/dev/null")),
            "it is a device, not a file"
        );
        let file = directory.join("file");
        for _ in 0..2 {
            append(&file).unwrap().write_all(b"line\n").unwrap();
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "line\nline\n");
        fs::remove_dir_all(directory).unwrap();
    }

    /// Lines wait in it, and whoever writes waits when it is full.
    #[test]
    fn a_pipe_that_is_read_is_appended_to() {
        let directory = std::env::temp_dir().join(format!("read-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let pipe = directory.join("pipe");
        let made = Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let mut both = OpenOptions::new();
        // Opened for both, it waits for no writer.
        let mut reader = both.read(true).write(true).open(&pipe).unwrap();
        let mut file = append(&pipe).unwrap();
        assert!(is_pipe(&file).unwrap() && !is_pipe(&File::open("/dev/null").unwrap()).unwrap());
        const MANY: usize = 1 << 20;
        let writer = thread::spawn(move || file.write_all(&vec![7; MANY]));
        let mut all = vec![0; MANY];
        io::Read::read_exact(&mut reader, &mut all).unwrap();
        writer.join().unwrap().unwrap();
        fs::remove_dir_all(directory).unwrap();
    }

    /// Also if it comes after the look.
    #[test]
    fn a_pipe_that_nobody_reads_is_refused_and_not_waited_for() {
        let directory = std::env::temp_dir().join(format!("pipe-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (pipe, changing) = (directory.join("pipe"), directory.join("changing"));
        let made = Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        fs::write(directory.join("file"), "").unwrap();
        let (sender, done) = mpsc::channel();
        let (read, raced) = (pipe.clone(), changing.clone());
        thread::spawn(move || {
            let _ = sender.send(append(&read).unwrap_err().to_string());
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(500) {
                if let Ok(file) = append(&raced) {
                    assert!(file.metadata().unwrap().is_file());
                }
            }
            let _ = sender.send("raced".to_owned());
        });
        let wait = Duration::from_secs(5);
        let said = done.recv_timeout(wait).unwrap();
        assert_eq!(said, "it is a pipe that nobody reads");
        // Now it is a file, now a pipe: sometimes between the look and the opening.
        let began = Instant::now();
        let said = loop {
            for target in ["file", "pipe"] {
                let new = directory.join("new");
                std::os::unix::fs::symlink(target, &new).unwrap();
                fs::rename(&new, &changing).unwrap();
            }
            match done.try_recv() {
                Err(mpsc::TryRecvError::Empty) => {}
                said => break said,
            }
            assert!(began.elapsed() < wait, "it waits for the pipe");
        };
        assert_eq!(said.as_deref(), Ok("raced"));
        fs::remove_dir_all(directory).unwrap();
    }
}
