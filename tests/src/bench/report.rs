//! The table for people and the file for programs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::figures::{Figures, Runs};
use crate::vmm::Vmm;

/// How many keys of a histogram are shown; the file has all.
const SHOWN: usize = 8;

/// Prints medians and, with both VMMs, their ratio.
pub(super) fn print(figures: &Figures) {
    let rounds = figures
        .vmms
        .values()
        .map(|runs| runs.rounds.len())
        .max()
        .unwrap_or(0);
    println!("\nMedians of {rounds} rounds: 1 CPU, 512 MiB, igb passed through, start to power-off\n");
    println!("{:38} {:>12} {:>12} {:>8}", "", "strait", "qemu", "ratio");
    row(figures, "wall time, s", 2, |runs| {
        runs.median(|round| round.wall_s)
    });
    row(figures, "guest uptime at init, s", 2, |runs| {
        runs.median(|round| round.init_s)
    });
    row(figures, "private memory beyond guest RAM, KiB", 0, |runs| {
        runs.process.private_kib as f64
    });
    row(figures, "threads", 0, |runs| runs.process.threads as f64);
    row(figures, "binary, KiB", 0, |runs| {
        runs.process.binary_bytes as f64 / 1024.0
    });
    histogram(figures, "userspace exits", "userspace_exits", userspace_exit);
    histogram(figures, "port accesses", "pio_ports", port);
    histogram(figures, "KVM exits", "kvm_exits", svm_exit);
    histogram(figures, "ioctls", "ioctls", ioctl);
}

/// Writes every round.
pub(super) fn write(figures: &Figures, path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(figures).context("Cannot write the figures as JSON")?;
    fs::write(path, text).with_context(|| format!("Cannot write {}", path.display()))
}

fn histogram(figures: &Figures, title: &str, name: &str, label: fn(u64) -> String) {
    row(figures, title, 0, |runs| runs.count(name, None) as f64);
    for key in figures.keys(name).into_iter().take(SHOWN) {
        let number = match key.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => key.parse().ok(),
        };
        let text = number.map_or_else(|| key.clone(), label);
        row(figures, &format!("  {text}"), 0, |runs| {
            runs.count(name, Some(&key)) as f64
        });
    }
}

fn row(figures: &Figures, title: &str, digits: usize, figure: impl Fn(&Runs) -> f64) {
    let value = |vmm| figures.of(vmm).map(&figure);
    let (strait, qemu) = (value(Vmm::Strait), value(Vmm::Qemu));
    let show = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"));
    let ratio = match (strait, qemu) {
        (Some(strait), Some(qemu)) if qemu > 0.0 => format!("{:.2}", strait / qemu),
        _ => "-".to_owned(),
    };
    println!("{title:38} {:>12} {:>12} {ratio:>8}", show(strait), show(qemu));
}

/// KVM_EXIT_* in linux/kvm.h.
fn userspace_exit(reason: u64) -> String {
    let name = match reason {
        2 => "I/O port",
        5 => "halt",
        6 => "MMIO",
        7 => "interrupt window",
        8 => "shutdown",
        10 => "interrupted",
        24 => "system event",
        26 => "IOAPIC end of interrupt",
        29 => "read MSR",
        30 => "write MSR",
        _ => return format!("reason {reason}"),
    };
    name.to_owned()
}

/// The ports that a booting Linux touches.
fn port(number: u64) -> String {
    let name = match number {
        0x20 | 0x21 | 0xa0 | 0xa1 => "PIC",
        0x40..=0x43 => "PIT",
        0x60 | 0x64 => "keyboard controller",
        0x61 => "NMI status",
        0x70 | 0x71 => "RTC",
        0x80 => "delay",
        0x3f8..=0x3ff => "serial",
        0x510..=0x51b => "firmware configuration",
        0xcf8 => "PCI address",
        0xcfc..=0xcff => "PCI data",
        _ => return format!("{number:#x}"),
    };
    format!("{number:#x} {name}")
}

/// SVM_EXIT_* in asm/svm.h: the lab's CPU is an AMD one.
fn svm_exit(reason: u64) -> String {
    let name = match reason {
        0x00..=0x1f => "control register",
        0x60 => "interrupt",
        0x61 => "NMI",
        0x64 => "interrupt window",
        0x72 => "CPUID",
        0x77 => "PAUSE",
        0x78 => "HLT",
        0x7b => "I/O port",
        0x7c => "MSR",
        0x400 => "nested page fault",
        _ => return format!("exit {reason:#x}"),
    };
    name.to_owned()
}

/// The low 16 bits: type and number of the request.
fn ioctl(command: u64) -> String {
    let name = match command & 0xffff {
        0xae80 => "KVM_RUN",
        0xae67 => "KVM_REGISTER_COALESCED_MMIO",
        0xae6a => "KVM_SET_GSI_ROUTING",
        0xae76 => "KVM_IRQFD",
        0xae46 => "KVM_SET_USER_MEMORY_REGION",
        0xaea5 => "KVM_SIGNAL_MSI",
        0xae03 => "KVM_CHECK_EXTENSION",
        0x3b6e => "VFIO_DEVICE_SET_IRQS",
        0x3b71 => "VFIO_IOMMU_MAP_DMA",
        0x3b72 => "VFIO_IOMMU_UNMAP_DMA",
        low => return format!("{low:#06x}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ioctls_are_told_by_their_low_half() {
        assert_eq!(ioctl(0xae80), "KVM_RUN");
        assert_eq!(ioctl(0x4020_ae46), "KVM_SET_USER_MEMORY_REGION");
    }
}
