//! [`Session`]: when the CLAT of one interface is on, and with which address and prefix.
//!
//! Level-triggered: whoever watches the host passes what is true now ([`Facts`]) as often as
//! anything may have changed, and carries out the [`Effect`]s in order. The session compares, and
//! asks for nothing that is so already.
//!
//! ```text
//!                 ┌──────────── facts allow it ────────────┐
//!                 │                                        ▼
//!  Offline ── NativeIpv4 ── NoNat64 ── NoAddress*      Claiming ── assigned ──> Running
//!                 ▲                                     │    ▲                   │
//!                 │                       three conflicts    └── duplicate ──────┤
//!                 │                                     ▼                        │
//!                 └──── facts forbid it ──── Backoff <──┘    facts forbid it ────┘
//!
//!  * AddressInUse, if the address is a configured one
//! ```

use core::{net::Ipv6Addr, time::Duration};
use std::time::Instant;

use plan::Plan;
use pref64::{Pref64, siit::NonGlobal};
use wire::ethernet::Mac;
pub use xlat::config::ErrorPolicy;

use crate::{
    address::{HostAddress, choose_network, neutral_address},
    engine::Settings,
    host_plan::{self, Identity},
    mapping::Instance,
};

/// After this many conflicts in a row the link is left alone for [`BACKOFF`] (RFC 7217 §7:
/// `IDGEN_RETRIES`).
pub const MAX_CONFLICTS: u8 = 3;

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

/// What is true of the interface and the host right now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The link, if it is up.
    pub link: Option<Link>,
    /// The host's own IPv6 addresses on it.
    pub addresses: Vec<HostAddress>,
    /// The NAT64 prefixes in force on it, best first.
    pub prefixes: Vec<Pref64>,
    /// The host has an IPv4 default route that is not the CLAT's.
    pub native_ipv4: bool,
}

/// Where the session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The link is down or gone.
    Offline,
    /// Native IPv4 is there.
    NativeIpv4,
    /// The network announces no NAT64 prefix.
    NoNat64,
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
    conflicts: u8,
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
            conflicts: 0,
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
            | State::NoNat64
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
        self.conflicts = 0;
        self.state = State::Offline;
        self.step(now)
    }

    /// This is true now.
    pub fn update(&mut self, facts: Facts, now: Instant) -> Vec<Effect> {
        let link = |facts: &Facts| facts.link.as_ref().map(|link| link.index);
        let moved = link(&self.facts) != link(&facts);
        self.facts = facts;
        if moved && matches!(self.state, State::Backoff { .. }) {
            // Another link may be another network.
            self.conflicts = 0;
            self.state = State::Offline;
        }
        self.step(now)
    }

    /// Nobody else has the address.
    pub fn assigned(&mut self) -> Vec<Effect> {
        let State::Claiming(settings) = &self.state else {
            return Vec::new();
        };
        let settings = settings.clone();
        self.conflicts = 0;
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
        self.conflicts += 1;
        if self.conflicts >= MAX_CONFLICTS || self.config.address.is_some() {
            return self.back_off(Problem::AddressConflicts { address, by }, now);
        }
        match self.target() {
            Ok(target) => self.claim(&target),
            Err(idle) => self.idle(idle),
        }
    }

    /// The system refused an effect.
    pub fn failed(&mut self, what: String, now: Instant) -> Vec<Effect> {
        self.back_off(Problem::Host(what), now)
    }

    fn step(&mut self, now: Instant) -> Vec<Effect> {
        let target = match self.target() {
            Ok(target) => target,
            Err(idle) => return self.idle(idle),
        };
        if self.poll_timeout().is_some_and(|until| until > now) {
            return Vec::new();
        }
        match self.settings_in_use() {
            Some(old) if self.still_fits(old, &target) => {
                let settings = self.settings(&target, old.clat);
                self.adjust(settings)
            }
            _ => self.claim(&target),
        }
    }

    /// What translation needs, or the state that says what is missing.
    fn target(&self) -> Result<Target, State> {
        let link = self.facts.link.clone().ok_or(State::Offline)?;
        if self.facts.native_ipv4 && self.config.mode == Mode::Auto {
            return Err(State::NativeIpv4);
        }
        let prefix = *self.facts.prefixes.first().ok_or(State::NoNat64)?;
        let network = match self.config.address {
            Some(address) if self.is_hosts(address) => return Err(State::AddressInUse(address)),
            Some(address) => address,
            None => choose_network(&self.facts.addresses, prefix).ok_or(State::NoAddress)?,
        };
        Ok(Target {
            link,
            network,
            prefix,
        })
    }

    /// Whether the address in use is still one that would be chosen: the prefix may change under
    /// it (checksums are updated then), the network may not.
    fn still_fits(&self, settings: &Settings, target: &Target) -> bool {
        let network = |address: Ipv6Addr| address.to_bits() >> 64;
        network(settings.clat) == network(target.network) && !self.is_hosts(settings.clat)
    }

    fn is_hosts(&self, address: Ipv6Addr) -> bool {
        self.facts.addresses.iter().any(|it| it.address == address)
    }

    fn settings(&self, target: &Target, clat: Ipv6Addr) -> Settings {
        Settings {
            instance: self.config.instance,
            clat,
            prefix: target.prefix,
            ipv6_mtu: target.link.mtu,
            fragment_above: self.config.fragment_above,
            wkp_non_global: self.config.wkp_non_global,
            errors: self.config.errors,
        }
    }

    fn settings_in_use(&self) -> Option<&Settings> {
        match &self.state {
            State::Claiming(settings) | State::Running(settings) => Some(settings),
            State::Offline
            | State::NativeIpv4
            | State::NoNat64
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
        let clat = self.choose_address(target);
        let settings = self.settings(target, clat);
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
        let link = self.facts.link.as_ref();
        let name = link.map(|link| link.name.as_str()).unwrap_or_default();
        host_plan::while_running(&self.config.identity, settings, name)
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

    fn back_off(&mut self, problem: Problem, now: Instant) -> Vec<Effect> {
        let mut effects = self.let_go();
        let until = now + BACKOFF;
        effects.extend(self.enter(State::Backoff { until, problem }));
        effects
    }

    fn let_go(&mut self) -> Vec<Effect> {
        self.visible = false;
        match self.settings_in_use() {
            Some(_) => vec![Effect::Apply(Plan::nothing()), Effect::Release],
            None => Vec::new(),
        }
    }

    fn enter(&mut self, state: State) -> Option<Effect> {
        if self.state == state {
            return None;
        }
        self.state = state.clone();
        Some(Effect::Report(state))
    }
}

#[cfg(test)]
mod tests;
