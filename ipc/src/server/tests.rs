use std::sync::Mutex;

use serde_json::json;
use tokio::{io::DuplexStream, task::JoinHandle};

use super::*;
use crate::{
    Client,
    transport::memory::{self, MemoryAddress},
};

/// Echoes; `subscribe` subscribes, `sleep` takes long, `whoami` tells, the rest is refused.
#[derive(Default)]
struct Echo {
    subscribers: Mutex<Vec<Subscriber>>,
}

impl Service for Echo {
    fn hello(&self) -> Hello<Value> {
        Hello::new("echo", "0").with(json!({"state": "fine"}))
    }

    async fn call(
        &self,
        peer: &Peer,
        verb: Value,
        subscriber: &Subscriber,
    ) -> Result<Value, Problem> {
        match verb.as_str() {
            Some("subscribe") => {
                subscriber.subscribe();
                self.subscribers.lock().unwrap().push(subscriber.clone());
                Ok(Value::Null)
            }
            Some("sleep") => {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                Ok(Value::Null)
            }
            Some("whoami") => Ok(peer.uid.into()),
            Some(text) => Ok(text.into()),
            None => Err(Problem::new(ProblemCode::UnknownVerb, "no such verb").command("help")),
        }
    }
}

struct Fixture {
    address: MemoryAddress,
    echo: Arc<Echo>,
    task: JoinHandle<()>,
}

impl Fixture {
    fn new(limits: Limits) -> Self {
        Self::with_buffer(limits, 1 << 16)
    }

    fn with_buffer(limits: Limits, buffer: usize) -> Self {
        let (listener, address) = memory::listen(buffer);
        let echo = Arc::new(Echo::default());
        let task = tokio::spawn(serve(listener, Arc::clone(&echo), limits));
        Self {
            address,
            echo,
            task,
        }
    }

    async fn stream(&self, uid: u32) -> DuplexStream {
        self.address.connect(Peer::of(uid, uid)).await.unwrap()
    }

    async fn client(&self, uid: u32) -> Client<DuplexStream> {
        let hello = Hello::new("test", "0");
        Client::greet(self.stream(uid).await, &hello).await.unwrap()
    }
}

fn problem(error: Error) -> ProblemCode {
    match error {
        Error::Problem(problem) => problem.code,
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn requests_are_answered_and_refused() {
    let fixture = Fixture::new(Limits::default());
    let mut client = fixture.client(7).await;
    assert_eq!(client.hello().greeting, Some(json!({"state": "fine"})));
    assert_eq!(client.call::<_, String>("x").await.unwrap(), "x");
    assert_eq!(client.call::<_, u32>("whoami").await.unwrap(), 7);
    let refused = client.call::<_, String>(3).await.unwrap_err();
    match refused {
        Error::Problem(problem) => assert_eq!(problem.command.as_deref(), Some("help")),
        other => panic!("{other}"),
    }
    // It goes on.
    assert_eq!(client.call::<_, String>("y").await.unwrap(), "y");
    fixture.task.abort();
    let _ = fixture.task.await;
    let gone = client.call::<_, String>("z").await.unwrap_err();
    assert!(matches!(gone, Error::Closed | Error::Io(_)), "{gone}");
}

#[tokio::test(start_paused = true)]
async fn another_major_version_is_told_so() {
    let fixture = Fixture::new(Limits::default());
    let mut hello: Hello<Value> = Hello::new("test", "0");
    hello.protocol = Version { major: 2, minor: 0 };
    let mut client = Client::greet(fixture.stream(7).await, &hello)
        .await
        .unwrap();
    let error = client.call::<_, String>("x").await.unwrap_err();
    assert_eq!(problem(error), ProblemCode::VersionMismatch);

    // The other way round.
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let mut service = Connection::of_service(theirs);
    service
        .send(&json!({"protocol": {"major": 9, "minor": 1}, "new": 1}))
        .await
        .unwrap();
    let error = Client::greet(ours, &Hello::new("test", "0"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::VersionMismatch { theirs } if theirs.major == 9),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_cut_off() {
    let fixture = Fixture::new(Limits::default());
    let mut silent = Connection::of_client(fixture.stream(7).await);
    assert!(silent.receive::<Hello<Value>>().await.unwrap().is_some());
    let closing: ToClient<Value, Value> = silent.receive().await.unwrap().unwrap();
    assert!(
        matches!(closing, ToClient::Closing { problem } if problem.code == ProblemCode::Timeout)
    );
    // One that greeted, too, in the end; a subscriber may be silent.
    let mut subscriber = fixture.client(7).await;
    let () = subscriber.call("subscribe").await.unwrap();
    let mut idle = fixture.client(7).await;
    let ended = idle.event::<Value>().await.unwrap_err();
    assert_eq!(problem(ended), ProblemCode::Timeout);
    assert_eq!(subscriber.call::<_, String>("x").await.unwrap(), "x");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_is_given_up() {
    let fixture = Fixture::new(Limits::default());
    let mut client = fixture.client(7).await;
    let error = client.call::<_, Value>("sleep").await.unwrap_err();
    assert_eq!(problem(error), ProblemCode::Timeout);
    assert_eq!(client.call::<_, String>("x").await.unwrap(), "x");
}

#[tokio::test(start_paused = true)]
async fn nobody_takes_all_connections() {
    let limits = Limits {
        connections: 4,
        per_user: 2,
        ..Limits::default()
    };
    let fixture = Fixture::new(limits);
    let first = fixture.client(1).await;
    let _second = fixture.client(1).await;
    let mut third = fixture.client(1).await;
    let error = third.call::<_, String>("x").await.unwrap_err();
    assert_eq!(problem(error), ProblemCode::TooManyConnections);
    drop(third);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut others = Vec::new();
    for uid in [2, 3] {
        let mut client = fixture.client(uid).await;
        assert_eq!(client.call::<_, u32>("whoami").await.unwrap(), uid);
        others.push(client);
    }
    let error = fixture.client(4).await.call::<_, String>("x").await;
    assert_eq!(problem(error.unwrap_err()), ProblemCode::TooManyConnections);
    let mut root = fixture.client(0).await;
    assert_eq!(root.call::<_, u32>("whoami").await.unwrap(), 0);
    // A place that was given up is free again.
    drop((first, root, others));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut again = fixture.client(1).await;
    assert_eq!(again.call::<_, String>("x").await.unwrap(), "x");
}

/// With room for less than one message on the way.
#[tokio::test(start_paused = true)]
async fn a_reader_that_is_stuck_holds_up_nobody() {
    let limits = Limits {
        events: 8,
        ..Limits::default()
    };
    let fixture = Fixture::with_buffer(limits, 256);
    let mut stuck = fixture.client(7).await;
    let () = stuck.call("subscribe").await.unwrap();
    let mut other = fixture.client(7).await;
    let subscriber = fixture.echo.subscribers.lock().unwrap()[0].clone();
    let mut pushed = 0;
    while subscriber.push("x".repeat(300).into()) {
        pushed += 1;
        assert!(pushed < 100, "the queue has no end");
        assert_eq!(other.call::<_, String>("x").await.unwrap(), "x");
    }
    assert!(pushed >= limits.events);
    // Cut off after its time, whether it reads or not.
    tokio::time::sleep(limits.patience * 2).await;
    assert!(!subscriber.push(Value::Null));
    assert_eq!(other.call::<_, String>("x").await.unwrap(), "x");
    let end = loop {
        match stuck.event::<Value>().await {
            Ok(_) => {}
            Err(end) => break end,
        }
    };
    assert!(matches!(end, Error::Closed | Error::Io(_)), "{end}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_told_why_it_is_cut_off() {
    let limits = Limits {
        events: 8,
        ..Limits::default()
    };
    let fixture = Fixture::new(limits);
    let mut slow = fixture.client(7).await;
    let () = slow.call("subscribe").await.unwrap();
    let subscriber = fixture.echo.subscribers.lock().unwrap()[0].clone();
    // All at once: the connection has no chance to send any.
    while subscriber.push(1.into()) {}
    let mut seen = 0;
    let end = loop {
        match slow.event::<u32>().await {
            Ok(_) => seen += 1,
            Err(end) => break end,
        }
    };
    assert_eq!(problem(end), ProblemCode::TooSlow);
    assert!(seen <= limits.events);
}

#[tokio::test(start_paused = true)]
async fn events_come_between_answers_and_in_order() {
    let fixture = Fixture::new(Limits::default());
    let mut client = fixture.client(7).await;
    let () = client.call("subscribe").await.unwrap();
    let subscriber = fixture.echo.subscribers.lock().unwrap()[0].clone();
    for n in 0..3 {
        assert!(subscriber.push(n.into()));
    }
    assert_eq!(client.call::<_, String>("x").await.unwrap(), "x");
    for n in 0..3 {
        assert_eq!(client.event::<u32>().await.unwrap(), n);
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_message_end_the_connection_and_nothing_else() {
    use tokio::io::AsyncWriteExt;

    let fixture = Fixture::new(Limits::default());
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"\0\0\0\x01{",
        b"\0\0\0\0",
        &[0xff; 4],
    ] {
        let mut stream = fixture.stream(7).await;
        stream.write_all(bytes).await.unwrap();
        let mut client = Connection::of_client(stream);
        assert!(client.receive::<Hello<Value>>().await.unwrap().is_some());
        let closing: ToClient<Value, Value> = client.receive().await.unwrap().unwrap();
        assert!(
            matches!(closing, ToClient::Closing { problem } if problem.code == ProblemCode::Malformed),
            "{bytes:?}"
        );
    }
    let mut client = fixture.client(7).await;
    assert_eq!(client.call::<_, String>("x").await.unwrap(), "x");
}
