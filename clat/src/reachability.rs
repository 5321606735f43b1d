//! Carries out a [`Probe`]: whether anything behind the NAT64 answers.

use std::net::Ipv4Addr;

use clat_core::probe::{Probe, Verdict};
use host::{clock::Clock, probe::EchoSocket};
use pref64::Pref64;
use tokio::task::JoinSet;

/// What a probe has shown about a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probed {
    pub(crate) prefix: Pref64,
    pub(crate) targets: Vec<Ipv4Addr>,
    pub(crate) verdict: Verdict,
}

/// One probe at a time: whenever the CLAT begins to run, and when the prefix changes under it.
#[derive(Debug, Default)]
pub(crate) struct Reachability {
    running: JoinSet<Probed>,
    /// What the last one was about.
    prefix: Option<Pref64>,
}

impl Reachability {
    /// `prefix` is in use. Whether it was probed already; if not, the caller starts a probe.
    pub(crate) fn is_known(&self, prefix: Pref64) -> bool {
        self.prefix == Some(prefix)
    }

    /// Starts a probe, and ends the one before.
    pub(crate) fn start(
        &mut self,
        prefix: Pref64,
        targets: Vec<Ipv4Addr>,
        socket: impl EchoSocket,
        (clock, identifier): (Clock, u16),
    ) {
        self.stop();
        self.prefix = Some(prefix);
        self.running.spawn(async move {
            let probe = Probe::new(&targets, identifier, clock.now());
            Probed {
                verdict: carry_out(probe, &socket, clock).await,
                prefix,
                targets,
            }
        });
    }

    /// No prefix is in use any more.
    pub(crate) fn stop(&mut self) {
        self.running.abort_all();
        self.prefix = None;
    }

    /// The next result. May be dropped while it waits.
    pub(crate) async fn next(&mut self) -> Probed {
        loop {
            match self.running.join_next().await {
                Some(Ok(probed)) if self.is_known(probed.prefix) => return probed,
                // One that was ended, or came too late.
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }
}

async fn carry_out(mut probe: Probe, socket: &impl EchoSocket, clock: Clock) -> Verdict {
    loop {
        let now = clock.now();
        while let Some(echo) = probe.poll_transmit(now) {
            // What does not leave is not answered.
            if let Err(error) = socket.send(echo.target, echo.hop_limit, &echo.message) {
                tracing::debug!("no echo request to {}: {error}", echo.target);
            }
        }
        if let Some(verdict) = probe.handle_timeout(now) {
            return verdict;
        }
        let received = tokio::select! {
            received = socket.recv() => received,
            () = tokio::time::sleep(clock.until(probe.next_timeout())) => continue,
        };
        match received {
            Ok(packet) => {
                if let Some(verdict) = probe.handle(&packet) {
                    return verdict;
                }
            }
            Err(error) => {
                tracing::debug!("no answers to echo requests: {error}");
                return Verdict::Unverified;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        collections::VecDeque,
        io,
        sync::{Arc, Mutex},
        time::{Duration, Instant},
    };

    const TARGET: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);

    /// The world behind: answers echo requests that come far enough.
    #[derive(Clone, Default)]
    struct World {
        /// Hops to the target; it is not there if none.
        distance: Option<u8>,
        answers: Arc<Mutex<VecDeque<Vec<u8>>>>,
    }

    impl EchoSocket for World {
        fn send(&self, target: Ipv4Addr, hop_limit: u8, message: &[u8]) -> io::Result<()> {
            let Some(distance) = self.distance else {
                return Err(io::ErrorKind::NetworkUnreachable.into());
            };
            if hop_limit >= distance {
                let mut answer = wire::ipv4::Fields {
                    tos: 0,
                    total_len: 28,
                    id: 0,
                    dont_fragment: true,
                    fragment: wire::ipv4::Fragment::default(),
                    ttl: 60,
                    protocol: wire::protocol::ICMP,
                    src: target,
                    dst: Ipv4Addr::new(192, 0, 0, 1),
                }
                .to_bytes()
                .to_vec();
                let mut message = message.to_vec();
                message[0] = 0;
                message[2..4].fill(0);
                let checksum = wire::checksum::Sum::of(&message).checksum();
                message[2..4].copy_from_slice(&checksum.to_be_bytes());
                answer.extend(message);
                self.answers.lock().unwrap().push_back(answer);
            }
            Ok(())
        }

        async fn recv(&self) -> io::Result<Vec<u8>> {
            let answer = self.answers.lock().unwrap().pop_front();
            match answer {
                Some(answer) => Ok(answer),
                None => std::future::pending().await,
            }
        }
    }

    fn prefix(text: &str) -> Pref64 {
        text.parse().unwrap()
    }

    fn start(reachability: &mut Reachability, to: Pref64, distance: Option<u8>) {
        let world = World {
            distance,
            ..World::default()
        };
        reachability.start(to, vec![TARGET], world, (Clock::start(), 7));
    }

    #[tokio::test]
    async fn disc_7050_3_2_01_a_probe_ends_with_the_first_answer_or_after_three_seconds() {
        let mut reachability = Reachability::default();
        start(&mut reachability, Pref64::WELL_KNOWN, Some(8));
        assert!(reachability.is_known(Pref64::WELL_KNOWN));
        let probed = reachability.next().await;
        assert_eq!(probed.verdict, Verdict::Reachable { by: TARGET });

        let begin = Instant::now();
        start(&mut reachability, Pref64::WELL_KNOWN, None);
        let probed = reachability.next().await;
        assert_eq!(probed.verdict, Verdict::Unverified);
        assert!(begin.elapsed() >= Duration::from_millis(2900));
    }

    #[tokio::test]
    async fn disc_7050_3_2_01_only_the_prefix_in_use_is_reported() {
        let mut reachability = Reachability::default();
        start(&mut reachability, prefix("2001:db8:65::/96"), Some(1));
        // It has ended, and nobody has heard of it yet.
        tokio::time::sleep(Duration::from_millis(50)).await;
        start(&mut reachability, prefix("2001:db8:64::/96"), Some(1));
        assert_eq!(reachability.next().await.prefix, prefix("2001:db8:64::/96"));
        start(&mut reachability, prefix("2001:db8:66::/96"), Some(1));
        reachability.stop();
        let none = tokio::time::timeout(Duration::from_millis(50), reachability.next());
        assert!(none.await.is_err());
        assert!(!reachability.is_known(prefix("2001:db8:66::/96")));
    }
}
