//! The classic BPF program in front of the packet socket: frames for the CLAT's address, and
//! neighbour discovery about it. Linux and macOS run the same instructions.

use core::net::Ipv6Addr;

use wire::{ethernet, icmp::v6, protocol};

/// One instruction, as both kernels take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if a comparison holds.
    pub jump_true: u8,
    /// Instructions to skip if it does not.
    pub jump_false: u8,
    /// Operand.
    pub k: u32,
}

// `BPF_LD | BPF_W | BPF_ABS` and so on (linux/bpf_common.h, net/bpf.h).
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Accept this many bytes: more than any frame has.
const ALL: u32 = 0x4_0000;

const ETHERTYPE_AT: u32 = 12;
const IPV6_AT: u32 = 14;
const NEXT_HEADER_AT: u32 = IPV6_AT + 6;
const DST_AT: u32 = IPV6_AT + 24;
const ICMP_TYPE_AT: u32 = IPV6_AT + 40;
const TARGET_AT: u32 = ICMP_TYPE_AT + 8;

/// The program for Ethernet frames that concern `address`.
#[must_use]
pub fn program(address: Ipv6Addr) -> Vec<Instruction> {
    let mut program = Program::default();
    program.expect(
        LOAD_HALF,
        ETHERTYPE_AT,
        ethernet::IPV6.into(),
        Target::Reject,
    );
    program.expect_address(DST_AT, address, Target::NeighborDiscovery);
    program.accept();
    program.label_neighbor_discovery();
    program.expect(
        LOAD_BYTE,
        NEXT_HEADER_AT,
        protocol::ICMPV6.into(),
        Target::Reject,
    );
    program.push(LOAD_BYTE, ICMP_TYPE_AT);
    // Either type goes on; the first one skips the check for the second.
    program.instructions.push(Instruction {
        code: JUMP_IF_EQUAL,
        jump_true: 1,
        jump_false: 0,
        k: v6::NEIGHBOR_SOLICITATION.into(),
    });
    program.jump_unless(v6::NEIGHBOR_ADVERTISEMENT.into(), Target::Reject);
    program.expect_address(TARGET_AT, address, Target::Reject);
    program.accept();
    program.finish()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    NeighborDiscovery,
    Reject,
}

#[derive(Default)]
struct Program {
    instructions: Vec<Instruction>,
    /// Jumps whose distance is not known yet.
    open: Vec<(usize, Target)>,
    neighbor_discovery: usize,
}

impl Program {
    fn push(&mut self, code: u16, k: u32) {
        self.instructions.push(Instruction {
            code,
            jump_true: 0,
            jump_false: 0,
            k,
        });
    }

    fn jump_unless(&mut self, value: u32, target: Target) {
        self.open.push((self.instructions.len(), target));
        self.push(JUMP_IF_EQUAL, value);
    }

    fn expect(&mut self, load: u16, at: u32, value: u32, otherwise: Target) {
        self.push(load, at);
        self.jump_unless(value, otherwise);
    }

    fn expect_address(&mut self, at: u32, address: Ipv6Addr, otherwise: Target) {
        let octets = address.octets();
        let (words, _) = octets.as_chunks::<4>();
        for (word, at) in words.iter().zip((at..).step_by(4)) {
            self.expect(LOAD_WORD, at, u32::from_be_bytes(*word), otherwise);
        }
    }

    fn accept(&mut self) {
        self.push(RETURN, ALL);
    }

    fn label_neighbor_discovery(&mut self) {
        self.neighbor_discovery = self.instructions.len();
    }

    fn finish(mut self) -> Vec<Instruction> {
        let reject = self.instructions.len();
        self.push(RETURN, 0);
        for (at, target) in self.open {
            let to = match target {
                Target::NeighborDiscovery => self.neighbor_discovery,
                Target::Reject => reject,
            };
            // The whole program is shorter than the longest jump.
            self.instructions[at].jump_false = u8::try_from(to - at - 1).unwrap_or(u8::MAX);
        }
        self.instructions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0x246, 0xc1a7, 1, 0xa039);
    const OTHER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0x246, 0xc1a7, 1, 0xa038);

    /// A kernel in a few lines: out-of-bounds loads reject, as they do there.
    fn run(program: &[Instruction], frame: &[u8]) -> u32 {
        let (mut at, mut accumulator) = (0, 0u32);
        loop {
            let instruction = program[at];
            at += 1;
            let k = instruction.k as usize;
            match instruction.code {
                LOAD_WORD | LOAD_HALF | LOAD_BYTE => {
                    let len = match instruction.code {
                        LOAD_WORD => 4,
                        LOAD_HALF => 2,
                        _ => 1,
                    };
                    let Some(bytes) = frame.get(k..k + len) else {
                        return 0;
                    };
                    accumulator = bytes
                        .iter()
                        .fold(0, |sum, byte| sum << 8 | u32::from(*byte));
                }
                JUMP_IF_EQUAL if accumulator == instruction.k => {
                    at += usize::from(instruction.jump_true);
                }
                JUMP_IF_EQUAL => at += usize::from(instruction.jump_false),
                RETURN => return instruction.k,
                other => panic!("unknown operation {other:#x}"),
            }
        }
    }

    fn frame(ethertype: u16, next: u8, dst: Ipv6Addr, kind: u8, target: Ipv6Addr) -> Vec<u8> {
        let mut bytes = vec![0; 14 + 40 + 24];
        bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
        bytes[20] = next;
        bytes[38..54].copy_from_slice(&dst.octets());
        bytes[54] = kind;
        bytes[62..78].copy_from_slice(&target.octets());
        bytes
    }

    #[test]
    fn what_concerns_the_address_passes_and_nothing_else() {
        let program = program(CLAT);
        let group = wire::ndp::solicited_node(CLAT);
        let passes = |frame: &[u8]| run(&program, frame) == ALL;
        assert!(passes(&frame(0x86dd, 17, CLAT, 0, OTHER)));
        assert!(passes(&frame(0x86dd, 17, CLAT, 0, OTHER)[..54]));
        assert!(passes(&frame(0x86dd, 58, group, 135, CLAT)));
        assert!(passes(&frame(0x86dd, 58, group, 136, CLAT)));
        assert!(!passes(&frame(0x86dd, 58, group, 135, OTHER)));
        assert!(!passes(&frame(0x86dd, 58, group, 134, CLAT)));
        assert!(!passes(&frame(0x86dd, 58, group, 137, CLAT)));
        assert!(!passes(&frame(0x86dd, 17, group, 135, CLAT)));
        assert!(!passes(&frame(0x86dd, 17, OTHER, 0, CLAT)));
        assert!(!passes(&frame(0x0800, 17, CLAT, 0, CLAT)));
        assert!(!passes(&frame(0x86dd, 17, CLAT, 0, CLAT)[..53]));
        assert!(!passes(&frame(0x86dd, 58, group, 135, CLAT)[..77]));
        assert!(!passes(&[]));
    }

    #[test]
    fn every_word_of_the_address_counts() {
        let program = program(CLAT);
        for bit in 0..128 {
            let near = Ipv6Addr::from_bits(CLAT.to_bits() ^ 1 << bit);
            assert_eq!(run(&program, &frame(0x86dd, 17, near, 0, near)), 0);
            assert_eq!(run(&program, &frame(0x86dd, 58, OTHER, 135, near)), 0);
        }
    }
}
