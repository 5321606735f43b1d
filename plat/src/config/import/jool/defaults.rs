//! How plat does what Jool has a setting for.

/// Settings that plat has no key for: how plat does it, as Jool would write it, and why not
/// otherwise.
pub(super) const DEFAULTS: [(&str, &str, &str); 15] = [
    ("manually-enabled", "true", "stop the service instead"),
    ("trace", "false", "see OPENCLAT_LOG"),
    ("zeroize-traffic-class", "false", TRAFFIC_CLASS),
    ("override-tos", "false", TRAFFIC_CLASS),
    ("tos", "0", TRAFFIC_CLASS),
    (
        "mtu-plateaus",
        PLATEAUS,
        "the plateaus are those of RFC 1191",
    ),
    (
        "drop-externally-initiated-tcp",
        "false",
        "plat answers what has no session by RFC 6146 section 3.5.2.2",
    ),
    ("drop-icmpv6-info", "false", "plat always translates pings"),
    (
        "source-icmpv6-errors-better",
        "true",
        "errors from IPv4 are shown under the prefix",
    ),
    ("f-args", "11", "plat chooses ports by a keyed hash"),
    ("logging-bib", "false", LOGGING),
    ("logging-session", "false", LOGGING),
    ("logging-debug", "false", "see OPENCLAT_LOG"),
    ("ss-enabled", "false", "plat has no standby yet"),
    ("randomize-rfc6791-addresses", "true", "this is for SIIT"),
];

const TRAFFIC_CLASS: &str = "plat copies the traffic class (RFC 7915 section 5.1)";
const LOGGING: &str = "plat does not log bindings by this key";
const PLATEAUS: &str = "[65535,32000,17914,8166,4352,2002,1492,1006,508,296,68]";
