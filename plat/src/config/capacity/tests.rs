use super::{super::tests::settled, *};

fn capacity(text: &str) -> Capacity {
    Capacity::of(&settled(text).unwrap())
}

#[test]
fn a_pool_holds_as_much_as_its_ports() {
    let text = "pool = [\"203.0.113.0/30\", {range = \"198.51.100.1-198.51.100.2\", \
                tcp = \"1024-2047\", udp = \"1024-2047\", icmp = \"1024-2047\"}]\n\
                [limits]\nbindings = 1000\nsessions = 2000\nfragment_bytes = 1048576";
    let whole = capacity(text);
    // The first of the network is left out.
    assert_eq!(whole.addresses, 3 + 2);
    assert_eq!(whole.ports, [3 * 65_535 + 2 * 1024; 3]);
    let memory = Memory {
        pool: 3 * 24_576 + 2 * 384,
        bindings: 45_000,
        sessions: 150_000,
        stored_syns: 128 * 1024,
        fragments: 1 << 20,
    };
    assert_eq!(whole.memory, memory);
    assert_eq!(memory.in_all(), 74_496 + 195_000 + 131_072 + 1_048_576);
    assert!(whole.to_string().contains("bindings: at most 1000\n"));
    let small = "pool = [{address = \"203.0.113.1\", tcp = \"7\", udp = \"7\", icmp = \"7\"}]";
    assert_eq!(capacity(small).bindings, 3);
    let open = capacity("").to_string();
    assert!(open.starts_with("pool: left to the host\n"), "{open}");
    assert!(!open.contains("quota"), "{open}");
}

/// What an operator compares with the number of clients.
#[test]
fn clients_at_full_quota_are_told_by_protocol() {
    let quota = "quota.subscriber.bindings = 30\nquota.subscriber.sessions = 50\n\
                 quota.address.bindings = 10\nquota.address.sessions = 20\n";
    let entry = "{address = \"203.0.113.1\", tcp = \"1-3000\", udp = \"1-600\", \
                 icmp = \"none\"}";
    let limited = |more: &str| capacity(&format!("{quota}pool = [{entry}]\n{more}"));
    let whole = limited("");
    assert_eq!(whole.subscribers.by_ports, [100, 20, 0]);
    assert_eq!(whole.client_addresses.by_ports, [300, 60, 0]);
    assert_eq!(whole.subscribers.by_sessions, 1_000_000 / 50);
    let said = whole.to_string();
    let line = "subscribers (/64) at full quota at once: 100 by TCP ports, 20 by UDP ports, 0 by \
                ICMP identifiers (30 of each), 20000 by sessions (50)\n";
    assert!(said.contains(line), "{said}");
    assert!(
        said.contains("addresses at full quota at once: 300 by"),
        "{said}"
    );
    assert_eq!(
        whole.json()["at_full_quota"]["subscriber"]["by_ports"]["udp"],
        20
    );
    // All protocols share the limit of bindings.
    assert_eq!(
        limited("limits.bindings = 900").subscribers.by_ports,
        [30, 20, 0]
    );
    assert_eq!(
        limited("limits.sessions = 1000").subscribers.by_sessions,
        20
    );
}

/// A client's address stays on one of the pool's: what is left on two of them is not enough.
#[test]
fn natb_6888_01_an_address_has_no_more_than_one_of_the_pool() {
    let of = |bindings: u64| {
        let entry = |at: u8| {
            format!(
                "{{address = \"203.0.113.{at}\", tcp = \"1-1000\", udp = \"1-1000\", icmp = \"none\"}}"
            )
        };
        let text = format!(
            "quota.address.bindings = {bindings}\npool = [{}, {}]",
            entry(1),
            entry(2)
        );
        let of_address = capacity(&text).client_addresses;
        (of_address.bindings, of_address.by_ports)
    };
    assert_eq!(of(300), (300, [6, 6, 0]));
    assert_eq!(of(400), (400, [4, 4, 0]));
    assert_eq!(of(1500), (1000, [2, 2, 0]));
}

/// A subscriber has no more ports than its blocks have.
#[test]
fn blocks_limit_who_is_at_full_quota() {
    let pool = "pool = [\"203.0.113.1\", \"203.0.113.2\"]\nlimits.bindings = 4000000\n";
    let dynamic = "blocks = { mode = \"dynamic\", size = 512, most = 4 }\n";
    let subscribers = capacity(&format!("{dynamic}{pool}")).subscribers;
    // 126 blocks of each address.
    assert_eq!(subscribers.bindings, 2048);
    assert_eq!(subscribers.by_ports, [2 * 126 / 4; 3]);
    let by_number = "blocks = { mode = \"deterministic\", subscribers = 14, spare = 2 }\n\
                     clients = [\"2001:db8::/60\"]\n";
    let whole = capacity(&format!("{by_number}{pool}"));
    // Their own, and four of the 31 spare ones of an address.
    assert_eq!(whole.subscribers.bindings, 4032 + 4 * 256);
    assert_eq!(whole.subscribers.by_ports, [2 * 31 / 4; 3]);
    let said = whole.to_string();
    let line = "blocks of ports: 28 of 4032 ports by number, 62 of 256 to be given, at most 4 to \
                one\n";
    assert!(said.contains(line), "{said}");
    assert_eq!(whole.json()["blocks"]["given"], 62);
    // For less than that, fewer of them are needed, or none.
    for (bindings, at_once) in [(4033, 28), (4032 + 3 * 256, 20), (4032, 28), (100, 28)] {
        let text = format!("quota.subscriber.bindings = {bindings}\n{by_number}{pool}");
        let subscribers = capacity(&text).subscribers;
        assert_eq!(subscribers.bindings, bindings);
        assert_eq!(subscribers.by_ports, [at_once; 3], "{bindings}");
    }
    let unused = by_number.replace("spare = 2", "spare = 2, spare_most = 0");
    let subscribers = capacity(&format!("{unused}{pool}")).subscribers;
    assert_eq!(subscribers.bindings, 4032);
    assert_eq!(subscribers.by_ports, [28; 3]);
    // Only whole blocks count.
    let little = "pool = [{ address = \"203.0.113.1\", tcp = \"1024-2560\", \
                  udp = \"1024-65535\", icmp = \"1024-65535\" }]\n";
    let said = capacity(&format!("{dynamic}{little}")).to_string();
    assert!(
        said.contains("blocks of ports: 3 of 512 to be given"),
        "{said}"
    );
}

/// Two spare blocks of the pool are not for three workers.
#[test]
fn workers_are_as_many_as_blocks_of_each_kind() {
    let of = |blocks: &str| {
        let text = format!(
            "clients = [\"2001:db8::/60\"]\npool = [\"203.0.113.1\", \"203.0.113.2\"]\n{blocks}"
        );
        let whole = capacity(&text);
        assert_eq!(whole.json()["workers"], whole.workers);
        (whole.workers, whole.to_string())
    };
    let (most, said) = of("");
    assert_eq!(most, u8::MAX);
    assert!(
        said.contains("\nworkers: at most 255, so that each has ports\n"),
        "{said}"
    );
    let few =
        "blocks = { mode = \"deterministic\", subscribers = 14, spare = 1, spare_size = 2100 }\n";
    let (most, said) = of(few);
    assert_eq!(most, 2);
    let line = "\nworkers: at most 2, so that each has a block of each kind\n";
    assert!(said.contains(line), "{said}");
}
