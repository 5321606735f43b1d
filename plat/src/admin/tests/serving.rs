//! Metrics that come to another place, which their own is in the way of.

use std::net::{SocketAddr, TcpListener as Listener};

use super::{
    super::serving::{Place, Serving},
    *,
};

fn at(ip: [u8; 4], port: u16) -> SocketAddr {
    SocketAddr::from((ip, port))
}

fn is_served(address: SocketAddr) -> bool {
    std::net::TcpStream::connect(address).is_ok()
}

/// Metrics at a port of this address that is free at another one.
async fn served(admin: &Arc<Admin>) -> (Serving, SocketAddr) {
    let mut serving = Serving::default();
    // Not one that the system gives to others.
    for port in 18_000 + u16::try_from(std::process::id() % 1000).unwrap().. {
        let address = at([127, 0, 0, 1], port);
        if Listener::bind(at([0, 0, 0, 0], port)).is_ok() {
            let place = serving.open(admin, address).await.unwrap();
            serving.go_on(admin, Some(place)).await;
            return (serving, address);
        }
    }
    panic!("no port");
}

async fn opened(serving: &mut Serving, admin: &Arc<Admin>, wanted: SocketAddr) -> Place {
    serving.open(admin, wanted).await.unwrap()
}

#[tokio::test]
async fn plat_r_01_metrics_come_to_more_addresses_of_their_port() {
    let fixture = Fixture::new().await;
    let admin = &fixture.admin;
    let (mut serving, old) = served(admin).await;
    let (new, beside) = (at([0, 0, 0, 0], old.port()), at([127, 0, 0, 2], old.port()));
    // It may still turn out that it is not to be.
    let place = opened(&mut serving, admin, new).await;
    serving.stay(admin, place).await;
    assert!(serving.is_at(old) && is_served(old) && !is_served(beside));

    let place = opened(&mut serving, admin, new).await;
    // Whoever asks meanwhile waits.
    assert!(is_served(old));
    serving.go_on(admin, Some(place)).await;
    assert!(serving.is_at(new) && is_served(old) && is_served(beside));
    // And back.
    let place = opened(&mut serving, admin, old).await;
    serving.go_on(admin, Some(place)).await;
    assert!(serving.is_at(old) && is_served(old) && !is_served(beside));
    // What is not in the way stays until it is time.
    let place = opened(&mut serving, admin, beside).await;
    assert!(serving.is_at(old));
    serving.go_on(admin, Some(place)).await;
    assert!(serving.is_at(beside) && !is_served(old) && is_served(beside));
    serving.go_on(admin, None).await;
    assert!(!serving.is_at(beside) && !is_served(beside));
}

/// Somebody else is in the way, too.
#[tokio::test]
async fn plat_r_01_metrics_stay_where_they_are_if_the_other_place_cannot_be_had() {
    let fixture = Fixture::new().await;
    let admin = &fixture.admin;
    let (mut serving, old) = served(admin).await;
    let stranger = at([127, 0, 0, 3], old.port());
    let stranger = Listener::bind(stranger).unwrap();
    let wanted = at([0, 0, 0, 0], old.port());
    let refused = serving.open(admin, wanted).await.unwrap_err().to_string();
    assert!(refused.contains("no metrics at 0.0.0.0"), "{refused}");
    assert!(serving.is_at(old) && is_served(old));
    drop(stranger);
    let place = opened(&mut serving, admin, wanted).await;
    serving.go_on(admin, Some(place)).await;
    assert!(serving.is_at(wanted));
}
