//! While it runs: what happens, and what is done about it.

use std::time::Duration;

use cli::{Exit, Failure};
use host::{
    fault,
    memory::HugePages,
    netcfg::System,
    netwatch::Network,
    signals::{Signals, Told},
};
use nat64::stats::Stats;
use tokio::{task::JoinSet, time::MissedTickBehavior};

use super::{Surroundings, reload::too_late};
use crate::{
    admin::Control,
    report,
    workers::{Orders, Shared, Workers},
};

/// How often the worker and the host's addresses are looked after.
const LOOK: Duration = Duration::from_secs(5);

/// Does what there is to do until a signal ends it, or a worker ends, and then ends the rest.
///
/// # Errors
/// Why it could not go on.
pub(super) async fn serve(
    workers: Workers,
    surroundings: &mut Surroundings<impl Network, impl System>,
    signals: &mut impl Signals,
    shared: &Shared,
    mut control: Control,
) -> Result<Exit, Failure> {
    tracing::info!("running");
    fault::point("running");
    // It ends with this.
    let mut aside = JoinSet::new();
    aside.spawn(gather(workers.orders()));
    until_the_end(&workers, surroundings, signals, shared, &mut control).await?;
    control.end().await;
    surroundings.leave_remains(&workers.orders()).await;
    let stats = workers.shard_stats();
    let ended = workers.stop();
    fault::point("worker stopped");
    tracing::info!("in all\n{}", text(&Stats::sum(&stats), shared));
    match ended {
        Ok(()) => Ok(Exit::Ok),
        Err(error) => Err(Failure::io("the virtual interface", &error)),
    }
}

async fn until_the_end(
    workers: &Workers,
    surroundings: &mut Surroundings<impl Network, impl System>,
    signals: &mut impl Signals,
    shared: &Shared,
    control: &mut Control,
) -> Result<(), Failure> {
    let mut pulse = workers.pulse();
    // What happens besides does not put it off: the service manager waits for it.
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !workers.has_ended() && !surroundings.is_stopping {
        tokio::select! {
            changed = surroundings.watch.changed() => {
                changed.map_err(|error| Failure::io("cannot watch the network", &error))?;
                surroundings.follow(signals).await;
            }
            () = surroundings.spare.watch() => {}
            _ = looks.tick() => {
                let missing = pulse.missing();
                for worker in &missing {
                    tracing::warn!("worker {worker} does nothing: its packets wait");
                }
                surroundings.follow(signals).await;
                control.look(missing).await;
            }
            Some(order) = control.reloads.recv() => {
                surroundings.carry_out(order, control, signals).await;
            }
            () = too_late(surroundings.unconfirmed.as_ref()) => {
                surroundings.go_back(control, signals).await;
            }
            () = async {}, if surroundings.meanwhile.report => {
                surroundings.meanwhile.report = false;
                tracing::info!("so far\n{}", text(&workers.stats(), shared));
            }
            () = async {}, if surroundings.meanwhile.hung_up => {
                surroundings.meanwhile.hung_up = false;
                // It is in the log, whatever came of it.
                let _ = surroundings.reload(None, control, signals).await;
            }
            told = signals.next() => match told {
                Told::End => break,
                Told::HangUp => surroundings.meanwhile.hung_up = true,
                Told::Report => surroundings.meanwhile.report = true,
            },
        }
    }
    Ok(())
}

fn text(stats: &Stats, shared: &Shared) -> String {
    report::stats(stats, shared.host_refused.get(), shared.unreadable.get())
}

/// Puts tables that have grown large into huge pages. Never returns. The workers go on, and whatever
/// else there is to do: the system may have to make room first.
async fn gather(orders: Orders) {
    let mut pages = HugePages::default();
    loop {
        tokio::time::sleep(LOOK).await;
        // With the next look, if they do not answer.
        let areas = orders.each(|engine, _| engine.table_memory()).await;
        let areas = areas.unwrap_or_default().into_iter().flatten();
        let areas: Vec<_> = areas.collect();
        let gathering = tokio::task::spawn_blocking(move || {
            pages.gather(areas);
            pages
        });
        pages = gathering.await.unwrap_or_default();
    }
}
