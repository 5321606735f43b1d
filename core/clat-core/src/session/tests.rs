use super::*;
use crate::address::is_neutral;
use proptest::prelude::*;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const STRANGER: Mac = Mac([2, 0, 0, 0, 0, 9]);

#[expect(clippy::disallowed_methods, reason = "virtual time needs an origin")]
fn now() -> Instant {
    Instant::now()
}

fn config() -> Config {
    Config {
        instance: Instance::FIRST,
        identity: Identity {
            interface: "clat0".into(),
            metric: 100_000,
            uplink: host_plan::UplinkKind::Link,
        },
        mode: Mode::Auto,
        address: None,
        fragment_above: 1280,
        wkp_non_global: NonGlobal::Translate,
        errors: ErrorPolicy::default(),
    }
}

fn link() -> Link {
    Link {
        index: 3,
        name: "eth0".into(),
        mac: MAC,
        mtu: 1500,
    }
}

fn host(address: &str) -> HostAddress {
    HostAddress {
        address: address.parse().unwrap(),
        prefix_len: 64,
        preferred: true,
    }
}

fn prefix(text: &str) -> Pref64 {
    text.parse().unwrap()
}

/// An IPv6-only network with NAT64.
fn good() -> Facts {
    Facts {
        link: Some(link()),
        addresses: vec![host("2001:db8:1:2::10"), host("fe80::10")],
        prefixes: vec![prefix("2001:db8:64::/96")],
        live: vec![prefix("2001:db8:64::/96")],
        native_ipv4: false,
        other_clat: None,
        ipv6_before: Ipv6Before::default(),
    }
}

/// An interface that comes while the host forwards goes on hearing its routers.
#[test]
fn the_plan_follows_the_hosts_other_interfaces() {
    let mut routed = config();
    routed.identity.uplink = host_plan::UplinkKind::Routed;
    let mut session = Session::new(routed, 1);
    let facts = |listening: &[&str]| Facts {
        ipv6_before: Ipv6Before {
            was_off: true,
            listening: listening.iter().map(|it| (*it).to_owned()).collect(),
        },
        ..good()
    };
    let applied = |effects: Vec<Effect>| {
        let [Effect::Apply(plan)] = &effects[..] else {
            panic!("{effects:?}");
        };
        let items = plan.items().iter().map(ToString::to_string);
        items.filter(|it| it.contains("accept_ra")).count()
    };
    session.update(facts(&["eth0"]), now());
    // Not while there is only a claim: nothing forwards yet.
    assert!(session.update(facts(&[]), now()).is_empty());
    session.assigned();
    assert_eq!(applied(session.update(facts(&["eth0", "eth1"]), now())), 2);
    assert_eq!(applied(session.update(facts(&["eth0"]), now())), 1);
    assert!(session.update(facts(&["eth0"]), now()).is_empty());
}

/// What effects are called, for comparison.
fn names(effects: &[Effect]) -> Vec<&'static str> {
    let name = |effect: &Effect| match effect {
        Effect::Claim { .. } => "claim",
        Effect::Configure(_) => "configure",
        Effect::Apply(plan) => match plan.items().len() {
            0 => "apply nothing",
            2 => "apply claiming",
            _ => "apply running",
        },
        Effect::Release => "release",
        Effect::Report(_) => "report",
    };
    effects.iter().map(name).collect()
}

fn running() -> Session {
    let mut session = Session::new(config(), 1);
    session.update(good(), now());
    session.assigned();
    assert!(matches!(session.state(), State::Running(_)));
    session
}

fn settings(session: &Session) -> Settings {
    match session.state() {
        State::Claiming(settings) | State::Running(settings) => settings.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn clat_c_02_it_starts_as_soon_as_the_prefix_is_known() {
    let mut session = Session::new(config(), 1);
    let mut facts = Facts::default();
    assert!(session.update(facts.clone(), now()).is_empty());
    assert_eq!(*session.state(), State::Offline);
    facts.link = Some(link());
    assert_eq!(names(&session.update(facts.clone(), now())), ["report"]);
    assert_eq!(*session.state(), State::NoNat64);
    facts.prefixes = good().prefixes;
    session.update(facts.clone(), now());
    assert_eq!(*session.state(), State::NoAddress);
    facts.addresses = good().addresses;
    let effects = session.update(facts, now());
    assert_eq!(names(&effects), ["claim", "apply claiming", "report"]);
    let settings = settings(&session);
    assert!(is_neutral(settings.clat, Instance::FIRST, settings.prefix));
    assert_eq!(names(&session.assigned()), ["apply running", "report"]);
    assert!(matches!(session.state(), State::Running(_)));
    // Nothing is asked for twice.
    assert!(session.update(good(), now()).is_empty());
    assert!(session.assigned().is_empty());
}

#[test]
fn clat_c_02_not_beside_native_ipv4_unless_configured() {
    let native = Facts {
        native_ipv4: true,
        ..good()
    };
    let mut session = Session::new(config(), 1);
    session.update(native.clone(), now());
    assert_eq!(*session.state(), State::NativeIpv4);
    // When it goes, the CLAT comes; when it returns, the CLAT goes.
    assert_eq!(session.update(good(), now()).len(), 3);
    session.assigned();
    let effects = session.update(native.clone(), now());
    assert_eq!(names(&effects), ["apply nothing", "release", "report"]);

    let config = Config {
        mode: Mode::Always,
        ..config()
    };
    let mut session = Session::new(config, 1);
    session.update(native, now());
    assert!(matches!(session.state(), State::Claiming(_)));
}

#[test]
fn clat_6_3_03_an_address_of_the_host_is_not_shared() {
    let own = good().addresses[0].address;
    let config = Config {
        address: Some(own),
        ..config()
    };
    let mut session = Session::new(config, 1);
    let effects = session.update(good(), now());
    assert_eq!(names(&effects), ["report"]);
    assert_eq!(*session.state(), State::AddressInUse(own));
    assert!(session.update(good(), now()).is_empty());
    // Once the host has given it up, it is claimed.
    let mut facts = good();
    facts.addresses = vec![host("2001:db8:1:2::11")];
    session.update(facts, now());
    assert_eq!(settings(&session).clat, own);
    // And given up when the host takes it.
    let effects = session.update(good(), now());
    assert_eq!(names(&effects), ["apply nothing", "release", "report"]);
}

#[test]
fn clat_c_02_it_stops_when_the_prefix_goes() {
    let mut session = running();
    let without = Facts {
        prefixes: vec![],
        ..good()
    };
    let effects = session.update(without, now());
    assert_eq!(names(&effects), ["apply nothing", "release", "report"]);
    assert_eq!(*session.state(), State::NoNat64);
}

/// The address stays under a new prefix; checksums are updated instead of neutral.
#[test]
fn a_new_prefix_changes_the_settings_and_not_the_address() {
    let mut session = running();
    let before = settings(&session);
    let facts = Facts {
        prefixes: vec![prefix("64:ff9b::/96")],
        ..good()
    };
    let effects = session.update(facts, now());
    assert_eq!(names(&effects), ["configure", "apply running", "report"]);
    let after = settings(&session);
    assert_eq!(after.clat, before.clat);
    assert_eq!(after.prefix, prefix("64:ff9b::/96"));
}

/// Facts in which the prefixes `new` are for new flows and `live` hold.
fn with_prefixes(new: &[&str], live: &[&str]) -> Facts {
    let parse = |list: &[&str]| list.iter().map(|it| prefix(it)).collect();
    Facts {
        prefixes: parse(new),
        live: parse(live),
        ..good()
    }
}

const A: &str = "2001:db8:64::/96";
const B: &str = "64:ff9b::/96";
const C: &str = "2001:db8:65::/96";

/// Flows that began under the old prefix may stay there for as long as it holds.
#[test]
fn the_old_prefix_is_retained_while_it_holds() {
    let mut session = running();
    let effects = session.update(with_prefixes(&[B, A], &[A, B]), now());
    assert_eq!(names(&effects), ["configure", "apply running", "report"]);
    let Effect::Configure(configured) = &effects[0] else {
        panic!("not configured");
    };
    assert_eq!(configured.prefix, prefix(B));
    assert_eq!(configured.retained, [prefix(A)]);
    // Nothing is asked for twice, and what was never used is not retained.
    assert!(
        session
            .update(with_prefixes(&[B, A], &[A, B]), now())
            .is_empty()
    );
    assert!(
        session
            .update(with_prefixes(&[B], &[A, B, C]), now())
            .is_empty()
    );
    // To and fro.
    session.update(with_prefixes(&[A, B], &[A, B]), now());
    assert_eq!(settings(&session).retained, [prefix(B)]);
    session.update(with_prefixes(&[C], &[A, B, C]), now());
    assert_eq!(settings(&session).retained, [prefix(A), prefix(B)]);
    // It is over, whatever was going on under it.
    let effects = session.update(with_prefixes(&[C], &[B, C]), now());
    assert_eq!(names(&effects), ["configure", "apply running", "report"]);
    assert_eq!(settings(&session).retained, [prefix(B)]);
    // And does not come back by itself.
    session.update(with_prefixes(&[C], &[A, B, C]), now());
    assert_eq!(settings(&session).retained, [prefix(B)]);
}

/// A late router advertisement replaces what DNS said, at once: but that still holds.
#[test]
fn disc_8781_5_1_02_flows_outlive_the_change_of_the_source() {
    let mut session = running();
    session.update(with_prefixes(&[B], &[A, B]), now());
    assert_eq!(settings(&session).prefix, prefix(B));
    assert_eq!(settings(&session).retained, [prefix(A)]);
}

#[test]
fn prefixes_are_retained_for_a_new_address_but_not_for_another_network() {
    let mut session = running();
    let facts = with_prefixes(&[B], &[A, B]);
    session.update(facts.clone(), now());
    session.duplicate(STRANGER, now());
    assert_eq!(settings(&session).retained, [prefix(A)]);
    session.assigned();
    let mut elsewhere = facts.clone();
    elsewhere.link.as_mut().unwrap().index = 4;
    session.update(elsewhere, now());
    assert!(settings(&session).retained.is_empty());

    let mut session = running();
    session.update(facts.clone(), now());
    session.update(Facts::default(), now());
    session.update(facts, now());
    assert!(settings(&session).retained.is_empty());
}

#[test]
fn clat_6_3_01_a_retained_prefix_does_not_contain_the_host() {
    let mut session = running();
    let mut facts = with_prefixes(&[B], &[A, B]);
    facts.addresses.push(host("2001:db8:64::10"));
    session.update(facts, now());
    assert!(settings(&session).retained.is_empty());
}

#[test]
fn as_many_prefixes_are_retained_as_the_engine_takes() {
    let mut session = running();
    let all: Vec<_> = (1..9).map(|n| format!("2001:db8:{n}00::/96")).collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    for new in &all {
        session.update(with_prefixes(&[new], &all), now());
    }
    let last: Vec<_> = all[4..7].iter().rev().map(|it| prefix(it)).collect();
    assert_eq!(settings(&session).retained, last);
    assert_eq!(last.len(), MAX_RETAINED);
}

#[test]
fn a_new_mtu_changes_the_settings() {
    let mut session = running();
    let mut facts = good();
    facts.link.as_mut().unwrap().mtu = 1280;
    let effects = session.update(facts, now());
    assert_eq!(names(&effects), ["configure", "apply running", "report"]);
    assert_eq!(settings(&session).ipv4_mtu(), 1252);
}

/// Applications keep their address and route while the IPv6 side is renumbered.
#[test]
fn renumbering_claims_a_new_address_under_the_same_route() {
    let mut session = running();
    let before = settings(&session);
    let facts = Facts {
        addresses: vec![host("2001:db8:9:9::10")],
        ..good()
    };
    let effects = session.update(facts, now());
    assert_eq!(names(&effects), ["claim", "apply running", "report"]);
    let after = settings(&session);
    assert_ne!(after.clat, before.clat);
    assert_eq!(after.clat.segments()[..4], [0x2001, 0xdb8, 9, 9]);
    // Even if the first new address turns out to be taken.
    let effects = session.duplicate(STRANGER, now());
    assert_eq!(names(&effects), ["claim", "apply running", "report"]);
}

/// The host itself may take the very address.
#[test]
fn an_address_that_the_host_takes_is_given_up() {
    let mut session = running();
    let taken = settings(&session).clat;
    let mut facts = good();
    facts.addresses.push(HostAddress {
        address: taken,
        prefix_len: 64,
        preferred: true,
    });
    let effects = session.update(facts, now());
    assert_eq!(names(&effects)[0], "claim");
    assert_ne!(settings(&session).clat, taken);
}

#[test]
fn clat_6_3_02_a_conflict_leads_to_a_new_address_and_three_to_a_pause() {
    let start = now();
    let mut session = Session::new(config(), 1);
    session.update(good(), start);
    let mut seen = vec![settings(&session).clat];
    for _ in 1..MAX_CONFLICTS {
        let effects = session.duplicate(STRANGER, start);
        assert_eq!(names(&effects), ["claim", "apply claiming", "report"]);
        let next = settings(&session).clat;
        assert!(!seen.contains(&next));
        seen.push(next);
    }
    let effects = session.duplicate(STRANGER, start);
    assert_eq!(names(&effects), ["apply nothing", "release", "report"]);
    let until = start + BACKOFF;
    assert_eq!(session.poll_timeout(), Some(until));
    let State::Backoff { problem, .. } = session.state() else {
        panic!("no pause");
    };
    let address = *seen.last().unwrap();
    assert_eq!(
        *problem,
        Problem::AddressConflicts {
            address,
            by: STRANGER
        }
    );

    // Facts alone do not end the pause; time does, and so does another link.
    assert!(session.update(good(), start).is_empty());
    assert!(
        session
            .handle_timeout(until - Duration::from_millis(1))
            .is_empty()
    );
    assert_eq!(names(&session.handle_timeout(until))[0], "claim");
    for _ in 0..MAX_CONFLICTS {
        session.duplicate(STRANGER, start);
    }
    // Each of what makes a link another one.
    for change in [
        |link: &mut Link| link.index = 4,
        |link: &mut Link| link.mac = STRANGER,
        |link: &mut Link| link.name = "wan0".into(),
    ] {
        let mut session = Session::new(config(), 1);
        session.update(good(), start);
        for _ in 0..MAX_CONFLICTS {
            session.duplicate(STRANGER, start);
        }
        assert!(session.update(good(), start).is_empty());
        let mut elsewhere = good();
        change(elsewhere.link.as_mut().unwrap());
        assert_eq!(names(&session.update(elsewhere, start))[0], "claim");
    }
}

#[test]
fn a_conflict_while_running_moves_to_a_new_address() {
    let mut session = running();
    let before = settings(&session).clat;
    let effects = session.duplicate(STRANGER, now());
    assert_eq!(names(&effects), ["claim", "apply running", "report"]);
    assert_ne!(settings(&session).clat, before);
}

#[test]
fn a_configured_address_is_used_and_never_replaced() {
    let address = "2001:db8:1:2::464".parse().unwrap();
    let config = Config {
        address: Some(address),
        ..config()
    };
    let mut session = Session::new(config, 1);
    session.update(good(), now());
    assert_eq!(settings(&session).clat, address);
    session.duplicate(STRANGER, now());
    assert!(matches!(session.state(), State::Backoff { .. }));
}

#[test]
fn what_the_system_refuses_is_tried_again_later() {
    let start = now();
    let mut session = running();
    let effects = session.failed("no such device".into(), start);
    assert_eq!(names(&effects), ["apply nothing", "release", "report"]);
    assert!(session.update(good(), start).is_empty());
    assert_eq!(names(&session.handle_timeout(start + BACKOFF))[0], "claim");
}

#[test]
fn the_link_goes_down_and_comes_back() {
    let mut session = running();
    let down = Facts {
        link: None,
        ..good()
    };
    assert_eq!(
        names(&session.update(down, now())),
        ["apply nothing", "release", "report"]
    );
    assert_eq!(names(&session.update(good(), now()))[0], "claim");
}

/// Docked: the same network by another interface. Its neighbours know nothing of the address, and
/// the packet socket is bound to the old one.
#[test]
fn clat_6_3_02_another_link_to_the_same_network_claims_anew() {
    for change in [
        |link: &mut Link| link.index = 4,
        |link: &mut Link| link.mac = STRANGER,
        |link: &mut Link| link.name = "wan0".into(),
    ] {
        let mut session = running();
        let mut facts = good();
        change(facts.link.as_mut().unwrap());
        let effects = session.update(facts.clone(), now());
        assert_eq!(names(&effects), ["claim", "apply running", "report"]);
        let Effect::Claim { link, .. } = &effects[0] else {
            panic!("no claim");
        };
        assert_eq!(Some(link), facts.link.as_ref());
        assert!(session.update(facts, now()).is_empty());
    }
}

/// Privacy extensions add an address every day, and systems list the newest first.
#[test]
fn clat_c_01_equal_networks_in_another_order_change_nothing() {
    let mut facts = good();
    facts.addresses.push(host("2001:db8:1:3::10"));
    let mut session = Session::new(config(), 1);
    session.update(facts.clone(), now());
    session.assigned();
    facts.addresses.reverse();
    assert!(session.update(facts.clone(), now()).is_empty());
    // Nor does a network of lower number.
    facts.addresses.push(host("2001:db8:1:1::10"));
    assert!(session.update(facts.clone(), now()).is_empty());
    // Deprecated, it gives way to one that is not.
    facts
        .addresses
        .retain(|it| it.address != good().addresses[0].address);
    facts.addresses.push(HostAddress {
        preferred: false,
        ..good().addresses[0]
    });
    assert_eq!(names(&session.update(facts, now()))[0], "claim");
}

/// Of several links, one with a prefix may still be useless.
#[test]
fn clat_c_03_a_link_needs_a_prefix_and_a_network() {
    let session = Session::new(config(), 1);
    let (global, local) = ([host("2001:db8:1:2::10")], [host("fe80::10")]);
    let prefixes = [prefix(A)];
    assert!(session.could_use(&global, &prefixes));
    assert!(!session.could_use(&global, &[]));
    assert!(!session.could_use(&local, &prefixes));
    assert!(!session.could_use(&[host("2001:db8:64::10")], &prefixes));
    let routed = |address| Config {
        address: Some(address),
        ..config()
    };
    let session = Session::new(routed("2001:db8:9::464".parse().unwrap()), 1);
    assert!(session.could_use(&local, &prefixes));
    let session = Session::new(routed(global[0].address), 1);
    assert!(!session.could_use(&global, &prefixes));
}

/// Connections end with the address, so a network that is better for new ones does not replace it:
/// neither one that comes, nor another one of the host's for a prefix that comes.
#[test]
fn clat_c_01_a_longer_match_is_no_reason_to_move() {
    let mut session = running();
    let before = settings(&session).clat;
    let mut facts = good();
    facts.addresses.push(host("2001:db8:64:9::10"));
    assert!(session.update(facts.clone(), now()).is_empty());
    facts.prefixes = vec![prefix("2001:db8:64:8::/96"), prefix(A)];
    facts.live.clone_from(&facts.prefixes);
    let effects = session.update(facts.clone(), now());
    assert_eq!(names(&effects), ["configure", "apply running", "report"]);
    let after = settings(&session);
    assert_eq!((after.clat, after.retained), (before, vec![prefix(A)]));
    // Whoever claims anew takes the better one.
    let mut session = Session::new(config(), 1);
    session.update(facts, now());
    let network = network_of(settings(&session).clat).to_string();
    assert_eq!(network, "2001:db8:64:9::");
}

#[test]
fn clat_6_3_01_the_prefixes_of_the_two_sides_differ() {
    let own = prefix("2001:db8:1:2::/64");
    let facts = |prefixes: &[Pref64]| Facts {
        prefixes: prefixes.to_vec(),
        ..good()
    };
    let mut session = Session::new(config(), 1);
    session.update(facts(&[own]), now());
    assert_eq!(*session.state(), State::OwnPrefix(own));
    // The next one serves.
    session.update(facts(&[own, Pref64::WELL_KNOWN]), now());
    assert_eq!(settings(&session).prefix, Pref64::WELL_KNOWN);

    // A configured address must not be in it either.
    let config = Config {
        address: Some("2001:db8:64::464".parse().unwrap()),
        ..config()
    };
    let mut session = Session::new(config, 1);
    session.update(good(), now());
    assert_eq!(*session.state(), State::OwnPrefix(good().prefixes[0]));

    // Under 2001:db8::/40 the host would be the peer 1.0.2.x. Under 2001:db8::/32 it would be
    // 0.1.0.2, which is nobody: a network may number its hosts in that part of its prefix.
    let mut session = running();
    session.update(facts(&[prefix("2001:db8::/40")]), now());
    assert!(matches!(session.state(), State::OwnPrefix(_)));
    session.update(facts(&[prefix("2001:db8::/32")]), now());
    assert!(matches!(session.state(), State::Claiming(_)));
}

/// An address that was ours for seconds does not make the next conflict the first.
#[test]
fn clat_6_3_02_conflicts_count_although_addresses_were_assigned_between() {
    let mut now = now();
    let mut session = Session::new(config(), 1);
    session.update(good(), now);
    for _ in 1..MAX_CONFLICTS {
        session.assigned();
        now += CONFLICT_MEMORY - Duration::from_secs(1);
        assert_eq!(names(&session.duplicate(STRANGER, now))[0], "claim");
    }
    session.assigned();
    now += CONFLICT_MEMORY;
    // Long after, it is the first again.
    assert_eq!(names(&session.duplicate(STRANGER, now))[0], "claim");
    session.assigned();
    session.duplicate(STRANGER, now);
    session.assigned();
    let effects = session.duplicate(STRANGER, now);
    assert_eq!(names(&effects), ["apply nothing", "release", "report"]);
    assert!(matches!(session.state(), State::Backoff { .. }));
}

#[test]
fn the_end_of_a_pause_is_reported() {
    let start = now();
    let down = Facts {
        link: None,
        ..good()
    };
    let mut session = running();
    session.failed("no such device".into(), start);
    assert_eq!(names(&session.update(down, start))[2..], ["report"]);
    assert_eq!(*session.state(), State::Offline);

    let mut session = running();
    session.failed("no such device".into(), start);
    let mut facts = good();
    facts.native_ipv4 = true;
    // Something may be left on the host: it is taken back when the pause is over.
    assert!(session.update(facts, start).is_empty());
    let effects = session.handle_timeout(start + BACKOFF);
    assert_eq!(names(&effects), ["apply nothing", "release", "report"]);
    assert_eq!(*session.state(), State::NativeIpv4);
}

/// The shell carries out effects in order and stops at the one that fails.
#[test]
fn what_could_not_be_taken_back_is_tried_again_and_not_without_end() {
    let start = now();
    let without = Facts {
        prefixes: vec![],
        ..good()
    };
    let mut session = running();
    let effects = session.update(without.clone(), start);
    assert_eq!(names(&effects)[0], "apply nothing");
    // It fails, so "release" was not reached.
    let effects = session.failed("busy".into(), start);
    assert_eq!(names(&effects), ["release", "report"]);
    assert!(session.update(without, start).is_empty());
    let effects = session.handle_timeout(start + BACKOFF);
    assert_eq!(names(&effects), ["apply nothing", "release", "report"]);
    assert_eq!(*session.state(), State::NoNat64);

    // While running, what is held is let go; if that fails too, it ends there.
    let mut session = running();
    let effects = session.failed("broken".into(), start);
    assert_eq!(names(&effects)[0], "apply nothing");
    let effects = session.failed("busy".into(), start);
    assert_eq!(names(&effects), ["release", "report"]);
    let effects = session.failed("busy".into(), start);
    assert_eq!(names(&effects), ["release"]);
}

#[test]
fn clat_c_02_native_ipv4_that_arrives_ends_a_claim_too() {
    let mut session = Session::new(config(), 1);
    session.update(good(), now());
    let native = Facts {
        native_ipv4: true,
        ..good()
    };
    let effects = session.update(native, now());
    assert_eq!(names(&effects), ["apply nothing", "release", "report"]);
    assert_eq!(*session.state(), State::NativeIpv4);
    // What the claim still has to say comes too late.
    assert!(session.assigned().is_empty());
    assert!(session.duplicate(STRANGER, now()).is_empty());
}

#[test]
fn the_hosts_last_address_goes() {
    let mut session = running();
    let facts = Facts {
        addresses: vec![host("fe80::10")],
        ..good()
    };
    let effects = session.update(facts, now());
    assert_eq!(names(&effects), ["apply nothing", "release", "report"]);
    assert_eq!(*session.state(), State::NoAddress);
}

#[test]
fn a_new_prefix_while_claiming_is_used_by_the_same_claim() {
    let mut session = Session::new(config(), 1);
    session.update(good(), now());
    let facts = Facts {
        prefixes: vec![Pref64::WELL_KNOWN],
        ..good()
    };
    // No route yet: applications must not see a CLAT that is not ready.
    let effects = session.update(facts, now());
    assert_eq!(names(&effects), ["configure", "report"]);
    session.assigned();
    assert_eq!(settings(&session).prefix, Pref64::WELL_KNOWN);
}

fn any_facts() -> impl Strategy<Value = Facts> {
    (
        any::<bool>(),
        0usize..4,
        0usize..3,
        any::<bool>(),
        1000u16..3000,
        3u32..5,
    )
        .prop_map(|(up, addresses, prefixes, native_ipv4, mtu, index)| Facts {
            link: up.then(|| Link {
                mtu,
                index,
                ..link()
            }),
            addresses: ["2001:db8:1:2::10", "2001:db8:9:9::10", "fe80::10"][..addresses.min(3)]
                .iter()
                .map(|text| host(text))
                .collect(),
            prefixes: [B, A][..prefixes].iter().map(|text| prefix(text)).collect(),
            live: [A, B, C][..addresses.max(prefixes)]
                .iter()
                .map(|text| prefix(text))
                .collect(),
            native_ipv4,
            other_clat: None,
            ipv6_before: Ipv6Before::default(),
        })
}

proptest! {
    /// Whatever happens, effects come in pairs: what was claimed is released before the session
    /// rests, and the host's network is as the state says.
    #[test]
    fn effects_always_match_the_state(
        steps in proptest::collection::vec((0u8..5, any_facts(), 0u64..100), 1..60),
    ) {
        let mut now = now();
        let mut session = Session::new(config(), 7);
        let (mut claimed, mut items) = (None, 0);
        let (mut link, mut claimed_on, mut reported) = (None, None, State::Offline);
        let mut live = Vec::new();
        for (what, facts, seconds) in steps {
            now += Duration::from_secs(seconds);
            let is_update = what == 4 || what == 3 && seconds <= 90;
            if is_update {
                link = facts.link.as_ref().map(|link| link.index);
                live.clone_from(&facts.live);
            }
            let effects = match what {
                0 => session.assigned(),
                1 => session.duplicate(STRANGER, now),
                2 => session.handle_timeout(now),
                3 if seconds > 90 => session.failed("x".into(), now),
                _ => session.update(facts, now),
            };
            for effect in effects {
                match effect {
                    Effect::Claim { link, settings } => {
                        claimed = Some(settings);
                        claimed_on = Some(link.index);
                    }
                    Effect::Configure(settings) => {
                        prop_assert_eq!(claimed.as_ref().map(|c| c.clat), Some(settings.clat));
                        claimed = Some(settings);
                    }
                    Effect::Release => claimed = None,
                    Effect::Apply(plan) => items = plan.items().len(),
                    Effect::Report(state) => reported = state,
                }
            }
            prop_assert_eq!(&reported, session.state());
            if let Some(settings) = &claimed {
                prop_assert_eq!(claimed_on, link);
                // Nothing is kept that is over, or beyond measure.
                prop_assert!(settings.retained.iter().all(|it| live.contains(it)));
                prop_assert!(!settings.retained.contains(&settings.prefix));
                prop_assert!(settings.retained.len() <= MAX_RETAINED);
            }
            match session.state() {
                State::Running(settings) => {
                    prop_assert_eq!(claimed.as_ref(), Some(settings));
                    prop_assert_eq!(items, 5);
                }
                State::Claiming(settings) => {
                    prop_assert_eq!(claimed.as_ref(), Some(settings));
                    prop_assert!(items >= 2);
                }
                _ => {
                    prop_assert!(claimed.is_none());
                    prop_assert_eq!(items, 0);
                }
            }
        }
    }
}

#[test]
fn what_broke_is_made_again_at_once_but_not_again_and_again() {
    let start = now();
    let mut session = Session::new(config(), 7);
    session.update(good(), start);
    session.assigned();
    let effects = session.broke("deleted".into(), start);
    let wanted = [
        "apply nothing",
        "release",
        "claim",
        "apply claiming",
        "report",
    ];
    assert_eq!(names(&effects), wanted);
    session.assigned();
    let soon = start + BACKOFF / 2;
    let effects = session.broke("deleted".into(), soon);
    assert_eq!(names(&effects), ["apply nothing", "release", "report"]);
    assert!(matches!(session.state(), State::Backoff { .. }));
    session.handle_timeout(soon + BACKOFF);
    session.assigned();
    let effects = session.broke("deleted".into(), soon + 2 * BACKOFF);
    assert_eq!(names(&effects), wanted);
}

/// Two owners of 192.0.0.1 would each think the other's packets theirs.
#[test]
fn addr_7335_01_another_clat_on_the_host_was_first() {
    let mut session = Session::new(config(), 7);
    let mut facts = good();
    facts.other_clat = Some("nm-clat".into());
    session.update(facts.clone(), now());
    assert_eq!(*session.state(), State::OtherClat("nm-clat".into()));
    facts.other_clat = None;
    let effects = session.update(facts.clone(), now());
    assert!(names(&effects).contains(&"claim"));
    session.assigned();
    // It comes up while this one runs, but was there before it did.
    facts.other_clat = Some("nm-clat".into());
    let effects = session.update(facts, now());
    assert!(names(&effects).contains(&"release"), "{effects:?}");
}
