//! `plat run`: everything is opened, arranged and started here, and ended again. What happens in
//! between is in `serve`.

mod addresses;
mod check;
mod follow;
mod reload;
mod serve;
mod shards;
mod surroundings;
mod uplink;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use cli::{Exit, Failure};
use host::{
    Host,
    clock::Clock,
    fault,
    netcfg::{self, NetCfg, System},
    netwatch::{Network, Snapshot},
    signals::Signals,
    sockets,
};

use self::{
    addresses::{own_ipv4, own_ipv6},
    check::{check_host, warn_of},
    serve::serve,
    shards::Shards,
    surroundings::Surroundings,
};
use crate::{
    forwarding::Forwarding,
    instance::Source,
    pool_mode::on_host,
    remains,
    spare::{Meanwhile, Spare},
    workers::Workers,
};

/// The journal in a state directory.
pub(crate) fn journal(state_directory: &Path) -> PathBuf {
    state_directory.join("journal.jsonl")
}

/// Runs the PLAT until a signal ends it.
///
/// # Errors
/// What keeps it from starting or going on.
pub(crate) async fn run(host: &impl Host, source: Source, journal: &Path) -> Result<Exit, Failure> {
    let asked = source.read()?;
    // Before anything is changed, so that no signal leaves changes behind.
    let mut signals = host.signals().map_err(cannot("signals"))?;
    let clock = Clock::start();
    let (watch, netcfg) = open(host, journal).await?;
    let snapshot = read(&watch).await?;
    let config = on_host(&asked, &snapshot, sockets::in_use)?;
    check_host(&config, &snapshot)?;

    let mut meanwhile = Meanwhile::default();
    let claim = Spare::claim(&config, &snapshot, &mut signals, &mut meanwhile);
    let Some(spare) = claim.await? else {
        return Ok(Exit::Ok);
    };
    warn_of(&asked, &config);
    let (speaks_from, own) = (own_ipv6(&snapshot)?, own_ipv4(&snapshot));
    let resting = journal.with_file_name(remains::FILE);
    let engine = config.for_engine(speaks_from, own.clone());
    let shards = Shards::open(host, &config, engine, &resting, clock)?;
    fault::point("TUN opened");
    // The interface is there until everything is taken back.
    let _open = shards.queues.clone();
    let mut surroundings = Surroundings {
        asked,
        source,
        unconfirmed: None,
        config,
        speaks_from,
        watch,
        netcfg,
        forwarding: Forwarding::default(),
        own,
        orders: None,
        host: Arc::default(),
        spare,
        refused_uplink: None,
        is_stopping: false,
        meanwhile,
        resting,
        key: shards.key,
    };
    let served = start(shards, &mut surroundings, &mut signals, &snapshot, journal).await;
    let undone = surroundings.undo().await;
    let undone = undone.map_err(|error| netcfg_failure(&error));
    served.and_then(|exit| undone.map(|()| exit))
}

/// The network's state and its settings. What a predecessor left of them is taken back.
async fn open<H: Host>(
    host: &H,
    journal: &Path,
) -> Result<(H::Network, NetCfg<H::System>), Failure> {
    let system = host
        .system()
        .map_err(cannot("cannot change the network's settings"))?;
    let watch = host.network().map_err(cannot("cannot watch the network"))?;
    let netcfg = NetCfg::open(system, journal)
        .await
        .map_err(|error| netcfg_failure(&error))?;
    Ok((watch, netcfg))
}

/// Arranges the host, starts the workers, and serves until the end.
async fn start(
    shards: Shards,
    surroundings: &mut Surroundings<impl Network, impl System>,
    signals: &mut impl Signals,
    snapshot: &Snapshot,
    journal: &Path,
) -> Result<Exit, Failure> {
    let arranged = surroundings.arrange(snapshot).await;
    arranged.map_err(|error| netcfg_failure(&error))?;
    let shared = Arc::default();
    let workers = Workers::start(
        shards.engines,
        &shards.queues,
        Arc::clone(&shared),
        shards.clock,
    );
    let workers = workers.map_err(cannot("cannot start a thread"))?;
    let began = surroundings.began(&workers, snapshot, &shared, journal);
    let control = began.await;
    serve(workers, surroundings, signals, &shared, control).await
}

fn cannot(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::io(what, &error)
}

async fn read(watch: &impl Network) -> Result<Snapshot, Failure> {
    watch
        .snapshot()
        .await
        .map_err(cannot("cannot read the network interfaces"))
}

/// A failure of `netcfg`, for people.
pub(crate) fn netcfg_failure(error: &netcfg::Error) -> Failure {
    // Another directory alone would only lead to the next refusal.
    Failure::system(error.kind(), error, error.hint()).permission_hint(
        "run it as root, or with CAP_NET_ADMIN and a --state-dir that may be written",
    )
}
