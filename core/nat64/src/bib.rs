//! The binding information base (RFC 6146 §3.1): which pool address and port a client's address and
//! port are.

use core::ops::Range;

use xlat::key::Key;

use crate::{
    chunks::Chunks,
    index::Index,
    tuple::{Endpoint4, Endpoint6, Protocol},
};

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

/// The table, with an index for each direction.
#[derive(Debug)]
pub(crate) struct Bib {
    key: Key,
    bindings: Chunks<Binding>,
    by_inside: Index,
    by_outside: Index,
    limit: usize,
}

impl Bib {
    /// An empty table for at most `limit` bindings, and for [`Index::MOST`].
    pub(crate) fn new(key: Key, limit: usize) -> Self {
        Self {
            key,
            bindings: Chunks::new(),
            by_inside: Index::new(),
            by_outside: Index::new(),
            limit,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bindings.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bindings.len() >= self.limit.min(Index::MOST)
    }

    pub(crate) fn get(&self, id: BibId) -> &Binding {
        &self.bindings[id.0]
    }

    pub(crate) fn get_mut(&mut self, id: BibId) -> &mut Binding {
        &mut self.bindings[id.0]
    }

    /// The binding of X',x.
    pub(crate) fn of_inside(&self, protocol: Protocol, inside: Endpoint6) -> Option<BibId> {
        let hash = self.key.hash(&[&inside_key(protocol, inside)]);
        let same = |id| {
            let binding = &self.bindings[id];
            binding.inside == inside && binding.protocol == protocol
        };
        self.by_inside.find(hash, same).map(BibId)
    }

    /// The binding of T,t.
    pub(crate) fn of_outside(&self, protocol: Protocol, outside: Endpoint4) -> Option<BibId> {
        let hash = self.key.hash(&[&outside_key(protocol, outside)]);
        let same = |id| {
            let binding = &self.bindings[id];
            binding.outside == outside && binding.protocol == protocol
        };
        self.by_outside.find(hash, same).map(BibId)
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
        let Self { key, bindings, .. } = self;
        self.by_inside.insert(
            key.hash(&[&inside_key(protocol, inside)]),
            id,
            |id| inside_key(bindings[id].protocol, bindings[id].inside),
            |bytes| key.hash(&[bytes]),
        );
        self.by_outside.insert(
            key.hash(&[&outside_key(protocol, outside)]),
            id,
            |id| outside_key(bindings[id].protocol, bindings[id].outside),
            |bytes| key.hash(&[bytes]),
        );
        BibId(id)
    }

    /// Removes a binding, which must be there.
    pub(crate) fn remove(&mut self, id: BibId) -> Binding {
        let binding = self.bindings[id.0];
        let inside = inside_key(binding.protocol, binding.inside);
        self.by_inside.remove(self.key.hash(&[&inside]), id.0);
        let outside = outside_key(binding.protocol, binding.outside);
        self.by_outside.remove(self.key.hash(&[&outside]), id.0);
        self.bindings.remove(id.0);
        binding
    }

    /// The bindings from a place in the table on, each with its place.
    pub(crate) fn from(&self, place: usize) -> impl Iterator<Item = (usize, &Binding)> {
        let all = self.bindings.from(place);
        all.map(|(at, binding)| (at as usize, binding))
    }

    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = (BibId, &Binding)> {
        let all = self.bindings.from(0);
        all.map(|(at, binding)| (BibId(at), binding))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Binding> {
        self.ids().map(|(_, binding)| binding)
    }

    /// The addresses of the bindings and their indexes, which stay where they are.
    pub(crate) fn memory(&self) -> impl Iterator<Item = Range<usize>> {
        let indexes = self.by_inside.memory().chain(self.by_outside.memory());
        self.bindings.memory().chain(indexes)
    }

    /// Bytes of the bindings and their indexes.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        let entries = self.len() * Chunks::<Binding>::BYTES_EACH;
        entries + self.by_inside.bytes() + self.by_outside.bytes()
    }
}

fn inside_key(protocol: Protocol, inside: Endpoint6) -> [u8; 19] {
    let mut bytes = [0; 19];
    bytes[..18].copy_from_slice(&inside.to_bytes());
    bytes[18] = protocol.number();
    bytes
}

fn outside_key(protocol: Protocol, outside: Endpoint4) -> [u8; 7] {
    let mut bytes = [0; 7];
    bytes[..6].copy_from_slice(&outside.to_bytes());
    bytes[6] = protocol.number();
    bytes
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
