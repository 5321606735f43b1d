//! Who may ask, and the socket it is asked at.

use std::{path::Path, sync::Arc};

use ::control::{Problem, ProblemCode, envelope::Hello, plat::Verb};
use ipc::{Limits, Peer, Service, Subscriber, transport};
use serde_json::Value;

use super::{Admin, GROUP};

/// Whether `peer` may change something, and see who talks to whom.
async fn is_trusted(peer: &Peer) -> bool {
    if peer.is_root() || peer.is_own_user() {
        return true;
    }
    let peer = peer.clone();
    looked_up(move || peer.is_in(GROUP)).await
}

/// What a question to the system's database of users says. That may be far away: whoever asks for
/// nothing of it does not wait with the one who does.
pub(super) async fn looked_up(question: impl FnOnce() -> bool + Send + 'static) -> bool {
    let asked = tokio::task::spawn_blocking(question);
    asked.await.unwrap_or(false)
}

impl Service for Admin {
    fn hello(&self) -> Hello<Value> {
        Hello::new("plat", env!("CARGO_PKG_VERSION"))
            .with(serde_json::json!({ "instance": self.facts.get().instance }))
    }

    async fn call(
        &self,
        peer: &Peer,
        verb: Value,
        subscriber: &Subscriber,
    ) -> Result<Value, Problem> {
        let verb: Verb = serde_json::from_value(verb)
            .map_err(|it| Problem::new(ProblemCode::UnknownVerb, it).command("plat --version"))?;
        let command = verb.command();
        if verb.is_restricted() && !is_trusted(peer).await {
            let summary = format_args!(
                "`{command}` is for root and members of the group {GROUP}; user {} is neither",
                peer.uid
            );
            let problem = Problem::new(ProblemCode::NotPermitted, summary);
            return Err(problem.command(format_args!("sudo {command}")));
        }
        // A list is asked for page by page.
        if verb.is_restricted() && !matches!(verb, Verb::SessionList(_) | Verb::BibList(_)) {
            tracing::info!("user {}: {command}", peer.uid);
        }
        let answer = self.carry_out(verb, subscriber).await?;
        serde_json::to_value(answer).map_err(|it| Problem::new(ProblemCode::Failed, it))
    }
}

/// Serves at `path` until it is dropped. The NAT64 does its work without it if it must.
pub(super) async fn serve(admin: Arc<Admin>, path: &Path) {
    let listener = match transport::listen(path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!("no control socket: {error}");
            return std::future::pending().await;
        }
    };
    ipc::serve(listener, admin, Limits::default()).await;
}
