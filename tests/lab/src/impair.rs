//! A link of poor quality: frames between two interfaces are lost, delayed, repeated, reordered and
//! slowed down, by chance from a seed.

use std::{
    collections::BinaryHeap,
    io,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::sys::socket::{MsgFlags, recv, send};
use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::Namespace;

/// How poor a link is. The default is perfect.
#[derive(Clone, Copy, Debug)]
pub struct Impairment {
    /// Frames lost, of a thousand.
    pub loss: u32,
    /// Frames sent twice, of a thousand.
    pub duplicate: u32,
    /// Frames that others overtake, of a thousand.
    pub reorder: u32,
    /// How long every frame takes.
    pub delay: Duration,
    /// How much longer an overtaken frame takes.
    pub reorder_delay: Duration,
    /// Bytes per second; no limit if zero.
    pub rate: u64,
    /// For the chances.
    pub seed: u64,
}

impl Default for Impairment {
    fn default() -> Self {
        Self {
            loss: 0,
            duplicate: 0,
            reorder: 0,
            delay: Duration::ZERO,
            reorder_delay: Duration::from_millis(2),
            rate: 0,
            seed: 1,
        }
    }
}

/// Carries frames between two interfaces of a namespace until dropped.
pub struct ImpairedLink {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl ImpairedLink {
    /// Joins two interfaces, each the far end of somebody's cable. Their offloads must be off, so
    /// that what passes are frames as on a wire.
    ///
    /// # Panics
    /// If the packet sockets cannot be opened.
    #[must_use]
    pub fn start(namespace: &Namespace, a: &str, b: &str, impairment: Impairment) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = [(a, b, 1), (b, a, 2)].map(|(from, to, salt)| {
            let (from, to) = (from.to_owned(), to.to_owned());
            let stop = Arc::clone(&stop);
            namespace.spawn(move || {
                let from = open(&from).expect("a packet socket");
                let to = open(&to).expect("a packet socket");
                let impairment = Impairment {
                    seed: impairment.seed.wrapping_mul(31).wrapping_add(salt),
                    ..impairment
                };
                Carrier::new(impairment).carry(&from, &to, &stop);
            })
        });
        Self {
            stop,
            threads: threads.into(),
        }
    }
}

impl Drop for ImpairedLink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for ImpairedLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImpairedLink").finish_non_exhaustive()
    }
}

/// A packet socket that hears every frame that comes in on an interface of the current namespace.
pub(crate) fn open(interface: &str) -> io::Result<Socket> {
    let all = libc::ETH_P_ALL.to_be() >> 16;
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    let on = 1i32;
    // SAFETY: `on` is valid for reads of its own size.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            std::ptr::from_ref(&on).cast(),
            size_of::<i32>() as libc::socklen_t,
        );
    }
    let index = nix::net::if_::if_nametoindex(interface)?;
    // SAFETY: an all-zero sockaddr_ll is a valid value of that plain C struct.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = all as u16;
    address.sll_ifindex = index as i32;
    // SAFETY: `address` is valid for reads of the length that is passed.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if bound != 0 {
        return Err(io::Error::last_os_error());
    }
    socket.set_read_timeout(Some(Duration::from_millis(1)))?;
    let _ = socket.set_recv_buffer_size(8 << 20);
    Ok(socket)
}

/// A frame on its way. Ordered by its time of arrival, the earliest on top of the heap.
#[derive(PartialEq, Eq)]
struct InFlight {
    arrives: Instant,
    serial: u64,
    frame: Vec<u8>,
}

impl Ord for InFlight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.arrives, other.serial).cmp(&(self.arrives, self.serial))
    }
}

impl PartialOrd for InFlight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

struct Carrier {
    impairment: Impairment,
    random: u64,
    serial: u64,
    /// When the link is free again, at the configured rate.
    free: Instant,
    in_flight: BinaryHeap<InFlight>,
}

impl Carrier {
    fn new(impairment: Impairment) -> Self {
        Self {
            random: impairment.seed,
            impairment,
            serial: 0,
            free: Instant::now(),
            in_flight: BinaryHeap::new(),
        }
    }

    fn carry(&mut self, from: &Socket, to: &Socket, stop: &AtomicBool) {
        let mut buffer = vec![0; 70_000];
        while !stop.load(Ordering::Relaxed) {
            if let Ok(len) = recv(from.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                self.take(&buffer[..len]);
            }
            self.deliver(to);
        }
    }

    fn take(&mut self, frame: &[u8]) {
        if self.chance(self.impairment.loss) {
            return;
        }
        let now = Instant::now();
        if let Some(micros) = (frame.len() as u64 * 1_000_000).checked_div(self.impairment.rate) {
            self.free = self.free.max(now) + Duration::from_micros(micros);
        }
        let mut arrives = self.free.max(now) + self.impairment.delay;
        if self.chance(self.impairment.reorder) {
            arrives += self.impairment.reorder_delay;
        }
        let copies = if self.chance(self.impairment.duplicate) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            self.serial += 1;
            self.in_flight.push(InFlight {
                arrives,
                serial: self.serial,
                frame: frame.to_vec(),
            });
        }
    }

    fn deliver(&mut self, to: &Socket) {
        let now = Instant::now();
        while self.in_flight.peek().is_some_and(|it| it.arrives <= now) {
            if let Some(it) = self.in_flight.pop() {
                let _ = send(to.as_raw_fd(), &it.frame, MsgFlags::empty());
            }
        }
    }

    /// True with a chance of `per_mille` in a thousand (splitmix64).
    fn chance(&mut self, per_mille: u32) -> bool {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.random;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ x >> 31) % 1000 < u64::from(per_mille)
    }
}
