//! The register values a kernel starts with, and the tables in memory they point at.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::error::BootError;
use crate::layout;

/// Segment descriptors (Intel SDM vol. 3 §3.4.5): all of memory from 0, ring 0. Linux wants code at selector
/// 0x10 and data at 0x18; the task state is there because a CPU must have one.
const CODE_64: u64 = 0x00af_9b00_0000_ffff;
const CODE_32: u64 = 0x00cf_9b00_0000_ffff;
const DATA: u64 = 0x00cf_9300_0000_ffff;
/// Busy, for VM entry refuses another task state (Intel SDM vol. 3, checks on guest segment registers).
const TASK_STATE: u64 = 0x0000_8b00_0000_0067;
/// Indices in the table. Linux's boot protocol names those of code and data; the task state's is free.
const CODE_INDEX: u16 = 2;
const DATA_INDEX: u16 = 3;
const TASK_STATE_INDEX: u16 = 4;

/// Control register bits (Intel SDM vol. 3 §2.5). Caching stays on, unlike after power-on.
const CR0_PE: u64 = 1 << 0;
/// Hardwired to 1 since the Pentium Pro.
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// The bit of RFLAGS that is always 1.
const RFLAGS_RESERVED: u64 = 1 << 1;

/// Page table entries (Intel SDM vol. 3 §4.5): present and writable; a 2 MiB page.
const TABLE: u64 = 0b11;
const PAGE_2M: u64 = TABLE | 1 << 7;
const PAGE_2M_BYTES: u64 = 2 << 20;
const ENTRIES: u64 = 512;

/// The state in which the first vCPU starts, by the boot protocol of the kernel's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryState {
    mode: Mode,
    rip: GuestAddress,
    /// The structure about the machine: the zero page, or PVH's start info.
    info: GuestAddress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// 64-bit, the first 4 GiB mapped to themselves, RSI points at the zero page.
    Long,
    /// 32-bit without paging, EBX points at the start info.
    Protected,
}

impl EntryState {
    pub(super) fn long_mode(rip: GuestAddress, zero_page: GuestAddress) -> Self {
        Self {
            mode: Mode::Long,
            rip,
            info: zero_page,
        }
    }

    pub(crate) fn protected_mode(eip: GuestAddress, start_info: GuestAddress) -> Self {
        Self {
            mode: Mode::Protected,
            rip: eip,
            info: start_info,
        }
    }

    /// All general registers. Interrupts are off.
    pub fn regs(&self) -> kvm_regs {
        let regs = kvm_regs {
            rip: self.rip.0,
            rsp: layout::BOOT_STACK.end().0,
            rflags: RFLAGS_RESERVED,
            ..Default::default()
        };
        match self.mode {
            Mode::Long => kvm_regs {
                rsi: self.info.0,
                ..regs
            },
            Mode::Protected => kvm_regs {
                rbx: self.info.0,
                ..regs
            },
        }
    }

    /// Changes the special registers of a vCPU that is in the state after power-on, and leaves the ones
    /// that have nothing to do with the entry, such as the APIC's base.
    pub fn apply_sregs(&self, sregs: &mut kvm_sregs) {
        sregs.cs = segment(self.code(), CODE_INDEX);
        let data = segment(DATA, DATA_INDEX);
        (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
        sregs.tr = segment(TASK_STATE, TASK_STATE_INDEX);
        sregs.gdt.base = layout::GDT.start.0;
        sregs.gdt.limit = (self.descriptors().len() * 8 - 1) as u16;
        sregs.idt.base = 0;
        sregs.idt.limit = 0;
        match self.mode {
            Mode::Long => {
                sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
                sregs.cr3 = layout::PAGE_TABLES.start.0;
                sregs.cr4 = CR4_PAE;
                sregs.efer = EFER_LME | EFER_LMA;
            }
            Mode::Protected => {
                sregs.cr0 = CR0_PE | CR0_ET;
                sregs.cr3 = 0;
                sregs.cr4 = 0;
                sregs.efer = 0;
            }
        }
    }

    /// Writes the tables that [`Self::apply_sregs`] points at.
    pub(super) fn load_tables(&self, memory: &GuestMemoryMmap) -> Result<(), BootError> {
        let failed = |source| BootError::Copy {
            what: "descriptor and page tables",
            source,
        };
        memory
            .write_slice(&to_bytes(self.descriptors()), layout::GDT.start)
            .map_err(failed)?;
        if self.mode == Mode::Long {
            memory
                .write_slice(&to_bytes(page_tables()), layout::PAGE_TABLES.start)
                .map_err(failed)?;
        }
        Ok(())
    }

    fn code(&self) -> u64 {
        match self.mode {
            Mode::Long => CODE_64,
            Mode::Protected => CODE_32,
        }
    }

    fn descriptors(&self) -> [u64; 5] {
        [0, 0, self.code(), DATA, TASK_STATE]
    }
}

/// The hidden part of a segment register, as a CPU loads it from a descriptor (Intel SDM vol. 3 §3.4.3).
fn segment(descriptor: u64, index: u16) -> kvm_segment {
    let bits = |low: u32, count: u32| (descriptor >> low) & ((1 << count) - 1);
    let granular = bits(55, 1) == 1;
    let limit = (bits(48, 4) << 16 | bits(0, 16)) as u32;
    kvm_segment {
        base: bits(56, 8) << 24 | bits(16, 24),
        limit: if granular { limit << 12 | 0xfff } else { limit },
        selector: index * 8,
        type_: bits(40, 4) as u8,
        s: bits(44, 1) as u8,
        dpl: bits(45, 2) as u8,
        present: bits(47, 1) as u8,
        avl: bits(52, 1) as u8,
        l: bits(53, 1) as u8,
        db: bits(54, 1) as u8,
        g: u8::from(granular),
        ..Default::default()
    }
}

/// PML4, PDPT and four page directories, one behind the other.
fn page_tables() -> Vec<u64> {
    let table = |number: u64| layout::PAGE_TABLES.start.0 + number * ENTRIES * 8;
    let padded = |mut entries: Vec<u64>| {
        entries.resize(ENTRIES as usize, 0);
        entries
    };
    let mut tables = padded(vec![table(1) | TABLE]);
    tables.extend(padded((2..6).map(|directory| table(directory) | TABLE).collect()));
    tables.extend((0..4 * ENTRIES).map(|page| (page * PAGE_2M_BYTES) | PAGE_2M));
    tables
}

fn to_bytes(words: impl IntoIterator<Item = u64>) -> Vec<u8> {
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::testing::memory;

    fn sregs(entry: &EntryState) -> kvm_sregs {
        // What KVM has after power-on, as far as it matters here.
        let mut sregs = kvm_sregs {
            cr0: 0x6000_0010,
            apic_base: 0xfee0_0900,
            ..Default::default()
        };
        entry.apply_sregs(&mut sregs);
        sregs
    }

    #[test]
    fn long_mode_is_what_the_64_bit_boot_protocol_asks_for() {
        let entry = EntryState::long_mode(GuestAddress(0x100_0200), GuestAddress(0x7000));
        let (regs, sregs) = (entry.regs(), sregs(&entry));
        assert_eq!((regs.rip, regs.rsi, regs.rflags), (0x100_0200, 0x7000, 2));
        assert_eq!(
            (sregs.cs.selector, sregs.cs.l, sregs.cs.db, sregs.cs.type_),
            (0x10, 1, 0, 0xb)
        );
        assert_eq!(
            (sregs.ds.selector, sregs.ss.selector, sregs.ds.type_),
            (0x18, 0x18, 3)
        );
        assert_eq!((sregs.cr0, sregs.cr4, sregs.efer), (0x8000_0011, 0x20, 0x500));
        assert_eq!(sregs.apic_base, 0xfee0_0900, "not ours to change");
    }

    #[test]
    fn protected_mode_is_what_pvh_asks_for() {
        let entry = EntryState::protected_mode(GuestAddress(0x100_0000), GuestAddress(0x6000));
        let (regs, sregs) = (entry.regs(), sregs(&entry));
        assert_eq!((regs.rip, regs.rbx, regs.rflags), (0x100_0000, 0x6000, 2));
        assert_eq!(
            (sregs.cs.base, sregs.cs.limit, sregs.cs.l, sregs.cs.db),
            (0, 0xffff_ffff, 0, 1)
        );
        assert_eq!((sregs.tr.limit, sregs.tr.type_, sregs.tr.s), (0x67, 0xb, 0));
        assert_eq!((sregs.cr0, sregs.cr4, sregs.efer), (0x11, 0, 0));
    }

    #[test]
    fn page_tables_map_four_gib_to_themselves() {
        let memory = memory(1 << 20);
        let entry = EntryState::long_mode(GuestAddress(0), GuestAddress(0));
        entry.load_tables(&memory).expect("there is RAM");
        let read = |address: u64| {
            memory
                .read_obj::<u64>(GuestAddress(address))
                .expect("there is RAM")
        };
        // 0xFEE0_0000: PDPT entry 3, directory entry 0x1f7.
        let directory = read(read(layout::PAGE_TABLES.start.0) - 3 + 3 * 8) - 3;
        assert_eq!(read(directory + 0x1f7 * 8), 0xfee0_0083);
        assert_eq!(read(layout::GDT.start.0 + 0x10), CODE_64);
    }
}
