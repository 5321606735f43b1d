//! Systems on which nothing is done about it.

use std::io;

pub(super) fn huge_page_size() -> Option<usize> {
    None
}

pub(super) fn gather(_: usize, _: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
