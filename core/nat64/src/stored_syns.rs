//! SYNs of servers that nobody expects (RFC 6146 §3.5.2.2, state V4 INIT without a binding).
//!
//! If both ends open a connection at the same time, the server's SYN may come before the client's.
//! It is kept for six seconds. If the client sends a SYN to that server from that port, the
//! connection is established and the stored SYN forgotten; if not, its sender is told that nobody is
//! there.
//!
//! Whoever sends SYNs fills this store and has answers sent to whom it names as their source. So it
//! is small, in entries and in bytes, never evicts, and its answers count against the limit of ICMP
//! errors. Nothing is allocated for a SYN once the store has grown to its limits.

use core::net::Ipv4Addr;
use std::collections::VecDeque;

use hashbrown::{HashMap, HashTable};
use wire::packet::PacketBuf;
use xlat::key::Key;

use crate::{
    config::Limits, dispatch::Part, reason::DropReason, sequence::Header, session::Tick,
    tuple::Endpoint4,
};

/// The most of a SYN that is kept: what an ICMPv4 error can quote (RFC 1812 §4.3.2.3).
const MOST: usize = 548;

#[derive(Debug)]
struct StoredSyn {
    /// T,t.
    outside: Endpoint4,
    /// Z,z.
    remote: Endpoint4,
    /// What was read of it: the server begins its sequence numbers with it.
    header: Header,
    expires: Tick,
    len: usize,
    /// Somebody has come for it.
    taken: bool,
}

/// How many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
    /// Of one source address. A flood under one name leaves room for others.
    pub(crate) per_source: usize,
}

impl Capacity {
    /// That of a shard.
    pub(crate) fn new(limits: &Limits, part: &Part) -> Self {
        let entries = part.of(limits.stored_syns);
        Self {
            entries,
            bytes: part.of(limits.stored_syn_bytes),
            per_source: entries.div_ceil(8),
        }
    }
}

/// The store. It holds TCP only: nothing else has a state in which a packet is kept.
#[derive(Debug)]
pub(crate) struct StoredSyns {
    key: Key,
    pub(crate) capacity: Capacity,
    /// Oldest first. All wait equally long.
    queue: VecDeque<StoredSyn>,
    /// Their bytes, in the same order.
    bytes: VecDeque<u8>,
    /// The number of the first in the queue; they are numbered without end.
    first: u64,
    index: HashTable<u64>,
    /// How many of each source there are.
    sources: HashMap<Ipv4Addr, usize, Key>,
}

impl StoredSyns {
    pub(crate) fn new(key: Key, capacity: Capacity) -> Self {
        Self {
            key,
            capacity,
            queue: VecDeque::new(),
            bytes: VecDeque::new(),
            first: 0,
            index: HashTable::new(),
            sources: HashMap::with_hasher(key),
        }
    }

    /// Keeps a SYN until `expires`.
    ///
    /// # Errors
    /// It is kept already, or there is no room.
    pub(crate) fn store(
        &mut self,
        outside: Endpoint4,
        remote: Endpoint4,
        (header, packet): (Header, &[u8]),
        expires: Tick,
    ) -> Result<(), DropReason> {
        if self.find(outside, remote).is_some() {
            return Err(DropReason::SynRepeated);
        }
        let packet = packet.get(..MOST).unwrap_or(packet);
        let of_source = self.sources.get(&remote.address).copied();
        let full = of_source.unwrap_or_default() >= self.capacity.per_source
            || self.queue.len() >= self.capacity.entries
            || self.bytes.len() + packet.len() > self.capacity.bytes;
        if full {
            return Err(DropReason::TooManySyns);
        }
        let number = self.first + self.queue.len() as u64;
        *self.sources.entry(remote.address).or_insert(0) += 1;
        self.bytes.extend(packet);
        self.queue.push_back(StoredSyn {
            outside,
            remote,
            header,
            expires,
            len: packet.len(),
            taken: false,
        });
        let Self {
            key,
            queue,
            first,
            index,
            ..
        } = self;
        index.insert_unique(hash(key, outside, remote), number, |number| {
            entry(queue, *first, *number).map_or(0, |it| hash(key, it.outside, it.remote))
        });
        Ok(())
    }

    /// The SYN of this server to this port, if it is kept at `now`; it is not any more.
    pub(crate) fn take(
        &mut self,
        outside: Endpoint4,
        remote: Endpoint4,
        now: Tick,
    ) -> Option<Header> {
        if self.queue.is_empty() {
            return None;
        }
        let number = self.find(outside, remote)?;
        let found = entry(&self.queue, self.first, number)?;
        let header = found.header;
        if found.expires <= now {
            return None;
        }
        self.forget(number);
        Some(header)
    }

    /// Forgets those to ports that are `gone`; how many they were.
    pub(crate) fn forget_if(&mut self, gone: impl Fn(Endpoint4) -> bool) -> usize {
        let numbers: Vec<_> = (self.first..)
            .zip(&self.queue)
            .filter(|(_, it)| !it.taken && gone(it.outside))
            .map(|(number, _)| number)
            .collect();
        for number in &numbers {
            self.forget(*number);
        }
        numbers.len()
    }

    /// Moves the oldest SYN that has waited in vain until `now` into `buf`.
    pub(crate) fn next_unanswered(&mut self, now: Tick, buf: &mut PacketBuf) -> bool {
        let Some(oldest) = self.queue.front().filter(|it| it.expires <= now) else {
            return false;
        };
        let len = oldest.len;
        self.bytes.make_contiguous();
        let (bytes, _) = self.bytes.as_slices();
        let fits = bytes.get(..len).is_some_and(|it| buf.set(it).is_ok());
        self.forget(self.first);
        fits
    }

    /// When the next one has waited in vain.
    pub(crate) fn next_expiry(&self) -> Option<Tick> {
        self.queue.front().map(|it| it.expires)
    }

    /// How many there are, and how many bytes they take.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.index.len(), self.bytes.len())
    }

    fn find(&self, outside: Endpoint4, remote: Endpoint4) -> Option<u64> {
        let same = |number: &u64| {
            entry(&self.queue, self.first, *number)
                .is_some_and(|it| it.outside == outside && it.remote == remote)
        };
        let hash = hash(&self.key, outside, remote);
        self.index.find(hash, same).copied()
    }

    fn forget(&mut self, number: u64) {
        let at = usize::try_from(number - self.first).unwrap_or(usize::MAX);
        let Some(found) = self.queue.get_mut(at) else {
            return;
        };
        found.taken = true;
        let source = found.remote.address;
        let hash = hash(&self.key, found.outside, found.remote);
        if let Ok(entry) = self.index.find_entry(hash, |it| *it == number) {
            entry.remove();
        }
        self.forget_source(source);
        while self.queue.front().is_some_and(|it| it.taken) {
            let len = self.queue.pop_front().map_or(0, |it| it.len);
            self.bytes.drain(..len);
            self.first += 1;
        }
        while self.queue.back().is_some_and(|it| it.taken) {
            let len = self.queue.pop_back().map_or(0, |it| it.len);
            self.bytes.truncate(self.bytes.len() - len);
        }
    }
}

impl StoredSyns {
    fn forget_source(&mut self, source: Ipv4Addr) {
        if let Some(count) = self.sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }
}

fn entry(queue: &VecDeque<StoredSyn>, first: u64, number: u64) -> Option<&StoredSyn> {
    queue.get(usize::try_from(number.checked_sub(first)?).ok()?)
}

fn hash(key: &Key, outside: Endpoint4, remote: Endpoint4) -> u64 {
    key.hash(&[
        &outside.address.octets(),
        &outside.id.to_ne_bytes(),
        &remote.address.octets(),
        &remote.id.to_ne_bytes(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::Segment;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn end(n: u8, id: u16) -> Endpoint4 {
        Endpoint4 {
            address: Ipv4Addr::new(203, 0, 113, n),
            id,
        }
    }

    const HEADER: Header = Header {
        segment: Segment::Syn,
        seq: 7,
        len: 1,
        ack: None,
    };

    #[test]
    fn plat_5_3_01_a_syn_that_just_fits_is_stored() {
        let capacity = Capacity {
            entries: 9,
            bytes: 100,
            per_source: 9,
        };
        let mut syns = StoredSyns::new(Key::new([1; 16]), capacity);
        assert_eq!(
            syns.store(end(1, 1), end(9, 9), (HEADER, &[1; 60]), 7),
            Ok(())
        );
        let too_many = Err(DropReason::TooManySyns);
        assert_eq!(
            syns.store(end(1, 2), end(9, 9), (HEADER, &[2; 41]), 7),
            too_many
        );
        assert_eq!(
            syns.store(end(1, 2), end(9, 9), (HEADER, &[2; 40]), 7),
            Ok(())
        );
    }

    proptest! {
        /// Against a map: nothing is lost or mixed up, and neither limit is passed.
        #[test]
        fn plat_5_3_01_stored_syns_are_limited_in_all_and_by_source(
            steps in proptest::collection::vec((0u8..4, 0u8..3, 1u16..4, 20usize..90), 0..200),
        ) {
            let capacity = Capacity { entries: 5, bytes: 300, per_source: 2 };
            let mut syns = StoredSyns::new(Key::new([1; 16]), capacity);
            let mut model: BTreeMap<(u8, u16), (Tick, Vec<u8>)> = BTreeMap::new();
            let mut now = 0;
            let mut buf = PacketBuf::new();
            for (what, n, id, len) in steps {
                match what {
                    0 | 1 => {
                        let packet = vec![n ^ id as u8; len];
                        match syns.store(end(n, id), end(id as u8, 9), (HEADER, &packet), now + 7) {
                            Ok(()) => prop_assert!(model.insert((n, id), (now + 7, packet)).is_none()),
                            Err(DropReason::SynRepeated) => prop_assert!(model.contains_key(&(n, id))),
                            Err(_) => {
                                prop_assert!(!model.contains_key(&(n, id)));
                                let of_source = model.keys().filter(|it| it.1 == id).count();
                                let full = syns.queue.len() >= 5 || syns.bytes.len() + len > 300;
                                prop_assert!(of_source == 2 || full);
                            }
                        }
                    }
                    2 => {
                        let known = model.get(&(n, id)).is_some_and(|it| it.0 > now);
                        prop_assert_eq!(syns.take(end(n, id), end(id as u8, 9), now).is_some(), known);
                        if known {
                            model.remove(&(n, id));
                        }
                    }
                    _ => {
                        now += u32::from(id);
                        while syns.next_unanswered(now, &mut buf) {
                            let found = model.iter().find(|(_, it)| it.0 <= now && it.1 == buf.bytes());
                            let found = *found.unwrap().0;
                            model.remove(&found);
                        }
                        prop_assert!(model.values().all(|it| it.0 > now));
                    }
                }
                let (entries, bytes) = syns.len();
                prop_assert_eq!(entries, model.len());
                prop_assert!(entries <= 5 && bytes <= 300);
                for id in 1..4 {
                    let of_source = model.keys().filter(|it| it.1 == id).count();
                    let known = syns.sources.get(&end(id as u8, 9).address).copied();
                    prop_assert_eq!(known.unwrap_or_default(), of_source);
                    prop_assert!(of_source <= 2);
                }
            }
        }
    }
}
