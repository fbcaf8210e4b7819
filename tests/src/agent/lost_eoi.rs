//! Frees the CPUs of the lab machine from interrupts that its emulation lost.
//!
//! A lab host that stood still was found with its CPUs asleep and one of them with its timer's vector in the
//! in-service register (ISR) of its local APIC, as `info lapic` of the monitor shows. Nobody wrote EOI for it,
//! so the APIC held back every vector of the same class and below, and the CPU slept for good. Linux writes EOI
//! first thing, and hardware does not do this: that QEMU's software SVM loses the interrupt on the way to its
//! handler is what is left, but it was not traced there. What such an interrupt needs is its EOI.
//!
//! It has freed none yet. A host that stood still later had two vectors pending, none in service and its CPUs
//! asleep with interrupts on: there this does not help. QEMU's SVM helpers change a CPU's `interrupt_request`
//! without its lock (svm_helper.c, `helper_vmrun` and `do_vmexit`), so the bit that another thread sets there
//! meanwhile can be lost, and with it the wake-up; that fits, but was not traced either.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_setaffinity};

/// How long a CPU sleeps at most.
const PERIOD: Duration = Duration::from_millis(500);

/// x2APIC MSRs, Intel SDM volume 3, table 12-6: EOI, and eight words of 32 vectors in service.
const EOI: u64 = 0x80b;
const IN_SERVICE: [u64; 8] = [0x810, 0x811, 0x812, 0x813, 0x814, 0x815, 0x816, 0x817];

/// Starts a watch on each CPU for the others: one that sleeps for good cannot look after itself. A lab
/// without x2APIC or with one CPU goes without.
pub(super) fn watch() {
    let cpus = (0..CpuSet::MAX_CPU).take_while(|cpu| msr_path(*cpu).is_some());
    let cpus: Vec<usize> = cpus.collect();
    for &watcher in &cpus {
        let others: Vec<usize> = cpus.iter().copied().filter(|cpu| *cpu != watcher).collect();
        thread::spawn(move || {
            let ended = watch_from(watcher, &others);
            ended.unwrap_or_else(|error| eprintln!("lab agent: no watch for lost interrupts: {error:#}"));
        });
    }
}

fn watch_from(watcher: usize, others: &[usize]) -> Result<()> {
    let mut here = CpuSet::new();
    here.set(watcher);
    sched_setaffinity(None, &here).context("Cannot stay on one CPU")?;
    while !others.is_empty() {
        for cpu in others {
            free(*cpu)?;
        }
        thread::sleep(PERIOD);
    }
    Ok(())
}

fn msr_path(cpu: usize) -> Option<String> {
    let path = format!("/dev/cpu/{cpu}/msr");
    fs::exists(&path).is_ok_and(|exists| exists).then_some(path)
}

/// Writes EOI for an interrupt that is in service while its CPU does something else.
///
/// The MSRs of another CPU are read by an interrupt to it. Linux writes EOI before it runs a handler and
/// takes no interrupt until then, so a bit that is seen from there is one that nobody will clear.
fn free(cpu: usize) -> Result<()> {
    let path = msr_path(cpu).context("A CPU has gone")?;
    let msrs = OpenOptions::new().read(true).write(true).open(&path);
    let msrs = msrs.with_context(|| format!("Cannot open {path}"))?;
    let mut value = [0; 8];
    for (word, msr) in IN_SERVICE.into_iter().enumerate() {
        if msrs.read_exact_at(&mut value, msr).is_err() {
            // xAPIC: the registers are not there.
            return Ok(());
        }
        let bits = u64::from_le_bytes(value);
        if bits != 0 {
            msrs.write_all_at(&[0; 8], EOI).context("Cannot write EOI")?;
            say(cpu, word * 32 + bits.trailing_zeros() as usize);
        }
    }
    Ok(())
}

/// Into the kernel's log, at a level that reaches the console.
fn say(cpu: usize, vector: usize) {
    let log = OpenOptions::new().write(true).open("/dev/kmsg");
    let line = format!("<3>lab: CPU {cpu} is freed from lost interrupt {vector}\n");
    let _ = log.and_then(|mut log| log.write_all(line.as_bytes()));
}
