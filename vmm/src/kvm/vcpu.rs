//! A vCPU: its first state, and one turn of KVM_RUN.

use std::io;
use std::slice;
use std::sync::Arc;

use kvm_bindings::{CpuId, Msrs, kvm_msr_entry};
use kvm_ioctls::{VcpuExit, VcpuFd};
use strait_devices::region::Unfinished;
use strait_devices::{GuestAddress, Place};

use super::cpuid::{self, Identity};
use super::reset_state::ResetState;
use super::ring::Ring;
use super::statistics::Statistics;
use super::stop::StopFlag;
use super::system::System;
use super::vm::Vm;
use crate::boot::EntryState;

/// IA32_MTRR_DEF_TYPE and its value: MTRRs on, default write-back. Without it a guest whose host honours
/// guest memory types, as for non-coherent DMA, runs uncached.
const MTRR_DEFAULT_TYPE: (u32, u64) = (0x2ff, 1 << 11 | 6);
/// IA32_MISC_ENABLE with fast string operations, as every firmware leaves it.
const MISC_ENABLE: (u32, u64) = (0x1a0, 1);

/// Most exits that the rest of one instruction makes: each is an access of up to 8 bytes, and the widest
/// instruction that KVM emulates (FXRSTOR, 512 bytes) makes 64.
const MOST_LEFT_OVER: usize = 256;

/// A vCPU that cannot be set up or run.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// A step of its set-up.
    #[error("KVM cannot {step} of vCPU {id}")]
    Setup {
        /// What was asked of the kernel, as a verb.
        step: &'static str,
        /// Its number, from 0.
        id: u32,
        /// What the kernel answered.
        source: io::Error,
    },
    /// Its CPUID leaves do not fit.
    #[error("the CPUID leaves of vCPU {0} do not fit KVM's table")]
    Cpuid(u32),
}

/// Why a vCPU came back to us.
#[derive(Debug)]
pub enum Exit<'a> {
    /// Reads a port, `data` in units of `size` bytes, one after the other from the same port.
    PortRead {
        /// Number of the port.
        port: u16,
        /// Bytes of one access: 1, 2 or 4; a string instruction has several.
        size: usize,
        /// What to fill, all accesses one after the other.
        data: &'a mut [u8],
    },
    /// Writes a port, in units as above.
    PortWrite {
        /// Number of the port.
        port: u16,
        /// Bytes of one access: 1, 2 or 4; a string instruction has several.
        size: usize,
        /// What was written, all accesses one after the other.
        data: &'a [u8],
    },
    /// Reads guest physical memory that no slot backs.
    MemoryRead(GuestAddress, &'a mut [u8]),
    /// Writes memory that no slot backs.
    MemoryWrite(GuestAddress, &'a [u8]),
    /// The local APIC saw the end of a level interrupt that an I/O APIC pin raised.
    EndOfInterrupt(u8),
    /// Kicked by a signal.
    Interrupted,
    /// A triple fault: the CPU shut down (KVM_EXIT_SHUTDOWN).
    Shutdown,
    /// It came to where a debugger wants it.
    Debug(DebugExit),
    /// KVM gave up on the vCPU; the text says why.
    Failed(String),
}

/// A vCPU left the guest for the debugger (KVM_EXIT_DEBUG).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebugExit {
    /// The vCPU.
    pub vcpu: u32,
    /// Linear address of the instruction that it is at.
    pub pc: u64,
    /// Number of the exception: 1 for debug, 3 for breakpoint.
    pub exception: u32,
    /// Why it was a debug exception (SDM vol. 3 §18.2.3, APM vol. 2 §13.1.1.3).
    pub dr6: u64,
}

/// An exit before its data is looked at, which the ring of noted writes comes ahead of.
enum Reason {
    PortRead,
    PortWrite,
    /// Where the read began, and its bytes.
    MemoryRead(GuestAddress, usize),
    MemoryWrite(GuestAddress, usize),
    EndOfInterrupt(u8),
    Interrupted,
    Shutdown,
    Debug(DebugExit),
    Failed(String),
}

/// A vCPU of KVM and the page that it shares with the kernel.
pub struct Vcpu {
    id: u32,
    fd: VcpuFd,
    ring: Arc<Ring>,
    stop: Arc<StopFlag>,
    reset_state: ResetState,
    /// Has not run since it was made.
    fresh: bool,
    /// What the guest's last writes asked for and is not done yet: to be done before its next instruction.
    begun: Vec<Arc<dyn Unfinished>>,
}

impl Vcpu {
    /// vCPU `id` of `cpus`, in the state after power-on.
    ///
    /// # Errors
    /// Names the step that failed.
    pub fn new(vm: &Vm, system: &System, supported: &CpuId, id: u32, cpus: u32) -> Result<Self, VcpuError> {
        let failed = |step| {
            move |errno: kvm_ioctls::Error| VcpuError::Setup {
                step,
                id,
                source: errno.into(),
            }
        };
        let mut fd = vm
            .fd()
            .create_vcpu(u64::from(id))
            .map_err(failed("create the file"))?;
        let tsc_khz = fd.get_tsc_khz().unwrap_or(0);
        let cpuid = cpuid::for_vcpu(
            supported,
            Identity {
                apic_id: id,
                cpus,
                tsc_khz,
            },
        )
        .map_err(|_| VcpuError::Cpuid(id))?;
        fd.set_cpuid2(&cpuid).map_err(failed("set the CPUID"))?;
        set_msrs(&fd, &[MTRR_DEFAULT_TYPE, MISC_ENABLE]).map_err(failed("set the registers"))?;
        let reset_state = ResetState::capture(&fd, system.kvm()).map_err(failed("read the state"))?;
        reset_state
            .announce(&fd)
            .map_err(failed("write the local APIC"))?;
        fd.map_coalesced_mmio_ring()
            .map_err(failed("map the ring of writes"))?;
        let stop = StopFlag::of(&fd).map_err(|source| VcpuError::Setup {
            step: "map the shared page",
            id,
            source,
        })?;
        Ok(Self {
            id,
            fd,
            ring: vm.ring().clone(),
            stop: Arc::new(stop),
            reset_state,
            fresh: true,
            begun: Vec::new(),
        })
    }

    /// Puts the vCPU into the state after power-on; the first one then starts at `entry`, the others wait
    /// for it to wake them (INIT and SIPI).
    ///
    /// # Errors
    /// When KVM refuses a register.
    pub fn reset(&mut self, entry: &EntryState) -> Result<(), VcpuError> {
        self.begun.clear();
        let id = self.id;
        let failed = |errno: kvm_ioctls::Error| VcpuError::Setup {
            step: "reset the state",
            id,
            source: errno.into(),
        };
        if !std::mem::take(&mut self.fresh) {
            self.reset_state.restore(&self.fd).map_err(failed)?;
        }
        if id == 0 {
            let mut sregs = self.fd.get_sregs().map_err(failed)?;
            entry.apply_sregs(&mut sregs);
            self.fd.set_sregs(&sregs).map_err(failed)?;
            self.fd.set_regs(&entry.regs()).map_err(failed)?;
        }
        self.stop.set(false);
        Ok(())
    }

    /// Its file, for what is asked of it while it stands still.
    pub(super) fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// Sets model-specific registers.
    pub(super) fn set_msrs(&self, values: &[(u32, u64)]) -> Result<(), kvm_ioctls::Error> {
        set_msrs(&self.fd, values)
    }

    /// The vCPU's number, also its APIC id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What KVM counts of it. It is asked for before the vCPU runs, which would keep KVM from answering.
    ///
    /// # Errors
    /// When the kernel counts nothing that it tells.
    pub fn statistics(&self) -> io::Result<Statistics> {
        Statistics::of(&self.fd)
    }

    /// Through which another thread asks this vCPU to leave the guest, until it is reset.
    pub fn stop_flag(&self) -> &Arc<StopFlag> {
        &self.stop
    }

    /// Keeps what its guest's writes have begun, for who runs it next; a reset forgets it.
    pub fn keep_begun(&mut self, begun: Vec<Arc<dyn Unfinished>>) {
        self.begun = begun;
    }

    /// Takes what was kept.
    pub fn take_begun(&mut self) -> Vec<Arc<dyn Unfinished>> {
        std::mem::take(&mut self.begun)
    }

    /// Finishes the instruction in the middle of which the guest was left, as KVM does the rest of it with the
    /// next KVM_RUN, over whatever the registers hold then (`complete_userspace_io`). What it still reads is
    /// ones, and what it writes reaches nobody, but noted writes of other vCPUs go to `noted` as ever. False
    /// if it does not come to an end.
    pub fn finish(&mut self, noted: &mut dyn FnMut(Place, &[u8])) -> bool {
        self.finish_with(noted, &mut |exit| {
            if let Exit::PortRead { data, .. } | Exit::MemoryRead(_, data) = exit {
                data.fill(0xff);
            }
        })
    }

    /// The same, but each access that is left over goes to `serve`: the guest goes on later.
    pub fn finish_with(
        &mut self,
        noted: &mut dyn FnMut(Place, &[u8]),
        serve: &mut dyn FnMut(Exit<'_>),
    ) -> bool {
        self.stop.set(true);
        (0..MOST_LEFT_OVER).any(|_| match self.run(noted) {
            Exit::Interrupted => true,
            exit => {
                serve(exit);
                false
            }
        })
    }

    /// Runs until the guest needs us. Writes that the kernel noted down meanwhile go to `noted` first.
    pub fn run(&mut self, noted: &mut dyn FnMut(Place, &[u8])) -> Exit<'_> {
        let reason = self.enter();
        self.ring.drain(&mut self.fd, noted);
        match reason {
            Reason::PortRead => self.port_exit(true),
            Reason::PortWrite => self.port_exit(false),
            Reason::MemoryRead(address, len) => Exit::MemoryRead(address, &mut self.mmio_data()[..len]),
            Reason::MemoryWrite(address, len) => Exit::MemoryWrite(address, &self.mmio_data()[..len]),
            Reason::EndOfInterrupt(vector) => Exit::EndOfInterrupt(vector),
            Reason::Interrupted => Exit::Interrupted,
            Reason::Shutdown => Exit::Shutdown,
            Reason::Debug(exit) => Exit::Debug(exit),
            Reason::Failed(why) => Exit::Failed(why),
        }
    }

    fn enter(&mut self) -> Reason {
        let id = self.id;
        match self.fd.run() {
            Ok(VcpuExit::IoIn(..)) => Reason::PortRead,
            Ok(VcpuExit::IoOut(..)) => Reason::PortWrite,
            Ok(VcpuExit::MmioRead(address, data)) => Reason::MemoryRead(GuestAddress(address), data.len()),
            Ok(VcpuExit::MmioWrite(address, data)) => Reason::MemoryWrite(GuestAddress(address), data.len()),
            Ok(VcpuExit::IoapicEoi(vector)) => Reason::EndOfInterrupt(vector),
            Ok(VcpuExit::Intr) => Reason::Interrupted,
            Ok(VcpuExit::Shutdown) => Reason::Shutdown,
            Ok(VcpuExit::Debug(exit)) => Reason::Debug(DebugExit {
                vcpu: id,
                pc: exit.pc,
                exception: exit.exception,
                dr6: exit.dr6,
            }),
            Ok(VcpuExit::FailEntry(reason, _)) => {
                Reason::Failed(format!("The CPU refuses to enter vCPU {id} (reason {reason:#x})"))
            }
            Ok(VcpuExit::InternalError) => Reason::Failed(self.internal_error()),
            Ok(other) => Reason::Failed(format!(
                "KVM stops vCPU {id} with an exit it should not make: {other:?}"
            )),
            Err(errno) if matches!(errno.errno(), libc::EINTR | libc::EAGAIN) => Reason::Interrupted,
            Err(errno) => Reason::Failed(format!("KVM cannot run vCPU {id}: {errno}")),
        }
    }

    /// The data of a memory exit in the kvm_run page.
    fn mmio_data(&mut self) -> &mut [u8; 8] {
        // SAFETY: callers saw KVM_EXIT_MMIO, for which KVM filled in the union's `mmio`.
        unsafe { &mut self.fd.get_kvm_run().__bindgen_anon_1.mmio.data }
    }

    /// The I/O exit in the kvm_run page, as the unit size is not in what kvm-ioctls returns.
    fn port_exit(&mut self, read: bool) -> Exit<'_> {
        let page_bytes = 4096;
        let run = self.fd.get_kvm_run();
        // SAFETY: KVM filled in the union's `io` for this exit reason (KVM_EXIT_IO).
        let io = unsafe { run.__bindgen_anon_1.io };
        let (size, len) = (
            usize::from(io.size).max(1),
            usize::from(io.size) * io.count as usize,
        );
        let offset = io.data_offset as usize;
        let data = if offset >= page_bytes && len <= page_bytes {
            let start = std::ptr::from_mut(run).cast::<u8>().wrapping_add(offset);
            // SAFETY: KVM puts the data in the page behind kvm_run (KVM_PIO_PAGE_OFFSET) and never more
            // than that page; both belong to the mapping that `self.fd` owns, unused until the next `run`.
            unsafe { slice::from_raw_parts_mut(start, len) }
        } else {
            &mut []
        };
        match read {
            true => Exit::PortRead {
                port: io.port,
                size,
                data,
            },
            false => Exit::PortWrite {
                port: io.port,
                size,
                data,
            },
        }
    }

    fn internal_error(&mut self) -> String {
        // SAFETY: KVM filled in the union's `internal` for this exit reason (KVM_EXIT_INTERNAL_ERROR).
        let suberror = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.internal.suberror };
        let rip = self.fd.get_regs().map(|regs| regs.rip).unwrap_or(0);
        let what = if suberror == 1 {
            "cannot emulate the instruction"
        } else {
            "internal error"
        };
        format!(
            "KVM stops vCPU {}: {what} at {rip:#x} (suberror {suberror})",
            self.id
        )
    }
}

fn set_msrs(fd: &VcpuFd, values: &[(u32, u64)]) -> Result<(), kvm_ioctls::Error> {
    let entries: Vec<_> = values
        .iter()
        .map(|&(index, data)| kvm_msr_entry {
            index,
            data,
            ..Default::default()
        })
        .collect();
    let msrs = Msrs::from_entries(&entries).map_err(|_| kvm_ioctls::Error::new(libc::EINVAL))?;
    match fd.set_msrs(&msrs)? {
        written if written == entries.len() => Ok(()),
        _ => Err(kvm_ioctls::Error::new(libc::EINVAL)),
    }
}

/// All vCPUs of a guest before their threads have them.
pub fn all(vm: &Vm, system: &System, supported: &CpuId, cpus: u32) -> Result<Vec<Vcpu>, VcpuError> {
    (0..cpus)
        .map(|id| Vcpu::new(vm, system, supported, id, cpus))
        .collect()
}
