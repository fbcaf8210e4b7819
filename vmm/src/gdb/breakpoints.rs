//! Where the guest is to stop: breakpoint instructions in its memory, and the four debug registers.

use std::collections::BTreeMap;

use gdbstub::target::ext::breakpoints::WatchKind;
use strait_devices::GuestAddress;
use vm_memory::{Bytes as _, GuestMemoryMmap};

/// INT3.
const BREAKPOINT: u8 = 0xcc;

/// Debug registers of a CPU (SDM vol. 3 §18.2).
const REGISTERS: usize = 4;

/// DR7: local enables are of no use here, for the guest's task switches clear them; exact matches, and the bit that is
/// always set.
const DR7: u64 = 1 << 10 | 1 << 9;

/// Breakpoints at most: each is held against all others.
const MOST: usize = 4096;

/// Breakpoint instructions, by the linear address that gdb named.
#[derive(Debug, Default)]
pub(super) struct Software(BTreeMap<u64, Placed>);

/// Whose a breakpoint instruction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Guest,
    Debugger,
    /// gdb put it there by another address.
    DebuggerElsewhere,
}

/// Where one was put, and what it stands for.
#[derive(Clone, Copy, Debug)]
struct Placed {
    at: GuestAddress,
    original: u8,
}

impl Software {
    /// Puts one at `linear`, which is `at` in guest memory. False where there is no memory, or where there are enough.
    pub(super) fn insert(&mut self, memory: &GuestMemoryMmap, linear: u64, at: GuestAddress) -> bool {
        if self.0.contains_key(&linear) {
            return true;
        }
        if self.0.len() >= MOST {
            return false;
        }
        // Two names of one place must not save each other's instruction.
        let same = self.0.values().find(|placed| placed.at == at).copied();
        let Ok(original) = same.map_or_else(|| memory.read_obj(at), |placed| Ok(placed.original)) else {
            return false;
        };
        let is_put = memory.write_obj(BREAKPOINT, at).is_ok();
        if is_put {
            self.0.insert(linear, Placed { at, original });
        }
        is_put
    }

    /// Takes one out. False if there was none.
    pub(super) fn remove(&mut self, memory: &GuestMemoryMmap, linear: u64) -> bool {
        let Some(placed) = self.0.remove(&linear) else {
            return false;
        };
        let is_shared = self.0.values().any(|other| other.at == placed.at);
        if !is_shared {
            restore(memory, placed);
        }
        true
    }

    /// Takes all out.
    pub(super) fn clear(&mut self, memory: &GuestMemoryMmap) {
        std::mem::take(&mut self.0)
            .into_values()
            .for_each(|placed| restore(memory, placed));
    }

    /// Before the kernel is loaded again: memory is as the guest left it.
    pub(super) fn lift(&self, memory: &GuestMemoryMmap) {
        self.0.values().for_each(|placed| restore(memory, *placed));
    }

    /// Behind that: they stand where they stood. The instructions there may be others.
    pub(super) fn put_back(&mut self, memory: &GuestMemoryMmap) {
        for (linear, placed) in std::mem::take(&mut self.0) {
            self.insert(memory, linear, placed.at);
        }
    }

    /// Whose a breakpoint instruction is that a vCPU met at `linear`, which is `at` in guest memory, where that can be
    /// told: a process may have its own by the same address, and memory has several.
    pub(super) fn whose(&self, linear: u64, at: Option<GuestAddress>) -> Owner {
        let is_ours = match at {
            Some(at) => self.0.values().any(|placed| placed.at == at),
            None => self.0.contains_key(&linear),
        };
        match (is_ours, self.0.contains_key(&linear)) {
            (true, true) => Owner::Debugger,
            (true, false) => Owner::DebuggerElsewhere,
            (false, _) => Owner::Guest,
        }
    }

    /// Whether there are any.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What the guest has written there meanwhile stays.
fn restore(memory: &GuestMemoryMmap, placed: Placed) {
    if memory
        .read_obj::<u8>(placed.at)
        .is_ok_and(|now| now == BREAKPOINT)
    {
        let _ = memory.write_obj(placed.original, placed.at);
    }
}

/// What a debug register waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Execute,
    Write,
    /// x86 has none for reads alone.
    ReadWrite,
}

impl Access {
    /// For a watchpoint of gdb's.
    pub(super) fn watching(kind: WatchKind) -> Self {
        match kind {
            WatchKind::Write => Self::Write,
            WatchKind::Read | WatchKind::ReadWrite => Self::ReadWrite,
        }
    }
}

/// One debug register in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watch {
    pub(super) address: u64,
    /// 1, 2, 4 or 8 bytes.
    pub(super) len: u64,
    pub(super) access: Access,
}

impl Watch {
    /// The instruction at an address is reached. Its length is 1 (SDM vol. 3 §18.2.4).
    pub(super) fn instruction(address: u64) -> Self {
        Self {
            address,
            len: 1,
            access: Access::Execute,
        }
    }
}

/// The debug registers.
#[derive(Clone, Debug, Default)]
pub(super) struct Hardware([Option<Watch>; REGISTERS]);

impl Hardware {
    /// Takes a register. False where none is free, or the CPU cannot watch such a range.
    pub(super) fn insert(&mut self, watch: Watch) -> bool {
        let can_be = matches!(watch.len, 1 | 2 | 4 | 8) && watch.address.is_multiple_of(watch.len);
        if self.0.contains(&Some(watch)) {
            return can_be;
        }
        match self.0.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) if can_be => {
                *slot = Some(watch);
                true
            }
            _ => false,
        }
    }

    /// Gives it back. False if it was not taken.
    pub(super) fn remove(&mut self, watch: Watch) -> bool {
        let slot = self.0.iter_mut().find(|slot| **slot == Some(watch));
        slot.is_some_and(|slot| slot.take().is_some())
    }

    /// What the registers hold, DR0 to DR3 and DR7; nothing where none is in use.
    pub(super) fn values(&self) -> Option<[u64; REGISTERS + 1]> {
        let mut values = [0, 0, 0, 0, DR7];
        for (at, watch) in self.0.iter().enumerate() {
            let Some(watch) = watch else { continue };
            values[at] = watch.address;
            let kind: u64 = match watch.access {
                Access::Execute => 0,
                Access::Write => 1,
                Access::ReadWrite => 3,
            };
            let len: u64 = match watch.len {
                2 => 1,
                4 => 3,
                8 => 2,
                _ => 0,
            };
            values[REGISTERS] |= 2 << (2 * at) | (len << 2 | kind) << (16 + 4 * at);
        }
        self.0.iter().any(Option::is_some).then_some(values)
    }

    /// The one that DR6 tells of.
    pub(super) fn hit(&self, dr6: u64) -> Option<Watch> {
        let hit = |at: &usize| dr6 & 1 << at != 0;
        (0..REGISTERS).filter(hit).find_map(|at| self.0[at])
    }

    /// Whether a register is in use for this.
    pub(super) fn has(&self, watch: Watch) -> bool {
        self.0.contains(&Some(watch))
    }

    /// None is in use any more.
    pub(super) fn clear(&mut self) {
        self.0 = Default::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Range;
    use crate::memory::{GuestRam, RamSource};

    fn byte(memory: &GuestMemoryMmap, at: u64) -> u8 {
        memory.read_obj(GuestAddress(at)).expect("memory")
    }

    #[test]
    fn two_names_of_one_place_keep_its_instruction() {
        let ram = GuestRam::new(&[Range::new(0, 1 << 20)], &RamSource::default()).expect("RAM");
        let memory = ram.memory();
        memory.write_obj(0x90_u8, GuestAddress(0x1000)).expect("memory");
        let mut breakpoints = Software::default();
        assert!(breakpoints.insert(memory, 0xffff_8000_0000_1000, GuestAddress(0x1000)));
        assert!(breakpoints.insert(memory, 0x1000, GuestAddress(0x1000)));
        assert_eq!(byte(memory, 0x1000), BREAKPOINT);
        assert!(breakpoints.remove(memory, 0xffff_8000_0000_1000));
        assert_eq!(byte(memory, 0x1000), BREAKPOINT);
        assert!(breakpoints.remove(memory, 0x1000));
        assert_eq!(byte(memory, 0x1000), 0x90);
        assert!(!breakpoints.remove(memory, 0x1000));
    }

    #[test]
    fn an_instruction_is_told_by_its_place_and_not_by_its_address_alone() {
        let ram = GuestRam::new(&[Range::new(0, 1 << 20)], &RamSource::default()).expect("RAM");
        let mut breakpoints = Software::default();
        assert!(breakpoints.insert(ram.memory(), 0x1000, GuestAddress(0x1000)));
        let whose = |linear, at| breakpoints.whose(linear, Some(GuestAddress(at)));
        assert_eq!(whose(0x1000, 0x1000), Owner::Debugger);
        assert_eq!(
            whose(0x1000, 0x8000),
            Owner::Guest,
            "of a process with such an address"
        );
        assert_eq!(whose(0xffff_ffff_8000_1000, 0x1000), Owner::DebuggerElsewhere);
        assert_eq!(breakpoints.whose(0x1000, None), Owner::Debugger);
        assert_eq!(breakpoints.whose(0x2000, None), Owner::Guest);
    }

    #[test]
    fn what_the_guest_wrote_over_one_stays() {
        let ram = GuestRam::new(&[Range::new(0, 1 << 20)], &RamSource::default()).expect("RAM");
        let memory = ram.memory();
        let mut breakpoints = Software::default();
        assert!(breakpoints.insert(memory, 8, GuestAddress(8)));
        memory.write_obj(0x33_u8, GuestAddress(8)).expect("memory");
        breakpoints.clear(memory);
        assert_eq!(byte(memory, 8), 0x33);
        assert!(
            !breakpoints.insert(memory, 8, GuestAddress(1 << 30)),
            "there is no memory"
        );
    }

    #[test]
    fn a_reset_puts_them_where_they_were() {
        let ram = GuestRam::new(&[Range::new(0, 1 << 20)], &RamSource::default()).expect("RAM");
        let memory = ram.memory();
        let mut breakpoints = Software::default();
        assert!(breakpoints.insert(memory, 16, GuestAddress(16)));
        breakpoints.lift(memory);
        assert_eq!(byte(memory, 16), 0);
        memory.write_obj(0x55_u8, GuestAddress(16)).expect("memory");
        breakpoints.put_back(memory);
        assert_eq!(byte(memory, 16), BREAKPOINT);
        breakpoints.clear(memory);
        assert_eq!(byte(memory, 16), 0x55);
    }

    #[test]
    fn four_registers_and_no_more() {
        let mut hardware = Hardware::default();
        let watch = |address, len, access| Watch { address, len, access };
        assert_eq!(hardware.values(), None);
        assert!(hardware.insert(watch(0x1000, 1, Access::Execute)));
        assert!(hardware.insert(watch(0x2000, 8, Access::Write)));
        assert!(!hardware.insert(watch(0x2001, 2, Access::Write)), "not aligned");
        assert!(
            !hardware.insert(watch(0x3000, 3, Access::Write)),
            "no such length"
        );
        assert!(hardware.insert(watch(0x3000, 4, Access::ReadWrite)));
        assert!(hardware.insert(watch(0x4000, 2, Access::Write)));
        assert!(
            !hardware.insert(watch(0x5000, 1, Access::Execute)),
            "none is free"
        );
        let values = hardware.values().expect("in use");
        assert_eq!(values[..4], [0x1000, 0x2000, 0x3000, 0x4000]);
        assert_eq!(values[4], DR7 | 0xaa | 0x5f90 << 16);
        assert_eq!(hardware.hit(0xffff_0ff2).map(|watch| watch.address), Some(0x2000));
        assert!(hardware.remove(watch(0x2000, 8, Access::Write)));
        assert_eq!(hardware.hit(2), None);
    }
}
