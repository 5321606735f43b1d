//! Spare addresses of a link (`pool_mode = "arp"`): asked for before they are used, and watched
//! while they are.

use std::time::Instant;

use cli::{Exit, Failure, seldom::Seldom};
use host::{
    arp::Claimed,
    netwatch::Snapshot,
    signals::{Signals, Told},
};

use crate::{config::Config, pool_mode::PoolMode};

/// Signals that came while something else was waited for: what they ask for is done afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meanwhile {
    /// The configuration is to be read again.
    pub(crate) hung_up: bool,
    /// It is to be said how it is.
    pub(crate) report: bool,
}

/// The addresses that this host answers for on a link.
pub(crate) struct Spare {
    claimed: Option<Claimed>,
    conflicts: Seldom<()>,
}

impl Spare {
    /// Asks the link whether the addresses that this host is to answer for are free, if there are
    /// any, and waits for silence. `None` if a signal ended that; what others asked for is noted
    /// in `meanwhile`.
    ///
    /// # Errors
    /// Somebody has one of them, or the link cannot be asked.
    pub(crate) async fn claim(
        config: &Config,
        snapshot: &Snapshot,
        signals: &mut impl Signals,
        meanwhile: &mut Meanwhile,
    ) -> Result<Option<Self>, Failure> {
        let mut claimed = None;
        if config.pool_mode == PoolMode::Arp {
            let mut asking = begin(config, snapshot)?;
            tracing::info!("asking whether the pool's addresses are free, for some seconds");
            tokio::select! {
                free = free(&mut asking) => free?,
                () = ended(signals, meanwhile) => return Ok(None),
            }
            claimed = Some(asking);
        }
        Ok(Some(Self {
            claimed,
            conflicts: Seldom::default(),
        }))
    }

    /// They are used from now on.
    pub(crate) fn used(&mut self) {
        if let Some(claimed) = &mut self.claimed {
            claimed.used();
        }
    }

    /// Tells the link of them and watches it. Never returns; nothing is lost if it is dropped.
    pub(crate) async fn watch(&mut self) {
        while let Some(claimed) = &mut self.claimed {
            match claimed.watch().await {
                Ok(conflict) => {
                    if let Some(left_out) = self.conflicts.say((), Instant::now()) {
                        tracing::warn!(
                            "{} is also used by {}: give one of the two another address{left_out}",
                            conflict.address,
                            conflict.by
                        );
                    }
                }
                Err(error) => {
                    tracing::warn!("conflicts of the pool's addresses go unseen: {error}");
                    self.claimed = None;
                }
            }
        }
        std::future::pending::<()>().await;
    }
}

fn begin(config: &Config, snapshot: &Snapshot) -> Result<Claimed, Failure> {
    let name = config.uplink.as_deref().unwrap_or_default();
    let found = snapshot.by_name(name);
    let Some((index, mac)) = found.and_then(|it| Some((it.index, it.mac?))) else {
        let what = format_args!("{name} is no Ethernet interface: there is no ARP on it");
        return Err(Failure::new(Exit::Usage, what)
            .hint("name another with `uplink`, or have the pool routed to this host"));
    };
    let mut seed = [0; 8];
    getrandom::fill(&mut seed)
        .map_err(|error| Failure::error(format_args!("no randomness: {error}")))?;
    let addresses = config.answered.clone();
    Claimed::begin(index, mac, addresses, u64::from_ne_bytes(seed)).map_err(|error| {
        Failure::io("cannot listen to ARP", &error)
            .permission_hint("run it as root, or with CAP_NET_RAW")
    })
}

async fn free(claimed: &mut Claimed) -> Result<(), Failure> {
    match claimed.free().await {
        Ok(None) => Ok(()),
        Ok(Some(conflict)) => {
            let what = format_args!("{} is in use by {}", conflict.address, conflict.by);
            Err(Failure::error(what)
                .hint("leave it out of `pool` (or `[[eam]]`), or take it from that host"))
        }
        Err(error) => Err(Failure::io("cannot ask by ARP", &error)),
    }
}

/// Waits for the signal to end, and remembers others.
async fn ended(signals: &mut impl Signals, meanwhile: &mut Meanwhile) {
    loop {
        match signals.next().await {
            Told::End => return,
            Told::HangUp => meanwhile.hung_up = true,
            Told::Report => meanwhile.report = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those that come, in this order, and then no more.
    struct Coming(Vec<Told>);

    impl Signals for Coming {
        async fn next(&mut self) -> Told {
            if self.0.is_empty() {
                std::future::pending::<()>().await;
            }
            self.0.remove(0)
        }
    }

    #[tokio::test]
    async fn signals_while_the_link_is_asked_are_remembered() {
        let (neither, hung_up) = (Meanwhile::default(), Told::HangUp);
        for (told, remembered) in [
            (vec![], neither),
            (
                vec![hung_up],
                Meanwhile {
                    hung_up: true,
                    ..neither
                },
            ),
            (
                vec![Told::Report],
                Meanwhile {
                    report: true,
                    ..neither
                },
            ),
            (
                vec![Told::Report, hung_up, Told::Report],
                Meanwhile {
                    hung_up: true,
                    report: true,
                },
            ),
        ] {
            let mut meanwhile = neither;
            let mut coming = told.clone();
            coming.extend([Told::End, hung_up]);
            let mut coming = Coming(coming);
            ended(&mut coming, &mut meanwhile).await;
            assert_eq!(meanwhile, remembered, "{told:?}");
            // What comes after the end is nobody's.
            assert_eq!(coming.0, [hung_up]);
            // Also if the link has answered before the end comes.
            let mut meanwhile = neither;
            let mut coming = Coming(told.clone());
            tokio::select! {
                biased;
                () = ended(&mut coming, &mut meanwhile) => panic!("it is not ended"),
                () = async {} => {}
            }
            assert_eq!(meanwhile, remembered, "{told:?}");
        }
    }
}
