//! Both directions over the virtual interface.

use std::sync::Arc;

use host::tun::{Received, Tun};
use wire::{packet::PacketBuf, pieces::Pieces, verdict::Verdict};

use super::{
    Engine,
    shared::{Event, Followed, OUT, Shared, send_to_host},
};

/// Both directions over the virtual interface: the kernel routes the IPv6 side.
pub(super) struct RoutedThread {
    engine: Engine,
    tun: Arc<dyn Tun>,
    shared: Arc<Shared>,
    segment: bool,
}

impl RoutedThread {
    pub(super) fn new(engine: Engine, tun: Arc<dyn Tun>, shared: Arc<Shared>) -> Self {
        Self {
            engine,
            tun,
            shared,
            segment: false,
        }
    }

    pub(super) fn run(mut self) -> Engine {
        let mut buf = PacketBuf::new();
        let shared = Arc::clone(&self.shared);
        let mut settings = Followed::new(&shared);
        self.engine.configure(settings.current());
        while !shared.stopped() {
            match self.tun.recv(&mut buf, None) {
                Ok(Received::Packet) => {
                    if let Some(changed) = settings.changed() {
                        self.engine.configure(changed);
                    }
                    self.handle(&mut buf);
                }
                Ok(Received::Unreadable(error)) => {
                    tracing::debug!("a packet cannot be read: {error:?}");
                    shared.stats.unreadable[OUT].add(1);
                }
                Ok(Received::Woken | Received::TimedOut) => {}
                Err(error) => {
                    shared.tell(Event::Failed(format!("the virtual interface: {error}")));
                    break;
                }
            }
        }
        self.engine
    }

    fn handle(&mut self, buf: &mut PacketBuf) {
        let now = self.shared.clock.now();
        let is_ipv6 = buf.bytes().first().is_some_and(|first| first >> 4 == 6);
        let verdict = if is_ipv6 {
            self.engine.inbound.handle_net(buf, now)
        } else {
            self.engine.outbound.handle_host(buf, now)
        };
        let pieces = match verdict {
            Verdict::Forward(pieces) => pieces,
            // Either family goes back the way it came.
            Verdict::Reply(_) => Pieces::whole(),
            Verdict::Drop(_) => return,
        };
        send_to_host(&*self.tun, &self.shared, pieces, buf, &mut self.segment);
    }
}
