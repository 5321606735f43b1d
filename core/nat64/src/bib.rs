//! The binding information base (RFC 6146 §3.1): which pool address and port a client's address and
//! port are.

use hashbrown::HashTable;
use slab::Slab;
use xlat::key::Key;

use crate::tuple::{Endpoint4, Endpoint6, Protocol};

/// A binding's place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BibId(u32);

/// A binding: X',x <-> T,t.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The protocol.
    pub protocol: Protocol,
    /// The client's address and port.
    pub inside: Endpoint6,
    /// Its address and port from the pool.
    pub outside: Endpoint4,
    /// The number of the prefix that its client used last.
    pub prefix: u8,
    /// How many sessions use it. A dynamic binding ends with its last session.
    pub sessions: u32,
    /// Whether it was configured: it stays without sessions (RFC 6146 §3.1).
    pub is_static: bool,
}

/// What a binding takes: itself in its slab, and its places in both indexes.
#[cfg(test)]
pub(crate) const BYTES_EACH: usize = size_of::<Option<Binding>>() + 2 * (size_of::<u32>() + 1);

/// The table, with an index for each direction.
#[derive(Debug)]
pub(crate) struct Bib {
    key: Key,
    bindings: Slab<Binding>,
    by_inside: HashTable<u32>,
    by_outside: HashTable<u32>,
    limit: usize,
}

impl Bib {
    pub(crate) fn new(key: Key, limit: usize) -> Self {
        Self {
            key,
            bindings: Slab::new(),
            by_inside: HashTable::new(),
            by_outside: HashTable::new(),
            limit,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bindings.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bindings.len() >= self.limit
    }

    pub(crate) fn get(&self, id: BibId) -> &Binding {
        &self.bindings[id.0 as usize]
    }

    pub(crate) fn get_mut(&mut self, id: BibId) -> &mut Binding {
        &mut self.bindings[id.0 as usize]
    }

    /// The binding of X',x.
    pub(crate) fn of_inside(&self, protocol: Protocol, inside: Endpoint6) -> Option<BibId> {
        let hash = hash_inside(&self.key, protocol, inside);
        let same = |id: &u32| {
            let binding = &self.bindings[*id as usize];
            binding.inside == inside && binding.protocol == protocol
        };
        self.by_inside.find(hash, same).map(|id| BibId(*id))
    }

    /// The binding of T,t.
    pub(crate) fn of_outside(&self, protocol: Protocol, outside: Endpoint4) -> Option<BibId> {
        let hash = hash_outside(&self.key, protocol, outside);
        let same = |id: &u32| {
            let binding = &self.bindings[*id as usize];
            binding.outside == outside && binding.protocol == protocol
        };
        self.by_outside.find(hash, same).map(|id| BibId(*id))
    }

    /// Adds a binding. Neither of its ends may be in the table, and it must not be full.
    pub(crate) fn insert(
        &mut self,
        protocol: Protocol,
        inside: Endpoint6,
        outside: Endpoint4,
        prefix: u8,
    ) -> BibId {
        let id = self.bindings.insert(Binding {
            protocol,
            inside,
            outside,
            prefix,
            sessions: 0,
            is_static: false,
        });
        let id = u32::try_from(id).unwrap_or(u32::MAX);
        let Self {
            key,
            bindings,
            by_inside,
            by_outside,
            ..
        } = self;
        let at = |id: &u32| &bindings[*id as usize];
        by_inside.insert_unique(hash_inside(key, protocol, inside), id, |id| {
            hash_inside(key, at(id).protocol, at(id).inside)
        });
        by_outside.insert_unique(hash_outside(key, protocol, outside), id, |id| {
            hash_outside(key, at(id).protocol, at(id).outside)
        });
        BibId(id)
    }

    pub(crate) fn remove(&mut self, id: BibId) -> Binding {
        let binding = self.bindings.remove(id.0 as usize);
        let inside = hash_inside(&self.key, binding.protocol, binding.inside);
        if let Ok(entry) = self.by_inside.find_entry(inside, |it| *it == id.0) {
            entry.remove();
        }
        let outside = hash_outside(&self.key, binding.protocol, binding.outside);
        if let Ok(entry) = self.by_outside.find_entry(outside, |it| *it == id.0) {
            entry.remove();
        }
        binding
    }

    /// The bindings from a place in the table on, each with its place.
    pub(crate) fn from(&self, place: usize) -> impl Iterator<Item = (usize, &Binding)> {
        let places = place..self.bindings.capacity();
        places.filter_map(|at| Some((at, self.bindings.get(at)?)))
    }

    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = (BibId, &Binding)> {
        let id = |at| BibId(u32::try_from(at).unwrap_or(u32::MAX));
        self.bindings
            .iter()
            .map(move |(at, binding)| (id(at), binding))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Binding> {
        self.bindings.iter().map(|(_, binding)| binding)
    }
}

impl BibId {
    pub(crate) fn to_bytes(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }
}

fn hash_inside(key: &Key, protocol: Protocol, inside: Endpoint6) -> u64 {
    let mut bytes = [0; 19];
    bytes[..16].copy_from_slice(&inside.address.octets());
    bytes[16..18].copy_from_slice(&inside.id.to_ne_bytes());
    bytes[18] = protocol.number();
    key.hash(&[&bytes])
}

fn hash_outside(key: &Key, protocol: Protocol, outside: Endpoint4) -> u64 {
    let mut bytes = [0; 7];
    bytes[..4].copy_from_slice(&outside.address.octets());
    bytes[4..6].copy_from_slice(&outside.id.to_ne_bytes());
    bytes[6] = protocol.number();
    key.hash(&[&bytes])
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn inside(n: u8, id: u16) -> Endpoint6 {
        Endpoint6 {
            address: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()),
            id,
        }
    }

    fn outside(n: u8, id: u16) -> Endpoint4 {
        Endpoint4 {
            address: Ipv4Addr::new(203, 0, 113, n),
            id,
        }
    }

    proptest! {
        /// Against two maps: bijective per protocol, whatever was added and removed.
        #[test]
        fn plat_3_01_a_transport_address_occurs_at_most_once(
            key in any::<[u8; 16]>(),
            steps in proptest::collection::vec((0usize..3, 0u8..4, 0u16..4, any::<bool>()), 0..200),
        ) {
            let mut bib = Bib::new(Key::new(key), 1000);
            let mut model: HashMap<(Protocol, Endpoint6), (BibId, Endpoint4)> = HashMap::new();
            for (protocol, n, id, add) in steps {
                let protocol = Protocol::ALL[protocol];
                let (a, b) = (inside(n, id), outside(n ^ 1, id ^ 2));
                match (add, model.get(&(protocol, a)).copied()) {
                    (true, None) => {
                        let id = bib.insert(protocol, a, b, 0);
                        model.insert((protocol, a), (id, b));
                    }
                    (false, Some((id, _))) => {
                        bib.remove(id);
                        model.remove(&(protocol, a));
                    }
                    _ => {}
                }
                prop_assert_eq!(bib.len(), model.len());
                for protocol in Protocol::ALL {
                    for n in 0..4 {
                        for id in 0..4 {
                            let known = model.get(&(protocol, inside(n, id)));
                            let found = bib.of_inside(protocol, inside(n, id));
                            prop_assert_eq!(found, known.map(|(id, _)| *id));
                            let outside = outside(n ^ 1, id ^ 2);
                            let found = bib.of_outside(protocol, outside);
                            prop_assert_eq!(found, known.map(|(id, _)| *id));
                        }
                    }
                }
            }
        }
    }
}
