//! The least of TCP: handshake, sequence numbers, acknowledgements, retransmission, FIN and RST.
//! Both ends are this.

use std::{net::Ipv4Addr, time::Duration};

use wire::compose;

use crate::inspect::TCP;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Segments in flight.
const WINDOW: usize = 4;
const FIRST_TIMEOUT: Duration = Duration::from_millis(300);
const LAST_TIMEOUT: Duration = Duration::from_secs(5);

/// An address and a port.
pub(crate) type Endpoint = (Ipv4Addr, u16);

/// A segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    sequence: u32,
    acknowledged: u32,
    flags: u8,
    /// The largest segment that the sender takes, in its SYN.
    mss: Option<u16>,
    data: Vec<u8>,
}

impl Segment {
    pub(crate) fn is_syn(&self) -> bool {
        self.flags & (SYN | ACK) == SYN
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// How many sequence numbers it takes.
    fn len(&self) -> u32 {
        self.data.len() as u32 + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }

    fn to_bytes(&self, from: Endpoint, to: Endpoint) -> Vec<u8> {
        // MSS; window scale; SACK permitted: as everybody's SYN has them.
        let options = self.mss.map(|mss| {
            let [hi, lo] = mss.to_be_bytes();
            vec![2, 4, hi, lo, 1, 3, 3, 7, 4, 2, 1, 1]
        });
        let options = options.unwrap_or_default();
        let mut bytes = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.acknowledged.to_be_bytes());
        bytes.extend([(5 + options.len() / 4) as u8 * 16, self.flags]);
        bytes.extend([0xff, 0xff, 0, 0, 0, 0]);
        bytes.extend(options);
        bytes.extend(&self.data);
        let len = (bytes.len() as u16).to_be_bytes();
        let sum = compose::checksum(&[&from.0.octets(), &to.0.octets(), &[0, TCP], &len, &bytes]);
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// Reads a segment whose checksum is right.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let word = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let header_len = usize::from(bytes[12] >> 4) * 4;
        let options = &bytes[20..header_len];
        let mss = match *options {
            [2, 4, hi, lo, ..] => Some(u16::from_be_bytes([hi, lo])),
            _ => None,
        };
        Self {
            sequence: word(4),
            acknowledged: word(8),
            flags: bytes[13],
            mss,
            data: bytes[header_len..].to_vec(),
        }
    }
}

/// One end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    local: Endpoint,
    pub(crate) remote: Endpoint,
    /// The sequence number of our SYN.
    start: u32,
    /// The next that is expected; `None` before the other's SYN.
    expected: Option<u32>,
    /// What to send. Its first byte has the sequence number after the SYN's.
    outgoing: Vec<u8>,
    /// Nothing more will be added.
    is_complete: bool,
    /// Sequence numbers after `start`: acknowledged, and sent.
    acknowledged: u32,
    sent: u32,
    mss: usize,
    timeout: Duration,
    deadline: Option<Duration>,
    /// An acknowledgement is owed.
    owes: bool,
    incoming: Vec<u8>,
    other_is_complete: bool,
    is_reset: bool,
}

impl Connection {
    /// The end that speaks first, with all that it will say.
    pub(crate) fn open(local: Endpoint, remote: Endpoint, start: u32, says: Vec<u8>) -> Self {
        Self {
            local,
            remote,
            start,
            expected: None,
            outgoing: says,
            is_complete: true,
            acknowledged: 0,
            sent: 0,
            mss: 536,
            timeout: FIRST_TIMEOUT,
            deadline: None,
            owes: false,
            incoming: Vec::new(),
            other_is_complete: false,
            is_reset: false,
        }
    }

    /// The end that was spoken to. It sends back what it hears.
    pub(crate) fn accept(local: Endpoint, remote: Endpoint, start: u32) -> Self {
        Self {
            is_complete: false,
            ..Self::open(local, remote, start, Vec::new())
        }
    }

    /// What it has heard so far.
    pub(crate) fn heard(&self) -> &[u8] {
        &self.incoming
    }

    pub(crate) fn is_reset(&self) -> bool {
        self.is_reset
    }

    /// Both ends have said everything, and know that the other has heard it.
    pub(crate) fn is_over(&self) -> bool {
        self.is_reset || self.other_is_complete && self.is_heard()
    }

    fn is_heard(&self) -> bool {
        self.is_complete && self.acknowledged == self.end()
    }

    /// One more than the last sequence number there will be, after `start`: SYN, data, FIN.
    fn end(&self) -> u32 {
        1 + self.outgoing.len() as u32 + u32::from(self.is_complete)
    }

    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        self.deadline.filter(|_| !self.is_reset)
    }

    /// Ends it the hard way.
    pub(crate) fn reset(&mut self) -> Vec<u8> {
        self.is_reset = true;
        self.segment(self.sent, RST | ACK, Vec::new())
    }

    /// A smaller path: everything that was not acknowledged goes again, in smaller segments.
    pub(crate) fn path_is_smaller(&mut self) {
        self.sent = self.acknowledged;
    }

    /// What is to be sent now.
    pub(crate) fn poll(&mut self, path_mtu: usize, now: Duration) -> Vec<Vec<u8>> {
        if self.is_reset {
            // The other end may not have heard of it.
            let owes = std::mem::take(&mut self.owes);
            return owes.then(|| self.reset()).into_iter().collect();
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.sent = self.acknowledged;
            self.timeout = (self.timeout * 2).min(LAST_TIMEOUT);
            self.deadline = None;
        }
        let mut segments = Vec::new();
        while let Some(segment) = self.next_segment(path_mtu) {
            segments.push(segment);
        }
        if segments.is_empty() && self.owes {
            segments.push(self.segment(self.sent, ACK, Vec::new()));
        }
        self.owes = false;
        if self.acknowledged < self.sent && self.deadline.is_none() {
            self.deadline = Some(now + self.timeout);
        }
        segments
    }

    fn next_segment(&mut self, path_mtu: usize) -> Option<Vec<u8>> {
        if self.sent == 0 {
            // The end that was spoken to waits for that.
            if !self.is_complete && self.expected.is_none() {
                return None;
            }
            self.sent = 1;
            let flags = SYN | if self.expected.is_some() { ACK } else { 0 };
            let mut syn = self.make(0, flags, Vec::new());
            syn.mss = Some((path_mtu - 40) as u16);
            return Some(syn.to_bytes(self.local, self.remote));
        }
        let in_flight = (self.sent - self.acknowledged) as usize;
        let is_open = self.acknowledged > 0 && self.expected.is_some();
        if !is_open || in_flight >= WINDOW * self.mss || self.sent >= self.end() {
            return None;
        }
        let at = self.sent as usize - 1;
        let mss = self.mss.min(path_mtu - 40);
        let data = self.outgoing.get(at..).unwrap_or_default();
        let data = data[..data.len().min(mss)].to_vec();
        let is_last = self.is_complete && at + data.len() == self.outgoing.len();
        let from = self.sent;
        self.sent += data.len() as u32 + u32::from(is_last);
        let flags = ACK | if is_last { FIN } else { 0 };
        Some(self.segment(from, flags, data))
    }

    fn make(&self, after_start: u32, flags: u8, data: Vec<u8>) -> Segment {
        Segment {
            sequence: self.start.wrapping_add(after_start),
            acknowledged: self.expected.unwrap_or_default(),
            flags,
            mss: None,
            data,
        }
    }

    fn segment(&self, after_start: u32, flags: u8, data: Vec<u8>) -> Vec<u8> {
        let segment = self.make(after_start, flags, data);
        segment.to_bytes(self.local, self.remote)
    }

    pub(crate) fn receive(&mut self, segment: Segment) {
        if self.is_reset || segment.has(RST) {
            self.is_reset = true;
            self.owes = !segment.has(RST);
            return;
        }
        self.hear(&segment);
        if segment.has(ACK) {
            self.take_acknowledgement(segment.acknowledged);
        }
    }

    fn hear(&mut self, segment: &Segment) {
        self.owes |= segment.len() > 0;
        if segment.has(SYN) {
            self.expected
                .get_or_insert_with(|| segment.sequence.wrapping_add(1));
            self.mss = segment.mss.unwrap_or(536).into();
            return;
        }
        if self.expected != Some(segment.sequence) || self.other_is_complete {
            return;
        }
        self.expected = Some(segment.sequence.wrapping_add(segment.len()));
        self.incoming.extend(&segment.data);
        self.other_is_complete = segment.has(FIN);
        if !self.is_complete {
            self.outgoing.extend(&segment.data);
            self.is_complete = self.other_is_complete;
        }
    }

    fn take_acknowledgement(&mut self, number: u32) {
        let after_start = number.wrapping_sub(self.start);
        if (self.acknowledged + 1..=self.end()).contains(&after_start) {
            self.acknowledged = after_start;
            self.sent = self.sent.max(after_start);
            self.timeout = FIRST_TIMEOUT;
            self.deadline = None;
        }
    }
}
