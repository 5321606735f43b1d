//! IPv6 of a host that is made to forward, and is to stay for everybody else what it was.

use std::collections::BTreeSet;

use crate::{Item, Setting};

/// The switch for IPv6. Thrown, it is thrown on every interface.
const SWITCH: &str = "net/ipv6/conf/all/forwarding";

fn accept_ra_of(interface: &str) -> String {
    format!("net/ipv6/conf/{interface}/accept_ra")
}

/// What a host did with IPv6 before a program of ours switched forwarding on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ipv6Before {
    /// Whether it did not forward.
    pub was_off: bool,
    /// Interfaces on which it listened to routers, as a host does and a router does not.
    pub listening: BTreeSet<String>,
}

impl Ipv6Before {
    /// The settings that it hangs on, for a host with these interfaces.
    pub fn settings<'a>(interfaces: impl Iterator<Item = &'a str>) -> Vec<String> {
        let switch = std::iter::once(SWITCH.to_owned());
        switch.chain(interfaces.map(accept_ra_of)).collect()
    }

    /// By how these settings were. The switch is followed by the interfaces whose own was another:
    /// `0 eth1`.
    pub fn of<'a>(
        interfaces: impl Iterator<Item = &'a str>,
        original: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let switch = original(SWITCH).unwrap_or_default();
        let mut switch = switch.split(' ');
        let was_off = switch.next() == Some("0");
        let differ: BTreeSet<_> = switch.collect();
        let was_host = |name: &str| was_off != differ.contains(name);
        let accepts = |name: &str| original(&accept_ra_of(name)).is_some_and(|it| it == "1");
        let listening = interfaces.filter(|it| was_host(it) && accepts(it));
        Self {
            was_off,
            listening: listening.map(str::to_owned).collect(),
        }
    }

    /// Switches forwarding on. Before, interfaces that listen to routers are told to go on: else
    /// the kernel forgets what they have heard.
    pub fn switch_on(&self) -> impl Iterator<Item = Item> {
        let setting = |path, value: &str| {
            Item::Setting(Setting {
                path,
                value: value.to_owned(),
            })
        };
        let listening = self.listening.iter();
        let listening = listening.map(move |it| setting(accept_ra_of(it), "2"));
        listening.chain([setting(SWITCH.to_owned(), "1")])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(switch: &str, accept_ra: &[(&str, &str)]) -> (bool, Vec<String>) {
        let original = |path: &str| {
            let is_it = |(name, _): &&(&str, &str)| path == accept_ra_of(name);
            let found = accept_ra.iter().find(is_it).map(|(_, value)| *value);
            found
                .or_else(|| (path == SWITCH).then_some(switch))
                .map(str::to_owned)
        };
        let before = Ipv6Before::of(accept_ra.iter().map(|(name, _)| *name), original);
        let items = before.switch_on().map(|it| it.to_string());
        (before.was_off, items.collect())
    }

    #[test]
    fn only_who_listened_to_routers_goes_on_listening() {
        let eth0 = "setting net/ipv6/conf/eth0/accept_ra = 2".to_owned();
        let eth1 = "setting net/ipv6/conf/eth1/accept_ra = 2".to_owned();
        let switch = "setting net/ipv6/conf/all/forwarding = 1".to_owned();
        let both = [("eth0", "1"), ("eth1", "1")];
        let all = vec![eth0.clone(), eth1, switch.clone()];
        assert_eq!(shown("0", &both), (true, all));
        // One that a program listens on by itself, and one that listens to routers anyway.
        let others = [("eth0", "1"), ("eth1", "0"), ("eth2", "2")];
        let one = vec![eth0, switch.clone()];
        assert_eq!(shown("0", &others), (true, one.clone()));
        // A router, but for an interface.
        assert_eq!(shown("1", &both), (false, vec![switch]));
        assert_eq!(shown("1 eth0", &both), (false, one.clone()));
        assert_eq!(shown("0 eth1", &both), (true, one));
    }
}
