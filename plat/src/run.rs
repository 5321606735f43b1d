//! `plat run`.

mod reload;

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    num::NonZeroU8,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use cli::{Exit, Failure};
use host::{
    Host,
    clock::Clock,
    fault,
    memory::HugePages,
    netcfg::{self, NetCfg, System},
    netwatch::{Interface, Network, Snapshot},
    signals::{Signals, Told},
    sockets,
    tun::Tun,
};
use nat64::{
    Engine,
    dispatch::{Dispatch, ShardId},
    network6::Network6,
    restart::Remains,
    stats::Stats,
};
use plan::Plan;
use tokio::{task::JoinSet, time::MissedTickBehavior};

use self::reload::{Unconfirmed, too_late};
use crate::{
    admin::{self, Control, Facts},
    clients,
    config::{self, Config, pool::PoolRange},
    decisions,
    forwarding::Forwarding,
    host_plan,
    instance::Source,
    lan,
    pool_mode::{PoolMode, answered, on_host, uplink_elsewhere},
    remains, report,
    spare::Spare,
    workers::{Orders, Shared, Workers, how_many},
};

/// How often the worker and the host's addresses are looked after.
const LOOK: Duration = Duration::from_secs(5);

/// When an uplink that could not be used is tried again.
const AGAIN: Duration = Duration::from_secs(60);

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
    let cannot = |what: &'static str| move |error| Failure::io(what, &error);
    // Before anything is changed, so that no signal leaves changes behind.
    let mut signals = host.signals().map_err(cannot("signals"))?;
    let clock = Clock::start();
    let system = host
        .system()
        .map_err(cannot("cannot change the network's settings"))?;
    let watch = host.network().map_err(cannot("cannot watch the network"))?;
    let netcfg = NetCfg::open(system, journal)
        .await
        .map_err(|error| netcfg_failure(&error))?;
    let snapshot = read(&watch).await?;
    let config = on_host(&asked, &snapshot, sockets::in_use)?;
    check_host(&config, &snapshot)?;

    let mut hung_up = false;
    let claim = Spare::claim(&config, &snapshot, &mut signals, &mut hung_up);
    let Some(spare) = claim.await? else {
        return Ok(Exit::Ok);
    };
    warn_of(&asked, &config);
    let shared = Arc::new(Shared::default());
    let own = own_ipv4(&snapshot);
    let resting = journal.with_file_name(remains::FILE);
    let before = remains::read(&resting, config.timers.hold_down);
    // Subscribers find their blocks where they were.
    let key = before.key.map_or_else(random_key, Ok)?;
    let engine = config.for_engine(own_ipv6(&snapshot)?, own.clone());
    let shards = shards(&config, engine, key, &before.remains, clock)?;
    let queues = open_tun(host, &config.interface, &shards)?;
    fault::point("TUN opened");
    let mut surroundings = Surroundings {
        asked,
        source,
        unconfirmed: None,
        config: config.clone(),
        speaks_from: own_ipv6(&snapshot)?,
        watch,
        netcfg,
        forwarding: Forwarding::default(),
        own,
        orders: None,
        host: Arc::default(),
        spare,
        refused_uplink: None,
        is_stopping: false,
        hung_up,
        resting,
        key,
    };
    let arranged = surroundings.arrange(&snapshot).await;
    let arranged = arranged.map_err(|error| netcfg_failure(&error));
    let started = arranged.and_then(|()| {
        Workers::start(shards, &queues, Arc::clone(&shared), clock)
            .map_err(cannot("cannot start a thread"))
    });
    let served = match started {
        Ok(workers) => {
            let began = surroundings.began(&workers, &snapshot, &shared, journal);
            let control = began.await;
            serve(workers, &mut surroundings, &mut signals, &shared, control).await
        }
        Err(failure) => Err(failure),
    };
    let undone = surroundings
        .netcfg
        .apply(&Plan::nothing())
        .await
        .map_err(|error| netcfg_failure(&error));
    served.and_then(|exit| undone.map(|()| exit))
}

async fn serve(
    workers: Workers,
    surroundings: &mut Surroundings<impl Network, impl System>,
    signals: &mut impl Signals,
    shared: &Shared,
    mut control: Control,
) -> Result<Exit, Failure> {
    tracing::info!("running");
    fault::point("running");
    let mut pulse = workers.pulse();
    // It ends with this.
    let mut aside = JoinSet::new();
    aside.spawn(gather(workers.orders()));
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
                surroundings.carry_out(order, &mut control, signals).await;
            }
            () = too_late(surroundings.unconfirmed.as_ref()) => {
                surroundings.go_back(&mut control, signals).await;
            }
            () = async {}, if surroundings.hung_up => {
                surroundings.hung_up = false;
                // It is in the log, whatever came of it.
                let _ = surroundings.reload(None, &mut control, signals).await;
            }
            told = signals.next() => match told {
                Told::End => break,
                Told::HangUp => surroundings.hung_up = true,
                Told::Report => tracing::info!("so far\n{}", text(&workers.stats(), shared)),
            },
        }
    }
    control.end().await;
    let hold_down = surroundings.config.timers.hold_down;
    let Surroundings { resting, key, .. } = &*surroundings;
    remains::leave(resting, &workers.orders(), *key, hold_down).await;
    let stats = workers.shard_stats();
    let ended = workers.stop();
    fault::point("worker stopped");
    tracing::info!("in all\n{}", text(&Stats::sum(&stats), shared));
    match ended {
        Ok(()) => Ok(Exit::Ok),
        Err(error) => Err(Failure::io("the virtual interface", &error)),
    }
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

/// The host around the PLAT, which changes while it runs.
struct Surroundings<W, S> {
    /// Where its configuration is.
    source: Source,
    /// As it was configured.
    asked: Config,
    /// What is to go again unless it is confirmed.
    unconfirmed: Option<Unconfirmed>,
    /// As it holds on this host.
    config: Config,
    /// The source of errors to clients.
    speaks_from: Ipv6Addr,
    watch: W,
    netcfg: NetCfg<S>,
    forwarding: Forwarding,
    /// The host's own IPv4 addresses, as the workers know them.
    own: Vec<Ipv4Addr>,
    /// The way to the workers, once they run.
    orders: Option<Orders>,
    /// What the control socket tells of the host.
    host: Arc<admin::Host>,
    /// Addresses of the link that are used.
    spare: Spare,
    /// The other uplink that could not be used, and when.
    refused_uplink: Option<(String, Instant)>,
    /// The signal to end came while something else was waited for.
    is_stopping: bool,
    /// The signal to read the configuration again did.
    hung_up: bool,
    /// Where it is written down what must rest after the end.
    resting: PathBuf,
    /// The key of the workers.
    key: [u8; 16],
}

impl<W: Network, S: System> Surroundings<W, S> {
    /// The workers run: says what they do, and opens the control socket.
    async fn began(
        &mut self,
        workers: &Workers,
        snapshot: &Snapshot,
        shared: &Arc<Shared>,
        journal: &Path,
    ) -> Control {
        let config = &self.config;
        if let Some(decided) = decisions::text(config) {
            cli::say(decided);
        }
        cli::say(clients::text(&self.asked, config));
        cli::say(lan::instructions(config));
        self.orders = Some(workers.orders());
        self.spare.used();
        self.host.note(snapshot, config);
        let facts = self.facts(shared);
        Control::start(workers, facts, config, &self.host, journal).await
    }

    /// Makes the host, as it is, what the PLAT needs.
    async fn arrange(&mut self, snapshot: &Snapshot) -> Result<(), netcfg::Error> {
        self.host.note(snapshot, &self.config);
        self.tell_own_addresses(own_ipv4(snapshot)).await;
        self.follow_addresses(snapshot).await;
        if self.forwarding.forget_replaced(snapshot) {
            self.apply().await?;
        }
        let forwarding = &mut self.forwarding;
        let follow = forwarding.follow(&self.config, snapshot, &mut self.netcfg);
        follow.await;
        self.apply().await
    }

    /// Goes on by the interface that IPv4 goes by now, where something is arranged on the one before.
    /// What is there is taken back when the host is arranged the next time. An interface that cannot
    /// be used is said, and tried again a minute later.
    async fn follow_uplink(&mut self, snapshot: &Snapshot, signals: &mut impl Signals) {
        let Some(now) = uplink_elsewhere(&self.asked, &self.config, snapshot) else {
            self.refused_uplink = None;
            return;
        };
        let refused = self.refused_uplink.as_ref();
        if refused.is_some_and(|(name, at)| name == now && at.elapsed() < AGAIN) {
            return;
        }
        let mode = self.config.pool_mode;
        match self.move_to(now, snapshot, signals).await {
            Ok(()) => tracing::info!("IPv4 goes by {now} now: {mode} is arranged there"),
            Err(failure) => {
                let before = self.config.uplink.as_deref().unwrap_or("no interface");
                tracing::warn!("IPv4 goes by {now} now, {mode} stays on {before}: {failure}");
                self.refused_uplink = Some((now.to_owned(), Instant::now()));
            }
        }
    }

    async fn move_to(
        &mut self,
        uplink: &str,
        snapshot: &Snapshot,
        signals: &mut impl Signals,
    ) -> Result<(), Failure> {
        let mut config = self.config.clone();
        config.uplink = Some(uplink.to_owned());
        config.answered = answered(&config, snapshot)?;
        if let Some(spare) = self.claim(&config, snapshot, signals).await? {
            self.spare = spare;
            self.spare.used();
        }
        self.config = config;
        Ok(())
    }

    /// Asks the link for spare addresses, if there are others now, or it is another link.
    async fn claim(
        &mut self,
        config: &Config,
        snapshot: &Snapshot,
        signals: &mut impl Signals,
    ) -> Result<Option<Spare>, Failure> {
        let same = config.answered == self.config.answered && config.uplink == self.config.uplink;
        if config.pool_mode != PoolMode::Arp || same {
            return Ok(None);
        }
        let claim = Spare::claim(config, snapshot, signals, &mut self.hung_up);
        let spare = claim.await?;
        // The signal is not told twice.
        self.is_stopping = spare.is_none();
        match spare {
            Some(spare) => Ok(Some(spare)),
            None => Err(Failure::new(Exit::NotRunning, "plat is stopping")),
        }
    }

    async fn apply(&mut self) -> Result<(), netcfg::Error> {
        let plan = host_plan::plan(&self.config, &self.forwarding);
        self.netcfg.apply(&plan).await
    }

    /// No client may reach the host's own addresses. Workers that cannot be told are told with the
    /// next look.
    async fn tell_own_addresses(&mut self, own: Vec<Ipv4Addr>) {
        let Some(orders) = self.orders.as_ref().filter(|_| own != self.own) else {
            return;
        };
        let addresses = own.clone();
        let told = orders.each(move |engine, _| engine.set_own_addresses(addresses.clone()));
        match told.await {
            Ok(_) => self.own = own,
            Err(error) => tracing::warn!("cannot tell the host's own addresses: {error}"),
        }
    }

    /// A new address to share, one to speak from, or new networks of clients. What went by the old
    /// one ends at once. While there is none, nothing changes; workers that cannot be told are told
    /// with the next look.
    async fn follow_addresses(&mut self, snapshot: &Snapshot) {
        let Some(orders) = &self.orders else {
            return;
        };
        let mut config = self.config.clone();
        if shared_address_is_gone(&config, snapshot) {
            match on_host(&self.asked, snapshot, sockets::in_use) {
                Ok(new) => config = new,
                Err(failure) => tracing::warn!("still with the old address: {failure}"),
            }
        }
        config.clients = self.clients(&config, snapshot);
        let speaks_from = match own_ipv6(snapshot) {
            Ok(new) if !has_ipv6(snapshot, self.speaks_from) => new,
            Ok(_) | Err(_) => self.speaks_from,
        };
        if config.pool == self.config.pool
            && config.clients == self.config.clients
            && speaks_from == self.speaks_from
        {
            return;
        }
        let engine = config.for_engine(speaks_from, self.own.clone());
        let told = orders.each(move |it, _| it.reconfigure(engine.clone()).is_ok());
        match told.await {
            Ok(all) if all.iter().all(|done| *done) => {
                for range in config
                    .pool
                    .iter()
                    .filter(|_| config.pool != self.config.pool)
                {
                    tracing::info!(
                        "the address is {range} now; what went by the old one has ended"
                    );
                }
                if config.clients != self.config.clients {
                    tracing::info!("{}", clients::text(&self.asked, &config).trim_end());
                }
                self.config = config;
                self.speaks_from = speaks_from;
            }
            Ok(_) => tracing::warn!("the new address cannot be used"),
            Err(error) => tracing::warn!("cannot tell the new address: {error}"),
        }
    }

    fn facts(&self, shared: &Arc<Shared>) -> Facts {
        let instance = self.source.instance();
        Facts::of(&self.asked, &self.config, &instance, Arc::clone(shared))
    }

    /// Who may use it: as configured, or else the networks that this host is on the way to now.
    fn clients(&self, config: &Config, snapshot: &Snapshot) -> Vec<Network6> {
        if self.asked.clients.is_empty() {
            return clients::of_host(config, snapshot);
        }
        self.asked.clients.clone()
    }

    /// Looks at the host again. What fails is tried again with the next look.
    async fn follow(&mut self, signals: &mut impl Signals) {
        match self.watch.snapshot().await {
            Ok(snapshot) => {
                self.follow_uplink(&snapshot, signals).await;
                if let Err(error) = self.arrange(&snapshot).await {
                    tracing::warn!("{error}");
                }
            }
            Err(error) => tracing::warn!("cannot read the network interfaces: {error}"),
        }
    }
}

fn text(stats: &Stats, shared: &Shared) -> String {
    report::stats(stats, shared.host_refused.get(), shared.unreadable.get())
}

async fn read(watch: &impl Network) -> Result<Snapshot, Failure> {
    watch
        .snapshot()
        .await
        .map_err(|error| Failure::io("cannot read the network interfaces", &error))
}

/// The host's IPv4 addresses: no client may reach them. One that is in the pool, too, came up later
/// ([`check_host`]), and is the host's all the same.
fn own_ipv4(snapshot: &Snapshot) -> Vec<Ipv4Addr> {
    let all = snapshot.interfaces.iter().flat_map(|it| it.ipv4.iter());
    all.copied().collect()
}

/// Whether the address whose ports are shared is no longer this host's.
fn shared_address_is_gone(config: &Config, snapshot: &Snapshot) -> bool {
    let shared = config.pool.first().map(PoolRange::first);
    let is_own = |address| own_ipv4(snapshot).contains(&address);
    config.pool_mode == PoolMode::HostPorts && !shared.is_some_and(is_own)
}

fn has_ipv6(snapshot: &Snapshot, address: Ipv6Addr) -> bool {
    let all = snapshot.interfaces.iter().flat_map(|it| &it.addresses);
    all.into_iter().any(|it| it.address == address)
}

/// What cannot work on this host, although the configuration is right by itself.
fn check_host(config: &Config, snapshot: &Snapshot) -> Result<(), Failure> {
    if config.pool.is_empty() {
        let what = "no pool is configured";
        return Err(Failure::new(Exit::Usage, what).hint(config::SMALLEST));
    }
    let all = snapshot.interfaces.iter();
    for interface in all.filter(|it| it.name != config.interface) {
        check_mappings(config, interface)?;
        // The one mode where it is meant to be.
        if config.pool_mode != PoolMode::HostPorts {
            check_pool(config, interface)?;
        }
        check_prefixes(config, interface)?;
    }
    Ok(())
}

fn check_mappings(config: &Config, interface: &Interface) -> Result<(), Failure> {
    if let Some((eam, address)) = interface
        .ipv4
        .iter()
        .find_map(|it| Some((config.eam.find(*it)?, it)))
    {
        let name = &interface.name;
        let what = format_args!("[[eam]] {eam}: {address} is this host's own address on {name}");
        return Err(Failure::new(Exit::Usage, what).hint(
            "what comes to it would never reach plat: use addresses that are routed to this host \
             and used by nothing",
        ));
    }
    Ok(())
}

fn check_pool(config: &Config, interface: &Interface) -> Result<(), Failure> {
    let in_pool = |address: &&Ipv4Addr| config.pool.iter().any(|it| it.contains(**address));
    let Some(address) = interface.ipv4.iter().find(in_pool) else {
        return Ok(());
    };
    let name = &interface.name;
    let what = format_args!("the pool has {address}, which is this host's own address on {name}");
    Err(Failure::new(Exit::Usage, what).hint(
        "what comes to it would never reach plat: use addresses that are routed to this host and \
         used by nothing, or share its ports: pool_mode = \"host-ports\"",
    ))
}

fn check_prefixes(config: &Config, interface: &Interface) -> Result<(), Failure> {
    for own in interface.addresses.iter().map(|it| it.address) {
        if let Some(prefix) = config.prefixes.iter().find(|it| it.contains(own)) {
            let name = &interface.name;
            let what = format_args!("{prefix} contains this host's own address {own} on {name}");
            return Err(Failure::new(Exit::Usage, what).hint(
                "a NAT64 refuses packets from its own prefix: use one that no host has an address \
                 in, for example a /96 of its own",
            ));
        }
    }
    Ok(())
}

/// What is allowed, and may not be what was meant.
fn warn_of(asked: &Config, config: &Config) {
    warn_of_overlaps(config);
    // Of clients that are left to the host more may come.
    for sentence in config::outside::sentences(asked) {
        tracing::warn!("{sentence}");
    }
}

/// Mappings inside of others: longest match decides, but the way back is not the way there
/// (RFC 7757 §5).
fn warn_of_overlaps(config: &Config) {
    const SHOWN: usize = 5;
    let overlaps = config.eam.overlaps();
    for (inner, outer) in overlaps.iter().take(SHOWN) {
        tracing::warn!("[[eam]] {inner} lies in {outer}: the longer prefix decides, each way");
    }
    if overlaps.len() > SHOWN {
        tracing::warn!("[[eam]] and {} more such pairs", overlaps.len() - SHOWN);
    }
}

/// An address of the host to speak from when a packet cannot be translated.
fn own_ipv6(snapshot: &Snapshot) -> Result<Ipv6Addr, Failure> {
    let all = snapshot.interfaces.iter();
    let usable = all.flat_map(|it| it.addresses.iter()).filter(|it| {
        !it.address.is_loopback()
            && !it.address.is_unicast_link_local()
            && !it.address.is_multicast()
    });
    // Rather not one that is about to go, or not checked yet.
    let best = usable.min_by_key(|it| !it.preferred);
    best.map(|it| it.address).ok_or_else(|| {
        Failure::error("this host has no IPv6 address but link-local ones")
            .hint("give the interface towards the IPv6 clients an address")
    })
}

fn random_key() -> Result<[u8; 16], Failure> {
    let mut key = [0; 16];
    let filled = getrandom::fill(&mut key);
    filled.map_err(|error| Failure::error(format_args!("no randomness: {error}")))?;
    Ok(key)
}

/// The shards of the NAT64, one for each worker. What was in use `before` rests.
fn shards(
    config: &Config,
    engine: nat64::Config,
    key: [u8; 16],
    before: &Remains,
    clock: Clock,
) -> Result<Vec<Engine>, Failure> {
    let (wanted, bib, config) = (config.workers, &config.bib, engine);
    let count = how_many(wanted, Dispatch::most_shards(&config));
    if let Some(wanted) = wanted.filter(|wanted| *wanted > count) {
        tracing::warn!("{count} workers, not {wanted}: the pool has too few ports for more");
    }
    let now = clock.now();
    let mut shards = ShardId::all(count)
        .map(|shard| Engine::for_shard(config.clone(), key, count, shard, now))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Failure::new(Exit::Usage, error))?;
    for shard in &mut shards {
        shard.let_rest(before);
    }
    for binding in bib {
        for shard in &mut shards {
            shard.add_static(*binding).map_err(|error| {
                let (inside, outside) = (binding.inside, binding.outside);
                let what = format_args!("[[bib]] {inside:?} {outside:?}: {error}");
                Failure::new(Exit::Usage, what)
            })?;
        }
    }
    Ok(shards)
}

/// The virtual interface, with a queue for each shard.
fn open_tun(host: &impl Host, name: &str, shards: &[Engine]) -> Result<Vec<Arc<dyn Tun>>, Failure> {
    let queues = u8::try_from(shards.len()).ok().and_then(NonZeroU8::new);
    host.tun_queues(name, queues.unwrap_or(NonZeroU8::MIN))
        .map_err(|it| Failure::system(it.kind(), &it, it.hint()))
}

/// A failure of `netcfg`, for people.
pub(crate) fn netcfg_failure(error: &netcfg::Error) -> Failure {
    // Another directory alone would only lead to the next refusal.
    Failure::system(error.kind(), error, error.hint()).permission_hint(
        "run it as root, or with CAP_NET_ADMIN and a --state-dir that may be written",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_host;

    fn config(text: &str) -> Config {
        config::tests::settled(text).unwrap()
    }

    fn interface(name: &str, ipv4: &str, ipv6: &[(&str, bool)]) -> Interface {
        let networks: Vec<_> = ipv6.iter().map(|(address, _)| (*address, 64)).collect();
        let mut interface = test_host::interface(1, name, &networks, &[ipv4]);
        for (address, (_, preferred)) in interface.addresses.iter_mut().zip(ipv6) {
            address.preferred = *preferred;
        }
        interface
    }

    fn host(interfaces: Vec<Interface>) -> Snapshot {
        Snapshot {
            interfaces,
            ..Snapshot::default()
        }
    }

    /// Otherwise clients would reach the host itself through it, and nothing would come back.
    #[test]
    fn the_hosts_own_addresses_are_not_in_the_pool() {
        let config = config("pool = [\"203.0.113.0/28\"]");
        let fine = host(vec![interface("eth0", "192.0.2.1", &[])]);
        assert_eq!(check_host(&config, &fine), Ok(()));
        let mapped = "[[eam]]\nipv4 = \"192.0.2.0/24\"\nipv6 = \"2001:db8::/120\"\n";
        let mapped = self::config(&format!("pool = [\"203.0.113.0/28\"]\n{mapped}"));
        let failure = check_host(&mapped, &fine).unwrap_err().to_string();
        assert!(
            failure.contains("192.0.2.1 is this host's own"),
            "{failure}"
        );
        let wrong = host(vec![interface("eth0", "203.0.113.7", &[])]);
        let failure = check_host(&config, &wrong).unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage);
        let text = failure.to_string();
        assert!(
            text.contains("203.0.113.7") && text.contains("eth0"),
            "{text}"
        );
        // If it comes up later, it is refused to clients.
        assert_eq!(own_ipv4(&wrong), [Ipv4Addr::new(203, 0, 113, 7)]);
    }

    /// The loop guard would drop everything that such a host sends.
    #[test]
    fn a_prefix_does_not_contain_the_network_it_serves() {
        let config = config("pool = [\"203.0.113.0/28\"]\nprefixes = [\"2001:db8::/32\"]");
        let wrong = host(vec![interface(
            "eth0",
            "192.0.2.1",
            &[("2001:db8:1::1", true)],
        )]);
        let text = check_host(&config, &wrong).unwrap_err().to_string();
        assert!(text.contains("2001:db8:1::1 on eth0"), "{text}");
        let fine = host(vec![interface(
            "eth0",
            "192.0.2.1",
            &[("2001:db9::1", true)],
        )]);
        assert_eq!(check_host(&config, &fine), Ok(()));
    }

    #[test]
    fn errors_come_from_an_address_that_stays() {
        let addresses = [
            ("fe80::1", true),
            ("2001:db8::1", false),
            ("2001:db8::2", true),
        ];
        let snapshot = host(vec![
            interface("lo", "127.0.0.1", &[("::1", true)]),
            interface("eth0", "192.0.2.1", &addresses),
        ]);
        assert_eq!(own_ipv6(&snapshot), Ok("2001:db8::2".parse().unwrap()));
        let tentative = host(vec![interface("eth0", "192.0.2.1", &addresses[..2])]);
        assert_eq!(own_ipv6(&tentative), Ok("2001:db8::1".parse().unwrap()));
        let none = host(vec![interface("eth0", "192.0.2.1", &addresses[..1])]);
        assert!(
            own_ipv6(&none)
                .unwrap_err()
                .to_string()
                .contains("what to do")
        );
    }
}
