//! The registers as gdb knows them, under the names that QEMU's stub has for them: scripts written for it, the
//! kernel's own first, find them.

use std::fmt::Write as _;

use gdbstub::arch::{self, Arch};
use kvm_bindings::kvm_segment;

use crate::kvm::debug::Registers;

/// x86-64 as this stub describes it. gdbstub's own lacks the system registers.
pub(super) enum X86_64 {}

impl Arch for X86_64 {
    type Usize = u64;
    type Registers = Whole;
    type BreakpointKind = usize;
    type RegId = Number;
}

/// All registers as gdb reads and writes them at once: bytes in the order of the description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Whole(Vec<u8>);

/// A register by its place in the description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number(usize);

/// A part of the description: its name, and how often it repeats.
struct Group {
    /// Names, each with bits and the type that gdb shows.
    registers: &'static [(&'static str, usize, &'static str)],
    /// A feature begins here: what gdb looks for.
    feature: Option<&'static str>,
}

/// In the order in which gdb numbers them.
const GROUPS: [Group; 6] = [
    Group {
        feature: Some("org.gnu.gdb.i386.core"),
        registers: &[
            ("rax", 64, "int64"),
            ("rbx", 64, "int64"),
            ("rcx", 64, "int64"),
            ("rdx", 64, "int64"),
            ("rsi", 64, "int64"),
            ("rdi", 64, "int64"),
            ("rbp", 64, "data_ptr"),
            ("rsp", 64, "data_ptr"),
            ("r8", 64, "int64"),
            ("r9", 64, "int64"),
            ("r10", 64, "int64"),
            ("r11", 64, "int64"),
            ("r12", 64, "int64"),
            ("r13", 64, "int64"),
            ("r14", 64, "int64"),
            ("r15", 64, "int64"),
            ("rip", 64, "code_ptr"),
            ("eflags", 32, "int32"),
            ("cs", 32, "int32"),
            ("ss", 32, "int32"),
            ("ds", 32, "int32"),
            ("es", 32, "int32"),
            ("fs", 32, "int32"),
            ("gs", 32, "int32"),
        ],
    },
    Group {
        feature: None,
        registers: &[
            ("st0", 80, "i387_ext"),
            ("st1", 80, "i387_ext"),
            ("st2", 80, "i387_ext"),
            ("st3", 80, "i387_ext"),
            ("st4", 80, "i387_ext"),
            ("st5", 80, "i387_ext"),
            ("st6", 80, "i387_ext"),
            ("st7", 80, "i387_ext"),
        ],
    },
    Group {
        feature: None,
        registers: &[
            ("fctrl", 32, "int"),
            ("fstat", 32, "int"),
            ("ftag", 32, "int"),
            ("fiseg", 32, "int"),
            ("fioff", 32, "int"),
            ("foseg", 32, "int"),
            ("fooff", 32, "int"),
            ("fop", 32, "int"),
        ],
    },
    Group {
        feature: Some("org.gnu.gdb.i386.sse"),
        registers: &[
            ("xmm0", 128, "uint128"),
            ("xmm1", 128, "uint128"),
            ("xmm2", 128, "uint128"),
            ("xmm3", 128, "uint128"),
            ("xmm4", 128, "uint128"),
            ("xmm5", 128, "uint128"),
            ("xmm6", 128, "uint128"),
            ("xmm7", 128, "uint128"),
            ("xmm8", 128, "uint128"),
            ("xmm9", 128, "uint128"),
            ("xmm10", 128, "uint128"),
            ("xmm11", 128, "uint128"),
            ("xmm12", 128, "uint128"),
            ("xmm13", 128, "uint128"),
            ("xmm14", 128, "uint128"),
            ("xmm15", 128, "uint128"),
            ("mxcsr", 32, "int"),
        ],
    },
    Group {
        feature: Some("org.gnu.gdb.i386.segments"),
        registers: &[("fs_base", 64, "int64"), ("gs_base", 64, "int64")],
    },
    Group {
        feature: Some("strait.system"),
        registers: &[
            ("k_gs_base", 64, "int64"),
            ("cr0", 64, "int64"),
            ("cr2", 64, "int64"),
            ("cr3", 64, "int64"),
            ("cr4", 64, "int64"),
            ("cr8", 64, "int64"),
            ("efer", 64, "int64"),
        ],
    },
];

/// The description that gdb asks for when it connects (GDB manual, "Target Description Format").
pub(super) fn description() -> String {
    let mut xml = "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target>\
         <architecture>i386:x86-64</architecture>"
        .to_owned();
    let mut is_open = false;
    for group in &GROUPS {
        if let Some(name) = group.feature {
            let end = if is_open { "</feature>" } else { "" };
            let _ = write!(xml, "{end}<feature name=\"{name}\">");
            is_open = true;
        }
        for (name, bits, kind) in group.registers {
            let _ = write!(xml, "<reg name=\"{name}\" bitsize=\"{bits}\" type=\"{kind}\"/>");
        }
    }
    xml + "</feature></target>"
}

/// Names and bits, in gdb's order.
fn all() -> impl Iterator<Item = (&'static str, usize)> {
    GROUPS
        .iter()
        .flat_map(|group| group.registers)
        .map(|(name, bits, _)| (*name, *bits))
}

impl arch::RegId for Number {
    fn from_raw_id(id: usize) -> Option<(Self, Option<std::num::NonZeroUsize>)> {
        let (_, bits) = all().nth(id)?;
        Some((Self(id), std::num::NonZeroUsize::new(bits / 8)))
    }

    fn to_raw_id(&self) -> Option<usize> {
        Some(self.0)
    }
}

impl arch::Registers for Whole {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        let mut registers = Registers::default();
        self.put_into(&mut registers);
        registers.general.rip
    }

    fn gdb_serialize(&self, write_byte: impl FnMut(Option<u8>)) {
        self.0.iter().copied().map(Some).for_each(write_byte);
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.0 = bytes.to_vec();
        Ok(())
    }
}

impl Whole {
    /// Those of a vCPU.
    pub(super) fn of(registers: &Registers) -> Self {
        let bytes = |(name, bits): (&str, usize)| {
            let bytes = registers.named(name).to_le_bytes();
            bytes.into_iter().take(bits / 8)
        };
        Self(all().flat_map(bytes).collect())
    }

    /// Sets those that gdb has sent, which may leave out the last ones; what it has no names for stays.
    pub(super) fn put_into(&self, registers: &mut Registers) {
        let mut bytes = &self.0[..];
        for (name, bits) in all() {
            let Some((value, rest)) = bytes.split_at_checked(bits / 8) else {
                return;
            };
            registers.set_named(name, number(value));
            bytes = rest;
        }
    }
}

/// The bytes of one register, least first.
pub(super) fn read(registers: &Registers, which: Number) -> Vec<u8> {
    let (name, bits) = all().nth(which.0).unwrap_or(("", 0));
    registers.named(name).to_le_bytes()[..bits / 8].to_vec()
}

/// Sets one register.
pub(super) fn write(registers: &mut Registers, which: Number, bytes: &[u8]) {
    let (name, _) = all().nth(which.0).unwrap_or(("", 0));
    registers.set_named(name, number(bytes));
}

fn number(bytes: &[u8]) -> u128 {
    let mut all = [0; 16];
    let len = bytes.len().min(16);
    all[..len].copy_from_slice(&bytes[..len]);
    u128::from_le_bytes(all)
}

/// Where a register is in KVM's structures.
enum Place<'a> {
    Word(&'a mut u64),
    Segment(&'a mut kvm_segment),
    Bytes(&'a mut [u8]),
    Half(&'a mut u16),
    Byte(&'a mut u8),
    Control(&'a mut u32),
    /// One that KVM does not have apart.
    Nowhere,
}

impl Registers {
    fn named(&self, name: &str) -> u128 {
        match self.clone().place(name) {
            Place::Word(word) => (*word).into(),
            Place::Segment(segment) => segment.selector.into(),
            Place::Bytes(bytes) => number(bytes),
            Place::Half(half) => (*half).into(),
            Place::Byte(byte) => (*byte).into(),
            Place::Control(control) => (*control).into(),
            Place::Nowhere => 0,
        }
    }

    fn set_named(&mut self, name: &str, value: u128) {
        match self.place(name) {
            Place::Word(word) => *word = value as u64,
            Place::Segment(segment) => segment.selector = value as u16,
            Place::Bytes(bytes) => {
                let len = bytes.len();
                bytes.copy_from_slice(&value.to_le_bytes()[..len]);
            }
            Place::Half(half) => *half = value as u16,
            Place::Byte(byte) => *byte = value as u8,
            Place::Control(control) => *control = value as u32,
            Place::Nowhere => {}
        }
    }

    fn place(&mut self, name: &str) -> Place<'_> {
        let (general, special, fpu) = (&mut self.general, &mut self.special, &mut self.fpu);
        let index = |prefix: &str| name.strip_prefix(prefix)?.parse::<usize>().ok();
        if let Some(index) = index("xmm") {
            return Place::Bytes(&mut fpu.xmm[index]);
        }
        if let Some(index) = index("st") {
            return Place::Bytes(&mut fpu.fpr[index][..10]);
        }
        match name {
            "rax" => Place::Word(&mut general.rax),
            "rbx" => Place::Word(&mut general.rbx),
            "rcx" => Place::Word(&mut general.rcx),
            "rdx" => Place::Word(&mut general.rdx),
            "rsi" => Place::Word(&mut general.rsi),
            "rdi" => Place::Word(&mut general.rdi),
            "rbp" => Place::Word(&mut general.rbp),
            "rsp" => Place::Word(&mut general.rsp),
            "r8" => Place::Word(&mut general.r8),
            "r9" => Place::Word(&mut general.r9),
            "r10" => Place::Word(&mut general.r10),
            "r11" => Place::Word(&mut general.r11),
            "r12" => Place::Word(&mut general.r12),
            "r13" => Place::Word(&mut general.r13),
            "r14" => Place::Word(&mut general.r14),
            "r15" => Place::Word(&mut general.r15),
            "rip" => Place::Word(&mut general.rip),
            "eflags" => Place::Word(&mut general.rflags),
            "cs" => Place::Segment(&mut special.cs),
            "ss" => Place::Segment(&mut special.ss),
            "ds" => Place::Segment(&mut special.ds),
            "es" => Place::Segment(&mut special.es),
            "fs" => Place::Segment(&mut special.fs),
            "gs" => Place::Segment(&mut special.gs),
            "fctrl" => Place::Half(&mut fpu.fcw),
            "fstat" => Place::Half(&mut fpu.fsw),
            "ftag" => Place::Byte(&mut fpu.ftwx),
            "fop" => Place::Half(&mut fpu.last_opcode),
            "mxcsr" => Place::Control(&mut fpu.mxcsr),
            "fs_base" => Place::Word(&mut special.fs.base),
            "gs_base" => Place::Word(&mut special.gs.base),
            "k_gs_base" => Place::Word(&mut self.kernel_gs_base),
            "cr0" => Place::Word(&mut special.cr0),
            "cr2" => Place::Word(&mut special.cr2),
            "cr3" => Place::Word(&mut special.cr3),
            "cr4" => Place::Word(&mut special.cr4),
            "cr8" => Place::Word(&mut special.cr8),
            "efer" => Place::Word(&mut special.efer),
            _ => Place::Nowhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use gdbstub::arch::{RegId as _, Registers as _};

    use super::*;

    fn bytes(registers: &Registers) -> Vec<u8> {
        let mut bytes = Vec::new();
        Whole::of(registers).gdb_serialize(|byte| bytes.push(byte.unwrap_or(0)));
        bytes
    }

    fn sent(bytes: &[u8]) -> Whole {
        let mut whole = Whole::default();
        whole.gdb_deserialize(bytes).expect("any bytes");
        whole
    }

    #[test]
    fn what_gdb_does_not_send_stays_as_it_is() {
        let mut registers = Registers::default();
        registers.general.rip = 0x1000;
        registers.special.cs.base = 0xf_0000;
        registers.special.cr3 = 0x5000;
        registers.special.apic_base = 0xfee0_0900;
        let before = registers.clone();
        let all = bytes(&registers);
        assert_eq!(sent(&all).pc(), 0x1000);
        sent(&all).put_into(&mut registers);
        assert_eq!(registers, before, "G of what g said");
        sent(&[7; 8]).put_into(&mut registers);
        assert_eq!(registers.general.rax, 0x0707_0707_0707_0707);
        registers.general.rax = 0;
        assert_eq!(registers, before, "but for the first, which was sent");
    }

    #[test]
    fn every_register_comes_back_as_it_was_sent() {
        let mut registers = Registers::default();
        // Their values differ in each byte, so that two that are mixed up show.
        let sent: Vec<u8> = (0..bytes(&registers).len())
            .map(|at| (at * 7 + 1) as u8)
            .collect();
        Whole(sent.clone()).put_into(&mut registers);
        let (mut at, back) = (0, bytes(&registers));
        for (name, bits) in all() {
            let kept = match name {
                "cs" | "ss" | "ds" | "es" | "fs" | "gs" | "fctrl" | "fstat" | "fop" => 2,
                "ftag" => 1,
                "fiseg" | "fioff" | "foseg" | "fooff" => 0,
                _ => bits / 8,
            };
            assert_eq!(back[at..at + kept], sent[at..at + kept], "{name}");
            at += bits / 8;
        }
        assert_eq!(registers.special.efer, number(&sent[sent.len() - 8..]) as u64);
    }

    #[test]
    fn one_register_is_found_by_its_number() {
        let (rip, size) = Number::from_raw_id(16).expect("a register");
        assert_eq!(size.map(usize::from), Some(8));
        let mut registers = Registers::default();
        write(&mut registers, rip, &0xffff_8000_0000_1234_u64.to_le_bytes());
        assert_eq!(registers.general.rip, 0xffff_8000_0000_1234);
        assert_eq!(read(&registers, rip), 0xffff_8000_0000_1234_u64.to_le_bytes());
        assert!(Number::from_raw_id(all().count()).is_none());
    }

    #[test]
    fn the_description_has_the_names_of_qemus_stub() {
        let xml = description();
        for name in [
            "rip",
            "gs_base",
            "k_gs_base",
            "cr3",
            "cr8",
            "efer",
            "xmm15",
            "mxcsr",
        ] {
            assert!(xml.contains(&format!("<reg name=\"{name}\"")), "{name}");
        }
        assert_eq!(xml.matches("<feature").count(), xml.matches("</feature>").count());
    }
}
