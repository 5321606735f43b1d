//! Static bindings that nobody can use.

use nat64::network6::Network6;

use super::Config;

/// A sentence for each static binding of a host that may not use the NAT64: its packets are refused,
/// and those to it end silently. None while it is not known who may.
pub(crate) fn sentences(config: &Config) -> Vec<String> {
    let is_served = |address| {
        let by_network = config
            .clients
            .iter()
            .any(|it: &Network6| it.contains(address));
        // A host with an IPv4 address of its own may by that.
        by_network || config.eam.iter().any(|it| it.covers_ipv6(address))
    };
    let known = !config.clients.is_empty();
    let bindings = config.bib.iter().filter(|_| known);
    let unserved = bindings.filter(|it| !is_served(it.inside.address));
    let sentence = unserved.map(|it| {
        let (protocol, address) = (it.protocol, it.inside.address);
        format!(
            "[[bib]] {protocol} {:?} {:?}: {address} lies in no network of `clients`, so nothing \
             passes to it or from it: name its network in `clients`, or leave the binding out",
            it.inside, it.outside
        )
    });
    sentence.collect()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::settled, *};

    #[test]
    fn static_bindings_of_strangers_are_said() {
        let said = |clients: &str| {
            let text = format!(
                "pool = [\"203.0.113.1\"]\n{clients}\n\
                 [[eam]]\nipv4 = \"198.51.100.7\"\nipv6 = \"2001:db8:7::7\"\n\
                 [[bib]]\nprotocol = \"tcp\"\nipv6 = \"[2001:db8:1::80]:80\"\n\
                 ipv4 = \"203.0.113.1:80\"\n\
                 [[bib]]\nprotocol = \"udp\"\nipv6 = \"[2001:db8:7::7]:53\"\n\
                 ipv4 = \"203.0.113.1:53\"\n"
            );
            sentences(&settled(&text).unwrap())
        };
        // Left to the host, which is not looked at here.
        assert_eq!(said(""), [""; 0]);
        assert_eq!(said("clients = [\"2001:db8:1::/48\"]"), [""; 0]);
        let all = said("clients = [\"2001:db8:2::/48\"]");
        let [one] = &all[..] else { panic!("{all:?}") };
        for part in [
            "TCP",
            "2001:db8:1::80",
            "203.0.113.1:80",
            "leave the binding out",
        ] {
            assert!(one.contains(part), "{one}");
        }
    }
}
