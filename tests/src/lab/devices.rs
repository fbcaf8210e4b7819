//! The devices of the lab machine, a row each: a new device under test is one more.

/// A device to pass through.
#[derive(Debug)]
pub(crate) struct Device {
    /// Its functions on the lab host.
    pub(crate) functions: &'static [&'static str],
    /// Modules that a guest loads for it.
    pub(crate) drivers: &'static [&'static str],
    /// What follows `-` in QEMU's options for it, and before it those of the port or bridge that it is behind.
    /// `{disk}`, `{stick}` and `{rom}` are files.
    pub(crate) options: &'static [&'static str],
}

impl Device {
    /// The first of its functions, for most the only one.
    pub(crate) fn at(&self) -> &'static str {
        self.functions[0]
    }

    /// Whether it is on another bus than the first.
    pub(super) fn is_behind_port(&self) -> bool {
        !self.at().starts_with("0000:00:")
    }
}

/// An Intel 82576: MSI-X, MSI, a function-level reset and virtual functions.
pub(crate) const NIC: Device = Device {
    functions: &["0000:01:00.0"],
    drivers: &["igb"],
    options: &[
        "device pcie-root-port,id=rp1,chassis=1,slot=1",
        "netdev user,id=net0",
        "device igb,id=nic,netdev=net0,bus=rp1,mac=52:54:00:11:22:33,romfile=",
    ],
};

/// An NVMe drive.
pub(crate) const NVME: Device = Device {
    functions: &["0000:02:00.0"],
    drivers: &["nvme"],
    options: &[
        "device pcie-root-port,id=rp2,chassis=2,slot=2",
        "drive if=none,id=disk,format=raw,file={disk}",
        "device nvme,drive=disk,serial=abc,bus=rp2",
    ],
};

/// A conventional PCI NIC behind a bridge, with a wire and nothing else.
pub(crate) const RTL8139: Device = Device {
    functions: &["0000:04:00.0"],
    drivers: &["8139cp"],
    options: &[
        "device pcie-root-port,id=rp3,chassis=3,slot=3",
        "device pcie-pci-bridge,id=bridge,bus=rp3",
        "netdev user,id=net1,net=10.0.3.0/24",
        "device rtl8139,netdev=net1,bus=bridge,romfile=",
    ],
};

/// A NIC with two functions in one IOMMU group, the first with a ROM; neither can reset itself. Were its port
/// faster, the kernel would wait after a bus reset for a link whose state QEMU does not show. Function 0 comes last: in a
/// running machine it makes the kernel look for the other, which says itself that it is not alone: a group is chosen
/// before Linux knows by its number (`pci_scan_slot`).
pub(crate) const E1000E: Device = Device {
    functions: &["0000:05:00.0", "0000:05:00.1"],
    drivers: &["e1000e"],
    options: &[
        "device pcie-root-port,id=rp4,chassis=4,slot=4,x-speed=5",
        "netdev user,id=net3,net=10.0.5.0/24",
        "device e1000e,netdev=net3,bus=rp4,addr=0.1,multifunction=on,romfile=",
        "netdev user,id=net2,net=10.0.4.0/24",
        "device e1000e,netdev=net2,bus=rp4,addr=0.0,multifunction=on,romfile={rom}",
    ],
};

/// A USB controller with MSI and no MSI-X, and a stick.
pub(crate) const XHCI: Device = Device {
    functions: &["0000:06:00.0"],
    drivers: &["xhci_pci", "usb_storage", "sd_mod"],
    options: &[
        "device pcie-root-port,id=rp5,chassis=5,slot=5",
        "device qemu-xhci,id=usb,bus=rp5,msi=on,msix=off",
        "drive if=none,id=stick,format=raw,file={stick}",
        "device usb-storage,drive=stick,bus=usb.0",
    ],
};

/// The teaching device: a wire and DMA, no reset, and no driver but one for user space.
pub(crate) const EDU: Device = Device {
    functions: &["0000:00:10.0"],
    drivers: &["uio_pci_generic"],
    options: &["device edu,addr=0x10,dma_mask=0xffffffffffffffff"],
};

/// Counts accesses to its memory, which is less than a page, and to its ports.
pub(crate) const TESTDEV: Device = Device {
    functions: &["0000:00:11.0"],
    drivers: &[],
    options: &["device pci-testdev,addr=0x11"],
};

/// A graphics card.
pub(crate) const VGA: Device = Device {
    functions: &["0000:00:12.0"],
    drivers: &["bochs"],
    options: &["device VGA,addr=0x12"],
};

/// A sound card.
pub(crate) const SOUND: Device = Device {
    functions: &["0000:00:13.0"],
    drivers: &["snd_hda_codec_generic", "snd_pcm_oss", "snd_hda_intel"],
    options: &[
        "audiodev none,id=silence",
        "device intel-hda,id=hda,addr=0x13",
        "device hda-duplex,bus=hda.0,audiodev=silence",
    ],
};

/// Memory that other devices can reach.
pub(crate) const SHARED_MEMORY: Device = Device {
    functions: &["0000:00:14.0"],
    drivers: &[],
    options: &[
        "object memory-backend-ram,id=shared,size=4M",
        "device ivshmem-plain,memdev=shared,addr=0x14",
    ],
};

/// A NIC that reports errors. QEMU's other PCI Express devices either have no Advanced Error Reporting or cannot be
/// told to send what they found, since the enable bits in their device control are read-only.
pub(crate) const REPORTER: Device = Device {
    functions: &["0000:07:00.0"],
    drivers: &["virtio_pci", "virtio_net"],
    options: &[
        "device pcie-root-port,id=rp6,chassis=6,slot=6",
        "netdev user,id=net4,net=10.0.6.0/24",
        "device virtio-net-pci,id=reporter,netdev=net4,bus=rp6,aer=on,iommu_platform=on,disable-legacy=on,romfile=",
    ],
};

/// All of them. What is new comes last: bus numbers are given in this order.
pub(crate) const ALL: [&Device; 11] = [
    &NIC,
    &NVME,
    &RTL8139,
    &E1000E,
    &XHCI,
    &EDU,
    &TESTDEV,
    &VGA,
    &SOUND,
    &SHARED_MEMORY,
    &REPORTER,
];
