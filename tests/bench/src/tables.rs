//! What the tables of the NAT64 cost: memory per session, and time per packet as they grow.
//!
//! The tables are filled by packets, as a client's would fill them: every session has a binding of
//! its own. Memory is the growth of a process's resident set, so each size is measured in a process
//! of its own: this program, started again with [`COMMAND`].

use std::{
    env, fs, io,
    net::{Ipv4Addr, Ipv6Addr},
    process::Command,
    time::{Duration, Instant},
};

use host::memory::HugePages;
use nat64::{
    Config, Engine,
    tuple::{Endpoint4, Endpoint6, Protocol},
};
use nix::time::{ClockId, clock_gettime};
use wire::{
    compose::{self, Pair, V6},
    packet::PacketBuf,
    protocol,
    verdict::Verdict,
};

/// The word that starts this program to measure one size.
pub(crate) const COMMAND: &str = "tables";

const SERVER: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);
const SERVER_PORT: u16 = 53;
/// Sessions of one client.
const PER_CLIENT: u32 = 100;
/// Packets of one figure.
const PACKETS: u32 = 1_000_000;
/// Looked up together.
const BATCH: usize = 64;

/// The figures of one size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figures {
    /// Bytes per session with its binding.
    pub(crate) bytes: f64,
    /// Nanoseconds of a whole packet: read, looked up, refreshed, translated.
    pub(crate) packet: f64,
    /// Nanoseconds of a lookup alone.
    pub(crate) lookup: f64,
    /// Nanoseconds of a lookup among [`BATCH`] at a time.
    pub(crate) batched: f64,
    /// Nanoseconds of a packet that makes a session, on average while the tables grew to this size.
    pub(crate) new: f64,
}

/// Measures tables of a size in a process of its own.
///
/// # Errors
/// If it cannot be started, or fails.
pub(crate) fn measure(sessions: u32) -> io::Result<Figures> {
    let program = env::current_exe()?;
    let output = Command::new(program)
        .args([COMMAND, &sessions.to_string()])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<f64> = text
        .split_whitespace()
        .filter_map(|it| it.parse().ok())
        .collect();
    match figures[..] {
        [bytes, packet, lookup, batched, new] => Ok(Figures {
            bytes,
            packet,
            lookup,
            batched,
            new,
        }),
        _ => Err(io::Error::other(format!(
            "tables of {sessions} sessions: {}",
            String::from_utf8_lossy(&output.stderr)
        ))),
    }
}

/// What the process of one size does: it prints the figures.
///
/// # Errors
/// If the NAT64 does not take its packets.
pub(crate) fn answer(sessions: &str) -> io::Result<()> {
    let sessions: u32 = sessions.parse().map_err(io::Error::other)?;
    let mut tables = Tables::new(sessions)?;
    let (bytes, new) = tables.fill()?;
    let lookup = tables.lookups(1)?;
    let batched = tables.lookups(BATCH)?;
    let packet = tables.packets()?;
    println!("{bytes} {packet} {lookup} {batched} {new}");
    Ok(())
}

struct Tables {
    engine: Engine,
    sessions: u32,
    now: Instant,
    buf: PacketBuf,
    /// One packet, of which address and port are replaced.
    packet: Vec<u8>,
}

impl Tables {
    fn new(sessions: u32) -> io::Result<Self> {
        let prefix = "64:ff9b::/96".parse().map_err(io::Error::other)?;
        // Three times the ports that are needed, so that finding one is not what is measured.
        let addresses = (sessions / 20_000 + 2).min(200);
        let pool: Vec<_> = (0..addresses)
            .map(|n| Ipv4Addr::from(0xc612_0000 + n))
            .collect();
        let own = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x64);
        let mut config = Config::new(prefix, &pool, own);
        config.limits.bindings = 4_000_000;
        config.limits.sessions = 4_000_000;
        let now = Instant::now();
        let engine = Engine::new(config, [7; 16], now).map_err(io::Error::other)?;
        let (src, dst) = (client(0), embedded());
        let udp = compose::udp(Pair::V6(src, dst), 1, SERVER_PORT, &[7; 64]);
        Ok(Self {
            engine,
            sessions,
            now,
            buf: PacketBuf::new(),
            packet: V6::new(src, dst, protocol::UDP).carrying(&udp),
        })
    }

    /// Makes all sessions; the bytes of each, and the nanoseconds.
    fn fill(&mut self) -> io::Result<(f64, f64)> {
        // What the first session brings along is not the sessions'.
        self.send(0)?;
        let before = resident()?;
        let start = cpu_time()?;
        for n in 1..self.sessions {
            self.send(n)?;
        }
        let time = cpu_time()?.saturating_sub(start);
        let used = resident()?.saturating_sub(before);
        // As plat does, while it runs.
        let mut pages = HugePages::default();
        while pages.gather(self.engine.table_memory()) > 0 {}
        if self.engine.table_sizes() != (self.sessions as usize, self.sessions as usize) {
            return Err(io::Error::other("not every packet made a session"));
        }
        let bytes = used as f64 / f64::from(self.sessions);
        Ok((bytes, each(time, self.sessions)))
    }

    fn send(&mut self, n: u32) -> io::Result<()> {
        let Endpoint6 { address, id } = endpoint(n);
        self.packet[8..24].copy_from_slice(&address.octets());
        self.packet[40..42].copy_from_slice(&id.to_be_bytes());
        self.buf
            .set(&self.packet)
            .map_err(|_| io::Error::other("a packet too long"))?;
        match self.engine.handle_v6(&mut self.buf, self.now) {
            Verdict::Forward(_) => Ok(()),
            Verdict::Reply(why) | Verdict::Drop(why) => {
                Err(io::Error::other(format!("packet {n}: {why:?}")))
            }
        }
    }

    /// Nanoseconds of a packet of any session.
    fn packets(&mut self) -> io::Result<f64> {
        let mut random = Random(1);
        let start = cpu_time()?;
        for _ in 0..PACKETS {
            self.send(random.below(self.sessions))?;
        }
        Ok(each(cpu_time()?.saturating_sub(start), PACKETS))
    }

    /// Nanoseconds of a lookup, so many at a time.
    fn lookups(&self, batch: usize) -> io::Result<f64> {
        let mut random = Random(2);
        let all: Vec<_> = (0..PACKETS)
            .map(|_| {
                let remote = Endpoint4 {
                    address: SERVER,
                    id: SERVER_PORT,
                };
                let client = endpoint(random.below(self.sessions));
                (Protocol::Udp, client, remote)
            })
            .collect();
        let start = cpu_time()?;
        let found: usize = all.chunks(batch).map(|it| self.engine.look_up(it)).sum();
        let time = cpu_time()?.saturating_sub(start);
        assert_eq!(found, all.len(), "a session is gone");
        Ok(each(time, PACKETS))
    }
}

/// The client and port of session number `n`. Clients are subscribers of their own.
fn endpoint(n: u32) -> Endpoint6 {
    let [.., high, low] = (n % PER_CLIENT + 10_000).to_be_bytes();
    Endpoint6 {
        address: client(n / PER_CLIENT),
        id: u16::from_be_bytes([high, low]),
    }
}

fn client(n: u32) -> Ipv6Addr {
    let network = 0x2001_0db8_0000_0000_0000_0000_0000_0001;
    Ipv6Addr::from(network | u128::from(n) << 64)
}

fn embedded() -> Ipv6Addr {
    let bits = 0x0064_ff9b_u128 << 96 | u128::from(SERVER.to_bits());
    Ipv6Addr::from(bits)
}

/// Numbers without a pattern that a cache could follow (xorshift64*).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        u32::try_from((high * u64::from(limit)) >> 32).unwrap_or(0)
    }
}

/// The time that this thread ran: what other programs take does not count.
pub(crate) fn cpu_time() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Nanoseconds of one of `count`.
pub(crate) fn each(time: Duration, count: u32) -> f64 {
    time.as_secs_f64() * 1e9 / f64::from(count)
}

/// Bytes of this process's own that are in memory, counted page by page: what `statm` says may be
/// some hundred kilobytes off.
fn resident() -> io::Result<u64> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup")?;
    let anonymous = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:")?.strip_suffix("kB"));
    let kilobytes = anonymous.and_then(|it| it.trim().parse::<u64>().ok());
    let kilobytes = kilobytes.ok_or_else(|| io::Error::other("unreadable smaps_rollup"))?;
    Ok(kilobytes * 1024)
}
