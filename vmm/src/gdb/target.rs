//! What gdbstub asks of the guest, by its traits: registers, memory, threads and how they go on, breakpoints, and commands.

use gdbstub::common::{Signal, Tid};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadRangeStepping, MultiThreadRangeSteppingOps, MultiThreadResume,
    MultiThreadResumeOps, MultiThreadSchedulerLocking, MultiThreadSchedulerLockingOps, MultiThreadSingleStep,
    MultiThreadSingleStepOps,
};
use gdbstub::target::ext::base::single_register_access::{SingleRegisterAccess, SingleRegisterAccessOps};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps, SwBreakpoint,
    SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps};
use gdbstub::target::ext::target_description_xml_override::{
    TargetDescriptionXmlOverride, TargetDescriptionXmlOverrideOps,
};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};
use vm_memory::Bytes as _;

use super::breakpoints::{Access, Watch};
use super::filter::PACKET;
use super::inferior::{Action, Inferior, Never, tid};
use super::monitor;
use super::registers::{self, Number, Whole, X86_64};
use crate::kvm::debug::Registers;
use crate::kvm::vcpu::Vcpu;

/// gdb's word for what cannot be had.
fn refused<T>() -> TargetResult<T, Inferior> {
    Err(TargetError::NonFatal)
}

impl Inferior {
    fn change_registers(&self, tid: Tid, change: impl FnOnce(&mut Registers)) -> TargetResult<(), Self> {
        let Some(vcpu) = self.vcpu(tid) else {
            return refused();
        };
        let Ok(mut registers) = vcpu.registers() else {
            return refused();
        };
        change(&mut registers);
        vcpu.set_registers(&registers).or_else(|_| refused())
    }
}

impl Target for Inferior {
    type Arch = X86_64;
    type Error = Never;

    fn base_ops(&mut self) -> BaseOps<'_, X86_64, Never> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }

    fn support_target_description_xml_override(
        &mut self,
    ) -> Option<TargetDescriptionXmlOverrideOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for Inferior {
    fn read_registers(&mut self, regs: &mut Whole, tid: Tid) -> TargetResult<(), Self> {
        match self.vcpu(tid).map(Vcpu::registers) {
            Some(Ok(found)) => {
                *regs = Whole::of(&found);
                Ok(())
            }
            _ => refused(),
        }
    }

    fn write_registers(&mut self, regs: &Whole, tid: Tid) -> TargetResult<(), Self> {
        self.change_registers(tid, |registers| regs.put_into(registers))
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        // gdb asks for what half a packet holds; of more the stub would answer all that there is, piece by piece.
        if data.len() > PACKET / 2 {
            return refused();
        }
        let mut done = 0;
        for (linear, range) in Self::pieces(start, data.len()) {
            let at = self.translate(linear, tid);
            let piece = &mut data[range];
            if at.is_none_or(|at| self.memory.read_slice(piece, at).is_err()) {
                break;
            }
            done += piece.len();
        }
        if done == 0 { refused() } else { Ok(done) }
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        for (linear, range) in Self::pieces(start, data.len()) {
            let at = self.translate(linear, tid);
            if at.is_none_or(|at| self.memory.write_slice(&data[range], at).is_err()) {
                return refused();
            }
        }
        Ok(())
    }

    fn list_active_threads(&mut self, report: &mut dyn FnMut(Tid)) -> Result<(), Never> {
        self.vcpus.iter().for_each(|vcpu| report(tid(vcpu.id())));
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, Tid, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl SingleRegisterAccess<Tid> for Inferior {
    fn read_register(&mut self, tid: Tid, which: Number, buf: &mut [u8]) -> TargetResult<usize, Self> {
        let Some(Ok(found)) = self.vcpu(tid).map(Vcpu::registers) else {
            return refused();
        };
        let bytes = registers::read(&found, which);
        buf[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn write_register(&mut self, tid: Tid, which: Number, bytes: &[u8]) -> TargetResult<(), Self> {
        self.change_registers(tid, |registers| registers::write(registers, which, bytes))
    }
}

impl ThreadExtraInfo for Inferior {
    fn thread_extra_info(&self, tid: Tid, buf: &mut [u8]) -> Result<usize, Never> {
        let text = match self.vcpu(tid) {
            Some(vcpu) => format!("vCPU {}, {}", vcpu.id(), self.activity(vcpu)),
            None => String::new(),
        };
        let len = text.len().min(buf.len());
        buf[..len].copy_from_slice(&text.as_bytes()[..len]);
        Ok(len)
    }
}

impl MultiThreadResume for Inferior {
    fn resume(&mut self) -> Result<(), Never> {
        self.goes_on = true;
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), Never> {
        self.clear_actions();
        Ok(())
    }

    fn set_resume_action_continue(&mut self, tid: Tid, _: Option<Signal>) -> Result<(), Never> {
        self.act(tid, Action::Continue);
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_range_step(&mut self) -> Option<MultiThreadRangeSteppingOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for Inferior {
    fn set_resume_action_step(&mut self, tid: Tid, _: Option<Signal>) -> Result<(), Never> {
        self.act(tid, Action::Step);
        Ok(())
    }
}

impl MultiThreadRangeStepping for Inferior {
    fn set_resume_action_range_step(&mut self, tid: Tid, start: u64, end: u64) -> Result<(), Never> {
        self.act(tid, Action::StepOver(start, end));
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for Inferior {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Never> {
        self.is_locked = true;
        Ok(())
    }
}

impl Breakpoints for Inferior {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Inferior {
    fn add_sw_breakpoint(&mut self, linear: u64, _: usize) -> TargetResult<bool, Self> {
        let at = self.translate(linear, self.any_thread());
        Ok(at.is_some_and(|at| self.software.insert(&self.memory, linear, at)))
    }

    fn remove_sw_breakpoint(&mut self, linear: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.stands_still() && self.software.remove(&self.memory, linear))
    }
}

impl HwBreakpoint for Inferior {
    fn add_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.stands_still() && self.hardware.insert(Watch::instruction(address)))
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.stands_still() && self.hardware.remove(Watch::instruction(address)))
    }
}

impl HwWatchpoint for Inferior {
    fn add_hw_watchpoint(&mut self, address: u64, len: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        let access = Access::watching(kind);
        Ok(self.stands_still() && self.hardware.insert(Watch { address, len, access }))
    }

    fn remove_hw_watchpoint(&mut self, address: u64, len: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        let access = Access::watching(kind);
        Ok(self.stands_still() && self.hardware.remove(Watch { address, len, access }))
    }
}

impl TargetDescriptionXmlOverride for Inferior {
    fn target_description_xml(
        &self,
        annex: &[u8],
        offset: u64,
        length: usize,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        if annex != b"target.xml" {
            return refused();
        }
        let xml = registers::description();
        let rest = xml.as_bytes().get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(length).min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

impl MonitorCmd for Inferior {
    fn handle_monitor_cmd(&mut self, command: &[u8], mut out: ConsoleOutput<'_>) -> Result<(), Never> {
        let command = String::from_utf8_lossy(command);
        let answer = match command.trim() {
            "quit" | "q" => {
                self.is_killed = true;
                "The guest ends.\n".to_owned()
            }
            command => monitor::answer(command, self.scene.as_deref(), &self.memory),
        };
        out.write_raw(answer.as_bytes());
        out.flush();
        Ok(())
    }
}
