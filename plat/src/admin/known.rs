//! What there is already when a log is opened while `plat` runs: the log tells of it first, so that
//! whose a port is stands in it, however old the binding is.

use std::{sync::Arc, time::Duration};

use control::{
    Problem,
    plat::{Cursor, Page, Wanted},
};
use nat64::Engine;

use super::{
    Admin, EventLog,
    log::{Known, Logged},
};

/// How long the thread that writes gets when there are too many lines.
const PAUSE: Duration = Duration::from_millis(5);

/// Writes it, no faster than the thread that writes takes it. What begins meanwhile may be told of
/// twice; what ends meanwhile may be left out.
pub(super) async fn tell(admin: Arc<Admin>, log: EventLog) {
    match tell_all(&admin, &log).await {
        Ok(count) if log.is_told() => log.known(count),
        // Another log took its place meanwhile.
        Ok(_) => {}
        Err(problem) => {
            tracing::warn!("the event log does not tell what there was before: {problem}");
        }
    }
}

async fn tell_all(admin: &Admin, log: &EventLog) -> Result<u64, Problem> {
    let mut count = 0;
    match log.what() {
        Logged::Sessions => {
            let mut from = Some(Cursor::default());
            while let Some(cursor) = from {
                let Page { rows, next } = admin.sessions(page(cursor)).await?;
                count += write(log, rows.into_iter().map(Known::Session)).await;
                from = next.filter(|_| log.is_told());
            }
        }
        what @ (Logged::Bindings | Logged::Blocks) => {
            let mut from = Some(Cursor::default());
            while let Some(cursor) = from {
                let Page { rows, next } = admin.bindings(page(cursor)).await?;
                // A static binding may be in anybody's block.
                let wanted = |it: &control::plat::BibRow| what == Logged::Bindings || it.is_static;
                let rows = rows.into_iter().filter(wanted);
                count += write(log, rows.map(Known::Binding)).await;
                from = next.filter(|_| log.is_told());
            }
        }
    }
    if log.what() == Logged::Blocks {
        // What follows from numbers the parameters say.
        let given = admin.each(|engine: &mut Engine, _| engine.given_blocks().collect::<Vec<_>>());
        let given = given.await?.into_iter().flatten();
        count += write(log, given.map(Known::Block)).await;
    }
    Ok(count)
}

fn page(from: Cursor) -> Wanted {
    Wanted {
        from,
        ..Wanted::default()
    }
}

/// How many were written. None, once another log took its place.
async fn write(log: &EventLog, all: impl Iterator<Item = Known>) -> u64 {
    let mut count = 0;
    for it in all {
        while log.is_told() && !log.tell_known(&it) {
            tokio::time::sleep(PAUSE).await;
        }
        count += u64::from(log.is_told());
    }
    count
}
