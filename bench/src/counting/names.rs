//! Names for the numbers that the kernel counts by.

/// KVM_EXIT_* in linux/kvm.h.
pub(super) fn userspace_exit(reason: u64) -> String {
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
pub(super) fn port(number: u64) -> String {
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

/// SVM_EXIT_* in asm/svm.h, of AMD's CPUs.
pub fn svm_exit(reason: u64) -> String {
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

/// EXIT_REASON_* in asm/vmx.h, of Intel's CPUs (SDM volume 3, appendix C).
pub fn vmx_exit(reason: u64) -> String {
    let name = match reason {
        0 => "exception or NMI",
        1 => "interrupt",
        7 => "interrupt window",
        10 => "CPUID",
        12 => "HLT",
        28 => "control register",
        30 => "I/O port",
        31 => "read MSR",
        32 => "write MSR",
        40 => "PAUSE",
        48 => "EPT violation",
        49 => "EPT misconfiguration",
        52 => "preemption timer",
        54 => "WBINVD",
        55 => "XSETBV",
        _ => return format!("exit {reason}"),
    };
    name.to_owned()
}

/// The low 16 bits: type and number of the request.
pub(super) fn ioctl(command: u64) -> String {
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
