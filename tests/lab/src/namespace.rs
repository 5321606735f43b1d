//! [`Namespace`]: a host of its own, with an empty network.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    panic::{self, AssertUnwindSafe},
    process::{Child, Command},
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
};

use nix::sched::{CloneFlags, unshare};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, and a thread that lives in it.
///
/// Nothing names it in the file system: it is gone when the last descriptor is closed, which the
/// kernel does for a process that dies.
pub struct Namespace {
    name: String,
    fd: OwnedFd,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    /// A new namespace, its loopback up. `name` is for people.
    ///
    /// # Errors
    /// The system's: `PermissionDenied` without CAP_SYS_ADMIN.
    pub fn new(name: &str) -> io::Result<Self> {
        let (jobs, inbox) = channel::<Job>();
        let (opened, result) = channel();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let open = || -> io::Result<OwnedFd> {
                    unshare(CloneFlags::CLONE_NEWNET)?;
                    Ok(File::open("/proc/thread-self/ns/net")?.into())
                };
                let _ = opened.send(open());
                for job in inbox {
                    job();
                }
            })?;
        let fd = result.recv().map_err(|_| io::ErrorKind::BrokenPipe)??;
        let namespace = Self {
            name: name.to_owned(),
            fd,
            jobs: Some(jobs),
            thread: Some(thread),
        };
        namespace.link_up("lo");
        Ok(namespace)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its descriptor, for moving interfaces into it.
    #[must_use]
    pub fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Runs `f` inside. A panic in it is a panic here.
    pub fn run<R: Send + 'static>(&self, f: impl FnOnce() -> R + Send + 'static) -> R {
        let (done, result) = channel();
        let job: Job = Box::new(move || {
            let _ = done.send(panic::catch_unwind(AssertUnwindSafe(f)));
        });
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job));
        assert!(matches!(sent, Some(Ok(()))), "{} is gone", self.name);
        match result.recv() {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => panic::resume_unwind(panic),
            Err(_) => panic!("{} is gone", self.name),
        }
    }

    /// Starts a thread inside.
    pub fn spawn<R: Send + 'static>(
        &self,
        f: impl FnOnce() -> R + Send + 'static,
    ) -> JoinHandle<R> {
        // A thread starts in the namespace of the one that started it.
        self.run(move || thread::spawn(f))
    }

    /// Starts a program inside. It dies with this process.
    ///
    /// # Errors
    /// The system's.
    pub fn start(&self, mut command: Command) -> io::Result<Child> {
        self.run(move || command.spawn())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Namespace").field(&self.name).finish()
    }
}
