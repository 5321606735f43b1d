//! Who has what of the pool, asked at the socket (RFC 7422, RFC 6888 §4).

use std::{net::Ipv4Addr, num::NonZeroU16};

use ::control::plat::{HeldBy, HeldRow, MAX_PAGE, StaticBinding};
use nat64::blocks::{Blocks, Deterministic, Dynamic};

use super::*;

const POOL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

fn some(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).unwrap()
}

/// The example of RFC 7422 §2: 14 subscribers for each address.
fn deterministic() -> nat64::Config {
    let mut config = Fixture::config();
    config.clients = vec!["2001:db8::/61".parse().unwrap()];
    config.blocks = Blocks::Deterministic(Deterministic::new(some(14), 2));
    config
}

async fn ask(fixture: &Fixture, verb: Verb) -> Result<(Vec<HeldRow>, u64), Problem> {
    match fixture.root().await.call(verb).await {
        Ok(Answer::Held { rows, left_off }) => Ok((rows, left_off)),
        Err(ipc::Error::Problem(problem)) => Err(problem),
        other => panic!("{other:?}"),
    }
}

async fn client_of(fixture: &Fixture, port: Option<u16>) -> Result<Vec<HeldRow>, Problem> {
    let verb = Verb::PoolClientOf {
        address: POOL,
        port,
        protocol: None,
    };
    Ok(ask(fixture, verb).await?.0)
}

async fn ports_of(fixture: &Fixture, client: &str) -> Result<Vec<HeldRow>, Problem> {
    let client = client.parse().unwrap();
    Ok(ask(fixture, Verb::PoolPortsOf { client }).await?.0)
}

/// Client, ports and why.
type Short<'a> = (&'a str, Option<(u16, u16)>, HeldBy);

fn short(rows: &[HeldRow]) -> Vec<Short<'_>> {
    let row = |it| {
        let HeldRow {
            client, ports, by, ..
        }: &HeldRow = it;
        (client.as_str(), *ports, *by)
    };
    rows.iter().map(row).collect()
}

/// The port that a packet left from.
fn source(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[20], packet[21]])
}

#[tokio::test]
async fn log_7422_01_whose_a_port_is_by_number_is_known_without_a_session() {
    let fixture = Fixture::of(deterministic(), 3).await;
    let third = ("2001:db8:0:3::/64", Some((13_120, 17_151)), HeldBy::Number);
    let rows = client_of(&fixture, Some(13_120)).await.unwrap();
    assert_eq!(short(&rows), [third]);
    assert_eq!(rows[0].protocol, None);
    let rows = ports_of(&fixture, "2001:db8:0:3::77").await.unwrap();
    assert_eq!(short(&rows), [third]);
    // Each subscriber once, whichever worker has its block.
    let all = ports_of(&fixture, "2001:db8::/32").await.unwrap();
    assert_eq!(all.len(), 8);
    assert_eq!(all, client_of(&fixture, None).await.unwrap());
    // With a session, it is also known which of its hosts.
    let port = source(&fixture.flow_of("2001:db8:0:3::77", 700));
    let rows = client_of(&fixture, Some(port)).await.unwrap();
    let binding = ("2001:db8:0:3::77", Some((port, port)), HeldBy::Binding);
    assert_eq!(short(&rows), [binding, third]);
    assert_eq!(rows[0].client_port, Some(700));
    assert_eq!(rows[0].protocol, Some(Protocol::Udp));
    let other = ask(
        &fixture,
        Verb::PoolClientOf {
            address: POOL,
            port: Some(port),
            protocol: Some(Protocol::Tcp),
        },
    );
    assert_eq!(short(&other.await.unwrap().0), [third]);
}

#[tokio::test]
async fn log_7422_01_blocks_that_were_given_and_bindings_are_added_up() {
    let mut config = Fixture::config();
    config.blocks = Blocks::Dynamic(Dynamic {
        size: some(64),
        most: some(2),
    });
    config.quotas.prefix_len = 64;
    let fixture = Fixture::of(config, 4).await;
    let mut ports: Vec<_> = (1..=70)
        .map(|port| source(&fixture.flow_of("2001:db8::1", port)))
        .collect();
    fixture.flow_of("2001:db8::2", 1);
    fixture.flow_of("2001:db8:5::1", 1);
    ports.sort_unstable();
    let rows = ports_of(&fixture, "2001:db8::1").await.unwrap();
    assert_eq!(rows.len(), 3, "{rows:?}");
    for block in &rows[..2] {
        assert_eq!(
            (block.client.as_str(), block.by),
            ("2001:db8::/64", HeldBy::Block)
        );
        let (first, last) = block.ports.unwrap();
        assert_eq!(last - first, 63);
        assert!(ports.iter().any(|it| (first..=last).contains(it)));
        let rows = client_of(&fixture, Some(last)).await.unwrap();
        assert_eq!(rows.last(), Some(block));
    }
    let bound = &rows[2];
    assert_eq!((bound.by, bound.bindings), (HeldBy::Binding, Some(70)));
    assert_eq!(bound.ports, Some((ports[0], ports[69])));
    // Its whole network, and everybody.
    let network = ports_of(&fixture, "2001:db8::/64").await.unwrap();
    assert_eq!(network.len(), 4);
    assert_eq!(ports_of(&fixture, "::/0").await.unwrap().len(), 6);
    assert_eq!(client_of(&fixture, None).await.unwrap().len(), 6);
}

#[tokio::test]
async fn a_port_without_blocks_is_the_clients_that_is_bound_to_it() {
    let mut config = Fixture::config();
    let eam = pref64::eam::Eam::parse("198.51.100.7/32", "2001:db8:e::7/128").unwrap();
    config.eam = pref64::eam::EamTable::new(vec![eam]).unwrap();
    let fixture = Fixture::of(config, 2).await;
    let port = source(&fixture.flow_of("2001:db8::1", 5000));
    let rows = client_of(&fixture, Some(port)).await.unwrap();
    assert_eq!(
        short(&rows),
        [("2001:db8::1", Some((port, port)), HeldBy::Binding)]
    );
    let pool = std::net::SocketAddrV4::new(POOL, 80);
    let binding = StaticBinding {
        protocol: Protocol::Tcp,
        client: "[2001:db8::9]:8080".parse().unwrap(),
        pool,
    };
    let mut client = fixture.root().await;
    let _: Answer = client.call(Verb::BibAdd(binding)).await.unwrap();
    let rows = client_of(&fixture, Some(80)).await.unwrap();
    assert_eq!(
        short(&rows),
        [("2001:db8::9", Some((80, 80)), HeldBy::Static)]
    );
    // A host with an address of its own, both ways.
    let verb = Verb::PoolClientOf {
        address: Ipv4Addr::new(198, 51, 100, 7),
        port: Some(7),
        protocol: None,
    };
    let mapped = [("2001:db8:e::7", None, HeldBy::Mapping)];
    assert_eq!(short(&ask(&fixture, verb).await.unwrap().0), mapped);
    let rows = ports_of(&fixture, "2001:db8:e::7").await.unwrap();
    assert_eq!(short(&rows), mapped);
}

#[tokio::test]
async fn what_nobody_has_is_said_so() {
    let fixture = Fixture::new().await;
    let problem = |result: Result<Vec<HeldRow>, Problem>| {
        let problem = result.unwrap_err();
        (problem.code, problem.summary)
    };
    let (code, why) = problem(client_of(&fixture, Some(4000)).await);
    assert_eq!(code, ProblemCode::NotFound);
    assert_eq!(why, "nobody has 203.0.113.1:4000 now");
    let strange = Verb::PoolClientOf {
        address: Ipv4Addr::new(203, 0, 113, 9),
        port: None,
        protocol: None,
    };
    let why = ask(&fixture, strange).await.unwrap_err().summary;
    assert!(why.contains("not in the pool"), "{why}");
    let (code, why) = problem(ports_of(&fixture, "2001:db8::1").await);
    assert_eq!(code, ProblemCode::NotFound);
    assert!(why.contains("2001:db8::1/128 has no address"), "{why}");
    for wrong in ["203.0.113.1", "[2001:db8::1]:80"] {
        let (code, _) = problem(ports_of(&fixture, wrong).await);
        assert_eq!(code, ProblemCode::Invalid, "{wrong}");
    }
    // It is not everybody's business.
    let mut stranger = fixture.client(Peer::of(4242, 4242)).await;
    let verb = Verb::PoolPortsOf {
        client: "2001:db8::1".parse().unwrap(),
    };
    let refused = stranger.call::<_, Answer>(verb).await.unwrap_err();
    assert!(
        matches!(&refused, ipc::Error::Problem(it) if it.code == ProblemCode::NotPermitted),
        "{refused}"
    );
}

/// However many clients there are, an answer has an end, and says what it leaves off.
#[tokio::test]
async fn an_answer_says_what_it_leaves_off() {
    const MORE: u32 = 5;

    let fixture = Fixture::new().await;
    let most = u32::try_from(MAX_PAGE).unwrap();
    let fill = move |engine: &mut Engine, _: Instant| {
        for n in 0..most + MORE {
            let id = u16::try_from(n + 2000).unwrap();
            let binding = nat64::static_bib::StaticBinding {
                protocol: Transport::Udp,
                inside: Endpoint6 {
                    address: Ipv6Addr::from_bits((0x2001_0db8 << 96) + u128::from(n + 1)),
                    id,
                },
                outside: nat64::tuple::Endpoint4 { address: POOL, id },
            };
            engine.add_static(binding).unwrap();
        }
    };
    fixture.admin.each(fill).await.unwrap();
    let client = "2001:db8::/32".parse().unwrap();
    let (rows, left_off) = ask(&fixture, Verb::PoolPortsOf { client }).await.unwrap();
    assert_eq!((rows.len(), left_off), (MAX_PAGE, u64::from(MORE)));
}
