//! The connection to a running `plat`, with failures for people.

use std::path::Path;

use cli::{Exit, Failure};
use control::{
    envelope::Hello,
    plat::{Answer, Event, Verb},
};
use ipc::{Client, Error, transport};

use super::arguments::Service;
use crate::admin::{SERVICE_USER, exit_of};

/// A running `plat` to be asked.
pub(super) struct Asking(Client<transport::Stream>);

impl Asking {
    /// Connects.
    pub(super) async fn connect(service: &Service) -> Result<Self, Failure> {
        Self::connect_to(&service.path()).await
    }

    /// Connects to the socket at `path`.
    pub(super) async fn connect_to(path: &Path) -> Result<Self, Failure> {
        let stream = transport::connect(path, SERVICE_USER).await;
        let hello = Hello::new("plat", env!("CARGO_PKG_VERSION"));
        let client = Client::greet(stream.map_err(failure)?, &hello).await;
        client.map(Self).map_err(failure)
    }

    /// Asks for something.
    pub(super) async fn ask(&mut self, verb: Verb) -> Result<Answer, Failure> {
        self.0.call(verb).await.map_err(failure)
    }

    /// The next event.
    pub(super) async fn event(&mut self) -> Result<Event, Failure> {
        self.0.event().await.map_err(failure)
    }
}

/// What went wrong, for people.
fn failure(error: Error) -> Failure {
    match error {
        Error::NotRunning(path) => {
            let what = format_args!("plat is not running: nothing listens at {}", path.display());
            Failure::new(Exit::NotRunning, what)
                .hint("start it with `systemctl start plat`, or name another with --instance NAME")
        }
        Error::Problem(problem) => {
            let failure = Failure::new(exit_of(&problem), &problem);
            match &problem.command {
                Some(command) => failure.hint(format_args!("`{command}`")),
                None => failure,
            }
        }
        Error::Io(error) => Failure::io("the control socket", &error),
        Error::VersionMismatch { .. } => {
            Failure::error(error).hint("use the `plat` that the service was started from")
        }
        Error::Impostor { .. } => Failure::new(Exit::Permission, error),
        Error::Timeout => Failure::new(Exit::Timeout, error),
        Error::Closed => Failure::new(Exit::NotRunning, "plat has ended the connection"),
        Error::Malformed(_)
        | Error::TooLong
        | Error::InUse(_)
        | Error::UnsafeDirectory(_)
        | Error::Unsupported => Failure::error(error),
    }
}
