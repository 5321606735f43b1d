//! Every kind of traffic through every pair of translators: `ours::ping_of_every_sort`,
//! `tayga_plat::ping_of_every_sort`, `tayga_clat::ping_of_every_sort`.
//!
//! What a pair with tayga cannot do stands in the functions themselves, as what comes of it.

macro_rules! tests {
    ($pair:expr; $($file:ident: $($name:ident)*;)*) => {
        $($(
            #[test]
            fn $name() {
                crate::$file::$name($pair);
            }
        )*)*
    };
}

macro_rules! pairs {
    ($($module:ident: $pair:expr;)*) => {
        $(mod $module {
            use lab::pair::Pair;

            tests! { $pair;
                traffic:
                    tcp_both_ways_with_offloads
                    tcp_both_ways_without_offloads
                    tcp_conversation
                    curl_reaches_an_ipv4_literal
                    udp_of_every_size
                    udp_of_8_kilobytes_is_fragmented_both_ways
                    udp_without_checksum
                    udp_with_segmentation_offload
                    ping_of_every_sort
                    ipv4_options
                    permission_to_fragment
                    port_unreachable_reaches_the_application
                    thirty_two_flows_at_once
                    iperf3_both_ways
                    a_poor_link_only_makes_it_slower;
                poor_link:
                    poor_link_tcp
                    poor_link_udp
                    poor_link_ping_and_iperf3;
                path:
                    traceroute_shows_every_hop
                    a_1280_byte_link_in_the_middle
                    a_narrow_link_in_the_ipv4_internet
                    ttl_expiry_names_the_router
                    unreachable_destinations_are_told;
            }
        })*
    };
}

pairs! {
    ours: Pair::OURS;
    tayga_plat: Pair::TAYGA_PLAT;
    tayga_clat: Pair::TAYGA_CLAT;
}
