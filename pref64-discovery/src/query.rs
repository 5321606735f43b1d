//! One question to one resolver: the AAAA records of `ipv4only.arpa` (RFC 7050 §3), by hickory.
//!
//! The question asks for no validation and forbids none (CD=0, no DO): a synthesised answer cannot
//! be valid, and a resolver that is told not to check may not synthesise (RFC 6147 §5.5,
//! RFC 8880 §7.1). It carries no EDNS: the answer fits without, and what is longer comes by TCP.

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    pin::Pin,
    time::Duration,
};

use hickory_net::{
    NetError,
    proto::{
        op::{DnsRequest, DnsRequestOptions, Message, Query, ResponseCode},
        rr::{Name, RData, Record, RecordType},
    },
    runtime::{RuntimeProvider, TokioHandle, TokioTime, iocompat::AsyncIoTokioAsStd},
    tcp::TcpClientStream,
    udp::UdpClientStream,
    xfer::{DnsHandle, DnsRequestSender, FirstAnswer},
};
use host::dns::Dns;
use pref64::{
    dns_query::{MAX_ADDRESSES, Outcome},
    tracker::IfIndex,
    well_known_name,
};
use tokio::net::{TcpStream, UdpSocket};

/// Where DNS servers listen.
pub(crate) const PORT: u16 = 53;

/// A datagram that is lost is sent again after that.
const REPEAT: Duration = Duration::from_secs(1);

/// How often it is sent at most.
const TRANSMISSIONS: u8 = 3;

/// The last one has a little longer.
const UDP_TIMEOUT: Duration = Duration::from_millis(3500);

/// Connecting and asking by TCP, each.
const TCP_TIMEOUT: Duration = Duration::from_secs(3);

/// A CNAME may lead to another; further than this is not followed.
const MAX_ALIASES: usize = 8;

/// The address of a resolver on an interface, in which a link-local one needs its scope.
pub(crate) fn socket_address(interface: IfIndex, resolver: IpAddr, port: u16) -> SocketAddr {
    match resolver {
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            SocketAddrV6::new(address, port, 0, interface).into()
        }
        IpAddr::V4(_) | IpAddr::V6(_) => SocketAddr::new(resolver, port),
    }
}

/// Asks a resolver by an interface. Ends within ten seconds.
pub(crate) async fn ask(dns: impl Dns, interface: IfIndex, resolver: SocketAddr) -> Outcome {
    let asked = exchange(dns, interface, resolver).await;
    let outcome = asked.map_err(|error| error.to_string()).and_then(read);
    outcome.unwrap_or_else(|why| {
        tracing::debug!("{resolver} on interface {interface}: {why}");
        Outcome::Failed
    })
}

/// By UDP, and by TCP if the answer does not fit.
async fn exchange(
    dns: impl Dns,
    interface: IfIndex,
    resolver: SocketAddr,
) -> Result<Message, NetError> {
    let provider = ByInterface {
        dns,
        interface,
        tasks: TokioHandle::default(),
    };
    let mut stream = UdpClientStream::builder(resolver, provider.clone())
        .with_timeout(Some(UDP_TIMEOUT))
        .with_max_retries(TRANSMISSIONS)
        .build();
    let answer = stream.send_message(request()).first_answer().await?;
    if !answer.truncation {
        return Ok(answer.into_message());
    }
    let connected = TcpClientStream::exchange(resolver, None, TCP_TIMEOUT, Some(1), provider);
    let answer = connected.await?.send(request()).first_answer().await?;
    Ok(answer.into_message())
}

fn question() -> Query {
    let labels = well_known_name::LABELS;
    let name = Name::from_labels(labels).unwrap_or_default();
    Query::query(name, RecordType::AAAA)
}

fn request() -> DnsRequest {
    let mut options = DnsRequestOptions::default();
    options.use_edns = false;
    options.retry_interval = REPEAT;
    DnsRequest::from_query(question(), options)
}

/// What an answer says, if it is one to our question.
fn read(answer: Message) -> Result<Outcome, String> {
    let question = question();
    if answer.queries != [question.clone()] {
        return Err("the answer is one to another question".into());
    }
    let code = answer.response_code;
    let addresses = if code == ResponseCode::NoError {
        addresses(&question.name, &answer.answers)
    } else if code == ResponseCode::NXDomain {
        Vec::new()
    } else {
        return Err(code.to_string());
    };
    let Some(ttl) = addresses.iter().map(|(_, ttl)| *ttl).min() else {
        let ttl = negative_ttl(&answer.authorities);
        return Ok(Outcome::Negative { ttl });
    };
    Ok(Outcome::Addresses {
        addresses: addresses.into_iter().map(|(address, _)| address).collect(),
        ttl,
    })
}

/// The addresses of `name`, through its aliases, and how long each holds.
fn addresses(name: &Name, answers: &[Record]) -> Vec<(Ipv6Addr, Duration)> {
    let (mut name, mut alias_ttl) = (name, u32::MAX);
    for _ in 0..MAX_ALIASES {
        let alias = answers.iter().filter(|it| it.name == *name);
        let mut alias = alias.filter_map(|record| {
            let RData::CNAME(to) = &record.data else {
                return None;
            };
            Some((&to.0, record.ttl))
        });
        let Some((to, ttl)) = alias.next() else { break };
        (name, alias_ttl) = (to, alias_ttl.min(ttl));
    }
    let records = answers.iter().filter(|it| it.name == *name);
    let addresses = records.filter_map(|record| {
        let RData::AAAA(address) = &record.data else {
            return None;
        };
        Some((address.0, seconds(record.ttl.min(alias_ttl))))
    });
    addresses.take(MAX_ADDRESSES).collect()
}

/// RFC 2308 §5: the smaller of the SOA record's own time to live and the one in it.
fn negative_ttl(authorities: &[Record]) -> Option<Duration> {
    authorities.iter().find_map(|record| {
        let RData::SOA(soa) = &record.data else {
            return None;
        };
        Some(seconds(record.ttl.min(soa.minimum)))
    })
}

/// RFC 2181 §8: a time to live with the highest bit set is zero.
fn seconds(ttl: u32) -> Duration {
    let ttl = i32::try_from(ttl).map_or(0, i32::unsigned_abs);
    Duration::from_secs(ttl.into())
}

/// Sockets of one interface, for hickory.
#[derive(Clone)]
struct ByInterface<D> {
    dns: D,
    interface: IfIndex,
    /// They end with it.
    tasks: TokioHandle,
}

type Opening<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl<D: Dns> RuntimeProvider for ByInterface<D> {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> Self::Handle {
        self.tasks.clone()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        _local: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Opening<Self::Tcp> {
        let (dns, interface) = (self.dns.clone(), self.interface);
        Box::pin(async move {
            let connecting = dns.connect_tcp(interface, server);
            let within = timeout.unwrap_or(TCP_TIMEOUT);
            let connected = tokio::time::timeout(within, connecting).await;
            let connected = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut));
            connected.flatten().map(AsyncIoTokioAsStd)
        })
    }

    fn bind_udp(&self, local: SocketAddr, _server: SocketAddr) -> Opening<Self::Udp> {
        let opened = self.dns.udp_socket(self.interface, local);
        Box::pin(async move { opened })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_net::proto::{
        op::OpCode,
        rr::rdata::{A, AAAA, CNAME, SOA},
    };
    use host::{Host, ThisHost};
    use proptest::prelude::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// Index of the loopback interface of every Linux system.
    const LOOPBACK: IfIndex = 1;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn aaaa(owner: &str, ttl: u32, address: &str) -> Record {
        let address = AAAA(address.parse().unwrap());
        Record::from_rdata(name(owner), ttl, RData::AAAA(address))
    }

    fn alias(owner: &str, ttl: u32, to: &str) -> Record {
        Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(to))))
    }

    fn soa(ttl: u32, minimum: u32) -> Record {
        let data = SOA::new(name("ns."), name("mail."), 1, 2, 3, 4, minimum);
        Record::from_rdata(name("arpa."), ttl, RData::SOA(data))
    }

    fn answer(code: ResponseCode, answers: Vec<Record>, authorities: Vec<Record>) -> Message {
        let mut message = Message::response(7, OpCode::Query);
        message.add_query(question());
        message.metadata.response_code = code;
        message.add_answers(answers);
        message.add_authorities(authorities);
        message
    }

    fn found(answers: Vec<Record>) -> Outcome {
        read(answer(ResponseCode::NoError, answers, vec![])).unwrap()
    }

    fn addresses_of(outcome: &Outcome) -> (Vec<String>, u64) {
        let Outcome::Addresses { addresses, ttl } = outcome else {
            panic!("{outcome:?}");
        };
        let addresses = addresses.iter().map(ToString::to_string).collect();
        (addresses, ttl.as_secs())
    }

    #[test]
    fn disc_7050_3_03_all_addresses_in_order_and_the_shortest_time() {
        let outcome = found(vec![
            aaaa("IPv4Only.ARPA.", 600, "64:ff9b::c000:ab"),
            aaaa("ipv4only.arpa.", 300, "64:ff9b::c000:aa"),
            // Of another name, and of another type.
            aaaa("example.", 1, "2001:db8::c000:aa"),
            Record::from_rdata(name("ipv4only.arpa."), 1, RData::A(A::new(192, 0, 0, 170))),
        ]);
        let wanted = ["64:ff9b::c000:ab", "64:ff9b::c000:aa"].map(str::to_owned);
        assert_eq!(addresses_of(&outcome), (wanted.to_vec(), 300));
        let many = vec![aaaa("ipv4only.arpa.", 1, "64:ff9b::c000:aa"); 200];
        assert_eq!(addresses_of(&found(many)).0.len(), MAX_ADDRESSES);
    }

    #[test]
    fn disc_7050_3_04_aliases_are_followed_and_count_for_the_time() {
        let outcome = found(vec![
            aaaa("b.example.", 600, "64:ff9b::c000:aa"),
            alias("a.example.", 30, "b.example."),
            alias("ipv4only.arpa.", 60, "a.example."),
        ]);
        assert_eq!(
            addresses_of(&outcome),
            (vec!["64:ff9b::c000:aa".into()], 30)
        );
        // Around and around.
        let outcome = found(vec![
            alias("a.example.", 30, "ipv4only.arpa."),
            alias("ipv4only.arpa.", 60, "a.example."),
        ]);
        assert_eq!(outcome, Outcome::Negative { ttl: None });
    }

    /// RFC 2308 §5, RFC 2181 §8.
    #[test]
    fn disc_7050_3_04_the_time_of_a_negative_answer() {
        let negative = |code, authorities| read(answer(code, vec![], authorities)).unwrap();
        for (ttl, minimum, wanted) in [(600, 60, 60), (30, 60, 30), (1 << 31, 1 << 31, 0)] {
            for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
                let ttl_of = negative(code, vec![soa(ttl, minimum)]);
                let ttl = Some(Duration::from_secs(wanted));
                assert_eq!(ttl_of, Outcome::Negative { ttl }, "{code}");
            }
        }
        let unsaid = negative(ResponseCode::NXDomain, vec![]);
        assert_eq!(unsaid, Outcome::Negative { ttl: None });
        // The name is said not to exist, whatever else is in the message.
        let both = vec![aaaa("ipv4only.arpa.", 60, "64:ff9b::c000:aa")];
        let contradiction = read(answer(ResponseCode::NXDomain, both, vec![])).unwrap();
        assert_eq!(contradiction, Outcome::Negative { ttl: None });
    }

    #[test]
    fn disc_7050_3_04_a_failure_is_no_answer() {
        for code in [
            ResponseCode::ServFail,
            ResponseCode::Refused,
            ResponseCode::FormErr,
        ] {
            let records = vec![aaaa("ipv4only.arpa.", 60, "64:ff9b::c000:aa")];
            assert!(read(answer(code, records, vec![])).is_err(), "{code}");
        }
        let mut other = answer(ResponseCode::NoError, vec![], vec![]);
        other.queries = vec![Query::query(name("ipv4only.arpa."), RecordType::A)];
        assert!(read(other.clone()).is_err());
        other.queries.clear();
        assert!(read(other).is_err());
    }

    #[test]
    fn disc_7050_3_01_link_local_resolvers_have_a_scope() {
        let address = |text: &str| socket_address(3, text.parse().unwrap(), PORT).to_string();
        assert_eq!(address("fe80::1"), "[fe80::1%3]:53");
        assert_eq!(address("2001:db8::1"), "[2001:db8::1]:53");
        assert_eq!(address("192.0.2.1"), "192.0.2.1:53");
    }

    /// A resolver on this host, and the questions that it is asked.
    async fn resolver() -> (UdpSocket, TcpListener, SocketAddr) {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        (UdpSocket::bind(address).await.unwrap(), tcp, address)
    }

    async fn question_to(udp: &UdpSocket) -> (Message, SocketAddr) {
        let mut buffer = [0; 512];
        let (len, from) = udp.recv_from(&mut buffer).await.unwrap();
        (Message::from_vec(&buffer[..len]).unwrap(), from)
    }

    fn asking(server: SocketAddr) -> tokio::task::JoinHandle<Outcome> {
        tokio::spawn(ask(ThisHost.dns().unwrap(), LOOPBACK, server))
    }

    fn reply(to: &Message, truncated: bool) -> Vec<u8> {
        let records = vec![aaaa("ipv4only.arpa.", 60, "64:ff9b::c000:aa")];
        let mut message = answer(ResponseCode::NoError, records, vec![]);
        message.metadata.id = to.id;
        message.metadata.truncation = truncated;
        message.to_vec().unwrap()
    }

    /// RFC 7050 §3: AAAA, recursion desired, CD=0. RFC 8880 §7.1: no DNSSEC.
    #[tokio::test]
    async fn disc_7050_3_01_the_question_on_the_wire() {
        let (udp, _tcp, server) = resolver().await;
        let outcome = asking(server);
        let (asked, from) = question_to(&udp).await;
        assert_eq!(asked.queries.len(), 1);
        assert_eq!(asked.queries[0].name.to_string(), "ipv4only.arpa.");
        assert_eq!(asked.queries[0].query_type, RecordType::AAAA);
        assert!(asked.recursion_desired && !asked.checking_disabled);
        assert!(asked.edns.is_none() && asked.additionals.is_empty());
        udp.send_to(&reply(&asked, false), from).await.unwrap();
        let outcome = outcome.await.unwrap();
        assert_eq!(
            addresses_of(&outcome),
            (vec!["64:ff9b::c000:aa".into()], 60)
        );
    }

    #[tokio::test]
    async fn disc_7050_3_04_a_truncated_answer_is_asked_for_by_tcp() {
        let (udp, tcp, server) = resolver().await;
        let outcome = asking(server);
        let (asked, from) = question_to(&udp).await;
        udp.send_to(&reply(&asked, true), from).await.unwrap();
        let accepted = tokio::time::timeout(UDP_TIMEOUT, tcp.accept()).await;
        let (mut stream, _) = accepted.expect("a connection").unwrap();
        let mut message = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut message).await.unwrap();
        let reply = reply(&Message::from_vec(&message).unwrap(), false);
        stream.write_u16(reply.len() as u16).await.unwrap();
        stream.write_all(&reply).await.unwrap();
        assert_eq!(addresses_of(&outcome.await.unwrap()).1, 60);
    }

    /// Lost ones are repeated from other ports, and the answer to any of them counts.
    #[tokio::test]
    async fn disc_7050_3_04_a_lost_question_is_repeated() {
        let (udp, _tcp, server) = resolver().await;
        let outcome = asking(server);
        let (_, first) = question_to(&udp).await;
        let (asked, second) = question_to(&udp).await;
        assert_ne!(first, second);
        udp.send_to(&reply(&asked, false), first).await.unwrap();
        assert_eq!(addresses_of(&outcome.await.unwrap()).1, 60);
    }

    #[tokio::test]
    async fn disc_7050_3_04_silence_ends_as_a_failure() {
        let (udp, _tcp, server) = resolver().await;
        let outcome = asking(server);
        let mut questions = 0;
        let counted = async {
            loop {
                question_to(&udp).await;
                questions += 1;
            }
        };
        tokio::select! {
            () = counted => {}
            outcome = outcome => assert_eq!(outcome.unwrap(), Outcome::Failed),
        }
        assert_eq!(questions, TRANSMISSIONS);
    }

    proptest! {
        #[test]
        fn no_answer_panics(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            shaped in any::<bool>(),
        ) {
            if shaped {
                let records = vec![aaaa("ipv4only.arpa.", 60, "64:ff9b::c000:aa")];
                let whole = answer(ResponseCode::NoError, records, vec![soa(1, 1)]);
                let whole = whole.to_vec().unwrap();
                let at = bytes.len() % whole.len();
                let value = bytes.first().copied().unwrap_or(0);
                bytes = whole;
                bytes[at] = value;
            }
            if let Ok(message) = Message::from_vec(&bytes) {
                let _ = read(message);
            }
        }
    }
}
