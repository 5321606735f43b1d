//! Huge pages for memory that is there to stay.
//!
//! A table of a hundred megabytes is looked up anywhere. In pages of 4 KiB it costs, besides the
//! entry, a walk through the page tables, which do not fit the processor's caches either. Pages of
//! 2 MiB from the start would be paid for by small tables, most of whose page is empty. So memory
//! is put together into huge pages once it is full.

use std::ops::Range;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as system;

#[cfg(not(target_os = "linux"))]
mod none;
#[cfg(not(target_os = "linux"))]
use none as system;

/// Parts that are put together at a time: each is copied, which takes some tenths of a millisecond.
const AT_ONCE: usize = 16;

/// What has been put into huge pages so far.
#[derive(Debug, Default)]
pub struct HugePages {
    /// The addresses of those that are, or cannot be.
    done: std::collections::HashSet<usize>,
}

impl HugePages {
    /// Puts full parts of `areas`, which are addresses of this process's memory, into huge pages: a
    /// few of them; the next call goes on. What is in the memory stays as it is. How many.
    ///
    /// What the system does not want to give, it is not asked for again: that costs some time, and
    /// nothing else.
    pub fn gather(&mut self, areas: impl IntoIterator<Item = Range<usize>>) -> usize {
        let Some(size) = system::huge_page_size() else {
            return 0;
        };
        let parts = areas.into_iter().flat_map(|area| whole_parts(&area, size));
        let new: Vec<_> = parts
            .filter(|part| !self.done.contains(part))
            .take(AT_ONCE)
            .collect();
        let mut gathered = 0;
        for part in new {
            self.done.insert(part);
            match system::gather(part, size) {
                Ok(()) => gathered += 1,
                Err(error) => tracing::debug!("no huge page for a table: {error}"),
            }
        }
        gathered
    }
}

/// The beginnings of the parts of `size` bytes, each at a multiple of that, that are whole in an area.
fn whole_parts(area: &Range<usize>, size: usize) -> impl Iterator<Item = usize> + use<> {
    let first = area.start.div_ceil(size);
    let end = area.end / size;
    (first..end).map(move |at| at * size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_parts_are_meant() {
        let parts = |area: Range<usize>| whole_parts(&area, 8).collect::<Vec<_>>();
        assert_eq!(parts(8..24), [8, 16]);
        assert_eq!(parts(9..24), [16]);
        assert_eq!(parts(8..23), [8]);
        assert!(parts(9..16).is_empty());
        assert!(parts(3..4).is_empty());
        assert!(parts(0..0).is_empty());
    }
}
