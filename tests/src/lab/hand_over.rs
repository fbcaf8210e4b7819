//! What is handed over in every state: some devices of the zoo, one for each kind of interrupts that its driver can be
//! made to use, since only a machine's first guest finds a device that was never driven.
//!
//! Not here, and why: MSI of igb, megasas, vmxnet3, NVMe and virtio-pci, whose drivers or models have MSI-X or their
//! wire only; MSI of e1000e, which does not pass its driver's own test of it, under QEMU neither; `edu`, which is driven
//! by hand (scenario/devices/by_hand.rs).

use super::zoo::{self, Inhabitant};

/// A row: a device with one kind of interrupts.
#[derive(Debug)]
pub(crate) struct Visitor {
    /// Its row in the zoo.
    name: &'static str,
    pub(crate) interrupts: Interrupts,
    /// Options of QEMU's device, by which it has no other kind.
    pub(super) property: &'static str,
    /// It has a power management capability, and with that or a better one a way to be reset.
    pub(crate) sleeps: bool,
    /// The host's driver lets go of it without a warning of the kernel's.
    pub(crate) is_left_in_peace: bool,
}

/// How a device interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupts {
    /// By its wire. The guest's kernel is told to use no messages, whether the device has some or not.
    Intx,
    Msi,
    Msix,
}

impl Interrupts {
    pub(crate) const ALL: [Self; 3] = [Self::Intx, Self::Msi, Self::Msix];

    /// As the kernel's `msi_irqs` says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Intx => "intx",
            Self::Msi => "msi",
            Self::Msix => "msix",
        }
    }
}

const fn awake(name: &'static str, interrupts: Interrupts) -> Visitor {
    Visitor {
        name,
        interrupts,
        property: "",
        sleeps: false,
        is_left_in_peace: true,
    }
}

const fn sleeper(name: &'static str, interrupts: Interrupts) -> Visitor {
    Visitor {
        sleeps: true,
        ..awake(name, interrupts)
    }
}

/// The first are in slots of the root bus, the last behind root ports (housing.rs); igb is nowhere else.
const ALL: [Visitor; 25] = [
    awake("rtl8139", Interrupts::Intx),
    awake("VGA", Interrupts::Intx),
    awake("ES1370", Interrupts::Intx),
    Visitor {
        property: ",msi=off",
        ..awake("intel-hda", Interrupts::Intx)
    },
    awake("intel-hda", Interrupts::Msi),
    awake("ich9-ahci", Interrupts::Intx),
    awake("ich9-ahci", Interrupts::Msi),
    Visitor {
        // `sym_detach` frees DMA memory with interrupts off (Linux 6.12).
        is_left_in_peace: false,
        ..awake("lsi53c895a", Interrupts::Intx)
    },
    sleeper("e1000e", Interrupts::Intx),
    sleeper("e1000e", Interrupts::Msix),
    sleeper("nvme", Interrupts::Intx),
    sleeper("nvme", Interrupts::Msix),
    Visitor {
        property: ",msi=off,msix=off",
        ..awake("megasas", Interrupts::Intx)
    },
    awake("megasas", Interrupts::Msix),
    awake("nec-usb-xhci", Interrupts::Intx),
    Visitor {
        property: ",msix=off",
        ..awake("nec-usb-xhci", Interrupts::Msi)
    },
    awake("nec-usb-xhci", Interrupts::Msix),
    awake("vmxnet3", Interrupts::Intx),
    awake("vmxnet3", Interrupts::Msix),
    Visitor {
        property: ",vectors=0",
        ..awake("virtio-net", Interrupts::Intx)
    },
    awake("virtio-net", Interrupts::Msix),
    Visitor {
        property: ",vectors=0",
        ..sleeper("virtio-blk", Interrupts::Intx)
    },
    sleeper("igb", Interrupts::Intx),
    sleeper("igb", Interrupts::Msix),
    sleeper("virtio-blk", Interrupts::Msix),
];

/// All of them, in the order of their places.
pub(crate) fn all() -> impl Iterator<Item = &'static Visitor> {
    ALL.iter()
}

impl Visitor {
    /// The row of the zoo that it is of.
    pub(super) fn inhabitant(&self) -> Inhabitant {
        let row = zoo::ALL.iter().find(|one| one.name == self.name);
        *row.expect("a visitor is of the zoo")
    }

    /// Linux drives virtio's transport as soon as it sees it: its driver is part of Debian's kernel.
    pub(crate) fn is_driven_at_once(&self) -> bool {
        self.name.starts_with("virtio")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_is_once_with_each_kind_of_interrupts() {
        for (place, one) in ALL.iter().enumerate() {
            assert_eq!(one.inhabitant().name, one.name);
            let same = |other: &Visitor| (other.name, other.interrupts) == (one.name, one.interrupts);
            assert_eq!(
                ALL.iter().position(same),
                Some(place),
                "{} is there twice",
                one.name
            );
        }
    }
}
