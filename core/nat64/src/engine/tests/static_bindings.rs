//! PLAT-3.1-01: bindings that are configured.

use super::*;
use crate::{
    config::PoolEntry,
    journal::Change,
    static_bib::{StaticBinding, StaticError},
};

fn endpoint6(address: Ipv6Addr, id: u16) -> Endpoint6 {
    Endpoint6 { address, id }
}

fn endpoint4(address: Ipv4Addr, id: u16) -> Endpoint4 {
    Endpoint4 { address, id }
}

fn web(protocol: Protocol) -> StaticBinding {
    StaticBinding {
        protocol,
        inside: endpoint6(CLIENT, 80),
        outside: endpoint4(POOL, 8080),
    }
}

#[test]
fn plat_3_1_01_a_static_binding_survives_its_sessions() {
    let mut nat = Nat::new(config());
    nat.engine.add_static(web(Protocol::Udp)).unwrap();
    for _ in 0..2 {
        assert_eq!((nat.bindings(), nat.sessions()), (1, 0));
        let packet = nat.send(&udp4((SERVER, 4000), (POOL, 8080), b"x")).packet();
        let packet = Ipv6::new_checked(&packet).unwrap();
        assert_eq!(packet.dst(), CLIENT);
        assert_eq!(transport::ports(packet.from_offset(40)), Some((4000, 80)));
        assert_eq!(nat.udp((CLIENT, 80), (SERVER, 4000)), (POOL, 8080));
        assert_eq!((nat.bindings(), nat.sessions()), (1, 1));
        nat.wait(302);
    }
    assert!(nat.engine.bindings().all(|it| it.is_static));
}

/// Whoever reads the log sees the end of the static binding whose beginning it saw (HA-03: a copy of
/// the tables too), and after that of its sessions.
#[test]
fn plat_3_1_01_a_removed_static_binding_is_told_as_one() {
    for with_session in [false, true] {
        let mut nat = Nat::new(config());
        nat.engine.keep_changes(Some(10));
        nat.engine.add_static(web(Protocol::Udp)).unwrap();
        if with_session {
            nat.udp((CLIENT, 80), (SERVER, 4000));
        }
        assert!(
            nat.engine
                .remove_binding(Protocol::Udp, web(Protocol::Udp).inside)
        );
        assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
        let mut ended = Vec::new();
        nat.engine.drain_changes(|change| ended.push(change));
        let is_told = |change: &Change| matches!(change, Change::BindingEnded(it) if it.is_static);
        assert!(ended.last().is_some_and(is_told), "{ended:?}");
    }
}

/// The client has one address for everything else, too, and nobody else gets the port.
#[test]
fn plat_3_1_01_nobody_else_gets_its_port() {
    let mut config = config();
    let ports = PortRange::new(8080, 8081).unwrap();
    config.pool = [POOL, POOL2]
        .map(|address| PoolEntry {
            address,
            ports: ports.into(),
        })
        .to_vec();
    let mut nat = Nat::new(config);
    nat.engine.add_static(web(Protocol::Udp)).unwrap();
    assert_eq!(nat.udp((CLIENT, 8080), (SERVER, 53)), (POOL, 8081));
    let mut got: Vec<_> = (1..=2)
        .map(|n| nat.udp((OTHER, n * 2000), (SERVER, 53)))
        .collect();
    got.sort_unstable();
    assert_eq!(got, [(POOL2, 8080), (POOL2, 8081)]);
}

/// A port that clients are not given does not become one when the binding is removed.
#[test]
fn plat_3_1_01_any_port_of_a_pool_address_can_be_bound() {
    let mut config = config();
    config.pool[0].ports = PortRange::new(2000, 2001).unwrap().into();
    let mut nat = Nat::new(config);
    nat.engine.add_static(web(Protocol::Tcp)).unwrap();
    assert_eq!(nat.engine.free_ports(Protocol::Tcp), 2);
    nat.send(&tcp4((SERVER, 4000), (POOL, 8080), SYN)).packet();
    assert!(
        nat.engine
            .remove_binding(Protocol::Tcp, endpoint6(CLIENT, 80))
    );
    assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
    assert_eq!(nat.engine.free_ports(Protocol::Tcp), 2);
    assert!(
        !nat.engine
            .remove_binding(Protocol::Tcp, endpoint6(CLIENT, 80))
    );
}

#[test]
fn plat_3_1_01_removing_a_static_binding_without_sessions() {
    let mut nat = Nat::new(config());
    nat.engine.add_static(web(Protocol::Icmp)).unwrap();
    assert_eq!(nat.engine.free_ports(Protocol::Icmp), 65_534);
    assert!(
        nat.engine
            .remove_binding(Protocol::Icmp, endpoint6(CLIENT, 80))
    );
    assert_eq!(nat.bindings(), 0);
    assert_eq!(nat.engine.free_ports(Protocol::Icmp), 65_535);
}

#[test]
fn plat_3_1_01_a_dynamic_binding_becomes_static_with_its_sessions() {
    let mut nat = Nat::new(config());
    assert_eq!(nat.udp((CLIENT, 8080), (SERVER, 53)), (POOL, 8080));
    let same = StaticBinding {
        inside: endpoint6(CLIENT, 8080),
        ..web(Protocol::Udp)
    };
    nat.engine.add_static(same).unwrap();
    assert_eq!((nat.bindings(), nat.sessions()), (1, 1));
    nat.wait(302);
    assert_eq!((nat.bindings(), nat.sessions()), (1, 0));
}

/// What an order to add one finds, it leaves, if it is taken back.
#[test]
fn plat_3_1_01_a_refused_static_binding_ends_no_session() {
    let same = StaticBinding {
        inside: endpoint6(CLIENT, 8080),
        ..web(Protocol::Udp)
    };
    for added in [false, true] {
        let mut nat = Nat::new(config());
        nat.udp((CLIENT, 8080), (SERVER, 53));
        if added {
            nat.engine.add_static(same).unwrap();
        }
        nat.engine.cancel_static(same);
        assert_eq!((nat.bindings(), nat.sessions()), (1, 1));
        assert!(nat.engine.bindings().all(|it| !it.is_static));
        assert_eq!(nat.udp((CLIENT, 8080), (SERVER, 53)), (POOL, 8080));
        nat.engine.remove_static(same);
        assert_eq!(nat.sessions(), 1);
        nat.wait(302);
        assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
        assert_eq!(nat.engine.free_ports(Protocol::Udp), 65_535);
    }
    // One that nobody had before, or that no client could have, goes with what came to it.
    let mut config = config();
    config.pool[0].ports = PortRange::new(2000, 2001).unwrap().into();
    for (config, used) in [(super::config(), false), (config, true)] {
        let mut nat = Nat::new(config);
        nat.engine.add_static(same).unwrap();
        if used {
            nat.send(&udp4((SERVER, 53), (POOL, 8080), b"x")).packet();
        }
        nat.engine.cancel_static(same);
        assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
    }
}

#[test]
fn plat_3_1_01_a_static_binding_that_is_not_configured_any_more_ends_with_its_sessions() {
    let mut nat = Nat::new(config());
    nat.engine.add_static(web(Protocol::Udp)).unwrap();
    nat.udp((CLIENT, 80), (SERVER, 53));
    nat.engine.remove_static(web(Protocol::Udp));
    assert_eq!((nat.bindings(), nat.sessions()), (0, 0));
}

#[test]
fn plat_3_01_a_static_binding_keeps_both_ends_unique() {
    let mut config = config();
    config.limits.bindings = 2;
    let mut nat = Nat::new(config);
    nat.udp((OTHER, 8080), (SERVER, 53));
    let mut add = |change: fn(&mut StaticBinding)| {
        let mut binding = web(Protocol::Udp);
        change(&mut binding);
        nat.engine.add_static(binding)
    };
    assert_eq!(add(|_| {}), Err(StaticError::OutsideBound));
    assert_eq!(add(|it| it.inside = endpoint6(OTHER, 8080)), Ok(()));
    assert_eq!(
        add(|it| {
            it.inside = endpoint6(OTHER, 8080);
            it.outside.id = 9000;
        }),
        Err(StaticError::InsideBound {
            outside: endpoint4(POOL, 8080)
        })
    );
    assert_eq!(
        add(|it| it.outside.address = POOL2),
        Err(StaticError::NotInPool)
    );
    assert_eq!(add(|it| it.outside.id = 0), Err(StaticError::PortZero));
    assert_eq!(
        add(|it| it.inside.address = prefix().embed(SERVER)),
        Err(StaticError::InsideIsServer)
    );
    assert_eq!(add(|it| it.outside.id = 1), Ok(()));
    assert_eq!(
        add(|it| {
            it.inside.id = 81;
            it.outside.id = 2;
        }),
        Err(StaticError::TooManyBindings)
    );
}
