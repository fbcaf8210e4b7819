//! The guest as gdb has it: vCPUs that stand still as threads, memory by linear and by physical address, and where
//! it is to stop.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;

use gdbstub::common::{Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;
use gdbstub::target::ext::breakpoints::WatchKind;
use strait_devices::GuestAddress;
use vm_memory::GuestMemoryMmap;

use super::breakpoints::{Access, Hardware, Owner, Software, Watch};
use super::monitor::Scene;
use super::walk;
use crate::kvm::debug::DebugControl;
use crate::kvm::vcpu::{DebugExit, Vcpu};

/// Bytes that a linear address tells apart by themselves: what is behind is on another page.
const PAGE: u64 = 4096;

/// DR6: a debug register found what it is for (SDM vol. 3 §18.2.3).
const FOUND: u64 = 0xf;
/// DR6: the exception came behind a step.
const STEPPED: u64 = 1 << 14;

/// RFLAGS.RF: the next instruction meets no breakpoint of the debug registers (SDM vol. 3 §18.3.1.1).
const RESUME: u64 = 1 << 16;

/// How a thread goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Continue,
    Step,
    /// Until it leaves these addresses.
    StepOver(u64, u64),
}

/// What of steps and memory QEMU's packets choose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Modes {
    /// Addresses are physical.
    pub(super) is_physical: bool,
    /// No interrupt arrives while a vCPU steps.
    pub(super) steps_block_interrupts: bool,
}

impl Default for Modes {
    /// As QEMU's stub begins.
    fn default() -> Self {
        Self {
            is_physical: false,
            steps_block_interrupts: true,
        }
    }
}

/// Why the guest stands still, for gdb.
pub(super) type Reason = MultiThreadStopReason<u64>;

/// Nothing goes wrong for good here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Never {}

impl fmt::Display for Never {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

/// The guest under gdb.
pub(super) struct Inferior {
    /// All of them while the guest stands still.
    pub(super) vcpus: Vec<Vcpu>,
    /// What is asked of the machine by name.
    pub(super) scene: Option<Box<dyn Scene>>,
    /// What QEMU's packets chose.
    pub(super) modes: Modes,
    /// gdb wants the guest to go on.
    pub(super) goes_on: bool,
    /// gdb wants the end of it.
    pub(super) is_killed: bool,
    pub(super) memory: GuestMemoryMmap,
    pub(super) software: Software,
    pub(super) hardware: Hardware,
    actions: BTreeMap<u32, Action>,
    /// Threads without an action stand still.
    pub(super) is_locked: bool,
    /// vCPUs that are at a breakpoint instruction of the guest's own.
    returned: Vec<u32>,
    /// What debug registers found on vCPUs while another one stopped the guest. The access is behind them, so that they
    /// do not meet it again.
    found: Vec<(u32, Watch)>,
    can_block: bool,
}

impl Inferior {
    /// A guest with this RAM, in which nothing is set. `can_block` tells whether KVM holds interrupts back.
    pub(super) fn new(memory: GuestMemoryMmap, can_block: bool) -> Self {
        Self {
            vcpus: Vec::new(),
            scene: None,
            modes: Modes::default(),
            goes_on: false,
            is_killed: false,
            memory,
            software: Software::default(),
            hardware: Hardware::default(),
            actions: BTreeMap::new(),
            is_locked: false,
            returned: Vec::new(),
            found: Vec::new(),
            can_block,
        }
    }

    /// Whether a vCPU runs on when the guest does.
    pub(super) fn runs(&self, vcpu: u32) -> bool {
        self.actions.contains_key(&vcpu) || !self.is_locked
    }

    /// Tells every vCPU how it goes on. What KVM refuses is said: the guest would run past where it is to stop.
    pub(super) fn arm(&mut self) {
        let returned = std::mem::take(&mut self.returned);
        for vcpu in &self.vcpus {
            let action = self.actions.get(&vcpu.id()).copied().unwrap_or(Action::Continue);
            let is_stepped = action != Action::Continue;
            // KVM steps a guest of the guest as well, and the outer one has met its end by it (Linux 6.12, AMD): a step
            // that leads there lasts until the outer one goes on, for which it takes a debug register, or something else stops
            // the guest.
            let outer = vcpu.outer();
            let steps = is_stepped && outer.is_none();
            let mut hardware = self.hardware.clone();
            if let Some(outer) = outer.filter(|_| is_stepped) {
                hardware.insert(Watch::instruction(outer.rip));
            }
            let control = DebugControl {
                traps_breakpoints: !self.software.is_empty(),
                steps,
                blocks_interrupts: steps && self.can_block && self.modes.steps_block_interrupts,
                returns_breakpoint: returned.contains(&vcpu.id()),
                registers: hardware.values(),
            };
            vcpu.note_pause();
            if let Err(error) = vcpu.set_debug(&control) {
                log::error!("vCPU {} does not take what gdb set: {error}", vcpu.id());
            }
        }
    }

    /// gdb has left: nothing stops the guest any more, and the next one finds what it expects.
    pub(super) fn disarm(&mut self) {
        self.modes = Modes::default();
        self.software.clear(&self.memory);
        self.hardware.clear();
        self.found.clear();
        self.clear_actions();
        self.arm();
    }

    /// Every thread continues.
    pub(super) fn clear_actions(&mut self) {
        self.actions.clear();
        self.is_locked = false;
    }

    /// Before the kernel is loaded again.
    pub(super) fn lift(&mut self) {
        self.software.lift(&self.memory);
        self.returned.clear();
        self.found.clear();
    }

    /// Behind that.
    pub(super) fn put_back(&mut self) {
        self.software.put_back(&self.memory);
    }

    /// What an exit of a vCPU means for gdb. `None` if the guest goes on: the instruction is its own, or the step
    /// is not over.
    pub(super) fn reason(&mut self, exit: DebugExit) -> Option<Reason> {
        let tid = tid(exit.vcpu);
        if self.vcpu(tid).is_some_and(is_in_inner_guest) {
            self.pass_over(exit);
            return None;
        }
        if exit.exception == 3 {
            return self.breakpoint(exit);
        }
        if let Some(watch) = self.hardware.hit(exit.dr6) {
            return Some(found(exit.vcpu, watch));
        }
        match self.actions.get(&exit.vcpu) {
            Some(Action::StepOver(start, end))
                if exit.dr6 & STEPPED != 0 && (*start..*end).contains(&exit.pc) =>
            {
                None
            }
            _ => Some(trap(exit.vcpu)),
        }
    }

    /// A breakpoint instruction. gdb ignores one that it is told of as such and does not know by its address.
    fn breakpoint(&mut self, exit: DebugExit) -> Option<Reason> {
        let at = self.vcpu(tid(exit.vcpu)).and_then(|vcpu| vcpu.translate(exit.pc));
        match self.software.whose(exit.pc, at) {
            Owner::Debugger => Some(Reason::SwBreak(tid(exit.vcpu))),
            Owner::DebuggerElsewhere => Some(trap(exit.vcpu)),
            Owner::Guest => {
                self.returned.push(exit.vcpu);
                None
            }
        }
    }

    /// What further vCPUs met while one stopped the guest. Where it is an instruction that they are still at, they meet it
    /// again; an access to memory they do not.
    pub(super) fn keep(&mut self, exits: &[DebugExit]) {
        for exit in exits.iter().filter(|exit| exit.exception != 3) {
            let watch = self.hardware.hit(exit.dr6);
            let of_memory = watch.filter(|watch| watch.access != Access::Execute);
            self.found.extend(of_memory.map(|watch| (exit.vcpu, watch)));
        }
    }

    /// What is left of that when the guest is to go on: it stops before it has, for a vCPU that would, unless gdb has taken
    /// the watchpoint away meanwhile.
    pub(super) fn left_over(&mut self) -> Option<Reason> {
        let hardware = &self.hardware;
        self.found.retain(|(_, watch)| hardware.has(*watch));
        let at = self.found.iter().position(|(vcpu, _)| self.runs(*vcpu))?;
        let (vcpu, watch) = self.found.remove(at);
        Some(found(vcpu, watch))
    }

    /// A stop in a guest of the guest: what gdb set is meant for the outer one. A breakpoint instruction there is that
    /// guest's own, a step goes on until the vCPU is back, and an instruction that a debug register found, which may be one
    /// for such a step, is passed by once (RF).
    fn pass_over(&mut self, exit: DebugExit) {
        if exit.exception == 3 {
            self.returned.push(exit.vcpu);
        }
        let is_access = |watch: Watch| watch.access != Access::Execute;
        if exit.dr6 & FOUND != 0
            && !self.hardware.hit(exit.dr6).is_some_and(is_access)
            && let Some(vcpu) = self.vcpu(tid(exit.vcpu))
            && let Ok(mut registers) = vcpu.registers()
        {
            registers.general.rflags |= RESUME;
            let _ = vcpu.set_registers(&registers);
        }
    }

    /// How the thread goes on.
    pub(super) fn act(&mut self, thread: Tid, action: Action) {
        let vcpu = self.vcpu(thread).map(Vcpu::id);
        if let Some(vcpu) = vcpu {
            self.actions.insert(vcpu, action);
        }
    }

    /// The thread by which gdb's breakpoints are placed: the packet does not name one.
    pub(super) fn any_thread(&self) -> Tid {
        self.vcpus
            .first()
            .map_or(NonZeroUsize::MIN, |vcpu| tid(vcpu.id()))
    }

    /// What a thread is at, for people.
    pub(super) fn activity(&self, vcpu: &Vcpu) -> &'static str {
        match is_in_inner_guest(vcpu) {
            true => "in a guest of the guest",
            false => vcpu.activity(),
        }
    }

    /// The vCPU of a thread.
    pub(super) fn vcpu(&self, tid: Tid) -> Option<&Vcpu> {
        self.vcpus.iter().find(|vcpu| self::tid(vcpu.id()) == tid)
    }

    /// Whether the guest stands still. What is set of one that runs would not be armed.
    pub(super) fn stands_still(&self) -> bool {
        !self.vcpus.is_empty()
    }

    /// Where a linear address is in guest memory, for a thread; nowhere while the guest runs. While its vCPU runs a guest of the guest, KVM has that
    /// one's tables: ours are walked here.
    pub(super) fn translate(&self, linear: u64, thread: Tid) -> Option<GuestAddress> {
        let vcpu = self.vcpu(thread).or(self.vcpus.first())?;
        if self.modes.is_physical {
            return Some(GuestAddress(linear));
        }
        match vcpu.outer() {
            Some(outer) => walk::translate(&self.memory, outer.tables, linear),
            None => vcpu.translate(linear),
        }
    }

    /// Pieces of `len` bytes from `linear` on, each on one page.
    pub(super) fn pieces(linear: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = linear.wrapping_add(at as u64);
            let room = (PAGE - start % PAGE) as usize;
            let range = at..(at + room).min(len);
            at = range.end;
            (!range.is_empty()).then_some((start, range))
        })
    }
}

fn is_in_inner_guest(vcpu: &Vcpu) -> bool {
    vcpu.outer().is_some()
}

/// gdb counts threads from 1.
pub(super) fn tid(vcpu: u32) -> Tid {
    NonZeroUsize::MIN.saturating_add(vcpu as usize)
}

/// A debug register found something.
fn found(vcpu: u32, watch: Watch) -> Reason {
    let tid = tid(vcpu);
    let kind = match watch.access {
        Access::Execute => return Reason::HwBreak(tid),
        Access::Write => WatchKind::Write,
        Access::ReadWrite => WatchKind::ReadWrite,
    };
    Reason::Watch {
        tid,
        kind,
        addr: watch.address,
    }
}

/// A step is done, or something else that gdb has no name for.
fn trap(vcpu: u32) -> Reason {
    Reason::SignalWithThread {
        tid: tid(vcpu),
        signal: Signal::SIGTRAP,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Range;
    use crate::memory::{GuestRam, RamSource};

    const WATCH: Watch = Watch {
        address: 0x2000,
        len: 4,
        access: Access::Write,
    };

    /// The first register found something on vCPU 1, while another one stopped the guest.
    fn inferior() -> Inferior {
        let ram = GuestRam::new(&[Range::new(0, 1 << 20)], &RamSource::default()).expect("RAM");
        let mut inferior = Inferior::new(ram.memory().clone(), true);
        assert!(inferior.hardware.insert(WATCH));
        inferior.keep(&[DebugExit {
            vcpu: 1,
            pc: 0x1000,
            exception: 1,
            dr6: 1,
        }]);
        inferior
    }

    #[test]
    fn what_was_found_while_another_vcpu_stopped_is_told_before_its_own_goes_on() {
        let mut inferior = inferior();
        inferior.actions.insert(0, Action::Step);
        inferior.is_locked = true;
        assert_eq!(inferior.left_over(), None, "it stands still");
        inferior.clear_actions();
        let told = Reason::Watch {
            tid: tid(1),
            kind: WatchKind::Write,
            addr: 0x2000,
        };
        assert_eq!(inferior.left_over(), Some(told));
        assert_eq!(inferior.left_over(), None, "once");
    }

    #[test]
    fn what_was_found_by_a_watchpoint_that_is_gone_is_not_told() {
        let mut inferior = inferior();
        assert!(inferior.hardware.remove(WATCH));
        assert_eq!(inferior.left_over(), None);
    }
}
