//! A host whose addresses and networks change.

use std::net::{Ipv4Addr, Ipv6Addr};

use host::{
    netcfg::System,
    netwatch::{Network, Snapshot},
    signals::Signals,
    sockets,
};
use nat64::network6::Network6;

use super::{
    Surroundings,
    addresses::{has_ipv6, own_ipv6, shared_address_is_gone},
};
use crate::{clients, config::Config, pool_mode::on_host};

impl<W: Network, S: System> Surroundings<W, S> {
    /// Looks at the host again. What fails is tried again with the next look.
    pub(super) async fn follow(&mut self, signals: &mut impl Signals) {
        match self.watch.snapshot().await {
            Ok(snapshot) => {
                self.follow_uplink(&snapshot, signals).await;
                if let Err(error) = self.arrange(&snapshot).await {
                    tracing::warn!("{error}");
                }
            }
            Err(error) => tracing::warn!("cannot read the network interfaces: {error}"),
        }
    }

    /// No client may reach the host's own addresses. Workers that cannot be told are told with the
    /// next look.
    pub(super) async fn tell_own_addresses(&mut self, own: Vec<Ipv4Addr>) {
        let Some(orders) = self.orders.as_ref().filter(|_| own != self.own) else {
            return;
        };
        let addresses = own.clone();
        let told = orders.each(move |engine, _| engine.set_own_addresses(addresses.clone()));
        match told.await {
            Ok(_) => self.own = own,
            Err(error) => tracing::warn!("cannot tell the host's own addresses: {error}"),
        }
    }

    /// A new address to share, one to speak from, or new networks of clients. What went by the old
    /// one ends at once. While there is none, nothing changes; workers that cannot be told are told
    /// with the next look.
    pub(super) async fn follow_addresses(&mut self, snapshot: &Snapshot) {
        let Some(orders) = &self.orders else {
            return;
        };
        let (config, speaks_from) = self.by_now(snapshot);
        if config.pool == self.config.pool
            && config.clients == self.config.clients
            && speaks_from == self.speaks_from
        {
            return;
        }
        let engine = config.for_engine(speaks_from, self.own.clone());
        let told = orders.each(move |it, _| it.reconfigure(engine.clone()).is_ok());
        match told.await {
            Ok(all) if all.iter().all(|done| *done) => {
                self.say_what_changed(&config);
                self.config = config;
                self.speaks_from = speaks_from;
            }
            Ok(_) => tracing::warn!("the new address cannot be used"),
            Err(error) => tracing::warn!("cannot tell the new address: {error}"),
        }
    }

    /// The configuration as it would hold on this host now, and the address to speak from.
    fn by_now(&self, snapshot: &Snapshot) -> (Config, Ipv6Addr) {
        let mut config = self.config.clone();
        if shared_address_is_gone(&config, snapshot) {
            match on_host(&self.asked, snapshot, sockets::in_use) {
                Ok(new) => config = new,
                Err(failure) => tracing::warn!("still with the old address: {failure}"),
            }
        }
        config.clients = self.clients(&config, snapshot);
        let speaks_from = match own_ipv6(snapshot) {
            Ok(new) if !has_ipv6(snapshot, self.speaks_from) => new,
            Ok(_) | Err(_) => self.speaks_from,
        };
        (config, speaks_from)
    }

    fn say_what_changed(&self, new: &Config) {
        if new.pool != self.config.pool {
            for range in &new.pool {
                tracing::info!("the address is {range} now; what went by the old one has ended");
            }
        }
        if new.clients != self.config.clients {
            tracing::info!("{}", clients::text(&self.asked, new).trim_end());
        }
    }

    /// Who may use it: as configured, or else the networks that this host is on the way to now.
    fn clients(&self, config: &Config, snapshot: &Snapshot) -> Vec<Network6> {
        if self.asked.clients.is_empty() {
            return clients::of_host(config, snapshot);
        }
        self.asked.clients.clone()
    }
}
