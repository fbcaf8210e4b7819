//! The initial file systems that guests start from, a row each. All of them have busybox and the same first program
//! (`resources/lab/guest-init.sh`); they differ in what else is there.

/// One of them.
pub(crate) struct Initramfs {
    /// As `GuestConfig::initrd` names it.
    pub(crate) name: &'static str,
    /// Modules that `load` inserts in every case.
    pub(crate) drivers: &'static [&'static str],
    /// Modules that `load NAME` inserts; those of all devices of the lab machine where there is a `*`.
    pub(crate) choices: &'static [&'static str],
    /// Dynamic programs of the lab's tree; the libraries they need come with them.
    pub(crate) programs: &'static [&'static str],
    pub(crate) files: &'static [Files],
}

/// Other files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    /// This program, as `lab`.
    Lab,
    /// The binary under test, where Strait is under test.
    Strait,
    /// A kernel and the named initial file system, where the lab host has them: a guest of a guest is started by the
    /// same command line as a guest.
    Guest(&'static str),
    /// What QEMU needs to boot a kernel.
    Firmware,
    /// A library that a thread of iperf3 loads when it is cancelled, so that the program does not name it.
    ThreadLibrary,
}

/// QEMU, and its firmware.
pub(crate) const QEMU: &str = "usr/bin/qemu-system-x86_64";
pub(crate) const FIRMWARE: [&str; 3] = [
    "usr/share/qemu/kvmvapic.bin",
    "usr/share/qemu/linuxboot_dma.bin",
    "usr/share/seabios/bios-256k.bin",
];

/// What guests load their NIC with, and its other end.
pub(crate) const STREAM_PROGRAM: &str = "usr/bin/iperf3";

/// Drivers of the NIC and of its virtual functions.
pub(crate) const NIC_DRIVERS: &[&str] = &["igb", "igbvf"];

const PLAIN: Initramfs = Initramfs {
    name: "initramfs",
    drivers: NIC_DRIVERS,
    choices: &[],
    programs: &[],
    files: &[],
};

/// The one with the drivers of all devices of the zoo, for that machine alone.
pub(crate) const ZOO: &str = "zoo";

/// The first is made for every kernel, the others for the lab host's.
pub(crate) const ALL: [Initramfs; 9] = [
    PLAIN,
    Initramfs {
        name: "devices",
        drivers: &[],
        choices: &["*", "crc32c_generic", "ext4", "button", "evdev"],
        programs: &["usr/sbin/ethtool"],
        ..PLAIN
    },
    Initramfs {
        name: ZOO,
        drivers: &[],
        ..PLAIN
    },
    Initramfs {
        name: "probe",
        drivers: &["vfio_iommu_type1", "vfio_pci"],
        files: &[Files::Lab],
        ..PLAIN
    },
    Initramfs {
        name: "kexec",
        programs: &["usr/sbin/kexec"],
        files: &[Files::Guest("initramfs")],
        ..PLAIN
    },
    Initramfs {
        name: "bench",
        programs: &[STREAM_PROGRAM],
        files: &[Files::ThreadLibrary],
        ..PLAIN
    },
    Initramfs {
        name: "inner",
        drivers: &[],
        choices: &["igb", "igbvf", "nvme"],
        ..PLAIN
    },
    Initramfs {
        name: "nested",
        drivers: HYPERVISOR,
        choices: &["igb", "igbvf", "nvme"],
        files: &[Files::Guest("inner"), Files::Strait],
        ..PLAIN
    },
    Initramfs {
        name: "nested-qemu",
        drivers: HYPERVISOR,
        choices: &["igb", "igbvf", "nvme"],
        programs: &[QEMU],
        files: &[Files::Guest("inner"), Files::Strait, Files::Firmware],
    },
];

const HYPERVISOR: &[&str] = &["kvm_amd", "vfio_iommu_type1", "vfio_pci"];
