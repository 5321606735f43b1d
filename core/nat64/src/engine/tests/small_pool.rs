//! A pool that is much too small.

use super::*;

const PORTS: u16 = 64;
const FLOWS: u16 = 10_000;

/// 10 000 flows want 64 ports: those that came first go on, there and back, the others are told by
/// ICMPv6 1/3, and nobody's binding is ended for theirs.
#[test]
fn natb_6888_02_ten_thousand_flows_for_sixty_four_ports() {
    let mut config = config();
    config.pool[0].ports = PortRange::new(40_000, 40_000 + PORTS - 1).unwrap().into();
    let mut nat = Nat::new(config);
    let server = (SERVER, 53);
    let client = |flow: u16| {
        let [high, low] = flow.to_be_bytes();
        let host = 0x100 + u16::from(high);
        let address = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, host);
        (address, 20_000 + u16::from(low))
    };
    let old: Vec<_> = (0..PORTS)
        .map(|flow| (client(flow), nat.udp(client(flow), server)))
        .collect();
    assert_eq!(nat.engine.free_ports(Protocol::Udp), 0);
    for flow in PORTS..FLOWS {
        let fate = nat.send(&udp6(client(flow), server, b"new"));
        // Of the first host's flows some have their ports.
        let is_known = client(flow).0 == client(0).0;
        let exhausted = Why::State(if is_known {
            DropReason::PortsExhausted
        } else {
            DropReason::PoolExhausted
        });
        assert_eq!(fate.reply(), (exhausted, 1, 3));
        if flow % 100 == 0 {
            let (inside, outside) = old[usize::from(flow / 100 % PORTS)];
            assert_eq!(nat.udp(inside, server), outside);
            let answer = nat.send(&udp4(server, outside, b"answer")).packet();
            assert_eq!(Ipv6::new_checked(&answer).unwrap().dst(), inside.0);
        }
    }
    assert_eq!((nat.bindings(), nat.sessions()), (64, 64));
    let stats = nat.engine.stats();
    let told = stats.from_v6.errors_sent.get();
    assert_eq!(told, u64::from(FLOWS - PORTS));
}
