//! The guest physical map and the I/O ports: where everything is, in order of address.
//!
//! ```text
//! 0             boot structures, then RAM; VGA hole and ACPI tables below 1 MiB
//! 0xC000_0000   32-bit MMIO window of PCI; it begins lower, and RAM ends there, if its BARs need it
//! 0xE000_0000   ECAM, 1 MiB for each of 256 buses
//! 0xFEC0_0000   I/O APIC, VT-d registers, local APICs and interrupt messages
//! 0xFFFB_C000   pages KVM needs on Intel hosts
//! 4 GiB         RAM that did not fit below, then the 64-bit MMIO window of PCI: see [`crate::placement`]
//! ```

use vm_memory::GuestAddress;

/// A range of guest physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first address inside.
    pub start: GuestAddress,
    /// Its length in bytes, which may be 0.
    pub len: u64,
}

impl Range {
    /// The addresses from `start` up to, and without, `end`.
    pub const fn new(start: u64, end: u64) -> Self {
        Self {
            start: GuestAddress(start),
            len: end - start,
        }
    }

    /// First address behind the range.
    pub const fn end(&self) -> GuestAddress {
        GuestAddress(self.start.0 + self.len)
    }

    /// Last address of the range, which must not be empty.
    pub const fn last(&self) -> GuestAddress {
        GuestAddress(self.end().0 - 1)
    }
}

const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;

/// Segment descriptors of the entry state.
pub const GDT: Range = Range::new(0x500, 0x600);
/// PVH start info with its memory map and module list.
pub const START_INFO: Range = Range::new(0x6000, 0x7000);
/// Linux's `boot_params`, which RSI points at when a bzImage starts.
pub const ZERO_PAGE: Range = Range::new(0x7000, 0x8000);
/// The stack a kernel starts with; it needs none, but a pointer into RAM is kinder than 0.
pub const BOOT_STACK: Range = Range::new(0x8000, 0x9000);
/// Page tables that map the first 4 GiB to themselves: one PML4, one PDPT, four page directories.
pub const PAGE_TABLES: Range = Range::new(0x9000, 0xf000);
/// The kernel's command line. Linux takes 2,047 bytes; a bzImage may ask for more, and gets up to these 64 KiB.
pub const CMDLINE: Range = Range::new(0x2_0000, 0x3_0000);
/// The end of conventional memory; a PC has its extended BIOS data area here.
pub const CONVENTIONAL_END: GuestAddress = GuestAddress(0x9_fc00);
/// ACPI tables, the RSDP first: it is searched for from here up to 1 MiB (ACPI 6.5 §5.2.5.1).
pub const ACPI_TABLES: Range = Range::new(0xe_0000, 0xf_fff0);
/// The place where a CPU that resets in real mode finds its first instruction (Intel SDM vol. 3 §10.1.4).
pub const RESET_VECTOR: Range = Range::new(0xf_fff0, 0x10_0000);
/// The memory that a PC's firmware takes: both of the above.
pub const FIRMWARE: Range = Range::new(ACPI_TABLES.start.0, RESET_VECTOR.end().0);
/// Kernels and everything else that is loaded goes here or above.
pub const HIGH_MEMORY: GuestAddress = GuestAddress(0x10_0000);
/// RAM below 4 GiB ends here at the latest.
pub const LOW_RAM_MAX: GuestAddress = MMIO_32[0].start;
/// Windows for BARs that cannot be above 4 GiB; the first that has room for all is taken. RAM below 4 GiB ends where it
/// starts.
pub const MMIO_32: [Range; 3] = [
    Range::new(3 * GIB, ECAM.start.0),
    Range::new(2 * GIB, ECAM.start.0),
    Range::new(GIB, ECAM.start.0),
];
/// Configuration space of every function, memory-mapped (PCIe 6.0 §7.2.2).
pub const ECAM: Range = Range::new(0xe000_0000, 0xf000_0000);
/// Registers of the I/O APIC, where every PC has its first one. The MADT tells it, too.
pub const IOAPIC: Range = Range::new(0xfec0_0000, 0xfec0_1000);
/// Registers of the VT-d unit, where Intel's chipsets and QEMU's q35 have theirs. The DMAR table tells it, too.
pub const VTD: Range = Range::new(0xfed9_0000, 0xfed9_1000);
/// Local APICs for reads, interrupt messages for writes; no IOMMU ever maps it.
pub const LOCAL_APIC: Range = Range::new(0xfee0_0000, 0xfef0_0000);
/// KVM's page for real mode without paging (KVM_SET_IDENTITY_MAP_ADDR).
pub const KVM_IDENTITY_MAP: GuestAddress = KVM_PAGES.start;
/// KVM's three pages for real mode's task state (KVM_SET_TSS_ADDR). Intel CPUs without unrestricted guests run real
/// mode as virtual-8086 mode, which needs one in the guest's memory.
pub const KVM_TSS: GuestAddress = GuestAddress(KVM_PAGES.start.0 + 4 * KIB);
/// Both of the above.
pub const KVM_PAGES: Range = Range::new(0xfffb_c000, 0xfffc_0000);
/// RAM that does not fit below [`LOW_RAM_MAX`] starts here or above.
pub const HIGH_RAM: GuestAddress = GuestAddress(4 * GIB);

/// The ranges above, which must not touch each other.
const MEMORY_MAP: [Range; 15] = [
    GDT,
    START_INFO,
    ZERO_PAGE,
    BOOT_STACK,
    PAGE_TABLES,
    CMDLINE,
    ACPI_TABLES,
    RESET_VECTOR,
    Range::new(HIGH_MEMORY.0, MMIO_32[2].start.0),
    MMIO_32[2],
    ECAM,
    IOAPIC,
    VTD,
    LOCAL_APIC,
    KVM_PAGES,
];

/// First port of the timer: a count for each channel, and the control word.
pub const PIT: u16 = 0x40;
/// The port with the gate and the output of the timer's third channel.
pub const SYSTEM_CONTROL: u16 = 0x61;
/// First port of the clock, from which Linux has the time of day (`mach_get_cmos_time`, arch/x86/kernel/rtc.c).
pub const RTC: u16 = 0x70;
/// The command and status port of the keyboard controller.
pub const KEYBOARD_CONTROLLER: u16 = 0x64;
/// First port of the serial console, which `console=ttyS0` and `earlyprintk=ttyS0` expect here without being told.
pub const COM1: u16 = 0x3f8;
/// The panic port, where QEMU has it.
pub const PVPANIC: u16 = 0x505;
/// ACPI sleep control; sleep status is the next port.
pub const SLEEP_REGISTERS: u16 = 0x600;
/// PCI's configuration address and data ports (PCI 3.0 §3.2.2.3.2). Linux tries them before it knows of ECAM.
pub const PCI_CONFIG: u16 = 0xcf8;
/// Ports for PCI devices, clear of everything above: bridges hand out ports by 4 KiB, and the first of these are
/// the motherboard's.
pub const PCI_PORTS: Range = Range::new(0x1000, 0x1_0000);

/// First port and number of ports of each device.
const PORT_MAP: [Range; 8] = [
    port_range(PIT, 4),
    port_range(SYSTEM_CONTROL, 1),
    port_range(KEYBOARD_CONTROLLER, 1),
    port_range(RTC, 2),
    port_range(COM1, 8),
    port_range(PVPANIC, 1),
    port_range(SLEEP_REGISTERS, 2),
    port_range(PCI_CONFIG, 8),
];

/// I/O APIC pin of the power button: one of a PC's first serial ports, of which there is only one.
pub const POWER_BUTTON_IRQ: u8 = 3;
/// I/O APIC pin of the serial console.
pub const COM1_IRQ: u8 = 4;
/// First of the I/O APIC pins that PCI's INTx wires share. A PC has them behind ISA's 16 interrupts; the only one of
/// these here is the console's, and Linux makes ten accesses to each pin that there is.
pub const PCI_FIRST_GSI: u8 = COM1_IRQ + 1;
/// Number of these pins.
pub const PCI_GSIS: u8 = 8;

const _: () = {
    assert!(disjoint(&MEMORY_MAP) && disjoint(&PORT_MAP));
    assert!(MMIO_32[2].start.0 < MMIO_32[1].start.0 && MMIO_32[1].start.0 < MMIO_32[0].start.0);
    assert!(MEMORY_MAP[MEMORY_MAP.len() - 1].end().0 <= HIGH_RAM.0);
    assert!(PORT_MAP[PORT_MAP.len() - 1].end().0 <= PCI_PORTS.start.0);
    assert!(CMDLINE.end().0 <= CONVENTIONAL_END.0 && FIRMWARE.end().0 <= HIGH_MEMORY.0);
    assert!(ECAM.len == 256 << 20 && ECAM.start.0.is_multiple_of(ECAM.len));
    assert!(PAGE_TABLES.len == 6 * 4 * KIB && PAGE_TABLES.start.0.is_multiple_of(4 * KIB));
};

/// First address behind the RAM below 4 GiB of a guest with `memory_bytes`, when `mmio_32` is the window there.
pub fn low_ram_end(memory_bytes: u64, mmio_32: Range) -> GuestAddress {
    GuestAddress(memory_bytes.min(mmio_32.start.0))
}

/// The I/O APIC pin of INTx wire `pin` (0 is INTA) of `device` on bus 0. The swizzle spreads neighbours
/// over all pins, as on q35; it begins with device 1, the first root port, so that a machine with one device has no
/// pin in between.
pub const fn intx_gsi(device: u8, pin: u8) -> u8 {
    PCI_FIRST_GSI + (device + pin + PCI_GSIS - 1) % PCI_GSIS
}

const fn port_range(first: u16, count: u64) -> Range {
    Range::new(first as u64, first as u64 + count)
}

const fn disjoint(ranges: &[Range]) -> bool {
    let mut i = 1;
    while i < ranges.len() {
        if ranges[i - 1].end().0 > ranges[i].start.0 {
            return false;
        }
        i += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_ram_ends_at_the_hole() {
        assert_eq!(low_ram_end(64 << 20, MMIO_32[0]), GuestAddress(64 << 20));
        assert_eq!(low_ram_end(4 * GIB, MMIO_32[0]), LOW_RAM_MAX);
        assert_eq!(low_ram_end(4 * GIB, MMIO_32[1]), GuestAddress(2 * GIB));
    }

    #[test]
    fn intx_wires_stay_on_the_io_apic() {
        assert_eq!(intx_gsi(1, 0), 5);
        assert_eq!(intx_gsi(31, 3), 6);
        assert!((0..32).all(|device| (0..4).all(|pin| (5..13).contains(&intx_gsi(device, pin)))));
    }
}
