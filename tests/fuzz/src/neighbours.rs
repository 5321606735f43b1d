//! What neighbours and routers on the link say.

use std::{
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use l2::{
    Link, Received,
    link::{Config, FrameAddresses},
};
use pref64::{
    ra_option::Pref64Option,
    tracker::{MAX_ENTRIES, Tracker},
    well_known_name,
};
use sim::inspect;
use wire::{
    ethernet::{Header, Mac},
    ndp::{Envelope, NeighborAdvertisement, NeighborSolicitation, RouterAdvertisement},
    packet::PacketBuf,
};

use crate::{
    input::{Input, origin},
    packets::CLAT,
};

/// Our interface's address.
pub(crate) const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// Frames on the link, at an address that is being claimed.
pub(crate) fn link(data: &[u8]) {
    let mut input = Input::new(data);
    let mut now = origin();
    let config = Config {
        address: CLAT,
        mac: MAC,
        probes: 1,
        nonce: [1, 2, 3, 4, 5, 6],
        delay: Duration::ZERO,
    };
    let mut link = Link::new(config, now);
    let mut buf = PacketBuf::new();
    while let Some(frame) = input.packet() {
        now += frame.pause();
        run_timers(&mut link, &mut buf, now);
        let Some(header) = Header::parse(frame.bytes) else {
            continue;
        };
        let packet = &frame.bytes[wire::ethernet::HEADER_LEN..];
        if buf.set(packet).is_err() {
            continue;
        }
        let addresses = FrameAddresses {
            src: header.src,
            dst: header.dst,
        };
        if let Received::Reply(_) = link.receive(addresses, &mut buf, now) {
            inspect::right(buf.bytes()).unwrap_or_else(|why| panic!("{why}"));
        }
        let _ = link.poll_event();
    }
}

fn run_timers(link: &mut Link, buf: &mut PacketBuf, now: Instant) {
    // A probe, its silence and the announcements: then it has nothing to do.
    for _ in 0..8 {
        if link.poll_timeout(now).is_none_or(|due| due > now) {
            return;
        }
        if link.handle_timeout(buf, now).is_some() {
            inspect::right(buf.bytes()).unwrap_or_else(|why| panic!("{why}"));
        }
        let _ = link.poll_event();
    }
    panic!("always something to do");
}

/// ICMPv6 messages of routers and neighbours, and what is learned from them.
pub(crate) fn ndp(data: &[u8]) {
    let mut input = Input::new(data);
    let (mut now, mut tracker) = (origin(), Tracker::new());
    while let Some(message) = input.packet() {
        now += message.pause();
        let mut bytes = Input::new(message.bytes);
        let envelope = Envelope {
            src: Ipv6Addr::from(bytes.array::<16>()),
            dst: Ipv6Addr::from(bytes.array::<16>()),
            hop_limit: bytes.byte(),
        };
        let message = bytes.rest();
        if let Ok(advertisement) = RouterAdvertisement::new_checked(&envelope, message) {
            advertised(&advertisement, envelope.src, &mut tracker, now);
        }
        neighbour(&envelope, message);
    }
    let _ = tracker.expire(now);
    if let Some(expiry) = tracker.next_expiry() {
        assert!(expiry > now, "what is over did not end");
    }
}

fn advertised(
    advertisement: &RouterAdvertisement<'_>,
    router: Ipv6Addr,
    tracker: &mut Tracker,
    now: Instant,
) {
    let _ = (
        advertisement.router_lifetime(),
        advertisement.source_link_layer(),
        advertisement.mtu(),
    );
    for prefix in advertisement.prefixes() {
        assert!(prefix.length <= 128);
    }
    let options: Vec<_> = advertisement
        .options
        .iter()
        .filter_map(Pref64Option::parse)
        .filter_map(Result::ok)
        .collect();
    for option in &options {
        let again = Pref64Option::parse(&option.to_bytes());
        assert_eq!(again, Some(Ok(*option)), "written is not what was read");
    }
    let _ = tracker.expire(now);
    let _ = tracker.ra(1, router, &options, now);
    assert!(tracker.known(1).len() <= MAX_ENTRIES);
}

fn neighbour(envelope: &Envelope, message: &[u8]) {
    let mut buf = PacketBuf::for_packets_up_to(200);
    if let Ok(solicitation) = NeighborSolicitation::new_checked(envelope, message) {
        let written = solicitation.write(&mut buf, envelope.src, envelope.dst);
        assert_eq!(written, Ok(()));
        let again = NeighborSolicitation::new_checked(envelope, &buf.bytes()[40..]);
        assert_eq!(again, Ok(solicitation));
    }
    if let Ok(advertisement) = NeighborAdvertisement::new_checked(envelope, message) {
        let written = advertisement.write(&mut buf, envelope.src, envelope.dst);
        assert_eq!(written, Ok(()));
        let again = NeighborAdvertisement::new_checked(envelope, &buf.bytes()[40..]);
        assert_eq!(again, Ok(advertisement));
    }
}

/// Answers for `ipv4only.arpa`: every prefix that is found explains one of them.
pub(crate) fn well_known_name(data: &[u8]) {
    let (chunks, _) = data.as_chunks::<16>();
    let answers: Vec<_> = chunks
        .iter()
        .take(32)
        .map(|it| Ipv6Addr::from(*it))
        .collect();
    let found = well_known_name::find_prefixes(&answers);
    for prefix in &found {
        let explains = |address: &Ipv6Addr| {
            let v4 = prefix.extract(*address);
            v4.is_some_and(|it| well_known_name::ADDRESSES.contains(&it))
        };
        assert!(answers.iter().any(explains), "{prefix} out of {answers:?}");
        let times = found.iter().filter(|it| it == &prefix).count();
        assert_eq!(times, 1, "{prefix} twice");
    }
}
