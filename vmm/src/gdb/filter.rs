//! Packets of QEMU's stub that gdbstub has no hook for, taken out of what gdb says before it gets there.
//!
//! They are what `maintenance packet` and the kernel's and other people's scripts send: whether addresses are physical
//! (`qqemu.PhyMemMode`), and whether interrupts arrive while a thread steps (`qqemu.sstep`).

use super::inferior::Modes;

/// Bytes of a packet that is one of these, at most; a longer one is not.
const LONGEST: usize = 64;

/// Bytes of the longest packet: gdb splits what is longer.
pub(super) const PACKET: usize = 16 << 10;

/// What QEMU can hold back while a thread steps: interrupts, and timers with them (`SSTEP_NOIRQ`, `SSTEP_NOTIMER`).
const STEP_BITS: &str = "ENABLE=1,NOIRQ=2,NOTIMER=4";
const ENABLE: u64 = 1;
const NOIRQ: u64 = 2;

/// What is to be done with a byte from gdb.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sorted {
    /// These bytes are for gdbstub.
    Pass(Vec<u8>),
    /// They were one of QEMU's packets; this is the answer, as a packet.
    Answer(Vec<u8>),
    /// The packet is not whole yet.
    Wait,
    /// It is longer than any may be.
    TooLong,
}

/// A packet in the making.
#[derive(Debug, Default)]
pub(super) struct Filter {
    held: Vec<u8>,
    /// Bytes of the packet so far, where one has begun: gdbstub's own buffer has no limit.
    len: Option<usize>,
}

impl Filter {
    /// Takes a byte. Only the begin of a packet is held back, for as long as it can be one of QEMU's.
    pub(super) fn feed(&mut self, byte: u8, modes: &mut Modes) -> Sorted {
        self.len = match (byte, self.len) {
            (b'$', None) => Some(0),
            (b'#', _) | (_, None) => None,
            (_, Some(len)) => Some(len + 1),
        };
        if self.len.is_some_and(|len| len > PACKET) {
            return Sorted::TooLong;
        }
        self.held.push(byte);
        let is_possible = |prefix: &[u8]| {
            let len = self.held.len().min(prefix.len());
            self.held[..len] == prefix[..len]
        };
        if self.held.len() > LONGEST || !(is_possible(b"$qqemu.") || is_possible(b"$Qqemu.")) {
            return Sorted::Pass(std::mem::take(&mut self.held));
        }
        // `$text#cc`: two digits behind the mark.
        let Some(end) = self.held.iter().position(|byte| *byte == b'#') else {
            return Sorted::Wait;
        };
        if self.held.len() < end + 3 {
            return Sorted::Wait;
        }
        let held = std::mem::take(&mut self.held);
        let text = String::from_utf8_lossy(&held[1..end]).into_owned();
        match answer(&text, modes) {
            Some(answer) => Sorted::Answer(packet(&answer)),
            None => Sorted::Pass(held),
        }
    }
}

fn answer(text: &str, modes: &mut Modes) -> Option<String> {
    let ok = || Some("OK".to_owned());
    match text {
        "qqemu.PhyMemMode" => Some(u8::from(modes.is_physical).to_string()),
        "Qqemu.PhyMemMode:0" | "Qqemu.PhyMemMode:1" => {
            modes.is_physical = text.ends_with('1');
            ok()
        }
        "qqemu.sstepbits" => Some(STEP_BITS.to_owned()),
        "qqemu.sstep" => {
            let held = if modes.steps_block_interrupts { NOIRQ } else { 0 };
            Some(format!("{:#x}", ENABLE | held))
        }
        _ => {
            let bits = text.strip_prefix("Qqemu.sstep=")?;
            let bits = u64::from_str_radix(bits.trim_start_matches("0x"), 16).ok()?;
            modes.steps_block_interrupts = bits & NOIRQ != 0;
            ok()
        }
    }
}

/// With the sign that the packet before it was understood; gdb passes over it where it has asked for none.
fn packet(text: &str) -> Vec<u8> {
    let sum = text.bytes().fold(0_u8, u8::wrapping_add);
    format!("+${text}#{sum:02x}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: Modes = Modes {
        is_physical: false,
        steps_block_interrupts: true,
    };

    /// What becomes of a whole text: what is passed on, and what is answered.
    fn sort(text: &str, modes: &mut Modes) -> (String, String) {
        let (mut filter, mut passed, mut answered) = (Filter::default(), Vec::new(), Vec::new());
        for byte in text.bytes() {
            match filter.feed(byte, modes) {
                Sorted::Pass(bytes) => passed.extend(bytes),
                Sorted::Answer(bytes) => answered.extend(bytes),
                Sorted::Wait => {}
                Sorted::TooLong => panic!("a short packet"),
            }
        }
        let text = |bytes| String::from_utf8(bytes).expect("ASCII");
        (text(passed), text(answered))
    }

    #[test]
    fn physical_addresses_are_switched_on_and_asked_for() {
        let mut modes = MODES;
        let (passed, answered) = sort("$Qqemu.PhyMemMode:1#db$qqemu.PhyMemMode#xx", &mut modes);
        assert_eq!((passed.as_str(), answered.as_str()), ("", "+$OK#9a+$1#31"));
        assert!(modes.is_physical);
    }

    #[test]
    fn interrupts_in_steps_are_chosen_as_for_qemu() {
        let mut modes = MODES;
        let (_, answered) = sort("$qqemu.sstep#00$Qqemu.sstep=0x5#00$qqemu.sstep#00", &mut modes);
        assert_eq!(answered, "+$0x3#db+$OK#9a+$0x1#d9");
        assert!(!modes.steps_block_interrupts);
    }

    #[test]
    fn a_packet_without_an_end_is_told() {
        let (mut filter, mut modes) = (Filter::default(), MODES);
        let mut bytes = b"$m".iter().chain(std::iter::repeat(&b'0'));
        let fed = bytes.position(|byte| filter.feed(*byte, &mut modes) == Sorted::TooLong);
        assert_eq!(fed, Some(PACKET + 1));
    }

    #[test]
    fn everything_else_is_passed_on_byte_by_byte() {
        let mut modes = MODES;
        let others = "+$qSupported:multiprocess+#c6\u{3}$g#67$qqemu.nonsense#00$Qqemu.sstep=zz#00";
        assert_eq!(sort(others, &mut modes), (others.to_owned(), String::new()));
        let long = format!("$qqemu.{}#00", "x".repeat(1000));
        assert_eq!(sort(&long, &mut modes), (long.clone(), String::new()));
    }
}
