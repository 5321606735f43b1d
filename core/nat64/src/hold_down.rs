//! [`HoldDown`]: ports that were given up rest before another client gets them (RFC 6888 REQ-8).
//!
//! What a server still sends to the one would otherwise reach the other. TCP ports do not rest: the
//! state machine has seen their connections end.

use std::collections::VecDeque;

use crate::{
    session::Tick,
    tuple::{Endpoint4, Protocol},
};

/// The ports that rest. Each port of the pool is at most once among them, 16 bytes each.
///
/// All rest equally long, so they come free in the order in which they were given up. In an
/// exhausted pool they rest, too: a client that is refused tries again, a stranger's packets cannot
/// be called back.
#[derive(Debug)]
pub(crate) struct HoldDown {
    now: Tick,
    rest: Tick,
    resting: VecDeque<(Tick, Protocol, Endpoint4)>,
}

impl HoldDown {
    /// None yet. Each will rest for `rest`.
    pub(crate) fn new(rest: Tick) -> Self {
        Self {
            now: 0,
            rest,
            resting: VecDeque::new(),
        }
    }

    /// From now on ports rest for so long, those that rest already not longer than that.
    pub(crate) fn set_rest(&mut self, rest: Tick) {
        let latest = self.now.saturating_add(rest);
        for (due, ..) in &mut self.resting {
            *due = (*due).min(latest);
        }
        self.rest = rest;
    }

    /// Whether a port that is given up rests now. If not, it is free.
    pub(crate) fn keep(&mut self, protocol: Protocol, port: Endpoint4) -> bool {
        if !self.has_rest(protocol) {
            return false;
        }
        let due = self.now.saturating_add(self.rest);
        self.resting.push_back((due, protocol, port));
        true
    }

    /// Whether ports of a protocol rest at all.
    pub(crate) fn has_rest(&self, protocol: Protocol) -> bool {
        protocol != Protocol::Tcp && self.rest != 0
    }

    /// A port that has rested long enough at `now`, until there is none left.
    pub(crate) fn next_rested(&mut self, now: Tick) -> Option<(Protocol, Endpoint4)> {
        self.now = now;
        let (due, protocol, port) = *self.resting.front()?;
        if due > now {
            return None;
        }
        self.resting.pop_front();
        Some((protocol, port))
    }

    /// When the next port has rested.
    pub(crate) fn next_due(&self) -> Option<Tick> {
        self.resting.front().map(|(due, ..)| *due)
    }

    /// A port that rests is wanted by name, for a static binding: it rests no more. Whether it did.
    pub(crate) fn wake(&mut self, protocol: Protocol, port: Endpoint4) -> bool {
        let mut all = self.resting.iter();
        let at = all.position(|(_, of, it)| (*of, *it) == (protocol, port));
        at.and_then(|at| self.resting.remove(at)).is_some()
    }

    /// The ports that rest.
    pub(crate) fn resting(&self) -> impl Iterator<Item = (Protocol, Endpoint4)> {
        let all = self.resting.iter();
        all.map(|(_, protocol, port)| (*protocol, *port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a list: each comes when its time is over, and not before.
        #[test]
        fn natb_6888_03_equals_a_list(
            rest in 1u32..50,
            steps in proptest::collection::vec((0usize..3, any::<u16>(), 0u32..20), 0..100),
        ) {
            let mut held = HoldDown::new(rest);
            let mut model = Vec::new();
            let mut now = 0;
            for (protocol, id, pause) in steps {
                let protocol = Protocol::ALL[protocol];
                let port = Endpoint4 { address: [203, 0, 113, 1].into(), id };
                prop_assert_eq!(held.keep(protocol, port), protocol != Protocol::Tcp);
                if protocol != Protocol::Tcp {
                    model.push((now + rest, protocol, port));
                }
                now += pause;
                let mut rested = Vec::new();
                while let Some(port) = held.next_rested(now) {
                    rested.push(port);
                }
                let over = model.extract_if(.., |it| it.0 <= now);
                let over: Vec<_> = over.map(|it| (it.1, it.2)).collect();
                prop_assert_eq!(rested, over);
                prop_assert_eq!(held.resting().count(), model.len());
                prop_assert_eq!(held.next_due(), model.first().map(|it| it.0));
            }
        }
    }
}
