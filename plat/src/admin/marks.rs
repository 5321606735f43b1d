//! High-water marks of the pool.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Mutex, PoisonError},
};

use control::plat::PoolRow;

/// The most that was seen in use at once, by address and protocol.
#[derive(Debug, Default)]
pub(super) struct Marks(Mutex<HashMap<(Ipv4Addr, &'static str), u64>>);

impl Marks {
    /// Raises the marks to what is in use, and writes them into the rows. Marks of addresses that
    /// are not in the pool any more are forgotten.
    pub(super) fn raise(&self, rows: &mut [PoolRow]) {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let raised = rows.iter_mut().map(|row| {
            let key = (row.address, row.protocol.name());
            let mark = marks.get(&key).copied().unwrap_or_default().max(row.used);
            row.high_water = Some(mark);
            (key, mark)
        });
        let raised = raised.collect();
        *marks = raised;
    }
}
