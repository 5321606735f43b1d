//! [`Engine`]: the steps of RFC 6146 §3 in order, around the translator.

use core::{
    net::{Ipv4Addr, Ipv6Addr},
    num::NonZeroU8,
    ops::Range,
};
use std::time::{Duration, Instant};

use pref64::{
    Pref64,
    siit::{Hairpin, NonGlobal, Siit},
    special::is_global,
};
use wire::{icmp::v6, ipv4::Ipv4, ipv6::Ipv6, packet::PacketBuf, pieces::Pieces, verdict::Verdict};
use xlat::{
    V4ToV6, V6ToV4,
    icmp_error::Message,
    key::Key,
    reassembly::{self, Family, Outcome, Reassembly},
};

use crate::{
    bib::Binding,
    config::{Config, ConfigError, UnexpectedSyn},
    destinations::Destinations,
    dispatch::{Dispatch, Part, Passage, ShardId, Stage},
    filtering_and_updating::Tables,
    incoming_tuple::{self, Incoming, Refused, refused},
    journal::{Change, Refusal, SessionRecord},
    network6::Network6,
    outgoing_tuple::{self, Outgoing},
    reason::{DropReason, Why},
    reconfigure::own_ipv4,
    refused::RefusedList,
    session::Tick,
    stateless::{Claim, Stateless, Way, is_icmp_fragment_v4},
    stats::Stats,
    tuple::{Endpoint4, Endpoint6, Protocol, Tuple},
};

/// A stateful NAT64.
#[derive(Debug)]
pub struct Engine {
    pub(crate) prefixes: Vec<Pref64>,
    clients: Vec<Network6>,
    /// Whoever was refused because it is not one of `clients`. Apart from those who are: what strangers
    /// invent does not push them out of a list.
    strangers: RefusedList,
    destinations: Destinations,
    wkp_non_global: NonGlobal,
    own_ipv6: Ipv6Addr,
    unexpected_syn: UnexpectedSyn,
    answer_unexpected: bool,
    pub(crate) tables: Tables,
    /// Each side has its own: a flood from one does not take the memory of the other.
    fragments_v6: Reassembly,
    fragments_v4: Reassembly,
    v6_to_v4: V6ToV4,
    /// For packets that are turned around: their next IPv4 hop is this engine, which takes any size.
    v6_to_here: V6ToV4,
    v4_to_v6: V4ToV6,
    pub(crate) stateless: Stateless,
    stats: Stats,
    epoch: Instant,
    pub(crate) part: Part,
}

impl Engine {
    /// A NAT64 without any session. `key` must be random: it keeps outsiders from choosing
    /// addresses that collide in the tables, and from foretelling ports.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(config: Config, key: [u8; 16], now: Instant) -> Result<Self, ConfigError> {
        Self::for_shard(config, key, NonZeroU8::MIN, ShardId::FIRST, now)
    }

    /// One of several shards of a NAT64. They are given the same configuration, of whose pool and
    /// limits each takes its share, the same `key`, and the same time.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn for_shard(
        config: Config,
        key: [u8; 16],
        shards: NonZeroU8,
        shard: ShardId,
        now: Instant,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        let dispatch = Dispatch::new(&config, key, shards);
        let part = Part { shard, dispatch };
        let key = Key::new(key);
        let (translation, here) = translations(&config, &part)?;
        let tables = Tables::new(&config, &part, key, now);
        Ok(Self {
            v6_to_v4: V6ToV4::new(translation.clone(), key.hash(&[b"v6-to-v4"]))
                .with_identifications(part.identifications()),
            v6_to_here: V6ToV4::new(here, key.hash(&[b"v6-to-here"]))
                .with_identifications(part.identifications()),
            v4_to_v6: V4ToV6::new(translation, key.hash(&[b"v4-to-v6"]))
                .with_identifications(part.identifications()),
            fragments_v6: Reassembly::new(key, config.timers.fragment, fragments(&config, &part)),
            fragments_v4: Reassembly::new(key, config.timers.fragment, fragments(&config, &part)),
            stateless: stateless(&config),
            clients: config.clients,
            strangers: RefusedList::new(key),
            destinations: Destinations {
                allowed: config.allow_destinations,
                own: config.own_addresses,
            },
            prefixes: config.prefixes,
            wkp_non_global: config.wkp_non_global,
            own_ipv6: config.own_ipv6,
            unexpected_syn: config.tcp.unexpected_syn,
            answer_unexpected: config.filtering.answer,
            stats: Stats {
                tables: tables.stats.clone(),
                ..Stats::default()
            },
            tables,
            epoch: now,
            part,
        })
    }

    /// Everything but the tables goes on with `config`.
    ///
    /// # Errors
    /// [`ConfigError`]; nothing has changed then.
    pub(crate) fn settle(&mut self, config: Config) -> Result<(), ConfigError> {
        let (translation, here) = translations(&config, &self.part)?;
        self.v6_to_v4.set_config(translation.clone());
        self.v6_to_here.set_config(here);
        self.v4_to_v6.set_config(translation);
        let limits = fragments(&config, &self.part);
        for fragments in [&mut self.fragments_v6, &mut self.fragments_v4] {
            fragments.set_limits(config.timers.fragment, limits);
        }
        self.stateless = stateless(&config);
        self.clients = config.clients;
        self.destinations = Destinations {
            allowed: config.allow_destinations,
            own: config.own_addresses,
        };
        self.prefixes = config.prefixes;
        self.wkp_non_global = config.wkp_non_global;
        self.own_ipv6 = config.own_ipv6;
        self.unexpected_syn = config.tcp.unexpected_syn;
        self.answer_unexpected = config.filtering.answer;
        Ok(())
    }

    /// What is counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats.clone()
    }

    /// How many bindings and sessions there are.
    #[must_use]
    pub fn table_sizes(&self) -> (usize, usize) {
        self.tables.len()
    }

    /// The bindings there are, in no order.
    pub fn bindings(&self) -> impl Iterator<Item = &Binding> {
        self.tables.bindings()
    }

    /// The sessions there are, in no order.
    pub fn session_records(&self) -> impl Iterator<Item = SessionRecord> {
        self.tables.session_records()
    }

    /// How many of these have a session: each the protocol, the client (X',x) and the server (Z,z).
    /// Nothing is refreshed. Looked up together, 32 at a time, they wait for memory together, which
    /// takes a fraction of the time that they take one by one once the tables are larger than the
    /// processor's caches.
    #[must_use]
    pub fn look_up(&self, ends: &[(Protocol, Endpoint6, Endpoint4)]) -> usize {
        self.tables.look_up(ends)
    }

    /// The addresses of the memory of bindings, sessions and their indexes, as far as it is in use.
    /// It stays where it is as long as the engine lives, so huge pages are worth their making.
    #[must_use]
    pub fn table_memory(&self) -> Vec<Range<usize>> {
        let Tables { bib, sessions, .. } = &self.tables;
        bib.memory().chain(sessions.memory()).collect()
    }

    /// How many ports of `protocol` are free in the pool.
    #[must_use]
    pub fn free_ports(&self, protocol: Protocol) -> usize {
        self.tables.pool().free(protocol)
    }

    /// The host's own addresses have changed: no client may reach them.
    pub fn set_own_addresses(&mut self, addresses: Vec<Ipv4Addr>) {
        self.destinations.own = addresses;
    }

    /// From now on changes of the tables are kept until [`Self::drain_changes`], up to `capacity` of
    /// them (about 80 bytes each); `None` ends it. It begins with nobody listening.
    pub fn keep_changes(&mut self, capacity: Option<usize>) {
        self.tables.journal().listen(capacity);
    }

    /// Tells of the changes since the last time, in their order.
    pub fn drain_changes(&mut self, told: impl FnMut(Change)) {
        self.tables.journal().drain(told);
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let sessions = self
            .tables
            .next_due()
            .map(|tick| self.epoch + Duration::from_secs(tick.into()));
        let fragments = [&self.fragments_v6, &self.fragments_v4].map(Reassembly::next_expiry);
        fragments.into_iter().chain([sessions]).flatten().min()
    }

    /// Ends what is over. Every packet does so first: what was over while the machine slept is not
    /// brought back to life by whoever speaks first afterwards.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tables.expire(self.tick(now));
        let elapsed = now.saturating_duration_since(self.epoch);
        self.tables.subscribers.set_now(elapsed);
        let Self {
            fragments_v6,
            fragments_v4,
            stats,
            ..
        } = self;
        for fragments in [fragments_v6, fragments_v4] {
            fragments.expire(now, |family, reason| match family {
                Family::V4 => stats.from_v4.dropped_by_translation.count(reason),
                Family::V6 => stats.from_v6.dropped_by_translation.count(reason),
            });
        }
    }

    pub(crate) fn tick(&self, now: Instant) -> Tick {
        let elapsed = now.saturating_duration_since(self.epoch).as_secs();
        Tick::try_from(elapsed).unwrap_or(Tick::MAX / 2)
    }

    fn client_packet(
        &mut self,
        buf: &mut PacketBuf,
        now: Instant,
    ) -> Result<Verdict<Why>, Passage> {
        if let Err(Refused { why, answer }) = self.admit_v6(buf) {
            self.note_stranger(buf, why, now);
            return Ok(match answer {
                Some(message) => self.v6_to_v4.reply(buf, why, message, now),
                None => Verdict::Drop(why),
            });
        }
        if let Some(verdict) = self.v6_to_v4.veto(buf, now) {
            return Ok(verdict.map_reason(Why::from));
        }
        let claim = self.claim(buf);
        if claim == Claim::Yes {
            return self.mapped_host_packet(buf, now);
        }
        match self.fragments_v6.take(buf, now) {
            Ok(Outcome::Whole) => {}
            Ok(Outcome::Kept) => return Ok(Verdict::Forward(Pieces::none())),
            Err(reason) => return Ok(Verdict::Drop(reason.into())),
        }
        if claim == Claim::WhenWhole && self.stateless.claims_v6(buf.bytes()) == Claim::Yes {
            return self.mapped_host_packet(buf, now);
        }
        if buf.offload.reassembled
            && let Some(verdict) = self.v6_to_v4.veto(buf, now)
        {
            return Ok(verdict.map_reason(Why::from));
        }
        self.check_owner(buf)?;
        self.whole_client_packet(buf, now)
    }

    /// Steps 2 to 4 with a packet of this shard's.
    fn whole_client_packet(
        &mut self,
        buf: &mut PacketBuf,
        now: Instant,
    ) -> Result<Verdict<Why>, Passage> {
        match self.resolve_v6(buf, now) {
            Ok(outgoing) if self.is_here(outgoing.dst()) => {
                let verdict = self.v6_to_here.translate(buf, &outgoing, now);
                self.come_back(buf, verdict, now)
            }
            Ok(outgoing) => {
                let verdict = self.v6_to_v4.translate(buf, &outgoing, now);
                Ok(verdict.map_reason(Why::from))
            }
            Err(Refused { why, answer }) => Ok(match answer {
                Some(message) => self.v6_to_v4.reply(buf, why, message, now),
                None => Verdict::Drop(why),
            }),
        }
    }

    /// Whether packets to an IPv4 address come back to this NAT64: it is a client's.
    fn is_here(&self, destination: Ipv4Addr) -> bool {
        self.stateless.has_v4(destination) || self.tables.pool().contains(destination)
    }

    /// What became of a packet on its way to IPv4 whose destination there [`Self::is_here`].
    fn come_back(
        &mut self,
        buf: &mut PacketBuf,
        verdict: Verdict<xlat::DropReason>,
        now: Instant,
    ) -> Result<Verdict<Why>, Passage> {
        match verdict {
            // To any size, it leaves as one.
            Verdict::Forward(_) => {}
            Verdict::Reply(_) | Verdict::Drop(_) => return Ok(verdict.map_reason(Why::from)),
        }
        self.stats.from_v6.turned_around.add(1);
        if self.is_to_mapped_host(buf) {
            self.turn_around(buf, now)
        } else {
            self.hairpin(buf, now)
        }
    }

    /// The loop guard, whether the packet is for us at all (RFC 6146 §3.5), and whether its sender
    /// may use us.
    fn admit_v6(&self, buf: &PacketBuf) -> Result<(), Refused> {
        let Ok(packet) = Ipv6::new_checked(buf.bytes()) else {
            return Err(xlat::DropReason::MalformedIpv6.into());
        };
        if self.prefix_of(packet.src()).is_some() {
            return Err(DropReason::LoopGuard.into());
        }
        let by_mapping =
            || self.stateless.has_v6(packet.src()) && self.stateless.has_v6(packet.dst());
        if self.prefix_of(packet.dst()).is_none() && !by_mapping() {
            return Err(DropReason::NotInPrefix.into());
        }
        self.check_client(&packet)
    }

    pub(crate) fn is_under_prefix(&self, address: Ipv6Addr) -> bool {
        self.prefix_of(address).is_some()
    }

    /// The number of the prefix that `address` lies in.
    fn prefix_of(&self, address: Ipv6Addr) -> Option<u8> {
        let at = self.prefixes.iter().position(|it| it.contains(address))?;
        u8::try_from(at).ok()
    }

    /// Its prefixes, as they are now.
    #[must_use]
    pub fn prefixes(&self) -> &[Pref64] {
        &self.prefixes
    }

    pub(crate) fn prefix(&self, number: u8) -> Pref64 {
        self.prefixes[usize::from(number)]
    }

    fn resolve_v6(&mut self, buf: &PacketBuf, now: Instant) -> Result<Outgoing<Ipv4Addr>, Refused> {
        let packet =
            Ipv6::new_embedded(buf.bytes()).map_err(|_| xlat::DropReason::MalformedIpv6)?;
        match incoming_tuple::of_v6(&packet)? {
            Incoming::Data(tuple, segment) => {
                let (remote, prefix) = self.remote(tuple.dst)?;
                self.check_destination(remote.address, prefix)?;
                if tuple.protocol == Protocol::Icmp && self.tables.pool().contains(remote.address) {
                    return Err(DropReason::EchoToPool.into());
                }
                if !self.is_behind_us(remote.address) {
                    check_size(self.v6_to_v4.oversize(buf))?;
                }
                let now = self.tick(now);
                let flow = self
                    .tables
                    .outbound(tuple.protocol, tuple.src, remote, prefix, segment, now)
                    .map_err(|why| {
                        let refusal = Refusal {
                            protocol: tuple.protocol,
                            inside: Some(tuple.src),
                            outside: None,
                            remote,
                            why,
                        };
                        self.tables.refused(refusal, now);
                        no_resources(why)
                    })?;
                Ok(outgoing_tuple::to_server(&flow))
            }
            Incoming::Error(quoted) => self.resolve_error_v6(&quoted),
        }
    }

    /// The server that an address under one of our prefixes stands for.
    fn remote(&self, dst: Endpoint6) -> Result<(Endpoint4, u8), DropReason> {
        let number = self.prefix_of(dst.address).ok_or(DropReason::NotInPrefix)?;
        let address = self
            .prefix(number)
            .extract(dst.address)
            .ok_or(DropReason::NotInPrefix)?;
        Ok((
            Endpoint4 {
                address,
                id: dst.id,
            },
            number,
        ))
    }

    fn check_destination(&self, address: Ipv4Addr, prefix: u8) -> Result<(), Refused> {
        let reason = if !may_write(address, self.prefix(prefix), self.wkp_non_global) {
            DropReason::NonGlobalUnderWellKnownPrefix
        } else if !self.is_behind_us(address) && !self.destinations.allows(address) {
            DropReason::DestinationRefused
        } else {
            return Ok(());
        };
        let message = Message::plain(v6::UNREACHABLE, v6::PROHIBITED);
        Err(refused(reason, message))
    }

    /// Whether an IPv4 address is one that we give out, which stands for no IPv4 host.
    fn is_behind_us(&self, address: Ipv4Addr) -> bool {
        self.stateless.has_v4(address) || self.tables.pool().contains(address)
    }

    /// An ICMPv6 error quotes a packet from a server (Y',z) to a client (X',x).
    fn resolve_error_v6(&self, quoted: &Tuple<Endpoint6>) -> Result<Outgoing<Ipv4Addr>, Refused> {
        let (remote, _) = self.remote(quoted.src)?;
        let flow = self
            .tables
            .peek_inside(quoted.protocol, quoted.dst, remote)
            .ok_or(DropReason::NoSession)?;
        Ok(outgoing_tuple::error_to_server(&flow))
    }

    /// Whether the source of a packet from outside is forged. What comes from here comes back here
    /// and does not go out: from outside, an address of ours would be taken for a client or for a host
    /// with a mapping.
    ///
    /// An ICMP error may be that of the host itself, with which the pool shares an address, or of a
    /// router that has a mapping.
    fn is_forged(&self, packet: &Ipv4<'_>) -> bool {
        let is_error = || matches!(incoming_tuple::of_v4(packet), Ok(Incoming::Error(_)));
        self.is_behind_us(packet.src()) && !is_error()
    }

    /// A packet from outside ([`Stage::Arrived`]) or an error of our own ([`Stage::OwnError`]).
    fn server_packet(
        &mut self,
        buf: &mut PacketBuf,
        stage: Stage,
        now: Instant,
    ) -> Result<Verdict<Why>, Passage> {
        let Ok(packet) = Ipv4::new_checked(buf.bytes()) else {
            return Ok(Verdict::Drop(xlat::DropReason::MalformedIpv4.into()));
        };
        let is_mapped = self.stateless.has_v4(packet.dst());
        if !is_mapped && !self.tables.pool().contains(packet.dst()) {
            return Ok(Verdict::Drop(DropReason::NotInPool.into()));
        }
        if stage == Stage::Arrived && self.is_forged(&packet) {
            return Ok(Verdict::Drop(DropReason::ForgedSource.into()));
        }
        let passes_in_parts = !is_icmp_fragment_v4(&packet);
        if let Some(verdict) = self.v4_to_v6.veto(buf, now) {
            return Ok(verdict.map_reason(Why::from));
        }
        if is_mapped && passes_in_parts {
            return Ok(self.enter_mapped_host(buf, Way::FromOutside, now));
        }
        match self.fragments_v4.take(buf, now) {
            Ok(Outcome::Whole) => {}
            Ok(Outcome::Kept) => return Ok(Verdict::Forward(Pieces::none())),
            Err(reason) => return Ok(Verdict::Drop(reason.into())),
        }
        if is_mapped {
            return Ok(self.enter_mapped_host(buf, Way::FromOutside, now));
        }
        if buf.offload.reassembled
            && let Some(verdict) = self.v4_to_v6.veto(buf, now)
        {
            return Ok(verdict.map_reason(Why::from));
        }
        self.check_owner(buf)?;
        Ok(self.whole_server_packet(buf, now))
    }

    /// Steps 2 to 4 with a packet of this shard's.
    fn whole_server_packet(&mut self, buf: &mut PacketBuf, now: Instant) -> Verdict<Why> {
        match self.resolve_v4(buf, now) {
            Ok(outgoing) => {
                let verdict = self.v4_to_v6.translate(buf, &outgoing, now);
                verdict.map_reason(Why::from)
            }
            Err(refused) => self.refuse_v4(buf, refused, now),
        }
    }

    fn resolve_v4(&mut self, buf: &PacketBuf, now: Instant) -> Result<Outgoing<Ipv6Addr>, Refused> {
        let packet =
            Ipv4::new_embedded(buf.bytes()).map_err(|_| xlat::DropReason::MalformedIpv4)?;
        match incoming_tuple::of_v4(&packet)? {
            Incoming::Data(tuple, segment) => {
                let now = self.tick(now);
                let (server, client) = (tuple.src, tuple.dst);
                let oversize = self.v4_to_v6.oversize(buf);
                let Self {
                    clients,
                    prefixes,
                    wkp_non_global,
                    tables,
                    ..
                } = self;
                let admitted = |client| clients::may_use(clients, client);
                let writable = |prefix: u8| {
                    let prefix = prefixes[usize::from(prefix)];
                    may_write(server.address, prefix, *wkp_non_global)
                };
                let entry = tables.entry(
                    tuple.protocol,
                    client,
                    server,
                    (admitted, writable),
                    segment,
                    now,
                )?;
                // Whom a filter keeps out is not told that there is a client.
                check_size(oversize)?;
                let flow = tables.inbound(entry, segment, now).inspect_err(|why| {
                    let refusal = Refusal {
                        protocol: tuple.protocol,
                        inside: None,
                        outside: Some(client),
                        remote: server,
                        why: *why,
                    };
                    tables.refused(refusal, now);
                })?;
                Ok(outgoing_tuple::to_client(&flow, self.prefix(flow.prefix)))
            }
            Incoming::Error(quoted) => self.resolve_error_v4(packet.src(), &quoted),
        }
    }

    /// An ICMPv4 error quotes a packet from the pool (T,t) to a server (Z,z). The router it comes
    /// from is shown under its own address (PLAT-3.6-02), or, where that cannot be written, under
    /// ours, so that path MTU discovery survives.
    fn resolve_error_v4(
        &self,
        router: Ipv4Addr,
        quoted: &Tuple<Endpoint4>,
    ) -> Result<Outgoing<Ipv6Addr>, Refused> {
        let flow = self
            .tables
            .peek_outside(quoted.protocol, quoted.src, quoted.dst)
            .ok_or(DropReason::NoSession)?;
        if !clients::may_use(&self.clients, flow.inside.address) {
            return Err(DropReason::ClientRefused.into());
        }
        let prefix = self.prefix(flow.prefix);
        let from = if may_write(router, prefix, self.wkp_non_global) {
            prefix.embed(router)
        } else {
            self.own_ipv6
        };
        Ok(outgoing_tuple::error_to_client(&flow, prefix, from))
    }
}

/// The settings of translation: to the next link, and for packets that are turned around.
fn translations(config: &Config, part: &Part) -> Result<(xlat::Config, xlat::Config), ConfigError> {
    let own_ipv4 = own_ipv4(config)?;
    let translation = xlat::Config {
        ipv6_mtu: config.ipv6_mtu,
        ipv4_mtu: config.ipv4_mtu,
        lowest_ipv6_mtu: config.lowest_ipv6_mtu,
        errors: part.of_errors(config.errors),
        untranslatable_source: own_ipv4,
        ..xlat::Config::new(own_ipv4, config.own_ipv6)
    };
    let here = xlat::Config {
        ipv4_mtu: u16::MAX,
        ..translation.clone()
    };
    Ok((translation, here))
}

/// A shard's share of the fragments of one side that may wait: each side has half of all.
fn fragments(config: &Config, part: &Part) -> reassembly::Limits {
    let all = config.limits.fragments;
    reassembly::Limits {
        datagrams: part.of(all.datagrams.div_ceil(2)),
        bytes: part.of(all.bytes.div_ceil(2)),
        datagrams_per_source: part.of(all.datagrams_per_source),
    }
}

fn stateless(config: &Config) -> Stateless {
    Stateless {
        siit: Siit {
            eamt: config.eam.clone(),
            prefixes: config.prefixes.clone(),
            hairpin: Hairpin::Intrinsic,
            wkp_non_global: config.wkp_non_global,
        },
        own_ipv6: config.own_ipv6,
    }
}

/// Whether an IPv4 address may be written under a prefix (RFC 6052 §3.1).
fn may_write(address: Ipv4Addr, prefix: Pref64, wkp_non_global: NonGlobal) -> bool {
    wkp_non_global == NonGlobal::Translate || !prefix.is_well_known() || is_global(address)
}

/// What is too long to pass must not make or refresh state.
fn check_size(oversize: Option<(xlat::DropReason, Option<Message>)>) -> Result<(), Refused> {
    oversize.map_or(Ok(()), |(reason, answer)| {
        Err(Refused {
            why: reason.into(),
            answer,
        })
    })
}

/// A client is told when there is no room for it (RFC 6146 §3.5.1.1: ICMPv6 1/3).
fn no_resources(reason: DropReason) -> Refused {
    if !reason.is_shortage() {
        return reason.into();
    }
    let message = Message::plain(v6::UNREACHABLE, v6::ADDRESS_UNREACHABLE);
    refused(reason, message)
}

mod clients;
mod hairpin;
mod mapped_hosts;
mod shard;
mod transmit;
mod unexpected;
mod waiting;

pub use clients::RefusedSubscriber;
pub use transmit::Transmit;
pub use waiting::WaitingBytes;

#[cfg(test)]
mod tests;
