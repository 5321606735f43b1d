//! The views of single headers, and how packets are shown to people.

use wire::{
    icmp::Icmp,
    ipv4::{self, Ipv4},
    ipv6::Ipv6,
    pieces::transport_checksum_ok,
    pretty::Summary,
    transport::{self, Tcp},
};

/// Every accessor of whatever can be parsed.
pub(crate) fn views(data: &[u8]) {
    let checked = Ipv4::new_checked(data);
    if let Ok(packet) = Ipv4::new_embedded(data) {
        v4(&packet);
        payload(packet.payload());
    }
    if let Ok(packet) = checked {
        assert!(
            packet.checksum_ok() && packet.payload().len() == usize::from(packet.payload_len())
        );
    }
    if let Ok(packet) = Ipv6::new_embedded(data) {
        v6(&packet);
        payload(packet.payload());
    }
    payload(data);
    let ok = transport_checksum_ok(data);
    if let Ok(seen) = sim::inspect::Seen::read(data) {
        // Two accounts of one checksum. Ours looks behind extension headers and padding.
        let other = seen.transport_is_right();
        assert!(
            ok.is_none() || other.is_none() || ok == other,
            "{ok:?} {other:?}"
        );
    }
    let _ = Summary::of(data).to_string();
}

fn v4(packet: &Ipv4<'_>) {
    let _ = (packet.tos(), packet.id(), packet.ttl(), packet.protocol());
    let _ = (packet.src(), packet.dst(), packet.dont_fragment());
    let place = packet.fragment();
    let _ = place.holds(packet.payload().len());
    assert!(packet.header_len() == 20 + packet.options().len());
    let _ = ipv4::source_route(packet.options());
}

fn v6(packet: &Ipv6<'_>) {
    let _ = (packet.traffic_class(), packet.flow_label());
    let _ = (packet.src(), packet.dst(), packet.hop_limit());
    if let Ok(upper) = packet.upper() {
        payload(packet.from_offset(upper.offset));
    }
}

fn payload(bytes: &[u8]) {
    let _ = transport::ports(bytes);
    if let Some(tcp) = Tcp::new_checked(bytes) {
        assert!(tcp.header_len() <= bytes.len());
        let _ = (tcp.flags(), tcp.sequence());
    }
    if let Some(icmp) = Icmp::parse(bytes) {
        assert_eq!(icmp.to_bytes(), bytes[..8]);
    }
}
