//! Counts what is logged, for tests.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    span::{Attributes, Id, Record},
    subscriber,
};

/// How many lines of level INFO and above this thread logs meanwhile.
pub fn logged(work: impl FnOnce()) -> u32 {
    let lines = Lines::default();
    subscriber::with_default(lines.clone(), work);
    lines.0.load(Ordering::Relaxed)
}

#[derive(Clone, Default)]
struct Lines(Arc<AtomicU32>);

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
