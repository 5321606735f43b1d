//! What is to be confirmed, and what is refused before anything changes.

use super::*;

const ROUTE: &str = "route to 203.0.113.3/32 out of plat0";

impl Running {
    async fn done(&self, verb: Verb) -> Result<String, String> {
        match self.ask(verb).await {
            Ok(Answer::Done { text, .. }) => Ok(text),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn reload_within(&self, text: &str, seconds: u32) -> Result<String, String> {
        self.write(text);
        let confirm_within = Some(seconds);
        self.done(Verb::Reload { confirm_within }).await
    }

    async fn confirm(&self) -> Result<String, String> {
        self.done(Verb::ReloadConfirm).await
    }

    /// Whether it is the configuration with the third address that holds.
    fn has_more(&self) -> bool {
        self.made().contains(&ROUTE.to_owned())
    }

    /// The pool ports of all static bindings: a page is of one worker.
    pub(super) async fn static_ports(&self) -> Vec<u16> {
        let (mut ports, mut wanted) = (Vec::new(), Wanted::default());
        loop {
            let Ok(Answer::Bindings(page)) = self.ask(Verb::BibList(wanted.clone())).await else {
                panic!("no bindings");
            };
            let all = page.rows.iter().filter(|it| it.is_static);
            ports.extend(all.map(|it| it.pool.port()));
            let Some(next) = page.next else {
                ports.sort_unstable();
                return ports;
            };
            wanted.from = next;
        }
    }
}

async fn pass(milliseconds: u64) {
    time::sleep(Duration::from_millis(milliseconds)).await;
}

#[tokio::test]
async fn plat_r_01_what_nobody_confirms_is_taken_back_in_time() {
    let running = Running::new("unconfirmed");
    let script = async {
        let before = running.made();
        let nothing = "nothing waits to be confirmed";
        assert!(running.confirm().await.unwrap_err().contains(nothing));
        // What is not different is not waited for, and no time is no time.
        let said = running.reload_within(BOTH, 1).await.unwrap();
        assert_eq!(said, "nothing is different");
        assert!(running.confirm().await.unwrap_err().contains(nothing));
        assert!(running.reload_within(MORE, 0).await.is_err());
        assert_eq!(running.made(), before);

        let said = running.reload_within(MORE, 1).await.unwrap();
        assert!(
            said.contains("in 1 seconds, unless: plat reload --confirm"),
            "{said}"
        );
        pass(500).await;
        assert!(running.has_more());
        pass(1000).await;
        assert_eq!(running.made(), before);
        assert!(running.confirm().await.unwrap_err().contains(nothing));
        // The same file is another configuration again.
        running.reload_within(MORE, 1).await.unwrap();
        assert_eq!(running.confirm().await, Ok("confirmed".to_owned()));
        pass(1300).await;
        assert!(running.has_more());
    };
    running.with(BOTH, script).await;
}

/// Neither the port of the old metrics nor the file of the old log can be had any more.
#[tokio::test]
async fn plat_r_01_log_and_metrics_do_not_keep_a_configuration_that_nobody_confirmed() {
    let running = Running::new("way-back");
    let (one, other) = (running.path("one.jsonl"), running.path("other.jsonl"));
    let (old, new) = (free_port(), free_port());
    let first = format!("{BOTH}{}{}", log_in(&one, ""), metrics_at(old));
    let script = async {
        let before = running.made();
        assert!(has_metrics(old).await);
        let more = log_in(&other, "destinations = true\n") + &metrics_at(new);
        let text = format!("{MORE}{more}");
        running.reload_within(&text, 1).await.unwrap();
        assert!(running.has_more() && has_metrics(new).await);
        events(&one, "closed", None).await;
        fs::remove_file(&one).unwrap();
        fs::create_dir(&one).unwrap();
        let deadline = Instant::now() + SOON;
        let _taken = loop {
            // Whoever served there may still be about to end.
            match std::net::TcpListener::bind(("127.0.0.1", old)) {
                Ok(taken) => break taken,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            pass(5).await;
        };
        pass(1500).await;
        assert_eq!(running.made(), before);
        assert!(!has_metrics(new).await);
        // The log goes on where it is, as it was.
        running.flow_from(5001);
        let told = events(&other, BINDING, Some(5001)).await;
        let is_session = |it: &Value| it["name"] == SESSION && it["client_port"] == 5001;
        assert!(!told.iter().any(is_session), "{told:?}");
        // There is a way forth again.
        running.reload(&text).await.unwrap();
        assert!(running.has_more() && has_metrics(new).await);
    };
    running.with(&first, script).await;
}

/// Back to what was confirmed last, however often it was changed meanwhile.
#[tokio::test]
async fn plat_r_01_what_waits_to_be_confirmed_is_nothing_to_go_back_to() {
    let running = Running::new("twice");
    let script = async {
        let before = running.made();
        running.reload_within(MORE, 60).await.unwrap();
        let other = format!("{MORE}ipv6_mtu = 1600");
        running.reload_within(&other, 60).await.unwrap();
        // Nothing is different, but there is less time.
        running.reload_within(&other, 1).await.unwrap();
        assert!(running.has_more());
        pass(1500).await;
        assert_eq!(running.made(), before);
        // Whoever reads it again without a condition means it.
        running.reload_within(MORE, 1).await.unwrap();
        let said = running.reload(&other).await.unwrap();
        assert!(said.contains("is confirmed by that"), "{said}");
        pass(1300).await;
        assert!(running.has_more());
    };
    running.with(BOTH, script).await;
}

fn bib(client: u16, outside: &str) -> String {
    format!(
        "[[bib]]\nprotocol = \"udp\"\nipv6 = \"[2001:db8::9]:{client}\"\nipv4 = \"{outside}\"\n"
    )
}

/// Each has another reason, and leaves everything as it was.
#[tokio::test]
async fn plat_r_01_what_cannot_be_is_refused_before_anything_changes() {
    let running = Running::new("refused");
    let first = format!("workers = 2\n{BOTH}{}", bib(80, "203.0.113.1:80"));
    let script = async {
        let (before, flow) = (running.made(), running.flow());
        let (own, other) = (bib(80, "203.0.113.1:80"), "workers = 2\n");
        let few = "pool = [{ address = \"203.0.113.1\", tcp = \"5000-5099\", udp = \"5000-5099\", icmp = \"5000-5099\" }]\n";
        for (text, reason) in [
            (format!("workers = 3\n{BOTH}{own}"), "takes a restart"),
            (format!("{other}{few}{own}"), "too few ports for 2 workers"),
            (
                format!("{other}{BOTH}{own}{}", bib(81, "203.0.113.9:81")),
                "is not in the pool",
            ),
            (
                format!(
                    "{other}{BOTH}{own}{}",
                    bib(81, &format!("{}:{}", flow.0, flow.1))
                ),
                "is in use",
            ),
            (
                format!("{other}pool = [\"203.0.113.1\", \"192.0.2.1\"]\n{own}"),
                "192.0.2.1",
            ),
        ] {
            let refused = running.reload(&text).await.unwrap_err();
            assert!(refused.contains(reason), "{reason}: {refused}");
            assert_eq!(running.made(), before, "{reason}");
            assert_eq!(
                (running.flow(), running.static_ports().await),
                (flow, vec![80])
            );
        }
        // One that is gone ends, and its port may be another's.
        let text = format!("{other}{BOTH}{}", bib(81, "203.0.113.1:80"));
        running.reload(&text).await.unwrap();
        assert_eq!(running.static_ports().await, [80]);
        let text = format!("{other}{BOTH}{}", bib(81, "203.0.113.1:82"));
        running.reload(&text).await.unwrap();
        assert_eq!(running.static_ports().await, [82]);
        // The client's address is gone, and with it what it had there.
        let rest = if flow.0.octets()[3] == 1 { 2 } else { 1 };
        let text = format!("{other}pool = [\"203.0.113.{rest}\"]\n");
        let said = running.reload(&text).await.unwrap();
        assert!(said.contains("0 sessions survive, 1 have ended"), "{said}");
        assert_eq!(running.static_ports().await, [0; 0]);
        let gone = format!("route to {}/32 out of plat0", flow.0);
        assert!(!running.made().contains(&gone));
        assert_ne!(running.flow().0, flow.0);
    };
    running.with(&first, script).await;
}

/// Static bindings that were to go are there again when a worker refuses one that was to come.
#[tokio::test]
async fn plat_r_01_static_bindings_come_back_when_a_worker_refuses() {
    let running = Running::new("back");
    let few = "workers = 2\n[limits]\nbindings = 2\n";
    let of = |ports: &[u16]| {
        let all = ports.iter();
        let all = all.map(|port| bib(*port, &format!("203.0.113.1:{port}")));
        format!("{BOTH}{few}{}", all.collect::<String>())
    };
    let script = async {
        assert_eq!(running.static_ports().await, [80]);
        // Two in one worker's shard, which has room for one.
        let refused = running.reload(&of(&[96, 128])).await.unwrap_err();
        assert!(
            refused.contains("the limit of bindings is reached"),
            "{refused}"
        );
        assert_eq!(running.static_ports().await, [80]);
        running.reload(&of(&[96])).await.unwrap();
        assert_eq!(running.static_ports().await, [96]);
    };
    running.with(&of(&[80]), script).await;
}
