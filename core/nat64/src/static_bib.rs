//! Static bindings (RFC 6146 §3.1): configured, and there whether or not anybody uses them.
//!
//! A server behind the NAT64 is reached by one. It may be on any port of a pool address, also on one
//! that is not given out to clients.

use core::fmt;

use crate::{
    bib::{BibId, Binding},
    engine::Engine,
    filtering_and_updating::Tables,
    journal::{Change, Ending},
    pool::Reserved,
    tuple::{Endpoint4, Endpoint6, Protocol},
};

/// A binding that is configured: X',x <-> T,t.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StaticBinding {
    /// The protocol.
    pub protocol: Protocol,
    /// The client's address and port (or identifier).
    pub inside: Endpoint6,
    /// The pool address and port that it is reached by.
    pub outside: Endpoint4,
}

/// Why there is no such static binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaticError {
    /// The address is not in the pool.
    NotInPool,
    /// Port 0 cannot be bound.
    PortZero,
    /// The client's address and port has another binding.
    InsideBound {
        /// What it is bound to.
        outside: Endpoint4,
    },
    /// The pool's address and port has another binding.
    OutsideBound,
    /// The configured number of bindings is reached.
    TooManyBindings,
    /// The client's address lies in one of the NAT64's prefixes: it is a server's.
    InsideIsServer,
}

impl fmt::Display for StaticError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInPool => f.write_str("the IPv4 address is not in the pool"),
            Self::PortZero => f.write_str("port 0 cannot be bound"),
            Self::InsideBound { outside } => write!(
                f,
                "the IPv6 address and port is bound to {outside:?} already; remove that first"
            ),
            Self::OutsideBound => {
                f.write_str("the IPv4 address and port is in use; remove its binding first")
            }
            Self::TooManyBindings => f.write_str("the limit of bindings is reached"),
            Self::InsideIsServer => f.write_str("the IPv6 address lies in a NAT64 prefix"),
        }
    }
}

impl core::error::Error for StaticError {}

impl Engine {
    /// Adds a static binding. A dynamic one with the same two ends becomes static, with its
    /// sessions.
    ///
    /// All shards must be told: the one that owns the port has the binding, the others pass packets
    /// on to it. If one of them refuses, all must be told by [`Self::cancel_static`].
    ///
    /// # Errors
    /// [`StaticError`]; nothing has changed in this shard then.
    pub fn add_static(&mut self, binding: StaticBinding) -> Result<(), StaticError> {
        if self.is_under_prefix(binding.inside.address) {
            return Err(StaticError::InsideIsServer);
        }
        let StaticBinding {
            protocol,
            inside,
            outside,
        } = binding;
        let owned = self.part.owns(outside.id);
        let here = self.tables.bib.of_inside(protocol, inside);
        let here = here.map(|id| self.tables.bib.get(id).outside);
        let assigned = self.part.dispatch.assigned(protocol, inside);
        let known = assigned.or(here);
        if let Some(outside) = known.filter(|known| *known != outside) {
            return Err(StaticError::InsideBound { outside });
        }
        if owned {
            self.tables.add_static(binding)?;
        }
        self.part.dispatch.assign(protocol, inside, outside);
        Ok(())
    }

    /// What is against [`Self::add_static`] as long as nothing changes, but for the pool, the limits
    /// and ports that are held back. Static bindings in `leaving` will have gone by then.
    #[must_use]
    pub fn static_obstacle(
        &self,
        binding: StaticBinding,
        leaving: &[StaticBinding],
    ) -> Option<StaticError> {
        let StaticBinding {
            protocol,
            inside,
            outside,
        } = binding;
        let leaves = |inside, outside| {
            leaving.contains(&StaticBinding {
                protocol,
                inside,
                outside,
            })
        };
        let bib = &self.tables.bib;
        let here = bib.of_inside(protocol, inside);
        let here = here.map(|id| bib.get(id).outside);
        let known = self.part.dispatch.assigned(protocol, inside).or(here);
        if let Some(known) = known.filter(|it| *it != outside && !leaves(inside, *it)) {
            return Some(StaticError::InsideBound { outside: known });
        }
        let other = bib.of_outside(protocol, outside);
        let other = other.map(|id| bib.get(id).inside);
        let stays = other.is_some_and(|it| it != inside && !leaves(it, outside));
        stays.then_some(StaticError::OutsideBound)
    }

    /// Whether this static binding is there. The shard that owns its port says so, and no other.
    #[must_use]
    pub fn has_static(&self, binding: StaticBinding) -> bool {
        self.static_here(&binding).is_some()
    }

    /// Takes back an [`Self::add_static`] that another shard has refused. Not for one that was there
    /// before ([`Self::has_static`]): adding that changed nothing. A dynamic binding that was
    /// made static by it is dynamic again, with its sessions.
    pub fn cancel_static(&mut self, binding: StaticBinding) {
        let Some(id) = self.unassign(binding) else {
            return;
        };
        if self.tables.bib.get(id).sessions != 0 && self.may_be_dynamic(&binding) {
            self.tables.set_static(id, false);
        } else {
            self.tables.remove_binding(binding.protocol, binding.inside);
        }
    }

    /// Ends a static binding that is not configured any more, and its sessions. One that is dynamic
    /// is left alone.
    ///
    /// All shards must be told.
    pub fn remove_static(&mut self, binding: StaticBinding) {
        if self.unassign(binding).is_some() {
            self.tables.remove_binding(binding.protocol, binding.inside);
        }
    }

    /// Packets are not passed on for this static binding any more; its place, if it is here.
    fn unassign(&mut self, binding: StaticBinding) -> Option<BibId> {
        let StaticBinding {
            protocol,
            inside,
            outside,
        } = binding;
        let dispatch = &mut self.part.dispatch;
        if dispatch.assigned(protocol, inside) == Some(outside) {
            dispatch.forget(protocol, inside);
        }
        self.static_here(&binding)
    }

    fn static_here(&self, binding: &StaticBinding) -> Option<BibId> {
        let bib = &self.tables.bib;
        let id = bib.of_inside(binding.protocol, binding.inside)?;
        let here = bib.get(id);
        (here.is_static && here.outside == binding.outside).then_some(id)
    }

    /// Whether a client's own packets could make this binding, here.
    fn may_be_dynamic(&self, binding: &StaticBinding) -> bool {
        let StaticBinding {
            protocol,
            inside,
            outside,
        } = *binding;
        self.part.dispatch.of_inside(protocol, inside) == self.part.shard
            && self.tables.pool().gives(protocol, outside)
    }

    /// Ends the binding of X',x, static or not, and its sessions. Whether there was one.
    ///
    /// All shards must be told; only one of them has it.
    pub fn remove_binding(&mut self, protocol: Protocol, inside: Endpoint6) -> bool {
        self.part.dispatch.forget(protocol, inside);
        self.tables.remove_binding(protocol, inside)
    }
}

impl Engine {
    /// Ends the binding of T,t, static or not, and its sessions. Whether there was one.
    ///
    /// All shards must be told; only one of them has it.
    pub fn remove_binding_of(&mut self, protocol: Protocol, outside: Endpoint4) -> bool {
        self.part.dispatch.forget_of(protocol, outside);
        let Some(id) = self.tables.bib.of_outside(protocol, outside) else {
            return false;
        };
        let inside = self.tables.bib.get(id).inside;
        self.tables.remove_binding(protocol, inside)
    }
}

impl Tables {
    pub(crate) fn add_static(&mut self, wanted: StaticBinding) -> Result<(), StaticError> {
        let StaticBinding {
            protocol,
            inside,
            outside,
        } = wanted;
        if inside.id == 0 || outside.id == 0 {
            return Err(StaticError::PortZero);
        }
        if let Some(known) = self.bib.of_inside(protocol, inside) {
            return self.make_static(known, outside);
        }
        if self.bib.of_outside(protocol, outside).is_some() {
            return Err(StaticError::OutsideBound);
        }
        if self.bib.is_full() {
            return Err(StaticError::TooManyBindings);
        }
        match self.pool.reserve(protocol, outside) {
            Reserved::NotInPool => return Err(StaticError::NotInPool),
            // Nobody is bound to it, so it rests.
            Reserved::Busy if self.hold_down.wake(protocol, outside) => {}
            Reserved::Busy => return Err(StaticError::OutsideBound),
            Reserved::Taken | Reserved::NotGivenOut => {}
        }
        self.bound(protocol, inside, outside, 0, true);
        Ok(())
    }

    pub(crate) fn remove_binding(&mut self, protocol: Protocol, inside: Endpoint6) -> bool {
        let Some(bib) = self.bib.of_inside(protocol, inside) else {
            return false;
        };
        let Binding {
            is_static,
            sessions,
            ..
        } = *self.bib.get(bib);
        if sessions != 0 {
            self.end_sessions(Ending::Flushed, |_, session| session.bib == bib);
        }
        // The last session of a dynamic one takes it with it.
        if is_static {
            self.unbind(bib);
        }
        true
    }

    fn make_static(&mut self, known: BibId, outside: Endpoint4) -> Result<(), StaticError> {
        let bound = self.bib.get(known).outside;
        if bound != outside {
            return Err(StaticError::InsideBound { outside: bound });
        }
        self.set_static(known, true);
        Ok(())
    }

    fn set_static(&mut self, id: BibId, is_static: bool) {
        let binding = self.bib.get_mut(id);
        binding.is_static = is_static;
        self.journal.record(Change::BindingChanged(*binding));
    }
}
