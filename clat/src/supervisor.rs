//! The shell around the session: watches the network, carries out effects.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use clat_core::{
    Effect, Facts, Session, Settings, State, address::HostAddress, host_plan::UplinkKind,
    session::Link,
};
use cli::{Exit, Failure};
use host::{
    clock::Clock,
    netcfg::{self, NetCfg, linux::LinuxSystem},
    netwatch::{
        Interface, Snapshot,
        linux::{NetWatch, Nudger},
    },
    tun::{Tun, linux::LinuxTun},
    uplink::{Uplink, linux::PacketSocket},
};
use l2::next_hop;
use pref64::{
    Pref64,
    tracker::{Change, Entry, IfIndex, Source},
};
use pref64_discovery::{Discovery, Event as DiscoveryEvent};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

use crate::{
    config::Config,
    dataplane::{Dataplane, Engine, Event, Stats},
    report,
};

/// Changes of the network come in bursts: this long after the first one it is looked at.
const SETTLE: Duration = Duration::from_millis(50);

/// Looked at even if nobody told: notifications may be lost.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Runs the CLAT until a signal ends it.
///
/// # Errors
/// What keeps it from starting. Later failures are states of the session.
pub(crate) async fn run(config: Config) -> Result<Exit, Failure> {
    let mut signals = Signals::open()?;
    let mut supervisor = Supervisor::open(config).await?;
    let result = supervisor.serve(&mut signals).await;
    let ended = supervisor.end().await;
    result.and(ended)
}

/// The signals that mean something.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    report: Signal,
}

impl Signals {
    fn open() -> Result<Self, Failure> {
        let open = |kind| signal(kind).map_err(|error| Failure::io("signals", &error));
        Ok(Self {
            terminate: open(SignalKind::terminate())?,
            interrupt: open(SignalKind::interrupt())?,
            report: open(SignalKind::user_defined1())?,
        })
    }
}

/// What happened.
enum Happened {
    Discovered(std::io::Result<DiscoveryEvent>),
    NetworkChanged(std::io::Result<()>),
    Dataplane(Event),
    TimeToLook,
    TimeForSession,
    ReportWanted,
    EndWanted,
}

struct Supervisor {
    config: Config,
    clock: Clock,
    watch: NetWatch,
    nudger: Nudger,
    discovery: Discovery,
    netcfg: NetCfg<LinuxSystem>,
    session: Session,
    tun: Option<Arc<dyn Tun>>,
    engine: Option<Engine>,
    stats: Option<Stats>,
    dataplane: Option<Dataplane>,
    events: (UnboundedSender<Event>, UnboundedReceiver<Event>),
    /// The link that is used, by index and name.
    link: Option<(IfIndex, String)>,
    next_look: Instant,
    /// A failure that ends the program, because nothing worked yet.
    fatal: Option<Failure>,
    has_worked: bool,
}

impl Supervisor {
    async fn open(config: Config) -> Result<Self, Failure> {
        let clock = Clock::start();
        let cannot = |what: &'static str| move |error| Failure::io(what, &error);
        let system = LinuxSystem::open().map_err(cannot("cannot reach the kernel"))?;
        let watch = NetWatch::open().map_err(cannot("cannot watch the network"))?;
        let discovery = Discovery::open(clock).map_err(|error| {
            Failure::io("cannot listen to router advertisements", &error)
                .hint("run it as root, or give it CAP_NET_RAW and CAP_NET_ADMIN")
        })?;
        let netcfg = NetCfg::open(system, &config.journal)
            .await
            .map_err(|error| netcfg_failure(&error))?;
        let seed = random()?;
        Ok(Self {
            nudger: watch.nudger(),
            session: Session::new(config.session.clone(), seed),
            config,
            clock,
            watch,
            discovery,
            netcfg,
            tun: None,
            engine: None,
            stats: None,
            dataplane: None,
            events: unbounded_channel(),
            link: None,
            next_look: clock.now(),
            fatal: None,
            has_worked: false,
        })
    }

    async fn serve(&mut self, signals: &mut Signals) -> Result<Exit, Failure> {
        tracing::info!("{}", report::state(self.session.state(), None));
        loop {
            if let Some(failure) = self.fatal.take() {
                return Err(failure);
            }
            match self.next(signals).await {
                Happened::Discovered(Ok(event)) => {
                    log_discovery(&event, self.clock.now());
                    self.look_soon();
                }
                Happened::Discovered(Err(error)) => {
                    return Err(Failure::io(
                        "cannot listen to router advertisements",
                        &error,
                    ));
                }
                Happened::NetworkChanged(Ok(())) => self.look_soon(),
                Happened::NetworkChanged(Err(error)) => {
                    return Err(Failure::io("cannot watch the network", &error));
                }
                Happened::Dataplane(event) => self.handle_event(event).await,
                Happened::TimeToLook => self.look().await,
                Happened::TimeForSession => {
                    let effects = self.session.handle_timeout(self.clock.now());
                    self.carry_out(effects).await;
                }
                Happened::ReportWanted => self.report(),
                Happened::EndWanted => return Ok(Exit::Ok),
            }
        }
    }

    async fn next(&mut self, signals: &mut Signals) -> Happened {
        let look = tokio::time::sleep(self.clock.until(self.next_look));
        let session = self.session.poll_timeout().map(|at| self.clock.until(at));
        tokio::select! {
            event = self.discovery.next() => Happened::Discovered(event),
            changed = self.watch.changed() => Happened::NetworkChanged(changed),
            Some(event) = self.events.1.recv() => Happened::Dataplane(event),
            () = look => Happened::TimeToLook,
            () = sleep(session) => Happened::TimeForSession,
            _ = signals.report.recv() => Happened::ReportWanted,
            _ = signals.terminate.recv() => Happened::EndWanted,
            _ = signals.interrupt.recv() => Happened::EndWanted,
        }
    }

    fn look_soon(&mut self) {
        self.next_look = self.next_look.min(self.clock.now() + SETTLE);
    }

    /// Reads the network anew and tells the session.
    async fn look(&mut self) {
        self.next_look = self.clock.now() + LOOK_AGAIN;
        let snapshot = match self.watch.snapshot().await {
            Ok(snapshot) => snapshot,
            Err(error) => {
                tracing::warn!("cannot read the network interfaces: {error}");
                return;
            }
        };
        self.follow_link(&snapshot);
        let facts = self.facts(&snapshot);
        let effects = self.session.update(facts, self.clock.now());
        self.carry_out(effects).await;
        self.refresh_next_hop().await;
    }

    /// Chooses the link, and starts over when it is another one.
    fn follow_link(&mut self, snapshot: &Snapshot) {
        let chosen = self
            .choose_link(snapshot)
            .map(|it| (it.index, it.name.clone()));
        if chosen == self.link {
            return;
        }
        if let Some((index, _)) = self.link.take() {
            self.discovery.forget(index);
            self.discovery.set_manual(index, &[]);
        }
        if let Some((index, name)) = &chosen {
            tracing::debug!("using {name}");
            self.discovery.solicit(*index);
            if let Some(prefix) = self.config.prefix {
                self.discovery.set_manual(*index, &[prefix]);
            }
        }
        self.link = chosen;
    }

    /// The configured interface; else the one in use while it has a prefix; else the best that has
    /// one; else the best.
    fn choose_link<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Interface> {
        let usable = |it: &&Interface| {
            it.running && it.mac.is_some() && it.name != self.config.session.identity.interface
        };
        if let Some(name) = &self.config.interface {
            return snapshot.by_name(name).filter(usable);
        }
        let has_prefix = |it: &&Interface| !self.discovery.prefixes(it.index).is_empty();
        let candidates = || {
            let by_route = snapshot.ipv6_default.iter().copied();
            by_route
                .filter_map(|index| snapshot.by_index(index))
                .filter(usable)
        };
        let current = self
            .link
            .as_ref()
            .and_then(|(index, _)| snapshot.by_index(*index));
        current
            .filter(usable)
            .filter(has_prefix)
            .or_else(|| candidates().find(has_prefix))
            .or_else(|| snapshot.interfaces.iter().filter(usable).find(has_prefix))
            .or_else(|| candidates().next())
            .or_else(|| snapshot.interfaces.iter().find(usable))
    }

    fn facts(&self, snapshot: &Snapshot) -> Facts {
        let index = self.link.as_ref().map(|(index, _)| *index);
        let interface = index.and_then(|index| snapshot.by_index(index));
        let own = &self.config.session.identity.interface;
        let is_ours = |index: &u32| snapshot.by_index(*index).is_some_and(|it| it.name == *own);
        Facts {
            link: interface.filter(|it| it.running).and_then(link_of),
            addresses: interface.map(addresses_of).unwrap_or_default(),
            prefixes: index.map_or_else(Vec::new, |index| self.discovery.prefixes(index)),
            native_ipv4: snapshot.ipv4_default.iter().any(|index| !is_ours(index)),
        }
    }

    async fn handle_event(&mut self, event: Event) {
        let now = self.clock.now();
        let effects = match event {
            Event::Assigned => self.session.assigned(),
            Event::Duplicate(by) => {
                tracing::warn!("{by} has our IPv6 address");
                self.session.duplicate(by, now)
            }
            Event::Nudge(router) => {
                if let Some((index, _)) = &self.link {
                    self.nudger.nudge(*index, router).await;
                }
                return;
            }
            Event::Failed(what) => self.session.failed(what, now),
        };
        self.carry_out(effects).await;
        self.refresh_next_hop().await;
    }

    async fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut todo = std::collections::VecDeque::from(effects);
        while let Some(effect) = todo.pop_front() {
            if let Err(what) = self.do_one(effect).await {
                tracing::error!("{what}");
                if !self.has_worked && self.fatal.is_none() {
                    self.fatal = Some(what.clone());
                }
                // What was still to do belongs to a state that was not reached.
                todo = self
                    .session
                    .failed(what.to_string(), self.clock.now())
                    .into();
            }
        }
    }

    async fn do_one(&mut self, effect: Effect) -> Result<(), Failure> {
        match effect {
            Effect::Claim { link, settings } => self.claim(&link, settings)?,
            Effect::Configure(settings) => {
                if let Some(dataplane) = &self.dataplane {
                    dataplane.configure(settings);
                }
            }
            Effect::Apply(plan) => self
                .netcfg
                .apply(&plan)
                .await
                .map_err(|error| netcfg_failure(&error))?,
            Effect::Release => {
                self.stop_dataplane();
                self.tun = None;
            }
            Effect::Report(state) => {
                self.has_worked |= matches!(state, State::Running(_));
                let link = self.link.as_ref().map(|(_, name)| name.as_str());
                tracing::info!("{}", report::state(&state, link));
            }
        }
        Ok(())
    }

    fn claim(&mut self, link: &Link, settings: Settings) -> Result<(), Failure> {
        self.stop_dataplane();
        // What the old threads still said is about the old address.
        self.events = unbounded_channel();
        let tun = self.open_tun()?;
        let engine = match self.engine.take() {
            Some(engine) => engine,
            None => Engine::new(&settings, (random()?, random()?)),
        };
        self.stats = Some(engine.stats());
        let surroundings = (self.clock, self.events.0.clone());
        let started = match self.config.session.identity.uplink {
            UplinkKind::Routed => Dataplane::start_routed(engine, tun, settings, surroundings),
            UplinkKind::Link => {
                let uplink = open_uplink(link, &settings)?;
                let claim = l2::link::Config {
                    address: settings.clat,
                    mac: link.mac,
                    probes: 1,
                    nonce: nonce()?,
                    delay: Duration::ZERO,
                };
                Dataplane::start_on_link(engine, tun, uplink, claim, settings, surroundings)
            }
        };
        let dataplane = started.map_err(|error| Failure::io("cannot start a thread", &error))?;
        self.dataplane = Some(dataplane);
        Ok(())
    }

    fn open_tun(&mut self) -> Result<Arc<dyn Tun>, Failure> {
        if let Some(tun) = &self.tun {
            return Ok(Arc::clone(tun));
        }
        let name = &self.config.session.identity.interface;
        let opened = LinuxTun::open(name);
        let opened = opened.map_err(|it| Failure::system(it.kind(), &it, it.hint()))?;
        let tun: Arc<dyn Tun> = Arc::new(opened);
        self.tun = Some(Arc::clone(&tun));
        Ok(tun)
    }

    fn stop_dataplane(&mut self) {
        if let Some(dataplane) = self.dataplane.take() {
            self.engine = dataplane.stop();
            if self.engine.is_none() {
                tracing::error!("a thread of the data path had failed; its counters start anew");
            }
        }
    }

    /// Tells the data path which router to send to.
    async fn refresh_next_hop(&self) {
        let (Some(dataplane), Some((index, _))) = (&self.dataplane, &self.link) else {
            return;
        };
        let (State::Claiming(settings) | State::Running(settings)) = self.session.state() else {
            return;
        };
        match self.find_next_hop(*index, settings.prefix).await {
            Ok(next_hop) => {
                if let Some(unresolved) = next_hop.filter(|it| it.mac.is_none()) {
                    self.nudger.nudge(*index, unresolved.router).await;
                }
                dataplane.set_next_hop(next_hop);
            }
            Err(error) => tracing::warn!("cannot find the router for {}: {error}", settings.prefix),
        }
    }

    async fn find_next_hop(
        &self,
        link: IfIndex,
        prefix: Pref64,
    ) -> std::io::Result<Option<l2::NextHop>> {
        // Any address in the prefix will do; this one is never a destination.
        let probe = prefix.embed(pref64::well_known_name::ADDRESSES[0]);
        let routes = self.watch.gateways(link, probe).await?;
        let routers: Vec<_> = self
            .discovery
            .routers(link)
            .iter()
            .map(|router| (router.address, router.mac))
            .collect();
        let neighbours = self.watch.neighbours(link).await?;
        Ok(next_hop::choose(&routes, &routers, &neighbours))
    }

    fn report(&self) {
        match &self.stats {
            Some(stats) => tracing::info!("so far\n{}", report::stats(stats)),
            None => tracing::info!("nothing was translated yet"),
        }
    }

    /// Takes everything back.
    async fn end(mut self) -> Result<Exit, Failure> {
        self.report();
        let undone = self.netcfg.apply(&plan::Plan::nothing()).await;
        self.stop_dataplane();
        undone.map_err(|error| netcfg_failure(&error))?;
        tracing::info!("ended, and everything is taken back");
        Ok(Exit::Ok)
    }
}

async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => pending().await,
    }
}

fn open_uplink(link: &Link, settings: &Settings) -> Result<Arc<dyn Uplink>, Failure> {
    let socket = PacketSocket::open(link.index, link.mac, settings.clat).map_err(|error| {
        Failure::io(
            format_args!("cannot open a packet socket on {}", link.name),
            &error,
        )
        .hint("run it as root, or give it CAP_NET_RAW and CAP_NET_ADMIN")
    })?;
    Ok(Arc::new(socket))
}

fn link_of(interface: &Interface) -> Option<Link> {
    Some(Link {
        index: interface.index,
        name: interface.name.clone(),
        mac: interface.mac?,
        mtu: u16::try_from(interface.ipv6_mtu).unwrap_or(u16::MAX),
    })
}

fn addresses_of(interface: &Interface) -> Vec<HostAddress> {
    let addresses = interface.addresses.iter();
    addresses
        .map(|it| HostAddress {
            address: it.address,
            prefix_len: it.prefix_len,
            preferred: it.preferred,
        })
        .collect()
}

fn random() -> Result<u64, Failure> {
    getrandom::u64().map_err(|error| Failure::error(format_args!("no randomness: {error}")))
}

fn nonce() -> Result<[u8; 6], Failure> {
    let [a, b, c, d, e, f, ..] = random()?.to_ne_bytes();
    Ok([a, b, c, d, e, f])
}

/// A failure of `netcfg`, for people.
pub(crate) fn netcfg_failure(error: &netcfg::Error) -> Failure {
    Failure::system(error.kind(), error, error.hint())
}

fn log_discovery(event: &DiscoveryEvent, now: Instant) {
    match event {
        DiscoveryEvent::Advertised { changes, .. } => {
            for change in changes {
                log_change(change, now);
            }
        }
        DiscoveryEvent::Expired(changes) => {
            for (_, change) in changes {
                log_change(change, now);
            }
        }
    }
}

fn log_change(change: &Change, now: Instant) {
    let from = |entry: &Entry| match entry.source {
        Source::Manual => "by configuration".to_owned(),
        Source::Ra { router } => format!("by router {router}"),
        Source::Dns => "by DNS".to_owned(),
    };
    let left = |entry: &Entry| match entry.expires {
        Some(at) => cli::text::duration(at.saturating_duration_since(now)),
        None => "ever".to_owned(),
    };
    match change {
        Change::Added(it) => {
            tracing::info!("NAT64 prefix {} {}, for {}", it.prefix, from(it), left(it));
        }
        Change::Refreshed(it) => tracing::debug!("{} refreshed for {}", it.prefix, left(it)),
        Change::Withdrawn(it) => {
            tracing::info!("NAT64 prefix {} withdrawn {}", it.prefix, from(it));
        }
        Change::Expired(it) => tracing::info!("NAT64 prefix {} expired", it.prefix),
        Change::Refused(it) => {
            tracing::warn!("NAT64 prefix {} ignored: there are too many", it.prefix);
        }
    }
}
