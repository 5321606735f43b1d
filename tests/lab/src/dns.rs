//! Resolvers for hosts on an IPv6-only network: bind9, which does it right, and one of our own that
//! does whatever a test wants.

use std::{
    collections::VecDeque,
    fs, io,
    io::{Read, Write},
    net::{Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, UdpSocket},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use crate::{
    namespace::Namespace,
    process::{Daemon, command},
    topology::Network,
};

/// Where a resolver listens.
pub const PORT: u16 = 53;

const AAAA: u16 = 28;
const SOA: u16 = 6;

/// The question for `ipv4only.arpa` AAAA IN, as it stands in a message.
const QUESTION: &[u8] = b"\x08ipv4only\x04arpa\0\0\x1c\0\x01";

const HEADER_LEN: usize = 12;

/// Starts bind9 on the router of a network, listening on every address there. With a `prefix` it is
/// a DNS64; without one it knows `ipv4only.arpa` as the rest of the world does.
///
/// # Panics
/// If it does not start.
#[must_use]
pub fn start_named(network: &Network, prefix: Option<&str>) -> Daemon {
    let directory = network.path("named");
    fs::create_dir_all(&directory).expect("a directory for named");
    let file = directory.join("named.conf");
    fs::write(
        &file,
        named_config(&directory.display().to_string(), prefix),
    )
    .expect("named.conf");
    fs::write(directory.join("ipv4only.arpa.db"), ZONE).expect("a zone file");
    let mut named = command("/usr/sbin/named");
    named.args(["-g", "-n", "1", "-c"]).arg(file);
    let named = Daemon::start(&network.router, "named", named).expect("named starts");
    named.wait_for("running", Duration::from_secs(20));
    named
}

/// `ipv4only.arpa` as RFC 8880 §6 has it, with times to live that a test can wait for.
const ZONE: &str = "\
$TTL 21
@ IN SOA localhost. root.localhost. 1 3600 600 86400 15
@ IN NS localhost.
@ IN A 192.0.0.170
@ IN A 192.0.0.171
";

fn named_config(directory: &str, prefix: Option<&str>) -> String {
    let dns64 = prefix.map_or_else(String::new, |prefix| {
        format!("dns64 {prefix} {{ clients {{ any; }}; }};")
    });
    format!(
        "options {{\n\
           directory \"{directory}\";\n\
           pid-file none; session-keyfile \"{directory}/session.key\";\n\
           listen-on {{ none; }}; listen-on-v6 {{ any; }};\n\
           recursion yes; allow-query {{ any; }}; dnssec-validation no;\n\
           ipv4only-enable no;\n\
           {dns64}\n\
         }};\n\
         controls {{ }};\n\
         zone \"ipv4only.arpa\" {{ type primary; file \"ipv4only.arpa.db\"; }};\n"
    )
}

/// How a resolver of ours answers one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Not at all.
    Silence,
    /// With AAAA records of these addresses and this time to live.
    Addresses(Vec<Ipv6Addr>, u32),
    /// With a code (2 SERVFAIL, 3 NXDOMAIN, 0 NODATA), and an SOA record of this time to live if any.
    Code(u8, Option<u32>),
    /// As the reply, after a while.
    Late(Duration, Box<Reply>),
    /// By UDP: it does not fit. By TCP: with the reply.
    Truncated(Box<Reply>),
    /// As the reply, but with another identifier first.
    WrongIdFirst(Box<Reply>),
    /// As the reply, but to another question.
    OtherQuestion(Box<Reply>),
    /// These bytes behind the identifier.
    Bytes(Vec<u8>),
}

impl Reply {
    /// What a DNS64 with this prefix says.
    ///
    /// # Panics
    /// If it is no prefix.
    #[must_use]
    pub fn synthesised(prefix: &str, ttl: u32) -> Self {
        let prefix: pref64::Pref64 = prefix.parse().expect("a NAT64 prefix");
        let addresses = pref64::well_known_name::ADDRESSES.map(|it| prefix.embed(it));
        Self::Addresses(addresses.into(), ttl)
    }
}

/// A question that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who asked.
    pub from: SocketAddr,
    /// It came by TCP.
    pub by_tcp: bool,
    /// It forbids the resolver to check (CD).
    pub checking_disabled: bool,
    /// It is one for AAAA records of `ipv4only.arpa`.
    pub is_ours: bool,
}

/// A resolver whose answers a test decides.
#[derive(Clone, Debug)]
pub struct Resolver(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    first: VecDeque<Reply>,
    then: Reply,
    asked: Vec<Question>,
}

impl Resolver {
    /// Starts a resolver at an address of an interface of a namespace. It ends with the process.
    ///
    /// # Panics
    /// If the address or the port is not there.
    #[must_use]
    pub fn start(namespace: &Namespace, interface: &str, address: Ipv6Addr, reply: Reply) -> Self {
        let resolver = Self(Arc::new(Mutex::new(State {
            first: VecDeque::new(),
            then: reply,
            asked: Vec::new(),
        })));
        let name = interface.to_owned();
        let (udp, tcp) = namespace.run(move || {
            listen(&name, address).unwrap_or_else(|error| panic!("{address} port 53: {error}"))
        });
        let by_udp = resolver.clone();
        namespace.spawn(move || by_udp.serve_udp(&udp));
        let by_tcp = resolver.clone();
        namespace.spawn(move || by_tcp.serve_tcp(&tcp));
        resolver
    }

    /// Answers like that from now on.
    pub fn reply(&self, reply: Reply) {
        self.lock().then = reply;
    }

    /// Answers the next `times` questions like that.
    pub fn reply_first(&self, times: usize, reply: &Reply) {
        self.lock().first = vec![reply.clone(); times].into();
    }

    /// What was asked so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Question> {
        self.lock().asked.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve_udp(&self, socket: &UdpSocket) {
        let mut buffer = [0; 1500];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let query = buffer[..len].to_vec();
            let reply = self.hear(&query, from, false);
            let Ok(socket) = socket.try_clone() else {
                return;
            };
            // One that is late keeps nobody else waiting.
            thread::spawn(move || {
                for answer in answers(&query, &reply, false) {
                    let _ = socket.send_to(&answer, from);
                }
            });
        }
    }

    fn serve_tcp(&self, listener: &TcpListener) {
        while let Ok((mut stream, from)) = listener.accept() {
            let mut len = [0; 2];
            if stream.read_exact(&mut len).is_err() {
                continue;
            }
            let mut query = vec![0; u16::from_be_bytes(len).into()];
            if stream.read_exact(&mut query).is_err() {
                continue;
            }
            let reply = self.hear(&query, from, true);
            for answer in answers(&query, &reply, true) {
                let len = (answer.len() as u16).to_be_bytes();
                let _ = stream.write_all(&[&len[..], &answer].concat());
            }
        }
    }

    fn hear(&self, query: &[u8], from: SocketAddr, by_tcp: bool) -> Reply {
        let mut state = self.lock();
        state.asked.push(Question {
            from,
            by_tcp,
            checking_disabled: query.get(3).is_some_and(|flags| flags & 0x10 != 0),
            is_ours: query.get(HEADER_LEN..) == Some(QUESTION),
        });
        let first = state.first.pop_front();
        first.unwrap_or_else(|| state.then.clone())
    }
}

fn listen(interface: &str, address: Ipv6Addr) -> io::Result<(UdpSocket, TcpListener)> {
    let scope = match address.is_unicast_link_local() {
        true => nix::net::if_::if_nametoindex(interface)?,
        false => 0,
    };
    let address = SocketAddrV6::new(address, PORT, 0, scope);
    let listener = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    listener.set_reuse_address(true)?;
    listener.bind(&address.into())?;
    listener.listen(8)?;
    Ok((UdpSocket::bind(address)?, listener.into()))
}

/// The messages that answer a query.
fn answers(query: &[u8], reply: &Reply, by_tcp: bool) -> Vec<Vec<u8>> {
    match reply {
        Reply::Silence => Vec::new(),
        Reply::Addresses(addresses, ttl) => {
            let records: Vec<_> = addresses
                .iter()
                .map(|it| record(AAAA, *ttl, &it.octets()))
                .collect();
            vec![message(query, 0, &records, &[])]
        }
        Reply::Code(code, ttl) => {
            let soa = ttl.map(|ttl| record(SOA, ttl, &soa(ttl)));
            vec![message(query, *code, &[], soa.as_slice())]
        }
        Reply::Late(delay, reply) => {
            thread::sleep(*delay);
            answers(query, reply, by_tcp)
        }
        Reply::Truncated(reply) if by_tcp => answers(query, reply, true),
        Reply::Truncated(_) => {
            let mut answer = message(query, 0, &[], &[]);
            answer[2] |= 2;
            vec![answer]
        }
        Reply::WrongIdFirst(reply) => {
            // What it says is a lie, so that one can see who believes it.
            let mut wrong = answers(query, &Reply::synthesised("2001:db8:bad::/96", 60), by_tcp);
            wrong[0][1] ^= 1;
            wrong.extend(answers(query, reply, by_tcp));
            wrong
        }
        Reply::OtherQuestion(reply) => {
            let mut answers = answers(query, reply, by_tcp);
            for answer in &mut answers {
                answer[HEADER_LEN + 1] ^= 1;
            }
            answers
        }
        Reply::Bytes(bytes) => vec![[&query[..2], bytes].concat()],
    }
}

/// A message that answers `query`, from a resolver that recurses.
fn message(query: &[u8], code: u8, answers: &[Vec<u8>], authorities: &[Vec<u8>]) -> Vec<u8> {
    let mut message = query.get(..2).unwrap_or(&[0, 0]).to_vec();
    message.extend([0x81, 0x80 | code, 0, 1]);
    message.extend((answers.len() as u16).to_be_bytes());
    message.extend((authorities.len() as u16).to_be_bytes());
    message.extend([0, 0]);
    message.extend(QUESTION);
    message.extend(answers.concat());
    message.extend(authorities.concat());
    message
}

/// A record of the name in the question.
fn record(kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut record = vec![0xc0, HEADER_LEN as u8];
    record.extend(kind.to_be_bytes());
    record.extend([0, 1]);
    record.extend(ttl.to_be_bytes());
    record.extend((data.len() as u16).to_be_bytes());
    record.extend(data);
    record
}

/// The data of an SOA record, with a time to live for what there is not.
fn soa(minimum: u32) -> Vec<u8> {
    let mut data = vec![0, 0];
    for number in [1, 3600, 600, 86_400, minimum] {
        data.extend(number.to_be_bytes());
    }
    data
}
