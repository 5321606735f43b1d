//! Floods: more packets than anybody asked for, of any content, as fast as one thread sends.

use std::os::fd::AsRawFd;

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, send},
};
use wire::ethernet::{Header, Mac};

use crate::{frames::mac, impair, namespace::Namespace};

/// A cable to flood: from an interface to what is plugged in at its other end.
#[derive(Clone, Debug)]
pub struct Cable {
    interface: String,
    src: Mac,
    dst: Mac,
}

impl Cable {
    /// The cable between two interfaces.
    #[must_use]
    pub fn new((from, interface): (&Namespace, &str), (to, other): (&Namespace, &str)) -> Self {
        Self {
            interface: interface.to_owned(),
            src: mac(&from.mac(interface)),
            dst: mac(&to.mac(other)),
        }
    }

    /// Sends `count` packets, each made by `packet` from its number, in the current namespace. How
    /// many the interface took.
    ///
    /// # Panics
    /// If there is no packet socket, or the interface is gone.
    pub fn flood(&self, count: u64, mut packet: impl FnMut(u64, &mut Vec<u8>)) -> u64 {
        let socket = impair::open(&self.interface).expect("a packet socket");
        let mut bytes = Vec::new();
        let mut frame = Vec::new();
        let mut taken = 0;
        for number in 0..count {
            packet(number, &mut bytes);
            let header = Header {
                dst: self.dst,
                src: self.src,
                ethertype: if bytes[0] >> 4 == 6 { 0x86dd } else { 0x0800 },
            };
            frame.clear();
            frame.extend(header.to_bytes());
            frame.extend(&bytes);
            match send(socket.as_raw_fd(), &frame, MsgFlags::empty()) {
                Ok(_) => taken += 1,
                Err(Errno::ENOBUFS | Errno::EAGAIN) => {}
                Err(error) => panic!("{}: {error}", self.interface),
            }
        }
        taken
    }
}

/// Numbers without a pattern, the same for the same seed (splitmix64).
#[derive(Clone, Copy, Debug)]
pub struct Noise(pub u64);

impl Noise {
    /// The next.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }
}
