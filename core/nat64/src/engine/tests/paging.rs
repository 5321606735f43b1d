//! Lists in pages.

use super::*;
use crate::view::SessionView;

fn filled() -> Nat {
    let mut nat = Nat::new(config());
    for port in 5000..5010 {
        nat.udp((CLIENT, port), (SERVER, 53));
    }
    nat.udp((CLIENT, 5000), (SERVER2, 53));
    nat
}

/// Flushes three places at a time.
fn flush(nat: &mut Nat, wanted: impl Fn(&SessionView) -> bool) -> usize {
    let (mut ended, mut from) = (0, Some(0));
    while let Some(place) = from {
        let before = nat.sessions();
        let (here, next) = nat.engine.flush_from(place, 3, nat.now, &wanted);
        assert!(here <= 3 && here == before - nat.sessions());
        assert!(next.is_none_or(|next| next >= place + 3));
        ended += here;
        from = next;
    }
    ended
}

#[test]
fn pages_show_every_session_once_whatever_ends_in_between() {
    let mut nat = filled();
    let all: Vec<_> = nat.engine.sessions_from(0, nat.now).collect();
    assert_eq!(all.len(), 11);
    let (mut place, mut seen) = (0, Vec::new());
    loop {
        let page: Vec<_> = nat.engine.sessions_from(place, nat.now).take(3).collect();
        let Some((last, _)) = page.last() else { break };
        place = last + 1;
        seen.extend(page.into_iter().map(|(_, view)| view));
        // One that was shown, and one that will not be.
        let shown = seen[0];
        flush(&mut nat, |it| *it == shown || it.inside.id == 5009);
    }
    let ports: Vec<_> = seen
        .iter()
        .map(|it| (it.inside.id, it.remote.address))
        .collect();
    let mut wanted: Vec<_> = (5000..5009).map(|it| (it, SERVER)).collect();
    wanted.push((5000, SERVER2));
    assert_eq!(ports, wanted);
    assert_eq!(nat.engine.bindings_from(0).count(), 9);
    assert_eq!(nat.engine.bindings_from(5).count(), 4);
}

#[test]
fn a_flush_by_state_spares_the_others() {
    let mut nat = filled();
    nat.send(&tcp6((CLIENT, 7000), (SERVER, 443), SYN)).packet();
    let flushed = flush(&mut nat, |it| it.protocol == Protocol::Tcp);
    assert_eq!((flushed, nat.sessions()), (1, 11));
}

#[test]
fn the_use_of_the_pool_is_known_by_address_and_protocol() {
    let mut nat = filled();
    let udp = |nat: &Nat| {
        let mut all = nat.engine.pool_use();
        all.find(|it| it.address == POOL && it.protocol == Protocol::Udp)
            .unwrap()
    };
    assert_eq!(udp(&nat).used, 10);
    assert_eq!(udp(&nat).ports, usize::from(u16::MAX));
    flush(&mut nat, |_| true);
    let tcp = nat
        .engine
        .pool_use()
        .find(|it| it.protocol == Protocol::Tcp);
    assert_eq!(tcp.unwrap().used, 0);
}
