//! A person at a terminal: programs that ask are typed at, and what they show is read.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{FromRawFd, OwnedFd},
    process::{Child, Command},
    ptr,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use crate::{eventually, namespace::Namespace};

const SOON: Duration = Duration::from_secs(10);

/// A program at a terminal of its own.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    /// The person's end.
    hands: File,
    screen: Arc<Mutex<String>>,
}

/// A new terminal: the person's end, and the program's.
fn open() -> io::Result<(OwnedFd, OwnedFd)> {
    let (mut person, mut program) = (-1, -1);
    let (name, settings, size) = (ptr::null_mut(), ptr::null(), ptr::null());
    // SAFETY: both are valid to write to, and what is null is left out.
    let opened = unsafe { libc::openpty(&raw mut person, &raw mut program, name, settings, size) };
    if opened != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both were just opened, and nobody else has them.
    Ok(unsafe { (OwnedFd::from_raw_fd(person), OwnedFd::from_raw_fd(program)) })
}

impl Terminal {
    /// Starts a program in a namespace.
    ///
    /// # Errors
    /// The system's.
    pub fn start(namespace: &Namespace, mut command: Command) -> io::Result<Self> {
        let (person, program) = open()?;
        command
            .stdin(program.try_clone()?)
            .stdout(program.try_clone()?)
            .stderr(program);
        let child = namespace.start(command)?;
        let hands = File::from(person);
        let mut eyes = hands.try_clone()?;
        let screen = Arc::<Mutex<String>>::default();
        let shown = Arc::clone(&screen);
        thread::spawn(move || {
            let mut buffer = [0; 1024];
            // It is an error when the program has ended.
            while let Ok(len @ 1..) = eyes.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
                let mut screen = shown.lock().unwrap_or_else(|it| it.into_inner());
                screen.push_str(&text);
            }
        });
        Ok(Self {
            child,
            hands,
            screen,
        })
    }

    /// Everything that was shown, also what was typed.
    #[must_use]
    pub fn screen(&self) -> String {
        let screen = self.screen.lock().unwrap_or_else(|it| it.into_inner());
        screen.clone()
    }

    /// Waits until the last thing shown is this, and types.
    ///
    /// # Panics
    /// If it is not shown.
    pub fn answer(&mut self, question: &str, keys: &str) {
        let asked = eventually(SOON, || self.screen().ends_with(question));
        assert!(asked, "not asked `{question}`: {}", self.screen());
        let typed = self.hands.write_all(keys.as_bytes());
        typed.expect("the terminal is there");
    }

    /// Waits until the program has ended: its exit code, and everything that was shown.
    ///
    /// # Panics
    /// If it does not end.
    pub fn end(mut self) -> (Option<i32>, String) {
        let mut status = None;
        let ended = eventually(SOON, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        assert!(ended, "it does not end: {}", self.screen());
        // The last of it may still be on its way.
        let mut last = String::new();
        eventually(Duration::from_secs(1), || {
            let before = std::mem::replace(&mut last, self.screen());
            thread::sleep(Duration::from_millis(50));
            before == self.screen()
        });
        (status.and_then(|it| it.code()), self.screen())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
