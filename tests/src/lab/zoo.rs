//! One of each PCI device that QEMU has and that Debian's kernel drives, a row each. They are on a lab machine of their
//! own, whose host never drives them.
//!
//! Not here, and why: `piix3-ide` and `piix4-ide` have their registers at the PC's fixed ports, which no host can hand
//! on; `mptsas1068` shows Debian's driver no drive, not even in a guest of QEMU's that has it without VFIO; `pvscsi`
//! writes completions past the IOMMU (QEMU 10.0, `pvscsi_cmp_ring_put` in hw/scsi/vmw_pvscsi.c), into the lab host's
//! memory; `virtio-balloon` is refused by its driver behind an IOMMU, whoever runs the guest (`virtballoon_validate`
//! takes VIRTIO_F_ACCESS_PLATFORM away), and bypasses it otherwise; the kernel's own test of `virtio-crypto`'s cipher
//! does not end, under QEMU neither; `pci-ohci` gives up in the middle of a transfer, in a guest of QEMU's too
//! (`ohci_die` in hw/usb/hcd-ohci.c), and then raises its wire without its status bit, so that the host gives up the
//! line; `vmware-svga` cannot be beside another card with VGA's memory; `rocker`, `ctucan_pci`, `tpci200`,
//! `mioe3680_pci` and `pcm3680_pci` have no driver in Debian's kernel; `edu`, `pci-testdev` and `ivshmem-plain` are
//! driven by hand on the usual machine (devices.rs); `virtio-9p-pci`, `virtio-iommu-pci`, `virtio-mem-pci` and
//! `virtio-pmem-pci` belong to the machine that they are on.

/// A device, alone in its slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inhabitant {
    /// As QEMU calls it.
    pub(crate) name: &'static str,
    pub(crate) family: Family,
    /// Modules of the guest, in the order in which they are loaded.
    pub(crate) drivers: &'static [&'static str],
    /// QEMU's options for it. `{at}` is its slot, `{n}` a number of its own, `{file}` a file of its own.
    pub(crate) options: &'static [&'static str],
    /// What QEMU's model itself does not do, whoever runs the guest.
    pub(crate) but: Option<But>,
}

/// What is proven of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// Pings are answered, and data arrive whole.
    Nic,
    /// Data are written and read back.
    Drive,
    /// A sound is played.
    Sound,
    /// The picture is written and read back.
    Display,
    /// So many serial ports write what was typed.
    Serial(u32),
    /// A channel writes what was typed.
    Channel,
    /// What it is for, by a command of its own.
    Other(&'static str),
}

impl Family {
    /// Where the kernel lists what the driver makes of it, a folder of `/sys/class`.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Nic => "net",
            Self::Drive => "block",
            Self::Sound => "sound",
            Self::Display => "graphics",
            Self::Serial(_) => "tty",
            Self::Channel => "virtio-ports",
            Self::Other(_) => "",
        }
    }
}

/// What to leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum But {
    /// Its driver asks for no interrupt, or this use of it causes none.
    NoInterrupt,
}

const fn nic(
    name: &'static str,
    drivers: &'static [&'static str],
    options: &'static [&'static str],
) -> Inhabitant {
    Inhabitant {
        name,
        family: Family::Nic,
        drivers,
        options,
        but: None,
    }
}

const fn drive(
    name: &'static str,
    drivers: &'static [&'static str],
    options: &'static [&'static str],
) -> Inhabitant {
    Inhabitant {
        name,
        family: Family::Drive,
        drivers,
        options,
        but: None,
    }
}

const fn sound(
    name: &'static str,
    drivers: &'static [&'static str],
    options: &'static [&'static str],
) -> Inhabitant {
    Inhabitant {
        name,
        family: Family::Sound,
        drivers,
        options,
        but: None,
    }
}

const fn display(
    name: &'static str,
    drivers: &'static [&'static str],
    options: &'static [&'static str],
) -> Inhabitant {
    Inhabitant {
        name,
        family: Family::Display,
        drivers,
        options,
        but: Some(But::NoInterrupt),
    }
}

const fn other(
    name: &'static str,
    drivers: &'static [&'static str],
    options: &'static [&'static str],
    command: &'static str,
) -> Inhabitant {
    Inhabitant {
        name,
        family: Family::Other(command),
        drivers,
        options,
        but: None,
    }
}

impl Inhabitant {
    const fn without_interrupt(mut self) -> Self {
        self.but = Some(But::NoInterrupt);
        self
    }
}

const NET: &str = "netdev user,id=net{n},net=10.1.{n}.0/24";
const FILE: &str = "drive if=none,id=drive{n},format=raw,file={file}";
const SCSI_DISK: &str = "device scsi-hd,drive=drive{n},bus=hba{n}.0";
const USB_DISK: &str = "device usb-storage,drive=drive{n},bus=usb{n}.0";
const SILENCE: &str = "audiodev none,id=audio{n}";

const USB: [&str; 2] = ["usb_storage", "sd_mod"];
const DSP: &str = "snd_pcm_oss";

/// The first go to slots of the root bus, the others behind root ports (housing.rs).
pub(crate) const ALL: [Inhabitant; 42] = [
    nic(
        "e1000",
        &["e1000"],
        &[NET, "device e1000,{at},netdev=net{n},romfile="],
    ),
    nic(
        "e1000-82544gc",
        &["e1000"],
        &[NET, "device e1000-82544gc,{at},netdev=net{n},romfile="],
    ),
    nic(
        "e1000-82545em",
        &["e1000"],
        &[NET, "device e1000-82545em,{at},netdev=net{n},romfile="],
    ),
    nic(
        "pcnet",
        &["pcnet32"],
        &[NET, "device pcnet,{at},netdev=net{n},romfile="],
    ),
    nic(
        "ne2k_pci",
        &["ne2k_pci"],
        &[NET, "device ne2k_pci,{at},netdev=net{n},romfile="],
    ),
    nic(
        "i82557b",
        &["e100"],
        &[NET, "device i82557b,{at},netdev=net{n},romfile="],
    ),
    nic(
        "tulip",
        &["tulip"],
        &[NET, "device tulip,{at},netdev=net{n},romfile="],
    ),
    nic(
        "rtl8139",
        &["8139cp"],
        &[NET, "device rtl8139,{at},netdev=net{n},romfile="],
    ),
    drive(
        "lsi53c895a",
        &["sym53c8xx", "sd_mod"],
        &[FILE, "device lsi53c895a,id=hba{n},{at},romfile=", SCSI_DISK],
    ),
    drive(
        "usb-ehci",
        &["ehci_pci", USB[0], USB[1]],
        &[FILE, "device usb-ehci,id=usb{n},{at}", USB_DISK],
    ),
    sound(
        "AC97",
        &[DSP, "snd_intel8x0"],
        &[SILENCE, "device AC97,{at},audiodev=audio{n}"],
    ),
    sound(
        "ES1370",
        &[DSP, "snd_ens1370"],
        &[SILENCE, "device ES1370,{at},audiodev=audio{n}"],
    ),
    sound(
        "intel-hda",
        &[DSP, "snd_hda_codec_generic", "snd_hda_intel"],
        &[
            SILENCE,
            "device intel-hda,id=hda{n},{at}",
            "device hda-duplex,bus=hda{n}.0,audiodev=audio{n}",
        ],
    ),
    display("VGA", &["bochs"], &["device VGA,{at},romfile="]),
    display("cirrus-vga", &["cirrus"], &["device cirrus-vga,{at},romfile="]),
    display("ati-vga", &["aty128fb"], &["device ati-vga,{at}"]),
    Inhabitant {
        name: "pci-serial",
        family: Family::Serial(1),
        drivers: &[],
        options: &[
            "chardev file,id=port{n}a,path={file}",
            "device pci-serial,{at},chardev=port{n}a",
        ],
        but: None,
    },
    other(
        "pci-ipmi-kcs",
        &["ipmi_devintf", "ipmi_si"],
        &[
            "device ipmi-bmc-sim,id=bmc{n}",
            "device pci-ipmi-kcs,{at},bmc=bmc{n}",
        ],
        BMC,
    )
    .without_interrupt(),
    other(
        "i6300esb",
        &["i6300esb"],
        &["device i6300esb,{at}"],
        "printf '.V' > /dev/watchdog0; grep i6300ESB /sys/class/watchdog/watchdog0/identity",
    )
    .without_interrupt(),
    nic(
        "e1000e",
        &["e1000e"],
        &[NET, "device e1000e,{at},netdev=net{n},romfile="],
    ),
    drive(
        "nvme",
        &["nvme"],
        &[
            FILE,
            "device nvme,{at},drive=drive{n},serial=n{n},max_ioqpairs=64,cmb_size_mb=16",
        ],
    ),
    drive(
        "qemu-xhci",
        &["xhci_pci", USB[0], USB[1]],
        &[FILE, "device qemu-xhci,id=usb{n},{at}", USB_DISK],
    ),
    // Behind root ports.
    nic("igb", &["igb"], &[NET, "device igb,{at},netdev=net{n},romfile="]),
    nic(
        "vmxnet3",
        &["vmxnet3"],
        &[NET, "device vmxnet3,{at},netdev=net{n},romfile="],
    ),
    nic(
        "virtio-net",
        &["virtio_pci", "virtio_net"],
        &[
            NET,
            "device virtio-net-pci,{at},netdev=net{n},romfile=,disable-legacy=on,iommu_platform=on",
        ],
    ),
    drive(
        "ich9-ahci",
        &["ahci", "sd_mod"],
        &[
            FILE,
            "device ich9-ahci,id=ahci{n},{at}",
            "device ide-hd,drive=drive{n},bus=ahci{n}.0",
        ],
    ),
    drive(
        "megasas",
        &["megaraid_sas", "sd_mod"],
        &[FILE, "device megasas,id=hba{n},{at},romfile=", SCSI_DISK],
    ),
    drive(
        "megasas-gen2",
        &["megaraid_sas", "sd_mod"],
        &[FILE, "device megasas-gen2,id=hba{n},{at},romfile=", SCSI_DISK],
    ),
    drive(
        "ufs",
        &["ufshcd_pci", "sd_mod"],
        &[
            FILE,
            "device ufs,id=ufs{n},{at},serial=n{n}",
            "device ufs-lu,drive=drive{n},bus=ufs{n}",
        ],
    ),
    drive(
        "sdhci-pci",
        &["sdhci_pci", "mmc_block"],
        &[
            FILE,
            "device sdhci-pci,id=sd{n},{at}",
            "device sd-card,drive=drive{n},bus=sd-bus",
        ],
    ),
    drive(
        "virtio-blk",
        &["virtio_pci", "virtio_blk"],
        &[
            FILE,
            "device virtio-blk-pci,{at},drive=drive{n},disable-legacy=on,iommu_platform=on",
        ],
    ),
    drive(
        "virtio-scsi",
        &["virtio_pci", "virtio_scsi", "sd_mod"],
        &[
            FILE,
            "device virtio-scsi-pci,id=hba{n},{at},disable-legacy=on,iommu_platform=on",
            SCSI_DISK,
        ],
    ),
    drive(
        "nec-usb-xhci",
        &["xhci_pci", USB[0], USB[1]],
        &[FILE, "device nec-usb-xhci,id=usb{n},{at}", USB_DISK],
    ),
    sound(
        "ich9-intel-hda",
        &[DSP, "snd_hda_codec_generic", "snd_hda_intel"],
        &[
            SILENCE,
            "device ich9-intel-hda,id=hda{n},{at}",
            "device hda-duplex,bus=hda{n}.0,audiodev=audio{n}",
        ],
    ),
    sound(
        "virtio-sound",
        &["virtio_pci", DSP, "virtio_snd"],
        &[
            SILENCE,
            "device virtio-sound-pci,{at},audiodev=audio{n},disable-legacy=on,iommu_platform=on",
        ],
    ),
    display("bochs-display", &["bochs"], &["device bochs-display,{at}"]),
    Inhabitant {
        but: None,
        ..display(
            "virtio-gpu",
            &["virtio_pci", "virtio_gpu"],
            &["device virtio-gpu-pci,{at},disable-legacy=on,iommu_platform=on"],
        )
    },
    Inhabitant {
        name: "pci-serial-2x",
        family: Family::Serial(2),
        drivers: &[],
        options: &[
            "chardev file,id=port{n}a,path={file}",
            "chardev null,id=port{n}b",
            "device pci-serial-2x,{at},chardev1=port{n}a,chardev2=port{n}b",
        ],
        but: None,
    },
    Inhabitant {
        name: "virtio-serial",
        family: Family::Channel,
        drivers: &["virtio_pci", "virtio_console"],
        options: &[
            "chardev file,id=port{n}a,path={file}",
            "device virtio-serial-pci,id=serial{n},{at},disable-legacy=on,iommu_platform=on",
            "device virtserialport,bus=serial{n}.0,chardev=port{n}a,name=zoo",
        ],
        but: None,
    },
    other(
        "pvpanic",
        &["pvpanic_pci"],
        &["device pvpanic-pci,{at}"],
        "grep . $d/capability",
    )
    .without_interrupt(),
    other(
        "virtio-rng",
        &["virtio_pci", "virtio_rng"],
        &[
            "object rng-random,id=rng{n},filename=/dev/urandom",
            "device virtio-rng-pci,{at},rng=rng{n},disable-legacy=on,iommu_platform=on",
        ],
        "[ $(dd if=/dev/hwrng bs=4096 count=4 iflag=fullblock 2> /dev/null | sort -u | wc -c) -gt 16000 ]",
    ),
    other(
        "virtio-keyboard",
        &["evdev", "virtio_pci", "virtio_input"],
        &["device virtio-keyboard-pci,{at},disable-legacy=on,iommu_platform=on"],
        "grep -q . $d/virtio*/input/input*/name; ls -d $d/virtio*/input/input*/event*",
    )
    .without_interrupt(),
];

/// The management controller answers.
const BMC: &str = "firmware() { cat /sys/devices/platform/ipmi_bmc*/firmware_revision 2> /dev/null; }
    wait_until 30 test -e /dev/ipmi0 && wait_until 30 firmware || fail the controller does not answer";

/// The drivers of all of them.
pub(crate) fn drivers() -> impl Iterator<Item = &'static str> {
    ALL.iter()
        .flat_map(|inhabitant| inhabitant.drivers.iter().copied())
}
