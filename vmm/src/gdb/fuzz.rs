//! A debugger that says what bytes tell it to: the body of the fuzz target `gdb` in `devices/fuzz`, where the unit tests
//! replay fixed seeds of it.

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

use super::debugger::{Debugger, Wish};
use super::endpoint::GdbAddress;
use super::testing::Still;
use crate::kvm::vcpu::{DebugExit, Vcpu};
use crate::layout::Range;
use crate::memory::{GuestRam, RamSource};

/// Lines of one run at most.
const LINES: usize = 200;

/// Begins of lines that are no packet.
const RAW: u8 = b'!';
const EXIT: u8 = b'@';

/// One run. Each line is a packet without its frame and checksum; behind a `!` it is sent as it is; behind a `@` it is
/// an exit of the first vCPU: exception, DR6, and the address of the instruction. No input is wrong.
pub fn remote_protocol(bytes: &[u8]) {
    talk(bytes, Vec::new());
}

/// The same at a guest with these vCPUs, which do not run. Gives them back.
pub(super) fn talk(bytes: &[u8], vcpus: Vec<Vcpu>) -> Vec<Vcpu> {
    let (gdb, line) = UnixStream::pair().expect("a pair");
    gdb.set_nonblocking(true).expect("a socket");
    let ram = GuestRam::new(&[Range::new(0, 1 << 20)], &RamSource::default()).expect("RAM");
    let address = GdbAddress::Descriptor(line.as_raw_fd());
    let mut debugger = Debugger::listen(&address, false, ram.memory().clone(), true).expect("a descriptor");
    debugger.look_at(Box::new(Still));
    drop(line);
    let mut guest = Guest { debugger, gdb, vcpus };
    for line in bytes.split(|byte| *byte == b'\n').take(LINES) {
        match line {
            [RAW, raw @ ..] => guest.hears(raw),
            [EXIT, exception, dr6, pc @ ..] => guest.exits(*exception, *dr6, pc),
            packet => guest.hears(&framed(packet)),
        }
    }
    guest.vcpus.extend(guest.debugger.give_back());
    guest.vcpus
}

fn framed(packet: &[u8]) -> Vec<u8> {
    let sum = packet.iter().copied().fold(0, u8::wrapping_add);
    [b"$", packet, format!("#{sum:02x}").as_bytes()].concat()
}

/// A guest, and both ends of the line.
struct Guest {
    debugger: Debugger,
    gdb: UnixStream,
    /// The vCPUs while the guest runs; the debugger has them while it stands still.
    vcpus: Vec<Vcpu>,
}

impl Guest {
    /// The other end says something; all of it is listened to, and answers are taken.
    fn hears(&mut self, bytes: &[u8]) {
        // One that has left is not listened to.
        let _ = self.gdb.write_all(bytes);
        // Each byte makes a wish at most; the first is to stand still.
        let mut most = bytes.len() + 3;
        loop {
            most -= 1;
            assert!(most > 0, "it wishes without an end");
            match self.debugger.hear() {
                Wish::Nothing if !self.debugger.has_unread() => break,
                Wish::Nothing => {}
                Wish::Stop => self.stops(None),
                Wish::Go => self.vcpus.extend(self.debugger.go_on()),
                Wish::Quit => break,
            }
            self.take_answers();
        }
        self.take_answers();
    }

    /// A running guest comes to where a debugger wants it.
    fn exits(&mut self, exception: u8, dr6: u8, pc: &[u8]) {
        if self.debugger.holds() {
            return;
        }
        let pc = pc.iter().take(8).fold(0, |pc, byte| pc << 8 | u64::from(*byte));
        self.stops(Some(DebugExit {
            vcpu: 0,
            pc,
            exception: exception.into(),
            dr6: u64::from(dr6) << 8 | u64::from(dr6),
        }));
        self.take_answers();
    }

    fn stops(&mut self, exit: Option<DebugExit>) {
        let vcpus = std::mem::take(&mut self.vcpus);
        if !self.debugger.stopped(vcpus, exit, Vec::new()) {
            self.vcpus.extend(self.debugger.go_on());
        }
    }

    fn take_answers(&mut self) {
        let mut answers = [0; 1 << 16];
        while self.gdb.read(&mut answers).is_ok_and(|len| len > 0) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm::testing::TinyMachine;

    /// Marsaglia's xorshift64, from a seed that is not zero.
    struct Random(u64);

    impl Random {
        fn next(&mut self, below: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % below as u64) as usize
        }
    }

    /// Parts of what a debugger says, right and wrong ones.
    const PARTS: [&str; 44] = [
        "qSupported:swbreak+;multiprocess+",
        "?",
        "g",
        "G",
        "p10",
        "P10=",
        "P1a=0100000000000000",
        "m",
        "m1000,1000",
        "M",
        "X",
        "Z0,",
        "Z0,1000,1",
        "Z1,",
        "Z2,",
        "Z3,",
        "Z4,",
        "z0,",
        "z1,",
        "vCont",
        "vCont;c",
        ";s:p1.1",
        ";r1000,2000:p1.1",
        "Hg0",
        "Hc-1",
        "qXfer:features:read:target.xml:",
        "0,ffff",
        "ffffffffffffffff",
        "1000",
        ",",
        ":",
        ";",
        "4",
        "qRcmd,",
        "696e666f206d656d",
        "qThreadExtraInfo,p1.1",
        "Tp1.1",
        "QStartNoAckMode",
        "qqemu.PhyMemMode",
        "Qqemu.PhyMemMode:1",
        "Qqemu.sstep=",
        "-1",
        "}",
        "\u{3}",
    ];

    /// A line of some parts, more often than not a packet.
    fn line(random: &mut Random) -> Vec<u8> {
        let mut line = match random.next(12) {
            0 => vec![RAW, random.next(256) as u8],
            1 => b"!\x03".to_vec(),
            2 => [EXIT, [1, 3][random.next(2)], random.next(256) as u8, 0x10, 0].to_vec(),
            _ => Vec::new(),
        };
        for _ in 0..=random.next(3) {
            line.extend(PARTS[random.next(PARTS.len())].bytes());
        }
        line.push(b'\n');
        line
    }

    fn lines(seed: u64) -> Vec<u8> {
        let mut random = Random(seed);
        (0..60).flat_map(|_| line(&mut random)).collect()
    }

    #[test]
    fn whatever_a_debugger_says_is_answered_or_ends_it() {
        (1..200).for_each(|seed| remote_protocol(&lines(seed)));
    }

    /// Registers of a real vCPU are read and written, with any values.
    #[test]
    fn whatever_a_debugger_says_of_a_vcpu_is_answered_or_ends_it() {
        let Some(machine) = TinyMachine::new() else { return };
        let mut vcpus = vec![machine.vcpu];
        for seed in 1..200 {
            vcpus = talk(&lines(seed), vcpus);
            assert_eq!(vcpus.len(), 1, "seed {seed}: the vCPU is given back");
        }
    }
}
