//! [`Session`]: when the CLAT of one interface is on, and with which address and prefix.
//!
//! Level-triggered: whoever watches the host passes what is true now ([`Facts`]) as often as
//! anything may have changed, and carries out the [`Effect`]s in order. The session compares, and
//! asks for nothing that is so already.
//!
//! ```text
//!                 ┌──────────── facts allow it ────────────┐
//!                 │                                        ▼
//!  Offline ── NativeIpv4 ── NoNat64* ── NoAddress*     Claiming ── assigned ──> Running
//!                 ▲                                     │    ▲                   │
//!                 │                       three conflicts    └── duplicate ──────┤
//!                 │                                     ▼                        │
//!                 └──── facts forbid it ──── Backoff <──┘    facts forbid it ────┘
//!
//!  * OwnPrefix or AddressInUse, if there is one that cannot be used
//! ```

use core::{net::Ipv6Addr, time::Duration};
use std::time::Instant;

use plan::{Ipv6Before, Plan};
use pref64::{Length, Pref64, siit::NonGlobal};
use wire::ethernet::Mac;
pub use xlat::config::ErrorPolicy;

use crate::{
    address::{HostAddress, choose_network, network_of, neutral_address},
    engine::Settings,
    flows::MAX_RETAINED,
    host_plan::{self, Identity},
    mapping::Instance,
};

/// After this many conflicts in a row the link is left alone for [`BACKOFF`] (RFC 7217 §7:
/// `IDGEN_RETRIES`).
pub const MAX_CONFLICTS: u8 = 3;

/// Conflicts are in a row if each follows the one before within this time, whether or not an
/// address was in use between them: where something contests every address, moving on each time
/// would break connections without end.
pub const CONFLICT_MEMORY: Duration = Duration::from_secs(300);

/// How long the session waits after it could not get what it wanted.
pub const BACKOFF: Duration = Duration::from_secs(60);

/// When the CLAT should be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// On a network without native IPv4 (draft-ietf-v6ops-claton).
    Auto,
    /// Beside native IPv4 too, which stays the better route.
    Always,
}

/// What a person or policy decided.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which of the host's CLATs this is.
    pub instance: Instance,
    /// Its virtual interface and route metric.
    pub identity: Identity,
    /// When it should be on.
    pub mode: Mode,
    /// An IPv6 address to take instead of a chosen one.
    pub address: Option<Ipv6Addr>,
    /// See [`Settings::fragment_above`].
    pub fragment_above: u16,
    /// See [`Settings::wkp_non_global`].
    pub wkp_non_global: NonGlobal,
    /// See [`Settings::errors`].
    pub errors: ErrorPolicy,
}

/// The IPv6 link the CLAT is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its link-layer address.
    pub mac: Mac,
    /// Bytes per IPv6 packet: the smaller of the link's and the router's.
    pub mtu: u16,
}

impl Link {
    /// Whether an address claimed on the one is claimed on the other. Neighbours know it by the
    /// link-layer address, and the system its socket by the index; the name is for routes.
    fn is_same(&self, other: &Self) -> bool {
        (self.index, self.mac, &self.name) == (other.index, other.mac, &other.name)
    }
}

/// What is true of the interface and the host right now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The link, if it is up.
    pub link: Option<Link>,
    /// The host's own IPv6 addresses on it.
    pub addresses: Vec<HostAddress>,
    /// The NAT64 prefixes for new flows on it, best first.
    pub prefixes: Vec<Pref64>,
    /// Every NAT64 prefix that still holds on it, as flows that began earlier may need it.
    pub live: Vec<Pref64>,
    /// The host has an IPv4 default route to a network: neither the CLAT's nor a tunnel's.
    pub native_ipv4: bool,
    /// Another interface that has an address of 192.0.0.0/29 and had it first.
    pub other_clat: Option<String>,
    /// What it did with IPv6 before it was made to forward. Of no matter if the address is on the
    /// link.
    pub ipv6_before: Ipv6Before,
}

/// Where the session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The link is down or gone.
    Offline,
    /// Native IPv4 is there.
    NativeIpv4,
    /// This interface is another CLAT's: a host has one user of 192.0.0.0/29 (RFC 7335 §4).
    OtherClat(String),
    /// The network announces no NAT64 prefix.
    NoNat64,
    /// The only prefix is one that the host's own addresses lie in. They would be taken for peers,
    /// and peers for neighbours: the prefixes of the two sides must differ (RFC 6877 §6.3).
    OwnPrefix(Pref64),
    /// The host has no IPv6 address in a /64 yet.
    NoAddress,
    /// The address that was configured is the host's own. Sharing it would take state per flow: the
    /// host's flows to the prefix and the CLAT's would be mistaken for each other (RFC 6877 §6.3).
    AddressInUse(Ipv6Addr),
    /// The address is being checked for duplicates.
    Claiming(Settings),
    /// Packets are translated.
    Running(Settings),
    /// Something failed; the next attempt is at `until`.
    Backoff {
        /// When to try again.
        until: Instant,
        /// What failed.
        problem: Problem,
    },
}

/// Why the session waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Every address that was tried belongs to somebody else: a loop in the network, or an attack.
    AddressConflicts {
        /// The last address that was tried.
        address: Ipv6Addr,
        /// Who answered for it.
        by: Mac,
    },
    /// The system refused something; this is what it said.
    Host(String),
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start (over) on this link with this address: open what must be open, check the address for
    /// duplicates, and translate with these settings once it is ours.
    Claim {
        /// The link.
        link: Link,
        /// The address among them.
        settings: Settings,
    },
    /// Use these settings from the next packet on.
    Configure(Settings),
    /// Make the host's network so.
    Apply(Plan),
    /// Close what [`Effect::Claim`] opened.
    Release,
    /// The state changed; for the log.
    Report(State),
}

/// The state machine.
#[derive(Debug)]
pub struct Session {
    config: Config,
    facts: Facts,
    state: State,
    /// The link that the address was claimed on.
    claimed_on: Option<Link>,
    /// Prefixes that new flows went by on that link, the last one first.
    used: Vec<Pref64>,
    /// In a row, and when the last one was.
    conflicts: (u8, Option<Instant>),
    /// When something that had worked broke last.
    broke: Option<Instant>,
    /// An effect failed, so something of ours may be left on the host.
    unclean: bool,
    /// Applications have a route: there was an address, and it is at most being replaced.
    visible: bool,
    random: u64,
}

/// What translation needs, when the facts allow it.
struct Target {
    link: Link,
    network: Ipv6Addr,
    prefix: Pref64,
}

impl Session {
    /// A session that knows nothing yet. `seed` must be random.
    #[must_use]
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            config,
            facts: Facts::default(),
            state: State::Offline,
            claimed_on: None,
            used: Vec::new(),
            conflicts: (0, None),
            broke: None,
            unclean: false,
            visible: false,
            random: seed,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Backoff { until, .. } => Some(until),
            State::Offline
            | State::NativeIpv4
            | State::OtherClat(_)
            | State::NoNat64
            | State::OwnPrefix(_)
            | State::NoAddress
            | State::AddressInUse(_)
            | State::Claiming(_)
            | State::Running(_) => None,
        }
    }

    /// Tries again what failed.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Effect> {
        if self.poll_timeout().is_none_or(|until| until > now) {
            return Vec::new();
        }
        self.conflicts = (0, None);
        self.step(now)
    }

    /// This is true now.
    pub fn update(&mut self, facts: Facts, now: Instant) -> Vec<Effect> {
        let moved = match (&self.facts.link, &facts.link) {
            (Some(before), Some(now)) => !before.is_same(now),
            (before, now) => before.is_some() != now.is_some(),
        };
        let others = self.facts.ipv6_before != facts.ipv6_before;
        self.facts = facts;
        if moved {
            // Another link may be another network.
            self.conflicts = (0, None);
            self.end_backoff(now);
        }
        let effects = self.step(now);
        if effects.is_empty() && others {
            return self.apply_again();
        }
        effects
    }

    /// The plan, for a host whose other interfaces have changed.
    fn apply_again(&self) -> Vec<Effect> {
        let settings = self.settings_in_use().filter(|_| self.visible);
        let plan = settings.map(|it| Effect::Apply(self.running_plan(it)));
        plan.into_iter().collect()
    }

    /// Nobody else has the address.
    pub fn assigned(&mut self) -> Vec<Effect> {
        let State::Claiming(settings) = &self.state else {
            return Vec::new();
        };
        let settings = settings.clone();
        self.visible = true;
        let plan = self.running_plan(&settings);
        let mut effects = vec![Effect::Apply(plan)];
        effects.extend(self.enter(State::Running(settings)));
        effects
    }

    /// Somebody else has the address.
    pub fn duplicate(&mut self, by: Mac, now: Instant) -> Vec<Effect> {
        let (State::Claiming(settings) | State::Running(settings)) = &self.state else {
            return Vec::new();
        };
        let address = settings.clat;
        if self.count_conflict(now) >= MAX_CONFLICTS || self.config.address.is_some() {
            let mut effects = self.let_go();
            effects.extend(self.back_off(Problem::AddressConflicts { address, by }, now));
            return effects;
        }
        match self.target() {
            Ok(target) => self.claim(&target),
            Err(idle) => self.idle(idle),
        }
    }

    fn count_conflict(&mut self, now: Instant) -> u8 {
        let (before, last) = self.conflicts;
        let in_a_row = last.is_some_and(|at| now.saturating_duration_since(at) < CONFLICT_MEMORY);
        let count = if in_a_row {
            before.saturating_add(1)
        } else {
            1
        };
        self.conflicts = (count, Some(now));
        count
    }

    /// The system refused an effect; the effects after it were not carried out.
    pub fn failed(&mut self, what: String, now: Instant) -> Vec<Effect> {
        let mut effects = if matches!(self.state, State::Backoff { .. }) {
            // It was letting go that failed: again now would be without end.
            Vec::new()
        } else {
            self.let_go()
        };
        if effects.is_empty() {
            // Closing cannot fail, and nothing is translated after it.
            effects.push(Effect::Release);
        }
        self.unclean = true;
        effects.extend(self.back_off(Problem::Host(what), now));
        effects
    }

    /// Something that had worked has broken: somebody deleted the interface. Once, it is made again
    /// at once; somebody who does it again soon is not fought.
    pub fn broke(&mut self, what: String, now: Instant) -> Vec<Effect> {
        let before = self.broke.replace(now);
        let again = before.is_some_and(|at| now.saturating_duration_since(at) < BACKOFF);
        match self.target() {
            Ok(target) if !again => {
                let mut effects = self.let_go();
                effects.extend(self.claim(&target));
                effects
            }
            _ => self.failed(what, now),
        }
    }

    fn step(&mut self, now: Instant) -> Vec<Effect> {
        let waiting = self.poll_timeout().is_some_and(|until| until > now);
        match self.target() {
            Err(_) if waiting && self.unclean => Vec::new(),
            Err(idle) => self.idle(idle),
            Ok(_) if waiting => Vec::new(),
            Ok(target) => self.pursue(&target),
        }
    }

    fn pursue(&mut self, target: &Target) -> Vec<Effect> {
        match self.settings_in_use() {
            Some(old) if self.still_fits(old, target) => {
                let settings = self.settings(target, old.clat);
                self.adjust(settings)
            }
            _ => self.claim(target),
        }
    }

    /// What translation needs, or the state that says what is missing.
    fn target(&self) -> Result<Target, State> {
        let link = self.facts.link.clone().ok_or(State::Offline)?;
        if self.facts.native_ipv4 && self.config.mode == Mode::Auto {
            return Err(State::NativeIpv4);
        }
        if let Some(interface) = &self.facts.other_clat {
            return Err(State::OtherClat(interface.clone()));
        }
        let (network, prefix) = self.place(&self.facts.addresses, &self.facts.prefixes)?;
        Ok(Target {
            link,
            network,
            prefix,
        })
    }

    /// Whether a link is one to translate on, by the host's `addresses` and the NAT64 `prefixes` on
    /// it: whether there is, or could be, an address to claim there.
    #[must_use]
    pub fn could_use(&self, addresses: &[HostAddress], prefixes: &[Pref64]) -> bool {
        self.place(addresses, prefixes).is_ok()
    }

    /// The network of the CLAT's address and the prefix, or the state that says what is missing.
    fn place(
        &self,
        addresses: &[HostAddress],
        prefixes: &[Pref64],
    ) -> Result<(Ipv6Addr, Pref64), State> {
        let prefix = self.prefix(addresses, prefixes)?;
        let in_use = self.settings_in_use().map(|settings| settings.clat);
        let network = match self.config.address {
            Some(address) if has(addresses, address) => return Err(State::AddressInUse(address)),
            Some(address) => address,
            None => choose_network(addresses, prefix, in_use).ok_or(State::NoAddress)?,
        };
        Ok((network, prefix))
    }

    /// The best prefix that does not contain the host.
    fn prefix(&self, addresses: &[HostAddress], prefixes: &[Pref64]) -> Result<Pref64, State> {
        let first = prefixes.first().ok_or(State::NoNat64)?;
        let mut others = prefixes.iter();
        let other = others.find(|prefix| !self.is_inside(addresses, **prefix));
        other.copied().ok_or(State::OwnPrefix(*first))
    }

    /// Whether this host lies where `prefix` has its peers.
    fn is_inside(&self, addresses: &[HostAddress], prefix: Pref64) -> bool {
        let hosts = addresses.iter().map(|it| it.address);
        hosts
            .chain(self.config.address)
            .any(|address| is_among_peers(address, prefix))
    }

    /// Whether the address in use may stay: the prefix may change under it (checksums are updated
    /// then), the network may not, and nor may the link, which has its own neighbours.
    fn still_fits(&self, settings: &Settings, target: &Target) -> bool {
        let claimed_on = self.claimed_on.as_ref();
        claimed_on.is_some_and(|it| it.is_same(&target.link))
            && network_of(settings.clat) == network_of(target.network)
            && !self.is_hosts(settings.clat)
    }

    fn is_hosts(&self, address: Ipv6Addr) -> bool {
        has(&self.facts.addresses, address)
    }

    fn settings(&self, target: &Target, clat: Ipv6Addr) -> Settings {
        Settings {
            instance: self.config.instance,
            clat,
            prefix: target.prefix,
            retained: self.retained(target.prefix),
            ipv6_mtu: target.link.mtu,
            fragment_above: self.config.fragment_above,
            wkp_non_global: self.config.wkp_non_global,
            errors: self.config.errors,
        }
    }

    /// What flows may have begun under, apart from `prefix`, and still holds.
    fn retained(&self, prefix: Pref64) -> Vec<Pref64> {
        let used = self.used.iter().copied();
        let Facts {
            live, addresses, ..
        } = &self.facts;
        used.filter(|it| *it != prefix && live.contains(it) && !self.is_inside(addresses, *it))
            .take(MAX_RETAINED)
            .collect()
    }

    /// New flows go by `prefix`.
    fn note_use(&mut self, prefix: Pref64) {
        let live = &self.facts.live;
        self.used.retain(|it| *it != prefix && live.contains(it));
        self.used.insert(0, prefix);
        self.used.truncate(1 + MAX_RETAINED);
    }

    fn settings_in_use(&self) -> Option<&Settings> {
        match &self.state {
            State::Claiming(settings) | State::Running(settings) => Some(settings),
            State::Offline
            | State::NativeIpv4
            | State::OtherClat(_)
            | State::NoNat64
            | State::OwnPrefix(_)
            | State::NoAddress
            | State::AddressInUse(_)
            | State::Backoff { .. } => None,
        }
    }

    /// The address stays, the rest may have changed.
    fn adjust(&mut self, settings: Settings) -> Vec<Effect> {
        if self.settings_in_use() == Some(&settings) {
            return Vec::new();
        }
        self.note_use(settings.prefix);
        let mut effects = vec![Effect::Configure(settings.clone())];
        if self.visible {
            effects.push(Effect::Apply(self.running_plan(&settings)));
        }
        let state = if matches!(self.state, State::Running(_)) {
            State::Running(settings)
        } else {
            State::Claiming(settings)
        };
        effects.extend(self.enter(state));
        effects
    }

    fn claim(&mut self, target: &Target) -> Vec<Effect> {
        let is_same = |link: &Link| link.is_same(&target.link);
        if !self.claimed_on.as_ref().is_some_and(is_same) {
            // Another network, whose PLAT knows none of the flows.
            self.used.clear();
        }
        let clat = self.choose_address(target);
        let settings = self.settings(target, clat);
        self.note_use(settings.prefix);
        self.claimed_on = Some(target.link.clone());
        // The new plan replaces whatever was left.
        self.unclean = false;
        // Applications keep their route over a change of address.
        let plan = if self.visible {
            self.running_plan(&settings)
        } else {
            host_plan::while_claiming(&self.config.identity, clat)
        };
        let mut effects = vec![
            Effect::Claim {
                link: target.link.clone(),
                settings: settings.clone(),
            },
            Effect::Apply(plan),
        ];
        effects.extend(self.enter(State::Claiming(settings)));
        effects
    }

    fn running_plan(&self, settings: &Settings) -> Plan {
        host_plan::while_running(&self.config.identity, settings, &self.facts.ipv6_before)
    }

    fn choose_address(&mut self, target: &Target) -> Ipv6Addr {
        if let Some(address) = self.config.address {
            return address;
        }
        loop {
            let random = self.next_random();
            let instance = self.config.instance;
            let candidate = neutral_address(target.network, instance, target.prefix, random);
            if let Some(address) = candidate.filter(|it| !self.is_hosts(*it)) {
                return address;
            }
        }
    }

    /// splitmix64.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.random;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn idle(&mut self, idle: State) -> Vec<Effect> {
        let mut effects = self.let_go();
        effects.extend(self.enter(idle));
        effects
    }

    fn back_off(&mut self, problem: Problem, now: Instant) -> Option<Effect> {
        let until = now + BACKOFF;
        self.enter(State::Backoff { until, problem })
    }

    /// The next step does not wait.
    fn end_backoff(&mut self, now: Instant) {
        if let State::Backoff { until, .. } = &mut self.state {
            *until = now.min(*until);
        }
    }

    fn let_go(&mut self) -> Vec<Effect> {
        self.visible = false;
        self.claimed_on = None;
        self.used.clear();
        let unclean = std::mem::take(&mut self.unclean);
        if self.settings_in_use().is_none() && !unclean {
            return Vec::new();
        }
        vec![Effect::Apply(Plan::nothing()), Effect::Release]
    }

    fn enter(&mut self, state: State) -> Option<Effect> {
        if self.state == state {
            return None;
        }
        self.state = state.clone();
        Some(Effect::Report(state))
    }
}

fn has(addresses: &[HostAddress], address: Ipv6Addr) -> bool {
    addresses.iter().any(|it| it.address == address)
}

/// Whether the network of `address` is that of peers under `prefix`. None is in 0.0.0.0/8: that part
/// of a short prefix is free for hosts.
fn is_among_peers(address: Ipv6Addr, prefix: Pref64) -> bool {
    let is_short = prefix.length() < Length::L64;
    let peer = prefix.extract(address);
    peer.is_some_and(|peer| !(is_short && peer.octets()[0] == 0))
}

#[cfg(test)]
mod tests;
