//! The host's other interfaces, which stay what they are while it forwards for the CLAT.

use std::collections::BTreeMap;

use host::{
    netcfg::{NetCfg, System},
    netwatch::Snapshot,
};
use plan::Ipv6Before;

/// The interfaces that are not ours, with their numbers: a name may be another interface's by now.
#[derive(Debug, Default)]
pub(crate) struct Surroundings(BTreeMap<String, u32>);

impl Surroundings {
    /// Learns of the interfaces as they are. Those in whose place others of the same name are, are
    /// left out for this time, and it says whether there were any: settings went with the old ones,
    /// and the new ones have none of them.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot, own: &str) -> bool {
        let all = snapshot.interfaces.iter();
        let others = all.filter(|it| it.name != own && it.name != "lo");
        let now: BTreeMap<_, _> = others.map(|it| (it.name.clone(), it.index)).collect();
        let mut same = now.clone();
        same.retain(|name, index| self.0.get(name).is_none_or(|before| before == index));
        let replaced = same.len() < now.len();
        self.0 = same;
        replaced
    }

    /// What the host did with IPv6 on them before a program of ours changed that.
    pub(crate) async fn ipv6_before(&self, netcfg: &mut NetCfg<impl System>) -> Ipv6Before {
        let names = || self.0.keys().map(String::as_str);
        let originals = netcfg.originals(Ipv6Before::settings(names())).await;
        Ipv6Before::of(names(), |path| originals.get(path).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::netwatch::Interface;

    #[test]
    fn a_replaced_interface_is_left_out_once() {
        let found = |index, name: &str| Interface {
            index,
            name: name.to_owned(),
            running: true,
            mac: None,
            ipv6_mtu: 1500,
            addresses: Vec::new(),
            ipv4: Vec::new(),
        };
        let mut snapshot = Snapshot {
            interfaces: vec![found(1, "lo"), found(2, "eth0"), found(3, "usb0")],
            ..Snapshot::default()
        };
        snapshot.interfaces.push(found(4, "clat0"));
        let mut surroundings = Surroundings::default();
        let mut follow = |snapshot: &Snapshot| {
            let replaced = surroundings.follow(snapshot, "clat0");
            let names: Vec<_> = surroundings.0.keys().cloned().collect();
            (replaced, names.join(" "))
        };
        let all = (false, "eth0 usb0".to_owned());
        assert_eq!(follow(&snapshot), all);
        assert_eq!(follow(&snapshot), all);
        // Pulled out and put in again between two looks.
        snapshot.interfaces[2].index = 9;
        assert_eq!(follow(&snapshot), (true, "eth0".to_owned()));
        assert_eq!(follow(&snapshot), all);
        snapshot.interfaces.remove(2);
        assert_eq!(follow(&snapshot), (false, "eth0".to_owned()));
    }
}
