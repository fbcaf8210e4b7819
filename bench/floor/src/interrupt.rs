//! An interrupt on its shortest way: an eventfd, an irqfd, the guest's handler.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{hint, io};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::Args;
use kvm_bindings::{
    KVM_IRQ_ROUTING_MSI, KVM_MAX_CPUID_ENTRIES, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_msi,
};
use kvm_ioctls::{Kvm, VcpuExit};
use serde::Serialize;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};

use crate::guest::{CODE, Guest, virtual_machine};
use crate::ram::{Pages, Ram};

/// A guest that waits for interrupts by message, and counts them.
#[derive(Debug, Args)]
pub struct Interrupts {
    /// How many interrupts, of which the median is told.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
}

/// What an interrupt took, in nanoseconds, from the write to the eventfd until the guest's handler has counted it.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// The median of all.
    interrupt: u64,
}

/// The word in memory that the handler counts in, and one that is 1 when the guest waits.
const COUNTED: usize = 0x900;
const WAITS: usize = 0x904;

/// Bytes of memory.
const LEN: usize = 1 << 20;
const HANDLER: usize = 0x1100;
const VECTOR: usize = 0x24;
/// The port at which the last interrupt leaves.
const LAST: u16 = 0xf4;

/// 16-bit code that says that it waits, and does.
const WAIT: &[u8] = &[
    0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, // xor ax, ax; mov ds, ax; mov ss, ax
    0xbc, 0x00, 0x08, // mov sp, 0x800
    0xc6, 0x06, 0x04, 0x09, 0x01, // mov byte [WAITS], 1
    0xfb, // sti
    0xf4, 0xeb, 0xfd, // again: hlt; jmp again
];

/// Counts, tells the local APIC by its MSR, and leaves at the last.
fn handler(count: u32) -> Vec<u8> {
    [
        &[0x66, 0xff, 0x06, 0x00, 0x09][..],         // inc dword [COUNTED]
        &[0x66, 0xb9, 0x0b, 0x08, 0x00, 0x00],       // mov ecx, x2APIC EOI
        &[0x66, 0x31, 0xc0, 0x66, 0x31, 0xd2],       // xor eax, eax; xor edx, edx
        &[0x0f, 0x30, 0x66, 0x81, 0x3e, 0x00, 0x09], // wrmsr; cmp dword [COUNTED],
        &count.to_le_bytes(),
        &[0x75, 0x02, 0xe6, LAST as u8, 0xcf], // jne over; out LAST, al; over: iret
    ]
    .concat()
}

/// What is too long, on the slowest machine.
const LIMIT: Duration = Duration::from_secs(60);

impl Interrupts {
    /// Interrupts a guest, and waits each time until its handler has counted.
    ///
    /// # Errors
    /// When the kernel refuses something, or an interrupt does not arrive.
    pub fn run(&self) -> Result<Latency> {
        let ram = self.ram().context("cannot get memory for the guest")?;
        let (kvm, vm) = virtual_machine()?;
        vm.create_irq_chip()
            .context("cannot make interrupt controllers")?;
        let mut guest = Guest::new(vm, &ram, [(0, LEN, 0)].into_iter())?;
        let event = EventFd::new(EFD_CLOEXEC).context("cannot make an eventfd")?;
        take_messages(&kvm, &guest, &event).context("cannot route an interrupt to the guest")?;
        let guest = thread::spawn(move || match guest.run()? {
            VcpuExit::IoOut(LAST, _) => Ok(()),
            exit => bail!("the guest left with {exit:?}"),
        });
        let took = self.took(&ram, &event, &guest);
        if took.is_ok() || guest.is_finished() {
            guest.join().map_err(|_| anyhow!("the guest's thread ended"))??;
        }
        let mut took = took?;
        took.sort_unstable();
        Ok(Latency {
            interrupt: u64::try_from(took[took.len() / 2].as_nanos())?,
        })
    }

    /// Memory with the guest's code and its table of interrupts.
    fn ram(&self) -> io::Result<Arc<Ram>> {
        let mut ram = Ram::new(LEN, Pages::Ordinary)?;
        for (at, code) in [(CODE, WAIT), (HANDLER, &handler(self.count))] {
            ram.bytes()[at..at + code.len()].copy_from_slice(code);
        }
        // An entry of the table of real mode: offset, segment (SDM vol. 3 §21.1.4).
        ram.bytes()[4 * VECTOR..][..4].copy_from_slice(&(HANDLER as u32).to_le_bytes());
        Ok(Arc::new(ram))
    }

    fn took(&self, ram: &Ram, event: &EventFd, guest: &JoinHandle<Result<()>>) -> Result<Vec<Duration>> {
        ensure!(
            comes(ram, WAITS, 1, guest),
            "the guest did not come to wait in {LIMIT:?}"
        );
        let took = |number| {
            let begin = Instant::now();
            event.write(1)?;
            ensure!(
                comes(ram, COUNTED, number, guest),
                "interrupt {number} did not arrive in {LIMIT:?}"
            );
            Ok(begin.elapsed())
        };
        (1..=self.count).map(took).collect()
    }
}

/// The eventfd is the first interrupt line, and that a message to the CPU, whose local APIC is an x2APIC and switched on (SDM
/// vol. 3 §12.4.7.1, §12.12.1).
fn take_messages(kvm: &Kvm, Guest { cpu, vm, .. }: &Guest, event: &EventFd) -> Result<()> {
    cpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
    let mut special = cpu.get_sregs()?;
    special.apic_base |= 1 << 10 | 1 << 11;
    cpu.set_sregs(&special)?;
    let mut apic = cpu.get_lapic()?;
    for (at, byte) in [-1, 1, 0, 0].into_iter().enumerate() {
        apic.regs[0xf0 + at] = byte;
    }
    cpu.set_lapic(&apic)?;
    vm.set_gsi_routing(&message()?)?;
    Ok(vm.register_irqfd(event, 0)?)
}

/// The first interrupt line as a message to the first CPU.
fn message() -> Result<KvmIrqRouting> {
    let mut entry = kvm_irq_routing_entry {
        gsi: 0,
        type_: KVM_IRQ_ROUTING_MSI,
        ..Default::default()
    };
    entry.u.msi = kvm_irq_routing_msi {
        address_lo: 0xfee0_0000,
        data: VECTOR as u32,
        ..Default::default()
    };
    KvmIrqRouting::from_entries(&[entry]).map_err(|error| anyhow!("{error:?}"))
}

/// Waits until the guest has written this to memory. False where it ends before, or is late.
fn comes(ram: &Ram, at: usize, wanted: u32, guest: &JoinHandle<Result<()>>) -> bool {
    let end = Instant::now() + LIMIT;
    while ram.mapping().word(at) != wanted {
        if guest.is_finished() || Instant::now() > end {
            // The last one may have been counted just before the guest ended.
            return ram.mapping().word(at) == wanted;
        }
        hint::spin_loop();
    }
    true
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn interrupts_arrive_one_by_one() {
        if File::options().read(true).write(true).open("/dev/kvm").is_err() {
            eprintln!("skipped: /dev/kvm cannot be opened");
            return;
        }
        let latency = Interrupts { count: 50 }.run().expect("a guest");
        assert!(latency.interrupt > 0);
    }
}
