//! The journal: what changes in the tables, as data.
//!
//! Who keeps a copy of the tables (a standby, a restart) or a log of them (RFC 8158) listens to it.
//! A copy that follows every [`Change`] has the same bindings and sessions; of a session it knows an
//! expiry that is never later than the true one, and is told of a later one before the one it knows
//! has passed. So packets that only refresh a session leave no trace, and one entry per lifetime
//! does. A copy ends nothing by itself: it waits for [`Change::SessionEnded`].
//!
//! Changes wait in a buffer of bounded size until they are drained. What does not fit is lost and
//! counted, and [`Change::Lost`] stands in its place: then the copy must be made anew.

use std::{sync::Arc, time::Instant};

use wire::counters::Counter;

use crate::{
    bib::Binding,
    blocks::PortBlock,
    reason::DropReason,
    session::State,
    tuple::{Endpoint4, Endpoint6, Protocol},
};

/// A session as it was when something became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// X',x: the client.
    pub inside: Endpoint6,
    /// T,t: its address and port from the pool.
    pub outside: Endpoint4,
    /// Z,z: the server. For ICMP queries z is 0.
    pub remote: Endpoint4,
    /// The number of the prefix that the client sees the server under.
    pub prefix: u8,
    /// Its protocol, and for TCP how far the connection is.
    pub state: State,
    /// When it is over unless another packet comes, by the clock of the engine's caller.
    pub expires: Instant,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Its lifetime ran out.
    Expired,
    /// Somebody ended it: it was flushed, or its binding removed.
    Flushed,
    /// Its pool address and port, or its prefix, is not served any more.
    NotServed,
}

/// A packet that was refused because there was no room for a binding or a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The protocol.
    pub protocol: Protocol,
    /// The client, if it was its packet.
    pub inside: Option<Endpoint6>,
    /// The client's address and port from the pool, if it was a server's packet.
    pub outside: Option<Endpoint4>,
    /// The server.
    pub remote: Endpoint4,
    /// What there was not enough of.
    pub why: DropReason,
}

/// Something that became of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A binding was made.
    BindingMade(Binding),
    /// A binding, known by its protocol and outside, is now this.
    BindingChanged(Binding),
    /// A binding was ended.
    BindingEnded(Binding),
    /// A session was made. Its binding was made before.
    SessionMade(SessionRecord),
    /// A session, known by its protocol, outside and remote, is now this.
    SessionChanged(SessionRecord),
    /// A session was ended. Its binding, if that was its last one, ends after it.
    SessionEnded(SessionRecord, Ending),
    /// A subscriber has a block of ports now. Comes before the first binding in it.
    BlockTaken(PortBlock),
    /// A block of ports is nobody's any more.
    BlockGiven(PortBlock),
    /// There was no room. Comes for every such packet: whoever writes them down should not write
    /// down each (RFC 8158 §3).
    Refused(Refusal),
    /// This many changes are missing here.
    Lost(u64),
}

/// Changes that wait to be drained.
#[derive(Debug)]
pub(crate) struct Journal {
    changes: Vec<Change>,
    /// How many may wait; `None` while nobody listens.
    capacity: Option<usize>,
    lost: u64,
    lost_in_all: Arc<Counter>,
}

impl Journal {
    /// Nobody listens yet. What is lost is added to the counter.
    pub(crate) fn new(lost_in_all: Arc<Counter>) -> Self {
        Self {
            changes: Vec::new(),
            capacity: None,
            lost: 0,
            lost_in_all,
        }
    }

    /// From now on up to `capacity` changes wait to be drained; with `None`, nobody listens, and
    /// what waits is forgotten.
    pub(crate) fn listen(&mut self, capacity: Option<usize>) {
        self.capacity = capacity;
        if capacity.is_none() {
            self.changes = Vec::new();
            self.lost = 0;
        }
    }

    /// Whether anybody listens.
    pub(crate) fn is_on(&self) -> bool {
        self.capacity.is_some()
    }

    pub(crate) fn record(&mut self, change: Change) {
        match self.capacity {
            None => {}
            // Once something is missing, what follows would not fit to what is there.
            Some(capacity) if self.changes.len() >= capacity || self.lost > 0 => {
                self.lost += 1;
                self.lost_in_all.add(1);
            }
            Some(_) => self.changes.push(change),
        }
    }

    pub(crate) fn drain(&mut self, mut told: impl FnMut(Change)) {
        for change in self.changes.drain(..) {
            told(change);
        }
        if self.lost > 0 {
            told(Change::Lost(core::mem::take(&mut self.lost)));
        }
    }
}
