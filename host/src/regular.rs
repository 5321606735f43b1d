//! Files that are files: neither pipes, which keep whoever opens them until somebody reads, nor
//! devices or sockets, which do something else with what is written.

use std::{
    fs::{self, File, FileType, OpenOptions},
    io,
    path::Path,
};

/// Opens a file to append to it, and makes it if it is not there. Never waits for a pipe's other end,
/// whoever puts one there meanwhile.
///
/// # Errors
/// The system's, or that it is no regular file: then nothing was written to it.
pub fn append(path: &Path) -> io::Result<File> {
    // To open some devices does something. It is looked at again when it is open.
    if let Ok(metadata) = fs::metadata(path) {
        check(metadata.file_type())?;
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    // Means nothing to regular files.
    #[cfg(target_os = "linux")]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        libc::O_NONBLOCK | libc::O_NOCTTY,
    );
    let file = options.open(path)?;
    check(file.metadata()?.file_type())?;
    Ok(file)
}

fn check(kind: FileType) -> io::Result<()> {
    if kind.is_file() {
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
        if kind.is_fifo() {
            return "a pipe";
        }
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

    /// Whether somebody reads it or not, and if it comes after the look.
    #[test]
    fn a_pipe_is_refused_and_waited_for_by_nobody() {
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
        assert_eq!(said, "it is a pipe, not a file");
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
