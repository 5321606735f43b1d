//! What clients do: each flow sends, knows what must come back, and complains about anything else.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use wire::compose::{self, Pair};

use crate::{
    inspect::{ICMP, TCP, UDP},
    random::Random,
    stack::{Arrived, Datagram, Quote, Stack},
    tcp::{Connection, Segment},
};

/// The server's UDP echo.
pub(crate) const ECHO: u16 = 7;
/// The same, without a checksum in its answers.
pub(crate) const ECHO_WITHOUT_CHECKSUM: u16 = 8;
/// The server's TCP echo.
pub(crate) const TCP_ECHO: u16 = 80;
/// Where nobody listens.
pub(crate) const CLOSED: u16 = 33_434;

/// After which time without an answer something is sent again.
const AGAIN: Duration = Duration::from_secs(2);
/// How often something is sent. Every narrower link on the way out and back takes one.
const TRIES: u32 = 8;

/// Something a client does.
pub(crate) trait Flow {
    /// What is to be sent now.
    fn poll(&mut self, stack: &Stack, now: Duration) -> Vec<Datagram>;

    /// When there is something to send next.
    fn next(&self) -> Option<Duration>;

    /// Takes a datagram. False if it is not for this flow.
    fn arrived(&mut self, arrived: &Arrived) -> bool;

    /// Takes an ICMP error. False if it is not about this flow.
    fn told(&mut self, from: Ipv4Addr, error: (u8, u8), quote: &Quote) -> bool;

    /// Whether everything has happened that should; on a perfect network, everything must.
    fn check(&self, is_perfect: bool);
}

/// Bytes that tell whose and which datagram they are.
fn content(port: u16, number: u32, len: usize) -> Vec<u8> {
    let mut random = Random::new(u64::from(port) << 32 | u64::from(number));
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize_with(len.max(4), || random.next() as u8);
    bytes
}

fn number_of(content: &[u8]) -> u32 {
    let first = content.first_chunk().copied();
    u32::from_be_bytes(first.unwrap_or_default())
}

/// Questions that are asked again until they are answered, or it was often enough.
#[derive(Debug)]
struct Questions {
    /// By number: the length of what is sent, how often it was, and when it is again.
    open: BTreeMap<u32, (usize, u32, Duration)>,
    answered: BTreeSet<u32>,
    count: u32,
}

impl Questions {
    fn new(random: &mut Random, start: Duration, longest: u64, at_once: bool) -> Self {
        let count = 1 + random.below(12) as u32;
        // All at once and of one size, as a program sends a picture; or now and then.
        let burst = at_once.then(|| 4 + random.below(longest));
        let spacing = match burst {
            Some(_) => Duration::ZERO,
            None => Duration::from_millis(random.below(500)),
        };
        let question = |n| {
            let len = burst.unwrap_or_else(|| 4 + random.below(longest)) as usize;
            (n, (len, 0, start + spacing * n))
        };
        Self {
            open: (0..count).map(question).collect(),
            answered: BTreeSet::new(),
            count,
        }
    }

    fn due(&mut self, now: Duration) -> Vec<(u32, usize)> {
        self.open
            .retain(|_, (_, tries, at)| *tries < TRIES || *at > now);
        let mut due = Vec::new();
        for (number, (len, tries, at)) in &mut self.open {
            if *at <= now && *tries < TRIES {
                due.push((*number, *len));
                (*tries, *at) = (*tries + 1, now + AGAIN);
            }
        }
        due
    }

    fn next(&self) -> Option<Duration> {
        self.open.values().map(|(_, _, at)| *at).min()
    }

    /// An answer came, perhaps again.
    fn answer(&mut self, port: u16, received: &[u8]) {
        let number = number_of(received);
        let sent = content(port, number, received.len());
        assert!(
            received == sent,
            "content of {number} of flow {port} has changed"
        );
        if let Some((len, ..)) = self.open.remove(&number) {
            assert_eq!(received.len(), len, "length of {number} of flow {port}");
            self.answered.insert(number);
        }
    }

    fn check(&self, port: u16, is_perfect: bool) {
        let all = self.answered.len() == self.count as usize;
        assert!(
            all || !is_perfect,
            "of {} flow {port} got {:?}",
            self.count,
            self.answered
        );
    }
}

/// UDP datagrams of any size, some with options, some without a checksum.
#[derive(Debug)]
pub(crate) struct Udp {
    local: (Ipv4Addr, u16),
    server: (Ipv4Addr, u16),
    dont_fragment: bool,
    without_checksum: bool,
    options: Vec<u8>,
    questions: Questions,
}

impl Udp {
    pub(crate) fn new(
        random: &mut Random,
        local: (Ipv4Addr, u16),
        server: Ipv4Addr,
        start: Duration,
    ) -> Self {
        // What can go in super-segments.
        let at_once = random.chance(400);
        let without_checksum = !at_once && random.chance(200);
        let longest = match (at_once, without_checksum) {
            // About as long as a link takes, so that some have to be taken apart on the way.
            (true, _) => 1450,
            // In fragments, it could not be computed on the way.
            (false, true) => 1150,
            (false, false) => 4000,
        };
        let options = match at_once {
            true => vec![&[][..]],
            false => vec![&[][..], &[148, 4, 0, 0], &[1; 40]],
        };
        Self {
            local,
            server: (server, random.pick(&[ECHO, ECHO_WITHOUT_CHECKSUM])),
            dont_fragment: random.chance(500),
            without_checksum,
            options: random.pick(&options).to_vec(),
            questions: Questions::new(random, start, longest, at_once),
        }
    }
}

impl Flow for Udp {
    fn poll(&mut self, _: &Stack, now: Duration) -> Vec<Datagram> {
        let due = self.questions.due(now).into_iter();
        due.map(|(number, len)| {
            let data = content(self.local.1, number, len);
            let pair = Pair::V4(self.local.0, self.server.0);
            let mut datagram = compose::udp(pair, self.local.1, self.server.1, &data);
            if self.without_checksum {
                datagram[6..8].fill(0);
            }
            Datagram {
                dont_fragment: self.dont_fragment,
                options: self.options.clone(),
                ..Datagram::new(self.server.0, UDP, datagram)
            }
        })
        .collect()
    }

    fn next(&self) -> Option<Duration> {
        self.questions.next()
    }

    fn arrived(&mut self, arrived: &Arrived) -> bool {
        let ours = [self.server.1.to_be_bytes(), self.local.1.to_be_bytes()].concat();
        if arrived.protocol != UDP || arrived.payload[..4] != ours {
            return false;
        }
        assert_eq!(arrived.from, self.server.0);
        self.questions.answer(self.local.1, &arrived.payload[8..]);
        true
    }

    fn told(&mut self, _: Ipv4Addr, _: (u8, u8), quote: &Quote) -> bool {
        quote.protocol == UDP && quote.port() == self.local.1
    }

    fn check(&self, is_perfect: bool) {
        self.questions.check(self.local.1, is_perfect);
    }
}

/// Echo requests of any size.
#[derive(Debug)]
pub(crate) struct Ping {
    id: u16,
    server: Ipv4Addr,
    dont_fragment: bool,
    questions: Questions,
}

impl Ping {
    pub(crate) fn new(random: &mut Random, id: u16, server: Ipv4Addr, start: Duration) -> Self {
        Self {
            id,
            server,
            dont_fragment: random.chance(500),
            questions: Questions::new(random, start, 3000, false),
        }
    }
}

impl Flow for Ping {
    fn poll(&mut self, _: &Stack, now: Duration) -> Vec<Datagram> {
        let due = self.questions.due(now).into_iter();
        due.map(|(number, len)| {
            let [i0, i1] = self.id.to_be_bytes();
            let rest = [i0, i1, 0, number as u8];
            let echo = compose::icmp4(8, 0, rest, &content(self.id, number, len));
            Datagram {
                dont_fragment: self.dont_fragment,
                ..Datagram::new(self.server, ICMP, echo)
            }
        })
        .collect()
    }

    fn next(&self) -> Option<Duration> {
        self.questions.next()
    }

    fn arrived(&mut self, arrived: &Arrived) -> bool {
        let is_reply = arrived.protocol == ICMP && arrived.payload[..2] == [0, 0];
        if !is_reply || arrived.payload[4..6] != self.id.to_be_bytes() {
            return false;
        }
        self.questions.answer(self.id, &arrived.payload[8..]);
        true
    }

    fn told(&mut self, _: Ipv4Addr, _: (u8, u8), quote: &Quote) -> bool {
        quote.protocol == ICMP && quote.start[4..6] == self.id.to_be_bytes()
    }

    fn check(&self, is_perfect: bool) {
        self.questions.check(self.id, is_perfect);
    }
}

/// Datagrams that live for one hop, for two, and so on.
#[derive(Debug)]
pub(crate) struct Trace {
    local: (Ipv4Addr, u16),
    server: Ipv4Addr,
    expected: Vec<Ipv4Addr>,
    /// The hop asked for next, and when.
    next: (usize, Duration),
    answers: BTreeMap<usize, Ipv4Addr>,
}

impl Trace {
    /// `expected` are the hops, up to the server.
    pub(crate) fn new(local: (Ipv4Addr, u16), expected: Vec<Ipv4Addr>, start: Duration) -> Self {
        Self {
            local,
            server: expected.last().copied().unwrap_or(local.0),
            expected,
            next: (0, start),
            answers: BTreeMap::new(),
        }
    }
}

impl Flow for Trace {
    fn poll(&mut self, _: &Stack, now: Duration) -> Vec<Datagram> {
        let (hop, at) = self.next;
        if at > now || hop >= self.expected.len() {
            return Vec::new();
        }
        self.next = (hop + 1, now + AGAIN);
        let pair = Pair::V4(self.local.0, self.server);
        let to = CLOSED + hop as u16;
        let datagram = compose::udp(pair, self.local.1, to, &[b'?'; 12]);
        vec![Datagram {
            ttl: hop as u8 + 1,
            ..Datagram::new(self.server, UDP, datagram)
        }]
    }

    fn next(&self) -> Option<Duration> {
        let (hop, at) = self.next;
        (hop < self.expected.len()).then_some(at)
    }

    fn arrived(&mut self, _: &Arrived) -> bool {
        false
    }

    fn told(&mut self, from: Ipv4Addr, error: (u8, u8), quote: &Quote) -> bool {
        if quote.protocol != UDP || quote.port() != self.local.1 {
            return false;
        }
        let to = u16::from_be_bytes([quote.start[2], quote.start[3]]);
        let hop = usize::from(to - CLOSED);
        let is_last = hop + 1 == self.expected.len();
        assert_eq!(error, if is_last { (3, 3) } else { (11, 0) }, "hop {hop}");
        assert_eq!(from, self.expected[hop], "hop {hop}");
        self.answers.insert(hop, from);
        true
    }

    fn check(&self, is_perfect: bool) {
        let all = self.answers.len() == self.expected.len();
        assert!(all || !is_perfect, "hops {:?}", self.answers);
    }
}

/// How a TCP connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Everything is said, heard and acknowledged.
    Well,
    /// The client resets it, then.
    Reset(Duration),
    /// Nobody listens.
    Refused,
}

/// Bytes to the server and back.
#[derive(Debug)]
pub(crate) struct Tcp {
    local: (Ipv4Addr, u16),
    connection: Connection,
    start: Duration,
    started: bool,
    says: Vec<u8>,
    end: End,
}

impl Tcp {
    pub(crate) fn new(
        random: &mut Random,
        local: (Ipv4Addr, u16),
        server: Ipv4Addr,
        start: Duration,
    ) -> Self {
        let end = match random.below(10) {
            0 => End::Refused,
            1 => End::Reset(start + Duration::from_millis(random.below(1500))),
            _ => End::Well,
        };
        let port = if end == End::Refused {
            CLOSED
        } else {
            TCP_ECHO
        };
        let says = content(local.1, 0, random.below(30_000) as usize);
        // Near the end of the numbers, often.
        let first = random.pick(&[random.clone().next() as u32, u32::MAX - 5000]);
        Self {
            local,
            connection: Connection::open(local, (server, port), first, says.clone()),
            start,
            started: false,
            says,
            end,
        }
    }
}

impl Flow for Tcp {
    fn poll(&mut self, stack: &Stack, now: Duration) -> Vec<Datagram> {
        if now < self.start {
            return Vec::new();
        }
        self.started = true;
        let server = self.connection.remote.0;
        let mut segments = self.connection.poll(stack.path_mtu(server), now);
        if matches!(self.end, End::Reset(at) if at <= now && !self.connection.is_reset()) {
            segments.push(self.connection.reset());
        }
        let datagrams = segments.into_iter().map(|segment| Datagram {
            dont_fragment: true,
            ..Datagram::new(server, TCP, segment)
        });
        datagrams.collect()
    }

    fn next(&self) -> Option<Duration> {
        if !self.started {
            return Some(self.start);
        }
        let reset = match self.end {
            End::Reset(at) if !self.connection.is_reset() => Some(at),
            End::Reset(_) | End::Well | End::Refused => None,
        };
        [self.connection.next_timeout(), reset]
            .into_iter()
            .flatten()
            .min()
    }

    fn arrived(&mut self, arrived: &Arrived) -> bool {
        if arrived.protocol != TCP || arrived.payload[2..4] != self.local.1.to_be_bytes() {
            return false;
        }
        self.connection.receive(Segment::read(&arrived.payload));
        let heard = self.connection.heard();
        assert!(
            self.says.starts_with(heard),
            "flow {} heard what it never said",
            self.local.1
        );
        true
    }

    fn told(&mut self, _: Ipv4Addr, error: (u8, u8), quote: &Quote) -> bool {
        let ours = quote.protocol == TCP && quote.port() == self.local.1;
        if ours && error == (3, 4) {
            self.connection.path_is_smaller();
        }
        ours
    }

    /// Retransmission sees to it that every connection ends, on any network.
    fn check(&self, _: bool) {
        let port = self.local.1;
        assert!(
            self.connection.is_over(),
            "flow {port}: {:?}",
            self.connection
        );
        match self.end {
            End::Well => {
                assert!(!self.connection.is_reset(), "flow {port} was reset");
                assert!(self.connection.heard() == self.says, "flow {port} is short");
            }
            End::Reset(_) | End::Refused => assert!(self.connection.is_reset()),
        }
    }
}
