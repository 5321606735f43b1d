//! When routers are asked to advertise themselves (RFC 4861 §6.3.7).

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use pref64::tracker::IfIndex;

/// Solicitations that are sent on an interface (RFC 4861 §10: MAX_RTR_SOLICITATIONS).
pub const SOLICITATIONS: u8 = 3;

/// Time between them (RTR_SOLICITATION_INTERVAL).
pub const SOLICITATION_INTERVAL: Duration = Duration::from_secs(4);

/// The questions that are still to be asked.
#[derive(Debug, Default)]
pub(crate) struct Solicitations(BTreeMap<IfIndex, Solicitation>);

#[derive(Clone, Copy, Debug)]
struct Solicitation {
    left: u8,
    next: Instant,
}

impl Solicitations {
    /// Asks on an interface, from now on.
    pub(crate) fn start(&mut self, interface: IfIndex, now: Instant) {
        let solicitation = Solicitation {
            left: SOLICITATIONS,
            next: now,
        };
        self.0.insert(interface, solicitation);
    }

    /// A default router has answered, or the interface is on another network: asks no more.
    pub(crate) fn stop(&mut self, interface: IfIndex) {
        self.0.remove(&interface);
    }

    /// The interfaces on which to ask now.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<IfIndex> {
        let mut due = Vec::new();
        for (interface, solicitation) in &mut self.0 {
            if solicitation.next <= now {
                due.push(*interface);
                solicitation.left -= 1;
                solicitation.next = now + SOLICITATION_INTERVAL;
            }
        }
        self.0.retain(|_, solicitation| solicitation.left > 0);
        due
    }

    /// When [`Self::take_due`] has something to give.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.values().map(|it| it.next).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_times_four_seconds_apart_and_then_no_more() {
        let start = Instant::now();
        let mut solicitations = Solicitations::default();
        solicitations.start(3, start);
        let mut times = Vec::new();
        while let Some(now) = solicitations.next() {
            assert!(
                solicitations
                    .take_due(now - Duration::from_millis(1))
                    .is_empty()
            );
            assert_eq!(solicitations.take_due(now), [3]);
            times.push((now - start).as_secs());
        }
        assert_eq!(times, [0, 4, 8]);
    }

    #[test]
    fn an_answer_ends_the_questions_on_its_interface_only() {
        let now = Instant::now();
        let mut solicitations = Solicitations::default();
        solicitations.start(3, now);
        solicitations.start(4, now);
        solicitations.stop(3);
        assert_eq!(solicitations.take_due(now), [4]);
    }
}
