//! `plat run`.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cli::{Exit, Failure};
use host::{
    clock::Clock,
    netcfg::{self, NetCfg, linux::LinuxSystem},
    netwatch::{Snapshot, linux::NetWatch},
    tun::{Tun, linux::LinuxTun},
};
use nat64::{Engine, stats::Stats};
use plan::Plan;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::Config,
    host_plan, lan, report,
    worker::{Shared, Worker},
};

/// Where the journal is, unless told otherwise. Emptied by a restart of the machine.
pub(crate) const STATE_DIRECTORY: &str = "/run/openclat/plat";

/// How often the worker and the host's addresses are looked after.
const LOOK: Duration = Duration::from_secs(5);

/// The journal in a state directory.
pub(crate) fn journal(state_directory: &Path) -> PathBuf {
    state_directory.join("journal.jsonl")
}

/// Runs the PLAT until a signal ends it.
///
/// # Errors
/// What keeps it from starting or going on.
pub(crate) async fn run(config: Config, journal: &Path) -> Result<Exit, Failure> {
    let clock = Clock::start();
    let cannot = |what: &'static str| move |error| Failure::io(what, &error);
    let system = LinuxSystem::open().map_err(cannot("cannot reach the kernel"))?;
    let mut watch = NetWatch::open().map_err(cannot("cannot watch the network"))?;
    let mut netcfg = NetCfg::open(system, journal)
        .await
        .map_err(|error| netcfg_failure(&error))?;
    let snapshot = read(&watch).await?;

    let shared = Arc::new(Shared::default());
    let own = own_ipv4(&snapshot, &config);
    shared.own_addresses.store(Arc::new(own.clone()));
    let engine = engine(&config, own_ipv6(&snapshot)?, own, clock)?;
    let stats = engine.stats();
    let tun: Arc<dyn Tun> = Arc::new(open_tun(&config.interface)?);
    let plan = host_plan::plan(&config, &snapshot);
    let served = match netcfg.apply(&plan).await {
        Ok(()) => {
            println!("{}", lan::instructions(&config));
            let worker = Worker::start(engine, tun, Arc::clone(&shared), clock)
                .map_err(cannot("cannot start a thread"))?;
            serve(worker, &mut watch, &config, &shared, &stats).await
        }
        Err(error) => Err(netcfg_failure(&error)),
    };
    let undone = netcfg
        .apply(&Plan::nothing())
        .await
        .map_err(|error| netcfg_failure(&error));
    served.and_then(|exit| undone.map(|()| exit))
}

async fn serve(
    worker: Worker,
    watch: &mut NetWatch,
    config: &Config,
    shared: &Shared,
    stats: &Stats,
) -> Result<Exit, Failure> {
    let open = |kind| signal(kind).map_err(|error| Failure::io("signals", &error));
    let mut terminate = open(SignalKind::terminate())?;
    let mut interrupt = open(SignalKind::interrupt())?;
    let mut wanted = open(SignalKind::user_defined1())?;
    tracing::info!("running");
    while !worker.has_ended() {
        tokio::select! {
            changed = watch.changed() => {
                changed.map_err(|error| Failure::io("cannot watch the network", &error))?;
                refresh_own_addresses(watch, config, shared).await;
            }
            () = tokio::time::sleep(LOOK) => refresh_own_addresses(watch, config, shared).await,
            _ = wanted.recv() => tracing::info!("so far\n{}", text(stats, shared)),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    let ended = worker.stop();
    tracing::info!("in all\n{}", text(stats, shared));
    match ended {
        Ok(()) => Ok(Exit::Ok),
        Err(error) => Err(Failure::io("the virtual interface", &error)),
    }
}

fn text(stats: &Stats, shared: &Shared) -> String {
    report::stats(stats, shared.host_refused.get(), shared.unreadable.get())
}

async fn read(watch: &NetWatch) -> Result<Snapshot, Failure> {
    watch
        .snapshot()
        .await
        .map_err(|error| Failure::io("cannot read the network interfaces", &error))
}

async fn refresh_own_addresses(watch: &NetWatch, config: &Config, shared: &Shared) {
    match watch.snapshot().await {
        Ok(snapshot) => {
            let own = own_ipv4(&snapshot, config);
            if **shared.own_addresses.load() != own {
                shared.own_addresses.store(Arc::new(own));
            }
        }
        Err(error) => tracing::warn!("cannot read the network interfaces: {error}"),
    }
}

/// The host's IPv4 addresses, but for those of the pool.
fn own_ipv4(snapshot: &Snapshot, config: &Config) -> Vec<Ipv4Addr> {
    let all = snapshot.interfaces.iter().flat_map(|it| it.ipv4.iter());
    let in_pool = |address: &Ipv4Addr| config.pool.iter().any(|it| it.contains(*address));
    all.copied().filter(|address| !in_pool(address)).collect()
}

/// An address of the host to speak from when a packet cannot be translated.
fn own_ipv6(snapshot: &Snapshot) -> Result<Ipv6Addr, Failure> {
    let addresses = snapshot
        .interfaces
        .iter()
        .flat_map(|it| it.addresses.iter());
    let mut usable = addresses.map(|it| it.address).filter(|address| {
        !address.is_loopback() && !address.is_unicast_link_local() && !address.is_multicast()
    });
    usable.next().ok_or_else(|| {
        Failure::error("this host has no IPv6 address but link-local ones")
            .hint("give the interface towards the IPv6 clients an address")
    })
}

fn engine(
    config: &Config,
    own_ipv6: Ipv6Addr,
    own_ipv4: Vec<Ipv4Addr>,
    clock: Clock,
) -> Result<Engine, Failure> {
    let mut key = [0; 16];
    getrandom::fill(&mut key)
        .map_err(|error| Failure::error(format_args!("no randomness: {error}")))?;
    Engine::new(config.for_engine(own_ipv6, own_ipv4), key, clock.now())
        .map_err(|error| Failure::new(Exit::Usage, error))
}

fn open_tun(name: &str) -> Result<LinuxTun, Failure> {
    LinuxTun::open(name).map_err(|it| Failure::system(it.kind(), &it, it.hint()))
}

/// A failure of `netcfg`, for people.
pub(crate) fn netcfg_failure(error: &netcfg::Error) -> Failure {
    Failure::system(error.kind(), error, error.hint())
}
