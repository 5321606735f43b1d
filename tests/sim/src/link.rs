//! Links that lose, repeat, delay and reorder.

use std::time::Duration;

use crate::random::Random;

/// How good a link is, and how much it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Bytes per packet.
    pub(crate) mtu: usize,
    /// Packets lost, of a thousand.
    pub(crate) loss: u64,
    /// Packets that arrive twice, of a thousand.
    pub(crate) duplicate: u64,
    /// How long every packet takes.
    pub(crate) delay: Duration,
    /// How much longer one may take: others overtake it.
    pub(crate) jitter: Duration,
}

impl Link {
    /// A link of some quality, with one of `mtus`.
    pub(crate) fn any(random: &mut Random, mtus: &[usize], is_poor: bool) -> Self {
        let micros = |n| Duration::from_micros(n);
        Self {
            mtu: random.pick(mtus),
            loss: if is_poor { random.below(100) } else { 0 },
            duplicate: if is_poor { random.below(50) } else { 0 },
            delay: micros(random.below(30_000)),
            jitter: if is_poor {
                micros(random.below(20_000))
            } else {
                Duration::ZERO
            },
        }
    }

    /// After which times a packet arrives: not at all, once or twice.
    pub(crate) fn arrivals(&self, random: &mut Random) -> Vec<Duration> {
        if random.chance(self.loss) {
            return Vec::new();
        }
        let copies = if random.chance(self.duplicate) { 2 } else { 1 };
        let jitter = self.jitter.as_micros() as u64;
        (0..copies)
            .map(|_| self.delay + Duration::from_micros(random.below(jitter + 1)))
            .collect()
    }
}
