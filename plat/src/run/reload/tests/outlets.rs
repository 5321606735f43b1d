//! Log and metrics that cannot be had at first, or not both at once.

use std::net::{Ipv6Addr, SocketAddrV6};

use super::*;

/// The same address, written in two ways: nobody can listen at both.
fn one_address(port: u16) -> [SocketAddrV6; 2] {
    [0, 1].map(|scope| SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, 0, scope))
}

fn listen(address: SocketAddrV6) -> String {
    format!("[metrics]\nlisten = \"{address}\"\n")
}

/// Where metrics are to be served, and whether they are.
async fn metrics(running: &Running) -> String {
    let Ok(Answer::Config { settings }) = running.ask(Verb::Config).await else {
        panic!("no settings");
    };
    let listen = settings.into_iter().find(|it| it.key == "metrics.listen");
    listen.unwrap().json
}

#[tokio::test]
async fn plat_r_01_metrics_come_to_another_address_of_a_port_that_is_their_own() {
    let running = Running::new("own-port");
    let [one, other] = one_address(free_port());
    let script = async {
        assert!(has_metrics_at(one.into()).await);
        // The host is against it, but not against these.
        running
            .host
            .refuse_after(0, io::ErrorKind::PermissionDenied);
        let text = format!("{MORE}{}", listen(other));
        let refused = running.reload(&text).await.unwrap_err();
        assert!(refused.contains("permission denied"), "{refused}");
        assert!(metrics(&running).await.contains("[::1]:"));
        assert!(has_metrics_at(one.into()).await);

        running.reload(&text).await.unwrap();
        assert!(metrics(&running).await.contains("[::1%1]:"));
        assert!(has_metrics_at(one.into()).await);
        // And back, by itself.
        running.write(&format!("{BOTH}{}", listen(one)));
        let confirm_within = Some(1);
        running.ask(Verb::Reload { confirm_within }).await.unwrap();
        assert!(metrics(&running).await.contains("[::1]:"));
        time::sleep(Duration::from_millis(1500)).await;
        assert!(metrics(&running).await.contains("[::1%1]:"));
        assert!(has_metrics_at(one.into()).await);
    };
    let first = format!("{BOTH}{}", listen(one));
    running.with(&first, script).await;
}

/// Neither the file nor the port can be had at the start, which goes on without.
#[tokio::test]
async fn plat_r_01_what_could_not_be_opened_is_tried_again_with_the_same_files() {
    let running = Running::new("again");
    let log = running.path("log.jsonl");
    let made = std::process::Command::new("mkfifo").arg(&log).status();
    assert!(made.unwrap().success());
    let port = free_port();
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let first = format!("{BOTH}{}{}", log_in(&log, ""), metrics_at(port));
    let script = async {
        running.flow();
        let refused = running.reload(&first).await.unwrap_err();
        assert!(
            refused.contains("it is a pipe that nobody reads"),
            "{refused}"
        );
        // What is different is not refused for it.
        let other = format!("timers.udp = 200\n{first}");
        running.reload(&other).await.unwrap();

        drop(taken);
        let refused = running.reload(&other).await.unwrap_err();
        assert!(
            refused.contains("it is a pipe that nobody reads"),
            "{refused}"
        );
        assert!(has_metrics(port).await);
        fs::remove_file(&log).unwrap();
        let said = running.reload(&other).await.unwrap();
        assert_eq!(said, "nothing is different\nthe event log is written now");
        let told = events(&log, "known", None).await;
        assert_eq!(before(&told), [(BINDING.into(), 5000)]);
        let said = running.reload(&other).await.unwrap();
        assert_eq!(said, "nothing is different");
    };
    running.with(&first, script).await;
}

/// What is missing comes with what is different, too.
#[tokio::test]
async fn plat_r_01_what_could_not_be_opened_comes_with_another_configuration() {
    let running = Running::new("again-other");
    let log = running.path("log.jsonl");
    fs::create_dir(&log).unwrap();
    let port = free_port();
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let first = format!("{BOTH}{}{}", log_in(&log, ""), metrics_at(port));
    let script = async {
        fs::remove_dir(&log).unwrap();
        drop(taken);
        let other = format!("timers.udp = 200\n{first}");
        running.reload(&other).await.unwrap();
        assert!(has_metrics(port).await);
        running.flow();
        events(&log, BINDING, Some(5000)).await;
    };
    running.with(&first, script).await;
}
