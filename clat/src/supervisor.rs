//! The shell around the session: watches the network, carries out effects.

use std::{
    future::pending,
    net::Ipv6Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use clat_core::{Effect, Facts, Session, Settings, State, host_plan::UplinkKind, session::Link};
use cli::{Exit, Failure};
use host::{
    Host,
    clock::Clock,
    fault,
    netcfg::{self, NetCfg},
    netwatch::{Interface, Network, Snapshot},
    signals::{Signals, Told},
    tun::Tun,
    uplink::Uplink,
};
use l2::next_hop;
use plan::Ipv6Before;
use pref64::{Pref64, tracker::IfIndex};
use pref64_discovery::{Discovery, Event as DiscoveryEvent};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{
    config::Config,
    dataplane::{Dataplane, Engine, Event, Stats},
    link::{self, Chosen, Offer, Preference},
    reachability::{Probed, Reachability},
    report::{self, Discoveries},
    surroundings::Surroundings,
};

/// Changes of the network come in bursts: this long after the first one it is looked at.
const SETTLE: Duration = Duration::from_millis(50);

/// Looked at even if nobody told: notifications may be lost.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// On a host with very many routes and neighbours, looking takes at most one part in this many of
/// the time.
const LOOK_SHARE: u32 = 10;

/// Somebody who takes away what we made, again and again, is not fought more often than this.
const MAKE_AGAIN: Duration = Duration::from_secs(5);

/// Runs the CLAT on a host until a signal ends it.
///
/// # Errors
/// What keeps it from starting. Later failures are states of the session.
pub(crate) async fn run(host: &impl Host, config: Config) -> Result<Exit, Failure> {
    // Before anything is changed, so that no signal leaves changes behind.
    let signals = host.signals();
    let mut signals = signals.map_err(|error| Failure::io("signals", &error))?;
    let mut supervisor = Supervisor::open(host, config).await?;
    let result = supervisor.serve(&mut signals).await;
    let ended = supervisor.end().await;
    result.and(ended)
}

/// What happened.
enum Happened {
    Discovered(std::io::Result<DiscoveryEvent>),
    NetworkChanged(std::io::Result<()>),
    Dataplane(Event),
    Probed(Probed),
    TimeToLook,
    TimeForSession,
    Told(Told),
}

struct Supervisor<'a, H: Host> {
    host: &'a H,
    config: Config,
    clock: Clock,
    watch: H::Network,
    discovery: Discovery<H::RouterAdvertisements, H::Dns>,
    netcfg: NetCfg<H::System>,
    session: Session,
    tun: Option<Arc<dyn Tun>>,
    engine: Option<Engine>,
    stats: Option<Stats>,
    dataplane: Option<Dataplane>,
    reachability: Reachability,
    events: (UnboundedSender<Event>, UnboundedReceiver<Event>),
    /// All links that are up, used or not.
    running: Vec<Chosen>,
    /// Those whose routers were asked to speak.
    solicited: Vec<IfIndex>,
    /// The link that is used.
    link: Option<Chosen>,
    /// There is a route to the prefix out of it, other than a default route.
    has_own_route: bool,
    surroundings: Surroundings,
    /// The configured address and the link, if it is foreign there, as was said already.
    foreign: Option<(Ipv6Addr, String)>,
    discoveries: Discoveries,
    /// Why the configured link is not, as was said already.
    obstacle: Option<String>,
    next_look: Instant,
    /// No sooner than this.
    earliest_look: Instant,
    earliest_make_again: Instant,
    /// A failure that ends the program, because nothing worked yet.
    fatal: Option<Failure>,
    has_worked: bool,
}

impl<'a, H: Host> Supervisor<'a, H> {
    async fn open(host: &'a H, config: Config) -> Result<Self, Failure> {
        let clock = Clock::start();
        let cannot = |what: &'static str| move |error| Failure::io(what, &error);
        let system = host
            .system()
            .map_err(cannot("cannot change the network's settings"))?;
        let watch = host.network().map_err(cannot("cannot watch the network"))?;
        let discovery = Discovery::open(host, clock, config.dns).map_err(|error| {
            Failure::io("cannot listen to router advertisements", &error)
                .permission_hint("run it as root, or give it CAP_NET_RAW and CAP_NET_ADMIN")
        })?;
        let netcfg = NetCfg::open(system, &config.journal)
            .await
            .map_err(|error| netcfg_failure(&error))?;
        let name = &config.session.identity.interface;
        check_name_is_free(&watch, name).await?;
        let seed = random()?;
        Ok(Self {
            host,
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
            reachability: Reachability::default(),
            events: unbounded_channel(),
            running: Vec::new(),
            solicited: Vec::new(),
            link: None,
            has_own_route: false,
            surroundings: Surroundings::default(),
            foreign: None,
            discoveries: Discoveries::default(),
            obstacle: None,
            next_look: clock.now(),
            earliest_look: clock.now(),
            earliest_make_again: clock.now(),
            fatal: None,
            has_worked: false,
        })
    }

    async fn serve(&mut self, signals: &mut impl Signals) -> Result<Exit, Failure> {
        tracing::info!("{}", report::state(self.session.state(), None));
        loop {
            if let Some(failure) = self.fatal.take() {
                return Err(failure);
            }
            match self.next(signals).await {
                Happened::Discovered(Ok(event)) => {
                    self.discoveries.log(&event, self.clock.now());
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
                Happened::Probed(probed) => report::probed(&probed),
                Happened::TimeToLook => self.look().await,
                Happened::TimeForSession => {
                    let effects = self.session.handle_timeout(self.clock.now());
                    self.carry_out(effects).await;
                }
                Happened::Told(Told::Report) => self.report(),
                Happened::Told(Told::End | Told::HangUp) => return Ok(Exit::Ok),
            }
        }
    }

    async fn next(&mut self, signals: &mut impl Signals) -> Happened {
        let look = tokio::time::sleep(self.clock.until(self.next_look));
        let session = self.session.poll_timeout().map(|at| self.clock.until(at));
        tokio::select! {
            event = self.discovery.next() => Happened::Discovered(event),
            changed = self.watch.changed() => Happened::NetworkChanged(changed),
            Some(event) = self.events.1.recv() => Happened::Dataplane(event),
            probed = self.reachability.next() => Happened::Probed(probed),
            () = look => Happened::TimeToLook,
            () = sleep(session) => Happened::TimeForSession,
            told = signals.next() => Happened::Told(told),
        }
    }

    fn look_soon(&mut self) {
        let soon = (self.clock.now() + SETTLE).max(self.earliest_look);
        self.next_look = self.next_look.min(soon);
    }

    /// Reads the network anew and tells the session.
    async fn look(&mut self) {
        let began = self.clock.now();
        let snapshot = self.watch.snapshot().await;
        let now = self.clock.now();
        self.earliest_look = now + (now - began) * LOOK_SHARE;
        self.next_look = now + LOOK_AGAIN;
        match snapshot {
            Ok(snapshot) => self.follow(&snapshot).await,
            Err(error) => tracing::warn!("cannot read the network interfaces: {error}"),
        }
    }

    async fn follow(&mut self, snapshot: &Snapshot) {
        self.forget_networks_left(snapshot);
        self.follow_link(snapshot);
        let links = link::candidates(snapshot, &self.preference());
        self.solicit(&links);
        self.discovery.observe(snapshot, &links);
        let mut facts = self.facts(snapshot);
        facts.ipv6_before = self.ipv6_before(snapshot).await;
        let effects = self.session.update(facts, self.clock.now());
        self.carry_out(effects).await;
        self.make_again(snapshot).await;
        self.say_if_foreign(snapshot);
        self.has_own_route = self.finds_own_route(snapshot);
        self.refresh_next_hop().await;
    }

    /// A person may have reasons for an address that is in no network of the link, but mostly it is
    /// of another link or of an earlier day, and nothing comes back to it.
    fn say_if_foreign(&mut self, snapshot: &Snapshot) {
        let session = &self.config.session;
        let is_link = session.identity.uplink == UplinkKind::Link;
        // Before that, the host may have no network there yet.
        let is_used = matches!(self.session.state(), State::Claiming(_) | State::Running(_));
        let configured = session.address.filter(|_| is_link && is_used);
        let foreign = configured
            .zip(self.link.as_ref())
            .and_then(|(address, link)| {
                let is_foreign = !link::has_own_route(snapshot, link.index, address);
                is_foreign.then(|| (address, link.name.clone()))
            });
        if foreign != self.foreign {
            if let Some((address, link)) = &foreign {
                tracing::warn!("{address} is in no network of {link}: nothing may come back to it");
            }
            self.foreign = foreign;
        }
    }

    /// Whether somebody has made a route to the prefix, other than a default route.
    fn finds_own_route(&self, snapshot: &Snapshot) -> bool {
        let (State::Claiming(settings) | State::Running(settings)) = self.session.state() else {
            return false;
        };
        let link = self.link.as_ref().map(|link| link.index);
        let link = link.unwrap_or_default();
        link::has_own_route(snapshot, link, probe_of(settings.prefix))
    }

    /// A link that went down, or is another one by the same index, may come up on another network:
    /// nothing that was learned there holds, whether or not it was in use.
    fn forget_networks_left(&mut self, snapshot: &Snapshot) {
        let running = link::running(snapshot);
        for left in self.running.iter().filter(|it| !running.contains(it)) {
            self.discovery.forget(left.index);
            self.solicited.retain(|index| *index != left.index);
        }
        self.running = running;
    }

    /// Asks the routers of links that have become candidates: those that are not in use, too, may
    /// be where the NAT64 is.
    fn solicit(&mut self, links: &[IfIndex]) {
        for link in links.iter().filter(|it| !self.solicited.contains(it)) {
            self.discovery.solicit(*link);
        }
        self.solicited = links.to_vec();
    }

    /// Chooses the link.
    fn follow_link(&mut self, snapshot: &Snapshot) {
        let preference = self.preference();
        let obstacle = link::obstacle(snapshot, &preference);
        let chosen = link::choose(snapshot, &preference, |it| self.offer(it));
        if obstacle != self.obstacle {
            if let Some(obstacle) = &obstacle {
                tracing::warn!("{obstacle}");
            }
            self.obstacle = obstacle;
        }
        if chosen == self.link {
            return;
        }
        if let Some(old) = std::mem::replace(&mut self.link, chosen) {
            self.discovery.set_manual(old.index, &[]);
        }
        if let Some(new) = &self.link {
            tracing::debug!("using {}", new.name);
            if let Some(prefix) = self.config.prefix {
                self.discovery.set_manual(new.index, &[prefix]);
            }
        }
    }

    fn offer(&self, interface: &Interface) -> Offer {
        // One that a person set is known to the discovery of the link in use only.
        let manual = self.config.prefix.map(|prefix| vec![prefix]);
        let prefixes = manual.unwrap_or_else(|| self.discovery.prefixes(interface.index));
        let addresses = link::addresses(interface);
        match self.session.could_use(&addresses, &prefixes) {
            true => Offer::Enough,
            false if prefixes.is_empty() => Offer::Nothing,
            false => Offer::Prefix,
        }
    }

    fn preference(&self) -> Preference<'_> {
        Preference {
            configured: self.config.interface.as_deref(),
            own: &self.config.session.identity.interface,
            current: self.link.as_ref().map(|link| link.index),
            ethernet: self.config.session.identity.uplink == UplinkKind::Link,
        }
    }

    fn facts(&self, snapshot: &Snapshot) -> Facts {
        let index = self.link.as_ref().map(|link| link.index);
        let interface = index.and_then(|index| snapshot.by_index(index));
        let own = &self.config.session.identity.interface;
        Facts {
            link: interface.filter(|it| it.running).map(link::describe),
            addresses: interface.map(link::addresses).unwrap_or_default(),
            prefixes: index.map_or_else(Vec::new, |index| self.discovery.prefixes(index)),
            live: index.map_or_else(Vec::new, |index| self.discovery.live(index)),
            native_ipv4: link::has_native_ipv4(snapshot, own, index),
            other_clat: link::other_clat(snapshot, own),
            ipv6_before: Ipv6Before::default(),
        }
    }

    /// How the host was, if it is to forward.
    async fn ipv6_before(&mut self, snapshot: &Snapshot) -> Ipv6Before {
        let identity = &self.config.session.identity;
        if identity.uplink == UplinkKind::Link {
            return Ipv6Before::default();
        }
        if (self.surroundings).follow(snapshot, &identity.interface) {
            self.look_soon();
        }
        self.surroundings.ipv6_before(&mut self.netcfg).await
    }

    /// Repairs what somebody else has taken away from a CLAT that runs.
    async fn make_again(&mut self, snapshot: &Snapshot) {
        let State::Running(settings) = self.session.state() else {
            return;
        };
        let own = &self.config.session.identity.interface;
        let now = self.clock.now();
        let in_place = link::is_in_place(snapshot, own, settings.instance.host());
        if in_place {
            return;
        }
        if now < self.earliest_make_again {
            self.next_look = self.next_look.min(self.earliest_make_again);
            return;
        }
        tracing::warn!("somebody has changed {own}, its address or its route: making it again");
        self.earliest_make_again = now + MAKE_AGAIN;
        if let Err(error) = self.netcfg.make_again().await {
            self.failed(&netcfg_failure(&error)).await;
        }
    }

    async fn failed(&mut self, what: &Failure) {
        let what = report::failure(what);
        tracing::error!("{what}");
        let effects = self.session.failed(what, self.clock.now());
        self.carry_out(effects).await;
    }

    async fn handle_event(&mut self, event: Event) {
        let now = self.clock.now();
        let effects = match event {
            Event::Assigned => {
                fault::point("address assigned");
                self.session.assigned()
            }
            Event::Duplicate(by) => {
                tracing::warn!("{by} has our IPv6 address");
                self.session.duplicate(by, now)
            }
            Event::Nudge(router) => return self.nudge(router).await,
            Event::Failed(what) => {
                tracing::warn!("{what}");
                self.session.broke(what, now)
            }
        };
        self.carry_out(effects).await;
        self.refresh_next_hop().await;
    }

    async fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut todo = std::collections::VecDeque::from(effects);
        while let Some(effect) = todo.pop_front() {
            let Err(what) = self.do_one(effect).await else {
                continue;
            };
            tracing::error!("{}", report::failure(&what));
            // What was still to do belongs to a state that was not reached. But what was to be
            // closed is closed.
            if todo.contains(&Effect::Release) {
                self.release();
            }
            let now = self.clock.now();
            todo = self.session.failed(report::failure(&what), now).into();
            if !self.has_worked && !self.link_is_gone().await {
                self.fatal.get_or_insert(what);
            }
        }
    }

    /// Whatever failed, it failed because the link went away meanwhile: that is no reason to end.
    async fn link_is_gone(&self) -> bool {
        let (Some(link), Ok(snapshot)) = (&self.link, self.watch.snapshot().await) else {
            return false;
        };
        !snapshot.by_index(link.index).is_some_and(|it| it.running)
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
            Effect::Release => self.release(),
            Effect::Report(state) => {
                self.has_worked |= matches!(state, State::Running(_));
                self.probe(&state);
                let link = self.link.as_ref().map(|link| link.name.as_str());
                tracing::info!("{}", report::state(&state, link));
                fault::point("state reported");
            }
        }
        Ok(())
    }

    /// Asks whether anything answers, when it begins to run (also with another address), and with
    /// each prefix that comes into use while it does.
    fn probe(&mut self, state: &State) {
        let State::Running(settings) = state else {
            self.reachability.stop();
            return;
        };
        let targets = &self.config.probe_targets;
        if targets.is_empty() || self.reachability.is_known(settings.prefix) {
            return;
        }
        let name = &self.config.session.identity.interface;
        let socket = self.host.echo_socket(name, settings.instance.host());
        match (socket, random()) {
            (Ok(socket), Ok(random)) => {
                let [a, b, ..] = random.to_ne_bytes();
                let own = (self.clock, u16::from_ne_bytes([a, b]));
                let targets = targets.clone();
                (self.reachability).start(settings.prefix, targets, socket, own);
            }
            (Err(error), _) => tracing::warn!("cannot ask whether anything answers: {error}"),
            (_, Err(failure)) => tracing::warn!("{}", report::failure(&failure)),
        }
    }

    fn claim(&mut self, link: &Link, settings: Settings) -> Result<(), Failure> {
        self.stop_dataplane();
        let tun = self.open_tun()?;
        fault::point("TUN opened");
        let uplink = match self.config.session.identity.uplink {
            UplinkKind::Routed => None,
            UplinkKind::Link => Some((
                self.open_uplink(link, &settings)?,
                claim_of(link, &settings)?,
            )),
        };
        fault::point("uplink opened");
        let engine = match self.engine.take() {
            Some(engine) => engine,
            None => Engine::new(&settings, (random()?, random()?)),
        };
        self.stats = Some(engine.stats());
        let surroundings = (self.clock, self.events.0.clone());
        let started = match uplink {
            None => Dataplane::start_routed(engine, tun, settings, surroundings),
            Some((uplink, claim)) => {
                Dataplane::start_on_link(engine, tun, uplink, claim, settings, surroundings)
            }
        };
        let dataplane = started.map_err(|error| Failure::io("cannot start a thread", &error))?;
        self.dataplane = Some(dataplane);
        fault::point("threads started");
        Ok(())
    }

    fn open_tun(&mut self) -> Result<Arc<dyn Tun>, Failure> {
        if let Some(tun) = &self.tun {
            return Ok(Arc::clone(tun));
        }
        let name = &self.config.session.identity.interface;
        let opened = self.host.tun(name);
        let tun = opened.map_err(|it| Failure::system(it.kind(), &it, it.hint()))?;
        self.tun = Some(Arc::clone(&tun));
        Ok(tun)
    }

    fn open_uplink(&self, link: &Link, settings: &Settings) -> Result<Arc<dyn Uplink>, Failure> {
        let opened = self.host.uplink(link.index, link.mac, settings.clat);
        opened.map_err(|error| {
            Failure::io(
                format_args!("cannot send and receive on {}", link.name),
                &error,
            )
            .permission_hint("run it as root, or give it CAP_NET_RAW and CAP_NET_ADMIN")
        })
    }

    fn release(&mut self) {
        self.stop_dataplane();
        self.tun = None;
    }

    fn stop_dataplane(&mut self) {
        if let Some(dataplane) = self.dataplane.take() {
            self.engine = dataplane.stop();
            if self.engine.is_none() {
                tracing::error!("a thread of the data path had failed; its counters start anew");
            }
        }
        // What the threads still said is about an address that is no longer used.
        self.events = unbounded_channel();
    }

    async fn nudge(&self, router: Ipv6Addr) {
        if let Some(link) = &self.link
            && let Err(error) = self.watch.nudge(link.index, router).await
        {
            tracing::debug!("the kernel does not use the entry of {router}: {error}");
        }
    }

    /// Tells the data path which router to send to.
    async fn refresh_next_hop(&self) {
        let (Some(dataplane), Some(link)) = (&self.dataplane, &self.link) else {
            return;
        };
        let (State::Claiming(settings) | State::Running(settings)) = self.session.state() else {
            return;
        };
        match self.find_next_hop(link.index, settings.prefix).await {
            Ok(next_hop) => {
                if let Some(unresolved) = next_hop.filter(|it| it.mac.is_none()) {
                    self.nudge(unresolved.router).await;
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
        let probe = probe_of(prefix);
        let routes = self.watch.gateways(link, probe).await?;
        let announcers = match self.has_own_route {
            true => Vec::new(),
            false => self.discovery.announcers(link, prefix),
        };
        let routers = self.discovery.routers(link);
        let routers: Vec<_> = routers
            .iter()
            .map(|router| next_hop::Router {
                address: router.address,
                mac: router.mac,
                announces: announcers.contains(&router.address),
            })
            .collect();
        let neighbours = self.watch.neighbours(link).await?;
        Ok(next_hop::choose(&routes, &routers, &neighbours))
    }

    fn report(&self) {
        if let Some(dataplane) = &self.dataplane {
            dataplane.count_overflows();
        }
        match &self.stats {
            Some(stats) => tracing::info!("so far\n{}", report::stats(stats)),
            None => tracing::info!("nothing was translated yet"),
        }
    }

    /// Takes everything back.
    async fn end(mut self) -> Result<Exit, Failure> {
        self.report();
        let undone = self.netcfg.apply(&plan::Plan::nothing()).await;
        fault::point("plan taken back");
        self.stop_dataplane();
        fault::point("threads stopped");
        undone.map_err(|error| netcfg_failure(&error))?;
        tracing::info!("ended, and everything is taken back");
        Ok(Exit::Ok)
    }
}

/// The virtual interface cannot have the name of a real one. One of another program with the same
/// name is found when ours is opened.
async fn check_name_is_free(watch: &impl Network, name: &str) -> Result<(), Failure> {
    let snapshot = watch.snapshot().await;
    let snapshot = snapshot.map_err(|error| Failure::io("cannot read the interfaces", &error))?;
    let is_real = snapshot.by_name(name).is_some_and(|it| it.mac.is_some());
    if !is_real {
        return Ok(());
    }
    let what = format_args!("{name} is an interface of this host already");
    Err(Failure::new(Exit::Usage, what).hint("choose another name with --tun, or none"))
}

async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => pending().await,
    }
}

/// Any address in the prefix will do; this one is never a destination.
fn probe_of(prefix: Pref64) -> Ipv6Addr {
    prefix.embed(pref64::well_known_name::ADDRESSES[0])
}

/// How the address is claimed on the link.
fn claim_of(link: &Link, settings: &Settings) -> Result<l2::link::Config, Failure> {
    let [a, b, c, d, e, f, ..] = random()?.to_ne_bytes();
    Ok(l2::link::Config {
        address: settings.clat,
        mac: link.mac,
        probes: 1,
        nonce: [a, b, c, d, e, f],
        delay: Duration::ZERO,
    })
}

fn random() -> Result<u64, Failure> {
    getrandom::u64().map_err(|error| Failure::error(format_args!("no randomness: {error}")))
}

/// A failure of `netcfg`, for people.
pub(crate) fn netcfg_failure(error: &netcfg::Error) -> Failure {
    Failure::system(error.kind(), error, error.hint())
}

#[cfg(test)]
mod tests;
