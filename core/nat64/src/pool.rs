//! [`Pool`]: the IPv4 addresses and ports that clients share, and which of them are free.

use core::{fmt, net::Ipv4Addr};

use crate::{
    config::PoolEntry,
    random::Random,
    tuple::{Endpoint4, Protocol},
};

/// The ports (or identifiers) of a pool address that may be used, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// All but port 0.
    pub const ALL: Self = Self {
        first: 1,
        last: u16::MAX,
    };

    /// The ports from `first` to `last`. `None` if there is none, or port 0 among them.
    #[must_use]
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first > 0 && first <= last).then_some(Self { first, last })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    /// Never: a range has at least one port.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

const WORDS: usize = 65_536 / 64;
const EVEN: u64 = 0x5555_5555_5555_5555;
/// Ports under this are for well-known services (RFC 6146 §3.5.1.1).
const WELL_KNOWN: u16 = 1024;

/// The ports of one address and protocol: a bit for each, set when it is free.
///
/// A summary of 16 words says which of the 1024 words have a free port at all, so that finding one
/// costs the same in an empty and in a nearly full pool.
struct FreePorts {
    free: Box<[u64; WORDS]>,
    summary: [u64; WORDS / 64],
    count: usize,
}

impl FreePorts {
    fn new(range: PortRange) -> Self {
        let mut ports = Self {
            free: Box::new([0; WORDS]),
            summary: [0; WORDS / 64],
            count: 0,
        };
        for port in range.first..=range.last {
            ports.release(port);
        }
        ports
    }

    fn is_free(&self, port: u16) -> bool {
        self.free[usize::from(port / 64)] >> (port % 64) & 1 != 0
    }

    fn take(&mut self, port: u16) {
        let word = usize::from(port / 64);
        self.free[word] &= !(1 << (port % 64));
        if self.free[word] == 0 {
            self.summary[word / 64] &= !(1 << (word % 64));
        }
        self.count -= 1;
    }

    fn release(&mut self, port: u16) {
        let word = usize::from(port / 64);
        self.free[word] |= 1 << (port % 64);
        self.summary[word / 64] |= 1 << (word % 64);
        self.count += 1;
    }

    /// A free port among the words `from..to` whose bits in `mask` count, starting at a random one.
    fn find(&self, from: usize, to: usize, mask: u64, random: u64) -> Option<u16> {
        let span = (to - from) as u64;
        let start = from + usize::try_from(random % span).unwrap_or_default();
        let bit = u32::try_from(random >> 32 & 63).unwrap_or_default();
        self.find_in(start, to, mask, bit)
            .or_else(|| self.find_in(from, start, mask, bit))
    }

    fn find_in(&self, from: usize, to: usize, mask: u64, bit: u32) -> Option<u16> {
        let mut word = from;
        while word < to {
            // Skip to the next word with any free port.
            let ahead = self.summary[word / 64] >> (word % 64);
            if ahead == 0 {
                word = (word / 64 + 1) * 64;
                continue;
            }
            word += ahead.trailing_zeros() as usize;
            if word >= to {
                break;
            }
            let candidates = self.free[word] & mask;
            if candidates != 0 {
                let rotated = candidates.rotate_right(bit);
                let found = (rotated.trailing_zeros() + bit) % 64;
                return u16::try_from(word * 64 + found as usize).ok();
            }
            word += 1;
        }
        None
    }
}

impl fmt::Debug for FreePorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} free", self.count)
    }
}

#[derive(Debug)]
struct PoolAddress {
    entry: PoolEntry,
    ports: [FreePorts; 3],
}

/// The pool.
#[derive(Debug)]
pub struct Pool {
    /// Sorted by address.
    addresses: Vec<PoolAddress>,
}

impl Pool {
    /// A pool of `entries`, everything free.
    #[must_use]
    pub fn new(entries: &[PoolEntry]) -> Self {
        let mut addresses: Vec<_> = entries
            .iter()
            .map(|entry| PoolAddress {
                entry: *entry,
                ports: [(); 3].map(|()| FreePorts::new(entry.ports)),
            })
            .collect();
        addresses.sort_by_key(|it| it.entry.address);
        Self { addresses }
    }

    /// Whether `address` is one of the pool's.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.position(address).is_some()
    }

    /// How many ports of `protocol` are free, over all addresses.
    #[must_use]
    pub fn free(&self, protocol: Protocol) -> usize {
        let ports = self.addresses.iter().map(|it| &it.ports[protocol.index()]);
        ports.map(|ports| ports.count).sum()
    }

    fn position(&self, address: Ipv4Addr) -> Option<usize> {
        self.addresses
            .binary_search_by_key(&address, |it| it.entry.address)
            .ok()
    }

    /// Takes a port for a client that uses `wanted` itself: on the address it already has bindings
    /// on (`paired`), or else on the one its `hash` leads to.
    ///
    /// The port is the client's own if that is free. Otherwise it is in the same range (under 1024
    /// or not) and, for UDP, of the same parity, and cannot be foretold (RFC 6146 §3.5.1.1,
    /// RFC 4787 REQ-2 to REQ-4, RFC 7857 §9). Parity and range give way before the request does,
    /// but no client gets a well-known port that did not ask for one.
    pub(crate) fn allocate(
        &mut self,
        protocol: Protocol,
        wanted: u16,
        paired: Option<Ipv4Addr>,
        hash: u64,
        random: &mut Random,
    ) -> Option<Endpoint4> {
        if let Some(address) = paired {
            // A client keeps its one address, even when that is full (RFC 6888 REQ-2).
            let at = self.position(address)?;
            return self.addresses[at].allocate(protocol, wanted, random);
        }
        let count = self.addresses.len() as u64;
        let start = usize::try_from(hash % count.max(1)).unwrap_or_default();
        let (before, after) = self.addresses.split_at_mut(start);
        let mut in_turn = after.iter_mut().chain(before);
        in_turn.find_map(|address| address.allocate(protocol, wanted, random))
    }

    /// Gives a port back.
    pub(crate) fn release(&mut self, protocol: Protocol, endpoint: Endpoint4) {
        let Some(at) = self.position(endpoint.address) else {
            return;
        };
        let ports = &mut self.addresses[at].ports[protocol.index()];
        if !ports.is_free(endpoint.id) {
            ports.release(endpoint.id);
        }
    }
}

impl PoolAddress {
    fn allocate(
        &mut self,
        protocol: Protocol,
        wanted: u16,
        random: &mut Random,
    ) -> Option<Endpoint4> {
        let ports = &mut self.ports[protocol.index()];
        let id = if self.entry.ports.contains(wanted) && ports.is_free(wanted) {
            wanted
        } else {
            choose(ports, protocol, wanted, random)?
        };
        ports.take(id);
        Some(Endpoint4 {
            address: self.entry.address,
            id,
        })
    }
}

/// A free port instead of the `wanted` one.
fn choose(ports: &FreePorts, protocol: Protocol, wanted: u16, random: &mut Random) -> Option<u16> {
    const BOUNDARY: usize = WELL_KNOWN as usize / 64;
    let random = random.next();
    if protocol == Protocol::Icmp {
        // Identifiers have neither ranges nor parity.
        return ports.find(0, WORDS, u64::MAX, random);
    }
    let parity = if wanted.is_multiple_of(2) {
        EVEN
    } else {
        !EVEN
    };
    let masks = match protocol {
        Protocol::Udp => [parity, u64::MAX],
        Protocol::Tcp | Protocol::Icmp => [u64::MAX; 2],
    };
    let (low, high) = ((0, BOUNDARY), (BOUNDARY, WORDS));
    let ranges = if wanted < WELL_KNOWN {
        [low, high]
    } else {
        [high; 2]
    };
    ranges.iter().find_map(|(from, to)| {
        masks
            .iter()
            .find_map(|mask| ports.find(*from, *to, *mask, random))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;
    use xlat::key::Key;

    const A: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    const B: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

    fn random() -> Random {
        Random::new(Key::new([7; 16]))
    }

    fn pool(first: u16, last: u16) -> Pool {
        let ports = PortRange::new(first, last).unwrap();
        Pool::new(&[PoolEntry { address: A, ports }])
    }

    #[test]
    fn plat_3_5_1_1_01_the_clients_own_port_if_it_is_free() {
        let mut pool = pool(1, 65535);
        let mut random = random();
        let mut take = |wanted| pool.allocate(Protocol::Udp, wanted, None, 0, &mut random);
        assert_eq!(take(5000).unwrap().id, 5000);
        assert_ne!(take(5000).unwrap().id, 5000);
    }

    #[test]
    fn plat_3_5_1_1_01_range_and_parity_are_kept() {
        for wanted in [5000, 5001, 80, 81] {
            let mut pool = pool(1, 65535);
            let mut random = random();
            for _ in 0..200 {
                let id = pool
                    .allocate(Protocol::Udp, wanted, None, 0, &mut random)
                    .unwrap()
                    .id;
                assert_eq!(id < 1024, wanted < 1024);
                assert_eq!(id % 2, wanted % 2);
            }
        }
    }

    /// Parity and range give way before the request, but high ports never become low ones.
    #[test]
    fn plat_3_5_1_1_01_preferences_give_way() {
        let mut pool = pool(1000, 1030);
        let mut random = random();
        let mut take = |wanted| pool.allocate(Protocol::Udp, wanted, None, 0, &mut random);
        let high: HashSet<_> = (0..7).map(|_| take(2000).unwrap().id).collect();
        assert_eq!(high, (1024..=1030).collect());
        assert_eq!(take(2000), None);
        let low: HashSet<_> = (0..24).map(|_| take(80).unwrap().id).collect();
        assert_eq!(low, (1000..1024).collect());
        assert_eq!(take(80), None);
    }

    #[test]
    fn plat_3_5_1_1_01_a_changed_port_cannot_be_foretold() {
        let mut pool = pool(1, 65535);
        let mut random = random();
        let ports: Vec<_> = (0..100)
            .map(|_| {
                let port = pool.allocate(Protocol::Tcp, 5000, None, 0, &mut random);
                port.unwrap().id
            })
            .collect();
        let distances: HashSet<_> = ports.windows(2).map(|w| w[1].wrapping_sub(w[0])).collect();
        assert!(distances.len() > 90, "{distances:?}");
    }

    #[test]
    fn a_client_stays_on_its_address_and_others_spread() {
        let ports = PortRange::new(2000, 2003).unwrap();
        let mut pool = Pool::new(&[
            PoolEntry { address: B, ports },
            PoolEntry { address: A, ports },
        ]);
        let mut random = random();
        let mut take = |paired, hash| pool.allocate(Protocol::Tcp, 2000, paired, hash, &mut random);
        for _ in 0..4 {
            assert_eq!(take(Some(A), 1).unwrap().address, A);
        }
        assert_eq!(take(Some(A), 1), None);
        // A new client goes where there is room.
        for hash in 0..4 {
            assert_eq!(take(None, hash).unwrap().address, B);
        }
        assert_eq!(take(None, 0), None);
    }

    #[test]
    fn protocols_do_not_share_ports_and_released_ones_come_back() {
        let mut pool = pool(7, 7);
        let mut random = random();
        for protocol in Protocol::ALL {
            let taken = pool.allocate(protocol, 7, None, 0, &mut random).unwrap();
            assert_eq!(pool.allocate(protocol, 7, None, 0, &mut random), None);
            pool.release(protocol, taken);
            pool.release(protocol, taken);
            assert_eq!(pool.free(protocol), 1);
            assert!(pool.allocate(protocol, 7, None, 0, &mut random).is_some());
        }
        let strange = Endpoint4 { address: B, id: 7 };
        pool.release(Protocol::Tcp, strange);
        assert!(!pool.contains(B));
    }

    #[test]
    fn ranges_without_ports_are_none() {
        assert_eq!(PortRange::new(0, 5), None);
        assert_eq!(PortRange::new(6, 5), None);
        assert_eq!(PortRange::new(5, 5).map(|range| range.len()), Some(1));
    }

    proptest! {
        /// Everything in the range is given out once, and nothing else ever.
        #[test]
        fn every_port_is_given_out_exactly_once(
            first in 1u16..3000,
            len in 1u16..600,
            wanted in proptest::collection::vec(any::<u16>(), 700),
        ) {
            let last = first + len - 1;
            let mut pool = pool(first, last);
            let mut random = random();
            let mut seen = HashSet::new();
            for wanted in wanted {
                if let Some(got) = pool.allocate(Protocol::Icmp, wanted, None, 0, &mut random) {
                    prop_assert!((first..=last).contains(&got.id));
                    prop_assert!(seen.insert(got.id));
                }
            }
            prop_assert_eq!(seen.len(), usize::from(len).min(700));
            prop_assert_eq!(pool.free(Protocol::Icmp), usize::from(len) - seen.len());
        }
    }
}
