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
