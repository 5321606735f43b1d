//! Forwarding: the host is to pass packets on for the PLAT, and is to stay for everybody else what
//! it was.

use std::collections::BTreeMap;

use host::{
    netcfg::{NetCfg, System},
    netwatch::{Interface, Snapshot},
};
use plan::{ForwardingGuard, Ipv6Before, Item, Setting};

use crate::{config::Config, pool_mode::PoolMode};

/// The switch for IPv4 on all interfaces. It is not ours: those of single interfaces are.
const IPV4: &str = "net/ipv4/ip_forward";

fn ipv4_of(interface: &str) -> String {
    format!("net/ipv4/conf/{interface}/forwarding")
}

/// What the host is to forward, and what it would not forward without the PLAT. Of the host as it
/// is: interfaces come and go.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Forwarding {
    /// Interfaces from which IPv4 is to be forwarded, and whether it was before.
    ipv4: BTreeMap<String, bool>,
    ipv6: Ipv6Before,
    /// Somebody has switched IPv4 forwarding on for all interfaces since the PLAT was started.
    others_forward: bool,
    /// [`IPV4`] when the PLAT was started.
    at_the_start: Option<String>,
    /// The interfaces with their numbers: a name may be another interface's by now.
    numbers: BTreeMap<String, u32>,
}

impl Forwarding {
    /// Forgets interfaces in whose place others of the same name are, and says whether there were
    /// any: settings went with the old ones, and the new ones have none of them.
    pub(crate) fn forget_replaced(&mut self, snapshot: &Snapshot) -> bool {
        let is_other = |(name, index): (&String, &u32)| {
            let now = snapshot.by_name(name).map(|it| it.index);
            now.filter(|now| now != index).map(|_| name.clone())
        };
        let replaced: Vec<_> = self.numbers.iter().filter_map(is_other).collect();
        for name in &replaced {
            self.ipv4.remove(name);
            self.ipv6.listening.remove(name);
            self.numbers.remove(name);
        }
        !replaced.is_empty()
    }

    /// Learns of the host as it is.
    pub(crate) async fn follow(
        &mut self,
        config: &Config,
        snapshot: &Snapshot,
        netcfg: &mut NetCfg<impl System>,
    ) {
        let names = || others(config, snapshot).map(|it| it.name.as_str());
        let mut paths = Ipv6Before::settings(names());
        paths.push(IPV4.to_owned());
        paths.extend(names().map(ipv4_of));
        let originals = netcfg.originals(paths).await;
        self.update(config, snapshot, |path| originals.get(path).cloned());
    }

    /// [`Self::follow`], by what the settings of the host were before the PLAT.
    pub(crate) fn update(
        &mut self,
        config: &Config,
        snapshot: &Snapshot,
        original: impl Fn(&str) -> Option<String>,
    ) {
        let is = |path: &str, value| original(path).is_some_and(|it| it == value);
        let all = || others(config, snapshot);
        self.ipv6 = Ipv6Before::of(all().map(|it| it.name.as_str()), &original);
        let serves = |it: &&Interface| !it.ipv4.is_empty() && leads_somewhere(config, &it.name);
        let ipv4 = all().filter(serves).map(|it| {
            let was_on = !is(&ipv4_of(&it.name), "0");
            (it.name.clone(), was_on)
        });
        self.ipv4 = ipv4.collect();
        let now = original(IPV4).unwrap_or_default();
        let start = self.at_the_start.get_or_insert_with(|| now.clone());
        self.others_forward = start == "0" && now == "1";
        self.numbers = all().map(|it| (it.name.clone(), it.index)).collect();
    }

    /// The guard, before anything is switched on. IPv4 on our interface and those that it needs,
    /// one by one, since the switch for all has side effects. IPv6 has only the switch for all;
    /// before it is thrown, interfaces that listen to routers are told to go on.
    pub(crate) fn items(&self, config: &Config, name: String) -> Vec<Item> {
        let setting = |path: String, value: &str| {
            Item::Setting(Setting {
                path,
                value: value.to_owned(),
            })
        };
        let mut items = Vec::new();
        items.extend(self.guard(config, name).map(Item::ForwardingGuard));
        items.extend(self.ipv6.switch_on());
        let ipv4 = self.ipv4.keys().chain([&config.interface]);
        items.extend(ipv4.map(|it| setting(ipv4_of(it), "1")));
        items
    }

    fn guard(&self, config: &Config, name: String) -> Option<ForwardingGuard> {
        let were_off = self.ipv4.iter().filter(|(_, was_on)| !**was_on);
        let were_off = were_off.filter(|_| !self.others_forward);
        let guard = ForwardingGuard {
            name,
            interface: config.interface.clone(),
            ipv4: were_off.map(|(name, _)| name.clone()).collect(),
            ipv6: self.ipv6.was_off,
        };
        let guards = guard.ipv6 || !guard.ipv4.is_empty();
        (config.forward_guard && guards).then_some(guard)
    }
}

/// The interfaces that are not ours.
fn others<'a>(config: &'a Config, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a Interface> {
    let all = snapshot.interfaces.iter();
    all.filter(|it| it.name != config.interface && it.name != "lo")
}

/// Whether packets of clients are answered by an interface with IPv4 addresses. A pool that is not
/// routed here is for the uplink; private networks and hosts with a mapping may be behind any.
fn leads_somewhere(config: &Config, interface: &str) -> bool {
    let anywhere = config.pool_mode == PoolMode::Routed;
    let others = !config.allow_destinations.is_empty() || config.eam.iter().next().is_some();
    anywhere || others || config.uplink.as_deref() == Some(interface)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_host;

    const IPV6: &str = "net/ipv6/conf/all/forwarding";

    fn found(index: u32, name: &str, ipv4: &[&str]) -> Interface {
        test_host::interface(index, name, &[], ipv4)
    }

    /// A LAN without IPv4 and a WAN.
    fn host() -> Snapshot {
        Snapshot {
            interfaces: vec![
                found(1, "lo", &["127.0.0.1"]),
                found(2, "eth0", &[]),
                found(9, "plat0", &["192.0.2.9"]),
                found(3, "ppp0", &["192.0.2.1"]),
            ],
            ..Snapshot::default()
        }
    }

    /// What a host has by default, with changes.
    fn original(path: &str, changed: &[(&str, &str)]) -> Option<String> {
        let changed = changed.iter().find(|(it, _)| *it == path);
        let default = if path.ends_with("accept_ra") {
            "1"
        } else {
            "0"
        };
        Some(changed.map_or(default, |(_, value)| value).to_owned())
    }

    fn config(more: &str) -> Config {
        let text = format!("pool = [\"203.0.113.0/28\"]\n{more}");
        crate::config::tests::settled(&text).unwrap()
    }

    fn texts(forwarding: &Forwarding, config: &Config) -> Vec<String> {
        let items = forwarding.items(config, "name".into());
        items.iter().map(ToString::to_string).collect()
    }

    fn items(changed: &[(&str, &str)]) -> Vec<String> {
        let mut forwarding = Forwarding::default();
        forwarding.update(&config(""), &host(), |it| original(it, changed));
        texts(&forwarding, &config(""))
    }

    #[test]
    fn a_host_stays_a_host_for_everybody_else() {
        let expected = [
            "IPv6 and IPv4 from ppp0 forwarded to and from plat0 only",
            "setting net/ipv6/conf/eth0/accept_ra = 2",
            "setting net/ipv6/conf/ppp0/accept_ra = 2",
            "setting net/ipv6/conf/all/forwarding = 1",
            "setting net/ipv4/conf/ppp0/forwarding = 1",
            "setting net/ipv4/conf/plat0/forwarding = 1",
        ];
        assert_eq!(items(&[]), expected);
        // Whoever does not want it says so.
        let mut forwarding = Forwarding::default();
        let open = config("forward_guard = false");
        forwarding.update(&open, &host(), |it| original(it, &[]));
        assert_eq!(texts(&forwarding, &open), expected[1..]);
    }

    #[test]
    fn what_was_forwarded_is_not_guarded() {
        let ipv6_only = "IPv6 forwarded to and from plat0 only";
        let ipv4 = ("net/ipv4/conf/ppp0/forwarding", "1");
        assert_eq!(items(&[ipv4])[0], ipv6_only);
        let ipv6 = (IPV6, "1");
        let shown = items(&[ipv6]);
        assert_eq!(shown[0], "IPv4 from ppp0 forwarded to and from plat0 only");
        let shown = items(&[ipv4, ipv6]);
        assert!(shown[0].starts_with("setting"), "{shown:?}");
    }

    /// Only where the kernel listened before, and would no more.
    #[test]
    fn only_who_listened_to_routers_goes_on_listening() {
        let listening = |changed: &[(&str, &str)]| {
            let all = items(changed).into_iter();
            all.filter(|it| it.contains("accept_ra"))
                .collect::<Vec<_>>()
        };
        let eth0 = "setting net/ipv6/conf/eth0/accept_ra = 2";
        let off = ("net/ipv6/conf/ppp0/accept_ra", "0");
        assert_eq!(listening(&[off]), [eth0]);
        // A router: it listens to nobody, but for an interface where it is a host.
        assert!(listening(&[(IPV6, "1")]).is_empty());
        assert_eq!(listening(&[(IPV6, "1 eth0")]), [eth0]);
        assert_eq!(listening(&[(IPV6, "0 ppp0")]), [eth0]);
    }

    /// A container engine, for example.
    #[test]
    fn who_switches_forwarding_on_later_is_not_in_the_guards_way() {
        let (config, mut forwarding) = (config(""), Forwarding::default());
        let on = [(IPV4, "1")];
        forwarding.update(&config, &host(), |it| original(it, &[]));
        forwarding.update(&config, &host(), |it| original(it, &on));
        let shown = texts(&forwarding, &config);
        assert_eq!(shown[0], "IPv6 forwarded to and from plat0 only");
        // It was so already: an interface that did not forward all the same was meant not to.
        let mut forwarding = Forwarding::default();
        forwarding.update(&config, &host(), |it| original(it, &on));
        assert!(texts(&forwarding, &config)[0].contains("ppp0"));
    }

    #[test]
    fn interfaces_come_go_and_are_replaced() {
        let (config, mut forwarding) = (config(""), Forwarding::default());
        let mut snapshot = host();
        let wan = snapshot.interfaces.pop().unwrap();
        let forwards = |forwarding: &Forwarding| {
            let shown = texts(forwarding, &config);
            shown.contains(&"setting net/ipv4/conf/ppp0/forwarding = 1".to_owned())
        };
        let look = |forwarding: &mut Forwarding, snapshot: &Snapshot| {
            let replaced = forwarding.forget_replaced(snapshot);
            let without = !forwards(forwarding);
            forwarding.update(&config, snapshot, |it| original(it, &[]));
            (replaced, without, forwards(forwarding))
        };
        assert_eq!(look(&mut forwarding, &snapshot), (false, true, false));
        snapshot.interfaces.push(wan);
        assert_eq!(look(&mut forwarding, &snapshot), (false, true, true));
        assert_eq!(look(&mut forwarding, &snapshot), (false, false, true));
        // It is dialled anew between two looks.
        snapshot.interfaces[3].index = 7;
        assert_eq!(look(&mut forwarding, &snapshot), (true, true, true));
        snapshot.interfaces.pop();
        assert_eq!(look(&mut forwarding, &snapshot), (false, false, false));
    }

    /// A setting that cannot be read was none of ours to switch on.
    #[test]
    fn what_the_host_does_not_say_is_not_guarded() {
        let mut forwarding = Forwarding::default();
        let unknown = "net/ipv4/conf/ppp0/forwarding";
        let known = |path: &str| (path != unknown).then(|| original(path, &[])).flatten();
        forwarding.update(&config(""), &host(), known);
        let shown = texts(&forwarding, &config(""));
        assert_eq!(shown[0], "IPv6 forwarded to and from plat0 only");
    }

    /// Of an interface in whose place another one is, nothing is known, and that is said once.
    #[test]
    fn a_replaced_interface_is_forgotten_altogether() {
        let (config, mut forwarding) = (config(""), Forwarding::default());
        let mut snapshot = host();
        forwarding.update(&config, &snapshot, |it| original(it, &[]));
        snapshot.interfaces[3].index = 7;
        assert!(forwarding.forget_replaced(&snapshot));
        assert!(!forwarding.forget_replaced(&snapshot));
        let shown = texts(&forwarding, &config);
        assert!(shown.iter().all(|it| !it.contains("ppp0")), "{shown:?}");
        assert!(shown.iter().any(|it| it.contains("eth0/accept_ra")));
    }

    /// Only where answers to clients can come from.
    #[test]
    fn ipv4_is_forwarded_from_where_it_leads() {
        let from = |text: &str| {
            let config = crate::config::tests::settled(text).unwrap();
            let mut snapshot = host();
            snapshot.interfaces.push(found(4, "eth1", &["10.0.0.1"]));
            let mut forwarding = Forwarding::default();
            forwarding.update(&config, &snapshot, |it| original(it, &[]));
            forwarding.ipv4.into_keys().collect::<Vec<_>>()
        };
        let uplink = "pool_mode = \"masquerade\"\nuplink = \"ppp0\"\n";
        assert_eq!(from(uplink), ["ppp0"]);
        let everywhere = ["eth1", "ppp0"];
        assert_eq!(from("pool = [\"203.0.113.0/28\"]"), everywhere);
        let private = "allow_destinations = [\"10.0.0.0/8\"]";
        assert_eq!(from(&format!("{uplink}{private}")), everywhere);
        let host = "[[eam]]\nipv4 = \"198.51.100.1\"\nipv6 = \"2001:db8::1\"";
        assert_eq!(from(&format!("{uplink}{host}")), everywhere);
    }
}
